//! One HTTP/2 session: the handle that opens streams, and the driver that owns the connection.
//!
//! ```text
//!   Prepared ──begin──▶ Session (shared by the pool and the exchanges)  +  Driver (one task)
//!                          └─ the last one gone: h2 says GOAWAY and the driver ends
//! ```
//! The driver polls h2, and looks at the clock about once a second while streams are open: it asks a silent peer for a sign of
//! life, and gives memory back. It never sees a request. What the pool must know it is told by a [`SessionChange`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::time::Instant;

use super::exchange::Exchange;
use super::session_io::SessionIo;
use super::shared::{CANCEL_SPAN, End, News, SETTINGS_WAIT, Shared};
use crate::config::{Http2Config, Limits};
use crate::connection::{Keeper, SessionChange, Timer};
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::socket::{ConnectionInfo, Socket, is_tls};
use crate::stats::CloseCause;

/// A socket on which HTTP/2 is to be spoken, before its first byte.
pub(crate) struct Prepared {
    pub(super) socket: Socket,
    pub(super) info: Arc<ConnectionInfo>,
    pub(super) limits: Arc<Limits>,
    pub(super) keeper: Keeper,
}

/// Opens streams on a session. The session ends when the last one is gone.
pub(crate) struct Session {
    /// Opens no stream itself: it stands for all that can.
    opener: SendRequest<Bytes>,
    pub(super) shared: Arc<Shared>,
    pub(super) info: Arc<ConnectionInfo>,
    pub(super) limits: Arc<Limits>,
    /// Whether a slot has been lent before.
    lent: AtomicBool,
}

impl Prepared {
    pub(crate) fn new(
        socket: Socket,
        info: Arc<ConnectionInfo>,
        limits: Arc<Limits>,
        keeper: Keeper,
    ) -> Self {
        Self {
            socket,
            info,
            limits,
            keeper,
        }
    }

    pub(crate) fn info(&self) -> &Arc<ConnectionInfo> {
        &self.info
    }

    /// Writes the preface; the peer's answer is not waited for (RFC 9113 section 3.4). The driver must be run.
    pub(crate) async fn begin(self) -> Result<(Arc<Session>, Driver)> {
        let Self {
            socket,
            info,
            limits,
            keeper,
        } = self;
        let now = Instant::now();
        let shared = Arc::new(Shared::new(Arc::clone(&keeper.tether), now));
        let window = limits.http2.connection_window;
        let io = SessionIo::new(socket, Arc::clone(&shared), window, now);
        let (opener, connection) = builder(&limits)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(preface_error)?;
        let driver = Driver {
            connection,
            ping: None,
            shared: Arc::clone(&shared),
            config: limits.http2.clone(),
            changed: None,
            timer: Timer::default(),
            check_at: Some(now + SETTINGS_WAIT),
            asked: None,
            awaits_pong: false,
            suspect_at: None,
            last_ping: None,
            cancels_since: now,
            drained_since: None,
            doubts: Doubts::default(),
            keeper,
        };
        let session = Arc::new(Session {
            opener,
            shared,
            info,
            limits,
            lent: AtomicBool::new(false),
        });
        Ok((session, driver))
    }
}

impl Session {
    /// Streams that may be open at once, as far as it is known; the pool counts them.
    pub(crate) fn max_streams(&self) -> usize {
        let most = self.limits.http2.max_streams_per_session.get();
        most.min(UNTIL_SETTINGS)
    }

    pub(crate) fn info(&self) -> &Arc<ConnectionInfo> {
        &self.info
    }

    /// When its dial began.
    pub(crate) fn dialled(&self) -> Instant {
        self.shared.tether.made()
    }

    /// Whether a stream can be opened: it has not ended, and the peer has not said that it is going.
    pub(crate) fn is_open(&self) -> bool {
        !self.shared.is_retired()
    }

    /// Opens streams. Whoever has a slot may open one, because the peer allows one more.
    pub(super) fn opener(&self) -> SendRequest<Bytes> {
        self.opener.clone()
    }

    /// Whether the peer takes other protocols on a stream (RFC 8441 section 3).
    pub(super) fn takes_other_protocols(&self) -> bool {
        self.opener.is_extended_connect_protocol_enabled()
    }

    /// Bytes sent and received since the last question, or since an exchange ended.
    pub(crate) fn take_traffic(&self) -> (u64, u64) {
        self.shared.take_traffic()
    }

    /// The handle is given up, and why, if that was not said before.
    pub(crate) fn ends_because(&self, why: CloseCause) {
        self.shared.ends_because(why);
    }

    /// An exchange on this session, for one slot of it.
    pub(crate) fn exchange(self: &Arc<Self>) -> Box<Exchange> {
        let mut exchange = self.shared.spare();
        let is_first =
            !self.lent.load(Ordering::Relaxed) && !self.lent.swap(true, Ordering::Relaxed);
        exchange.on(Arc::clone(self), is_first);
        exchange
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.retire();
        // With the last of those that open streams h2 ends the session.
        self.shared.drop_spare();
    }
}

/// See the table of spec http2 section 1 for each value.
fn builder(limits: &Limits) -> Builder {
    let http2 = &limits.http2;
    let most_streams = http2.max_streams_per_session.get();
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(http2.stream_window)
        .initial_connection_window_size(http2.connection_window)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .initial_max_send_streams(most_streams.min(UNTIL_SETTINGS))
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(CANCEL_SPAN);
    builder
}

fn preface_error(error: h2::Error) -> Error {
    let kind = match error.get_io() {
        Some(io) if is_tls(io) => ErrorKind::Tls,
        _ => ErrorKind::Io,
    };
    let io_kind = error.get_io().map(std::io::Error::kind);
    Error::new(kind, Some(Phase::Write), Sent::Nothing)
        .because(error)
        .with_io_kind(io_kind)
}

/// Whom a driver tells of changes.
type Changed = Box<dyn Fn(SessionChange) + Send + Sync>;

/// Owns the connection, and moves its frames. Dropped, it ends the session at once.
#[must_use = "a session does nothing without its driver"]
pub(crate) struct Driver {
    connection: Connection<SessionIo, Bytes>,
    /// Taken from h2 when there is something to ask: from then on h2 looks at it with every frame.
    ping: Option<PingPong>,
    shared: Arc<Shared>,
    config: Http2Config,
    changed: Option<Changed>,
    timer: Timer,
    /// When to look at the clock; `None` while nothing can come due.
    check_at: Option<Instant>,
    /// The question for a sign of life that has not come.
    asked: Option<Asked>,
    /// Whether the answer to a PING is still to come.
    awaits_pong: bool,
    /// When a peer that was asked becomes suspect (ruling 3 c).
    suspect_at: Option<Instant>,
    last_ping: Option<Instant>,
    cancels_since: Instant,
    /// Since when a retired session has been without streams.
    drained_since: Option<Instant>,
    doubts: Doubts,
    /// Its permit is returned when the socket has closed, which is why it stands last.
    keeper: Keeper,
}

impl Driver {
    /// Runs to the end of the session, and tells of changes. The future may be dropped at any time, unpolled, too: the end is
    /// told in any case.
    pub(crate) fn run(
        mut self,
        changed: impl Fn(SessionChange) + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send {
        self.changed = Some(Box::new(changed));
        async move { std::future::poll_fn(|cx| self.poll(cx)).await }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.keeper.tether.poll_cut(cx).is_ready() {
            self.shared.ends(End::Cut);
            return Poll::Ready(());
        }
        loop {
            let flushes = self.shared.take_flushes();
            let polled = Pin::new(&mut self.connection).poll(cx);
            self.shared.wrote_all(flushes);
            self.pass_news_on();
            if let Poll::Ready(outcome) = polled {
                let is_quiet = outcome.is_ok() && self.shared.active() == 0;
                self.shared.ends_because(match is_quiet {
                    true => CloseCause::PeerClosed,
                    false => CloseCause::Error,
                });
                return Poll::Ready(());
            }
            if ready!(self.poll_check(cx)) == Check::Over {
                return Poll::Ready(());
            }
        }
    }

    /// Tells the pool what has changed.
    fn pass_news_on(&mut self) {
        let news = self.shared.take_news();
        if news == 0 {
            // Any byte clears a suspicion.
            if self.asked.is_some() {
                self.hear();
            }
            return;
        }
        if news & News::SETTINGS != 0 {
            self.shared.settle();
            // They are waited for no longer; what else there is to look at is planned anew.
            self.check_at = Some(Instant::now() + TICK);
            let allowed = self.connection.max_concurrent_send_streams();
            let most = self.config.max_streams_per_session.get();
            self.tell(SessionChange::MaxStreams(allowed.min(most)));
        }
        if news & (News::GOING | News::WORN) != 0 {
            self.shared.ends_because(match news & News::GOING {
                0 => CloseCause::WornOut,
                _ => CloseCause::GoAway,
            });
            self.shared.retire();
            self.tell(SessionChange::Retired);
        }
        self.hear();
        if news & (News::SILENT | News::LONG_IDLE) != 0 {
            self.ask_now(news);
        }
    }

    /// Takes note of bytes that have come since the peer was asked.
    fn hear(&mut self) {
        let Some(asked) = self.asked else {
            return;
        };
        if self.shared.reads() == asked.reads {
            return;
        }
        self.asked = None;
        self.suspect_at = None;
        self.doubt(Doubts {
            silent: false,
            ..self.doubts
        });
    }

    /// Asks the peer because of what an exchange has met.
    fn ask_now(&mut self, news: u8) {
        let now = Instant::now();
        if news & News::SILENT != 0 {
            self.ask(now);
            self.suspect();
        } else if self.may_ask(now) {
            self.ask(now);
            self.suspect_at = Some(now + SUSPECT_AFTER);
        }
        // The time of the next check has changed.
        self.check_at = Some(now);
    }

    /// Whether the last PING is long enough ago; servers count them.
    fn may_ask(&self, now: Instant) -> bool {
        self.last_ping
            .is_none_or(|last| now.saturating_duration_since(last) >= PING_SPACING)
    }

    fn ask(&mut self, now: Instant) {
        if self.asked.is_some() {
            return;
        }
        // One that has not been answered yet serves as well; the answer is any byte. Of one that has been, the answer is
        // taken first.
        if self.ping.is_none() {
            self.ping = self.connection.ping_pong();
        }
        if let Some(ping) = &mut self.ping {
            if self.awaits_pong {
                let mut cx = Context::from_waker(Waker::noop());
                self.awaits_pong = ping.poll_pong(&mut cx).is_pending();
            }
            if ping.send_ping(Ping::opaque()).is_ok() {
                self.last_ping = Some(now);
                self.awaits_pong = true;
            }
        }
        self.asked = Some(Asked {
            at: now,
            reads: self.shared.reads(),
        });
    }

    fn suspect(&mut self) {
        self.suspect_at = None;
        self.doubt(Doubts {
            silent: true,
            ..self.doubts
        });
    }

    /// Tells the pool whether there are reasons not to open streams here.
    fn doubt(&mut self, doubts: Doubts) {
        let before = std::mem::replace(&mut self.doubts, doubts);
        match (before.any(), doubts.any()) {
            (false, true) => self.tell(SessionChange::Suspected),
            (true, false) => self.tell(SessionChange::Trusted),
            _ => {}
        }
    }

    /// Looks at the clock when it is time.
    fn poll_check(&mut self, cx: &mut Context<'_>) -> Poll<Check> {
        if let Some(ping) = self.ping.as_mut().filter(|_| self.awaits_pong) {
            // The bytes of the answer count, not the answer; it is taken so that another PING can be sent.
            self.awaits_pong = ping.poll_pong(cx).is_pending();
        }
        let at = match self.check_at {
            Some(at) => at,
            // Something may have begun.
            None if self.shared.active() > 0 || self.shared.is_retired() => {
                let at = Instant::now() + TICK;
                *self.check_at.insert(at)
            }
            None => return Poll::Pending,
        };
        ready!(self.timer.poll(cx, at));
        Poll::Ready(self.check(Instant::now()))
    }

    fn check(&mut self, now: Instant) -> Check {
        self.hear();
        let active = self.shared.active();
        let last_read = self.shared.last_read();
        if !self.shared.has_read() && now >= self.shared.made + SETTINGS_WAIT {
            self.shared.ends(End::NoSettings);
            return Check::Over;
        }
        if let Some(asked) = self.asked {
            if now >= later(asked.at, self.config.ping_timeout) {
                let limit = self.config.ping_timeout;
                self.shared.ends(End::NoPong { limit });
                return Check::Over;
            }
            if self.suspect_at.is_some_and(|at| at <= now) {
                self.suspect();
            }
        }
        self.doubt(Doubts {
            crowded: self.shared.crowded_for(now) > CROWDED,
            ..self.doubts
        });
        let ping_at = self.config.ping_interval.and_then(|interval| {
            let due = last_read.checked_add(interval)?;
            Some(
                self.last_ping
                    .map_or(due, |last| due.max(last + PING_SPACING)),
            )
        });
        if active > 0 && self.asked.is_none() && ping_at.is_some_and(|at| at <= now) {
            self.ask(now);
        }
        if now.saturating_duration_since(self.cancels_since) >= CANCEL_SPAN {
            self.cancels_since = now;
            self.shared.forget_cancels();
        }
        self.drained_since = match self.drained_since {
            _ if active > 0 || !self.shared.is_retired() => None,
            known => known.or(Some(now)),
        };
        if self.drained_since.is_some_and(|since| now >= since + DRAIN) {
            return Check::Over;
        }
        self.plan(now, active, ping_at)
    }

    /// When to look again.
    fn plan(&mut self, now: Instant, active: usize, ping_at: Option<Instant>) -> Check {
        let settings_at = (!self.shared.has_read()).then_some(self.shared.made + SETTINGS_WAIT);
        let dead_at = self
            .asked
            .map(|asked| later(asked.at, self.config.ping_timeout));
        let drained_at = self.drained_since.map(|since| since + DRAIN);
        let ping_at = ping_at.filter(|_| active > 0 && self.asked.is_none());
        let quiet = active == 0 && now.saturating_duration_since(self.shared.last_read()) >= TICK;
        if quiet && !self.shared.is_resting() {
            // h2 is polled once more after this, and with it the buffer is given back.
            self.shared.rest();
        }
        let tick = (!quiet).then_some(now + TICK);
        let moments = [
            settings_at,
            dead_at,
            drained_at,
            ping_at,
            self.suspect_at,
            tick,
        ];
        self.check_at = moments.into_iter().flatten().min();
        if quiet && self.check_at.is_none() {
            self.timer = Timer::default();
        }
        Check::GoesOn
    }

    fn tell(&self, change: SessionChange) {
        if let Some(changed) = &self.changed {
            changed(change);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.retire();
        self.shared.wake_unsettled();
        self.shared.writes_no_more();
        // Without a reason so far its runtime has ended.
        let why = match self.shared.why_ended() {
            Some(End::Cut) => CloseCause::Cut,
            Some(_) => CloseCause::Error,
            None => self.shared.cause().unwrap_or(CloseCause::RuntimeGone),
        };
        self.tell(SessionChange::Gone(why));
    }
}

/// Why a session gets no new streams for now, and may be replaced.
#[derive(Clone, Copy, Debug, Default)]
struct Doubts {
    /// The peer was asked for a sign of life (ruling 3).
    silent: bool,
    /// What is not read holds most of the connection's window, and new streams would get little of it (spec http2 rule 13).
    crowded: bool,
}

impl Doubts {
    fn any(self) -> bool {
        self.silent || self.crowded
    }
}

/// A peer that was asked for a sign of life.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    /// Reads up to then.
    reads: u64,
}

/// A limit that is too large to add to the clock is as good as none.
fn later(at: Instant, limit: Duration) -> Instant {
    at.checked_add(limit).unwrap_or_else(|| at + FAR)
}

/// How a look at the clock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    GoesOn,
    /// The session is over.
    Over,
}

/// Streams before the peer's settings have come: what RFC 9113 section 6.5.2 calls the least that is recommended.
const UNTIL_SETTINGS: usize = 100;

/// Bytes of DATA that h2 holds for a stream.
const SEND_BUFFER: usize = 512 * 1024;

/// Streams that were reset here and are remembered, because frames for them may still come.
const RESET_STREAMS: usize = 4096;

/// Looks at the clock are so far apart while streams are open.
const TICK: Duration = Duration::from_secs(1);

/// PING frames are at least so far apart, but for a stream that hit its limit (ruling 3).
const PING_SPACING: Duration = Duration::from_secs(10);

/// After a long silence a first request has so long for any sign of life before the session is suspect (ruling 3 c).
const SUSPECT_AFTER: Duration = Duration::from_secs(2);

/// How long the connection's window may be nearly used up before the session gets no new streams.
const CROWDED: Duration = Duration::from_secs(30);

/// How long a retired session may go on without streams.
const DRAIN: Duration = Duration::from_secs(30);

/// Stands in for a time that the clock cannot express.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
