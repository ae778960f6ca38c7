//! A call and its attempts as those see them who watch: observers, and traces.
//!
//! What is done is in `mod.rs`; here it is done with a guard around it, which tells the end that it is given, or that the future was
//! dropped. Nothing here is reached by a call that nobody watches, and whatever it allocates weighs on no other.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::interceptor::{around_attempt, around_call};
use super::{Call, Engine, Hop, Place, exchange, follow, put};
use crate::error::{Error, Result};
use crate::policy::{Breaker, Stop};
use crate::pool::Failed;
use crate::stats::{
    AttemptSpan, CallTold, Event, RetryCause, RetryRefusal, UNWATCHED, spans_are_on,
};
use crate::url::Origin;

/// Whether anybody watches the calls of a client.
pub(crate) fn is_watched(engine: &Engine) -> bool {
    !UNWATCHED && (engine.observers.is_some() || spans_are_on())
}

/// Makes a call that has interceptors around it, or that somebody watches; tells them how it begins and ends.
pub(super) async fn call(engine: &Arc<Engine>, call: &mut Call, place: &mut Place) -> Result<()> {
    if !is_watched(engine) {
        return around_call(engine, call, place).await;
    }
    let watch = CallWatch {
        told: Some(CallTold::new(engine.observers.as_ref())),
    };
    call.told.clone_from(&watch.told);
    if let Some(told) = &watch.told {
        let (method, origin) = (&call.head.method, &call.head.target.origin());
        told.tell(|call| Event::CallStart {
            call,
            method,
            origin,
        });
    }
    let outcome = match engine.interceptors.is_empty() {
        true => follow(engine, call, place).await,
        false => around_call(engine, call, place).await,
    };
    watch.ends(outcome.as_ref().map(|()| put(place).status()));
    outcome
}

/// Tells the end of a call.
struct CallWatch {
    told: Option<Arc<CallTold>>,
}

impl CallWatch {
    fn ends(mut self, outcome: Result<StatusCode, &Error>) {
        let Some(told) = self.told.take() else {
            return;
        };
        let attempts = told.attempts();
        told.tell(|call| match outcome {
            Ok(status) => Event::CallEnd {
                call,
                status,
                attempts,
            },
            Err(error) => Event::CallFailed {
                call,
                error,
                attempts,
            },
        });
    }
}

impl Drop for CallWatch {
    fn drop(&mut self) {
        if let Some(told) = &self.told {
            let attempts = told.attempts();
            told.tell(|call| Event::CallCancelled { call, attempts });
        }
    }
}

/// Makes an attempt that somebody watches, or that has interceptors around it.
pub(super) async fn attempt(hop: &mut Hop<'_>, before: Option<&Failed>) -> Result<(), Failed> {
    let Some(told) = hop.call.told.clone() else {
        return one(hop, before).await;
    };
    let number = told.next_attempt();
    told.tell(|call| Event::AttemptStart {
        call,
        attempt: number,
        method: &hop.call.head.method,
        origin: hop.host.origin(),
    });
    let watch = AttemptWatch {
        told: Some(told),
        number,
    };
    let span = {
        let head = &hop.call.head;
        AttemptSpan::begin(&head.method, hop.host.origin(), head.target.uri(), number)
    };
    let outcome = span.around(one(hop, before)).await;
    let ended = match &outcome {
        Ok(()) => Ok(put(hop.place).status()),
        Err(failed) => Err(&failed.error),
    };
    span.ends(ended);
    watch.ends(ended);
    outcome
}

async fn one(hop: &mut Hop<'_>, before: Option<&Failed>) -> Result<(), Failed> {
    match hop.engine.attempt_interceptors.is_empty() {
        true => exchange(hop, before).await,
        false => around_attempt(hop, before).await,
    }
}

/// Tells the end of an attempt.
struct AttemptWatch {
    told: Option<Arc<CallTold>>,
    number: u32,
}

impl AttemptWatch {
    fn ends(mut self, outcome: Result<StatusCode, &Error>) {
        let Some(told) = self.told.take() else {
            return;
        };
        let attempt = self.number;
        told.tell(|call| match outcome {
            Ok(status) => Event::AttemptEnd {
                call,
                attempt,
                status,
            },
            Err(error) => Event::AttemptFailed {
                call,
                attempt,
                error,
            },
        });
    }
}

impl Drop for AttemptWatch {
    fn drop(&mut self) {
        if let Some(told) = &self.told {
            let attempt = self.number;
            told.tell(|call| Event::AttemptCancelled { call, attempt });
        }
    }
}

impl Hop<'_> {
    /// There is to be another attempt: counts it, and tells of it.
    pub(super) fn retried(&self, why: RetryCause, wait: Duration) {
        self.host.counters().retried(why);
        if let Some(told) = &self.call.told {
            told.tell(|call| Event::Retry { call, why, wait });
        }
    }
}

/// Whom the policies of one URL of a call tell what they decide.
///
/// Boxed, so that it does not weigh on the future of a call that nobody watches.
pub(super) struct PolicyWatch<'a>(Option<Box<(Arc<CallTold>, &'a Origin)>>);

impl<'a> PolicyWatch<'a> {
    pub(super) fn of(hop: &Hop<'a>) -> Self {
        let told = hop.call.told.as_ref();
        Self(told.map(|told| Box::new((Arc::clone(told), hop.host.origin()))))
    }

    pub(super) fn nobody() -> Self {
        Self(None)
    }

    /// A breaker was asked or told something.
    pub(super) fn breaker(&self, breaker: &Breaker) {
        if let Some((told, origin)) = self.0.as_deref() {
            if let Some(state) = breaker.news() {
                told.tell(|_| Event::BreakerChange { origin, state });
            }
        }
    }

    /// The server wants nobody to call for a while.
    pub(super) fn gate(&self, wait: Duration) {
        if let Some((told, origin)) = self.0.as_deref() {
            told.tell(|_| Event::RateGate { origin, wait });
        }
    }

    /// There will be no other attempt.
    pub(super) fn no_retry(&self, stop: Stop) {
        if let Some((told, _)) = self.0.as_deref() {
            let why = match stop {
                Stop::Final => RetryRefusal::Final,
                Stop::Attempts => RetryRefusal::Attempts,
                Stop::AskedTooLong => RetryRefusal::AskedTooLong,
                Stop::Deadline => RetryRefusal::Deadline,
                Stop::Circuit => RetryRefusal::Circuit,
                Stop::RateLimit => RetryRefusal::RateLimit,
                Stop::Budget => RetryRefusal::Budget,
            };
            told.tell(|call| Event::NoRetry { call, why });
        }
    }

    /// A call waits for so long; until what this returns is dropped.
    pub(super) fn rate_wait(&self, wait: Duration) -> Option<RateWait> {
        let (told, _) = self.0.as_deref()?;
        told.tell(|call| Event::RateWaitStart { call, wait });
        Some(RateWait(Arc::clone(told)))
    }
}

/// A wait because of the rate limit.
pub(super) struct RateWait(Arc<CallTold>);

impl Drop for RateWait {
    fn drop(&mut self) {
        self.0.tell(|call| Event::RateWaitEnd { call });
    }
}
