//! A hold on a connection from outside, while somebody else uses it.
//!
//! A connection belongs to whoever drives it, so nobody can close it for him. What can be done is to tell him: the flag is read
//! at every poll, and whoever sleeps is woken. The pool keeps one end and uses it when a client that is closed has reached its
//! deadline (spec pool R-LIFE-4); it can also see since when the connection is in use.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::time::Instant;

/// Shared by a connection and whoever may cut it off.
#[derive(Debug)]
pub(crate) struct Tether {
    cut: AtomicBool,
    sleeper: AtomicWaker,
    made: Instant,
    /// Nanoseconds after `made`, plus one; zero while no exchange runs.
    busy_since: AtomicU64,
}

impl Tether {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            cut: AtomicBool::new(false),
            sleeper: AtomicWaker::new(),
            made: now,
            busy_since: AtomicU64::new(0),
        }
    }

    /// Ends the exchange that runs, and any later one, with an error.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.sleeper.wake();
    }

    /// When the dial of the connection began.
    pub(crate) fn made(&self) -> Instant {
        self.made
    }

    /// How long an exchange has been running.
    pub(crate) fn busy_for(&self, now: Instant) -> Option<Duration> {
        let since = self.busy_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.made + Duration::from_nanos(since)))
    }

    /// Has whoever drives the connection look again.
    #[cfg_attr(
        not(feature = "http2"),
        expect(dead_code, reason = "only a session has a task")
    )]
    pub(super) fn nudge(&self) {
        self.sleeper.wake();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Ready once it is cut; until then whoever polls is woken when that happens.
    pub(super) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleeper.register(cx.waker());
        // After the waker is in place, so that a cut in between is not missed.
        if self.cut.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    pub(super) fn begin(&self, now: Instant) {
        let since = now.saturating_duration_since(self.made).as_nanos();
        let since = u64::try_from(since).unwrap_or(u64::MAX - 1);
        self.busy_since
            .store(since.saturating_add(1), Ordering::Relaxed);
    }

    /// The exchange is over.
    pub(super) fn end(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// No exchange has followed for a while: lets go of the waker of whoever drove the last one.
    pub(super) fn rest(&self) {
        drop(self.sleeper.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_cut_wakes_who_sleeps_and_stays() {
        let tether = Tether::new(Instant::now());
        let wakes = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        assert!(tether.poll_cut(&mut cx).is_pending());
        tether.cut();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(tether.is_cut());
        assert!(tether.poll_cut(&mut cx).is_ready());
    }

    #[test]
    fn an_exchange_ends_and_its_waker_is_let_go_of_later() {
        let now = Instant::now();
        let tether = Tether::new(now);
        let wakes = Arc::new(Count::default());
        tether.begin(now + Duration::from_secs(2));
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(
            tether
                .poll_cut(&mut Context::from_waker(&waker))
                .is_pending()
        );
        drop(waker);
        let busy = tether.busy_for(now + Duration::from_secs(5));
        assert_eq!(busy, Some(Duration::from_secs(3)));
        tether.end();
        assert_eq!(Arc::strong_count(&wakes), 2);
        tether.rest();
        assert_eq!(Arc::strong_count(&wakes), 1);
        assert_eq!(tether.busy_for(now + Duration::from_secs(5)), None);
    }
}
