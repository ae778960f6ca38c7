//! Several runtimes and one client: sockets stay with the runtime that made them, and end with it.
//!
//! Scenario 39 of the pool's specification, R-SHARD-1. Runtimes are ended with connections idle, calls under way, bodies half
//! read and dials running; whatever is left of them elsewhere fails, and never panics.

use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use sockeye::stats::{CloseCause, DrainOutcome};
use sockeye::test::{at_rest, check};
use sockeye::{Client, ErrorKind, Limits, Response, Timeouts};
use tokio::runtime::{Builder, Runtime};

use crate::support::peer::{Dial, World, let_others_run, ok};
use crate::support::server::{Peer, Server, honest, until, within};
use crate::support::streams::within_polls;

/// A client that keeps idle connections for longer than any test takes.
fn client() -> Client {
    let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
    Client::builder().limits(limits).build().unwrap()
}

async fn get(client: &Client, server: &Server, path: &str) -> String {
    let response = client.get(server.url(path)).send().await.unwrap();
    response.text().await.unwrap()
}

fn single() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn threaded() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// The ids of the connections that some calls came over; all of them run at once, on connections as they are free.
async fn connections_of(client: &Client, server: &Server) -> HashSet<u64> {
    let mut tasks = tokio::task::JoinSet::new();
    for call in 0..4 {
        let path = format!("/{call}");
        let request = client.get(server.url(&path));
        tasks.spawn(async move {
            let response = request.send().await.unwrap();
            let id = response.connection().id;
            assert_eq!(response.text().await.unwrap(), format!("GET {path} "));
            id
        });
    }
    tasks.join_all().await.into_iter().collect()
}

/// A runtime, and the connections that were ever used on it.
struct User {
    runtime: Runtime,
    used: HashSet<u64>,
}

impl User {
    fn new(mut builder: Builder) -> Self {
        Self {
            runtime: builder.enable_all().build().unwrap(),
            used: HashSet::new(),
        }
    }

    /// Makes some calls; answers whether a connection of before was among theirs.
    fn call(&mut self, client: &Client, server: &Server) -> bool {
        let used = self
            .runtime
            .block_on(within(connections_of(client, server)));
        let again = !used.is_disjoint(&self.used);
        self.used.extend(used);
        again
    }
}

/// Scenario 39, R-SHARD-1: a socket belongs to the runtime that made it.
#[test]
fn t39_two_runtimes_share_a_client_but_no_connection() {
    let server = Server::plain(honest);
    let client = client();
    let mut threaded = User::new(Builder::new_multi_thread());
    let mut single = User::new(Builder::new_current_thread());
    assert!(!threaded.call(&client, &server));
    assert!(!single.call(&client, &server));
    for _ in 0..3 {
        assert!(threaded.call(&client, &server));
        assert!(single.call(&client, &server));
    }
    assert!(single.used.is_disjoint(&threaded.used));
    check(&client);

    // One runtime ends with connections idle; the other does not notice.
    drop(threaded.runtime);
    assert!(single.call(&client, &server));
    // The id of a runtime may be given to another one after its end, but never its sockets.
    let mut third = User::new(Builder::new_current_thread());
    assert!(!third.call(&client, &server));
    assert!(third.used.is_disjoint(&threaded.used));
    assert!(third.used.is_disjoint(&single.used));
    drop(third.runtime);
    assert!(single.call(&client, &server));
    drop(client);
    let all_closed = until("all sockets are closed", || server.open() == 0);
    single.runtime.block_on(within(all_closed));
}

/// Scenario 39: the sockets of a runtime that has ended are closed, and their permits with them.
#[test]
fn t39_connections_end_with_their_runtime() {
    let server = Server::plain(honest);
    let client = client();
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let of_first = first.block_on(within(connections_of(&client, &server)));
    drop(first);
    second.block_on(within(async {
        get(&client, &server, "/").await;
        until("the sockets of the first are closed", || server.open() == 1).await;
        let total = client.stats().total;
        assert_eq!(total.connections_idle, 1);
        let gone = u64::try_from(of_first.len()).unwrap();
        assert_eq!(total.connections_closed.get(CloseCause::RuntimeGone), gone);
    }));
    at_rest(&client);
}

/// A server that sends the second half of a body a while after the first.
fn in_halves() -> Server {
    Server::plain(|mut peer: Peer| async move {
        while let Some(request) = peer.request().await {
            if request.path == "/halves" {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
                    .await;
                // Long enough for the client to wait for it.
                tokio::time::sleep(Duration::from_millis(30)).await;
                peer.send(" whole").await;
            } else {
                peer.answer(format!("{} {} ", request.method, request.path))
                    .await;
            }
        }
    })
}

/// Ends a runtime without waiting for anything of it.
fn end(runtime: Runtime) {
    runtime.shutdown_timeout(Duration::from_secs(10));
}

/// Runs a future on this thread with no runtime around it.
fn without_a_runtime<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// 39: a body is read to its end on another thread, in another runtime or in none; its connection goes back to where it is
/// from, and only there it is used again.
#[test]
fn t39_a_body_is_finished_elsewhere() {
    for with_a_runtime in [true, false] {
        let server = in_halves();
        let client = client();
        let home = threaded();
        let mut ids = HashSet::new();
        for _ in 0..2 {
            let sent = client.get(server.url("/halves")).send();
            let response = home.block_on(within(sent)).unwrap();
            ids.insert(response.connection().id);
            let body = thread::spawn(move || {
                if with_a_runtime {
                    single().block_on(within(response.bytes()))
                } else {
                    without_a_runtime(response.bytes())
                }
            });
            assert_eq!(body.join().unwrap().unwrap(), "half whole");
            at_rest(&client);
            assert_eq!(client.stats().total.connections_idle, 1);
        }
        assert_eq!(ids.len(), 1, "it was given back to its own runtime");
        let other = single();
        other.block_on(within(async {
            let response = client.get(server.url("/")).send().await.unwrap();
            assert!(!response.reused(), "a socket of another runtime was lent");
            drop(response);
        }));
        at_rest(&client);
        drop(other);
    }
}

/// 39: a body that was read in a runtime which has ended since leaves nothing of it on the connection: the timer of a wait
/// belongs to the runtime in which it was made.
#[test]
fn t39_no_timer_is_left_of_another_runtime() {
    let server = in_halves();
    let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
    // Nothing but the reading of a body has a limit, so the first timer is made there.
    let timeouts = Timeouts::none().with_read(Some(Duration::from_secs(10)));
    let client = Client::builder()
        .limits(limits)
        .timeouts(timeouts)
        .build()
        .unwrap();
    let home = threaded();
    for _ in 0..2 {
        let sent = client.get(server.url("/halves")).send();
        let response = home.block_on(within(sent)).unwrap();
        let elsewhere = single();
        let body = elsewhere.block_on(within(response.bytes()));
        assert_eq!(body.unwrap(), "half whole");
        drop(elsewhere);
        let body = home.block_on(within(async {
            let response = client.get(server.url("/halves")).send().await.unwrap();
            assert!(response.reused());
            response.bytes().await
        }));
        assert_eq!(body.unwrap(), "half whole");
    }
    at_rest(&client);
}

/// What is done with a response whose runtime has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Read,
    Dropped,
}

/// 39: the runtime ends while a body is half read. Reading on fails, dropping does not panic, and the permit comes back.
#[test]
fn t39_a_runtime_ends_while_a_body_is_read() {
    for left in [Left::Read, Left::Dropped] {
        for around in [true, false] {
            let server = in_halves();
            let client = client();
            let home = threaded();
            let sent = client.get(server.url("/halves")).send();
            let response = home.block_on(within(sent)).unwrap();
            end(home);
            let finish = async move {
                match left {
                    Left::Read => {
                        // The half that was read already may still be had.
                        let error = response.bytes().await.unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                    }
                    Left::Dropped => drop(response),
                }
            };
            if around {
                single().block_on(within(finish));
            } else {
                without_a_runtime(finish);
            }
            at_rest(&client);
            assert_eq!(client.stats().total.connections_active, 0);
            let other = single();
            assert_eq!(other.block_on(within(get(&client, &server, "/"))), "GET / ");
            drop(other);
        }
    }
}

/// 39: the same where the rest of the body has been read from the socket already: it may be had, without a panic, and the
/// connection is not used again.
#[test]
fn t39_a_runtime_ends_behind_a_body_that_has_arrived() {
    let server = Server::plain(|mut peer: Peer| async move {
        while let Some(request) = peer.request().await {
            match request.path.as_str() {
                "/chunks" => {
                    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                    peer.send(format!("{head}3\r\nabc\r\n3\r\ndef\r\n")).await;
                    // Behind the head, so that the body is not complete with it.
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    peer.send("3\r\nghi\r\n3\r\njkl\r\n0\r\n\r\n").await;
                }
                _ => peer.answer("fine").await,
            }
        }
    });
    for left in [Left::Read, Left::Dropped] {
        let client = client();
        let home = threaded();
        let mut response = home.block_on(within(async {
            let mut response = client.get(server.url("/chunks")).send().await.unwrap();
            for expected in ["abc", "def", "ghi"] {
                assert_eq!(response.chunk().await.unwrap().unwrap(), expected);
            }
            response
        }));
        end(home);
        let other = single();
        other.block_on(within(async {
            if left == Left::Read {
                assert_eq!(response.chunk().await.unwrap().unwrap(), "jkl");
                assert!(response.chunk().await.unwrap().is_none());
            }
            drop(response);
            assert_eq!(get(&client, &server, "/").await, "fine");
            until("the old one is closed", || {
                client.stats().total.connections_idle == 1
            })
            .await;
        }));
        at_rest(&client);
    }
}

/// A response over memory whose head has come and whose body is `body` so far, made in a runtime that still runs.
fn half_read(world: &World, client: &Client, runtime: &Runtime, body: &str) -> Response {
    let (world, client, body) = (world.clone(), client.clone(), body.to_owned());
    runtime.block_on(within(async move {
        let call = tokio::spawn(client.get("http://peer.test/").send());
        let mut connection = world.accept().await;
        connection.read_request().await;
        // So that the call has had to wait, and has a timer.
        let_others_run().await;
        connection
            .write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
            .await;
        let response = call.await.unwrap().unwrap();
        connection.write(body).await;
        // The peer's end stays open until the world is dropped.
        std::mem::forget(connection);
        response
    }))
}

/// 39 over memory, where the stream outlives the runtime and only its timers end: no panic, whatever is done.
#[test]
fn t39_a_runtime_ends_and_its_timers_with_it() {
    for body in ["", "half", "0123456789"] {
        for left in [Left::Read, Left::Dropped] {
            let world = World::new();
            let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
            let client = world.builder().limits(limits).build().unwrap();
            let home = single();
            let response = half_read(&world, &client, &home, body);
            drop(home);
            let elsewhere = single();
            let (what, client) = (format!("{body:?}, {left:?}"), &client);
            elsewhere.block_on(within(async move {
                match (left, body.len()) {
                    (Left::Dropped, _) => drop(response),
                    (Left::Read, 10) => assert_eq!(response.bytes().await.unwrap(), body),
                    (Left::Read, _) => {
                        // Nothing comes any more, and whether the limit can strike is another matter.
                        let waiting = within_polls(3, response.bytes());
                        let waited = tokio::time::timeout(Duration::from_millis(50), waiting);
                        assert!(!matches!(waited.await, Ok(Some(Ok(_)))), "{what}");
                    }
                }
                until("nothing is lent", || {
                    client.stats().total.connections_active == 0
                })
                .await;
                at_rest(client);
            }));
        }
    }
}

/// 39: a drain ends with its runtime.
#[test]
fn t39_a_runtime_ends_while_a_body_is_drained() {
    let world = World::new();
    let client = world.client();
    let home = single();
    let response = half_read(&world, &client, &home, "half");
    home.block_on(async { drop(response) });
    assert_eq!(client.stats().total.connections_draining, 1);
    drop(home);
    let total = client.stats().total;
    assert_eq!(
        (total.connections_draining, total.connections_active),
        (0, 0)
    );
    assert_eq!(total.drains.get(DrainOutcome::GaveUp), 1);
    at_rest(&client);
}

/// 39: the runtime ends while a call waits for its dial. The permit comes back, a call that was taken elsewhere fails, and
/// the client can be used from another runtime.
#[test]
fn t39_a_runtime_ends_while_it_dials() {
    let world = World::new();
    world.plan(Dial::Hang);
    let limits = Limits::default().with_max_connections(std::num::NonZeroUsize::new(1));
    let client = world.builder().limits(limits).build().unwrap();
    let home = single();
    let mut call = Box::pin(client.get("http://peer.test/").send());
    home.block_on(async {
        assert!(within_polls(1, &mut call).await.is_none());
        let_others_run().await;
    });
    let other = single();
    // Another origin waits for the one place there is.
    let waiting = other.spawn({
        let sent = client.get("http://other.test/").send();
        async move { sent.await.unwrap().text().await.unwrap() }
    });
    other.block_on(let_others_run());
    assert_eq!(client.stats().total.connections_connecting, 1);
    drop(home);
    other.block_on(within(async {
        world.serve(|_| ok("served"));
        assert_eq!(waiting.await.unwrap(), "served");
        let error = call.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert!(
            error.to_string().contains("its runtime has ended"),
            "{error}"
        );
        let again = client.get("http://peer.test/").send().await.unwrap();
        assert_eq!(again.text().await.unwrap(), "served");
        at_rest(&client);
    }));
    assert_eq!(world.dials(), 3);
}

/// 39: the runtime ends while a call is under way; the call fails when it is polled elsewhere.
#[test]
fn t39_a_runtime_ends_while_a_call_waits_for_its_head() {
    let server = Server::plain(|mut peer: Peer| async move {
        peer.request().await;
        peer.end().await;
    });
    let client = client();
    let home = threaded();
    let mut call = Box::pin(client.post(server.url("/")).body("x").send());
    home.block_on(within(async {
        while server.requests().is_empty() {
            assert!(within_polls(1, &mut call).await.is_none());
            tokio::task::yield_now().await;
        }
    }));
    end(home);
    let error = single().block_on(within(call)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    at_rest(&client);
    let other = single();
    other.block_on(within(until("the server sees the end", || {
        server.open() == 0
    })));
}
