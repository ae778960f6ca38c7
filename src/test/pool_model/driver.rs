//! Does one sequence of events to the machine and to the model, and compares what they say after each of them.
//!
//! It plays the shell around the machine, in the orders that the shell may: it probes what was lent, closes, wakes, dials, and gives
//! permits back at once or later. It also keeps the books on where every connection and every stream is. Called by `mod.rs`; what is
//! compared after every event stands in `compare.rs`.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::compare::same;
use super::events::{Event, event};
use super::model::{Done, Found, Model, Outcome, Resting, Standing, Victim};
use crate::pool::host::{
    Actions, DialId, Evicted, HostLimits, HostPool, Idle, Lent, Newcomer, NextLook, Place,
    Progress, Served, SessionId, Spoken, Ticket, Want,
};

/// What the two do not agree on.
pub(super) type Difference = String;

/// Plays what `bytes` say: one byte for the origin, then two for each event, and perhaps one more for the origin. With `trace`, what happened is written there.
pub(super) fn play(
    bytes: &[u8],
    start: Instant,
    trace: Option<&mut Vec<String>>,
) -> Result<(), Difference> {
    let Some((origin, events)) = bytes.split_first() else {
        return Ok(());
    };
    let pairs = events.chunks_exact(2);
    let more = pairs.remainder().first().copied().unwrap_or(0);
    let mut driver = Driver::new(*origin, more, start, trace);
    for pair in pairs {
        let &[byte, detail] = pair else { continue };
        driver.happen(event(byte), detail)?;
        driver.compare()?;
    }
    driver.end()
}

/// What time may pass at once: little, up to a hedge, up to when something expires, and beyond.
const STEPS: [u64; 8] = [1, 101, 249, 250, 500, 1000, 5000, 60_000];

/// The two, and what the shell would hold.
pub(super) struct Driver<'a> {
    pub(super) machine: HostPool<u32, u32, u32>,
    pub(super) model: Model,
    start: Instant,
    trace: Option<&'a mut Vec<String>>,
    pub(super) wakers: Vec<Arc<Count>>,
    /// Of those who left, and of those whose call has not come to wait yet.
    old_tickets: Vec<Ticket>,
    next_ticket: Ticket,
    next_error: u32,
    pub(super) connections_made: u32,
    handles_made: u32,
    /// Where connections are that are neither idle nor delivered.
    pub(super) lent: Vec<u32>,
    pub(super) closed: Vec<u32>,
    pub(super) suspects: Vec<(Idle<u32>, Resting)>,
    /// Streams that are open, by their session.
    pub(super) slots: Vec<SessionId>,
    /// Permits of what is closed that have not come back.
    pub(super) returning: usize,
    /// What the reaper knows: when it has to look again.
    pub(super) reaper: NextLook,
}

/// Counts how often it is woken.
#[derive(Default)]
pub(super) struct Count(AtomicUsize);

impl Count {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl<'a> Driver<'a> {
    fn new(origin: u8, more: u8, start: Instant, trace: Option<&'a mut Vec<String>>) -> Self {
        let limits = HostLimits {
            connections: [None, Some(1), Some(2), Some(3), None, None, None, Some(3)]
                [usize::from(origin & 3 | origin >> 5 & 4)],
            line: [None, Some(2), Some(4), None][usize::from(origin >> 2 & 3)],
            sessions: [1, 2, 3, 3][usize::from(origin >> 4 & 1 | more >> 4 & 2)],
            spread: [None, Some(2), Some(3), None][usize::from(more & 3)],
            max_requests: [None, Some(1), Some(3), Some(20)][usize::from(more >> 2 & 3)],
            session_idle: Duration::from_secs([3, 12][usize::from(more >> 4 & 1)]),
            hedge: Duration::from_millis(250),
        };
        let spoken = [Spoken::Unknown, Spoken::Http1, Spoken::Http2, Spoken::Http1]
            [usize::from(origin >> 5 & 3)];
        let mut driver = Self {
            machine: HostPool::new(limits, spoken, start),
            model: Model::new(limits, spoken, start),
            start,
            trace,
            wakers: Vec::new(),
            old_tickets: Vec::new(),
            next_ticket: 1,
            next_error: 0,
            connections_made: 0,
            handles_made: 0,
            lent: Vec::new(),
            closed: Vec::new(),
            suspects: Vec::new(),
            slots: Vec::new(),
            returning: 0,
            reaper: NextLook::Never,
        };
        driver.note(|| format!("{spoken:?}, {limits:?}"));
        driver
    }

    fn happen(&mut self, event: Event, detail: u8) -> Result<(), Difference> {
        self.note(|| format!("{event:?}"));
        match event {
            Event::Arrive => self.arrive(detail),
            Event::Join => self.join_anew(Want::Any, detail),
            Event::JoinForNew => self.join_anew(self.newer(detail >> 1), detail),
            Event::JoinLate => self.join_late(detail),
            Event::Poll => self.poll(detail),
            Event::Leave => self.leave(detail),
            Event::Pump => self.pump(1 + usize::from(detail % 4)),
            Event::DialledHttp1 => self.dialled_http1(detail),
            Event::DialledHttp2 => self.dialled_http2(detail),
            Event::DialFailed => self.dial_failed(detail),
            Event::DialDropped => self.dial_dropped(detail),
            Event::Release => self.release(detail),
            Event::Discard => self.discard_lent(detail),
            Event::ReleaseSlot => self.release_slot(detail),
            Event::SetMaxStreams | Event::SetSuspect | Event::Retire | Event::SessionGone => {
                self.session_changes(event, detail)
            }
            Event::Evict => self.evict(),
            Event::Expire => self.expire(),
            Event::TakeSuspects => self.take_suspects(detail),
            Event::PutBack => self.put_back(detail, false),
            Event::DrainIdle => self.drain(false),
            Event::DrainAll => self.drain(true),
            Event::Look => self.look(detail),
            Event::SawStale => {
                self.machine.saw_stale(self.model.now);
                self.model.saw_stale();
                Ok(())
            }
            Event::PermitReturned => {
                self.permit_returned();
                Ok(())
            }
            Event::PumpSpare => self.pump_spare(),
            Event::Crowd => self.crowd(detail),
            Event::WaitOrClose if detail >= CLOSE => self.close(),
            Event::WaitOrClose => {
                let step = Duration::from_millis(STEPS[usize::from(detail) % STEPS.len()]);
                self.note(|| format!("  {step:?}"));
                self.model.advance(step);
                Ok(())
            }
        }
    }

    /// What a call does first: it takes what is free, else a place in line.
    fn arrive(&mut self, detail: u8) -> Result<(), Difference> {
        let mut expired = Vec::new();
        let now = self.model.now;
        let found = self.machine.checkout(now, &mut expired);
        let found = found.map(|candidate| Found {
            lent: candidate.lent,
            idle_for: candidate.idle_for,
            doubtful: candidate.doubtful,
        });
        let (expected, expected_expired) = self.model.checkout();
        same("what had expired", &expired, &expected_expired)?;
        same("what is lent", &found, &expected)?;
        for connection in expired {
            self.discard(connection);
        }
        match found {
            Some(found) => {
                self.keep(found.lent);
                Ok(())
            }
            None => {
                if detail & 1 == 1 {
                    // Another call has drawn its ticket meanwhile, and comes later.
                    self.old_tickets.push(self.next_ticket);
                    self.next_ticket += 1;
                }
                self.join_anew(Want::Any, detail >> 1)
            }
        }
    }

    /// What somebody wants whose session has failed, or whose connection has. Now and then it names a session of which nothing
    /// is known.
    fn newer(&self, detail: u8) -> Want {
        let back = u64::from(detail & 7);
        Want::NewerThan((self.model.sessions_made() + 1).saturating_sub(back))
    }

    fn join_anew(&mut self, want: Want, detail: u8) -> Result<(), Difference> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.join(ticket, want, detail)
    }

    fn join_late(&mut self, detail: u8) -> Result<(), Difference> {
        if self.old_tickets.is_empty() {
            return Ok(());
        }
        // One of the last: of an older one nobody knows any more.
        let back = 1 + usize::from(detail >> 1) % self.old_tickets.len().min(3);
        let ticket = self.old_tickets.remove(self.old_tickets.len() - back);
        let want = [Want::Any, self.newer(detail >> 2)][usize::from(detail & 1)];
        self.join(ticket, want, detail >> 1)
    }

    /// Nobody may be turned away who may come, and the other way round.
    fn join(&mut self, ticket: Ticket, want: Want, detail: u8) -> Result<(), Difference> {
        self.note(|| format!("  ticket {ticket}, {want:?}"));
        let refusal = self.model.refusal();
        let mut expired = Vec::new();
        let now = self.model.now;
        let place = self.machine.enqueue(ticket, want, now, &mut expired);
        same("who is turned away", &place.err(), &refusal)?;
        match place {
            Ok(place) => {
                same("the ticket of a place", &place.ticket, &ticket)?;
                same("what had expired", &expired, &self.model.join(place, want))?;
            }
            Err(_) => self.old_tickets.push(ticket),
        }
        for connection in expired {
            self.discard(connection);
        }
        // Dials start at once, unless other hosts have taken all the room.
        self.pump(if detail & 1 == 0 { usize::MAX } else { 0 })
    }

    /// Somebody asks how he stands, and uses what he was served.
    fn poll(&mut self, detail: u8) -> Result<(), Difference> {
        let Some(at) = pick(detail >> 3, self.model.seats.len()) else {
            return Ok(());
        };
        let place = self.model.seats[at].place;
        // A future may move to another task, and then only that one is to be woken.
        let waker = if detail & 4 == 4 || self.wakers.is_empty() {
            self.wakers.push(Arc::default());
            self.model.wakes.push(0);
            self.wakers.len() - 1
        } else {
            usize::from(detail >> 3) % self.wakers.len()
        };
        let wakes = Waker::from(Arc::clone(&self.wakers[waker]));
        let now = self.model.now;
        let standing = match self.machine.poll(place, &wakes, now) {
            Progress::Served(outcome) => Standing::Served(outcome),
            Progress::Waiting {
                dialling,
                undialled,
                hedge_at,
            } => Standing::Waiting {
                dialling,
                undialled,
                hedge_at,
            },
        };
        let expected = self.model.poll(at, waker);
        let ticket = place.ticket;
        self.note(|| format!("  ticket {ticket}: {expected:?}"));
        same("how a waiter stands", &standing, &expected)?;
        if let Standing::Served(outcome) = standing {
            self.use_or_wait_again(at, place, outcome, detail)?;
        }
        Ok(())
    }

    /// Somebody has taken what he was served: he uses it, or it is dead and he waits on.
    fn use_or_wait_again(
        &mut self,
        at: usize,
        place: Place,
        outcome: Outcome,
        detail: u8,
    ) -> Result<(), Difference> {
        let Ok(lent) = outcome else {
            return self.leave_from(at);
        };
        self.keep(lent);
        match detail & 3 {
            // He leaves later.
            0 => Ok(()),
            1 => {
                let want = [Want::Any, self.newer(detail >> 5)][usize::from(detail >> 4 & 1)];
                self.note(|| format!("  it is dead; {want:?} again"));
                let mut expired = Vec::new();
                let now = self.model.now;
                self.machine.enqueue_again(place, want, now, &mut expired);
                same(
                    "what had expired",
                    &expired,
                    &self.model.join_again(at, want),
                )?;
                for connection in expired {
                    self.discard(connection);
                }
                Ok(())
            }
            _ => self.leave_from(at),
        }
    }

    fn leave(&mut self, detail: u8) -> Result<(), Difference> {
        match pick(detail, self.model.seats.len()) {
            Some(at) => self.leave_from(at),
            None => Ok(()),
        }
    }

    fn leave_from(&mut self, at: usize) -> Result<(), Difference> {
        let place = self.model.seats[at].place;
        let outcome = self.machine.leave(place);
        let expected = self.model.leave(at);
        let ticket = place.ticket;
        self.note(|| format!("  ticket {ticket} leaves with {expected:?}"));
        same("what a leaving waiter hands back", &outcome, &expected)?;
        same("a second leave", &self.machine.leave(place), &None)?;
        self.old_tickets.push(ticket);
        if let Some(Ok(lent)) = outcome {
            self.keep(lent);
        }
        Ok(())
    }

    /// Starts what dials the machine wants, but no more than `most`: the limit on all connections may forbid the rest.
    fn pump(&mut self, most: usize) -> Result<(), Difference> {
        let now = self.model.now;
        for _ in 0..most {
            let cause = self.machine.wants_dial(now);
            same("who is dialled for", &cause, &self.model.wants_dial())?;
            let Some(cause) = cause else { break };
            let id = self.machine.begin_dial(now);
            self.model.begin_dial(id);
            self.note(|| format!("  dial {id} for ticket {cause}"));
        }
        Ok(())
    }

    fn pump_spare(&mut self) -> Result<(), Difference> {
        let now = self.model.now;
        let wanted = self.machine.wants_spare_dial(now);
        same(
            "whether a dial is spare",
            &wanted,
            &self.model.wants_spare_dial(),
        )?;
        if wanted {
            let id = self.machine.begin_dial(now);
            self.model.begin_dial(id);
            self.note(|| format!("  dial {id} for nobody"));
        }
        Ok(())
    }

    /// So many streams that another session might share them; or none any more.
    fn crowd(&mut self, detail: u8) -> Result<(), Difference> {
        if detail & 1 == 1 {
            while !self.slots.is_empty() {
                self.release_slot(detail >> 1)?;
            }
            return Ok(());
        }
        for _ in 0..17 + detail % 4 {
            if self.model.best_session(0).is_none() {
                break;
            }
            self.arrive(0)?;
        }
        Ok(())
    }

    fn pick_dial(&self, detail: u8) -> Option<DialId> {
        let at = pick(detail, self.model.dials.len())?;
        Some(self.model.dials[at].id)
    }

    fn dialled_http1(&mut self, detail: u8) -> Result<(), Difference> {
        let Some(id) = self.pick_dial(detail >> 3) else {
            return Ok(());
        };
        self.connections_made += 1;
        let connection = self.connections_made;
        let until = self.model.now + lifetime(detail);
        self.note(|| format!("  dial {id} makes connection {connection}"));
        let now = self.model.now;
        let actions = self
            .machine
            .dialled(id, Newcomer::Http1(connection), now, until);
        let done = self.model.dialled_http1(id, connection, until);
        self.act(actions, &done)
    }

    /// A session is not opened if nobody needs it (spec pool R-ALPN-3), mostly.
    fn dialled_http2(&mut self, detail: u8) -> Result<(), Difference> {
        let Some(id) = self.pick_dial(detail >> 5) else {
            return Ok(());
        };
        if !self.model.needs_session() && detail & 4 == 4 {
            self.note(|| format!("  dial {id} makes a session that nobody needs"));
            self.machine.dial_dropped(id, self.model.now);
            self.model.dial_dropped(id);
            self.permit_ends();
            return Ok(());
        }
        self.handles_made += 1;
        let session = self.handles_made;
        let max_streams = [1, 2, 3, 40][usize::from(detail & 3)];
        let now = self.model.now;
        let life = [None, None, Some(1000), Some(5000)][usize::from(detail >> 3 & 3)];
        let ends = life.map(|life| now + Duration::from_millis(life));
        self.note(|| {
            format!(
                "  dial {id} makes session handle {session} for {max_streams} streams and {life:?} ms"
            )
        });
        let newcomer = Newcomer::Http2 {
            session,
            max_streams,
            ends,
        };
        let actions = self.machine.dialled(id, newcomer, now, now + lifetime(0));
        let done = self.model.dialled_http2(id, session, max_streams, ends);
        if done.opened.is_none() {
            self.permit_ends();
        }
        self.act(actions, &done)
    }

    fn dial_failed(&mut self, detail: u8) -> Result<(), Difference> {
        let Some(id) = self.pick_dial(detail >> 2) else {
            return Ok(());
        };
        self.next_error += 1;
        let error = self.next_error;
        self.note(|| format!("  dial {id} with error {error}"));
        if detail & 1 == 1 {
            // The socket is closed before its dial has said so, and the room is used at once.
            self.permit_returned_now();
            if detail & 2 == 2 {
                self.pump(usize::MAX)?;
            }
        }
        let actions = self.machine.dial_failed(id, error, self.model.now);
        let done = self.model.dial_failed(id, error);
        if detail & 1 == 0 {
            self.permit_ends();
        }
        self.act(actions, &done)
    }

    fn dial_dropped(&mut self, detail: u8) -> Result<(), Difference> {
        if let Some(id) = self.pick_dial(detail) {
            self.note(|| format!("  dial {id}"));
            self.machine.dial_dropped(id, self.model.now);
            self.model.dial_dropped(id);
            self.permit_ends();
        }
        Ok(())
    }

    fn release(&mut self, detail: u8) -> Result<(), Difference> {
        let Some(at) = pick(detail >> 3, self.lent.len()) else {
            return Ok(());
        };
        let connection = self.lent.remove(at);
        self.note(|| format!("  connection {connection}"));
        let now = self.model.now;
        let until = now + lifetime(detail);
        let actions = self.machine.release(connection, now, until);
        let done = self.model.release(connection, until);
        self.act(actions, &done)
    }

    fn discard_lent(&mut self, detail: u8) -> Result<(), Difference> {
        if let Some(at) = pick(detail, self.lent.len()) {
            let connection = self.lent.remove(at);
            self.discard(connection);
        }
        Ok(())
    }

    fn release_slot(&mut self, detail: u8) -> Result<(), Difference> {
        let Some(at) = pick(detail, self.slots.len()) else {
            return Ok(());
        };
        let id = self.slots.remove(at);
        self.note(|| format!("  of session {id}"));
        let actions = self.machine.release_slot(id, self.model.now);
        let done = self.model.release_slot(id);
        self.act(actions, &done)
    }

    fn session_changes(&mut self, event: Event, detail: u8) -> Result<(), Difference> {
        let Some(at) = pick(detail >> 2, self.model.sessions.len()) else {
            return Ok(());
        };
        let id = self.model.sessions[at].id;
        self.note(|| format!("  session {id}, {}", detail & 3));
        let (actions, done) = match event {
            Event::SetMaxStreams => {
                let max_streams = [0, 1, 2, 40][usize::from(detail & 3)];
                (
                    self.machine
                        .set_max_streams(id, max_streams, self.model.now),
                    self.model.set_max_streams(id, max_streams),
                )
            }
            Event::SetSuspect => {
                let suspect = detail & 1 == 1;
                (
                    self.machine.set_suspect(id, suspect, self.model.now),
                    self.model.set_suspect(id, suspect),
                )
            }
            Event::Retire => {
                let handle = self.machine.retire(id);
                return same("the retired handle", &handle, &self.model.retire(id));
            }
            _ => {
                let handle = self.machine.session_gone(id);
                let expected = self.model.session_gone(id);
                self.permit_ends();
                return same("the handle of what is gone", &handle, &expected);
            }
        };
        self.act(actions, &done)
    }

    fn evict(&mut self) -> Result<(), Difference> {
        let evicted = self.machine.evict().map(|evicted| match evicted {
            Evicted::Connection(connection) => Victim::Connection(connection),
            Evicted::Session(session) => Victim::Session(session),
        });
        same("what is evicted", &evicted, &self.model.evict())?;
        if let Some(Victim::Connection(connection)) = evicted {
            self.discard(connection);
        }
        Ok(())
    }

    fn expire(&mut self) -> Result<(), Difference> {
        let mut expired = Vec::new();
        let mut sessions = self.machine.expire(self.model.now, &mut expired);
        sessions.sort_unstable();
        let found = (expired.clone(), sessions);
        same("what expires", &found, &self.model.expire())?;
        for connection in expired {
            self.discard(connection);
        }
        Ok(())
    }

    fn take_suspects(&mut self, detail: u8) -> Result<(), Difference> {
        let is_suspect = |connection: u32| detail & 1 == 1 || connection % 2 == 0;
        let before = self.model.idle.clone();
        let taken = self
            .machine
            .take_suspects(|idle| is_suspect(idle.connection));
        let expected = self.model.take_suspects(|idle| is_suspect(idle.connection));
        let names: Vec<_> = taken.iter().map(|idle| idle.connection).collect();
        self.note(|| format!("  {expected:?}"));
        same("which are suspect", &names, &expected)?;
        for idle in taken {
            let known = before
                .iter()
                .find(|resting| resting.connection == idle.connection);
            self.suspects.extend(known.map(|known| (idle, *known)));
        }
        Ok(())
    }

    /// What another look than the reaper's took out is not armed when it comes back: the reaper may be asleep.
    fn put_back(&mut self, detail: u8, by_reaper: bool) -> Result<(), Difference> {
        let Some(at) = pick(detail >> 1, self.suspects.len()) else {
            return Ok(());
        };
        let (mut suspect, mut known) = self.suspects.remove(at);
        suspect.armed &= by_reaper;
        known.armed &= by_reaper;
        let connection = known.connection;
        self.note(|| format!("  connection {connection}"));
        if detail & 1 == 1 {
            self.discard(connection);
            return Ok(());
        }
        let actions = self.machine.put_back(suspect, self.model.now);
        let done = self.model.put_back(known);
        self.act(actions, &done)
    }

    fn drain(&mut self, all: bool) -> Result<(), Difference> {
        let ((connections, mut sessions), expected) = if all {
            (self.machine.drain_all(), self.model.drain_all())
        } else {
            (self.machine.drain_idle(), self.model.drain_idle())
        };
        sessions.sort_unstable();
        same(
            "what is drained",
            &(connections.clone(), sessions),
            &expected,
        )?;
        for connection in connections {
            self.discard(connection);
        }
        Ok(())
    }

    /// The reaper looks: it asks suspects how they are, arms what is not, and learns when to look again.
    fn look(&mut self, detail: u8) -> Result<(), Difference> {
        self.expire()?;
        if detail & 2 == 2 {
            self.take_suspects(detail)?;
            while !self.suspects.is_empty() {
                self.put_back(0, true)?;
            }
        }
        let taken = self.machine.take_suspects(|idle| {
            idle.armed = true;
            false
        });
        same("suspects among none", &taken.len(), &0)?;
        for idle in &mut self.model.idle {
            idle.armed = true;
        }
        self.reaper = self.machine.next_look(self.model.now);
        same("the next look", &self.reaper, &self.model.next_look())?;
        if self.reaper == NextLook::Never {
            let may_go = self.model.idle.is_empty() && self.model.sessions.is_empty();
            same(
                "whether the reaper may go",
                &self.machine.unwatch(),
                &may_go,
            )?;
        }
        Ok(())
    }

    /// R-LIFE-4, in the order in which the shell does it.
    fn close(&mut self) -> Result<(), Difference> {
        self.note(|| "  close".to_owned());
        self.next_error += 1;
        let actions = self.machine.close(&self.next_error);
        let done = self.model.close(self.next_error);
        self.act(actions, &done)?;
        same(
            "who waits on after the end",
            &self.machine.census().waiting,
            &0,
        )?;
        self.drain(false)
    }

    /// Does what was decided, and compares it.
    fn act(&mut self, actions: Actions<u32, u32>, done: &Done) -> Result<(), Difference> {
        self.note(|| format!("  {done:?}"));
        let (is_called, wake) = (actions.watch, actions.served);
        let found = Done {
            served: wake.iter().map(|served| served.ticket).collect(),
            close: actions.close,
            retired: actions.retired,
            opened: actions.opened,
        };
        same("what is decided", &found, done)?;
        wake.into_iter().for_each(Served::wake);
        if let Some(connection) = found.close {
            self.discard(connection);
        }
        if is_called {
            let before = std::mem::replace(&mut self.reaper, NextLook::Soon);
            if before == NextLook::Soon {
                return Err("the reaper is called although it is about to look".to_owned());
            }
        }
        Ok(())
    }

    /// Somebody has it in use.
    fn keep(&mut self, lent: Lent<u32, u32>) {
        match lent {
            Lent::Connection(connection) => self.lent.push(connection),
            Lent::Slot(id, _) => self.slots.push(id),
        }
    }

    /// Closes a connection.
    fn discard(&mut self, connection: u32) {
        self.closed.push(connection);
        self.permit_ends();
    }

    /// A socket is being closed; every other permit takes its time to come back.
    fn permit_ends(&mut self) {
        self.returning += 1;
        if self.returning > 1 {
            self.permit_returned();
        }
    }

    fn permit_returned(&mut self) {
        if self.returning > 0 {
            self.returning -= 1;
            self.permit_returned_now();
        }
    }

    fn permit_returned_now(&mut self) {
        self.machine.closed();
        self.model.count -= 1;
    }

    /// Everything ends, and what the machine still holds must be what the model still holds.
    fn end(&mut self) -> Result<(), Difference> {
        self.note(|| "the end".to_owned());
        while !self.model.seats.is_empty() {
            self.leave_from(0)?;
        }
        while let Some(id) = self.pick_dial(0) {
            self.machine.dial_dropped(id, self.model.now);
            self.model.dial_dropped(id);
            self.permit_ends();
        }
        self.drain(true)?;
        while !self.slots.is_empty() {
            self.release_slot(0)?;
        }
        while let Some(session) = self.model.sessions.first() {
            let id = session.id;
            let handle = self.machine.session_gone(id);
            same(
                "the handle of what is gone",
                &handle,
                &self.model.session_gone(id),
            )?;
            self.permit_ends();
        }
        for (suspect, _) in std::mem::take(&mut self.suspects) {
            self.discard(suspect.connection);
        }
        for connection in std::mem::take(&mut self.lent) {
            self.discard(connection);
        }
        while self.returning > 0 {
            self.permit_returned();
        }
        self.compare()?;
        same("what is left", &self.machine.census(), &Default::default())
    }

    /// Writes down what happens, if anybody reads it.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.model.now - self.start;
        if let Some(trace) = &mut self.trace {
            let mut text = String::new();
            let _ = write!(text, "{:>6} ms {}", at.as_millis(), line());
            trace.push(text);
        }
    }
}

/// From this detail on a wait is the end of the client.
const CLOSE: u8 = 0xf8;

/// How long a connection may be idle: not at all, or until some step of the clock.
fn lifetime(detail: u8) -> Duration {
    let millis = [0, 100, 1000, 5000, 5000, 5000, 5000, 60_000][usize::from(detail & 7)];
    Duration::from_millis(millis)
}

/// One of `count`, if there is any.
fn pick(detail: u8, count: usize) -> Option<usize> {
    usize::from(detail).checked_rem(count)
}
