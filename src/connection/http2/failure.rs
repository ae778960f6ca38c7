//! What an error of h2 means: for the caller, for who may try again, and for the session (spec http2 section 4, the error map).
//!
//! Pure. Before the head a stream's error that is a remote GOAWAY says that the stream was above the last one that the peer
//! processed; one below it ends with the connection instead.

use std::fmt;
use std::io;

use h2::Reason;

use super::message::Breach;
use super::shared::End;
use crate::connection::Refusal;
use crate::error::{Error, ErrorKind, Phase, Sent};

/// Why a stream gave no more.
#[derive(Debug)]
pub(super) enum StreamError {
    /// By word of h2.
    H2(h2::Error),
    /// By a check of ours.
    Breach(Breach),
}

/// Where in an exchange an error struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// Before there was a stream.
    Opening,
    /// Before the final head.
    Head,
    /// In the body.
    Body,
}

/// An error with what follows from it.
pub(super) struct Failure {
    pub(super) error: Error,
    /// The peer has provably not processed the request.
    pub(super) refusal: Option<Refusal>,
    pub(super) blame: Blame,
}

/// What has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// The stream alone.
    Stream,
    /// The stream, because the peer broke a rule on it: h2 bears that only so often.
    BrokenStream,
    /// The session.
    Session,
    /// The session, and another one with this peer would fare no better.
    Peer,
}

/// What is known besides the error.
pub(super) struct Facts<'a> {
    pub(super) at: Where,
    pub(super) sent: Sent,
    /// Why the session ended, where we ended it.
    pub(super) end: Option<&'a End>,
    pub(super) is_tls: bool,
    /// Some of the head had come, or of one before it.
    pub(super) head_begun: bool,
}

/// Whether h2 has refused the empty body of a response that promised more.
pub(super) fn is_empty_body(error: &h2::Error) -> bool {
    error.is_reset() && error.is_library() && error.reason() == Some(Reason::PROTOCOL_ERROR)
}

/// Explains an error of h2.
pub(super) fn explain(error: &h2::Error, facts: &Facts<'_>) -> Failure {
    let reason = error.reason().unwrap_or(Reason::NO_ERROR);
    let before_head = facts.at != Where::Body;
    if error.is_reset() && error.is_remote() {
        let refusal = match reason {
            Reason::REFUSED_STREAM => Some(Refusal::Stream),
            Reason::HTTP_1_1_REQUIRED => Some(Refusal::Http1Required),
            _ => None,
        };
        return facts.failure(
            ErrorKind::Io,
            Trouble::Reset(reason),
            refusal.filter(|_| before_head),
            Blame::Stream,
        );
    }
    if error.is_reset() {
        let trouble = Trouble::BadResponse(reason);
        let blame = match reason {
            // These are counted as they leave.
            Reason::STREAM_CLOSED => Blame::Stream,
            _ => Blame::BrokenStream,
        };
        return facts.failure(ErrorKind::Protocol, trouble, None, blame);
    }
    if error.is_go_away() && error.is_remote() {
        let refusal = match reason {
            Reason::ENHANCE_YOUR_CALM | Reason::INADEQUATE_SECURITY => Refusal::SessionWithReason,
            _ => Refusal::Session,
        };
        let trouble = Trouble::GoingAway(reason);
        // Of what it has begun to answer it cannot say that.
        let refusal = Some(refusal).filter(|_| before_head);
        return facts.failure(ErrorKind::Io, trouble, refusal, Blame::Session);
    }
    if let Some(end) = facts.end {
        return facts.ended(end);
    }
    if error.is_go_away() {
        let trouble = Trouble::BadSession(reason);
        // With this h2 ends a session that exceeds one of its limits, and with the others one that breaks a rule.
        let kind = match reason {
            Reason::ENHANCE_YOUR_CALM => ErrorKind::TooLarge,
            _ => ErrorKind::Protocol,
        };
        return facts.failure(kind, trouble, None, Blame::Session);
    }
    match error.get_io() {
        Some(io) => facts.disconnected(io),
        // What is left is a mistake of ours: a request that h2 does not take.
        None => Failure {
            error: Error::new(ErrorKind::InvalidRequest, Some(Phase::Prepare), facts.sent)
                .saying(format!("the request cannot be sent over HTTP/2: {error}")),
            refusal: None,
            blame: Blame::Stream,
        },
    }
}

impl Facts<'_> {
    fn phase(&self) -> Phase {
        match self.at {
            Where::Opening => Phase::Write,
            Where::Head => Phase::Head,
            Where::Body => Phase::Read,
        }
    }

    fn failure(
        &self,
        kind: ErrorKind,
        trouble: Trouble,
        refusal: Option<Refusal>,
        blame: Blame,
    ) -> Failure {
        let mut error = Error::new(kind, Some(self.phase()), self.sent).because(trouble);
        if refusal.is_some() {
            error = error.unprocessed();
        }
        Failure {
            error,
            refusal,
            blame,
        }
    }

    /// The session ended by our own decision.
    fn ended(&self, end: &End) -> Failure {
        let kind = match end {
            End::Cut => ErrorKind::ClientClosed,
            End::NotHttp2 | End::SpeaksHttp1 { .. } | End::EnablePush => ErrorKind::Protocol,
            End::Flood(_) => ErrorKind::TooLarge,
            End::NoSettings | End::NoPong { .. } => ErrorKind::Timeout,
        };
        Failure {
            error: Error::new(kind, Some(self.phase()), self.sent).saying(end.to_string()),
            refusal: None,
            blame: match end {
                End::NotHttp2 | End::SpeaksHttp1 { .. } | End::EnablePush => Blame::Peer,
                End::Cut | End::Flood(_) | End::NoSettings | End::NoPong { .. } => Blame::Session,
            },
        }
    }

    /// The connection failed. In a body an end without a word is a body cut short (ruling 20).
    fn disconnected(&self, io: &io::Error) -> Failure {
        let is_end = matches!(
            io.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other
        );
        let is_cut = is_end && (self.at == Where::Body || self.head_begun);
        let kind = if self.is_tls && io.kind() == io::ErrorKind::InvalidData {
            ErrorKind::Tls
        } else if is_cut {
            ErrorKind::Protocol
        } else {
            ErrorKind::Io
        };
        let io_kind = if is_end {
            io::ErrorKind::UnexpectedEof
        } else {
            io.kind()
        };
        let trouble = match (is_cut, is_end) {
            (true, _) => Trouble::CutShort(self.at),
            (false, true) => Trouble::Closed,
            (false, false) => Trouble::Io(io.to_string()),
        };
        let mut failure = self.failure(kind, trouble, None, Blame::Session);
        failure.error = failure.error.with_io_kind(Some(io_kind));
        failure
    }
}

/// What has happened, in words.
#[derive(Debug)]
enum Trouble {
    Reset(Reason),
    GoingAway(Reason),
    BadResponse(Reason),
    BadSession(Reason),
    CutShort(Where),
    Closed,
    Io(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(reason) => write!(f, "the server reset the stream with {}", Name(*reason)),
            Self::GoingAway(reason) => {
                let name = Name(*reason);
                write!(
                    f,
                    "the server said GOAWAY with {name} and did not process this request"
                )
            }
            Self::BadResponse(reason) => write!(
                f,
                "a malformed HTTP/2 message, or one over a limit ({})",
                Name(*reason)
            ),
            Self::BadSession(Reason::ENHANCE_YOUR_CALM) => f.write_str(
                "the server exceeded a limit of HTTP/2: on header lists, continuations, small or empty frames, or broken streams (ENHANCE_YOUR_CALM)",
            ),
            Self::BadSession(reason) => write!(
                f,
                "the server broke the rules of HTTP/2 ({})",
                Name(*reason)
            ),
            Self::CutShort(Where::Body) => f.write_str("the connection ended before the end of the body"),
            Self::CutShort(_) => f.write_str("the connection ended within the response head"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Io(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Trouble {}

/// An error code by its name (RFC 9113 section 7); unknown ones as numbers.
struct Name(Reason);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            Reason::NO_ERROR => "NO_ERROR",
            Reason::PROTOCOL_ERROR => "PROTOCOL_ERROR",
            Reason::INTERNAL_ERROR => "INTERNAL_ERROR",
            Reason::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
            Reason::SETTINGS_TIMEOUT => "SETTINGS_TIMEOUT",
            Reason::STREAM_CLOSED => "STREAM_CLOSED",
            Reason::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
            Reason::REFUSED_STREAM => "REFUSED_STREAM",
            Reason::CANCEL => "CANCEL",
            Reason::COMPRESSION_ERROR => "COMPRESSION_ERROR",
            Reason::CONNECT_ERROR => "CONNECT_ERROR",
            Reason::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
            Reason::INADEQUATE_SECURITY => "INADEQUATE_SECURITY",
            Reason::HTTP_1_1_REQUIRED => "HTTP_1_1_REQUIRED",
            other => return write!(f, "error code {:#x}", u32::from(other)),
        };
        f.write_str(name)
    }
}

impl From<h2::Error> for StreamError {
    fn from(error: h2::Error) -> Self {
        Self::H2(error)
    }
}

impl From<Breach> for StreamError {
    fn from(breach: Breach) -> Self {
        Self::Breach(breach)
    }
}
