//! The settings of TLS that are not about who is trusted: what two configurations share, versions and groups, client
//! identities, the key log, and that nothing secret is ever shown.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{KeyPair, RsaKeySize};
use sockeye::test::at_rest;
use sockeye::{
    Client, ClientIdentity, ErrorKind, Limits, Phase, TlsConfig, TlsConfigBuilder, TlsInfo,
    TlsVersion,
};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::support::server::{Authority, Server, TLS12, TLS13, honest, until, within};

fn client_with(tls: &TlsConfig) -> Client {
    let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
    let builder = Client::builder().limits(limits).tls(tls.clone());
    builder.build().unwrap()
}

fn trusting(authority: &Authority) -> TlsConfigBuilder {
    TlsConfig::builder().only_roots(authority.pem())
}

/// An authority, and what its server for this machine speaks TLS with.
fn local(versions: &[&'static SupportedProtocolVersion]) -> (Authority, Arc<ServerConfig>) {
    let authority = Authority::new();
    let config = authority.local().server(versions);
    (authority, config)
}

/// What a GET on a new connection has settled. The connection is closed, and its tickets are read before.
async fn settled(client: &Client, server: &Server) -> TlsInfo {
    let before = server.accepted();
    let response = client.get(server.url_of("localhost", "/")).send().await;
    let response = response.unwrap();
    assert!(!response.reused());
    assert_eq!(server.accepted(), before + 1);
    let info = response.connection().tls.clone().unwrap();
    assert_eq!(response.text().await.unwrap(), "GET / ");
    client.close_idle();
    until("the server sees the end", || server.open() == 0).await;
    info
}

#[tokio::test]
async fn sessions_are_resumed_within_a_configuration_only() {
    for versions in [TLS12, TLS13] {
        within(async {
            let (authority, config) = local(versions);
            let server = Server::tls(config, honest);
            let first = trusting(&authority).build().unwrap();
            // As equal as they can be.
            let second = trusting(&authority).build().unwrap();
            let client = client_with(&first);
            assert!(!settled(&client, &server).await.resumed());
            assert!(settled(&client, &server).await.resumed());
            // Another client of the same configuration shares sessions, and no sockets.
            assert!(settled(&client_with(&first), &server).await.resumed());
            let other = client_with(&second);
            assert!(!settled(&other, &server).await.resumed());
            assert!(settled(&other, &server).await.resumed());
            at_rest(&client);
            at_rest(&other);
        })
        .await;
    }
}

#[tokio::test]
async fn two_configurations_share_no_socket() {
    within(async {
        let (authority, config) = local(TLS13);
        let server = Server::tls(config, honest);
        let settings: [TlsConfigBuilder; 5] = [
            trusting(&authority),
            trusting(&authority),
            trusting(&authority).server_name("localhost"),
            trusting(&authority).post_quantum(false),
            trusting(&authority).danger_accept_invalid_certs(true),
        ];
        let clients: Vec<Client> = settings
            .into_iter()
            .map(|setting| client_with(&setting.build().unwrap()))
            .collect();
        // Each leaves an idle connection, which none of the next may take.
        for _ in 0..2 {
            for client in &clients {
                let response = client.get(server.url("/")).send().await.unwrap();
                assert_eq!(response.text().await.unwrap(), "GET / ");
            }
        }
        assert_eq!(server.accepted(), clients.len());
        clients.iter().for_each(at_rest);
    })
    .await;
}

#[tokio::test]
async fn resumption_can_be_turned_off() {
    for versions in [TLS12, TLS13] {
        within(async {
            let (authority, config) = local(versions);
            let server = Server::tls(config, honest);
            let tls = trusting(&authority).resumable_hosts(0).build().unwrap();
            let client = client_with(&tls);
            for _ in 0..3 {
                assert!(!settled(&client, &server).await.resumed());
            }
            at_rest(&client);
        })
        .await;
    }
}

#[tokio::test]
async fn the_oldest_host_is_forgotten_first() {
    within(async {
        let (authority, config) = local(TLS13);
        let server = Server::tls(config, honest);
        let tls = trusting(&authority).resumable_hosts(1).build().unwrap();
        let client = client_with(&tls);
        let by = async |host: &str| {
            let response = client.get(server.url_of(host, "/")).send().await.unwrap();
            let resumed = response.connection().tls.as_ref().unwrap().resumed();
            response.text().await.unwrap();
            client.close_idle();
            until("the server sees the end", || server.open() == 0).await;
            resumed
        };
        assert!(!by("localhost").await);
        assert!(by("localhost").await);
        assert!(!by("127.0.0.1").await);
        assert!(!by("localhost").await);
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn the_key_exchange_is_hybrid_unless_turned_off() {
    within(async {
        let (authority, config) = local(TLS13);
        let server = Server::tls(config, honest);
        for offer in [true, false] {
            let tls = trusting(&authority).post_quantum(offer).build().unwrap();
            let client = client_with(&tls);
            let info = settled(&client, &server).await;
            let hybrid = offer && cfg!(feature = "tls");
            let expected = if hybrid { "X25519MLKEM768" } else { "X25519" };
            assert_eq!(info.key_exchange(), Some(expected));
            at_rest(&client);
        }
    })
    .await;
}

#[tokio::test]
async fn aes_128_is_asked_for_first_unless_turned_off() {
    for (versions, aes_256_first, expected) in [
        (TLS13, false, "TLS13_AES_128_GCM_SHA256"),
        (TLS13, true, "TLS13_AES_256_GCM_SHA384"),
        (TLS12, false, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        (TLS12, true, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ] {
        within(async {
            // A server that takes what the client names first.
            let (authority, config) = local(versions);
            let server = Server::tls(config, honest);
            let tls = trusting(&authority).aes_256_first(aes_256_first);
            let client = client_with(&tls.build().unwrap());
            assert_eq!(settled(&client, &server).await.cipher_suite(), expected);
            at_rest(&client);
        })
        .await;
    }
}

#[tokio::test]
async fn an_old_version_is_refused_if_a_newer_one_is_demanded() {
    within(async {
        let (authority, config) = local(TLS12);
        let server = Server::tls(config, honest);
        let tls = trusting(&authority).min_version(TlsVersion::Tls13);
        let client = client_with(&tls.build().unwrap());
        let error = client.get(server.url("/")).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert_eq!(error.phase(), Some(Phase::Tls), "{error}");
        assert_eq!(server.requests().len(), 0);
        at_rest(&client);
    })
    .await;
}

#[test]
fn settings_that_cannot_be_used_are_errors_that_name_them() {
    let authority = Authority::new();
    let certificate = authority.pem();
    let build = |set: &dyn Fn(TlsConfigBuilder) -> TlsConfigBuilder| {
        let error = set(TlsConfig::builder()).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert_eq!(error.phase(), Some(Phase::Prepare), "{error}");
        error.to_string()
    };
    let names = [
        "",
        "b\u{fc}cher.test",
        "[::1]",
        "h:443",
        "127.1",
        "0x7f.1",
        "a..b",
        "-a",
        "a b",
        "a\0b",
        "*.test",
    ];
    for name in names {
        let line = build(&|set| set.server_name(name));
        assert!(line.contains(&format!("{name:?} is no name")), "{line}");
    }
    for name in [
        "a.test",
        "a.test.",
        "xn--bcher-kva.test",
        "192.0.2.1",
        "::1",
    ] {
        let built = TlsConfig::builder().server_name(name).build();
        assert!(built.is_ok(), "{name}");
    }
    for pin in [
        "",
        "x",
        "sha256/",
        "sha1/AAAA",
        "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM",
    ] {
        let line = build(&|set| set.pin_spki(pin));
        assert!(line.contains(&format!("{pin:?} is no pin")), "{line}");
    }
    let line = build(&|set| set.crls(""));
    assert!(line.contains("no certificate revocation list"), "{line}");
    let line = build(&|set| set.crls(&certificate));
    assert!(line.contains("no certificate revocation list"), "{line}");
    let line =
        build(&|set| set.crls("-----BEGIN X509 CRL-----\naGVsbG8=\n-----END X509 CRL-----\n"));
    assert!(line.contains("revocation list cannot be used"), "{line}");
    for hosts in [65_537, usize::MAX] {
        let line = build(&|set| set.resumable_hosts(hosts));
        let expected = format!("resumable_hosts is {hosts}; it must be at most 65536");
        assert!(line.contains(&expected), "{line}");
    }
    assert!(TlsConfig::builder().resumable_hosts(65_536).build().is_ok());
    // A mistake stays one where the file counts for nothing.
    let line = build(&|set| set.danger_accept_invalid_certs(true).only_roots("none"));
    assert!(line.contains("no certificate"), "{line}");
}

/// A key in all the ways in which a file may hold it.
#[test]
fn identities_are_read_from_every_form_of_key() {
    let openssl = |arguments: &[&str], key: &str| {
        use std::io::Write;
        let mut child = Command::new("openssl")
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .ok()?;
        child.stdin.take()?.write_all(key.as_bytes()).ok()?;
        let output = child.wait_with_output().ok()?;
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).ok()
    };
    let ec = KeyPair::generate().unwrap();
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    for key in [ec, rsa] {
        let params = rcgen::CertificateParams::new(["client.test".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let pkcs8 = key.serialize_pem();
        let read = |key: &str| {
            TlsConfig::builder().client_identity_pem(certificate.as_bytes(), key.as_bytes())
        };
        assert!(read(&pkcs8).unwrap().build().is_ok());
        let both = certificate.clone() + &pkcs8;
        let one_file = TlsConfig::builder().client_identity_pem(both.as_bytes(), both.as_bytes());
        assert!(one_file.unwrap().build().is_ok());
        // Without the program the other forms have nobody to write them.
        let Some(traditional) = openssl(&["pkey", "-traditional"], &pkcs8) else {
            return;
        };
        assert!(!traditional.contains("BEGIN PRIVATE KEY"), "{traditional}");
        assert!(read(&traditional).unwrap().build().is_ok());
        let encrypted = openssl(&["pkcs8", "-topk8", "-passout", "pass:geheim"], &pkcs8).unwrap();
        let line = read(&encrypted).unwrap_err().to_string();
        assert!(line.contains("encrypted"), "{line}");
    }
}

#[test]
fn identities_that_cannot_be_used_are_errors_that_show_nothing() {
    let authority = Authority::new();
    let (identity, other) = (authority.local(), authority.local());
    let certificate = identity.certificate_pem();
    let key = other.key_pem();
    let secret = key.lines().nth(1).unwrap();
    let garbled = key.replace(secret, "!!!!");
    let not_der = "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n";
    let bad_line = key.replace("KEY-----\n", "KEY----\n");
    let endless = key.replace("-----END", "----END");
    for (certificate, key, saying) in [
        (
            certificate.as_str(),
            key.as_str(),
            "not that of the client's certificate",
        ),
        (certificate.as_str(), "", "no private key"),
        (certificate.as_str(), certificate.as_str(), "no private key"),
        (certificate.as_str(), not_der, "private key is malformed"),
        (certificate.as_str(), garbled.as_str(), "no base64"),
        (certificate.as_str(), bad_line.as_str(), "begins a section"),
        (certificate.as_str(), endless.as_str(), "no end line"),
        (key.as_str(), key.as_str(), "no certificate"),
        ("", key.as_str(), "no certificate"),
        (
            "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
            key.as_str(),
            "certificate is malformed",
        ),
    ] {
        let read = TlsConfig::builder().client_identity_pem(certificate.as_bytes(), key.as_bytes());
        let error = read.unwrap_err();
        let line = error.to_string();
        assert!(line.contains(saying), "{saying}: {line}");
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert_eq!(error.phase(), Some(Phase::Prepare));
        assert!(!format!("{error} {error:?}").contains(secret), "{line}");
    }
}

#[test]
fn debug_shows_no_key_and_no_certificate() {
    let authority = Authority::new();
    let identity = authority.local();
    let (certificate, key) = (identity.certificate_pem(), identity.key_pem());
    let builder = trusting(&authority)
        .client_identity_pem(certificate.as_bytes(), key.as_bytes())
        .unwrap()
        .key_log(true)
        .server_name("a.test");
    let shown = format!("{builder:?} {:#?}", builder.clone().build().unwrap());
    assert!(shown.contains("client_identity: true"), "{shown}");
    assert!(shown.len() < 1000, "{shown}");
    for secret in key.lines().chain(certificate.lines()).skip(1) {
        assert!(!shown.contains(secret), "{shown}");
    }
}

/// What a server speaks TLS with that wants to see a certificate of `authority`.
fn asking(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let plain = authority.local().server(versions);
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_cert_resolver(Arc::clone(&plain.cert_resolver));
    Arc::new(config)
}

#[tokio::test]
async fn a_server_may_refuse_the_client_after_the_handshake() {
    within(async {
        let authority = Authority::new();
        let server = Server::tls(asking(&authority, TLS13), honest);
        let client = client_with(&trusting(&authority).build().unwrap());
        let error = client.get(server.url("/")).send().await.unwrap_err();
        // Not a stale connection: another try would fail the same way, and none is made.
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(error.to_string().contains("client_identity_pem"), "{error}");
        assert_eq!(error.attempts(), 1);
        assert!(!error.is_retryable());
        assert_eq!(server.accepted(), 1);
        at_rest(&client);
        let identity = authority.issue(&["client.test"], 4000);
        let tls = trusting(&authority).client_identity_pem(
            identity.certificate_pem().as_bytes(),
            identity.key_pem().as_bytes(),
        );
        let client = client_with(&tls.unwrap().build().unwrap());
        assert_eq!(settled(&client, &server).await.version(), "TLSv1.3");
        at_rest(&client);
    })
    .await;
}

/// Ruling 22. The server knows one of two identities, so an answer tells which of them it was shown.
#[tokio::test]
async fn an_identity_is_replaced_while_a_client_uses_it() {
    for versions in [TLS12, TLS13] {
        within(async {
            let authority = Authority::new();
            let server = Server::tls(asking(&authority, versions), honest);
            let pem = |authority: &Authority| {
                let identity = authority.issue(&["client.test"], 4000);
                (identity.certificate_pem(), identity.key_pem())
            };
            let (known, unknown) = (pem(&authority), pem(&Authority::new()));
            let from = |(certificate, key): &(String, String)| {
                ClientIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap()
            };
            let reload = |identity: &ClientIdentity, (certificate, key): &(String, String)| {
                identity.reload_pem(certificate.as_bytes(), key.as_bytes())
            };
            let identity = from(&known);
            let tls = trusting(&authority)
                .client_identity(&identity)
                .build()
                .unwrap();
            let client = client_with(&tls);
            let get = || client.get(server.url("/")).send();
            get().await.unwrap().text().await.unwrap();
            assert!(get().await.unwrap().reused());
            until("the connection is back", || {
                client.stats().total.connections_idle == 1
            })
            .await;

            // What cannot be used changes nothing.
            let mixed = (known.0.clone(), unknown.1.clone());
            assert!(reload(&identity, &mixed).is_err());
            assert!(get().await.unwrap().reused());

            // What is idle closes at once, and no session is resumed.
            reload(&identity, &unknown).unwrap();
            until("the idle connection is closed", || server.open() == 0).await;
            let error = get().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
            assert!(
                error.to_string().contains("client's certificate"),
                "{error}"
            );

            reload(&identity, &known).unwrap();
            let response = get().await.unwrap();
            assert!(!response.reused());
            // What is lent is not used again.
            reload(&identity, &known).unwrap();
            assert!(!response.connection().tls.as_ref().unwrap().resumed());
            response.text().await.unwrap();
            let response = get().await.unwrap();
            assert!(!response.reused());
            assert!(!response.connection().tls.as_ref().unwrap().resumed());
            response.text().await.unwrap();
            assert!(get().await.unwrap().reused());
            at_rest(&client);
            // A client that has gone is no longer told.
            drop(client);
            drop(tls);
            reload(&identity, &unknown).unwrap();
        })
        .await;
    }
}

/// The variable is one of the process, so this runs once more in one of its own.
#[test]
fn keys_are_logged_on_request_only() {
    let name = format!("sockeye-keys-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    for (asked, lines) in [("no", false), ("yes", true)] {
        let _ = std::fs::remove_file(&file);
        let status = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "tls_settings::one_call_for_the_key_log",
                "--ignored",
            ])
            .env("SSLKEYLOGFILE", &file)
            .env("SOCKEYE_TEST_KEY_LOG", asked)
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.status.success(), "{output}");
        assert!(output.contains("1 passed"), "{output}");
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            written.contains("CLIENT_TRAFFIC_SECRET_0"),
            lines,
            "{written}"
        );
        assert_eq!(file.exists(), lines);
    }
    let _ = std::fs::remove_file(&file);
}

#[tokio::test]
#[ignore = "run by keys_are_logged_on_request_only"]
async fn one_call_for_the_key_log() {
    within(async {
        let (authority, config) = local(TLS13);
        let server = Server::tls(config, honest);
        let mut tls = trusting(&authority);
        if std::env::var("SOCKEYE_TEST_KEY_LOG").is_ok_and(|asked| asked == "yes") {
            tls = tls.key_log(true);
        }
        let client = client_with(&tls.build().unwrap());
        settled(&client, &server).await;
        at_rest(&client);
    })
    .await;
}
