//! Proxies of the environment.

use crate::scenario::Failure;

/// A proxy in the environment would be used by some contenders and not by others.
pub(crate) fn refuse_proxies() -> Result<(), Failure> {
    let names = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
    match names
        .into_iter()
        .find(|name| std::env::var_os(name).is_some())
    {
        Some(name) => Err(format!("unset {name} first: it would send requests elsewhere").into()),
        None => Ok(()),
    }
}
