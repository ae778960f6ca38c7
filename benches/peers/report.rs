//! The report: a table for people, JSON for programs, and the numbers the chart is drawn from.
//!
//! It only arranges what `measure.rs` found; the drawing is in `chart.rs`.

use std::fmt;

use serde::Serialize;

use crate::contenders::Contender;
use crate::measure::{Sample, Series, median_of_ratios};
use crate::median::Median;
use crate::scenario::{Amount, Scenario};
use crate::words::{METHOD, title, unit};

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
        let (unit, short_unit) = unit(scenario.work);
        Self {
            name: scenario.name,
            title: title(scenario),
            unit,
            short_unit,
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
            "  {:<11}{:>11}{:>9}{:>9}{:>15}{:>11}{:>10}{:>13}{:>15}{:>15}{:>11}",
            "",
            format!("CPU us/{unit}"),
            "of user",
            "x bare",
            "(quartiles)",
            "x reqwest",
            format!("{unit}/s"),
            "rate x bare",
            "(quartiles)",
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
        write!(
            f,
            "  {:<11}{:>11}{:>9}{:>9}{:>15}{:>11}{:>10}{:>13}{:>15}{:>15}{:>11.1}",
            self.name,
            number(self.cpu_microseconds, 2),
            number(self.user_microseconds, 2),
            number(self.cpu_to_bare, 2),
            quartiles(self.cpu_to_bare),
            number(self.cpu_to_reqwest, 2),
            number(self.units_per_second, 0),
            number(self.rate_to_bare, 2),
            quartiles(self.rate_to_bare),
            number(self.rate_to_reqwest, 2),
            self.allocations,
        )
    }
}

fn number(value: Option<Median>, decimals: usize) -> String {
    value.map_or_else(
        || "-".to_owned(),
        |value| format!("{:.decimals$}", value.median),
    )
}

fn quartiles(value: Option<Median>) -> String {
    value.map_or_else(
        || "-".to_owned(),
        |value| format!("({:.2}-{:.2})", value.lower_quartile, value.upper_quartile),
    )
}

fn find(all: &[Series], contender: Contender) -> Option<&Series> {
    all.iter().find(|series| series.contender == contender)
}
