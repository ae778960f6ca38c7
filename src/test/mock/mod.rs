//! A server that is not there: rules say what is answered to which request, and everything else is refused.
//!
//! It takes the place of the connector alone, so that codec, pool, policies and stats do what they do in production, on
//! connections in memory. `rule` says which requests, `reply` what becomes of them, `server` speaks HTTP.

mod answering;
mod pattern;
mod rule;

use std::fmt;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Method;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::pipe::{self, Control};
use super::received::Received;
use super::server::{Answerer, Place, serve};
use crate::config::HttpVersions;
use crate::error::BoxFuture;
use crate::socket::{Alpn, Connect, Route, Socket};
use pattern::Pattern;
use rule::Entry;
pub use rule::{Act, Rule, When};

/// A stand-in for all servers of a client: [`Connect`] that answers by rules, and refuses what no rule is for.
///
/// Everything above the sockets is the real client: encoding and decoding, pool, timeouts, retries, breakers, stats. It works
/// under tokio's paused time, so that a test of a timeout takes no time. `https` needs no certificate: the connections count
/// as secured; a client that was built without TLS (features `tls`, `ring`) refuses such URLs all the
/// same. Clones share everything; a client that was built with a clone keeps the rules when the others are dropped.
///
/// Rules are asked in the order in which they were added, and the first that fits a request answers it. A request without a
/// rule fails with `ErrorKind::Io` and a sentence that names the method and the URL, its query without values. Nothing ever
/// reaches a network, unless [`allow_net`](Self::allow_net) says so.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
/// use std::time::Duration;
/// use sockeye::test::{Fault, MockTransport, Reply};
/// use sockeye::{Client, Method, Retry};
///
/// let mock = MockTransport::new();
/// mock.on(Method::GET, "http://api.test/users/42")
///     .header("authorization", "Bearer token")
///     .fail(Fault::ResetBeforeHead)
///     .then(Reply::new(503, "later"))
///     .then(Reply::new(200, "ann"))
///     .delay(Duration::from_millis(50));
/// let client = Client::builder().connector(mock.clone()).retry(Retry::default()).build()?;
///
/// let response = client.get("http://api.test/users/42").bearer_auth("token").send().await?;
/// assert_eq!(response.attempts(), 3);
/// assert_eq!(response.text().await?, "ann");
/// assert_eq!(mock.history().len(), 3);
/// mock.assert_done();
/// # Ok::<(), sockeye::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct MockTransport(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// A rule was added or used.
    changed: Notify,
}

struct State {
    rules: Vec<Entry>,
    history: Vec<Received>,
    /// What was refused, in words.
    denied: Vec<String>,
    connections: Vec<Control>,
    dials: usize,
    alpn: Alpn,
    allowed: Option<Allowed>,
}

/// Which hosts are let through to the network.
type Allowed = Arc<dyn Fn(&str) -> bool + Send + Sync>;

impl Default for MockTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl MockTransport {
    /// A mock without rules, which refuses every request. It speaks HTTP/1.1 where the client leaves that open.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                rules: Vec::new(),
                history: Vec::new(),
                denied: Vec::new(),
                connections: Vec::new(),
                dials: 0,
                alpn: Alpn::Http1,
                allowed: None,
            }),
            changed: Notify::new(),
        }))
    }

    /// What later `https` connections settle on where the client leaves it open. Default HTTP/1.1. A client that insists on
    /// a version gets it, with HTTP/2 by prior knowledge over `http`, too.
    #[must_use]
    pub fn speaking(self, alpn: Alpn) -> Self {
        self.0.lock().alpn = alpn;
        self
    }

    /// Begins a rule for requests with this method to this URL; it counts from when its answer is said.
    ///
    /// Without a query the URL stands for every query, with one for that alone. A `*` at the end of the path stands for any
    /// rest. Panics if it is no absolute `http` or `https` URL.
    #[track_caller]
    #[must_use = "a rule counts when its answer is said: reply, reply_with or fail"]
    pub fn on(&self, method: Method, url: impl AsRef<str>) -> When {
        When::new(
            Arc::clone(&self.0),
            Some(method),
            Pattern::new(url.as_ref()),
        )
    }

    /// As [`on`](Self::on), for every method.
    #[track_caller]
    #[must_use = "a rule counts when its answer is said: reply, reply_with or fail"]
    pub fn on_any(&self, url: impl AsRef<str>) -> When {
        When::new(Arc::clone(&self.0), None, Pattern::new(url.as_ref()))
    }

    /// Lets dials to some hosts through to the network, by name; they are served by real servers over TCP and, for `https`,
    /// TLS. Such requests are not in the history. Not for paused time, in which limits strike while the network works.
    pub fn allow_net(&self, is_allowed: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.0.lock().allowed = Some(Arc::new(is_allowed));
    }

    /// Every request so far, in the order in which they came, refused ones included.
    pub fn history(&self) -> Vec<Received> {
        self.0.lock().history.clone()
    }

    /// Dials so far, refused ones included.
    pub fn dials(&self) -> usize {
        self.0.lock().dials
    }

    /// Connections that the client has not closed.
    pub fn open_connections(&self) -> usize {
        let state = self.0.lock();
        state.connections.iter().filter(|one| one.is_open()).count()
    }

    /// Panics unless every rule was used as often as it says ([`times`](Rule::times); else once for each of its answers) and no
    /// request was refused. The message lists what is missing and what was refused.
    ///
    /// ```should_panic
    /// # use sockeye::{Method, test::MockTransport};
    /// let mock = MockTransport::new();
    /// mock.on(Method::GET, "http://a.test/").times(2).reply(200, "");
    /// mock.assert_done(); // rule 1 (GET http://a.test/) was used 0 times of 2
    /// ```
    #[track_caller]
    pub fn assert_done(&self) {
        let mut problems = Vec::new();
        {
            let state = self.0.lock();
            for (at, entry) in state.rules.iter().enumerate() {
                problems.extend(entry.unmet(at + 1));
            }
            problems.extend(state.denied.iter().cloned());
        }
        assert!(
            problems.is_empty(),
            "the mock is not done:\n  {}",
            problems.join("\n  ")
        );
    }
}

impl Connect for MockTransport {
    fn connect<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move {
            let origin = route.origin();
            let allowed = {
                let mut state = self.0.lock();
                state.dials += 1;
                state.allowed.clone()
            };
            if allowed.is_some_and(|is_allowed| is_allowed(origin.host())) {
                let tcp = TcpStream::connect((origin.host(), origin.port())).await?;
                return Ok(Socket::from_io(tcp));
            }
            match self.0.refuse(origin) {
                None => Ok(self.open(route)),
                Some(super::Fault::ConnectStall) => pending().await,
                Some(_) => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

impl MockTransport {
    fn open(&self, route: &Route) -> Socket {
        let (client, peer, control) = pipe::connect(usize::MAX, &[], &[]);
        let (place, alpn) = {
            let mut state = self.0.lock();
            state.connections.push(control.clone());
            let place = Place {
                origin: route.origin().clone(),
                number: state.connections.len() - 1,
            };
            (place, spoken(route, state.alpn))
        };
        let answerer: Arc<dyn Answerer> = Arc::clone(&self.0) as _;
        tokio::spawn(serve(alpn, peer, control, place, answerer));
        secured(route, client, alpn)
    }
}

/// What a connection of this route speaks, where a double may choose `choice`.
pub(super) fn spoken(route: &Route, choice: Alpn) -> Alpn {
    match route.http_versions() {
        HttpVersions::Auto if route.origin().is_https() => choice,
        HttpVersions::Auto | HttpVersions::Http1 => Alpn::Http1,
        HttpVersions::Http2 | HttpVersions::Http2PriorKnowledge => Alpn::Http2,
    }
}

/// The client's end as a socket: with `https` it counts as secured.
pub(super) fn secured(route: &Route, client: pipe::End, alpn: Alpn) -> Socket {
    let socket = Socket::from_io(client);
    if route.origin().is_https() {
        socket.secured(alpn)
    } else {
        socket
    }
}

impl Shared {
    /// The lock is held for a few lines that do not panic, but for conditions of the user's.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MockTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("MockTransport")
            .field("rules", &state.rules.len())
            .field("requests", &state.history.len())
            .field("dials", &state.dials)
            .finish()
    }
}
