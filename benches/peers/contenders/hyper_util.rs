//! hyper-util's legacy client: hyper's connections behind a pool, with its default settings.

use bytes::Bytes;
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
        Ok(Client::builder(TokioExecutor::new()).build_http())
    }

    async fn open(client: &Self::Shared, target: &Target) -> Result<Self, Failure> {
        Ok(Self {
            client: client.clone(),
            target: target.clone(),
        })
    }

    async fn get(&mut self) -> Result<u64, Failure> {
        collect(
            self.send(Method::GET, &self.target.small, Pieces::one(Bytes::new()))
                .await?,
        )
        .await
    }

    async fn post(&mut self) -> Result<u64, Failure> {
        let body = Pieces::one(self.target.post_body.clone());
        collect(self.send(Method::POST, &self.target.small, body).await?).await
    }

    async fn download(&mut self) -> Result<u64, Failure> {
        drain(
            self.send(Method::GET, &self.target.big, Pieces::one(Bytes::new()))
                .await?,
        )
        .await
    }

    async fn upload(&mut self) -> Result<u64, Failure> {
        let body = Pieces::large(&self.target);
        collect(self.send(Method::POST, &self.target.small, body).await?).await
    }
}
