//! Plain data that every layer may read: the limits of a client.
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
        }
    }
}

/// One `with_` method a field: the struct is non-exhaustive, so that fields can be added later.
macro_rules! with {
    ($($method:ident $field:ident $type:ty;)*) => {
        impl Limits {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Limits::", stringify!($field), ").")]
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
