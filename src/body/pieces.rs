//! The data of a response, piece by piece: what every adapter of a body reads from.
//!
//! [`Pieces`] keeps the trailers that come behind the data, so that each adapter can hand them out. An adapter is a state that
//! is polled; [`next_item`] waits for one item of it, and dropping that future loses nothing, because all state is in the
//! adapter.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;

use super::{Body, into_trailers};
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::url::Origin;

/// A body whose data is taken piece by piece.
pub(crate) struct Pieces {
    body: Body,
    trailers: Option<Box<HeaderMap>>,
    origin: Origin,
}

impl Pieces {
    pub(crate) fn new(body: Body, origin: Origin) -> Self {
        Self {
            body,
            trailers: None,
            origin,
        }
    }

    /// The next piece, which is not empty. After the end or an error there are no more.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            let Some(frame) = ready!(self.body.poll_next(cx)) else {
                return Poll::Ready(None);
            };
            match frame?.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(data))),
                Err(frame) => self.trailers = into_trailers(frame).map(Box::new),
            }
        }
    }

    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }

    /// Whoever waited has stopped (ruling 18).
    pub(super) fn pause(&mut self) {
        self.body.pause();
    }

    /// Reads no further: what is left is drained or cut off, as for any body that is dropped.
    pub(super) fn close(&mut self) {
        self.body = Body::empty();
    }

    /// The data is not what it is read as.
    pub(super) fn not_as_expected(&self, what: String) -> Error {
        self.fail(ErrorKind::Decode).saying(what)
    }

    /// A part of the data is over a limit; nothing further is read.
    pub(super) fn too_large(&mut self, what: String) -> Error {
        self.close();
        self.fail(ErrorKind::TooLarge).saying(what)
    }

    pub(super) fn fail(&self, kind: ErrorKind) -> Error {
        Error::new(kind, Some(Phase::Read), Sent::All).at(&self.origin)
    }
}

/// An adapter: a state that gives items.
pub(super) trait Items {
    type Item;

    /// The next item, `None` at the end and ever after.
    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>>;

    /// What it reads from.
    fn pieces(&mut self) -> &mut Pieces;
}

/// The next item. Dropping the future loses nothing, and stops the clock of the read limit (ruling 18).
pub(super) async fn next_item<A: Items>(adapter: &mut A) -> Option<A::Item> {
    struct Waiting<'a, A: Items>(&'a mut A);

    impl<A: Items> Drop for Waiting<'_, A> {
        fn drop(&mut self) {
            self.0.pieces().pause();
        }
    }

    let waiting = Waiting(adapter);
    poll_fn(|cx| waiting.0.poll_item(cx)).await
}

/// The data of a response as a stream, in the pieces in which it arrives. Made by
/// [`Response::bytes_stream`](crate::Response::bytes_stream).
pub struct BytesStream(Pieces);

impl BytesStream {
    pub(crate) fn new(pieces: Pieces) -> Self {
        Self(pieces)
    }

    /// The next piece; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        next_item(self).await
    }

    /// The trailer section, once the end has been read.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.0.trailers()
    }
}

impl Items for BytesStream {
    type Item = Result<Bytes>;

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_data(cx)
    }

    fn pieces(&mut self) -> &mut Pieces {
        &mut self.0
    }
}

impl Stream for BytesStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(cx)
    }
}

impl fmt::Debug for BytesStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesStream").finish_non_exhaustive()
    }
}
