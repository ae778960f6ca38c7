//! Every order in which a few threads can use the words of a breaker and of a budget, tried by loom.
//!
//! `RUSTFLAGS="--cfg sockeye_loom" cargo test --lib policy::interleavings`: loom's atomics work in its models alone, so that nothing
//! else of the library's tests runs with them.

use std::num::NonZeroU32;

use loom::model;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::budget::{Budget, RetryBudget};
use super::circuit_breaker::{Breaker, CircuitBreaker};
use super::{Moment, Report};
use crate::config::CircuitState;

/// A breaker that opens at the first failure, and closes with the first probe that succeeds.
fn brittle() -> Arc<Breaker> {
    let rules = CircuitBreaker::default()
        .with_consecutive(NonZeroU32::new(1))
        .with_close_after(NonZeroU32::MIN);
    Arc::new(Breaker::new(rules))
}

fn fail(breaker: &Breaker, millis: u64) {
    let now = Moment::at_millis(millis);
    if let Ok(pass) = breaker.enter(now) {
        pass.report(Report::Failure, now, || 0);
    }
}

/// Long after whatever time a breaker of [`brittle`] can be open for.
const LATER: u64 = 600_000;

#[test]
fn one_probe_at_a_time_and_its_place_comes_back() {
    model(|| {
        let breaker = brittle();
        fail(&breaker, 0);
        let running = Arc::new(AtomicU32::new(0));
        let probe = |breaker: Arc<Breaker>, running: Arc<AtomicU32>| {
            move || {
                if let Ok(pass) = breaker.enter(Moment::at_millis(LATER)) {
                    assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                    running.fetch_sub(1, Ordering::SeqCst);
                    drop(pass);
                }
            }
        };
        let other = thread::spawn(probe(Arc::clone(&breaker), Arc::clone(&running)));
        probe(Arc::clone(&breaker), running)();
        other.join().unwrap();
        // Nobody holds the place, so there is one.
        assert!(breaker.enter(Moment::at_millis(LATER)).is_ok());
    });
}

#[test]
fn a_late_report_undoes_nothing() {
    model(|| {
        let breaker = brittle();
        let other = thread::spawn({
            let breaker = Arc::clone(&breaker);
            move || fail(&breaker, 0)
        });
        breaker.isolate();
        other.join().unwrap();
        assert_eq!(breaker.state(Moment::at_millis(0)), CircuitState::Isolated);
    });
}

#[test]
fn a_success_of_before_does_not_close_what_has_opened() {
    model(|| {
        let breaker = brittle();
        let now = Moment::at_millis(0);
        let other = thread::spawn({
            let breaker = Arc::clone(&breaker);
            move || {
                if let Ok(pass) = breaker.enter(now) {
                    pass.succeeded();
                }
            }
        });
        fail(&breaker, 0);
        other.join().unwrap();
        assert_eq!(breaker.state(now), CircuitState::Open);
        assert_eq!(breaker.opened(), 1);
    });
}

#[test]
fn a_probe_that_succeeds_and_one_that_came_late_leave_it_usable() {
    model(|| {
        let breaker = brittle();
        fail(&breaker, 0);
        let probe = |breaker: &Breaker| {
            if let Ok(pass) = breaker.enter(Moment::at_millis(LATER)) {
                pass.succeeded();
            }
        };
        let other = thread::spawn({
            let breaker = Arc::clone(&breaker);
            move || probe(&breaker)
        });
        probe(&breaker);
        other.join().unwrap();
        assert_eq!(
            breaker.state(Moment::at_millis(LATER)),
            CircuitState::Closed
        );
    });
}

#[test]
fn tokens_are_neither_lost_nor_made() {
    model(|| {
        let rules = RetryBudget::default()
            .with_capacity(10)
            .with_cost(5)
            .with_success(1)
            .with_refill_per_second(0);
        let budget = Arc::new(Budget::new(rules));
        let pay = |budget: &Budget| u32::from(budget.pay(false, Moment::at_millis(0)));
        let first = thread::spawn({
            let budget = Arc::clone(&budget);
            move || pay(&budget)
        });
        let second = thread::spawn({
            let budget = Arc::clone(&budget);
            move || {
                let paid = pay(&budget);
                budget.earn();
                paid
            }
        });
        let paid = first.join().unwrap() + second.join().unwrap();
        assert_eq!(paid, 2, "there was enough for both");
        // One token was earned, unless the budget was full then, which it was not: somebody had paid.
        assert_eq!(pay(&budget), 0);
        (0..4).for_each(|_| budget.earn());
        assert_eq!(pay(&budget), 1, "one and four make the price");
    });
}
