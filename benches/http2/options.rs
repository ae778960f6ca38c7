//! The flags of the bench.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::contenders::Contender;
use crate::figures::Figure;
use crate::scenario::{Amount, Failure, SCENARIOS, Scenario};

/// What is run, how much of it, against whom, and where the results go.
pub(crate) struct Options {
    /// The scenarios that `--only` left.
    pub(crate) scenarios: Vec<Scenario>,
    /// The figures that it left.
    pub(crate) figures: Vec<Figure>,
    /// The contenders that `--contender` left.
    pub(crate) contenders: Vec<Contender>,
    /// Measured rounds.
    pub(crate) rounds: usize,
    /// The size of one turn.
    pub(crate) amount: Amount,
    /// Whether it is a smoke run.
    pub(crate) is_quick: bool,
    /// A server of somebody else's.
    pub(crate) server: Option<SocketAddr>,
    /// The file for JSON, if any.
    pub(crate) json: Option<PathBuf>,
}

/// What the command line asks for.
pub(crate) enum Command {
    /// Run and report.
    Run(Options),
    /// Run one turn of everything, and read nothing.
    Once(Options),
    /// Write what somebody else's server must serve.
    Files(PathBuf, Options),
    /// Print the help.
    Help,
}

/// Reads the flags; an unknown one is an error.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, Failure> {
    let mut given = Given::default();
    while let Some(flag) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.ok_or_else(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--only" => given.only = value()?,
            "--contender" => given.contender = Some(Contender::named(&value()?)?),
            "--rounds" => given.rounds = Some(positive(&flag, &value()?)?),
            "--requests" => given.requests = Some(positive(&flag, &value()?)?),
            "--download-mib" => given.download_mib = Some(positive(&flag, &value()?)?),
            "--server" => given.server = Some(value()?.parse()?),
            "--json" => given.json = Some(value()?.into()),
            "--files" => given.files = Some(value()?.into()),
            "--once" => given.once = true,
            "--quick" => given.quick = true,
            // Cargo adds it to whatever the user gave.
            "--bench" => {}
            "--help" | "-h" => return Ok(Command::Help),
            _ => return Err(format!("unknown argument {flag:?}\n\n{HELP}").into()),
        }
    }
    given.resolve()
}

/// The flags as given, before defaults.
#[derive(Default)]
struct Given {
    only: String,
    contender: Option<Contender>,
    rounds: Option<u32>,
    requests: Option<u32>,
    download_mib: Option<u32>,
    server: Option<SocketAddr>,
    json: Option<PathBuf>,
    files: Option<PathBuf>,
    once: bool,
    quick: bool,
}

impl Given {
    fn resolve(self) -> Result<Command, Failure> {
        let only = self.only;
        // The kept result is replaced only by a complete run, so that a look at one scenario, at another
        // server or a smoke test cannot spoil it.
        let complete =
            !self.quick && only.is_empty() && self.contender.is_none() && self.server.is_none();
        let scenarios = SCENARIOS.into_iter();
        let mut figures = Figure::ALL.to_vec();
        figures.retain(|figure| figure.name().contains(&only));
        if self.quick {
            // valgrind takes too long for a smoke run.
            figures.retain(|figure| *figure != Figure::Instructions);
        }
        if self.server.is_some() {
            // One server has one address, which is one origin.
            figures.retain(|figure| *figure != Figure::Idle);
        }
        let (rounds, requests, download_mib) = match self.quick {
            true => (2, 400, 16),
            false => (15, 20_000, 256),
        };
        let options = Options {
            scenarios: scenarios
                .filter(|scenario| scenario.name.contains(&only))
                .collect(),
            figures,
            contenders: self
                .contender
                .map_or_else(|| Contender::ALL.to_vec(), |contender| vec![contender]),
            rounds: self.rounds.unwrap_or(rounds) as usize,
            amount: Amount {
                requests: self.requests.unwrap_or(requests) as usize,
                download_mib: u64::from(self.download_mib.unwrap_or(download_mib)),
            },
            is_quick: self.quick,
            server: self.server,
            json: self.json.or_else(|| complete.then(|| RESULT.into())),
        };
        if options.scenarios.is_empty() && options.figures.is_empty() {
            let known = SCENARIOS.map(|scenario| scenario.name).join(", ");
            let figures = Figure::ALL.map(Figure::name).join(", ");
            let mistake = format!("no name contains {only:?}; there are {known}, {figures}");
            return Err(mistake.into());
        }
        Ok(match (self.files, self.once) {
            (Some(folder), _) => Command::Files(folder, options),
            (None, true) => Command::Once(options),
            (None, false) => Command::Run(options),
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
usage: cargo bench -p sockeye-benches --bench http2 -- [flags]

  --only TEXT          only scenarios and figures whose name contains TEXT: get-1-stream,
                       get-32-streams, get-64-streams, get-100-streams, download-bare-2m,
                       download-bare-4m, download-delayed, upload, instructions, idle
  --contender NAME     only this contender: bare, sockeye, hyper-util, reqwest
  --rounds N           measured rounds (15)
  --requests N         requests of each contender a round (20000); a quarter as many where
                       they go one at a time
  --download-mib N     size of a download and of an upload (256); a quarter of it through
                       the delay line
  --quick              a smoke run of seconds: 2 rounds, 400 requests, 16 MiB
  --json FILE          where to write JSON
  --server ADDRESS     an h2c server of somebody else's instead of the bench's own
  --files FOLDER       writes the files that such a server must serve, and ends
  --once               one turn of each contender in each scenario, without warming up,
                       counting or a report: for valgrind and perf

A complete run writes benches/results/http2.json unless told otherwise; a run narrowed by --only,
--contender, --server or --quick writes only the file it is told to.";

/// The kept result.
const RESULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/http2.json");
