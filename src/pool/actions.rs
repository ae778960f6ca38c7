//! What the machine of an origin is asked, and what it answers: plain values, without any decision.
//!
//! `host.rs` decides; the shell in `entry.rs` and `wait.rs` brings these in and does what they say once its lock is released.

use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::dialling::DialId;
use super::line::Ticket;
use super::sessions::SessionId;

/// The limits of one origin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostLimits {
    pub(crate) connections: Option<usize>,
    pub(crate) line: Option<usize>,
    /// HTTP/2 sessions at once.
    pub(crate) sessions: usize,
    /// Sessions up to which the load is spread although one could carry it.
    pub(crate) spread: Option<usize>,
    /// How many streams a session carries in its life.
    pub(crate) max_requests: Option<u64>,
    /// How long a session may be without streams.
    pub(crate) session_idle: Duration,
    /// How long a dial of unknown protocol has before another joins it.
    pub(crate) hedge: Duration,
}

/// What the origin speaks, as far as it is known before a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// TLS will tell.
    Unknown,
    Http1,
    Http2,
}

/// What a waiter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Any connection.
    Any,
    /// A new connection, or a slot of a session newer than this one, because an old one of this host has just proved dead.
    /// With 0 any session will do: what died was of HTTP/1.1.
    NewerThan(SessionId),
}

/// What a caller gets to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lent<C, S> {
    Connection(C),
    /// One stream of a session.
    Slot(SessionId, S),
}

/// What a dial has made.
#[derive(Debug)]
pub(crate) enum Newcomer<C, S> {
    Http1(C),
    Http2 {
        session: S,
        max_streams: usize,
        /// When another is to take its place.
        ends: Option<Instant>,
    },
}

/// What a look at the idle connections found.
#[derive(Debug)]
pub(crate) struct Candidate<C, S> {
    pub(crate) lent: Lent<C, S>,
    pub(crate) idle_for: Duration,
    /// Another connection of this origin has proved dead in use not long ago.
    pub(crate) doubtful: bool,
}

/// How a waiter stands.
#[derive(Debug)]
pub(crate) enum Progress<C, S, E> {
    Served(Result<Lent<C, S>, E>),
    Waiting {
        /// When the oldest dial began, while one runs.
        dialling: Option<(DialId, Instant)>,
        /// Time so far in which no dial ran; only differences mean anything.
        undialled: Duration,
        /// When another dial should join those that run.
        hedge_at: Option<Instant>,
    },
}

/// Why somebody may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many wait as may wait.
    Full,
    /// The client was closed.
    Closed,
}

/// What is to be closed, dropped and woken once the lock is released.
#[derive(Debug)]
#[must_use]
pub(crate) struct Actions<C, S> {
    /// Whom a connection, a slot or an error went to.
    pub(crate) served: Few<Served>,
    pub(crate) close: Option<C>,
    /// Handles of sessions that take no new streams any more: dropped, they let the sessions end.
    pub(crate) retired: Vec<S>,
    /// The name of the session that was dialled, unless it was retired at once because nobody needs it.
    pub(crate) opened: Option<SessionId>,
    /// There is something idle, or a session, that no reaper knows of.
    pub(crate) watch: bool,
}

/// Who was served.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) ticket: Ticket,
    pub(super) waker: Option<Waker>,
}

impl Served {
    pub(crate) fn wake(self) {
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

/// None, one or several. One, which is the rule, costs no allocation.
#[derive(Debug)]
pub(crate) struct Few<T> {
    first: Option<T>,
    others: Vec<T>,
}

impl<T> Few<T> {
    pub(super) fn push(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.others.push(item);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.others)
    }
}

impl<T> IntoIterator for Few<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.others)
    }
}

impl<C, S> Default for Actions<C, S> {
    fn default() -> Self {
        Self {
            served: Few {
                first: None,
                others: Vec::new(),
            },
            close: None,
            retired: Vec::new(),
            opened: None,
            watch: false,
        }
    }
}

/// The numbers that a snapshot shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) count: usize,
    /// Idle connections, and sessions without streams.
    pub(crate) idle: usize,
    pub(crate) dialling: usize,
    pub(crate) waiting: usize,
    pub(crate) served: usize,
    pub(crate) sessions: usize,
    pub(crate) streams: usize,
}

/// When a reaper has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextLook {
    /// Something is idle and not armed.
    Soon,
    /// Something expires.
    At(Instant),
    /// Nothing is idle.
    Never,
}

/// What was taken out to make room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Evicted<C, S> {
    Connection(C),
    Session(S),
}
