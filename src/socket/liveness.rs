//! Whether an idle socket can still be used, without waiting for anything (spec pool R-LIVE).
//!
//! Level 0 looks at tokio's readiness flag: no system call. Level 1 peeks at the kernel, which knows of an end of file that
//! the runtime has not seen yet. Level 2 settles what a set flag means. No check can close the race with a peer that closes
//! at the same moment; replaying what was provably not processed does that.

use std::io;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;

use super::{Socket, Stream, tls};
use crate::stats::CloseCause;

/// How hard to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The readiness flag, and what it leads to.
    Flag,
    /// The kernel, too: before what may not be sent twice, and after a longer pause.
    Kernel,
}

/// What a level found.
enum Look {
    Alive,
    /// The peer closed or reset it.
    Gone,
    /// The flag is set, which can be stale; the next level finds out.
    Flagged,
    /// The kernel holds bytes; whether they are legal is for the next level.
    Bytes,
}

impl Socket {
    /// Whether nothing arrived that rules out another request: no end of file, no error, no byte of content. TLS records
    /// that carry none, such as session tickets, are legal.
    pub(crate) fn probe(&mut self, probe: Probe) -> Result<(), CloseCause> {
        let look = self.tcp().map_or(Look::Flagged, |tcp| look(tcp, probe));
        match (look, &mut self.stream) {
            (Look::Alive, _) => Ok(()),
            (Look::Gone, _) => Err(CloseCause::PeerClosed),
            (_, Stream::Tls(stream)) => tls::settle(stream),
            (Look::Bytes, Stream::Tcp(_)) => Err(CloseCause::Unsolicited),
            // A read that would block clears the flag.
            (_, Stream::Tcp(tcp)) => judge(Some(tcp.try_read(&mut [0]))),
            (_, Stream::Custom(_)) => judge(self.try_read_byte()),
        }
    }

    /// Whether the readiness flag says that something arrived. A transport without one is always suspect.
    pub(crate) fn is_suspect(&self) -> bool {
        self.tcp()
            .is_none_or(|tcp| matches!(look(tcp, Probe::Flag), Look::Flagged))
    }

    /// Whether what was read so far holds nothing beyond the response: for TLS, no decrypted byte and no close_notify.
    pub(crate) fn is_clean(&mut self) -> bool {
        match &mut self.stream {
            Stream::Tls(stream) => tls::holds_nothing(stream),
            Stream::Tcp(_) | Stream::Custom(_) => true,
        }
    }

    /// Reads one byte unless that has to wait. Unconstrained, because an exhausted budget looks like waiting.
    fn try_read_byte(&mut self) -> Option<io::Result<usize>> {
        let mut byte = [0];
        let read = pin!(tokio::task::unconstrained(self.read(&mut byte)));
        match read.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(read) => Some(read),
            Poll::Pending => None,
        }
    }
}

/// What a read of one byte says of an idle stream; `None` had to wait.
fn judge(read: Option<io::Result<usize>>) -> Result<(), CloseCause> {
    match read {
        None => Ok(()),
        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Some(Ok(0) | Err(_)) => Err(CloseCause::PeerClosed),
        Some(Ok(_)) => Err(CloseCause::Unsolicited),
    }
}

fn look(tcp: &TcpStream, probe: Probe) -> Look {
    // The closure succeeds without reading, so the flag stays as it is.
    if tcp.try_io(Interest::READABLE, || Ok(())).is_ok() {
        return Look::Flagged;
    }
    if probe == Probe::Flag {
        return Look::Alive;
    }
    match socket2::SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]) {
        Ok(0) => Look::Gone,
        Ok(_) => Look::Bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Look::Alive,
        Err(_) => Look::Gone,
    }
}
