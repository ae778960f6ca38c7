//! Sockeye with its default settings: every default timeout, limit and statistic is on.

use bytes::Bytes;
use sockeye::{Body, Client, RequestBuilder, Response};

use super::pieces::Pieces;
use super::{Slot, expect_ok};
use crate::scenario::{Failure, Target};

/// A clone of the client and the target.
pub(crate) struct Sockeye {
    client: Client,
    target: Target,
}

impl Slot for Sockeye {
    type Shared = Client;

    fn shared(_: &Target) -> Result<Client, Failure> {
        Ok(Client::new())
    }

    async fn open(client: &Client, target: &Target) -> Result<Self, Failure> {
        Ok(Self {
            client: client.clone(),
            target: target.clone(),
        })
    }

    async fn get(&mut self) -> Result<u64, Failure> {
        collect(send(self.client.get(&self.target.small)).await?).await
    }

    async fn post(&mut self) -> Result<u64, Failure> {
        let body: Bytes = self.target.post_body.clone();
        collect(send(self.client.post(&self.target.small).body(body)).await?).await
    }

    async fn download(&mut self) -> Result<u64, Failure> {
        let mut response = send(self.client.get(&self.target.big)).await?;
        let mut received = 0;
        while let Some(chunk) = response.chunk().await? {
            received += chunk.len() as u64;
        }
        Ok(received)
    }

    async fn upload(&mut self) -> Result<u64, Failure> {
        let body = Body::sized_stream(self.target.big_bytes, Pieces::large(&self.target));
        collect(send(self.client.post(&self.target.small).body(body)).await?).await
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
