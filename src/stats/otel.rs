//! Metrics by OpenTelemetry's conventions for HTTP clients, kept by an observer like any of a user's.
//!
//! What is measured is an attempt, as in `spans.rs`: the conventions know requests on the wire and no calls around them. Events have
//! neither time nor memory, so what has begun and not ended is kept here, in a few maps with a lock each; every start has one end, whatever
//! happens in between (`event.rs`), which is what empties them. A client that is not given this has nothing of it.

use std::array;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode, Version};
use opentelemetry::metrics::{Histogram, MeterProvider, UpDownCounter};
use opentelemetry::{InstrumentationScope, KeyValue, global};
use tokio::time::Instant;

use super::conventions::{error_type, protocol_version};
use super::event::{CallId, Event, EventMask, Observer};
use crate::error::Error;
use crate::url::Origin;

/// An [`Observer`] that keeps the metrics of OpenTelemetry's
/// [conventions for HTTP clients](https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#http-client). Feature `otel`.
///
/// | instrument | unit | attributes |
/// |---|---|---|
/// | `http.client.request.duration`, a histogram | s | `http.request.method`, `server.address`, `server.port`, `network.protocol.version`, and `http.response.status_code`, `error.type` where there are such |
/// | `http.client.active_requests` | requests | `http.request.method`, `server.address`, `server.port` |
/// | `http.client.open_connections` | connections | `http.connection.state` (`active` while it is lent to a call, or `idle`), `server.address`, `server.port`, `network.protocol.version` |
/// | `http.client.connection.duration`, a histogram | s | `server.address`, `server.port`, `network.protocol.version` |
///
/// A request here is an attempt: a call with two retries counts three times. It lasts until the head of its response is read, as its span does
/// (feature `tracing`). One with a status from 400 on has the status as its `error.type`, one that failed a word of a small set such as `dns`
/// or `connect_timeout`; one whose call was dropped has neither a status nor an error. Methods that the conventions do not know are `_OTHER`.
/// No attribute holds a path, a query or a field, and no name of a host that the program did not call.
///
/// An attempt costs two short locks, two looks at the clock and what the provider needs for three measurements.
/// Several clients may share one: then their numbers add up.
///
/// It speaks to version 0.33 of the crate `opentelemetry`; a provider of another one is of another type.
///
/// ```
/// use sockeye::{Client, OtelMetrics};
///
/// // opentelemetry::global::set_meter_provider(..) comes first.
/// let client = Client::builder().observer(OtelMetrics::new()).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
pub struct OtelMetrics {
    duration: Histogram<f64>,
    active: UpDownCounter<i64>,
    open: UpDownCounter<i64>,
    lifetime: Histogram<f64>,
    attempts: [Mutex<BTreeMap<(CallId, u32), Attempt>>; SHARDS],
    connections: [Mutex<HashMap<u64, Connection>>; SHARDS],
}

/// An attempt that has not ended.
struct Attempt {
    method: &'static str,
    origin: Origin,
    begun: Instant,
    /// What is spoken on the connection that it got last.
    protocol: Option<&'static str>,
}

/// A connection that is open.
struct Connection {
    origin: Origin,
    protocol: &'static str,
    begun: Instant,
    /// How many calls have it now.
    loans: usize,
}

impl OtelMetrics {
    /// With the global provider, as it is now: a program sets it (`opentelemetry::global::set_meter_provider`) before it calls this.
    ///
    /// ```
    /// let metrics = sockeye::OtelMetrics::new();
    /// ```
    pub fn new() -> Self {
        Self::with_provider(&*global::meter_provider())
    }

    /// With a provider of the program's own.
    ///
    /// ```
    /// use sockeye::OtelMetrics;
    ///
    /// fn metrics(provider: &opentelemetry_sdk::metrics::SdkMeterProvider) -> OtelMetrics {
    ///     OtelMetrics::with_provider(provider)
    /// }
    /// ```
    pub fn with_provider(provider: &dyn MeterProvider) -> Self {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let meter = provider.meter_with_scope(scope);
        Self {
            duration: meter
                .f64_histogram("http.client.request.duration")
                .with_unit("s")
                .with_description("Duration of HTTP client requests.")
                .with_boundaries(DURATION_BOUNDS.to_vec())
                .build(),
            active: meter
                .i64_up_down_counter("http.client.active_requests")
                .with_unit("{request}")
                .with_description("Number of active HTTP requests.")
                .build(),
            open: meter
                .i64_up_down_counter("http.client.open_connections")
                .with_unit("{connection}")
                .with_description(
                    "Number of outbound HTTP connections that are currently active or idle on the client.",
                )
                .build(),
            lifetime: meter
                .f64_histogram("http.client.connection.duration")
                .with_unit("s")
                .with_description(
                    "The duration of the successfully established outbound HTTP connections.",
                )
                .with_boundaries(LIFETIME_BOUNDS.to_vec())
                .build(),
            attempts: array::from_fn(|_| Mutex::default()),
            connections: array::from_fn(|_| Mutex::default()),
        }
    }

    fn attempts(&self, call: CallId) -> MutexGuard<'_, BTreeMap<(CallId, u32), Attempt>> {
        let [first, ..] = &self.attempts;
        lock(self.attempts.get(shard(call.0)).unwrap_or(first))
    }

    fn connections(&self, connection: u64) -> MutexGuard<'_, HashMap<u64, Connection>> {
        let [first, ..] = &self.connections;
        lock(self.connections.get(shard(connection)).unwrap_or(first))
    }

    fn attempt_starts(&self, call: CallId, number: u32, method: &Method, origin: &Origin) {
        let attempt = Attempt {
            method: known_method(method),
            origin: origin.clone(),
            begun: Instant::now(),
            protocol: None,
        };
        self.active.add(1, &attempt.attributes());
        self.attempts(call).insert((call, number), attempt);
    }

    fn attempt_ends(&self, call: CallId, number: u32, outcome: Option<Result<StatusCode, &Error>>) {
        let ended = self.attempts(call).remove(&(call, number));
        let Some(attempt) = ended else {
            return;
        };
        let took = attempt.begun.elapsed().as_secs_f64();
        let attributes = attempt.attributes();
        self.active.add(-1, &attributes);
        let mut attributes = Vec::from(attributes);
        if let Some(protocol) = attempt.protocol {
            attributes.push(KeyValue::new(PROTOCOL_VERSION, protocol));
        }
        match outcome {
            None => {}
            Some(Ok(status)) => {
                let code = i64::from(status.as_u16());
                attributes.push(KeyValue::new("http.response.status_code", code));
                if code >= 400 {
                    attributes.push(KeyValue::new("error.type", status.as_str().to_owned()));
                }
            }
            Some(Err(error)) => attributes.push(KeyValue::new("error.type", error_type(error))),
        }
        self.duration.record(took, &attributes);
    }

    /// An attempt of this call has got a connection. Its number is not told; of several at once it is the last that has none.
    fn attempt_is_served(&self, call: CallId, protocol: Version) {
        let mut attempts = self.attempts(call);
        let of_call = attempts.range_mut((call, 0)..=(call, u32::MAX));
        let mut waiting = of_call.rev().map(|(_, attempt)| attempt);
        if let Some(attempt) = waiting.find(|attempt| attempt.protocol.is_none()) {
            attempt.protocol = Some(protocol_version(protocol));
        }
    }

    fn connection_opens(&self, connection: u64, origin: &Origin, protocol: Version) {
        let opened = Connection {
            origin: origin.clone(),
            protocol: protocol_version(protocol),
            begun: Instant::now(),
            loans: 0,
        };
        self.open.add(1, &opened.attributes_in(IDLE));
        self.connections(connection).insert(connection, opened);
    }

    fn connection_is_lent(&self, connection: u64) {
        let moved = self.moved(connection, |loans| {
            *loans += 1;
            *loans == 1
        });
        if let Some([idle, active]) = moved {
            self.open.add(-1, &idle);
            self.open.add(1, &active);
        }
    }

    /// A loan may end when its connection is closed already.
    fn connection_comes_back(&self, connection: u64) {
        let moved = self.moved(connection, |loans| {
            *loans = loans.saturating_sub(1);
            *loans == 0
        });
        if let Some([idle, active]) = moved {
            self.open.add(-1, &active);
            self.open.add(1, &idle);
        }
    }

    /// Changes the loans of a connection; answers the attributes of its two states, idle first, if that has moved it from one to the
    /// other.
    fn moved(
        &self,
        connection: u64,
        change: impl FnOnce(&mut usize) -> bool,
    ) -> Option<[[KeyValue; 4]; 2]> {
        let mut connections = self.connections(connection);
        let changed = connections.get_mut(&connection)?;
        change(&mut changed.loans).then(|| [IDLE, ACTIVE].map(|state| changed.attributes_in(state)))
    }

    fn connection_closes(&self, connection: u64) {
        let closed = self.connections(connection).remove(&connection);
        let Some(closed) = closed else {
            return;
        };
        let state = if closed.loans > 0 { ACTIVE } else { IDLE };
        self.open.add(-1, &closed.attributes_in(state));
        let took = closed.begun.elapsed().as_secs_f64();
        self.lifetime.record(took, &closed.attributes());
    }
}

impl Default for OtelMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for OtelMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtelMetrics").finish_non_exhaustive()
    }
}

impl Observer for OtelMetrics {
    fn interest(&self) -> EventMask {
        EventMask::ATTEMPTS | EventMask::DIALS | EventMask::CONNECTIONS
    }

    fn on(&self, event: &Event<'_>) {
        match *event {
            Event::AttemptStart {
                call,
                attempt,
                method,
                origin,
            } => self.attempt_starts(call, attempt, method, origin),
            Event::AttemptEnd {
                call,
                attempt,
                status,
            } => self.attempt_ends(call, attempt, Some(Ok(status))),
            Event::AttemptFailed {
                call,
                attempt,
                error,
            } => self.attempt_ends(call, attempt, Some(Err(error))),
            Event::AttemptCancelled { call, attempt } => self.attempt_ends(call, attempt, None),
            Event::DialEnd {
                connection,
                origin,
                protocol,
            } => self.connection_opens(connection, origin, protocol),
            Event::ConnectionAcquired {
                call,
                connection,
                protocol,
                ..
            } => {
                self.attempt_is_served(call, protocol);
                self.connection_is_lent(connection);
            }
            Event::ConnectionReleased { connection, .. } => self.connection_comes_back(connection),
            Event::ConnectionClosed { connection, .. } => self.connection_closes(connection),
            _ => {}
        }
    }
}

impl Attempt {
    fn attributes(&self) -> [KeyValue; 3] {
        let [address, port] = server(&self.origin);
        [
            KeyValue::new("http.request.method", self.method),
            address,
            port,
        ]
    }
}

impl Connection {
    fn attributes(&self) -> [KeyValue; 3] {
        let [address, port] = server(&self.origin);
        [
            address,
            port,
            KeyValue::new(PROTOCOL_VERSION, self.protocol),
        ]
    }

    fn attributes_in(&self, state: &'static str) -> [KeyValue; 4] {
        let [address, port, protocol] = self.attributes();
        let state = KeyValue::new("http.connection.state", state);
        [state, address, port, protocol]
    }
}

fn server(origin: &Origin) -> [KeyValue; 2] {
    [
        KeyValue::new("server.address", origin.host().to_owned()),
        KeyValue::new("server.port", i64::from(origin.port())),
    ]
}

/// The value of `http.request.method`.
fn known_method(method: &Method) -> &'static str {
    let known = KNOWN_METHODS
        .iter()
        .find(|known| **known == method.as_str());
    known.copied().unwrap_or("_OTHER")
}

fn shard(number: u64) -> usize {
    usize::try_from(number % SHARDS as u64).unwrap_or(0)
}

/// What a panic has left behind is whole: nothing of the provider's runs with a lock held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many threads rarely meet at one lock.
const SHARDS: usize = 8;

const KNOWN_METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

const ACTIVE: &str = "active";

const IDLE: &str = "idle";

const PROTOCOL_VERSION: &str = "network.protocol.version";

/// Seconds, as the conventions recommend.
const DURATION_BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// The same for connections.
const LIFETIME_BOUNDS: [f64; 14] = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];
