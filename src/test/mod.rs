//! For test suites: what must hold of a client's pool (feature `test-util`).

#[doc(hidden)]
pub mod bench;
#[doc(hidden)]
pub mod fuzz;
pub mod pool_model;

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
