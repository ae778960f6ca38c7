//! What decides and never does: the spine asks, and acts on the answer. Everything here is pure.
//!
//! - `auth` reads challenges, and says who renews credentials
//! - `cookies` keeps cookies, and says who gets which
//! - `redirect` decides what becomes of a 3xx, and which fields another origin must not see

mod auth;
#[cfg(feature = "cookies")]
mod cookies;
mod redirect;

pub use auth::{AuthScheme, Challenge};
pub(crate) use auth::{Renewal, Renewed, Turn};
#[cfg(feature = "cookies")]
pub(crate) use cookies::Cookies;
pub use redirect::Redirects;
pub(crate) use redirect::{Asked, Refused};
