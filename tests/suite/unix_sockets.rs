//! Sockets of the Unix domain: per client and per call, plain and with TLS, and what tells their connections apart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sockeye::stats::CloseCause;
use sockeye::test::at_rest;
use sockeye::{Client, ClientBuilder, ErrorKind, Limits, Phase};
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;

use crate::support::server::{Action, Server, honest, until, within};

/// A socket file that leads to a server, and is removed at the end.
struct Entrance {
    path: PathBuf,
    accepted: Arc<AtomicUsize>,
    carrying: JoinHandle<()>,
}

impl Entrance {
    fn to(server: &Server) -> Self {
        let path = free_path();
        let listener = UnixListener::bind(&path).unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, address) = (Arc::clone(&accepted), server.address());
        let carrying = tokio::spawn(async move {
            loop {
                let (mut unix, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut tcp = TcpStream::connect(address).await.unwrap();
                    // Ends with either side; the other one sees it.
                    let _ = tokio::io::copy_bidirectional(&mut unix, &mut tcp).await;
                });
            }
        });
        Self {
            path,
            accepted,
            carrying,
        }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.carrying.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn free_path() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    std::env::temp_dir().join(format!("sockeye-{}-{number}.sock", std::process::id()))
}

fn builder() -> ClientBuilder {
    let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
    Client::builder().limits(limits)
}

async fn get_over(client: &Client, path: &Path, url: &str) -> String {
    let response = client.get(url).unix_socket(path).send().await.unwrap();
    response.text().await.unwrap()
}

#[tokio::test]
async fn a_client_speaks_over_its_socket() {
    within(async {
        let server = Server::plain(|mut peer| async move {
            while let Some(request) = peer.request().await {
                peer.answer(request.field("host").unwrap_or_default()).await;
            }
        });
        let entrance = Entrance::to(&server);
        let client = builder().unix_socket(&entrance.path).build().unwrap();
        // No such host exists, and nobody looks for it.
        let url = "http://nothing.invalid:8080/x";
        let response = client.get(url).send().await.unwrap();
        let info = response.connection().clone();
        assert_eq!((info.remote_addr, info.local_addr), (None, None));
        assert_eq!(response.text().await.unwrap(), "nothing.invalid:8080");
        let again = client.get(url).send().await.unwrap();
        assert_eq!(again.connection().id, info.id);
        assert!(again.reused());
        again.bytes().await.unwrap();
        assert_eq!(client.preconnect(url, 2).await.unwrap(), 2);
        until("both are accepted", || entrance.accepted() == 2).await;
        at_rest(&client);
    })
    .await;
}

/// Security P1: calls that differ in nothing but the path use different sockets.
#[tokio::test]
async fn the_path_is_part_of_the_key() {
    within(async {
        let server = Server::plain(honest);
        let (first, second) = (Entrance::to(&server), Entrance::to(&server));
        let url = server.url("/x");
        let client = builder().build().unwrap();
        for _ in 0..2 {
            for entrance in [&first, &second] {
                assert_eq!(get_over(&client, &entrance.path, &url).await, "GET /x ");
            }
            let direct = client.get(&url).send().await.unwrap();
            assert_eq!(direct.connection().remote_addr, Some(server.address()));
            direct.bytes().await.unwrap();
        }
        assert_eq!((first.accepted(), second.accepted()), (1, 1));
        assert_eq!(server.accepted(), 3);
        // Another origin behind the same path is another route.
        get_over(&client, &first.path, "http://other.test/").await;
        assert_eq!(first.accepted(), 2);
        // The setting travels with a request that is built, and a call's beats the client's.
        let owner = builder().unix_socket(&second.path).build().unwrap();
        let request = client.get(&url).unix_socket(&first.path);
        let copy = request.try_clone().unwrap().build().unwrap();
        owner.execute(copy).await.unwrap().bytes().await.unwrap();
        assert_eq!((first.accepted(), second.accepted()), (3, 1));
        at_rest(&client);
        at_rest(&owner);
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_that_has_ended_is_replaced() {
    within(async {
        let server = Server::plain(honest);
        let entrance = Entrance::to(&server);
        let client = builder().unix_socket(&entrance.path).build().unwrap();
        let url = server.url("/x");
        for (round, action) in [Action::Close, Action::Send(b"HTTP/1.1 200 OK\r\n\r\n")]
            .iter()
            .enumerate()
        {
            let text = client.get(&url).send().await.unwrap().text().await.unwrap();
            assert_eq!(text, "GET /x ");
            server.order(action);
            until("the client hears of it", || {
                client.stats().total.connections_idle == 0
            })
            .await;
            assert_eq!(entrance.accepted(), round + 1);
        }
        let stats = client.stats().total;
        assert_eq!(stats.connections_closed.get(CloseCause::PeerClosed), 1);
        assert_eq!(stats.connections_closed.get(CloseCause::Unsolicited), 1);
        at_rest(&client);
    })
    .await;
}

#[cfg(feature = "rustls")]
#[tokio::test]
async fn tls_is_spoken_over_it() {
    use crate::support::server::{Authority, TLS13};
    within(async {
        let authority = Authority::new();
        let server = Server::tls(authority.local().server(TLS13), honest);
        let entrance = Entrance::to(&server);
        let tls = sockeye::TlsConfig::builder()
            .add_root_pem(authority.pem().as_bytes())
            .unwrap()
            .build()
            .unwrap();
        let client = builder()
            .tls(tls)
            .unix_socket(&entrance.path)
            .build()
            .unwrap();
        for reused in [false, true, true] {
            let response = client.get("https://localhost/x").send().await.unwrap();
            assert_eq!(response.reused(), reused);
            assert!(response.connection().tls.is_some());
            assert_eq!(response.connection().remote_addr, None);
            assert_eq!(response.text().await.unwrap(), "GET /x ");
        }
        // The name that is checked is the URL's.
        let error = client.get("https://other.test/").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_path_is_told() {
    within(async {
        let client = builder().build().unwrap();
        let missing = free_path();
        let long = "x".repeat(200);
        for (path, expected) in [
            (missing.as_path(), std::io::ErrorKind::NotFound),
            (Path::new(&long), std::io::ErrorKind::InvalidInput),
        ] {
            let request = client.get("http://a.test/").unix_socket(path);
            let error = request.send().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
            assert_eq!(error.phase(), Some(Phase::Connect));
            assert_eq!(error.io_kind(), Some(expected), "{error}");
            let line = error.to_string();
            assert!(line.contains(&path.display().to_string()), "{line}");
        }
        let careful = builder().deny_private(true).build().unwrap();
        for (client, path, expected) in [
            (&client, Path::new(""), "the path is empty"),
            (&careful, missing.as_path(), "deny_private"),
        ] {
            let request = client.get("http://a.test/").unix_socket(path);
            let error = request.send().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            at_rest(client);
        }
    })
    .await;
}

/// More connections at once than the backlog takes wait for their turn.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_backlog_is_waited_for() {
    use socket2::{Domain, SockAddr, Socket, Type};
    within(async {
        let path = free_path();
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(1).unwrap();
        listener.set_nonblocking(true).unwrap();
        let client = builder().unix_socket(&path).build().unwrap();
        let listener = UnixListener::from_std(listener.into()).unwrap();
        let connecting = client.preconnect("http://a.test/", 8);
        let accepting = async {
            // Until somebody accepts, most of them are turned away again and again.
            until("the backlog is full", || {
                client.stats().total.connections_opened == 2
            })
            .await;
            let mut accepted = Vec::new();
            for _ in 0..8 {
                accepted.push(listener.accept().await.unwrap());
            }
            accepted
        };
        let (connected, _accepted) = tokio::join!(connecting, accepting);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(connected.unwrap(), 8);
        at_rest(&client);
    })
    .await;
}

/// Security R3: the socket of a call is its URL's; where a redirect leads to another origin, that one is dialled.
#[tokio::test]
async fn a_redirect_to_another_origin_leaves_the_socket_of_the_call() {
    within(async {
        let other = Server::plain(honest);
        let location = other.url("/there");
        let daemon = Server::plain(move |mut peer| {
            let location = location.clone();
            async move {
                peer.request().await;
                let head = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\n");
                peer.send(format!("{head}content-length: 0\r\n\r\n")).await;
                peer.end().await;
            }
        });
        let entrance = Entrance::to(&daemon);
        let client = builder().build().unwrap();
        let text = get_over(&client, &entrance.path, "http://daemon.test/x").await;
        assert_eq!(text, "GET /there ");
        assert_eq!((entrance.accepted(), other.accepted()), (1, 1));
    })
    .await;
}
