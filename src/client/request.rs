//! Makes one request; every part is checked when it is given, and `send` reports the first mistake.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::time::Duration;

use base64::Engine as _;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Method};

use super::builder::replace;
use super::status::is_error;
use super::status_error::into_error;
use super::{Client, mark_sensitive};
use crate::body::Body;
use crate::call::{Call, run};
use crate::deadline::Timeouts;
use crate::error::{BoxFuture, Error, Result};
use crate::head::RequestHead;
use crate::response::Response;
use crate::url::Parsed;

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
    client: Client,
    method: Method,
    url: Result<Parsed>,
    headers: HeaderMap,
    body: Body,
    options: Options,
    extensions: Extensions,
    /// The first mistake besides the URL's.
    mistake: Option<Error>,
}

/// What a request asks of the client rather than of the server.
#[derive(Clone, Debug, Default)]
struct Options {
    timeouts: Option<Box<Timeouts>>,
    error_for_status: Option<bool>,
    idempotent: bool,
    max_body: Option<usize>,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, method: Method, url: Result<Parsed>) -> Self {
        Self {
            client,
            method,
            url,
            headers: HeaderMap::new(),
            body: Body::empty(),
            options: Options::default(),
            extensions: Extensions::new(),
            mistake: None,
        }
    }

    pub(super) fn from_http(client: Client, request: http::Request<Body>) -> Self {
        let (mut parts, body) = request.into_parts();
        let url = client.parse(parts.uri);
        let options = parts.extensions.remove::<Options>().unwrap_or_default();
        let mut builder = Self::new(client, parts.method, url);
        builder.headers = parts.headers;
        mark_sensitive(&mut builder.headers);
        builder.body = body;
        builder.options = options;
        builder.extensions = parts.extensions;
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
                let secret = [
                    header::AUTHORIZATION,
                    header::COOKIE,
                    header::PROXY_AUTHORIZATION,
                ]
                .contains(&name);
                value.set_sensitive(value.is_sensitive() || secret);
                if self.headers.try_append(name, value).is_err() {
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
        replace(&mut self.headers, headers);
        self
    }

    /// Sets `authorization` to user and password (RFC 7617). The user cannot hold a colon.
    pub fn basic_auth(
        mut self,
        user: impl fmt::Display,
        password: Option<impl fmt::Display>,
    ) -> Self {
        let user = user.to_string();
        if user.contains(':') || user.chars().any(char::is_control) {
            self.note(Error::invalid(
                "basic_auth: the user holds a colon or a control character",
            ));
            return self;
        }
        let mut credentials = user;
        credentials.push(':');
        if let Some(password) = password {
            credentials.push_str(&password.to_string());
        }
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
        self.authorization("basic_auth", format!("Basic {encoded}"))
    }

    /// Sets `authorization` to a bearer token (RFC 6750).
    pub fn bearer_auth(self, token: impl fmt::Display) -> Self {
        self.authorization("bearer_auth", format!("Bearer {token}"))
    }

    fn authorization(mut self, call: &str, value: String) -> Self {
        match HeaderValue::try_from(value) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.headers.insert(header::AUTHORIZATION, value);
            }
            Err(_) => self.note(Error::invalid(format!(
                "{call}: the credentials hold a control character"
            ))),
        }
        self
    }

    /// The body; the last one given wins. A body of bytes is sent with its length, a stream in chunks.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Time limits of this call, in place of all of the client's.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.options.timeouts = Some(Box::new(timeouts));
        self
    }

    /// The limit of the whole call, its body included; the other limits stay.
    pub fn timeout(mut self, total: Duration) -> Self {
        let client = self.client.0.engine.timeouts;
        self.options
            .timeouts
            .get_or_insert_with(|| Box::new(client))
            .total = Some(total);
        self
    }

    /// Whether a status of 400 or more is an error of this call.
    pub fn error_for_status(mut self, enabled: bool) -> Self {
        self.options.error_for_status = Some(enabled);
        self
    }

    /// Vouches that sending the request twice does what sending it once does, so that it can be sent again when a kept
    /// connection turns out to be dead. GET, HEAD, OPTIONS, TRACE, PUT, DELETE and QUERY need no voucher, and an
    /// `idempotency-key` is one.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.options.idempotent = idempotent;
        self
    }

    /// The limit of the body if it is collected, in bytes.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.options.max_body = Some(bytes);
        self
    }

    /// Attaches a value that travels with the request, such as for an interceptor.
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.extensions.insert(value);
        self
    }

    /// A copy, unless the body is a stream.
    pub fn try_clone(&self) -> Option<Self> {
        let body = match self.body.as_bytes() {
            Some(bytes) => Body::from(bytes.clone()),
            None if self.body.is_replayable() => Body::empty(),
            None => return None,
        };
        let url = match &self.url {
            Ok(parsed) => Ok(Parsed {
                target: parsed.target.clone(),
                authorization: parsed.authorization.clone(),
            }),
            Err(error) => Err(error.clone()),
        };
        Some(Self {
            client: self.client.clone(),
            method: self.method.clone(),
            url,
            headers: self.headers.clone(),
            body,
            options: self.options.clone(),
            extensions: self.extensions.clone(),
            mistake: self.mistake.clone(),
        })
    }

    /// The request in the types of the `http` crate, for [`Client::execute`]; its options travel as one extension.
    pub fn build(self) -> Result<http::Request<Body>> {
        let (options, mut extensions) = (self.options.clone(), self.extensions.clone());
        let (_, call) = self.into_call()?;
        extensions.insert(options);
        let mut request = http::Request::new(call.body);
        *request.method_mut() = call.head.method;
        *request.uri_mut() = call.head.target.into_uri();
        *request.headers_mut() = call.head.headers;
        *request.extensions_mut() = extensions;
        Ok(request)
    }

    /// Sends the request and waits for the head of the response.
    ///
    /// Fails with what is wrong in the request before a connection is used; with [`ErrorKind::Status`](crate::ErrorKind)
    /// for a status of 400 or more unless that is turned off; else with what happened on the way, see
    /// [`ErrorKind`](crate::ErrorKind). Dropping the future cancels the call: the connection closes, unless nothing was
    /// written yet.
    pub fn send(self) -> impl Future<Output = Result<Response>> + Send + 'static {
        let error_for_status = self
            .options
            .error_for_status
            .unwrap_or(self.client.0.error_for_status);
        // The call is lent to the spine from where it is captured: moved into it, it would be in the future twice.
        let mut prepared = self.into_call();
        async move {
            let (client, call) = match &mut prepared {
                Ok(prepared) => prepared,
                Err(error) => return Err(error.clone()),
            };
            let response = run(&client.0.engine, call).await?;
            if error_for_status && is_error(response.status()) {
                // Boxed: it is rare, and would weigh on the future of every call.
                return Err(Box::pin(fail(client, call, response)).await);
            }
            Ok(response)
        }
    }

    fn into_call(mut self) -> Result<(Client, Call)> {
        let Parsed {
            target,
            authorization,
        } = self.url?;
        if let Some(mistake) = self.mistake {
            return Err(mistake.on_call(target.origin(), &self.method, 0, false));
        }
        if let Some(credentials) = authorization {
            self.headers
                .entry(header::AUTHORIZATION)
                .or_insert(credentials);
        }
        let inner = &self.client.0;
        let call = Call {
            head: RequestHead {
                method: self.method,
                target,
                headers: self.headers,
            },
            body: self.body,
            timeouts: self.options.timeouts,
            idempotent: self.options.idempotent,
            max_body: self.options.max_body.unwrap_or(inner.max_body),
        };
        Ok((self.client, call))
    }

    fn note(&mut self, mistake: Error) {
        self.mistake.get_or_insert(mistake);
    }

    /// For the files of features, which add a body and report a mistake of their own.
    #[cfg_attr(
        not(feature = "json"),
        expect(dead_code, reason = "only features use it")
    )]
    pub(super) fn with_body(mut self, body: Result<Body>, content_type: &'static str) -> Self {
        match body {
            Ok(body) => {
                self.body = body;
                self.headers
                    .entry(header::CONTENT_TYPE)
                    .or_insert(HeaderValue::from_static(content_type));
            }
            Err(error) => self.note(error),
        }
        self
    }
}

/// The error of a call whose response has an error status.
async fn fail(client: &Client, call: &Call, response: Response) -> Error {
    let (origin, attempts) = (response.target.origin(), response.attempts());
    let error = into_error(response).await;
    client.0.engine.pool.count_status_error(&origin);
    error.on_call(
        origin,
        &call.head.method,
        attempts,
        call.body.is_replayable(),
    )
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
        let mut debug = f.debug_struct("RequestBuilder");
        debug.field("method", &self.method);
        if let Ok(parsed) = &self.url {
            debug.field("target", &parsed.target);
        }
        debug
            .field("fields", &self.headers.len())
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}
