//! The text that Prometheus scrapes ([exposition format 0.0.4](https://prometheus.io/docs/instrumenting/exposition_formats/)).
//!
//! Pure: a snapshot goes in, lines come out. Names follow OpenTelemetry's where it has one for the thing, with `_` for `.`. Labels
//! come from bounded sets alone: at most 256 origins and `other`, and reasons that are enums.

use std::fmt;
use std::time::Duration;

use super::counts::{CheckoutCounts, ClosedCounts, ErrorCounts, RetryCounts, TimeoutCounts};
use super::latency::Samples;
use super::snapshot::{HostStats, Stats};
use crate::config::CircuitState;
use crate::url::Origin;

/// A snapshot in the text format of Prometheus: see [`Stats::prometheus`].
#[derive(Clone, Copy, Debug)]
pub struct Prometheus<'a>(&'a Stats);

impl Stats {
    /// This snapshot as the body of a scrape, of content type `text/plain; version=0.0.4`.
    ///
    /// Each origin has the labels `url_scheme`, `server_address` and `server_port`; what is beyond the bound of 256 origins has
    /// the address `other` and neither scheme nor port. There is no line for the total, which Prometheus sums up itself. A reason
    /// has a line once it was counted. Buckets hold what took no longer than `le`, give or take the 3.2 % to which
    /// [`LatencySummary`](super::LatencySummary) is exact: an observation that close below a bound may be counted above it.
    ///
    /// ```
    /// let client = sockeye::Client::new();
    /// let body = client.stats().prometheus().to_string();
    /// assert!(body.contains("# TYPE http_client_request_duration_seconds histogram"));
    /// ```
    pub fn prometheus(&self) -> Prometheus<'_> {
        Prometheus(self)
    }

    /// Every part that is not a sum of others, with its labels.
    fn parts(&self) -> impl Iterator<Item = (Labels<'_>, &HostStats)> {
        let hosts = self.hosts.iter();
        let hosts = hosts.map(|(origin, host)| (Labels(Some(origin)), host));
        hosts.chain(self.other.iter().map(|other| (Labels(None), other)))
    }
}

impl fmt::Display for Prometheus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, kind, help, read) in NUMBERS {
            begin(f, name, kind, help)?;
            for (labels, host) in self.0.parts() {
                writeln!(f, "{name}{{{labels}}} {}", read(host))?;
            }
        }
        begin(
            f,
            OPEN_CONNECTIONS,
            "gauge",
            "Connections that are open, by what they do.",
        )?;
        for (labels, host) in self.0.parts() {
            for (state, count) in [
                ("active", host.connections_active),
                ("idle", host.connections_idle),
            ] {
                writeln!(
                    f,
                    "{OPEN_CONNECTIONS}{{{labels},http_connection_state=\"{state}\"}} {count}"
                )?;
            }
        }
        for (name, label, help, read) in REASONS {
            begin(f, name, "counter", help)?;
            for (labels, host) in self.0.parts() {
                read(host, &mut |reason, count| {
                    writeln!(f, "{name}{{{labels},{label}=\"{reason}\"}} {count}")
                })?;
            }
        }
        for (name, help, read) in DURATIONS {
            begin(f, name, "histogram", help)?;
            for (labels, host) in self.0.parts() {
                write_histogram(f, name, labels, read(host))?;
            }
        }
        Ok(())
    }
}

/// The two lines above a metric.
fn begin(f: &mut fmt::Formatter<'_>, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn write_histogram(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    labels: Labels<'_>,
    samples: &Samples,
) -> fmt::Result {
    for (bound, micros) in BOUNDS {
        let count = samples.up_to(Duration::from_micros(*micros));
        writeln!(f, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
    }
    let count = samples.count();
    writeln!(f, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
    writeln!(f, "{name}_sum{{{labels}}} {}", samples.seconds())?;
    writeln!(f, "{name}_count{{{labels}}} {count}")
}

/// What tells an origin from the others.
#[derive(Clone, Copy)]
struct Labels<'a>(Option<&'a Origin>);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A host holds nothing that would have to be escaped: see design D10.
        match self.0 {
            Some(origin) => write!(
                f,
                "url_scheme=\"{}\",server_address=\"{}\",server_port=\"{}\"",
                origin.scheme(),
                origin.host(),
                origin.port()
            ),
            None => f.write_str("url_scheme=\"\",server_address=\"other\",server_port=\"\""),
        }
    }
}

/// A metric of one number: its name, its type, what it is, and where it is.
type Number = (
    &'static str,
    &'static str,
    &'static str,
    fn(&HostStats) -> u64,
);

const NUMBERS: &[Number] = &[
    (
        "http_client_active_requests",
        "gauge",
        "Calls between their start and their response head.",
        |host| gauge(host.requests_active),
    ),
    (
        "http_client_pending_requests",
        "gauge",
        "Calls that wait for a connection.",
        |host| gauge(host.requests_pending),
    ),
    (
        "http_client_connecting",
        "gauge",
        "Connections that are being made.",
        |host| gauge(host.connections_connecting),
    ),
    (
        "http_client_http2_sessions",
        "gauge",
        "HTTP/2 sessions; they are among the open connections.",
        |host| gauge(host.http2_sessions),
    ),
    (
        "http_client_http2_streams",
        "gauge",
        "HTTP/2 streams that are open.",
        |host| gauge(host.http2_streams),
    ),
    (
        "http_client_requests_total",
        "counter",
        "Calls that were started.",
        |host| host.requests_total,
    ),
    (
        "http_client_attempts_total",
        "counter",
        "Tries of these calls, the first ones included.",
        |host| host.attempts_total,
    ),
    (
        "http_client_redirects_total",
        "counter",
        "Redirects that were followed; what came of each is a request of its own.",
        |host| host.redirects,
    ),
    (
        "http_client_authenticated_total",
        "counter",
        "Requests that were sent again with renewed credentials.",
        |host| host.authenticated,
    ),
    (
        "http_client_retries_denied_total",
        "counter",
        "Tries that a policy wanted and the budget of the origin did not allow.",
        |host| host.retries_denied,
    ),
    (
        "http_client_rate_limited_total",
        "counter",
        "Tries that were answered with 429; counted with a policy only.",
        |host| host.rate_limited,
    ),
    (
        "http_client_breaker_state",
        "gauge",
        "The circuit breaker: 0 closed, 1 half open, 2 open, 3 isolated.",
        |host| breaker(host.breaker),
    ),
    (
        "http_client_breaker_opened_total",
        "counter",
        "How often the circuit breaker opened.",
        |host| host.breaker_opened,
    ),
    (
        "http_client_cancelled_total",
        "counter",
        "Calls that were dropped before their response head.",
        |host| host.cancelled,
    ),
    (
        "http_client_connections_opened_total",
        "counter",
        "Connections that were made.",
        |host| host.connections_opened,
    ),
    (
        "http_client_connect_failures_total",
        "counter",
        "Connections that could not be made.",
        |host| host.connect_failures,
    ),
    (
        "http_client_sent_bytes_total",
        "counter",
        "Bytes of HTTP that were sent, before TLS.",
        |host| host.bytes_sent,
    ),
    (
        "http_client_received_bytes_total",
        "counter",
        "Bytes of HTTP that were received, after TLS.",
        |host| host.bytes_received,
    ),
];

fn breaker(state: CircuitState) -> u64 {
    match state {
        CircuitState::Closed => 0,
        CircuitState::HalfOpen => 1,
        CircuitState::Open => 2,
        CircuitState::Isolated => 3,
    }
}

fn gauge(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Takes a reason and how often it was counted.
type Write<'a> = &'a mut dyn FnMut(&str, u64) -> fmt::Result;

/// A metric by reason: its name, the label of the reason, what it is, and where it is.
type Reason = (
    &'static str,
    &'static str,
    &'static str,
    fn(&HostStats, Write<'_>) -> fmt::Result,
);

const REASONS: &[Reason] = &[
    (
        "http_client_responses_total",
        "status_class",
        "Responses, by the class of their status.",
        |host, write| {
            let classes = [
                ("1xx", host.responses_1xx),
                ("2xx", host.responses_2xx),
                ("3xx", host.responses_3xx),
                ("4xx", host.responses_4xx),
                ("5xx", host.responses_5xx),
            ];
            let mut classes = classes.into_iter().filter(|(_, count)| *count > 0);
            classes.try_for_each(|(class, count)| write(class, count))
        },
    ),
    (
        "http_client_errors_total",
        "error_type",
        "Calls that failed, by the kind of error.",
        |host, write| {
            host.errors
                .iter()
                .try_for_each(|(kind, count)| write(ErrorCounts::label(kind), count))
        },
    ),
    (
        "http_client_timeouts_total",
        "phase",
        "Calls that ran into a time limit, by the phase it struck.",
        |host, write| {
            host.timeouts
                .iter()
                .try_for_each(|(phase, count)| write(TimeoutCounts::label(phase), count))
        },
    ),
    (
        "http_client_retries_total",
        "reason",
        "Tries beyond the first of their call, by what allowed them.",
        |host, write| {
            host.retry_causes
                .iter()
                .try_for_each(|(cause, count)| write(RetryCounts::label(cause), count))
        },
    ),
    (
        "http_client_checkouts_total",
        "source",
        "What tries got from the pool.",
        |host, write| {
            host.checkouts
                .iter()
                .try_for_each(|(source, count)| write(CheckoutCounts::label(source), count))
        },
    ),
    (
        "http_client_connections_closed_total",
        "reason",
        "Connections that were closed, by reason.",
        |host, write| {
            host.connections_closed
                .iter()
                .try_for_each(|(cause, count)| write(ClosedCounts::label(cause), count))
        },
    ),
];

/// A histogram: its name, what it is, and where it is.
type Durations = (&'static str, &'static str, fn(&HostStats) -> &Samples);

const DURATIONS: &[Durations] = &[
    (
        "http_client_request_duration_seconds",
        "From the start of a call to the end of its response body.",
        |host| &host.latencies.total,
    ),
    (
        "http_client_response_head_seconds",
        "From the start of a call to its response head.",
        |host| &host.latencies.head,
    ),
    (
        "http_client_time_in_queue_seconds",
        "How long calls waited for a connection.",
        |host| &host.latencies.pool_wait,
    ),
    (
        "http_client_connect_seconds",
        "How long a connection took to make: name, TCP and TLS.",
        |host| &host.latencies.connect,
    ),
];

const OPEN_CONNECTIONS: &str = "http_client_open_connections";

/// Bounds of buckets in seconds and in microseconds: those that OpenTelemetry advises for the duration of requests.
const BOUNDS: &[(&str, u64)] = &[
    ("0.005", 5_000),
    ("0.01", 10_000),
    ("0.025", 25_000),
    ("0.05", 50_000),
    ("0.075", 75_000),
    ("0.1", 100_000),
    ("0.25", 250_000),
    ("0.5", 500_000),
    ("0.75", 750_000),
    ("1", 1_000_000),
    ("2.5", 2_500_000),
    ("5", 5_000_000),
    ("7.5", 7_500_000),
    ("10", 10_000_000),
];

#[cfg(test)]
mod tests {
    use std::iter;
    use std::time::Instant;

    use prometheus_parse::{Scrape, Value};

    use super::super::tests::{busy, millis, origin, snapshot};
    use super::super::{Gauges, Registry};
    use super::*;

    /// Reads the text by a parser that is not ours.
    fn scrape(stats: &Stats) -> Scrape {
        let text = stats.prometheus().to_string();
        Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("a good scrape")
    }

    /// The values of a metric that have these labels.
    fn values<'a>(scrape: &'a Scrape, name: &str, labels: &[(&str, &str)]) -> Vec<&'a Value> {
        let samples = scrape.samples.iter();
        let found = samples.filter(|sample| {
            sample.metric == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(label) == Some(*value))
        });
        found.map(|sample| &sample.value).collect()
    }

    #[test]
    fn another_parser_reads_every_number() {
        let registry = Registry::new();
        let (a, b) = (origin("http://a.example"), origin("https://[::1]:8443"));
        busy(&registry.counters(&a), 2);
        registry.counters(&b).started();
        let gauges = Gauges {
            connections_active: 3,
            connections_idle: 4,
            connections_connecting: 5,
            requests_pending: 6,
            http2_sessions: 7,
            http2_streams: 8,
            ..Gauges::default()
        };
        let stats = registry.snapshot(Instant::now(), None, iter::once((a, gauges)));
        let read = scrape(&stats);
        let a = [
            ("url_scheme", "http"),
            ("server_address", "a.example"),
            ("server_port", "80"),
        ];
        for (name, expected) in [
            ("http_client_active_requests", Value::Gauge(2.0)),
            ("http_client_pending_requests", Value::Gauge(6.0)),
            ("http_client_connecting", Value::Gauge(5.0)),
            ("http_client_http2_sessions", Value::Gauge(7.0)),
            ("http_client_http2_streams", Value::Gauge(8.0)),
            ("http_client_requests_total", Value::Counter(22.0)),
            ("http_client_attempts_total", Value::Counter(28.0)),
            ("http_client_cancelled_total", Value::Counter(8.0)),
            ("http_client_connections_opened_total", Value::Counter(10.0)),
            ("http_client_connect_failures_total", Value::Counter(16.0)),
            ("http_client_sent_bytes_total", Value::Counter(18.0)),
            ("http_client_received_bytes_total", Value::Counter(20.0)),
        ] {
            assert_eq!(values(&read, name, &a), [&expected], "{name}");
        }
        for (name, label, reason, expected) in [
            (
                OPEN_CONNECTIONS,
                "http_connection_state",
                "active",
                Value::Gauge(3.0),
            ),
            (
                OPEN_CONNECTIONS,
                "http_connection_state",
                "idle",
                Value::Gauge(4.0),
            ),
            (
                "http_client_responses_total",
                "status_class",
                "4xx",
                Value::Counter(2.0),
            ),
            (
                "http_client_errors_total",
                "error_type",
                "timeout",
                Value::Counter(2.0),
            ),
            (
                "http_client_timeouts_total",
                "phase",
                "pool",
                Value::Counter(2.0),
            ),
            (
                "http_client_retries_total",
                "reason",
                "go_away",
                Value::Counter(2.0),
            ),
            (
                "http_client_checkouts_total",
                "source",
                "reused",
                Value::Counter(12.0),
            ),
            (
                "http_client_connections_closed_total",
                "reason",
                "error",
                Value::Counter(14.0),
            ),
        ] {
            let labels = [a[0], a[1], a[2], (label, reason)];
            assert_eq!(values(&read, name, &labels), [&expected], "{name} {reason}");
        }
        let b = [("server_address", "::1"), ("server_port", "8443")];
        let started = values(&read, "http_client_requests_total", &b);
        assert_eq!(started, [&Value::Counter(1.0)]);
        // Nothing that was never counted, and no total.
        assert!(values(&read, "http_client_errors_total", &b).is_empty());
        assert_eq!(values(&read, "http_client_requests_total", &[]).len(), 2);
        assert_eq!(
            read.docs.len(),
            NUMBERS.len() + 1 + REASONS.len() + DURATIONS.len()
        );
    }

    #[test]
    fn buckets_add_up_and_lie_within_the_resolution() {
        let registry = Registry::new();
        let counters = registry.counters(&origin("http://a.example"));
        for took in [1, 4, 5, 6, 240, 260, 9_000, 11_000, 100_000] {
            counters.body_done(millis(took));
        }
        let read = scrape(&snapshot(&registry, Instant::now()));
        let name = "http_client_request_duration_seconds";
        let [Value::Histogram(buckets)] = values(&read, name, &[])[..] else {
            panic!("{:?}", read.samples);
        };
        let up_to = |bound: f64| {
            let found = buckets.iter().find(|bucket| bucket.less_than == bound);
            found.map(|bucket| bucket.count)
        };
        for (bound, counts) in [
            // The one of just 5 ms may be on either side.
            (0.005, [2.0, 3.0]),
            (0.01, [4.0; 2]),
            (0.1, [4.0; 2]),
            (0.25, [5.0; 2]),
            (0.5, [6.0; 2]),
            (7.5, [6.0; 2]),
            (10.0, [7.0; 2]),
            (f64::INFINITY, [9.0; 2]),
        ] {
            let count = up_to(bound).expect("a bucket of this bound");
            assert!(counts.contains(&count), "{bound}: {count}");
        }
        assert_eq!(buckets.len(), BOUNDS.len() + 1);
        assert!(buckets.is_sorted_by(|a, b| a.count <= b.count && a.less_than < b.less_than));
        let count = values(&read, &format!("{name}_count"), &[]);
        assert_eq!(count, [&Value::Untyped(9.0)]);
        let [Value::Untyped(sum)] = values(&read, &format!("{name}_sum"), &[])[..] else {
            panic!("no sum");
        };
        assert!((sum - 120.516).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn origins_beyond_the_bound_share_their_lines() {
        let registry = Registry::new();
        for number in 0..300 {
            registry
                .counters(&origin(&format!("http://h{number}.example")))
                .started();
        }
        let read = scrape(&snapshot(&registry, Instant::now()));
        let name = "http_client_requests_total";
        assert_eq!(values(&read, name, &[]).len(), 257);
        let other = values(&read, name, &[("server_address", "other")]);
        assert_eq!(other, [&Value::Counter(44.0)]);
    }

    #[test]
    fn a_new_client_has_no_samples() {
        assert!(scrape(&Stats::default()).samples.is_empty());
    }
}
