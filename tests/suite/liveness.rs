//! Whether an idle socket is alive, on real sockets: what the kernel, the runtime and the reaper know of it, and when.
//!
//! Scenarios of the pool's specification by number: 17, 21 and 24, and the setting `Limits::liveness` (R-LIVE). Real TCP runs in
//! real time; where idle time matters the clock is moved while nothing is on its way.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use sockeye::stats::{CloseCause, ProbeOutcome, RetryCause};
use sockeye::test::at_rest;
use sockeye::{BoxFuture, Client, Connect, ErrorKind, Limits, Liveness, Method, Route, Socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::support::peer::{World, ok};
use crate::support::server::{Action, Peer, Server, honest, response, take_notice, until, within};

const SECOND: Duration = Duration::from_secs(1);

fn client_with(liveness: Liveness) -> Client {
    let limits = Limits::default()
        .with_idle_timeout(600 * SECOND)
        .with_liveness(liveness);
    Client::builder().limits(limits).build().unwrap()
}

async fn get(client: &Client, server: &Server, path: &str) -> String {
    let response = client.get(server.url(path)).send().await.unwrap();
    response.text().await.unwrap()
}

/// Lets so much time pass at once for timers and idle connections, while nothing is on its way.
async fn skip(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A server that ends its direction after its answer, as it is told to, and waits for the client to end the other. How long
/// the client took for that is in the list.
fn patient(end: End, took: &Arc<Mutex<Vec<Duration>>>) -> Server {
    let took = Arc::clone(took);
    Server::plain(move |mut peer: Peer| {
        let took = Arc::clone(&took);
        async move {
            let request = peer.request().await.expect("a request");
            peer.answer(request.path).await;
            tokio::time::sleep(end.after).await;
            let ended = Instant::now();
            peer.finish().await;
            took.lock().unwrap().push(ended.elapsed());
        }
    })
}

/// When a server ends an idle connection.
#[derive(Clone, Copy)]
struct End {
    after: Duration,
}

/// 17, R-LIVE-5: a server ends an idle connection and nobody makes a request. The client lets go of it at once, whether the
/// reaper has armed it already or not, and no socket is left in CLOSE_WAIT.
#[tokio::test]
async fn t17_fin_while_idle_reaped() {
    for after in [Duration::ZERO, Duration::from_millis(120)] {
        let took = Arc::default();
        let server = patient(End { after }, &took);
        let client = client_with(Liveness::Auto);
        for round in 1..=5 {
            within(async {
                get(&client, &server, "/").await;
                until("the client has ended its direction", || {
                    took.lock().unwrap().len() == round
                })
                .await;
                until("no socket is left", || {
                    server.client_sockets().unwrap_or(0) == 0
                })
                .await;
                let total = client.stats().total;
                assert_eq!(total.connections_idle, 0);
                let closed = total.connections_closed;
                assert_eq!(
                    closed.get(CloseCause::PeerClosed),
                    round as u64,
                    "{closed:?}"
                );
                at_rest(&client);
            })
            .await;
        }
        let took = took.lock().unwrap();
        let fastest = took.iter().min().unwrap();
        // A busy machine may be late now and then; an idle connection would otherwise be kept for ten minutes.
        assert!(*fastest < Duration::from_millis(250), "{took:?}");
        println!("the client took {took:?} after {after:?}");
    }
}

/// 17: the same for connections that are reset, or on which something is said that nobody asked for.
#[tokio::test]
async fn t17_reset_or_junk_while_idle_reaped() {
    for junk in [true, false] {
        within(async {
            let server = Server::plain(move |mut peer: Peer| async move {
                peer.request().await;
                peer.answer("").await;
                tokio::time::sleep(Duration::from_millis(70)).await;
                if junk {
                    peer.send("HTTP/1.1 408 Request Timeout\r\n\r\n").await;
                    peer.end().await;
                } else {
                    peer.reset();
                }
            });
            let client = client_with(Liveness::Auto);
            get(&client, &server, "/").await;
            until("nothing is idle", || {
                client.stats().total.connections_idle == 0
            })
            .await;
            until("no socket is left", || {
                server.client_sockets().unwrap_or(0) == 0
            })
            .await;
            let closed = client.stats().total.connections_closed;
            let cause = if junk {
                CloseCause::Unsolicited
            } else {
                CloseCause::PeerClosed
            };
            assert_eq!(closed.get(cause), 1, "{closed:?}");
            at_rest(&client);
        })
        .await;
    }
}

/// 17: connections to a server that is idle for long cost nothing: neither probes nor closes, until one of many ends.
#[tokio::test]
async fn t17_only_what_ended_is_let_go() {
    within(async {
        let server = Server::plain(|mut peer: Peer| async move {
            peer.request().await;
            peer.answer("").await;
            if peer.number == 3 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                peer.finish().await;
            } else {
                peer.end().await;
            }
        });
        let client = client_with(Liveness::Auto);
        assert_eq!(client.preconnect(server.url("/"), 8).await.unwrap(), 8);
        let calls: Vec<_> = (0..8)
            .map(|_| tokio::spawn(client.get(server.url("/")).send()))
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        until("one has gone", || {
            client.stats().total.connections_idle == 7
        })
        .await;
        take_notice().await;
        let total = client.stats().total;
        assert_eq!(total.connections_idle, 7);
        assert_eq!(total.connections_closed.total(), 1);
        at_rest(&client);
    })
    .await;
}

/// R-LIVE-6: an end that arrives together with the response is not forgotten when the response is read, though the read takes
/// everything there is. The readiness alone tells.
#[tokio::test]
async fn an_end_that_comes_with_the_response_is_seen() {
    for end in [true, false] {
        within(async {
            let server = Server::plain(move |mut peer: Peer| async move {
                let number = peer.number;
                while peer.request().await.is_some() {
                    peer.answer("fine").await;
                    if number == 0 && end {
                        return peer.finish().await;
                    }
                }
            });
            let client = client_with(Liveness::FlagOnly);
            client.preconnect(server.url("/"), 1).await.unwrap();
            let mut call = Box::pin(client.get(server.url("/")).send());
            let first = crate::support::streams::within_polls(1, &mut call).await;
            assert!(first.is_none());
            // The runtime has no turn until all of it has arrived.
            if end {
                server.end_arrived();
            } else {
                server.bytes_arrived();
            }
            assert_eq!(call.await.unwrap().text().await.unwrap(), "fine");
            let again = client.get(server.url("/")).send().await.unwrap();
            assert_eq!((again.reused(), again.attempts()), (!end, 1));
            drop(again);
            let total = client.stats().total;
            assert_eq!(
                (total.retries, server.accepted()),
                (0, 1 + usize::from(end))
            );
            at_rest(&client);
        })
        .await;
    }
}

/// A TCP stream that counts how often it is read, and how often there was nothing to read.
struct Counting {
    tcp: TcpStream,
    reads: Arc<AtomicUsize>,
    empty: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buf);
        let counter = if polled.is_ready() {
            &self.reads
        } else {
            &self.empty
        };
        counter.fetch_add(1, Ordering::SeqCst);
        polled
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Dials one address, and counts what is read from it.
#[derive(Clone, Default)]
struct Counter {
    reads: Arc<AtomicUsize>,
    empty: Arc<AtomicUsize>,
}

impl Connect for Counter {
    fn connect<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move {
            let origin = route.origin();
            let tcp = TcpStream::connect((origin.host(), origin.port())).await?;
            Ok(Socket::from_io(Counting {
                tcp,
                reads: Arc::clone(&self.reads),
                empty: Arc::clone(&self.empty),
            }))
        })
    }
}

/// Answers `/N` with a response of exactly N bytes, head included.
async fn exact(mut peer: Peer) {
    while let Some(request) = peer.request().await {
        let total: usize = request.path.trim_start_matches('/').parse().unwrap();
        let head = |len: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {len:07}\r\n\r\n");
        let len = total - head(0).len();
        peer.send([head(len).as_bytes(), &vec![b'x'; len]].concat())
            .await;
    }
}

/// 21, R-LIVE-1: a response that ends exactly where the room for a read ends costs no read more than one that is a byte
/// shorter. Counted in the socket.
#[tokio::test]
async fn t21_exact_read_costs_no_read() {
    within(async {
        let server = Server::plain(exact);
        let counter = Counter::default();
        let limits = Limits::default().with_idle_timeout(600 * SECOND);
        let client = Client::builder()
            .connector(counter.clone())
            .limits(limits)
            .build()
            .unwrap();
        // Up to the first read, so that what arrives arrives in one piece.
        for size in [2048, 4096, 8191, 8192] {
            let mut reads = Vec::new();
            for size in [size - 1, size] {
                let (before, empty) = (&counter.reads, &counter.empty);
                let (before, empty) = (before.load(Ordering::SeqCst), empty.load(Ordering::SeqCst));
                let url = server.url(&format!("/{size}"));
                let body = client.get(url).send().await.unwrap().bytes().await.unwrap();
                assert!(body.len() > size - 100);
                let data = counter.reads.load(Ordering::SeqCst) - before;
                let nothing = counter.empty.load(Ordering::SeqCst) - empty;
                assert!(data <= 2, "{data} reads for {size} bytes");
                reads.push(data + nothing);
            }
            assert!(reads[1] <= reads[0] + 1, "{size} bytes: {reads:?} reads");
        }
        assert_eq!(server.accepted(), 1);
        at_rest(&client);
    })
    .await;
}

/// 21 on the runtime's own sockets: the flag that an exact read leaves set costs one look more at the next checkout, and the
/// connection is used again.
#[tokio::test]
async fn t21_exact_read_readiness() {
    within(async {
        let server = Server::plain(exact);
        let client = client_with(Liveness::Auto);
        let settled = |client: &Client| {
            let probes = client.stats().total.probes;
            assert_eq!(probes.get(ProbeOutcome::SettledDead), 0, "{probes:?}");
            probes.get(ProbeOutcome::SettledAlive)
        };
        let mut looks = 0;
        for size in [2048, 8191, 8192, 8193, 16384, 65536, 1 << 20] {
            let url = server.url(&format!("/{size}"));
            client.get(url).send().await.unwrap().bytes().await.unwrap();
            looks += 1;
            assert!(settled(&client) <= looks, "after {size} bytes");
        }
        assert_eq!(server.accepted(), 1);
        at_rest(&client);
    })
    .await;
}

/// A task's waker, of which the test knows how many others hold it.
struct Spy {
    task: Mutex<Waker>,
}

impl Wake for Spy {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.task.lock().unwrap().wake_by_ref();
    }
}

/// Runs a future to its end under a waker that is only its own. Answers the waker, too.
async fn spied<F: Future>(future: F) -> (F::Output, Arc<Spy>) {
    let mut future = pin!(future);
    let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let spy = Arc::new(Spy {
        task: Mutex::new(task),
    });
    let output = poll_fn(|cx| {
        spy.task.lock().unwrap().clone_from(cx.waker());
        let waker = Waker::from(Arc::clone(&spy));
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await;
    (output, spy)
}

/// A call with everything that can leave a waker behind: it dials or waits, uploads more than fits, and reads in pieces.
async fn whole_call(client: Client, url: String, upload: usize) {
    let mut response = client
        .post(url)
        .body(vec![b'x'; upload])
        .send()
        .await
        .unwrap();
    while response.chunk().await.unwrap().is_some() {}
}

/// A server that reads slowly at first, and answers with two pieces.
async fn slow(mut peer: Peer) {
    while let Some(request) = peer.request().await {
        let answer =
            response(format!("{} bytes, {}", request.body.len(), "z".repeat(20_000)).as_bytes());
        let (first, second) = answer.split_at(100);
        peer.send(first).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        peer.send(second).await;
    }
}

/// 24, R-LIVE-5: when a connection has been idle for a moment nothing holds the waker of the task that used it, so the task's
/// memory is free. On a fresh connection and on a used one.
async fn wakers_are_let_go(client: &Client, url: &str) {
    for upload in [0, 10, 8 << 20] {
        let call = spied(whole_call(client.clone(), url.to_owned(), upload));
        let ((), spy) = within(call).await;
        assert_eq!(client.stats().total.connections_idle, 1);
        until("nothing holds the waker", || Arc::strong_count(&spy) == 1).await;
    }
    assert_eq!(client.stats().total.connections_opened, 1);
    at_rest(client);
}

#[tokio::test]
async fn t24_waker_evicted_plain() {
    let server = Server::plain(slow);
    wakers_are_let_go(&client_with(Liveness::Auto), &server.url("/")).await;
}

#[cfg(feature = "rustls")]
#[tokio::test]
async fn t24_waker_evicted_tls() {
    use crate::support::server::{Authority, TLS12, TLS13};

    for versions in [TLS12, TLS13] {
        let authority = Authority::new();
        let server = Server::tls(authority.local().server(versions), slow);
        let tls = sockeye::TlsConfig::builder().only_roots(authority.pem());
        let client = Client::builder()
            .limits(Limits::default().with_idle_timeout(600 * SECOND))
            .tls(tls.build().unwrap())
            .build()
            .unwrap();
        wakers_are_let_go(&client, &server.url("/")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn t24_waker_evicted_memory() {
    let world = World::new();
    world.buffer(1000);
    world.serve(|request| ok(&request.body.len().to_string().repeat(1000)));
    let client = world.client();
    for upload in [0, 10, 100_000] {
        let call = spied(whole_call(
            client.clone(),
            "http://peer.test/".to_owned(),
            upload,
        ));
        let ((), spy) = call.await;
        assert_eq!(client.stats().total.connections_idle, 1);
        // The reaper comes by within a twentieth of a second.
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(Arc::strong_count(&spy), 1, "after an upload of {upload}");
    }
    assert_eq!(world.accepts(), 1);
    at_rest(&client);
}

/// 24 for a call that is dropped: in line, while it dials, and while its response drains.
#[tokio::test]
async fn t24_waker_evicted_by_a_drop() {
    within(async {
        let server = Server::plain(slow);
        let client = client_with(Liveness::Auto);
        let polls = 1..12;
        for polls in polls {
            let url = server.url("/");
            let cut =
                crate::support::streams::within_polls(polls, whole_call(client.clone(), url, 10));
            let (_, spy) = spied(cut).await;
            until("nothing holds the waker", || Arc::strong_count(&spy) == 1).await;
        }
        until("the pool is at rest", || {
            let total = client.stats().total;
            total.connections_active + total.connections_connecting == 0
        })
        .await;
        at_rest(&client);
    })
    .await;
}

/// How often the kernel was asked and knew of nothing.
fn asked(client: &Client) -> u64 {
    client.stats().total.probes.get(ProbeOutcome::KernelAlive)
}

/// R-LIVE-3, `Liveness::Auto`: the kernel is asked before what may not be sent twice, and after a second without use.
#[tokio::test]
async fn auto_asks_the_kernel_when_it_matters() {
    within(async {
        let server = Server::plain(honest);
        let client = client_with(Liveness::Auto);
        get(&client, &server, "/").await;
        let mut expected = 0;
        for (idle, method, vouched, asks) in [
            (Duration::ZERO, Method::GET, false, false),
            (Duration::ZERO, Method::PUT, false, false),
            (Duration::ZERO, Method::POST, false, true),
            (Duration::ZERO, Method::PATCH, false, true),
            (Duration::ZERO, Method::POST, true, false),
            (
                SECOND - Duration::from_millis(300),
                Method::GET,
                false,
                false,
            ),
            (SECOND, Method::GET, false, true),
            (3 * SECOND, Method::GET, false, true),
            (Duration::ZERO, Method::GET, false, false),
        ] {
            skip(idle).await;
            let request = client
                .request(method.clone(), server.url("/"))
                .idempotent(vouched);
            request.send().await.unwrap().bytes().await.unwrap();
            expected += u64::from(asks);
            assert_eq!(asked(&client), expected, "{method} after {idle:?}");
        }
        assert_eq!(server.accepted(), 1);
        at_rest(&client);
    })
    .await;
}

/// R-LIVE-3: after a connection has failed as stale its origin is doubted for a minute, and no other is.
#[tokio::test]
async fn auto_doubts_an_origin_for_a_minute_after_a_stale_failure() {
    // Its clock is moved by more than `within` allows a test.
    let server = Server::plain(|mut peer: Peer| async move {
        if peer.number == 0 {
            peer.request().await;
            peer.answer("").await;
            peer.any_byte().await;
            peer.close().await;
        } else {
            honest(peer).await;
        }
    });
    let other = Server::plain(honest);
    let client = client_with(Liveness::Auto);
    get(&client, &server, "/").await;
    get(&client, &other, "/").await;
    get(&client, &other, "/").await;
    assert_eq!(asked(&client), 0);
    get(&client, &server, "/").await;
    let total = client.stats().total;
    assert_eq!(total.retry_causes.get(RetryCause::Stale), 1);
    let failed = tokio::time::Instant::now();
    for _ in 0..3 {
        let before = asked(&client);
        get(&client, &server, "/").await;
        assert_eq!(asked(&client), before + 1, "in doubt");
        get(&client, &other, "/").await;
        assert_eq!(asked(&client), before + 1, "the other origin is not");
    }
    // The clock is moved to a bit before the end of the minute, and to just behind it.
    for (at, doubts) in [(50 * SECOND, true), (61 * SECOND, false)] {
        skip(at.saturating_sub(failed.elapsed())).await;
        // This one is asked about because it was idle for so long.
        get(&client, &server, "/").await;
        let before = asked(&client);
        get(&client, &server, "/").await;
        assert_eq!(asked(&client), before + u64::from(doubts), "after {at:?}");
    }
    at_rest(&client);
}

/// `Liveness::AlwaysPeek`: the kernel is asked each time, and what it knows is found.
#[tokio::test]
async fn always_peek_asks_the_kernel_each_time() {
    within(async {
        let server = Server::plain(honest);
        let client = client_with(Liveness::AlwaysPeek);
        get(&client, &server, "/").await;
        for round in 1..=5 {
            get(&client, &server, "/").await;
            assert_eq!(asked(&client), round);
        }
        server.order(&Action::Close);
        server.end_arrived();
        // A GET would be replayed; it is not even sent.
        get(&client, &server, "/").await;
        let total = client.stats().total;
        assert_eq!(total.probes.get(ProbeOutcome::KernelDead), 1);
        assert_eq!((total.retries, server.accepted()), (0, 2));
        at_rest(&client);
    })
    .await;
}

/// `Liveness::FlagOnly`: the kernel is never asked, so an end that the runtime has not seen is found out by use: a GET is
/// replayed, a POST fails. What the runtime has seen is found at once.
#[tokio::test]
async fn flag_only_never_asks_the_kernel() {
    within(async {
        let server = Server::plain(honest);
        let client = client_with(Liveness::FlagOnly);
        get(&client, &server, "/").await;
        skip(10 * SECOND).await;
        let posted = client.post(server.url("/")).body("x").send().await.unwrap();
        posted.bytes().await.unwrap();
        assert_eq!((asked(&client), server.accepted()), (0, 1));

        server.order(&Action::Close);
        server.end_arrived();
        let error = client
            .post(server.url("/"))
            .body("x")
            .send()
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts()),
            (ErrorKind::Io, 1),
            "{error}"
        );
        get(&client, &server, "/").await;
        server.order(&Action::Close);
        server.end_arrived();
        get(&client, &server, "/").await;
        assert_eq!(client.stats().total.retries, 1);

        server.order(&Action::Close);
        server.end_arrived();
        take_notice().await;
        client.post(server.url("/")).body("x").send().await.unwrap();
        let total = client.stats().total;
        assert_eq!(total.probes.get(ProbeOutcome::KernelAlive), 0);
        // The replay looks at what else is idle by asking the kernel, and there was nothing.
        assert_eq!(total.probes.get(ProbeOutcome::KernelDead), 0);
        at_rest(&client);
    })
    .await;
}
