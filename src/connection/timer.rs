//! One timer that many waits share (design D8, ruling 19).
//!
//! It is armed at the first wait, set anew only to an earlier moment, and armed again when it fires before the limit that
//! counts. So a connection that waits for thousands of answers touches the timer wheel about once in ten seconds.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Handle, Id};
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is made when it is first needed.
#[derive(Default)]
pub(crate) struct Timer(Option<Armed>);

struct Armed {
    sleep: Pin<Box<Sleep>>,
    runtime: Id,
    /// Whom the sleep wakes, if it is certain that it knows.
    waker: Option<Waker>,
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
                waker: None,
            });
        }
        match &mut self.0 {
            Some(armed) => armed.poll(cx, at),
            None => Poll::Pending,
        }
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

impl Armed {
    fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let Self { sleep, waker, .. } = self;
        let is_known = waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()));
        // Who calls again and again waits with the timer that he waited with before: there is nothing to tell it.
        if is_known && sleep.deadline() <= at && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        // A task that has used up its turn is sent away before the sleep has looked at its waker.
        if !has_budget_remaining() {
            *waker = None;
        } else if !is_known {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future, poll_fn};
    use std::time::Duration;
    use tokio::task::coop::consume_budget;
    use tokio::time::timeout;

    /// Waits with the timer as whoever polls it does, and fails where nobody is woken.
    async fn wait(timer: &mut Timer, at: Instant) {
        let waited = timeout(FAR, poll_fn(|cx| timer.poll(cx, at))).await;
        assert!(waited.is_ok(), "the timer did not wake its last waiter");
        assert_eq!(Instant::now(), at);
    }

    const FAR: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn the_last_to_wait_is_woken_in_time() {
        let mut timer = Timer::default();
        let mut somebody = Context::from_waker(Waker::noop());
        for seconds in [9, 5, 9] {
            let at = Instant::now() + Duration::from_secs(seconds);
            for _ in 0..2 {
                assert!(timer.poll(&mut somebody, at).is_pending());
            }
            wait(&mut timer, at).await;
        }
        // One who is known asks for an earlier moment than before.
        let late = Instant::now() + Duration::from_secs(9);
        poll_fn(|cx| {
            assert!(timer.poll(cx, late).is_pending());
            Poll::Ready(())
        })
        .await;
        wait(&mut timer, late - Duration::from_secs(4)).await;
        // And for a later one, after the timer has fired.
        wait(&mut timer, late).await;
    }

    /// tokio sends a task away that has used up its turn. Its next wait counts all the same.
    #[tokio::test(start_paused = true)]
    async fn a_task_without_a_turn_left_is_woken_later() {
        let mut timer = Timer::default();
        for _ in 0..2 {
            let at = Instant::now() + Duration::from_secs(5);
            poll_fn(|cx| {
                while has_budget_remaining() {
                    let _ = std::pin::pin!(consume_budget()).poll(cx);
                }
                assert!(timer.poll(cx, at).is_pending());
                Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
            wait(&mut timer, at).await;
        }
    }
}
