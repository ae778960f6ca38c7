//! How long each step of a call may take, and which limit strikes next.
//!
//! Values only: no timer and no clock. Callers hand in the time and arm their own timer with what [`Deadline`] answers.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Phase;

/// Time limits by step. `None` is no limit; a duration that is too large to add to the clock is no limit either.
///
/// ```
/// use std::time::Duration;
/// use sockeye::Timeouts;
///
/// let timeouts = Timeouts::default().with_head(Duration::from_secs(60)).with_read(None);
/// assert_eq!(timeouts.head, Some(Duration::from_secs(60)));
/// assert_eq!(timeouts.connect, Some(Duration::from_secs(10)));
/// assert_eq!((timeouts.read, timeouts.total), (None, None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Waiting for a connection while none is being dialled for the call. Default 10 s.
    pub pool: Option<Duration>,
    /// Resolving, connecting and the TLS handshake together. Default 10 s. A dial serves whoever is first in line, so the
    /// client's limit is the dial's; that of a call can only end its wait sooner.
    pub connect: Option<Duration>,
    /// No progress while the request is sent; time in which the caller's own body has nothing to give does not count.
    /// Default 10 s.
    pub write: Option<Duration>,
    /// From the end of the request to the response head; interim (1xx) responses do not restart it. Default 10 s.
    pub head: Option<Duration>,
    /// Between two reads of the response body, counted only while a read is waiting. Default 10 s.
    pub read: Option<Duration>,
    /// One try, up to its response head. Default `None`.
    pub attempt: Option<Duration>,
    /// Everything, retries and the body included. Default `None`.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::all(Duration::from_secs(10))
    }
}

impl Timeouts {
    /// The same limit for `pool`, `connect`, `write`, `head` and `read`.
    pub const fn all(limit: Duration) -> Self {
        Self {
            pool: Some(limit),
            connect: Some(limit),
            write: Some(limit),
            head: Some(limit),
            read: Some(limit),
            attempt: None,
            total: None,
        }
    }

    /// No limit at all. A peer that says nothing then holds the call for ever.
    pub const fn none() -> Self {
        Self {
            pool: None,
            connect: None,
            write: None,
            head: None,
            read: None,
            attempt: None,
            total: None,
        }
    }

    /// For slow peers such as LLM APIs: `head` and `read` 10 min, `connect` 5 s, `pool` and `write` 10 s.
    pub const fn patient() -> Self {
        let mut patient = Self::all(Duration::from_secs(10));
        patient.connect = Some(Duration::from_secs(5));
        patient.head = Some(Duration::from_secs(600));
        patient.read = Some(Duration::from_secs(600));
        patient
    }
}

/// One `with_` method a field: the struct is non-exhaustive, so that fields can be added later.
macro_rules! with {
    ($($method:ident $field:ident;)*) => {
        impl Timeouts {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Timeouts::", stringify!($field), "): to a duration, or to `None`.")]
                #[must_use]
                pub fn $method(mut self, limit: impl Into<Option<Duration>>) -> Self {
                    self.$field = limit.into();
                    self
                }
            )*
        }
    };
}

with! {
    with_pool pool;
    with_connect connect;
    with_write write;
    with_head head;
    with_read read;
    with_attempt attempt;
    with_total total;
}

/// The setting whose limit struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Pool,
    Connect,
    Write,
    Head,
    Read,
    Attempt,
    Total,
}

/// A limit that struck: what the error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) setting: Setting,
    pub(crate) phase: Phase,
    pub(crate) limit: Duration,
}

/// The next limit of a step: when it strikes, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextLimit {
    pub(crate) at: Instant,
    pub(crate) expired: Expired,
}

/// The limits of one call, with the moments from which `attempt` and `total` count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline<'a> {
    timeouts: &'a Timeouts,
    total_at: Option<Instant>,
    attempt_at: Option<Instant>,
}

impl<'a> Deadline<'a> {
    /// A call that begins now.
    pub(crate) fn new(timeouts: &'a Timeouts, now: Instant) -> Self {
        Self {
            timeouts,
            total_at: timeouts.total.and_then(|limit| now.checked_add(limit)),
            attempt_at: None,
        }
    }

    /// One try begins now.
    pub(crate) fn begin_attempt(&mut self, now: Instant) {
        self.attempt_at = self
            .timeouts
            .attempt
            .and_then(|limit| now.checked_add(limit));
    }

    /// The limits of a body: `read`, and `total` as it was set when the call began.
    pub(crate) fn of_body(timeouts: &'a Timeouts, total_at: Option<Instant>) -> Self {
        Self::of_attempt(timeouts, total_at, None)
    }

    /// The limits of a try that has begun elsewhere.
    pub(crate) fn of_attempt(
        timeouts: &'a Timeouts,
        total_at: Option<Instant>,
        attempt_at: Option<Instant>,
    ) -> Self {
        Self {
            timeouts,
            total_at,
            attempt_at,
        }
    }

    /// What a try must keep for [`of_attempt`](Self::of_attempt) beside the rest.
    pub(crate) fn attempt_at(&self) -> Option<Instant> {
        self.attempt_at
    }

    /// How much time the whole call has left, if it has a limit.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        self.total_at.map(|at| at.saturating_duration_since(now))
    }

    /// What a body must keep for [`of_body`](Self::of_body).
    pub(crate) fn into_parts(self) -> (Timeouts, Option<Instant>) {
        (*self.timeouts, self.total_at)
    }

    /// The next limit while `phase` runs. `since` is the moment from which the phase's own limit counts; `None` pauses
    /// that limit, as while the caller's own body has nothing to give.
    pub(crate) fn next(&self, phase: Phase, since: Option<Instant>) -> Option<NextLimit> {
        let own = match phase {
            Phase::Pool => Some((Setting::Pool, self.timeouts.pool)),
            Phase::Resolve | Phase::Connect | Phase::Tls => {
                Some((Setting::Connect, self.timeouts.connect))
            }
            Phase::Write => Some((Setting::Write, self.timeouts.write)),
            Phase::Head => Some((Setting::Head, self.timeouts.head)),
            Phase::Read => Some((Setting::Read, self.timeouts.read)),
            Phase::Prepare => None,
        };
        let own = own.and_then(|(setting, limit)| {
            let limit = limit?;
            Some((since?.checked_add(limit)?, setting, limit))
        });
        if self.attempt_at.is_none() && self.total_at.is_none() {
            return own.map(|(at, setting, limit)| limit_at(at, setting, phase, limit));
        }
        let attempt = self
            .attempt_at
            .zip(self.timeouts.attempt)
            .map(|(at, limit)| (at, Setting::Attempt, limit));
        let total = self
            .total_at
            .zip(self.timeouts.total)
            .map(|(at, limit)| (at, Setting::Total, limit));
        let (at, setting, limit) = [own, attempt, total]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _, _)| *at)?;
        Some(limit_at(at, setting, phase, limit))
    }
}

fn limit_at(at: Instant, setting: Setting, phase: Phase, limit: Duration) -> NextLimit {
    NextLimit {
        at,
        expired: Expired {
            setting,
            phase,
            limit,
        },
    }
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.phase {
            Phase::Prepare => "preparing the request",
            Phase::Pool => "waiting for a connection of the pool",
            Phase::Resolve => "resolving the host",
            Phase::Connect => "connecting",
            Phase::Tls => "in the TLS handshake",
            Phase::Write => "writing the request",
            Phase::Head => "waiting for the response head",
            Phase::Read => "reading the response body",
        };
        let limit = self.limit;
        match self.setting {
            Setting::Pool => write!(
                f,
                "timed out {doing} (Timeouts::pool is {limit:?}; Limits::max_connections or max_connections_per_host is reached)"
            ),
            Setting::Connect => write!(f, "timed out {doing} (Timeouts::connect is {limit:?})"),
            Setting::Write => write!(f, "timed out {doing} (Timeouts::write is {limit:?})"),
            Setting::Head => write!(
                f,
                "timed out {doing} (Timeouts::head is {limit:?}; for slow peers see Timeouts::patient())"
            ),
            Setting::Read => write!(
                f,
                "timed out {doing} (Timeouts::read is {limit:?}; for slow peers see Timeouts::patient())"
            ),
            Setting::Attempt => write!(f, "timed out {doing} (Timeouts::attempt is {limit:?})"),
            Setting::Total => write!(
                f,
                "timed out {doing} (the total limit, Timeouts::total, is {limit:?})"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_earliest_limit_wins_and_is_named() {
        let now = Instant::now();
        let timeouts = Timeouts::default()
            .with_total(Some(seconds(15)))
            .with_attempt(Some(seconds(12)));
        let mut deadline = Deadline::new(&timeouts, now);
        deadline.begin_attempt(now);
        let setting = |deadline: &Deadline, phase, since| {
            deadline
                .next(phase, since)
                .map(|limit| limit.expired.setting)
        };
        assert_eq!(
            setting(&deadline, Phase::Head, Some(now)),
            Some(Setting::Head)
        );
        let later = now + seconds(3);
        assert_eq!(
            setting(&deadline, Phase::Head, Some(later)),
            Some(Setting::Attempt)
        );
        let (timeouts, total_at) = deadline.into_parts();
        let deadline = Deadline::of_body(&timeouts, total_at);
        assert_eq!(
            setting(&deadline, Phase::Read, Some(now + seconds(6))),
            Some(Setting::Total)
        );
        // A caller's body that has nothing to give pauses the write limit (ruling 18).
        assert_eq!(setting(&deadline, Phase::Write, None), Some(Setting::Total));
    }

    #[test]
    fn a_duration_too_large_to_add_is_no_limit() {
        let now = Instant::now();
        let huge = Timeouts::all(Duration::MAX).with_total(Some(Duration::MAX));
        assert_eq!(Deadline::new(&huge, now).next(Phase::Head, Some(now)), None);
        assert_eq!(
            Deadline::new(&Timeouts::none(), now).next(Phase::Read, Some(now)),
            None
        );
    }
}
