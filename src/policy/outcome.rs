//! What an attempt came to, in the classes that decide about a retry and about the breaker (spec resilience 2.3).
//!
//! | class | examples | idempotent, replayable | idempotent, once | other, replayable | other, once |
//! |---|---|---|---|---|---|
//! | unprocessed | nothing written, REFUSED_STREAM, GOAWAY | yes | unpolled | yes | unpolled |
//! | stale | a kept connection closed before the response | yes | no | no | no |
//! | connect | refused, name, TLS I/O, connect limit | yes | unpolled | yes | unpolled |
//! | ambiguous | reset, limit or cut head before the response | yes | no | no | no |
//! | throttled | 429; 503 with Retry-After | yes | unpolled | yes | no |
//! | request timeout | 408 | once | no | once | no |
//! | trouble | 500, 502, 503, 504 and what the user adds | yes | no | no | no |
//! | final | everything else | no | no | no | no |
//!
//! What could not be sent again is never sent again, whatever the class: a body that is not whole any more.

use std::io;
use std::time::Duration;

use http::StatusCode;

use super::{Retry, RetryKind, Verdict};
use crate::error::{Error, ErrorKind, Phase, Sent, asked_wait};
use crate::head::ResponseHead;

/// What a breaker hears of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Success,
    Failure,
    /// It says nothing about the origin (ruling 8).
    Neutral,
}

/// What is known of a failed attempt besides its error.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hints {
    /// The peer has provably not processed the request.
    pub(crate) unprocessed: bool,
    /// A kept connection ended before any byte of the response.
    pub(crate) stale: bool,
    /// An interceptor has the error from elsewhere, so that it says nothing of the origin.
    pub(crate) elsewhere: bool,
    /// How long the request had been on its way without an answer, if it was.
    pub(crate) unanswered: Option<Duration>,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(super) class: Class,
    /// A time limit is what ended it.
    pub(super) timeout: bool,
    pub(crate) report: Report,
    /// The wait that the server asked for.
    pub(crate) asked: Option<Duration>,
    /// Whether it earns something for the budget if it is the first of its call.
    pub(crate) is_success: bool,
}

/// The rows of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Unprocessed,
    Stale,
    Connect,
    Ambiguous,
    Throttled,
    RequestTimeout,
    Trouble,
    /// The user's classifier wants it.
    Wanted(RetryKind),
    Final,
}

/// What may be done with a request: the columns of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    pub(crate) idempotent: bool,
    /// The body can be sent as often as need be.
    pub(crate) replayable: bool,
    /// Of one that can be sent once nothing was taken yet.
    pub(crate) unpolled: bool,
}

impl Class {
    /// Whether another attempt may be made.
    pub(super) fn allows(self, columns: Columns) -> bool {
        let Columns {
            idempotent,
            replayable,
            unpolled,
        } = columns;
        match self {
            Self::Unprocessed | Self::Connect | Self::Wanted(_) => replayable || unpolled,
            Self::Stale | Self::Ambiguous | Self::Trouble => idempotent && replayable,
            Self::Throttled => replayable || (idempotent && unpolled),
            Self::RequestTimeout => replayable,
            Self::Final => false,
        }
    }
}

impl Seen {
    /// A response. The statuses to try again are the policy's; without one there are none.
    pub(crate) fn of_response(
        head: &ResponseHead,
        retry: Option<&Retry>,
        internal_errors: bool,
    ) -> Self {
        let status = head.status.as_u16();
        let report = match status {
            502..=504 => Report::Failure,
            500 if internal_errors => Report::Failure,
            408 | 429 | 500 => Report::Neutral,
            _ => Report::Success,
        };
        let asked = matches!(status, 429 | 503).then(|| asked_wait(|name| head.first(name)));
        let asked = asked.flatten();
        let class = match status {
            _ if !retry.is_some_and(|retry| retry.statuses.contains(&status)) => Class::Final,
            429 => Class::Throttled,
            503 if asked.is_some() => Class::Throttled,
            408 => Class::RequestTimeout,
            _ => Class::Trouble,
        };
        Self {
            class,
            timeout: false,
            report,
            asked,
            is_success: status < 500 && !matches!(status, 408 | 429) && class == Class::Final,
        }
    }

    /// A failure before the response head.
    pub(crate) fn of_failure(error: &Error, hints: Hints) -> Self {
        let (class, report) = class_of(error, hints);
        let report = match hints.elsewhere {
            true => Report::Neutral,
            false => report,
        };
        Self {
            class,
            timeout: error.is_timeout(),
            report,
            asked: None,
            is_success: false,
        }
    }

    /// As the user's classifier has it.
    pub(super) fn judged(self, verdict: Verdict) -> Self {
        match verdict {
            Verdict::Default => self,
            Verdict::Success => Self {
                class: Class::Final,
                report: Report::Success,
                is_success: true,
                ..self
            },
            Verdict::Fail => Self {
                class: Class::Final,
                report: Report::Failure,
                is_success: false,
                ..self
            },
            Verdict::Retry { after, kind } => Self {
                class: Class::Wanted(kind),
                timeout: kind == RetryKind::Timeout,
                report: match kind {
                    RetryKind::Throttle => Report::Neutral,
                    RetryKind::Transient | RetryKind::Timeout => Report::Failure,
                },
                asked: after.or(self.asked),
                is_success: false,
            },
        }
    }
}

fn class_of(error: &Error, hints: Hints) -> (Class, Report) {
    use ErrorKind as Kind;
    let phase = error.phase();
    let is_early = matches!(phase, Some(Phase::Write | Phase::Head));
    if error.is_final() {
        return (Class::Final, Report::Neutral);
    }
    if error.is_total() {
        // Who sets nothing but a total limit would never see the breaker open otherwise.
        let long = hints.unanswered.is_some_and(|time| time >= UNANSWERED);
        let report = if long && error.sent() != Sent::Nothing {
            Report::Failure
        } else {
            Report::Neutral
        };
        return (Class::Final, report);
    }
    match error.kind() {
        Kind::Io | Kind::Protocol | Kind::Timeout | Kind::TooLarge if hints.unprocessed => {
            (Class::Unprocessed, Report::Neutral)
        }
        Kind::Timeout => match phase {
            Some(Phase::Resolve | Phase::Connect | Phase::Tls) => (Class::Connect, Report::Failure),
            Some(Phase::Write | Phase::Head) if error.sent() == Sent::Nothing => {
                (Class::Connect, Report::Failure)
            }
            Some(Phase::Write | Phase::Head) => (Class::Ambiguous, Report::Failure),
            _ => (Class::Final, Report::Neutral),
        },
        // What a proxy will say again is final.
        Kind::Connect | Kind::Proxy => (Class::Connect, Report::Failure),
        // The name does not exist: another attempt would not find it either.
        Kind::Resolve if error.io_kind() == Some(io::ErrorKind::NotFound) => {
            (Class::Final, Report::Neutral)
        }
        Kind::Resolve => (Class::Connect, Report::Failure),
        Kind::Tls if error.is_broken_off() => (Class::Connect, Report::Failure),
        Kind::Io if is_early && error.sent() == Sent::Nothing => {
            (Class::Unprocessed, Report::Neutral)
        }
        Kind::Io if is_early && hints.stale => (Class::Stale, Report::Neutral),
        Kind::Io if is_early => (Class::Ambiguous, Report::Failure),
        // A head that is cut short.
        Kind::Protocol if is_early && error.io_kind() == Some(io::ErrorKind::UnexpectedEof) => {
            (Class::Ambiguous, Report::Failure)
        }
        _ => (Class::Final, Report::Neutral),
    }
}

/// The statuses that a retry policy tries again unless it says otherwise.
pub(super) const STATUSES: [StatusCode; 6] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// A request that was unanswered for this long when the total limit struck says something about its origin.
const UNANSWERED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
    use http::{Method, Version};

    use super::*;
    use crate::deadline::{Expired, Setting};
    use crate::error::StatusError;
    use crate::url::Target;

    const KINDS: [ErrorKind; 18] = [
        ErrorKind::Body,
        ErrorKind::CircuitOpen,
        ErrorKind::ClientClosed,
        ErrorKind::Connect,
        ErrorKind::Decode,
        ErrorKind::Interceptor,
        ErrorKind::InvalidRequest,
        ErrorKind::Io,
        ErrorKind::PoolFull,
        ErrorKind::Protocol,
        ErrorKind::Proxy,
        ErrorKind::RateLimited,
        ErrorKind::Redirect,
        ErrorKind::Resolve,
        ErrorKind::Status,
        ErrorKind::Timeout,
        ErrorKind::Tls,
        ErrorKind::TooLarge,
    ];
    const PHASES: [Phase; 8] = [
        Phase::Prepare,
        Phase::Pool,
        Phase::Resolve,
        Phase::Connect,
        Phase::Tls,
        Phase::Write,
        Phase::Head,
        Phase::Read,
    ];
    const CAUSES: [Option<io::ErrorKind>; 5] = [
        None,
        Some(io::ErrorKind::UnexpectedEof),
        Some(io::ErrorKind::ConnectionReset),
        Some(io::ErrorKind::NotFound),
        Some(io::ErrorKind::InvalidData),
    ];

    /// Ruling 20: what the error of a status says of itself is what the matrix says of the response.
    #[test]
    fn an_error_status_is_retryable_where_the_matrix_says_so() {
        let origin = Target::parse_base("http://a.test").unwrap().target.origin();
        let retry = Retry::default();
        let asks = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("1"))]);
        for (status, fields) in (400..=999)
            .map(|status| StatusCode::from_u16(status).unwrap())
            .flat_map(|status| [(status, HeaderMap::new()), (status, asks.clone())])
        {
            let head = ResponseHead::of_fields(status, Version::HTTP_11, &fields, b"");
            let class = Seen::of_response(&head, Some(&retry), false).class;
            let error = Error::from_status(StatusError {
                status,
                headers: fields,
                body: Bytes::new(),
                truncated: false,
            });
            for (method, vouched, replayable) in [
                (Method::GET, false, true),
                (Method::GET, false, false),
                (Method::POST, false, true),
                (Method::POST, true, true),
                (Method::POST, true, false),
            ] {
                let columns = Columns {
                    idempotent: vouched || method == Method::GET,
                    replayable,
                    unpolled: false,
                };
                let told = error.clone().vouched(vouched);
                let told = told.on_call(origin.clone(), &method, 1, replayable);
                assert_eq!(
                    told.is_retryable(),
                    class.allows(columns),
                    "{told}, vouched {vouched}, replayable {replayable}: {class:?}"
                );
            }
        }
    }

    /// Ruling 20: what an error says of itself is what the matrix says, whatever its kind, phase, cause and request.
    #[test]
    fn an_error_is_retryable_where_the_matrix_says_so() {
        let origin = Target::parse_base("http://a.test").unwrap().target.origin();
        let sent = [Sent::Nothing, Sent::Part, Sent::All];
        for kind in KINDS {
            for phase in PHASES {
                for (cause, sent) in CAUSES
                    .iter()
                    .flat_map(|cause| sent.map(|sent| (*cause, sent)))
                {
                    for setting in [Setting::Head, Setting::Attempt, Setting::Total] {
                        let limit = Duration::from_secs(1);
                        let expired = Expired {
                            setting,
                            phase,
                            limit,
                        };
                        let error = match kind {
                            ErrorKind::Timeout => Error::timeout(expired, sent),
                            _ => Error::new(kind, Some(phase), sent),
                        };
                        let error = error.with_io_kind(cause);
                        for unprocessed in [false, true] {
                            let error = match unprocessed {
                                true => error.clone().unprocessed(),
                                false => error.clone(),
                            };
                            let hints = Hints {
                                unprocessed,
                                ..Hints::default()
                            };
                            let class = Seen::of_failure(&error, hints).class;
                            for (method, replayable) in [
                                (Method::GET, true),
                                (Method::POST, true),
                                (Method::GET, false),
                            ] {
                                let columns = Columns {
                                    idempotent: method == Method::GET,
                                    replayable,
                                    unpolled: false,
                                };
                                let told =
                                    error
                                        .clone()
                                        .on_call(origin.clone(), &method, 1, replayable);
                                assert_eq!(
                                    told.is_retryable(),
                                    class.allows(columns),
                                    "{kind:?}, {phase:?}, {sent:?}, {cause:?}, {setting:?}, unprocessed {unprocessed}, \
                                     {method}, replayable {replayable}: {class:?}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}
