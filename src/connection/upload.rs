//! Writes a request: the head, then the body as it comes, framed as the head says.
//!
//! Small pieces are gathered with the head into one write, large ones go out beside it without a copy. Reading the response
//! goes on in between; `http1.rs` drives both.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::AsyncWrite;

use crate::body::Body;
use crate::codec::request_head::{EncodedHead, check, encode};
use crate::codec::{BodyEncoder, BodyLength, EncodeError};
use crate::error::Error;
use crate::head::{DefaultFields, RequestHead};
use crate::socket::Socket;

/// A request on its way out.
pub(super) struct Upload {
    /// Encoded bytes that go first; the memory is kept between requests.
    out: BytesMut,
    /// A large piece that follows, and what must stand behind it.
    piece: Bytes,
    suffix: &'static [u8],
    /// Where further pieces come from.
    source: Option<Body>,
    polled: bool,
    /// Nothing more is asked for. A source of which nothing was asked for stays, to be sent another time.
    stopped: bool,
    encoder: BodyEncoder,
    /// Fields to send behind the last chunk.
    trailers: Option<Box<HeaderMap>>,
    /// The body waits until it is asked for.
    held: bool,
    flushed: bool,
    written: u64,
}

/// What the upload waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// Nothing: all is handed to the system.
    Done,
    /// The connection.
    Blocked,
    /// The caller's own body.
    Starved,
    /// The server's word that it wants the body.
    Held,
}

/// Why an upload failed.
pub(super) enum UploadError {
    /// The caller's body failed.
    Source(Error),
    /// The caller's body is not as long as its head says.
    Length(EncodeError),
    /// The connection failed; what the peer said may explain it.
    Io(io::Error),
}

impl Upload {
    pub(super) fn new() -> Self {
        Self {
            out: BytesMut::new(),
            piece: Bytes::new(),
            suffix: b"",
            source: None,
            polled: false,
            stopped: false,
            encoder: BodyEncoder::Length(0),
            trailers: None,
            held: false,
            flushed: true,
            written: 0,
        }
    }

    /// Gives back the memory that only an exchange needs.
    pub(super) fn rest(&mut self) {
        self.out = BytesMut::new();
    }

    /// Encodes the head and takes the body if it is a stream; bytes are lent, so that they can be sent again.
    pub(super) fn begin(
        &mut self,
        head: &RequestHead,
        defaults: &DefaultFields,
        body: &mut Body,
    ) -> Result<EncodedHead, EncodeError> {
        self.out.clear();
        let length = body_length(body);
        let mut encoded = encode(&mut self.out, head, defaults, length)?;
        self.written = 0;
        self.polled = false;
        self.stopped = false;
        self.source = None;
        self.trailers = None;
        self.held = encoded.expects_continue;
        self.flushed = false;
        match body.as_bytes() {
            // It waits like a stream of one piece.
            Some(bytes) if self.held => self.source = Some(Body::from(bytes.clone())),
            Some(bytes) => {
                let len = bytes.len() as u64;
                if len > 0 {
                    encoded.body.begin_data(len, &mut self.out)?;
                }
                if bytes.len() <= COPIED {
                    self.out.extend_from_slice(bytes);
                } else {
                    self.piece = bytes.clone();
                }
            }
            None if length != BodyLength::None => self.source = Some(std::mem::take(body)),
            None => {}
        }
        self.encoder = encoded.body;
        Ok(encoded)
    }

    /// Writes as much as the connection and the body allow.
    pub(super) fn poll(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
    ) -> Result<Writing, UploadError> {
        for _ in 0..WRITES {
            let starved = self.gather(cx)?;
            if self.out.is_empty() && self.piece.is_empty() && self.suffix.is_empty() {
                if self.flushed {
                    return Ok(match starved {
                        _ if self.held => Writing::Held,
                        true => Writing::Starved,
                        false => Writing::Done,
                    });
                }
                match Pin::new(&mut *socket).poll_flush(cx) {
                    Poll::Ready(result) => result.map_err(UploadError::Io)?,
                    Poll::Pending => return Ok(Writing::Blocked),
                }
                self.flushed = true;
                continue;
            }
            self.flushed = false;
            match self.poll_write(socket, cx) {
                Poll::Ready(Ok(written)) => self.wrote(written),
                Poll::Ready(Err(error)) => return Err(UploadError::Io(error)),
                Poll::Pending => return Ok(Writing::Blocked),
            }
        }
        // A body and a peer that are always ready must not keep the response from being read.
        cx.waker().wake_by_ref();
        Ok(Writing::Blocked)
    }

    /// Whether everything is handed to the system.
    pub(super) fn is_done(&self) -> bool {
        self.flushed
            && (self.stopped || self.source.is_none())
            && self.out.is_empty()
            && self.piece.is_empty()
            && self.suffix.is_empty()
    }

    /// Bytes handed to the system.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes handed to the system, once they are all of the request.
    pub(super) fn sent_all(&self) -> Option<u64> {
        (self.is_done() && !self.stopped).then_some(self.written)
    }

    /// Ends the exchange; what it wrote is counted no longer.
    pub(super) fn settle(&mut self) {
        self.stop();
        self.source = None;
        self.written = 0;
        if self.out.capacity() > LARGEST_KEPT {
            self.out = BytesMut::new();
        }
    }

    /// Whether the body waits until it is asked for.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Lets a body go that was held.
    pub(super) fn let_go(&mut self) {
        self.held = false;
    }

    /// Gives up what is left. A body of which nothing was asked for stays, to be sent another time.
    pub(super) fn stop(&mut self) {
        if self.polled {
            self.source = None;
        }
        self.stopped = true;
        self.held = false;
        self.out.clear();
        self.piece = Bytes::new();
        self.suffix = b"";
    }

    /// The caller's body, if none of it was asked for.
    pub(super) fn take_unpolled(&mut self) -> Option<Body> {
        if self.polled {
            return None;
        }
        self.source.take()
    }

    /// Asks the body for pieces while there is little to write. Answers whether it had nothing to give.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, UploadError> {
        // The head goes first: if the connection takes none of it, the body is still whole and can go elsewhere.
        if self.written == 0 || self.held || self.stopped {
            return Ok(false);
        }
        while let Some(source) = &mut self.source {
            // What is staged goes to `out`, which is written before a piece and its suffix: those must have gone first.
            if !self.piece.is_empty() || !self.suffix.is_empty() || self.out.len() >= GATHERED {
                return Ok(false);
            }
            self.polled = true;
            match source.poll_next(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Err(error))) => return Err(UploadError::Source(error)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.stage(data).map_err(UploadError::Length)?,
                    Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
                },
                Poll::Ready(None) => {
                    self.source = None;
                    let trailers = self.trailers.take();
                    self.encoder
                        .finish(trailers.as_deref(), &mut self.out)
                        .map_err(UploadError::Length)?;
                }
            }
        }
        Ok(false)
    }

    /// Frames one piece. An empty one is skipped: as a chunk it would end the body.
    fn stage(&mut self, data: Bytes) -> Result<(), EncodeError> {
        if data.is_empty() {
            return Ok(());
        }
        self.encoder.begin_data(data.len() as u64, &mut self.out)?;
        if data.len() <= COPIED {
            self.out.extend_from_slice(&data);
            self.out.put_slice(self.encoder.suffix());
        } else {
            self.piece = data;
            self.suffix = self.encoder.suffix();
        }
        Ok(())
    }

    fn poll_write(&self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let socket = Pin::new(socket);
        let written = if self.piece.is_empty() && self.suffix.is_empty() {
            ready!(socket.poll_write(cx, &self.out))?
        } else {
            let slices = [
                IoSlice::new(&self.out),
                IoSlice::new(&self.piece),
                IoSlice::new(self.suffix),
            ];
            // A writer without vectored writes takes the first slice only, so the first must hold something.
            let skip = slices.iter().take_while(|slice| slice.is_empty()).count();
            ready!(socket.poll_write_vectored(cx, slices.get(skip..).unwrap_or_default()))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(written))
    }

    fn wrote(&mut self, mut written: usize) {
        self.written += written as u64;
        let from_out = written.min(self.out.len());
        self.out.advance(from_out);
        written -= from_out;
        let from_piece = written.min(self.piece.len());
        self.piece.advance(from_piece);
        written -= from_piece;
        self.suffix = self.suffix.get(written..).unwrap_or_default();
    }
}

/// Whether the request can be sent, without writing any of it.
pub(super) fn check_request(head: &RequestHead, body: &Body) -> Result<(), EncodeError> {
    check(head, body_length(body)).map(drop)
}

/// What the head can say of the length of a body.
pub(super) fn body_length(body: &Body) -> BodyLength {
    if body.is_empty() {
        BodyLength::None
    } else {
        body.left().map_or(BodyLength::Unknown, BodyLength::Known)
    }
}

/// Pieces up to this size are copied behind the head, so that they share its write.
const COPIED: usize = 4 * 1024;

/// Writes in one turn.
const WRITES: usize = 16;

/// A buffer that grew beyond this is not kept while the connection is idle.
const LARGEST_KEPT: usize = 16 * 1024;

/// So many bytes are gathered from small pieces before they are written.
const GATHERED: usize = 16 * 1024;
