//! When an origin may be called: a gate that the server's own words close, and a pace that the user sets.
//!
//! Each is one atomic word an origin. The gate holds the moment before which nobody calls; the pace holds the moment at which the
//! tokens handed out so far are paid for (GCRA, the generic cell rate algorithm).

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Moment, Overrides, with};
use crate::error::{Error, Result};
use crate::url::{IntoUrl, Origin};

/// How the rate limits of servers are kept to, and how often an origin is called at most.
///
/// A 429 or 503 with `retry-after`, and a response whose `ratelimit` field says that nothing remains, close the gate of their
/// origin for as long as they say. Calls to it then wait, and a little longer each so that they do not all come at once; one
/// that would wait beyond [`max_wait`](Self::max_wait) or its total time limit fails at once with
/// [`ErrorKind::RateLimited`](crate::ErrorKind) and the time to wait.
///
/// ```
/// use std::num::NonZeroU32;
/// use std::time::Duration;
/// use sockeye::{Client, RateLimit};
///
/// // At most 50 attempts a second to each origin, ten of them at once.
/// let (rate, burst) = (NonZeroU32::new(50).unwrap(), NonZeroU32::new(10).unwrap());
/// let limit = RateLimit::default().with_pace(rate, Duration::from_secs(1), burst);
/// let client = Client::builder().rate_limit(limit).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RateLimit {
    /// Whether what servers say closes the gate. Default true.
    pub obey_server: bool,
    /// How long a call waits at most. Default 60 s; with zero it fails rather than waits.
    pub max_wait: Duration,
    /// How long the words of a server close the gate at most. Default 1 h, so that a mistaken server does not lock its clients
    /// out for good.
    pub max_gate: Duration,
    pace: Option<Pace>,
    enabled: bool,
    overrides: Overrides<Self>,
}

/// So many calls in so much time, and so many of them at once.
#[derive(Clone, Copy, Debug)]
struct Pace {
    calls: NonZeroU32,
    per: Duration,
    burst: NonZeroU32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            obey_server: true,
            max_wait: Duration::from_secs(60),
            max_gate: Duration::from_secs(3600),
            pace: None,
            enabled: true,
            overrides: Overrides::default(),
        }
    }
}

with! {
    RateLimit:
    with_obey_server obey_server bool;
    with_max_wait max_wait Duration;
    with_max_gate max_gate Duration;
}

impl RateLimit {
    /// No limit, such as for one origin of many.
    #[must_use]
    pub fn none() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }

    /// At most `calls` attempts in each `per` to an origin, of which `burst` may come at once after a rest. Attempts beyond wait
    /// in the order in which they came. Default: no such limit. A call that is sent again because its connection was dead
    /// counts once.
    #[must_use]
    pub fn with_pace(mut self, calls: NonZeroU32, per: Duration, burst: NonZeroU32) -> Self {
        self.pace = Some(Pace { calls, per, burst });
        self
    }

    /// Another setting for the origin of `url`; its path and query do not matter. May be called several times.
    #[must_use]
    pub fn for_origin(mut self, url: impl IntoUrl, limit: Self) -> Self {
        self.overrides
            .set(Origin::of_setting(url, "RateLimit::for_origin"), limit);
        self
    }

    pub(super) fn of(&self, origin: &Origin) -> Option<Self> {
        let mut own = self.overrides.of(origin).unwrap_or(self).clone();
        own.overrides = Overrides::default();
        own.enabled.then_some(own)
    }

    pub(super) fn check(&self) -> Result<()> {
        self.overrides.check(Self::check)?;
        match self.pace {
            Some(pace) if pace.interval() == 0 => Err(Error::invalid(format!(
                "RateLimit::with_pace: {} calls in {:?} are more than one in a nanosecond",
                pace.calls, pace.per
            ))),
            _ => Ok(()),
        }
    }
}

impl Pace {
    /// Nanoseconds a call.
    fn interval(self) -> u64 {
        let interval = self.per.as_nanos() / u128::from(self.calls.get());
        u64::try_from(interval).unwrap_or(u64::MAX)
    }
}

/// The gate and the pace of one origin.
#[derive(Debug)]
pub(crate) struct Limiter {
    rules: RateLimit,
    /// The nanosecond before which nobody calls. While it is 0 nobody needs a clock.
    not_before: AtomicU64,
    pace: Option<Paced>,
}

#[derive(Debug)]
struct Paced {
    interval: u64,
    /// How far ahead of the clock the tokens may be paid for.
    ahead: u64,
    /// The nanosecond at which the last token handed out is paid for.
    paid: AtomicU64,
}

/// A token of the pace, for a moment. Dropped before it was [used](Self::used) it goes back, if no later one was handed out.
#[derive(Debug)]
#[must_use = "a token is used, or goes back"]
pub(crate) struct Slot<'a> {
    /// `None` without a pace.
    paced: Option<&'a Paced>,
    paid: u64,
}

impl Limiter {
    pub(super) fn new(rules: RateLimit) -> Self {
        let pace = rules.pace.map(|pace| Paced {
            interval: pace.interval(),
            ahead: pace.interval().saturating_mul(u64::from(pace.burst.get())),
            paid: AtomicU64::new(0),
        });
        Self {
            rules,
            not_before: AtomicU64::new(0),
            pace,
        }
    }

    /// How long the server wants nobody to call.
    pub(crate) fn closed_for(&self, now: Moment) -> Option<Duration> {
        let not_before = self.not_before.load(Ordering::Relaxed);
        if not_before == 0 {
            return None;
        }
        if let Some(left @ 1..) = not_before.checked_sub(now.nanos()) {
            return Some(Duration::from_nanos(left));
        }
        // Whoever comes next needs no clock again. One that was set meanwhile stays.
        let _ =
            self.not_before
                .compare_exchange(not_before, 0, Ordering::Relaxed, Ordering::Relaxed);
        None
    }

    /// The server wants nobody to call for so long. A longer wait that it asked for before stays.
    pub(crate) fn close_for(&self, wait: Duration, now: Moment) {
        let wait = wait.min(self.rules.max_gate);
        if !self.rules.obey_server || wait.is_zero() {
            return;
        }
        self.not_before
            .fetch_max(now.after(wait).nanos(), Ordering::Relaxed);
    }

    /// Takes the next token of the pace; answers it and how long it is until its moment, or, if that is longer than `most`,
    /// the time it would be, with no token taken.
    pub(crate) fn take(
        &self,
        now: Moment,
        most: Duration,
    ) -> Result<(Slot<'_>, Duration), Duration> {
        let Some(paced) = &self.pace else {
            let slot = Slot {
                paced: None,
                paid: 0,
            };
            return Ok((slot, Duration::ZERO));
        };
        let nanos = now.nanos();
        let mut seen = paced.paid.load(Ordering::Relaxed);
        loop {
            let (paid, wait) = paced.next(seen, nanos);
            let wait = Duration::from_nanos(wait);
            if wait > most {
                return Err(wait);
            }
            match paced
                .paid
                .compare_exchange_weak(seen, paid, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => {
                    let paced = Some(paced);
                    return Ok((Slot { paced, paid }, wait));
                }
                Err(now) => seen = now,
            }
        }
    }

    /// How long one that comes now would have to wait, as far as can be seen: nothing is taken.
    pub(crate) fn holds_for(&self, now: Moment) -> Duration {
        let pace = self.pace.as_ref().map(|paced| {
            let (_, wait) = paced.next(paced.paid.load(Ordering::Relaxed), now.nanos());
            Duration::from_nanos(wait)
        });
        self.closed_for(now).max(pace).unwrap_or_default()
    }

    pub(crate) fn max_wait(&self) -> Duration {
        self.rules.max_wait
    }

    pub(crate) fn obeys_server(&self) -> bool {
        self.rules.obey_server
    }

    pub(super) fn is_at_rest(&self, now: Moment) -> bool {
        let is_paid = |paced: &Paced| paced.paid.load(Ordering::Relaxed) <= now.nanos();
        self.closed_for(now).is_none() && self.pace.as_ref().is_none_or(is_paid)
    }
}

impl Paced {
    /// The token after those that are `paid` for: when it is paid for in its turn, and how long it is until its moment.
    fn next(&self, paid: u64, nanos: u64) -> (u64, u64) {
        let paid = paid.max(nanos).saturating_add(self.interval);
        let wait = paid.saturating_sub(self.ahead).saturating_sub(nanos);
        (paid, wait)
    }
}

impl Slot<'_> {
    /// The attempt is made.
    pub(crate) fn used(mut self) {
        self.paced = None;
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(paced) = self.paced {
            // If there is a later one its moment stands, and this one passes unused.
            let before = self.paid.saturating_sub(paced.interval);
            let _ = paced.paid.compare_exchange(
                self.paid,
                before,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::at_millis(millis)
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn paced(calls: u32, burst: u32) -> Limiter {
        let of = |count| NonZeroU32::new(count).unwrap();
        let pace = RateLimit::default().with_pace(of(calls), millis(1000), of(burst));
        pace.check().unwrap();
        Limiter::new(pace)
    }

    fn take(limiter: &Limiter, now: u64) -> Duration {
        let (slot, wait) = limiter.take(at(now), Duration::MAX).unwrap();
        slot.used();
        wait
    }

    #[test]
    fn the_gate_is_shut_for_as_long_as_was_asked_and_not_longer() {
        let limiter = Limiter::new(RateLimit::default());
        assert_eq!(limiter.closed_for(at(0)), None);
        limiter.close_for(millis(500), at(1000));
        limiter.close_for(millis(100), at(1000));
        assert_eq!(limiter.closed_for(at(1000)), Some(millis(500)));
        assert_eq!(limiter.closed_for(at(1499)), Some(millis(1)));
        assert!(!limiter.is_at_rest(at(1499)));
        assert_eq!(limiter.closed_for(at(1500)), None);
        assert_eq!(limiter.not_before.load(Ordering::Relaxed), 0);
        assert!(limiter.is_at_rest(at(1500)));
    }

    #[test]
    fn no_server_shuts_its_clients_out_for_good() {
        let limiter = Limiter::new(RateLimit::default());
        limiter.close_for(Duration::MAX, at(0));
        assert_eq!(limiter.closed_for(at(0)), Some(millis(3_600_000)));
        let deaf = Limiter::new(RateLimit::default().with_obey_server(false));
        deaf.close_for(millis(500), at(0));
        assert_eq!(deaf.closed_for(at(0)), None);
    }

    #[test]
    fn a_burst_comes_at_once_and_the_rest_at_the_pace() {
        let limiter = paced(10, 3);
        let waits: Vec<_> = (0..6).map(|_| take(&limiter, 5000)).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300].map(millis));
        // After a rest there is a burst again, and no more than one.
        let waits: Vec<_> = (0..4).map(|_| take(&limiter, 60_000)).collect();
        assert_eq!(waits, [0, 0, 0, 100].map(millis));
    }

    #[test]
    fn who_would_wait_too_long_takes_no_token() {
        let limiter = paced(1, 1);
        assert_eq!(take(&limiter, 0), millis(0));
        assert_eq!(take(&limiter, 0), millis(1000));
        let refused = limiter.take(at(0), millis(1500)).unwrap_err();
        assert_eq!(refused, millis(2000));
        assert_eq!(take(&limiter, 0), millis(2000));
    }

    #[test]
    fn a_token_that_is_given_up_goes_to_the_next_or_passes_unused() {
        let limiter = paced(1, 1);
        assert_eq!(take(&limiter, 0), millis(0));
        let (last, _) = limiter.take(at(0), Duration::MAX).unwrap();
        drop(last);
        assert_eq!(take(&limiter, 0), millis(1000));
        let (early, _) = limiter.take(at(0), Duration::MAX).unwrap();
        assert_eq!(take(&limiter, 0), millis(3000));
        drop(early);
        assert_eq!(take(&limiter, 0), millis(4000));
    }

    /// Any window of a second holds no more than the rate and a burst, however calls come.
    #[test]
    fn no_window_holds_more_than_the_rate_and_a_burst() {
        let limiter = paced(20, 5);
        let mut made = Vec::new();
        for step in 0..400_u64 {
            let now = step * 7 % 50 + step * 13;
            made.push(now + u64::try_from(take(&limiter, now).as_millis()).unwrap());
        }
        made.sort_unstable();
        for (place, first) in made.iter().enumerate() {
            let window = made[place..].iter().take_while(|at| **at < first + 1000);
            assert!(window.count() <= 25);
        }
    }

    #[test]
    fn a_pace_beyond_the_clock_is_refused() {
        let many = NonZeroU32::MAX;
        let limit = RateLimit::default().with_pace(many, Duration::from_nanos(1), many);
        assert!(
            limit
                .check()
                .unwrap_err()
                .to_string()
                .contains("4294967295")
        );
    }
}
