//! What a peer's bytes broke: the rule, and the bytes that show it.
//!
//! The connection turns it into an `Error` once; `is_size` decides between `TooLarge` and `Protocol` (ruling 20). The values
//! of fields may be secrets and are never shown, except those of Content-Length and Transfer-Encoding.

use std::fmt;

/// A broken rule and the bytes that broke it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DecodeError {
    pub(crate) rule: Rule,
    shown: Excerpt,
}

/// A rule of HTTP/1.1 that the peer's bytes break, or a limit that they exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The first bytes cannot begin a response of HTTP/1.
    NotHttp,
    /// The first bytes are a TLS record.
    TlsRecord,
    /// The first bytes are a frame or the preface of HTTP/2.
    Http2Frame,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// Not three digits from 100 on.
    Status,
    /// A reason with a control character.
    Reason,
    /// A line feed without a carriage return.
    BareLineFeed,
    /// More than one empty line before the status line.
    LeadingEmptyLines,
    /// A field line without a colon.
    NoColon,
    /// A field name that is empty, too long or no token.
    FieldName,
    /// A blank between a field name and its colon.
    BlankBeforeColon,
    /// A blank before the first field.
    BlankBeforeFirstField,
    /// A field value with a control character.
    FieldValue,
    /// A head that is malformed in another way.
    Head,
    /// The head does not end within the limit.
    HeadTooLarge { limit: usize },
    /// The head has too many fields.
    TooManyFields { limit: usize },
    /// Too many interim responses.
    TooManyInformational { limit: usize },
    /// 101 that nobody asked for.
    UnaskedUpgrade,
    /// 101 to a protocol that nobody asked for, or without saying to which.
    WrongUpgrade,
    /// A folded Content-Length, Transfer-Encoding or Connection.
    FoldedFramingField,
    /// Content-Length is no number, is too large, or differs between fields.
    ContentLength,
    /// Transfer-Encoding is not exactly `chunked`.
    TransferEncoding,
    /// Transfer-Encoding in a response of HTTP/1.0.
    TransferEncodingInHttp10,
    /// A chunk size that is no 1 to 16 hexadecimal digits, or too large.
    ChunkSize,
    /// A chunk extension with a control character, or a line not ended by CRLF.
    ChunkLine,
    /// Chunk data not followed by CRLF.
    ChunkEnd,
    /// Chunk extensions over the limit.
    ChunkExtensionsTooLarge { limit: usize },
    /// Far more chunk framing than data.
    ChunkOverhead { limit: u64 },
    /// A trailer section over the limit.
    TrailerTooLarge { limit: usize },
    /// A trailer section with too many fields.
    TooManyTrailerFields { limit: usize },
    /// A trailer line that is no field.
    Trailer,
    /// The end of the connection within a head.
    HeadCutShort { got: usize },
    /// The end of the connection within a body of known length.
    BodyCutShort { missing: u64 },
    /// The end of the connection within a chunked body.
    ChunkedCutShort,
    /// The end of TCP without the close_notify of TLS, where only that proves the end of the body.
    NoCloseNotify,
}

impl Rule {
    /// The rule, broken by `bytes`: they are shown escaped and cut short. Some peers send back what they were sent, so what may
    /// be the query of a request is left out (security L1).
    #[cold]
    pub(super) fn broken_by(self, bytes: &[u8]) -> DecodeError {
        let before_query = bytes
            .split_inclusive(|byte| *byte == b'?')
            .next()
            .unwrap_or_default();
        let mut shown = Excerpt::of(before_query);
        shown.cut |= before_query.len() < bytes.len();
        DecodeError { rule: self, shown }
    }

    /// The rule, broken by a line of a head or a trailer section: of a field its name is shown and never its value. A line
    /// that begins with a blank is the rest of a value.
    pub(super) fn broken_in(self, line: &[u8]) -> DecodeError {
        let name = match line {
            [b' ' | b'\t', ..] => b"",
            _ => line
                .split_inclusive(|byte| *byte == b':')
                .next()
                .unwrap_or_default(),
        };
        let mut error = self.broken_by(name);
        error.shown.cut |= name.len() < line.len();
        error
    }
}

impl From<Rule> for DecodeError {
    #[cold]
    fn from(rule: Rule) -> Self {
        rule.broken_by(b"")
    }
}

impl DecodeError {
    /// Whether a size or count went over a limit, rather than a rule being broken.
    pub(crate) fn is_size(self) -> bool {
        matches!(
            self.rule,
            Rule::HeadTooLarge { .. }
                | Rule::TooManyFields { .. }
                | Rule::TooManyInformational { .. }
                | Rule::ChunkExtensionsTooLarge { .. }
                | Rule::ChunkOverhead { .. }
                | Rule::TrailerTooLarge { .. }
                | Rule::TooManyTrailerFields { .. }
        )
    }

    /// Whether the connection ended before the message did.
    pub(crate) fn is_cut_short(self) -> bool {
        matches!(
            self.rule,
            Rule::HeadCutShort { .. }
                | Rule::BodyCutShort { .. }
                | Rule::ChunkedCutShort
                | Rule::NoCloseNotify
        )
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.rule, self.shown)
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::NotHttp => "the peer does not speak HTTP/1: its reply begins with",
            Self::TlsRecord => "the peer speaks TLS on this port; use https://",
            Self::Http2Frame => {
                "the peer answered with an HTTP/2 frame, but HTTP/1.1 was asked for"
            }
            Self::Version => "the version is neither HTTP/1.0 nor HTTP/1.1 (RFC 9112 section 2.3)",
            Self::Status => "the status is no number from 100 to 999 (RFC 9112 section 4)",
            Self::Reason => "the reason holds a control character (RFC 9112 section 4)",
            Self::BareLineFeed => {
                "a line of the head ends in LF without CR (RFC 9112 section 2.2; ClientBuilder::lenient_heads takes it)"
            }
            Self::LeadingEmptyLines => {
                "more than one empty line before the status line (RFC 9112 section 2.2)"
            }
            Self::NoColon => "a line of the head has no colon (RFC 9112 section 5)",
            Self::FieldName => "a field name is malformed (RFC 9112 section 5)",
            Self::BlankBeforeColon => {
                "a blank stands between a field name and its colon (RFC 9112 section 5.1; \
                 ClientBuilder::lenient_heads takes it in fields that do not concern framing)"
            }
            Self::BlankBeforeFirstField => {
                "a blank stands before the first field (RFC 9112 section 2.2)"
            }
            Self::FieldValue => {
                "a field value holds a forbidden character (RFC 9110 section 5.5)"
            }
            Self::Head => "the head is malformed (RFC 9112 section 2.1)",
            Self::HeadTooLarge { limit } => {
                return write!(
                    f,
                    "the response head is over the limit of {} (Limits::max_head)",
                    Size(limit)
                );
            }
            Self::TooManyFields { limit } => {
                return write!(
                    f,
                    "the response head has more than {limit} fields (Limits::max_head_fields)"
                );
            }
            Self::TooManyInformational { limit } => {
                return write!(
                    f,
                    "more than {limit} interim responses (Limits::max_informational)"
                );
            }
            Self::WrongUpgrade => {
                "the 101 does not name a protocol that was asked for (RFC 9110 section 7.8)"
            }
            Self::UnaskedUpgrade => {
                "status 101 although no upgrade was asked for (RFC 9110 section 7.8)"
            }
            Self::FoldedFramingField => {
                "a folded Content-Length, Transfer-Encoding or Connection (RFC 9112 section 5.2)"
            }
            Self::ContentLength => {
                "Content-Length is malformed, too large, or differs between fields (RFC 9112 section 6.3)"
            }
            Self::TransferEncoding => {
                "Transfer-Encoding is not exactly \"chunked\" (RFC 9112 section 6.1)"
            }
            Self::TransferEncodingInHttp10 => {
                "Transfer-Encoding in a response of HTTP/1.0 (RFC 9112 section 6.1)"
            }
            Self::ChunkSize => {
                "a chunk size is not 1 to 16 hexadecimal digits, or is too large (RFC 9112 section 7.1)"
            }
            Self::ChunkLine => {
                "a chunk size line holds a forbidden character or does not end in CRLF (RFC 9112 section 7.1)"
            }
            Self::ChunkEnd => "chunk data is not followed by CRLF (RFC 9112 section 7.1)",
            Self::ChunkExtensionsTooLarge { limit } => {
                return write!(
                    f,
                    "chunk extensions are over the limit of {} (Limits::max_chunk_extensions)",
                    Size(limit)
                );
            }
            Self::ChunkOverhead { limit } => {
                return write!(
                    f,
                    "the chunks hold far more framing than data (over {limit} bytes)"
                );
            }
            Self::TrailerTooLarge { limit } => {
                return write!(
                    f,
                    "the trailer section is over the limit of {} (Limits::max_trailer)",
                    Size(limit)
                );
            }
            Self::TooManyTrailerFields { limit } => {
                return write!(
                    f,
                    "the trailer section has more than {limit} fields (Limits::max_trailer_fields)"
                );
            }
            Self::Trailer => "a trailer field is malformed (RFC 9112 section 7.1.2)",
            Self::HeadCutShort { got } => {
                return write!(
                    f,
                    "the connection ended after {got} bytes of the response head"
                );
            }
            Self::BodyCutShort { missing } => {
                return write!(
                    f,
                    "the connection ended {missing} bytes before the end of the body"
                );
            }
            Self::ChunkedCutShort => "the connection ended before the last chunk",
            Self::NoCloseNotify => {
                "the connection ended without TLS close_notify, so the body may be cut short"
            }
        })
    }
}

/// The first bytes of what broke a rule, kept by value so that the error stays small and `Copy`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Excerpt {
    bytes: [u8; Self::SIZE],
    len: u8,
    /// Whether more followed.
    cut: bool,
}

impl Excerpt {
    const SIZE: usize = 32;

    fn of(shown: &[u8]) -> Self {
        let mut bytes = [0; Self::SIZE];
        let mut len = 0;
        for (slot, byte) in bytes.iter_mut().zip(shown) {
            *slot = *byte;
            len += 1;
        }
        Self {
            bytes,
            len,
            cut: shown.len() > Self::SIZE,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Written behind the rule: nothing if there is nothing to show.
impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == 0 {
            return Ok(());
        }
        write!(f, ": \"{}\"", self.as_bytes().escape_ascii())?;
        f.write_str(if self.cut { " .." } else { "" })
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// A size in the largest unit that divides it.
struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0 bytes"),
            n if n % (1024 * 1024) == 0 => write!(f, "{} MiB", n / (1024 * 1024)),
            n if n % 1024 == 0 => write!(f, "{} KiB", n / 1024),
            n => write!(f, "{n} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_broke_a_rule_is_shown_escaped_and_cut_short() {
        assert_eq!(
            Rule::Trailer.broken_by(b"a\r\n\xff\"").to_string(),
            "a trailer field is malformed (RFC 9112 section 7.1.2): \"a\\r\\n\\xff\\\"\""
        );
        let long = Rule::NotHttp.broken_by(&[b'x'; 33]).to_string();
        assert!(
            long.ends_with(&format!(": \"{}\" ..", "x".repeat(32))),
            "{long}"
        );
        let echo = Rule::NotHttp.broken_by(b"GET /x?secret").to_string();
        assert!(echo.ends_with(": \"GET /x?\" .."), "{echo}");
        assert_eq!(
            DecodeError::from(Rule::ChunkedCutShort).to_string(),
            "the connection ended before the last chunk"
        );
    }

    #[test]
    fn the_value_of_a_field_is_never_shown() {
        let error = Rule::BareLineFeed.broken_in(b"Set-Cookie: secret\n");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("\"Set-Cookie:\" .."), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
        let error = Rule::BlankBeforeFirstField.broken_in(b" secret: secret");
        assert!(!error.to_string().contains("secret"), "{error}");
        let error = Rule::NoColon.broken_in(b"no colon");
        assert!(error.to_string().ends_with(": \"no colon\""), "{error}");
    }
}
