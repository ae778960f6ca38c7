//! The reasons that events are counted by: why a connection was closed, how a checkout ended, what a dial came to.
//!
//! Names and words only. The numbers are in `counts.rs`, the moments at which they move in `counters.rs`. The pool and
//! the call name a reason when they count; users name one when they ask for its count.

use std::fmt;

/// Makes an enum of reasons, each with the words that `Display` gives it.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $words:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $words),+ })
            }
        }
    };
}

reasons! {
    /// Why a connection was closed. New reasons may be added.
    ///
    /// ```
    /// use sockeye::stats::CloseCause;
    ///
    /// assert_eq!(CloseCause::PeerClosed.to_string(), "closed by the peer");
    /// assert!(CloseCause::Idle < CloseCause::PoolClosed);
    /// ```
    CloseCause {
        /// It was idle for longer than the idle timeout.
        Idle => "idle for too long",
        /// It was idle for almost as long as the server's `Keep-Alive` field said that it would wait, or that field left
        /// no time at all.
        KeepAliveHint => "at the end of the server's keep-alive time",
        /// It reached its longest life, in time or in requests.
        Lifetime => "at the end of its lifetime",
        /// More connections were idle than may be kept.
        MaxIdle => "more idle connections than allowed",
        /// It was idle and had to make room for a connection to another origin.
        Evicted => "evicted for another origin",
        /// The peer closed it while it was idle.
        PeerClosed => "closed by the peer",
        /// The peer sent bytes that nobody had asked for while it was idle.
        Unsolicited => "unsolicited bytes from the peer",
        /// It failed while it was in use.
        Error => "failed in use",
        /// The caller dropped an exchange before its end.
        Dropped => "dropped before the end of its exchange",
        /// The caller dropped a response body half read, and the rest was not worth reading or could not be read.
        DrainGaveUp => "the rest of a dropped body was not read",
        /// It was opened before the connections were marked as stale, or before the machine slept.
        Stale => "marked as stale",
        /// The response had `Connection: close`.
        PeerAsked => "the peer asked for it",
        /// The request had `Connection: close`.
        WeAsked => "the request asked for it",
        /// The peer speaks HTTP/1.0 and did not offer to keep it.
        Http10 => "not kept by an HTTP/1.0 peer",
        /// The body of the response ended with it.
        UntilClose => "it was the end of the body",
        /// The response could be read in two ways: it had both Transfer-Encoding and Content-Length, or a head that only
        /// `lenient_heads` accepts. What follows might belong to another message.
        DoubtfulFraming => "its framing was doubtful",
        /// The final response came before the request was written.
        EarlyResponse => "answered before the request was sent",
        /// It was handed over to another protocol, or as a tunnel, and is no longer the pool's.
        Upgraded => "handed over to another protocol",
        /// The runtime that its socket belongs to ended.
        RuntimeGone => "its runtime ended",
        /// The client was closed: it was idle, or was in use and came to the end of its exchange.
        PoolClosed => "the client was closed",
        /// It is an HTTP/2 session that came to be when another one had room for everybody.
        Superfluous => "another session had room",
        /// The peer ended the HTTP/2 session in an orderly way (GOAWAY).
        GoAway => "the peer said GOAWAY",
        /// An HTTP/2 session came to one of its bounds: stream numbers, cancelled streams, broken streams.
        WornOut => "the session was worn out",
        /// It was still in use at the deadline by which the client had to be closed.
        Cut => "cut off by the closing client",
    }
}

reasons! {
    /// What an attempt got from the pool. New kinds may be added.
    ///
    /// ```
    /// use sockeye::stats::Checkout;
    ///
    /// assert_eq!(Checkout::Reused.to_string(), "a kept connection");
    /// ```
    Checkout {
        /// An HTTP/1.1 connection that had served an exchange before.
        Reused => "a kept connection",
        /// A connection that no exchange had been on; the first stream of a new HTTP/2 session is one of these.
        Fresh => "a new connection",
        /// A further stream of an HTTP/2 session.
        Slot => "a stream of an open session",
    }
}

reasons! {
    /// What happened to a dial, the making of a connection: name, TCP and TLS together. New events may be added.
    ///
    /// A dial starts, comes to one end at most, and may be surplus in addition. One that has started and not ended
    /// still runs, or was dropped because its client was closed or its runtime ended.
    ///
    /// ```
    /// use sockeye::stats::DialEvent;
    ///
    /// assert_eq!(DialEvent::TimedOut.to_string(), "dial timed out");
    /// ```
    DialEvent {
        /// It began.
        Started => "dial started",
        /// It ended with a connection.
        Succeeded => "dial succeeded",
        /// It ended without a connection, for another reason than the time it took.
        Failed => "dial failed",
        /// It ended without a connection at its time limit.
        TimedOut => "dial timed out",
        /// It succeeded, and nobody waited for its connection any more; the next call finds it idle.
        Surplus => "nobody waited for the connection",
    }
}

reasons! {
    /// What a look at an idle connection found, when it took more than a look at the readiness flag. New outcomes may
    /// be added.
    ///
    /// A flag that is not set is the common case and is not counted: see [`ProbeCounts`](super::ProbeCounts).
    ///
    /// ```
    /// use sockeye::stats::ProbeOutcome;
    ///
    /// assert_eq!(ProbeOutcome::KernelDead.to_string(), "dead by word of the kernel");
    /// ```
    ProbeOutcome {
        /// The kernel was asked, and nothing had arrived.
        KernelAlive => "alive by word of the kernel",
        /// The kernel was asked, and there was an end, an error, or a byte that nobody had asked for.
        KernelDead => "dead by word of the kernel",
        /// The readiness flag was set without harm: it was out of date, or TLS records without content had arrived, such
        /// as session tickets.
        SettledAlive => "alive after a closer look",
        /// The readiness flag was set for good reason: an end, an error, or a byte that nobody had asked for.
        SettledDead => "dead after a closer look",
    }
}

reasons! {
    /// Why an attempt could be followed by another one of the same call. New reasons may be added.
    ///
    /// ```
    /// use sockeye::stats::RetryCause;
    ///
    /// assert_eq!(RetryCause::Unwritten.to_string(), "nothing was written");
    /// ```
    RetryCause {
        /// A kept connection closed before any byte of the response, and the request may be sent twice.
        Stale => "the connection was stale",
        /// Nothing of the request had been written.
        Unwritten => "nothing was written",
        /// The server refused the HTTP/2 stream before it processed anything: `REFUSED_STREAM`.
        Refused => "the stream was refused",
        /// The server ended the HTTP/2 session before this stream: `GOAWAY` with a lower last stream.
        GoAway => "the session was going away",
        /// The server wants the request over HTTP/1.1: `HTTP_1_1_REQUIRED`.
        Http1Required => "HTTP/1.1 was required",
        /// The server refused the expectation of a request with `Expect: 100-continue`, which is sent again without it.
        ExpectationRefused => "its expectation was refused",
        /// By policy ([`Retry`](crate::Retry)): no connection came about.
        NoConnection => "there was no connection",
        /// By policy: the connection failed before the response head.
        Failed => "the attempt failed",
        /// By policy: a time limit struck before the response head.
        TimedOut => "the attempt timed out",
        /// By policy: the server said that it is asked too often.
        Throttled => "the server asked to wait",
        /// By policy: the status is one to try again.
        Status => "the status was an error",
    }
}

reasons! {
    /// Why a policy made no further attempt. New reasons may be added.
    ///
    /// ```
    /// use sockeye::stats::RetryRefusal;
    ///
    /// assert_eq!(RetryRefusal::Attempts.to_string(), "there were as many attempts as allowed");
    /// ```
    RetryRefusal {
        /// The outcome is none to try again, or the request is none that may be sent again.
        Final => "it would not be right",
        /// [`Retry::max_attempts`](crate::Retry) was reached.
        Attempts => "there were as many attempts as allowed",
        /// The server asks for a longer wait than [`Retry::max_retry_after`](crate::Retry).
        AskedTooLong => "the server asks for too long a wait",
        /// The wait would go beyond the total limit of the call.
        Deadline => "the call has not that much time left",
        /// The circuit breaker will be open.
        Circuit => "the circuit breaker is open",
        /// The rate limit would hold it back for longer than [`RateLimit::max_wait`](crate::RateLimit), or than the call has left.
        RateLimit => "the rate limit holds it back for too long",
        /// The [`RetryBudget`](crate::RetryBudget) of the origin is used up.
        Budget => "the budget is used up",
    }
}

reasons! {
    /// What became of a response body over HTTP/1.1 that its caller dropped before its end. New outcomes may be added.
    ///
    /// Only [`GaveUp`](Self::GaveUp) costs the connection.
    ///
    /// ```
    /// use sockeye::stats::DrainOutcome;
    ///
    /// assert_eq!(DrainOutcome::Inline.to_string(), "read at once");
    /// ```
    DrainOutcome {
        /// The rest had been read from the socket already.
        Buffered => "already in the buffer",
        /// The rest had arrived, and was read in the drop.
        Inline => "read at once",
        /// A task read the rest.
        Task => "read by a task",
        /// The rest was not worth reading, took too long, or failed.
        GaveUp => "given up",
    }
}

reasons! {
    /// What a TLS handshake settled about the protocol (ALPN). New events may be added.
    ///
    /// Each handshake is one of the first two, and may be one or both of the others in addition.
    ///
    /// ```
    /// use sockeye::stats::AlpnEvent;
    ///
    /// assert_eq!(AlpnEvent::Http2.to_string(), "HTTP/2 was negotiated");
    /// ```
    AlpnEvent {
        /// The connection speaks HTTP/1.1, by choice of the server or because it chose nothing.
        Http1 => "HTTP/1.1 was negotiated",
        /// The connection speaks HTTP/2.
        Http2 => "HTTP/2 was negotiated",
        /// The connection speaks HTTP/2 and was closed unused, because an open session had room for all who waited.
        Deduplicated => "an open session made it superfluous",
        /// The protocol was another one than that of the connections to this origin before.
        Flipped => "the protocol had changed",
    }
}
