//! Counters that are kept by reason: errors by kind, timeouts by phase, closed connections by why.
//!
//! One macro makes the three public types, so that each has the same shape and an index that is an exhaustive match: a
//! new kind, phase or reason does not compile until it is counted here. The live side is [`Live`], which the hot path
//! of [`Counters`](super::Counters) adds to; the public types are what a snapshot read from it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{ErrorKind, Phase};

/// Why a connection was closed. New reasons may be added.
///
/// ```
/// use sockeye::stats::CloseCause;
///
/// assert_eq!(CloseCause::PeerClosed.to_string(), "closed by the peer");
/// assert!(CloseCause::Idle < CloseCause::PoolClosed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CloseCause {
    /// It was idle for longer than the idle timeout.
    Idle,
    /// It reached its longest life, in time or in requests.
    Lifetime,
    /// More connections were idle than may be kept.
    MaxIdle,
    /// It was idle and had to make room for a connection to another origin.
    Evicted,
    /// The peer closed it while it was idle.
    PeerClosed,
    /// The peer sent bytes that nobody had asked for while it was idle.
    Unsolicited,
    /// It failed while it was in use.
    Error,
    /// The caller dropped an exchange or a body before its end.
    Dropped,
    /// The request or the response did not allow another exchange on it.
    Protocol,
    /// The runtime that its socket belongs to ended.
    RuntimeGone,
    /// The client was closed.
    PoolClosed,
}

impl fmt::Display for CloseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle for too long",
            Self::Lifetime => "at the end of its lifetime",
            Self::MaxIdle => "more idle connections than allowed",
            Self::Evicted => "evicted for another origin",
            Self::PeerClosed => "closed by the peer",
            Self::Unsolicited => "unsolicited bytes from the peer",
            Self::Error => "failed in use",
            Self::Dropped => "dropped before the end of its exchange",
            Self::Protocol => "not allowed to be reused",
            Self::RuntimeGone => "its runtime ended",
            Self::PoolClosed => "the client was closed",
        })
    }
}

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

            /// All of them together.
            pub fn total(&self) -> u64 {
                self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
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
        Lifetime => "lifetime",
        MaxIdle => "max_idle",
        Evicted => "evicted",
        PeerClosed => "peer_closed",
        Unsolicited => "unsolicited",
        Error => "error",
        Dropped => "dropped",
        Protocol => "protocol",
        RuntimeGone => "runtime_gone",
        PoolClosed => "pool_closed",
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
            assert_eq!(counts.total(), len * (len + 1) / 2);
            assert_eq!(counts.iter().count(), $name::LEN);
            let labels: BTreeSet<_> = $name::KEYS.iter().map(|key| $name::label(*key)).collect();
            assert_eq!(labels.len(), $name::LEN);
            let mut twice = counts;
            twice.add(&counts);
            assert_eq!(twice.total(), 2 * counts.total());
        };
    }

    #[test]
    fn every_reason_has_its_own_place_and_name() {
        check!(ErrorCounts);
        check!(TimeoutCounts);
        check!(ClosedCounts);
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
        let words: BTreeSet<String> = ClosedCounts::KEYS
            .iter()
            .map(CloseCause::to_string)
            .collect();
        assert_eq!(words.len(), ClosedCounts::LEN);
        for text in &words {
            assert!(text.contains(' ') && !text.ends_with('.'), "{text}");
        }
    }
}
