//! Spans of attempts, read back by a subscriber of the tests: their names, their fields, when they end, and what is inside.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use sockeye::{
    Body, BoxFuture, CircuitBreaker, Client, Connect, Limits, Method, Next, Retry, Route, Socket,
    Timeouts,
};
use tracing::Instrument;

use crate::support::peer::{Dial, World, let_others_run, ok, reply, settle};
use crate::support::spans::Spans;
use crate::support::streams::within_polls;

const URL: &str = "http://peer.test:8080/users/42?token=s3cret&page=2";
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_span_has_the_names_of_opentelemetry_and_ends_with_the_head() {
    let (spans, _listening) = Spans::listen();
    let world = World::new();
    let client = world.client();
    let call = async {
        let answering = async {
            let mut connection = world.accept().await;
            connection.read_request().await;
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf";
            connection.write(head).await;
            connection
        };
        tokio::join!(client.get(URL).send(), answering)
    };
    let caller = tracing::info_span!(target: "test", "caller");
    let (response, mut connection) = call.instrument(caller).await;
    let response = response.unwrap();
    let span = spans.last();
    assert_eq!(span.name(), "GET");
    assert!(span.is_closed(), "the head has been read");
    let fields: Vec<_> = span
        .fields
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    assert_eq!(
        fields,
        [
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("network.protocol.version", "1.1"),
            ("otel.kind", "client"),
            ("server.address", "peer.test"),
            ("server.port", "8080"),
            (
                "url.full",
                "http://peer.test:8080/users/42?token=REDACTED&page=REDACTED"
            ),
        ]
    );
    assert!(span.parent.is_some(), "it is inside the caller's");
    assert_eq!(spans.events().len(), 0);
    connection.write("half").await;
    response.bytes().await.unwrap();
    let events = spans.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].field("message"), Some("end of a response body"));
    assert_eq!(events[0].field("http.response.body.size"), Some("8"));
    assert_eq!(spans.open().len(), 0);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn every_attempt_of_a_call_has_a_span_and_none_is_around_them() {
    let (spans, _listening) = Spans::listen();
    let world = World::new();
    let count = Arc::new(Mutex::new(0));
    world.serve(move |request| {
        let mut count = count.lock().unwrap();
        *count += 1;
        match (*count, request.target()) {
            (1, _) => reply("503 Busy", "retry-after: 1\r\n", ""),
            (2, _) => reply("302 Found", "location: http://other.test/\r\n", ""),
            _ => reply("404 Not Found", "", ""),
        }
    });
    let client = world.builder().retry(Retry::default()).build().unwrap();
    client.get(URL).await.unwrap_err();
    let seen: Vec<_> = spans
        .ours()
        .iter()
        .map(|span| {
            let fields = [
                "server.address",
                "http.request.resend_count",
                "http.response.status_code",
                "error.type",
                "otel.status_code",
            ];
            assert!(span.parent.is_none() && span.is_closed());
            fields.map(|name| span.field(name).map(str::to_owned))
        })
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        seen,
        [
            [
                some("peer.test"),
                None,
                some("503"),
                some("503"),
                some("ERROR")
            ],
            [some("peer.test"), some("1"), some("302"), None, None],
            [
                some("other.test"),
                some("2"),
                some("404"),
                some("404"),
                some("ERROR")
            ],
        ]
    );
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn errors_are_of_a_small_set_of_types() {
    let (spans, _listening) = Spans::listen();
    let world = World::new();
    let timeouts = Timeouts::default().with_head(Some(SECOND));
    let limits = Limits::default().with_max_connections(NonZeroUsize::new(1));
    let breaker = CircuitBreaker::default().with_consecutive(NonZeroU32::new(20));
    let client = world
        .builder()
        .timeouts(timeouts)
        .limits(limits)
        .circuit_breaker(breaker)
        .build()
        .unwrap();
    let expect = |expected: &str| {
        let span = spans.last();
        assert_eq!(span.field("error.type"), Some(expected));
        assert_eq!(span.field("otel.status_code"), Some("ERROR"));
        assert_eq!(span.field("http.response.status_code"), None);
        assert!(span.is_closed());
    };
    world.plan(Dial::Refuse);
    client.get(URL).await.unwrap_err();
    expect("connect");
    world.plan(Dial::Hang);
    client.get(URL).await.unwrap_err();
    expect("connect_timeout");
    let_others_run().await;
    client.get(URL).await.unwrap_err();
    expect("read_timeout");
    drop(world.accept().await);
    client.get(URL).timeout(SECOND / 2).await.unwrap_err();
    expect("deadline");
    drop(world.accept().await);
    for (bytes, expected) in [("", "reset"), ("HTTP/1.1 999999 What\r\n\r\n", "protocol")] {
        let call = tokio::spawn(client.get(URL).send());
        let mut connection = world.accept().await;
        connection.read_request().await;
        connection.write(bytes).await;
        drop(connection);
        call.await.unwrap().unwrap_err();
        let_others_run().await;
        let span = spans.ours().into_iter().rev().find(|span| span.is_closed());
        assert_eq!(span.unwrap().field("error.type"), Some(expected));
    }
    // No attempt, no span.
    let before = spans.ours().len();
    client.circuit_breaker(URL).unwrap().isolate();
    client.get(URL).await.unwrap_err();
    assert_eq!(spans.ours().len(), before);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_attempt_has_neither_status_nor_error() {
    let (spans, _listening) = Spans::listen();
    let world = World::new();
    world.always(Dial::Hang);
    let client = world.client();
    let request = client.request(Method::from_bytes(b"PURGE").unwrap(), URL);
    assert!(within_polls(1, request.send()).await.is_none());
    let span = spans.last();
    assert_eq!(span.name(), "HTTP");
    assert_eq!(span.field("http.request.method"), Some("_OTHER"));
    assert_eq!(span.field("http.request.method_original"), Some("PURGE"));
    assert!(span.is_closed());
    for name in [
        "otel.status_code",
        "error.type",
        "http.response.status_code",
    ] {
        assert_eq!(span.field(name), None, "{name}");
    }
}

/// Writes down which span its dials are in.
struct Watched(World, Arc<Mutex<Vec<bool>>>);

impl Connect for Watched {
    fn connect<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, std::io::Result<Socket>> {
        let is_outside = tracing::Span::current().is_none();
        self.1.lock().unwrap().push(is_outside);
        self.0.connect(route)
    }
}

/// What outlives a call is outside its span: dials, the driver of a session, what drains a body, the reaper.
#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn no_span_stays_open_for_as_long_as_a_connection() {
    use crate::support::http2::Honest;
    use sockeye::HttpVersions;

    for versions in [HttpVersions::Http1, HttpVersions::Http2PriorKnowledge] {
        let (spans, _listening) = Spans::listen();
        let (world, outside) = (World::new(), Arc::default());
        match versions {
            HttpVersions::Http1 => world.serve(|_| ok(&"x".repeat(300_000))),
            _ => drop(Honest::default().serve(&world)),
        }
        let client = Client::builder()
            .connector(Watched(world.clone(), Arc::clone(&outside)))
            .http_versions(versions)
            .build()
            .unwrap();
        let caller = tracing::info_span!(target: "sockeye", "caller");
        async {
            // Dropped unread: drained, or reset.
            drop(client.get(URL).await.unwrap());
            client
                .put(URL)
                .body("up")
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
        }
        .instrument(caller)
        .await;
        let_others_run().await;
        assert!(client.stats().total.connections_idle > 0);
        assert_eq!(spans.ours().len(), 3, "the caller's and one a call");
        assert!(spans.open().is_empty(), "{:?}", spans.open());
        assert!(outside.lock().unwrap().iter().all(|outside| *outside));
        assert!(!outside.lock().unwrap().is_empty());
        client.close_idle();
        settle(&client, &world).await;
    }
}

/// The place where a trace context goes into the request.
#[tokio::test(start_paused = true)]
async fn an_interceptor_of_attempts_runs_inside_their_span() {
    let (spans, _listening) = Spans::listen();
    let world = World::new();
    world.serve(|request| ok(request.field("traceparent").unwrap_or("none")));
    let client = world
        .builder()
        .attempt_interceptor(async |mut request: Request<Body>, next: Next<'_>| {
            let span = tracing::Span::current();
            let name = span.metadata().map_or("none", |metadata| metadata.name());
            let value = http::HeaderValue::from_static(name);
            request.headers_mut().insert("traceparent", value);
            next.run(request).await
        })
        .build()
        .unwrap();
    let response = client.get(URL).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "GET");
    assert_eq!(spans.ours().len(), 1);
    settle(&client, &world).await;
}
