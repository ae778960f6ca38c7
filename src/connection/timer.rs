//! One timer that many waits share (design D8, ruling 19).
//!
//! It is armed at the first wait, set anew only to an earlier moment, and armed again when it fires before the limit that
//! counts. So a connection that waits for thousands of answers touches the timer wheel about once in ten seconds.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is made when it is first needed.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready once `at` has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        // Without a runtime there is nothing to wait with; a body may be read outside of one.
        if self.0.is_none() && Handle::try_current().is_err() {
            return Poll::Pending;
        }
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }

    /// Lets go of the waker of whoever waited last, which would keep its task's memory while the connection is idle.
    pub(crate) fn forget_waker(&mut self) {
        if Handle::try_current().is_err() {
            self.0 = None;
        }
        if let Some(sleep) = &mut self.0 {
            let _ = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}
