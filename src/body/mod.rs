//! The body of a request or a response: one type both ways.
//!
//! A body hides where its bytes come from behind `Source`, so that a response body can carry its connection although this
//! folder knows no pool. `collect.rs` reads a body to its end within a limit; `factory.rs` makes bodies that can be sent
//! again, `file.rs` those of files; `progress.rs` watches one; `multipart.rs` puts several into a form, `compress.rs` one into a
//! coding. `decompress.rs` says which content codings are known and takes them off, with one file a coding, and `decoded.rs`
//! puts it between a source and its reader. The adapters of a response stand on `pieces.rs`: bytes as they come there,
//! `reader.rs`, lines (`line_stream.rs` on `lines.rs`), JSON (`json.rs`), events (`events.rs` on `sse.rs`); `text.rs` and
//! `charset.rs` make text of a whole body.

mod ahead;
mod blocking;
#[cfg(feature = "brotli")]
mod brotli;
#[cfg(feature = "charset")]
mod charset;
#[cfg(all(test, any(feature = "gzip", feature = "brotli", feature = "zstd")))]
mod coding_checks;
mod collect;
mod compress;
#[cfg(feature = "gzip")]
mod compress_gzip;
#[cfg(feature = "zstd")]
mod compress_zstd;
mod decoded;
mod decompress;
#[cfg(all(feature = "json", feature = "sse"))]
mod event_json;
#[cfg(feature = "sse")]
mod events;
mod factory;
mod file;
#[cfg(feature = "gzip")]
mod flate;
#[cfg(feature = "json")]
mod json;
mod lent;
mod line_stream;
mod lines;
#[cfg(feature = "multipart")]
mod multipart;
#[cfg(not(feature = "charset"))]
mod no_charset;
#[cfg(not(all(feature = "gzip", feature = "zstd")))]
mod no_coding;
mod pieces;
mod progress;
mod reader;
#[cfg(feature = "sse")]
mod sse;
mod text;
#[cfg(feature = "zstd")]
mod zstd;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::error::{BoxError, Error, ErrorKind, Phase, Sent};

#[cfg(feature = "sse")]
pub use events::Events;
use factory::{Factory, Making, exact};
#[cfg(feature = "json")]
pub use json::Ndjson;
#[cfg(feature = "json")]
pub(crate) use json::decode_json;
pub use line_stream::Lines;
#[cfg(feature = "test-util")]
pub(crate) use lines::LineDecoder;
#[cfg(not(feature = "charset"))]
use no_charset as charset;
#[cfg(not(feature = "gzip"))]
use no_coding as compress_gzip;
#[cfg(not(feature = "zstd"))]
use no_coding as compress_zstd;
pub use pieces::BytesStream;
pub(crate) use pieces::Pieces;
pub use reader::BodyReader;
#[cfg(feature = "sse")]
pub use sse::Event;
#[cfg(all(feature = "sse", feature = "test-util"))]
pub(crate) use sse::EventDecoder;
pub(crate) use text::decode_text;

pub(crate) use ahead::read_ahead;

pub use collect::Collected;
pub(crate) use collect::{collect_start, collect_within};
pub use compress::Compression;
pub(crate) use decoded::Decoding;
pub(crate) use decompress::{Accepted, Applied};
#[cfg(feature = "test-util")]
pub(crate) use decompress::{Decoder, DecompressError};
pub(crate) use lent::Lent;
#[cfg(feature = "multipart")]
pub use multipart::{Multipart, Part};

/// The body of a request or of a response.
///
/// A body made from bytes or by a function can be sent again when a connection turns out to be dead; one made from a stream can
/// be sent once. It implements [`http_body::Body`].
///
/// ```
/// use sockeye::Body;
///
/// let empty = Body::empty();
/// let text = Body::from("hello");
/// let bytes: Body = vec![1, 2, 3].into();
/// # let _ = (empty, text, bytes);
/// ```
#[derive(Default)]
pub struct Body(Repr);

#[derive(Default)]
enum Repr {
    #[default]
    Empty,
    Full(Bytes),
    /// The mutex is never locked: `get_mut` alone makes a stream that is only `Send` part of a `Sync` body.
    Source(Mutex<Box<Coded<dyn Source>>>),
    /// Made when it is sent.
    Factory(Arc<dyn Factory>),
}

/// A source, and what decodes its bytes if they are coded: in one box, which is there before a response's head has said that
/// they are.
struct Coded<S: ?Sized> {
    decoding: Option<Box<Decoding>>,
    source: S,
}

impl Coded<dyn Source> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.decoding {
            None => self.source.poll_frame(cx),
            Some(decoding) => decoding.poll_frame(&mut self.source, cx),
        }
    }

    /// How much content coded bytes hold is known when they are decoded.
    fn left(&self) -> Option<u64> {
        match &self.decoding {
            None => self.source.left(),
            Some(_) => None,
        }
    }
}

/// Where the frames of a body come from.
pub(crate) trait Source: Send {
    /// The next frame. After `None` or an error it is not called again.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>>;

    /// Bytes of data still to come, where that is known.
    fn left(&self) -> Option<u64>;

    /// Whoever waited for a frame has stopped; the time until the next poll is not time that a read waited.
    fn pause(&mut self) {}
}

impl Body {
    /// No body. A POST, PUT or PATCH then says `content-length: 0`.
    pub const fn empty() -> Self {
        Self(Repr::Empty)
    }

    /// A body of unknown length; HTTP/1.1 sends it in chunks. Each item is one piece; an error of the stream ends the call
    /// with [`ErrorKind::Body`]. It is polled only while the connection takes more.
    ///
    /// ```
    /// use sockeye::Body;
    /// # struct Lines;
    /// # impl futures_core::Stream for Lines {
    /// #     type Item = Result<String, std::io::Error>;
    /// #     fn poll_next(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
    /// #         std::task::Poll::Ready(None)
    /// #     }
    /// # }
    /// let body = Body::stream(Lines);
    /// ```
    pub fn stream<S, B, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes>,
        E: Into<BoxError>,
    {
        Self::from_source(StreamSource(Box::pin(stream)))
    }

    /// A stream of exactly `len` bytes. One byte more or less ends the call with [`ErrorKind::Body`], and no byte beyond
    /// the length is ever sent.
    pub fn sized_stream<S, B, E>(len: u64, stream: S) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes>,
        E: Into<BoxError>,
    {
        exact(Self::stream(stream), len)
    }

    /// Any body of the `http_body` kind. Its exact size, if it knows that, becomes the content length, which it is held to; else
    /// HTTP/1.1 sends it in chunks, and its trailers behind the last one. An error of it ends the call with
    /// [`ErrorKind::Body`].
    ///
    /// ```
    /// use sockeye::Body;
    ///
    /// # fn forward(incoming: Body) -> Body {
    /// Body::wrap(incoming)
    /// # }
    /// ```
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Error: Into<BoxError>> + Send + 'static,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self::from_source(Wrapped(Box::pin(body)))
    }

    pub(crate) fn from_source(source: impl Source + 'static) -> Self {
        Self(Repr::Source(Mutex::new(Box::new(Coded {
            decoding: None,
            source,
        }))))
    }

    /// The same body with its content codings taken off, as it is read.
    pub(crate) fn decoded(self, decoding: Decoding) -> Self {
        let mut body = match self.0 {
            Repr::Full(bytes) => Self::from_source(Arrived {
                bytes,
                trailers: None,
            }),
            Repr::Empty | Repr::Source(_) | Repr::Factory(_) => self,
        };
        if let Repr::Source(source) = &mut body.0 {
            if let Ok(coded) = source.get_mut() {
                coded.decoding = Some(Box::new(decoding));
            }
        }
        body
    }

    /// A body that has arrived, with the trailers that came behind it.
    pub(crate) fn with_trailers(bytes: Bytes, trailers: Option<Box<HeaderMap>>) -> Self {
        match trailers {
            None => Self::from(bytes),
            Some(trailers) => Self::from_source(Arrived {
                bytes,
                trailers: Some(trailers),
            }),
        }
    }

    /// The bytes, where the body is nothing but bytes.
    pub(crate) fn as_bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Repr::Full(bytes) => Some(bytes),
            Repr::Empty | Repr::Source(_) | Repr::Factory(_) => None,
        }
    }

    /// Whether there is certainly nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.0 {
            Repr::Empty => true,
            Repr::Full(bytes) => bytes.is_empty(),
            Repr::Source(_) | Repr::Factory(_) => false,
        }
    }

    /// Whether it can be sent a second time.
    pub(crate) fn is_replayable(&self) -> bool {
        match &self.0 {
            Repr::Empty | Repr::Full(_) => true,
            Repr::Source(_) => false,
            Repr::Factory(factory) => factory.is_replayable(),
        }
    }

    /// Bytes of data still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match &self.0 {
            Repr::Empty => Some(0),
            Repr::Full(bytes) => Some(bytes.len() as u64),
            Repr::Source(source) => source.lock().ok()?.left(),
            Repr::Factory(factory) => factory.len(),
        }
    }

    /// As [`http_body::Body::poll_frame`], without the pin that nothing here needs.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Repr::Factory(factory) = &self.0 {
            *self = Self::from_source(Making::begin(factory));
        }
        let frame = match &mut self.0 {
            Repr::Empty | Repr::Factory(_) => return Poll::Ready(None),
            Repr::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            Repr::Source(source) => match source.get_mut() {
                Ok(source) => std::task::ready!(source.poll_frame(cx)),
                Err(_) => None,
            },
        };
        // After the end, an error or the only piece there is nothing left that could be polled.
        if !matches!(frame, Some(Ok(_))) || matches!(self.0, Repr::Full(_)) {
            self.0 = Repr::Empty;
        }
        Poll::Ready(frame)
    }

    /// The next frame. Dropping the future loses nothing, and stops the clock of the read limit (ruling 18).
    pub(crate) async fn next_frame(&mut self) -> Option<Result<Frame<Bytes>, Error>> {
        struct Waiting<'a>(&'a mut Body);

        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.pause();
            }
        }

        let waiting = Waiting(self);
        poll_fn(|cx| waiting.0.poll_next(cx)).await
    }

    /// Whoever waited for a frame has stopped.
    pub(crate) fn pause(&mut self) {
        if let Repr::Source(source) = &mut self.0 {
            if let Ok(coded) = source.get_mut() {
                coded.source.pause();
            }
        }
    }

    /// Reads the body to its end, without a limit; for a response prefer `Response::bytes`, which has one.
    pub async fn collect(self) -> Result<Collected, Error> {
        collect_within(self, usize::MAX).await
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.left()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies hold secrets; their sizes do not.
        match &self.0 {
            Repr::Empty => f.write_str("Body::Empty"),
            Repr::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Repr::Source(_) => f.write_str("Body::Stream"),
            Repr::Factory(_) => f.write_str("Body::Factory"),
        }
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Repr::Full(bytes))
    }
}

macro_rules! from_bytes {
    ($($from:ty),*) => {
        $(impl From<$from> for Body {
            fn from(bytes: $from) -> Self {
                Self(Repr::Full(Bytes::from(bytes)))
            }
        })*
    };
}

from_bytes!(Vec<u8>, String, &'static str, &'static [u8]);

/// A body that has arrived, with trailers.
struct Arrived {
    bytes: Bytes,
    trailers: Option<Box<HeaderMap>>,
}

impl Source for Arrived {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = if self.bytes.is_empty() {
            self.trailers
                .take()
                .map(|trailers| Frame::trailers(*trailers))
        } else {
            Some(Frame::data(std::mem::take(&mut self.bytes)))
        };
        Poll::Ready(frame.map(Ok))
    }

    fn left(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }
}

/// A body of the user's.
struct Wrapped<B>(Pin<Box<B>>);

impl<B> Source for Wrapped<B>
where
    B: http_body::Body<Error: Into<BoxError>> + Send,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = std::task::ready!(self.0.as_mut().poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
            Err(error) => Err(body_error(error.into())),
        }))
    }

    fn left(&self) -> Option<u64> {
        self.0.size_hint().exact()
    }
}

fn body_error(cause: BoxError) -> Error {
    Error::new(ErrorKind::Body, Some(Phase::Write), Sent::Part).because_of(cause)
}

/// A stream of the user's.
struct StreamSource<S>(Pin<Box<S>>);

impl<S, B, E> Source for StreamSource<S>
where
    S: Stream<Item = Result<B, E>> + Send,
    B: Into<Bytes>,
    E: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let item = std::task::ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(item.map(|item| match item {
            Ok(bytes) => Ok(Frame::data(bytes.into())),
            Err(error) => Err(body_error(error.into())),
        }))
    }

    fn left(&self) -> Option<u64> {
        None
    }
}

/// The trailers of a frame, if that is what it is.
pub(crate) fn into_trailers(frame: Frame<Bytes>) -> Option<HeaderMap> {
    frame.into_trailers().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn a_full_body_is_one_frame_and_then_the_end() {
        let mut body = Body::from("abc");
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(body.left(), Some(3));
        let Poll::Ready(Some(Ok(frame))) = body.poll_next(&mut cx) else {
            panic!("a frame expected");
        };
        assert_eq!(frame.into_data().ok(), Some(Bytes::from("abc")));
        assert!(matches!(body.poll_next(&mut cx), Poll::Ready(None)));
        assert!(body.is_empty());
    }

    #[test]
    fn a_body_is_send_and_sync_whatever_is_in_it() {
        fn check<T: Send + Sync>() {}
        check::<Body>();
    }

    #[test]
    fn debug_shows_sizes_only() {
        assert_eq!(format!("{:?}", Body::from("secret")), "Body::Full(6 bytes)");
    }
}
