//! Encodes a request head and frames its body (RFC 9112 sections 3 to 7, spec http1 a6). Header injection stops here.
//!
//! Everything is checked at the moment of writing, on every path, and nothing is written if anything is wrong. The length of
//! the body is decided in one place together with the encoder that enforces it, so that no body byte can go out unframed.
//! Called by `connection/http1.rs`; `connection/http2` asks for the same checks.

use std::fmt;
use std::net::Ipv6Addr;

use bytes::{BufMut, BytesMut};
use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use memchr::{memchr, memchr3};

use super::framing::{MethodKind, trim};
use crate::head::{DefaultFields, Forwarding, RequestHead};
use crate::url::Origin;

/// What is known of the length of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// There is no body.
    None,
    /// So many bytes.
    Known(u64),
    /// A stream that ends when it ends.
    Unknown,
}

/// What of a written head matters later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EncodedHead {
    pub(crate) method: MethodKind,
    /// The request has `Connection: close`.
    pub(crate) close: bool,
    /// The request has `Expect: 100-continue`.
    pub(crate) expects_continue: bool,
    pub(crate) body: BodyEncoder,
}

/// Frames the bytes of a request body, and holds them to what the head said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyEncoder {
    /// So many bytes are still owed.
    Length(u64),
    /// Each piece is a chunk.
    Chunked,
}

/// Why a request cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EncodeError {
    MethodTooLong {
        len: usize,
    },
    ConnectWithBody,
    ConnectWithPath,
    TraceWithBody,
    Upgrade,
    Expect,
    TrailerField {
        name: HeaderName,
    },
    RequestLine,
    FieldValue {
        name: HeaderName,
    },
    TwoHosts,
    Host,
    ContentLength,
    ContentLengthDiffers {
        field: u64,
        body: u64,
    },
    Refused {
        name: HeaderName,
        instead: &'static str,
    },
    ConnectionToken,
    BodyTooLong {
        length: u64,
    },
    BodyTooShort {
        missing: u64,
    },
}

/// Writes the head to the end of `out`; on an error `out` is as before. With `forwarding` it is for a proxy that forwards it.
pub(crate) fn encode(
    out: &mut BytesMut,
    head: &RequestHead,
    defaults: &DefaultFields,
    body: BodyLength,
    forwarding: Option<&Forwarding>,
) -> Result<EncodedHead, EncodeError> {
    let start = out.len();
    let encoded = encode_onto(out, head, defaults, body, forwarding);
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

fn encode_onto(
    out: &mut BytesMut,
    head: &RequestHead,
    defaults: &DefaultFields,
    body: BodyLength,
    forwarding: Option<&Forwarding>,
) -> Result<EncodedHead, EncodeError> {
    let own = check(head, body)?;
    request_line(out, head, forwarding)?;
    host(out, head)?;
    if let Some(forwarding) = forwarding {
        for_the_proxy(out, head, forwarding)?;
    }
    if head.headers.is_empty() {
        out.put_slice(defaults.lines());
    } else {
        for lines in defaults.lines_beside(&head.headers) {
            out.put_slice(lines);
        }
        for (name, value) in &head.headers {
            if is_written_as_is(name, body) {
                field(out, name, value)?;
            }
        }
    }
    let mut expects_continue = own.expects_continue && body != BodyLength::None;
    if head.expects_continue() && body != BodyLength::None && !expects_continue {
        out.put_slice(b"expect: 100-continue\r\n");
        expects_continue = true;
    }
    if let Some(protocols) = head.upgrade() {
        out.put_slice(b"connection: upgrade\r\n");
        field(out, &header::UPGRADE, protocols)?;
    }
    let body = own.frame(out, &head.method, body)?;
    out.put_slice(b"\r\n");
    Ok(EncodedHead {
        method: method_kind(head),
        close: own.close,
        expects_continue,
        body,
    })
}

fn method_kind(head: &RequestHead) -> MethodKind {
    if head.method == Method::HEAD {
        MethodKind::Head
    } else if head.method == Method::CONNECT {
        MethodKind::Connect
    } else if head.upgrade().is_some() {
        MethodKind::Upgrade
    } else {
        MethodKind::Other
    }
}

/// Whether the request can be sent, found out before a connection is used. `encode` asks again: what is written is checked
/// when it is written.
pub(crate) fn check(head: &RequestHead, body: BodyLength) -> Result<OwnFields, EncodeError> {
    let method = head.method.as_str();
    if method.len() > MAX_METHOD {
        return Err(EncodeError::MethodTooLong { len: method.len() });
    }
    if head.method == Method::CONNECT {
        check_connect(head, body)?;
    }
    if head
        .upgrade()
        .is_some_and(|protocols| !is_protocols(protocols))
    {
        return Err(EncodeError::Upgrade);
    }
    if head.method == Method::TRACE && body != BodyLength::None {
        return Err(EncodeError::TraceWithBody);
    }
    let mut own = OwnFields::default();
    for (name, value) in &head.headers {
        own.admit(name, value)?;
    }
    own.length(&head.method, body)?;
    Ok(own)
}

/// CONNECT has no content, and its target is an authority and nothing else (RFC 9110 section 9.3.6).
fn check_connect(head: &RequestHead, body: BodyLength) -> Result<(), EncodeError> {
    if body != BodyLength::None {
        return Err(EncodeError::ConnectWithBody);
    }
    if head.target.path_and_query() != "/" {
        return Err(EncodeError::ConnectWithPath);
    }
    if head.headers.contains_key(header::HOST) {
        return Err(refused(&header::HOST, "that of CONNECT is its target"));
    }
    Ok(())
}

/// 1#( token [ "/" token ] ), RFC 9110 section 7.8.
fn is_protocols(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .all(|protocol| {
            let mut parts = trim(protocol).splitn(2, |byte| *byte == b'/');
            parts.all(|part| Method::from_bytes(part).is_ok())
        })
}

/// Asks a proxy for a tunnel to an origin, with fields for the proxy (RFC 9110 section 9.3.6). On an error `out` is as before.
pub(crate) fn encode_tunnel<'a>(
    out: &mut BytesMut,
    origin: &Origin,
    fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
) -> Result<(), EncodeError> {
    let start = out.len();
    let encode = || {
        let host = origin.host();
        if !is_graphic(host.as_bytes()) {
            return Err(EncodeError::Host);
        }
        let authority = match host.contains(':') {
            true => format!("[{host}]:{}", origin.port()),
            false => format!("{host}:{}", origin.port()),
        };
        for part in [
            "CONNECT ",
            &authority,
            " HTTP/1.1\r\nhost: ",
            &authority,
            "\r\n",
        ] {
            out.put_slice(part.as_bytes());
        }
        for (name, value) in fields {
            field(out, name, value)?;
        }
        out.put_slice(b"\r\n");
        Ok(())
    };
    let encoded = encode();
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

/// Whether a field may stand beside CONNECT: none that is about framing or the connection.
pub(crate) fn may_go_to_a_proxy(name: &HeaderName) -> bool {
    !matches!(
        name.as_str(),
        "host"
            | "connection"
            | "content-length"
            | "expect"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What a proxy is told with a request that it forwards. It takes the host from the URL and throws the field away (RFC 9112
/// section 3.2.2), so that another one would be lost without a word.
fn for_the_proxy(
    out: &mut BytesMut,
    head: &RequestHead,
    forwarding: &Forwarding,
) -> Result<(), EncodeError> {
    let own = head.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let authority = head.target.host_field().as_bytes();
    if own.is_some_and(|own| !own.eq_ignore_ascii_case(authority)) {
        return Err(refused(
            &header::HOST,
            "the proxy that forwards the request takes the host from the URL",
        ));
    }
    match &forwarding.authorization {
        Some(value) => field(out, &header::PROXY_AUTHORIZATION, value),
        None => Ok(()),
    }
}

/// The target: its authority with the port for CONNECT, the URL for a proxy, else in origin form.
fn request_line(
    out: &mut BytesMut,
    head: &RequestHead,
    forwarding: Option<&Forwarding>,
) -> Result<(), EncodeError> {
    if head.method == Method::CONNECT {
        out.put_slice(b"CONNECT ");
        authority(out, head)?;
        out.put_slice(b" HTTP/1.1\r\n");
        return Ok(());
    }
    let method = head.method.as_str().as_bytes();
    let target = head.target.path_and_query().as_bytes();
    // The types and the parser of URLs promise this already. It is looked at once more because it is the last place where
    // it can be: what a space or a line end makes of a target is a second request.
    if !is_graphic(target) || target.first() != Some(&b'/') {
        return Err(EncodeError::RequestLine);
    }
    out.reserve(method.len() + target.len() + 256);
    out.put_slice(method);
    out.put_slice(b" ");
    if forwarding.is_some() {
        absolute(out, head)?;
    }
    out.put_slice(target);
    out.put_slice(b" HTTP/1.1\r\n");
    Ok(())
}

/// What makes an absolute form of an origin form (RFC 9112 section 3.2.2).
fn absolute(out: &mut BytesMut, head: &RequestHead) -> Result<(), EncodeError> {
    let authority = head.target.host_field().as_bytes();
    // Only requests without TLS are forwarded; for others there are tunnels.
    if head.target.is_https() || !is_graphic(authority) {
        return Err(EncodeError::RequestLine);
    }
    out.put_slice(b"http://");
    out.put_slice(authority);
    Ok(())
}

/// Host and port, the latter even where it is the scheme's own (RFC 9112 section 3.2.3).
fn authority(out: &mut BytesMut, head: &RequestHead) -> Result<(), EncodeError> {
    let host = head.target.host_field().as_bytes();
    if !is_graphic(host) {
        return Err(EncodeError::Host);
    }
    out.put_slice(host);
    let own_port = if head.target.is_https() { 443 } else { 80 };
    if head.target.port() == own_port {
        out.put_slice(b":");
        decimal(out, own_port.into());
    }
    Ok(())
}

/// Exactly one Host, first (RFC 9112 section 3.2): from the URL, or the user's own, which was checked. That of CONNECT is its
/// target.
fn host(out: &mut BytesMut, head: &RequestHead) -> Result<(), EncodeError> {
    if head.method == Method::CONNECT {
        out.put_slice(b"host: ");
        authority(out, head)?;
        out.put_slice(b"\r\n");
        return Ok(());
    }
    let host = match head.headers.get(header::HOST) {
        Some(own) => own.as_bytes(),
        None => head.target.host_field().as_bytes(),
    };
    if !is_graphic(host) {
        return Err(EncodeError::Host);
    }
    out.put_slice(b"host: ");
    out.put_slice(host);
    out.put_slice(b"\r\n");
    Ok(())
}

/// Visible ASCII and nothing else.
fn is_graphic(bytes: &[u8]) -> bool {
    // Bytes below 0x21 borrow from their highest bit, those above 0x7e carry into it, and others have it already.
    let odd = |word: u64| word.wrapping_sub(ONES * 0x21) | word.wrapping_add(ONES) | word;
    no_high_bit(bytes, odd) && bytes.iter().rev().take(7).all(u8::is_ascii_graphic)
}

/// Whether no byte ends a line or is NUL.
fn is_one_line(bytes: &[u8]) -> bool {
    // Most values hold no control character at all, which is found out with less than a search for three of them.
    let low = |word: u64| word.wrapping_sub(ONES * 0x20) & !word;
    let plain = no_high_bit(bytes, low) && bytes.iter().rev().take(7).all(|byte| *byte >= 0x20);
    plain || memchr3(b'\r', b'\n', 0, bytes).is_none()
}

/// Looks at all bytes but the last seven at most, eight at a time, because it runs for every request: `odd` is to set the
/// highest bit of each byte that is not wanted.
fn no_high_bit(bytes: &[u8], odd: impl Fn(u64) -> u64) -> bool {
    bytes.chunks_exact(8).fold(true, |all, word| {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        all & (odd(word) & (ONES << 7) == 0)
    })
}

/// One in each byte.
const ONES: u64 = u64::MAX / 255;

/// Host stands first already, and what concerns framing is written by [`OwnFields::frame`]. Without a body there is nothing
/// to expect anything for.
fn is_written_as_is(name: &HeaderName, body: BodyLength) -> bool {
    match *name {
        header::HOST | header::CONTENT_LENGTH => false,
        header::EXPECT => body != BodyLength::None,
        _ => true,
    }
}

/// uri-host [ ":" port ] (RFC 9110 section 7.2), where a host is not empty and a port is a number below 65,536.
fn is_host(value: &[u8]) -> bool {
    let (is_host, port) = match value {
        [b'[', rest @ ..] => {
            let end = memchr(b']', rest).unwrap_or(rest.len());
            let (address, behind) = rest.split_at_checked(end).unwrap_or((rest, b""));
            (is_ipv6(address), behind.get(1..))
        }
        _ => {
            let end = memchr(b':', value).unwrap_or(value.len());
            let (name, port) = value.split_at_checked(end).unwrap_or((value, b""));
            (is_registered_name(name), Some(port))
        }
    };
    is_host
        && match port {
            Some([]) => true,
            Some([b':', digits @ ..]) => is_port(digits),
            _ => false,
        }
}

fn is_ipv6(address: &[u8]) -> bool {
    let text = std::str::from_utf8(address).unwrap_or_default();
    text.parse::<Ipv6Addr>().is_ok()
}

/// 1*( unreserved / pct-encoded / sub-delims ), RFC 3986 section 3.2.2; IPv4 addresses look no different.
fn is_registered_name(name: &[u8]) -> bool {
    let mut parts = name.split(|byte| *byte == b'%');
    let plain = |part: &[u8]| {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte);
        part.iter().all(allowed)
    };
    let encoded = |part: &[u8]| {
        let digits = part.get(..2).unwrap_or_default();
        digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit) && plain(part)
    };
    !name.is_empty() && parts.next().is_some_and(plain) && parts.all(encoded)
}

fn is_port(digits: &[u8]) -> bool {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    digits.iter().all(u8::is_ascii_digit) && text.parse::<u16>().is_ok()
}

fn field(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) -> Result<(), EncodeError> {
    let bytes = value_to_send(name, value)?;
    out.reserve(name.as_str().len() + bytes.len() + 4);
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
    Ok(())
}

/// The value as it may be sent, without blanks around it.
pub(crate) fn value_to_send<'a>(
    name: &HeaderName,
    value: &'a HeaderValue,
) -> Result<&'a [u8], EncodeError> {
    let bytes = trim(value.as_bytes());
    // The types promise this already. It is looked at once more because it is the last place where it can be.
    if !is_one_line(bytes) {
        return Err(EncodeError::FieldValue { name: name.clone() });
    }
    Ok(bytes)
}

/// What the user's own fields say about the connection and the body.
#[derive(Debug, Default)]
pub(crate) struct OwnFields {
    host: bool,
    close: bool,
    pub(crate) expects_continue: bool,
    te: bool,
    /// Connection names TE.
    connection_te: bool,
    length: Option<u64>,
}

impl OwnFields {
    /// Takes in one field, or says why it cannot be sent.
    fn admit(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), EncodeError> {
        match name.as_str() {
            "host" if std::mem::replace(&mut self.host, true) => return Err(EncodeError::TwoHosts),
            "host" if !is_host(value.as_bytes()) => return Err(EncodeError::Host),
            "content-length" => {
                let number = content_length(value).ok_or(EncodeError::ContentLength)?;
                if self.length.replace(number).is_some() {
                    return Err(EncodeError::ContentLength);
                }
            }
            "connection" => {
                for token in value.as_bytes().split(|byte| *byte == b',') {
                    let token = trim(token);
                    if token.eq_ignore_ascii_case(b"upgrade")
                        || HeaderName::from_bytes(token).is_err()
                    {
                        return Err(EncodeError::ConnectionToken);
                    }
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.connection_te |= token.eq_ignore_ascii_case(b"te");
                }
            }
            "te" if value.as_bytes().eq_ignore_ascii_case(b"trailers") => self.te = true,
            "te" => {
                return Err(refused(name, "only \"trailers\" is allowed"));
            }
            "transfer-encoding" => return Err(refused(name, "the body decides it")),
            "upgrade" => return Err(refused(name, "RequestBuilder::upgrade sets it")),
            // The only expectation there is; a server must refuse any other.
            "expect" if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                self.expects_continue = true;
            }
            "expect" => return Err(EncodeError::Expect),
            "keep-alive" | "proxy-connection" => {
                return Err(refused(name, "the pool keeps connections alive"));
            }
            "proxy-authorization" => {
                return Err(refused(
                    name,
                    "it belongs to the hop to a proxy (Proxy::basic_auth, Proxy::header)",
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// The length that the head says; `None` says none.
    pub(crate) fn length(
        &self,
        method: &Method,
        body: BodyLength,
    ) -> Result<Option<u64>, EncodeError> {
        match (body, self.length) {
            (BodyLength::Known(body), Some(field)) if body != field => {
                Err(EncodeError::ContentLengthDiffers { field, body })
            }
            (BodyLength::None, Some(field)) if field != 0 => {
                Err(EncodeError::ContentLengthDiffers { field, body: 0 })
            }
            (BodyLength::Known(length), _) | (BodyLength::Unknown, Some(length)) => {
                Ok(Some(length))
            }
            // These methods are expected to have content: its absence is said, too (RFC 9110 section 8.6).
            (BodyLength::None, None)
                if matches!(*method, Method::POST | Method::PUT | Method::PATCH) =>
            {
                Ok(Some(0))
            }
            (BodyLength::None, field) => Ok(field),
            (BodyLength::Unknown, None) => Ok(None),
        }
    }

    /// Writes the framing fields and answers the encoder that keeps to them.
    fn frame(
        &self,
        out: &mut BytesMut,
        method: &Method,
        body: BodyLength,
    ) -> Result<BodyEncoder, EncodeError> {
        if self.te && !self.connection_te {
            // TE is for this connection only, and says so (RFC 9110 section 10.1.4).
            out.put_slice(b"connection: te\r\n");
        }
        match self.length(method, body)? {
            Some(length) => {
                out.put_slice(b"content-length: ");
                decimal(out, length);
                out.put_slice(b"\r\n");
                Ok(BodyEncoder::Length(length))
            }
            None if body == BodyLength::Unknown => {
                out.put_slice(b"transfer-encoding: chunked\r\n");
                Ok(BodyEncoder::Chunked)
            }
            None => Ok(BodyEncoder::Length(0)),
        }
    }
}

impl BodyEncoder {
    /// Takes note of `len` bytes of data, not zero, and writes what must stand before them. What must stand behind them is
    /// [`suffix`](Self::suffix).
    pub(crate) fn begin_data(&mut self, len: u64, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::Length(left) => {
                *left = left
                    .checked_sub(len)
                    .ok_or(EncodeError::BodyTooLong { length: *left })?;
            }
            // A size line of zero would end the body; the caller skips empty frames.
            Self::Chunked if len == 0 => {}
            Self::Chunked => {
                hexadecimal(out, len);
                out.put_slice(b"\r\n");
            }
        }
        Ok(())
    }

    /// What follows the data of one frame.
    pub(crate) fn suffix(&self) -> &'static [u8] {
        match self {
            Self::Length(_) => b"",
            Self::Chunked => b"\r\n",
        }
    }

    /// Ends the body, or says what is still owed. A body of known length has no place for trailers: there they are left out,
    /// as anybody on the way may do with them (RFC 9110 section 6.5.1).
    pub(crate) fn finish(
        &self,
        trailers: Option<&HeaderMap>,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        match self {
            Self::Length(0) => Ok(()),
            Self::Length(missing) => Err(EncodeError::BodyTooShort { missing: *missing }),
            Self::Chunked => {
                out.put_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    check_trailer(name)?;
                    field(out, name, value)?;
                }
                out.put_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

/// Whether a field may be sent behind the body.
pub(crate) fn check_trailer(name: &HeaderName) -> Result<(), EncodeError> {
    if may_be_a_trailer(name) {
        Ok(())
    } else {
        Err(EncodeError::TrailerField { name: name.clone() })
    }
}

/// Fields of framing, routing, authentication and of the content itself are no trailers (RFC 9110 section 6.5.1).
fn may_be_a_trailer(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is_control = matches!(
        name,
        "host"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "authorization"
            | "proxy-authorization"
            | "cookie"
            | "expect"
            | "max-forwards"
            | "range"
            | "cache-control"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "content-range"
            | "content-location"
    );
    !is_control && !name.starts_with("if-")
}

fn refused(name: &HeaderName, instead: &'static str) -> EncodeError {
    EncodeError::Refused {
        name: name.clone(),
        instead,
    }
}

fn content_length(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Writes a number without going through the formatter.
fn decimal(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    out.put_slice(digits.get(20 - used..).unwrap_or_default());
}

fn hexadecimal(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0_u8; 16];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        let digit = (number & 15) as u8;
        *slot = if digit < 10 {
            b'0' + digit
        } else {
            b'a' + digit - 10
        };
        number >>= 4;
        used += 1;
        if number == 0 {
            break;
        }
    }
    out.put_slice(digits.get(16 - used..).unwrap_or_default());
}

/// No registered method comes near; more is a mistake.
const MAX_METHOD: usize = 64;

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MethodTooLong { len } => write!(f, "the method has {len} bytes, the limit is {MAX_METHOD}"),
            Self::ConnectWithBody => f.write_str("CONNECT must not have a body"),
            Self::ConnectWithPath => f.write_str("the URL of CONNECT is a host and a port, without path or query"),
            Self::Upgrade => f.write_str("upgrade: not a list of protocols"),
            Self::Expect => f.write_str("expect: 100-continue is the only expectation there is"),
            Self::TrailerField { name } => write!(f, "{name} may not be sent as a trailer"),
            Self::TraceWithBody => f.write_str("TRACE must not have a body"),
            Self::RequestLine => f.write_str("the method or the target holds a character that is not allowed in a request line"),
            Self::FieldValue { name } => write!(f, "the value of {name} holds CR, LF or NUL"),
            Self::TwoHosts => f.write_str("host is set twice"),
            Self::Host => f.write_str("the host field is not a host with an optional port"),
            Self::ContentLength => f.write_str("content-length is not one number"),
            Self::ContentLengthDiffers { field, body } => {
                write!(f, "content-length says {field} but the body has {body} bytes")
            }
            Self::Refused { name, instead } => write!(f, "{name} cannot be set: {instead}"),
            Self::ConnectionToken => {
                f.write_str("connection holds a token that is not allowed (\"close\" and names of own fields are)")
            }
            Self::BodyTooLong { length } => {
                write!(f, "the body has more bytes than its length says; {length} were left")
            }
            Self::BodyTooShort { missing } => write!(f, "the body ended {missing} bytes before its length"),
        }
    }
}

impl std::error::Error for EncodeError {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::head::Asks;
    use crate::url::UrlInput;
    use http::HeaderMap;

    fn head(method: &str, url: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        RequestHead {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            target: UrlInput::Text(url.into()).parse(None).unwrap().target,
            headers,
            asks: None,
        }
    }

    fn run(head: &RequestHead, body: BodyLength) -> Result<(String, EncodedHead), EncodeError> {
        let mut out = BytesMut::from("before");
        let mut fields = HeaderMap::new();
        fields.insert("accept", HeaderValue::from_static("*/*"));
        let encoded = encode(&mut out, head, &DefaultFields::new(&fields), body, None);
        if encoded.is_err() {
            assert_eq!(out, "before", "an error writes nothing");
        }
        encoded.map(|encoded| (String::from_utf8(out[6..].to_vec()).unwrap(), encoded))
    }

    fn check(method: &str, url: &str, fields: &[(&str, &str)], body: BodyLength, expected: &str) {
        let (text, _) = run(&head(method, url, fields), body).unwrap();
        assert_eq!(text, expected);
        // What we write, a parser must read as exactly one head.
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut headers);
        assert_eq!(
            parsed.parse(text.as_bytes()),
            Ok(httparse::Status::Complete(text.len()))
        );
        assert_eq!(parsed.method, Some(method));
    }

    fn refuse(method: &str, fields: &[(&str, &str)], body: BodyLength, expected: &str) {
        let error = run(&head(method, "http://a.test/", fields), body).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    /// RFC 9112 section 3.2.3: the port stands even where it is the scheme's own.
    #[test]
    fn connect_names_an_authority() {
        for (url, authority) in [
            ("http://a.test", "a.test:80"),
            ("http://a.test:8080/", "a.test:8080"),
            ("https://a.test", "a.test:443"),
            ("http://a.test:443", "a.test:443"),
            ("http://[::1]", "[::1]:80"),
        ] {
            let expected =
                format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\naccept: */*\r\n\r\n");
            check("CONNECT", url, &[], BodyLength::None, &expected);
        }
        let error = run(
            &head("CONNECT", "http://a.test", &[("host", "b.test")]),
            BodyLength::None,
        );
        assert!(error.unwrap_err().to_string().contains("its target"));
        for url in ["http://a.test/path", "http://a.test/?query"] {
            let error = run(&head("CONNECT", url, &[]), BodyLength::None).unwrap_err();
            assert_eq!(error, EncodeError::ConnectWithPath, "{url}");
        }
    }

    /// RFC 9112 section 3.2.2, and the credentials of the proxy behind Host.
    #[test]
    fn what_a_proxy_forwards_names_the_whole_url() {
        let forward = |url: &str, fields: &[(&str, &str)], authorization: Option<&'static str>| {
            let forwarding = Forwarding {
                authorization: authorization.map(HeaderValue::from_static),
            };
            let mut out = BytesMut::from("before");
            let head = head("GET", url, fields);
            let defaults = DefaultFields::default();
            let encoded = encode(
                &mut out,
                &head,
                &defaults,
                BodyLength::None,
                Some(&forwarding),
            );
            if encoded.is_err() {
                assert_eq!(out, "before", "an error writes nothing");
            }
            encoded.map(|_| String::from_utf8(out[6..].to_vec()).unwrap())
        };
        let absolute = "GET http://a.test:81/x?y HTTP/1.1\r\nhost: a.test:81\r\n";
        let plain = forward("http://a.test:81/x?y", &[], None).unwrap();
        assert_eq!(plain, format!("{absolute}\r\n"));
        let known = forward("http://a.test:81/x?y", &[], Some("Basic x")).unwrap();
        assert_eq!(
            known,
            format!("{absolute}proxy-authorization: Basic x\r\n\r\n")
        );
        assert!(forward("http://a.test/", &[("host", "A.Test")], None).is_ok());
        let error = forward("http://a.test/", &[("host", "b.test")], None).unwrap_err();
        assert!(error.to_string().contains("the proxy"), "{error}");
        // What belongs into a tunnel is never forwarded.
        let error = forward("https://a.test/", &[], None).unwrap_err();
        assert_eq!(error, EncodeError::RequestLine);
    }

    #[test]
    fn a_tunnel_is_asked_for_by_authority() {
        let fields = [
            (
                header::PROXY_AUTHORIZATION,
                HeaderValue::from_static("Basic x"),
            ),
            (header::USER_AGENT, HeaderValue::from_static(" test ")),
        ];
        for (url, authority) in [
            ("https://a.test", "a.test:443"),
            ("http://a.test", "a.test:80"),
            ("https://[::1]:8443", "[::1]:8443"),
            ("https://a.test.", "a.test.:443"),
        ] {
            let target = UrlInput::Text(url.into()).parse(None).unwrap().target;
            let mut out = BytesMut::new();
            let fields = fields.iter().map(|(name, value)| (name, value));
            encode_tunnel(&mut out, &target.origin(), fields).unwrap();
            let expected = format!(
                "CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\nproxy-authorization: Basic x\r\nuser-agent: test\r\n\r\n"
            );
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn an_upgrade_is_asked_for_on_the_connection() {
        let with = |protocols: &'static str| {
            let mut head = head("GET", "http://a.test/", &[]);
            head.asks = Some(Arc::new(Asks {
                upgrade: Some(HeaderValue::from_static(protocols)),
                ..Asks::default()
            }));
            run(&head, BodyLength::None)
        };
        let (text, encoded) = with("websocket, h2c/1").unwrap();
        assert_eq!(
            text,
            "GET / HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\nconnection: upgrade\r\nupgrade: websocket, h2c/1\r\n\r\n"
        );
        assert_eq!(encoded.method, MethodKind::Upgrade);
        for wrong in ["", "a b", "a,,b", "a/", "/b", "a/b/c", "a;b"] {
            assert_eq!(with(wrong).unwrap_err(), EncodeError::Upgrade, "{wrong}");
        }
    }

    #[test]
    fn an_expectation_goes_with_a_body_only() {
        for (asked, field, body, expected) in [
            (true, false, BodyLength::Known(3), true),
            (true, false, BodyLength::Unknown, true),
            (true, true, BodyLength::Known(3), true),
            (false, true, BodyLength::Known(3), true),
            (true, true, BodyLength::None, false),
            (false, false, BodyLength::Known(3), false),
        ] {
            let fields: &[(&str, &str)] = match field {
                true => &[("expect", "100-Continue")],
                false => &[],
            };
            let mut head = head("PUT", "http://a.test/", fields);
            head.asks = Some(Arc::new(Asks {
                expect_continue: asked,
                ..Asks::default()
            }));
            let (text, encoded) = run(&head, body).unwrap();
            assert_eq!(encoded.expects_continue, expected);
            let lines = text
                .to_lowercase()
                .matches("expect: 100-continue\r\n")
                .count();
            assert_eq!(lines, usize::from(expected), "{text}");
        }
        let head = head("PUT", "http://a.test/", &[("expect", "200-maybe")]);
        assert_eq!(
            run(&head, BodyLength::Known(3)).unwrap_err(),
            EncodeError::Expect
        );
    }

    #[test]
    fn trailers_follow_the_last_chunk() {
        let mut trailers = HeaderMap::new();
        trailers.append("x-sum", HeaderValue::from_static("1"));
        trailers.append("x-sum", HeaderValue::from_static(" 2 "));
        let mut out = BytesMut::new();
        BodyEncoder::Chunked
            .finish(Some(&trailers), &mut out)
            .unwrap();
        assert_eq!(&out[..], b"0\r\nx-sum: 1\r\nx-sum: 2\r\n\r\n");
        let mut out = BytesMut::new();
        BodyEncoder::Length(0)
            .finish(Some(&trailers), &mut out)
            .unwrap();
        assert!(out.is_empty(), "there is no place for them");
        for name in [
            "content-length",
            "host",
            "authorization",
            "if-match",
            "transfer-encoding",
        ] {
            let name = HeaderName::from_static(name);
            let mut trailers = HeaderMap::new();
            trailers.insert(name.clone(), HeaderValue::from_static("1"));
            let error = BodyEncoder::Chunked.finish(Some(&trailers), &mut BytesMut::new());
            assert_eq!(error, Err(EncodeError::TrailerField { name }));
        }
    }

    #[test]
    fn heads() {
        use BodyLength::{Known, None, Unknown};
        check(
            "GET",
            "http://A.test",
            &[],
            None,
            "GET / HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\n\r\n",
        );
        check(
            "GET",
            "http://a.test:8080/x?y=z#f",
            &[("accept", "a"), ("b", "c")],
            None,
            "GET /x?y=z HTTP/1.1\r\nhost: a.test:8080\r\naccept: a\r\nb: c\r\n\r\n",
        );
        check(
            "GET",
            "https://[::1]:443?q",
            &[("host", "b.test:1")],
            None,
            "GET /?q HTTP/1.1\r\nhost: b.test:1\r\naccept: */*\r\n\r\n",
        );
        check(
            "POST",
            "http://[::1]/",
            &[],
            None,
            "POST / HTTP/1.1\r\nhost: [::1]\r\naccept: */*\r\ncontent-length: 0\r\n\r\n",
        );
        check(
            "DELETE",
            "http://a.test/",
            &[("connection", "close, x-own")],
            Known(18446744073709551615),
            "DELETE / HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\nconnection: close, x-own\r\ncontent-length: 18446744073709551615\r\n\r\n",
        );
        check(
            "PUT",
            "http://a.test/",
            &[],
            Unknown,
            "PUT / HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        check(
            "PUT",
            "http://a.test/",
            &[("content-length", "7"), ("te", "trailers")],
            Unknown,
            "PUT / HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\nte: trailers\r\nconnection: te\r\ncontent-length: 7\r\n\r\n",
        );
        check(
            "GET",
            "http://a.test/",
            &[
                ("te", "Trailers"),
                ("connection", "TE , x-own"),
                ("x-own", " \ta b\t "),
            ],
            None,
            "GET / HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\nte: Trailers\r\nconnection: TE , x-own\r\nx-own: a b\r\n\r\n",
        );
        check(
            "OPTIONS",
            "http://a.test/",
            &[("content-length", "0")],
            None,
            "OPTIONS / HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\ncontent-length: 0\r\n\r\n",
        );
        check(
            "M-SEARCH",
            "http://a.test/%0d%0aX",
            &[],
            Known(3),
            "M-SEARCH /%0d%0aX HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\ncontent-length: 3\r\n\r\n",
        );
        check(
            "GET",
            "http://a.test/",
            &[("expect", "100-continue")],
            None,
            "GET / HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\n\r\n",
        );
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        use BodyLength::{Known, None, Unknown};
        refuse("CONNECT", &[], Known(0), "CONNECT must not have a body");
        refuse("TRACE", &[], Known(1), "TRACE must not have a body");
        refuse(
            &"M".repeat(65),
            &[],
            None,
            "the method has 65 bytes, the limit is 64",
        );
        refuse(
            "GET",
            &[("host", "a"), ("host", "b")],
            None,
            "host is set twice",
        );
        refuse(
            "GET",
            &[("host", "a b")],
            None,
            "the host field is not a host with an optional port",
        );
        refuse(
            "GET",
            &[("host", "")],
            None,
            "the host field is not a host with an optional port",
        );
        refuse(
            "POST",
            &[("content-length", "5")],
            Known(4),
            "content-length says 5 but the body has 4 bytes",
        );
        refuse(
            "POST",
            &[("content-length", "5")],
            None,
            "content-length says 5 but the body has 0 bytes",
        );
        for bad in ["+5", "5, 5", "", "x"] {
            refuse(
                "POST",
                &[("content-length", bad)],
                Unknown,
                "content-length is not one number",
            );
        }
        refuse(
            "POST",
            &[("content-length", "5"), ("content-length", "5")],
            Known(5),
            "content-length is not one number",
        );
        refuse(
            "POST",
            &[("transfer-encoding", "chunked")],
            Unknown,
            "transfer-encoding cannot be set: the body decides it",
        );
        refuse(
            "GET",
            &[("te", "gzip")],
            None,
            "te cannot be set: only \"trailers\" is allowed",
        );
        refuse(
            "GET",
            &[("keep-alive", "5")],
            None,
            "keep-alive cannot be set: the pool keeps connections alive",
        );
        for bad in ["upgrade", "a b", "", "close,,x"] {
            refuse(
                "GET",
                &[("connection", bad)],
                None,
                "connection holds a token that is not allowed (\"close\" and names of own fields are)",
            );
        }
    }

    #[test]
    fn a_host_is_a_host_with_an_optional_port() {
        for good in [
            "a",
            "a.test",
            "a_b.test.",
            "a.test:1",
            "a.test:65535",
            "127.0.0.1:80",
            "[::1]",
            "[::ffff:1.2.3.4]:8080",
            "xn--bcher-kva.example",
            "a%20b",
            "a!$&'()*+,;=~-",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            " a",
            "a ",
            "a b",
            "a\tb",
            "a:",
            ":80",
            "a:b",
            "a:65536",
            "a:+1",
            "a:1:2",
            "a/b",
            "a?b",
            "a#b",
            "user@a",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:",
            "[a.test]",
            "[]",
            "[v1.a]",
            "[fe80::1%25eth0]",
            "a]",
            "a%2",
            "a%zz",
            "a%",
            "http://a",
            "b\u{fc}cher.example",
            "a\\b",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn each_byte_is_told_at_each_place() {
        for len in 1..=20 {
            for at in 0..len {
                for byte in 0..=255_u8 {
                    let mut bytes = vec![b'~'; len];
                    bytes[at] = byte;
                    assert_eq!(
                        is_graphic(&bytes),
                        byte.is_ascii_graphic(),
                        "{byte} at {at} of {len}"
                    );
                    let one_line = !matches!(byte, b'\r' | b'\n' | 0);
                    assert_eq!(is_one_line(&bytes), one_line, "{byte} at {at} of {len}");
                    bytes[len - 1] = 0xff;
                    assert!(!is_graphic(&bytes));
                }
            }
        }
        assert!(is_graphic(b"") && is_one_line(b""));
    }

    #[test]
    fn a_chunk_of_no_bytes_does_not_end_the_body() {
        let mut out = BytesMut::new();
        BodyEncoder::Chunked.begin_data(0, &mut out).unwrap();
        assert_eq!(out, "");
    }

    #[test]
    fn a_body_is_held_to_its_length() {
        let mut out = BytesMut::new();
        let mut body = BodyEncoder::Length(5);
        assert_eq!(body.begin_data(3, &mut out), Ok(()));
        assert_eq!(
            body.finish(None, &mut out),
            Err(EncodeError::BodyTooShort { missing: 2 })
        );
        assert_eq!(
            body.begin_data(3, &mut out),
            Err(EncodeError::BodyTooLong { length: 2 })
        );
        assert!(out.is_empty());
    }

    #[test]
    fn chunks_have_hexadecimal_sizes() {
        let mut out = BytesMut::new();
        let mut body = BodyEncoder::Chunked;
        body.begin_data(1, &mut out).unwrap();
        body.begin_data(0xabc, &mut out).unwrap();
        body.finish(None, &mut out).unwrap();
        assert_eq!(out, "1\r\nabc\r\n0\r\n\r\n");
        assert_eq!(body.suffix(), b"\r\n");
    }
}
