//! The flags of the bench.

use std::path::PathBuf;

use crate::contenders::Contender;
use crate::scenario::{Amount, Failure, SCENARIOS, Scenario};

/// What is run, how much of it, and where the results go.
pub(crate) struct Options {
    /// The scenarios that `--only` left.
    pub(crate) scenarios: Vec<Scenario>,
    /// The contenders that `--contender` left.
    pub(crate) contenders: Vec<Contender>,
    /// Measured rounds.
    pub(crate) rounds: usize,
    /// The size of one turn.
    pub(crate) amount: Amount,
    /// The file for JSON, if any.
    pub(crate) json: Option<PathBuf>,
    /// The file for the chart, if any.
    pub(crate) svg: Option<PathBuf>,
}

/// What the command line asks for.
pub(crate) enum Command {
    /// Run and report.
    Run(Options),
    /// Print the help.
    Help,
}

/// Reads the flags; an unknown one is an error.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Command, Failure> {
    let mut given = Given::default();
    let mut arguments = arguments;
    while let Some(flag) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--only" => given.only = Some(value()?),
            "--contender" => given.contender = Some(Contender::named(&value()?)?),
            "--rounds" => given.rounds = Some(positive(&flag, &value()?)? as usize),
            "--requests" => given.requests = Some(positive(&flag, &value()?)? as usize),
            "--download-mib" => given.download_mib = Some(u64::from(positive(&flag, &value()?)?)),
            "--json" => given.json = Some(value()?.into()),
            "--svg" => given.svg = Some(value()?.into()),
            "--quick" => given.quick = true,
            // Cargo adds it to whatever the user gave.
            "--bench" => {}
            "--help" | "-h" => return Ok(Command::Help),
            _ => return Err(format!("unknown argument {flag:?}\n\n{HELP}").into()),
        }
    }
    given.resolve().map(Command::Run)
}

/// The flags as given, before defaults.
#[derive(Default)]
struct Given {
    only: Option<String>,
    contender: Option<Contender>,
    rounds: Option<usize>,
    requests: Option<usize>,
    download_mib: Option<u64>,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
    quick: bool,
}

impl Given {
    fn resolve(self) -> Result<Options, Failure> {
        if self.svg.is_some() && !matches!(self.contender, None | Some(Contender::Bare)) {
            return Err(
                "--svg needs the bare contender, whose CPU time is the chart's unit".into(),
            );
        }
        // The kept results are replaced only by a complete run, so that a look at one scenario or a
        // smoke test cannot spoil them.
        let complete = !self.quick && self.only.is_none() && self.contender.is_none();
        let kept = |file| complete.then(|| PathBuf::from(RESULTS).join(file));
        let only = self.only.unwrap_or_default();
        let scenarios: Vec<Scenario> = SCENARIOS
            .into_iter()
            .filter(|scenario| scenario.name.contains(&only))
            .collect();
        if scenarios.is_empty() {
            let known = SCENARIOS.map(|scenario| scenario.name).join(", ");
            return Err(format!("no scenario's name contains {only:?}; there are {known}").into());
        }
        let (rounds, requests, download_mib) = if self.quick {
            (2, 400, 16)
        } else {
            (15, 4000, 512)
        };
        Ok(Options {
            scenarios,
            contenders: self
                .contender
                .map_or_else(|| Contender::ALL.to_vec(), |contender| vec![contender]),
            rounds: self.rounds.unwrap_or(rounds),
            amount: Amount {
                requests: self.requests.unwrap_or(requests),
                download_mib: self.download_mib.unwrap_or(download_mib),
            },
            json: self.json.or_else(|| kept("peers.json")),
            svg: self.svg.or_else(|| kept("peers.svg")),
        })
    }
}

fn positive(flag: &str, value: &str) -> Result<u32, Failure> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{flag} needs a whole number above 0, not {value:?}").into()),
    }
}

/// The text of `--help`.
pub(crate) const HELP: &str = "\
usage: cargo bench -p sockeye-benches --bench peers -- [flags]

  --only TEXT          only scenarios whose name contains TEXT
  --contender NAME     only this contender: bare, sockeye, hyper, hyper-util, reqwest
  --rounds N           measured rounds (15)
  --requests N         requests of each contender a round (4000); half as many where they
                       go one at a time
  --download-mib N     size of the download and of the upload (512)
  --quick              a smoke run of a few seconds: 2 rounds, 400 requests, 16 MiB
  --json FILE          where to write JSON
  --svg FILE           where to draw the chart

A complete run writes benches/results/peers.json and peers.svg unless told otherwise; a run narrowed
by --only, --contender or --quick writes only the files it is told to.";

/// The folder of the kept results.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results");
