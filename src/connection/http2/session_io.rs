//! The socket under a session: what h2 reads and writes passes through here (spec http2 rule 1).
//!
//! Reads come from a buffer of their own, filled by large reads, and are handed on in slices: h2 parses a slice, the callers
//! whose responses are in it run, and the rest follows in the next turn. What is there of nearly all open streams at once is
//! handed on in two halves, so that callers and server work at the same time. Both directions are walked over (`frames.rs`), so that
//! it is known what the peer is, whether it is alive, whether it floods us, and which requests have left.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::flood::FloodGuard;
use super::frames::{END_STREAM, FRAME_HEAD, FrameHead, FrameWalk, Kind, Sight};
use super::shared::{End, News, Shared};
use crate::socket::Socket;

/// What h2 reads from and writes to.
pub(super) struct SessionIo {
    socket: Socket,
    shared: Arc<Shared>,
    /// What was read and not handed on. It has no memory while the session is at rest.
    buffer: BytesMut,
    /// Room for the next read: more, the fuller the last ones came.
    room: usize,
    /// Bytes handed on in this turn.
    handed: usize,
    /// Bytes to hand on in this turn.
    slice: usize,
    incoming: Incoming,
    outgoing: FrameWalk,
    /// Bytes of the preface that no frame header is in.
    preface_left: usize,
}

/// What is known of the peer's frames.
struct Incoming {
    walk: FrameWalk,
    guard: FloodGuard,
    started: bool,
    empty_data: u32,
    /// Streams that have ended in what was looked at last.
    ended: usize,
    window: Window,
}

/// What the peer may still send on all streams together, as the frames say (RFC 9113 section 6.9.1).
struct Window {
    left: i64,
    /// With less than this left, the session is crowded: what was received is not read.
    low: i64,
    is_low: bool,
}

impl SessionIo {
    pub(super) fn new(
        socket: Socket,
        shared: Arc<Shared>,
        connection_window: u32,
        now: Instant,
    ) -> Self {
        Self {
            socket,
            shared,
            buffer: BytesMut::new(),
            room: READ,
            handed: 0,
            slice: SLICE,
            incoming: Incoming {
                walk: FrameWalk::of_responses(),
                guard: FloodGuard::new(now),
                started: false,
                empty_data: 0,
                ended: 0,
                window: Window {
                    left: FIRST_WINDOW,
                    low: i64::from(connection_window / LOW),
                    is_low: false,
                },
            },
            outgoing: FrameWalk::default(),
            preface_left: PREFACE,
        }
    }

    /// Reads into the buffer, and looks at what has come. The first bytes are held back until it is clear whether they are of
    /// HTTP/2: h2 would take another protocol's for a frame.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            self.buffer.reserve(self.room);
            let Poll::Ready(read) = poll_read_buf(&mut self.socket, &mut self.buffer, cx) else {
                if self.shared.is_resting() && self.buffer.is_empty() {
                    self.buffer = BytesMut::new();
                    self.room = READ;
                }
                return Poll::Pending;
            };
            let read = read?;
            if read == 0 {
                self.ended()?;
                return Poll::Ready(Ok(self.buffer.len()));
            }
            self.room = match read {
                _ if read >= self.room => MOST_READ.min(self.room * 2),
                _ if read < self.room / 8 => READ,
                _ => self.room,
            };
            let now = Instant::now();
            self.shared.note_read(read as u64, now);
            if self.incoming.started || is_beginning_known(&self.buffer) {
                if let Err(error) = self.look(now) {
                    self.go_away(cx);
                    return Poll::Ready(Err(error));
                }
                self.plan_turn();
                return Poll::Ready(Ok(self.buffer.len()));
            }
        }
    }

    /// Tells the peer why the session ends here, where h2 knows nothing of the reason (RFC 9113 section 5.4.1). What the system
    /// does not take at once is left out: the connection is closed in any case.
    fn go_away(&mut self, cx: &mut Context<'_>) {
        let Some(reason) = self.shared.why_ended().and_then(End::reason) else {
            return;
        };
        if self.preface_left > 0 || !self.outgoing.is_between_frames() {
            return;
        }
        let frame = goaway(reason);
        let written = Pin::new(&mut self.socket).poll_write(cx, &frame);
        if matches!(written, Poll::Ready(Ok(_))) {
            let _ = Pin::new(&mut self.socket).poll_flush(cx);
        }
    }

    /// Requests that left together are answered together, and then each side waits while the other works. Where most of the
    /// responses have come at once, half of the bytes are handed on in this turn: the callers of that half send again before
    /// the others are looked at, and from then on two groups are under way.
    fn plan_turn(&mut self) {
        let active = self.shared.active();
        if active >= BUSY && self.incoming.ended * 4 > active * 3 {
            self.slice = self.handed + self.buffer.len().div_ceil(2);
        }
    }

    /// The connection has ended. What it ended within may be somebody's.
    fn ended(&mut self) -> io::Result<()> {
        if !self.incoming.started && self.buffer.starts_with(HTTP1) {
            return Err(self.shared.ends(End::speaks_http1(&self.buffer)));
        }
        if let Some(frame) = self.incoming.walk.unfinished() {
            self.shared.cut_within(frame);
        }
        Ok(())
    }

    /// Everything in the buffer is new here: it was empty before it was filled.
    fn look(&mut self, now: Instant) -> io::Result<()> {
        let Self {
            shared,
            buffer,
            incoming,
            ..
        } = self;
        if !incoming.started && buffer.starts_with(HTTP1) {
            return Err(shared.ends(End::speaks_http1(buffer)));
        }
        let Incoming {
            walk,
            guard,
            started,
            empty_data,
            ended,
            window,
        } = incoming;
        *ended = 0;
        let outcome = walk.pass(buffer, |sight| {
            let frame = match sight {
                Sight::Frame(frame) => frame,
                // Servers must not (RFC 9113 section 6.5.2).
                Sight::Setting { id: 2, value: 1.. } => return Err(End::EnablePush),
                Sight::MaybeInterim => {
                    shared.note_maybe_interim();
                    return Ok(());
                }
                Sight::Setting { .. } | Sight::Window(_) | Sight::Reset(_) => return Ok(()),
            };
            if !std::mem::replace(started, true) && !is_first(frame) {
                return Err(End::NotHttp2);
            }
            guard.came(frame, now).map_err(End::Flood)?;
            if matches!(frame.kind, Kind::Data | Kind::Headers) {
                *ended += usize::from(frame.flags & END_STREAM);
            }
            if frame.kind == Kind::Data {
                window.left -= frame.len as i64;
            }
            match frame.kind {
                Kind::GoAway => shared.tell(News::GOING),
                Kind::Data if frame.len == 0 && frame.flags & END_STREAM == 0 => {
                    *empty_data += 1;
                    if *empty_data == MOST_EMPTY_DATA {
                        shared.tell(News::WORN);
                    }
                }
                _ => {}
            }
            Ok(())
        });
        if window.left < window.low && !window.is_low {
            window.is_low = true;
            shared.crowds(Some(now));
        }
        outcome.map_err(|end| shared.ends(end))
    }

    /// Remembers that the socket takes no more for now.
    fn note_blocked<T>(&self, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() {
            self.shared.note_blocked();
        }
        polled
    }

    /// Looks at what the socket has taken of `bufs`.
    fn wrote(&mut self, bufs: &[IoSlice<'_>], mut written: usize) {
        self.shared.note_written(written as u64);
        let before = self.shared.headers_written();
        let mut newest = before;
        let Self {
            shared,
            incoming,
            outgoing,
            preface_left,
            ..
        } = self;
        for buf in bufs {
            let part = buf.get(..written.min(buf.len())).unwrap_or_default();
            written -= part.len();
            let skipped = part.len().min(*preface_left);
            *preface_left -= skipped;
            let part = part.get(skipped..).unwrap_or_default();
            let passed: Result<(), std::convert::Infallible> = outgoing.pass(part, |sight| {
                match sight {
                    Sight::Frame(frame) => match frame.kind {
                        // Trailers are HEADERS, too, of a stream that is older than the newest.
                        Kind::Headers if frame.stream > newest => {
                            newest = frame.stream;
                            incoming.guard.asked(1);
                        }
                        // h2 writes it when it has applied the peer's settings; the frame itself it may not have seen yet.
                        Kind::Settings if frame.is_ack() => shared.tell(News::SETTINGS),
                        Kind::Data if frame.len > 0 => incoming.guard.wrote_data(frame.len as u64),
                        _ => {}
                    },
                    Sight::Window(increment) => {
                        let window = &mut incoming.window;
                        window.left += i64::from(increment);
                        if window.is_low && window.left >= window.low {
                            window.is_low = false;
                            shared.crowds(None);
                        }
                    }
                    // By this h2 answers what comes for a stream that is over, and nobody but h2 knows of it.
                    Sight::Reset(code) if Reason::from(code) == Reason::STREAM_CLOSED => {
                        shared.note_library_reset();
                    }
                    Sight::Reset(_) | Sight::Setting { .. } | Sight::MaybeInterim => {}
                }
                Ok(())
            });
            match passed {
                Ok(()) => {}
                Err(never) => match never {},
            }
            if written == 0 {
                break;
            }
        }
        if newest > before {
            self.shared.note_headers(newest);
            if before < LAST_STREAMS && newest >= LAST_STREAMS {
                self.shared.tell(News::WORN);
            }
        }
    }
}

/// GOAWAY (RFC 9113 section 6.8). No stream of the peer's was processed: a client takes none.
fn goaway(reason: Reason) -> [u8; GOAWAY] {
    let [a, b, c, d] = u32::from(reason).to_be_bytes();
    [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

/// Whether the first bytes tell what the peer speaks: a frame header, or the first line of HTTP/1.
fn is_beginning_known(bytes: &[u8]) -> bool {
    if bytes.starts_with(HTTP1) {
        return bytes.len() >= FIRST_LINE || bytes.contains(&b'\n');
    }
    bytes.len() >= FRAME_HEAD
}

/// A session begins with the peer's settings (RFC 9113 section 3.4).
fn is_first(frame: FrameHead) -> bool {
    frame.kind == Kind::Settings && !frame.is_ack() && frame.stream == 0
}

/// Reads into the spare room of a buffer.
fn poll_read_buf(
    socket: &mut Socket,
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    use std::future::Future;
    use tokio::io::AsyncReadExt;

    std::pin::pin!(socket.read_buf(buffer)).poll(cx)
}

impl AsyncRead for SessionIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.handed >= this.slice {
            // The callers whose responses were in the last slice go first.
            this.handed = 0;
            this.slice = SLICE;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.buffer.is_empty() || !this.incoming.started {
            match this.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.handed = 0;
                    return Poll::Pending;
                }
            }
        }
        let len = (this.slice - this.handed)
            .min(this.buffer.len())
            .min(out.remaining());
        out.put_slice(this.buffer.get(..len).unwrap_or_default());
        this.buffer.advance(len);
        this.handed += len;
        if this.buffer.is_empty() {
            // Back to the front of its memory.
            this.buffer.clear();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SessionIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        let written = ready!(self.note_blocked(polled))?;
        self.wrote(&[IoSlice::new(buf)], written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        let written = ready!(self.note_blocked(polled))?;
        self.wrote(bufs, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_flush(cx);
        self.note_blocked(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Bytes of GOAWAY without debug data.
const GOAWAY: usize = FRAME_HEAD + 8;

/// What a response of HTTP/1 begins with.
const HTTP1: &[u8] = b"HTTP/";

/// So much of a first line is waited for.
const FIRST_LINE: usize = 64;

/// Bytes of `PRI * HTTP/2.0 ...`, which every client sends first (RFC 9113 section 3.4).
const PREFACE: usize = 24;

/// Room for one read: four frames of the usual size.
const READ: usize = 64 * 1024;

/// The same at most, where large bodies come: a system call for every sixteen frames.
const MOST_READ: usize = 256 * 1024;

/// With so many streams open a session is busy.
const BUSY: usize = 8;

/// Bytes that h2 gets in one turn. Much more would wait in h2 until the callers run, and have left the
/// processor's caches by then.
const SLICE: usize = 64 * 1024;

/// From this stream on a session gets no new ones, long before its numbers are used up.
const LAST_STREAMS: u32 = 1 << 30;

/// The connection's window when a session begins (RFC 9113 section 6.9.2).
const FIRST_WINDOW: i64 = 65_535;

/// A session is crowded when less than this part of its window is left (spec http2 rule 13).
const LOW: u32 = 4;

/// Empty DATA frames, after which the session gets no new streams: h2 ends it at the hundred-and-first.
const MOST_EMPTY_DATA: u32 = 80;
