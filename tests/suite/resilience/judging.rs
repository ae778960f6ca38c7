//! What the policies and the error make of what interceptors do: with the time, the status, the fields and the answers of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderValue, Request};
use sockeye::{
    Body, CircuitState, ErrorKind, Next, Phase, Response, Result, Retry, Timeouts, on_request,
};
use tokio::time::Instant;

use super::{Act, SECOND, URL, build, failed_with, get, opens_after, play, status, with};
use crate::support::peer::{Dial, World, ok, settle};

/// An interceptor that keeps the answer for a minute.
async fn dawdle(request: Request<Body>, next: Next<'_>) -> Result<Response> {
    let response = next.run(request).await?;
    tokio::time::sleep(60 * SECOND).await;
    Ok(response)
}

/// Resilience 2.3, A, and ruling 20: a limit that strikes behind the answer is no reason for another try, and the error says what
/// the policy does.
#[tokio::test(start_paused = true)]
async fn a_limit_behind_the_answer_is_no_reason_for_another_try() {
    for (act, attempts) in [(Act::Say(ok("")), 1), (Act::Silence, 3)] {
        let world = World::new();
        let seen = play(&world, [act.clone(), act.clone(), act]);
        let client = build(&world, |client| {
            client.retry(Retry::default()).attempt_interceptor(dawdle)
        });
        let limit = Timeouts::none().with_attempt(Some(5 * SECOND));
        let error = client.get(URL).timeouts(limit).send().await.unwrap_err();
        assert_eq!(error.phase(), Some(Phase::Head), "{error}");
        assert_eq!(
            (error.attempts(), seen.count()),
            (attempts, attempts as usize)
        );
        assert_eq!(error.is_retryable(), attempts > 1, "{error}");
        settle(&client, &world).await;
    }
}

/// Ruling 20: an idempotency key counts for the error as it counts for the policy, whoever has put it there, and wherever the status
/// becomes an error.
#[tokio::test(start_paused = true)]
async fn an_idempotency_key_counts_behind_interceptors() {
    #[derive(Clone, Copy, Debug)]
    enum Change {
        Nothing,
        Adds,
        Removes,
    }
    let key = "idempotency-key";
    for (own, change, attempts) in [
        (false, Change::Nothing, 1),
        (true, Change::Nothing, 3),
        (false, Change::Adds, 3),
        (true, Change::Removes, 1),
    ] {
        for by_interceptor in [false, true] {
            let world = World::new();
            let seen = play(&world, [502, 502, 502].map(status));
            let client = build(&world, |client| {
                client
                    .retry(Retry::default())
                    .interceptor(async move |request: Request<Body>, next: Next<'_>| {
                        let response = next.run(request).await?;
                        match by_interceptor {
                            true => response.error_for_status().await,
                            false => Ok(response),
                        }
                    })
                    .interceptor(on_request(move |parts| {
                        match change {
                            Change::Nothing => {}
                            Change::Adds => {
                                let value = HeaderValue::from_static("7");
                                drop(parts.headers.insert(key, value));
                            }
                            Change::Removes => drop(parts.headers.remove(key)),
                        }
                        Ok(())
                    }))
            });
            let call = client.post(URL).body("text");
            let call = match own {
                true => call.idempotency_key(),
                false => call,
            };
            let (code, error) = failed_with(call.send().await);
            let case = format!("{own}, {change:?}, {by_interceptor}: {error}");
            assert_eq!((code, seen.count()), (502, attempts as usize), "{case}");
            assert_eq!(error.attempts(), attempts, "{case}");
            assert_eq!(error.is_retryable(), attempts > 1, "{case}");
            settle(&client, &world).await;
        }
    }
}

/// Whatever makes an error of a status, the policies see the status: an interceptor around a try as well.
#[tokio::test(start_paused = true)]
async fn a_status_that_an_interceptor_makes_an_error_of_is_one() {
    for (act, retries, state) in [
        (with(503, "retry-after: 7\r\n"), true, CircuitState::Open),
        (status(502), false, CircuitState::Open),
        (with(429, "retry-after: 7\r\n"), true, CircuitState::Closed),
        (status(404), false, CircuitState::Closed),
    ] {
        let world = World::new();
        let seen = play(&world, [act.clone(), act]);
        let client = build(&world, |client| {
            client
                .retry(Retry::default())
                .circuit_breaker(opens_after(2))
                .attempt_interceptor(async |request: Request<Body>, next: Next<'_>| {
                    next.run(request).await?.error_for_status().await
                })
        });
        let post = || client.post(URL).body("text");
        let twice = Retry::default().with_max_attempts(2);
        let (_, error) = failed_with(post().retry(twice).send().await);
        let tries = if retries { 2 } else { 1 };
        assert_eq!(
            (error.attempts(), error.is_retryable()),
            (tries, retries),
            "{error}"
        );
        if retries {
            assert!(seen.gaps()[0] >= 7 * SECOND, "{error}");
        } else {
            drop(failed_with(post().send().await));
        }
        let circuit = client.circuit_breaker(URL).unwrap();
        assert_eq!(circuit.state(), state, "{error}");
        settle(&client, &world).await;
    }
}

/// What an interceptor around a try writes into the fields of an answer is what the policies read.
#[tokio::test(start_paused = true)]
async fn the_fields_that_an_interceptor_writes_are_read() {
    // One that changes an answer, and one that answers by itself.
    for is_own in [false, true] {
        let world = World::new();
        let seen = play(&world, (!is_own).then(|| status(503)));
        let tries = Arc::new(AtomicUsize::new(0));
        let client = build(&world, |client| {
            client.retry(Retry::default()).attempt_interceptor({
                let tries = Arc::clone(&tries);
                move |request: Request<Body>, next: Next<'static>| {
                    let is_first = tries.fetch_add(1, Ordering::SeqCst) == 0;
                    async move {
                        let mut response = match is_first && is_own {
                            true => {
                                let mut made = http::Response::new("busy");
                                *made.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                                Response::from(made)
                            }
                            false => next.run(request).await?,
                        };
                        if is_first {
                            let seconds = HeaderValue::from_static("7");
                            response.headers_mut().insert("retry-after", seconds);
                        }
                        Ok(response)
                    }
                }
            })
        });
        let began = Instant::now();
        // A POST goes again because the server has said when.
        let response = client.post(URL).body("text").send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "fine");
        assert!(began.elapsed() >= 7 * SECOND);
        assert_eq!(seen.count(), if is_own { 1 } else { 2 });
        settle(&client, &world).await;
    }
}

/// What an interceptor has from elsewhere says nothing of the origin: an error of another's, or an answer in place of one that did not
/// come.
#[tokio::test(start_paused = true)]
async fn what_comes_from_elsewhere_opens_and_closes_no_circuit() {
    let elsewhere = World::new();
    elsewhere.always(Dial::Refuse);
    let other = build(&elsewhere, |client| client);
    let world = World::new();
    let client = build(&world, |client| {
        client.circuit_breaker(opens_after(2)).attempt_interceptor({
            let other = other.clone();
            move |request: Request<Body>, next: Next<'static>| {
                let other = other.clone();
                async move {
                    match request.uri().path() {
                        "/token" => other.get("http://other.test/").send().await,
                        "/fallback" => match next.run(request).await {
                            Ok(response) => Ok(response),
                            Err(_) => Ok(Response::from(http::Response::new("kept"))),
                        },
                        _ => next.run(request).await,
                    }
                }
            }
        })
    });
    let circuit = client.circuit_breaker(URL).unwrap();
    let get = |path: &str| client.get(format!("http://peer.test{path}")).send();
    for _ in 0..3 {
        let error = get("/token").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    }
    assert_eq!(circuit.state(), CircuitState::Closed);
    play(&world, [Act::Close, Act::Close, Act::Close]);
    get("/").await.unwrap_err();
    assert_eq!(
        get("/fallback").await.unwrap().text().await.unwrap(),
        "kept"
    );
    get("/").await.unwrap_err();
    assert_eq!(circuit.state(), CircuitState::Open);
    settle(&other, &elsewhere).await;
    settle(&client, &world).await;
}

/// What an interceptor does behind the answer is not the server's time, and an answer of its own says nothing of the server.
#[tokio::test(start_paused = true)]
async fn an_interceptors_own_doing_is_no_sign_of_the_server() {
    for limit in [
        Timeouts::none().with_attempt(Some(5 * SECOND)),
        Timeouts::none().with_total(Some(5 * SECOND)),
    ] {
        let world = World::new();
        let seen = play(&world, []);
        let client = build(&world, |client| {
            client
                .circuit_breaker(opens_after(1))
                .retry(Retry::default())
                .attempt_interceptor(dawdle)
        });
        let error = client.get(URL).timeouts(limit).send().await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!((error.sent(), error.attempts()), (sockeye::Sent::All, 1));
        let circuit = client.circuit_breaker(URL).unwrap();
        assert_eq!((circuit.state(), seen.count()), (CircuitState::Closed, 1));
        settle(&client, &world).await;
    }
    let lent = Arc::new(std::sync::Mutex::new(None));
    let lender = {
        let lent = Arc::clone(&lent);
        move |request: Request<Body>, next: Next<'static>| {
            let lent = lent.lock().unwrap().take();
            async move {
                match lent {
                    Some(response) => Ok(response),
                    None => next.run(request).await,
                }
            }
        }
    };
    let world = World::new();
    play(
        &world,
        [Act::Say(ok("")), Act::Close, Act::Close, Act::Close],
    );
    let client = build(&world, |client| {
        client
            .circuit_breaker(opens_after(2))
            .attempt_interceptor(lender)
    });
    let answer = get(&client).await.unwrap();
    client.close_idle();
    get(&client).await.unwrap_err();
    *lent.lock().unwrap() = Some(answer);
    assert_eq!(get(&client).await.unwrap().status(), 200);
    get(&client).await.unwrap_err();
    let circuit = client.circuit_breaker(URL).unwrap();
    assert_eq!(circuit.state(), CircuitState::Open);
    settle(&client, &world).await;
}

/// An interceptor that sends two at once and takes the first answer: the other, which is dropped, takes nothing back.
#[tokio::test(start_paused = true)]
async fn the_answered_one_of_two_counts() {
    async fn hedge(request: Request<Body>, next: Next<'_>) -> Result<Response> {
        let copy = Request::get(request.uri()).body(Body::empty()).unwrap();
        tokio::select! {
            biased;
            first = next.run(request) => first,
            second = next.run(copy) => second,
        }
    }
    for acts in [
        [Act::Say(ok("")), Act::Silence],
        [Act::Silence, Act::Say(ok(""))],
    ] {
        let world = World::new();
        let seen = play(&world, [Act::Close, Act::Close]);
        let client = build(&world, |client| {
            client
                .circuit_breaker(opens_after(3))
                .attempt_interceptor(hedge)
        });
        for _ in 0..2 {
            seen.then([Act::Close, Act::Close]);
            get(&client).await.unwrap_err();
        }
        seen.then(acts);
        get(&client).await.unwrap();
        seen.then([Act::Close, Act::Close]);
        get(&client).await.unwrap_err();
        let circuit = client.circuit_breaker(URL).unwrap();
        assert_eq!(circuit.state(), CircuitState::Closed);
        settle(&client, &world).await;
    }
}
