//! The contenders: who is compared, and the few verbs each of them must offer.
//!
//! Every contender does the same: it sends the request for the same parsed URI, checks for status 200,
//! collects the body and reports its length. Every client is used with its default settings. Nothing
//! here measures; `turn.rs` calls the verbs.

mod bare;
mod bodies;
mod hyper;
mod hyper_util;
mod pieces;
mod reqwest;
mod sockeye;

use std::future::Future;

use http::StatusCode;

use crate::scenario::{Amount, Failure, Scenario, Target, Work};
use crate::turn::{Turn, turn};

/// One of `concurrent` tasks' access to a contender.
pub(crate) trait Slot: Sized + Send + 'static {
    /// What all slots of one turn share: the client, where there is one.
    type Shared: Send + Sync;

    /// Makes what is shared.
    fn shared(target: &Target) -> Result<Self::Shared, Failure>;

    /// Makes a slot; dials where the contender has no pool that does.
    fn open(
        shared: &Self::Shared,
        target: &Target,
    ) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// A GET for the small answer; gives the length of the collected body.
    fn get(&mut self) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// A POST for the small answer; gives the length of the collected body.
    fn post(&mut self) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// A GET for the large answer, read in pieces; gives the number of bytes read.
    fn download(&mut self) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// A POST of the large body, made piece by piece, for the small answer; gives the length of the collected body.
    fn upload(&mut self) -> impl Future<Output = Result<u64, Failure>> + Send;
}

/// One exchange; gives the length of the body that came.
pub(crate) async fn once<S: Slot>(slot: &mut S, work: Work) -> Result<u64, Failure> {
    match work {
        Work::Get => slot.get().await,
        Work::Post => slot.post().await,
        Work::Download => slot.download().await,
        Work::Upload => slot.upload().await,
    }
}

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// A kept tokio socket and hand-written bytes: the floor that no client can go below.
    Bare,
    /// Sockeye.
    Sockeye,
    /// hyper's HTTP/1.1 client connection without a pool.
    Hyper,
    /// hyper-util's pooling client.
    HyperUtil,
    /// reqwest.
    Reqwest,
}

impl Contender {
    /// Everybody, in the order of the report.
    pub(crate) const ALL: [Self; 5] = [
        Self::Bare,
        Self::Sockeye,
        Self::Hyper,
        Self::HyperUtil,
        Self::Reqwest,
    ];

    /// The name in flags and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Sockeye => "sockeye",
            Self::Hyper => "hyper",
            Self::HyperUtil => "hyper-util",
            Self::Reqwest => "reqwest",
        }
    }

    /// The contender of that name.
    pub(crate) fn named(name: &str) -> Result<Self, Failure> {
        Self::ALL
            .into_iter()
            .find(|contender| contender.name() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                format!("no contender is named {name:?}; there are {known}").into()
            })
    }

    /// Runs one turn of this contender.
    pub(crate) fn turn<R>(
        self,
        scenario: &Scenario,
        amount: Amount,
        target: &Target,
        reading: fn() -> Result<R, Failure>,
    ) -> Result<Turn<R>, Failure> {
        let turn = match self {
            Self::Bare => turn::<bare::Socket, R>,
            Self::Sockeye => turn::<sockeye::Sockeye, R>,
            Self::Hyper => turn::<hyper::Connection, R>,
            Self::HyperUtil => turn::<hyper_util::Legacy, R>,
            Self::Reqwest => turn::<reqwest::Reqwest, R>,
        };
        turn(scenario, amount, target, reading)
            .map_err(|failure| format!("{} in {}: {failure}", self.name(), scenario.name).into())
    }
}

/// The check of the status that every contender with a typed status makes.
fn expect_ok(status: StatusCode) -> Result<(), Failure> {
    if status == StatusCode::OK {
        return Ok(());
    }
    Err(format!("status {status} where 200 was expected").into())
}
