//! A real HAProxy before a server of ours: what stands at the door of much of the world, with habits of its own.
//!
//! It ends idle connections after a fifth of a second here, with a 408 where no request had come on them, and a reload lets the
//! old process end what it has. The tests need the program and are ignored without being asked for; `.ci/run` installs it and asks.

use std::cell::RefCell;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sockeye::{Body, Client, HttpVersions, StatusCode, Timeouts, TlsConfig};
use tokio::task::JoinSet;

use crate::interop_http2::rests;
use crate::support::programs::{free_port, program};
use crate::support::server::{Authority, Server, honest, until, within};
use crate::support::streams::fed;

/// How HAProxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Http1,
    Http1Tls,
    Http2,
    Http2Tls,
}

const ALL: [Way; 4] = [Way::Http1, Way::Http1Tls, Way::Http2, Way::Http2Tls];

impl Way {
    fn versions(self) -> HttpVersions {
        match self {
            Self::Http1 | Self::Http1Tls => HttpVersions::Http1,
            Self::Http2 => HttpVersions::Http2PriorKnowledge,
            Self::Http2Tls => HttpVersions::Auto,
        }
    }

    fn version(self) -> http::Version {
        match self {
            Self::Http1 | Self::Http1Tls => http::Version::HTTP_11,
            Self::Http2 | Self::Http2Tls => http::Version::HTTP_2,
        }
    }
}

/// A running HAProxy; it ends when this is dropped.
struct Haproxy {
    directory: PathBuf,
    ports: Ports,
    authority: Authority,
    processes: RefCell<Vec<Child>>,
    /// What is behind it.
    _origin: Server,
}

/// Where it listens, and where the server behind it does.
#[derive(Clone, Copy)]
struct Ports {
    http1: u16,
    http2: u16,
    tls: u16,
    origin: u16,
}

impl Haproxy {
    fn start() -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockeye-haproxy-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let authority = Authority::new();
        let identity = authority.local();
        let pem = identity.certificate_pem() + &identity.key_pem();
        fs::write(directory.join("both.pem"), pem).unwrap();
        let origin = Server::plain(honest);
        let ports = Ports {
            http1: free_port(),
            http2: free_port(),
            tls: free_port(),
            origin: origin.address().port(),
        };
        fs::write(directory.join("haproxy.cfg"), configuration(ports, 0)).unwrap();
        let process = spawn(&directory, &[]);
        let haproxy = Self {
            directory,
            ports,
            authority,
            processes: RefCell::new(vec![process]),
            _origin: origin,
        };
        let begun = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], ports.tls));
        while TcpStream::connect_timeout(&address, PATIENCE).is_err() {
            assert!(begun.elapsed() < PATIENCE, "{}", haproxy.log());
            std::thread::yield_now();
        }
        haproxy
    }

    /// Has a new process take the listening sockets over, whose answers name the generation. The old one ends what it has.
    fn reload(&self, generation: u32) {
        let configuration = configuration(self.ports, generation);
        fs::write(self.directory.join("haproxy.cfg"), configuration).unwrap();
        let mut processes = self.processes.borrow_mut();
        let old = processes.last().unwrap().id().to_string();
        let takes_over = ["-x", "control", "-sf", &old];
        processes.push(spawn(&self.directory, &takes_over));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn url(&self, way: Way, path: &str) -> String {
        match way {
            Way::Http1 => format!("http://localhost:{}{path}", self.ports.http1),
            Way::Http2 => format!("http://localhost:{}{path}", self.ports.http2),
            Way::Http1Tls | Way::Http2Tls => {
                format!("https://localhost:{}{path}", self.ports.tls)
            }
        }
    }

    fn client(&self, way: Way) -> Client {
        let tls = TlsConfig::builder().only_roots(self.authority.pem());
        Client::builder()
            .tls(tls.build().unwrap())
            .http_versions(way.versions())
            .timeouts(Timeouts::all(PATIENCE))
            .build()
            .unwrap()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        for process in self.processes.get_mut() {
            let id = process.id().to_string();
            let _ = Command::new("kill").arg(id).status();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn spawn(directory: &Path, more: &[&str]) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .unwrap();
    Command::new(program("haproxy"))
        .args(["-db", "-f", "haproxy.cfg"])
        .args(more)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn configuration(ports: Ports, generation: u32) -> String {
    let Ports {
        http1,
        http2,
        tls,
        origin,
    } = ports;
    format!(
        r#"
global
    stats socket unix@control level admin expose-fd listeners
    hard-stop-after 30s
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-request 200ms
    timeout http-keep-alive 200ms
frontend door
    bind 127.0.0.1:{http1}
    bind 127.0.0.1:{http2} proto h2
    bind 127.0.0.1:{tls} ssl crt both.pem alpn h2,http/1.1
    http-after-response set-header x-generation {generation}
    http-request return status 200 content-type text/plain lf-string "%[method] %[path]" if {{ path /said }}
    http-request return status 429 content-type text/plain hdr retry-after 7 string "not so fast" if {{ path /fast }}
    http-request deny deny_status 403 if {{ path /denied }}
    http-request redirect location /said code 302 if {{ path /elsewhere }}
    use_backend nobody if {{ path /dead }}
    default_backend origin
backend origin
    server one 127.0.0.1:{origin}
backend nobody
"#
    )
}

#[tokio::test]
#[ignore = "needs haproxy: run by .ci/run"]
async fn interop_haproxy_answers_of_every_shape() {
    let haproxy = Haproxy::start();
    within(async {
        for way in ALL {
            let client = haproxy.client(way);
            let get = |path: &str| client.get(haproxy.url(way, path)).send();
            let said = get("/said").await.unwrap();
            assert_eq!(said.version(), way.version());
            assert_eq!(said.header("x-generation"), Some("0"));
            assert_eq!(said.text().await.unwrap(), "GET /said");
            let followed = get("/elsewhere").await.unwrap();
            assert_eq!(followed.redirects().len(), 1);
            assert_eq!(followed.text().await.unwrap(), "GET /said");
            let head = client.head(haproxy.url(way, "/through")).send().await;
            let head = head.unwrap();
            assert_eq!(head.header("content-length"), Some("6"));
            assert_eq!(head.bytes().await.unwrap(), "");
            let fast = get("/fast").await.unwrap_err();
            assert_eq!(fast.status(), Some(StatusCode::TOO_MANY_REQUESTS));
            assert_eq!(fast.retry_after(), Some(Duration::from_secs(7)));
            assert_eq!(fast.status_error().unwrap().body, "not so fast");
            for (path, status) in [("/denied", 403), ("/dead", 503)] {
                let error = get(path).await.unwrap_err();
                assert_eq!(error.status().unwrap(), status, "{way:?} {path}");
                assert!(!error.status_error().unwrap().body.is_empty());
            }
            rests(&client).await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs haproxy: run by .ci/run"]
async fn interop_haproxy_passes_bodies_on() {
    let haproxy = Haproxy::start();
    let sent: Bytes = (0..3_000_017_u32)
        .map(|at| (at / 7).to_le_bytes()[0])
        .collect();
    within(async {
        for way in ALL {
            let client = haproxy.client(way);
            let url = haproxy.url(way, "/through");
            let expected = [b"POST /through ", &*sent].concat();
            let sized = client.post(&url).body(sent.clone()).send().await.unwrap();
            assert!(sized.bytes().await.unwrap() == expected, "{way:?}");
            let (feed, stream) = fed();
            for at in (0..sent.len()).step_by(PIECE) {
                feed.give(sent.slice(at..sent.len().min(at + PIECE)));
            }
            drop(feed);
            let streamed = client.post(&url).body(Body::stream(stream));
            let streamed = streamed.send().await.unwrap();
            assert!(streamed.bytes().await.unwrap() == expected, "{way:?}");
            rests(&client).await;
        }
    })
    .await;
}

/// The end of an idle connection is noticed when it comes, and a 408 that nobody asked for is no answer to what is asked next.
#[tokio::test]
#[ignore = "needs haproxy: run by .ci/run"]
async fn interop_haproxy_ends_idle_connections() {
    let haproxy = Haproxy::start();
    within(async {
        for way in [Way::Http1, Way::Http1Tls] {
            let client = haproxy.client(way);
            let url = haproxy.url(way, "/said");
            for round in 0..3 {
                assert_eq!(client.preconnect(&url, 2).await.unwrap(), 2);
                let stats = || client.stats().total;
                until("those without a request end", || {
                    stats().connections_idle == 0
                })
                .await;
                for _ in 0..3 {
                    let response = client.get(&url).send().await.unwrap();
                    assert_eq!(response.text().await.unwrap(), "GET /said", "{round}");
                }
                until("the one that has served ends", || {
                    stats().connections_idle == 0
                })
                .await;
            }
            let total = client.stats().total;
            assert_eq!(total.retries, 0);
            assert_eq!(total.connections_opened, 9);
            rests(&client).await;
        }
    })
    .await;
}

/// Those who hold many connections see none of their calls fail while the process behind the port is replaced.
#[tokio::test]
#[ignore = "needs haproxy: run by .ci/run"]
async fn interop_haproxy_reloads() {
    let haproxy = Haproxy::start();
    within(async {
        for (at, way) in ALL.into_iter().enumerate() {
            let client = haproxy.client(way);
            let stop = Arc::new(AtomicBool::new(false));
            let mut callers = JoinSet::new();
            for _ in 0..8 {
                let (client, stop) = (client.clone(), Arc::clone(&stop));
                let url = haproxy.url(way, "/through");
                callers.spawn(async move {
                    let mut calls = 0_u32;
                    while !stop.load(Ordering::Relaxed) {
                        let response = client.get(&url).send().await?;
                        assert_eq!(response.text().await?, "GET /through ");
                        calls += 1;
                    }
                    Ok::<_, sockeye::Error>(calls)
                });
            }
            for round in 1..=3 {
                let generation = 10 * u32::try_from(at).unwrap() + round;
                haproxy.reload(generation);
                let generation = generation.to_string();
                loop {
                    let response = client.get(haproxy.url(way, "/said")).send().await.unwrap();
                    if response.header("x-generation") == Some(&generation) {
                        break;
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            while let Some(calls) = callers.join_next().await {
                assert!(calls.unwrap().unwrap() > 0, "{way:?}");
            }
            rests(&client).await;
        }
    })
    .await;
}

/// Bytes of a streamed body at once: no size that anybody else likes.
const PIECE: usize = 100_003;

/// Longer than anything on loopback takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);
