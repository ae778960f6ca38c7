//! Reads a body whose content codings are to be taken off: polls the source below, and drives the pure decoder.
//!
//! It asks the source for more only when everything before is decoded and handed on, so that the reader's pace is the peer's
//! (security D2). The content may end before the framed body does; the body is read to its end all the same, so that its
//! connection can be used again.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::Method;
use http_body::Frame;
use tokio::task::coop::consume_budget;

use super::Source;
use super::decompress::{Applied, Decoder, DecompressError};
use crate::error::{Error, ErrorKind, Phase, Sent};
use crate::url::Origin;

/// What takes the codings of one body off, and how far it is.
pub(crate) struct Decoding {
    applied: Applied,
    /// Opened at the first byte: a body that nobody reads costs nothing.
    decoder: Option<Decoder>,
    input: Bytes,
    /// The decoder has more to give without further input.
    more: bool,
    /// What an error says.
    origin: Origin,
    method: Method,
}

impl Decoding {
    pub(crate) fn new(applied: Applied, origin: Origin, method: Method) -> Self {
        Self {
            applied,
            decoder: None,
            input: Bytes::new(),
            more: false,
            origin,
            method,
        }
    }

    /// The next frame of the decoded body.
    pub(super) fn poll_frame(
        &mut self,
        source: &mut (impl Source + ?Sized),
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        for _ in 0..ROUNDS {
            // A thousand pieces may come out of one that went in, and none of them be what a reader waits for. Each is a
            // unit of the task's budget, as each read of a socket is, so that other tasks have their turn.
            ready!(pin!(consume_budget()).poll(cx));
            if self.more || !self.input.is_empty() {
                match self.step() {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(error) => return Poll::Ready(Some(Err(self.fail(error)))),
                }
            }
            match ready!(source.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.input = data,
                    Err(trailers) => {
                        return Poll::Ready(Some(self.finish().map(|()| trailers)));
                    }
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(self.finish().err().map(Err)),
            }
        }
        // Much came in and nothing out. Other tasks have their turn, and then it goes on.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// At most 64 KiB of content.
    fn step(&mut self) -> Result<Bytes, DecompressError> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            None => self.decoder.insert(Decoder::new(self.applied)?),
        };
        let room = match self.more {
            true => MAX_OUTPUT,
            false => self
                .input
                .len()
                .saturating_mul(4)
                .clamp(MIN_OUTPUT, MAX_OUTPUT),
        };
        let mut output = Vec::with_capacity(room);
        let progress = decoder.step(&self.input, &mut output)?;
        self.input.advance(progress.used);
        self.more = progress.more;
        if output.len() < room / 2 {
            output.shrink_to_fit();
        }
        Ok(Bytes::from(output))
    }

    /// The framed body is over.
    fn finish(&self) -> Result<(), Error> {
        let whole = self.decoder.as_ref().map_or(Ok(()), Decoder::finish);
        whole.map_err(|error| self.fail(error))
    }

    fn fail(&self, error: DecompressError) -> Error {
        Error::new(ErrorKind::Decode, Some(Phase::Read), Sent::All)
            .because(error)
            .on_call(self.origin.clone(), &self.method, 1, false)
    }
}

/// Bytes of content that one poll gives at most (security D2).
const MAX_OUTPUT: usize = 64 * 1024;

/// Room for the content of a small body.
const MIN_OUTPUT: usize = 1024;

/// How often one poll feeds the decoder without anything coming out.
const ROUNDS: usize = 16;
