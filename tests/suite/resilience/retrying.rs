//! What is sent again by policy, after which wait, and what is left of a call that failed for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sockeye::stats::RetryCause;
use sockeye::{
    Attempt, Body, Client, ErrorKind, Method, RequestBuilder, Retry, RetryBudget, RetryKind,
    Timeouts, Verdict,
};
use tokio::time::Instant;

use super::{Act, MILLI, SECOND, URL, build, failed_with, get, play, status, with};
use crate::support::peer::{Dial, World, let_others_run, ok, reply, settle};
use crate::support::streams::fed;

fn retrying(world: &World) -> Client {
    build(world, |client| client.retry(Retry::default()))
}

/// What a body can be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sends {
    Again,
    /// A stream, which the connection takes at once.
    Once,
    /// A stream that waits for the server's word, so that nothing of it is taken before a refusal.
    OnceLater,
}

fn request(client: &Client, method: &str, sends: Sends) -> RequestBuilder {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = client.request(method, URL);
    if sends == Sends::Again {
        return request.body("text");
    }
    let (feed, body) = fed();
    feed.give("text");
    drop(feed);
    let request = request.body(Body::stream(body));
    request.expect_continue(sends == Sends::OnceLater)
}

/// The rows of class S over the wire, and those of A: how often the server sees the request.
#[tokio::test(start_paused = true)]
async fn the_matrix_over_the_wire() {
    use Sends::{Again, Once};
    let after = "retry-after: 1\r\n";
    // PUT and POST that can be sent again, then PUT and POST that cannot.
    let rows = [
        (status(429), [2, 2, 1, 1]),
        (with(429, after), [2, 2, 1, 1]),
        (with(503, after), [2, 2, 1, 1]),
        (status(503), [2, 1, 1, 1]),
        (status(500), [2, 1, 1, 1]),
        (status(502), [2, 1, 1, 1]),
        (status(504), [2, 1, 1, 1]),
        (status(408), [2, 2, 1, 1]),
        (status(501), [1, 1, 1, 1]),
        (status(404), [1, 1, 1, 1]),
        (status(409), [1, 1, 1, 1]),
        (status(304), [1, 1, 1, 1]),
        (Act::Close, [2, 1, 1, 1]),
        (Act::Silence, [2, 1, 1, 1]),
        (Act::Last("HTTP/1.1 200 O".into()), [2, 1, 1, 1]),
        (Act::Last("HTTP/1.1 2x0 OK\r\n\r\n".into()), [1, 1, 1, 1]),
    ];
    let columns = [
        ("PUT", Again),
        ("POST", Again),
        ("PUT", Once),
        ("POST", Once),
    ];
    for (act, expected) in rows {
        for ((method, sends), expected) in columns.into_iter().zip(expected) {
            let world = World::new();
            let client = retrying(&world);
            let seen = play(&world, [act.clone()]);
            let outcome = request(&client, method, sends).send().await;
            let what = format!("{method}, {sends:?}, {act:?}: {outcome:?}");
            assert_eq!(seen.count(), expected, "{what}");
            assert_eq!(
                outcome.is_ok(),
                expected == 2 || act_is(&act, 304),
                "{what}"
            );
            let attempts = match &outcome {
                Ok(response) => response.attempts(),
                Err(error) => error.attempts(),
            };
            assert_eq!(attempts as usize, expected, "{what}");
            for request in seen.requests() {
                assert_eq!(request.body, b"text", "{what}");
            }
            drop(outcome);
            settle(&client, &world).await;
        }
    }
}

fn act_is(act: &Act, status: u16) -> bool {
    matches!(act, Act::Say(reply) if reply.starts_with(&format!("HTTP/1.1 {status}")))
}

/// A body that can be sent once goes again as a whole when the server refused it before any of it was taken.
#[tokio::test(start_paused = true)]
async fn a_body_of_which_nothing_was_taken_goes_again() {
    for (method, act, expected) in [
        ("PUT", status(429), 2),
        ("PUT", with(503, "retry-after: 1\r\n"), 2),
        ("PUT", status(503), 1),
        ("POST", status(429), 1),
    ] {
        let world = World::new();
        let client = retrying(&world);
        let seen = Arc::new(AtomicUsize::new(0));
        let (served, told) = (world.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let mut first = served.accept().await;
            first.read_head().await.unwrap();
            told.fetch_add(1, Ordering::SeqCst);
            let Act::Say(refusal) = act else { return };
            first.write(refusal).await;
            first.closed().await;
            let mut second = served.accept().await;
            let head = second.read_head().await.unwrap();
            told.fetch_add(1, Ordering::SeqCst);
            second.write("HTTP/1.1 100 Continue\r\n\r\n").await;
            let request = second.read_body(head).await.unwrap();
            assert_eq!(request.body, b"text");
            second.write(ok("taken")).await;
            second.closed().await;
        });
        let outcome = request(&client, method, Sends::OnceLater).send().await;
        assert_eq!(
            seen.load(Ordering::SeqCst),
            expected,
            "{method}: {outcome:?}"
        );
        assert_eq!(outcome.is_ok(), expected == 2, "{method}");
        drop(outcome);
        client.close_idle();
        settle(&client, &world).await;
    }
}

/// Class N: whatever the method, and a body that can be sent once is whole as long as there was no connection.
#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_come_about_is_tried_again() {
    for (method, sends) in [
        ("GET", Sends::Again),
        ("POST", Sends::Again),
        ("PUT", Sends::Once),
        ("POST", Sends::Once),
    ] {
        let world = World::new();
        let client = retrying(&world);
        world.plan(Dial::Refuse);
        world.plan(Dial::Refuse);
        let seen = play(&world, []);
        let response = request(&client, method, sends).send().await.unwrap();
        assert_eq!(response.attempts(), 3, "{method}, {sends:?}");
        assert_eq!(seen.requests()[0].body, b"text", "{method}, {sends:?}");
        let total = client.stats().total;
        assert_eq!(total.retry_causes.get(RetryCause::NoConnection), 2);
        drop(response);
        settle(&client, &world).await;
    }
    let world = World::new();
    let client = retrying(&world);
    world.always(Dial::Refuse);
    let error = get(&client).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Connect, 3));
    assert_eq!(world.dials(), 3);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_nothing_is_tried_again() {
    let world = World::new();
    let client = world.client();
    let seen = play(&world, [status(503), Act::Close]);
    assert_eq!(failed_with(get(&client).await).0, 503);
    // The connection had served before: that is sent again without a policy.
    get(&client).await.unwrap();
    assert_eq!(seen.count(), 3);
    // And the exception of one call.
    seen.then([status(503), status(503), status(503)]);
    let retry = Retry::default().with_max_attempts(2);
    let outcome = client.get(URL).retry(retry).send().await;
    assert_eq!(failed_with(outcome).0, 503);
    assert_eq!(seen.count(), 5);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_and_an_origin_can_be_exceptions() {
    let world = World::new();
    let retry = Retry::default().for_origin("http://other.test", Retry::none());
    let client = build(&world, |client| client.retry(retry));
    let seen = play(&world, (0..9).map(|_| status(500)));
    failed_with(client.get(URL).retry(Retry::none()).send().await);
    assert_eq!(seen.count(), 1);
    failed_with(client.get("http://other.test/").send().await);
    assert_eq!(seen.count(), 2);
    failed_with(get(&client).await);
    assert_eq!(seen.count(), 5);
    // The exception travels with a request that is built.
    let built = client.get(URL).retry(Retry::none()).build().unwrap();
    failed_with(client.execute(built).await);
    assert_eq!(seen.count(), 6);
    let bad = client.get(URL).retry(Retry::default().with_max_attempts(0));
    let bad = bad.send().await.unwrap_err();
    assert!(
        bad.to_string().contains("Retry::max_attempts is 0"),
        "{bad}"
    );
    settle(&client, &world).await;
}

/// The last response is as it came, whether or not its status becomes an error.
#[tokio::test(start_paused = true)]
async fn the_last_response_stays_whole() {
    let long = "x".repeat(200_000);
    for error_for_status in [true, false] {
        let world = World::new();
        let client = build(&world, |client| {
            client
                .retry(Retry::default())
                .error_for_status(error_for_status)
        });
        let answer = |body: &str| Act::Say(reply("503 Busy", "x-mark: 1\r\n", body));
        let seen = play(&world, [answer(&long), answer(&long), answer(&long)]);
        let outcome = get(&client).await;
        assert_eq!(seen.count(), 3);
        if error_for_status {
            let (status, error) = failed_with(outcome);
            let kept = error.status_error().unwrap();
            assert_eq!((status, error.attempts()), (503, 3));
            assert_eq!(kept.headers["x-mark"], "1");
            assert_eq!((kept.body.len(), kept.truncated), (64 * 1024, true));
            assert!(error.to_string().contains("after 3 attempts"), "{error}");
        } else {
            let response = outcome.unwrap();
            assert_eq!((response.status().as_u16(), response.attempts()), (503, 3));
            assert_eq!(response.text().await.unwrap(), long);
        }
        let total = client.stats().total;
        assert_eq!(total.retry_causes.get(RetryCause::Status), 2);
        assert_eq!((total.requests_total, total.attempts_total), (1, 3));
        assert_eq!(total.responses_5xx, 1);
        settle(&client, &world).await;
    }
}

/// Between two attempts nothing is held: the connection is back, also when the failed response had a body to be read away.
#[tokio::test(start_paused = true)]
async fn nothing_is_held_while_a_call_waits() {
    let head = "HTTP/1.1 429 Slow\r\nretry-after: 10\r\ncontent-length: 200000\r\n\r\n";
    let body = "x".repeat(200_000);
    for (act, open) in [
        (with(429, "retry-after: 10\r\n"), 1),
        (Act::Say(format!("{head}{body}")), 1),
        // The rest does not come.
        (Act::Say(format!("{head}begun")), 0),
        (Act::Close, 0),
        (Act::Silence, 0),
    ] {
        let world = World::new();
        let retry = Retry::default()
            .with_base(10_000 * SECOND)
            .with_cap(10_000 * SECOND);
        let timeouts = Timeouts::default().with_head(Some(MILLI));
        let client = build(&world, |client| client.retry(retry).timeouts(timeouts));
        let seen = play(&world, [act.clone()]);
        let call = tokio::spawn(client.get(URL).send());
        while client.stats().total.retries == 0 {
            let_others_run().await;
            tokio::time::advance(MILLI).await;
        }
        // What is drained is so within 50 ms.
        tokio::time::advance(100 * MILLI).await;
        let_others_run().await;
        let total = client.stats().total;
        assert_eq!(
            (
                total.connections_active,
                total.requests_active,
                world.open()
            ),
            (0, 1, open),
            "{act:?}"
        );
        assert_eq!(seen.count(), 1);
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.attempts(), 2, "{act:?}");
        assert_eq!(seen.count(), 2);
        settle(&client, &world).await;
    }
}

/// What is asked for is waited for, and a little more; else anything up to the doubled base.
#[tokio::test(start_paused = true)]
async fn waits_are_those_of_the_policy() {
    let millis = |least: u32, most: u32| (least * MILLI, most * MILLI);
    for (acts, bounds) in [
        ([status(500), status(500)], [millis(0, 50), millis(0, 100)]),
        (
            [status(429), status(429)],
            [millis(0, 1000), millis(0, 2000)],
        ),
        (
            [
                with(429, "retry-after: 3\r\n"),
                with(503, "retry-after: 0.5\r\n"),
            ],
            [millis(3000, 3300), millis(500, 550)],
        ),
        (
            [
                with(429, "retry-after-ms: 70\r\nretry-after: 9\r\n"),
                with(503, "retry-after: 60\r\n"),
            ],
            [millis(70, 77), millis(60_000, 61_000)],
        ),
        (
            [
                with(
                    503,
                    "date: Fri, 31 Dec 1999 23:59:55 GMT\r\nretry-after: Sat, 01 Jan 2000 00:00:05 GMT\r\n",
                ),
                with(500, "retry-after: 50\r\n"),
            ],
            [millis(10_000, 11_000), millis(0, 100)],
        ),
    ] {
        let world = World::new();
        let client = retrying(&world);
        let seen = play(&world, acts.clone());
        get(&client).await.unwrap();
        let gaps = seen.gaps();
        assert_eq!(gaps.len(), 2, "{acts:?}");
        for (gap, (least, most)) in gaps.into_iter().zip(bounds) {
            // The timer counts in milliseconds.
            assert!(
                gap >= least && gap <= most + 3 * MILLI,
                "{gap:?} after {acts:?}"
            );
        }
        settle(&client, &world).await;
    }
}

/// A wait that the deadline or the policy does not allow is not begun.
#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_long_is_not_begun() {
    let world = World::new();
    let client = retrying(&world);
    let seen = play(
        &world,
        [
            with(429, "retry-after: 5\r\n"),
            with(503, "retry-after: 61\r\n"),
        ],
    );
    let begun = Instant::now();
    let (status, error) = failed_with(client.get(URL).timeout(5 * SECOND).send().await);
    assert_eq!((status, error.retry_after()), (429, Some(5 * SECOND)));
    let (status, error) = failed_with(get(&client).await);
    assert_eq!((status, error.retry_after()), (503, Some(61 * SECOND)));
    assert_eq!((seen.count(), begun.elapsed() < 10 * MILLI), (2, true));
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_408_is_tried_again_once() {
    let world = World::new();
    let retry = Retry::default().with_max_attempts(9);
    let client = build(&world, |client| client.retry(retry));
    let seen = play(&world, [status(408), status(500), status(408), status(408)]);
    assert_eq!(failed_with(get(&client).await).0, 408);
    assert_eq!(seen.count(), 3);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_is_the_same_for_each_attempt() {
    let world = World::new();
    let client = retrying(&world);
    let seen = play(&world, [status(500), Act::Close]);
    let post = |client: &Client| client.post(URL).body("text").idempotency_key();
    let response = post(&client).send().await.unwrap();
    assert_eq!(response.attempts(), 3);
    post(&client).send().await.unwrap();
    let own = post(&client).header("idempotency-key", "mine");
    assert_eq!(
        own.build()
            .unwrap()
            .headers()
            .get_all("idempotency-key")
            .iter()
            .count(),
        2
    );
    let own = client
        .post(URL)
        .header("idempotency-key", "mine")
        .idempotency_key();
    own.send().await.unwrap();
    let requests = seen.requests();
    let keys: Vec<_> = requests
        .iter()
        .map(|r| r.field("idempotency-key").unwrap())
        .collect();
    assert_eq!(keys[0].len(), 36);
    assert!(keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3]);
    assert_eq!(keys[4], "mine");
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_classifier_decides_first() {
    let world = World::new();
    let retry = Retry::default().with_classifier(|attempt: &Attempt<'_>| {
        assert_eq!(attempt.url().path(), "/");
        match (
            attempt.number(),
            attempt.header("x-should-retry"),
            attempt.error(),
        ) {
            (1, Some("true"), None) => Verdict::Retry {
                after: Some(7 * SECOND),
                kind: RetryKind::Throttle,
            },
            (_, Some("false"), None) => Verdict::Fail,
            _ => Verdict::Default,
        }
    });
    let client = build(&world, |client| client.retry(retry));
    let seen = play(
        &world,
        [
            with(200, "x-should-retry: true\r\n"),
            with(503, "x-should-retry: false\r\n"),
            Act::Close,
        ],
    );
    // It vouches for a POST, too.
    let (status, error) = failed_with(client.post(URL).body("text").send().await);
    assert_eq!((status, error.attempts()), (503, 2));
    assert!(seen.gaps()[0] >= 7 * SECOND);
    client.close_idle();
    let error = client.post(URL).body("text").send().await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Io, 1));
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_used_up_ends_a_call_with_what_it_has() {
    let world = World::new();
    let budget = RetryBudget::default().with_capacity(10);
    let client = build(&world, |client| {
        client.retry(Retry::default().with_budget(Some(budget)))
    });
    let seen = play(&world, (0..9).map(|_| status(500)));
    assert_eq!(failed_with(get(&client).await).1.attempts(), 3);
    assert_eq!(failed_with(get(&client).await).1.attempts(), 1);
    assert_eq!(seen.count(), 4);
    // Another origin has a budget of its own.
    let other = client.get("http://other.test/").send().await;
    assert_eq!(failed_with(other).1.attempts(), 3);
    let stats = client.stats();
    assert_eq!((stats.total.retries, stats.total.retries_denied), (4, 1));
    assert!(stats.to_string().contains("denied 1"), "{stats}");
    settle(&client, &world).await;
}

/// What a setting of the client forbids is not tried again: it would be forbidden again.
#[tokio::test]
async fn what_a_setting_forbids_is_not_retried() {
    let builder = Client::builder().deny_private(true);
    let client = builder.retry(Retry::default()).build().unwrap();
    let error = client.get("http://127.0.0.1:9/").send().await.unwrap_err();
    assert_eq!(error.attempts(), 1, "{error}");
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(!error.is_retryable());
    assert_eq!(client.stats().total.retries, 0);
}

/// A call's own policy has settings by origin, too.
#[tokio::test(start_paused = true)]
async fn a_policy_of_the_call_goes_by_origin() {
    let world = World::new();
    let seen = play(&world, [status(503)]);
    let client = build(&world, |client| client.retry(Retry::default()));
    let own = Retry::default().for_origin(URL, Retry::none());
    let outcome = client.get(URL).retry(own).send().await;
    assert_eq!(failed_with(outcome).0, 503);
    assert_eq!(seen.count(), 1);
    settle(&client, &world).await;
}

/// Security L1: a classifier that prints what it sees prints no query.
#[tokio::test(start_paused = true)]
async fn an_attempt_hides_its_query() {
    let world = World::new();
    play(&world, [status(503)]);
    let retry = Retry::default().with_classifier(|attempt: &Attempt<'_>| {
        let text = format!("{attempt:?}");
        assert!(
            text.contains("peer.test/path") && !text.contains("token"),
            "{text}"
        );
        Verdict::Default
    });
    let client = build(&world, |client| client.retry(retry));
    let call = client.get("http://peer.test/path?token=1");
    call.send().await.unwrap();
    settle(&client, &world).await;
}

/// The jar keeps the cookies of every response, of one that is tried again as well.
#[cfg(feature = "cookies")]
#[tokio::test(start_paused = true)]
async fn cookies_of_what_is_retried_are_kept() {
    let world = World::new();
    let seen = play(&world, [with(503, "set-cookie: a=b\r\n")]);
    let client = build(&world, |client| {
        let jar = sockeye::CookieJar::new();
        client.retry(Retry::default()).cookies(jar)
    });
    get(&client).await.unwrap();
    get(&client).await.unwrap();
    let requests = seen.requests();
    assert_eq!(requests.last().unwrap().field("cookie"), Some("a=b"));
    settle(&client, &world).await;
}

/// Ruling 20: an error says what a policy would have done, with what the caller vouched for.
#[tokio::test(start_paused = true)]
async fn an_error_knows_what_the_caller_vouched_for() {
    let posts: [fn(&Client) -> RequestBuilder; 3] = [
        |client| client.post(URL),
        |client| client.post(URL).idempotency_key(),
        |client| client.post(URL).idempotent(true),
    ];
    for (place, post) in posts.into_iter().enumerate() {
        for act in [Act::Close, status(502)] {
            let world = World::new();
            let client = world.client();
            play(&world, [act.clone()]);
            let error = post(&client).body("text").send().await.unwrap_err();
            assert_eq!(error.is_retryable(), place > 0, "{act:?}: {error}");
            settle(&client, &world).await;
        }
    }
}

/// The next attempt carries what the response to this one has set, as balancers of loads want it; never in place of the caller's own.
#[cfg(feature = "cookies")]
#[tokio::test(start_paused = true)]
async fn a_retry_carries_the_cookies_that_were_just_set() {
    let set =
        |status: u16, cookie: &str| with(status, &format!("set-cookie: {cookie}; Path=/\r\n"));
    let cookies = |seen: &super::Seen| -> Vec<_> {
        let requests = seen.requests();
        let cookie = |request: &crate::support::peer::Request| {
            request.field("cookie").unwrap_or("-").to_owned()
        };
        requests.iter().map(cookie).collect()
    };
    let client = |world: &World| {
        build(world, |client| {
            let jar = sockeye::CookieJar::new();
            client.retry(Retry::default()).cookies(jar)
        })
    };
    let world = World::new();
    let acts = [
        set(503, "node=1"),
        set(503, "node=2"),
        // What is put on for a retry comes off where it does not belong.
        with(302, "location: http://other.test/\r\n"),
    ];
    let seen = play(&world, acts);
    let jarred = client(&world);
    get(&jarred).await.unwrap();
    assert_eq!(cookies(&seen), ["-", "node=1", "node=2", "-"]);
    settle(&jarred, &world).await;
    // One that a redirect follows on the same origin, where it has another path.
    let world = World::new();
    let acts = [
        with(503, "set-cookie: a=b; Path=/here\r\n"),
        with(302, "location: /there\r\n"),
    ];
    let seen = play(&world, acts);
    let jarred = client(&world);
    jarred.get("http://peer.test/here").send().await.unwrap();
    assert_eq!(cookies(&seen), ["-", "a=b", "-"]);
    settle(&jarred, &world).await;
    // The caller's own stay alone.
    let world = World::new();
    let seen = play(&world, [set(503, "node=1")]);
    let jarred = client(&world);
    jarred
        .get(URL)
        .header("cookie", "own=1")
        .send()
        .await
        .unwrap();
    assert_eq!(cookies(&seen), ["own=1", "own=1"]);
    settle(&jarred, &world).await;
    // An expectation that is refused is answered like any other request.
    let world = World::new();
    let seen = play(&world, [set(417, "node=1")]);
    let jarred = client(&world);
    let call = jarred.post(URL).expect_continue(true).body("text");
    call.send().await.unwrap();
    assert_eq!(cookies(&seen), ["-", "node=1"]);
    settle(&jarred, &world).await;
}

/// A policy that will not try again leaves the body to whoever may send it elsewhere, or with credentials.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_retried_is_still_whole() {
    let world = World::new();
    // Of what is not idempotent a 307 is not tried again, though it is on the list.
    let retry = Retry::default().with_statuses(vec![307]);
    let client = build(&world, |client| client.retry(retry));
    let (feed, body) = fed();
    feed.give("text");
    drop(feed);
    let call = client.post(URL).body(Body::stream(body));
    let call = tokio::spawn(call.expect_continue(true).send());
    let mut first = world.accept().await;
    first.read_head().await.unwrap();
    first
        .write(reply("307 Elsewhere", "location: /there\r\n", ""))
        .await;
    let mut second = world.accept().await;
    let head = second.read_head().await.unwrap();
    assert_eq!(head.target(), "/there");
    second.write("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(second.read_body(head).await.unwrap().body, b"text");
    second.write(ok("")).await;
    assert_eq!(call.await.unwrap().unwrap().redirects().len(), 1);
    drop((first, second));
    client.close_idle();
    settle(&client, &world).await;
}
