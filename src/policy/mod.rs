//! What decides and never does: the spine asks, and acts on the answer. Everything here is pure.
//!
//! - `redirect` decides what becomes of a 3xx, and which fields another origin must not see

mod redirect;

pub use redirect::Redirects;
pub(crate) use redirect::{Asked, Refused};
