//! hyper-util's legacy client with HTTP/2 alone, and otherwise its default settings.

use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::bodies::{collect, drain};
use super::pieces::Pieces;
use super::{Slot, expect_ok};
use crate::scenario::{Failure, Target};

/// A clone of the client and the target.
pub(crate) struct Legacy {
    client: Client<HttpConnector, Pieces>,
    target: Target,
}

impl Legacy {
    async fn send(
        &self,
        method: Method,
        uri: &Uri,
        body: Pieces,
    ) -> Result<Response<Incoming>, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(uri.clone())
            .body(body)?;
        let response = self.client.request(request).await?;
        expect_ok(response.status())?;
        Ok(response)
    }
}

impl Slot for Legacy {
    type Shared = Client<HttpConnector, Pieces>;

    fn shared(_: &Target) -> Result<Self::Shared, Failure> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        Ok(builder.http2_only(true).build(connector))
    }

    async fn open(client: &Self::Shared, target: &Target) -> Result<Self, Failure> {
        Ok(Self {
            client: client.clone(),
            target: target.clone(),
        })
    }

    async fn get(&mut self) -> Result<u64, Failure> {
        let none = Pieces::of(0);
        collect(self.send(Method::GET, &self.target.small, none).await?).await
    }

    async fn download(&mut self) -> Result<u64, Failure> {
        let none = Pieces::of(0);
        drain(self.send(Method::GET, &self.target.big, none).await?).await
    }

    async fn upload(&mut self) -> Result<u64, Failure> {
        let pieces = Pieces::of(self.target.big_bytes);
        collect(self.send(Method::POST, &self.target.small, pieces).await?).await
    }
}
