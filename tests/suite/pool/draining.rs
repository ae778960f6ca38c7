//! What becomes of a connection whose response body is dropped half read.

use std::time::Duration;

use sockeye::stats::{CloseCause, DrainOutcome};
use sockeye::{Client, Limits};
use tokio::time::{Instant, advance, timeout};

use super::{SECOND, URL, get, limited, streaming, text};
use crate::support::peer::{PeerConnection, World, let_others_run, ok, settle, until};

/// A next call goes over the same connection.
async fn next_call_reuses(client: &Client, connection: &mut PeerConnection) {
    let again = get(client, URL);
    connection.read_request().await;
    connection.write(ok("next")).await;
    let response = again.await.unwrap();
    assert!(response.as_ref().unwrap().reused());
    assert_eq!(text(response).await, "next");
}

/// The next call goes over another connection, and gets its own answer.
async fn next_call_does_not(client: &Client, world: &World, closed: CloseCause) {
    let causes = client.stats().total.connections_closed;
    assert_eq!(causes.get(closed), 1, "{causes:?}");
    world.serve(|_| ok("next"));
    let response = client.get(URL).send().await;
    assert!(!response.as_ref().unwrap().reused());
    assert_eq!(text(response).await, "next");
}

fn drained(client: &Client, how: DrainOutcome) {
    let drains = client.stats().total.drains;
    assert_eq!((drains.get(how), drains.total()), (1, 1), "{drains:?}");
}

/// 26, R-BODY 1: what is left of a dropped body is in the read buffer already.
#[tokio::test(start_paused = true)]
async fn t26_body_drop_buffered() {
    let world = World::new();
    let client = world.client();
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let (mut response, mut connection) = streaming(&world, &client, head).await;
    connection.write("3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n").await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "abc");
    drop(response);
    drained(&client, DrainOutcome::Buffered);
    next_call_reuses(&client, &mut connection).await;
    settle(&client, &world).await;
}

/// 26, R-BODY 2: what is left has arrived, so it is read in the drop.
#[tokio::test(start_paused = true)]
async fn t26_body_drop_inline() {
    for (length, first) in [(20 * 1024, 0), (20 * 1024, 1), (60 * 1024, 100)] {
        let world = World::new();
        let client = world.client();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}",
            "x".repeat(first)
        );
        let (response, mut connection) = streaming(&world, &client, &head).await;
        connection.write("x".repeat(length - first)).await;
        drop(response);
        drained(&client, DrainOutcome::Inline);
        assert_eq!(client.stats().total.connections_idle, 1);
        next_call_reuses(&client, &mut connection).await;
        settle(&client, &world).await;
    }
}

/// 26, R-BODY 4: what is left arrives soon, so a task reads it.
#[tokio::test(start_paused = true)]
async fn t26_body_drop_task() {
    let world = World::new();
    let client = world.client();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 102400\r\n\r\n";
    let (response, mut connection) = streaming(&world, &client, head).await;
    drop(response);
    let total = client.stats().total;
    assert_eq!(
        (total.connections_active, total.connections_draining),
        (1, 1)
    );
    for _ in 0..10 {
        connection.write("x".repeat(10_240)).await;
        advance(Duration::from_millis(2)).await;
    }
    until("drained", || client.stats().total.connections_idle == 1).await;
    drained(&client, DrainOutcome::Task);
    assert_eq!(client.stats().total.connections_draining, 0);
    next_call_reuses(&client, &mut connection).await;
    settle(&client, &world).await;
}

/// 26, R-BODY 4: a body that goes on and on, or stands still, is read for 50 ms; one that is large in all, up to the limit.
#[tokio::test(start_paused = true)]
async fn t26_body_drop_endless() {
    for (piece, pause) in [("", 0), ("1\r\nx\r\n", 1), ("1000\r\n", 0)] {
        let world = World::new();
        let client = world.client();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let (response, mut connection) = streaming(&world, &client, head).await;
        let started = Instant::now();
        drop(response);
        let piece = match piece {
            "1000\r\n" => format!("{piece}{}\r\n", "x".repeat(0x1000)),
            _ => piece.to_owned(),
        };
        let endless = async {
            while !piece.is_empty() && connection.try_write(piece.as_bytes()).await {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            connection.closed().await;
        };
        timeout(SECOND, endless).await.expect("it closes");
        assert!(started.elapsed() <= Duration::from_millis(51));
        drained(&client, DrainOutcome::GaveUp);
        next_call_does_not(&client, &world, CloseCause::DrainGaveUp).await;
        settle(&client, &world).await;
    }
}

/// 26, R-BODY 3, and everything else that is not worth a read.
#[tokio::test(start_paused = true)]
async fn t26_body_drop_hopeless() {
    let keep = Limits::default();
    for (head, limits) in [
        ("content-length: 1073741824", keep.clone()),
        ("content-length: 262145", keep.clone()),
        ("connection: close\r\ncontent-length: 10", keep.clone()),
        ("x-framed-by: the end", keep.clone()),
        ("content-length: 10", keep.with_max_drain(0)),
    ] {
        let world = World::new();
        let client = limited(&world, limits);
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
        let (response, mut connection) = streaming(&world, &client, &head).await;
        drop(response);
        assert_eq!(client.stats().total.connections_active, 0, "{head}");
        connection.closed().await;
        drained(&client, DrainOutcome::GaveUp);
        next_call_does_not(&client, &world, CloseCause::DrainGaveUp).await;
        settle(&client, &world).await;
    }
}

/// R-BODY 3: no more than 32 bodies are drained at a time.
#[tokio::test(start_paused = true)]
async fn drains_are_bounded() {
    let world = World::new();
    let client = world.client();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
    let mut responses = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..40 {
        let (response, connection) = streaming(&world, &client, head).await;
        responses.push(response);
        connections.push(connection);
    }
    drop(responses);
    let total = client.stats().total;
    assert_eq!(
        (total.connections_active, total.connections_draining),
        (32, 32)
    );
    let_others_run().await;
    advance(Duration::from_millis(51)).await;
    settle(&client, &world).await;
    assert_eq!(client.stats().total.drains.get(DrainOutcome::GaveUp), 40);
}

/// A malformed rest, or a connection that ends in it, closes.
#[tokio::test(start_paused = true)]
async fn a_drain_that_fails_closes() {
    for rest in ["zz\r\n", ""] {
        let world = World::new();
        let client = world.client();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let (response, mut connection) = streaming(&world, &client, head).await;
        connection.write(rest).await;
        if rest.is_empty() {
            drop(connection);
        }
        drop(response);
        drained(&client, DrainOutcome::GaveUp);
        next_call_does_not(&client, &world, CloseCause::Error).await;
        settle(&client, &world).await;
    }
}

/// A body may be dropped, and drained, outside of any runtime.
#[tokio::test]
async fn a_body_dropped_outside_of_a_runtime_is_drained() {
    let world = World::new();
    let client = world.client();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
    let (response, mut connection) = streaming(&world, &client, head).await;
    std::thread::spawn(move || drop(response)).join().unwrap();
    connection.write("0123456789").await;
    until("drained", || client.stats().total.connections_idle == 1).await;
    drained(&client, DrainOutcome::Task);
    settle(&client, &world).await;
}
