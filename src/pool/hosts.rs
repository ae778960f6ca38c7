//! The hosts of a pool, found by target and runtime.
//!
//! A map from hashes to hosts, so that a look-up needs no owned key; the key itself is always compared. Hosts that nobody
//! uses are forgotten as it grows.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::runtime::Id;

use super::entry::Host;
use crate::socket::Way;
use crate::url::Target;

/// What tells two hosts apart, as a call has it.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) target: &'a Target,
    pub(super) way: Way<'a>,
    pub(super) runtime: Id,
}

/// The hosts by the hash of their key; the key itself is always compared.
#[derive(Default)]
pub(super) struct Hosts {
    hasher: RandomState,
    /// The one that was asked for last: a client that talks to one origin never hashes.
    recent: Option<Arc<Host>>,
    by_hash: HashMap<u64, Vec<Arc<Host>>, BuildIdentity>,
    count: usize,
    sweep_at: usize,
}

impl Hosts {
    /// The host that was asked for last, if it is the right one.
    pub(super) fn recent(&self, key: &Key<'_>) -> Option<Arc<Host>> {
        self.recent.as_ref().filter(|host| host.is_of(key)).cloned()
    }

    /// The hash of a key.
    pub(super) fn hash(&self, key: &Key<'_>) -> u64 {
        let target = key.target;
        self.hasher.hash_one((
            target.host(),
            target.port(),
            target.is_https(),
            key.way,
            key.runtime,
        ))
    }

    /// The host of a key.
    pub(super) fn find(&mut self, hash: u64, key: &Key<'_>) -> Option<Arc<Host>> {
        let hosts = self.by_hash.get(&hash)?;
        let known = hosts.iter().find(|host| host.is_of(key))?;
        self.recent = Some(Arc::clone(known));
        Some(Arc::clone(known))
    }

    /// All hosts.
    pub(super) fn all(&self) -> Vec<Arc<Host>> {
        self.by_hash.values().flatten().cloned().collect()
    }

    pub(super) fn insert(&mut self, hash: u64, host: Arc<Host>) {
        if self.count >= self.sweep_at.max(FIRST_SWEEP) {
            self.sweep();
        }
        self.by_hash.entry(hash).or_default().push(host);
        self.count += 1;
    }

    /// Forgets hosts that nobody uses. It runs when the map has doubled, so an insertion costs constant time on average.
    pub(super) fn sweep(&mut self) {
        if self
            .recent
            .as_ref()
            .is_some_and(|recent| Arc::strong_count(recent) == 2 && recent.census().count == 0)
        {
            self.recent = None;
        }
        for hosts in self.by_hash.values_mut() {
            hosts.retain(|host| Arc::strong_count(host) > 1 || host.census().count > 0);
        }
        self.by_hash.retain(|_, hosts| !hosts.is_empty());
        self.count = self.by_hash.values().map(Vec::len).sum();
        self.sweep_at = self.count * 2;
    }
}

/// Hashes nothing: the key of the map is a hash already.
#[derive(Clone, Copy, Debug, Default)]
struct BuildIdentity;

#[derive(Debug, Default)]
struct Identity(u64);

impl BuildHasher for BuildIdentity {
    type Hasher = Identity;

    fn build_hasher(&self) -> Identity {
        Identity::default()
    }
}

impl std::hash::Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The map of hosts is swept when it has grown to this, and then whenever it has doubled.
const FIRST_SWEEP: usize = 64;
