//! Reading the bodies that hyper gives.

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::scenario::Failure;

/// The length of the collected body.
pub(crate) async fn collect(response: Response<Incoming>) -> Result<u64, Failure> {
    Ok(response.into_body().collect().await?.to_bytes().len() as u64)
}

/// The length of a body read frame by frame.
pub(crate) async fn drain(response: Response<Incoming>) -> Result<u64, Failure> {
    let mut body = response.into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame?.data_ref().map_or(0, Bytes::len) as u64;
    }
    Ok(received)
}
