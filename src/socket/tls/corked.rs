//! Keeps what the handshake writes last until the first request is written, so that both leave in one piece: a system call, a
//! segment and a wake-up of the server less for each connection, and no delay, because nobody waits for it before.
//!
//! Of a handshake only that part can wait which no answer follows: whatever is kept is written before a read. A connection that
//! carries no request after all has it written when it goes to rest or is dropped, as the alert of a handshake that failed
//! is. Between rustls and the socket below it; `tls` makes one for each handshake and takes the cork out behind it.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::{Socket, Stream};
use super::{AtOnce, below};

/// A socket that TLS is spoken on.
pub(in crate::socket) struct Corked {
    socket: Socket,
    /// What is to be written before anything else. Without an allocation once it is.
    kept: Vec<u8>,
    /// The handshake runs, so that writes are kept.
    corked: bool,
}

impl Corked {
    /// For a handshake over `socket`. Where no system is below that takes what is written at once, nothing is kept.
    pub(super) fn new(socket: Socket) -> Self {
        let corked = takes_at_once(&socket);
        Self {
            socket,
            kept: Vec::new(),
            corked,
        }
    }

    /// The handshake is over: what is kept goes with the next write.
    pub(super) fn uncork(&mut self) {
        self.corked = false;
    }

    /// The socket below.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket below, for whoever has let go of what is kept.
    pub(super) fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Whether there is something that the peer has not been sent yet.
    pub(super) fn keeps_any(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Writes what is kept without waiting; answers whether nothing is left. After a handshake the system has room for it.
    pub(super) fn let_go(&mut self) -> bool {
        while !self.kept.is_empty() {
            match AtOnce(&mut self.socket).write(&self.kept) {
                Ok(taken) if taken > 0 => self.took(taken),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return false,
            }
        }
        true
    }

    /// Forgets what was written of what is kept, and its memory with the last of it.
    fn took(&mut self, taken: usize) {
        if taken >= self.kept.len() {
            self.kept = Vec::new();
        } else {
            self.kept.drain(..taken);
        }
    }

    fn keep(&mut self, bufs: &[IoSlice<'_>]) -> Option<usize> {
        let length = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if !self.corked || self.kept.len() + length > MOST_KEPT {
            return None;
        }
        self.kept.reserve(length);
        for buf in bufs {
            self.kept.extend_from_slice(buf);
        }
        Some(length)
    }

    /// Writes what is kept, to its last byte.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let taken = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.kept))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.took(taken);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is kept and `bufs` behind it; answers how much of those.
    fn poll_both(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            if self.kept.is_empty() {
                return Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
            }
            let mut all = [IoSlice::new(&[]); SLICES];
            all[0] = IoSlice::new(&self.kept);
            for (place, buf) in all[1..].iter_mut().zip(bufs) {
                *place = IoSlice::new(buf);
            }
            let count = SLICES.min(1 + bufs.len());
            let written = Pin::new(&mut self.socket).poll_write_vectored(cx, &all[..count]);
            let taken = ready!(written)?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_bufs = taken.saturating_sub(self.kept.len());
            self.took(taken);
            if of_bufs > 0 {
                return Poll::Ready(Ok(of_bufs));
            }
        }
    }
}

impl AsyncRead for Corked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.keeps_any() {
            match ready!(self.poll_kept(cx)) {
                Ok(()) => {}
                Err(error) if self.corked => return Poll::Ready(Err(error)),
                // A peer that takes nothing more may have said why.
                Err(_) => self.kept = Vec::new(),
            }
            // Where TLS runs inside the TLS of a proxy, the outer one may hold it.
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Corked {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.keep(bufs) {
            Some(kept) => Poll::Ready(Ok(kept)),
            None => self.poll_both(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.corked {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_kept(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_kept(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Drop for Corked {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Whether a socket of the system is at the bottom.
fn takes_at_once(socket: &Socket) -> bool {
    match &socket.stream {
        Stream::Tcp(_) => true,
        #[cfg(unix)]
        Stream::Unix(_) => true,
        Stream::Tls(outer) => takes_at_once(below(outer)),
        Stream::Custom(_) => false,
    }
}

/// Bytes that are kept at most: a client's last flight, its certificates included. A larger one is written at once.
const MOST_KEPT: usize = 16 * 1024;

/// Slices of one write: what is kept and the records behind it. Those that do not fit go with the next write.
const SLICES: usize = 16;

#[cfg(all(test, unix))]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    fn pair() -> (Corked, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("the system has sockets");
        (Corked::new(Socket::from_unix(ours)), theirs)
    }

    fn nothing_came(peer: &UnixStream) -> bool {
        peer.try_read(&mut [0]).is_err()
    }

    #[tokio::test]
    async fn what_is_written_is_kept_until_a_read() {
        let (mut corked, mut peer) = pair();
        corked.write_all(b"hello ").await.unwrap();
        corked.write_all(b"there").await.unwrap();
        corked.flush().await.unwrap();
        assert!(nothing_came(&peer) && corked.keeps_any());
        let answers = async {
            let mut read = [0; 11];
            peer.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"hello there");
            peer.write_all(b"!").await.unwrap();
        };
        let (answer, ()) = tokio::join!(corked.read_u8(), answers);
        assert_eq!(answer.unwrap(), b'!');
        assert_eq!(corked.kept.capacity(), 0);
    }

    #[tokio::test]
    async fn more_than_a_flight_is_written_in_order() {
        let (mut corked, mut peer) = pair();
        let first = vec![1; MOST_KEPT];
        corked.write_all(&first).await.unwrap();
        assert!(nothing_came(&peer));
        corked.write_all(b"more").await.unwrap();
        assert!(!corked.keeps_any());
        let mut read = vec![0; MOST_KEPT + 4];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(read, [first, b"more".to_vec()].concat());
    }

    /// A peer that reads slowly takes what is kept in parts.
    #[tokio::test]
    async fn what_is_kept_goes_before_what_is_written_next() {
        let (mut corked, mut peer) = pair();
        let kept = vec![1; MOST_KEPT];
        let (early, late) = (vec![2; 1 << 20], vec![3; 1 << 20]);
        corked.write_all(&kept).await.unwrap();
        corked.uncork();
        let expected = [kept, early.clone(), late.clone()].concat();
        let writes = async {
            let mut unwritten: &[u8] = &early;
            while !unwritten.is_empty() {
                let slices = [IoSlice::new(unwritten), IoSlice::new(&late)];
                let written = corked.write_vectored(&slices).await.unwrap();
                if let Some(of_late) = written.checked_sub(unwritten.len()) {
                    corked.write_all(&late[of_late..]).await.unwrap();
                }
                unwritten = &unwritten[written.min(unwritten.len())..];
            }
        };
        let mut read = vec![0; expected.len()];
        let (read_all, ()) = tokio::join!(peer.read_exact(&mut read), writes);
        read_all.unwrap();
        assert!(read == expected);
    }

    #[tokio::test]
    async fn what_is_kept_is_written_when_it_is_let_go_or_dropped() {
        for lets_go in [true, false] {
            let (mut corked, mut peer) = pair();
            corked.write_all(b"done").await.unwrap();
            if lets_go {
                assert!(corked.let_go() && !corked.keeps_any());
            } else {
                drop(corked);
            }
            let mut read = [0; 4];
            peer.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"done");
        }
    }

    #[tokio::test]
    async fn a_peer_that_takes_no_more_is_read_to_its_end() {
        let (mut corked, mut peer) = pair();
        corked.write_all(b"kept").await.unwrap();
        corked.uncork();
        peer.write_all(b"why").await.unwrap();
        drop(peer);
        let mut read = Vec::new();
        corked.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"why");
    }

    #[tokio::test]
    async fn where_no_system_is_below_nothing_is_kept() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut corked = Corked::new(Socket::from_io(ours));
        corked.write_all(b"at once").await.unwrap();
        let mut read = [0; 7];
        theirs.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"at once");
    }
}
