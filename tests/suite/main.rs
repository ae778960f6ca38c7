//! The suite: what the library promises, tested through its public interface only, one module a subject.
//!
//! Most of it runs over in-memory connections under paused time, with a scripted peer (`support/peer.rs`). No test sleeps,
//! and every test ends with a look at the pool: nothing may be lent, dialled or waited for any more.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod bodies;
mod compressing;
mod conformance;
mod cuts;
mod decoding;
mod differential;
#[cfg(feature = "sse")]
mod event_source;
#[cfg(feature = "sse")]
mod events;
mod exchange;
#[cfg(feature = "form")]
mod forms;
#[cfg(feature = "http2")]
mod http2;
mod interop;
#[cfg(all(feature = "http2", feature = "tls"))]
mod interop_http2;
mod liveness;
mod mixing;
#[cfg(feature = "multipart")]
mod multipart;
mod network;
mod pool;
mod reading;
mod resilience;
mod runtimes;
mod seeds;
mod status;
mod support;
mod switching;
mod timeouts;
#[cfg(feature = "tls")]
mod tls;
mod transcripts;
