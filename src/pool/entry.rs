//! One entry of the pool: a host's connections, and the hands of the machine that decides about them.
//!
//! `host.rs` decides; here it is locked, asked, and what it answers is done once the lock is released: sockets are probed
//! and closed, wakers woken, dials started. It is no task and has none but the dials.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Context;
use std::time::Duration;

use http::Version;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::age::Age;
use super::dial::{Dials, Made};
use super::host::{
    Actions, Census, DialId, Evicted, HostLimits, HostPool, Idle, Lent, Newcomer, NextLook, Served,
    Spoken,
};
use super::hosts::Key;
use super::lease::Lease;
use super::tethers::Tethers;
use super::{Inner, Shared, client_closed};
use crate::config::{HttpVersions, Limits, Liveness};
use crate::connection::{Http1, Opener, Session, Standing};
use crate::deadline::Expired;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::socket::{Dialler, Probe, Route, Way};
use crate::stats::{AlpnEvent, CloseCause, Counters, DialEvent, Gauges, ProbeOutcome};
use crate::url::{Origin, Target};

/// The machine, as it is used here.
pub(super) type Machine = HostPool<Box<Http1>, Arc<Session>, Error>;

/// What it lends: a connection of HTTP/1.1, or a slot of a session of HTTP/2.
pub(super) type Loan = Lent<Box<Http1>, Arc<Session>>;

/// What it asks to be done.
pub(super) type ToDo = Actions<Box<Http1>, Arc<Session>>;

/// The connections to one route, of one runtime: a socket belongs to the runtime that made it (design D7).
pub(crate) struct Host {
    route: Route,
    runtime: Handle,
    shared: Arc<Shared>,
    pool: Weak<Inner>,
    counters: Arc<Counters>,
    dials: Dials,
    tethers: Tethers,
    /// Bodies that are being read to their end with nobody interested.
    draining: AtomicUsize,
    /// Whether its last response was of HTTP/1.0.
    http10: AtomicBool,
    /// Whether the peer has refused a request because it was made over HTTP/2.
    wants_http1: AtomicBool,
    /// Streams that the last session was allowed, or what is expected before there was one.
    max_streams: AtomicUsize,
    state: Mutex<Machine>,
    /// What the layer above keeps of this origin, so that it is found without a look-up.
    kept: OnceLock<Arc<dyn Any + Send + Sync>>,
    this: Weak<Self>,
}

impl Host {
    /// A host without connections.
    pub(super) fn new(
        pool: &Arc<Inner>,
        target: &Target,
        way: Way<'_>,
        runtime: &Handle,
    ) -> Arc<Self> {
        let origin = target.origin();
        let counters = pool.registry.counters(&origin);
        let shared = Arc::clone(&pool.shared);
        let now = Instant::now();
        let spoken = shared.expected(&origin, way.versions, now);
        let state = HostPool::new(host_limits(&shared.limits), spoken, now);
        Arc::new_cyclic(|this| Self {
            route: Route::new(origin, shared.dialler.tls.id(), way),
            runtime: runtime.clone(),
            shared,
            pool: Arc::downgrade(pool),
            counters,
            dials: Dials::default(),
            tethers: Tethers::default(),
            draining: AtomicUsize::new(0),
            http10: AtomicBool::new(false),
            wants_http1: AtomicBool::new(false),
            max_streams: AtomicUsize::new(usize::MAX),
            state: Mutex::new(state),
            kept: OnceLock::new(),
            this: Weak::clone(this),
        })
    }

    pub(crate) fn origin(&self) -> &Origin {
        self.route.origin()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A limit struck while nothing of a request was sent. While a dial ran by way of a proxy, the error names it.
    pub(super) fn timed_out(&self, expired: Expired) -> Error {
        let error = Error::timeout(expired, Sent::Nothing);
        match self.route.detour() {
            Some(detour) if error.is_connect() => error.because(detour.via.named()),
            _ => error,
        }
    }

    /// What the layer above keeps here, made when it is first asked for. `None` if that is of another type.
    pub(crate) fn keep<T: Any + Send + Sync>(&self, make: impl FnOnce() -> Arc<T>) -> Option<&T> {
        let kept: &(dyn Any + Send + Sync) = &**self.kept.get_or_init(|| make());
        kept.downcast_ref()
    }

    /// Whether this is the host that a call asks for.
    pub(super) fn is_of(&self, key: &Key<'_>) -> bool {
        let tls = self.shared.dialler.tls.id();
        self.route.leads_to(key.target, key.way, tls) && self.runtime.id() == key.runtime
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn dials(&self) -> &Dials {
        &self.dials
    }

    pub(super) fn tethers(&self) -> &Tethers {
        &self.tethers
    }

    /// Whether its last response was of HTTP/1.0: then a body of unknown length cannot be sent to it (ruling 14).
    pub(super) fn speaks_http10(&self) -> bool {
        self.http10.load(Ordering::Relaxed)
    }

    pub(super) fn note_version(&self, version: Version) {
        let http10 = version == Version::HTTP_10;
        // Written only when it changes: a store would take the line from all other cores each time.
        if self.speaks_http10() != http10 {
            self.http10.store(http10, Ordering::Relaxed);
        }
    }

    /// Whether its peer is to be asked over HTTP/1.1 where the call leaves the choice.
    pub(crate) fn wants_http1(&self) -> bool {
        self.wants_http1.load(Ordering::Relaxed)
    }

    /// The peer has said HTTP_1_1_REQUIRED.
    pub(crate) fn note_http1_required(&self) {
        self.wants_http1.store(true, Ordering::Relaxed);
    }

    /// Streams that the last session was allowed.
    pub(super) fn max_streams(&self) -> &AtomicUsize {
        &self.max_streams
    }

    pub(super) fn draining(&self) -> &AtomicUsize {
        &self.draining
    }

    pub(super) fn weak(&self) -> Weak<Self> {
        Weak::clone(&self.this)
    }

    /// What the origin speaks has turned out.
    pub(super) fn learn(&self, spoken: Spoken, now: Instant) {
        if self.route.http_versions() != HttpVersions::Auto {
            return;
        }
        let before = self.shared.learn(self.origin(), spoken, now);
        if before != Spoken::Unknown && before != spoken {
            self.counters.alpn(AlpnEvent::Flipped);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Machine> {
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
            hosts_starving: usize::from(
                census.waiting > census.dialling && self.shared.capacity.is_starving(),
            ),
            connections_draining: self.draining.load(Ordering::Relaxed),
            oldest_lease: self.tethers.oldest(Instant::now()),
            requests_pending: census.waiting,
            http2_sessions: census.sessions,
            http2_streams: census.streams,
        }
    }

    /// Whether one more connection is within the limits, or one that nobody waits for is on its way.
    pub(super) fn has_room(&self) -> bool {
        let census = self.census();
        let max = self.shared.limits.max_connections_per_host.map(usize::from);
        let within = max.is_none_or(|max| census.count < max) && self.shared.capacity.has_room();
        within || census.dialling > census.waiting
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
            if !expired.is_empty() {
                for connection in expired {
                    self.discard_expired(connection, now);
                }
            }
            let candidate = candidate?;
            let careful = careful || candidate.doubtful || candidate.idle_for >= TRUSTED;
            let mut connection = match candidate.lent {
                Lent::Connection(connection) => connection,
                Lent::Slot(id, session) if session.is_open() => {
                    self.grow_ahead(now);
                    return Some(Lease::new(Lent::Slot(id, session), Arc::clone(self), None));
                }
                Lent::Slot(id, _) => {
                    self.give_up_slot(id, now);
                    continue;
                }
            };
            let probe = self.closeness(&connection, careful, now);
            match self.probe(&mut connection, probe) {
                Ok(()) => {
                    let lent = Lent::Connection(connection);
                    return Some(Lease::new(lent, Arc::clone(self), None));
                }
                Err(why) => self.discard(connection, why),
            }
        }
    }

    /// How closely an idle connection is looked at (spec pool R-LIVE-3).
    pub(super) fn closeness(&self, connection: &Http1, careful: bool, now: Instant) -> Probe {
        let careful = match self.shared.limits.liveness {
            Liveness::FlagOnly => false,
            Liveness::AlwaysPeek => true,
            Liveness::Auto => careful || self.is_penalised(connection, now),
        };
        if careful { Probe::Kernel } else { Probe::Flag }
    }

    /// Whether another connection to the same address has failed not long ago (spec pool R-LIFE-3).
    fn is_penalised(&self, connection: &Http1, now: Instant) -> bool {
        let dialler = &self.shared.dialler;
        let remote = connection.info().remote_addr;
        remote.is_some_and(|remote| dialler.is_penalised(remote, now))
    }

    /// A connection proved dead while it was used. The others were opened to the same server, so the kernel is asked about
    /// each of them (spec pool R-RETRY-3).
    pub(super) fn saw_stale(&self, remote: Option<SocketAddr>, now: Instant) {
        if let Some(remote) = remote {
            self.shared.dialler.penalise(remote, now);
        }
        self.lock().saw_stale(now);
        self.drop_dead();
    }

    /// Whether the peer is still there and silent.
    pub(super) fn probe(&self, connection: &mut Http1, probe: Probe) -> Result<(), CloseCause> {
        let probed = connection.probe(probe);
        if let Some(outcome) = probed.outcome {
            self.counters.probed(outcome);
        }
        probed.verdict
    }

    /// A lease has ended.
    pub(super) fn give_back(
        &self,
        mut connection: Box<Http1>,
        standing: &Standing,
        now: Option<Instant>,
    ) {
        if standing.served == 0 {
            // It was lent for nothing, or to be there.
            connection.let_go();
        }
        let now = now.unwrap_or_else(Instant::now);
        let capacity = &self.shared.capacity;
        let mut state = self.lock();
        // Under the lock: whoever marks all connections as stale takes the idle ones out under it.
        let until = match self.idle_until(standing, now) {
            Ok(until) => until,
            Err(why) => {
                drop(state);
                return self.discard(connection, why);
            }
        };
        // To the first in line, unless another host has waited longer.
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
    pub(super) fn forget_served(&self, actions: &ToDo) {
        for served in actions.served.iter() {
            self.shared.capacity.forget(served.ticket);
        }
    }

    /// Until when a connection may be idle, or why it must close.
    fn idle_until(&self, standing: &Standing, now: Instant) -> Result<Instant, CloseCause> {
        if let Some(why) = standing.close {
            return Err(why);
        }
        if self.shared.is_stale(standing.dialled) {
            return Err(CloseCause::Stale);
        }
        self.age(standing).idle_until(now)
    }

    pub(super) fn age<'a>(&'a self, standing: &'a Standing) -> Age<'a> {
        Age {
            limits: &self.shared.limits,
            standing,
            draw: match self.shared.limits.max_lifetime {
                Some(_) => self.shared.draw(standing.id),
                // Nobody asks.
                None => 0,
            },
        }
    }

    /// Does what the machine decided, now that its lock is released.
    pub(super) fn act(&self, actions: ToDo, why: CloseCause) {
        let was_served = !actions.served.is_empty();
        if was_served {
            actions.served.into_iter().for_each(Served::wake);
        }
        if self.shared.capacity.is_starving() {
            if was_served {
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
        if !actions.retired.is_empty() {
            end_all(actions.retired, why);
            // Whoever they could not serve may be without a dial now.
            self.pump();
        }
        if actions.watch {
            if let (Some(pool), Some(this)) = (self.pool.upgrade(), self.this.upgrade()) {
                pool.reapers.watch(&pool, &this);
            }
        }
    }

    pub(super) fn discard(&self, mut connection: Box<Http1>, why: CloseCause) {
        self.closes(connection.info().id, why);
        connection.say_goodbye();
    }

    /// Counts bytes that were sent and received, once: of an exchange that is over, of a body that streams, of sessions.
    pub(super) fn count_traffic(&self, sent: u64, received: u64) {
        self.counters.sent_bytes(sent);
        self.counters.received_bytes(received);
    }

    /// Counts what the sessions have sent and received since the last of their exchanges ended.
    pub(super) fn count_sessions(&self) {
        let sessions = self.lock().sessions();
        for session in sessions {
            let (sent, received) = session.take_traffic();
            self.count_traffic(sent, received);
        }
    }

    pub(super) fn evict(&self, why: CloseCause) -> bool {
        let oldest = self.lock().evict();
        match oldest {
            Some(Evicted::Connection(connection)) => self.discard(connection, why),
            Some(Evicted::Session(session)) => session.ends_because(why),
            None => return false,
        }
        true
    }

    pub(super) fn expire(&self, now: Instant) {
        let mut expired = Vec::new();
        let sessions = self.lock().expire(now, &mut expired);
        let (aged, idle) = sessions
            .into_iter()
            .partition(|session| self.has_aged(session, now));
        end_all(aged, CloseCause::Lifetime);
        end_all(idle, CloseCause::Idle);
        for connection in expired {
            self.discard_expired(connection, now);
        }
    }

    /// Closes a connection whose time as an idle one is over, for the reason that set the time.
    pub(super) fn discard_expired(&self, mut connection: Box<Http1>, now: Instant) {
        let standing = connection.settle();
        let why = self.age(&standing).expired_by(now);
        self.discard(connection, why);
    }

    /// When a reaper has something to do here.
    pub(super) fn next_look(&self, now: Instant) -> NextLook {
        self.lock().next_look(now)
    }

    /// Sees to it that `cx` hears of what arrives on connections that have been idle for `rested`, and gives their memory
    /// back; closes those on which something has arrived. Under the lock nothing is asked of the system.
    pub(super) fn arm(&self, now: Instant, rested: Duration, cx: &mut Context<'_>) {
        let suspects = self.lock().take_suspects(|idle| {
            if idle.armed {
                return idle.connection.is_suspect();
            }
            if now.saturating_duration_since(idle.since) < rested {
                return false;
            }
            idle.armed = idle.connection.rest(cx);
            !idle.armed
        });
        for mut suspect in suspects {
            match suspect.connection.arm(cx) {
                Ok(()) => {
                    suspect.armed = true;
                    self.counters.probed(ProbeOutcome::SettledAlive);
                    self.put_back(suspect);
                }
                Err(why) => {
                    self.counters.probed(ProbeOutcome::SettledDead);
                    self.discard(suspect.connection, why);
                }
            }
        }
    }

    /// Closes the idle connections of which the kernel knows that their peer has gone or spoken.
    pub(super) fn drop_dead(&self) {
        let all = self.lock().take_suspects(|_| true);
        for mut suspect in all {
            // Where there is no readiness to look at, the look takes the reaper's place.
            suspect.armed = false;
            match self.probe(&mut suspect.connection, Probe::Kernel) {
                Ok(()) => self.put_back(suspect),
                Err(why) => self.discard(suspect.connection, why),
            }
        }
    }

    fn put_back(&self, mut suspect: Idle<Box<Http1>>) {
        let now = Instant::now();
        let why = self.age(&suspect.connection.settle()).expired_by(now);
        let mut state = self.lock();
        if self.shared.is_stale(suspect.connection.dialled()) {
            drop(state);
            return self.discard(suspect.connection, CloseCause::Stale);
        }
        let actions = state.put_back(suspect, now);
        self.forget_served(&actions);
        drop(state);
        let closed = self.shared.closed.load(Ordering::Relaxed);
        self.act(actions, if closed { CloseCause::PoolClosed } else { why });
    }

    pub(super) fn close_idle(&self, why: CloseCause) {
        let (idle, sessions) = self.lock().drain_idle();
        end_all(sessions, why);
        for connection in idle {
            self.discard(connection, why);
        }
    }

    /// Closes what is idle; what is lent closes when it comes back, because it is older than the mark.
    pub(super) fn mark_stale(&self) {
        let (idle, sessions) = self.lock().drain_all();
        end_all(sessions, CloseCause::Stale);
        for connection in idle {
            self.discard(connection, CloseCause::Stale);
        }
    }

    pub(super) fn close(&self) {
        let actions = self.lock().close(&client_closed());
        actions.served.into_iter().for_each(Served::wake);
        let (idle, sessions) = self.lock().drain_all();
        end_all(sessions, CloseCause::PoolClosed);
        for connection in idle {
            self.discard(connection, CloseCause::PoolClosed);
        }
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
            let Some(cause) = state.wants_dial(now) else {
                return;
            };
            if !self.shared.capacity.reserve_or_wait(cause, &self.this, now) {
                return;
            }
            let id = state.begin_dial(now);
            drop(state);
            self.counters.dial(DialEvent::Started);
            self.dials.start(&this, id);
        }
    }

    /// Starts a dial that nobody waits for, if one is called for and there is room without waiting.
    pub(super) fn grow_ahead(&self, now: Instant) {
        if !self.shared.grows_ahead || self.dials.is_closed() {
            return;
        }
        let Some(this) = self.this.upgrade() else {
            return;
        };
        let mut state = self.lock();
        if !state.wants_spare_dial(now) || !self.shared.capacity.reserve() {
            return;
        }
        let id = state.begin_dial(now);
        drop(state);
        self.counters.dial(DialEvent::Started);
        self.dials.start(&this, id);
    }

    /// Closes what has been idle longest elsewhere, if somebody here waits for room.
    pub(super) fn make_room(&self) {
        if self.shared.capacity.is_starving() && self.lock().wants_dial(Instant::now()).is_some() {
            if let Some(pool) = self.pool.upgrade() {
                pool.evict_for(self);
            }
        }
    }

    /// A unit of the limit on all connections was handed to this host; answers whether it has a use for it.
    pub(super) fn granted(self: &Arc<Self>) -> bool {
        if self.dials.is_closed() {
            return false;
        }
        let now = Instant::now();
        let mut state = self.lock();
        if state.wants_dial(now).is_none() {
            return false;
        }
        let id = state.begin_dial(now);
        drop(state);
        self.counters.dial(DialEvent::Started);
        self.dials.start(self, id);
        self.pump();
        true
    }

    /// The socket of a connection is closed, or its dial has ended without one.
    pub(super) fn permit_returned(&self, key: usize) {
        self.tethers.remove(key);
        self.lock().closed();
        self.shared.capacity.release();
        self.pump();
    }

    pub(super) fn dialled(&self, id: DialId, outcome: Result<Made>) {
        match outcome {
            Ok(Made::Http1(connection)) => self.dialled_http1(id, connection),
            Ok(Made::Http2(session, driver)) => self.dialled_http2(id, &session, driver),
            Ok(Made::Superfluous(prepared)) => self.dialled_in_vain(id, &prepared),
            Err(error) => {
                let timed_out = error.kind() == ErrorKind::Timeout;
                self.counters.dial(if timed_out {
                    DialEvent::TimedOut
                } else {
                    DialEvent::Failed
                });
                self.dial_failed(id, error);
            }
        }
    }

    fn dialled_http1(&self, id: DialId, mut connection: Box<Http1>) {
        let now = Instant::now();
        self.counters.opened(connection.info().dial_time());
        if connection.info().negotiated {
            self.counters.alpn(AlpnEvent::Http1);
        }
        self.learn(Spoken::Http1, now);
        let standing = connection.settle();
        if self.lock().first_in_line().is_none() {
            connection.let_go();
        }
        let mut state = self.lock();
        // Whoever waits gets it in any case; the time counts if nobody does.
        let (until, why) = match self.idle_until(&standing, now) {
            Ok(until) => (until, CloseCause::PoolClosed),
            Err(why) => (now, why),
        };
        let actions = state.dialled(id, Newcomer::Http1(connection), now, until);
        self.forget_served(&actions);
        drop(state);
        if actions.served.is_empty() {
            self.counters.dial(DialEvent::Surplus);
        }
        self.act(actions, why);
        // It may have gone to somebody else than who caused it, and he is without a dial now.
        self.pump();
    }

    /// A dial ended without an outcome: its runtime is going, the client was closed, or a connector panicked.
    pub(super) fn dial_dropped(&self, id: DialId) {
        let error = if self.shared.closed.load(Ordering::SeqCst) {
            client_closed()
        } else {
            Error::new(ErrorKind::Connect, Some(Phase::Connect), Sent::Nothing)
                .saying("the dial ended without an outcome: its runtime has ended, or the connector panicked")
        };
        self.dial_failed(id, error);
    }

    fn dial_failed(&self, id: DialId, error: Error) {
        let mut state = self.lock();
        let actions = state.dial_failed(id, error, Instant::now());
        self.forget_served(&actions);
        drop(state);
        actions.served.into_iter().for_each(Served::wake);
        self.pump();
    }
}

impl Opener for Host {
    fn dialler(&self) -> &Dialler {
        &self.shared.dialler
    }

    fn route(&self) -> &Route {
        &self.route
    }

    fn limits(&self) -> &Arc<Limits> {
        &self.shared.limits
    }

    fn free_files(&self) -> bool {
        let hosts = self.pool.upgrade().map(|pool| pool.all_hosts());
        let mut had_any = false;
        for host in hosts.iter().flatten() {
            had_any |= host.idle() > 0;
            host.close_idle(CloseCause::Evicted);
        }
        had_any
    }
}

/// Lets sessions end, whose handles these are.
pub(super) fn end_all(sessions: Vec<Arc<Session>>, why: CloseCause) {
    for session in sessions {
        session.ends_because(why);
    }
}

fn host_limits(limits: &Limits) -> HostLimits {
    let http2 = &limits.http2;
    HostLimits {
        connections: limits.max_connections_per_host.map(usize::from),
        line: limits.max_pending.map(usize::from),
        sessions: http2.max_sessions_per_origin.get(),
        spread: http2.spread.map(usize::from),
        max_requests: limits.max_requests_per_connection,
        session_idle: http2.idle_timeout,
        hedge: HEDGE,
    }
}

/// How long a dial of unknown protocol has before another joins it.
const HEDGE: Duration = Duration::from_millis(250);

/// A connection that was idle for less is trusted to the readiness flag.
const TRUSTED: Duration = Duration::from_secs(1);
