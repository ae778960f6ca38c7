//! The circuit breaker through a client: errors, probes, the handle, and what the stats show.

use std::time::Duration;

use sockeye::{CircuitBreaker, CircuitState, ErrorKind};
use tokio::time::{Instant, advance};

use super::{Act, SECOND, URL, build, failed_with, get, opens_after, play, status};
use crate::support::peer::{World, let_others_run, settle};

#[tokio::test(start_paused = true)]
async fn it_fails_at_once_while_it_is_open_and_probes_one_at_a_time() {
    let world = World::new();
    let client = build(&world, |client| client.circuit_breaker(opens_after(3)));
    let circuit = client.circuit_breaker("http://peer.test/any/path").unwrap();
    let seen = play(
        &world,
        [status(503), status(503), status(503), Act::Silence],
    );
    for _ in 0..3 {
        failed_with(get(&client).await);
    }
    assert_eq!(circuit.state(), CircuitState::Open);
    let begun = Instant::now();
    let error = get(&client).await.unwrap_err();
    assert_eq!(
        (error.kind(), begun.elapsed()),
        (ErrorKind::CircuitOpen, Duration::ZERO)
    );
    assert_eq!(error.retry_after(), circuit.retry_after());
    let wait = error.retry_after().unwrap();
    assert!(
        wait >= 5 * SECOND / 2 && wait <= 5 * SECOND + SECOND / 100,
        "{wait:?}"
    );
    let told = error.to_string();
    assert!(
        told.starts_with("GET http://peer.test: the circuit breaker is open for another"),
        "{told}"
    );
    let stats = client.stats();
    assert_eq!(
        (stats.total.breaker, stats.total.breaker_opened),
        (CircuitState::Open, 1)
    );
    assert!(stats.to_string().contains("breakers: open 1"), "{stats}");
    // Another origin is none of its business.
    client.get("http://other.test/").send().await.unwrap_err();
    advance(wait).await;
    assert_eq!(
        (circuit.state(), circuit.retry_after()),
        (CircuitState::HalfOpen, None)
    );
    // A probe that is held up.
    seen.then([Act::Silence]);
    client.close_idle();
    let probe = tokio::spawn(client.get(URL).send());
    let_others_run().await;
    let error = get(&client).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry_after()),
        (ErrorKind::CircuitOpen, None)
    );
    assert!(error.to_string().contains("half open"), "{error}");
    // The probe is dropped: its place is free, and two successes close the breaker.
    probe.abort();
    let_others_run().await;
    get(&client).await.unwrap();
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    get(&client).await.unwrap();
    assert_eq!(circuit.state(), CircuitState::Closed);
    assert!(seen.count() >= 3);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn it_can_be_isolated_and_closed_by_hand() {
    let world = World::new();
    let breaker = opens_after(1).for_origin("http://exempt.test", CircuitBreaker::none());
    let client = build(&world, |client| client.circuit_breaker(breaker));
    let seen = play(&world, [status(502)]);
    let circuit = client.circuit_breaker(URL).unwrap();
    circuit.isolate();
    let error = get(&client).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry_after()),
        (ErrorKind::CircuitOpen, None)
    );
    assert!(error.to_string().contains("isolated"), "{error}");
    circuit.close();
    failed_with(get(&client).await);
    assert_eq!(circuit.state(), CircuitState::Open);
    circuit.clone().close();
    get(&client).await.unwrap();
    assert_eq!(seen.count(), 2);
    assert_eq!(
        format!("{circuit:?}"),
        "Circuit { origin: http://peer.test, state: Closed, .. }"
    );
    let error = client.circuit_breaker("http://exempt.test").unwrap_err();
    assert!(
        error.to_string().contains("no circuit breaker is set"),
        "{error}"
    );
    assert!(World::new().client().circuit_breaker(URL).is_err());
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn settings_that_make_no_sense_are_named() {
    let refused = |breaker: CircuitBreaker| {
        let world = World::new();
        let built = world.builder().circuit_breaker(breaker).build();
        built.unwrap_err().to_string()
    };
    let told = refused(CircuitBreaker::default().with_ratio(Some(2.0)));
    assert_eq!(
        told,
        "CircuitBreaker::ratio is 2; it must be above 0 and at most 1"
    );
    let told = refused(CircuitBreaker::default().for_origin("a b", CircuitBreaker::none()));
    assert!(
        told.starts_with("CircuitBreaker::for_origin: the URL is not valid: "),
        "{told}"
    );
}
