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
use super::entry::Loan;
use super::host::{Lent, Progress, Refusal, Want};
use super::lease::Lease;
use super::line::{Place, Ticket};
use crate::connection::Timer;
use crate::deadline::{Deadline, NextLimit};
use crate::error::{Error, ErrorKind, Phase, Result, Sent};

/// What a waiter takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) want: Want,
    /// The kernel is asked whether a kept connection still stands.
    pub(super) careful: bool,
    /// The place of an earlier try, which another keeps.
    pub(super) ticket: Option<Ticket>,
}

impl Claim {
    /// A new connection.
    pub(super) fn of_new() -> Self {
        Self {
            want: Want::NewerThan(0),
            careful: false,
            ticket: None,
        }
    }
}

/// A place in line, left when it is dropped.
pub(super) struct Wait<'a> {
    host: &'a Arc<Host>,
    deadline: &'a Deadline<'a>,
    place: Place,
    claim: Claim,
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
        claim: Claim,
        now: Instant,
    ) -> Result<Self> {
        if host.shared().closed.load(Ordering::SeqCst) {
            return Err(client_closed());
        }
        let ticket = claim.ticket.unwrap_or_else(|| host.shared().ticket());
        let mut expired = Vec::new();
        let mut state = host.lock();
        let place = match state.enqueue(ticket, claim.want, now, &mut expired) {
            Ok(place) => place,
            Err(Refusal::Closed) => return Err(client_closed()),
            Err(Refusal::Full) => {
                let limit = host.shared().limits.max_pending.map_or(0, usize::from);
                return Err(Error::new(ErrorKind::PoolFull, Some(Phase::Pool), Sent::Nothing)
                    .saying(format!("{limit} calls wait for a connection to this origin already (Limits::max_pending)")));
            }
        };
        let undialled = state.undialled(now);
        drop(state);
        for connection in expired {
            host.discard_expired(connection, now);
        }
        let wait = Self {
            host,
            deadline,
            place,
            claim,
            timer: Timer::default(),
            joined: now,
            undialled,
        };
        host.pump();
        Ok(wait)
    }

    /// A connection, or why there is none.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Loan>> {
        loop {
            let now = Instant::now();
            let (progress, doubtful) = {
                let mut state = self.host.lock();
                let progress = state.poll(self.place, cx.waker(), now);
                (progress, state.is_doubtful(now))
            };
            let (limit, again) = match progress {
                // A session that has ended meanwhile fails the exchange, which counts as a try and says why. Waiting on would
                // dial again and again, were that the peer's way.
                Progress::Served(Ok(Lent::Slot(id, session))) => {
                    return Poll::Ready(Ok(Lent::Slot(id, session)));
                }
                Progress::Served(Ok(Lent::Connection(mut connection))) => {
                    // A new one is taken as it is: were it dead, another dial would hardly fare better, and a peer that
                    // accepts and closes could keep the waiter dialling for ever.
                    if !connection.is_reused() {
                        return Poll::Ready(Ok(Lent::Connection(connection)));
                    }
                    let careful = self.claim.careful || doubtful;
                    let probe = self.host.closeness(&connection, careful, now);
                    match self.host.probe(&mut connection, probe) {
                        Ok(()) => return Poll::Ready(Ok(Lent::Connection(connection))),
                        Err(why) => {
                            // Dead already: back to the same place in line (spec pool R-Q-3).
                            self.host.discard(connection, why);
                            if let Err(error) = self.wait_again(now) {
                                return Poll::Ready(Err(error));
                            }
                            continue;
                        }
                    }
                }
                Progress::Served(Err(error)) => return Poll::Ready(Err(error)),
                Progress::Waiting {
                    dialling: Some((id, started)),
                    hedge_at,
                    undialled,
                } => {
                    let phase = self.host.dials().phase(id);
                    let since = started.max(self.joined);
                    // The dial may end for somebody else, and nobody tells the others: then the pool limit counts on.
                    let pool = self.pool_limit(undialled, now);
                    let again = pool.map(|pool| pool.at.max(now + LOOK_AGAIN));
                    // A hedge for which there is no room stays due; that is no reason to ask without a pause.
                    let hedge = hedge_at.map(|at| at.max(now + MILLI));
                    let again = again.into_iter().chain(hedge).min();
                    (self.deadline.next(phase, Some(since)), again)
                }
                Progress::Waiting {
                    dialling: None,
                    undialled,
                    ..
                } => (self.pool_limit(undialled, now), None),
            };
            let limit_at = limit.as_ref().map(|limit| limit.at);
            let Some(at) = limit_at.into_iter().chain(again).min() else {
                return Poll::Pending;
            };
            if self.timer.poll(cx, at).is_pending() {
                return Poll::Pending;
            }
            let Some(limit) = limit.filter(|limit| limit.at <= at) else {
                // Another dial may be due.
                self.host.pump();
                continue;
            };
            // What was delivered at the last moment wins over the limit (spec pool R-LIM-2).
            return Poll::Ready(match self.leave() {
                Some(outcome) => outcome,
                None => Err(self.host.timed_out(limit.expired)),
            });
        }
    }

    /// Counts the time without a dial (ruling 4).
    fn pool_limit(&self, undialled: Duration, now: Instant) -> Option<NextLimit> {
        let waited = undialled.saturating_sub(self.undialled);
        let since = now.checked_sub(waited).unwrap_or(now);
        self.deadline.next(Phase::Pool, Some(since))
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.place.ticket
    }

    /// Goes back to the same place, because what was served there is of no use.
    fn wait_again(&self, now: Instant) -> Result<()> {
        let mut expired = Vec::new();
        let mut state = self.host.lock();
        state.enqueue_again(self.place, self.claim.want, now, &mut expired);
        drop(state);
        for connection in expired {
            self.host.discard_expired(connection, now);
        }
        if self.host.shared().closed.load(Ordering::SeqCst) {
            return Err(client_closed());
        }
        self.host.pump();
        self.host.make_room();
        Ok(())
    }

    fn leave(&mut self) -> Option<Result<Loan>> {
        let left = self.host.lock().leave(self.place);
        if self.host.shared().capacity.is_starving() {
            self.host.shared().capacity.forget(self.place.ticket);
            self.host.pump();
        }
        left
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(Ok(lent)) = self.leave() {
            // Delivered, but its receiver is gone: the next in line gets it, or it is idle (spec pool R-Q-2).
            drop(Lease::new(lent, Arc::clone(self.host), None));
        }
    }
}

const MILLI: Duration = Duration::from_millis(1);

/// How soon a waiter for whom a dial runs looks again whether one still does, once its pool limit could strike.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
