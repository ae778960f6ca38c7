//! How long a response body is and whether the connection survives it: all smuggling rules (RFC 9112 section 6.3).
//!
//! One pass over the fields collects the facts, one function decides. Called by `response_head` only.

use http::{StatusCode, Version};

use super::decode_error::Rule;
use super::reuse::{CloseReason, Reuse};
use crate::config::HeadRules;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body, whatever the fields say.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, up to the last.
    Chunked,
    /// Up to the end of the connection.
    UntilClose,
}

/// What of the request's method matters to the length of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MethodKind {
    /// HEAD: no body follows.
    Head,
    /// CONNECT: what follows a 2xx is the tunnel's (RFC 9110 section 9.3.6).
    Connect,
    /// Any with Upgrade: 101 is its final response, and what follows is the other protocol's.
    Upgrade,
    /// Any other.
    Other,
}

impl MethodKind {
    /// Whether the connection is no longer HTTP's after a response of this status.
    pub(crate) fn switches(self, status: StatusCode) -> bool {
        match self {
            Self::Connect => status.is_success(),
            Self::Upgrade => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::Head | Self::Other => false,
        }
    }
}

/// What the fields of a head say about framing and reuse.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FramingFields {
    length: Length,
    encoding: Encoding,
    close: bool,
    keep_alive: bool,
    /// Seconds of `Keep-Alive: timeout=N`.
    pub(crate) keep_alive_timeout: Option<u64>,
    /// Whether there is a Content-Encoding.
    pub(crate) coded: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    Absent,
    Is(u64),
    Invalid,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Encoding {
    #[default]
    Absent,
    Chunked,
    /// `identity` alone, which was a coding until RFC 7230.
    Identity,
    Unsupported,
}

/// What a field is to framing, as far as its reader must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Content-Length.
    Length,
    /// Any other.
    Other,
}

/// The verdict on a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) framing: Framing,
    pub(crate) reuse: Reuse,
    /// Content-Length lost to Transfer-Encoding and must not be shown.
    pub(crate) drop_length: bool,
}

impl FramingFields {
    /// Takes in one field; most names are told apart by their length and first letter alone.
    ///
    /// It runs for each field of each response, and its second caller is a cold one.
    #[inline(always)]
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Role {
        let first = name.first().map_or(0, u8::to_ascii_lowercase);
        match (name.len(), first) {
            (10, b'c') if is(name, b"Connection") => {
                for token in list(value) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            (10, b'k') if is(name, b"Keep-Alive") => {
                let hint = list(value).filter_map(keep_alive_hint).min();
                self.keep_alive_timeout = hint.or(self.keep_alive_timeout);
            }
            (14, b'c') if is(name, b"Content-Length") => {
                self.length = self.length.and(value);
                return Role::Length;
            }
            (16, b'c') if is(name, b"Content-Encoding") => self.coded = true,
            (17, b't') if is(name, b"Transfer-Encoding") => {
                self.encoding = self.encoding.and(value);
            }
            _ => {}
        }
        Role::Other
    }

    /// RFC 9112 section 6.3 in its order, and spec http1 a2.
    pub(crate) fn decide(
        &self,
        method: MethodKind,
        version: Version,
        status: StatusCode,
        rules: HeadRules,
    ) -> Result<Verdict, Rule> {
        let mut reuse = self.reuse(version);
        let mut drop_length = false;
        let framing = if method.switches(status) {
            reuse.refuse(CloseReason::Switched);
            Framing::None
        } else if method == MethodKind::Head || has_no_body(status) {
            Framing::None
        } else {
            let encoding = match self.encoding {
                Encoding::Identity if rules == HeadRules::Lenient => {
                    reuse.refuse(CloseReason::LenientHead);
                    Encoding::Absent
                }
                as_sent => as_sent,
            };
            match (encoding, self.length) {
                (Encoding::Absent, Length::Absent) => {
                    reuse.refuse(CloseReason::UntilClose);
                    Framing::UntilClose
                }
                (Encoding::Absent, Length::Is(length)) => Framing::Length(length),
                (Encoding::Absent, Length::Invalid) => return Err(Rule::ContentLength),
                (_, _) if version == Version::HTTP_10 => {
                    return Err(Rule::TransferEncodingInHttp10);
                }
                (Encoding::Identity | Encoding::Unsupported, _) => {
                    return Err(Rule::TransferEncoding);
                }
                (Encoding::Chunked, length) => {
                    if length != Length::Absent {
                        // Both at once is how responses are smuggled: chunked wins, and the connection ends.
                        drop_length = true;
                        reuse.refuse(CloseReason::LengthAndChunked);
                    }
                    Framing::Chunked
                }
            }
        };
        Ok(Verdict {
            framing,
            reuse,
            drop_length,
        })
    }

    /// `close` wins wherever it stands.
    fn reuse(&self, version: Version) -> Reuse {
        if self.close {
            Reuse::No(CloseReason::PeerAsked)
        } else if version == Version::HTTP_10 && !self.keep_alive {
            Reuse::No(CloseReason::Http10)
        } else {
            Reuse::Yes
        }
    }
}

impl Length {
    /// Every line, every list member: digits only, and all equal as numbers.
    fn and(self, value: &[u8]) -> Self {
        value
            .split(|byte| *byte == b',')
            .fold(self, |known, member| match (known, decimal(trim(member))) {
                (Self::Absent, Some(number)) => Self::Is(number),
                (Self::Is(length), Some(number)) if length == number => known,
                _ => Self::Invalid,
            })
    }
}

impl Encoding {
    /// Exactly one coding, `chunked`, over all lines: no other was asked for, and twice is forbidden.
    fn and(self, value: &[u8]) -> Self {
        value
            .split(|byte| *byte == b',')
            .fold(self, |known, member| match trim(member) {
                _ if known != Self::Absent => Self::Unsupported,
                coding if coding.eq_ignore_ascii_case(b"chunked") => Self::Chunked,
                coding if coding.eq_ignore_ascii_case(b"identity") => Self::Identity,
                _ => Self::Unsupported,
            })
    }
}

/// The value that broke a rule of [`FramingFields::decide`]: that of the field with which the head became unreadable.
#[cold]
pub(super) fn blamed<'b>(
    rule: Rule,
    fields: impl Iterator<Item = (&'b [u8], &'b [u8])>,
) -> &'b [u8] {
    let mut facts = FramingFields::default();
    for (name, value) in fields {
        facts.add(name, value);
        let found = match rule {
            Rule::ContentLength => facts.length == Length::Invalid,
            Rule::TransferEncoding => {
                matches!(facts.encoding, Encoding::Identity | Encoding::Unsupported)
            }
            _ => facts.encoding != Encoding::Absent,
        };
        if found {
            return value;
        }
    }
    b""
}

/// Whether `name` is the one that is usually written like `usual`, which costs a comparison of words and not of letters.
fn is<const N: usize>(name: &[u8], usual: &[u8; N]) -> bool {
    name == usual || name.eq_ignore_ascii_case(usual)
}

/// Whether a field of this name decides about framing or reuse.
pub(super) fn is_framing_field(name: &[u8]) -> bool {
    ["content-length", "transfer-encoding", "connection"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Statuses whose responses never have a body.
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// 1*DIGIT up to the largest signed 64-bit number; a sign, a prefix or nothing is no number.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    i64::try_from(number).is_ok().then_some(number)
}

/// The members of a comma-separated list, without the blanks around them.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

/// Strips OWS: spaces and tabs, and nothing else that Unicode or C might call a blank.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// N of `timeout=N`; zero for `max=0`, after which no further request is served.
fn keep_alive_hint(parameter: &[u8]) -> Option<u64> {
    let at = parameter.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (parameter.get(..at)?, parameter.get(at + 1..)?);
    let number = decimal(trim(value))?;
    match name {
        name if name.eq_ignore_ascii_case(b"timeout") => Some(number),
        name if name.eq_ignore_ascii_case(b"max") && number == 0 => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row a line: method and version, status, fields separated by `|`, what is expected with strict rules, and behind
    /// `/` what lenient rules expect if they differ. The expectation is a framing and what becomes of the connection, or
    /// the rule that is broken. `cl` and `te` stand for Content-Length and Transfer-Encoding, `co` for Connection.
    const TABLE: &str = include_str!("framing_table.txt");

    fn lines() -> impl Iterator<Item = &'static str> {
        TABLE
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    /// What a head must be taken for, as it is written in the table.
    fn told(verdict: Result<Verdict, Rule>) -> String {
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(Rule::ContentLength) => return "bad length".to_owned(),
            Err(Rule::TransferEncoding) => return "bad coding".to_owned(),
            Err(Rule::TransferEncodingInHttp10) => return "coding in 1.0".to_owned(),
            Err(other) => return format!("{other:?}"),
        };
        let framing = match verdict.framing {
            Framing::None => "none".to_owned(),
            Framing::Length(length) => length.to_string(),
            Framing::Chunked => "chunked".to_owned(),
            Framing::UntilClose => "until-close".to_owned(),
        };
        let reuse = match verdict.reuse {
            Reuse::Yes => "keep",
            Reuse::No(CloseReason::PeerAsked) => "close-asked",
            Reuse::No(CloseReason::Http10) => "close-1.0",
            Reuse::No(CloseReason::UntilClose) => "close-end",
            Reuse::No(CloseReason::LengthAndChunked) => "close-both",
            Reuse::No(CloseReason::LenientHead) => "close-lenient",
            Reuse::No(other) => panic!("{other:?} is no matter of framing"),
        };
        let hidden = if verdict.drop_length { " hidden" } else { "" };
        format!("{framing} {reuse}{hidden}")
    }

    /// The one function of spec http1 a2: everything about a head that decides how its body ends.
    fn decide(
        method: MethodKind,
        version: Version,
        status: u16,
        fields: &[(String, Vec<u8>)],
        rules: HeadRules,
    ) -> Result<Verdict, Rule> {
        let mut facts = FramingFields::default();
        for (name, value) in fields {
            facts.add(name.as_bytes(), value);
        }
        facts.decide(
            method,
            version,
            StatusCode::from_u16(status).unwrap(),
            rules,
        )
    }

    struct Row {
        method: MethodKind,
        version: Version,
        status: u16,
        fields: Vec<(String, Vec<u8>)>,
        strict: String,
        lenient: String,
    }

    fn row(line: &str) -> Row {
        let (left, expected) = line.split_once(" => ").expect("an expectation");
        let mut parts = left.splitn(4, ' ');
        let method = match parts.next().unwrap() {
            "HEAD" => MethodKind::Head,
            "GET" => MethodKind::Other,
            other => panic!("no such method: {other}"),
        };
        let version = match parts.next().unwrap() {
            "1.0" => Version::HTTP_10,
            "1.1" => Version::HTTP_11,
            other => panic!("no such version: {other}"),
        };
        let status = parts.next().unwrap().parse().unwrap();
        let fields = parts.next().unwrap_or_default();
        let fields = fields
            .split('|')
            .filter(|field| !field.is_empty())
            .map(|field| {
                let (name, value) = field.split_once(':').expect("a colon");
                let name = match name.trim() {
                    "cl" => "content-length",
                    "CL" => "CONTENT-Length",
                    "te" => "transfer-encoding",
                    "TE" => "Transfer-Encoding",
                    "co" => "connection",
                    "CO" => "Connection",
                    other => other,
                };
                // httparse hands values on without the blanks around them.
                let value = value
                    .replace("\\t", "\t")
                    .replace("\\v", "\x0b")
                    .replace("\\f", "\x0c");
                (name.to_owned(), trim(value.as_bytes()).to_vec())
            });
        let fields = fields.collect();
        let (strict, lenient) = expected.split_once(" / ").unwrap_or((expected, expected));
        Row {
            method,
            version,
            status,
            fields,
            strict: strict.to_owned(),
            lenient: lenient.to_owned(),
        }
    }

    #[test]
    fn every_row_of_the_table() {
        assert!(lines().count() >= 150, "only {} rows", lines().count());
        for line in lines() {
            let row = row(line);
            for (rules, expected) in [
                (HeadRules::Strict, &row.strict),
                (HeadRules::Lenient, &row.lenient),
            ] {
                let verdict = decide(row.method, row.version, row.status, &row.fields, rules);
                assert_eq!(&told(verdict), expected, "{rules:?}: {line}");
            }
        }
    }

    /// Invariant 8 of spec http1 d, for every row: the order of different fields and the case of names say nothing, and
    /// `Connection: close` changes nothing but reuse.
    #[test]
    fn what_must_not_matter_does_not() {
        for line in lines() {
            let row = row(line);
            let decide = |fields: &[(String, Vec<u8>)]| {
                decide(
                    row.method,
                    row.version,
                    row.status,
                    fields,
                    HeadRules::Strict,
                )
            };
            let verdict = decide(&row.fields);
            let mut turned = row.fields.clone();
            turned.reverse();
            assert_eq!(decide(&turned), verdict, "turned round: {line}");
            let mut shouted = row.fields.clone();
            for (name, _) in &mut shouted {
                name.make_ascii_uppercase();
            }
            assert_eq!(decide(&shouted), verdict, "in capitals: {line}");
            let mut closing = row.fields.clone();
            closing.push(("connection".to_owned(), b"close".to_vec()));
            let framing = |verdict: Result<Verdict, Rule>| verdict.map(|verdict| verdict.framing);
            assert_eq!(
                framing(decide(&closing)),
                framing(verdict),
                "closing: {line}"
            );
            if let Ok(verdict) = decide(&closing) {
                assert_eq!(verdict.reuse, Reuse::No(CloseReason::PeerAsked), "{line}");
            }
        }
    }

    #[test]
    fn the_value_that_broke_a_rule_is_found() {
        let fields = [
            ("Content-Length", "5"),
            ("content-length", "5, 6"),
            ("Transfer-Encoding", "chunked"),
            ("Transfer-Encoding", "gzip"),
        ];
        let found = |rule| {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            blamed(rule, fields)
        };
        assert_eq!(found(Rule::ContentLength), b"5, 6");
        assert_eq!(found(Rule::TransferEncoding), b"gzip");
        assert_eq!(found(Rule::TransferEncodingInHttp10), b"chunked");
    }

    #[test]
    fn keep_alive_hints_are_read() {
        let hint = |values: &[&str]| {
            let mut facts = FramingFields::default();
            for value in values {
                facts.add(b"Keep-Alive", value.as_bytes());
            }
            facts.keep_alive_timeout
        };
        assert_eq!(hint(&["max=5, timeout=15"]), Some(15));
        assert_eq!(hint(&["TIMEOUT = 15"]), None);
        assert_eq!(hint(&["Timeout= 15"]), Some(15));
        assert_eq!(hint(&["max=5, timeout=15", "timeout=30, max=0"]), Some(0));
        assert_eq!(hint(&["timeout=x", "5", "=", ""]), None);
        assert_eq!(hint(&["timeout=99999999999999999999"]), None);
    }
}
