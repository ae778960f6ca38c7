//! The hold that a host keeps on each of its connections, whoever uses it.
//!
//! A tether is made when a dial begins and goes with its permit, so the list is complete at any moment. It is only asked when a
//! client is cut off at the deadline of its close, and by a snapshot that wants to know what is on loan for longest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use crate::connection::Tether;

/// The tethers of one host, by the keys that their permits keep.
#[derive(Default)]
pub(super) struct Tethers(Mutex<Slab<Arc<Tether>>>);

impl Tethers {
    /// A connection begins.
    pub(super) fn add(&self, now: Instant) -> (usize, Arc<Tether>) {
        let tether = Arc::new(Tether::new(now));
        (self.lock().insert(Arc::clone(&tether)), tether)
    }

    /// A connection has ended.
    pub(super) fn remove(&self, key: usize) {
        // Dropped after the lock is released: it may be the last, with a waker inside.
        let tether = self.lock().try_remove(key);
        drop(tether);
    }

    /// Ends every exchange that runs.
    pub(super) fn cut(&self) {
        let tethers: Vec<_> = self
            .lock()
            .iter()
            .map(|(_, tether)| Arc::clone(tether))
            .collect();
        for tether in tethers {
            tether.cut();
        }
    }

    /// How long the exchange that began first has been running.
    pub(super) fn oldest(&self, now: Instant) -> Option<Duration> {
        let tethers = self.lock();
        tethers
            .iter()
            .filter_map(|(_, tether)| tether.busy_for(now))
            .max()
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Tether>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
