//! The rate limit through a client: the gate that servers close, and the pace that users set.

use std::num::NonZeroU32;
use std::time::Duration;

use sockeye::{ErrorKind, RateLimit, Resilience, Retry};
use tokio::task::JoinSet;
use tokio::time::{Instant, advance};

use super::{MILLI, SECOND, URL, build, failed_with, get, play, status, with};
use crate::support::peer::{World, let_others_run, settle};

fn paced(calls: u32, burst: u32) -> RateLimit {
    let count = |count| NonZeroU32::new(count).unwrap();
    RateLimit::default().with_pace(count(calls), SECOND, count(burst))
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_fails_at_once() {
    let world = World::new();
    let client = build(&world, |client| client.rate_limit(RateLimit::default()));
    play(&world, [with(429, "retry-after: 90\r\n")]);
    failed_with(get(&client).await);
    let begun = Instant::now();
    let error = get(&client).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (ErrorKind::RateLimited, 0)
    );
    let wait = error.retry_after().unwrap();
    assert!(
        wait >= 90 * SECOND && wait <= 90 * SECOND + 2 * MILLI,
        "{wait:?}"
    );
    assert!(
        error
            .to_string()
            .contains("over the limit of 60s (RateLimit::max_wait)"),
        "{error}"
    );
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // Half a minute later it may wait, unless the call has not got so long.
    advance(31 * SECOND).await;
    let error = client
        .get(URL)
        .timeout(50 * SECOND)
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(error.to_string().contains("Timeouts::total"), "{error}");
    get(&client).await.unwrap();
    assert!(begun.elapsed() >= 90 * SECOND && begun.elapsed() <= 91 * SECOND + MILLI);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_used_up_closes_the_gate() {
    for (fields, waits) in [
        ("ratelimit: \"p\";r=0;t=4\r\n", 4),
        (
            "ratelimit: \"a\";r=3;t=9\r\nRateLimit: \"b\";r=0;t=2\r\n",
            2,
        ),
        (
            "ratelimit: \"p\";r=0\r\nratelimit-policy: \"p\";q=9;w=3\r\n",
            3,
        ),
        ("ratelimit: \"p\";r=1;t=4\r\n", 0),
        ("x-ratelimit-remaining: 0\r\nx-ratelimit-reset: 9\r\n", 0),
        // Only where it says that a call came too early.
        ("retry-after: 9\r\n", 0),
    ] {
        let world = World::new();
        let client = build(&world, |client| client.rate_limit(RateLimit::default()));
        play(&world, [with(200, fields)]);
        get(&client).await.unwrap();
        let begun = Instant::now();
        get(&client).await.unwrap();
        let (took, waits) = (begun.elapsed(), waits * SECOND);
        assert!(
            took >= waits && took <= waits.mul_f64(1.1) + 3 * MILLI,
            "{took:?}: {fields}"
        );
        settle(&client, &world).await;
    }
    let world = World::new();
    let deaf = RateLimit::default().with_obey_server(false);
    let client = build(&world, |client| client.rate_limit(deaf));
    play(
        &world,
        [with(429, "retry-after: 9\r\nratelimit: \"p\";r=0;t=4\r\n")],
    );
    failed_with(get(&client).await);
    let begun = Instant::now();
    get(&client).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    settle(&client, &world).await;
}

/// All who wait at the gate come at different moments, none of them early.
#[tokio::test(start_paused = true)]
async fn those_who_wait_do_not_come_at_once() {
    let world = World::new();
    let client = build(&world, |client| client.rate_limit(RateLimit::default()));
    let seen = play(&world, [with(429, "retry-after: 10\r\n")]);
    failed_with(get(&client).await);
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    (0..50).for_each(|_| drop(calls.spawn(client.get(URL).send())));
    let mut took = Vec::new();
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
        took.push(begun.elapsed());
    }
    assert!(
        took.iter()
            .all(|took| *took >= 10 * SECOND && *took <= 11 * SECOND + 3 * MILLI)
    );
    took.dedup();
    assert!(took.len() > 25, "{}", took.len());
    assert_eq!(seen.count(), 51);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_pace_is_kept_in_order() {
    let world = World::new();
    let client = build(&world, |client| client.rate_limit(paced(10, 2)));
    let seen = play(&world, []);
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    for number in 0..8 {
        calls.spawn(client.get(format!("http://peer.test/{number}")).send());
        let_others_run().await;
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    assert!(begun.elapsed() >= 600 * MILLI && begun.elapsed() <= 610 * MILLI);
    let order: Vec<_> = seen
        .requests()
        .iter()
        .map(|request| request.target().to_owned())
        .collect();
    assert_eq!(order, ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7"]);
    assert!(
        seen.gaps()[1..].iter().all(|gap| *gap >= 98 * MILLI),
        "{:?}",
        seen.gaps()
    );
    // The deadline is looked at before the wait, and who fails takes no token.
    let (first, second) = (get(&client).await, get(&client).await);
    assert!(first.is_ok() && second.is_ok());
    let begun = Instant::now();
    for _ in 0..20 {
        let error = client
            .get(URL)
            .timeout(50 * MILLI)
            .send()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited, "{error}");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    get(&client).await.unwrap();
    assert!(begun.elapsed() <= 105 * MILLI);
    settle(&client, &world).await;
}

/// Attempts are what is paced, by policy sent again or not.
#[tokio::test(start_paused = true)]
async fn a_retry_takes_a_token_of_its_own() {
    let world = World::new();
    let retry = Retry::default().with_base(MILLI);
    let resilience = Resilience::none()
        .with_retry(Some(retry))
        .with_rate_limit(Some(paced(1, 1)));
    let client = build(&world, |client| client.resilience(resilience));
    let seen = play(&world, [status(500), status(500)]);
    get(&client).await.unwrap();
    assert!(
        seen.gaps().iter().all(|gap| *gap >= 990 * MILLI),
        "{:?}",
        seen.gaps()
    );
    settle(&client, &world).await;
}
