//! The coding br (RFC 7932), by brotli-decompressor.
//!
//! Pure. Large windows are no part of RFC 7932 and are refused (security D2), so that a window is at most 16 MiB; that is why
//! the crate is used directly, for wrappers of it turn them on.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::decompress::{Fault, Stage};

pub(super) fn open() -> Result<Box<dyn Stage>, Fault> {
    Ok(Box::new(Brotli {
        state: None,
        done: false,
    }))
}

type State = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

struct Brotli {
    /// `None` before the first byte.
    state: Option<Box<State>>,
    done: bool,
}

impl Stage for Brotli {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Fault> {
        if self.done {
            return match input.is_empty() {
                true => Ok(0),
                false => Err(Fault::Trailing),
            };
        }
        if input.is_empty() && self.state.is_none() {
            return Ok(0);
        }
        let state = self.state.get_or_insert_with(|| {
            Box::new(State::new_strict(
                StandardAlloc::default(),
                StandardAlloc::default(),
                StandardAlloc::default(),
            ))
        });
        let (mut left, mut used) = (input.len(), 0);
        let (mut written, mut total) = (output.len(), 0);
        let mut room = output.capacity() - written;
        output.resize(output.capacity(), 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut used,
            input,
            &mut room,
            &mut written,
            output,
            &mut total,
            state,
        );
        output.truncate(written);
        match result {
            BrotliResult::ResultSuccess => {
                self.done = true;
                match left {
                    0 => Ok(used),
                    _ => Err(Fault::Trailing),
                }
            }
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => Ok(used),
            BrotliResult::ResultFailure => Err(Fault::Corrupt("")),
        }
    }

    fn may_end(&self) -> bool {
        self.done || self.state.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::coding_checks::{check, check_bomb, decode, every_split};

    const TEXT: &[u8] = b"the same again, the same again, and then something else";

    fn encode(content: &[u8], quality: u32) -> Vec<u8> {
        let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, quality, 22);
        encoder.write_all(content).unwrap();
        encoder.into_inner()
    }

    #[test]
    fn br_is_read_in_any_pieces_to_its_exact_end() {
        check("br", &encode(TEXT, 5), TEXT);
        check("br", &encode(b"", 5), b"");
    }

    #[test]
    fn a_bomb_grows_only_as_it_is_asked_to() {
        let size = 4 << 20;
        check_bomb("br", &encode(&vec![0; size], 1), size);
    }

    /// A stream that another decoder takes, because it has large windows turned on.
    #[test]
    fn a_large_window_is_refused() {
        let params = brotli::enc::BrotliEncoderParams {
            quality: 5,
            lgwin: 26,
            large_window: true,
            ..Default::default()
        };
        let mut encoder = brotli::CompressorWriter::with_params(Vec::new(), 4096, &params);
        encoder.write_all(TEXT).unwrap();
        let large = encoder.into_inner();
        let mut elsewhere = Vec::new();
        brotli::Decompressor::new(&large[..], 4096)
            .read_to_end(&mut elsewhere)
            .unwrap();
        assert_eq!(elsewhere, TEXT);
        let refused = every_split("br", &large).unwrap_err().to_string();
        assert_eq!(refused, "the br data is corrupt");
    }

    #[test]
    fn it_can_be_one_of_two() {
        let twice = encode(&encode(TEXT, 5), 5);
        assert_eq!(decode("br, br", &twice, &[], 10).unwrap(), TEXT);
    }
}
