//! What observers are told: one event after the other, as it happens.
//!
//! Names and words only, without any clock and any list of observers; those are in `observers.rs`. An event borrows what it
//! shows and holds no secret: an origin, a method, a status, never a path, a query or a field. Every start has exactly one end,
//! whatever happens in between, and what is inside ends before what is around it:
//!
//! ```text
//! CallStart ─┬─ AttemptStart ─┬─ QueueStart, QueueEnd                    (only if there was no idle connection)
//!            │                ├─ ConnectionAcquired, RequestSent, ResponseHead,
//!            │                │    then BodyEnd, BodyFailed or BodyDropped, and ConnectionReleased, perhaps long after
//!            │                └─ AttemptEnd, AttemptFailed or AttemptCancelled
//!            └─ CallEnd, CallFailed or CallCancelled
//! DialStart ─┬─ DnsStart, DnsEnd or DnsFailed ── ConnectStart, ConnectEnd or ConnectFailed ── TlsStart, TlsEnd or TlsFailed
//!            └─ DialEnd or DialFailed;  a connection that was made: ConnectionClosed in the end
//! ```

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::{BitOr, BitOrAssign};
use std::time::Duration;

use http::{Method, StatusCode, Version};

use super::reasons::{CloseCause, RetryCause, RetryRefusal};
use crate::config::CircuitState;
use crate::error::Error;
use crate::url::Origin;

/// Is told of what a client does, as it does it: for logs, traces and metrics of your own. Registered by
/// [`ClientBuilder::observer`](crate::ClientBuilder::observer).
///
/// Observers are called inline, by whichever task does what they are told of, and never with a lock of the client's held: they may
/// look at [`Client::stats`](crate::Client::stats), but must not block. One that panics is passed over for that event: the panic
/// is caught and counted in [`Stats::observer_panics`](super::Stats), and the call goes on. (In a program that aborts on panics it
/// aborts.)
///
/// Events have no time of their own: who needs one reads the clock. Without an observer nothing is made, read or called.
///
/// ```
/// use sockeye::stats::Event;
/// use sockeye::{Client, EventMask, Observer};
///
/// struct Log;
///
/// impl Observer for Log {
///     fn interest(&self) -> EventMask {
///         EventMask::CALLS | EventMask::CONNECTIONS
///     }
///
///     fn on(&self, event: &Event<'_>) {
///         match event {
///             Event::CallStart { call, method, origin, .. } => println!("{call} {method} {origin}"),
///             Event::CallFailed { call, error, .. } => println!("{call} {error}"),
///             other => println!("{other:?}"),
///         }
///     }
/// }
///
/// let client = Client::builder().observer(Log).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Which events it wants. Asked once, when the client is built.
    fn interest(&self) -> EventMask;

    /// Something has happened.
    fn on(&self, event: &Event<'_>);
}

impl<T: Observer + ?Sized> Observer for std::sync::Arc<T> {
    fn interest(&self) -> EventMask {
        self.as_ref().interest()
    }

    fn on(&self, event: &Event<'_>) {
        self.as_ref().on(event);
    }
}

/// Groups of [events](Event), which can be combined with `|`.
///
/// ```
/// use sockeye::EventMask;
///
/// let mask = EventMask::CALLS | EventMask::POLICIES;
/// assert!(mask.contains(EventMask::CALLS));
/// assert!(!mask.contains(EventMask::ALL));
/// assert!(EventMask::ALL.contains(mask));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EventMask(u16);

impl EventMask {
    /// No event.
    pub const NONE: Self = Self(0);
    /// Calls: `Call…`, `Redirected`, `Authenticated`.
    pub const CALLS: Self = Self(1);
    /// Attempts: `Attempt…`.
    pub const ATTEMPTS: Self = Self(1 << 1);
    /// Waiting in line for a connection: `QueueStart` and `QueueEnd`.
    pub const QUEUE: Self = Self(1 << 2);
    /// The making of connections: `Dial…`, `Dns…`, `Connect…`, `Tls…`.
    pub const DIALS: Self = Self(1 << 3);
    /// What becomes of connections: `Connection…`.
    pub const CONNECTIONS: Self = Self(1 << 4);
    /// What goes over them: `RequestSent`, `ResponseHead`, `Body…`.
    pub const MESSAGES: Self = Self(1 << 5);
    /// What policies decide: `Retry`, `NoRetry`, `BreakerChange`, `RateGate`, `RateWaitStart` and `RateWaitEnd`.
    pub const POLICIES: Self = Self(1 << 6);
    /// Every event, those of later versions included.
    pub const ALL: Self = Self(u16::MAX);

    /// Whether all of `other` is in this one.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is no event in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The events of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for EventMask {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for EventMask {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

impl fmt::Debug for EventMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("EventMask(ALL)");
        }
        f.write_str("EventMask(")?;
        let mut lead = "";
        for (name, group) in GROUPS {
            if self.contains(*group) {
                write!(f, "{lead}{name}")?;
                lead = " | ";
            }
        }
        f.write_str(")")
    }
}

const GROUPS: &[(&str, EventMask)] = &[
    ("CALLS", EventMask::CALLS),
    ("ATTEMPTS", EventMask::ATTEMPTS),
    ("QUEUE", EventMask::QUEUE),
    ("DIALS", EventMask::DIALS),
    ("CONNECTIONS", EventMask::CONNECTIONS),
    ("MESSAGES", EventMask::MESSAGES),
    ("POLICIES", EventMask::POLICIES),
];

/// Names a call in the events that tell of it: different for each observed call of this process.
///
/// ```
/// use std::collections::HashMap;
/// use std::time::Instant;
/// use sockeye::stats::CallId;
///
/// let mut begun: HashMap<CallId, Instant> = HashMap::new();
/// # let _ = &mut begun;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub(super) u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}", self.0)
    }
}

/// Something that has happened. New events, and new fields of these, may be added.
///
/// Numbers of connections are those of [`ConnectionInfo::id`](crate::ConnectionInfo); a dial has the number that its
/// connection will have. A dial belongs to an origin and not to a call: it goes on when the call that caused it is dropped, and its
/// connection serves whoever is first in line.
///
/// ```
/// use sockeye::stats::Event;
///
/// fn is_over(event: &Event<'_>) -> bool {
///     matches!(event, Event::CallEnd { .. } | Event::CallFailed { .. } | Event::CallCancelled { .. })
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A call begins. What is wrong with a request before it can begin, such as a URL that is not valid, is told to nobody
    /// but the caller.
    #[non_exhaustive]
    CallStart {
        /// The call.
        call: CallId,
        /// Its method.
        method: &'a Method,
        /// Where it goes first.
        origin: &'a Origin,
    },
    /// A call ends with the head of a response. A status that is made an error for the caller ends its call so, too.
    #[non_exhaustive]
    CallEnd {
        /// The call.
        call: CallId,
        /// The status of its response.
        status: StatusCode,
        /// Attempts in all, those of earlier hops included.
        attempts: u32,
    },
    /// A call ends with an error.
    #[non_exhaustive]
    CallFailed {
        /// The call.
        call: CallId,
        /// As the caller gets it.
        error: &'a Error,
        /// Attempts in all, those of earlier hops included.
        attempts: u32,
    },
    /// A call ends because the caller drops its future.
    #[non_exhaustive]
    CallCancelled {
        /// The call.
        call: CallId,
        /// Attempts in all, those of earlier hops included.
        attempts: u32,
    },
    /// A redirect is followed.
    #[non_exhaustive]
    Redirected {
        /// The call.
        call: CallId,
        /// The status of the redirect.
        status: StatusCode,
        /// Who answered with it.
        from: &'a Origin,
        /// Where it leads.
        to: &'a Origin,
    },
    /// A 401 is answered with new credentials.
    #[non_exhaustive]
    Authenticated {
        /// The call.
        call: CallId,
        /// Who gets them.
        origin: &'a Origin,
    },

    /// An attempt begins.
    #[non_exhaustive]
    AttemptStart {
        /// Its call.
        call: CallId,
        /// The first attempt of a call is 1, whatever its hop.
        attempt: u32,
        /// The method.
        method: &'a Method,
        /// Where it goes.
        origin: &'a Origin,
    },
    /// An attempt ends with the head of a response.
    #[non_exhaustive]
    AttemptEnd {
        /// Its call.
        call: CallId,
        /// Its number.
        attempt: u32,
        /// The status.
        status: StatusCode,
    },
    /// An attempt ends with an error, which may be mended by another.
    #[non_exhaustive]
    AttemptFailed {
        /// Its call.
        call: CallId,
        /// Its number.
        attempt: u32,
        /// What went wrong. It does not name the call yet.
        error: &'a Error,
    },
    /// An attempt ends because its call is dropped.
    #[non_exhaustive]
    AttemptCancelled {
        /// Its call.
        call: CallId,
        /// Its number.
        attempt: u32,
    },

    /// An attempt finds no idle connection and gets in line.
    #[non_exhaustive]
    QueueStart {
        /// Its call.
        call: CallId,
        /// Whose connections are waited for.
        origin: &'a Origin,
    },
    /// The wait in line is over, whatever came of it.
    #[non_exhaustive]
    QueueEnd {
        /// Its call.
        call: CallId,
        /// Whose connections were waited for.
        origin: &'a Origin,
        /// The connection that it got; `None` if it failed or was dropped.
        connection: Option<u64>,
    },

    /// A dial begins: the making of a connection.
    #[non_exhaustive]
    DialStart {
        /// The number of the connection that comes of it.
        connection: u64,
        /// Where it leads.
        origin: &'a Origin,
    },
    /// A dial ends with a connection.
    #[non_exhaustive]
    DialEnd {
        /// The connection.
        connection: u64,
        /// Where it leads.
        origin: &'a Origin,
        /// What is spoken on it: HTTP/1.1 or HTTP/2.
        protocol: Version,
    },
    /// A dial ends without a connection.
    #[non_exhaustive]
    DialFailed {
        /// The number that the connection would have had.
        connection: u64,
        /// Where it was to lead.
        origin: &'a Origin,
        /// Why; `None` if it was given up, because the client was closed or its runtime has ended.
        error: Option<&'a Error>,
    },
    /// The addresses of a name are looked for, in memory or by asking a resolver.
    #[non_exhaustive]
    DnsStart {
        /// The dial.
        connection: u64,
        /// Its host is the name.
        origin: &'a Origin,
    },
    /// There are addresses.
    #[non_exhaustive]
    DnsEnd {
        /// The dial.
        connection: u64,
        /// Its host is the name.
        origin: &'a Origin,
        /// How many, those included that the client will not dial.
        addresses: usize,
    },
    /// There are none.
    #[non_exhaustive]
    DnsFailed {
        /// The dial.
        connection: u64,
        /// Its host is the name.
        origin: &'a Origin,
        /// Why; `None` if the lookup was given up, such as at the connect limit.
        error: Option<io::ErrorKind>,
    },
    /// A connection to one address begins. Several may run beside each other.
    #[non_exhaustive]
    ConnectStart {
        /// The dial.
        connection: u64,
        /// Where the dial leads.
        origin: &'a Origin,
        /// The address; `None` for a socket of the Unix domain and a connector of the user's.
        address: Option<SocketAddr>,
    },
    /// It stands.
    #[non_exhaustive]
    ConnectEnd {
        /// The dial.
        connection: u64,
        /// Where the dial leads.
        origin: &'a Origin,
        /// The address, if there is one.
        address: Option<SocketAddr>,
    },
    /// It does not come about.
    #[non_exhaustive]
    ConnectFailed {
        /// The dial.
        connection: u64,
        /// Where the dial leads.
        origin: &'a Origin,
        /// The address, if there is one.
        address: Option<SocketAddr>,
        /// Why; `None` if it was given up, because another address was faster or the connect limit struck.
        error: Option<io::ErrorKind>,
    },
    /// A TLS handshake begins.
    #[non_exhaustive]
    TlsStart {
        /// The dial.
        connection: u64,
        /// Where the dial leads.
        origin: &'a Origin,
    },
    /// It is done.
    #[non_exhaustive]
    TlsEnd {
        /// The dial.
        connection: u64,
        /// Where the dial leads.
        origin: &'a Origin,
        /// `TLSv1.2` or `TLSv1.3`.
        version: &'a str,
        /// The protocol that was negotiated; `None` if the server chose none.
        alpn: Option<Version>,
        /// Whether an earlier session was resumed.
        resumed: bool,
    },
    /// It fails.
    #[non_exhaustive]
    TlsFailed {
        /// The dial.
        connection: u64,
        /// Where the dial leads.
        origin: &'a Origin,
        /// What the error of the dial will say; `None` if the handshake was given up, such as at the connect limit.
        error: Option<&'a (dyn std::error::Error + Send + Sync + 'static)>,
    },

    /// An attempt has got a connection, or a stream of one.
    #[non_exhaustive]
    ConnectionAcquired {
        /// The call.
        call: CallId,
        /// The connection.
        connection: u64,
        /// Where it leads.
        origin: &'a Origin,
        /// Whether it had been lent before.
        reused: bool,
        /// What is spoken on it: HTTP/1.1 or HTTP/2.
        protocol: Version,
        /// The peer, if the transport has addresses.
        remote_addr: Option<SocketAddr>,
    },
    /// The call has done with a connection, whatever becomes of it.
    #[non_exhaustive]
    ConnectionReleased {
        /// The call.
        call: CallId,
        /// The connection.
        connection: u64,
        /// Where it leads.
        origin: &'a Origin,
    },
    /// A connection is closed.
    #[non_exhaustive]
    ConnectionClosed {
        /// The connection.
        connection: u64,
        /// Where it led.
        origin: &'a Origin,
        /// Why.
        why: CloseCause,
    },

    /// All of a request, its body included, is handed to the system (over HTTP/2: to the session). It is not told of a request whose response
    /// came before its end.
    #[non_exhaustive]
    RequestSent {
        /// The call.
        call: CallId,
        /// The connection.
        connection: u64,
        /// What it took: over HTTP/1.1 all of its bytes, over HTTP/2 those of the content.
        bytes: u64,
    },
    /// The head of a final response is there.
    #[non_exhaustive]
    ResponseHead {
        /// The call.
        call: CallId,
        /// The connection.
        connection: u64,
        /// Its status.
        status: StatusCode,
    },
    /// The body of a response was read to its end. One that is empty, and one that has come with its head, ends at once, as does that of
    /// a connection that is switched to another protocol.
    #[non_exhaustive]
    BodyEnd {
        /// The call.
        call: CallId,
        /// The connection.
        connection: u64,
        /// Its bytes as they came, before decoding, without framing.
        bytes: u64,
    },
    /// The body of a response failed.
    #[non_exhaustive]
    BodyFailed {
        /// The call.
        call: CallId,
        /// The connection.
        connection: u64,
        /// Its bytes up to then.
        bytes: u64,
        /// Why.
        error: &'a Error,
    },
    /// The body of a response was dropped before its end.
    #[non_exhaustive]
    BodyDropped {
        /// The call.
        call: CallId,
        /// The connection.
        connection: u64,
        /// Its bytes up to then.
        bytes: u64,
    },

    /// There will be another attempt.
    #[non_exhaustive]
    Retry {
        /// The call.
        call: CallId,
        /// Why.
        why: RetryCause,
        /// How long it is waited before; zero without a policy.
        wait: Duration,
    },
    /// A policy was asked for another attempt, and there will be none.
    #[non_exhaustive]
    NoRetry {
        /// The call.
        call: CallId,
        /// Why not.
        why: RetryRefusal,
    },
    /// A circuit breaker has changed its state. When it changes several times at once, it is the last state that is told.
    #[non_exhaustive]
    BreakerChange {
        /// Whose breaker it is.
        origin: &'a Origin,
        /// Its state.
        state: CircuitState,
    },
    /// A server wants nobody to call for a while, and the rate limit keeps to it.
    #[non_exhaustive]
    RateGate {
        /// The server.
        origin: &'a Origin,
        /// For how long.
        wait: Duration,
    },
    /// A call waits because of the rate limit.
    #[non_exhaustive]
    RateWaitStart {
        /// The call.
        call: CallId,
        /// How long, unless that changes.
        wait: Duration,
    },
    /// The wait is over, or the call was dropped in it.
    #[non_exhaustive]
    RateWaitEnd {
        /// The call.
        call: CallId,
    },
}

impl Event<'_> {
    /// The group that it belongs to.
    ///
    /// ```
    /// use sockeye::EventMask;
    /// use sockeye::stats::Event;
    ///
    /// fn is_of_a_dial(event: &Event<'_>) -> bool {
    ///     event.group() == EventMask::DIALS
    /// }
    /// ```
    pub fn group(&self) -> EventMask {
        match self {
            Self::CallStart { .. }
            | Self::CallEnd { .. }
            | Self::CallFailed { .. }
            | Self::CallCancelled { .. }
            | Self::Redirected { .. }
            | Self::Authenticated { .. } => EventMask::CALLS,
            Self::AttemptStart { .. }
            | Self::AttemptEnd { .. }
            | Self::AttemptFailed { .. }
            | Self::AttemptCancelled { .. } => EventMask::ATTEMPTS,
            Self::QueueStart { .. } | Self::QueueEnd { .. } => EventMask::QUEUE,
            Self::DialStart { .. }
            | Self::DialEnd { .. }
            | Self::DialFailed { .. }
            | Self::DnsStart { .. }
            | Self::DnsEnd { .. }
            | Self::DnsFailed { .. }
            | Self::ConnectStart { .. }
            | Self::ConnectEnd { .. }
            | Self::ConnectFailed { .. }
            | Self::TlsStart { .. }
            | Self::TlsEnd { .. }
            | Self::TlsFailed { .. } => EventMask::DIALS,
            Self::ConnectionAcquired { .. }
            | Self::ConnectionReleased { .. }
            | Self::ConnectionClosed { .. } => EventMask::CONNECTIONS,
            Self::RequestSent { .. }
            | Self::ResponseHead { .. }
            | Self::BodyEnd { .. }
            | Self::BodyFailed { .. }
            | Self::BodyDropped { .. } => EventMask::MESSAGES,
            Self::Retry { .. }
            | Self::NoRetry { .. }
            | Self::BreakerChange { .. }
            | Self::RateGate { .. }
            | Self::RateWaitStart { .. }
            | Self::RateWaitEnd { .. } => EventMask::POLICIES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_names_its_groups() {
        assert_eq!(format!("{:?}", EventMask::ALL), "EventMask(ALL)");
        assert_eq!(format!("{:?}", EventMask::NONE), "EventMask()");
        let two = EventMask::CALLS | EventMask::DIALS;
        assert_eq!(format!("{two:?}"), "EventMask(CALLS | DIALS)");
        assert!(EventMask::default().is_empty());
        let mut all = EventMask::NONE;
        for (_, group) in GROUPS {
            assert!(!all.contains(*group), "no two share a bit");
            all |= *group;
            assert!(EventMask::ALL.contains(all));
        }
    }
}
