//! Counters that are kept by reason: errors by kind, timeouts by phase, closed connections by why.
//!
//! One macro makes the public types, so that each has the same shape and an index that is an exhaustive match: a new
//! kind, phase or reason does not compile until it is counted here. The live side is [`Live`], which the hot path of
//! [`Counters`](super::Counters) adds to; the public types are what a snapshot read from it. The reasons that are not
//! those of an error are in `reasons.rs`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::UNWATCHED;
use super::reasons::{
    AlpnEvent, Checkout, CloseCause, DialEvent, DrainOutcome, ProbeOutcome, RetryCause,
};
use crate::error::{ErrorKind, Phase};

/// Makes one public type of counters by reason, with the name that each reason has in the JSON form and in the table.
macro_rules! counts {
    ($(#[$doc:meta])* $name:ident by $key:ident { $($variant:ident => $label:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name([u64; $name::LEN]);

        impl $name {
            /// Every reason, in the order of its index.
            const KEYS: &'static [$key] = &[$($key::$variant),+];

            /// How many reasons there are.
            pub(super) const LEN: usize = Self::KEYS.len();

            /// The place of a reason: always below [`Self::LEN`], because both come from the same list.
            pub(super) fn index(key: $key) -> usize {
                /// Numbers the reasons in the order of the list.
                enum Place { $($variant),+ }
                match key { $($key::$variant => Place::$variant as usize),+ }
            }

            /// The name of a reason in lower case with underscores.
            pub(super) fn label(key: $key) -> &'static str {
                match key { $($key::$variant => $label),+ }
            }

            /// Reads the live counters.
            pub(super) fn read(live: &Live<{ Self::LEN }>) -> Self {
                Self(live.read())
            }

            /// How often this one was counted since the client was made.
            pub fn get(&self, key: $key) -> u64 {
                self.0.get(Self::index(key)).copied().unwrap_or(0)
            }

            /// Those that were counted at least once, in the order of the enum.
            pub fn iter(&self) -> impl Iterator<Item = ($key, u64)> {
                self.all().filter(|(_, count)| *count > 0)
            }

            /// Every reason with its count, the zeros too.
            pub(super) fn all(&self) -> impl Iterator<Item = ($key, u64)> {
                Self::KEYS.iter().copied().zip(self.0)
            }

            /// Adds another set of counts to this one.
            pub(super) fn add(&mut self, other: &Self) {
                for (count, more) in self.0.iter_mut().zip(other.0) {
                    *count = count.saturating_add(more);
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self([0; Self::LEN])
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_map()
                    .entries(self.iter().map(|(key, count)| (Word(Self::label(key)), count)))
                    .finish()
            }
        }
    };
}

/// Gives counts their sum: only those whose reasons exclude each other, so that it means something.
macro_rules! with_total {
    ($($name:ident),+) => {$(
        impl $name {
            /// All of them together.
            pub fn total(&self) -> u64 {
                self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
            }
        }
    )+};
}

with_total!(
    ErrorCounts,
    TimeoutCounts,
    ClosedCounts,
    CheckoutCounts,
    ProbeCounts,
    RetryCounts,
    DrainCounts
);

counts! {
    /// How many calls failed, by [`ErrorKind`].
    ///
    /// ```
    /// use sockeye::ErrorKind;
    /// use sockeye::stats::ErrorCounts;
    ///
    /// let errors = ErrorCounts::default();
    /// assert_eq!(errors.get(ErrorKind::Timeout), 0);
    /// for (kind, count) in errors.iter() {
    ///     println!("{kind:?}: {count}");
    /// }
    /// assert_eq!(errors.total(), 0);
    /// ```
    ErrorCounts by ErrorKind {
        Body => "body",
        CircuitOpen => "circuit_open",
        ClientClosed => "client_closed",
        Connect => "connect",
        Decode => "decode",
        Interceptor => "interceptor",
        InvalidRequest => "invalid_request",
        Io => "io",
        PoolFull => "pool_full",
        Protocol => "protocol",
        Proxy => "proxy",
        RateLimited => "rate_limited",
        Redirect => "redirect",
        Resolve => "resolve",
        Status => "status",
        Timeout => "timeout",
        Tls => "tls",
        TooLarge => "too_large",
    }
}

counts! {
    /// How many calls ran into a time limit, by the [`Phase`] that was running.
    ///
    /// ```
    /// use sockeye::Phase;
    /// use sockeye::stats::TimeoutCounts;
    ///
    /// let timeouts = TimeoutCounts::default();
    /// assert_eq!(timeouts.get(Phase::Head), 0);
    /// assert_eq!(timeouts.iter().count(), 0);
    /// ```
    TimeoutCounts by Phase {
        Prepare => "prepare",
        Pool => "pool",
        Resolve => "resolve",
        Connect => "connect",
        Tls => "tls",
        Write => "write",
        Head => "head",
        Read => "read",
    }
}

counts! {
    /// How many connections were closed, by the reason in [`CloseCause`].
    ///
    /// ```
    /// use sockeye::stats::{CloseCause, ClosedCounts};
    ///
    /// let closed = ClosedCounts::default();
    /// assert_eq!(closed.get(CloseCause::Idle), 0);
    /// assert_eq!(closed.total(), 0);
    /// ```
    ClosedCounts by CloseCause {
        Idle => "idle",
        KeepAliveHint => "keep_alive_hint",
        Lifetime => "lifetime",
        MaxIdle => "max_idle",
        Evicted => "evicted",
        PeerClosed => "peer_closed",
        Unsolicited => "unsolicited",
        Error => "error",
        Dropped => "dropped",
        DrainGaveUp => "drain_gave_up",
        Stale => "stale",
        PeerAsked => "peer_asked",
        WeAsked => "we_asked",
        Http10 => "http10",
        UntilClose => "until_close",
        DoubtfulFraming => "doubtful_framing",
        EarlyResponse => "early_response",
        Upgraded => "upgraded",
        Superfluous => "superfluous",
        GoAway => "go_away",
        WornOut => "worn_out",
        RuntimeGone => "runtime_gone",
        PoolClosed => "pool_closed",
        Cut => "cut",
    }
}

counts! {
    /// What the pool lent, by [`Checkout`]: one for each attempt that got a connection or a stream.
    ///
    /// ```
    /// use sockeye::stats::{Checkout, CheckoutCounts};
    ///
    /// let checkouts = CheckoutCounts::default();
    /// assert_eq!(checkouts.get(Checkout::Fresh), 0);
    /// assert_eq!(checkouts.total(), 0);
    /// ```
    CheckoutCounts by Checkout {
        Reused => "reused",
        Fresh => "fresh",
        Slot => "slot",
    }
}

counts! {
    /// What became of dials, by [`DialEvent`]. A dial is in several of the numbers, so they have no total: that of all
    /// dials is [`DialEvent::Started`].
    ///
    /// ```
    /// use sockeye::stats::{DialCounts, DialEvent};
    ///
    /// let dials = DialCounts::default();
    /// assert_eq!(dials.get(DialEvent::Started), 0);
    /// assert_eq!(dials.iter().count(), 0);
    /// ```
    DialCounts by DialEvent {
        Started => "started",
        Succeeded => "succeeded",
        Failed => "failed",
        TimedOut => "timed_out",
        Surplus => "surplus",
    }
}

counts! {
    /// What looks at idle connections found, by [`ProbeOutcome`].
    ///
    /// A look at the readiness flag alone, which finds nothing, is not counted: it takes some nanoseconds, comes with
    /// nearly every reuse, and a counter of its own would double what counting costs there. Each connection that is
    /// lent again was found alive, so that [`Checkout::Reused`] less the two counts of the living here is about the
    /// number of those looks; it is not exact, because idle connections are looked at between checkouts, too.
    ///
    /// ```
    /// use sockeye::stats::{ProbeCounts, ProbeOutcome};
    ///
    /// let probes = ProbeCounts::default();
    /// assert_eq!(probes.get(ProbeOutcome::SettledDead), 0);
    /// assert_eq!(probes.total(), 0);
    /// ```
    ProbeCounts by ProbeOutcome {
        KernelAlive => "kernel_alive",
        KernelDead => "kernel_dead",
        SettledAlive => "settled_alive",
        SettledDead => "settled_dead",
    }
}

counts! {
    /// How many attempts were beyond the first of their call, by the [`RetryCause`] that allowed them.
    ///
    /// ```
    /// use sockeye::stats::{RetryCause, RetryCounts};
    ///
    /// let retries = RetryCounts::default();
    /// assert_eq!(retries.get(RetryCause::Stale), 0);
    /// assert_eq!(retries.total(), 0);
    /// ```
    RetryCounts by RetryCause {
        Stale => "stale",
        Unwritten => "unwritten",
        Refused => "refused",
        GoAway => "go_away",
        Http1Required => "http1_required",
        ExpectationRefused => "expectation_refused",
        NoConnection => "no_connection",
        Failed => "failed",
        TimedOut => "timed_out",
        Throttled => "throttled",
        Status => "status",
    }
}

counts! {
    /// How many bodies were dropped before their end, by the [`DrainOutcome`] of reading the rest.
    ///
    /// ```
    /// use sockeye::stats::{DrainCounts, DrainOutcome};
    ///
    /// let drains = DrainCounts::default();
    /// assert_eq!(drains.get(DrainOutcome::GaveUp), 0);
    /// assert_eq!(drains.total(), 0);
    /// ```
    DrainCounts by DrainOutcome {
        Buffered => "buffered",
        Inline => "inline",
        Task => "task",
        GaveUp => "gave_up",
    }
}

counts! {
    /// What TLS handshakes settled, by [`AlpnEvent`]. A handshake can be in several of the numbers, so they have no
    /// total: that of all handshakes is [`AlpnEvent::Http1`] and [`AlpnEvent::Http2`] together.
    ///
    /// ```
    /// use sockeye::stats::{AlpnCounts, AlpnEvent};
    ///
    /// let alpn = AlpnCounts::default();
    /// assert_eq!(alpn.get(AlpnEvent::Http2), 0);
    /// assert_eq!(alpn.iter().count(), 0);
    /// ```
    AlpnCounts by AlpnEvent {
        Http1 => "http1",
        Http2 => "http2",
        Deduplicated => "deduplicated",
        Flipped => "flipped",
    }
}

/// A name that `Debug` prints without quotes.
struct Word(&'static str);

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// One atomic counter a reason, which any thread may add to.
#[derive(Debug)]
pub(super) struct Live<const N: usize>([AtomicU64; N]);

impl<const N: usize> Live<N> {
    /// Counts one at an index that the matching public type gave.
    pub(super) fn count(&self, index: usize) {
        if UNWATCHED {
            return;
        }
        if let Some(counter) = self.0.get(index) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What has been counted so far.
    fn read(&self) -> [u64; N] {
        self.0
            .each_ref()
            .map(|counter| counter.load(Ordering::Relaxed))
    }
}

impl<const N: usize> Default for Live<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Checks one of the types: the places are distinct and in range, and so are the names.
    macro_rules! check {
        ($name:ident) => {
            let live = Live::<{ $name::LEN }>::default();
            for (place, key) in $name::KEYS.iter().enumerate() {
                assert_eq!($name::index(*key), place, "{key:?}");
                for _ in 0..=place {
                    live.count($name::index(*key));
                }
            }
            let counts = $name::read(&live);
            for (place, key) in $name::KEYS.iter().enumerate() {
                assert_eq!(counts.get(*key), place as u64 + 1, "{key:?}");
            }
            let len = $name::LEN as u64;
            let sum = |counts: &$name| counts.iter().map(|(_, count)| count).sum::<u64>();
            assert_eq!(sum(&counts), len * (len + 1) / 2);
            assert_eq!(counts.iter().count(), $name::LEN);
            let labels: BTreeSet<_> = $name::KEYS.iter().map(|key| $name::label(*key)).collect();
            assert_eq!(labels.len(), $name::LEN);
            let mut twice = counts;
            twice.add(&counts);
            assert_eq!(sum(&twice), 2 * sum(&counts));
        };
    }

    /// The words of one type are distinct, more than one word, and no sentence.
    macro_rules! check_words {
        ($name:ident) => {
            let words: BTreeSet<String> = $name::KEYS.iter().map(|key| key.to_string()).collect();
            assert_eq!(words.len(), $name::LEN);
            for text in &words {
                assert!(text.contains(' ') && !text.ends_with('.'), "{text}");
            }
        };
    }

    #[test]
    fn every_reason_has_its_own_place_and_name() {
        check!(ErrorCounts);
        check!(TimeoutCounts);
        check!(ClosedCounts);
        check!(CheckoutCounts);
        check!(DialCounts);
        check!(ProbeCounts);
        check!(RetryCounts);
        check!(DrainCounts);
        check!(AlpnCounts);
    }

    #[test]
    fn only_what_was_counted_is_listed() {
        let live = Live::<{ ClosedCounts::LEN }>::default();
        live.count(ClosedCounts::index(CloseCause::Dropped));
        live.count(ClosedCounts::index(CloseCause::Evicted));
        live.count(ClosedCounts::index(CloseCause::Dropped));
        let counts = ClosedCounts::read(&live);
        let listed: Vec<_> = counts.iter().collect();
        assert_eq!(listed, [(CloseCause::Evicted, 1), (CloseCause::Dropped, 2)]);
        assert_eq!(format!("{counts:?}"), "{evicted: 1, dropped: 2}");
    }

    #[test]
    fn reasons_are_told_in_words() {
        check_words!(ClosedCounts);
        check_words!(CheckoutCounts);
        check_words!(DialCounts);
        check_words!(ProbeCounts);
        check_words!(RetryCounts);
        check_words!(DrainCounts);
        check_words!(AlpnCounts);
    }

    #[test]
    fn a_total_is_the_sum() {
        let live = Live::<{ RetryCounts::LEN }>::default();
        for (place, times) in [2, 3, 5, 7].into_iter().enumerate() {
            (0..times).for_each(|_| live.count(place));
        }
        assert_eq!(RetryCounts::read(&live).total(), 17);
    }
}
