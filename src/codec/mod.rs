//! HTTP/1.1 messages to bytes and back (RFC 9112), without any I/O.
//!
//! Every decoder takes a buffer and says what it used, or that it needs more; needing more is a value, not an error. Who
//! calls it: `connection/http1.rs`, and `socket` for the answer to CONNECT. HTTP/2 framing is the `h2` crate's.
//!
//! - `request_head` encodes and is the one place where header injection stops
//! - `response_head` finds the end of a head, decodes it and builds the index of its fields; `head_lines` names the line
//!   that cannot be read
//! - `framing` is the one function that decides how long a body is (RFC 9112 section 6.3)
//! - `chunked` and `body` take a body apart
//! - `switch` checks that a 101 names a protocol that was asked for
//! - `reuse` says why a connection cannot be used again

pub(crate) mod body;
pub(crate) mod chunked;
mod decode_error;
#[cfg(test)]
mod every_split;
pub(crate) mod framing;
mod head_lines;
pub(crate) mod request_head;
pub(crate) mod response_head;
pub(crate) mod reuse;
mod switch;

pub(crate) use body::{BodyDecoder, BodyStep};
pub(crate) use chunked::{ChunkedDecoder, ChunkedStep};
pub(crate) use decode_error::{DecodeError, Rule};
pub(crate) use framing::{Framing, MethodKind};
pub(crate) use request_head::{BodyEncoder, BodyLength, EncodeError};
pub(crate) use response_head::{DecodedHead, HeadDecoder, HeadStep};
pub(crate) use reuse::{CloseReason, Reuse};
pub(crate) use switch::check_switch;
