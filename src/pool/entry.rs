//! One entry of the pool: a host's connections, and the hands of the machine that decides about them.
//!
//! `host.rs` decides; here it is locked, asked, and what it answers is done once the lock is released: sockets are probed
//! and closed, wakers woken, dials started. It is no task and has none but the dials.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use super::dial::Dials;
use super::host::{Actions, Census, DialId, HostPool};
use super::lease::Lease;
use super::{Inner, Shared, client_closed, reaper};
use crate::connection::{Connection, Standing};
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::socket::{Probe, Route};
use crate::stats::{CloseCause, Counters, Gauges};
use crate::url::{Origin, Target};

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

impl Host {
    /// A host without connections.
    pub(super) fn new(pool: &Arc<Inner>, target: &Target, runtime: &Handle) -> Arc<Self> {
        let origin = target.origin();
        let counters = pool.registry.counters(&origin);
        let shared = Arc::clone(&pool.shared);
        let state = HostPool::new(
            shared.limits.max_connections_per_host.map(usize::from),
            shared.limits.max_pending.map(usize::from),
            Instant::now(),
        );
        Arc::new_cyclic(|this| Self {
            route: Route::new(origin, shared.dialler.tls.id()),
            runtime: runtime.clone(),
            shared,
            pool: Arc::downgrade(pool),
            counters,
            dials: Dials::default(),
            state: Mutex::new(state),
            this: Weak::clone(this),
        })
    }

    pub(crate) fn origin(&self) -> &Origin {
        self.route.origin()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether this is the host of a target on a runtime. All settings of a route but these are the client's.
    pub(super) fn leads_to(&self, target: &Target, runtime: Id) -> bool {
        let origin = self.route.origin();
        origin.port() == target.port()
            && origin.is_https() == target.is_https()
            && self.runtime.id() == runtime
            && origin.host() == target.host()
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn dials(&self) -> &Dials {
        &self.dials
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HostPool<Connection, Error>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn census(&self) -> Census {
        self.lock().census()
    }

    pub(super) fn unwatch(&self) -> bool {
        self.lock().unwatch()
    }

    pub(super) fn idle(&self) -> usize {
        self.census().idle
    }

    pub(super) fn oldest_idle(&self) -> Option<Instant> {
        self.lock().oldest_idle()
    }

    pub(super) fn gauges(&self) -> Gauges {
        let census = self.census();
        Gauges {
            connections_active: census.count.saturating_sub(census.dialling + census.idle),
            connections_idle: census.idle,
            connections_connecting: census.dialling,
            requests_pending: census.waiting,
            ..Gauges::default()
        }
    }

    /// Whether somebody in line is not dialled for, because a limit on connections is reached.
    pub(super) fn is_full(&self) -> bool {
        let census = self.census();
        census.waiting > census.dialling
    }

    /// An idle connection that is alive.
    pub(super) fn try_idle(self: &Arc<Self>, now: Instant, careful: bool) -> Option<Lease> {
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
    pub(super) fn give_back(
        &self,
        connection: Connection,
        standing: Standing,
        now: Option<Instant>,
    ) {
        let now = now.unwrap_or_else(Instant::now);
        match self.idle_until(&standing, now) {
            Ok(until) => self.release(connection, now, until),
            Err(why) => self.discard(connection, why),
        }
    }

    /// A connection has come free: to the first in line, or idle, or closed for another host that has waited longer.
    pub(super) fn release(&self, connection: Connection, now: Instant, until: Instant) {
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
    pub(super) fn forget_served(&self, actions: &Actions<Connection>) {
        if let Some(ticket) = actions.served {
            self.shared.capacity.forget(ticket);
        }
    }

    /// Until when a connection may be idle, or why it must close.
    pub(super) fn idle_until(
        &self,
        standing: &Standing,
        now: Instant,
    ) -> Result<Instant, CloseCause> {
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
    pub(super) fn act(&self, actions: Actions<Connection>, why: CloseCause) {
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

    pub(super) fn discard(&self, connection: Connection, why: CloseCause) {
        self.counters.closed(why);
        drop(connection);
    }

    pub(super) fn evict(&self, why: CloseCause) -> bool {
        let oldest = self.lock().evict();
        let evicted = oldest.is_some();
        if let Some(connection) = oldest {
            self.discard(connection, why);
        }
        evicted
    }

    pub(super) fn expire(&self, now: Instant) {
        let mut expired = Vec::new();
        self.lock().expire(now, &mut expired);
        for connection in expired {
            self.discard(connection, CloseCause::Idle);
        }
    }

    /// Closes the idle connections whose peer has gone or spoken. The flags are read under the lock, which costs no system
    /// call; what a set flag means, and what the kernel knows, is found out without it.
    pub(super) fn drop_dead(&self, probe: Probe) {
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

    pub(super) fn close_idle(&self, why: CloseCause) {
        let idle = self.lock().drain_idle();
        for connection in idle {
            self.discard(connection, why);
        }
    }

    pub(super) fn close(&self) {
        let wakers = self.lock().close(&client_closed());
        wakers.into_iter().for_each(std::task::Waker::wake);
        self.close_idle(CloseCause::PoolClosed);
        self.dials.close();
    }

    /// Starts the dials that the line calls for and the limits allow.
    pub(super) fn pump(&self) {
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
    pub(super) fn granted(self: &Arc<Self>) -> bool {
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

    pub(super) fn permit_returned(&self) {
        self.lock().closed();
        self.shared.capacity.release();
        self.pump();
    }

    pub(super) fn dialled(&self, id: DialId, outcome: Result<Connection>) {
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
    pub(super) fn dial_dropped(&self, id: DialId) {
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

/// A connection that was idle for less is trusted to the readiness flag.
const TRUSTED: Duration = Duration::from_secs(1);

/// A connection that nobody has used yet is kept for at least this long.
const PRECONNECTED: Duration = Duration::from_secs(10);

/// Stands in for a time that the clock cannot express.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A server's keep-alive hint counts up to this.
const LONGEST_HINT: Duration = Duration::from_secs(60);
