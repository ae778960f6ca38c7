//! What a server chooses by ALPN, known or not: scenarios 29 to 31 of the pool's rules, and HTTP_1_1_REQUIRED.

use std::sync::Arc;
use std::time::Duration;

use sockeye::stats::AlpnEvent;
use sockeye::{Alpn, Client, ErrorKind, HttpVersions};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{SECOND, read};
use crate::support::http2::frames::HTTP_1_1_REQUIRED;
use crate::support::http2::{Frames, Honest, Report, Session};
use crate::support::peer::{Dial, PeerConnection, World, ok, settle};

const SECURE: &str = "https://peer.test/";
const MILLI: Duration = Duration::from_millis(1);

/// Serves each connection in the version that it has settled on, 10 ms after each request. The report is that of HTTP/2.
fn serve(world: &World) -> Report {
    let report = Report::default();
    let (shared, world) = (report.clone(), world.clone());
    tokio::spawn(async move {
        loop {
            let connection = world.accept().await;
            let report = shared.clone();
            tokio::spawn(async move {
                match connection.alpn {
                    Some(Alpn::Http2) => speak_http2(connection, report).await,
                    _ => speak_http1(connection).await,
                }
            });
        }
    });
    report
}

async fn speak_http1(mut connection: PeerConnection) {
    while let Some(request) = connection.next_request().await {
        sleep(10 * MILLI).await;
        let answer = ok(request.target());
        if !connection.try_write(answer.as_bytes()).await {
            return;
        }
    }
}

async fn speak_http2(connection: PeerConnection, report: Report) {
    let server = Honest {
        answer: Arc::new(|request| {
            let reply = crate::support::http2::honest::echo(request);
            reply.after(10 * MILLI)
        }),
        ..Honest::default()
    };
    // A connection that the client gives up before its preface is none of the server's.
    let Some(session) = Session::try_new(connection).await else {
        return;
    };
    session.send(server.settings());
    server.go_on(session, report).await;
}

/// So many calls at once, and how long all of them took. The versions that answered are in the list.
async fn burst(client: &Client, count: usize) -> (Duration, Vec<String>) {
    let started = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let request = client.get(SECURE);
        calls.spawn(async move {
            let response = request.send().await.unwrap();
            let version = format!("{:?}", response.version());
            assert_eq!(response.text().await.unwrap(), "/");
            version
        });
    }
    let mut versions = calls.join_all().await;
    versions.sort();
    versions.dedup();
    (started.elapsed(), versions)
}

/// 29, R-ALPN-1: nobody knows yet that the server speaks HTTP/2, and a hundred calls make one connection.
#[tokio::test(start_paused = true)]
async fn t29_a_herd_makes_one_session() {
    for versions in [HttpVersions::Auto, HttpVersions::Http2] {
        let world = World::new();
        world.negotiates(Alpn::Http2);
        world.always(Dial::Delay(50 * MILLI));
        let client = world.builder().http_versions(versions).build().unwrap();
        let report = serve(&world);
        let (_, spoken) = burst(&client, 100).await;
        assert_eq!((world.accepts(), report.count()), (1, 100));
        assert_eq!(spoken, ["HTTP/2.0"]);
        report.expect_no_violation();
        settle(&client, &world).await;
    }
}

/// 30, R-ALPN-1 and 2: with a server of HTTP/1.1 the first call pays one handshake for all, and it is paid once.
#[tokio::test(start_paused = true)]
async fn t30_a_fan_out_over_http1() {
    let world = World::new();
    world.negotiates(Alpn::Http1);
    world.always(Dial::Delay(50 * MILLI));
    let client = world.client();
    serve(&world);
    let (took, spoken) = burst(&client, 100).await;
    assert_eq!(spoken, ["HTTP/1.1"]);
    assert!(took <= 125 * MILLI, "{took:?}: more than two handshakes");
    client.close_idle();
    let (took, _) = burst(&client, 100).await;
    assert!(took <= 75 * MILLI, "{took:?}: more than one handshake");
    settle(&client, &world).await;
}

/// 31, R-ALPN-3: what was learned turns out to be wrong, in both directions; everybody is answered all the same.
#[tokio::test(start_paused = true)]
async fn t31_what_a_server_speaks_changes() {
    let world = World::new();
    world.always(Dial::Delay(50 * MILLI));
    let client = world.client();
    let report = serve(&world);
    world.negotiates(Alpn::Http1);
    burst(&client, 20).await;
    assert_eq!(world.accepts(), 20);

    // Each of the calls dials for itself, and the first session that comes serves all of them.
    world.negotiates(Alpn::Http2);
    client.close_idle();
    let (_, spoken) = burst(&client, 20).await;
    assert_eq!((spoken, report.count()), (vec!["HTTP/2.0".to_owned()], 20));
    let total = client.stats().total;
    assert_eq!(total.http2_sessions, 1);
    assert!(total.alpn.get(AlpnEvent::Deduplicated) >= 1, "{total:?}");
    assert_eq!(total.alpn.get(AlpnEvent::Flipped), 1);
    burst(&client, 20).await;
    assert_eq!(client.stats().total.http2_sessions, 1);

    // One dial for all, which turns out not to serve all: the others are made then.
    world.negotiates(Alpn::Http1);
    client.close_idle();
    let before = world.accepts();
    let (took, spoken) = burst(&client, 20).await;
    assert_eq!(
        (spoken, world.accepts() - before),
        (vec!["HTTP/1.1".to_owned()], 20)
    );
    assert!(took <= 125 * MILLI, "{took:?}");
    assert_eq!(client.stats().total.alpn.get(AlpnEvent::Flipped), 2);
    settle(&client, &world).await;
}

/// A server whose connections speak one and the other by turns.
#[tokio::test(start_paused = true)]
async fn t31_connections_that_differ() {
    let world = World::new();
    world.always(Dial::Delay(50 * MILLI));
    let client = world.client();
    serve(&world);
    for round in 0..10 {
        for alpn in [Alpn::Http1, Alpn::Http2] {
            world.negotiates_once(alpn);
        }
        world.negotiates(if round % 2 == 0 {
            Alpn::Http2
        } else {
            Alpn::Http1
        });
        burst(&client, 10).await;
        if round % 3 == 0 {
            client.close_idle();
        }
    }
    settle(&client, &world).await;
}

/// C34, ruling 5: a server that wants HTTP/1.1 for a request gets it over HTTP/1.1, once, whatever the method.
#[tokio::test(start_paused = true)]
async fn http11_required() {
    for versions in [HttpVersions::Auto, HttpVersions::Http2] {
        let world = World::new();
        world.negotiates(Alpn::Http1);
        world.negotiates_once(Alpn::Http2);
        let client = world.builder().http_versions(versions).build().unwrap();
        let call = tokio::spawn(read(client.post(SECURE).body("posted")));
        let mut session = Session::begin(&world).await;
        let head = session.head().await;
        session.content(head.stream).await;
        session.send(Frames::new().rst(head.stream, HTTP_1_1_REQUIRED));
        if versions == HttpVersions::Auto {
            let mut connection = world.accept().await;
            let request = connection.read_request().await;
            assert_eq!(
                (request.method(), request.body.as_slice()),
                ("POST", &b"posted"[..])
            );
            connection.write(ok("done")).await;
            assert_eq!(call.await.unwrap().unwrap().body, b"done");
            assert_eq!(world.accepts(), 2);
            connection.close();
        } else {
            let error = call.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.to_string().contains("HTTP_1_1_REQUIRED"), "{error}");
            assert_eq!(world.accepts(), 1);
        }
        drop(session);
        sleep(SECOND).await;
        settle(&client, &world).await;
    }
}

/// How often HTTP/1.1 and HTTP/2 came of a handshake.
fn negotiated(client: &Client) -> [u64; 2] {
    let alpn = client.stats().total.alpn;
    [AlpnEvent::Http1, AlpnEvent::Http2].map(|event| alpn.get(event))
}

#[tokio::test(start_paused = true)]
async fn nothing_is_negotiated_without_tls() {
    let world = World::new();
    let client = world.client();
    let server = world.clone();
    tokio::spawn(async move {
        let first = server.accept().await;
        tokio::spawn(speak_http1(first));
        speak_http2(server.accept().await, Report::default()).await;
    });
    for versions in [HttpVersions::Http1, HttpVersions::Http2PriorKnowledge] {
        let call = client.get("http://peer.test/").http_versions(versions);
        read(call).await.unwrap();
    }
    assert_eq!(world.accepts(), 2);
    assert_eq!(negotiated(&client), [0, 0]);
    settle(&client, &world).await;
}

/// A call that wants HTTP/1.1 does not go over a session, and the other way round.
#[tokio::test(start_paused = true)]
async fn versions_of_a_call() {
    let world = World::new();
    let client = world.client();
    serve(&world);
    for (versions, alpn, spoken) in [
        (HttpVersions::Auto, Alpn::Http2, "HTTP/2.0"),
        (HttpVersions::Http1, Alpn::Http1, "HTTP/1.1"),
        (HttpVersions::Auto, Alpn::Http1, "HTTP/2.0"),
        (HttpVersions::Http1, Alpn::Http2, "HTTP/1.1"),
    ] {
        world.negotiates(alpn);
        let request = client.get(SECURE).http_versions(versions);
        let response = request.send().await.unwrap();
        assert_eq!(format!("{:?}", response.version()), spoken);
        response.bytes().await.unwrap();
    }
    assert_eq!(world.accepts(), 2);
    // It was the connector who negotiated.
    assert_eq!(negotiated(&client), [1, 1]);
    // Asked for HTTP/2 alone, a server that chooses HTTP/1.1 is refused.
    world.negotiates(Alpn::Http1);
    let other = client
        .get("https://other.test/")
        .http_versions(HttpVersions::Http2);
    let error = read(other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("ALPN"), "{error}");
    // Without TLS there is no ALPN.
    let plain = client
        .get("http://peer.test/")
        .http_versions(HttpVersions::Http2);
    let error = read(plain).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    settle(&client, &world).await;
}
