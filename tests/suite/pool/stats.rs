//! What the counters say of all this.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use sockeye::stats::{CloseCause, HostStats, ProbeOutcome};
use sockeye::{Client, ErrorKind, Phase, Timeouts};
use tokio::time::sleep;

use super::{MILLI, SECOND, URL, at_most, get, held, limited, streaming, text};
use crate::support::peer::{Dial, World, let_others_run, ok, reply, settle};

/// Each counter moves by what happened, and by nothing else.
#[tokio::test(start_paused = true)]
async fn stats_count_what_happened() {
    let world = World::new();
    let client = world.client();
    let mut sent = 0;
    let mut received = 0;
    let (call, mut connection) = {
        let call = get(&client, URL);
        let mut connection = world.accept().await;
        sent += connection.read_request().await.raw.len();
        (call, connection)
    };
    let total = client.stats().total;
    assert_eq!((total.requests_active, total.connections_active), (1, 1));
    assert_eq!((total.requests_total, total.responses_2xx), (1, 0));
    let first = ok("first");
    received += first.len();
    connection.write(&first).await;
    call.await.unwrap().unwrap();
    for (status, fields) in [
        ("301 Moved", ""),
        ("404 Not Found", ""),
        ("500 Oh", "connection: close\r\n"),
    ] {
        let call = tokio::spawn(client.post(URL).body("12345").send());
        sent += connection.read_request().await.raw.len();
        let reply = reply(status, fields, "x");
        received += reply.len();
        connection.write(&reply).await;
        let _ = call.await.unwrap();
    }
    connection.closed().await;
    world.plan(Dial::Refuse);
    client.get(URL).send().await.unwrap_err();
    let cancelled = get(&client, URL);
    let mut last = world.accept().await;
    sent += last.read_request().await.raw.len();
    cancelled.abort();
    last.closed().await;
    settle(&client, &world).await;

    let stats = client.stats();
    let total = &stats.total;
    assert_eq!(total.requests_total, 6);
    assert_eq!(total.attempts_total, 6);
    assert_eq!(
        [
            total.responses_2xx,
            total.responses_3xx,
            total.responses_4xx,
            total.responses_5xx
        ],
        [1, 1, 1, 1]
    );
    assert_eq!(total.errors.get(ErrorKind::Status), 2);
    assert_eq!(total.errors.get(ErrorKind::Connect), 1);
    assert_eq!(total.errors.total(), 3);
    assert_eq!((total.cancelled, total.retries), (1, 0));
    assert_eq!(total.connections_opened, 2);
    assert_eq!(total.connections_reused, 3);
    assert_eq!(total.connect_failures, 1);
    let closed = &total.connections_closed;
    assert_eq!(closed.get(CloseCause::PeerAsked), 1, "{closed:?}");
    assert_eq!(closed.get(CloseCause::Dropped), 1, "{closed:?}");
    assert_eq!(closed.total(), 2, "{closed:?}");
    assert_eq!(total.bytes_sent, sent as u64);
    assert_eq!(total.bytes_received, received as u64);
    assert_eq!(total.head.count, 4);
    assert_eq!(stats.hosts.len(), 1);
    assert_eq!(stats.hosts[0].0.to_string(), "http://peer.test");
    assert_eq!(stats.max_connections, Some(100));
}

/// A body that fails counts once as a response and once as an error; one that is read counts into the total.
#[tokio::test(start_paused = true)]
async fn stats_count_bodies() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| match request.target() {
        "/large" => ok(&"x".repeat(100_000)),
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome".to_owned(),
    });
    let large = client.get("http://peer.test/large").send().await.unwrap();
    assert_eq!(
        client.stats().total.total.count,
        0,
        "the body is not read yet"
    );
    large.bytes().await.unwrap();
    assert_eq!(client.stats().total.total.count, 1);
    let short = client.get(URL).send().await.unwrap();
    let error = short.bytes().await.unwrap_err();
    assert_eq!(error.phase(), Some(Phase::Read));
    let total = client.stats().total;
    assert_eq!(total.responses_2xx, 2);
    assert_eq!(total.errors.get(ErrorKind::Timeout), 1);
    assert_eq!(total.timeouts.get(Phase::Read), 1);
    assert_eq!(total.total.count, 1);
    settle(&client, &world).await;
}

/// A future that was never polled is no call.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_polled_did_not_happen() {
    let world = World::new();
    let client = world.client();
    drop(client.get(URL).send());
    let total = client.stats().total;
    assert_eq!((total.requests_total, total.cancelled), (0, 0));
    assert_eq!(world.dials(), 0);
    settle(&client, &world).await;
}

/// Everything that a snapshot counts by reason or as a gauge of connections, by name.
fn counted(stats: &HostStats) -> BTreeMap<String, u64> {
    fn by<K: Debug>(
        all: &mut BTreeMap<String, u64>,
        what: &str,
        counts: impl Iterator<Item = (K, u64)>,
    ) {
        all.extend(counts.map(|(key, count)| (format!("{what} {key:?}"), count)));
    }
    let mut all = BTreeMap::new();
    by(&mut all, "checkout", stats.checkouts.iter());
    by(&mut all, "dial", stats.dials.iter());
    by(&mut all, "probe", stats.probes.iter());
    by(&mut all, "retry", stats.retry_causes.iter());
    by(&mut all, "drain", stats.drains.iter());
    by(&mut all, "alpn", stats.alpn.iter());
    by(&mut all, "closed", stats.connections_closed.iter());
    by(&mut all, "error", stats.errors.iter());
    by(&mut all, "timeout", stats.timeouts.iter());
    for (name, count) in [
        ("opened", stats.connections_opened),
        ("reused", stats.connections_reused),
        ("connect failures", stats.connect_failures),
        ("retries", stats.retries),
        ("cancelled", stats.cancelled),
        ("waits", stats.pool_wait.count),
    ] {
        all.insert(name.to_owned(), count);
    }
    for (name, gauge) in [
        ("= active", stats.connections_active),
        ("= idle", stats.connections_idle),
        ("= connecting", stats.connections_connecting),
        ("= draining", stats.connections_draining),
        ("= pending", stats.requests_pending),
        ("= starving", stats.hosts_starving),
    ] {
        all.insert(name.to_owned(), gauge as u64);
    }
    all.retain(|_, count| *count > 0);
    all
}

/// Looks at what has moved between two looks.
struct Watch<'a> {
    client: &'a Client,
    before: BTreeMap<String, u64>,
}

impl<'a> Watch<'a> {
    fn new(client: &'a Client) -> Self {
        Self {
            client,
            before: counted(&client.stats().total),
        }
    }

    /// Panics unless exactly these have moved, each by so much: `name +n`, or `name -n` for a gauge.
    #[track_caller]
    fn moved(&mut self, expected: &[&str]) {
        let now = counted(&self.client.stats().total);
        let mut moved: Vec<String> = now
            .keys()
            .chain(self.before.keys().filter(|name| !now.contains_key(*name)))
            .filter_map(|name| {
                let of = |all: &BTreeMap<String, u64>| all.get(name).copied().unwrap_or(0);
                let (before, now) = (of(&self.before), of(&now));
                match now.checked_sub(before) {
                    Some(0) => None,
                    Some(more) => Some(format!("{name} +{more}")),
                    None => Some(format!("{name} -{}", before - now)),
                }
            })
            .collect();
        moved.sort();
        let mut expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(moved, expected);
        self.before = now;
    }
}

/// Spec pool 3.15: checkouts, dials and waits.
#[tokio::test(start_paused = true)]
async fn dials_and_checkouts_are_counted() {
    let world = World::new();
    let timeouts = Timeouts::default().with_connect(Some(5 * SECOND));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let mut watch = Watch::new(&client);

    world.plan(Dial::Delay(SECOND));
    let call = get(&client, URL);
    let_others_run().await;
    watch.moved(&["dial Started +1", "= connecting +1", "= pending +1"]);
    let mut connection = world.accept().await;
    connection.read_request().await;
    watch.moved(&[
        "dial Succeeded +1",
        "opened +1",
        "checkout Fresh +1",
        "waits +1",
        "= connecting -1",
        "= pending -1",
        "= active +1",
    ]);
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    watch.moved(&["= active -1", "= idle +1"]);

    let call = get(&client, URL);
    connection.read_request().await;
    // In memory nothing tells whether something has arrived but a read.
    watch.moved(&[
        "checkout Reused +1",
        "reused +1",
        "probe SettledAlive +1",
        "= idle -1",
        "= active +1",
    ]);

    // A dial whose call is served by another connection meanwhile is surplus.
    world.plan(Dial::Delay(SECOND));
    let waiting = get(&client, URL);
    let_others_run().await;
    watch.moved(&["dial Started +1", "= connecting +1", "= pending +1"]);
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    connection.read_request().await;
    watch.moved(&[
        "checkout Reused +1",
        "reused +1",
        "probe SettledAlive +1",
        "waits +1",
        "= pending -1",
    ]);
    let mut surplus = world.accept().await;
    let_others_run().await;
    watch.moved(&[
        "dial Succeeded +1",
        "dial Surplus +1",
        "opened +1",
        "= connecting -1",
        "= idle +1",
    ]);
    // It is fresh when it is lent.
    let call = get(&client, URL);
    surplus.read_request().await;
    watch.moved(&[
        "checkout Fresh +1",
        "probe SettledAlive +1",
        "= idle -1",
        "= active +1",
    ]);
    for (call, connection) in [(call, &mut surplus), (waiting, &mut connection)] {
        connection.write(ok("")).await;
        call.await.unwrap().unwrap();
    }
    watch.moved(&["= active -2", "= idle +2"]);
    client.close_idle();
    watch.moved(&["= idle -2", "closed PoolClosed +2"]);

    world.plan(Dial::Refuse);
    client.get(URL).send().await.unwrap_err();
    watch.moved(&[
        "dial Started +1",
        "dial Failed +1",
        "connect failures +1",
        "error Connect +1",
    ]);
    world.plan(Dial::Hang);
    client.get(URL).send().await.unwrap_err();
    let_others_run().await;
    watch.moved(&[
        "dial Started +1",
        "dial TimedOut +1",
        "connect failures +1",
        "error Timeout +1",
        "timeout Connect +1",
    ]);

    // A dial that ends with its client has no outcome.
    world.plan(Dial::Hang);
    let call = get(&client, URL);
    let_others_run().await;
    watch.moved(&["dial Started +1", "= connecting +1", "= pending +1"]);
    client.close(SECOND).await;
    call.await.unwrap().unwrap_err();
    watch.moved(&["error ClientClosed +1", "= connecting -1", "= pending -1"]);
    settle(&client, &world).await;
}

/// A connection that is opened in advance is no checkout, and neither is one that was there already.
#[tokio::test(start_paused = true)]
async fn preconnected_connections_are_no_checkouts() {
    let world = World::new();
    let client = world.client();
    let mut watch = Watch::new(&client);
    client.preconnect(URL, 2).await.unwrap();
    watch.moved(&[
        "dial Started +2",
        "dial Succeeded +2",
        "opened +2",
        "= idle +2",
    ]);
    client.preconnect(URL, 2).await.unwrap();
    watch.moved(&["probe SettledAlive +2"]);
    let mut connections = [world.accept().await, world.accept().await];
    let call = get(&client, URL);
    let_others_run().await;
    watch.moved(&[
        "checkout Fresh +1",
        "probe SettledAlive +1",
        "= idle -1",
        "= active +1",
    ]);
    for connection in &mut connections {
        connection.write(ok("")).await;
    }
    call.await.unwrap().unwrap();
    settle(&client, &world).await;
}

/// Spec pool 3.15: why a connection was closed, and why a request was sent again.
#[tokio::test(start_paused = true)]
async fn ends_and_retries_are_counted() {
    let world = World::new();
    let client = world.client();
    let mut watch = Watch::new(&client);
    let opened = [
        "dial Started +1",
        "dial Succeeded +1",
        "opened +1",
        "checkout Fresh +1",
        "waits +1",
    ];
    let used = |more: &[&'static str]| [&opened[..], more].concat();

    // Stale: closed on a request that may be sent twice.
    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    watch.moved(&used(&["= idle +1"]));
    let call = get(&client, URL);
    connection.read_request().await;
    connection.close();
    let mut connection = world.accept().await;
    connection.read_request().await;
    watch.moved(&used(&[
        "checkout Reused +1",
        "reused +1",
        "probe SettledAlive +1",
        "closed Error +1",
        "retry Stale +1",
        "retries +1",
        "= idle -1",
        "= active +1",
    ]));
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    watch.moved(&["= active -1", "= idle +1"]);

    // Closed, and spoken to, while it was idle.
    connection.close();
    world.serve(|_| ok(""));
    client.get(URL).send().await.unwrap();
    watch.moved(&used(&["closed PeerClosed +1", "probe SettledDead +1"]));
    client.close_idle();
    watch.moved(&["closed PoolClosed +1", "= idle -1"]);

    // Never written: sent again whatever it is.
    let faulty = World::new();
    faulty.faults(crate::support::faults::Faults {
        break_after_writing: Some(0),
        ..Default::default()
    });
    let other = faulty.client();
    let mut watch = Watch::new(&other);
    let call = tokio::spawn(other.post(URL).body("x").send());
    for _ in 0..3 {
        let connection = faulty.accept().await;
        // It has tried to write by then.
        let_others_run().await;
        connection.close();
    }
    call.await.unwrap().unwrap_err();
    watch.moved(&[
        "dial Started +3",
        "dial Succeeded +3",
        "opened +3",
        "checkout Fresh +3",
        "waits +3",
        "closed Error +3",
        "retry Unwritten +2",
        "retries +2",
        "error Io +1",
    ]);
    settle(&other, &faulty).await;
    settle(&client, &world).await;
}

/// Spec pool 3.15: every reason for a close that the other tests of this file do not show.
#[tokio::test(start_paused = true)]
async fn causes_of_closing_are_counted() {
    let world = World::new();
    let limits = at_most(3)
        .with_max_idle(1)
        .with_max_requests_per_connection(Some(3))
        .with_idle_timeout(10 * SECOND);
    let client = limited(&world, limits);
    let mut watch = Watch::new(&client);
    let opened = [
        "dial Started +1",
        "dial Succeeded +1",
        "opened +1",
        "checkout Fresh +1",
        "waits +1",
    ];
    let used = |more: &[&'static str]| [&opened[..], more].concat();

    let (call, mut connection) = held(&client, &world).await;
    connection
        .write(reply("200 OK", "connection: close\r\n", ""))
        .await;
    call.await.unwrap().unwrap();
    watch.moved(&used(&["closed PeerAsked +1"]));

    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("") + "x").await;
    call.await.unwrap().unwrap();
    watch.moved(&used(&["closed Unsolicited +1"]));

    let (call, mut connection) = held(&client, &world).await;
    connection.write("nonsense\r\n\r\n").await;
    call.await.unwrap().unwrap_err();
    watch.moved(&used(&["closed Error +1", "error Protocol +1"]));

    let (call, mut connection) = held(&client, &world).await;
    call.abort();
    connection.closed().await;
    watch.moved(&used(&["closed Dropped +1", "cancelled +1"]));

    let (call, mut connection) = held(&client, &world).await;
    connection
        .write(reply("200 OK", "keep-alive: timeout=1\r\n", ""))
        .await;
    call.await.unwrap().unwrap();
    watch.moved(&used(&["closed KeepAliveHint +1"]));

    // Three idle ones: two are too many, and the last goes by itself.
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
    watch.moved(&[
        "dial Started +3",
        "dial Succeeded +3",
        "opened +3",
        "checkout Fresh +3",
        "waits +3",
        "= idle +3",
    ]);
    // With all three taken, another origin has to wait until one of them is closed for it.
    let other = get(&client, "http://other.test/");
    let mut connection = world.accept().await;
    connection.read_request().await;
    watch.moved(&used(&["closed Evicted +1", "= idle -1", "= active +1"]));
    connection.write(ok("")).await;
    other.await.unwrap().unwrap();
    watch.moved(&["= active -1", "= idle +1"]);
    sleep(3 * SECOND).await;
    // In memory, whatever rests is looked at again whenever the reaper comes round.
    let armed = client.stats().total.probes.get(ProbeOutcome::SettledAlive);
    assert!(armed >= 3, "{armed}");
    let armed = format!("probe SettledAlive +{armed}");
    watch.moved(&["closed MaxIdle +2", "= idle -2", &armed]);
    sleep(10 * SECOND).await;
    watch.moved(&["closed Idle +1", "= idle -1"]);

    // The third use is the last.
    world.serve(|_| ok(""));
    for _ in 0..3 {
        client.get(URL).send().await.unwrap();
    }
    watch.moved(&used(&[
        "checkout Reused +2",
        "reused +2",
        "probe SettledAlive +2",
        "closed Lifetime +1",
    ]));
    client.get(URL).send().await.unwrap();
    watch.moved(&used(&["= idle +1"]));
    sleep(MILLI).await;
    client.mark_stale();
    watch.moved(&["closed Stale +1", "= idle -1"]);
    settle(&client, &world).await;
}

/// Spec pool 3.15: drains, and the gauge of those that run.
#[tokio::test(start_paused = true)]
async fn drains_are_counted() {
    let world = World::new();
    let client = world.client();
    let mut watch = Watch::new(&client);
    let opened = [
        "dial Started +1",
        "dial Succeeded +1",
        "opened +1",
        "checkout Fresh +1",
        "waits +1",
    ];
    let used = |more: &[&'static str]| [&opened[..], more].concat();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

    let (mut response, mut connection) = streaming(&world, &client, chunked).await;
    watch.moved(&used(&["= active +1"]));
    connection.write("3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n").await;
    response.chunk().await.unwrap();
    drop(response);
    watch.moved(&["drain Buffered +1", "= active -1", "= idle +1"]);
    client.close_idle();
    watch.moved(&["closed PoolClosed +1", "= idle -1"]);

    let (response, mut connection) = streaming(&world, &client, chunked).await;
    connection.write("0\r\n\r\n").await;
    drop(response);
    watch.moved(&used(&["drain Inline +1", "= idle +1"]));
    client.close_idle();
    watch.moved(&["closed PoolClosed +1", "= idle -1"]);

    let (response, mut connection) = streaming(&world, &client, chunked).await;
    drop(response);
    watch.moved(&used(&["= active +1", "= draining +1"]));
    connection.write("0\r\n\r\n").await;
    let_others_run().await;
    watch.moved(&["drain Task +1", "= active -1", "= draining -1", "= idle +1"]);
    client.close_idle();
    watch.moved(&["closed PoolClosed +1", "= idle -1"]);

    let (response, mut connection) = streaming(&world, &client, chunked).await;
    drop(response);
    watch.moved(&used(&["= active +1", "= draining +1"]));
    connection.closed().await;
    watch.moved(&[
        "drain GaveUp +1",
        "closed DrainGaveUp +1",
        "= active -1",
        "= draining -1",
    ]);
    let (response, mut connection) = streaming(&world, &client, chunked).await;
    watch.moved(&used(&["= active +1"]));
    let closing = client.close(Duration::ZERO).await;
    assert_eq!(closing.cut, 1);
    drop(response);
    connection.closed().await;
    watch.moved(&["drain GaveUp +1", "closed Cut +1", "= active -1"]);
    settle(&client, &world).await;
}

/// Spec pool 3.15: who starves is told while it starves, and how long the oldest loan lasts while it lasts.
#[tokio::test(start_paused = true)]
async fn starving_hosts_and_old_leases_are_told() {
    let world = World::new();
    let client = limited(&world, at_most(2));
    assert_eq!(client.stats().total.oldest_lease, None);
    let (first, mut one) = held(&client, &world).await;
    sleep(SECOND).await;
    let (second, mut two) = held(&client, &world).await;
    sleep(SECOND).await;
    let oldest = |client: &Client| client.stats().total.oldest_lease;
    assert_eq!(oldest(&client), Some(2 * SECOND));
    let mut watch = Watch::new(&client);
    let waiting: Vec<_> = ["http://b.test/", "http://b.test/", "http://c.test/"]
        .map(|url| {
            let call = client.get(url).send();
            tokio::spawn(async move { text(call.await).await })
        })
        .into();
    let_others_run().await;
    watch.moved(&["= pending +3", "= starving +2"]);
    world.serve(|_| ok("late"));
    for (call, connection) in [(first, &mut one), (second, &mut two)] {
        connection.write(ok("")).await;
        call.await.unwrap().unwrap();
        connection.closed().await;
    }
    for call in waiting {
        assert_eq!(call.await.unwrap(), "late");
    }
    let total = client.stats().total;
    assert_eq!((total.hosts_starving, total.oldest_lease), (0, None));
    // A body that nobody reads is a loan as well.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    client.close_idle();
    let world = World::new();
    let client = world.client();
    let (response, mut connection) = streaming(&world, &client, head).await;
    sleep(7 * SECOND).await;
    assert_eq!(oldest(&client), Some(7 * SECOND));
    connection.write(" whole").await;
    response.bytes().await.unwrap();
    assert_eq!(oldest(&client), None);
    settle(&client, &world).await;
}
