//! A response body as an `AsyncRead`.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use super::pieces::Pieces;
use crate::error::{Error, ErrorKind};

/// The data of a response as a reader. Made by [`Response::into_reader`](crate::Response::into_reader).
///
/// An error is an [`io::Error`] around the [`Error`] of this crate: `get_ref` and `downcast_ref` give it. Its kind is
/// `TimedOut` for a limit of [`Timeouts`](crate::Timeouts), `UnexpectedEof` for a body that breaks HTTP or is cut short,
/// `InvalidData` for one that cannot be decoded, else that of the system's error.
pub struct BodyReader {
    pieces: Pieces,
    /// What was read and not handed out yet.
    piece: Bytes,
}

impl BodyReader {
    pub(crate) fn new(pieces: Pieces) -> Self {
        Self {
            pieces,
            piece: Bytes::new(),
        }
    }

    /// The trailer section, once the end has been read.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.pieces.trailers()
    }
}

impl AsyncBufRead for BodyReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.piece.is_empty() {
            if let Some(piece) = ready!(this.pieces.poll_data(cx)) {
                this.piece = piece.map_err(into_io)?;
            }
        }
        Poll::Ready(Ok(&this.piece))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        let amount = amount.min(self.piece.len());
        self.piece.advance(amount);
    }
}

impl AsyncRead for BodyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let data = ready!(self.as_mut().poll_fill_buf(cx))?;
        let part = data.get(..buffer.remaining()).unwrap_or(data);
        buffer.put_slice(part);
        let taken = part.len();
        self.consume(taken);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyReader").finish_non_exhaustive()
    }
}

fn into_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::Timeout => io::ErrorKind::TimedOut,
        ErrorKind::Protocol => io::ErrorKind::UnexpectedEof,
        ErrorKind::Decode | ErrorKind::TooLarge => io::ErrorKind::InvalidData,
        _ => error.io_kind().unwrap_or(io::ErrorKind::Other),
    };
    io::Error::new(kind, error)
}
