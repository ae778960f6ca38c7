//! The policies at work: what they are asked before an attempt, what they are told after it, and the waits between.
//!
//! Before: the circuit breaker, then the rate limit. After: the classifier of the user, the breaker, the gate, the budget. While
//! a call waits here it holds nothing: no connection, no place of a probe; a token of the pace goes back if it is dropped.
//! Nothing here is asked of a call without policies, and of one that succeeds at once nothing is allocated.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, Sleep, sleep};

use super::Hop;
use crate::error::{Error, ErrorKind, Result, Sent};
use crate::policy::{
    Attempt, Came, Case, Columns, Decision, Hints, Limiter, Moment, OriginPolicy, Pass, Policies,
    Refused, Retry, Seen, Slot, Stop, Why, jitter_of_wait, used_up,
};
use crate::pool::Failed;
use crate::response::{Content, Response};
use crate::stats::RetryCause;

/// The policies of one URL of a call.
pub(super) struct Trying<'a> {
    policies: &'a Policies,
    origin: &'a OriginPolicy,
    /// The call's own, in place of the client's.
    own: Option<Arc<Retry>>,
    /// Leave for the attempt that runs.
    pass: Option<Pass<'a>>,
    /// Attempts so far.
    tried: u32,
    had_request_timeout: bool,
    /// What the attempt before came to.
    last: Option<Box<Last>>,
}

/// What an attempt came to that was followed by another.
enum Last {
    Failure(Error),
    /// Complete, so that it holds no connection.
    Response(Response),
    /// Its body was still to come and is given up.
    Status(StatusCode),
}

/// What follows an attempt.
pub(super) enum Next {
    End(Result<Response>),
    /// Another attempt, after this.
    Wait(Pin<Box<Sleep>>),
}

/// What the policies say before an attempt.
enum Leave<'a> {
    Go(Option<Pass<'a>>),
    Wait(Duration),
    Never(Error),
}

/// Whether a status asks for the same request at another time, whatever the request is.
pub(super) fn asks_to_wait(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

impl<'a> Trying<'a> {
    /// `None` if neither the client nor the call has a policy.
    pub(super) fn of(hop: &mut Hop<'a>) -> Option<Self> {
        let policies = &hop.engine.policies;
        let own = hop.call.retry.clone();
        if !policies.is_set() && own.is_none() {
            return None;
        }
        let (host, started) = (hop.host, hop.started);
        let origin = host.keep(|| policies.of(host.origin(), started))?;
        hop.course.keeps_unpolled =
            !hop.replay.is_replayable() && own.as_deref().or(origin.retry.as_ref()).is_some();
        Some(Self {
            policies,
            origin,
            own,
            pass: None,
            tried: 0,
            had_request_timeout: false,
            last: None,
        })
    }

    /// Waits for leave to make an attempt. `Some` is the end of the call. Dropping the future gives back what it has taken.
    pub(super) async fn enter(&mut self, hop: &mut Hop<'_>) -> Option<Result<Response>> {
        let now = match self.tried {
            0 => hop.started,
            _ => Instant::now(),
        };
        hop.course.begun = now;
        let mut token = None;
        let left = hop.deadline.left(now);
        match self.ask(self.policies.moment(now), &mut token, left) {
            Leave::Go(pass) => {
                self.pass = pass;
                if let Some(token) = token {
                    token.used();
                }
            }
            Leave::Never(error) => return Some(self.refused(error)),
            // Rare and large: boxed, it does not weigh on the future of every call.
            Leave::Wait(wait) => {
                if let Err(error) = Box::pin(self.wait(hop, token, wait)).await {
                    return Some(self.refused(error));
                }
            }
        }
        self.tried += 1;
        None
    }

    /// Waits until there is leave, or until it is clear that there will be none in time.
    async fn wait(
        &mut self,
        hop: &mut Hop<'_>,
        mut token: Option<Slot<'a>>,
        mut wait: Duration,
    ) -> Result<()> {
        let mut waited = Duration::ZERO;
        loop {
            let now = Instant::now();
            let limiter = self.origin.limiter.as_ref();
            let most = limiter.map_or(Duration::ZERO, Limiter::max_wait);
            let left = hop.deadline.left(now);
            if waited.saturating_add(wait) > most || left.is_some_and(|left| wait >= left) {
                return Err(too_long(wait, waited, most, left));
            }
            let jitter = jitter_of_wait(wait, hop.engine.lots.draw());
            let jittered = wait.saturating_add(jitter);
            let fits = left.is_none_or(|left| jittered < left);
            sleep(if fits { jittered } else { wait }).await;
            let after = Instant::now();
            waited += after.saturating_duration_since(now);
            hop.course.begun = after;
            let left = hop.deadline.left(after);
            match self.ask(self.policies.moment(after), &mut token, left) {
                Leave::Go(pass) => {
                    self.pass = pass;
                    if let Some(token) = token {
                        token.used();
                    }
                    return Ok(());
                }
                Leave::Never(error) => return Err(error),
                Leave::Wait(longer) => wait = longer,
            }
        }
    }

    /// Asks the breaker, the gate and the pace, which gives a call one token however often it is asked.
    fn ask(&self, now: Moment, token: &mut Option<Slot<'a>>, left: Option<Duration>) -> Leave<'a> {
        let pass = match self
            .origin
            .breaker
            .as_ref()
            .map(|breaker| breaker.enter(now))
        {
            None => None,
            Some(Ok(pass)) => Some(pass),
            Some(Err(refused)) => return Leave::Never(circuit_open(refused)),
        };
        let Some(limiter) = &self.origin.limiter else {
            return Leave::Go(pass);
        };
        if let Some(wait) = limiter.closed_for(now) {
            // Its moment may be over when the gate opens: then another one is due.
            *token = None;
            return Leave::Wait(wait);
        }
        if token.is_some() {
            return Leave::Go(pass);
        }
        let most = left.map_or(limiter.max_wait(), |left| left.min(limiter.max_wait()));
        match limiter.take(now, most) {
            Ok((taken, wait)) => {
                *token = Some(taken);
                match wait.is_zero() {
                    true => Leave::Go(pass),
                    false => Leave::Wait(wait),
                }
            }
            Err(wait) => Leave::Never(too_long(wait, Duration::ZERO, limiter.max_wait(), left)),
        }
    }

    /// There is no leave for another attempt: then what the last one came to is the result.
    fn refused(&mut self, error: Error) -> Result<Response> {
        match self.last.take().map(|last| *last) {
            None => Err(error),
            Some(Last::Failure(last)) => Err(last),
            Some(Last::Response(response)) => Ok(response),
            Some(Last::Status(status)) => Err(error.because(answered_with(status))),
        }
    }

    /// Tells the policies what an attempt came to, and asks whether there is another.
    pub(super) fn settle(&mut self, hop: &mut Hop<'_>, outcome: Result<Response, Failed>) -> Next {
        match outcome {
            Ok(response) => self.answered(hop, response),
            Err(failed) => self.failed(hop, failed),
        }
    }

    fn retry(&self) -> Option<&Retry> {
        self.own.as_deref().or(self.origin.retry.as_ref())
    }

    fn answered(&mut self, hop: &mut Hop<'_>, mut response: Response) -> Next {
        let breaker = self.origin.breaker.as_ref();
        let internal_errors = breaker.is_some_and(|breaker| breaker.counts_internal_errors());
        let mut seen = Seen::of_response(&response.head, self.retry(), internal_errors);
        if let Some(retry) = self.retry().filter(|retry| retry.judges()) {
            let attempt = Attempt {
                method: &hop.call.head.method,
                url: response.target.uri(),
                number: self.tried,
                came: Came::Response(&response.head),
            };
            seen = retry.judge(seen, &attempt);
        }
        if response.head.status == StatusCode::TOO_MANY_REQUESTS {
            hop.host.counters().rate_limited();
        }
        self.heed(&response, &seen);
        let unpolled = hop.course.unpolled.take();
        let Some((wait, why)) = self.report(hop, &seen, unpolled.is_some()) else {
            return Next::End(Ok(response));
        };
        self.had_request_timeout |= response.head.status == StatusCode::REQUEST_TIMEOUT;
        hop.take_back(unpolled);
        hop.call.head.target = response.target.clone();
        self.last = Some(Box::new(match &mut response.content {
            Content::Kept => Last::Response(response),
            // Dropped before the wait, so that its connection is drained or closed.
            Content::Apart(_) | Content::Switched(_) => Last::Status(response.head.status),
        }));
        again(hop, wait, why)
    }

    fn failed(&mut self, hop: &mut Hop<'_>, mut failed: Failed) -> Next {
        let error = &failed.error;
        let is_stale = failed.reused && !failed.received;
        let hints = Hints {
            unprocessed: failed.refusal.is_some() || failed.unwritten,
            stale: is_stale && error.sent() != Sent::Nothing,
            unanswered: hop.course.given.map(|given| given.elapsed()),
        };
        let mut seen = Seen::of_failure(error, hints);
        if let Some(retry) = self.retry().filter(|retry| retry.judges()) {
            let attempt = Attempt {
                method: &hop.call.head.method,
                url: hop.call.head.target.uri(),
                number: self.tried,
                came: Came::Failure(error),
            };
            seen = retry.judge(seen, &attempt);
        }
        // A body that no connection was given is as whole as it was.
        let is_whole = failed.unpolled.is_some() || hop.course.given.is_none();
        let Some((wait, why)) = self.report(hop, &seen, is_whole) else {
            return Next::End(Err(self.with_last(failed.error)));
        };
        hop.take_back(failed.unpolled.take());
        self.last = Some(Box::new(Last::Failure(failed.error)));
        again(hop, wait, why)
    }

    /// Closes the gate if the server says so.
    fn heed(&self, response: &Response, seen: &Seen) {
        let Some(limiter) = self.origin.limiter.as_ref() else {
            return;
        };
        if !limiter.obeys_server() {
            return;
        }
        if let Some(wait) = seen.asked.max(used_up(&response.head)) {
            limiter.close_for(wait, self.policies.moment(Instant::now()));
        }
    }

    /// Tells the breaker and the budget; answers the wait before another attempt, if there is to be one.
    fn report(&mut self, hop: &Hop<'_>, seen: &Seen, unpolled: bool) -> Option<(Duration, Why)> {
        let lots = &hop.engine.lots;
        if seen.is_success {
            if let Some(pass) = self.pass.take() {
                pass.report(seen.report, Moment::default(), || lots.draw());
            }
            if let Some(budget) = self.origin.budget.as_ref().filter(|_| self.tried == 1) {
                budget.earn();
            }
            return None;
        }
        let instant = Instant::now();
        let now = self.policies.moment(instant);
        let breaker = self.origin.breaker.as_ref();
        if let Some(pass) = self.pass.take() {
            pass.report(seen.report, now, || lots.draw());
        }
        let case = Case {
            seen: *seen,
            columns: Columns {
                idempotent: hop.replay.is_idempotent(),
                replayable: hop.replay.is_replayable(),
                unpolled,
            },
            tried: self.tried,
            had_request_timeout: self.had_request_timeout,
            remaining: hop.deadline.left(instant),
            open_for: breaker.and_then(|breaker| breaker.open_for(now)),
            now,
            chance: lots.draw(),
        };
        match self.retry()?.decide(&case, self.origin.budget.as_ref()) {
            Decision::Again { wait, why } => Some((wait, why)),
            Decision::Stop(stop) => {
                if stop == Stop::Budget {
                    hop.host.counters().retry_denied();
                }
                None
            }
        }
    }

    /// An error of the whole call's limit tells what the attempt before came to.
    fn with_last(&mut self, error: Error) -> Error {
        match self.last.take().map(|last| *last) {
            Some(Last::Failure(last)) if error.is_total() => error.because(last),
            Some(Last::Response(response)) if error.is_total() => {
                error.because(answered_with(response.head.status))
            }
            Some(Last::Status(status)) if error.is_total() => error.because(answered_with(status)),
            _ => error,
        }
    }
}

/// Counts the retry and begins its wait.
fn again(hop: &Hop<'_>, wait: Duration, why: Why) -> Next {
    hop.host.counters().retried(match why {
        Why::NoConnection => RetryCause::NoConnection,
        Why::Failed => RetryCause::Failed,
        Why::TimedOut => RetryCause::TimedOut,
        Why::Throttled => RetryCause::Throttled,
        Why::Status => RetryCause::Status,
    });
    Next::Wait(Box::pin(sleep(wait)))
}

/// What an attempt was answered with that was to be followed by another.
fn answered_with(status: StatusCode) -> Error {
    Error::new(ErrorKind::Status, None, Sent::All).saying(format!(
        "the attempt before was answered with status {}",
        status.as_u16()
    ))
}

fn circuit_open(refused: Refused) -> Error {
    let (wait, message) = match refused {
        Refused::Open(wait) => (
            Some(wait),
            format!(
                "the circuit breaker is open for another {wait:?} (CircuitBreaker::open), because too many calls failed"
            ),
        ),
        Refused::Probing(probes) => (
            None,
            format!(
                "the circuit breaker is half open, and as many calls as may probe the origin do so already: {probes} \
                 (CircuitBreaker::half_open_max)"
            ),
        ),
        Refused::Isolated => (
            None,
            "the circuit breaker was isolated, and has to be closed (Circuit::isolate)".to_owned(),
        ),
    };
    Error::refused(ErrorKind::CircuitOpen, wait, message)
}

/// `waited` before, and another `wait` to come.
fn too_long(wait: Duration, waited: Duration, most: Duration, left: Option<Duration>) -> Error {
    let message = match left {
        Some(left) if wait >= left => format!(
            "the rate limit asks to wait {wait:?}, which is beyond the {left:?} that the call has left (Timeouts::total)"
        ),
        _ if waited.is_zero() => format!(
            "the rate limit asks to wait {wait:?}, which is over the limit of {most:?} (RateLimit::max_wait)"
        ),
        _ => format!(
            "the rate limit asks to wait {wait:?} after {waited:?} already, which is over the limit of {most:?} \
             (RateLimit::max_wait)"
        ),
    };
    Error::refused(ErrorKind::RateLimited, Some(wait), message)
}
