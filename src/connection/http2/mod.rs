//! HTTP/2 (RFC 9113) on the h2 crate: what h2 leaves to its users is done here (spec http2).
//!
//! - `session` opens a session and drives it: one task each; `shared` is what its parts know in common
//! - `session_io` is the socket under h2: large reads in slices, and a look at every frame header (`frames`, `flood`)
//! - `exchange` is one request and its response, in the caller's own task; `upload` its body on the way out, `tunnel` a stream
//!   that was given to another protocol
//! - `message` makes and checks heads, `failure` says what an error means
//!
//! The pool counts streams and never lends more than the peer allows: h2 would queue them without a bound.

mod exchange;
mod failure;
mod flood;
mod frames;
mod message;
mod session;
mod session_io;
mod shared;
mod tunnel;
mod upload;

pub(crate) use exchange::Exchange;
pub(crate) use session::{Driver, Prepared, Session};

/// Whether this build speaks HTTP/2.
pub(crate) const HTTP2_BUILT_IN: bool = true;
