//! HTTP/2 over in-memory connections, against a server whose frames are made by hand.
//!
//! The rows C1 to C45 are those of the table of what a client must survive; a case is named for its row. A case is a reply to
//! the first request of a session and what must come of it: the caller's result, what the client says to the server, and
//! whether the session stays. Behind it a second request must work. Time is paused, so that what hangs runs into a limit.

mod alpn;
mod blocks;
mod bodies;
mod closing;
mod exchanges;
mod floods;
mod flow;
mod framing;
mod heads;
mod liveness;
mod noise;
mod policies;
mod replaying;
mod server;
mod sessions;
mod shrinking;
mod storms;
mod tunnels;

use std::collections::{BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use http::HeaderMap;
use sockeye::{Client, ClientBuilder, Error, ErrorKind, HttpVersions, Phase, RequestBuilder, Sent};
use tokio::runtime::Builder;
use tokio::time::Instant;

use crate::support::faults::Faults;
use crate::support::http2::{Frames, Honest, Report, Session};
use crate::support::peer::{World, settle, until};

const SECOND: Duration = Duration::from_secs(1);
const URL: &str = "http://peer.test/";

/// A client that speaks HTTP/2 at once.
fn client(world: &World) -> Client {
    builder(world).build().unwrap()
}

fn builder(world: &World) -> ClientBuilder {
    let versions = HttpVersions::Http2PriorKnowledge;
    world.builder().http_versions(versions)
}

/// A session that has served one request.
async fn served(client: &Client, world: &World) -> Session {
    let first = tokio::spawn(read(client.get(URL)));
    let mut session = Session::begin(world).await;
    session.head().await;
    session.send(Frames::new().ok(1).end(1, "first"));
    assert_eq!(first.await.unwrap().unwrap().body, b"first");
    session
}

/// A reply to the first request of a session, and what must come of it.
#[derive(Clone)]
struct Case {
    name: &'static str,
    /// What the server begins with.
    opening: Frames,
    /// What it sends when the head of the first request has come.
    reply: Frames,
    /// What it does behind that.
    end: End,
    acknowledges: bool,
    /// Whether it is too long to be read byte by byte.
    whole: bool,
    request: fn(&Client) -> RequestBuilder,
    settings: fn(ClientBuilder) -> ClientBuilder,
    outcome: Outcome,
    says: Says,
    session: Kept,
    /// What the fields of the response must be.
    fields: fn(&HeaderMap),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Closes,
    Resets,
}

#[derive(Clone, Debug)]
enum Outcome {
    Answer(u16, &'static [u8]),
    Error {
        kinds: Vec<ErrorKind>,
        phases: Vec<Phase>,
        sent: Sent,
        /// Parts of what it says.
        texts: Vec<&'static str>,
    },
}

/// What the client says to the server of its own accord.
#[derive(Clone, Debug)]
enum Says {
    Exactly(Vec<&'static str>),
    /// GOAWAY with one of these codes.
    GoAway(Vec<&'static str>),
    Anything,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Yes,
    No,
    Either,
}

/// A case that is to be answered with status 200 and no body, on a session that stays.
fn case(name: &'static str, reply: Frames) -> Case {
    Case {
        name,
        opening: Frames::new().settings(&[]),
        reply,
        end: End::Open,
        acknowledges: true,
        whole: false,
        request: |client| client.get(URL),
        settings: |builder| builder,
        outcome: Outcome::Answer(200, b""),
        says: Says::Exactly(Vec::new()),
        session: Kept::Yes,
        fields: |_| {},
    }
}

/// A case in which the stream fails and the session stays.
fn stream_error(name: &'static str, reply: Frames) -> Case {
    case(name, reply)
        .fails(ErrorKind::Protocol, Phase::Head)
        .says(&["RST_STREAM 1 PROTOCOL_ERROR"])
}

/// A case in which the session fails.
fn session_error(name: &'static str, reply: Frames) -> Case {
    case(name, reply)
        .fails(ErrorKind::Protocol, Phase::Head)
        .goes_away(&["PROTOCOL_ERROR"])
}

impl Case {
    fn opening(mut self, opening: Frames) -> Self {
        self.opening = opening;
        self
    }

    fn closes(mut self) -> Self {
        self.end = End::Closes;
        self.session = Kept::No;
        self
    }

    fn resets(mut self) -> Self {
        self.end = End::Resets;
        self.session = Kept::No;
        self
    }

    fn silent(mut self) -> Self {
        self.acknowledges = false;
        self
    }

    fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    fn request(mut self, request: fn(&Client) -> RequestBuilder) -> Self {
        self.request = request;
        self
    }

    fn answers(mut self, status: u16, body: &'static [u8]) -> Self {
        self.outcome = Outcome::Answer(status, body);
        self
    }

    fn fields(mut self, fields: fn(&HeaderMap)) -> Self {
        self.fields = fields;
        self
    }

    fn fails(self, kind: ErrorKind, phase: Phase) -> Self {
        self.fails_as(&[kind], &[phase])
    }

    /// Fails as one of these; which one depends on who sees it first.
    fn fails_as(mut self, kinds: &[ErrorKind], phases: &[Phase]) -> Self {
        self.outcome = Outcome::Error {
            kinds: kinds.to_vec(),
            phases: phases.to_vec(),
            sent: Sent::All,
            texts: Vec::new(),
        };
        self
    }

    fn having_sent(mut self, part: Sent) -> Self {
        if let Outcome::Error { sent, .. } = &mut self.outcome {
            *sent = part;
        }
        self
    }

    fn telling(mut self, text: &'static str) -> Self {
        if let Outcome::Error { texts, .. } = &mut self.outcome {
            texts.push(text);
        }
        self
    }

    fn says(mut self, words: &[&'static str]) -> Self {
        self.says = Says::Exactly(words.to_vec());
        self
    }

    fn says_anything(mut self) -> Self {
        self.says = Says::Anything;
        self
    }

    fn goes_away(mut self, codes: &[&'static str]) -> Self {
        self.says = Says::GoAway(codes.to_vec());
        self.session = Kept::No;
        self
    }

    fn ends_session(mut self) -> Self {
        self.session = Kept::No;
        self
    }

    fn may_end_session(mut self) -> Self {
        self.session = Kept::Either;
        self
    }

    /// Runs the case in a runtime of its own. The server's bytes come in pieces of `largest_read`, if that is given.
    fn run(&self, largest_read: Option<usize>) -> Result<(), String> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let run = AssertUnwindSafe(|| runtime.block_on(self.play(largest_read)));
        catch_unwind(run).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panic: {}", text.unwrap_or("of another kind")))
        })
    }

    async fn play(&self, largest_read: Option<usize>) -> Result<(), String> {
        let world = World::new();
        world.faults(Faults {
            largest_read,
            ..Faults::default()
        });
        let client = (self.settings)(builder(&world)).build().unwrap();
        let report = Report::default();
        tokio::spawn(self.clone().serve(world.clone(), report.clone()));
        let started = Instant::now();
        let result = read((self.request)(&client)).await;
        self.compare(result)?;
        let next = client.get("http://peer.test/next").send();
        let next = next.await.map_err(|error| format!("next: {error}"))?;
        let text = next.text().await;
        let text = text.map_err(|error| format!("body of the next: {error}"))?;
        expect("the next answer", &text.as_str(), &"/next")?;
        if started.elapsed() >= SECOND {
            return Err(format!("it took {:?}", started.elapsed()));
        }
        let kept = world.accepts() == 1;
        if self.session != Kept::Either {
            expect("session kept", &kept, &(self.session == Kept::Yes))?;
        }
        settle(&client, &world).await;
        self.compare_words(report.log(0).said())
    }

    async fn serve(self, world: World, report: Report) {
        let mut session = Session::accept(&world).await;
        session.acknowledge(self.acknowledges);
        session.send(self.opening);
        Honest::default().serve_into(&world, &report);
        report.watch(&session);
        // A client that does not like the opening goes without a request.
        let Some(head) = session.next_head().await else {
            return;
        };
        assert_eq!(head.stream, 1);
        session.send(self.reply);
        match self.end {
            End::Open => Honest::default().go_on(session, report).await,
            End::Closes => session.shutdown_and_drain().await,
            End::Resets => session.reset(),
        }
    }

    fn compare(&self, result: Result<Answer, Error>) -> Result<(), String> {
        match (&self.outcome, result) {
            (Outcome::Answer(status, body), Ok(answer)) => {
                expect("status", &answer.status, status)?;
                expect("body", &answer.body.as_slice(), body)?;
                (self.fields)(&answer.fields);
                Ok(())
            }
            (
                Outcome::Error {
                    kinds,
                    phases,
                    sent,
                    texts,
                },
                Err(error),
            ) => {
                if !kinds.contains(&error.kind()) {
                    return Err(format!("kind {:?}: {error}", error.kind()));
                }
                if !error.phase().is_some_and(|phase| phases.contains(&phase)) {
                    return Err(format!("phase {:?}: {error}", error.phase()));
                }
                if error.sent() != *sent {
                    return Err(format!("sent {:?}: {error}", error.sent()));
                }
                let said = error.to_string();
                match texts.iter().find(|text| !said.contains(**text)) {
                    Some(text) => Err(format!("{text:?} is not said: {said}")),
                    None => Ok(()),
                }
            }
            (_, Ok(answer)) => Err(format!("answered: {answer:?}")),
            (_, Err(error)) => Err(format!("failed ({:?}): {error}", error.kind())),
        }
    }

    fn compare_words(&self, said: Vec<String>) -> Result<(), String> {
        match &self.says {
            Says::Anything => Ok(()),
            Says::Exactly(words) => expect("said", &said, words),
            Says::GoAway(codes) => {
                let goaway = said.last().and_then(|words| words.strip_prefix("GOAWAY "));
                let code = goaway.and_then(|words| words.split(' ').next_back());
                match code {
                    Some(code) if codes.contains(&code) => Ok(()),
                    _ => Err(format!("said {said:?}, not GOAWAY with {codes:?}")),
                }
            }
        }
    }
}

fn expect<A, B>(what: &str, found: &A, expected: &B) -> Result<(), String>
where
    A: PartialEq<B> + std::fmt::Debug,
    B: std::fmt::Debug,
{
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, not {expected:?}"))
}

/// Ends what is left of a test in which a session was kept by hand.
async fn close(session: Session, client: &Client, world: &World) {
    drop(session);
    until("it has closed", || world.open() == 0).await;
    settle(client, world).await;
}

/// A response that was read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    fields: HeaderMap,
    body: Vec<u8>,
}

async fn read(request: RequestBuilder) -> Result<Answer, Error> {
    let response = request.error_for_status(false).send().await?;
    let status = response.status().as_u16();
    let fields = response.headers().clone();
    let body = response.bytes().await?.to_vec();
    Ok(Answer {
        status,
        fields,
        body,
    })
}

/// Runs every case whole and with the server's bytes one by one, and panics with all that differ.
#[track_caller]
fn check(cases: Vec<Case>) {
    let mut names = HashSet::new();
    let mut wrong = Vec::new();
    for case in &cases {
        assert!(names.insert(case.name), "{} is there twice", case.name);
        let cuts = [None, Some(1)]
            .into_iter()
            .take(2 - usize::from(case.whole));
        for largest_read in cuts {
            if let Err(what) = case.run(largest_read) {
                let how = if largest_read.is_some() {
                    "cut"
                } else {
                    "whole"
                };
                wrong.push(format!("{} ({how}): {what}", case.name));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The rows of the table that have no case there but tests of their own.
const ROWS_WITH_TESTS: [u32; 5] = [32, 38, 41, 42, 45];

/// Every row of the table is covered, and there are as many cases as there should be.
#[test]
fn every_row_has_a_case() {
    let cases = [
        blocks::cases(),
        bodies::cases(),
        floods::cases(),
        framing::cases(),
        heads::cases(),
    ]
    .concat();
    let rows = cases.iter().map(|case| {
        let row = case.name.strip_prefix('C').unwrap_or_default();
        let row = row.split(' ').next().unwrap_or_default();
        row.parse()
            .unwrap_or_else(|_| panic!("{} has no row", case.name))
    });
    let covered: BTreeSet<u32> = rows.chain(ROWS_WITH_TESTS).collect();
    assert_eq!(covered, (1..=45).collect());
    assert!(cases.len() >= 100, "{} cases", cases.len());
}
