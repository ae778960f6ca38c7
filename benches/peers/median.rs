//! The statistics of rounds: their order and their medians.
//!
//! It measures nothing. `measure.rs` calls it here, and the bench `pool` does from its own.

/// The order of a round: rotated by one each time and turned around every other time, so that nobody
/// always runs first, nor always behind the same neighbour.
pub(crate) fn order(round: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count)
        .map(|position| (position + round) % count)
        .collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// A median and the quartiles around it.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Median {
    /// The median.
    pub(crate) median: f64,
    /// The lower quartile.
    pub(crate) lower_quartile: f64,
    /// The upper quartile.
    pub(crate) upper_quartile: f64,
}

impl Median {
    /// The median of `values`; None without any.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            lower_quartile: quantile(&sorted, 0.25)?,
            upper_quartile: quantile(&sorted, 0.75)?,
        })
    }
}

/// The value at `fraction` of the way through, between neighbours where it falls between them.
fn quantile(sorted: &[f64], fraction: f64) -> Option<f64> {
    let position = fraction * sorted.len().checked_sub(1)? as f64;
    let low = *sorted.get(position.floor() as usize)?;
    let high = *sorted.get(position.ceil() as usize)?;
    Some(low + (high - low) * position.fract())
}
