//! What is lent again: the newest first, never to another origin, and nothing that its peer has spoiled.

use std::collections::HashSet;

use sockeye::stats::CloseCause;
use sockeye::{ErrorKind, Limits};
use tokio::time::advance;

use super::{MILLI, URL, at_most, get, held, limited, text};
use crate::support::peer::{World, let_others_run, ok, settle};
use crate::support::streams::within_polls;

/// 1: the connection that was given back last is lent first.
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

/// 10: a connection delivered to one who is gone goes to the next in line.
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

/// The same with nobody behind: the connection is idle, and its bytes are counted once.
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

/// 20: bytes that come while a connection is idle are never taken for a response.
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
