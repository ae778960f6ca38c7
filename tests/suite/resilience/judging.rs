//! What the policies and the error make of what interceptors do: with the time, the status, the fields and the answers of others.

use std::sync::Arc;

use http::Request;
use sockeye::{Body, CircuitState, Next, Phase, Response, Result, Retry, Timeouts};

use super::{Act, SECOND, URL, build, get, opens_after, play};
use crate::support::peer::{World, ok, settle};

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
