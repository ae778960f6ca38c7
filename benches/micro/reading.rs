//! Reading bodies: lines of JSON, gzip and server-sent events by the adapters of a response, beside what does the work
//! underneath, driven by a bare loop over the same pieces.
//!
//! The adapters have what a bare loop has not: limits, errors that name the place, trailers, and bodies behind a trait object.

use std::convert::Infallible;
use std::hint::black_box;
use std::io::Write;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use flate2::write::GzEncoder;
use flate2::{Compression, Decompress, FlushDecompress, Status};
use futures_core::Stream;
use memchr::memchr;
use serde::Deserialize;
use sockeye::test::bench::Content;
use sse_stream::SseByteStream;

/// One line of JSON.
#[derive(Deserialize)]
struct Row {
    id: u64,
    name: String,
    tags: Vec<String>,
    score: f64,
}

impl Row {
    fn sum(&self) -> u64 {
        self.id + (self.name.len() + self.tags.len()) as u64 + self.score as u64
    }
}

pub(crate) fn bodies(criterion: &mut Criterion) {
    json_lines(criterion);
    gzip(criterion);
    events(criterion);
}

fn json_lines(criterion: &mut Criterion) {
    let text: String = (0..8000_u32).map(row).collect();
    let content = content(text.as_bytes());
    let mut group = criterion.benchmark_group("bodies, lines of JSON");
    group.throughput(Throughput::Bytes(text.len() as u64));
    assert_eq!(adapter_of_json(&content), bare_json(content.pieces()));
    group.bench_function("sockeye", |bencher| {
        bencher.iter(|| adapter_of_json(&content))
    });
    group.bench_function("memchr and serde_json alone", |bencher| {
        bencher.iter(|| bare_json(black_box(content.pieces())));
    });
    group.finish();
}

fn row(number: u32) -> String {
    format!(
        "{{\"id\":{number},\"name\":\"Oncorhynchus nerka {number}\",\"tags\":[\"salmon\",\"river\"],\"score\":{}.25}}\n",
        number % 100
    )
}

fn adapter_of_json(content: &Content) -> u64 {
    let mut sum = 0;
    content.json_lines(|row: Row| sum += row.sum());
    sum
}

/// The least that gives the same: lines that lie in one piece are not copied.
fn bare_json(pieces: &[Bytes]) -> u64 {
    let mut sum = 0;
    let mut parse =
        |line: &[u8]| sum += serde_json::from_slice(line).map_or(0, |row: Row| row.sum());
    let mut begun = Vec::new();
    for piece in pieces {
        let mut rest = &piece[..];
        while let Some(at) = memchr(b'\n', rest) {
            let (line, behind) = rest.split_at(at);
            if begun.is_empty() {
                parse(line);
            } else {
                begun.extend_from_slice(line);
                parse(&begun);
                begun.clear();
            }
            rest = behind.get(1..).unwrap_or_default();
        }
        begun.extend_from_slice(rest);
    }
    sum
}

fn gzip(criterion: &mut Criterion) {
    let text: String = (0..40_000_u32).map(row).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(text.as_bytes());
    let (Ok(()), Ok(coded)) = (written, encoder.finish()) else {
        panic!("memory does not fail");
    };
    let content = content(&coded);
    let mut group = criterion.benchmark_group("bodies, gzip");
    group.throughput(Throughput::Bytes(text.len() as u64));
    assert_eq!(adapter_of_gzip(&content), text.len());
    assert_eq!(bare_gzip(content.pieces()), text.len());
    group.bench_function("sockeye", |bencher| {
        bencher.iter(|| adapter_of_gzip(&content))
    });
    group.bench_function("flate2 alone", |bencher| {
        bencher.iter(|| bare_gzip(black_box(content.pieces())));
    });
    group.finish();
}

fn adapter_of_gzip(content: &Content) -> usize {
    let mut size = 0;
    content.decoded("gzip", |piece| size += piece.len());
    size
}

/// Decodes into the same 64 KiB again and again.
fn bare_gzip(pieces: &[Bytes]) -> usize {
    let mut decoder = Decompress::new_gzip(15);
    let mut room = vec![0; 64 * 1024];
    for piece in pieces {
        let mut rest = &piece[..];
        loop {
            let before = (decoder.total_in(), decoder.total_out());
            let status = decoder.decompress(rest, &mut room, FlushDecompress::None);
            let used = usize::try_from(decoder.total_in() - before.0).unwrap_or(0);
            let gained = decoder.total_out() - before.1;
            rest = rest.get(used..).unwrap_or_default();
            let full = gained == room.len() as u64;
            if !matches!(status, Ok(Status::Ok)) || (rest.is_empty() && !full) {
                break;
            }
        }
    }
    usize::try_from(decoder.total_out()).unwrap_or(0)
}

fn events(criterion: &mut Criterion) {
    let text: String = (0..8000_u32)
        .map(|number| {
            format!(
                "data: {{\"id\":\"answer-17\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{number}\"}}}}]}}\n\n"
            )
        })
        .collect();
    let content = content(text.as_bytes());
    let mut group = criterion.benchmark_group("bodies, events");
    group.throughput(Throughput::Bytes(text.len() as u64));
    let size = adapter_of_events(&content);
    assert_eq!(size, bare_events(content.pieces()));
    assert_eq!(size, other_events(content.pieces()));
    group.bench_function("sockeye", |bencher| {
        bencher.iter(|| adapter_of_events(&content))
    });
    group.bench_function("memchr and String alone", |bencher| {
        bencher.iter(|| bare_events(black_box(content.pieces())));
    });
    group.bench_function("sse-stream alone", |bencher| {
        bencher.iter(|| other_events(black_box(content.pieces())));
    });
    group.finish();
}

fn adapter_of_events(content: &Content) -> usize {
    let mut size = 0;
    content.events(|data| size += data.len());
    size
}

/// The least that gives events of one line of data, each a `String` of its own; knows no other field.
fn bare_events(pieces: &[Bytes]) -> usize {
    let (mut size, mut begun, mut data) = (0, Vec::new(), Vec::new());
    let mut take = |line: &[u8]| {
        if let Some(text) = line.strip_prefix(b"data: ") {
            data.extend_from_slice(text);
        } else if line.is_empty() {
            size += String::from_utf8(std::mem::take(&mut data)).map_or(0, |data| data.len());
        }
    };
    for piece in pieces {
        let mut rest = &piece[..];
        while let Some(at) = memchr(b'\n', rest) {
            let (line, behind) = rest.split_at(at);
            if begun.is_empty() {
                take(line);
            } else {
                begun.extend_from_slice(line);
                take(&begun);
                begun.clear();
            }
            rest = behind.get(1..).unwrap_or_default();
        }
        begun.extend_from_slice(rest);
    }
    size
}

fn other_events(pieces: &[Bytes]) -> usize {
    let mut stream = pin!(SseByteStream::new(There(pieces.iter().cloned())));
    let mut cx = Context::from_waker(Waker::noop());
    let mut size = 0;
    while let Poll::Ready(Some(Ok(event))) = stream.as_mut().poll_next(&mut cx) {
        size += event.data.map_or(0, |data| data.len());
    }
    size
}

struct There<I>(I);

impl<I: Iterator<Item = Bytes> + Unpin> Stream for There<I> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

/// A body in the pieces that a busy connection gives.
fn content(bytes: &[u8]) -> Content {
    match Content::new(bytes, 16 * 1024) {
        Some(content) => content,
        None => panic!("a piece has bytes"),
    }
}
