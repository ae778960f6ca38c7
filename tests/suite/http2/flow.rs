//! Flow control in both directions: rows C36 and C38.

use std::sync::Arc;

use sockeye::{Body, ErrorKind, Http2Config, Phase, Sent, Timeouts};
use tokio::time::{Instant, sleep, timeout};

use super::{SECOND, URL, builder, client, close, read};
use crate::support::http2::frames::{DATA, INITIAL_WINDOW_SIZE};
use crate::support::http2::{Frames, Honest, Reply, Report, Session};
use crate::support::peer::{World, let_others_run, settle};
use crate::support::streams::{Pieces, fed};

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

/// Rule 13: where bodies that nobody reads hold most of the connection's window for half a minute, new calls go to another
/// session; nothing is cancelled, and once they are read the session is as good as before.
#[tokio::test(start_paused = true)]
async fn r13_a_crowded_session_gets_no_new_streams() {
    let world = World::new();
    let config = Http2Config::default()
        .with_stream_window(65_535)
        .with_connection_window(65_535)
        .with_ping_interval(None);
    let client = builder(&world).http2(config);
    let client = client.timeouts(Timeouts::none()).build().unwrap();
    let call = tokio::spawn(client.get(URL).send());
    let mut session = Session::begin(&world).await;
    session.head().await;
    session.send(Frames::new().ok(1).data(1, "x").data(1, "y"));
    let mut unread = call.await.unwrap().unwrap();
    // What the client may have looked at is out of the way. A quarter of the window is left, and then less.
    let_others_run().await;
    session.send(Frames::new().times(3, |frames, _| frames.data(1, [b'z'; 16_380])));
    sleep(60 * SECOND).await;
    let_others_run().await;
    let next = tokio::spawn(read(client.get(URL)));
    session.head().await;
    session.send(Frames::new().ok(3).end(3, [b'b'; 16]));
    assert_eq!(next.await.unwrap().unwrap().body, [b'b'; 16]);
    sleep(29 * SECOND).await;
    let next = tokio::spawn(read(client.get(URL)));
    session.head().await;
    session.send(Frames::new().ok(5).end(5, ""));
    next.await.unwrap().unwrap();
    sleep(3 * SECOND).await;
    let other = tokio::spawn(read(client.get(URL)));
    let mut second = Session::begin(&world).await;
    second.head().await;
    assert_eq!((world.accepts(), world.open()), (2, 2));

    for len in [1, 1, 16_380, 16_380, 16_380] {
        assert_eq!(unread.chunk().await.unwrap().unwrap().len(), len);
    }
    session.send(Frames::new().end(1, ""));
    assert_eq!(unread.chunk().await.unwrap(), None);
    sleep(2 * SECOND).await;
    // The first has no stream, the second has one.
    let next = tokio::spawn(read(client.get(URL)));
    assert_eq!(session.head().await.stream, 7);
    session.send(Frames::new().ok(7).end(7, "d"));
    assert_eq!(next.await.unwrap().unwrap().body, b"d");
    second.send(Frames::new().ok(1).end(1, "c"));
    assert_eq!(other.await.unwrap().unwrap().body, b"c");
    drop(second);
    close(session, &client, &world).await;
}

/// Room that an upload was promised and that nobody uses is not kept from the others: the response of one is there, and its
/// caller does not read it for now (ruling 6, spec http2 section 1).
#[tokio::test(start_paused = true)]
async fn an_upload_that_rests_holds_no_room() {
    for begun in [false, true] {
        let world = World::new();
        let client = client(&world);
        let call = tokio::spawn(client.post(URL).body(vec![b'x'; 200_000]).send());
        let mut session = Session::begin(&world).await;
        session.head().await;
        let mut got = 0;
        while got < 65_535 {
            got += session.next(DATA).await.payload.len();
        }
        session.send(Frames::new().window(1, 1_000_000).ok(1));
        let mut resting = call.await.unwrap().unwrap();
        if begun {
            session.send(Frames::new().data(1, "some"));
            assert_eq!(resting.chunk().await.unwrap().unwrap(), "some");
        }
        let other = tokio::spawn(read(client.post(URL).body(vec![b'y'; 1000])));
        session.head().await;
        let_others_run().await;
        session.send(Frames::new().window(0, 65_535));
        let whole = timeout(SECOND, session.content(3)).await;
        assert_eq!(whole.expect("room for the other").len(), 1000);
        session.send(Frames::new().ok(3).end(3, "other"));
        assert_eq!(other.await.unwrap().unwrap().body, b"other");
        // It goes on when it is read again.
        let rest = tokio::spawn(resting.bytes());
        session.send(Frames::new().window(0, 1_000_000));
        assert_eq!(session.content(1).await.len(), 200_000 - 65_535);
        session.send(Frames::new().end(1, "done"));
        assert_eq!(rest.await.unwrap().unwrap(), "done");
        close(session, &client, &world).await;
    }
}
