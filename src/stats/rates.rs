//! Rates: what two snapshots of the same client say about the time between them.
//!
//! A pure function of two [`HostStats`]: no background task measures anything, so any number of watchers can each
//! keep their own window. [`Stats::since`](super::Stats::since) is the only caller.

use std::time::Duration;

use super::latency::LatencySummary;
use super::snapshot::HostStats;

/// How a client worked during a window of time, from [`Stats::since`](super::Stats::since).
///
/// ```
/// use sockeye::stats::Stats;
///
/// let mut last = Stats::default();
/// for _ in 0..3 {
///     // In a program: wait for the next tick here, and take the snapshot from the client.
///     let now = Stats::default();
///     let rates = now.since(&last);
///     println!("{:.0}/s, p95 {:?}", rates.requests_per_second, rates.p95);
///     last = now;
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Rates {
    /// The time between the two snapshots.
    #[cfg_attr(feature = "json", serde(serialize_with = "super::json::seconds"))]
    pub window: Duration,
    /// Calls started a second.
    pub requests_per_second: f64,
    /// Bytes sent a second.
    pub bytes_sent_per_second: f64,
    /// Bytes received a second.
    pub bytes_received_per_second: f64,
    /// The share, 0 to 1, of the calls ended in the window that failed: error statuses and failed bodies included,
    /// calls that the caller dropped not. 0 when none ended.
    pub error_rate: f64,
    /// Connections in use at the end of the window, as a share of `Limits::max_connections`, 0 to 1. An unlimited
    /// pool is never used up: 0.
    pub utilisation: f64,
    /// The share, 0 to 1, of reused connections among those reused and those opened; each further stream of an HTTP/2
    /// session is a reuse. 0 when there were none.
    pub reuse_ratio: f64,
    /// The median of `head`.
    #[cfg_attr(feature = "json", serde(serialize_with = "super::json::seconds"))]
    pub p50: Duration,
    /// The 95th percentile of `head`.
    #[cfg_attr(feature = "json", serde(serialize_with = "super::json::seconds"))]
    pub p95: Duration,
    /// The 99th percentile of `head`.
    #[cfg_attr(feature = "json", serde(serialize_with = "super::json::seconds"))]
    pub p99: Duration,
    /// From the start of a call to its response head, for heads that came in the window.
    pub head: LatencySummary,
    /// From the start of a call to the end of its response body, for bodies that ended in the window.
    pub total: LatencySummary,
    /// How long calls waited for a connection, for waits that ended in the window.
    pub pool_wait: LatencySummary,
    /// How long connections took to make, for those that were opened in the window.
    pub connect: LatencySummary,
}

impl Rates {
    /// Compares two states of the same counters.
    pub(super) fn between(
        earlier: &HostStats,
        later: &HostStats,
        window: Duration,
        max_connections: Option<usize>,
    ) -> Self {
        // Only differences are formed, and those saturate: snapshots in the wrong order or of two clients give
        // nonsense, but no panic.
        let grown = |field: fn(&HostStats) -> u64| field(later).saturating_sub(field(earlier));
        let per_second = |field| match window.as_secs_f64() {
            seconds if seconds > 0.0 => grown(field) as f64 / seconds,
            _ => 0.0,
        };
        let errors = grown(|host| host.errors.total());
        // A body may fail in a later window than its call ended in, so that there are more errors than ends.
        let ended = grown(HostStats::requests_ended).max(errors);
        let opened = grown(|host| host.connections_opened);
        let reused = grown(|host| host.connections_reused);
        let (old, new) = (&earlier.latencies, &later.latencies);
        let head = new.head.since(&old.head).summary();
        Self {
            window,
            requests_per_second: per_second(|host| host.requests_total),
            bytes_sent_per_second: per_second(|host| host.bytes_sent),
            bytes_received_per_second: per_second(|host| host.bytes_received),
            error_rate: share(errors, ended),
            utilisation: max_connections.map_or(0.0, |limit| {
                share(later.connections_active as u64, limit as u64).min(1.0)
            }),
            reuse_ratio: share(reused, opened.saturating_add(reused)),
            p50: head.p50,
            p95: head.p95,
            p99: head.p99,
            head,
            total: new.total.since(&old.total).summary(),
            pool_wait: new.pool_wait.since(&old.pool_wait).summary(),
            connect: new.connect.since(&old.connect).summary(),
        }
    }
}

/// A part of a whole; 0 of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::time::Instant;

    use super::super::tests::{millis, origin, snapshot};
    use super::super::{Checkout, Gauges, Registry};
    use super::*;
    use crate::error::{ErrorKind, Phase};

    #[test]
    fn rates_are_those_of_the_window() {
        let registry = Registry::new();
        let counters = registry.counters(&origin("http://a.example"));
        for _ in 0..100 {
            counters.started();
            counters.failed(ErrorKind::Io, None);
        }
        counters.started();
        counters.responded(200, Duration::from_secs(60));
        counters.opened(millis(1));
        counters.sent_bytes(1_000_000);
        let start = Instant::now();
        let earlier = snapshot(&registry, start);

        for number in 1..=20 {
            counters.started();
            counters.responded(200, millis(number));
            counters.body_done(millis(number * 2));
        }
        counters.opened(millis(5));
        counters.checked_out(Checkout::Fresh);
        counters.checked_out(Checkout::Reused);
        for _ in 0..2 {
            counters.checked_out(Checkout::Slot);
        }
        counters.waited(millis(7));
        counters.status_error();
        for _ in 0..4 {
            counters.started();
            counters.failed(ErrorKind::Timeout, Some(Phase::Head));
        }
        counters.started();
        counters.cancelled();
        counters.started();
        counters.sent_bytes(5000);
        counters.received_bytes(50_000);
        let gauges = Gauges {
            connections_active: 3,
            connections_idle: 9,
            ..Gauges::default()
        };
        let gauges = iter::once((origin("http://a.example"), gauges));
        let later = registry.snapshot(start + Duration::from_secs(10), Some(12), gauges);

        let rates = later.since(&earlier);
        assert_eq!(rates.window, Duration::from_secs(10));
        assert_eq!(rates.requests_per_second, 2.6);
        assert_eq!(rates.bytes_sent_per_second, 500.0);
        assert_eq!(rates.bytes_received_per_second, 5000.0);
        assert_eq!(rates.error_rate, 5.0 / 25.0);
        assert_eq!(rates.utilisation, 0.25);
        assert_eq!(rates.reuse_ratio, 0.75);
        assert_eq!(rates.head.count, 20);
        assert_eq!(rates.head.mean, Duration::from_micros(10_500));
        for (got, exact) in [
            (rates.p50, 10),
            (rates.p95, 19),
            (rates.p99, 20),
            (rates.head.max, 20),
            (rates.total.p50, 20),
            (rates.pool_wait.p50, 7),
            (rates.connect.p50, 5),
        ] {
            let (low, high) = (millis(exact), millis(exact).mul_f64(1.032));
            assert!(low <= got && got <= high, "{got:?} for {exact} ms");
        }

        // The wrong way round, and within no time, nothing happened; nor is anything divided by zero.
        let backwards = earlier.since(&later);
        assert_eq!(backwards, Rates::default());
        let at_once = earlier.since(&earlier);
        assert_eq!(at_once, Rates::default());
    }

    #[test]
    fn an_error_rate_is_a_share_even_when_bodies_fail_late() {
        let registry = Registry::new();
        let counters = registry.counters(&origin("http://a.example"));
        counters.started();
        counters.responded(200, millis(1));
        let start = Instant::now();
        let earlier = snapshot(&registry, start);
        counters.body_failed(ErrorKind::Protocol, None);
        let later = snapshot(&registry, start + millis(10));
        assert_eq!(later.since(&earlier).error_rate, 1.0);
    }
}
