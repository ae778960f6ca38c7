//! The coding zstd (RFC 8878), by the C library.
//!
//! Pure. A window is at most 8 MiB (RFC 9659). Several frames behind each other are one content (RFC 8878 section 3).

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::decompress::{Fault, Stage};

pub(super) fn open() -> Result<Box<dyn Stage>, Fault> {
    let mut context = DCtx::try_create().ok_or(Fault::Corrupt("no memory for it"))?;
    context
        .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
        .map_err(fault)?;
    Ok(Box::new(Zstd {
        context,
        inside: false,
        begun: false,
    }))
}

struct Zstd {
    context: DCtx<'static>,
    /// Whether a frame has begun and has not ended.
    inside: bool,
    begun: bool,
}

impl Stage for Zstd {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut source = InBuffer::around(input);
        loop {
            let (used, written) = (source.pos(), output.len());
            if !self.inside {
                match input.get(used) {
                    None => return Ok(used),
                    Some(next) if self.begun && !may_begin_frame(*next) => {
                        return Err(Fault::Trailing);
                    }
                    Some(_) => self.begun = true,
                }
            }
            let mut room = OutBuffer::around_pos(output, written);
            let left = self
                .context
                .decompress_stream(&mut room, &mut source)
                .map_err(fault)?;
            // Zero is said exactly when a frame is decoded and handed out to its last byte.
            self.inside = left != 0;
            let still = source.pos() == used && output.len() == written;
            if output.len() == output.capacity() || still {
                return Ok(source.pos());
            }
        }
    }

    fn may_end(&self) -> bool {
        !self.inside
    }
}

/// The first byte of a frame, or of one that is skipped (RFC 8878 sections 3.1.1 and 3.1.2).
fn may_begin_frame(byte: u8) -> bool {
    matches!(byte, 0x28 | 0x50..=0x5f)
}

fn fault(code: usize) -> Fault {
    Fault::Corrupt(get_error_name(code))
}

/// 8 MiB, as RFC 9659 has it for HTTP.
const WINDOW_LOG: u32 = 23;

#[cfg(test)]
mod tests {
    use super::super::coding_checks::{check, check_bomb, every_split};
    use super::super::decompress::DecompressError;

    const TEXT: &[u8] = b"the same again, the same again, and then something else";

    fn encode(content: &[u8]) -> Vec<u8> {
        let mut coded = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
        let mut context = zstd_safe::CCtx::create();
        context
            .set_parameter(zstd_safe::CParameter::ChecksumFlag(true))
            .unwrap();
        context.compress2(&mut coded, content).unwrap();
        coded
    }

    /// A frame that says its window and nothing else, then blocks of 128 KiB of zeros (RFC 8878 section 3.1.1).
    fn zeros(window: u8, blocks: usize) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, window];
        for block in 0..blocks {
            let last = u32::from(block + 1 == blocks);
            let header = (128 * 1024) << 3 | RLE << 1 | last;
            frame.extend_from_slice(&header.to_le_bytes()[..3]);
            frame.push(0);
        }
        frame
    }

    const RLE: u32 = 1;

    #[test]
    fn zstd_is_read_in_any_pieces_to_its_exact_end() {
        check("zstd", &encode(TEXT), TEXT);
        check("zstd", &encode(b""), b"");
    }

    #[test]
    fn frames_behind_each_other_are_one_content() {
        let skipped = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0], &b"xyz"[..]].concat();
        let frames = [encode(b"one "), skipped, encode(b"two")].concat();
        assert_eq!(every_split("zstd", &frames).unwrap(), b"one two");
        let cut = every_split("zstd", &frames[..frames.len() - 1]);
        assert_eq!(cut, Err(DecompressError::Truncated { coding: "zstd" }));
    }

    /// RFC 9659: 8 MiB, which is the exponent 13 above 1 KiB.
    #[test]
    fn a_window_over_the_limit_is_refused() {
        assert!(every_split("zstd", &zeros(13 << 3, 1)).is_ok());
        for window in [13 << 3 | 1, 14 << 3, 20 << 3] {
            let refused = every_split("zstd", &zeros(window, 1))
                .unwrap_err()
                .to_string();
            assert_eq!(
                refused,
                "the zstd data is corrupt (Frame requires too much memory for decoding)"
            );
        }
    }

    #[test]
    fn a_bomb_grows_only_as_it_is_asked_to() {
        check_bomb("zstd", &zeros(13 << 3, 8 * 64), 64 << 20);
    }
}
