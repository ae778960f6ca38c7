//! Stands in for `http2` in a build without it: the same names, and no way to reach them at run time.
//!
//! HTTP/2 is never offered and never asked for in such a build, so these types have no values.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use super::{Answer, Keeper, Refusal, SessionChange};
use crate::body::Body;
use crate::config::Limits;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::head::{DefaultFields, RequestHead};
use crate::socket::{ConnectionInfo, Socket};
use crate::stats::CloseCause;

/// Whether this build speaks HTTP/2.
pub(crate) const HTTP2_BUILT_IN: bool = false;

/// A socket that settled on HTTP/2 nevertheless, as a connector of the user's may say.
pub(crate) struct Prepared(Arc<ConnectionInfo>);

/// A session that cannot exist.
pub(crate) enum Session {}

/// Nothing to drive.
pub(crate) enum Driver {}

/// An exchange that cannot exist.
pub(crate) enum Exchange {}

impl Prepared {
    pub(crate) fn new(_: Socket, info: Arc<ConnectionInfo>, _: Arc<Limits>, _: Keeper) -> Self {
        Self(info)
    }

    pub(crate) fn info(&self) -> &Arc<ConnectionInfo> {
        &self.0
    }

    #[expect(
        clippy::unused_async,
        reason = "as where there is something to wait for"
    )]
    pub(crate) async fn begin(self) -> Result<(Arc<Session>, Driver)> {
        Err(
            Error::new(ErrorKind::Connect, Some(Phase::Connect), Sent::Nothing).saying(
                "the connector settled on HTTP/2, which this build does not have (feature `http2`)",
            ),
        )
    }
}

impl Driver {
    #[expect(
        clippy::unused_async,
        reason = "as where there is something to wait for"
    )]
    pub(crate) async fn run(self, _: impl Fn(SessionChange) + Send + Sync + 'static) {
        match self {}
    }
}

macro_rules! never {
    ($type:ident: $($name:ident(&self $(, $argument:ty)*) -> $result:ty;)*) => {
        impl $type {
            $(pub(crate) fn $name(&self $(, _: $argument)*) -> $result {
                match *self {}
            })*
        }
    };
}

never! {
    Session:
    max_streams(&self) -> usize;
    info(&self) -> &Arc<ConnectionInfo>;
    dialled(&self) -> Instant;
    is_open(&self) -> bool;
    take_traffic(&self) -> (u64, u64);
    ends_because(&self, CloseCause) -> ();
    exchange(&self) -> Box<Exchange>;
}

never! {
    Exchange:
    begin(&self, &RequestHead, &DefaultFields, &mut Body, Instant) -> Result<()>;
    poll_head(&self, &mut Context<'_>, &Deadline<'_>) -> Poll<Result<Answer>>;
    poll_data(&self, &mut Context<'_>, &Deadline<'_>) -> Poll<Result<Option<Bytes>>>;
    is_body_done(&self) -> bool;
    take_trailers(&self) -> Option<Box<HeaderMap>>;
    body_left(&self) -> Option<u64>;
    sent_all(&self) -> Option<u64>;
    take_unpolled_body(&self) -> Option<Body>;
    refusal(&self) -> Option<Refusal>;
    has_received(&self) -> bool;
    has_served(&self) -> bool;
    session_failed(&self) -> bool;
    is_session_open(&self) -> bool;
    is_reused(&self) -> bool;
    info(&self) -> &Arc<ConnectionInfo>;
    pause(&self) -> ();
    end(&self) -> (u64, u64);
}

impl Exchange {
    pub(crate) fn take_tunnel(&mut self) -> Option<Socket> {
        match *self {}
    }
}
