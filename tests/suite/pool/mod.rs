//! The pool: what is lent again and what is not, limits and lines, dials, idleness, closing, and what the stats say of it.
//!
//! The numbers are those of the scenarios in the pool's rules; scenarios that need real sockets are in `network.rs`.

mod ageing;
mod cancelling;
mod closing;
mod dialling;
mod draining;
mod lending;
mod replaying;
mod stats;
mod waiting;

use std::num::NonZeroUsize;
use std::time::Duration;

use sockeye::{Client, Limits, Response, Result};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::peer::{PeerConnection, World, ok};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const URL: &str = "http://peer.test/";

fn at_most(connections: usize) -> Limits {
    Limits::default().with_max_connections(NonZeroUsize::new(connections))
}

fn limited(world: &World, limits: Limits) -> Client {
    world.builder().limits(limits).build().unwrap()
}

fn get(client: &Client, url: &str) -> JoinHandle<Result<Response>> {
    tokio::spawn(client.get(url).send())
}

/// A call whose request has arrived and was not answered.
async fn held(client: &Client, world: &World) -> (JoinHandle<Result<Response>>, PeerConnection) {
    let call = get(client, "http://peer.test/held");
    let mut connection = world.accept().await;
    connection.read_request().await;
    (call, connection)
}

async fn text(response: Result<Response>) -> String {
    response.unwrap().text().await.unwrap()
}

/// A server that answers with its target, `delay` after the request.
fn serve_after(world: &World, delay: Duration) {
    let world = world.clone();
    tokio::spawn(async move {
        loop {
            let mut connection = world.accept().await;
            tokio::spawn(async move {
                while let Some(request) = connection.next_request().await {
                    sleep(delay).await;
                    if !connection.try_write(ok(request.target()).as_bytes()).await {
                        return;
                    }
                }
            });
        }
    });
}

/// Begins a call whose answer starts with `beginning`, and waits for its head.
async fn streaming(world: &World, client: &Client, beginning: &str) -> (Response, PeerConnection) {
    let call = get(client, URL);
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection.write(beginning).await;
    (call.await.unwrap().unwrap(), connection)
}
