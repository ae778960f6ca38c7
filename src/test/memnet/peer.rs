//! The scripted side of a connection: what a server does, step by step.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::seen::Connected;
use crate::test::pipe::End;
use crate::test::received::Received;
use crate::test::server::{Place, fill, read_head, read_request};

/// The other side of a connection of a [`MemNet`](super::MemNet), taken with [`Host::accept`](super::Host::accept). Dropping it
/// closes the connection. It is an `AsyncRead` and `AsyncWrite` as well, so that any server can be put behind it.
///
/// What waits is waited for with tokio's own `sleep`, which takes no time while time is paused.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
/// use std::time::Duration;
/// use sockeye::test::MemNet;
/// use sockeye::{Client, ErrorKind};
///
/// let net = MemNet::new();
/// let host = net.host("a.test");
/// let script = tokio::spawn(async move {
///     let mut peer = host.accept().await;
///     let head = peer.expect_head().await?;
///     assert_eq!(head.url.path(), "/film");
///     peer.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await?;
///     tokio::time::sleep(Duration::from_secs(1)).await;
///     peer.reset();
///     std::io::Result::Ok(())
/// });
/// let client = Client::builder().connector(net).build()?;
/// let response = client.get("http://a.test/film").send().await?;
/// assert_eq!(response.bytes().await.unwrap_err().kind(), ErrorKind::Io);
/// script.await.unwrap().unwrap();
/// # Ok::<(), sockeye::Error>(()) }).unwrap();
/// ```
pub struct Peer {
    io: End,
    /// What was read and not asked for yet.
    buffer: BytesMut,
    connected: Connected,
    place: Place,
    served: usize,
}

impl Peer {
    pub(super) fn new(io: End, connected: Connected, place: Place) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            connected,
            place,
            served: 0,
        }
    }

    /// Which connection it is.
    pub fn connection(&self) -> &Connected {
        &self.connected
    }

    /// Reads the head of an HTTP/1.1 request, up to its empty line. Fails with `UnexpectedEof` if the connection ends before.
    pub async fn expect_head(&mut self) -> io::Result<Received> {
        let mut head = read_head(&mut self.io, &mut self.buffer, &self.place).await?;
        head.reused = self.served > 0;
        self.served += 1;
        Ok(head)
    }

    /// Reads a whole HTTP/1.1 request; one that expects to be told so is told to go on.
    pub async fn expect_request(&mut self) -> io::Result<Received> {
        let mut request = read_request(&mut self.io, &mut self.buffer, &self.place).await?;
        request.reused = self.served > 0;
        self.served += 1;
        Ok(request)
    }

    /// Reads so many bytes. Fails with `UnexpectedEof` if the connection ends before.
    pub async fn expect_bytes(&mut self, count: usize) -> io::Result<Bytes> {
        fill(&mut self.io, &mut self.buffer, count).await?;
        Ok(self.buffer.split_to(count).freeze())
    }

    /// Waits until the client has closed. Fails with `InvalidData` if a byte comes instead.
    pub async fn expect_close(&mut self) -> io::Result<()> {
        match fill(&mut self.io, &mut self.buffer, 1).await {
            Ok(()) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the client has sent something in place of closing",
            )),
            Err(_) => Ok(()),
        }
    }

    /// Writes all of this. Fails if the client has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.io.write_all(bytes.as_ref()).await
    }

    /// Ends this side; the client can go on writing.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    /// Resets the connection: the client sees that after what was sent.
    pub fn reset(self) {
        self.connected.reset();
    }

    /// Closes the connection, as dropping it does.
    pub fn close(self) {
        drop(self);
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let part = self.buffer.len().min(buf.remaining());
        buf.put_slice(self.buffer.get(..part).unwrap_or_default());
        self.buffer.advance(part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.connected).finish()
    }
}
