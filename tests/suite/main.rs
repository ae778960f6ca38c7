//! The suite: what the library promises, tested through its public interface only, one module a subject.
//!
//! Most of it runs over in-memory connections under paused time, with a scripted peer (`support/peer.rs`). No test sleeps,
//! and every test ends with a look at the pool: nothing may be lent, dialled or waited for any more.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod adapters;
mod bodies;
mod bombs;
#[cfg(feature = "rustls")]
mod certificates;
mod compressing;
mod conformance;
#[cfg(feature = "cookies")]
mod cookies;
#[cfg(feature = "json")]
mod counters;
mod credentials;
mod cuts;
mod decoding;
mod dialling;
mod differential;
#[cfg(feature = "rustls")]
mod doubles;
#[cfg(feature = "sse")]
mod event_source;
#[cfg(feature = "sse")]
mod events;
mod exchange;
#[cfg(feature = "rustls")]
mod flights;
#[cfg(feature = "form")]
mod forms;
#[cfg(feature = "http2")]
mod http2;
mod interceptors;
mod interop;
#[cfg(all(feature = "http2", feature = "rustls"))]
mod interop_haproxy;
#[cfg(all(feature = "http2", feature = "rustls"))]
mod interop_http2;
#[cfg(feature = "rustls")]
mod interop_openssl;
mod interop_proxy;
#[cfg(all(feature = "tracing", feature = "gzip"))]
mod leaks;
mod liveness;
mod mixing;
#[cfg(feature = "multipart")]
mod multipart;
#[cfg(feature = "hickory")]
mod names;
mod network;
mod observing;
#[cfg(feature = "otel")]
mod otel;
#[cfg(feature = "platform-verifier")]
mod platform;
mod pool;
mod proxies;
mod reading;
mod redirects;
mod resilience;
mod runtimes;
#[cfg(feature = "rustls")]
mod secrets;
mod seeds;
mod status;
mod support;
mod switching;
mod timeouts;
#[cfg(feature = "rustls")]
mod tls;
#[cfg(feature = "rustls")]
mod tls_settings;
#[cfg(feature = "tower")]
mod tower;
#[cfg(feature = "tracing")]
mod tracing;
mod transcripts;
#[cfg(feature = "rustls")]
mod truncation;
#[cfg(unix)]
mod unix_sockets;
