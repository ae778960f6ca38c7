//! A real nginx, with its own configuration in a directory of its own: what a server of the world does to the client.
//!
//! These tests need the program and are ignored without being asked for; `.ci/run` installs it and asks. nginx closes
//! each connection after seven requests here, so that connections end all the time while requests go on.

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sockeye::test::at_rest;
use sockeye::{Client, ErrorKind, Method, Redirects, Response, Result, Sent, StatusCode};

use crate::support::programs::{free_port, program};
use crate::support::server::{until, within};

/// A running nginx; it ends when this is dropped.
struct Nginx {
    program: PathBuf,
    directory: PathBuf,
    plain: u16,
    secure: u16,
    child: Child,
    #[cfg(feature = "rustls")]
    authority: crate::support::server::Authority,
}

impl Nginx {
    /// Starts it, with files to serve.
    fn start() -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockeye-nginx-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(directory.join("root")).unwrap();
        fs::write(directory.join("root/hello.txt"), HELLO).unwrap();
        fs::write(directory.join("root/large.bin"), large_file()).unwrap();
        fs::write(directory.join("root/missing.html"), MISSING).unwrap();
        #[cfg(feature = "rustls")]
        let authority = crate::support::server::Authority::new();
        #[cfg(feature = "rustls")]
        {
            let identity = authority.local();
            fs::write(directory.join("cert.pem"), identity.certificate_pem()).unwrap();
            fs::write(directory.join("key.pem"), identity.key_pem()).unwrap();
        }
        let (plain, secure) = (free_port(), free_port());
        write_configuration(&directory, plain, secure, 1);
        let program = program("nginx");
        let child = spawn(&program, &directory);
        let nginx = Self {
            program,
            directory,
            plain,
            secure,
            child,
            #[cfg(feature = "rustls")]
            authority,
        };
        nginx.wait_until_it_listens();
        nginx
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.plain)
    }

    #[cfg(feature = "rustls")]
    fn secure_url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.secure)
    }

    fn wait_until_it_listens(&self) {
        let begun = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], self.plain));
        while TcpStream::connect_timeout(&address, PATIENCE).is_err() {
            assert!(begun.elapsed() < PATIENCE, "{}", self.log());
            std::thread::yield_now();
        }
    }

    /// Has nginx read its configuration again, which then calls itself `generation`.
    fn reload(&self, generation: u32) {
        write_configuration(&self.directory, self.plain, self.secure, generation);
        assert!(self.signal("reload"), "{}", self.log());
    }

    /// Ends nginx, and waits for it.
    fn stop(&mut self) {
        let asked = self.signal("stop");
        let begun = Instant::now();
        while asked && begun.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same ports.
    fn start_again(&mut self) {
        self.child = spawn(&self.program, &self.directory);
        self.wait_until_it_listens();
    }

    fn signal(&self, signal: &str) -> bool {
        let mut command = nginx(&self.program, &self.directory);
        command.args(["-s", signal]);
        command.status().is_ok_and(|status| status.success())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn nginx(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg("-p")
        .arg(directory)
        .args(["-c", "nginx.conf", "-e", "error.log"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn spawn(program: &Path, directory: &Path) -> Child {
    nginx(program, directory).spawn().unwrap()
}

fn write_configuration(directory: &Path, plain: u16, secure: u16, generation: u32) {
    let tls = if cfg!(feature = "rustls") {
        format!(
            "listen 127.0.0.1:{secure} ssl;
             ssl_certificate cert.pem;
             ssl_certificate_key key.pem;"
        )
    } else {
        String::new()
    };
    let configuration = format!(
        r#"
        daemon off;
        worker_processes 2;
        pid nginx.pid;
        error_log error.log;
        events {{ worker_connections 512; }}
        http {{
            access_log off;
            client_body_temp_path body;
            proxy_temp_path proxy;
            fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi;
            scgi_temp_path scgi;
            gzip off;
            keepalive_timeout 60s;
            keepalive_requests 7;
            client_max_body_size 1m;
            server {{
                listen 127.0.0.1:{plain};
                {tls}
                server_name localhost;
                root root;
                add_header x-generation {generation} always;
                error_page 404 /missing.html;
                location = /echo {{ return 200 "$request_method $http_host $content_length"; }}
                location = /teapot {{ return 418 "short and stout"; }}
                location = /elsewhere {{ return 302 /hello.txt; }}
                location = /nothing {{ return 204; }}
            }}
        }}
        "#
    );
    fs::write(directory.join("nginx.conf"), configuration).unwrap();
}

/// The large file: a pattern that repeats after a prime number of bytes.
fn large_file() -> Vec<u8> {
    let period: Vec<u8> = (0..PERIOD).map(|at| at.to_le_bytes()[1]).collect();
    period.iter().copied().cycle().take(LARGE).collect()
}

async fn text(response: Result<Response>) -> String {
    response.unwrap().text().await.unwrap()
}

#[tokio::test]
#[ignore = "needs nginx: run by .ci/run"]
async fn interop_nginx_answers_of_every_shape() {
    let nginx = Nginx::start();
    within(async {
        let client = Client::new();
        let get = |path: &str| client.get(nginx.url(path)).send();
        let response = get("/hello.txt").await.unwrap();
        assert_eq!(response.content_length(), Some(HELLO.len() as u64));
        assert_eq!(response.header("content-type"), Some("text/plain"));
        let tag = response.header("etag").unwrap().to_owned();
        assert_eq!(response.text().await.unwrap(), HELLO);

        let head = client.head(nginx.url("/hello.txt")).send().await.unwrap();
        let length = HELLO.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
        assert_eq!(head.bytes().await.unwrap(), "");

        let unchanged = client
            .get(nginx.url("/hello.txt"))
            .header("if-none-match", tag);
        let unchanged = unchanged.send().await.unwrap();
        assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(unchanged.bytes().await.unwrap(), "");

        let error = get("/no/such/file").await.unwrap_err();
        assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
        let status = error.status_error().unwrap();
        assert_eq!(status.body, MISSING);
        assert!(!status.truncated);

        let part = client
            .get(nginx.url("/hello.txt"))
            .header("range", "bytes=2-5");
        let part = part.send().await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.bytes().await.unwrap(), HELLO.as_bytes()[2..6]);

        let nothing = get("/nothing").await.unwrap();
        assert_eq!(nothing.status(), StatusCode::NO_CONTENT);
        assert_eq!(nothing.bytes().await.unwrap(), "");
        let followed = get("/elsewhere").await.unwrap();
        assert_eq!(followed.redirects().len(), 1);
        assert_eq!(followed.text().await.unwrap(), HELLO);
        let elsewhere = client
            .get(nginx.url("/elsewhere"))
            .redirects(Redirects::none());
        let elsewhere = elsewhere.send().await.unwrap();
        assert_eq!(elsewhere.status(), StatusCode::FOUND);
        let location = elsewhere.header("location").unwrap().to_owned();
        assert!(location.ends_with("/hello.txt"), "{location}");
        drop(elsewhere);
        let teapot = get("/teapot").await.unwrap_err();
        assert_eq!(teapot.status_error().unwrap().body, "short and stout");
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs nginx: run by .ci/run"]
async fn interop_nginx_takes_bodies() {
    let nginx = Nginx::start();
    within(async {
        let client = Client::new();
        let host = format!("127.0.0.1:{}", nginx.plain);
        for (method, body, length) in [
            (Method::POST, "payload", "7"),
            (Method::PUT, "", "0"),
            (Method::POST, "", "0"),
            (Method::GET, "", ""),
            (Method::DELETE, "abc", "3"),
        ] {
            let request = client
                .request(method.clone(), nginx.url("/echo"))
                .body(body);
            let answer = text(request.send().await).await;
            assert_eq!(answer, format!("{method} {host} {length}"));
        }
        // A static file is not there to be posted to.
        let request = client.post(nginx.url("/hello.txt")).body("payload");
        let error = request.send().await.unwrap_err();
        assert_eq!(error.status(), Some(StatusCode::METHOD_NOT_ALLOWED));
        // Twice what the server takes: it answers early and closes.
        let request = client.post(nginx.url("/echo")).body(vec![b'x'; 2 << 20]);
        let error = request.send().await.unwrap_err();
        assert_eq!(
            error.status(),
            Some(StatusCode::PAYLOAD_TOO_LARGE),
            "{error}"
        );
        let again = client.get(nginx.url("/hello.txt")).send().await;
        assert_eq!(text(again).await, HELLO);
        at_rest(&client);
    })
    .await;
}

/// nginx asks for a body that it takes, and refuses one that is too large before any of it is sent.
#[tokio::test]
#[ignore = "needs nginx: run by .ci/run"]
async fn interop_nginx_expectations() {
    let nginx = Nginx::start();
    within(async {
        let client = Client::new();
        let host = format!("127.0.0.1:{}", nginx.plain);
        for body in ["payload", ""] {
            let request = client.post(nginx.url("/echo")).body(body);
            let answer = text(request.expect_continue(true).send().await).await;
            assert_eq!(answer, format!("POST {host} {}", body.len()));
        }
        let request = client.post(nginx.url("/echo")).body(vec![b'x'; 2 << 20]);
        let error = request.expect_continue(true).send().await.unwrap_err();
        assert_eq!(
            error.status(),
            Some(StatusCode::PAYLOAD_TOO_LARGE),
            "{error}"
        );
        let sent = client.stats().total.bytes_sent;
        assert!(sent < 2048, "{sent} bytes were sent, the body with them");
        let again = client.get(nginx.url("/hello.txt")).send().await;
        assert_eq!(text(again).await, HELLO);
        at_rest(&client);
    })
    .await;
}

/// Reads the large file piece by piece and compares it.
async fn download(client: &Client, url: String) {
    let expected = large_file();
    let mut response = client.get(url).send().await.unwrap();
    assert_eq!(response.content_length(), Some(LARGE as u64));
    let mut at = 0;
    while let Some(chunk) = response.chunk().await.unwrap() {
        assert!(
            expected.get(at..at + chunk.len()) == Some(&chunk),
            "wrong from byte {at}"
        );
        at += chunk.len();
    }
    assert_eq!(at, LARGE);
    assert_eq!(client.stats().total.connections_idle, 1);
    at_rest(client);
}

#[tokio::test]
#[ignore = "needs nginx: run by .ci/run"]
async fn interop_nginx_large_file() {
    let nginx = Nginx::start();
    within(download(&Client::new(), nginx.url("/large.bin"))).await;
}

/// 500 requests one after the other, and 500 at once.
async fn many(client: &Client, url: &str) {
    for _ in 0..500 {
        assert_eq!(text(client.get(url).send().await).await, HELLO);
    }
    let total = client.stats().total;
    // Seven requests a connection are 72 connections.
    assert_eq!(total.connections_opened, 72);
    assert_eq!(total.connections_reused, 500 - 72);
    assert_eq!(total.retries, 0, "nginx announces that it closes");

    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let request = client.get(url);
        tasks.spawn(async move {
            let response = request.send().await.unwrap();
            let id = response.connection().id;
            assert_eq!(response.text().await.unwrap(), HELLO);
            id
        });
    }
    let ids: HashSet<u64> = tasks.join_all().await.into_iter().collect();
    assert!(
        ids.len() < 250,
        "{} connections for 500 requests",
        ids.len()
    );
    let total = client.stats().total;
    assert_eq!(total.responses_2xx, 1_000);
    assert_eq!(total.errors.total(), 0);
    until("all dials have ended", || {
        client.stats().total.connections_connecting == 0
    })
    .await;
    at_rest(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx: run by .ci/run"]
async fn interop_nginx_closes_often() {
    let nginx = Nginx::start();
    within(many(&Client::new(), &nginx.url("/hello.txt"))).await;
}

/// Connections that are idle when nginx reloads or stops are replaced. A POST fails where it crosses with the close, and only
/// there.
async fn restart(client: &Client, mut nginx: Nginx, scheme: &str, port: u16) {
    let url = |path: &str| format!("{scheme}://localhost:{port}{path}");
    // A new generation of workers, while a connection is idle.
    for generation in 2..5 {
        assert_eq!(
            text(client.get(url("/hello.txt")).send().await).await,
            HELLO
        );
        assert_eq!(client.stats().total.connections_idle, 1);
        nginx.reload(generation);
        let expected = generation.to_string();
        let begun = Instant::now();
        let mut crossed = 0;
        loop {
            let response = match client.post(url("/echo")).body("x").send().await {
                Ok(response) => response,
                // A worker that leaves closes its idle connections without a look at what may have come on them. A request
                // can cross with that, and whether it was processed nobody can tell: a POST is not sent twice.
                Err(error) if crossed == 0 => {
                    assert_eq!(
                        (error.kind(), error.sent()),
                        (ErrorKind::Io, Sent::All),
                        "{error}"
                    );
                    crossed += 1;
                    continue;
                }
                Err(error) => panic!("a second time: {error}"),
            };
            let seen = response.header("x-generation").map(str::to_owned);
            response.bytes().await.unwrap();
            if seen.as_ref() == Some(&expected) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "still of generation {seen:?}");
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(
        text(client.get(url("/hello.txt")).send().await).await,
        HELLO
    );
    nginx.stop();
    for method in [Method::GET, Method::POST] {
        let request = client.request(method, url("/echo"));
        let error = request.send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    }
    nginx.start_again();
    let request = client.post(url("/echo")).body("x");
    assert!(text(request.send().await).await.starts_with("POST "));
    assert_eq!(client.stats().total.connections_idle, 1);
    at_rest(client);
}

#[tokio::test]
#[ignore = "needs nginx: run by .ci/run"]
async fn interop_nginx_reload_and_restart() {
    let nginx = Nginx::start();
    let port = nginx.plain;
    within(restart(&Client::new(), nginx, "http", port)).await;
}

/// The same over TLS.
#[cfg(feature = "rustls")]
mod secure {
    use super::*;
    use sockeye::TlsConfig;

    fn client_of(nginx: &Nginx) -> Client {
        let tls = TlsConfig::builder().only_roots(nginx.authority.pem());
        Client::builder().tls(tls.build().unwrap()).build().unwrap()
    }

    #[tokio::test]
    #[ignore = "needs nginx: run by .ci/run"]
    async fn interop_nginx_tls_large_file() {
        let nginx = Nginx::start();
        within(download(&client_of(&nginx), nginx.secure_url("/large.bin"))).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs nginx: run by .ci/run"]
    async fn interop_nginx_tls_closes_often() {
        let nginx = Nginx::start();
        within(many(&client_of(&nginx), &nginx.secure_url("/hello.txt"))).await;
    }

    #[tokio::test]
    #[ignore = "needs nginx: run by .ci/run"]
    async fn interop_nginx_tls_reload_and_restart() {
        let nginx = Nginx::start();
        let (client, port) = (client_of(&nginx), nginx.secure);
        within(restart(&client, nginx, "https", port)).await;
    }

    #[tokio::test]
    #[ignore = "needs nginx: run by .ci/run"]
    async fn interop_nginx_tls_handshake() {
        let nginx = Nginx::start();
        within(async {
            let error = Client::new()
                .get(nginx.secure_url("/"))
                .send()
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
            // Spoken to in plain HTTP, nginx says what is wrong itself.
            let client = client_of(&nginx);
            let plain = nginx.secure_url("/").replace("https", "http");
            let error = client.get(plain).send().await.unwrap_err();
            assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
            // And TLS spoken to its plain port is told by us.
            let secure = nginx.url("/").replace("http", "https");
            let error = client.get(secure).send().await.unwrap_err();
            assert!(error.to_string().contains("does not speak TLS"), "{error}");
            let url = nginx.secure_url("/hello.txt");
            for resumed in [false, true] {
                let response = client.get(&url).send().await.unwrap();
                let tls = response.connection().tls.clone().unwrap();
                assert_eq!(tls.resumed(), resumed);
                assert_eq!(response.text().await.unwrap(), HELLO);
                client.close_idle();
            }
            at_rest(&client);
        })
        .await;
    }
}

const HELLO: &str = "hello from a file\n";
const MISSING: &str = "there is no such page\n";

/// Bytes of the large file.
const LARGE: usize = 64 << 20;

/// Bytes after which the large file repeats.
const PERIOD: u32 = 65_521;

/// Longer than starting or ending nginx takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);
