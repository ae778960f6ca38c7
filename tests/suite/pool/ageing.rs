//! How long connections are kept: idle time, hints of the server, the surplus of a burst, lifetimes.

use std::time::Duration;

use sockeye::Limits;
use sockeye::stats::CloseCause;
use tokio::time::{advance, sleep};

use super::{MILLI, SECOND, URL, get, held, limited, serve_after};
use crate::support::peer::{Dial, World, let_others_run, ok, reply, settle};

/// 2: an idle connection that has expired is not lent, and closes without anybody asking.
#[tokio::test(start_paused = true)]
async fn t02_idle_expiry() {
    let world = World::new();
    let client = limited(&world, Limits::default().with_idle_timeout(SECOND));
    world.serve(|_| ok(""));
    client.get(URL).send().await.unwrap();
    advance(SECOND - 10 * MILLI).await;
    assert!(client.get(URL).send().await.unwrap().reused());
    // The clock jumps without the reaper having had its turn.
    advance(SECOND + 100 * MILLI).await;
    assert!(!client.get(URL).send().await.unwrap().reused());
    assert_eq!(world.accepts(), 2);
    sleep(SECOND + 600 * MILLI).await;
    assert_eq!(world.open(), 0, "closed without a request");
    let total = client.stats().total;
    assert_eq!(total.connections_idle, 0);
    assert_eq!(total.connections_closed.get(CloseCause::Idle), 2);
    settle(&client, &world).await;
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

/// 3: a server's hint decides how long a connection is kept.
#[tokio::test(start_paused = true)]
async fn t03_keep_alive_hint() {
    for (hint, idle, reused) in [
        ("timeout=3", 900 * MILLI, true),
        ("timeout=3", 1100 * MILLI, false),
        ("timeout=1", Duration::ZERO, false),
        ("timeout=2", Duration::ZERO, false),
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

/// 4 (with ruling 1): a burst is kept for a second, then max_idle holds.
#[tokio::test(start_paused = true)]
async fn max_idle_holds_after_a_grace() {
    let world = World::new();
    let limits = Limits::default()
        .with_max_idle(3)
        .with_idle_timeout(60 * SECOND);
    let client = limited(&world, limits);
    serve_after(&world, 10 * MILLI);
    for _ in 0..2 {
        let calls: Vec<_> = (0..10).map(|_| get(&client, URL)).collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert_eq!(
            world.accepts(),
            10,
            "the second burst finds the connections of the first"
        );
    }
    sleep(3 * SECOND).await;
    let total = client.stats().total;
    assert_eq!(total.connections_idle, 3);
    assert_eq!(total.connections_closed.get(CloseCause::MaxIdle), 7);
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
