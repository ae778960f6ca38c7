//! Sockeye with HTTP/2 by prior knowledge on one session, the scenario's windows, room for idle sessions, and otherwise its
//! default settings: every default timeout, limit and statistic is on.

use std::num::NonZeroUsize;

use sockeye::{Body, Client, Http2Config, HttpVersions, Limits, RequestBuilder, Response};

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

    fn shared(target: &Target) -> Result<Client, Failure> {
        let http2 = Http2Config::default()
            .with_max_sessions_per_origin(NonZeroUsize::MIN)
            .with_stream_window(target.sockeye.stream())
            .with_connection_window(target.sockeye.connection());
        let builder = Client::builder().http_versions(HttpVersions::Http2PriorKnowledge);
        // Only the figure `idle` has more than one session.
        let limits = Limits::default().with_max_idle(usize::MAX);
        Ok(builder.limits(limits).http2(http2).build()?)
    }

    async fn open(client: &Client, target: &Target) -> Result<Self, Failure> {
        Ok(Self {
            client: client.clone(),
            target: target.clone(),
        })
    }

    async fn get(&mut self) -> Result<u64, Failure> {
        let response = send(self.client.get(&self.target.small)).await?;
        Ok(response.bytes().await?.len() as u64)
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
        let body = Body::wrap(Pieces::of(self.target.big_bytes));
        let response = send(self.client.post(&self.target.small).body(body)).await?;
        Ok(response.bytes().await?.len() as u64)
    }
}

async fn send(request: RequestBuilder) -> Result<Response, Failure> {
    let response = request.send().await?;
    expect_ok(response.status())?;
    Ok(response)
}
