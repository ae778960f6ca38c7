//! Dials: whom they serve, whom their errors reach, and connections that are opened in advance.

use std::num::NonZeroUsize;
use std::time::Duration;

use sockeye::{ErrorKind, Limits, Sent};
use tokio::time::{Instant, advance, sleep};

use super::{MILLI, SECOND, URL, at_most, get, held, limited, serve_after, text};
use crate::support::peer::{Dial, World, let_others_run, ok, reply, settle, until};

/// 12, R-DIAL-1: the call that caused a dial is dropped; the dial serves the others.
#[tokio::test(start_paused = true)]
async fn t12_cancel_dialer() {
    let world = World::new();
    world.always(Dial::Delay(SECOND));
    serve_after(&world, MILLI);
    let client = limited(&world, at_most(1));
    let mut calls: Vec<_> = (0..5).map(|_| get(&client, URL)).collect();
    let_others_run().await;
    calls.remove(0).abort();
    for call in calls {
        assert_eq!(text(call.await.unwrap()).await, "/");
    }
    assert_eq!(world.dials(), 1);
    settle(&client, &world).await;
}

/// 12, R-DIAL-1, alone: a dial that nobody waits for any more ends as an idle connection, which the next call finds.
#[tokio::test(start_paused = true)]
async fn a_dial_goes_on_without_its_call() {
    let world = World::new();
    world.always(Dial::Delay(SECOND));
    world.serve(|_| ok("fine"));
    let client = world.client();
    let call = get(&client, URL);
    let_others_run().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    sleep(2 * SECOND).await;
    assert_eq!(client.stats().total.connections_idle, 1);
    let started = Instant::now();
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert!(!response.reused(), "it had not served before");
    assert_eq!(world.dials(), 1);
    drop(response);
    settle(&client, &world).await;
}

/// 13a, R-DIAL-5: a failed dial is told to the call that caused it; who was served meanwhile hears nothing.
#[tokio::test(start_paused = true)]
async fn t13_dial_error_to_its_owner() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    world.always(Dial::RefuseAfter(SECOND));
    let waiters: Vec<_> = (0..3).map(|_| get(&client, URL)).collect();
    let_others_run().await;
    assert_eq!(client.stats().total.connections_connecting, 3);
    connection.write(ok("held")).await;
    call.await.unwrap().unwrap();
    connection.read_request().await;
    connection
        .write(reply("200 OK", "connection: close\r\n", "served"))
        .await;
    let (mut served, mut failed) = (0, 0);
    for waiter in waiters {
        match waiter.await.unwrap() {
            Ok(response) => {
                assert_eq!(response.text().await.unwrap(), "served");
                served += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Connect);
                assert!(error.is_connect());
                assert_eq!(error.sent(), Sent::Nothing);
                assert!(error.to_string().contains("peer.test"), "{error}");
                failed += 1;
            }
        }
    }
    assert_eq!((served, failed), (1, 2));
    settle(&client, &world).await;
    let total = client.stats().total;
    assert_eq!((total.connect_failures, total.connections_opened), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_dial_fails_its_call_and_not_the_next() {
    let world = World::new();
    world.plan(Dial::Refuse);
    world.serve(|_| ok("fine"));
    let client = limited(&world, at_most(1));
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(error.attempts(), 1);
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::ConnectionRefused));
    assert_eq!(text(client.get(URL).send().await).await, "fine");
    settle(&client, &world).await;
}

/// At the limit, a dial that fails hands its place on.
#[tokio::test(start_paused = true)]
async fn a_failed_dial_hands_its_place_on() {
    let world = World::new();
    world.plan(Dial::RefuseAfter(SECOND));
    world.plan(Dial::RefuseAfter(SECOND));
    serve_after(&world, MILLI);
    let client = limited(&world, at_most(1));
    let calls: Vec<_> = (0..4).map(|_| get(&client, URL)).collect();
    let mut failed = 0;
    for call in calls {
        failed += usize::from(call.await.unwrap().is_err());
    }
    assert_eq!((failed, world.dials()), (2, 3));
    settle(&client, &world).await;
}

/// 14, R-DIAL-2 and R-DIAL-4: a connection that is freed while a dial runs is used; the dial serves the next, and there is no third.
#[tokio::test(start_paused = true)]
async fn t14_late_binding_no_churn() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    world.always(Dial::Delay(500 * MILLI));
    let started = Instant::now();
    let first = get(&client, "http://peer.test/first");
    sleep(10 * MILLI).await;
    connection.write(ok("held")).await;
    call.await.unwrap().unwrap();
    assert_eq!(connection.read_request().await.target(), "/first");
    sleep(10 * MILLI).await;
    let second = get(&client, "http://peer.test/second");
    let mut other = world.accept().await;
    assert_eq!(other.read_request().await.target(), "/second");
    assert_eq!(started.elapsed().as_millis() / 10, 50);
    other.write(ok("second")).await;
    connection.write(ok("first")).await;
    assert_eq!(text(first.await.unwrap()).await, "first");
    assert_eq!(text(second.await.unwrap()).await, "second");
    assert_eq!(world.dials(), 2);
    settle(&client, &world).await;
}

/// A peer that takes every connection and closes it at once is an error after a few of them, not a storm of dials.
#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_at_once_is_an_error() {
    let world = World::new();
    let client = world.client();
    tokio::spawn({
        let world = world.clone();
        async move {
            loop {
                world.accept().await.close();
                if world.dials() > 50 {
                    world.always(Dial::Hang);
                }
            }
        }
    });
    let error = client.get(URL).send().await.unwrap_err();
    assert!(world.dials() <= 10, "{} dials for one call", world.dials());
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    settle(&client, &world).await;
}

/// R-LIFE-1.
#[tokio::test(start_paused = true)]
async fn preconnect_opens_what_is_missing() {
    let world = World::new();
    world.serve(|_| ok(""));
    let client = world.client();
    client.get(URL).send().await.unwrap();
    assert_eq!(client.preconnect(URL, 3).await.unwrap(), 3);
    assert_eq!(world.accepts(), 3);
    assert_eq!(client.stats().total.connections_idle, 3);
    assert_eq!(client.preconnect(URL, 2).await.unwrap(), 2);
    assert_eq!(client.preconnect(URL, 0).await.unwrap(), 0);
    assert_eq!(world.accepts(), 3);
    let calls: Vec<_> = (0..3).map(|_| get(&client, URL)).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(world.accepts(), 3);
    settle(&client, &world).await;
}

/// R-LIFE-1: it never evicts and never waits in line.
#[tokio::test(start_paused = true)]
async fn preconnect_stays_within_max_connections() {
    let world = World::new();
    let client = limited(&world, at_most(2));
    let started = Instant::now();
    assert_eq!(client.preconnect(URL, 5).await.unwrap(), 2);
    assert_eq!(started.elapsed(), Duration::ZERO);
    // It never evicts.
    assert_eq!(client.preconnect("http://other.test/", 1).await.unwrap(), 0);
    assert_eq!(world.dials(), 2);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn preconnect_stays_within_the_limit_of_the_host() {
    let world = World::new();
    let limits = Limits::default().with_max_connections_per_host(NonZeroUsize::new(2));
    let client = limited(&world, limits);
    let started = Instant::now();
    assert_eq!(client.preconnect(URL, 5).await.unwrap(), 2);
    assert_eq!(started.elapsed(), Duration::ZERO, "it never waits in line");
    assert_eq!(client.stats().total.errors.total(), 0);
    settle(&client, &world).await;
}

/// R-DIAL-3: a connection that nobody has used yet is kept for ten seconds.
#[tokio::test(start_paused = true)]
async fn preconnected_connections_are_kept_for_ten_seconds() {
    let world = World::new();
    world.serve(|_| ok(""));
    let client = world.client();
    assert_eq!(client.preconnect(URL, 1).await.unwrap(), 1);
    sleep(8 * SECOND).await;
    client.get(URL).send().await.unwrap();
    assert_eq!(world.accepts(), 1);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn preconnect_tells_why_there_is_none() {
    let world = World::new();
    world.plan(Dial::Refuse);
    let client = world.client();
    let error = client.preconnect(URL, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("http://peer.test"), "{error}");
    world.plan(Dial::Refuse);
    assert_eq!(client.preconnect(URL, 2).await.unwrap(), 1);
    let error = client.preconnect("nonsense", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    settle(&client, &world).await;
}

/// No bytes were spoken: nothing is counted as sent.
#[tokio::test(start_paused = true)]
async fn preconnect_counts_no_bytes() {
    let world = World::new();
    world.serve(|_| ok(""));
    let client = world.client();
    client.get(URL).send().await.unwrap();
    let before = client.stats().total;
    client.preconnect(URL, 1).await.unwrap();
    let after = client.stats().total;
    assert_eq!(after.bytes_sent, before.bytes_sent);
    assert_eq!(after.bytes_received, before.bytes_received);
    settle(&client, &world).await;
}

/// R-LIFE-1: what is idle stays there for others while more is dialled, and each new connection is there as soon as it is open.
#[tokio::test(start_paused = true)]
async fn preconnect_keeps_nothing_from_others() {
    let world = World::new();
    world.serve(|_| ok(""));
    let client = world.client();
    client.get(URL).send().await.unwrap();
    for seconds in [1, 5] {
        world.plan(Dial::Delay(seconds * SECOND));
    }
    let preconnecting = tokio::spawn({
        let client = client.clone();
        async move { client.preconnect(URL, 3).await }
    });
    let_others_run().await;
    let started = Instant::now();
    let response = client.get(URL).send().await.unwrap();
    assert!(response.reused());
    assert_eq!(started.elapsed(), Duration::ZERO);
    advance(SECOND + MILLI).await;
    until("one more is idle", || {
        client.stats().total.connections_idle == 2
    })
    .await;
    assert!(!preconnecting.is_finished());
    assert_eq!(preconnecting.await.unwrap().unwrap(), 3);
    settle(&client, &world).await;
}
