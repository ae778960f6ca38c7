//! Judges the lines of a head one by one: of a head that is still coming, and of one that httparse refused.
//!
//! It takes exactly the lines that httparse takes, and says which rule the first other one breaks. So a head is refused as
//! soon as a bad line is complete, and for the same reason however its bytes arrive. A head that comes in one piece and is
//! good is never looked at here. Called by `response_head` only.

use memchr::{memchr, memchr_iter};

use super::decode_error::{DecodeError, Rule};
use super::framing::{is_framing_field, trim};
use crate::config::{HeadRules, Limits};

/// How far the lines of a head were judged.
#[derive(Debug, Default)]
pub(super) struct HeadLines {
    /// Where the first line begins that was not judged.
    next: usize,
    /// Whether the status line was judged.
    in_fields: bool,
    fields: usize,
    /// Whether the field above decides about framing.
    framing_field: bool,
}

impl HeadLines {
    /// Where the first line begins that was not judged.
    pub(super) fn next(&self) -> usize {
        self.next
    }

    /// Judges the lines that are complete in `head`. Up to `scanned` every line feed was seen before.
    pub(super) fn judge(
        &mut self,
        head: &[u8],
        scanned: usize,
        limits: &Limits,
    ) -> Result<(), DecodeError> {
        if self.next == 0 {
            self.next = empty_line(head, limits.heads);
        }
        let from = scanned.max(self.next);
        for at in memchr_iter(b'\n', head.get(from..).unwrap_or_default()) {
            let end = from + at + 1;
            let line = head.get(self.next..end).unwrap_or_default();
            self.next = end;
            self.line(line, limits)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], limits: &Limits) -> Result<(), DecodeError> {
        let content = match line {
            [content @ .., b'\r', b'\n'] => content,
            [content @ .., b'\n'] if limits.heads == HeadRules::Lenient => content,
            _ => return Err(Rule::BareLineFeed.broken_in(line)),
        };
        if !self.in_fields {
            self.in_fields = true;
            return status_line(content);
        }
        match content.first() {
            None => Ok(()),
            Some(b' ' | b'\t') if self.fields == 0 => {
                Err(Rule::BlankBeforeFirstField.broken_in(content))
            }
            Some(b' ' | b'\t') if self.framing_field => Err(Rule::FoldedFramingField.into()),
            Some(b' ' | b'\t') => value(b"", content),
            Some(_) => self.field(content, limits),
        }
    }

    fn field(&mut self, content: &[u8], limits: &Limits) -> Result<(), DecodeError> {
        let Some(colon) = memchr(b':', content) else {
            return Err(Rule::NoColon.broken_in(content));
        };
        let before = content.get(..colon).unwrap_or_default();
        let name = trim(before);
        self.framing_field = is_framing_field(name);
        let blank = name.len() < before.len();
        if blank && (limits.heads == HeadRules::Strict || self.framing_field) {
            return Err(Rule::BlankBeforeColon.broken_in(content));
        }
        if !is_name(name) {
            return Err(Rule::FieldName.broken_in(content));
        }
        value(name, content.get(colon + 1..).unwrap_or_default())?;
        self.fields += 1;
        if self.fields > limits.max_head_fields {
            return Err(Rule::TooManyFields {
                limit: limits.max_head_fields,
            }
            .into());
        }
        Ok(())
    }
}

/// The bytes of an empty line before the status line, a known bug of servers. One is skipped, by httparse in the end.
pub(super) fn empty_line(seen: &[u8], rules: HeadRules) -> usize {
    match seen {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] if rules == HeadRules::Lenient => 1,
        _ => 0,
    }
}

/// `HTTP/1.x SP 3DIGIT [ SP reason ]`; the space before an empty reason may be absent.
fn status_line(line: &[u8]) -> Result<(), DecodeError> {
    let [
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        b'0' | b'1',
        b' ',
        rest @ ..,
    ] = line
    else {
        return Err(Rule::Version.broken_by(line));
    };
    let reason = match rest {
        [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => b"",
        [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ', reason @ ..] => reason,
        _ => return Err(Rule::Status.broken_by(line)),
    };
    match forbidden(reason) {
        Some(byte) => Err(Rule::Reason.broken_by(&[byte])),
        None => Ok(()),
    }
}

fn value(name: &[u8], value: &[u8]) -> Result<(), DecodeError> {
    match forbidden(value) {
        Some(byte) => {
            let shown = name.iter().take(24).chain(b": .. ").chain([&byte]).copied();
            Err(Rule::FieldValue.broken_by(&shown.collect::<Vec<u8>>()))
        }
        None => Ok(()),
    }
}

/// A token that the `http` crate takes as a name.
pub(super) fn is_name(name: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.len() <= MAX_NAME && name.iter().all(token)
}

/// The first byte that stands in no value: a control character that is no tab.
pub(super) fn forbidden(value: &[u8]) -> Option<u8> {
    let refused = |byte: &&u8| matches!(byte, 0..=8 | 10..=31 | 127);
    value.iter().find(refused).copied()
}

/// The longest name of the `http` crate: a longer one could not be shown to the caller.
pub(super) const MAX_NAME: usize = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(head: &str, rules: HeadRules) -> Result<(), Rule> {
        let limits = Limits {
            heads: rules,
            ..Limits::default().with_max_head_fields(2)
        };
        let judged = HeadLines::default().judge(head.as_bytes(), 0, &limits);
        judged.map_err(|error| error.rule)
    }

    /// Each line is judged behind what must stand before it.
    fn check(lines: &str, strict: Result<(), Rule>, lenient: Result<(), Rule>) {
        assert_eq!(judge(lines, HeadRules::Strict), strict, "{lines:?}");
        assert_eq!(judge(lines, HeadRules::Lenient), lenient, "{lines:?}");
    }

    #[test]
    fn each_line_has_its_verdict() {
        let both = |lines: &str, expected: Result<(), Rule>| check(lines, expected, expected);
        both("HTTP/1.1 200 OK\r\n", Ok(()));
        both("HTTP/1.0 999\r\n", Ok(()));
        both("HTTP/1.1 200 \u{e9}\t!\r\n", Ok(()));
        both("HTTP/1.2 200 OK\r\n", Err(Rule::Version));
        both("HTTP/1.1\t200 OK\r\n", Err(Rule::Version));
        both("HTTP/1.01 200 OK\r\n", Err(Rule::Version));
        both("HTTP/1.1  200 OK\r\n", Err(Rule::Status));
        both("HTTP/1.1 099 OK\r\n", Err(Rule::Status));
        both("HTTP/1.1 2000 OK\r\n", Err(Rule::Status));
        both("HTTP/1.1 20\r\n", Err(Rule::Status));
        both("HTTP/1.1 200\tOK\r\n", Err(Rule::Status));
        both("HTTP/1.1 200 a\0b\r\n", Err(Rule::Reason));
        both("HTTP/1.1 200 a\rb\r\n", Err(Rule::Reason));
        check("HTTP/1.1 200 OK\n", Err(Rule::BareLineFeed), Ok(()));
        let field = |line: &str, strict, lenient| {
            check(&format!("HTTP/1.1 200 OK\r\n{line}"), strict, lenient);
        };
        let fields = |line: &str, expected: Result<(), Rule>| field(line, expected, expected);
        fields("A: b\r\n c\r\n\td\r\n\r\n", Ok(()));
        fields("A:\r\nb:c\r\n", Ok(()));
        fields(
            "A: b\r\nC: d\r\nE: f\r\n",
            Err(Rule::TooManyFields { limit: 2 }),
        );
        fields(" A: b\r\n", Err(Rule::BlankBeforeFirstField));
        fields("A\r\n", Err(Rule::NoColon));
        fields(": b\r\n", Err(Rule::FieldName));
        fields("A(: b\r\n", Err(Rule::FieldName));
        fields("\rA: b\r\n", Err(Rule::FieldName));
        fields("A: b\rc\r\n", Err(Rule::FieldValue));
        fields("A: b\r\r\n", Err(Rule::FieldValue));
        fields("A: b\r\n c\x7f\r\n", Err(Rule::FieldValue));
        fields("Connection: a\r\n b\r\n", Err(Rule::FoldedFramingField));
        fields("Content-Length : 1\r\n", Err(Rule::BlankBeforeColon));
        fields("transfer-encoding\t: x\r\n", Err(Rule::BlankBeforeColon));
        fields("Connection : close\r\n", Err(Rule::BlankBeforeColon));
        field("A : b\r\n", Err(Rule::BlankBeforeColon), Ok(()));
        field("A \t: b\r\n", Err(Rule::BlankBeforeColon), Ok(()));
        fields("A\u{c}: b\r\n", Err(Rule::FieldName));
        field("A: b\nC: d\n c\n", Err(Rule::BareLineFeed), Ok(()));
    }

    #[test]
    fn a_name_that_the_map_cannot_hold_is_refused() {
        assert!(is_name(&[b'a'; MAX_NAME]));
        assert!(!is_name(&[b'a'; MAX_NAME + 1]));
        assert!(http::HeaderName::from_bytes(&[b'a'; MAX_NAME]).is_ok());
        assert!(http::HeaderName::from_bytes(&[b'a'; MAX_NAME + 1]).is_err());
    }

    #[test]
    fn each_line_feed_is_looked_at_once() {
        let head = b"HTTP/1.1 200 OK\r\nA: b\r\nC";
        let mut lines = HeadLines::default();
        lines
            .judge(head.get(..20).unwrap(), 0, &Limits::default())
            .unwrap();
        assert_eq!(lines.next(), 17);
        lines.judge(head, 20, &Limits::default()).unwrap();
        assert_eq!((lines.next(), lines.fields), (23, 1));
    }
}
