//! Connects to a socket of the Unix domain.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::sleep;

use super::Socket;

/// Connects, waiting where the server has not accepted those before: the system does not queue who comes to a full backlog,
/// as it does over TCP, but answers EAGAIN at once, and has no sign for when to come back.
pub(super) async fn connect(path: &Path) -> io::Result<Socket> {
    let mut pause = FIRST_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Ok(unix) => return Ok(Socket::from_unix(unix)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        // The connect limit ends it.
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Short beside any request.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Twenty attempts a second are no load.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
