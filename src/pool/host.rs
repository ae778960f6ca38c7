//! The pool's decisions for one origin, as a pure machine (design D5, spec pool 3.4 to 3.7).
//!
//! Events go in, what is to be done comes out; the shell in `mod.rs` does it after its lock is released. It is generic so
//! that tests use integers for connections. It never closes, wakes or dials anything itself.
//!
//! ```text
//!            checkout            release                 dialled
//!   idle ───────────────▶ lent ───────────▶ first in line, else idle ◀────────── dialling
//!                          │ closed                                                  │ failed
//!                          ▼                                                         ▼
//!                     (permit dropped: `count` goes down)          error to the waiter that caused the dial
//! ```
//! A waiter has a ticket; the line is kept in their order, so that a waiter that must wait again keeps its place.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

/// A place in line. Tickets grow over the whole client, so that waiters of different origins can be compared.
pub(crate) type Ticket = u64;

/// Names a dial of one origin.
pub(crate) type DialId = u64;

/// What one origin holds.
#[derive(Debug)]
pub(crate) struct HostPool<C, E> {
    open: bool,
    /// Oldest first; the newest is lent first, because its path is warm and the others may expire.
    idle: VecDeque<Idle<C>>,
    line: BTreeMap<Ticket, Waiter>,
    /// Outcomes that their waiters have not taken yet.
    served: BTreeMap<Ticket, Result<C, E>>,
    dials: Vec<Dial>,
    next_dial: DialId,
    /// Permits of this origin that are out: dialling, lent, served and idle.
    count: usize,
    max_count: Option<usize>,
    max_line: Option<usize>,
    undialled: Duration,
    undialled_since: Option<Instant>,
    /// Whether a reaper looks after the idle ones.
    watched: bool,
}

/// What a waiter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Any connection.
    Any,
    /// A new one, because an old one of this host has just proved dead.
    New,
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
    since: Instant,
    until: Instant,
}

#[derive(Debug)]
struct Dial {
    id: DialId,
    /// The waiter for whom it was started; it may be served by another connection first.
    cause: Ticket,
    started: Instant,
}

/// What a look at the idle connections found.
#[derive(Debug)]
pub(crate) struct Candidate<C> {
    pub(crate) connection: C,
    pub(crate) idle_for: Duration,
}

/// How a waiter stands.
#[derive(Debug)]
pub(crate) enum Progress<C, E> {
    Served(Result<C, E>),
    Waiting {
        /// When the oldest dial began, while one runs.
        dialling: Option<(DialId, Instant)>,
        /// Time so far in which no dial ran; only differences mean anything.
        undialled: Duration,
    },
}

/// The answer to who wants to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Taken,
    /// As many wait as may wait.
    Full,
    /// The client was closed.
    Closed,
}

/// Connections to close and wakers to wake, once the lock is released.
#[derive(Debug)]
#[must_use]
pub(crate) struct Actions<C> {
    pub(crate) wake: Option<Waker>,
    /// Whom the connection, or the error, went to.
    pub(crate) served: Option<Ticket>,
    pub(crate) close: Option<C>,
    /// An idle connection has come that no reaper knows of.
    pub(crate) watch: bool,
}

impl<C> Default for Actions<C> {
    fn default() -> Self {
        Self {
            wake: None,
            served: None,
            close: None,
            watch: false,
        }
    }
}

/// The numbers that a snapshot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) count: usize,
    pub(crate) idle: usize,
    pub(crate) dialling: usize,
    pub(crate) waiting: usize,
    pub(crate) served: usize,
}

impl<C, E> HostPool<C, E> {
    pub(crate) fn new(max_count: Option<usize>, max_line: Option<usize>, now: Instant) -> Self {
        Self {
            open: true,
            idle: VecDeque::new(),
            line: BTreeMap::new(),
            served: BTreeMap::new(),
            dials: Vec::new(),
            next_dial: 0,
            count: 0,
            max_count,
            max_line,
            undialled: Duration::ZERO,
            undialled_since: Some(now),
            watched: false,
        }
    }

    /// The newest idle connection. Those that expired are moved to `expired`. Nobody is overtaken: while somebody waits whom
    /// it could serve, nothing is idle.
    pub(crate) fn checkout(&mut self, now: Instant, expired: &mut Vec<C>) -> Option<Candidate<C>> {
        while let Some(idle) = self.idle.pop_back() {
            if now < idle.until {
                return Some(Candidate {
                    connection: idle.connection,
                    idle_for: now.saturating_duration_since(idle.since),
                });
            }
            expired.push(idle.connection);
        }
        None
    }

    /// Puts a waiter into line. A connection that came free since the waiter looked is his at once.
    pub(crate) fn enqueue(&mut self, ticket: Ticket, want: Want) -> Place {
        if !self.open {
            return Place::Closed;
        }
        if self.max_line.is_some_and(|max| self.line.len() >= max) {
            return Place::Full;
        }
        self.enqueue_again(ticket, want);
        Place::Taken
    }

    /// Puts a waiter back at its place, after what it was served proved dead.
    pub(crate) fn enqueue_again(&mut self, ticket: Ticket, want: Want) {
        let idle = (want == Want::Any).then(|| self.idle.pop_back()).flatten();
        match idle {
            Some(idle) => {
                self.served.insert(ticket, Ok(idle.connection));
            }
            None => {
                self.line.insert(ticket, Waiter { want, waker: None });
            }
        }
    }

    /// What became of a waiter; if nothing yet, `waker` is woken when it does.
    pub(crate) fn poll(&mut self, ticket: Ticket, waker: &Waker, now: Instant) -> Progress<C, E> {
        if let Some(outcome) = self.served.remove(&ticket) {
            return Progress::Served(outcome);
        }
        if let Some(waiter) = self.line.get_mut(&ticket) {
            match &mut waiter.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
        Progress::Waiting {
            dialling: self.dials.first().map(|dial| (dial.id, dial.started)),
            undialled: self.undialled(now),
        }
    }

    /// Takes a waiter out, wherever it is. What it had been served is the caller's to use or to release.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<Result<C, E>> {
        self.line.remove(&ticket);
        self.served.remove(&ticket)
    }

    /// Who has waited longest.
    pub(crate) fn first_in_line(&self) -> Option<Ticket> {
        self.line.keys().next().copied()
    }

    /// The waiter for whom another dial should start, if the line is longer than the dials that run and the limit allows.
    pub(crate) fn wants_dial(&self) -> Option<Ticket> {
        let room = self.max_count.is_none_or(|max| self.count < max);
        if !self.open || !room || self.dials.len() >= self.line.len() {
            return None;
        }
        let caused = |ticket: &Ticket| self.dials.iter().any(|dial| dial.cause == *ticket);
        self.line.keys().copied().find(|ticket| !caused(ticket))
    }

    /// A dial begins, with a permit.
    pub(crate) fn begin_dial(&mut self, cause: Ticket, now: Instant) -> DialId {
        self.undialled = self.undialled(now);
        self.undialled_since = None;
        self.count += 1;
        self.next_dial += 1;
        let id = self.next_dial;
        self.dials.push(Dial {
            id,
            cause,
            started: now,
        });
        id
    }

    /// A dial has made a connection: it goes to the first in line (late binding), else it is idle.
    pub(crate) fn dialled(
        &mut self,
        id: DialId,
        connection: C,
        now: Instant,
        until: Instant,
    ) -> Actions<C> {
        self.end_dial(id, now);
        let first = self.line.keys().next().copied();
        self.serve(first, connection, now, until)
    }

    /// A dial has failed: the waiter that caused it hears of it, if it still waits.
    pub(crate) fn dial_failed(&mut self, id: DialId, error: E, now: Instant) -> Actions<C> {
        let mut actions = Actions::default();
        if let Some(cause) = self.end_dial(id, now) {
            if let Some(waiter) = self.line.remove(&cause) {
                self.served.insert(cause, Err(error));
                actions.wake = waiter.waker;
                actions.served = Some(cause);
            }
        }
        actions
    }

    /// A dial has gone without an outcome, as when its runtime ends.
    pub(crate) fn end_dial(&mut self, id: DialId, now: Instant) -> Option<Ticket> {
        let at = self.dials.iter().position(|dial| dial.id == id)?;
        let dial = self.dials.remove(at);
        if self.dials.is_empty() {
            self.undialled_since = Some(now);
        }
        Some(dial.cause)
    }

    /// A connection has come free.
    pub(crate) fn release(&mut self, connection: C, now: Instant, until: Instant) -> Actions<C> {
        let first = self
            .line
            .iter()
            .find(|(_, waiter)| waiter.want == Want::Any);
        let first = first.map(|(ticket, _)| *ticket);
        self.serve(first, connection, now, until)
    }

    /// Hands a connection to a waiter; with none it is idle, or closed if it may not be.
    fn serve(
        &mut self,
        first: Option<Ticket>,
        connection: C,
        now: Instant,
        until: Instant,
    ) -> Actions<C> {
        let mut actions = Actions::default();
        let waiter = first.and_then(|ticket| Some((ticket, self.line.remove(&ticket)?)));
        if let Some((ticket, waiter)) = waiter {
            self.served.insert(ticket, Ok(connection));
            actions.wake = waiter.waker;
            actions.served = Some(ticket);
        } else if self.open && now < until {
            self.idle.push_back(Idle {
                connection,
                since: now,
                until,
            });
            actions.watch = !std::mem::replace(&mut self.watched, true);
        } else {
            actions.close = Some(connection);
        }
        actions
    }

    /// A permit came back: its socket is closed.
    pub(crate) fn closed(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// Since when the oldest idle connection is idle.
    pub(crate) fn oldest_idle(&self) -> Option<Instant> {
        self.idle.front().map(|idle| idle.since)
    }

    /// Takes the oldest idle connection out, to make room.
    pub(crate) fn evict(&mut self) -> Option<C> {
        self.idle.pop_front().map(|idle| idle.connection)
    }

    /// Takes the idle connections out that have expired.
    pub(crate) fn expire(&mut self, now: Instant, expired: &mut Vec<C>) {
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

    /// Takes out the idle connections that a look makes suspicious; [`put_back`](Self::put_back) returns those that prove
    /// to be alive.
    pub(crate) fn take_suspects(&mut self, mut is_suspect: impl FnMut(&C) -> bool) -> Vec<Idle<C>> {
        let mut suspects = Vec::new();
        for at in (0..self.idle.len()).rev() {
            if self
                .idle
                .get(at)
                .is_some_and(|idle| is_suspect(&idle.connection))
            {
                suspects.extend(self.idle.remove(at));
            }
        }
        suspects
    }

    /// Returns a suspect to its place, or to whoever came to wait meanwhile.
    pub(crate) fn put_back(&mut self, suspect: Idle<C>, now: Instant) -> Actions<C> {
        if !self.line.is_empty() || !self.open {
            return self.release(suspect.connection, now, suspect.until);
        }
        let at = self
            .idle
            .partition_point(|idle| idle.since <= suspect.since);
        self.idle.insert(at, suspect);
        Actions::default()
    }

    /// The reaper goes; answers whether it may.
    pub(crate) fn unwatch(&mut self) -> bool {
        self.watched = !self.idle.is_empty();
        !self.watched
    }

    /// Takes all idle connections out.
    pub(crate) fn drain_idle(&mut self) -> Vec<C> {
        self.idle.drain(..).map(|idle| idle.connection).collect()
    }

    /// No further request is served: whoever waits gets `error`.
    pub(crate) fn close(&mut self, error: &E) -> Vec<Waker>
    where
        E: Clone,
    {
        self.open = false;
        let mut wakers = Vec::new();
        for (ticket, waiter) in std::mem::take(&mut self.line) {
            self.served.insert(ticket, Err(error.clone()));
            wakers.extend(waiter.waker);
        }
        wakers
    }

    pub(crate) fn census(&self) -> Census {
        Census {
            count: self.count,
            idle: self.idle.len(),
            dialling: self.dials.len(),
            waiting: self.line.len(),
            served: self.served.len(),
        }
    }

    /// The invariants of spec pool R-OBJ-6, as far as one origin can see them.
    pub(crate) fn check(&self) -> Result<(), String> {
        let census = self.census();
        let delivered = self
            .served
            .values()
            .filter(|outcome| outcome.is_ok())
            .count();
        if census.dialling + census.idle + delivered > census.count {
            return Err(format!("more connections than permits: {census:?}"));
        }
        if census.idle > 0 && self.line.values().any(|waiter| waiter.want == Want::Any) {
            return Err(format!(
                "a connection is idle while somebody waits: {census:?}"
            ));
        }
        if self.max_count.is_some_and(|max| census.count > max) {
            return Err(format!("over the limit of the origin: {census:?}"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    type Machine = HostPool<u32, &'static str>;

    fn machine(max_count: Option<usize>) -> (Machine, Instant) {
        let now = Instant::now();
        (HostPool::new(max_count, Some(3), now), now)
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

    fn take(machine: &mut Machine, now: Instant) -> Option<u32> {
        let mut expired = Vec::new();
        machine
            .checkout(now, &mut expired)
            .map(|candidate| candidate.connection)
    }

    fn served(
        machine: &mut Machine,
        ticket: Ticket,
        now: Instant,
    ) -> Option<Result<u32, &'static str>> {
        match machine.poll(ticket, Waker::noop(), now) {
            Progress::Served(outcome) => Some(outcome),
            Progress::Waiting { .. } => None,
        }
    }

    /// Dials and delivers `connection` to a waiter of its own.
    fn lend(machine: &mut Machine, connection: u32, now: Instant) {
        let ticket = u64::from(connection) + 1000;
        assert_eq!(machine.enqueue(ticket, Want::Any), Place::Taken);
        let id = machine.begin_dial(ticket, now);
        let _ = machine.dialled(id, connection, now, later(now, 5));
        assert_eq!(served(machine, ticket, now), Some(Ok(connection)));
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
        assert_eq!(machine.evict(), Some(1));
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
        for ticket in [10, 11] {
            assert_eq!(machine.enqueue(ticket, Want::Any), Place::Taken);
        }
        assert_eq!(machine.wants_dial(), None, "the limit is reached");
        let wakes = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(matches!(
            machine.poll(10, &waker, now),
            Progress::Waiting { .. }
        ));
        let actions = machine.release(1, now, later(now, 5));
        actions.wake.expect("the first in line is woken").wake();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(
            take(&mut machine, now),
            None,
            "a newcomer does not overtake the line"
        );
        assert_eq!(served(&mut machine, 11, now), None);
        assert_eq!(served(&mut machine, 10, now), Some(Ok(1)));
        machine.check().unwrap();
    }

    /// pool.md tests 9 and 10, and R-Q-2.
    #[test]
    fn who_leaves_loses_nothing() {
        let (mut machine, now) = machine(Some(1));
        lend(&mut machine, 1, now);
        for ticket in [10, 11] {
            assert_eq!(machine.enqueue(ticket, Want::Any), Place::Taken);
        }
        assert!(machine.leave(10).is_none());
        let _ = machine.release(1, now, later(now, 5));
        assert_eq!(
            machine.leave(11),
            Some(Ok(1)),
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
        for ticket in [10, 11] {
            assert_eq!(machine.enqueue(ticket, Want::Any), Place::Taken);
        }
        let _ = machine.release(1, now, later(now, 5));
        assert_eq!(served(&mut machine, 10, now), Some(Ok(1)));
        machine.enqueue_again(10, Want::Any);
        let _ = machine.release(2, now, later(now, 5));
        assert_eq!(served(&mut machine, 10, now), Some(Ok(2)));
    }

    /// pool.md test 14 and R-DIAL-4: a freed connection wins over the dial, which then serves the next.
    #[test]
    fn late_binding() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        assert_eq!(machine.enqueue(10, Want::Any), Place::Taken);
        let id = machine.begin_dial(10, now);
        let _ = machine.release(1, now, later(now, 5));
        assert_eq!(served(&mut machine, 10, now), Some(Ok(1)));
        assert_eq!(machine.enqueue(11, Want::Any), Place::Taken);
        assert_eq!(machine.wants_dial(), None, "the running dial is counted on");
        let _ = machine.dialled(id, 2, now, later(now, 5));
        assert_eq!(served(&mut machine, 11, now), Some(Ok(2)));
    }

    /// R-DIAL-5 and pool.md test 13.
    #[test]
    fn a_failed_dial_reaches_the_waiter_that_caused_it() {
        let (mut machine, now) = machine(None);
        for ticket in [10, 11] {
            assert_eq!(machine.enqueue(ticket, Want::Any), Place::Taken);
        }
        assert_eq!(machine.wants_dial(), Some(10));
        let first = machine.begin_dial(10, now);
        assert_eq!(machine.wants_dial(), Some(11));
        let second = machine.begin_dial(11, now);
        let _ = machine.dial_failed(second, "refused", now);
        machine.closed();
        assert_eq!(served(&mut machine, 10, now), None);
        assert_eq!(served(&mut machine, 11, now), Some(Err("refused")));
        assert!(machine.leave(10).is_none());
        let _ = machine.dial_failed(first, "refused", now);
        machine.closed();
        assert_eq!(
            machine.census(),
            Census {
                count: 0,
                idle: 0,
                dialling: 0,
                waiting: 0,
                served: 0
            }
        );
    }

    /// Ruling 4: only time without a dial counts against the pool limit.
    #[test]
    fn the_pool_clock_stands_while_a_dial_runs() {
        let (mut machine, now) = machine(None);
        assert_eq!(machine.enqueue(10, Want::Any), Place::Taken);
        let clock = |machine: &mut Machine, at| match machine.poll(10, Waker::noop(), at) {
            Progress::Waiting { undialled, .. } => undialled,
            Progress::Served(_) => panic!("nobody serves here"),
        };
        assert_eq!(clock(&mut machine, later(now, 2)), Duration::from_secs(2));
        let id = machine.begin_dial(10, later(now, 2));
        assert_eq!(clock(&mut machine, later(now, 9)), Duration::from_secs(2));
        machine.end_dial(id, later(now, 9));
        assert_eq!(clock(&mut machine, later(now, 10)), Duration::from_secs(3));
    }

    /// R-RETRY-3: after a stale connection only a new one will do.
    #[test]
    fn who_wants_a_new_connection_gets_no_old_one() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        let _ = machine.release(1, now, later(now, 5));
        assert_eq!(machine.enqueue(10, Want::New), Place::Taken);
        assert_eq!(served(&mut machine, 10, now), None);
        assert_eq!(
            take(&mut machine, now),
            Some(1),
            "others may take the old one"
        );
        assert_eq!(machine.enqueue(11, Want::Any), Place::Taken);
        let _ = machine.release(1, now, later(now, 5));
        assert_eq!(served(&mut machine, 11, now), Some(Ok(1)));
        let id = machine.begin_dial(10, now);
        let _ = machine.dialled(id, 2, now, later(now, 5));
        assert_eq!(served(&mut machine, 10, now), Some(Ok(2)));
        machine.check().unwrap();
    }

    #[test]
    fn a_full_line_refuses() {
        let (mut machine, _) = machine(Some(1));
        for ticket in [1, 2, 3] {
            assert_eq!(machine.enqueue(ticket, Want::Any), Place::Taken);
        }
        assert_eq!(machine.enqueue(4, Want::Any), Place::Full);
    }

    #[test]
    fn a_closed_pool_serves_errors_and_keeps_nothing() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        assert_eq!(machine.enqueue(10, Want::Any), Place::Taken);
        let _ = machine.close(&"closed");
        assert_eq!(served(&mut machine, 10, now), Some(Err("closed")));
        assert_eq!(machine.enqueue(11, Want::Any), Place::Closed);
        assert_eq!(machine.release(1, now, later(now, 5)).close, Some(1));
        assert_eq!(machine.wants_dial(), None);
    }

    #[test]
    fn the_reaper_is_called_once_and_may_go_when_nothing_is_idle() {
        let (mut machine, now) = machine(None);
        lend(&mut machine, 1, now);
        assert!(machine.release(1, now, later(now, 5)).watch);
        assert_eq!(take(&mut machine, now), Some(1));
        assert!(!machine.release(1, now, later(now, 5)).watch);
        assert!(!machine.unwatch());
        let mut expired = Vec::new();
        machine.expire(later(now, 4), &mut expired);
        assert!(expired.is_empty());
        machine.expire(later(now, 5), &mut expired);
        assert_eq!(expired, [1]);
        assert!(machine.unwatch());
    }
}
