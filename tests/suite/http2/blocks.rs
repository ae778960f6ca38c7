//! Field blocks, whole and in parts: rows C25 to C27.

use sockeye::{ErrorKind, Phase};

use super::{Case, case, check, session_error};
use crate::support::http2::Frames;
use crate::support::http2::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS};
use crate::support::http2::hpack;

pub(super) fn cases() -> Vec<Case> {
    [field_blocks(), continuations()].concat()
}

#[test]
fn field_blocks_that_cannot_be_read() {
    check(field_blocks());
}

#[test]
fn field_blocks_in_parts() {
    check(continuations());
}

fn new() -> Frames {
    Frames::new()
}

fn field_blocks() -> Vec<Case> {
    let unreadable = |name, block: &[u8]| {
        let frames = new().frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
        session_error(name, frames).goes_away(&["COMPRESSION_ERROR", "PROTOCOL_ERROR"])
    };
    let mut resized = vec![0x20];
    resized.extend(hpack::block(&[(":status", "200")]));
    let mut twice = Vec::new();
    hpack::literal(&mut twice, b":status", b"200");
    hpack::indexed_literal(&mut twice, b"x-kept", b"in the table");
    // The first entry of the dynamic table.
    hpack::integer(&mut twice, 7, 0x80, 62);
    vec![
        unreadable("C25 index 0", &[0x80]),
        unreadable("C25 an index beyond the table", &[0x88, 0xbe]),
        unreadable(
            "C25 an index far beyond the table",
            &[0x88, 0xff, 0xff, 0xff, 0x07],
        ),
        unreadable("C25 an index that overflows", &[0xff; 12]),
        unreadable(
            "C25 a name beyond the table",
            &[0x88, 0x7f, 0x00, 0x01, b'x'],
        ),
        unreadable(
            "C25 a size update beyond the limit",
            &[0x3f, 0xe2, 0x1f, 0x88],
        ),
        unreadable("C25 a size update behind a field", &[0x88, 0x20]),
        unreadable("C25 a name that is cut off", &[0x88, 0x00, 0x05, b'x']),
        unreadable(
            "C25 a value that is cut off",
            &[0x88, 0x00, 0x01, b'x', 0x05, b'y'],
        ),
        unreadable("C25 a length that is cut off", &[0x88, 0x00]),
        // The code of the end, which must not be in a text.
        unreadable(
            "C25 the end in a Huffman code",
            &[0x88, 0x00, 0x01, b'x', 0x84, 0xff, 0xff, 0xff, 0xff],
        ),
        unreadable(
            "C25 zeros pad a Huffman code",
            &[0x88, 0x00, 0x01, b'x', 0x81, 0b0001_1000],
        ),
        unreadable(
            "C25 a byte pads a Huffman code",
            &[0x88, 0x00, 0x01, b'x', 0x82, 0b0001_1111, 0xff],
        ),
        case(
            "C25 a size update that is right",
            new().frame(HEADERS, END_HEADERS | END_STREAM, 1, resized),
        ),
        case(
            "C25 a field of the dynamic table",
            new().frame(HEADERS, END_HEADERS | END_STREAM, 1, twice),
        )
        .fields(|fields| assert_eq!(fields.get_all("x-kept").iter().count(), 2)),
    ]
}

fn continuations() -> Vec<Case> {
    let block = hpack::block(&[(":status", "200"), ("x-long", "value")]);
    let (begun, rest) = block.split_at(7);
    let begin = || new().frame(HEADERS, END_STREAM, 1, begun);
    let pieces = block
        .iter()
        .fold(new().frame(HEADERS, END_STREAM, 1, []), |frames, byte| {
            frames.frame(CONTINUATION, 0, 1, [*byte])
        });
    vec![
        session_error(
            "C26 CONTINUATION of nothing",
            new().frame(CONTINUATION, END_HEADERS, 1, &block),
        ),
        session_error(
            "C26 CONTINUATION behind a whole head",
            new().ok(1).frame(CONTINUATION, END_HEADERS, 1, []),
        )
        .fails_as(&[ErrorKind::Protocol], &[Phase::Head, Phase::Read]),
        session_error(
            "C26 CONTINUATION of another stream",
            begin().frame(CONTINUATION, END_HEADERS, 3, rest),
        ),
        session_error("C26 PING inside a head", begin().ping()),
        session_error("C26 DATA inside a head", begin().end(1, "body")),
        session_error(
            "C26 an unknown frame inside a head",
            begin().frame(99, 0, 1, []),
        ),
        session_error("C26 another head inside a head", begin().ok(3)),
        case(
            "C26 a head in two parts",
            begin().frame(CONTINUATION, END_HEADERS, 1, rest),
        )
        .fields(|fields| assert_eq!(fields["x-long"], "value")),
        case("C27 a few CONTINUATION", pieces_of_four(&block))
            .fields(|fields| assert_eq!(fields["x-long"], "value")),
        // More parts than anybody needs; whether they are taken or not, they end.
        session_error(
            "C27 a CONTINUATION for each byte",
            pieces.frame(CONTINUATION, END_HEADERS, 1, []),
        )
        .fails_as(&[ErrorKind::Protocol, ErrorKind::TooLarge], &[Phase::Head])
        .goes_away(&["ENHANCE_YOUR_CALM"]),
    ]
}

/// A block in four parts.
fn pieces_of_four(block: &[u8]) -> Frames {
    let size = block.len().div_ceil(4);
    let parts: Vec<&[u8]> = block.chunks(size).collect();
    let last = parts.len() - 1;
    let mut frames = new().frame(HEADERS, END_STREAM, 1, parts[0]);
    for part in &parts[1..last] {
        frames = frames.frame(CONTINUATION, 0, 1, part);
    }
    frames.frame(CONTINUATION, END_HEADERS, 1, parts[last])
}
