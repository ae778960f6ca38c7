//! A stream that was given to another protocol, as bytes both ways (RFC 8441 section 5, RFC 9113 section 8.5).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::{Flush, Shared};

/// Both directions of a stream. Dropping it resets the stream unless both have ended.
pub(super) struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// What was received and not read.
    read: Bytes,
    /// Our direction has ended.
    ended: bool,
    shared: Arc<Shared>,
    /// Something was written since the last flush.
    is_unflushed: bool,
    /// The flush that is waited for.
    flush: Option<Arc<Flush>>,
}

impl Tunnel {
    pub(super) fn new(send: SendStream<Bytes>, receive: RecvStream, shared: Arc<Shared>) -> Self {
        Self {
            send,
            receive,
            read: Bytes::new(),
            ended: false,
            shared,
            is_unflushed: false,
            flush: None,
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => self.read = data,
                Some(Err(error)) => return Poll::Ready(Err(io_error(&error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.read.len().min(buf.remaining());
        buf.put_slice(self.read.get(..len).unwrap_or_default());
        self.read.advance(len);
        // At the end nobody needs to be told.
        let _ = self.receive.flow_control().release_capacity(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let wanted = buf.len().min(LARGEST_WRITE);
        self.send.reserve_capacity(wanted);
        let mut room = self.send.capacity();
        if room == 0 {
            room = match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(error)) => return Poll::Ready(Err(io_error(&error))),
                None => return Poll::Ready(Err(self.why_closed(cx))),
            };
        }
        let piece = buf.get(..room.min(wanted)).unwrap_or_default();
        let sent = self.send.send_data(Bytes::copy_from_slice(piece), false);
        let len = piece.len();
        self.has_sent();
        Poll::Ready(match sent {
            Ok(()) => Ok(len),
            Err(error) => Err(io_error(&error)),
        })
    }

    /// What the session has is written by its driver. Until then a reset would take it away.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_unflushed {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let flush = this.flush.get_or_insert_with(|| this.shared.flush());
        ready!(flush.poll(cx));
        this.flush = None;
        this.is_unflushed = false;
        Poll::Ready(match this.send.poll_reset(cx) {
            // The session has ended before.
            Poll::Ready(Err(error)) => Err(io_error(&error)),
            _ => Ok(()),
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ended, true) {
            self.send.reserve_capacity(0);
            if let Err(error) = self.send.send_data(Bytes::new(), true) {
                return Poll::Ready(Err(io_error(&error)));
            }
            self.has_sent();
        }
        self.poll_flush(cx)
    }
}

impl Tunnel {
    /// A flush that has begun does not know of what was sent since.
    fn has_sent(&mut self) {
        self.is_unflushed = true;
        self.flush = None;
    }

    fn why_closed(&mut self, cx: &mut Context<'_>) -> io::Error {
        match self.send.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => reset(reason),
            Poll::Ready(Err(error)) => io_error(&error),
            Poll::Pending => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

fn io_error(error: &h2::Error) -> io::Error {
    match (error.get_io(), error.reason()) {
        (Some(io), _) => io::Error::new(io.kind(), io.to_string()),
        (None, Some(reason)) if error.is_reset() => reset(reason),
        _ => io::Error::new(io::ErrorKind::ConnectionAborted, error.to_string()),
    }
}

/// What a peer resets is an error of the stream; without an error it is its end for writing.
fn reset(reason: Reason) -> io::Error {
    let kind = match reason {
        Reason::NO_ERROR | Reason::CANCEL => io::ErrorKind::BrokenPipe,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(
        kind,
        format!("the server reset the stream: {}", reason.description()),
    )
}

/// Bytes that one write takes at most.
const LARGEST_WRITE: usize = 64 * 1024;
