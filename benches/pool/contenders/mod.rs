//! The contenders: who is compared, and the two verbs each of them must offer.
//!
//! A request is begun, which gives a response whose body may not have arrived, and finished, which reads the
//! body to its end and so gives the connection back. Nothing here measures.

mod bare;
mod hyper_util;
mod sockeye;

use std::future::Future;

use http::{StatusCode, Uri};

use crate::scenario::Failure;

pub(crate) use bare::Bare;
pub(crate) use hyper_util::Legacy;
pub(crate) use sockeye::Sockeye;

/// A client that keeps its connections.
pub(crate) trait Pooled: Clone + Send + Sync + 'static {
    /// A response whose body was not read.
    type Response: Send + 'static;

    /// Sends a GET and waits for the head of its response.
    fn begin(&self, uri: &Uri) -> impl Future<Output = Result<Self::Response, Failure>> + Send;

    /// Collects the body; gives its length.
    fn finish(response: Self::Response) -> impl Future<Output = Result<u64, Failure>> + Send;
}

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// tokio sockets in a list: the floor of what an idle connection takes.
    Bare,
    /// Sockeye.
    Sockeye,
    /// hyper-util's pooling client.
    HyperUtil,
}

impl Contender {
    /// Everybody, in the order of the report.
    pub(crate) const ALL: [Self; 3] = [Self::Bare, Self::Sockeye, Self::HyperUtil];

    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Sockeye => "sockeye",
            Self::HyperUtil => "hyper-util",
        }
    }

    /// The contender of that name.
    pub(crate) fn named(name: &str) -> Result<Self, Failure> {
        Self::ALL
            .into_iter()
            .find(|contender| contender.name() == name)
            .ok_or_else(|| format!("no contender is named {name:?}").into())
    }
}

/// The check of the status that every contender with a typed status makes.
fn expect_ok(status: StatusCode) -> Result<(), Failure> {
    if status == StatusCode::OK {
        return Ok(());
    }
    Err(format!("status {status} where 200 was expected").into())
}
