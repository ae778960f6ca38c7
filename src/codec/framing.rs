//! How long a response body is and whether the connection survives it: all smuggling rules (RFC 9112 section 6.3).
//!
//! One pass over the fields collects the facts, one function decides. Called by `response_head` only.

use http::{StatusCode, Version};

use super::decode_error::DecodeError;
use super::reuse::{CloseReason, Reuse};

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
    /// Any other.
    Other,
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
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Role {
        let first = name.first().map_or(0, u8::to_ascii_lowercase);
        match (name.len(), first) {
            (10, b'c') if name.eq_ignore_ascii_case(b"connection") => {
                for token in list(value) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            (10, b'k') if name.eq_ignore_ascii_case(b"keep-alive") => {
                let hint = list(value).filter_map(keep_alive_hint).min();
                self.keep_alive_timeout = hint.or(self.keep_alive_timeout);
            }
            (14, b'c') if name.eq_ignore_ascii_case(b"content-length") => {
                self.length = self.length.and(value);
                return Role::Length;
            }
            (17, b't') if name.eq_ignore_ascii_case(b"transfer-encoding") => {
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
    ) -> Result<Verdict, DecodeError> {
        let mut reuse = self.reuse(version);
        let mut drop_length = false;
        let framing = if method == MethodKind::Head || has_no_body(status) {
            Framing::None
        } else {
            match (self.encoding, self.length) {
                (Encoding::Absent, Length::Absent) => {
                    reuse.refuse(CloseReason::UntilClose);
                    Framing::UntilClose
                }
                (Encoding::Absent, Length::Is(length)) => Framing::Length(length),
                (Encoding::Absent, Length::Invalid) => return Err(DecodeError::BadContentLength),
                (_, _) if version == Version::HTTP_10 => {
                    return Err(DecodeError::TransferEncodingInHttp10);
                }
                (Encoding::Unsupported, _) => {
                    return Err(DecodeError::UnsupportedTransferEncoding);
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
            .fold(self, |known, member| {
                if known == Self::Absent && trim(member).eq_ignore_ascii_case(b"chunked") {
                    Self::Chunked
                } else {
                    Self::Unsupported
                }
            })
    }
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
fn trim(mut value: &[u8]) -> &[u8] {
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

    const CL: &str = "content-length";
    const TE: &str = "Transfer-Encoding";

    fn decide(
        method: MethodKind,
        version: Version,
        status: u16,
        fields: &[(&str, &str)],
    ) -> Result<Verdict, DecodeError> {
        let mut facts = FramingFields::default();
        for (name, value) in fields {
            facts.add(name.as_bytes(), value.as_bytes());
        }
        facts.decide(method, version, StatusCode::from_u16(status).unwrap())
    }

    fn check(fields: &[(&str, &str)], expected: Result<Framing, DecodeError>) {
        let got =
            decide(MethodKind::Other, Version::HTTP_11, 200, fields).map(|verdict| verdict.framing);
        assert_eq!(got, expected, "{fields:?}");
    }

    #[test]
    fn content_length() {
        use DecodeError::BadContentLength as Bad;
        check(&[(CL, "0")], Ok(Framing::Length(0)));
        check(&[(CL, "5")], Ok(Framing::Length(5)));
        check(&[(CL, "005")], Ok(Framing::Length(5)));
        check(&[(CL, "5, 5")], Ok(Framing::Length(5)));
        check(&[(CL, "5"), (CL, "05")], Ok(Framing::Length(5)));
        check(
            &[(CL, "9223372036854775807")],
            Ok(Framing::Length(i64::MAX as u64)),
        );
        for bad in [
            "",
            "+5",
            "-5",
            "5 5",
            "0x5",
            "5_0",
            "5,",
            ",5",
            "5, 6",
            "5a",
            "9223372036854775808",
            "18446744073709551616",
            "\u{b}5",
        ] {
            check(&[(CL, bad)], Err(Bad));
        }
        check(&[(CL, "5"), (CL, "6")], Err(Bad));
        check(&[(CL, "5"), (CL, "")], Err(Bad));
    }

    #[test]
    fn transfer_encoding() {
        use DecodeError::UnsupportedTransferEncoding as Bad;
        check(&[(TE, "chunked")], Ok(Framing::Chunked));
        check(&[(TE, " CHUNKED\t")], Ok(Framing::Chunked));
        for bad in [
            "",
            "gzip",
            "gzip, chunked",
            "chunked, identity",
            "chunked, chunked",
            "identity",
            "xchunked",
            "chunked;a=b",
            "\u{b}chunked",
            "chunked,",
        ] {
            check(&[(TE, bad)], Err(Bad));
        }
        check(&[(TE, "chunked"), (TE, "chunked")], Err(Bad));
        check(&[(TE, "gzip"), (TE, "chunked")], Err(Bad));
        assert_eq!(
            decide(MethodKind::Other, Version::HTTP_10, 200, &[(TE, "chunked")]),
            Err(DecodeError::TransferEncodingInHttp10)
        );
    }

    #[test]
    fn both_is_chunked_without_reuse_and_the_length_is_hidden() {
        let verdict = decide(
            MethodKind::Other,
            Version::HTTP_11,
            200,
            &[(CL, "5"), (TE, "chunked")],
        )
        .unwrap();
        assert_eq!(verdict.framing, Framing::Chunked);
        assert_eq!(verdict.reuse, Reuse::No(CloseReason::LengthAndChunked));
        assert!(verdict.drop_length);
    }

    #[test]
    fn no_body_whatever_the_fields_say() {
        for fields in [&[(CL, "5")][..], &[(TE, "chunked")], &[(CL, "x")], &[]] {
            for (method, status) in [
                (MethodKind::Head, 200),
                (MethodKind::Other, 204),
                (MethodKind::Other, 304),
                (MethodKind::Other, 103),
            ] {
                let verdict = decide(method, Version::HTTP_11, status, fields).unwrap();
                assert_eq!(
                    (verdict.framing, verdict.reuse),
                    (Framing::None, Reuse::Yes),
                    "{status} {fields:?}"
                );
            }
        }
        assert_eq!(
            decide(MethodKind::Other, Version::HTTP_11, 205, &[(CL, "3")])
                .unwrap()
                .framing,
            Framing::Length(3)
        );
    }

    #[test]
    fn close_anywhere_wins() {
        let reuse = |version, fields: &[(&str, &str)]| {
            let mut all = vec![(CL, "1")];
            all.extend_from_slice(fields);
            decide(MethodKind::Other, version, 200, &all).unwrap().reuse
        };
        let connection = "Connection";
        assert_eq!(reuse(Version::HTTP_11, &[]), Reuse::Yes);
        let close = Reuse::No(CloseReason::PeerAsked);
        assert_eq!(
            reuse(
                Version::HTTP_11,
                &[(connection, "close"), (connection, "keep-alive")]
            ),
            close
        );
        assert_eq!(
            reuse(Version::HTTP_11, &[(connection, "x, CLOSE ,y")]),
            close
        );
        assert_eq!(
            reuse(Version::HTTP_11, &[(connection, "closed")]),
            Reuse::Yes
        );
        assert_eq!(reuse(Version::HTTP_10, &[]), Reuse::No(CloseReason::Http10));
        assert_eq!(
            reuse(Version::HTTP_10, &[(connection, "Keep-Alive")]),
            Reuse::Yes
        );
        assert_eq!(
            reuse(Version::HTTP_10, &[(connection, "keep-alive, close")]),
            close
        );
    }

    #[test]
    fn until_close_is_never_reused() {
        let verdict = decide(MethodKind::Other, Version::HTTP_11, 200, &[]).unwrap();
        assert_eq!(
            (verdict.framing, verdict.reuse),
            (Framing::UntilClose, Reuse::No(CloseReason::UntilClose))
        );
    }

    #[test]
    fn keep_alive_hints_are_read() {
        let mut facts = FramingFields::default();
        facts.add(b"Keep-Alive", b"max=5, timeout=15");
        assert_eq!(facts.keep_alive_timeout, Some(15));
        facts.add(b"keep-alive", b"timeout=30, max=0");
        assert_eq!(facts.keep_alive_timeout, Some(0));
    }
}
