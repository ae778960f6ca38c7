//! Many requests at once: streams that are cancelled by the thousand, lines that are longer than all streams, and row C41.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sockeye::{Client, Http2Config, Timeouts};
use tokio::task::{JoinSet, yield_now};

use super::{SECOND, URL, builder, client, read, served};
use crate::support::http2::frames::{END_STREAM, MAX_CONCURRENT_STREAMS, RST_STREAM};
use crate::support::http2::{Frames, Honest, Reply, Session};
use crate::support::peer::{World, let_others_run, settle, until};
use crate::support::streams::{Random, within_polls};

/// Reads some of a large body and drops the rest, which is on its way.
async fn cancelled(client: &Client) {
    let response = client.get("http://peer.test/large").send().await;
    let mut response = response.unwrap_or_else(|error| panic!("{error}"));
    response.chunk().await.unwrap().unwrap();
}

/// 5,000 requests are dropped with DATA in flight: no call fails, and the session is not spoilt. With the defaults of h2 it
/// ends after some 1,300.
#[tokio::test(start_paused = true)]
async fn a_storm_of_cancelled_streams() {
    let world = World::new();
    let client = client(&world);
    let server = Honest {
        answer: Arc::new(|request| match request.head.path() {
            "/large" => Reply::new([b'x'; 100_000]),
            path => Reply::new(path),
        }),
        ..Honest::default()
    };
    let report = server.serve(&world);
    for round in 0..100 {
        let mut calls = JoinSet::new();
        for _ in 0..50 {
            let client = client.clone();
            calls.spawn(async move { cancelled(&client).await });
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
        if round % 10 == 9 {
            assert_eq!(
                read(client.get("http://peer.test/next"))
                    .await
                    .unwrap()
                    .body,
                b"/next"
            );
        }
    }
    assert_eq!(report.count(), 5010);
    let resets: usize = (0..world.accepts())
        .map(|number| report.log(number).count(RST_STREAM))
        .sum();
    assert!(resets > 1000, "{resets} were in flight");
    // A session that has cancelled as many streams as it may remember is replaced, and no more often.
    assert!(world.accepts() <= 3, "{} sessions", world.accepts());
    report.expect_no_violation();
    settle(&client, &world).await;
}

/// The same with calls that are dropped after any number of polls, wherever they are then.
#[tokio::test(start_paused = true)]
async fn calls_dropped_anywhere() {
    let world = World::new();
    let config = Http2Config::default().with_max_sessions_per_origin(NonZeroUsize::MIN);
    let client = builder(&world).http2(config).build().unwrap();
    let server = Honest {
        max_streams: Some(5),
        answer: Arc::new(|request| match request.body.len() {
            0 => Reply::new([b'x'; 40_000]).after(SECOND / 1000),
            _ => Reply::new(request.body.as_slice()),
        }),
        ..Honest::default()
    };
    let report = server.serve(&world);
    let mut random = Random::new(7);
    for _ in 0..200 {
        let mut calls = JoinSet::new();
        for _ in 0..10 {
            let polls = usize::try_from(random.below(12)).unwrap() + 1;
            let request = match random.below(2) {
                0 => client.get(URL),
                _ => client.post(URL).body(vec![b'y'; 50_000]),
            };
            calls.spawn(async move {
                let outcome = within_polls(polls, read(request)).await;
                outcome.is_none_or(|answer| answer.unwrap().body.len() >= 40_000)
            });
        }
        while let Some(call) = calls.join_next().await {
            assert!(call.unwrap());
        }
    }
    let_others_run().await;
    assert_eq!(read(client.get(URL)).await.unwrap().body.len(), 40_000);
    assert!(report.most().iter().all(|most| *most <= 100));
    settle(&client, &world).await;
}

/// 1,000 calls on four sessions of 128 streams: 488 wait, and all are served in the order in which they came.
#[tokio::test(start_paused = true)]
async fn a_thousand_calls() {
    let world = World::new();
    let client = builder(&world).timeouts(Timeouts::none()).build().unwrap();
    let server = Honest {
        max_streams: Some(128),
        answer: Arc::new(|request| Reply::new(request.head.path()).held()),
        ..Honest::default()
    };
    let report = server.serve(&world);
    // So that the limit is known on the first session.
    let first = tokio::spawn(read(client.get(URL)));
    until("the first has come", || report.count() == 1).await;
    let_others_run().await;
    report.release(0, 1);
    first.await.unwrap().unwrap();

    let served = Arc::new(AtomicUsize::new(0));
    let mut calls = JoinSet::new();
    for number in 0..1000 {
        let (client, served) = (client.clone(), Arc::clone(&served));
        calls.spawn(async move {
            let path = format!("/{number}");
            let answer = read(client.get(format!("http://peer.test{path}")))
                .await
                .unwrap();
            assert_eq!(answer.body, path.as_bytes());
            served.fetch_add(1, Ordering::SeqCst);
        });
        yield_now().await;
    }
    until("all sessions are full", || report.count() == 513).await;
    let_others_run().await;
    let total = client.stats().total;
    assert_eq!(
        (
            total.http2_sessions,
            total.http2_streams,
            total.requests_pending
        ),
        (4, 512, 488)
    );
    assert_eq!(
        (0..4).map(|number| report.open(number)).collect::<Vec<_>>(),
        [128; 4]
    );
    // One after the other, so that it is seen who comes next.
    for next in 0..488 {
        report.release(next % 4, 1);
        until("another has come", || report.count() == 514 + next).await;
    }
    let requests = report.requests();
    let waited = requests[513..]
        .iter()
        .map(|request| request.head.path().to_owned());
    let in_line: Vec<_> = (512..1000).map(|number| format!("/{number}")).collect();
    assert_eq!(waited.collect::<Vec<_>>(), in_line);
    for session in 0..4 {
        report.release(session, 128);
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    assert_eq!((served.load(Ordering::SeqCst), world.accepts()), (1000, 4));
    assert_eq!(report.most(), [128; 4]);
    report.expect_no_violation();
    settle(&client, &world).await;
}

/// C41: 200 replies in one burst, each of a head, a little DATA and trailers, as gRPC has them.
#[tokio::test(start_paused = true)]
async fn c41_a_burst_of_small_replies() {
    for _ in 0..2 {
        let world = World::new();
        let client = client(&world);
        let first = tokio::spawn(read(client.get(URL)));
        let mut session = Session::accept(&world).await;
        session.send(Frames::new().settings(&[(MAX_CONCURRENT_STREAMS, 250)]));
        session.head().await;
        session.send(Frames::new().ok(1).end(1, ""));
        first.await.unwrap().unwrap();
        let mut calls = JoinSet::new();
        for _ in 0..200 {
            let request = client.post(URL).header("te", "trailers").body("ask");
            calls.spawn(read(request));
        }
        let mut burst = Frames::new();
        for _ in 0..200 {
            let head = session.head().await;
            let fields = [(":status", "200"), ("content-type", "application/grpc")];
            burst = burst
                .head(head.stream, 0, &fields)
                .data(head.stream, "reply");
            burst = burst.head(head.stream, END_STREAM, &[("grpc-status", "0")]);
        }
        session.send(burst);
        while let Some(call) = calls.join_next().await {
            assert_eq!(call.unwrap().unwrap().body, b"reply");
        }
        assert_eq!(world.accepts(), 1);
        drop(session);
        until("it has closed", || world.open() == 0).await;
        settle(&client, &world).await;
    }
}

/// C22: h2 answers what comes for a stream that is over with a reset of its own, and bears that only so often. The session is
/// replaced before.
#[tokio::test(start_paused = true)]
async fn c22_late_frames_wear_a_session_out() {
    let world = World::new();
    let client = client(&world);
    let report = Honest::default().serve(&world);
    for _ in 0..520 {
        read(client.get(URL)).await.unwrap();
    }
    let late = |from: u32, count: u32| {
        Frames::new().times(count, |frames, number| {
            frames.data(1 + 2 * (from + number), "late")
        })
    };
    report.say(0, late(0, 511));
    let resets = |number| report.log(number).count(RST_STREAM);
    until("each is answered", || resets(0) == 511).await;
    read(client.get(URL)).await.unwrap();
    assert_eq!(world.accepts(), 1);
    report.say(0, late(511, 1));
    until("the last is answered", || resets(0) == 512).await;
    let_others_run().await;
    read(client.get(URL)).await.unwrap();
    assert_eq!(world.accepts(), 2);
    settle(&client, &world).await;
}

/// Ruling 2: a server that ends its bodies with an empty frame is a busy one, and no flood.
#[tokio::test(start_paused = true)]
async fn ends_of_bodies_are_no_flood() {
    let world = World::new();
    let client = client(&world);
    let mut session = served(&client, &world).await;
    for _ in 0..102 {
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            calls.spawn(read(client.get(URL)));
        }
        for _ in 0..100 {
            let stream = session.head().await.stream;
            session.send(Frames::new().ok(stream).data(stream, "x").end(stream, ""));
        }
        while let Some(call) = calls.join_next().await {
            assert_eq!(call.unwrap().unwrap().body, b"x");
        }
    }
    assert_eq!(world.accepts(), 1);
    drop(session);
    until("it has closed", || world.open() == 0).await;
    settle(&client, &world).await;
}

/// Ruling 2: a server that opens its windows again for each small body is no flood either.
#[tokio::test(start_paused = true)]
async fn windows_that_are_opened_for_each_body_are_no_flood() {
    let world = World::new();
    let client = client(&world);
    let mut session = None;
    for _ in 0..54 {
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            calls.spawn(read(client.post(URL).body("small")));
        }
        let session = match &mut session {
            Some(session) => session,
            none => none.insert(Session::begin(&world).await),
        };
        for _ in 0..100 {
            let stream = session.head().await.stream;
            let opened = Frames::new().window(0, 5).window(stream, 5);
            session.send(opened.ok(stream).end(stream, "x"));
        }
        while let Some(call) = calls.join_next().await {
            assert_eq!(call.unwrap().unwrap().body, b"x");
        }
    }
    assert_eq!(world.accepts(), 1);
    drop(session);
    until("it has closed", || world.open() == 0).await;
    settle(&client, &world).await;
}
