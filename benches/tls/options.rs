//! The flags.

use std::path::PathBuf;

use crate::contenders::Contender;
use crate::scenario::{Failure, SCENARIOS, Scenario};

/// What to do.
pub(crate) enum Command {
    /// Measure.
    Run(Options),
    /// One turn of everything, unmeasured.
    Once(Options),
    /// Say what there is to say.
    Help,
}

/// How to do it.
pub(crate) struct Options {
    /// What is run.
    pub(crate) scenarios: Vec<&'static Scenario>,
    /// By whom alone, if anybody.
    contender: Option<Contender>,
    /// How often.
    pub(crate) rounds: usize,
    /// Units a turn, in place of each scenario's own number.
    units: Option<usize>,
    /// Where the result goes.
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// Who takes part.
    pub(crate) fn contenders(&self, scenario: &Scenario) -> Vec<Contender> {
        let wanted = |one: &Contender| self.contender.is_none_or(|only| only == *one);
        scenario.contenders.iter().copied().filter(wanted).collect()
    }

    /// Units a turn; as many for each task.
    pub(crate) fn units(&self, scenario: &Scenario) -> usize {
        let units = self.units.unwrap_or(scenario.units);
        units.div_ceil(scenario.concurrent) * scenario.concurrent
    }
}

/// Reads the flags.
pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Command, Failure> {
    let mut only: Vec<String> = Vec::new();
    let (mut is_quick, mut is_once) = (false, false);
    let mut options = Options {
        scenarios: Vec::new(),
        contender: None,
        rounds: 20,
        units: None,
        json: None,
    };
    let mut json = None;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--only" => only.push(value()?),
            "--contender" => options.contender = Some(Contender::named(&value()?)?),
            "--rounds" => options.rounds = value()?.parse()?,
            "--units" => options.units = Some(value()?.parse()?),
            "--json" => json = Some(PathBuf::from(value()?)),
            "--quick" => is_quick = true,
            "--once" => is_once = true,
            "--help" => return Ok(Command::Help),
            // cargo bench adds it.
            "--bench" => {}
            other => return Err(format!("unknown flag {other}; --help lists them all").into()),
        }
    }
    options.scenarios = SCENARIOS
        .iter()
        .filter(|one| only.is_empty() || only.iter().any(|part| one.name.contains(part.as_str())))
        .collect();
    if options.scenarios.is_empty() || options.rounds == 0 || options.units == Some(0) {
        return Err("nothing to run".into());
    }
    let is_complete = only.is_empty() && options.contender.is_none() && !is_quick && !is_once;
    options.json = json.or_else(|| is_complete.then(|| PathBuf::from(RESULT)));
    if is_quick {
        options.rounds = 1;
        options.units = Some(64);
    }
    Ok(match is_once {
        true => Command::Once(options),
        false => Command::Run(options),
    })
}

/// What `--help` says.
pub(crate) const HELP: &str = "\
cargo bench -p sockeye-benches --bench tls -- [flags]

  --only PART        scenarios whose name has this part; can be given again
  --contender NAME   bare, bare-alike, sockeye or reqwest alone
  --rounds N         measured rounds (20)
  --units N          handshakes, clients or requests a turn
  --json FILE        write the result there
  --quick            a smoke run of seconds
  --once             one turn of everything without measuring, for a profiler

A complete run writes benches/results/tls.json unless told otherwise; a narrowed one writes what --json names.";

/// Where a complete run leaves its result.
const RESULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/tls.json");
