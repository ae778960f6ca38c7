//! Plain TCP on real sockets: what the kernel, the runtime and a peer that closes do to a pooled connection.
//!
//! Scenarios of the pool's specification by number: 17, 18, 19, 20, 21 and 25. More of them are in `liveness.rs`, `tls.rs`
//! and `runtimes.rs`; what needs no socket is tested in memory in `pool`.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use sockeye::stats::{CloseCause, ProbeOutcome};
use sockeye::test::at_rest;
use sockeye::{Body, Client, Error, ErrorKind, Limits, Method, Phase, Response, Result, Sent};

use crate::support::server::{Action, Peer, Server, honest, response, take_notice, until, within};

/// A client that keeps idle connections for longer than any test takes.
fn client() -> Client {
    let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
    Client::builder().limits(limits).build().unwrap()
}

async fn text(response: Result<Response>) -> String {
    response.unwrap().text().await.unwrap()
}

async fn get(client: &Client, server: &Server, path: &str) -> String {
    text(client.get(server.url(path)).send().await).await
}

#[tokio::test]
async fn get_and_post_take_turns_on_one_connection() {
    within(async {
        let server = Server::plain(honest);
        let client = client();
        let first = client.get(server.url("/a")).send().await.unwrap();
        assert!(!first.reused());
        let info = first.connection().clone();
        assert_eq!(info.remote_addr, Some(server.address()));
        assert!(
            info.local_addr
                .is_some_and(|local| local.ip().is_loopback())
        );
        assert!(info.tls.is_none());
        assert_eq!(first.text().await.unwrap(), "GET /a ");
        let second = client
            .post(server.url("/b"))
            .body("payload")
            .send()
            .await
            .unwrap();
        assert!(second.reused());
        assert_eq!(second.connection().id, info.id);
        assert_eq!(second.text().await.unwrap(), "POST /b payload");
        assert_eq!(get(&client, &server, "/c").await, "GET /c ");
        assert_eq!(server.accepted(), 1);
        assert_eq!(client.stats().total.connections_reused, 2);
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn dropping_the_client_closes_its_sockets() {
    within(async {
        let server = Server::plain(honest);
        let client = client();
        get(&client, &server, "/").await;
        assert_eq!(server.open(), 1);
        at_rest(&client);
        drop(client);
        until("the server sees the end", || server.open() == 0).await;
    })
    .await;
}

/// `localhost` often has an IPv6 address that nobody listens on.
#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    within(async {
        let addresses: HashSet<SocketAddr> = tokio::net::lookup_host(("localhost", 80))
            .await
            .unwrap()
            .collect();
        if addresses.len() < 2 {
            println!("skipped: localhost has one address on this machine: {addresses:?}");
            return;
        }
        // Each address in its turn is the only one that listens.
        for address in addresses {
            let Ok(listener) = std::net::TcpListener::bind((address.ip(), 0)) else {
                println!("skipped: nobody can listen on {}", address.ip());
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let client = client();
            let connected = client
                .preconnect(format!("http://localhost:{port}/"), 1)
                .await
                .unwrap();
            assert_eq!(connected, 1);
            at_rest(&client);
        }
    })
    .await;
}

/// A port that nobody listens on.
fn deaf_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_refused_connection_names_the_address() {
    within(async {
        let client = client();
        let port = deaf_port();
        for host in ["127.0.0.1", "localhost"] {
            let url = format!("http://{host}:{port}/secret?token=1");
            let error = client.post(url).body("x").send().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
            assert!(error.is_connect());
            assert_eq!(error.phase(), Some(Phase::Connect));
            assert_eq!(error.sent(), Sent::Nothing);
            assert_eq!(error.io_kind(), Some(std::io::ErrorKind::ConnectionRefused));
            let line = error.to_string();
            assert!(line.contains(&format!("127.0.0.1:{port}")), "{line}");
            assert!(!line.contains("token"), "{line}");
        }
        assert_eq!(client.stats().total.connect_failures, 2);
        at_rest(&client);
    })
    .await;
}

/// A listener whose backlog is full, and what fills it: attempts to connect hang for as long as nobody accepts.
#[cfg(target_os = "linux")]
fn silent_listener() -> (std::net::TcpListener, Vec<std::net::TcpStream>) {
    use socket2::{Domain, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any_port.into()).unwrap();
    listener.listen(0).unwrap();
    let listener = std::net::TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(tcp) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
        filling.push(tcp);
        assert!(filling.len() < 16, "the backlog never fills");
    }
    (listener, filling)
}

/// A silent address costs the limit, and nothing else: the permit comes back, and the address, being the only one, is
/// tried by the next request although it is penalised.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_silent_address_is_tried_again() {
    within(async {
        let (listener, filling) = silent_listener();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let client = Client::builder()
            .limits(Limits::default().with_max_connections(NonZeroUsize::new(1)))
            .connect_timeout(Duration::from_millis(250))
            .build()
            .unwrap();
        for _ in 0..2 {
            let error = client.get(&url).send().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            assert_eq!(error.phase(), Some(Phase::Connect));
            assert_eq!(error.sent(), Sent::Nothing);
            sockeye::test::check(&client);
        }
        for _ in filling {
            listener.accept().unwrap();
        }
        let connected = client.preconnect(&url, 1).await.unwrap();
        assert_eq!(connected, 1);
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn a_name_without_an_address_is_a_resolve_error() {
    // RFC 6761 section 6.4: there is never such a name. A machine without a name server may take a while to say so.
    let client = Client::builder()
        .connect_timeout(Duration::from_secs(50))
        .build()
        .unwrap();
    let error = within(client.get("http://nothing.invalid/").send())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Resolve, "{error}");
    assert!(error.is_connect());
    assert_eq!(error.phase(), Some(Phase::Resolve));
    assert_eq!(error.sent(), Sent::Nothing);
    assert!(error.to_string().contains("nothing.invalid"), "{error}");
    at_rest(&client);
}

/// Scenario 17, R-LIVE-2, seen by the next request.
#[tokio::test]
async fn t17_closed_while_idle_is_replaced() {
    within(async {
        let server = Server::plain(honest);
        let client = client();
        for round in 0..3 {
            get(&client, &server, "/before").await;
            server.order(&Action::Close);
            server.end_arrived();
            take_notice().await;
            let response = client
                .post(server.url("/after"))
                .body("once")
                .send()
                .await
                .unwrap();
            assert_eq!(response.attempts(), 1);
            assert!(!response.reused());
            assert_eq!(response.text().await.unwrap(), "POST /after once");
            assert_eq!(server.accepted(), round + 2);
        }
        assert_eq!(server.requests().len(), 6);
        let total = client.stats().total;
        assert_eq!(total.connections_closed.get(CloseCause::PeerClosed), 3);
        assert_eq!(total.connections_idle, 1);
        at_rest(&client);
    })
    .await;
}

/// Scenario 18, R-LIVE-3: the runtime had no turn to take notice of the end, so only the kernel knows.
#[tokio::test]
async fn t18_fin_unseen_by_the_runtime() {
    within(async {
        let server = Server::plain(honest);
        let client = client();
        get(&client, &server, "/before").await;
        server.order(&Action::Close);
        server.end_arrived();
        let response = client.post(server.url("/after")).body("once").send();
        let response = response.await.unwrap();
        assert_eq!(response.attempts(), 1);
        assert_eq!(response.text().await.unwrap(), "POST /after once");
        assert_eq!(server.requests(), ["GET /before", "POST /after"]);
        assert_eq!(server.accepted(), 2);
        let total = client.stats().total;
        assert_eq!(total.probes.get(ProbeOutcome::KernelDead), 1);
        assert_eq!(total.connections_closed.get(CloseCause::PeerClosed), 1);
        assert_eq!(total.retries, 0);
        at_rest(&client);
    })
    .await;
}

/// How a server ends a connection on the request that it should have answered.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Reset,
    /// It begins to answer, and closes then.
    CloseAfter(&'static str),
}

/// A row of scenario 19.
struct Stale {
    method: Method,
    key: bool,
    vouched: bool,
    body: Option<fn() -> Body>,
    /// Whether the connection has served a request before.
    reused: bool,
    end: End,
    /// Attempts for an answer, or the kind of the error.
    expected: Result<u32, ErrorKind>,
}

fn stale(method: Method, expected: Result<u32, ErrorKind>) -> Stale {
    Stale {
        method,
        key: false,
        vouched: false,
        body: None,
        reused: true,
        end: End::Close,
        expected,
    }
}

/// Scenario 19, R-RETRY-2: what is sent again when a server closes on the first byte of a request, and what is not.
#[tokio::test]
async fn t19_matrix_of_the_stale_race() {
    let bytes: Option<fn() -> Body> = Some(|| Body::from("payload"));
    let stream: Option<fn() -> Body> = Some(|| Body::stream(Pieces::new(["pay", "load"])));
    let rows = [
        stale(Method::GET, Ok(2)),
        stale(Method::HEAD, Ok(2)),
        stale(Method::DELETE, Ok(2)),
        Stale {
            body: bytes,
            ..stale(Method::PUT, Ok(2))
        },
        Stale {
            body: stream,
            ..stale(Method::PUT, Err(ErrorKind::Io))
        },
        Stale {
            body: bytes,
            ..stale(Method::POST, Err(ErrorKind::Io))
        },
        stale(Method::PATCH, Err(ErrorKind::Io)),
        Stale {
            key: true,
            body: bytes,
            ..stale(Method::POST, Ok(2))
        },
        Stale {
            vouched: true,
            body: bytes,
            ..stale(Method::POST, Ok(2))
        },
        Stale {
            reused: false,
            ..stale(Method::GET, Err(ErrorKind::Io))
        },
        Stale {
            end: End::CloseAfter("H"),
            ..stale(Method::GET, Err(ErrorKind::Protocol))
        },
        Stale {
            end: End::CloseAfter("HTTP/1.1 200 OK\r\n"),
            ..stale(Method::GET, Err(ErrorKind::Protocol))
        },
    ];
    for (at, row) in rows.iter().enumerate() {
        for end in [row.end, End::Reset] {
            // A reset may overtake the bytes before it, so their rows have one end only.
            if matches!((row.end, end), (End::CloseAfter(_), End::Reset)) {
                continue;
            }
            let what = format!("row {at}, {} on {end:?}", row.method);
            within(run_stale(row, end, &what)).await;
        }
    }
}

async fn run_stale(row: &Stale, end: End, what: &str) {
    let reused = row.reused;
    let server = Server::plain(move |mut peer: Peer| async move {
        if peer.number > 0 {
            return honest(peer).await;
        }
        if reused {
            peer.request().await;
            peer.answer("").await;
        }
        peer.any_byte().await;
        match end {
            End::Close => peer.close().await,
            End::Reset => peer.reset(),
            End::CloseAfter(bytes) => {
                peer.send(bytes).await;
                peer.close().await;
            }
        }
    });
    let client = client();
    if row.reused {
        get(&client, &server, "/first").await;
    }
    let mut request = client
        .request(row.method.clone(), server.url("/second"))
        .idempotent(row.vouched);
    if row.key {
        request = request.header("idempotency-key", "7");
    }
    if let Some(body) = row.body {
        request = request.body(body());
    }
    let outcome = request.send().await;
    match (outcome, row.expected) {
        (Ok(response), Ok(attempts)) => {
            assert_eq!(response.attempts(), attempts, "{what}");
            assert!(!response.reused(), "{what}");
            response.bytes().await.unwrap();
            assert_eq!(server.accepted(), 2, "{what}");
            assert_eq!(client.stats().total.retries, 1, "{what}");
        }
        (Err(error), Err(kind)) => {
            assert_eq!(error.kind(), kind, "{what}: {error}");
            assert_eq!(error.attempts(), 1, "{what}: {error}");
            assert_ne!(error.sent(), Sent::Nothing, "{what}: {error}");
            assert_eq!(server.accepted(), 1, "{what}");
        }
        (outcome, expected) => panic!("{what}: {outcome:?} instead of {expected:?}"),
    }
    assert_eq!(
        get(&client, &server, "/third").await,
        "GET /third ",
        "{what}"
    );
    assert_eq!(server.accepted(), 2, "{what}");
    at_rest(&client);
}

/// The replay is made once: a server that closes on everything is not asked for ever.
#[tokio::test]
async fn a_stale_connection_is_replaced_once() {
    within(async {
        let server = Server::plain(|mut peer: Peer| async move {
            if peer.number == 0 {
                peer.request().await;
                peer.answer("").await;
            }
            peer.any_byte().await;
            peer.close().await;
        });
        let client = client();
        get(&client, &server, "/first").await;
        let error = client.get(server.url("/second")).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::UnexpectedEof));
        assert_eq!(error.phase(), Some(Phase::Head));
        assert_eq!(error.attempts(), 2);
        assert_eq!(server.accepted(), 2);
        at_rest(&client);
    })
    .await;
}

const FORGED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
const TIMED_OUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Scenario 20, R-REL-2 and R-LIVE-4: what comes while nobody asked is no answer to what is asked next.
#[tokio::test]
async fn t20_bytes_on_an_idle_connection_close_it() {
    for junk in [FORGED, TIMED_OUT, b"\r\n"] {
        for method in [Method::GET, Method::POST] {
            within(async {
                let server = Server::plain(honest);
                let client = client();
                get(&client, &server, "/before").await;
                server.order(&Action::Send(junk));
                server.bytes_arrived();
                take_notice().await;
                let request = client.request(method.clone(), server.url("/after"));
                let response = request.send().await.unwrap();
                assert_eq!(response.attempts(), 1);
                let expected = format!("{method} /after ");
                assert_eq!(response.text().await.unwrap(), expected);
                assert_eq!(server.accepted(), 2);
                at_rest(&client);
            })
            .await;
        }
    }
}

/// Why a connection was closed can be read from the stats.
#[tokio::test]
async fn bytes_on_an_idle_connection_are_counted_as_what_they_are() {
    within(async {
        let server = Server::plain(honest);
        let client = client();
        get(&client, &server, "/before").await;
        server.order(&Action::Send(TIMED_OUT));
        server.bytes_arrived();
        take_notice().await;
        get(&client, &server, "/after").await;
        let closed = client.stats().total.connections_closed;
        assert_eq!(closed.get(CloseCause::Unsolicited), 1, "{closed:?}");
        assert_eq!(closed.total(), 1, "{closed:?}");
        at_rest(&client);
    })
    .await;
}

/// Scenario 20, where the runtime had no turn: a POST may not be lost to a server that had closed, so the kernel is asked.
#[tokio::test]
async fn t20_bytes_unseen_by_the_runtime() {
    within(async {
        let server = Server::plain(honest);
        let client = client();
        get(&client, &server, "/before").await;
        server.order(&Action::Send(FORGED));
        server.bytes_arrived();
        let response = client.post(server.url("/after")).send().await.unwrap();
        assert_eq!(response.attempts(), 1);
        assert_eq!(response.text().await.unwrap(), "POST /after ");
        assert_eq!(server.accepted(), 2);
        at_rest(&client);
    })
    .await;
}

/// Scenario 20, in one segment with the response before: small, chunked, without a body, and larger than any read.
#[tokio::test]
async fn t20_bytes_behind_a_response_close_the_connection() {
    let large = response(&[b'x'; 100_000]);
    let honest_responses: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        &large,
    ];
    for honest_response in honest_responses {
        let with_more = [honest_response, FORGED].concat();
        within(async {
            let server = Server::plain(move |mut peer: Peer| {
                let with_more = with_more.clone();
                async move {
                    if peer.number > 0 {
                        return honest(peer).await;
                    }
                    peer.request().await;
                    peer.send(with_more).await;
                    peer.end().await;
                }
            });
            let client = client();
            let first = client.get(server.url("/first")).send().await;
            match first {
                Ok(response) => {
                    let body = response.bytes().await.unwrap();
                    assert!([0, 2, 100_000].contains(&body.len()));
                }
                // Bytes behind a status that has no body break the protocol.
                Err(error) => {
                    assert!(honest_response.starts_with(b"HTTP/1.1 204"), "{error}");
                    assert!(error.is_protocol(), "{error}");
                }
            }
            assert_eq!(get(&client, &server, "/second").await, "GET /second ");
            assert_eq!(server.accepted(), 2);
            at_rest(&client);
        })
        .await;
    }
}

/// Scenario 21, R-LIVE-1: a body that ends exactly where a read ends leaves the readiness flag set, and the connection is alive all
/// the same.
#[tokio::test]
async fn t21_a_response_that_fills_a_read_exactly() {
    within(async {
        let server = Server::plain(|mut peer: Peer| async move {
            while let Some(request) = peer.request().await {
                let total: usize = request.path.trim_start_matches('/').parse().unwrap();
                let mut answer = response(&vec![b'x'; total]);
                answer.drain(..answer.len() - total);
                // The head shrinks the body, so that head and body together have the size that was asked for.
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {:07}\r\n\r\n", 0).len();
                let body = total - head;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {body:07}\r\n\r\n");
                answer.truncate(body);
                peer.send([head.as_bytes(), &answer].concat()).await;
            }
        });
        let client = client();
        for size in [
            1 << 11,
            1 << 13,
            1 << 14,
            3 << 13,
            1 << 15,
            1 << 16,
            1 << 18,
            1 << 20,
        ] {
            for size in [size - 1, size, size + 1] {
                for method in [Method::GET, Method::POST] {
                    let request = client.request(method, server.url(&format!("/{size}")));
                    let body = request.send().await.unwrap().bytes().await.unwrap();
                    assert!(body.len() < size && body.len() > size - 100);
                    assert_eq!(server.accepted(), 1, "after {size} bytes");
                }
            }
        }
        at_rest(&client);
    })
    .await;
}

/// Scenario 25, R-LIVE-2: a task that has used up its budget is told that nothing is ready, dead connections included.
#[tokio::test]
async fn t25_a_task_without_budget_is_not_lent_a_dead_connection() {
    within(async {
        let server = Server::plain(honest);
        let client = client();
        for round in 1..=3 {
            get(&client, &server, "/before").await;
            server.order(&Action::Close);
            server.end_arrived();
            take_notice().await;
            while tokio::task::coop::has_budget_remaining() {
                tokio::task::coop::consume_budget().await;
            }
            let response = client.get(server.url("/after")).send().await.unwrap();
            assert_eq!(response.attempts(), 1, "a dead connection was lent");
            response.bytes().await.unwrap();
            assert_eq!(server.accepted(), round + 1);
        }
        assert_eq!(client.stats().total.retries, 0);
        at_rest(&client);
    })
    .await;
}

/// Scenario 25, the other way round: a task without budget may still use what is alive.
#[tokio::test]
async fn t25_a_task_without_budget_is_lent_a_live_connection() {
    within(async {
        let server = Server::plain(honest);
        let client = client();
        for method in [Method::GET, Method::POST, Method::GET] {
            while tokio::task::coop::has_budget_remaining() {
                tokio::task::coop::consume_budget().await;
            }
            let request = client.request(method.clone(), server.url("/"));
            assert_eq!(text(request.send().await).await, format!("{method} / "));
        }
        assert_eq!(server.accepted(), 1);
        at_rest(&client);
    })
    .await;
}

/// 2,000 calls of eight tasks over at most four connections.
async fn hammer(client: &Client, server: &Arc<Server>) {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let (client, server) = (client.clone(), Arc::clone(server));
        tasks.spawn(async move {
            for call in 0..250 {
                let path = format!("/{task}/{call}");
                let (request, expected) = if call % 3 == 0 {
                    let body = format!("body of {task}, {call}");
                    let expected = format!("POST {path} {body}");
                    (client.post(server.url(&path)).body(body), expected)
                } else {
                    (client.get(server.url(&path)), format!("GET {path} "))
                };
                assert_eq!(text(request.send().await).await, expected);
                let open = client.stats().total;
                let open = open.connections_active + open.connections_idle;
                assert!(open <= 4, "{open} connections are open");
            }
        });
    }
    tasks.join_all().await;
}

fn client_of_four() -> Client {
    let limits = Limits::default().with_max_connections(NonZeroUsize::new(4));
    Client::builder().limits(limits).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_tasks_share_four_connections() {
    within(async {
        let server = Arc::new(Server::plain(honest));
        let client = client_of_four();
        hammer(&client, &server).await;
        let asked: HashSet<_> = server.requests().into_iter().collect();
        assert_eq!(asked.len(), 2_000);
        let total = client.stats().total;
        assert_eq!(total.responses_2xx, 2_000);
        assert_eq!(total.errors.total(), 0);
        assert_eq!(total.requests_active, 0);
        at_rest(&client);
    })
    .await;
}

/// Nobody but tasks of the same origin waits, so nobody needs room: every connection stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_does_not_make_room_for_its_own_origin() {
    for _ in 0..10 {
        within(async {
            let server = Arc::new(Server::plain(honest));
            let client = client_of_four();
            hammer(&client, &server).await;
            let closed = client.stats().total.connections_closed;
            assert_eq!(closed.total(), 0, "{closed:?}");
            assert!(server.accepted() <= 4);
            at_rest(&client);
        })
        .await;
    }
}

/// A stream of pieces that are ready at once.
struct Pieces(VecDeque<Bytes>);

impl Pieces {
    fn new(pieces: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        Self(pieces.into_iter().map(Into::into).collect())
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// Bytes of which no two neighbouring megabytes are alike.
fn pattern(at: usize, len: usize) -> Vec<u8> {
    (at..at + len)
        .map(|position| u8::try_from((position + position / 65_521) % 251).unwrap())
        .collect()
}

#[tokio::test]
async fn a_large_upload_arrives_as_it_was_sent() {
    const SIZE: usize = 8 << 20;
    let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    within(async {
        let server = Server::plain({
            let received = Arc::clone(&received);
            move |mut peer: Peer| {
                let received = Arc::clone(&received);
                async move {
                    while let Some(request) = peer.request().await {
                        let chunked = request.field("transfer-encoding") == Some("chunked");
                        assert_eq!(chunked, request.field("content-length").is_none());
                        let answer = format!("{} bytes", request.body.len());
                        received.lock().unwrap().push(request.body);
                        peer.answer(answer).await;
                    }
                }
            }
        });
        let client = client();
        let content = Bytes::from(pattern(0, SIZE));
        let pieces = || {
            let starts = (0..SIZE).step_by(100_003);
            Pieces::new(starts.map(|at| content.slice(at..SIZE.min(at + 100_003))))
        };
        let bodies = [
            Body::stream(pieces()),
            Body::sized_stream(SIZE as u64, pieces()),
            Body::from(content.clone()),
        ];
        for body in bodies {
            let response = client.post(server.url("/")).body(body).send().await;
            assert_eq!(text(response).await, "8388608 bytes");
            let arrived = received.lock().unwrap().pop().unwrap();
            assert!(arrived == content, "the body changed on its way");
        }
        assert_eq!(server.accepted(), 1);
        assert!(client.stats().total.bytes_sent >= 3 * SIZE as u64);
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn a_large_download_arrives_as_it_was_sent() {
    const SIZE: usize = 32 << 20;
    within(async {
        let server = Server::plain(|mut peer: Peer| async move {
            let content = pattern(0, SIZE);
            while let Some(request) = peer.request().await {
                if request.path == "/length" {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
                    peer.send(head).await;
                    peer.send(&content).await;
                } else {
                    peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                        .await;
                    for chunk in content.chunks(77_777) {
                        peer.send(format!("{:x}\r\n", chunk.len())).await;
                        peer.send(chunk).await;
                        peer.send("\r\n").await;
                    }
                    peer.send("0\r\n\r\n").await;
                }
            }
        });
        let client = client();
        let content = pattern(0, SIZE);
        for path in ["/length", "/chunked"] {
            let mut response = client.get(server.url(path)).send().await.unwrap();
            let mut at = 0;
            while let Some(chunk) = response.chunk().await.unwrap() {
                assert!(
                    content.get(at..at + chunk.len()) == Some(&chunk),
                    "{path}: wrong from byte {at}"
                );
                at += chunk.len();
            }
            assert_eq!(at, SIZE, "{path}");
        }
        assert_eq!(server.accepted(), 1);
        at_rest(&client);
    })
    .await;
}

/// Polls once outside of any runtime.
fn poll_alone<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits for a runtime that is not there"),
    }
}

#[test]
fn a_call_without_a_runtime_is_an_error_and_no_panic() {
    let client = client();
    let check_error = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert_eq!(error.sent(), Sent::Nothing);
        assert!(error.to_string().contains("runtime"), "{error}");
    };
    check_error(poll_alone(client.get("http://127.0.0.1:9/").send()).unwrap_err());
    check_error(poll_alone(client.preconnect("http://127.0.0.1:9/", 1)).unwrap_err());
    client.close_idle();
    at_rest(&client);
}

#[test]
fn closing_without_a_runtime_is_no_panic() {
    let client = client();
    let closed = poll_alone(client.close(Duration::ZERO));
    assert_eq!((closed.finished, closed.cut), (0, 0));
    at_rest(&client);
}

#[test]
fn a_client_can_be_shared_and_its_calls_can_move_between_threads() {
    fn shared<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    fn moved<T: Send + 'static>(value: T) -> T {
        value
    }
    let client = shared(client());
    let call = moved(client.get("ftp://h/").send());
    // The call is made on another thread than it is awaited on.
    let error = std::thread::spawn(move || poll_alone(call)).join().unwrap();
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidRequest);
    drop(moved(client.execute(http::Request::new(()))));
    drop(moved(client.get("http://h/").into_future()));
    at_rest(&client);
}

/// A server that says `connection: close` is believed.
#[tokio::test]
async fn a_connection_that_the_server_announces_to_close_is_not_kept() {
    within(async {
        let server = Server::plain(|mut peer: Peer| async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
                .await;
            peer.end().await;
        });
        let client = client();
        for accepted in 1..=3 {
            assert_eq!(get(&client, &server, "/").await, "ok");
            assert_eq!(server.accepted(), accepted);
        }
        until("our side has closed, too", || server.open() == 0).await;
        at_rest(&client);
    })
    .await;
}

/// A body that ends with the connection is whole at the end of a plain stream, and nothing is kept.
#[tokio::test]
async fn a_body_up_to_the_end_of_the_connection() {
    within(async {
        let served = Arc::new(AtomicUsize::new(0));
        let server = Server::plain({
            let served = Arc::clone(&served);
            move |mut peer: Peer| {
                let served = Arc::clone(&served);
                async move {
                    peer.request().await;
                    peer.send("HTTP/1.1 200 OK\r\n\r\n").await;
                    for piece in 0..100 {
                        peer.send(pattern(piece * 1_000, 1_000)).await;
                    }
                    served.fetch_add(1, Ordering::SeqCst);
                    peer.close().await;
                }
            }
        });
        let client = client();
        for _ in 0..2 {
            let response = client.get(server.url("/")).send().await.unwrap();
            assert_eq!(response.content_length(), None);
            let body = response.bytes().await.unwrap();
            assert!(body == pattern(0, 100_000));
        }
        assert_eq!(served.load(Ordering::SeqCst), 2);
        assert_eq!(server.accepted(), 2);
        assert_eq!(client.stats().total.connections_idle, 0);
        at_rest(&client);
    })
    .await;
}

/// A runtime that ends drops calls, and drops new tasks on the spot: what a dropped call sets off must not wait for itself.
#[test]
fn a_runtime_that_ends_with_calls_in_line_does_not_hang() {
    // The kernel accepts for it; nobody ever answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let limits = sockeye::Limits::default().with_max_connections(std::num::NonZeroUsize::new(1));
    let client = sockeye::Client::builder().limits(limits).build().unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    let own = client.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            for _ in 0..5 {
                let call = own.get(&url).send();
                tokio::spawn(async move { drop(call.await) });
            }
            let in_line = async {
                loop {
                    let total = own.stats().total;
                    if (total.connections_active, total.requests_pending) == (1, 4) {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let wait = std::time::Duration::from_secs(10);
            tokio::time::timeout(wait, in_line).await.unwrap();
        });
        drop(runtime);
        done.send(()).unwrap();
    });
    let wait = std::time::Duration::from_secs(30);
    assert!(ended.recv_timeout(wait).is_ok(), "the runtime does not end");
    sockeye::test::at_rest(&client);
}
