//! A connection that HTTP has handed over: to another protocol, or as a tunnel.
//!
//! Bytes both ways and nothing else; what the codec had read beyond the response comes first. It keeps the pool's permit, so it
//! counts as a connection until it is dropped.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Socket;

/// The stream behind a response of 101, or of 2xx to CONNECT.
///
/// It is the caller's: no time limit of the client applies to it. A connection of HTTP/1.1 is not closed with the client,
/// although it counts against [`Limits::max_connections`](crate::Limits) until it is dropped. Over HTTP/2 it is one stream of a
/// session, which ends with the session: [`Client::close`](crate::Client::close) waits for it, and cuts it off at the deadline.
///
/// What is written has left once it is flushed or shut down; a stream of HTTP/2 that is dropped before may lose it.
///
/// ```no_run
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let request = sockeye::Client::new().get("http://echo.example.com/chat").upgrade("echo");
/// let mut stream = request.send().await?.upgrade()?;
/// stream.write_all(b"hello").await?;
/// let mut reply = [0; 5];
/// stream.read_exact(&mut reply).await?;
/// # Ok(()) }
/// ```
pub struct Upgraded {
    socket: Socket,
    read: Bytes,
    /// Returned when the socket has closed, which is why it stands last.
    _keeper: Box<dyn Send>,
}

impl Upgraded {
    /// `read` are bytes that came behind the response.
    pub(crate) fn new(socket: Socket, read: Bytes, keeper: Box<dyn Send>) -> Self {
        Self {
            socket,
            read,
            _keeper: keeper,
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let len = self.read.len().min(buf.remaining());
        buf.put_slice(self.read.get(..len).unwrap_or_default());
        self.read.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded")
            .field("socket", &self.socket)
            .field("read", &self.read.len())
            .finish_non_exhaustive()
    }
}
