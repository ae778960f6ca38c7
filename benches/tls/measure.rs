//! Measuring: as in the bench `peers`, every round runs every contender once, in a changing order, and ratios are taken
//! within a round.

use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

use crate::contenders::Contender;
use crate::median::{Median, order};
use crate::options::Options;
use crate::scenario::{Failure, Scenario};
use crate::server::Server;

/// How the numbers come about, in every output.
pub(crate) const METHOD: &str = "ratios are Sockeye's number over that of the other, taken within each round, and the median of \
    them is shown with its quartiles; absolute numbers are medians over the rounds; CPU time is the client process's own, \
    user and system, of which the part in user mode is the kernel's estimate; where there is one unit at a time, client and \
    server share a core, so that its time contains the server's work, otherwise each has a core";

/// One reading: the wall's clock, and the CPU time of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    wall: Instant,
    cpu: Duration,
    user: Duration,
}

impl Clocks {
    /// Reads them.
    pub(crate) fn now() -> Result<Self, Failure> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let user = u64::try_from(usage.user_time().num_microseconds())?;
        let system = u64::try_from(usage.system_time().num_microseconds())?;
        Ok(Self {
            wall: Instant::now(),
            cpu: Duration::from_micros(user + system),
            user: Duration::from_micros(user),
        })
    }
}

/// Microseconds a unit.
#[derive(Clone, Copy, Debug)]
struct Sample {
    cpu: f64,
    user: f64,
    wall: f64,
}

/// The result of a scenario.
#[derive(Serialize)]
pub(crate) struct Part {
    name: &'static str,
    contenders: Vec<Line>,
    ratios: Vec<Ratio>,
}

#[derive(Serialize)]
struct Line {
    contender: &'static str,
    cpu_us: Median,
    /// What of it was in user mode.
    user_us: Median,
    wall_us: Median,
}

#[derive(Serialize)]
struct Ratio {
    to: &'static str,
    cpu: Median,
    wall: Median,
}

/// Runs a scenario: a turn of each that only warms up, then the rounds.
pub(crate) fn measure(
    scenario: &Scenario,
    options: &Options,
    server: &Server,
) -> Result<Part, Failure> {
    let units = options.units(scenario);
    let contenders = options.contenders(scenario);
    let mut series: Vec<(Contender, Vec<Sample>)> = Vec::new();
    for contender in contenders {
        contender.turn(scenario, units.div_ceil(4), server, Clocks::now)?;
        series.push((contender, Vec::new()));
    }
    for round in 0..options.rounds {
        for position in order(round, series.len()) {
            if let Some((contender, samples)) = series.get_mut(position) {
                let (before, after) = contender.turn(scenario, units, server, Clocks::now)?;
                let each = |time: Duration| time.as_secs_f64() * 1e6 / units as f64;
                samples.push(Sample {
                    cpu: each(after.cpu.saturating_sub(before.cpu)),
                    user: each(after.user.saturating_sub(before.user)),
                    wall: each(after.wall.saturating_duration_since(before.wall)),
                });
            }
        }
    }
    report(scenario, &series).ok_or_else(|| "no round was measured".into())
}

fn report(scenario: &Scenario, series: &[(Contender, Vec<Sample>)]) -> Option<Part> {
    let mut part = Part {
        name: scenario.name,
        contenders: Vec::new(),
        ratios: Vec::new(),
    };
    let ours = series.iter().find(|(one, _)| *one == Contender::Sockeye);
    for (contender, samples) in series {
        part.contenders.push(Line {
            contender: contender.name(),
            cpu_us: Median::of(samples.iter().map(|sample| sample.cpu))?,
            user_us: Median::of(samples.iter().map(|sample| sample.user))?,
            wall_us: Median::of(samples.iter().map(|sample| sample.wall))?,
        });
        let Some((_, ours)) = ours.filter(|_| *contender != Contender::Sockeye) else {
            continue;
        };
        let rounds = || ours.iter().zip(samples);
        part.ratios.push(Ratio {
            to: contender.name(),
            cpu: Median::of(rounds().map(|(ours, other)| ours.cpu / other.cpu))?,
            wall: Median::of(rounds().map(|(ours, other)| ours.wall / other.wall))?,
        });
    }
    Some(part)
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.name)?;
        for line in &self.contenders {
            writeln!(
                f,
                "  {:<10} {:>9.1} us of CPU, {:>7.1} of them in user mode, {:>9.1} us, {:>8.0} a second",
                line.contender,
                line.cpu_us.median,
                line.user_us.median,
                line.wall_us.median,
                1e6 / line.wall_us.median
            )?;
        }
        for ratio in &self.ratios {
            writeln!(
                f,
                "  sockeye / {:<8} CPU {:.3} ({:.3} to {:.3}), time {:.3} ({:.3} to {:.3})",
                ratio.to,
                ratio.cpu.median,
                ratio.cpu.lower_quartile,
                ratio.cpu.upper_quartile,
                ratio.wall.median,
                ratio.wall.lower_quartile,
                ratio.wall.upper_quartile
            )?;
        }
        Ok(())
    }
}
