//! Which session a stream goes to, how many there are, and how they end: rows C2, C32, C33, C42; scenarios 32 to 34 of the
//! pool's rules.

use std::num::NonZeroUsize;
use std::sync::Arc;

use sockeye::{Client, ErrorKind, Http2Config, Phase, RequestBuilder, Result, Timeouts};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::{SECOND, URL, builder, client, read};
use crate::support::http2::frames::{
    END_STREAM, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY, NO_ERROR, REFUSED_STREAM,
};
use crate::support::http2::{Frames, Head, Honest, Reply, Session};
use crate::support::peer::{World, let_others_run, settle, until};

fn get(client: &Client, path: &str) -> JoinHandle<Result<String>> {
    sent(client.get(format!("http://peer.test{path}")))
}

/// A call whose body is read to the end at once: one that is not holds its stream.
fn sent(request: RequestBuilder) -> JoinHandle<Result<String>> {
    tokio::spawn(async move { request.send().await?.text().await })
}

async fn text(call: JoinHandle<Result<String>>) -> String {
    call.await.unwrap().unwrap()
}

/// A server that answers when it is told, and takes so many streams at once.
fn holding(max_streams: u32) -> Honest {
    Honest {
        max_streams: Some(max_streams),
        answer: Arc::new(|request| Reply::new(request.head.path()).held()),
        ..Honest::default()
    }
}

fn sessions(most: usize) -> Http2Config {
    let most = NonZeroUsize::new(most).unwrap();
    Http2Config::default().with_max_sessions_per_origin(most)
}

/// A client whose calls wait for as long as it takes.
fn patient(world: &World, config: Http2Config) -> Client {
    let client = builder(world).http2(config).timeouts(Timeouts::none());
    client.build().unwrap()
}

/// C2: a server that is none of HTTP/2, and says so as soon as it sees the preface. The call ends; it does not dial for ever.
#[tokio::test(start_paused = true)]
async fn c02_a_session_that_ends_before_its_first_request() {
    for (reply, kind, said) in [
        (
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            ErrorKind::Protocol,
            "HTTP/1",
        ),
        ("", ErrorKind::Io, ""),
    ] {
        let world = World::new();
        let client = client(&world);
        let peers = world.clone();
        tokio::spawn(async move {
            loop {
                let session = Session::accept(&peers).await.silent();
                session.send(Frames::new().raw(reply));
                assert!(peers.accepts() < 1000, "it dials for ever");
            }
        });
        let error = read(client.get(URL)).await.unwrap_err();
        assert_eq!(
            (error.kind(), world.accepts() <= 3),
            (kind, true),
            "{error}"
        );
        assert!(error.to_string().contains(said), "{error}");
        settle(&client, &world).await;
    }
}

/// 32, R-H2-3: sessions are opened as their streams run out, and no more than may be; then calls wait in line.
#[tokio::test(start_paused = true)]
async fn t32_growth() {
    for (most, open) in [(4, vec![10, 10, 5]), (1, vec![10])] {
        let world = World::new();
        let client = patient(&world, sessions(most));
        let report = holding(10).serve(&world);
        // So that the limit is known.
        let first = get(&client, "/first");
        until("the first has come", || report.count() == 1).await;
        let_others_run().await;
        report.release(0, 1);
        text(first).await;

        let mut calls = Vec::new();
        for number in 0..25 {
            calls.push(get(&client, &format!("/{number}")));
            let_others_run().await;
        }
        let now: Vec<_> = (0..world.accepts())
            .map(|number| report.open(number))
            .collect();
        assert_eq!(now, open);
        let running: usize = open.iter().sum();
        assert_eq!(client.stats().total.http2_streams, running);
        assert_eq!(client.stats().total.http2_sessions, open.len());
        assert_eq!(client.stats().total.requests_pending, 25 - running);
        // One by one, so that the order in which the waiters are served is seen.
        for _ in 0..25 {
            for session in 0..open.len() {
                report.release(session, 1);
            }
            let_others_run().await;
        }
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(text(call).await, format!("/{number}"));
        }
        if most == 1 {
            let paths = report.requests();
            let paths = paths
                .iter()
                .skip(1)
                .map(|request| request.head.path().to_owned());
            let in_order: Vec<_> = (0..25).map(|number| format!("/{number}")).collect();
            assert_eq!(paths.collect::<Vec<_>>(), in_order);
        }
        assert!(report.most().iter().all(|most| *most <= 10));
        report.expect_no_violation();
        settle(&client, &world).await;
    }
}

/// 33, C32, R-H2-4: a limit that falls to nothing opens no stream and ends none; one that rises serves those who wait.
#[tokio::test(start_paused = true)]
async fn t33_a_limit_that_changes() {
    let world = World::new();
    let client = patient(&world, sessions(1));
    let report = holding(10).serve(&world);
    let first = get(&client, "/first");
    until("the first has come", || report.count() == 1).await;
    let_others_run().await;
    let mut calls: Vec<_> = (0..9).map(|_| get(&client, "/running")).collect();
    until("ten run", || report.open(0) == 10).await;
    calls.push(first);

    report.limit(0, 0);
    let_others_run().await;
    calls.extend((0..12).map(|_| get(&client, "/waiting")));
    let_others_run().await;
    assert_eq!(
        (report.count(), client.stats().total.requests_pending),
        (10, 12)
    );
    report.release(0, 10);
    let_others_run().await;
    assert_eq!(
        (report.open(0), report.count(), world.accepts()),
        (0, 10, 1)
    );
    assert_eq!(client.stats().total.requests_pending, 12);
    // With no stream open and calls waiting the session is kept.
    sleep(20 * SECOND).await;
    assert_eq!((world.accepts(), world.open()), (1, 1));

    report.limit(0, 5);
    until("five run", || report.open(0) == 5).await;
    let_others_run().await;
    assert_eq!(client.stats().total.requests_pending, 7);
    report.release(0, 5);
    until("five more run", || report.count() == 20).await;
    report.release(0, 5);
    until("two are left", || report.count() == 22).await;
    report.release(0, 2);
    for call in calls {
        text(call).await;
    }
    assert_eq!(report.most(), [10]);
    report.expect_no_violation();
    settle(&client, &world).await;
}

/// C32: a server that allows no more streams is waited for until a limit strikes.
#[tokio::test(start_paused = true)]
async fn c32_no_stream_is_allowed() {
    let world = World::new();
    let client = builder(&world).http2(sessions(1)).build().unwrap();
    let report = Honest::default().serve(&world);
    assert_eq!(read(client.get(URL)).await.unwrap().body, b"/");
    report.limit(0, 0);
    let_others_run().await;
    for _ in 0..2 {
        let started = Instant::now();
        let error = read(client.get(URL)).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.phase(), Some(Phase::Pool), "{error}");
        assert_eq!(started.elapsed(), 10 * SECOND);
    }
    assert_eq!((report.count(), world.accepts()), (1, 1));
    settle(&client, &world).await;
}

/// 34, C33: with GOAWAY(last = 3) streams 1 and 3 end as they would, and 5, though it is a POST, goes to another session.
#[tokio::test(start_paused = true)]
async fn t34_goaway() {
    for code in [NO_ERROR, ENHANCE_YOUR_CALM] {
        let world = World::new();
        let client = client(&world);
        let first = get(&client, "/1");
        let mut session = Session::begin(&world).await;
        assert_eq!(session.head().await.stream, 1);
        let third = get(&client, "/3");
        assert_eq!(session.head().await.stream, 3);
        let fifth = sent(client.post(URL).body("posted"));
        assert_eq!(session.head().await.stream, 5);
        assert_eq!(session.content(5).await, b"posted");
        let report = Honest::default().serve(&world);
        session.send(Frames::new().ok(1).data(1, "on").goaway(3, code));
        assert_eq!(text(fifth).await, "posted");
        assert_eq!(report.requests()[0].connection, 1);
        // Others go there, too.
        assert_eq!(text(get(&client, "/next")).await, "/next");
        session.send(Frames::new().end(1, "e").ok(3).end(3, "three"));
        assert_eq!(
            (text(first).await, text(third).await),
            ("one".into(), "three".into())
        );
        assert_eq!(session.ended().await.len(), 1, "a GOAWAY of ours");
        assert_eq!(world.accepts(), 2);
        settle(&client, &world).await;
    }
}

/// Ruling 7: a session that drains is not cut while its streams are inside their own limits, and closes behind the last.
#[tokio::test(start_paused = true)]
async fn a_session_drains_for_as_long_as_its_streams_run() {
    let world = World::new();
    let client = client(&world);
    let call = tokio::spawn(client.get(URL).send());
    let mut session = Session::begin(&world).await;
    session.head().await;
    session.send(Frames::new().ok(1).goaway(1, NO_ERROR));
    let mut response = call.await.unwrap().unwrap();
    // Read to its end; whatever the client says in the meantime is answered.
    let serving = tokio::spawn(async move {
        for _ in 0..20 {
            sleep(5 * SECOND).await;
            session.send(Frames::new().data(1, "."));
            session.frames_by_now().await;
        }
        session.send(Frames::new().end(1, ""));
        let sent = Instant::now();
        session.ended().await;
        assert!(sent.elapsed() <= 30 * SECOND, "{:?}", sent.elapsed());
    });
    let mut read = 0;
    while let Some(piece) = response.chunk().await.unwrap() {
        read += piece.len();
    }
    assert_eq!(read, 20);
    serving.await.unwrap();
    settle(&client, &world).await;
}

/// Ruling 5: what is refused is tried at most three times; CALM and INADEQUATE_SECURITY once.
#[tokio::test(start_paused = true)]
async fn replays_end() {
    let stream = |stream| Frames::new().rst(stream, REFUSED_STREAM);
    let refusals: [(&dyn Fn(u32) -> Frames, u32); 4] = [
        (&stream, 3),
        (&|_| Frames::new().goaway(0, NO_ERROR), 3),
        (&|_| Frames::new().goaway(0, ENHANCE_YOUR_CALM), 2),
        (&|_| Frames::new().goaway(0, INADEQUATE_SECURITY), 2),
    ];
    for (refusal, attempts) in refusals {
        let world = World::new();
        let client = client(&world);
        let call = tokio::spawn(read(client.post(URL).body("posted")));
        // Which session an attempt comes on is not said here: it may be a new one after a refused stream, too.
        let mut sessions: Vec<Session> = Vec::new();
        for _ in 0..attempts {
            let (mut session, head) = next_request(&world, sessions.pop()).await;
            session.content(head.stream).await;
            session.send(refusal(head.stream));
            sessions.push(session);
        }
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts()),
            (ErrorKind::Io, attempts),
            "{error}"
        );
        assert!(error.is_retryable(), "{error}");
        drop(sessions);
        until("all are closed", || world.open() == 0).await;
        settle(&client, &world).await;
    }
}

/// The next request, on the session of before or on another one.
async fn next_request(world: &World, before: Option<Session>) -> (Session, Head) {
    let other = async {
        let mut session = Session::begin(world).await;
        let head = session.head().await;
        (session, head)
    };
    let Some(mut session) = before else {
        return other.await;
    };
    tokio::select! {
        Some(head) = session.next_head() => (session, head),
        other = other => other,
    }
}

/// A server that goes away after every 100 requests, and clients that notice nothing of it.
#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_all_the_time() {
    let world = World::new();
    let client = client(&world);
    let server = Honest {
        goaway_after: Some(100),
        answer: Arc::new(|request| Reply::new(request.head.path()).after(SECOND / 100)),
        ..Honest::default()
    };
    let report = server.serve(&world);
    let mut callers = JoinSet::new();
    for caller in 0..20 {
        let client = client.clone();
        callers.spawn(async move {
            for number in 0..100 {
                let path = format!("/{caller}/{number}");
                assert_eq!(text(get(&client, &path)).await, path);
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    assert_eq!(report.count(), 2000);
    assert!(world.accepts() >= 20, "{} sessions", world.accepts());
    report.expect_no_violation();
    settle(&client, &world).await;
}

/// C42: h2 ends a session at its 1,024th malformed reply, and all streams with it; it is given up long before.
#[tokio::test(start_paused = true)]
async fn c42_a_session_of_malformed_replies_is_given_up() {
    let world = World::new();
    let client = client(&world);
    let peers = world.clone();
    tokio::spawn(async move {
        loop {
            let mut session = Session::begin(&peers).await;
            tokio::spawn(async move {
                while let Some(head) = session.next_head().await {
                    let frames = Frames::new();
                    session.send(match head.path() {
                        "/good" => frames.head(head.stream, END_STREAM, &[(":status", "200")]),
                        _ => frames.head(head.stream, 0, &[("no", "status")]),
                    });
                }
            });
        }
    });
    for number in 0..1200 {
        let error = read(client.get(URL)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{number}: {error}");
        if number % 10 == 0 {
            let good = read(client.get("http://peer.test/good")).await;
            assert_eq!(good.unwrap().status, 200);
        }
    }
    assert!(
        (2..=4).contains(&world.accepts()),
        "{} sessions",
        world.accepts()
    );
    settle(&client, &world).await;
}

/// C22: frames behind the end of a stream are answered by h2, which counts them; the session is given up before h2 ends it.
#[tokio::test(start_paused = true)]
async fn c22_a_session_of_late_frames_is_given_up() {
    let world = World::new();
    let client = client(&world);
    let peers = world.clone();
    tokio::spawn(async move {
        loop {
            let mut session = Session::begin(&peers).await;
            tokio::spawn(async move {
                while let Some(head) = session.next_head().await {
                    let reply = Frames::new().ok(head.stream).end(head.stream, "done");
                    session.send(reply.data(head.stream, "more"));
                }
            });
        }
    });
    for number in 0..2500 {
        let answer = read(client.get(URL)).await;
        let answer = answer.unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(answer.body, b"done");
    }
    settle(&client, &world).await;
}

/// A stream that is cancelled costs its slot no longer, and what waits for one gets it.
#[tokio::test(start_paused = true)]
async fn a_cancelled_call_passes_its_stream_on() {
    let world = World::new();
    let client = patient(&world, sessions(1));
    let report = holding(1).serve(&world);
    let first = get(&client, "/first");
    until("the first has come", || report.count() == 1).await;
    let_others_run().await;
    let (dropped, second) = (get(&client, "/dropped"), get(&client, "/second"));
    let_others_run().await;
    assert_eq!(client.stats().total.requests_pending, 2);
    // One that waits leaves the line without a trace.
    dropped.abort();
    first.abort();
    until("the second has come", || report.count() == 2).await;
    let paths = report.requests();
    assert_eq!(paths[1].head.path(), "/second");
    report.release(0, 1);
    assert_eq!(text(second).await, "/second");
    assert_eq!(report.log(0).said(), ["RST_STREAM 1 CANCEL"]);
    report.expect_no_violation();
    settle(&client, &world).await;
}
