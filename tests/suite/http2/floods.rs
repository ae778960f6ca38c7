//! More of something than anybody needs: rows C17, C27, C31, C39 to C42.

use sockeye::{ErrorKind, Phase};

use super::{Case, case, check};
use crate::support::http2::Frames;
use crate::support::http2::frames::{
    CONTINUATION, DATA, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PADDED, PRIORITY, RST_STREAM,
};

pub(super) fn cases() -> Vec<Case> {
    [control(), data()].concat()
}

#[test]
fn frames_that_bring_nothing() {
    check(control());
}

#[test]
fn data_in_crumbs() {
    check(data());
}

fn new() -> Frames {
    Frames::new()
}

fn done(frames: Frames) -> Frames {
    frames.ok(1).end(1, "done")
}

fn control() -> Vec<Case> {
    let flood = |name, frames: Frames| {
        case(name, done(frames))
            .fails_as(&[ErrorKind::TooLarge], &[Phase::Head])
            .goes_away(&["ENHANCE_YOUR_CALM"])
    };
    let fine = |name, frames| case(name, done(frames)).answers(200, b"done");
    let settings = [(INITIAL_WINDOW_SIZE, 65_535)];
    vec![
        flood(
            "C31 PING 20,000 times",
            new().times(20_000, |frames, _| frames.ping()),
        ),
        flood(
            "C31 SETTINGS 20,000 times",
            new().times(20_000, |frames, _| frames.settings(&settings)),
        ),
        flood(
            "C31 PRIORITY 20,000 times",
            new().times(20_000, |frames, _| {
                frames.frame(PRIORITY, 0, 1, [0, 0, 0, 0, 15])
            }),
        ),
        flood(
            "C31 unknown frames 20,000 times",
            new().times(20_000, |frames, _| frames.frame(66, 0, 0, [])),
        ),
        case(
            "C31 RST_STREAM 500 times",
            new().times(500, |frames, _| frames.frame(RST_STREAM, 0, 1, [0; 4])),
        )
        .fails(ErrorKind::Io, Phase::Head),
        flood(
            "C31 WINDOW_UPDATE 20,000 times",
            new().times(20_000, |frames, _| frames.window(0, 1)),
        ),
        fine(
            "C31 PING 900 times",
            new().times(900, |frames, _| frames.ping()),
        ),
        fine(
            "C31 SETTINGS 900 times",
            new().times(900, |frames, _| frames.settings(&settings)),
        ),
        case(
            "C27 CONTINUATION 1,000 times",
            new()
                .frame(HEADERS, END_STREAM, 1, [0x88])
                .times(1000, |frames, _| frames.frame(CONTINUATION, 0, 1, [])),
        )
        .fails_as(&[ErrorKind::TooLarge], &[Phase::Head])
        .goes_away(&["ENHANCE_YOUR_CALM"]),
    ]
}

fn data() -> Vec<Case> {
    let empty = |count| {
        let begun = new().ok(1).times(count, |frames, _| frames.data(1, ""));
        begun.end(1, "done")
    };
    let crumbs = |count, crumb: &'static [u8], flags| {
        let begun = new().ok(1);
        let all = begun.times(count, |frames, _| frames.frame(DATA, flags, 1, crumb));
        all.end(1, "")
    };
    static ONES: [u8; 5000] = [b'1'; 5000];
    const PADDED_ONE: [u8; 257] = {
        let mut frame = [0; 257];
        frame[0] = 255;
        frame[1] = b'1';
        frame
    };
    vec![
        case("C40 empty DATA 79 times", empty(79)).answers(200, b"done"),
        // The session is given up before h2 ends it.
        case("C40 empty DATA 90 times", empty(90))
            .answers(200, b"done")
            .says_anything()
            .ends_session(),
        case("C40 empty DATA 200 times", empty(200))
            .fails_as(
                &[ErrorKind::TooLarge, ErrorKind::Protocol],
                &[Phase::Head, Phase::Read],
            )
            .goes_away(&["ENHANCE_YOUR_CALM"]),
        case("C40 DATA of one byte 5,000 times", crumbs(5000, b"1", 0)).answers(200, &ONES),
        case(
            "C39 DATA of one byte and 255 of padding 5,000 times",
            crumbs(5000, &PADDED_ONE, PADDED),
        )
        .answers(200, &ONES),
    ]
}
