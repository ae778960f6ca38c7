//! The words of the report that are this bench's own.

use crate::scenario::{Scenario, Work};

/// How the numbers come about, in every output.
pub(crate) const METHOD: &str = "ratios are medians of the ratios within each round, because the \
    machine is noisy; absolute numbers are medians over the rounds; CPU time is the client \
    process's own, user and system; client and server have a core each; \
    all streams are those of one session; allocations are counted in a separate run";

/// The scenario in words.
pub(crate) fn title(scenario: &Scenario) -> String {
    let Scenario {
        concurrent, bare, ..
    } = scenario;
    let mib = |bytes: u32| bytes / (1024 * 1024);
    let windows = format!(
        "bare with windows of {} and {} MiB",
        mib(bare.stream()),
        mib(bare.connection())
    );
    match scenario.work {
        Work::Get => format!("GET, {concurrent} at a time"),
        Work::Download if scenario.delayed => {
            format!("download in chunks, 10 ms there and back; {windows}, and Sockeye, too")
        }
        Work::Download => format!("download in chunks; {windows}"),
        Work::Upload => "upload in pieces".to_owned(),
    }
}

/// The unit that CPU time, rate and allocations are divided by, and the same short enough for the head of a
/// column.
pub(crate) fn unit(work: Work) -> (&'static str, &'static str) {
    match work {
        Work::Get => ("request", "req"),
        Work::Download | Work::Upload => ("MiB", "MiB"),
    }
}
