//! What the pool tells observers: how its dials begin and end, which connections are lent and to whom, and why they close.
//!
//! Each of these is counted at the same place. Nothing here is called with a lock held.

use std::sync::Arc;

use http::Version;

use super::Host;
use super::lease::Lease;
use crate::connection::{Answer, AnswerBody, Connection};
use crate::error::Error;
use crate::stats::{CallTold, Checkout, CloseCause, Event, LeaseTold, Observers};

impl Host {
    /// Whom this pool tells.
    pub(super) fn observers(&self) -> Option<&Arc<Observers>> {
        self.shared().observers.as_ref()
    }

    /// A connection closes.
    pub(super) fn closes(&self, connection: u64, why: CloseCause) {
        self.counters().closed(why);
        if let Some(observers) = self.observers() {
            let origin = self.origin();
            observers.tell(&Event::ConnectionClosed {
                connection,
                origin,
                why,
            });
        }
    }

    pub(super) fn dial_begins(&self, connection: u64) {
        if let Some(observers) = self.observers() {
            let origin = self.origin();
            observers.tell(&Event::DialStart { connection, origin });
        }
    }

    pub(super) fn dial_ends(&self, connection: u64, protocol: Version) {
        if let Some(observers) = self.observers() {
            let origin = self.origin();
            observers.tell(&Event::DialEnd {
                connection,
                origin,
                protocol,
            });
        }
    }

    pub(super) fn dial_fails(&self, connection: u64, error: Option<&Error>) {
        if let Some(observers) = self.observers() {
            let origin = self.origin();
            observers.tell(&Event::DialFailed {
                connection,
                origin,
                error,
            });
        }
    }
}

impl Lease {
    /// An attempt has got this connection: counts it, and tells whoever watches the call.
    pub(super) fn begin(&mut self, told: Option<&Arc<CallTold>>) {
        let Some(connection) = &self.connection else {
            return;
        };
        let reused = connection.is_reused();
        self.host.counters().checked_out(match connection {
            _ if !reused => Checkout::Fresh,
            Connection::Http2(_) => Checkout::Slot,
            Connection::Http1(_) => Checkout::Reused,
        });
        if let Some(call) = told {
            let info = connection.info();
            let (origin, protocol) = (self.host.origin(), info.protocol);
            let told = LeaseTold::begin(call, info.id, origin, reused, protocol, info.remote_addr);
            self.told = Some(told);
        }
    }

    /// The head of a response has come, and perhaps all of it.
    pub(super) fn tell_answer(&mut self, answer: &Answer) {
        let Some(told) = &mut self.told else {
            return;
        };
        told.head(answer.head.status);
        if answer.body == AnswerBody::Kept {
            told.body(answer.head.kept_body_len());
        }
        if answer.body != AnswerBody::Streaming {
            told.body_end();
        }
    }
}
