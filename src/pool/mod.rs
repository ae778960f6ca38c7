//! Lends connections: checkout, locks, waits and limits.
//!
//! Each origin of each runtime has a `Host`, whose decisions are made by the pure machine in `host.rs` and carried out here
//! after its lock is released. No lock is held across an await, a system call, a wake or the drop of a connection.
//!
//! Checkout, in order: a connection that is idle and alive, the newest first; else a place in line, and a dial if the line
//! is longer than the dials that run and the limits allow; at the limit on all connections the oldest idle one of another
//! origin makes room. Who drops the future of a checkout leaves the line, and what was served to him goes to the next.

mod capacity;
mod dial;
pub(crate) mod host;
mod lease;
mod reaper;

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use crate::config::Limits;
pub(crate) use crate::connection::check_request;
use crate::connection::{Connection, Standing, Timer};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::socket::{Dialler, Probe, Route};
use crate::stats::{CloseCause, Counters, Gauges, Registry};
use crate::url::{Origin, Target};

use capacity::Capacity;
use dial::Dials;
use host::{Actions, Census, DialId, HostPool, Place, Progress, Ticket, Want};
pub(crate) use lease::{Failed, Lease};

/// The connections of one client. Dropping it closes what is idle and ends the dials; what is lent closes when it is done.
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    hosts: Mutex<Hosts>,
    hasher: RandomState,
    reapers: Mutex<HashSet<Id>>,
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
    closed: AtomicBool,
}

/// The hosts by the hash of their key; the key itself is always compared.
struct Hosts {
    /// The one that was asked for last: a client that talks to one origin never hashes.
    recent: Option<Arc<Host>>,
    by_hash: HashMap<u64, Vec<Arc<Host>>, BuildIdentity>,
    count: usize,
    sweep_at: usize,
}

/// The connections to one route, of one runtime: a socket belongs to the runtime that made it (design D7).
pub(crate) struct Host {
    route: Route,
    runtime: Handle,
    shared: Arc<Shared>,
    pool: Weak<Inner>,
    counters: Arc<Counters>,
    dials: Dials,
    state: Mutex<HostPool<Connection, Error>>,
    this: Weak<Self>,
}

impl Pool {
    pub(crate) fn new(limits: Limits, dialler: Dialler, connect_timeout: Option<Duration>) -> Self {
        Self(Arc::new(Inner {
            hosts: Mutex::new(Hosts {
                recent: None,
                by_hash: HashMap::default(),
                count: 0,
                sweep_at: FIRST_SWEEP,
            }),
            hasher: RandomState::new(),
            reapers: Mutex::default(),
            registry: Registry::new(),
            shared: Arc::new(Shared {
                capacity: Capacity::new(limits.max_connections.map(usize::from)),
                limits: Arc::new(limits),
                dialler,
                connect_timeout,
                next_ticket: AtomicU64::new(1),
                closed: AtomicBool::new(false),
            }),
        }))
    }

    /// The host of a target on a runtime, made when it is first needed.
    pub(crate) fn host(&self, target: &Target, runtime: &Handle) -> Arc<Host> {
        self.0.host(target, runtime)
    }

    /// Lends a connection of `host`, waiting in line for one if need be. A `careful` caller, whose request may not be sent
    /// twice, has the kernel asked whether the connection still stands. Answers the time after the wait.
    pub(crate) async fn checkout(
        &self,
        host: &Arc<Host>,
        deadline: &Deadline<'_>,
        careful: bool,
        now: Instant,
    ) -> Result<(Lease, Instant)> {
        if let Some(lease) = host.try_idle(now, careful) {
            return Ok((lease, now));
        }
        // The wait is rare and large; boxed, it does not weigh on the future of every call.
        let lease = Box::pin(self.wait(host, deadline, Want::Any, now)).await?;
        let after = Instant::now();
        host.counters.waited(after.saturating_duration_since(now));
        Ok((lease, after))
    }

    /// Lends a new connection, after an old one of the host proved dead. The others were opened to the same server, so the
    /// kernel is asked about each of them (spec pool R-RETRY-3).
    pub(crate) async fn checkout_new(
        &self,
        host: &Arc<Host>,
        deadline: &Deadline<'_>,
        now: Instant,
    ) -> Result<(Lease, Instant)> {
        host.drop_dead(Probe::Kernel);
        let lease = Box::pin(self.wait(host, deadline, Want::New, now)).await?;
        Ok((lease, Instant::now()))
    }

    async fn wait(
        &self,
        host: &Arc<Host>,
        deadline: &Deadline<'_>,
        want: Want,
        now: Instant,
    ) -> Result<Lease> {
        let mut wait = Wait::join(host, deadline, want, now)?;
        if want == Want::New && host.is_full() {
            // The connections that are idle here take up the room that a new one needs.
            host.evict(CloseCause::Evicted);
        }
        if self.0.shared.capacity.is_starving() && host.lock().wants_dial().is_some() {
            self.0.evict_for(host);
        }
        let connection = poll_fn(|cx| wait.poll(cx)).await?;
        Ok(Lease::new(connection, Arc::clone(host)))
    }

    /// Dials until `connections` are open to the target, inside the limits, without evicting or waiting in line. Answers
    /// how many are there.
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
        let mut leases: Vec<_> = std::iter::from_fn(|| host.try_idle(now, true))
            .take(connections)
            .collect();
        let mut dials = Vec::new();
        for _ in leases.len()..connections {
            let Ok(dial) = Wait::join(host, deadline, Want::Any, now) else {
                break;
            };
            // Somebody in line without a dial means that a limit is reached.
            if host.is_full() {
                break;
            }
            dials.push(dial);
        }
        let mut failed = None;
        for mut dial in dials {
            match poll_fn(|cx| dial.poll(cx)).await {
                Ok(connection) => leases.push(Lease::new(connection, Arc::clone(host))),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if leases.is_empty() => Err(error),
            _ => Ok(leases.len()),
        }
    }

    /// Closes what is idle now.
    pub(crate) fn close_idle(&self) {
        for host in self.0.all_hosts() {
            host.close_idle(CloseCause::PoolClosed);
        }
    }

    /// Refuses all further calls, closes what is idle, ends the dials, and fails those who wait.
    pub(crate) fn close(&self) {
        self.0.close();
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
            .map(|host| (host.origin().clone(), host.gauges()))
            .collect();
        let now = Instant::now().into_std();
        self.0
            .registry
            .snapshot(now, self.0.shared.capacity.max(), gauges.into_iter())
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.shared.limits
    }

    /// Counts a response whose status became an error.
    pub(crate) fn count_status_error(&self, origin: &Origin) {
        self.0.registry.counters(origin).status_error();
    }

    /// The invariants of spec pool R-OBJ-6 over all hosts. Only meaningful while nothing moves.
    pub(crate) fn check(&self) -> Result<(), String> {
        let hosts = self.0.all_hosts();
        let mut permits = 0;
        for host in &hosts {
            host.lock()
                .check()
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
    fn host(self: &Arc<Self>, target: &Target, runtime: &Handle) -> Arc<Host> {
        let mut hosts = self.hosts();
        let id = runtime.id();
        if let Some(recent) = hosts
            .recent
            .as_ref()
            .filter(|host| host.leads_to(target, id))
        {
            return Arc::clone(recent);
        }
        let hash = self
            .hasher
            .hash_one((target.host(), target.port(), target.is_https(), id));
        let known = hosts
            .by_hash
            .get(&hash)
            .and_then(|hosts| hosts.iter().find(|host| host.leads_to(target, id)));
        if let Some(known) = known.cloned() {
            hosts.recent = Some(Arc::clone(&known));
            return known;
        }
        let origin = target.origin();
        let counters = self.registry.counters(&origin);
        let limits = &self.shared.limits;
        let state = HostPool::new(
            limits.max_connections_per_host.map(usize::from),
            limits.max_pending.map(usize::from),
            Instant::now(),
        );
        let host = Arc::new_cyclic(|this| Host {
            route: Route::new(origin, self.shared.dialler.tls.id()),
            runtime: runtime.clone(),
            shared: Arc::clone(&self.shared),
            pool: Arc::downgrade(self),
            counters,
            dials: Dials::default(),
            state: Mutex::new(state),
            this: Weak::clone(this),
        });
        hosts.insert(hash, Arc::clone(&host));
        host
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reapers(&self) -> MutexGuard<'_, HashSet<Id>> {
        self.reapers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    fn all_hosts(&self) -> Vec<Arc<Host>> {
        self.hosts().by_hash.values().flatten().cloned().collect()
    }

    fn hosts_of(&self, runtime: Id) -> Vec<Arc<Host>> {
        let mut hosts = self.all_hosts();
        hosts.retain(|host| host.runtime.id() == runtime);
        hosts
    }

    fn forget_unused(&self) {
        self.hosts().sweep();
    }

    /// Ends the watch over a runtime unless something of it is idle again.
    fn stop_watching(&self, runtime: Id) -> bool {
        let mut reapers = self.reapers();
        let hosts = self.hosts_of(runtime);
        let quiet = hosts.iter().all(|host| host.unwatch());
        if quiet {
            reapers.remove(&runtime);
        }
        quiet
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
        for host in self.all_hosts() {
            host.close();
        }
    }
}

impl Hosts {
    fn insert(&mut self, hash: u64, host: Arc<Host>) {
        if self.count >= self.sweep_at {
            self.sweep();
        }
        self.by_hash.entry(hash).or_default().push(host);
        self.count += 1;
    }

    /// Forgets hosts that nobody uses. It runs when the map has doubled, so an insertion costs constant time on average.
    fn sweep(&mut self) {
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
        self.sweep_at = (self.count * 2).max(FIRST_SWEEP);
    }
}

impl Host {
    pub(crate) fn origin(&self) -> &Origin {
        self.route.origin()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether this is the host of a target on a runtime. All settings of a route but these are the client's.
    fn leads_to(&self, target: &Target, runtime: Id) -> bool {
        let origin = self.route.origin();
        origin.port() == target.port()
            && origin.is_https() == target.is_https()
            && self.runtime.id() == runtime
            && origin.host() == target.host()
    }

    fn route(&self) -> &Route {
        &self.route
    }

    fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn shared(&self) -> &Shared {
        &self.shared
    }

    fn dials(&self) -> &Dials {
        &self.dials
    }

    fn lock(&self) -> MutexGuard<'_, HostPool<Connection, Error>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn census(&self) -> Census {
        self.lock().census()
    }

    fn unwatch(&self) -> bool {
        self.lock().unwatch()
    }

    fn idle(&self) -> usize {
        self.census().idle
    }

    fn oldest_idle(&self) -> Option<Instant> {
        self.lock().oldest_idle()
    }

    fn gauges(&self) -> Gauges {
        let census = self.census();
        Gauges {
            connections_active: census.count.saturating_sub(census.dialling + census.idle),
            connections_idle: census.idle,
            connections_connecting: census.dialling,
            requests_pending: census.waiting,
            ..Gauges::default()
        }
    }

    /// Whether somebody in line cannot be dialled for, because this origin has all the connections that it may have.
    fn is_full(&self) -> bool {
        let census = self.census();
        census.waiting > census.dialling
    }

    /// An idle connection that is alive.
    fn try_idle(self: &Arc<Self>, now: Instant, careful: bool) -> Option<Lease> {
        if self.shared.closed.load(Ordering::Relaxed) {
            return None;
        }
        loop {
            let mut expired = Vec::new();
            let candidate = self.lock().checkout(now, &mut expired);
            for connection in expired {
                self.discard(connection, CloseCause::Idle);
            }
            let mut candidate = candidate?;
            let probe = if careful || candidate.idle_for >= TRUSTED {
                Probe::Kernel
            } else {
                Probe::Flag
            };
            match candidate.connection.probe(probe) {
                Ok(()) => {
                    self.counters.reused();
                    return Some(Lease::new(candidate.connection, Arc::clone(self)));
                }
                Err(why) => self.discard(candidate.connection, why),
            }
        }
    }

    /// A lease has ended.
    fn give_back(&self, connection: Connection, standing: Standing, now: Option<Instant>) {
        let now = now.unwrap_or_else(Instant::now);
        match self.idle_until(&standing, now) {
            Ok(until) => self.release(connection, now, until),
            Err(why) => self.discard(connection, why),
        }
    }

    /// A connection has come free: to the first in line, or idle, or closed for another host that has waited longer.
    fn release(&self, connection: Connection, now: Instant, until: Instant) {
        let capacity = &self.shared.capacity;
        let mut state = self.lock();
        let first = state.first_in_line().filter(|_| capacity.is_starving());
        if first.is_some_and(|first| capacity.has_waited_longer(first, now)) {
            drop(state);
            return self.discard(connection, CloseCause::Evicted);
        }
        let actions = state.release(connection, now, until);
        self.forget_served(&actions);
        drop(state);
        self.act(actions, CloseCause::PoolClosed);
    }

    /// Who was served waits for a unit no longer. Under the host's lock, so that nobody makes room for him any more.
    fn forget_served(&self, actions: &Actions<Connection>) {
        if let Some(ticket) = actions.served {
            self.shared.capacity.forget(ticket);
        }
    }

    /// Until when a connection may be idle, or why it must close.
    fn idle_until(&self, standing: &Standing, now: Instant) -> Result<Instant, CloseCause> {
        if let Some(why) = standing.close {
            return Err(why);
        }
        let limits = &self.shared.limits;
        let old = limits
            .max_lifetime
            .is_some_and(|max| now.saturating_duration_since(standing.opened) >= max);
        let worn = limits
            .max_requests_per_connection
            .is_some_and(|max| standing.served >= max);
        if old || worn {
            return Err(CloseCause::Lifetime);
        }
        let timeout = match standing.keep_alive {
            // The server closes at about the time it names; a request on its way then would be lost.
            Some(seconds) => Duration::from_secs(seconds.saturating_sub(2)).min(LONGEST_HINT),
            None if standing.served == 0 => limits.idle_timeout.max(PRECONNECTED),
            None => limits.idle_timeout,
        };
        if timeout.is_zero() {
            return Err(CloseCause::Idle);
        }
        let idle = now.checked_add(timeout).unwrap_or_else(|| now + FAR);
        let lifetime = limits
            .max_lifetime
            .and_then(|max| standing.opened.checked_add(max));
        Ok(lifetime.map_or(idle, |end| idle.min(end)))
    }

    /// Does what the machine decided, now that its lock is released.
    fn act(&self, actions: Actions<Connection>, why: CloseCause) {
        if let Some(waker) = actions.wake {
            waker.wake();
        }
        if self.shared.capacity.is_starving() {
            if actions.served.is_some() {
                // The next in line may now be the one who waits for a unit.
                self.pump();
            } else if actions.close.is_none() {
                // An idle connection is worth less than another host's waiter.
                self.evict(CloseCause::Evicted);
            }
        }
        if let Some(connection) = actions.close {
            self.discard(connection, why);
        }
        if actions.watch {
            if let Some(pool) = self.pool.upgrade() {
                reaper::watch(&pool, &self.runtime);
            }
        }
    }

    fn discard(&self, connection: Connection, why: CloseCause) {
        self.counters.closed(why);
        drop(connection);
    }

    fn evict(&self, why: CloseCause) -> bool {
        let oldest = self.lock().evict();
        let evicted = oldest.is_some();
        if let Some(connection) = oldest {
            self.discard(connection, why);
        }
        evicted
    }

    fn expire(&self, now: Instant) {
        let mut expired = Vec::new();
        self.lock().expire(now, &mut expired);
        for connection in expired {
            self.discard(connection, CloseCause::Idle);
        }
    }

    /// Closes the idle connections whose peer has gone or spoken. The flags are read under the lock, which costs no system
    /// call; what a set flag means, and what the kernel knows, is found out without it.
    fn drop_dead(&self, probe: Probe) {
        let suspects = self
            .lock()
            .take_suspects(|connection| probe == Probe::Kernel || connection.is_suspect());
        for mut suspect in suspects {
            match suspect.connection.probe(probe) {
                Ok(()) => {
                    let mut state = self.lock();
                    let actions = state.put_back(suspect, Instant::now());
                    self.forget_served(&actions);
                    drop(state);
                    self.act(actions, CloseCause::PoolClosed);
                }
                Err(why) => self.discard(suspect.connection, why),
            }
        }
    }

    fn close_idle(&self, why: CloseCause) {
        let idle = self.lock().drain_idle();
        for connection in idle {
            self.discard(connection, why);
        }
    }

    fn close(&self) {
        let wakers = self.lock().close(&client_closed());
        wakers.into_iter().for_each(std::task::Waker::wake);
        self.close_idle(CloseCause::PoolClosed);
        self.dials.close();
    }

    /// Starts the dials that the line calls for and the limits allow.
    fn pump(&self) {
        let Some(this) = self.this.upgrade() else {
            return;
        };
        let now = Instant::now();
        loop {
            if self.dials.is_closed() {
                return;
            }
            let mut state = self.lock();
            let Some(cause) = state.wants_dial() else {
                return;
            };
            if !self.shared.capacity.reserve_or_wait(cause, &self.this, now) {
                return;
            }
            let id = state.begin_dial(cause, now);
            drop(state);
            self.dials.start(&this, id);
        }
    }

    /// A unit of the limit on all connections was handed to this host; answers whether it has a use for it.
    fn granted(self: &Arc<Self>) -> bool {
        if self.dials.is_closed() {
            return false;
        }
        let mut state = self.lock();
        let Some(cause) = state.wants_dial() else {
            return false;
        };
        let id = state.begin_dial(cause, Instant::now());
        drop(state);
        self.dials.start(self, id);
        self.pump();
        true
    }

    fn permit_returned(&self) {
        self.lock().closed();
        self.shared.capacity.release();
        self.pump();
    }

    fn dialled(&self, id: DialId, outcome: Result<Connection>) {
        let now = Instant::now();
        match outcome {
            Ok(connection) => {
                self.counters.opened(connection.info().dial_time());
                let until = now
                    .checked_add(PRECONNECTED.max(self.shared.limits.idle_timeout))
                    .unwrap_or(now + PRECONNECTED);
                let mut state = self.lock();
                let actions = state.dialled(id, connection, now, until);
                self.forget_served(&actions);
                drop(state);
                self.act(actions, CloseCause::PoolClosed);
            }
            Err(error) => {
                self.counters.dial_failed();
                let mut state = self.lock();
                let actions = state.dial_failed(id, error, now);
                self.forget_served(&actions);
                drop(state);
                if let Some(waker) = actions.wake {
                    waker.wake();
                }
                self.pump();
            }
        }
    }

    /// A dial ended without an outcome: its runtime is going, the client was closed, or a connector panicked.
    fn dial_dropped(&self, id: DialId) {
        let error = if self.shared.closed.load(Ordering::SeqCst) {
            client_closed()
        } else {
            Error::new(ErrorKind::Connect, Some(Phase::Connect), Sent::Nothing)
                .saying("the dial ended without an outcome: its runtime has ended, or the connector panicked")
        };
        let mut state = self.lock();
        let actions = state.dial_failed(id, error, Instant::now());
        self.forget_served(&actions);
        drop(state);
        if let Some(waker) = actions.wake {
            waker.wake();
        }
        self.pump();
    }
}

/// A place in line, left when it is dropped.
struct Wait<'a> {
    host: &'a Arc<Host>,
    deadline: &'a Deadline<'a>,
    ticket: Ticket,
    want: Want,
    timer: Timer,
    joined: Instant,
    /// The host's pool clock when the wait began.
    undialled: Duration,
}

impl<'a> Wait<'a> {
    fn join(
        host: &'a Arc<Host>,
        deadline: &'a Deadline<'a>,
        want: Want,
        now: Instant,
    ) -> Result<Self> {
        if host.shared.closed.load(Ordering::SeqCst) {
            return Err(client_closed());
        }
        let ticket = host.shared.next_ticket.fetch_add(1, Ordering::Relaxed);
        let mut state = host.lock();
        match state.enqueue(ticket, want) {
            Place::Taken => {}
            Place::Closed => return Err(client_closed()),
            Place::Full => {
                let limit = host.shared.limits.max_pending.map_or(0, usize::from);
                return Err(Error::new(ErrorKind::PoolFull, Some(Phase::Pool), Sent::Nothing)
                    .saying(format!("{limit} calls wait for a connection to this origin already (Limits::max_pending)")));
            }
        }
        let undialled = state.undialled(now);
        drop(state);
        let wait = Self {
            host,
            deadline,
            ticket,
            want,
            timer: Timer::default(),
            joined: now,
            undialled,
        };
        host.pump();
        Ok(wait)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Connection>> {
        loop {
            let now = Instant::now();
            let progress = self.host.lock().poll(self.ticket, cx.waker(), now);
            let limit = match progress {
                Progress::Served(Ok(mut connection)) => {
                    // A new one is taken as it is: were it dead, another dial would hardly fare better, and a peer that
                    // accepts and closes could keep the waiter dialling for ever.
                    if !connection.is_reused() {
                        return Poll::Ready(Ok(connection));
                    }
                    match connection.probe(Probe::Flag) {
                        Ok(()) => {
                            self.host.counters.reused();
                            return Poll::Ready(Ok(connection));
                        }
                        Err(why) => {
                            // Dead already: back to the same place in line (spec pool R-Q-3).
                            self.host.lock().enqueue_again(self.ticket, self.want);
                            self.host.discard(connection, why);
                            if self.host.shared.closed.load(Ordering::SeqCst) {
                                return Poll::Ready(Err(client_closed()));
                            }
                            self.host.pump();
                            continue;
                        }
                    }
                }
                Progress::Served(Err(error)) => return Poll::Ready(Err(error)),
                Progress::Waiting {
                    dialling: Some((id, started)),
                    ..
                } => self
                    .deadline
                    .next(self.host.dials.phase(id), Some(started.max(self.joined))),
                Progress::Waiting {
                    dialling: None,
                    undialled,
                } => {
                    let waited = undialled.saturating_sub(self.undialled);
                    self.deadline
                        .next(Phase::Pool, Some(now.checked_sub(waited).unwrap_or(now)))
                }
            };
            let Some(limit) = limit else {
                return Poll::Pending;
            };
            if self.timer.poll(cx, limit.at).is_pending() {
                return Poll::Pending;
            }
            // What was delivered at the last moment wins over the limit (spec pool R-LIM-2).
            return Poll::Ready(match self.leave() {
                Some(outcome) => outcome,
                None => Err(Error::timeout(limit.expired, Sent::Nothing)),
            });
        }
    }

    fn leave(&mut self) -> Option<Result<Connection>> {
        let left = self.host.lock().leave(self.ticket);
        if self.host.shared.capacity.is_starving() {
            self.host.shared.capacity.forget(self.ticket);
            self.host.pump();
        }
        left
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(Ok(connection)) = self.leave() {
            // Delivered, but its receiver is gone: the next in line gets it, or it is idle (spec pool R-Q-2).
            drop(Lease::new(connection, Arc::clone(self.host)));
        }
    }
}

fn client_closed() -> Error {
    Error::new(ErrorKind::ClientClosed, Some(Phase::Pool), Sent::Nothing)
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

/// A connection that was idle for less is trusted to the readiness flag.
const TRUSTED: Duration = Duration::from_secs(1);

/// A connection that nobody has used yet is kept for at least this long.
const PRECONNECTED: Duration = Duration::from_secs(10);

/// Stands in for a time that the clock cannot express.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A server's keep-alive hint counts up to this.
const LONGEST_HINT: Duration = Duration::from_secs(60);
