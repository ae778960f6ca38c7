//! Certificates verified by the operating system (feature `platform-verifier`), against a server on loopback.
//!
//! What the system trusts is told to a child process in the variable SSL_CERT_FILE, which OpenSSL has made usual and which the
//! verifier honours on Linux and the BSDs; elsewhere there is a store that a test cannot change.

use std::process::Command;

use sockeye::test::at_rest;
use sockeye::{Client, ErrorKind, Phase, Sent, TlsConfig};

use crate::support::server::{Authority, Server, TLS12, TLS13, honest, within};

fn client() -> Client {
    let tls = TlsConfig::builder().platform_verifier().build().unwrap();
    Client::builder().tls(tls).build().unwrap()
}

async fn refused(client: &Client, url: String, saying: &str) {
    let error = client.get(url).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert_eq!(error.phase(), Some(Phase::Tls), "{error}");
    assert_eq!(error.sent(), Sent::Nothing);
    assert!(error.is_tls() && error.is_connect() && !error.is_retryable());
    assert!(error.to_string().contains(saying), "{error}");
    at_rest(client);
}

#[tokio::test]
async fn an_authority_that_the_system_does_not_know_is_refused() {
    within(async {
        let authority = Authority::new();
        let client = client();
        for versions in [TLS12, TLS13] {
            let server = Server::tls(authority.local().server(versions), honest);
            refused(&client, server.url("/"), "issuer is not trusted").await;
            assert!(server.requests().is_empty());
        }
        // One more root of the caller's, beside those of the system.
        let tls = TlsConfig::builder()
            .platform_verifier()
            .add_root_pem(authority.pem().as_bytes())
            .unwrap();
        let client = Client::builder().tls(tls.build().unwrap()).build().unwrap();
        let server = Server::tls(authority.local().server(TLS13), honest);
        let response = client.get(server.url("/")).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "GET / ");
        let other = Server::tls(authority.issue(&["a.test"], 4000).server(TLS13), honest);
        refused(&client, other.url("/"), "another host").await;
    })
    .await;
}

#[cfg(target_os = "linux")]
#[test]
fn an_authority_that_the_system_knows_is_trusted() {
    let authority = Authority::new();
    let directory = std::env::temp_dir().join(format!("sockeye-roots-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("roots.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let good = Server::tls(authority.local().server(TLS13), honest);
    let expired = Server::tls(authority.issue(&["127.0.0.1"], 2001).server(TLS13), honest);
    let stranger = Server::tls(Authority::new().local().server(TLS13), honest);
    let urls = [&good, &expired, &stranger].map(|server| server.url("/"));
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "platform::child_of_an_authority_that_the_system_knows",
            "--ignored",
        ])
        .env("SSL_CERT_FILE", &file)
        .env_remove("SSL_CERT_DIR")
        .env(URLS, urls.join(" "))
        .output()
        .unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("1 passed"), "{shown}");
    assert_eq!(good.requests(), ["GET /"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "run by an_authority_that_the_system_knows_is_trusted, with roots of its own"]
async fn child_of_an_authority_that_the_system_knows() {
    let urls = std::env::var(URLS).unwrap();
    let mut urls = urls.split(' ').map(str::to_owned);
    let mut next = || urls.next().unwrap();
    within(async {
        let client = client();
        let response = client.get(next()).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "GET / ");
        refused(&client, next(), "has expired").await;
        // Its authority has the name of the one that is trusted.
        refused(&client, next(), "another issuer of the same name").await;
    })
    .await;
}

/// The variable in which a child finds its servers: a good one, one that has expired, one of a stranger.
#[cfg(target_os = "linux")]
const URLS: &str = "SOCKEYE_TEST_URLS";
