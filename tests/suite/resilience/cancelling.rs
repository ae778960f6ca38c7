//! A call that is dropped at any of its awaits leaves nothing taken: no place of a probe, no connection, no token.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use http::Request;
use sockeye::{Body, CircuitState, Limits, Next, RateLimit, Resilience, Response, Result, Retry};
use tokio::time::{advance, sleep, timeout};

use super::{Act, MILLI, SECOND, URL, build, failed_with, get, opens_after, play, status, with};
use crate::support::peer::{Dial, World, let_others_run, settle};
use crate::support::streams::{fed, within_polls};

/// One connection, one probe, and a pace of a token a second; a call that fails twice on its way.
#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_await_leaves_nothing_taken() {
    let one = NonZeroU32::MIN;
    for acts in [
        vec![status(500), with(429, "retry-after: 3\r\n"), Act::Silence],
        vec![Act::Close, Act::Silence],
        vec![Act::Say(
            "HTTP/1.1 500 Bad\r\ncontent-length: 90000\r\n\r\n".into(),
        )],
    ] {
        let mut done = false;
        for polls in 1..40 {
            let world = World::new();
            let retry = Retry::default().with_base(SECOND);
            let rate = RateLimit::default().with_pace(one, SECOND, one);
            let limits = Limits::default().with_max_connections(NonZeroUsize::new(1));
            let resilience = Resilience::standard()
                .with_retry(Some(retry))
                .with_circuit_breaker(Some(opens_after(1).with_open(SECOND)))
                .with_rate_limit(Some(rate));
            let client = build(&world, |client| {
                client.resilience(resilience).limits(limits)
            });
            let all = std::iter::once(status(502)).chain(acts.clone());
            let seen = play(&world, all);
            // Half open, so that the call is a probe.
            failed_with(client.get(URL).retry(Retry::none()).send().await);
            sleep(2 * SECOND).await;
            let circuit = client.circuit_breaker(URL).unwrap();
            assert_eq!(circuit.state(), CircuitState::HalfOpen);
            let call = timeout(20 * SECOND, get(&client));
            let ended = within_polls(polls, call).await.is_some();
            let_others_run().await;
            seen.then([]);
            // What it has set going by then has its time.
            sleep(Duration::from_secs(70)).await;
            settle(&client, &world).await;
            // The place of the probe is free, the breaker closes, and the pace gives a token a second.
            let calls = async {
                for _ in 0..3 {
                    let outcome = get(&client).await;
                    if let Err(error) = &outcome {
                        assert_ne!(error.kind(), sockeye::ErrorKind::CircuitOpen, "{error}");
                    }
                }
            };
            assert!(timeout(100 * SECOND, calls).await.is_ok(), "{polls} polls");
            settle(&client, &world).await;
            done |= ended;
        }
        assert!(done, "some call comes to its end");
    }
}

/// A token that was waited for goes back when the call is dropped.
#[tokio::test(start_paused = true)]
async fn a_token_goes_back() {
    let world = World::new();
    let rate = RateLimit::default().with_pace(NonZeroU32::MIN, SECOND, NonZeroU32::MIN);
    let client = build(&world, |client| client.rate_limit(rate));
    let seen = play(&world, []);
    get(&client).await.unwrap();
    for _ in 0..50 {
        assert!(within_polls(1, get(&client)).await.is_none());
    }
    let next = tokio::spawn(client.get(URL).send());
    let_others_run().await;
    advance(SECOND + MILLI).await;
    next.await.unwrap().unwrap();
    assert!(seen.gaps()[0] <= SECOND + 2 * MILLI, "{:?}", seen.gaps());
    settle(&client, &world).await;
}

/// The same with an interceptor around each try and a body that can be sent once.
#[tokio::test(start_paused = true)]
async fn a_call_inside_interceptors_dropped_at_any_await_leaves_nothing_taken() {
    async fn wait(request: Request<Body>, next: Next<'_>) -> Result<Response> {
        sleep(MILLI).await;
        let response = next.run(request.map(Body::wrap)).await;
        sleep(MILLI).await;
        response
    }
    let mut done = false;
    for polls in 1..40 {
        let world = World::new();
        let limits = Limits::default().with_max_connections(NonZeroUsize::new(1));
        let resilience = Resilience::standard()
            .with_circuit_breaker(Some(opens_after(1).with_open(SECOND)))
            .with_retry(Some(Retry::default().with_base(SECOND)));
        let client = build(&world, |client| {
            client
                .resilience(resilience)
                .limits(limits)
                .attempt_interceptor(wait)
        });
        let seen = play(&world, [status(502)]);
        failed_with(client.get(URL).retry(Retry::none()).send().await);
        sleep(2 * SECOND).await;
        client.close_idle();
        world.plan(Dial::Refuse);
        let (feed, body) = fed();
        feed.give("text");
        let call = client.post(URL).body(Body::stream(body)).send();
        done |= within_polls(polls, call).await.is_some();
        drop(feed);
        let_others_run().await;
        seen.then([]);
        sleep(Duration::from_secs(70)).await;
        settle(&client, &world).await;
        // Takes the dial that is refused, if the call did not come so far.
        drop(client.get(URL).retry(Retry::none()).send().await);
        sleep(Duration::from_secs(70)).await;
        for _ in 0..3 {
            if let Err(error) = get(&client).await {
                assert_ne!(error.kind(), sockeye::ErrorKind::CircuitOpen, "{error}");
            }
        }
        get(&client).await.unwrap();
        settle(&client, &world).await;
    }
    assert!(done, "some call comes to its end");
}
