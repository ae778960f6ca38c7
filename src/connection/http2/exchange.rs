//! One request and its response on a stream, driven by the caller's own task (spec http2 rule 9).
//!
//! ```text
//!  on ──▶ begin ──▶ poll_head: send and receive at once ──▶ Answer, complete ──▶ end
//!                                                       └─▶ Answer, streaming ──▶ poll_data … None ──▶ end
//! ```
//! It holds the handles of its stream and nothing of the connection. Whenever it is dropped, h2 resets what is left of the
//! stream, and the session goes on. The pool lends it a slot of the session for as long as it lives.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::time::Instant;

use super::failure::{self, Blame, Facts, StreamError, Where};
use super::message::{self, Breach, Heads};
use super::session::Session;
use super::shared::{News, Shared};
use super::tunnel::Tunnel;
use super::upload::{Upload, UploadError};
use crate::body::Body;
use crate::codec::BodyLength;
use crate::connection::{Answer, AnswerBody, Refusal, Timer, Writing, body_length};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::head::{Asks, DefaultFields, RequestHead};
use crate::socket::{ConnectionInfo, Socket};

/// An exchange on a slot of a session. Between two of them it is kept without a session, for its memory and its timer.
#[derive(Default)]
pub(crate) struct Exchange {
    session: Option<Hold>,
    /// Opens streams. Kept for the next exchange, and never while it has queued a request that has not left: it would hold the
    /// slot of that one for as long as it lives (spec http2 section 1).
    opener: Option<SendRequest<Bytes>>,
    stage: Stage,
    upload: Upload,
    timer: Timer,
    asks: Option<Arc<Asks>>,
    heads: Heads,
    /// Whether there is, or was, a stream.
    has_stream: bool,
    is_head: bool,
    switches: bool,
    /// Heads of the session, before its stream was opened, that may have been interim ones.
    interim_before: u32,
    /// The peer's limit on streams was known when this one was opened.
    settled: bool,
    /// Whether the session had lent no slot before.
    is_first: bool,
    left: Option<u64>,
    /// The response may not have content, whatever comes.
    is_bare: bool,
    ahead: Ahead,
    /// An error that was met while the end was looked for; what came before it is good.
    late: Option<StreamError>,
    trailers: Option<Box<HeaderMap>>,
    refusal: Option<Refusal>,
    /// The session has failed, and not the stream alone.
    session_failed: bool,
    wait: Option<Wait>,
    since: Option<Instant>,
    /// Reads of the session when the wait began.
    reads: u64,
}

/// A slot of a session. Its drop takes the exchange off the session's books.
struct Hold {
    session: Arc<Session>,
    /// The session counts the exchange.
    began: bool,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.began {
            self.session.shared.end();
        }
    }
}

/// Where the exchange stands.
#[derive(Default)]
enum Stage {
    /// There is none.
    #[default]
    Idle,
    /// The request waits for the peer's settings, which say whether it may be made (RFC 8441 section 3).
    Unsettled(Box<Request<()>>),
    /// Up to the final head.
    Head(ResponseFuture),
    /// In the body.
    Body(RecvStream),
    /// The stream belongs to another protocol.
    Switched(RecvStream),
    /// The response is complete.
    Done,
    /// Something failed.
    Failed,
}

/// Data that was met while the end was looked for.
#[derive(Default)]
struct Ahead {
    first: Option<Bytes>,
    second: Option<Bytes>,
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

/// A piece of the body, or what stands in its place.
enum Piece {
    Data(Bytes),
    End,
}

impl Exchange {
    /// Takes a slot of a session, without a word to the peer.
    pub(super) fn on(&mut self, session: Arc<Session>, is_first: bool) {
        self.session = Some(Hold {
            session,
            began: false,
        });
        self.is_first = is_first;
    }

    /// See [`Connection::begin`](crate::connection::Connection::begin).
    pub(crate) fn begin(
        &mut self,
        head: &RequestHead,
        defaults: &DefaultFields,
        body: &mut Body,
        now: Instant,
    ) -> Result<()> {
        let length = body_length(body);
        let encoded = message::encode(head, defaults, length).map_err(Error::invalid_request)?;
        self.asks.clone_from(&head.asks);
        self.is_head = head.method == Method::HEAD;
        self.switches = encoded.switches;
        self.since = Some(now);
        let hold = self.session.as_mut().expect(LENT);
        hold.began = true;
        let shared = &hold.session.shared;
        self.interim_before = shared.maybe_interim();
        if shared.begin(now) == 0
            && now.saturating_duration_since(shared.last_read()) >= LONG_SILENCE
        {
            shared.call(News::LONG_IDLE);
        }
        self.stage = Stage::Failed;
        if head.upgrade().is_some() {
            self.stage = Stage::Unsettled(Box::new(encoded.request));
            return Ok(());
        }
        if length == BodyLength::None {
            let stream = self.open(encoded.request, !encoded.switches)?;
            self.upload.none(stream);
        } else {
            let stream = match self.open(encoded.request, false) {
                Ok(stream) => stream,
                Err(error) => {
                    self.upload.keep(body);
                    return Err(error);
                }
            };
            let held = encoded.expects_continue;
            self.upload.begin(stream, body, encoded.length, held);
        }
        Ok(())
    }

    /// Opens the stream. The slot has made sure that the peer allows one more.
    fn open(&mut self, request: Request<()>, end: bool) -> Result<SendStream<Bytes>> {
        let session = &self.session.as_ref().expect(LENT).session;
        let mut opener = self.opener.take().unwrap_or_else(|| session.opener());
        let opened = opener.send_request(request, end);
        // Not so when the peer has taken slots back.
        let mut cx = Context::from_waker(Waker::noop());
        if opened.is_ok() && opener.poll_ready(&mut cx).is_ready() {
            self.opener = Some(opener);
        }
        match opened {
            Ok((response, stream)) => {
                self.has_stream = true;
                self.settled = self.shared().is_settled();
                self.stage = Stage::Head(response);
                Ok(stream)
            }
            Err(error) => Err(self.fail(error.into(), Where::Opening)),
        }
    }

    /// See [`Connection::poll_head`](crate::connection::Connection::poll_head).
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &Deadline<'_>,
    ) -> Poll<Result<Answer>> {
        if let Err(error) = self.begin_settled(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            let before = self.upload.sent();
            let writing = self.poll_upload(cx)?;
            let (wait, phase) = match writing {
                Writing::Done => (Wait::Head, Phase::Head),
                Writing::Blocked => (Wait::Write, Phase::Write),
                Writing::Starved => (Wait::Starved, Phase::Write),
                Writing::Held => (Wait::Continue, Phase::Head),
            };
            match self.poll_final_head(cx) {
                Poll::Ready(Err(error)) => {
                    self.give_up();
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(answer) => return Poll::Ready(answer),
                Poll::Pending => {}
            }
            if writing == Writing::Held && !self.upload.is_held() {
                continue;
            }
            let progress = self.upload.sent() != before;
            match ready!(self.poll_limit(cx, deadline, phase, wait, progress)) {
                Some(error) => {
                    self.give_up();
                    return Poll::Ready(Err(error));
                }
                None => self.upload.let_go(),
            }
        }
    }

    /// Makes a request that has waited for the peer's settings.
    fn begin_settled(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if !matches!(self.stage, Stage::Unsettled(_)) || self.shared().await_settings(cx.waker()) {
            return Ok(());
        }
        let session = Arc::clone(self.session());
        let Stage::Unsettled(request) = std::mem::replace(&mut self.stage, Stage::Failed) else {
            return Ok(());
        };
        if session.shared.is_settled() && !session.takes_other_protocols() {
            return Err(Error::new(ErrorKind::Protocol, Some(Phase::Head), Sent::Nothing).saying(
                "the server does not take other protocols over HTTP/2 (SETTINGS_ENABLE_CONNECT_PROTOCOL, RFC 8441 section 3)",
            ));
        }
        let stream = self.open(*request, false)?;
        self.upload.none(stream);
        Ok(())
    }

    fn poll_final_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer>> {
        while self.looks_for_interim() {
            let Stage::Head(response) = &mut self.stage else {
                return Poll::Pending;
            };
            match ready!(response.poll_informational(cx)) {
                Some(Ok(interim)) => self.interim(&interim)?,
                Some(Err(error)) => return Poll::Ready(Err(self.fail(error.into(), Where::Head))),
                None => break,
            }
        }
        let Stage::Head(response) = &mut self.stage else {
            return Poll::Pending;
        };
        match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => Poll::Ready(self.answer(cx, response)),
            Err(error) => Poll::Ready(Err(self.fail(error.into(), Where::Head))),
        }
    }

    /// Whether there may be interim responses that h2 must not skip. A question to it costs as much as the final head itself, so
    /// it is asked only if somebody waits for one, or if the session has met a head since that may be one. What comes in this
    /// very moment is skipped, as RFC 9110 section 15.2 allows; the next one is seen and counted again.
    fn looks_for_interim(&self) -> bool {
        let asks = self.asks.as_ref();
        self.upload.is_held()
            || asks.is_some_and(|asks| asks.on_informational.is_some())
            || self.shared().maybe_interim() != self.interim_before
    }

    /// An interim response: told, and otherwise skipped.
    fn interim(&mut self, interim: &Response<()>) -> Result<()> {
        let session = &self.session.as_ref().expect(LENT).session;
        let admitted = self
            .heads
            .interim(interim.status(), interim.headers(), &session.limits);
        admitted.map_err(|breach| self.breach(breach, Phase::Head))?;
        if interim.status() == StatusCode::CONTINUE {
            self.upload.let_go();
        }
        let asks = self.asks.as_ref();
        if let Some(tell) = asks.and_then(|asks| asks.on_informational.as_ref()) {
            let kept = self.heads.keep(interim.status(), &[]);
            tell(&kept.to_interim());
        }
        Ok(())
    }

    /// Takes the head, with the body if all of it is there (design D3).
    fn answer(&mut self, cx: &mut Context<'_>, response: Response<RecvStream>) -> Result<Answer> {
        let (parts, stream) = response.into_parts();
        let session = &self.session.as_ref().expect(LENT).session;
        session.shared.note_served();
        let admitted = self.heads.admit(&parts.headers, &session.limits);
        let length = admitted.map_err(|breach| self.breach(breach, Phase::Head))?;
        let status = parts.status;
        // All of it that is kept was copied; its memory serves for what comes next.
        drop(parts);
        if self.switches && status.is_success() {
            self.stage = Stage::Switched(stream);
            return Ok(Answer {
                head: self.heads.keep(status, &[]),
                body: AnswerBody::Switched,
                trailers: None,
            });
        }
        if !self.upload.is_done() && (self.upload.is_held() || status.as_u16() >= 400) {
            self.upload.stop();
        }
        self.is_bare = matches!(status.as_u16(), 204 | 304);
        let has_content = !self.is_head && !self.is_bare;
        self.left = length.filter(|_| has_content);
        self.wait = None;
        // One that says it has content is asked for that first.
        let is_over = self.left.is_none_or(|left| left == 0) && stream.is_end_stream();
        self.stage = Stage::Body(stream);
        if is_over {
            self.finish();
        } else {
            self.look_ahead(cx);
        }
        if let Some(StreamError::Breach(breach @ Breach::Content)) = self.late {
            return Err(self.breach(breach, Phase::Head));
        }
        if let (Stage::Done, None) = (&self.stage, &self.ahead.second) {
            let data = self.ahead.first.take().unwrap_or_default();
            return Ok(Answer {
                head: self.heads.keep(status, &data),
                body: AnswerBody::Kept,
                trailers: self.trailers.take(),
            });
        }
        self.upload.rest();
        Ok(Answer {
            head: self.heads.keep(status, &[]),
            body: AnswerBody::Streaming,
            trailers: None,
        })
    }

    /// Looks whether the body is there already.
    fn look_ahead(&mut self, cx: &mut Context<'_>) {
        match self.poll_stream(cx) {
            Poll::Ready(Ok(Piece::Data(data))) => {
                self.ahead.first = Some(data);
                self.find_end(cx);
            }
            // The head is good; whoever reads the body meets the error.
            Poll::Ready(Err(error)) => self.late = Some(error),
            Poll::Ready(Ok(Piece::End)) | Poll::Pending => {}
        }
    }

    /// The slot is given back at the poll that yields the last byte, not at the one after (spec pool R-REL-4).
    fn find_end(&mut self, cx: &mut Context<'_>) {
        // An error that was met behind the data comes after it.
        if self.late.is_some() || !matches!(self.stage, Stage::Body(_)) {
            return;
        }
        // A reader that is to get a large body in pieces need not look for its end at each of them.
        if self.left.is_some_and(|left| left > 0) {
            return;
        }
        match self.poll_stream(cx) {
            Poll::Ready(Ok(Piece::Data(data))) => {
                let slot = match &self.ahead.first {
                    None => &mut self.ahead.first,
                    Some(_) => &mut self.ahead.second,
                };
                *slot = Some(data);
            }
            Poll::Ready(Err(error)) => self.late = Some(error),
            Poll::Ready(Ok(Piece::End)) | Poll::Pending => {}
        }
    }

    /// See [`Connection::poll_data`](crate::connection::Connection::poll_data).
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &Deadline<'_>,
    ) -> Poll<Result<Option<Bytes>>> {
        // What is left of the upload moves along with the reads of the body (ruling 6).
        if !self.upload.is_done() {
            self.poll_upload(cx)?;
        }
        if let Some(data) = self.ahead.take() {
            if self.ahead.first.is_none() {
                self.find_end(cx);
            }
            self.pause();
            return Poll::Ready(Ok(Some(data)));
        }
        match self.poll_stream(cx) {
            Poll::Ready(Ok(Piece::Data(data))) => {
                self.find_end(cx);
                self.pause();
                Poll::Ready(Ok(Some(data)))
            }
            Poll::Ready(Ok(Piece::End)) => Poll::Ready(Ok(None)),
            Poll::Ready(Err(error)) => {
                let error = self.fail(error, Where::Body);
                self.give_up();
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                let error = ready!(self.poll_limit(cx, deadline, Phase::Read, Wait::Read, false));
                self.give_up();
                Poll::Ready(error.map_or(Ok(None), Err))
            }
        }
    }

    /// The next data of the stream; behind the last the trailers are taken and the stage is `Done`.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, StreamError>> {
        if let Some(error) = self.late.take() {
            return Poll::Ready(Err(error));
        }
        let Stage::Body(stream) = &mut self.stage else {
            return Poll::Ready(Ok(Piece::End));
        };
        loop {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(_)) if self.is_bare => return Poll::Ready(Err(Breach::Content.into())),
                Some(Ok(data)) => {
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    if stream.is_end_stream() {
                        // Nobody needs to be told that the peer may send as much again.
                        self.finish();
                    } else {
                        // The caller has it, so the peer may. An error shows in the next piece.
                        let _ = stream.flow_control().release_capacity(data.len());
                    }
                    return Poll::Ready(Ok(Piece::Data(data)));
                }
                // h2 holds the length of a 304 against its empty body (spec http2 C16).
                Some(Err(error)) if self.is_bare && failure::is_empty_body(&error) => {
                    self.shared().note_library_reset();
                    self.finish();
                    return Poll::Ready(Ok(Piece::End));
                }
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => break,
            }
        }
        let trailers = match ready!(stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => {
                let limits = &self.session.as_ref().expect(LENT).session.limits;
                message::trailers(trailers, limits)?
            }
            Ok(None) => None,
            Err(error) => return Poll::Ready(Err(error.into())),
        };
        self.trailers = trailers;
        self.finish();
        Poll::Ready(Ok(Piece::End))
    }

    /// The response is over. What is left of the upload is not wanted.
    fn finish(&mut self) {
        self.stage = Stage::Done;
        self.left = Some(0);
    }

    /// Nothing on this stream can be trusted or is wanted any more.
    fn give_up(&mut self) {
        self.stage = Stage::Failed;
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<Writing> {
        if matches!(self.stage, Stage::Unsettled(_)) {
            return Ok(Writing::Done);
        }
        let error = match self.upload.poll(cx) {
            Ok(writing) => return Ok(writing),
            Err(UploadError::Source(error)) => error,
            Err(UploadError::Encode(error)) => {
                Error::new(ErrorKind::Body, Some(Phase::Write), Sent::Part).because(error)
            }
        };
        self.give_up();
        Err(error)
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
        let shared = &self.session.as_ref().expect(LENT).session.shared;
        // The first wait of an exchange counts from its beginning, which saves a look at the clock.
        let first = self.wait.is_none() && wait != Wait::Read;
        if first || progress || self.wait != Some(wait) {
            self.reads = shared.reads();
        }
        if !first && (progress || self.wait != Some(wait)) {
            self.since = Some(Instant::now());
        }
        self.wait = Some(wait);
        if wait == Wait::Read {
            self.timer.stay_here();
        }
        let since = self.since.filter(|_| wait != Wait::Starved);
        let limit = deadline.next(phase, since);
        if let Some(enough) = since
            .filter(|_| wait == Wait::Continue)
            .map(|since| since + CONTINUE_WAIT)
        {
            if limit.as_ref().is_none_or(|limit| enough < limit.at) {
                return self.timer.poll(cx, enough).map(|()| None);
            }
        }
        let Some(limit) = limit else {
            return Poll::Pending;
        };
        ready!(self.timer.poll(cx, limit.at));
        if wait != Wait::Starved && self.reads == shared.reads() {
            // The stream, or the whole session? (ruling 3 b)
            shared.call(News::SILENT);
        }
        Poll::Ready(Some(Error::timeout(limit.expired, self.sent())))
    }

    /// The stream's number; zero if there is none. h2 looks it up, so it is asked for only where something went wrong.
    fn stream(&self) -> u32 {
        self.upload
            .stream()
            .map_or(0, |stream| stream.stream_id().as_u32())
    }

    /// How much of the request was handed to the system.
    fn sent(&self) -> Sent {
        let stream = self.stream();
        if stream == 0 || self.shared().headers_written() < stream {
            Sent::Nothing
        } else if self.upload.is_complete() {
            Sent::All
        } else {
            Sent::Part
        }
    }

    /// The error of a broken rule that only we know of; the peer is told.
    fn breach(&mut self, breach: Breach, phase: Phase) -> Error {
        let reason = match breach {
            Breach::TooManyInformational { .. } => Reason::ENHANCE_YOUR_CALM,
            _ => Reason::PROTOCOL_ERROR,
        };
        let sent = self.sent();
        if let Some(stream) = self.upload.stream_mut() {
            stream.send_reset(reason);
        }
        self.give_up();
        let kind = if breach.is_size() {
            ErrorKind::TooLarge
        } else {
            ErrorKind::Protocol
        };
        Error::new(kind, Some(phase), sent).because(breach)
    }

    /// The error of a stream, with what follows from it for the session.
    fn fail(&mut self, error: StreamError, at: Where) -> Error {
        let error = match error {
            StreamError::H2(error) => error,
            StreamError::Breach(breach) => return self.breach(breach, Phase::Read),
        };
        let session = self.session();
        let failure = failure::explain(
            &error,
            &Facts {
                at,
                sent: self.sent(),
                end: session.shared.why_ended(),
                is_tls: session.info.tls.is_some(),
                head_begun: self.heads.has_interim() || session.shared.has_cut_head(self.stream()),
            },
        );
        match failure.blame {
            Blame::Stream => {}
            Blame::BrokenStream => session.shared.note_library_reset(),
            // Whoever comes next must not meet the same, even before the driver has looked.
            Blame::Session | Blame::Peer => session.shared.retire(),
        }
        if failure.refusal == Some(Refusal::Stream) && self.settled {
            session.shared.note_refused();
        }
        self.session_failed = failure.blame == Blame::Session;
        self.refusal = failure.refusal;
        self.give_up();
        failure.error
    }

    fn session(&self) -> &Arc<Session> {
        &self.session.as_ref().expect(LENT).session
    }

    fn shared(&self) -> &Shared {
        &self.session().shared
    }

    /// Whether the body was read to its end.
    pub(crate) fn is_body_done(&self) -> bool {
        matches!(self.stage, Stage::Done) && self.ahead.first.is_none()
    }

    pub(crate) fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        self.trailers.take()
    }

    pub(crate) fn body_left(&self) -> Option<u64> {
        Some(self.left? + self.ahead.len())
    }

    /// See [`Connection::sent`](crate::connection::Connection::sent).
    pub(crate) fn sent_all(&self) -> Option<u64> {
        let has_stream = match &self.stage {
            Stage::Head(_) | Stage::Body(_) | Stage::Switched(_) | Stage::Done => true,
            // The upload may still be that of the exchange before.
            Stage::Idle | Stage::Unsettled(_) | Stage::Failed => false,
        };
        (has_stream && self.upload.is_complete()).then(|| self.upload.sent())
    }

    pub(crate) fn take_unpolled_body(&mut self) -> Option<Body> {
        let body = self.upload.take_unpolled()?;
        self.upload.stop();
        Some(body)
    }

    /// Why the peer has provably not processed the request.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Whether any of the response has come.
    pub(crate) fn has_received(&self) -> bool {
        self.heads.has_interim() || matches!(self.stage, Stage::Body(_) | Stage::Done)
    }

    /// Whether the session has failed, and not the stream alone.
    pub(crate) fn session_failed(&self) -> bool {
        self.session_failed
    }

    /// Whether the session takes new streams.
    pub(crate) fn is_session_open(&self) -> bool {
        self.session().is_open()
    }

    /// Whether the session has served a response; a peer that closes before the first may do so because of the request.
    pub(crate) fn has_served(&self) -> bool {
        self.shared().has_served()
    }

    /// Whether the session had been lent to another exchange before.
    pub(crate) fn is_reused(&self) -> bool {
        !self.is_first
    }

    pub(crate) fn info(&self) -> &Arc<ConnectionInfo> {
        &self.session().info
    }

    /// The caller no longer waits for the body; the time until he asks again does not count.
    pub(crate) fn pause(&mut self) {
        self.wait = None;
        self.upload.rest();
    }

    /// The stream as a socket, after it was given to another protocol.
    pub(crate) fn take_tunnel(&mut self) -> Option<Socket> {
        let Stage::Switched(receive) = std::mem::take(&mut self.stage) else {
            return None;
        };
        let send = self.upload.take_stream()?;
        let shared = Arc::clone(&self.session().shared);
        Some(Socket::from_io(Tunnel::new(send, receive, shared)))
    }

    /// Ends the exchange: what is left of the stream is reset. Answers the bytes that the session has sent and received since
    /// the last one ended.
    pub(crate) fn end(mut self: Box<Self>) -> (u64, u64) {
        let Some(hold) = self.session.take() else {
            return (0, 0);
        };
        let shared = &hold.session.shared;
        let is_clean = matches!(self.stage, Stage::Done) && self.upload.is_complete();
        if self.has_stream && !is_clean && self.refusal.is_none() {
            shared.note_cancel();
        }
        let mut timer = std::mem::take(&mut self.timer);
        timer.come_home(shared.home);
        let heads = std::mem::take(&mut self.heads).reuse();
        let opener = self.opener.take().filter(|_| is_clean);
        // The handles of the stream go here.
        *self = Self {
            opener,
            timer,
            heads,
            ..Self::default()
        };
        let traffic = shared.take_traffic();
        // Before the hold is given up: the session may end with it, and what is kept ends with the session.
        if !shared.is_resting() {
            shared.keep(self);
        }
        traffic
    }
}

impl Ahead {
    fn take(&mut self) -> Option<Bytes> {
        let first = self.first.take();
        self.first = self.second.take();
        first
    }

    /// Bytes in it.
    fn len(&self) -> u64 {
        let pieces = self.first.iter().chain(&self.second);
        pieces.map(|piece| piece.len() as u64).sum()
    }
}

/// Why an exchange has a session: it is taken away only when the exchange ends.
const LENT: &str = "an exchange has its session until it ends";

/// How long a body is held for a server that does not say whether it wants it; many do not know Expect.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// After so long without a byte it is asked with the next request whether the peer is still there (ruling 3 c).
const LONG_SILENCE: Duration = Duration::from_secs(30);
