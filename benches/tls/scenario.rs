//! What is measured: the list of scenarios and their sizes.

use crate::contenders::Contender;

/// The error of everything here: a bench only ever reports it and stops.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The work of one unit. The client's runtime has one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A connection, a handshake of its own, a GET over HTTP/1.1 that says `connection: close`, and the end of the connection.
    Full,
    /// The same with a session that is resumed.
    Resumed,
    /// A client is made, and makes its first GET over HTTP/1.1.
    Cold,
    /// The same without the hybrid group in Sockeye's offer, so that both clients do the same handshake.
    ColdClassic,
    /// A GET over HTTP/1.1 on a connection that exists, one of 64 at a time.
    Http1,
    /// The same over HTTP/2.
    Http2,
}

/// One line of the comparison.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// The name that `--only` is compared with.
    pub(crate) name: &'static str,
    /// What a unit is.
    pub(crate) work: Work,
    /// Units a turn.
    pub(crate) units: usize,
    /// How many tasks share them.
    pub(crate) concurrent: usize,
    /// Who does it; Sockeye is compared with each of the others.
    pub(crate) contenders: &'static [Contender],
}

/// Every scenario, in the order of the report.
pub(crate) const SCENARIOS: [Scenario; 6] = [
    // Of fewer, what a client does once would be a part of each.
    alone("full-handshake", Work::Full, 1500, HANDSHAKES),
    alone("resumed-handshake", Work::Resumed, 1500, HANDSHAKES),
    alone("cold-start", Work::Cold, 300, CLIENTS),
    alone("cold-start-classic", Work::ColdClassic, 300, CLIENTS),
    many("get-64-http1", Work::Http1),
    many("get-64-http2", Work::Http2),
];

const fn alone(
    name: &'static str,
    work: Work,
    units: usize,
    contenders: &'static [Contender],
) -> Scenario {
    Scenario {
        name,
        work,
        units,
        concurrent: 1,
        contenders,
    }
}

const fn many(name: &'static str, work: Work) -> Scenario {
    Scenario {
        name,
        work,
        units: 12_800,
        concurrent: 64,
        contenders: CLIENTS,
    }
}

const HANDSHAKES: &[Contender] = &[Contender::Bare, Contender::BareAlike, Contender::Sockeye];
const CLIENTS: &[Contender] = &[Contender::Sockeye, Contender::Reqwest];

/// The path of the answer.
pub(crate) const PATH: &str = "/users/42";

/// The answer.
pub(crate) const BODY: &str = concat!(
    r#"{"id":42,"name":"Sockeye Salmon","email":"sockeye@example.com","#,
    r#""active":true,"score":97.25,"tags":["a","b"]}"#
);
