//! What is known of a connection, for users to look at.

use std::net::SocketAddr;
use std::time::Duration;

use http::Version;

use super::{Dialled, TlsInfo, Via};

/// The connection that a response came over.
///
/// ```no_run
/// # async fn run() -> sockeye::Result<()> {
/// let response = sockeye::Client::new().get("https://example.com").send().await?;
/// println!("connection {} to {:?}", response.connection().id, response.connection().remote_addr);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Different for each connection of this process; a dial that fails takes a number as well.
    pub id: u64,
    /// The version that is spoken on it.
    pub protocol: Version,
    /// The peer's address, or that of the proxy in between; `None` for a transport that has none.
    pub remote_addr: Option<SocketAddr>,
    /// Our address.
    pub local_addr: Option<SocketAddr>,
    /// What the TLS handshake settled; `None` without TLS.
    pub tls: Option<TlsInfo>,
    /// TLS has settled the protocol, ours or that of a connector.
    pub(crate) negotiated: bool,
    pub(crate) via: Option<Via>,
    pub(crate) resolve: Option<Duration>,
    pub(crate) connect: Option<Duration>,
    pub(crate) handshake: Option<Duration>,
}

impl ConnectionInfo {
    pub(crate) fn new(dialled: &Dialled, protocol: Version) -> Self {
        Self {
            id: dialled.id,
            protocol,
            remote_addr: dialled.remote_addr,
            local_addr: dialled.local_addr,
            tls: dialled.tls.clone(),
            negotiated: dialled.tls.is_some() || dialled.alpn.is_some(),
            via: dialled.via.clone(),
            resolve: dialled.resolve,
            connect: dialled.connect,
            handshake: dialled.handshake,
        }
    }

    /// Of what came over none.
    pub(crate) fn none(protocol: Version) -> Self {
        Self {
            id: 0,
            protocol,
            remote_addr: None,
            local_addr: None,
            tls: None,
            negotiated: false,
            via: None,
            resolve: None,
            connect: None,
            handshake: None,
        }
    }

    /// The proxy in between, as scheme, host and port; `None` without one. [`remote_addr`](Self::remote_addr) is then the proxy's.
    pub fn proxy(&self) -> Option<String> {
        self.via.as_ref().map(ToString::to_string)
    }

    /// From the beginning of the dial to a connection that can be used.
    pub(crate) fn dial_time(&self) -> Duration {
        [self.resolve, self.connect, self.handshake]
            .into_iter()
            .flatten()
            .sum()
    }
}
