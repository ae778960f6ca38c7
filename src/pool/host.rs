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

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use super::actions::{
    Actions, Candidate, Census, Evicted, HostLimits, Lent, Newcomer, NextLook, Progress, Refusal,
    Served, Spoken, Want,
};
use super::line::Line;
pub(crate) use super::line::{Place, Ticket};
pub(crate) use super::sessions::SessionId;
use super::sessions::Sessions;

/// Names a dial of one origin.
pub(crate) type DialId = u64;

/// What one origin holds.
#[derive(Debug)]
pub(crate) struct HostPool<C, S, E> {
    limits: HostLimits,
    open: bool,
    spoken: Spoken,
    /// Oldest first; the newest is lent first, because its path is warm and the others may expire.
    idle: VecDeque<Idle<C>>,
    sessions: Sessions<S>,
    line: Line<Waiter, Result<Lent<C, S>, E>>,
    /// Those in line for whom no dial was started: who would be the cause of the next one.
    without_dial: BTreeMap<Ticket, Place>,
    dials: Vec<Dial>,
    next_dial: DialId,
    /// Permits of this origin that are out: dialling, lent, served, idle, and sessions.
    count: usize,
    undialled: Duration,
    undialled_since: Option<Instant>,
    /// When a connection of this origin last proved dead in use.
    stale: Option<Instant>,
    /// Whether a reaper knows that there is something new to look at.
    watched: bool,
}

#[derive(Debug)]
struct Waiter {
    want: Want,
    waker: Option<Waker>,
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

#[derive(Debug)]
struct Dial {
    id: DialId,
    /// The waiter for whom it was started, which another connection may serve first. `None`: it is for all who wait.
    cause: Option<Place>,
    started: Instant,
}

impl<C, S, E> HostPool<C, S, E> {
    pub(crate) fn new(limits: HostLimits, spoken: Spoken, now: Instant) -> Self {
        Self {
            limits,
            open: true,
            spoken,
            idle: VecDeque::new(),
            sessions: Sessions::new(),
            line: Line::new(),
            without_dial: BTreeMap::new(),
            dials: Vec::new(),
            next_dial: 0,
            count: 0,
            undialled: Duration::ZERO,
            undialled_since: Some(now),
            stale: None,
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
        if let Some((id, session)) = self.sessions.take_slot() {
            return Some(Candidate {
                lent: Lent::Slot(id, session),
                idle_for: Duration::ZERO,
                doubtful,
            });
        }
        while let Some(idle) = self.idle.pop_back() {
            if now < idle.until {
                return Some(Candidate {
                    lent: Lent::Connection(idle.connection),
                    idle_for: now.saturating_duration_since(idle.since),
                    doubtful,
                });
            }
            expired.push(idle.connection);
        }
        None
    }

    /// Puts a waiter into line. A connection that came free since the waiter looked is his at once.
    pub(crate) fn enqueue(&mut self, ticket: Ticket, want: Want) -> Result<Place, Refusal>
    where
        S: Clone,
    {
        if !self.open {
            return Err(Refusal::Closed);
        }
        if self.limits.line.is_some_and(|max| self.line.len() >= max) {
            return Err(Refusal::Full);
        }
        let place = self.line.join(ticket, Waiter { want, waker: None });
        self.settle_in(place, want);
        Ok(place)
    }

    /// Puts a waiter back at its place, after what it was served proved dead.
    pub(crate) fn enqueue_again(&mut self, place: Place, want: Want)
    where
        S: Clone,
    {
        self.line.rejoin(place, Waiter { want, waker: None });
        self.settle_in(place, want);
    }

    /// Serves who has just come with what is free, or remembers that nobody dials for him yet.
    fn settle_in(&mut self, place: Place, want: Want)
    where
        S: Clone,
    {
        let free = match want {
            Want::New => None,
            Want::Any => match self.sessions.take_slot() {
                Some((id, session)) => Some(Lent::Slot(id, session)),
                None => {
                    let newest = self.idle.pop_back();
                    newest.map(|idle| Lent::Connection(idle.connection))
                }
            },
        };
        match free {
            // Nobody sleeps at this place yet, so there is nobody to wake.
            Some(lent) => drop(self.line.serve(place, Ok(lent))),
            None => drop(self.without_dial.insert(place.ticket, place)),
        }
    }

    /// What became of a waiter; if nothing yet, `waker` is woken when it does.
    pub(crate) fn poll(&mut self, place: Place, waker: &Waker, now: Instant) -> Progress<C, S, E> {
        if let Some(outcome) = self.line.take(place) {
            return Progress::Served(outcome);
        }
        if let Some(waiter) = self.line.waiter_mut(place) {
            match &mut waiter.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
        Progress::Waiting {
            dialling: self.dials.first().map(|dial| (dial.id, dial.started)),
            undialled: self.undialled(now),
            hedge_at: self.hedge_at(),
        }
    }

    /// Takes a waiter out, wherever it is. What it had been served is the caller's to use or to release.
    pub(crate) fn leave(&mut self, place: Place) -> Option<Result<Lent<C, S>, E>> {
        self.without_dial.remove(&place.ticket);
        self.line.leave(place)
    }

    /// Who has waited longest.
    pub(crate) fn first_in_line(&self) -> Option<Ticket> {
        self.line.first().map(|place| place.ticket)
    }

    /// The waiter for whom another dial should start, if the line calls for more dials than run and the limit allows.
    pub(crate) fn wants_dial(&self, now: Instant) -> Option<Ticket> {
        if !self.may_dial() || self.dials.len() >= self.wanted_dials(now) {
            return None;
        }
        match self.spoken {
            Spoken::Http1 => self.without_dial.keys().next().copied(),
            Spoken::Unknown | Spoken::Http2 => self.first_in_line(),
        }
    }

    fn may_dial(&self) -> bool {
        self.open && self.limits.connections.is_none_or(|max| self.count < max)
    }

    /// How many dials should run: one for each who waits; with sessions, as many as carry them (spec pool R-DIAL-2); while the
    /// protocol is unknown one, and one more for each hedge that has passed (R-ALPN-1).
    fn wanted_dials(&self, now: Instant) -> usize {
        let waiting = self.line.len();
        match self.spoken {
            Spoken::Http1 => waiting,
            Spoken::Http2 => {
                let room = self.limits.sessions.saturating_sub(self.sessions.trusted());
                waiting.div_ceil(self.sessions.expected_streams()).min(room)
            }
            Spoken::Unknown => {
                let hedges = self.dials.first().map_or(0, |oldest| {
                    let due = |hedge: &u32| self.hedge_time(oldest, *hedge) <= now;
                    (1..=MAX_HEDGES).take_while(due).count()
                });
                waiting.min(1 + hedges)
            }
        }
    }

    /// When the next hedge is due, if one may still come. It is slept for, so it may not stay due while no dial can start.
    fn hedge_at(&self) -> Option<Instant> {
        let running = self.dials.len();
        let may = self.spoken == Spoken::Unknown && running < self.line.len() && self.may_dial();
        let next = u32::try_from(running)
            .ok()
            .filter(|next| *next <= MAX_HEDGES && may)?;
        Some(self.hedge_time(self.dials.first()?, next))
    }

    fn hedge_time(&self, oldest: &Dial, hedge: u32) -> Instant {
        let after = self.limits.hedge.checked_mul(hedge).unwrap_or(FAR);
        oldest.started + after.min(FAR)
    }

    /// A dial begins, with a permit.
    pub(crate) fn begin_dial(&mut self, now: Instant) -> DialId {
        self.undialled = self.undialled(now);
        self.undialled_since = None;
        self.count += 1;
        self.next_dial += 1;
        let cause = match self.spoken {
            Spoken::Http1 => self.without_dial.pop_first().map(|(_, place)| place),
            Spoken::Unknown | Spoken::Http2 => None,
        };
        self.dials.push(Dial {
            id: self.next_dial,
            cause,
            started: now,
        });
        self.next_dial
    }

    /// Whether a dial that turns out to speak HTTP/2 should go on to open a session: not if an open one has room for everybody
    /// who waits (spec pool R-ALPN-3).
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "TLS offers http/1.1 alone so far")
    )]
    pub(crate) fn needs_session(&self) -> bool {
        self.sessions.trusted() == 0 || self.sessions.free_slots() < self.line.len().max(1)
    }

    /// A dial has made a connection: it goes to the first in line (late binding), else it is idle. A session goes to all it can
    /// carry. What it speaks is what the next dials expect.
    pub(crate) fn dialled(
        &mut self,
        id: DialId,
        newcomer: Newcomer<C, S>,
        now: Instant,
        until: Instant,
    ) -> Actions<C>
    where
        S: Clone,
    {
        self.end_dial(id, now);
        match newcomer {
            Newcomer::Http1(connection) => {
                self.speaks(Spoken::Http1);
                let first = self.line.first();
                self.serve(first, connection, now, until)
            }
            Newcomer::Http2 {
                session,
                max_streams,
            } => {
                self.speaks(Spoken::Http2);
                let mut actions = Actions::default();
                if self.open {
                    let new = self.sessions.add(session, max_streams, now, None);
                    // From this one alone: who wants any connection waits only while the older ones are full.
                    while let Some(place) = self.line.first() {
                        let Some((id, session)) = self.sessions.take_slot_of(new) else {
                            break;
                        };
                        self.hand_over(place, Ok(Lent::Slot(id, session)), &mut actions);
                    }
                    actions.watch = !std::mem::replace(&mut self.watched, true);
                }
                actions
            }
        }
    }

    /// What the origin turned out to speak. Those for whom nobody dials by name now are in need of a dial again.
    fn speaks(&mut self, spoken: Spoken) {
        if std::mem::replace(&mut self.spoken, spoken) == spoken {
            return;
        }
        self.without_dial = self
            .line
            .iter()
            .map(|(place, _)| (place.ticket, place))
            .collect();
        for dial in &self.dials {
            // The same ticket at another place is another try, which has not caused this dial.
            if let Some(cause) = dial.cause {
                if self.without_dial.get(&cause.ticket) == Some(&cause) {
                    self.without_dial.remove(&cause.ticket);
                }
            }
        }
    }

    /// A dial has failed: the waiter that caused it hears of it, if it still waits. One that was for all fails all, unless
    /// another still runs for them or a session will serve them in turn (spec pool R-DIAL-5).
    pub(crate) fn dial_failed(&mut self, id: DialId, error: E, now: Instant) -> Actions<C>
    where
        E: Clone,
    {
        let mut actions = Actions::default();
        let Some(dial) = self.end_dial(id, now) else {
            return actions;
        };
        match dial.cause {
            Some(cause) => self.hand_over(cause, Err(error), &mut actions),
            None if self.sessions.trusted() > 0 => {
                // The line moves on without it. Failing one of them keeps a dead peer from being dialled for ever.
                if let Some(first) = self.line.first() {
                    self.hand_over(first, Err(error), &mut actions);
                }
            }
            None if self.dials.is_empty() => {
                while let Some(first) = self.line.first() {
                    self.hand_over(first, Err(error.clone()), &mut actions);
                }
            }
            None => {}
        }
        actions
    }

    /// A dial has gone without an outcome, or with one that is not needed.
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "TLS offers http/1.1 alone so far")
    )]
    pub(crate) fn dial_dropped(&mut self, id: DialId, now: Instant) {
        self.end_dial(id, now);
    }

    /// Who caused the dial and waits on is without one again, until he is served: by what it made, or with its error.
    fn end_dial(&mut self, id: DialId, now: Instant) -> Option<Dial> {
        let at = self.dials.iter().position(|dial| dial.id == id)?;
        let dial = self.dials.remove(at);
        if self.dials.is_empty() {
            self.undialled_since = Some(now);
        }
        if let Some(cause) = dial.cause {
            if self.line.waiter_mut(cause).is_some() {
                self.without_dial.insert(cause.ticket, cause);
            }
        }
        Some(dial)
    }

    /// A connection has come free.
    pub(crate) fn release(&mut self, connection: C, now: Instant, until: Instant) -> Actions<C> {
        let first = self.first_who_wants_any();
        self.serve(first, connection, now, until)
    }

    /// Hands a connection to a waiter; with none it is idle, or closed if it may not be.
    fn serve(
        &mut self,
        first: Option<Place>,
        connection: C,
        now: Instant,
        until: Instant,
    ) -> Actions<C> {
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

    /// Who has waited longest among those whom an old connection serves as well.
    fn first_who_wants_any(&self) -> Option<Place> {
        self.line
            .iter()
            .find(|(_, waiter)| waiter.want == Want::Any)
            .map(|(place, _)| place)
    }

    fn hand_over(
        &mut self,
        place: Place,
        outcome: Result<Lent<C, S>, E>,
        actions: &mut Actions<C>,
    ) {
        if let Ok(waiter) = self.line.serve(place, outcome) {
            self.without_dial.remove(&place.ticket);
            actions.served.push(Served {
                ticket: place.ticket,
                waker: waiter.waker,
            });
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
        self.sessions
            .retire_old(now, now.checked_sub(self.limits.session_idle))
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
    pub(crate) fn put_back(&mut self, suspect: Idle<C>, now: Instant) -> Actions<C> {
        if suspect.until <= now {
            return Actions {
                close: Some(suspect.connection),
                ..Actions::default()
            };
        }
        let wanted = self.first_who_wants_any().is_some() || self.is_in_the_way(now);
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
    pub(crate) fn next_look(&mut self) -> NextLook {
        self.watched = self.idle.iter().any(|idle| !idle.armed);
        if self.watched {
            return NextLook::Soon;
        }
        let session = self
            .sessions
            .oldest_idle()
            .and_then(|since| since.checked_add(self.limits.session_idle));
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
    pub(crate) fn close(&mut self, error: &E) -> Actions<C>
    where
        E: Clone,
    {
        self.open = false;
        let mut actions = Actions::default();
        while let Some(first) = self.line.first() {
            self.hand_over(first, Err(error.clone()), &mut actions);
        }
        actions
    }

    pub(crate) fn census(&self) -> Census {
        Census {
            count: self.count,
            idle: self.idle.len() + self.sessions.idle(),
            dialling: self.dials.len(),
            waiting: self.line.len(),
            served: self.line.served(),
            sessions: self.sessions.len(),
            streams: self.sessions.streams(),
        }
    }

    /// The invariants of spec pool R-OBJ-6, as far as one origin can see them.
    pub(crate) fn check(&self) -> Result<(), String> {
        let census = self.census();
        let (mut connections, mut slots) = (0, 0);
        for lent in self.line.outcomes().flatten() {
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
        let somebody_waits = self.first_who_wants_any().is_some();
        if somebody_waits && (!self.idle.is_empty() || self.sessions.free_slots() > 0) {
            return Err(format!(
                "a connection is idle while somebody waits: {census:?}"
            ));
        }
        if self
            .limits
            .connections
            .is_some_and(|max| census.count > max)
        {
            return Err(format!("over the limit of the origin: {census:?}"));
        }
        let forgotten = self
            .without_dial
            .values()
            .any(|place| !self.line.iter().any(|(waiting, _)| waiting == *place));
        if forgotten {
            return Err(format!("a dial would start for nobody: {census:?}"));
        }
        Ok(())
    }

    /// Time so far in which no dial ran; only differences mean anything.
    pub(crate) fn undialled(&self, now: Instant) -> Duration {
        let running = self
            .undialled_since
            .map(|since| now.saturating_duration_since(since));
        self.undialled + running.unwrap_or_default()
    }
}

/// What happens to sessions after they were opened.
#[cfg_attr(
    not(test),
    allow(dead_code, reason = "TLS offers http/1.1 alone so far")
)]
impl<C, S: Clone, E> HostPool<C, S, E> {
    /// A stream is done: its slot goes to the first in line.
    pub(crate) fn release_slot(&mut self, id: SessionId, now: Instant) -> Actions<C> {
        let was_last = self.sessions.free_slot(id, now);
        let mut actions = self.slots_changed();
        actions.watch = was_last && !std::mem::replace(&mut self.watched, true);
        actions
    }

    /// The peer allows another number of streams (spec pool R-H2-4).
    pub(crate) fn set_max_streams(&mut self, id: SessionId, max_streams: usize) -> Actions<C> {
        self.sessions.set_max_streams(id, max_streams);
        self.slots_changed()
    }

    /// Whether it is doubted that the peer is still there (spec pool R-H2-7).
    pub(crate) fn set_suspect(&mut self, id: SessionId, suspect: bool) -> Actions<C> {
        self.sessions.set_suspect(id, suspect);
        self.slots_changed()
    }

    /// The session gets no new streams (spec pool R-H2-6). The handle is to be dropped once the lock is released.
    pub(crate) fn retire(&mut self, id: SessionId) -> Option<S> {
        self.sessions.retire(id)
    }

    /// The session has ended; its permit comes back apart from this.
    pub(crate) fn session_gone(&mut self, id: SessionId) -> Option<S> {
        self.sessions.gone(id)
    }

    fn slots_changed(&mut self) -> Actions<C> {
        let mut actions = Actions::default();
        while let Some(place) = self.first_who_wants_any() {
            let Some((id, session)) = self.sessions.take_slot() else {
                break;
            };
            self.hand_over(place, Ok(Lent::Slot(id, session)), &mut actions);
        }
        actions
    }
}

/// Dials that may join the first one while the protocol is unknown.
const MAX_HEDGES: u32 = 3;

/// How long an origin of which a connection proved dead in use is looked at more closely (spec pool R-LIVE-3).
const DOUBT: Duration = Duration::from_secs(60);

/// Stands in for a time that the clock cannot express.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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

    fn join(machine: &mut Machine, ticket: Ticket) -> Place {
        machine.enqueue(ticket, Want::Any).unwrap()
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

    fn http1(machine: &mut Machine, id: DialId, connection: u32, now: Instant) -> Actions<u32> {
        machine.dialled(id, Newcomer::Http1(connection), now, later(now, 5))
    }

    fn http2(machine: &mut Machine, id: DialId, max_streams: usize, now: Instant) -> Actions<u32> {
        let newcomer = Newcomer::Http2 {
            session: 's',
            max_streams,
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
        machine.check().unwrap();
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
        machine.check().unwrap();
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
        machine.enqueue_again(first, Want::Any);
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
        machine.check().unwrap();
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
        let new = machine.enqueue(10, Want::New).unwrap();
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
        machine.check().unwrap();
    }

    /// Its room is needed for the new one.
    #[test]
    fn an_old_connection_closes_for_who_wants_a_new_one_at_the_limit() {
        let (mut machine, now) = machine(Some(2));
        lend(&mut machine, 1, now);
        lend(&mut machine, 2, now);
        let new = machine.enqueue(10, Want::New).unwrap();
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
        machine.check().unwrap();
    }

    #[test]
    fn a_full_line_refuses() {
        let (mut machine, _) = machine(Some(1));
        for ticket in 1..=9 {
            assert!(machine.enqueue(ticket, Want::Any).is_ok());
        }
        assert_eq!(machine.enqueue(10, Want::Any), Err(Refusal::Full));
    }

    #[test]
    fn a_closed_pool_serves_errors_and_keeps_nothing() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        let place = join(&mut machine, 10);
        let _ = machine.close(&"closed");
        assert_eq!(served(&mut machine, place, now), Some(Err("closed")));
        assert_eq!(machine.enqueue(11, Want::Any), Err(Refusal::Closed));
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
        assert_eq!(machine.next_look(), NextLook::Soon);
        assert!(
            machine
                .take_suspects(|idle| std::mem::replace(&mut idle.armed, true))
                .is_empty()
        );
        assert_eq!(machine.next_look(), NextLook::At(later(now, 5)));
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
        assert_eq!(machine.next_look(), NextLook::Never);
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
        machine.check().unwrap();
        let _ = machine.release_slot(1, now);
        assert_eq!(served(&mut machine, places[4], now), Some(Ok(100)));
        assert_eq!(machine.census().streams, 4);
        machine.check().unwrap();
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
        machine.check().unwrap();
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
        machine.check().unwrap();
    }

    /// R-ALPN-3 and pool.md test 31.
    #[test]
    fn what_an_origin_speaks_may_change() {
        let (mut machine, now) = speaking(Spoken::Http1, None);
        let places = join_all(&mut machine, [1, 2, 3]);
        let dials = pump(&mut machine, now);
        assert_eq!(dials.len(), 3);
        assert!(machine.needs_session());
        let _ = http2(&mut machine, dials[0], 9, now);
        for place in places {
            assert_eq!(served(&mut machine, place, now), Some(Ok(100)));
        }
        assert!(!machine.needs_session(), "one session is enough");
        machine.dial_dropped(dials[1], now);
        machine.closed();
        machine.check().unwrap();
        // And back: the next dial finds HTTP/1.1, and everybody in line is dialled for.
        assert_eq!(machine.retire(1), Some('s'));
        let places = join_all(&mut machine, [4, 5, 6]);
        let _ = http1(&mut machine, dials[2], 7, now);
        assert_eq!(served(&mut machine, places[0], now), Some(Ok(7)));
        assert_eq!(pump(&mut machine, now).len(), 2);
        machine.check().unwrap();
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
        machine.check().unwrap();
    }

    /// R-H2-4 and pool.md test 33: zero streams allowed is full, not dead.
    #[test]
    fn the_peer_may_change_how_many_streams_it_takes() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let places = join_all(&mut machine, [1, 2, 3, 4]);
        let dials = pump(&mut machine, now);
        let _ = http2(&mut machine, dials[0], 1, now);
        assert!(machine.set_max_streams(1, 0).served.is_empty());
        let _ = machine.release_slot(1, now);
        assert_eq!(machine.census().waiting, 3);
        assert_eq!(machine.set_max_streams(1, 2).served.iter().count(), 2);
        assert_eq!(served(&mut machine, places[1], now), Some(Ok(100)));
        assert_eq!(machine.census().waiting, 1);
        machine.check().unwrap();
    }

    /// R-H2-7: a suspect session may be replaced beyond the limit on sessions.
    #[test]
    fn a_suspect_session_is_replaced() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let first = join(&mut machine, 1);
        let dials = pump(&mut machine, now);
        let _ = http2(&mut machine, dials[0], 9, now);
        assert_eq!(served(&mut machine, first, now), Some(Ok(100)));
        let _ = machine.set_suspect(1, true);
        let second = join(&mut machine, 2);
        assert_eq!(pump(&mut machine, now).len(), 1);
        let _ = machine.set_suspect(1, false);
        assert_eq!(served(&mut machine, second, now), Some(Ok(100)));
        machine.check().unwrap();
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
        machine.check().unwrap();
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
            assert_eq!(machine.next_look(), NextLook::At(later(now, 55)));
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
        let new = machine.enqueue(2, Want::New).unwrap();
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
        assert_eq!(machine.next_look(), NextLook::Never);
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
        assert_eq!(machine.next_look(), NextLook::Never);
        assert!(!machine.unwatch(), "a session is open");
        assert!(machine.release_slot(1, now).watch);
        assert_eq!(machine.next_look(), NextLook::At(later(now, 55)));
    }

    #[test]
    fn a_session_may_end_before_its_stream_is_taken() {
        let (mut machine, now) = speaking(Spoken::Http2, None);
        let first = join(&mut machine, 1);
        let dials = pump(&mut machine, now);
        let _ = http2(&mut machine, dials[0], 5, now);
        assert_eq!(machine.session_gone(1), Some('s'));
        machine.closed();
        machine.check().unwrap();
        assert_eq!(served(&mut machine, first, now), Some(Ok(100)));
        let _ = machine.release_slot(1, now);
        assert_eq!(machine.census(), Census::default());
    }
}
