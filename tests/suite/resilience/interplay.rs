//! The table of how retry, breaker, budget, gate, connections and stats act together, row by row.

use std::num::NonZeroUsize;

use sockeye::stats::{CloseCause, RetryCause};
use sockeye::{
    CircuitState, Client, ErrorKind, Limits, Phase, RateLimit, Resilience, Result, Retry,
    RetryBudget, Timeouts,
};
use tokio::time::{Instant, timeout};

use super::{Act, SECOND, URL, build, failed_with, get, opens_after, play, status, with};
use crate::support::peer::{Dial, World, let_others_run, ok, reply, settle};

/// What the breaker makes of an event.
#[derive(Debug, PartialEq)]
enum Counts {
    Failure,
    Neutral,
    Success,
}

/// Fails once, has the event happen, and fails again: with a breaker that opens after two failures in a row.
async fn counts(world: &World, client: &Client, event: impl AsyncFnOnce(&Client)) -> Counts {
    let circuit = client.circuit_breaker(URL).unwrap();
    assert_eq!(failed_with(get(client).await).0, 502);
    event(client).await;
    if circuit.state() == CircuitState::Open {
        return Counts::Failure;
    }
    assert_eq!(failed_with(get(client).await).0, 502);
    let is_open = circuit.state() == CircuitState::Open;
    settle(client, world).await;
    match is_open {
        true => Counts::Neutral,
        false => Counts::Success,
    }
}

/// A client with a breaker of two failures and no retry, and a server that fails around one act.
fn around(world: &World, act: Act, timeouts: Timeouts) -> Client {
    play(world, [status(502), act, status(502)]);
    build(world, |client| {
        client.circuit_breaker(opens_after(2)).timeouts(timeouts)
    })
}

/// How many retries the budget still pays, of a client that fails for good from now on.
async fn retries_left(client: &Client) -> u64 {
    let before = client.stats().total.retries;
    let retry = Retry::default().with_max_attempts(1000);
    drop(
        client
            .get("http://peer.test/drain")
            .retry(retry)
            .send()
            .await,
    );
    client.stats().total.retries - before
}

fn budgeted(world: &World, capacity: u32) -> Client {
    let rules = RetryBudget::default()
        .with_capacity(capacity)
        .with_refill_per_second(0);
    let retry = Retry::default().with_budget(Some(rules));
    build(world, |client| {
        client
            .retry(retry)
            .timeouts(Timeouts::default().with_head(Some(SECOND)))
    })
}

/// Rows 1 to 3: what each status is to the breaker and to the budget.
#[tokio::test(start_paused = true)]
async fn statuses() {
    for (code, expected) in [
        (200, Counts::Success),
        (304, Counts::Success),
        (400, Counts::Success),
        (404, Counts::Success),
        (501, Counts::Success),
        (408, Counts::Neutral),
        (429, Counts::Neutral),
        (500, Counts::Neutral),
        (502, Counts::Failure),
        (503, Counts::Failure),
        (504, Counts::Failure),
    ] {
        let world = World::new();
        let client = around(&world, status(code), Timeouts::default());
        let told = counts(&world, &client, async |client| drop(get(client).await)).await;
        assert_eq!(told, expected, "{code}");
    }
    // A first try that succeeds earns one; a fifth of a retry.
    for (code, earns) in [(200, 1), (404, 1), (429, 0), (408, 0), (500, 0), (503, 0)] {
        let world = World::new();
        let client = budgeted(&world, 5);
        let first = [status(500), status(500)];
        let five = (0..5).map(|_| status(code));
        let rest = (0..1000).map(|_| status(500));
        play(&world, first.into_iter().chain(five).chain(rest));
        // This pays for the only retry.
        failed_with(get(&client).await);
        for _ in 0..5 {
            drop(client.get(URL).retry(Retry::none()).send().await);
        }
        assert_eq!(retries_left(&client).await, earns, "{code}");
        settle(&client, &world).await;
    }
}

/// Row 1: a success that took two attempts earns nothing.
#[tokio::test(start_paused = true)]
async fn only_a_first_try_earns() {
    let world = World::new();
    let client = budgeted(&world, 25);
    let turn = || [status(500), status(200)];
    let rest = (0..100).map(|_| status(500));
    play(&world, (0..5).flat_map(|_| turn()).chain(rest));
    for _ in 0..5 {
        assert_eq!(get(&client).await.unwrap().attempts(), 2);
    }
    assert_eq!(retries_left(&client).await, 0);
    settle(&client, &world).await;
}

/// Rows 2 to 5: what a retry costs.
#[tokio::test(start_paused = true)]
async fn prices() {
    for (act, dial, left) in [
        (status(429), Dial::Open, 1),
        (status(503), Dial::Open, 1),
        (Act::Close, Dial::Open, 1),
        (Act::Silence, Dial::Open, 0),
        (status(200), Dial::Refuse, 1),
        (status(200), Dial::Hang, 0),
    ] {
        let world = World::new();
        let client = budgeted(&world, 10);
        world.plan(dial);
        play(
            &world,
            [act.clone(), status(200)]
                .into_iter()
                .chain((0..100).map(|_| status(500))),
        );
        let response = get(&client).await.unwrap();
        assert_eq!(response.attempts(), 2);
        drop(response);
        // What is left over from the row with a dial answers one request more.
        if matches!(dial, Dial::Refuse | Dial::Hang) {
            drop(client.get(URL).retry(Retry::none()).send().await);
        }
        assert_eq!(retries_left(&client).await, left, "{act:?}, {dial:?}");
        settle(&client, &world).await;
    }
}

/// Row 2: 429 closes the gate for every call, is neutral, and is counted.
#[tokio::test(start_paused = true)]
async fn too_many_requests() {
    let world = World::new();
    let client = build(&world, |client| {
        client
            .resilience(Resilience::standard())
            .circuit_breaker(opens_after(1))
    });
    let seen = play(&world, [with(429, "retry-after: 2\r\n")]);
    let begun = Instant::now();
    let first = tokio::spawn(client.get(URL).send());
    let_others_run().await;
    let second = get(&client).await.unwrap();
    assert!(begun.elapsed() >= 2 * SECOND && begun.elapsed() < 3 * SECOND);
    assert_eq!(second.attempts(), 1);
    assert_eq!(first.await.unwrap().unwrap().attempts(), 2);
    assert_eq!(seen.count(), 3);
    let total = client.stats().total;
    assert_eq!(total.rate_limited, 1);
    assert_eq!(total.retry_causes.get(RetryCause::Throttled), 1);
    assert_eq!(total.breaker, CircuitState::Closed);
    settle(&client, &world).await;
}

/// Row 3: without Retry-After the gate stays open.
#[tokio::test(start_paused = true)]
async fn a_503_closes_the_gate_only_if_it_says_for_how_long() {
    for (act, waits) in [
        (status(503), false),
        (with(503, "retry-after: 9\r\n"), true),
    ] {
        let world = World::new();
        let client = build(&world, |client| client.rate_limit(RateLimit::default()));
        play(&world, [act]);
        failed_with(get(&client).await);
        let begun = Instant::now();
        get(&client).await.unwrap();
        assert_eq!(begun.elapsed() >= 9 * SECOND, waits);
        settle(&client, &world).await;
    }
}

/// Row 4: no connection is a failure, and the slot of the dial is free.
#[tokio::test(start_paused = true)]
async fn no_connection() {
    for (dial, kind) in [
        (Dial::Refuse, ErrorKind::Connect),
        (Dial::Hang, ErrorKind::Timeout),
    ] {
        let world = World::new();
        let client = around(&world, status(502), Timeouts::default());
        let told = counts(&world, &client, async |client| {
            client.close_idle();
            world.plan(dial);
            let error = get(client).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.is_connect());
        });
        assert_eq!(told.await, Counts::Failure);
        settle(&client, &world).await;
    }
}

/// Row 5: a limit before the head is a failure, and the connection is closed.
#[tokio::test(start_paused = true)]
async fn no_answer_in_time() {
    for timeouts in [
        Timeouts::default().with_head(Some(SECOND)),
        Timeouts::default().with_attempt(Some(SECOND)),
    ] {
        let world = World::new();
        let client = around(&world, Act::Silence, timeouts);
        let told = counts(&world, &client, async |client| {
            let error = get(client).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.phase()),
                (ErrorKind::Timeout, Some(Phase::Head))
            );
        });
        assert_eq!(told.await, Counts::Failure);
        assert_eq!(
            client
                .stats()
                .total
                .connections_closed
                .get(CloseCause::Error),
            1
        );
        settle(&client, &world).await;
    }
}

/// Row 6: what happens in the body is no matter of the policies.
#[tokio::test(start_paused = true)]
async fn a_body_that_stalls() {
    let world = World::new();
    let begun = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun".to_owned();
    let seen = play(
        &world,
        [
            status(502),
            Act::Say(begun),
            Act::Say(reply("502 Bad", "", "")),
        ],
    );
    let client = build(&world, |client| {
        client
            .circuit_breaker(opens_after(2))
            .retry(Retry::default().with_statuses(Vec::new()))
    });
    let told = counts(&world, &client, async |client| {
        let error = get(client).await.unwrap().text().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Some(Phase::Read))
        );
        assert_eq!(error.attempts(), 1);
    });
    // The head was a success.
    assert_eq!(told.await, Counts::Success);
    assert_eq!(seen.count(), 3);
    assert_eq!(client.stats().total.timeouts.get(Phase::Read), 1);
}

/// Row 7: the total limit ends everything; it is a failure of a server that was silent for a second, and of no other.
#[tokio::test(start_paused = true)]
async fn the_total_limit() {
    for (limit, expected) in [(2 * SECOND, Counts::Failure), (SECOND / 2, Counts::Neutral)] {
        let world = World::new();
        let client = around(&world, Act::Silence, Timeouts::default());
        let told = counts(&world, &client, async |client| {
            let error = client.get(URL).timeout(limit).send().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(error.to_string().contains("Timeouts::total"), "{error}");
        });
        assert_eq!(told.await, expected);
        settle(&client, &world).await;
    }
    // It tells what the attempt before came to.
    for (act, expected) in [
        (status(503), "answered with status 503"),
        (Act::Close, "the peer closed the connection"),
    ] {
        let world = World::new();
        play(&world, [act, Act::Silence]);
        let client = build(&world, |client| client.retry(Retry::default()));
        let error = client
            .get(URL)
            .timeout(5 * SECOND)
            .send()
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Timeout, 2));
        assert!(
            error.cause().unwrap().to_string().contains(expected),
            "{error}"
        );
        settle(&client, &world).await;
    }
    // In a wait between attempts it cannot strike: that is not begun. In the pool's line it is neutral.
    let world = World::new();
    let limits = Limits::default().with_max_connections(NonZeroUsize::new(1));
    let client = build(&world, |client| {
        client.circuit_breaker(opens_after(1)).limits(limits)
    });
    play(
        &world,
        [Act::Say(
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".into(),
        )],
    );
    let held = get(&client).await.unwrap();
    let error = client
        .get(URL)
        .timeout(5 * SECOND)
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.phase(), Some(Phase::Pool));
    assert_eq!(
        client.circuit_breaker(URL).unwrap().state(),
        CircuitState::Closed
    );
    drop(held);
    // What is left of it is waited for for 50 ms.
    tokio::time::sleep(SECOND / 10).await;
    settle(&client, &world).await;
}

/// Row 8: the pool's own limits say nothing of the server, and nothing is tried again.
#[tokio::test(start_paused = true)]
async fn the_pools_limits() {
    for pending in [None, NonZeroUsize::new(1)] {
        let world = World::new();
        let limits = Limits::default()
            .with_max_connections(NonZeroUsize::new(1))
            .with_max_pending(pending);
        let client = build(&world, |client| {
            let retry = Retry::default();
            client
                .circuit_breaker(opens_after(1))
                .limits(limits)
                .retry(retry)
        });
        play(&world, [Act::Silence]);
        let mut others = Vec::new();
        for _ in 0..2 {
            others.push(tokio::spawn(
                client.get(URL).timeouts(Timeouts::none()).send(),
            ));
            let_others_run().await;
        }
        let error = get(&client).await.unwrap_err();
        let expected = match pending {
            None => ErrorKind::Timeout,
            Some(_) => ErrorKind::PoolFull,
        };
        assert_eq!((error.kind(), error.phase()), (expected, Some(Phase::Pool)));
        assert_eq!(error.attempts(), 1);
        assert_eq!(
            client.circuit_breaker(URL).unwrap().state(),
            CircuitState::Closed
        );
        others.iter().for_each(tokio::task::JoinHandle::abort);
        let_others_run().await;
        settle(&client, &world).await;
    }
}

/// Row 9: a call that is dropped says nothing.
#[tokio::test(start_paused = true)]
async fn a_dropped_call() {
    let world = World::new();
    let client = around(&world, Act::Silence, Timeouts::default());
    let told = counts(&world, &client, async |client| {
        assert!(timeout(5 * SECOND, get(client)).await.is_err());
    });
    assert_eq!(told.await, Counts::Neutral);
    assert_eq!(client.stats().total.cancelled, 1);
}

/// Row 10: a breaker that is open at the first attempt is the error; at a later one, what the attempt before came to is.
#[tokio::test(start_paused = true)]
async fn an_open_breaker() {
    let world = World::new();
    let retry = Retry::default()
        .with_base(60 * SECOND)
        .with_cap(60 * SECOND);
    let client = build(&world, |client| {
        client.circuit_breaker(opens_after(2)).retry(retry)
    });
    let seen = play(&world, [Act::Close, status(502), status(502), status(502)]);
    // The second attempt opens it. The third would be in the time for which it stays open, or has to probe it.
    let outcome: Result<_> = get(&client).await;
    let (status, error) = failed_with(outcome);
    assert_eq!(status, 502);
    assert_eq!(seen.count() as u32, error.attempts());
    client.circuit_breaker(URL).unwrap().isolate();
    let error = get(&client).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (ErrorKind::CircuitOpen, 0)
    );
    assert_eq!(client.stats().total.errors.get(ErrorKind::CircuitOpen), 1);
    settle(&client, &world).await;
    // Isolated while a call waits for its next attempt.
    for (act, kind) in [
        (Act::Close, ErrorKind::Io),
        (
            Act::Say(reply("500 Bad", "", "all of it")),
            ErrorKind::Status,
        ),
        // Its body was given up before the wait.
        (
            Act::Say("HTTP/1.1 500 Bad\r\ncontent-length: 900000\r\n\r\nsome".into()),
            ErrorKind::Status,
        ),
    ] {
        let world = World::new();
        let retry = Retry::default()
            .with_base(600 * SECOND)
            .with_cap(600 * SECOND);
        let client = build(&world, |client| {
            client.circuit_breaker(opens_after(2)).retry(retry)
        });
        play(&world, [act.clone()]);
        let call = tokio::spawn(client.get(URL).send());
        let_others_run().await;
        assert_eq!(client.stats().total.retries, 1);
        client.circuit_breaker(URL).unwrap().isolate();
        let error = call.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (kind, 1), "{error}");
        if let Some(kept) = error.status_error() {
            let body: &[u8] = if kept.truncated { b"" } else { b"all of it" };
            assert_eq!((kept.status.as_u16(), &kept.body[..]), (500, body));
        }
        settle(&client, &world).await;
    }
}

/// Row 11: a kept connection that is dead costs nothing, and says nothing.
#[tokio::test(start_paused = true)]
async fn a_stale_connection() {
    let world = World::new();
    let client = around(&world, Act::Close, Timeouts::default());
    let told = counts(&world, &client, async |client| {
        // A POST is not sent again, and is no failure either.
        let error = client.post(URL).body("text").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
    });
    assert_eq!(told.await, Counts::Neutral);
    let world = World::new();
    let client = budgeted(&world, 5);
    let seen = play(
        &world,
        [
            Act::Say(ok("fine")),
            Act::Close,
            status(500),
            status(500),
            status(200),
        ],
    );
    get(&client).await.unwrap();
    // Once for free on a fresh connection, then once by policy; the budget had one retry.
    let (status, error) = failed_with(get(&client).await);
    assert_eq!((status, error.attempts(), seen.count()), (500, 3, 4));
    let total = client.stats().total;
    assert_eq!(total.retry_causes.get(RetryCause::Stale), 1);
    assert_eq!(total.retry_causes.get(RetryCause::Status), 1);
    assert_eq!(total.retries_denied, 1);
    settle(&client, &world).await;
}
