//! HTTP/2 with real servers: nghttpd, which is made by those who know the protocol best, and nginx, which most of the world
//! runs. Both in the clear and under TLS.
//!
//! These tests need the programs and are ignored without being asked for; `.ci/run` installs them and asks.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use sockeye::test::at_rest;
use sockeye::{Body, Client, Http2Config, HttpVersions, StatusCode, Timeouts};
use tokio::task::JoinSet;

use crate::support::programs::{free_port, program};
use crate::support::server::{Authority, until, within};

/// Which server, and how it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nghttpd,
    NghttpdTls,
    Nginx,
    NginxTls,
}

const ALL: [Kind; 4] = [Kind::Nghttpd, Kind::NghttpdTls, Kind::Nginx, Kind::NginxTls];

impl Kind {
    fn is_tls(self) -> bool {
        matches!(self, Self::NghttpdTls | Self::NginxTls)
    }

    fn is_nginx(self) -> bool {
        matches!(self, Self::Nginx | Self::NginxTls)
    }
}

/// A running server; it ends when this is dropped.
struct Program {
    kind: Kind,
    port: u16,
    directory: PathBuf,
    authority: Authority,
    child: Child,
}

impl Program {
    /// Starts it with files to serve. nginx ends each session after so many requests.
    fn start(kind: Kind, requests: u32) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockeye-http2-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let root = directory.join("root");
        fs::create_dir_all(&root).unwrap();
        // nginx's worker, which is another user when the master is root, stores uploads there.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(root.join("small"), SMALL).unwrap();
        let authority = Authority::new();
        let identity = authority.local();
        fs::write(directory.join("cert.pem"), identity.certificate_pem()).unwrap();
        fs::write(directory.join("key.pem"), identity.key_pem()).unwrap();
        let port = free_port();
        let mut command = if kind.is_nginx() {
            let tls = match kind.is_tls() {
                true => "ssl http2; ssl_certificate cert.pem; ssl_certificate_key key.pem;",
                false => "http2;",
            };
            fs::write(
                directory.join("nginx.conf"),
                configuration(port, tls, requests),
            )
            .unwrap();
            let mut command = Command::new(program("nginx"));
            command.arg("-p").arg(&directory);
            command.args(["-c", "nginx.conf", "-e", "error.log"]);
            command
        } else {
            let mut command = Command::new(program("nghttpd"));
            command.arg("--htdocs").arg(&root).arg("--echo-upload");
            command.args(["--address=127.0.0.1", "--workers=1"]);
            command.arg(port.to_string());
            if kind.is_tls() {
                command.arg(directory.join("key.pem"));
                command.arg(directory.join("cert.pem"));
            } else {
                command.arg("--no-tls");
            }
            command
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let program = Self {
            kind,
            port,
            directory,
            authority,
            child,
        };
        let begun = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        while TcpStream::connect_timeout(&address, PATIENCE).is_err() {
            assert!(begun.elapsed() < PATIENCE, "{kind:?} does not listen");
            std::thread::yield_now();
        }
        program
    }

    /// Puts a file of the pattern there.
    fn serve_large(&self) {
        let mut file = fs::File::create(self.directory.join("root/large")).unwrap();
        let mut pattern = Pattern::new();
        while pattern.at < LARGE {
            file.write_all(&pattern.next(MOST)).unwrap();
        }
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.kind.is_tls() { "https" } else { "http" };
        format!("{scheme}://localhost:{}{path}", self.port)
    }

    fn client(&self) -> Client {
        self.client_with(Http2Config::default())
    }

    fn client_with(&self, http2: Http2Config) -> Client {
        let tls = sockeye::TlsConfig::builder().only_roots(self.authority.pem());
        let versions = match self.kind.is_tls() {
            true => HttpVersions::Auto,
            false => HttpVersions::Http2PriorKnowledge,
        };
        Client::builder()
            .tls(tls.build().unwrap())
            .http2(http2)
            .http_versions(versions)
            .timeouts(Timeouts::all(PATIENCE))
            .build()
            .unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn configuration(port: u16, listen: &str, requests: u32) -> String {
    format!(
        r#"
        daemon off;
        worker_processes 1;
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
            keepalive_requests {requests};
            client_max_body_size 1g;
            server {{
                listen 127.0.0.1:{port} {listen}
                root root;
                location = /teapot {{ return 418 "short and stout"; }}
                location = /nothing {{ return 204; }}
                location /store/ {{ dav_methods PUT; create_full_put_path on; alias root/; }}
            }}
        }}
        "#
    )
}

/// The large file: a pattern that repeats after a prime number of bytes, so that no piece of it looks like another.
struct Pattern {
    /// So much of it that a piece of a mebibyte can begin anywhere.
    repeated: Bytes,
    at: u64,
}

impl Pattern {
    fn new() -> Self {
        let period: Vec<u8> = (0..PERIOD).map(|at| (at / 3).to_le_bytes()[0]).collect();
        Self {
            repeated: period.repeat(1 + MOST / period.len() + 1).into(),
            at: 0,
        }
    }

    /// The next `len` bytes.
    fn next(&mut self, len: usize) -> Bytes {
        let skip = usize::try_from(self.at % PERIOD).unwrap();
        self.at += len as u64;
        self.repeated.slice(skip..skip + len)
    }

    /// Sees that bytes are the next ones.
    fn compare(&mut self, data: &[u8]) {
        for piece in data.chunks(MOST) {
            let at = self.at;
            assert!(self.next(piece.len()) == piece, "another byte behind {at}");
        }
    }
}

/// As a body, in pieces of an odd size.
impl Stream for Pattern {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let len = usize::try_from((LARGE - self.at).min(100_003)).unwrap();
        Poll::Ready((len > 0).then(|| Ok(self.next(len))))
    }
}

/// Waits until nothing is active, and sees that nothing is left of it.
pub(crate) async fn rests(client: &Client) {
    until("nothing is active", || {
        client.stats().total.http2_streams == 0
    })
    .await;
    at_rest(client);
}

#[tokio::test]
#[ignore = "needs nghttpd and nginx: run by .ci/run"]
async fn interop_http2_answers_of_every_shape() {
    for kind in ALL {
        let program = Program::start(kind, 1_000_000);
        within(async {
            let client = program.client();
            let response = client.get(program.url("/small")).send().await.unwrap();
            assert_eq!(response.version(), http::Version::HTTP_2, "{kind:?}");
            let length = response.content_length();
            assert_eq!(length, Some(SMALL.len() as u64), "{kind:?}");
            assert_eq!(response.text().await.unwrap(), SMALL);
            let head = client.head(program.url("/small")).send().await.unwrap();
            let length = SMALL.len().to_string();
            assert_eq!(head.header("content-length"), Some(length.as_str()));
            assert_eq!(head.bytes().await.unwrap(), "");
            let missing = client.get(program.url("/no/such/file")).send().await;
            assert_eq!(missing.unwrap_err().status(), Some(StatusCode::NOT_FOUND));
            if kind.is_nginx() {
                let nothing = client.get(program.url("/nothing")).send().await.unwrap();
                assert_eq!(nothing.status(), StatusCode::NO_CONTENT);
                let teapot = client.get(program.url("/teapot")).send().await;
                let teapot = teapot.unwrap_err();
                let body = &teapot.status_error().unwrap().body;
                assert_eq!(body, "short and stout");
            } else {
                let echo = client.post(program.url("/echo")).body("a body");
                assert_eq!(echo.send().await.unwrap().text().await.unwrap(), "a body");
                let empty = client.post(program.url("/echo"));
                assert_eq!(empty.send().await.unwrap().text().await.unwrap(), "");
            }
            rests(&client).await;
            assert_eq!(client.stats().total.connections_opened, 1, "{kind:?}");
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs nghttpd and nginx: run by .ci/run"]
async fn interop_http2_many_at_once() {
    for kind in ALL {
        let program = Program::start(kind, 1_000_000);
        within(async {
            let client = program.client();
            let mut calls = JoinSet::new();
            for _ in 0..1_000 {
                let request = client.get(program.url("/small"));
                calls.spawn(async move { request.send().await?.text().await });
            }
            while let Some(answer) = calls.join_next().await {
                assert_eq!(answer.unwrap().unwrap(), SMALL, "{kind:?}");
            }
            rests(&client).await;
            let opened = client.stats().total.connections_opened;
            assert!((1..=4).contains(&opened), "{kind:?}: {opened} opened");
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs nghttpd and nginx: run by .ci/run"]
async fn interop_http2_large_downloads_are_whole() {
    for kind in ALL {
        let program = Program::start(kind, 1_000_000);
        program.serve_large();
        within(async {
            let client = program.client();
            let mut response = client.get(program.url("/large")).send().await.unwrap();
            let mut pattern = Pattern::new();
            while let Some(data) = response.chunk().await.unwrap() {
                pattern.compare(&data);
            }
            assert_eq!(pattern.at, LARGE, "{kind:?}");
            rests(&client).await;
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs nghttpd and nginx: run by .ci/run"]
async fn interop_http2_large_uploads_are_whole() {
    for kind in ALL {
        let program = Program::start(kind, 1_000_000);
        within(async {
            let client = program.client();
            let body = Body::sized_stream(LARGE, Pattern::new());
            if kind.is_nginx() {
                let request = client.put(program.url("/store/uploaded")).body(body);
                assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED);
                let stored = fs::read(program.directory.join("root/uploaded")).unwrap();
                let mut pattern = Pattern::new();
                pattern.compare(&stored);
                assert_eq!(pattern.at, LARGE, "{kind:?}");
            } else {
                let request = client.post(program.url("/echo")).body(body);
                let mut response = request.send().await.unwrap();
                let mut pattern = Pattern::new();
                while let Some(data) = response.chunk().await.unwrap() {
                    pattern.compare(&data);
                }
                assert_eq!(pattern.at, LARGE, "{kind:?}");
            }
            rests(&client).await;
        })
        .await;
    }
}

/// nginx ends a session with GOAWAY after so many requests; nobody is to notice.
#[tokio::test]
#[ignore = "needs nginx: run by .ci/run"]
async fn interop_http2_sessions_that_end_all_the_time_fail_nobody() {
    for kind in [Kind::Nginx, Kind::NginxTls] {
        let program = Program::start(kind, 100);
        within(async {
            let client = program.client();
            let mut workers = JoinSet::new();
            for _ in 0..20 {
                let (client, url) = (client.clone(), program.url("/small"));
                workers.spawn(async move {
                    for _ in 0..100 {
                        let response = client.get(&url).send().await.unwrap();
                        assert_eq!(response.text().await.unwrap(), SMALL);
                    }
                });
            }
            while let Some(worker) = workers.join_next().await {
                worker.unwrap();
            }
            rests(&client).await;
            let opened = client.stats().total.connections_opened;
            assert!(
                opened >= 20,
                "{kind:?}: only {opened} sessions for 2,000 requests"
            );
        })
        .await;
    }
}

/// A server that speaks HTTP/1.1 behind a client that was told otherwise is named as such.
#[tokio::test]
#[ignore = "needs nginx: run by .ci/run"]
async fn interop_http2_a_server_of_http1_is_named() {
    let server = crate::support::server::Server::plain(crate::support::server::honest);
    within(async {
        let client = Client::builder()
            .http_versions(HttpVersions::Http2PriorKnowledge)
            .timeouts(Timeouts::all(Duration::from_secs(2)))
            .build()
            .unwrap();
        let error = client.get(server.url("/")).send().await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_protocol(), "{text}");
        assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    })
    .await;
}

const SMALL: &str = "A small file.\n";

/// 256 MiB.
const LARGE: u64 = 256 << 20;

/// Bytes of the longest piece of it.
const MOST: usize = 1 << 20;

/// After so many bytes the large file repeats.
const PERIOD: u64 = 65_537;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
