//! The live counters of one origin, which every call and every connection adds to.
//!
//! This is the hot path: relaxed atomics, no lock, and no allocation but the buckets of a latency once it has
//! more observations than a few. Nothing here reads a clock, and nothing reads the counters but [`Counters::read`], which a snapshot
//! calls. The pool's entry of a host owns one; the call and the connections reach it through their lease.
//!
//! ```text
//! a call ends exactly once:   started -> responded | failed | cancelled
//! and after its head, perhaps:           responded -> status_error | body_failed | body_done
//! a dial, at most one end:    dial(Started) -> opened | dial(Failed) | dial(TimedOut)
//! and if nobody waited:                        opened -> dial(Surplus)
//! a connection:               opened -> checked_out.. -> closed
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::UNWATCHED;
use super::counts::{
    AlpnCounts, CheckoutCounts, ClosedCounts, DialCounts, DrainCounts, ErrorCounts, Live,
    ProbeCounts, RetryCounts, TimeoutCounts,
};
use super::latency::Latency;
use super::reasons::{
    AlpnEvent, Checkout, CloseCause, DialEvent, DrainOutcome, ProbeOutcome, RetryCause,
};
use super::snapshot::{HostStats, Latencies};
use crate::error::{ErrorKind, Phase};

/// What is counted for one origin.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    started: Counter,
    redirects: Counter,
    authenticated: Counter,
    retries: Live<{ RetryCounts::LEN }>,
    retries_denied: Counter,
    rate_limited: Counter,
    /// By class: 1xx to 5xx.
    responses: [Counter; 5],
    /// Calls that ended in an error. Not the sum of `errors`, which also holds errors after a response head.
    failed: Counter,
    cancelled: Counter,
    errors: Live<{ ErrorCounts::LEN }>,
    timeouts: Live<{ TimeoutCounts::LEN }>,
    checkouts: Live<{ CheckoutCounts::LEN }>,
    dials: Live<{ DialCounts::LEN }>,
    probes: Live<{ ProbeCounts::LEN }>,
    drains: Live<{ DrainCounts::LEN }>,
    alpn: Live<{ AlpnCounts::LEN }>,
    closed: Live<{ ClosedCounts::LEN }>,
    bytes_sent: Counter,
    bytes_received: Counter,
    head: Latency,
    total: Latency,
    pool_wait: Latency,
    connect: Latency,
}

impl Counters {
    /// A call began.
    pub(crate) fn started(&self) {
        self.started.add(1);
    }

    /// A call makes another attempt, beyond its first.
    pub(crate) fn retried(&self, why: RetryCause) {
        self.retries.count(RetryCounts::index(why));
    }

    /// A redirect was followed. The request that it led to is counted as one of its own.
    pub(crate) fn redirected(&self) {
        self.redirects.add(1);
    }

    /// A 401 was answered with new credentials. The request that was made again is counted as one of its own.
    pub(crate) fn authenticated(&self) {
        self.authenticated.add(1);
    }

    /// A policy wanted another attempt, and the budget of the origin was used up.
    pub(crate) fn retry_denied(&self) {
        self.retries_denied.add(1);
    }

    /// An attempt was answered with 429.
    pub(crate) fn rate_limited(&self) {
        self.rate_limited.add(1);
    }

    /// A call ended with a response head, `head` after it began. Classes above 5xx count as 5xx.
    pub(crate) fn responded(&self, status: u16, head: Duration) {
        let [
            informational,
            success,
            redirection,
            client_error,
            server_error,
        ] = &self.responses;
        let class = match status {
            0..200 => informational,
            200..300 => success,
            300..400 => redirection,
            400..500 => client_error,
            500.. => server_error,
        };
        class.add(1);
        self.head.record(head);
    }

    /// A call ended with an error. `phase` is where a timeout struck; it is ignored for any other kind.
    pub(crate) fn failed(&self, kind: ErrorKind, phase: Option<Phase>) {
        self.failed.add(1);
        self.count_error(kind, phase);
    }

    /// The status of a call that had [`responded`](Self::responded) was made an error.
    pub(crate) fn status_error(&self) {
        self.count_error(ErrorKind::Status, None);
    }

    /// The body of a call that had [`responded`](Self::responded) failed.
    pub(crate) fn body_failed(&self, kind: ErrorKind, phase: Option<Phase>) {
        self.count_error(kind, phase);
    }

    /// The caller dropped a call before its response head.
    pub(crate) fn cancelled(&self) {
        self.cancelled.add(1);
    }

    /// The body of a response was read to its end, `total` after the call began.
    pub(crate) fn body_done(&self, total: Duration) {
        self.total.record(total);
    }

    /// A call waited this long for a connection.
    pub(crate) fn waited(&self, wait: Duration) {
        self.pool_wait.record(wait);
    }

    /// Bytes were handed to the system.
    pub(crate) fn sent_bytes(&self, bytes: u64) {
        self.bytes_sent.add(bytes);
    }

    /// Bytes came from the system.
    pub(crate) fn received_bytes(&self, bytes: u64) {
        self.bytes_received.add(bytes);
    }

    /// Something happened to a dial. A success is told by [`opened`](Self::opened) instead, since it has a duration.
    pub(crate) fn dial(&self, event: DialEvent) {
        debug_assert_ne!(event, DialEvent::Succeeded, "opened() counts it");
        self.dials.count(DialCounts::index(event));
    }

    /// A dial succeeded: its connection is ready, `connect` after it began (name, TCP and TLS together).
    pub(crate) fn opened(&self, connect: Duration) {
        self.dials.count(DialCounts::index(DialEvent::Succeeded));
        self.connect.record(connect);
    }

    /// An attempt got a connection or a stream.
    pub(crate) fn checked_out(&self, what: Checkout) {
        self.checkouts.count(CheckoutCounts::index(what));
    }

    /// A look at an idle connection took more than its readiness flag.
    pub(crate) fn probed(&self, outcome: ProbeOutcome) {
        self.probes.count(ProbeCounts::index(outcome));
    }

    /// A body that was dropped before its end has been dealt with.
    pub(crate) fn drained(&self, outcome: DrainOutcome) {
        self.drains.count(DrainCounts::index(outcome));
    }

    /// A TLS handshake settled the protocol.
    pub(crate) fn alpn(&self, event: AlpnEvent) {
        self.alpn.count(AlpnCounts::index(event));
    }

    /// A connection was closed.
    pub(crate) fn closed(&self, why: CloseCause) {
        self.closed.count(ClosedCounts::index(why));
    }

    /// Reads everything. Counts that arrive meanwhile may be in some of the numbers and not yet in others.
    pub(super) fn read(&self, gauges: Gauges) -> HostStats {
        // The ends are read before the starts, so that a call which passes by meanwhile looks active, not negative.
        let cancelled = self.cancelled.read();
        let failed = self.failed.read();
        let [r1, r2, r3, r4, r5] = self.responses.each_ref().map(Counter::read);
        let ended = [cancelled, failed, r1, r2, r3, r4, r5].iter().sum();
        let retry_causes = RetryCounts::read(&self.retries);
        let retries = retry_causes.total();
        let started = self.started.read();
        let checkouts = CheckoutCounts::read(&self.checkouts);
        let dials = DialCounts::read(&self.dials);
        HostStats {
            connections_active: gauges.connections_active,
            connections_idle: gauges.connections_idle,
            connections_connecting: gauges.connections_connecting,
            connections_draining: gauges.connections_draining,
            oldest_lease: gauges.oldest_lease,
            hosts_starving: gauges.hosts_starving,
            http2_sessions: gauges.http2_sessions,
            http2_streams: gauges.http2_streams,
            requests_active: usize::try_from(started.saturating_sub(ended)).unwrap_or(usize::MAX),
            requests_pending: gauges.requests_pending,
            requests_total: started,
            attempts_total: started.saturating_add(retries),
            responses_1xx: r1,
            responses_2xx: r2,
            responses_3xx: r3,
            responses_4xx: r4,
            responses_5xx: r5,
            errors: ErrorCounts::read(&self.errors),
            timeouts: TimeoutCounts::read(&self.timeouts),
            retries,
            retry_causes,
            redirects: self.redirects.read(),
            authenticated: self.authenticated.read(),
            retries_denied: self.retries_denied.read(),
            rate_limited: self.rate_limited.read(),
            cancelled,
            connections_opened: dials.get(DialEvent::Succeeded),
            connections_reused: checkouts
                .get(Checkout::Reused)
                .saturating_add(checkouts.get(Checkout::Slot)),
            connections_closed: ClosedCounts::read(&self.closed),
            connect_failures: dials
                .get(DialEvent::Failed)
                .saturating_add(dials.get(DialEvent::TimedOut)),
            checkouts,
            dials,
            probes: ProbeCounts::read(&self.probes),
            drains: DrainCounts::read(&self.drains),
            alpn: AlpnCounts::read(&self.alpn),
            bytes_sent: self.bytes_sent.read(),
            bytes_received: self.bytes_received.read(),
            ..HostStats::summarised(Latencies {
                head: self.head.read(),
                total: self.total.read(),
                pool_wait: self.pool_wait.read(),
                connect: self.connect.read(),
            })
        }
    }

    /// Counts an error by kind, and a timeout by phase too.
    fn count_error(&self, kind: ErrorKind, phase: Option<Phase>) {
        self.errors.count(ErrorCounts::index(kind));
        if let (ErrorKind::Timeout, Some(phase)) = (kind, phase) {
            self.timeouts.count(TimeoutCounts::index(phase));
        }
    }
}

/// What the pool knows about one origin at the moment of a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauges {
    /// Connections on loan, draining ones, and HTTP/2 sessions with streams (ruling 21).
    pub(crate) connections_active: usize,
    /// Connections that wait for a request, HTTP/2 sessions without streams included.
    pub(crate) connections_idle: usize,
    /// Dials under way.
    pub(crate) connections_connecting: usize,
    /// Connections whose dropped body a task reads to its end; they are active, too.
    pub(crate) connections_draining: usize,
    /// How long the connection has been on loan that was lent first; `None` when none is.
    pub(crate) oldest_lease: Option<Duration>,
    /// 1 if this part of the pool waits for a unit of `Limits::max_connections`, or 0.
    pub(crate) hosts_starving: usize,
    /// Callers in the queue for a connection.
    pub(crate) requests_pending: usize,
    /// HTTP/2 sessions, with streams and without.
    pub(crate) http2_sessions: usize,
    /// Open HTTP/2 streams.
    pub(crate) http2_streams: usize,
}

impl Gauges {
    /// Adds what another part of the pool holds for the same origin: another route or another runtime.
    pub(super) fn add(&mut self, other: Self) {
        self.connections_active += other.connections_active;
        self.connections_idle += other.connections_idle;
        self.connections_connecting += other.connections_connecting;
        self.connections_draining += other.connections_draining;
        self.oldest_lease = self.oldest_lease.max(other.oldest_lease);
        self.hosts_starving += other.hosts_starving;
        self.requests_pending += other.requests_pending;
        self.http2_sessions += other.http2_sessions;
        self.http2_streams += other.http2_streams;
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    /// Adds to it. Relaxed, because no other memory is published by a count.
    fn add(&self, more: u64) {
        if UNWATCHED {
            return;
        }
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Its value now.
    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::iter;

    use super::*;

    /// Every number of the public form by name, the zeros left out.
    fn numbers(counters: &Counters) -> BTreeMap<String, u64> {
        let stats = counters.read(Gauges::default());
        let mut numbers: BTreeMap<String, u64> = [
            ("active", stats.requests_active as u64),
            ("requests", stats.requests_total),
            ("attempts", stats.attempts_total),
            ("1xx", stats.responses_1xx),
            ("2xx", stats.responses_2xx),
            ("3xx", stats.responses_3xx),
            ("4xx", stats.responses_4xx),
            ("5xx", stats.responses_5xx),
            ("retries", stats.retries),
            ("redirects", stats.redirects),
            ("authenticated", stats.authenticated),
            ("cancelled", stats.cancelled),
            ("opened", stats.connections_opened),
            ("reused", stats.connections_reused),
            ("connect_failures", stats.connect_failures),
            ("sent", stats.bytes_sent),
            ("received", stats.bytes_received),
            ("head", stats.head.count),
            ("total", stats.total.count),
            ("pool_wait", stats.pool_wait.count),
            ("connect", stats.connect.count),
        ]
        .map(|(name, number)| (name.to_owned(), number))
        .into();
        numbers.extend(
            stats
                .retry_causes
                .iter()
                .map(|(c, n)| (format!("retry {c:?}"), n)),
        );
        numbers.extend(
            stats
                .checkouts
                .iter()
                .map(|(c, n)| (format!("checkout {c:?}"), n)),
        );
        numbers.extend(stats.dials.iter().map(|(d, n)| (format!("dial {d:?}"), n)));
        numbers.extend(
            stats
                .probes
                .iter()
                .map(|(p, n)| (format!("probe {p:?}"), n)),
        );
        numbers.extend(
            stats
                .drains
                .iter()
                .map(|(d, n)| (format!("drain {d:?}"), n)),
        );
        numbers.extend(stats.alpn.iter().map(|(a, n)| (format!("alpn {a:?}"), n)));
        numbers.extend(stats.errors.iter().map(|(k, n)| (format!("{k:?}"), n)));
        numbers.extend(stats.timeouts.iter().map(|(p, n)| (format!("in {p:?}"), n)));
        numbers.extend(
            stats
                .connections_closed
                .iter()
                .map(|(c, n)| (format!("closed {c:?}"), n)),
        );
        numbers.retain(|_, number| *number != 0);
        numbers
    }

    /// The numbers after a call began and one event came; those of `expected` replace the two of the beginning.
    fn check(event: impl Fn(&Counters), expected: &[(&str, u64)]) {
        let counters = Counters::default();
        counters.started();
        event(&counters);
        let expected: BTreeMap<String, u64> = [("requests", 1), ("attempts", 1)]
            .iter()
            .chain(expected)
            .map(|(name, number)| ((*name).to_owned(), *number))
            .collect();
        assert_eq!(numbers(&counters), expected);
    }

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn every_event_moves_its_numbers_and_no_other() {
        const RUNNING: (&str, u64) = ("active", 1);
        check(|_| (), &[RUNNING]);
        check(|c| c.cancelled(), &[("cancelled", 1)]);
        check(|c| c.body_done(MILLI), &[RUNNING, ("total", 1)]);
        check(|c| c.waited(MILLI), &[RUNNING, ("pool_wait", 1)]);
        check(|c| c.sent_bytes(7), &[RUNNING, ("sent", 7)]);
        check(|c| c.received_bytes(9), &[RUNNING, ("received", 9)]);
        check(
            |c| c.opened(MILLI),
            &[
                RUNNING,
                ("opened", 1),
                ("connect", 1),
                ("dial Succeeded", 1),
            ],
        );
        check(
            |c| c.closed(CloseCause::Lifetime),
            &[RUNNING, ("closed Lifetime", 1)],
        );
        check(|c| c.failed(ErrorKind::Io, Some(Phase::Head)), &[("Io", 1)]);
        check(
            |c| c.failed(ErrorKind::Timeout, Some(Phase::Head)),
            &[("Timeout", 1), ("in Head", 1)],
        );
        check(|c| c.failed(ErrorKind::Timeout, None), &[("Timeout", 1)]);
        // An interceptor around a try can make an error of a status before the call has ended with it.
        check(|c| c.failed(ErrorKind::Status, None), &[("Status", 1)]);
    }

    #[test]
    fn what_happens_in_the_pool_moves_its_numbers_and_no_other() {
        const RUNNING: (&str, u64) = ("active", 1);
        let dials: [(_, &[&str]); 4] = [
            (DialEvent::Started, &["dial Started"]),
            (DialEvent::Failed, &["dial Failed", "connect_failures"]),
            (DialEvent::TimedOut, &["dial TimedOut", "connect_failures"]),
            (DialEvent::Surplus, &["dial Surplus"]),
        ];
        let checkouts: [(_, &[&str]); 3] = [
            (Checkout::Reused, &["checkout Reused", "reused"]),
            (Checkout::Fresh, &["checkout Fresh"]),
            (Checkout::Slot, &["checkout Slot", "reused"]),
        ];
        let probes = [
            (ProbeOutcome::KernelAlive, "probe KernelAlive"),
            (ProbeOutcome::KernelDead, "probe KernelDead"),
            (ProbeOutcome::SettledAlive, "probe SettledAlive"),
            (ProbeOutcome::SettledDead, "probe SettledDead"),
        ];
        let drains = [
            (DrainOutcome::Buffered, "drain Buffered"),
            (DrainOutcome::Inline, "drain Inline"),
            (DrainOutcome::Task, "drain Task"),
            (DrainOutcome::GaveUp, "drain GaveUp"),
        ];
        let alpn = [
            (AlpnEvent::Http1, "alpn Http1"),
            (AlpnEvent::Http2, "alpn Http2"),
            (AlpnEvent::Deduplicated, "alpn Deduplicated"),
            (AlpnEvent::Flipped, "alpn Flipped"),
        ];
        let once = |names: &[&'static str]| -> Vec<(&'static str, u64)> {
            let moved = names.iter().map(|name| (*name, 1));
            iter::once(RUNNING).chain(moved).collect()
        };
        for (event, names) in dials {
            check(|c| c.dial(event), &once(names));
        }
        for (what, names) in checkouts {
            check(|c| c.checked_out(what), &once(names));
        }
        for (outcome, name) in probes {
            check(|c| c.probed(outcome), &once(&[name]));
        }
        for (outcome, name) in drains {
            check(|c| c.drained(outcome), &once(&[name]));
        }
        for (event, name) in alpn {
            check(|c| c.alpn(event), &once(&[name]));
        }
    }

    #[test]
    fn a_retry_is_counted_by_cause_and_as_an_attempt() {
        for (cause, name) in [
            (RetryCause::Stale, "retry Stale"),
            (RetryCause::Unwritten, "retry Unwritten"),
            (RetryCause::Refused, "retry Refused"),
            (RetryCause::GoAway, "retry GoAway"),
        ] {
            let expected = [("active", 1), ("attempts", 2), ("retries", 1), (name, 1)];
            check(|c| c.retried(cause), &expected);
        }
    }

    #[test]
    fn a_retry_is_an_attempt_and_not_a_request() {
        let counters = Counters::default();
        counters.started();
        counters.retried(RetryCause::Stale);
        counters.retried(RetryCause::Unwritten);
        let stats = counters.read(Gauges::default());
        assert_eq!(stats.requests_total, 1);
        assert_eq!(stats.attempts_total, 3);
        assert_eq!(stats.retries, 2);
        assert_eq!(stats.requests_active, 1);
    }

    #[test]
    fn responses_count_by_class() {
        for (status, class) in [
            (100, "1xx"),
            (101, "1xx"),
            (199, "1xx"),
            (200, "2xx"),
            (299, "2xx"),
            (304, "3xx"),
            (400, "4xx"),
            (499, "4xx"),
            (500, "5xx"),
            (600, "5xx"),
            (999, "5xx"),
        ] {
            check(|c| c.responded(status, MILLI), &[(class, 1), ("head", 1)]);
        }
    }

    #[test]
    fn an_error_after_the_head_does_not_end_the_call_again() {
        // A second call is under way: an end counted twice would hide it.
        let check_after_head = |event: &dyn Fn(&Counters), errors: &[(&'static str, u64)]| {
            let others = [
                ("4xx", 1),
                ("head", 1),
                ("active", 1),
                ("requests", 2),
                ("attempts", 2),
            ];
            check(
                |c| {
                    c.responded(404, MILLI);
                    event(c);
                    c.started();
                },
                &[&others, errors].concat(),
            );
        };
        check_after_head(&|c| c.status_error(), &[("Status", 1)]);
        check_after_head(
            &|c| c.body_failed(ErrorKind::Timeout, Some(Phase::Read)),
            &[("Timeout", 1), ("in Read", 1)],
        );
    }

    #[test]
    fn active_is_balanced_over_any_mix_of_ends() {
        let counters = Counters::default();
        let active = || counters.read(Gauges::default()).requests_active;
        for _ in 0..5 {
            counters.started();
        }
        assert_eq!(active(), 5);
        counters.responded(200, MILLI);
        assert_eq!(active(), 4);
        counters.failed(ErrorKind::Connect, None);
        assert_eq!(active(), 3);
        counters.cancelled();
        assert_eq!(active(), 2);
        counters.responded(500, MILLI);
        counters.status_error();
        assert_eq!(active(), 1);
        counters.failed(ErrorKind::Timeout, Some(Phase::Pool));
        assert_eq!(active(), 0);
    }

    #[test]
    fn gauges_are_passed_on_and_add_up() {
        let gauges = Gauges {
            connections_active: 1,
            connections_idle: 2,
            connections_connecting: 3,
            connections_draining: 7,
            oldest_lease: Some(8 * MILLI),
            hosts_starving: 1,
            requests_pending: 4,
            http2_sessions: 5,
            http2_streams: 6,
        };
        let mut twice = gauges;
        twice.add(gauges);
        let stats = Counters::default().read(twice);
        assert_eq!(stats.connections_draining, 14);
        assert_eq!(stats.hosts_starving, 2);
        assert_eq!(stats.connections_active, 2);
        assert_eq!(stats.connections_idle, 4);
        assert_eq!(stats.connections_connecting, 6);
        assert_eq!(stats.requests_pending, 8);
        assert_eq!(stats.http2_sessions, 10);
        assert_eq!(stats.http2_streams, 12);
    }

    #[test]
    fn the_oldest_lease_is_the_oldest_of_all_parts() {
        for (one, other, oldest) in [
            (None, None, None),
            (None, Some(MILLI), Some(MILLI)),
            (Some(MILLI), None, Some(MILLI)),
            (Some(Duration::ZERO), None, Some(Duration::ZERO)),
            (Some(MILLI), Some(3 * MILLI), Some(3 * MILLI)),
            (Some(3 * MILLI), Some(MILLI), Some(3 * MILLI)),
        ] {
            let part = |oldest_lease| Gauges {
                oldest_lease,
                ..Gauges::default()
            };
            let mut sum = part(one);
            sum.add(part(other));
            assert_eq!(Counters::default().read(sum).oldest_lease, oldest);
        }
    }

    #[test]
    fn an_origin_that_is_called_now_and_then_takes_less_than_one_and_a_half_kibibytes() {
        assert!(size_of::<Counters>() < 1400, "{}", size_of::<Counters>());
    }

    #[test]
    fn no_count_is_lost_between_threads() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counters.started();
                        counters.responded(200, MILLI);
                        counters.closed(CloseCause::Idle);
                    }
                });
            }
        });
        let stats = counters.read(Gauges::default());
        assert_eq!(stats.requests_total, 4000);
        assert_eq!(stats.responses_2xx, 4000);
        assert_eq!(stats.requests_active, 0);
        assert_eq!(stats.connections_closed.get(CloseCause::Idle), 4000);
        assert_eq!(stats.head.count, 4000);
        assert_eq!(stats.head.mean, MILLI);
    }
}
