//! Where the time of one call went, as its response tells it.
//!
//! Plain data: the spine fills it in and `Response::timings` hands it out. Drawing it as a chart is left to whoever
//! shows it.

use std::fmt;
use std::time::Duration;

use super::latency::Short;

/// The steps of one call up to its response head, each with the time it took. `None` is a step that did not happen. All but the
/// first two are of the last attempt.
///
/// Every call has them, because they are differences of moments that it has to know anyway. What would need further looks at
/// the clock, such as the moment at which the request was sent or the end of the body, an [`Observer`](crate::Observer) can time.
/// The connection itself, its number and its addresses are [`Response::connection`](crate::Response::connection).
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
    /// The redirects and the 401s that were answered, from the start of the call to the start of its last request.
    pub redirects: Option<Duration>,
    /// Earlier attempts of the last request and the waits between, and what a rate limit made it wait.
    pub earlier: Option<Duration>,
    /// Waiting for a connection, a dial that was waited for included.
    pub pool_wait: Option<Duration>,
    /// Resolving host names, that of a proxy included; `None` on a reused connection, where there is none but addresses, and
    /// where a custom connector or the proxy looks them up.
    pub resolve: Option<Duration>,
    /// Connecting over TCP; `None` on a reused connection.
    pub connect: Option<Duration>,
    /// The TLS handshake; `None` on a reused connection and for `http://`.
    pub tls: Option<Duration>,
    /// From the moment at which there was a connection to the response head: sending the request, and waiting for the answer.
    pub head: Option<Duration>,
    /// From the start of the call to the response head: `redirects`, `earlier`, `pool_wait` and `head` together.
    pub total: Option<Duration>,
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
            ("redirects", self.redirects),
            ("earlier attempts", self.earlier),
            ("pool wait", self.pool_wait),
            ("resolve", self.resolve),
            ("connect", self.connect),
            ("tls", self.tls),
            ("head", self.head),
            ("total", self.total),
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
            ..Timings::default()
        };
        assert_eq!(
            fresh.to_string(),
            "new connection: pool wait 36.0 ms, resolve 3.00 ms, connect 12.0 ms, tls 21.0 ms, head 140 ms"
        );
        let reused = Timings {
            redirects: step(1),
            earlier: step(2),
            head: step(2500),
            total: step(2503),
            reused: true,
            ..Timings::default()
        };
        assert_eq!(
            reused.to_string(),
            "reused connection: redirects 1.00 ms, earlier attempts 2.00 ms, head 2.50 s, total 2.50 s"
        );
    }
}
