//! Random numbers of a client: for waits that are to differ from those of others, and for idempotency keys.
//!
//! A keyed hash over a counter, with keys from the system: no state to lock, and nothing that can be told from outside.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Draws numbers.
#[derive(Debug, Default)]
pub(crate) struct Lots {
    keys: [RandomState; 2],
    drawn: AtomicU64,
}

impl Lots {
    /// A number, uniform over all of `u64`.
    pub(crate) fn draw(&self) -> u64 {
        let [keys, _] = &self.keys;
        keys.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed))
    }

    /// 128 bits that no other call has.
    pub(crate) fn draw_long(&self) -> u128 {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let [low, high] = self.keys.each_ref().map(|keys| keys.hash_one(number));
        u128::from(high) << 64 | u128::from(low)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_differ_and_fill_the_range() {
        let (lots, others) = (Lots::default(), Lots::default());
        let drawn: HashSet<_> = (0..1000).map(|_| lots.draw()).collect();
        assert_eq!(drawn.len(), 1000);
        assert!((0..1000).all(|_| !drawn.contains(&others.draw())));
        let bits = (0..1000).fold((0, u128::MAX), |(any, all), _| {
            let long = lots.draw_long();
            (any | long, all & long)
        });
        assert_eq!(bits, (u128::MAX, 0));
    }
}
