//! What is measured: the figures, their sizes, and the answer that every request gets.
//!
//! Not how: each figure's work is in a file of its own (`idle.rs`, `requests.rs`, `burst.rs`). Shared by the
//! bench and by the program that counts allocations, so that both run the very same work.

use std::net::SocketAddr;
use std::time::Duration;

/// The error of everything here: a bench only ever reports it and stops.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A turn of idle connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Idle {
    /// Where the server listens, each an origin of its own. Connections to one are opened and used together;
    /// the next origin's turn comes when those have been idle for a while.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Connections in all.
    pub(crate) connections: usize,
    /// How long they rest before the last reading.
    pub(crate) rest: Duration,
}

/// The sizes of a series of requests on a peer that answers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Origins that the client has an idle connection to.
    pub(crate) known: usize,
    /// Origins among them that are asked, in turn.
    pub(crate) used: usize,
    /// Requests that are measured.
    pub(crate) count: usize,
}

/// Addresses as one process tells them to another.
pub(crate) fn addresses(text: &str) -> Result<Vec<SocketAddr>, Failure> {
    text.trim()
        .split(',')
        .map(|address| Ok(address.parse()?))
        .collect()
}

/// The body of every answer.
pub(crate) const BODY: &str = concat!(
    r#"{"id":42,"name":"Sockeye Salmon","email":"sockeye@example.com","#,
    r#""active":true,"score":97.25,"tags":["a","b"]}"#
);

/// The answer to every request, as it goes over the wire: a head with seven fields, about what an API behind
/// a proxy sends, and the body.
pub(crate) fn answer() -> String {
    let length = BODY.len();
    format!(
        "HTTP/1.1 200 OK\r\nserver: pool\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\ncache-control: no-store\r\n\
         x-request-id: 5f0c7a52-31d8-4d1e-9d0b-6f3f0a7c2e11\r\nvary: origin\r\n\r\n{BODY}"
    )
}

/// Fails unless a body had the length that every answer's has.
pub(crate) fn expect_body(length: u64) -> Result<(), Failure> {
    if length == BODY.len() as u64 {
        return Ok(());
    }
    Err(format!(
        "a body of {length} bytes where {} were expected",
        BODY.len()
    )
    .into())
}

/// The path up to the number of requests that must be on their way together before any of them is answered
/// in full.
pub(crate) const TOGETHER: &str = "/together/";
