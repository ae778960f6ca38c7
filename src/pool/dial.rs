//! Dials that run: tasks of the host, not of the call that caused them (spec pool R-DIAL-1).
//!
//! A dial finishes or times out even if its caller is gone; its connection then serves whoever is first in line. Each dial
//! owns a permit from its first moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Host;
use super::capacity::Permit;
use super::host::DialId;
use crate::connection::{Connection, open};
use crate::deadline::{Expired, Setting};
use crate::error::{Error, Phase, Result, Sent};
use crate::socket::{Step, Steps};

/// The dials of one host.
#[derive(Default)]
pub(super) struct Dials(Mutex<Running>);

#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    steps: Vec<(DialId, Arc<Steps>)>,
}

impl Dials {
    /// Starts the task of a dial that the host has counted.
    pub(super) fn start(&self, host: &Arc<Host>, id: DialId) {
        let steps = Arc::new(Steps::default());
        let mut running = self.lock();
        while running.tasks.try_join_next().is_some() {}
        running.steps.push((id, Arc::clone(&steps)));
        let dial = Dial {
            host: Arc::clone(host),
            id,
            permit: Some(Permit::new(Arc::downgrade(host))),
        };
        running.tasks.spawn_on(dial.run(steps), host.runtime());
    }

    /// The step that a dial is at.
    pub(super) fn phase(&self, id: DialId) -> Phase {
        let running = self.lock();
        let steps = running.steps.iter().find(|(known, _)| *known == id);
        phase(steps.map_or(Step::Resolve, |(_, steps)| steps.now()))
    }

    /// Ends all dials; their permits come back as their tasks end.
    pub(super) fn abort(&self) {
        self.lock().tasks.abort_all();
    }

    fn ended(&self, id: DialId) {
        self.lock().steps.retain(|(known, _)| *known != id);
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running dial. Dropped unfinished, as when its runtime ends, it still leaves the host's books.
struct Dial {
    host: Arc<Host>,
    id: DialId,
    permit: Option<Permit>,
}

impl Dial {
    async fn run(mut self, steps: Arc<Steps>) {
        let outcome = self.open(&steps).await;
        self.host.dials().ended(self.id);
        self.host.dialled(self.id, outcome);
    }

    async fn open(&mut self, steps: &Steps) -> Result<Connection> {
        let Some(permit) = self.permit.take() else {
            unreachable!("a dial runs once");
        };
        let shared = self.host.shared();
        let opening = open(
            &shared.dialler,
            self.host.route(),
            steps,
            Arc::clone(&shared.limits),
            Box::new(permit),
        );
        let Some(limit) = shared.connect_timeout else {
            return opening.await;
        };
        // A limit that is too large to add to the clock is no limit.
        if Instant::now().checked_add(limit).is_none() {
            return opening.await;
        }
        timeout(limit, opening).await.unwrap_or_else(|_| {
            let expired = Expired {
                setting: Setting::Connect,
                phase: phase(steps.now()),
                limit,
            };
            Err(Error::timeout(expired, Sent::Nothing))
        })
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        self.host.dials().ended(self.id);
        self.host.dial_dropped(self.id);
    }
}

fn phase(step: Step) -> Phase {
    match step {
        Step::Resolve => Phase::Resolve,
        Step::Connect => Phase::Connect,
        Step::Tls => Phase::Tls,
    }
}
