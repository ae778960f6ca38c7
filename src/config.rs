//! Plain data that every layer may read: the limits of a client, and how it speaks HTTP/2.
//!
//! Nothing here acts. `ClientBuilder::limits` takes a [`Limits`]; the pool reads the counts and times, the codec the sizes.

use std::num::NonZeroUsize;
use std::time::Duration;

/// How many connections a client holds, for how long, and how much it accepts from a peer.
///
/// `None` means that there is no limit; zero never does.
///
/// ```
/// use std::num::NonZeroUsize;
/// use sockeye::Limits;
///
/// let limits = Limits::default()
///     .with_max_connections(NonZeroUsize::new(500))
///     .with_max_connections_per_host(NonZeroUsize::new(50));
/// assert_eq!(limits.max_idle, 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections in all: being dialled, in use and idle. Default 100, the value of the Python ancestor of this crate.
    pub max_connections: Option<NonZeroUsize>,
    /// Connections to one origin. Default `None`.
    pub max_connections_per_host: Option<NonZeroUsize>,
    /// Idle connections that are kept in all, once they have been idle for [`idle_grace`](Self::idle_grace). Default 20. Those
    /// that have been idle for longest close first.
    pub max_idle: usize,
    /// Idle connections that are kept for one origin. Default `None`.
    pub max_idle_per_host: Option<usize>,
    /// How long a connection may be idle beyond `max_idle`. Default 1 s, so that a burst of calls finds the connections of the
    /// burst before it. With zero they close within about a tenth of a second.
    pub idle_grace: Duration,
    /// How long an idle connection is kept. Default 5 s. A server's `Keep-Alive: timeout=N` makes it N - 2 s, at most 60 s.
    pub idle_timeout: Duration,
    /// How old a connection may grow before it is no longer used again, give or take a tenth, so that connections which were
    /// opened together do not end together. Default `None`; ten minutes are wise behind a load balancer that changes.
    pub max_lifetime: Option<Duration>,
    /// How many requests one connection serves. Default `None`.
    pub max_requests_per_connection: Option<u64>,
    /// How many calls may wait for a connection to one origin. Default 1,024; one more fails with `PoolFull`.
    pub max_pending: Option<NonZeroUsize>,
    /// How it is found out whether an idle connection still stands. Default [`Liveness::Auto`].
    pub liveness: Liveness,
    /// Bytes of a response body that are still read, to be thrown away, when the body is dropped before its end: the connection
    /// can then be used again. Default 256 KiB; with 0, or when more is known to be left, it closes.
    pub max_drain: u64,
    /// How long that may take in the background. Default 50 ms.
    pub drain_timeout: Duration,
    /// Bytes of a response head, all interim (1xx) heads before it included. Default 128 KiB.
    pub max_head: usize,
    /// Fields of a response head. Default 256.
    pub max_head_fields: usize,
    /// Interim (1xx) responses before the final one. Default 32.
    pub max_informational: usize,
    /// Bytes of a trailer section. Default 16 KiB.
    pub max_trailer: usize,
    /// Fields of a trailer section. Default 100.
    pub max_trailer_fields: usize,
    /// Bytes of chunk extensions in one body. Default 16 KiB.
    pub max_chunk_extensions: usize,
    /// How heads are read. It travels with the limits, because whoever reads a head has those; the client's builder sets it.
    pub(crate) heads: HeadRules,
    /// Travels along for the same reason.
    pub(crate) http2: Http2Config,
}

/// Which versions of HTTP are spoken.
///
/// ```
/// use sockeye::{Client, HttpVersions};
///
/// let client = Client::builder().http_versions(HttpVersions::Http1).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpVersions {
    /// With `https` HTTP/2 and HTTP/1.1 are offered (ALPN, RFC 7301) and the server chooses; with `http` it is HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone, agreed on by ALPN. It needs `https`; with `http` the call fails with `InvalidRequest`.
    Http2,
    /// HTTP/2 at once, without asking (RFC 9113 section 3.3): with `http` that is h2c, with `https` it is spoken even if the
    /// server agreed on nothing. A server that speaks HTTP/1.1 is named in the error.
    Http2PriorKnowledge,
}

/// How HTTP/2 is spoken.
///
/// ```
/// use std::time::Duration;
/// use sockeye::{Client, Http2Config};
///
/// let http2 = Http2Config::default()
///     .with_stream_window(8 * 1024 * 1024)
///     .with_ping_interval(Some(Duration::from_secs(30)));
/// let client = Client::builder().http2(http2).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Http2Config {
    /// Sessions to one origin, each a connection. Default 4: another one opens when the streams of the others are used up and
    /// calls wait. With 1 a client keeps strictly to RFC 9113 section 9.1.
    pub max_sessions_per_origin: NonZeroUsize,
    /// Streams at once on one session. Default 256. A server's own limit counts if it is lower, and until its settings have
    /// come it is taken to be 100 (RFC 9113 section 6.5.2 recommends no fewer).
    pub max_streams_per_session: NonZeroUsize,
    /// Sessions over which busy streams are spread before the first is full: with `Some(n)` up to `n` are opened when each of
    /// the others has had more than 16 streams open for 100 ms. Default `None`; 2 is worth a try on a runtime with several
    /// threads.
    pub spread: Option<NonZeroUsize>,
    /// Bytes of one response body that the server may send beyond what was read of it (flow control, RFC 9113 section 5.2).
    /// Default 4 MiB. A body arrives no faster than about half of this in a round trip.
    pub stream_window: u32,
    /// The same for all bodies of a session together. Default 16 MiB. Bodies that nobody reads take up to
    /// [`stream_window`](Self::stream_window) of it each.
    pub connection_window: u32,
    /// While streams are open and nothing has arrived for so long, the server is asked for a sign of life (PING, RFC 9113
    /// section 6.7). Default 15 s. With `None` it is asked only when a stream has hit a limit of its own, and with the first
    /// request after 30 s of silence.
    pub ping_interval: Option<Duration>,
    /// How long a server that was asked has for any sign of life. Default 10 s; then the session ends with all its streams.
    pub ping_timeout: Duration,
    /// How long a session is kept without a stream. Default 55 s, below the 60 s of most servers and balancers. One of several
    /// to the same origin goes after 10 s.
    pub idle_timeout: Duration,
}

impl Default for Http2Config {
    fn default() -> Self {
        Self {
            max_sessions_per_origin: const { NonZeroUsize::new(4).expect("it is not zero") },
            max_streams_per_session: const { NonZeroUsize::new(256).expect("it is not zero") },
            spread: None,
            stream_window: 4 * 1024 * 1024,
            connection_window: 16 * 1024 * 1024,
            ping_interval: Some(Duration::from_secs(15)),
            ping_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(55),
        }
    }
}

/// How strictly a response head is read (spec http1 a1, ruling 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HeadRules {
    /// As the grammar has it.
    #[default]
    Strict,
    /// Lines may end in LF alone, a blank may stand before the colon of a field that does not concern framing, and
    /// `Transfer-Encoding: identity` counts as absent. A connection on which any of that happened closes.
    Lenient,
}

/// How an idle connection is looked at before it is lent. No look can tell that the peer is about to close; what provably was
/// not processed is sent again on another connection.
///
/// ```
/// use sockeye::{Limits, Liveness};
///
/// let limits = Limits::default().with_liveness(Liveness::AlwaysPeek);
/// assert_eq!(limits.liveness, Liveness::AlwaysPeek);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Liveness {
    /// The runtime's readiness, which costs no system call; the kernel is asked as well before a request that may not be sent
    /// twice, after a second without use, and for a minute after a connection to the same origin was found dead.
    #[default]
    Auto,
    /// The runtime's readiness only. It may be some milliseconds behind.
    FlagOnly,
    /// The kernel is always asked, by one system call of about half a microsecond.
    AlwaysPeek,
}

/// The state of a circuit breaker, in the order of how much it keeps calls from their origin.
///
/// ```
/// use sockeye::CircuitState;
///
/// assert!(CircuitState::Closed < CircuitState::Open);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls pass.
    #[default]
    Closed,
    /// A few calls pass, and what becomes of them decides.
    HalfOpen,
    /// Calls fail at once, for a time.
    Open,
    /// Calls fail at once until somebody closes it.
    Isolated,
}

impl CircuitState {
    /// Its name in lower case with underscores.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
            Self::Isolated => "isolated",
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: NonZeroUsize::new(100),
            max_connections_per_host: None,
            max_idle: 20,
            max_idle_per_host: None,
            idle_grace: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(5),
            max_lifetime: None,
            max_requests_per_connection: None,
            max_pending: NonZeroUsize::new(1024),
            liveness: Liveness::Auto,
            max_drain: 256 * 1024,
            drain_timeout: Duration::from_millis(50),
            max_head: 128 * 1024,
            max_head_fields: 256,
            max_informational: 32,
            max_trailer: 16 * 1024,
            max_trailer_fields: 100,
            max_chunk_extensions: 16 * 1024,
            heads: HeadRules::Strict,
            http2: Http2Config::default(),
        }
    }
}

/// One `with_` method a field: the struct is non-exhaustive, so that fields can be added later.
macro_rules! with {
    ($config:ident: $($method:ident $field:ident $type:ty;)*) => {
        impl $config {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $method(mut self, value: $type) -> Self {
                    self.$field = value;
                    self
                }
            )*
        }
    };
}

with! {
    Limits:
    with_max_connections max_connections Option<NonZeroUsize>;
    with_max_connections_per_host max_connections_per_host Option<NonZeroUsize>;
    with_max_idle max_idle usize;
    with_max_idle_per_host max_idle_per_host Option<usize>;
    with_idle_grace idle_grace Duration;
    with_liveness liveness Liveness;
    with_max_drain max_drain u64;
    with_drain_timeout drain_timeout Duration;
    with_idle_timeout idle_timeout Duration;
    with_max_lifetime max_lifetime Option<Duration>;
    with_max_requests_per_connection max_requests_per_connection Option<u64>;
    with_max_pending max_pending Option<NonZeroUsize>;
    with_max_head max_head usize;
    with_max_head_fields max_head_fields usize;
    with_max_informational max_informational usize;
    with_max_trailer max_trailer usize;
    with_max_trailer_fields max_trailer_fields usize;
    with_max_chunk_extensions max_chunk_extensions usize;
}

with! {
    Http2Config:
    with_max_sessions_per_origin max_sessions_per_origin NonZeroUsize;
    with_max_streams_per_session max_streams_per_session NonZeroUsize;
    with_spread spread Option<NonZeroUsize>;
    with_stream_window stream_window u32;
    with_connection_window connection_window u32;
    with_ping_interval ping_interval Option<Duration>;
    with_ping_timeout ping_timeout Duration;
    with_idle_timeout idle_timeout Duration;
}

/// Bytes of a body that is collected, unless the client or the call says otherwise.
pub(crate) const DEFAULT_MAX_BODY: usize = 64 * 1024 * 1024;
