//! The figures beside the scenarios: instructions a request, and the heap of an idle session.
//!
//! Neither is a matter of time, so there are no rounds: each is counted once, in a process of its own.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::TWIN;
use crate::callgrind;
use crate::contenders::Contender;
use crate::process::{ask, numbers};
use crate::scenario::{Failure, IDLE};
use crate::server::Server;

/// The figures, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Instructions in user mode, by valgrind.
    Instructions,
    /// Heap of a session that rests.
    Idle,
}

impl Figure {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Instructions, Self::Idle];

    /// The name that `--only` is compared with.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Idle => "idle",
        }
    }

    /// Counts it for each contender; without valgrind there are no instructions.
    pub(crate) fn count(
        self,
        contenders: &[Contender],
        server: SocketAddr,
        is_quick: bool,
    ) -> Result<Option<FigureReport>, Failure> {
        if self == Self::Instructions && !callgrind::is_installed() {
            return Ok(None);
        }
        match self {
            Self::Instructions => {
                let title =
                    format!("GET, {COUNTED} at a time: instructions a request in user mode");
                FigureReport::new(self, title, contenders, |contender| {
                    instructions(contender, server)
                })
            }
            Self::Idle => {
                let (sessions, rest) = match is_quick {
                    true => (16, Duration::from_millis(200)),
                    false => (SESSIONS, REST),
                };
                let server = Server::start(sessions, None, Some(rest + Duration::from_secs(1)))?;
                let title = format!(
                    "{sessions} sessions that have rested for {rest:?}: bytes of heap for each"
                );
                FigureReport::new(self, title, contenders, |contender| {
                    idle(contender, server.direct(), rest)
                })
            }
        }
        .map(Some)
    }
}

/// One figure.
#[derive(Serialize)]
pub(crate) struct FigureReport {
    name: &'static str,
    title: String,
    /// One entry a contender.
    contenders: Vec<Row>,
}

/// One contender's.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    count: f64,
    /// As a multiple of the bare contender's, if that was there.
    to_bare: Option<f64>,
}

impl FigureReport {
    fn new(
        figure: Figure,
        title: String,
        contenders: &[Contender],
        count: impl Fn(Contender) -> Result<f64, Failure>,
    ) -> Result<Self, Failure> {
        let mut bare = None;
        let mut rows = Vec::new();
        for &contender in contenders {
            let count = count(contender)?;
            if contender == Contender::Bare {
                bare = Some(count);
            }
            rows.push(Row {
                name: contender.name(),
                count,
                to_bare: bare.map(|bare| count / bare),
            });
        }
        Ok(Self {
            name: figure.name(),
            title,
            contenders: rows,
        })
    }
}

impl fmt::Display for FigureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        writeln!(f, "  {:<11}{:>11}{:>9}", "", "count", "x bare")?;
        for Row {
            name,
            count,
            to_bare,
        } in &self.contenders
        {
            let to_bare = to_bare.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            writeln!(f, "  {name:<11}{count:>11.0}{to_bare:>9}")?;
        }
        Ok(())
    }
}

/// What further requests add to the instructions of a turn, so that making the client and its session do not
/// count.
fn instructions(contender: Contender, server: SocketAddr) -> Result<f64, Failure> {
    let run = |requests: usize| {
        let (server, requests) = (server.to_string(), requests.to_string());
        let words = [
            "--once",
            "--only",
            COUNTED_IN,
            "--contender",
            contender.name(),
            "--server",
            &server,
            "--requests",
            &requests,
        ]
        .map(str::to_owned);
        callgrind::instructions(&[], &words)
    };
    Ok((run(2 * BASE)? - run(BASE)?) / (BASE + BASE / 10) as f64)
}

/// Bytes of heap of each session.
fn idle(contender: Contender, addresses: &[SocketAddr], rest: Duration) -> Result<f64, Failure> {
    let mut words = vec![
        IDLE.to_owned(),
        contender.name().to_owned(),
        rest.as_millis().to_string(),
    ];
    words.extend(addresses.iter().map(SocketAddr::to_string));
    let [rested, closed] = numbers(&ask(TWIN, &words)?)?;
    Ok((rested - closed) / addresses.len() as f64)
}

/// The scenario whose instructions are counted.
const COUNTED_IN: &str = "get-64-streams";

/// Its streams.
const COUNTED: usize = 64;

/// Requests of the shorter of two turns; warming up adds a tenth. A multiple of ten times the streams.
const BASE: usize = 1920;

/// Sessions that rest.
const SESSIONS: usize = 64;

/// How long: longer than anything a client holds on to for a while.
const REST: Duration = Duration::from_secs(3);
