//! Closing a client ends the calls that wait between two attempts, or for the rate limit: they have no connection to finish on.

use sockeye::{Client, Error, ErrorKind, RateLimit, Resilience, Retry};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Act, SECOND, URL, build, failed_with, get, play, status, with};
use crate::support::peer::{World, let_others_run, settle};

fn sleepy(world: &World) -> Client {
    let retry = Retry::default()
        .with_base(600 * SECOND)
        .with_cap(600 * SECOND);
    let resilience = Resilience::none()
        .with_retry(Some(retry))
        .with_rate_limit(Some(RateLimit::default()));
    build(world, |client| client.resilience(resilience))
}

/// Closes the client, and answers what the call that sleeps came to.
async fn close(client: &Client, call: JoinHandle<sockeye::Result<sockeye::Response>>) -> Error {
    let begun = Instant::now();
    let closed = client.close(5 * SECOND).await;
    assert_eq!(closed.cut, 0);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 0, "it is not slept to the end");
    assert_eq!(error.kind(), ErrorKind::ClientClosed, "{error}");
    assert!(error.is_closed() && !error.is_retryable());
    error
}

#[tokio::test(start_paused = true)]
async fn a_wait_between_attempts_ends() {
    for (act, cause) in [
        (status(503), "answered with status 503"),
        (with(429, "retry-after: 50\r\n"), "answered with status 429"),
        (
            Act::Say("HTTP/1.1 500 Bad\r\ncontent-length: 900000\r\n\r\nsome".into()),
            "answered with status 500",
        ),
        (Act::Close, "the peer closed the connection"),
    ] {
        let world = World::new();
        let client = sleepy(&world);
        let seen = play(&world, [act.clone()]);
        let call = tokio::spawn(client.get(URL).send());
        while client.stats().total.retries == 0 {
            let_others_run().await;
        }
        tokio::time::sleep(SECOND / 10).await;
        let error = close(&client, call).await;
        assert_eq!((error.attempts(), seen.count()), (1, 1), "{act:?}: {error}");
        let told = error.cause().unwrap().to_string();
        assert!(told.contains(cause), "{told}");
        settle(&client, &world).await;
    }
}

/// At the gate, before the first attempt and before a later one.
#[tokio::test(start_paused = true)]
async fn a_wait_for_the_rate_limit_ends() {
    let world = World::new();
    let client = build(&world, |client| client.rate_limit(RateLimit::default()));
    play(&world, [with(429, "retry-after: 50\r\n")]);
    failed_with(get(&client).await);
    let call = tokio::spawn(client.get(URL).send());
    let_others_run().await;
    let error = close(&client, call).await;
    assert_eq!(error.attempts(), 0);
    assert!(error.cause().is_none());
    settle(&client, &world).await;

    let world = World::new();
    let client = build(&world, |client| client.resilience(Resilience::standard()));
    // Another attempt soon, and then a gate that is shut for long.
    play(&world, [with(500, "ratelimit: \"p\";r=0;t=50\r\n")]);
    let call = tokio::spawn(client.get(URL).send());
    tokio::time::sleep(SECOND).await;
    assert_eq!(client.stats().total.retries, 1);
    let error = close(&client, call).await;
    assert_eq!(error.attempts(), 1);
    let told = error.cause().unwrap().to_string();
    assert!(told.contains("answered with status 500"), "{told}");
    settle(&client, &world).await;
}

/// A call that is not between two attempts goes on to its end, which is the last.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_runs_is_the_last() {
    let world = World::new();
    let client = sleepy(&world);
    let call = tokio::spawn(client.get(URL).send());
    let mut peer = world.accept().await;
    peer.read_request().await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close(5 * SECOND).await }
    });
    let_others_run().await;
    let begun = Instant::now();
    peer.write("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
        .await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (ErrorKind::ClientClosed, 1)
    );
    assert!(
        error.cause().unwrap().to_string().contains("503"),
        "{error}"
    );
    assert_eq!(begun.elapsed().as_secs(), 0);
    assert_eq!(closing.await.unwrap().cut, 0);
    drop(peer);
    settle(&client, &world).await;
}
