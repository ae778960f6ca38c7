//! Any method, URL, fields and body as a request: either it is refused, or a strict parser reads exactly it.

use std::sync::Arc;

use bytes::BytesMut;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, header};

use super::split;
use crate::codec::request_head::encode;
use crate::codec::{BodyDecoder, BodyEncoder, BodyLength, BodyStep, Framing};
use crate::config::Limits;
use crate::head::{Asks, DefaultFields, RequestHead};
use crate::url::UrlInput;

/// Encodes a request. The first byte chooses the body; the first line is the method, the second the URL, and each further one
/// a field.
pub fn request_head(data: &[u8]) {
    let (choice, input) = split(data);
    let mut lines = input.splitn(10, |byte| *byte == b'\n');
    let method = lines.next().unwrap_or_default();
    let url = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let Ok(method) = Method::from_bytes(method) else {
        return;
    };
    let Ok(parsed) = UrlInput::Text(url.into()).parse(None) else {
        return;
    };
    let mut headers = HeaderMap::new();
    let mut trailers = HeaderMap::new();
    let mut asks = Asks::default();
    for line in lines {
        let at = line
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(line.len());
        let name = line.get(..at).unwrap_or_default();
        let value = line.get(at + 1..).unwrap_or_default();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
            continue;
        }
        // No name of a field begins like this: what the call asks for, and trailers.
        let [b'>', name @ ..] = name else {
            continue;
        };
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) if name == header::UPGRADE => asks.upgrade = Some(value),
            (Ok(name), _) if name == header::EXPECT => asks.expect_continue = true,
            (Ok(name), Ok(value)) => {
                trailers.append(name, value);
            }
            _ => {}
        }
    }
    let body = match choice & 3 {
        0 => BodyLength::None,
        1 => BodyLength::Known(u64::from(choice >> 2)),
        _ => BodyLength::Unknown,
    };
    let head = RequestHead {
        method,
        target: parsed.target,
        headers,
        asks: Some(Arc::new(asks)),
    };
    let mut defaults = HeaderMap::new();
    defaults.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    let mut out = BytesMut::from("before");
    match encode(&mut out, &head, &DefaultFields::new(&defaults), body, None) {
        Ok(encoded) => {
            let bytes = out.split_off("before".len());
            check(&bytes, &head, encoded.body);
            check_body(encoded.body, choice >> 2, &trailers);
        }
        Err(error) => assert!(!error.to_string().contains(['\r', '\n'])),
    }
    assert_eq!(out, "before", "an error writes nothing");
}

/// What was written is one head: method, target, one Host before all else, the caller's fields and one framing.
fn check(bytes: &[u8], head: &RequestHead, body: BodyEncoder) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut fields);
    let complete = parsed.parse(bytes);
    assert_eq!(
        complete,
        Ok(httparse::Status::Complete(bytes.len())),
        "{}",
        bytes.escape_ascii()
    );
    let ends = bytes
        .windows(4)
        .filter(|window| window == b"\r\n\r\n")
        .count();
    assert_eq!(ends, 1, "one end of a head");
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert_eq!(lines, parsed.headers.len() + 3, "a line a field");
    assert_eq!(parsed.method, Some(head.method.as_str()));
    if head.method == Method::CONNECT {
        let port = format!(":{}", head.target.port());
        assert!(
            parsed.path.is_some_and(|path| path.ends_with(&port)),
            "an authority"
        );
    } else {
        assert_eq!(parsed.path, Some(head.target.path_and_query()));
    }
    let written = |name: &str| -> Vec<&[u8]> {
        let fields = parsed.headers.iter();
        let named = fields.filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect()
    };
    assert_eq!(parsed.headers.first().map(|field| field.name), Some("host"));
    assert_eq!(written("host").len(), 1);
    let lengths = written("content-length");
    let codings = written("transfer-encoding");
    assert!(
        lengths.len() + codings.len() <= 1,
        "one framing: {}",
        bytes.escape_ascii()
    );
    match body {
        BodyEncoder::Chunked => assert_eq!(codings, [b"chunked"]),
        BodyEncoder::Length(length) => {
            let length = length.to_string();
            assert!(lengths == [length.as_bytes()] || (lengths.is_empty() && length == "0"));
        }
    }
    for (name, value) in &head.headers {
        let value = value.as_bytes();
        let sent = written(name.as_str())
            .iter()
            .any(|sent| trimmed(value) == *sent);
        let is_framing = [header::CONTENT_LENGTH, header::EXPECT].contains(name);
        assert!(
            sent || is_framing,
            "{name} is missing: {}",
            bytes.escape_ascii()
        );
    }
    for field in parsed.headers.iter() {
        let ours = [
            "host",
            "accept",
            "connection",
            "content-length",
            "transfer-encoding",
        ];
        let asked = match field.name {
            "expect" => head.expects_continue(),
            "upgrade" => head.upgrade().is_some(),
            name => ours.contains(&name),
        };
        let known = asked || head.headers.contains_key(field.name);
        assert!(known, "{} was asked for by nobody", field.name);
    }
}

/// What the encoder frames, the decoder of responses takes apart again.
fn check_body(mut encoder: BodyEncoder, pieces: u8, trailers: &HeaderMap) {
    let framing = match encoder {
        BodyEncoder::Length(length) => Framing::Length(length),
        BodyEncoder::Chunked => Framing::Chunked,
    };
    let mut sent = Vec::new();
    let mut wire = BytesMut::new();
    for size in 1..=usize::from(pieces) {
        let piece = vec![b'0'; size];
        match encoder.begin_data(size as u64, &mut wire) {
            Ok(()) => {
                wire.extend_from_slice(&piece);
                wire.extend_from_slice(encoder.suffix());
                sent.extend_from_slice(&piece);
            }
            // More than the head said is refused before it is written.
            Err(_) => break,
        }
    }
    let end = wire.len();
    let mut finished = encoder.finish(Some(trailers), &mut wire).is_ok();
    if !finished && framing == Framing::Chunked {
        // A trailer that may not be sent: without any the body ends.
        wire.truncate(end);
        finished = encoder.finish(None, &mut wire).is_ok();
    }
    let mut decoder = BodyDecoder::new(framing, &Limits::default());
    let mut read = Vec::new();
    let mut at = 0;
    while let Ok(step) = decoder.step(wire.get(at..).unwrap_or_default()) {
        match step {
            BodyStep::Data { skip, len } => {
                read.extend_from_slice(wire.get(at + skip..at + skip + len).unwrap_or_default());
                at += skip + len;
            }
            BodyStep::NeedMore { .. } | BodyStep::End { .. } => break,
        }
    }
    assert_eq!(read, sent);
    assert_eq!(
        decoder.is_done(),
        finished,
        "a body is over when its encoder says so"
    );
}

fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|byte| !blank(byte))
        .map_or(start, |at| at + 1);
    value.get(start..end).unwrap_or_default()
}
