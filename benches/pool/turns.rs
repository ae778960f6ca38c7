//! The words by which the bench has another process run one turn.
//!
//! `measure.rs` says them. Two programs understand them: the bench itself, which reads the kernel's account of
//! memory, and its twin, which counts allocations. Running the turn is in `idle.rs` and `requests.rs`.

use std::time::Duration;

use crate::contenders::Contender;
use crate::scenario::{Failure, Idle, Requests, addresses};

/// One turn.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// Of `idle`.
    Idle(Contender, Idle),
    /// Of `origins` or `checkout`.
    Requests(Contender, Requests),
}

impl Asked {
    /// The turn that the arguments ask for; None if they are no such words.
    pub(crate) fn parse(arguments: &[String]) -> Result<Option<Self>, Failure> {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok(match words.as_slice() {
            [IDLE, contender, listed, connections, rest] => Some(Self::Idle(
                Contender::named(contender)?,
                Idle {
                    addresses: addresses(listed)?,
                    connections: connections.parse()?,
                    rest: Duration::from_millis(rest.parse()?),
                },
            )),
            [REQUESTS, contender, known, used, count] => Some(Self::Requests(
                Contender::named(contender)?,
                Requests {
                    known: known.parse()?,
                    used: used.parse()?,
                    count: count.parse()?,
                },
            )),
            _ => None,
        })
    }
}

/// The first word of a turn of idle connections.
pub(crate) const IDLE: &str = "idle";

/// The first word of a turn of requests.
pub(crate) const REQUESTS: &str = "requests";
