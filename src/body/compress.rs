//! Request bodies in a content coding (RFC 9110 section 8.4): which codings this build has, and the body that puts one on.
//!
//! Bytes are coded whole, so that their length is known; what comes piece by piece is coded piece by piece. What a coding
//! does with bytes is in a file of its own.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::blocking::Job;
use super::factory::{Factory, Stock};
use super::{Body, Repr, Source, body_error, compress_gzip, compress_zstd};
use crate::error::{BoxFuture, Error};

/// A content coding for request bodies, see [`RequestBuilder::compress`](crate::RequestBuilder::compress).
///
/// One whose feature a build does not have is refused by `send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// gzip at level 6, its usual one: what any server that decodes at all will take. Needs the feature `gzip`.
    Gzip,
    /// zstd at level 3, its usual one: faster and smaller, for servers that are known to take it. Needs the feature `zstd`.
    Zstd,
}

/// Codes bytes. What it gives is added to `out`, which it may keep nothing of.
pub(super) trait Encoder: Send {
    fn encode(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()>;

    /// Gives what it held back.
    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()>;
}

impl Compression {
    /// The name of the coding, and of its feature.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Whether this build has it.
    pub(crate) fn is_built_in(self) -> bool {
        match self {
            Self::Gzip => compress_gzip::BUILT_IN,
            Self::Zstd => compress_zstd::BUILT_IN,
        }
    }

    fn encoder(self) -> io::Result<Box<dyn Encoder>> {
        match self {
            Self::Gzip => compress_gzip::encoder(),
            Self::Zstd => compress_zstd::encoder(),
        }
    }

    fn whole(self, data: &[u8]) -> io::Result<Bytes> {
        let mut out = Vec::new();
        let mut encoder = self.encoder()?;
        encoder.encode(data, &mut out)?;
        encoder.finish(&mut out)?;
        Ok(out.into())
    }
}

impl Body {
    /// The same body in a coding. It can be sent again if this one can.
    pub(crate) fn compressed(self, coding: Compression) -> Self {
        match self.0 {
            Repr::Empty => self,
            Repr::Full(_) | Repr::Factory(_) | Repr::Source(_) => Self::from_factory(Compressed {
                stock: Stock::new(self),
                coding,
            }),
        }
    }
}

/// A body that is coded for each attempt.
struct Compressed {
    stock: Stock,
    coding: Compression,
}

impl Factory for Compressed {
    fn make(&self) -> BoxFuture<'static, io::Result<Body>> {
        let (body, coding) = (self.stock.next(), self.coding);
        Box::pin(async move {
            let body = body?.ready().await?;
            let Some(bytes) = body.as_bytes().cloned() else {
                let encoder = coding.encoder()?;
                return Ok(Body::from_source(Compressing {
                    body,
                    encoder: Some(encoder),
                    rest: Bytes::new(),
                    trailers: None,
                }));
            };
            // What takes milliseconds is not done on a thread that runs calls.
            if bytes.len() <= STEP {
                return Ok(coding.whole(&bytes)?.into());
            }
            let coded = Job::new(move || coding.whole(&bytes)).await?;
            Ok(coded.into())
        })
    }

    fn len(&self) -> Option<u64> {
        None
    }

    fn is_replayable(&self) -> bool {
        self.stock.is_replayable()
    }
}

/// A body that is coded as it comes.
struct Compressing {
    body: Body,
    /// Until the body has ended.
    encoder: Option<Box<dyn Encoder>>,
    /// What was taken of the body and is not coded yet.
    rest: Bytes,
    trailers: Option<HeaderMap>,
}

impl Compressing {
    /// The next coded piece, of which there is none only at the end.
    fn poll_coded(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, Error>> {
        let mut out = Vec::new();
        let mut taken = 0;
        while let Some(encoder) = &mut self.encoder {
            if self.rest.is_empty() {
                match ready!(self.body.poll_next(cx)).transpose()? {
                    Some(frame) => match frame.into_data() {
                        Ok(data) => self.rest = data,
                        Err(frame) => self.trailers = frame.into_trailers().ok(),
                    },
                    None => {
                        let finished = encoder.finish(&mut out);
                        finished.map_err(|error| body_error(error.into()))?;
                        self.encoder = None;
                    }
                }
                continue;
            }
            // A body that is always ready and shrinks to almost nothing must not keep the thread.
            if taken >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let piece = self.rest.split_to(self.rest.len().min(STEP));
            taken += piece.len();
            let coded = encoder.encode(&piece, &mut out);
            coded.map_err(|error| body_error(error.into()))?;
            if !out.is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(out))
    }
}

impl Source for Compressing {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let piece = ready!(self.poll_coded(cx))?;
        if piece.is_empty() {
            return Poll::Ready(self.trailers.take().map(|map| Ok(Frame::trailers(map))));
        }
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn left(&self) -> Option<u64> {
        None
    }
}

/// So many bytes are coded at once.
const STEP: usize = 32 * 1024;

/// So many bytes are coded in one turn, if nothing comes out of them.
const TURN: usize = 8 * STEP;

#[cfg(test)]
#[cfg(all(feature = "gzip", feature = "zstd"))]
mod tests {
    use super::*;
    use std::io::Read;

    use http::HeaderValue;

    use crate::error::ErrorKind;

    const CODINGS: [Compression; 2] = [Compression::Gzip, Compression::Zstd];

    fn decode(coding: Compression, coded: &[u8], len: usize) -> Vec<u8> {
        let mut decoded = Vec::with_capacity(len + 1);
        match coding {
            Compression::Gzip => {
                let mut decoder = flate2::read::GzDecoder::new(coded);
                decoder.read_to_end(&mut decoded).unwrap();
            }
            Compression::Zstd => {
                zstd_safe::decompress(&mut decoded, coded)
                    .map_err(failure)
                    .unwrap();
            }
        }
        decoded
    }

    fn failure(code: usize) -> &'static str {
        zstd_safe::get_error_name(code)
    }

    /// Bytes that shrink, or that do not.
    fn content(len: usize, shrinks: bool) -> Vec<u8> {
        let mut random = 7_u64;
        let next = |_| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let byte = random.to_be_bytes()[0];
            if shrinks { byte % 2 } else { byte }
        };
        (0..len).map(next).collect()
    }

    #[tokio::test]
    async fn what_is_decoded_is_what_was_given() {
        for coding in CODINGS {
            for len in [1, 1000, STEP, STEP + 1, TURN + 5, 1_000_000] {
                for shrinks in [true, false] {
                    let content = content(len, shrinks);
                    let bytes = Body::from(content.clone()).compressed(coding);
                    assert!(bytes.is_replayable());
                    let made = bytes.made().unwrap().await.unwrap();
                    let known = made.left().expect("bytes have a length");
                    let coded = made.collect().await.unwrap().bytes;
                    assert_eq!(known, coded.len() as u64);
                    assert!(decode(coding, &coded, len) == content, "{coding:?} {len}");

                    let stream = Body::wrap(Body::from(content.clone())).compressed(coding);
                    assert!(!stream.is_replayable());
                    assert_eq!(stream.left(), None);
                    let coded = stream.collect().await.unwrap().bytes;
                    assert!(decode(coding, &coded, len) == content, "{coding:?} {len}");
                }
            }
        }
    }

    #[tokio::test]
    async fn trailers_stand_behind_the_last_piece_and_errors_pass() {
        for coding in CODINGS {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("1"));
            let body = Body::with_trailers("hello".into(), Some(Box::new(trailers.clone())));
            let collected = body.compressed(coding).collect().await.unwrap();
            assert_eq!(decode(coding, &collected.bytes, 5), b"hello");
            assert_eq!(collected.trailers, Some(trailers));

            let failing = Body::replay(|| Box::pin(async { Err(io::ErrorKind::NotFound.into()) }));
            let error = failing.compressed(coding).collect().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Body);
            assert_eq!(error.io_kind(), Some(io::ErrorKind::NotFound));
        }
    }
}
