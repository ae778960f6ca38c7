//! Waiting in line for a connection (spec pool R-Q, ruling 4).
//!
//! The place is kept by the host's machine; this is the future's side of it. Dropping it leaves the line, and what had been
//! served already goes to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::client_closed;
use super::entry::Host;
use super::host::{Place, Progress, Ticket, Want};
use super::lease::Lease;
use crate::connection::{Connection, Timer};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::socket::Probe;

/// A place in line, left when it is dropped.
pub(super) struct Wait<'a> {
    host: &'a Arc<Host>,
    deadline: &'a Deadline<'a>,
    ticket: Ticket,
    want: Want,
    timer: Timer,
    joined: Instant,
    /// The host's pool clock when the wait began.
    undialled: Duration,
}

impl<'a> Wait<'a> {
    /// Takes a place, and starts a dial if one is called for.
    pub(super) fn join(
        host: &'a Arc<Host>,
        deadline: &'a Deadline<'a>,
        want: Want,
        now: Instant,
    ) -> Result<Self> {
        if host.shared().closed.load(Ordering::SeqCst) {
            return Err(client_closed());
        }
        let ticket = host.shared().next_ticket.fetch_add(1, Ordering::Relaxed);
        let mut state = host.lock();
        match state.enqueue(ticket, want) {
            Place::Taken => {}
            Place::Closed => return Err(client_closed()),
            Place::Full => {
                let limit = host.shared().limits.max_pending.map_or(0, usize::from);
                return Err(Error::new(ErrorKind::PoolFull, Some(Phase::Pool), Sent::Nothing)
                    .saying(format!("{limit} calls wait for a connection to this origin already (Limits::max_pending)")));
            }
        }
        let undialled = state.undialled(now);
        drop(state);
        let wait = Self {
            host,
            deadline,
            ticket,
            want,
            timer: Timer::default(),
            joined: now,
            undialled,
        };
        host.pump();
        Ok(wait)
    }

    /// A connection, or why there is none.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Connection>> {
        loop {
            let now = Instant::now();
            let progress = self.host.lock().poll(self.ticket, cx.waker(), now);
            let limit = match progress {
                Progress::Served(Ok(mut connection)) => {
                    // A new one is taken as it is: were it dead, another dial would hardly fare better, and a peer that
                    // accepts and closes could keep the waiter dialling for ever.
                    if !connection.is_reused() {
                        return Poll::Ready(Ok(connection));
                    }
                    match connection.probe(Probe::Flag) {
                        Ok(()) => {
                            self.host.counters().reused();
                            return Poll::Ready(Ok(connection));
                        }
                        Err(why) => {
                            // Dead already: back to the same place in line (spec pool R-Q-3).
                            self.host.lock().enqueue_again(self.ticket, self.want);
                            self.host.discard(connection, why);
                            if self.host.shared().closed.load(Ordering::SeqCst) {
                                return Poll::Ready(Err(client_closed()));
                            }
                            self.host.pump();
                            continue;
                        }
                    }
                }
                Progress::Served(Err(error)) => return Poll::Ready(Err(error)),
                Progress::Waiting {
                    dialling: Some((id, started)),
                    ..
                } => self
                    .deadline
                    .next(self.host.dials().phase(id), Some(started.max(self.joined))),
                Progress::Waiting {
                    dialling: None,
                    undialled,
                } => {
                    let waited = undialled.saturating_sub(self.undialled);
                    self.deadline
                        .next(Phase::Pool, Some(now.checked_sub(waited).unwrap_or(now)))
                }
            };
            let Some(limit) = limit else {
                return Poll::Pending;
            };
            if self.timer.poll(cx, limit.at).is_pending() {
                return Poll::Pending;
            }
            // What was delivered at the last moment wins over the limit (spec pool R-LIM-2).
            return Poll::Ready(match self.leave() {
                Some(outcome) => outcome,
                None => Err(Error::timeout(limit.expired, Sent::Nothing)),
            });
        }
    }

    fn leave(&mut self) -> Option<Result<Connection>> {
        let left = self.host.lock().leave(self.ticket);
        if self.host.shared().capacity.is_starving() {
            self.host.shared().capacity.forget(self.ticket);
            self.host.pump();
        }
        left
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(Ok(connection)) = self.leave() {
            // Delivered, but its receiver is gone: the next in line gets it, or it is idle (spec pool R-Q-2).
            drop(Lease::new(connection, Arc::clone(self.host)));
        }
    }
}
