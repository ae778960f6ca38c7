//! Whether a failed try is made again with no policy set (ruling 5, spec pool R-RETRY).
//!
//! Pure. What is sent again: a request of which nothing was written or that the peer says it did not process, and an idempotent one, once, on a connection that had
//! served before and closed without a byte of this response. Timeouts, and all that
//! is merely likely, are for a retry policy.

use crate::body::Body;
use crate::config::HttpVersions;
use crate::error::{ErrorKind, Phase, Sent, is_idempotent};
use crate::head::RequestHead;
use crate::pool::{Failed, Refusal};
use crate::stats::RetryCause;

/// What is known of the request, and how often it was tried.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    idempotent: bool,
    replayable: bool,
    attempts: u32,
    stale: bool,
    /// The call leaves the version to us.
    any_version: bool,
    /// The peer has ended a session with a reason that another session is unlikely to change.
    unwelcome: bool,
    /// Whether an expectation that is refused can still be dropped: once, and with a body that is there for another try.
    may_stop_expecting: bool,
}

impl Replay {
    pub(super) fn new(
        head: &RequestHead,
        body: &Body,
        vouched: bool,
        versions: HttpVersions,
    ) -> Self {
        Self {
            idempotent: vouched
                || is_idempotent(&head.method)
                || head.headers.contains_key("idempotency-key"),
            replayable: body.is_replayable(),
            attempts: 0,
            stale: false,
            any_version: versions == HttpVersions::Auto,
            unwelcome: false,
            may_stop_expecting: true,
        }
    }

    /// Another try begins.
    pub(super) fn begin(&mut self) {
        self.attempts += 1;
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(super) fn is_replayable(&self) -> bool {
        self.replayable
    }

    pub(super) fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// An expectation that is refused is not dropped: there is no body for another try.
    pub(super) fn keep_expecting(mut self) -> Self {
        self.may_stop_expecting = false;
        self
    }

    /// Whether a request whose expectation is refused may be made without it.
    pub(super) fn may_stop_expecting(&self) -> bool {
        self.may_stop_expecting
    }

    /// A request that may not be sent twice is worth a question to the kernel before it is sent once.
    pub(super) fn is_careful(&self) -> bool {
        !self.idempotent
    }

    /// Whether and why to try again; always on a new connection, because the old ones of this host may be as dead.
    pub(super) fn decide(&mut self, failed: &Failed) -> Option<RetryCause> {
        let body_is_whole = self.replayable || failed.unpolled.is_some();
        if failed.expectation_refused {
            self.may_stop_expecting = false;
            return body_is_whole.then_some(RetryCause::ExpectationRefused);
        }
        if let Some(refusal) = failed.refusal {
            return self.after(refusal).filter(|_| body_is_whole);
        }
        let error = &failed.error;
        let is_ours = matches!(
            error.kind(),
            ErrorKind::ClientClosed | ErrorKind::InvalidRequest | ErrorKind::Body
        );
        let is_early = matches!(error.phase(), Some(Phase::Write | Phase::Head));
        // A session that others have brought down fails those, too, who had not written anything.
        let failed_alike = failed.unwritten && !is_ours;
        if failed.elsewhere || !is_early || (error.kind() != ErrorKind::Io && !failed_alike) {
            return None;
        }
        if error.sent() == Sent::Nothing
            && !failed.received
            && body_is_whole
            && self.attempts < MAX_ATTEMPTS
        {
            return Some(RetryCause::Unwritten);
        }
        let stale = error.kind() == ErrorKind::Io && failed.reused && !failed.received;
        if stale && self.idempotent && self.replayable && !self.stale {
            self.stale = true;
            return Some(RetryCause::Stale);
        }
        None
    }

    /// What the peer provably did not process may be sent again, whatever its method (RFC 9113 section 8.7).
    fn after(&mut self, refusal: Refusal) -> Option<RetryCause> {
        if self.attempts >= MAX_ATTEMPTS {
            return None;
        }
        match refusal {
            Refusal::Stream => Some(RetryCause::Refused),
            Refusal::Session => Some(RetryCause::GoAway),
            Refusal::SessionWithReason => {
                let is_first = !std::mem::replace(&mut self.unwelcome, true);
                is_first.then_some(RetryCause::GoAway)
            }
            // Over HTTP/1.1 it cannot be said again.
            Refusal::Http1Required => self.any_version.then_some(RetryCause::Http1Required),
        }
    }
}

/// Tries in all of a request of which nothing is ever written or processed.
const MAX_ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::url::UrlInput;
    use http::{HeaderMap, Method};

    struct Case {
        method: Method,
        body: Body,
        kind: ErrorKind,
        sent: Sent,
        reused: bool,
        received: bool,
        refusal: Option<Refusal>,
    }

    fn stale_get() -> Case {
        Case {
            method: Method::GET,
            body: Body::empty(),
            kind: ErrorKind::Io,
            sent: Sent::All,
            reused: true,
            received: false,
            refusal: None,
        }
    }

    fn decide(case: &Case, times: usize) -> Vec<bool> {
        let target = UrlInput::Text("http://a.test".into())
            .parse(None)
            .unwrap()
            .target;
        let head = RequestHead {
            method: case.method.clone(),
            target,
            headers: HeaderMap::new(),
            asks: None,
        };
        let mut replay = Replay::new(&head, &case.body, false, HttpVersions::Auto);
        (0..times)
            .map(|_| {
                replay.begin();
                let error = Error::new(case.kind, Some(Phase::Head), case.sent);
                let mut failed = Failed::before_exchange(error);
                failed.reused = case.reused;
                failed.received = case.received;
                failed.refusal = case.refusal;
                replay.decide(&failed).is_some()
            })
            .collect()
    }

    /// Ruling 5 (2), and the last line of pool.md test 19.
    #[test]
    fn a_stale_connection_is_replaced_once_for_what_may_be_sent_twice() {
        assert_eq!(decide(&stale_get(), 2), [true, false]);
        assert_eq!(
            decide(
                &Case {
                    method: Method::POST,
                    ..stale_get()
                },
                1
            ),
            [false]
        );
        assert_eq!(
            decide(
                &Case {
                    reused: false,
                    ..stale_get()
                },
                1
            ),
            [false]
        );
        assert_eq!(
            decide(
                &Case {
                    received: true,
                    ..stale_get()
                },
                1
            ),
            [false]
        );
        assert_eq!(
            decide(
                &Case {
                    kind: ErrorKind::Timeout,
                    ..stale_get()
                },
                1
            ),
            [false]
        );
        assert_eq!(
            decide(
                &Case {
                    kind: ErrorKind::Protocol,
                    ..stale_get()
                },
                1
            ),
            [false]
        );
    }

    /// Ruling 5 (1).
    #[test]
    fn what_was_never_written_is_tried_three_times_whatever_the_method() {
        let unwritten = Case {
            method: Method::POST,
            sent: Sent::Nothing,
            reused: false,
            ..stale_get()
        };
        assert_eq!(decide(&unwritten, 3), [true, true, false]);
    }

    /// Ruling 5 (1): whatever the method, and however much was written.
    #[test]
    fn what_was_provably_not_processed_is_tried_again() {
        let refused = |refusal, method| Case {
            method,
            refusal: Some(refusal),
            ..stale_get()
        };
        for (refusal, expected) in [
            (Refusal::Stream, [true, true, false]),
            (Refusal::Session, [true, true, false]),
            (Refusal::SessionWithReason, [true, false, false]),
            (Refusal::Http1Required, [true, true, false]),
        ] {
            for method in [Method::GET, Method::POST] {
                assert_eq!(
                    decide(&refused(refusal, method), 3),
                    expected,
                    "{refusal:?}"
                );
            }
        }
    }
}
