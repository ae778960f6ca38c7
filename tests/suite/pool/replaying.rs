//! What is sent again when a connection turns out to be dead, and where in line it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sockeye::{Body, Client, ErrorKind, Response, Result, Sent};

use super::{URL, get, held};
use crate::support::peer::{World, let_others_run, ok, settle};
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

/// 19: what is sent again when a kept connection turns out to be dead.
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

/// One stale replay, on a fresh connection; all old ones of the host are let go.
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

/// Ruling 5 (1): a request of which nothing could be written is sent again, whatever its method, at most three times.
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
