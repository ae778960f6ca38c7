//! reqwest with HTTP/2 by prior knowledge, and otherwise its default settings.

use reqwest::{Body, Client, RequestBuilder, Response, Url};

use super::pieces::Pieces;
use super::{Slot, expect_ok};
use crate::scenario::{Failure, Target};

/// A clone of the client and the target, in the form that costs reqwest least: its own parsed `Url`.
pub(crate) struct Reqwest {
    client: Client,
    small: Url,
    big: Url,
    upload_bytes: u64,
}

impl Slot for Reqwest {
    type Shared = Client;

    fn shared(_: &Target) -> Result<Client, Failure> {
        Ok(Client::builder().http2_prior_knowledge().build()?)
    }

    async fn open(client: &Client, target: &Target) -> Result<Self, Failure> {
        Ok(Self {
            client: client.clone(),
            small: target.small.to_string().parse()?,
            big: target.big.to_string().parse()?,
            upload_bytes: target.big_bytes,
        })
    }

    async fn get(&mut self) -> Result<u64, Failure> {
        let response = send(self.client.get(self.small.clone())).await?;
        Ok(response.bytes().await?.len() as u64)
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
        let body = Body::wrap(Pieces::of(self.upload_bytes));
        let response = send(self.client.post(self.small.clone()).body(body)).await?;
        Ok(response.bytes().await?.len() as u64)
    }
}

async fn send(request: RequestBuilder) -> Result<Response, Failure> {
    let response = request.send().await?;
    expect_ok(response.status())?;
    Ok(response)
}
