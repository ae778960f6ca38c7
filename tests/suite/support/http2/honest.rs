//! A small server that keeps every rule: it answers, echoes, respects windows and limits, and says when the client does not.
//!
//! It serves all connections of a world, or one whose beginning was a test's. What it saw is in the [`Report`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::frames::{
    ACK, DATA, END_STREAM, Frame, Frames, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS,
    NO_ERROR, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::report::{Command, Report, Told};
use super::session::{Head, Session};
use crate::support::peer::World;

/// How a server answers. The default echoes: a request without a body gets its path.
#[derive(Clone)]
pub(crate) struct Honest {
    /// Of the SETTINGS it begins with.
    pub(crate) max_streams: Option<u32>,
    /// Of the SETTINGS it begins with: what it takes of a body before it says that it takes more.
    pub(crate) window: Option<u32>,
    /// After so many requests on a connection it says GOAWAY, and closes when those are answered.
    pub(crate) goaway_after: Option<usize>,
    pub(crate) answer: Arc<dyn Fn(&Request) -> Reply + Send + Sync>,
}

impl Default for Honest {
    fn default() -> Self {
        Self {
            max_streams: None,
            window: None,
            goaway_after: None,
            answer: Arc::new(echo),
        }
    }
}

/// The answer of the default server.
pub(crate) fn echo(request: &Request) -> Reply {
    if request.body.is_empty() && request.trailers.is_empty() {
        return Reply::new(request.head.path());
    }
    let trailers = request.trailers.clone();
    Reply::new(request.body.as_slice()).trailers(trailers)
}

/// A request that has come whole.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The number of the connection it came on, from 0.
    pub(crate) connection: usize,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

/// A response, and when it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    fields: Vec<(String, String)>,
    body: VecDeque<u8>,
    trailers: Vec<(String, String)>,
    when: When,
}

#[derive(Clone, Copy, Debug)]
enum When {
    After(Duration),
    Told,
}

impl Reply {
    /// Status 200 and this body, with its length.
    pub(crate) fn new(body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        Self {
            fields: vec![
                (":status".to_owned(), "200".to_owned()),
                ("content-length".to_owned(), body.len().to_string()),
            ],
            body: body.to_vec().into(),
            trailers: Vec::new(),
            when: When::After(Duration::ZERO),
        }
    }

    /// The same with another status.
    pub(crate) fn status(mut self, status: u16) -> Self {
        self.fields[0].1 = status.to_string();
        self
    }

    /// The same with one more field.
    pub(crate) fn field(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn trailers(mut self, trailers: Vec<(String, String)>) -> Self {
        self.trailers = trailers;
        self
    }

    /// Sent so much later.
    pub(crate) fn after(mut self, time: Duration) -> Self {
        self.when = When::After(time);
        self
    }

    /// Sent when a test [releases](Report::release) it.
    pub(crate) fn held(mut self) -> Self {
        self.when = When::Told;
        self
    }
}

impl Honest {
    /// Serves every further connection of a world.
    pub(crate) fn serve(self, world: &World) -> Report {
        let report = Report::default();
        self.serve_into(world, &report);
        report
    }

    /// As [`Honest::serve`], with a report that others write as well.
    pub(crate) fn serve_into(self, world: &World, report: &Report) {
        let (world, report) = (world.clone(), report.clone());
        tokio::spawn(async move {
            loop {
                let connection = world.accept().await;
                let (server, report) = (self.clone(), report.clone());
                tokio::spawn(async move {
                    let session = Session::new(connection).await;
                    session.send(server.settings());
                    server.go_on(session, report).await;
                });
            }
        });
    }

    /// The SETTINGS it begins with.
    pub(crate) fn settings(&self) -> Frames {
        let mut settings = Vec::new();
        if let Some(streams) = self.max_streams {
            settings.push((MAX_CONCURRENT_STREAMS, streams));
        }
        if let Some(window) = self.window {
            settings.push((INITIAL_WINDOW_SIZE, window));
        }
        Frames::new().settings(&settings)
    }

    /// Serves the rest of a connection. Frames of streams of before are ignored.
    pub(crate) async fn go_on(self, session: Session, report: Report) {
        let number = session.number;
        let told = report.watch(&session);
        let mut engine = Engine::new(self, session, report.clone());
        engine.run(told).await;
        report.end(number);
    }
}

/// One connection at work.
struct Engine {
    server: Honest,
    session: Session,
    report: Report,
    /// Requests that have not come whole, and how much of each body may still come.
    coming: HashMap<u32, (Request, i64)>,
    /// Replies that wait for their time, and those that wait to be told.
    due: BTreeMap<(Instant, u32), Reply>,
    held: VecDeque<(u32, Reply)>,
    /// Bodies on their way, the next to be served first.
    going: VecDeque<(u32, Reply)>,
    /// What the client takes on the connection and on each stream.
    credit: i64,
    credits: HashMap<u32, i64>,
    initial_credit: i64,
    /// What we take on the connection, and on a stream to begin with.
    allowed: i64,
    initial_allowed: i64,
    limit: Option<u32>,
    /// Limits that the client has not acknowledged; the first SETTINGS changed none.
    limits: VecDeque<Option<u32>>,
    last_stream: u32,
    requests: usize,
    going_away: bool,
}

impl Engine {
    fn new(server: Honest, session: Session, report: Report) -> Self {
        Self {
            coming: HashMap::new(),
            due: BTreeMap::new(),
            held: VecDeque::new(),
            going: VecDeque::new(),
            credit: 65_535,
            credits: HashMap::new(),
            initial_credit: 65_535,
            allowed: 65_535,
            initial_allowed: server.window.map_or(65_535, i64::from),
            limit: None,
            limits: VecDeque::from([server.max_streams]),
            last_stream: 0,
            requests: 0,
            going_away: false,
            server,
            session,
            report,
        }
    }

    async fn run(&mut self, mut told: Told) {
        loop {
            let next = self.due.keys().next().map(|(at, _)| *at);
            tokio::select! {
                frame = self.session.frame() => match frame {
                    Some(frame) => self.take(frame).await,
                    None => return,
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    if let Some(((_, stream), reply)) = self.due.pop_first() {
                        self.start(stream, reply);
                    }
                }
                Some(command) = told.next() => self.obey(command),
            }
            self.send_bodies();
            let open = self.open();
            if self.going_away && open == 0 {
                return;
            }
            self.report.counted(self.session.number, open);
        }
    }

    fn open(&self) -> usize {
        self.coming.len() + self.due.len() + self.held.len() + self.going.len()
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Say(frames) => self.session.send(frames),
            Command::Limit(streams) => {
                let settings = [(MAX_CONCURRENT_STREAMS, streams)];
                self.session.send(Frames::new().settings(&settings));
                self.limits.push_back(Some(streams));
            }
            Command::Release(count) => {
                for _ in 0..count {
                    if let Some((stream, reply)) = self.held.pop_front() {
                        self.start(stream, reply);
                    }
                }
            }
        }
    }

    async fn take(&mut self, frame: Frame) {
        let (stream, ends) = (frame.stream, frame.flags & END_STREAM != 0);
        match frame.kind {
            HEADERS => {
                if let Some(head) = self.session.head_of(frame).await {
                    self.take_head(head);
                }
            }
            DATA => self.take_data(stream, &frame, ends),
            RST_STREAM => {
                self.coming.remove(&stream);
                self.due.retain(|(_, other), _| *other != stream);
                self.held.retain(|(other, _)| *other != stream);
                self.going.retain(|(other, _)| *other != stream);
            }
            SETTINGS if frame.flags & ACK != 0 => {
                if let Some(Some(limit)) = self.limits.pop_front() {
                    self.limit = Some(limit);
                }
            }
            SETTINGS => {
                let windows = frame
                    .settings()
                    .filter(|(name, _)| *name == INITIAL_WINDOW_SIZE);
                for (_, window) in windows {
                    let more = i64::from(window) - self.initial_credit;
                    self.initial_credit += more;
                    self.credits.values_mut().for_each(|credit| *credit += more);
                }
            }
            WINDOW_UPDATE if stream == 0 => self.credit += frame.increment(),
            WINDOW_UPDATE => {
                if let Some(credit) = self.credits.get_mut(&stream) {
                    *credit += frame.increment();
                }
            }
            _ => {}
        }
    }

    fn take_head(&mut self, head: Head) {
        let stream = head.stream;
        if let Some((mut request, _)) = self.coming.remove(&stream) {
            if !head.end {
                self.violation(format!("trailers of stream {stream} without END_STREAM"));
            }
            request.trailers = head.fields;
            return self.answer(request);
        }
        if stream <= self.last_stream || stream % 2 == 0 {
            return self.violation(format!("stream {stream} after {}", self.last_stream));
        }
        self.last_stream = stream;
        if self.going_away {
            return;
        }
        if self
            .limit
            .is_some_and(|limit| self.open() >= limit as usize)
        {
            self.violation(format!("stream {stream} is over the limit"));
            return self.session.send(Frames::new().rst(stream, REFUSED_STREAM));
        }
        self.credits.insert(stream, self.initial_credit);
        self.requests += 1;
        if self.server.goaway_after == Some(self.requests) {
            self.going_away = true;
            self.session.send(Frames::new().goaway(stream, NO_ERROR));
        }
        let ends = head.end;
        let request = Request {
            connection: self.session.number,
            head,
            body: Vec::new(),
            trailers: Vec::new(),
        };
        if ends {
            self.answer(request);
        } else {
            self.coming.insert(stream, (request, self.initial_allowed));
        }
    }

    fn take_data(&mut self, stream: u32, frame: &Frame, ends: bool) {
        let length = i64::try_from(frame.payload.len()).expect("24 bits");
        self.allowed -= length;
        if self.allowed < 0 {
            self.violation(format!(
                "{} bytes beyond the connection's window",
                -self.allowed
            ));
        }
        if length > 0 {
            self.allowed += length;
            let increment = u32::try_from(length).expect("24 bits");
            self.session.send(Frames::new().window(0, increment));
        }
        let Some((request, allowed)) = self.coming.get_mut(&stream) else {
            return;
        };
        *allowed -= length;
        let beyond = *allowed < 0;
        request.body.extend_from_slice(frame.content());
        if length > 0 && !ends {
            *allowed += length;
            let increment = u32::try_from(length).expect("24 bits");
            self.session.send(Frames::new().window(stream, increment));
        }
        if beyond {
            self.violation(format!("bytes beyond the window of stream {stream}"));
        }
        if ends {
            if let Some((request, _)) = self.coming.remove(&stream) {
                self.answer(request);
            }
        }
    }

    fn answer(&mut self, request: Request) {
        let stream = request.head.stream;
        let reply = (self.server.answer)(&request);
        self.report.came(request);
        match reply.when {
            When::Told => self.held.push_back((stream, reply)),
            When::After(Duration::ZERO) => self.start(stream, reply),
            When::After(time) => {
                self.due.insert((Instant::now() + time, stream), reply);
            }
        }
    }

    fn start(&mut self, stream: u32, reply: Reply) {
        let ends = reply.body.is_empty() && reply.trailers.is_empty();
        let flags = if ends { END_STREAM } else { 0 };
        let head = Frames::new().head(stream, flags, &borrowed(&reply.fields));
        self.session.send(head);
        if ends {
            self.credits.remove(&stream);
        } else {
            self.going.push_back((stream, reply));
        }
    }

    /// Sends of every body what the windows allow, a frame of each in turn.
    fn send_bodies(&mut self) {
        let mut stuck = 0;
        while stuck < self.going.len() {
            let Some((stream, mut reply)) = self.going.pop_front() else {
                return;
            };
            let credit = self.credits.get(&stream).copied().unwrap_or_default();
            let room = usize::try_from(credit.min(self.credit).min(16_384)).unwrap_or_default();
            let count = room.min(reply.body.len());
            let piece: Vec<u8> = reply.body.drain(..count).collect();
            let sent = i64::try_from(count).expect("a frame's length");
            self.credit -= sent;
            *self.credits.entry(stream).or_default() -= sent;
            let ends = reply.body.is_empty() && reply.trailers.is_empty();
            if count > 0 || ends {
                let flags = if ends { END_STREAM } else { 0 };
                self.session
                    .send(Frames::new().frame(DATA, flags, stream, piece));
            }
            if reply.body.is_empty() && !ends {
                let trailers = borrowed(&reply.trailers);
                self.session
                    .send(Frames::new().head(stream, END_STREAM, &trailers));
            }
            if reply.body.is_empty() {
                self.credits.remove(&stream);
                continue;
            }
            stuck = if count == 0 { stuck + 1 } else { 0 };
            self.going.push_back((stream, reply));
        }
    }

    fn violation(&self, what: String) {
        let number = self.session.number;
        self.report.violation(format!("{number}: {what}"));
    }
}

fn borrowed(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}
