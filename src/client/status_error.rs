//! Turns a response with an error status into an error that keeps its fields and the beginning of its body (design D11).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::status::is_error;
use crate::body::collect_start;
use crate::error::{Error, Result, StatusError};
use crate::response::{Content, Response};

impl Response {
    /// This response, or the error that a status of 400 or more is: for those who turned the default off. The error reads
    /// up to 64 KiB of the body, for at most 2 s. It does not know how the request was made, so its
    /// [`is_retryable`](Error::is_retryable) is false; that of an error which [`send`](crate::RequestBuilder::send) gives does.
    pub async fn error_for_status(self) -> Result<Self> {
        if !is_error(self.status()) {
            return Ok(self);
        }
        let (origin, attempts) = (self.target.origin(), self.attempts());
        Err(into_error(self).await.at(&origin).tried(attempts))
    }
}

/// The error of a response, with its fields and the beginning of its body. A body that stalls or breaks is kept as far as
/// it came: the status is what went wrong.
pub(super) async fn into_error(mut response: Response) -> Error {
    let (body, truncated) = match &mut response.content {
        Content::Kept(_) => {
            let mut body = response.head.kept_body();
            let truncated = body.len() > MAX_KEPT;
            body.truncate(MAX_KEPT);
            (body, truncated)
        }
        Content::Apart(body) => {
            let mut start = BytesMut::new();
            let read = timeout(MAX_WAIT, collect_start(body, MAX_KEPT, &mut start)).await;
            let truncated = !matches!(read, Ok(Ok(false)));
            (start.freeze(), truncated)
        }
        Content::Over(_) | Content::Switched(_) => (Bytes::new(), false),
    };
    status_error(&mut response, body, truncated)
}

fn status_error(response: &mut Response, body: Bytes, truncated: bool) -> Error {
    let status = StatusError {
        status: response.status(),
        headers: std::mem::take(response.headers_mut()),
        body,
        truncated,
    };
    Error::from_status(status)
}

/// Bytes of the body that the error keeps.
const MAX_KEPT: usize = 64 * 1024;

/// How long the body of an error is waited for; the call's own read and total limits may be shorter.
const MAX_WAIT: Duration = Duration::from_secs(2);
