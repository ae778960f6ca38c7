//! Splits data into lines that end in LF or CRLF, in whatever pieces it comes.
//!
//! Pure. Every byte is looked at once; a line that lies within one piece is not copied. `line_stream.rs` feeds it.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

/// Takes pieces of data and gives lines.
#[derive(Debug)]
pub(crate) struct LineDecoder {
    /// What has come and was not looked at.
    input: Bytes,
    /// The beginning of a line whose end has not come yet.
    begun: BytesMut,
    /// Bytes of a line, without its end.
    pub(super) max_line: usize,
    /// Lines given so far.
    count: u64,
}

/// A line is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl LineDecoder {
    pub(crate) fn new(max_line: usize) -> Self {
        Self {
            input: Bytes::new(),
            begun: BytesMut::new(),
            max_line,
            count: 0,
        }
    }

    /// Hands over the next piece, when there is no further line in those before.
    pub(crate) fn feed(&mut self, piece: Bytes) {
        debug_assert!(self.input.is_empty(), "there may be a line in it");
        self.input = piece;
    }

    /// The number of the line that was given last; the first is 1.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The next line without its end; `None` if its end has not come yet.
    pub(crate) fn next_line(&mut self) -> Result<Option<Bytes>, TooLong> {
        let Some(at) = memchr(b'\n', &self.input) else {
            self.begun.extend_from_slice(&self.input);
            // It is let go of: the piece may be part of a large one.
            self.input = Bytes::new();
            // A CR at the end may belong to the end of the line, and the mark before the first one is no part of it.
            let mark = if self.count == 0 { BOM.len() } else { 0 };
            return match self.begun.len() > self.max_line.saturating_add(1 + mark) {
                true => Err(TooLong),
                false => Ok(None),
            };
        };
        let rest = self.input.split_to(at);
        self.input.advance(1);
        let mut line = if self.begun.is_empty() {
            rest
        } else {
            self.begun.extend_from_slice(&rest);
            self.begun.split().freeze()
        };
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        self.give(line).map(Some)
    }

    /// At the end of the data: the last line, if it has no end of its own.
    pub(crate) fn finish(&mut self) -> Result<Option<Bytes>, TooLong> {
        match self.begun.is_empty() {
            true => Ok(None),
            false => {
                let line = self.begun.split().freeze();
                self.give(line).map(Some)
            }
        }
    }

    /// Throws away what has come and was not given.
    pub(crate) fn forget(&mut self) {
        self.input = Bytes::new();
        self.begun = BytesMut::new();
    }

    fn give(&mut self, mut line: Bytes) -> Result<Bytes, TooLong> {
        if self.count == 0 && line.starts_with(BOM) {
            line.advance(BOM.len());
        }
        self.count += 1;
        match line.len() > self.max_line {
            true => Err(TooLong),
            false => Ok(line),
        }
    }
}

/// The mark that some writers put before UTF-8; it is no part of the first line.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], cuts: &[usize], max_line: usize) -> Result<Vec<String>, TooLong> {
        let mut decoder = LineDecoder::new(max_line);
        let mut lines = Vec::new();
        let mut at = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            decoder.feed(Bytes::copy_from_slice(&input[at..end]));
            while let Some(line) = decoder.next_line()? {
                lines.push(line.escape_ascii().to_string());
            }
            at = end;
        }
        if let Some(line) = decoder.finish()? {
            lines.push(line.escape_ascii().to_string());
        }
        assert_eq!(decoder.count(), lines.len() as u64);
        Ok(lines)
    }

    #[track_caller]
    fn check(input: &str, max_line: usize, expected: Result<&[&str], TooLong>) {
        let input = input.as_bytes();
        let expected = expected.map(|lines| lines.iter().map(ToString::to_string).collect());
        assert_eq!(read(input, &[], max_line), expected);
        let single: Vec<_> = (0..input.len()).collect();
        assert_eq!(read(input, &single, max_line), expected, "byte by byte");
        for cut in 0..=input.len() {
            assert_eq!(read(input, &[cut], max_line), expected, "cut at {cut}");
        }
    }

    #[test]
    fn lines_end_in_lf_or_crlf_and_the_last_may_have_no_end() {
        check("", 9, Ok(&[]));
        check("a", 9, Ok(&["a"]));
        check("a\n", 9, Ok(&["a"]));
        check("a\n\n", 9, Ok(&["a", ""]));
        check("\n", 9, Ok(&[""]));
        check("a\r\nbc\n\r\nd", 9, Ok(&["a", "bc", "", "d"]));
        check("a\rb\r\r\nc\r", 9, Ok(&["a\\rb\\r", "c\\r"]));
    }

    #[test]
    fn a_mark_before_the_first_line_is_no_part_of_it() {
        check("\u{feff}a\n\u{feff}b", 9, Ok(&["a", "\\xef\\xbb\\xbfb"]));
        check("\u{feff}", 9, Ok(&[""]));
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit() {
        check("abc\nabc\r\nabc", 3, Ok(&["abc", "abc", "abc"]));
        check("abc\nabcd\n", 3, Err(TooLong));
        check("abcd", 3, Err(TooLong));
        check("abcd\r\n", 3, Err(TooLong));
        check("\n\n", 0, Ok(&["", ""]));
        check("\u{feff}abc\nabcd", 3, Err(TooLong));
        check("\u{feff}abc\r\nabc", 3, Ok(&["abc", "abc"]));
    }
}
