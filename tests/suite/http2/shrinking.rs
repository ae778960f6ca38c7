//! How many sessions there are when fewer would do, and how long one lives: limits of the pool on sessions.

use std::num::NonZeroUsize;
use std::sync::Arc;

use sockeye::{Client, ErrorKind, Http2Config, Limits, Phase, Response, Result, Timeouts};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::{SECOND, URL, builder, read};
use crate::support::http2::{Honest, Reply, Report};
use crate::support::peer::{World, let_others_run, settle, until};

fn get(client: &Client) -> JoinHandle<Result<Response>> {
    tokio::spawn(client.get(URL).send())
}

/// Holds every answer until it is told; two streams at once.
fn narrow() -> Honest {
    Honest {
        max_streams: Some(2),
        answer: Arc::new(|_| Reply::new("held").held()),
        ..Honest::default()
    }
}

/// Opens three sessions with two streams each, and lets all of them end.
async fn grown(client: &Client, report: &Report) {
    let first = get(client);
    until("the first has come", || report.count() == 1).await;
    let_others_run().await;
    let mut calls: Vec<_> = (0..5).map(|_| get(client)).collect();
    calls.push(first);
    until("all have come", || report.count() == 6).await;
    for session in 0..3 {
        report.release(session, 2);
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().text().await.unwrap(), "held");
    }
}

/// Of several idle sessions all but one go after 10 s; the last has the whole of `idle_timeout`.
#[tokio::test(start_paused = true)]
async fn extra_sessions_go_first() {
    let world = World::new();
    let client = builder(&world).build().unwrap();
    let report = narrow().serve(&world);
    grown(&client, &report).await;
    assert_eq!((world.accepts(), world.open()), (3, 3));
    sleep(8 * SECOND).await;
    assert_eq!(world.open(), 3);
    sleep(5 * SECOND).await;
    assert_eq!((world.open(), client.stats().total.http2_sessions), (1, 1));
    sleep(40 * SECOND).await;
    assert_eq!(world.open(), 1);
    sleep(5 * SECOND).await;
    let_others_run().await;
    assert_eq!(world.open(), 0);
    settle(&client, &world).await;
}

/// `max_connections` counts sessions: nothing grows beyond it, and calls wait in line instead.
#[tokio::test(start_paused = true)]
async fn sessions_count_as_connections() {
    let world = World::new();
    let limits = Limits::default().with_max_connections(NonZeroUsize::new(2));
    let client = builder(&world)
        .limits(limits)
        .timeouts(Timeouts::none())
        .build()
        .unwrap();
    let report = narrow().serve(&world);
    let first = get(&client);
    until("the first has come", || report.count() == 1).await;
    let_others_run().await;
    let mut calls: Vec<_> = (0..7).map(|_| get(&client)).collect();
    calls.push(first);
    until("two sessions are full", || report.count() == 4).await;
    let_others_run().await;
    let total = client.stats().total;
    assert_eq!(
        (
            total.http2_sessions,
            total.http2_streams,
            total.requests_pending
        ),
        (2, 4, 4)
    );
    for _ in 0..2 {
        report.release(0, 2);
        report.release(1, 2);
        let_others_run().await;
    }
    for call in calls {
        call.await.unwrap().unwrap().bytes().await.unwrap();
    }
    assert_eq!(world.accepts(), 2);
    report.expect_no_violation();
    settle(&client, &world).await;
}

/// A session that is idle makes room for another origin where there is none.
#[tokio::test(start_paused = true)]
async fn an_idle_session_makes_room() {
    let world = World::new();
    let limits = Limits::default().with_max_connections(NonZeroUsize::new(1));
    let client = builder(&world).limits(limits).build().unwrap();
    Honest::default().serve(&world);
    for url in [URL, "http://other.test/", URL] {
        assert_eq!(read(client.get(url)).await.unwrap().body, b"/");
        let_others_run().await;
        assert_eq!(world.open(), 1);
    }
    assert_eq!(world.accepts(), 3);
    settle(&client, &world).await;
}

/// With `max_requests_per_connection` and `max_lifetime` a session is replaced, and no call notices.
#[tokio::test(start_paused = true)]
async fn sessions_that_have_lived_long_enough() {
    let requests = Limits::default().with_max_requests_per_connection(Some(10));
    let lifetime = Limits::default().with_max_lifetime(Some(SECOND));
    for (limits, sessions) in [(requests, 10..=11), (lifetime, 4..=8)] {
        let world = World::new();
        let client = builder(&world).limits(limits).build().unwrap();
        let server = Honest {
            answer: Arc::new(|_| Reply::new("fine").after(SECOND / 20)),
            ..Honest::default()
        };
        let report = server.serve(&world);
        for _ in 0..100 {
            assert_eq!(read(client.get(URL)).await.unwrap().body, b"fine");
        }
        assert!(
            sessions.contains(&world.accepts()),
            "{} sessions",
            world.accepts()
        );
        assert_eq!(report.count(), 100);
        report.expect_no_violation();
        let_others_run().await;
        assert!(world.open() <= 1);
        settle(&client, &world).await;
    }
}

/// With `spread` busy streams are shared out before a session is full; without it they are not.
#[tokio::test(start_paused = true)]
async fn streams_are_spread_where_it_is_wanted() {
    for (spread, sessions) in [(None, 1), (NonZeroUsize::new(2), 2)] {
        let world = World::new();
        let config = Http2Config::default().with_spread(spread);
        let client = builder(&world).http2(config).build().unwrap();
        let server = Honest {
            answer: Arc::new(|_| Reply::new("fine").after(SECOND / 20)),
            ..Honest::default()
        };
        let report = server.serve(&world);
        let mut callers = JoinSet::new();
        for _ in 0..40 {
            let client = client.clone();
            callers.spawn(async move {
                for _ in 0..20 {
                    assert_eq!(read(client.get(URL)).await.unwrap().body, b"fine");
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        assert_eq!(world.accepts(), sessions);
        report.expect_no_violation();
        settle(&client, &world).await;
    }
}

/// A line has an end: calls beyond `max_pending` are refused, and the limit on waiting for a stream is the pool's.
#[tokio::test(start_paused = true)]
async fn lines_have_an_end() {
    let world = World::new();
    let limits = Limits::default()
        .with_max_connections(NonZeroUsize::new(1))
        .with_max_pending(NonZeroUsize::new(3));
    // The calls that run take as long as they like.
    let client = builder(&world).limits(limits).build().unwrap();
    let report = narrow().serve(&world);
    let patient = || tokio::spawn(client.get(URL).timeouts(Timeouts::none()).send());
    let first = patient();
    until("the first has come", || report.count() == 1).await;
    let_others_run().await;
    let second = patient();
    until("the second has come", || report.count() == 2).await;
    let started = Instant::now();
    let waiting: Vec<_> = (0..3).map(|_| get(&client)).collect();
    let_others_run().await;
    let error = read(client.get(URL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PoolFull, "{error}");
    for call in waiting {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Some(Phase::Pool)),
            "{error}"
        );
        assert_eq!(error.sent(), sockeye::Sent::Nothing);
    }
    assert_eq!(started.elapsed(), 10 * SECOND);
    report.release(0, 2);
    for call in [first, second] {
        call.await.unwrap().unwrap().bytes().await.unwrap();
    }
    assert_eq!(report.count(), 2);
    settle(&client, &world).await;
}
