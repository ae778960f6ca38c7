//! The policies at work: what they are asked before an attempt, what they are told after it, and the waits between.
//!
//! Before: the circuit breaker, then the rate limit. After: the classifier of the user, the breaker, the gate, the budget. While
//! a call waits here it holds nothing: no connection, no place of a probe; a token of the pace goes back if it is dropped.
//! Nothing here is asked of a call without policies, and of one that succeeds at once nothing is allocated.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, Uri, Version};
use http_body::Frame;
use tokio::time::{Instant, timeout};

use super::watched::PolicyWatch;
use super::{Engine, Hop, Place, put};
use crate::body::{Body, Source};
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::head::ResponseHead;
use crate::policy::{
    Attempt, Barred, Breaker, Came, Case, Columns, Decision, Hints, Limiter, OriginPolicy, Pass,
    Policies, Retry, Seen, Slot, Stop, Why, jitter_of_wait, used_up,
};
use crate::pool::Failed;
use crate::response::{Content, Response};
use crate::stats::RetryCause;

/// The policies of one URL of a call.
pub(crate) struct Trying<'a> {
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
    last: Option<Last>,
    /// Whom it is told to.
    watch: PolicyWatch<'a>,
}

/// What an attempt came to that was followed by another.
enum Last {
    Failure(Error),
    /// Complete, so that it holds no connection.
    Response(Box<Response>),
    /// Its body was still to come and is given up.
    GivenUp(Box<Response>),
}

/// What follows an attempt: the end of the call, or another attempt after a wait.
pub(super) type Next = ControlFlow<Result<()>, Duration>;

/// What the policies say before an attempt.
enum Leave {
    Go,
    /// The server wants nobody to come for so long.
    Gate(Duration),
    /// The call's token is due then.
    Pace(Duration),
    Never(Error),
}

impl<'a> Trying<'a> {
    /// `None` if neither the client nor the call has a policy.
    pub(super) fn of(hop: &Hop<'a>) -> Option<Self> {
        let policies = &hop.engine.policies;
        let own = hop.call.own(|own| own.retry.as_ref());
        if !policies.is_set() && own.is_none() {
            return None;
        }
        let (host, started) = (hop.host, hop.started);
        let own = own.map(|own| Retry::of_call(own, host.origin()));
        let origin = host.keep(|| policies.of(host.origin(), started))?;
        let mut trying = Self::new(policies, origin, own);
        trying.watch = PolicyWatch::of(hop);
        Some(trying)
    }

    fn new(policies: &'a Policies, origin: &'a OriginPolicy, own: Option<Arc<Retry>>) -> Self {
        Self {
            policies,
            origin,
            own,
            pass: None,
            tried: 0,
            had_request_timeout: false,
            last: None,
            watch: PolicyWatch::nobody(),
        }
    }

    /// Waits for leave to make an attempt. `Some` is the end of the call. Dropping the future gives back what it has taken.
    pub(super) async fn enter(&mut self, hop: &mut Hop<'_>) -> Option<Result<()>> {
        let now = match self.tried {
            0 => hop.started,
            _ => Instant::now(),
        };
        hop.course.begun = now;
        let mut token = None;
        let end = match self.ask(now, &mut token, hop.deadline.left(now)) {
            Leave::Go => None,
            Leave::Never(error) => Some(error),
            // Rare and large: boxed, it does not weigh on the future of every call.
            wait => Box::pin(self.wait(hop, token.take(), wait)).await.err(),
        };
        match end {
            None => {
                self.tried += 1;
                None
            }
            Some(error) if error.is_closed() => Some(Err(error)),
            Some(error) => Some(self.refused(error, hop.place)),
        }
    }

    /// Waits until there is leave, or until it is clear that there will be none in time.
    async fn wait(
        &mut self,
        hop: &mut Hop<'_>,
        mut token: Option<Slot<'a>>,
        mut leave: Leave,
    ) -> Result<()> {
        let mut waited = Duration::ZERO;
        loop {
            let now = Instant::now();
            let left = hop.deadline.left(now);
            let most = self.origin.limiter.as_ref().map(Limiter::max_wait);
            let most = most.unwrap_or_default();
            let (wait, jitter) = match leave {
                Leave::Go => return Ok(()),
                Leave::Never(error) => return Err(error),
                Leave::Gate(wait) => (wait, jitter_of_wait(wait, hop.engine.lots.draw())),
                Leave::Pace(wait) => (wait, Duration::ZERO),
            };
            if waited.saturating_add(wait) > most || left.is_some_and(|left| wait >= left) {
                return Err(too_long(wait, waited, most, left));
            }
            let longer = wait.saturating_add(jitter);
            let fits = left.is_none_or(|left| longer < left);
            let held = if fits { longer } else { wait };
            let told = self.watch.rate_wait(held);
            if is_closed_within(hop.engine, held).await {
                return Err(self.closed());
            }
            drop(told);
            let after = Instant::now();
            waited += after.saturating_duration_since(now);
            hop.course.begun = after;
            leave = self.ask(after, &mut token, hop.deadline.left(after));
        }
    }

    /// Asks the breaker, the gate and the pace, which gives a call one token however often it is asked. With leave the token is
    /// used, and the pass kept.
    fn ask(&mut self, now: Instant, token: &mut Option<Slot<'a>>, left: Option<Duration>) -> Leave {
        let now = self.policies.moment(now);
        let pass = match &self.origin.breaker {
            None => None,
            Some(breaker) => match breaker.enter(now) {
                Ok(pass) => {
                    self.watch.breaker(breaker);
                    Some(pass)
                }
                Err(refused) => return Leave::Never(circuit_open(refused)),
            },
        };
        if let Some(limiter) = &self.origin.limiter {
            if let Some(wait) = limiter.closed_for(now) {
                // Its moment may be over when the gate opens: then another one is due.
                *token = None;
                return Leave::Gate(wait);
            }
            if token.is_none() {
                let most = limiter.max_wait();
                let longest = left.map_or(most, |left| left.min(most));
                match limiter.take(now, longest) {
                    Ok((taken, Duration::ZERO)) => *token = Some(taken),
                    Ok((taken, wait)) => {
                        *token = Some(taken);
                        return Leave::Pace(wait);
                    }
                    Err(wait) => return Leave::Never(too_long(wait, Duration::ZERO, most, left)),
                }
            }
        }
        if let Some(token) = token.take() {
            token.used();
        }
        self.pass = pass;
        Leave::Go
    }

    /// There is no leave for another attempt: then what the last one came to is the result.
    fn refused(&mut self, error: Error, place: &mut Place) -> Result<()> {
        match self.last.take() {
            None => Err(error),
            Some(Last::Failure(last)) => Err(last),
            Some(Last::Response(response)) => {
                *place = Some(*response);
                Ok(())
            }
            Some(Last::GivenUp(mut response)) => {
                response.content = Content::Apart(Body::from_source(GivenUp(Some(error))));
                *place = Some(*response);
                Ok(())
            }
        }
    }

    /// Waits for the next attempt, or until the client is closed: then there is none.
    pub(super) async fn pause(&mut self, engine: &Engine, wait: Duration) -> Option<Error> {
        is_closed_within(engine, wait).await.then(|| self.closed())
    }

    /// The client was closed in a wait: it has no connection any more that the call could finish on.
    fn closed(&mut self) -> Error {
        let sent = match &self.last {
            None => Sent::Nothing,
            Some(Last::Failure(error)) => error.sent(),
            Some(Last::Response(_) | Last::GivenUp(_)) => Sent::All,
        };
        self.with_last(Error::new(ErrorKind::ClientClosed, None, sent))
    }

    /// Tells the policies what an attempt came to, and asks whether there is another.
    pub(super) fn settle(&mut self, hop: &mut Hop<'_>, outcome: Result<(), Failed>) -> Next {
        match outcome {
            Ok(()) => self.answered(hop),
            Err(failed) => self.failed(hop, failed),
        }
    }

    /// The breaker may have changed.
    fn watch_breaker(&self) {
        if let Some(breaker) = &self.origin.breaker {
            self.watch.breaker(breaker);
        }
    }

    fn retry(&self) -> Option<&Retry> {
        self.own.as_deref().or(self.origin.retry.as_ref())
    }

    fn answered(&mut self, hop: &mut Hop<'_>) -> Next {
        let response = put(hop.place);
        let status = response.head.status;
        let seen = self.heed(&hop.call.head.method, response.target.uri(), &response.head);
        if hop.course.given.is_none() {
            // An interceptor has answered by itself, which says nothing of the origin.
            self.pass = None;
        }
        if self.succeeded(&seen) {
            return Next::Break(Ok(()));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            hop.host.counters().rate_limited();
        }
        // Without another attempt it stays for a redirect, or for credentials.
        let is_whole = hop.course.unpolled.is_some();
        let Some((wait, why)) = self.report(hop, &seen, is_whole) else {
            return Next::Break(Ok(()));
        };
        self.had_request_timeout |= status == StatusCode::REQUEST_TIMEOUT;
        let unpolled = hop.course.unpolled.take();
        hop.take_back(unpolled.map(|body| *body));
        let Some(response) = hop.place.take() else {
            return Next::Break(Ok(()));
        };
        hop.call.head.put_back(|| response.target.clone());
        if let Some(identity) = &hop.engine.identity {
            identity.learn(&response);
            hop.change_cookies();
        }
        let mut response = Box::new(response);
        self.last = Some(match &response.content {
            Content::Kept(_) => Last::Response(response),
            Content::Apart(_) | Content::Over(_) | Content::Switched(_) => {
                // Dropped before the wait, so that its connection is drained or closed.
                response.content = Content::Apart(Body::empty());
                Last::GivenUp(response)
            }
        });
        again(hop, wait, why)
    }

    fn failed(&mut self, hop: &mut Hop<'_>, mut failed: Failed) -> Next {
        let status = failed.error.status_error().filter(|_| !failed.elsewhere);
        let seen = match status {
            None => self.weigh(hop, &failed),
            // An interceptor has made an error of an answer, which is one all the same.
            Some(status) => {
                let head =
                    ResponseHead::of_fields(status.status, Version::HTTP_11, &status.headers, &[]);
                self.heed(&hop.call.head.method, hop.call.head.target.uri(), &head)
            }
        };
        let status = status.map(|status| status.status);
        if self.succeeded(&seen) {
            return Next::Break(Err(failed.error));
        }
        if status == Some(StatusCode::TOO_MANY_REQUESTS) {
            hop.host.counters().rate_limited();
        }
        // A body that no connection was given is as whole as it was, unless interceptors had it: from them it comes back, or not.
        let is_here = hop.course.given.is_none() && hop.engine.attempt_interceptors.is_empty();
        let is_whole = failed.unpolled.is_some() || is_here;
        let Some((wait, why)) = self.report(hop, &seen, is_whole) else {
            return Next::Break(Err(self.with_last(failed.error)));
        };
        self.had_request_timeout |= status == Some(StatusCode::REQUEST_TIMEOUT);
        hop.take_back(failed.unpolled.take());
        self.last = Some(Last::Failure(failed.error));
        again(hop, wait, why)
    }

    /// What a failure is, by the rules and the user's classifier.
    fn weigh(&self, hop: &Hop<'_>, failed: &Failed) -> Seen {
        let error = &failed.error;
        let is_stale = failed.reused && !failed.received;
        let hints = Hints {
            unprocessed: failed.refusal.is_some() || failed.unwritten,
            stale: is_stale && error.sent() != Sent::Nothing,
            elsewhere: failed.elsewhere,
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
        seen
    }

    /// What a response is, by the rules and the user's classifier. Closes the gate if the server says so.
    fn heed(&self, method: &Method, url: &Uri, head: &ResponseHead) -> Seen {
        let breaker = self.origin.breaker.as_ref();
        let internal_errors = breaker.is_some_and(Breaker::counts_internal_errors);
        let mut seen = Seen::of_response(head, self.retry(), internal_errors);
        let told = match &self.origin.limiter {
            Some(limiter) if limiter.obeys_server() => seen.asked.max(used_up(head)),
            _ => None,
        };
        if let (Some(limiter), Some(wait)) = (&self.origin.limiter, told) {
            limiter.close_for(wait, self.policies.moment(Instant::now()));
            self.watch.gate(wait);
        }
        if let Some(retry) = self.retry().filter(|retry| retry.judges()) {
            let attempt = Attempt {
                method,
                url,
                number: self.tried,
                came: Came::Response(head),
            };
            seen = retry.judge(seen, &attempt);
        }
        seen
    }

    /// Whether an attempt was a success; tells the breaker and the budget if it was. It needs no clock.
    fn succeeded(&mut self, seen: &Seen) -> bool {
        if !seen.is_success {
            return false;
        }
        if let Some(pass) = self.pass.take() {
            pass.succeeded();
            self.watch_breaker();
        }
        if let Some(budget) = self.origin.budget.as_ref().filter(|_| self.tried == 1) {
            budget.earn();
        }
        true
    }

    /// What is asked and told around an attempt that succeeds at once, for the bench of it.
    #[cfg_attr(
        not(feature = "test-util"),
        expect(dead_code, reason = "only `sockeye::test` asks")
    )]
    pub(crate) fn first_try(
        policies: &'a Policies,
        origin: &'a OriginPolicy,
        now: Instant,
        url: &Uri,
        head: &ResponseHead,
    ) -> bool {
        let mut trying = Self::new(policies, origin, None);
        let leave = trying.ask(now, &mut None, None);
        trying.tried += 1;
        let seen = trying.heed(&Method::GET, url, head);
        matches!(leave, Leave::Go) && trying.succeeded(&seen)
    }

    /// Tells the breaker and the budget; answers the wait before another attempt, if there is to be one.
    fn report(&mut self, hop: &Hop<'_>, seen: &Seen, unpolled: bool) -> Option<(Duration, Why)> {
        let lots = &hop.engine.lots;
        let instant = Instant::now();
        let now = self.policies.moment(instant);
        let breaker = self.origin.breaker.as_ref();
        let limiter = self.origin.limiter.as_ref();
        if let Some(pass) = self.pass.take() {
            pass.report(seen.report, now, || lots.draw());
            self.watch_breaker();
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
            open_for: breaker.and_then(|breaker| breaker.refuses_for(now)),
            held_for: limiter.map_or(Duration::ZERO, |limiter| limiter.holds_for(now)),
            most_held: limiter.map_or(Duration::ZERO, Limiter::max_wait),
            now,
            chance: lots.draw(),
        };
        match self.retry()?.decide(&case, self.origin.budget.as_ref()) {
            Decision::Again { wait, why } => Some((wait, why)),
            Decision::Stop(stop) => {
                if stop == Stop::Budget {
                    hop.host.counters().retry_denied();
                }
                self.watch.no_retry(stop);
                None
            }
        }
    }

    /// What ends a call from outside tells what the attempt before came to: the whole call's limit, and the end of the client.
    fn with_last(&mut self, error: Error) -> Error {
        if !error.is_total() && !error.is_closed() {
            return error;
        }
        match self.last.take() {
            None => error,
            Some(Last::Failure(last)) => error.because(last),
            Some(Last::Response(response) | Last::GivenUp(response)) => {
                error.because(answered_with(response.head.status))
            }
        }
    }
}

/// Counts the retry and begins its wait.
fn again(hop: &Hop<'_>, wait: Duration, why: Why) -> Next {
    let cause = match why {
        Why::NoConnection => RetryCause::NoConnection,
        Why::Failed => RetryCause::Failed,
        Why::TimedOut => RetryCause::TimedOut,
        Why::Throttled => RetryCause::Throttled,
        Why::Status => RetryCause::Status,
    };
    hop.retried(cause, wait);
    Next::Continue(wait)
}

/// Waits; answers whether the client was closed meanwhile.
async fn is_closed_within(engine: &Engine, wait: Duration) -> bool {
    timeout(wait, engine.pool.closed()).await.is_ok()
}

/// The body of a response that was given up for an attempt that then was not made: it says why.
struct GivenUp(Option<Error>);

impl Source for GivenUp {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let error = self.0.take().map(|why| {
            let error = Error::new(why.kind(), Some(Phase::Read), Sent::All);
            error
                .saying("the response body was given up for another attempt, which was refused")
                .because(why)
        });
        Poll::Ready(error.map(Err))
    }

    fn left(&self) -> Option<u64> {
        None
    }
}

/// What an attempt was answered with that was to be followed by another.
fn answered_with(status: StatusCode) -> Error {
    Error::new(ErrorKind::Status, None, Sent::All).saying(format!(
        "the attempt before was answered with status {}",
        status.as_u16()
    ))
}

fn circuit_open(refused: Barred) -> Error {
    let (wait, message) = match refused {
        Barred::Open(wait) => (
            Some(wait),
            format!(
                "the circuit breaker is open for another {wait:?} (CircuitBreaker::open), because too many calls failed"
            ),
        ),
        Barred::Probing(probes) => (
            None,
            format!(
                "the circuit breaker is half open, and as many calls as may probe the origin do so already: {probes} \
                 (CircuitBreaker::half_open_max)"
            ),
        ),
        Barred::Isolated => (
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
