//! Takes a chunked body apart (RFC 9112 section 7.1, spec http1 a3). Our own: httparse's parser of chunk sizes reads an
//! empty line as the last chunk and takes a bare LF.
//!
//! ```text
//!            digits          CRLF            left = 0        CRLF
//!  Size ───────────▶ Extension ──▶ Data ─────────────▶ DataEnd ──▶ Size
//!                        │ size 0
//!                        ▼
//!                     Trailer ──(empty line)──▶ Done
//! ```
//! A failed decoder stays failed. Bytes behind the end are not touched. Called by `body`.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::decode_error::DecodeError;
use crate::config::Limits;

/// A chunked body being read.
#[derive(Debug)]
pub(crate) struct ChunkedDecoder {
    state: State,
    /// The size being read, then the bytes left of the chunk.
    left: u64,
    digits: u8,
    blanks: u8,
    /// Bytes of the size line being read.
    line: u64,
    extensions: usize,
    /// How far framing outweighs data.
    excess: u64,
    trailer: Vec<u8>,
    limits: ChunkedLimits,
}

/// The limits that matter here.
#[derive(Clone, Copy, Debug)]
struct ChunkedLimits {
    extensions: usize,
    trailer: usize,
    trailer_fields: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a size.
    Size,
    /// In the blanks behind the digits.
    Blank,
    /// In the extensions, which are skipped.
    Extension,
    /// After the CR of a size line.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At any byte of the trailer section.
    Trailer,
    Done,
    Failed(DecodeError),
}

/// What the front of the input is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChunkedStep {
    /// After `skip` bytes of framing, `len` bytes of data.
    Data { skip: usize, len: usize },
    /// `skip` bytes of framing, and then nothing yet.
    NeedMore { skip: usize },
    /// After `skip` bytes of framing, the end.
    End {
        skip: usize,
        trailers: Option<Box<HeaderMap>>,
    },
}

impl ChunkedDecoder {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            state: State::Size,
            left: 0,
            digits: 0,
            blanks: 0,
            line: 0,
            extensions: 0,
            excess: 0,
            trailer: Vec::new(),
            limits: ChunkedLimits {
                extensions: limits.max_chunk_extensions,
                trailer: limits.max_trailer,
                trailer_fields: limits.max_trailer_fields,
            },
        }
    }

    /// Reads on at the front of `input`.
    pub(crate) fn step(&mut self, input: &[u8]) -> Result<ChunkedStep, DecodeError> {
        let step = self.advance(input);
        if let Err(error) = step {
            self.state = State::Failed(error);
        }
        step
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn advance(&mut self, input: &[u8]) -> Result<ChunkedStep, DecodeError> {
        for (at, &byte) in input.iter().enumerate() {
            match self.state {
                State::Data => {
                    let there = input.len() - at;
                    let len = usize::try_from(self.left).map_or(there, |left| left.min(there));
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(ChunkedStep::Data { skip: at, len });
                }
                State::Trailer => return self.trailer(input, at),
                State::Done => {
                    return Ok(ChunkedStep::End {
                        skip: at,
                        trailers: None,
                    });
                }
                State::Failed(error) => return Err(error),
                _ => self.framing_byte(byte)?,
            }
        }
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        Ok(ChunkedStep::NeedMore { skip: input.len() })
    }

    /// One byte of a size line, or of the CRLF behind data.
    fn framing_byte(&mut self, byte: u8) -> Result<(), DecodeError> {
        self.line += 1;
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte)?,
            (State::Size, _) if self.digits == 0 => return Err(DecodeError::BadChunkSize),
            (State::Size | State::Blank, b' ' | b'\t') => {
                self.blanks += 1;
                if self.blanks > MAX_BLANKS {
                    return Err(DecodeError::BadChunkLine);
                }
                State::Blank
            }
            (State::Size | State::Blank, b';') => State::Extension,
            (State::Size | State::Blank | State::Extension, b'\r') => State::SizeLf,
            (State::Size, _) => return Err(DecodeError::BadChunkSize),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extensions += 1;
                if self.extensions > self.limits.extensions {
                    return Err(DecodeError::ChunkExtensionsTooLarge {
                        limit: self.limits.extensions,
                    });
                }
                State::Extension
            }
            (State::SizeLf, b'\n') => self.size_line_ended()?,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::DataCr | State::DataLf, _) => return Err(DecodeError::BadChunkEnd),
            _ => return Err(DecodeError::BadChunkLine),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, DecodeError> {
        if self.digits == 0 {
            self.left = 0;
            self.line = 1;
        }
        self.digits += 1;
        if self.digits > MAX_DIGITS {
            return Err(DecodeError::BadChunkSize);
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => byte - b'A' + 10,
        };
        // Sixteen digits fit; the check against i64::MAX follows at the end of the line.
        self.left = (self.left << 4) | u64::from(digit);
        Ok(State::Size)
    }

    /// A peer that sends a size line for every byte costs far more than it delivers: framing may run ahead of the data
    /// by 16 KiB in all, where a chunk of n bytes pays for 16 + 2n.
    fn size_line_ended(&mut self) -> Result<State, DecodeError> {
        if i64::try_from(self.left).is_err() {
            return Err(DecodeError::BadChunkSize);
        }
        self.excess = (self.excess + self.line + 2)
            .saturating_sub(self.left.saturating_mul(2).saturating_add(16));
        if self.excess > MAX_EXCESS {
            return Err(DecodeError::ChunkOverhead { limit: MAX_EXCESS });
        }
        self.digits = 0;
        self.blanks = 0;
        self.line = 0;
        Ok(if self.left == 0 {
            State::Trailer
        } else {
            State::Data
        })
    }

    /// Collects the trailer section up to its empty line.
    fn trailer(&mut self, input: &[u8], at: usize) -> Result<ChunkedStep, DecodeError> {
        for (offset, &byte) in input.get(at..).unwrap_or_default().iter().enumerate() {
            let ended = match self.trailer.as_slice() {
                [.., b'\r'] if byte != b'\n' => return Err(DecodeError::BadTrailer),
                [b'\r'] | [.., b'\r', b'\n', b'\r'] => true,
                [.., b'\r'] => false,
                _ if byte == b'\n' => return Err(DecodeError::BadTrailer),
                _ => false,
            };
            self.trailer.push(byte);
            if self.trailer.len() > self.limits.trailer.saturating_add(2) {
                return Err(DecodeError::TrailerTooLarge {
                    limit: self.limits.trailer,
                });
            }
            if ended {
                self.state = State::Done;
                let section = std::mem::take(&mut self.trailer);
                let trailers = parse_trailers(&section, self.limits.trailer_fields)?;
                return Ok(ChunkedStep::End {
                    skip: at + offset + 1,
                    trailers,
                });
            }
        }
        Ok(ChunkedStep::NeedMore { skip: input.len() })
    }
}

/// Reads a trailer section with the grammar of a head. Fields that only a head may carry are left out: nothing behind the
/// body may change framing, routing or credentials (RFC 9110 section 6.5.1, ruling 13).
fn parse_trailers(
    section: &[u8],
    max_fields: usize,
) -> Result<Option<Box<HeaderMap>>, DecodeError> {
    if section == b"\r\n" {
        return Ok(None);
    }
    let mut fields = vec![httparse::EMPTY_HEADER; max_fields.min(section.len() / 4 + 1)];
    let parsed = match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((len, parsed))) if len == section.len() => parsed,
        Err(httparse::Error::TooManyHeaders) => {
            return Err(DecodeError::TooManyTrailerFields { limit: max_fields });
        }
        _ => return Err(DecodeError::BadTrailer),
    };
    let mut trailers = HeaderMap::new();
    for field in parsed {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| DecodeError::BadTrailer)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| DecodeError::BadTrailer)?;
        if !FORBIDDEN_TRAILERS.contains(&name.as_str()) {
            trailers.append(name, value);
        }
    }
    Ok((!trailers.is_empty()).then(|| Box::new(trailers)))
}

const MAX_DIGITS: u8 = 16;
const MAX_BLANKS: u8 = 16;
const MAX_EXCESS: u64 = 16 * 1024;

const FORBIDDEN_TRAILERS: [&str; 15] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "host",
    "keep-alive",
    "proxy-authorization",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(Vec<u8>, Option<Box<HeaderMap>>, usize), DecodeError>;

    /// Feeds the pieces between the cuts. `None`: more is needed.
    fn feed(input: &[u8], cuts: &[usize], limits: &Limits) -> Option<Outcome> {
        let mut decoder = ChunkedDecoder::new(limits);
        let mut data = Vec::new();
        let mut at = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            while at < end {
                match decoder.step(&input[at..end]) {
                    Ok(ChunkedStep::Data { skip, len }) => {
                        data.extend_from_slice(&input[at + skip..at + skip + len]);
                        at += skip + len;
                    }
                    Ok(ChunkedStep::NeedMore { skip }) => at += skip,
                    Ok(ChunkedStep::End { skip, trailers }) => {
                        assert!(decoder.is_done());
                        return Some(Ok((data, trailers, input.len() - at - skip)));
                    }
                    Err(error) => {
                        assert_eq!(
                            decoder.step(&input[at..end]),
                            Err(error),
                            "a failed decoder stays failed"
                        );
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }

    fn every_split(input: &[u8], limits: &Limits) -> Option<Outcome> {
        let whole = feed(input, &[], limits);
        let single: Vec<_> = (0..input.len()).collect();
        assert_eq!(
            feed(input, &single, limits),
            whole,
            "byte by byte: {}",
            input.escape_ascii()
        );
        for cut in 0..input.len() {
            assert_eq!(
                feed(input, &[cut], limits),
                whole,
                "cut at {cut}: {}",
                input.escape_ascii()
            );
        }
        whole
    }

    fn check(input: &str, expected: Result<&str, DecodeError>) {
        let got = every_split(input.as_bytes(), &Limits::default()).expect("the body ends");
        let got = got.map(|(data, _, rest)| {
            assert_eq!(rest, 0, "{input:?}");
            String::from_utf8(data).unwrap()
        });
        assert_eq!(got, expected.map(str::to_owned), "{input:?}");
    }

    #[test]
    fn bodies_that_are_accepted() {
        check("0\r\n\r\n", Ok(""));
        check("5\r\nhello\r\n0\r\n\r\n", Ok("hello"));
        check("00000005\r\nhello\r\n000\r\n\r\n", Ok("hello"));
        check("5 \t \r\nhello\r\n0\r\n\r\n", Ok("hello"));
        check("5;a=b;c=\"d e\"\r\nhello\r\n0;x\r\n\r\n", Ok("hello"));
        check(
            "A\r\n0123456789\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n",
            Ok("0123456789x"),
        );
    }

    #[test]
    fn bodies_that_are_refused() {
        use DecodeError as E;
        for size in [
            "\r\n",
            ";x\r\n",
            " 5\r\n",
            "+5\r\n",
            "-5\r\n",
            "_5\r\n",
            "g\r\n",
            "5g\r\n",
            "0x5\r\n",
            "00000000000000005\r\n",
            "FFFFFFFFFFFFFFFF\r\n",
            "8000000000000000\r\n",
        ] {
            check(&format!("{size}hello"), Err(E::BadChunkSize));
        }
        for line in [
            "5\nhello",
            "5\r\rhello",
            "5;a\nhello",
            "5;a\0\r\nhello",
            "5 x\r\nhello",
            "5                 \r\n",
        ] {
            let got = every_split(line.as_bytes(), &Limits::default());
            assert!(
                matches!(got, Some(Err(E::BadChunkLine | E::BadChunkSize))),
                "{line:?} {got:?}"
            );
        }
        for end in ["5\r\nhelloXX", "5\r\nhello\n0", "5\r\nhello\r0"] {
            check(end, Err(E::BadChunkEnd));
        }
        for trailer in [
            "0\r\n\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA: b\0\r\n\r\n",
            "0\r\nA: b\rc\r\n\r\n",
            "0\r\nA: b\r\n c\r\n\r\n",
        ] {
            check(trailer, Err(E::BadTrailer));
        }
    }

    #[test]
    fn what_is_not_over_needs_more() {
        for part in [
            "",
            "5",
            "5\r\nhel",
            "5\r\nhello\r\n",
            "0\r\n",
            "0\r\n\r",
            "0\r\nA: b\r\n",
        ] {
            assert_eq!(
                every_split(part.as_bytes(), &Limits::default()),
                None,
                "{part:?}"
            );
        }
    }

    #[test]
    fn bytes_behind_the_end_stay() {
        let got = feed(
            b"1\r\nx\r\n0\r\n\r\nHTTP/1.1 200 OK",
            &[],
            &Limits::default(),
        );
        assert_eq!(got, Some(Ok((b"x".to_vec(), None, 15))));
    }

    #[test]
    fn trailers_are_kept_apart_and_dangerous_ones_dropped() {
        let input =
            b"0\r\nX-Sum: 1\r\nContent-Length: 5\r\nSet-Cookie: a\r\nContent-Digest: d\r\n\r\n";
        let Some(Ok((_, Some(trailers), 0))) = every_split(input, &Limits::default()) else {
            panic!("trailers expected");
        };
        let names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-sum", "content-digest"]);
    }

    #[test]
    fn limits_are_exact() {
        let limits = Limits::default()
            .with_max_chunk_extensions(4)
            .with_max_trailer(6)
            .with_max_trailer_fields(1);
        let ok = |input: &str| every_split(input.as_bytes(), &limits).unwrap().map(|_| ());
        assert_eq!(ok("0;1234\r\n\r\n"), Ok(()));
        assert_eq!(
            ok("0;12345\r\n\r\n"),
            Err(DecodeError::ChunkExtensionsTooLarge { limit: 4 })
        );
        assert_eq!(ok("0\r\nA: b\r\n\r\n"), Ok(()));
        assert_eq!(
            ok("0\r\nA: bc\r\n\r\n"),
            Err(DecodeError::TrailerTooLarge { limit: 6 })
        );
        let two = limits.with_max_trailer(64);
        assert_eq!(
            feed(b"0\r\nA: b\r\nC: d\r\n\r\n", &[], &two),
            Some(Err(DecodeError::TooManyTrailerFields { limit: 1 }))
        );
    }

    #[test]
    fn much_framing_for_little_data_is_refused() {
        // One byte a chunk with short lines is what real servers send: it must pass.
        let honest = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(50_000));
        assert!(matches!(
            feed(honest.as_bytes(), &[], &Limits::default()),
            Some(Ok(_))
        ));
        let padded = format!("1;{}\r\nx\r\n", "e".repeat(60)).repeat(400);
        let roomy = Limits::default().with_max_chunk_extensions(1 << 20);
        assert_eq!(
            feed(padded.as_bytes(), &[], &roomy),
            Some(Err(DecodeError::ChunkOverhead { limit: 16 * 1024 }))
        );
    }

    /// Invariants 1 to 3 of spec http1 d: mutated bodies are read the same whole and byte by byte, without a panic.
    #[test]
    fn mutated_bodies_are_read_the_same_however_they_arrive() {
        let seed = b"5;a=b\r\nhello\r\n1 \r\nx\r\n00a\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nrest";
        let bytes = b"\r\n\t ;:019afFg\0\xff";
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        for _ in 0..20_000 {
            let mut input = seed.to_vec();
            for _ in 0..=next(3) {
                let at = next(input.len());
                match next(3) {
                    0 => input[at] = bytes[next(bytes.len())],
                    1 => input.insert(at, bytes[next(bytes.len())]),
                    _ => drop(input.remove(at)),
                }
            }
            let whole = feed(&input, &[], &Limits::default());
            let single: Vec<_> = (0..input.len()).collect();
            assert_eq!(
                feed(&input, &single, &Limits::default()),
                whole,
                "{}",
                input.escape_ascii()
            );
        }
    }
}
