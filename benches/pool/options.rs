//! The flags of the bench.

use std::path::PathBuf;
use std::time::Duration;

use crate::scenario::Failure;

/// The figures, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Memory of idle connections.
    Idle,
    /// Look-up among few and many origins.
    Origins,
    /// Connections opened by a second burst.
    Burst,
    /// A request on an idle connection.
    Checkout,
}

impl Figure {
    const ALL: [Self; 4] = [Self::Idle, Self::Origins, Self::Burst, Self::Checkout];

    /// The name that `--only` is compared with.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Origins => "origins",
            Self::Burst => "burst",
            Self::Checkout => "checkout",
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Rounds in which time is measured.
    pub(crate) rounds: usize,
    /// Rounds in which memory and connections are, which move less and take longer.
    pub(crate) few_rounds: usize,
    /// Idle connections.
    pub(crate) connections: usize,
    /// In how many bursts they are used, where not all at once.
    pub(crate) bursts: usize,
    /// How long they rest: long enough for a pool to give back what it need not keep.
    pub(crate) rest: Duration,
    /// Origins of the larger number.
    pub(crate) origins: usize,
    /// Requests a turn.
    pub(crate) requests: usize,
    /// Whether instructions are counted, where valgrind is there to count them.
    pub(crate) instructions: bool,
}

/// What is run, how much of it, and where the results go.
pub(crate) struct Options {
    /// The figures that `--only` left.
    pub(crate) figures: Vec<Figure>,
    /// How much.
    pub(crate) sizes: Sizes,
    /// The file for JSON, if any.
    pub(crate) json: Option<PathBuf>,
}

/// What the command line asks for.
pub(crate) enum Command {
    /// Run and report.
    Run(Options),
    /// Print the help.
    Help,
}

/// Reads the flags; an unknown one is an error.
pub(crate) fn parse(arguments: &[String]) -> Result<Command, Failure> {
    let mut given = Given::default();
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--only" => given.only = Some(value()?.clone()),
            "--rounds" => given.rounds = Some(positive(flag, value()?)?),
            "--connections" => given.connections = Some(positive(flag, value()?)?),
            "--requests" => given.requests = Some(positive(flag, value()?)?),
            "--json" => given.json = Some(value()?.into()),
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
    rounds: Option<usize>,
    connections: Option<usize>,
    requests: Option<usize>,
    json: Option<PathBuf>,
    quick: bool,
}

impl Given {
    fn resolve(self) -> Result<Options, Failure> {
        // The kept results are replaced only by a complete run, so that a look at one figure or a smoke test
        // cannot spoil them.
        let complete = !self.quick && self.only.is_none() && self.connections.is_none();
        let only = self.only.unwrap_or_default();
        let figures: Vec<Figure> = Figure::ALL
            .into_iter()
            .filter(|figure| figure.name().contains(&only))
            .collect();
        if figures.is_empty() {
            let known = Figure::ALL.map(Figure::name).join(", ");
            return Err(format!("no figure's name contains {only:?}; there are {known}").into());
        }
        let sizes = if self.quick { QUICK } else { COMPLETE };
        let rounds = self.rounds.unwrap_or(sizes.rounds);
        Ok(Options {
            figures,
            sizes: Sizes {
                rounds,
                few_rounds: rounds.div_ceil(5),
                connections: self.connections.unwrap_or(sizes.connections),
                requests: self.requests.unwrap_or(sizes.requests),
                ..sizes
            },
            json: self.json.or_else(|| complete.then(|| RESULT.into())),
        })
    }
}

fn positive(flag: &str, value: &str) -> Result<usize, Failure> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{flag} needs a whole number above 0, not {value:?}").into()),
    }
}

/// A complete run.
const COMPLETE: Sizes = Sizes {
    rounds: 15,
    few_rounds: 3,
    connections: 10_000,
    bursts: 20,
    rest: Duration::from_millis(1500),
    origins: 10_000,
    requests: 40_000,
    instructions: true,
};

/// A smoke run.
const QUICK: Sizes = Sizes {
    rounds: 2,
    few_rounds: 1,
    connections: 500,
    bursts: 2,
    rest: Duration::from_millis(300),
    origins: 1000,
    requests: 2000,
    instructions: false,
};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
usage: cargo bench -p sockeye-benches --bench pool -- [flags]

  --only TEXT          only figures whose name contains TEXT: idle, origins, burst, checkout
  --rounds N           rounds in which time is measured (15); a fifth of them where memory
                       and connections are
  --connections N      idle connections of `idle` (10000)
  --requests N         requests a turn of `origins` and `checkout` (40000)
  --quick              a smoke run of a few seconds: 2 rounds, 500 connections, 1000 origins,
                       2000 requests
  --json FILE          where to write JSON

A complete run writes benches/results/pool.json unless told otherwise; a run narrowed by --only,
--connections or --quick writes only the file it is told to.";

/// The kept result.
const RESULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/pool.json");
