//! What a call asks and what it is answered, as plain data that every layer may read.
//!
//! A [`RequestHead`] is lent by the spine to the codec: an HTTP/1.1 attempt clones nothing of it. [`DefaultFields`] are
//! kept as the bytes that go on the wire. A [`ResponseHead`] is the bytes that came and an index of its fields; a map is
//! built only for those who ask for one. Nothing here judges: framing and limits are the codec's.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use http::{Method, StatusCode, Version};

use crate::url::Target;

/// Method, target and the fields that the user set for this call.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    /// Most calls ask for nothing of the kind.
    pub(crate) asks: Option<Arc<Asks>>,
}

/// What a call asks of its connection beyond one answer.
#[derive(Clone, Default)]
pub(crate) struct Asks {
    /// The body is sent when the server has said that it wants it (RFC 9110 section 10.1.1).
    pub(crate) expect_continue: bool,
    /// The protocols that the connection may change to (RFC 9110 section 7.8).
    pub(crate) upgrade: Option<HeaderValue>,
    /// Told of each interim (1xx) response.
    pub(crate) on_informational: Option<OnInformational>,
}

/// How requests stand on a connection to a proxy that forwards them: their target is the whole URL (RFC 9112 section 3.2.2),
/// and the proxy may want credentials, which no other connection is given (security R5).
#[derive(Clone, Default)]
pub(crate) struct Forwarding {
    /// The value of Proxy-Authorization.
    pub(crate) authorization: Option<HeaderValue>,
}

impl fmt::Debug for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarding")
            .field("authorization", &self.authorization.is_some())
            .finish()
    }
}

/// A function of the user's that is told of interim responses.
pub(crate) type OnInformational = Arc<dyn Fn(&http::Response<()>) + Send + Sync>;

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asks")
            .field("expect_continue", &self.expect_continue)
            .field("upgrade", &self.upgrade)
            .field("on_informational", &self.on_informational.is_some())
            .finish()
    }
}

impl RequestHead {
    /// The protocols that the connection may change to.
    pub(crate) fn upgrade(&self) -> Option<&HeaderValue> {
        self.asks.as_ref()?.upgrade.as_ref()
    }

    /// Whether the call asked for the body to wait; a field of the user's does as well.
    pub(crate) fn expects_continue(&self) -> bool {
        self.asks.as_ref().is_some_and(|asks| asks.expect_continue)
    }

    /// Whether it says nothing but where it goes.
    pub(crate) fn is_bare(&self) -> bool {
        self.headers.is_empty() && self.asks.is_none()
    }

    /// Gives the target back that a response has taken with it. One that is still here is as the caller wrote it, and stays.
    pub(crate) fn put_back(&mut self, target: impl FnOnce() -> Target) {
        if self.target.is_nowhere() {
            self.target = target();
        }
    }

    /// Takes the expectation back; answers whether there was one.
    pub(crate) fn stop_expecting(&mut self) -> bool {
        let field = self.headers.remove(http::header::EXPECT).is_some();
        let asked = self.expects_continue();
        if let Some(asks) = &mut self.asks {
            Arc::make_mut(asks).expect_continue = false;
        }
        field || asked
    }
}

/// Whether the values of this name are secrets: marked as such, never in a compression table, and kept from other origins
/// (security R2, L1).
pub(crate) fn is_secret(name: &HeaderName) -> bool {
    SECRETS.contains(&name.as_str())
}

/// Marks the values of such names, so that Debug of a map does not show them.
pub(crate) fn mark_secrets(fields: &mut HeaderMap) {
    for (name, value) in fields.iter_mut() {
        if is_secret(name) {
            value.set_sensitive(true);
        }
    }
}

/// Names whose values are secrets by what they are for.
const SECRETS: [&str; 11] = [
    "api-key",
    "authorization",
    "cookie",
    "cookie2",
    "private-token",
    "proxy-authorization",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
    "x-goog-api-key",
];

/// The fields that a client adds to each request unless the request has one of the same name.
#[derive(Clone, Debug, Default)]
pub(crate) struct DefaultFields {
    lines: Vec<u8>,
    entries: Vec<(HeaderName, Range<usize>)>,
    /// For HTTP/2, where fields are no lines, and for whoever changes some.
    map: HeaderMap,
}

impl DefaultFields {
    /// Encodes `fields` once, in the map's order.
    pub(crate) fn new(fields: &HeaderMap) -> Self {
        let mut lines = Vec::new();
        let mut entries = Vec::new();
        for (name, value) in fields {
            let start = lines.len();
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(value.as_bytes());
            lines.extend_from_slice(b"\r\n");
            entries.push((name.clone(), start..lines.len()));
        }
        Self {
            lines,
            entries,
            map: fields.clone(),
        }
    }

    /// The same as a map.
    pub(crate) fn map(&self) -> &HeaderMap {
        &self.map
    }

    /// All lines, for a request that has no fields of its own.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// The lines whose names `own` does not have.
    pub(crate) fn lines_beside<'a>(&'a self, own: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        self.entries
            .iter()
            .filter(|(name, _)| !own.contains_key(name))
            .filter_map(|(_, range)| self.lines.get(range.clone()))
    }
}

/// Where the name and the value of a field lie in the head's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldAt {
    pub(crate) name: (u32, u32),
    pub(crate) value: (u32, u32),
}

impl FieldAt {
    /// Bytes of one entry of the index.
    pub(crate) const SIZE: usize = 16;

    /// The entry as it is kept behind the head.
    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let numbers = [self.name.0, self.name.1, self.value.0, self.value.1];
        let entry = numbers.iter().rfold(0, |entry: u128, number| {
            entry << u32::BITS | u128::from(*number)
        });
        entry.to_le_bytes()
    }

    /// The entry that was kept.
    pub(crate) fn from_bytes(entry: &[u8]) -> Self {
        // One load, from which each number is taken when it is wanted.
        let entry = u128::from_le_bytes(entry.first_chunk().copied().unwrap_or_default());
        let number = |at: u32| (entry >> (at * u32::BITS)) as u32;
        Self {
            name: (number(0), number(1)),
            value: (number(2), number(3)),
        }
    }
}

/// A response head in one allocation: its bytes, then the index, then (for a small response) the whole body.
#[derive(Clone)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    message: Bytes,
    index_at: u32,
    body_at: u32,
    /// False if it is known that there is no Content-Encoding.
    may_be_coded: bool,
}

impl ResponseHead {
    /// `message` holds the head up to `index_at`, the index up to `body_at`, and the body behind it.
    pub(crate) fn new(
        status: StatusCode,
        version: Version,
        message: Bytes,
        index_at: usize,
        body_at: usize,
    ) -> Self {
        Self {
            status,
            version,
            message,
            index_at: number(index_at),
            body_at: number(body_at),
            may_be_coded: true,
        }
    }

    /// A head of fields that are a map, with the body that is kept behind them.
    pub(crate) fn of_fields(
        status: StatusCode,
        version: Version,
        fields: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let mut message = Vec::new();
        let mut index = Vec::new();
        let mut put = |part: &[u8]| {
            let range = (number(message.len()), number(part.len()));
            message.extend_from_slice(part);
            range
        };
        for (name, value) in fields {
            let (name, value) = (put(name.as_str().as_bytes()), put(value.as_bytes()));
            index.extend_from_slice(&FieldAt { name, value }.to_bytes());
        }
        let index_at = message.len();
        message.extend_from_slice(&index);
        let body_at = message.len();
        message.extend_from_slice(body);
        Self::new(status, version, message.into(), index_at, body_at)
    }

    /// Says whether a Content-Encoding is among the fields, which who has just read them all knows without a search.
    pub(crate) fn coded(self, coded: bool) -> Self {
        Self {
            may_be_coded: coded,
            ..self
        }
    }

    /// False if there is no Content-Encoding.
    pub(crate) fn may_be_coded(&self) -> bool {
        self.may_be_coded
    }

    fn index(&self) -> &[u8] {
        self.message
            .get(self.index_at as usize..self.body_at())
            .unwrap_or_default()
    }

    /// A head is far smaller than 4 GiB; were it not, the message would be all head.
    fn body_at(&self) -> usize {
        self.message.len().min(self.body_at as usize)
    }

    /// The fields in the order in which they came.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let index = self.index();
        index.chunks_exact(FieldAt::SIZE).map(|entry| {
            let at = FieldAt::from_bytes(entry);
            (self.part(at.name), self.part(at.value))
        })
    }

    /// The value of the first field of this name.
    pub(crate) fn first(&self, name: &str) -> Option<&[u8]> {
        let index = self.index();
        index.chunks_exact(FieldAt::SIZE).find_map(|entry| {
            let at = FieldAt::from_bytes(entry);
            // Most names differ in length, which the index tells without a look at the head.
            let found = at.name.1 as usize == name.len()
                && self.part(at.name).eq_ignore_ascii_case(name.as_bytes());
            found.then(|| self.part(at.value))
        })
    }

    /// The values of all fields of this name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.fields();
        let named = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|(_, value)| value)
    }

    /// The length that the fields say the body has; whoever read them has found it to be right.
    pub(crate) fn content_length(&self) -> Option<u64> {
        let field = |name| std::str::from_utf8(self.first(name)?).ok();
        if self.status == StatusCode::NO_CONTENT {
            return Some(0);
        }
        if field("transfer-encoding").is_some() {
            return None;
        }
        match field("content-length") {
            // It may be said more than once (RFC 9110 section 8.6).
            Some(numbers) => numbers.split(',').next()?.trim().parse().ok(),
            None => (self.status == StatusCode::NOT_MODIFIED).then_some(0),
        }
    }

    /// The map for those who want one; values share the head's allocation.
    pub(crate) fn to_map(&self) -> HeaderMap {
        let index = self.index();
        let mut map = HeaderMap::with_capacity(index.len() / FieldAt::SIZE);
        for entry in index.chunks_exact(FieldAt::SIZE) {
            let at = FieldAt::from_bytes(entry);
            let value = self.message.slice_ref(self.part(at.value));
            // The decoder accepted both, so neither conversion fails; a field that did would be left out.
            if let (Ok(name), Ok(mut value)) = (
                HeaderName::from_bytes(self.part(at.name)),
                HeaderValue::from_maybe_shared(value),
            ) {
                value.set_sensitive(name == SET_COOKIE);
                map.append(name, value);
            }
        }
        map
    }

    /// An interim response, as those are told of it.
    pub(crate) fn to_interim(&self) -> http::Response<()> {
        let mut response = http::Response::new(());
        *response.status_mut() = self.status;
        *response.version_mut() = self.version;
        *response.headers_mut() = self.to_map();
        response
    }

    /// How many bytes of body lie behind the index.
    pub(crate) fn kept_body_len(&self) -> usize {
        self.message.len() - self.body_at()
    }

    /// The body behind the index; shares the allocation.
    pub(crate) fn kept_body(&self) -> Bytes {
        self.message.slice(self.body_at()..)
    }

    /// The body behind the index, giving up the head: no allocation.
    pub(crate) fn into_kept_body(self) -> Bytes {
        let body_at = self.body_at();
        let mut message = self.message;
        bytes::Buf::advance(&mut message, body_at);
        message
    }

    fn part(&self, (start, len): (u32, u32)) -> &[u8] {
        let start = start as usize;
        self.message
            .get(start..start + len as usize)
            .unwrap_or_default()
    }
}

/// A place in a head, which is far smaller than 4 GiB.
fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_finds_names_in_any_case_and_the_body_is_behind_it() {
        let mut message = b"HTTP/1.1 200 OK\r\nA: 1\r\nb: two\r\na: 3\r\n\r\n".to_vec();
        let index_at = message.len();
        for (name, value) in [((17, 1), (20, 1)), ((23, 1), (26, 3)), ((31, 1), (34, 1))] {
            message.extend_from_slice(&FieldAt { name, value }.to_bytes());
        }
        let body_at = message.len();
        message.extend_from_slice(b"body");
        let head = ResponseHead::new(
            StatusCode::OK,
            Version::HTTP_11,
            message.into(),
            index_at,
            body_at,
        );
        assert_eq!(head.first("a"), Some(&b"1"[..]));
        assert_eq!(head.first("B"), Some(&b"two"[..]));
        assert_eq!(head.first("c"), None);
        let map = head.to_map();
        assert_eq!(map.get_all("a").iter().count(), 2);
        assert_eq!(head.kept_body_len(), 4);
        assert_eq!(head.into_kept_body(), "body");
    }

    #[test]
    fn a_map_becomes_a_head() {
        let mut fields = HeaderMap::new();
        fields.append("a", HeaderValue::from_static("1"));
        fields.append("b", HeaderValue::from_static("two"));
        fields.append("a", HeaderValue::from_static(""));
        let head = ResponseHead::of_fields(StatusCode::OK, Version::HTTP_11, &fields, b"body");
        assert_eq!(head.to_map(), fields);
        assert_eq!(head.first("b"), Some(&b"two"[..]));
        assert_eq!(head.into_kept_body(), "body");
        let fields = HeaderMap::new();
        let head = ResponseHead::of_fields(StatusCode::OK, Version::HTTP_11, &fields, b"");
        assert_eq!((head.fields().count(), head.kept_body_len()), (0, 0));
    }

    #[test]
    fn a_request_field_hides_the_default_of_its_name() {
        let mut fields = HeaderMap::new();
        fields.insert("user-agent", HeaderValue::from_static("sockeye"));
        fields.insert("accept", HeaderValue::from_static("*/*"));
        let defaults = DefaultFields::new(&fields);
        let mut own = HeaderMap::new();
        assert_eq!(defaults.lines_beside(&own).count(), 2);
        own.insert("accept", HeaderValue::from_static("text/html"));
        let left: Vec<_> = defaults.lines_beside(&own).collect();
        assert_eq!(left, [b"user-agent: sockeye\r\n"]);
    }
}
