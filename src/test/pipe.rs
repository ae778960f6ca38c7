//! A connection in memory: two ends, a lane of bytes each way, and what goes wrong on it at which byte.
//!
//! `mock` and `memnet` hand one end to the client and keep the other. A [`Control`] acts on a connection whose ends are lent
//! out: it resets it, fails it, or writes between the frames of somebody else. It needs no runtime but for `Throttle`.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What goes wrong on one direction of a connection, from a byte on; see [`Host::fault`](super::Host::fault).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireFault {
    /// Both sides see a reset, the reader after it has read everything before that byte.
    Rst,
    /// The reader sees the end of the stream; what the writer still sends is lost.
    Eof,
    /// Nothing more arrives, and nobody is told.
    Stall,
    /// A read gives at most so many bytes, and between two reads there is nothing for a moment. Zero counts as one.
    Split(usize),
    /// At most so many bytes arrive in each stretch of time. Zero bytes count as one.
    Throttle {
        /// How many bytes.
        bytes: usize,
        /// How long a stretch is.
        every: Duration,
    },
}

/// One end of a connection. Dropping it closes both directions.
pub(super) struct End {
    reads: Shared,
    writes: Shared,
    pause: Option<Pin<Box<Sleep>>>,
    /// What the current stretch of time still allows.
    allowed: usize,
    hesitates: bool,
}

/// A hand on a connection, as its end at the peer sees it.
#[derive(Clone)]
pub(super) struct Control {
    reads: Shared,
    writes: Shared,
}

type Shared = Arc<Mutex<Lane>>;

/// One direction.
struct Lane {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// How many bytes were read, and written, since the beginning.
    read: u64,
    written: u64,
    end: Option<Ending>,
    reader_is_gone: bool,
    /// In the order of their places.
    faults: Vec<(u64, WireFault)>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    watchers: Vec<Waker>,
}

/// What comes behind the last byte.
#[derive(Clone, Debug)]
enum Ending {
    Eof,
    /// The end, and what is still written is lost.
    Cut,
    Reset,
    Failed(io::ErrorKind, Arc<str>),
}

/// What a reader may do now.
enum Leave {
    /// Take so many bytes at most.
    Read(usize),
    Hesitate,
    Wait(usize, Duration),
    Stall,
    End(Ending),
}

/// A connection whose lanes hold `capacity` bytes each: the client's end, the peer's end, and a hand on it. The faults are
/// those of what the client writes, and of what it reads.
pub(super) fn connect(
    capacity: usize,
    to_peer: &[(u64, WireFault)],
    to_client: &[(u64, WireFault)],
) -> (End, End, Control) {
    let (up, down) = (
        Lane::shared(capacity, to_peer),
        Lane::shared(capacity, to_client),
    );
    let client = End::new(Arc::clone(&down), Arc::clone(&up));
    let peer = End::new(Arc::clone(&up), Arc::clone(&down));
    let control = Control {
        reads: up,
        writes: down,
    };
    (client, peer, control)
}

impl Lane {
    fn shared(capacity: usize, faults: &[(u64, WireFault)]) -> Shared {
        let mut faults = faults.to_vec();
        faults.sort_by_key(|(at, _)| *at);
        Arc::new(Mutex::new(Self {
            bytes: VecDeque::new(),
            capacity: capacity.max(1),
            read: 0,
            written: 0,
            end: None,
            reader_is_gone: false,
            faults,
            reader: None,
            writer: None,
            watchers: Vec::new(),
        }))
    }

    /// What the faults let a reader do; of several that hold at once the one that began last is the one that counts.
    fn leave(&self) -> Leave {
        let mut most = usize::MAX;
        let mut pace = None;
        for (at, fault) in &self.faults {
            if *at > self.read {
                most = usize::try_from(*at - self.read).unwrap_or(usize::MAX);
                break;
            }
            match fault {
                WireFault::Rst => return Leave::End(Ending::Reset),
                WireFault::Eof => return Leave::End(Ending::Cut),
                WireFault::Stall => return Leave::Stall,
                WireFault::Split(_) | WireFault::Throttle { .. } => pace = Some(*fault),
            }
        }
        match pace {
            Some(WireFault::Split(size)) if !self.bytes.is_empty() => {
                Leave::Read(most.min(size.max(1)))
            }
            Some(WireFault::Throttle { bytes, every }) if !self.bytes.is_empty() => {
                Leave::Wait(bytes.max(1).min(most), every)
            }
            _ => Leave::Read(most),
        }
    }

    fn is_split(&self) -> bool {
        let begun = self.faults.iter().take_while(|(at, _)| *at <= self.read);
        let paces = begun
            .filter(|(_, fault)| matches!(fault, WireFault::Split(_) | WireFault::Throttle { .. }));
        matches!(paces.last(), Some((_, WireFault::Split(_)))) && !self.bytes.is_empty()
    }

    fn take(&mut self, buf: &mut ReadBuf<'_>, most: usize) {
        let mut left = most.min(buf.remaining()).min(self.bytes.len());
        while left > 0 {
            let (front, _) = self.bytes.as_slices();
            let part = front.len().min(left);
            buf.put_slice(front.get(..part).unwrap_or_default());
            self.bytes.drain(..part);
            self.read += part as u64;
            left -= part;
        }
    }

    /// Everybody who waits for something.
    fn waiting(&mut self) -> Vec<Waker> {
        let mut waiting = std::mem::take(&mut self.watchers);
        waiting.extend(self.reader.take());
        waiting.extend(self.writer.take());
        waiting
    }
}

impl Ending {
    fn error(&self) -> Option<io::Error> {
        match self {
            Self::Eof | Self::Cut => None,
            Self::Reset => Some(io::ErrorKind::ConnectionReset.into()),
            Self::Failed(kind, why) => Some(io::Error::new(*kind, why.to_string())),
        }
    }
}

impl End {
    fn new(reads: Shared, writes: Shared) -> Self {
        Self {
            reads,
            writes,
            pause: None,
            allowed: 0,
            hesitates: false,
        }
    }

    /// What the faults allow, with the waiting that they ask for. `None` means that the context is woken.
    fn leave(&mut self, cx: &mut Context<'_>) -> Option<Leave> {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return None;
            }
            self.pause = None;
        }
        let lane = lock(&self.reads);
        let leave = lane.leave();
        if lane.is_split() {
            self.hesitates = !self.hesitates;
            if self.hesitates {
                return Some(Leave::Hesitate);
            }
        }
        Some(leave)
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let most = match self.leave(cx) {
            None | Some(Leave::Stall) => return Poll::Pending,
            Some(Leave::Hesitate) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Leave::End(ending)) => {
                end(&self.reads, &ending);
                if matches!(ending, Ending::Reset) {
                    end(&self.writes, &ending);
                }
                return Poll::Ready(ending.error().map_or(Ok(()), Err));
            }
            Some(Leave::Wait(bytes, every)) if self.allowed == 0 => {
                self.allowed = bytes;
                let mut pause = Box::pin(sleep(every));
                if pause.as_mut().poll(cx).is_pending() {
                    self.pause = Some(pause);
                    return Poll::Pending;
                }
                bytes
            }
            Some(Leave::Wait(bytes, _)) => self.allowed.min(bytes),
            Some(Leave::Read(most)) => most,
        };
        let before = buf.filled().len();
        let mut lane = lock(&self.reads);
        if lane.bytes.is_empty() {
            return match &lane.end {
                Some(ending) => Poll::Ready(ending.error().map_or(Ok(()), Err)),
                None => {
                    lane.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        lane.take(buf, most);
        let waiting = lane.waiting();
        drop(lane);
        let read = buf.filled().len() - before;
        self.allowed = self.allowed.saturating_sub(read);
        waiting.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut lane = lock(&self.writes);
        match &lane.end {
            Some(Ending::Cut) => return Poll::Ready(Ok(buf.len())),
            Some(Ending::Eof) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Some(ending) => {
                let error = ending.error().unwrap_or(io::ErrorKind::BrokenPipe.into());
                return Poll::Ready(Err(error));
            }
            None if lane.reader_is_gone => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            None => {}
        }
        let room = lane.capacity.saturating_sub(lane.bytes.len());
        let part = buf.get(..buf.len().min(room)).unwrap_or_default();
        if part.is_empty() && !buf.is_empty() {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        lane.bytes.extend(part);
        lane.written += part.len() as u64;
        let waiting = lane.waiting();
        drop(lane);
        waiting.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        end(&self.writes, &Ending::Eof);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        end(&self.writes, &Ending::Eof);
        let mut lane = lock(&self.reads);
        lane.reader_is_gone = true;
        lane.bytes.clear();
        let waiting = lane.waiting();
        drop(lane);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Control {
    /// The client reads what is on its way, and then a reset.
    pub(super) fn reset(&self) {
        end(&self.writes, &Ending::Reset);
        end(&self.reads, &Ending::Reset);
    }

    /// The client reads what is on its way, and then the end.
    pub(super) fn close(&self) {
        end(&self.writes, &Ending::Eof);
        end(&self.reads, &Ending::Cut);
    }

    /// The client reads what is on its way, and then this error.
    pub(super) fn fail(&self, kind: io::ErrorKind, why: &str) {
        end(&self.writes, &Ending::Failed(kind, why.into()));
        end(&self.reads, &Ending::Cut);
    }

    /// Bytes from the peer, whoever holds its end.
    #[cfg(feature = "http2")]
    pub(super) fn inject(&self, bytes: &[u8]) {
        let mut lane = lock(&self.writes);
        if lane.end.is_some() || lane.reader_is_gone {
            return;
        }
        lane.bytes.extend(bytes);
        lane.written += bytes.len() as u64;
        let waiting = lane.waiting();
        drop(lane);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Bytes that the client has written.
    pub(super) fn sent(&self) -> u64 {
        lock(&self.reads).written
    }

    /// Bytes that were written to the client.
    pub(super) fn received(&self) -> u64 {
        lock(&self.writes).written
    }

    /// Returns when so many bytes were written to the client, or none will be any more.
    #[cfg(feature = "http2")]
    pub(super) async fn has_written(&self, bytes: u64) {
        self.watch(|lane| lane.written >= bytes || lane.end.is_some() || lane.reader_is_gone)
            .await;
    }

    /// Returns when the client has closed.
    pub(super) async fn closed(&self) {
        self.watch(|lane| lane.reader_is_gone).await;
    }

    /// Whether the client has not closed.
    pub(super) fn is_open(&self) -> bool {
        !lock(&self.writes).reader_is_gone
    }

    async fn watch(&self, is_over: impl Fn(&Lane) -> bool) {
        poll_fn(|cx| {
            let mut lane = lock(&self.writes);
            if is_over(&lane) {
                return Poll::Ready(());
            }
            if !lane
                .watchers
                .iter()
                .any(|known| known.will_wake(cx.waker()))
            {
                lane.watchers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Ends a lane unless it has ended.
fn end(lane: &Shared, ending: &Ending) {
    let mut lane = lock(lane);
    lane.end.get_or_insert_with(|| ending.clone());
    let waiting = lane.waiting();
    drop(lane);
    waiting.into_iter().for_each(Waker::wake);
}

/// The lock is held for a few lines that do not panic.
fn lock(lane: &Shared) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}
