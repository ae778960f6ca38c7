//! Bodies, their lengths and their ends, and what becomes of a stream that is refused or cut: rows C11, C13, C15, C16, C22,
//! C33 to C35, C43.

use sockeye::{Body, ErrorKind, Phase, Sent};

use super::{Case, SECOND, URL, case, check, session_error, stream_error};
use crate::support::http2::Frames;
use crate::support::http2::frames::{
    CANCEL, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, HTTP_1_1_REQUIRED,
    INADEQUATE_SECURITY, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM,
};

pub(super) fn cases() -> Vec<Case> {
    [
        lengths(),
        bodiless(),
        behind_the_end(),
        goaways(),
        resets(),
        early(),
        cuts(),
    ]
    .concat()
}

#[test]
fn lengths_of_bodies() {
    check(lengths());
}

#[test]
fn responses_that_have_no_body() {
    check(bodiless());
}

#[test]
fn frames_behind_the_end() {
    check(behind_the_end());
}

#[test]
fn sessions_that_go_away() {
    check(goaways());
}

#[test]
fn streams_that_are_reset() {
    check(resets());
}

#[test]
fn responses_before_the_request_is_sent() {
    check(early());
}

#[test]
fn connections_that_end() {
    check(cuts());
}

fn new() -> Frames {
    Frames::new()
}

fn of_length(status: &str, length: &str, flags: u8) -> Frames {
    new().head(1, flags, &[(":status", status), ("content-length", length)])
}

fn done(frames: Frames) -> Frames {
    frames.ok(1).end(1, "done")
}

fn lengths() -> Vec<Case> {
    let wrong = |name, frames| stream_error(name, frames).fails(ErrorKind::Protocol, Phase::Read);
    vec![
        wrong(
            "C13 less than its length",
            of_length("200", "5", 0).end(1, "123"),
        ),
        wrong(
            "C13 less than its length, by an empty end",
            of_length("200", "5", 0).data(1, "123").end(1, ""),
        ),
        wrong(
            "C13 nothing of its length",
            of_length("200", "5", 0).end(1, ""),
        ),
        wrong(
            "C13 more than its length",
            of_length("200", "3", 0).end(1, "12345"),
        ),
        wrong(
            "C13 more than its length, in another frame",
            of_length("200", "3", 0).data(1, "123").end(1, "4"),
        ),
        wrong(
            "C13 less than its length, and trailers",
            of_length("200", "5", 0)
                .data(1, "123")
                .head(1, END_STREAM, &[("x", "y")]),
        )
        // Both directions have ended, so there is nothing to reset.
        .says(&[]),
        // It is known with the head that nothing will come.
        stream_error(
            "C13 a length, and the end with the head",
            of_length("200", "5", END_STREAM),
        )
        .fails_as(&[ErrorKind::Protocol], &[Phase::Head, Phase::Read])
        .says(&[]),
        case(
            "C13 its length",
            of_length("200", "5", 0).data(1, "123").end(1, "45"),
        )
        .answers(200, b"12345"),
        case(
            "C13 no length and no body",
            of_length("200", "0", END_STREAM),
        ),
    ]
}

fn bodiless() -> Vec<Case> {
    let head_request = |case: Case| case.request(|client| client.head(URL));
    // h2 takes this for a wrong length and resets the stream, by which time there is nothing to lose.
    let tolerated = |case: Case| case.says_anything();
    let refused = |name, frames| {
        stream_error(name, frames).fails_as(&[ErrorKind::Protocol], &[Phase::Head, Phase::Read])
    };
    vec![
        head_request(refused(
            "C11 a body for HEAD",
            of_length("200", "4", 0).end(1, "body"),
        )),
        head_request(refused(
            "C11 a body for HEAD without a length",
            new().ok(1).end(1, "body"),
        )),
        head_request(case(
            "C16 a length for HEAD",
            of_length("200", "4", END_STREAM),
        )),
        head_request(tolerated(case(
            "C16 a length for HEAD and an empty DATA",
            of_length("200", "4", 0).end(1, ""),
        ))),
        refused(
            "C15 a body with 204",
            new().head(1, 0, &[(":status", "204")]).data(1, "body"),
        )
        .telling("204"),
        case("C15 204", new().head(1, END_STREAM, &[(":status", "204")])).answers(204, b""),
        case(
            "C15 204 and an empty DATA",
            new().head(1, 0, &[(":status", "204")]).end(1, ""),
        )
        .answers(204, b""),
        tolerated(case(
            "C16 304 with a length and an empty DATA",
            of_length("304", "5", 0).end(1, ""),
        ))
        .answers(304, b""),
        case("C16 304 with a length", of_length("304", "5", END_STREAM)).answers(304, b""),
        refused(
            "C16 a body with 304",
            new().head(1, 0, &[(":status", "304")]).data(1, "body"),
        )
        .telling("304"),
        case("C16 205 without a body", of_length("205", "0", END_STREAM)).answers(205, b""),
    ]
}

fn behind_the_end() -> Vec<Case> {
    let closed = |name, frames: Frames| {
        case(name, frames)
            .answers(200, b"done")
            .says(&["RST_STREAM 1 STREAM_CLOSED"])
    };
    vec![
        closed("C22 DATA behind the end", done(new()).data(1, "more")),
        closed(
            "C22 HEADERS behind the end",
            done(new()).head(1, END_STREAM, &[("x", "y")]),
        ),
        case("C22 WINDOW_UPDATE behind the end", done(new()).window(1, 5)).answers(200, b"done"),
        case(
            "C22 RST_STREAM behind the end",
            done(new()).rst(1, NO_ERROR),
        )
        .answers(200, b"done"),
        case(
            "C22 RST_STREAM CANCEL behind the end",
            done(new()).rst(1, CANCEL),
        )
        .answers(200, b"done"),
    ]
}

fn goaways() -> Vec<Case> {
    let replayed = |name, code| {
        case(name, new().goaway(0, code))
            .answers(200, b"/")
            .ends_session()
    };
    vec![
        replayed("C33 GOAWAY below the stream", NO_ERROR),
        replayed(
            "C33 GOAWAY below the stream, INTERNAL_ERROR",
            INTERNAL_ERROR,
        ),
        replayed(
            "C33 GOAWAY below the stream, PROTOCOL_ERROR",
            PROTOCOL_ERROR,
        ),
        replayed(
            "C33 GOAWAY below the stream, ENHANCE_YOUR_CALM",
            ENHANCE_YOUR_CALM,
        ),
        replayed(
            "C33 GOAWAY below the stream, INADEQUATE_SECURITY",
            INADEQUATE_SECURITY,
        ),
        case(
            "C33 GOAWAY below the stream, with a body to send",
            new().goaway(0, NO_ERROR),
        )
        .request(|client| client.post(URL).body("posted"))
        .answers(200, b"posted")
        .ends_session(),
        case(
            "C33 GOAWAY below the stream and the end",
            new().goaway(0, NO_ERROR),
        )
        .answers(200, b"/")
        .closes(),
        case("C33 GOAWAY of the stream", done(new().goaway(1, NO_ERROR)))
            .answers(200, b"done")
            .ends_session(),
        case(
            "C33 GOAWAY of every stream",
            done(new().goaway(0x7fff_ffff, NO_ERROR)),
        )
        .answers(200, b"done")
        .ends_session(),
        case(
            "C33 GOAWAY of every stream, and then of this one",
            done(new().goaway(0x7fff_ffff, NO_ERROR).goaway(1, NO_ERROR)),
        )
        .answers(200, b"done")
        .ends_session(),
        case(
            "C33 GOAWAY inside a body",
            new().ok(1).data(1, "do").goaway(1, NO_ERROR).end(1, "ne"),
        )
        .answers(200, b"done")
        .ends_session(),
        case(
            "C33 GOAWAY behind the response",
            done(new()).goaway(1, NO_ERROR),
        )
        .answers(200, b"done")
        .ends_session(),
        case(
            "C33 GOAWAY of the stream and the end",
            new().goaway(1, NO_ERROR),
        )
        .fails(ErrorKind::Io, Phase::Head)
        .says_anything()
        .closes(),
        case(
            "C33 GOAWAY with a reason and the end",
            new().goaway_saying(1, INTERNAL_ERROR, "out of memory"),
        )
        .fails(ErrorKind::Io, Phase::Head)
        .says_anything()
        .closes(),
        // The stream was processed as far as the server says, so it is not sent again.
        case(
            "C33 GOAWAY inside a body and the end",
            new().ok(1).data(1, "do").goaway(1, NO_ERROR),
        )
        .fails_as(&[ErrorKind::Io, ErrorKind::Protocol], &[Phase::Read])
        .says_anything()
        .closes(),
        session_error(
            "C33 GOAWAY with a last stream that rises",
            new().goaway(1, NO_ERROR).goaway(3, NO_ERROR),
        ),
    ]
    .into_iter()
    .map(|case| match case.outcome {
        super::Outcome::Answer(..) => case.says_anything(),
        super::Outcome::Error { .. } => case,
    })
    .collect()
}

fn resets() -> Vec<Case> {
    let failed = |name, code| case(name, new().rst(1, code)).fails(ErrorKind::Io, Phase::Head);
    let post = |case: Case| case.request(|client| client.post(URL).body("posted"));
    vec![
        case("C34 REFUSED_STREAM", new().rst(1, REFUSED_STREAM)).answers(200, b"/"),
        post(case(
            "C34 REFUSED_STREAM of a POST",
            new().rst(1, REFUSED_STREAM),
        ))
        .answers(200, b"posted"),
        case(
            "C34 REFUSED_STREAM behind 103",
            new()
                .head(1, 0, &[(":status", "103")])
                .rst(1, REFUSED_STREAM),
        )
        .answers(200, b"/"),
        case(
            "C34 REFUSED_STREAM inside a body",
            new().ok(1).data(1, "do").rst(1, REFUSED_STREAM),
        )
        .fails(ErrorKind::Io, Phase::Read)
        .telling("REFUSED_STREAM"),
        failed("C34 CANCEL", CANCEL).telling("CANCEL"),
        failed("C34 INTERNAL_ERROR", INTERNAL_ERROR).telling("INTERNAL_ERROR"),
        failed("C34 PROTOCOL_ERROR of the server", PROTOCOL_ERROR).telling("PROTOCOL_ERROR"),
        failed("C34 NO_ERROR before a response", NO_ERROR).telling("NO_ERROR"),
        failed("C34 ENHANCE_YOUR_CALM", ENHANCE_YOUR_CALM).telling("ENHANCE_YOUR_CALM"),
        failed("C34 a code that nobody knows", 0xabcd),
        // The version is forced, so there is no other one to turn to.
        failed("C34 HTTP_1_1_REQUIRED", HTTP_1_1_REQUIRED).telling("HTTP_1_1_REQUIRED"),
        case(
            "C34 CANCEL inside a body",
            new().ok(1).data(1, "do").rst(1, CANCEL),
        )
        .fails(ErrorKind::Io, Phase::Read)
        .telling("CANCEL"),
        case(
            "C34 NO_ERROR inside a body",
            new().ok(1).data(1, "do").rst(1, NO_ERROR),
        )
        .fails(ErrorKind::Io, Phase::Read),
    ]
}

fn early() -> Vec<Case> {
    // A body of which nothing more comes for a long time.
    let endless = |case: Case| {
        case.request(|client| {
            let (feed, body) = crate::support::streams::fed();
            feed.give("begun");
            tokio::spawn(async move {
                tokio::time::sleep(100 * SECOND).await;
                drop(feed);
            });
            client.post(URL).body(Body::stream(body))
        })
    };
    let large = |case: Case| {
        let request = |client: &sockeye::Client| client.post(URL).body(vec![b'x'; 1024 * 1024]);
        case.request(request)
    };
    let refusal = || new().head(1, END_STREAM, &[(":status", "413")]);
    let said = || new().head(1, 0, &[(":status", "413")]).end(1, "too large");
    let stops = &["RST_STREAM 1 CANCEL"];
    vec![
        endless(case("C35 413 and the end", refusal()))
            .answers(413, b"")
            .says(stops),
        endless(case("C35 413 with a body", said()))
            .answers(413, b"too large")
            .says(stops),
        endless(case(
            "C35 413 and RST_STREAM NO_ERROR",
            refusal().rst(1, NO_ERROR),
        ))
        .answers(413, b""),
        endless(case(
            "C35 413 with a body and RST_STREAM NO_ERROR",
            said().rst(1, NO_ERROR),
        ))
        .answers(413, b"too large"),
        large(case("C36 413 and no window", refusal()))
            .answers(413, b"")
            .says(stops),
        large(case("C36 413 with a body and no window", said()))
            .answers(413, b"too large")
            .says(stops),
        large(case(
            "C36 413, no window and RST_STREAM NO_ERROR",
            refusal().rst(1, NO_ERROR),
        ))
        .answers(413, b""),
        large(case("C34 CANCEL during an upload", new().rst(1, CANCEL)))
            .fails_as(&[ErrorKind::Io], &[Phase::Write, Phase::Head])
            .having_sent(Sent::Part)
            .telling("CANCEL"),
    ]
}

fn cuts() -> Vec<Case> {
    let cut = |name, frames| case(name, frames).says_anything();
    let io = |case: Case, phase| case.fails(ErrorKind::Io, phase);
    let short = |case: Case, phase| case.fails(ErrorKind::Protocol, phase);
    let half_head = || new().lying(40, HEADERS, END_HEADERS, 1, [0, 7, b':']);
    let half_body = || new().ok(1).data(1, "do");
    let half_frame = || {
        new()
            .ok(1)
            .lying(4, crate::support::http2::frames::DATA, END_STREAM, 1, "do")
    };
    let behind_103 = || new().head(1, 0, &[(":status", "103")]);
    vec![
        io(
            cut("C43 the end before a head", new()).closes(),
            Phase::Head,
        ),
        io(
            cut("C43 a reset before a head", new()).resets(),
            Phase::Head,
        ),
        short(
            cut("C43 the end inside a head", half_head()).closes(),
            Phase::Head,
        ),
        io(
            cut("C43 a reset inside a head", half_head()).resets(),
            Phase::Head,
        ),
        short(
            cut("C43 the end inside a body", half_body()).closes(),
            Phase::Read,
        ),
        io(
            cut("C43 a reset inside a body", half_body()).resets(),
            Phase::Read,
        ),
        short(
            cut("C43 the end inside a frame of a body", half_frame()).closes(),
            Phase::Read,
        ),
        short(
            cut(
                "C43 the end inside a body of known length",
                of_length("200", "5", 0).data(1, "123"),
            )
            .closes(),
            Phase::Read,
        ),
        short(
            cut("C43 the end behind an interim response", behind_103()).closes(),
            Phase::Head,
        ),
        cut("C43 the end behind the response", done(new()))
            .answers(200, b"done")
            .closes(),
        cut("C43 a reset behind the response", done(new()))
            .answers(200, b"done")
            .resets(),
        // A request that the server may have acted on is not sent again on a session that never served one.
        io(
            cut("C43 the end before a head of a PUT", new())
                .request(|client| client.put(URL))
                .closes(),
            Phase::Head,
        ),
    ]
}
