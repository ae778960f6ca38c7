//! Any bytes as server-sent events.

use bytes::Bytes;

use super::{cuts, split};
use crate::body::EventDecoder;

/// Reads events in several pieces, and once more as the page of the standard has it, from the whole; the first byte chooses
/// the limit of an event.
pub fn sse(data: &[u8]) {
    let (choice, input) = split(data);
    let max_event = match choice & 1 {
        0 => usize::MAX,
        _ => usize::from(choice >> 1),
    };
    let whole = read(input, &[], max_event);
    for cuts in cuts(input) {
        let read = read(input, &cuts, max_event);
        assert_eq!(read, whole, "cut at {cuts:?}: {}", input.escape_ascii());
    }
    if max_event == usize::MAX {
        assert_eq!(slow(input), whole, "{}", input.escape_ascii());
    }
}

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Type, data and id of each event.
    events: Vec<[String; 3]>,
    failed: bool,
    last_id: String,
    retry: Option<u128>,
}

fn read(input: &[u8], cuts: &[usize], max_event: usize) -> Outcome {
    let mut decoder = EventDecoder::new();
    decoder.max_event = max_event;
    let mut outcome = Outcome::default();
    let mut at = 0;
    for end in cuts.iter().copied().chain([input.len()]) {
        let piece = input.get(at..end).unwrap_or_default();
        decoder.feed(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next_event() {
                Ok(Some(event)) => {
                    let told = [event.event(), event.data(), event.id()];
                    outcome.events.push(told.map(str::to_owned));
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(error.to_string().is_ascii());
                    outcome.failed = true;
                    return outcome;
                }
            }
        }
        at = end;
    }
    outcome.last_id = decoder.last_id().to_string();
    outcome.retry = decoder.retry().map(|retry| retry.as_millis());
    outcome
}

/// Section 9.2.6 of WHATWG HTML, step by step and over the whole input.
fn slow(input: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    let input = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    let (mut data, mut kind, mut id) = (Vec::new(), String::new(), String::new());
    for line in whole_lines(input) {
        if line.is_empty() {
            outcome.last_id.clone_from(&id);
            let kind = match std::mem::take(&mut kind) {
                kind if kind.is_empty() => "message".to_owned(),
                kind => kind,
            };
            if data.pop().is_none() {
                continue;
            }
            match String::from_utf8(std::mem::take(&mut data)) {
                Ok(data) => outcome.events.push([kind, data, id.clone()]),
                Err(_) => return failed(outcome),
            }
            continue;
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => line.split_at(colon),
            None => (line.as_slice(), &b":"[..]),
        };
        let value = value.get(1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = std::str::from_utf8(value);
        match (name, text) {
            (b"data", _) => data.extend(value.iter().chain(b"\n")),
            (b"event", Ok(text)) => kind = text.to_owned(),
            (b"id", Ok(text)) if !text.contains('\0') => id = text.to_owned(),
            (b"id", Err(_)) if value.contains(&0) => {}
            (b"event" | b"id", Err(_)) => return failed(outcome),
            (b"retry", Ok(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                let retry = text.parse::<u64>().ok().map(u128::from);
                outcome.retry = retry.or(outcome.retry);
            }
            _ => {}
        }
    }
    outcome
}

/// What is left of an outcome when an error ends it.
fn failed(outcome: Outcome) -> Outcome {
    Outcome {
        events: outcome.events,
        failed: true,
        ..Outcome::default()
    }
}

/// The lines that have an end.
fn whole_lines(input: &[u8]) -> Vec<Vec<u8>> {
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    let mut rest = input.iter().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'\r' => {
                rest.next_if(|next| **next == b'\n');
                lines.push(std::mem::take(&mut line));
            }
            b'\n' => lines.push(std::mem::take(&mut line)),
            byte => line.push(*byte),
        }
    }
    lines
}
