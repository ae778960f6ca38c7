//! Closes idle connections when their time is over or their peer has gone, without anybody asking (spec pool 3.11).
//!
//! One task a runtime. It comes with the first idle connection and goes when nothing is idle, so that an unused client has
//! no task at all. It holds the pool weakly.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, sleep};

use super::{Host, Inner};
use crate::socket::Probe;
use crate::stats::CloseCause;

/// Makes sure that a reaper runs on this runtime.
pub(super) fn watch(pool: &Arc<Inner>, runtime: &Handle) {
    // The lock is not held while the task is made: a runtime that is ending drops it, and with it the watch, on the spot.
    let new = pool.reapers().insert(runtime.id());
    if new {
        runtime.spawn(reap(
            Arc::downgrade(pool),
            Watch {
                pool: Arc::downgrade(pool),
                runtime: runtime.id(),
                ended_in_peace: false,
            },
        ));
    }
}

/// Leaves the list of reapers even if the runtime ends first.
struct Watch {
    pool: Weak<Inner>,
    runtime: Id,
    ended_in_peace: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.ended_in_peace {
            return;
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.reapers().remove(&self.runtime);
            // The runtime has ended: its sockets can never be used again (design D7).
            for host in pool.hosts_of(self.runtime) {
                host.close_idle(CloseCause::RuntimeGone);
                host.unwatch();
            }
        }
    }
}

async fn reap(pool: Weak<Inner>, mut watch: Watch) {
    loop {
        sleep(TURN).await;
        let Some(pool) = pool.upgrade() else {
            return;
        };
        let hosts = pool.hosts_of(watch.runtime);
        let now = Instant::now();
        for host in &hosts {
            host.expire(now);
            host.drop_dead(Probe::Flag);
        }
        trim(&pool, &hosts, now);
        drop(hosts);
        pool.forget_unused();
        if pool.stop_watching(watch.runtime) {
            watch.ended_in_peace = true;
            return;
        }
    }
}

/// Keeps to max_idle and max_idle_per_host, among connections that have been idle for a while: right after a burst they
/// are about to be used again (spec pool R-LIM-1).
fn trim(pool: &Inner, hosts: &[Arc<Host>], now: Instant) {
    let limits = pool.limits();
    if let Some(max) = limits.max_idle_per_host {
        for host in hosts {
            while host.idle() > max && is_past_grace(host, now) && host.evict(CloseCause::MaxIdle) {
            }
        }
    }
    let mut excess = hosts
        .iter()
        .map(|host| host.idle())
        .sum::<usize>()
        .saturating_sub(limits.max_idle);
    while excess > 0 {
        let oldest = hosts
            .iter()
            .filter(|host| is_past_grace(host, now))
            .filter_map(|host| Some((host.oldest_idle()?, host)))
            .min_by_key(|(since, _)| *since);
        match oldest {
            Some((_, host)) if host.evict(CloseCause::MaxIdle) => excess -= 1,
            _ => return,
        }
    }
}

fn is_past_grace(host: &Host, now: Instant) -> bool {
    host.oldest_idle()
        .is_some_and(|since| now.saturating_duration_since(since) >= GRACE)
}

/// How often it looks.
const TURN: Duration = Duration::from_millis(500);

/// How long a connection may be idle beyond max_idle.
const GRACE: Duration = Duration::from_secs(1);
