//! The report: a table for people, JSON for programs, and the numbers the chart is drawn from.
//!
//! It only arranges what `measure.rs` found; the drawing is in `chart.rs`.

use std::fmt;

use serde::Serialize;

use crate::contenders::Contender;
use crate::measure::{Sample, Series, median_of_ratios};
use crate::median::Median;
use crate::scenario::{Amount, Scenario, Work};

/// How the numbers come about, in every output.
pub(crate) const METHOD: &str = "ratios are medians of the ratios within each round, because the \
    machine is noisy; absolute numbers are medians over the rounds; CPU time is the client \
    process's own, user and system; a client of one thread shares one core with the server \
    except when downloading; \
    allocations are counted in a separate run";

/// The whole comparison.
#[derive(Serialize)]
pub(crate) struct Report {
    method: &'static str,
    cores: usize,
    rounds: usize,
    requests_per_round: usize,
    download_mib: u64,
    /// One entry a scenario.
    pub(crate) scenarios: Vec<ScenarioReport>,
}

/// The comparison in one scenario.
#[derive(Serialize)]
pub(crate) struct ScenarioReport {
    name: &'static str,
    /// The scenario in words.
    pub(crate) title: String,
    /// What the numbers are divided by.
    pub(crate) unit: &'static str,
    #[serde(skip)]
    short_unit: &'static str,
    /// One entry a contender.
    pub(crate) contenders: Vec<ContenderReport>,
}

/// One contender in one scenario. Ratios are absent where the contender compared with did not run.
#[derive(Serialize)]
pub(crate) struct ContenderReport {
    /// The contender's name.
    pub(crate) name: &'static str,
    /// CPU time in microseconds a unit.
    pub(crate) cpu_microseconds: Option<Median>,
    user_microseconds: Option<Median>,
    system_microseconds: Option<Median>,
    units_per_second: Option<Median>,
    allocations: f64,
    bytes_allocated: f64,
    /// CPU time as a multiple of the bare sockets'.
    pub(crate) cpu_to_bare: Option<Median>,
    cpu_to_reqwest: Option<Median>,
    user_to_bare: Option<Median>,
    user_to_reqwest: Option<Median>,
    rate_to_bare: Option<Median>,
    rate_to_reqwest: Option<Median>,
}

impl Report {
    /// A report without scenarios so far.
    pub(crate) fn new(rounds: usize, amount: Amount) -> Self {
        Self {
            method: METHOD,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            rounds,
            requests_per_round: amount.requests,
            download_mib: amount.download_mib,
            scenarios: Vec::new(),
        }
    }
}

impl ScenarioReport {
    /// Arranges the series of one scenario.
    pub(crate) fn new(scenario: &Scenario, all: &[Series]) -> Self {
        let bare = find(all, Contender::Bare);
        let reqwest = find(all, Contender::Reqwest);
        Self {
            name: scenario.name,
            title: title(scenario),
            unit: unit(scenario.work),
            short_unit: short_unit(scenario.work),
            contenders: all
                .iter()
                .map(|series| ContenderReport::new(series, bare, reqwest))
                .collect(),
        }
    }
}

impl ContenderReport {
    fn new(series: &Series, bare: Option<&Series>, reqwest: Option<&Series>) -> Self {
        let absolute = |value: fn(&Sample) -> f64| Median::of(series.samples.iter().map(value));
        let ratio = |to: Option<&Series>, value| median_of_ratios(series, to?, value);
        let user = |sample: &Sample| sample.user;
        let rate = |sample: &Sample| sample.rate;
        Self {
            name: series.contender.name(),
            cpu_microseconds: absolute(Sample::cpu),
            user_microseconds: absolute(user),
            system_microseconds: absolute(|sample| sample.system),
            units_per_second: absolute(rate),
            allocations: series.allocations,
            bytes_allocated: series.bytes_allocated,
            cpu_to_bare: ratio(bare, Sample::cpu),
            cpu_to_reqwest: ratio(reqwest, Sample::cpu),
            user_to_bare: ratio(bare, user),
            user_to_reqwest: ratio(reqwest, user),
            rate_to_bare: ratio(bare, rate),
            rate_to_reqwest: ratio(reqwest, rate),
        }
    }
}

impl fmt::Display for ScenarioReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.short_unit;
        writeln!(f, "{}", self.title)?;
        writeln!(
            f,
            "  {:<11}{:>11}{:>9}{:>9}{:>15}{:>11}{:>10}{:>15}{:>11}",
            "",
            format!("CPU us/{unit}"),
            "of user",
            "x bare",
            "(quartiles)",
            "x reqwest",
            format!("{unit}/s"),
            "rate x reqwest",
            format!("alloc/{unit}"),
        )?;
        for contender in &self.contenders {
            writeln!(f, "{contender}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ContenderReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quartiles = self.cpu_to_bare.map_or_else(
            || "-".to_owned(),
            |ratio| format!("({:.2}-{:.2})", ratio.lower_quartile, ratio.upper_quartile),
        );
        write!(
            f,
            "  {:<11}{:>11}{:>9}{:>9}{:>15}{:>11}{:>10}{:>15}{:>11.1}",
            self.name,
            number(self.cpu_microseconds, 2),
            number(self.user_microseconds, 2),
            number(self.cpu_to_bare, 2),
            quartiles,
            number(self.cpu_to_reqwest, 2),
            number(self.units_per_second, 0),
            number(self.rate_to_reqwest, 2),
            self.allocations,
        )
    }
}

/// The scenario in words.
fn title(scenario: &Scenario) -> String {
    let work = match scenario.work {
        Work::Get => "GET",
        Work::Post => "POST",
        Work::Download => "download in chunks",
    };
    let threads = if scenario.threads == 1 {
        "thread"
    } else {
        "threads"
    };
    format!(
        "{work}, {} concurrent, {} {threads}",
        scenario.concurrent, scenario.threads
    )
}

/// The unit that CPU time, rate and allocations are divided by.
fn unit(work: Work) -> &'static str {
    match work {
        Work::Get | Work::Post => "request",
        Work::Download => "MiB",
    }
}

/// The same, short enough for the head of a column.
fn short_unit(work: Work) -> &'static str {
    match work {
        Work::Get | Work::Post => "req",
        Work::Download => "MiB",
    }
}

fn number(value: Option<Median>, decimals: usize) -> String {
    value.map_or_else(
        || "-".to_owned(),
        |value| format!("{:.decimals$}", value.median),
    )
}

fn find(all: &[Series], contender: Contender) -> Option<&Series> {
    all.iter().find(|series| series.contender == contender)
}
