//! A byte stream that fails on purpose: cut after so many bytes, or written in small steps.
//!
//! The scripted peer wraps the client's end of each connection in it; without faults it passes everything through. It also
//! counts how many ends are open, so that a test sees a socket that was never closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// What goes wrong on a connection. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// After so many bytes were read, reads fail with a reset.
    pub(crate) reset_after_reading: Option<usize>,
    /// After so many bytes were written, writes fail with a broken pipe.
    pub(crate) break_after_writing: Option<usize>,
    /// No write takes more than this.
    pub(crate) largest_write: Option<usize>,
    /// No read gives more than this, and between two reads there is nothing: as if each piece came by itself.
    pub(crate) largest_read: Option<usize>,
}

/// The client's end of an in-memory connection.
pub(crate) struct Wire {
    io: DuplexStream,
    faults: Faults,
    read: usize,
    written: usize,
    open: Arc<AtomicUsize>,
    /// Whether the peer's end of the connection is a reset.
    reset: Arc<AtomicBool>,
    hesitates: bool,
}

impl Wire {
    /// Wraps `io` and counts it in `open` until it is dropped.
    pub(crate) fn new(io: DuplexStream, faults: Faults, open: Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self {
            io,
            faults,
            read: 0,
            written: 0,
            open,
            reset: Arc::default(),
            hesitates: false,
        }
    }

    /// Whoever sets it makes the end of what can be read a reset.
    pub(crate) fn resets(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.reset)
    }

    fn poll_read_part(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        largest: usize,
    ) -> Poll<io::Result<()>> {
        let mut space = vec![0; largest.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut space);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut part);
        self.read += part.filled().len();
        buf.put_slice(part.filled());
        polled
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut largest = usize::MAX;
        if let Some(limit) = self.faults.reset_after_reading {
            if limit <= self.read {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            largest = limit - self.read;
        }
        if let Some(size) = self.faults.largest_read {
            self.hesitates = !self.hesitates;
            if self.hesitates {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            largest = largest.min(size);
        }
        let before = buf.filled().len();
        let polled = match largest {
            usize::MAX => Pin::new(&mut self.io).poll_read(cx, buf),
            _ => self.poll_read_part(cx, buf, largest),
        };
        let ended = polled.is_ready() && buf.filled().len() == before && buf.remaining() > 0;
        if ended && self.reset.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut room = self.faults.largest_write.unwrap_or(usize::MAX);
        if let Some(limit) = self.faults.break_after_writing {
            if limit <= self.written {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            room = room.min(limit - self.written);
        }
        let part = &buf[..buf.len().min(room)];
        let polled = Pin::new(&mut self.io).poll_write(cx, part);
        if let Poll::Ready(Ok(written)) = &polled {
            self.written += written;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
