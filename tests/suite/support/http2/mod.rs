//! An HTTP/2 server made by hand: its frames are written byte by byte, legal or not, and what the client sends is read as
//! frames.
//!
//! `frames.rs` writes and reads frames, `hpack.rs` field blocks, `session.rs` is one connection in the hands of a test, and
//! `honest.rs` a server on top of it that keeps every rule, with its `report.rs`. Nothing here uses the library or the h2
//! crate, so that a mistake of theirs is not made here as well.

pub(crate) mod frames;
pub(crate) mod honest;
pub(crate) mod hpack;
pub(crate) mod report;
pub(crate) mod session;

pub(crate) use frames::Frames;
pub(crate) use honest::{Honest, Reply};
pub(crate) use report::Report;
pub(crate) use session::{Head, Session};
