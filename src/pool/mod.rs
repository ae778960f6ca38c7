//! Lends connections: checkout, locks, waits and limits.
//!
//! Each origin of each runtime has a `Host` (`entry.rs`), whose decisions are made by the pure machine in `host.rs` and carried
//! out after its lock is released. No lock is held across an await, a system call, a wake or the drop of a connection.
//!
//! Checkout, in order: a connection that is idle and alive, the newest first; else a place in line, and a dial if the line
//! is longer than the dials that run and the limits allow; at the limit on all connections the oldest idle one of another
//! origin makes room. Who drops the future of a checkout leaves the line, and what was served to him goes to the next.
//!
//! - deciding, pure: `host` (the machine of an origin), `line` (who waits), `sessions` (HTTP/2 slots), `actions` (what goes in
//!   and out), `age` (how long a connection is kept), `learned` (what origins speak)
//! - doing, with a lock for a moment: `entry` (one origin), `slots` (its sessions), `hosts` (finding it), `capacity` (the limit on all), `tethers` (a
//!   hold on what is lent)
//! - waiting and working: `wait` (a place in line), `lease` (a loan), `dial`, `drain` (half-read bodies), `reaper` (idle ones)
//! - `telling`: what observers hear of it

mod actions;
mod age;
mod capacity;
mod dial;
mod dialling;
mod drain;
mod entry;
pub(crate) mod host;
mod hosts;
mod learned;
mod lease;
mod line;
mod reaper;
mod sessions;
mod slots;
mod telling;
mod tethers;
mod wait;
mod waiters;

use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::{HttpVersions, Limits};
pub(crate) use crate::connection::{AnswerBody, HTTP2_BUILT_IN, Refusal, check_request};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::socket::Dialler;
pub(crate) use crate::socket::TLS_BUILT_IN;
pub(crate) use crate::socket::{Detour, Passage, Proxies, Way};
use crate::stats::{CallTold, CloseCause, Counters, Observers, QueueTold, Registry};
use crate::url::{Origin, Target};

use capacity::Capacity;
pub(crate) use entry::Host;
use host::{Lent, Spoken, Want};
use hosts::{Hosts, Key};
use learned::Learned;
pub(crate) use lease::{Asked, Failed, Lease};
use line::Ticket;
use reaper::Reapers;
use wait::{Claim, Wait};

/// The connections of one client. Dropping it closes what is idle and ends the dials; what is lent closes when it is done.
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    /// Held for as long as changes of the client identities concern this pool.
    _reloads: Vec<Arc<dyn Fn() + Send + Sync>>,
    hosts: Mutex<Hosts>,
    reapers: Reapers,
    registry: Registry,
    shared: Arc<Shared>,
}

/// What every host needs of its pool.
struct Shared {
    limits: Arc<Limits>,
    dialler: Dialler,
    connect_timeout: Option<Duration>,
    capacity: Capacity,
    next_ticket: AtomicU64,
    next_early_ticket: AtomicU64,
    closed: AtomicBool,
    /// Told when the client is closed.
    closing: Notify,
    /// Drains that run.
    drains: AtomicUsize,
    made: Instant,
    /// Nanoseconds after `made`: connections whose dial began before this are not used again. Zero is no mark.
    stale_before: AtomicU64,
    lots: RandomState,
    learned: Mutex<Learned>,
    /// Whether a session may be dialled that nobody waits for.
    grows_ahead: bool,
    observers: Option<Arc<Observers>>,
}

impl Pool {
    pub(crate) fn new(
        limits: Limits,
        dialler: Dialler,
        connect_timeout: Option<Duration>,
        observers: Option<Arc<Observers>>,
    ) -> Self {
        let grows_ahead = limits.http2.spread.is_some() || limits.max_lifetime.is_some();
        Self(Arc::new_cyclic(|this: &Weak<Inner>| Inner {
            // Connections of another client identity are never used again (ruling 22).
            _reloads: dialler
                .tls_settings()
                .map(|tls| {
                    let this = Weak::clone(this);
                    tls.on_reload(move || {
                        if let Some(pool) = this.upgrade() {
                            pool.mark_stale();
                        }
                    })
                })
                .collect(),
            hosts: Mutex::default(),
            reapers: Reapers::default(),
            registry: Registry::new(),
            shared: Arc::new(Shared {
                capacity: Capacity::new(limits.max_connections.map(usize::from)),
                limits: Arc::new(limits),
                dialler,
                connect_timeout,
                next_ticket: AtomicU64::new(FIRST_TICKET),
                next_early_ticket: AtomicU64::new(1),
                closed: AtomicBool::new(false),
                closing: Notify::new(),
                drains: AtomicUsize::new(0),
                made: Instant::now(),
                stale_before: AtomicU64::new(0),
                lots: RandomState::new(),
                learned: Mutex::default(),
                grows_ahead,
                observers,
            }),
        }))
    }

    /// The host of a target, by a way, on a runtime; made when it is first needed.
    pub(crate) fn host(&self, target: &Target, way: Way<'_>, runtime: &Handle) -> Arc<Host> {
        self.0.host(target, way, runtime)
    }

    /// Lends a connection of `host` that is idle, if there is one. A `careful` caller, whose request may not be sent twice, has
    /// the kernel asked whether it still stands.
    pub(crate) fn checkout_idle(
        &self,
        host: &Arc<Host>,
        careful: bool,
        told: Option<&Arc<CallTold>>,
        now: Instant,
    ) -> Option<Lease> {
        let mut lease = host.try_idle(now, careful)?;
        lease.begin(told);
        Some(lease)
    }

    /// Waits in line for a connection of `host`. Answers the time after the wait as well.
    pub(crate) async fn checkout(
        &self,
        host: &Arc<Host>,
        deadline: &Deadline<'_>,
        careful: bool,
        told: Option<&Arc<CallTold>>,
        now: Instant,
    ) -> Result<(Lease, Instant)> {
        let claim = Claim {
            want: Want::Any,
            careful,
            ticket: None,
        };
        // The wait is rare and large; boxed, it does not weigh on the future of every call.
        let mut lease = Box::pin(self.wait(host, deadline, claim, told, now)).await?;
        lease.begin(told);
        let after = Instant::now();
        host.counters().waited(after.saturating_duration_since(now));
        Ok((lease, after))
    }

    /// Lends another connection, after another try `failed`: a new one, unless the peer has said that it did not process the
    /// request.
    pub(crate) async fn checkout_again(
        &self,
        host: &Arc<Host>,
        deadline: &Deadline<'_>,
        failed: &Failed,
        told: Option<&Arc<CallTold>>,
        now: Instant,
    ) -> Result<(Lease, Instant)> {
        if failed.reused && failed.refusal.is_none() {
            host.saw_stale(failed.reset_by, now);
        }
        let claim = Claim {
            want: failed.want,
            careful: false,
            ticket: Some(
                failed
                    .ticket
                    .unwrap_or_else(|| self.0.shared.early_ticket()),
            ),
        };
        let mut lease = Box::pin(self.wait(host, deadline, claim, told, now)).await?;
        lease.begin(told);
        let after = Instant::now();
        host.counters().waited(after.saturating_duration_since(now));
        Ok((lease, after))
    }

    async fn wait(
        &self,
        host: &Arc<Host>,
        deadline: &Deadline<'_>,
        claim: Claim,
        told: Option<&Arc<CallTold>>,
        now: Instant,
    ) -> Result<Lease> {
        let queued = QueueTold::begin(told, host.origin());
        let mut wait = Wait::join(host, deadline, claim, now)?;
        if claim.want != Want::Any && host.is_full() {
            // The connections that are idle here take up the room that a new one needs.
            host.evict(CloseCause::Evicted);
        }
        host.make_room();
        let lent = poll_fn(|cx| wait.poll(cx)).await?;
        let lease = Lease::new(lent, Arc::clone(host), Some(wait.ticket()));
        queued.served(lease.info().id);
        Ok(lease)
    }

    /// Dials until `connections` are idle, inside the limits, without evicting or waiting in line. Answers how many are. Nobody
    /// who calls meanwhile is kept from them: each is idle as soon as it is there.
    pub(crate) async fn preconnect(
        &self,
        host: &Arc<Host>,
        connections: usize,
        deadline: &Deadline<'_>,
    ) -> Result<usize> {
        if self.0.shared.closed.load(Ordering::SeqCst) {
            return Err(client_closed());
        }
        let now = Instant::now();
        host.drop_dead();
        let idle = host.idle().min(connections);
        let mut dials = Vec::new();
        for _ in idle..connections {
            // A dial for this waiter alone: what is idle, or comes free, is there for others.
            match host
                .has_room()
                .then(|| Wait::join(host, deadline, Claim::of_new(), now))
            {
                Some(Ok(dial)) => dials.push(dial),
                Some(Err(_)) | None => break,
            }
        }
        let (mut opened, mut failed) = (0, None);
        let mut sessions = Vec::new();
        poll_fn(|cx| {
            dials.retain_mut(|dial| match dial.poll(cx) {
                Poll::Pending => true,
                Poll::Ready(outcome) => {
                    match outcome {
                        Ok(lent) => {
                            // Several may be given streams of one session.
                            opened += match &lent {
                                Lent::Slot(id, _) if sessions.contains(id) => 0,
                                Lent::Slot(id, _) => {
                                    sessions.push(*id);
                                    1
                                }
                                Lent::Connection(_) => 1,
                            };
                            drop(Lease::new(lent, Arc::clone(host), None));
                        }
                        Err(error) => failed = Some(error),
                    }
                    false
                }
            });
            if dials.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        match failed {
            Some(error) if idle + opened == 0 => Err(error),
            _ => Ok(idle + opened),
        }
    }

    /// Closes what is idle now.
    pub(crate) fn close_idle(&self) {
        for host in self.0.all_hosts() {
            host.close_idle(CloseCause::PoolClosed);
        }
        self.0.reapers.ring();
    }

    /// No connection that is open now serves a further request, and none that is being opened more than one.
    pub(crate) fn mark_stale(&self) {
        self.0.mark_stale();
    }

    /// Refuses all further calls, closes what is idle, ends the dials, and fails those who wait.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// Ends all exchanges that run with an error.
    pub(crate) fn cut(&self) {
        for host in self.0.all_hosts() {
            host.tethers().cut();
        }
    }

    /// Connections that are open or being opened.
    pub(crate) fn connections(&self) -> usize {
        self.0.shared.capacity.count()
    }

    /// Returns when no connection is left. Dropping the future changes nothing.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.0.shared.capacity.emptied.notified();
            if self.connections() == 0 {
                return;
            }
            emptied.await;
        }
    }

    pub(crate) fn stats(&self) -> crate::stats::Stats {
        let gauges: Vec<_> = self
            .0
            .all_hosts()
            .iter()
            .map(|host| {
                host.count_sessions();
                (host.origin().clone(), host.gauges())
            })
            .collect();
        let now = Instant::now().into_std();
        self.0
            .registry
            .snapshot(now, self.0.shared.capacity.max(), gauges.into_iter())
            .with_panics(
                self.0
                    .shared
                    .observers
                    .as_deref()
                    .map_or(0, Observers::panics),
            )
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.shared.limits
    }

    /// What is counted for an origin.
    pub(crate) fn counters(&self, origin: &Origin) -> Arc<Counters> {
        self.0.registry.counters(origin)
    }

    /// The invariants of spec pool R-OBJ-6 over all hosts. Only meaningful while nothing moves.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (hosts, now) = (self.0.all_hosts(), Instant::now());
        let mut permits = 0;
        for host in &hosts {
            host.lock()
                .check(now)
                .map_err(|broken| format!("{}: {broken}", host.origin()))?;
            permits += host.census().count;
        }
        let total = self.connections();
        if permits != total {
            return Err(format!(
                "the hosts count {permits} connections, the pool counts {total}"
            ));
        }
        if self.0.shared.capacity.is_starving()
            && self.0.shared.capacity.max().is_some_and(|max| total < max)
        {
            return Err(format!(
                "a host waits although only {total} connections are open"
            ));
        }
        Ok(())
    }

    /// Waits until the client is closed.
    pub(crate) async fn closed(&self) {
        let shared = &self.0.shared;
        let mut closing = pin!(shared.closing.notified());
        // From here on a close is noticed; one that came before is seen by the flag.
        closing.as_mut().enable();
        if !shared.closed.load(Ordering::SeqCst) {
            closing.await;
        }
    }

    /// Whether nothing is lent, dialled, or waited for.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.0.all_hosts().iter().all(|host| {
            let census = host.census();
            census.count == census.idle && census.waiting == 0 && census.served == 0
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Inner {
    fn host(self: &Arc<Self>, target: &Target, way: Way<'_>, runtime: &Handle) -> Arc<Host> {
        let key = Key {
            target,
            way,
            runtime: runtime.id(),
        };
        let mut hosts = self.hosts();
        if let Some(recent) = hosts.recent(&key) {
            return recent;
        }
        let hash = hosts.hash(&key);
        if let Some(known) = hosts.find(hash, &key) {
            return known;
        }
        let host = Host::new(self, target, way, runtime);
        hosts.insert(hash, Arc::clone(&host));
        host
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    fn all_hosts(&self) -> Vec<Arc<Host>> {
        self.hosts().all()
    }

    fn hosts_of(&self, runtime: Id) -> Vec<Arc<Host>> {
        let mut hosts = self.all_hosts();
        hosts.retain(|host| host.runtime().id() == runtime);
        hosts
    }

    fn forget_unused(&self) {
        self.hosts().sweep();
    }

    fn mark_stale(&self) {
        let mark = self.shared.made.elapsed().as_nanos();
        let mark = u64::try_from(mark).unwrap_or(u64::MAX).max(1);
        self.shared.stale_before.fetch_max(mark, Ordering::SeqCst);
        self.shared.dialler.forget_names();
        for host in self.all_hosts() {
            host.mark_stale();
        }
        self.reapers.ring();
    }

    /// At the limit, the oldest idle connection of any other host makes room (spec pool R-Q-5).
    fn evict_for(&self, host: &Host) {
        let mut idle: Vec<_> = self
            .all_hosts()
            .into_iter()
            .filter(|other| !std::ptr::eq(&**other, host))
            .filter_map(|other| Some((other.oldest_idle()?, other)))
            .collect();
        idle.sort_by_key(|(since, _)| *since);
        // One that was lent meanwhile makes no room; the next may.
        let _ = idle
            .iter()
            .any(|(_, other)| other.evict(CloseCause::Evicted));
    }

    fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.closing.notify_waiters();
        for host in self.all_hosts() {
            host.close();
        }
        self.reapers.ring();
    }
}

impl Shared {
    /// A place at the end of the line.
    fn ticket(&self) -> Ticket {
        self.next_ticket.fetch_add(1, Ordering::Relaxed)
    }

    /// A place before all who wait, for a call that was lent a connection before any of them came (spec pool R-RETRY-4).
    fn early_ticket(&self) -> Ticket {
        self.next_early_ticket.fetch_add(1, Ordering::Relaxed)
    }

    /// What a dial to an origin should expect to be spoken.
    fn expected(&self, origin: &Origin, versions: HttpVersions, now: Instant) -> Spoken {
        match versions {
            HttpVersions::Http1 => Spoken::Http1,
            HttpVersions::Http2 | HttpVersions::Http2PriorKnowledge => Spoken::Http2,
            HttpVersions::Auto => self.learned().get(origin, now),
        }
    }

    /// Remembers what an origin speaks; answers what was known before.
    fn learn(&self, origin: &Origin, spoken: Spoken, now: Instant) -> Spoken {
        self.learned().learn(origin, spoken, now)
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection whose dial began then may not be used again.
    fn is_stale(&self, dialled: Instant) -> bool {
        let mark = self.stale_before.load(Ordering::SeqCst);
        mark > 0 && dialled.saturating_duration_since(self.made) <= Duration::from_nanos(mark)
    }

    /// A number from 0 to 65,535 for a connection, always the same one for the same.
    fn draw(&self, connection: u64) -> u16 {
        (self.lots.hash_one(connection) & 0xffff) as u16
    }
}

/// Tickets below are early ones; so many replays are never made.
const FIRST_TICKET: Ticket = 1 << 48;

fn client_closed() -> Error {
    Error::new(ErrorKind::ClientClosed, Some(Phase::Pool), Sent::Nothing)
}
