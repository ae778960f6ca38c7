//! Speaks HTTP on a socket: one connection, from its dial to its last exchange.
//!
//! `open` dials and lets ALPN decide what is spoken. A connection knows nothing of the pool that lends it; it keeps the
//! pool's permit, so that the permit is returned exactly when the socket closes.

mod http1;
mod tether;
mod timer;
mod upload;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Version};
use tokio::time::Instant;

use crate::body::Body;
use crate::config::Limits;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::head::{DefaultFields, RequestHead, ResponseHead};
use crate::socket::{ConnectionInfo, DialError, Dialler, Probe, Probed, Route, Steps, Upgraded};
use crate::stats::CloseCause;

pub(crate) use http1::{Discard, Discarded, Http1};
pub(crate) use tether::Tether;
pub(crate) use timer::Timer;

/// Whether this build speaks HTTP/2.
pub(crate) const HTTP2_BUILT_IN: bool = false;

/// A connection of any version.
pub(crate) enum Connection {
    Http1(Box<Http1>),
}

/// The head of a final response, and where its body is.
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) body: AnswerBody,
    /// The trailer section of a body that is behind the head.
    pub(crate) trailers: Option<Box<HeaderMap>>,
}

/// Where the body of a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerBody {
    /// All of it is behind the head.
    Kept,
    /// Still on the connection.
    Streaming,
    /// There is none: the connection belongs to another protocol now.
    Switched,
}

/// What a connection keeps for whoever opened it, for as long as its socket is open.
pub(crate) struct Keeper {
    pub(crate) tether: Arc<Tether>,
    /// Returned by its drop.
    _permit: Box<dyn Send>,
}

impl Keeper {
    pub(crate) fn new(tether: Arc<Tether>, permit: Box<dyn Send>) -> Self {
        Self {
            tether,
            _permit: permit,
        }
    }
}

/// What of a connection's past decides about its future.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Why it must close; `None` if nothing speaks against another request.
    pub(crate) close: Option<CloseCause>,
    /// Requests that it was used for.
    pub(crate) served: u64,
    /// When its dial began.
    pub(crate) dialled: Instant,
    /// Different for each connection of this process.
    pub(crate) id: u64,
    /// Seconds of the peer's `Keep-Alive: timeout=N`.
    pub(crate) keep_alive: Option<u64>,
}

/// Dials `route` and speaks what was agreed on.
pub(crate) async fn open(
    dialler: &Dialler,
    route: &Route,
    steps: &Steps,
    limits: Arc<Limits>,
    keeper: Keeper,
) -> Result<Connection> {
    let dialled = dialler.dial(route, steps).await.map_err(dial_error)?;
    let info = Arc::new(ConnectionInfo::new(&dialled, Version::HTTP_11));
    Ok(Connection::Http1(Box::new(Http1::new(
        dialled.socket,
        info,
        limits,
        keeper,
    ))))
}

/// Whether a request can be sent at all; asked before a connection is used for it.
pub(crate) fn check_request(head: &RequestHead, body: &Body) -> Result<()> {
    upload::check_request(head, body).map_err(Error::invalid_request)
}

fn dial_error(error: DialError) -> Error {
    let (kind, phase) = match &error {
        DialError::Resolve(_) => (ErrorKind::Resolve, Phase::Resolve),
        DialError::Connect(_) | DialError::Connector(_) => (ErrorKind::Connect, Phase::Connect),
        DialError::Tls(_) => (ErrorKind::Tls, Phase::Tls),
    };
    let io_kind = error.io_kind();
    Error::new(kind, Some(phase), Sent::Nothing)
        .because(error)
        .with_io_kind(io_kind)
}

impl Connection {
    /// Encodes the request; nothing is sent yet. On an error the connection is as it was.
    pub(crate) fn begin(
        &mut self,
        head: &RequestHead,
        defaults: &DefaultFields,
        body: &mut Body,
        now: Instant,
    ) -> Result<()> {
        let Self::Http1(http1) = self;
        http1.begin(head, defaults, body, now)
    }

    /// Writes the request and reads up to the end of the final head, both at once.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &Deadline<'_>,
    ) -> Poll<Result<Answer>> {
        let Self::Http1(http1) = self;
        http1.poll_head(cx, deadline)
    }

    /// The next piece of the body of a streaming answer; `None` at its end.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &Deadline<'_>,
    ) -> Poll<Result<Option<Bytes>>> {
        let Self::Http1(http1) = self;
        http1.poll_data(cx, deadline)
    }

    /// Whether the body was read to its end.
    pub(crate) fn is_body_done(&self) -> bool {
        let Self::Http1(http1) = self;
        http1.is_body_done()
    }

    /// The trailer section of a body that was read to its end.
    pub(crate) fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        let Self::Http1(http1) = self;
        http1.take_trailers()
    }

    /// Bytes of the body still to come, where that is known.
    pub(crate) fn body_left(&self) -> Option<u64> {
        let Self::Http1(http1) = self;
        http1.body_left()
    }

    /// The body of a request that failed before any of it was asked for.
    pub(crate) fn take_unpolled_body(&mut self) -> Option<Body> {
        let Self::Http1(http1) = self;
        http1.take_unpolled_body()
    }

    /// Bytes sent and received in this exchange.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let Self::Http1(http1) = self;
        http1.traffic()
    }

    /// Whether it served a response before this exchange.
    pub(crate) fn is_reused(&self) -> bool {
        let Self::Http1(http1) = self;
        http1.is_reused()
    }

    pub(crate) fn info(&self) -> &Arc<ConnectionInfo> {
        let Self::Http1(http1) = self;
        http1.info()
    }

    /// Whether something may have arrived while it was idle; costs no system call.
    pub(crate) fn is_suspect(&self) -> bool {
        let Self::Http1(http1) = self;
        http1.is_suspect()
    }

    /// It has been idle for a while: gives back the memory that only an exchange needs. Whether `cx` will hear of whatever
    /// arrives on it; if not, [`arm`](Self::arm) finds out why. Costs no system call.
    pub(crate) fn rest(&mut self, cx: &mut Context<'_>) -> bool {
        let Self::Http1(http1) = self;
        http1.rest(cx)
    }

    /// Sees to it that `cx` hears of whatever arrives while it is idle, unless that has happened already.
    pub(crate) fn arm(&mut self, cx: &mut Context<'_>) -> Result<(), CloseCause> {
        let Self::Http1(http1) = self;
        http1.arm(cx)
    }

    /// The socket, after it was switched to another protocol.
    pub(crate) fn into_upgraded(self) -> Upgraded {
        let Self::Http1(http1) = self;
        let (socket, read, keeper) = http1.into_parts();
        Upgraded::new(socket, read, Box::new(keeper))
    }

    /// When its dial began.
    pub(crate) fn dialled(&self) -> Instant {
        let Self::Http1(http1) = self;
        http1.dialled()
    }

    /// Tells the peer that the connection closes, where the transport has a word for it, without waiting.
    pub(crate) fn say_goodbye(&mut self) {
        let Self::Http1(http1) = self;
        http1.say_goodbye();
    }

    /// Whether the body of a streaming answer is not over yet.
    pub(crate) fn is_in_body(&self) -> bool {
        let Self::Http1(http1) = self;
        http1.is_in_body()
    }

    /// Whether what is left of a body could be read and thrown away, and the connection then be used again.
    pub(crate) fn can_discard(&self, at_most: u64) -> bool {
        let Self::Http1(http1) = self;
        http1.can_discard(at_most)
    }

    /// Reads on in a body and keeps nothing.
    pub(crate) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        discard: &mut Discard,
    ) -> Poll<Discarded> {
        let Self::Http1(http1) = self;
        http1.poll_discard(cx, discard)
    }

    /// The caller no longer waits for the body; the time until he asks again does not count.
    pub(crate) fn pause(&mut self) {
        let Self::Http1(http1) = self;
        http1.pause();
    }

    /// Whether the peer is still there and silent, as far as that can be known without waiting.
    pub(crate) fn probe(&mut self, probe: Probe) -> Probed {
        let Self::Http1(http1) = self;
        http1.probe(probe)
    }

    /// Ends the exchange, lets go of the caller's waker and says whether another may follow.
    pub(crate) fn settle(&mut self) -> Standing {
        let Self::Http1(http1) = self;
        http1.settle()
    }
}
