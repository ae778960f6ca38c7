//! The pool: what is lent again and what is not, limits and lines, dials, idleness, closing, and what the stats say of it.
//!
//! The numbers are those of the scenarios in the pool's rules; scenarios that need real sockets are in `network.rs`.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sockeye::stats::{CloseCause, DrainOutcome};
use sockeye::test::check;
use sockeye::{Body, Client, ErrorKind, Limits, Phase, Response, Result, Sent, Timeouts};
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{Instant, advance, sleep, timeout};

use crate::support::peer::{Dial, PeerConnection, World, let_others_run, ok, reply, settle, until};
use crate::support::streams::{Random, fed, within_polls};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const URL: &str = "http://peer.test/";

fn at_most(connections: usize) -> Limits {
    Limits::default().with_max_connections(NonZeroUsize::new(connections))
}

fn limited(world: &World, limits: Limits) -> Client {
    world.builder().limits(limits).build().unwrap()
}

fn get(client: &Client, url: &str) -> JoinHandle<Result<Response>> {
    tokio::spawn(client.get(url).send())
}

/// A call whose request has arrived and was not answered.
async fn held(client: &Client, world: &World) -> (JoinHandle<Result<Response>>, PeerConnection) {
    let call = get(client, "http://peer.test/held");
    let mut connection = world.accept().await;
    connection.read_request().await;
    (call, connection)
}

async fn text(response: Result<Response>) -> String {
    response.unwrap().text().await.unwrap()
}

/// A server that answers with its target, `delay` after the request.
fn serve_after(world: &World, delay: Duration) {
    let world = world.clone();
    tokio::spawn(async move {
        loop {
            let mut connection = world.accept().await;
            tokio::spawn(async move {
                while let Some(request) = connection.next_request().await {
                    sleep(delay).await;
                    if !connection.try_write(ok(request.target()).as_bytes()).await {
                        return;
                    }
                }
            });
        }
    });
}

/// 1: the connection that was given back last is lent first.
#[tokio::test(start_paused = true)]
async fn t01_lifo_reuse() {
    let world = World::new();
    let client = world.client();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(held(&client, &world).await);
    }
    let mut ids = Vec::new();
    let mut connections = Vec::new();
    for (call, mut connection) in open {
        connection.write(ok("")).await;
        ids.push(call.await.unwrap().unwrap().connection().id);
        connections.push(connection);
        advance(10 * MILLI).await;
    }
    for expected in [2, 2] {
        let call = get(&client, URL);
        connections[expected].read_request().await;
        connections[expected].write(ok("")).await;
        assert_eq!(call.await.unwrap().unwrap().connection().id, ids[expected]);
    }
    // Two at once: the second gets the one before.
    let (last, before) = (get(&client, URL), get(&client, URL));
    for at in [2, 1] {
        connections[at].read_request().await;
        connections[at].write(ok("")).await;
    }
    assert_eq!(last.await.unwrap().unwrap().connection().id, ids[2]);
    assert_eq!(before.await.unwrap().unwrap().connection().id, ids[1]);
    assert_eq!(world.accepts(), 3);
    settle(&client, &world).await;
}

/// 2: an idle connection that has expired is not lent, and closes without anybody asking.
#[tokio::test(start_paused = true)]
async fn t02_idle_expiry() {
    let world = World::new();
    let client = limited(&world, Limits::default().with_idle_timeout(SECOND));
    world.serve(|_| ok(""));
    client.get(URL).send().await.unwrap();
    advance(SECOND - 10 * MILLI).await;
    assert!(client.get(URL).send().await.unwrap().reused());
    // The clock jumps without the reaper having had its turn.
    advance(SECOND + 100 * MILLI).await;
    assert!(!client.get(URL).send().await.unwrap().reused());
    assert_eq!(world.accepts(), 2);
    sleep(SECOND + 600 * MILLI).await;
    assert_eq!(world.open(), 0, "closed without a request");
    let total = client.stats().total;
    assert_eq!(total.connections_idle, 0);
    assert_eq!(total.connections_closed.get(CloseCause::Idle), 2);
    settle(&client, &world).await;
}

/// The reaper goes when nothing is idle, and comes back.
#[tokio::test(start_paused = true)]
async fn idle_connections_expire_again_after_a_pause() {
    let world = World::new();
    let client = limited(&world, Limits::default().with_idle_timeout(SECOND));
    world.serve(|_| ok(""));
    for round in 1..4 {
        client.get(URL).send().await.unwrap();
        sleep(10 * SECOND).await;
        assert_eq!(world.open(), 0);
        assert_eq!(world.accepts(), round);
    }
    settle(&client, &world).await;
}

/// 3: a server's hint decides how long a connection is kept.
#[tokio::test(start_paused = true)]
async fn t03_keep_alive_hint() {
    for (hint, idle, reused) in [
        ("timeout=3", 900 * MILLI, true),
        ("timeout=3", 1100 * MILLI, false),
        ("timeout=1", Duration::ZERO, false),
        ("timeout=2", Duration::ZERO, false),
        ("timeout=30", 27 * SECOND, true),
        ("timeout=30", 29 * SECOND, false),
        ("timeout=600", 59 * SECOND, true),
        ("timeout=600", 61 * SECOND, false),
        ("max=5", 4 * SECOND, true),
        ("max=5", 6 * SECOND, false),
    ] {
        let world = World::new();
        let client = world.client();
        world.serve(move |_| reply("200 OK", &format!("keep-alive: {hint}\r\n"), ""));
        client.get(URL).send().await.unwrap();
        sleep(idle).await;
        let again = client.get(URL).send().await.unwrap();
        assert_eq!(again.reused(), reused, "{hint} after {idle:?}");
        settle(&client, &world).await;
    }
}

/// 4 (with ruling 1): a burst is kept for a second, then max_idle holds.
#[tokio::test(start_paused = true)]
async fn max_idle_holds_after_a_grace() {
    let world = World::new();
    let limits = Limits::default()
        .with_max_idle(3)
        .with_idle_timeout(60 * SECOND);
    let client = limited(&world, limits);
    serve_after(&world, 10 * MILLI);
    for _ in 0..2 {
        let calls: Vec<_> = (0..10).map(|_| get(&client, URL)).collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert_eq!(
            world.accepts(),
            10,
            "the second burst finds the connections of the first"
        );
    }
    sleep(3 * SECOND).await;
    let total = client.stats().total;
    assert_eq!(total.connections_idle, 3);
    assert_eq!(total.connections_closed.get(CloseCause::MaxIdle), 7);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn max_idle_per_host_holds_for_each_host() {
    let world = World::new();
    let limits = Limits::default()
        .with_max_idle_per_host(Some(1))
        .with_idle_timeout(60 * SECOND);
    let client = limited(&world, limits);
    serve_after(&world, 10 * MILLI);
    let mut calls = Vec::new();
    for host in ["a", "b", "a", "b", "a"] {
        calls.push(get(&client, &format!("http://{host}.test/")));
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    sleep(3 * SECOND).await;
    let stats = client.stats();
    for (origin, host) in &stats.hosts {
        assert_eq!(host.connections_idle, 1, "{origin}");
    }
    settle(&client, &world).await;
}

/// 5: never more than the limit, and first come, first served.
#[tokio::test(start_paused = true)]
async fn t05_total_cap_fifo() {
    let world = World::new();
    let client = limited(&world, at_most(2));
    serve_after(&world, 100 * MILLI);
    let order = Arc::new(Mutex::new(Vec::new()));
    let most = Arc::new(AtomicUsize::new(0));
    let mut calls = JoinSet::new();
    for number in 0..8 {
        let (client, world) = (client.clone(), world.clone());
        let (order, most) = (Arc::clone(&order), Arc::clone(&most));
        calls.spawn(async move {
            let url = format!("http://peer.test/{number}");
            let answer = text(client.get(&url).send().await).await;
            assert_eq!(answer, format!("/{number}"));
            most.fetch_max(world.open(), Ordering::SeqCst);
            order.lock().unwrap().push(number);
        });
        let_others_run().await;
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((world.accepts(), most.load(Ordering::SeqCst)), (2, 2));
    settle(&client, &world).await;
}

/// 6: one host at its own limit does not hold up another.
#[tokio::test(start_paused = true)]
async fn t06_per_host_cap_isolated() {
    let world = World::new();
    let limits = Limits::default().with_max_connections_per_host(NonZeroUsize::new(1));
    let client = limited(&world, limits);
    let (call, mut connection) = held(&client, &world).await;
    let waiting = get(&client, URL);
    let_others_run().await;
    assert_eq!(client.stats().total.requests_pending, 1);
    world.serve(|_| ok("other"));
    let started = Instant::now();
    assert_eq!(
        text(client.get("http://other.test/").send().await).await,
        "other"
    );
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert!(!waiting.is_finished());
    connection.write(ok("held")).await;
    assert_eq!(text(call.await.unwrap()).await, "held");
    connection.read_request().await;
    connection.write(ok("waited")).await;
    assert_eq!(text(waiting.await.unwrap()).await, "waited");
    assert_eq!(world.accepts(), 2);
    settle(&client, &world).await;
}

/// 7: waiters that time out leave nothing behind.
#[tokio::test(start_paused = true)]
async fn t07_pool_timeout_no_leak() {
    let world = World::new();
    let client = limited(&world, at_most(1));
    let never = Timeouts::none();
    let call = tokio::spawn(client.get("http://peer.test/held").timeouts(never).send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    let waiters: Vec<_> = (0..50).map(|_| get(&client, URL)).collect();
    let_others_run().await;
    assert_eq!(client.stats().total.requests_pending, 50);
    for waiter in waiters {
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.phase(), Some(Phase::Pool));
    }
    let total = client.stats().total;
    assert_eq!(total.requests_pending, 0);
    assert_eq!(total.timeouts.get(Phase::Pool), 50);
    check(&client);
    connection.write(ok("held")).await;
    assert_eq!(text(call.await.unwrap()).await, "held");
    let next = get(&client, URL);
    connection.read_request().await;
    connection.write(ok("next")).await;
    assert_eq!(text(next.await.unwrap()).await, "next");
    settle(&client, &world).await;
}

/// 8: a release exactly at the deadline gives the connection or the timeout, never both, never neither.
#[tokio::test(start_paused = true)]
async fn t08_timeout_against_delivery() {
    let world = World::new();
    let timeouts = Timeouts::default().with_pool(Some(SECOND));
    let client = world
        .builder()
        .limits(at_most(1))
        .timeouts(timeouts)
        .build()
        .unwrap();
    let (mut served, mut timed_out) = (0, 0);
    for round in 0..100_u32 {
        let (call, mut connection) = {
            let call = get(&client, "http://peer.test/held");
            let mut connection = world.accept().await;
            connection.read_request().await;
            (call, connection)
        };
        let waiter = get(&client, "http://peer.test/waits");
        let_others_run().await;
        advance(SECOND - 2 * MILLI + MILLI * (round % 5)).await;
        connection.write(ok("held")).await;
        let peer = tokio::spawn(async move {
            if connection.next_request().await.is_some() {
                connection.write(ok("waits")).await;
            }
        });
        assert_eq!(text(call.await.unwrap()).await, "held");
        match waiter.await.unwrap() {
            Ok(response) => {
                assert_eq!(response.text().await.unwrap(), "waits");
                served += 1;
            }
            Err(error) => {
                assert_eq!(error.phase(), Some(Phase::Pool));
                timed_out += 1;
            }
        }
        settle(&client, &world).await;
        client.close_idle();
        peer.await.unwrap();
        settle(&client, &world).await;
    }
    assert!(served > 0 && timed_out > 0, "{served} and {timed_out}");
    assert_eq!(world.accepts(), 100);
}

/// 9: who leaves the line is passed over.
#[tokio::test(start_paused = true)]
async fn t09_cancel_queued() {
    let world = World::new();
    let client = limited(&world, at_most(1));
    let (call, mut connection) = held(&client, &world).await;
    let first = get(&client, "http://peer.test/first");
    let second = get(&client, "http://peer.test/second");
    let_others_run().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(client.stats().total.requests_pending, 1);
    connection.write(ok("held")).await;
    call.await.unwrap().unwrap();
    assert_eq!(connection.read_request().await.target(), "/second");
    connection.write(ok("second")).await;
    assert_eq!(text(second.await.unwrap()).await, "second");
    assert_eq!((world.accepts(), client.stats().total.cancelled), (1, 1));
    settle(&client, &world).await;
}

/// 10: a connection delivered to one who is gone goes to the next in line.
#[tokio::test(start_paused = true)]
async fn t10_cancel_after_delivery() {
    let world = World::new();
    let client = limited(&world, at_most(1));
    let (call, mut connection) = held(&client, &world).await;
    let mut first = Box::pin(client.get("http://peer.test/first").send());
    assert!(within_polls(1, &mut first).await.is_none());
    let second = get(&client, "http://peer.test/second");
    let_others_run().await;
    connection.write(ok("held")).await;
    let id = call.await.unwrap().unwrap().connection().id;
    // The first in line was served and not polled since.
    let_others_run().await;
    assert_eq!(client.stats().total.requests_pending, 1);
    drop(first);
    assert_eq!(connection.read_request().await.target(), "/second");
    connection.write(ok("second")).await;
    let response = second.await.unwrap().unwrap();
    assert_eq!(response.connection().id, id);
    assert_eq!(world.accepts(), 1);
    settle(&client, &world).await;
}

/// The same with nobody behind: the connection is idle, and its bytes are counted once.
#[tokio::test(start_paused = true)]
async fn a_delivered_connection_that_nobody_takes_is_idle() {
    let world = World::new();
    let client = limited(&world, at_most(1));
    let (call, mut connection) = held(&client, &world).await;
    let mut first = Box::pin(client.get(URL).send());
    assert!(within_polls(1, &mut first).await.is_none());
    connection.write(ok("held")).await;
    call.await.unwrap().unwrap();
    let before = client.stats().total;
    drop(first);
    settle(&client, &world).await;
    let after = client.stats().total;
    assert_eq!(after.connections_idle, 1);
    assert_eq!(
        (after.bytes_sent, after.bytes_received),
        (before.bytes_sent, before.bytes_received),
        "bytes of the exchange before were counted again"
    );
}

/// A request that is refused when it is encoded neither costs the connection nor counts what went before.
#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_encoded_counts_no_bytes() {
    let world = World::new();
    let client = world.client();
    world.serve(|_| ok("fine"));
    client.get(URL).send().await.unwrap();
    let before = client.stats().total;
    let error = client
        .get(URL)
        .header("host", "a b")
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    settle(&client, &world).await;
    let after = client.stats().total;
    assert_eq!(after.connections_idle, 1);
    assert_eq!(
        (after.bytes_sent, after.bytes_received),
        (before.bytes_sent, before.bytes_received)
    );
}

/// 12: the call that caused a dial is dropped; the dial serves the others.
#[tokio::test(start_paused = true)]
async fn t12_cancel_dialer() {
    let world = World::new();
    world.always(Dial::Delay(SECOND));
    serve_after(&world, MILLI);
    let client = limited(&world, at_most(1));
    let mut calls: Vec<_> = (0..5).map(|_| get(&client, URL)).collect();
    let_others_run().await;
    calls.remove(0).abort();
    for call in calls {
        assert_eq!(text(call.await.unwrap()).await, "/");
    }
    assert_eq!(world.dials(), 1);
    settle(&client, &world).await;
}

/// 12, alone: a dial that nobody waits for any more ends as an idle connection, which the next call finds.
#[tokio::test(start_paused = true)]
async fn a_dial_goes_on_without_its_call() {
    let world = World::new();
    world.always(Dial::Delay(SECOND));
    world.serve(|_| ok("fine"));
    let client = world.client();
    let call = get(&client, URL);
    let_others_run().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    sleep(2 * SECOND).await;
    assert_eq!(client.stats().total.connections_idle, 1);
    let started = Instant::now();
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert!(!response.reused(), "it had not served before");
    assert_eq!(world.dials(), 1);
    drop(response);
    settle(&client, &world).await;
}

/// 13a: a failed dial is told to the call that caused it; who was served meanwhile hears nothing.
#[tokio::test(start_paused = true)]
async fn t13_dial_error_to_its_owner() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    world.always(Dial::RefuseAfter(SECOND));
    let waiters: Vec<_> = (0..3).map(|_| get(&client, URL)).collect();
    let_others_run().await;
    assert_eq!(client.stats().total.connections_connecting, 3);
    connection.write(ok("held")).await;
    call.await.unwrap().unwrap();
    connection.read_request().await;
    connection
        .write(reply("200 OK", "connection: close\r\n", "served"))
        .await;
    let (mut served, mut failed) = (0, 0);
    for waiter in waiters {
        match waiter.await.unwrap() {
            Ok(response) => {
                assert_eq!(response.text().await.unwrap(), "served");
                served += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Connect);
                assert!(error.is_connect());
                assert_eq!(error.sent(), Sent::Nothing);
                assert!(error.to_string().contains("peer.test"), "{error}");
                failed += 1;
            }
        }
    }
    assert_eq!((served, failed), (1, 2));
    settle(&client, &world).await;
    let total = client.stats().total;
    assert_eq!((total.connect_failures, total.connections_opened), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_dial_fails_its_call_and_not_the_next() {
    let world = World::new();
    world.plan(Dial::Refuse);
    world.serve(|_| ok("fine"));
    let client = limited(&world, at_most(1));
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(error.attempts(), 1);
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::ConnectionRefused));
    assert_eq!(text(client.get(URL).send().await).await, "fine");
    settle(&client, &world).await;
}

/// At the limit, a dial that fails hands its place on.
#[tokio::test(start_paused = true)]
async fn a_failed_dial_hands_its_place_on() {
    let world = World::new();
    world.plan(Dial::RefuseAfter(SECOND));
    world.plan(Dial::RefuseAfter(SECOND));
    serve_after(&world, MILLI);
    let client = limited(&world, at_most(1));
    let calls: Vec<_> = (0..4).map(|_| get(&client, URL)).collect();
    let mut failed = 0;
    for call in calls {
        failed += usize::from(call.await.unwrap().is_err());
    }
    assert_eq!((failed, world.dials()), (2, 3));
    settle(&client, &world).await;
}

/// 14: a connection that is freed while a dial runs is used; the dial serves the next, and there is no third.
#[tokio::test(start_paused = true)]
async fn t14_late_binding_no_churn() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    world.always(Dial::Delay(500 * MILLI));
    let started = Instant::now();
    let first = get(&client, "http://peer.test/first");
    sleep(10 * MILLI).await;
    connection.write(ok("held")).await;
    call.await.unwrap().unwrap();
    assert_eq!(connection.read_request().await.target(), "/first");
    sleep(10 * MILLI).await;
    let second = get(&client, "http://peer.test/second");
    let mut other = world.accept().await;
    assert_eq!(other.read_request().await.target(), "/second");
    assert_eq!(started.elapsed().as_millis() / 10, 50);
    other.write(ok("second")).await;
    connection.write(ok("first")).await;
    assert_eq!(text(first.await.unwrap()).await, "first");
    assert_eq!(text(second.await.unwrap()).await, "second");
    assert_eq!(world.dials(), 2);
    settle(&client, &world).await;
}

/// 15: a host that is saturated cannot starve another at the limit on all connections. R-Q-4 goes by age: those of the
/// saturated host who came first are served first, those who come after must let the other pass.
#[tokio::test(start_paused = true)]
async fn t15_cross_host_starvation() {
    let world = World::new();
    let client = limited(&world, at_most(2));
    serve_after(&world, 20 * MILLI);
    let mut loops = JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        loops.spawn(async move {
            for _ in 0..20 {
                client.get("http://a.test/").send().await.unwrap();
            }
        });
    }
    sleep(50 * MILLI).await;
    let started = Instant::now();
    client.get("http://b.test/").send().await.unwrap();
    let took = started.elapsed();
    loops.abort_all();
    while loops.join_next().await.is_some() {}
    settle(&client, &world).await;
    let before = 48 / 2 * 20 * MILLI;
    assert!(
        took <= 100 * MILLI + before + 2 * 25 * MILLI,
        "b waited {took:?}"
    );
}

/// With nobody of its own in line, a connection that comes free makes room for the other host at once.
#[tokio::test(start_paused = true)]
async fn a_freed_connection_makes_room_for_another_host() {
    let world = World::new();
    let client = limited(&world, at_most(1));
    let (call, mut connection) = held(&client, &world).await;
    let other = get(&client, "http://other.test/");
    let_others_run().await;
    assert_eq!(client.stats().total.requests_pending, 1);
    world.serve(|_| ok("other"));
    connection.write(ok("held")).await;
    assert_eq!(text(call.await.unwrap()).await, "held");
    assert_eq!(text(other.await.unwrap()).await, "other");
    connection.closed().await;
    let total = client.stats().total;
    assert_eq!(total.connections_closed.get(CloseCause::Evicted), 1);
    settle(&client, &world).await;
}

/// At the limit with one host only, a connection that comes free is kept although a call of the same host is being served.
#[tokio::test(start_paused = true)]
async fn a_host_does_not_make_room_for_itself() {
    let world = World::new();
    let client = limited(&world, at_most(2));
    let (first, mut one) = held(&client, &world).await;
    let (second, mut two) = held(&client, &world).await;
    let mut waiting = Box::pin(client.get(URL).send());
    assert!(within_polls(1, &mut waiting).await.is_none());
    one.write(ok("")).await;
    first.await.unwrap().unwrap();
    // The one in line is served by now, but was not polled since.
    two.write(ok("")).await;
    second.await.unwrap().unwrap();
    let waiting = tokio::spawn(waiting);
    one.read_request().await;
    one.write(ok("waited")).await;
    assert_eq!(text(waiting.await.unwrap()).await, "waited");
    let closed = client.stats().total.connections_closed;
    assert_eq!(closed.total(), 0, "{closed:?}");
    assert_eq!(client.stats().total.connections_idle, 2);
    settle(&client, &world).await;
}

/// A connection that closes hands its permit to the host that waits longest.
#[tokio::test(start_paused = true)]
async fn a_permit_goes_to_the_host_that_waits_longest() {
    let world = World::new();
    let client = limited(&world, at_most(1));
    let (call, connection) = held(&client, &world).await;
    let mut waiting = Vec::new();
    for host in ["b", "c", "d"] {
        waiting.push(get(&client, &format!("http://{host}.test/")));
        let_others_run().await;
    }
    call.abort();
    let mut order = Vec::new();
    for waiter in waiting {
        let mut next = world.accept().await;
        next.read_request().await;
        order.push(next.host.clone());
        next.write(reply("200 OK", "connection: close\r\n", ""))
            .await;
        waiter.await.unwrap().unwrap();
    }
    assert_eq!(order, ["b.test", "c.test", "d.test"]);
    drop(connection);
    settle(&client, &world).await;
}

/// 16: at the limit the connection that was idle longest makes room, and nobody waits.
#[tokio::test(start_paused = true)]
async fn t16_evict_lru_for_other_host() {
    let world = World::new();
    let client = limited(&world, at_most(2));
    let (first, mut older) = held(&client, &world).await;
    let (second, mut newer) = held(&client, &world).await;
    older.write(ok("")).await;
    first.await.unwrap().unwrap();
    sleep(10 * MILLI).await;
    newer.write(ok("")).await;
    second.await.unwrap().unwrap();
    let started = Instant::now();
    let call = get(&client, "http://other.test/");
    let mut other = world.accept().await;
    other.read_request().await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    other.write(ok("")).await;
    call.await.unwrap().unwrap();
    older.closed().await;
    let again = get(&client, URL);
    newer.read_request().await;
    newer.write(ok("")).await;
    assert!(again.await.unwrap().unwrap().reused());
    let total = client.stats().total;
    assert_eq!(total.connections_closed.get(CloseCause::Evicted), 1);
    assert_eq!(world.accepts(), 3);
    settle(&client, &world).await;
}

/// 17, over memory: a connection that the peer closed while it was idle is found out at checkout.
#[tokio::test(start_paused = true)]
async fn a_connection_closed_while_idle_is_not_lent() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    connection.close();
    world.serve(|_| ok("fresh"));
    let response = client.post(URL).body("once").send().await.unwrap();
    assert!(!response.reused());
    assert_eq!(response.attempts(), 1);
    let total = client.stats().total;
    assert_eq!(total.connections_closed.get(CloseCause::PeerClosed), 1);
    assert_eq!(total.retries, 0);
    drop(response);
    settle(&client, &world).await;
}

/// What a peer does to a request on a connection that has served once before, or on a fresh one.
struct Stale {
    reused: bool,
    begun: &'static str,
}

/// How many peers saw the request, and what came of it.
async fn stale(
    case: &Stale,
    request: impl Fn(&Client) -> sockeye::RequestBuilder,
) -> (usize, Result<Response>) {
    let world = World::new();
    let client = world.client();
    let seen = Arc::new(AtomicUsize::new(0));
    let begun = case.begun;
    tokio::spawn({
        let (world, seen) = (world.clone(), Arc::clone(&seen));
        let reused = case.reused;
        async move {
            let mut first = world.accept().await;
            if reused {
                first.read_request().await;
                first.write(ok("before")).await;
            }
            first.read_request().await;
            seen.fetch_add(1, Ordering::SeqCst);
            first.write(begun).await;
            first.close();
            loop {
                let mut next = world.accept().await;
                next.read_request().await;
                seen.fetch_add(1, Ordering::SeqCst);
                next.write(ok("after")).await;
                tokio::spawn(async move { next.closed().await });
            }
        }
    });
    if case.reused {
        client.get(URL).send().await.unwrap();
    }
    let outcome = request(&client).send().await;
    settle(&client, &world).await;
    (seen.load(Ordering::SeqCst), outcome)
}

/// 19: what is sent again when a kept connection turns out to be dead.
#[tokio::test(start_paused = true)]
async fn t19_stale_race_matrix() {
    let silent = Stale {
        reused: true,
        begun: "",
    };
    let fresh = Stale {
        reused: false,
        begun: "",
    };
    let begun = Stale {
        reused: true,
        begun: "H",
    };
    let interim = Stale {
        reused: true,
        begun: "HTTP/1.1 100 Continue\r\n\r\n",
    };

    let again = |seen, outcome: Result<Response>| {
        let response = outcome.unwrap();
        assert_eq!((seen, response.attempts()), (2, 2));
    };
    let not_again = |seen, outcome: Result<Response>, kind| {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!((seen, error.attempts()), (1, 1), "{error}");
    };
    let (seen, outcome) = stale(&silent, |client| client.get(URL)).await;
    again(seen, outcome);
    let (seen, outcome) = stale(&silent, |client| client.put(URL).body("text")).await;
    again(seen, outcome);
    let (seen, outcome) = stale(&silent, |client| client.delete(URL)).await;
    again(seen, outcome);
    let post = |client: &Client| client.post(URL).body("text");
    let (seen, outcome) = stale(&silent, |client| post(client).idempotent(true)).await;
    again(seen, outcome);
    let keyed = |client: &Client| post(client).header("idempotency-key", "k-1");
    let (seen, outcome) = stale(&silent, keyed).await;
    again(seen, outcome);
    let (seen, outcome) = stale(&silent, post).await;
    not_again(seen, outcome, ErrorKind::Io);
    let streamed = |client: &Client| {
        let (feed, body) = fed();
        feed.give("text");
        client.put(URL).body(Body::stream(body))
    };
    let (seen, outcome) = stale(&silent, streamed).await;
    not_again(seen, outcome, ErrorKind::Io);
    let (seen, outcome) = stale(&fresh, |client| client.get(URL)).await;
    not_again(seen, outcome, ErrorKind::Io);
    let (seen, outcome) = stale(&begun, |client| client.get(URL)).await;
    not_again(seen, outcome, ErrorKind::Protocol);
    let (seen, outcome) = stale(&interim, |client| client.get(URL)).await;
    not_again(seen, outcome, ErrorKind::Protocol);
}

/// One stale replay, on a fresh connection; all old ones of the host are let go.
#[tokio::test(start_paused = true)]
async fn a_replay_uses_a_fresh_connection_and_happens_once() {
    let world = World::new();
    let client = world.client();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(held(&client, &world).await);
    }
    let mut peers = Vec::new();
    for (call, mut connection) in open {
        connection.write(ok("")).await;
        call.await.unwrap().unwrap();
        peers.push(connection);
    }
    let call = get(&client, URL);
    let mut last = peers.pop().unwrap();
    last.read_request().await;
    last.close();
    let mut fresh = world.accept().await;
    fresh.read_request().await;
    for mut old in peers {
        old.closed().await;
    }
    fresh.close();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Io, 2));
    assert_eq!(world.accepts(), 4);
    let total = client.stats().total;
    assert_eq!((total.retries, total.attempts_total), (1, 5));
    settle(&client, &world).await;
}

/// Ruling 5 (1): a request of which nothing could be written is sent again, whatever its method, at most three times.
#[tokio::test(start_paused = true)]
async fn what_was_never_written_is_sent_again() {
    for refusals in [2, 3] {
        let world = World::new();
        let client = world.client();
        world.faults(crate::support::faults::Faults {
            break_after_writing: Some(0),
            ..Default::default()
        });
        let peer = tokio::spawn({
            let world = world.clone();
            async move {
                for refusal in 1..=refusals {
                    let connection = world.accept().await;
                    if refusal == 2 && refusals == 2 {
                        world.faults(crate::support::faults::Faults::default());
                    }
                    // The client has tried to write by then.
                    let_others_run().await;
                    connection.close();
                }
                world.serve(|request| ok(&String::from_utf8_lossy(&request.body)));
            }
        });
        let outcome = client.post(URL).body("once").send().await;
        if refusals == 2 {
            let response = outcome.unwrap();
            assert_eq!(response.attempts(), 3);
            assert_eq!(response.text().await.unwrap(), "once");
        } else {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.sent()), (ErrorKind::Io, Sent::Nothing));
            assert_eq!((error.attempts(), world.accepts()), (3, 3));
        }
        peer.await.unwrap();
        settle(&client, &world).await;
    }
}

/// A peer that takes every connection and closes it at once is an error after a few of them, not a storm of dials.
#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_at_once_is_an_error() {
    let world = World::new();
    let client = world.client();
    tokio::spawn({
        let world = world.clone();
        async move {
            loop {
                world.accept().await.close();
                if world.dials() > 50 {
                    world.always(Dial::Hang);
                }
            }
        }
    });
    let error = client.get(URL).send().await.unwrap_err();
    assert!(world.dials() <= 10, "{} dials for one call", world.dials());
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    settle(&client, &world).await;
}

/// 20: bytes that come while a connection is idle are never taken for a response.
#[tokio::test(start_paused = true)]
async fn t20_unsolicited_on_idle() {
    for forged in [
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
        "\r\n",
        "x",
    ] {
        let world = World::new();
        let client = world.client();
        let (call, mut connection) = held(&client, &world).await;
        connection.write(ok("")).await;
        call.await.unwrap().unwrap();
        connection.write(forged).await;
        world.serve(|_| ok("genuine"));
        let response = client.get(URL).send().await.unwrap();
        assert!(!response.reused());
        assert_eq!(response.text().await.unwrap(), "genuine");
        assert_eq!(world.accepts(), 2);
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn unsolicited_bytes_are_counted_as_such() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    connection
        .write("HTTP/1.1 408 Request Timeout\r\n\r\n")
        .await;
    world.serve(|_| ok(""));
    client.get(URL).send().await.unwrap();
    let closed = client.stats().total.connections_closed;
    assert_eq!(closed.get(CloseCause::Unsolicited), 1, "{closed:?}");
    settle(&client, &world).await;
}

/// Begins a call whose answer starts with `beginning`, and waits for its head.
async fn streaming(world: &World, client: &Client, beginning: &str) -> (Response, PeerConnection) {
    let call = get(client, URL);
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection.write(beginning).await;
    (call.await.unwrap().unwrap(), connection)
}

/// A next call goes over the same connection.
async fn next_call_reuses(client: &Client, connection: &mut PeerConnection) {
    let again = get(client, URL);
    connection.read_request().await;
    connection.write(ok("next")).await;
    let response = again.await.unwrap();
    assert!(response.as_ref().unwrap().reused());
    assert_eq!(text(response).await, "next");
}

/// The next call goes over another connection, and gets its own answer.
async fn next_call_does_not(client: &Client, world: &World, closed: CloseCause) {
    let causes = client.stats().total.connections_closed;
    assert_eq!(causes.get(closed), 1, "{causes:?}");
    world.serve(|_| ok("next"));
    let response = client.get(URL).send().await;
    assert!(!response.as_ref().unwrap().reused());
    assert_eq!(text(response).await, "next");
}

fn drained(client: &Client, how: DrainOutcome) {
    let drains = client.stats().total.drains;
    assert_eq!((drains.get(how), drains.total()), (1, 1), "{drains:?}");
}

/// 26, first row: what is left of a dropped body is in the read buffer already.
#[tokio::test(start_paused = true)]
async fn t26_body_drop_buffered() {
    let world = World::new();
    let client = world.client();
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let (mut response, mut connection) = streaming(&world, &client, head).await;
    connection.write("3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n").await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "abc");
    drop(response);
    drained(&client, DrainOutcome::Buffered);
    next_call_reuses(&client, &mut connection).await;
    settle(&client, &world).await;
}

/// 26, second row: what is left has arrived, so it is read in the drop.
#[tokio::test(start_paused = true)]
async fn t26_body_drop_inline() {
    for (length, first) in [(20 * 1024, 0), (20 * 1024, 1), (60 * 1024, 100)] {
        let world = World::new();
        let client = world.client();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}",
            "x".repeat(first)
        );
        let (response, mut connection) = streaming(&world, &client, &head).await;
        connection.write("x".repeat(length - first)).await;
        drop(response);
        drained(&client, DrainOutcome::Inline);
        assert_eq!(client.stats().total.connections_idle, 1);
        next_call_reuses(&client, &mut connection).await;
        settle(&client, &world).await;
    }
}

/// 26, third row: what is left arrives soon, so a task reads it.
#[tokio::test(start_paused = true)]
async fn t26_body_drop_task() {
    let world = World::new();
    let client = world.client();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 102400\r\n\r\n";
    let (response, mut connection) = streaming(&world, &client, head).await;
    drop(response);
    let total = client.stats().total;
    assert_eq!(
        (total.connections_active, total.connections_draining),
        (1, 1)
    );
    for _ in 0..10 {
        connection.write("x".repeat(10_240)).await;
        advance(Duration::from_millis(2)).await;
    }
    until("drained", || client.stats().total.connections_idle == 1).await;
    drained(&client, DrainOutcome::Task);
    assert_eq!(client.stats().total.connections_draining, 0);
    next_call_reuses(&client, &mut connection).await;
    settle(&client, &world).await;
}

/// 26, fourth row: a body that goes on and on, or stands still, is read for 50 ms; one that is large in all, up to the limit.
#[tokio::test(start_paused = true)]
async fn t26_body_drop_endless() {
    for (piece, pause) in [("", 0), ("1\r\nx\r\n", 1), ("1000\r\n", 0)] {
        let world = World::new();
        let client = world.client();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let (response, mut connection) = streaming(&world, &client, head).await;
        let started = Instant::now();
        drop(response);
        let piece = match piece {
            "1000\r\n" => format!("{piece}{}\r\n", "x".repeat(0x1000)),
            _ => piece.to_owned(),
        };
        let endless = async {
            while !piece.is_empty() && connection.try_write(piece.as_bytes()).await {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            connection.closed().await;
        };
        timeout(SECOND, endless).await.expect("it closes");
        assert!(started.elapsed() <= Duration::from_millis(51));
        drained(&client, DrainOutcome::GaveUp);
        next_call_does_not(&client, &world, CloseCause::DrainGaveUp).await;
        settle(&client, &world).await;
    }
}

/// 26, last row, and everything else that is not worth a read.
#[tokio::test(start_paused = true)]
async fn t26_body_drop_hopeless() {
    let keep = Limits::default();
    for (head, limits) in [
        ("content-length: 1073741824", keep.clone()),
        ("content-length: 262145", keep.clone()),
        ("connection: close\r\ncontent-length: 10", keep.clone()),
        ("x-framed-by: the end", keep.clone()),
        ("content-length: 10", keep.with_max_drain(0)),
    ] {
        let world = World::new();
        let client = limited(&world, limits);
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
        let (response, mut connection) = streaming(&world, &client, &head).await;
        drop(response);
        assert_eq!(client.stats().total.connections_active, 0, "{head}");
        connection.closed().await;
        drained(&client, DrainOutcome::GaveUp);
        next_call_does_not(&client, &world, CloseCause::DrainGaveUp).await;
        settle(&client, &world).await;
    }
}

/// No more than 32 bodies are drained at a time.
#[tokio::test(start_paused = true)]
async fn drains_are_bounded() {
    let world = World::new();
    let client = world.client();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
    let mut responses = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..40 {
        let (response, connection) = streaming(&world, &client, head).await;
        responses.push(response);
        connections.push(connection);
    }
    drop(responses);
    let total = client.stats().total;
    assert_eq!(
        (total.connections_active, total.connections_draining),
        (32, 32)
    );
    let_others_run().await;
    advance(Duration::from_millis(51)).await;
    settle(&client, &world).await;
    assert_eq!(client.stats().total.drains.get(DrainOutcome::GaveUp), 40);
}

/// A malformed rest, or a connection that ends in it, closes.
#[tokio::test(start_paused = true)]
async fn a_drain_that_fails_closes() {
    for rest in ["zz\r\n", ""] {
        let world = World::new();
        let client = world.client();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let (response, mut connection) = streaming(&world, &client, head).await;
        connection.write(rest).await;
        if rest.is_empty() {
            drop(connection);
        }
        drop(response);
        drained(&client, DrainOutcome::GaveUp);
        next_call_does_not(&client, &world, CloseCause::Error).await;
        settle(&client, &world).await;
    }
}

/// A body may be dropped, and drained, outside of any runtime.
#[tokio::test]
async fn a_body_dropped_outside_of_a_runtime_is_drained() {
    let world = World::new();
    let client = world.client();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
    let (response, mut connection) = streaming(&world, &client, head).await;
    std::thread::spawn(move || drop(response)).join().unwrap();
    connection.write("0123456789").await;
    until("drained", || client.stats().total.connections_idle == 1).await;
    drained(&client, DrainOutcome::Task);
    settle(&client, &world).await;
}

/// 28: a call dropped after its n-th poll leaves a connection that is clean or closed; the next response is always right.
#[tokio::test(start_paused = true)]
async fn t28_dirty_by_default() {
    let mut finished = 0;
    for polls in 1..=60 {
        let world = World::new();
        // Narrow and slow, so that a call takes many polls.
        world.buffer(32);
        let client = limited(&world, at_most(1));
        tokio::spawn({
            let world = world.clone();
            async move {
                loop {
                    let mut connection = world.accept().await;
                    while let Some(request) = connection.next_request().await {
                        let body = format!("{} {}", request.target(), request.body.len());
                        let body = format!("{body} {}", "z".repeat(40));
                        if !connection.write_slowly(ok(&body).as_bytes()).await {
                            break;
                        }
                    }
                }
            }
        });
        let call = |path: &str, size: usize| {
            let request = client.put(format!("http://peer.test{path}"));
            let sent = request.body(vec![b'x'; size]).send();
            async move { text(sent.await).await }
        };
        let expected = |path, size| format!("{path} {size} {}", "z".repeat(40));
        if polls % 2 == 0 {
            assert_eq!(call("/before", 10).await, expected("/before", 10));
        }
        if let Some(body) = within_polls(polls, call("/cut", 200)).await {
            assert_eq!(body, expected("/cut", 200));
            finished += 1;
        }
        for _ in 0..2 {
            let next = timeout(60 * SECOND, call("/next", 3));
            assert_eq!(
                next.await.unwrap(),
                expected("/next", 3),
                "after {polls} polls"
            );
        }
        settle(&client, &world).await;
    }
    assert!(finished < 60, "no call was ever cut");
}

/// The same for calls that wait in line and for dials that take time.
#[tokio::test(start_paused = true)]
async fn calls_dropped_at_any_poll_leave_nothing_behind() {
    for polls in 1..=20 {
        let world = World::new();
        world.always(Dial::Delay(MILLI));
        serve_after(&world, MILLI);
        let client = limited(&world, at_most(1));
        let mut calls = JoinSet::new();
        for number in 0..5 {
            let sent = client.get(format!("http://peer.test/{number}")).send();
            calls.spawn(async move {
                let cut = if number % 2 == 0 { polls } else { usize::MAX };
                if let Some(response) = within_polls(cut, sent).await {
                    assert_eq!(text(response).await, format!("/{number}"));
                }
            });
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
        assert_eq!(text(client.get(URL).send().await).await, "/");
        settle(&client, &world).await;
        assert!(world.open() <= 1);
    }
}

/// 11, bounded: many tasks, few connections, and calls that are dropped at any point.
#[tokio::test(start_paused = true)]
async fn t11_cancel_storm() {
    for seed in 1..=5 {
        let world = World::new();
        world.buffer(200);
        let client = limited(
            &world,
            at_most(10).with_max_connections_per_host(NonZeroUsize::new(6)),
        );
        tokio::spawn({
            let world = world.clone();
            async move {
                let mut random = Random::new(seed * 1000);
                loop {
                    let mut connection = world.accept().await;
                    let delay = MILLI * u32::try_from(random.below(5)).unwrap();
                    tokio::spawn(async move {
                        let mut left = 7;
                        while let Some(request) = connection.next_request().await {
                            sleep(delay).await;
                            let body = format!("{}{}", request.target(), "z".repeat(300));
                            let sent = connection.try_write(ok(&body).as_bytes()).await;
                            left -= 1;
                            if !sent || left == 0 {
                                return;
                            }
                        }
                    });
                }
            }
        });
        let most = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..200_u64 {
            let (client, world, most) = (client.clone(), world.clone(), Arc::clone(&most));
            tasks.spawn(async move {
                let mut random = Random::new(seed * 10_000 + number);
                for round in 0..5 {
                    let path = format!("/{number}-{round}");
                    let url = format!(
                        "http://{}.test{path}",
                        ["a", "b", "c"][random.below(3) as usize]
                    );
                    let call = async {
                        let mut response = client.get(&url).send().await?;
                        most.fetch_max(world.open(), Ordering::SeqCst);
                        let mut body = Vec::new();
                        while let Some(chunk) = response.chunk().await? {
                            body.extend_from_slice(&chunk);
                        }
                        Ok::<_, sockeye::Error>(body)
                    };
                    let polls = match random.below(3) {
                        0 => usize::MAX,
                        _ => 1 + random.below(12) as usize,
                    };
                    match within_polls(polls, call).await {
                        Some(Ok(body)) => assert!(
                            body.starts_with(path.as_bytes()) && body.ends_with(b"zz"),
                            "a response of another call"
                        ),
                        Some(Err(error)) => assert!(
                            matches!(error.kind(), ErrorKind::Io | ErrorKind::Timeout),
                            "{error}"
                        ),
                        None => {}
                    }
                    if random.below(4) == 0 {
                        sleep(MILLI * u32::try_from(random.below(4)).unwrap()).await;
                    }
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= 10);
        settle(&client, &world).await;
        client.get("http://a.test/later").send().await.unwrap();
        let total = client.stats().total;
        assert!(total.cancelled > 0 && total.responses_2xx > 0);
        assert_eq!(total.requests_total, 1001);
        client.close(SECOND).await;
        assert_eq!(world.open(), 0);
        settle(&client, &world).await;
    }
}

/// Two hosts that want all connections share them, and both come to their end.
#[tokio::test(start_paused = true)]
async fn two_hosts_at_the_limit_both_finish() {
    let world = World::new();
    let client = limited(&world, at_most(2));
    serve_after(&world, MILLI);
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        let client = client.clone();
        tasks.spawn(async move {
            let host = ["a", "b"][number % 2];
            for round in 0..10 {
                let url = format!("http://{host}.test/{number}-{round}");
                let answer = text(client.get(url).send().await).await;
                assert_eq!(answer, format!("/{number}-{round}"));
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    settle(&client, &world).await;
    assert!(world.open() <= 2);
    assert_eq!(client.stats().total.responses_2xx, 200);
}

#[tokio::test(start_paused = true)]
async fn max_pending_fails_the_call_beyond_it() {
    let world = World::new();
    let limits = at_most(1).with_max_pending(NonZeroUsize::new(2));
    let client = limited(&world, limits);
    let (call, mut connection) = held(&client, &world).await;
    let waiting = [get(&client, URL), get(&client, URL)];
    let_others_run().await;
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PoolFull);
    assert_eq!(error.phase(), Some(Phase::Pool));
    let told = error.to_string();
    assert!(told.contains('2') && told.contains("max_pending"), "{told}");
    assert_eq!(client.stats().total.errors.get(ErrorKind::PoolFull), 1);
    connection.write(ok("held")).await;
    call.await.unwrap().unwrap();
    for waiter in waiting {
        connection.read_request().await;
        connection.write(ok("waited")).await;
        assert_eq!(text(waiter.await.unwrap()).await, "waited");
    }
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn max_requests_per_connection_ends_a_connection() {
    let world = World::new();
    let limits = Limits::default().with_max_requests_per_connection(Some(3));
    let client = limited(&world, limits);
    world.serve(|_| ok(""));
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(client.get(URL).send().await.unwrap().connection().id);
    }
    let distinct: HashSet<_> = ids.iter().collect();
    assert_eq!((distinct.len(), world.accepts()), (3, 3));
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[2], ids[3]);
    let closed = client.stats().total.connections_closed;
    assert_eq!(closed.get(CloseCause::Lifetime), 2);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn max_lifetime_ends_a_connection() {
    let world = World::new();
    let limits = Limits::default()
        .with_max_lifetime(Some(10 * SECOND))
        .with_idle_timeout(60 * SECOND);
    let client = limited(&world, limits);
    world.serve(|_| ok(""));
    for _ in 0..8 {
        client.get(URL).send().await.unwrap();
        sleep(SECOND).await;
    }
    assert_eq!(world.accepts(), 1);
    // Ten per cent of spread are allowed.
    sleep(4 * SECOND).await;
    client.get(URL).send().await.unwrap();
    sleep(MILLI).await;
    client.get(URL).send().await.unwrap();
    assert_eq!(world.accepts(), 2);
    settle(&client, &world).await;
}

/// R-LIFE-2: an idle connection that is too old is not lent, though it was young when it was given back.
#[tokio::test(start_paused = true)]
async fn max_lifetime_counts_while_idle() {
    let world = World::new();
    let limits = Limits::default()
        .with_max_lifetime(Some(10 * SECOND))
        .with_idle_timeout(60 * SECOND);
    let client = limited(&world, limits);
    world.serve(|_| ok(""));
    client.get(URL).send().await.unwrap();
    sleep(12 * SECOND).await;
    let again = client.get(URL).send().await.unwrap();
    assert!(!again.reused(), "12 s old, with a lifetime of 10 s");
    settle(&client, &world).await;
}

/// Closing fails those who wait and those who come; the call that runs finishes.
#[tokio::test(start_paused = true)]
async fn t37_close() {
    let world = World::new();
    let client = limited(&world, at_most(2));
    let (call, mut connection) = held(&client, &world).await;
    let (other, mut idle) = held(&client, &world).await;
    idle.write(ok("")).await;
    other.await.unwrap().unwrap();
    let (busy, mut streaming) = {
        let call = get(&client, URL);
        idle.read_request().await;
        idle.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .await;
        (call.await.unwrap().unwrap(), idle)
    };
    let waiters = [get(&client, URL), get(&client, "http://other.test/")];
    let_others_run().await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close(5 * SECOND).await }
    });
    for waiter in waiters {
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ClientClosed);
        assert!(error.is_closed());
    }
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    let error = client.get("http://third.test/").send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    assert!(!closing.is_finished());
    connection.write(ok("held")).await;
    assert_eq!(text(call.await.unwrap()).await, "held");
    connection.closed().await;
    streaming.write(" whole").await;
    assert_eq!(busy.bytes().await.unwrap(), "half whole");
    streaming.closed().await;
    let started = Instant::now();
    let closed = closing.await.unwrap();
    assert_eq!((closed.finished, closed.cut), (2, 0));
    assert_eq!(started.elapsed(), Duration::ZERO);
    let again = client.close(5 * SECOND).await;
    assert_eq!((again.finished, again.cut), (0, 0));
    let error = client.preconnect(URL, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    assert_eq!(world.accepts(), 2);
    let total = client.stats().total;
    assert_eq!(total.connections_closed.get(CloseCause::PoolClosed), 2);
    settle(&client, &world).await;
}

/// 37, its deadline: what is still in use then fails, whether it waits for a head or for more of a body, and closes.
#[tokio::test(start_paused = true)]
async fn t37_close_cuts_at_its_deadline() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
    let (mut read, mut reading) = streaming(&world, &client, head).await;
    let read = tokio::spawn(async move { read.chunk().await });
    let (mut unread, mut resting) = streaming(&world, &client, head).await;
    let_others_run().await;
    let started = Instant::now();
    let closed = client.close(3 * SECOND).await;
    assert_eq!(started.elapsed().as_secs(), 3);
    assert_eq!((closed.finished, closed.cut), (0, 3));
    for error in [
        call.await.unwrap().unwrap_err(),
        read.await.unwrap().unwrap_err(),
        unread.chunk().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::ClientClosed, "{error}");
        assert!(error.to_string().contains("deadline"), "{error}");
    }
    drop(unread);
    for connection in [&mut connection, &mut reading, &mut resting] {
        connection.closed().await;
    }
    let causes = client.stats().total.connections_closed;
    assert_eq!(causes.get(CloseCause::Cut), 3, "{causes:?}");
    assert_eq!(client.close(SECOND).await.cut, 0);
    settle(&client, &world).await;
}

/// 37: drains are not waited for.
#[tokio::test(start_paused = true)]
async fn t37_close_ends_drains() {
    let world = World::new();
    let client = world.client();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
    let (response, mut connection) = streaming(&world, &client, head).await;
    drop(response);
    let_others_run().await;
    assert_eq!(client.stats().total.connections_draining, 1);
    let started = Instant::now();
    assert_eq!(client.close(SECOND).await.cut, 0);
    assert_eq!(started.elapsed(), Duration::ZERO);
    connection.closed().await;
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn close_ends_dials() {
    let world = World::new();
    world.always(Dial::Hang);
    let client = world.client();
    let call = get(&client, URL);
    let_others_run().await;
    assert_eq!(client.stats().total.connections_connecting, 1);
    let started = Instant::now();
    let closed = client.close(5 * SECOND).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(closed.cut, 0);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    settle(&client, &world).await;
}

/// 38: the last client is dropped while a body is read; the body goes on, then its connection closes.
#[tokio::test(start_paused = true)]
async fn t38_drop_client_keep_body() {
    let world = World::new();
    let client = world.client();
    let (idle_call, mut idle) = held(&client, &world).await;
    let call = get(&client, URL);
    let mut connection = world.accept().await;
    connection.read_request().await;
    idle.write(ok("")).await;
    idle_call.await.unwrap().unwrap();
    connection
        .write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let response = call.await.unwrap().unwrap();
    drop(client);
    idle.closed().await;
    assert_eq!(world.open(), 1);
    connection.write(" whole").await;
    assert_eq!(response.bytes().await.unwrap(), "half whole");
    connection.closed().await;
    assert_eq!(world.open(), 0);
    // The reaper notices at its next turn.
    sleep(SECOND).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0, "a task is left");
}

/// Dropping the last client ends its dials.
#[tokio::test(start_paused = true)]
async fn dropping_the_client_ends_its_tasks() {
    let world = World::new();
    world.always(Dial::Hang);
    let client = world.client();
    assert!(within_polls(1, client.get(URL).send()).await.is_none());
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 1, "the dial");
    drop(client);
    until("no task is left", || metrics.num_alive_tasks() == 0).await;
}

/// An unused client has no task: the reaper goes with the last idle connection.
#[tokio::test(start_paused = true)]
async fn a_client_at_rest_has_no_task() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 1, "the reaper");
    sleep(10 * SECOND).await;
    connection.closed().await;
    assert_eq!(metrics.num_alive_tasks(), 0);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn preconnect_opens_what_is_missing() {
    let world = World::new();
    world.serve(|_| ok(""));
    let client = world.client();
    client.get(URL).send().await.unwrap();
    assert_eq!(client.preconnect(URL, 3).await.unwrap(), 3);
    assert_eq!(world.accepts(), 3);
    assert_eq!(client.stats().total.connections_idle, 3);
    assert_eq!(client.preconnect(URL, 2).await.unwrap(), 2);
    assert_eq!(client.preconnect(URL, 0).await.unwrap(), 0);
    assert_eq!(world.accepts(), 3);
    let calls: Vec<_> = (0..3).map(|_| get(&client, URL)).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(world.accepts(), 3);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn preconnect_stays_within_max_connections() {
    let world = World::new();
    let client = limited(&world, at_most(2));
    let started = Instant::now();
    assert_eq!(client.preconnect(URL, 5).await.unwrap(), 2);
    assert_eq!(started.elapsed(), Duration::ZERO);
    // It never evicts.
    assert_eq!(client.preconnect("http://other.test/", 1).await.unwrap(), 0);
    assert_eq!(world.dials(), 2);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn preconnect_stays_within_the_limit_of_the_host() {
    let world = World::new();
    let limits = Limits::default().with_max_connections_per_host(NonZeroUsize::new(2));
    let client = limited(&world, limits);
    let started = Instant::now();
    assert_eq!(client.preconnect(URL, 5).await.unwrap(), 2);
    assert_eq!(started.elapsed(), Duration::ZERO, "it never waits in line");
    assert_eq!(client.stats().total.errors.total(), 0);
    settle(&client, &world).await;
}

/// R-DIAL-3: a connection that nobody has used yet is kept for ten seconds.
#[tokio::test(start_paused = true)]
async fn preconnected_connections_are_kept_for_ten_seconds() {
    let world = World::new();
    world.serve(|_| ok(""));
    let client = world.client();
    assert_eq!(client.preconnect(URL, 1).await.unwrap(), 1);
    sleep(8 * SECOND).await;
    client.get(URL).send().await.unwrap();
    assert_eq!(world.accepts(), 1);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn preconnect_tells_why_there_is_none() {
    let world = World::new();
    world.plan(Dial::Refuse);
    let client = world.client();
    let error = client.preconnect(URL, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("http://peer.test"), "{error}");
    world.plan(Dial::Refuse);
    assert_eq!(client.preconnect(URL, 2).await.unwrap(), 1);
    let error = client.preconnect("nonsense", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    settle(&client, &world).await;
}

/// No bytes were spoken: nothing is counted as sent.
#[tokio::test(start_paused = true)]
async fn preconnect_counts_no_bytes() {
    let world = World::new();
    world.serve(|_| ok(""));
    let client = world.client();
    client.get(URL).send().await.unwrap();
    let before = client.stats().total;
    client.preconnect(URL, 1).await.unwrap();
    let after = client.stats().total;
    assert_eq!(after.bytes_sent, before.bytes_sent);
    assert_eq!(after.bytes_received, before.bytes_received);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn close_idle_closes_what_is_idle_only() {
    let world = World::new();
    let client = world.client();
    let (call, mut busy) = held(&client, &world).await;
    let (other, mut idle) = held(&client, &world).await;
    idle.write(ok("")).await;
    other.await.unwrap().unwrap();
    client.close_idle();
    idle.closed().await;
    busy.write(ok("busy")).await;
    assert_eq!(text(call.await.unwrap()).await, "busy");
    let again = get(&client, URL);
    busy.read_request().await;
    busy.write(ok("again")).await;
    assert!(again.await.unwrap().unwrap().reused());
    settle(&client, &world).await;
}

/// Each counter moves by what happened, and by nothing else.
#[tokio::test(start_paused = true)]
async fn stats_count_what_happened() {
    let world = World::new();
    let client = world.client();
    let mut sent = 0;
    let mut received = 0;
    let (call, mut connection) = {
        let call = get(&client, URL);
        let mut connection = world.accept().await;
        sent += connection.read_request().await.raw.len();
        (call, connection)
    };
    let total = client.stats().total;
    assert_eq!((total.requests_active, total.connections_active), (1, 1));
    assert_eq!((total.requests_total, total.responses_2xx), (1, 0));
    let first = ok("first");
    received += first.len();
    connection.write(&first).await;
    call.await.unwrap().unwrap();
    for (status, fields) in [
        ("301 Moved", ""),
        ("404 Not Found", ""),
        ("500 Oh", "connection: close\r\n"),
    ] {
        let call = tokio::spawn(client.post(URL).body("12345").send());
        sent += connection.read_request().await.raw.len();
        let reply = reply(status, fields, "x");
        received += reply.len();
        connection.write(&reply).await;
        let _ = call.await.unwrap();
    }
    connection.closed().await;
    world.plan(Dial::Refuse);
    client.get(URL).send().await.unwrap_err();
    let cancelled = get(&client, URL);
    let mut last = world.accept().await;
    sent += last.read_request().await.raw.len();
    cancelled.abort();
    last.closed().await;
    settle(&client, &world).await;

    let stats = client.stats();
    let total = &stats.total;
    assert_eq!(total.requests_total, 6);
    assert_eq!(total.attempts_total, 6);
    assert_eq!(
        [
            total.responses_2xx,
            total.responses_3xx,
            total.responses_4xx,
            total.responses_5xx
        ],
        [1, 1, 1, 1]
    );
    assert_eq!(total.errors.get(ErrorKind::Status), 2);
    assert_eq!(total.errors.get(ErrorKind::Connect), 1);
    assert_eq!(total.errors.total(), 3);
    assert_eq!((total.cancelled, total.retries), (1, 0));
    assert_eq!(total.connections_opened, 2);
    assert_eq!(total.connections_reused, 3);
    assert_eq!(total.connect_failures, 1);
    let closed = &total.connections_closed;
    assert_eq!(closed.get(CloseCause::PeerAsked), 1, "{closed:?}");
    assert_eq!(closed.get(CloseCause::Dropped), 1, "{closed:?}");
    assert_eq!(closed.total(), 2, "{closed:?}");
    assert_eq!(total.bytes_sent, sent as u64);
    assert_eq!(total.bytes_received, received as u64);
    assert_eq!(total.head.count, 4);
    assert_eq!(stats.hosts.len(), 1);
    assert_eq!(stats.hosts[0].0.to_string(), "http://peer.test");
    assert_eq!(stats.max_connections, Some(100));
}

/// A body that fails counts once as a response and once as an error; one that is read counts into the total.
#[tokio::test(start_paused = true)]
async fn stats_count_bodies() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| match request.target() {
        "/large" => ok(&"x".repeat(100_000)),
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome".to_owned(),
    });
    let large = client.get("http://peer.test/large").send().await.unwrap();
    assert_eq!(
        client.stats().total.total.count,
        0,
        "the body is not read yet"
    );
    large.bytes().await.unwrap();
    assert_eq!(client.stats().total.total.count, 1);
    let short = client.get(URL).send().await.unwrap();
    let error = short.bytes().await.unwrap_err();
    assert_eq!(error.phase(), Some(Phase::Read));
    let total = client.stats().total;
    assert_eq!(total.responses_2xx, 2);
    assert_eq!(total.errors.get(ErrorKind::Timeout), 1);
    assert_eq!(total.timeouts.get(Phase::Read), 1);
    assert_eq!(total.total.count, 1);
    settle(&client, &world).await;
}

/// A future that was never polled is no call.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_polled_did_not_happen() {
    let world = World::new();
    let client = world.client();
    drop(client.get(URL).send());
    let total = client.stats().total;
    assert_eq!((total.requests_total, total.cancelled), (0, 0));
    assert_eq!(world.dials(), 0);
    settle(&client, &world).await;
}

/// Connections to one host are not lent to another, nor to another port or scheme.
#[tokio::test(start_paused = true)]
async fn every_origin_has_its_own_connections() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| ok(request.field("host").unwrap()));
    let origins = ["a.test", "b.test", "a.test:81", "a.test.", "A.test"];
    for (accepts, host) in [1, 2, 3, 4, 4].into_iter().zip(origins) {
        let answer = text(client.get(format!("http://{host}/")).send().await).await;
        assert_eq!(answer, host.to_ascii_lowercase());
        assert_eq!(world.accepts(), accepts, "{host}");
    }
    settle(&client, &world).await;
}

/// A newcomer does not overtake those who wait.
#[tokio::test(start_paused = true)]
async fn nobody_overtakes_the_line() {
    let world = World::new();
    let client = limited(&world, at_most(1));
    let (call, mut connection) = held(&client, &world).await;
    let mut first = Box::pin(client.get("http://peer.test/first").send());
    assert!(within_polls(1, &mut first).await.is_none());
    let mut second = Box::pin(client.get("http://peer.test/second").send());
    assert!(within_polls(1, &mut second).await.is_none());
    connection.write(ok("held")).await;
    call.await.unwrap().unwrap();
    let newcomer = get(&client, "http://peer.test/newcomer");
    let_others_run().await;
    let serving = tokio::spawn(async move {
        let mut order = Vec::new();
        for _ in 0..3 {
            let request = connection.read_request().await;
            order.push(request.target().to_owned());
            connection.write(ok("")).await;
        }
        order
    });
    // Each is polled only now, in the wrong order.
    let (second, first) = tokio::join!(second, first);
    second.unwrap();
    first.unwrap();
    newcomer.await.unwrap().unwrap();
    yield_now().await;
    assert_eq!(serving.await.unwrap(), ["/first", "/second", "/newcomer"]);
    settle(&client, &world).await;
}
