//! Calls that are dropped at any point: whatever was sent then, the next response is the right one.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sockeye::ErrorKind;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{MILLI, SECOND, URL, at_most, limited, serve_after, text};
use crate::support::peer::{Dial, World, ok, settle};
use crate::support::streams::{Random, within_polls};

/// 28: a call dropped after its n-th poll leaves a connection that is clean or closed; the next response is always right.
#[tokio::test(start_paused = true)]
async fn t28_dirty_by_default() {
    let mut finished = 0;
    for polls in 1..=60 {
        let world = World::new();
        // Narrow and slow, so that a call takes many polls.
        world.buffer(32);
        let client = limited(&world, at_most(1));
        tokio::spawn({
            let world = world.clone();
            async move {
                loop {
                    let mut connection = world.accept().await;
                    while let Some(request) = connection.next_request().await {
                        let body = format!("{} {}", request.target(), request.body.len());
                        let body = format!("{body} {}", "z".repeat(40));
                        if !connection.write_slowly(ok(&body).as_bytes()).await {
                            break;
                        }
                    }
                }
            }
        });
        let call = |path: &str, size: usize| {
            let request = client.put(format!("http://peer.test{path}"));
            let sent = request.body(vec![b'x'; size]).send();
            async move { text(sent.await).await }
        };
        let expected = |path, size| format!("{path} {size} {}", "z".repeat(40));
        if polls % 2 == 0 {
            assert_eq!(call("/before", 10).await, expected("/before", 10));
        }
        if let Some(body) = within_polls(polls, call("/cut", 200)).await {
            assert_eq!(body, expected("/cut", 200));
            finished += 1;
        }
        for _ in 0..2 {
            let next = timeout(60 * SECOND, call("/next", 3));
            assert_eq!(
                next.await.unwrap(),
                expected("/next", 3),
                "after {polls} polls"
            );
        }
        settle(&client, &world).await;
    }
    assert!(finished < 60, "no call was ever cut");
}

/// The same for calls that wait in line and for dials that take time.
#[tokio::test(start_paused = true)]
async fn calls_dropped_at_any_poll_leave_nothing_behind() {
    for polls in 1..=20 {
        let world = World::new();
        world.always(Dial::Delay(MILLI));
        serve_after(&world, MILLI);
        let client = limited(&world, at_most(1));
        let mut calls = JoinSet::new();
        for number in 0..5 {
            let sent = client.get(format!("http://peer.test/{number}")).send();
            calls.spawn(async move {
                let cut = if number % 2 == 0 { polls } else { usize::MAX };
                if let Some(response) = within_polls(cut, sent).await {
                    assert_eq!(text(response).await, format!("/{number}"));
                }
            });
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
        assert_eq!(text(client.get(URL).send().await).await, "/");
        settle(&client, &world).await;
        assert!(world.open() <= 1);
    }
}

/// 11, bounded: many tasks, few connections, and calls that are dropped at any point.
#[tokio::test(start_paused = true)]
async fn t11_cancel_storm() {
    for seed in 1..=5 {
        let world = World::new();
        world.buffer(200);
        let client = limited(
            &world,
            at_most(10).with_max_connections_per_host(NonZeroUsize::new(6)),
        );
        tokio::spawn({
            let world = world.clone();
            async move {
                let mut random = Random::new(seed * 1000);
                loop {
                    let mut connection = world.accept().await;
                    let delay = MILLI * u32::try_from(random.below(5)).unwrap();
                    tokio::spawn(async move {
                        let mut left = 7;
                        while let Some(request) = connection.next_request().await {
                            sleep(delay).await;
                            let body = format!("{}{}", request.target(), "z".repeat(300));
                            let sent = connection.try_write(ok(&body).as_bytes()).await;
                            left -= 1;
                            if !sent || left == 0 {
                                return;
                            }
                        }
                    });
                }
            }
        });
        let most = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..200_u64 {
            let (client, world, most) = (client.clone(), world.clone(), Arc::clone(&most));
            tasks.spawn(async move {
                let mut random = Random::new(seed * 10_000 + number);
                for round in 0..5 {
                    let path = format!("/{number}-{round}");
                    let url = format!(
                        "http://{}.test{path}",
                        ["a", "b", "c"][random.below(3) as usize]
                    );
                    let call = async {
                        let mut response = client.get(&url).send().await?;
                        most.fetch_max(world.open(), Ordering::SeqCst);
                        let mut body = Vec::new();
                        while let Some(chunk) = response.chunk().await? {
                            body.extend_from_slice(&chunk);
                        }
                        Ok::<_, sockeye::Error>(body)
                    };
                    let polls = match random.below(3) {
                        0 => usize::MAX,
                        _ => 1 + random.below(12) as usize,
                    };
                    match within_polls(polls, call).await {
                        Some(Ok(body)) => assert!(
                            body.starts_with(path.as_bytes()) && body.ends_with(b"zz"),
                            "a response of another call"
                        ),
                        Some(Err(error)) => assert!(
                            matches!(error.kind(), ErrorKind::Io | ErrorKind::Timeout),
                            "{error}"
                        ),
                        None => {}
                    }
                    if random.below(4) == 0 {
                        sleep(MILLI * u32::try_from(random.below(4)).unwrap()).await;
                    }
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= 10);
        settle(&client, &world).await;
        client.get("http://a.test/later").send().await.unwrap();
        let total = client.stats().total;
        assert!(total.cancelled > 0 && total.responses_2xx > 0);
        assert_eq!(total.requests_total, 1001);
        client.close(SECOND).await;
        assert_eq!(world.open(), 0);
        settle(&client, &world).await;
    }
}
