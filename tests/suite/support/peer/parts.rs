//! The two directions of a scripted peer's connection, each on its own: for sessions of HTTP/2, which read while they write.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncWriteExt, WriteHalf};

use super::{PeerConnection, Stream};

impl PeerConnection {
    /// What it reads from, what it writes to, and what was read and not asked for.
    pub(crate) fn into_parts(self) -> (PeerReader, PeerWriter, Vec<u8>) {
        let (reader, io) = tokio::io::split(self.io);
        let writer = PeerWriter {
            io,
            reset: self.reset,
        };
        (Box::new(reader), writer, self.read)
    }
}

/// What a peer reads from.
pub(crate) type PeerReader = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// What a peer writes to. Dropping both this and the reader closes the connection.
pub(crate) struct PeerWriter {
    io: WriteHalf<Box<dyn Stream>>,
    reset: Arc<AtomicBool>,
}

impl PeerWriter {
    /// Makes the end of the connection, which is to come with the end of the reader, a reset.
    pub(crate) fn reset(self) {
        self.reset.store(true, Ordering::SeqCst);
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await
    }

    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }
}
