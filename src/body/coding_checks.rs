//! For the tests of codings: the same coded bytes in all the pieces that matter, cut short, with more behind them, and broken.

use super::decompress::{Accepted, Applied, Decoder, DecompressError};

/// Decodes `input`, cut at `cuts`, with so much room for each step.
pub(super) fn decode(
    codings: &str,
    input: &[u8],
    cuts: &[usize],
    room: usize,
) -> Result<Vec<u8>, DecompressError> {
    let applied = Applied::of([codings.as_bytes()].into_iter(), Accepted::ALL);
    let mut decoder = Decoder::new(applied.expect("known codings"))?;
    let mut content = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([input.len()]) {
        let mut piece = &input[at..end];
        let mut more = false;
        while more || !piece.is_empty() {
            let mut output = Vec::with_capacity(room);
            let progress = decoder.step(piece, &mut output)?;
            assert_eq!(output.capacity(), room, "the output never grows");
            let gained = progress.used > 0 || !output.is_empty() || !progress.more;
            assert!(
                gained || codings.contains(','),
                "every step gains something"
            );
            assert!(progress.more || progress.used == piece.len(), "all is used");
            content.extend_from_slice(&output);
            piece = &piece[progress.used..];
            more = progress.more;
        }
        at = end;
    }
    decoder.finish().map(|()| content)
}

/// Decodes `input` whole, byte by byte, in every two parts and with little room; all must come to the same.
#[track_caller]
pub(super) fn every_split(codings: &str, input: &[u8]) -> Result<Vec<u8>, DecompressError> {
    let whole = decode(codings, input, &[], 64 * 1024);
    let single: Vec<_> = (0..input.len()).collect();
    assert_eq!(decode(codings, input, &single, 1024), whole, "byte by byte");
    for room in [1, 2, 7] {
        assert_eq!(decode(codings, input, &[], room), whole, "room for {room}");
    }
    for cut in 0..=input.len() {
        assert_eq!(decode(codings, input, &[cut], 100), whole, "cut at {cut}");
    }
    whole
}

/// What must hold of every coding, of one coded text.
#[track_caller]
pub(super) fn check(coding: &'static str, coded: &[u8], content: &[u8]) {
    assert_eq!(every_split(coding, coded).as_deref(), Ok(content));
    assert_eq!(decode(coding, b"", &[], 10), Ok(Vec::new()), "no body");
    for len in 1..coded.len() {
        let cut = every_split(coding, &coded[..len]);
        assert_eq!(
            cut,
            Err(DecompressError::Truncated { coding }),
            "{len} bytes"
        );
    }
    let longer = [coded, b"!"].concat();
    assert_eq!(
        every_split(coding, &longer),
        Err(DecompressError::Trailing { coding })
    );
    for at in 0..coded.len() {
        // Not every broken byte can be noticed without a checksum, but none may panic or loop.
        let mut broken = coded.to_vec();
        broken[at] ^= 0x55;
        let _ = decode(coding, &broken, &[at], 16);
    }
}

/// Coded data that goes on for ever is decoded as far as it is asked for, and no further.
#[track_caller]
pub(super) fn check_bomb(codings: &str, coded: &[u8], size: usize) {
    let applied =
        Applied::of([codings.as_bytes()].into_iter(), Accepted::ALL).expect("known codings");
    let mut decoder = Decoder::new(applied).expect("a decoder");
    let (mut input, mut content, mut more) = (coded, 0, false);
    while more || !input.is_empty() {
        let mut output = Vec::with_capacity(64 * 1024);
        let progress = decoder.step(input, &mut output).expect("good data");
        assert!(output.iter().all(|byte| *byte == 0));
        assert_eq!(output.capacity(), 64 * 1024);
        content += output.len();
        input = &input[progress.used..];
        more = progress.more;
    }
    assert_eq!(content, size);
}
