//! Reads a body to its end, or to a limit.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

use super::{Body, into_trailers};
use crate::error::{Error, ErrorKind, Phase, Sent};

/// All of a body.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Collected {
    /// The data.
    pub bytes: Bytes,
    /// The trailer section, if there was one.
    pub trailers: Option<HeaderMap>,
}

/// Reads `body` to its end; more than `limit` bytes is an error. A body that comes in one piece is not copied.
pub(crate) fn collect_within(body: Body, limit: usize) -> Collecting {
    Collecting {
        body,
        limit,
        gathered: Gathered::OnePiece(Bytes::new()),
        trailers: None,
    }
}

/// A body that is being read to its end. It is no async function, because it is moved with whatever waits for it, and what the
/// compiler makes of one is three times as large.
pub(crate) struct Collecting {
    body: Body,
    limit: usize,
    gathered: Gathered,
    trailers: Option<Box<HeaderMap>>,
}

/// What of a body has come.
enum Gathered {
    OnePiece(Bytes),
    Several(BytesMut),
}

impl Future for Collecting {
    type Output = Result<Collected, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let limit = this.limit;
        loop {
            let left = this.body.left();
            if left.is_some_and(|left| left > limit as u64) {
                return Poll::Ready(Err(too_large(limit)));
            }
            let frame = ready!(this.body.poll_next(cx));
            // Nobody waits until the next one is asked for (ruling 18).
            this.body.pause();
            match frame.map(|frame| frame.map(Frame::into_data)).transpose()? {
                Some(Ok(data)) if data.len() > limit.saturating_sub(this.gathered.len()) => {
                    return Poll::Ready(Err(too_large(limit)));
                }
                Some(Ok(data)) => this.gathered.add(data, this.body.left()),
                Some(Err(frame)) => this.trailers = into_trailers(frame).map(Box::new),
                None => {
                    return Poll::Ready(Ok(Collected {
                        bytes: this.gathered.take(),
                        trailers: this.trailers.take().map(|trailers| *trailers),
                    }));
                }
            }
        }
    }
}

impl Gathered {
    fn len(&self) -> usize {
        match self {
            Self::OnePiece(bytes) => bytes.len(),
            Self::Several(bytes) => bytes.len(),
        }
    }

    /// Adds a piece, behind which so many bytes are to come.
    fn add(&mut self, piece: Bytes, left: Option<u64>) {
        match self {
            Self::OnePiece(first) if first.is_empty() => *first = piece,
            Self::OnePiece(first) => {
                let left = usize::try_from(left.unwrap_or(0)).unwrap_or(0);
                let room = first.len() + piece.len() + left.min(MAX_TRUSTED);
                let mut bytes = BytesMut::with_capacity(room);
                bytes.extend_from_slice(first);
                bytes.extend_from_slice(&piece);
                *self = Self::Several(bytes);
            }
            Self::Several(bytes) => bytes.extend_from_slice(&piece),
        }
    }

    fn take(&mut self) -> Bytes {
        match self {
            Self::OnePiece(bytes) => std::mem::take(bytes),
            Self::Several(bytes) => std::mem::take(bytes).freeze(),
        }
    }
}

/// Reads at most `limit` bytes into `into` and says whether there was more. What was read before an error stays in `into`.
pub(crate) async fn collect_start(
    body: &mut Body,
    limit: usize,
    into: &mut BytesMut,
) -> Result<bool, Error> {
    while let Some(frame) = body.next_frame().await {
        if let Ok(data) = frame?.into_data() {
            let room = limit.saturating_sub(into.len());
            into.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
            if data.len() > room {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn too_large(limit: usize) -> Error {
    Error::new(ErrorKind::TooLarge, Some(Phase::Read), Sent::All).saying(format!(
        "the response body is over the limit of {limit} bytes (max_body)"
    ))
}

/// A Content-Length is a claim: memory is taken for at most so much of it in advance.
const MAX_TRUSTED: usize = 1024 * 1024;
