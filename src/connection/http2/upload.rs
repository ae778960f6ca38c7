//! Sends the body of a request on its stream, as flow control allows (RFC 9113 section 5.2).
//!
//! A piece is held first and room is asked for it then: room that nobody uses would be taken from the other streams. Its
//! caller's own task drives it, between looks at the response. `exchange.rs` owns it.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use crate::body::Body;
use crate::codec::EncodeError;
use crate::codec::request_head::check_trailer;
use crate::connection::Writing;
use crate::error::Error;

/// A body on its way out.
#[derive(Default)]
pub(super) struct Upload {
    stream: Option<SendStream<Bytes>>,
    /// What is to be sent next.
    piece: Bytes,
    /// Where further pieces come from.
    source: Option<Body>,
    polled: bool,
    /// The source has ended.
    at_end: bool,
    /// Bytes that the head promised and the source has not given yet.
    owed: Option<u64>,
    trailers: Option<HeaderMap>,
    /// The body waits until it is asked for.
    held: bool,
    /// Nothing more will be sent.
    done: bool,
    /// Because it was given up.
    stopped: bool,
    sent: u64,
}

/// Why an upload failed by our own doing. What the peer does to the stream shows in the response.
pub(super) enum UploadError {
    /// The caller's body failed.
    Source(Error),
    /// The caller's body is not as long as its head says, or has trailers that may not be sent.
    Encode(EncodeError),
}

impl Upload {
    /// Begins on a stream that is open for it. `owed` is the length that the head has promised.
    pub(super) fn begin(
        &mut self,
        stream: SendStream<Bytes>,
        body: &mut Body,
        owed: Option<u64>,
        held: bool,
    ) {
        *self = Self {
            stream: Some(stream),
            held,
            owed,
            ..Self::default()
        };
        match body.as_bytes() {
            Some(bytes) if !held => {
                self.piece = bytes.clone();
                self.owed = Some(0);
                self.at_end = true;
            }
            // It waits like a stream of one piece, and can be sent again.
            Some(bytes) => self.source = Some(Body::from(bytes.clone())),
            None => self.source = Some(std::mem::take(body)),
        }
    }

    /// There is no stream for it: the body stays, to be sent another time.
    pub(super) fn keep(&mut self, body: &mut Body) {
        *self = Self {
            done: true,
            stopped: true,
            source: body.as_bytes().is_none().then(|| std::mem::take(body)),
            ..Self::default()
        };
    }

    /// There is no body: the head has ended the stream. The handle serves to reset it.
    pub(super) fn none(&mut self, stream: SendStream<Bytes>) {
        *self = Self {
            stream: Some(stream),
            done: true,
            ..Self::default()
        };
    }

    /// Sends as much as flow control and the body allow.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Result<Writing, UploadError> {
        for _ in 0..PIECES {
            if self.done {
                return Ok(Writing::Done);
            }
            if self.held {
                return Ok(Writing::Held);
            }
            if self.piece.is_empty() && !self.at_end && !self.gather(cx)? {
                return Ok(Writing::Starved);
            }
            // The end can go along with the last piece if it is known by now.
            if self.owed == Some(0) && !self.at_end {
                self.gather_end(cx)?;
            }
            if self.piece.is_empty() {
                if self.at_end {
                    self.finish()?;
                }
                continue;
            }
            if !self.send(cx) {
                return Ok(Writing::Blocked);
            }
        }
        // A body and a peer that are always ready must not keep the response from being read.
        cx.waker().wake_by_ref();
        Ok(Writing::Blocked)
    }

    /// Whether nothing is left to be sent.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Bytes handed to the session.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Lets a body go that was held.
    pub(super) fn let_go(&mut self) {
        self.held = false;
    }

    /// Sends nothing more. A body of which nothing was asked for stays, to be sent another time. The stream is not told: that
    /// would take the response away, too.
    pub(super) fn stop(&mut self) {
        if self.polled {
            self.source = None;
        }
        self.piece = Bytes::new();
        self.held = false;
        self.rest();
        self.stopped |= !self.done;
        self.done = true;
    }

    /// Nobody drives it for now. Room that was asked for and is not used would be taken from the other streams.
    pub(super) fn rest(&mut self) {
        if let Some(stream) = self.stream.as_mut().filter(|_| !self.done) {
            stream.reserve_capacity(0);
        }
    }

    /// Whether all of it was handed to the session, its end included.
    pub(super) fn is_complete(&self) -> bool {
        self.done && !self.stopped
    }

    /// The handle of the stream.
    pub(super) fn stream(&self) -> Option<&SendStream<Bytes>> {
        self.stream.as_ref()
    }

    /// The handle of the stream, to reset it or to keep it.
    pub(super) fn stream_mut(&mut self) -> Option<&mut SendStream<Bytes>> {
        self.stream.as_mut()
    }

    pub(super) fn take_stream(&mut self) -> Option<SendStream<Bytes>> {
        self.stream.take()
    }

    /// The caller's body, if none of it was asked for.
    pub(super) fn take_unpolled(&mut self) -> Option<Body> {
        if self.polled {
            return None;
        }
        self.source.take()
    }

    /// Takes the next piece from the source; answers false if there is none yet.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, UploadError> {
        let Some(source) = &mut self.source else {
            self.at_end = true;
            return Ok(true);
        };
        self.polled = true;
        loop {
            match source.poll_next(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Some(Err(error))) => return Err(UploadError::Source(error)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        let len = data.len() as u64;
                        if let Some(owed) = &mut self.owed {
                            *owed = owed.checked_sub(len).ok_or(UploadError::Encode(
                                EncodeError::BodyTooLong { length: *owed },
                            ))?;
                        }
                        self.piece = data;
                        return Ok(true);
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Poll::Ready(None) => {
                    self.source = None;
                    self.at_end = true;
                    return match self.owed {
                        Some(missing @ 1..) => {
                            Err(UploadError::Encode(EncodeError::BodyTooShort { missing }))
                        }
                        _ => Ok(true),
                    };
                }
            }
        }
    }

    /// All that was promised is there: whatever still comes must be the end. A piece in hand stays there.
    fn gather_end(&mut self, cx: &mut Context<'_>) -> Result<(), UploadError> {
        let piece = std::mem::take(&mut self.piece);
        self.gather(cx)?;
        // More data would have been an error.
        self.piece = piece;
        Ok(())
    }

    /// Sends of the piece what there is room for; answers false if there is none.
    fn send(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = &mut self.stream else {
            self.stop();
            return true;
        };
        // As much as is sent at once, and not the whole piece: one stream would take all of the session's window.
        stream.reserve_capacity(self.piece.len().min(MOST_RESERVED));
        let mut room = stream.capacity();
        if room == 0 {
            match stream.poll_capacity(cx) {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok(more))) => room = more,
                // The stream is closed for sending. Why, the response tells.
                Poll::Ready(Some(Err(_)) | None) => {
                    self.stop();
                    return true;
                }
            }
        }
        let now = self.piece.split_to(room.min(self.piece.len()));
        if now.is_empty() {
            return true;
        }
        let is_last = self.piece.is_empty() && self.at_end && self.trailers.is_none();
        self.sent += now.len() as u64;
        if stream.send_data(now, is_last).is_err() {
            self.stop();
        }
        self.done |= is_last;
        true
    }

    /// Ends the stream behind the last piece.
    fn finish(&mut self) -> Result<(), UploadError> {
        let trailers = self.trailers.take();
        for name in trailers.iter().flat_map(HeaderMap::keys) {
            check_trailer(name).map_err(UploadError::Encode)?;
        }
        if let Some(stream) = &mut self.stream {
            stream.reserve_capacity(0);
            // A stream that is closed has told the response why.
            let _ = match trailers {
                Some(trailers) => stream.send_trailers(trailers),
                None => stream.send_data(Bytes::new(), true),
            };
        }
        self.done = true;
        Ok(())
    }
}

/// Pieces in one turn.
const PIECES: usize = 16;

/// Room that is asked for at once.
const MOST_RESERVED: usize = 64 * 1024;
