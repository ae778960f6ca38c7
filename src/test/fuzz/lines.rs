//! Any bytes as lines.

use bytes::Bytes;

use super::{cuts, split};
use crate::body::LineDecoder;

/// Reads lines in several pieces, and once more by cutting the whole; the first byte chooses the limit of a line.
pub fn lines(data: &[u8]) {
    let (choice, input) = split(data);
    let max_line = match choice & 1 {
        0 => usize::MAX,
        _ => usize::from(choice >> 1),
    };
    let expected = slow(input, max_line);
    for cuts in cuts(input).into_iter().chain([Vec::new()]) {
        let read = read(input, &cuts, max_line);
        assert_eq!(read, expected, "cut at {cuts:?}: {}", input.escape_ascii());
    }
}

/// The lines, and whether they end with one that is too long.
type Outcome = (Vec<Vec<u8>>, bool);

fn read(input: &[u8], cuts: &[usize], max_line: usize) -> Outcome {
    let mut decoder = LineDecoder::new(max_line);
    let mut lines = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([input.len()]) {
        let piece = input.get(at..end).unwrap_or_default();
        decoder.feed(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next_line() {
                Ok(Some(line)) => lines.push(line.to_vec()),
                Ok(None) => break,
                Err(_) => return (lines, true),
            }
        }
        at = end;
    }
    match decoder.finish() {
        Ok(last) => {
            lines.extend(last.map(|line| line.to_vec()));
            assert_eq!(decoder.count(), lines.len() as u64);
            (lines, false)
        }
        Err(_) => (lines, true),
    }
}

fn slow(input: &[u8], max_line: usize) -> Outcome {
    let mut parts: Vec<_> = input.split(|byte| *byte == b'\n').collect();
    // What stands behind the last LF is a line only if there is something.
    if parts.last().is_some_and(|last| last.is_empty()) {
        parts.pop();
    }
    let mut lines = Vec::new();
    for (at, part) in parts.into_iter().enumerate() {
        // The CR of a last line without an LF is its own.
        let line = match is_open_end(input, part) {
            true => part,
            false => part.strip_suffix(b"\r").unwrap_or(part),
        };
        let line = match at {
            0 => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            _ => line,
        };
        if line.len() > max_line {
            return (lines, true);
        }
        lines.push(line.to_vec());
    }
    (lines, false)
}

/// Whether `part` is what stands behind the last LF of `input`.
fn is_open_end(input: &[u8], part: &[u8]) -> bool {
    input.as_ptr_range().end == part.as_ptr_range().end
}
