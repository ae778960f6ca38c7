//! Stands in for `charset` in a build without it: everything is to be read as UTF-8.

use super::text::NotText;

pub(super) fn decode_charset(_: Option<&str>, _: &[u8]) -> Option<Result<String, NotText>> {
    None
}
