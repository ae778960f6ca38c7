//! The HTTP/2 sessions of one origin and their stream slots (spec pool R-H2).
//!
//! A session is shared: each caller holds one of its slots, counted here, because the framing layer below would queue without
//! a bound. Which session gets the next stream, and which get none any more, is decided here; `host.rs` owns the line of those
//! who wait. Pure.
//!
//! ```text
//!   add ──▶ open ── its time ends ──▶ ending ── replaced, or too late ──▶ retiring ──gone──▶ (forgotten)
//!             ├── retired, idle too long, or lent as often as it may be ───▶ ▲
//!             └──────────────────────────gone─────────────────────────────────────────────────▲
//! ```
//! An ending session still lends its slots, but it does not count against the limit on sessions, so that another may be
//! dialled before it goes (spec pool R-H2-6).

use std::time::Duration;

use tokio::time::Instant;

use super::actions::HostLimits;

/// Names a session of one origin. A younger session has a higher one; there is none of 0.
pub(crate) type SessionId = u64;

/// The sessions, by the handles `S` with which streams are opened on them.
#[derive(Debug)]
pub(crate) struct Sessions<S> {
    limits: HostLimits,
    /// The oldest first.
    all: Vec<Session<S>>,
    last_id: SessionId,
    /// Counts uses, so that the most recently used is known without a clock.
    uses: u64,
    expected: usize,
}

#[derive(Debug)]
struct Session<S> {
    id: SessionId,
    /// `None` once it is retiring: the session ends when the last handle is gone, and the pool's must not be that one.
    handle: Option<S>,
    active: usize,
    max_streams: usize,
    suspect: bool,
    last_use: u64,
    /// Slots that it has lent so far.
    lent: u64,
    /// Since when no stream is open.
    idle_since: Option<Instant>,
    /// Since when more than [`BUSY`] streams are open.
    busy_since: Option<Instant>,
    /// When it is to be replaced because of its age.
    ends: Option<Instant>,
}

impl<S> Sessions<S> {
    pub(crate) fn new(limits: HostLimits) -> Self {
        Self {
            limits,
            all: Vec::new(),
            last_id: 0,
            uses: 0,
            expected: EXPECTED_STREAMS,
        }
    }

    /// A session is open and takes `max_streams` streams at once, until it `ends`. It counts as idle until the first.
    pub(crate) fn add(
        &mut self,
        handle: S,
        max_streams: usize,
        now: Instant,
        ends: Option<Instant>,
    ) -> SessionId {
        self.last_id += 1;
        self.expected = max_streams.max(1);
        self.all.push(Session {
            id: self.last_id,
            handle: Some(handle),
            active: 0,
            max_streams,
            suspect: false,
            last_use: 0,
            lent: 0,
            idle_since: Some(now),
            busy_since: None,
            ends,
        });
        self.last_id
    }

    /// A slot for one more stream, of a session newer than `beyond`: of the one with the fewest, among equals of the one used
    /// last (ruling 12). The last slot that a session may lend comes with the pool's own handle, and the session retires.
    pub(crate) fn take_slot(&mut self, beyond: SessionId, now: Instant) -> Option<(SessionId, S)>
    where
        S: Clone,
    {
        let most = self.limits.max_requests.map(|most| most.max(1));
        let chosen = self
            .all
            .iter_mut()
            .filter(|session| session.id > beyond && session.room(now) > 0)
            .min_by_key(|session| (session.active, u64::MAX - session.last_use))?;
        self.uses += 1;
        chosen.last_use = self.uses;
        chosen.lent += 1;
        let handle = if most.is_some_and(|most| chosen.lent >= most) {
            chosen.handle.take()
        } else {
            chosen.handle.clone()
        }?;
        chosen.active += 1;
        chosen.idle_since = None;
        if chosen.active > BUSY {
            chosen.busy_since.get_or_insert(now);
        }
        Some((chosen.id, handle))
    }

    /// The newest session that could lend a slot. Whom any session can serve, this one can.
    pub(crate) fn newest_with_room(&self, now: Instant) -> Option<SessionId> {
        let newest_first = self.all.iter().rev();
        newest_first
            .filter(|session| session.room(now) > 0)
            .map(|session| session.id)
            .next()
    }

    /// A stream is done. Its slot may be lent again before [`rest`](Self::rest) says what becomes of the session.
    pub(crate) fn free_slot(&mut self, id: SessionId) {
        if let Some(session) = self.find(id) {
            session.active = session.active.saturating_sub(1);
        }
    }

    /// Nobody else takes the slot that was freed: from now on the session may be idle, or less than busy. Answers whether it
    /// is idle.
    pub(crate) fn rest(&mut self, id: SessionId, now: Instant) -> bool {
        let Some(session) = self.find(id) else {
            return false;
        };
        if session.active <= BUSY {
            session.busy_since = None;
        }
        if session.active == 0 {
            session.idle_since.get_or_insert(now);
        }
        session.active == 0
    }

    /// The peer allows another number of streams. Fewer than are open means no new ones; zero is full, not dead
    /// (spec pool R-H2-4).
    pub(crate) fn set_max_streams(&mut self, id: SessionId, max_streams: usize) {
        if let Some(session) = self.find(id) {
            session.max_streams = max_streams;
            if max_streams > 0 {
                self.expected = max_streams;
            }
        }
    }

    /// Whether it is doubted that the peer is still there: then no new streams (spec pool R-H2-7).
    pub(crate) fn set_suspect(&mut self, id: SessionId, suspect: bool) {
        if let Some(session) = self.find(id) {
            session.suspect = suspect;
        }
    }

    /// No new streams; those that are open go on. The handle is the caller's to drop, outside of any lock.
    pub(crate) fn retire(&mut self, id: SessionId) -> Option<S> {
        self.find(id)?.handle.take()
    }

    /// The session has ended.
    pub(crate) fn gone(&mut self, id: SessionId) -> Option<S> {
        let at = self.all.iter().position(|session| session.id == id)?;
        self.all.remove(at).handle
    }

    /// Retires one session if its time is over (spec pool R-LIFE-2).
    pub(crate) fn retire_over(&mut self, id: SessionId, now: Instant) -> Option<S> {
        let session = self.find(id)?;
        session.is_over(now).then(|| session.handle.take())?
    }

    /// Another session takes the place of the one that should have ended first, if there is such a one.
    pub(crate) fn retire_replaced(&mut self, now: Instant) -> Option<S> {
        let ending = self
            .all
            .iter_mut()
            .filter(|session| session.handle.is_some() && session.is_past_end(now));
        ending.min_by_key(|session| session.ends)?.handle.take()
    }

    /// Retires those whose time is over, those that have been idle for too long, and of the ones beyond the first those that
    /// have been idle for a while.
    pub(crate) fn retire_old(&mut self, now: Instant) -> Vec<S> {
        let mut retired = Vec::new();
        let session_idle = self.limits.session_idle;
        for session in &mut self.all {
            if session.is_over(now) || session.has_rested(session_idle, now) {
                retired.extend(session.handle.take());
            }
        }
        while let Some(extra) = self.longest_idle_extra(now) {
            retired.extend(self.retire(extra));
        }
        retired
    }

    /// Of those beyond the first the one that has been idle for longest, if that is long enough (http2 rule 5).
    fn longest_idle_extra(&self, now: Instant) -> Option<SessionId> {
        let open = self.all.iter().filter(|session| session.handle.is_some());
        open.filter(|session| session.has_rested(SHRINK, now) && self.is_extra(session.id, now))
            .min_by_key(|session| session.idle_since)
            .map(|session| session.id)
    }

    /// Whether another session stays open for new streams.
    fn is_extra(&self, id: SessionId, now: Instant) -> bool {
        self.all
            .iter()
            .any(|other| other.id != id && other.is_trusted(now))
    }

    /// When the first session will have to be looked at: because its time ends, because it has been ending for long enough, or
    /// because it has been idle for too long.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Instant> {
        let open = self.all.iter().filter(|session| session.handle.is_some());
        open.flat_map(|session| {
            let ends = session.ends.and_then(|ends| {
                if session.is_past_end(now) && session.idle_since.is_none() {
                    ends.checked_add(LAST_ORDERS)
                } else {
                    Some(ends)
                }
            });
            let idle = session.idle_since.and_then(|since| {
                let most = self.limits.session_idle;
                let extra = self.is_extra(session.id, now);
                since.checked_add(if extra { most.min(SHRINK) } else { most })
            });
            ends.into_iter().chain(idle)
        })
        .min()
    }

    /// Retires every session.
    pub(crate) fn retire_all(&mut self) -> Vec<S> {
        self.all
            .iter_mut()
            .filter_map(|session| session.handle.take())
            .collect()
    }

    /// Retires those without streams.
    pub(crate) fn retire_idle(&mut self) -> Vec<S> {
        self.all
            .iter_mut()
            .filter(|session| session.active == 0)
            .filter_map(|session| session.handle.take())
            .collect()
    }

    /// Retires the one that has been without a stream for longest.
    pub(crate) fn retire_longest_idle(&mut self) -> Option<S> {
        self.all
            .iter_mut()
            .filter(|session| session.handle.is_some() && session.idle_since.is_some())
            .min_by_key(|session| session.idle_since)?
            .handle
            .take()
    }

    /// Since when the one that is idle longest is idle.
    pub(crate) fn oldest_idle(&self) -> Option<Instant> {
        self.all
            .iter()
            .filter(|session| session.handle.is_some())
            .filter_map(|session| session.idle_since)
            .min()
    }

    /// Whether any could lend a slot.
    pub(crate) fn have_room(&self, now: Instant) -> bool {
        self.all.iter().any(|session| session.room(now) > 0)
    }

    /// Sessions that take new streams now or will again, and are to stay: these count against the limit on sessions.
    pub(crate) fn trusted(&self, now: Instant) -> usize {
        self.all
            .iter()
            .filter(|session| session.is_trusted(now))
            .count()
    }

    /// The newest of those, or 0.
    pub(crate) fn newest_trusted(&self, now: Instant) -> SessionId {
        let trusted = self.all.iter().filter(|session| session.is_trusted(now));
        trusted.map(|session| session.id).max().unwrap_or(0)
    }

    /// The newest of those that take new streams now or will again, be it not for long; or 0.
    pub(crate) fn newest_serving(&self, now: Instant) -> SessionId {
        let serving = self.all.iter().filter(|session| session.serves(now));
        serving.map(|session| session.id).max().unwrap_or(0)
    }

    /// The newest that is known and not newer than `id`, or 0. Who wants a session newer than either wants the same.
    pub(crate) fn newest_up_to(&self, id: SessionId) -> SessionId {
        let known = self.all.iter().map(|session| session.id);
        known.filter(|known| *known <= id).max().unwrap_or(0)
    }

    /// Whether one serves on only until another is there.
    pub(crate) fn have_ending(&self, now: Instant) -> bool {
        self.all.iter().any(|session| {
            session.handle.is_some() && session.is_past_end(now) && !session.is_over(now)
        })
    }

    /// Whether another session should share the load (http2 rule 5).
    pub(crate) fn are_crowded(&self, now: Instant) -> bool {
        let Some(spread) = self.limits.spread else {
            return false;
        };
        let (mut open, mut busy) = (0, 0);
        for session in self.all.iter().filter(|session| session.is_trusted(now)) {
            open += 1;
            let long = |since: Instant| now.saturating_duration_since(since) > CROWDED_FOR;
            busy += usize::from(session.busy_since.is_some_and(long));
        }
        open > 0 && open < spread && busy == open
    }

    /// How many streams a further session is likely to take.
    pub(crate) fn expected_streams(&self) -> usize {
        self.expected
    }

    /// Whether a session has not ended.
    pub(crate) fn knows(&self, id: SessionId) -> bool {
        self.all.iter().any(|session| session.id == id)
    }

    /// All sessions, retiring ones too.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The handles of those that take streams.
    pub(crate) fn handles(&self) -> impl Iterator<Item = &S> {
        self.all
            .iter()
            .filter_map(|session| session.handle.as_ref())
    }

    /// Sessions that take streams and have none.
    pub(crate) fn idle(&self) -> usize {
        self.all
            .iter()
            .filter(|session| session.handle.is_some() && session.active == 0)
            .count()
    }

    /// Open streams of all sessions.
    pub(crate) fn streams(&self) -> usize {
        self.all.iter().map(|session| session.active).sum()
    }

    fn find(&mut self, id: SessionId) -> Option<&mut Session<S>> {
        self.all.iter_mut().find(|session| session.id == id)
    }

    /// What holds for each of them.
    pub(crate) fn check(&self) -> Result<(), String> {
        let most = self.limits.max_requests.map(|most| most.max(1));
        let mut before = 0;
        for session in &self.all {
            let broken = if session.id <= before || session.id > self.last_id {
                "out of order"
            } else if session.idle_since.is_some() != (session.active == 0) {
                "idle with streams, or without streams not idle"
            } else if session.busy_since.is_some() != (session.active > BUSY) {
                "busy without enough streams, or with enough of them not busy"
            } else if most.is_some_and(|most| session.lent > most) {
                "lent more often than it may be"
            } else if most.is_some_and(|most| session.lent == most) && session.handle.is_some() {
                "open although it may not be lent again"
            } else if session.active as u64 > session.lent {
                "holding more streams than it has lent"
            } else {
                before = session.id;
                continue;
            };
            return Err(format!("session {} is {broken}", session.id));
        }
        Ok(())
    }
}

impl<S> Session<S> {
    /// Streams that could be opened on it.
    fn room(&self, now: Instant) -> usize {
        if self.serves(now) {
            self.max_streams.saturating_sub(self.active)
        } else {
            0
        }
    }

    /// Whether it takes new streams now or will again.
    fn serves(&self, now: Instant) -> bool {
        self.handle.is_some() && !self.suspect && !self.is_over(now)
    }

    /// Whether it does, and is to stay.
    fn is_trusted(&self, now: Instant) -> bool {
        self.handle.is_some() && !self.suspect && !self.is_past_end(now)
    }

    fn is_past_end(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }

    /// Whether its time has ended and it needs no replacement, or has waited long enough for one.
    fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| {
            let late = now.saturating_duration_since(ends) >= LAST_ORDERS;
            ends <= now && (self.idle_since.is_some() || late)
        })
    }

    fn has_rested(&self, time: Duration, now: Instant) -> bool {
        self.idle_since
            .is_some_and(|since| now.saturating_duration_since(since) >= time)
    }
}

/// What a peer is expected to allow before its settings say (the value that the framing layer starts with, too).
const EXPECTED_STREAMS: usize = 100;

/// A session with more streams than this is busy: another could share its load (http2 rule 5).
const BUSY: usize = 16;

/// How long all sessions must have been busy before another is opened to share their load.
const CROWDED_FOR: Duration = Duration::from_millis(100);

/// How long a session beyond the first may be without streams.
const SHRINK: Duration = Duration::from_secs(10);

/// How long a session whose time has ended serves on while nothing replaces it.
const LAST_ORDERS: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> HostLimits {
        HostLimits {
            connections: None,
            line: None,
            sessions: 4,
            spread: None,
            max_requests: None,
            session_idle: Duration::from_secs(55),
            hedge: Duration::from_millis(250),
        }
    }

    fn sessions(max_streams: &[usize]) -> (Sessions<&'static str>, Instant) {
        let now = Instant::now();
        let mut sessions = Sessions::new(limits());
        for (at, max) in max_streams.iter().enumerate() {
            sessions.add(["one", "two", "three"][at], *max, now, None);
        }
        (sessions, now)
    }

    fn take(sessions: &mut Sessions<&'static str>, now: Instant) -> Option<SessionId> {
        let taken = sessions.take_slot(0, now).map(|(id, _)| id);
        sessions.check().unwrap();
        taken
    }

    fn slots(sessions: &mut Sessions<&'static str>, now: Instant) -> Vec<SessionId> {
        std::iter::from_fn(|| take(sessions, now)).collect()
    }

    fn release(sessions: &mut Sessions<&'static str>, id: SessionId, now: Instant) {
        sessions.free_slot(id);
        sessions.rest(id, now);
        sessions.check().unwrap();
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Ruling 12, and spec pool R-H2-1: never more than the peer allows.
    #[test]
    fn the_least_busy_session_gets_the_stream() {
        let (mut sessions, now) = sessions(&[2, 3]);
        assert_eq!(slots(&mut sessions, now), [1, 2, 2, 1, 2]);
        assert!(!sessions.have_room(now));
        release(&mut sessions, 2, now);
        release(&mut sessions, 1, now);
        assert_eq!(slots(&mut sessions, now), [1, 2]);
    }

    #[test]
    fn among_equals_the_one_used_last_gets_it() {
        let (mut sessions, now) = sessions(&[9, 9, 9]);
        assert_eq!(take(&mut sessions, now), Some(1));
        assert_eq!(take(&mut sessions, now), Some(2));
        release(&mut sessions, 2, now);
        release(&mut sessions, 1, now);
        assert_eq!(take(&mut sessions, now), Some(2));
    }

    /// spec pool R-H2-4 and test 33.
    #[test]
    fn a_lower_limit_stops_new_streams_and_kills_none() {
        let (mut sessions, now) = sessions(&[10]);
        for _ in 0..6 {
            take(&mut sessions, now).unwrap();
        }
        sessions.set_max_streams(1, 0);
        assert_eq!(take(&mut sessions, now), None);
        assert_eq!((sessions.streams(), sessions.trusted(now)), (6, 1));
        sessions.set_max_streams(1, 5);
        assert_eq!(take(&mut sessions, now), None, "six are open still");
        release(&mut sessions, 1, now);
        assert_eq!(take(&mut sessions, now), None);
        release(&mut sessions, 1, now);
        assert_eq!(slots(&mut sessions, now).len(), 1);
    }

    /// spec pool R-H2-6 and R-H2-7.
    #[test]
    fn retiring_and_suspect_sessions_get_no_streams() {
        let (mut sessions, now) = sessions(&[9, 9]);
        take(&mut sessions, now).unwrap();
        assert_eq!(sessions.retire(2), Some("two"));
        assert_eq!(sessions.retire(2), None, "it has been retired");
        assert_eq!((sessions.trusted(now), sessions.len()), (1, 2));
        sessions.set_suspect(1, true);
        assert_eq!(take(&mut sessions, now), None);
        assert_eq!(sessions.trusted(now), 0);
        sessions.set_suspect(1, false);
        assert_eq!(take(&mut sessions, now), Some(1));
        assert_eq!(sessions.gone(2), None);
        assert_eq!(sessions.gone(1), Some("one"));
        assert_eq!(sessions.len(), 0);
    }

    /// spec pool R-H2-8: the idle timer never runs while a stream is open.
    #[test]
    fn only_sessions_without_streams_are_idle() {
        let (mut sessions, now) = sessions(&[9, 9]);
        let later = now + seconds(60);
        let busy = take(&mut sessions, now).unwrap();
        assert_eq!(sessions.idle(), 1);
        assert_eq!(sessions.retire_old(later), ["two"]);
        assert_eq!(sessions.next_look(later), None);
        release(&mut sessions, busy, later);
        assert_eq!(sessions.oldest_idle(), Some(later));
        assert_eq!(sessions.next_look(later), Some(later + seconds(55)));
        assert_eq!(sessions.retire_longest_idle(), Some("one"));
        assert_eq!(sessions.oldest_idle(), None);
    }

    /// http2 rule 5: what is more than one goes soon, the one that was idle first before the others.
    #[test]
    fn extra_sessions_go_before_the_last() {
        let (mut sessions, now) = sessions(&[9, 9, 9]);
        for id in [1, 2, 3] {
            assert_eq!(take(&mut sessions, now), Some(id));
        }
        for (id, at) in [(2, 1), (1, 2), (3, 3)] {
            release(&mut sessions, id, now + seconds(at));
        }
        for (at, retired, next) in [
            (10, &[][..], 11),
            (11, &["two"], 12),
            (12, &["one"], 58),
            (57, &[], 58),
            (58, &["three"], 0),
        ] {
            let at = now + seconds(at);
            assert_eq!(sessions.retire_old(at), retired);
            let next = Some(now + seconds(next)).filter(|_| next > 0);
            assert_eq!(sessions.next_look(at), next);
        }
    }

    /// One whose peer may be gone is not the one to keep, and one that is the only one besides it is.
    #[test]
    fn a_suspect_session_is_no_reason_to_let_another_go() {
        for (suspect, kept) in [(1, "two"), (2, "one")] {
            let (mut sessions, now) = sessions(&[9, 9]);
            sessions.set_suspect(suspect, true);
            let at = now + seconds(10);
            assert_eq!(sessions.next_look(now), Some(at));
            assert_eq!(sessions.retire_old(at).len(), 1);
            assert_eq!(sessions.retire_old(at).len(), 0);
            assert_eq!(sessions.retire_all(), [kept]);
        }
    }

    /// spec pool R-H2-6 and R-LIFE-2.
    #[test]
    fn a_session_past_its_end_serves_on_until_it_is_replaced_or_idle() {
        for (case, at, retired) in [
            ("idle", 1, true),
            ("busy", 1, false),
            ("busy", 10, false),
            ("busy", 11, true),
            ("replaced", 1, true),
        ] {
            let (mut sessions, now) = sessions(&[]);
            let ends = now + seconds(1);
            sessions.add("old", 9, now, Some(ends));
            assert_eq!(sessions.next_look(now), Some(ends));
            if case != "idle" {
                take(&mut sessions, now).unwrap();
                assert_eq!(sessions.next_look(ends), Some(ends + seconds(10)));
                assert!(sessions.have_ending(ends));
            }
            assert!(sessions.retire_old(now).is_empty());
            assert_eq!((sessions.trusted(now), sessions.trusted(ends)), (1, 0));
            let at = now + seconds(at);
            if case == "replaced" {
                sessions.add("new", 9, at, None);
                assert_eq!(sessions.retire_replaced(at), Some("old"));
                assert_eq!(sessions.retire_replaced(at), None);
            } else {
                assert_eq!(sessions.have_room(at), !retired, "{case} at {at:?}");
                assert_eq!(!sessions.retire_old(at).is_empty(), retired, "{case}");
            }
            sessions.check().unwrap();
        }
    }

    /// Of several, the one that should have ended first is replaced first.
    #[test]
    fn one_newcomer_replaces_one_session() {
        let (mut sessions, now) = sessions(&[]);
        for (name, ends) in [("one", 3), ("two", 1), ("three", 2)] {
            sessions.add(name, 9, now, Some(now + seconds(ends)));
            take(&mut sessions, now).unwrap();
        }
        let at = now + seconds(2);
        assert_eq!(sessions.retire_replaced(at), Some("two"));
        assert_eq!(sessions.retire_replaced(at), Some("three"));
        assert_eq!(sessions.retire_replaced(at), None);
    }

    /// The last slot takes the pool's own handle along.
    #[test]
    fn a_session_lends_no_more_slots_than_it_may() {
        for (most, lends) in [(Some(3), 3), (Some(1), 1), (Some(0), 1), (None, 9)] {
            let now = Instant::now();
            let max_requests = most;
            let mut sessions = Sessions::new(HostLimits {
                max_requests,
                ..limits()
            });
            sessions.add("one", 9, now, None);
            for left in (0..lends).rev() {
                assert_eq!(take(&mut sessions, now), Some(1));
                assert_eq!(
                    sessions.trusted(now),
                    usize::from(left > 0 || most.is_none())
                );
            }
            assert_eq!(take(&mut sessions, now), None, "{most:?}");
            release(&mut sessions, 1, now);
            assert_eq!(take(&mut sessions, now).is_some(), most.is_none());
            assert_eq!(sessions.retire(1).is_some(), most.is_none());
        }
    }

    /// http2 rule 5.
    #[test]
    fn sessions_are_crowded_when_all_have_been_busy_for_a_while() {
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let mut sessions = Sessions::new(HostLimits {
            spread: Some(2),
            ..limits()
        });
        sessions.add("one", 99, now, None);
        for _ in 0..16 {
            take(&mut sessions, now).unwrap();
        }
        assert!(!sessions.are_crowded(at(999)), "sixteen are not many");
        take(&mut sessions, at(1000)).unwrap();
        for (millis, crowded) in [(1000, false), (1100, false), (1101, true)] {
            assert_eq!(sessions.are_crowded(at(millis)), crowded, "{millis}");
        }
        // A slot that is lent again at once is no pause.
        sessions.free_slot(1);
        take(&mut sessions, at(1101)).unwrap();
        sessions.rest(1, at(1101));
        assert!(sessions.are_crowded(at(1101)));
        release(&mut sessions, 1, at(1101));
        take(&mut sessions, at(1102)).unwrap();
        assert!(!sessions.are_crowded(at(1200)), "there was a pause");
        assert!(sessions.are_crowded(at(1203)));
        sessions.add("two", 99, at(1203), None);
        assert!(!sessions.are_crowded(at(1203)), "two are as many as wanted");
    }
}
