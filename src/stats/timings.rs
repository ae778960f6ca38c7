//! Where the time of one call went, as its response tells it.
//!
//! Plain data: the spine fills it in and `Response::timings` hands it out. Drawing it as a chart is left to whoever
//! shows it.

use std::fmt;
use std::time::Duration;

use super::latency::Short;

/// The steps of one call's last attempt, each with the time it took. `None` is a step that did not happen.
///
/// `Display` gives one line: `new connection: pool wait 1.20 ms, resolve 3.00 ms, ..`.
///
/// ```
/// use sockeye::stats::Timings;
///
/// let timings = Timings::default();
/// assert!(!timings.reused);
/// assert_eq!(timings.to_string(), "new connection");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Waiting for a connection, a dial that was waited for included.
    pub pool_wait: Option<Duration>,
    /// Resolving the host name; `None` on a reused connection, for an address and for a custom connector.
    pub resolve: Option<Duration>,
    /// Connecting over TCP; `None` on a reused connection.
    pub connect: Option<Duration>,
    /// The TLS handshake; `None` on a reused connection and for `http://`.
    pub tls: Option<Duration>,
    /// From the start of the request to the response head.
    pub head: Option<Duration>,
    /// Whether the connection had served a request before.
    pub reused: bool,
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.reused {
            "reused connection"
        } else {
            "new connection"
        })?;
        let mut lead = ": ";
        for (step, took) in [
            ("pool wait", self.pool_wait),
            ("resolve", self.resolve),
            ("connect", self.connect),
            ("tls", self.tls),
            ("head", self.head),
        ] {
            if let Some(took) = took {
                write!(f, "{lead}{step} {}", Short(took))?;
                lead = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_the_steps_that_happened() {
        let step = |millis| Some(Duration::from_millis(millis));
        let fresh = Timings {
            pool_wait: step(36),
            resolve: step(3),
            connect: step(12),
            tls: step(21),
            head: step(140),
            reused: false,
        };
        assert_eq!(
            fresh.to_string(),
            "new connection: pool wait 36.0 ms, resolve 3.00 ms, connect 12.0 ms, tls 21.0 ms, head 140 ms"
        );
        let reused = Timings {
            head: step(2500),
            reused: true,
            ..Timings::default()
        };
        assert_eq!(reused.to_string(), "reused connection: head 2.50 s");
    }
}
