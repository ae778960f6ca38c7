//! Words that the conventions of OpenTelemetry for HTTP leave to the library, the same in spans and in metrics.
//!
//! Pure. `spans.rs` and `otel.rs` use it.

use http::Version;

use crate::error::{Error, ErrorKind, Phase};

/// The value of `error.type`: from a small set, so that it can be counted by.
pub(super) fn error_type(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Body => "body",
        ErrorKind::CircuitOpen => "breaker_open",
        ErrorKind::ClientClosed => "client_closed",
        ErrorKind::Connect => "connect",
        ErrorKind::Decode => "decode",
        ErrorKind::Interceptor => "interceptor",
        ErrorKind::InvalidRequest => "invalid_request",
        ErrorKind::Io => "reset",
        ErrorKind::PoolFull => "pool_full",
        ErrorKind::Protocol | ErrorKind::TooLarge => "protocol",
        ErrorKind::Proxy => "proxy",
        ErrorKind::RateLimited => "rate_limited",
        ErrorKind::Redirect => "redirect",
        ErrorKind::Resolve => "dns",
        ErrorKind::Status => "status",
        ErrorKind::Timeout if error.is_total() => "deadline",
        ErrorKind::Timeout => match error.phase() {
            Some(Phase::Pool) => "pool_timeout",
            Some(Phase::Resolve | Phase::Connect | Phase::Tls) => "connect_timeout",
            Some(Phase::Write) => "write_timeout",
            Some(Phase::Head | Phase::Read) => "read_timeout",
            Some(Phase::Prepare) | None => "deadline",
        },
        ErrorKind::Tls => "tls",
    }
}

/// The value of `network.protocol.version`.
pub(super) fn protocol_version(protocol: Version) -> &'static str {
    match protocol {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
