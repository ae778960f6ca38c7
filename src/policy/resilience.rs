//! The settings of retry, circuit breaker and rate limit together.

use super::{CircuitBreaker, RateLimit, Retry};
use crate::error::Result;
use crate::url::Origin;

/// Retry, circuit breaker and rate limit together, for
/// [`ClientBuilder::resilience`](crate::ClientBuilder::resilience).
///
/// An attempt asks the circuit breaker first, then the rate limit, then the pool for a connection; what it came to is told to all
/// of them, and decides about the next. While it waits between attempts, or for a rate limit, it holds none of the three.
///
/// What they know is by origin, for all clones of a client together, and of 1,024 origins at most: beyond that those are forgotten
/// first of which nothing is known that would keep a call back.
///
/// ```
/// use sockeye::{CircuitBreaker, Client, Resilience};
///
/// let resilience = Resilience::standard().with_circuit_breaker(Some(CircuitBreaker::default().with_min_calls(100)));
/// let client = Client::builder().resilience(resilience).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Resilience {
    /// When a request is sent again.
    pub retry: Option<Retry>,
    /// When an origin is left alone.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// When an origin may be called.
    pub rate_limit: Option<RateLimit>,
}

impl Resilience {
    /// All three with their defaults: [`Retry`], [`CircuitBreaker`], [`RateLimit`].
    #[must_use]
    pub fn standard() -> Self {
        Self {
            retry: Some(Retry::default()),
            circuit_breaker: Some(CircuitBreaker::default()),
            rate_limit: Some(RateLimit::default()),
        }
    }

    /// None of the three, which is what a client does by default.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    pub(super) fn is_set(&self) -> bool {
        self.retry.is_some() || self.circuit_breaker.is_some() || self.rate_limit.is_some()
    }

    pub(super) fn retry_of(&self, origin: &Origin) -> Option<Retry> {
        self.retry.as_ref().map(|retry| retry.of(origin))
    }

    pub(super) fn breaker_of(&self, origin: &Origin) -> Option<CircuitBreaker> {
        self.circuit_breaker.as_ref()?.of(origin)
    }

    pub(super) fn limit_of(&self, origin: &Origin) -> Option<RateLimit> {
        self.rate_limit.as_ref()?.of(origin)
    }

    /// Whether the settings make sense; the first that does not is named.
    pub(crate) fn check(&self) -> Result<()> {
        self.retry.as_ref().map_or(Ok(()), Retry::check)?;
        let breaker = self.circuit_breaker.as_ref();
        breaker.map_or(Ok(()), CircuitBreaker::check)?;
        self.rate_limit.as_ref().map_or(Ok(()), RateLimit::check)
    }
}

super::with! {
    Resilience:
    with_retry retry Option<Retry>;
    with_circuit_breaker circuit_breaker Option<CircuitBreaker>;
    with_rate_limit rate_limit Option<RateLimit>;
}
