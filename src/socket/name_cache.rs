//! What is remembered of names: answers until they expire, and the lookups that run.
//!
//! Pure: the time is an argument, and what a running lookup is, is the caller's affair, so that tests use integers. `names`
//! keeps it behind a lock.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// The addresses of a name. The same answer is the same allocation.
pub(super) type Answer = Arc<[SocketAddr]>;

/// Answers by host, and running lookups by host and `R`, the runtime; `L` is a hold on a lookup.
#[derive(Debug)]
pub(super) struct NameCache<L, R> {
    answers: HashMap<Arc<str>, Held>,
    running: HashMap<(Arc<str>, R), Running<L>>,
    /// Goes up with every use of an answer, and with every lookup.
    clock: u64,
    /// The running lookups are looked through for ended ones when they are so many.
    sweep_at: usize,
}

#[derive(Debug)]
struct Held {
    answer: Answer,
    expires: Instant,
    used: u64,
}

#[derive(Debug)]
struct Running<L> {
    id: LookupId,
    begun: Instant,
    hold: L,
}

/// Tells a lookup of a name from a later one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LookupId(u64);

impl<L, R> Default for NameCache<L, R> {
    fn default() -> Self {
        Self {
            answers: HashMap::new(),
            running: HashMap::new(),
            clock: 0,
            sweep_at: 0,
        }
    }
}

impl<L, R: Clone + Eq + Hash> NameCache<L, R> {
    /// The answer that holds at `now`.
    pub(super) fn answer(&mut self, host: &str, now: Instant) -> Option<Answer> {
        let held = self.answers.get_mut(host)?;
        if held.expires <= now {
            self.answers.remove(host);
            return None;
        }
        self.clock += 1;
        held.used = self.clock;
        Some(Arc::clone(&held.answer))
    }

    /// The lookup that runs for a host on a runtime, unless it has run for so long that another one may be luckier.
    pub(super) fn running(&self, asked: &(Arc<str>, R), now: Instant) -> Option<&L> {
        let running = self.running.get(asked)?;
        let age = now.saturating_duration_since(running.begun);
        (age < JOINABLE).then_some(&running.hold)
    }

    /// A lookup begins. `ended` says of others whether they have; it is asked now and then, so that their number is bounded
    /// by twice that of those that run.
    pub(super) fn begin(
        &mut self,
        asked: &(Arc<str>, R),
        now: Instant,
        hold: impl FnOnce(LookupId) -> L,
        ended: impl Fn(&L) -> bool,
    ) {
        if self.running.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.running.retain(|_, running| !ended(&running.hold));
            self.sweep_at = self.running.len() * 2;
        }
        self.clock += 1;
        let id = LookupId(self.clock);
        let running = Running {
            id,
            begun: now,
            hold: hold(id),
        };
        self.running.insert(asked.clone(), running);
    }

    /// A lookup has ended. Its answer is remembered, unless it was replaced or everything was forgotten meanwhile.
    pub(super) fn end(
        &mut self,
        asked: &(Arc<str>, R),
        id: LookupId,
        answer: Option<(&Answer, Option<Duration>)>,
        now: Instant,
    ) {
        if self.running.get(asked).is_none_or(|other| other.id != id) {
            return;
        }
        self.running.remove(asked);
        let (host, _) = asked;
        let Some((answer, ttl)) = answer else {
            return;
        };
        let ttl = ttl.unwrap_or(UNKNOWN_TTL).min(MAX_TTL);
        if ttl.is_zero() {
            return;
        }
        if self.answers.len() >= MAX_NAMES && !self.answers.contains_key(host) {
            self.make_room(now);
        }
        self.clock += 1;
        let held = Held {
            answer: Arc::clone(answer),
            expires: now + ttl,
            used: self.clock,
        };
        self.answers.insert(Arc::clone(host), held);
    }

    /// The answer has turned out to be of no use.
    pub(super) fn forget(&mut self, host: &str, answer: &Answer) {
        let same = |held: &Held| Arc::ptr_eq(&held.answer, answer);
        if self.answers.get(host).is_some_and(same) {
            self.answers.remove(host);
        }
    }

    /// Nothing of what was asked before counts any more.
    pub(super) fn forget_all(&mut self) {
        self.answers.clear();
        self.running.clear();
    }

    /// Forgets what has expired, or else what was not used for longest. It looks at every name, which costs less than the
    /// lookup that brought the new one.
    fn make_room(&mut self, now: Instant) {
        self.answers.retain(|_, held| held.expires > now);
        if self.answers.len() >= MAX_NAMES {
            let oldest = self.answers.iter().min_by_key(|(_, held)| held.used);
            if let Some(host) = oldest.map(|(host, _)| Arc::clone(host)) {
                self.answers.remove(&host);
            }
        }
    }
}

/// Names that are remembered (security D1).
const MAX_NAMES: usize = 1_024;

/// How long an answer is remembered whose time nobody knows, such as one of getaddrinfo (spec README).
const UNKNOWN_TTL: Duration = Duration::from_secs(30);

/// No answer is remembered for longer, whatever it says: a mistake in a zone shall pass (RFC 8767 section 4).
const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A lookup that has run for so long is joined no more (security D4). Who waits for it already still does.
const JOINABLE: Duration = Duration::from_secs(10);

/// Running lookups are swept when there are so many.
const FIRST_SWEEP: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: usize) -> (Arc<str>, u8) {
        (format!("host{number}.test").into(), 0)
    }

    fn answer(number: usize) -> Answer {
        let number = u16::try_from(number).unwrap();
        Arc::from([SocketAddr::from(([192, 0, 2, 1], number))])
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn begin(cache: &mut NameCache<LookupId, u8>, host: &(Arc<str>, u8), now: Instant) -> LookupId {
        cache.begin(host, now, |id| id, |_| false);
        *cache.running(host, now).unwrap()
    }

    fn learn(
        cache: &mut NameCache<LookupId, u8>,
        number: usize,
        ttl: Option<Duration>,
        now: Instant,
    ) -> Answer {
        let (host, answer) = (host(number), answer(number));
        let id = begin(cache, &host, now);
        cache.end(&host, id, Some((&answer, ttl)), now);
        answer
    }

    #[test]
    fn an_answer_holds_for_its_time() {
        // (told, held from, but not from)
        let day = 24 * 60 * 60;
        for (ttl, last, first) in [
            (None, seconds(29), seconds(30)),
            (Some(seconds(1)), Duration::from_millis(999), seconds(1)),
            (Some(seconds(90)), seconds(89), seconds(90)),
            (Some(Duration::MAX), seconds(7 * day - 1), seconds(7 * day)),
        ] {
            let (mut cache, now) = (NameCache::default(), Instant::now());
            let answer = learn(&mut cache, 1, ttl, now);
            assert_eq!(cache.answer("host1.test", now + last), Some(answer));
            assert_eq!(cache.answer("host1.test", now + first), None, "{ttl:?}");
            assert!(cache.answers.is_empty());
        }
        let (mut cache, now) = (NameCache::default(), Instant::now());
        learn(&mut cache, 1, Some(Duration::ZERO), now);
        assert_eq!(cache.answer("host1.test", now), None);
    }

    #[test]
    fn a_failure_is_not_remembered() {
        let (mut cache, now) = (NameCache::default(), Instant::now());
        let id = begin(&mut cache, &host(1), now);
        cache.end(&host(1), id, None, now);
        assert_eq!(cache.running(&host(1), now), None);
        assert_eq!(cache.answer("host1.test", now), None);
    }

    #[test]
    fn a_lookup_is_joined_while_it_is_young() {
        let (mut cache, now) = (NameCache::default(), Instant::now());
        let id = begin(&mut cache, &host(1), now);
        assert_eq!(cache.running(&host(1), now + seconds(9)), Some(&id));
        assert_eq!(cache.running(&host(1), now + seconds(10)), None);
        assert_eq!(cache.running(&host(2), now), None);
        // The one that was replaced says nothing any more.
        let later = begin(&mut cache, &host(1), now + seconds(10));
        cache.end(&host(1), id, Some((&answer(1), None)), now + seconds(11));
        assert_eq!(cache.answer("host1.test", now + seconds(11)), None);
        cache.end(&host(1), later, Some((&answer(2), None)), now + seconds(12));
        assert_eq!(
            cache.answer("host1.test", now + seconds(12)),
            Some(answer(2))
        );
    }

    #[test]
    fn names_are_bounded_and_the_longest_unused_goes_first() {
        let (mut cache, now) = (NameCache::default(), Instant::now());
        for number in 0..MAX_NAMES {
            learn(&mut cache, number, None, now);
        }
        assert!(cache.answer("host0.test", now).is_some());
        learn(&mut cache, MAX_NAMES, None, now);
        assert_eq!(cache.answers.len(), MAX_NAMES);
        assert!(cache.answer("host0.test", now).is_some());
        assert!(cache.answer("host1.test", now).is_none());
        // An answer that takes the place of its own needs no room.
        learn(&mut cache, 5, None, now);
        assert_eq!(cache.answers.len(), MAX_NAMES);
        // What has expired goes before what holds.
        learn(&mut cache, MAX_NAMES + 1, None, now + seconds(60));
        assert_eq!(cache.answers.len(), 1);
    }

    #[test]
    fn ended_lookups_are_swept() {
        let (mut cache, now) = (NameCache::default(), Instant::now());
        for number in 0..10 * FIRST_SWEEP {
            cache.begin(&host(number), now, |id| id, |_| true);
            assert!(cache.running.len() <= FIRST_SWEEP);
        }
        for number in 0..10 * FIRST_SWEEP {
            cache.begin(&host(number), now, |id| id, |_| false);
        }
        assert_eq!(cache.running.len(), 10 * FIRST_SWEEP);
    }

    #[test]
    fn forgetting() {
        let (mut cache, now) = (NameCache::default(), Instant::now());
        let old = learn(&mut cache, 1, None, now);
        let new = learn(&mut cache, 1, None, now);
        // Somebody else's failure says nothing of a newer answer.
        cache.forget("host1.test", &old);
        assert!(cache.answer("host1.test", now).is_some());
        cache.forget("host1.test", &new);
        assert_eq!(cache.answer("host1.test", now), None);
        // An answer to what was asked before everything was forgotten is not remembered either.
        learn(&mut cache, 2, None, now);
        let id = begin(&mut cache, &host(3), now);
        cache.forget_all();
        cache.end(&host(3), id, Some((&answer(3), None)), now);
        assert!(cache.answers.is_empty() && cache.running.is_empty());
    }
}
