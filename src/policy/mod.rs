//! What decides and never does: the spine asks, and acts on the answer. Everything here is pure: the time and random numbers are
//! arguments.
//!
//! - `auth` reads challenges, and says who renews credentials; `cookies` keeps cookies, and says who gets which
//! - `redirect` decides what becomes of a 3xx, and which fields another origin must not see
//! - `retry` decides whether and when a failed attempt is followed by another; `outcome` says what an attempt came to, `backoff` how
//!   long a wait is, `budget` how many retries an origin may cost
//! - `circuit_breaker` decides whether an origin is called at all, `rate_limit` when; `rate_fields` reads what servers say of it
//! - `resilience` is the settings of all of them; `per_origin` keeps what was learned of each origin, within a bound

mod atomics;
mod auth;
mod backoff;
mod budget;
mod circuit_breaker;
#[cfg(feature = "cookies")]
mod cookies;
#[cfg(all(test, sockeye_loom))]
mod interleavings;
mod outcome;
mod per_origin;
mod rate_fields;
mod rate_limit;
mod redirect;
mod resilience;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Result;
use crate::url::Origin;

pub use auth::{AuthScheme, Challenge};
pub use budget::RetryBudget;
pub use circuit_breaker::CircuitBreaker;
pub use rate_limit::RateLimit;
pub use redirect::Redirects;
pub use resilience::Resilience;
pub use retry::{Attempt, Classify, Retry, RetryKind, Verdict};

pub(crate) use auth::{Renewal, Renewed, Turn};
pub(crate) use backoff::jitter_of_wait;
use budget::Budget;
pub(crate) use circuit_breaker::{Barred, Breaker, Pass};
#[cfg(feature = "cookies")]
pub(crate) use cookies::Cookies;
pub(crate) use outcome::{Columns, Hints, Report, Seen};
use per_origin::{PerOrigin, Worth};
pub(crate) use rate_fields::used_up;
pub(crate) use rate_limit::{Limiter, Slot};
pub(crate) use redirect::{Asked, Refused};
pub(crate) use retry::{Came, Case, Decision, Stop, Why};

/// The policies of a client, and what they know of each origin.
#[derive(Debug)]
pub(crate) struct Policies {
    resilience: Resilience,
    origins: PerOrigin<OriginPolicy>,
    /// What moments are counted from.
    made: Instant,
}

/// What holds for one origin.
#[derive(Debug)]
pub(crate) struct OriginPolicy {
    pub(crate) retry: Option<Retry>,
    /// `None` if retries are not limited.
    pub(crate) budget: Option<Budget>,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) limiter: Option<Limiter>,
}

/// A moment as the policies count it: the time since their client was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Policies {
    /// Policies of a client that is made now; nothing is known yet.
    pub(crate) fn new(resilience: Resilience, now: Instant) -> Self {
        Self {
            resilience,
            origins: PerOrigin::default(),
            made: now,
        }
    }

    /// Whether there is anything to ask them about.
    pub(crate) fn is_set(&self) -> bool {
        self.resilience.is_set()
    }

    /// What holds for an origin. Not for the hot path: keep what it returns.
    pub(crate) fn of(&self, origin: &Origin, now: Instant) -> Arc<OriginPolicy> {
        let now = self.moment(now);
        self.origins.get_or_insert(
            origin,
            || OriginPolicy::new(&self.resilience, origin),
            |known| known.worth(now),
        )
    }

    /// What is known of an origin already.
    pub(crate) fn known(&self, origin: &Origin) -> Option<Arc<OriginPolicy>> {
        self.origins.get(origin)
    }

    /// The moment as the policies count it.
    pub(crate) fn moment(&self, now: Instant) -> Moment {
        Moment(now.saturating_duration_since(self.made))
    }
}

impl OriginPolicy {
    fn new(resilience: &Resilience, origin: &Origin) -> Self {
        let retry = resilience.retry_of(origin);
        // A call may bring a policy of its own, so there is a budget without one, too.
        let budget = match &retry {
            Some(retry) => retry.budget,
            None => Some(RetryBudget::default()),
        };
        Self {
            retry,
            budget: budget.map(Budget::new),
            breaker: resilience.breaker_of(origin).map(Breaker::new),
            limiter: resilience.limit_of(origin).map(Limiter::new),
        }
    }

    /// What would be lost if it were forgotten.
    fn worth(&self, now: Moment) -> Worth {
        match self.is_at_rest(now) {
            true => Worth::Nothing,
            false if self.breaker.as_ref().is_some_and(Breaker::is_isolated) => Worth::Said,
            false => Worth::Learned,
        }
    }

    /// Whether forgetting it would change nothing.
    fn is_at_rest(&self, now: Moment) -> bool {
        self.budget
            .as_ref()
            .is_none_or(|budget| budget.is_full(now))
            && self.breaker.as_ref().is_none_or(Breaker::is_at_rest)
            && self
                .limiter
                .as_ref()
                .is_none_or(|limiter| limiter.is_at_rest(now))
    }
}

impl Moment {
    /// Whole milliseconds.
    fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds: enough for 584 years.
    fn nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// So much later.
    fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    #[cfg(test)]
    fn at_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

/// Settings that one origin has in place of those of all others.
#[derive(Clone, Debug)]
struct Overrides<T>(Vec<(Result<Origin>, T)>);

impl<T> Default for Overrides<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Overrides<T> {
    /// The one given last counts.
    fn set(&mut self, origin: Result<Origin>, value: T) {
        self.0.push((origin, value));
    }

    fn of(&self, origin: &Origin) -> Option<&T> {
        let of = |(known, _): &&(Result<Origin>, T)| known.as_ref().is_ok_and(|o| o == origin);
        self.0.iter().rev().find(of).map(|(_, value)| value)
    }

    /// The first mistake in them.
    fn check(&self, mut check: impl FnMut(&T) -> Result<()>) -> Result<()> {
        for (origin, value) in &self.0 {
            origin.as_ref().map_err(Clone::clone)?;
            check(value)?;
        }
        Ok(())
    }
}

/// One `with_` method a field: the structs are non-exhaustive, so that fields can be added later.
macro_rules! with {
    ($config:ident: $($method:ident $field:ident $type:ty;)*) => {
        impl $config {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $method(mut self, value: $type) -> Self {
                    self.$field = value;
                    self
                }
            )*
        }
    };
}
use with;
