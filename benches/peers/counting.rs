//! One turn whose allocations are counted: what the twin of a bench does when it is asked.
//!
//! The twin has the counting allocator; here is what it is asked, and what it answers. Growing or shrinking an
//! allocation in place counts as one allocation, as it may well move.

use stats_alloc::Stats;

use crate::contenders::Contender;
use crate::scenario::{Amount, Failure, SCENARIOS, Target};

/// Runs the turn that the arguments ask for: the server's address, the scenario, the contender, the number of
/// requests and the MiB of a download. Gives allocations and bytes for each unit of work.
pub(crate) fn count(
    arguments: &[String],
    reading: fn() -> Result<Stats, Failure>,
) -> Result<String, Failure> {
    let [address, scenario, contender, requests, download_mib] = arguments else {
        return Err("started by its bench, not by hand".into());
    };
    let scenario = SCENARIOS
        .iter()
        .find(|known| known.name == scenario)
        .ok_or_else(|| format!("no scenario is named {scenario:?}"))?;
    let amount = Amount {
        requests: requests.parse()?,
        download_mib: download_mib.parse()?,
    };
    let target = Target::new(address.parse()?, scenario, amount)?;
    let turn = Contender::named(contender)?.turn(scenario, amount, &target, reading)?;
    let Stats {
        allocations,
        reallocations,
        bytes_allocated,
        ..
    } = turn.after - turn.before;
    Ok(format!(
        "{} {}",
        (allocations + reallocations) as f64 / turn.units,
        bytes_allocated as f64 / turn.units
    ))
}
