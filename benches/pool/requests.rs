//! The figures `origins` and `checkout`: one request after another, each on an idle connection.
//!
//! The peer answers at once (`instant.rs`), so all that is measured is the client's own work: finding the
//! origin, taking the connection, the request and its response, and giving the connection back. What is read
//! (clocks or allocation counters) is the caller's choice.

use http::Uri;

use crate::contenders::{Contender, Legacy, Pooled, Sockeye};
use crate::instant::Dialler;
use crate::scenario::{Failure, Requests, expect_body};

/// What a turn gives.
pub(crate) struct Turn<R> {
    /// The reading right before the work.
    pub(crate) before: R,
    /// The reading right after it.
    pub(crate) after: R,
}

/// Runs one turn, on a runtime and a client of its own.
pub(crate) fn run<R: Send + 'static>(
    contender: Contender,
    requests: Requests,
    reading: fn() -> Result<R, Failure>,
) -> Result<Turn<R>, Failure> {
    let dialler = Dialler::new();
    let dials = dialler.clone();
    let turn = match contender {
        Contender::Bare => Err("the bare contender has no origins".into()),
        Contender::Sockeye => in_turn(Sockeye::instant(dialler)?, requests, reading),
        Contender::HyperUtil => in_turn(Legacy::instant(dialler), requests, reading),
    }?;
    // Whoever dials again does not measure the path on which connections are used again.
    if dials.dials() != requests.known {
        return Err(format!(
            "{} dialled {} times for {} origins",
            contender.name(),
            dials.dials(),
            requests.known
        )
        .into());
    }
    Ok(turn)
}

fn in_turn<P: Pooled, R: Send + 'static>(
    client: P,
    requests: Requests,
    reading: fn() -> Result<R, Failure>,
) -> Result<Turn<R>, Failure> {
    let Requests { known, used, count } = requests;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let uris: Vec<Uri> = (0..known)
        .map(|origin| format!("http://origin-{origin}.test/users/42").parse())
        .collect::<Result<_, _>>()?;
    // Those that are used lie far apart, as if others had been asked in between.
    let asked: Vec<Uri> = uris.iter().step_by(known / used).cloned().collect();
    runtime.block_on(async {
        let task = tokio::spawn(async move {
            ask(&client, &uris, known).await?;
            ask(&client, &asked, count.min(WARM_UP)).await?;
            let before = reading()?;
            ask(&client, &asked, count).await?;
            let after = reading()?;
            Ok(Turn { before, after })
        });
        task.await?
    })
}

async fn ask<P: Pooled>(client: &P, uris: &[Uri], count: usize) -> Result<(), Failure> {
    for uri in uris.iter().cycle().take(count) {
        let response = client.begin(uri).await?;
        expect_body(P::finish(response).await?)?;
        // hyper-util gives a connection back in a task; without a turn for it the next request would dial.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Requests before the first reading, at most.
const WARM_UP: usize = 1000;
