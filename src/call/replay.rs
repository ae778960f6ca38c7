//! Whether a failed try is made again with no policy set (ruling 5, spec pool R-RETRY).
//!
//! Pure. What is sent again: a request of which nothing was written, and an idempotent one, once, on a connection that had
//! served before and closed without a byte of this response. Timeouts, and all that
//! is merely likely, are for a retry policy.

use crate::body::Body;
use crate::error::{ErrorKind, Phase, Sent, is_idempotent};
use crate::head::RequestHead;
use crate::pool::Failed;
use crate::stats::RetryCause;

/// What is known of the request, and how often it was tried.
#[derive(Debug)]
pub(super) struct Replay {
    idempotent: bool,
    replayable: bool,
    attempts: u32,
    stale: bool,
}

impl Replay {
    pub(super) fn new(head: &RequestHead, body: &Body, vouched: bool) -> Self {
        Self {
            idempotent: vouched
                || is_idempotent(&head.method)
                || head.headers.contains_key("idempotency-key"),
            replayable: body.is_replayable(),
            attempts: 0,
            stale: false,
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

    /// A request that may not be sent twice is worth a question to the kernel before it is sent once.
    pub(super) fn is_careful(&self) -> bool {
        !self.idempotent
    }

    /// Whether and why to try again; always on a new connection, because the old ones of this host may be as dead.
    pub(super) fn decide(&mut self, failed: &Failed) -> Option<RetryCause> {
        if failed.expectation_refused {
            return Some(RetryCause::ExpectationRefused);
        }
        let error = &failed.error;
        if error.kind() != ErrorKind::Io
            || !matches!(error.phase(), Some(Phase::Write | Phase::Head))
        {
            return None;
        }
        let body_is_whole = self.replayable || failed.unpolled.is_some();
        if error.sent() == Sent::Nothing
            && failed.received == 0
            && body_is_whole
            && self.attempts < MAX_ATTEMPTS
        {
            return Some(RetryCause::Unwritten);
        }
        let stale = failed.reused && failed.received == 0;
        if stale && self.idempotent && self.replayable && !self.stale {
            self.stale = true;
            return Some(RetryCause::Stale);
        }
        None
    }
}

/// Tries in all of a request of which nothing is ever written.
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
        received: u64,
    }

    fn stale_get() -> Case {
        Case {
            method: Method::GET,
            body: Body::empty(),
            kind: ErrorKind::Io,
            sent: Sent::All,
            reused: true,
            received: 0,
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
        let mut replay = Replay::new(&head, &case.body, false);
        (0..times)
            .map(|_| {
                replay.begin();
                let error = Error::new(case.kind, Some(Phase::Head), case.sent);
                let failed = Failed {
                    error,
                    reused: case.reused,
                    received: case.received,
                    reset_by: None,
                    expectation_refused: false,
                    unpolled: None,
                    ticket: None,
                };
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
                    received: 1,
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
}
