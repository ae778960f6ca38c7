//! Makes one request; every part is checked when it is given, and `send` reports the first mistake.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Method};

use super::builder::{field_of_all, listed, replace};
use super::credentials::{basic, secret};
use super::status::is_error;
use super::status_error::into_error;
use super::{Asking, Client};
use crate::body::{Accepted, Body, Compression};
use crate::call::{Call, Own, put, run, taken};
use crate::config::HttpVersions;
use crate::deadline::Timeouts;
use crate::error::{BoxFuture, Error, Result};
use crate::head::{Asks, RequestHead, is_secret, mark_secrets};
use crate::response::Response;
use crate::url::{Parsed, Target};

/// A request being made. `send` sends it; so does `.await`, with one allocation more.
///
/// ```no_run
/// # async fn run() -> sockeye::Result<()> {
/// let client = sockeye::Client::new();
/// client.post("https://api.example.com/things").header("x-tenant", "7").body("hello").await?;
/// # Ok(()) }
/// ```
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    pub(super) client: Client,
    /// Built in place: what is sent is lent from here to the spine, and moved nowhere.
    pub(super) call: Call,
    /// The URL's userinfo, unless `authorization` is set.
    userinfo: Option<Box<HeaderValue>>,
    /// The type of the body given last, unless `content-type` is set.
    content_type: Option<HeaderValue>,
    /// The coding for the body, if it has so many bytes.
    compression: Option<(u64, Compression)>,
    error_for_status: Option<bool>,
    decompress: Option<bool>,
    /// The first mistake; with a URL that cannot be parsed, the target leads nowhere.
    mistake: Option<Error>,
}

/// What a request asks of the client rather than of the server.
#[derive(Clone, Debug)]
struct Options {
    own: Option<Arc<Own>>,
    error_for_status: Option<bool>,
    idempotent: bool,
    max_body: usize,
    decompress: Option<bool>,
    asks: Option<Arc<Asks>>,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, method: Method, url: Result<Parsed>) -> Self {
        let (target, userinfo, mistake) = match url {
            Ok(parsed) => (parsed.target, parsed.authorization, None),
            Err(error) => (Target::nowhere(), None, Some(error)),
        };
        let max_body = client.0.max_body;
        Self {
            client,
            call: Call {
                head: RequestHead {
                    method,
                    target,
                    headers: HeaderMap::new(),
                    asks: None,
                },
                body: Body::empty(),
                own: None,
                idempotent: false,
                max_body,
                accepted: Accepted::NONE,
                extensions: Extensions::new(),
                started: None,
                told: None,
            },
            userinfo,
            content_type: None,
            compression: None,
            error_for_status: None,
            decompress: None,
            mistake,
        }
    }

    pub(super) fn from_http(client: Client, request: http::Request<Body>) -> Self {
        let (mut parts, body) = request.into_parts();
        let url = client.parse(parts.uri);
        let options = parts.extensions.remove::<Options>();
        let mut builder = Self::new(client, parts.method, url);
        mark_secrets(&mut parts.headers);
        builder.call.head.headers = parts.headers;
        builder.call.body = body;
        if let Some(options) = options {
            builder.call.own = options.own;
            builder.call.idempotent = options.idempotent;
            builder.call.max_body = options.max_body;
            builder.call.head.asks = options.asks;
            builder.error_for_status = options.error_for_status;
            builder.decompress = options.decompress;
        }
        builder.call.extensions = parts.extensions;
        builder
    }

    /// Adds a field; one of the same name stays. It hides the client's default of that name.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        match (name.try_into(), value.try_into()) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(value.is_sensitive() || is_secret(&name));
                if self.call.head.headers.try_append(name, value).is_err() {
                    self.note(Error::invalid("header: too many fields"));
                }
            }
            (Err(error), _) => {
                let error: http::Error = error.into();
                self.note(Error::invalid(format!("header: {error}")));
            }
            (Ok(name), Err(error)) => {
                // The value itself may be a secret.
                let error: http::Error = error.into();
                self.note(Error::invalid(format!(
                    "header: the value of {name}: {error}"
                )));
            }
        }
        self
    }

    /// Puts each name of the map in place of what was set under it.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        replace(&mut self.call.head.headers, headers);
        self
    }

    /// Sets `authorization` to user and password (RFC 7617). The user cannot hold a colon.
    pub fn basic_auth(self, user: impl fmt::Display, password: Option<impl fmt::Display>) -> Self {
        let value = basic(
            &user,
            password
                .as_ref()
                .map(|password| password as &dyn fmt::Display),
        );
        self.authorization("basic_auth", value)
    }

    /// Sets `authorization` to a bearer token (RFC 6750).
    pub fn bearer_auth(self, token: impl fmt::Display) -> Self {
        self.authorization("bearer_auth", secret(format!("Bearer {token}")))
    }

    fn authorization(mut self, call: &str, value: Result<HeaderValue, &'static str>) -> Self {
        match value {
            Ok(value) => {
                self.call.head.headers.insert(header::AUTHORIZATION, value);
            }
            Err(mistake) => self.note(Error::invalid(format!("{call}: {mistake}"))),
        }
        self
    }

    /// The body; the last one given wins. A body of bytes is sent with its length, a stream in chunks. Says nothing of the
    /// content type, and takes back what an earlier body said of it.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.call.body = body.into();
        self.content_type = None;
        self
    }

    /// Time limits of this call, in place of all of the client's.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.call.own_mut().timeouts = Some(timeouts);
        self
    }

    /// The limit of the whole call, its body included; the other limits stay.
    pub fn timeout(mut self, total: Duration) -> Self {
        let client = self.client.0.engine.timeouts;
        let timeouts = self.call.own_mut().timeouts.get_or_insert(client);
        timeouts.total = Some(total);
        self
    }

    /// Whether a status of 400 or more is an error of this call.
    pub fn error_for_status(mut self, enabled: bool) -> Self {
        self.error_for_status = Some(enabled);
        self
    }

    /// Which versions of HTTP this call may be made over, in place of the client's setting.
    pub fn http_versions(mut self, versions: HttpVersions) -> Self {
        self.call.own_mut().versions = Some(versions);
        self
    }

    /// Vouches that sending the request twice does what sending it once does, so that it can be sent again when a kept
    /// connection turns out to be dead. GET, HEAD, OPTIONS, TRACE, PUT, DELETE and QUERY need no voucher, and an
    /// `idempotency-key` is one.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.call.idempotent = idempotent;
        self
    }

    /// Whether the body waits until the server says that it wants it (`Expect: 100-continue`, RFC 9110 section 10.1.1).
    /// Default false. A server that says nothing gets the body after a second; one that answers otherwise does not get it, and
    /// the connection closes. After 417 the request is made once more without the expectation. A request without a body is
    /// not held up.
    pub fn expect_continue(mut self, enabled: bool) -> Self {
        self.asks().expect_continue = enabled;
        self
    }

    /// Asks the server to change to another protocol on this connection (RFC 9110 section 7.8): one or several names,
    /// separated by commas, such as `websocket`. If it agrees, the response has status 101 and
    /// [`Response::upgrade`] gives the stream; otherwise it is an ordinary response. A 101 to anything else is an error.
    ///
    /// It is asked over HTTP/1.1, on a connection of its own, unless HTTP/2 is forced (`http_versions`): then one protocol
    /// is asked for by extended CONNECT (RFC 8441), and the response that agrees has status 200.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let client = sockeye::Client::new();
    /// let response = client.get("http://example.com/chat").upgrade("websocket").send().await?;
    /// let stream = response.upgrade()?;
    /// # Ok(()) }
    /// ```
    pub fn upgrade(mut self, protocols: impl AsRef<str>) -> Self {
        match HeaderValue::from_str(protocols.as_ref()) {
            Ok(protocols) => self.asks().upgrade = Some(protocols),
            Err(_) => self.note(Error::invalid(
                "upgrade: the protocols hold a control character",
            )),
        }
        self
    }

    /// Calls `tell` for each interim (1xx) response, such as 103 with links to load early (RFC 8297), at the moment at which
    /// it arrives. It runs inside the call, so it must not block.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let request = sockeye::Client::new().get("https://example.com/");
    /// let response = request.on_informational(|interim| println!("{}", interim.status())).send().await?;
    /// # Ok(()) }
    /// ```
    pub fn on_informational(
        mut self,
        tell: impl Fn(&http::Response<()>) + Send + Sync + 'static,
    ) -> Self {
        self.asks().on_informational = Some(Arc::new(tell));
        self
    }

    fn asks(&mut self) -> &mut Asks {
        Arc::make_mut(self.call.head.asks.get_or_insert_default())
    }

    /// Whether a compressed response to this call is decoded; see
    /// [`ClientBuilder::decompress`](crate::ClientBuilder::decompress). With false, a request that has no `accept-encoding` of
    /// its own asks for `identity` where the client by itself would ask for codings.
    pub fn decompress(mut self, enabled: bool) -> Self {
        self.decompress = Some(enabled);
        self
    }

    /// The limit of the body if it is collected, in bytes, counted after decoding.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.call.max_body = bytes;
        self
    }

    /// Attaches a value that travels with the request, such as for an interceptor.
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.call.extensions.insert(value);
        self
    }

    /// A copy, unless the body is a stream.
    pub fn try_clone(&self) -> Option<Self> {
        let body = self.call.body.try_clone()?;
        let mut call = self.call.like(body);
        call.head = self.call.head.clone();
        call.extensions = self.call.extensions.clone();
        Some(Self {
            client: self.client.clone(),
            call,
            userinfo: self.userinfo.clone(),
            content_type: self.content_type.clone(),
            compression: self.compression,
            error_for_status: self.error_for_status,
            decompress: self.decompress,
            mistake: self.mistake.clone(),
        })
    }

    /// The request in the types of the `http` crate, for [`Client::execute`]; its options travel as one extension.
    pub fn build(mut self) -> Result<http::Request<Body>> {
        self.finish()?;
        let mut extensions = self.call.extensions;
        extensions.insert(Options {
            own: self.call.own,
            error_for_status: self.error_for_status,
            idempotent: self.call.idempotent,
            max_body: self.call.max_body,
            decompress: self.decompress,
            asks: self.call.head.asks,
        });
        let mut request = http::Request::new(self.call.body);
        *request.method_mut() = self.call.head.method;
        *request.uri_mut() = self.call.head.target.into_uri();
        *request.headers_mut() = self.call.head.headers;
        *request.extensions_mut() = extensions;
        Ok(request)
    }

    /// Sends the request and waits for the head of the response.
    ///
    /// Fails with what is wrong in the request before a connection is used; with [`ErrorKind::Status`](crate::ErrorKind)
    /// for a status of 400 or more unless that is turned off; else with what happened on the way, see
    /// [`ErrorKind`](crate::ErrorKind). Dropping the future cancels the call: the connection closes, unless nothing was
    /// written yet; over HTTP/2 the stream is reset and the session goes on.
    #[expect(
        clippy::manual_async_fn,
        reason = "the signature promises that the future is Send and 'static"
    )]
    pub fn send(mut self) -> impl Future<Output = Result<Response>> + Send + 'static {
        async move {
            self.finish()?;
            let replayable = self.call.body.is_replayable();
            let mut place = None;
            run(&self.client.0.engine, &mut self.call, &mut place).await?;
            let error_for_status = self
                .error_for_status
                .unwrap_or(self.client.0.error_for_status);
            if error_for_status && is_error(put(&mut place).status()) {
                // Boxed: it is rare, and would weigh on the future of every call.
                let failing = fail(&self.client, &self.call, taken(place), replayable);
                return Err(Box::pin(failing).await);
            }
            Ok(taken(place))
        }
    }

    /// Reports the first mistake, and settles what depends on the order in which parts were given.
    fn finish(&mut self) -> Result<()> {
        self.settle();
        if let Some(mistake) = self.mistake.take() {
            let head = &self.call.head;
            return Err(match head.target.is_nowhere() {
                true => mistake,
                false => mistake.on_call(head.target.origin(), &head.method, 0, false),
            });
        }
        Ok(())
    }

    fn settle(&mut self) {
        if let Some(credentials) = self.userinfo.take() {
            self.call
                .head
                .headers
                .entry(header::AUTHORIZATION)
                .or_insert(*credentials);
        }
        if let Some(content_type) = self.content_type.take() {
            let parts = content_type.as_bytes().starts_with(b"multipart/");
            let own = self
                .call
                .head
                .headers
                .entry(header::CONTENT_TYPE)
                .or_insert_with(|| content_type.clone());
            if parts && *own != content_type {
                self.note(Error::invalid(
                    "multipart: a content-type is set, which cannot name the boundary between the parts; leave it out",
                ));
            }
        }
        self.check_unix();
        self.check_proxies();
        self.call.accepted = self.settle_codings();
        if let Some((bytes, coding)) = self.compression.take() {
            self.compress_body(bytes, coding);
        }
    }

    /// Puts the coding on, unless the body is short or in one already.
    fn compress_body(&mut self, bytes: u64, coding: Compression) {
        let Call { head, body, .. } = &mut self.call;
        let short = body.left().is_some_and(|left| left < bytes);
        if short || body.is_empty() || head.headers.contains_key(header::CONTENT_ENCODING) {
            return;
        }
        if head.headers.contains_key(header::CONTENT_LENGTH) {
            return self.note(Error::invalid(
                "compress: a content-length is set, but the length is known only when the body is compressed",
            ));
        }
        let name = coding.name();
        if !coding.is_built_in() {
            return self.note(Error::invalid(format!(
                "compress: {name} needs the feature `{name}`, which this build does not have"
            )));
        }
        *body = std::mem::take(body).compressed(coding);
        head.headers
            .insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }

    /// For the file that compresses bodies.
    pub(super) fn set_compression(&mut self, bytes: u64, coding: Compression) {
        self.compression = Some((bytes, coding));
    }

    /// Which codings are taken off the response; asks for them, or against them, where the client's defaults do not.
    fn settle_codings(&mut self) -> Accepted {
        let client = self.client.0.codings;
        let headers = &mut self.call.head.headers;
        let enabled = self.decompress.unwrap_or(client.enabled);
        let is_bare = headers.is_empty();
        if !is_bare && headers.contains_key(header::ACCEPT_ENCODING) {
            return match enabled {
                true => listed(headers),
                false => Accepted::NONE,
            };
        }
        let wanted = enabled && (is_bare || !headers.contains_key(header::RANGE));
        if !wanted && client.asks == Asking::Us {
            headers.insert(
                header::ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            );
        } else if wanted && client.asks == Asking::Nobody {
            if let Some(all) = field_of_all() {
                headers.insert(header::ACCEPT_ENCODING, all);
            }
        }
        match wanted {
            true => client.accepted,
            false => Accepted::NONE,
        }
    }

    pub(super) fn note(&mut self, mistake: Error) {
        self.mistake.get_or_insert(mistake);
    }

    /// For the files of features, which add a body and report a mistake of their own.
    #[cfg_attr(
        not(any(feature = "json", feature = "form", feature = "multipart")),
        expect(dead_code, reason = "only features use it")
    )]
    pub(super) fn with_body(mut self, body: Result<Body>, content_type: HeaderValue) -> Self {
        match body {
            Ok(body) => {
                self.call.body = body;
                self.content_type = Some(content_type);
            }
            Err(error) => self.note(error),
        }
        self
    }

    /// For the file that adds to the query of the URL.
    #[cfg_attr(
        not(feature = "form"),
        expect(dead_code, reason = "only a feature uses it")
    )]
    pub(super) fn append_query(&mut self, pairs: &str) -> Result<()> {
        let target = &mut self.call.head.target;
        // A URL that could not be parsed is a mistake that is noted already.
        if target.is_nowhere() {
            return Ok(());
        }
        target.append_query(pairs).map_err(Error::invalid_request)
    }
}

/// The error of a call whose response has an error status.
async fn fail(client: &Client, call: &Call, response: Response, replayable: bool) -> Error {
    let (origin, attempts) = (response.target.origin(), response.attempts());
    let error = into_error(response).await.vouched(call.is_vouched());
    client.0.engine.pool.counters(&origin).status_error();
    error.on_call(origin, &call.head.method, attempts, replayable)
}

impl IntoFuture for RequestBuilder {
    type Output = Result<Response>;
    type IntoFuture = BoxFuture<'static, Result<Response>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.call.head;
        f.debug_struct("RequestBuilder")
            .field("method", &head.method)
            .field("target", &head.target)
            .field("fields", &head.headers.len())
            .field("body", &self.call.body)
            .finish_non_exhaustive()
    }
}
