//! What an honest server has seen, and how a test speaks to its connections while they run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc;

use super::frames::Frames;
use super::honest::Request;
use super::session::{Log, Session};

/// What a server has seen, shared by all its connections.
#[derive(Clone, Default)]
pub(crate) struct Report(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    violations: Vec<String>,
    connections: BTreeMap<usize, Connection>,
}

struct Connection {
    commands: mpsc::UnboundedSender<Command>,
    log: Log,
    open: usize,
    most: usize,
    ended: bool,
}

/// What a test tells a connection.
pub(crate) struct Told(mpsc::UnboundedReceiver<Command>);

impl Told {
    /// The next command.
    pub(super) async fn next(&mut self) -> Option<Command> {
        self.0.recv().await
    }
}

pub(super) enum Command {
    Say(Frames),
    Limit(u32),
    Release(usize),
}

impl Report {
    /// The requests so far, in the order in which they came whole.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen().requests.clone()
    }

    /// How many requests have come whole.
    pub(crate) fn count(&self) -> usize {
        self.seen().requests.len()
    }

    /// Panics if the client broke a rule that the server watches.
    #[track_caller]
    pub(crate) fn expect_no_violation(&self) {
        let violations = self.seen().violations.clone();
        assert!(
            violations.is_empty(),
            "the client broke rules: {violations:?}"
        );
    }

    /// The streams that are open on a connection.
    pub(crate) fn open(&self, connection: usize) -> usize {
        let seen = self.seen();
        seen.connections.get(&connection).map_or(0, |one| one.open)
    }

    /// The most streams that were ever open at once, connection by connection.
    pub(crate) fn most(&self) -> Vec<usize> {
        let seen = self.seen();
        seen.connections.values().map(|one| one.most).collect()
    }

    /// Whether a connection has come to its end.
    pub(crate) fn ended(&self, connection: usize) -> bool {
        let seen = self.seen();
        seen.connections
            .get(&connection)
            .is_some_and(|one| one.ended)
    }

    /// What a client has sent on a connection.
    pub(crate) fn log(&self, connection: usize) -> Log {
        self.seen().connections[&connection].log.clone()
    }

    /// Sends frames on a connection.
    pub(crate) fn say(&self, connection: usize, frames: Frames) {
        self.command(connection, Command::Say(frames));
    }

    /// Changes how many streams a connection may have at once.
    pub(crate) fn limit(&self, connection: usize, streams: u32) {
        self.command(connection, Command::Limit(streams));
    }

    /// Sends the oldest replies of a connection that are held, so many.
    pub(crate) fn release(&self, connection: usize, replies: usize) {
        self.command(connection, Command::Release(replies));
    }

    /// Keeps the log of a connection, and makes what it is told by.
    pub(crate) fn watch(&self, session: &Session) -> Told {
        let (commands, told) = mpsc::unbounded_channel();
        let connection = Connection {
            commands,
            log: session.log(),
            open: 0,
            most: 0,
            ended: false,
        };
        let mut seen = self.seen();
        seen.connections.insert(session.number, connection);
        Told(told)
    }

    fn command(&self, connection: usize, command: Command) {
        // A connection that has ended is told in vain.
        let _ = self.seen().connections[&connection].commands.send(command);
    }

    /// A request has come whole.
    pub(super) fn came(&self, request: Request) {
        self.seen().requests.push(request);
    }

    /// So many streams of a connection are open now.
    pub(super) fn counted(&self, connection: usize, open: usize) {
        if let Some(one) = self.seen().connections.get_mut(&connection) {
            one.open = open;
            one.most = one.most.max(open);
        }
    }

    /// A connection is over.
    pub(super) fn end(&self, connection: usize) {
        if let Some(one) = self.seen().connections.get_mut(&connection) {
            one.ended = true;
            one.open = 0;
        }
    }

    /// The client has broken a rule.
    pub(super) fn violation(&self, what: String) {
        self.seen().violations.push(what);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }
}
