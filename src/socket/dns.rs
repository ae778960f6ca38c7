//! Turns a host into addresses, by the system's resolver.
//!
//! getaddrinfo blocks, so it runs on tokio's blocking threads. An address literal never gets there.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// The addresses of `host`, at most [`MAX_ADDRESSES`]; never empty.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(literal) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(literal, port)]);
    }
    let addresses: Vec<_> = tokio::net::lookup_host((host, port))
        .await?
        .take(MAX_ADDRESSES)
        .collect();
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    Ok(addresses)
}

/// Answers beyond this are ignored (security D1).
const MAX_ADDRESSES: usize = 32;
