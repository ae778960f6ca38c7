//! hyper-util's legacy client, keeping every connection; it has no timer, so none is ever too old.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tower_service::Service;

use super::{Pooled, expect_ok};
use crate::instant::{Dialler, Instant};
use crate::scenario::Failure;

/// A clone of the client.
#[derive(Clone)]
pub(crate) struct Legacy<C>(Client<C, Empty<Bytes>>);

impl Legacy<HttpConnector> {
    /// One over TCP that keeps `most` connections to an origin.
    pub(crate) fn keeping(most: usize) -> Self {
        Self(
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(None)
                .pool_max_idle_per_host(most)
                .build_http(),
        )
    }
}

impl Legacy<Instantly> {
    /// One that keeps every connection, on peers that answer at once.
    pub(crate) fn instant(dialler: Dialler) -> Self {
        Self(
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(None)
                .pool_max_idle_per_host(usize::MAX)
                .build(Instantly(dialler)),
        )
    }
}

impl<C: Connect + Clone + Send + Sync + 'static> Pooled for Legacy<C> {
    type Response = hyper::Response<Incoming>;

    async fn begin(&self, uri: &Uri) -> Result<Self::Response, Failure> {
        let request = Request::builder().uri(uri.clone()).body(Empty::new())?;
        let response = self.0.request(request).await?;
        expect_ok(response.status())?;
        Ok(response)
    }

    async fn finish(response: Self::Response) -> Result<u64, Failure> {
        Ok(response.into_body().collect().await?.to_bytes().len() as u64)
    }
}

/// The connector of the peer that answers at once.
#[derive(Clone)]
pub(crate) struct Instantly(Dialler);

impl Service<Uri> for Instantly {
    type Response = TokioIo<Instant>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        ready(Ok(TokioIo::new(self.0.dial())))
    }
}
