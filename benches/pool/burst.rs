//! The figure `burst`: a hundred requests at once, a short pause, and a hundred more.
//!
//! A client that closes what it just used for being more than it may keep idle has to dial again. The pause
//! is longer than a turn of Sockeye's reaper and shorter than the time it spares excess connections.

use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;

use crate::census::connections;
use crate::contenders::{Contender, Legacy, Pooled, Sockeye};
use crate::scenario::{Failure, TOGETHER, expect_body};

/// Connections opened by each burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    /// By the first.
    pub(crate) first: usize,
    /// By the second.
    pub(crate) second: usize,
}

/// Runs two bursts, on a runtime and a client of its own.
pub(crate) fn run(contender: Contender, address: SocketAddr) -> Result<Opened, Failure> {
    match contender {
        Contender::Bare => Err("the bare contender has no limits".into()),
        // The defaults: 20 may be idle.
        Contender::Sockeye => twice(Sockeye::from(sockeye::Client::new()), address),
        Contender::HyperUtil => twice(Legacy::keeping(MAX_IDLE), address),
    }
}

fn twice<P: Pooled>(client: P, address: SocketAddr) -> Result<Opened, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let before = connections(address)?.accepted;
        burst(&client, address).await?;
        tokio::time::sleep(PAUSE).await;
        let between = connections(address)?.accepted;
        burst(&client, address).await?;
        // A dial that lost a race against an idle connection may still arrive.
        tokio::time::sleep(SETTLING).await;
        let after = connections(address)?.accepted;
        Ok(Opened {
            first: between - before,
            second: after - between,
        })
    })
}

async fn burst<P: Pooled>(client: &P, address: SocketAddr) -> Result<(), Failure> {
    let uri: Uri = format!("http://{address}{TOGETHER}{REQUESTS}").parse()?;
    let tasks: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let (client, uri) = (client.clone(), uri.clone());
            tokio::spawn(async move {
                let response = client.begin(&uri).await?;
                expect_body(P::finish(response).await?)
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Requests of a burst.
pub(crate) const REQUESTS: usize = 100;

/// How many hyper-util may keep; Sockeye's default is the same.
pub(crate) const MAX_IDLE: usize = 20;

/// Between the bursts.
pub(crate) const PAUSE: Duration = Duration::from_millis(600);

/// After the second.
const SETTLING: Duration = Duration::from_millis(50);
