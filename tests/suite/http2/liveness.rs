//! Servers that fall silent, and sessions that nobody uses: row C45, ruling 3, scenario 35 of the pool's rules.

use std::time::Duration;

use sockeye::{Client, ErrorKind, Http2Config, Phase, Response, Result, Timeouts};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{SECOND, URL, builder, read, served};
use crate::support::http2::frames::{ACK, PING};
use crate::support::http2::{Frames, Honest, Report, Session};
use crate::support::peer::{World, let_others_run, settle, until};

/// A session that has served one request, and a call whose request, on stream 3, has come.
async fn begun(client: &Client, world: &World) -> (JoinHandle<Result<Response>>, Session) {
    let mut session = served(client, world).await;
    let_others_run().await;
    let call = tokio::spawn(client.get(URL).send());
    assert_eq!(session.head().await.stream, 3);
    (call, session)
}

/// When the client's next PING comes.
async fn next_ping(session: &mut Session, since: Instant) -> Duration {
    loop {
        let frame = session.next(PING).await;
        if frame.flags & ACK == 0 {
            return since.elapsed();
        }
    }
}

fn patient(world: &World, config: Http2Config) -> Client {
    let client = builder(world).http2(config).timeouts(Timeouts::none());
    client.build().unwrap()
}

/// How exact times are: the driver looks at the clock about once a second.
const TICK: Duration = Duration::from_secs(1);

#[track_caller]
fn about(time: Duration, expected: Duration) {
    assert!(
        time >= expected && time <= expected + TICK + TICK / 2,
        "{time:?}, not {expected:?}"
    );
}

/// C45: no response ever, and no more of a body: the call's own limits strike, each in its phase, and the stream is cancelled.
/// Ruling 3 b: if nothing was read since the wait began, the server is asked at once.
#[tokio::test(start_paused = true)]
async fn c45_silence_runs_into_the_limits() {
    for (reply, phase, asks) in [
        (Frames::new(), Phase::Head, true),
        (
            Frames::new().head(3, 0, &[(":status", "103")]),
            Phase::Head,
            false,
        ),
        (Frames::new().ok(3), Phase::Read, true),
        (Frames::new().ok(3).data(3, "begun"), Phase::Read, true),
    ] {
        let world = World::new();
        let client = builder(&world).build().unwrap();
        let (call, session) = begun(&client, &world).await;
        let started = Instant::now();
        session.send(reply);
        let log = session.log();
        tokio::spawn(Honest::default().go_on(session, Report::default()));
        let error = match call.await.unwrap() {
            Ok(response) => response.bytes().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Some(phase)),
            "{error}"
        );
        assert_eq!(started.elapsed(), 10 * SECOND);
        let_others_run().await;
        let mut said = log.said();
        said.sort();
        let expected = ["PING", "RST_STREAM 3 CANCEL"];
        assert_eq!(said, &expected[usize::from(!asks)..]);
        // It answers, so the session is as good as before.
        let next = read(client.get("http://peer.test/next")).await.unwrap();
        assert_eq!((next.body.as_slice(), world.accepts()), (&b"/next"[..], 1));
        settle(&client, &world).await;
    }
}

/// 35, ruling 3 a: a server that falls silent is asked after `ping_interval`, and the session ends after `ping_timeout`; the
/// next call gets another one.
#[tokio::test(start_paused = true)]
async fn t35_a_black_hole() {
    let world = World::new();
    let config = Http2Config::default()
        .with_ping_interval(Some(20 * SECOND))
        .with_ping_timeout(5 * SECOND);
    let client = patient(&world, config);
    let (call, mut session) = begun(&client, &world).await;
    // It has shaken hands and says nothing from here on.
    let_others_run().await;
    session.frames_by_now().await;
    session.acknowledge(false);
    let started = Instant::now();
    about(next_ping(&mut session, started).await, 20 * SECOND);
    let error = call.await.unwrap().unwrap_err();
    about(started.elapsed(), 25 * SECOND);
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Some(Phase::Head)),
        "{error}"
    );
    assert!(error.to_string().contains("5s"), "{error}");
    session.ended().await;
    Honest::default().serve(&world);
    let next = read(client.get("http://peer.test/next")).await.unwrap();
    assert_eq!((next.body.as_slice(), world.accepts()), (&b"/next"[..], 2));
    settle(&client, &world).await;
}

/// 35 with the limits of calls: the call ends in its own time, the session in its.
#[tokio::test(start_paused = true)]
async fn t35_a_black_hole_with_limits() {
    let world = World::new();
    let client = builder(&world).build().unwrap();
    let (call, mut session) = begun(&client, &world).await;
    let_others_run().await;
    session.frames_by_now().await;
    session.acknowledge(false);
    let started = Instant::now();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Some(Phase::Head)),
        "{error}"
    );
    assert_eq!(next_ping(&mut session, started).await, 10 * SECOND);
    // The session is suspect: the next call does not wait for it.
    let report = Honest::default().serve(&world);
    let next = read(client.get("http://peer.test/next")).await.unwrap();
    assert_eq!((next.body.as_slice(), world.accepts()), (&b"/next"[..], 2));
    assert_eq!((report.count(), started.elapsed()), (1, 10 * SECOND));
    // Without a byte it ends, though no stream is open.
    session.ended().await;
    about(started.elapsed(), 20 * SECOND);
    settle(&client, &world).await;
}

/// Ruling 3 a: any byte counts as a sign of life, and PING frames are 10 s apart.
#[tokio::test(start_paused = true)]
async fn r03a_any_byte_is_a_sign_of_life() {
    let world = World::new();
    let config = Http2Config::default()
        .with_ping_interval(Some(SECOND))
        .with_ping_timeout(5 * SECOND);
    let client = patient(&world, config);
    let (call, mut session) = begun(&client, &world).await;
    let_others_run().await;
    session.frames_by_now().await;
    session.acknowledge(false);
    let mut last = Instant::now();
    about(next_ping(&mut session, last).await, SECOND);
    for _ in 0..10 {
        // Not the acknowledgement that was asked for; that comes when its time is over, and h2 sends no other PING before.
        sleep(4 * SECOND).await;
        session.send(Frames::new().window(0, 1));
        sleep(2 * SECOND).await;
        session.send(Frames::new().frame(PING, ACK, 0, USER_PING));
        let waited = next_ping(&mut session, last).await;
        assert!(waited >= 10 * SECOND, "{waited:?}");
        last = Instant::now();
    }
    session.send(Frames::new().ok(3).end(3, "done"));
    assert_eq!(call.await.unwrap().unwrap().text().await.unwrap(), "done");
    session.acknowledge(true);
    drop(session);
    until("it has closed", || world.open() == 0).await;
    settle(&client, &world).await;
}

/// Ruling 3 a: nobody is asked while no stream is open, or where it is not wanted.
#[tokio::test(start_paused = true)]
async fn r03a_nobody_is_asked_without_need() {
    let world = World::new();
    let config = Http2Config::default()
        .with_ping_interval(Some(SECOND))
        .with_idle_timeout(300 * SECOND);
    let client = patient(&world, config);
    let report = Honest::default().serve(&world);
    read(client.get(URL)).await.unwrap();
    sleep(200 * SECOND).await;
    assert_eq!(report.log(0).said(), [""; 0]);
    settle(&client, &world).await;

    let world = World::new();
    let client = patient(&world, Http2Config::default().with_ping_interval(None));
    let (call, mut session) = begun(&client, &world).await;
    let_others_run().await;
    session.frames_by_now().await;
    sleep(600 * SECOND).await;
    session.frames_by_now().await;
    assert_eq!(session.log().said(), [""; 0]);
    session.send(Frames::new().ok(3).end(3, ""));
    call.await.unwrap().unwrap();
    drop(session);
    until("it has closed", || world.open() == 0).await;
    settle(&client, &world).await;
}

/// Ruling 3 b: a stream that hits its limit while others are served says nothing of the session.
#[tokio::test(start_paused = true)]
async fn r03b_a_session_that_lives_is_not_asked() {
    let world = World::new();
    let client = builder(&world).build().unwrap();
    let (slow, mut session) = begun(&client, &world).await;
    sleep(5 * SECOND).await;
    let quick = tokio::spawn(read(client.get(URL)));
    let head = session.head().await;
    session.send(Frames::new().ok(head.stream).end(head.stream, "quick"));
    assert_eq!(quick.await.unwrap().unwrap().body, b"quick");
    let error = slow.await.unwrap().unwrap_err();
    assert_eq!(error.phase(), Some(Phase::Head), "{error}");
    let_others_run().await;
    session.frames_by_now().await;
    assert_eq!(session.log().said(), ["RST_STREAM 3 CANCEL"]);
    drop(session);
    until("it has closed", || world.open() == 0).await;
    settle(&client, &world).await;
}

/// Ruling 3 c: after 30 s without a byte the first request comes with a PING; a server that stays silent for 2 s gets no more
/// streams, and another session serves the next call.
#[tokio::test(start_paused = true)]
async fn r03c_the_first_request_after_a_long_silence() {
    for answers in [true, false] {
        let world = World::new();
        let client = patient(&world, Http2Config::default());
        let (first, mut session) = begun(&client, &world).await;
        session.send(Frames::new().ok(3).end(3, "first"));
        assert_eq!(first.await.unwrap().unwrap().text().await.unwrap(), "first");
        let_others_run().await;
        session.frames_by_now().await;
        session.acknowledge(answers);
        sleep(31 * SECOND).await;
        let started = Instant::now();
        let second = tokio::spawn(client.get(URL).send());
        let head = session.head().await;
        assert_eq!((head.stream, started.elapsed()), (5, Duration::ZERO));
        assert_eq!(next_ping(&mut session, started).await, Duration::ZERO);
        sleep(3 * SECOND).await;
        // The call that waits is not given up, but the next one goes elsewhere unless there was an answer.
        let report = Honest::default().serve(&world);
        let third = tokio::spawn(read(client.get("http://peer.test/third")));
        if answers {
            let head = session.head().await;
            session.send(Frames::new().ok(head.stream).end(head.stream, "/third"));
        }
        assert_eq!(third.await.unwrap().unwrap().body, b"/third");
        assert_eq!(
            (world.accepts(), report.count()),
            if answers { (1, 0) } else { (2, 1) }
        );
        session.send(Frames::new().ok(5).end(5, "second"));
        assert_eq!(
            second.await.unwrap().unwrap().text().await.unwrap(),
            "second"
        );
        drop(session);
        until("it has closed", || world.open() < world.accepts()).await;
        settle(&client, &world).await;
    }
}

/// A session without streams is kept for `idle_timeout`, and ends with a GOAWAY.
#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_with_a_goaway() {
    let world = World::new();
    let config = Http2Config::default()
        .with_idle_timeout(20 * SECOND)
        .with_ping_interval(None);
    let client = patient(&world, config);
    let (first, mut session) = begun(&client, &world).await;
    // For as long as a stream is open the time does not run.
    sleep(60 * SECOND).await;
    session.frames_by_now().await;
    session.send(Frames::new().ok(3).end(3, "first"));
    assert_eq!(first.await.unwrap().unwrap().text().await.unwrap(), "first");
    let idle = Instant::now();
    let said = session.ended().await;
    about(idle.elapsed(), 20 * SECOND);
    assert_eq!(said.last().map(String::as_str), Some("GOAWAY 0 NO_ERROR"));
    let_others_run().await;
    assert_eq!(world.open(), 0);
    settle(&client, &world).await;
}

/// http2 rule 2: a server that says nothing at all has 10 s for its SETTINGS.
#[tokio::test(start_paused = true)]
async fn no_settings_at_all() {
    let world = World::new();
    let client = patient(&world, Http2Config::default());
    let started = Instant::now();
    let call = tokio::spawn(client.get(URL).send());
    let mut session = Session::accept(&world).await.silent();
    session.head().await;
    let error = call.await.unwrap().unwrap_err();
    about(started.elapsed(), 10 * SECOND);
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    session.ended().await;
    settle(&client, &world).await;
}

/// What h2 puts into the PING of its user.
const USER_PING: [u8; 8] = [0x3b, 0x7c, 0xdb, 0x7a, 0x0b, 0x87, 0x16, 0xb4];
