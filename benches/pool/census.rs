//! Asks the server how many connections it has: what is open and what was opened is its word, not a client's.
//!
//! It speaks over a socket of its own, which the server leaves out of the counts. `server.rs` answers it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::scenario::Failure;

/// Counts of the server's connections, without the one that asked for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connections {
    /// Accepted since it started.
    pub(crate) accepted: usize,
    /// Open now.
    pub(crate) open: usize,
}

/// Asks a server for its counts.
pub(crate) fn connections(address: SocketAddr) -> Result<Connections, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let mut line = String::new();
    stream.read_to_string(&mut line)?;
    let (accepted, open) = line.split_once(' ').ok_or("the server gave no counts")?;
    Ok(Connections {
        accepted: accepted.parse()?,
        open: open.parse()?,
    })
}
