//! Micro-benches of the codec, of reading bodies (`reading.rs`) and of checkout and release, by criterion.
//!
//! `cargo bench -p sockeye-benches --bench micro`. Absolute times mean little on a shared machine; what counts is a line
//! beside its floor in the same run, such as `response head` beside `httparse and HeaderMap`.

#![allow(
    missing_docs,
    reason = "the macro of criterion makes a function without documentation"
)]

mod reading;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use sockeye::stats::Event;
use sockeye::test::bench::{
    Decisions, Decoder, Encoder, Machine, Telling, check_uri, is_watched, spans_are_on,
};
use sockeye::{Client, EventMask, Observer, Resilience, Retry};

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 27\r\nConnection: keep-alive\r\nCache-Control: no-store\r\n\
    X-Request-Id: 7f0c1a\r\n\r\n{\"id\":42,\"name\":\"sockeye\"}\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("response head, 7 fields");
    let mut decoder = Decoder::default();
    assert_eq!(decoder.decode(RESPONSE), 27);
    assert_eq!(decoder.decode_to_map(RESPONSE), 7);
    group.bench_function("sockeye, bytes and index", |bencher| {
        bencher.iter(|| decoder.decode(black_box(RESPONSE)));
    });
    group.bench_function("sockeye, with HeaderMap", |bencher| {
        bencher.iter(|| decoder.decode_to_map(black_box(RESPONSE)));
    });
    group.bench_function("httparse alone", |bencher| {
        bencher.iter(|| httparse_alone(black_box(RESPONSE)));
    });
    group.bench_function("httparse and HeaderMap", |bencher| {
        bencher.iter(|| httparse_to_map(black_box(RESPONSE)));
    });
    group.finish();

    let mut group = criterion.benchmark_group("request head");
    let mut fields = HeaderMap::new();
    let plain = Encoder::new(
        "http://api.example.com/v1/users/42?fields=name",
        fields.clone(),
    );
    fields.insert(
        "authorization",
        HeaderValue::from_static("Bearer abcdefghijklmnop"),
    );
    fields.insert("x-request-id", HeaderValue::from_static("7f0c1a"));
    let own = Encoder::new("http://api.example.com/v1/users/42?fields=name", fields);
    for (name, encoder) in [("defaults only", plain), ("two own fields", own)] {
        let Some(mut encoder) = encoder else {
            panic!("the URL is valid");
        };
        assert!(encoder.encode() > 100);
        group.bench_function(name, |bencher| bencher.iter(|| encoder.encode()));
    }
    group.finish();
}

fn httparse_alone(response: &[u8]) -> usize {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut fields);
    match parsed.parse(response) {
        Ok(httparse::Status::Complete(len)) => len,
        _ => 0,
    }
}

fn httparse_to_map(response: &[u8]) -> usize {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut fields);
    if !matches!(parsed.parse(response), Ok(httparse::Status::Complete(_))) {
        return 0;
    }
    let mut map = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(field.name.as_bytes()),
            HeaderValue::from_bytes(field.value),
        ) {
            map.append(name, value);
        }
    }
    map.len()
}

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunked body");
    let decoder = Decoder::default();
    for (name, size, chunks) in [
        ("64 chunks of 16 bytes", 16, 64),
        ("16 chunks of 8 KiB", 8192, 16),
    ] {
        let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
        let body = format!("{}0\r\n\r\n", chunk.repeat(chunks));
        assert_eq!(decoder.chunked(body.as_bytes()), size * chunks);
        group.bench_function(name, |bencher| {
            bencher.iter(|| decoder.chunked(black_box(body.as_bytes())))
        });
    }
    group.finish();
}

fn urls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("url");
    for url in [
        "http://127.0.0.1:8080/v1/users/42",
        "https://api.example.com/v1/users/42?fields=name",
    ] {
        let uri = Uri::from_static(url);
        assert!(check_uri(&uri).is_some());
        group.bench_function(url, |bencher| bencher.iter(|| check_uri(black_box(&uri))));
    }
    group.finish();
}

fn pool(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checkout and release");
    for idle in [1, 100] {
        let mut machine = Machine::new(idle);
        assert!(machine.lend_and_release().is_some());
        group.bench_function(format!("machine with {idle} idle"), |bencher| {
            bencher.iter(|| machine.lend_and_release());
        });
    }
    group.finish();
}

/// What the policies add to a call that succeeds at once. The clock is read for the call anyway.
fn policies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policies, first try succeeds");
    for (name, resilience) in [
        ("standard", Resilience::standard()),
        (
            "retry alone",
            Resilience::none().with_retry(Some(Retry::default())),
        ),
    ] {
        let Some(decisions) = Decisions::new(resilience, RESPONSE) else {
            panic!("the response is valid");
        };
        assert!(decisions.first_try());
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(&decisions).first_try());
        });
    }
    let Some(decisions) = Decisions::new(Resilience::none(), RESPONSE) else {
        panic!("the response is valid");
    };
    assert!(!decisions.is_set());
    group.bench_function("none", |bencher| {
        bencher.iter(|| black_box(&decisions).is_set());
    });
    group.finish();
}

/// Counts what it is told.
struct Counting {
    interest: EventMask,
    told: AtomicU64,
}

impl Observer for Counting {
    fn interest(&self) -> EventMask {
        self.interest
    }

    fn on(&self, event: &Event<'_>) {
        if let Event::BodyEnd { bytes, .. } = event {
            self.told.fetch_add(*bytes, Ordering::Relaxed);
        }
    }
}

/// What one event costs the call that tells it.
fn telling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one event");
    for (name, interest) in [
        ("an observer that counts it", EventMask::ALL),
        ("an observer of other events", EventMask::DIALS),
    ] {
        let told = AtomicU64::new(0);
        let Some(telling) = Telling::new(Arc::new(Counting { interest, told })) else {
            panic!("it is interested in something");
        };
        group.bench_function(name, |bencher| bencher.iter(|| black_box(&telling).tell()));
    }
    group.finish();
}

/// What every call asks before it tells anybody of itself: one load where the feature `tracing` is compiled in, and one more.
fn watching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nobody watches");
    let client = Client::new();
    assert!(!is_watched(&client) && !spans_are_on());
    group.bench_function("tracing without a subscriber", |bencher| {
        bencher.iter(spans_are_on);
    });
    group.bench_function("tracing and observers", |bencher| {
        bencher.iter(|| is_watched(black_box(&client)));
    });
    group.finish();
}

criterion_group!(
    benches,
    heads,
    bodies,
    reading::bodies,
    urls,
    pool,
    policies,
    watching,
    telling
);
criterion_main!(benches);
