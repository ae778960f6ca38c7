//! Stats: what the client did and does, for whoever wants to watch it.
//!
//! Each origin has one set of `Counters`, which calls and connections add to without a lock (`counters.rs`); the
//! `Registry` finds them by origin and reads them into a [`Stats`] when a user asks (`snapshot.rs`). There is no
//! background task: rates come from two snapshots. This folder knows nothing of pools or protocols; the pool brings
//! its gauges along. Beside the numbers there are events (`event.rs`), which observers are told of as they happen
//! (`observers.rs`). What OpenTelemetry is told comes from them: spans (`spans.rs`) and metrics (`otel.rs`).

#[cfg(any(feature = "otel", feature = "tracing"))]
mod conventions;
mod counters;
mod counts;
mod event;
#[cfg(feature = "json")]
mod json;
mod latency;
#[cfg(not(feature = "tracing"))]
mod no_spans;
mod observers;
#[cfg(feature = "otel")]
mod otel;
mod prometheus;
mod rates;
mod reasons;
mod snapshot;
#[cfg(feature = "tracing")]
mod spans;
mod table;
mod timings;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub use counts::{
    AlpnCounts, CheckoutCounts, ClosedCounts, DialCounts, DrainCounts, ErrorCounts, ProbeCounts,
    RetryCounts, TimeoutCounts,
};
pub use event::{CallId, Event, EventMask, Observer};
pub use latency::LatencySummary;
#[cfg(feature = "otel")]
pub use otel::OtelMetrics;
pub use prometheus::Prometheus;
pub use rates::Rates;
pub use reasons::{
    AlpnEvent, Checkout, CloseCause, DialEvent, DrainOutcome, ProbeOutcome, RetryCause,
    RetryRefusal,
};
pub use snapshot::{HostStats, Stats};
pub use timings::Timings;

pub(crate) use counters::{Counters, Gauges};
#[cfg(not(feature = "tracing"))]
use no_spans as spans;
pub(crate) use observers::{CallTold, DialTold, LeaseTold, Observers, QueueTold, StepTold};
pub(crate) use spans::{AttemptSpan, are_on as spans_are_on};

use crate::url::Origin;

/// The counters of a client by origin: the first 256 have their own, all others share one more.
///
/// An origin keeps its counters for as long as the client lives, so that they never go back. Its lock is held for a
/// look-up only: when the pool makes an entry for a host, and when a snapshot begins.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Origins>);

/// What the lock of a [`Registry`] guards.
#[derive(Clone, Debug, Default)]
struct Origins {
    hosts: BTreeMap<Origin, Arc<Counters>>,
    /// Shared by all origins that came when `hosts` was full.
    other: Option<Arc<Counters>>,
}

impl Registry {
    /// Nothing counted yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The counters of an origin, always the same ones. Not for the hot path: keep what it returns.
    pub(crate) fn counters(&self, origin: &Origin) -> Arc<Counters> {
        let mut origins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = origins.hosts.get(origin) {
            return Arc::clone(counters);
        }
        let counters = if origins.hosts.len() < MAX_ORIGINS {
            origins.hosts.entry(origin.clone()).or_default()
        } else {
            origins.other.get_or_insert_default()
        };
        Arc::clone(counters)
    }

    /// Reads everything. `now` is the moment of the snapshot, `limit` the pool's limit of connections.
    ///
    /// The pool may name an origin several times: once for each route and runtime. The gauges are drawn to their end
    /// before the registry's lock is taken, so they may come from under the pool's locks.
    pub(crate) fn snapshot(
        &self,
        now: Instant,
        limit: Option<usize>,
        gauges: impl Iterator<Item = (Origin, Gauges)>,
    ) -> Stats {
        let mut by_origin = BTreeMap::<Origin, Gauges>::new();
        for (origin, more) in gauges {
            by_origin.entry(origin).or_default().add(more);
        }
        let Origins { hosts, other } = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let hosts: Vec<_> = hosts
            .into_iter()
            .map(|(origin, counters)| {
                let gauges = by_origin.remove(&origin).unwrap_or_default();
                let stats = counters.read(gauges);
                (origin, stats)
            })
            .collect();
        // What is left belongs to origins beyond the bound.
        let rest = by_origin.into_values().reduce(|mut sum, more| {
            sum.add(more);
            sum
        });
        let other = match (other, rest) {
            (None, None) => None,
            (counters, rest) => Some(counters.unwrap_or_default().read(rest.unwrap_or_default())),
        };
        Stats::from_parts(now, hosts, other, limit)
    }
}

/// Whether a bench has asked for a library that counts nothing and tells nobody, to see what it costs that it does
/// (`benches/watching/unwatched.sh`). No feature: nobody is to have such a build by mistake.
pub(crate) const UNWATCHED: bool = cfg!(sockeye_unwatched);

/// How many origins have counters of their own: enough for a service that calls other services, and a bound for a
/// crawler, which would otherwise keep some KiB for each site it ever saw.
const MAX_ORIGINS: usize = 256;

#[cfg(test)]
mod tests {
    use std::iter;
    use std::time::Duration;

    use super::*;
    use crate::error::{ErrorKind, Phase};
    use crate::url::Target;

    /// An origin from its URL.
    pub(super) fn origin(url: &str) -> Origin {
        Target::parse_base(url).expect("a good URL").target.origin()
    }

    /// A snapshot without gauges and limit.
    pub(super) fn snapshot(registry: &Registry, at: Instant) -> Stats {
        registry.snapshot(at, None, iter::empty())
    }

    /// Milliseconds.
    pub(super) fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn an_origin_keeps_its_counters() {
        let registry = Registry::new();
        let first = registry.counters(&origin("https://a.example"));
        let again = registry.counters(&origin("https://a.example"));
        let stranger = registry.counters(&origin("http://a.example"));
        assert!(Arc::ptr_eq(&first, &again));
        assert!(!Arc::ptr_eq(&first, &stranger));
        first.started();
        drop((first, again));
        let stats = snapshot(&registry, Instant::now());
        let requests: Vec<_> = stats
            .hosts
            .iter()
            .map(|(origin, host)| (origin.clone(), host.requests_total))
            .collect();
        let expected = [
            (origin("http://a.example"), 0),
            (origin("https://a.example"), 1),
        ];
        assert_eq!(requests, expected);
    }

    #[test]
    fn origins_are_bounded_and_the_others_are_counted_together() {
        let registry = Registry::new();
        let name = |number: u32| origin(&format!("http://h{number:03}.example"));
        // Backwards, so that the order of the snapshot is its own.
        for number in (0..300).rev() {
            let counters = registry.counters(&name(number));
            counters.started();
            counters.responded(200, millis(1));
        }
        // Old ones stay where they were, on either side of the bound.
        registry.counters(&name(299)).started();
        registry.counters(&name(0)).started();
        let active = Gauges {
            connections_active: 1,
            ..Gauges::default()
        };
        let gauges = (0..300).map(|number| (name(number), active));
        let stats = registry.snapshot(Instant::now(), None, gauges);

        assert_eq!(stats.hosts.len(), 256);
        assert!(stats.hosts.is_sorted_by(|(a, _), (b, _)| a < b));
        assert_eq!(stats.hosts[0].0, name(44));
        assert_eq!(stats.hosts[255].1.requests_total, 2);
        let other = stats.other.expect("44 origins are beyond the bound");
        assert_eq!(other.requests_total, 45);
        assert_eq!(other.head.count, 44);
        assert_eq!(other.connections_active, 44);
        assert_eq!(stats.total.requests_total, 302);
        assert_eq!(stats.total.requests_active, 2);
        assert_eq!(stats.total.connections_active, 300);
        assert_eq!(stats.total.head.count, 300);
    }

    #[test]
    fn gauges_of_an_origin_add_up_and_need_no_counters() {
        let registry = Registry::new();
        registry.counters(&origin("http://a.example"));
        let gauges = |idle| Gauges {
            connections_idle: idle,
            ..Gauges::default()
        };
        let stats = registry.snapshot(
            Instant::now(),
            None,
            [
                (origin("http://a.example"), gauges(1)),
                (origin("http://b.example"), gauges(4)),
                (origin("http://a.example"), gauges(2)),
                (origin("http://c.example"), gauges(8)),
            ]
            .into_iter(),
        );
        assert_eq!(stats.hosts.len(), 1);
        assert_eq!(stats.hosts[0].1.connections_idle, 3);
        assert_eq!(stats.other.map(|other| other.connections_idle), Some(12));
        assert_eq!(stats.total.connections_idle, 15);
    }

    #[test]
    fn the_oldest_lease_of_a_total_is_the_oldest_of_its_origins() {
        let registry = Registry::new();
        let parts = [
            ("http://a.example", None),
            ("http://b.example", Some(millis(3))),
            ("http://c.example", Some(millis(1))),
            ("http://d.example", None),
        ]
        .map(|(url, oldest_lease)| {
            registry.counters(&origin(url));
            let gauges = Gauges {
                oldest_lease,
                ..Gauges::default()
            };
            (origin(url), gauges)
        });
        let stats = registry.snapshot(Instant::now(), None, parts.into_iter());
        let leases: Vec<_> = stats
            .hosts
            .iter()
            .map(|(_, host)| host.oldest_lease)
            .collect();
        assert_eq!(leases, [None, Some(millis(3)), Some(millis(1)), None]);
        assert_eq!(stats.total.oldest_lease, Some(millis(3)));
    }

    #[test]
    fn the_total_is_the_sum_of_every_number() {
        let registry = Registry::new();
        let (a, b) = (origin("http://a.example"), origin("http://b.example"));
        busy(&registry.counters(&a), 2);
        busy(&registry.counters(&b), 3);
        let gauges = |idle| Gauges {
            connections_active: idle + 1,
            connections_idle: idle,
            connections_connecting: idle + 2,
            requests_pending: idle + 3,
            http2_sessions: idle + 4,
            http2_streams: idle + 5,
            connections_draining: idle + 6,
            oldest_lease: Some(millis(idle as u64)),
            hosts_starving: idle + 7,
        };
        // The gauges of the second are those above zero of the first, so that their sum has the same shape. The oldest
        // lease is not a sum.
        let step = Gauges {
            connections_active: 10,
            connections_idle: 10,
            connections_connecting: 10,
            requests_pending: 10,
            http2_sessions: 10,
            http2_streams: 10,
            connections_draining: 10,
            oldest_lease: Some(millis(30)),
            hosts_starving: 10,
        };
        let stats = registry.snapshot(
            Instant::now(),
            None,
            [(a, gauges(20)), (b, step)].into_iter(),
        );
        assert_busy(&stats.hosts[0].1, 2, 20);
        assert_busy(&stats.total, 5, 30);
        assert!(stats.other.is_none());
    }

    #[test]
    fn breakers_come_from_whoever_knows_them() {
        use crate::config::CircuitState::{Closed, HalfOpen, Open};
        let registry = Registry::new();
        for url in ["http://a.example", "http://b.example", "http://c.example"] {
            registry.counters(&origin(url));
        }
        let stats =
            snapshot(&registry, Instant::now()).with_breakers(|origin| match origin.host() {
                "a.example" => Some((HalfOpen, 2)),
                "b.example" => Some((Open, 3)),
                _ => None,
            });
        let seen: Vec<_> = stats
            .hosts
            .iter()
            .map(|(_, host)| (host.breaker, host.breaker_opened))
            .collect();
        assert_eq!(seen, [(HalfOpen, 2), (Open, 3), (Closed, 0)]);
        assert_eq!((stats.total.breaker, stats.total.breaker_opened), (Open, 5));
        assert!(
            stats
                .to_string()
                .ends_with("\nbreakers: half_open 1, open 1"),
            "{stats}"
        );
    }

    /// Does something that moves every number of an origin, `times` times over.
    pub(super) fn busy(counters: &Counters, times: u64) {
        for _ in 0..times {
            counters.started();
            counters.started();
            counters.retried(RetryCause::Stale);
            counters.retried(RetryCause::Stale);
            counters.retried(RetryCause::GoAway);
            for _ in 0..17 {
                counters.retry_denied();
            }
            for _ in 0..18 {
                counters.rate_limited();
            }
            for status in [100, 200, 300, 400, 500] {
                counters.started();
                counters.responded(status, millis(2));
            }
            counters.failed(ErrorKind::Timeout, Some(Phase::Pool));
            for _ in 0..4 {
                counters.started();
                counters.cancelled();
            }
            for _ in 0..5 {
                counters.opened(millis(3));
            }
            for _ in 0..6 {
                counters.checked_out(Checkout::Reused);
            }
            for _ in 0..13 {
                counters.checked_out(Checkout::Fresh);
            }
            for _ in 0..14 {
                counters.dial(DialEvent::Started);
                counters.alpn(AlpnEvent::Http1);
            }
            for _ in 0..15 {
                counters.probed(ProbeOutcome::SettledAlive);
            }
            for _ in 0..16 {
                counters.drained(DrainOutcome::Inline);
            }
            for _ in 0..7 {
                counters.closed(CloseCause::Error);
            }
            for _ in 0..8 {
                counters.dial(DialEvent::Failed);
            }
            counters.sent_bytes(9);
            counters.received_bytes(10);
            counters.body_done(millis(11));
            counters.waited(millis(12));
        }
    }

    /// Every number of [`busy`].
    fn assert_busy(host: &HostStats, times: u64, idle: usize) {
        assert_eq!(host.connections_active, idle + 1);
        assert_eq!(host.connections_idle, idle);
        assert_eq!(host.connections_connecting, idle + 2);
        assert_eq!(host.requests_pending, idle + 3);
        assert_eq!(host.http2_sessions, idle + 4);
        assert_eq!(host.http2_streams, idle + 5);
        assert_eq!(host.connections_draining, idle + 6);
        assert_eq!(host.oldest_lease, Some(millis(idle as u64)));
        assert_eq!(host.hosts_starving, idle + 7);
        assert_eq!(host.requests_active as u64, times);
        assert_eq!(host.requests_total, 11 * times);
        assert_eq!(host.attempts_total, 14 * times);
        assert_eq!(host.responses_1xx, times);
        assert_eq!(host.responses_2xx, times);
        assert_eq!(host.responses_3xx, times);
        assert_eq!(host.responses_4xx, times);
        assert_eq!(host.responses_5xx, times);
        assert_eq!(host.errors.total(), times);
        assert_eq!(host.errors.get(ErrorKind::Timeout), times);
        assert_eq!(host.timeouts.total(), times);
        assert_eq!(host.timeouts.get(Phase::Pool), times);
        assert_eq!(host.retries, 3 * times);
        assert_eq!(host.retry_causes.total(), 3 * times);
        assert_eq!(host.retry_causes.get(RetryCause::Stale), 2 * times);
        assert_eq!(host.retries_denied, 17 * times);
        assert_eq!(host.rate_limited, 18 * times);
        assert_eq!(host.cancelled, 4 * times);
        assert_eq!(host.connections_opened, 5 * times);
        assert_eq!(host.connections_reused, 6 * times);
        assert_eq!(host.connections_closed.total(), 7 * times);
        assert_eq!(host.connections_closed.get(CloseCause::Error), 7 * times);
        assert_eq!(host.connect_failures, 8 * times);
        assert_eq!(host.checkouts.get(Checkout::Reused), 6 * times);
        assert_eq!(host.checkouts.get(Checkout::Fresh), 13 * times);
        assert_eq!(host.dials.get(DialEvent::Started), 14 * times);
        assert_eq!(host.dials.get(DialEvent::Succeeded), 5 * times);
        assert_eq!(host.probes.get(ProbeOutcome::SettledAlive), 15 * times);
        assert_eq!(host.drains.get(DrainOutcome::Inline), 16 * times);
        assert_eq!(host.alpn.get(AlpnEvent::Http1), 14 * times);
        assert_eq!(host.bytes_sent, 9 * times);
        assert_eq!(host.bytes_received, 10 * times);
        assert_eq!((host.head.count, host.head.max), (5 * times, millis(2)));
        assert_eq!(
            (host.connect.count, host.connect.max),
            (5 * times, millis(3))
        );
        assert_eq!((host.total.count, host.total.max), (times, millis(11)));
        assert_eq!(
            (host.pool_wait.count, host.pool_wait.max),
            (times, millis(12))
        );
    }
}
