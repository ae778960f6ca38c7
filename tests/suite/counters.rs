//! Every number of a snapshot against a scripted world: it moves when it should and at no other time.
//!
//! A snapshot is flattened by its JSON form, so that a number which is added later is looked at, too: it has to be in the rows below
//! wherever it moves. Why single connections close and how dials end in detail is in `pool/stats.rs`.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderValue;
use serde_json::Value;
use sockeye::stats::{HostStats, Stats};
use sockeye::{
    Authenticator, BoxFuture, Challenge, CircuitBreaker, Client, ClientBuilder, Limits, RateLimit,
    Resilience, Retry, RetryBudget, Timeouts,
};
use tokio::task::JoinSet;

use crate::support::peer::{Dial, World, let_others_run, ok, reply, settle};
use crate::support::streams::{Random, within_polls};
use crate::support::ways::ways;

const URL: &str = "http://peer.test/";
const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// The latencies: how often each was observed counts here, and not how long it took.
const LATENCIES: [&str; 4] = ["head", "total", "pool_wait", "connect"];

/// Every number by its name. Of bytes and of the age of a loan it matters whether there are any.
fn numbers(host: &HostStats) -> BTreeMap<String, i64> {
    fn add(numbers: &mut BTreeMap<String, i64>, name: String, value: &Value) {
        match value {
            Value::Object(parts) => {
                for (part, value) in parts {
                    if !LATENCIES.contains(&name.as_str()) || part == "count" {
                        let dot = if name.is_empty() { "" } else { "." };
                        add(numbers, format!("{name}{dot}{part}"), value);
                    }
                }
            }
            Value::Null => {}
            Value::Number(_) if name == "oldest_lease" => {
                numbers.insert(name, 1);
            }
            Value::Number(number) => {
                numbers.insert(name, number.as_i64().expect("a count"));
            }
            Value::String(state) => {
                numbers.insert(format!("{name}={state}"), 1);
            }
            other => panic!("{name} is {other}"),
        }
    }
    let mut all = BTreeMap::new();
    let json = serde_json::to_value(host).unwrap();
    add(&mut all, String::new(), &json);
    all.retain(|_, number| *number != 0);
    all
}

/// What has moved between two snapshots, in words: `name +n`.
fn moved(before: &Stats, after: &Stats) -> Vec<String> {
    let (old, new) = (numbers(&before.total), numbers(&after.total));
    let mut names: Vec<_> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let of = |numbers: &BTreeMap<String, i64>, name| numbers.get(name).copied().unwrap_or(0);
    let moved = names.into_iter().filter_map(|name| {
        let by = of(&new, name) - of(&old, name);
        match by {
            0 => None,
            _ if name.starts_with("bytes_") => Some(name.clone()),
            _ => Some(format!("{name} {by:+}")),
        }
    });
    moved.collect()
}

/// Rows that were tried, and those that did not hold.
#[derive(Default)]
struct Rows(Vec<String>);

impl Rows {
    /// A script, and what moves by it.
    async fn row(
        &mut self,
        name: &str,
        client: &Client,
        script: impl Future<Output = ()>,
        expected: &[&str],
    ) {
        let before = client.stats();
        script.await;
        let_others_run().await;
        let moved = moved(&before, &client.stats());
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        if moved != expected {
            self.0.push(format!(
                "{name}:\n  moved {moved:#?}\n  and not {expected:#?}"
            ));
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{}", self.0.join("\n"));
        }
    }
}

fn client(world: &World, set: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
    set(world.builder()).build().unwrap()
}

/// Answers with these in turn, and then with `200 OK`.
fn plays(world: &World, replies: &[&str]) {
    let replies: Vec<_> = replies
        .iter()
        .rev()
        .map(|reply| (*reply).to_owned())
        .collect();
    let replies = Arc::new(Mutex::new(replies));
    world.serve(move |_| replies.lock().unwrap().pop().unwrap_or_else(|| ok("body")));
}

async fn get(client: &Client) {
    let response = client.get(URL).await.unwrap();
    assert_eq!(response.bytes().await.unwrap(), "body");
}

/// What a call on a new connection moves, whatever comes of it.
const DIALLED: [&str; 7] = [
    "checkouts.fresh +1",
    "connect.count +1",
    "connections_opened +1",
    "dials.started +1",
    "dials.succeeded +1",
    "pool_wait.count +1",
    "bytes_sent",
];

/// And on a kept one, which is looked at first.
const KEPT: [&str; 4] = [
    "checkouts.reused +1",
    "connections_reused +1",
    "probes.settled_alive +1",
    "bytes_sent",
];

/// What a call moves that is answered by its only attempt.
const CALLED: [&str; 4] = [
    "attempts_total +1",
    "requests_total +1",
    "bytes_received",
    "head.count +1",
];

fn with<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

#[tokio::test(start_paused = true)]
async fn plain_calls() {
    let mut rows = Rows::default();
    let world = World::new();
    let client = client(&world, |client| {
        client.timeouts(Timeouts::default().with_head(Some(SECOND)))
    });
    plays(
        &world,
        &[
            &ok("body"),
            &ok("body"),
            &reply("302 Found", "location: /b\r\n", ""),
            &ok("body"),
            &reply("304 Not Modified", "", ""),
            &reply("404 Not Found", "", "none"),
            &reply("500 Oh", "", "none"),
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome",
        ],
    );
    let fresh = ["connections_idle +1", "responses_2xx +1", "total.count +1"];
    let expected = with(&[&DIALLED, &CALLED, &fresh]);
    rows.row("a new connection", &client, get(&client), &expected)
        .await;
    let good = ["responses_2xx +1", "total.count +1"];
    let expected = with(&[&KEPT, &CALLED, &good]);
    rows.row("a kept connection", &client, get(&client), &expected)
        .await;
    let expected = [
        "attempts_total +2",
        "bytes_received",
        "bytes_sent",
        "checkouts.reused +2",
        "connections_reused +2",
        "head.count +2",
        "probes.settled_alive +2",
        "redirects +1",
        "requests_total +2",
        "responses_2xx +1",
        "responses_3xx +1",
        "total.count +2",
    ];
    rows.row("a redirect", &client, get(&client), &expected)
        .await;
    for (name, class, is_error) in [
        ("304", "responses_3xx +1", false),
        ("404", "responses_4xx +1", true),
        ("500", "responses_5xx +1", true),
    ] {
        let call = async { assert_eq!(client.get(URL).await.is_err(), is_error) };
        let error: &[&str] = if is_error { &["errors.status +1"] } else { &[] };
        let expected = with(&[&KEPT, &CALLED, &["total.count +1"], &[class], error]);
        rows.row(name, &client, call, &expected).await;
    }
    let call = async {
        let response = client.get(URL).await.unwrap();
        response.bytes().await.unwrap_err();
    };
    let failed = [
        "responses_2xx +1",
        "errors.timeout +1",
        "timeouts.read +1",
        "connections_closed.error +1",
        "connections_idle -1",
    ];
    let expected = with(&[&KEPT, &CALLED, &failed]);
    rows.row("a body that stalls", &client, call, &expected)
        .await;
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail() {
    let mut rows = Rows::default();
    let world = World::new();
    let limits = Limits::default()
        .with_max_connections(NonZeroUsize::new(1))
        .with_max_pending(NonZeroUsize::new(1));
    let client = client(&world, |client| {
        let timeouts = Timeouts::all(2 * SECOND).with_pool(Some(SECOND));
        client.timeouts(timeouts).limits(limits)
    });
    let begun = ["attempts_total +1", "requests_total +1"];
    let fails = async { drop(client.get(URL).await.unwrap_err()) };
    world.plan(Dial::Refuse);
    let expected = with(&[
        &begun,
        &[
            "connect_failures +1",
            "dials.failed +1",
            "dials.started +1",
            "errors.connect +1",
        ],
    ]);
    rows.row("a dial that is refused", &client, fails, &expected)
        .await;
    world.plan(Dial::Hang);
    let fails = async { drop(client.get(URL).await.unwrap_err()) };
    let expected = with(&[
        &begun,
        &[
            "connect_failures +1",
            "dials.started +1",
            "dials.timed_out +1",
            "errors.timeout +1",
            "timeouts.connect +1",
        ],
    ]);
    rows.row("a dial that hangs", &client, fails, &expected)
        .await;
    let fails = async { drop(client.get(URL).await.unwrap_err()) };
    let expected = with(&[
        &begun,
        &DIALLED,
        &[
            "connections_closed.error +1",
            "errors.timeout +1",
            "timeouts.head +1",
        ],
    ]);
    rows.row("silence", &client, fails, &expected).await;
    drop(world.accept().await);

    let calls: Mutex<Vec<_>> = Mutex::default();
    let lent = async {
        let call = tokio::spawn(client.get(URL).send());
        let mut connection = world.accept().await;
        connection.read_request().await;
        calls.lock().unwrap().push((call, connection));
    };
    // Bytes are counted when there is an end, or a body that streams.
    let opened = DIALLED.into_iter().filter(|name| *name != "bytes_sent");
    let expected: Vec<_> = opened
        .chain(begun)
        .chain([
            "connections_active +1",
            "oldest_lease +1",
            "requests_active +1",
        ])
        .collect();
    rows.row("a call that is under way", &client, lent, &expected)
        .await;
    let waiting = tokio::spawn(client.get(URL).send());
    let full = async {
        let_others_run().await;
        client.get(URL).await.unwrap_err();
    };
    let expected = [
        "attempts_total +2",
        "errors.pool_full +1",
        "hosts_starving +1",
        "requests_active +1",
        "requests_pending +1",
        "requests_total +2",
    ];
    rows.row("one in line, and one too many", &client, full, &expected)
        .await;
    let late = async { drop(waiting.await.unwrap().unwrap_err()) };
    let expected = [
        "errors.timeout +1",
        "hosts_starving -1",
        "requests_active -1",
        "requests_pending -1",
        "timeouts.pool +1",
    ];
    rows.row("the one in line gives up", &client, late, &expected)
        .await;
    let (call, mut connection) = calls.lock().unwrap().pop().unwrap();
    let dropped = async {
        call.abort();
        connection.closed().await;
    };
    let expected = [
        "bytes_sent",
        "cancelled +1",
        "connections_active -1",
        "connections_closed.dropped +1",
        "oldest_lease -1",
        "requests_active -1",
    ];
    rows.row("the call is dropped", &client, dropped, &expected)
        .await;
    let invalid = async { drop(client.get("ftp://peer.test/").await.unwrap_err()) };
    rows.row("no request at all", &client, invalid, &[]).await;
    let close = async {
        client.close(SECOND).await;
    };
    rows.row("closing what is at rest", &client, close, &[])
        .await;
    let refused = async { drop(client.get(URL).await.unwrap_err()) };
    let expected = with(&[&begun, &["errors.client_closed +1"]]);
    rows.row("a closed client", &client, refused, &expected)
        .await;
    settle(&client, &world).await;
}

/// New credentials for whoever asks.
struct Renews;

impl Authenticator for Renews {
    fn refresh<'a>(
        &'a self,
        _: &'a Challenge,
    ) -> BoxFuture<'a, sockeye::Result<Option<HeaderValue>>> {
        Box::pin(async { Ok(Some(HeaderValue::from_static("Bearer new"))) })
    }
}

#[tokio::test(start_paused = true)]
async fn policies() {
    let mut rows = Rows::default();
    let world = World::new();
    let busy = reply("503 Busy", "", "");
    plays(
        &world,
        &[
            &ok("body"),
            &busy,
            &ok("body"),
            &busy,
            &busy,
            &reply("401 No", "www-authenticate: Bearer\r\n", ""),
            &ok("body"),
            &reply("429 Slow", "retry-after: 90\r\n", ""),
        ],
    );
    // Enough for one retry.
    let budget = RetryBudget::default()
        .with_capacity(5)
        .with_success(0)
        .with_refill_per_second(0);
    let retry = Retry::default().with_budget(Some(budget));
    let client = client(&world, |client| {
        client
            .retry(retry)
            .rate_limit(RateLimit::default())
            .authenticator(Renews)
    });
    get(&client).await;
    let expected = [
        "attempts_total +2",
        "bytes_received",
        "bytes_sent",
        "checkouts.reused +2",
        "connections_reused +2",
        "head.count +1",
        "probes.settled_alive +2",
        "requests_total +1",
        "responses_2xx +1",
        "retries +1",
        "retry_causes.status +1",
        "total.count +1",
    ];
    rows.row("a retry", &client, get(&client), &expected).await;
    let denied = async { drop(client.get(URL).await.unwrap_err()) };
    let expected = with(&[
        &KEPT,
        &CALLED,
        &[
            "errors.status +1",
            "responses_5xx +1",
            "retries_denied +1",
            "total.count +1",
        ],
    ]);
    rows.row("no retry left", &client, denied, &expected).await;
    let denied = async { drop(client.get(URL).await.unwrap_err()) };
    rows.row("nor for the next", &client, denied, &expected)
        .await;
    let expected = [
        "attempts_total +2",
        "authenticated +1",
        "bytes_received",
        "bytes_sent",
        "checkouts.reused +2",
        "connections_reused +2",
        "head.count +2",
        "probes.settled_alive +2",
        "requests_total +2",
        "responses_2xx +1",
        "responses_4xx +1",
        "total.count +2",
    ];
    rows.row("new credentials", &client, get(&client), &expected)
        .await;
    let slow = async { drop(client.get(URL).await.unwrap_err()) };
    let expected = with(&[
        &KEPT,
        &CALLED,
        &[
            "errors.status +1",
            "rate_limited +1",
            "responses_4xx +1",
            "total.count +1",
        ],
    ]);
    rows.row("429", &client, slow, &expected).await;
    let gated = async { drop(client.get(URL).await.unwrap_err()) };
    let expected = [
        "attempts_total +1",
        "errors.rate_limited +1",
        "requests_total +1",
    ];
    rows.row("the gate is closed", &client, gated, &expected)
        .await;
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_breaker() {
    let mut rows = Rows::default();
    let world = World::new();
    let busy = reply("503 Busy", "", "");
    plays(&world, &[&ok("body"), &busy]);
    let breaker = CircuitBreaker::default()
        .with_consecutive(NonZeroU32::new(1))
        .with_open(SECOND);
    let policies = Resilience::none().with_circuit_breaker(Some(breaker));
    let client = client(&world, |client| client.resilience(policies));
    get(&client).await;
    let fails = async { drop(client.get(URL).await.unwrap_err()) };
    let opens = [
        "breaker=closed -1",
        "breaker=open +1",
        "breaker_opened +1",
        "errors.status +1",
        "responses_5xx +1",
        "total.count +1",
    ];
    let expected = with(&[&KEPT, &CALLED, &opens]);
    rows.row("it opens", &client, fails, &expected).await;
    let refused = async { drop(client.get(URL).await.unwrap_err()) };
    let expected = [
        "attempts_total +1",
        "errors.circuit_open +1",
        "requests_total +1",
    ];
    rows.row("it is open", &client, refused, &expected).await;
    let waits = tokio::time::advance(3 * SECOND);
    // Meanwhile the idle connection is looked at.
    let expected = [
        "breaker=half_open +1",
        "breaker=open -1",
        "probes.settled_alive +1",
    ];
    rows.row("its time is up", &client, waits, &expected).await;
    let good = ["responses_2xx +1", "total.count +1"];
    let expected = with(&[&KEPT, &CALLED, &good]);
    rows.row("a first probe", &client, get(&client), &expected)
        .await;
    let closes = [
        "breaker=closed +1",
        "breaker=half_open -1",
        "responses_2xx +1",
        "total.count +1",
    ];
    let expected = with(&[&KEPT, &CALLED, &closes]);
    rows.row("a second closes it", &client, get(&client), &expected)
        .await;
    settle(&client, &world).await;
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn calls_over_http2() {
    use crate::support::http2::{Honest, Reply};
    use sockeye::HttpVersions;

    let mut rows = Rows::default();
    let world = World::new();
    let server = Honest {
        answer: Arc::new(|_| Reply::new("body")),
        ..Honest::default()
    };
    let report = server.serve(&world);
    let client = client(&world, |client| {
        client.http_versions(HttpVersions::Http2PriorKnowledge)
    });
    let good = ["responses_2xx +1", "total.count +1"];
    let session = ["connections_idle +1", "http2_sessions +1"];
    let expected = with(&[&DIALLED, &CALLED, &good, &session]);
    rows.row("a new session", &client, get(&client), &expected)
        .await;
    let again = ["bytes_sent", "checkouts.slot +1", "connections_reused +1"];
    let expected = with(&[&again, &CALLED, &good]);
    rows.row("a stream of it", &client, get(&client), &expected)
        .await;
    let lent = Mutex::new(None);
    let open = async {
        let mut call = Box::pin(client.get(URL).send());
        assert!(within_polls(1, &mut call).await.is_none());
        // As far as the numbers go it is under way before the server has seen it.
        *lent.lock().unwrap() = Some(call);
    };
    let before = client.stats();
    open.await;
    let moves = moved(&before, &client.stats());
    assert_eq!(
        moves,
        [
            "attempts_total +1",
            "checkouts.slot +1",
            "connections_active +1",
            "connections_idle -1",
            "connections_reused +1",
            "http2_streams +1",
            "oldest_lease +1",
            "requests_active +1",
            "requests_total +1",
        ]
    );
    let before = client.stats();
    drop(lent.lock().unwrap().take());
    let moves = moved(&before, &client.stats());
    let moves: Vec<_> = moves
        .iter()
        .filter(|name| !name.starts_with("bytes"))
        .collect();
    assert_eq!(
        moves,
        [
            "cancelled +1",
            "connections_active -1",
            "connections_idle +1",
            "http2_streams -1",
            "oldest_lease -1",
            "requests_active -1",
        ]
    );
    let_others_run().await;
    let close = async { client.close_idle() };
    let before = client.stats();
    close.await;
    let_others_run().await;
    let moves = moved(&before, &client.stats());
    let moves: Vec<_> = moves
        .iter()
        .filter(|name| !name.starts_with("bytes"))
        .collect();
    assert_eq!(
        moves,
        [
            "connections_closed.pool_closed +1",
            "connections_idle -1",
            "http2_sessions -1"
        ]
    );
    report.expect_no_violation();
    settle(&client, &world).await;
}

/// A body that streams for hours is seen while it does, in every framing and over both protocols.
#[tokio::test(start_paused = true)]
async fn bytes_move_while_a_body_streams() {
    for way in ways() {
        let world = World::new();
        let client = way.client(&world);
        let body = vec![b'x'; 40 * 1000];
        tokio::join!(way.answer(&world, &[], &body, 1000), async {
            let mut response = client.get(URL).await.unwrap();
            let (mut read, mut last, mut moves) = (0, 0, 0);
            while let Some(chunk) = response.chunk().await.unwrap() {
                read += chunk.len() as u64;
                let now = client.stats().total.bytes_received;
                assert!(now >= read, "{way:?}: {now} bytes counted, {read} read");
                moves += u64::from(now > last);
                last = now;
            }
            assert_eq!(read, 40_000);
            assert!(moves > 10, "{way:?}: {moves} moves");
        });
        // Nothing is counted twice: the fields and the framing are little beside the body.
        let_others_run().await;
        let received = client.stats().total.bytes_received;
        assert!((40_000..43_000).contains(&received), "{way:?}: {received}");
    }
}

/// What balances in any snapshot of a client at rest.
#[track_caller]
fn balanced(stats: &Stats) {
    let total = &stats.total;
    assert_eq!(total.requests_active, 0, "{stats}");
    assert_eq!(total.requests_pending, 0, "{stats}");
    assert_eq!(total.connections_active, 0, "{stats}");
    assert_eq!(total.connections_connecting, 0, "{stats}");
    assert_eq!(total.connections_draining, 0, "{stats}");
    assert_eq!(total.http2_streams, 0, "{stats}");
    assert_eq!(total.hosts_starving, 0, "{stats}");
    assert_eq!(total.oldest_lease, None, "{stats}");
    let [r1, r2, r3, r4, r5] = [
        total.responses_1xx,
        total.responses_2xx,
        total.responses_3xx,
        total.responses_4xx,
        total.responses_5xx,
    ];
    assert_eq!(r1 + r2 + r3 + r4 + r5, total.head.count, "{stats}");
    let gone = total.connections_closed.total() + total.connections_idle as u64;
    assert_eq!(total.connections_opened, gone, "{stats}");
}

/// Servers that are slow with large bodies, and clients of them.
const STORMS: &[fn(&World) -> Client] = &[
    |world| {
        let world_of_server = world.clone();
        tokio::spawn(async move {
            loop {
                let mut connection = world_of_server.accept().await;
                tokio::spawn(async move {
                    while connection.next_request().await.is_some() {
                        let reply = ok(&"x".repeat(20_000));
                        tokio::time::sleep(MILLI).await;
                        let (now, later) = reply.split_at(1000);
                        if !connection.try_write(now.as_bytes()).await {
                            return;
                        }
                        tokio::time::sleep(MILLI).await;
                        if !connection.try_write(later.as_bytes()).await {
                            return;
                        }
                    }
                });
            }
        });
        world.client()
    },
    #[cfg(feature = "http2")]
    |world| {
        use crate::support::http2::{Honest, Reply};
        let server = Honest {
            max_streams: Some(20),
            answer: Arc::new(|_| Reply::new([b'x'; 20_000]).after(MILLI)),
            ..Honest::default()
        };
        server.serve(world);
        let versions = sockeye::HttpVersions::Http2PriorKnowledge;
        client(world, |client| client.http_versions(versions))
    },
];

/// Storms of calls that are dropped anywhere, over both protocols: every gauge is back where it was.
#[tokio::test(start_paused = true)]
async fn gauges_are_balanced_after_storms_of_dropped_calls() {
    for serve in STORMS {
        let world = World::new();
        let client = serve(&world);
        let mut calls = JoinSet::new();
        for number in 0..300_u64 {
            let client = client.clone();
            calls.spawn(async move {
                let mut random = Random::new(number);
                let call = async {
                    let response = client.get(URL).await?;
                    response.bytes().await
                };
                within_polls(1 + random.below(9) as usize, call).await;
                tokio::time::sleep(MILLI * (random.below(5) as u32)).await;
                let call = client.post(URL).body("x").send();
                within_polls(1 + random.below(9) as usize, call).await;
            });
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
        // What was dropped half read may be drained for a while.
        tokio::time::sleep(SECOND).await;
        settle(&client, &world).await;
        balanced(&client.stats());
        assert!(client.stats().total.cancelled > 100, "{}", client.stats());
        client.close(SECOND).await;
        let_others_run().await;
        let stats = client.stats();
        balanced(&stats);
        assert_eq!(stats.total.connections_idle, 0, "{stats}");
        assert_eq!(stats.total.http2_sessions, 0, "{stats}");
    }
}

/// Spec resilience 3.1: what came before a window has no part in its percentiles.
#[tokio::test(start_paused = true)]
async fn percentiles_of_a_window_are_those_of_its_calls() {
    let world = World::new();
    let client = world.client();
    let slow = Arc::new(Mutex::new(10 * MILLI));
    let (serving, pace) = (world.clone(), Arc::clone(&slow));
    tokio::spawn(async move {
        let mut connection = serving.accept().await;
        while connection.next_request().await.is_some() {
            let wait = *pace.lock().unwrap();
            tokio::time::sleep(wait).await;
            connection.write(ok("body")).await;
        }
    });
    for _ in 0..200 {
        get(&client).await;
    }
    let first = client.stats();
    *slow.lock().unwrap() = 400 * MILLI;
    for call in 0..100 {
        if call == 90 {
            *slow.lock().unwrap() = 2 * SECOND;
        }
        get(&client).await;
    }
    let second = client.stats();
    let near = |seen: Duration, exact: Duration| {
        // The clock of tokio rounds a wait up to the next millisecond.
        let most = exact + exact * 32 / 1000 + 2 * MILLI;
        assert!(seen >= exact && seen <= most, "{seen:?} for {exact:?}");
    };
    near(second.total.head.p50, 10 * MILLI);
    let rates = second.since(&first);
    near(rates.p50, 400 * MILLI);
    near(rates.head.p90, 400 * MILLI);
    near(rates.p95, 2 * SECOND);
    near(rates.p99, 2 * SECOND);
    assert_eq!(rates.head.count, 100);
    assert_eq!(rates.error_rate, 0.0);
    // 90 calls of 400 ms and 10 of two seconds.
    near(rates.window, 56 * SECOND);
    let per_second = 100.0 / rates.window.as_secs_f64();
    assert!((rates.requests_per_second - per_second).abs() < 1e-9);
    assert_eq!(rates.reuse_ratio, 1.0);
    // The wrong way round, and a window of nothing.
    assert_eq!(first.since(&second).requests_per_second, 0.0);
    assert_eq!(second.since(&second).head.count, 0);
    settle(&client, &world).await;
}

/// Spec resilience 3.2: a crawler meets more hosts than anybody wants lines of.
#[tokio::test(start_paused = true)]
async fn hosts_are_bounded() {
    let world = World::new();
    world.serve(|_| ok("body"));
    let client = world.client();
    for host in 0..300 {
        let url = format!("http://host-{host}.test/");
        client.get(url).await.unwrap().bytes().await.unwrap();
    }
    let stats = client.stats();
    assert_eq!(stats.hosts.len(), 256);
    let other = stats.other.as_ref().expect("there are more");
    assert_eq!((other.requests_total, other.responses_2xx), (44, 44));
    assert_eq!(stats.total.requests_total, 300);
    let shown = stats.prometheus().to_string();
    assert_eq!(shown.matches("\nhttp_client_requests_total{").count(), 257);
    assert!(stats.to_string().lines().count() < 270);
    // And the JSON form, read back, has all of it.
    let text = serde_json::to_string(&stats).unwrap();
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["hosts"].as_object().unwrap().len(), 256);
    for (origin, host) in &stats.hosts {
        let expected = serde_json::to_value(host).unwrap();
        assert_eq!(read["hosts"][origin.to_string()], expected);
    }
    assert_eq!(read["other"]["requests_total"], 44);
    assert_eq!(read["total"], serde_json::to_value(&stats.total).unwrap());
    settle(&client, &world).await;
}
