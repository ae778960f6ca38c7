//! For test suites (feature `test-util`): servers and a network that are not there, and what must hold of a client's pool.
//!
//! [`MockTransport`] answers requests by rules; [`MemNet`] has hosts, addresses, and connections that break at a byte. Both take
//! the place of the connector ([`ClientBuilder::connector`](crate::ClientBuilder::connector)) and nothing else, and both work
//! under tokio's paused time.

#[doc(hidden)]
pub mod bench;
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "json")]
mod json;
mod memnet;
mod mock;
mod pipe;
pub mod pool_model;
mod received;
mod reply;
mod server;

pub use memnet::{Attempted, Connected, Host, MemNet, Peer, Reach, Side};
pub use mock::{Act, MockTransport, Rule, When};
pub use pipe::WireFault;
pub use received::Received;
pub use reply::{Fault, Reply};

use crate::client::Client;

/// Panics if an invariant of the pool is broken: permits that do not add up, a connection that is idle while a call waits,
/// a limit that is exceeded. Meant for the end of a test, when nothing of the client moves any more.
///
/// ```
/// let client = sockeye::Client::new();
/// sockeye::test::check(&client);
/// ```
#[track_caller]
pub fn check(client: &Client) {
    if let Err(broken) = client.check_pool() {
        panic!("the pool is broken: {broken}");
    }
}

/// As [`check`], and panics as well if anything is lent, dialled or waited for: every connection must be idle or closed.
///
/// ```
/// let client = sockeye::Client::new();
/// sockeye::test::at_rest(&client);
/// ```
#[track_caller]
pub fn at_rest(client: &Client) {
    match client.check_pool() {
        Ok(true) => {}
        Ok(false) => panic!("the pool is not at rest:\n{}", client.stats()),
        Err(broken) => panic!("the pool is broken: {broken}"),
    }
}
