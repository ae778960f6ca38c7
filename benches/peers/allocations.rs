//! Counts allocations: the twin of the `peers` bench that runs one turn under a counting allocator.
//!
//! It is a program of its own because counting slows every allocation down. The bench starts it, once a
//! scenario and contender.

mod contenders;
mod counting;
mod scenario;
mod turn;

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::StatsAlloc;

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match counting::count(&arguments, || Ok(ALLOCATOR.stats())) {
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
