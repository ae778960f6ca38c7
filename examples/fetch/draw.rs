//! Draws with text: a waterfall of steps, a table, and the progress of a download.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Bars under each other, each beginning where the one before it ends, with a scale in milliseconds above them.
pub(crate) fn waterfall(steps: &[(&str, Duration)]) -> String {
    let total: Duration = steps.iter().map(|(_, took)| *took).sum();
    // Steps that took no time at all would otherwise divide by zero below.
    let column = (total.as_secs_f64() / WIDTH as f64).max(f64::MIN_POSITIVE);
    let mut drawing = scale(total);
    let mut begins = Duration::ZERO;
    for (name, took) in steps {
        let ends = begins + *took;
        let at = |moment: Duration| ((moment.as_secs_f64() / column).round() as usize).min(WIDTH);
        let (left, right) = (at(begins).min(WIDTH - 1), at(ends));
        // A step that is too short for a column is a thin line, so that it is seen at all.
        let bar = match right.saturating_sub(left) {
            0 => "▏".to_owned(),
            width => "█".repeat(width),
        };
        let drawn = format!("{:left$}{bar}", "");
        drawing.push_str(&format!(
            "{name:<NAME$}{drawn:<WIDTH$} {:>9}\n",
            millis(*took)
        ));
        begins = ends;
    }
    drawing
}

/// The numbers of the scale, and its line.
fn scale(total: Duration) -> String {
    let mut labels = " ".repeat(NAME);
    let mut line = labels.clone();
    for tick in 0..TICKS {
        let (label, mark) = match tick {
            0 => ("0".to_owned(), '├'),
            _ => (millis(total * tick / TICKS), '┼'),
        };
        labels.push_str(&format!("{label:<TICK_WIDTH$}"));
        line.push(mark);
        line.push_str(&"─".repeat(TICK_WIDTH - 1));
    }
    format!("{labels}{}\n{line}┤\n", millis(total))
}

/// A duration in milliseconds, with as many decimals as are of use.
pub(crate) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    let decimals = match millis {
        m if m < 10.0 => 2,
        m if m < 100.0 => 1,
        _ => 0,
    };
    format!("{millis:.decimals$} ms")
}

/// Columns as wide as their widest cell: the first to the left, the others to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let mut widths = vec![0; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => text.push_str(&format!("{cell:<width$}")),
                _ => text.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push('\n');
    }
    text
}

/// The progress of a download: one line on a terminal's stderr that is drawn over and over. It shows up only for a
/// download that is long, and never where it would end up in a log.
pub(crate) struct Progress {
    wanted: bool,
    begun: Instant,
    drawn: Option<Instant>,
    received: u64,
    expected: Option<u64>,
}

impl Progress {
    /// `to_terminal` says that the body itself is shown on a terminal, where a second thing drawn would be in its way.
    pub(crate) fn new(expected: Option<u64>, to_terminal: bool) -> Self {
        Self {
            wanted: !to_terminal && io::stderr().is_terminal(),
            begun: Instant::now(),
            drawn: None,
            received: 0,
            expected,
        }
    }

    /// Counts bytes that came, and draws if it is time to.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.received += bytes as u64;
        if !self.wanted {
            return;
        }
        let now = Instant::now();
        let due = match self.drawn {
            Some(last) => now - last >= REDRAW,
            None => self.received >= LONG_BYTES || now - self.begun >= LONG_TIME,
        };
        if due {
            self.drawn = Some(now);
            self.draw("");
        }
    }

    /// Draws the last state, so that the line that stays is the true one. Nothing if nothing was drawn.
    pub(crate) fn finish(&self) {
        if self.drawn.is_some() {
            self.draw("\n");
        }
    }

    fn draw(&self, end: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = if seconds > 0.0 {
            self.received as f64 / seconds
        } else {
            0.0
        };
        let mut line = size(self.received as f64);
        if let Some(expected) = self.expected.filter(|expected| *expected > 0) {
            let percent = self.received.saturating_mul(100) / expected;
            line.push_str(&format!(" of {}  {percent} %", size(expected as f64)));
        }
        // The carriage return goes back to the line's beginning, the sequence behind clears what the last drawing left.
        let mut stderr = io::stderr();
        let _ = write!(stderr, "\r{line}  {}/s\x1b[K{end}", size(rate));
        let _ = stderr.flush();
    }
}

/// A number of bytes in the unit that suits it.
fn size(bytes: f64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "KiB", "MiB"] {
        if size < 1024.0 {
            let decimals = usize::from(unit != "bytes");
            return format!("{size:.decimals$} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.1} GiB")
}

/// Columns of the names.
const NAME: usize = 11;
/// Columns of the bars: a multiple of the ticks.
const WIDTH: usize = TICKS as usize * TICK_WIDTH;
const TICKS: u32 = 4;
const TICK_WIDTH: usize = 15;

/// From this many bytes, or after this time, a download is long.
const LONG_BYTES: u64 = 2 * 1024 * 1024;
const LONG_TIME: Duration = Duration::from_secs(1);
/// At most ten drawings a second.
const REDRAW: Duration = Duration::from_millis(100);
