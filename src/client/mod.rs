//! What users touch. It knows no protocol: it checks what they ask for, and hands a call to the spine.
//!
//! - `builder` makes a client and checks every setting
//! - `request` makes a call and checks every part of it
//! - `network` is how a client finds and reaches a host, `proxies` through what
//! - `status` is the rule that makes a status an error, `status_error` makes the error
//! - `redirects`, `credentials` and `intercepting` have the settings of these
//! - `observing` adds observers
//! - `resilience` sets retry, circuit breaker and rate limit, and shows a breaker
//! - one file a feature: `cookies`, `json`, `form`, `multipart`, `compress`, `sse`, `tower`, `trace_context`; `event_source` reads events and
//!   connects again

mod builder;
mod compress;
#[cfg(feature = "cookies")]
mod cookies;
mod credentials;
#[cfg(feature = "sse")]
mod event_source;
#[cfg(feature = "form")]
mod form;
mod intercepting;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "multipart")]
mod multipart;
mod network;
mod observing;
mod proxies;
mod redirects;
mod request;
mod resilience;
#[cfg(feature = "sse")]
mod sse;
mod status;
mod status_error;
#[cfg(feature = "tower")]
mod tower;
#[cfg(feature = "otel")]
mod trace_context;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::body::{Accepted, Body};
use crate::call::{Engine, is_watched, versions_for, way_for};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::response::Response;
use crate::stats::Stats;
use crate::url::{IntoUrl, Parsed, Target};

pub use builder::ClientBuilder;
#[cfg(feature = "sse")]
pub use event_source::EventSource;
pub use request::RequestBuilder;
pub use resilience::Circuit;
#[cfg(feature = "otel")]
pub use trace_context::TraceContext;

/// An HTTP client with a pool of connections. Cheap to clone; clones share everything.
///
/// Calls need a tokio runtime with its I/O and time drivers (`enable_all`, as `#[tokio::main]` has them).
///
/// Keep one for as long as the program runs: each new one starts with no connections. It may be used from several tokio
/// runtimes; connections are never shared between them. When the last clone is dropped, idle connections close at once and
/// responses that are still being read keep theirs to their end.
///
/// ```no_run
/// # async fn run() -> sockeye::Result<()> {
/// let client = sockeye::Client::new();
/// let text = client.get("https://example.com/").send().await?.text().await?;
/// println!("{text}\n{}", client.stats());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    base: Option<Base>,
    error_for_status: bool,
    max_body: usize,
    codings: Codings,
    /// Why a call cannot lead to a socket of the Unix domain, if it cannot.
    no_unix: Option<&'static str>,
    deny_private: bool,
}

/// How responses are decoded unless a call says otherwise.
#[derive(Clone, Copy, Debug)]
struct Codings {
    enabled: bool,
    /// Who asks for codings on a request that does not do so itself.
    asks: Asking,
    accepted: Accepted,
}

/// Whose default `accept-encoding` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    Nobody,
    Us,
    User,
}

/// The `base_url` of a client.
struct Base {
    target: Target,
    authorization: Option<Box<HeaderValue>>,
}

/// What became of the connections of a client that was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// Connections that closed in time.
    pub finished: usize,
    /// Connections that were still in use when the time was over. Calls on them fail with `ClientClosed`; a response that nobody
    /// reads at the moment fails, and closes its connection, when it is read on or dropped.
    pub cut: usize,
}

impl Client {
    /// A client with the default settings.
    ///
    /// A variable of the environment that is to name a proxy (see [`ClientBuilder::proxy`]) and does not, fails the calls that it
    /// concerns; [`ClientBuilder::build`] would tell at once.
    pub fn new() -> Self {
        Self::builder()
            .tell_mistakes_of_the_environment_later()
            .build()
            .expect("the default settings are valid")
    }

    /// Starts a client with settings of your own.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Starts a GET.
    pub fn get(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// Starts a POST.
    pub fn post(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Starts a PUT.
    pub fn put(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// Starts a PATCH.
    pub fn patch(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// Starts a DELETE.
    pub fn delete(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// Starts a HEAD.
    pub fn head(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::HEAD, url)
    }

    /// Starts an OPTIONS.
    pub fn options(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::OPTIONS, url)
    }

    /// Starts a request of any method. A URL that is not valid is reported by `send`.
    ///
    /// ```
    /// use http::Method;
    /// let client = sockeye::Client::new();
    /// let request = client.request(Method::from_bytes(b"PURGE").unwrap(), "http://cache.test/page");
    /// # let _ = request;
    /// ```
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        let parsed = self.parse(url);
        RequestBuilder::new(self.clone(), method, parsed)
    }

    /// Sends a request of the `http` crate. Options of [`RequestBuilder::build`] travel along as an extension.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let request = http::Request::get("http://example.com/").body(()).unwrap();
    /// let response = sockeye::Client::new().execute(request).await?;
    /// # Ok(()) }
    /// ```
    pub fn execute<B: Into<Body>>(
        &self,
        request: http::Request<B>,
    ) -> impl Future<Output = Result<Response>> + Send + use<B> {
        let request = request.map(Into::into);
        RequestBuilder::from_http(self.clone(), request).send()
    }

    /// What the client does and has done: see [`Stats`].
    pub fn stats(&self) -> Stats {
        self.with_breakers(self.0.engine.pool.stats())
    }

    /// Opens connections to the URL's origin in advance, so that there are `connections` of them, within the limits and
    /// without closing others. Answers how many there are; fails if there is none and none could be opened.
    pub async fn preconnect(&self, url: impl IntoUrl, connections: usize) -> Result<usize> {
        let target = self.parse(url)?.target;
        let Ok(runtime) = Handle::try_current() else {
            return Err(Error::invalid(
                "no tokio runtime around the call; await it inside one",
            ));
        };
        let deadline = Deadline::new(&self.0.engine.timeouts, Instant::now());
        let versions = versions_for(self.0.engine.versions, &target)?;
        let way = way_for(&self.0.engine, &target, versions)?;
        let host = self.0.engine.pool.host(&target, way, &runtime);
        let opened = self
            .0
            .engine
            .pool
            .preconnect(&host, connections, &deadline)
            .await;
        opened.map_err(|error| error.at(&target.origin()))
    }

    /// Closes the connections that are idle now. The client can be used on.
    pub fn close_idle(&self) {
        self.0.engine.pool.close_idle();
    }

    /// No connection that is open now is used for a further request: idle ones close, the others when their response is done.
    /// For a moment at which the network has changed: another VPN, a failover that DNS has announced, a machine that woke up
    /// (that is noticed without being told, when it has slept for longer than [`Limits::idle_timeout`](crate::Limits)).
    ///
    /// ```
    /// let client = sockeye::Client::new();
    /// client.mark_stale();
    /// ```
    pub fn mark_stale(&self) {
        self.0.engine.pool.mark_stale();
    }

    /// Closes the client for all its clones: further calls fail with `ClientClosed`, calls that wait for a connection, for the
    /// rate limit or for another attempt fail, idle connections close. Returns when the calls that run are done; at the deadline
    /// those that are not fail with `ClientClosed`, too. It can be called again, and dropping the future leaves the client closed with nothing cut off.
    pub async fn close(&self, deadline: Duration) -> Closed {
        let pool = &self.0.engine.pool;
        let before = pool.connections();
        pool.close();
        // Without a runtime there is no timer to wait with; what is still in use is told as it is.
        if Handle::try_current().is_ok() {
            let _ = timeout(deadline, pool.emptied()).await;
        }
        let cut = pool.connections();
        if cut > 0 {
            pool.cut();
        }
        Closed {
            finished: before.saturating_sub(cut),
            cut,
        }
    }

    /// Whether anybody watches its calls, for the bench of it.
    #[cfg_attr(
        not(feature = "test-util"),
        expect(dead_code, reason = "only `sockeye::test` asks")
    )]
    pub(crate) fn is_watched(&self) -> bool {
        is_watched(&self.0.engine)
    }

    /// The invariants of the pool, for `sockeye::test`.
    #[cfg_attr(
        not(feature = "test-util"),
        expect(dead_code, reason = "only `sockeye::test` asks")
    )]
    pub(crate) fn check_pool(&self) -> Result<bool, String> {
        self.0.engine.pool.check()?;
        Ok(self.0.engine.pool.is_at_rest())
    }

    fn parse(&self, url: impl IntoUrl) -> Result<Parsed> {
        let base = self.0.base.as_ref();
        let url = url.into_url_input();
        let parsed = url.parse(base.map(|base| &base.target));
        let mut parsed = parsed.map_err(Error::invalid_request)?;
        if let (Some(base), None) = (base, &parsed.authorization) {
            if base.target.same_origin(&parsed.target) {
                parsed.authorization.clone_from(&base.authorization);
            }
        }
        self.0.engine.check_scheme(&parsed.target)?;
        Ok(parsed)
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("timeouts", &self.0.engine.timeouts)
            .field("limits", self.0.engine.pool.limits())
            .field("connections", &self.0.engine.pool.connections())
            .finish_non_exhaustive()
    }
}
