//! The bodies of the fuzz targets in `fuzz/`: each takes any bytes and panics if something that must hold does not.
//!
//! Ordinary functions, so that `cargo test` runs them over the saved seeds and mutations of those (`tests/suite/seeds.rs`).
//! What must hold is listed in spec http1 d: the same verdict however the bytes arrive, no byte used that is not the
//! message's, limits that are exact, agreement with a slow second implementation. No part of the public surface.

mod chunked;
mod decompress;
mod exchange;
mod framing;
mod http2_exchange;
mod lines;
mod location;
#[cfg(feature = "multipart")]
mod multipart;
#[cfg(not(feature = "sse"))]
mod no_sse;
mod proxy_handshake;
mod request_head;
mod response_head;
#[cfg(feature = "sse")]
mod sse;
mod url;

pub use chunked::chunked;
pub use decompress::decompress;
pub use exchange::exchange;
pub use framing::framing;
pub use http2_exchange::http2_exchange;
pub use lines::lines;
pub use location::location;
#[cfg(feature = "multipart")]
pub use multipart::multipart;
#[cfg(not(feature = "sse"))]
pub use no_sse::sse;
pub use proxy_handshake::proxy_handshake;
pub use request_head::request_head;
pub use response_head::response_head;
#[cfg(feature = "sse")]
pub use sse::sse;
pub use url::url;

/// What a target is: it takes any bytes, and panics.
pub type Target = fn(&[u8]);

/// Every target of this build by the name of its folder of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("response_head", response_head),
    ("framing", framing),
    ("chunked", chunked),
    ("decompress", decompress),
    ("lines", lines),
    ("location", location),
    ("sse", sse),
    ("exchange", exchange),
    ("http2_exchange", http2_exchange),
    ("proxy_handshake", proxy_handshake),
    ("request_head", request_head),
    ("url", url),
    #[cfg(feature = "multipart")]
    ("multipart", multipart),
    ("pool_model", super::pool_model::run),
];

/// Random numbers that are the same in every run.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (limit.max(1) as u64)).unwrap_or_default()
    }

    /// Changes one to four bytes of `input`: replaced, inserted, removed, repeated, or all behind one cut off.
    #[must_use]
    pub fn mutate(&mut self, input: &[u8]) -> Vec<u8> {
        const TELLING: &[u8] = b"\r\n\t :;,=0159afFxgHT/.+-_\"\0\x0b\x7f\x80\xff";
        let mut mutated = input.to_vec();
        for _ in 0..=self.below(4) {
            if mutated.is_empty() {
                break;
            }
            let at = self.below(mutated.len());
            let byte = TELLING
                .get(self.below(TELLING.len()))
                .copied()
                .unwrap_or_default();
            match self.below(8) {
                0..=2 => mutated.splice(at..=at, [byte]).for_each(drop),
                3 | 4 => mutated.insert(at, byte),
                5 => drop(mutated.remove(at)),
                6 => {
                    let end = (at + 1 + self.below(16)).min(mutated.len());
                    let again = mutated.get(at..end).unwrap_or_default().to_vec();
                    mutated.splice(at..at, again).for_each(drop);
                }
                _ => mutated.truncate(at + 1),
            }
        }
        mutated
    }
}

/// Splits what the target is told from the bytes that it reads.
fn split(data: &[u8]) -> (u8, &[u8]) {
    data.split_first()
        .map_or((0, data), |(first, rest)| (*first, rest))
}

/// The ways in which `len` bytes are handed over: whole, byte by byte, and with two cuts that the bytes themselves choose.
fn cuts(input: &[u8]) -> Vec<Vec<usize>> {
    let sum: usize = input.iter().map(|byte| usize::from(*byte)).sum();
    let len = input.len();
    let mut two = [sum % (len + 1), (sum / 7 + len / 2) % (len + 1)];
    two.sort_unstable();
    vec![Vec::new(), (0..len).collect(), two.to_vec()]
}
