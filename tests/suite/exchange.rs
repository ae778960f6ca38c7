//! One request and its response: uploads, downloads, JSON, heads, and what the types of the interface do.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use sockeye::stats::CloseCause;
use sockeye::{Body, Client, ErrorKind, HeaderMap, Method, Phase, Response, Sent, StatusCode};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::support::faults::Faults;
use crate::support::peer::{PeerConnection, World, let_others_run, ok, reply, settle, until};
use crate::support::streams::{Pieces, fed, within_polls};

const URL: &str = "http://peer.test/";

#[cfg(feature = "json")]
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct User {
    name: String,
    age: u32,
}

// ---- uploads

#[tokio::test(start_paused = true)]
async fn bytes_are_sent_with_their_length() {
    for size in [1, 4096, 4097, 20_000, 3 * 1024 * 1024] {
        let world = World::new();
        world.buffer(10_000);
        let client = world.client();
        world.serve(move |request| {
            assert_eq!(request.field("content-length"), Some(&*size.to_string()));
            assert!(request.field("transfer-encoding").is_none());
            let right = request.body.len() == size && request.body.iter().all(|byte| *byte == b'x');
            ok(if right { "right" } else { "wrong" })
        });
        for _ in 0..2 {
            let response = client.put(URL).body(vec![b'x'; size]).send().await.unwrap();
            assert_eq!(response.text().await.unwrap(), "right", "{size}");
        }
        assert_eq!(world.accepts(), 1);
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_sent_in_chunks() {
    let world = World::new();
    world.buffer(10_000);
    let client = world.client();
    world.serve(|request| {
        assert_eq!(request.field("transfer-encoding"), Some("chunked"));
        assert!(request.field("content-length").is_none());
        assert!(request.raw.ends_with(b"0\r\n\r\n"));
        ok(&request.body.len().to_string())
    });
    for (count, size) in [(0, 1), (1, 1), (1000, 1), (10, 5000), (3, 100_000)] {
        let (pieces, taken) = Pieces::new(count, size);
        let response = client.post(URL).body(Body::stream(pieces)).send();
        let text = response.await.unwrap().text().await.unwrap();
        assert_eq!(text, (count * size).to_string());
        assert_eq!(taken.load(std::sync::atomic::Ordering::SeqCst), count);
    }
    assert_eq!(world.accepts(), 1);
    settle(&client, &world).await;
}

/// As a chunk, an empty piece would end the body.
#[tokio::test(start_paused = true)]
async fn an_empty_piece_is_no_last_chunk() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| ok(&String::from_utf8_lossy(&request.body)));
    let (feed, body) = fed();
    for piece in ["", "one", "", "", "two", ""] {
        feed.give(piece);
    }
    drop(feed);
    let response = client.post(URL).body(Body::stream(body)).send().await;
    assert_eq!(response.unwrap().text().await.unwrap(), "onetwo");
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_sized_stream_is_sent_with_its_length() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| {
        assert_eq!(request.field("content-length"), Some("50"));
        ok(&String::from_utf8_lossy(&request.body))
    });
    let (pieces, _) = Pieces::new(10, 5);
    let response = client.post(URL).body(Body::sized_stream(50, pieces)).send();
    assert_eq!(
        response.await.unwrap().text().await.unwrap(),
        "x".repeat(50)
    );
    settle(&client, &world).await;
}

/// Pieces are written as they come: the peer sees the first before there is a second.
#[tokio::test(start_paused = true)]
async fn a_piece_does_not_wait_for_the_next() {
    let world = World::new();
    let client = world.client();
    let (feed, body) = fed();
    let call = tokio::spawn(client.post(URL).body(Body::stream(body)).send());
    let mut connection = world.accept().await;
    connection.read_head().await.unwrap();
    for piece in ["first", "second"] {
        feed.give(piece);
        assert_eq!(connection.read_chunk().await.unwrap(), piece.as_bytes());
    }
    drop(feed);
    assert_eq!(connection.read_chunk().await.unwrap(), b"");
    connection.write(ok("fine")).await;
    assert_eq!(call.await.unwrap().unwrap().text().await.unwrap(), "fine");
    settle(&client, &world).await;
}

/// The body is polled only while the connection takes more.
#[tokio::test(start_paused = true)]
async fn a_stream_is_not_read_ahead_of_the_connection() {
    let world = World::new();
    world.buffer(1000);
    let client = world.client();
    let (pieces, taken) = Pieces::new(100, 10_000);
    let call = tokio::spawn(client.post(URL).body(Body::stream(pieces)).send());
    let mut connection = world.accept().await;
    let_others_run().await;
    let ahead = taken.load(std::sync::atomic::Ordering::SeqCst);
    assert!(
        ahead <= 3,
        "{ahead} pieces were taken for a peer that reads none"
    );
    let request = connection.read_request().await;
    assert_eq!(request.body.len(), 1_000_000);
    connection.write(ok("fine")).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    settle(&client, &world).await;
}

async fn broken_stream(length: Option<u64>, give: usize, fail: bool) -> (sockeye::Error, Vec<u8>) {
    let world = World::new();
    let client = world.client();
    let (feed, body) = fed();
    for _ in 0..give {
        feed.give("12345");
    }
    if fail {
        feed.fail("the disk is gone");
    }
    drop(feed);
    let body = match length {
        Some(length) => Body::sized_stream(length, body),
        None => Body::stream(body),
    };
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_head().await;
            connection.read_to_end().await
        }
    });
    let error = client.post(URL).body(body).send().await.unwrap_err();
    let sent = peer.await.unwrap();
    settle(&client, &world).await;
    let total = client.stats().total;
    assert_eq!(total.errors.get(ErrorKind::Body), 1);
    assert_eq!(total.connections_idle, 0);
    (error, sent)
}

#[tokio::test(start_paused = true)]
async fn a_sized_stream_that_is_too_short_fails() {
    let (error, sent) = broken_stream(Some(20), 3, false).await;
    assert_eq!(error.kind(), ErrorKind::Body);
    assert!(error.is_body());
    assert_eq!(error.phase(), Some(Phase::Write));
    assert!(error.to_string().contains('5'), "what is missing: {error}");
    assert!(sent.len() <= 15);
}

#[tokio::test(start_paused = true)]
async fn a_sized_stream_that_is_too_long_fails_before_the_byte_is_sent() {
    let (error, sent) = broken_stream(Some(12), 3, false).await;
    assert_eq!(error.kind(), ErrorKind::Body);
    assert!(error.to_string().contains("more bytes"), "{error}");
    assert!(sent.len() <= 12, "{}", sent.len());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_stream_ends_the_call_without_a_last_chunk() {
    let (error, sent) = broken_stream(None, 2, true).await;
    assert_eq!(error.kind(), ErrorKind::Body);
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert!(!error.is_retryable());
    let sent = String::from_utf8(sent).unwrap();
    assert!(!sent.contains("0\r\n"), "{sent:?}");
}

/// Nothing was sent, and the stream failed at once: the error is still the stream's.
#[tokio::test(start_paused = true)]
async fn an_error_of_the_stream_at_once() {
    let (error, _) = broken_stream(Some(5), 0, true).await;
    assert_eq!(error.kind(), ErrorKind::Body);
    assert!(error.to_string().contains("the disk is gone"), "{error}");
}

/// pool.md test 27, R-REL-3: the reply is read although the upload is stuck.
#[tokio::test(start_paused = true)]
async fn t27_a_413_while_an_upload_blocks_is_seen() {
    for streamed in [false, true] {
        let world = World::new();
        world.buffer(16 * 1024);
        let client = world.client();
        let started = Instant::now();
        let body = if streamed {
            Body::stream(Pieces::new(1024, 10 * 1024).0)
        } else {
            Body::from(vec![b'x'; 10 * 1024 * 1024])
        };
        let peer = tokio::spawn({
            let world = world.clone();
            async move {
                let mut connection = world.accept().await;
                connection.read_head().await;
                connection
                    .write(reply("413 Content Too Large", "", "too much"))
                    .await;
                connection.read_to_end().await.len()
            }
        });
        let error = client.post(URL).body(body).send().await.unwrap_err();
        assert_eq!(error.status(), Some(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(&error.status_error().unwrap().body[..], b"too much");
        assert_eq!(started.elapsed(), Duration::ZERO, "nobody waited");
        let rest = peer.await.unwrap();
        assert!(rest < 64 * 1024, "the upload went on for {rest} bytes");
        let total = client.stats().total;
        assert_eq!(total.connections_idle, 0);
        assert_eq!(total.connections_closed.get(CloseCause::EarlyResponse), 1);
        settle(&client, &world).await;
    }
}

/// An early reply with a large body is read to its end, though the upload was given up.
#[tokio::test(start_paused = true)]
async fn an_early_error_with_a_large_body_is_delivered_whole() {
    let world = World::new();
    world.buffer(8 * 1024);
    let client = world.client();
    let (feed, body) = fed();
    feed.give("a beginning");
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_head().await;
            let body = "y".repeat(100_000);
            connection.write(reply("403 Forbidden", "", &body)).await;
            connection.read_to_end().await;
        }
    });
    let response = client
        .post(URL)
        .error_for_status(false)
        .body(Body::stream(body))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 403);
    assert!(feed.is_dropped(), "the upload is given up with the head");
    assert_eq!(response.bytes().await.unwrap().len(), 100_000);
    peer.await.unwrap();
    assert_eq!(client.stats().total.connections_idle, 0);
    settle(&client, &world).await;
}

/// An error behind an early reply says that the request went only in part: the upload was given up, or never begun.
#[tokio::test(start_paused = true)]
async fn an_upload_that_was_given_up_is_not_all_sent() {
    for held in [false, true] {
        let world = World::new();
        let client = world.client();
        let (feed, body) = fed();
        feed.give("a beginning");
        let request = client.post(URL).body(Body::stream(body));
        let request = request.error_for_status(false).expect_continue(held);
        let call = tokio::spawn(request.send());
        let mut connection = world.accept().await;
        connection.read_head().await.unwrap();
        connection
            .write("HTTP/1.1 403 Forbidden\r\ncontent-length: 10\r\n\r\nhalf")
            .await;
        let response = call.await.unwrap().unwrap();
        connection.close();
        let error = response.bytes().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.sent()),
            (ErrorKind::Protocol, Sent::Part),
            "{error}"
        );
        settle(&client, &world).await;
    }
}

/// `Connection: close` in an early reply stops the upload as an error status does.
#[tokio::test(start_paused = true)]
async fn an_early_reply_with_close_stops_the_upload() {
    let world = World::new();
    let client = world.client();
    let (feed, body) = fed();
    feed.give("a beginning");
    let call = tokio::spawn(client.post(URL).body(Body::stream(body)).send());
    let mut connection = world.accept().await;
    connection.read_head().await.unwrap();
    connection
        .write(reply("200 OK", "connection: close\r\n", "enough"))
        .await;
    let response = call.await.unwrap().unwrap();
    assert!(feed.is_dropped());
    assert_eq!(response.text().await.unwrap(), "enough");
    connection.read_to_end().await;
    settle(&client, &world).await;
}

/// An early 200 does not stop the upload: what is left of it is driven by the reads of the body (ruling 6).
#[tokio::test(start_paused = true)]
async fn an_echo_runs_both_ways_at_once() {
    let world = World::new();
    let client = world.client();
    let (feed, body) = fed();
    tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_head().await.unwrap();
            connection
                .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            loop {
                let chunk = connection.read_chunk().await.unwrap();
                connection.write(format!("{:x}\r\n", chunk.len())).await;
                connection.write(&chunk).await;
                connection.write("\r\n").await;
                if chunk.is_empty() {
                    break;
                }
            }
            while connection.next_request().await.is_some() {
                connection.write(ok("again")).await;
            }
        }
    });
    let mut response = client
        .post(URL)
        .body(Body::stream(body))
        .send()
        .await
        .unwrap();
    for piece in ["one", "two", "three"] {
        feed.give(piece);
        assert_eq!(response.chunk().await.unwrap().unwrap(), piece);
    }
    drop(feed);
    assert_eq!(response.chunk().await.unwrap(), None);
    drop(response);
    // The upload was finished before the body ended, so the connection is clean.
    let again = client.get(URL).send().await.unwrap();
    assert!(again.reused());
    drop(again);
    settle(&client, &world).await;
}

/// A large echo over a narrow connection: neither direction waits for the other to finish.
#[tokio::test(start_paused = true)]
async fn a_large_echo_does_not_lock_up() {
    let world = World::new();
    world.buffer(4 * 1024);
    let client = world.client();
    tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_head().await.unwrap();
            connection
                .write("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
                .await;
            let mut left = 1_000_000;
            while left > 0 {
                let part = connection.take(left.min(1000)).await.unwrap();
                left -= part.len();
                connection.write(&part).await;
            }
            connection.read_to_end().await
        }
    });
    let started = Instant::now();
    let response = client
        .post(URL)
        .body(vec![b'x'; 1_000_000])
        .send()
        .await
        .unwrap();
    assert_eq!(response.bytes().await.unwrap().len(), 1_000_000);
    assert_eq!(started.elapsed(), Duration::ZERO);
    settle(&client, &world).await;
}

/// The response ended before the request did: the connection is not used again.
#[tokio::test(start_paused = true)]
async fn a_response_that_ends_before_its_request_costs_the_connection() {
    for reply in [
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let world = World::new();
        let client = world.client();
        let (feed, body) = fed();
        feed.give("a beginning");
        let call = tokio::spawn(client.post(URL).body(Body::stream(body)).send());
        let mut connection = world.accept().await;
        connection.read_head().await.unwrap();
        connection.read_chunk().await.unwrap();
        connection.write(reply).await;
        let response = call.await.unwrap().unwrap();
        assert!(response.bytes().await.unwrap().len() <= 2);
        connection.closed().await;
        assert!(feed.is_dropped());
        assert_eq!(client.stats().total.connections_idle, 0, "{reply:?}");
        settle(&client, &world).await;
    }
}

/// The body fails while the response is read: the reader hears of it.
#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_behind_an_early_head_fails_the_body() {
    let world = World::new();
    let client = world.client();
    let (feed, body) = fed();
    let call = tokio::spawn(client.post(URL).body(Body::stream(body)).send());
    let mut connection = world.accept().await;
    connection.read_head().await.unwrap();
    connection
        .write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let mut response = call.await.unwrap().unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "half");
    feed.fail("the disk is gone");
    let error = response.chunk().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body);
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    drop(response);
    connection.closed().await;
    settle(&client, &world).await;
}

/// A write that fails is explained by what the peer said before it closed.
#[tokio::test(start_paused = true)]
async fn a_reply_wins_over_a_failed_write() {
    let world = World::new();
    world.faults(Faults {
        break_after_writing: Some(10_000),
        ..Faults::default()
    });
    let client = world.client();
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_head().await;
            connection
                .write(reply("507 Insufficient Storage", "", "full"))
                .await;
            connection.read_to_end().await;
        }
    });
    let error = client
        .put(URL)
        .body(vec![b'x'; 100_000])
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 507);
    assert_eq!(&error.status_error().unwrap().body[..], b"full");
    peer.await.unwrap();
    settle(&client, &world).await;
}

/// Without a reply the failed write is what went wrong; part of the request was sent, so nothing is sent again.
#[tokio::test(start_paused = true)]
async fn a_failed_write_without_a_reply_is_an_io_error() {
    let world = World::new();
    world.faults(Faults {
        break_after_writing: Some(10_000),
        ..Faults::default()
    });
    let client = world.client();
    let peer = tokio::spawn({
        let world = world.clone();
        async move { world.accept().await.take(10_000).await }
    });
    let error = client
        .put(URL)
        .body(vec![b'x'; 100_000])
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(error.phase(), Some(Phase::Write));
    assert_eq!(error.sent(), Sent::Part);
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::BrokenPipe));
    assert_eq!(world.accepts(), 1);
    peer.await.unwrap();
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_within_a_body_is_an_io_error() {
    let world = World::new();
    world.faults(Faults {
        reset_after_reading: Some(60),
        ..Faults::default()
    });
    let client = world.client();
    world.serve(|_| ok(&"x".repeat(1000)));
    let mut response = client.get(URL).send().await.unwrap();
    let error = loop {
        match response.chunk().await {
            Ok(chunk) => assert!(chunk.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(error.phase(), Some(Phase::Read));
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::ConnectionReset));
    assert_eq!(client.stats().total.errors.get(ErrorKind::Io), 1);
    drop(response);
    settle(&client, &world).await;
}

/// Writes of one byte at a time change nothing but their number.
#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_one_byte_at_a_time() {
    let world = World::new();
    world.faults(Faults {
        largest_write: Some(1),
        ..Faults::default()
    });
    let client = world.client();
    world.serve(|request| ok(&String::from_utf8_lossy(&request.body)));
    let large = "x".repeat(6000);
    let response = client.put(URL).body(large.clone()).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), large);
    let (pieces, _) = Pieces::new(2, 5000);
    let response = client.put(URL).body(Body::stream(pieces)).send().await;
    assert_eq!(response.unwrap().text().await.unwrap().len(), 10_000);
    assert_eq!(world.accepts(), 1);
    settle(&client, &world).await;
}

// ---- downloads

/// Answers every request of a connection with the same bytes, whole or one by one.
async fn answer_all(mut connection: PeerConnection, bytes: &str, slowly: bool) {
    while connection.next_request().await.is_some() {
        if slowly {
            assert!(connection.write_slowly(bytes.as_bytes()).await);
        } else {
            connection.write(bytes).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_come_as_they_arrive() {
    let world = World::new();
    let client = world.client();
    let call = tokio::spawn(client.get(URL).send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection
        .write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n")
        .await;
    let mut response = call.await.unwrap().unwrap();
    for piece in ["ab", "c", "def"] {
        connection.write(piece).await;
        assert_eq!(response.chunk().await.unwrap().unwrap(), piece);
        assert_eq!(response.content_length(), Some(6));
    }
    // The connection is back with the last byte, not with the end that is read after it (pool R-REL-4).
    assert_eq!(client.stats().total.connections_idle, 1);
    assert_eq!(response.chunk().await.unwrap(), None);
    assert_eq!(response.chunk().await.unwrap(), None);
    settle(&client, &world).await;
}

/// Dropping a read loses nothing.
#[tokio::test(start_paused = true)]
async fn a_read_can_be_dropped_and_begun_again() {
    let world = World::new();
    let client = world.client();
    let call = tokio::spawn(client.get(URL).send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection
        .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let mut response = call.await.unwrap().unwrap();
    let mut got = Vec::new();
    for byte in b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n" {
        assert!(within_polls(1, response.chunk()).await.is_none());
        connection.write([*byte]).await;
        if let Some(chunk) = within_polls(1, response.chunk()).await {
            got.extend(chunk.unwrap().into_iter().flatten());
        }
    }
    assert_eq!(got, b"hello world");
    drop(response);
    connection.close();
    client.close_idle();
    settle(&client, &world).await;
}

/// It is the same before the body was read, while it is, and after it, and whether the body came at once or not.
#[tokio::test(start_paused = true)]
async fn content_length_is_what_the_head_says() {
    fn chunked(size: usize, trailers: &str) -> String {
        let body = "x".repeat(size);
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n{trailers}\r\n"
        )
    }
    let world = World::new();
    let client = world.client();
    world.serve(|request| match (request.method(), request.target()) {
        ("HEAD", _) => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_owned(),
        (_, "/kept") => ok("hello"),
        (_, "/twice") => "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello".to_owned(),
        (_, "/large") => ok(&"x".repeat(100_000)),
        (_, "/chunked") => chunked(50_000, ""),
        (_, "/small-chunked") => chunked(5, ""),
        (_, "/empty-chunked") => {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()
        }
        (_, "/trailers") => chunked(50_000, "x: y\r\n"),
        (_, "/small-trailers") => chunked(5, "x: y\r\n"),
        _ => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
    });
    for (method, path, length) in [
        (Method::GET, "kept", Some(5)),
        (Method::HEAD, "kept", Some(5)),
        (Method::GET, "twice", Some(5)),
        (Method::GET, "large", Some(100_000)),
        (Method::GET, "chunked", None),
        (Method::GET, "small-chunked", None),
        (Method::GET, "empty-chunked", None),
        (Method::GET, "trailers", None),
        (Method::GET, "small-trailers", None),
        (Method::GET, "none", Some(0)),
    ] {
        for as_map in [false, true] {
            let call = client.request(method.clone(), format!("{URL}{path}"));
            let mut response = call.send().await.unwrap();
            if as_map {
                assert!(!response.headers().contains_key("x"));
            }
            assert_eq!(response.content_length(), length, "{method} {path}");
            while response.chunk().await.unwrap().is_some() {
                assert_eq!(response.content_length(), length, "{method} {path}");
            }
            assert_eq!(response.content_length(), length, "{method} {path}");
            let trailers = response.trailers().await.unwrap();
            assert_eq!(trailers.is_some(), path.ends_with("trailers"), "{path}");
            assert_eq!(response.content_length(), length, "{method} {path}");
        }
    }
    settle(&client, &world).await;
    // One that did not come over a connection has no head of its own: it is as long as its body then was.
    let (feed, stream) = fed();
    drop(feed);
    for (body, length) in [(Body::from("hello"), Some(5)), (Body::stream(stream), None)] {
        let mut response = Response::from(http::Response::new(body));
        for _ in 0..2 {
            assert_eq!(response.content_length(), length);
            response.chunk().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn max_body_limits_what_is_collected() {
    let world = World::new();
    let client = world.builder().max_body(1000).build().unwrap();
    world.serve(|request| {
        let size: usize = request.target().trim_start_matches('/').parse().unwrap();
        ok(&"x".repeat(size))
    });
    for size in [999, 1000] {
        let response = client.get(format!("{URL}{size}")).send().await.unwrap();
        assert_eq!(response.bytes().await.unwrap().len(), size);
    }
    for size in [1001, 100_000] {
        let response = client.get(format!("{URL}{size}")).send().await.unwrap();
        let error = response.bytes().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains("1000"), "{error}");
    }
    let response = client.get(format!("{URL}5000")).max_body(5000).send().await;
    assert_eq!(response.unwrap().bytes().await.unwrap().len(), 5000);
    let response = client.get(format!("{URL}11")).max_body(10).send().await;
    let error = response.unwrap().text().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    // Read piece by piece there is no limit.
    let mut response = client.get(format!("{URL}5000")).send().await.unwrap();
    let mut got = 0;
    while let Some(chunk) = response.chunk().await.unwrap() {
        got += chunk.len();
    }
    assert_eq!(got, 5000);
    settle(&client, &world).await;
}

/// A chunked body does not say how long it is; the limit holds all the same.
#[tokio::test(start_paused = true)]
async fn max_body_limits_a_body_of_unknown_length() {
    let world = World::new();
    let client = world.builder().max_body(1000).build().unwrap();
    let call = tokio::spawn(client.get(URL).send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection
        .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let response = call.await.unwrap().unwrap();
    let reading = tokio::spawn(response.bytes());
    let mut written = 0;
    while connection
        .try_write(format!("64\r\n{}\r\n", "x".repeat(100)).as_bytes())
        .await
    {
        written += 100;
        assert!(written < 1_000_000, "an endless body is read endlessly");
        let_others_run().await;
    }
    let error = reading.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    settle(&client, &world).await;
}

const TRAILED: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 17\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn trailers_come_after_the_body() {
    for slowly in [false, true] {
        let world = World::new();
        let client = world.client();
        tokio::spawn({
            let world = world.clone();
            async move { answer_all(world.accept().await, TRAILED, slowly).await }
        });
        let sum = |trailers: Option<HeaderMap>| trailers.expect("trailers")["x-sum"].clone();

        let mut response = client.get(URL).send().await.unwrap();
        assert_eq!(sum(response.trailers().await.unwrap()), "17");
        assert_eq!(sum(response.trailers().await.unwrap()), "17");
        assert!(response.header("x-sum").is_none());

        let mut response = client.get(URL).send().await.unwrap();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.unwrap() {
            body.extend_from_slice(&chunk);
        }
        assert_eq!(body, b"hello");
        assert_eq!(sum(response.trailers().await.unwrap()), "17");

        let collected = client
            .get(URL)
            .send()
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        assert_eq!(collected.bytes, "hello");
        assert_eq!(sum(collected.trailers), "17");
        assert_eq!(world.accepts(), 1);
        settle(&client, &world).await;
    }
}

/// `into_body` promises them as the last frame.
#[tokio::test(start_paused = true)]
async fn trailers_are_the_last_frame_of_a_body() {
    for slowly in [true, false] {
        let world = World::new();
        let client = world.client();
        tokio::spawn({
            let world = world.clone();
            async move { answer_all(world.accept().await, TRAILED, slowly).await }
        });
        let body = client.get(URL).send().await.unwrap().into_body();
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.bytes, "hello");
        let trailers = collected.trailers;
        assert_eq!(
            trailers.expect("trailers, slowly or not")["x-sum"],
            "17",
            "{slowly}"
        );
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_without_trailers_has_none() {
    let world = World::new();
    let client = world.client();
    world.serve(|_| ok(&"x".repeat(50_000)));
    let mut response = client.get(URL).send().await.unwrap();
    assert_eq!(response.trailers().await.unwrap(), None);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn text_must_be_utf8() {
    let world = World::new();
    let client = world.client();
    let call = tokio::spawn(client.get(URL).send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection
        .write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab\xffc")
        .await;
    let error = call.await.unwrap().unwrap().text().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.is_decode());
    assert!(error.to_string().contains("byte 2"), "{error}");
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn into_http_keeps_everything() {
    let world = World::new();
    let client = world.client();
    world.serve(|_| {
        reply(
            "203 Non-Authoritative Information",
            "x-a: 1\r\nx-a: 2\r\n",
            &"y".repeat(9000),
        )
    });
    let mut response = client.get(URL).send().await.unwrap();
    response.extensions_mut().insert(17_u8);
    response
        .headers_mut()
        .insert("x-b", http::HeaderValue::from_static("3"));
    assert_eq!(response.header("x-b"), Some("3"));
    let response = response.into_http();
    assert_eq!(response.status(), 203);
    assert_eq!(response.version(), http::Version::HTTP_11);
    assert_eq!(response.headers().get_all("x-a").iter().count(), 2);
    assert_eq!(response.headers()["x-b"], "3");
    assert_eq!(response.extensions().get::<u8>(), Some(&17));
    let body = response.into_body();
    assert!(!body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(9000));
    assert_eq!(body.collect().await.unwrap().bytes.len(), 9000);
    settle(&client, &world).await;
}

/// A response body can be a request body: a proxy in one line.
#[tokio::test(start_paused = true)]
async fn a_response_body_can_be_sent_on() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| match request.method() {
        "GET" => ok(&"z".repeat(100_000)),
        _ => ok(&format!(
            "{} {:?}",
            request.body.len(),
            request.field("content-length")
        )),
    });
    let body = client.get(URL).send().await.unwrap().into_body();
    let response = client.post(URL).body(body).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "100000 Some(\"100000\")");
    settle(&client, &world).await;
}

// ---- JSON

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn json_goes_both_ways() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| {
        assert_eq!(request.field("content-type"), Some("application/json"));
        let user: User = serde_json::from_slice(&request.body).unwrap();
        let older = User {
            age: user.age + 1,
            ..user
        };
        reply(
            "200 OK",
            "content-type: application/json\r\n",
            &serde_json::to_string(&older).unwrap(),
        )
    });
    let user = User {
        name: "Åsa".to_owned(),
        age: 41,
    };
    let response = client.post(URL).json(&user).await.unwrap();
    let older: User = response.json().await.unwrap();
    assert_eq!((older.name.as_str(), older.age), ("Åsa", 42));
    settle(&client, &world).await;
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn json_keeps_a_content_type_that_is_set() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| ok(request.field("content-type").unwrap()));
    let problem = "application/problem+json";
    let response = client.post(URL).header("content-type", problem).json(&1);
    assert_eq!(response.await.unwrap().text().await.unwrap(), problem);
    settle(&client, &world).await;
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn json_that_is_none_tells_what_came_instead() {
    let world = World::new();
    let client = world.client();
    world.serve(|_| {
        reply(
            "200 OK",
            "content-type: text/html\r\n",
            "{\"name\": \"Eva\",\n \"age\": \"old\"}",
        )
    });
    let response = client.get("http://peer.test/user?key=secret").send().await;
    let error = response.unwrap().json::<User>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    let told = error.to_string();
    for part in ["http://peer.test", "200", "text/html", "line 2", "old"] {
        assert!(told.contains(part), "{part:?} is not in {told:?}");
    }
    assert!(!told.contains("secret"));
    settle(&client, &world).await;
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn json_that_cannot_be_expressed_is_reported_by_send() {
    let world = World::new();
    let client = world.client();
    let keys = std::collections::HashMap::from([((1, 2), 3)]);
    let error = client.post(URL).json(&keys).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("json"), "{error}");
    assert_eq!(world.dials(), 0);
    settle(&client, &world).await;
}

// ---- requests

#[tokio::test(start_paused = true)]
async fn fields_of_a_request_beat_the_defaults() {
    let world = World::new();
    let mut more = HeaderMap::new();
    more.insert("x-two", http::HeaderValue::from_static("client"));
    more.insert("x-three", http::HeaderValue::from_static("client"));
    let client = world
        .builder()
        .user_agent("mine/1")
        .default_header("x-one", "client")
        .default_headers(more)
        .build()
        .unwrap();
    let mut own = HeaderMap::new();
    own.insert("x-three", http::HeaderValue::from_static("request"));
    let call = tokio::spawn(
        client
            .get(URL)
            .header("x-two", "a")
            .header("x-two", "b")
            .header("x-three", "gone")
            .headers(own)
            .header("accept", "text/plain")
            .send(),
    );
    let mut connection = world.accept().await;
    let request = connection.read_request().await;
    let values = |name: &'static str| request.fields(name).collect::<Vec<_>>();
    assert_eq!(values("x-one"), ["client"]);
    assert_eq!(values("x-two"), ["a", "b"]);
    assert_eq!(values("x-three"), ["request"]);
    assert_eq!(values("user-agent"), ["mine/1"]);
    assert_eq!(values("accept"), ["text/plain"]);
    assert_eq!(values("host"), ["peer.test"]);
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn base_url_is_put_before_relative_urls() {
    let world = World::new();
    world.serve(|request| {
        ok(&format!(
            "{} {}",
            request.field("host").unwrap(),
            request.target()
        ))
    });
    let client = world
        .builder()
        .base_url("http://peer.test:81/v1")
        .build()
        .unwrap();
    for (url, expected) in [
        ("users", "peer.test:81 /v1/users"),
        ("/users", "peer.test:81 /v1/users"),
        ("users/7?full=1", "peer.test:81 /v1/users/7?full=1"),
        ("http://peer.test:81/x", "peer.test:81 /x"),
    ] {
        let response = client.get(url).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), expected, "{url}");
    }
    // A join never changes the origin.
    for url in [
        "http://other.test/x",
        "http://peer.test/x",
        "//other.test/x",
    ] {
        match client.get(url).send().await {
            Ok(response) => {
                let text = response.text().await.unwrap();
                assert!(text.starts_with("peer.test:81 "), "{url}: {text}");
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{url}"),
        }
    }
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn userinfo_becomes_authorization_and_shows_nowhere() {
    let world = World::new();
    world.serve(|request| {
        assert!(!request.head.contains("hunter2"));
        ok(request.field("authorization").unwrap_or("none"))
    });
    let client = world.client();
    let url = "http://bob:hunter2@peer.test/private?token=hunter2";
    let basic = "Basic Ym9iOmh1bnRlcjI=";
    let request = client.get("http://bob:hunter2@peer.test/private");
    assert!(!format!("{request:?}").contains("hunter2"));
    let response = request.send().await.unwrap();
    assert!(!format!("{response:?}").contains("hunter2"));
    assert_eq!(response.url().to_string(), "http://peer.test/private");
    assert_eq!(response.text().await.unwrap(), basic);
    // An own field wins.
    let response = client.get("http://bob:hunter2@peer.test/").bearer_auth("t");
    assert_eq!(response.await.unwrap().text().await.unwrap(), "Bearer t");
    let response = client.get(URL).basic_auth("bob", Some("hunter2"));
    assert!(!format!("{response:?}").contains("hunter2"));
    assert_eq!(response.await.unwrap().text().await.unwrap(), basic);
    settle(&client, &world).await;

    // An error shows neither.
    let world = World::new();
    world.always(crate::support::peer::Dial::Refuse);
    let client = world.client();
    let error = client.get(url).send().await.unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(!told.contains("hunter2") && !told.contains("bob"), "{told}");
    assert!(told.contains("peer.test"), "{told}");
    let built = client.get(url).build().unwrap();
    assert!(
        !format!("{built:?}").contains("Ym9iOmh1bnRlcjI="),
        "{built:?}"
    );
    let stats = client.stats();
    assert!(!format!("{stats} {stats:?} {client:?}").contains("hunter2"));
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn userinfo_of_the_base_url_goes_to_its_origin() {
    let world = World::new();
    world.serve(|request| ok(request.field("authorization").unwrap_or("none")));
    let client = world
        .builder()
        .base_url("http://bob:hunter2@peer.test/v1")
        .build()
        .unwrap();
    for (url, expected) in [
        ("users", "Basic Ym9iOmh1bnRlcjI="),
        ("http://peer.test/x", "Basic Ym9iOmh1bnRlcjI="),
        ("http://eve:x@peer.test/x", "Basic ZXZlOng="),
    ] {
        let response = client.get(url).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), expected, "{url}");
    }
    for url in ["http://other.test/x", "http://peer.test:81/x"] {
        client.get(url).send().await.unwrap_err();
    }
    assert_eq!(world.dials(), 1);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_builder_is_a_future() {
    let world = World::new();
    world.serve(|request| ok(request.method()));
    let client = world.client();
    for method in [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ] {
        let response = client.request(method.clone(), URL).await.unwrap();
        assert_eq!(response.text().await.unwrap(), method.as_str());
    }
    assert_eq!(client.get(URL).await.unwrap().text().await.unwrap(), "GET");
    assert_eq!(
        client.post(URL).await.unwrap().text().await.unwrap(),
        "POST"
    );
    assert_eq!(client.put(URL).await.unwrap().text().await.unwrap(), "PUT");
    assert_eq!(
        client.patch(URL).await.unwrap().text().await.unwrap(),
        "PATCH"
    );
    assert_eq!(
        client.delete(URL).await.unwrap().text().await.unwrap(),
        "DELETE"
    );
    assert_eq!(
        client.options(URL).await.unwrap().text().await.unwrap(),
        "OPTIONS"
    );
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn requests_of_the_http_crate_are_executed() {
    let world = World::new();
    world.serve(|request| {
        ok(&format!(
            "{} {} {:?} {}",
            request.method(),
            request.target(),
            request.field("x-a"),
            String::from_utf8_lossy(&request.body)
        ))
    });
    let client = world.client();
    let request = http::Request::put("http://peer.test/a")
        .header("x-a", "b")
        .body("text")
        .unwrap();
    let response = client.execute(request).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "PUT /a Some(\"b\") text");
    let request = http::Request::get("http://peer.test/a").body(()).unwrap();
    let response = client.execute(request).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "GET /a None ");
    let request = http::Request::get("/no/origin").body(()).unwrap();
    let error = client.execute(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    settle(&client, &world).await;
}

/// Options travel with a request that was built.
#[tokio::test(start_paused = true)]
async fn options_survive_build_and_execute() {
    let world = World::new();
    world.serve(|_| reply("404 Not Found", "", &"x".repeat(100)));
    let client = world.client();
    let request = client
        .get(URL)
        .error_for_status(false)
        .max_body(10)
        .extension(17_u8)
        .build()
        .unwrap();
    assert_eq!(request.extensions().get::<u8>(), Some(&17));
    let response = client.execute(request).await.unwrap();
    assert_eq!(response.status(), 404);
    let error = response.bytes().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_builder_can_be_cloned_unless_its_body_is_a_stream() {
    let world = World::new();
    world.serve(|request| {
        ok(&format!(
            "{} {:?}",
            String::from_utf8_lossy(&request.body),
            request.field("x-a")
        ))
    });
    let client = world.client();
    let request = client.post(URL).header("x-a", "b").body("text");
    let copy = request.try_clone().unwrap();
    for request in [request, copy] {
        let response = request.send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "text Some(\"b\")");
    }
    let (pieces, _) = Pieces::new(1, 1);
    assert!(
        client
            .post(URL)
            .body(Body::stream(pieces))
            .try_clone()
            .is_none()
    );
    assert!(client.get(URL).try_clone().is_some());
    let mistaken = client.get(URL).header("na me", "x").try_clone().unwrap();
    mistaken.send().await.unwrap_err();
    settle(&client, &world).await;
}

/// What is wrong in a request is told before a connection is used, and never with its value.
#[tokio::test(start_paused = true)]
async fn mistakes_are_reported_by_send() {
    let world = World::new();
    let client = world.client();
    let get = || client.get(URL);
    let (long, _) = Pieces::new(1, 1);
    for (request, part) in [
        (client.get("ftp://peer.test/"), "ftp"),
        (client.get("peer.test"), "relative"),
        (get().header("na me", "x"), "header"),
        (get().header("x-a", "secret\r\nx-b: c"), "x-a"),
        (get().bearer_auth("secret\n"), "bearer_auth"),
        (get().basic_auth("secret:", Some("x")), "basic_auth"),
        (get().header("host", "secret host"), "host"),
        (get().header("host", "a").header("host", "b"), "host"),
        (
            get().header("transfer-encoding", "chunked"),
            "transfer-encoding",
        ),
        (get().header("upgrade", "websocket"), "upgrade"),
        (get().header("keep-alive", "timeout=5"), "keep-alive"),
        (get().header("te", "gzip"), "te"),
        (get().header("content-length", "3").body("four"), "3"),
        (
            get().header("content-length", "x").body("four"),
            "content-length",
        ),
        (client.request(Method::TRACE, URL).body("x"), "TRACE"),
        (client.request(Method::CONNECT, URL).body("x"), "CONNECT"),
        (
            client.request(Method::TRACE, URL).body(Body::stream(long)),
            "TRACE",
        ),
    ] {
        let error = request.send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        assert_eq!(error.sent(), Sent::Nothing);
        let told = error.to_string();
        let found = told
            .to_ascii_lowercase()
            .contains(&part.to_ascii_lowercase());
        assert!(found, "{part:?} is not in {told:?}");
        assert!(!told.contains("secret"), "{told}");
        assert!(!error.is_retryable());
    }
    // None of them cost a connection: whatever was dialled is idle.
    settle(&client, &world).await;
    let total = client.stats().total;
    assert_eq!(total.connections_closed.total(), 0);
    assert_eq!(total.bytes_sent, 0);
}

#[tokio::test(start_paused = true)]
async fn https_only_refuses_http() {
    let world = World::new();
    let client = world.builder().https_only(true).build().unwrap();
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("https_only"), "{error}");
    assert_eq!(world.dials(), 0);
    settle(&client, &world).await;
}

/// A user's length with a stream sets the framing, and is enforced.
#[tokio::test(start_paused = true)]
async fn a_length_of_the_user_frames_a_stream() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| {
        ok(&format!(
            "{:?} {:?} {}",
            request.field("content-length"),
            request.field("transfer-encoding"),
            request.body.len()
        ))
    });
    let send = |length: &'static str| {
        let (pieces, _) = Pieces::new(3, 5);
        client
            .post(URL)
            .header("content-length", length)
            .body(Body::stream(pieces))
            .send()
    };
    let text = send("15").await.unwrap().text().await.unwrap();
    assert_eq!(text, "Some(\"15\") None 15");
    for wrong in ["14", "16"] {
        let error = send(wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body, "{wrong}: {error}");
    }
    settle(&client, &world).await;
}

#[test]
fn without_a_runtime_a_call_fails_and_does_not_panic() {
    let client = Client::new();
    let mut call = Box::pin(client.get(URL).send());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = call.as_mut().poll(&mut cx) else {
        panic!("an error at once");
    };
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("runtime"), "{error}");
    sockeye::test::at_rest(&client);
}

#[tokio::test(start_paused = true)]
async fn a_response_tells_of_its_connection() {
    let world = World::new();
    world.serve(|_| ok("fine"));
    let client = world.client();
    let first = client.get(URL).send().await.unwrap();
    assert!(!first.reused());
    assert_eq!(first.attempts(), 1);
    assert_eq!(first.url().to_string(), URL);
    assert_eq!(first.connection().protocol, http::Version::HTTP_11);
    assert!(first.connection().remote_addr.is_none());
    let second = client.get(URL).send().await.unwrap();
    assert!(second.reused() && second.timings().reused);
    assert_eq!(second.connection().id, first.connection().id);
    assert_eq!(second.timings().pool_wait, None);
    drop((first, second));
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn timings_tell_where_the_time_went() {
    let world = World::new();
    world.plan(crate::support::peer::Dial::Delay(Duration::from_secs(2)));
    let client = world.client();
    tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            sleep(Duration::from_secs(3)).await;
            connection.write(ok("fine")).await;
            connection.closed().await;
        }
    });
    let response = client.get(URL).send().await.unwrap();
    let timings = response.timings();
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    assert_eq!(seconds(timings.pool_wait), Some(2));
    assert_eq!(seconds(timings.connect), Some(2));
    assert_eq!(seconds(timings.head), Some(3));
    assert_eq!((timings.resolve, timings.tls), (None, None));
    drop(response);
    settle(&client, &world).await;
}

/// Small pieces are gathered, large ones are written as they are; both arrive in order.
#[tokio::test(start_paused = true)]
async fn pieces_of_all_sizes_arrive_in_order() {
    let world = World::new();
    world.buffer(3000);
    let client = world.client();
    world.serve(|request| ok(&format!("{:?}", sum(&request.body))));
    let (feed, body) = fed();
    let mut all = Vec::new();
    for size in [1, 4095, 4096, 4097, 2, 16_384, 16_385, 3, 100_000, 1] {
        let piece: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
        all.extend_from_slice(&piece);
        feed.give(Bytes::from(piece));
    }
    drop(feed);
    let response = client
        .post(URL)
        .body(Body::stream(body))
        .send()
        .await
        .unwrap();
    assert_eq!(response.text().await.unwrap(), format!("{:?}", sum(&all)));
    settle(&client, &world).await;
}

/// Length and a checksum that depends on the order.
fn sum(bytes: &[u8]) -> (usize, u64) {
    let fold = |sum: u64, byte: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
    (bytes.len(), bytes.iter().fold(0, fold))
}

/// The peer half-closes behind its reply: the reply counts, the connection is gone.
#[tokio::test(start_paused = true)]
async fn a_reply_followed_by_a_half_close() {
    let world = World::new();
    let client = world.client();
    let call = tokio::spawn(client.get(URL).send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection.write(ok("fine")).await;
    connection.shutdown().await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.text().await.unwrap(), "fine");
    world.serve(|_| ok("again"));
    let again = client.post(URL).send().await.unwrap();
    assert!(!again.reused());
    connection.closed().await;
    until("two connections", || world.accepts() == 2).await;
    yield_now().await;
    drop(again);
    settle(&client, &world).await;
}

/// Ruling 14: chunks mean nothing to a server of HTTP/1.0; its next response of HTTP/1.1 lifts that.
#[tokio::test(start_paused = true)]
async fn a_stream_is_not_sent_to_a_server_of_http10() {
    let world = World::new();
    let client = world.client();
    let stream = || {
        let (feed, stream) = fed();
        feed.give("x");
        Body::stream(stream)
    };
    for (version, refused) in [("1.0", true), ("1.1", false)] {
        let call = tokio::spawn(client.get(URL).send());
        let mut connection = world.accept().await;
        connection.read_request().await;
        connection
            .write(format!(
                "HTTP/{version} 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            ))
            .await;
        call.await.unwrap().unwrap();
        let call = tokio::spawn(client.put(URL).body(stream()).send());
        let mut connection = world.accept().await;
        if refused {
            let error = call.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(error.to_string().contains("HTTP/1.0"), "{error}");
            assert_eq!(error.sent(), Sent::Nothing);
            // A body of known length is no matter.
            let sized = tokio::spawn(client.put(URL).body("known").send());
            assert_eq!(connection.read_request().await.body, b"known");
            connection
                .write("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await;
            sized.await.unwrap().unwrap();
        } else {
            connection.read_request().await;
            connection.write(ok("")).await;
            call.await.unwrap().unwrap();
        }
    }
    settle(&client, &world).await;
}
