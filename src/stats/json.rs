//! The serialised form of what is not plain fields: a snapshot, counts by reason, latencies (feature `json`).
//!
//! Durations are seconds as a floating-point number, as metrics systems expect them. Counts by reason name every
//! reason, the zeros too, so that the keys do not come and go.

use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use super::counts::{
    AlpnCounts, CheckoutCounts, ClosedCounts, DialCounts, DrainCounts, ErrorCounts, ProbeCounts,
    RetryCounts, TimeoutCounts,
};
use super::latency::LatencySummary;
use super::snapshot::{HostStats, Stats};
use crate::config::CircuitState;
use crate::url::Origin;

impl Serialize for Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Stats", 5)?;
        fields.serialize_field("total", &self.total)?;
        fields.serialize_field("hosts", &Hosts(&self.hosts))?;
        fields.serialize_field("other", &self.other)?;
        fields.serialize_field("max_connections", &self.max_connections)?;
        fields.serialize_field("observer_panics", &self.observer_panics)?;
        fields.end()
    }
}

/// The origins as keys.
struct Hosts<'a>(&'a [(Origin, HostStats)]);

impl Serialize for Hosts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (origin, host) in self.0 {
            map.serialize_entry(&origin.to_string(), host)?;
        }
        map.end()
    }
}

impl Serialize for LatencySummary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("LatencySummary", 8)?;
        fields.serialize_field("count", &self.count)?;
        for (name, duration) in [
            ("mean", self.mean),
            ("p50", self.p50),
            ("p90", self.p90),
            ("p95", self.p95),
            ("p99", self.p99),
            ("p999", self.p999),
            ("max", self.max),
        ] {
            fields.serialize_field(name, &duration.as_secs_f64())?;
        }
        fields.end()
    }
}

/// The state of a breaker by its name.
pub(super) fn circuit<S: Serializer>(
    state: &CircuitState,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.label())
}

/// Serialises counts as an object from reason to count.
macro_rules! counts_as_map {
    ($($name:ident),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.all().map(|(key, count)| (Self::label(key), count)))
            }
        }
    )+};
}

counts_as_map!(
    ErrorCounts,
    TimeoutCounts,
    ClosedCounts,
    CheckoutCounts,
    DialCounts,
    ProbeCounts,
    RetryCounts,
    DrainCounts,
    AlpnCounts
);

/// Serialises a duration as seconds.
pub(super) fn seconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Serialises a duration as seconds, and none as null.
pub(super) fn optional_seconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration
        .map(|duration| duration.as_secs_f64())
        .serialize(serializer)
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::time::Instant;

    use serde_json::json;

    use super::super::tests::{busy, origin, snapshot};
    use super::super::{Gauges, Registry};
    use super::*;

    #[test]
    fn snapshots_and_rates_can_be_serialised() {
        let registry = Registry::new();
        let a = origin("http://a.example");
        let start = Instant::now();
        let earlier = snapshot(&registry, start);
        busy(&registry.counters(&a), 1);
        let gauges = Gauges {
            connections_draining: 3,
            oldest_lease: Some(Duration::from_millis(1500)),
            hosts_starving: 1,
            ..Gauges::default()
        };
        let gauges = iter::once((a.clone(), gauges));
        let later = registry.snapshot(start + Duration::from_secs(2), Some(8), gauges);

        let json = serde_json::to_value(&later).expect("stats can be serialised");
        let host = &json["hosts"][a.to_string().as_str()];
        assert_eq!(host, &json["total"]);
        assert_eq!(host["requests_total"], 11);
        assert_eq!(host["errors"]["timeout"], 1);
        assert_eq!(host["errors"]["too_large"], 0);
        assert_eq!(host["timeouts"]["pool"], 1);
        assert_eq!(host["connections_closed"]["error"], 7);
        assert_eq!(host["connections_closed"]["keep_alive_hint"], 0);
        assert_eq!(host["connections_draining"], 3);
        assert_eq!(host["oldest_lease"], 1.5);
        assert_eq!(host["hosts_starving"], 1);
        assert_eq!(host["retries"], 3);
        assert_eq!(host["retries_denied"], 17);
        assert_eq!(host["rate_limited"], 18);
        assert_eq!(host["breaker"], "closed");
        for (counts, expected) in [
            (
                "retry_causes",
                json!({
                    "expectation_refused": 0, "failed": 0, "go_away": 1, "http1_required": 0, "no_connection": 0, "refused": 0,
                    "stale": 2, "status": 0, "throttled": 0, "timed_out": 0, "unwritten": 0,
                }),
            ),
            ("checkouts", json!({"fresh": 13, "reused": 6, "slot": 0})),
            (
                "dials",
                json!({"failed": 8, "started": 14, "succeeded": 5, "surplus": 0, "timed_out": 0}),
            ),
            (
                "probes",
                json!({"kernel_alive": 0, "kernel_dead": 0, "settled_alive": 15, "settled_dead": 0}),
            ),
            (
                "drains",
                json!({"buffered": 0, "gave_up": 0, "inline": 16, "task": 0}),
            ),
            (
                "alpn",
                json!({"deduplicated": 0, "flipped": 0, "http1": 14, "http2": 0}),
            ),
        ] {
            assert_eq!(host[counts], expected, "{counts}");
        }
        assert_eq!(host["head"]["count"], 5);
        assert_eq!(host["head"]["max"], 0.002);
        assert_eq!(host["pool_wait"]["mean"], 0.012);
        assert_eq!(json["max_connections"], 8);
        assert!(json["other"].is_null());
        let idle = serde_json::to_value(&earlier).expect("stats can be serialised");
        assert!(idle["total"]["oldest_lease"].is_null());
        assert!(json.get("at").is_none() && host.get("latencies").is_none());

        let json = serde_json::to_value(later.since(&earlier)).expect("rates can be serialised");
        assert_eq!(json["window"], 2.0);
        assert_eq!(json["requests_per_second"], 5.5);
        assert_eq!(json["p99"], 0.002);
    }
}
