//! How many retries an origin may cost, in one atomic word.
//!
//! Tokens are paid for each retry and earned by each first try that succeeds and by time; nothing is paid back. So an origin that
//! fails for good costs `capacity / cost` retries at once and `refill_per_second / cost` a second, whoever calls it.

use super::atomics::{AtomicU64, Ordering};
use super::{Moment, with};
use crate::error::{Error, Result};

/// What retries cost: a budget that all calls of a client to one origin share, so that an origin in trouble is not hit harder the
/// worse it is.
///
/// With the defaults no origin ever gets more retries than 100, one a second, and one for every five calls that succeed at once.
///
/// ```
/// use sockeye::{Retry, RetryBudget};
///
/// let frugal = RetryBudget::default().with_capacity(50).with_refill_per_second(0);
/// let retry = Retry::default().with_budget(Some(frugal));
/// # let _ = retry;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryBudget {
    /// Tokens at the start and at most. Default 500, at most 65,535.
    pub capacity: u32,
    /// Tokens that a retry costs. Default 5.
    pub cost: u32,
    /// Tokens that a retry after a time limit costs: those attempts were the dearest for both sides. Default 10.
    pub timeout_cost: u32,
    /// Tokens that a call earns whose first attempt succeeds. Default 1.
    pub success: u32,
    /// Tokens that a second adds. Default 5.
    pub refill_per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            capacity: 500,
            cost: 5,
            timeout_cost: 10,
            success: 1,
            refill_per_second: 5,
        }
    }
}

with! {
    RetryBudget:
    with_capacity capacity u32;
    with_cost cost u32;
    with_timeout_cost timeout_cost u32;
    with_success success u32;
    with_refill_per_second refill_per_second u32;
}

impl RetryBudget {
    pub(super) fn check(&self) -> Result<()> {
        if u64::from(self.capacity) > MAX_TOKENS {
            return Err(Error::invalid(format!(
                "RetryBudget::capacity is {}; it can be {MAX_TOKENS} at most",
                self.capacity
            )));
        }
        Ok(())
    }

    fn cost_of(&self, timeout: bool) -> u64 {
        thousandths(if timeout {
            self.timeout_cost
        } else {
            self.cost
        })
    }

    /// The thousandths at `now`: a token a second is one of them a millisecond, so that nothing is rounded.
    fn refilled(&self, word: Word, now: u64) -> u64 {
        let passed = now.saturating_sub(word.paid());
        let gained = passed.saturating_mul(u64::from(self.refill_per_second));
        word.thousandths()
            .saturating_add(gained)
            .min(thousandths(self.capacity))
    }
}

fn thousandths(tokens: u32) -> u64 {
    u64::from(tokens) * 1000
}

/// The tokens of one origin.
#[derive(Debug)]
pub(crate) struct Budget {
    rules: RetryBudget,
    word: AtomicU64,
}

/// 26 bits of thousandths of a token, and 38 of the millisecond up to which time has been paid out. That is 8 years; after them
/// tokens come from successes alone.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    fn new(thousandths: u64, paid: u64) -> Self {
        Self(thousandths << PAID_BITS | paid.min(MAX_PAID))
    }

    fn thousandths(self) -> u64 {
        self.0 >> PAID_BITS
    }

    fn paid(self) -> u64 {
        self.0 & MAX_PAID
    }
}

impl Budget {
    /// A full one.
    pub(super) fn new(rules: RetryBudget) -> Self {
        Self {
            rules,
            word: AtomicU64::new(Word::new(thousandths(rules.capacity), 0).0),
        }
    }

    /// A call succeeded at its first attempt. A full budget costs one load.
    pub(crate) fn earn(&self) {
        let capacity = thousandths(self.rules.capacity);
        let success = thousandths(self.rules.success);
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let word = Word(seen);
            if word.thousandths() >= capacity || success == 0 {
                return;
            }
            let more = word.thousandths().saturating_add(success).min(capacity);
            match self.swap(seen, Word::new(more, word.paid())) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Pays for a retry; answers whether there was enough.
    pub(super) fn pay(&self, timeout: bool, now: Moment) -> bool {
        let cost = self.rules.cost_of(timeout);
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let word = Word(seen);
            let tokens = self.rules.refilled(word, now.millis());
            let Some(left) = tokens.checked_sub(cost) else {
                return false;
            };
            let paid = now.millis().max(word.paid());
            match self.swap(seen, Word::new(left, paid)) {
                Ok(()) => return true,
                Err(now) => seen = now,
            }
        }
    }

    pub(super) fn is_full(&self, now: Moment) -> bool {
        let word = Word(self.word.load(Ordering::Relaxed));
        self.rules.refilled(word, now.millis()) >= thousandths(self.rules.capacity)
    }

    /// Relaxed, because no other memory is published by tokens.
    fn swap(&self, seen: u64, new: Word) -> Result<(), u64> {
        self.word
            .compare_exchange_weak(seen, new.0, Ordering::Relaxed, Ordering::Relaxed)
            .map(drop)
    }
}

const PAID_BITS: u32 = 38;
const MAX_PAID: u64 = (1 << PAID_BITS) - 1;
const MAX_TOKENS: u64 = (1 << 16) - 1;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::at_millis(millis)
    }

    /// How many retries are paid if as many are wanted as can be had.
    fn drain(budget: &Budget, millis: u64) -> u64 {
        let mut paid = 0;
        while budget.pay(false, at(millis)) {
            paid += 1;
        }
        paid
    }

    #[test]
    fn a_hundred_at_once_and_one_a_second() {
        let budget = Budget::new(RetryBudget::default());
        assert_eq!(drain(&budget, 7_000), 100);
        assert_eq!(drain(&budget, 7_999), 0);
        assert_eq!(drain(&budget, 8_000), 1);
        assert_eq!(drain(&budget, 18_000), 10);
        // However long it rests, it holds no more than its capacity.
        assert_eq!(drain(&budget, 10_000_000), 100);
    }

    #[test]
    fn five_successes_are_worth_a_retry_and_a_timeout_costs_two() {
        let budget = Budget::new(RetryBudget::default());
        drain(&budget, 0);
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.pay(true, at(0)));
        budget.earn();
        assert!(budget.pay(true, at(0)));
        (0..1000).for_each(|_| budget.earn());
        assert!(budget.is_full(at(0)));
        assert_eq!(drain(&budget, 0), 100);
        assert!(!budget.is_full(at(99_999)));
        assert!(budget.is_full(at(100_000)));
    }

    /// Rates that do not divide a second, asked at every millisecond: neither more nor less than the rate.
    #[test]
    fn time_is_paid_to_the_millisecond() {
        for rate in [1, 3, 7, 333, 1001] {
            let rules = RetryBudget::default()
                .with_capacity(1000)
                .with_cost(1)
                .with_refill_per_second(rate);
            let budget = Budget::new(rules);
            let mut paid = drain(&budget, 0);
            assert_eq!(paid, 1000);
            for millis in 1..=20_000 {
                paid += drain(&budget, millis);
                let due = 1000 + millis * u64::from(rate) / 1000;
                assert_eq!(paid, due, "{rate}/s: in {millis} ms");
            }
        }
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let budget = Budget::new(RetryBudget::default());
        drain(&budget, 50_000);
        assert_eq!(drain(&budget, 10), 0);
        assert_eq!(drain(&budget, 50_000), 0);
        assert_eq!(drain(&budget, 51_000), 1);
    }

    #[test]
    fn nothing_is_lost_or_made_between_threads() {
        let budget = Budget::new(RetryBudget::default().with_refill_per_second(0));
        let paid = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        budget.earn();
                        if budget.pay(false, at(0)) {
                            paid.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let paid = paid.into_inner();
        let left = Word(budget.word.load(Ordering::Relaxed)).thousandths() / 1000;
        assert!(
            paid * 5 + left <= 500 + 2000,
            "{paid} retries, {left} tokens"
        );
        assert!(paid >= 100);
    }

    #[test]
    fn too_large_a_capacity_is_named() {
        let error = RetryBudget::default()
            .with_capacity(2_000_000)
            .check()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "RetryBudget::capacity is 2000000; it can be 65535 at most"
        );
    }
}
