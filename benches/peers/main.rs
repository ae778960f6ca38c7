//! `cargo bench -p sockeye-benches --bench peers`: Sockeye beside its peers, against a server in another process.
//!
//! This file starts the server, runs the scenarios and hands out the report. What is run is in
//! `scenario.rs`, by whom in `contenders/`, how it is measured in `turn.rs` and `measure.rs`. README.md
//! says how to read the result.

mod chart;
mod contenders;
mod cores;
mod measure;
mod median;
mod options;
mod output;
mod process;
mod proxies;
mod report;
mod scenario;
mod server;
mod turn;
mod words;

use std::process::ExitCode;

use crate::cores::Cores;
use crate::options::{Command, HELP, Options};
use crate::output::write;
use crate::proxies::refuse_proxies;
use crate::report::{Report, ScenarioReport};
use crate::scenario::{Failure, Work};
use crate::server::{SERVE, Server};
use crate::words::METHOD;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("peers: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Failure> {
    if std::env::args().nth(1).as_deref() == Some(SERVE) {
        return server::serve();
    }
    match options::parse(std::env::args().skip(1))? {
        Command::Run(options) => run(&options),
        Command::Help => {
            println!("{HELP}");
            Ok(())
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    refuse_proxies()?;
    let Options { rounds, amount, .. } = *options;
    let mut report = Report::new(rounds, amount);
    let cores = Cores::given()?;
    cores.use_one()?;
    let server = Server::start()?;
    println!(
        "{rounds} rounds of {} requests, or of {} MiB downloaded or uploaded, each contender.",
        amount.requests, amount.download_mib
    );
    println!("How to read: {METHOD}.\n");
    for scenario in &options.scenarios {
        // A large body keeps both sides busy all the time, so there each has a core for itself.
        let large = matches!(scenario.work, Work::Download | Work::Upload);
        if scenario.threads == 1 && !large {
            cores.use_one()?;
        } else {
            cores.use_all()?;
        }
        let series = measure::measure(
            scenario,
            &options.contenders,
            rounds,
            amount,
            server.address(),
        )?;
        let part = ScenarioReport::new(scenario, &series);
        println!("{part}");
        report.scenarios.push(part);
    }
    if let Some(path) = &options.json {
        write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(path) = &options.svg {
        let chart = chart::draw(&report).ok_or("a chart needs the bare contender's numbers")?;
        write(path, &chart)?;
    }
    Ok(())
}

/// The twin that counts allocations.
pub(crate) const TWIN: &str = env!("CARGO_BIN_EXE_peers-allocations");
