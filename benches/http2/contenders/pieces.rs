//! The body of an upload: the same piece again and again.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// What is left of it.
#[derive(Debug)]
pub(crate) struct Pieces {
    piece: Bytes,
    left: u64,
}

impl Pieces {
    /// One of `bytes`; none for a request without a body.
    pub(crate) fn of(bytes: u64) -> Self {
        let piece = match bytes {
            0 => Bytes::new(),
            _ => Bytes::from(vec![b'x'; PIECE]),
        };
        Self { piece, left: bytes }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let len = self.left.min(self.piece.len() as u64);
        self.left -= len;
        (len > 0).then(|| self.piece.slice(..len as usize))
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;
