//! The chart: horizontal bars of CPU time as a multiple of bare sockets, one group a scenario.
//!
//! Plain SVG written by hand: no script, no font of its own, and readable on light and dark pages,
//! because it brings its background along.

use std::fmt::{self, Write as _};

use crate::report::{ContenderReport, Report, ScenarioReport};

/// Draws the report; None if the bare sockets, which are the measure of the bars, did not run.
pub(crate) fn draw(report: &Report) -> Option<String> {
    let scenarios = &report.scenarios;
    let longest = scenarios
        .iter()
        .flat_map(|scenario| &scenario.contenders)
        .map(|contender| contender.cpu_to_bare.map(|ratio| ratio.median))
        .try_fold(1.0_f64, |longest, ratio| {
            ratio.map(|ratio| longest.max(ratio))
        })?;
    let mut svg = String::new();
    write_chart(&mut svg, scenarios, longest).ok()?;
    Some(svg)
}

fn write_chart(svg: &mut String, scenarios: &[ScenarioReport], longest: f64) -> fmt::Result {
    let rows: usize = scenarios
        .iter()
        .map(|scenario| scenario.contenders.len())
        .sum();
    let height = TOP + scenarios.len() as f64 * GROUP_HEAD + rows as f64 * ROW + MARGIN;
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\">"
    )?;
    writeln!(
        svg,
        "<title>CPU time of HTTP clients as a multiple of bare sockets</title>"
    )?;
    writeln!(
        svg,
        "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"
    )?;
    text(
        svg,
        MARGIN,
        26.0,
        "font-size=\"15\" font-weight=\"bold\"",
        "Client CPU time, less is better",
    )?;
    text(
        svg,
        MARGIN,
        44.0,
        "fill=\"#555555\"",
        "as a multiple of bare sockets (median of the ratios of each round), and in microseconds",
    )?;
    let mut y = TOP;
    for scenario in scenarios {
        y += GROUP_HEAD;
        text(
            svg,
            MARGIN,
            y - 7.0,
            "font-weight=\"bold\"",
            &scenario.title,
        )?;
        for contender in &scenario.contenders {
            write_bar(svg, scenario, contender, y, longest)?;
            y += ROW;
        }
    }
    writeln!(svg, "</svg>")
}

fn write_bar(
    svg: &mut String,
    scenario: &ScenarioReport,
    contender: &ContenderReport,
    y: f64,
    longest: f64,
) -> fmt::Result {
    let ratio = contender.cpu_to_bare.map_or(0.0, |ratio| ratio.median);
    let cpu = contender.cpu_microseconds.map_or(0.0, |cpu| cpu.median);
    let length = ratio / longest * BAR_ROOM;
    let baseline = y + ROW - 5.0;
    text(
        svg,
        BAR_START - 8.0,
        baseline,
        "text-anchor=\"end\"",
        contender.name,
    )?;
    writeln!(
        svg,
        "<rect x=\"{BAR_START}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
        y + 1.0,
        ROW - 3.0,
        colour(contender.name),
    )?;
    let label = format!("{ratio:.2}x, {cpu:.1} us/{}", scenario.unit);
    text(
        svg,
        BAR_START + length + 6.0,
        baseline,
        "fill=\"#333333\"",
        &label,
    )
}

/// A line of text. Nothing that is written here needs escaping: every word is the bench's own.
fn text(svg: &mut String, x: f64, y: f64, style: &str, words: &str) -> fmt::Result {
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>"
    )
}

fn colour(contender: &str) -> &'static str {
    match contender {
        "bare" => "#b8bec6",
        "sockeye" => "#d6452b",
        "hyper" => "#5b8db8",
        "hyper-util" => "#3f6f99",
        _ => "#2b4c6b",
    }
}

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 16.0;
const TOP: f64 = 56.0;
const GROUP_HEAD: f64 = 26.0;
const ROW: f64 = 17.0;
const BAR_START: f64 = 100.0;
/// What is left for the longest bar beside the names and the label behind it.
const BAR_ROOM: f64 = 500.0;
