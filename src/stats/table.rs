//! The table that [`Stats`] prints: for people at a terminal and in a log, not for programs.
//!
//! Columns are as wide as their widest cell, so that it stays readable from one call to billions. The latencies are
//! those up to the response head.

use std::fmt;

use super::counts::{ErrorCounts, RetryCounts, TimeoutCounts};
use super::latency::Short;
use super::reasons::{AlpnEvent, DialEvent, DrainOutcome, ProbeOutcome};
use super::snapshot::{HostStats, Stats};
use crate::config::CircuitState;
use crate::error::ErrorKind;

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![HEADINGS.map(str::to_owned), row("total", &self.total)];
        for (origin, host) in &self.hosts {
            rows.push(row(&origin.to_string(), host));
        }
        if let Some(other) = &self.other {
            rows.push(row("other", other));
        }
        let mut widths = [0; HEADINGS.len()];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.len().max(*width);
            }
        }
        for (number, row) in rows.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                match column {
                    0 => write!(f, "{cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
        }
        write_errors(f, &self.total)?;
        write_retries(f, &self.total)?;
        write_pool(f, &self.total)?;
        write_breakers(f, self)
    }
}

/// The first line.
const HEADINGS: [&str; 15] = [
    "host",
    "active",
    "idle",
    "connecting",
    "pending",
    "requests",
    "2xx",
    "4xx",
    "5xx",
    "errors",
    "opened",
    "reused",
    "p50",
    "p95",
    "p99",
];

/// The line of one origin, in the order of [`HEADINGS`].
fn row(name: &str, host: &HostStats) -> [String; HEADINGS.len()] {
    let latency = |duration| match host.head.count {
        0 => "-".to_owned(),
        _ => Short(duration).to_string(),
    };
    [
        name.to_owned(),
        host.connections_active.to_string(),
        host.connections_idle.to_string(),
        host.connections_connecting.to_string(),
        host.requests_pending.to_string(),
        host.requests_total.to_string(),
        host.responses_2xx.to_string(),
        host.responses_4xx.to_string(),
        host.responses_5xx.to_string(),
        host.errors.total().to_string(),
        host.connections_opened.to_string(),
        host.connections_reused.to_string(),
        latency(host.head.p50),
        latency(host.head.p95),
        latency(host.head.p99),
    ]
}

/// A line below the table with the errors by kind, and the timeouts by phase. Nothing when there were none.
fn write_errors(f: &mut fmt::Formatter<'_>, total: &HostStats) -> fmt::Result {
    let mut lead = "\nerrors: ";
    for (kind, count) in total.errors.iter() {
        write!(f, "{lead}{} {count}", ErrorCounts::label(kind))?;
        lead = ", ";
        if kind == ErrorKind::Timeout {
            write_timeouts(f, &total.timeouts)?;
        }
    }
    Ok(())
}

/// The phases in brackets, behind the number of timeouts.
fn write_timeouts(f: &mut fmt::Formatter<'_>, timeouts: &TimeoutCounts) -> fmt::Result {
    let mut lead = " (";
    for (phase, count) in timeouts.iter() {
        write!(f, "{lead}{} {count}", TimeoutCounts::label(phase))?;
        lead = ", ";
    }
    f.write_str(if lead == ", " { ")" } else { "" })
}

/// A line with the retries by cause. Nothing when there were none.
fn write_retries(f: &mut fmt::Formatter<'_>, total: &HostStats) -> fmt::Result {
    let mut lead = "\nretries: ";
    for (cause, count) in total.retry_causes.iter() {
        write!(f, "{lead}{} {count}", RetryCounts::label(cause))?;
        lead = ", ";
    }
    if total.retries_denied > 0 {
        write!(f, "{lead}denied {}", total.retries_denied)?;
    }
    Ok(())
}

/// A line with how many origins have a breaker that is not closed. Nothing when all are.
fn write_breakers(f: &mut fmt::Formatter<'_>, stats: &Stats) -> fmt::Result {
    let mut lead = "\nbreakers: ";
    for state in [
        CircuitState::HalfOpen,
        CircuitState::Open,
        CircuitState::Isolated,
    ] {
        let in_state = |(_, host): &&(_, HostStats)| host.breaker == state;
        let count = stats.hosts.iter().filter(in_state).count();
        if count > 0 {
            write!(f, "{lead}{} {count}", state.label())?;
            lead = ", ";
        }
    }
    Ok(())
}

/// A line with what is rare in a pool and tells of trouble or waste. Nothing when there was none of it.
fn write_pool(f: &mut fmt::Formatter<'_>, total: &HostStats) -> fmt::Result {
    let (dials, probes, alpn) = (&total.dials, &total.probes, &total.alpn);
    let dead = probes
        .get(ProbeOutcome::KernelDead)
        .saturating_add(probes.get(ProbeOutcome::SettledDead));
    let mut lead = "\npool: ";
    if total.hosts_starving > 0 {
        write!(f, "{lead}hosts starving {}", total.hosts_starving)?;
        lead = ", ";
        // What they wait for is on loan somewhere, and this is how long it has been.
        if let Some(oldest) = total.oldest_lease {
            write!(f, " (oldest lease {})", Short(oldest))?;
        }
    }
    for (what, count) in [
        ("draining", total.connections_draining as u64),
        ("dials failed", dials.get(DialEvent::Failed)),
        ("dials timed out", dials.get(DialEvent::TimedOut)),
        ("dials surplus", dials.get(DialEvent::Surplus)),
        ("found dead", dead),
        ("drains given up", total.drains.get(DrainOutcome::GaveUp)),
        ("alpn deduplicated", alpn.get(AlpnEvent::Deduplicated)),
        ("alpn flipped", alpn.get(AlpnEvent::Flipped)),
    ] {
        if count > 0 {
            write!(f, "{lead}{what} {count}")?;
            lead = ", ";
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::tests::{millis, origin};
    use super::super::{Checkout, Counters, Gauges, Registry, RetryCause};
    use super::*;
    use crate::error::Phase;

    #[test]
    fn the_table_is_aligned() {
        let registry = Registry::new();
        let users = registry.counters(&origin("https://users.example:8443"));
        let slow = registry.counters(&origin("http://slow.example"));
        registry.counters(&origin("http://new.example"));
        for number in 0..1200 {
            users.started();
            users.responded(200, Duration::from_micros(number));
        }
        users.opened(millis(3));
        for _ in 0..1199 {
            users.checked_out(Checkout::Reused);
        }
        slow.started();
        slow.responded(404, Duration::from_secs(2));
        slow.status_error();
        slow.started();
        slow.responded(503, Duration::from_secs(90));
        slow.status_error();
        for phase in [Phase::Head, Phase::Head, Phase::Pool] {
            slow.started();
            slow.failed(ErrorKind::Timeout, Some(phase));
        }
        let gauges = |connections_active, connections_idle, connections_connecting| Gauges {
            connections_active,
            connections_idle,
            connections_connecting,
            requests_pending: connections_connecting * 12,
            ..Gauges::default()
        };
        let stats = registry.snapshot(
            Instant::now(),
            Some(100),
            [
                (origin("https://users.example:8443"), gauges(3, 17, 0)),
                (origin("http://slow.example"), gauges(0, 0, 1)),
                (origin("http://late.example"), gauges(0, 1, 0)),
            ]
            .into_iter(),
        );
        let expected = "\
host                        active  idle  connecting  pending  requests   2xx  4xx  5xx  errors  opened  reused     p50      p95      p99
total                            3    18           1       12      1205  1200    1    1       5       1    1199  607 us  1.15 ms  1.22 ms
http://new.example               0     0           0        0         0     0    0    0       0       0       0       -        -        -
http://slow.example              0     0           1       12         5     0    1    1       5       0       0  2.03 s   90.0 s   90.0 s
https://users.example:8443       3    17           0        0      1200  1200    0    0       0       1    1199  607 us  1.15 ms  1.20 ms
other                            0     1           0        0         0     0    0    0       0       0       0       -        -        -
errors: status 2, timeout 3 (pool 1, head 2)";
        assert_eq!(stats.to_string(), expected);
    }

    /// The lines below the table after some events.
    fn below(events: impl Fn(&Counters), gauges: Gauges) -> Vec<String> {
        let registry = Registry::new();
        let a = origin("http://a.example");
        events(&registry.counters(&a));
        let stats = registry.snapshot(Instant::now(), None, [(a, gauges)].into_iter());
        let lines = stats.to_string();
        // The headings, the total and the origin come first.
        lines.lines().skip(3).map(str::to_owned).collect()
    }

    #[test]
    fn what_is_rare_has_lines_of_its_own() {
        let lines = below(
            |c| {
                c.retried(RetryCause::Stale);
                c.retried(RetryCause::GoAway);
                c.retried(RetryCause::GoAway);
                for _ in 0..11 {
                    c.retry_denied();
                }
                c.dial(DialEvent::Failed);
                for _ in 0..2 {
                    c.dial(DialEvent::TimedOut);
                }
                for _ in 0..3 {
                    c.dial(DialEvent::Surplus);
                }
                c.probed(ProbeOutcome::KernelDead);
                for _ in 0..4 {
                    c.probed(ProbeOutcome::SettledDead);
                }
                for _ in 0..6 {
                    c.drained(DrainOutcome::GaveUp);
                }
                for _ in 0..7 {
                    c.alpn(AlpnEvent::Deduplicated);
                }
                for _ in 0..8 {
                    c.alpn(AlpnEvent::Flipped);
                }
            },
            Gauges {
                hosts_starving: 9,
                connections_draining: 10,
                oldest_lease: Some(Duration::from_secs(12)),
                ..Gauges::default()
            },
        );
        let expected = [
            "retries: stale 1, go_away 2, denied 11",
            "pool: hosts starving 9 (oldest lease 12.0 s), draining 10, dials failed 1, dials timed out 2, \
             dials surplus 3, found dead 5, drains given up 6, alpn deduplicated 7, alpn flipped 8",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_common_has_none() {
        let lines = below(
            |c| {
                c.opened(millis(1));
                c.dial(DialEvent::Started);
                for what in [Checkout::Reused, Checkout::Fresh, Checkout::Slot] {
                    c.checked_out(what);
                }
                c.probed(ProbeOutcome::KernelAlive);
                c.probed(ProbeOutcome::SettledAlive);
                for outcome in [
                    DrainOutcome::Buffered,
                    DrainOutcome::Inline,
                    DrainOutcome::Task,
                ] {
                    c.drained(outcome);
                }
                c.alpn(AlpnEvent::Http1);
                c.alpn(AlpnEvent::Http2);
            },
            Gauges {
                oldest_lease: Some(millis(5)),
                ..Gauges::default()
            },
        );
        assert_eq!(lines, [""; 0]);
    }

    #[test]
    fn the_table_of_a_new_client_is_zeros() {
        let expected = "\
host   active  idle  connecting  pending  requests  2xx  4xx  5xx  errors  opened  reused  p50  p95  p99
total       0     0           0        0         0    0    0    0       0       0       0    -    -    -";
        assert_eq!(Stats::default().to_string(), expected);
    }
}
