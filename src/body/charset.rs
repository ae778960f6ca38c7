//! Charsets other than UTF-8, by encoding_rs, which knows those of the web by all their names.

use encoding_rs::{Encoding, UTF_8};

use super::text::NotText;

/// The text; `None` if it is to be read as UTF-8.
pub(super) fn decode_charset(label: Option<&str>, bytes: &[u8]) -> Option<Result<String, NotText>> {
    let (encoding, bytes) = match Encoding::for_bom(bytes) {
        Some((encoding, mark)) => (encoding, bytes.get(mark..).unwrap_or_default()),
        None => (Encoding::for_label(label?.as_bytes())?, bytes),
    };
    if encoding == UTF_8 {
        return None;
    }
    let text = encoding.decode_without_bom_handling_and_without_replacement(bytes);
    Some(
        text.map(String::from)
            .ok_or(NotText::Charset(encoding.name())),
    )
}
