//! The network in memory: where dials lead, what breaks at which byte, and scripts and functions behind it.

use std::net::IpAddr;
use std::time::Duration;

use sockeye::test::{MemNet, Reach, Received, Reply, Side, WireFault};
use sockeye::{Alpn, Body, Client, Error, ErrorKind, Phase, Resolve, Sent, Timeouts};
use tokio::time::Instant;

use super::settle_in;

const SECOND: Duration = Duration::from_secs(1);

fn client(net: &MemNet) -> Client {
    Client::builder().connector(net.clone()).build().unwrap()
}

async fn text(client: &Client, url: &str) -> Result<String, Error> {
    client.get(url).send().await?.text().await
}

async fn path(request: Received) -> Reply {
    Reply::new(200, request.url.path().to_owned())
}

fn address(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

/// Several hosts, several addresses: which are tried, when, and what a dial that leads nowhere gives.
#[tokio::test(start_paused = true)]
async fn dials_lead_to_the_addresses_of_a_host() {
    let millis = Duration::from_millis;
    for (reaches, leads_to, after) in [
        (vec![Reach::Open], Ok(1), millis(0)),
        (vec![Reach::Refused, Reach::Open], Ok(2), millis(0)),
        (
            vec![Reach::BlackHole, Reach::Refused, Reach::Slow(SECOND)],
            Ok(3),
            millis(1250),
        ),
        (vec![Reach::Slow(SECOND), Reach::Open], Ok(2), millis(250)),
        (
            vec![Reach::Refused, Reach::Refused],
            Err((ErrorKind::Connect, Phase::Connect)),
            millis(0),
        ),
        (
            vec![Reach::BlackHole, Reach::Refused],
            Err((ErrorKind::Timeout, Phase::Connect)),
            10 * SECOND,
        ),
        (
            vec![Reach::Slow(11 * SECOND)],
            Err((ErrorKind::Timeout, Phase::Connect)),
            10 * SECOND,
        ),
    ] {
        let net = MemNet::new();
        let mut host = net.host("a.test");
        for (last, reach) in (1_u8..).zip(&reaches) {
            host = host.address(address(last), *reach);
        }
        host.serve(path);
        let client = client(&net);
        let begun = Instant::now();
        match (text(&client, "https://a.test/there").await, leads_to) {
            (Ok(there), Ok(last)) => {
                assert_eq!(there, "/there");
                assert_eq!(net.connections()[0].address(), address(last), "{reaches:?}");
                assert_eq!(net.attempts().last().unwrap().address, address(last));
            }
            (Err(error), Err(expected)) => {
                assert_eq!((error.kind(), error.phase().unwrap()), expected, "{error}");
                assert_eq!(error.sent(), Sent::Nothing);
                assert!(net.connections().is_empty());
            }
            (outcome, _) => panic!("{reaches:?}: {outcome:?}"),
        }
        assert_eq!(begun.elapsed(), after, "{reaches:?}");
        assert_eq!(net.attempts().len(), reaches.len());
        settle_in(&client, &net).await;
    }
}

/// A host that comes back, one that is not there, and connections that are kept.
#[tokio::test(start_paused = true)]
async fn hosts_change_and_connections_are_kept() {
    let net = MemNet::new();
    let a = net
        .host("a.test")
        .address(address(1), Reach::Refused)
        .serve(path);
    net.host("b.test").serve(path);
    let client = client(&net);
    let error = text(&client, "http://c.test/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(
        error.to_string().contains("no host called c.test"),
        "{error}"
    );
    text(&client, "http://a.test/").await.unwrap_err();
    let _ = a.address(address(1), Reach::Open);
    for _ in 0..3 {
        for url in ["http://a.test/", "http://b.test/", "http://b.test:81/"] {
            text(&client, url).await.unwrap();
        }
    }
    let seen: Vec<_> = net
        .connections()
        .iter()
        .map(|one| format!("{}:{}", one.host(), one.port()))
        .collect();
    assert_eq!(seen, ["a.test:80", "b.test:80", "b.test:81"]);
    assert!(
        net.connections()
            .iter()
            .all(|one| one.is_open() && one.sent() > 0 && one.received() > 0)
    );
    client.close(SECOND).await;
    assert!(net.connections().iter().all(|one| !one.is_open()));
    let found = net.resolve("a.test").await.unwrap();
    assert_eq!(found.addrs, [(address(1), 0).into()]);
    assert!(net.resolve("c.test").await.is_err());
}

/// What `GET /` to a host with this fault gives, and how long it takes.
async fn meets(side: Side, at: u64, fault: WireFault) -> (Result<String, Error>, Duration) {
    let net = MemNet::new();
    let body = "x".repeat(1000);
    net.host("a.test")
        .buffer(4096)
        .fault_once(side, at, fault)
        .serve(async move |_: Received| Reply::new(200, body.clone()));
    let timeouts = Timeouts::all(3 * SECOND);
    let client = Client::builder()
        .connector(net.clone())
        .timeouts(timeouts)
        .build()
        .unwrap();
    let begun = Instant::now();
    let outcome = text(&client, "http://a.test/").await;
    let elapsed = begun.elapsed();
    assert_eq!(
        text(&client, "http://a.test/").await.unwrap().len(),
        1000,
        "the next works: {fault:?}"
    );
    settle_in(&client, &net).await;
    (outcome, elapsed)
}

/// The head has 41 bytes: whatever strikes before its end strikes the head, else the body.
#[tokio::test(start_paused = true)]
async fn each_direction_breaks_at_its_byte() {
    use ErrorKind::{Io, Protocol, Timeout};
    for (side, at, fault, kind, phase) in [
        (Side::ToClient, 0, WireFault::Rst, Io, Phase::Head),
        (Side::ToClient, 0, WireFault::Eof, Io, Phase::Head),
        (Side::ToClient, 0, WireFault::Stall, Timeout, Phase::Head),
        (Side::ToClient, 20, WireFault::Rst, Io, Phase::Head),
        (Side::ToClient, 20, WireFault::Eof, Protocol, Phase::Head),
        (Side::ToClient, 20, WireFault::Stall, Timeout, Phase::Head),
        (Side::ToClient, 500, WireFault::Rst, Io, Phase::Read),
        (Side::ToClient, 500, WireFault::Eof, Protocol, Phase::Read),
        (Side::ToClient, 500, WireFault::Stall, Timeout, Phase::Read),
        (Side::ToPeer, 10, WireFault::Rst, Io, Phase::Head),
        (Side::ToPeer, 10, WireFault::Eof, Io, Phase::Head),
        (Side::ToPeer, 10, WireFault::Stall, Timeout, Phase::Head),
    ] {
        let (outcome, elapsed) = meets(side, at, fault).await;
        let error = outcome.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (kind, Some(phase)),
            "{side:?} {at} {fault:?}: {error}"
        );
        let limit = if kind == Timeout { 3 } else { 0 };
        assert_eq!(elapsed, limit * SECOND, "{side:?} {at} {fault:?}");
    }
}

/// What is only slow or in pieces changes nothing but the time.
#[tokio::test(start_paused = true)]
async fn pieces_and_pace() {
    let millis = Duration::from_millis;
    for (side, at, fault, least, most) in [
        (Side::ToClient, 0, WireFault::Split(1), 0, 0),
        (Side::ToClient, 41, WireFault::Split(7), 0, 0),
        (Side::ToPeer, 0, WireFault::Split(1), 0, 0),
        (Side::ToPeer, 0, WireFault::Split(0), 0, 0),
        (
            Side::ToClient,
            41,
            WireFault::Throttle {
                bytes: 100,
                every: millis(10),
            },
            100,
            110,
        ),
        (
            Side::ToClient,
            0,
            WireFault::Throttle {
                bytes: 1,
                every: millis(1),
            },
            1000,
            1100,
        ),
    ] {
        let (outcome, elapsed) = meets(side, at, fault).await;
        assert_eq!(outcome.unwrap().len(), 1000, "{fault:?}");
        assert!(
            elapsed >= millis(least) && elapsed <= millis(most),
            "{fault:?}: {elapsed:?}"
        );
    }
}

/// An upload meets a connection that takes no more of it.
#[tokio::test(start_paused = true)]
async fn an_upload_stalls_or_breaks() {
    for (fault, kind) in [
        (WireFault::Stall, ErrorKind::Timeout),
        (WireFault::Rst, ErrorKind::Io),
    ] {
        let net = MemNet::new();
        net.host("a.test")
            .buffer(1000)
            .fault(Side::ToPeer, 5000, fault)
            .serve(path);
        let client = client(&net);
        let request = client.post("http://a.test/").body(vec![b'x'; 100_000]);
        let error = request.send().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.sent(), Sent::Part, "{error}");
        settle_in(&client, &net).await;
    }
}

/// HTTP/2 without TLS, by a function and by the h2 crate's own server.
#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn http2_is_spoken_where_it_is_chosen() {
    let net = MemNet::new();
    net.host("a.test").alpn(Alpn::Http2).serve(path);
    let scripted = net.host("b.test").alpn(Alpn::Http2);
    tokio::spawn(async move {
        let mut session = h2::server::handshake(scripted.accept().await)
            .await
            .unwrap();
        while let Some(Ok((request, mut respond))) = session.accept().await {
            let mut stream = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            let path = request.uri().path().to_owned();
            stream.send_data(path.into(), true).unwrap();
        }
    });
    let client = client(&net);
    for host in ["a.test", "b.test"] {
        for _ in 0..2 {
            let response = client
                .get(format!("https://{host}/p"))
                .send()
                .await
                .unwrap();
            assert_eq!(response.version(), http::Version::HTTP_2);
            assert_eq!(response.text().await.unwrap(), "/p");
        }
    }
    let spoken: Vec<_> = net.connections().iter().map(|one| one.alpn()).collect();
    assert_eq!(spoken, [Alpn::Http2; 2]);
    settle_in(&client, &net).await;
}

/// A script sees each byte, and does what no function can.
#[tokio::test(start_paused = true)]
async fn a_script_is_the_server() {
    let net = MemNet::new();
    let host = net.host("a.test");
    let script = tokio::spawn(async move {
        let mut peer = host.accept().await;
        let head = peer.expect_head().await?;
        assert_eq!(
            (head.method.as_str(), head.url.path(), head.reused),
            ("PUT", "/film", false)
        );
        assert_eq!(head.header("content-length"), Some("4"));
        peer.send("HTTP/1.1 103 Early Hints\r\n\r\n").await?;
        assert_eq!(peer.expect_bytes(4).await?, "film");
        tokio::time::sleep(SECOND).await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await?;
        let again = peer.expect_request().await?;
        assert!(again.reused);
        assert_eq!(again.body, "more");
        peer.send("HTTP/1.1 200 OK\r\n\r\nuntil the end").await?;
        peer.shutdown().await?;
        peer.expect_close().await?;
        assert!(!peer.connection().is_open());
        let mut second = host.accept().await;
        assert_eq!(second.connection().number(), 1);
        second.expect_head().await?;
        second
            .send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
            .await?;
        second.reset();
        let mut third = host.accept().await;
        third.expect_head().await?;
        third.close();
        std::io::Result::Ok(())
    });
    let client = client(&net);
    let put = client.put("http://a.test/film").body("film");
    let response = put.send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "ok");
    let put = client
        .put("http://a.test/")
        .expect_continue(true)
        .body(Body::from("more"));
    assert_eq!(
        put.send().await.unwrap().text().await.unwrap(),
        "until the end"
    );
    let error = text(&client, "http://a.test/").await.unwrap_err();
    assert_eq!(
        error.io_kind(),
        Some(std::io::ErrorKind::ConnectionReset),
        "{error}"
    );
    let error = text(&client, "http://a.test/").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Io, Some(Phase::Head)),
        "{error}"
    );
    script.await.unwrap().unwrap();
    settle_in(&client, &net).await;
}

/// A connection that the peer gives up while it is idle is not used again; one that is reset neither.
#[tokio::test(start_paused = true)]
async fn idle_connections_end() {
    for how in [
        sockeye::test::Connected::close,
        sockeye::test::Connected::reset,
    ] {
        let net = MemNet::new();
        net.host("a.test").serve(path);
        let client = client(&net);
        let post = || client.post("http://a.test/").body("once").send();
        post().await.unwrap().bytes().await.unwrap();
        how(&net.connections()[0]);
        post().await.unwrap().bytes().await.unwrap();
        assert_eq!(net.connections().len(), 2);
        net.connections()[0].closed().await;
        settle_in(&client, &net).await;
    }
}
