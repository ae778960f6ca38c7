//! What is lent again: the newest first, never to another origin, and nothing that its peer has spoiled.

use std::collections::HashSet;

use sockeye::stats::CloseCause;
use sockeye::{ErrorKind, Limits};
use tokio::time::advance;

use super::{MILLI, URL, at_most, get, held, limited, streaming, text};
use crate::support::peer::{World, let_others_run, ok, settle};
use crate::support::streams::within_polls;

/// 1, R-OBJ-2: the connection that was given back last is lent first.
#[tokio::test(start_paused = true)]
async fn t01_lifo_reuse() {
    let world = World::new();
    let client = world.client();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(held(&client, &world).await);
    }
    let mut ids = Vec::new();
    let mut connections = Vec::new();
    for (call, mut connection) in open {
        connection.write(ok("")).await;
        ids.push(call.await.unwrap().unwrap().connection().id);
        connections.push(connection);
        advance(10 * MILLI).await;
    }
    for expected in [2, 2] {
        let call = get(&client, URL);
        connections[expected].read_request().await;
        connections[expected].write(ok("")).await;
        assert_eq!(call.await.unwrap().unwrap().connection().id, ids[expected]);
    }
    // Two at once: the second gets the one before.
    let (last, before) = (get(&client, URL), get(&client, URL));
    for at in [2, 1] {
        connections[at].read_request().await;
        connections[at].write(ok("")).await;
    }
    assert_eq!(last.await.unwrap().unwrap().connection().id, ids[2]);
    assert_eq!(before.await.unwrap().unwrap().connection().id, ids[1]);
    assert_eq!(world.accepts(), 3);
    settle(&client, &world).await;
}

/// 10, R-Q-2: a connection delivered to one who is gone goes to the next in line.
#[tokio::test(start_paused = true)]
async fn t10_cancel_after_delivery() {
    let world = World::new();
    let client = limited(&world, at_most(1));
    let (call, mut connection) = held(&client, &world).await;
    let mut first = Box::pin(client.get("http://peer.test/first").send());
    assert!(within_polls(1, &mut first).await.is_none());
    let second = get(&client, "http://peer.test/second");
    let_others_run().await;
    connection.write(ok("held")).await;
    let id = call.await.unwrap().unwrap().connection().id;
    // The first in line was served and not polled since.
    let_others_run().await;
    assert_eq!(client.stats().total.requests_pending, 1);
    drop(first);
    assert_eq!(connection.read_request().await.target(), "/second");
    connection.write(ok("second")).await;
    let response = second.await.unwrap().unwrap();
    assert_eq!(response.connection().id, id);
    assert_eq!(world.accepts(), 1);
    settle(&client, &world).await;
}

/// 10, R-OBJ-5, with nobody behind: the connection is idle, and its bytes are counted once.
#[tokio::test(start_paused = true)]
async fn a_delivered_connection_that_nobody_takes_is_idle() {
    let world = World::new();
    let client = limited(&world, at_most(1));
    let (call, mut connection) = held(&client, &world).await;
    let mut first = Box::pin(client.get(URL).send());
    assert!(within_polls(1, &mut first).await.is_none());
    connection.write(ok("held")).await;
    call.await.unwrap().unwrap();
    let before = client.stats().total;
    drop(first);
    settle(&client, &world).await;
    let after = client.stats().total;
    assert_eq!(after.connections_idle, 1);
    assert_eq!(
        (after.bytes_sent, after.bytes_received),
        (before.bytes_sent, before.bytes_received),
        "bytes of the exchange before were counted again"
    );
}

/// A request that is refused when it is encoded neither costs the connection nor counts what went before.
#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_encoded_counts_no_bytes() {
    let world = World::new();
    let client = world.client();
    world.serve(|_| ok("fine"));
    client.get(URL).send().await.unwrap();
    let before = client.stats().total;
    let error = client
        .get(URL)
        .header("host", "a b")
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    settle(&client, &world).await;
    let after = client.stats().total;
    assert_eq!(after.connections_idle, 1);
    assert_eq!(
        (after.bytes_sent, after.bytes_received),
        (before.bytes_sent, before.bytes_received)
    );
}

/// 17, over memory: a connection that the peer closed while it was idle is found out at checkout.
#[tokio::test(start_paused = true)]
async fn a_connection_closed_while_idle_is_not_lent() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    connection.close();
    world.serve(|_| ok("fresh"));
    let response = client.post(URL).body("once").send().await.unwrap();
    assert!(!response.reused());
    assert_eq!(response.attempts(), 1);
    let total = client.stats().total;
    assert_eq!(total.connections_closed.get(CloseCause::PeerClosed), 1);
    assert_eq!(total.retries, 0);
    drop(response);
    settle(&client, &world).await;
}

/// 20, R-REL-2: bytes that come while a connection is idle are never taken for a response.
#[tokio::test(start_paused = true)]
async fn t20_unsolicited_on_idle() {
    for forged in [
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
        "\r\n",
        "x",
    ] {
        let world = World::new();
        let client = world.client();
        let (call, mut connection) = held(&client, &world).await;
        connection.write(ok("")).await;
        call.await.unwrap().unwrap();
        connection.write(forged).await;
        world.serve(|_| ok("genuine"));
        let response = client.get(URL).send().await.unwrap();
        assert!(!response.reused());
        assert_eq!(response.text().await.unwrap(), "genuine");
        assert_eq!(world.accepts(), 2);
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn unsolicited_bytes_are_counted_as_such() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    connection
        .write("HTTP/1.1 408 Request Timeout\r\n\r\n")
        .await;
    world.serve(|_| ok(""));
    client.get(URL).send().await.unwrap();
    let closed = client.stats().total.connections_closed;
    assert_eq!(closed.get(CloseCause::Unsolicited), 1, "{closed:?}");
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn max_requests_per_connection_ends_a_connection() {
    let world = World::new();
    let limits = Limits::default().with_max_requests_per_connection(Some(3));
    let client = limited(&world, limits);
    world.serve(|_| ok(""));
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(client.get(URL).send().await.unwrap().connection().id);
    }
    let distinct: HashSet<_> = ids.iter().collect();
    assert_eq!((distinct.len(), world.accepts()), (3, 3));
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[2], ids[3]);
    let closed = client.stats().total.connections_closed;
    assert_eq!(closed.get(CloseCause::Lifetime), 2);
    settle(&client, &world).await;
}

/// Connections to one host are not lent to another, nor to another port or scheme.
#[tokio::test(start_paused = true)]
async fn every_origin_has_its_own_connections() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| ok(request.field("host").unwrap()));
    let origins = ["a.test", "b.test", "a.test:81", "a.test.", "A.test"];
    for (accepts, host) in [1, 2, 3, 4, 4].into_iter().zip(origins) {
        let answer = text(client.get(format!("http://{host}/")).send().await).await;
        assert_eq!(answer, host.to_ascii_lowercase());
        assert_eq!(world.accepts(), accepts, "{host}");
    }
    settle(&client, &world).await;
}

/// R-REL-1 and R-OBJ-3: what a response must be for its connection to be used again. Framing in all its forms is shown by
/// the transcripts; here it is one of each.
#[tokio::test(start_paused = true)]
async fn what_a_connection_must_have_done_to_be_lent_again() {
    let fields = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
    let rows: [(&str, String, bool); 14] = [
        ("GET", ok("text"), true),
        ("GET", ok(""), true),
        (
            "GET",
            fields("transfer-encoding: chunked") + "1\r\nx\r\n0\r\n\r\n",
            true,
        ),
        (
            "GET",
            fields("transfer-encoding: chunked") + "0\r\nx-sum: 1\r\n\r\n",
            true,
        ),
        ("HEAD", fields("content-length: 100"), true),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n".to_owned(), true),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n".to_owned(),
            true,
        ),
        (
            "GET",
            "HTTP/1.1 103 Hints\r\n\r\n".to_owned() + &ok("x"),
            true,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n".to_owned(),
            true,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
            false,
        ),
        (
            "GET",
            fields("connection: close\r\ncontent-length: 0"),
            false,
        ),
        ("GET", ok("text") + "\r\n", false),
        ("GET", fields("x-framed-by: the end"), false),
        (
            "GET",
            fields("transfer-encoding: chunked\r\ncontent-length: 5") + "0\r\n\r\n",
            false,
        ),
    ];
    for (method, reply, reused) in rows {
        let world = World::new();
        let client = world.client();
        let method = sockeye::Method::from_bytes(method.as_bytes()).unwrap();
        let call = tokio::spawn(client.request(method, URL).send());
        let mut connection = world.accept().await;
        connection.read_request().await;
        connection.write(&reply).await;
        let response = call.await.unwrap().unwrap();
        if reply.contains("the end") {
            connection.close();
            response.bytes().await.unwrap();
        } else {
            response.bytes().await.unwrap();
            settle(&client, &world).await;
            assert_eq!(world.open(), usize::from(reused), "{reply}");
            drop(connection);
        }
        settle(&client, &world).await;
        let closed = client.stats().total.connections_closed;
        assert_eq!(closed.total() == 0, reused, "{reply}: {closed:?}");
    }
}

/// R-REL-4: the connection is idle again in the very poll that yields the last byte, while the response still lives.
#[tokio::test(start_paused = true)]
async fn a_connection_comes_free_with_the_last_byte() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n".to_owned();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for (head, body) in [(head, "text"), (chunked, "4\r\ntext\r\n0\r\n\r\n")] {
        let world = World::new();
        let client = world.client();
        let (mut response, mut connection) = streaming(&world, &client, &head).await;
        connection.write(body).await;
        assert_eq!(client.stats().total.connections_idle, 0);
        assert_eq!(response.chunk().await.unwrap().unwrap(), "text");
        assert_eq!(client.stats().total.connections_idle, 1);
        let again = get(&client, URL);
        connection.read_request().await;
        connection.write(ok("")).await;
        assert!(again.await.unwrap().unwrap().reused());
        assert!(response.chunk().await.unwrap().is_none());
        settle(&client, &world).await;
    }
}
