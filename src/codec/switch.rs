//! Whether a 101 may hand the connection over to another protocol (RFC 9110 sections 7.8 and 15.2.2, spec http1 a4).
//!
//! A 101 that is taken at its word turns the connection into raw bytes, so it must say what it switches to, and it must be
//! something that was asked for. Called by `connection/http1.rs` once the head is there.

use http::{HeaderValue, Version};

use super::decode_error::{DecodeError, Rule};
use super::framing::trim;
use crate::head::ResponseHead;

/// Checks a 101 against the protocols of the request's Upgrade field.
pub(crate) fn check_switch(asked: &HeaderValue, head: &ResponseHead) -> Result<(), DecodeError> {
    let members = |name: &'static str| {
        head.fields()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))
            .flat_map(|(_, value)| value.split(|byte| *byte == b','))
            .map(trim)
            .filter(|member| !member.is_empty())
    };
    let says_so = members("connection").any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    let asked_for = |protocol: &[u8]| {
        let mut asked = asked.as_bytes().split(|byte| *byte == b',').map(trim);
        asked.any(|asked| asked.eq_ignore_ascii_case(protocol))
    };
    let mut named = members("upgrade").peekable();
    let first = named.peek().copied().unwrap_or_default();
    let all_asked_for = named.peek().is_some() && named.all(asked_for);
    if head.version == Version::HTTP_11 && says_so && all_asked_for {
        return Ok(());
    }
    Err(Rule::WrongUpgrade.broken_by(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{HeadDecoder, HeadStep, MethodKind};
    use crate::config::Limits;

    fn check(asked: &'static str, fields: &str, expected: bool) {
        for (version, is_http11) in [("1.1", true), ("1.0", false)] {
            let head = format!("HTTP/{version} 101 Go\r\n{fields}\r\n");
            let mut heads = HeadDecoder::default();
            let step = heads.decode(head.as_bytes(), MethodKind::Upgrade, &Limits::default());
            let Ok(HeadStep::Final(decoded)) = step else {
                panic!("{step:?}");
            };
            let kept = heads.keep(&decoded, head.as_bytes(), &[]);
            let verdict = check_switch(&HeaderValue::from_static(asked), &kept);
            assert_eq!(verdict.is_ok(), expected && is_http11, "{asked} {head}");
        }
    }

    #[test]
    fn a_101_names_what_was_asked_for() {
        let yes = "Connection: upgrade\r\nUpgrade: websocket\r\n";
        check("websocket", yes, true);
        check("WebSocket", yes, true);
        check("h2c, websocket", yes, true);
        check("h2c", yes, false);
        check("web", yes, false);
        check(
            "websocket",
            "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
            true,
        );
        check("websocket", "Upgrade: websocket\r\n", false);
        check("websocket", "Connection: upgrade\r\n", false);
        check("websocket", "Connection: upgrade\r\nUpgrade: \r\n", false);
        check(
            "a, b",
            "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n",
            true,
        );
        check("a", "Connection: upgrade\r\nUpgrade: a, b\r\n", false);
    }
}
