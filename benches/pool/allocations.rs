//! Counts allocations: the twin of the `pool` bench that runs one turn under a counting allocator.
//!
//! It is a program of its own because counting slows every allocation down. The bench starts it with the
//! words of one turn; it prints the live bytes of the heap at each reading of `idle`, and allocations and bytes
//! for each request of the other figures. Growing or shrinking an allocation in place counts as one
//! allocation, as it may well move.

mod census;
mod contenders;
mod idle;
mod instant;
mod requests;
mod scenario;
mod turns;

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{Stats, StatsAlloc};

use crate::scenario::Failure;
use crate::turns::Asked;

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

fn main() -> ExitCode {
    match count() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("pool-allocations: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn count() -> Result<String, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Asked::parse(&arguments)? {
        Some(Asked::Idle(contender, work)) => Ok(idle::run(contender, &work, live)?.to_string()),
        Some(Asked::Requests(contender, requests)) => {
            let turn = requests::run(contender, requests, || Ok(ALLOCATOR.stats()))?;
            let Stats {
                allocations,
                reallocations,
                bytes_allocated,
                ..
            } = turn.after - turn.before;
            let count = requests.count as f64;
            Ok(format!(
                "{} {}",
                (allocations + reallocations) as f64 / count,
                bytes_allocated as f64 / count
            ))
        }
        None => Err("started by the `pool` bench, not by hand".into()),
    }
}

/// Bytes that are allocated now.
fn live() -> Result<u64, Failure> {
    let stats = ALLOCATOR.stats();
    Ok((stats.bytes_allocated as u64).saturating_sub(stats.bytes_deallocated as u64))
}
