//! Retries together with what wraps each try: nothing of one try leaks into the next.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body::Frame;
use sockeye::{
    Authenticator, Body, BoxFuture, Challenge, CircuitState, Error, ErrorKind, Limits, Next,
    Redirects, Response, Result, Retry, Timeouts, on_request,
};

use super::{Act, SECOND, URL, build, failed_with, get, opens_after, play, status, with};
use crate::support::peer::{World, let_others_run, ok, reply, settle};
use crate::support::streams::fed;

/// Adds a part to the query, as those who sign URLs do.
async fn sign(mut request: Request<Body>, next: Next<'_>) -> Result<Response> {
    let joint = request.uri().query().map_or('?', |_| '&');
    let signed = format!("{}{joint}sig=1", request.uri());
    *request.uri_mut() = signed.parse().unwrap();
    next.run(request).await
}

struct Renews;

impl Authenticator for Renews {
    fn refresh<'a>(&'a self, _: &'a Challenge) -> BoxFuture<'a, Result<Option<HeaderValue>>> {
        Box::pin(async { Ok(Some(HeaderValue::from_static("Bearer new"))) })
    }
}

/// What an interceptor made of the URL is that try's alone, after a retry and after new credentials.
#[tokio::test(start_paused = true)]
async fn a_url_is_signed_once_each_time() {
    for first in [
        status(503),
        with(401, "www-authenticate: Bearer realm=\"a\"\r\n"),
    ] {
        let world = World::new();
        let seen = play(&world, [first]);
        let client = build(&world, |client| {
            client
                .retry(Retry::default())
                .authenticator_for(URL, Renews)
                .attempt_interceptor(sign)
        });
        get(&client).await.unwrap().bytes().await.unwrap();
        let requests = seen.requests();
        let targets: Vec<_> = requests.iter().map(|request| request.target()).collect();
        assert_eq!(targets, ["/?sig=1", "/?sig=1"]);
        settle(&client, &world).await;
    }
}

/// Security R2: a response that an interceptor has got elsewhere does not make that origin the call's own.
#[tokio::test(start_paused = true)]
async fn a_borrowed_response_is_not_of_the_calls_origin() {
    let world = World::new();
    world.serve(|request| match (request.field("host"), request.target()) {
        (Some("other.test"), "/") => reply("302 Found", "location: http://other.test/next\r\n", ""),
        _ => ok(request.field("authorization").unwrap_or("nothing")),
    });
    let lender = build(&world, |client| client.redirects(Redirects::none()));
    let borrow = {
        let lender = lender.clone();
        move |request: Request<Body>, next: Next<'static>| {
            let lender = lender.clone();
            async move {
                match request.uri().host() {
                    Some("peer.test") => lender.get("http://other.test/").send().await,
                    _ => next.run(request).await,
                }
            }
        }
    };
    let client = build(&world, |client| client.attempt_interceptor(borrow));
    let response = client.get(URL).bearer_auth("secret").send().await.unwrap();
    assert_eq!(response.url().to_string(), "http://other.test/next");
    assert_eq!(response.text().await.unwrap(), "nothing");
    lender.close_idle();
    let_others_run().await;
    settle(&client, &world).await;
}

/// A server that refuses every expectation is asked twice, however often an interceptor puts it in.
#[tokio::test(start_paused = true)]
async fn an_expectation_is_dropped_once() {
    let world = World::new();
    world.serve(|_| reply("417 Expectation Failed", "", ""));
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let client = build(&world, |client| {
        client.attempt_interceptor(on_request(move |parts| {
            if count.fetch_add(1, Ordering::SeqCst) == 9 {
                return Err(Error::interceptor("once more, without an end"));
            }
            let expect = HeaderValue::from_static("100-continue");
            parts.headers.insert("expect", expect);
            Ok(())
        }))
    });
    let outcome = client.post(URL).body("x").send().await;
    assert_eq!(failed_with(outcome).0, 417);
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    settle(&client, &world).await;
}

/// A body that gives every piece of another twice.
struct Doubled(Body);

impl http_body::Body for Doubled {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.0).poll_frame(cx);
        polled.map_ok(|frame| frame.map_data(|data| [&data[..], &data[..]].concat().into()))
    }
}

/// A body that nobody has asked for anything comes back after 417, and an interceptor changes it anew.
#[tokio::test(start_paused = true)]
async fn a_body_goes_again_without_its_expectation() {
    let world = World::new();
    let client = build(&world, |client| {
        client.attempt_interceptor(async |request: Request<Body>, next: Next<'_>| {
            let doubled = request.map(|body| Body::wrap(Doubled(body)));
            next.run(doubled).await
        })
    });
    let call = client.post(URL).expect_continue(true).body(once());
    let call = tokio::spawn(call.timeout(5 * SECOND).send());
    let mut first = world.accept().await;
    let head = first.read_head().await.unwrap();
    assert_eq!(head.field("expect"), Some("100-continue"));
    first.write(reply("417 Expectation Failed", "", "")).await;
    let mut second = world.accept().await;
    let request = second.read_request().await;
    assert_eq!(request.field("expect"), None);
    assert_eq!(request.body, b"texttext");
    second.write(ok("")).await;
    let response = call.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), response.attempts()), (200, 2));
    drop((response, first, second));
    client.close_idle();
    settle(&client, &world).await;
}

/// Reads a body, and passes it on as one that can be sent once.
async fn read(request: Request<Body>, next: Next<'_>) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await?.bytes;
    let body = Body::wrap(Body::from(bytes));
    next.run(Request::from_parts(parts, body)).await
}

/// Without a body for another try, 417 is the answer, and nothing is sent again.
#[tokio::test(start_paused = true)]
async fn a_refused_expectation_is_the_answer_for_a_body_that_was_read() {
    let world = World::new();
    let client = build(&world, |client| client.attempt_interceptor(read));
    let call = client.post(URL).expect_continue(true).body(once());
    let call = tokio::spawn(call.timeout(5 * SECOND).send());
    let mut peer = world.accept().await;
    peer.read_head().await.unwrap();
    peer.write(reply("417 Expectation Failed", "", "")).await;
    assert_eq!(failed_with(call.await.unwrap()).0, 417);
    assert_eq!(world.accepts(), 1);
    drop(peer);
    settle(&client, &world).await;
}

/// What failed inside and was made good does not count when the interceptor fails later.
#[tokio::test(start_paused = true)]
async fn a_failure_that_was_made_good_is_forgotten() {
    async fn twice(request: Request<Body>, next: Next<'_>) -> Result<Response> {
        let copy = Request::get(request.uri()).body(Body::empty()).unwrap();
        let error = match next.run(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        next.run(copy).await?.bytes().await?;
        Err(error)
    }
    let world = World::new();
    let seen = play(&world, [Act::Say(ok("")), Act::Close]);
    let client = build(&world, |client| client.attempt_interceptor(twice));
    get(&client).await.unwrap();
    let error = get(&client).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (ErrorKind::Io, 1),
        "{error}"
    );
    assert_eq!(seen.count(), 3);
    settle(&client, &world).await;
}

/// Resilience 2.4: a total limit that strikes before anything was sent says nothing of the origin.
#[tokio::test(start_paused = true)]
async fn our_own_line_opens_no_circuit() {
    let world = World::new();
    play(&world, [Act::Silence]);
    let client = build(&world, |client| {
        client
            .limits(Limits::default().with_max_connections(1.try_into().ok()))
            .timeouts(Timeouts::none())
            .circuit_breaker(opens_after(1))
            .attempt_interceptor(async |request: Request<Body>, next: Next<'_>| {
                next.run(request).await
            })
    });
    let held = tokio::spawn(client.get(URL).send());
    let_others_run().await;
    let error = client.get(URL).timeout(2 * SECOND).send().await;
    assert!(error.unwrap_err().is_timeout());
    let circuit = client.circuit_breaker(URL).unwrap();
    assert_eq!(circuit.state(), CircuitState::Closed);
    held.abort();
    let _ = held.await;
    settle(&client, &world).await;
}

/// An interceptor that takes its time and passes the request on.
async fn slowly(request: Request<Body>, next: Next<'_>) -> Result<Response> {
    tokio::time::sleep(2 * SECOND).await;
    next.run(request).await
}

/// Resilience 2.4, the total limit: the second in which a server says nothing begins when the request is sent.
#[tokio::test(start_paused = true)]
async fn an_interceptors_own_time_is_not_the_servers() {
    for (limit, expected) in [(5, CircuitState::Closed), (7, CircuitState::Open)] {
        let world = World::new();
        play(&world, [Act::Silence]);
        let client = build(&world, |client| {
            client
                .circuit_breaker(opens_after(1))
                .attempt_interceptor(slowly)
        });
        // After two seconds it is sent, and then unanswered for half a second, or for one and a half.
        let error = client.get(URL).timeout(limit * SECOND / 2).send().await;
        assert!(error.unwrap_err().is_timeout());
        let circuit = client.circuit_breaker(URL).unwrap();
        assert_eq!(circuit.state(), expected, "{limit}");
        settle(&client, &world).await;
    }
}

/// The limit of an attempt that strikes in our own line says nothing of the origin either, whatever time interceptors took.
#[tokio::test(start_paused = true)]
async fn our_own_line_opens_no_circuit_by_the_limit_of_an_attempt() {
    let world = World::new();
    let seen = play(&world, [Act::Silence]);
    let timeouts = Timeouts::none().with_attempt(Some(5 * SECOND));
    let client = build(&world, |client| {
        client
            .limits(Limits::default().with_max_connections(1.try_into().ok()))
            .circuit_breaker(opens_after(1))
            .retry(Retry::default())
            .attempt_interceptor(slowly)
    });
    let held = client.get(URL).timeouts(Timeouts::none()).send();
    let held = tokio::spawn(held);
    tokio::time::sleep(3 * SECOND).await;
    let error = client.get(URL).timeouts(timeouts).send().await.unwrap_err();
    assert_eq!(error.phase(), Some(sockeye::Phase::Pool), "{error}");
    assert_eq!(
        (error.sent(), error.attempts()),
        (sockeye::Sent::Nothing, 1)
    );
    let circuit = client.circuit_breaker(URL).unwrap();
    assert_eq!((circuit.state(), seen.count()), (CircuitState::Closed, 1));
    held.abort();
    let _ = held.await;
    settle(&client, &world).await;
}

/// A body that can be sent once, and that the server asks for.
fn once() -> Body {
    let (feed, body) = fed();
    feed.give("text");
    Body::stream(body)
}

/// Resilience 2.3, N and S: a body of which no interceptor and no connection has asked anything goes again, through all
/// interceptors, and as it was.
#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_has_touched_goes_again() {
    async fn frame(request: Request<Body>, next: Next<'_>) -> Result<Response> {
        next.run(request.map(Body::wrap)).await
    }
    let world = World::new();
    let client = build(&world, |client| {
        client.retry(Retry::default()).attempt_interceptor(frame)
    });
    world.plan(crate::support::peer::Dial::Refuse);
    world.plan(crate::support::peer::Dial::Refuse);
    let seen = play(&world, []);
    let response = client.post(URL).body(once()).send().await.unwrap();
    assert_eq!(response.attempts(), 3);
    assert_eq!(seen.requests()[0].body, b"text");
    drop(response);
    client.close_idle();
    settle(&client, &world).await;
    // Refused before it was asked for: by one who wants it later, and by one who wants it elsewhere.
    for refusal in [
        reply("429 Slow", "retry-after: 1\r\n", ""),
        reply("307 Elsewhere", "location: /\r\n", ""),
    ] {
        let world = World::new();
        let client = build(&world, |client| {
            client.retry(Retry::default()).attempt_interceptor(frame)
        });
        let call = client.put(URL).expect_continue(true).body(once());
        let call = tokio::spawn(call.send());
        let mut first = world.accept().await;
        first.read_head().await.unwrap();
        first.write(refusal).await;
        let mut second = world.accept().await;
        let head = second.read_head().await.unwrap();
        second.write("HTTP/1.1 100 Continue\r\n\r\n").await;
        assert_eq!(second.read_body(head).await.unwrap().body, b"text");
        second.write(ok("taken")).await;
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.text().await.unwrap(), "taken");
        drop((first, second));
        client.close_idle();
        settle(&client, &world).await;
    }
}

/// What an interceptor has taken of a body is gone: it is not sent again, and never as a shorter one.
#[tokio::test(start_paused = true)]
async fn a_body_that_an_interceptor_has_read_is_gone() {
    let world = World::new();
    let client = build(&world, |client| {
        client.retry(Retry::default()).attempt_interceptor(read)
    });
    world.plan(crate::support::peer::Dial::Refuse);
    let seen = play(&world, []);
    let error = client.post(URL).body(once()).send().await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Connect, 1));
    assert_eq!(seen.count(), 0);
    settle(&client, &world).await;
}

/// One that is kept by an interceptor when it was taken back gives nothing to whoever asks it then.
#[tokio::test(start_paused = true)]
async fn a_body_that_was_taken_back_is_dead_to_others() {
    let kept = Arc::new(std::sync::Mutex::new(None));
    let keep = Arc::clone(&kept);
    let world = World::new();
    let client = build(&world, |client| {
        client.retry(Retry::default()).attempt_interceptor(
            move |request: Request<Body>, next: Next<'static>| {
                let keep = Arc::clone(&keep);
                async move {
                    let mut before = keep.lock().unwrap().take();
                    if before.is_some() {
                        return next.run(request).await;
                    }
                    let (parts, body) = request.into_parts();
                    before.replace(body);
                    *keep.lock().unwrap() = before;
                    let empty = Request::from_parts(parts, Body::from("other"));
                    next.run(empty).await
                }
            },
        )
    });
    world.plan(crate::support::peer::Dial::Refuse);
    let seen = play(&world, []);
    // The interceptor lets go of what it kept, with the second attempt, which sends the body itself.
    let response = client.post(URL).body(once()).send().await.unwrap();
    assert_eq!((response.attempts(), seen.count()), (2, 1));
    assert_eq!(seen.requests()[0].body, b"text");
    drop(response);
    settle(&client, &world).await;
}
