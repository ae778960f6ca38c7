//! The trace context of OpenTelemetry in each attempt, in the form of the W3C.
//!
//! An interceptor of attempts like any of a user's: a client that is not given it has nothing of it. It reads the current context and
//! writes two fields; it makes no span.

use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};

use crate::body::Body;
use crate::call::{Interceptor, Next};
use crate::error::{BoxFuture, Result};
use crate::response::Response;

/// Puts the current trace context of OpenTelemetry into each attempt, as `traceparent` and `tracestate`
/// ([W3C Trace Context](https://www.w3.org/TR/trace-context/)). Feature `otel`.
///
/// The context is that of the span which is active when the attempt begins: one that the program has made current, or, with the feature
/// `tracing` and a subscriber that makes spans of OpenTelemetry current (tracing-opentelemetry does), the span of the
/// attempt itself, so that each attempt has its own. Without an active span nothing is added, and nothing is made up. A request that has
/// a `traceparent`, its own or the client's default, keeps it and gets neither field.
///
/// It is for every origin that the client calls, those that redirects lead to included. The fields hold random numbers, a mark whether the
/// trace is recorded, and what tracing systems of the program have put into the trace state; the baggage is not sent. An interceptor that
/// is registered behind it can take the fields out again.
///
/// It speaks to version 0.33 of the crate `opentelemetry`; a program with another one has a current context that is not seen here.
///
/// ```
/// use sockeye::{Client, TraceContext};
///
/// let client = Client::builder().attempt_interceptor(TraceContext::new()).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TraceContext;

impl TraceContext {
    /// For [`ClientBuilder::attempt_interceptor`](crate::ClientBuilder::attempt_interceptor).
    ///
    /// ```
    /// let trace_context = sockeye::TraceContext::new();
    /// ```
    pub fn new() -> Self {
        Self
    }
}

impl Interceptor for TraceContext {
    fn intercept<'a>(
        &'a self,
        mut request: http::Request<Body>,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Response>> {
        Context::map_current(|context| {
            inject(context.span().span_context(), request.headers_mut());
        });
        next.run(request)
    }
}

/// Adds both fields, unless there is nothing to tell or the request tells something already.
fn inject(span: &SpanContext, fields: &mut HeaderMap) {
    if !span.is_valid() {
        return;
    }
    // A map that is full takes no more; the request then goes without.
    let Ok(Entry::Vacant(parent)) = fields.try_entry(TRACEPARENT) else {
        return;
    };
    // Of the flags only this one is defined in version 00 (Trace Context, section 3.2.2.5).
    let flags = u8::from(span.is_sampled());
    let text = format!(
        "00-{:032x}-{:016x}-{flags:02x}",
        span.trace_id(),
        span.span_id()
    );
    let Ok(value) = HeaderValue::try_from(text) else {
        return;
    };
    if parent.try_insert(value).is_err() {
        return;
    }
    let state = span.trace_state().header();
    // A state that is no field value is left out: the parent is worth something without it.
    if let Some(state) = HeaderValue::try_from(state)
        .ok()
        .filter(|state| !state.is_empty())
    {
        let _ = fields.try_insert(TRACESTATE, state);
    }
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    fn check(
        trace: u128,
        flags: u8,
        state: TraceState,
        before: &[(&str, &str)],
        after: &[(&str, &str)],
    ) {
        let map = |fields: &[(&str, &str)]| -> HeaderMap {
            let fields = fields.iter().map(|(name, value)| {
                let name = HeaderName::try_from(*name).expect("a good name");
                (name, HeaderValue::try_from(*value).expect("a good value"))
            });
            fields.collect()
        };
        let span = SpanContext::new(
            TraceId::from(trace),
            SpanId::from(0xb7),
            TraceFlags::new(flags),
            false,
            state,
        );
        let mut fields = map(before);
        inject(&span, &mut fields);
        assert_eq!(fields, map(after));
    }

    #[test]
    fn a_context_is_written_as_version_00_has_it() {
        let none = TraceState::default;
        let state = || TraceState::from_key_value([("v", "1"), ("w", "2")]).expect("a good state");
        const PARENT: &str = "00-00000000000000000000000000000a11-00000000000000b7-01";
        check(0xa11, 1, none(), &[], &[("traceparent", PARENT)]);
        check(
            0xa11,
            0,
            none(),
            &[],
            &[(
                "traceparent",
                "00-00000000000000000000000000000a11-00000000000000b7-00",
            )],
        );
        // A flag of later versions.
        check(0xa11, 3, none(), &[], &[("traceparent", PARENT)]);
        check(
            0xa11,
            1,
            state(),
            &[("tracestate", "old=1")],
            &[("traceparent", PARENT), ("tracestate", "v=1,w=2")],
        );
        // No span, and a request with a parent of its own.
        check(0, 1, state(), &[], &[]);
        check(
            0xa11,
            1,
            state(),
            &[("traceparent", "mine")],
            &[("traceparent", "mine")],
        );
    }
}
