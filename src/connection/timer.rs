//! One timer that many waits share (design D8, ruling 19).
//!
//! It is armed at the first wait, set anew only to an earlier moment, and armed again when it fires before the limit that
//! counts. So a connection that waits for thousands of answers touches the timer wheel about once in ten seconds.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is made when it is first needed.
#[derive(Default)]
pub(crate) struct Timer(Option<Armed>);

struct Armed {
    sleep: Pin<Box<Sleep>>,
    runtime: Id,
}

impl Timer {
    /// Ready once `at` has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        if self.0.is_none() {
            // Without a runtime there is nothing to wait with; a body may be read outside of one.
            let Ok(runtime) = Handle::try_current() else {
                return Poll::Pending;
            };
            self.0 = Some(Armed {
                sleep: Box::pin(sleep_until(at)),
                runtime: runtime.id(),
            });
        }
        let Some(Armed { sleep, .. }) = &mut self.0 else {
            return Poll::Pending;
        };
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

    /// Its owner goes back to where it belongs. A timer that was made elsewhere stays behind.
    pub(crate) fn come_home(&mut self, home: Option<Id>) {
        if self.0.as_ref().map(|armed| armed.runtime) != home {
            self.0 = None;
        }
    }

    /// What is polled from here on may be polled elsewhere than before: a body can be carried to another runtime, and the one
    /// that the timer belongs to may have ended, after which it must not be touched.
    pub(crate) fn stay_here(&mut self) {
        let Some(armed) = &self.0 else {
            return;
        };
        let here = Handle::try_current().map(|runtime| runtime.id());
        if here.ok() != Some(armed.runtime) {
            self.0 = None;
        }
    }
}
