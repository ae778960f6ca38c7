//! Stands in for `unix` on systems without such sockets. Never called: there is no setting that leads here.

use std::io;
use std::path::Path;

use super::Socket;

pub(super) async fn connect(_: &Path) -> io::Result<Socket> {
    Err(io::ErrorKind::Unsupported.into())
}
