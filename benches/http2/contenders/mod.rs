//! The contenders: who is compared, and the few verbs each of them must offer.
//!
//! Every contender does the same: it sends the request for the same parsed URI, checks for status 200,
//! collects the body and reports its length, all on one session. Nothing here measures; `turn.rs` calls the
//! verbs.

mod bare;
#[path = "../../peers/contenders/bodies.rs"]
mod bodies;
mod hyper_util;
mod pieces;
mod reqwest;
mod sockeye;

use std::future::Future;

use http::StatusCode;

use crate::scenario::{Amount, Failure, Scenario, Target, Work};
use crate::turn::{Turn, turn};

pub(crate) use bare::Bare;
pub(crate) use hyper_util::Legacy;
pub(crate) use reqwest::Reqwest;
pub(crate) use sockeye::Sockeye;

/// One of `concurrent` tasks' access to a contender.
pub(crate) trait Slot: Sized + Send + 'static {
    /// What all slots of one turn share: the client, or the session where there is no client.
    type Shared: Send + Sync;

    /// Makes what is shared.
    fn shared(target: &Target) -> Result<Self::Shared, Failure>;

    /// Makes a slot.
    fn open(
        shared: &Self::Shared,
        target: &Target,
    ) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// A GET for the small answer; gives the length of the collected body.
    fn get(&mut self) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// A GET for the large answer, read in pieces; gives the number of bytes read.
    fn download(&mut self) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// A POST of a large body; gives the length of the collected answer.
    fn upload(&mut self) -> impl Future<Output = Result<u64, Failure>> + Send;
}

/// One exchange; gives the length of the body that came.
pub(crate) async fn once<S: Slot>(slot: &mut S, work: Work) -> Result<u64, Failure> {
    match work {
        Work::Get => slot.get().await,
        Work::Download => slot.download().await,
        Work::Upload => slot.upload().await,
    }
}

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The h2 crate by itself: what everybody here is built on.
    Bare,
    /// Sockeye.
    Sockeye,
    /// hyper-util's pooling client.
    HyperUtil,
    /// reqwest.
    Reqwest,
}

impl Contender {
    /// Everybody, in the order of the report.
    pub(crate) const ALL: [Self; 4] = [Self::Bare, Self::Sockeye, Self::HyperUtil, Self::Reqwest];

    /// The name in flags and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Sockeye => "sockeye",
            Self::HyperUtil => "hyper-util",
            Self::Reqwest => "reqwest",
        }
    }

    /// The contender of that name.
    pub(crate) fn named(name: &str) -> Result<Self, Failure> {
        let known = || Self::ALL.into_iter();
        let found = known().find(|contender| contender.name() == name);
        found.ok_or_else(|| {
            let names: Vec<_> = known().map(Self::name).collect();
            format!(
                "no contender is named {name:?}; there are {}",
                names.join(", ")
            )
            .into()
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
            Self::Bare => turn::<Bare, R>,
            Self::Sockeye => turn::<Sockeye, R>,
            Self::HyperUtil => turn::<Legacy, R>,
            Self::Reqwest => turn::<Reqwest, R>,
        };
        turn(scenario, amount, target, reading)
            .map_err(|failure| format!("{} in {}: {failure}", self.name(), scenario.name).into())
    }
}

/// The check of the status that every contender makes.
fn expect_ok(status: StatusCode) -> Result<(), Failure> {
    if status == StatusCode::OK {
        return Ok(());
    }
    Err(format!("status {status} where 200 was expected").into())
}
