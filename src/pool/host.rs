//! The pool's decisions for one origin, as a pure machine (design D5, spec pool 3.4 to 3.7 and 3.10).
//!
//! Events go in, what is to be done comes out; the shell in `entry.rs` does it after its lock is released. It is generic so
//! that tests use integers for connections `C`, sessions `S` and errors `E`. It never closes, wakes or dials anything itself.
//!
//! ```text
//!            checkout            release                 dialled
//!   idle ───────────────▶ lent ───────────▶ first in line, else idle ◀────────── dialling
//!                          │ closed                                                  │ failed
//!                          ▼                                                         ▼
//!                     (permit dropped: `count` goes down)          error to the waiter that caused the dial
//! ```
//! An HTTP/1.1 connection is lent whole. An HTTP/2 session stays, and lends slots (`sessions.rs`); as soon as one is open the
//! line is served from it. While it is unknown which of the two an origin speaks, one dial finds out for everybody who waits,
//! joined by further ones when it takes long (spec pool R-ALPN).

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use super::actions::{
    Actions, Candidate, Census, Evicted, HostLimits, Lent, Newcomer, NextLook, Progress, Refusal,
    Served, Spoken, Want,
};
pub(crate) use super::dialling::DialId;
use super::dialling::{Dial, Dialling};
pub(crate) use super::line::{Place, Ticket};
pub(crate) use super::sessions::SessionId;
use super::sessions::Sessions;
use super::waiters::Waiters;

/// What one origin holds.
#[derive(Debug)]
pub(crate) struct HostPool<C, S, E> {
    limits: HostLimits,
    open: bool,
    spoken: Spoken,
    /// Oldest first; the newest is lent first, because its path is warm and the others may expire.
    idle: VecDeque<Idle<C>>,
    sessions: Sessions<S>,
    waiters: Waiters<Result<Lent<C, S>, E>>,
    dials: Dialling,
    /// Permits of this origin that are out: dialling, lent, served, idle, and sessions.
    count: usize,
    /// When a connection of this origin last proved dead in use.
    stale: Option<Instant>,
    /// Before then no further dial starts that nobody waits for.
    spare_after: Option<Instant>,
    /// Whether a reaper knows that there is something new to look at.
    watched: bool,
}

/// A connection that waits for its next request.
#[derive(Debug)]
pub(crate) struct Idle<C> {
    pub(crate) connection: C,
    pub(crate) since: Instant,
    until: Instant,
    /// Whether the reaper hears of what arrives on it.
    pub(crate) armed: bool,
}

impl<C, S, E> HostPool<C, S, E> {
    pub(crate) fn new(limits: HostLimits, spoken: Spoken, now: Instant) -> Self {
        Self {
            limits,
            open: true,
            spoken,
            idle: VecDeque::new(),
            sessions: Sessions::new(limits),
            waiters: Waiters::new(),
            dials: Dialling::new(now),
            count: 0,
            stale: None,
            spare_after: None,
            watched: false,
        }
    }

    /// A free slot, else the newest idle connection. Those that expired are moved to `expired`. Nobody is overtaken: while
    /// somebody waits whom it could serve, nothing is free.
    pub(crate) fn checkout(&mut self, now: Instant, expired: &mut Vec<C>) -> Option<Candidate<C, S>>
    where
        S: Clone,
    {
        let doubtful = self.is_doubtful(now);
        if let Some((id, session)) = self.sessions.take_slot(0, now) {
            return Some(Candidate {
                lent: Lent::Slot(id, session),
                idle_for: Duration::ZERO,
                doubtful,
            });
        }
        let idle = self.take_newest_idle(now, expired)?;
        Some(Candidate {
            lent: Lent::Connection(idle.connection),
            idle_for: now.saturating_duration_since(idle.since),
            doubtful,
        })
    }

    fn take_newest_idle(&mut self, now: Instant, expired: &mut Vec<C>) -> Option<Idle<C>> {
        while let Some(idle) = self.idle.pop_back() {
            if now < idle.until {
                return Some(idle);
            }
            expired.push(idle.connection);
        }
        None
    }

    /// Puts a waiter into line. What came free since the waiter looked is his at once. Connections that expired are moved to
    /// `expired`.
    pub(crate) fn enqueue(
        &mut self,
        ticket: Ticket,
        want: Want,
        now: Instant,
        expired: &mut Vec<C>,
    ) -> Result<Place, Refusal>
    where
        S: Clone,
    {
        if !self.open {
            return Err(Refusal::Closed);
        }
        if self
            .limits
            .line
            .is_some_and(|max| self.waiters.len() >= max)
        {
            return Err(Refusal::Full);
        }
        let beyond = self.beyond(want);
        let place = self.waiters.join(ticket, beyond);
        self.settle_in(place, beyond, now, expired);
        Ok(place)
    }

    /// Puts a waiter back at its place, after what it was served proved dead.
    pub(crate) fn enqueue_again(
        &mut self,
        place: Place,
        want: Want,
        now: Instant,
        expired: &mut Vec<C>,
    ) where
        S: Clone,
    {
        let beyond = self.beyond(want);
        if self.waiters.rejoin(place, beyond) {
            self.settle_in(place, beyond, now, expired);
        }
    }

    /// Than which session one must be newer to serve a waiter, if not anything serves him.
    fn beyond(&self, want: Want) -> Option<SessionId> {
        match want {
            Want::Any => None,
            Want::NewerThan(id) => Some(self.sessions.newest_up_to(id)),
        }
    }

    /// Serves who has just come with what is free. Nobody who waits longer would have it: else it were not free.
    fn settle_in(
        &mut self,
        place: Place,
        beyond: Option<SessionId>,
        now: Instant,
        expired: &mut Vec<C>,
    ) where
        S: Clone,
    {
        let slot = self.sessions.take_slot(beyond.unwrap_or(0), now);
        let free = match slot {
            Some((id, session)) => Some(Lent::Slot(id, session)),
            None if beyond.is_none() => {
                let idle = self.take_newest_idle(now, expired);
                idle.map(|idle| Lent::Connection(idle.connection))
            }
            None => None,
        };
        if let Some(lent) = free {
            // Nobody sleeps at this place yet, so there is nobody to wake.
            drop(self.waiters.serve(place, Ok(lent)));
        }
    }

    /// What became of a waiter; if nothing yet, `waker` is woken when it does.
    pub(crate) fn poll(&mut self, place: Place, waker: &Waker, now: Instant) -> Progress<C, S, E> {
        if let Some(outcome) = self.waiters.take(place) {
            return Progress::Served(outcome);
        }
        self.waiters.wake_by(place, waker);
        Progress::Waiting {
            dialling: self.dials.oldest().map(|dial| (dial.id, dial.started)),
            undialled: self.undialled(now),
            hedge_at: self.hedge_at(),
        }
    }

    /// Takes a waiter out, wherever it is. What it had been served is the caller's to use or to release.
    pub(crate) fn leave(&mut self, place: Place) -> Option<Result<Lent<C, S>, E>> {
        self.waiters.leave(place)
    }

    /// Who has waited longest.
    pub(crate) fn first_in_line(&self) -> Option<Ticket> {
        self.waiters.first().map(|place| place.ticket)
    }

    /// The waiter for whom another dial should start, if the line calls for more dials than run and the limit allows.
    pub(crate) fn wants_dial(&self, now: Instant) -> Option<Ticket> {
        let running = self.dials.len();
        if !self.may_dial() || running >= self.wanted_dials(now) {
            return None;
        }
        let cause = match self.spoken {
            Spoken::Http1 => self.waiters.first_without_dial(),
            Spoken::Http2 if running >= self.wanted_sessions(now) => self.first_stranded(now),
            Spoken::Unknown | Spoken::Http2 => self.waiters.first(),
        };
        cause.map(|place| place.ticket)
    }

    /// Whether a dial should start although the line calls for none: for a session to share the load of those that are busy
    /// (http2 rule 5), or to take the place of one whose time has ended (spec pool R-H2-6). It is worth no wait for room, and no
    /// connection that would have to close.
    pub(crate) fn wants_spare_dial(&self, now: Instant) -> bool {
        self.spoken == Spoken::Http2
            && self.dials.is_empty()
            && self.may_dial()
            && self.spare_after.is_none_or(|after| after <= now)
            && self.may_grow(now)
            && self.profits(now)
    }

    /// Whether another session would be of use to those that are open.
    fn profits(&self, now: Instant) -> bool {
        self.sessions.have_ending(now) || self.sessions.are_crowded(now)
    }

    fn may_dial(&self) -> bool {
        self.open && self.limits.connections.is_none_or(|max| self.count < max)
    }

    /// How many dials should run: one for each who waits; with sessions, as many as carry them (spec pool R-DIAL-2); while the
    /// protocol is unknown one, and one more for each hedge that has passed (R-ALPN-1).
    fn wanted_dials(&self, now: Instant) -> usize {
        let waiting = self.waiters.len();
        match self.spoken {
            Spoken::Http1 => waiting,
            Spoken::Http2 => {
                let stranded = usize::from(self.first_stranded(now).is_some());
                self.wanted_sessions(now).max(stranded)
            }
            Spoken::Unknown => waiting.min(1 + self.dials.hedges_due(self.limits.hedge, now)),
        }
    }

    /// How many sessions more would carry those who wait, as far as their limit allows.
    fn wanted_sessions(&self, now: Instant) -> usize {
        let max = self.limits.sessions.max(1);
        let room = max.saturating_sub(self.sessions.trusted(now));
        let waiting = self.waiters.len();
        waiting.div_ceil(self.sessions.expected_streams()).min(room)
    }

    fn may_grow(&self, now: Instant) -> bool {
        self.sessions.trusted(now) < self.limits.sessions.max(1)
    }

    /// Who has waited longest of those whom no session that stays will ever serve, because all are too old. One dial for them
    /// may go beyond the limit on sessions.
    fn first_stranded(&self, now: Instant) -> Option<Place> {
        self.waiters.first_beyond(self.sessions.newest_trusted(now))
    }

    /// When the next hedge is due, if one may still come. It is slept for, so it may not stay due while no dial can start.
    fn hedge_at(&self) -> Option<Instant> {
        let more_wait = self.dials.len() < self.waiters.len();
        if self.spoken != Spoken::Unknown || !more_wait || !self.may_dial() {
            return None;
        }
        self.dials.next_hedge(self.limits.hedge)
    }

    /// A dial begins, with a permit.
    pub(crate) fn begin_dial(&mut self, now: Instant) -> DialId {
        let spare = self.dials.len() >= self.wanted_dials(now);
        self.count += 1;
        let cause = match self.spoken {
            Spoken::Http1 => self.waiters.dial_for_first(),
            Spoken::Unknown | Spoken::Http2 => None,
        };
        self.dials.begin(cause, spare, now)
    }

    /// Whether a dial that turns out to speak HTTP/2 should go on to open a session: not if an open one has room for everybody
    /// who waits, and not beyond the limit, which dials that ran at once could pass (spec pool R-ALPN-3).
    pub(crate) fn needs_session(&self, now: Instant) -> bool {
        if self.is_surplus(now) {
            return false;
        }
        // Whoever waits cannot be served by a slot that is free, else he were.
        let wanted = self.waiters.len() > 0 || !self.sessions.have_room(now);
        wanted || self.sessions.trusted(now) == 0 || self.profits(now)
    }

    /// Whether one more session would be one too many.
    fn is_surplus(&self, now: Instant) -> bool {
        !self.open || (!self.may_grow(now) && self.first_stranded(now).is_none())
    }

    /// A dial has made a connection: it goes to the first in line (late binding), else it is idle. A session goes to all it can
    /// carry, and takes the place of one whose time has ended; it is retired at once if it is one too many. What was dialled
    /// speaks what the next dials expect.
    pub(crate) fn dialled(
        &mut self,
        id: DialId,
        newcomer: Newcomer<C, S>,
        now: Instant,
        until: Instant,
    ) -> Actions<C, S>
    where
        S: Clone,
    {
        self.end_dial(id, now);
        match newcomer {
            Newcomer::Http1(connection) => {
                self.speaks(Spoken::Http1);
                let first = self.waiters.first();
                self.serve(first, connection, now, until)
            }
            Newcomer::Http2 {
                session,
                max_streams,
                ends,
            } => {
                self.speaks(Spoken::Http2);
                let mut actions = Actions::default();
                if self.is_surplus(now) {
                    actions.retired.push(session);
                    return actions;
                }
                actions.opened = Some(self.sessions.add(session, max_streams, now, ends));
                actions.retired.extend(self.sessions.retire_replaced(now));
                self.lend_slots(now, &mut actions);
                actions.watch = !std::mem::replace(&mut self.watched, true);
                actions
            }
        }
    }

    /// What the origin turned out to speak. Those for whom nobody dials by name now are in need of a dial again.
    fn speaks(&mut self, spoken: Spoken) {
        if std::mem::replace(&mut self.spoken, spoken) == spoken {
            return;
        }
        self.waiters.dialled_only_for(self.dials.causes());
    }

    /// A dial has failed: the waiter that caused it hears of it, if it still waits. One that was for all fails all, unless
    /// another still runs for them or a session will serve them in turn (spec pool R-DIAL-5). One that nobody called for fails
    /// nobody.
    pub(crate) fn dial_failed(&mut self, id: DialId, error: E, now: Instant) -> Actions<C, S>
    where
        E: Clone,
    {
        let mut actions = Actions::default();
        let Some(dial) = self.end_dial(id, now) else {
            return actions;
        };
        if let Some(cause) = dial.cause {
            self.hand_over(cause, Err(error), &mut actions);
        } else if !dial.spare {
            self.fail_those_without_hope(&error, now, &mut actions);
        }
        actions
    }

    fn fail_those_without_hope(&mut self, error: &E, now: Instant, actions: &mut Actions<C, S>)
    where
        E: Clone,
    {
        let newest = self.sessions.newest_serving(now);
        let mut failing = if newest == 0 {
            self.waiters.first()
        } else {
            self.waiters.first_beyond(newest)
        };
        if newest > 0 && failing.is_none() {
            // The line moves on without the dial. Failing one of them keeps a dead peer from being dialled for ever.
            if let Some(first) = self.waiters.first() {
                self.hand_over(first, Err(error.clone()), actions);
            }
        } else if self.dials.is_empty() {
            while let Some(place) = failing {
                self.hand_over(place, Err(error.clone()), actions);
                failing = if newest == 0 {
                    self.waiters.first()
                } else {
                    self.waiters.first_beyond(newest)
                };
            }
        }
    }

    /// A dial has gone without an outcome, or with one that is not needed.
    pub(crate) fn dial_dropped(&mut self, id: DialId, now: Instant) {
        self.end_dial(id, now);
    }

    /// Who caused the dial and waits on is without one again, until he is served: by what it made, or with its error.
    fn end_dial(&mut self, id: DialId, now: Instant) -> Option<Dial> {
        let dial = self.dials.end(id, now)?;
        if let Some(cause) = dial.cause {
            self.waiters.lost_dial(cause);
        }
        if dial.spare {
            self.spare_after = now.checked_add(SPARE_PAUSE);
        }
        Some(dial)
    }

    /// A connection has come free.
    pub(crate) fn release(&mut self, connection: C, now: Instant, until: Instant) -> Actions<C, S> {
        let first = self.waiters.first_for_connection();
        self.serve(first, connection, now, until)
    }

    /// Hands a connection to a waiter; with none it is idle, or closed if it may not be.
    fn serve(
        &mut self,
        first: Option<Place>,
        connection: C,
        now: Instant,
        until: Instant,
    ) -> Actions<C, S> {
        let mut actions = Actions::default();
        if let Some(first) = first {
            self.hand_over(first, Ok(Lent::Connection(connection)), &mut actions);
        } else if self.open && now < until && !self.is_in_the_way(now) {
            self.idle.push_back(Idle {
                connection,
                since: now,
                until,
                armed: false,
            });
            actions.watch = !std::mem::replace(&mut self.watched, true);
        } else {
            actions.close = Some(connection);
        }
        actions
    }

    /// Whether a connection that is not wanted takes up the room of a dial that is: those who wait want a new one, and the
    /// limit is reached.
    fn is_in_the_way(&self, now: Instant) -> bool {
        let full = self.limits.connections.is_some_and(|max| self.count >= max);
        full && self.dials.len() < self.wanted_dials(now)
    }

    fn hand_over(
        &mut self,
        place: Place,
        outcome: Result<Lent<C, S>, E>,
        actions: &mut Actions<C, S>,
    ) {
        if let Ok(served) = self.waiters.serve(place, outcome) {
            actions.served.push(served);
        }
    }

    /// A permit came back: its socket is closed.
    pub(crate) fn closed(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// A connection proved dead while it was used.
    pub(crate) fn saw_stale(&mut self, now: Instant) {
        self.stale = Some(now);
    }

    /// Whether a connection of this origin has proved dead in use not long ago.
    pub(crate) fn is_doubtful(&self, now: Instant) -> bool {
        self.stale
            .is_some_and(|stale| now.saturating_duration_since(stale) < DOUBT)
    }

    /// Since when the oldest idle connection or session is idle.
    pub(crate) fn oldest_idle(&self) -> Option<Instant> {
        let connection = self.idle.front().map(|idle| idle.since);
        let session = self.sessions.oldest_idle();
        connection.into_iter().chain(session).min()
    }

    /// Takes the oldest idle connection or session out, to make room.
    pub(crate) fn evict(&mut self) -> Option<Evicted<C, S>> {
        let connection = self.idle.front().map(|idle| idle.since);
        let session = self.sessions.oldest_idle();
        if session.is_some() && (connection.is_none() || session < connection) {
            return self.sessions.retire_longest_idle().map(Evicted::Session);
        }
        self.idle
            .pop_front()
            .map(|idle| Evicted::Connection(idle.connection))
    }

    /// Takes the idle connections out that have expired, and retires the sessions that have.
    pub(crate) fn expire(&mut self, now: Instant, expired: &mut Vec<C>) -> Vec<S> {
        if self.idle.iter().any(|idle| idle.until <= now) {
            let mut kept = VecDeque::with_capacity(self.idle.len());
            for idle in self.idle.drain(..) {
                if now < idle.until {
                    kept.push_back(idle);
                } else {
                    expired.push(idle.connection);
                }
            }
            self.idle = kept;
        }
        self.sessions.retire_old(now)
    }

    /// Takes out the idle connections that a look makes suspicious; [`put_back`](Self::put_back) returns those that prove
    /// to be alive.
    pub(crate) fn take_suspects(
        &mut self,
        mut is_suspect: impl FnMut(&mut Idle<C>) -> bool,
    ) -> Vec<Idle<C>> {
        let mut suspects = Vec::new();
        let mut at = 0;
        while let Some(idle) = self.idle.get_mut(at) {
            if is_suspect(idle) {
                suspects.extend(self.idle.remove(at));
            } else {
                at += 1;
            }
        }
        suspects
    }

    /// Returns a suspect to its place, or to whoever came to wait meanwhile, unless its time is over.
    pub(crate) fn put_back(&mut self, suspect: Idle<C>, now: Instant) -> Actions<C, S> {
        if suspect.until <= now {
            return Actions {
                close: Some(suspect.connection),
                ..Actions::default()
            };
        }
        let wanted = self.waiters.first_for_connection().is_some() || self.is_in_the_way(now);
        if !self.open || wanted {
            return self.release(suspect.connection, now, suspect.until);
        }
        let at = self
            .idle
            .partition_point(|idle| idle.since <= suspect.since);
        let armed = suspect.armed;
        self.idle.insert(at, suspect);
        // One that is armed comes from the reaper itself, which is about to ask when to look again.
        Actions {
            watch: !armed && !std::mem::replace(&mut self.watched, true),
            ..Actions::default()
        }
    }

    /// When the reaper should look again. After [`NextLook::Soon`] it need not be called for what is released; after any other
    /// answer it is.
    pub(crate) fn next_look(&mut self, now: Instant) -> NextLook {
        self.watched = self.idle.iter().any(|idle| !idle.armed);
        if self.watched {
            return NextLook::Soon;
        }
        let session = self.sessions.next_look(now);
        let first = self.idle.iter().map(|idle| idle.until).chain(session).min();
        first.map_or(NextLook::Never, NextLook::At)
    }

    /// The reaper goes; answers whether it may.
    pub(crate) fn unwatch(&mut self) -> bool {
        let may_go = self.idle.is_empty() && self.sessions.len() == 0;
        self.watched &= !may_go;
        may_go
    }

    /// Takes all idle connections out, and retires the sessions without streams.
    pub(crate) fn drain_idle(&mut self) -> (Vec<C>, Vec<S>) {
        let connections = self.idle.drain(..).map(|idle| idle.connection).collect();
        (connections, self.sessions.retire_idle())
    }

    /// Takes all idle connections out, and retires all sessions: what is open now serves no further request.
    pub(crate) fn drain_all(&mut self) -> (Vec<C>, Vec<S>) {
        let (connections, mut sessions) = self.drain_idle();
        sessions.extend(self.sessions.retire_all());
        (connections, sessions)
    }

    /// No further request is served: whoever waits gets `error`.
    pub(crate) fn close(&mut self, error: &E) -> Actions<C, S>
    where
        E: Clone,
    {
        self.open = false;
        let mut actions = Actions::default();
        while let Some(first) = self.waiters.first() {
            self.hand_over(first, Err(error.clone()), &mut actions);
        }
        actions
    }

    pub(crate) fn census(&self) -> Census {
        Census {
            count: self.count,
            idle: self.idle.len() + self.sessions.idle(),
            dialling: self.dials.len(),
            waiting: self.waiters.len(),
            served: self.waiters.served(),
            sessions: self.sessions.len(),
            streams: self.sessions.streams(),
        }
    }

    /// The invariants of spec pool R-OBJ-6, as far as one origin can see them.
    pub(crate) fn check(&self, now: Instant) -> Result<(), String> {
        let census = self.census();
        let (mut connections, mut slots) = (0, 0);
        for lent in self.waiters.outcomes().flatten() {
            match lent {
                Lent::Connection(_) => connections += 1,
                // The session may have ended meanwhile, and its streams with it.
                Lent::Slot(id, _) => slots += usize::from(self.sessions.knows(*id)),
            }
        }
        if census.dialling + self.idle.len() + connections + census.sessions > census.count {
            return Err(format!("more connections than permits: {census:?}"));
        }
        if slots > census.streams {
            return Err(format!("more slots delivered than taken: {census:?}"));
        }
        if self.waiters.first_for_connection().is_some() && !self.idle.is_empty() {
            return Err(format!(
                "a connection is idle while somebody waits: {census:?}"
            ));
        }
        let newest = self.sessions.newest_with_room(now);
        if newest.is_some_and(|newest| self.waiters.first_for_session(newest).is_some()) {
            return Err(format!("a slot is free while somebody waits: {census:?}"));
        }
        if self
            .limits
            .connections
            .is_some_and(|max| census.count > max)
        {
            return Err(format!("over the limit of the origin: {census:?}"));
        }
        if let Some(unknown) = self
            .waiters
            .beyond()
            .find(|id| *id != 0 && !self.sessions.knows(*id))
        {
            return Err(format!(
                "somebody wants a session newer than {unknown}, which is forgotten"
            ));
        }
        self.sessions.check()?;
        self.waiters.check()
    }

    /// Time so far in which no dial ran; only differences mean anything.
    pub(crate) fn undialled(&self, now: Instant) -> Duration {
        self.dials.undialled(now)
    }
}

/// What happens to sessions after they were opened.
impl<C, S: Clone, E> HostPool<C, S, E> {
    /// Its sessions, those left out that have retired and end with their last stream.
    pub(crate) fn sessions(&self) -> Vec<S> {
        self.sessions.handles().cloned().collect()
    }

    /// A stream is done: its slot goes to the first in line whom it serves. A session that is idle now retires if its time has
    /// ended, or if it takes up the room of a dial that somebody waits for.
    pub(crate) fn release_slot(&mut self, id: SessionId, now: Instant) -> Actions<C, S> {
        let mut actions = Actions::default();
        self.sessions.free_slot(id);
        self.lend_slots(now, &mut actions);
        if self.sessions.rest(id, now) {
            let retired = if self.is_in_the_way(now) {
                self.sessions.retire(id)
            } else {
                self.sessions.retire_over(id, now)
            };
            actions.retired.extend(retired);
            actions.watch = !std::mem::replace(&mut self.watched, true);
        }
        actions
    }

    /// The peer allows another number of streams (spec pool R-H2-4).
    pub(crate) fn set_max_streams(
        &mut self,
        id: SessionId,
        max_streams: usize,
        now: Instant,
    ) -> Actions<C, S> {
        let mut actions = Actions::default();
        self.sessions.set_max_streams(id, max_streams);
        self.lend_slots(now, &mut actions);
        actions
    }

    /// Whether it is doubted that the peer is still there (spec pool R-H2-7).
    pub(crate) fn set_suspect(
        &mut self,
        id: SessionId,
        suspect: bool,
        now: Instant,
    ) -> Actions<C, S> {
        let mut actions = Actions::default();
        self.sessions.set_suspect(id, suspect);
        self.lend_slots(now, &mut actions);
        // With it back, others that are idle may be more than are needed.
        actions.watch = !suspect && !std::mem::replace(&mut self.watched, true);
        actions
    }

    /// The session gets no new streams (spec pool R-H2-6). The handle is to be dropped once the lock is released.
    pub(crate) fn retire(&mut self, id: SessionId) -> Option<S> {
        self.sessions.retire(id)
    }

    /// The session has ended; its permit comes back apart from this.
    pub(crate) fn session_gone(&mut self, id: SessionId) -> Option<S> {
        let handle = self.sessions.gone(id);
        let before = self.sessions.newest_up_to(id);
        self.waiters.forget_session(id, before);
        handle
    }
}

impl<C, S: Clone, E> HostPool<C, S, E> {
    /// Lends the slots that are free, each to the first in line whom it serves.
    fn lend_slots(&mut self, now: Instant, actions: &mut Actions<C, S>) {
        if self.waiters.len() == 0 {
            return;
        }
        while let Some(newest) = self.sessions.newest_with_room(now) {
            let Some((place, beyond)) = self.waiters.first_for_session(newest) else {
                break;
            };
            let Some((id, session)) = self.sessions.take_slot(beyond, now) else {
                break;
            };
            self.hand_over(place, Ok(Lent::Slot(id, session)), actions);
        }
    }
}

/// How soon after a dial that nobody waited for there may be another.
const SPARE_PAUSE: Duration = Duration::from_secs(1);

/// How long an origin of which a connection proved dead in use is looked at more closely (spec pool R-LIVE-3).
const DOUBT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    type Machine = HostPool<u32, char, &'static str>;

    fn machine(max_count: Option<usize>) -> (Machine, Instant) {
        speaking(Spoken::Http1, max_count)
    }

    fn speaking(spoken: Spoken, max_count: Option<usize>) -> (Machine, Instant) {
        let now = Instant::now();
        let limits = HostLimits {
            connections: max_count,
            line: Some(9),
            sessions: 2,
            spread: None,
            max_requests: None,
            session_idle: Duration::from_secs(55),
            hedge: Duration::from_millis(250),
        };
        (HostPool::new(limits, spoken, now), now)
    }

    fn later(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enqueue(machine: &mut Machine, ticket: Ticket, want: Want) -> Result<Place, Refusal> {
        machine.enqueue(ticket, want, Instant::now(), &mut Vec::new())
    }

    fn join(machine: &mut Machine, ticket: Ticket) -> Place {
        enqueue(machine, ticket, Want::Any).unwrap()
    }

    fn join_all<const N: usize>(machine: &mut Machine, tickets: [Ticket; N]) -> [Place; N] {
        tickets.map(|ticket| join(machine, ticket))
    }

    fn take(machine: &mut Machine, now: Instant) -> Option<u32> {
        let mut expired = Vec::new();
        match machine.checkout(now, &mut expired)?.lent {
            Lent::Connection(connection) => Some(connection),
            Lent::Slot(..) => None,
        }
    }

    fn outcome(
        machine: &mut Machine,
        place: Place,
        now: Instant,
    ) -> Option<Result<u32, &'static str>> {
        match machine.poll(place, Waker::noop(), now) {
            Progress::Served(Ok(Lent::Connection(connection))) => Some(Ok(connection)),
            Progress::Served(Ok(Lent::Slot(id, _))) => Some(Ok(u32::try_from(id).unwrap() * 100)),
            Progress::Served(Err(error)) => Some(Err(error)),
            Progress::Waiting { .. } => None,
        }
    }

    /// What a waiter was served; it leaves the line.
    fn served(
        machine: &mut Machine,
        place: Place,
        now: Instant,
    ) -> Option<Result<u32, &'static str>> {
        let outcome = outcome(machine, place, now)?;
        assert!(machine.leave(place).is_none());
        Some(outcome)
    }

    fn http1(
        machine: &mut Machine,
        id: DialId,
        connection: u32,
        now: Instant,
    ) -> Actions<u32, char> {
        machine.dialled(id, Newcomer::Http1(connection), now, later(now, 5))
    }

    fn http2(
        machine: &mut Machine,
        id: DialId,
        max_streams: usize,
        now: Instant,
    ) -> Actions<u32, char> {
        let newcomer = Newcomer::Http2 {
            session: 's',
            max_streams,
            ends: None,
        };
        machine.dialled(id, newcomer, now, later(now, 5))
    }

    /// Starts the dials that are wanted, and answers which.
    fn pump(machine: &mut Machine, now: Instant) -> Vec<DialId> {
        let mut started = Vec::new();
        while machine.wants_dial(now).is_some() {
            started.push(machine.begin_dial(now));
        }
        started
    }

    /// Dials and delivers `connection` to a waiter of its own.
    fn lend(machine: &mut Machine, connection: u32, now: Instant) {
        let place = join(machine, u64::from(connection) + 1000);
        let id = machine.begin_dial(now);
        let _ = http1(machine, id, connection, now);
        assert_eq!(served(machine, place, now), Some(Ok(connection)));
    }

    /// pool.md test 1.
    #[test]
    fn lifo_reuse() {
        let (mut machine, now) = machine(None);
        for connection in 1..=3 {
            lend(&mut machine, connection, now);
        }
        for connection in 1..=3 {
            let _ = machine.release(connection, now, later(now, 5));
        }
        assert_eq!(take(&mut machine, now), Some(3));
        assert_eq!(take(&mut machine, now), Some(2));
        assert_eq!(machine.evict(), Some(Evicted::Connection(1)));
        machine.check(now).unwrap();
    }

    #[test]
    fn an_expired_connection_is_not_lent() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        let _ = machine.release(1, now, later(now, 5));
        let mut expired = Vec::new();
        assert!(machine.checkout(later(now, 5), &mut expired).is_none());
        assert_eq!(expired, [1]);
    }

    /// pool.md test 5, and R-Q-1.
    #[test]
    fn waiters_are_served_in_order_and_nobody_overtakes() {
        let (mut machine, now) = machine(Some(1));
        lend(&mut machine, 1, now);
        let [first, second] = join_all(&mut machine, [10, 11]);
        assert_eq!(machine.wants_dial(now), None, "the limit is reached");
        let wakes = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(matches!(
            machine.poll(first, &waker, now),
            Progress::Waiting { .. }
        ));
        let actions = machine.release(1, now, later(now, 5));
        actions.served.into_iter().for_each(Served::wake);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(
            take(&mut machine, now),
            None,
            "a newcomer does not overtake the line"
        );
        assert_eq!(served(&mut machine, second, now), None);
        assert_eq!(served(&mut machine, first, now), Some(Ok(1)));
        machine.check(now).unwrap();
    }

    /// pool.md tests 9 and 10, and R-Q-2.
    #[test]
    fn who_leaves_loses_nothing() {
        let (mut machine, now) = machine(Some(1));
        lend(&mut machine, 1, now);
        let [first, second] = join_all(&mut machine, [10, 11]);
        assert!(machine.leave(first).is_none());
        let _ = machine.release(1, now, later(now, 5));
        assert_eq!(
            machine.leave(second),
            Some(Ok(Lent::Connection(1))),
            "a delivered connection is handed back"
        );
        let _ = machine.release(1, now, later(now, 5));
        assert_eq!(take(&mut machine, now), Some(1));
    }

    /// R-Q-3.
    #[test]
    fn who_was_served_a_dead_connection_keeps_its_place() {
        let (mut machine, now) = machine(Some(2));
        lend(&mut machine, 1, now);
        lend(&mut machine, 2, now);
        let [first, second] = join_all(&mut machine, [10, 11]);
        let _ = machine.release(1, now, later(now, 5));
        assert_eq!(outcome(&mut machine, first, now), Some(Ok(1)));
        machine.enqueue_again(first, Want::Any, now, &mut Vec::new());
        let _ = machine.release(2, now, later(now, 5));
        assert_eq!(served(&mut machine, first, now), Some(Ok(2)));
        assert_eq!(served(&mut machine, second, now), None);
    }

    /// pool.md test 14 and R-DIAL-4: a freed connection wins over the dial, which then serves the next.
    #[test]
    fn late_binding() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        let first = join(&mut machine, 10);
        let dials = pump(&mut machine, now);
        let _ = machine.release(1, now, later(now, 5));
        assert_eq!(served(&mut machine, first, now), Some(Ok(1)));
        let second = join(&mut machine, 11);
        assert_eq!(
            machine.wants_dial(now),
            None,
            "the running dial is counted on"
        );
        let _ = http1(&mut machine, dials[0], 2, now);
        assert_eq!(served(&mut machine, second, now), Some(Ok(2)));
    }

    /// R-DIAL-5 and pool.md test 13 (a).
    #[test]
    fn a_failed_dial_reaches_the_waiter_that_caused_it() {
        let (mut machine, now) = machine(None);
        let [first, second] = join_all(&mut machine, [10, 11]);
        assert_eq!(machine.wants_dial(now), Some(10));
        let for_first = machine.begin_dial(now);
        assert_eq!(machine.wants_dial(now), Some(11));
        let for_second = machine.begin_dial(now);
        let _ = machine.dial_failed(for_second, "refused", now);
        machine.closed();
        assert_eq!(served(&mut machine, first, now), None);
        assert_eq!(served(&mut machine, second, now), Some(Err("refused")));
        assert!(machine.leave(first).is_none());
        let _ = machine.dial_failed(for_first, "refused", now);
        machine.closed();
        assert_eq!(machine.census(), Census::default());
    }

    #[test]
    fn a_dial_that_is_dropped_is_started_again_for_its_waiter() {
        let (mut machine, now) = machine(None);
        let [first, _] = join_all(&mut machine, [10, 11]);
        let dials = pump(&mut machine, now);
        machine.dial_dropped(dials[0], now);
        assert_eq!(machine.wants_dial(now), Some(10));
        assert!(machine.leave(first).is_none());
        assert_eq!(machine.wants_dial(now), None, "the other dial runs");
        machine.check(now).unwrap();
    }

    /// Ruling 4: only time without a dial counts against the pool limit.
    #[test]
    fn the_pool_clock_stands_while_a_dial_runs() {
        let (mut machine, now) = machine(None);
        let place = join(&mut machine, 10);
        let clock = |machine: &mut Machine, at| match machine.poll(place, Waker::noop(), at) {
            Progress::Waiting { undialled, .. } => undialled,
            Progress::Served(_) => panic!("nobody serves here"),
        };
        assert_eq!(clock(&mut machine, later(now, 2)), Duration::from_secs(2));
        let id = machine.begin_dial(later(now, 2));
        assert_eq!(clock(&mut machine, later(now, 9)), Duration::from_secs(2));
        machine.dial_dropped(id, later(now, 9));
        assert_eq!(clock(&mut machine, later(now, 10)), Duration::from_secs(3));
    }

    /// R-RETRY-3: after a stale connection only a new one will do.
    #[test]
    fn who_wants_a_new_connection_gets_no_old_one() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        let _ = machine.release(1, now, later(now, 5));
        let new = enqueue(&mut machine, 10, Want::NewerThan(0)).unwrap();
        assert_eq!(served(&mut machine, new, now), None);
        assert_eq!(
            take(&mut machine, now),
            Some(1),
            "others may take the old one"
        );
        let any = join(&mut machine, 11);
        let _ = machine.release(1, now, later(now, 5));
        assert_eq!(served(&mut machine, any, now), Some(Ok(1)));
        let id = machine.begin_dial(now);
        let _ = http1(&mut machine, id, 2, now);
        assert_eq!(served(&mut machine, new, now), Some(Ok(2)));
        machine.check(now).unwrap();
    }

    /// Its room is needed for the new one.
    #[test]
    fn an_old_connection_closes_for_who_wants_a_new_one_at_the_limit() {
        let (mut machine, now) = machine(Some(2));
        lend(&mut machine, 1, now);
        lend(&mut machine, 2, now);
        let new = enqueue(&mut machine, 10, Want::NewerThan(0)).unwrap();
        assert_eq!(machine.wants_dial(now), None, "the limit is reached");
        assert_eq!(machine.release(1, now, later(now, 5)).close, Some(1));
        machine.closed();
        let id = pump(&mut machine, now)[0];
        assert_eq!(
            machine.release(2, now, later(now, 5)).close,
            None,
            "one is enough"
        );
        let _ = http1(&mut machine, id, 3, now);
        assert_eq!(served(&mut machine, new, now), Some(Ok(3)));
        machine.check(now).unwrap();
    }

    #[test]
    fn a_full_line_refuses() {
        let (mut machine, _) = machine(Some(1));
        for ticket in 1..=9 {
            assert!(enqueue(&mut machine, ticket, Want::Any).is_ok());
        }
        assert_eq!(enqueue(&mut machine, 10, Want::Any), Err(Refusal::Full));
    }

    #[test]
    fn a_closed_pool_serves_errors_and_keeps_nothing() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        let place = join(&mut machine, 10);
        let _ = machine.close(&"closed");
        assert_eq!(served(&mut machine, place, now), Some(Err("closed")));
        assert_eq!(enqueue(&mut machine, 11, Want::Any), Err(Refusal::Closed));
        assert_eq!(machine.release(1, now, later(now, 5)).close, Some(1));
        assert_eq!(machine.wants_dial(now), None);
    }

    /// R-LIVE-3.
    #[test]
    fn a_stale_connection_makes_its_origin_doubtful_for_a_minute() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        machine.saw_stale(now);
        for (seconds, doubtful) in [(0, true), (59, true), (60, false)] {
            let now = later(now, seconds);
            let _ = machine.release(1, now, later(now, 5));
            let candidate = machine.checkout(now, &mut Vec::new()).unwrap();
            assert_eq!(candidate.doubtful, doubtful, "{seconds} s");
        }
    }

    /// Spec pool 3.11: the reaper hears of a connection once, arms it when it has rested, and looks again when it expires.
    #[test]
    fn the_reaper_is_called_for_what_it_does_not_know() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        assert!(machine.release(1, now, later(now, 5)).watch);
        assert_eq!(take(&mut machine, now), Some(1));
        assert!(!machine.release(1, now, later(now, 5)).watch, "it knows");
        assert_eq!(machine.next_look(now), NextLook::Soon);
        assert!(
            machine
                .take_suspects(|idle| std::mem::replace(&mut idle.armed, true))
                .is_empty()
        );
        assert_eq!(machine.next_look(now), NextLook::At(later(now, 5)));
        assert_eq!(take(&mut machine, now), Some(1));
        assert!(
            machine.release(1, now, later(now, 5)).watch,
            "it is not armed any more"
        );
        assert!(!machine.unwatch());
        let mut expired = Vec::new();
        let _ = machine.expire(later(now, 4), &mut expired);
        assert!(expired.is_empty());
        let _ = machine.expire(later(now, 5), &mut expired);
        assert_eq!(expired, [1]);
        assert_eq!(machine.next_look(now), NextLook::Never);
        assert!(machine.unwatch());
    }

    /// R-ALPN-1 and pool.md test 29: one dial for a hundred, and then a slot for each.
    #[test]
    fn one_dial_finds_out_what_an_origin_speaks() {
        let (mut machine, now) = speaking(Spoken::Unknown, None);
        let places = join_all(&mut machine, [1, 2, 3, 4, 5]);
        let dials = pump(&mut machine, now);
        assert_eq!(dials.len(), 1);
        let actions = http2(&mut machine, dials[0], 4, now);
        assert_eq!(actions.served.iter().count(), 4);
        for place in &places[..4] {
            assert_eq!(served(&mut machine, *place, now), Some(Ok(100)));
        }
        assert_eq!(served(&mut machine, places[4], now), None);
        machine.check(now).unwrap();
        let _ = machine.release_slot(1, now);
        assert_eq!(served(&mut machine, places[4], now), Some(Ok(100)));
        assert_eq!(machine.census().streams, 4);
        machine.check(now).unwrap();
    }

    /// R-ALPN-1 and pool.md test 30: once it is HTTP/1.1, everybody who is left is dialled for at once.
    #[test]
    fn an_origin_that_speaks_http1_is_dialled_for_everybody() {
        let (mut machine, now) = speaking(Spoken::Unknown, None);
        let places = join_all(&mut machine, [1, 2, 3]);
        let dials = pump(&mut machine, now);
        let _ = http1(&mut machine, dials[0], 7, now);
        assert_eq!(served(&mut machine, places[0], now), Some(Ok(7)));
        assert_eq!(pump(&mut machine, now).len(), 2);
        machine.check(now).unwrap();
    }

    /// R-ALPN-1: a slow first dial is joined by others, at most three.
    #[test]
    fn a_slow_first_dial_is_hedged() {
        let (mut machine, now) = speaking(Spoken::Unknown, None);
        let places = join_all(&mut machine, [1, 2, 3, 4, 5, 6]);
        let at = |millis| now + Duration::from_millis(millis);
        let hedge = |machine: &mut Machine| match machine.poll(places[0], Waker::noop(), now) {
            Progress::Waiting { hedge_at, .. } => hedge_at,
            Progress::Served(_) => panic!("nobody serves here"),
        };
        let mut running = 0;
        for (millis, dials, next) in [
            (0, 1, Some(250)),
            (249, 1, Some(250)),
            (250, 2, Some(500)),
            (500, 3, Some(750)),
            (750, 4, None),
            (5000, 4, None),
        ] {
            running += pump(&mut machine, at(millis)).len();
            assert_eq!(running, dials, "after {millis} ms");
            assert_eq!(hedge(&mut machine), next.map(at), "after {millis} ms");
        }
    }

    /// R-DIAL-5 and pool.md test 13 (b): the dial was for all, and so is its error, unless a hedge still runs.
    #[test]
    fn the_error_of_a_dial_for_all_reaches_all() {
        let (mut machine, now) = speaking(Spoken::Unknown, None);
        let places = join_all(&mut machine, [1, 2, 3]);
        let mut dials = pump(&mut machine, now);
        dials.extend(pump(&mut machine, later(now, 1)));
        let last = dials.pop().unwrap();
        for dial in dials {
            assert!(machine.dial_failed(dial, "refused", now).served.is_empty());
        }
        let late = join(&mut machine, 4);
        assert_eq!(
            machine
                .dial_failed(last, "refused", now)
                .served
                .iter()
                .count(),
            4
        );
        for place in places.into_iter().chain([late]) {
            assert_eq!(served(&mut machine, place, now), Some(Err("refused")));
        }
        machine.check(now).unwrap();
    }

    /// R-ALPN-3 and pool.md test 31.
    #[test]
    fn what_an_origin_speaks_may_change() {
        let (mut machine, now) = speaking(Spoken::Http1, None);
        let places = join_all(&mut machine, [1, 2, 3]);
        let dials = pump(&mut machine, now);
        assert_eq!(dials.len(), 3);
        assert!(machine.needs_session(now));
        let _ = http2(&mut machine, dials[0], 9, now);
        for place in places {
            assert_eq!(served(&mut machine, place, now), Some(Ok(100)));
        }
        assert!(!machine.needs_session(now), "one session is enough");
        machine.dial_dropped(dials[1], now);
        machine.closed();
        machine.check(now).unwrap();
        // And back: the next dial finds HTTP/1.1, and everybody in line is dialled for.
        assert_eq!(machine.retire(1), Some('s'));
        let places = join_all(&mut machine, [4, 5, 6]);
        let _ = http1(&mut machine, dials[2], 7, now);
        assert_eq!(served(&mut machine, places[0], now), Some(Ok(7)));
        assert_eq!(pump(&mut machine, now).len(), 2);
        machine.check(now).unwrap();
    }

    /// R-H2-3 and pool.md test 32: sessions grow with the line, up to their limit.
    #[test]
    fn sessions_grow_up_to_their_limit() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let _places = join_all(&mut machine, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let dials = pump(&mut machine, now);
        assert_eq!(dials.len(), 1, "one is expected to carry a hundred");
        let _ = http2(&mut machine, dials[0], 3, now);
        let dials = pump(&mut machine, now);
        assert_eq!(dials.len(), 1, "two sessions are allowed");
        let _ = http2(&mut machine, dials[0], 3, now);
        assert_eq!(machine.census().waiting, 3);
        assert_eq!(machine.wants_dial(now), None);
        assert_eq!(
            (machine.census().sessions, machine.census().streams),
            (2, 6)
        );
        machine.check(now).unwrap();
    }

    /// R-H2-4 and pool.md test 33: zero streams allowed is full, not dead.
    #[test]
    fn the_peer_may_change_how_many_streams_it_takes() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let places = join_all(&mut machine, [1, 2, 3, 4]);
        let dials = pump(&mut machine, now);
        let _ = http2(&mut machine, dials[0], 1, now);
        assert!(machine.set_max_streams(1, 0, now).served.is_empty());
        let _ = machine.release_slot(1, now);
        assert_eq!(machine.census().waiting, 3);
        assert_eq!(machine.set_max_streams(1, 2, now).served.iter().count(), 2);
        assert_eq!(served(&mut machine, places[1], now), Some(Ok(100)));
        assert_eq!(machine.census().waiting, 1);
        machine.check(now).unwrap();
    }

    /// R-H2-7: a suspect session may be replaced beyond the limit on sessions.
    #[test]
    fn a_suspect_session_is_replaced() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let first = join(&mut machine, 1);
        let dials = pump(&mut machine, now);
        let _ = http2(&mut machine, dials[0], 9, now);
        assert_eq!(served(&mut machine, first, now), Some(Ok(100)));
        let _ = machine.set_suspect(1, true, now);
        let second = join(&mut machine, 2);
        assert_eq!(pump(&mut machine, now).len(), 1);
        let _ = machine.set_suspect(1, false, now);
        assert_eq!(served(&mut machine, second, now), Some(Ok(100)));
        machine.check(now).unwrap();
    }

    /// A dial beside an open session that fails does not fail those whom the session will serve.
    #[test]
    fn a_failed_growth_fails_one() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let places = join_all(&mut machine, [1, 2, 3]);
        let dials = pump(&mut machine, now);
        let _ = http2(&mut machine, dials[0], 1, now);
        let dials = pump(&mut machine, now);
        let _ = machine.dial_failed(dials[0], "refused", now);
        machine.closed();
        assert_eq!(served(&mut machine, places[1], now), Some(Err("refused")));
        assert_eq!(served(&mut machine, places[2], now), None);
        machine.check(now).unwrap();
    }

    /// R-H2-8: a session without streams is idle like a connection.
    #[test]
    fn an_idle_session_expires_and_is_evicted() {
        for evict in [true, false] {
            let (mut machine, now) = speaking(Spoken::Http2, None);
            let place = join(&mut machine, 1);
            let dials = pump(&mut machine, now);
            let _ = http2(&mut machine, dials[0], 1, now);
            assert_eq!(served(&mut machine, place, now), Some(Ok(100)));
            assert_eq!((machine.oldest_idle(), machine.evict()), (None, None));
            let _ = machine.release_slot(1, now);
            assert_eq!(machine.census().idle, 1);
            assert_eq!(machine.next_look(now), NextLook::At(later(now, 55)));
            if evict {
                assert_eq!(machine.evict(), Some(Evicted::Session('s')));
            } else {
                assert!(machine.expire(later(now, 54), &mut Vec::new()).is_empty());
                assert_eq!(machine.expire(later(now, 55), &mut Vec::new()), ['s']);
            }
            assert_eq!((machine.census().idle, machine.census().sessions), (0, 1));
            assert_eq!(machine.session_gone(1), None);
            machine.closed();
            assert_eq!(machine.census(), Census::default());
        }
    }

    /// R-DIAL-5: its dial served another, whose own dial, which it counted on, has failed.
    #[test]
    fn who_counts_on_the_dial_of_another_is_dialled_for_when_it_fails() {
        let (mut machine, now) = machine(None);
        let [first, _] = join_all(&mut machine, [10, 11]);
        let dials = pump(&mut machine, now);
        let _ = http1(&mut machine, dials[1], 7, now);
        assert_eq!(served(&mut machine, first, now), Some(Ok(7)));
        assert_eq!(machine.wants_dial(now), None, "the other dial runs");
        assert!(
            machine
                .dial_failed(dials[0], "refused", now)
                .served
                .is_empty()
        );
        machine.closed();
        assert_eq!(machine.wants_dial(now), Some(11));
    }

    /// R-RETRY-4: another try keeps the ticket, and the dial of the first one may still run.
    #[test]
    fn a_ticket_that_comes_back_is_dialled_for() {
        for spoken_changes in [false, true] {
            let (mut machine, now) = machine(None);
            let [before, _] = join_all(&mut machine, [10, 12]);
            let dials = pump(&mut machine, now);
            assert!(machine.leave(before).is_none());
            let _ = join_all(&mut machine, [11, 10, 5]);
            if spoken_changes {
                let _ = http2(&mut machine, dials[1], 0, now);
            } else {
                machine.dial_dropped(dials[1], now);
            }
            let id = machine.begin_dial(now);
            let _ = http1(&mut machine, id, 7, now);
            let _ = machine.dial_failed(dials[0], "refused", now);
            assert_eq!(machine.census().waiting, 3, "who caused it has left");
            assert_eq!(pump(&mut machine, now).len(), 3, "{spoken_changes}");
        }
    }

    #[test]
    fn who_wants_a_new_connection_gets_no_stream_of_an_old_session() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let first = join(&mut machine, 1);
        let dials = pump(&mut machine, now);
        let _ = http2(&mut machine, dials[0], 5, now);
        assert_eq!(served(&mut machine, first, now), Some(Ok(100)));
        let _ = machine.release_slot(1, now);
        let new = enqueue(&mut machine, 2, Want::NewerThan(1)).unwrap();
        let dials = pump(&mut machine, now);
        let _ = http2(&mut machine, dials[0], 5, now);
        assert_eq!(served(&mut machine, new, now), Some(Ok(200)));
    }

    /// Who waits sleeps until the next hedge: one that may not start would be slept for again and again.
    #[test]
    fn no_hedge_is_due_where_no_dial_may_start() {
        let (mut machine, now) = speaking(Spoken::Unknown, Some(1));
        let [first, _] = join_all(&mut machine, [1, 2]);
        assert_eq!(pump(&mut machine, now).len(), 1);
        let Progress::Waiting { hedge_at, .. } = machine.poll(first, Waker::noop(), now) else {
            panic!("nobody serves here");
        };
        assert_eq!(hedge_at, None);
    }

    #[test]
    fn a_suspect_that_expired_meanwhile_is_not_lent() {
        for somebody_waits in [false, true] {
            let (mut machine, now) = machine(None);
            lend(&mut machine, 1, now);
            let _ = machine.release(1, now, later(now, 5));
            let suspect = machine.take_suspects(|_| true).pop().unwrap();
            if somebody_waits {
                join(&mut machine, 10);
            }
            let actions = machine.put_back(suspect, later(now, 5));
            assert_eq!(actions.close, Some(1));
            assert!(actions.served.is_empty());
        }
    }

    /// What another look took out may come back when the reaper has gone to sleep.
    #[test]
    fn the_reaper_is_called_for_what_is_put_back() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        let _ = machine.release(1, now, later(now, 5));
        let suspect = machine.take_suspects(|_| true).pop().unwrap();
        assert_eq!(machine.next_look(now), NextLook::Never);
        assert!(machine.put_back(suspect, now).watch);
    }

    /// R-H2-8: a session's time begins when its last stream ends.
    #[test]
    fn the_reaper_is_called_for_a_session_that_becomes_idle() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let first = join(&mut machine, 1);
        let dials = pump(&mut machine, now);
        assert!(http2(&mut machine, dials[0], 5, now).watch);
        assert_eq!(served(&mut machine, first, now), Some(Ok(100)));
        assert_eq!(machine.next_look(now), NextLook::Never);
        assert!(!machine.unwatch(), "a session is open");
        assert!(machine.release_slot(1, now).watch);
        assert_eq!(machine.next_look(now), NextLook::At(later(now, 55)));
    }

    #[test]
    fn a_session_may_end_before_its_stream_is_taken() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let first = join(&mut machine, 1);
        let dials = pump(&mut machine, now);
        let _ = http2(&mut machine, dials[0], 5, now);
        assert_eq!(machine.session_gone(1), Some('s'));
        machine.closed();
        machine.check(now).unwrap();
        assert_eq!(served(&mut machine, first, now), Some(Ok(100)));
        let _ = machine.release_slot(1, now);
        assert_eq!(machine.census(), Census::default());
    }

    /// Dials and opens a session.
    fn open(
        machine: &mut Machine,
        max_streams: usize,
        ends: Option<Instant>,
        now: Instant,
    ) -> Actions<u32, char> {
        let id = machine.begin_dial(now);
        let newcomer = Newcomer::Http2 {
            session: 's',
            max_streams,
            ends,
        };
        machine.dialled(id, newcomer, now, later(now, 5))
    }

    fn take_slot(machine: &mut Machine, now: Instant) -> Option<SessionId> {
        match machine.checkout(now, &mut Vec::new())?.lent {
            Lent::Slot(id, _) => Some(id),
            Lent::Connection(_) => None,
        }
    }

    fn limited(spoken: Spoken, limit: impl FnOnce(&mut HostLimits)) -> (Machine, Instant) {
        let (machine, now) = speaking(spoken, None);
        let mut limits = machine.limits;
        limit(&mut limits);
        (HostPool::new(limits, spoken, now), now)
    }

    /// A slot goes to the first in line whom it serves: when he comes, when a slot comes free, and when a session is dialled.
    #[test]
    fn a_newer_session_serves_who_wants_one() {
        for (wanted_at_once, newer_than, served_by) in [
            (true, 0, Some(200)),
            (true, 1, Some(200)),
            (true, 2, None),
            (false, 0, Some(100)),
            (false, 1, Some(200)),
            (false, 2, None),
            // None of that name is known: what is there will not do.
            (false, 77, None),
        ] {
            let (mut machine, now) = speaking(Spoken::Http2, None);
            let _ = open(&mut machine, 1, None, now);
            let _ = open(&mut machine, 1, None, now);
            if !wanted_at_once {
                assert_eq!(take_slot(&mut machine, now), Some(1));
                assert_eq!(take_slot(&mut machine, now), Some(2));
            } else {
                assert_eq!(take_slot(&mut machine, now), Some(1));
            }
            let place = enqueue(&mut machine, 1, Want::NewerThan(newer_than)).unwrap();
            if !wanted_at_once {
                assert_eq!(outcome(&mut machine, place, now), None);
                let _ = machine.release_slot(1, now);
                let _ = machine.release_slot(2, now);
            }
            let case = (wanted_at_once, newer_than);
            assert_eq!(
                served(&mut machine, place, now),
                served_by.map(Ok),
                "{case:?}"
            );
            machine.check(now).unwrap();
            if served_by.is_none() {
                assert_eq!(machine.wants_dial(now), Some(1), "{case:?}");
                let _ = open(&mut machine, 1, None, now);
                assert_eq!(served(&mut machine, place, now), Some(Ok(300)), "{case:?}");
                machine.check(now).unwrap();
            }
        }
    }

    /// R-Q-1, among those whom a slot serves.
    #[test]
    fn who_may_not_have_a_slot_does_not_keep_it_from_others() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let _ = open(&mut machine, 1, None, now);
        let _ = open(&mut machine, 1, None, now);
        assert_eq!(take_slot(&mut machine, now), Some(1));
        assert_eq!(take_slot(&mut machine, now), Some(2));
        let wants = [
            Want::NewerThan(2),
            Want::NewerThan(1),
            Want::Any,
            Want::NewerThan(1),
            Want::NewerThan(0),
        ];
        let places: Vec<_> = (1..)
            .zip(wants)
            .map(|(ticket, want)| enqueue(&mut machine, ticket, want).unwrap())
            .collect();
        let mut order = Vec::new();
        for id in [1, 2, 2, 1] {
            for served in machine.release_slot(id, now).served.iter() {
                let at = usize::try_from(served.ticket).unwrap() - 1;
                assert!(outcome(&mut machine, places[at], now).is_some());
                order.push((id, served.ticket));
            }
            machine.check(now).unwrap();
        }
        assert_eq!(order, [(1, 3), (2, 2), (2, 4), (1, 5)]);
        let _ = open(&mut machine, 1, None, now);
        assert_eq!(served(&mut machine, places[0], now), Some(Ok(300)));
    }

    /// When all sessions that may be open are too old for somebody, one dial goes beyond their limit; not beyond that on
    /// connections.
    #[test]
    fn nobody_is_stranded_at_the_limit_on_sessions() {
        for (connections, dials) in [(None, 1), (Some(3), 1), (Some(2), 0)] {
            let (mut machine, now) = speaking(Spoken::Http2, connections);
            for _ in 0..2 {
                let _ = open(&mut machine, 9, None, now);
            }
            let places =
                [1, 2, 3].map(|ticket| enqueue(&mut machine, ticket, Want::NewerThan(2)).unwrap());
            assert_eq!(pump(&mut machine, now).len(), dials, "{connections:?}");
            assert!(dials == 0 || machine.needs_session(now));
            if dials == 1 {
                let actions = http2(&mut machine, 3, 2, now);
                assert_eq!(actions.opened, Some(3));
                assert_eq!(served(&mut machine, places[1], now), Some(Ok(300)));
                assert_eq!(
                    machine.wants_dial(now),
                    None,
                    "the third waits for a slot of it"
                );
            }
            machine.check(now).unwrap();
        }
    }

    /// The gate of all hosts knows the one for whom the dial is.
    #[test]
    fn the_dial_of_who_is_stranded_bears_his_ticket() {
        let (mut machine, now) = limited(Spoken::Http2, |limits| limits.sessions = 1);
        let _ = open(&mut machine, 1, None, now);
        assert_eq!(take_slot(&mut machine, now), Some(1));
        let first = join(&mut machine, 1);
        let stranded = enqueue(&mut machine, 2, Want::NewerThan(1)).unwrap();
        assert_eq!(machine.wants_dial(now), Some(2));
        // R-DIAL-5: its error is his, and not of him whom the session will serve.
        let dials = pump(&mut machine, now);
        let _ = machine.dial_failed(dials[0], "refused", now);
        machine.closed();
        assert_eq!(served(&mut machine, stranded, now), Some(Err("refused")));
        assert_eq!(served(&mut machine, first, now), None);
        assert_eq!(machine.wants_dial(now), None);
        machine.check(now).unwrap();
    }

    /// A session that is idle at the limit on connections leaves its room to who can use none that is open.
    #[test]
    fn an_idle_session_goes_for_who_is_stranded_at_the_limit() {
        for (want, retired) in [(Want::NewerThan(1), vec!['s']), (Want::Any, vec![])] {
            let (mut machine, now) = speaking(Spoken::Http2, Some(1));
            let _ = open(&mut machine, 1, None, now);
            assert_eq!(take_slot(&mut machine, now), Some(1));
            enqueue(&mut machine, 1, want).unwrap();
            assert_eq!(machine.wants_dial(now), None);
            assert_eq!(machine.release_slot(1, now).retired, retired);
            machine.check(now).unwrap();
        }
    }

    /// Those who wait for newer sessions than some that have ended are told apart no more, and nobody is forgotten.
    #[test]
    fn who_wants_a_newer_session_outlives_the_old_ones() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            let (mut machine, now) = limited(Spoken::Http2, |limits| limits.sessions = 4);
            for id in 1..=3 {
                let _ = open(&mut machine, 1, None, now);
                assert_eq!(take_slot(&mut machine, now), Some(id));
            }
            let places: Vec<_> = (0..4)
                .map(|id| enqueue(&mut machine, 9 - id, Want::NewerThan(id)).unwrap())
                .collect();
            let dials = pump(&mut machine, now);
            assert_eq!(dials.len(), 1);
            for id in order {
                assert_eq!(machine.session_gone(id), Some('s'));
                machine.closed();
                machine.check(now).unwrap();
            }
            assert!(machine.leave(places[1]).is_none());
            machine.check(now).unwrap();
            let actions = http2(&mut machine, dials[0], 9, now);
            let tickets: Vec<_> = actions.served.iter().map(|served| served.ticket).collect();
            assert_eq!(tickets, [6, 7, 9], "{order:?}");
            machine.check(now).unwrap();
        }
    }

    /// R-ALPN-3: the origin turns to HTTP/1.1 and back while somebody waits for a newer session.
    #[test]
    fn a_change_of_protocol_strands_nobody() {
        for serves in [Spoken::Http1, Spoken::Http2] {
            let (mut machine, now) = limited(Spoken::Http2, |limits| limits.sessions = 1);
            let _ = open(&mut machine, 1, None, now);
            assert_eq!(take_slot(&mut machine, now), Some(1));
            let places =
                [1, 2].map(|ticket| enqueue(&mut machine, ticket, Want::NewerThan(1)).unwrap());
            let dials = pump(&mut machine, now);
            let _ = http1(&mut machine, dials[0], 7, now);
            assert_eq!(served(&mut machine, places[0], now), Some(Ok(7)));
            // What is released is not new; the other has a dial of his own now.
            let _ = machine.release(7, now, later(now, 5));
            let dials = pump(&mut machine, now);
            assert_eq!(dials.len(), 1);
            if serves == Spoken::Http1 {
                let _ = http1(&mut machine, dials[0], 8, now);
                assert_eq!(served(&mut machine, places[1], now), Some(Ok(8)));
            } else {
                assert!(machine.needs_session(now), "the open one is too old");
                let _ = http2(&mut machine, dials[0], 1, now);
                assert_eq!(served(&mut machine, places[1], now), Some(Ok(200)));
            }
            machine.check(now).unwrap();
        }
    }

    /// R-ALPN-3: hedges that land late are closed before they open a session too many, and one that got further is retired.
    #[test]
    fn dials_that_run_at_once_open_no_session_too_many() {
        let (mut machine, now) = speaking(Spoken::Unknown, None);
        let _places = join_all(&mut machine, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let dials = pump(&mut machine, now);
        let hedges = pump(&mut machine, later(now, 1));
        assert_eq!((dials.len(), hedges.len()), (1, 3));
        let mut opened = Vec::new();
        for dial in dials.into_iter().chain(hedges) {
            let needed = machine.needs_session(now);
            let actions = http2(&mut machine, dial, 2, now);
            assert_eq!(needed, actions.opened.is_some());
            assert_eq!(actions.retired, if needed { vec![] } else { vec!['s'] });
            opened.extend(actions.opened);
            machine.check(now).unwrap();
        }
        assert_eq!(opened, [1, 2], "two sessions are allowed");
        assert_eq!(machine.census().waiting, 5);
    }

    /// R-ALPN-3 and R-H2-7: what is needed may have changed by the time that a dial knows what it speaks.
    #[test]
    fn a_replacement_is_needed_as_long_as_the_doubt() {
        for lifted in [true, false] {
            let (mut machine, now) = limited(Spoken::Http2, |limits| limits.sessions = 1);
            let _ = open(&mut machine, 9, None, now);
            let _ = machine.set_suspect(1, true, now);
            let place = join(&mut machine, 1);
            assert_eq!(pump(&mut machine, now).len(), 1);
            assert!(machine.needs_session(now));
            if lifted {
                let _ = machine.set_suspect(1, false, now);
                assert_eq!(served(&mut machine, place, now), Some(Ok(100)));
            }
            assert_eq!(machine.needs_session(now), !lifted);
            assert_eq!(http2(&mut machine, 2, 9, now).opened.is_some(), !lifted);
            machine.check(now).unwrap();
        }
    }

    /// http2 rule 5: the doubt was what kept another from being more than is needed.
    #[test]
    fn the_reaper_is_called_when_a_doubt_is_lifted() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let _ = open(&mut machine, 9, None, now);
        let _ = open(&mut machine, 9, None, now);
        assert_eq!(take_slot(&mut machine, now), Some(1));
        let _ = machine.set_suspect(1, true, now);
        assert_eq!(machine.next_look(now), NextLook::At(later(now, 55)));
        assert!(machine.set_suspect(1, false, now).watch);
        assert_eq!(machine.next_look(now), NextLook::At(later(now, 10)));
        assert_eq!(machine.expire(later(now, 10), &mut Vec::new()), ['s']);
        assert_eq!(machine.next_look(later(now, 10)), NextLook::Never);
    }

    /// R-H2-6: the next session is dialled before one whose time has ended goes.
    #[test]
    fn a_session_is_replaced_before_it_goes() {
        let (mut machine, now) = limited(Spoken::Http2, |limits| limits.sessions = 1);
        let ends = later(now, 1);
        let _ = open(&mut machine, 2, Some(ends), now);
        assert_eq!(machine.next_look(now), NextLook::At(ends));
        assert_eq!(take_slot(&mut machine, now), Some(1));
        assert!(!machine.wants_spare_dial(now));
        assert!(machine.wants_spare_dial(ends));
        assert!(machine.expire(ends, &mut Vec::new()).is_empty());
        assert_eq!(take_slot(&mut machine, ends), Some(1), "it serves on");
        let id = machine.begin_dial(ends);
        assert!(!machine.wants_spare_dial(ends), "one dial is enough");
        assert!(machine.needs_session(ends));
        let actions = http2(&mut machine, id, 2, ends);
        assert_eq!((actions.opened, actions.retired), (Some(2), vec!['s']));
        assert_eq!(take_slot(&mut machine, ends), Some(2));
        assert!(!machine.wants_spare_dial(later(now, 9)));
        assert!(machine.release_slot(1, ends).retired.is_empty());
        machine.check(ends).unwrap();
    }

    /// R-H2-6: who waits at a session that has ended takes its last slots, until nobody does.
    #[test]
    fn a_session_past_its_end_goes_when_it_is_idle() {
        let (mut machine, now) = limited(Spoken::Http2, |limits| limits.connections = Some(1));
        let ends = later(now, 1);
        let _ = open(&mut machine, 1, Some(ends), now);
        assert_eq!(take_slot(&mut machine, now), Some(1));
        let place = join(&mut machine, 1);
        assert_eq!(machine.release_slot(1, ends).served.iter().count(), 1);
        assert_eq!(served(&mut machine, place, ends), Some(Ok(100)));
        let actions = machine.release_slot(1, ends);
        assert_eq!(actions.retired, ['s']);
        machine.check(ends).unwrap();
    }

    /// Nobody waited for it, so nobody hears of its failure; and it is not tried again at once.
    #[test]
    fn a_spare_dial_that_fails_fails_nobody() {
        for dropped in [false, true] {
            let (mut machine, now) = speaking(Spoken::Http2, None);
            let ends = later(now, 1);
            let _ = open(&mut machine, 1, Some(ends), now);
            assert_eq!(take_slot(&mut machine, now), Some(1));
            let id = machine.begin_dial(ends);
            let place = join(&mut machine, 1);
            assert_eq!(machine.wants_dial(ends), None, "he counts on it");
            if dropped {
                machine.dial_dropped(id, ends);
            } else {
                assert!(machine.dial_failed(id, "refused", ends).served.is_empty());
            }
            machine.closed();
            assert!(!machine.wants_spare_dial(ends));
            assert_eq!(machine.wants_dial(ends), Some(1), "his own may start");
            assert!(machine.leave(place).is_none());
            assert!(machine.wants_spare_dial(later(ends, 1)));
        }
    }

    /// http2 rule 5: the load is spread, within the limits.
    #[test]
    fn a_crowd_is_spread_over_further_sessions() {
        for (spread, sessions, connections, wanted) in [
            (None, 4, None, false),
            (Some(1), 4, None, false),
            (Some(2), 4, None, true),
            (Some(2), 1, None, false),
            (Some(2), 4, Some(1), false),
        ] {
            let (mut machine, now) = limited(Spoken::Http2, |limits| {
                limits.spread = spread;
                limits.sessions = sessions;
                limits.connections = connections;
            });
            let _ = open(&mut machine, 100, None, now);
            let now = later(now, 9);
            for _ in 0..17 {
                take_slot(&mut machine, now).unwrap();
            }
            let at = now + Duration::from_millis(101);
            let case = (spread, sessions, connections);
            assert!(!machine.wants_spare_dial(now + Duration::from_millis(100)));
            assert_eq!(machine.wants_spare_dial(at), wanted, "{case:?}");
            assert_eq!(machine.wants_dial(at), None);
            if wanted {
                let id = machine.begin_dial(at);
                assert!(machine.needs_session(at), "although there is room");
                let _ = http2(&mut machine, id, 100, at);
                assert!(!machine.wants_spare_dial(later(now, 60)));
            }
        }
    }

    /// A session that has lent what it may is replaced for those who wait.
    #[test]
    fn a_session_that_has_lent_enough_gets_no_more() {
        let (mut machine, now) = limited(Spoken::Http2, |limits| {
            limits.max_requests = Some(2);
            limits.sessions = 1;
        });
        let places = join_all(&mut machine, [1, 2, 3]);
        let actions = open(&mut machine, 9, None, now);
        assert_eq!(actions.served.iter().count(), 2);
        assert_eq!(
            machine.retire(1),
            None,
            "its last slot has taken the handle along"
        );
        assert_eq!(machine.wants_dial(now), Some(3), "beside it");
        let _ = machine.release_slot(1, now);
        assert_eq!(served(&mut machine, places[2], now), None);
        let _ = open(&mut machine, 9, None, now);
        assert_eq!(served(&mut machine, places[2], now), Some(Ok(200)));
        machine.check(now).unwrap();
    }

    /// Between the look and the line a connection's time may end.
    #[test]
    fn who_joins_is_not_lent_what_has_expired() {
        for again in [false, true] {
            let (mut machine, now) = machine(None);
            for connection in 1..=3 {
                lend(&mut machine, connection, now);
            }
            let place = join(&mut machine, 10);
            let _ = machine.release(1, now, later(now, 5));
            assert_eq!(outcome(&mut machine, place, now), Some(Ok(1)));
            for (connection, until) in [(2, 6), (3, 5)] {
                let _ = machine.release(connection, now, later(now, until));
            }
            let mut expired = Vec::new();
            let at = later(now, 5);
            let place = if again {
                machine.enqueue_again(place, Want::Any, at, &mut expired);
                place
            } else {
                machine.enqueue(11, Want::Any, at, &mut expired).unwrap()
            };
            assert_eq!(expired, [3]);
            assert_eq!(served(&mut machine, place, at), Some(Ok(2)));
        }
    }

    /// R-H2-4: no streams at all is full, and no reason to dial beyond the limit, unless somebody wants a newer one.
    #[test]
    fn no_streams_at_all_is_full() {
        for (want, dials) in [
            (Want::Any, 0),
            (Want::NewerThan(0), 0),
            (Want::NewerThan(1), 1),
        ] {
            let (mut machine, now) = limited(Spoken::Http2, |limits| limits.sessions = 1);
            let _ = open(&mut machine, 5, None, now);
            let _ = machine.set_max_streams(1, 0, now);
            let place = enqueue(&mut machine, 1, want).unwrap();
            assert_eq!(pump(&mut machine, now).len(), dials, "{want:?}");
            machine.check(now).unwrap();
            let served_by = |want| {
                if want == Want::NewerThan(1) {
                    None
                } else {
                    Some(Ok(100))
                }
            };
            let _ = machine.set_max_streams(1, 1, now);
            assert_eq!(
                served(&mut machine, place, now),
                served_by(want),
                "{want:?}"
            );
            machine.check(now).unwrap();
        }
    }

    /// The session on which all counted ends: they are dialled for, however many dials had been given up for it.
    #[test]
    fn who_counted_on_a_session_that_ends_is_dialled_for() {
        let (mut machine, now) = limited(Spoken::Http2, |limits| limits.sessions = 1);
        let _ = open(&mut machine, 1, None, now);
        assert_eq!(take_slot(&mut machine, now), Some(1));
        let _places = join_all(&mut machine, [1, 2]);
        assert_eq!(machine.wants_dial(now), None, "they wait for its slot");
        assert_eq!(machine.retire(1), Some('s'));
        assert_eq!(machine.wants_dial(now), Some(1));
        let dials = pump(&mut machine, now);
        assert_eq!(machine.session_gone(1), None);
        machine.closed();
        let actions = http2(&mut machine, dials[0], 1, now);
        assert_eq!(
            (actions.opened, actions.served.iter().count()),
            (Some(2), 1)
        );
        machine.check(now).unwrap();
    }

    #[test]
    fn a_closed_pool_keeps_no_session() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let id = machine.begin_dial(now);
        let _ = machine.close(&"closed");
        assert!(!machine.needs_session(now));
        let actions = http2(&mut machine, id, 9, now);
        assert_eq!((actions.opened, actions.retired), (None, vec!['s']));
        assert!(!machine.wants_spare_dial(now));
    }
}
