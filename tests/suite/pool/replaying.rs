//! What is sent again when a connection turns out to be dead, and where in line it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sockeye::stats::{CloseCause, RetryCause};
use sockeye::{Body, Client, ErrorKind, Response, Result, Sent, Timeouts};
use tokio::time::{Instant, sleep};

use super::{SECOND, URL, at_most, get, held, limited, text};
use crate::support::peer::{Dial, World, let_others_run, ok, settle};
use crate::support::streams::fed;

/// What a peer does to a request on a connection that has served once before, or on a fresh one.
struct Stale {
    reused: bool,
    begun: &'static str,
}

/// How many peers saw the request, and what came of it.
async fn stale(
    case: &Stale,
    request: impl Fn(&Client) -> sockeye::RequestBuilder,
) -> (usize, Result<Response>) {
    let world = World::new();
    let client = world.client();
    let seen = Arc::new(AtomicUsize::new(0));
    let begun = case.begun;
    tokio::spawn({
        let (world, seen) = (world.clone(), Arc::clone(&seen));
        let reused = case.reused;
        async move {
            let mut first = world.accept().await;
            if reused {
                first.read_request().await;
                first.write(ok("before")).await;
            }
            first.read_request().await;
            seen.fetch_add(1, Ordering::SeqCst);
            first.write(begun).await;
            first.close();
            loop {
                let mut next = world.accept().await;
                next.read_request().await;
                seen.fetch_add(1, Ordering::SeqCst);
                next.write(ok("after")).await;
                tokio::spawn(async move { next.closed().await });
            }
        }
    });
    if case.reused {
        client.get(URL).send().await.unwrap();
    }
    let outcome = request(&client).send().await;
    settle(&client, &world).await;
    (seen.load(Ordering::SeqCst), outcome)
}

/// 19, R-RETRY-2 and R-LIVE-8: what is sent again when a kept connection turns out to be dead.
#[tokio::test(start_paused = true)]
async fn t19_stale_race_matrix() {
    let silent = Stale {
        reused: true,
        begun: "",
    };
    let fresh = Stale {
        reused: false,
        begun: "",
    };
    let begun = Stale {
        reused: true,
        begun: "H",
    };
    let interim = Stale {
        reused: true,
        begun: "HTTP/1.1 100 Continue\r\n\r\n",
    };

    let again = |seen, outcome: Result<Response>| {
        let response = outcome.unwrap();
        assert_eq!((seen, response.attempts()), (2, 2));
    };
    let not_again = |seen, outcome: Result<Response>, kind| {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!((seen, error.attempts()), (1, 1), "{error}");
    };
    let (seen, outcome) = stale(&silent, |client| client.get(URL)).await;
    again(seen, outcome);
    let (seen, outcome) = stale(&silent, |client| client.put(URL).body("text")).await;
    again(seen, outcome);
    let (seen, outcome) = stale(&silent, |client| client.delete(URL)).await;
    again(seen, outcome);
    let post = |client: &Client| client.post(URL).body("text");
    let (seen, outcome) = stale(&silent, |client| post(client).idempotent(true)).await;
    again(seen, outcome);
    let keyed = |client: &Client| post(client).header("idempotency-key", "k-1");
    let (seen, outcome) = stale(&silent, keyed).await;
    again(seen, outcome);
    let (seen, outcome) = stale(&silent, post).await;
    not_again(seen, outcome, ErrorKind::Io);
    let streamed = |client: &Client| {
        let (feed, body) = fed();
        feed.give("text");
        client.put(URL).body(Body::stream(body))
    };
    let (seen, outcome) = stale(&silent, streamed).await;
    not_again(seen, outcome, ErrorKind::Io);
    let (seen, outcome) = stale(&fresh, |client| client.get(URL)).await;
    not_again(seen, outcome, ErrorKind::Io);
    let (seen, outcome) = stale(&begun, |client| client.get(URL)).await;
    not_again(seen, outcome, ErrorKind::Protocol);
    let (seen, outcome) = stale(&interim, |client| client.get(URL)).await;
    not_again(seen, outcome, ErrorKind::Protocol);
}

/// R-RETRY-3: one stale replay, on a fresh connection; all old ones of the host are let go.
#[tokio::test(start_paused = true)]
async fn a_replay_uses_a_fresh_connection_and_happens_once() {
    let world = World::new();
    let client = world.client();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(held(&client, &world).await);
    }
    let mut peers = Vec::new();
    for (call, mut connection) in open {
        connection.write(ok("")).await;
        call.await.unwrap().unwrap();
        peers.push(connection);
    }
    let call = get(&client, URL);
    let mut last = peers.pop().unwrap();
    last.read_request().await;
    last.close();
    let mut fresh = world.accept().await;
    fresh.read_request().await;
    for mut old in peers {
        old.closed().await;
    }
    fresh.close();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Io, 2));
    assert_eq!(world.accepts(), 4);
    let total = client.stats().total;
    assert_eq!((total.retries, total.attempts_total), (1, 5));
    settle(&client, &world).await;
}

/// Ruling 5 (1), R-RETRY-1: a request of which nothing could be written is sent again, whatever its method, at most three times.
#[tokio::test(start_paused = true)]
async fn what_was_never_written_is_sent_again() {
    for refusals in [2, 3] {
        let world = World::new();
        let client = world.client();
        world.faults(crate::support::faults::Faults {
            break_after_writing: Some(0),
            ..Default::default()
        });
        let peer = tokio::spawn({
            let world = world.clone();
            async move {
                for refusal in 1..=refusals {
                    let connection = world.accept().await;
                    if refusal == 2 && refusals == 2 {
                        world.faults(crate::support::faults::Faults::default());
                    }
                    // The client has tried to write by then.
                    let_others_run().await;
                    connection.close();
                }
                world.serve(|request| ok(&String::from_utf8_lossy(&request.body)));
            }
        });
        let outcome = client.post(URL).body("once").send().await;
        if refusals == 2 {
            let response = outcome.unwrap();
            assert_eq!(response.attempts(), 3);
            assert_eq!(response.text().await.unwrap(), "once");
        } else {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.sent()), (ErrorKind::Io, Sent::Nothing));
            assert_eq!((error.attempts(), world.accepts()), (3, 3));
        }
        peer.await.unwrap();
        settle(&client, &world).await;
    }
}

/// R-RETRY-4: a call that is sent again after a stale connection keeps its place in line, before all who came later.
#[tokio::test(start_paused = true)]
async fn a_replay_keeps_its_place_in_line() {
    let world = World::new();
    let client = limited(&world, at_most(1));
    let (call, mut connection) = held(&client, &world).await;
    let mut waiting = Vec::new();
    for name in ["first", "second", "third"] {
        waiting.push(get(&client, &format!("http://peer.test/{name}")));
        let_others_run().await;
    }
    connection.write(ok("held")).await;
    call.await.unwrap().unwrap();
    assert_eq!(connection.read_request().await.target(), "/first");
    // The dial that follows is started before the first asks again, and for the second.
    world.always(Dial::Delay(SECOND));
    connection.close();
    let mut fresh = world.accept().await;
    let mut order = Vec::new();
    for _ in 0..3 {
        order.push(fresh.read_request().await.target().to_owned());
        fresh.write(ok("")).await;
        let_others_run().await;
    }
    assert_eq!(order, ["/first", "/second", "/third"]);
    let mut attempts = Vec::new();
    for call in waiting {
        attempts.push(call.await.unwrap().unwrap().attempts());
    }
    assert_eq!(attempts, [2, 1, 1]);
    assert_eq!(world.dials(), 2);
    let total = client.stats().total;
    assert_eq!(total.retry_causes.get(RetryCause::Stale), 1);
    settle(&client, &world).await;
}

/// R-RETRY-4 for a call that found a connection idle and never waited: it came before those who wait, and stays before them.
#[tokio::test(start_paused = true)]
async fn a_replay_of_a_call_that_did_not_wait_goes_first() {
    let world = World::new();
    let client = limited(&world, at_most(1));
    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("held")).await;
    call.await.unwrap().unwrap();
    let mut calls = Vec::new();
    for name in ["first", "second", "third"] {
        calls.push(get(&client, &format!("http://peer.test/{name}")));
        let_others_run().await;
    }
    assert_eq!(connection.read_request().await.target(), "/first");
    connection.close();
    let mut fresh = world.accept().await;
    let mut order = Vec::new();
    for _ in 0..3 {
        order.push(fresh.read_request().await.target().to_owned());
        fresh.write(ok("")).await;
        let_others_run().await;
    }
    assert_eq!(order, ["/first", "/second", "/third"]);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    settle(&client, &world).await;
}

/// R-RETRY-4: a replay has no more time than the call had.
#[tokio::test(start_paused = true)]
async fn a_replay_keeps_its_deadline() {
    let world = World::new();
    let timeouts = Timeouts::default().with_total(Some(3 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    let started = Instant::now();
    let call = get(&client, URL);
    connection.read_request().await;
    sleep(2 * SECOND).await;
    connection.close();
    let mut fresh = world.accept().await;
    fresh.read_request().await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Timeout, 2));
    assert_eq!(started.elapsed().as_secs(), 3);
    fresh.closed().await;
    settle(&client, &world).await;
}

/// R-RETRY-3: after a stale failure the other idle connections of the host are looked at, and those that are alive stay.
#[tokio::test(start_paused = true)]
async fn a_stale_failure_spares_the_living() {
    let world = World::new();
    let client = world.client();
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(held(&client, &world).await);
    }
    let mut peers = Vec::new();
    for (call, mut connection) in open {
        connection.write(ok("")).await;
        call.await.unwrap().unwrap();
        peers.push(connection);
    }
    let call = get(&client, URL);
    let mut last = peers.pop().unwrap();
    last.read_request().await;
    // The server ends two of them at once, and lives on behind the others.
    peers.remove(0).close();
    last.close();
    let mut fresh = world.accept().await;
    let total = client.stats().total;
    assert_eq!(total.connections_idle, 2);
    assert_eq!(total.connections_closed.get(CloseCause::PeerClosed), 1);
    fresh.read_request().await;
    fresh.write(ok("again")).await;
    let response = call.await.unwrap();
    assert_eq!(response.as_ref().unwrap().attempts(), 2);
    assert_eq!(text(response).await, "again");
    assert_eq!(
        (client.stats().total.connections_idle, world.accepts()),
        (3, 5)
    );
    settle(&client, &world).await;
}
