//! Text out of bytes: the mark before it, the charset that its content type names, else UTF-8.
//!
//! Pure. Nothing is replaced: bytes that are not of the charset are an error.

use std::fmt;

use bytes::{Buf, Bytes};

use super::charset::decode_charset;
use super::lines::BOM;

/// Why bytes are not text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotText {
    /// They are not UTF-8 from this byte on.
    Utf8(usize),
    /// They are not of the charset that was named.
    #[cfg_attr(
        not(feature = "charset"),
        expect(
            dead_code,
            reason = "a build without the feature knows no other charset"
        )
    )]
    Charset(&'static str),
    /// The charset that was named is not known, and they are not UTF-8.
    Unknown(String),
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utf8(at) => write!(f, "not UTF-8 at byte {at}"),
            Self::Charset(name) => write!(f, "not {name}, which its content type names"),
            Self::Unknown(label) => write!(
                f,
                "not UTF-8, and \"{}\", which its content type names, is no charset that this build knows",
                label.escape_debug()
            ),
        }
    }
}

/// The text of a body. A mark (BOM) of UTF-8 or UTF-16 goes before what the content type says, and is no part of the text, as
/// everywhere on the web (WHATWG Encoding, section 6).
pub(crate) fn decode_text(content_type: Option<&str>, mut bytes: Bytes) -> Result<String, NotText> {
    if bytes.starts_with(BOM) {
        bytes.advance(BOM.len());
        return decode_utf8(bytes);
    }
    let label = content_type.and_then(charset_label);
    if let Some(decoded) = decode_charset(label, &bytes) {
        return decoded;
    }
    let known = label.is_none_or(|label| {
        ["utf-8", "utf8", "us-ascii"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(label))
    });
    decode_utf8(bytes).map_err(|error| match label {
        Some(label) if !known => NotText::Unknown(label.chars().take(MAX_SHOWN).collect()),
        _ => error,
    })
}

fn decode_utf8(bytes: Bytes) -> Result<String, NotText> {
    String::from_utf8(bytes.into()).map_err(|error| NotText::Utf8(error.utf8_error().valid_up_to()))
}

/// The charset parameter of a content type (RFC 9110 section 8.3.2).
fn charset_label(content_type: &str) -> Option<&str> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"').trim();
        (name.trim().eq_ignore_ascii_case("charset") && !value.is_empty()).then_some(value)
    })
}

/// Characters of a label that an error shows.
const MAX_SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(content_type: &str, bytes: &'static [u8]) -> Result<String, NotText> {
        decode_text(Some(content_type), Bytes::from_static(bytes))
    }

    #[test]
    fn the_label_is_found_among_parameters() {
        for (content_type, expected) in [
            ("text/html", None),
            ("text/html; charset=", None),
            ("charset=x", None),
            ("text/html;charset=latin1", Some("latin1")),
            ("text/html; q=1; Charset = \"utf-8\" ; x", Some("utf-8")),
            ("text/html; charset=a; charset=b", Some("a")),
        ] {
            assert_eq!(charset_label(content_type), expected, "{content_type}");
        }
    }

    #[test]
    fn without_a_charset_it_is_utf8() {
        assert_eq!(
            decode_text(None, "gr\u{fc}n".into()).as_deref(),
            Ok("gr\u{fc}n")
        );
        assert_eq!(
            decode_text(None, Bytes::from_static(b"gr\xfcn")),
            Err(NotText::Utf8(2))
        );
        for utf8 in ["text/plain; charset=UTF-8", "text/plain; charset=\"utf8\""] {
            assert_eq!(decode(utf8, b"gr\xc3\xbcn").as_deref(), Ok("gr\u{fc}n"));
            assert_eq!(decode(utf8, b"gr\xfc"), Err(NotText::Utf8(2)));
        }
    }

    #[test]
    fn a_mark_goes_before_what_the_content_type_says() {
        let latin = "text/plain; charset=iso-8859-1";
        assert_eq!(
            decode(latin, b"\xef\xbb\xbfgr\xc3\xbcn").as_deref(),
            Ok("gr\u{fc}n")
        );
        assert_eq!(decode(latin, b"\xef\xbb\xbf\xff"), Err(NotText::Utf8(0)));
    }

    #[test]
    fn an_unknown_charset_is_named_if_it_is_not_utf8_after_all() {
        let unknown = "text/plain; charset=klingon";
        assert_eq!(decode(unknown, b"plain").as_deref(), Ok("plain"));
        let error = decode(unknown, b"\xff").unwrap_err().to_string();
        assert_eq!(
            error,
            "not UTF-8, and \"klingon\", which its content type names, is no charset that this build knows"
        );
    }

    #[cfg(feature = "charset")]
    #[test]
    fn the_charset_that_is_named_is_used() {
        let cases: [(&str, &'static [u8], &str); 5] = [
            ("iso-8859-1", b"gr\xfcn \x80", "gr\u{fc}n \u{20ac}"),
            ("Shift_JIS", b"\x93\xfa\x96\x7b", "\u{65e5}\u{672c}"),
            ("gbk", b"\xc4\xe3", "\u{4f60}"),
            ("utf-16", b"a\0b\0", "ab"),
            ("windows-1251", b"\xff\xfe", "\u{44f}\u{44e}"),
        ];
        for (label, bytes, expected) in cases {
            let content_type = format!("text/plain; charset={label}");
            if bytes.starts_with(b"\xff\xfe") {
                // The mark of UTF-16 wins over any label.
                assert_eq!(decode(&content_type, bytes).as_deref(), Ok(""));
                continue;
            }
            assert_eq!(
                decode(&content_type, bytes).as_deref(),
                Ok(expected),
                "{label}"
            );
        }
        assert_eq!(decode("a/b", b"\xfe\xff\0a").as_deref(), Ok("a"));
        let error = decode("a/b; charset=shift_jis", b"\x93").unwrap_err();
        assert_eq!(error, NotText::Charset("Shift_JIS"));
        // What WHATWG maps to "replacement" cannot be decoded at all.
        assert!(decode("a/b; charset=iso-2022-kr", b"x").is_err());
    }
}
