//! What a session begins with, and frames that are wrong wherever they stand: rows C1 to C3, C23, C24, C29, C30, C37, C39
//! and C44.

use sockeye::{ErrorKind, Phase};

use super::{Case, case, check, session_error, stream_error};
use crate::support::http2::Frames;
use crate::support::http2::frames::{
    ACK, ALTSVC, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, GOAWAY,
    HEADER_TABLE_SIZE, HEADERS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, PADDED, PING, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY,
};
use crate::support::http2::hpack;

pub(super) fn cases() -> Vec<Case> {
    [
        beginnings(),
        wrong_streams(),
        sizes(),
        settings(),
        padding(),
        others(),
    ]
    .concat()
}

#[test]
fn what_a_session_begins_with() {
    check(beginnings());
}

#[test]
fn frames_where_they_must_not_be() {
    check(wrong_streams());
}

#[test]
fn frames_of_a_wrong_size() {
    check(sizes());
}

#[test]
fn settings_that_are_wrong() {
    check(settings());
}

#[test]
fn padding_and_its_length() {
    check(padding());
}

#[test]
fn frames_that_mean_nothing() {
    check(others());
}

fn new() -> Frames {
    Frames::new()
}

/// A response with no body.
fn done(frames: Frames) -> Frames {
    frames.head(1, END_STREAM, &[(":status", "200")])
}

/// A session that does not begin as one; the server's SETTINGS are among `opening` or do not come at all.
fn no_session(name: &'static str, opening: Frames, reply: Frames) -> Case {
    session_error(name, reply).opening(opening).silent()
}

fn beginnings() -> Vec<Case> {
    let http1 = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let nothing = Frames::new;
    // Who speaks HTTP/1 has no use for GOAWAY.
    let speaks_http1 = |name, text: &str| {
        let case = no_session(name, nothing(), new().raw(text));
        case.says(&[]).telling("HTTP/1")
    };
    vec![
        no_session("C1 a response before SETTINGS", nothing(), done(new())),
        no_session(
            "C1 PING before SETTINGS",
            nothing(),
            done(new().ping().settings(&[])),
        ),
        no_session(
            "C1 an acknowledgement before SETTINGS",
            nothing(),
            done(new().settings_ack().settings(&[])),
        ),
        no_session(
            "C1 SETTINGS of a stream first",
            nothing(),
            done(new().frame(SETTINGS, 0, 1, [])),
        ),
        speaks_http1("C2 HTTP/1.1 in reply", http1),
        speaks_http1("C2 HTTP/1.1 and the end", http1).closes(),
        speaks_http1("C2 HTTP/1.1, short, and the end", "HTTP/1.1 400\r\n\r\n").closes(),
        speaks_http1("C2 HTTP/1.0 in reply", "HTTP/1.0 400 Bad\r\n\r\nno").closes(),
        no_session(
            "C2 another protocol",
            nothing(),
            new().raw("SSH-2.0-OpenSSH_9.9p1 Debian-3\r\n"),
        ),
        no_session(
            "C2 a page",
            nothing(),
            new().raw("<html><body>Bad Request</body></html>"),
        ),
        case("C3 our SETTINGS are never acknowledged", done(new())).silent(),
    ]
}

fn wrong_streams() -> Vec<Case> {
    let ok = [(":status", "200")];
    let mut promise = vec![0, 0, 0, 2];
    promise.extend(hpack::block(&[(":method", "GET"), (":path", "/")]));
    vec![
        session_error("C23 DATA before the head", new().data(1, "early")),
        session_error("C23 DATA of an idle stream", new().data(3, "nobody's")),
        session_error("C23 HEADERS of an idle stream", new().head(5, 0, &ok)),
        session_error("C23 RST_STREAM of an idle stream", new().rst(3, 0)),
        session_error("C23 WINDOW_UPDATE of an idle stream", new().window(3, 1)),
        session_error("C23 DATA of stream 0", new().data(0, "all")),
        session_error("C23 HEADERS of stream 0", new().head(0, 0, &ok)),
        session_error("C23 RST_STREAM of stream 0", new().rst(0, 0)),
        session_error(
            "C23 CONTINUATION of stream 0",
            new().frame(CONTINUATION, 0, 0, []),
        ),
        session_error("C23 HEADERS of an even stream", new().head(2, 0, &ok)),
        session_error("C23 DATA of an even stream", new().data(2, "pushed")),
        session_error("C23 PING of a stream", new().frame(PING, 0, 1, [0; 8])),
        session_error("C23 GOAWAY of a stream", new().frame(GOAWAY, 0, 1, [0; 8])),
        session_error(
            "C23 PUSH_PROMISE",
            new().frame(PUSH_PROMISE, END_HEADERS, 1, promise),
        ),
    ]
}

/// Which of the two codes is said depends on where a size is found to be wrong.
const SIZE: [&str; 2] = ["FRAME_SIZE_ERROR", "PROTOCOL_ERROR"];

fn sizes() -> Vec<Case> {
    let wrong = |name, frames| session_error(name, frames).goes_away(&SIZE);
    vec![
        wrong(
            "C24 DATA of 16,385 bytes",
            new().ok(1).end(1, [b'x'; 16_385]),
        )
        .fails_as(&[ErrorKind::Protocol], &[Phase::Head, Phase::Read]),
        wrong(
            "C24 DATA said to be of 16 MiB",
            new().ok(1).lying(0xff_ffff, DATA, 0, 1, [b'x'; 100]),
        )
        .fails_as(&[ErrorKind::Protocol], &[Phase::Head, Phase::Read]),
        wrong(
            "C24 HEADERS of 16,385 bytes",
            new().frame(HEADERS, END_HEADERS, 1, [0; 16_385]),
        ),
        wrong(
            "C24 an unknown frame of 16,385 bytes",
            new().frame(99, 0, 0, [0; 16_385]),
        ),
        wrong(
            "C24 RST_STREAM of three bytes",
            new().frame(RST_STREAM, 0, 1, [0; 3]),
        ),
        wrong("C24 PING of seven bytes", new().frame(PING, 0, 0, [0; 7])),
        wrong("C24 PING of nine bytes", new().frame(PING, 0, 0, [0; 9])),
        wrong(
            "C24 WINDOW_UPDATE of three bytes",
            new().frame(WINDOW_UPDATE, 0, 0, [1; 3]),
        ),
        wrong(
            "C24 WINDOW_UPDATE of five bytes",
            new().frame(WINDOW_UPDATE, 0, 1, [1; 5]),
        ),
        wrong(
            "C24 GOAWAY of seven bytes",
            new().frame(GOAWAY, 0, 0, [0; 7]),
        ),
        wrong(
            "C24 HEADERS too short for their priority",
            new().frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, [0; 4]),
        ),
        wrong(
            "C24 PUSH_PROMISE without a stream",
            new().frame(PUSH_PROMISE, END_HEADERS, 1, [0; 2]),
        ),
        case(
            "C24 DATA of 16,384 bytes",
            new().ok(1).end(1, [b'x'; 16_384]),
        )
        .answers(200, &[b'x'; 16_384]),
    ]
}

fn settings() -> Vec<Case> {
    let wrong = |name, frames| {
        let codes = ["PROTOCOL_ERROR", "FRAME_SIZE_ERROR", "FLOW_CONTROL_ERROR"];
        session_error(name, frames).goes_away(&codes)
    };
    vec![
        wrong("C29 SETTINGS of a stream", new().frame(SETTINGS, 0, 1, [])),
        wrong(
            "C29 SETTINGS of five bytes",
            new().frame(SETTINGS, 0, 0, [0; 5]),
        ),
        wrong(
            "C29 an acknowledgement with a payload",
            new().frame(SETTINGS, ACK, 0, [0; 6]),
        ),
        // Found before h2 sees it, so that it has nothing to say.
        wrong("C29 ENABLE_PUSH of 2", new().settings(&[(ENABLE_PUSH, 2)])).says_anything(),
        wrong(
            "C29 INITIAL_WINDOW_SIZE of 2 GiB",
            new().settings(&[(INITIAL_WINDOW_SIZE, 0x8000_0000)]),
        ),
        wrong(
            "C29 MAX_FRAME_SIZE of 16,383",
            new().settings(&[(MAX_FRAME_SIZE, 16_383)]),
        ),
        wrong(
            "C29 MAX_FRAME_SIZE of 16 MiB",
            new().settings(&[(MAX_FRAME_SIZE, 0x100_0000)]),
        ),
        session_error("C30 ENABLE_PUSH of 1", new().settings(&[(ENABLE_PUSH, 1)])),
        case(
            "C30 ENABLE_PUSH of 0",
            done(new().settings(&[(ENABLE_PUSH, 0)])),
        ),
        case(
            "C29 settings that are right",
            done(new().settings(&[
                (HEADER_TABLE_SIZE, 0),
                (INITIAL_WINDOW_SIZE, 0x7fff_ffff),
                (MAX_FRAME_SIZE, 0xff_ffff),
                (0xff00, 7),
            ])),
        ),
        session_error("C37 WINDOW_UPDATE by 0 of the stream", new().window(1, 0)),
        session_error(
            "C37 WINDOW_UPDATE by 0 of the connection",
            new().window(0, 0),
        ),
    ]
}

fn padding() -> Vec<Case> {
    let flags = PADDED | END_STREAM;
    let mut padded_head = vec![5];
    padded_head.extend(hpack::block(&[(":status", "200")]));
    padded_head.extend([0; 5]);
    vec![
        session_error(
            "C39 DATA with more padding than payload",
            new().ok(1).frame(DATA, flags, 1, [9, b'x', 0, 0]),
        )
        .fails_as(&[ErrorKind::Protocol], &[Phase::Head, Phase::Read]),
        session_error(
            "C39 DATA without the length of its padding",
            new().ok(1).frame(DATA, flags, 1, []),
        )
        .fails_as(&[ErrorKind::Protocol], &[Phase::Head, Phase::Read])
        .goes_away(&SIZE),
        session_error(
            "C39 HEADERS with more padding than payload",
            new().frame(HEADERS, END_HEADERS | flags, 1, [200, 0x88]),
        ),
        case(
            "C39 DATA with padding",
            new().ok(1).frame(DATA, flags, 1, [3, b'x', 0, 0, 0]),
        )
        .answers(200, b"x"),
        case(
            "C39 DATA of nothing but padding",
            new().ok(1).frame(DATA, flags, 1, [3, 0, 0, 0]),
        ),
        case(
            "C39 HEADERS with padding",
            new().frame(HEADERS, END_HEADERS | flags, 1, padded_head),
        ),
    ]
}

fn others() -> Vec<Case> {
    let mut after_priority = vec![0, 0, 0, 0, 15];
    after_priority.extend(hpack::block(&[(":status", "200")]));
    vec![
        case(
            "C44 an unknown frame of the connection",
            done(new().frame(66, 0xff, 0, [1; 100])),
        ),
        case(
            "C44 an unknown frame of the stream",
            done(new().frame(66, 0xff, 1, [1; 100])),
        ),
        case(
            "C44 an unknown frame of an idle stream",
            done(new().frame(66, 0, 99, [])),
        ),
        case(
            "C44 an unknown frame inside a body",
            new().ok(1).data(1, "a").frame(66, 0, 1, []).end(1, "b"),
        )
        .answers(200, b"ab"),
        case(
            "C44 ALTSVC",
            done(new().frame(ALTSVC, 0, 1, b"\0\0h3=\":443\"")),
        ),
        case(
            "C44 PRIORITY",
            done(new().frame(PRIORITY, 0, 1, [0, 0, 0, 0, 15])),
        ),
        case(
            "C44 PRIORITY of an idle stream",
            done(new().frame(PRIORITY, 0, 7, [0, 0, 0, 0, 15])),
        ),
        case(
            "C44 HEADERS with a priority",
            new().frame(
                HEADERS,
                END_HEADERS | END_STREAM | WITH_PRIORITY,
                1,
                after_priority,
            ),
        ),
        case(
            "C44 bits that are reserved",
            done(new().raw(reserved_bit())),
        ),
        stream_error(
            "C44 PRIORITY of the stream itself",
            new().frame(PRIORITY, 0, 1, [0, 0, 0, 1, 15]),
        ),
        session_error(
            "C44 PRIORITY of four bytes",
            new().frame(PRIORITY, 0, 1, [0; 4]),
        )
        .goes_away(&SIZE),
        session_error(
            "C44 PRIORITY of the connection",
            new().frame(PRIORITY, 0, 0, [0, 0, 0, 0, 15]),
        ),
    ]
}

/// A PING whose reserved bit of the stream is set, and flags that PING does not have. It counts as one of stream 0.
fn reserved_bit() -> Vec<u8> {
    new().frame(PING, 0xfe, 0x8000_0000, [3; 8]).0
}

/// In an ordinary exchange a client says nothing of its own accord.
#[test]
fn an_ordinary_exchange() {
    check(vec![
        case("C23 nothing but a head", done(new())),
        case(
            "C23 a body in two frames",
            new().ok(1).data(1, "a").end(1, "b"),
        )
        .answers(200, b"ab"),
        case("C23 an end of its own", new().ok(1).data(1, "a").end(1, "")).answers(200, b"a"),
    ]);
}
