//! A connection on loan, and the response body that gives it back.
//!
//! A lease is dirty until proven clean (spec pool R-OBJ-5): dropping it asks the connection, which answers by what really
//! happened on it. So a call that is cancelled at any point can leak nothing, and pools nothing that is half read.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::Frame;
use tokio::time::Instant;

use super::Host;
use super::drain::drain;
use super::entry::Loan;
use super::host::{Lent, SessionId, Want};
use super::line::Ticket;
use crate::body::{Body, Source};
use crate::connection::{Answer, Connection, Refusal};
use crate::deadline::{Deadline, Timeouts};
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::head::{DefaultFields, RequestHead};
use crate::socket::{ConnectionInfo, Socket, Upgraded};
use crate::stats::{CloseCause, DrainOutcome, LeaseTold};

/// A connection that one caller uses.
pub(crate) struct Lease {
    /// `None` only while it is being given back.
    pub(super) connection: Option<Connection>,
    /// Of the session, if it is a stream that was lent.
    session: SessionId,
    pub(super) host: Arc<Host>,
    /// The place in line that it was waited for at.
    ticket: Option<Ticket>,
    /// Whom its exchange is told to.
    pub(super) told: Option<Box<LeaseTold>>,
}

/// What a failed exchange tells those who may try again.
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// The connection had served a response before.
    pub(crate) reused: bool,
    /// Some of the response had arrived.
    pub(crate) received: bool,
    /// The session failed for whatever reason before a byte of this request was written.
    pub(crate) unwritten: bool,
    /// The peer has provably not processed the request.
    pub(crate) refusal: Option<Refusal>,
    /// On what it may be tried again.
    pub(super) want: Want,
    /// The peer, if it cut the connection off rather than closed it.
    pub(crate) reset_by: Option<SocketAddr>,
    /// The caller's body, if none of it was asked for.
    pub(crate) unpolled: Option<Body>,
    /// The server answered 417: it is asked again without the expectation (RFC 9110 section 15.5.18).
    pub(crate) expectation_refused: bool,
    /// An interceptor has brought the error from elsewhere: it says nothing of this exchange, nor of the origin.
    pub(crate) elsewhere: bool,
    /// The place in line that the connection was waited for at; another try keeps it (spec pool R-RETRY-4).
    pub(crate) ticket: Option<Ticket>,
}

impl Failed {
    /// There was no connection to fail on.
    pub(crate) fn before_exchange(error: Error) -> Self {
        Self {
            error,
            reused: false,
            received: false,
            unwritten: false,
            refusal: None,
            want: Want::NewerThan(0),
            reset_by: None,
            unpolled: None,
            expectation_refused: false,
            elsewhere: false,
            ticket: None,
        }
    }

    /// The same for another who wants to know, without the body.
    pub(crate) fn without_body(&self) -> Self {
        Self {
            error: self.error.clone(),
            unpolled: None,
            ..*self
        }
    }
}

impl Lease {
    pub(super) fn new(lent: Loan, host: Arc<Host>, ticket: Option<Ticket>) -> Self {
        let (connection, session) = match lent {
            Lent::Connection(connection) => (Connection::Http1(connection), 0),
            Lent::Slot(id, session) => (Connection::Http2(session.exchange()), id),
        };
        Self {
            connection: Some(connection),
            session,
            host,
            ticket,
            told: None,
        }
    }

    pub(crate) fn info(&self) -> &Arc<ConnectionInfo> {
        self.connection.as_ref().expect(LENT).info()
    }

    pub(crate) fn is_reused(&self) -> bool {
        self.connection.as_ref().expect(LENT).is_reused()
    }

    /// Sends a request and waits for the head of its final response. Dropping the future closes the connection, unless
    /// nothing was written yet.
    pub(crate) async fn exchange(
        &mut self,
        head: &RequestHead,
        defaults: &DefaultFields,
        body: &mut Body,
        deadline: &Deadline<'_>,
        now: Instant,
    ) -> Result<Answer, Failed> {
        let connection = self.connection.as_mut().expect(LENT);
        let is_http1 = matches!(connection, Connection::Http1(_));
        let begun = if is_http1 && self.host.speaks_http10() && body.left().is_none() {
            Err(Error::invalid(
                "the server speaks HTTP/1.0, which has no way to send a body of unknown length (RFC 9112 section 7.1); see \
                 Body::sized_stream",
            ))
        } else {
            connection.begin(head, defaults, body, now)
        };
        let outcome = match begun {
            Ok(()) => {
                poll_fn(|cx| {
                    let polled = connection.poll_head(cx, deadline);
                    if let Some(told) = &mut self.told {
                        told.sent(connection.sent());
                    }
                    polled
                })
                .await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(answer) => {
                if is_http1 {
                    self.host.note_version(answer.head.version);
                }
                self.tell_answer(&answer);
                Ok(answer)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// What a failed exchange tells.
    fn failed(&mut self, error: Error) -> Failed {
        let connection = self.connection.as_mut().expect(LENT);
        let refusal = connection.refusal();
        let sent_nothing = error.sent() == Sent::Nothing;
        // Of a session that is going, or has just proved dead, nobody gets a slot any more.
        let is_going = matches!(refusal, Some(Refusal::Session | Refusal::SessionWithReason));
        if is_going {
            self.host.retire(self.session);
        }
        Failed {
            reset_by: connection.info().remote_addr.filter(|_| is_reset(&error)),
            error,
            reused: connection.has_served() && connection.has_failed(),
            unwritten: sent_nothing && connection.has_failed_for_all(),
            received: connection.has_received(),
            unpolled: connection.take_unpolled_body(),
            expectation_refused: false,
            elsewhere: false,
            want: if refusal.is_none() && connection.has_failed() {
                Want::NewerThan(self.session)
            } else {
                Want::Any
            },
            refusal,
            ticket: self.ticket,
        }
    }

    /// Hands the socket over, after it was switched to another protocol. Its permit goes along, or its slot.
    pub(crate) fn into_upgraded(mut self) -> Upgraded {
        drop(self.told.take());
        match self.connection.take().expect(LENT) {
            Connection::Http1(connection) => {
                let (sent, received) = connection.traffic();
                self.host.count_traffic(sent, received);
                self.host.closes(connection.info().id, CloseCause::Upgraded);
                connection.into_upgraded()
            }
            Connection::Http2(mut exchange) => {
                // A stream that is gone reads as one that has ended.
                let socket = exchange.take_tunnel();
                let socket = socket.unwrap_or_else(|| Socket::from_io(tokio::io::empty()));
                self.connection = Some(Connection::Http2(exchange));
                Upgraded::new(socket, Bytes::new(), Box::new(Mutex::new(self)))
            }
        }
    }

    /// The server wants the request without its expectation, and its body is still whole.
    pub(crate) fn expectation_refused(&mut self, unpolled: Option<Body>) -> Failed {
        Failed {
            expectation_refused: true,
            unpolled,
            ticket: self.ticket,
            ..Failed::before_exchange(Error::new(
                ErrorKind::Protocol,
                Some(Phase::Head),
                Sent::Part,
            ))
        }
    }

    /// The caller's body, if none of it was asked for.
    pub(crate) fn take_unpolled_body(&mut self) -> Option<Body> {
        self.connection.as_mut()?.take_unpolled_body()
    }

    /// Gives the connection back after a response that is complete.
    pub(crate) fn release(mut self, now: Instant) {
        self.give_back(Some(now));
    }

    /// The body of a streaming answer; it carries the lease.
    pub(crate) fn into_body(self, deadline: Deadline<'_>, started: Instant, asked: Asked) -> Body {
        let (timeouts, total_at) = deadline.into_parts();
        Body::from_source(LeasedBody {
            lease: Some(self),
            asked,
            trailers: None,
            timeouts,
            total_at,
            started,
        })
    }

    fn give_back(&mut self, now: Option<Instant>) {
        drop(self.told.take());
        match self.connection.take() {
            Some(Connection::Http1(mut connection)) => {
                let (sent, received) = connection.traffic();
                self.host.count_traffic(sent, received);
                let standing = connection.settle();
                self.host.give_back(connection, &standing, now);
            }
            Some(Connection::Http2(exchange)) => {
                let is_open = exchange.is_session_open();
                let (sent, received) = exchange.end();
                self.host.count_traffic(sent, received);
                let now = now.unwrap_or_else(Instant::now);
                if is_open {
                    self.host.release_slot(self.session, now);
                } else {
                    // Nobody in line is to get a slot of a session that has ended.
                    self.host.give_up_slot(self.session, now);
                }
            }
            None => {}
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match &self.connection {
            // It was given back.
            None => return,
            Some(Connection::Http1(connection)) if connection.is_in_body() => {
                let shared = self.host.shared();
                let max_drain = shared.limits.max_drain;
                // Of a client that was closed nothing is used again, so nothing is worth a read.
                let closed = shared.closed.load(Ordering::SeqCst);
                if closed || max_drain == 0 || !connection.can_discard(max_drain) {
                    self.host.counters().drained(DrainOutcome::GaveUp);
                    return self.give_back(None);
                }
            }
            Some(_) => return self.give_back(None),
        }
        drop(self.told.take());
        if let Some(Connection::Http1(connection)) = self.connection.take() {
            drain(connection, Arc::clone(&self.host));
        }
    }
}

/// A server that closes an idle connection in an orderly way says nothing against its address; one that resets it does.
fn is_reset(error: &Error) -> bool {
    matches!(
        error.io_kind(),
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    )
}

/// What an error in a body says of the call.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) attempts: u32,
    pub(crate) replayable: bool,
}

/// A response body that is still on its connection. The connection goes back at the poll that yields the last byte.
struct LeasedBody {
    /// `None` once the connection was given back.
    lease: Option<Lease>,
    asked: Asked,
    trailers: Option<Box<HeaderMap>>,
    timeouts: Timeouts,
    total_at: Option<Instant>,
    started: Instant,
}

impl LeasedBody {
    fn finish(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            if let Some(connection) = &mut lease.connection {
                self.trailers = connection.take_trailers();
            }
            if let Some(told) = &mut lease.told {
                told.body_end();
            }
            let now = Instant::now();
            lease
                .host
                .counters()
                .body_done(now.saturating_duration_since(self.started));
            lease.release(now);
        }
    }
}

impl Source for LeasedBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(Lease {
            host,
            connection: Some(connection),
            told,
            ..
        }) = &mut self.lease
        else {
            return Poll::Ready(
                self.trailers
                    .take()
                    .map(|trailers| Ok(Frame::trailers(*trailers))),
            );
        };
        let polled = connection.poll_data(cx, &Deadline::of_body(&self.timeouts, self.total_at));
        if let Some(told) = told {
            told.sent(connection.sent());
        }
        match ready!(polled) {
            Ok(data) => {
                if let (Some(told), Some(data)) = (told, &data) {
                    told.body(data.len());
                }
                if connection.is_body_done() {
                    self.finish();
                } else {
                    // A stream may last for hours, and is to be seen meanwhile. A session counts by itself.
                    match connection.take_received() {
                        0 => {}
                        received => host.counters().received_bytes(received),
                    }
                }
                match data {
                    Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                    None => Poll::Ready(
                        self.trailers
                            .take()
                            .map(|trailers| Ok(Frame::trailers(*trailers))),
                    ),
                }
            }
            Err(error) => {
                let mut error = error;
                if let Some(mut lease) = self.lease.take() {
                    lease
                        .host
                        .counters()
                        .body_failed(error.kind(), error.phase());
                    let origin = lease.host.origin().clone();
                    let asked = &self.asked;
                    error = error.on_call(origin, &asked.method, asked.attempts, asked.replayable);
                    if let Some(told) = &mut lease.told {
                        told.body_failed(&error);
                    }
                }
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn pause(&mut self) {
        if let Some(connection) = self
            .lease
            .as_mut()
            .and_then(|lease| lease.connection.as_mut())
        {
            connection.pause();
        }
    }

    fn left(&self) -> Option<u64> {
        match &self.lease {
            Some(lease) => lease.connection.as_ref()?.body_left(),
            None => Some(0),
        }
    }
}

/// Why a lease has a connection: only `give_back` takes it, and that ends the lease.
const LENT: &str = "a lease loses its connection only when it ends";
