//! How sessions end with their client and their runtime: R-LIFE and R-SHARD of the pool's rules.

use std::sync::Arc;

use sockeye::test::at_rest;
use sockeye::{Client, ErrorKind, Http2Config};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

use super::{SECOND, URL, builder, client, read};
use crate::support::http2::{Frames, Honest, Reply, Report, Session};
use crate::support::peer::{World, let_others_run, settle, until};

fn slow() -> Honest {
    Honest {
        answer: Arc::new(|request| Reply::new(request.head.path()).after(3 * SECOND)),
        ..Honest::default()
    }
}

/// R-LIFE-4: what runs may end; nothing new begins, and the session closes behind the last stream.
#[tokio::test(start_paused = true)]
async fn close_waits_for_streams() {
    let world = World::new();
    let client = client(&world);
    let report = slow().serve(&world);
    let calls: Vec<_> = (0..3)
        .map(|_| tokio::spawn(read(client.get(URL))))
        .collect();
    until("all have come", || report.count() == 3).await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close(10 * SECOND).await }
    });
    let_others_run().await;
    let error = read(client.get(URL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed, "{error}");
    let started = Instant::now();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().body, b"/");
    }
    let closed = closing.await.unwrap();
    assert_eq!((closed.finished, closed.cut), (1, 0));
    assert!(started.elapsed() <= 4 * SECOND, "{:?}", started.elapsed());
    until("it has closed", || report.ended(0)).await;
    assert_eq!(report.log(0).said(), ["GOAWAY 0 NO_ERROR"]);
    assert_eq!(world.open(), 0);
    at_rest(&client);
}

/// R-LIFE-4: what does not end in time is cut, and its callers are told why.
#[tokio::test(start_paused = true)]
async fn close_cuts_what_does_not_end() {
    let world = World::new();
    let client = client(&world);
    let server = Honest {
        answer: Arc::new(|_| Reply::new("").held()),
        ..Honest::default()
    };
    let report = server.serve(&world);
    let call = tokio::spawn(read(client.get(URL)));
    until("it has come", || report.count() == 1).await;
    let closed = client.close(SECOND).await;
    assert_eq!((closed.finished, closed.cut), (0, 1));
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed, "{error}");
    until("it has closed", || report.ended(0)).await;
    assert_eq!(world.open(), 0);
    at_rest(&client);
}

/// R-LIFE-5: a client that is dropped while a body is read takes nothing from it; the session ends behind it.
#[tokio::test(start_paused = true)]
async fn a_client_is_dropped_while_a_body_is_read() {
    let world = World::new();
    let client = client(&world);
    let call = tokio::spawn(client.get(URL).send());
    let mut session = Session::begin(&world).await;
    session.head().await;
    session.send(Frames::new().ok(1).data(1, "first "));
    let mut response = call.await.unwrap().unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "first ");
    drop(client);
    sleep(5 * SECOND).await;
    session.frames_by_now().await;
    session.send(Frames::new().data(1, "second "));
    assert_eq!(response.chunk().await.unwrap().unwrap(), "second ");
    session.send(Frames::new().end(1, "third"));
    assert_eq!(response.bytes().await.unwrap(), "third");
    assert_eq!(
        session.ended().await.last().map(String::as_str),
        Some("GOAWAY 0 NO_ERROR")
    );
    let_others_run().await;
    assert_eq!(world.open(), 0);
}

/// `close_idle` closes a session without streams, and no other one.
#[tokio::test(start_paused = true)]
async fn close_idle_spares_sessions_with_streams() {
    let world = World::new();
    let client = client(&world);
    let report = slow().serve(&world);
    let call = tokio::spawn(read(client.get(URL)));
    until("it has come", || report.count() == 1).await;
    client.close_idle();
    assert_eq!(call.await.unwrap().unwrap().body, b"/");
    assert_eq!(world.accepts(), 1);
    client.close_idle();
    until("it has closed", || world.open() == 0).await;
    assert_eq!(read(client.get(URL)).await.unwrap().body, b"/");
    assert_eq!(world.accepts(), 2);
    settle(&client, &world).await;
}

fn single() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Serves the connections that are made while `runtime` runs.
fn serve(runtime: &Runtime, world: &World) -> Report {
    let _inside = runtime.enter();
    Honest::default().serve(world)
}

fn get(runtime: &Runtime, client: &Client) -> u64 {
    runtime.block_on(async {
        let response = client.get(URL).send().await.unwrap();
        let id = response.connection().id;
        assert_eq!(response.text().await.unwrap(), "/");
        id
    })
}

/// 39, R-SHARD-1: two runtimes share a client and no session; the end of one does not touch the other.
#[test]
fn t39_two_runtimes_share_no_session() {
    let world = World::new();
    let config = Http2Config::default().with_ping_interval(None);
    let client = builder(&world).http2(config).build().unwrap();
    let (one, other) = (single(), single());
    // A server of its own for each runtime, which takes only what is dialled while it runs.
    let report = serve(&one, &world);
    let of_one = get(&one, &client);
    assert_eq!(get(&one, &client), of_one);
    drop(one);
    let second = serve(&other, &world);
    let of_other = get(&other, &client);
    assert_ne!(of_other, of_one);
    assert_eq!(get(&other, &client), of_other);
    let third = single();
    let _third = serve(&third, &world);
    let of_third = get(&third, &client);
    assert!(of_third != of_one && of_third != of_other);
    drop(third);
    assert_eq!(get(&other, &client), of_other);
    assert_eq!((report.count(), second.count()), (2, 3));
    other.block_on(settle(&client, &world));
    assert_eq!(world.open(), 1);
}
