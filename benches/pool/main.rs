//! `cargo bench -p sockeye-benches --bench pool`: what a pool costs, Sockeye's beside hyper-util's.
//!
//! This file runs the figures and hands out the report, or runs one turn where the bench has started itself
//! again for it. The work of a turn is in `idle.rs`, `requests.rs` and `burst.rs`, who does it in
//! `contenders/`, how it is measured in `measure.rs`. README.md says how to read the result.

mod burst;
mod callgrind;
mod census;
mod contenders;
#[path = "../peers/cores.rs"]
mod cores;
mod idle;
mod instant;
mod measure;
#[path = "../peers/median.rs"]
mod median;
mod options;
#[path = "../peers/output.rs"]
mod output;
#[path = "../peers/process.rs"]
mod process;
mod report;
mod requests;
mod scenario;
mod server;
mod turns;

use std::process::ExitCode;

use crate::cores::Cores;
use crate::options::{Command, Figure, HELP, Options};
use crate::output::write;
use crate::report::{METHOD, Report};
use crate::scenario::Failure;
use crate::server::SERVE;
use crate::turns::Asked;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("pool: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [SERVE, count] = *arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        return server::serve(count.parse()?);
    }
    match Asked::parse(&arguments)? {
        Some(Asked::Idle(contender, work)) => {
            let readings = idle::run(contender, &work, resident)?;
            println!("{readings}");
            return Ok(());
        }
        Some(Asked::Requests(contender, requests)) => {
            // Whoever started this counts instructions.
            requests::run(contender, requests, || Ok(()))?;
            return Ok(());
        }
        None => {}
    }
    match options::parse(&arguments)? {
        Command::Run(options) => run(&options),
        Command::Help => {
            println!("{HELP}");
            Ok(())
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let sizes = options.sizes;
    let mut report = Report::new(sizes);
    let cores = Cores::given()?;
    println!(
        "{} rounds of {} requests a turn; {} rounds of memory and of bursts.",
        sizes.rounds, sizes.requests, sizes.few_rounds
    );
    println!("How to read: {METHOD}.\n");
    for &figure in &options.figures {
        // Where time counts, the client is all there is, and stays on one core.
        match figure {
            Figure::Idle | Figure::Burst => cores.use_all()?,
            Figure::Origins | Figure::Checkout => cores.use_one()?,
        }
        let part = measure::measure(figure, sizes)?;
        println!("{part}");
        report.figures.push(part);
    }
    if let Some(path) = &options.json {
        write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    Ok(())
}

/// Bytes of this process's own memory that the kernel holds in RAM; without the program's file.
fn resident() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|value| value.trim().strip_suffix(" kB"))
        .ok_or("the kernel does not tell this process's memory")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}
