//! Dials that run: tasks of the host, not of the call that caused them (spec pool R-DIAL-1).
//!
//! A dial finishes or times out even if its caller is gone; its connection then serves whoever is first in line. Each dial
//! owns a permit from its first moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Version;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::Host;
use super::capacity::Permit;
use super::host::DialId;
use crate::connection::{Driver, Http1, Keeper, Opened, Prepared, Session, open};
use crate::deadline::{Expired, Setting};
use crate::error::{Phase, Result};
use crate::socket::{Step, Steps};

/// The dials of one host.
#[derive(Default)]
pub(super) struct Dials(Mutex<Running>);

#[derive(Default)]
struct Running {
    dials: Vec<RunningDial>,
    /// The client was closed or the runtime has ended: no dial can start any more.
    closed: bool,
}

struct RunningDial {
    id: DialId,
    steps: Arc<Steps>,
    task: Option<AbortHandle>,
}

impl Dials {
    /// Starts the task of a dial that the host has counted. The lock is not held while the task is made: a runtime that is
    /// ending drops it on the spot, and with it the dial, which then leaves these books.
    pub(super) fn start(&self, host: &Arc<Host>, id: DialId) {
        let steps = Arc::new(Steps::new(host.observers().cloned()));
        host.dial_begins(steps.connection());
        let (key, tether) = host.tethers().add(Instant::now());
        let dial = Dial {
            host: Arc::clone(host),
            id,
            connection: steps.connection(),
            keeper: Some(Keeper::new(
                tether,
                Box::new(Permit::new(Arc::downgrade(host), key)),
            )),
            stage: Stage::New,
        };
        {
            let mut running = self.lock();
            if running.closed {
                drop(running);
                return drop(dial);
            }
            running.dials.push(RunningDial {
                id,
                steps: Arc::clone(&steps),
                task: None,
            });
        }
        let task = host.runtime().spawn(dial.run(steps)).abort_handle();
        let mut running = self.lock();
        if running.closed {
            task.abort();
        }
        if let Some(dial) = running.dials.iter_mut().find(|dial| dial.id == id) {
            dial.task = Some(task);
        }
    }

    /// Whether no dial can start any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The step that a dial is at.
    pub(super) fn phase(&self, id: DialId) -> Phase {
        let running = self.lock();
        let dial = running.dials.iter().find(|dial| dial.id == id);
        phase(dial.map_or(Step::Resolve, |dial| dial.steps.now()))
    }

    /// Ends all dials, and starts none any more; permits come back as the tasks end.
    pub(super) fn close(&self) {
        let tasks: Vec<_> = {
            let mut running = self.lock();
            running.closed = true;
            running
                .dials
                .iter()
                .filter_map(|dial| dial.task.clone())
                .collect()
        };
        for task in tasks {
            task.abort();
        }
    }

    fn ended(&self, id: DialId) {
        self.lock().dials.retain(|dial| dial.id != id);
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running dial. Dropped unfinished, as when its runtime ends, it still leaves the host's books.
struct Dial {
    host: Arc<Host>,
    id: DialId,
    /// The number of the connection that comes of it.
    connection: u64,
    keeper: Option<Keeper>,
    stage: Stage,
}

/// What a dial has made.
pub(super) enum Made {
    Http1(Box<Http1>),
    Http2(Arc<Session>, Box<Driver>),
    /// It could speak HTTP/2, and nobody needs another session.
    Superfluous(Prepared),
}

impl Made {
    fn protocol(&self) -> Version {
        match self {
            Self::Http1(_) => Version::HTTP_11,
            Self::Http2(..) | Self::Superfluous(_) => Version::HTTP_2,
        }
    }
}

/// How far its task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It was never polled; when it is dropped so, its runtime takes no more tasks.
    New,
    Running,
    Ended,
}

impl Dial {
    async fn run(mut self, steps: Arc<Steps>) {
        self.stage = Stage::Running;
        let outcome = self.open(&steps).await;
        self.stage = Stage::Ended;
        self.host.dials().ended(self.id);
        match &outcome {
            Ok(made) => self.host.dial_ends(self.connection, made.protocol()),
            Err(error) => self.host.dial_fails(self.connection, Some(error)),
        }
        self.host.dialled(self.id, outcome);
    }

    async fn open(&mut self, steps: &Steps) -> Result<Made> {
        let Some(keeper) = self.keeper.take() else {
            unreachable!("a dial runs once");
        };
        let shared = self.host.shared();
        let opening = make(&self.host, steps, keeper);
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
            Err(self.host.timed_out(expired))
        })
    }
}

/// Opens what the origin speaks.
async fn make(host: &Host, steps: &Steps, keeper: Keeper) -> Result<Made> {
    match open(host, steps, keeper).await? {
        Opened::Http1(connection) => Ok(Made::Http1(connection)),
        Opened::Http2(prepared) if !host.lock().needs_session(Instant::now()) => {
            Ok(Made::Superfluous(prepared))
        }
        Opened::Http2(prepared) => {
            let (session, driver) = prepared.begin().await?;
            Ok(Made::Http2(session, Box::new(driver)))
        }
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        match self.stage {
            Stage::New => self.host.dials().close(),
            Stage::Running => {}
            Stage::Ended => return,
        }
        self.host.dials().ended(self.id);
        self.host.dial_fails(self.connection, None);
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
