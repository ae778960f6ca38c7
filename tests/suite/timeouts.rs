//! Every limit of `Timeouts`: it strikes when it should, says what it is, and leaves no connection behind.

use std::num::NonZeroUsize;
use std::time::Duration;

use sockeye::stats::CloseCause;
use sockeye::{Body, Client, Error, ErrorKind, Limits, Phase, Sent, Timeouts};
use tokio::time::{Instant, advance, sleep};

use crate::support::peer::{Dial, World, let_others_run, ok, settle};
use crate::support::streams::{Pieces, fed, within_polls};

const SECOND: Duration = Duration::from_secs(1);

/// A limit and slack for the rounding of the timer.
fn about(limit: Duration, took: Duration) -> bool {
    took >= limit && took <= limit + Duration::from_millis(5)
}

fn only_one() -> Limits {
    Limits::default().with_max_connections(NonZeroUsize::new(1))
}

/// The error tells the limit, the setting and whom the call was for.
#[track_caller]
fn tells(error: &Error, phase: Phase, parts: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.is_timeout());
    assert_eq!(error.phase(), Some(phase), "{error}");
    let told = error.to_string();
    for part in parts.iter().chain(&["http://peer.test"]) {
        assert!(told.contains(part), "{part:?} is not in {told:?}");
    }
}

async fn works_again(client: &Client, world: &World, accepts: usize) {
    world.serve(|_| ok("fine"));
    let response = client.get("http://peer.test/again").send().await.unwrap();
    assert!(!response.reused(), "a connection that timed out was reused");
    assert_eq!(response.text().await.unwrap(), "fine");
    assert_eq!(world.accepts(), accepts);
    settle(client, world).await;
}

#[tokio::test(start_paused = true)]
async fn head() {
    let world = World::new();
    let timeouts = Timeouts::default().with_head(Some(3 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            connection.closed().await;
        }
    });
    let started = Instant::now();
    let error = client.get("http://peer.test/").send().await.unwrap_err();
    assert!(about(3 * SECOND, started.elapsed()));
    tells(
        &error,
        Phase::Head,
        &["3s", "Timeouts::head", "Timeouts::patient()", "GET"],
    );
    assert_eq!(error.sent(), Sent::All);
    assert!(!error.is_connect());
    peer.await.unwrap();
    let total = client.stats().total;
    assert_eq!(total.timeouts.get(Phase::Head), 1);
    assert_eq!(total.errors.get(ErrorKind::Timeout), 1);
    assert_eq!(total.connections_closed.get(CloseCause::Error), 1);
    works_again(&client, &world, 2).await;
}

/// An interim response does not restart the head limit (ruling 18), nor does a head that dribbles.
#[tokio::test(start_paused = true)]
async fn head_is_not_extended_by_what_is_no_head() {
    for piece in ["HTTP/1.1 103 Early Hints\r\n\r\n", "H"] {
        let world = World::new();
        let timeouts = Timeouts::default().with_head(Some(3 * SECOND));
        let client = world.builder().timeouts(timeouts).build().unwrap();
        let peer = tokio::spawn({
            let world = world.clone();
            async move {
                let mut connection = world.accept().await;
                connection.read_request().await;
                let dribble = if piece == "H" {
                    "HTTP/1.1 200 OK\r\nx-a: b\r\n"
                } else {
                    piece
                };
                for byte in dribble.bytes().cycle() {
                    let text = [byte];
                    let sent = if piece == "H" {
                        &text
                    } else {
                        piece.as_bytes()
                    };
                    if !connection.try_write(sent).await {
                        return;
                    }
                    sleep(SECOND).await;
                }
            }
        });
        let started = Instant::now();
        let error = client.get("http://peer.test/").send().await.unwrap_err();
        assert!(
            about(3 * SECOND, started.elapsed()),
            "{:?}",
            started.elapsed()
        );
        tells(&error, Phase::Head, &["Timeouts::head"]);
        peer.await.unwrap();
        settle(&client, &world).await;
    }
}

/// The head limit runs from the end of the request, not from its beginning.
#[tokio::test(start_paused = true)]
async fn head_begins_when_the_request_is_sent() {
    let world = World::new();
    let timeouts = Timeouts::default().with_head(Some(3 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let (feed, body) = fed();
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            sleep(2 * SECOND).await;
            connection.write(ok("fine")).await;
            connection.closed().await;
        }
    });
    let call = tokio::spawn(
        client
            .post("http://peer.test/")
            .body(Body::stream(body))
            .send(),
    );
    for _ in 0..5 {
        feed.give("x");
        sleep(2 * SECOND).await;
    }
    drop(feed);
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.text().await.unwrap(), "fine");
    settle(&client, &world).await;
    client.close_idle();
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn read() {
    let world = World::new();
    let timeouts = Timeouts::default().with_read(Some(3 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            connection
                .write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
                .await;
            for _ in 0..4 {
                sleep(2 * SECOND).await;
                connection.write("x").await;
            }
            connection.closed().await;
        }
    });
    let mut response = client.get("http://peer.test/").send().await.unwrap();
    let started = Instant::now();
    let mut got = 0;
    let error = loop {
        match response.chunk().await {
            Ok(chunk) => got += chunk.unwrap().len(),
            Err(error) => break error,
        }
    };
    assert_eq!(got, 4, "two seconds between two pieces are allowed");
    assert!(
        about(11 * SECOND, started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    tells(
        &error,
        Phase::Read,
        &["3s", "Timeouts::read", "Timeouts::patient()"],
    );
    assert!(response.chunk().await.unwrap().is_none());
    drop(response);
    peer.await.unwrap();
    let total = client.stats().total;
    assert_eq!(total.timeouts.get(Phase::Read), 1);
    works_again(&client, &world, 2).await;
}

/// The read limit counts only while a read is waiting (ruling 18).
#[tokio::test(start_paused = true)]
async fn read_does_not_count_while_nobody_reads() {
    let world = World::new();
    let timeouts = Timeouts::default().with_read(Some(3 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            connection
                .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na")
                .await;
            sleep(20 * SECOND).await;
            connection.write("b").await;
            connection.closed().await;
        }
    });
    let mut response = client.get("http://peer.test/").send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "a");
    sleep(18 * SECOND).await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "b");
    settle(&client, &world).await;
}

/// The same when a read was begun and dropped before the pause, as `select!` does.
#[tokio::test(start_paused = true)]
async fn read_does_not_count_after_a_read_was_dropped() {
    let world = World::new();
    let timeouts = Timeouts::default().with_read(Some(3 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            connection
                .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na")
                .await;
            sleep(20 * SECOND).await;
            connection.write("b").await;
            connection.closed().await;
        }
    });
    let mut response = client.get("http://peer.test/").send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "a");
    assert!(within_polls(1, response.chunk()).await.is_none());
    sleep(18 * SECOND).await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "b");
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn write() {
    let world = World::new();
    world.buffer(1024);
    let timeouts = Timeouts::default().with_write(Some(3 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            // Progress restarts the limit; then the peer reads no more.
            for _ in 0..4 {
                sleep(2 * SECOND).await;
                connection.take(512).await.unwrap();
            }
            connection
        }
    });
    let started = Instant::now();
    let error = client
        .post("http://peer.test/")
        .body(vec![b'x'; 1024 * 1024])
        .send()
        .await
        .unwrap_err();
    assert!(
        about(11 * SECOND, started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    tells(&error, Phase::Write, &["3s", "Timeouts::write", "POST"]);
    assert_eq!(error.sent(), Sent::Part);
    drop(peer.await.unwrap());
    assert_eq!(client.stats().total.timeouts.get(Phase::Write), 1);
    world.buffer(1024 * 1024);
    works_again(&client, &world, 2).await;
}

/// Time in which the caller's own body has nothing to give does not count as writing (ruling 18); the total does.
#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_runs_into_the_total_only() {
    let world = World::new();
    let timeouts = Timeouts::all(3 * SECOND).with_total(Some(60 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_head().await.unwrap();
            assert_eq!(connection.read_chunk().await.unwrap(), b"first");
            connection.closed().await;
        }
    });
    let (feed, body) = fed();
    feed.give("first");
    let started = Instant::now();
    let error = client
        .post("http://peer.test/")
        .body(Body::stream(body))
        .send()
        .await
        .unwrap_err();
    assert!(about(60 * SECOND, started.elapsed()));
    tells(&error, Phase::Write, &["60s", "total", "Timeouts::total"]);
    assert!(feed.is_dropped());
    peer.await.unwrap();
    works_again(&client, &world, 2).await;
}

#[tokio::test(start_paused = true)]
async fn connect() {
    let world = World::new();
    world.plan(Dial::Hang);
    let client = world.builder().connect_timeout(3 * SECOND).build().unwrap();
    let started = Instant::now();
    let error = client.get("http://peer.test/").send().await.unwrap_err();
    assert!(about(3 * SECOND, started.elapsed()));
    tells(&error, Phase::Connect, &["3s", "Timeouts::connect"]);
    assert!(error.is_connect());
    assert_eq!(error.sent(), Sent::Nothing);
    settle(&client, &world).await;
    let total = client.stats().total;
    assert_eq!(total.timeouts.get(Phase::Connect), 1);
    assert_eq!((total.connect_failures, total.connections_opened), (1, 0));
    works_again(&client, &world, 1).await;
}

/// A request's own connect limit ends its wait, not the dial, which serves the next call (ruling 4).
#[tokio::test(start_paused = true)]
async fn the_connect_limit_of_a_call_leaves_the_dial_alone() {
    let world = World::new();
    world.plan(Dial::Delay(5 * SECOND));
    world.serve(|_| ok("fine"));
    let client = world.client();
    let started = Instant::now();
    let error = client
        .get("http://peer.test/")
        .timeouts(Timeouts::default().with_connect(Some(SECOND)))
        .send()
        .await
        .unwrap_err();
    assert!(about(SECOND, started.elapsed()));
    tells(&error, Phase::Connect, &["1s", "Timeouts::connect"]);
    let response = client.get("http://peer.test/").send().await.unwrap();
    assert!(
        about(5 * SECOND, started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(response.text().await.unwrap(), "fine");
    assert_eq!(world.dials(), 1);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn pool() {
    let world = World::new();
    let timeouts = Timeouts::default().with_pool(Some(3 * SECOND));
    let client = world
        .builder()
        .timeouts(timeouts)
        .limits(only_one())
        .build()
        .unwrap();
    let held = tokio::spawn(client.get("http://peer.test/held").send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    let started = Instant::now();
    let error = client.get("http://peer.test/").send().await.unwrap_err();
    assert!(about(3 * SECOND, started.elapsed()));
    tells(
        &error,
        Phase::Pool,
        &["3s", "Timeouts::pool", "Limits::max_connections"],
    );
    assert_eq!(error.sent(), Sent::Nothing);
    assert_eq!(client.stats().total.timeouts.get(Phase::Pool), 1);
    connection.write(ok("held")).await;
    assert_eq!(held.await.unwrap().unwrap().text().await.unwrap(), "held");
    settle(&client, &world).await;
}

/// The pool limit counts only time in which no dial runs for the waiter (ruling 4).
#[tokio::test(start_paused = true)]
async fn pool_does_not_count_while_a_dial_runs() {
    let world = World::new();
    world.plan(Dial::Delay(8 * SECOND));
    world.serve(|_| ok("fine"));
    let timeouts = Timeouts::default().with_pool(Some(3 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let started = Instant::now();
    let response = client.get("http://peer.test/").send().await.unwrap();
    assert!(about(8 * SECOND, started.elapsed()));
    assert_eq!(response.text().await.unwrap(), "fine");
    settle(&client, &world).await;
}

/// Two seconds in line, then five with a dial, then one more in line: only three of them count.
#[tokio::test(start_paused = true)]
async fn pool_counts_the_time_before_a_dial() {
    let world = World::new();
    let timeouts = Timeouts::default().with_pool(Some(3 * SECOND));
    let client = world
        .builder()
        .timeouts(timeouts)
        .limits(only_one())
        .build()
        .unwrap();
    let mut held = Box::pin(client.get("http://peer.test/held").send());
    assert!(within_polls(1, &mut held).await.is_none());
    let_others_run().await;
    assert!(within_polls(1, &mut held).await.is_none());
    let mut connection = world.accept().await;
    connection.read_request().await;
    world.plan(Dial::Delay(5 * SECOND));
    let started = Instant::now();
    let waiting = tokio::spawn(client.get("http://peer.test/").send());
    sleep(2 * SECOND).await;
    // The held call is dropped: its connection closes, and a dial begins for the one in line.
    drop(held);
    world.serve(|_| ok("fine"));
    let response = waiting.await.unwrap().unwrap();
    assert!(
        about(7 * SECOND, started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(response.text().await.unwrap(), "fine");
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn attempt() {
    let world = World::new();
    let timeouts = Timeouts::default().with_attempt(Some(3 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            connection.closed().await;
        }
    });
    let started = Instant::now();
    let error = client.get("http://peer.test/").send().await.unwrap_err();
    assert!(about(3 * SECOND, started.elapsed()));
    tells(&error, Phase::Head, &["3s", "Timeouts::attempt"]);
    peer.await.unwrap();
    works_again(&client, &world, 2).await;
}

/// One try goes up to its head; its body is not part of it.
#[tokio::test(start_paused = true)]
async fn attempt_ends_with_the_head() {
    let world = World::new();
    let timeouts = Timeouts::default().with_attempt(Some(3 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            sleep(2 * SECOND).await;
            connection
                .write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
                .await;
            sleep(5 * SECOND).await;
            connection.write("late").await;
            connection.closed().await;
        }
    });
    let response = client.get("http://peer.test/").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "late");
    settle(&client, &world).await;
}

/// The total strikes in whatever step runs, and says that it is the total.
#[tokio::test(start_paused = true)]
async fn total_in_every_phase() {
    let timeouts = Timeouts::none().with_total(Some(3 * SECOND));

    let world = World::new();
    world.plan(Dial::Hang);
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let error = client.get("http://peer.test/").send().await.unwrap_err();
    tells(&error, Phase::Connect, &["3s", "total"]);
    assert!(!error.is_retryable(), "the whole call is out of time");
    client.close(Duration::ZERO).await;
    settle(&client, &world).await;

    let world = World::new();
    let client = world
        .builder()
        .timeouts(timeouts)
        .limits(only_one())
        .build()
        .unwrap();
    let held = tokio::spawn(
        client
            .get("http://peer.test/held")
            .timeouts(Timeouts::none())
            .send(),
    );
    let mut connection = world.accept().await;
    connection.read_request().await;
    let error = client.get("http://peer.test/").send().await.unwrap_err();
    tells(&error, Phase::Pool, &["3s", "total"]);
    held.abort();
    assert!(held.await.unwrap_err().is_cancelled());
    settle(&client, &world).await;

    let world = World::new();
    world.buffer(1024);
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let (pieces, _) = Pieces::new(1000, 1024);
    let error = client
        .post("http://peer.test/")
        .body(Body::stream(pieces))
        .send()
        .await
        .unwrap_err();
    tells(&error, Phase::Write, &["3s", "total"]);
    settle(&client, &world).await;

    let world = World::new();
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let error = client.get("http://peer.test/").send().await.unwrap_err();
    tells(&error, Phase::Head, &["3s", "total"]);
    settle(&client, &world).await;

    let world = World::new();
    world.serve(|_| "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome".to_owned());
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let started = Instant::now();
    let response = client.get("http://peer.test/").send().await.unwrap();
    sleep(SECOND).await;
    let error = response.bytes().await.unwrap_err();
    assert!(about(3 * SECOND, started.elapsed()));
    tells(&error, Phase::Read, &["3s", "total"]);
    settle(&client, &world).await;
}

/// `.timeout(d)` sets only the total, `.timeouts(t)` replaces all, and the last call wins.
#[tokio::test(start_paused = true)]
async fn limits_of_a_call_replace_those_of_the_client() {
    let world = World::new();
    let client = world
        .builder()
        .timeouts(Timeouts::all(5 * SECOND))
        .timeout(4 * SECOND)
        .build()
        .unwrap();
    let get = || client.get("http://peer.test/");
    for (request, limit, setting) in [
        (get(), 4, "Timeouts::total"),
        (get().timeout(2 * SECOND), 2, "Timeouts::total"),
        (get().timeout(9 * SECOND), 5, "Timeouts::head"),
        (
            get().timeouts(Timeouts::all(7 * SECOND)),
            7,
            "Timeouts::head",
        ),
        (
            get()
                .timeout(SECOND)
                .timeouts(Timeouts::none().with_head(Some(6 * SECOND))),
            6,
            "Timeouts::head",
        ),
        (
            get()
                .timeouts(Timeouts::none().with_head(Some(6 * SECOND)))
                .timeout(3 * SECOND),
            3,
            "Timeouts::total",
        ),
    ] {
        let started = Instant::now();
        let error = request.send().await.unwrap_err();
        let limit = limit * SECOND;
        assert!(about(limit, started.elapsed()), "{error}");
        tells(&error, Phase::Head, &[setting, &format!("{limit:?}")]);
    }
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn without_limits_a_call_waits() {
    let world = World::new();
    let client = world.builder().timeouts(Timeouts::none()).build().unwrap();
    let call = tokio::spawn(client.get("http://peer.test/").send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    advance(Duration::from_secs(24 * 3600)).await;
    connection.write(ok("at last")).await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.text().await.unwrap(), "at last");
    settle(&client, &world).await;
}

/// A duration too large to add to the clock is no limit.
#[tokio::test(start_paused = true)]
async fn the_largest_limits_are_no_limits() {
    let world = World::new();
    world.serve(|_| ok("fine"));
    let timeouts = Timeouts::all(Duration::MAX)
        .with_attempt(Some(Duration::MAX))
        .with_total(Some(Duration::MAX));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let response = client.get("http://peer.test/").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "fine");
    settle(&client, &world).await;
}

/// The timer of a connection that is used again does not strike for the call before.
#[tokio::test(start_paused = true)]
async fn a_limit_of_an_earlier_call_does_not_strike_later() {
    let world = World::new();
    let client = world
        .builder()
        .limits(Limits::default().with_idle_timeout(60 * SECOND))
        .build()
        .unwrap();
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            for wait in [SECOND, 9 * SECOND, 4 * SECOND] {
                connection.read_request().await;
                sleep(wait).await;
                connection.write(ok("fine")).await;
            }
            connection.closed().await;
        }
    });
    let short = Timeouts::default().with_head(Some(2 * SECOND));
    let first = client.get("http://peer.test/").timeouts(short);
    first.send().await.unwrap();
    client.get("http://peer.test/").send().await.unwrap();
    let started = Instant::now();
    let last = client.get("http://peer.test/").timeouts(short);
    let error = last.send().await.unwrap_err();
    assert!(
        about(2 * SECOND, started.elapsed()),
        "the earlier limit wins"
    );
    tells(&error, Phase::Head, &["2s"]);
    assert_eq!(world.accepts(), 1);
    peer.abort();
    settle(&client, &world).await;
}
