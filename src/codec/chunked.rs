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

use super::decode_error::{DecodeError, Rule};
use super::framing::trim;
use super::head_lines::{forbidden, is_name};
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
    /// Why it failed.
    failure: Option<DecodeError>,
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
    Failed,
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
            failure: None,
        }
    }

    /// Reads on at the front of `input`.
    pub(crate) fn step(&mut self, input: &[u8]) -> Result<ChunkedStep, DecodeError> {
        let step = self.advance(input);
        if let Err(error) = step {
            self.state = State::Failed;
            self.failure = Some(error);
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
                State::Failed => break,
                _ => self.framing_byte(byte)?,
            }
        }
        if let Some(error) = self.failure {
            return Err(error);
        }
        Ok(ChunkedStep::NeedMore { skip: input.len() })
    }

    /// One byte of a size line, or of the CRLF behind data.
    fn framing_byte(&mut self, byte: u8) -> Result<(), DecodeError> {
        self.line += 1;
        let broken = |rule: Rule| Err(rule.broken_by(&[byte]));
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte)?,
            (State::Size, _) if self.digits == 0 => return broken(Rule::ChunkSize),
            (State::Size | State::Blank, b' ' | b'\t') => {
                self.blanks += 1;
                if self.blanks > MAX_BLANKS {
                    return broken(Rule::ChunkLine);
                }
                State::Blank
            }
            (State::Size | State::Blank, b';') => State::Extension,
            (State::Size | State::Blank | State::Extension, b'\r') => State::SizeLf,
            // A line that ends too early is no fault of the size.
            (State::Size, b'\n') => return broken(Rule::ChunkLine),
            (State::Size, _) => return broken(Rule::ChunkSize),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extensions += 1;
                if self.extensions > self.limits.extensions {
                    let limit = self.limits.extensions;
                    return Err(Rule::ChunkExtensionsTooLarge { limit }.into());
                }
                State::Extension
            }
            (State::SizeLf, b'\n') => self.size_line_ended()?,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::DataCr | State::DataLf, _) => return broken(Rule::ChunkEnd),
            _ => return broken(Rule::ChunkLine),
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
            return Err(Rule::ChunkSize.broken_by(format!("{:016x}..", self.left).as_bytes()));
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
            return Err(Rule::ChunkSize.broken_by(format!("{:x}", self.left).as_bytes()));
        }
        self.excess = (self.excess + self.line + 2)
            .saturating_sub(self.left.saturating_mul(2).saturating_add(16));
        if self.excess > MAX_EXCESS {
            return Err(Rule::ChunkOverhead { limit: MAX_EXCESS }.into());
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
                [.., b'\r'] if byte != b'\n' => return Err(self.broken_trailer(byte)),
                [b'\r'] | [.., b'\r', b'\n', b'\r'] => true,
                [.., b'\r'] => false,
                _ if byte == b'\n' => return Err(self.broken_trailer(byte)),
                _ => false,
            };
            self.trailer.push(byte);
            if self.trailer.len() > self.limits.trailer.saturating_add(2) {
                let limit = self.limits.trailer;
                return Err(Rule::TrailerTooLarge { limit }.into());
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

    /// A line that is not ended by CRLF; `byte` is the one that shows it.
    #[cold]
    fn broken_trailer(&self, byte: u8) -> DecodeError {
        let line = self.trailer.rsplit(|byte| *byte == b'\n').next();
        let mut line = line.unwrap_or_default().to_vec();
        line.push(byte);
        Rule::Trailer.broken_in(&line)
    }
}

/// Reads a trailer section with the grammar of a head, folds included. Fields that only a head may carry are left out:
/// nothing behind the body may change framing, routing or credentials (RFC 9110 section 6.5.1, ruling 13).
fn parse_trailers(
    section: &[u8],
    max_fields: usize,
) -> Result<Option<Box<HeaderMap>>, DecodeError> {
    let mut trailers = HeaderMap::new();
    let mut fields = 0;
    let mut lines = section
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r\n").unwrap_or(line))
        .take_while(|line| !line.is_empty())
        .peekable();
    while let Some(line) = lines.next() {
        let (name, value) = trailer_field(line)?;
        let mut value = value.to_vec();
        while let Some(fold) = lines.next_if(|line| matches!(line, [b' ' | b'\t', ..])) {
            value.push(b' ');
            value.extend_from_slice(trim(fold));
        }
        let bytes = trim(&value);
        let value = match forbidden(bytes) {
            None => HeaderValue::from_bytes(bytes).map_err(|_| Rule::Trailer.broken_in(line))?,
            Some(_) => return Err(Rule::Trailer.broken_in(line)),
        };
        fields += 1;
        if fields > max_fields {
            return Err(Rule::TooManyTrailerFields { limit: max_fields }.into());
        }
        if !is_dropped_trailer(&name) {
            trailers.append(name, value);
        }
    }
    Ok((!trailers.is_empty()).then(|| Box::new(trailers)))
}

/// Whether a field is left out behind the body, because only a head may carry it.
pub(crate) fn is_dropped_trailer(name: &HeaderName) -> bool {
    FORBIDDEN_TRAILERS.contains(&name.as_str())
}

/// The name and the value of one line.
fn trailer_field(line: &[u8]) -> Result<(HeaderName, &[u8]), DecodeError> {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = colon
        .and_then(|at| Some((line.get(..at)?, line.get(at + 1..)?)))
        .filter(|(name, _)| is_name(name))
        .ok_or_else(|| Rule::Trailer.broken_in(line))?;
    let name = HeaderName::from_bytes(name).map_err(|_| Rule::Trailer.broken_in(line))?;
    Ok((name, trim(value)))
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
    use super::super::every_split::every_split;
    use super::*;

    type Outcome = Result<(Vec<u8>, Option<Box<HeaderMap>>, usize), DecodeError>;

    /// Feeds the pieces between the cuts; answers the data, the trailers and the bytes used. `None`: more is needed.
    fn feed(input: &[u8], cuts: &[usize], limits: &Limits) -> Option<Outcome> {
        let mut decoder = ChunkedDecoder::new(limits);
        let mut data = Vec::new();
        let mut at = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            while at < end {
                match decoder.step(&input[at..end]) {
                    Ok(ChunkedStep::Data { skip, len }) => {
                        assert!(len > 0, "data is not empty");
                        data.extend_from_slice(&input[at + skip..at + skip + len]);
                        at += skip + len;
                    }
                    Ok(ChunkedStep::NeedMore { skip }) => {
                        assert_eq!(skip, end - at, "what is there is used");
                        at = end;
                    }
                    Ok(ChunkedStep::End { skip, trailers }) => {
                        assert!(decoder.is_done());
                        let again = decoder.step(&input[at + skip..]);
                        let untouched = matches!(
                            again,
                            Ok(ChunkedStep::End {
                                skip: 0,
                                trailers: None
                            } | ChunkedStep::NeedMore { skip: 0 })
                        );
                        assert!(untouched, "after the end no byte is used: {again:?}");
                        return Some(Ok((data, trailers, at + skip)));
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

    #[track_caller]
    fn read(input: &[u8], limits: &Limits) -> Option<Outcome> {
        every_split(input, |input, cuts| feed(input, cuts, limits))
    }

    #[track_caller]
    fn check(input: &str, expected: Result<&str, Rule>) {
        let got = read(input.as_bytes(), &Limits::default()).expect("the body ends");
        let got = got.map(|(data, _, used)| {
            assert_eq!(used, input.len(), "{input:?}");
            String::from_utf8(data).unwrap()
        });
        let got = got.map_err(|error| error.rule);
        assert_eq!(got, expected.map(str::to_owned), "{input:?}");
    }

    #[test]
    fn bodies_that_are_accepted() {
        check("0\r\n\r\n", Ok(""));
        check("5\r\nhello\r\n0\r\n\r\n", Ok("hello"));
        check("00000005\r\nhello\r\n000\r\n\r\n", Ok("hello"));
        check(
            "0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n",
            Ok("hello"),
        );
        check("5 \t \r\nhello\r\n0\r\n\r\n", Ok("hello"));
        check("5 ;a\r\nhello\r\n0 ;\r\n\r\n", Ok("hello"));
        check("5;a=b;c=\"d e\"\r\nhello\r\n0;x\r\n\r\n", Ok("hello"));
        check("5;a=\"b;\u{e9}\"\t\r\nhello\r\n0\r\n\r\n", Ok("hello"));
        check("5\r\n\r\n\r\n\n\r\n0\r\n\r\n", Ok("\r\n\r\n\n"));
        check(
            "A\r\n0123456789\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n",
            Ok("0123456789x"),
        );
    }

    #[test]
    fn bodies_that_are_refused() {
        for size in [
            "\r\n",
            "\n",
            ";x\r\n",
            " 5\r\n",
            "\t5\r\n",
            "\x0b5\r\n",
            "+5\r\n",
            "-5\r\n",
            "_5\r\n",
            "1_0\r\n",
            "g\r\n",
            "5g\r\n",
            "0x5\r\n",
            "5.0\r\n",
            "00000000000000005\r\n",
            "10000000000000000\r\n",
            "FFFFFFFFFFFFFFFF\r\n",
            "8000000000000000\r\n",
            "5\0\r\n",
            "\u{ff15}\r\n",
        ] {
            check(&format!("{size}hello\r\n0\r\n\r\n"), Err(Rule::ChunkSize));
        }
        for line in [
            "5\n",
            "5\r\r",
            "5\rh",
            "5 x\r\n",
            "5 5\r\n",
            "5 \n",
            "5;a\n",
            "5;a\0\r\n",
            "5;a\rb\r\n",
            "5;a\x7f\r\n",
            "5;a\x0b\r\n",
        ] {
            check(&format!("{line}hello\r\n0\r\n\r\n"), Err(Rule::ChunkLine));
        }
        for end in ["XX", "\n", "\r0", "\n\r", "Y", "\0\r\n", "\r\r\n", " \r\n"] {
            check(&format!("5\r\nhello{end}0\r\n\r\n"), Err(Rule::ChunkEnd));
        }
        for trailer in [
            "\n",
            "A\r\n\r\n",
            "A: b\n\r\n",
            "A : b\r\n\r\n",
            "A: b\0\r\n\r\n",
            "A: b\rc\r\n\r\n",
            " A: b\r\n\r\n",
            ": b\r\n\r\n",
            "A(: b\r\n\r\n",
            "A: b\r\nC\r\n\r\n",
            "A: b\r\n c\x01\r\n\r\n",
            "A: b\r\n\rX",
            "\rX",
            "A: b\r\n\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ] {
            check(&format!("0\r\n{trailer}"), Err(Rule::Trailer));
        }
    }

    #[test]
    fn a_refusal_shows_the_bytes_and_no_value() {
        let says = |input: &str, text: &str| {
            let read = feed(input.as_bytes(), &[], &Limits::default());
            let error = read.unwrap().unwrap_err().to_string();
            assert!(
                error.ends_with(text) && !error.contains("secret"),
                "{error}"
            );
        };
        says("0x5\r\n", ": \"x\"");
        says("8000000000000000\r\n", ": \"8000000000000000\"");
        says("00000000000000005\r\n", ": \"0000000000000000..\"");
        says("5\nhello", ": \"\\n\"");
        says("5\r\nhello\0", ": \"\\x00\"");
        says("0\r\nA: secret\n\r\n", ": \"A:\" ..");
        says("0\r\nA b: secret\r\n\r\n", ": \"A b:\" ..");
    }

    #[test]
    fn what_is_not_over_needs_more() {
        for part in [
            "",
            "5",
            "5\r",
            "5 ",
            "5;a",
            "5\r\nhel",
            "5\r\nhello",
            "5\r\nhello\r",
            "5\r\nhello\r\n",
            "0\r\n",
            "0\r\n\r",
            "0\r\nA",
            "0\r\nA: b\r\n",
            "0\r\nA: b\r\n\r",
            "7fffffffffffffff\r\nx",
        ] {
            assert_eq!(read(part.as_bytes(), &Limits::default()), None, "{part:?}");
        }
    }

    #[test]
    fn bytes_behind_the_end_stay() {
        let input = b"1\r\nx\r\n0\r\n\r\nHTTP/1.1 200 OK";
        let got = feed(input, &[], &Limits::default());
        assert_eq!(got, Some(Ok((b"x".to_vec(), None, input.len() - 15))));
    }

    #[test]
    fn trailers_are_kept_apart_and_dangerous_ones_dropped() {
        let dropped: String = FORBIDDEN_TRAILERS
            .iter()
            .map(|name| format!("{}: 1\r\n", name.to_uppercase()))
            .collect();
        let input = format!(
            "0\r\nX-Sum:\t1 \r\n{dropped}Content-Digest: d\r\nx-sum:\r\n 2\r\n\t3 \r\n\r\n"
        );
        let Some(Ok((_, Some(trailers), used))) = read(input.as_bytes(), &Limits::default()) else {
            panic!("trailers expected");
        };
        assert_eq!(used, input.len());
        let fields: Vec<_> = trailers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let expected = [("x-sum", "1"), ("x-sum", "2 3"), ("content-digest", "d")];
        assert_eq!(fields, expected);
        let none = format!("0\r\n{dropped}\r\n");
        let read = read(none.as_bytes(), &Limits::default());
        assert_eq!(read, Some(Ok((Vec::new(), None, none.len()))));
    }

    #[test]
    fn limits_are_exact() {
        let limits = Limits::default()
            .with_max_chunk_extensions(4)
            .with_max_trailer(6)
            .with_max_trailer_fields(1);
        let ok = |input: &str, limits: &Limits| {
            let read = read(input.as_bytes(), limits).unwrap();
            read.map(drop).map_err(|error| error.rule)
        };
        assert_eq!(ok("0;1234\r\n\r\n", &limits), Ok(()));
        let over = Err(Rule::ChunkExtensionsTooLarge { limit: 4 });
        assert_eq!(ok("0;12345\r\n\r\n", &limits), over);
        // All extensions of a body count together.
        assert_eq!(ok("1;12\r\nx\r\n0;34\r\n\r\n", &limits), Ok(()));
        assert_eq!(ok("1;12\r\nx\r\n0;345\r\n\r\n", &limits), over);
        assert_eq!(ok("0\r\nA: b\r\n\r\n", &limits), Ok(()));
        let over = Err(Rule::TrailerTooLarge { limit: 6 });
        assert_eq!(ok("0\r\nA: bc\r\n\r\n", &limits), over);
        let two = limits.with_max_trailer(64);
        assert_eq!(ok("0\r\nA: b\r\n c\r\n\r\n", &two), Ok(()));
        let over = Err(Rule::TooManyTrailerFields { limit: 1 });
        assert_eq!(ok("0\r\nA: b\r\nC: d\r\n\r\n", &two), over);
        let none = Limits::default()
            .with_max_trailer(0)
            .with_max_trailer_fields(0);
        assert_eq!(ok("0\r\n\r\n", &none), Ok(()));
        let blanks = |count| format!("5{}\r\nhello\r\n0\r\n\r\n", " ".repeat(count));
        assert_eq!(ok(&blanks(16), &Limits::default()), Ok(()));
        assert_eq!(ok(&blanks(17), &Limits::default()), Err(Rule::ChunkLine));
    }

    #[test]
    fn the_default_limits_are_exact() {
        let verdict = |input: String| {
            let whole = feed(input.as_bytes(), &[], &Limits::default()).unwrap();
            let half = feed(input.as_bytes(), &[input.len() / 2], &Limits::default()).unwrap();
            assert_eq!(whole, half);
            whole
                .map(|(_, _, used)| used == input.len())
                .map_err(|error| error.rule)
        };
        let kib16 = 16 * 1024;
        // The data pays for the extension.
        let extension = |len| {
            let data = "x".repeat(kib16);
            verdict(format!("4000;{}\r\n{data}\r\n0\r\n\r\n", "e".repeat(len)))
        };
        assert_eq!(extension(kib16), Ok(true));
        assert_eq!(
            extension(kib16 + 1),
            Err(Rule::ChunkExtensionsTooLarge { limit: kib16 })
        );
        let trailer = |len: usize| verdict(format!("0\r\nA: {}\r\n\r\n", "t".repeat(len - 5)));
        assert_eq!(trailer(kib16), Ok(true));
        assert_eq!(
            trailer(kib16 + 1),
            Err(Rule::TrailerTooLarge { limit: kib16 })
        );
        let fields = |count| verdict(format!("0\r\n{}\r\n", "A: b\r\n".repeat(count)));
        assert_eq!(fields(100), Ok(true));
        assert_eq!(fields(101), Err(Rule::TooManyTrailerFields { limit: 100 }));
    }

    #[test]
    fn much_framing_for_little_data_is_refused() {
        // One byte a chunk with short lines is what real servers send: it must pass.
        let honest = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(50_000));
        assert!(matches!(
            feed(honest.as_bytes(), &[], &Limits::default()),
            Some(Ok(_))
        ));
        let roomy = Limits::default().with_max_chunk_extensions(1 << 20);
        let limit = 16 * 1024;
        let over = Err(Rule::ChunkOverhead { limit });
        // A chunk of one byte pays for 18. Its line `1;e..` and CRLF, and the CRLF behind the data, are 6 and the extension.
        let verdict = |extension: usize, chunks: usize| {
            let chunk = format!("1;{}\r\nx\r\n", "e".repeat(extension));
            let body = format!("{}0\r\n\r\n", chunk.repeat(chunks));
            let read = feed(body.as_bytes(), &[], &roomy).unwrap();
            read.map(|(data, ..)| data.len())
                .map_err(|error| error.rule)
        };
        assert_eq!(verdict(12, 10_000), Ok(10_000));
        assert_eq!(verdict(13, 16 * 1024), Ok(16 * 1024));
        assert_eq!(verdict(13, 16 * 1024 + 1), over);
        assert_eq!(verdict(limit as usize + 12, 1), Ok(1));
        assert_eq!(verdict(limit as usize + 13, 1), over);
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
        for round in 0..20_000 {
            let mut input = seed.to_vec();
            for _ in 0..=next(3) {
                let at = next(input.len());
                match next(3) {
                    0 => input[at] = bytes[next(bytes.len())],
                    1 => input.insert(at, bytes[next(bytes.len())]),
                    _ => drop(input.remove(at)),
                }
            }
            // Small limits in every second round, so that they are met as well.
            let limits = [
                Limits::default(),
                Limits::default()
                    .with_max_trailer(9)
                    .with_max_chunk_extensions(3),
            ];
            let limits = &limits[round % 2];
            let whole = feed(&input, &[], limits);
            let single: Vec<_> = (0..input.len()).collect();
            assert_eq!(
                feed(&input, &single, limits),
                whole,
                "{}",
                input.escape_ascii()
            );
        }
    }
}
