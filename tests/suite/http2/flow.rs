//! Flow control, uploads and what goes on beside them: rows C36 and C38, early responses, 100-continue, trailers, interim
//! responses.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use sockeye::{Body, Client, ErrorKind, Http2Config, Phase, Sent};
use tokio::time::Instant;

use super::{SECOND, URL, builder, client, read};
use crate::support::http2::frames::{DATA, INITIAL_WINDOW_SIZE, NO_ERROR};
use crate::support::http2::{Frames, Honest, Reply, Report, Session};
use crate::support::peer::{World, let_others_run, settle, until};
use crate::support::streams::{Pieces, fed};

/// Ends what is left of a test in which a session was kept by hand.
async fn close(session: Session, client: &Client, world: &World) {
    drop(session);
    until("it has closed", || world.open() == 0).await;
    settle(client, world).await;
}

/// C36: an upload for which there is no room waits, and ends in the limit on writing; the stream is cancelled.
#[tokio::test(start_paused = true)]
async fn c36_an_upload_into_a_closed_window() {
    for window in [0, 10] {
        let world = World::new();
        let client = client(&world);
        let first = tokio::spawn(read(client.get(URL)));
        let mut session = Session::accept(&world).await;
        session.send(Frames::new().settings(&[(INITIAL_WINDOW_SIZE, window)]));
        session.head().await;
        session.send(Frames::new().ok(1).end(1, ""));
        first.await.unwrap().unwrap();

        let started = Instant::now();
        let call = tokio::spawn(read(client.post(URL).body(vec![b'x'; 100_000])));
        session.head().await;
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(started.elapsed(), 10 * SECOND);
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Some(Phase::Write)),
            "{error}"
        );
        assert_eq!(error.sent(), Sent::Part);
        let_others_run().await;
        let frames = session.frames_by_now().await;
        let sent = frames.iter().filter(|frame| frame.kind == DATA);
        let sent: usize = sent.map(|frame| frame.payload.len()).sum();
        assert_eq!(sent, window as usize);
        assert!(
            session
                .log()
                .said()
                .contains(&"RST_STREAM 3 CANCEL".to_owned())
        );
        // The session still serves, when it has answered the PING that the silence was worth (ruling 3 b).
        let_others_run().await;
        let next = tokio::spawn(read(client.get(URL)));
        let head = session.head().await;
        session.send(Frames::new().ok(head.stream).end(head.stream, "next"));
        assert_eq!(next.await.unwrap().unwrap().body, b"next");
        assert_eq!(world.accepts(), 1);
        close(session, &client, &world).await;
    }
}

/// C36: a window that shrinks below nothing is obeyed, and opens again by what is added to it.
#[tokio::test(start_paused = true)]
async fn c36_a_window_below_nothing() {
    let world = World::new();
    let client = client(&world);
    let call = tokio::spawn(read(client.post(URL).body(vec![b'x'; 100_000])));
    let mut session = Session::begin(&world).await;
    session.head().await;
    let mut got = 0;
    while got < 65_535 {
        got += session.next(DATA).await.payload.len();
    }
    assert_eq!(got, 65_535);
    // Both windows are used up; the stream's is 60,000 below nothing now.
    session.send(
        Frames::new()
            .settings(&[(INITIAL_WINDOW_SIZE, 5535)])
            .window(0, 1_000_000),
    );
    let_others_run().await;
    session.send(Frames::new().window(1, 60_000));
    let_others_run().await;
    let early = session.frames_by_now().await;
    assert!(early.iter().all(|frame| frame.kind != DATA), "{early:?}");
    session.send(Frames::new().window(1, 10));
    assert_eq!(session.next(DATA).await.payload.len(), 10);
    session.send(Frames::new().window(1, 1_000_000));
    assert_eq!(session.content(1).await.len(), 100_000 - 65_545);
    session.send(Frames::new().ok(1).end(1, "got it"));
    assert_eq!(call.await.unwrap().unwrap().body, b"got it");
    close(session, &client, &world).await;
}

/// An upload is no slower than its windows, and a server's limit on frames is kept.
#[tokio::test(start_paused = true)]
async fn uploads_keep_to_windows_and_frames() {
    for window in [1, 1000, 65_535, 1_000_000] {
        let world = World::new();
        let client = client(&world);
        let server = Honest {
            window: Some(window),
            ..Honest::default()
        };
        let report = server.serve(&world);
        let size = if window == 1 { 300 } else { 300_000 };
        let (pieces, _) = Pieces::new(3, size / 3);
        for body in [Body::from(vec![b'x'; size]), Body::stream(pieces)] {
            let echoed = read(client.put(URL).body(body)).await.unwrap();
            assert_eq!(echoed.body.len(), size);
        }
        let frames = report.log(0).frames();
        assert!(frames.iter().all(|frame| frame.payload.len() <= 16_384));
        report.expect_no_violation();
        settle(&client, &world).await;
    }
}

/// C38: what is sent beyond the windows of ours ends the stream, or the session.
#[tokio::test(start_paused = true)]
async fn c38_more_than_our_windows() {
    for (stream_window, connection_window, frames, says, kept) in [
        (
            65_535,
            1_000_000,
            5,
            "RST_STREAM 1 FLOW_CONTROL_ERROR",
            true,
        ),
        (1_000_000, 65_535, 5, "GOAWAY 0 FLOW_CONTROL_ERROR", false),
    ] {
        let world = World::new();
        let config = Http2Config::default()
            .with_stream_window(stream_window)
            .with_connection_window(connection_window);
        let client = builder(&world).http2(config).build().unwrap();
        let call = tokio::spawn(client.get(URL).send());
        let mut session = Session::begin(&world).await;
        session.head().await;
        session.send(Frames::new().ok(1));
        let response = call.await.unwrap().unwrap();
        // Nobody reads.
        session.send(Frames::new().times(frames, |frames, _| frames.data(1, [b'x'; 16_384])));
        let_others_run().await;
        let error = response.bytes().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Protocol, Some(Phase::Read)),
            "{error}"
        );
        let_others_run().await;
        session.frames_by_now().await;
        assert_eq!(session.log().said(), [says]);
        let report = Report::default();
        Honest::default().serve_into(&world, &report);
        tokio::spawn(Honest::default().go_on(session, report));
        assert_eq!(read(client.get(URL)).await.unwrap().body, b"/");
        assert_eq!(world.accepts() == 1, kept);
        settle(&client, &world).await;
    }
}

/// C38: windows of the server's that grow beyond what a window can be.
#[tokio::test(start_paused = true)]
async fn c38_windows_that_overflow() {
    for (stream, says, kept) in [
        (1, "RST_STREAM 1 FLOW_CONTROL_ERROR", true),
        (0, "GOAWAY 0 FLOW_CONTROL_ERROR", false),
    ] {
        let world = World::new();
        let client = client(&world);
        let (feed, body) = fed();
        let call = tokio::spawn(read(client.post(URL).body(Body::stream(body))));
        let mut session = Session::begin(&world).await;
        session.head().await;
        session.send(Frames::new().window(stream, 0x7fff_ffff));
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        drop(feed);
        let_others_run().await;
        session.frames_by_now().await;
        assert_eq!(session.log().said(), [says]);
        let report = Report::default();
        Honest::default().serve_into(&world, &report);
        tokio::spawn(Honest::default().go_on(session, report));
        assert_eq!(read(client.get(URL)).await.unwrap().body, b"/");
        assert_eq!(world.accepts() == 1, kept);
        settle(&client, &world).await;
    }
}

/// Bodies that nobody reads hold their own windows and nothing else; what they held comes back when they are dropped.
#[tokio::test(start_paused = true)]
async fn a_reader_that_pauses_stalls_nobody() {
    let world = World::new();
    let client = client(&world);
    let server = Honest {
        answer: Arc::new(|request| match request.head.path() {
            "/large" => Reply::new(vec![b'x'; 6 * 1024 * 1024]),
            path => Reply::new(path),
        }),
        ..Honest::default()
    };
    let report = server.serve(&world);
    let large = || client.get("http://peer.test/large").send();
    let mut paused = Vec::new();
    for _ in 0..3 {
        let mut response = large().await.unwrap();
        response.chunk().await.unwrap().unwrap();
        paused.push(response);
    }
    let_others_run().await;
    // Three windows of 4 MiB are held of 16 MiB.
    for _ in 0..20 {
        assert_eq!(
            read(client.get("http://peer.test/small"))
                .await
                .unwrap()
                .body,
            b"/small"
        );
    }
    let whole = large().await.unwrap().bytes().await.unwrap();
    assert_eq!(whole.len(), 6 * 1024 * 1024);
    drop(paused.pop());
    for response in paused {
        assert!(response.bytes().await.unwrap().len() > 4 * 1024 * 1024);
    }
    // Again and again: what was held has come back.
    for _ in 0..10 {
        drop(large().await.unwrap());
    }
    let whole = large().await.unwrap().bytes().await.unwrap();
    assert_eq!((whole.len(), world.accepts()), (6 * 1024 * 1024, 1));
    report.expect_no_violation();
    settle(&client, &world).await;
}

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
