//! Limits, and the lines of those who wait for a connection: in order, bounded, without one origin starving another.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sockeye::stats::{Checkout, CloseCause};
use sockeye::test::check;
use sockeye::{ErrorKind, Limits, Phase, Response, Result, Timeouts};
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{Instant, advance, sleep, sleep_until};

use super::{MILLI, SECOND, URL, at_most, get, held, limited, serve_after, text};
use crate::support::peer::{Dial, PeerConnection, World, let_others_run, ok, reply, settle};
use crate::support::streams::{Random, within_polls};

/// 5, R-Q-1: never more than the limit, and first come, first served.
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

/// When the connection comes free in a round of scenario 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freed {
    /// A millisecond before the limit, and the waiter is not polled until the limit is reached.
    JustBefore,
    /// At the limit, before the waiter is polled.
    BeforeThePoll,
    /// At the limit, after the waiter was polled.
    AfterThePoll,
    /// By a task that wakes at the limit, as the waiter's does; which was started first.
    ByATask { first: bool },
}

/// 8, R-LIM-2: a connection that comes free exactly at the limit goes to the waiter or the waiter times out: never both, never
/// neither; and what was delivered by then wins. Thousands of rounds on one connection, which is never lost.
#[tokio::test(start_paused = true)]
async fn t08_timeout_against_delivery() {
    let world = World::new();
    let client = world
        .builder()
        .limits(at_most(1))
        .timeouts(Timeouts::default().with_pool(Some(SECOND)))
        .build()
        .unwrap();
    let mut random = Random::new(8);
    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    let (mut served, mut timed_out, mut raced) = (0, 0, [0, 0]);
    for round in 0..3000_u32 {
        let holding = get(&client, "http://peer.test/holds");
        connection.read_request().await;
        connection
            .write("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n")
            .await;
        let mut holding = holding.await.unwrap().unwrap();
        connection.write("x").await;
        // The connection comes free in the very poll that yields the byte.
        let release = async move { holding.chunk().await.unwrap().unwrap() };
        let mut waiter = Box::pin(client.get("http://peer.test/waits").send());
        let freed = match random.below(5) {
            0 => Freed::JustBefore,
            1 => Freed::BeforeThePoll,
            2 => Freed::AfterThePoll,
            more => Freed::ByATask { first: more == 3 },
        };
        let outcome = if let Freed::ByATask { first } = freed {
            let at = Instant::now() + SECOND;
            let release = async move {
                sleep_until(at).await;
                release.await
            };
            let (waiter, releasing) = if first {
                let releasing = tokio::spawn(release);
                let_others_run().await;
                (tokio::spawn(waiter), releasing)
            } else {
                let waiter = tokio::spawn(waiter);
                let_others_run().await;
                (waiter, tokio::spawn(release))
            };
            let outcome = answered_or_not(waiter, &mut connection).await;
            raced[usize::from(outcome.is_ok())] += 1;
            assert_eq!(releasing.await.unwrap(), "x");
            outcome
        } else {
            assert!(
                within_polls(1, &mut waiter).await.is_none(),
                "it has to wait"
            );
            match freed {
                Freed::JustBefore => {
                    advance(SECOND - MILLI).await;
                    release.await;
                    advance(MILLI).await;
                }
                Freed::BeforeThePoll => {
                    advance(SECOND).await;
                    release.await;
                }
                _ => {
                    advance(SECOND).await;
                    let early = within_polls(1, &mut waiter).await;
                    let error = early.expect("the limit is reached").unwrap_err();
                    assert_eq!(error.phase(), Some(Phase::Pool), "{error}");
                    release.await;
                    timed_out += 1;
                    continue;
                }
            }
            let outcome = answered_or_not(tokio::spawn(waiter), &mut connection).await;
            assert!(
                outcome.is_ok(),
                "round {round}, {freed:?}: delivered, and lost"
            );
            outcome
        };
        match outcome {
            Ok(answer) => {
                assert_eq!(answer, "waits");
                served += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                assert_eq!(error.phase(), Some(Phase::Pool), "{error}");
                timed_out += 1;
            }
        }
        let total = client.stats().total;
        assert_eq!(
            (
                total.connections_idle,
                total.connections_active,
                total.requests_pending
            ),
            (1, 0, 0),
            "round {round}, {freed:?}"
        );
    }
    assert!(
        raced[0] > 0 && raced[1] > 0,
        "the race went one way only: {raced:?}"
    );
    let total = client.stats().total;
    assert_eq!((served + timed_out, world.accepts()), (3000, 1));
    assert_eq!(total.timeouts.get(Phase::Pool), timed_out);
    assert_eq!(total.checkouts.get(Checkout::Reused), 3000 + served);
    settle(&client, &world).await;
}

/// What a call gets that is answered if it reaches the peer.
async fn answered_or_not(
    call: JoinHandle<Result<Response>>,
    connection: &mut PeerConnection,
) -> Result<String> {
    let mut call = call;
    tokio::select! {
        biased;
        outcome = &mut call => outcome.unwrap().map(|_| panic!("nobody has answered")),
        request = connection.read_request() => {
            assert_eq!(request.target(), "/waits");
            connection.write(ok("waits")).await;
            call.await.unwrap()?.text().await
        }
    }
}

/// 9, R-Q-1: who leaves the line is passed over.
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

/// R-Q-4: with nobody of its own in line, a connection that comes free makes room for the other host at once.
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

/// R-Q-4 and R-OBJ-4: a connection that closes hands its permit to the host that waits longest.
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

/// 16, R-Q-5: at the limit the connection that was idle longest makes room, and nobody waits.
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

/// R-Q-4: a connection that comes free goes to its own origin's line first, unless another origin has waited for longer, and
/// for a tenth of a second at least.
#[tokio::test(start_paused = true)]
async fn another_origin_that_waits_for_long_goes_first() {
    for (wait, other_came_first, other_goes_first) in [
        (50 * MILLI, true, false),
        (150 * MILLI, true, true),
        (150 * MILLI, false, false),
    ] {
        let world = World::new();
        let client = limited(&world, at_most(1));
        let (call, mut connection) = held(&client, &world).await;
        let calls = if other_came_first {
            ["http://other.test/", URL]
        } else {
            [URL, "http://other.test/"]
        };
        let mut waiting = Vec::new();
        for url in calls {
            waiting.push(get(&client, url));
            let_others_run().await;
        }
        sleep(wait).await;
        connection.write(ok("")).await;
        call.await.unwrap().unwrap();
        let_others_run().await;
        assert_eq!(
            world.accepts(),
            1 + usize::from(other_goes_first),
            "after {wait:?}"
        );
        let closed = client.stats().total.connections_closed;
        assert_eq!(closed.get(CloseCause::Evicted), u64::from(other_goes_first));
        if !other_goes_first {
            connection.read_request().await;
            connection.write(ok("")).await;
        }
        world.serve(|_| ok(""));
        for call in waiting {
            call.await.unwrap().unwrap();
        }
        settle(&client, &world).await;
    }
}

/// Ruling 4: the pool limit counts the time without a dial. A waiter whose dial served another is not told of it, and its limit
/// strikes in time nevertheless.
#[tokio::test(start_paused = true)]
async fn the_pool_limit_strikes_when_the_dial_served_another() {
    let world = World::new();
    world.plan(Dial::Delay(100 * MILLI));
    let one = Limits::default().with_max_connections_per_host(NonZeroUsize::new(1));
    let timeouts = Timeouts::default()
        .with_pool(Some(200 * MILLI))
        .with_connect(Some(10 * SECOND));
    let client = world
        .builder()
        .limits(one)
        .timeouts(timeouts)
        .build()
        .unwrap();
    let started = Instant::now();
    let first = get(&client, URL);
    let second = get(&client, URL);
    let mut connection = world.accept().await;
    connection.read_request().await;
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(error.phase(), Some(Phase::Pool), "{error}");
    let waited = started.elapsed();
    assert!((300 * MILLI..=400 * MILLI).contains(&waited), "{waited:?}");
    connection.write(ok("")).await;
    first.await.unwrap().unwrap();
    settle(&client, &world).await;
}
