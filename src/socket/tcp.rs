//! Opens a TCP connection to the first address that accepts one.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

/// Tries all addresses in order; the error lists every attempt.
pub(super) async fn connect(
    addresses: &[SocketAddr],
) -> Result<TcpStream, Vec<(SocketAddr, io::Error)>> {
    let mut failures = Vec::new();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(tcp) => {
                // A request is written whole; waiting to fill a segment would only delay it. A failure here is harmless.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Err(error) => failures.push((*address, error)),
        }
    }
    Err(failures)
}
