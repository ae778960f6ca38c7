//! The figure `idle`: a client opens thousands of connections, and lets them rest.
//!
//! The client is the whole of its process, which runs this once: memory that an earlier turn left behind
//! would be in the reading. What is read (the kernel's account or live heap) is the caller's choice.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;

use crate::census;
use crate::contenders::{Bare, Contender, Legacy, Pooled, Sockeye};
use crate::scenario::{Failure, Idle, TOGETHER, expect_body};

/// Bytes at the moments that count, in the order of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readings {
    /// With a few idle connections, so that what is needed only once is there.
    pub(crate) before: u64,
    /// With every connection in the middle of a response; of several origins, those of the last.
    pub(crate) held: u64,
    /// With every connection just idle.
    pub(crate) released: u64,
    /// After the rest.
    pub(crate) rested: u64,
}

/// The numbers in the order of time, as one process tells them to another.
impl fmt::Display for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            before,
            held,
            released,
            rested,
        } = self;
        write!(f, "{before} {held} {released} {rested}")
    }
}

/// Opens connections, uses each once while all of its origin are open, and reads as they rest.
pub(crate) fn run(
    contender: Contender,
    idle: &Idle,
    reading: fn() -> Result<u64, Failure>,
) -> Result<Readings, Failure> {
    match contender {
        Contender::Bare => turn(Bare::default(), idle, reading),
        Contender::Sockeye => turn(Sockeye::keeping_all()?, idle, reading),
        Contender::HyperUtil => turn(Legacy::keeping(usize::MAX), idle, reading),
    }
}

fn turn<P: Pooled>(
    client: P,
    idle: &Idle,
    reading: fn() -> Result<u64, Failure>,
) -> Result<Readings, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let first = *idle.addresses.first().ok_or("no address to ask")?;
        let responses = begin_together(&client, first, FIRST).await?;
        finish_all::<P>(responses).await?;
        let before = reading()?;
        let mut held = before;
        let share = idle.connections / idle.addresses.len();
        for &address in &idle.addresses {
            // Those of the first reading are used again.
            let count = share + if address == first { FIRST } else { 0 };
            let responses = begin_together(&client, address, count).await?;
            held = reading()?;
            finish_all::<P>(responses).await?;
            if Some(&address) != idle.addresses.last() {
                tokio::time::sleep(BETWEEN).await;
            }
        }
        // The connection's last step may be a task's, which runs meanwhile.
        tokio::time::sleep(MOMENT).await;
        let released = reading()?;
        tokio::time::sleep(idle.rest).await;
        let rested = reading()?;
        let census::Connections { accepted, open } = census::connections(first)?;
        let expected = FIRST + share * idle.addresses.len();
        if open != expected {
            return Err(format!(
                "{open} of {accepted} connections are open where {expected} were to rest"
            )
            .into());
        }
        Ok(Readings {
            before,
            held,
            released,
            rested,
        })
    })
}

/// Begins `count` requests that the server answers in full only when all have arrived, a burst at a time.
async fn begin_together<P: Pooled>(
    client: &P,
    address: SocketAddr,
    count: usize,
) -> Result<Vec<P::Response>, Failure> {
    let uri: Uri = format!("http://{address}{TOGETHER}{count}").parse()?;
    let mut responses = Vec::with_capacity(count);
    while responses.len() < count {
        let burst = BURST.min(count - responses.len());
        let begun: Vec<_> = (0..burst)
            .map(|_| {
                let (client, uri) = (client.clone(), uri.clone());
                tokio::spawn(async move { client.begin(&uri).await })
            })
            .collect();
        for response in begun {
            responses.push(response.await??);
        }
    }
    Ok(responses)
}

async fn finish_all<P: Pooled>(responses: Vec<P::Response>) -> Result<(), Failure> {
    for response in responses {
        expect_body(P::finish(response).await?)?;
    }
    Ok(())
}

/// Connections before the first reading.
const FIRST: usize = 16;

/// Requests that are begun at once.
const BURST: usize = 500;

/// A moment that is shorter than anything a pool does with idle connections.
const MOMENT: Duration = Duration::from_millis(20);

/// Between the turns of two origins: long enough for a pool to give back what an idle connection need not
/// keep, so that the next origin's connections can have it.
const BETWEEN: Duration = Duration::from_millis(250);
