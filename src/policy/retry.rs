//! Whether a failed attempt is followed by another, and after which wait.
//!
//! The matrix is in `outcome.rs`; here it is held against how often was tried, what the wait would be, the deadline and the
//! budget. The budget is asked last, so that nothing is paid for a retry that is not made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, Uri};

use super::backoff::{at_least, full_jitter};
use super::budget::{Budget, RetryBudget};
use super::outcome::{Class, Columns, STATUSES, Seen};
use super::{Moment, Overrides, with};
use crate::error::{Error, Result};
use crate::head::ResponseHead;
use crate::url::{IntoUrl, Origin};

/// When a request is sent again after it failed. Without one only that is sent again which provably was not processed, and an
/// idempotent request, once, whose kept connection turned out to be closed; that goes on beside a policy, and costs neither an
/// attempt nor the budget.
///
/// With one, a request is sent again
/// - when no connection came about, or none of it was processed: any request;
/// - after 429, and 503 with `retry-after`: any request;
/// - after 408: any request, once;
/// - after 500, 502, 503 and 504, a connection that failed, or a time limit that struck before the response head: an idempotent
///   one, that is GET, HEAD, OPTIONS, TRACE, PUT, DELETE or QUERY, one with an `idempotency-key`
///   ([`RequestBuilder::idempotency_key`](crate::RequestBuilder::idempotency_key)), or one that the caller vouches for
///   ([`RequestBuilder::idempotent`](crate::RequestBuilder::idempotent)).
///
/// Always provided that its body can be sent again, or that none of it was taken: see [`Body::replay`](crate::Body::replay). A
/// body that fails after the response head is never asked for again. Between two attempts it waits, holding nothing: the failed
/// response is read away or its connection closed. The wait is what `retry-after-ms` or `retry-after` asks for, and up to a tenth more;
/// or else anything up to [`base`](Self::base), doubled for each attempt, at most [`cap`](Self::cap). A wait that would pass the
/// total time limit, or that the server asks to be longer than [`max_retry_after`](Self::max_retry_after), is not begun: the
/// last response or error is the result then, as when the attempts or the [`RetryBudget`] are used up.
///
/// ```
/// use std::time::Duration;
/// use sockeye::{Client, Retry};
///
/// let retry = Retry::default()
///     .with_max_attempts(5)
///     .with_base(Duration::from_millis(100))
///     .for_origin("https://payments.example.com", Retry::none());
/// let client = Client::builder().retry(retry).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Retry {
    /// Attempts in all, the first included. Default 3, at least 1.
    pub max_attempts: u32,
    /// The longest wait before the second attempt. Default 50 ms.
    pub base: Duration,
    /// The same after a server said that it is asked too often (429, or 503 with `retry-after`), where it does not say for how
    /// long to wait. Default 1 s.
    pub throttle_base: Duration,
    /// The longest wait before any attempt. Default 20 s. What a server asks for has a limit of its own.
    pub cap: Duration,
    /// The longest wait that a server may ask for. Default 60 s.
    pub max_retry_after: Duration,
    /// The statuses that are tried again. Default 408, 429, 500, 502, 503 and 504.
    pub statuses: Vec<u16>,
    /// What all retries to an origin may cost together. A client's policy sets it; in one of a single call it is not looked at.
    /// Default: see [`RetryBudget`]. `None` sets no limit, and multiplies the load on a server in trouble by the attempts.
    pub budget: Option<RetryBudget>,
    classifier: Option<Arc<dyn Classify>>,
    overrides: Overrides<Self>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            base: Duration::from_millis(50),
            throttle_base: Duration::from_secs(1),
            cap: Duration::from_secs(20),
            max_retry_after: Duration::from_secs(60),
            statuses: STATUSES.map(|status| status.as_u16()).into(),
            budget: Some(RetryBudget::default()),
            classifier: None,
            overrides: Overrides::default(),
        }
    }
}

with! {
    Retry:
    with_max_attempts max_attempts u32;
    with_base base Duration;
    with_throttle_base throttle_base Duration;
    with_cap cap Duration;
    with_max_retry_after max_retry_after Duration;
    with_statuses statuses Vec<u16>;
    with_budget budget Option<RetryBudget>;
}

impl Retry {
    /// One attempt, as without a policy: for a call or an origin that is to be an exception.
    #[must_use]
    pub fn none() -> Self {
        Self::default().with_max_attempts(1)
    }

    /// Has `classifier` judge what each attempt came to, before the rules do.
    ///
    /// ```
    /// use sockeye::{Attempt, Retry, RetryKind, Verdict};
    ///
    /// // This server says in a field what is worth another attempt.
    /// let retry = Retry::default().with_classifier(|attempt: &Attempt<'_>| match attempt.header("x-should-retry") {
    ///     Some("true") => Verdict::Retry { after: None, kind: RetryKind::Transient },
    ///     Some("false") => Verdict::Fail,
    ///     _ => Verdict::Default,
    /// });
    /// # let _ = retry;
    /// ```
    #[must_use]
    pub fn with_classifier(mut self, classifier: impl Classify) -> Self {
        self.classifier = Some(Arc::new(classifier));
        self
    }

    /// Another setting for the origin of `url`; its path and query do not matter. May be called several times.
    #[must_use]
    pub fn for_origin(mut self, url: impl IntoUrl, retry: Self) -> Self {
        self.overrides
            .set(Origin::of_setting(url, "Retry::for_origin"), retry);
        self
    }

    /// What holds for an origin, of a call's own policy.
    pub(crate) fn of_call(own: &Arc<Self>, origin: &Origin) -> Arc<Self> {
        match own.overrides.of(origin) {
            Some(own) => Arc::new(own.clone()),
            None => Arc::clone(own),
        }
    }

    pub(super) fn of(&self, origin: &Origin) -> Self {
        let mut own = self.overrides.of(origin).unwrap_or(self).clone();
        own.overrides = Overrides::default();
        own
    }

    /// Whether the numbers make sense; the first that does not is named.
    pub(crate) fn check(&self) -> Result<()> {
        self.overrides.check(Self::check)?;
        if self.max_attempts == 0 {
            return Err(Error::invalid(
                "Retry::max_attempts is 0; it must be at least 1",
            ));
        }
        self.budget.map_or(Ok(()), |budget| budget.check())
    }

    /// What the user's classifier makes of an attempt.
    pub(crate) fn judge(&self, seen: Seen, attempt: &Attempt<'_>) -> Seen {
        match &self.classifier {
            Some(classifier) => seen.judged(classifier.classify(attempt)),
            None => seen,
        }
    }

    /// Whether there is a classifier, which has to see each response.
    pub(crate) fn judges(&self) -> bool {
        self.classifier.is_some()
    }

    /// Whether there is another attempt. If the budget allows it, it is paid for.
    pub(crate) fn decide(&self, case: &Case, budget: Option<&Budget>) -> Decision {
        let class = case.seen.class;
        if !class.allows(case.columns) {
            return Decision::Stop(Stop::Final);
        }
        if case.tried >= self.max_attempts {
            return Decision::Stop(Stop::Attempts);
        }
        if class == Class::RequestTimeout && case.had_request_timeout {
            return Decision::Stop(Stop::Attempts);
        }
        if case
            .seen
            .asked
            .is_some_and(|wait| wait > self.max_retry_after)
        {
            return Decision::Stop(Stop::AskedTooLong);
        }
        let wait = self.wait(case);
        if case.remaining.is_some_and(|left| wait >= left) {
            return Decision::Stop(Stop::Deadline);
        }
        if case.open_for.is_some_and(|open| open > wait) {
            return Decision::Stop(Stop::Circuit);
        }
        if case.is_held_too_long(wait) {
            return Decision::Stop(Stop::RateLimit);
        }
        if budget.is_some_and(|budget| !budget.pay(case.seen.timeout, case.now)) {
            return Decision::Stop(Stop::Budget);
        }
        Decision::Again {
            wait,
            why: Why::of(&case.seen),
        }
    }

    fn wait(&self, case: &Case) -> Duration {
        if let Some(asked) = case.seen.asked {
            return at_least(asked, case.chance);
        }
        let base = match case.seen.class {
            Class::Throttled | Class::Wanted(RetryKind::Throttle) => self.throttle_base,
            _ => self.base,
        };
        let retry = case.tried.saturating_sub(1);
        full_jitter(base, self.cap, retry, case.chance)
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("max_attempts", &self.max_attempts)
            .field("base", &self.base)
            .field("throttle_base", &self.throttle_base)
            .field("cap", &self.cap)
            .field("max_retry_after", &self.max_retry_after)
            .field("statuses", &self.statuses)
            .field("budget", &self.budget)
            .field("classifier", &self.classifier.is_some())
            .field("overrides", &self.overrides.0.len())
            .finish()
    }
}

/// Judges what an attempt came to; closures do.
///
/// It runs inside the call, so it must not block. See [`Retry::with_classifier`].
pub trait Classify: Send + Sync + 'static {
    /// What to make of it.
    fn classify(&self, attempt: &Attempt<'_>) -> Verdict;
}

impl<F: Fn(&Attempt<'_>) -> Verdict + Send + Sync + 'static> Classify for F {
    fn classify(&self, attempt: &Attempt<'_>) -> Verdict {
        self(attempt)
    }
}

/// What a [`Classify`] makes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The rules of [`Retry`] and [`CircuitBreaker`](crate::CircuitBreaker) decide.
    Default,
    /// It succeeded, whatever the rules say.
    Success,
    /// It failed, and there is no further attempt. A circuit breaker counts it.
    Fail,
    /// There is to be a further attempt, also for a request that is not idempotent, if its body can be sent again, and
    /// attempts, budget and deadline allow it.
    Retry {
        /// The wait that was asked for; at least so long is waited. With `None` it is as with any failure.
        after: Option<Duration>,
        /// What kind of failure it was.
        kind: RetryKind,
    },
}

/// The kinds of failures, which differ in wait, price and what a circuit breaker makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetryKind {
    /// Something that passes.
    Transient,
    /// The server is asked too often: the wait is longer, and a circuit breaker does not count it.
    Throttle,
    /// A time limit: it costs more of the budget.
    Timeout,
}

/// One attempt, as a [`Classify`] sees it.
pub struct Attempt<'a> {
    pub(crate) method: &'a Method,
    pub(crate) url: &'a Uri,
    pub(crate) number: u32,
    pub(crate) came: Came<'a>,
}

impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A query may hold secrets (security L1).
        let query = self.url.query().map_or("", |_| "?…");
        let authority = self
            .url
            .authority()
            .map_or("", |authority| authority.as_str());
        let url = format_args!("{authority}{}{query}", self.url.path());
        f.debug_struct("Attempt")
            .field("method", self.method)
            .field("url", &url)
            .field("number", &self.number)
            .field("came", &self.came)
            .finish()
    }
}

/// What came of an attempt.
#[derive(Clone, Copy)]
pub(crate) enum Came<'a> {
    Response(&'a ResponseHead),
    Failure(&'a Error),
}

impl fmt::Debug for Came<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Field values may be secret.
        match self {
            Self::Response(head) => f.debug_tuple("Response").field(&head.status).finish(),
            Self::Failure(error) => f.debug_tuple("Failure").field(error).finish(),
        }
    }
}

impl Attempt<'_> {
    /// The method of the request.
    pub fn method(&self) -> &Method {
        self.method
    }

    /// The URL of the request, without userinfo and fragment.
    pub fn url(&self) -> &Uri {
        self.url
    }

    /// Which attempt of the call it was, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The status, if there was a response.
    pub fn status(&self) -> Option<StatusCode> {
        match self.came {
            Came::Response(head) => Some(head.status),
            Came::Failure(_) => None,
        }
    }

    /// The value of the first field of this name, if there was a response and it is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        let Came::Response(head) = self.came else {
            return None;
        };
        let value = std::str::from_utf8(head.first(name)?).ok()?;
        let is_visible = |byte| matches!(byte, b'\t' | b' '..=b'~');
        value.bytes().all(is_visible).then_some(value)
    }

    /// Why there was no response.
    pub fn error(&self) -> Option<&Error> {
        match self.came {
            Came::Response(_) => None,
            Came::Failure(error) => Some(error),
        }
    }
}

/// What a decision looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) seen: Seen,
    pub(crate) columns: Columns,
    /// Attempts so far; what was sent again without a policy does not count.
    pub(crate) tried: u32,
    /// A 408 was tried again already.
    pub(crate) had_request_timeout: bool,
    /// How much time the whole call has left, if it has a limit.
    pub(crate) remaining: Option<Duration>,
    /// How long the breaker will surely refuse every attempt, if it does.
    pub(crate) open_for: Option<Duration>,
    /// How long the rate limit holds attempts back.
    pub(crate) held_for: Duration,
    /// How long it lets one wait.
    pub(crate) most_held: Duration,
    pub(crate) now: Moment,
    /// A random number.
    pub(crate) chance: u64,
}

impl Case {
    /// Whether an attempt after this wait would be refused for how long it would have to wait further.
    fn is_held_too_long(&self, wait: Duration) -> bool {
        let further = self.held_for.saturating_sub(wait);
        let is_late = self.remaining.is_some_and(|left| self.held_for >= left);
        !further.is_zero() && (further > self.most_held || is_late)
    }
}

/// What becomes of a call after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// What the attempt came to is the result.
    Stop(Stop),
    /// Another attempt, after a wait.
    Again { wait: Duration, why: Why },
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It would not be right, or would not help.
    Final,
    Attempts,
    AskedTooLong,
    Deadline,
    Circuit,
    RateLimit,
    Budget,
}

/// Why there is another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    NoConnection,
    Failed,
    TimedOut,
    Throttled,
    Status,
}

impl Why {
    fn of(seen: &Seen) -> Self {
        match seen.class {
            Class::Throttled | Class::Wanted(RetryKind::Throttle) => Self::Throttled,
            _ if seen.timeout => Self::TimedOut,
            Class::Connect => Self::NoConnection,
            Class::RequestTimeout | Class::Trouble => Self::Status,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use bytes::Bytes;
    use http::Version;

    use super::super::{Hints, Report};
    use super::*;
    use crate::deadline::{Expired, Setting};
    use crate::error::{ErrorKind, Phase, Sent};
    use crate::head::FieldAt;

    fn head(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
        let mut message = Vec::new();
        let mut index = Vec::new();
        let mut put = |text: &str| {
            let at = u32::try_from(message.len()).unwrap();
            message.extend_from_slice(text.as_bytes());
            (at, u32::try_from(text.len()).unwrap())
        };
        for (name, value) in fields {
            let (name, value) = (put(name), put(value));
            index.extend_from_slice(&FieldAt { name, value }.to_bytes());
        }
        let index_at = message.len();
        message.extend_from_slice(&index);
        let body_at = message.len();
        let status = StatusCode::from_u16(status).unwrap();
        let message = Bytes::from(message);
        ResponseHead::new(status, Version::HTTP_11, message, index_at, body_at)
    }

    fn answered(status: u16, fields: &[(&str, &str)]) -> Seen {
        Seen::of_response(&head(status, fields), Some(&Retry::default()), false)
    }

    fn failed(error: Error, hints: Hints) -> Seen {
        Seen::of_failure(&error, hints)
    }

    fn error(kind: ErrorKind, phase: Phase, sent: Sent) -> Error {
        Error::new(kind, Some(phase), sent)
    }

    fn timeout(setting: Setting, phase: Phase, sent: Sent) -> Error {
        let limit = Duration::from_secs(1);
        let expired = Expired {
            setting,
            phase,
            limit,
        };
        Error::timeout(expired, sent)
    }

    fn broken(kind: ErrorKind, phase: Phase, io: io::ErrorKind) -> Error {
        error(kind, phase, Sent::Nothing).because(io::Error::from(io))
    }

    fn refused() -> Hints {
        Hints {
            unprocessed: true,
            ..Hints::default()
        }
    }

    fn stale() -> Hints {
        Hints {
            stale: true,
            ..Hints::default()
        }
    }

    fn unanswered(millis: u64) -> Hints {
        Hints {
            unanswered: Some(Duration::from_millis(millis)),
            ..Hints::default()
        }
    }

    /// What the two columns of bodies that can be sent once say: never, only while nothing of it was taken.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Once {
        Never,
        Unpolled,
    }

    /// A row of the matrix: what happened; idempotent and any other method with a body that can be sent again; the same with one
    /// that can be sent once; what the breaker hears, and what a retry costs.
    type Row = (&'static str, Seen, [bool; 2], [Once; 2], Report, u64);

    fn case(seen: Seen, columns: Columns) -> Case {
        Case {
            seen,
            columns,
            tried: 1,
            had_request_timeout: false,
            remaining: None,
            open_for: None,
            held_for: Duration::ZERO,
            most_held: Duration::ZERO,
            now: Moment::default(),
            chance: u64::MAX,
        }
    }

    /// The whole matrix of 2.3: class by method by body, with what the breaker hears and what the budget pays.
    #[test]
    fn the_matrix() {
        use ErrorKind as Kind;
        use Once::{Never, Unpolled};
        use Report::{Failure, Neutral, Success};
        let after = &[("retry-after", "1")][..];
        let rows: Vec<Row> = vec![
            // T
            (
                "nothing written",
                failed(
                    error(Kind::Io, Phase::Write, Sent::Nothing),
                    Hints::default(),
                ),
                [true, true],
                [Unpolled, Unpolled],
                Neutral,
                5,
            ),
            (
                "GOAWAY or REFUSED_STREAM",
                failed(error(Kind::Io, Phase::Head, Sent::All), refused()),
                [true, true],
                [Unpolled, Unpolled],
                Neutral,
                5,
            ),
            // T2: the one that is free was made before the policy is asked.
            (
                "stale",
                failed(error(Kind::Io, Phase::Head, Sent::All), stale()),
                [true, false],
                [Never, Never],
                Neutral,
                5,
            ),
            // N
            (
                "refused connection",
                failed(
                    broken(
                        Kind::Connect,
                        Phase::Connect,
                        io::ErrorKind::ConnectionRefused,
                    ),
                    Hints::default(),
                ),
                [true, true],
                [Unpolled, Unpolled],
                Failure,
                5,
            ),
            (
                "name server in trouble",
                failed(
                    broken(Kind::Resolve, Phase::Resolve, io::ErrorKind::Other),
                    Hints::default(),
                ),
                [true, true],
                [Unpolled, Unpolled],
                Failure,
                5,
            ),
            (
                "reset in the handshake",
                failed(
                    broken(Kind::Tls, Phase::Tls, io::ErrorKind::ConnectionReset),
                    Hints::default(),
                ),
                [true, true],
                [Unpolled, Unpolled],
                Failure,
                5,
            ),
            (
                "connect limit",
                failed(
                    timeout(Setting::Connect, Phase::Tls, Sent::Nothing),
                    Hints::default(),
                ),
                [true, true],
                [Unpolled, Unpolled],
                Failure,
                10,
            ),
            (
                "attempt limit while connecting",
                failed(
                    timeout(Setting::Attempt, Phase::Connect, Sent::Nothing),
                    Hints::default(),
                ),
                [true, true],
                [Unpolled, Unpolled],
                Failure,
                10,
            ),
            // A
            (
                "reset before the head",
                failed(error(Kind::Io, Phase::Head, Sent::All), Hints::default()),
                [true, false],
                [Never, Never],
                Failure,
                5,
            ),
            (
                "reset while writing",
                failed(error(Kind::Io, Phase::Write, Sent::Part), Hints::default()),
                [true, false],
                [Never, Never],
                Failure,
                5,
            ),
            (
                "head limit",
                failed(
                    timeout(Setting::Head, Phase::Head, Sent::All),
                    Hints::default(),
                ),
                [true, false],
                [Never, Never],
                Failure,
                10,
            ),
            (
                "attempt limit before the head",
                failed(
                    timeout(Setting::Attempt, Phase::Head, Sent::All),
                    Hints::default(),
                ),
                [true, false],
                [Never, Never],
                Failure,
                10,
            ),
            (
                "write limit",
                failed(
                    timeout(Setting::Write, Phase::Write, Sent::Part),
                    Hints::default(),
                ),
                [true, false],
                [Never, Never],
                Failure,
                10,
            ),
            (
                "head cut short",
                failed(
                    error(Kind::Protocol, Phase::Head, Sent::All)
                        .with_io_kind(Some(io::ErrorKind::UnexpectedEof)),
                    Hints::default(),
                ),
                [true, false],
                [Never, Never],
                Failure,
                5,
            ),
            // S
            (
                "429",
                answered(429, &[]),
                [true, true],
                [Unpolled, Never],
                Neutral,
                5,
            ),
            (
                "429 and Retry-After",
                answered(429, after),
                [true, true],
                [Unpolled, Never],
                Neutral,
                5,
            ),
            (
                "503 and Retry-After",
                answered(503, after),
                [true, true],
                [Unpolled, Never],
                Failure,
                5,
            ),
            (
                "503",
                answered(503, &[]),
                [true, false],
                [Never, Never],
                Failure,
                5,
            ),
            (
                "503 and nonsense",
                answered(503, &[("retry-after", "soon")]),
                [true, false],
                [Never, Never],
                Failure,
                5,
            ),
            (
                "500",
                answered(500, &[]),
                [true, false],
                [Never, Never],
                Neutral,
                5,
            ),
            (
                "502",
                answered(502, &[]),
                [true, false],
                [Never, Never],
                Failure,
                5,
            ),
            (
                "504",
                answered(504, &[]),
                [true, false],
                [Never, Never],
                Failure,
                5,
            ),
            (
                "408",
                answered(408, &[]),
                [true, true],
                [Never, Never],
                Neutral,
                5,
            ),
        ];
        let no = |name, seen, report| (name, seen, [false, false], [Never, Never], report, 0);
        let finals = [200, 204, 301, 304, 400, 401, 404, 409, 425, 501, 505, 599]
            .map(|status| no("other status", answered(status, after), Success));
        let errors = [
            (
                "certificate",
                broken(Kind::Tls, Phase::Tls, io::ErrorKind::InvalidData),
            ),
            (
                "no such name",
                broken(Kind::Resolve, Phase::Resolve, io::ErrorKind::NotFound),
            ),
            ("protocol", error(Kind::Protocol, Phase::Head, Sent::All)),
            ("too large", error(Kind::TooLarge, Phase::Head, Sent::All)),
            ("own body", error(Kind::Body, Phase::Write, Sent::Part)),
            (
                "own request",
                error(Kind::InvalidRequest, Phase::Prepare, Sent::Nothing),
            ),
            ("decode", error(Kind::Decode, Phase::Read, Sent::All)),
            (
                "closed client",
                error(Kind::ClientClosed, Phase::Pool, Sent::Nothing),
            ),
            (
                "pool full",
                error(Kind::PoolFull, Phase::Pool, Sent::Nothing),
            ),
            (
                "pool limit",
                timeout(Setting::Pool, Phase::Pool, Sent::Nothing),
            ),
            (
                "attempt limit in the pool",
                timeout(Setting::Attempt, Phase::Pool, Sent::Nothing),
            ),
            ("breaker", Error::refused(Kind::CircuitOpen, None, "open")),
            ("rate", Error::refused(Kind::RateLimited, None, "late")),
            (
                "total limit",
                timeout(Setting::Total, Phase::Head, Sent::All),
            ),
            ("body", error(Kind::Io, Phase::Read, Sent::All)),
            ("read limit", timeout(Setting::Read, Phase::Read, Sent::All)),
        ]
        .map(|(name, error)| no(name, failed(error, Hints::default()), Neutral));
        for (name, seen, replayable, once, report, cost) in
            rows.into_iter().chain(finals).chain(errors)
        {
            assert_eq!(seen.report, report, "{name}");
            let expected = [
                (true, true, false, replayable[0]),
                (false, true, false, replayable[1]),
                (true, false, true, once[0] == Unpolled),
                (true, false, false, false),
                (false, false, true, once[1] == Unpolled),
                (false, false, false, false),
            ];
            for (idempotent, replayable, unpolled, expected) in expected {
                let columns = Columns {
                    idempotent,
                    replayable,
                    unpolled,
                };
                let budget = Budget::new(RetryBudget::default().with_capacity(10));
                let decision = Retry::default().decide(&case(seen, columns), Some(&budget));
                let again = matches!(decision, Decision::Again { .. });
                assert_eq!(again, expected, "{name}, {columns:?}: {decision:?}");
                if again {
                    let paid = (0..)
                        .take_while(|_| budget.pay(false, Moment::default()))
                        .count();
                    assert_eq!(paid as u64, (10 - cost) / 5, "{name}");
                }
            }
        }
    }

    #[test]
    fn the_total_limit_says_something_of_a_request_that_was_long_unanswered() {
        let total = || timeout(Setting::Total, Phase::Head, Sent::All);
        assert_eq!(failed(total(), unanswered(1000)).report, Report::Failure);
        assert_eq!(failed(total(), unanswered(999)).report, Report::Neutral);
        assert_eq!(failed(total(), Hints::default()).report, Report::Neutral);
    }

    #[test]
    fn status_500_is_a_failure_for_who_says_so() {
        let seen = Seen::of_response(&head(500, &[]), Some(&Retry::default()), true);
        assert_eq!(seen.report, Report::Failure);
    }

    fn idempotent() -> Columns {
        Columns {
            idempotent: true,
            replayable: true,
            unpolled: false,
        }
    }

    fn decide(case: &Case) -> Decision {
        Retry::default().decide(case, None)
    }

    #[test]
    fn attempts_the_deadline_the_breaker_and_the_budget_set_limits() {
        let fresh = case(answered(503, &[]), idempotent());
        let stop = |case: Case| match decide(&case) {
            Decision::Stop(stop) => stop,
            again @ Decision::Again { .. } => panic!("{again:?}"),
        };
        assert!(matches!(decide(&fresh), Decision::Again { .. }));
        assert_eq!(stop(Case { tried: 3, ..fresh }), Stop::Attempts);
        // The wait is just under 50 ms.
        let left = |micros| Some(Duration::from_micros(micros));
        let late = Case {
            remaining: left(49_000),
            ..fresh
        };
        assert_eq!(stop(late), Stop::Deadline);
        let open = Case {
            open_for: left(51_000),
            ..fresh
        };
        assert_eq!(stop(open), Stop::Circuit);
        // What is left of the rate limit's wait behind the retry's own.
        let held = |micros, most, remaining| Case {
            held_for: Duration::from_micros(micros),
            most_held: Duration::from_micros(most),
            remaining,
            ..fresh
        };
        assert_eq!(stop(held(61_000, 10_000, None)), Stop::RateLimit);
        assert_eq!(stop(held(61_000, 99_000, left(60_000))), Stop::RateLimit);
        for case in [
            held(59_000, 10_000, None),
            held(49_000, 0, None),
            held(61_000, 99_000, left(62_000)),
        ] {
            assert!(matches!(decide(&case), Decision::Again { .. }), "{case:?}");
        }
        let in_time = Case {
            remaining: left(51_000),
            open_for: left(49_000),
            ..fresh
        };
        assert!(matches!(decide(&in_time), Decision::Again { .. }));
        let again = Case {
            had_request_timeout: true,
            ..case(answered(408, &[]), idempotent())
        };
        assert_eq!(stop(again), Stop::Attempts);
        // Nothing is paid for a retry that is not made.
        let budget = Budget::new(RetryBudget::default().with_capacity(5));
        let retry = Retry::default();
        assert_eq!(
            retry.decide(&late, Some(&budget)),
            Decision::Stop(Stop::Deadline)
        );
        assert!(matches!(
            retry.decide(&fresh, Some(&budget)),
            Decision::Again { .. }
        ));
        assert_eq!(
            retry.decide(&fresh, Some(&budget)),
            Decision::Stop(Stop::Budget)
        );
    }

    /// The bounds of every wait over 10,000 numbers.
    #[test]
    fn waits_keep_their_bounds() {
        let millis = Duration::from_millis;
        let rows = [
            (answered(503, &[]), 1, millis(0), millis(50)),
            (answered(503, &[]), 2, millis(0), millis(100)),
            (answered(429, &[]), 1, millis(0), millis(1000)),
            (answered(429, &[]), 2, millis(0), millis(2000)),
            (
                answered(429, &[("retry-after", "2")]),
                1,
                millis(2000),
                millis(2200),
            ),
            (
                answered(503, &[("retry-after", "50")]),
                2,
                millis(50_000),
                millis(51_000),
            ),
            (
                answered(429, &[("retry-after-ms", "10")]),
                1,
                millis(10),
                millis(11),
            ),
            (
                answered(429, &[("retry-after", "0")]),
                1,
                millis(0),
                millis(0),
            ),
        ];
        for (seen, tried, least, most) in rows {
            for number in 0..10_000_u64 {
                let case = Case {
                    tried,
                    chance: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    ..case(seen, idempotent())
                };
                let Decision::Again { wait, .. } = decide(&case) else {
                    panic!("{case:?}");
                };
                assert!(wait >= least && wait <= most, "{wait:?} for {case:?}");
            }
        }
        let asked = |wait| decide(&case(answered(429, &[("retry-after", wait)]), idempotent()));
        assert!(matches!(asked("60"), Decision::Again { .. }));
        assert_eq!(asked("60.001"), Decision::Stop(Stop::AskedTooLong));
        assert_eq!(
            asked("99999999999999999999999"),
            Decision::Stop(Stop::AskedTooLong)
        );
    }

    #[test]
    fn a_classifier_has_the_first_word() {
        let retry = Retry::default().with_classifier(|attempt: &Attempt<'_>| {
            match (
                attempt.status().map(|status| status.as_u16()),
                attempt.header("x-again"),
            ) {
                (Some(200), Some("yes")) => Verdict::Retry {
                    after: Some(Duration::from_secs(3)),
                    kind: RetryKind::Throttle,
                },
                (Some(404), _) => Verdict::Success,
                (Some(503), _) => Verdict::Fail,
                (None, _) => {
                    assert_eq!(attempt.error().unwrap().kind(), ErrorKind::Protocol);
                    Verdict::Retry {
                        after: None,
                        kind: RetryKind::Timeout,
                    }
                }
                _ => Verdict::Default,
            }
        });
        let judge = |came: Came<'_>, seen| {
            let attempt = Attempt {
                method: &Method::POST,
                url: &Uri::from_static("http://a.test/"),
                number: 1,
                came,
            };
            retry.judge(seen, &attempt)
        };
        let of = |status, fields: &[(&str, &str)]| {
            let head = head(status, fields);
            judge(Came::Response(&head), answered(status, fields))
        };
        let other = Columns {
            idempotent: false,
            ..idempotent()
        };
        let wanted = of(200, &[("X-Again", "yes")]);
        assert_eq!(wanted.report, Report::Neutral);
        let Decision::Again { wait, why } = decide(&case(wanted, other)) else {
            panic!("{wanted:?}");
        };
        assert!(wait >= Duration::from_secs(3) && why == Why::Throttled);
        assert_eq!(of(404, &[]).report, Report::Success);
        assert!(of(404, &[]).is_success);
        assert_eq!(of(503, &[]).report, Report::Failure);
        assert_eq!(
            decide(&case(of(503, &[]), idempotent())),
            Decision::Stop(Stop::Final)
        );
        assert_eq!(of(502, &[]), answered(502, &[]));
        let broken = error(ErrorKind::Protocol, Phase::Head, Sent::All);
        let seen = judge(
            Came::Failure(&broken),
            failed(broken.clone(), Hints::default()),
        );
        assert!(seen.timeout && seen.report == Report::Failure);
        // A body that is gone stays gone.
        let gone = Columns {
            replayable: false,
            ..idempotent()
        };
        assert_eq!(decide(&case(seen, gone)), Decision::Stop(Stop::Final));
    }

    #[test]
    fn an_origin_can_be_an_exception() {
        let origin = |url| Origin::of_setting(url, "x").unwrap();
        let retry = Retry::default()
            .for_origin("https://a.test/path", Retry::none())
            .for_origin("https://b.test", Retry::default().with_max_attempts(7))
            .for_origin("https://b.test", Retry::default().with_max_attempts(8));
        retry.check().unwrap();
        assert_eq!(retry.of(&origin("https://a.test")).max_attempts, 1);
        assert_eq!(retry.of(&origin("https://b.test")).max_attempts, 8);
        assert_eq!(retry.of(&origin("http://b.test")).max_attempts, 3);
        let bad = retry.for_origin("ftp://a.test", Retry::none()).check();
        assert!(
            bad.unwrap_err()
                .to_string()
                .starts_with("Retry::for_origin: the URL is not valid")
        );
        let none = Retry::default().with_max_attempts(0).check().unwrap_err();
        assert_eq!(
            none.to_string(),
            "Retry::max_attempts is 0; it must be at least 1"
        );
    }
}
