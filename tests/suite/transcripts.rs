//! Replays the golden transcripts of `tests/transcripts`: one reply of a server, and what a client must make of it.
//!
//! Each is run with the reply written whole and byte by byte; the outcome must be the same. Afterwards a second request
//! shows whether the connection was reused. The format is described in `tests/transcripts/README.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sockeye::{Body, Client, Limits, Method, RequestBuilder};

use crate::support::peer::World;
use crate::support::reply::{Outcome, Pace, Reply, exchange};
use crate::support::streams::fed;

#[derive(Debug, Default)]
struct Transcript {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Option<String>,
    /// Pieces of a body whose length is not known.
    pieces: Vec<Vec<u8>>,
    limits: Vec<(String, usize)>,
    lenient: bool,
    /// What must be on the wire, if that matters.
    sent: Vec<u8>,
    reply: Vec<u8>,
    closes: bool,
    expected: Vec<(String, String)>,
    ignored: Option<String>,
}

#[tokio::test(start_paused = true)]
async fn every_transcript_has_its_outcome() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 50, "only {} transcripts", files.len());
    let mut failures = String::new();
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy();
        let transcript = parse(&name, &fs::read_to_string(file).unwrap());
        if transcript.ignored.is_some() {
            continue;
        }
        for pace in [Pace::Whole, Pace::Pieces(1)] {
            let outcome = run(&transcript, pace).await;
            for wrong in compare(&transcript, &outcome) {
                writeln!(failures, "{name} ({pace:?}): {wrong}").unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

async fn run(transcript: &Transcript, pace: Pace) -> Outcome {
    let world = World::new();
    let client = client(&world, transcript);
    let reply = Reply {
        bytes: transcript.reply.clone(),
        closes: transcript.closes,
        pace,
    };
    let request = request(&client, transcript);
    exchange(&world, &client, request, "http://peer.test", reply).await
}

fn client(world: &World, transcript: &Transcript) -> Client {
    let mut limits = Limits::default();
    for (name, value) in &transcript.limits {
        limits = match name.as_str() {
            "max_head" => limits.with_max_head(*value),
            "max_head_fields" => limits.with_max_head_fields(*value),
            "max_informational" => limits.with_max_informational(*value),
            "max_trailer" => limits.with_max_trailer(*value),
            "max_trailer_fields" => limits.with_max_trailer_fields(*value),
            "max_chunk_extensions" => limits.with_max_chunk_extensions(*value),
            _ => panic!("no such limit: {name}"),
        };
    }
    world
        .builder()
        .limits(limits)
        .lenient_heads(transcript.lenient)
        .error_for_status(false)
        // The request is compared byte by byte, and what it asks for by default depends on features.
        .decompress(false)
        .build()
        .unwrap()
}

fn request(client: &Client, transcript: &Transcript) -> RequestBuilder {
    let method = Method::from_bytes(transcript.method.as_bytes()).unwrap();
    let mut request = client.request(method, format!("http://peer.test{}", transcript.target));
    for (name, value) in &transcript.fields {
        let value = http::HeaderValue::from_bytes(&unescape(value)).unwrap();
        request = request.header(name.as_str(), value);
    }
    if let Some(body) = &transcript.body {
        request = request.body(body.clone());
    }
    if !transcript.pieces.is_empty() {
        let (feed, fed) = fed();
        for piece in &transcript.pieces {
            feed.give(piece.clone());
        }
        request = request.body(Body::stream(fed));
    }
    request
}

/// What differs from what was expected.
fn compare(transcript: &Transcript, outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |what: &str, expected: &str, got: String| {
        if expected != got {
            wrong.push(format!("{what}: expected {expected:?}, got {got:?}"));
        }
    };
    if !transcript.sent.is_empty() {
        check(
            "request",
            &String::from_utf8_lossy(&transcript.sent),
            outcome.sent.as_ref().map_or_else(
                || "(nothing)".to_owned(),
                |sent| lossy(&sent.raw).into_owned(),
            ),
        );
    }
    let told = match &outcome.result {
        Ok(answer) => format!("status {} with {:?}", answer.status, lossy(&answer.body)),
        Err(error) => format!("{error:?}"),
    };
    for (what, expected) in &transcript.expected {
        let (name, value) = expected.split_once(": ").unwrap_or((expected, ""));
        match (what.as_str(), &outcome.result) {
            ("reuse", _) => check(
                "reuse",
                expected,
                if outcome.reused { "yes" } else { "no" }.to_owned(),
            ),
            ("status", Ok(answer)) => check("status", expected, answer.status.to_string()),
            ("version", Ok(answer)) => check("version", expected, answer.version.clone()),
            ("body", Ok(answer)) => check(
                "body",
                &lossy(&unescape(expected)),
                lossy(&answer.body).into_owned(),
            ),
            ("body-length", Ok(answer)) => {
                check("body-length", expected, answer.body.len().to_string());
            }
            ("field", Ok(answer)) => check(name, value, field(&answer.headers, name)),
            ("absent", Ok(answer)) => check(expected, "(absent)", field(&answer.headers, expected)),
            ("trailer", Ok(answer)) => check(
                name,
                value,
                answer
                    .trailers
                    .as_ref()
                    .map_or_else(|| "(absent)".to_owned(), |trailers| field(trailers, name)),
            ),
            ("no-trailer", Ok(answer)) => check(
                expected,
                "(absent)",
                answer.trailers.as_ref().map_or_else(
                    || "(absent)".to_owned(),
                    |trailers| field(trailers, expected),
                ),
            ),
            ("sent", _) => {
                let sent = outcome.sent.as_ref().map_or("no", |_| "yes");
                check("sent", expected, sent.to_owned());
            }
            ("error", Err(error)) => check("error", expected, format!("{:?}", error.kind())),
            ("says", Err(error)) => {
                let text = error.to_string();
                if text.contains('\n') || !text.contains(expected.as_str()) {
                    check("says", expected, text);
                }
            }
            _ => check(what, expected, told.clone()),
        }
    }
    wrong
}

fn field(headers: &http::HeaderMap, name: &str) -> String {
    let values: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|value| lossy(value.as_bytes()).into_owned())
        .collect();
    if values.is_empty() {
        "(absent)".to_owned()
    } else {
        values.join(" | ")
    }
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The bytes of the reply in a file.
pub(crate) fn reply(file: &Path) -> Vec<u8> {
    let name = file.file_stem().unwrap().to_string_lossy();
    parse(&name, &fs::read_to_string(file).unwrap()).reply
}

fn parse(name: &str, text: &str) -> Transcript {
    let mut transcript = Transcript {
        method: "GET".to_owned(),
        target: "/".to_owned(),
        ..Transcript::default()
    };
    assert!(
        text.starts_with("# "),
        "{name}: the first line names the rule"
    );
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" | "#" => {}
            "request" => {
                let (method, target) = rest.split_once(' ').expect("a method and a target");
                transcript.method = method.to_owned();
                transcript.target = target.to_owned();
            }
            "header" => {
                let (name, value) = rest.split_once(": ").expect("a field");
                transcript.fields.push((name.to_owned(), value.to_owned()));
            }
            "body" => transcript.body = Some(rest.to_owned()),
            "piece" => transcript.pieces.push(unescape(rest)),
            "lenient" => transcript.lenient = true,
            "limit" => {
                let (name, value) = rest.split_once(' ').expect("a limit and its value");
                transcript
                    .limits
                    .push((name.to_owned(), value.parse().expect("a number")));
            }
            ">" => {
                transcript.sent.extend_from_slice(rest.as_bytes());
                transcript.sent.extend_from_slice(b"\r\n");
            }
            ">>" => transcript.sent.extend(unescape(rest)),
            "<" => {
                transcript.reply.extend(unescape(rest));
                transcript.reply.extend_from_slice(b"\r\n");
            }
            "<<" => transcript.reply.extend(unescape(rest)),
            "<*" => {
                let (times, piece) = rest.split_once(' ').expect("a count and a piece");
                let times = times.parse().expect("a number");
                transcript.reply.extend(unescape(piece).repeat(times));
            }
            "close" => transcript.closes = true,
            "ignore" => transcript.ignored = Some(rest.to_owned()),
            "=" => {
                let (what, value) = rest.split_once(' ').unwrap_or((rest, ""));
                transcript
                    .expected
                    .push((what.to_owned(), value.to_owned()));
            }
            _ => panic!("{name}: cannot read {line:?}"),
        }
    }
    let says = |what: &str| transcript.expected.iter().any(|(known, _)| known == what);
    assert!(
        says("reuse") && (says("status") || says("error")),
        "{name}: no outcome"
    );
    transcript
}

/// `\r \n \t \0 \\ \xNN` and everything else as it is.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().expect("an escape") {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b's' => b' ',
            b'\\' => b'\\',
            b'x' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                let digits = std::str::from_utf8(&digits).unwrap();
                u8::from_str_radix(digits, 16).unwrap()
            }
            other => panic!("no such escape: \\{}", char::from(other)),
        });
    }
    bytes
}
