//! The words of the report that are this bench's own.

use crate::scenario::{Scenario, Work};

/// How the numbers come about, in every output.
pub(crate) const METHOD: &str = "ratios are medians of the ratios within each round, because the \
    machine is noisy; absolute numbers are medians over the rounds; CPU time is the client \
    process's own, user and system; a client of one thread shares one core with the server \
    except when downloading and uploading; \
    allocations are counted in a separate run";

/// The scenario in words.
pub(crate) fn title(scenario: &Scenario) -> String {
    let work = match scenario.work {
        Work::Get => "GET",
        Work::Post => "POST",
        Work::Download => "download in chunks",
        Work::Upload => "upload of a stream",
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

/// The unit that CPU time, rate and allocations are divided by, and the same short enough for the head of a
/// column.
pub(crate) fn unit(work: Work) -> (&'static str, &'static str) {
    match work {
        Work::Get | Work::Post => ("request", "req"),
        Work::Download | Work::Upload => ("MiB", "MiB"),
    }
}
