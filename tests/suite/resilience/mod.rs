//! Retry, circuit breaker and rate limit through a client: what is sent again, what is not sent at all, and what waits.

mod breaking;
mod cancelling;
mod closing;
mod intercepting;
mod interplay;
mod judging;
mod limiting;
mod refused;
mod retrying;
mod storms;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sockeye::{CircuitBreaker, Client, ClientBuilder, Error, Response, Result};
use tokio::time::Instant;

use crate::support::peer::{Request, World, ok, reply};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const URL: &str = "http://peer.test/";

/// What a server does with a request.
#[derive(Clone, Debug)]
enum Act {
    /// It answers.
    Say(String),
    /// It answers, and closes the connection.
    Last(String),
    /// It closes the connection.
    Close,
    /// It says nothing more.
    Silence,
}

/// A response with this status and an empty body.
fn status(status: u16) -> Act {
    Act::Say(reply(&format!("{status} Status"), "", ""))
}

/// The same with fields, each ended by CRLF.
fn with(status: u16, fields: &str) -> Act {
    Act::Say(reply(&format!("{status} Status"), fields, ""))
}

/// What came to a server, and when.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(Instant, Request)>>>, Acts);

/// What a server is yet to do.
type Acts = Arc<Mutex<VecDeque<Act>>>;

impl Seen {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn requests(&self) -> Vec<Request> {
        let seen = self.0.lock().unwrap();
        seen.iter().map(|(_, request)| request.clone()).collect()
    }

    /// From now on the server does these acts, and none of those that are left.
    fn then(&self, acts: impl IntoIterator<Item = Act>) {
        *self.1.lock().unwrap() = acts.into_iter().collect();
    }

    /// The times between the requests.
    fn gaps(&self) -> Vec<Duration> {
        let seen = self.0.lock().unwrap();
        seen.windows(2).map(|two| two[1].0 - two[0].0).collect()
    }
}

/// A server that does one of the acts for each request, on whatever connection it comes, and answers all further ones.
fn play(world: &World, acts: impl IntoIterator<Item = Act>) -> Seen {
    let acts: Acts = Arc::new(Mutex::new(acts.into_iter().collect()));
    let seen = Seen(Arc::default(), Arc::clone(&acts));
    let (world, told) = (world.clone(), seen.clone());
    tokio::spawn(async move {
        loop {
            let mut connection = world.accept().await;
            let (acts, told) = (Arc::clone(&acts), told.clone());
            tokio::spawn(async move {
                while let Some(request) = connection.next_request().await {
                    told.0.lock().unwrap().push((Instant::now(), request));
                    let act = acts.lock().unwrap().pop_front();
                    match act.unwrap_or_else(|| Act::Say(ok("fine"))) {
                        Act::Say(reply) => {
                            if !connection.try_write(reply.as_bytes()).await {
                                return;
                            }
                        }
                        Act::Last(reply) => {
                            connection.try_write(reply.as_bytes()).await;
                            return;
                        }
                        Act::Close => return,
                        Act::Silence => drop(connection.read_to_end().await),
                    }
                }
            });
        }
    });
    seen
}

fn build(world: &World, set: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
    set(world.builder()).build().unwrap()
}

/// A breaker that opens after so many failures in a row.
fn opens_after(failures: u32) -> CircuitBreaker {
    CircuitBreaker::default().with_consecutive(NonZeroU32::new(failures))
}

async fn get(client: &Client) -> Result<Response> {
    client.get(URL).send().await
}

/// The status that a call failed with.
#[track_caller]
fn failed_with(outcome: Result<Response>) -> (u16, Error) {
    let error = outcome.unwrap_err();
    let status = error.status().unwrap_or_else(|| panic!("{error}"));
    (status.as_u16(), error)
}
