//! What the pool does about HTTP/2 sessions (spec pool R-H2): a session comes, changes and goes; a slot comes back.
//!
//! `sessions.rs` decides who gets a stream; here it is asked under the host's lock, and what it answers is done. The driver of
//! a session calls, and so does a lease that ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Host;
use super::host::{DialId, Newcomer, SessionId, Spoken};
use crate::connection::{Driver, Prepared, Session, SessionChange, Standing};
use crate::stats::{AlpnEvent, CloseCause, DialEvent};

impl Host {
    /// A dial has made a session: it serves all it can, and its driver begins to run.
    pub(super) fn dialled_http2(&self, id: DialId, session: &Arc<Session>, driver: Box<Driver>) {
        let now = Instant::now();
        self.counters().opened(session.info().dial_time());
        if session.info().negotiated {
            self.counters().alpn(AlpnEvent::Http2);
        }
        self.learn(Spoken::Http2, now);
        // What the last session was allowed is a better guess than what every peer allows.
        let max_streams = session.max_streams();
        let max_streams = max_streams.min(self.max_streams().load(Ordering::Relaxed));
        let ends = self.age(&standing(session)).end_of_life();
        let newcomer = Newcomer::Http2 {
            session: Arc::clone(session),
            max_streams,
            ends,
        };
        let mut state = self.lock();
        let mut actions = state.dialled(id, newcomer, now, now);
        // Under the lock: whoever marks all connections as stale retires the sessions under it.
        if self.shared().is_stale(session.dialled()) {
            let retired = actions.opened.and_then(|id| state.retire(id));
            actions.retired.extend(retired);
        }
        self.forget_served(&actions);
        drop(state);
        if actions.served.is_empty() {
            self.counters().dial(DialEvent::Surplus);
        }
        let host = self.weak();
        match actions.opened {
            Some(id) => {
                let connection = session.info().id;
                let changed = move |change| {
                    if let Some(host) = host.upgrade() {
                        host.session_changed(id, connection, change);
                    }
                };
                self.runtime().spawn(driver.run(changed));
            }
            // Retired at once: nothing is open on it.
            None => {
                self.counters().alpn(AlpnEvent::Deduplicated);
                self.closes(session.info().id, CloseCause::Superfluous);
                drop(driver);
            }
        }
        self.act(actions, CloseCause::Lifetime);
        self.pump();
    }

    /// A dial came to speak HTTP/2 when an open session had room for everybody: it is closed before its first byte.
    pub(super) fn dialled_in_vain(&self, id: DialId, prepared: &Prepared) {
        let now = Instant::now();
        self.counters().opened(prepared.info().dial_time());
        if prepared.info().negotiated {
            self.counters().alpn(AlpnEvent::Http2);
        }
        self.counters().alpn(AlpnEvent::Deduplicated);
        self.closes(prepared.info().id, CloseCause::Superfluous);
        self.learn(Spoken::Http2, now);
        self.lock().dial_dropped(id, now);
        self.pump();
    }

    /// A session has something to say.
    fn session_changed(&self, id: SessionId, connection: u64, change: SessionChange) {
        let now = Instant::now();
        match change {
            SessionChange::MaxStreams(max) => {
                self.max_streams().store(max.max(1), Ordering::Relaxed);
                let mut state = self.lock();
                let actions = state.set_max_streams(id, max, now);
                self.forget_served(&actions);
                drop(state);
                self.act(actions, CloseCause::Lifetime);
            }
            SessionChange::Suspected | SessionChange::Trusted => {
                let is_suspect = change == SessionChange::Suspected;
                let mut state = self.lock();
                let actions = state.set_suspect(id, is_suspect, now);
                self.forget_served(&actions);
                drop(state);
                self.act(actions, CloseCause::Lifetime);
            }
            SessionChange::Retired => self.retire(id),
            SessionChange::Gone(why) => {
                let handle = self.lock().session_gone(id);
                drop(handle);
                self.closes(connection, why);
            }
        }
        self.pump();
    }

    /// A session takes no new streams.
    pub(super) fn retire(&self, id: SessionId) {
        // Dropped once the lock is released: it may be the last, and then the session ends.
        let handle = self.lock().retire(id);
        drop(handle);
    }

    /// A stream is done.
    pub(super) fn release_slot(&self, id: SessionId, now: Instant) {
        let mut state = self.lock();
        let actions = state.release_slot(id, now);
        self.forget_served(&actions);
        drop(state);
        self.act(actions, CloseCause::Lifetime);
    }

    /// A slot was lent of a session that has ended meanwhile.
    pub(super) fn give_up_slot(&self, id: SessionId, now: Instant) {
        self.retire(id);
        self.release_slot(id, now);
    }

    /// Whether a session that is retired by the clock has reached its age, and was not merely idle.
    pub(super) fn has_aged(&self, session: &Session, now: Instant) -> bool {
        let ends = self.age(&standing(session)).end_of_life();
        ends.is_some_and(|ends| ends <= now)
    }
}

/// What of a session decides about its age.
fn standing(session: &Session) -> Standing {
    Standing {
        close: None,
        served: 0,
        dialled: session.dialled(),
        id: session.info().id,
        keep_alive: None,
    }
}
