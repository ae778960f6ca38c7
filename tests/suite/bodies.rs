//! Request bodies that are made when they are sent: by a function.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sockeye::{Body, Client, ErrorKind, Phase, RequestBuilder, Sent, Timeouts};
use tokio::time::Instant;

use crate::support::faults::Faults;
use crate::support::peer::{Request, World, let_others_run, ok, reply, settle};
use crate::support::streams::{Pieces, fed, within_polls};

const URL: &str = "http://peer.test/";

/// A body that counts how often it was made, and says so in its bytes.
fn counted() -> (Body, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let body = Body::replay(move || {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move {
            tokio::task::yield_now().await;
            let (feed, stream) = fed();
            feed.give(format!("body {number}, "));
            feed.give("to its end");
            Ok(Body::stream(stream))
        })
    });
    (body, made)
}

/// The request as the peer saw it, and what the call was told.
async fn exchange(world: &World, request: RequestBuilder) -> Request {
    let call = tokio::spawn(request.send());
    let mut peer = world.accept().await;
    let request = peer.read_request().await;
    peer.write(ok("")).await;
    call.await.unwrap().unwrap();
    request
}

#[tokio::test(start_paused = true)]
async fn what_the_function_gives_is_framed_as_itself() {
    let stream = || Body::stream(Pieces::new(3, 4).0);
    let make = |body: fn() -> Body| Body::replay(move || Box::pin(async move { Ok(body()) }));
    for (body, length, content) in [
        (make(|| "hello".into()), Some("5"), "hello"),
        (make(Body::empty), Some("0"), ""),
        (
            make(|| Body::stream(Pieces::new(3, 4).0)),
            None,
            "xxxxxxxxxxxx",
        ),
        (
            make(|| Body::sized_stream(12, Pieces::new(3, 4).0)),
            Some("12"),
            "xxxxxxxxxxxx",
        ),
        (
            Body::replay_sized(12, move || Box::pin(async move { Ok(stream()) })),
            Some("12"),
            "xxxxxxxxxxxx",
        ),
    ] {
        let world = World::new();
        let client = world.client();
        let request = exchange(&world, client.post(URL).body(body)).await;
        assert_eq!(request.field("content-length"), length);
        let chunked = request.field("transfer-encoding").is_some();
        assert_eq!(chunked, length.is_none(), "{}", request.head);
        assert_eq!(String::from_utf8_lossy(&request.body), content);
        settle(&client, &world).await;
    }
}

/// Ruling 5 (2): a kept connection that is dead costs the request nothing, its body included.
#[tokio::test(start_paused = true)]
async fn on_a_stale_connection_the_body_is_made_and_sent_again_whole() {
    let world = World::new();
    let client = world.client();
    let before = tokio::spawn(client.get(URL).send());
    let mut first = world.accept().await;
    first.read_request().await;
    first.write(ok("")).await;
    before.await.unwrap().unwrap();

    let (body, made) = counted();
    let call = tokio::spawn(client.put(URL).body(body).send());
    first.read_head().await.unwrap();
    for piece in ["body 1, ", "to its end"] {
        assert_eq!(first.read_chunk().await.unwrap(), piece.as_bytes());
    }
    first.close();
    let mut second = world.accept().await;
    let request = second.read_request().await;
    assert_eq!(request.body, b"body 2, to its end");
    second.write(ok("")).await;
    assert_eq!(call.await.unwrap().unwrap().attempts(), 2);
    assert_eq!(made.load(Ordering::SeqCst), 2);
    settle(&client, &world).await;
}

/// Ruling 5 (1): of which nothing was written, that is tried again whatever the method.
#[tokio::test(start_paused = true)]
async fn what_was_never_written_is_made_for_each_attempt() {
    let world = World::new();
    world.faults(Faults {
        break_after_writing: Some(0),
        ..Faults::default()
    });
    let client = world.client();
    let (body, made) = counted();
    let call = tokio::spawn(client.post(URL).body(body).send());
    for _ in 0..3 {
        let peer = world.accept().await;
        // The client has tried to write by then.
        let_others_run().await;
        peer.close();
    }
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.sent(), Sent::Nothing, "{error}");
    assert_eq!((error.attempts(), made.load(Ordering::SeqCst)), (3, 3));
    settle(&client, &world).await;
}

/// http1 a4: the body that waited is the one of the first try; the second makes its own.
#[tokio::test(start_paused = true)]
async fn after_417_the_body_is_made_once_more() {
    let world = World::new();
    let client = world.client();
    let (body, made) = counted();
    let request = client.post(URL).body(body).expect_continue(true);
    let call = tokio::spawn(request.send());
    let mut peer = world.accept().await;
    peer.read_head().await.unwrap();
    peer.write(reply("417 Expectation Failed", "", "")).await;
    let mut peer = world.accept().await;
    assert_eq!(peer.read_request().await.body, b"body 2, to its end");
    peer.write(ok("")).await;
    assert_eq!(call.await.unwrap().unwrap().attempts(), 2);
    assert_eq!(made.load(Ordering::SeqCst), 2);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_with_such_a_body_can_be_cloned() {
    let world = World::new();
    let client = world.client();
    let (body, made) = counted();
    let request = client.post(URL).body(body);
    let copy = request.try_clone().unwrap();
    drop(request);
    assert_eq!(made.load(Ordering::SeqCst), 0);
    let request = exchange(&world, copy).await;
    assert_eq!(request.body, b"body 1, to its end");
    let (_feed, stream) = fed();
    assert!(
        client
            .post(URL)
            .body(Body::stream(stream))
            .try_clone()
            .is_none()
    );
    settle(&client, &world).await;
}

/// The function fails before a byte is written, so that the connection can be used by the next call.
#[tokio::test(start_paused = true)]
async fn an_error_of_the_function_costs_no_connection() {
    let world = World::new();
    let client = world.client();
    let gone = || Body::replay(|| Box::pin(async { Err(io::ErrorKind::NotFound.into()) }));
    let wrong = || Body::replay_sized(4, || Box::pin(async { Ok("hello".into()) }));
    for (body, said) in [(gone(), "not found"), (wrong(), "one of 5 bytes was made")] {
        let error = client.post(URL).body(body).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body);
        assert_eq!(error.phase(), Some(Phase::Prepare));
        assert_eq!(error.sent(), Sent::Nothing);
        assert_eq!(error.attempts(), 1);
        assert!(error.to_string().contains(said), "{error}");
    }
    settle(&client, &world).await;
    exchange(&world, client.get(URL)).await;
    assert_eq!(world.dials(), 1, "one connection served all three");
    settle(&client, &world).await;
}

/// A stream that fails or is cut in the middle takes its connection with it, and no last chunk vouches for it.
#[tokio::test(start_paused = true)]
async fn an_error_in_what_the_function_gave_closes_the_connection() {
    let world = World::new();
    let client = world.client();
    let body = Body::replay(|| {
        let (feed, stream) = fed();
        feed.give("some");
        feed.fail("the disk is gone");
        Box::pin(async { Ok(Body::stream(stream)) })
    });
    let call = tokio::spawn(client.put(URL).body(body).send());
    let mut peer = world.accept().await;
    peer.read_head().await.unwrap();
    let sent = peer.read_to_end().await;
    assert!(!sent.ends_with(b"0\r\n\r\n"));
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Body, 1));
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert!(!error.is_retryable());
    settle(&client, &world).await;
}

/// Ruling 18: no step's own limit counts while the caller makes his body; those of the attempt and of the call do.
#[tokio::test(start_paused = true)]
async fn the_limits_of_the_whole_strike_while_a_body_is_made() {
    let world = World::new();
    let client = world.client();
    let total = Timeouts::default().with_total(Some(Duration::from_secs(30)));
    let attempt = Timeouts::default().with_attempt(Some(Duration::from_secs(30)));
    for timeouts in [total, attempt] {
        let begun = Instant::now();
        let never = Body::replay(|| Box::pin(pending()));
        let call = client.put(URL).timeouts(timeouts).body(never).send();
        let error = call.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert_eq!(error.phase(), Some(Phase::Prepare));
        assert_eq!(error.sent(), Sent::Nothing);
        assert_eq!(begun.elapsed(), Duration::from_secs(30));
    }
    settle(&client, &world).await;
    assert_eq!(world.dials(), 1);

    let slow = Body::replay(|| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            Ok("late".into())
        })
    });
    let call = tokio::spawn(client.put(URL).body(slow).send());
    let mut peer = world.accept().await;
    assert_eq!(peer.read_request().await.body, b"late");
    peer.write(ok("")).await;
    call.await.unwrap().unwrap();
    settle(&client, &world).await;
}

/// RFC 9112 section 7.1 and ruling 14: what was made has a length, so a peer of the last century can have it.
#[tokio::test(start_paused = true)]
async fn a_body_that_has_a_length_once_it_is_made_goes_to_http_1_0() {
    let world = World::new();
    let client = world.client();
    let sized = Body::replay(|| Box::pin(async { Ok("hello".into()) }));
    for request in [client.get(URL), client.post(URL).body(sized)] {
        let call = tokio::spawn(request.send());
        let mut peer = world.accept().await;
        let request = peer.read_request().await;
        assert!(request.field("transfer-encoding").is_none());
        assert_eq!(
            request.body.len(),
            if request.method() == "GET" { 0 } else { 5 }
        );
        let answer = ok("").replace("HTTP/1.1", "HTTP/1.0");
        peer.write(answer).await;
        call.await.unwrap().unwrap();
    }
    let (body, _) = counted();
    let error = client.post(URL).body(body).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    assert!(error.to_string().contains("HTTP/1.0"), "{error}");
    settle(&client, &world).await;
}

/// Dropped after every number of polls, a call with such a body leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_anywhere_leaks_nothing() {
    fn put(client: &Client, body: Body) -> RequestBuilder {
        client.put(URL).body(body)
    }
    for warm in [false, true] {
        for polls in 0.. {
            let world = World::new();
            world.serve(|request| ok(&request.body.len().to_string()));
            let client = world.client();
            if warm {
                client.get(URL).send().await.unwrap();
            }
            let (body, _) = counted();
            let outcome = within_polls(polls, put(&client, body).send()).await;
            let done = outcome.is_some();
            if let Some(response) = outcome {
                assert_eq!(response.unwrap().text().await.unwrap(), "18");
            }
            let_others_run().await;
            settle(&client, &world).await;
            // The next call works.
            let (body, _) = counted();
            let response = put(&client, body).send().await.unwrap();
            assert_eq!(response.text().await.unwrap(), "18");
            settle(&client, &world).await;
            if done {
                break;
            }
        }
    }
}
