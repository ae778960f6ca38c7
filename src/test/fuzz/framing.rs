//! Any fields as those that decide how long a body is.

use http::{StatusCode, Version};

use super::split;
use crate::codec::framing::{FramingFields, Verdict};
use crate::codec::{Framing, MethodKind, Reuse, Rule};
use crate::config::HeadRules;

/// Decides on a message. The first byte chooses method, version, status and rules; each line is a field, whose name its
/// first byte chooses.
pub fn framing(data: &[u8]) {
    let (choice, input) = split(data);
    let message = Message::chosen_by(choice);
    let fields: Vec<_> = input
        .split(|byte| *byte == b'\n')
        .take(8)
        .map(|line| {
            let (name, value) = split(line);
            let names = [
                "Content-Length",
                "transfer-encoding",
                "Connection",
                "X-Other",
            ];
            let name = names
                .get(usize::from(name) % names.len())
                .copied()
                .unwrap_or_default();
            (name.to_owned(), trim(value).to_vec())
        })
        .collect();
    let verdict = message.decide(&fields);
    message.compare(&fields, verdict);
    message.vary(&fields, verdict);
    if let Ok(verdict) = verdict {
        if message.method == MethodKind::Head || [100, 204, 304].contains(&message.status) {
            assert_eq!(verdict.framing, Framing::None, "there is no body");
        }
        if verdict.framing == Framing::UntilClose || verdict.drop_length {
            assert_ne!(verdict.reuse, Reuse::Yes, "nothing keeps such a connection");
        }
    }
}

type Fields = [(String, Vec<u8>)];

struct Message {
    method: MethodKind,
    version: Version,
    status: u16,
    rules: HeadRules,
}

impl Message {
    fn chosen_by(choice: u8) -> Self {
        let statuses = [200, 204, 304, 100, 205, 404, 200, 200];
        let pick = |bit: u8| choice & bit != 0;
        Self {
            method: if pick(8) {
                MethodKind::Head
            } else {
                MethodKind::Other
            },
            version: if pick(16) {
                Version::HTTP_10
            } else {
                Version::HTTP_11
            },
            status: statuses
                .get(usize::from(choice & 7))
                .copied()
                .unwrap_or(200),
            rules: if pick(32) {
                HeadRules::Lenient
            } else {
                HeadRules::Strict
            },
        }
    }

    fn decide(&self, fields: &Fields) -> Result<Verdict, Rule> {
        let mut facts = FramingFields::default();
        for (name, value) in fields {
            facts.add(name.as_bytes(), value);
        }
        let status = StatusCode::from_u16(self.status).unwrap_or_default();
        facts.decide(self.method, self.version, status, self.rules)
    }

    /// The rules once more, in the words of RFC 9112 section 6.3 and of spec http1 a2, over strings.
    fn compare(&self, fields: &Fields, verdict: Result<Verdict, Rule>) {
        let list = |wanted: &str| -> Vec<String> {
            let values = fields
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            values
                .flat_map(|(_, value)| value.split(|byte| *byte == b','))
                .map(|member| String::from_utf8_lossy(trim(member)).to_ascii_lowercase())
                .collect()
        };
        let codings = list("transfer-encoding");
        let lengths = list("content-length");
        let lenient = self.rules == HeadRules::Lenient;
        let identity = lenient && codings == ["identity"];
        let number = |text: &String| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<i64>().ok())?
        };
        let bodiless = self.method == MethodKind::Head
            || self.status < 200
            || [204, 304].contains(&self.status);
        let expected = if bodiless {
            Ok(Framing::None)
        } else if !codings.is_empty() && !identity {
            if self.version == Version::HTTP_10 {
                Err(Rule::TransferEncodingInHttp10)
            } else if codings == ["chunked"] {
                Ok(Framing::Chunked)
            } else {
                Err(Rule::TransferEncoding)
            }
        } else if lengths.is_empty() {
            Ok(Framing::UntilClose)
        } else {
            let numbers: Option<Vec<_>> = lengths.iter().map(number).collect();
            match numbers.as_deref() {
                Some([first, rest @ ..]) if rest.iter().all(|other| other == first) => {
                    Ok(Framing::Length(u64::try_from(*first).unwrap_or_default()))
                }
                _ => Err(Rule::ContentLength),
            }
        };
        assert_eq!(
            verdict.map(|verdict| verdict.framing),
            expected,
            "{fields:?}"
        );
        let Ok(verdict) = verdict else { return };
        let tokens = list("connection");
        let has = |token: &str| tokens.iter().any(|known| known == token);
        let odd = identity && !bodiless;
        let both = verdict.framing == Framing::Chunked && !lengths.is_empty();
        let kept = self.version == Version::HTTP_11 || has("keep-alive");
        let endless = verdict.framing == Framing::UntilClose;
        let stays = kept && !has("close") && !endless && !odd && !both;
        assert_eq!(verdict.reuse == Reuse::Yes, stays, "{fields:?}");
    }

    /// Invariant 8 of spec http1 d: what must not matter does not.
    fn vary(&self, fields: &Fields, verdict: Result<Verdict, Rule>) {
        let mut turned = fields.to_vec();
        turned.reverse();
        // Which of two reasons to close comes first may change; whether there is one may not.
        let stays = |verdict: Result<Verdict, Rule>| {
            verdict.map(|verdict| {
                (
                    verdict.framing,
                    verdict.reuse == Reuse::Yes,
                    verdict.drop_length,
                )
            })
        };
        assert_eq!(
            stays(self.decide(&turned)),
            stays(verdict),
            "the order of fields: {fields:?}"
        );
        let mut shouted = fields.to_vec();
        for (name, _) in &mut shouted {
            name.make_ascii_uppercase();
        }
        assert_eq!(
            self.decide(&shouted),
            verdict,
            "the case of names: {fields:?}"
        );
        let lines: Vec<_> = fields
            .iter()
            .flat_map(|(name, value)| {
                let members = value.split(|byte| *byte == b',');
                members.map(|member| (name.clone(), trim(member).to_vec()))
            })
            .collect();
        assert_eq!(
            self.decide(&lines),
            verdict,
            "a list in several lines: {fields:?}"
        );
        let mut closing = fields.to_vec();
        closing.push(("connection".to_owned(), b"close".to_vec()));
        let framing = |verdict: Result<Verdict, Rule>| verdict.map(|verdict| verdict.framing);
        assert_eq!(
            framing(self.decide(&closing)),
            framing(verdict),
            "close: {fields:?}"
        );
    }
}

/// As httparse hands values on: without blanks around them.
fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|byte| !blank(byte))
        .map_or(start, |at| at + 1);
    value.get(start..end).unwrap_or_default()
}
