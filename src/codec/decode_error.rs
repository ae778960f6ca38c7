//! What a peer's bytes broke: one small value a rule, with the number or byte that shows it.
//!
//! The connection turns it into an `Error` once; `is_size` decides between `TooLarge` and `Protocol` (ruling 20).

use std::fmt;

/// A rule of HTTP/1.1 that the peer's bytes break, or a limit that they exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// The first bytes cannot begin a response of HTTP/1.
    NotHttp { first: [u8; 8], len: u8 },
    /// The first bytes are a TLS record.
    TlsRecord,
    /// The first bytes are an HTTP/2 frame.
    Http2Frame,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    BadVersion,
    /// Not three digits from 100 on.
    BadStatus,
    /// A line feed without a carriage return (RFC 9112 section 2.2).
    BareLineFeed,
    /// More than one empty line before the status line.
    LeadingEmptyLines,
    /// A field name that is no token, or has no colon, or is followed by a blank.
    BadFieldName,
    /// A field value with a control character.
    BadFieldValue,
    /// A status line that is none.
    BadStatusLine,
    /// The head does not end within the limit.
    HeadTooLarge { limit: usize },
    /// The head has too many fields.
    TooManyFields { limit: usize },
    /// Too many interim responses.
    TooManyInformational { limit: usize },
    /// 101 that nobody asked for.
    UnaskedUpgrade,
    /// A folded Content-Length, Transfer-Encoding or Connection.
    FoldedFramingField,
    /// Content-Length is no number, is too large, or differs between fields.
    BadContentLength,
    /// Transfer-Encoding is not exactly `chunked`.
    UnsupportedTransferEncoding,
    /// Transfer-Encoding in a response of HTTP/1.0.
    TransferEncodingInHttp10,
    /// A chunk size that is no 1 to 16 hexadecimal digits, or too large.
    BadChunkSize,
    /// A chunk extension with a control character, or a line not ended by CRLF.
    BadChunkLine,
    /// Chunk data not followed by CRLF.
    BadChunkEnd,
    /// Chunk extensions over the limit.
    ChunkExtensionsTooLarge { limit: usize },
    /// Far more chunk framing than data.
    ChunkOverhead { limit: u64 },
    /// A trailer section over the limit.
    TrailerTooLarge { limit: usize },
    /// A trailer section with too many fields.
    TooManyTrailerFields { limit: usize },
    /// A trailer line that is no field.
    BadTrailer,
    /// The end of the connection within a head.
    HeadCutShort { got: usize },
    /// The end of the connection within a body of known length.
    BodyCutShort { missing: u64 },
    /// The end of the connection within a chunked body.
    ChunkedCutShort,
    /// The end of TCP without the close_notify of TLS, where only that proves the end of the body.
    NoCloseNotify,
}

impl DecodeError {
    /// Whether a size or count went over a limit, rather than a rule being broken.
    pub(crate) fn is_size(self) -> bool {
        matches!(
            self,
            Self::HeadTooLarge { .. }
                | Self::TooManyFields { .. }
                | Self::TooManyInformational { .. }
                | Self::ChunkExtensionsTooLarge { .. }
                | Self::ChunkOverhead { .. }
                | Self::TrailerTooLarge { .. }
                | Self::TooManyTrailerFields { .. }
        )
    }
}

impl DecodeError {
    /// Whether the connection ended before the message did.
    pub(crate) fn is_cut_short(self) -> bool {
        matches!(
            self,
            Self::HeadCutShort { .. }
                | Self::BodyCutShort { .. }
                | Self::ChunkedCutShort
                | Self::NoCloseNotify
        )
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotHttp { first, len } => {
                let first = first.get(..usize::from(len)).unwrap_or_default();
                write!(
                    f,
                    "the peer does not speak HTTP/1: its reply begins with \"{}\"",
                    first.escape_ascii()
                )
            }
            Self::TlsRecord => f.write_str("the peer speaks TLS on this port; use https://"),
            Self::Http2Frame => {
                f.write_str("the peer answered with an HTTP/2 frame, but HTTP/1.1 was asked for")
            }
            Self::BadVersion => f.write_str("the version is neither HTTP/1.0 nor HTTP/1.1"),
            Self::BadStatus => f.write_str("the status is no number from 100 to 999"),
            Self::BareLineFeed => f.write_str("a line of the head ends in LF without CR"),
            Self::LeadingEmptyLines => {
                f.write_str("more than one empty line before the status line")
            }
            Self::BadFieldName => f.write_str("a field name is malformed"),
            Self::BadFieldValue => f.write_str("a field value holds a forbidden character"),
            Self::BadStatusLine => f.write_str("the status line is malformed"),
            Self::HeadTooLarge { limit } => write!(
                f,
                "the response head is over the limit of {} (Limits::max_head)",
                Size(limit)
            ),
            Self::TooManyFields { limit } => write!(
                f,
                "the response head has more than {limit} fields (Limits::max_head_fields)"
            ),
            Self::TooManyInformational { limit } => write!(
                f,
                "more than {limit} interim responses (Limits::max_informational)"
            ),
            Self::UnaskedUpgrade => f.write_str("status 101 although no upgrade was asked for"),
            Self::FoldedFramingField => {
                f.write_str("a folded Content-Length, Transfer-Encoding or Connection")
            }
            Self::BadContentLength => {
                f.write_str("Content-Length is malformed, too large, or differs between fields")
            }
            Self::UnsupportedTransferEncoding => {
                f.write_str("Transfer-Encoding is not exactly \"chunked\"")
            }
            Self::TransferEncodingInHttp10 => {
                f.write_str("Transfer-Encoding in a response of HTTP/1.0")
            }
            Self::BadChunkSize => {
                f.write_str("a chunk size is not 1 to 16 hexadecimal digits, or is too large")
            }
            Self::BadChunkLine => {
                f.write_str("a chunk size line holds a forbidden character or does not end in CRLF")
            }
            Self::BadChunkEnd => f.write_str("chunk data is not followed by CRLF"),
            Self::ChunkExtensionsTooLarge { limit } => write!(
                f,
                "chunk extensions are over the limit of {} (Limits::max_chunk_extensions)",
                Size(limit)
            ),
            Self::ChunkOverhead { limit } => write!(
                f,
                "the chunks hold far more framing than data (over {limit} bytes)"
            ),
            Self::TrailerTooLarge { limit } => write!(
                f,
                "the trailer section is over the limit of {} (Limits::max_trailer)",
                Size(limit)
            ),
            Self::TooManyTrailerFields { limit } => write!(
                f,
                "the trailer section has more than {limit} fields (Limits::max_trailer_fields)"
            ),
            Self::BadTrailer => f.write_str("a trailer field is malformed"),
            Self::HeadCutShort { got } => write!(
                f,
                "the connection ended after {got} bytes of the response head"
            ),
            Self::BodyCutShort { missing } => write!(
                f,
                "the connection ended {missing} bytes before the end of the body"
            ),
            Self::ChunkedCutShort => f.write_str("the connection ended before the last chunk"),
            Self::NoCloseNotify => f.write_str(
                "the connection ended without TLS close_notify, so the body may be cut short",
            ),
        }
    }
}

impl std::error::Error for DecodeError {}

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
