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
    Dead,
    /// The flag is set, which can be stale; the next level finds out.
    Flagged,
    /// The kernel holds bytes; whether they are legal is for the next level.
    Bytes,
}

impl Socket {
    /// Whether nothing arrived that rules out another request: no end of file, no error, no byte of content. TLS records
    /// that carry none, such as session tickets, are legal.
    pub(crate) fn is_alive(&mut self, probe: Probe) -> bool {
        let look = match self.tcp() {
            Some(tcp) => look(tcp, probe),
            None => Look::Flagged,
        };
        match look {
            Look::Alive => true,
            Look::Dead => false,
            Look::Flagged | Look::Bytes => match &mut self.stream {
                Stream::Tcp(_) if matches!(look, Look::Bytes) => false,
                Stream::Tcp(tcp) => {
                    // A read that would block clears the flag.
                    matches!(tcp.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
                }
                Stream::Tls(stream) => tls::is_quiet(stream),
                Stream::Custom(_) => self.would_block(),
            },
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

    /// Whether a read of one byte has to wait. Unconstrained, because an exhausted budget looks like waiting.
    fn would_block(&mut self) -> bool {
        let mut byte = [0];
        let read = pin!(tokio::task::unconstrained(self.read(&mut byte)));
        matches!(
            read.poll(&mut Context::from_waker(Waker::noop())),
            Poll::Pending
        )
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
        Ok(0) => Look::Dead,
        Ok(_) => Look::Bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Look::Alive,
        Err(_) => Look::Dead,
    }
}
