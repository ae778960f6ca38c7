//! Both directions of a stream at once: early responses (C35), 100-continue, trailers, interim responses, bodies that fail.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use sockeye::{Body, ErrorKind};
use tokio::time::Instant;

use super::{SECOND, URL, client, close, read};
use crate::support::http2::frames::{DATA, NO_ERROR};
use crate::support::http2::{Frames, Honest, Session};
use crate::support::peer::{World, let_others_run, settle, until};
use crate::support::streams::{Pieces, fed};

/// A response that begins while the request is still on its way is read beside it, and the upload goes on (ruling 6).
#[tokio::test(start_paused = true)]
async fn both_directions_at_once() {
    let world = World::new();
    let client = client(&world);
    let (feed, body) = fed();
    let call = tokio::spawn(client.post(URL).body(Body::stream(body)).send());
    let mut session = Session::begin(&world).await;
    session.head().await;
    session.send(Frames::new().ok(1));
    let mut response = call.await.unwrap().unwrap();
    for number in 0..5 {
        let piece = format!("piece {number}");
        feed.give(piece.clone());
        let echo = async {
            let frame = session.next(DATA).await;
            session.send(Frames::new().data(1, frame.content()));
            session
        };
        let (piece_read, back) = tokio::join!(response.chunk(), echo);
        session = back;
        assert_eq!(piece_read.unwrap().unwrap(), piece);
    }
    drop(feed);
    let end = async {
        let rest = session.content(1).await;
        assert_eq!(rest, b"");
        session.send(Frames::new().end(1, ""));
        session
    };
    let (last, session) = tokio::join!(response.chunk(), end);
    assert!(last.unwrap().is_none());
    assert_eq!(response.content_length(), None);
    assert_eq!(session.log().said(), [""; 0]);
    drop(response);
    close(session, &client, &world).await;
}

/// C35: a response that is complete ends the upload, whether the server says so (RST_STREAM with NO_ERROR) or not.
#[tokio::test(start_paused = true)]
async fn c35_a_response_that_ends_an_upload() {
    for told in [true, false] {
        let world = World::new();
        let client = client(&world);
        let (feed, body) = fed();
        let call = tokio::spawn(read(client.post(URL).body(Body::stream(body))));
        let mut session = Session::begin(&world).await;
        session.head().await;
        feed.give("begun");
        session.next(DATA).await;
        let refused = Frames::new()
            .head(1, 0, &[(":status", "413")])
            .end(1, "too large");
        session.send(if told {
            refused.rst(1, NO_ERROR)
        } else {
            refused
        });
        let answer = call.await.unwrap().unwrap();
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (413, &b"too large"[..])
        );
        until("the body is let go", || feed.is_dropped()).await;
        let_others_run().await;
        session.frames_by_now().await;
        let said = session.log().said();
        match told {
            true => assert_eq!(said, [""; 0]),
            false => assert_eq!(said.len(), 1, "{said:?}"),
        }
        let next = tokio::spawn(read(client.get(URL)));
        let head = session.head().await;
        session.send(Frames::new().ok(head.stream).end(head.stream, ""));
        next.await.unwrap().unwrap();
        close(session, &client, &world).await;
    }
}

/// Expect: 100-continue: the body waits for 100, and is not sent where another answer comes, or a second has gone by in vain.
#[tokio::test(start_paused = true)]
async fn expectations() {
    let world = World::new();
    let client = client(&world);
    let mut held = None;
    for answer in ["100", "200", "413", ""] {
        let request = client.post(URL).body("expected").expect_continue(true);
        let call = tokio::spawn(read(request));
        let mut session = match held.take() {
            Some(session) => session,
            None => Session::begin(&world).await,
        };
        let head = session.head().await;
        assert_eq!(
            (head.field("expect"), head.end),
            (Some("100-continue"), false)
        );
        let_others_run().await;
        let early = session.frames_by_now().await;
        assert!(early.iter().all(|frame| frame.kind != DATA), "{early:?}");
        let stream = head.stream;
        let started = Instant::now();
        match answer {
            "100" => {
                session.send(Frames::new().head(stream, 0, &[(":status", "100")]));
                assert_eq!(session.content(stream).await, b"expected");
                session.send(Frames::new().ok(stream).end(stream, "done"));
            }
            "" => {
                assert_eq!(session.content(stream).await, b"expected");
                assert_eq!(started.elapsed(), SECOND);
                session.send(Frames::new().ok(stream).end(stream, "done"));
            }
            status => {
                let head = [(":status", status)];
                session.send(Frames::new().head(stream, 0, &head).end(stream, "done"));
            }
        }
        let outcome = call.await.unwrap().unwrap();
        assert_eq!(outcome.body, b"done");
        let_others_run().await;
        let late = session.frames_by_now().await;
        assert!(
            late.iter()
                .all(|frame| frame.kind != DATA || frame.payload.is_empty()),
            "{late:?}"
        );
        held = Some(session);
    }
    let session: Session = held.expect("the session");
    close(session, &client, &world).await;
}

/// A body with trailers.
struct Trailing {
    content: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Trailing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let content = self.content.take().map(Frame::data);
        let next = content.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(next.map(Ok))
    }
}

/// Trailers behind the request and behind the response.
#[tokio::test(start_paused = true)]
async fn trailers_both_ways() {
    let world = World::new();
    let client = client(&world);
    let report = Honest::default().serve(&world);
    for content in ["", "content"] {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "abc".parse().unwrap());
        let content = Bytes::from(content);
        let body = Trailing {
            content: (!content.is_empty()).then(|| content.clone()),
            trailers: Some(trailers.clone()),
        };
        let request = client.post(URL).body(Body::wrap(body));
        let mut response = request.send().await.unwrap();
        let mut echoed = Vec::new();
        while let Some(piece) = response.chunk().await.unwrap() {
            echoed.extend_from_slice(&piece);
        }
        assert_eq!(echoed, content);
        assert_eq!(response.trailers().await.unwrap(), Some(trailers));
        assert_eq!(response.content_length(), Some(content.len() as u64));
    }
    let requests = report.requests();
    assert_eq!(
        requests[1].trailers,
        [("x-checksum".to_owned(), "abc".to_owned())]
    );
    report.expect_no_violation();
    settle(&client, &world).await;
}

/// Interim responses are told in the order in which they come, before the response.
#[tokio::test(start_paused = true)]
async fn interim_responses_are_told() {
    let world = World::new();
    let client = client(&world);
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    let request = client.get(URL).on_informational(move |interim| {
        let link = interim
            .headers()
            .get("link")
            .map(|link| link.to_str().unwrap().to_owned());
        list.lock().unwrap().push((interim.status().as_u16(), link));
    });
    let call = tokio::spawn(read(request));
    let mut session = Session::begin(&world).await;
    session.head().await;
    let hint = |link| Frames::new().head(1, 0, &[(":status", "103"), ("link", link)]);
    session.send(Frames::new().head(1, 0, &[(":status", "102")]));
    session.send(hint("</a>"));
    let_others_run().await;
    let expected = [(102, None), (103, Some("</a>".to_owned()))];
    assert_eq!(*told.lock().unwrap(), expected);
    session.send(hint("</b>").ok(1).end(1, "done"));
    assert_eq!(call.await.unwrap().unwrap().body, b"done");
    assert_eq!(told.lock().unwrap().len(), 3);
    close(session, &client, &world).await;
}

/// A request body that fails, or misses its length, ends its stream alone.
#[tokio::test(start_paused = true)]
async fn bodies_that_fail() {
    let world = World::new();
    let client = client(&world);
    let report = Honest::default().serve(&world);
    read(client.get(URL)).await.unwrap();
    let bodies: [fn() -> Body; 3] = [
        || {
            let (feed, body) = fed();
            feed.give("begun");
            feed.fail("the disk is gone");
            Body::stream(body)
        },
        || Body::sized_stream(100, Pieces::new(1, 10).0),
        || Body::sized_stream(5, Pieces::new(1, 10).0),
    ];
    for body in bodies {
        let error = read(client.post(URL).body(body())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body, "{error}");
        let_others_run().await;
    }
    assert_eq!(read(client.get(URL)).await.unwrap().body, b"/");
    let said = report.log(0).said();
    let reset = said.iter().all(|words| words.starts_with("RST_STREAM"));
    assert!(said.len() == 3 && reset, "{said:?}");
    assert_eq!((world.accepts(), report.count()), (1, 2));
    settle(&client, &world).await;
}
