//! Whether an idle socket can still be used, without waiting for anything (spec pool R-LIVE).
//!
//! Level 0 looks at tokio's readiness flag: no system call. Level 1 peeks at the kernel, which knows of an end of file that
//! the runtime has not seen yet. Level 2 settles what a set flag means. No check can close the race with a peer that closes
//! at the same moment; replaying what was provably not processed does that.

use std::io;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::{Socket, Stream, tls};
use crate::stats::{CloseCause, ProbeOutcome};

/// How hard to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The readiness flag, and what it leads to.
    Flag,
    /// The kernel, too: before what may not be sent twice, and after a longer pause.
    Kernel,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probed {
    /// Which level decided; `None` if the flag did, which is the rule.
    pub(crate) outcome: Option<ProbeOutcome>,
    /// Why the connection must close, if it must.
    pub(crate) verdict: Result<(), CloseCause>,
}

impl Probed {
    fn new(outcome: Option<ProbeOutcome>, verdict: Result<(), CloseCause>) -> Self {
        Self { outcome, verdict }
    }
}

/// What a level found.
enum Look {
    /// And which level found it, if it was not the flag.
    Alive(Option<ProbeOutcome>),
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
    pub(crate) fn probe(&mut self, probe: Probe) -> Probed {
        let look = self
            .kernel()
            .map_or(Look::Flagged, |kernel| look(kernel, probe));
        let noop = &mut Context::from_waker(Waker::noop());
        let settled = match (look, &mut self.stream) {
            (Look::Alive(outcome), _) => return Probed::new(outcome, Ok(())),
            (Look::Gone, _) => {
                return Probed::new(Some(ProbeOutcome::KernelDead), Err(CloseCause::PeerClosed));
            }
            (_, Stream::Tls(stream)) => tls::settle(stream, noop),
            (Look::Bytes, Stream::Tcp(_)) => {
                return Probed::new(Some(ProbeOutcome::KernelDead), Err(CloseCause::Unsolicited));
            }
            #[cfg(unix)]
            (Look::Bytes, Stream::Unix(_)) => {
                return Probed::new(Some(ProbeOutcome::KernelDead), Err(CloseCause::Unsolicited));
            }
            // A read that would block clears the flag.
            (_, Stream::Tcp(tcp)) => judge(Some(tcp.try_read(&mut [0]))),
            #[cfg(unix)]
            (_, Stream::Unix(unix)) => judge(Some(unix.try_read(&mut [0]))),
            (_, Stream::Custom(_)) => judge(self.try_read_byte(noop)),
        };
        let outcome = match settled {
            Ok(()) => ProbeOutcome::SettledAlive,
            Err(_) => ProbeOutcome::SettledDead,
        };
        Probed::new(Some(outcome), settled)
    }

    /// Whether the readiness flag says that something arrived. A transport without one is always suspect.
    pub(crate) fn is_suspect(&self) -> bool {
        self.kernel()
            .is_none_or(|kernel| matches!(look(kernel, Probe::Flag), Look::Flagged))
    }

    /// Sends the close_notify of TLS, as much of it as needs no waiting (RFC 8446 section 6.1). TCP alone says goodbye when it
    /// is closed.
    pub(crate) fn say_goodbye(&mut self) {
        if let Stream::Tls(stream) = &mut self.stream {
            tls::say_goodbye(stream);
        }
    }

    /// Sends the end of a TLS handshake that was to leave with the first request: there is none for now.
    pub(crate) fn let_go(&mut self) {
        if let Stream::Tls(stream) = &mut self.stream {
            tls::let_go(stream);
        }
    }

    /// Whether nothing has arrived, as far as the runtime knows, and nothing is left to send; `cx` then hears of what does
    /// arrive. Costs no system call. A transport without readiness never says so.
    pub(crate) fn is_quiet(&self, cx: &mut Context<'_>) -> bool {
        if let Stream::Tls(stream) = &self.stream {
            if tls::keeps_any(stream) {
                return false;
            }
        }
        self.kernel()
            .is_some_and(|kernel| kernel.poll_read_ready(cx).is_pending())
    }

    /// Settles what has arrived on an idle socket, until nothing is left and `cx` is registered for what comes next
    /// (spec pool R-LIVE-5). Whoever waited for the socket before is forgotten.
    pub(crate) fn arm(&mut self, cx: &mut Context<'_>) -> Result<(), CloseCause> {
        for _ in 0..TURNS {
            match &mut self.stream {
                Stream::Custom(_) => return judge(self.try_read_byte(cx)),
                Stream::Tls(stream) => tls::settle(stream, cx)?,
                Stream::Tcp(_) => {}
                #[cfg(unix)]
                Stream::Unix(_) => {}
            }
            let Some(kernel) = self.kernel() else {
                // TLS over a custom transport: reading it to its end has registered `cx`.
                return Ok(());
            };
            match kernel.poll_read_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(CloseCause::PeerClosed),
                Poll::Ready(Ok(())) => {}
            }
            // A peek that would block clears a flag that is stale, and takes nothing away from rustls.
            let peeked = kernel.try_peek();
            match (peeked, &self.stream) {
                (Ok(0), _) => return Err(CloseCause::PeerClosed),
                // What it is, is for TLS to find out.
                (Ok(_), Stream::Tls(_)) => {}
                (Ok(_), _) => return Err(CloseCause::Unsolicited),
                (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => {}
                (Err(_), _) => return Err(CloseCause::PeerClosed),
            }
        }
        // A peer that sends faster than this settles is no idle peer.
        Err(CloseCause::Unsolicited)
    }

    /// Whether what was read so far holds nothing beyond the response: for TLS, no decrypted byte and no close_notify.
    pub(crate) fn is_clean(&mut self) -> bool {
        match &mut self.stream {
            Stream::Tls(stream) => tls::holds_nothing(stream),
            #[cfg(unix)]
            Stream::Unix(_) => true,
            Stream::Tcp(_) | Stream::Custom(_) => true,
        }
    }

    /// The socket of the system at the bottom, if there is one.
    fn kernel(&self) -> Option<Kernel<'_>> {
        match &self.stream {
            Stream::Tcp(tcp) => Some(Kernel::Tcp(tcp)),
            #[cfg(unix)]
            Stream::Unix(unix) => Some(Kernel::Unix(unix)),
            Stream::Tls(tls) => tls::below(tls).kernel(),
            Stream::Custom(_) => None,
        }
    }

    /// Reads one byte unless that has to wait. Unconstrained, because an exhausted budget looks like waiting.
    fn try_read_byte(&mut self, cx: &mut Context<'_>) -> Option<io::Result<usize>> {
        let mut byte = [0];
        let read = pin!(tokio::task::unconstrained(self.read(&mut byte)));
        match read.poll(cx) {
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

fn look(kernel: Kernel<'_>, probe: Probe) -> Look {
    if kernel.is_flagged() {
        return Look::Flagged;
    }
    if probe == Probe::Flag {
        return Look::Alive(None);
    }
    match kernel.peek() {
        Ok(0) => Look::Gone,
        Ok(_) => Look::Bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Look::Alive(Some(ProbeOutcome::KernelAlive))
        }
        Err(_) => Look::Gone,
    }
}

/// A socket of the system, which has a readiness flag.
#[derive(Clone, Copy)]
enum Kernel<'a> {
    Tcp(&'a TcpStream),
    #[cfg(unix)]
    Unix(&'a UnixStream),
}

impl Kernel<'_> {
    /// The closure succeeds without reading, so the flag stays as it is.
    fn is_flagged(self) -> bool {
        self.try_io(|| Ok(0)).is_ok()
    }

    fn poll_read_ready(self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            #[cfg(unix)]
            Self::Unix(unix) => unix.poll_read_ready(cx),
        }
    }

    /// Looks at the kernel if the flag is set, and clears a flag that is stale.
    fn try_peek(self) -> io::Result<usize> {
        self.try_io(|| self.peek())
    }

    fn try_io(self, io: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_io(Interest::READABLE, io),
            #[cfg(unix)]
            Self::Unix(unix) => unix.try_io(Interest::READABLE, io),
        }
    }

    fn peek(self) -> io::Result<usize> {
        let socket = match self {
            Self::Tcp(tcp) => SockRef::from(tcp),
            #[cfg(unix)]
            Self::Unix(unix) => SockRef::from(unix),
        };
        socket.peek(&mut [MaybeUninit::uninit()])
    }
}

/// How often arming looks again at a socket on which something keeps arriving.
const TURNS: usize = 4;
