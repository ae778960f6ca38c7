//! The limit on connections in all, and who waits for it across origins (spec pool R-Q-4, R-OBJ-4).
//!
//! A permit is one unit of the total and of its host. It lives in whatever owns the socket, and its drop is the only
//! decrement. A freed unit goes to the host that has waited longest, not back into the counter.
//!
//! Lock order: a host's lock may be held when this one is taken, never the other way round.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Host;
use super::line::Ticket;

/// Counts the connections of all hosts.
pub(super) struct Capacity {
    max: Option<usize>,
    state: Mutex<State>,
    /// How many hosts wait; read without the lock where a connection is about to become idle.
    starving: AtomicUsize,
    /// Told when the last connection has gone.
    pub(super) emptied: Notify,
}

/// A host that waits for a unit.
struct Waiting {
    host: Weak<Host>,
    since: Instant,
}

#[derive(Default)]
struct State {
    count: usize,
    gate: BTreeMap<Ticket, Waiting>,
}

impl Capacity {
    pub(super) fn new(max: Option<usize>) -> Self {
        Self {
            max,
            state: Mutex::default(),
            starving: AtomicUsize::new(0),
            emptied: Notify::new(),
        }
    }

    /// Takes a unit, or remembers that the host of `ticket` waits for one.
    pub(super) fn reserve_or_wait(&self, ticket: Ticket, host: &Weak<Host>, now: Instant) -> bool {
        let mut state = self.lock();
        if self.max.is_none_or(|max| state.count < max) {
            state.count += 1;
            return true;
        }
        state.gate.entry(ticket).or_insert_with(|| Waiting {
            host: Weak::clone(host),
            since: now,
        });
        self.starving.store(state.gate.len(), Ordering::SeqCst);
        false
    }

    /// Takes a unit if there is one that nobody waits for.
    pub(super) fn reserve(&self) -> bool {
        let mut state = self.lock();
        let has_room = self.max.is_none_or(|max| state.count < max);
        state.count += usize::from(has_room);
        has_room
    }

    /// Whether a host waits for a unit.
    pub(super) fn is_starving(&self) -> bool {
        self.starving.load(Ordering::SeqCst) > 0
    }

    /// Whether some host has waited before `first`, and for so long that a connection should be closed for it rather than
    /// go to the next in its own host's line (spec pool R-Q-4).
    pub(super) fn has_waited_longer(&self, first: Ticket, now: Instant) -> bool {
        let state = self.lock();
        state
            .gate
            .first_key_value()
            .is_some_and(|(ticket, waiting)| {
                *ticket < first && now.saturating_duration_since(waiting.since) >= STEAL_AFTER
            })
    }

    /// A waiter has left or was served.
    pub(super) fn forget(&self, ticket: Ticket) {
        if self.is_starving() {
            let mut state = self.lock();
            state.gate.remove(&ticket);
            self.starving.store(state.gate.len(), Ordering::SeqCst);
        }
    }

    /// Gives a unit back: to the host that waits longest and still wants it, else to the counter.
    pub(super) fn release(&self) {
        loop {
            let next = {
                let mut state = self.lock();
                let next = state.gate.pop_first();
                self.starving.store(state.gate.len(), Ordering::SeqCst);
                if next.is_none() {
                    state.count = state.count.saturating_sub(1);
                    let emptied = state.count == 0;
                    drop(state);
                    if emptied {
                        self.emptied.notify_waiters();
                    }
                    return;
                }
                next
            };
            let granted = next
                .and_then(|(_, waiting)| waiting.host.upgrade())
                .is_some_and(|host| host.granted());
            if granted {
                return;
            }
        }
    }

    /// Whether one more connection is within the limit.
    pub(super) fn has_room(&self) -> bool {
        self.max.is_none_or(|max| self.count() < max)
    }

    /// Connections in all.
    pub(super) fn count(&self) -> usize {
        self.lock().count
    }

    pub(super) fn max(&self) -> Option<usize> {
        self.max
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a host waits for a unit before the others' connections are closed for it although they are wanted there.
const STEAL_AFTER: Duration = Duration::from_millis(100);

/// One connection's place in the counts. Dropped with the socket.
pub(super) struct Permit {
    host: Weak<Host>,
    /// Of its tether.
    key: usize,
}

impl Permit {
    /// The unit must have been reserved, and the host must have counted it.
    pub(super) fn new(host: Weak<Host>, key: usize) -> Self {
        Self { host, key }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A host that is gone took the whole pool with it.
        if let Some(host) = self.host.upgrade() {
            host.permit_returned(self.key);
        }
    }
}
