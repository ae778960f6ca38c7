//! The pool of one origin as the rules say it, in plain lists that are searched from end to end (spec pool 3.4 to 3.7, 3.10).
//!
//! It is slow and has no cleverness, so that it can be read as the rules are: what it answers is what the machine has to answer.
//! It knows nothing of how the machine is built, but for two choices that the rules leave open and that only one of them can make:
//! the names of places and dials, which it is told, and which of two sessions that were never used comes first.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::host::{
    Census, DialId, HostLimits, Lent, NextLook, Place, Refusal, SessionId, Spoken, Ticket, Want,
};

/// What a waiter is served: connections, sessions and errors are numbers.
pub(super) type Outcome = Result<Lent<u32, u32>, u32>;

/// One origin.
pub(super) struct Model {
    pub(super) limits: HostLimits,
    pub(super) now: Instant,
    pub(super) open: bool,
    pub(super) spoken: Spoken,
    /// Everybody who has joined and not left, in no order.
    pub(super) seats: Vec<Seat>,
    /// The one that became idle first stands first.
    pub(super) idle: Vec<Resting>,
    pub(super) sessions: Vec<Session>,
    /// The one that began first stands first.
    pub(super) dials: Vec<Dial>,
    /// Permits that are out.
    pub(super) count: usize,
    /// How often each waker has to have been woken.
    pub(super) wakes: Vec<usize>,
    sessions_made: SessionId,
    slots_lent: u64,
    expected_streams: usize,
    /// Time in which no dial ran.
    undialled: Duration,
    stale: Option<Instant>,
}

/// Somebody who came to wait.
pub(super) struct Seat {
    pub(super) place: Place,
    pub(super) state: State,
    want: Want,
    /// Whether a dial that was started for it since it joined still runs.
    dialled_for: bool,
    waker: Option<usize>,
}

/// How somebody who came to wait stands.
pub(super) enum State {
    Waiting,
    /// It lies at his place.
    Served(Outcome),
    /// He has it, and his place still.
    Taken,
}

/// An idle connection.
#[derive(Clone, Copy)]
pub(super) struct Resting {
    pub(super) connection: u32,
    pub(super) since: Instant,
    pub(super) until: Instant,
    pub(super) armed: bool,
}

/// An HTTP/2 session that has not ended.
pub(super) struct Session {
    pub(super) id: SessionId,
    /// `None` when it takes no new streams any more.
    pub(super) handle: Option<u32>,
    pub(super) active: usize,
    max_streams: usize,
    suspect: bool,
    /// The number of the last slot that it lent; 0 is never.
    last_use: u64,
    pub(super) idle_since: Option<Instant>,
}

/// A dial that runs.
#[derive(Clone, Copy)]
pub(super) struct Dial {
    pub(super) id: DialId,
    cause: Option<Place>,
    started: Instant,
}

/// What an event leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// Who was served, in order.
    pub(super) served: Vec<Ticket>,
    pub(super) close: Option<u32>,
}

/// What a caller finds that looks for something free.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) lent: Lent<u32, u32>,
    pub(super) idle_for: Duration,
    pub(super) doubtful: bool,
}

/// How a waiter stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Served(Outcome),
    Waiting {
        dialling: Option<(DialId, Instant)>,
        undialled: Duration,
        hedge_at: Option<Instant>,
    },
}

/// What was taken out to make room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Connection(u32),
    Session(u32),
}

impl Model {
    /// Nothing is open, and nobody waits.
    pub(super) fn new(limits: HostLimits, spoken: Spoken, now: Instant) -> Self {
        Self {
            limits,
            now,
            open: true,
            spoken,
            seats: Vec::new(),
            idle: Vec::new(),
            sessions: Vec::new(),
            dials: Vec::new(),
            count: 0,
            wakes: Vec::new(),
            sessions_made: 0,
            slots_lent: 0,
            expected_streams: 100,
            undialled: Duration::ZERO,
            stale: None,
        }
    }

    /// Ruling 4: the pool's clock stands while a dial runs.
    pub(super) fn advance(&mut self, step: Duration) {
        self.now += step;
        if self.dials.is_empty() {
            self.undialled += step;
        }
    }

    /// R-LIVE-3.
    pub(super) fn saw_stale(&mut self) {
        self.stale = Some(self.now);
    }

    /// Spec pool 3.4: a free slot, else the newest idle connection that has not expired; nothing while somebody waits who
    /// would take it. Also answers which had expired.
    pub(super) fn checkout(&mut self) -> (Option<Found>, Vec<u32>) {
        let mut expired = Vec::new();
        if self.first(Some(Want::Any)).is_some() {
            return (None, expired);
        }
        let doubtful = self
            .stale
            .is_some_and(|stale| self.now < stale + Duration::from_secs(60));
        let found = |lent, idle_for| Found {
            lent,
            idle_for,
            doubtful,
        };
        if let Some(at) = self.best_session() {
            let slot = self.lend_slot(at);
            return (Some(found(slot, Duration::ZERO)), expired);
        }
        while let Some(newest) = self.idle.pop() {
            if self.now < newest.until {
                let lent = Lent::Connection(newest.connection);
                return (Some(found(lent, self.now - newest.since)), expired);
            }
            expired.push(newest.connection);
        }
        (None, expired)
    }

    /// Whether a further waiter would be turned away.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        if !self.open {
            return Some(Refusal::Closed);
        }
        let full = self.limits.line.is_some_and(|max| self.waiting() >= max);
        full.then_some(Refusal::Full)
    }

    /// Somebody takes a place, and at once what is free, if an old connection will do.
    pub(super) fn join(&mut self, place: Place, want: Want) {
        self.seats.push(Seat {
            place,
            state: State::Waiting,
            want,
            dialled_for: false,
            waker: None,
        });
        self.settle(self.seats.len() - 1);
    }

    /// R-Q-3: somebody waits again at the place he had.
    pub(super) fn join_again(&mut self, at: usize, want: Want) {
        let seat = &mut self.seats[at];
        seat.state = State::Waiting;
        seat.want = want;
        seat.dialled_for = false;
        seat.waker = None;
        self.settle(at);
    }

    fn settle(&mut self, at: usize) {
        if self.seats[at].want == Want::New {
            return;
        }
        let free = match self.best_session() {
            Some(session) => Some(self.lend_slot(session)),
            None => self
                .idle
                .pop()
                .map(|idle| Lent::Connection(idle.connection)),
        };
        if let Some(lent) = free {
            self.seats[at].state = State::Served(Ok(lent));
        }
    }

    /// What became of a waiter. Who has been served takes it; who has not is woken by `waker` from now on.
    pub(super) fn poll(&mut self, at: usize, waker: usize) -> Standing {
        let hedge_at = self.hedge_at();
        let seat = &mut self.seats[at];
        match std::mem::replace(&mut seat.state, State::Taken) {
            State::Served(outcome) => return Standing::Served(outcome),
            State::Waiting => {
                seat.state = State::Waiting;
                seat.waker = Some(waker);
            }
            State::Taken => {}
        }
        Standing::Waiting {
            dialling: self.dials.first().map(|dial| (dial.id, dial.started)),
            undialled: self.undialled,
            hedge_at,
        }
    }

    /// R-Q-2: who leaves hands back what he was served and has not taken.
    pub(super) fn leave(&mut self, at: usize) -> Option<Outcome> {
        match self.seats.remove(at).state {
            State::Served(outcome) => Some(outcome),
            State::Waiting | State::Taken => None,
        }
    }

    /// R-DIAL-2: whether another dial should start, and for whom.
    pub(super) fn wants_dial(&self) -> Option<Ticket> {
        let wanted = self.dials.len() < self.wanted_dials(self.now);
        if !wanted || !self.has_room() {
            return None;
        }
        match self.spoken {
            Spoken::Http1 => {
                let undialled = self.oldest(|seat| !seat.dialled_for);
                let at = undialled.expect("fewer dials run than wait, so somebody has none");
                Some(self.seats[at].place.ticket)
            }
            Spoken::Unknown | Spoken::Http2 => self.first_in_line(),
        }
    }

    /// An old connection takes up the room of a new one that somebody waits for.
    fn is_in_the_way(&self) -> bool {
        let full = self.limits.connections.is_some_and(|max| self.count >= max);
        full && self.dials.len() < self.wanted_dials(self.now)
    }

    fn has_room(&self) -> bool {
        self.open && self.limits.connections.is_none_or(|max| self.count < max)
    }

    /// How many dials should run at a moment.
    fn wanted_dials(&self, at: Instant) -> usize {
        let waiting = self.waiting();
        match self.spoken {
            Spoken::Http1 => waiting,
            Spoken::Http2 => {
                let mut needed = 0;
                while needed * self.expected_streams < waiting {
                    needed += 1;
                }
                needed.min(self.limits.sessions.saturating_sub(self.trusted()))
            }
            Spoken::Unknown => {
                let mut wanted = 1;
                if let Some(oldest) = self.dials.first() {
                    for hedge in 1..=3 {
                        if oldest.started + self.limits.hedge * hedge <= at {
                            wanted += 1;
                        }
                    }
                }
                wanted.min(waiting)
            }
        }
    }

    /// R-ALPN-1: the first moment at which the passing of time alone calls for another dial. Whoever waits sleeps until then, so
    /// a moment at which no dial may start would be slept for in vain, again and again.
    fn hedge_at(&self) -> Option<Instant> {
        if self.spoken != Spoken::Unknown || !self.has_room() {
            return None;
        }
        let oldest = self.dials.first()?;
        (1..=3)
            .map(|hedge| oldest.started + self.limits.hedge * hedge)
            .find(|at| self.dials.len() < self.wanted_dials(*at))
    }

    /// A dial begins for whoever [`wants_dial`](Self::wants_dial) named.
    pub(super) fn begin_dial(&mut self, id: DialId) {
        let mut cause = None;
        if self.spoken == Spoken::Http1 {
            if let Some(at) = self.oldest(|seat| !seat.dialled_for) {
                self.seats[at].dialled_for = true;
                cause = Some(self.seats[at].place);
            }
        }
        self.count += 1;
        self.dials.push(Dial {
            id,
            cause,
            started: self.now,
        });
    }

    /// R-ALPN-3: whether a session that could be opened now has anybody to serve.
    pub(super) fn needs_session(&self) -> bool {
        let free: usize = self.sessions.iter().map(Session::room).sum();
        self.trusted() == 0 || free == 0 || free < self.waiting()
    }

    /// R-DIAL-3: a new connection goes to the oldest waiter, whoever it was dialled for.
    pub(super) fn dialled_http1(&mut self, id: DialId, connection: u32, until: Instant) -> Done {
        self.end_dial(id);
        self.learn(Spoken::Http1);
        let first = self.first(None);
        self.hand_on(first, connection, until)
    }

    /// A new session serves the line in order, for as long as its streams last. Nobody waits whom an older one could serve, but
    /// for those who want a new one.
    pub(super) fn dialled_http2(&mut self, id: DialId, handle: u32, max_streams: usize) -> Done {
        self.end_dial(id);
        self.learn(Spoken::Http2);
        let mut done = Done::default();
        if !self.open {
            return done;
        }
        self.sessions_made += 1;
        self.expected_streams = max_streams.max(1);
        self.sessions.push(Session {
            id: self.sessions_made,
            handle: Some(handle),
            active: 0,
            max_streams,
            suspect: false,
            last_use: 0,
            idle_since: Some(self.now),
        });
        let newest = self.sessions.len() - 1;
        while let Some(at) = self.first(None) {
            if self.sessions[newest].room() == 0 {
                break;
            }
            let slot = self.lend_slot(newest);
            self.serve(at, Ok(slot), &mut done);
        }
        done
    }

    /// R-DIAL-5.
    pub(super) fn dial_failed(&mut self, id: DialId, error: u32) -> Done {
        let mut done = Done::default();
        let Some(dial) = self.end_dial(id) else {
            return done;
        };
        if let Some(cause) = dial.cause {
            // An error for who caused it, if he still waits; else it is nobody's.
            if let Some(at) = self.oldest(|seat| seat.place == cause) {
                self.serve(at, Err(error), &mut done);
            }
        } else if self.trusted() > 0 {
            if let Some(at) = self.first(None) {
                self.serve(at, Err(error), &mut done);
            }
        } else if self.dials.is_empty() {
            self.fail_all(error, &mut done);
        }
        done
    }

    /// Cancellation is not failure: nobody hears of it (spec pool R-DIAL-5).
    pub(super) fn dial_dropped(&mut self, id: DialId) {
        self.end_dial(id);
    }

    /// Whoever the dial was for, and waits on, has none any more.
    fn end_dial(&mut self, id: DialId) -> Option<Dial> {
        let at = self.dials.iter().position(|dial| dial.id == id)?;
        let dial = self.dials.remove(at);
        for seat in &mut self.seats {
            if dial.cause == Some(seat.place) {
                seat.dialled_for = false;
            }
        }
        Some(dial)
    }

    fn learn(&mut self, spoken: Spoken) {
        if self.spoken == spoken {
            return;
        }
        self.spoken = spoken;
        for seat in &mut self.seats {
            let place = Some(seat.place);
            seat.dialled_for = self.dials.iter().any(|dial| dial.cause == place);
        }
    }

    /// R-DIAL-4 and R-REL-4.
    pub(super) fn release(&mut self, connection: u32, until: Instant) -> Done {
        let first = self.first(Some(Want::Any));
        self.hand_on(first, connection, until)
    }

    fn hand_on(&mut self, first: Option<usize>, connection: u32, until: Instant) -> Done {
        let mut done = Done::default();
        if let Some(at) = first {
            self.serve(at, Ok(Lent::Connection(connection)), &mut done);
        } else if self.open && self.now < until && !self.is_in_the_way() {
            self.idle.push(Resting {
                connection,
                since: self.now,
                until,
                armed: false,
            });
        } else {
            done.close = Some(connection);
        }
        done
    }

    /// R-LIFE-4: whoever waits hears that it is over.
    pub(super) fn close(&mut self, error: u32) -> Done {
        let mut done = Done::default();
        self.open = false;
        self.fail_all(error, &mut done);
        done
    }

    fn fail_all(&mut self, error: u32, done: &mut Done) {
        while let Some(at) = self.first(None) {
            self.serve(at, Err(error), done);
        }
    }

    fn serve(&mut self, at: usize, outcome: Outcome, done: &mut Done) {
        let seat = &mut self.seats[at];
        seat.state = State::Served(outcome);
        done.served.push(seat.place.ticket);
        if let Some(waker) = seat.waker.take() {
            self.wakes[waker] += 1;
        }
    }

    /// R-H2-4: the slot goes to the oldest waiter.
    pub(super) fn release_slot(&mut self, id: SessionId) -> Done {
        let now = self.now;
        if let Some(session) = self.session(id) {
            session.active -= 1;
            if session.active == 0 {
                session.idle_since = Some(now);
            }
        }
        self.lend_what_is_free()
    }

    pub(super) fn set_max_streams(&mut self, id: SessionId, max_streams: usize) -> Done {
        if let Some(session) = self.session(id) {
            session.max_streams = max_streams;
            if max_streams > 0 {
                self.expected_streams = max_streams;
            }
        }
        self.lend_what_is_free()
    }

    pub(super) fn set_suspect(&mut self, id: SessionId, suspect: bool) -> Done {
        if let Some(session) = self.session(id) {
            session.suspect = suspect;
        }
        self.lend_what_is_free()
    }

    fn lend_what_is_free(&mut self) -> Done {
        let mut done = Done::default();
        while let Some(at) = self.first(Some(Want::Any)) {
            let Some(session) = self.best_session() else {
                break;
            };
            let slot = self.lend_slot(session);
            self.serve(at, Ok(slot), &mut done);
        }
        done
    }

    /// R-H2-6: no new streams.
    pub(super) fn retire(&mut self, id: SessionId) -> Option<u32> {
        self.session(id)?.handle.take()
    }

    /// The session has ended, and its streams with it.
    pub(super) fn session_gone(&mut self, id: SessionId) -> Option<u32> {
        let at = self.sessions.iter().position(|session| session.id == id)?;
        // The last takes its place: an order that only decides between sessions that were never used.
        self.sessions.swap_remove(at).handle
    }

    /// R-Q-5: the one that has been idle for longest; a session only if it has been so for longer than any connection.
    pub(super) fn evict(&mut self) -> Option<Victim> {
        let session = self
            .sessions
            .iter_mut()
            .filter(|session| session.is_idle())
            .min_by_key(|session| session.idle_since);
        let connection = self.idle.first().map(|idle| idle.since);
        if let Some(session) = session {
            if connection.is_none_or(|since| session.idle_since < Some(since)) {
                return session.handle.take().map(Victim::Session);
            }
        }
        connection?;
        Some(Victim::Connection(self.idle.remove(0).connection))
    }

    pub(super) fn oldest_idle(&self) -> Option<Instant> {
        let sessions = self.sessions.iter().filter(|session| session.is_idle());
        let sessions = sessions.filter_map(|session| session.idle_since);
        let connections = self.idle.iter().map(|idle| idle.since);
        connections.chain(sessions).min()
    }

    /// Connections and sessions whose time is over.
    pub(super) fn expire(&mut self) -> (Vec<u32>, Vec<u32>) {
        let (now, session_idle) = (self.now, self.limits.session_idle);
        let (kept, expired): (Vec<_>, Vec<_>) = self.idle.iter().partition(|idle| now < idle.until);
        self.idle = kept;
        let sessions = self.retire_those(|session| {
            session
                .idle_since
                .is_some_and(|since| since + session_idle <= now)
        });
        (numbers(&expired), sessions)
    }

    /// Takes out some of the idle connections.
    pub(super) fn take_suspects(&mut self, is_suspect: impl Fn(&mut Resting) -> bool) -> Vec<u32> {
        let (mut kept, mut taken) = (Vec::new(), Vec::new());
        for mut idle in std::mem::take(&mut self.idle) {
            if is_suspect(&mut idle) {
                taken.push(idle);
            } else {
                kept.push(idle);
            }
        }
        self.idle = kept;
        numbers(&taken)
    }

    /// A suspect has proved to be alive: it goes to who came to wait meanwhile, else back to its place. It is not lent once its
    /// time is over.
    pub(super) fn put_back(&mut self, suspect: Resting) -> Done {
        if self.now >= suspect.until {
            return Done {
                close: Some(suspect.connection),
                ..Done::default()
            };
        }
        let first = self.first(Some(Want::Any));
        if first.is_some() || !self.open || self.is_in_the_way() {
            return self.hand_on(first, suspect.connection, suspect.until);
        }
        let older = self.idle.iter().filter(|idle| idle.since <= suspect.since);
        let at = older.count();
        self.idle.insert(at, suspect);
        Done::default()
    }

    pub(super) fn drain_idle(&mut self) -> (Vec<u32>, Vec<u32>) {
        let connections = numbers(&std::mem::take(&mut self.idle));
        (
            connections,
            self.retire_those(|session| session.active == 0),
        )
    }

    pub(super) fn drain_all(&mut self) -> (Vec<u32>, Vec<u32>) {
        let connections = numbers(&std::mem::take(&mut self.idle));
        (connections, self.retire_those(|_| true))
    }

    /// In rising order, because the rules name none.
    fn retire_those(&mut self, old: impl Fn(&Session) -> bool) -> Vec<u32> {
        let old = self.sessions.iter_mut().filter(|session| old(session));
        let mut handles: Vec<_> = old.filter_map(|session| session.handle.take()).collect();
        handles.sort_unstable();
        handles
    }

    /// When the next look at what is idle is due.
    pub(super) fn next_look(&self) -> NextLook {
        if self.idle.iter().any(|idle| !idle.armed) {
            return NextLook::Soon;
        }
        self.next_expiry().map_or(NextLook::Never, NextLook::At)
    }

    /// When something that is idle expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let sessions = self.sessions.iter().filter(|session| session.is_idle());
        let sessions = sessions
            .filter_map(|session| session.idle_since)
            .map(|since| since + self.limits.session_idle);
        let connections = self.idle.iter().map(|idle| idle.until);
        connections.chain(sessions).min()
    }

    pub(super) fn first_in_line(&self) -> Option<Ticket> {
        self.first(None).map(|at| self.seats[at].place.ticket)
    }

    pub(super) fn undialled(&self) -> Duration {
        self.undialled
    }

    pub(super) fn census(&self) -> Census {
        let served = |seat: &&Seat| matches!(seat.state, State::Served(_));
        let idle_sessions = self.sessions.iter().filter(|session| session.is_idle());
        Census {
            count: self.count,
            idle: self.idle.len() + idle_sessions.count(),
            dialling: self.dials.len(),
            waiting: self.waiting(),
            served: self.seats.iter().filter(served).count(),
            sessions: self.sessions.len(),
            streams: self.sessions.iter().map(|session| session.active).sum(),
        }
    }

    fn waiting(&self) -> usize {
        self.seats.iter().filter(|seat| seat.waits()).count()
    }

    /// R-Q-1: the lowest ticket among those who wait, and want that.
    fn first(&self, want: Option<Want>) -> Option<usize> {
        self.oldest(|seat| want.is_none_or(|want| seat.want == want))
    }

    fn oldest(&self, is_meant: impl Fn(&Seat) -> bool) -> Option<usize> {
        let seats = self.seats.iter().enumerate();
        seats
            .filter(|(_, seat)| seat.waits() && is_meant(seat))
            .min_by_key(|(_, seat)| seat.place.ticket)
            .map(|(at, _)| at)
    }

    fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    /// Ruling 12: the session with the fewest streams, among equals the one used last.
    fn best_session(&self) -> Option<usize> {
        let mut best: Option<usize> = None;
        for (at, session) in self.sessions.iter().enumerate() {
            if session.room() == 0 {
                continue;
            }
            let better = best.is_none_or(|best| {
                let best = &self.sessions[best];
                session.active < best.active
                    || (session.active == best.active && session.last_use > best.last_use)
            });
            if better {
                best = Some(at);
            }
        }
        best
    }

    fn lend_slot(&mut self, at: usize) -> Lent<u32, u32> {
        self.slots_lent += 1;
        let session = &mut self.sessions[at];
        session.active += 1;
        session.idle_since = None;
        session.last_use = self.slots_lent;
        Lent::Slot(
            session.id,
            session.handle.expect("a session with room is open"),
        )
    }

    /// Sessions that count against their limit.
    fn trusted(&self) -> usize {
        let trusted = |session: &&Session| session.handle.is_some() && !session.suspect;
        self.sessions.iter().filter(trusted).count()
    }
}

impl Seat {
    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Waiting)
    }
}

impl Session {
    /// Streams that could be opened on it.
    fn room(&self) -> usize {
        if self.handle.is_none() || self.suspect {
            return 0;
        }
        self.max_streams.saturating_sub(self.active)
    }

    /// R-H2-8.
    fn is_idle(&self) -> bool {
        self.handle.is_some() && self.active == 0
    }
}

fn numbers(idle: &[Resting]) -> Vec<u32> {
    idle.iter().map(|idle| idle.connection).collect()
}
