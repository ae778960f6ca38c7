//! What a test double answers, and what it does in place of an answer.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// A response of a test double.
///
/// ```
/// use std::time::Duration;
/// use sockeye::test::Reply;
///
/// let plain = Reply::new(200, "hello").header("x-served-by", "mock");
/// // In chunks, 100 ms after one another: what a stream of events looks like.
/// let slow = Reply::pieces(200, ["data: 1\n\n", "data: 2\n\n"], Duration::from_millis(100))
///     .header("content-type", "text/event-stream");
/// // Says that nine bytes come, and resets the connection after four.
/// let broken = Reply::new(200, "unfinished").reset_after(4);
/// ```
#[derive(Clone)]
pub struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
    pub(super) cut: Option<Cut>,
}

#[derive(Clone)]
pub(super) enum Content {
    /// With its length.
    Whole(Bytes),
    /// In chunks, and how long before each.
    Pieces(Vec<Bytes>, Duration),
}

/// Where a body stops that should go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) after: usize,
    pub(super) how: Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Reset,
    Close,
    Stall,
}

/// What goes wrong in place of an answer, by kind.
///
/// | fault | HTTP/1.1 | HTTP/2 |
/// |---|---|---|
/// | `ConnectRefused` | `Connect`, nothing sent | the same |
/// | `ConnectStall` | `Timeout` in `Phase::Connect`, nothing sent | the same |
/// | `Stall` | `Timeout` in `Phase::Head`, all sent | the same |
/// | `ResetBeforeHead`, `CloseBeforeHead` | `Io` in `Phase::Head`, all sent | the same, for all streams of the session |
/// | `TruncatedHead` | `Protocol` in `Phase::Head`, all sent | as `CloseBeforeHead`: half a frame is none |
/// | `ResetMidBody` | the body gives `Io` in `Phase::Read` | the same |
/// | `TruncatedBody` | the body gives `Protocol` in `Phase::Read` | the same |
/// | `StallMidBody` | the body gives `Timeout` in `Phase::Read` | the same |
/// | `RefusedStream`, `GoAway` | there is no such thing: the call fails and says so | `Io`, after the tries that the client makes by itself |
///
/// On a connection that has served before, `ResetBeforeHead` and `CloseBeforeHead` look like a connection that went stale, so
/// that the client sends an idempotent request once more, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A dial is refused. A dial knows the origin alone, so it counts for any request to that of the rule; while it is a
    /// rule's turn to refuse, connections to its origin that wait for a request are closed.
    ConnectRefused,
    /// A dial that never ends; else as `ConnectRefused`.
    ConnectStall,
    /// The request is read and never answered.
    Stall,
    /// The request is read, and the connection reset.
    ResetBeforeHead,
    /// The request is read, and the connection closed.
    CloseBeforeHead,
    /// The connection closes within the response head.
    TruncatedHead,
    /// A status of 200, so many bytes of a longer body, and a reset.
    ResetMidBody {
        /// How many bytes of the body come before it.
        after: usize,
    },
    /// The same with the end of the connection.
    TruncatedBody {
        /// How many bytes of the body come before it.
        after: usize,
    },
    /// The same with silence.
    StallMidBody {
        /// How many bytes of the body come before it.
        after: usize,
    },
    /// The stream is refused without being processed (REFUSED_STREAM, RFC 9113 section 8.7). HTTP/2 only.
    RefusedStream,
    /// A GOAWAY that says that this stream was not processed; the streams below it go on. HTTP/2 only.
    GoAway,
}

impl Reply {
    /// A response with this status and body, and the body's length. Panics if the status is none.
    #[track_caller]
    pub fn new<S>(status: S, body: impl Into<Bytes>) -> Self
    where
        S: TryInto<StatusCode, Error: fmt::Display>,
    {
        Self {
            status: match status.try_into() {
                Ok(status) => status,
                Err(why) => panic!("a reply of the test double: {why}"),
            },
            headers: HeaderMap::new(),
            content: Content::Whole(body.into()),
            cut: None,
        }
    }

    /// A response whose length is not told, in pieces, each so long after the one before. Panics if the status is none.
    #[track_caller]
    pub fn pieces<S, B>(status: S, pieces: impl IntoIterator<Item = B>, every: Duration) -> Self
    where
        S: TryInto<StatusCode, Error: fmt::Display>,
        B: Into<Bytes>,
    {
        let pieces = pieces.into_iter().map(Into::into).collect();
        Self {
            content: Content::Pieces(pieces, every),
            ..Self::new(status, "")
        }
    }

    /// Adds a field. Panics if it is none.
    #[track_caller]
    #[must_use]
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: fmt::Display>,
        V: TryInto<HeaderValue, Error: fmt::Display>,
    {
        match (name.try_into(), value.try_into()) {
            (Ok(name), Ok(value)) => self.headers.append(name, value),
            (Err(why), _) => panic!("a field of the test double's reply: {why}"),
            (_, Err(why)) => panic!("a field of the test double's reply: {why}"),
        };
        self
    }

    /// The connection is reset after so many bytes of the body.
    #[must_use]
    pub fn reset_after(self, bytes: usize) -> Self {
        self.cut(bytes, Stop::Reset)
    }

    /// The connection closes after so many bytes of the body.
    #[must_use]
    pub fn close_after(self, bytes: usize) -> Self {
        self.cut(bytes, Stop::Close)
    }

    /// Nothing more comes after so many bytes of the body.
    #[must_use]
    pub fn stall_after(self, bytes: usize) -> Self {
        self.cut(bytes, Stop::Stall)
    }

    fn cut(mut self, after: usize, how: Stop) -> Self {
        self.cut = Some(Cut { after, how });
        self
    }

    /// The length that its fields tell, if they do.
    pub(super) fn length(&self) -> Option<usize> {
        match &self.content {
            Content::Whole(body) => Some(body.len()),
            Content::Pieces(..) => None,
        }
    }

    /// The body up to where it stops, with the pause before each piece.
    pub(super) fn parts(&self) -> (Vec<Bytes>, Duration) {
        let (mut pieces, every) = match &self.content {
            Content::Whole(body) if body.is_empty() => (Vec::new(), Duration::ZERO),
            Content::Whole(body) => (vec![body.clone()], Duration::ZERO),
            Content::Pieces(pieces, every) => (pieces.clone(), *every),
        };
        if let Some(cut) = self.cut {
            let mut left = cut.after;
            for piece in &mut pieces {
                piece.truncate(left);
                left -= piece.len();
            }
        }
        pieces.retain(|piece| !piece.is_empty());
        (pieces, every)
    }
}

impl Fault {
    /// Whether it strikes a dial, not a request.
    pub(super) fn is_of_dials(self) -> bool {
        matches!(self, Self::ConnectRefused | Self::ConnectStall)
    }

    /// The reply that it breaks, if it breaks one.
    pub(super) fn broken_reply(self) -> Option<Reply> {
        let whole = |after: usize| Reply::new(StatusCode::OK, vec![b'x'; after.saturating_add(1)]);
        match self {
            Self::ResetMidBody { after } => Some(whole(after).reset_after(after)),
            Self::TruncatedBody { after } => Some(whole(after).close_after(after)),
            Self::StallMidBody { after } => Some(whole(after).stall_after(after)),
            _ => None,
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("fields", &self.headers.keys().collect::<Vec<_>>())
            .field("length", &self.length())
            .field("cut", &self.cut)
            .finish()
    }
}
