//! Whom events are told to, and the guards that tell an end of everything that has begun.
//!
//! A client without observers has no [`Observers`], and whoever has something to tell asks for them first: that test is all that
//! an event costs then. A guard tells the end that it is given, and if it is dropped without one, that what it stands for was
//! given up. So there is one end whatever happens, a dropped future and a panic included. The call, the pool and the socket use these.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use http::{StatusCode, Version};

use super::event::{CallId, Event, EventMask, Observer};
use super::spans::{self, BodyOutcome};
use crate::error::Error;
use crate::url::Origin;

/// The observers of a client: at least one, with an interest in at least one event.
pub(crate) struct Observers {
    each: Vec<(EventMask, Arc<dyn Observer>)>,
    interest: EventMask,
    panics: AtomicU64,
}

impl Observers {
    /// `None` if nobody wants to know anything.
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>) -> Option<Arc<Self>> {
        let mut interest = EventMask::NONE;
        let mut each = Vec::new();
        for observer in observers {
            let own = observer.interest();
            if !own.is_empty() {
                interest |= own;
                each.push((own, observer));
            }
        }
        let panics = AtomicU64::new(0);
        (!each.is_empty()).then(|| {
            Arc::new(Self {
                each,
                interest,
                panics,
            })
        })
    }

    /// Tells everybody who wants to know. Not to be called with a lock held: an observer may ask the client anything.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        let group = event.group();
        if !self.interest.contains(group) {
            return;
        }
        for (interest, observer) in &self.each {
            if !interest.contains(group) {
                continue;
            }
            // Of ours nothing is half done here, and what it leaves of its own behind is its affair.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| observer.on(event))) {
                self.panics.fetch_add(1, Ordering::Relaxed);
                // What a panic carries may panic once more when it is dropped.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
            }
        }
    }

    /// How often an observer panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// A call that somebody watches.
pub(crate) struct CallTold {
    /// `None` if its attempts are traced and nobody observes it.
    observers: Option<Arc<Observers>>,
    id: CallId,
    attempts: AtomicU32,
}

impl CallTold {
    pub(crate) fn new(observers: Option<&Arc<Observers>>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            observers: observers.cloned(),
            id: CallId(NEXT.fetch_add(1, Ordering::Relaxed)),
            attempts: AtomicU32::new(0),
        })
    }

    /// Tells what is made of the call's id.
    pub(crate) fn tell<'a>(&self, make: impl FnOnce(CallId) -> Event<'a>) {
        if let Some(observers) = &self.observers {
            observers.tell(&make(self.id));
        }
    }

    /// The number of the attempt that begins now; the first is 1.
    pub(crate) fn next_attempt(&self) -> u32 {
        self.attempts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Attempts so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }
}

/// A place in line.
pub(crate) struct QueueTold<'a> {
    told: Option<(&'a CallTold, &'a Origin)>,
    got: Option<u64>,
}

impl<'a> QueueTold<'a> {
    pub(crate) fn begin(call: Option<&'a Arc<CallTold>>, origin: &'a Origin) -> Self {
        if let Some(told) = call {
            told.tell(|call| Event::QueueStart { call, origin });
        }
        Self {
            told: call.map(|call| (&**call, origin)),
            got: None,
        }
    }

    /// The wait has got this connection.
    pub(crate) fn served(mut self, connection: u64) {
        self.got = Some(connection);
    }
}

impl Drop for QueueTold<'_> {
    fn drop(&mut self) {
        if let Some((told, origin)) = self.told {
            let connection = self.got;
            told.tell(|call| Event::QueueEnd {
                call,
                origin,
                connection,
            });
        }
    }
}

/// A loan of a connection, from its beginning to its end.
pub(crate) struct LeaseTold {
    call: Arc<CallTold>,
    connection: u64,
    origin: Origin,
    is_sent: bool,
    /// The head of a response has come, and not yet the end of its body.
    in_body: bool,
    bytes: u64,
}

impl LeaseTold {
    /// A connection was lent to a call.
    pub(crate) fn begin(
        call: &Arc<CallTold>,
        connection: u64,
        origin: &Origin,
        reused: bool,
        protocol: Version,
        remote_addr: Option<SocketAddr>,
    ) -> Box<Self> {
        spans::connected(protocol, remote_addr);
        call.tell(|call| Event::ConnectionAcquired {
            call,
            connection,
            origin,
            reused,
            protocol,
            remote_addr,
        });
        Box::new(Self {
            call: Arc::clone(call),
            connection,
            origin: origin.clone(),
            is_sent: false,
            in_body: false,
            bytes: 0,
        })
    }

    /// How far the request has come: `Some` once all of it was handed over, with what that took.
    pub(crate) fn sent(&mut self, sent: Option<u64>) {
        if let Some(bytes) = sent.filter(|_| !self.is_sent) {
            self.is_sent = true;
            let connection = self.connection;
            self.call.tell(|call| Event::RequestSent {
                call,
                connection,
                bytes,
            });
        }
    }

    /// The head of a final response has come.
    pub(crate) fn head(&mut self, status: StatusCode) {
        let connection = self.connection;
        self.call.tell(|call| Event::ResponseHead {
            call,
            connection,
            status,
        });
        self.in_body = true;
    }

    /// So many bytes more of the body have come.
    pub(crate) fn body(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    pub(crate) fn body_end(&mut self) {
        if std::mem::take(&mut self.in_body) {
            let (connection, bytes) = (self.connection, self.bytes);
            spans::body_ends(connection, bytes, BodyOutcome::End);
            self.call.tell(|call| Event::BodyEnd {
                call,
                connection,
                bytes,
            });
        }
    }

    pub(crate) fn body_failed(&mut self, error: &Error) {
        if std::mem::take(&mut self.in_body) {
            let (connection, bytes) = (self.connection, self.bytes);
            spans::body_ends(connection, bytes, BodyOutcome::Failed(error));
            self.call.tell(|call| Event::BodyFailed {
                call,
                connection,
                bytes,
                error,
            });
        }
    }
}

impl Drop for LeaseTold {
    fn drop(&mut self) {
        let (connection, bytes) = (self.connection, self.bytes);
        if self.in_body {
            spans::body_ends(connection, bytes, BodyOutcome::Dropped);
            self.call.tell(|call| Event::BodyDropped {
                call,
                connection,
                bytes,
            });
        }
        self.call.tell(|call| Event::ConnectionReleased {
            call,
            connection,
            origin: &self.origin,
        });
    }
}

/// A dial that somebody watches.
#[derive(Clone, Copy)]
pub(crate) struct DialTold<'a> {
    pub(crate) observers: &'a Observers,
    pub(crate) connection: u64,
    pub(crate) origin: &'a Origin,
}

/// A step of a dial. Nothing is told of it if nobody watches.
pub(crate) struct StepTold<'a> {
    told: Option<DialTold<'a>>,
    step: DialStep,
}

#[derive(Clone, Copy)]
enum DialStep {
    Dns,
    Connect(Option<SocketAddr>),
    Tls,
}

/// Why a step of a dial failed.
type TlsError<'a> = &'a (dyn std::error::Error + Send + Sync + 'static);

impl<'a> StepTold<'a> {
    /// A name is looked up.
    pub(crate) fn dns(told: Option<DialTold<'a>>) -> Self {
        Self::begin(told, DialStep::Dns)
    }

    /// A connection to an address begins.
    pub(crate) fn connect(told: Option<DialTold<'a>>, address: Option<SocketAddr>) -> Self {
        Self::begin(told, DialStep::Connect(address))
    }

    /// A handshake begins.
    pub(crate) fn tls(told: Option<DialTold<'a>>) -> Self {
        Self::begin(told, DialStep::Tls)
    }

    fn begin(told: Option<DialTold<'a>>, step: DialStep) -> Self {
        if let Some(DialTold {
            observers,
            connection,
            origin,
        }) = told
        {
            observers.tell(&match step {
                DialStep::Dns => Event::DnsStart { connection, origin },
                DialStep::Connect(address) => Event::ConnectStart {
                    connection,
                    origin,
                    address,
                },
                DialStep::Tls => Event::TlsStart { connection, origin },
            });
        }
        Self { told, step }
    }

    /// The name has so many addresses.
    pub(crate) fn found(mut self, addresses: usize) {
        self.end(|connection, origin| Event::DnsEnd {
            connection,
            origin,
            addresses,
        });
    }

    /// The connection stands.
    pub(crate) fn connected(mut self) {
        let DialStep::Connect(address) = self.step else {
            return;
        };
        self.end(|connection, origin| Event::ConnectEnd {
            connection,
            origin,
            address,
        });
    }

    /// The handshake is done.
    pub(crate) fn secured(mut self, version: &str, alpn: Option<Version>, resumed: bool) {
        self.end(|connection, origin| Event::TlsEnd {
            connection,
            origin,
            version,
            alpn,
            resumed,
        });
    }

    /// A lookup or a connection has failed.
    pub(crate) fn failed(mut self, error: io::ErrorKind) {
        self.fail(Some(error), None);
    }

    /// The handshake has failed.
    pub(crate) fn not_secured(mut self, error: TlsError<'_>) {
        self.fail(None, Some(error));
    }

    fn fail(&mut self, error: Option<io::ErrorKind>, tls: Option<TlsError<'_>>) {
        let step = self.step;
        self.end(|connection, origin| match step {
            DialStep::Dns => Event::DnsFailed {
                connection,
                origin,
                error,
            },
            DialStep::Connect(address) => Event::ConnectFailed {
                connection,
                origin,
                address,
                error,
            },
            DialStep::Tls => Event::TlsFailed {
                connection,
                origin,
                error: tls,
            },
        });
    }

    fn end<'e>(&mut self, make: impl FnOnce(u64, &'e Origin) -> Event<'e>)
    where
        'a: 'e,
    {
        if let Some(told) = self.told.take() {
            told.observers.tell(&make(told.connection, told.origin));
        }
    }
}

impl Drop for StepTold<'_> {
    fn drop(&mut self) {
        self.fail(None, None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Picky {
        interest: EventMask,
        seen: Mutex<Vec<String>>,
        panics: bool,
    }

    impl Picky {
        fn new(interest: EventMask, panics: bool) -> Arc<Self> {
            Arc::new(Self {
                interest,
                seen: Mutex::default(),
                panics,
            })
        }
    }

    impl Observer for Picky {
        fn interest(&self) -> EventMask {
            self.interest
        }

        fn on(&self, event: &Event<'_>) {
            self.seen
                .lock()
                .expect("no poison")
                .push(format!("{event:?}"));
            // What it carries panics in its drop, too.
            if self.panics {
                std::panic::panic_any(Nasty);
            }
        }
    }

    struct Nasty;

    impl Drop for Nasty {
        fn drop(&mut self) {
            panic!("once more");
        }
    }

    fn ends(observers: Option<&Arc<Observers>>) {
        CallTold::new(observers).tell(|call| Event::CallCancelled { call, attempts: 7 });
    }

    #[test]
    fn nobody_without_interest_is_asked() {
        assert!(Observers::new(Vec::new()).is_none());
        assert!(Observers::new(vec![Picky::new(EventMask::NONE, true)]).is_none());
        let (calls, dials) = (
            Picky::new(EventMask::CALLS, false),
            Picky::new(EventMask::DIALS, false),
        );
        let observers = Observers::new(vec![calls.clone(), dials.clone()]);
        ends(observers.as_ref());
        assert_eq!(calls.seen.lock().expect("no poison").len(), 1);
        assert_eq!(dials.seen.lock().expect("no poison").len(), 0);
    }

    #[test]
    fn a_panic_is_counted_and_the_next_is_told_nevertheless() {
        let (bad, good) = (
            Picky::new(EventMask::ALL, true),
            Picky::new(EventMask::ALL, false),
        );
        let observers = Observers::new(vec![bad, good.clone()]).expect("two with interest");
        for _ in 0..3 {
            ends(Some(&observers));
        }
        assert_eq!(observers.panics(), 3);
        assert_eq!(good.seen.lock().expect("no poison").len(), 3);
    }
}
