//! Speaks HTTP on a socket: one connection, from its dial to its last exchange.
//!
//! `open` dials and lets ALPN decide what is spoken. A connection knows nothing of the pool that lends it; it keeps the
//! pool's permit, so that the permit is returned exactly when the socket closes. An HTTP/1.1 connection is lent whole, an
//! HTTP/2 session by exchanges.

mod http1;
#[cfg(feature = "http2")]
mod http2;
#[cfg(not(feature = "http2"))]
mod no_http2;
mod tether;
mod timer;
mod upload;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use tokio::time::Instant;

use crate::body::Body;
use crate::config::{HttpVersions, Limits};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::head::{DefaultFields, RequestHead, ResponseHead};
use crate::socket::{Alpn, ConnectionInfo, DialError, Dialler, Route, Steps};
use crate::stats::CloseCause;

#[cfg(not(feature = "http2"))]
use no_http2 as http2;

pub(crate) use http1::{Discard, Discarded, Http1};
pub(crate) use http2::{Driver, Exchange, HTTP2_BUILT_IN, Prepared, Session};
pub(crate) use tether::Tether;
pub(crate) use timer::Timer;
#[cfg(feature = "http2")]
use upload::{Writing, body_length};

/// What one caller exchanges messages on.
pub(crate) enum Connection {
    /// A connection of its own.
    Http1(Box<Http1>),
    /// A stream of a session.
    Http2(Box<Exchange>),
}

/// What a dial came to.
pub(crate) enum Opened {
    Http1(Box<Http1>),
    Http2(Prepared),
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

/// Why the peer has provably not processed a request (RFC 9113 section 8.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "http2"),
    allow(dead_code, reason = "only HTTP/2 has words for it")
)]
pub(crate) enum Refusal {
    /// It refused the stream.
    Stream,
    /// It ended the session before the stream.
    Session,
    /// The same, and says that something about the session is not to its liking: ENHANCE_YOUR_CALM or INADEQUATE_SECURITY.
    SessionWithReason,
    /// It wants the request over HTTP/1.1.
    Http1Required,
}

/// What happens to a session while nobody calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "http2"),
    expect(dead_code, reason = "only HTTP/2 has sessions")
)]
pub(crate) enum SessionChange {
    /// The peer allows so many streams.
    MaxStreams(usize),
    /// It is doubted that the peer is still there.
    Suspected,
    /// It is there.
    Trusted,
    /// The session takes no new streams.
    Retired,
    /// The session has ended.
    Gone(CloseCause),
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

/// What `open` needs of who opens.
pub(crate) trait Opener {
    fn dialler(&self) -> &Dialler;

    fn route(&self) -> &Route;

    fn limits(&self) -> &Arc<Limits>;

    /// Closes what holds a file descriptor without need; answers whether there was anything.
    fn free_files(&self) -> bool;
}

/// Dials a route and settles what is spoken.
pub(crate) async fn open(opener: &impl Opener, steps: &Steps, keeper: Keeper) -> Result<Opened> {
    let (dialler, route) = (opener.dialler(), opener.route());
    let limits = Arc::clone(opener.limits());
    let dialled = match dialler.dial(route, &limits, steps).await {
        // Connections that are kept in case of need stand in the way of one that is needed (security F18).
        Err(error) if error.is_out_of_files() && opener.free_files() => {
            dialler.dial(route, &limits, steps).await
        }
        outcome => outcome,
    };
    let dialled = dialled.map_err(dial_error)?;
    let is_http2 = match route.http_versions() {
        HttpVersions::Http2PriorKnowledge => true,
        // A connector that says nothing of TLS is not asked: what it leads to is the user's affair.
        HttpVersions::Http2 if dialled.alpn != Some(Alpn::Http2) => {
            return Err(Error::new(ErrorKind::Tls, Some(Phase::Tls), Sent::Nothing)
                .saying("the server does not speak HTTP/2: it did not agree on it (ALPN, RFC 9113 section 3.2)"));
        }
        HttpVersions::Http2 | HttpVersions::Auto => dialled.alpn == Some(Alpn::Http2),
        HttpVersions::Http1 if dialled.alpn == Some(Alpn::Http2) => {
            return Err(
                Error::new(ErrorKind::Connect, Some(Phase::Connect), Sent::Nothing)
                    .saying("the connector settled on HTTP/2 where only HTTP/1.1 may be spoken"),
            );
        }
        HttpVersions::Http1 => false,
    };
    if is_http2 {
        let info = Arc::new(ConnectionInfo::new(&dialled, Version::HTTP_2));
        return Ok(Opened::Http2(Prepared::new(
            dialled.socket,
            info,
            limits,
            keeper,
        )));
    }
    let info = Arc::new(ConnectionInfo::new(&dialled, Version::HTTP_11));
    Ok(Opened::Http1(Box::new(Http1::new(
        dialled.socket,
        dialled.forwarding,
        info,
        limits,
        keeper,
    ))))
}

/// Whether a request can be sent at all; asked before a connection is used for it.
pub(crate) fn check_request(head: &RequestHead, body: &Body) -> Result<()> {
    // What most requests are has nothing that could be wrong, and is looked at again when it is written.
    if head.method == Method::GET && head.is_bare() && body.is_empty() {
        return Ok(());
    }
    upload::check_request(head, body).map_err(Error::invalid_request)
}

fn dial_error(error: DialError) -> Error {
    let (kind, phase) = classify(&error);
    let (io_kind, is_final) = (error.io_kind(), error.is_final());
    let mut told = Error::new(kind, Some(phase), Sent::Nothing).with_io_kind(io_kind);
    match &error {
        DialError::Proxy(via, _) => {
            told = told.saying(format!("could not reach the proxy {via}"));
        }
        DialError::Tunnel(via, failure) => {
            told = told
                .saying(format!("no connection through the proxy {via}"))
                .by_proxy(failure.status());
        }
        _ => {}
    }
    let told = told.because(error);
    match is_final {
        true => told.never_again(),
        false => told,
    }
}

fn classify(error: &DialError) -> (ErrorKind, Phase) {
    match error {
        DialError::Resolve(_) => (ErrorKind::Resolve, Phase::Resolve),
        DialError::Connect(_)
        | DialError::Excluded(_)
        | DialError::Unix(..)
        | DialError::Connector(_) => (ErrorKind::Connect, Phase::Connect),
        DialError::Tls(_) => (ErrorKind::Tls, Phase::Tls),
        DialError::Proxy(_, error) => (ErrorKind::Proxy, classify(error).1),
        DialError::Tunnel(..) => (ErrorKind::Proxy, Phase::Connect),
    }
}

impl Connection {
    /// Encodes the request; over HTTP/1.1 nothing is sent yet. On an error the connection is as it was.
    pub(crate) fn begin(
        &mut self,
        head: &RequestHead,
        defaults: &DefaultFields,
        body: &mut Body,
        now: Instant,
    ) -> Result<()> {
        match self {
            Self::Http1(http1) => http1.begin(head, defaults, body, now),
            Self::Http2(exchange) => exchange.begin(head, defaults, body, now),
        }
    }

    /// Writes the request and reads up to the end of the final head, both at once.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &Deadline<'_>,
    ) -> Poll<Result<Answer>> {
        match self {
            Self::Http1(http1) => http1.poll_head(cx, deadline),
            Self::Http2(exchange) => exchange.poll_head(cx, deadline),
        }
    }

    /// The next piece of the body of a streaming answer; `None` at its end.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &Deadline<'_>,
    ) -> Poll<Result<Option<Bytes>>> {
        match self {
            Self::Http1(http1) => http1.poll_data(cx, deadline),
            Self::Http2(exchange) => exchange.poll_data(cx, deadline),
        }
    }

    /// Bytes that have come while a body streams and were not counted yet. Those of a session are asked for by whoever takes a snapshot.
    pub(crate) fn take_received(&mut self) -> u64 {
        match self {
            Self::Http1(http1) => http1.take_received(),
            Self::Http2(_) => 0,
        }
    }

    /// Whether the body was read to its end.
    pub(crate) fn is_body_done(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_body_done(),
            Self::Http2(exchange) => exchange.is_body_done(),
        }
    }

    /// The trailer section of a body that was read to its end.
    pub(crate) fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        match self {
            Self::Http1(http1) => http1.take_trailers(),
            Self::Http2(exchange) => exchange.take_trailers(),
        }
    }

    /// Bytes of the body still to come, where that is known.
    pub(crate) fn body_left(&self) -> Option<u64> {
        match self {
            Self::Http1(http1) => http1.body_left(),
            Self::Http2(exchange) => exchange.body_left(),
        }
    }

    /// What it took to send the request, once all of it was handed over and none was given up.
    pub(crate) fn sent(&self) -> Option<u64> {
        match self {
            Self::Http1(http1) => http1.sent_all(),
            Self::Http2(exchange) => exchange.sent_all(),
        }
    }

    /// The body of a request that failed before any of it was asked for.
    pub(crate) fn take_unpolled_body(&mut self) -> Option<Body> {
        match self {
            Self::Http1(http1) => http1.take_unpolled_body(),
            Self::Http2(exchange) => exchange.take_unpolled_body(),
        }
    }

    /// Whether the peer has provably not processed the request, although some of it may have been written.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(exchange) => exchange.refusal(),
        }
    }

    /// Whether any byte of the response has come.
    pub(crate) fn has_received(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.traffic().1 > 0,
            Self::Http2(exchange) => exchange.has_received(),
        }
    }

    /// Whether it has served a response, of this exchange or of another one before.
    pub(crate) fn has_served(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_reused(),
            Self::Http2(exchange) => exchange.has_served(),
        }
    }

    /// Whether the connection itself is what failed: a stream of a session may fail alone.
    pub(crate) fn has_failed(&self) -> bool {
        match self {
            Self::Http1(_) => true,
            Self::Http2(exchange) => exchange.session_failed(),
        }
    }

    /// Whether a session has failed, and with it all of its streams.
    pub(crate) fn has_failed_for_all(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(exchange) => exchange.session_failed(),
        }
    }

    /// Whether it was lent before.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_reused(),
            Self::Http2(exchange) => exchange.is_reused(),
        }
    }

    pub(crate) fn info(&self) -> &Arc<ConnectionInfo> {
        match self {
            Self::Http1(http1) => http1.info(),
            Self::Http2(exchange) => exchange.info(),
        }
    }

    /// The caller no longer waits for the body; the time until he asks again does not count.
    pub(crate) fn pause(&mut self) {
        match self {
            Self::Http1(http1) => http1.pause(),
            Self::Http2(exchange) => exchange.pause(),
        }
    }
}
