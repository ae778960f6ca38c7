//! What goes beyond one request and one answer: interim responses, bodies that wait to be asked for, trailers of requests, and
//! connections that are handed over to another protocol or as a tunnel.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use sockeye::stats::{CloseCause, RetryCause};
use sockeye::{Body, Client, ErrorKind, Phase, Response, Result, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::peer::{World, let_others_run, ok, reply, settle};
use crate::support::streams::fed;

const URL: &str = "http://peer.test/";
const SECOND: Duration = Duration::from_secs(1);

fn send(request: sockeye::RequestBuilder) -> JoinHandle<Result<Response>> {
    tokio::spawn(request.send())
}

fn post(client: &Client, body: impl Into<Body>) -> JoinHandle<Result<Response>> {
    send(client.post(URL).body(body).expect_continue(true))
}

/// http1 a4: every interim response is told of, in order and with its fields, and none is the answer.
#[tokio::test(start_paused = true)]
async fn interim_responses_are_told_of() {
    let world = World::new();
    let client = world.client();
    let told = Arc::new(Mutex::new(Vec::new()));
    let call = send(client.get(URL).on_informational({
        let told = Arc::clone(&told);
        move |interim| {
            let links = interim.headers().get_all("link").iter();
            let links: Vec<_> = links
                .map(|link| link.to_str().unwrap().to_owned())
                .collect();
            told.lock()
                .unwrap()
                .push((interim.status().as_u16(), links));
        }
    }));
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection
        .write_slowly(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\n\r\n")
        .await;
    assert_eq!(
        told.lock().unwrap().len(),
        1,
        "told before the answer is there"
    );
    connection
        .write("HTTP/1.1 102 P\r\nContent-Length: 5\r\n\r\n")
        .await;
    connection.write(ok("done")).await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.text().await.unwrap(), "done");
    let told = told.lock().unwrap().clone();
    let links = vec!["</a>".to_owned(), "</b>".to_owned()];
    assert_eq!(told, [(103, links), (102, vec![])]);
    settle(&client, &world).await;
}

/// http1 a4: the body goes out when the server asks for it, and not before.
#[tokio::test(start_paused = true)]
async fn a_body_waits_for_100() {
    let (feed, stream) = fed();
    feed.give("stream");
    drop(feed);
    for body in [
        Body::from("hello"),
        Body::from(vec![b'x'; 100_000]),
        Body::stream(stream),
    ] {
        let world = World::new();
        let client = world.client();
        let started = Instant::now();
        let call = post(&client, body);
        let mut connection = world.accept().await;
        let head = connection.read_head().await.unwrap();
        assert_eq!(head.field("expect"), Some("100-continue"));
        let_others_run().await;
        assert!(!connection.has_input().await, "the body is held");
        connection.write("HTTP/1.1 100 Continue\r\n\r\n").await;
        let request = connection.read_body(head).await.unwrap();
        assert!(!request.body.is_empty());
        connection.write(ok("thanks")).await;
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.text().await.unwrap(), "thanks");
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(
            client.stats().total.connections_idle,
            1,
            "it can be used again"
        );
        settle(&client, &world).await;
    }
}

/// A server that does not know the expectation gets the body after a second; an interim response that is not 100 changes
/// nothing.
#[tokio::test(start_paused = true)]
async fn a_body_waits_for_a_second_at_most() {
    for interim in ["", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let world = World::new();
        let client = world.client();
        let started = Instant::now();
        let call = post(&client, "hello");
        let mut connection = world.accept().await;
        let head = connection.read_head().await.unwrap();
        connection.write(interim).await;
        let request = connection.read_body(head).await.unwrap();
        assert_eq!(started.elapsed().as_millis() / 10, 100);
        assert_eq!(request.body, b"hello");
        connection.write("HTTP/1.1 100 Late\r\n\r\n").await;
        connection.write(ok("")).await;
        call.await.unwrap().unwrap();
        settle(&client, &world).await;
    }
}

/// http1 a4, CVE-2024-24791: after a final answer the body is not sent, and the connection closes.
#[tokio::test(start_paused = true)]
async fn a_final_answer_instead_of_100_ends_the_exchange() {
    for status in ["200 OK", "302 Found", "401 Unauthorized"] {
        let world = World::new();
        let client = world.client();
        let request = client.post(URL).body("hello").expect_continue(true);
        let call = send(request.error_for_status(false));
        let mut connection = world.accept().await;
        connection.read_head().await.unwrap();
        connection.write(reply(status, "", "no")).await;
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.text().await.unwrap(), "no");
        assert!(
            connection.read_to_end().await.is_empty(),
            "no body was sent"
        );
        let closed = client.stats().total.connections_closed;
        assert_eq!(closed.get(CloseCause::EarlyResponse), 1, "{closed:?}");
        settle(&client, &world).await;
    }
}

/// http1 a4: 417 makes the request come once more without the expectation.
#[tokio::test(start_paused = true)]
async fn after_417_the_request_comes_without_the_expectation() {
    let (feed, stream) = fed();
    feed.give("hello");
    drop(feed);
    for body in [Body::from("hello"), Body::stream(stream)] {
        let world = World::new();
        let client = world.client();
        let call = post(&client, body);
        let mut connection = world.accept().await;
        connection.read_head().await.unwrap();
        connection
            .write(reply("417 Expectation Failed", "", ""))
            .await;
        let mut connection = world.accept().await;
        let request = connection.read_request().await;
        assert_eq!(request.field("expect"), None);
        assert_eq!(request.body, b"hello");
        connection.write(ok("")).await;
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.attempts(), 2);
        let causes = client.stats().total.retry_causes;
        assert_eq!(causes.get(RetryCause::ExpectationRefused), 1);
        settle(&client, &world).await;
    }
}

/// A 417 that comes again, or after the body was asked for, is an answer.
#[tokio::test(start_paused = true)]
async fn a_second_417_is_the_answer() {
    let world = World::new();
    let client = world.client();
    let call = post(&client, "hello");
    for _ in 0..2 {
        let mut connection = world.accept().await;
        connection.read_head().await.unwrap();
        connection
            .write(reply("417 Expectation Failed", "", "never"))
            .await;
    }
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(
        error.status(),
        Some(StatusCode::EXPECTATION_FAILED),
        "{error}"
    );
    assert_eq!(world.accepts(), 2);
    settle(&client, &world).await;

    let world = World::new();
    let client = world.client();
    let (feed, stream) = fed();
    let call = post(&client, Body::stream(stream));
    let mut connection = world.accept().await;
    connection.read_head().await.unwrap();
    connection.write("HTTP/1.1 100 Continue\r\n\r\n").await;
    feed.give("part");
    assert_eq!(connection.read_chunk().await.unwrap(), b"part");
    connection
        .write(reply("417 Expectation Failed", "", ""))
        .await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(
        error.status(),
        Some(StatusCode::EXPECTATION_FAILED),
        "{error}"
    );
    assert_eq!(error.attempts(), 1);
    settle(&client, &world).await;
}

/// The other limits hold while a body waits.
#[tokio::test(start_paused = true)]
async fn a_held_body_does_not_outlast_the_limits() {
    let world = World::new();
    let client = world.client();
    let started = Instant::now();
    let request = client.post(URL).body("hello").expect_continue(true);
    let limits = Timeouts::none().with_total(Some(SECOND / 2));
    let call = send(request.timeouts(limits));
    let mut connection = world.accept().await;
    connection.read_head().await.unwrap();
    let error = call.await.unwrap().unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(error.phase(), Some(Phase::Head));
    assert_eq!(started.elapsed().as_millis() / 10, 50);
    assert!(connection.read_to_end().await.is_empty());
    settle(&client, &world).await;
}

/// A request without a body is not held up, and does not say that it would be.
#[tokio::test(start_paused = true)]
async fn without_a_body_there_is_nothing_to_expect() {
    let world = World::new();
    let client = world.client();
    let call = send(client.get(URL).expect_continue(true));
    let mut connection = world.accept().await;
    assert_eq!(connection.read_request().await.field("expect"), None);
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    settle(&client, &world).await;
}

/// http1 a4: after 101 the connection is the caller's, with the bytes that came behind the head.
#[tokio::test(start_paused = true)]
async fn a_connection_is_upgraded() {
    let world = World::new();
    let client = world.client();
    let call = send(client.get(URL).upgrade("websocket, echo"));
    let mut connection = world.accept().await;
    let request = connection.read_request().await;
    assert_eq!(request.field("upgrade"), Some("websocket, echo"));
    assert_eq!(request.field("connection"), Some("upgrade"));
    connection
        .write("HTTP/1.1 103 Hi\r\n\r\nHTTP/1.1 101 Go\r\nUpgrade: Echo\r\nConnection: Upgrade\r\n\r\nfirst")
        .await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.header("upgrade"), Some("Echo"));
    let mut stream = response.upgrade().unwrap();
    let mut word = [0; 3];
    for expected in ["fir", "st "] {
        if expected == "st " {
            connection.write(" second").await;
        }
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(word, expected.as_bytes());
    }
    stream.write_all(b"back").await.unwrap();
    assert_eq!(connection.take(4).await.unwrap(), b"back");
    let total = client.stats().total;
    assert_eq!(total.connections_active, 1, "it counts while it is open");
    assert_eq!(total.connections_closed.get(CloseCause::Upgraded), 1);
    drop(stream);
    connection.closed().await;
    settle(&client, &world).await;
}

/// The other protocol begins behind the request, however early the server answers (RFC 9110 section 7.8).
#[tokio::test(start_paused = true)]
async fn a_request_is_sent_whole_before_its_connection_is_upgraded() {
    for broken in [false, true] {
        let world = World::new();
        let client = world.client();
        let (feed, body) = fed();
        let call = send(client.post(URL).upgrade("echo").body(Body::stream(body)));
        let mut connection = world.accept().await;
        connection.read_head().await.unwrap();
        connection
            .write("HTTP/1.1 101 Go\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nfirst")
            .await;
        let_others_run().await;
        assert!(!call.is_finished(), "the request is not sent");
        if broken {
            connection.close();
            feed.give("nobody takes it");
            let error = call.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        } else {
            feed.give("rest");
            drop(feed);
            let mut stream = call.await.unwrap().unwrap().upgrade().unwrap();
            stream.write_all(b"back").await.unwrap();
            for chunk in ["rest", ""] {
                assert_eq!(connection.read_chunk().await.unwrap(), chunk.as_bytes());
            }
            assert_eq!(connection.take(4).await.unwrap(), b"back");
            let mut first = [0; 5];
            stream.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"first");
        }
        settle(&client, &world).await;
    }
}

/// A 101 must be one that was asked for.
#[tokio::test(start_paused = true)]
async fn a_101_to_something_else_is_refused() {
    for (asked, head) in [
        (None, "101 Go\r\nUpgrade: echo\r\nConnection: upgrade"),
        (
            Some("echo"),
            "101 Go\r\nUpgrade: other\r\nConnection: upgrade",
        ),
        (Some("echo"), "101 Go\r\nUpgrade: echo"),
        (Some("echo"), "101 Go\r\nConnection: upgrade"),
    ] {
        let world = World::new();
        let client = world.client();
        let request = client.get(URL);
        let call = send(match asked {
            Some(asked) => request.upgrade(asked),
            None => request,
        });
        let mut connection = world.accept().await;
        connection.read_request().await;
        connection.write(format!("HTTP/1.1 {head}\r\n\r\n")).await;
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{head}");
        assert!(error.to_string().contains("101"), "{error}");
        connection.closed().await;
        settle(&client, &world).await;
    }
}

/// A server may refuse: then it is an ordinary response on an ordinary connection.
#[tokio::test(start_paused = true)]
async fn an_upgrade_may_be_refused() {
    let world = World::new();
    let client = world.client();
    let call = send(client.get(URL).upgrade("echo"));
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection.write(ok("no")).await;
    let response = call.await.unwrap().unwrap();
    let error = response.upgrade().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("200"), "{error}");
    assert_eq!(client.stats().total.connections_idle, 1);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn protocols_are_checked_before_anything_is_sent() {
    let world = World::new();
    let client = world.client();
    for protocols in ["", "a b", "a\r\nx: y"] {
        let error = client.get(URL).upgrade(protocols).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains("upgrade"), "{error}");
    }
    assert_eq!(world.dials(), 0);
}

/// http1 a2.2: what follows a 2xx to CONNECT is the tunnel's, whatever its fields say.
#[tokio::test(start_paused = true)]
async fn connect_opens_a_tunnel() {
    let world = World::new();
    let client = world.client();
    let call = send(client.request(Method::CONNECT, "http://peer.test"));
    let mut connection = world.accept().await;
    let head = connection.read_request().await.head;
    assert!(
        head.starts_with("CONNECT peer.test:80 HTTP/1.1\r\nhost: peer.test:80\r\n"),
        "{head}"
    );
    connection
        .write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\nthrough")
        .await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.content_length(), Some(0));
    let mut stream = response.upgrade().unwrap();
    connection.write(" the tunnel").await;
    drop(connection);
    let mut read = String::new();
    stream.read_to_string(&mut read).await.unwrap();
    assert_eq!(read, "through the tunnel");
    drop(stream);
    settle(&client, &world).await;
}

/// Any other status of CONNECT is an ordinary response.
#[tokio::test(start_paused = true)]
async fn connect_may_be_refused() {
    let world = World::new();
    let client = world.client();
    let call = send(client.request(Method::CONNECT, "http://peer.test"));
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection.write(reply("407 Who Are You", "", "say")).await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(&error.status_error().unwrap().body[..], b"say");
    assert_eq!(client.stats().total.connections_idle, 1);
    settle(&client, &world).await;
}

/// A response that is dropped instead of upgraded closes its connection.
#[tokio::test(start_paused = true)]
async fn a_switched_connection_that_nobody_takes_closes() {
    let world = World::new();
    let client = world.client();
    let call = send(client.get(URL).upgrade("echo"));
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection
        .write("HTTP/1.1 101 Go\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n")
        .await;
    let response = call.await.unwrap().unwrap();
    assert!(response.bytes().await.unwrap().is_empty());
    connection.closed().await;
    settle(&client, &world).await;
}

/// http1 a3, a6: what a response brought as trailers, a request can take along.
#[tokio::test(start_paused = true)]
async fn trailers_of_a_request() {
    let world = World::new();
    let client = world.client();
    let call = send(client.get(URL));
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection
        .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n")
        .await;
    let body = call.await.unwrap().unwrap().into_body();
    // Of unknown length, as a stream that was not read yet is.
    let call = send(client.put(URL).body(Body::wrap(Unsized(body))));
    let head = connection.read_head().await.unwrap();
    assert_eq!(head.field("transfer-encoding"), Some("chunked"));
    let wire = connection.take_through(b"\r\n\r\n").await.unwrap();
    assert_eq!(wire, b"3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n");
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    settle(&client, &world).await;
}

/// A body that does not say how long it is.
struct Unsized(Body);

impl http_body::Body for Unsized {
    type Data = Bytes;
    type Error = sockeye::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }
}
