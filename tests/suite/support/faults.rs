//! A byte stream that fails on purpose: cut after so many bytes, or written in small steps.
//!
//! The scripted peer wraps the client's end of each connection in it; without faults it passes everything through. It also
//! counts how many ends are open, so that a test sees a socket that was never closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
}

/// The client's end of an in-memory connection.
pub(crate) struct Wire {
    io: DuplexStream,
    faults: Faults,
    read: usize,
    written: usize,
    open: Arc<AtomicUsize>,
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
        }
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
        let Some(limit) = self.faults.reset_after_reading else {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        };
        let room = limit.saturating_sub(self.read).min(buf.remaining());
        if limit <= self.read {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut space = vec![0; room];
        let mut part = ReadBuf::new(&mut space);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut part);
        self.read += part.filled().len();
        buf.put_slice(part.filled());
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
