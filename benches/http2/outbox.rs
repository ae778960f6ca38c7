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
use tokio::net::TcpStream;

/// A socket as h2 sees it.
pub(crate) struct Gathering {
    socket: Arc<TcpStream>,
    outbox: Outbox,
}

/// What was gathered. Whoever polls h2 sends it afterwards.
#[derive(Clone)]
pub(crate) struct Outbox {
    socket: Arc<TcpStream>,
    bytes: Arc<Mutex<BytesMut>>,
}

impl Gathering {
    /// The two ends of it.
    pub(crate) fn new(socket: TcpStream) -> (Self, Outbox) {
        let socket = Arc::new(socket);
        let outbox = Outbox {
            socket: Arc::clone(&socket),
            bytes: Arc::default(),
        };
        let gathering = Self {
            socket,
            outbox: outbox.clone(),
        };
        (gathering, outbox)
    }
}

impl Outbox {
    fn bytes(&self) -> MutexGuard<'_, BytesMut> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends all of it.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = self.bytes();
        while !bytes.is_empty() {
            match self.socket.try_write(&bytes) {
                Ok(written) => bytes.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        bytes.clear();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Gathering {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.socket.try_read_buf(out) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_read_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.outbox.bytes().len() >= FULL {
            ready!(self.outbox.poll_send(cx))?;
        }
        self.outbox.bytes().extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// Nothing is sent before h2 has nothing more to say.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_send(cx)
    }
}

/// So much is sent in any case.
const FULL: usize = 256 * 1024;
