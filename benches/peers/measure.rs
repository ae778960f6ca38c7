//! Measuring: the clocks, the rounds and the ratios drawn from them.
//!
//! The machine is assumed to be noisy. Every round runs every contender once, in a changing order; what
//! disturbs a round disturbs neighbours alike, so ratios are taken within a round, and the median over
//! the rounds is reported with its quartiles. Absolute numbers are medians too, but move with the machine.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::TWIN;
use crate::contenders::Contender;
use crate::median::{Median, order};
use crate::process::{ask, numbers};
use crate::scenario::{Amount, Failure, Scenario, Target};

/// The clocks at one moment: the wall's and this process's own, over all of its threads.
struct Clocks {
    wall: Instant,
    user: Duration,
    system: Duration,
}

impl Clocks {
    fn now() -> Result<Self, Failure> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        Ok(Self {
            wall: Instant::now(),
            user: Duration::from_micros(u64::try_from(usage.user_time().num_microseconds())?),
            system: Duration::from_micros(u64::try_from(usage.system_time().num_microseconds())?),
        })
    }
}

/// What one turn cost for each unit of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// CPU time in user mode, in microseconds a unit.
    pub(crate) user: f64,
    /// CPU time in the kernel, in microseconds a unit.
    pub(crate) system: f64,
    /// Units a second.
    pub(crate) rate: f64,
}

impl Sample {
    /// CPU time in microseconds a unit.
    pub(crate) fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// One contender's samples, one a round, and its allocations.
pub(crate) struct Series {
    /// Whose they are.
    pub(crate) contender: Contender,
    /// One sample a round; the same index is the same round for every contender.
    pub(crate) samples: Vec<Sample>,
    /// Allocations a unit.
    pub(crate) allocations: f64,
    /// Bytes allocated a unit.
    pub(crate) bytes_allocated: f64,
}

/// Runs a scenario: one round that only warms up, then `rounds` measured ones, then the allocations.
pub(crate) fn measure(
    scenario: &Scenario,
    contenders: &[Contender],
    rounds: usize,
    amount: Amount,
    address: SocketAddr,
) -> Result<Vec<Series>, Failure> {
    let mut all = Vec::with_capacity(contenders.len());
    for &contender in contenders {
        sample(contender, scenario, reduced(amount), address)?;
        let (allocations, bytes_allocated) =
            count_allocations(contender, scenario, amount, address)?;
        all.push(Series {
            contender,
            samples: Vec::new(),
            allocations,
            bytes_allocated,
        });
    }
    for round in 0..rounds {
        for position in order(round, all.len()) {
            if let Some(series) = all.get_mut(position) {
                series
                    .samples
                    .push(sample(series.contender, scenario, amount, address)?);
            }
        }
    }
    Ok(all)
}

fn sample(
    contender: Contender,
    scenario: &Scenario,
    amount: Amount,
    address: SocketAddr,
) -> Result<Sample, Failure> {
    let target = Target::new(address, scenario, amount)?;
    let turn = contender.turn(scenario, amount, &target, Clocks::now)?;
    let microseconds = |before: Duration, after: Duration| {
        after.saturating_sub(before).as_secs_f64() * 1e6 / turn.units
    };
    Ok(Sample {
        user: microseconds(turn.before.user, turn.after.user),
        system: microseconds(turn.before.system, turn.after.system),
        rate: turn.units
            / turn
                .after
                .wall
                .duration_since(turn.before.wall)
                .as_secs_f64(),
    })
}

/// Has the twin program run one turn under its counting allocator.
fn count_allocations(
    contender: Contender,
    scenario: &Scenario,
    amount: Amount,
    address: SocketAddr,
) -> Result<(f64, f64), Failure> {
    let amount = reduced(amount);
    let mut words = vec![
        address.to_string(),
        scenario.name.to_owned(),
        contender.name().to_owned(),
    ];
    words.extend([amount.requests.to_string(), amount.download_mib.to_string()]);
    let [allocations, bytes] = numbers(&ask(TWIN, &words)?)?;
    Ok((allocations, bytes))
}

/// The smaller amount that is enough for warming up and for counting.
fn reduced(amount: Amount) -> Amount {
    Amount {
        requests: (amount.requests / 4).max(1),
        download_mib: (amount.download_mib / 8).max(1),
    }
}

/// The median of `of` over `to`, each ratio taken within its round.
pub(crate) fn median_of_ratios(
    of: &Series,
    to: &Series,
    value: fn(&Sample) -> f64,
) -> Option<Median> {
    let rounds = of.samples.iter().zip(&to.samples);
    Median::of(rounds.map(|(of, to)| value(of) / value(to)))
}
