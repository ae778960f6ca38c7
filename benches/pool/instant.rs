//! A peer without a socket, a task or a delay: whatever request is written, its answer can be read at once.
//!
//! So a client's own work is all that a measurement sees. It is no HTTP server: it takes the end of a write
//! that ends in an empty line for the end of a request without a body. The contenders' connectors make it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::scenario::answer;

/// Dials peers that answer at once, and counts them.
#[derive(Clone)]
pub(crate) struct Dialler {
    answer: Bytes,
    dials: Arc<std::sync::atomic::AtomicUsize>,
}

impl Dialler {
    /// One that has not dialled yet.
    pub(crate) fn new() -> Self {
        Self {
            answer: Bytes::from(answer()),
            dials: Arc::default(),
        }
    }

    /// A new connection.
    pub(crate) fn dial(&self) -> Instant {
        self.dials
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Instant {
            answer: self.answer.clone(),
            unread: Bytes::new(),
            reader: None,
        }
    }

    /// How many connections were made.
    pub(crate) fn dials(&self) -> usize {
        self.dials.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// One connection.
pub(crate) struct Instant {
    answer: Bytes,
    /// What of an answer was not read yet.
    unread: Bytes,
    /// Who waits for one.
    reader: Option<Waker>,
}

impl AsyncRead for Instant {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            match &mut self.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let length = self.unread.len().min(buf.remaining());
        buf.put_slice(self.unread.get(..length).unwrap_or_default());
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Instant {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.ends_with(b"\r\n\r\n") {
            self.unread = self.answer.clone();
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What hyper-util asks of a connection.
impl Connection for Instant {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
