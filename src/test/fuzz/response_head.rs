//! Any bytes as the head of a response.

use http::header::{HeaderName, HeaderValue};

use super::{cuts, split};
use crate::codec::{
    DecodeError, Framing, HeadDecoder, HeadStep, MethodKind, Reuse, Rule, check_switch,
};
use crate::config::{HeadRules, Limits};
use crate::head::ResponseHead;

/// Decodes a head in several pieces; the first byte chooses rules, method and limits.
pub fn response_head(data: &[u8]) {
    let (choice, input) = split(data);
    let setting = Setting::chosen_by(choice);
    let whole = setting.read(input, &[]);
    for cuts in cuts(input) {
        let read = setting.read(input, &cuts);
        assert_eq!(
            read.verdict(),
            whole.verdict(),
            "cut at {cuts:?}: {}",
            input.escape_ascii()
        );
    }
    match &whole {
        Read::Head(head) => {
            head.check(input);
            head.check_switch(&setting);
            assert!(head.used <= setting.limits.max_head);
            let behind = setting.read(&[input, b"\r\n\r\nHTTP/1.1 500 X\r\n\r\n"].concat(), &[]);
            assert_eq!(
                behind.verdict(),
                whole.verdict(),
                "bytes behind a head change nothing"
            );
        }
        Read::Refused(error) => {
            let shown = error.to_string();
            assert!(
                shown.is_ascii() && !shown.contains(['\r', '\n']) && shown.len() < 400,
                "{shown}"
            );
        }
        // What is not refused can be completed: at the limit it is too late.
        Read::More => assert!(input.len() < setting.limits.max_head),
    }
    setting.compare_rules(input, &whole);
}

/// What a head is read by.
struct Setting {
    limits: Limits,
    method: MethodKind,
}

/// What came of reading.
enum Read {
    Head(Box<Head>),
    Refused(DecodeError),
    More,
}

struct Head {
    status: u16,
    framing: Framing,
    reuse: Reuse,
    /// Bytes of the head, and of all before it.
    len: usize,
    used: usize,
    kept: ResponseHead,
}

impl Setting {
    fn chosen_by(choice: u8) -> Self {
        let mut limits = Limits::default();
        if choice & 1 != 0 {
            limits.heads = HeadRules::Lenient;
        }
        if choice & 4 != 0 {
            limits = limits
                .with_max_head(64)
                .with_max_head_fields(3)
                .with_max_informational(1);
        }
        let method = match (choice & 2 != 0, choice & 8 != 0) {
            (false, false) => MethodKind::Other,
            (true, false) => MethodKind::Head,
            (false, true) => MethodKind::Connect,
            (true, true) => MethodKind::Upgrade,
        };
        Self { limits, method }
    }

    fn read(&self, input: &[u8], cuts: &[usize]) -> Read {
        let mut decoder = HeadDecoder::default();
        let mut skipped = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            while skipped < end {
                let buffer = input.get(skipped..end).unwrap_or_default();
                match decoder.decode(buffer, self.method, &self.limits) {
                    Ok(HeadStep::NeedMore) => break,
                    Ok(HeadStep::Interim(head)) => {
                        let len = head.len;
                        assert!(len > 0 && len <= buffer.len(), "an interim head is there");
                        skipped += len;
                    }
                    Ok(HeadStep::Final(head)) => {
                        assert!(
                            head.len <= buffer.len(),
                            "no byte is used that is not there"
                        );
                        return Read::Head(Box::new(Head {
                            status: head.status.as_u16(),
                            framing: head.framing,
                            reuse: head.reuse,
                            len: head.len,
                            used: skipped + head.len,
                            kept: decoder.keep(&head, buffer, b"body"),
                        }));
                    }
                    Err(error) => return Read::Refused(error),
                }
            }
        }
        Read::More
    }

    /// Lenient rules take all that strict ones take, and make of it the same; what only they take ends the connection.
    fn compare_rules(&self, input: &[u8], whole: &Read) {
        let with = |heads| Self {
            limits: Limits {
                heads,
                ..self.limits.clone()
            },
            method: self.method,
        };
        let strict = with(HeadRules::Strict).read(input, &[]);
        let lenient = with(HeadRules::Lenient).read(input, &[]);
        match (&strict, &lenient) {
            (Read::Head(_), _) => assert_eq!(strict.verdict(), lenient.verdict()),
            (_, Read::Head(head)) => assert_ne!(head.reuse, Reuse::Yes, "{}", input.escape_ascii()),
            _ => {}
        }
        assert!([strict.verdict(), lenient.verdict()].contains(&whole.verdict()));
    }
}

impl Read {
    /// What must not depend on the pieces.
    fn verdict(&self) -> Result<Option<(u16, Framing, Reuse, usize)>, DecodeError> {
        match self {
            Self::Head(head) => Ok(Some((head.status, head.framing, head.reuse, head.used))),
            Self::More => Ok(None),
            // These are shown as far as they came.
            Self::Refused(error) => match error.rule {
                Rule::NotHttp | Rule::TlsRecord | Rule::Http2Frame | Rule::Version => {
                    Err(error.rule.into())
                }
                _ => Err(*error),
            },
        }
    }
}

impl Head {
    /// A connection is handed over only after a head that says to what, and never used again by HTTP.
    fn check_switch(&self, setting: &Setting) {
        let status = self.kept.status;
        if !setting.method.switches(status) {
            assert_ne!(status.as_u16(), 101, "nobody asked for it");
            return;
        }
        assert_eq!(self.framing, Framing::None);
        assert_ne!(self.reuse, Reuse::Yes);
        let asked = HeaderValue::from_static("websocket, x/1");
        if setting.method == MethodKind::Upgrade && check_switch(&asked, &self.kept).is_ok() {
            let named = self.kept.first("upgrade").unwrap_or_default();
            assert!(!named.is_empty(), "it says to what");
            assert!(self.kept.first("connection").is_some());
        }
    }

    /// A head that was taken holds only what a caller may be shown, and httparse sees its end where the scan does.
    fn check(&self, input: &[u8]) {
        assert!((100..=999).contains(&self.status));
        let bytes = input
            .get(self.used - self.len..self.used)
            .unwrap_or_default();
        let mut fields = vec![httparse::EMPTY_HEADER; bytes.len()];
        let mut parsed = httparse::Response::new(&mut fields);
        let mut config = httparse::ParserConfig::default();
        config.allow_obsolete_multiline_headers_in_responses(true);
        config.allow_spaces_after_header_name_in_responses(true);
        let complete = config.parse_response(&mut parsed, bytes);
        assert_eq!(complete, Ok(httparse::Status::Complete(bytes.len())));
        assert_eq!(parsed.code, Some(self.status));
        let mut count = 0;
        for (name, value) in self.kept.fields() {
            assert!(HeaderName::from_bytes(name).is_ok());
            let shown = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
            assert!(value.iter().all(shown), "{}", value.escape_ascii());
            let edges = [value.first(), value.last()];
            assert!(!edges.iter().any(|edge| matches!(edge, Some(b' ' | b'\t'))));
            count += 1;
        }
        assert!(count <= parsed.headers.len());
        assert_eq!(self.kept.to_map().len(), count, "the map holds every field");
        assert_eq!(self.kept.kept_body(), "body");
    }
}
