//! JSON both ways: requests, responses and the bodies of error statuses.

use http::HeaderValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RequestBuilder;
use crate::body::Body;
use crate::error::{Error, ErrorKind, Phase, Result, Sent, StatusError};
use crate::response::Response;

impl RequestBuilder {
    /// Sends `value` as JSON, with `content-type: application/json` unless one is set on the request. A value that JSON cannot express is
    /// reported by `send`.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let client = sockeye::Client::new();
    /// client.post("https://api.example.com/users").json(&[1, 2, 3]).await?;
    /// # Ok(()) }
    /// ```
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        let body = serde_json::to_vec(value)
            .map(Body::from)
            .map_err(|error| Error::invalid(format!("json: {error}")));
        self.with_body(body, HeaderValue::from_static("application/json"))
    }
}

impl Response {
    /// The whole body, read as JSON whatever its content type. Limited as [`bytes`](Self::bytes) is; a body that is not
    /// the expected JSON fails with [`ErrorKind::Decode`], naming status, content type, place and the bytes around it.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        let status = self.status();
        let origin = self.target.origin();
        let content_type = self.header("content-type").map(media_type);
        let bytes = self.bytes().await?;
        decode(&bytes).map_err(|error| {
            let kind = content_type.as_deref().unwrap_or("no content type");
            let text = format!(
                "the body of status {} ({}) is not the expected JSON: {error}",
                status.as_u16(),
                kind.escape_debug()
            );
            Error::new(ErrorKind::Decode, Some(Phase::Read), Sent::All)
                .saying(text)
                .at(&origin)
        })
    }
}

impl StatusError {
    /// The kept body, read as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        decode(&self.body).map_err(|error| {
            let text = format!(
                "the body of status {} is not the expected JSON: {error}",
                self.status.as_u16()
            );
            Error::new(ErrorKind::Decode, Some(Phase::Read), Sent::All).saying(text)
        })
    }
}

/// Type and subtype without parameters, cut to what is worth showing.
fn media_type(value: &str) -> String {
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.chars().take(64).collect()
}

/// The value, or what is wrong and the bytes around it.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_shown_with_what_is_around_it() {
        let error = decode::<Vec<u32>>(b"[1,\n 2, oops]").unwrap_err();
        assert!(error.contains("line 2 column 5"), "{error}");
        assert!(error.contains("oops"), "{error}");
        assert_eq!(
            decode::<u32>(b"").unwrap_err(),
            "EOF while parsing a value at line 1 column 0"
        );
    }
}
