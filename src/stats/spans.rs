//! Spans of the crate `tracing`, by the names that OpenTelemetry gives the spans of HTTP clients (feature `tracing`).
//!
//! One span an attempt, none around the call: a call of several attempts shows as that many spans beside each other, inside
//! whatever span the caller is in. A span is named for the method and nothing else, and ends when the head of the response is
//! read; the end of the body is an event, since whoever reads it may do so much later or never. A span that is dropped before it
//! has an outcome is that of a cancelled call, and says neither status nor error.
//!
//! The tasks of the pool, such as dials and the drivers of HTTP/2 sessions, are spawned without a span: a task of tokio has none
//! but those that it is given, so no span stays open for as long as a connection does.

use std::fmt::Write as _;
use std::future::Future;
use std::net::SocketAddr;

use http::{Method, StatusCode, Uri, Version};
use tracing::field::{Empty, display};
use tracing::{Instrument, Level, Span, debug, level_enabled};

use super::conventions::{error_type, protocol_version};
use crate::error::Error;
use crate::url::Origin;

/// Whether anybody listens to spans at all. Costs one load.
pub(crate) fn are_on() -> bool {
    level_enabled!(Level::INFO)
}

/// The span of an attempt.
pub(crate) struct AttemptSpan(Span);

/// A span with this name. Names are static, so each method has a call site of its own.
macro_rules! span {
    ($name:literal, $attempt:expr) => {{
        let attempt: &Attempt<'_> = $attempt;
        tracing::info_span!(
            target: TARGET,
            $name,
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = attempt.known,
            http.request.method_original = attempt.original,
            http.request.resend_count = attempt.resend_count,
            server.address = attempt.origin.host(),
            server.port = attempt.origin.port(),
            url.full = redacted(attempt.origin, attempt.uri),
            network.protocol.version = Empty,
            network.peer.address = Empty,
            network.peer.port = Empty,
            http.response.status_code = Empty,
            "error.type" = Empty,
        )
    }};
}

/// What a span begins with.
struct Attempt<'a> {
    known: &'a str,
    original: Option<&'a str>,
    origin: &'a Origin,
    uri: &'a Uri,
    resend_count: Option<u32>,
}

impl AttemptSpan {
    /// The attempt of a call that has this number, from 1 on.
    pub(crate) fn begin(method: &Method, origin: &Origin, uri: &Uri, number: u32) -> Self {
        let name = method.as_str();
        let mut attempt = Attempt {
            known: name,
            original: None,
            origin,
            uri,
            resend_count: number.checked_sub(1).filter(|again| *again > 0),
        };
        let attempt = &mut attempt;
        Self(match name {
            "GET" => span!("GET", attempt),
            "HEAD" => span!("HEAD", attempt),
            "POST" => span!("POST", attempt),
            "PUT" => span!("PUT", attempt),
            "PATCH" => span!("PATCH", attempt),
            "DELETE" => span!("DELETE", attempt),
            "OPTIONS" => span!("OPTIONS", attempt),
            "CONNECT" => span!("CONNECT", attempt),
            "TRACE" => span!("TRACE", attempt),
            other => {
                attempt.known = "_OTHER";
                attempt.original = Some(other);
                span!("HTTP", attempt)
            }
        })
    }

    /// Does the work inside the span.
    pub(crate) async fn around<F: Future>(&self, work: F) -> F::Output {
        work.instrument(self.0.clone()).await
    }

    /// The attempt has come to this.
    pub(crate) fn ends(self, outcome: Result<StatusCode, &Error>) {
        match outcome {
            Ok(status) => {
                self.0.record("http.response.status_code", status.as_u16());
                if status.as_u16() >= 400 {
                    self.0.record("error.type", status.as_str());
                    self.0.record("otel.status_code", "ERROR");
                }
            }
            Err(error) => {
                self.0.record("error.type", error_type(error));
                self.0.record("otel.status_code", "ERROR");
            }
        }
    }
}

/// The attempt whose span this is called in has got a connection.
pub(crate) fn connected(protocol: Version, peer: Option<SocketAddr>) {
    let span = Span::current();
    // It may be one of an interceptor's.
    let is_ours = span.metadata().is_some_and(|span| span.target() == TARGET);
    if !is_ours {
        return;
    }
    span.record("network.protocol.version", protocol_version(protocol));
    if let Some(peer) = peer {
        span.record("network.peer.address", display(peer.ip()));
        span.record("network.peer.port", peer.port());
    }
}

/// The body of a response was read to its end, failed, or was dropped.
pub(crate) fn body_ends(connection: u64, bytes: u64, outcome: BodyOutcome<'_>) {
    match outcome {
        BodyOutcome::End => debug!(
            target: TARGET,
            { http.response.body.size = bytes, connection = connection },
            "end of a response body"
        ),
        BodyOutcome::Failed(error) => debug!(
            target: TARGET,
            {
                http.response.body.size = bytes,
                connection = connection,
                "error.type" = error_type(error)
            },
            "a response body failed"
        ),
        BodyOutcome::Dropped => debug!(
            target: TARGET,
            { http.response.body.size = bytes, connection = connection },
            "a response body was dropped before its end"
        ),
    }
}

/// What became of a body.
#[derive(Clone, Copy)]
pub(crate) enum BodyOutcome<'a> {
    End,
    Failed(&'a Error),
    Dropped,
}

/// A URL with its path and the names in its query, and none of the values there, which may be secrets.
fn redacted(origin: &Origin, uri: &Uri) -> String {
    let mut text = format!("{origin}{}", uri.path());
    let mut separator = '?';
    for pair in uri.query().unwrap_or_default().split('&') {
        let name = match pair.split_once('=') {
            Some((name, _)) => name,
            None if pair.is_empty() => continue,
            // A value without a name.
            None => "",
        };
        let equals = if name.is_empty() { "" } else { "=" };
        let _ = write!(text, "{separator}{name}{equals}REDACTED");
        separator = '&';
    }
    text
}

/// What filters know these spans and events by.
const TARGET: &str = "sockeye";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::origin;

    #[test]
    fn a_url_is_shown_without_the_values_of_its_query() {
        for (url, expected) in [
            ("https://a.test/x", "https://a.test/x"),
            ("https://a.test:444", "https://a.test:444/"),
            (
                "https://a.test/x?a=1&b=&c",
                "https://a.test/x?a=REDACTED&b=REDACTED&REDACTED",
            ),
            ("https://a.test/x?=secret", "https://a.test/x?REDACTED"),
            ("https://a.test/x?", "https://a.test/x"),
            ("https://a.test/x?&&a=b=c", "https://a.test/x?a=REDACTED"),
        ] {
            let uri: Uri = url.parse().expect("a good URL");
            let whose = url.split('/').take(3).collect::<Vec<_>>().join("/");
            assert_eq!(redacted(&origin(&whose), &uri), expected);
        }
    }
}
