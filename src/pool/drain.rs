//! What becomes of a connection whose body is dropped half read (spec pool R-BODY).
//!
//! Dropping cannot wait. So, in this order: what is in the read buffer already; a few reads that need no waiting; and then a
//! task, for a short time and a bounded number of bytes. A body that is not over by then closes its connection, which is what
//! would have happened at once otherwise. Called by a lease that is dropped.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use tokio::time::sleep;

use super::Host;
use crate::connection::{Discard, Discarded, Http1};
use crate::stats::{CloseCause, DrainOutcome};

/// Takes a connection over that [`can be drained`](Http1::can_discard).
pub(super) fn drain(mut connection: Box<Http1>, host: Arc<Host>) {
    let mut buffered = Discard { reads: 0, bytes: 0 };
    match discard_now(&mut connection, &mut buffered) {
        Some(Discarded::End) => return done(connection, &host, DrainOutcome::Buffered),
        Some(Discarded::Failed) => return give_up(connection, &host, CloseCause::Error),
        Some(Discarded::Limit) | None => {}
    }
    let max_drain = host.shared().limits.max_drain;
    let allowed = INLINE_BYTES.min(max_drain);
    let mut inline = Discard {
        reads: INLINE_READS,
        bytes: allowed,
    };
    match discard_now(&mut connection, &mut inline) {
        Some(Discarded::End) => return done(connection, &host, DrainOutcome::Inline),
        Some(Discarded::Failed) => return give_up(connection, &host, CloseCause::Error),
        Some(Discarded::Limit) | None => {}
    }
    let shared = Arc::clone(host.shared());
    let others = shared.drains.fetch_add(1, Ordering::Relaxed);
    host.draining().fetch_add(1, Ordering::Relaxed);
    let task = Drain {
        connection: Some(connection),
        host,
        discard: Discard {
            reads: usize::MAX,
            bytes: max_drain - (allowed - inline.bytes),
        },
    };
    if others < MAX_DRAINS && !shared.closed.load(Ordering::SeqCst) {
        let runtime = task.host.runtime().clone();
        runtime.spawn(task.run());
    }
}

/// As much as can be done without waiting. Unconstrained, because an exhausted budget looks like waiting.
fn discard_now(connection: &mut Http1, discard: &mut Discard) -> Option<Discarded> {
    let discarding = poll_fn(|cx| connection.poll_discard(cx, discard));
    let discarding = pin!(tokio::task::unconstrained(discarding));
    match discarding.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(discarded) => Some(discarded),
        Poll::Pending => None,
    }
}

fn done(mut connection: Box<Http1>, host: &Host, how: DrainOutcome) {
    host.counters().drained(how);
    let (sent, received) = connection.traffic();
    host.count_traffic(sent, received);
    let standing = connection.settle();
    host.give_back(connection, &standing, None);
}

fn give_up(connection: Box<Http1>, host: &Host, why: CloseCause) {
    host.counters().drained(DrainOutcome::GaveUp);
    let (sent, received) = connection.traffic();
    host.count_traffic(sent, received);
    host.discard(connection, why);
}

/// A drain that takes its time. Dropped at any moment, as when its runtime ends, it gives up.
struct Drain {
    connection: Option<Box<Http1>>,
    host: Arc<Host>,
    /// What is left of the limit.
    discard: Discard,
}

impl Drain {
    async fn run(mut self) {
        let shared = Arc::clone(self.host.shared());
        let mut closing = pin!(shared.closing.notified());
        // From here on a close is noticed; one that came before is seen by the flag.
        closing.as_mut().enable();
        if shared.closed.load(Ordering::SeqCst) {
            return;
        }
        let mut time = pin!(sleep(shared.limits.drain_timeout));
        let ended = poll_fn(|cx| {
            if closing.as_mut().poll(cx).is_ready() || time.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            match &mut self.connection {
                Some(connection) => connection
                    .poll_discard(cx, &mut self.discard)
                    .map(|discarded| discarded == Discarded::End),
                None => Poll::Ready(false),
            }
        })
        .await;
        if ended {
            if let Some(connection) = self.connection.take() {
                done(connection, &self.host, DrainOutcome::Task);
            }
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            give_up(connection, &self.host, CloseCause::DrainGaveUp);
        }
        self.host.draining().fetch_sub(1, Ordering::Relaxed);
        self.host.shared().drains.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads in the drop of a body.
const INLINE_READS: usize = 4;

/// Bytes that these may bring.
const INLINE_BYTES: u64 = 64 * 1024;

/// Drains of one client that may run at once; bodies dropped beyond this close their connections.
const MAX_DRAINS: usize = 32;
