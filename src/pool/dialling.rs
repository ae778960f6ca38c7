//! The dials of one origin that run, and the time in which none does (spec pool R-DIAL, ruling 4).
//!
//! Books alone: `host.rs` decides when a dial starts, whom its outcome serves, and who hears of its failure. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::line::Place;

/// Names a dial of one origin.
pub(crate) type DialId = u64;

/// The dials that run.
#[derive(Debug)]
pub(super) struct Dialling {
    /// The one that began first stands first.
    running: Vec<Dial>,
    last: DialId,
    undialled: Duration,
    undialled_since: Option<Instant>,
}

/// A dial that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dial {
    pub(super) id: DialId,
    /// The waiter for whom it was started, which another connection may serve first. `None`: it is for all who wait.
    pub(super) cause: Option<Place>,
    /// Nobody in line called for it.
    pub(super) spare: bool,
    pub(super) started: Instant,
}

impl Dialling {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            running: Vec::new(),
            last: 0,
            undialled: Duration::ZERO,
            undialled_since: Some(now),
        }
    }

    /// How many run.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The one that began first.
    pub(super) fn oldest(&self) -> Option<&Dial> {
        self.running.first()
    }

    /// For whom dials run by name, who may have been served since.
    pub(super) fn causes(&self) -> impl Iterator<Item = Place> {
        self.running.iter().filter_map(|dial| dial.cause)
    }

    pub(super) fn begin(&mut self, cause: Option<Place>, spare: bool, now: Instant) -> DialId {
        self.undialled = self.undialled(now);
        self.undialled_since = None;
        self.last += 1;
        self.running.push(Dial {
            id: self.last,
            cause,
            spare,
            started: now,
        });
        self.last
    }

    /// A dial runs no longer, whatever came of it.
    pub(super) fn end(&mut self, id: DialId, now: Instant) -> Option<Dial> {
        let at = self.running.iter().position(|dial| dial.id == id)?;
        let dial = self.running.remove(at);
        if self.running.is_empty() {
            self.undialled_since = Some(now);
        }
        Some(dial)
    }

    /// Time so far in which no dial ran; only differences mean anything.
    pub(super) fn undialled(&self, now: Instant) -> Duration {
        let running = self
            .undialled_since
            .map(|since| now.saturating_duration_since(since));
        self.undialled + running.unwrap_or_default()
    }

    /// How many more dials may join the oldest by now, one each time that `hedge` has passed (spec pool R-ALPN-1).
    pub(super) fn hedges_due(&self, hedge: Duration, now: Instant) -> usize {
        self.oldest().map_or(0, |oldest| {
            let due = |at: &u32| oldest.hedge_time(hedge, *at) <= now;
            (1..=MAX_HEDGES).take_while(due).count()
        })
    }

    /// When the next one may join, if one still may.
    pub(super) fn next_hedge(&self, hedge: Duration) -> Option<Instant> {
        let next = u32::try_from(self.len())
            .ok()
            .filter(|next| *next <= MAX_HEDGES)?;
        Some(self.oldest()?.hedge_time(hedge, next))
    }
}

impl Dial {
    fn hedge_time(&self, hedge: Duration, at: u32) -> Instant {
        let after = hedge.checked_mul(at).unwrap_or(FAR);
        self.started + after.min(FAR)
    }
}

/// Dials that may join the first one while the protocol is unknown.
const MAX_HEDGES: u32 = 3;

/// Stands in for a time that the clock cannot express.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
