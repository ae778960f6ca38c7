//! An observer that writes everything down, and knows which events belong together.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use sockeye::stats::Event;
use sockeye::{EventMask, Observer};

/// Clones share everything.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<Inner>);

struct Inner {
    interest: EventMask,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    labels: Vec<String>,
    debug: String,
    /// What has started and not ended.
    open: HashMap<String, usize>,
    dialled: HashSet<u64>,
    closed: HashSet<u64>,
    /// What does not fit together.
    wrong: Vec<String>,
}

impl Observer for Recorder {
    fn interest(&self) -> EventMask {
        self.0.interest
    }

    fn on(&self, event: &Event<'_>) {
        self.state().take(event);
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::of(EventMask::ALL)
    }
}

impl Recorder {
    pub(crate) fn of(interest: EventMask) -> Self {
        Self(Arc::new(Inner {
            interest,
            state: Mutex::default(),
        }))
    }

    /// What was told since the last time, in a few words each.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.state().labels)
    }

    /// How often an event with this beginning was told since the last `take`.
    pub(crate) fn count(&self, beginning: &str) -> usize {
        let state = self.state();
        let like = |label: &&String| label.starts_with(beginning);
        state.labels.iter().filter(like).count()
    }

    /// The `Debug` of everything that was told.
    #[cfg(all(feature = "tracing", feature = "gzip"))]
    pub(crate) fn debug(&self) -> String {
        self.state().debug.clone()
    }

    /// Everything that has started has ended, in its order.
    pub(crate) fn expect_balance(&self) {
        let state = self.state();
        assert_eq!(state.wrong, [""; 0], "{:#?}", state.labels);
        let open: Vec<_> = state.open.keys().collect();
        assert!(open.is_empty(), "{open:?} of {:#?}", state.labels);
    }

    /// And every connection that was made is closed.
    pub(crate) fn expect_all_closed(&self) {
        self.expect_balance();
        let state = self.state();
        assert_eq!(state.dialled, state.closed, "{:#?}", state.labels);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }
}

impl State {
    fn take(&mut self, event: &Event<'_>) {
        self.labels.push(label(event));
        self.debug.push_str(&format!("{event:?} {event:#?}\n"));
        match event {
            Event::DialEnd { connection, .. } if !self.dialled.insert(*connection) => {
                self.wrong.push(format!("{connection} was made twice"));
            }
            Event::ConnectionClosed { connection, .. }
                if !self.dialled.contains(connection) || !self.closed.insert(*connection) =>
            {
                self.wrong.push(format!("{connection} was not open"));
            }
            _ => {}
        }
        let Some((edge, key, parent)) = pair(event) else {
            return;
        };
        // A body may outlive its attempt and its call, and with it the loan.
        if let Some(parent) = parent {
            if !self.open.contains_key(&parent) {
                self.wrong
                    .push(format!("{} outside {parent}", label(event)));
            }
        }
        match edge {
            Edge::Start => {
                if self.open.insert(key.clone(), 1).is_some() {
                    self.wrong.push(format!("{key} started twice"));
                }
            }
            Edge::End => {
                if self.open.remove(&key).is_none() {
                    self.wrong.push(format!("{key} ended without a start"));
                }
            }
        }
    }
}

enum Edge {
    Start,
    End,
}

/// What starts or ends, and inside what.
fn pair(event: &Event<'_>) -> Option<(Edge, String, Option<String>)> {
    use Edge::{End, Start};
    Some(match event {
        Event::CallStart { call, .. } => (Start, call.to_string(), None),
        Event::CallEnd { call, .. }
        | Event::CallFailed { call, .. }
        | Event::CallCancelled { call, .. } => (End, call.to_string(), None),
        Event::AttemptStart { call, attempt, .. } => (
            Start,
            format!("{call} attempt {attempt}"),
            Some(call.to_string()),
        ),
        Event::AttemptEnd { call, attempt, .. }
        | Event::AttemptFailed { call, attempt, .. }
        | Event::AttemptCancelled { call, attempt, .. } => (
            End,
            format!("{call} attempt {attempt}"),
            Some(call.to_string()),
        ),
        Event::QueueStart { call, .. } => (Start, format!("{call} queue"), Some(call.to_string())),
        Event::QueueEnd { call, .. } => (End, format!("{call} queue"), Some(call.to_string())),
        Event::RateWaitStart { call, .. } => {
            (Start, format!("{call} rate"), Some(call.to_string()))
        }
        Event::RateWaitEnd { call, .. } => (End, format!("{call} rate"), Some(call.to_string())),
        Event::ConnectionAcquired {
            call, connection, ..
        } => (
            Start,
            format!("{call} on {connection}"),
            Some(call.to_string()),
        ),
        Event::ConnectionReleased {
            call, connection, ..
        } => (End, format!("{call} on {connection}"), None),
        Event::ResponseHead {
            call, connection, ..
        } => (
            Start,
            format!("{call} body on {connection}"),
            Some(format!("{call} on {connection}")),
        ),
        Event::BodyEnd {
            call, connection, ..
        }
        | Event::BodyFailed {
            call, connection, ..
        }
        | Event::BodyDropped {
            call, connection, ..
        } => (
            End,
            format!("{call} body on {connection}"),
            Some(format!("{call} on {connection}")),
        ),
        Event::DialStart { connection, .. } => (Start, format!("dial {connection}"), None),
        Event::DialEnd { connection, .. } | Event::DialFailed { connection, .. } => {
            (End, format!("dial {connection}"), None)
        }
        Event::DnsStart { connection, .. } => step(Start, "dns", *connection),
        Event::DnsEnd { connection, .. } | Event::DnsFailed { connection, .. } => {
            step(End, "dns", *connection)
        }
        Event::ConnectStart {
            connection,
            address,
            ..
        } => step(Start, &format!("connect {address:?}"), *connection),
        Event::ConnectEnd {
            connection,
            address,
            ..
        }
        | Event::ConnectFailed {
            connection,
            address,
            ..
        } => step(End, &format!("connect {address:?}"), *connection),
        Event::TlsStart { connection, .. } => step(Start, "tls", *connection),
        Event::TlsEnd { connection, .. } | Event::TlsFailed { connection, .. } => {
            step(End, "tls", *connection)
        }
        _ => return None,
    })
}

fn step(edge: Edge, name: &str, dial: u64) -> (Edge, String, Option<String>) {
    (
        edge,
        format!("{name} of {dial}"),
        Some(format!("dial {dial}")),
    )
}

/// An event in a few words, without numbers that differ from run to run.
fn label(event: &Event<'_>) -> String {
    match event {
        Event::CallStart { method, origin, .. } => format!("CallStart {method} {origin}"),
        Event::CallEnd {
            status, attempts, ..
        } => format!("CallEnd {} {attempts}", status.as_u16()),
        Event::CallFailed {
            error, attempts, ..
        } => format!("CallFailed {:?} {attempts}", error.kind()),
        Event::CallCancelled { attempts, .. } => format!("CallCancelled {attempts}"),
        Event::Redirected {
            status, from, to, ..
        } => format!("Redirected {} {from} {to}", status.as_u16()),
        Event::AttemptStart {
            attempt,
            method,
            origin,
            ..
        } => format!("AttemptStart {attempt} {method} {origin}"),
        Event::AttemptEnd {
            attempt, status, ..
        } => format!("AttemptEnd {attempt} {}", status.as_u16()),
        Event::AttemptFailed { attempt, error, .. } => {
            format!("AttemptFailed {attempt} {:?}", error.kind())
        }
        Event::AttemptCancelled { attempt, .. } => format!("AttemptCancelled {attempt}"),
        Event::QueueEnd { connection, .. } => {
            format!("QueueEnd {}", served(connection.is_some()))
        }
        Event::DialEnd { protocol, .. } => format!("DialEnd {protocol:?}"),
        Event::DialFailed { error, .. } => {
            format!("DialFailed {:?}", error.map(sockeye::Error::kind))
        }
        Event::DnsEnd { addresses, .. } => format!("DnsEnd {addresses}"),
        Event::DnsFailed { error, .. } => format!("DnsFailed {error:?}"),
        Event::ConnectFailed { error, .. } => format!("ConnectFailed {error:?}"),
        Event::TlsEnd { version, alpn, .. } => format!("TlsEnd {version} {alpn:?}"),
        Event::TlsFailed { error, .. } => format!("TlsFailed {}", error.is_some()),
        Event::ConnectionAcquired { reused, .. } => {
            format!(
                "ConnectionAcquired {}",
                if *reused { "reused" } else { "new" }
            )
        }
        Event::ConnectionClosed { why, .. } => format!("ConnectionClosed {why:?}"),
        Event::ResponseHead { status, .. } => format!("ResponseHead {}", status.as_u16()),
        Event::BodyEnd { bytes, .. } => format!("BodyEnd {bytes}"),
        Event::BodyFailed { bytes, error, .. } => format!("BodyFailed {bytes} {:?}", error.kind()),
        Event::BodyDropped { bytes, .. } => format!("BodyDropped {bytes}"),
        Event::Retry { why, wait, .. } => format!("Retry {why:?} {wait:?}"),
        Event::NoRetry { why, .. } => format!("NoRetry {why:?}"),
        Event::BreakerChange { state, .. } => format!("BreakerChange {state:?}"),
        Event::RateGate { wait, .. } => format!("RateGate {wait:?}"),
        other => {
            let debug = format!("{other:?}");
            debug.split(' ').next().unwrap_or_default().to_owned()
        }
    }
}

fn served(is_served: bool) -> &'static str {
    if is_served { "served" } else { "in vain" }
}
