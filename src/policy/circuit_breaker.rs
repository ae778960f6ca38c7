//! A circuit breaker: an origin that keeps failing is left alone for a while, and then asked carefully.
//!
//! ```text
//!             too many failures                    the time is over, and a call comes
//!   Closed ────────────────────────▶ Open ◀──────────────────────────────▶ HalfOpen
//!     ▲                               a probe failed: open for twice as long    │
//!     └──────────────────────── close_after probes succeeded ───────────────────┘
//!   isolate(): Isolated, from anywhere, until close()
//! ```
//! The state is one atomic word with a generation, which every change of state counts up. An attempt takes a [`Pass`] in and
//! reports on it; a report of an older generation is late and changes nothing. A probe's pass that is dropped without a
//! report gives its place back.

use std::num::NonZeroU32;
use std::sync::PoisonError;
use std::time::Duration;

use super::atomics::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering};
use super::backoff::equal_jitter;
use super::{Moment, Overrides, Report, with};
use crate::config::CircuitState;
use crate::error::{Error, Result};
use crate::url::{IntoUrl, Origin};

/// When an origin is left alone because it keeps failing: calls then fail at once with
/// [`ErrorKind::CircuitOpen`](crate::ErrorKind), which costs neither side anything.
///
/// Failures are: no connection, a connection that fails or a time limit that strikes before the response head, and the statuses
/// 502, 503 and 504. Any other status is a success, except 408, 429 and 500, which say nothing either way, as do calls that the
/// caller drops, errors of this side, and kept connections that turn out to be closed. A call whose total time limit strikes
/// counts if its request had been unanswered for a second.
///
/// ```
/// use std::time::Duration;
/// use sockeye::{CircuitBreaker, Client};
///
/// let breaker = CircuitBreaker::default().with_open(Duration::from_secs(10));
/// let client = Client::builder().circuit_breaker(breaker).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CircuitBreaker {
    /// It opens after so many failures in a row. Default 5; `None` looks at the ratio only.
    pub consecutive: Option<NonZeroU32>,
    /// It opens when this share of the calls in the window fails, from above 0 to 1. Default 0.5; `None` looks at failures in a
    /// row only.
    pub ratio: Option<f64>,
    /// How long a window is, from its first failure on. Default 10 s.
    pub window: Duration,
    /// Calls in the window before the ratio says anything. Default 20.
    pub min_calls: u32,
    /// How long it stays open the first time. Each time that it opens again before it was closed doubles that. Half of the time
    /// is certain, the other half drawn. Default 5 s.
    pub open: Duration,
    /// How long it stays open at most. Default 60 s.
    pub open_max: Duration,
    /// Calls that may probe the origin at the same time when that time is over. Default 1.
    pub half_open_max: NonZeroU32,
    /// Probes that have to succeed before it closes. Default 2.
    pub close_after: NonZeroU32,
    /// Whether status 500 is a failure. Default false: one endpoint with a bug would take the others with it.
    pub internal_errors: bool,
    enabled: bool,
    overrides: Overrides<Self>,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            consecutive: NonZeroU32::new(5),
            ratio: Some(0.5),
            window: Duration::from_secs(10),
            min_calls: 20,
            open: Duration::from_secs(5),
            open_max: Duration::from_secs(60),
            half_open_max: NonZeroU32::MIN,
            close_after: NonZeroU32::MIN.saturating_add(1),
            internal_errors: false,
            enabled: true,
            overrides: Overrides::default(),
        }
    }
}

with! {
    CircuitBreaker:
    with_consecutive consecutive Option<NonZeroU32>;
    with_ratio ratio Option<f64>;
    with_window window Duration;
    with_min_calls min_calls u32;
    with_open open Duration;
    with_open_max open_max Duration;
    with_half_open_max half_open_max NonZeroU32;
    with_close_after close_after NonZeroU32;
    with_internal_errors internal_errors bool;
}

impl CircuitBreaker {
    /// No breaker, such as for one origin of many.
    #[must_use]
    pub fn none() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }

    /// Another setting for the origin of `url`; its path and query do not matter. May be called several times.
    ///
    /// ```
    /// use sockeye::CircuitBreaker;
    ///
    /// let breaker = CircuitBreaker::default().for_origin("https://flaky.example.com", CircuitBreaker::none());
    /// # let _ = breaker;
    /// ```
    #[must_use]
    pub fn for_origin(mut self, url: impl IntoUrl, breaker: Self) -> Self {
        self.overrides.set(
            Origin::of_setting(url, "CircuitBreaker::for_origin"),
            breaker,
        );
        self
    }

    pub(super) fn of(&self, origin: &Origin) -> Option<Self> {
        let mut own = self.overrides.of(origin).unwrap_or(self).clone();
        own.overrides = Overrides::default();
        own.enabled.then_some(own)
    }

    pub(super) fn check(&self) -> Result<()> {
        self.overrides.check(Self::check)?;
        match self.ratio {
            // NaN is in no range.
            Some(ratio) if !(f64::MIN_POSITIVE..=1.0).contains(&ratio) => Err(Error::invalid(
                format!("CircuitBreaker::ratio is {ratio}; it must be above 0 and at most 1"),
            )),
            _ => Ok(()),
        }
    }
}

/// The breaker of one origin.
#[derive(Debug)]
pub(crate) struct Breaker {
    rules: CircuitBreaker,
    /// A [`Word`]. That it is closed is one load.
    word: AtomicU64,
    failed_in_row: AtomicU32,
    /// Successes so far. They are counted here and compared when something fails.
    passed: AtomicU64,
    /// How often it opened, ever.
    opened: AtomicU64,
    window: Mutex<Window>,
    /// The generation whose state was told last.
    told: AtomicU32,
}

/// What only a failure looks at.
#[derive(Debug, Default)]
struct Window {
    /// The millisecond of its first failure; `None` before there was one.
    begun: Option<u64>,
    passed_before: u64,
    failed: u64,
    /// How often it has opened since it was closed.
    times: u32,
}

/// Leave to make an attempt. Dropped without a report it says nothing, and a probe makes room for the next.
#[derive(Debug)]
#[must_use = "a pass is reported on"]
pub(crate) struct Pass<'a> {
    breaker: &'a Breaker,
    generation: u16,
    /// Whether it holds a place of the half-open state.
    is_probe: bool,
}

/// Why there is no leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barred {
    /// For so long.
    Open(Duration),
    /// So many calls probe the origin already.
    Probing(u32),
    /// A user has isolated the origin.
    Isolated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// Until a millisecond.
    Open(u64),
    /// With so many probes under way, and so many that have succeeded.
    HalfOpen {
        probes: u32,
        passed: u32,
    },
    Isolated,
}

/// 2 bits of state, 14 of generation, 48 of what belongs to the state. A closed one of generation 0 is 0.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    fn new(state: State, generation: u16) -> Self {
        let (number, rest) = match state {
            State::Closed => (CLOSED, 0),
            State::Open(until) => (OPEN, until.min(MAX_REST)),
            State::HalfOpen { probes, passed } => {
                let part = |count: u32| u64::from(count.min(MAX_PROBES));
                (HALF_OPEN, part(probes) << 24 | part(passed))
            }
            State::Isolated => (ISOLATED, 0),
        };
        let generation = u64::from(generation & MAX_GENERATION);
        Self(number << 62 | generation << 48 | rest)
    }

    fn is_closed(self) -> bool {
        self.0 >> 62 == CLOSED
    }

    fn generation(self) -> u16 {
        (self.0 >> 48) as u16 & MAX_GENERATION
    }

    fn state(self) -> State {
        let rest = self.0 & MAX_REST;
        match self.0 >> 62 {
            CLOSED => State::Closed,
            OPEN => State::Open(rest),
            HALF_OPEN => State::HalfOpen {
                probes: (rest >> 24) as u32,
                passed: (rest & u64::from(MAX_PROBES)) as u32,
            },
            _ => State::Isolated,
        }
    }

    /// Another state of the same generation.
    fn with(self, state: State) -> Self {
        Self::new(state, self.generation())
    }

    /// A change of state.
    fn next(self, state: State) -> Self {
        Self::new(state, self.generation().wrapping_add(1))
    }
}

impl Breaker {
    pub(super) fn new(rules: CircuitBreaker) -> Self {
        Self {
            rules,
            word: AtomicU64::new(0),
            failed_in_row: AtomicU32::new(0),
            passed: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            window: Mutex::default(),
            told: AtomicU32::new(0),
        }
    }

    /// Asks for leave to make an attempt.
    pub(crate) fn enter(&self, now: Moment) -> Result<Pass<'_>, Barred> {
        let word = Word(self.word.load(Ordering::Relaxed));
        if word.is_closed() {
            return Ok(self.pass(word, false));
        }
        self.enter_carefully(now)
    }

    fn enter_carefully(&self, now: Moment) -> Result<Pass<'_>, Barred> {
        loop {
            let word = self.load();
            let new = match word.state() {
                State::Closed => return Ok(self.pass(word, false)),
                State::Isolated => return Err(Barred::Isolated),
                State::Open(until) if now.millis() < until => {
                    return Err(Barred::Open(Duration::from_millis(until - now.millis())));
                }
                State::Open(_) => word.next(State::HalfOpen {
                    probes: 1,
                    passed: 0,
                }),
                State::HalfOpen { probes, .. } if probes >= self.most_probes() => {
                    return Err(Barred::Probing(probes));
                }
                State::HalfOpen { probes, passed } => word.with(State::HalfOpen {
                    probes: probes + 1,
                    passed,
                }),
            };
            if self.swap(word, new) {
                return Ok(self.pass(new, true));
            }
        }
    }

    /// For how long it will surely refuse every attempt, if it does: for good while it is isolated.
    pub(crate) fn refuses_for(&self, now: Moment) -> Option<Duration> {
        match self.load().state() {
            State::Isolated => Some(Duration::MAX),
            State::Open(_) => self.open_for(now),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// How long it will be open yet, if it is.
    pub(crate) fn open_for(&self, now: Moment) -> Option<Duration> {
        match self.load().state() {
            State::Open(until) => {
                let left = until.checked_sub(now.millis())?;
                (left > 0).then(|| Duration::from_millis(left))
            }
            State::Closed | State::HalfOpen { .. } | State::Isolated => None,
        }
    }

    /// The state as a call would find it now.
    pub(crate) fn state(&self, now: Moment) -> CircuitState {
        match self.load().state() {
            State::Closed => CircuitState::Closed,
            State::Open(until) if now.millis() < until => CircuitState::Open,
            State::Open(_) | State::HalfOpen { .. } => CircuitState::HalfOpen,
            State::Isolated => CircuitState::Isolated,
        }
    }

    /// The state, if it has changed since this was last asked: every change is told to one who asks, unless another change has
    /// overtaken it.
    pub(crate) fn news(&self) -> Option<CircuitState> {
        let word = self.load();
        let generation = u32::from(word.generation());
        if self.told.load(Ordering::Relaxed) == generation
            || self.told.swap(generation, Ordering::Relaxed) == generation
        {
            return None;
        }
        Some(match word.state() {
            State::Closed => CircuitState::Closed,
            State::Open(_) => CircuitState::Open,
            State::HalfOpen { .. } => CircuitState::HalfOpen,
            State::Isolated => CircuitState::Isolated,
        })
    }

    /// How often it opened, ever.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Whether it has no memory of a failure.
    pub(super) fn is_at_rest(&self) -> bool {
        self.load().is_closed() && self.failed_in_row.load(Ordering::Relaxed) == 0
    }

    /// Whether a user has isolated the origin.
    pub(super) fn is_isolated(&self) -> bool {
        self.load().state() == State::Isolated
    }

    /// Whether status 500 is a failure.
    pub(crate) fn counts_internal_errors(&self) -> bool {
        self.rules.internal_errors
    }

    /// Refuses every call until [`close`](Self::close).
    pub(crate) fn isolate(&self) {
        let _window = self.window();
        self.change(State::Isolated);
    }

    /// Closes it, with nothing remembered.
    pub(crate) fn close(&self) {
        let mut window = self.window();
        self.forget(&mut window);
        self.change(State::Closed);
    }

    fn pass(&self, word: Word, is_probe: bool) -> Pass<'_> {
        Pass {
            breaker: self,
            generation: word.generation(),
            is_probe,
        }
    }

    /// An attempt of the closed state succeeded.
    fn passed(&self, generation: u16) {
        let word = Word(self.word.load(Ordering::Relaxed));
        if !word.is_closed() || word.generation() != generation {
            return;
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
        if self.failed_in_row.load(Ordering::Relaxed) != 0 {
            self.failed_in_row.store(0, Ordering::Relaxed);
        }
    }

    /// An attempt of the closed state failed.
    fn failed(&self, generation: u16, now: Moment, chance: u64) {
        let mut window = self.window();
        let word = self.load();
        if !word.is_closed() || word.generation() != generation {
            return;
        }
        let in_row = self.failed_in_row.fetch_add(1, Ordering::Relaxed);
        let too_many = self
            .rules
            .consecutive
            .is_some_and(|most| in_row.saturating_add(1) >= most.get());
        if self.is_ratio_reached(&mut window, now) || too_many {
            self.open(word, &mut window, now, chance);
        }
    }

    /// Counts a failure, in a window that begins with it if the last is over.
    fn is_ratio_reached(&self, window: &mut Window, now: Moment) -> bool {
        let (now, length) = (now.millis(), self.rules.window.as_millis());
        let is_over = |begun: u64| u128::from(now.saturating_sub(begun)) >= length;
        if window.begun.is_none_or(is_over) {
            window.begun = Some(now);
            window.passed_before = self.passed.load(Ordering::Relaxed);
            window.failed = 0;
        }
        window.failed += 1;
        let passed = self.passed.load(Ordering::Relaxed);
        let calls = passed.saturating_sub(window.passed_before) + window.failed;
        calls >= u64::from(self.rules.min_calls)
            && self
                .rules
                .ratio
                .is_some_and(|ratio| window.failed as f64 >= ratio * calls as f64)
    }

    /// Opens it, unless it has changed since `word` was seen.
    fn open(&self, word: Word, window: &mut Window, now: Moment, chance: u64) -> bool {
        let rules = &self.rules;
        let time = equal_jitter(rules.open, rules.open_max, window.times, chance);
        let until = State::Open(now.after(time).millis().saturating_add(1));
        let done = self.swap(word, word.next(until));
        if done {
            window.times = window.times.saturating_add(1);
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        done
    }

    /// A probe has ended.
    fn probed(&self, generation: u16, report: Report, now: Option<(Moment, u64)>) {
        let mut window = self.window();
        loop {
            let word = self.load();
            let State::HalfOpen { probes, passed } = word.state() else {
                return;
            };
            if word.generation() != generation {
                return;
            }
            let (probes, succeeded) = (probes.saturating_sub(1), passed.saturating_add(1));
            let done = match (report, now) {
                (Report::Success, _) if succeeded >= self.rules.close_after.get() => {
                    self.forget(&mut window);
                    self.swap(word, word.next(State::Closed))
                }
                (Report::Success, _) => {
                    let passed = succeeded;
                    self.swap(word, word.with(State::HalfOpen { probes, passed }))
                }
                (Report::Failure, Some((now, chance))) => self.open(word, &mut window, now, chance),
                (Report::Failure | Report::Neutral, _) => {
                    self.swap(word, word.with(State::HalfOpen { probes, passed }))
                }
            };
            if done {
                return;
            }
        }
    }

    fn forget(&self, window: &mut Window) {
        *window = Window::default();
        self.failed_in_row.store(0, Ordering::Relaxed);
    }

    fn change(&self, state: State) {
        loop {
            let word = self.load();
            if self.swap(word, word.next(state)) {
                return;
            }
        }
    }

    fn most_probes(&self) -> u32 {
        self.rules.half_open_max.get().min(MAX_PROBES)
    }

    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    fn swap(&self, seen: Word, new: Word) -> bool {
        self.word
            .compare_exchange(seen.0, new.0, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Reports a success, for which neither time nor chance matters.
    pub(crate) fn succeeded(self) {
        self.report(Report::Success, Moment::default(), || 0);
    }

    /// Reports what came of the attempt. `chance` is a random number for the time that it stays open.
    pub(crate) fn report(mut self, report: Report, now: Moment, chance: impl FnOnce() -> u64) {
        let is_probe = std::mem::take(&mut self.is_probe);
        match (is_probe, report) {
            (true, Report::Failure) => {
                self.breaker
                    .probed(self.generation, report, Some((now, chance())));
            }
            (true, _) => self.breaker.probed(self.generation, report, None),
            (false, Report::Success) => self.breaker.passed(self.generation),
            (false, Report::Failure) => self.breaker.failed(self.generation, now, chance()),
            (false, Report::Neutral) => {}
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.probed(self.generation, Report::Neutral, None);
        }
    }
}

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
const ISOLATED: u64 = 3;
const MAX_GENERATION: u16 = (1 << 14) - 1;
const MAX_REST: u64 = (1 << 48) - 1;
const MAX_PROBES: u32 = (1 << 24) - 1;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::at_millis(millis)
    }

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    fn breaker() -> Breaker {
        Breaker::new(CircuitBreaker::default())
    }

    /// One attempt at a moment. With this chance a breaker stays open for the whole time.
    fn attempt(breaker: &Breaker, now: u64, report: Report) -> Result<(), Barred> {
        let pass = breaker.enter(at(now))?;
        pass.report(report, at(now), || u64::MAX);
        Ok(())
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_two_probes_close_it() {
        use Report::{Failure, Neutral, Success};
        let breaker = breaker();
        for report in [
            Failure, Failure, Failure, Failure, Success, Failure, Failure, Failure, Neutral,
            Failure,
        ] {
            attempt(&breaker, 0, report).unwrap();
        }
        assert_eq!(breaker.state(at(0)), CircuitState::Closed);
        attempt(&breaker, 0, Failure).unwrap();
        assert_eq!(breaker.state(at(0)), CircuitState::Open);
        let refused = breaker.enter(at(1000)).unwrap_err();
        assert_eq!(refused, Barred::Open(Duration::from_millis(4000)));
        assert_eq!(
            breaker.open_for(at(1000)),
            Some(Duration::from_millis(4000))
        );
        assert_eq!(breaker.state(at(5000)), CircuitState::HalfOpen);
        let probe = breaker.enter(at(5000)).unwrap();
        assert_eq!(breaker.enter(at(5000)).unwrap_err(), Barred::Probing(1));
        // A probe that says nothing makes room for the next.
        drop(probe);
        attempt(&breaker, 5000, Neutral).unwrap();
        attempt(&breaker, 5000, Success).unwrap();
        assert_eq!(breaker.state(at(5000)), CircuitState::HalfOpen);
        attempt(&breaker, 5000, Success).unwrap();
        assert_eq!(breaker.state(at(5000)), CircuitState::Closed);
        assert!(breaker.is_at_rest());
        assert_eq!(breaker.opened(), 1);
    }

    #[test]
    fn each_probe_that_fails_doubles_the_time_up_to_a_minute() {
        let breaker = breaker();
        (0..5).for_each(|_| attempt(&breaker, 0, Report::Failure).unwrap());
        let mut now = 0;
        for seconds in [5, 10, 20, 40, 60, 60] {
            let Barred::Open(wait) = breaker.enter(at(now)).unwrap_err() else {
                panic!("it is open");
            };
            assert_eq!(wait, Duration::from_secs(seconds));
            now += seconds * 1000;
            attempt(&breaker, now, Report::Failure).unwrap();
        }
        // Once it was closed it begins anew.
        now += 60_000;
        (0..2).for_each(|_| attempt(&breaker, now, Report::Success).unwrap());
        (0..5).for_each(|_| attempt(&breaker, now, Report::Failure).unwrap());
        assert_eq!(breaker.open_for(at(now)), Some(Duration::from_secs(5)));
    }

    #[test]
    fn half_of_twenty_calls_in_a_window_open_it() {
        use Report::{Failure, Success};
        let one_of_two = |breaker: &Breaker, calls: u64, apart: u64| {
            (0..calls).find(|call| {
                let report = if call % 2 == 0 { Failure } else { Success };
                attempt(breaker, call * apart, report).is_err()
            })
        };
        // The twentieth is a success; the failure after it decides.
        assert_eq!(one_of_two(&breaker(), 100, 1), Some(21));
        // With a window for every eleven calls there are never twenty.
        assert_eq!(one_of_two(&breaker(), 1000, 1000), None);
        let rules = CircuitBreaker::default().with_ratio(None);
        assert_eq!(one_of_two(&Breaker::new(rules), 1000, 1), None);
        // Successes before the window do not count.
        let breaker = breaker();
        (0..1000).for_each(|_| attempt(&breaker, 0, Success).unwrap());
        assert!(one_of_two(&breaker, 100, 1).is_some());
    }

    #[test]
    fn late_reports_and_probes_of_an_older_generation_change_nothing() {
        let breaker = breaker();
        let late: Vec<_> = (0..20).map(|_| breaker.enter(at(0)).unwrap()).collect();
        (0..5).for_each(|_| attempt(&breaker, 0, Report::Failure).unwrap());
        let mut late = late.into_iter();
        late.next().unwrap().report(Report::Success, at(1), || 0);
        assert_eq!(breaker.state(at(1)), CircuitState::Open);
        let old = breaker.enter(at(5000)).unwrap();
        breaker.isolate();
        old.report(Report::Failure, at(5001), || 0);
        assert_eq!(breaker.enter(at(99_999)).unwrap_err(), Barred::Isolated);
        breaker.close();
        late.for_each(|pass| pass.report(Report::Failure, at(6000), || 0));
        assert_eq!(breaker.state(at(6000)), CircuitState::Closed);
        assert!(breaker.is_at_rest());
    }

    #[test]
    fn words_hold_what_was_put_in() {
        for state in [
            State::Closed,
            State::Open(0),
            State::Open(MAX_REST),
            State::HalfOpen {
                probes: MAX_PROBES,
                passed: 0,
            },
            State::HalfOpen {
                probes: 0,
                passed: MAX_PROBES,
            },
            State::Isolated,
        ] {
            for generation in [0, 1, MAX_GENERATION] {
                let word = Word::new(state, generation);
                assert_eq!((word.state(), word.generation()), (state, generation));
                assert_eq!(
                    word.next(State::Closed).generation(),
                    (generation + 1) & MAX_GENERATION
                );
            }
        }
        assert_eq!(Word::new(State::Closed, 0).0, 0);
        assert_eq!(
            Word::new(State::Open(u64::MAX), 3).state(),
            State::Open(MAX_REST)
        );
    }

    #[test]
    fn a_ratio_out_of_range_is_named() {
        for ratio in [0.0, -1.0, 1.1, f64::NAN] {
            let error = CircuitBreaker::default().with_ratio(Some(ratio)).check();
            let text = error.unwrap_err().to_string();
            assert!(text.contains(&format!("is {ratio}")), "{text}");
        }
    }

    /// From many threads: never more probes at once than allowed, and no place is lost.
    #[test]
    fn probes_are_never_more_than_allowed() {
        let rules = CircuitBreaker::default()
            .with_half_open_max(count(3))
            .with_close_after(count(u32::MAX));
        let breaker = Breaker::new(rules);
        (0..5).for_each(|_| attempt(&breaker, 0, Report::Failure).unwrap());
        let running = AtomicU32::new(0);
        let done = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for turn in 0..500 {
                        let Ok(pass) = breaker.enter(at(60_000)) else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert!(running.fetch_add(1, Ordering::SeqCst) < 3);
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        done.fetch_add(1, Ordering::SeqCst);
                        match turn % 3 {
                            0 => drop(pass),
                            1 => pass.report(Report::Neutral, at(60_000), || 0),
                            _ => pass.report(Report::Success, at(60_000), || 0),
                        }
                    }
                });
            }
        });
        assert!(done.into_inner() > 100);
        let State::HalfOpen { probes: 0, .. } = breaker.load().state() else {
            panic!("{:?}", breaker.load().state());
        };
    }

    /// The same rules, written down plainly.
    #[derive(Debug)]
    struct Model {
        state: Plain,
        generation: u32,
        in_row: u32,
        window: Option<(u64, u32, u32)>,
        times: u32,
    }

    #[derive(Debug, PartialEq)]
    enum Plain {
        Closed,
        Open { until: u64 },
        HalfOpen { running: Vec<usize>, passed: u32 },
        Isolated,
    }

    impl Model {
        fn enter(&mut self, now: u64, call: usize, rules: &CircuitBreaker) -> bool {
            if let Plain::Open { until } = self.state {
                if now < until {
                    return false;
                }
                self.change(Plain::HalfOpen {
                    running: Vec::new(),
                    passed: 0,
                });
            }
            match &mut self.state {
                Plain::Closed => true,
                Plain::HalfOpen { running, .. } => {
                    let has_room = running.len() < rules.half_open_max.get() as usize;
                    if has_room {
                        running.push(call);
                    }
                    has_room
                }
                Plain::Open { .. } | Plain::Isolated => false,
            }
        }

        fn report(
            &mut self,
            call: usize,
            generation: u32,
            report: Report,
            now: u64,
            rules: &CircuitBreaker,
        ) {
            if generation != self.generation {
                return;
            }
            let mut opens = false;
            match (&mut self.state, report) {
                (Plain::Closed, Report::Success) => {
                    self.in_row = 0;
                    if let Some((_, passed, _)) = &mut self.window {
                        *passed += 1;
                    }
                }
                (Plain::Closed, Report::Failure) => {
                    self.in_row += 1;
                    let length = u64::try_from(rules.window.as_millis()).unwrap();
                    let window = match self.window {
                        Some(window) if now - window.0 < length => window,
                        _ => (now, 0, 0),
                    };
                    let (begun, passed, failed) = (window.0, window.1, window.2 + 1);
                    self.window = Some((begun, passed, failed));
                    let calls = passed + failed;
                    opens = self.in_row >= rules.consecutive.unwrap().get()
                        || (calls >= rules.min_calls
                            && f64::from(failed) / f64::from(calls) >= rules.ratio.unwrap());
                }
                (Plain::HalfOpen { running, passed }, report) => {
                    running.retain(|other| *other != call);
                    match report {
                        Report::Success => {
                            *passed += 1;
                            if *passed >= rules.close_after.get() {
                                self.close();
                            }
                        }
                        Report::Failure => opens = true,
                        Report::Neutral => {}
                    }
                }
                _ => {}
            }
            if opens {
                let open = rules.open.as_millis() << self.times.min(20);
                let time = u64::try_from(open.min(rules.open_max.as_millis())).unwrap();
                self.times += 1;
                // Of the chance that the tests draw, the whole time, less what rounding takes.
                self.change(Plain::Open { until: now + time });
            }
        }

        fn close(&mut self) {
            self.in_row = 0;
            self.window = None;
            self.times = 0;
            self.change(Plain::Closed);
        }

        fn change(&mut self, state: Plain) {
            self.state = state;
            self.generation += 1;
        }

        fn seen(&self, now: u64) -> CircuitState {
            match self.state {
                Plain::Closed => CircuitState::Closed,
                Plain::Open { until } if now < until => CircuitState::Open,
                Plain::Open { .. } | Plain::HalfOpen { .. } => CircuitState::HalfOpen,
                Plain::Isolated => CircuitState::Isolated,
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Enter,
        /// Which of the calls that run, and what came of it; `None` drops it.
        End(usize, Option<Report>),
        Pass(u64),
        Isolate,
        Close,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let report = prop_oneof![
            4 => Just(Some(Report::Failure)),
            3 => Just(Some(Report::Success)),
            1 => Just(Some(Report::Neutral)),
            1 => Just(None),
        ];
        let step = prop_oneof![
            20 => Just(Step::Enter),
            18 => (any::<usize>(), report).prop_map(|(which, report)| Step::End(which, report)),
            3 => (0..3_000_u64).prop_map(Step::Pass),
            1 => (5_000..70_000_u64).prop_map(Step::Pass),
            1 => Just(Step::Isolate),
            2 => Just(Step::Close),
        ];
        proptest::collection::vec(step, 1..300)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_does_what_its_model_does(
            steps in steps(),
            probes in 1..4_u32,
            close_after in 1..4_u32,
            consecutive in 2..6_u32,
            min_calls in 2..12_u32,
        ) {
            let rules = CircuitBreaker::default()
                .with_half_open_max(count(probes))
                .with_close_after(count(close_after))
                .with_consecutive(Some(count(consecutive)))
                .with_min_calls(min_calls);
            let breaker = Breaker::new(rules.clone());
            let mut model = Model {
                state: Plain::Closed,
                generation: 0,
                in_row: 0,
                window: None,
                times: 0,
            };
            let mut running = Vec::new();
            let mut now = 0;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Enter => {
                        let pass = breaker.enter(at(now));
                        prop_assert_eq!(pass.is_ok(), model.enter(now, number, &rules));
                        if let Ok(pass) = pass {
                            running.push((number, model.generation, pass));
                        }
                    }
                    Step::End(..) if running.is_empty() => {}
                    Step::End(which, report) => {
                        let (call, generation, pass) = running.swap_remove(which % running.len());
                        match report {
                            Some(report) => pass.report(report, at(now), || u64::MAX),
                            None => drop(pass),
                        }
                        let report = report.unwrap_or(Report::Neutral);
                        model.report(call, generation, report, now, &rules);
                    }
                    Step::Pass(millis) => now += millis,
                    Step::Isolate => {
                        breaker.isolate();
                        model.change(Plain::Isolated);
                    }
                    Step::Close => {
                        breaker.close();
                        model.close();
                    }
                }
                prop_assert_eq!(breaker.state(at(now)), model.seen(now));
            }
        }
    }
}
