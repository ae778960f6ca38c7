//! Reads a body to its end, or to a limit.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

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
pub(crate) async fn collect_within(mut body: Body, limit: usize) -> Result<Collected, Error> {
    if body.left().is_some_and(|left| left > limit as u64) {
        return Err(too_large(limit));
    }
    let mut collected = Collected::default();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.next_frame().await {
        match frame?.into_data() {
            Ok(data) if data.len() > limit.saturating_sub(collected.bytes.len() + rest.len()) => {
                return Err(too_large(limit));
            }
            Ok(data) if collected.bytes.is_empty() && rest.is_empty() => collected.bytes = data,
            Ok(data) => {
                if rest.is_empty() {
                    let first = std::mem::take(&mut collected.bytes);
                    let left = usize::try_from(body.left().unwrap_or(0))
                        .unwrap_or(0)
                        .min(MAX_TRUSTED);
                    rest.reserve(first.len() + data.len() + left);
                    rest.extend_from_slice(&first);
                }
                rest.extend_from_slice(&data);
            }
            Err(frame) => collected.trailers = into_trailers(frame),
        }
    }
    if !rest.is_empty() {
        collected.bytes = rest.freeze();
    }
    Ok(collected)
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
