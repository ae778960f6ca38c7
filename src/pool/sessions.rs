//! The HTTP/2 sessions of one origin and their stream slots (spec pool R-H2).
//!
//! A session is shared: each caller holds one of its slots, counted here, because the framing layer below would queue without
//! a bound. Which session gets the next stream, and which get none any more, is decided here; `host.rs` owns the line of those
//! who wait. Pure.
//!
//! ```text
//!   add ──▶ open ──retire──▶ retiring ──gone──▶ (forgotten)
//!             └───────────────gone──────────────────▲
//! ```

use tokio::time::Instant;

/// Names a session of one origin.
pub(crate) type SessionId = u64;

/// The sessions, by the handles `S` with which streams are opened on them.
#[derive(Debug)]
pub(crate) struct Sessions<S> {
    all: Vec<Session<S>>,
    next_id: SessionId,
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
    /// Since when no stream is open.
    idle_since: Option<Instant>,
    /// When it is to be retired because of its age.
    ends: Option<Instant>,
}

#[cfg_attr(
    not(test),
    allow(dead_code, reason = "TLS offers http/1.1 alone so far")
)]
impl<S> Sessions<S> {
    pub(crate) fn new() -> Self {
        Self {
            all: Vec::new(),
            next_id: 0,
            uses: 0,
            expected: EXPECTED_STREAMS,
        }
    }

    /// A session is open and takes `max_streams` streams at once. It counts as idle until the first.
    pub(crate) fn add(
        &mut self,
        handle: S,
        max_streams: usize,
        now: Instant,
        ends: Option<Instant>,
    ) -> SessionId {
        self.next_id += 1;
        self.expected = max_streams.max(1);
        self.all.push(Session {
            id: self.next_id,
            handle: Some(handle),
            active: 0,
            max_streams,
            suspect: false,
            last_use: 0,
            idle_since: Some(now),
            ends,
        });
        self.next_id
    }

    /// A slot for one more stream: of the session with the fewest, among equals of the one used last (ruling 12).
    pub(crate) fn take_slot(&mut self) -> Option<(SessionId, S)>
    where
        S: Clone,
    {
        let chosen = self
            .all
            .iter()
            .filter(|session| session.has_room())
            .min_by_key(|session| (session.active, u64::MAX - session.last_use))?
            .id;
        self.take_slot_of(chosen)
    }

    /// A slot of one session, if it has one.
    pub(crate) fn take_slot_of(&mut self, id: SessionId) -> Option<(SessionId, S)>
    where
        S: Clone,
    {
        let chosen = self
            .all
            .iter_mut()
            .find(|session| session.id == id && session.has_room())?;
        let handle = chosen.handle.clone()?;
        self.uses += 1;
        chosen.last_use = self.uses;
        chosen.active += 1;
        chosen.idle_since = None;
        Some((chosen.id, handle))
    }

    /// A stream is done; answers whether it was the session's last.
    pub(crate) fn free_slot(&mut self, id: SessionId, now: Instant) -> bool {
        let Some(session) = self.find(id) else {
            return false;
        };
        session.active = session.active.saturating_sub(1);
        if session.active == 0 {
            session.idle_since = Some(now);
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
        self.all.swap_remove(at).handle
    }

    /// Retires all that are past their age, or idle since before `idle_before`.
    pub(crate) fn retire_old(&mut self, now: Instant, idle_before: Option<Instant>) -> Vec<S> {
        let old = |session: &&mut Session<S>| {
            let aged = session.ends.is_some_and(|ends| ends <= now);
            let idle = session
                .idle_since
                .is_some_and(|since| idle_before.is_some_and(|before| since <= before));
            aged || idle
        };
        self.all
            .iter_mut()
            .filter(old)
            .filter_map(|session| session.handle.take())
            .collect()
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

    /// Streams that could be opened at once.
    pub(crate) fn free_slots(&self) -> usize {
        self.all
            .iter()
            .filter(|session| session.has_room())
            .map(|session| session.max_streams - session.active)
            .fold(0, usize::saturating_add)
    }

    /// Sessions that take new streams now or will again: these count against the limit on sessions.
    pub(crate) fn trusted(&self) -> usize {
        self.all
            .iter()
            .filter(|session| session.handle.is_some() && !session.suspect)
            .count()
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
}

impl<S> Session<S> {
    fn has_room(&self) -> bool {
        self.handle.is_some() && !self.suspect && self.active < self.max_streams
    }
}

/// What a peer is expected to allow before its settings say (the value that the framing layer starts with, too).
const EXPECTED_STREAMS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sessions(max_streams: &[usize]) -> (Sessions<&'static str>, Instant) {
        let now = Instant::now();
        let mut sessions = Sessions::new();
        for (at, max) in max_streams.iter().enumerate() {
            sessions.add(["one", "two", "three"][at], *max, now, None);
        }
        (sessions, now)
    }

    fn slots(sessions: &mut Sessions<&'static str>) -> Vec<SessionId> {
        std::iter::from_fn(|| sessions.take_slot())
            .map(|(id, _)| id)
            .collect()
    }

    /// Ruling 12, and spec pool R-H2-1: never more than the peer allows.
    #[test]
    fn the_least_busy_session_gets_the_stream() {
        let (mut sessions, now) = sessions(&[2, 3]);
        assert_eq!(slots(&mut sessions), [1, 2, 2, 1, 2]);
        assert_eq!(sessions.free_slots(), 0);
        sessions.free_slot(2, now);
        sessions.free_slot(1, now);
        assert_eq!(slots(&mut sessions), [1, 2]);
    }

    #[test]
    fn among_equals_the_one_used_last_gets_it() {
        let (mut sessions, now) = sessions(&[9, 9, 9]);
        let (first, _) = sessions.take_slot().unwrap();
        sessions.free_slot(first, now);
        assert_eq!(sessions.take_slot().map(|(id, _)| id), Some(first));
    }

    /// spec pool R-H2-4 and test 33.
    #[test]
    fn a_lower_limit_stops_new_streams_and_kills_none() {
        let (mut sessions, now) = sessions(&[10]);
        for _ in 0..6 {
            sessions.take_slot().unwrap();
        }
        sessions.set_max_streams(1, 0);
        assert!(sessions.take_slot().is_none());
        assert_eq!((sessions.streams(), sessions.trusted()), (6, 1));
        sessions.set_max_streams(1, 5);
        assert!(sessions.take_slot().is_none(), "six are open still");
        sessions.free_slot(1, now);
        assert!(sessions.take_slot().is_none());
        sessions.free_slot(1, now);
        assert_eq!(slots(&mut sessions).len(), 1);
    }

    /// spec pool R-H2-6 and R-H2-7.
    #[test]
    fn retiring_and_suspect_sessions_get_no_streams() {
        let (mut sessions, _) = sessions(&[9, 9]);
        sessions.take_slot().unwrap();
        assert_eq!(sessions.retire(2), Some("two"));
        assert_eq!(sessions.retire(2), None, "it has been retired");
        assert_eq!((sessions.trusted(), sessions.len()), (1, 2));
        sessions.set_suspect(1, true);
        assert!(sessions.take_slot().is_none());
        assert_eq!(sessions.trusted(), 0);
        sessions.set_suspect(1, false);
        assert!(sessions.take_slot().is_some());
        assert_eq!(sessions.gone(2), None);
        assert_eq!(sessions.gone(1), Some("one"));
        assert_eq!(sessions.len(), 0);
    }

    /// spec pool R-H2-8: the idle timer never runs while a stream is open.
    #[test]
    fn only_sessions_without_streams_are_idle() {
        let (mut sessions, now) = sessions(&[9, 9]);
        let later = now + Duration::from_secs(60);
        let (busy, _) = sessions.take_slot().unwrap();
        assert_eq!(sessions.idle(), 1);
        assert_eq!(sessions.retire_old(later, Some(now)).len(), 1);
        assert_eq!(sessions.retire_old(later, Some(later)).len(), 0);
        sessions.free_slot(busy, later);
        assert_eq!(sessions.oldest_idle(), Some(later));
        assert_eq!(sessions.retire_longest_idle(), Some("one"));
        assert_eq!(sessions.oldest_idle(), None);
    }

    #[test]
    fn a_session_past_its_age_retires_even_when_busy() {
        let (mut sessions, now) = sessions(&[]);
        let ends = now + Duration::from_secs(1);
        sessions.add("old", 9, now, Some(ends));
        sessions.take_slot().unwrap();
        assert!(sessions.retire_old(now, None).is_empty());
        assert_eq!(sessions.retire_old(ends, None), ["old"]);
        assert_eq!(sessions.streams(), 1);
    }
}
