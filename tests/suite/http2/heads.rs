//! Response heads, interim ones and trailers: rows C4 to C12, C14, C17 to C21 and C28.

use http::HeaderMap;
use sockeye::{ErrorKind, Phase};

use super::{Case, case, check, session_error, stream_error};
use crate::support::http2::Frames;
use crate::support::http2::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS};
use crate::support::http2::hpack;

pub(super) fn cases() -> Vec<Case> {
    [
        statuses(),
        names(),
        values(),
        lengths(),
        interims(),
        sizes(),
        trailers(),
    ]
    .concat()
}

#[test]
fn statuses_and_pseudo_fields() {
    check(statuses());
}

#[test]
fn names_of_fields() {
    check(names());
}

#[test]
fn values_of_fields() {
    check(values());
}

#[test]
fn content_length() {
    check(lengths());
}

#[test]
fn interim_responses() {
    check(interims());
}

#[test]
fn heads_that_are_too_large() {
    check(sizes());
}

#[test]
fn fields_behind_a_body() {
    check(trailers());
}

/// A response whose head is these fields, and whose end is still to come.
fn head(fields: &[(&str, &str)]) -> Frames {
    Frames::new().head(1, 0, fields)
}

/// As [`head`], with status 200 before them.
fn with(name: &str, value: &str) -> Frames {
    head(&[(":status", "200"), (name, value)])
}

/// As [`with`], of any bytes.
fn with_bytes(name: &[u8], value: &[u8]) -> Frames {
    let mut block = hpack::block(&[(":status", "200")]);
    hpack::literal(&mut block, name, value);
    Frames::new().frame(HEADERS, END_HEADERS | END_STREAM, 1, block)
}

/// A response that cannot be parsed, for which h2 ends the session.
fn unparsed(name: &'static str, reply: Frames) -> Case {
    session_error(name, reply)
}

fn statuses() -> Vec<Case> {
    let of = |status: &str| head(&[(":status", status)]);
    vec![
        stream_error("C4 no :status", head(&[("x", "y")])),
        stream_error("C4 no field at all", head(&[])),
        stream_error(
            "C4 two :status",
            head(&[(":status", "200"), (":status", "200")]),
        ),
        stream_error(
            "C4 two :status that differ",
            head(&[(":status", "200"), (":status", "404")]),
        ),
        stream_error(
            "C4 :status behind a field",
            head(&[("x", "y"), (":status", "200")]),
        ),
        unparsed("C5 :status of letters", of("abc")),
        unparsed("C5 :status of two digits", of("99")),
        unparsed("C5 :status of four digits", of("1000")),
        unparsed("C5 :status with a sign", of("+20")),
        unparsed("C5 :status with a reason", of("200 OK")),
        unparsed("C5 an empty :status", of("")),
        case("C5 :status 999", of("999").end(1, "")).answers(999, b""),
        unparsed(
            "C6 an unknown pseudo field",
            head(&[(":status", "200"), (":x", "y")]),
        ),
        case(
            "C7 :path in a response",
            head(&[(":status", "200"), (":path", "/")]).end(1, ""),
        )
        .fields(|fields| assert!(fields.is_empty(), "{fields:?}")),
    ]
}

fn names() -> Vec<Case> {
    vec![
        unparsed("C8 a name in upper case", with("X-Upper", "y")),
        unparsed("C8 a name with a space", with("x y", "z")),
        unparsed("C8 a name with a colon", with("x:y", "z")),
        unparsed("C8 an empty name", with("", "z")),
        unparsed("C8 a name that is not ASCII", with("x\u{e9}", "z")),
        unparsed("C8 a name with NUL", with("x\0", "z")),
        stream_error("C11 connection", with("connection", "close")),
        stream_error("C11 keep-alive", with("keep-alive", "timeout=5")),
        stream_error(
            "C11 proxy-connection",
            with("proxy-connection", "keep-alive"),
        ),
        stream_error(
            "C11 transfer-encoding",
            with("transfer-encoding", "chunked"),
        ),
        stream_error("C11 upgrade", with("upgrade", "websocket")),
        stream_error("C12 te", with("te", "trailers")),
        stream_error("C12 te: gzip", with("te", "gzip")),
    ]
}

fn values() -> Vec<Case> {
    vec![
        unparsed("C9 a value with CR", with("x", "a\rb")),
        unparsed("C9 a value with LF", with("x", "a\nb: c")),
        unparsed("C9 a value with NUL", with("x", "a\0b")),
        stream_error("C10 a value with a space before", with("x", " y")),
        stream_error("C10 a value with a space behind", with("x", "y ")),
        stream_error("C10 a value with a tab before", with("x", "\ty")),
        stream_error("C10 a value with a tab behind", with("x", "y\t")),
        stream_error("C10 a value of a space", with("x", " ")),
        case("C10 an empty value", with("x", "").end(1, ""))
            .fields(|fields| assert_eq!(fields["x"], "")),
        case(
            "C10 a value with blanks inside",
            with("x", "a \t b").end(1, ""),
        )
        .fields(|fields| assert_eq!(fields["x"], "a \t b")),
        case("C9 a value of obs-text", with_bytes(b"x", b"caf\xe9"))
            .fields(|fields| assert_eq!(fields["x"].as_bytes(), b"caf\xe9")),
    ]
}

fn lengths() -> Vec<Case> {
    let lengths = |values: &[&str]| {
        let mut fields = vec![(":status", "200")];
        fields.extend(values.iter().map(|value| ("content-length", *value)));
        Frames::new().head(1, 0, &fields).end(1, "12345")
    };
    let once = |fields: &HeaderMap| assert_eq!(fields.get_all("content-length").iter().count(), 1);
    vec![
        stream_error("C11 two lengths that differ", lengths(&["5", "6"])),
        stream_error("C11 a list of lengths", lengths(&["5, 5"])),
        stream_error("C11 a length with a sign", lengths(&["+5"])),
        stream_error("C11 a negative length", lengths(&["-5"])),
        stream_error("C11 an empty length", lengths(&[""])),
        stream_error(
            "C11 an empty length and no body",
            with_bytes(b"content-length", b""),
        )
        .says(&[]),
        stream_error("C11 a length of letters", lengths(&["five"])),
        stream_error("C11 a length in hex", lengths(&["0x5"])),
        stream_error(
            "C11 a length beyond 64 bits",
            lengths(&["18446744073709551621"]),
        ),
        case("C14 the same length twice", lengths(&["5", "5"]))
            .answers(200, b"12345")
            .fields(once),
        case("C14 one length", lengths(&["5"]))
            .answers(200, b"12345")
            .fields(once),
    ]
}

fn interims() -> Vec<Case> {
    let interim = |status: &str| Frames::new().head(1, 0, &[(":status", status)]);
    let so_many = |count| {
        let hints = [(":status", "103"), ("link", "</style.css>")];
        Frames::new().times(count, |frames, _| frames.head(1, 0, &hints))
    };
    let end = |frames: Frames| frames.ok(1).end(1, "done");
    let too_many = |name, count| {
        case(name, so_many(count))
            .fails(ErrorKind::TooLarge, Phase::Head)
            .telling("32")
    };
    // Ruling 2: so many count as a flood of the session, whoever reads them.
    let flood = |name, count| {
        case(name, so_many(count))
            .fails(ErrorKind::TooLarge, Phase::Head)
            .telling("1000 control frames")
            .whole()
            .says_anything()
            .ends_session()
    };
    vec![
        case("C17 103 and the response", end(so_many(1))).answers(200, b"done"),
        case("C17 103 32 times", end(so_many(32))).answers(200, b"done"),
        too_many("C17 103 33 times", 33).says(&["RST_STREAM 1 ENHANCE_YOUR_CALM"]),
        too_many("C17 103 900 times", 900)
            .says_anything()
            .may_end_session(),
        flood("C17 103 2,000 times", 2000),
        flood("C17 103 50,000 times", 50_000),
        case("C17 100 and 102", end(interim("100").raw(interim("102").0))).answers(200, b"done"),
        stream_error(
            "C18 103 with END_STREAM",
            Frames::new().head(1, END_STREAM, &[(":status", "103")]),
        )
        // Both directions have ended, so there is nothing to reset.
        .says(&[]),
        stream_error("C19 101", interim("101")).telling("101"),
        stream_error("C19 101 behind 103", interim("103").raw(interim("101").0)).telling("101"),
        case(
            "C20 103 with another length",
            end(Frames::new().head(1, 0, &[(":status", "103"), ("content-length", "100")])),
        )
        .fails_as(&[ErrorKind::Protocol], &[Phase::Head, Phase::Read])
        .says_anything(),
        stream_error(
            "C17 103 with a field that must not be",
            end(Frames::new().head(1, 0, &[(":status", "103"), ("connection", "close")])),
        ),
    ]
}

/// A head of these fields and the end of the stream, over as many frames as it needs.
fn long_head(fields: &[(&str, &str)]) -> Frames {
    in_frames(Frames::new(), hpack::block(fields))
}

fn in_frames(mut frames: Frames, block: Vec<u8>) -> Frames {
    let mut parts = block.chunks(16_384).peekable();
    let (mut kind, mut flags) = (HEADERS, END_STREAM);
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            flags |= END_HEADERS;
        }
        frames = frames.frame(kind, flags, 1, part);
        (kind, flags) = (CONTINUATION, 0);
    }
    frames
}

fn sizes() -> Vec<Case> {
    let kib = "v".repeat(1024);
    let of_kib = |count| {
        let mut fields = vec![(":status", "200")];
        fields.extend(std::iter::repeat_n(("x", kib.as_str()), count));
        fields
    };
    let of_fields = |count| {
        let mut fields = vec![(":status", "200")];
        fields.extend(std::iter::repeat_n(("x", "y"), count));
        fields
    };
    // An entry of the dynamic table that is asked for again and again.
    let mut bomb = hpack::block(&[(":status", "200")]);
    hpack::indexed_literal(&mut bomb, b"x", "b".repeat(4000).as_bytes());
    bomb.extend([0xbe; 12_000]);
    vec![
        case("C28 a head of 100 KiB", long_head(&of_kib(100)))
            .fields(|fields| assert_eq!(fields.get_all("x").iter().count(), 100)),
        case("C28 a head of 140 KiB", long_head(&of_kib(140)))
            // Here h2 knows no more than that something is wrong.
            .fails_as(&[ErrorKind::Protocol, ErrorKind::TooLarge], &[Phase::Head])
            .telling("limit")
            .says_anything(),
        case("C28 a head of 600 KiB", long_head(&of_kib(600)))
            .fails(ErrorKind::TooLarge, Phase::Head)
            .goes_away(&["ENHANCE_YOUR_CALM"]),
        case("C28 a bomb of 48 MB", in_frames(Frames::new(), bomb))
            .fails(ErrorKind::TooLarge, Phase::Head)
            .goes_away(&["ENHANCE_YOUR_CALM"]),
        case("C28 250 fields", long_head(&of_fields(250)))
            .fields(|fields| assert_eq!(fields.len(), 250)),
        case("C28 300 fields", long_head(&of_fields(300)))
            .fails(ErrorKind::TooLarge, Phase::Head)
            .telling("256")
            .says_anything(),
        // The limit on a head counts interim ones, too.
        case(
            "C28 interim heads of 150 KiB",
            Frames::new().times(10, |frames, _| {
                let kib = "v".repeat(15 * 1024);
                frames.head(1, 0, &[(":status", "103"), ("x", &kib)])
            }),
        )
        .fails(ErrorKind::TooLarge, Phase::Head)
        .telling("131072")
        .says_anything(),
    ]
}

fn trailers() -> Vec<Case> {
    let behind = |fields: &[(&str, &str)]| {
        Frames::new()
            .ok(1)
            .data(1, "body")
            .head(1, END_STREAM, fields)
    };
    let many: Vec<_> = std::iter::repeat_n(("x", "y"), 101).collect();
    let kib = "v".repeat(1024);
    let large: Vec<_> = std::iter::repeat_n(("x", kib.as_str()), 20).collect();
    vec![
        case("C21 trailers", behind(&[("x", "y")])).answers(200, b"body"),
        case(
            "C21 trailers with :status",
            behind(&[(":status", "500"), ("x", "y")]),
        )
        .answers(200, b"body"),
        case(
            "C21 trailers with a length",
            behind(&[("content-length", "100")]),
        )
        .answers(200, b"body"),
        case("C28 101 trailers", behind(&many))
            .fails(ErrorKind::TooLarge, Phase::Read)
            .telling("100")
            .says_anything(),
        case(
            "C28 trailers of 20 KiB",
            in_frames(Frames::new().ok(1).data(1, "body"), hpack::block(&large)),
        )
        .fails(ErrorKind::TooLarge, Phase::Read)
        .telling("16384")
        .says_anything(),
        stream_error(
            "C11 trailers with connection",
            behind(&[("connection", "close")]),
        )
        .fails(ErrorKind::Protocol, Phase::Read),
        unparsed(
            "C8 trailers with an upper case name",
            behind(&[("X-Upper", "y")]),
        )
        .fails_as(&[ErrorKind::Protocol], &[Phase::Head, Phase::Read]),
        stream_error(
            "C18 HEADERS behind a body without END_STREAM",
            Frames::new()
                .ok(1)
                .data(1, "body")
                .head(1, 0, &[("x", "y")])
                .end(1, ""),
        )
        .fails(ErrorKind::Protocol, Phase::Read),
        stream_error(
            "C18 a second response",
            Frames::new().ok(1).ok(1).end(1, "body"),
        )
        .fails_as(&[ErrorKind::Protocol], &[Phase::Head, Phase::Read]),
    ]
}
