//! Writes a request: the head, then the body as it comes, framed as the head says.
//!
//! Small pieces are gathered with the head into one write, large ones go out beside it without a copy, several in one write if
//! the body has them ready. Reading the response goes on in between; `http1.rs` drives both.

use std::collections::VecDeque;
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
use crate::head::{DefaultFields, Forwarding, RequestHead};
use crate::socket::Socket;

/// A request on its way out.
pub(super) struct Upload {
    /// Encoded bytes and small pieces; the memory is kept between requests.
    out: BytesMut,
    /// Large pieces, which stand among them.
    pieces: VecDeque<Piece>,
    /// How many of them may be asked for ahead of a write: more with each that the connection takes whole, one as soon as it does
    /// not. So a body is never far ahead of a peer that is slow.
    burst: usize,
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

/// A large piece of a body, as the caller gave it.
struct Piece {
    /// How many bytes of `out` stand between it and the piece before.
    before: usize,
    data: Bytes,
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
            pieces: VecDeque::new(),
            burst: 1,
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
        self.pieces = VecDeque::new();
    }

    /// Encodes the head and takes the body if it is a stream; bytes are lent, so that they can be sent again.
    pub(super) fn begin(
        &mut self,
        head: &RequestHead,
        defaults: &DefaultFields,
        body: &mut Body,
        forwarding: Option<&Forwarding>,
    ) -> Result<EncodedHead, EncodeError> {
        self.out.clear();
        self.burst = 1;
        let length = body_length(body);
        let mut encoded = encode(&mut self.out, head, defaults, length, forwarding)?;
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
                    self.push(bytes.clone());
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
            if self.out.is_empty() && self.pieces.is_empty() {
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
            && self.pieces.is_empty()
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
        self.pieces.clear();
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
        // The head goes first: if the connection takes none of it, the body is still whole and can go elsewhere. And what is left
        // of a write goes before more is asked for.
        if self.written == 0 || self.held || self.stopped || !self.pieces.is_empty() {
            return Ok(false);
        }
        while let Some(source) = &mut self.source {
            let is_enough = self.out.len() >= GATHERED
                || self.pieces.len() >= self.burst
                || self
                    .pieces
                    .iter()
                    .map(|piece| piece.data.len())
                    .sum::<usize>()
                    >= GATHERED_PIECES;
            if is_enough {
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
        } else {
            self.push(data);
        }
        self.out.put_slice(self.encoder.suffix());
        Ok(())
    }

    /// Puts a large piece behind all that is to be written before it.
    fn push(&mut self, data: Bytes) {
        let placed: usize = self.pieces.iter().map(|piece| piece.before).sum();
        let before = self.out.len().saturating_sub(placed);
        self.pieces.push_back(Piece { before, data });
    }

    fn poll_write(&self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let socket = Pin::new(socket);
        let written = if self.pieces.is_empty() {
            ready!(socket.poll_write(cx, &self.out))?
        } else {
            let mut slices = [IoSlice::new(&[]); 2 * MOST_PIECES + 1];
            let filled = self.fill(&mut slices);
            ready!(socket.poll_write_vectored(cx, slices.get(..filled).unwrap_or_default()))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(written))
    }

    /// Lists what is to be written, in order, and says how many slices that takes. None is empty: a writer without vectored
    /// writes takes the first alone, and an empty one would look like a connection that takes nothing.
    fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut rest = &self.out[..];
        let mut filled = 0;
        let mut add = |bytes: &'a [u8]| {
            if let Some(slice) = slices.get_mut(filled).filter(|_| !bytes.is_empty()) {
                *slice = IoSlice::new(bytes);
                filled += 1;
            }
        };
        for piece in &self.pieces {
            let (before, behind) = rest.split_at_checked(piece.before).unwrap_or((rest, &[]));
            add(before);
            add(&piece.data);
            rest = behind;
        }
        add(rest);
        filled
    }

    fn wrote(&mut self, mut written: usize) {
        self.written += written as u64;
        while let Some(piece) = self.pieces.front_mut() {
            let from_out = written.min(piece.before);
            self.out.advance(from_out);
            piece.before -= from_out;
            written -= from_out;
            let from_piece = written.min(piece.data.len());
            piece.data.advance(from_piece);
            written -= from_piece;
            if !piece.data.is_empty() {
                self.burst = 1;
                return;
            }
            self.pieces.pop_front();
        }
        self.out.advance(written.min(self.out.len()));
        self.burst = match self.out.is_empty() {
            true => (2 * self.burst).min(MOST_PIECES),
            false => 1,
        };
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
const WRITES: usize = 8;

/// A buffer that grew beyond this is not kept while the connection is idle.
const LARGEST_KEPT: usize = 16 * 1024;

/// So many bytes are gathered from small pieces before they are written.
const GATHERED: usize = 16 * 1024;

/// So many bytes of large pieces, which the caller made and which wait for the connection, are asked for before they are written.
const GATHERED_PIECES: usize = 512 * 1024;

/// No more large pieces than this share a write.
const MOST_PIECES: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_core::Stream;
    use http::Method;
    use tokio::io::{AsyncRead, ReadBuf};

    use super::*;
    use crate::url::UrlInput;

    /// What was written, and in writes of how many bytes.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<(Vec<u8>, Vec<usize>)>>);

    /// A connection that takes so many bytes at a time.
    struct Taker {
        written: Written,
        at_most: usize,
        vectored: bool,
    }

    impl AsyncRead for Taker {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Taker {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            assert!(slices.iter().all(|slice| !slice.is_empty()));
            let taken = if self.vectored { slices.len() } else { 1 };
            let bytes = slices.iter().take(taken).flat_map(|slice| slice.iter());
            let mut written = self.written.0.lock().unwrap();
            let before = written.0.len();
            written.0.extend(bytes.take(self.at_most));
            let len = written.0.len() - before;
            written.1.push(len);
            Poll::Ready(Ok(len))
        }

        fn is_write_vectored(&self) -> bool {
            self.vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Pieces of these sizes, all of them there, each of a letter of its own.
    struct Ready(std::vec::IntoIter<(usize, u8)>);

    impl Stream for Ready {
        type Item = io::Result<Bytes>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            let piece = self.0.next();
            Poll::Ready(piece.map(|(size, letter)| Ok(Bytes::from(vec![letter; size]))))
        }
    }

    const SIZES: [usize; 20] = [
        10, 5000, 70_000, 0, 1, 4096, 4097, 65_536, 65_536, 65_536, 65_536, 65_536, 65_536,
        400_000, 3, 5000, 5000, 4000, 5000, 2,
    ];

    /// What a body of pieces of these sizes looks like on the wire behind the head, and in which writes.
    fn sent(sized: bool, at_most: usize, vectored: bool) -> (Vec<u8>, Vec<usize>) {
        let pieces: Vec<_> = SIZES.into_iter().zip(b'a'..).collect();
        let pieces = Ready(pieces.into_iter());
        let mut body = match sized {
            true => Body::sized_stream(SIZES.iter().sum::<usize>() as u64, pieces),
            false => Body::stream(pieces),
        };
        let head = RequestHead {
            method: Method::POST,
            target: UrlInput::Text("http://h/".into())
                .parse(None)
                .unwrap()
                .target,
            headers: HeaderMap::new(),
            asks: None,
        };
        let written = Written::default();
        let mut socket = Socket::from_io(Taker {
            written: written.clone(),
            at_most,
            vectored,
        });
        let mut upload = Upload::new();
        let encoded = upload.begin(&head, &DefaultFields::default(), &mut body, None);
        assert!(encoded.is_ok());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            match upload.poll(&mut socket, &mut cx) {
                Ok(Writing::Done) => break,
                Ok(Writing::Blocked) => {}
                _ => panic!("the body is there, and the connection takes it"),
            }
        }
        assert!(upload.is_done());
        let (bytes, writes) = written.0.lock().unwrap().clone();
        assert_eq!(upload.written(), bytes.len() as u64);
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        (bytes[head.unwrap() + 4..].to_vec(), writes)
    }

    #[test]
    fn pieces_of_all_sizes_go_out_in_order_however_the_connection_takes_them() {
        let pieces = SIZES.into_iter().zip(b'a'..);
        let content: Vec<u8> = pieces
            .clone()
            .flat_map(|(size, letter)| vec![letter; size])
            .collect();
        let chunked = pieces.filter(|(size, _)| *size > 0);
        let chunked = chunked.map(|(size, letter)| {
            let content = vec![letter; size];
            [format!("{size:x}\r\n").as_bytes(), &content, b"\r\n"].concat()
        });
        let mut chunked: Vec<u8> = chunked.flatten().collect();
        chunked.extend(b"0\r\n\r\n");
        for at_most in [7, 4095, 65_536, 65_537, 1 << 20] {
            for vectored in [false, true] {
                assert!(sent(true, at_most, vectored).0 == content, "{at_most}");
                assert!(sent(false, at_most, vectored).0 == chunked, "{at_most}");
            }
        }
    }

    #[test]
    fn large_pieces_share_a_write_up_to_a_limit() {
        let (_, writes) = sent(true, usize::MAX, true);
        // The head goes alone, then two large pieces and what is small, then four, then those up to the one that makes it more
        // than 512 KiB.
        let more = [
            10 + 5000 + 70_000,
            1 + 4096 + 4097 + 3 * 65_536,
            3 * 65_536 + 400_000,
            3 + 5000 + 5000 + 4000 + 5000 + 2,
        ];
        assert_eq!(writes[1..], more, "{writes:?}");
        let (_, alone) = sent(true, usize::MAX, false);
        assert!(alone.len() > writes.len(), "{alone:?}");
    }
}
