//! How long a wait is. `chance` is a random number of the caller's, uniform over all of `u64`.

use std::time::Duration;

/// The wait before retry number `retry`, from 0: anything from nothing to `base` doubled each time, at most `cap`
/// (full jitter).
pub(super) fn full_jitter(base: Duration, cap: Duration, retry: u32, chance: u64) -> Duration {
    let doubled = 1_u32
        .checked_shl(retry)
        .and_then(|times| base.checked_mul(times));
    share(doubled.unwrap_or(cap).min(cap), chance)
}

/// The time that a breaker stays open: `open` doubled each time it opened since it was closed, at most `most`; half of that is
/// certain, the other half drawn (equal jitter), so that clients which opened together do not probe together.
pub(super) fn equal_jitter(open: Duration, most: Duration, times: u32, chance: u64) -> Duration {
    let doubled = 1_u32
        .checked_shl(times)
        .and_then(|times| open.checked_mul(times));
    let whole = doubled.unwrap_or(most).min(most);
    let half = whole / 2;
    half + share(whole - half, chance)
}

/// The wait that a server asked for, and up to a tenth more, at most a second: never less than asked.
pub(super) fn at_least(asked: Duration, chance: u64) -> Duration {
    asked.saturating_add(jitter_of_wait(asked, chance))
}

/// What is added to a wait that many callers share, so that they do not all come at its end.
pub(crate) fn jitter_of_wait(wait: Duration, chance: u64) -> Duration {
    share((wait / 10).min(Duration::from_secs(1)), chance)
}

/// A part of a duration; one beyond 584 years counts as that.
fn share(of: Duration, chance: u64) -> Duration {
    let nanos = of.as_nanos().min(u128::from(u64::MAX));
    let part = (nanos * u128::from(chance)) >> 64;
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(50);
    const CAP: Duration = Duration::from_secs(20);

    /// 10,000 chances, spread over the whole range by a step without a pattern.
    fn chances() -> impl Iterator<Item = u64> {
        (0..10_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn full_jitter_stays_in_its_bounds_and_fills_them() {
        for (retry, most) in [
            (0, BASE),
            (1, 2 * BASE),
            (5, 32 * BASE),
            (9, CAP),
            (40, CAP),
            (u32::MAX, CAP),
        ] {
            let waits: Vec<_> = chances()
                .map(|chance| full_jitter(BASE, CAP, retry, chance))
                .collect();
            assert!(waits.iter().all(|wait| *wait < most), "{retry}");
            assert!(
                waits.iter().any(|wait| *wait > most.mul_f64(0.99)),
                "{retry}"
            );
            assert!(
                waits.iter().any(|wait| *wait < most.mul_f64(0.01)),
                "{retry}"
            );
            let mean = waits.iter().sum::<Duration>() / 10_000;
            let off = mean.as_secs_f64() / most.as_secs_f64() - 0.5;
            assert!(off.abs() < 0.02, "{retry}: {off}");
        }
    }

    #[test]
    fn equal_jitter_is_at_least_half() {
        let (open, most) = (Duration::from_secs(5), Duration::from_secs(60));
        for (times, whole) in [(0, 5), (1, 10), (3, 40), (4, 60), (99, 60)] {
            let whole = Duration::from_secs(whole);
            for chance in chances() {
                let wait = equal_jitter(open, most, times, chance);
                assert!(wait >= whole / 2 && wait < whole, "{times}: {wait:?}");
            }
        }
    }

    #[test]
    fn never_less_than_asked_and_at_most_a_second_more() {
        for asked in [0, 3, 1000, 9_000, 60_000, 3_600_000].map(Duration::from_millis) {
            let most = asked + (asked / 10).min(Duration::from_secs(1));
            for chance in chances() {
                let wait = at_least(asked, chance);
                assert!(wait >= asked && wait <= most, "{asked:?}: {wait:?}");
            }
        }
        assert_eq!(at_least(Duration::MAX, u64::MAX), Duration::MAX);
    }
}
