//! Heads of HTTP/2 messages: what we send as h2 wants it, what came as every layer reads it (RFC 9113 section 8).
//!
//! What h2 does not check of a response is checked here (spec http2 rule 10). No I/O; called by `exchange.rs`.

use std::fmt;

use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, StatusCode, Uri, Version};

use crate::codec::chunked::is_dropped_trailer;
use crate::codec::request_head::{check, value_to_send};
use crate::codec::{BodyLength, EncodeError};
use crate::config::Limits;
use crate::head::{DefaultFields, FieldAt, RequestHead, ResponseHead, is_secret};

/// A request as h2 takes it.
pub(super) struct Encoded {
    pub(super) request: Request<()>,
    /// The length that the head promises.
    pub(super) length: Option<u64>,
    pub(super) expects_continue: bool,
    /// After a 2xx the stream belongs to another protocol, or is a tunnel.
    pub(super) switches: bool,
}

/// Makes the request. Every check of HTTP/1.1 holds here, too; what concerns a connection has no place in HTTP/2 and is left
/// out (RFC 9113 section 8.2.2).
pub(super) fn encode(
    head: &RequestHead,
    defaults: &DefaultFields,
    body: BodyLength,
) -> Result<Encoded, EncodeError> {
    let own = check(head, body)?;
    let length = own.length(&head.method, body)?;
    let expects_continue =
        body != BodyLength::None && (own.expects_continue || head.expects_continue());
    let mut fields = fields(head, defaults)?;
    if let Some(length) = length {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if expects_continue {
        fields.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = fields;
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri(head)?;
    let mut switches = head.method == Method::CONNECT;
    if let Some(protocol) = head.upgrade() {
        if body != BodyLength::None {
            return Err(EncodeError::ConnectWithBody);
        }
        // RFC 8441 section 4: in place of Upgrade, one protocol by name.
        let protocol = protocol.to_str().map_err(|_| EncodeError::Upgrade)?;
        if protocol.contains([',', '/', ' ']) {
            return Err(EncodeError::Upgrade);
        }
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from(protocol));
        switches = true;
    }
    Ok(Encoded {
        request,
        length: length.filter(|_| body != BodyLength::None),
        expects_continue,
        switches,
    })
}

/// The fields of the call, and the defaults that it does not hide.
fn fields(head: &RequestHead, defaults: &DefaultFields) -> Result<HeaderMap, EncodeError> {
    if head.headers.is_empty() {
        return Ok(defaults.map().clone());
    }
    // Two more may follow.
    let mut fields = HeaderMap::with_capacity(defaults.map().len() + head.headers.len() + 2);
    for (name, value) in defaults.map() {
        if !head.headers.contains_key(name) {
            fields.append(name, value.clone());
        }
    }
    for (name, value) in &head.headers {
        // Host is the authority; length and expectation are written by what was decided.
        let elsewhere = matches!(
            *name,
            header::HOST | header::CONNECTION | header::CONTENT_LENGTH | header::EXPECT
        );
        if elsewhere {
            continue;
        }
        let bytes = value_to_send(name, value)?;
        let mut value = if bytes.len() == value.len() {
            value.clone()
        } else {
            let trimmed = HeaderValue::from_bytes(bytes);
            let mut trimmed =
                trimmed.map_err(|_| EncodeError::FieldValue { name: name.clone() })?;
            trimmed.set_sensitive(value.is_sensitive());
            trimmed
        };
        // So that it never enters a compression table (RFC 7541 section 7.1.3).
        value.set_sensitive(value.is_sensitive() || is_secret(name));
        fields.append(name.clone(), value);
    }
    Ok(fields)
}

/// Scheme, authority and path; for a plain CONNECT the authority with its port alone (RFC 9113 section 8.5).
fn uri(head: &RequestHead) -> Result<Uri, EncodeError> {
    let own_host = head.headers.get(header::HOST);
    let is_tunnel = head.method == Method::CONNECT && head.upgrade().is_none();
    if own_host.is_none() && !is_tunnel {
        return Ok(head.target.uri().clone());
    }
    let authority = match own_host {
        Some(host) => Authority::try_from(host.as_bytes()),
        None => {
            let own_port = if head.target.is_https() { 443 } else { 80 };
            if head.target.port() == own_port {
                Authority::try_from(format!("{}:{own_port}", head.target.host_field()))
            } else {
                Authority::try_from(head.target.host_field())
            }
        }
    };
    let authority = authority.map_err(|_| EncodeError::Host)?;
    let mut parts = head.target.uri().clone().into_parts();
    parts.authority = Some(authority);
    if is_tunnel {
        parts.scheme = None;
        parts.path_and_query = None;
    }
    Uri::from_parts(parts).map_err(|_| EncodeError::Host)
}

/// What a response breaks although h2 lets it through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// A field value with blanks around it.
    OuterBlank,
    /// TE is for requests.
    Te,
    /// Content-Length is no number.
    ContentLength,
    /// There is no 101 in HTTP/2.
    SwitchingProtocols,
    TooManyInformational {
        limit: usize,
    },
    HeadTooLarge {
        limit: usize,
    },
    TooManyFields {
        limit: usize,
    },
    /// A 204 or 304 with content.
    Content,
    TrailerTooLarge {
        limit: usize,
    },
    TooManyTrailerFields {
        limit: usize,
    },
}

impl Breach {
    /// Whether it is a limit that was exceeded, and no rule that was broken (ruling 20).
    pub(super) fn is_size(self) -> bool {
        matches!(
            self,
            Self::TooManyInformational { .. }
                | Self::HeadTooLarge { .. }
                | Self::TooManyFields { .. }
                | Self::TrailerTooLarge { .. }
                | Self::TooManyTrailerFields { .. }
        )
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OuterBlank => {
                f.write_str("a field value begins or ends with a blank (RFC 9113 section 8.2.1)")
            }
            Self::ContentLength => {
                f.write_str("content-length is not a number (RFC 9110 section 8.6)")
            }
            Self::Te => f.write_str("the field te in a response (RFC 9113 section 8.2.2)"),
            Self::SwitchingProtocols => {
                f.write_str("status 101, which HTTP/2 does not have (RFC 9113 section 8.6)")
            }
            Self::TooManyInformational { limit } => write!(
                f,
                "more than {limit} interim responses (Limits::max_informational)"
            ),
            Self::HeadTooLarge { limit } => write!(
                f,
                "response head over the limit of {limit} bytes (Limits::max_head)"
            ),
            Self::TooManyFields { limit } => write!(
                f,
                "more than {limit} fields in the response head (Limits::max_head_fields)"
            ),
            Self::Content => {
                f.write_str("a response of status 204 or 304 with content (RFC 9110 section 6.4.1)")
            }
            Self::TrailerTooLarge { limit } => write!(
                f,
                "trailer section over the limit of {limit} bytes (Limits::max_trailer)"
            ),
            Self::TooManyTrailerFields { limit } => write!(
                f,
                "more than {limit} trailer fields (Limits::max_trailer_fields)"
            ),
        }
    }
}

impl std::error::Error for Breach {}

/// The heads of one exchange: what they have taken of their limits, and the last of them as it will be kept.
#[derive(Debug, Default)]
pub(super) struct Heads {
    bytes: usize,
    interim: usize,
    /// Names and values of the last head, in memory that is used again.
    text: Vec<u8>,
    /// Where in it they are.
    index: Vec<u8>,
    /// Whether there is a Content-Encoding.
    is_coded: bool,
}

impl Heads {
    /// Takes in an interim response.
    pub(super) fn interim(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
        limits: &Limits,
    ) -> Result<(), Breach> {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Breach::SwitchingProtocols);
        }
        self.interim += 1;
        if self.interim > limits.max_informational {
            let limit = limits.max_informational;
            return Err(Breach::TooManyInformational { limit });
        }
        self.admit(fields, limits).map(|_| ())
    }

    /// Takes in a head; answers the length of its content. Values of h2 would keep its buffers alive, so they are copied; of
    /// several equal Content-Length one (h2 refuses those that differ).
    pub(super) fn admit(
        &mut self,
        fields: &HeaderMap,
        limits: &Limits,
    ) -> Result<Option<u64>, Breach> {
        if fields.len() > limits.max_head_fields {
            let limit = limits.max_head_fields;
            return Err(Breach::TooManyFields { limit });
        }
        let Self { text, index, .. } = self;
        text.clear();
        index.clear();
        self.is_coded = false;
        let (mut length, mut at, mut dropped) = (None, 0_u32, 0);
        for (name, value) in fields {
            let (name_text, value) = (name.as_str().as_bytes(), value.as_bytes());
            check_value(value)?;
            match *name {
                header::TE => return Err(Breach::Te),
                header::CONTENT_ENCODING => self.is_coded = true,
                header::CONTENT_LENGTH => {
                    let said = number(value).ok_or(Breach::ContentLength)?;
                    if length.replace(said).is_some() {
                        dropped += name_text.len() + value.len();
                        continue;
                    }
                }
                _ => {}
            }
            text.extend_from_slice(name_text);
            text.extend_from_slice(value);
            // Limits::max_head is far below 4 GiB.
            let size = |part: &[u8]| u32::try_from(part.len()).unwrap_or_default();
            let (name_at, value_at) = (at, at + size(name_text));
            at = value_at + size(value);
            let entry = FieldAt {
                name: (name_at, value_at - name_at),
                value: (value_at, at - value_at),
            };
            index.extend_from_slice(&entry.to_bytes());
        }
        self.bytes += self.text.len() + dropped;
        if self.bytes > limits.max_head {
            let limit = limits.max_head;
            return Err(Breach::HeadTooLarge { limit });
        }
        // One too large for a number is none that anybody waits for.
        Ok(length.filter(|length| *length < u64::MAX))
    }

    /// The last head that was taken in, its index and `body` in one allocation (design D16).
    pub(super) fn keep(&self, status: StatusCode, body: &[u8]) -> ResponseHead {
        let Self { text, index, .. } = self;
        let (index_at, body_at) = (text.len(), text.len() + index.len());
        let mut message = Vec::with_capacity(body_at + body.len());
        message.extend_from_slice(text);
        message.extend_from_slice(index);
        message.extend_from_slice(body);
        ResponseHead::new(status, Version::HTTP_2, message.into(), index_at, body_at)
            .coded(self.is_coded)
    }

    pub(super) fn has_interim(&self) -> bool {
        self.interim > 0
    }

    /// For the next exchange: only memory stays, and of that what most heads need.
    pub(super) fn reuse(mut self) -> Self {
        if self.text.capacity() > MOST_TEXT_KEPT {
            self.text = Vec::new();
        }
        Self {
            text: self.text,
            index: self.index,
            ..Self::default()
        }
    }
}

/// A number of digits alone; the largest of all stands for those that are larger.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    });
    digits.filter(|_| !text.is_empty())
}

fn check_value(value: &[u8]) -> Result<(), Breach> {
    match value {
        [b' ' | b'\t', ..] | [.., b' ' | b'\t'] => Err(Breach::OuterBlank),
        _ => Ok(()),
    }
}

/// Bytes of memory for the text of a head that an exchange leaves to the next.
const MOST_TEXT_KEPT: usize = 2 * 1024;

/// The trailers that may be shown (ruling 13), within their limits.
pub(super) fn trailers(
    mut fields: HeaderMap,
    limits: &Limits,
) -> Result<Option<Box<HeaderMap>>, Breach> {
    if fields.len() > limits.max_trailer_fields {
        let limit = limits.max_trailer_fields;
        return Err(Breach::TooManyTrailerFields { limit });
    }
    let mut bytes = 0;
    let mut dropped = Vec::new();
    for (name, value) in &fields {
        check_value(value.as_bytes())?;
        bytes += name.as_str().len() + value.len();
        if is_dropped_trailer(name) {
            dropped.push(name.clone());
        }
    }
    if bytes > limits.max_trailer {
        let limit = limits.max_trailer;
        return Err(Breach::TrailerTooLarge { limit });
    }
    for name in dropped {
        fields.remove(name);
    }
    Ok((!fields.is_empty()).then(|| Box::new(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Asks;
    use crate::url::UrlInput;
    use http::HeaderName;
    use std::sync::Arc;

    fn head(method: Method, url: &str, fields: &[(&str, &str)]) -> RequestHead {
        let parsed = UrlInput::Text(url.to_owned().into()).parse(None).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        RequestHead {
            method,
            target: parsed.target,
            headers,
            asks: None,
        }
    }

    fn defaults() -> DefaultFields {
        let mut fields = HeaderMap::new();
        fields.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        fields.insert(header::USER_AGENT, HeaderValue::from_static("sockeye"));
        DefaultFields::new(&fields)
    }

    fn encoded(head: &RequestHead, body: BodyLength) -> String {
        let encoded = encode(head, &defaults(), body).unwrap();
        let mut fields: Vec<_> = encoded
            .request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        fields.sort();
        let request = &encoded.request;
        format!(
            "{} {} {}",
            request.method(),
            request.uri(),
            fields.join(", ")
        )
    }

    #[test]
    fn what_concerns_a_connection_is_left_out() {
        let fields = [
            ("connection", "close, te"),
            ("te", "trailers"),
            ("accept", " text/html\t"),
            ("x-a", "1"),
            ("x-a", "2"),
        ];
        assert_eq!(
            encoded(
                &head(Method::GET, "https://a.test/x?y", &fields),
                BodyLength::None
            ),
            "GET https://a.test/x?y accept: text/html, te: trailers, user-agent: sockeye, x-a: 1, x-a: 2"
        );
    }

    #[test]
    fn the_length_is_said_as_in_http1() {
        let length = |method, body| encoded(&head(method, "http://a.test/", &[]), body);
        let fields = "accept: */*, user-agent: sockeye";
        assert_eq!(
            length(Method::POST, BodyLength::None),
            "POST http://a.test/ accept: */*, content-length: 0, user-agent: sockeye"
        );
        assert_eq!(
            length(Method::PUT, BodyLength::Known(7)),
            "PUT http://a.test/ accept: */*, content-length: 7, user-agent: sockeye"
        );
        assert_eq!(
            length(Method::PUT, BodyLength::Unknown),
            format!("PUT http://a.test/ {fields}")
        );
        assert_eq!(
            length(Method::GET, BodyLength::None),
            format!("GET http://a.test/ {fields}")
        );
    }

    /// RFC 9113 section 8.3.1.
    #[test]
    fn a_host_of_the_users_is_the_authority() {
        let fields = [("host", "other.test:8080")];
        assert_eq!(
            encoded(
                &head(Method::GET, "https://a.test/x", &fields),
                BodyLength::None
            ),
            "GET https://other.test:8080/x accept: */*, user-agent: sockeye"
        );
    }

    /// RFC 9113 section 8.5 and RFC 8441 section 4.
    #[test]
    fn a_tunnel_is_its_authority_and_another_protocol_is_named() {
        let tunnel = head(Method::CONNECT, "https://a.test/", &[]);
        assert_eq!(
            encoded(&tunnel, BodyLength::None),
            "CONNECT a.test:443 accept: */*, user-agent: sockeye"
        );
        let mut other = head(Method::GET, "https://a.test/chat", &[]);
        let asks = |protocols: &'static str| {
            Some(Arc::new(Asks {
                upgrade: Some(HeaderValue::from_static(protocols)),
                ..Asks::default()
            }))
        };
        other.asks = asks("websocket");
        let encoded = encode(&other, &defaults(), BodyLength::None).unwrap();
        assert!(encoded.switches);
        assert_eq!(encoded.request.method(), Method::CONNECT);
        assert_eq!(encoded.request.uri(), "https://a.test/chat");
        let protocol = encoded.request.extensions().get::<Protocol>().unwrap();
        assert_eq!(protocol.as_str(), "websocket");
        // The stream is the other protocol's from the first byte: a body has no place on it.
        assert!(encode(&other, &defaults(), BodyLength::Known(1)).is_err());
        // Only one can be named.
        other.asks = asks("websocket, other");
        assert!(encode(&other, &defaults(), BodyLength::None).is_err());
    }

    #[test]
    fn secrets_never_enter_a_compression_table() {
        let fields = [("authorization", "Bearer x"), ("cookie", "a=b"), ("x", "y")];
        let head = head(Method::GET, "https://a.test/", &fields);
        let encoded = encode(&head, &defaults(), BodyLength::None).unwrap();
        for (name, sensitive) in [("authorization", true), ("cookie", true), ("x", false)] {
            let value = encoded.request.headers().get(name).unwrap();
            assert_eq!(value.is_sensitive(), sensitive, "{name}");
        }
    }

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    /// spec http2 rule 10.
    #[test]
    fn what_h2_lets_through_is_refused() {
        let limits = Limits::default().with_max_head(100).with_max_head_fields(3);
        let long = "x".repeat(100);
        for (fields, expected) in [
            (map(&[("a", "b c"), ("a", "d")]), Ok(None)),
            (map(&[("content-length", "7")]), Ok(Some(7))),
            (map(&[("a", " b")]), Err(Breach::OuterBlank)),
            (map(&[("a", "b\t")]), Err(Breach::OuterBlank)),
            (map(&[("te", "trailers")]), Err(Breach::Te)),
            (map(&[("content-length", "")]), Err(Breach::ContentLength)),
            (
                map(&[("a", &long)]),
                Err(Breach::HeadTooLarge { limit: 100 }),
            ),
            (
                map(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]),
                Err(Breach::TooManyFields { limit: 3 }),
            ),
        ] {
            let length = Heads::default().admit(&fields, &limits);
            assert_eq!(length, expected, "{fields:?}");
        }
    }

    #[test]
    fn a_length_is_digits_and_fits() {
        for (text, expected) in [
            ("", None),
            ("7x", None),
            ("+7", None),
            ("007", Some(7)),
            ("18446744073709551614", Some(u64::MAX - 1)),
            ("18446744073709551616", Some(u64::MAX)),
        ] {
            assert_eq!(number(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn interim_heads_count_against_the_limit_of_the_head() {
        let limits = Limits::default()
            .with_max_head(100)
            .with_max_informational(2);
        let mut heads = Heads::default();
        let forty = "x".repeat(40);
        let fields = map(&[("link", &forty)]);
        let early = StatusCode::EARLY_HINTS;
        assert_eq!(heads.interim(early, &fields, &limits), Ok(()));
        assert_eq!(heads.interim(early, &fields, &limits), Ok(()));
        assert_eq!(heads.keep(early, b"").first("link"), Some(forty.as_bytes()));
        let limit = Breach::HeadTooLarge { limit: 100 };
        assert_eq!(heads.admit(&map(&[("a", &forty)]), &limits), Err(limit));
        let mut heads = heads.reuse();
        assert!(!heads.has_interim());
        let none = HeaderMap::new();
        let switching = StatusCode::SWITCHING_PROTOCOLS;
        assert_eq!(
            heads.interim(switching, &none, &limits),
            Err(Breach::SwitchingProtocols)
        );
        assert!(heads.interim(early, &none, &limits).is_ok());
        assert!(heads.interim(early, &none, &limits).is_ok());
        assert_eq!(heads.keep(early, b"").fields().count(), 0);
        assert_eq!(
            heads.interim(early, &none, &limits),
            Err(Breach::TooManyInformational { limit: 2 })
        );
    }

    #[test]
    fn head_and_body_are_kept_in_one_piece() {
        let fields = map(&[
            ("content-length", "4"),
            ("content-length", "4"),
            ("a", "1"),
            ("b", ""),
            ("a", "2"),
        ]);
        let mut heads = Heads::default();
        let length = heads.admit(&fields, &Limits::default());
        assert_eq!(length, Ok(Some(4)));
        let head = heads.keep(StatusCode::OK, b"body");
        assert!(!head.may_be_coded());
        assert_eq!(head.first("Content-Length"), Some(&b"4"[..]));
        assert_eq!(head.first("b"), Some(&b""[..]));
        let kept = head.to_map();
        assert_eq!(
            kept.len(),
            4,
            "of equal lengths one is kept (spec http2 C14)"
        );
        let values: Vec<_> = kept.get_all("a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!(head.into_kept_body(), "body");
        let coded = heads.admit(&map(&[("content-encoding", "gzip")]), &Limits::default());
        assert_eq!(coded, Ok(None));
        let head = heads.keep(StatusCode::OK, b"");
        assert!(head.may_be_coded());
        assert_eq!(head.fields().count(), 1, "of the last head alone");
    }

    /// Ruling 13.
    #[test]
    fn trailers_are_held_to_their_limits_and_dangerous_ones_dropped() {
        let limits = Limits::default()
            .with_max_trailer(20)
            .with_max_trailer_fields(2);
        let kept = trailers(map(&[("x", "1"), ("content-length", "9")]), &limits);
        assert_eq!(kept.unwrap().unwrap().len(), 1);
        assert_eq!(trailers(map(&[("host", "a")]), &limits), Ok(None));
        let many = map(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let limit = Breach::TooManyTrailerFields { limit: 2 };
        assert_eq!(trailers(many, &limits), Err(limit));
        let long = map(&[("a", "xxxxxxxxxxxxxxxxxxxxxxxx")]);
        let limit = Breach::TrailerTooLarge { limit: 20 };
        assert_eq!(trailers(long, &limits), Err(limit));
    }
}
