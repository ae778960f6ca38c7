//! Latencies: recorded into buckets without a lock, read out as a summary.
//!
//! [`Latency`] is the live side, [`Samples`] a copy in buckets (which can be added up and subtracted), and
//! [`LatencySummary`] what users see. A bucket is at most 1/32 of its lower bound wide, so a percentile is at most
//! 3.2 % above the exact one and never below it. This file reads no clock: the callers measure.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use histogram::{AtomicHistogram, Bucket, Config, Histogram, SparseHistogram};

use super::UNWATCHED;

/// How long something took, over all its observations: the count, the mean and some percentiles.
///
/// The resolution is one microsecond; a percentile is at most 3.2 % above the exact value and never below it (beyond
/// the resolution). What took longer than 19 hours counts as 19 hours. Without observations every field is zero.
///
/// ```
/// use sockeye::stats::LatencySummary;
/// use std::time::Duration;
///
/// let summary = LatencySummary::default();
/// assert_eq!(summary.count, 0);
/// assert_eq!(summary.p99, Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencySummary {
    /// How many observations there are.
    pub count: u64,
    /// Their mean, from an exact sum.
    pub mean: Duration,
    /// The median: half of the observations were no longer than this.
    pub p50: Duration,
    /// 90 % of the observations were no longer than this.
    pub p90: Duration,
    /// 95 % of the observations were no longer than this.
    pub p95: Duration,
    /// 99 % of the observations were no longer than this.
    pub p99: Duration,
    /// 99.9 % of the observations were no longer than this.
    pub p999: Duration,
    /// The longest observation: exact since the client was made, and at most 3.2 % too high over a window.
    pub max: Duration,
}

/// The live side of one kind of latency. Its 8 KiB of buckets are allocated once there are more observations than a few, so that
/// an origin that is called now and then, or never waits, say, does not pay for them.
#[derive(Debug, Default)]
pub(super) struct Latency {
    buckets: OnceLock<Buckets>,
    /// How many have been given a place in `first`, and how many went past it before there were buckets.
    placed: AtomicUsize,
    /// The first observations: microseconds and one more; 0 where there is none yet.
    first: [AtomicU64; FEW],
}

impl Latency {
    /// Adds one observation: three relaxed atomic operations at most.
    pub(super) fn record(&self, duration: Duration) {
        if UNWATCHED {
            return;
        }
        let micros = micros(duration);
        match self.buckets.get() {
            Some(buckets) => buckets.add(micros),
            None => self.add_early(micros),
        }
    }

    #[cold]
    fn add_early(&self, micros: u64) {
        let place = self.placed.fetch_add(1, Ordering::Relaxed);
        match self.first.get(place) {
            Some(first) => first.store(micros + 1, Ordering::Relaxed),
            None => self.buckets.get_or_init(Buckets::new).add(micros),
        }
    }

    /// Copies what there is. Observations that arrive meanwhile may be in some of the numbers and not yet in others.
    pub(super) fn read(&self) -> Samples {
        if self.placed.load(Ordering::Relaxed) == 0 {
            return Samples::default();
        }
        let (mut dense, mut sum, mut max) = match self.buckets.get() {
            Some(buckets) => buckets.load(),
            None => (Histogram::with_config(&BUCKETS), 0, 0),
        };
        for first in &self.first {
            if let Some(micros) = first.load(Ordering::Relaxed).checked_sub(1) {
                let counted = dense.increment(micros);
                debug_assert!(counted.is_ok(), "micros() keeps to the range");
                sum += micros;
                max = max.max(micros);
            }
        }
        Samples {
            buckets: Some(Arc::new(SparseHistogram::from(&dense))),
            sum,
            max,
        }
    }
}

/// What [`Latency`] allocates.
#[derive(Debug)]
struct Buckets {
    counts: AtomicHistogram,
    /// Microseconds. At a load of 10,000 calls a second of 100 ms each it wraps after 584 years.
    sum: AtomicU64,
    /// Microseconds.
    max: AtomicU64,
}

impl Buckets {
    /// Empty ones.
    fn new() -> Self {
        Self {
            counts: AtomicHistogram::with_config(&BUCKETS),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }

    fn add(&self, micros: u64) {
        let counted = self.counts.increment(micros);
        debug_assert!(counted.is_ok(), "micros() keeps to the range");
        self.sum.fetch_add(micros, Ordering::Relaxed);
        // A new maximum is rare, so the common case only reads.
        if self.max.load(Ordering::Relaxed) < micros {
            self.max.fetch_max(micros, Ordering::Relaxed);
        }
    }

    /// The counts, the sum and the maximum.
    fn load(&self) -> (Histogram, u64, u64) {
        let sum = self.sum.load(Ordering::Relaxed);
        let max = self.max.load(Ordering::Relaxed);
        (self.counts.load(), sum, max)
    }
}

/// A copy of the buckets of a [`Latency`], cheap to clone. Only buckets that hold something are kept.
#[derive(Clone, Default)]
pub(super) struct Samples {
    buckets: Option<Arc<SparseHistogram>>,
    /// Microseconds.
    sum: u64,
    /// Microseconds, since the client was made: for a window only an upper bound.
    max: u64,
}

impl Samples {
    /// Adds the observations of another copy to this one.
    pub(super) fn add(&mut self, other: &Self) {
        let Some(more) = &other.buckets else {
            return;
        };
        let sum = match &self.buckets {
            None => Arc::clone(more),
            // Every copy has the same bucket bounds, so adding is never refused.
            Some(own) => own
                .wrapping_add(more)
                .map_or_else(|_| Arc::clone(own), Arc::new),
        };
        self.buckets = Some(sum);
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// The observations that came after an earlier copy. Empty when the other one is not earlier.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let buckets = match (&self.buckets, &earlier.buckets) {
            (None, _) => None,
            (Some(own), None) => Some(Arc::clone(own)),
            (Some(own), Some(before)) => own.checked_sub(before).ok().map(Arc::new),
        };
        Self {
            buckets,
            sum: self.sum.saturating_sub(earlier.sum),
            max: self.max,
        }
    }

    /// How many observations there are.
    pub(super) fn count(&self) -> u64 {
        let buckets = self.buckets.as_ref();
        buckets.map_or(0, |buckets| buckets.count().iter().sum())
    }

    /// How many lie in buckets that end at `bound` or before.
    pub(super) fn up_to(&self, bound: Duration) -> u64 {
        let bound = micros(bound);
        let Some(buckets) = &self.buckets else {
            return 0;
        };
        let below = buckets.iter().take_while(|bucket| bucket.end() <= bound);
        below.map(|bucket| bucket.count()).sum()
    }

    /// All observations together, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        Duration::from_micros(self.sum).as_secs_f64()
    }

    /// Boils the buckets down.
    pub(super) fn summary(&self) -> LatencySummary {
        let Some(buckets) = &self.buckets else {
            return LatencySummary::default();
        };
        let count = buckets.count().iter().sum::<u64>();
        let Some(highest) = buckets.iter().last() else {
            return LatencySummary::default();
        };
        // Over a window the maximum since the client was made may lie far above the highest bucket; with an
        // observation half recorded it may lie below.
        let max = self.max.clamp(highest.start(), highest.end());
        let quantile = |per_mille| {
            let bucket = bucket_at(buckets, rank(count, per_mille));
            // The upper bound, because a latency is better told too high than too low.
            Duration::from_micros(bucket.map_or(max, |bucket| bucket.end().min(max)))
        };
        let mean = u128::from(self.sum) * 1000 / u128::from(count.max(1));
        let mean = Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX));
        LatencySummary {
            count,
            mean: mean.min(Duration::from_micros(max)),
            p50: quantile(500),
            p90: quantile(900),
            p95: quantile(950),
            p99: quantile(990),
            p999: quantile(999),
            max: Duration::from_micros(max),
        }
    }
}

impl fmt::Debug for Samples {
    /// Says how much there is; hundreds of buckets would drown what they are printed with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buckets = self.buckets.as_ref().map_or(0, |buckets| buckets.len());
        write!(f, "Samples({buckets} buckets)")
    }
}

/// The nearest rank of a quantile among `count` observations, counted from one. In integers, so that it is exact.
fn rank(count: u64, per_mille: u64) -> u64 {
    let rank = (u128::from(count) * u128::from(per_mille)).div_ceil(1000);
    u64::try_from(rank).unwrap_or(u64::MAX).max(1)
}

/// The bucket that holds the observation of this rank.
fn bucket_at(buckets: &SparseHistogram, rank: u64) -> Option<Bucket> {
    let mut seen = 0_u64;
    buckets.iter().find(|bucket| {
        seen = seen.saturating_add(bucket.count());
        seen >= rank
    })
}

/// Microseconds, rounded to the nearest and kept to what the buckets can hold.
fn micros(duration: Duration) -> u64 {
    let fraction = u64::from((duration.subsec_nanos() + 500) / 1000);
    duration
        .as_secs()
        .saturating_mul(1_000_000)
        .saturating_add(fraction)
        .min(LONGEST)
}

/// A duration for people: three digits and the unit that suits.
pub(super) struct Short(pub(super) Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_secs_f64() * 1e6;
        let (value, unit) = match micros {
            // Half a unit below each border, since that is where rounding reaches the next unit.
            m if m < 999.5 => return write!(f, "{m:.0} us"),
            m if m < 999.5e3 => (m / 1e3, "ms"),
            m if m < 999.5e6 => (m / 1e6, "s"),
            m if m < 999.5 * 60e6 => (m / 60e6, "min"),
            m => (m / 3600e6, "h"),
        };
        let decimals = match value {
            v if v < 9.995 => 2,
            v if v < 99.95 => 1,
            _ => 0,
        };
        write!(f, "{value:.decimals$} {unit}")
    }
}

/// Bounds of the buckets: exact up to 64 us, then 32 buckets for each doubling, up to 2^36 us.
const BUCKETS: Config = match Config::new(5, 36) {
    Ok(config) => config,
    Err(_) => panic!("5 is below 36, and 36 is at most 64"),
};

/// Observations that are kept one by one before there are buckets.
const FEW: usize = 8;

/// The longest duration the buckets can hold, in microseconds: about 19 hours.
const LONGEST: u64 = (1 << 36) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator of pseudo-random numbers, so that the test sees the same values in each run.
    struct Random(u64);

    impl Random {
        /// The next 31 bits.
        fn next(&mut self) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 33
        }
    }

    /// Records the values, in microseconds, and compares every field with the exact one.
    fn check(mut values: Vec<u64>) {
        let latency = Latency::default();
        for value in &values {
            latency.record(Duration::from_micros(*value));
        }
        let summary = latency.read().summary();
        values.sort_unstable();
        let count = values.len();
        assert_eq!(summary.count, count as u64);
        assert_eq!(summary.max, Duration::from_micros(values[count - 1]));
        let mean = values.iter().sum::<u64>() as f64 / count as f64;
        assert!((summary.mean.as_secs_f64() * 1e6 - mean).abs() < 0.002);
        for (per_mille, got) in [
            (500, summary.p50),
            (900, summary.p90),
            (950, summary.p95),
            (990, summary.p99),
            (999, summary.p999),
        ] {
            let exact = values[(count * per_mille).div_ceil(1000) - 1] as f64;
            let got = got.as_micros() as f64;
            assert!(got >= exact, "{per_mille}: {got} is below {exact}");
            assert!(got <= exact * 1.032, "{per_mille}: {got} for {exact}");
        }
    }

    #[test]
    fn percentiles_are_at_most_3_2_percent_above_the_exact_ones() {
        let mut random = Random(7);
        check((1..=1000).collect());
        check(vec![63, 64, 65]);
        check(vec![0]);
        check(vec![LONGEST]);
        for shift in [3, 9, 17, 25] {
            check((0..5000).map(|_| random.next() >> shift).collect());
        }
        // Evenly spread over the powers of two, which puts as many values into short buckets as into long ones.
        let spread = (0..20_000).map(|_| {
            let power = random.next() % 31;
            (1 << power) + random.next() % (1 << power)
        });
        check(spread.collect());
    }

    #[test]
    fn nothing_recorded_is_all_zero_and_allocates_nothing() {
        let latency = Latency::default();
        assert_eq!(latency.read().summary(), LatencySummary::default());
        assert!(latency.buckets.get().is_none());
    }

    #[test]
    fn the_first_few_take_no_buckets_and_count_as_all_do() {
        let latency = Latency::default();
        for at in 1..=FEW {
            latency.record(Duration::from_millis(at as u64 - 1));
            let summary = latency.read().summary();
            assert_eq!(summary.count, at as u64);
            assert_eq!(summary.max, Duration::from_millis(at as u64 - 1));
        }
        assert!(latency.buckets.get().is_none());
        let few = latency.read();
        latency.record(Duration::from_secs(1));
        assert!(latency.buckets.get().is_some());
        let all = latency.read();
        assert_eq!(all.summary().count, FEW as u64 + 1);
        assert_eq!(all.summary().max, Duration::from_secs(1));
        let mean = (0..FEW as u32).sum::<u32>() * Duration::from_millis(1) + Duration::from_secs(1);
        assert_eq!(all.summary().mean, mean / (FEW as u32 + 1));
        assert_eq!(all.since(&few).summary().count, 1);
    }

    #[test]
    fn none_of_the_first_is_lost_between_threads() {
        let latency = Latency::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..FEW {
                        latency.record(Duration::from_millis(3));
                    }
                });
            }
        });
        let summary = latency.read().summary();
        assert_eq!(summary.count, 4 * FEW as u64);
        assert_eq!(summary.mean, Duration::from_millis(3));
    }

    #[test]
    fn durations_are_rounded_and_kept_to_the_range() {
        let expected = [
            (Duration::ZERO, 0),
            (Duration::from_nanos(499), 0),
            (Duration::from_nanos(500), 1),
            (Duration::from_nanos(999_999_999), 1_000_000),
            (Duration::from_secs(68_719), 68_719_000_000),
            (Duration::from_secs(68_720), LONGEST),
            (Duration::MAX, LONGEST),
        ];
        for (duration, micro) in expected {
            assert_eq!(micros(duration), micro, "{duration:?}");
        }
        let latency = Latency::default();
        latency.record(Duration::MAX);
        assert_eq!(latency.read().summary().p50, Duration::from_micros(LONGEST));
    }

    #[test]
    fn a_window_holds_only_what_came_after() {
        let latency = Latency::default();
        latency.record(Duration::from_secs(10));
        latency.record(Duration::from_millis(1));
        let before = latency.read();
        latency.record(Duration::from_millis(1));
        latency.record(Duration::from_millis(3));
        let window = latency.read().since(&before).summary();
        assert_eq!(window.count, 2);
        assert_eq!(window.mean, Duration::from_millis(2));
        let max = window.max.as_secs_f64();
        assert!((0.003..=0.003 * 1.032).contains(&max), "{max}");
        // Turned round, and between copies that have nothing in common, a window is empty.
        assert_eq!(before.since(&latency.read()).summary().count, 0);
        let stranger = Latency::default();
        stranger.record(Duration::from_secs(1));
        assert_eq!(stranger.read().since(&before).summary().count, 0);
        assert_eq!(before.since(&before).summary(), LatencySummary::default());
    }

    #[test]
    fn copies_add_up() {
        let (one, two) = (Latency::default(), Latency::default());
        one.record(Duration::from_micros(10));
        two.record(Duration::from_micros(30));
        let mut sum = Samples::default();
        sum.add(&one.read());
        sum.add(&Samples::default());
        sum.add(&two.read());
        let summary = sum.summary();
        assert_eq!(summary.count, 2);
        assert_eq!(summary.mean, Duration::from_micros(20));
        assert_eq!(summary.p50, Duration::from_micros(10));
        assert_eq!(summary.max, Duration::from_micros(30));
    }

    #[test]
    fn durations_are_short_to_read() {
        let expected = [
            (0, "0 us"),
            (7_000, "7 us"),
            (999_499, "999 us"),
            (999_500, "1.00 ms"),
            (9_994_000, "9.99 ms"),
            (9_996_000, "10.0 ms"),
            (99_960_000, "100 ms"),
            (12_345_678, "12.3 ms"),
            (999_600_000, "1.00 s"),
            (90_000_000_000, "90.0 s"),
            (1_200_000_000_000, "20.0 min"),
            (72_000_000_000_000, "20.0 h"),
        ];
        for (nanos, text) in expected {
            assert_eq!(Short(Duration::from_nanos(nanos)).to_string(), text);
        }
    }
}
