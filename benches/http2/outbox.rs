//! What the server writes: gathered as long as there is something to gather, and sent in few large pieces.
//!
//! h2 writes and flushes every DATA frame by itself. A server that did the same would be busy with system calls, and a
//! faster client could not be told from a slower one.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket as h2 sees it.
pub(crate) struct Gathering<S>(Outbox<S>);

/// What was gathered. Whoever polls h2 sends it afterwards, from the same task.
pub(crate) struct Outbox<S>(Arc<Mutex<Inside<S>>>);

struct Inside<S> {
    socket: S,
    bytes: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathering<S> {
    /// The two ends of it.
    pub(crate) fn new(socket: S) -> (Self, Outbox<S>) {
        let bytes = BytesMut::new();
        let inside = Arc::new(Mutex::new(Inside { socket, bytes }));
        (Self(Outbox(Arc::clone(&inside))), Outbox(inside))
    }
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    /// Sends all of it.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Inside { socket, bytes } = &mut *self.inside();
        while !bytes.is_empty() {
            let written = ready!(Pin::new(&mut *socket).poll_write(cx, bytes))?;
            bytes.advance(written);
        }
        bytes.clear();
        Pin::new(socket).poll_flush(cx)
    }
}

impl<S> Outbox<S> {
    fn inside(&self) -> MutexGuard<'_, Inside<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.inside().socket).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.inside().bytes.len() >= FULL {
            ready!(self.0.poll_send(cx))?;
        }
        self.0.inside().bytes.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// Nothing is sent before h2 has nothing more to say.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_send(cx)
    }
}

/// So much is sent in any case.
const FULL: usize = 256 * 1024;
