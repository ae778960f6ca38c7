//! The report: a table for people and JSON for programs.
//!
//! It only arranges what `measure.rs` found.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::median::Median;
use crate::options::Sizes;

/// How the numbers come about, in every output.
pub(crate) const METHOD: &str = "ratios are medians of the ratios within each round, because the \
    machine is noisy; absolute numbers are medians over the rounds; CPU time is all of the client \
    process's own, on a peer without sockets that answers at once; resident memory is the anonymous \
    part, of a process for each turn; heap and allocations are counted in separate runs";

/// The whole comparison.
#[derive(Serialize)]
pub(crate) struct Report {
    method: &'static str,
    cores: usize,
    rounds: usize,
    rounds_of_memory_and_connections: usize,
    requests_per_round: usize,
    /// One entry a figure.
    pub(crate) figures: Vec<FigureReport>,
}

impl Report {
    /// A report without figures so far.
    pub(crate) fn new(sizes: Sizes) -> Self {
        Self {
            method: METHOD,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            rounds: sizes.rounds,
            rounds_of_memory_and_connections: sizes.few_rounds,
            requests_per_round: sizes.requests,
            figures: Vec::new(),
        }
    }
}

/// One figure.
pub(crate) struct FigureReport {
    /// Its name.
    pub(crate) name: &'static str,
    /// The figure in words.
    pub(crate) title: String,
    /// What each cell of a row is.
    pub(crate) columns: Vec<Column>,
    /// One row a contender.
    pub(crate) rows: Vec<Row>,
}

/// What a cell is.
pub(crate) struct Column {
    /// Its name in JSON.
    key: &'static str,
    /// Its head in the table.
    head: &'static str,
    /// How it is rounded there.
    decimals: usize,
}

impl Column {
    /// A column.
    pub(crate) fn new(key: &'static str, head: &'static str, decimals: usize) -> Self {
        Self {
            key,
            head,
            decimals,
        }
    }
}

/// One contender's numbers.
pub(crate) struct Row {
    /// The contender's name.
    pub(crate) contender: &'static str,
    /// As many as there are columns.
    pub(crate) cells: Vec<Cell>,
}

/// One number.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    /// It was taken once a round.
    Median(Median),
    /// It does not change from round to round, or only the worst counts.
    Number(f64),
    /// It was not taken.
    Absent,
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<Option<f64>> for Cell {
    fn from(number: Option<f64>) -> Self {
        number.map_or(Self::Absent, Self::Number)
    }
}

impl From<Option<Median>> for Cell {
    fn from(median: Option<Median>) -> Self {
        median.map_or(Self::Absent, Self::Median)
    }
}

impl Cell {
    fn text(self, decimals: usize) -> String {
        match self {
            Self::Median(Median {
                median,
                lower_quartile,
                upper_quartile,
            }) => format!(
                "{median:.decimals$} ({lower_quartile:.decimals$}-{upper_quartile:.decimals$})"
            ),
            Self::Number(number) => format!("{number:.decimals$}"),
            Self::Absent => "-".to_owned(),
        }
    }
}

impl Serialize for FigureReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let contenders: Vec<_> = self.rows.iter().map(|row| Keyed(self, row)).collect();
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("name", self.name)?;
        map.serialize_entry("title", &self.title)?;
        map.serialize_entry("contenders", &contenders)?;
        map.end()
    }
}

/// A row with the names of its figure's columns.
struct Keyed<'a>(&'a FigureReport, &'a Row);

impl Serialize for Keyed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(figure, row) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", row.contender)?;
        for (column, cell) in figure.columns.iter().zip(&row.cells) {
            map.serialize_entry(column.key, cell)?;
        }
        map.end()
    }
}

impl fmt::Display for FigureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.title)?;
        let mut lines = vec!["  ".to_owned() + &" ".repeat(NAME)];
        for row in &self.rows {
            lines.push(format!("  {:<NAME$}", row.contender));
        }
        for (position, column) in self.columns.iter().enumerate() {
            let mut cells = vec![column.head.to_owned()];
            for row in &self.rows {
                let cell = row.cells.get(position).copied().unwrap_or(Cell::Absent);
                cells.push(cell.text(column.decimals));
            }
            let width = cells.iter().map(String::len).max().unwrap_or_default();
            for (line, cell) in lines.iter_mut().zip(cells) {
                line.push_str(&format!("  {cell:>width$}"));
            }
        }
        for line in lines {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// The width of the contenders' names.
const NAME: usize = 10;
