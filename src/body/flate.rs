//! The codings gzip (RFC 1952) and deflate (RFC 1950), by flate2 on zlib-rs.
//!
//! Pure. Checksums and lengths are checked by the library. Its window is at most 32 KiB by the format itself.

use flate2::{Decompress, FlushDecompress, Status};

use super::decompress::{Fault, Stage};

/// Gzip; several members behind each other are one content (RFC 1952 section 2.2, ruling 22).
pub(super) fn gzip() -> Result<Box<dyn Stage>, Fault> {
    Ok(Box::new(Flate::new(Wrapper::Gzip)))
}

/// Deflate, which HTTP means to be in the zlib format. Some servers leave the wrapper out (RFC 9110 section 8.4.1.2, the
/// note); the first two bytes tell which it is, as in every browser.
pub(super) fn deflate() -> Result<Box<dyn Stage>, Fault> {
    Ok(Box::new(Flate::new(Wrapper::Zlib)))
}

struct Flate {
    wrapper: Wrapper,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrapper {
    Gzip,
    Zlib,
}

enum Place {
    /// Before the first byte.
    Start,
    /// Behind the first byte of something called deflate.
    First(u8),
    /// In a stream.
    Inside(Decompress),
    /// Behind a stream that is whole.
    End,
}

impl Flate {
    fn new(wrapper: Wrapper) -> Self {
        Self {
            wrapper,
            place: Place::Start,
        }
    }

    /// Begins a stream; answers how many bytes that took.
    fn begin(&mut self, next: u8) -> Result<usize, Fault> {
        let (place, used) = match (&self.place, self.wrapper) {
            (Place::End, Wrapper::Gzip) if next != GZIP_START => return Err(Fault::Trailing),
            (Place::End, Wrapper::Zlib) => return Err(Fault::Trailing),
            (_, Wrapper::Gzip) => (Place::Inside(Decompress::new_gzip(WINDOW_BITS)), 0),
            (Place::First(first), Wrapper::Zlib) => {
                let mut stream = Decompress::new(is_zlib(*first, next));
                // The byte that was held back gives nothing yet.
                let (taken, _) = decode(&mut stream, &[*first], &mut Vec::with_capacity(1))?;
                if taken == 0 {
                    return Err(Fault::Corrupt(""));
                }
                (Place::Inside(stream), 0)
            }
            (_, Wrapper::Zlib) => (Place::First(next), 1),
        };
        self.place = place;
        Ok(used)
    }
}

impl Stage for Flate {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let Place::Inside(stream) = &mut self.place else {
                match rest.first() {
                    Some(next) => used += self.begin(*next)?,
                    None => return Ok(used),
                }
                continue;
            };
            let before = output.len();
            let (taken, status) = decode(stream, rest, output)?;
            used += taken;
            if status == Status::StreamEnd {
                self.place = Place::End;
            } else if output.len() == output.capacity() || (taken == 0 && output.len() == before) {
                return Ok(used);
            }
        }
    }

    fn may_end(&self) -> bool {
        matches!(self.place, Place::Start | Place::End)
    }
}

fn decode(
    stream: &mut Decompress,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Result<(usize, Status), Fault> {
    let before = stream.total_in();
    let status = stream
        .decompress_vec(input, output, FlushDecompress::None)
        .map_err(|_| Fault::Corrupt(""))?;
    let taken = usize::try_from(stream.total_in() - before).unwrap_or_default();
    Ok((taken, status))
}

/// Whether two bytes are the header of RFC 1950: method 8, a window of at most 32 KiB, and a multiple of 31.
fn is_zlib(first: u8, second: u8) -> bool {
    let both = u16::from_be_bytes([first, second]);
    first & 0x0f == 8 && first >> 4 <= 7 && both % 31 == 0
}

/// The first byte of a gzip member.
const GZIP_START: u8 = 0x1f;

/// 32 KiB, the largest window of the format.
const WINDOW_BITS: u8 = 15;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::super::coding_checks::{check, check_bomb, decode, every_split};
    use super::super::decompress::DecompressError;

    const TEXT: &[u8] = b"the same again, the same again, and then something else";

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(content: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(content: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_read_in_any_pieces_to_its_exact_end() {
        check("gzip", &gzip(TEXT), TEXT);
        check("gzip", &gzip(b""), b"");
    }

    #[test]
    fn deflate_is_read_with_and_without_its_wrapper() {
        check("deflate", &zlib(TEXT), TEXT);
        check("deflate", &raw(TEXT), TEXT);
        check("deflate", &zlib(b""), b"");
    }

    #[test]
    fn members_behind_each_other_are_one_content() {
        let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(every_split("gzip", &members).unwrap(), b"one two");
        let coding = "gzip";
        let cut = every_split(coding, &members[..members.len() - 1]);
        assert_eq!(cut, Err(DecompressError::Truncated { coding }));
        let zeros = [&members[..], &[0; 8]].concat();
        assert_eq!(
            every_split(coding, &zeros),
            Err(DecompressError::Trailing { coding })
        );
    }

    #[test]
    fn a_wrong_checksum_or_length_is_noticed() {
        for (from_end, coded, coding) in [
            (8, gzip(TEXT), "gzip"),
            (4, gzip(TEXT), "gzip"),
            (1, zlib(TEXT), "deflate"),
        ] {
            let mut coded = coded;
            let at = coded.len() - from_end;
            coded[at] ^= 1;
            let corrupt = DecompressError::Corrupt { coding, detail: "" };
            assert_eq!(every_split(coding, &coded), Err(corrupt), "{from_end}");
        }
    }

    #[test]
    fn two_codings_come_off_in_the_order_in_which_they_were_put_on() {
        let both = gzip(&zlib(TEXT));
        assert_eq!(every_split("deflate, gzip", &both).unwrap(), TEXT);
        let coding = "deflate";
        let inner_cut = gzip(&zlib(TEXT)[..20]);
        assert_eq!(
            decode("deflate, gzip", &inner_cut, &[], 50),
            Err(DecompressError::Truncated { coding })
        );
        let large: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(
            decode("gzip, gzip", &gzip(&gzip(&large)), &[], 5000).unwrap(),
            large
        );
    }

    #[test]
    fn a_bomb_grows_only_as_it_is_asked_to() {
        let size = 16 << 20;
        let zeros = gzip(&vec![0; size]);
        check_bomb("gzip", &zeros, size);
        check_bomb("gzip, gzip", &gzip(&zeros), size);
        check_bomb("deflate", &zlib(&vec![0; size]), size);
    }

    /// Empty members for ever cost work and give nothing.
    #[test]
    fn data_without_content_ends_at_a_limit() {
        let member = gzip(b"");
        let count = 1024 * 1024 / member.len() + 1;
        let barren = member.repeat(count);
        let coding = "gzip";
        assert_eq!(
            decode(coding, &barren, &[], 100),
            Err(DecompressError::Barren { coding })
        );
        // Between two codings it is little that came in.
        assert_eq!(
            decode("gzip, gzip", &gzip(&barren), &[], 100),
            Err(DecompressError::Barren { coding })
        );
        let mut followed = member.repeat(count - 2);
        followed.extend(gzip(b"content"));
        followed.extend(member.repeat(count - 2));
        assert_eq!(decode(coding, &followed, &[], 100).unwrap(), b"content");
    }

    /// flate2's own reader of members, which reads their headers by itself: the same content of what is whole, and an error
    /// of what is not, over thousands of broken ones that are the same in every run.
    #[test]
    fn another_reader_of_gzip_agrees() {
        let whole = [gzip(b"one "), gzip(TEXT)].concat();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |limit: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % limit as u64).unwrap()
        };
        let mut good = 0;
        for _ in 0..10_000 {
            let mut coded = whole.clone();
            let at = below(coded.len());
            match below(4) {
                0 => coded.truncate(at + 1),
                1 => coded.extend_from_slice(&whole[..at]),
                2 => drop(coded.remove(at)),
                _ => coded[at] ^= 1 << below(8),
            }
            let mut theirs = Vec::new();
            let read = flate2::read::MultiGzDecoder::new(&coded[..]).read_to_end(&mut theirs);
            let ours = decode("gzip", &coded, &[at], 1000);
            assert_eq!(ours.is_ok(), read.is_ok(), "{}", coded.escape_ascii());
            if let Ok(ours) = ours {
                assert_eq!(ours, theirs);
                good += 1;
            }
        }
        assert!(good > 100, "{good} were good after all");
    }
}
