//! Streams that are given to another protocol: extended CONNECT (RFC 8441), and CONNECT itself (RFC 9113 section 8.5).

use sockeye::test::at_rest;
use sockeye::{Client, ErrorKind, HttpVersions, Method, Phase, Response, Result, Upgraded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::{SECOND, URL, client};
use crate::support::http2::frames::{DATA, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, RST_STREAM};
use crate::support::http2::{Frames, Honest, Session};
use crate::support::peer::{World, let_others_run, settle, until};

/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3).
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

fn ask(client: &Client) -> JoinHandle<Result<Response>> {
    let request = client.get(URL).upgrade("websocket");
    tokio::spawn(request.header("sec-websocket-version", "13").send())
}

/// The bytes go both ways, each direction ends by itself, and the stream counts until it is dropped.
#[tokio::test(start_paused = true)]
async fn another_protocol_has_a_stream_of_its_own() {
    let world = World::new();
    let client = client(&world);
    let call = ask(&client);
    let mut session = Session::accept(&world).await;
    let_others_run().await;
    // Whether it may be asked is not known before the settings are.
    assert!(!call.is_finished());
    session.send(Frames::new().settings(&[(ENABLE_CONNECT_PROTOCOL, 1)]));
    let head = session.head().await;
    let said = [
        ":method",
        ":protocol",
        ":scheme",
        ":path",
        "sec-websocket-version",
    ];
    let said = said.map(|name| head.field(name).unwrap_or("none").to_owned());
    assert_eq!(said, ["CONNECT", "websocket", "http", "/", "13"]);
    session.send(Frames::new().ok(1).data(1, "hello "));
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    let mut stream = response.upgrade().unwrap();
    assert_eq!(client.stats().total.http2_streams, 1);
    stream.write_all(b"from us").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(session.content(1).await, b"from us");
    session.send(Frames::new().end(1, "and goodbye"));
    let mut read = String::new();
    stream.read_to_string(&mut read).await.unwrap();
    assert_eq!(read, "hello and goodbye");
    drop(stream);
    // The session goes on.
    let next = tokio::spawn(client.get(URL).send());
    session.head().await;
    session.send(Frames::new().ok(3).end(3, ""));
    assert_eq!(next.await.unwrap().unwrap().status(), 200);
    assert_eq!(world.accepts(), 1);
    settle(&client, &world).await;
}

/// Writes wait for room; a stream that is dropped open is reset, and its slot comes back.
#[tokio::test(start_paused = true)]
async fn flow_control_holds_and_a_drop_resets() {
    let world = World::new();
    let client = client(&world);
    let call = ask(&client);
    let mut session = Session::accept(&world).await;
    let settings = [(ENABLE_CONNECT_PROTOCOL, 1), (INITIAL_WINDOW_SIZE, 4)];
    session.send(Frames::new().settings(&settings));
    session.head().await;
    session.send(Frames::new().ok(1));
    let mut stream = call.await.unwrap().unwrap().upgrade().unwrap();
    let writing = tokio::spawn(async move {
        stream.write_all(b"longer").await.unwrap();
        stream
    });
    let_others_run().await;
    assert!(!writing.is_finished(), "the window is full");
    session.send(Frames::new().window(1, 10));
    let stream = writing.await.unwrap();
    drop(stream);
    until("the slot is back", || {
        client.stats().total.http2_streams == 0
    })
    .await;
    let_others_run().await;
    session.frames_by_now().await;
    let said = session.log().said();
    assert_eq!(said.last().map(String::as_str), Some("RST_STREAM 1 CANCEL"));
    settle(&client, &world).await;
}

/// A server that does not offer it is not asked, and one that refuses answers in the ordinary way.
#[tokio::test(start_paused = true)]
async fn not_every_server_takes_other_protocols() {
    let world = World::new();
    let client = client(&world);
    let call = ask(&client);
    let mut session = Session::begin(&world).await;
    let error = call.await.unwrap().unwrap_err();
    let seen = (error.kind(), error.phase());
    assert_eq!(seen, (ErrorKind::Protocol, Some(Phase::Head)), "{error}");
    assert!(error.to_string().contains("RFC 8441"), "{error}");
    session.frames_by_now().await;
    assert_eq!(session.log().count(HEADERS), 0, "nothing was asked");
    session.send(Frames::new().settings(&[(ENABLE_CONNECT_PROTOCOL, 1)]));
    let_others_run().await;
    session.frames_by_now().await;
    let call = ask(&client);
    session.head().await;
    let refused = Frames::new().head(1, 4, &[(":status", "403")]);
    session.send(refused.end(1, "no"));
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.status().map(|status| status.as_u16()), Some(403));
    settle(&client, &world).await;
}

/// Nothing waits for ever for settings that never come.
#[tokio::test(start_paused = true)]
async fn a_session_that_ends_before_its_settings() {
    let world = World::new();
    let client = client(&world);
    let call = ask(&client);
    let session = Session::accept(&world).await;
    let_others_run().await;
    // Nothing was sent, so it is tried once more, with a server that does not offer it.
    Honest::default().serve(&world);
    session.shutdown_and_drain().await;
    let error = call.await.unwrap().unwrap_err();
    let seen = (error.kind(), error.attempts());
    assert_eq!(seen, (ErrorKind::Protocol, 2), "{error}");
    settle(&client, &world).await;
}

/// RFC 9113 section 8.5: an authority and nothing else.
#[tokio::test(start_paused = true)]
async fn connect_makes_a_tunnel() {
    let world = World::new();
    let client = client(&world);
    let request = client.request(Method::CONNECT, URL);
    let request = request.http_versions(HttpVersions::Http2PriorKnowledge);
    let call = tokio::spawn(request.send());
    let mut session = Session::begin(&world).await;
    let head = session.head().await;
    assert_eq!(head.field(":authority"), Some("peer.test:80"));
    assert_eq!((head.field(":path"), head.field(":scheme")), (None, None));
    session.send(Frames::new().ok(1));
    let mut stream = call.await.unwrap().unwrap().upgrade().unwrap();
    stream.write_all(b"ping").await.unwrap();
    session.send(Frames::new().data(1, "pong"));
    let mut read = [0; 4];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"pong");
    drop(stream);
    settle(&client, &world).await;
}

/// A tunnel on a session of its own.
async fn tunnel(world: &World, client: &Client) -> (Session, Upgraded) {
    let call = tokio::spawn(client.request(Method::CONNECT, URL).send());
    let mut session = Session::begin(world).await;
    session.head().await;
    session.send(Frames::new().ok(1));
    (session, call.await.unwrap().unwrap().upgrade().unwrap())
}

/// What was flushed has left, and so has all that was written before a shutdown: a drop right after it takes nothing away.
#[tokio::test(start_paused = true)]
async fn what_was_flushed_has_left() {
    for ends in [false, true] {
        let world = World::new();
        // The socket takes little at a time, so that the session has to wait for it.
        world.buffer(1000);
        let client = client(&world);
        let (mut session, mut stream) = tunnel(&world, &client).await;
        let writing = tokio::spawn(async move {
            stream.write_all(&[b'x'; 50_000]).await.unwrap();
            match ends {
                true => stream.shutdown().await.unwrap(),
                false => stream.flush().await.unwrap(),
            }
        });
        let (mut got, mut ended) = (0, false);
        while let Some(frame) = session.frame().await {
            match frame.kind {
                DATA => {
                    got += frame.payload.len();
                    ended |= frame.flags & END_STREAM != 0;
                }
                RST_STREAM => break,
                _ => {}
            }
        }
        assert_eq!((got, ended), (50_000, ends));
        writing.await.unwrap();
        settle(&client, &world).await;
    }
}

/// A flush ends with its session.
#[tokio::test(start_paused = true)]
async fn a_flush_that_never_will_be() {
    let world = World::new();
    world.buffer(1000);
    let client = client(&world);
    let (session, mut stream) = tunnel(&world, &client).await;
    stream.write_all(&[b'x'; 50_000]).await.unwrap();
    let flushing = tokio::spawn(async move {
        let first = stream.flush().await;
        stream.write_all(b"more").await.unwrap_err();
        first
    });
    let_others_run().await;
    assert!(!flushing.is_finished(), "nobody reads");
    drop(session);
    flushing.await.unwrap().unwrap_err();
    settle(&client, &world).await;
}

/// A stream is its session's, which a client that is closed waits for and then cuts off.
#[tokio::test(start_paused = true)]
async fn closing_the_client_ends_its_streams() {
    let world = World::new();
    let client = client(&world);
    let (session, mut stream) = tunnel(&world, &client).await;
    let closing = client.clone();
    let closing = tokio::spawn(async move { closing.close(SECOND).await });
    let_others_run().await;
    stream.write_all(b"still there").await.unwrap();
    let closed = closing.await.unwrap();
    assert_eq!((closed.finished, closed.cut), (0, 1));
    assert!(stream.read_u8().await.is_err());
    drop((stream, session));
    let_others_run().await;
    assert_eq!(world.open(), 0);
    at_rest(&client);
}
