//! What went wrong, in one value that every layer can make and every user can read.
//!
//! This file knows no other layer: a layer hands over its own small error enum erased, as a cause. It does no I/O and
//! reads no clock. Every layer calls [`Error::new`]; the spine adds the origin, the method and the number of attempts.
//! Credentials, header values and query strings never enter an [`Error`], so that logging one is always safe.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use crate::deadline::{Expired, Setting};
use crate::url::Origin;

/// The result of everything that can fail in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error that can cross a thread.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A boxed future, as the extension traits return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a call failed: one pointer wide, cheap to clone, and its `Display` tells the whole story in one line.
///
/// Because the line already holds the causes, [`source`](StdError::source) is `None`; [`cause`](Error::cause) gives them.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let error = sockeye::Client::new().get("http://127.1/").send().await.unwrap_err();
/// assert_eq!(error.kind(), sockeye::ErrorKind::InvalidRequest);
/// assert!(error.to_string().contains("127.1"));
/// # });
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    phase: Option<Phase>,
    sent: Sent,
    origin: Option<Origin>,
    method: Option<Method>,
    attempts: u32,
    /// A full replacement for the sentence that the kind alone would give.
    message: Option<Cow<'static, str>>,
    expired: Option<Expired>,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
    status: Option<StatusError>,
    /// Where the system's error is not itself in the chain of causes.
    io_kind: Option<io::ErrorKind>,
    replayable: bool,
    /// The caller, or a field of the request, vouches that it may be sent twice.
    vouched: bool,
    /// The peer has said that it did not process the request.
    unprocessed: bool,
    /// What made it fail is on this side, so it fails again.
    is_final: bool,
    /// With which a proxy refused to make a tunnel.
    proxy_status: Option<StatusCode>,
    /// Of a call that was refused for a time.
    retry_after: Option<Duration>,
}

/// The class of a failure. New kinds may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's own side of a body failed: a request body failed or missed its length, what a response was copied to could
    /// not be written; or a stream of events ended too early.
    Body,
    /// A circuit breaker refused the call.
    CircuitOpen,
    /// The client was closed.
    ClientClosed,
    /// No address of the host accepted a connection, or settings of the client exclude them all.
    Connect,
    /// A body could not be read as what was asked for: coding, charset, JSON, events.
    Decode,
    /// An interceptor of the user failed the call.
    Interceptor,
    /// The request could not be sent as it was built; nothing left this process.
    InvalidRequest,
    /// The connection failed: a reset, or its end before any byte of the reply.
    Io,
    /// Too many calls already wait for a connection to this origin.
    PoolFull,
    /// The peer broke HTTP, a head or a body that is cut short included.
    Protocol,
    /// A proxy could not be reached, refused or failed; see [`Error::proxy_status`].
    Proxy,
    /// A rate limit would make the call wait too long.
    RateLimited,
    /// A redirect could not be followed.
    Redirect,
    /// The host name could not be resolved.
    Resolve,
    /// The response has a status of 400 or more.
    Status,
    /// A limit of [`Timeouts`](crate::Timeouts) struck.
    Timeout,
    /// TLS failed: the certificate, the handshake or a record.
    Tls,
    /// A size or count that the peer controls went over its limit.
    TooLarge,
}

/// The step of a call that was running when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// Building and checking the request.
    Prepare,
    /// Waiting for a connection of the pool.
    Pool,
    /// Resolving the host name.
    Resolve,
    /// Connecting over TCP.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Writing the request.
    Write,
    /// Waiting for the response head.
    Head,
    /// Reading the response body.
    Read,
}

/// How much of the request had been handed to the system when the call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Sent {
    /// Not one byte: the peer cannot have acted on it.
    Nothing,
    /// Some of it.
    Part,
    /// All of it.
    All,
}

/// What an error status came with.
///
/// The body is read up to 64 KiB; `truncated` says that there was more, or that the rest did not come in time.
#[derive(Clone)]
#[non_exhaustive]
pub struct StatusError {
    /// The status, 400 or more.
    pub status: StatusCode,
    /// The response's fields.
    pub headers: HeaderMap,
    /// At most the first 64 KiB of the body.
    pub body: Bytes,
    /// Whether the body was longer than what is kept here.
    pub truncated: bool,
}

impl Error {
    /// A failure of `kind`; what is known is added by the methods below.
    pub(crate) fn new(kind: ErrorKind, phase: Option<Phase>, sent: Sent) -> Self {
        Self(Arc::new(Inner {
            kind,
            phase,
            sent,
            origin: None,
            method: None,
            attempts: 0,
            message: None,
            expired: None,
            cause: None,
            status: None,
            io_kind: None,
            replayable: false,
            vouched: false,
            unprocessed: false,
            is_final: false,
            proxy_status: None,
            retry_after: None,
        }))
    }

    /// A policy refuses the call, for so long if that is known; `message` says why.
    pub(crate) fn refused(
        kind: ErrorKind,
        wait: Option<Duration>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let mut error = Self::new(kind, None, Sent::Nothing).saying(message);
        error.inner().retry_after = wait;
        error
    }

    /// The request as it was built cannot be sent; `why` names the part and what to change.
    pub(crate) fn invalid_request(why: impl StdError + Send + Sync + 'static) -> Self {
        Self::new(
            ErrorKind::InvalidRequest,
            Some(Phase::Prepare),
            Sent::Nothing,
        )
        .because(why)
    }

    /// As [`Error::invalid_request`], with a sentence of its own.
    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            ErrorKind::InvalidRequest,
            Some(Phase::Prepare),
            Sent::Nothing,
        )
        .saying(message)
    }

    /// A limit struck.
    pub(crate) fn timeout(expired: Expired, sent: Sent) -> Self {
        let mut error = Self::new(ErrorKind::Timeout, Some(expired.phase), sent);
        error.inner().expired = Some(expired);
        error
    }

    /// A status of 400 or more became the result.
    pub(crate) fn from_status(status: StatusError) -> Self {
        let mut error = Self::new(ErrorKind::Status, None, Sent::All);
        error.inner().status = Some(status);
        error
    }

    /// For interceptors and other code of the user that must fail a call.
    ///
    /// ```
    /// let error = sockeye::Error::interceptor("no token for this tenant");
    /// assert_eq!(error.kind(), sockeye::ErrorKind::Interceptor);
    /// assert_eq!(error.to_string(), "an interceptor failed the call: no token for this tenant");
    /// ```
    pub fn interceptor(cause: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Interceptor, None, Sent::Nothing).because_of(cause.into())
    }

    /// Adds the error of the layer below.
    pub(crate) fn because(self, cause: impl StdError + Send + Sync + 'static) -> Self {
        self.because_of(Box::new(cause))
    }

    /// Adds a cause that is erased already.
    pub(crate) fn because_of(mut self, cause: BoxError) -> Self {
        self.inner().cause = Some(Arc::from(cause));
        self
    }

    /// Adds the kind of a system's error that the cause tells in words only.
    pub(crate) fn with_io_kind(mut self, kind: Option<io::ErrorKind>) -> Self {
        self.inner().io_kind = kind;
        self
    }

    /// Replaces the sentence of the kind.
    pub(crate) fn saying(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.inner().message = Some(message.into());
        self
    }

    /// Adds whom the call was for. What is known already stays.
    pub(crate) fn on_call(
        mut self,
        origin: Origin,
        method: &Method,
        attempts: u32,
        replayable: bool,
    ) -> Self {
        let inner = self.inner();
        inner.origin.get_or_insert(origin);
        inner.method.get_or_insert_with(|| method.clone());
        inner.attempts = inner.attempts.max(attempts);
        inner.replayable = replayable;
        self
    }

    /// Adds how often the request was tried only, where no more is known of the call.
    pub(crate) fn tried(mut self, attempts: u32) -> Self {
        self.inner().attempts = attempts;
        self
    }

    /// Adds whether the request may be sent twice whatever its method is.
    pub(crate) fn vouched(mut self, vouched: bool) -> Self {
        if vouched {
            self.inner().vouched = true;
        }
        self
    }

    /// The peer has said that it did not process the request, whatever of it was written.
    #[cfg_attr(
        not(any(feature = "http2", test)),
        expect(dead_code, reason = "only HTTP/2 has a word for it")
    )]
    pub(crate) fn unprocessed(mut self) -> Self {
        self.inner().unprocessed = true;
        self
    }

    /// A setting of the client, or the user's own code, is why it failed, so that trying again is in vain.
    pub(crate) fn never_again(mut self) -> Self {
        self.inner().is_final = true;
        self
    }

    /// Adds the status with which a proxy refused to make a tunnel.
    pub(crate) fn by_proxy(mut self, status: Option<StatusCode>) -> Self {
        self.inner().proxy_status = status;
        self
    }

    /// Adds the origin only, for what fails after the head.
    pub(crate) fn at(mut self, origin: &Origin) -> Self {
        self.inner().origin.get_or_insert_with(|| origin.clone());
        self
    }

    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The step that failed, where one can be named.
    pub fn phase(&self) -> Option<Phase> {
        self.0.phase
    }

    /// How much of the request was handed to the system before the failure.
    pub fn sent(&self) -> Sent {
        self.0.sent
    }

    /// Whom the call was for.
    pub fn origin(&self) -> Option<&Origin> {
        self.0.origin.as_ref()
    }

    /// The method of the call.
    pub fn method(&self) -> Option<&Method> {
        self.0.method.as_ref()
    }

    /// How often the request was tried; 0 if it never got that far.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The error of the layer below; its own `source` continues the chain.
    pub fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .cause
            .as_deref()
            .map(|cause| cause as &(dyn StdError + 'static))
    }

    /// The kind of the system's error, if one is among the causes.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        let mut next = self.cause();
        while let Some(cause) = next {
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                return Some(error.kind());
            }
            next = cause.source();
        }
        self.0.io_kind
    }

    /// The status, if a status is what failed the call.
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status.as_ref().map(|error| error.status)
    }

    /// The status with which a proxy refused to make a tunnel (CONNECT), if that is what failed the call. It is not the
    /// server's, which [`status`](Self::status) is.
    ///
    /// ```no_run
    /// # async fn run(client: sockeye::Client) {
    /// match client.get("https://example.com/").send().await {
    ///     Err(error) if error.proxy_status().is_some() => eprintln!("ask who runs the proxy: {error}"),
    ///     _ => {}
    /// }
    /// # }
    /// ```
    pub fn proxy_status(&self) -> Option<StatusCode> {
        self.0.proxy_status
    }

    /// Status, headers and the beginning of the body, if a status is what failed the call.
    pub fn status_error(&self) -> Option<&StatusError> {
        self.0.status.as_ref()
    }

    /// How long to wait before another call makes sense.
    ///
    /// Of an error status it is what the server asks for (RFC 9110 section 10.2.3): `retry-after-ms`, or else `retry-after` as
    /// seconds, with a fraction or without, or as a date compared with the response's own `date`, so that a clock that is off
    /// on either side does not matter. Of [`ErrorKind::CircuitOpen`] it is the time for which the breaker stays open, if that is
    /// known, and of [`ErrorKind::RateLimited`] the wait that was too long.
    pub fn retry_after(&self) -> Option<Duration> {
        let Some(status) = &self.0.status else {
            return self.0.retry_after;
        };
        asked_wait(|name| Some(status.headers.get(name)?.as_bytes()))
    }

    /// Whether a limit of [`Timeouts`](crate::Timeouts) struck.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::Timeout
    }

    /// Whether no usable connection came about: DNS, TCP, TLS handshake, proxy.
    pub fn is_connect(&self) -> bool {
        let failed = matches!(
            self.0.kind,
            ErrorKind::Connect | ErrorKind::Resolve | ErrorKind::Tls | ErrorKind::Proxy
        );
        let late = matches!(
            self.0.phase,
            Some(Phase::Resolve | Phase::Connect | Phase::Tls)
        );
        failed || (self.is_timeout() && late)
    }

    /// Whether the status is what failed the call.
    pub fn is_status(&self) -> bool {
        self.0.kind == ErrorKind::Status
    }

    /// Whether a body failed: the caller's own, or a stream that was cut off.
    pub fn is_body(&self) -> bool {
        self.0.kind == ErrorKind::Body
    }

    /// Whether the body arrived but was not what it was read as.
    pub fn is_decode(&self) -> bool {
        self.0.kind == ErrorKind::Decode
    }

    /// Whether the client had been closed.
    pub fn is_closed(&self) -> bool {
        self.0.kind == ErrorKind::ClientClosed
    }

    /// Whether TLS is what failed.
    pub fn is_tls(&self) -> bool {
        self.0.kind == ErrorKind::Tls
    }

    /// Whether the peer broke HTTP.
    pub fn is_protocol(&self) -> bool {
        self.0.kind == ErrorKind::Protocol
    }

    /// Whether a retry could be right for this method and body, attempts and budgets aside: the request never left, or
    /// it may be sent twice (an idempotent method, an `idempotency-key` or the caller's word, and a body that can be sent again)
    /// and the failure is one that passes. It is what [`Retry`](crate::Retry) goes by.
    pub fn is_retryable(&self) -> bool {
        let inner = &*self.0;
        if !inner.replayable || inner.is_final {
            return false;
        }
        let idempotent = inner.vouched || inner.method.as_ref().is_some_and(is_idempotent);
        let is_early = matches!(inner.phase, Some(Phase::Write | Phase::Head));
        match inner.kind {
            ErrorKind::Connect | ErrorKind::Proxy => true,
            // A name that does not exist is not found by asking again.
            ErrorKind::Resolve => self.io_kind() != Some(io::ErrorKind::NotFound),
            ErrorKind::Tls => self.is_broken_off(),
            ErrorKind::Timeout if self.is_total() => false,
            ErrorKind::Io | ErrorKind::Protocol | ErrorKind::Timeout | ErrorKind::TooLarge
                if inner.unprocessed =>
            {
                true
            }
            ErrorKind::Timeout
                if matches!(
                    inner.phase,
                    Some(Phase::Resolve | Phase::Connect | Phase::Tls)
                ) =>
            {
                true
            }
            ErrorKind::Timeout | ErrorKind::Io => {
                is_early && (inner.sent == Sent::Nothing || idempotent)
            }
            // A head that is cut short.
            ErrorKind::Protocol if self.io_kind() == Some(io::ErrorKind::UnexpectedEof) => {
                is_early && idempotent
            }
            ErrorKind::Status => match self.status().map(|status| status.as_u16()) {
                Some(408 | 429) => true,
                Some(503) if self.retry_after().is_some() => true,
                Some(500 | 502 | 503 | 504) => idempotent,
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether a TLS handshake ended because the connection did, not because one side disliked what it saw.
    pub(crate) fn is_broken_off(&self) -> bool {
        let is_handshake = self.0.kind == ErrorKind::Tls && self.0.phase == Some(Phase::Tls);
        is_handshake && self.io_kind().is_some_and(is_end_of_connection)
    }

    /// Whether what made it fail is on this side, so that it fails again.
    pub(crate) fn is_final(&self) -> bool {
        self.0.is_final
    }

    /// Whether the limit of the whole call is what struck.
    pub(crate) fn is_total(&self) -> bool {
        matches!(
            self.0.expired,
            Some(Expired {
                setting: Setting::Total,
                ..
            })
        )
    }
}

/// Whether the connection ended, in whatever way the system puts it.
pub(crate) fn is_end_of_connection(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::TimedOut
    )
}

/// The wait that a server asks for: `retry-after-ms`, or `retry-after` as seconds or as a date, which counts from the
/// response's own `date`. Numbers may have a fraction; one that is too large is the longest wait there is.
pub(crate) fn asked_wait<'a>(field: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Duration> {
    let text = |name| Some(std::str::from_utf8(field(name)?).ok()?.trim());
    if let Some(millis) = text("retry-after-ms").and_then(decimal) {
        return Some(millis.checked_div(1000).unwrap_or_default());
    }
    let value = text("retry-after")?;
    if let Some(seconds) = decimal(value) {
        return Some(seconds);
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(text("date")?).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// A decimal number without sign and exponent, as seconds.
fn decimal(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    let seconds = whole.parse().unwrap_or(u64::MAX);
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(Duration::new(seconds, nanos))
}

/// Whether a method may be sent twice with the effect of once (RFC 9110 section 9.2.2, and QUERY).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE" | "QUERY"
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        match (&inner.method, &inner.origin) {
            (Some(method), Some(origin)) => write!(f, "{method} {origin}: ")?,
            (None, Some(origin)) => write!(f, "{origin}: ")?,
            _ => {}
        }
        match (&inner.message, &inner.expired, &inner.status) {
            (Some(message), _, _) => f.write_str(message)?,
            (None, Some(expired), _) => write!(f, "{expired}")?,
            (None, None, Some(status)) => write!(f, "{status}")?,
            (None, None, None) => f.write_str(sentence(inner.kind, inner.phase))?,
        }
        if inner.attempts > 1 {
            write!(f, " (after {} attempts)", inner.attempts)?;
        }
        let mut next = self.cause();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("phase", &self.0.phase)
            .field("sent", &self.0.sent)
            .field("attempts", &self.0.attempts)
            .field("message", &format_args!("{self}"))
            .finish()
    }
}

impl StdError for Error {}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status.as_u16())?;
        if let Some(reason) = self.status.canonical_reason() {
            write!(f, " {reason}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Field values and the body may hold secrets; their counts do not.
        f.debug_struct("StatusError")
            .field("status", &self.status)
            .field("fields", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .field("truncated", &self.truncated)
            .finish()
    }
}

/// What to say where nothing better is known.
fn sentence(kind: ErrorKind, phase: Option<Phase>) -> &'static str {
    match (kind, phase) {
        (ErrorKind::Body, _) => "the request body failed",
        (ErrorKind::CircuitOpen, _) => "the circuit breaker is open",
        (ErrorKind::ClientClosed, _) => "the client is closed",
        (ErrorKind::Connect, _) => "could not connect",
        (ErrorKind::Decode, _) => "could not decode the body",
        (ErrorKind::Interceptor, _) => "an interceptor failed the call",
        (ErrorKind::InvalidRequest, _) => "the request cannot be sent",
        (ErrorKind::Io, Some(Phase::Write)) => {
            "the connection failed while the request was written"
        }
        (ErrorKind::Io, Some(Phase::Head)) => "the connection failed before the response head",
        (ErrorKind::Io, Some(Phase::Read)) => "the connection failed in the response body",
        (ErrorKind::Io, _) => "the connection failed",
        (ErrorKind::PoolFull, _) => "too many calls wait for a connection",
        (ErrorKind::Protocol, Some(Phase::Read)) => "the response body breaks HTTP",
        (ErrorKind::Protocol, _) => "the response breaks HTTP",
        (ErrorKind::Proxy, _) => "the proxy failed",
        (ErrorKind::RateLimited, _) => "the rate limit asks to wait too long",
        (ErrorKind::Redirect, _) => "the redirect cannot be followed",
        (ErrorKind::Resolve, _) => "could not resolve the host",
        (ErrorKind::Status, _) => "the status is an error",
        (ErrorKind::Timeout, _) => "timed out",
        (ErrorKind::Tls, _) => "TLS failed",
        (ErrorKind::TooLarge, _) => "the response is over a limit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, fields: &[(&'static str, &'static str)]) -> Error {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        Error::from_status(StatusError {
            status: StatusCode::from_u16(code).unwrap(),
            headers,
            body: Bytes::from_static(b"secret"),
            truncated: false,
        })
    }

    #[test]
    fn one_line_holds_the_causes_and_source_is_none() {
        let error = Error::new(ErrorKind::Io, Some(Phase::Head), Sent::All).because(
            io::Error::new(io::ErrorKind::ConnectionReset, "reset by peer"),
        );
        assert_eq!(
            error.to_string(),
            "the connection failed before the response head: reset by peer"
        );
        assert!(error.source().is_none());
        assert_eq!(error.io_kind(), Some(io::ErrorKind::ConnectionReset));
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    /// What a server asks for, by `retry-after-ms`, `retry-after` and `date`, in milliseconds.
    #[test]
    fn retry_after_in_every_form() {
        const DATE: &str = "Fri, 31 Dec 1999 23:59:00 GMT";
        const LATER: &str = "Fri, 31 Dec 1999 23:59:59 GMT";
        let check = |fields: &[(&'static str, &'static str)], expected: Option<u64>| {
            let told = status(503, fields).retry_after();
            assert_eq!(told, expected.map(Duration::from_millis), "{fields:?}");
        };
        for (value, expected) in [
            ("120", Some(120_000)),
            ("0", Some(0)),
            (" 7 ", Some(7000)),
            ("1.5", Some(1500)),
            ("00012", Some(12_000)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.", None),
            (".5", None),
            ("1e3", None),
            ("1,5", None),
            ("1.2.3", None),
            ("soon", None),
            ("inf", None),
            // A date says nothing without one to compare it with.
            (LATER, None),
        ] {
            check(&[("retry-after", value)], expected);
        }
        let fine = status(503, &[("retry-after", "0.0001")]).retry_after();
        assert_eq!(fine, Some(Duration::from_micros(100)));
        let huge = status(503, &[("retry-after", "99999999999999999999")]).retry_after();
        assert_eq!(huge, Some(Duration::from_secs(u64::MAX)));
        check(&[("retry-after-ms", "250")], Some(250));
        let half = status(503, &[("retry-after-ms", "0.5"), ("retry-after", "9")]).retry_after();
        assert_eq!(half, Some(Duration::from_micros(500)));
        check(&[("date", DATE), ("retry-after", LATER)], Some(59_000));
        // Whatever the clock of this side says, and also when the date is past.
        check(&[("date", LATER), ("retry-after", LATER)], Some(0));
        check(&[("date", LATER), ("retry-after", DATE)], Some(0));
        check(&[("date", "today"), ("retry-after", LATER)], None);
        // The two older forms of a date (RFC 9110 section 5.6.7).
        check(
            &[
                ("date", DATE),
                ("retry-after", "Friday, 31-Dec-99 23:59:10 GMT"),
            ],
            Some(10_000),
        );
        check(
            &[("date", DATE), ("retry-after", "Fri Dec 31 23:59:10 1999")],
            Some(10_000),
        );
        // Milliseconds come first; what is no number there does not count.
        check(&[("retry-after-ms", "20"), ("retry-after", "9")], Some(20));
        check(&[("retry-after-ms", "x"), ("retry-after", "9")], Some(9000));
    }

    #[test]
    fn debug_shows_neither_fields_nor_body() {
        let error = status(401, &[("set-cookie", "sid=secret")]);
        assert_eq!(error.to_string(), "status 401 Unauthorized");
        assert!(!format!("{error:?} {:?}", error.status_error()).contains("secret"));
    }

    #[test]
    fn retryable_needs_a_body_that_can_be_sent_again() {
        let reset = |method: Method, replayable| {
            let origin = crate::url::UrlInput::Text("http://a.test".into())
                .parse(None)
                .unwrap()
                .target
                .origin();
            Error::new(ErrorKind::Io, Some(Phase::Head), Sent::All)
                .on_call(origin, &method, 1, replayable)
        };
        assert!(reset(Method::GET, true).is_retryable());
        assert!(!reset(Method::GET, false).is_retryable());
        assert!(!reset(Method::POST, true).is_retryable());
    }
}
