//! The coding gzip (RFC 1952) of request bodies, by flate2 on zlib-rs.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::compress::Encoder;

pub(super) const BUILT_IN: bool = true;

pub(super) fn encoder() -> io::Result<Box<dyn Encoder>> {
    let level = Compression::default();
    Ok(Box::new(GzEncoder::new(Vec::new(), level)))
}

impl Encoder for GzEncoder<Vec<u8>> {
    fn encode(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.write_all(data)?;
        out.append(self.get_mut());
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.try_finish()?;
        out.append(self.get_mut());
        Ok(())
    }
}
