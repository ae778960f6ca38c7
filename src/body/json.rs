//! JSON out of bytes, with an error that shows where it stopped being what was expected; and JSON line by line.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use http::HeaderMap;
use serde::de::DeserializeOwned;

use super::line_stream::RawLines;
use super::lines::BOM;
use super::pieces::{Items, Pieces, next_item};
use crate::error::Result;

/// The value, or what is wrong and the bytes around it. A mark (BOM) before it is passed over (RFC 8259 section 8.1).
pub(crate) fn decode_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|error| {
        match excerpt(bytes, error.line(), error.column()) {
            Some(excerpt) => format!("{error}, near \"{excerpt}\""),
            None => error.to_string(),
        }
    })
}

/// Up to 20 bytes on each side of a place, escaped.
fn excerpt(bytes: &[u8], line: usize, column: usize) -> Option<String> {
    let lines_before = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.checked_sub(1)?);
    let at = lines_before.map(<[u8]>::len).sum::<usize>() + column.saturating_sub(1);
    let around = bytes.get(at.saturating_sub(20)..bytes.len().min(at + 20))?;
    (!around.is_empty()).then(|| around.escape_ascii().to_string())
}

/// The values of a response that has one of them on each line. Made by [`Response::ndjson`](crate::Response::ndjson).
///
/// Empty lines are passed over. A line that is not the expected JSON is a [`Decode`](crate::ErrorKind::Decode) error that names
/// the line, and the next call goes on with the line behind it; any other error is the end.
pub struct Ndjson<T> {
    lines: RawLines,
    decode: fn(&[u8]) -> Result<T, String>,
}

impl<T: DeserializeOwned> Ndjson<T> {
    pub(crate) fn new(pieces: Pieces) -> Self {
        Self {
            lines: RawLines::new(pieces),
            decode: decode_json::<T>,
        }
    }
}

impl<T> Ndjson<T> {
    /// Bytes of one line, without its end. Default 1 MiB; a longer one is a [`TooLarge`](crate::ErrorKind::TooLarge) error.
    #[must_use]
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.lines.decoder.max_line = bytes;
        self
    }

    /// The next value; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<T>> {
        next_item(self).await
    }

    /// The trailer section, once the end has been read.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.lines.pieces.trailers()
    }
}

impl<T> Items for Ndjson<T> {
    type Item = Result<T>;

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(line) = ready!(self.lines.poll_line(cx)?) else {
                return Poll::Ready(None);
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let value = (self.decode)(&line).map_err(|error| {
                let number = self.lines.decoder.count();
                let what = format!("line {number} of the body is not the expected JSON: {error}");
                self.lines.pieces.not_as_expected(what)
            });
            return Poll::Ready(Some(value));
        }
    }

    fn pieces(&mut self) -> &mut Pieces {
        &mut self.lines.pieces
    }
}

impl<T> Stream for Ndjson<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(cx)
    }
}

impl<T> fmt::Debug for Ndjson<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ndjson")
            .field("read", &self.lines.decoder.count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_shown_with_what_is_around_it() {
        let error = decode_json::<Vec<u32>>(b"[1,\n 2, oops]").unwrap_err();
        assert!(error.contains("line 2 column 5"), "{error}");
        assert!(error.contains("oops"), "{error}");
        assert_eq!(
            decode_json::<u32>(b"").unwrap_err(),
            "EOF while parsing a value at line 1 column 0"
        );
    }

    #[test]
    fn a_mark_before_it_is_passed_over() {
        assert_eq!(decode_json::<u32>(b"\xef\xbb\xbf7"), Ok(7));
    }
}
