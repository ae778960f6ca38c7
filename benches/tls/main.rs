//! `cargo bench -p sockeye-benches --bench tls`: what TLS costs: handshakes beside bare tokio-rustls, a cold start
//! and small requests beside reqwest.
//!
//! This file starts the server, runs the scenarios and hands out the report. What is run is in `scenario.rs`, by whom in
//! `contenders.rs`. README.md says how to read the result.

#[path = "../http2/apart.rs"]
mod apart;
mod contenders;
#[path = "../peers/cores.rs"]
#[allow(dead_code, reason = "the other benches use the rest of it")]
mod cores;
mod measure;
#[path = "../peers/median.rs"]
mod median;
mod options;
#[path = "../http2/outbox.rs"]
mod outbox;
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
use crate::scenario::{Failure, Scenario};
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
    let (cores, server) = setting()?;
    let rounds = options.rounds;
    println!("{rounds} rounds. How to read: {METHOD}.\n");
    let mut results = Results {
        method: METHOD,
        rounds,
        scenarios: Vec::new(),
    };
    for scenario in &options.scenarios {
        place(&cores, scenario)?;
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
    let (cores, server) = setting()?;
    for scenario in &options.scenarios {
        place(&cores, scenario)?;
        for contender in options.contenders(scenario) {
            contender.turn(scenario, options.units(scenario), &server, || Ok(()))?;
        }
    }
    Ok(())
}

/// The server runs on one core.
fn setting() -> Result<(Cores, Server), Failure> {
    refuse_proxies()?;
    let cores = Cores::given()?;
    cores.use_one()?;
    Ok((cores, Server::start()?))
}

/// Where there is one thing at a time, client and server take turns on one core, and the time of a unit is the work of both.
/// Where there are many, each has a core, and neither has the other's code and data in its caches.
fn place(cores: &Cores, scenario: &Scenario) -> Result<(), Failure> {
    match scenario.concurrent {
        1 => cores.use_one(),
        _ => cores.use_another(),
    }
}
