//! Counts allocations: the twin of the `peers` bench that runs one turn under a counting allocator.
//!
//! It is a program of its own because counting slows every allocation down. The bench starts it, once a
//! scenario and contender, with the server's address, the scenario, the contender, the number of
//! requests and the MiB of a download; it prints allocations and bytes for each unit of work. Growing or
//! shrinking an allocation in place counts as one allocation, as it may well move.

mod contenders;
mod scenario;
mod turn;

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{Stats, StatsAlloc};

use crate::contenders::Contender;
use crate::scenario::{Amount, Failure, SCENARIOS, Target};

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

fn main() -> ExitCode {
    match count() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("peers-allocations: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn count() -> Result<String, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, scenario, contender, requests, download_mib] = arguments.as_slice() else {
        return Err("started by the `peers` bench, not by hand".into());
    };
    let scenario = SCENARIOS
        .iter()
        .find(|known| known.name == scenario)
        .ok_or_else(|| format!("no scenario is named {scenario:?}"))?;
    let amount = Amount {
        requests: requests.parse()?,
        download_mib: download_mib.parse()?,
    };
    let target = Target::new(address.parse()?, amount.download_mib)?;
    let turn = Contender::named(contender)?.turn(scenario, amount, &target, reading)?;
    let Stats {
        allocations,
        reallocations,
        bytes_allocated,
        ..
    } = turn.after - turn.before;
    Ok(format!(
        "{} {}",
        (allocations + reallocations) as f64 / turn.units,
        bytes_allocated as f64 / turn.units
    ))
}

fn reading() -> Result<Stats, Failure> {
    Ok(ALLOCATOR.stats())
}
