//! A real `openssl s_server`: the rows of the certificate table that no Rust server can show, such as old versions, old
//! hashes and small keys.
//!
//! These tests need the program and are ignored without being asked for; `.ci/run` asks.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sockeye::test::at_rest;
use sockeye::{Client, ErrorKind, HttpVersions, StatusCode, TlsConfig};

use crate::support::programs::free_port;
use crate::support::server::within;

/// A directory with an authority of its own; it is removed when this is dropped.
struct Workshop(PathBuf);

impl Workshop {
    fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockeye-openssl-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let extensions = "[leaf]\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n";
        fs::write(directory.join("extensions"), extensions).unwrap();
        let workshop = Self(directory);
        workshop.openssl(
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=authority -days 3650",
        );
        workshop
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .current_dir(&self.0)
            .args(arguments.split(' '))
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {said}");
    }

    /// Issues `name`.pem and `name`.key.
    fn issue(&self, name: &str, key: &str, options: &str) {
        self.openssl(&format!(
            "req -newkey {key} -nodes -keyout {name}.key -out {name}.csr -subj /CN=leaf"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -out {name}.pem {options}"
        ));
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap()
    }

    fn serve(&self, name: &str, options: &str) -> SServer {
        SServer::start(&self.0, name, options)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server, which answers every request with a page about itself; it ends when this is dropped.
struct SServer {
    port: u16,
    child: Child,
}

impl SServer {
    fn start(directory: &Path, name: &str, options: &str) -> Self {
        let port = free_port();
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        let child = Command::new("openssl")
            .current_dir(directory)
            .args(["s_server", "-www", "-quiet", "-accept"])
            .arg(format!("127.0.0.1:{port}"))
            .args(["-cert", &certificate, "-key", &key])
            .args(options.split(' ').filter(|option| !option.is_empty()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut server = Self { port, child };
        let begun = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        while TcpStream::connect_timeout(&address, PATIENCE).is_err() {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "openssl s_server {options} ended");
            assert!(begun.elapsed() < PATIENCE, "openssl does not listen");
            std::thread::yield_now();
        }
        server
    }

    async fn get(&self, tls: TlsConfig) -> sockeye::Result<StatusCode> {
        // HTTP/2 is no language of this server.
        let client = Client::builder()
            .tls(tls)
            .http_versions(HttpVersions::Http1)
            .build()
            .unwrap();
        let url = format!("https://localhost:{}/", self.port);
        let outcome = match client.get(url).send().await {
            Ok(response) => {
                let status = response.status();
                response.bytes().await.map(|_| status)
            }
            Err(error) => Err(error),
        };
        at_rest(&client);
        outcome
    }
}

impl Drop for SServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
#[ignore = "needs openssl"]
async fn the_rest_of_the_table() {
    let workshop = Workshop::new();
    let san = "-extfile extensions -extensions leaf";
    workshop.issue("good", "rsa:2048", &format!("-sha256 {san}"));
    workshop.issue("small", "rsa:1024", &format!("-sha256 {san}"));
    workshop.issue("sha1", "rsa:2048", &format!("-sha1 {san}"));
    workshop.issue("md5", "rsa:2048", &format!("-md5 {san}"));
    workshop.issue("version1", "rsa:2048", "-sha256");
    let weak = "-cipher ALL:@SECLEVEL=0";
    let table: &[(&str, &str, Result<(), &str>)] = &[
        ("good", "-tls1_2", Ok(())),
        ("good", "-tls1_3", Ok(())),
        ("small", weak, Err("key is too weak")),
        ("sha1", weak, Err("not accepted, such as SHA-1")),
        ("md5", weak, Err("not accepted, such as SHA-1")),
        ("version1", "", Err("not of X.509 version 3")),
        (
            "good",
            "-tls1 -cipher ALL:@SECLEVEL=0",
            Err("1.2 is the oldest"),
        ),
        (
            "good",
            "-tls1_1 -cipher ALL:@SECLEVEL=0",
            Err("1.2 is the oldest"),
        ),
        (
            "good",
            "-tls1_2 -cipher AES128-GCM-SHA256",
            Err("no cipher suite"),
        ),
        (
            "good",
            "-tls1_2 -cipher ECDHE-RSA-AES128-SHA256",
            Err("no cipher suite"),
        ),
        (
            "good",
            "-tls1_2 -cipher DHE-RSA-AES128-GCM-SHA256",
            Err("no cipher suite"),
        ),
        ("good", "-tls1_3 -groups P-521", Err("no cipher suite")),
        // The client sent no share of this group: another round trip.
        ("good", "-tls1_3 -groups P-384", Ok(())),
        ("good", "-alpn h2,http/1.1", Ok(())),
        (
            "good",
            "-alpn nothing",
            Err("HTTP versions that were offered"),
        ),
    ];
    for (name, options, expected) in table {
        let server = workshop.serve(name, options);
        let tls = TlsConfig::builder().only_roots(workshop.read("ca.pem"));
        let case = format!("{name} {options}");
        let outcome = within(server.get(tls.build().unwrap())).await;
        match (outcome, expected) {
            (Ok(status), Ok(())) => assert_eq!(status, StatusCode::OK, "{case}"),
            (Err(error), Err(saying)) => {
                assert!(error.to_string().contains(saying), "{case}: {error}");
                assert_eq!(error.kind(), ErrorKind::Tls, "{case}: {error}");
            }
            (outcome, expected) => panic!("{case}: {outcome:?} instead of {expected:?}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs openssl"]
async fn a_client_certificate_is_asked_for() {
    let workshop = Workshop::new();
    workshop.issue(
        "good",
        "rsa:2048",
        "-sha256 -extfile extensions -extensions leaf",
    );
    workshop.issue(
        "client",
        "rsa:2048",
        "-sha256 -extfile extensions -extensions leaf",
    );
    for version in ["-tls1_2", "-tls1_3"] {
        let options = format!("{version} -CAfile ca.pem -Verify 2 -verify_return_error");
        let server = workshop.serve("good", &options);
        let tls = || TlsConfig::builder().only_roots(workshop.read("ca.pem"));
        let error = within(server.get(tls().build().unwrap()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(error.to_string().contains("client certificate"), "{error}");
        let known = tls()
            .client_identity_pem(&workshop.read("client.pem"), &workshop.read("client.key"))
            .unwrap();
        let status = within(server.get(known.build().unwrap())).await.unwrap();
        assert_eq!(status, StatusCode::OK);
    }
}

const PATIENCE: Duration = Duration::from_secs(15);
