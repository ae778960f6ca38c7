//! One HTTP/1.1 connection, driven by the caller's own task (design D1): no task, no channel.
//!
//! ```text
//!  begin ──▶ poll_head: write and read at once ──▶ Answer, complete ──▶ settle
//!                                                └─▶ Answer, streaming ──▶ poll_data … None ──▶ settle
//! ```
//! It reads while it writes, so that an early reply is seen (spec http1 a5). Dropping a future between two polls leaves the
//! connection mid-exchange; `settle` then says that it is not reusable. The pool lends it and knows why it closes.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use super::timer::Timer;
use super::upload::{Upload, UploadError, Writing};
use super::{Answer, AnswerBody, Keeper, Standing};
use crate::body::Body;
use crate::codec::{
    BodyDecoder, BodyStep, ChunkedDecoder, ChunkedStep, CloseReason, DecodeError, DecodedHead,
    Framing, HeadDecoder, HeadStep, MethodKind, Reuse, Rule, check_switch,
};
use crate::config::Limits;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::head::{Asks, DefaultFields, Forwarding, RequestHead};
use crate::socket::{ConnectionInfo, Probe, Probed, Socket, Upgraded, tls_failure};
use crate::stats::CloseCause;

/// An open connection and the exchange on it.
pub(crate) struct Http1 {
    socket: Socket,
    info: Arc<ConnectionInfo>,
    limits: Arc<Limits>,
    /// The peer is a proxy that forwards requests.
    forwarding: Option<Arc<Forwarding>>,
    served: u64,
    /// The runtime that the socket belongs to.
    home: Option<Id>,
    timer: Timer,
    buffer: BytesMut,
    /// How much room the next read gets.
    read_size: usize,
    upload: Upload,
    write_error: Option<io::Error>,
    method: MethodKind,
    heads: HeadDecoder,
    stage: Stage,
    reuse: Reuse,
    keep_alive: Option<u64>,
    received: u64,
    /// What the call asks for beyond an answer.
    asks: Option<Arc<Asks>>,
    /// What the caller waits for, and since when.
    wait: Option<Wait>,
    since: Instant,
    trailers: Option<Box<HeaderMap>>,
    /// Its permit is returned when the socket closes, which is why it stands last.
    keeper: Keeper,
}

/// How much of a body may still be read only to be thrown away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Discard {
    pub(crate) reads: usize,
    pub(crate) bytes: u64,
}

/// How that went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discarded {
    /// The body is over.
    End,
    /// As much was read as may be.
    Limit,
    /// The connection failed.
    Failed,
}

/// Where the exchange stands.
enum Stage {
    /// There is none.
    Idle,
    /// Up to the final head.
    Head,
    /// In a body that is still on the connection. `next` is data found while looking for the end.
    Body {
        decoder: BodyDecoder,
        next: Option<(usize, usize)>,
    },
    /// The body was read to its end.
    Done,
    /// Something failed; nothing on this connection can be trusted.
    Failed,
}

/// What a pending poll waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Write,
    Starved,
    Continue,
    Head,
    Read,
}

impl Http1 {
    pub(super) fn new(
        socket: Socket,
        forwarding: Option<Arc<Forwarding>>,
        info: Arc<ConnectionInfo>,
        limits: Arc<Limits>,
        keeper: Keeper,
    ) -> Self {
        let now = Instant::now();
        Self {
            socket,
            info,
            limits,
            forwarding,
            served: 0,
            home: Handle::try_current().ok().map(|runtime| runtime.id()),
            timer: Timer::default(),
            buffer: BytesMut::new(),
            read_size: FIRST_READ,
            upload: Upload::new(),
            write_error: None,
            method: MethodKind::Other,
            heads: HeadDecoder::default(),
            stage: Stage::Idle,
            reuse: Reuse::Yes,
            keep_alive: None,
            received: 0,
            asks: None,
            wait: None,
            since: now,
            trailers: None,
            keeper,
        }
    }

    /// See [`Connection::begin`](super::Connection::begin).
    pub(super) fn begin(
        &mut self,
        head: &RequestHead,
        defaults: &DefaultFields,
        body: &mut Body,
        now: Instant,
    ) -> Result<()> {
        let encoded = self
            .upload
            .begin(head, defaults, body, self.forwarding.as_deref())
            .map_err(Error::invalid_request)?;
        self.method = encoded.method;
        self.heads.reset();
        self.stage = Stage::Head;
        self.reuse = if encoded.close {
            Reuse::No(CloseReason::WeAsked)
        } else {
            Reuse::Yes
        };
        self.received = 0;
        self.write_error = None;
        self.trailers = None;
        self.asks.clone_from(&head.asks);
        self.wait = None;
        self.since = now;
        self.keeper.tether.begin(now);
        Ok(())
    }

    /// See [`Connection::poll_head`](super::Connection::poll_head).
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &Deadline<'_>,
    ) -> Poll<Result<Answer>> {
        if self.keeper.tether.is_cut() {
            self.stage = Stage::Failed;
            return Poll::Ready(Err(self.cut_off(Phase::Head)));
        }
        let polled = loop {
            let before = self.upload.written();
            let writing = match self.poll_upload(cx) {
                Ok(writing) => writing,
                Err(error) => break Poll::Ready(Err(error)),
            };
            let (wait, phase) = match writing {
                Writing::Done => (Wait::Head, Phase::Head),
                Writing::Blocked => (Wait::Write, Phase::Write),
                Writing::Starved => (Wait::Starved, Phase::Write),
                Writing::Held => (Wait::Continue, Phase::Head),
            };
            if let Poll::Ready(answer) = self.poll_final_head(cx) {
                break Poll::Ready(answer);
            }
            if writing == Writing::Held && !self.upload.is_held() {
                continue;
            }
            let progress = self.upload.written() != before;
            match self.poll_limit(cx, deadline, phase, wait, progress) {
                Poll::Ready(Some(error)) => break Poll::Ready(Err(error)),
                Poll::Ready(None) => self.upload.let_go(),
                Poll::Pending => break Poll::Pending,
            }
        };
        if let Poll::Ready(Err(_)) = &polled {
            self.stage = Stage::Failed;
        }
        polled
    }

    /// See [`Connection::poll_data`](super::Connection::poll_data).
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &Deadline<'_>,
    ) -> Poll<Result<Option<Bytes>>> {
        if self.keeper.tether.is_cut() && !self.is_body_done() {
            self.stage = Stage::Failed;
            return Poll::Ready(Err(self.cut_off(Phase::Read)));
        }
        let polled = match self.poll_piece(cx) {
            Poll::Pending => self
                .poll_limit(cx, deadline, Phase::Read, Wait::Read, false)
                .map(|error| error.map_or(Ok(None), Err)),
            ready => {
                self.wait = None;
                ready
            }
        };
        if let Poll::Ready(Err(_)) = &polled {
            self.stage = Stage::Failed;
        }
        polled
    }

    pub(super) fn is_body_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    pub(super) fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        self.trailers.take()
    }

    pub(super) fn body_left(&self) -> Option<u64> {
        match &self.stage {
            Stage::Body { decoder, next } => {
                Some(decoder.left()? + next.map_or(0, |(_, len)| len as u64))
            }
            _ => None,
        }
    }

    pub(super) fn take_unpolled_body(&mut self) -> Option<Body> {
        let body = self.upload.take_unpolled()?;
        // The head has promised it: what follows on this connection would be taken for it (CVE-2024-24791).
        self.upload.stop();
        self.reuse.refuse(CloseReason::EarlyResponse);
        Some(body)
    }

    /// See [`Connection::sent`](super::Connection::sent).
    pub(super) fn sent_all(&self) -> Option<u64> {
        self.upload.sent_all()
    }

    /// Bytes of a streaming body that have come since the last question; they are not in [`traffic`](Self::traffic) any more. Once there is
    /// a head, nothing but traffic is told by how much was received.
    pub(super) fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }

    /// Bytes sent and received in this exchange.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.upload.written(), self.received)
    }

    /// Whether it served a response before this exchange.
    pub(crate) fn is_reused(&self) -> bool {
        self.served > 0
    }

    pub(crate) fn info(&self) -> &Arc<ConnectionInfo> {
        &self.info
    }

    /// Whether something may have arrived while it was idle; costs no system call.
    pub(crate) fn is_suspect(&self) -> bool {
        self.socket.is_suspect()
    }

    /// It has been idle for a while: gives back the memory that only an exchange needs. Whether `cx` will hear of whatever
    /// arrives on it; if not, [`arm`](Self::arm) finds out why. Costs no system call.
    pub(crate) fn rest(&mut self, cx: &mut Context<'_>) -> bool {
        self.buffer = BytesMut::new();
        self.upload.rest();
        self.keeper.tether.rest();
        self.timer = Timer::default();
        self.socket.is_quiet(cx)
    }

    /// Has the peer know that the connection is there, although no request comes for now.
    pub(crate) fn let_go(&mut self) {
        self.socket.let_go();
    }

    /// Sees to it that `cx` hears of whatever arrives while it is idle, unless that has happened already.
    pub(crate) fn arm(&mut self, cx: &mut Context<'_>) -> Result<(), CloseCause> {
        self.socket.arm(cx)
    }

    /// The socket, after it was switched to another protocol.
    pub(crate) fn into_upgraded(self) -> Upgraded {
        Upgraded::new(self.socket, self.buffer.freeze(), Box::new(self.keeper))
    }

    /// When its dial began.
    pub(crate) fn dialled(&self) -> Instant {
        self.keeper.tether.made()
    }

    /// Tells the peer that the connection closes, where the transport has a word for it, without waiting.
    pub(crate) fn say_goodbye(&mut self) {
        // In the middle of a request it would vouch for an end that is none.
        if matches!(self.stage, Stage::Idle | Stage::Done) {
            self.socket.say_goodbye();
        }
    }

    /// Whether the body of a streaming answer is not over yet.
    pub(crate) fn is_in_body(&self) -> bool {
        matches!(self.stage, Stage::Body { .. })
    }

    /// Whether what is left of a body could be read and thrown away, and the connection then be used again.
    pub(crate) fn can_discard(&self, at_most: u64) -> bool {
        let Stage::Body { decoder, .. } = &self.stage else {
            return false;
        };
        let left = self.body_left();
        let unread = left.map(|left| left.saturating_sub(self.buffer.len() as u64));
        !matches!(decoder, BodyDecoder::UntilClose)
            && self.upload.is_done()
            && self.write_error.is_none()
            && self.reuse == Reuse::Yes
            && unread.is_none_or(|unread| unread <= at_most)
    }

    /// Reads on in a body and keeps nothing.
    pub(crate) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        discard: &mut Discard,
    ) -> Poll<Discarded> {
        loop {
            let Stage::Body { decoder, next } = &mut self.stage else {
                return Poll::Ready(match self.stage {
                    Stage::Done => Discarded::End,
                    _ => Discarded::Failed,
                });
            };
            let step = match next.take() {
                Some((skip, len)) => Ok(BodyStep::Data { skip, len }),
                None => decoder.step(&self.buffer),
            };
            match step {
                Ok(BodyStep::Data { skip, len }) => self.buffer.advance(skip + len),
                Ok(BodyStep::End { skip, .. }) => {
                    self.buffer.advance(skip);
                    self.finish();
                    return Poll::Ready(Discarded::End);
                }
                Ok(BodyStep::NeedMore { skip }) => {
                    self.buffer.advance(skip);
                    if discard.reads == 0 || discard.bytes == 0 {
                        return Poll::Ready(Discarded::Limit);
                    }
                    self.read_size = DISCARD_READ;
                    match ready!(self.poll_fill(cx)) {
                        Ok(read) if read > 0 => {
                            discard.reads -= 1;
                            discard.bytes = discard.bytes.saturating_sub(read as u64);
                        }
                        _ => {
                            self.stage = Stage::Failed;
                            return Poll::Ready(Discarded::Failed);
                        }
                    }
                }
                Err(_) => {
                    self.stage = Stage::Failed;
                    return Poll::Ready(Discarded::Failed);
                }
            }
        }
    }

    pub(super) fn pause(&mut self) {
        self.wait = None;
    }

    /// Whether the peer is still there and silent, as far as that can be known without waiting.
    pub(crate) fn probe(&mut self, probe: Probe) -> Probed {
        self.socket.probe(probe)
    }

    /// Ends the exchange, lets go of the caller's waker and says whether another may follow (spec pool R-REL-1).
    pub(crate) fn settle(&mut self) -> Standing {
        let close = self.reason_to_close();
        self.keeper.tether.end();
        if close.is_none() {
            self.upload.settle();
            self.received = 0;
            self.stage = Stage::Idle;
            self.asks = None;
            self.timer.come_home(self.home);
            if self.buffer.capacity() > LARGEST_KEPT || self.read_size > FIRST_READ {
                self.buffer = BytesMut::new();
            }
            self.read_size = FIRST_READ;
        }
        Standing {
            close,
            served: self.served,
            dialled: self.keeper.tether.made(),
            id: self.info.id,
            keep_alive: self.keep_alive,
        }
    }

    fn reason_to_close(&mut self) -> Option<CloseCause> {
        match self.stage {
            // Lent and given back without a byte having been sent.
            Stage::Idle => {}
            Stage::Head
                if self.upload.written() == 0
                    && self.buffer.is_empty()
                    && self.write_error.is_none() => {}
            Stage::Done => {
                self.served += 1;
                match self.reuse {
                    Reuse::Yes => {}
                    Reuse::No(reason) => return Some(close_cause(reason)),
                }
            }
            _ if self.keeper.tether.is_cut() => return Some(CloseCause::Cut),
            Stage::Head => return Some(CloseCause::Dropped),
            Stage::Body { .. } => return Some(CloseCause::DrainGaveUp),
            Stage::Failed => return Some(CloseCause::Error),
        }
        (!self.socket.is_clean()).then_some(CloseCause::Unsolicited)
    }

    /// Writes on. A connection that fails is not the end: the peer may have said why before it closed.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<Writing> {
        if self.write_error.is_some() {
            return Ok(Writing::Done);
        }
        match self.upload.poll(&mut self.socket, cx) {
            Ok(writing) => Ok(writing),
            Err(UploadError::Io(error)) => {
                self.reuse.refuse(CloseReason::EarlyResponse);
                self.upload.stop();
                self.write_error = Some(error);
                Ok(Writing::Done)
            }
            Err(UploadError::Source(error)) => Err(error),
            Err(UploadError::Length(error)) => {
                Err(Error::new(ErrorKind::Body, Some(Phase::Write), Sent::Part).because(error))
            }
        }
    }

    fn poll_final_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer>> {
        loop {
            if !self.buffer.is_empty() {
                match self.heads.decode(&self.buffer, self.method, &self.limits) {
                    Ok(HeadStep::NeedMore) => {}
                    Ok(HeadStep::Interim(head)) => {
                        self.interim(&head);
                        continue;
                    }
                    Ok(HeadStep::Final(head)) if self.method.switches(head.status) => {
                        // The other protocol begins behind the request (RFC 9110 section 7.8).
                        if !self.upload.is_done() && self.write_error.is_none() {
                            return Poll::Pending;
                        }
                        return Poll::Ready(self.switch(&head));
                    }
                    Ok(HeadStep::Final(head)) => return Poll::Ready(self.answer(&head)),
                    Err(error) => return Poll::Ready(Err(self.decode_error(error, Phase::Head))),
                }
            }
            let error = match ready!(self.poll_fill(cx)) {
                Ok(0) => None,
                Ok(_) => continue,
                Err(error) => Some(error),
            };
            return Poll::Ready(Err(self.ended_in_head(error)));
        }
    }

    /// An interim response: told to whoever wants to know, and heeded if the body waits for it.
    fn interim(&mut self, head: &DecodedHead) {
        let asks = self.asks.as_ref();
        if let Some(tell) = asks.and_then(|asks| asks.on_informational.as_ref()) {
            tell(&self.heads.keep(head, &self.buffer, &[]).to_interim());
        }
        self.buffer.advance(head.len);
        if head.status == StatusCode::CONTINUE {
            self.upload.let_go();
        }
    }

    /// The connection belongs to another protocol from here on, or to a tunnel; what has been read already with it
    /// (spec http1 a2, a4).
    fn switch(&mut self, head: &DecodedHead) -> Result<Answer> {
        if let Some(error) = self.write_error.take() {
            return Err(self.io_error(error, Phase::Write));
        }
        let kept = self.heads.keep(head, &self.buffer, &[]);
        if self.method == MethodKind::Upgrade {
            let asked = self.asks.as_ref().and_then(|asks| asks.upgrade.as_ref());
            let named = asked.map_or(Err(Rule::UnaskedUpgrade.into()), |asked| {
                check_switch(asked, &kept)
            });
            named.map_err(|error| self.decode_error(error, Phase::Head))?;
        }
        self.buffer.advance(head.len);
        self.reuse.refuse(CloseReason::Switched);
        self.stage = Stage::Done;
        Ok(Answer {
            head: kept,
            body: AnswerBody::Switched,
            trailers: None,
        })
    }

    /// The error for a connection that ended before the final head.
    fn ended_in_head(&mut self, error: Option<io::Error>) -> Error {
        // An alert of TLS tells why the peer stopped listening; that a write failed then does not.
        let error = match error.map(tls_failure) {
            Some(Ok(failure)) => return self.tls_error(failure, Phase::Head),
            Some(Err(error)) => Some(error),
            None => None,
        };
        if let Some(error) = self.write_error.take() {
            return self.io_error(error, Phase::Write);
        }
        // A reply that was begun and cut short breaks the protocol; silence is the connection's failure (ruling 20).
        match error {
            _ if self.received > 0 && error.as_ref().is_none_or(is_end) => {
                let cut = self.heads.cut_short(self.buffer.len());
                self.decode_error(cut, Phase::Head)
            }
            Some(error) if !is_end(&error) => self.io_error(error, Phase::Head),
            _ => Error::new(ErrorKind::Io, Some(Phase::Head), self.sent())
                .saying("the peer closed the connection before the response head")
                .with_io_kind(Some(io::ErrorKind::UnexpectedEof)),
        }
    }

    /// Takes the decoded head out of the buffer, with the body if all of it is there (design D3).
    fn answer(&mut self, head: &DecodedHead) -> Result<Answer> {
        if let Reuse::No(reason) = head.reuse {
            self.reuse.refuse(reason);
        }
        self.keep_alive = head.keep_alive_timeout;
        // A body that was held is not wanted: what follows on this connection would be taken for it (CVE-2024-24791).
        if !self.upload.is_done()
            && (self.upload.is_held()
                || head.status.as_u16() >= 400
                || head.reuse == Reuse::No(CloseReason::PeerAsked))
        {
            self.upload.stop();
            self.reuse.refuse(CloseReason::EarlyResponse);
        }
        let rest = self.buffer.get(head.len..).unwrap_or_default();
        let whole = whole_body(head.framing, rest, &self.limits)
            .filter(|whole| self.upload.is_done() || whole.wire == 0);
        let Some(whole) = whole else {
            let kept = self.heads.keep(head, &self.buffer, &[]);
            self.buffer.advance(head.len);
            let decoder = BodyDecoder::new(head.framing, &self.limits);
            // A body that says that it is large gets large reads from the start. The claim costs no memory that is not read into.
            if let Some(left) = decoder.left().filter(|left| *left >= LARGE_BODY) {
                self.read_size = usize::try_from(left)
                    .unwrap_or(LARGEST_READ)
                    .min(LARGEST_READ);
            }
            self.stage = Stage::Body {
                decoder,
                next: None,
            };
            self.wait = None;
            return Ok(Answer {
                head: kept,
                body: AnswerBody::Streaming,
                trailers: None,
            });
        };
        let kept = self.heads.keep(head, &self.buffer, &whole.data);
        let trailers = whole.trailers;
        let used = head.len + whole.wire;
        self.buffer.advance(used);
        self.finish();
        Ok(Answer {
            head: kept,
            body: AnswerBody::Kept,
            trailers,
        })
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            // What is left of the upload moves along with the reads of the body (ruling 6).
            if !self.upload.is_done() {
                self.poll_upload(cx)?;
            }
            let Stage::Body { decoder, next } = &mut self.stage else {
                return Poll::Ready(Ok(None));
            };
            let step = match next.take() {
                Some((skip, len)) => Ok(BodyStep::Data { skip, len }),
                None => decoder.step(&self.buffer),
            };
            match step.map_err(|error| self.decode_error(error, Phase::Read))? {
                BodyStep::Data { skip, len } => {
                    self.buffer.advance(skip);
                    let data = self.buffer.split_to(len).freeze();
                    self.look_for_end();
                    return Poll::Ready(Ok(Some(data)));
                }
                BodyStep::End { skip, trailers } => {
                    self.buffer.advance(skip);
                    self.trailers = trailers;
                    self.finish();
                    return Poll::Ready(Ok(None));
                }
                BodyStep::NeedMore { skip } => {
                    self.buffer.advance(skip);
                    let filled = ready!(self.poll_fill(cx));
                    match filled {
                        Ok(0) => return Poll::Ready(self.ended_in_body(None)),
                        Ok(_) => {}
                        Err(error) => return Poll::Ready(self.ended_in_body(Some(error))),
                    }
                }
            }
        }
    }

    /// The connection goes back at the poll that yields the last byte, not at the one after (spec pool R-REL-4): if the end
    /// is in the buffer already it is read now.
    fn look_for_end(&mut self) {
        let Stage::Body { decoder, next } = &mut self.stage else {
            return;
        };
        if !decoder.is_done() && self.buffer.is_empty() {
            return;
        }
        match decoder.step(&self.buffer) {
            Ok(BodyStep::Data { skip, len }) => *next = Some((skip, len)),
            Ok(BodyStep::NeedMore { skip }) => self.buffer.advance(skip),
            Ok(BodyStep::End { skip, trailers }) => {
                self.buffer.advance(skip);
                self.trailers = trailers;
                self.finish();
            }
            // The decoder stays failed and says so at the next poll; the data before it is good.
            Err(_) => {}
        }
    }

    /// The end of the connection within a body: an end only where nothing else marks one.
    fn ended_in_body(&mut self, error: Option<io::Error>) -> Result<Option<Bytes>> {
        let Stage::Body { decoder, .. } = &self.stage else {
            return Ok(None);
        };
        let until_close = matches!(decoder, BodyDecoder::UntilClose);
        match error {
            Some(error) if !is_end(&error) => return Err(self.io_error(error, Phase::Read)),
            Some(_) if until_close => {
                return Err(self.decode_error(Rule::NoCloseNotify.into(), Phase::Read));
            }
            _ => {}
        }
        let end = decoder.end_of_connection();
        end.map_err(|error| self.decode_error(error, Phase::Read))?;
        self.finish();
        Ok(None)
    }

    /// The response is over. Bytes that follow it were not asked for, and are never parsed as a next response.
    fn finish(&mut self) {
        if !self.buffer.is_empty() {
            self.reuse.refuse(CloseReason::LeftOver);
        }
        if !self.upload.is_done() {
            self.reuse.refuse(CloseReason::EarlyResponse);
        }
        self.stage = Stage::Done;
    }

    /// Reads into spare room: a short read tells tokio that the socket is empty (spec pool R-LIVE-1).
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let spare = self.buffer.capacity() - self.buffer.len();
        if spare < LEAST_ROOM || (spare < self.read_size && self.read_size > FIRST_READ) {
            self.buffer.reserve(self.read_size);
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let read = ready!(pin!(self.socket.read_buf(&mut self.buffer)).poll(cx));
        if let Ok(read) = read {
            self.received += read as u64;
            // A read that fills its room was cut off by it: a large body is on its way.
            if read == room && matches!(self.stage, Stage::Body { .. }) {
                self.read_size = (self.read_size * 2).min(LARGEST_READ);
            }
        }
        Poll::Ready(read)
    }

    /// Waits for the limit of what is being waited for; ready without an error if a held body has waited long enough.
    fn poll_limit(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &Deadline<'_>,
        phase: Phase,
        wait: Wait,
        progress: bool,
    ) -> Poll<Option<Error>> {
        // The first wait of an exchange counts from its beginning, which saves a look at the clock.
        let first = self.wait.is_none() && wait != Wait::Read;
        if !first && (progress || self.wait != Some(wait)) {
            self.since = Instant::now();
        }
        self.wait = Some(wait);
        if wait == Wait::Read {
            self.timer.stay_here();
        }
        if self.keeper.tether.poll_cut(cx).is_ready() {
            return Poll::Ready(Some(self.cut_off(phase)));
        }
        let since = (wait != Wait::Starved).then_some(self.since);
        let limit = deadline.next(phase, since);
        if wait == Wait::Continue {
            let enough = self.since + CONTINUE_WAIT;
            if limit.as_ref().is_none_or(|limit| enough < limit.at) {
                return self.timer.poll(cx, enough).map(|()| None);
            }
        }
        let Some(limit) = limit else {
            return Poll::Pending;
        };
        ready!(self.timer.poll(cx, limit.at));
        Poll::Ready(Some(Error::timeout(limit.expired, self.sent())))
    }

    fn cut_off(&self, phase: Phase) -> Error {
        Error::new(ErrorKind::ClientClosed, Some(phase), self.sent())
            .saying("the client was closed, and this call was not done at the deadline")
    }

    fn sent(&self) -> Sent {
        if self.upload.written() == 0 {
            Sent::Nothing
        } else if self.upload.sent_all().is_some() {
            Sent::All
        } else {
            Sent::Part
        }
    }

    fn decode_error(&self, error: DecodeError, phase: Phase) -> Error {
        let kind = if error.is_size() {
            ErrorKind::TooLarge
        } else {
            ErrorKind::Protocol
        };
        let io_kind = error.is_cut_short().then_some(io::ErrorKind::UnexpectedEof);
        Error::new(kind, Some(phase), self.sent())
            .because(error)
            .with_io_kind(io_kind)
    }

    fn io_error(&self, error: io::Error, phase: Phase) -> Error {
        match tls_failure(error) {
            Ok(failure) => self.tls_error(failure, phase),
            Err(error) => Error::new(ErrorKind::Io, Some(phase), self.sent()).because(error),
        }
    }

    fn tls_error(
        &self,
        failure: impl std::error::Error + Send + Sync + 'static,
        phase: Phase,
    ) -> Error {
        Error::new(ErrorKind::Tls, Some(phase), self.sent())
            .because(failure)
            .with_io_kind(Some(io::ErrorKind::InvalidData))
    }
}

/// The reason as it is counted.
fn close_cause(reason: CloseReason) -> CloseCause {
    match reason {
        CloseReason::PeerAsked => CloseCause::PeerAsked,
        CloseReason::WeAsked => CloseCause::WeAsked,
        CloseReason::Http10 => CloseCause::Http10,
        CloseReason::UntilClose => CloseCause::UntilClose,
        CloseReason::LengthAndChunked | CloseReason::LenientHead => CloseCause::DoubtfulFraming,
        CloseReason::LeftOver => CloseCause::Unsolicited,
        CloseReason::EarlyResponse => CloseCause::EarlyResponse,
        CloseReason::Switched => CloseCause::Upgraded,
    }
}

/// A body that is complete in the buffer.
struct WholeBody<'a> {
    data: Cow<'a, [u8]>,
    /// Its bytes with framing.
    wire: usize,
    trailers: Option<Box<HeaderMap>>,
}

/// The body, if all of it is in `rest`. Only a body of several chunks is copied. One that is malformed is not whole: its
/// reader meets the error, so that the head is not lost with it.
fn whole_body<'a>(framing: Framing, rest: &'a [u8], limits: &Limits) -> Option<WholeBody<'a>> {
    let whole = |data: Cow<'a, [u8]>, wire, trailers| {
        Some(WholeBody {
            data,
            wire,
            trailers,
        })
    };
    match framing {
        Framing::None => whole(Cow::Borrowed(&[]), 0, None),
        Framing::Length(length) => {
            let data = rest.get(..usize::try_from(length).ok()?)?;
            whole(Cow::Borrowed(data), data.len(), None)
        }
        Framing::UntilClose => None,
        Framing::Chunked => {
            let mut decoder = ChunkedDecoder::new(limits);
            let mut data = Cow::Borrowed(&[][..]);
            let mut at = 0;
            loop {
                let left = rest.get(at..).unwrap_or_default();
                match decoder.step(left).ok()? {
                    ChunkedStep::Data { skip, len } => {
                        let piece = left.get(skip..skip + len).unwrap_or_default();
                        if data.is_empty() {
                            data = Cow::Borrowed(piece);
                        } else {
                            data.to_mut().extend_from_slice(piece);
                        }
                        at += skip + len;
                    }
                    ChunkedStep::NeedMore { .. } => return None,
                    ChunkedStep::End { skip, trailers } => return whole(data, at + skip, trailers),
                }
            }
        }
    }
}

/// An end of the stream that rustls reports as an error because no close_notify came before it.
fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

/// How long a body is held for a server that does not say whether it wants it; many do not know Expect.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Room for the first read: a small response with room to spare.
const FIRST_READ: usize = 8 * 1024;

/// With less spare room than this a read is not worth its system call.
const LEAST_ROOM: usize = 2 * 1024;

/// A body from this length on is large.
const LARGE_BODY: u64 = 64 * 1024;

/// Reads of a large body grow up to this.
const LARGEST_READ: usize = 64 * 1024;

/// Reads of a body that nobody wants.
const DISCARD_READ: usize = 16 * 1024;

/// A buffer that grew beyond this is not kept while the connection is idle.
const LARGEST_KEPT: usize = 16 * 1024;
