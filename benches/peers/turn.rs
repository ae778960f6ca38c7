//! One turn: one contender does one scenario's work once, on a runtime and a client of its own.
//!
//! A fresh runtime for every turn means that no contender inherits timers, tasks or idle connections of
//! an earlier turn. Opening connections and the first requests happen before the first reading. What is
//! read (clocks or allocation counters) is the caller's choice: the bench reads clocks, its twin counts.

use tokio::runtime::{Builder, Runtime};

use crate::contenders::{Slot, once};
use crate::scenario::{Amount, Failure, Scenario, Target, Work};

/// What a turn gives.
pub(crate) struct Turn<R> {
    /// The reading right before the work.
    pub(crate) before: R,
    /// The reading right after it.
    pub(crate) after: R,
    /// Requests done, or MiB moved.
    pub(crate) units: f64,
}

/// Runs one turn of `S`.
pub(crate) fn turn<S: Slot, R>(
    scenario: &Scenario,
    amount: Amount,
    target: &Target,
    reading: fn() -> Result<R, Failure>,
) -> Result<Turn<R>, Failure> {
    let runtime = runtime(scenario)?;
    runtime.block_on(async {
        let slots = open_slots::<S>(scenario, amount, target).await?;
        let before = reading()?;
        repeat(slots, scenario.work, target, scenario.repeats(amount)).await?;
        let after = reading()?;
        Ok(Turn {
            before,
            after,
            units: scenario.units(amount),
        })
    })
}

/// The runtime of the scenario. One thread means the current one: the whole client runs on it.
fn runtime(scenario: &Scenario) -> std::io::Result<Runtime> {
    let mut builder = if scenario.threads == 1 {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    if scenario.threads > 1 {
        builder.worker_threads(scenario.threads);
    }
    builder.enable_all().build()
}

/// Opens every slot and lets each send a few requests, so that connections, buffers and caches exist.
async fn open_slots<S: Slot>(
    scenario: &Scenario,
    amount: Amount,
    target: &Target,
) -> Result<Vec<S>, Failure> {
    let shared = S::shared(target)?;
    let mut slots = Vec::with_capacity(scenario.concurrent);
    for _ in 0..scenario.concurrent {
        slots.push(S::open(&shared, target).await?);
    }
    let (work, times) = scenario.warm_up(amount);
    repeat(slots, work, target, times.max(2)).await
}

/// Runs every slot as a task of its own, `times` exchanges each, and gives the slots back.
async fn repeat<S: Slot>(
    slots: Vec<S>,
    work: Work,
    target: &Target,
    times: usize,
) -> Result<Vec<S>, Failure> {
    let expected = target.length(work);
    let tasks: Vec<_> = slots
        .into_iter()
        .map(|mut slot| {
            tokio::spawn(async move {
                for _ in 0..times {
                    // The slot has checked the status.
                    let length = once(&mut slot, work).await?;
                    if length != expected {
                        return Err(unexpected(length, expected));
                    }
                }
                Ok::<_, Failure>(slot)
            })
        })
        .collect();
    let mut slots = Vec::with_capacity(tasks.len());
    for task in tasks {
        slots.push(task.await??);
    }
    Ok(slots)
}

fn unexpected(length: u64, expected: u64) -> Failure {
    format!("a body of {length} bytes where {expected} were expected").into()
}
