//! A retry that breaker or rate limit would not let through: the caller gets what he would have got without it.

use std::num::NonZeroU32;

use sockeye::{ErrorKind, RateLimit, Resilience, Response, Result, Retry};

use super::{Act, SECOND, URL, build, failed_with, get, opens_after, play};
use crate::support::peer::{World, let_others_run, ok, settle, until};

/// More than comes with a head, so that the response streams.
const LONG: usize = 200_000;

/// A status with a body that streams.
fn long(status: u16, fields: &str) -> String {
    let head = format!("HTTP/1.1 {status} Status\r\n{fields}content-length: {LONG}\r\n\r\n");
    head + &"x".repeat(LONG)
}

/// The whole of what the server said, after a single attempt.
async fn expect_whole((plain, error): (Result<Response>, Result<Response>), status: u16) {
    let plain = plain.unwrap();
    assert_eq!((plain.status().as_u16(), plain.attempts()), (status, 1));
    assert_eq!(plain.text().await.unwrap().len(), LONG);
    let (code, error) = failed_with(error);
    assert_eq!((code, error.attempts()), (status, 1));
    assert_eq!(error.status_error().unwrap().body.len(), 64 * 1024);
}

/// Resilience 2.4: the gate is shut for longer than a call may wait at it.
#[tokio::test(start_paused = true)]
async fn a_gate_that_stays_shut() {
    let world = World::new();
    let client = build(&world, |client| {
        let resilience = Resilience::none()
            .with_retry(Some(Retry::default()))
            .with_rate_limit(Some(RateLimit::default()));
        client.resilience(resilience)
    });
    let shut = long(500, "ratelimit: \"p\";r=0;t=90\r\n");
    let seen = play(&world, [Act::Say(shut.clone())]);
    let plain = client.get(URL).error_for_status(false).send().await;
    tokio::time::sleep(91 * SECOND).await;
    seen.then([Act::Say(shut)]);
    let error = get(&client).await;
    expect_whole((plain, error), 500).await;
    assert_eq!(client.stats().total.retries, 0);
    client.close_idle();
    settle(&client, &world).await;
}

/// The gate opens in time for a call without a limit of its own, and too late for one with it.
#[tokio::test(start_paused = true)]
async fn a_gate_that_opens_too_late_for_the_call() {
    let world = World::new();
    let client = build(&world, |client| {
        let resilience = Resilience::none()
            .with_retry(Some(Retry::default()))
            .with_rate_limit(Some(RateLimit::default()));
        client.resilience(resilience)
    });
    let shut = long(500, "ratelimit: \"p\";r=0;t=20\r\n");
    let seen = play(
        &world,
        [Act::Say(shut.clone()), Act::Say(ok("fine")), Act::Say(shut)],
    );
    assert_eq!(get(&client).await.unwrap().attempts(), 2);
    let call = client.get(URL).timeout(10 * SECOND).send().await;
    let (status, error) = failed_with(call);
    assert_eq!((status, error.attempts(), seen.count()), (500, 1, 3));
    assert_eq!(error.status_error().unwrap().body.len(), 64 * 1024);
    client.close_idle();
    settle(&client, &world).await;
}

/// The next token of the pace is due later than a call may wait for it.
#[tokio::test(start_paused = true)]
async fn a_pace_that_is_too_slow() {
    let one = NonZeroU32::MIN;
    let two = one.saturating_add(1);
    let world = World::new();
    let rate = RateLimit::default()
        .with_pace(one, 10 * SECOND, two)
        .with_max_wait(SECOND);
    let client = build(&world, |client| {
        let resilience = Resilience::none()
            .with_retry(Some(Retry::default()))
            .with_rate_limit(Some(rate));
        client.resilience(resilience)
    });
    play(&world, [Act::Say(long(500, "")), Act::Say(long(500, ""))]);
    // Two tokens at once, and no third.
    let outcome = tokio::join!(
        client.get(URL).error_for_status(false).send(),
        client.get(URL).send()
    );
    expect_whole(outcome, 500).await;
    assert_eq!(client.stats().total.retries, 0);
    client.close_idle();
    settle(&client, &world).await;
}

/// Somebody has isolated the origin while the attempt was under way.
#[tokio::test(start_paused = true)]
async fn an_isolated_origin() {
    let world = World::new();
    let client = build(&world, |client| {
        client
            .circuit_breaker(opens_after(9))
            .retry(Retry::default())
    });
    let circuit = client.circuit_breaker(URL).unwrap();
    let plain = tokio::spawn(client.get(URL).error_for_status(false).send());
    let error = tokio::spawn(client.get(URL).send());
    let mut peers = [world.accept().await, world.accept().await];
    for peer in &mut peers {
        peer.read_request().await;
    }
    circuit.isolate();
    for peer in &mut peers {
        peer.write(long(500, "")).await;
    }
    expect_whole((plain.await.unwrap(), error.await.unwrap()), 500).await;
    assert_eq!(client.stats().total.retries, 0);
    drop(peers);
    client.close_idle();
    let_others_run().await;
    settle(&client, &world).await;
}

/// What could not be foreseen: the body was given up for the wait. Status and fields are what they were; the body says why it is
/// not there.
#[tokio::test(start_paused = true)]
async fn what_is_refused_after_the_wait() {
    let world = World::new();
    let retry = Retry::default()
        .with_base(600 * SECOND)
        .with_cap(600 * SECOND);
    let client = build(&world, |client| {
        client.circuit_breaker(opens_after(9)).retry(retry)
    });
    play(
        &world,
        [
            Act::Say(long(500, "x-mark: 1\r\n")),
            Act::Say(long(500, "x-mark: 1\r\n")),
        ],
    );
    let calls = [false, true].map(|error_for_status| {
        let call = client.get(URL).error_for_status(error_for_status);
        tokio::spawn(call.send())
    });
    until("both wait", || client.stats().total.retries == 2).await;
    client.circuit_breaker(URL).unwrap().isolate();
    let [plain, error] = calls;
    let (plain, error) = (plain.await.unwrap(), error.await.unwrap());
    let plain = plain.unwrap();
    assert_eq!((plain.status().as_u16(), plain.attempts()), (500, 1));
    assert_eq!(plain.header("x-mark"), Some("1"));
    let refused = plain.text().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CircuitOpen, "{refused}");
    assert!(
        refused.to_string().contains("given up for another attempt"),
        "{refused}"
    );
    let (status, error) = failed_with(error);
    let kept = error.status_error().unwrap();
    assert_eq!((status, error.attempts(), kept.truncated), (500, 1, true));
    assert_eq!(
        (&kept.headers["x-mark"], kept.body.len()),
        (&"1".parse().unwrap(), 0)
    );
    settle(&client, &world).await;
}
