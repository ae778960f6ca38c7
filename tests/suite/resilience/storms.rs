//! Retry storms: whatever fails, the extra load stays inside the budget.

use sockeye::Retry;
use tokio::time::{Instant, sleep};

use super::{MILLI, SECOND, URL, build};
use crate::support::peer::{World, ok, reply, settle};
use crate::support::streams::Random;

/// Calls for a minute of virtual time against a server that fails so many of a hundred; answers retries and the bound.
async fn storm(seed: u64, failing: u64) -> (u64, u64) {
    let world = World::new();
    let client = build(&world, |client| client.retry(Retry::default()));
    let random = std::sync::Arc::new(std::sync::Mutex::new(Random::new(seed)));
    world.serve(move |_| match random.lock().unwrap().below(100) < failing {
        true => reply("503 Busy", "", ""),
        false => ok("fine"),
    });
    let begun = Instant::now();
    let mut first_try = 0;
    let mut calls = Vec::new();
    while begun.elapsed() < 60 * SECOND {
        for _ in 0..5 {
            calls.push(tokio::spawn(client.get(URL).send()));
        }
        sleep(100 * MILLI).await;
    }
    for call in calls {
        if call
            .await
            .unwrap()
            .is_ok_and(|response| response.attempts() == 1)
        {
            first_try += 1;
        }
    }
    let seconds = begun.elapsed().as_secs() + 1;
    let total = client.stats().total;
    assert_eq!(total.attempts_total, total.requests_total + total.retries);
    settle(&client, &world).await;
    (total.retries, 100 + first_try / 5 + seconds)
}

#[tokio::test(start_paused = true)]
async fn the_extra_load_stays_inside_the_budget() {
    for (seed, failing) in [(1, 100), (2, 90), (3, 60), (4, 30)] {
        let (retries, bound) = storm(seed, failing).await;
        assert!(
            retries <= bound,
            "{failing} %: {retries} retries, {bound} allowed"
        );
        // And the budget is not left unused where there is more than enough to retry.
        if failing == 100 {
            assert!(retries >= 155, "{retries}");
        }
    }
}
