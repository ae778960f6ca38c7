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
    spare_after: Option<Instant>,
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
    lent: u64,
    pub(super) idle_since: Option<Instant>,
    /// Since when it has had more than 16 streams.
    busy_since: Option<Instant>,
    ends: Option<Instant>,
}

/// A dial that runs.
#[derive(Clone, Copy)]
pub(super) struct Dial {
    pub(super) id: DialId,
    cause: Option<Place>,
    /// Nobody called for it.
    spare: bool,
    started: Instant,
}

/// What an event leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// Who was served, in order.
    pub(super) served: Vec<Ticket>,
    pub(super) close: Option<u32>,
    pub(super) retired: Vec<u32>,
    pub(super) opened: Option<SessionId>,
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
            spare_after: None,
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
        if self.first_for_connection().is_some() {
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
        if let Some(at) = self.best_session(0) {
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

    /// Somebody takes a place, and at once what is free and will do. Answers which connections had expired.
    pub(super) fn join(&mut self, place: Place, want: Want) -> Vec<u32> {
        self.seats.push(Seat {
            place,
            state: State::Waiting,
            want: self.seen(want),
            dialled_for: false,
            waker: None,
        });
        self.settle(self.seats.len() - 1)
    }

    /// R-Q-3: somebody waits again at the place he had.
    pub(super) fn join_again(&mut self, at: usize, want: Want) -> Vec<u32> {
        let want = self.seen(want);
        let seat = &mut self.seats[at];
        seat.state = State::Waiting;
        seat.want = want;
        seat.dialled_for = false;
        seat.waker = None;
        self.settle(at)
    }

    /// Nobody can have seen a session that is not there yet.
    fn seen(&self, want: Want) -> Want {
        match want {
            Want::Any => Want::Any,
            Want::NewerThan(id) => Want::NewerThan(id.min(self.sessions_made)),
        }
    }

    fn settle(&mut self, at: usize) -> Vec<u32> {
        let mut expired = Vec::new();
        let want = self.seats[at].want;
        if let Some(session) = self.best_session(oldest_id(want)) {
            let slot = self.lend_slot(session);
            self.seats[at].state = State::Served(Ok(slot));
        } else if want == Want::Any {
            while let Some(newest) = self.idle.pop() {
                if self.now < newest.until {
                    let lent = Lent::Connection(newest.connection);
                    self.seats[at].state = State::Served(Ok(lent));
                    break;
                }
                expired.push(newest.connection);
            }
        }
        expired
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
            Spoken::Unknown => self.first_in_line(),
            Spoken::Http2 if self.dials.len() < self.growth() => self.first_in_line(),
            Spoken::Http2 => {
                let stranded = self.oldest(|seat| self.is_stranded(seat));
                stranded.map(|at| self.seats[at].place.ticket)
            }
        }
    }

    /// http2 rule 5 and R-H2-6: whether a dial should start that nobody waits for. Never beside another, beyond a limit, or soon
    /// after the last of its kind.
    pub(super) fn wants_spare_dial(&self) -> bool {
        let may = self.spoken == Spoken::Http2
            && self.dials.is_empty()
            && self.has_room()
            && self.trusted() < self.limits.sessions
            && self.spare_after.is_none_or(|after| after <= self.now);
        may && (self.are_crowded() || self.is_one_ending())
    }

    /// All sessions, and fewer than the load should be spread over, have had more than 16 streams for more than 100 ms.
    fn are_crowded(&self) -> bool {
        let long = |since: Instant| self.now > since + Duration::from_millis(100);
        let crowded = |session: &&Session| session.busy_since.is_some_and(long);
        let trusted = || {
            self.sessions
                .iter()
                .filter(|session| self.is_trusted(session))
        };
        let spread = self.limits.spread.unwrap_or(0);
        (1..spread).contains(&trusted().count()) && trusted().all(|session| crowded(&session))
    }

    /// A session is past its time and serves on.
    fn is_one_ending(&self) -> bool {
        let mut open = self
            .sessions
            .iter()
            .filter(|session| session.handle.is_some());
        open.any(|session| {
            session.ends.is_some_and(|ends| ends <= self.now) && !self.is_over(session)
        })
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
                // One dial beyond the limit for those whom no session will serve.
                let stranded = self.oldest(|seat| self.is_stranded(seat));
                self.growth().max(usize::from(stranded.is_some()))
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

    /// Sessions that are needed and allowed.
    fn growth(&self) -> usize {
        let mut needed = 0;
        while needed * self.expected_streams < self.waiting() {
            needed += 1;
        }
        needed.min(self.limits.sessions.saturating_sub(self.trusted()))
    }

    /// Whether all sessions that stay are too old for somebody.
    fn is_stranded(&self, seat: &Seat) -> bool {
        let mut trusted = self
            .sessions
            .iter()
            .filter(|session| self.is_trusted(session));
        match seat.want {
            Want::Any => false,
            Want::NewerThan(id) => trusted.all(|session| session.id <= id),
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
        let wanted = self.wanted_dials(self.now);
        if self.spoken == Spoken::Http1 {
            if let Some(at) = self.oldest(|seat| !seat.dialled_for) {
                self.seats[at].dialled_for = true;
                cause = Some(self.seats[at].place);
            }
        }
        let spare = self.dials.len() >= wanted;
        self.count += 1;
        self.dials.push(Dial {
            id,
            cause,
            spare,
            started: self.now,
        });
    }

    /// R-ALPN-3: whether a session that could be opened now has anybody to serve. Somebody waits only if no open one has room for
    /// him.
    pub(super) fn needs_session(&self) -> bool {
        let room: usize = self.sessions.iter().map(|session| self.room(session)).sum();
        let of_use = self.trusted() == 0
            || room == 0
            || self.waiting() > 0
            || self.are_crowded()
            || self.is_one_ending();
        of_use && !self.is_surplus()
    }

    fn is_surplus(&self) -> bool {
        let stranded = self.oldest(|seat| self.is_stranded(seat));
        !self.open || (self.trusted() >= self.limits.sessions && stranded.is_none())
    }

    /// R-DIAL-3: a new connection goes to the oldest waiter, whoever it was dialled for.
    pub(super) fn dialled_http1(&mut self, id: DialId, connection: u32, until: Instant) -> Done {
        self.end_dial(id);
        self.learn(Spoken::Http1);
        let first = self.first();
        self.hand_on(first, connection, until)
    }

    /// A new session serves the line in order, for as long as its streams last. It replaces one session that has ended. One that
    /// is one too many is retired.
    pub(super) fn dialled_http2(
        &mut self,
        id: DialId,
        handle: u32,
        max_streams: usize,
        ends: Option<Instant>,
    ) -> Done {
        self.end_dial(id);
        self.learn(Spoken::Http2);
        let mut done = Done::default();
        if self.is_surplus() {
            done.retired.push(handle);
            return done;
        }
        self.sessions_made += 1;
        self.expected_streams = max_streams.max(1);
        done.opened = Some(self.sessions_made);
        let now = self.now;
        let ended = |session: &&mut Session| {
            session.handle.is_some() && session.ends.is_some_and(|ends| ends <= now)
        };
        let ended = self.sessions.iter_mut().filter(ended);
        if let Some(first) = ended.min_by_key(|session| session.ends) {
            done.retired.extend(first.handle.take());
        }
        self.sessions.push(Session {
            id: self.sessions_made,
            handle: Some(handle),
            active: 0,
            max_streams,
            suspect: false,
            last_use: 0,
            lent: 0,
            idle_since: Some(self.now),
            busy_since: None,
            ends,
        });
        self.lend_what_is_free(&mut done);
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
        } else if !dial.spare {
            // Whom a session will serve in turn has hope; who has none hears of it when the last dial has failed.
            let hopeless = |seat: &Seat| {
                let id = oldest_id(seat.want);
                let mut serving = self.sessions.iter().filter(|session| self.serves(session));
                !serving.any(|session| session.id > id)
            };
            if self.oldest(hopeless).is_none() {
                if let Some(at) = self.first() {
                    self.serve(at, Err(error), &mut done);
                }
            } else if self.dials.is_empty() {
                let mut failing = Vec::new();
                for (at, seat) in self.seats.iter().enumerate() {
                    if seat.waits() && hopeless(seat) {
                        failing.push((seat.place.ticket, at));
                    }
                }
                failing.sort_unstable();
                for (_, at) in failing {
                    self.serve(at, Err(error), &mut done);
                }
            }
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
        if dial.spare {
            self.spare_after = Some(self.now + Duration::from_secs(1));
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
        let first = self.first_for_connection();
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
        while let Some(at) = self.first() {
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

    /// R-H2-4: the slot goes to the oldest waiter whom it serves. If nobody takes it, and it was the last, the session goes if its
    /// time is over or somebody needs its room.
    pub(super) fn release_slot(&mut self, id: SessionId) -> Done {
        let mut done = Done::default();
        if let Some(session) = self.session(id) {
            session.active -= 1;
        }
        self.lend_what_is_free(&mut done);
        let (now, in_the_way) = (self.now, self.is_in_the_way());
        let Some(session) = self.session(id) else {
            return done;
        };
        if session.active <= 16 {
            session.busy_since = None;
        }
        if session.active == 0 {
            session.idle_since.get_or_insert(now);
            if in_the_way || session.ends.is_some_and(|ends| ends <= now) {
                done.retired.extend(session.handle.take());
            }
        }
        done
    }

    pub(super) fn set_max_streams(&mut self, id: SessionId, max_streams: usize) -> Done {
        if let Some(session) = self.session(id) {
            session.max_streams = max_streams;
            if max_streams > 0 {
                self.expected_streams = max_streams;
            }
        }
        let mut done = Done::default();
        self.lend_what_is_free(&mut done);
        done
    }

    pub(super) fn set_suspect(&mut self, id: SessionId, suspect: bool) -> Done {
        if let Some(session) = self.session(id) {
            session.suspect = suspect;
        }
        let mut done = Done::default();
        self.lend_what_is_free(&mut done);
        done
    }

    /// Everybody is asked in turn whether there is a slot for him.
    fn lend_what_is_free(&mut self, done: &mut Done) {
        let mut waiting = Vec::new();
        for (at, seat) in self.seats.iter().enumerate() {
            if seat.waits() {
                waiting.push((seat.place.ticket, at));
            }
        }
        waiting.sort_unstable();
        for (_, at) in waiting {
            if let Some(session) = self.best_session(oldest_id(self.seats[at].want)) {
                let slot = self.lend_slot(session);
                self.serve(at, Ok(slot), done);
            }
        }
    }

    /// R-H2-6: no new streams.
    pub(super) fn retire(&mut self, id: SessionId) -> Option<u32> {
        self.session(id)?.handle.take()
    }

    /// The session has ended, and its streams with it.
    pub(super) fn session_gone(&mut self, id: SessionId) -> Option<u32> {
        let at = self.sessions.iter().position(|session| session.id == id)?;
        self.sessions.remove(at).handle
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

    /// Connections and sessions whose time is over; of the sessions also those that are more than one, the longest idle first.
    pub(super) fn expire(&mut self) -> (Vec<u32>, Vec<u32>) {
        let now = self.now;
        let (kept, expired): (Vec<_>, Vec<_>) = self.idle.iter().partition(|idle| now < idle.until);
        self.idle = kept;
        let mut sessions = Vec::new();
        for at in 0..self.sessions.len() {
            let session = &self.sessions[at];
            let tired = session.has_been_idle_for(self.limits.session_idle, now);
            if tired || self.is_over(session) {
                sessions.extend(self.sessions[at].handle.take());
            }
        }
        loop {
            let extra = |session: &Session| {
                session.has_been_idle_for(EXTRA_IDLE, now) && self.is_extra(session)
            };
            let extra = (0..self.sessions.len())
                .filter(|at| extra(&self.sessions[*at]))
                .min_by_key(|at| self.sessions[*at].idle_since);
            let Some(at) = extra else { break };
            sessions.extend(self.sessions[at].handle.take());
        }
        sessions.sort_unstable();
        (numbers(&expired), sessions)
    }

    /// Whether a session is idle beside another that stays.
    fn is_extra(&self, session: &Session) -> bool {
        let mut others = self.sessions.iter().filter(|other| other.id != session.id);
        session.is_idle() && others.any(|other| self.is_trusted(other))
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
        let first = self.first_for_connection();
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

    /// When something that is idle expires, or a session's time ends, or ends for good.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let mut moments: Vec<_> = self.idle.iter().map(|idle| idle.until).collect();
        for session in self
            .sessions
            .iter()
            .filter(|session| session.handle.is_some())
        {
            if let Some(since) = session.idle_since {
                moments.push(since + self.limits.session_idle);
                if self.is_extra(session) {
                    moments.push(since + EXTRA_IDLE);
                }
            }
            if let Some(ends) = session.ends {
                let serves_on = ends <= self.now && session.active > 0;
                moments.push(if serves_on { ends + SERVES_ON } else { ends });
            }
        }
        moments.into_iter().min()
    }

    pub(super) fn sessions_made(&self) -> SessionId {
        self.sessions_made
    }

    pub(super) fn first_in_line(&self) -> Option<Ticket> {
        self.first().map(|at| self.seats[at].place.ticket)
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

    /// R-Q-1: the lowest ticket among those who wait.
    fn first(&self) -> Option<usize> {
        self.oldest(|_| true)
    }

    fn first_for_connection(&self) -> Option<usize> {
        self.oldest(|seat| seat.want == Want::Any)
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

    /// Ruling 12: of those newer than `than` the session with the fewest streams, among equals the one used last.
    pub(super) fn best_session(&self, than: SessionId) -> Option<usize> {
        let mut best: Option<usize> = None;
        for (at, session) in self.sessions.iter().enumerate() {
            if session.id <= than || self.room(session) == 0 {
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
        session.lent += 1;
        if session.active > 16 {
            session.busy_since.get_or_insert(self.now);
        }
        let handle = session.handle.expect("a session with room is open");
        if self.limits.max_requests == Some(session.lent) {
            session.handle = None;
        }
        Lent::Slot(session.id, handle)
    }

    /// Sessions that count against their limit.
    fn trusted(&self) -> usize {
        let trusted = |session: &&Session| self.is_trusted(session);
        self.sessions.iter().filter(trusted).count()
    }

    fn is_trusted(&self, session: &Session) -> bool {
        self.serves(session) && session.ends.is_none_or(|ends| self.now < ends)
    }

    fn serves(&self, session: &Session) -> bool {
        session.handle.is_some() && !session.suspect && !self.is_over(session)
    }

    /// R-H2-6: its time has ended, and nothing or nobody is to be waited for.
    fn is_over(&self, session: &Session) -> bool {
        let Some(ends) = session.ends else {
            return false;
        };
        let idle = session.idle_since.is_some();
        self.now >= ends + SERVES_ON || (self.now >= ends && idle)
    }

    /// Streams that could be opened on it.
    fn room(&self, session: &Session) -> usize {
        if self.serves(session) {
            session.max_streams.saturating_sub(session.active)
        } else {
            0
        }
    }
}

impl Seat {
    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Waiting)
    }
}

impl Session {
    /// R-H2-8.
    fn is_idle(&self) -> bool {
        self.handle.is_some() && self.active == 0
    }
}

impl Session {
    fn has_been_idle_for(&self, time: Duration, now: Instant) -> bool {
        self.idle_since.is_some_and(|since| since + time <= now)
    }
}

/// The session that one must be newer than.
fn oldest_id(want: Want) -> SessionId {
    match want {
        Want::Any => 0,
        Want::NewerThan(id) => id,
    }
}

/// How long a session that is more than one may be idle.
const EXTRA_IDLE: Duration = Duration::from_secs(10);

/// How long a session serves on after its end.
const SERVES_ON: Duration = Duration::from_secs(10);

fn numbers(idle: &[Resting]) -> Vec<u32> {
    idle.iter().map(|idle| idle.connection).collect()
}
