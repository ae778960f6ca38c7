//! A response as a stream of server-sent events.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use http::HeaderMap;

use super::pieces::{Items, Pieces, next_item};
use super::sse::{Event, EventDecoder, SseError};
use crate::error::{Error, ErrorKind, Result};

/// The events of a response. Made by [`Response::events`](crate::Response::events).
///
/// Any error is the end of the stream. A connection that is cut off is one; a stream that ends in an orderly way is one only
/// if [`until`](Self::until) has said how its last event looks, and that has not come. An event that has no end yet when the
/// stream ends is none.
pub struct Events {
    pieces: Pieces,
    decoder: EventDecoder,
    last: Option<IsLast>,
    state: State,
}

/// Tells the last event from others.
type IsLast = Box<dyn Fn(&Event) -> bool + Send + Sync>;

enum State {
    /// It failed before it began.
    Refused(Error),
    Open,
    Ended,
}

impl Events {
    pub(crate) fn new(pieces: Pieces) -> Self {
        Self {
            pieces,
            decoder: EventDecoder::new(),
            last: None,
            state: State::Open,
        }
    }

    /// What came is no stream of events, and `what` says why: the first item is an error.
    pub(crate) fn refused(mut pieces: Pieces, what: String) -> Self {
        pieces.close();
        let error = pieces.not_as_expected(what);
        Self {
            state: State::Refused(error),
            ..Self::new(pieces)
        }
    }

    /// Says how the last event looks. It is given, and is the end: what comes behind it is not read. A stream that ends without
    /// it, however orderly, is an error of kind [`Body`](ErrorKind::Body). APIs that stream an answer mark its end this way,
    /// and an answer that stops in between must not pass for a whole one.
    ///
    /// ```no_run
    /// # async fn run(response: sockeye::Response) -> sockeye::Result<()> {
    /// let mut events = response.events().until(|event| event.data() == "[DONE]");
    /// while let Some(event) = events.next().await {
    ///     println!("{}", event?.data());
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn until(mut self, is_last: impl Fn(&Event) -> bool + Send + Sync + 'static) -> Self {
        self.last = Some(Box::new(is_last));
        self
    }

    /// Bytes of one event: its data, its type and the line that is being read. Default 16 MiB; a larger one is a
    /// [`TooLarge`](ErrorKind::TooLarge) error.
    #[must_use]
    pub fn max_event(mut self, bytes: usize) -> Self {
        self.decoder.max_event = bytes;
        self
    }

    /// The next event; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        next_item(self).await
    }

    /// The last id that the stream has given: what a request that goes on from here sends as `last-event-id`. Empty if there
    /// was none.
    pub fn last_event_id(&self) -> &str {
        self.decoder.last_id()
    }

    /// How long to wait before connecting again, if the stream has said so (the field `retry`).
    pub fn retry(&self) -> Option<Duration> {
        self.decoder.retry()
    }

    /// The trailer section, once the end has been read.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.pieces.trailers()
    }

    /// As [`last_event_id`](Self::last_event_id), to be kept.
    pub(crate) fn shared_id(&self) -> &Arc<str> {
        self.decoder.last_id()
    }

    /// Goes on where an earlier stream of the same source was when it ended.
    pub(crate) fn resume(mut self, id: Arc<str>) -> Self {
        self.decoder.resume(id);
        self
    }

    /// Whoever waited for an event has stopped.
    pub(crate) fn pause(&mut self) {
        self.pieces.pause();
    }

    /// As [`next`](Self::next), for a state that is polled.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        let event = ready!(self.poll_open(cx));
        if !matches!(event, Some(Ok(_))) {
            self.state = State::Ended;
        }
        Poll::Ready(event)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        match std::mem::replace(&mut self.state, State::Open) {
            State::Open => {}
            State::Refused(error) => return Poll::Ready(Some(Err(error))),
            State::Ended => return Poll::Ready(None),
        }
        loop {
            match self.decoder.next_event() {
                Ok(None) => {}
                Ok(Some(event)) => {
                    if self.last.as_ref().is_some_and(|is_last| is_last(&event)) {
                        self.pieces.close();
                        self.state = State::Ended;
                    }
                    return Poll::Ready(Some(Ok(event)));
                }
                Err(error) => return Poll::Ready(Some(Err(self.fail(error)))),
            }
            match ready!(self.pieces.poll_data(cx)) {
                Some(Ok(piece)) => self.decoder.feed(piece),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.last.is_some() => {
                    let error = self.pieces.fail(ErrorKind::Body);
                    let what = "the stream of events ended before its last event (Events::until)";
                    return Poll::Ready(Some(Err(error.saying(what))));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn fail(&mut self, error: SseError) -> Error {
        match error {
            SseError::TooLarge { .. } => self.pieces.too_large(error.to_string()),
            SseError::NotUtf8 { .. } => {
                self.pieces.close();
                self.pieces.not_as_expected(error.to_string())
            }
        }
    }
}

impl Items for Events {
    type Item = Result<Event>;

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }

    fn pieces(&mut self) -> &mut Pieces {
        &mut self.pieces
    }
}

impl Stream for Events {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("last_event_id", &self.last_event_id())
            .finish_non_exhaustive()
    }
}
