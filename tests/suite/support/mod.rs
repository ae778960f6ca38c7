//! What the tests stand on: peers, servers, faults and streams. No test is in here.

pub(crate) mod coding;
#[cfg(feature = "hickory")]
pub(crate) mod dns;
pub(crate) mod faults;
pub(crate) mod framing;
#[cfg(feature = "http2")]
pub(crate) mod http2;
pub(crate) mod peer;
pub(crate) mod programs;
pub(crate) mod proxy;
pub(crate) mod recorder;
pub(crate) mod reply;
pub(crate) mod server;
#[cfg(feature = "tracing")]
pub(crate) mod spans;
pub(crate) mod streams;
pub(crate) mod ways;
