//! A response as lines of text.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;

use super::lines::{LineDecoder, TooLong};
use super::pieces::{Items, Pieces, next_item};
use crate::error::Result;

/// The lines of a response, without their ends (LF or CRLF). Made by [`Response::lines`](crate::Response::lines).
///
/// A line that is not UTF-8 is a [`Decode`](crate::ErrorKind::Decode) error, and the next call goes on with the line behind
/// it; any other error is the end. A mark (BOM) before the first line is no part of it.
pub struct Lines(pub(super) RawLines);

impl Lines {
    pub(crate) fn new(pieces: Pieces) -> Self {
        Self(RawLines::new(pieces))
    }

    /// Bytes of one line, without its end. Default 1 MiB; a longer one is a [`TooLarge`](crate::ErrorKind::TooLarge) error.
    #[must_use]
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.0.decoder.max_line = bytes;
        self
    }

    /// The next line; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<String>> {
        next_item(self).await
    }

    /// The trailer section, once the end has been read.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.0.pieces.trailers()
    }
}

impl Items for Lines {
    type Item = Result<String>;

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let line = ready!(self.0.poll_line(cx)?);
        Poll::Ready(line.map(|line| {
            String::from_utf8(line.into()).map_err(|error| {
                let (line, at) = (self.0.decoder.count(), error.utf8_error().valid_up_to());
                let what = format!("line {line} of the body is not UTF-8 at byte {at}");
                self.0.pieces.not_as_expected(what)
            })
        }))
    }

    fn pieces(&mut self) -> &mut Pieces {
        &mut self.0.pieces
    }
}

impl Stream for Lines {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(cx)
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("read", &self.0.decoder.count())
            .finish_non_exhaustive()
    }
}

/// Lines as bytes: what lines of text and lines of JSON are made of.
pub(super) struct RawLines {
    pub(super) pieces: Pieces,
    pub(super) decoder: LineDecoder,
}

impl RawLines {
    pub(super) fn new(pieces: Pieces) -> Self {
        Self {
            pieces,
            decoder: LineDecoder::new(MAX_LINE),
        }
    }

    pub(super) fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            match self.decoder.next_line() {
                Ok(None) => {}
                Ok(line) => return Poll::Ready(Ok(line)),
                Err(TooLong) => return Poll::Ready(self.too_long()),
            }
            match ready!(self.pieces.poll_data(cx)) {
                Some(Ok(piece)) => self.decoder.feed(piece),
                Some(Err(error)) => {
                    // Half a line in front of an error is none.
                    self.decoder.forget();
                    return Poll::Ready(Err(error));
                }
                None => {
                    return Poll::Ready(match self.decoder.finish() {
                        Ok(line) => Ok(line),
                        Err(TooLong) => self.too_long(),
                    });
                }
            }
        }
    }

    fn too_long(&mut self) -> Result<Option<Bytes>> {
        // Nothing of a line that is too long is given, nor of any behind it.
        self.decoder.forget();
        let max_line = self.decoder.max_line;
        let what = format!("a line of the body is over the limit of {max_line} bytes (max_line)");
        Err(self.pieces.too_large(what))
    }
}

/// Default of `max_line`.
const MAX_LINE: usize = 1024 * 1024;
