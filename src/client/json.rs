//! JSON both ways: requests, responses and the bodies of error statuses.

use http::HeaderValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RequestBuilder;
use crate::body::{Body, Ndjson, decode_json};
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
        let content_type = self.media_type();
        let bytes = self.bytes().await?;
        decode_json(&bytes).map_err(|error| {
            let text = format!(
                "the body of status {} ({content_type}) is not the expected JSON: {error}",
                status.as_u16()
            );
            Error::new(ErrorKind::Decode, Some(Phase::Read), Sent::All)
                .saying(text)
                .at(&origin)
        })
    }

    /// The values of a body that has one JSON value on each line (`application/x-ndjson`), as they arrive; the content type is
    /// not looked at. There is no limit to how many there are, and one line may have a megabyte: see [`Ndjson`].
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// #[derive(serde::Deserialize)]
    /// struct Row { id: u64 }
    ///
    /// let client = sockeye::Client::new();
    /// let mut rows = client.get("https://api.example.com/export").send().await?.ndjson::<Row>();
    /// while let Some(row) = rows.next().await {
    ///     println!("{}", row?.id);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn ndjson<T: DeserializeOwned>(self) -> Ndjson<T> {
        Ndjson::new(self.into_pieces())
    }
}

impl StatusError {
    /// The kept body, read as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        decode_json(&self.body).map_err(|error| {
            let text = format!(
                "the body of status {} is not the expected JSON: {error}",
                self.status.as_u16()
            );
            Error::new(ErrorKind::Decode, Some(Phase::Read), Sent::All).saying(text)
        })
    }
}
