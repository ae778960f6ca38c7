//! Whether a connection may serve another request, and if not, why (RFC 9112 section 9, spec http1 a5).
//!
//! A response starts out with what its head allows; later facts (left-over bytes, an early reply, a dropped body) can only
//! take reuse away. The first reason stays, because it is the one that explains the rest.

/// The verdict on a connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Nothing speaks against it.
    Yes,
    /// It closes, for this reason.
    No(CloseReason),
}

/// Why a connection is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The response has `Connection: close`.
    PeerAsked,
    /// The request had `Connection: close`.
    WeAsked,
    /// The peer speaks HTTP/1.0 and did not ask to keep the connection.
    Http10,
    /// The body ends with the connection.
    UntilClose,
    /// Both Transfer-Encoding and Content-Length were present (RFC 9112 section 6.1).
    LengthAndChunked,
    /// The head broke a rule that only `ClientBuilder::lenient_heads` relaxes.
    LenientHead,
    /// Bytes followed the end of the response.
    LeftOver,
    /// The final response came before the request was written.
    EarlyResponse,
    /// It speaks another protocol now, or carries a tunnel.
    Switched,
}

impl Reuse {
    /// Takes reuse away, unless an earlier reason already did.
    pub(crate) fn refuse(&mut self, reason: CloseReason) {
        if *self == Self::Yes {
            *self = Self::No(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let mut reuse = Reuse::Yes;
        reuse.refuse(CloseReason::Http10);
        reuse.refuse(CloseReason::LeftOver);
        assert_eq!(reuse, Reuse::No(CloseReason::Http10));
    }
}
