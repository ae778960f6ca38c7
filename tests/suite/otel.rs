//! What OpenTelemetry is told: metrics read back from the exporter in memory of its SDK, and the trace context as a server gets it.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Method};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use sockeye::{Client, Limits, OtelMetrics, Retry, Timeouts, TraceContext};

use crate::support::peer::{Dial, Request, World, let_others_run, ok, reply, settle};
use crate::support::streams::within_polls;

const URL: &str = "http://peer.test:8080/users/s3cret-path?token=s3cret-query";
const SECOND: Duration = Duration::from_secs(1);

/// A provider that exports into memory.
struct Metered {
    provider: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
}

impl Metered {
    fn new() -> Self {
        let exporter = InMemoryMetricExporter::default();
        let reader = PeriodicReader::builder(exporter.clone()).build();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        Self { provider, exporter }
    }

    fn metrics(&self) -> OtelMetrics {
        OtelMetrics::with_provider(&self.provider)
    }

    fn exported(&self) -> ResourceMetrics {
        self.exporter.reset();
        self.provider.force_flush().unwrap();
        let mut exported = self.exporter.get_finished_metrics().unwrap();
        exported.pop().expect("an export")
    }

    /// Every number of this metric that is not zero, by its attributes: the sum, or of a histogram the count and the sum.
    fn numbers(&self, name: &str) -> BTreeMap<String, (u64, f64)> {
        fn key<'a>(attributes: impl Iterator<Item = &'a opentelemetry::KeyValue>) -> String {
            let mut words: Vec<_> = attributes
                .map(|pair| format!("{}={}", pair.key, pair.value))
                .collect();
            words.sort();
            words.join(" ")
        }
        let exported = self.exported();
        let mut numbers = BTreeMap::new();
        for metric in exported.scope_metrics().flat_map(|scope| scope.metrics()) {
            if metric.name() != name {
                continue;
            }
            match metric.data() {
                AggregatedMetrics::I64(MetricData::Sum(sum)) => {
                    assert!(!sum.is_monotonic());
                    for point in sum.data_points() {
                        assert!(point.value() >= 0, "{name} is {}", point.value());
                        numbers.insert(key(point.attributes()), (point.value() as u64, 0.0));
                    }
                }
                AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                    for point in histogram.data_points() {
                        let number = (point.count(), point.sum());
                        numbers.insert(key(point.attributes()), number);
                    }
                }
                other => panic!("{name} is {other:?}"),
            }
        }
        numbers.retain(|_, (count, _)| *count > 0);
        numbers
    }

    /// Panics unless the metric has exactly these numbers.
    #[track_caller]
    fn expect(&self, name: &str, expected: &[(&str, u64)]) {
        let numbers = self.numbers(name);
        let numbers: Vec<_> = numbers
            .iter()
            .map(|(key, (count, _))| (key.as_str(), *count))
            .collect();
        assert_eq!(numbers, expected, "{name}");
    }
}

const DURATION: &str = "http.client.request.duration";
const ACTIVE: &str = "http.client.active_requests";
const OPEN: &str = "http.client.open_connections";
const LIFETIME: &str = "http.client.connection.duration";

/// What every number of the one server has.
const PEER: &str = "server.address=peer.test server.port=8080";

fn at_peer(before: &str) -> String {
    format!("{before} {PEER}")
}

#[tokio::test(start_paused = true)]
async fn durations_are_told_by_method_server_status_and_error() {
    let metered = Metered::new();
    let world = World::new();
    let client = world
        .builder()
        .observer(metered.metrics())
        .timeouts(Timeouts::default().with_head(Some(SECOND)))
        .build()
        .unwrap();
    let statuses = Arc::new(Mutex::new(vec![
        "503 Busy",
        "404 Not Found",
        "200 OK",
        "200 OK",
    ]));
    let serving = world.clone();
    tokio::spawn(async move {
        let mut connection = serving.accept().await;
        while connection.next_request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let Some(status) = statuses.lock().unwrap().pop() else {
                // Silence, until the limit strikes.
                std::future::pending::<()>().await;
                return;
            };
            connection
                .write(reply(status, "x-secret: s3cret-field\r\n", "s3cret-body"))
                .await;
        }
    });
    for _ in 0..2 {
        client.get(URL).bearer_auth("s3cret-token").await.unwrap();
    }
    client.get(URL).await.unwrap_err();
    let purge = Method::from_bytes(b"PURGE").unwrap();
    client.request(purge, URL).await.unwrap_err();
    client.post(URL).body("s3cret-upload").await.unwrap_err();
    world.plan(Dial::Refuse);
    client.get("http://other.test/").await.unwrap_err();
    world.plan(Dial::Hang);
    let cancelled = client.put(URL).body("x").send();
    assert!(within_polls(1, cancelled).await.is_none());
    let_others_run().await;

    let durations = metered.numbers(DURATION);
    let counts: Vec<_> = durations
        .iter()
        .map(|(key, (count, _))| (key.as_str(), *count))
        .collect();
    assert_eq!(
        counts,
        [
            (
                "error.type=404 http.request.method=GET http.response.status_code=404 network.protocol.version=1.1 \
                 server.address=peer.test server.port=8080",
                1
            ),
            (
                "error.type=503 http.request.method=_OTHER http.response.status_code=503 network.protocol.version=1.1 \
                 server.address=peer.test server.port=8080",
                1
            ),
            (
                "error.type=connect http.request.method=GET server.address=other.test server.port=80",
                1
            ),
            (
                "error.type=read_timeout http.request.method=POST network.protocol.version=1.1 server.address=peer.test \
                 server.port=8080",
                1
            ),
            (
                "http.request.method=GET http.response.status_code=200 network.protocol.version=1.1 \
                 server.address=peer.test server.port=8080",
                2
            ),
            // Dropped: neither a status nor an error, and no connection.
            (
                "http.request.method=PUT server.address=peer.test server.port=8080",
                1
            ),
        ]
    );
    // In seconds.
    let two = durations
        .iter()
        .find(|(_, (count, _))| *count == 2)
        .unwrap();
    assert!((two.1.1 - 0.06).abs() < 0.005, "{two:?}");
    let timeout = durations
        .iter()
        .find(|(key, _)| key.contains("read_timeout"))
        .unwrap();
    assert!((timeout.1.1 - 1.0).abs() < 0.005, "{timeout:?}");

    // Security L1: of all that was secret nothing is in any of it.
    let shown = format!("{:?}", metered.exported());
    assert!(
        !shown.contains("s3cret") && !shown.contains("/users"),
        "{shown}"
    );
    // The dial that hangs has its own limit.
    tokio::time::sleep(11 * SECOND).await;
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn instruments_are_those_of_the_conventions() {
    let metered = Metered::new();
    let world = World::new();
    world.serve(|_| ok("body"));
    let client = world.builder().observer(metered.metrics()).build().unwrap();
    client.get(URL).await.unwrap();
    client.close(SECOND).await;
    let exported = metered.exported();
    let scopes: Vec<_> = exported.scope_metrics().collect();
    assert_eq!(scopes.len(), 1);
    assert_eq!(scopes[0].scope().name(), "sockeye");
    assert_eq!(scopes[0].scope().version(), Some(env!("CARGO_PKG_VERSION")));
    let mut seen: Vec<_> = scopes[0]
        .metrics()
        .map(|metric| {
            assert!(!metric.description().is_empty());
            let bounds: Vec<f64> = match metric.data() {
                AggregatedMetrics::F64(MetricData::Histogram(histogram)) => histogram
                    .data_points()
                    .flat_map(|point| point.bounds().collect::<Vec<_>>())
                    .collect(),
                _ => Vec::new(),
            };
            (metric.name(), metric.unit(), bounds)
        })
        .collect();
    seen.sort_by_key(|(name, ..)| *name);
    let duration = [
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ];
    let lifetime = [
        0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
    ];
    assert_eq!(
        seen,
        [
            (ACTIVE, "{request}", vec![]),
            (LIFETIME, "s", lifetime.to_vec()),
            (OPEN, "{connection}", vec![]),
            (DURATION, "s", duration.to_vec()),
        ]
    );
    assert!(format!("{:?}", metered.metrics()).starts_with("OtelMetrics"));
}

#[tokio::test(start_paused = true)]
async fn requests_and_connections_are_gauged_while_they_last() {
    let metered = Metered::new();
    let world = World::new();
    let limits = Limits::default().with_max_connections(NonZeroUsize::new(1));
    let client = world
        .builder()
        .observer(metered.metrics())
        .limits(limits)
        .build()
        .unwrap();
    let (active, idle) = (
        at_peer("http.connection.state=active network.protocol.version=1.1"),
        at_peer("http.connection.state=idle network.protocol.version=1.1"),
    );
    let get = at_peer("http.request.method=GET");
    let first = tokio::spawn(client.get(URL).send());
    let second = tokio::spawn(client.get(URL).send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    metered.expect(ACTIVE, &[(&get, 2)]);
    metered.expect(OPEN, &[(&active, 1)]);
    metered.expect(DURATION, &[]);
    // A body that is not there yet keeps the connection, and not the request.
    connection
        .write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
        .await;
    let response = first.await.unwrap().unwrap();
    metered.expect(ACTIVE, &[(&get, 1)]);
    metered.expect(OPEN, &[(&active, 1)]);
    connection.write("body").await;
    response.bytes().await.unwrap();
    connection.read_request().await;
    connection.write(ok("")).await;
    second.await.unwrap().unwrap();
    metered.expect(ACTIVE, &[]);
    metered.expect(OPEN, &[(&idle, 1)]);
    metered.expect(LIFETIME, &[]);
    client.close_idle();
    metered.expect(OPEN, &[]);
    metered.expect(LIFETIME, &[(&at_peer("network.protocol.version=1.1"), 1)]);
    // Closed while it is lent: its loan ends later.
    let call = tokio::spawn(client.get(URL).send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    metered.expect(OPEN, &[(&active, 1)]);
    call.abort();
    connection.closed().await;
    metered.expect(OPEN, &[]);
    metered.expect(ACTIVE, &[]);
    metered.expect(LIFETIME, &[(&at_peer("network.protocol.version=1.1"), 2)]);
    settle(&client, &world).await;
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn a_session_of_http2_is_one_connection() {
    use crate::support::http2::Honest;
    use sockeye::HttpVersions;

    let metered = Metered::new();
    let world = World::new();
    let report = Honest::default().serve(&world);
    let client = world
        .builder()
        .observer(metered.metrics())
        .http_versions(HttpVersions::Http2PriorKnowledge)
        .build()
        .unwrap();
    let calls = (0..5).map(|_| tokio::spawn(client.get(URL).send()));
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap().bytes().await.unwrap();
    }
    let key = "http.request.method=GET http.response.status_code=200 network.protocol.version=2";
    metered.expect(DURATION, &[(&at_peer(key), 5)]);
    let idle = at_peer("http.connection.state=idle network.protocol.version=2");
    metered.expect(OPEN, &[(&idle, 1)]);
    report.expect_no_violation();
    client.close_idle();
    let_others_run().await;
    metered.expect(OPEN, &[]);
    metered.expect(LIFETIME, &[(&at_peer("network.protocol.version=2"), 1)]);
    settle(&client, &world).await;
}

/// Whatever is dropped wherever: what has begun has ended.
#[tokio::test(start_paused = true)]
async fn gauges_are_balanced_after_calls_dropped_at_any_await() {
    let metered = Metered::new();
    let world = World::new();
    let count = Arc::new(Mutex::new(0));
    world.serve(move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        match *count % 3 {
            0 => reply("503 Busy", "", ""),
            1 => ok("small"),
            _ => ok(&"x".repeat(100_000)),
        }
    });
    let client = world
        .builder()
        .observer(metered.metrics())
        .retry(Retry::default())
        .build()
        .unwrap();
    for polls in 0..60 {
        let call = async {
            let response = client.get(URL).await?;
            response.bytes().await
        };
        within_polls(polls % 12, call).await;
        if polls % 5 == 0 {
            client.close_idle();
        }
    }
    let_others_run().await;
    metered.expect(ACTIVE, &[]);
    settle(&client, &world).await;
    client.close(SECOND).await;
    let_others_run().await;
    metered.expect(OPEN, &[]);
    let opened = client.stats().total.connections_opened;
    metered.expect(
        LIFETIME,
        &[(&at_peer("network.protocol.version=1.1"), opened)],
    );
}

/// The contexts that requests bring, as the propagator of the SDK reads them.
#[derive(Clone, Default)]
struct Contexts(Arc<Mutex<Vec<SpanContext>>>);

impl Contexts {
    fn add(&self, request: &Request) {
        let fields = ["traceparent", "tracestate"]
            .into_iter()
            .filter_map(|name| {
                let value = request.field(name)?;
                Some((name.to_owned(), value.to_owned()))
            });
        let fields: HashMap<String, String> = fields.collect();
        let context = TraceContextPropagator::new().extract(&fields);
        let context = context.span().span_context().clone();
        self.0.lock().unwrap().push(context);
    }

    fn take(&self) -> Vec<SpanContext> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A span of somebody's.
fn span(trace: u128, span: u64) -> SpanContext {
    let state = TraceState::from_key_value([("vendor", "7")]).unwrap();
    SpanContext::new(
        TraceId::from(trace),
        SpanId::from(span),
        TraceFlags::SAMPLED,
        false,
        state,
    )
}

/// A world that answers the first two requests so that there are a retry and a redirect, and a client with a trace context.
fn traced(contexts: &Contexts) -> (World, Client) {
    let world = World::new();
    let (contexts, count) = (contexts.clone(), Arc::new(Mutex::new(0)));
    world.serve(move |request| {
        contexts.add(request);
        let mut count = count.lock().unwrap();
        *count += 1;
        match *count {
            1 => reply("503 Busy", "retry-after: 1\r\n", ""),
            2 => reply("302 Found", "location: http://other.test/\r\n", ""),
            _ => {
                let field = |name| request.field(name).unwrap_or("none").to_owned();
                ok(&format!("{} {}", field("traceparent"), field("tracestate")))
            }
        }
    });
    let client = world
        .builder()
        .retry(Retry::default())
        .attempt_interceptor(TraceContext::new())
        .build()
        .unwrap();
    (world, client)
}

#[tokio::test(start_paused = true)]
async fn every_attempt_brings_the_active_span() {
    let contexts = Contexts::default();
    let (world, client) = traced(&contexts);
    let active = span(0xa11, 0xb7);
    let call = async { client.get(URL).await.unwrap().text().await.unwrap() };
    let text = call
        .with_context(Context::new().with_remote_span_context(active.clone()))
        .await;
    let parent = "00-00000000000000000000000000000a11-00000000000000b7-01";
    assert_eq!(text, format!("{parent} vendor=7"));
    let seen = contexts.take();
    assert_eq!(
        seen.len(),
        3,
        "the first, its retry, and behind the redirect"
    );
    for context in seen {
        assert_eq!(context.trace_id(), active.trace_id());
        assert_eq!(context.span_id(), active.span_id());
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(context.trace_state(), active.trace_state());
    }
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn without_an_active_span_nothing_is_made_up() {
    let contexts = Contexts::default();
    let (world, client) = traced(&contexts);
    let text = client.get(URL).await.unwrap().text().await.unwrap();
    assert_eq!(text, "none none");
    assert!(contexts.take().iter().all(|context| !context.is_valid()));
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_parent_of_the_callers_stays_as_it_is() {
    const OWN: &str = "00-0000000000000000000000000000c0de-0000000000000001-00";
    let own = |client: &Client| client.get(URL).header("traceparent", OWN);
    let contexts = Contexts::default();
    let (world, client) = traced(&contexts);
    let active = Context::new().with_remote_span_context(span(1, 2));
    let call = async { own(&client).await.unwrap().text().await.unwrap() };
    let text = call.with_context(active.clone()).await;
    assert_eq!(text, format!("{OWN} none"));
    assert_eq!(contexts.take().len(), 3);
    settle(&client, &world).await;
    // The same for one among the client's defaults.
    let (world, mut defaults) = (World::new(), HeaderMap::new());
    defaults.insert("traceparent", http::HeaderValue::from_static(OWN));
    world.serve(|request| {
        assert_eq!(request.fields("traceparent").count(), 1);
        ok(request.field("traceparent").unwrap())
    });
    let client = world
        .builder()
        .default_headers(defaults)
        .attempt_interceptor(TraceContext::new())
        .build()
        .unwrap();
    let call = async { client.get(URL).await.unwrap().text().await.unwrap() };
    assert_eq!(call.with_context(active).await, OWN);
    settle(&client, &world).await;
}

/// With spans of attempts, and a subscriber that makes them spans of OpenTelemetry, each attempt brings its own.
#[cfg(feature = "tracing")]
#[tokio::test(start_paused = true)]
async fn every_attempt_brings_its_own_span_where_there_is_one() {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tracing::Instrument;
    use tracing_subscriber::layer::SubscriberExt;

    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    let _listening = tracing::subscriber::set_default(subscriber);
    let contexts = Contexts::default();
    let (world, client) = traced(&contexts);
    let caller = tracing::info_span!(target: "test", "caller");
    async { client.get(URL).await.unwrap().bytes().await.unwrap() }
        .instrument(caller)
        .await;
    let_others_run().await;
    let exported = exporter.get_finished_spans().unwrap();
    let (callers, attempts): (Vec<_>, Vec<_>) =
        exported.iter().partition(|span| span.name == "caller");
    let own: Vec<_> = attempts.iter().map(|span| &span.span_context).collect();
    assert!(
        attempts.iter().all(|span| span.name == "GET"),
        "{exported:?}"
    );
    let seen = contexts.take();
    assert_eq!((own.len(), seen.len()), (3, 3));
    for (own, seen) in own.iter().zip(&seen) {
        assert_eq!(own.span_id(), seen.span_id());
        assert_eq!(callers[0].span_context.trace_id(), seen.trace_id());
        assert_ne!(callers[0].span_context.span_id(), seen.span_id());
    }
    assert_ne!(seen[0].span_id(), seen[1].span_id());
    assert_ne!(seen[1].span_id(), seen[2].span_id());
    settle(&client, &world).await;
}
