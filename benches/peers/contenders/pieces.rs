//! The bodies that the contenders send, apart from bare, which writes its bytes itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use hyper::body::{Body, Frame, SizeHint};

use crate::scenario::Target;

/// The same piece again and again: what hyper and those on top of it send, be it one small piece or many.
pub(crate) struct Pieces {
    piece: Bytes,
    left: u64,
}

impl Pieces {
    /// One piece, or none if it is empty.
    pub(crate) fn one(piece: Bytes) -> Self {
        let left = piece.len() as u64;
        Self { piece, left }
    }

    /// The large body.
    pub(crate) fn large(target: &Target) -> Self {
        Self {
            piece: target.piece.clone(),
            left: target.big_bytes,
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        self.left = self.left.saturating_sub(self.piece.len() as u64);
        Some(self.piece.clone())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.take().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.take().map(Ok))
    }
}
