//! `cargo bench -p sockeye-benches --bench http2`: HTTP/2 by Sockeye beside the h2 crate used directly, hyper-util
//! and reqwest, against a server in another process.
//!
//! This file starts the server, runs the scenarios and the figures and hands out the report. What is run is in
//! `scenario.rs` and `figures.rs`, by whom in `contenders/`; how it is measured, and how it is reported, is
//! shared with the bench `peers`. README.md says how to read the result.

mod apart;
#[path = "../pool/callgrind.rs"]
mod callgrind;
mod contenders;
#[path = "../peers/cores.rs"]
mod cores;
mod delay;
mod figures;
#[path = "../peers/measure.rs"]
mod measure;
#[path = "../peers/median.rs"]
mod median;
mod options;
mod outbox;
#[path = "../peers/output.rs"]
mod output;
#[path = "../peers/process.rs"]
mod process;
#[path = "../peers/proxies.rs"]
mod proxies;
#[path = "../peers/report.rs"]
mod report;
mod scenario;
mod sending;
mod server;
#[path = "../peers/turn.rs"]
mod turn;
mod words;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::cores::Cores;
use crate::figures::FigureReport;
use crate::options::{Command, HELP, Options};
use crate::output::write;
use crate::proxies::refuse_proxies;
use crate::report::{Report, ScenarioReport};
use crate::scenario::{BIG_PATH, Failure, MIB, SMALL_BODY, SMALL_PATH, Scenario, Target};
use crate::server::{SERVE, Server};
use crate::words::METHOD;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("http2: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, count, outside, keep] = arguments.as_slice() {
        if word == SERVE {
            return server::serve(count, outside, keep);
        }
    }
    match options::parse(arguments.into_iter())? {
        Command::Run(options) => run(&options),
        Command::Once(options) => once(&options),
        Command::Files(folder, options) => write_files(&folder, &options),
        Command::Help => {
            println!("{HELP}");
            Ok(())
        }
    }
}

/// The servers and the delay line.
struct Setting {
    cores: Cores,
    /// It is somebody else's server if one was given; then this has the delay line alone.
    server: Server,
}

impl Setting {
    fn new(options: &Options) -> Result<Self, Failure> {
        refuse_proxies()?;
        let cores = Cores::given()?;
        cores.use_one()?;
        let server = Server::start(1, options.server, None)?;
        cores.use_another()?;
        Ok(Self { cores, server })
    }

    /// Where there is no delay.
    fn direct(&self) -> Result<SocketAddr, Failure> {
        Ok(*self.server.direct().first().ok_or("no address to ask")?)
    }

    fn address(&self, scenario: &Scenario) -> Result<SocketAddr, Failure> {
        match scenario.delayed {
            true => self.server.delayed(),
            false => self.direct(),
        }
    }
}

/// The whole result.
#[derive(Serialize)]
struct Results {
    #[serde(flatten)]
    report: Report,
    figures: Vec<FigureReport>,
}

fn run(options: &Options) -> Result<(), Failure> {
    let Options {
        rounds,
        amount,
        contenders,
        ..
    } = options;
    let setting = Setting::new(options)?;
    println!(
        "{rounds} rounds of {} requests, or of {} MiB, each contender.",
        amount.requests, amount.download_mib
    );
    println!("How to read: {METHOD}.\n");
    let mut results = Results {
        report: Report::new(*rounds, *amount),
        figures: Vec::new(),
    };
    for scenario in &options.scenarios {
        let address = setting.address(scenario)?;
        let series = measure::measure(scenario, contenders, *rounds, *amount, address)?;
        let part = ScenarioReport::new(scenario, &series);
        println!("{part}");
        results.report.scenarios.push(part);
    }
    for figure in &options.figures {
        // Its server starts here, and need not be fast.
        setting.cores.use_all()?;
        if let Some(part) = figure.count(contenders, setting.direct()?, options.is_quick)? {
            println!("{part}");
            results.figures.push(part);
        }
    }
    match &options.json {
        Some(path) => write(path, &(serde_json::to_string_pretty(&results)? + "\n")),
        None => Ok(()),
    }
}

/// One turn of everything; whoever started this does the counting.
fn once(options: &Options) -> Result<(), Failure> {
    let setting = Setting::new(options)?;
    for scenario in &options.scenarios {
        let target = Target::new(setting.address(scenario)?, scenario, options.amount)?;
        for contender in &options.contenders {
            contender.turn(scenario, options.amount, &target, || Ok(()))?;
        }
    }
    Ok(())
}

/// Writes the files that a server must have to take the place of the bench's own.
fn write_files(folder: &Path, options: &Options) -> Result<(), Failure> {
    let file = |path: &str| folder.join(path.trim_start_matches('/'));
    write(&file(SMALL_PATH), SMALL_BODY)?;
    // The largest, that through the delay line, and what warming up and counting take of each.
    for part in [1, 4, 8, 32] {
        let mib = options.amount.download_mib.div_ceil(part);
        let text = ".".repeat(usize::try_from(mib * MIB)?);
        write(&file(&format!("{BIG_PATH}{mib}")), &text)?;
    }
    Ok(())
}

/// The twin that counts allocations.
pub(crate) const TWIN: &str = env!("CARGO_BIN_EXE_http2-allocations");
