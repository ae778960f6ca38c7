//! The coding zstd (RFC 8878) of request bodies, by the C library.

use std::io;

use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, get_error_name};

use super::compress::Encoder;

pub(super) const BUILT_IN: bool = true;

pub(super) fn encoder() -> io::Result<Box<dyn Encoder>> {
    let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    for parameter in [
        CParameter::CompressionLevel(zstd_safe::CLEVEL_DEFAULT),
        CParameter::ChecksumFlag(true),
    ] {
        context.set_parameter(parameter).map_err(failed)?;
    }
    Ok(Box::new(Zstd(context)))
}

struct Zstd(CCtx<'static>);

impl Encoder for Zstd {
    fn encode(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut input = InBuffer::around(data);
        while input.pos() < data.len() {
            let mut room = room(out);
            self.0
                .compress_stream(&mut room, &mut input)
                .map_err(failed)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        // It says how much it still holds back.
        while self.0.end_stream(&mut room(out)).map_err(failed)? > 0 {}
        Ok(())
    }
}

/// Room behind what is in `out`.
fn room(out: &mut Vec<u8>) -> OutBuffer<'_, Vec<u8>> {
    out.reserve(ROOM);
    let written = out.len();
    OutBuffer::around_pos(out, written)
}

fn failed(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

/// Bytes of room for each call.
const ROOM: usize = 16 * 1024;
