//! reqwest with its default settings, built without optional features, so that nothing is decoded.

use bytes::Bytes;
use reqwest::{Client, RequestBuilder, Response, Url};

use super::pieces::Pieces;
use super::{Slot, expect_ok};
use crate::scenario::{Failure, Target};

/// A clone of the client and the target, in the form that costs reqwest least: its own parsed `Url`.
pub(crate) struct Reqwest {
    client: Client,
    small: Url,
    big: Url,
    post_body: Bytes,
    target: Target,
}

impl Slot for Reqwest {
    type Shared = Client;

    fn shared(_: &Target) -> Result<Client, Failure> {
        Ok(Client::builder().build()?)
    }

    async fn open(client: &Client, target: &Target) -> Result<Self, Failure> {
        Ok(Self {
            client: client.clone(),
            small: target.small.to_string().parse()?,
            big: target.big.to_string().parse()?,
            post_body: target.post_body.clone(),
            target: target.clone(),
        })
    }

    async fn get(&mut self) -> Result<u64, Failure> {
        collect(send(self.client.get(self.small.clone())).await?).await
    }

    async fn post(&mut self) -> Result<u64, Failure> {
        let request = self
            .client
            .post(self.small.clone())
            .body(self.post_body.clone());
        collect(send(request).await?).await
    }

    async fn download(&mut self) -> Result<u64, Failure> {
        let mut response = send(self.client.get(self.big.clone())).await?;
        let mut received = 0;
        while let Some(chunk) = response.chunk().await? {
            received += chunk.len() as u64;
        }
        Ok(received)
    }

    async fn upload(&mut self) -> Result<u64, Failure> {
        let body = reqwest::Body::wrap(Pieces::large(&self.target));
        collect(send(self.client.post(self.small.clone()).body(body)).await?).await
    }
}

async fn send(request: RequestBuilder) -> Result<Response, Failure> {
    let response = request.send().await?;
    expect_ok(response.status())?;
    Ok(response)
}

async fn collect(response: Response) -> Result<u64, Failure> {
    Ok(response.bytes().await?.len() as u64)
}
