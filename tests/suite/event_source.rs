//! An event source: where it goes on, how long it waits, and what ends it.

use std::time::Duration;

use sockeye::{ErrorKind, EventSource, Timeouts};
use tokio::time::Instant;

use crate::support::peer::{Dial, PeerConnection, Request, World, let_others_run, reply, settle};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Takes the next request and begins a stream.
async fn begin(world: &World) -> (PeerConnection, Request) {
    let mut connection = world.accept().await;
    let request = connection.read_request().await;
    connection.write(HEAD).await;
    (connection, request)
}

async fn send(connection: &mut PeerConnection, text: &str) {
    connection
        .write(format!("{:x}\r\n{text}\r\n", text.len()))
        .await;
}

/// The data of the next event.
async fn next(source: &mut EventSource) -> String {
    source.next().await.unwrap().unwrap().into_data()
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_behind_the_last_event_wherever_the_stream_ends() {
    let world = World::new();
    let client = world.client();
    let mut source = client
        .get("http://peer.test/")
        .bearer_auth("t")
        .event_source();
    let (mut connection, data) = tokio::join!(
        async {
            let (mut connection, request) = begin(&world).await;
            assert_eq!(request.field("last-event-id"), None);
            assert_eq!(request.field("accept"), Some("text/event-stream"));
            assert_eq!(request.field("cache-control"), Some("no-store"));
            send(&mut connection, "id: 1\ndata: a\n\nid: 2\ndata: lost").await;
            connection
        },
        next(&mut source)
    );
    assert_eq!(data, "a");
    assert_eq!(source.last_event_id(), "1");
    // An orderly end in the middle of an event: that one is asked for again.
    connection.write("0\r\n\r\n").await;
    let begun = Instant::now();
    let (mut connection, data) = tokio::join!(
        async {
            let request = connection.read_request().await;
            assert_eq!(request.field("last-event-id"), Some("1"));
            assert_eq!(request.field("authorization"), Some("Bearer t"));
            connection.write(HEAD).await;
            send(&mut connection, "id: gr\u{fc}n\n\ndata: b\n\n").await;
            connection
        },
        next(&mut source)
    );
    assert_eq!(data, "b");
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_secs(3) && waited <= Duration::from_millis(4500),
        "{waited:?}"
    );
    // Cut off, with an id that is no ASCII.
    send(&mut connection, ": comment\n").await;
    connection.close();
    let (connection, data) = tokio::join!(
        async {
            let mut connection = world.accept().await;
            let raw = connection.take_through(b"\r\n\r\n").await.unwrap();
            let field = "last-event-id: gr\u{fc}n\r\n".as_bytes();
            assert!(raw.windows(field.len()).any(|window| window == field));
            connection.write(HEAD).await;
            send(&mut connection, "id\ndata: c\n\n").await;
            connection
        },
        next(&mut source)
    );
    assert_eq!((data.as_str(), source.last_event_id()), ("c", ""));
    drop((source, connection));
    settle(&client, &world).await;
}

/// A reset stream is asked for again on the same session, and the end of the session on another.
#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn over_http2_it_goes_on_after_a_reset_and_after_the_end_of_a_session() {
    use crate::support::http2::frames::{END_STREAM, INTERNAL_ERROR, NO_ERROR};
    use crate::support::http2::{Frames, Session};
    use crate::support::peer::until;

    let world = World::new();
    let versions = sockeye::HttpVersions::Http2PriorKnowledge;
    let client = world.builder().http_versions(versions).build().unwrap();
    let mut source = client.get("http://peer.test/").event_source();
    let fields = [(":status", "200"), ("content-type", "text/event-stream")];
    let (mut session, data) = tokio::join!(
        async {
            let mut session = Session::begin(&world).await;
            let head = session.head().await;
            assert_eq!(head.field("last-event-id"), None);
            let begun = "retry: 200\nid: 1\ndata: a\n\nid: 2\ndata: lost";
            session.send(Frames::new().head(1, 0, &fields).data(1, begun));
            session
        },
        next(&mut source)
    );
    assert_eq!(data, "a");
    session.send(Frames::new().rst(1, INTERNAL_ERROR));
    let ((), data) = tokio::join!(
        async {
            let head = session.head().await;
            assert_eq!((head.stream, head.field("last-event-id")), (3, Some("1")));
            let begun = Frames::new().head(3, 0, &fields);
            session.send(begun.data(3, "id: 2\ndata: b\n\n"));
        },
        next(&mut source)
    );
    assert_eq!(data, "b");
    session.send(Frames::new().goaway(3, NO_ERROR));
    drop(session);
    let (session, end) = tokio::join!(
        async {
            let mut session = Session::begin(&world).await;
            let head = session.head().await;
            assert_eq!(head.field("last-event-id"), Some("2"));
            session.send(Frames::new().head(head.stream, END_STREAM, &[(":status", "204")]));
            session
        },
        source.next()
    );
    assert!(end.is_none());
    assert_eq!(world.accepts(), 2);
    drop((source, session));
    until("it has closed", || world.open() == 0).await;
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn it_waits_longer_after_each_try_that_fails_and_shortly_after_an_event() {
    let world = World::new();
    let client = world.client();
    world.always(Dial::Refuse);
    let mut source = client.get("http://peer.test/").event_source();
    let mut tries = Vec::new();
    let begun = Instant::now();
    let served = {
        let world = world.clone();
        tokio::spawn(async move {
            loop {
                let seen = world.dials();
                while world.dials() == seen {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                tries.push(begun.elapsed().as_secs_f64());
                if tries.len() == 6 {
                    world.always(Dial::Open);
                    let (mut connection, _) = begin(&world).await;
                    send(&mut connection, "retry: 200\ndata: at last\n\n").await;
                    connection.write("0\r\n\r\n").await;
                    let ended = Instant::now();
                    connection.read_request().await;
                    connection.write(HEAD).await;
                    send(&mut connection, "data: again\n\n").await;
                    return (tries, ended.elapsed(), connection);
                }
            }
        })
    };
    assert_eq!(next(&mut source).await, "at last");
    assert_eq!(next(&mut source).await, "again");
    let (tries, again, connection) = served.await.unwrap();
    let waits: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, least) in waits.iter().zip([3.0, 6.0, 12.0, 20.0, 20.0]) {
        assert!(
            *wait > least - 0.1 && *wait < least * 1.5 + 0.1,
            "{waits:?}"
        );
    }
    assert!(
        again >= Duration::from_millis(200) && again < Duration::from_millis(400),
        "{again:?}"
    );
    drop((source, connection));
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn silence_and_a_refused_connection_are_no_end() {
    let world = World::new();
    let timeouts = Timeouts::default().with_read(Some(Duration::from_secs(30)));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let mut source = client.get("http://peer.test/").event_source();
    world.plan(Dial::Refuse);
    let (data, connections) = tokio::join!(next(&mut source), async {
        // The first one falls silent.
        let (silent, _) = begin(&world).await;
        let (mut connection, _) = begin(&world).await;
        send(&mut connection, "data: here\n\n").await;
        (silent, connection)
    });
    assert_eq!(data, "here");
    drop((source, connections));
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_by_itself_ends_it() {
    for (answer, kind, told) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", None, ""),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\noops",
            Some(ErrorKind::Status),
            "404 Not Found",
        ),
        (
            "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            Some(ErrorKind::Status),
            "503",
        ),
        (
            "HTTP/1.1 201 Created\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n",
            Some(ErrorKind::Protocol),
            "begins with status 200, and the server answered with 201",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n",
            Some(ErrorKind::Decode),
            "text/html",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 8\r\n\r\ndata:\u{ff}\n\n",
            Some(ErrorKind::Decode),
            "not UTF-8",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\ndata: 0123456789",
            Some(ErrorKind::TooLarge),
            "limit of 10 bytes",
        ),
    ] {
        // The one byte that is not UTF-8 stands for itself.
        let bytes: Vec<u8> = answer.chars().map(|letter| letter as u8).collect();
        let world = World::new();
        let client = world.client();
        let mut source = client.get("http://peer.test/").event_source().max_event(10);
        let serving = tokio::spawn({
            let world = world.clone();
            async move {
                let mut connection = world.accept().await;
                connection.read_request().await;
                connection.write(&bytes).await;
                connection.read_to_end().await;
            }
        });
        match (source.next().await, kind) {
            (None, None) => {}
            (Some(Err(error)), Some(kind)) => {
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.to_string().contains(told), "{error}");
            }
            (event, _) => panic!("{answer}: {event:?}"),
        }
        assert!(source.next().await.is_none());
        assert_eq!(world.dials(), 1);
        drop(source);
        client.close_idle();
        serving.await.unwrap();
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_get_can_be_asked_again() {
    let world = World::new();
    let client = world.client();
    let mut source = client.post("http://peer.test/").body("x").event_source();
    let error = source.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("the method is POST"), "{error}");
    assert!(source.next().await.is_none());
    let (_feed, fed) = crate::support::streams::fed();
    let body = sockeye::Body::stream(fed);
    let mut source = client.get("http://peer.test/").body(body).event_source();
    let error = source.next().await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("cannot be sent again"),
        "{error}"
    );
    assert_eq!(world.dials(), 0);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn tries_in_a_row_can_be_limited() {
    let world = World::new();
    let client = world.client();
    world.always(Dial::Refuse);
    let mut source = client
        .get("http://peer.test/")
        .event_source()
        .max_failures(3);
    let error = source.next().await.unwrap().unwrap_err();
    assert_eq!((error.kind(), world.dials()), (ErrorKind::Connect, 3));
    assert!(source.next().await.is_none());
    world.always(Dial::Open);
    world.serve(|request| match request.field("last-event-id") {
        None => reply(
            "200 OK",
            "content-type: text/event-stream\r\n",
            "id: 1\ndata: x\n\n",
        ),
        Some(_) => reply("200 OK", "content-type: text/event-stream\r\n", "id: 1\n\n"),
    });
    let mut source = client
        .get("http://peer.test/")
        .event_source()
        .max_failures(2);
    assert_eq!(next(&mut source).await, "x");
    let error = source.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body);
    let told = "the stream of events ended without an event, 2 times in a row (max_failures)";
    assert_eq!(error.to_string(), told);
    assert_eq!(client.stats().total.requests_total, 6);
    settle(&client, &world).await;
}

/// Dropped while it connects, waits or is open, it leaves nothing behind; what waits for an event may be dropped at any time.
#[tokio::test(start_paused = true)]
async fn it_can_be_dropped_at_any_time() {
    let world = World::new();
    let client = world.client();
    for dropped_after in [0, 1, 2, 5, 9] {
        let mut source = client.get("http://peer.test/").event_source();
        world.plan(Dial::Delay(Duration::from_secs(1)));
        let serving = tokio::spawn({
            let world = world.clone();
            async move {
                let (mut connection, _) = begin(&world).await;
                send(&mut connection, "id: 1\ndata: x\n\n").await;
                connection.read_to_end().await;
            }
        });
        for _ in 0..dropped_after {
            // Each wait is shorter than a dial.
            let _ = tokio::time::timeout(Duration::from_millis(300), source.next()).await;
        }
        drop(source);
        tokio::time::sleep(Duration::from_secs(2)).await;
        client.close_idle();
        let_others_run().await;
        serving.abort();
        let _ = serving.await;
        settle(&client, &world).await;
    }
}
