//! Counts allocations: the twin of the `http2` bench that runs one turn under a counting allocator.
//!
//! It is a program of its own because counting slows every allocation down. The bench starts it, once a
//! scenario and contender; it prints allocations and bytes for each unit of work, and of `idle` the bytes that
//! are allocated with the sessions and without them.

mod contenders;
#[path = "../peers/counting.rs"]
mod counting;
mod idle;
mod scenario;
mod sending;
#[path = "../peers/turn.rs"]
mod turn;

use std::alloc::System;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use stats_alloc::StatsAlloc;

use crate::contenders::Contender;
use crate::scenario::{Failure, IDLE};

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

fn main() -> ExitCode {
    match answer() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("http2-allocations: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> Result<String, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [word, contender, rest, addresses @ ..] if word == IDLE => {
            let addresses: Vec<SocketAddr> = addresses
                .iter()
                .map(|address| address.parse())
                .collect::<Result<_, _>>()?;
            let rest = Duration::from_millis(rest.parse()?);
            let contender = Contender::named(contender)?;
            let (rested, closed) = idle::run(contender, &addresses, rest, live)?;
            Ok(format!("{rested} {closed}"))
        }
        other => counting::count(other, || Ok(ALLOCATOR.stats())),
    }
}

/// Bytes that are allocated now.
fn live() -> Result<u64, Failure> {
    let stats = ALLOCATOR.stats();
    Ok((stats.bytes_allocated as u64).saturating_sub(stats.bytes_deallocated as u64))
}
