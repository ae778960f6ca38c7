//! What the counters say of all this.

use sockeye::stats::CloseCause;
use sockeye::{ErrorKind, Phase};

use super::{URL, get};
use crate::support::peer::{Dial, World, ok, reply, settle};

/// Each counter moves by what happened, and by nothing else.
#[tokio::test(start_paused = true)]
async fn stats_count_what_happened() {
    let world = World::new();
    let client = world.client();
    let mut sent = 0;
    let mut received = 0;
    let (call, mut connection) = {
        let call = get(&client, URL);
        let mut connection = world.accept().await;
        sent += connection.read_request().await.raw.len();
        (call, connection)
    };
    let total = client.stats().total;
    assert_eq!((total.requests_active, total.connections_active), (1, 1));
    assert_eq!((total.requests_total, total.responses_2xx), (1, 0));
    let first = ok("first");
    received += first.len();
    connection.write(&first).await;
    call.await.unwrap().unwrap();
    for (status, fields) in [
        ("301 Moved", ""),
        ("404 Not Found", ""),
        ("500 Oh", "connection: close\r\n"),
    ] {
        let call = tokio::spawn(client.post(URL).body("12345").send());
        sent += connection.read_request().await.raw.len();
        let reply = reply(status, fields, "x");
        received += reply.len();
        connection.write(&reply).await;
        let _ = call.await.unwrap();
    }
    connection.closed().await;
    world.plan(Dial::Refuse);
    client.get(URL).send().await.unwrap_err();
    let cancelled = get(&client, URL);
    let mut last = world.accept().await;
    sent += last.read_request().await.raw.len();
    cancelled.abort();
    last.closed().await;
    settle(&client, &world).await;

    let stats = client.stats();
    let total = &stats.total;
    assert_eq!(total.requests_total, 6);
    assert_eq!(total.attempts_total, 6);
    assert_eq!(
        [
            total.responses_2xx,
            total.responses_3xx,
            total.responses_4xx,
            total.responses_5xx
        ],
        [1, 1, 1, 1]
    );
    assert_eq!(total.errors.get(ErrorKind::Status), 2);
    assert_eq!(total.errors.get(ErrorKind::Connect), 1);
    assert_eq!(total.errors.total(), 3);
    assert_eq!((total.cancelled, total.retries), (1, 0));
    assert_eq!(total.connections_opened, 2);
    assert_eq!(total.connections_reused, 3);
    assert_eq!(total.connect_failures, 1);
    let closed = &total.connections_closed;
    assert_eq!(closed.get(CloseCause::PeerAsked), 1, "{closed:?}");
    assert_eq!(closed.get(CloseCause::Dropped), 1, "{closed:?}");
    assert_eq!(closed.total(), 2, "{closed:?}");
    assert_eq!(total.bytes_sent, sent as u64);
    assert_eq!(total.bytes_received, received as u64);
    assert_eq!(total.head.count, 4);
    assert_eq!(stats.hosts.len(), 1);
    assert_eq!(stats.hosts[0].0.to_string(), "http://peer.test");
    assert_eq!(stats.max_connections, Some(100));
}

/// A body that fails counts once as a response and once as an error; one that is read counts into the total.
#[tokio::test(start_paused = true)]
async fn stats_count_bodies() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| match request.target() {
        "/large" => ok(&"x".repeat(100_000)),
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome".to_owned(),
    });
    let large = client.get("http://peer.test/large").send().await.unwrap();
    assert_eq!(
        client.stats().total.total.count,
        0,
        "the body is not read yet"
    );
    large.bytes().await.unwrap();
    assert_eq!(client.stats().total.total.count, 1);
    let short = client.get(URL).send().await.unwrap();
    let error = short.bytes().await.unwrap_err();
    assert_eq!(error.phase(), Some(Phase::Read));
    let total = client.stats().total;
    assert_eq!(total.responses_2xx, 2);
    assert_eq!(total.errors.get(ErrorKind::Timeout), 1);
    assert_eq!(total.timeouts.get(Phase::Read), 1);
    assert_eq!(total.total.count, 1);
    settle(&client, &world).await;
}

/// A future that was never polled is no call.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_polled_did_not_happen() {
    let world = World::new();
    let client = world.client();
    drop(client.get(URL).send());
    let total = client.stats().total;
    assert_eq!((total.requests_total, total.cancelled), (0, 0));
    assert_eq!(world.dials(), 0);
    settle(&client, &world).await;
}
