//! Streams for request bodies that a test feeds by hand, and futures that are dropped after so many polls.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;

/// A stream whose items the test sends when it likes.
pub(crate) struct Fed {
    items: mpsc::UnboundedReceiver<io::Result<Bytes>>,
    dropped: Arc<AtomicBool>,
}

/// The other end of a [`Fed`]. Dropping it ends the stream.
pub(crate) struct Feed {
    items: mpsc::UnboundedSender<io::Result<Bytes>>,
    dropped: Arc<AtomicBool>,
}

/// A stream and what feeds it.
pub(crate) fn fed() -> (Feed, Fed) {
    let (sender, items) = mpsc::unbounded_channel();
    let dropped = Arc::new(AtomicBool::new(false));
    let feed = Feed {
        items: sender,
        dropped: Arc::clone(&dropped),
    };
    (feed, Fed { items, dropped })
}

impl Feed {
    /// Gives the stream its next piece.
    pub(crate) fn give(&self, piece: impl Into<Bytes>) {
        // A stream that was dropped takes nothing; tests ask `is_dropped` about that.
        let _ = self.items.send(Ok(piece.into()));
    }

    /// Fails the stream.
    pub(crate) fn fail(&self, text: &'static str) {
        let _ = self.items.send(Err(io::Error::other(text)));
    }

    /// Whether the library has let go of the stream.
    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::SeqCst)
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}

impl Stream for Fed {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_recv(cx)
    }
}

/// A stream of `left` pieces of `size` bytes, which counts in `polled` how many were asked for.
pub(crate) struct Pieces {
    left: usize,
    piece: Bytes,
    polled: Arc<AtomicUsize>,
}

impl Pieces {
    /// So many pieces of so many bytes, and the count of those that were taken.
    pub(crate) fn new(count: usize, size: usize) -> (Self, Arc<AtomicUsize>) {
        let polled = Arc::new(AtomicUsize::new(0));
        let pieces = Self {
            left: count,
            piece: Bytes::from(vec![b'x'; size]),
            polled: Arc::clone(&polled),
        };
        (pieces, polled)
    }
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.polled.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some(Ok(self.piece.clone())))
    }
}

/// A stream of pieces that has something to give only every other time that it is asked.
pub(crate) struct Hesitant {
    pieces: Pieces,
    hesitates: bool,
}

impl Hesitant {
    /// So many pieces of so many bytes.
    pub(crate) fn new(count: usize, size: usize) -> Self {
        Self {
            pieces: Pieces::new(count, size).0,
            hesitates: true,
        }
    }
}

impl Stream for Hesitant {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.hesitates = !self.hesitates;
        if !self.hesitates {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.pieces).poll_next(cx)
    }
}

/// Polls `future` at most `polls` times, as its wakers ask, and drops it then. `None` if it was not ready by that time.
pub(crate) async fn within_polls<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut count = 0;
    poll_fn(|cx| {
        count += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if count >= polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A small random number generator with a seed, so that a failing run can be run again.
pub(crate) struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
