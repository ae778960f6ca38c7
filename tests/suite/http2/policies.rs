//! Retry and circuit breaker over HTTP/2, against a server that fails by streams and by sessions.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use http::Method;
use sockeye::stats::RetryCause;
use sockeye::{
    Body, CircuitBreaker, CircuitState, Client, ClientBuilder, ErrorKind, Retry, RetryBudget, Sent,
    Timeouts,
};
use tokio::time::Instant;

use super::{SECOND, URL, builder};
use crate::support::http2::frames::{
    CANCEL, END_STREAM, ENHANCE_YOUR_CALM, INITIAL_WINDOW_SIZE, INTERNAL_ERROR, NO_ERROR,
    REFUSED_STREAM,
};
use crate::support::http2::{Frames, Session};
use crate::support::peer::{World, settle};
use crate::support::streams::{Pieces, fed};

/// What the server does with a request that has come whole.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Status(&'static str),
    /// A status and the wait that it asks for.
    After(&'static str, &'static str),
    /// RST_STREAM with a code.
    Reset(u32),
    /// GOAWAY with a code that names this stream as not processed, and the end of the session.
    Away(u32),
    /// GOAWAY that names it as one that may have been, and the end of the session.
    Late(u32),
    Silence,
}

/// A request that came to a server: the session and stream, when, and with which body.
type Came = (usize, u32, Instant, Vec<u8>);

/// All that came.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Came>>>);

impl Seen {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        let seen = self.0.lock().unwrap();
        seen.iter().map(|(_, _, _, body)| body.clone()).collect()
    }

    fn places(&self) -> Vec<(usize, u32)> {
        let seen = self.0.lock().unwrap();
        seen.iter()
            .map(|(session, stream, _, _)| (*session, *stream))
            .collect()
    }

    fn gap(&self) -> std::time::Duration {
        let seen = self.0.lock().unwrap();
        seen[1].2 - seen[0].2
    }
}

/// A server that does one act for each request, on whatever session it comes, and answers all further ones with 200.
fn play(world: &World, acts: impl IntoIterator<Item = Act>) -> Seen {
    let acts: Arc<Mutex<VecDeque<Act>>> = Arc::new(Mutex::new(acts.into_iter().collect()));
    let (seen, world) = (Seen::default(), world.clone());
    let told = seen.clone();
    tokio::spawn(async move {
        for number in 0.. {
            let session = Session::accept(&world).await;
            // Room for every body of a test.
            let room = Frames::new().settings(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
            session.send(room.window(0, 1 << 24));
            tokio::spawn(serve(session, number, Arc::clone(&acts), told.clone()));
        }
    });
    seen
}

async fn serve(mut session: Session, number: usize, acts: Arc<Mutex<VecDeque<Act>>>, seen: Seen) {
    while let Some(head) = session.next_head().await {
        let stream = head.stream;
        let body = match head.end {
            true => Vec::new(),
            false => session.content(stream).await,
        };
        let entry = (number, stream, Instant::now(), body);
        seen.0.lock().unwrap().push(entry);
        let act = acts.lock().unwrap().pop_front();
        match act.unwrap_or(Act::Status("200")) {
            Act::Status(status) => {
                session.send(Frames::new().head(stream, END_STREAM, &[(":status", status)]));
            }
            Act::After(status, wait) => {
                let fields = [(":status", status), ("retry-after", wait)];
                session.send(Frames::new().head(stream, END_STREAM, &fields));
            }
            Act::Reset(code) => session.send(Frames::new().rst(stream, code)),
            Act::Away(code) => {
                session.send(Frames::new().goaway(stream.saturating_sub(2), code));
                return session.shutdown_and_drain().await;
            }
            Act::Late(code) => {
                session.send(Frames::new().goaway(stream, code));
                return session.shutdown_and_drain().await;
            }
            Act::Silence => {}
        }
    }
}

fn retrying(world: &World, set: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
    let timeouts = Timeouts::default().with_head(Some(SECOND));
    let client = builder(world).retry(Retry::default()).timeouts(timeouts);
    set(client).build().unwrap()
}

/// The rows of resilience 2.3 that a stream or a session can be in: how often the server sees a GET, a PUT that can be sent again, a
/// POST that can, and a PUT and a POST that cannot.
#[tokio::test(start_paused = true)]
async fn the_matrix_over_http2() {
    let rows = [
        (Act::After("429", "1"), [2, 2, 2, 1, 1]),
        (Act::After("503", "1"), [2, 2, 2, 1, 1]),
        (Act::Status("503"), [2, 2, 1, 1, 1]),
        (Act::Status("500"), [2, 2, 1, 1, 1]),
        (Act::Status("408"), [2, 2, 2, 1, 1]),
        (Act::Status("501"), [1, 1, 1, 1, 1]),
        (Act::Reset(INTERNAL_ERROR), [2, 2, 1, 1, 1]),
        (Act::Reset(CANCEL), [2, 2, 1, 1, 1]),
        (Act::Late(INTERNAL_ERROR), [2, 2, 1, 1, 1]),
        (Act::Silence, [2, 2, 1, 1, 1]),
        // What was not processed goes again at once, with or without a policy.
        (Act::Reset(REFUSED_STREAM), [2, 2, 2, 1, 1]),
        (Act::Away(NO_ERROR), [2, 2, 2, 1, 1]),
        (Act::Away(ENHANCE_YOUR_CALM), [2, 2, 2, 1, 1]),
    ];
    let columns = [
        (Method::GET, None),
        (Method::PUT, Some(true)),
        (Method::POST, Some(true)),
        (Method::PUT, Some(false)),
        (Method::POST, Some(false)),
    ];
    for (act, expected) in rows {
        for ((method, body), expected) in columns.iter().zip(expected) {
            let world = World::new();
            let client = retrying(&world, |client| client);
            let seen = play(&world, [act]);
            let mut call = client.request(method.clone(), URL);
            call = match body {
                None => call,
                Some(true) => call.body("text"),
                Some(false) => {
                    let (feed, body) = fed();
                    feed.give("text");
                    call.body(Body::stream(body))
                }
            };
            let outcome = call.send().await;
            let what = format!("{method}, {body:?}, {act:?}: {outcome:?}");
            assert_eq!(seen.count(), expected, "{what}");
            assert_eq!(outcome.is_ok(), expected == 2, "{what}");
            let attempts = match &outcome {
                Ok(response) => response.attempts(),
                Err(error) => error.attempts(),
            };
            assert_eq!(attempts as usize, expected, "{what}");
            for sent in seen.bodies() {
                let whole = if body.is_some() { &b"text"[..] } else { b"" };
                assert_eq!(sent, whole, "{what}");
            }
            drop(outcome);
            client.close_idle();
            settle(&client, &world).await;
        }
    }
}

/// A status and a reset are the stream's own matter: the next attempt is on the same session, and after the wait that was asked for.
#[tokio::test(start_paused = true)]
async fn where_and_when_it_goes_again() {
    for (act, places, waits, cause) in [
        (
            Act::After("503", "3"),
            [(0, 1), (0, 3)],
            true,
            RetryCause::Throttled,
        ),
        (
            Act::Status("503"),
            [(0, 1), (0, 3)],
            false,
            RetryCause::Status,
        ),
        (
            Act::Reset(INTERNAL_ERROR),
            [(0, 1), (0, 3)],
            false,
            RetryCause::Failed,
        ),
        (
            Act::Reset(REFUSED_STREAM),
            [(0, 1), (0, 3)],
            false,
            RetryCause::Refused,
        ),
        (
            Act::Away(NO_ERROR),
            [(0, 1), (1, 1)],
            false,
            RetryCause::GoAway,
        ),
        (
            Act::Late(NO_ERROR),
            [(0, 1), (1, 1)],
            false,
            RetryCause::Failed,
        ),
        (Act::Silence, [(0, 1), (0, 3)], false, RetryCause::TimedOut),
    ] {
        let world = World::new();
        let client = retrying(&world, |client| client);
        let seen = play(&world, [act]);
        let response = client.get(URL).send().await.unwrap();
        assert_eq!(response.attempts(), 2, "{act:?}");
        assert_eq!(seen.places(), places, "{act:?}");
        let gap = seen.gap();
        assert!(
            !waits || gap >= 3 * SECOND && gap < 4 * SECOND,
            "{act:?}: {gap:?}"
        );
        let causes = client.stats().total.retry_causes;
        assert_eq!(causes.get(cause), 1, "{act:?}: {causes:?}");
        drop(response);
        client.close_idle();
        settle(&client, &world).await;
    }
}

/// A server that never processes anything is tried three times at once, and then by policy, which has a budget and an end.
#[tokio::test(start_paused = true)]
async fn refused_for_good() {
    let world = World::new();
    let client = retrying(&world, |client| client);
    let seen = play(&world, vec![Act::Reset(REFUSED_STREAM); 99]);
    let error = client.post(URL).body("text").send().await.unwrap_err();
    assert_eq!((error.kind(), error.sent()), (ErrorKind::Io, Sent::All));
    assert_eq!((error.attempts(), seen.count()), (5, 5), "{error}");
    assert!(error.is_retryable());
    let causes = client.stats().total.retry_causes;
    assert_eq!(causes.get(RetryCause::Refused), 2, "{causes:?}");
    client.close_idle();
    settle(&client, &world).await;
    let world = World::new();
    let retry = Retry::default().with_max_attempts(99).with_budget(Some(
        RetryBudget::default()
            .with_capacity(10)
            .with_refill_per_second(0),
    ));
    let client = retrying(&world, |client| client.retry(retry));
    let seen = play(&world, vec![Act::Reset(INTERNAL_ERROR); 99]);
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!((error.attempts(), seen.count()), (3, 3));
    assert_eq!(client.stats().total.retries_denied, 1);
    client.close_idle();
    settle(&client, &world).await;
}

/// What can be sent again is sent again whole: bytes, and what is made for each attempt, however much of the last had gone.
#[tokio::test(start_paused = true)]
async fn a_body_goes_again_whole() {
    let long = vec![b'x'; 300_000];
    let made = long.clone();
    let bodies = [
        Body::from(long.clone()),
        Body::replay(move || {
            let made = made.clone();
            Box::pin(async move { Ok(Body::from(made)) })
        }),
        Body::replay(|| Box::pin(async { Ok(Body::stream(Pieces::new(300, 1000).0)) })),
    ];
    for body in bodies {
        let world = World::new();
        let client = retrying(&world, |client| client);
        let seen = play(
            &world,
            [
                Act::Reset(REFUSED_STREAM),
                Act::Away(NO_ERROR),
                Act::Status("503"),
                Act::Reset(INTERNAL_ERROR),
            ],
        );
        let response = client.put(URL).body(body).send().await.unwrap();
        assert_eq!(response.attempts(), 5);
        let lengths: Vec<_> = seen.bodies().iter().map(Vec::len).collect();
        assert_eq!(lengths, [300_000; 5]);
        drop(response);
        client.close_idle();
        settle(&client, &world).await;
    }
}

/// What each act is to a breaker that opens at the first failure.
#[tokio::test(start_paused = true)]
async fn what_the_breaker_counts() {
    for (act, opens) in [
        (Act::Status("200"), false),
        (Act::Status("404"), false),
        (Act::Status("500"), false),
        (Act::After("429", "1"), false),
        (Act::Status("503"), true),
        (Act::Reset(INTERNAL_ERROR), true),
        (Act::Reset(CANCEL), true),
        (Act::Late(NO_ERROR), true),
        (Act::Silence, true),
        // Refused often enough that it reaches the caller.
        (Act::Reset(REFUSED_STREAM), false),
        (Act::Away(NO_ERROR), false),
    ] {
        let world = World::new();
        let breaker = CircuitBreaker::default().with_consecutive(NonZeroU32::new(1));
        let client = retrying(&world, |client| {
            client.retry(Retry::none()).circuit_breaker(breaker)
        });
        play(&world, vec![act; 3]);
        let outcome = client.get(URL).error_for_status(false).send().await;
        let state = client.circuit_breaker(URL).unwrap().state();
        assert_eq!(state == CircuitState::Open, opens, "{act:?}: {outcome:?}");
        drop(outcome);
        client.close_idle();
        settle(&client, &world).await;
    }
}

/// Security R7: a body that the server did not ask for goes along with a redirect, on the same session, and with a 429.
#[tokio::test(start_paused = true)]
async fn a_body_that_was_not_asked_for_goes_along() {
    let redirect: &[(&str, &str)] = &[(":status", "307"), ("location", "/next")];
    let later: &[(&str, &str)] = &[(":status", "429"), ("retry-after", "1")];
    for answer in [redirect, later] {
        let world = World::new();
        let client = retrying(&world, |client| client);
        let (feed, body) = fed();
        feed.give("text");
        drop(feed);
        let call = client
            .put(URL)
            .expect_continue(true)
            .body(Body::stream(body));
        let call = tokio::spawn(call.send());
        let mut session = Session::begin(&world).await;
        let head = session.head().await;
        assert_eq!(head.field("expect"), Some("100-continue"));
        session.send(Frames::new().head(head.stream, END_STREAM, answer));
        let again = session.head().await;
        assert_eq!(again.stream, 3);
        session.send(Frames::new().head(3, 0, &[(":status", "100")]));
        assert_eq!(session.content(3).await, b"text");
        session.send(Frames::new().ok(3).end(3, "taken"));
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.text().await.unwrap(), "taken");
        super::close(session, &client, &world).await;
    }
}
