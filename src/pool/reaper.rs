//! Looks after idle connections: closes them when their time is over or their peer has gone, without anybody asking
//! (spec pool 3.11, R-LIVE-5).
//!
//! One task a runtime. It comes with the first idle connection and goes when nothing is idle, so that an unused client has
//! no task at all. It holds the pool weakly. A connection that is used again and again is never touched: only one that has
//! rested for a moment gives its memory back and is armed, which means that its socket rings the reaper's [`Bell`] when
//! something arrives. From then on it costs nothing until it expires.
//!
//! It looks at all hosts of its runtime when the bell has rung or something expires, and glances at those that have something
//! idle and unarmed a moment after they said so.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use atomic_waker::AtomicWaker;
use tokio::runtime::Id;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::host::NextLook;
use super::{Host, Inner};
use crate::connection::Timer;
use crate::stats::CloseCause;

/// The reapers of a pool, by runtime.
#[derive(Default)]
pub(super) struct Reapers(Mutex<HashMap<Id, Arc<Bell>>>);

/// What calls a reaper. As a waker it is what idle sockets ring.
#[derive(Default)]
struct Bell {
    /// A socket has rung, or something idle was closed.
    rung: AtomicBool,
    /// Hosts with something idle that is not armed.
    hosts: Mutex<Vec<Weak<Host>>>,
    reaper: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        self.reaper.wake();
    }
}

impl Bell {
    fn hosts(&self) -> MutexGuard<'_, Vec<Weak<Host>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reapers {
    /// Makes sure that a reaper will look at `host`.
    pub(super) fn watch(&self, pool: &Arc<Inner>, host: &Arc<Host>) {
        let runtime = host.runtime();
        let (mut new, called_first);
        new = false;
        let bell = {
            let mut reapers = self.lock();
            let bell = reapers.entry(runtime.id()).or_insert_with(|| {
                new = true;
                Arc::default()
            });
            // Under the lock, so that a reaper which is about to go sees that it may not.
            let mut hosts = bell.hosts();
            called_first = hosts.is_empty();
            hosts.push(Arc::downgrade(host));
            drop(hosts);
            Arc::clone(bell)
        };
        if !new {
            if called_first {
                bell.reaper.wake();
            }
            return;
        }
        let mut reaper = Reaper::new(pool, runtime.id(), bell);
        // The lock is not held while the task is made: a runtime that is ending drops it, and with it the reaper, on the spot.
        runtime.spawn(unconstrained(async move {
            poll_fn(|cx| reaper.poll(cx)).await;
        }));
    }

    /// Something idle was closed, perhaps the last: every reaper looks whether it may go.
    pub(super) fn ring(&self) {
        let bells: Vec<_> = self.lock().values().cloned().collect();
        for bell in bells {
            bell.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Arc<Bell>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task.
struct Reaper {
    pool: Weak<Inner>,
    runtime: Id,
    bell: Arc<Bell>,
    /// What idle sockets wake.
    socket_waker: Waker,
    timer: Timer,
    /// Hosts with something idle that is not armed, and when to glance at them.
    unarmed: Vec<Weak<Host>>,
    glance_at: Option<Instant>,
    /// When to look at all hosts.
    look_at: Option<Instant>,
    looked_at: Instant,
    clocks: Clocks,
    ended_in_peace: bool,
}

impl Reaper {
    fn new(pool: &Arc<Inner>, runtime: Id, bell: Arc<Bell>) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            runtime,
            socket_waker: Waker::from(Arc::clone(&bell)),
            bell,
            timer: Timer::default(),
            unarmed: Vec::new(),
            glance_at: None,
            look_at: None,
            looked_at: Instant::now(),
            clocks: Clocks::now(),
            ended_in_peace: false,
        }
    }

    /// Ready when there is nothing left to look after.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.bell.reaper.register(cx.waker());
        let Some(pool) = self.pool.upgrade() else {
            return Poll::Ready(());
        };
        loop {
            let now = Instant::now();
            let called = std::mem::take(&mut *self.bell.hosts());
            if !called.is_empty() {
                self.unarmed.extend(called);
                self.glance_at.get_or_insert(now + TURN);
            }
            if self.bell.rung.swap(false, Ordering::SeqCst) {
                // Many sockets may ring one after the other; one look is for all of them.
                let soon = now.max(self.looked_at + RING);
                self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
            }
            if self.look_at.is_some_and(|at| at <= now) {
                self.look(&pool, now);
                if self.look_at.is_none() && self.glance_at.is_none() && pool.stop_watching(self) {
                    self.ended_in_peace = true;
                    return Poll::Ready(());
                }
            } else if self.glance_at.is_some_and(|at| at <= now) {
                self.glance(&pool, now);
            }
            let Some(next) = self.glance_at.into_iter().chain(self.look_at).min() else {
                // Somebody called while it was about to go, or something cannot expire.
                if self.bell.hosts().is_empty() {
                    return Poll::Pending;
                }
                continue;
            };
            if self.timer.poll(cx, next).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Looks at everything.
    fn look(&mut self, pool: &Arc<Inner>, now: Instant) {
        self.looked_at = now;
        self.look_at = None;
        self.glance_at = None;
        self.unarmed.clear();
        if self.clocks.slept(pool.limits().idle_timeout) {
            // What was open then may have been closed, or cut off, without anybody here hearing of it.
            pool.mark_stale();
        }
        for host in pool.hosts_of(self.runtime) {
            self.look_at_host(&host, now);
        }
        let again = trim(pool, now);
        self.look_no_later_than(again);
        pool.forget_unused();
    }

    /// Looks at the hosts that have called.
    fn glance(&mut self, pool: &Arc<Inner>, now: Instant) {
        self.glance_at = None;
        let mut hosts: Vec<_> = self
            .unarmed
            .drain(..)
            .filter_map(|host| host.upgrade())
            .collect();
        hosts.sort_by_key(Arc::as_ptr);
        hosts.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for host in hosts {
            self.look_at_host(&host, now);
        }
        // Where connections come and go there may be too many soon, or none any more.
        self.look_no_later_than(Some(now + pool.limits().idle_grace.min(LONGEST)));
    }

    fn look_at_host(&mut self, host: &Arc<Host>, now: Instant) {
        host.expire(now);
        host.grow_ahead(now);
        host.arm(now, TURN, &mut Context::from_waker(&self.socket_waker));
        match host.next_look(now) {
            NextLook::Soon => {
                self.unarmed.push(Arc::downgrade(host));
                self.glance_at = Some(now + TURN);
            }
            NextLook::At(at) => self.look_no_later_than(Some(at)),
            NextLook::Never => {}
        }
    }

    /// Moments of expiry that lie close together are waited for together.
    fn look_no_later_than(&mut self, at: Option<Instant>) {
        let Some(at) = at.map(|at| at.max(self.looked_at + ROUND)) else {
            return;
        };
        self.look_at = Some(self.look_at.map_or(at, |known| known.min(at)));
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if self.ended_in_peace {
            return;
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.reapers.lock().remove(&self.runtime);
            // The runtime has ended: its sockets can never be used again (design D7), and its handle keeps descriptors open.
            for host in pool.hosts_of(self.runtime) {
                host.close_idle(CloseCause::RuntimeGone);
                host.unwatch();
            }
            pool.forget_unused();
        }
    }
}

impl Inner {
    /// Ends the watch over a runtime unless something of it is idle again, or has just called.
    fn stop_watching(&self, reaper: &Reaper) -> bool {
        let mut reapers = self.reapers.lock();
        if !reaper.bell.hosts().is_empty() {
            return false;
        }
        let hosts = self.hosts_of(reaper.runtime);
        let quiet = hosts.iter().filter(|host| !host.unwatch()).count() == 0;
        if quiet {
            reapers.remove(&reaper.runtime);
        }
        quiet
    }
}

/// Keeps to max_idle and max_idle_per_host, among connections that have been idle for a while: right after a burst they
/// are about to be used again (spec pool R-LIM-1). Answers when the next of them will have been idle for long enough.
fn trim(pool: &Inner, now: Instant) -> Option<Instant> {
    let limits = pool.limits();
    let hosts = pool.all_hosts();
    let mut again = None;
    let mut is_over = |since: Instant| {
        let over = since.checked_add(limits.idle_grace);
        again = again
            .into_iter()
            .chain(over.filter(|over| *over > now))
            .min();
        over.is_some_and(|over| over <= now)
    };
    if let Some(max) = limits.max_idle_per_host {
        for host in &hosts {
            while host.idle() > max
                && host.oldest_idle().is_some_and(&mut is_over)
                && host.evict(CloseCause::MaxIdle)
            {}
        }
    }
    let idle: usize = hosts.iter().map(|host| host.idle()).sum();
    let mut excess = idle.saturating_sub(limits.max_idle);
    if excess == 0 {
        return again;
    }
    // By the age of their oldest, so that finding the next one does not mean asking every host again.
    let mut by_age: BinaryHeap<_> = hosts
        .iter()
        .enumerate()
        .filter_map(|(at, host)| Some(Reverse((host.oldest_idle()?, at))))
        .collect();
    while let Some(Reverse((since, at))) = by_age.pop() {
        let Some(host) = hosts.get(at).filter(|_| excess > 0 && is_over(since)) else {
            break;
        };
        if host.evict(CloseCause::MaxIdle) {
            excess -= 1;
        }
        by_age.extend(host.oldest_idle().map(|since| Reverse((since, at))));
    }
    again
}

/// The wall clock, and one that stands still while the machine sleeps.
struct Clocks {
    wall: SystemTime,
    awake: std::time::Instant,
}

impl Clocks {
    fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            awake: std::time::Instant::now(),
        }
    }

    /// Whether the machine has slept for longer than `limit` since the last question (spec pool R-LIFE-3).
    fn slept(&mut self, limit: Duration) -> bool {
        let before = std::mem::replace(self, Self::now());
        let wall = self.wall.duration_since(before.wall).unwrap_or_default();
        has_slept(wall, self.awake - before.awake, limit)
    }
}

fn has_slept(wall: Duration, awake: Duration, limit: Duration) -> bool {
    wall.saturating_sub(awake) > limit
}

/// How long a connection must have rested to be armed, and how soon after a call the reaper glances.
const TURN: Duration = Duration::from_millis(50);

/// Looks at everything are this far apart at least when sockets ring.
const RING: Duration = Duration::from_millis(10);

/// A look at everything comes this soon at the latest while connections come and go.
const LONGEST: Duration = Duration::from_secs(60);

/// Looks at everything are at least this far apart, unless a socket rings.
const ROUND: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_slept_when_only_the_wall_clock_went_on() {
        let seconds = Duration::from_secs;
        for (wall, awake, slept) in [
            (0, 0, false),
            (60, 60, false),
            (65, 60, false),
            (66, 60, true),
            (3600, 1, true),
            // Somebody set the clock back.
            (0, 60, false),
        ] {
            assert_eq!(has_slept(seconds(wall), seconds(awake), seconds(5)), slept);
        }
    }
}
