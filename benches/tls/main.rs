//! `cargo bench -p sockeye-benches --bench tls`: what TLS costs: handshakes beside bare tokio-rustls, a cold start
//! and small requests beside reqwest.
//!
//! This file starts the server, runs the scenarios and hands out the report. What is run is in `scenario.rs`, by whom in
//! `contenders.rs`. README.md says how to read the result.

mod contenders;
#[path = "../peers/cores.rs"]
#[allow(dead_code, reason = "the other benches use the rest of it")]
mod cores;
mod measure;
#[path = "../peers/median.rs"]
mod median;
mod options;
#[path = "../peers/output.rs"]
mod output;
#[path = "../peers/process.rs"]
#[allow(dead_code, reason = "the other benches use the rest of it")]
mod process;
#[path = "../peers/proxies.rs"]
mod proxies;
mod scenario;
mod server;

use std::process::ExitCode;

use serde::Serialize;

use crate::cores::Cores;
use crate::measure::{METHOD, Part};
use crate::options::{Command, HELP, Options};
use crate::output::write;
use crate::proxies::refuse_proxies;
use crate::scenario::Failure;
use crate::server::{SERVE, Server};

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tls: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == SERVE) {
        return server::serve();
    }
    match options::parse(arguments.into_iter())? {
        Command::Run(options) => run(&options),
        Command::Once(options) => once(&options),
        Command::Help => {
            println!("{HELP}");
            Ok(())
        }
    }
}

/// The whole result.
#[derive(Serialize)]
struct Results {
    method: &'static str,
    rounds: usize,
    scenarios: Vec<Part>,
}

fn run(options: &Options) -> Result<(), Failure> {
    let server = setting()?;
    let rounds = options.rounds;
    println!("{rounds} rounds. How to read: {METHOD}.\n");
    let mut results = Results {
        method: METHOD,
        rounds,
        scenarios: Vec::new(),
    };
    for scenario in &options.scenarios {
        let part = measure::measure(scenario, options, &server)?;
        println!("{part}");
        results.scenarios.push(part);
    }
    match &options.json {
        Some(path) => write(path, &(serde_json::to_string_pretty(&results)? + "\n")),
        None => Ok(()),
    }
}

/// One turn of everything, for a profiler.
fn once(options: &Options) -> Result<(), Failure> {
    let server = setting()?;
    for scenario in &options.scenarios {
        for contender in options.contenders(scenario) {
            contender.turn(scenario, options.units(scenario), &server, || Ok(()))?;
        }
    }
    Ok(())
}

/// Client and server share one core from here on.
fn setting() -> Result<Server, Failure> {
    refuse_proxies()?;
    Cores::given()?.use_one()?;
    Server::start()
}
