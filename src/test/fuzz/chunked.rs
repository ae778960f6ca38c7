//! Any bytes as a chunked body.

use http::HeaderMap;

use super::{cuts, split};
use crate::codec::{ChunkedDecoder, ChunkedStep, DecodeError};
use crate::config::Limits;

/// Takes a body apart in several pieces, and once more by a slow reading of the grammar; the first byte chooses limits.
pub fn chunked(data: &[u8]) {
    let (choice, input) = split(data);
    let mut limits = Limits::default();
    if choice & 1 != 0 {
        limits = limits
            .with_max_chunk_extensions(4)
            .with_max_trailer(12)
            .with_max_trailer_fields(1);
    }
    let whole = read(input, &[], &limits);
    for cuts in cuts(input) {
        let read = read(input, &cuts, &limits);
        assert_eq!(read, whole, "cut at {cuts:?}: {}", input.escape_ascii());
    }
    match &whole {
        Some(Ok((_, trailers, used))) => {
            let behind = [input, b"5\r\nhello\r\n0\r\n\r\n"].concat();
            assert_eq!(
                read(&behind, &[], &limits),
                whole,
                "bytes behind a body change nothing"
            );
            let framing = [
                "content-length",
                "transfer-encoding",
                "host",
                "connection",
                "authorization",
            ];
            for name in trailers.iter().flat_map(|trailers| trailers.keys()) {
                assert!(!framing.contains(&name.as_str()), "{name}");
            }
            assert!(*used <= input.len());
        }
        Some(Err(error)) => {
            let shown = error.to_string();
            assert!(
                shown.is_ascii() && !shown.contains(['\r', '\n']) && shown.len() < 400,
                "{shown}"
            );
        }
        None => {}
    }
    compare(input, &whole, choice & 1 == 0);
}

/// Data, trailers and bytes used; `None`: more is needed.
type Outcome = Option<Result<(Vec<u8>, Option<Box<HeaderMap>>, usize), DecodeError>>;

fn read(input: &[u8], cuts: &[usize], limits: &Limits) -> Outcome {
    let mut decoder = ChunkedDecoder::new(limits);
    let mut data = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([input.len()]) {
        while at < end {
            let piece = input.get(at..end).unwrap_or_default();
            assert!(!decoder.is_done());
            match decoder.step(piece) {
                Ok(ChunkedStep::Data { skip, len }) => {
                    assert!(len > 0 && skip + len <= piece.len(), "data that is there");
                    data.extend_from_slice(piece.get(skip..skip + len).unwrap_or_default());
                    at += skip + len;
                }
                Ok(ChunkedStep::NeedMore { skip }) => {
                    assert_eq!(skip, piece.len(), "all that is there is used");
                    at = end;
                }
                Ok(ChunkedStep::End { skip, trailers }) => {
                    assert!(decoder.is_done() && skip <= piece.len());
                    return Some(Ok((data, trailers, at + skip)));
                }
                Err(error) => {
                    assert_eq!(
                        decoder.step(b"0\r\n\r\n"),
                        Err(error),
                        "what failed stays failed"
                    );
                    return Some(Err(error));
                }
            }
        }
    }
    None
}

/// What the slow reading accepts must be accepted, with the same data and the same bytes used, unless a limit says
/// otherwise; and the other way round.
fn compare(input: &[u8], whole: &Outcome, no_limit_is_near: bool) {
    let slow = Slow { rest: input }.body();
    match (whole, slow) {
        (Some(Ok((data, _, used))), Some((slow, rest))) => {
            assert_eq!(*data, slow, "{}", input.escape_ascii());
            assert_eq!(input.len() - used, rest, "{}", input.escape_ascii());
        }
        // Few bytes can hold many fields.
        (Some(Err(error)), Some(_)) if error.is_size() => {}
        (Some(Ok(_)), None) => panic!("only the decoder takes {}", input.escape_ascii()),
        (_, Some(_)) if no_limit_is_near && input.len() < 10_000 => {
            panic!(
                "the decoder does not take {}: {whole:?}",
                input.escape_ascii()
            )
        }
        _ => {}
    }
}

/// The grammar of RFC 9112 section 7.1 with what spec http1 a3 adds, read from the whole body and line by line.
struct Slow<'a> {
    rest: &'a [u8],
}

impl Slow<'_> {
    /// The data, and how many bytes are left behind the body.
    fn body(&mut self) -> Option<(Vec<u8>, usize)> {
        let mut data = Vec::new();
        loop {
            let size = usize::try_from(size(self.line()?)?).ok()?;
            if size == 0 {
                break;
            }
            data.extend_from_slice(self.rest.get(..size)?);
            self.rest = self.rest.get(size..)?.strip_prefix(b"\r\n")?;
        }
        let mut first = true;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some((data, self.rest.len()));
            }
            let text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
            let folded = !first && matches!(line, [b' ' | b'\t', ..]);
            let colon = line.iter().position(|byte| *byte == b':');
            let name = line.get(..colon.unwrap_or_default())?;
            if !line.iter().all(text) || !(folded || http::HeaderName::from_bytes(name).is_ok()) {
                return None;
            }
            first = false;
        }
    }

    /// Up to CRLF, without any other CR or LF.
    fn line(&mut self) -> Option<&[u8]> {
        let end = self
            .rest
            .iter()
            .position(|byte| matches!(byte, b'\r' | b'\n'))?;
        let (line, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.strip_prefix(b"\r\n")?;
        Some(line)
    }
}

/// `1*16HEXDIG *16BWS [ ";" extension ]`
fn size(line: &[u8]) -> Option<i64> {
    let (line, extension) = match line.iter().position(|byte| *byte == b';') {
        Some(at) => (line.get(..at)?, line.get(at..)?),
        None => (line, &b""[..]),
    };
    let text = std::str::from_utf8(line).ok()?;
    let digits = text.trim_end_matches([' ', '\t']);
    let plain = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    let good = (1..=16).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        && text.len() - digits.len() <= 16
        && extension.iter().all(plain);
    good.then(|| i64::from_str_radix(digits, 16).ok())?
}
