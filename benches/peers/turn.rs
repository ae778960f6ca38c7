//! One turn: one contender does one scenario's work once, on a runtime and a client of its own.
//!
//! A fresh runtime for every turn means that no contender inherits timers, tasks or idle connections of
//! an earlier turn. Opening connections and the first requests happen before the first reading. What is
//! read (clocks or allocation counters) is the caller's choice: the bench reads clocks, its twin counts.

use tokio::runtime::{Builder, Runtime};

use crate::contenders::Slot;
use crate::scenario::{Amount, Failure, MIB, SMALL_BODY, Scenario, Target, Work};

/// What a turn gives.
pub(crate) struct Turn<R> {
    /// The reading right before the work.
    pub(crate) before: R,
    /// The reading right after it.
    pub(crate) after: R,
    /// Requests done, or MiB received.
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
        let per_slot = match scenario.work {
            // One at a time is slow, and steady enough with half as many.
            Work::Get | Work::Post if scenario.concurrent == 1 => amount.requests.div_ceil(2),
            Work::Get | Work::Post => amount.requests.div_ceil(scenario.concurrent),
            Work::Download => 1,
        };
        let slots = open_slots::<S>(scenario, amount, target).await?;
        let before = reading()?;
        repeat(slots, scenario.work, amount, per_slot).await?;
        let after = reading()?;
        let units = match scenario.work {
            Work::Get | Work::Post => (per_slot * scenario.concurrent) as f64,
            Work::Download => amount.download_mib as f64,
        };
        Ok(Turn {
            before,
            after,
            units,
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
    let shared = S::shared()?;
    let mut slots = Vec::with_capacity(scenario.concurrent);
    for _ in 0..scenario.concurrent {
        slots.push(S::open(&shared, target).await?);
    }
    let (work, warm_up) = match scenario.work {
        Work::Get | Work::Post => (scenario.work, amount.requests / 10 / scenario.concurrent),
        Work::Download => (Work::Get, 0),
    };
    repeat(slots, work, amount, warm_up.max(2)).await
}

/// Runs every slot as a task of its own, `times` exchanges each, and gives the slots back.
async fn repeat<S: Slot>(
    slots: Vec<S>,
    work: Work,
    amount: Amount,
    times: usize,
) -> Result<Vec<S>, Failure> {
    let tasks: Vec<_> = slots
        .into_iter()
        .map(|mut slot| {
            tokio::spawn(async move {
                for _ in 0..times {
                    once(&mut slot, work, amount).await?;
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

/// One exchange. The slot has checked the status; the length of the body is checked here.
async fn once<S: Slot>(slot: &mut S, work: Work, amount: Amount) -> Result<(), Failure> {
    let (length, expected) = match work {
        Work::Get => (slot.get().await?, SMALL_BODY.len() as u64),
        Work::Post => (slot.post().await?, SMALL_BODY.len() as u64),
        Work::Download => (slot.download().await?, amount.download_mib * MIB),
    };
    if length != expected {
        return Err(format!("a body of {length} bytes where {expected} were expected").into());
    }
    Ok(())
}
