//! What users see: [`Stats`], a snapshot of everything at one moment, and [`HostStats`], the part of one origin.
//!
//! Plain data. The registry fills it from the live counters; nothing here is atomic or shared. Rates come from two
//! snapshots, in `rates.rs`; the table that `Display` prints is in `table.rs`.

use std::time::{Duration, Instant};

use super::counts::{
    AlpnCounts, CheckoutCounts, ClosedCounts, DialCounts, DrainCounts, ErrorCounts, ProbeCounts,
    RetryCounts, TimeoutCounts,
};
use super::latency::{LatencySummary, Samples};
use super::rates::Rates;
use crate::config::CircuitState;
use crate::url::Origin;

/// What a client has done so far and what it is doing now, as a whole and by origin.
///
/// Gauges tell the moment of the snapshot; counters and latencies run from the making of the client and never go
/// back. Two snapshots give the rates between them: see [`since`](Self::since). A snapshot is taken without stopping
/// anybody, so numbers that belong together may differ by what happened meanwhile.
///
/// `Display` prints a table, a line an origin, with the latencies up to the response head:
///
/// ```
/// let stats = sockeye::stats::Stats::default();
/// assert!(stats.to_string().starts_with("host"));
/// assert_eq!(stats.total.requests_total, 0);
/// assert!(stats.hosts.is_empty());
/// ```
///
/// With the feature `json` it is serialised as an object: `total` and `other` as [`HostStats`], `hosts` as an object
/// by origin, counts by reason as objects with every reason, and durations as seconds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// When the snapshot was taken. Not serialised, since it means nothing to another process.
    pub at: Instant,
    /// All origins together.
    pub total: HostStats,
    /// The first 256 origins that were called, in the order of scheme, host and port.
    pub hosts: Vec<(Origin, HostStats)>,
    /// All further origins together; `None` as long as there are none.
    pub other: Option<HostStats>,
    /// The limit of connections that [`Rates::utilisation`] refers to; `None` without one.
    pub max_connections: Option<usize>,
    /// How often an [`Observer`](crate::Observer) panicked, all of them together.
    pub observer_panics: u64,
}

impl Stats {
    /// How fast, how well and how slowly the client worked between an earlier snapshot of it and this one.
    ///
    /// When the other snapshot is not earlier, the window and all rates are zero.
    ///
    /// ```
    /// use sockeye::stats::Stats;
    ///
    /// let earlier = Stats::default();
    /// let later = Stats::default();
    /// let rates = later.since(&earlier);
    /// assert_eq!(rates.requests_per_second, 0.0);
    /// assert_eq!(rates.window, later.at - earlier.at);
    /// ```
    pub fn since(&self, earlier: &Self) -> Rates {
        let window = self.at.saturating_duration_since(earlier.at);
        Rates::between(&earlier.total, &self.total, window, self.max_connections)
    }

    /// Adds the breaker of each origin, which `of` knows: its state, and how often it opened.
    pub(crate) fn with_breakers(
        mut self,
        of: impl Fn(&Origin) -> Option<(CircuitState, u64)>,
    ) -> Self {
        for (origin, host) in &mut self.hosts {
            if let Some((state, opened)) = of(origin) {
                host.breaker = state;
                host.breaker_opened = opened;
                self.total.breaker = self.total.breaker.max(state);
                self.total.breaker_opened += opened;
            }
        }
        self
    }

    /// Adds how often observers panicked.
    pub(crate) fn with_panics(self, observer_panics: u64) -> Self {
        Self {
            observer_panics,
            ..self
        }
    }

    /// A snapshot of these parts; the total is made from them.
    pub(super) fn from_parts(
        at: Instant,
        hosts: Vec<(Origin, HostStats)>,
        other: Option<HostStats>,
        max_connections: Option<usize>,
    ) -> Self {
        let mut sum = HostStats::default();
        for part in hosts.iter().map(|(_, host)| host).chain(&other) {
            sum.add(part);
        }
        Self {
            at,
            total: sum.with_summaries(),
            hosts,
            other,
            max_connections,
            observer_panics: 0,
        }
    }
}

impl Default for Stats {
    /// An empty snapshot of this moment: what a loop that prints rates can start from.
    fn default() -> Self {
        Self::from_parts(Instant::now(), Vec::new(), None, None)
    }
}

/// The gauges, counters and latencies of one origin, or of several together.
///
/// ```
/// use sockeye::ErrorKind;
/// use sockeye::stats::HostStats;
///
/// fn is_healthy(host: &HostStats) -> bool {
///     host.requests_pending == 0 && host.errors.get(ErrorKind::Timeout) * 100 <= host.requests_total
/// }
/// assert!(is_healthy(&HostStats::default()));
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HostStats {
    /// Gauge: connections on loan, draining ones, and HTTP/2 sessions with open streams.
    pub connections_active: usize,
    /// Gauge: connections that wait for a request, HTTP/2 sessions without open streams included.
    pub connections_idle: usize,
    /// Gauge: connections being made.
    pub connections_connecting: usize,
    /// Gauge: connections on which a task reads what was left of a dropped response body. They are in
    /// `connections_active`, too.
    pub connections_draining: usize,
    /// Gauge: how long the connection has been on loan that was lent first, of those that are still on loan; `None`
    /// when none is. Of several origins it is the longest of them. A time that only grows is a response that somebody
    /// neither reads nor drops.
    #[cfg_attr(
        feature = "json",
        serde(serialize_with = "super::json::optional_seconds")
    )]
    pub oldest_lease: Option<Duration>,
    /// Gauge: origins with a call that waits because all of `Limits::max_connections` are taken. An origin that is
    /// called by several routes or from several runtimes counts once for each of them.
    pub hosts_starving: usize,
    /// Gauge: HTTP/2 sessions; they are also in the connections above.
    pub http2_sessions: usize,
    /// Gauge: open HTTP/2 streams.
    pub http2_streams: usize,
    /// Gauge: calls between their start and their response head, those in the queue included.
    pub requests_active: usize,
    /// Gauge: calls in the queue for a connection.
    pub requests_pending: usize,
    /// Calls started, and requests that followed a redirect or were made again with new credentials.
    pub requests_total: u64,
    /// Attempts of these calls: one each, and the retries.
    pub attempts_total: u64,
    /// Calls that ended with a status of 100 to 199: in practice 101, an upgrade.
    pub responses_1xx: u64,
    /// Calls that ended with a status of 200 to 299.
    pub responses_2xx: u64,
    /// Calls that ended with a status of 300 to 399.
    pub responses_3xx: u64,
    /// Calls that ended with a status of 400 to 499.
    pub responses_4xx: u64,
    /// Calls that ended with a status of 500 or more; the undefined 600 to 999 count here.
    pub responses_5xx: u64,
    /// Calls that failed, by kind. An error status and a failed body are in it as well as in their response class.
    pub errors: ErrorCounts,
    /// Calls that ran into a time limit, by the phase it struck; together they are the `Timeout` of `errors`.
    pub timeouts: TimeoutCounts,
    /// Attempts beyond the first of their call.
    pub retries: u64,
    /// The same by what allowed them; `retries` is their total.
    pub retry_causes: RetryCounts,
    /// Redirects of this origin that were followed. Each led to a request of its own, which is counted at the origin where it
    /// went.
    pub redirects: u64,
    /// Responses with status 401 that were answered with new credentials. Each led to a request of its own.
    pub authenticated: u64,
    /// Attempts that a [`Retry`](crate::Retry) wanted and its [`RetryBudget`](crate::RetryBudget) did not allow.
    pub retries_denied: u64,
    /// Attempts that were answered with 429. They are counted with a policy only.
    pub rate_limited: u64,
    /// Gauge: the state of the [`CircuitBreaker`](crate::CircuitBreaker); of several origins it is the one that keeps most calls
    /// away.
    #[cfg_attr(feature = "json", serde(serialize_with = "super::json::circuit"))]
    pub breaker: CircuitState,
    /// How often the breaker opened.
    pub breaker_opened: u64,
    /// Calls that the caller dropped before their response head.
    pub cancelled: u64,
    /// Connections made: the [`Succeeded`](super::DialEvent::Succeeded) of `dials`.
    pub connections_opened: u64,
    /// Exchanges on a connection that had served one before: the [`Reused`](super::Checkout::Reused) and the
    /// [`Slot`](super::Checkout::Slot) of `checkouts`.
    pub connections_reused: u64,
    /// Connections closed, by reason.
    pub connections_closed: ClosedCounts,
    /// Connections that could not be made: the [`Failed`](super::DialEvent::Failed) and the
    /// [`TimedOut`](super::DialEvent::TimedOut) of `dials`.
    pub connect_failures: u64,
    /// What attempts got from the pool.
    pub checkouts: CheckoutCounts,
    /// What became of dials.
    pub dials: DialCounts,
    /// What looks at idle connections found.
    pub probes: ProbeCounts,
    /// What became of response bodies that were dropped before their end.
    pub drains: DrainCounts,
    /// What TLS handshakes settled about the protocol.
    pub alpn: AlpnCounts,
    /// Bytes of HTTP sent, heads and framing included, as they were before TLS.
    pub bytes_sent: u64,
    /// Bytes of HTTP received, heads and framing included, as they were after TLS.
    pub bytes_received: u64,
    /// From the start of a call to its response head.
    pub head: LatencySummary,
    /// From the start of a call to the end of its response body, for bodies that were read to their end.
    pub total: LatencySummary,
    /// How long calls waited for a connection.
    pub pool_wait: LatencySummary,
    /// How long a connection took to make: name, TCP and TLS together.
    pub connect: LatencySummary,
    /// The buckets behind the four summaries, from which windows and totals are made.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(super) latencies: Latencies,
}

/// The buckets behind the summaries of a [`HostStats`].
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies {
    pub(super) head: Samples,
    pub(super) total: Samples,
    pub(super) pool_wait: Samples,
    pub(super) connect: Samples,
}

impl HostStats {
    /// Latencies with their summaries; everything else is zero.
    pub(super) fn summarised(latencies: Latencies) -> Self {
        Self {
            latencies,
            ..Self::default()
        }
        .with_summaries()
    }

    /// Makes the summaries anew from the buckets.
    fn with_summaries(self) -> Self {
        Self {
            head: self.latencies.head.summary(),
            total: self.latencies.total.summary(),
            pool_wait: self.latencies.pool_wait.summary(),
            connect: self.latencies.connect.summary(),
            ..self
        }
    }

    /// Calls that have ended: a response head, an error or a drop.
    pub(super) fn requests_ended(&self) -> u64 {
        let active = u64::try_from(self.requests_active).unwrap_or(u64::MAX);
        self.requests_total.saturating_sub(active)
    }

    /// Adds another origin. The summaries are left alone: they are made once, from the sum of all buckets.
    fn add(&mut self, other: &Self) {
        // Taken apart by name, so that a new field does not compile until it is added up here.
        let Self {
            connections_active,
            connections_idle,
            connections_connecting,
            connections_draining,
            oldest_lease,
            hosts_starving,
            http2_sessions,
            http2_streams,
            requests_active,
            requests_pending,
            requests_total,
            attempts_total,
            responses_1xx,
            responses_2xx,
            responses_3xx,
            responses_4xx,
            responses_5xx,
            errors,
            timeouts,
            retries,
            redirects,
            authenticated,
            retry_causes,
            retries_denied,
            rate_limited,
            breaker,
            breaker_opened,
            cancelled,
            connections_opened,
            connections_reused,
            connections_closed,
            connect_failures,
            checkouts,
            dials,
            probes,
            drains,
            alpn,
            bytes_sent,
            bytes_received,
            head: _,
            total: _,
            pool_wait: _,
            connect: _,
            latencies,
        } = other;
        self.connections_active += connections_active;
        self.connections_idle += connections_idle;
        self.connections_connecting += connections_connecting;
        self.connections_draining += connections_draining;
        self.oldest_lease = self.oldest_lease.max(*oldest_lease);
        self.hosts_starving += hosts_starving;
        self.http2_sessions += http2_sessions;
        self.http2_streams += http2_streams;
        self.requests_active += requests_active;
        self.requests_pending += requests_pending;
        self.requests_total += requests_total;
        self.attempts_total += attempts_total;
        self.responses_1xx += responses_1xx;
        self.responses_2xx += responses_2xx;
        self.responses_3xx += responses_3xx;
        self.responses_4xx += responses_4xx;
        self.responses_5xx += responses_5xx;
        self.errors.add(errors);
        self.timeouts.add(timeouts);
        self.retries += retries;
        self.retry_causes.add(retry_causes);
        self.redirects += redirects;
        self.authenticated += authenticated;
        self.retries_denied += retries_denied;
        self.rate_limited += rate_limited;
        self.breaker = self.breaker.max(*breaker);
        self.breaker_opened += breaker_opened;
        self.cancelled += cancelled;
        self.connections_opened += connections_opened;
        self.connections_reused += connections_reused;
        self.connections_closed.add(connections_closed);
        self.connect_failures += connect_failures;
        self.checkouts.add(checkouts);
        self.dials.add(dials);
        self.probes.add(probes);
        self.drains.add(drains);
        self.alpn.add(alpn);
        self.bytes_sent += bytes_sent;
        self.bytes_received += bytes_received;
        self.latencies.head.add(&latencies.head);
        self.latencies.total.add(&latencies.total);
        self.latencies.pool_wait.add(&latencies.pool_wait);
        self.latencies.connect.add(&latencies.connect);
    }
}
