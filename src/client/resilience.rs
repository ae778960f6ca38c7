//! Retry, circuit breaker and rate limit: how they are set, and how a breaker is watched.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::HeaderName;
use tokio::time::Instant;

use super::{Client, ClientBuilder, RequestBuilder};
use crate::config::CircuitState;
use crate::error::{Error, Result};
use crate::policy::{Breaker, CircuitBreaker, OriginPolicy, RateLimit, Resilience, Retry};
use crate::stats::{Event, Stats};
use crate::url::{IntoUrl, Origin};

impl ClientBuilder {
    /// When a request is sent again. Default: no policy, see [`Retry`] for what is sent again nevertheless.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.resilience.retry = Some(retry);
        self
    }

    /// When an origin that keeps failing is left alone. Default: never.
    pub fn circuit_breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.resilience.circuit_breaker = Some(breaker);
        self
    }

    /// Whether the rate limits of servers are kept to, and how often an origin is called at most. Default: neither.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.resilience.rate_limit = Some(limit);
        self
    }

    /// Retry, circuit breaker and rate limit together, in place of what was set of them before.
    ///
    /// ```
    /// use sockeye::{Client, Resilience};
    ///
    /// let client = Client::builder().resilience(Resilience::standard()).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn resilience(mut self, resilience: Resilience) -> Self {
        self.resilience = resilience;
        self
    }
}

impl RequestBuilder {
    /// When this request is sent again, in place of the client's policy; [`Retry::none`] for never. The budget is that of the
    /// client's policy for the origin, or the default one.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// use sockeye::{Client, Retry};
    ///
    /// let report = Client::new().get("https://example.com/report").retry(Retry::default()).await?;
    /// # Ok(()) }
    /// ```
    pub fn retry(mut self, retry: Retry) -> Self {
        if let Err(mistake) = retry.check() {
            self.note(mistake);
        }
        self.call.own_mut().retry = Some(Arc::new(retry));
        self
    }

    /// Adds an `idempotency-key` that no other call has, the same for each attempt of this one, unless there is one. It is 32
    /// hexadecimal digits in the form of a random UUID. A server that knows the field does a request once however often it is
    /// sent, so that it may be sent again; one that does not may do it twice.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// use sockeye::{Client, Resilience};
    ///
    /// let client = Client::builder().resilience(Resilience::standard()).build()?;
    /// client.post("https://pay.example.com/charges").body("amount=5").idempotency_key().await?;
    /// # Ok(()) }
    /// ```
    pub fn idempotency_key(mut self) -> Self {
        if !self.call.head.headers.contains_key(&IDEMPOTENCY_KEY) {
            let key = uuid(self.client.0.engine.lots.draw_long());
            match HeaderValue::try_from(key) {
                Ok(key) => drop(self.call.head.headers.insert(IDEMPOTENCY_KEY, key)),
                Err(error) => self.note(Error::invalid_request(error)),
            }
        }
        self
    }
}

impl Client {
    /// The circuit breaker of the origin of `url`, to look at it and to switch it by hand. Fails if none is set for that origin.
    ///
    /// ```
    /// use sockeye::{CircuitBreaker, CircuitState, Client};
    ///
    /// let client = Client::builder().circuit_breaker(CircuitBreaker::default()).build()?;
    /// let circuit = client.circuit_breaker("http://api.example.com")?;
    /// circuit.isolate();
    /// assert_eq!(circuit.state(), CircuitState::Isolated);
    /// circuit.close();
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn circuit_breaker(&self, url: impl IntoUrl) -> Result<Circuit> {
        let origin = self.parse(url)?.target.origin();
        let policy = self.0.engine.policies.of(&origin, Instant::now());
        if policy.breaker.is_none() {
            return Err(Error::invalid(
                "no circuit breaker is set for this origin (ClientBuilder::circuit_breaker)",
            )
            .at(&origin));
        }
        Ok(Circuit {
            client: self.clone(),
            origin,
            policy,
        })
    }

    /// Adds the breakers to a snapshot.
    pub(super) fn with_breakers(&self, stats: Stats) -> Stats {
        let policies = &self.0.engine.policies;
        if !policies.is_set() {
            return stats;
        }
        let now = policies.moment(Instant::now());
        stats.with_breakers(|origin| {
            let known = policies.known(origin)?;
            let breaker = known.breaker.as_ref()?;
            Some((breaker.state(now), breaker.opened()))
        })
    }
}

/// The circuit breaker of one origin, from [`Client::circuit_breaker`]. It keeps its client alive.
#[derive(Clone)]
pub struct Circuit {
    client: Client,
    origin: Origin,
    policy: Arc<OriginPolicy>,
}

impl Circuit {
    /// Whose it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The state as a call would find it now.
    pub fn state(&self) -> CircuitState {
        let now = self.client.0.engine.policies.moment(Instant::now());
        self.breaker()
            .map_or(CircuitState::Closed, |breaker| breaker.state(now))
    }

    /// How long it stays open yet; `None` if it is not open.
    pub fn retry_after(&self) -> Option<Duration> {
        let now = self.client.0.engine.policies.moment(Instant::now());
        self.breaker()?.open_for(now)
    }

    /// Has every call fail until [`close`](Self::close), such as while the origin is being repaired. Calls that run go on.
    pub fn isolate(&self) {
        if let Some(breaker) = self.breaker() {
            breaker.isolate();
            self.tell(breaker);
        }
    }

    /// Closes it, and forgets all failures. What calls that run at this moment come to does not count.
    pub fn close(&self) {
        if let Some(breaker) = self.breaker() {
            breaker.close();
            self.tell(breaker);
        }
    }

    /// Tells observers if the breaker has changed.
    fn tell(&self, breaker: &Breaker) {
        let Some(observers) = &self.client.0.engine.observers else {
            return;
        };
        if let Some(state) = breaker.news() {
            let origin = &self.origin;
            observers.tell(&Event::BreakerChange { origin, state });
        }
    }

    fn breaker(&self) -> Option<&Breaker> {
        self.policy.breaker.as_ref()
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit")
            .field("origin", &self.origin)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// The text form of a random UUID (RFC 9562 section 5.4).
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let digits = format!("{bits:032x}");
    let mut text = String::with_capacity(36);
    for (place, digit) in digits.chars().enumerate() {
        if [8, 12, 16, 20].contains(&place) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_tells_its_version_and_variant() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
