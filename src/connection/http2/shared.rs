//! What the parts of a session know in common: its socket, its driver and its exchanges.
//!
//! Atomics that are written where something happens and read where it matters; nobody waits for anybody here. The exchanges
//! that it keeps for later can open streams; they go when the session's handle does, because h2 ends a session with the last
//! of those that can.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use h2::Reason;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use super::exchange::Exchange;
use super::flood::{Flood, MOST_IN_SPAN, MOST_WITHOUT_PROGRESS, SPAN};
use super::frames::{FrameHead, Kind};
use crate::connection::Tether;
use crate::stats::CloseCause;

/// Shared by the parts of one session.
pub(super) struct Shared {
    pub(super) tether: Arc<Tether>,
    /// When the session began.
    pub(super) made: Instant,
    /// The runtime that its socket belongs to.
    pub(super) home: Option<Id>,
    /// Nanoseconds after `made`.
    last_read: AtomicU64,
    reads: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
    /// The last stream whose HEADERS were handed to the system.
    headers_written: AtomicU32,
    /// The stream in whose head the connection ended.
    cut_head: AtomicU32,
    /// Since when its window has been nearly used up, in nanoseconds after `made`; zero if it is not.
    crowded_since: AtomicU64,
    /// Exchanges that run.
    active: AtomicUsize,
    /// Whether a response was delivered.
    served: AtomicBool,
    /// Heads that came and may be interim ones, as far as their first byte tells.
    maybe_interim: AtomicU32,
    cancels: AtomicU32,
    resets_by_h2: AtomicU32,
    refused: AtomicU32,
    news: AtomicU8,
    settled: AtomicBool,
    retired: AtomicBool,
    resting: AtomicBool,
    /// The socket takes no more for now.
    blocked: AtomicBool,
    /// Somebody waits for what the session has to write.
    flushing: AtomicBool,
    end: OnceLock<End>,
    cause: OnceLock<CloseCause>,
    kept: Mutex<Kept>,
}

/// What is rarely touched.
#[derive(Default)]
struct Kept {
    /// Exchanges that are done; their memory and their timers are used again.
    #[expect(
        clippy::vec_box,
        reason = "it is the boxes that are kept, so that none is allocated for the next call"
    )]
    spare: Vec<Box<Exchange>>,
    /// Who waits for the peer's settings.
    unsettled: Vec<Waker>,
    /// Who waits for what the session has to write; nobody any more once its driver is gone.
    flushes: Vec<Arc<Flush>>,
    is_over: bool,
}

/// A wait for all that was handed to the session to be handed to the system.
#[derive(Default)]
pub(super) struct Flush {
    done: AtomicBool,
    sleeper: AtomicWaker,
}

impl Flush {
    fn finish(&self) {
        self.done.store(true, Ordering::Release);
        self.sleeper.wake();
    }

    /// Ready once it is done, or never will be.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.sleeper.register(cx.waker());
        if self.done.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// What the driver should look at, as bits.
pub(super) struct News;

impl News {
    /// The peer has sent settings.
    pub(super) const SETTINGS: u8 = 1;
    /// The peer has sent a GOAWAY.
    pub(super) const GOING: u8 = 2;
    /// The session has come to one of its limits and should get no new streams.
    pub(super) const WORN: u8 = 4;
    /// A stream has hit a limit and nothing was read meanwhile (ruling 3 b).
    pub(super) const SILENT: u8 = 8;
    /// A request goes out after a long silence (ruling 3 c).
    pub(super) const LONG_IDLE: u8 = 16;
}

/// Why a session ended, where h2 does not know it or knows less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client was closed, and its deadline has come.
    Cut,
    /// The first bytes are no settings.
    NotHttp2,
    /// They are a response of HTTP/1.
    SpeaksHttp1 { line: String },
    /// No settings came.
    NoSettings,
    /// The peer said nothing when it was asked.
    NoPong { limit: Duration },
    /// The peer keeps us busy with nothing.
    Flood(Flood),
    /// The peer asks us to allow pushes.
    EnablePush,
}

impl End {
    /// What a peer that speaks HTTP/2 is told; nothing where h2 tells it, or where it does not listen.
    pub(super) fn reason(&self) -> Option<Reason> {
        match self {
            Self::NotHttp2 | Self::EnablePush => Some(Reason::PROTOCOL_ERROR),
            Self::Flood(_) => Some(Reason::ENHANCE_YOUR_CALM),
            Self::Cut | Self::SpeaksHttp1 { .. } | Self::NoSettings | Self::NoPong { .. } => None,
        }
    }
}

impl Shared {
    pub(super) fn new(tether: Arc<Tether>, now: Instant) -> Self {
        Self {
            tether,
            made: now,
            home: Handle::try_current().ok().map(|runtime| runtime.id()),
            last_read: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            headers_written: AtomicU32::new(0),
            cut_head: AtomicU32::new(0),
            crowded_since: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            served: AtomicBool::new(false),
            maybe_interim: AtomicU32::new(0),
            cancels: AtomicU32::new(0),
            resets_by_h2: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            news: AtomicU8::new(0),
            settled: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            flushing: AtomicBool::new(false),
            end: OnceLock::new(),
            cause: OnceLock::new(),
            kept: Mutex::default(),
        }
    }

    /// Bytes have come.
    pub(super) fn note_read(&self, bytes: u64, now: Instant) {
        self.last_read.store(self.nanos(now), Ordering::Relaxed);
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    fn nanos(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.made).as_nanos();
        u64::try_from(after).unwrap_or(u64::MAX)
    }

    /// The window of the connection is nearly used up `since` then, or is not.
    pub(super) fn crowds(&self, since: Option<Instant>) {
        let since = since.map_or(0, |at| self.nanos(at).max(1));
        self.crowded_since.store(since, Ordering::Relaxed);
    }

    /// For how long the window of the connection has been nearly used up.
    pub(super) fn crowded_for(&self, now: Instant) -> Duration {
        match self.crowded_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => now.saturating_duration_since(self.made + Duration::from_nanos(since)),
        }
    }

    /// How often bytes have come.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// When the last bytes came, or the session began.
    pub(super) fn last_read(&self) -> Instant {
        self.made + Duration::from_nanos(self.last_read.load(Ordering::Relaxed))
    }

    /// Whether bytes have come at all.
    pub(super) fn has_read(&self) -> bool {
        self.reads() > 0
    }

    /// The connection has ended within a frame.
    pub(super) fn cut_within(&self, frame: FrameHead) {
        if matches!(frame.kind, Kind::Headers | Kind::Continuation) {
            self.cut_head.store(frame.stream, Ordering::Release);
        }
    }

    /// Whether it ended within a head of this stream.
    pub(super) fn has_cut_head(&self, stream: u32) -> bool {
        stream > 0 && self.cut_head.load(Ordering::Acquire) == stream
    }

    /// The last stream whose HEADERS were handed to the system.
    pub(super) fn headers_written(&self) -> u32 {
        self.headers_written.load(Ordering::Acquire)
    }

    /// HEADERS up to those of this stream were handed to the system.
    pub(super) fn note_headers(&self, stream: u32) {
        self.headers_written.store(stream, Ordering::Release);
    }

    pub(super) fn note_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes sent and received since the last question.
    pub(super) fn take_traffic(&self) -> (u64, u64) {
        // Of many exchanges that end together only the first finds any; the others need not take the line from other cores.
        let take = |count: &AtomicU64| match count.load(Ordering::Relaxed) {
            0 => 0,
            _ => count.swap(0, Ordering::Relaxed),
        };
        (take(&self.written), take(&self.read))
    }

    /// Exchanges that run.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// An exchange begins; answers how many ran before.
    pub(super) fn begin(&self, now: Instant) -> usize {
        self.resting.store(false, Ordering::Relaxed);
        let before = self.active.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            self.tether.begin(now);
        }
        before
    }

    /// An exchange has ended.
    pub(super) fn end(&self) {
        if self.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tether.end();
            if self.is_retired() {
                // From here on the peer has so long to end the session.
                self.tether.nudge();
            }
        }
    }

    /// A response was delivered.
    pub(super) fn note_served(&self) {
        // Written once: a store would take the line from all other cores each time.
        if !self.has_served() {
            self.served.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a response was delivered before.
    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// A head came that may be an interim one.
    pub(super) fn note_maybe_interim(&self) {
        self.maybe_interim.fetch_add(1, Ordering::Release);
    }

    /// How many such heads have come; it may wrap.
    pub(super) fn maybe_interim(&self) -> u32 {
        self.maybe_interim.load(Ordering::Acquire)
    }

    /// A stream was cancelled. h2 remembers it for a while, because frames for it may be on their way, and gives the session
    /// up when it has to remember too many (spec http2 rule 11).
    pub(super) fn note_cancel(&self) {
        if self.cancels.fetch_add(1, Ordering::Relaxed) + 1 == MOST_CANCELS {
            self.call(News::WORN);
        }
    }

    /// A new span in which cancelled streams are counted.
    pub(super) fn forget_cancels(&self) {
        self.cancels.store(0, Ordering::Relaxed);
    }

    /// h2 has reset a stream because the peer broke a rule. It gives the session up at the 1,025th.
    pub(super) fn note_library_reset(&self) {
        if self.resets_by_h2.fetch_add(1, Ordering::Relaxed) + 1 == MOST_LIBRARY_RESETS {
            self.call(News::WORN);
        }
    }

    /// A stream was refused although the peer's limit was kept to. Once may happen; a session on which it happens again gets
    /// no new streams.
    pub(super) fn note_refused(&self) {
        if self.refused.fetch_add(1, Ordering::Relaxed) + 1 == MOST_REFUSED {
            self.call(News::WORN);
        }
    }

    /// Leaves news for the driver, which is running or about to.
    pub(super) fn tell(&self, news: u8) {
        self.news.fetch_or(news, Ordering::AcqRel);
    }

    /// Leaves news for the driver, and wakes it.
    pub(super) fn call(&self, news: u8) {
        self.tell(news);
        self.tether.nudge();
    }

    pub(super) fn take_news(&self) -> u8 {
        if self.news.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.news.swap(0, Ordering::AcqRel)
    }

    /// The peer's settings have come.
    pub(super) fn settle(&self) {
        if !self.settled.swap(true, Ordering::AcqRel) {
            self.wake_unsettled();
        }
    }

    /// Wakes those who wait for settings that have come, or never will.
    pub(super) fn wake_unsettled(&self) {
        let wakers = std::mem::take(&mut self.kept().unsettled);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether the peer's settings have come.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Wakes `waker` when the settings come; answers whether they are still to come.
    pub(super) fn await_settings(&self, waker: &Waker) -> bool {
        let mut kept = self.kept();
        if self.is_settled() || self.is_retired() {
            return false;
        }
        if !kept.unsettled.iter().any(|known| known.will_wake(waker)) {
            kept.unsettled.push(waker.clone());
        }
        true
    }

    /// Begins to wait for what was handed to the session so far.
    pub(super) fn flush(&self) -> Arc<Flush> {
        let flush = Arc::<Flush>::default();
        let mut kept = self.kept();
        if kept.is_over {
            flush.finish();
        } else {
            kept.flushes.push(Arc::clone(&flush));
            self.flushing.store(true, Ordering::Release);
        }
        drop(kept);
        self.tether.nudge();
        flush
    }

    /// Those who wait as the session begins to write.
    pub(super) fn take_flushes(&self) -> Vec<Arc<Flush>> {
        if !self.flushing.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.blocked.store(false, Ordering::Relaxed);
        let mut kept = self.kept();
        self.flushing.store(false, Ordering::Release);
        std::mem::take(&mut kept.flushes)
    }

    /// The session has written what it had; unless the socket was full, those who waited before are done.
    pub(super) fn wrote_all(&self, flushes: Vec<Arc<Flush>>) {
        if flushes.is_empty() {
            return;
        }
        if self.blocked.load(Ordering::Relaxed) {
            self.kept().flushes.extend(flushes);
            self.flushing.store(true, Ordering::Release);
        } else {
            flushes.iter().for_each(|flush| flush.finish());
        }
    }

    /// Nothing more is written: nobody is to wait for it.
    pub(super) fn writes_no_more(&self) {
        let mut kept = self.kept();
        kept.is_over = true;
        let flushes = std::mem::take(&mut kept.flushes);
        drop(kept);
        flushes.iter().for_each(|flush| flush.finish());
    }

    /// The socket takes no more for now.
    pub(super) fn note_blocked(&self) {
        self.blocked.store(true, Ordering::Relaxed);
    }

    /// The session gets no new streams.
    pub(super) fn retire(&self) {
        if !self.retired.swap(true, Ordering::AcqRel) {
            self.tether.nudge();
        }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Nothing has happened for a while: gives back the memory that only exchanges need.
    pub(super) fn rest(&self) {
        self.resting.store(true, Ordering::Relaxed);
        self.drop_spare();
    }

    /// Lets go of the exchanges that are kept.
    pub(super) fn drop_spare(&self) {
        let spare = std::mem::take(&mut self.kept().spare);
        // Outside of the lock: h2 has one of its own.
        drop(spare);
    }

    pub(super) fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Relaxed)
    }

    /// Remembers why the session ends; the first reason stays. Answers the error that h2 is to see.
    pub(super) fn ends(&self, why: End) -> io::Error {
        let error = io::Error::other(why.to_string());
        // A second reason follows from the first.
        let _ = self.end.set(why);
        error
    }

    /// Why the session ended.
    pub(super) fn why_ended(&self) -> Option<&End> {
        self.end.get()
    }

    /// Why it gets no new streams, or has ended; the first reason stays.
    pub(super) fn ends_because(&self, why: CloseCause) {
        let _ = self.cause.set(why);
    }

    pub(super) fn cause(&self) -> Option<CloseCause> {
        self.cause.get().copied()
    }

    /// An exchange to use again, or a new one.
    pub(super) fn spare(&self) -> Box<Exchange> {
        let spare = self.kept().spare.pop();
        spare.unwrap_or_default()
    }

    /// Keeps an exchange that is done.
    pub(super) fn keep(&self, exchange: Box<Exchange>) {
        let mut kept = self.kept();
        if kept.spare.len() < MOST_SPARE {
            kept.spare.push(exchange);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl End {
    /// The peer's first line, as far as it is there and can be shown.
    pub(super) fn speaks_http1(bytes: &[u8]) -> Self {
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next();
        let line = line.unwrap_or_default();
        let line = line.get(..LONGEST_LINE).unwrap_or(line);
        Self::SpeaksHttp1 {
            line: line.escape_ascii().to_string(),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the client was closed, and this call was not done at the deadline"),
            Self::NotHttp2 => f.write_str("the server does not speak HTTP/2: it did not begin with SETTINGS (RFC 9113 section 3.4)"),
            Self::SpeaksHttp1 { line } => write!(f, "the server does not speak HTTP/2: it answered with \"{line}\""),
            Self::NoSettings => write!(f, "the server sent no SETTINGS within {SETTINGS_WAIT:?} (RFC 9113 section 3.4)"),
            Self::NoPong { limit } => write!(f, "the server gave no sign of life for {limit:?} after a PING (Http2Config::ping_timeout)"),
            Self::Flood(flood) if flood.without_progress > MOST_WITHOUT_PROGRESS => {
                write!(f, "the server sent more than {MOST_WITHOUT_PROGRESS} control frames without any progress")
            }
            Self::Flood(_) => write!(f, "the server sent more than {MOST_IN_SPAN} control frames in {SPAN:?}"),
            Self::EnablePush => f.write_str("the server sent SETTINGS_ENABLE_PUSH, which only a client may (RFC 9113 section 6.5.2)"),
        }
    }
}

/// How long the peer has for its settings.
pub(super) const SETTINGS_WAIT: Duration = Duration::from_secs(10);

/// Streams that may be cancelled in [`CANCEL_SPAN`]; two spans that meet are within what h2 remembers, 4,096.
const MOST_CANCELS: u32 = 2_048;

/// The span in which cancelled streams are counted, which is as long as h2 remembers them.
pub(super) const CANCEL_SPAN: Duration = Duration::from_secs(30);

/// Streams that h2 may reset because of the peer before the session gets no new ones.
const MOST_LIBRARY_RESETS: u32 = 512;

/// Streams that may be refused.
const MOST_REFUSED: u32 = 2;

/// Exchanges that are kept to be used again.
const MOST_SPARE: usize = 256;

/// Bytes of a first line that an error shows.
const LONGEST_LINE: usize = 64;
