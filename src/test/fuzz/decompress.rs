//! Any bytes as coded content.

use super::{cuts, split};
use crate::body::{Accepted, Applied, Decoder, DecompressError};

/// Decodes in several pieces and with several rooms; the first byte chooses the coding, and whether there is a second.
pub fn decompress(data: &[u8]) {
    let (choice, input) = split(data);
    let name = |at: u8| NAMES.get(usize::from(at % 4)).copied().unwrap_or_default();
    let is_chain = choice & 4 != 0;
    let codings = match is_chain {
        false => name(choice).to_owned(),
        true => format!("{}, {}", name(choice >> 3), name(choice)),
    };
    let values = [codings.as_bytes()].into_iter();
    // Not every build knows every coding.
    let Some(applied) = Applied::of(values, Accepted::ALL) else {
        return;
    };
    let whole = read(input, &[], ROOM, applied);
    let pieces = cuts(input).into_iter().map(|cuts| (cuts, 1000));
    for (cuts, room) in pieces.chain([(Vec::new(), 1), (Vec::new(), 257)]) {
        let read = read(input, &cuts, room, applied);
        let shown = input.escape_ascii();
        // At its limit one reading does not come as far as the other, which may fail further on.
        let full = |read: &Result<Vec<u8>, _>| read.as_ref().is_ok_and(|read| read.len() == MOST);
        match (&whole, &read) {
            (Ok(_), Err(_)) if full(&whole) => {}
            (Err(_), Ok(_)) if full(&read) => {}
            // Of two codings either may be found at fault first, as the pieces have it.
            (Err(_), Err(_)) if is_chain => {}
            // How much lies between two codings at a time is the pieces' doing, too.
            (Err(DecompressError::Barren { .. }), _) | (_, Err(DecompressError::Barren { .. }))
                if is_chain => {}
            // What the library of zstd says of the same fault depends on how much of it lies before its eyes.
            (
                Err(DecompressError::Corrupt { coding: one, .. }),
                Err(DecompressError::Corrupt { coding: other, .. }),
            ) => assert_eq!(one, other),
            (Ok(one), Ok(other)) => {
                assert!(
                    one == other,
                    "{codings}, cut at {cuts:?}, room for {room}: {shown}"
                );
            }
            (one, other) => {
                let (one, other) = (one.as_ref().map(Vec::len), other.as_ref().map(Vec::len));
                assert!(
                    one == other,
                    "{one:?}, {other:?}, {codings}, cut at {cuts:?}, room for {room}: {shown}"
                );
            }
        }
    }
    if let Err(error) = whole {
        let shown = error.to_string();
        assert!(shown.is_ascii() && shown.len() < 200, "{shown}");
    }
}

/// The content; at its limit the rest is not asked for.
fn read(
    input: &[u8],
    cuts: &[usize],
    room: usize,
    applied: Applied,
) -> Result<Vec<u8>, DecompressError> {
    let mut decoder = Decoder::new(applied)?;
    let mut content = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([input.len()]) {
        let mut piece = input.get(at..end).unwrap_or_default();
        let (mut more, mut idle) = (false, 0);
        while more || !piece.is_empty() {
            let mut output = Vec::with_capacity(room);
            let progress = decoder.step(piece, &mut output)?;
            assert_eq!(output.capacity(), room, "the output never grows");
            assert!(
                progress.used <= piece.len(),
                "no more is used than there is"
            );
            let all = progress.used == piece.len();
            assert!(
                progress.more || all,
                "all is used, or there is more to come"
            );
            idle = match output.is_empty() && progress.used == 0 {
                true => idle + 1,
                false => 0,
            };
            assert!(idle < 100, "it goes on");
            content.extend_from_slice(&output);
            if content.len() >= MOST {
                content.truncate(MOST);
                return Ok(content);
            }
            piece = piece.get(progress.used..).unwrap_or_default();
            more = progress.more;
        }
        at = end;
    }
    decoder.finish().map(|()| content)
}

/// In the order of the seeds.
const NAMES: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

/// Room for one step.
const ROOM: usize = 64 * 1024;

/// Bytes of content that are looked at.
const MOST: usize = 64 * 1024;
