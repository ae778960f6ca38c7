//! The codings of this build, and what puts them on.

#[cfg(any(feature = "gzip", feature = "brotli"))]
use std::io::Write;

/// A coding and what puts it on.
pub(crate) type Coding = (&'static str, fn(&[u8]) -> Vec<u8>);

/// The codings of this build.
pub(crate) const CODINGS: &[Coding] = &[
    #[cfg(feature = "gzip")]
    ("gzip", gzip),
    #[cfg(feature = "gzip")]
    ("deflate", deflate),
    #[cfg(feature = "brotli")]
    ("br", brotli),
    #[cfg(feature = "zstd")]
    ("zstd", zstd),
];

#[cfg(feature = "gzip")]
pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[cfg(feature = "gzip")]
pub(crate) fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[cfg(feature = "brotli")]
pub(crate) fn brotli(content: &[u8]) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 1, 22);
    encoder.write_all(content).unwrap();
    encoder.into_inner()
}

#[cfg(feature = "zstd")]
pub(crate) fn zstd(content: &[u8]) -> Vec<u8> {
    let mut coded = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
    zstd_safe::compress(&mut coded, content, 3).unwrap();
    coded
}
