//! A low-level HTTP client on raw sockets, with a pool of connections that can be watched.
//!
//! A **client** makes a **call**; **policy** decides; the **pool** lends a **connection**; its **codec** turns messages into
//! bytes on a **socket**; the **body** carries the connection back. **Stats** watch, the **deadline** limits, the **error**
//! says what went wrong.
//!
//! ```no_run
//! use sockeye::Client;
//!
//! # async fn run() -> sockeye::Result<()> {
//! let client = Client::new();
//! let response = client.get("https://example.com/").send().await?;
//! println!("{} {}", response.status(), response.text().await?);
//! println!("{}", client.stats());
//! # Ok(()) }
//! ```
//!
//! # What is always true
//!
//! - A connection is lent to one call at a time, and lent again only if its last exchange ended cleanly.
//! - Every size, count and time that a peer controls has a named limit: see [`Limits`] and [`Timeouts`].
//! - A status of 400 or more is an error that keeps its fields and the beginning of its body.
//! - Nothing is sent twice but what may be: a request of which nothing was written, or that the peer says it did not process,
//!   and an idempotent one, once, when a kept connection closed without a byte of its response. More is sent again by policy
//!   only: see [`Retry`].
//! - What a request carries as a secret reaches the origin that it was set for, and no other, wherever redirects lead.
//! - A host is looked up once for all calls that wait for it, the answer is remembered for its time, and every address is
//!   checked before it is dialled: see [`Resolve`] and [`ClientBuilder::deny_private`].
//! - What is for a proxy reaches that proxy alone, and calls that differ in anything about it share no connection: see [`Proxy`].
//! - Credentials, field values and query strings never show in `Display` or `Debug`.
//!
//! # Policies
//!
//! [`Retry`], [`CircuitBreaker`] and [`RateLimit`] are off until they are set, each or together by [`Resilience::standard`]. A call
//! without them asks nothing of them; one that succeeds at once with them allocates nothing for them and takes no lock.
//!
//! # Dropping a future
//!
//! Dropping a call that waits for a connection leaves the line; a dial that runs goes on and serves the next call. Dropping a
//! call whose request is on its way closes that connection. A response body dropped half read is read to its end if that
//! takes no more than [`Limits::max_drain`] and [`Limits::drain_timeout`], so that its connection can be used again; else it
//! closes. Over HTTP/2 either resets the stream, and the session goes on. Nothing leaks, and the next call works.
//!
//! # Features
//!
//! `http2` (default): HTTP/2, see [`HttpVersions`]. `tls` (default): `https` by rustls with aws-lc-rs and the webpki roots.
//! `ring`: `https` with ring in place of aws-lc-rs, in a build without `tls`. `platform-verifier`: certificates verified by the
//! operating system (`TlsConfigBuilder::platform_verifier`).
//! `json` (default): JSON bodies, and [`Stats`] that can be serialised. `form` (default): queries and form bodies. `multipart`:
//! multipart forms. `gzip` (default), `brotli` and `zstd`: responses in these content codings are asked for and decoded, see
//! [`ClientBuilder::decompress`]; `gzip` and `zstd` for requests as well, see [`RequestBuilder::compress`]. `charset` (default):
//! [`Response::text`] in other charsets than UTF-8. `cookies`: a `CookieJar`. `sse`: `Response::events`, and an `EventSource` that connects again.
//! `socks`: a [`Proxy`] may speak SOCKS5. `hickory`: `DnsResolver` asks name servers itself, and their answers hold for as long as they
//! say; it needs Rust 1.88, everything else 1.85. `url`: `url::Url` wherever a URL is taken, see [`IntoUrl`]. `tower`: [`Client`] as a
//! `tower_service::Service`.
//! `tracing`: a span of the crate `tracing` for each attempt, see below. `otel`: metrics and the trace context of OpenTelemetry
//! (`OtelMetrics`, `TraceContext`), see below. `test-util`: `sockeye::test`, a mock
//! transport, a network in memory and checks for test suites.
//!
//! # Watching
//!
//! [`Client::stats`] is a snapshot of everything that is counted, by origin. [`Response::timings`] tells where the time of a call
//! went. An [`Observer`] is told of each [event](stats::Event) of calls and connections as it happens.
//!
//! With the feature `tracing` each attempt is a span of the target `sockeye` and the level INFO, inside the span of the caller. It is
//! named for the method, has the fields of OpenTelemetry's conventions for HTTP clients (`http.request.method`, `server.address`,
//! `server.port`, `url.full` without the values of the query, `http.request.resend_count`, `http.response.status_code`,
//! `error.type`, `network.protocol.version`, `network.peer.address` and `.port`, and `otel.status_code` for statuses from 400 on and
//! errors), and ends when the response head is read. The end of a body is an event of the level DEBUG. A call that is dropped
//! leaves a span without status and error. An [attempt interceptor](ClientBuilder::attempt_interceptor) runs inside the span,
//! and can put the trace context into the request.
//!
//! With the feature `otel` an `OtelMetrics` is an observer that keeps the metrics of OpenTelemetry's conventions (`http.client.request.duration`,
//! `http.client.active_requests`, `http.client.open_connections`, `http.client.connection.duration`), and a `TraceContext` an attempt
//! interceptor that puts `traceparent` and `tracestate` into each attempt. Neither does anything until a client is given it.

mod body;
mod call;
mod client;
mod codec;
mod config;
mod connection;
mod deadline;
mod error;
mod head;
mod policy;
mod pool;
mod response;
mod socket;
pub mod stats;
#[cfg(feature = "test-util")]
pub mod test;
mod url;

#[cfg(feature = "json")]
pub use body::Ndjson;
pub use body::{Body, BodyReader, BytesStream, Collected, Compression, Lines};
#[cfg(feature = "sse")]
pub use body::{Event, Events};
#[cfg(feature = "multipart")]
pub use body::{Multipart, Part};
pub use call::{Authenticator, Interceptor, Next, on_request, on_response};
#[cfg(feature = "cookies")]
pub use call::{CookieJar, CookieStore};
#[cfg(feature = "sse")]
pub use client::EventSource;
#[cfg(feature = "otel")]
pub use client::TraceContext;
pub use client::{Circuit, Client, ClientBuilder, Closed, RequestBuilder};
pub use config::{CircuitState, Http2Config, HttpVersions, Limits, Liveness};
pub use deadline::Timeouts;
pub use error::{BoxError, BoxFuture, Error, ErrorKind, Phase, Result, Sent, StatusError};
pub use http::{self, HeaderMap, Method, StatusCode, Uri};
pub use policy::{
    Attempt, AuthScheme, Challenge, CircuitBreaker, Classify, RateLimit, Redirects, Resilience,
    Retry, RetryBudget, RetryKind, Verdict,
};
pub use response::{Progress, Redirect, Response};
#[cfg(feature = "hickory")]
pub use socket::DnsResolver;
pub use socket::{
    Alpn, Connect, ConnectionInfo, Proxy, Resolve, Resolved, Route, Socket, TcpKeepalive,
    TlsConfig, TlsInfo, Upgraded,
};
#[cfg(feature = "rustls")]
pub use socket::{ClientIdentity, TlsConfigBuilder, TlsVersion};
#[cfg(feature = "otel")]
pub use stats::OtelMetrics;
pub use stats::{EventMask, HostStats, Observer, Rates, Stats, Timings};
// The crate of the same name is another one.
pub use self::url::{IntoUrl, Origin};

/// The examples of the README, compiled with the documentation tests.
#[cfg(all(doctest, feature = "json", feature = "form", feature = "test-util"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// The pages for those who come from elsewhere, compiled in the same way.
#[cfg(all(doctest, feature = "json", feature = "form", feature = "test-util"))]
#[doc = include_str!("../docs/migrating-from-reqwest.md")]
#[doc = include_str!("../docs/coming-from-httpx.md")]
struct Pages;
