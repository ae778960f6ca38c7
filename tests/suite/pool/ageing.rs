//! How long connections are kept: idle time, hints of the server, the surplus of a burst, lifetimes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sockeye::stats::CloseCause;
use sockeye::{Client, Limits};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{MILLI, SECOND, URL, at_most, get, held, limited, serve_after, streaming, text};
use crate::support::peer::{Dial, World, let_others_run, ok, reply, settle};

/// 2 (a): a connection that has expired is not lent, even while the reaper has not come round to it.
#[tokio::test(start_paused = true)]
async fn t02_idle_expiry_at_checkout() {
    let world = World::new();
    let client = limited(&world, Limits::default().with_idle_timeout(SECOND));
    let (first, mut one) = held(&client, &world).await;
    let (second, mut two) = held(&client, &world).await;
    one.write(ok("")).await;
    first.await.unwrap().unwrap();
    // The reaper looks when the first expires, and then not for a tenth of a second.
    sleep(50 * MILLI).await;
    two.write(ok("")).await;
    second.await.unwrap().unwrap();
    sleep(1005 * MILLI).await;
    one.closed().await;
    world.serve(|_| ok(""));
    let idle = client.stats().total.connections_idle;
    assert_eq!(idle, 1, "the reaper has taken the last one already");
    assert!(!client.get(URL).send().await.unwrap().reused());
    two.closed().await;
    assert_eq!(world.accepts(), 3);
    let closed = client.stats().total.connections_closed;
    assert_eq!(closed.get(CloseCause::Idle), 2, "{closed:?}");
    assert_eq!(closed.total(), 2, "{closed:?}");
    settle(&client, &world).await;
}

/// 2 (b): the reaper closes it without anybody asking, at most a tenth of a second late; also the second of two that expire
/// shortly after one another.
#[tokio::test(start_paused = true)]
async fn t02_idle_expiry_by_the_reaper() {
    let world = World::new();
    let client = limited(&world, Limits::default().with_idle_timeout(SECOND));
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(held(&client, &world).await);
    }
    let mut watches = JoinSet::new();
    for (call, mut connection) in open {
        connection.write(ok("")).await;
        call.await.unwrap().unwrap();
        watches.spawn(async move {
            let idle = Instant::now();
            connection.closed().await;
            idle.elapsed()
        });
        sleep(23 * MILLI).await;
    }
    while let Some(kept) = watches.join_next().await {
        let kept = kept.unwrap();
        assert!(kept >= SECOND && kept <= SECOND + 110 * MILLI, "{kept:?}");
    }
    let total = client.stats().total;
    assert_eq!(total.connections_idle, 0);
    assert_eq!(total.connections_closed.get(CloseCause::Idle), 5);
    settle(&client, &world).await;
}

/// No idle time at all: every connection serves one exchange.
#[tokio::test(start_paused = true)]
async fn without_idle_time_nothing_is_kept() {
    let world = World::new();
    let client = limited(&world, Limits::default().with_idle_timeout(Duration::ZERO));
    world.serve(|_| ok(""));
    for round in 1..=3 {
        assert!(!client.get(URL).send().await.unwrap().reused());
        settle(&client, &world).await;
        assert_eq!((world.accepts(), world.open()), (round, 0));
    }
    let closed = client.stats().total.connections_closed;
    assert_eq!(closed.get(CloseCause::Idle), 3, "{closed:?}");
}

/// The reaper goes when nothing is idle, and comes back.
#[tokio::test(start_paused = true)]
async fn idle_connections_expire_again_after_a_pause() {
    let world = World::new();
    let client = limited(&world, Limits::default().with_idle_timeout(SECOND));
    world.serve(|_| ok(""));
    for round in 1..4 {
        client.get(URL).send().await.unwrap();
        sleep(10 * SECOND).await;
        assert_eq!(world.open(), 0);
        assert_eq!(world.accepts(), round);
    }
    settle(&client, &world).await;
}

/// 3: a server's hint decides how long a connection is kept, whatever `idle_timeout` says.
#[tokio::test(start_paused = true)]
async fn t03_keep_alive_hint() {
    for (hint, idle, reused) in [
        ("timeout=3", 900 * MILLI, true),
        ("timeout=3", 1000 * MILLI, false),
        ("timeout=3, max=100", 1100 * MILLI, false),
        ("timeout=1", Duration::ZERO, false),
        ("timeout=2", Duration::ZERO, false),
        ("timeout=0", Duration::ZERO, false),
        ("timeout=30", 27 * SECOND, true),
        ("timeout=30", 29 * SECOND, false),
        ("timeout=600", 59 * SECOND, true),
        ("timeout=600", 61 * SECOND, false),
        ("max=5", 4 * SECOND, true),
        ("max=5", 6 * SECOND, false),
    ] {
        let world = World::new();
        let client = world.client();
        world.serve(move |_| reply("200 OK", &format!("keep-alive: {hint}\r\n"), ""));
        client.get(URL).send().await.unwrap();
        sleep(idle).await;
        let again = client.get(URL).send().await.unwrap();
        assert_eq!(again.reused(), reused, "{hint} after {idle:?}");
        settle(&client, &world).await;
    }
}

/// 3: a connection that ends by the server's hint is counted as such, whether it is refused, expires, or is found expired.
#[tokio::test(start_paused = true)]
async fn t03_keep_alive_hint_is_the_cause() {
    for (hint, cause) in [
        ("timeout=1", CloseCause::KeepAliveHint),
        ("timeout=3", CloseCause::KeepAliveHint),
        ("timeout=30", CloseCause::KeepAliveHint),
        ("max=100", CloseCause::Idle),
    ] {
        let world = World::new();
        let client = world.client();
        let (call, mut connection) = held(&client, &world).await;
        let fields = format!("keep-alive: {hint}\r\n");
        connection.write(reply("200 OK", &fields, "")).await;
        call.await.unwrap().unwrap();
        connection.closed().await;
        settle(&client, &world).await;
        let closed = client.stats().total.connections_closed;
        assert_eq!(
            (closed.get(cause), closed.total()),
            (1, 1),
            "{hint}: {closed:?}"
        );
    }
}

/// 4 (with ruling 1 and R-LIM-1): a burst is kept for a second, so that the next one dials nothing; then max_idle holds,
/// and those that were idle for longest are the ones to go.
#[tokio::test(start_paused = true)]
async fn t04_max_idle_grace() {
    let world = World::new();
    let limits = Limits::default().with_idle_timeout(60 * SECOND);
    assert_eq!((limits.max_idle, limits.idle_grace), (20, SECOND));
    let client = limited(&world, limits);
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(held(&client, &world).await);
    }
    for burst in 0..2 {
        let mut peers = Vec::new();
        for (call, mut connection) in std::mem::take(&mut open) {
            connection.write(ok("")).await;
            call.await.unwrap().unwrap();
            peers.push(connection);
        }
        assert_eq!(client.stats().total.connections_idle, 100);
        sleep(900 * MILLI).await;
        assert_eq!(
            client.stats().total.connections_idle,
            100,
            "in burst {burst}"
        );
        // The newest is lent first.
        for mut connection in peers.into_iter().rev() {
            let call = get(&client, URL);
            connection.read_request().await;
            open.push((call, connection));
        }
        assert_eq!((world.dials(), world.accepts()), (100, 100));
    }
    let mut idle = Vec::new();
    for (call, mut connection) in open {
        connection.write(ok("")).await;
        call.await.unwrap().unwrap();
        idle.push(connection);
        sleep(MILLI).await;
    }
    let (oldest, newest) = idle.split_at_mut(80);
    for connection in oldest {
        connection.closed().await;
    }
    // The last of the eighty had been idle for a second; it is closed in the round in which it is found.
    sleep(3 * SECOND).await;
    let total = client.stats().total;
    assert_eq!(total.connections_idle, 20);
    assert_eq!(total.connections_closed.get(CloseCause::MaxIdle), 80);
    assert_eq!(total.connections_closed.total(), 80);
    // Those that are left are the youngest, and they are alive.
    let mut calls = Vec::new();
    for connection in newest.iter_mut().rev() {
        let call = get(&client, URL);
        connection.read_request().await;
        calls.push(call);
    }
    for (call, connection) in calls.into_iter().zip(newest.iter_mut().rev()) {
        connection.write(ok("")).await;
        assert!(call.await.unwrap().unwrap().reused());
    }
    assert_eq!(world.dials(), 100);
    settle(&client, &world).await;
}

/// R-LIM-1: without a grace, what is too much closes within about a tenth of a second.
#[tokio::test(start_paused = true)]
async fn t04_max_idle_without_grace() {
    let world = World::new();
    let limits = Limits::default()
        .with_max_idle(3)
        .with_idle_grace(Duration::ZERO)
        .with_idle_timeout(60 * SECOND);
    let client = limited(&world, limits);
    serve_after(&world, 10 * MILLI);
    for round in 1..=2 {
        let calls: Vec<_> = (0..10).map(|_| get(&client, URL)).collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        sleep(160 * MILLI).await;
        assert_eq!(world.open(), 3);
        let total = client.stats().total;
        assert_eq!(total.connections_idle, 3);
        assert_eq!(total.connections_closed.get(CloseCause::MaxIdle), 7 * round);
    }
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn max_idle_per_host_holds_for_each_host() {
    let world = World::new();
    let limits = Limits::default()
        .with_max_idle_per_host(Some(1))
        .with_idle_timeout(60 * SECOND);
    let client = limited(&world, limits);
    serve_after(&world, 10 * MILLI);
    let mut calls = Vec::new();
    for host in ["a", "b", "a", "b", "a"] {
        calls.push(get(&client, &format!("http://{host}.test/")));
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    sleep(3 * SECOND).await;
    let stats = client.stats();
    for (origin, host) in &stats.hosts {
        assert_eq!(host.connections_idle, 1, "{origin}");
    }
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn max_lifetime_ends_a_connection() {
    let world = World::new();
    let limits = Limits::default()
        .with_max_lifetime(Some(10 * SECOND))
        .with_idle_timeout(60 * SECOND);
    let client = limited(&world, limits);
    world.serve(|_| ok(""));
    for _ in 0..8 {
        client.get(URL).send().await.unwrap();
        sleep(SECOND).await;
    }
    assert_eq!(world.accepts(), 1);
    // Ten per cent of spread are allowed.
    sleep(4 * SECOND).await;
    client.get(URL).send().await.unwrap();
    sleep(MILLI).await;
    client.get(URL).send().await.unwrap();
    assert_eq!(world.accepts(), 2);
    settle(&client, &world).await;
}

/// R-LIFE-2: an idle connection that is too old is not lent, though it was young when it was given back.
#[tokio::test(start_paused = true)]
async fn max_lifetime_counts_while_idle() {
    let world = World::new();
    let limits = Limits::default()
        .with_max_lifetime(Some(10 * SECOND))
        .with_idle_timeout(60 * SECOND);
    let client = limited(&world, limits);
    world.serve(|_| ok(""));
    client.get(URL).send().await.unwrap();
    sleep(12 * SECOND).await;
    let again = client.get(URL).send().await.unwrap();
    assert!(!again.reused(), "12 s old, with a lifetime of 10 s");
    settle(&client, &world).await;
}

/// R-LIFE-2: a connection that is closed for its age is counted by that, also when it was idle at the time.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_grows_too_old_is_counted_as_old() {
    let world = World::new();
    let limits = Limits::default()
        .with_max_lifetime(Some(10 * SECOND))
        .with_idle_timeout(60 * SECOND);
    let client = limited(&world, limits);
    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    connection.closed().await;
    let closed = client.stats().total.connections_closed;
    assert_eq!(closed.get(CloseCause::Lifetime), 1, "{closed:?}");
    settle(&client, &world).await;
}

/// R-LIFE-2: a connection that nobody waited for any more grows old like any other.
#[tokio::test(start_paused = true)]
async fn a_surplus_connection_has_a_lifetime_too() {
    let world = World::new();
    world.plan(Dial::Delay(SECOND));
    let limits = Limits::default().with_max_lifetime(Some(3 * SECOND));
    let client = limited(&world, limits);
    let call = get(&client, URL);
    let_others_run().await;
    call.abort();
    let mut surplus = world.accept().await;
    let_others_run().await;
    assert_eq!(client.stats().total.connections_idle, 1);
    world.serve(|_| ok(""));
    sleep(4 * SECOND).await;
    client.get(URL).send().await.unwrap();
    surplus.closed().await;
    assert_eq!(world.accepts(), 2, "it was opened five seconds ago");
    settle(&client, &world).await;
}

/// 36, R-LIFE-2: under load every connection is replaced when its time has come, between two exchanges, and no call fails.
#[tokio::test(start_paused = true)]
async fn t36_lifetime_under_load() {
    let world = World::new();
    let limits = at_most(10).with_max_lifetime(Some(SECOND));
    let client = limited(&world, limits);
    serve_after(&world, 7 * MILLI);
    let seen: Arc<Mutex<HashMap<u64, (Instant, Instant)>>> = Arc::default();
    let started = Instant::now();
    let mut loops = JoinSet::new();
    for _ in 0..20 {
        let (client, seen) = (client.clone(), Arc::clone(&seen));
        loops.spawn(async move {
            while started.elapsed() < 5 * SECOND {
                let response = client.get(URL).send().await.unwrap();
                let now = Instant::now();
                let id = response.connection().id;
                seen.lock().unwrap().entry(id).or_insert((now, now)).1 = now;
            }
        });
    }
    while let Some(ended) = loops.join_next().await {
        ended.unwrap();
    }
    for (first, last) in seen.lock().unwrap().values() {
        let used = *last - *first;
        assert!(used <= 1110 * MILLI, "used for {used:?}");
    }
    let accepts = world.accepts();
    assert!((40..=70).contains(&accepts), "{accepts} connections in 5 s");
    let total = client.stats().total;
    assert_eq!((total.errors.total(), total.retries), (0, 0));
    let closed = total.connections_closed;
    assert_eq!(
        closed.total(),
        closed.get(CloseCause::Lifetime),
        "{closed:?}"
    );
    settle(&client, &world).await;
}

/// 36 (spec pool 3.2): connections that were opened together end apart, a tenth earlier or later.
#[tokio::test(start_paused = true)]
async fn t36_lifetimes_are_spread() {
    let world = World::new();
    let limits = at_most(200)
        .with_max_idle(200)
        .with_max_lifetime(Some(100 * SECOND))
        .with_idle_timeout(3600 * SECOND);
    let client = limited(&world, limits);
    let started = Instant::now();
    assert_eq!(client.preconnect(URL, 200).await.unwrap(), 200);
    let mut watches = JoinSet::new();
    for _ in 0..200 {
        let mut connection = world.accept().await;
        watches.spawn(async move {
            connection.closed().await;
            started.elapsed()
        });
    }
    let mut lives = Vec::new();
    while let Some(life) = watches.join_next().await {
        lives.push(life.unwrap());
    }
    lives.sort();
    let (first, last) = (lives[0], lives[199]);
    // A reaper's round is added to the latest.
    assert!(first >= 90 * SECOND, "{first:?}");
    assert!(last <= 110 * SECOND + 200 * MILLI, "{last:?}");
    // Evenly: of 200 draws, each half and each outer tenth has some.
    assert!(
        first < 93 * SECOND && last > 107 * SECOND,
        "{first:?} to {last:?}"
    );
    let early = lives.iter().filter(|life| **life < 100 * SECOND).count();
    assert!(
        (60..=140).contains(&early),
        "{early} of 200 in the first half"
    );
    settle(&client, &world).await;
}

/// 36, R-LIFE-3: after `mark_stale` nothing that was open or being opened serves a further request: what is idle closes at
/// once, what is lent when it is done, and a dial still serves whoever waits for it. Nothing fails.
#[tokio::test(start_paused = true)]
async fn t36_mark_stale() {
    let world = World::new();
    let client = world.client();
    let (waits_for_head, mut heading) = held(&client, &world).await;
    let (idle_call, mut idle) = held(&client, &world).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let (reads, mut reading) = streaming(&world, &client, head).await;
    let (dropped, mut draining) = streaming(&world, &client, head).await;
    idle.write(ok("")).await;
    idle_call.await.unwrap().unwrap();
    drop(dropped);
    world.always(Dial::Delay(100 * MILLI));
    // One dial for a call that waits, and one that nobody waits for any more.
    let other = "http://other.test/";
    let (waits_for_dial, abandoned) = (get(&client, other), get(&client, other));
    let_others_run().await;
    abandoned.abort();
    let_others_run().await;
    let total = client.stats().total;
    assert_eq!(
        (total.connections_connecting, total.connections_idle),
        (2, 1)
    );
    assert_eq!(
        (total.connections_active, total.connections_draining),
        (3, 1)
    );
    sleep(MILLI).await;
    client.mark_stale();
    sleep(MILLI).await;

    idle.closed().await;
    let stale = |client: &Client| {
        client
            .stats()
            .total
            .connections_closed
            .get(CloseCause::Stale)
    };
    assert_eq!(stale(&client), 1, "what is idle closes at once");
    heading.write(ok("head")).await;
    assert_eq!(text(waits_for_head.await.unwrap()).await, "head");
    heading.closed().await;
    reading.write(" whole").await;
    assert_eq!(reads.bytes().await.unwrap(), "half whole");
    reading.closed().await;
    draining.write("123456").await;
    draining.closed().await;
    assert_eq!(stale(&client), 4);
    let mut dialled = world.accept().await;
    let mut surplus = world.accept().await;
    dialled.read_request().await;
    dialled.write(ok("dialled")).await;
    assert_eq!(text(waits_for_dial.await.unwrap()).await, "dialled");
    dialled.closed().await;
    surplus.closed().await;
    assert_eq!(stale(&client), 6);

    // What is dialled from now on is kept.
    world.always(Dial::Open);
    world.serve(|_| ok("new"));
    assert!(!client.get(URL).send().await.unwrap().reused());
    assert!(client.get(URL).send().await.unwrap().reused());
    let total = client.stats().total;
    assert_eq!((total.errors.total(), total.retries), (0, 0));
    assert_eq!((stale(&client), total.connections_closed.total()), (6, 6));
    settle(&client, &world).await;
}

/// 36 under load: everything is replaced, and no call fails.
#[tokio::test(start_paused = true)]
async fn t36_mark_stale_under_load() {
    let world = World::new();
    world.always(Dial::Delay(3 * MILLI));
    let client = limited(&world, at_most(8));
    serve_after(&world, 7 * MILLI);
    let mut loops = JoinSet::new();
    let marked: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let uses: Arc<Mutex<HashMap<u64, (Instant, Instant)>>> = Arc::default();
    for _ in 0..16 {
        let (client, uses) = (client.clone(), Arc::clone(&uses));
        loops.spawn(async move {
            for _ in 0..100 {
                let response = client.get(URL).send().await.unwrap();
                let now = Instant::now();
                let id = response.connection().id;
                uses.lock().unwrap().entry(id).or_insert((now, now)).1 = now;
            }
        });
    }
    for _ in 0..10 {
        sleep(50 * MILLI).await;
        marked.lock().unwrap().push(Instant::now());
        client.mark_stale();
    }
    while let Some(ended) = loops.join_next().await {
        ended.unwrap();
    }
    for (first, last) in uses.lock().unwrap().values() {
        for mark in marked.lock().unwrap().iter() {
            let used_after = *first <= *mark && *last > *mark + 20 * MILLI;
            assert!(
                !used_after,
                "a connection from before the mark was lent after it"
            );
        }
    }
    let total = client.stats().total;
    assert_eq!((total.errors.total(), total.retries), (0, 0));
    assert!(world.accepts() >= 80, "{}", world.accepts());
    settle(&client, &world).await;
}
