//! A response: its head at once, its body when it is asked for.
//!
//! The head is the bytes that came and an index; the map of `headers()` is built when it is first wanted. A small response
//! is complete when the caller sees it, and its connection is back in the pool by then; a larger one carries its
//! connection until the last byte. Made by the client's layers; knows neither pool nor protocol. `reading.rs` has what turns the
//! body into something else: text, lines, a file.

mod reading;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use tokio::time::Instant;

use crate::body::{Accepted, Applied, Body, Collected, Decoding, collect_within, into_trailers};
use crate::config::DEFAULT_MAX_BODY;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::head::ResponseHead;
use crate::socket::{ConnectionInfo, Upgraded};
use crate::stats::Timings;
use crate::url::Target;

pub use reading::Progress;

/// The answer to a request.
///
/// When it is dropped before its body was read, what is left of the body is read and thrown away if it is little and comes
/// soon ([`Limits::max_drain`](crate::Limits), [`Limits::drain_timeout`](crate::Limits)); otherwise the connection closes.
/// Over HTTP/2 the stream is reset, and the session goes on.
///
/// ```no_run
/// # async fn run() -> sockeye::Result<()> {
/// let mut response = sockeye::Client::new().get("https://example.com/").send().await?;
/// println!("{} {:?}", response.status(), response.header("content-type"));
/// while let Some(chunk) = response.chunk().await? {
///     println!("{} bytes", chunk.len());
/// }
/// # Ok(()) }
/// ```
pub struct Response {
    pub(crate) head: ResponseHead,
    pub(crate) parts: OnceLock<Box<Parts>>,
    pub(crate) content: Content,
    pub(crate) target: Target,
    pub(crate) connection: Arc<ConnectionInfo>,
    pub(crate) moments: Moments,
    /// What came before the last request; most calls have none.
    pub(crate) led: Option<Box<Led>>,
    pub(crate) max_body: usize,
}

/// It is moved a dozen times on its way through the frames of those who called, and a copy of more bytes costs twice as much.
const _: () = assert!(size_of::<Response>() <= 256);

/// What a response of the `http` crate has beside status, version and body: made when it is first wanted.
#[derive(Default)]
pub(crate) struct Parts {
    headers: HeaderMap,
    extensions: Extensions,
    /// Whether the fields may not be those of the head.
    changed: bool,
    length: Length,
}

/// Who knows how long the body is.
#[derive(Clone, Copy, Default)]
enum Length {
    #[default]
    Head,
    /// It did not come with the head, or is not as it came.
    Body(Option<u64>),
}

/// A redirect that was followed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Redirect {
    /// Its status: 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    pub(crate) target: Target,
}

impl Redirect {
    /// The URL that answered with it, without userinfo and fragment.
    pub fn url(&self) -> &Uri {
        self.target.uri()
    }
}

/// The hops of a call before its last.
#[derive(Debug, Default)]
pub(crate) struct Led {
    pub(crate) redirects: Vec<Redirect>,
    /// How long they took, those included that were answered with credentials.
    pub(crate) took: Duration,
}

/// What was measured of the last try. Times are nanoseconds, which take half the room of a [`Duration`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moments {
    /// Waiting for a connection; zero if one was idle.
    pub(crate) wait: u64,
    /// From the start of the request to the response head.
    pub(crate) head: u64,
    /// From the start of the request, earlier tries included, to the response head.
    pub(crate) call: u64,
    /// Tries, this one included.
    pub(crate) attempts: u32,
    /// Whether the connection had served a response before.
    pub(crate) reused: bool,
}

impl Moments {
    /// When the call was started, when the last try began, when it had a connection, and when the head was there. The first
    /// three are mostly one, and then one subtraction of times is enough.
    pub(crate) fn between(
        started: Instant,
        begun: Instant,
        ready: Instant,
        answered: Instant,
    ) -> Self {
        let head = nanos(answered, ready);
        let (wait, call) = match ready == started && ready == begun {
            true => (0, head),
            false => (nanos(ready, begun), nanos(answered, started)),
        };
        Self {
            wait,
            head,
            call,
            ..Self::default()
        }
    }

    /// From the start of the request, earlier tries included, to the response head.
    pub(crate) fn call(&self) -> Duration {
        Duration::from_nanos(self.call)
    }
}

/// From `earlier` to `later`; 584 years at most.
fn nanos(later: Instant, earlier: Instant) -> u64 {
    let took = later.saturating_duration_since(earlier);
    let seconds = took.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(took.subsec_nanos()))
}

/// Where the body is.
pub(crate) enum Content {
    /// Behind the head, in the same allocation; the trailer section came with it.
    Kept(Option<Box<HeaderMap>>),
    /// On its connection, or nowhere any more.
    Apart(Body),
    /// Read to its end, which was this trailer section.
    Over(Box<HeaderMap>),
    /// There is none: the connection was switched to another protocol. The lock is there because a stream need not be Sync.
    Switched(Box<Mutex<Upgraded>>),
}

impl Response {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The version that the peer spoke.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The fields as a map, built on first use. For one field [`header`](Self::header) is cheaper.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts().headers
    }

    fn parts(&self) -> &Parts {
        self.parts.get_or_init(|| {
            Box::new(Parts {
                headers: self.head.to_map(),
                ..Parts::default()
            })
        })
    }

    fn parts_mut(&mut self) -> &mut Parts {
        self.parts();
        self.parts
            .get_mut()
            .expect("the line above has made the parts")
    }

    /// The fields, to be changed.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        let parts = self.parts_mut();
        parts.changed = true;
        &mut parts.headers
    }

    /// Puts the fields into the head as somebody has changed them, for those who read nothing but the head.
    pub(crate) fn settle_fields(&mut self) {
        let parts = self.parts.get_mut().filter(|parts| parts.changed);
        let Some(parts) = parts else {
            return;
        };
        parts.changed = false;
        let head = &self.head;
        let body = match &self.content {
            Content::Kept(_) => head.kept_body(),
            Content::Apart(_) | Content::Over(_) | Content::Switched(_) => Bytes::new(),
        };
        self.head = ResponseHead::of_fields(head.status, head.version, &parts.headers, &body);
    }

    /// The value of the first field of this name, if it is visible ASCII; no map is built for it.
    pub fn header(&self, name: &str) -> Option<&str> {
        match self.parts.get() {
            Some(parts) => parts.headers.get(name)?.to_str().ok(),
            None => visible(self.head.first(name)?),
        }
    }

    /// The values of all fields of this name, as bytes; no map is built for it.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let parts = self.parts.get();
        let head = parts.is_none().then(|| self.head.all(name));
        let in_head = head.into_iter().flatten();
        let in_map = parts
            .into_iter()
            .flat_map(move |parts| parts.headers.get_all(name));
        in_head.chain(in_map.map(HeaderValue::as_bytes))
    }

    /// The URL that answered, without userinfo and fragment.
    pub fn url(&self) -> &Uri {
        self.target.uri()
    }

    /// Bytes of the whole body, where the head says how many (`content-length`): the same before, while and after it is read.
    /// Of the answer to a HEAD request it is what the answer to a GET would have. `None` of a body in chunks, of one that ends with
    /// the connection, and of one that is decoded as it is read. What is still to be read is known to the size hint of
    /// [`into_body`](Self::into_body).
    pub fn content_length(&self) -> Option<u64> {
        if matches!(self.content, Content::Switched(_)) {
            return Some(0);
        }
        match self.parts.get().map(|parts| parts.length) {
            Some(Length::Body(length)) => length,
            Some(Length::Head) | None => self.head.content_length(),
        }
    }

    /// Bytes of the body that are still to be read, where that is known.
    fn left(&self) -> Option<u64> {
        match &self.content {
            Content::Kept(_) => Some(self.head.kept_body_len() as u64),
            Content::Apart(body) => body.left(),
            Content::Over(_) | Content::Switched(_) => Some(0),
        }
    }

    /// Has the content codings taken off as the body is read, if there are any and the call accepts them; the fields and the
    /// length then are those of the decoded content. What has no body is left as it is, and so is a part of a coded body
    /// (status 206), which nobody can decode.
    pub(crate) fn decode(&mut self, accepted: Accepted, method: &Method) {
        if self.parts.get().is_none() && !self.head.may_be_coded() {
            return;
        }
        let Some(applied) = Applied::of(self.values("content-encoding"), accepted) else {
            return;
        };
        if self.status() == StatusCode::PARTIAL_CONTENT || self.left() == Some(0) {
            return;
        }
        let body = match &mut self.content {
            Content::Kept(trailers) => Body::with_trailers(self.head.kept_body(), trailers.take()),
            Content::Apart(body) => std::mem::take(body),
            Content::Over(_) | Content::Switched(_) => return,
        };
        let decoding = Decoding::new(applied, self.target.origin(), method.clone());
        self.content = Content::Apart(body.decoded(decoding));
        for name in [CONTENT_ENCODING, CONTENT_LENGTH] {
            self.headers_mut().remove(name);
        }
        self.parts_mut().length = Length::Body(None);
    }

    /// What was attached to this response.
    pub fn extensions(&self) -> &Extensions {
        self.parts
            .get()
            .map_or_else(|| &*NOTHING, |parts| &parts.extensions)
    }

    /// What was attached to this response, to be changed.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.parts_mut().extensions
    }

    /// The connection that this came over.
    pub fn connection(&self) -> &ConnectionInfo {
        &self.connection
    }

    /// Whether the connection had served a response before.
    pub fn reused(&self) -> bool {
        self.moments.reused
    }

    /// Where the time went, up to the head: see [`Timings`].
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let response = sockeye::Client::new().get("https://example.com/").send().await?;
    /// // new connection: pool wait 36.0 ms, resolve 3.00 ms, connect 12.0 ms, tls 21.0 ms, head 140 ms, total 176 ms
    /// println!("{}", response.timings());
    /// # Ok(()) }
    /// ```
    pub fn timings(&self) -> Timings {
        let moments = &self.moments;
        let opened = (!moments.reused).then_some(&self.connection);
        let some = |took: Duration| (!took.is_zero()).then_some(took);
        let some_nanos = |took: u64| some(Duration::from_nanos(took));
        let led = self.led.as_ref().map_or(Duration::ZERO, |led| led.took);
        let last = moments.wait.saturating_add(moments.head);
        Timings {
            redirects: some(led),
            earlier: some_nanos(moments.call.saturating_sub(last)),
            pool_wait: some_nanos(moments.wait),
            resolve: opened.and_then(|opened| opened.resolve),
            connect: opened.and_then(|opened| opened.connect),
            tls: opened.and_then(|opened| opened.handshake),
            head: Some(Duration::from_nanos(moments.head)),
            total: Some(led.saturating_add(moments.call())),
            reused: moments.reused,
        }
    }

    /// How often the request was sent; 1 unless a connection turned out to be dead.
    pub fn attempts(&self) -> u32 {
        self.moments.attempts
    }

    /// The redirects that led here, in the order in which they were followed; [`url`](Self::url) is where they ended.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let response = sockeye::Client::new().get("https://example.com/").send().await?;
    /// for redirect in response.redirects() {
    ///     println!("{} {}", redirect.status, redirect.url());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn redirects(&self) -> &[Redirect] {
        self.led.as_ref().map_or(&[], |led| &led.redirects)
    }

    /// The whole body, decoded. Fails with [`ErrorKind::TooLarge`] beyond `max_body` (64 MiB by default).
    pub fn bytes(self) -> impl Future<Output = Result<Bytes>> + Send + 'static {
        // Taken apart here, because a future that holds a whole response is more than twice as large, and is moved.
        let limit = self.max_body;
        let body = match self.content {
            Content::Kept(_) if self.head.kept_body_len() <= limit => {
                Ok(self.head.into_kept_body())
            }
            Content::Kept(_) => Err(Body::from(self.head.into_kept_body())),
            Content::Apart(body) => Err(body),
            Content::Over(_) | Content::Switched(_) => Ok(Bytes::new()),
        };
        async move {
            match body {
                Ok(arrived) => Ok(arrived),
                Err(body) => Ok(collect_within(body, limit).await?.bytes),
            }
        }
    }

    /// The next piece of the body as it arrives; `None` at the end. Dropping the future loses nothing.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        if let Content::Kept(trailers) = &mut self.content {
            let kept = self.head.kept_body();
            self.content = match trailers.take() {
                None => Content::Apart(Body::empty()),
                Some(trailers) => Content::Over(trailers),
            };
            return Ok((!kept.is_empty()).then_some(kept));
        }
        let Content::Apart(body) = &mut self.content else {
            return Ok(None);
        };
        while let Some(frame) = body.next_frame().await {
            match frame?.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(frame) => {
                    if let Some(trailers) = into_trailers(frame) {
                        self.content = Content::Over(Box::new(trailers));
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }

    /// The trailer section, after reading the rest of the body away (at most `max_body` bytes of it).
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        let mut drained = 0_usize;
        while let Some(chunk) = self.chunk().await? {
            drained = drained.saturating_add(chunk.len());
            if drained > self.max_body {
                self.content = Content::Apart(Body::empty());
                return Err(
                    Error::new(ErrorKind::TooLarge, Some(Phase::Read), Sent::All).saying(format!(
                        "the response body is over the limit of {} bytes (max_body)",
                        self.max_body
                    )),
                );
            }
        }
        let Content::Over(trailers) = &self.content else {
            return Ok(None);
        };
        Ok(Some((**trailers).clone()))
    }

    /// The body alone; trailers come as its last frame.
    pub fn into_body(self) -> Body {
        match self.content {
            Content::Kept(trailers) => Body::with_trailers(self.head.into_kept_body(), trailers),
            Content::Apart(body) => body,
            Content::Over(trailers) => Body::with_trailers(Bytes::new(), Some(trailers)),
            Content::Switched(_) => Body::empty(),
        }
    }

    /// The connection as a stream of bytes, after a 101 to what [`RequestBuilder::upgrade`](crate::RequestBuilder::upgrade)
    /// asked for, or a 2xx to CONNECT (RFC 9110 sections 7.8 and 9.3.6). Bytes that came behind the response are read first.
    ///
    /// A server may as well answer in the ordinary way: then this fails with `Protocol`, naming the status. Who wants that
    /// answer looks at [`status`](Self::status) first.
    pub fn upgrade(self) -> Result<Upgraded> {
        match self.content {
            Content::Switched(upgraded) => {
                let upgraded = upgraded.into_inner();
                Ok(upgraded.unwrap_or_else(PoisonError::into_inner))
            }
            Content::Kept(_) | Content::Apart(_) | Content::Over(_) => {
                let status = self.head.status.as_u16();
                Err(
                    Error::new(ErrorKind::Protocol, Some(Phase::Head), Sent::All)
                        .saying(format!(
                            "the server answered with status {status} and did not switch the connection to another protocol"
                        ))
                        .at(&self.target.origin()),
                )
            }
        }
    }

    /// The same response in the types of the `http` crate.
    pub fn into_http(mut self) -> http::Response<Body> {
        let Parts {
            headers,
            extensions,
            ..
        } = std::mem::take(self.parts_mut());
        let (status, version) = (self.status(), self.version());
        let mut response = http::Response::new(self.into_body());
        *response.status_mut() = status;
        *response.version_mut() = version;
        *response.headers_mut() = headers;
        *response.extensions_mut() = extensions;
        response
    }

    /// All of the body with its trailers.
    pub async fn collect(self) -> Result<Collected> {
        let limit = self.max_body;
        collect_within(self.into_body(), limit).await
    }
}

/// A response that did not come over a connection, for interceptors that answer by themselves and for tests. Its connection has
/// the id 0; its URL becomes that of the call.
///
/// ```
/// use sockeye::{Response, http};
///
/// # async fn run() -> sockeye::Result<()> {
/// let response = Response::from(http::Response::new("hello"));
/// assert_eq!(response.text().await?, "hello");
/// # Ok(()) }
/// ```
impl<B: Into<Body>> From<http::Response<B>> for Response {
    fn from(response: http::Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.into();
        Self {
            head: ResponseHead::new(parts.status, parts.version, Bytes::new(), 0, 0),
            parts: OnceLock::from(Box::new(Parts {
                headers: parts.headers,
                extensions: parts.extensions,
                changed: true,
                length: Length::Body(body.left()),
            })),
            content: Content::Apart(body),
            target: Target::nowhere(),
            connection: Arc::new(ConnectionInfo::none(parts.version)),
            moments: Moments::default(),
            led: None,
            max_body: DEFAULT_MAX_BODY,
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Field values may hold secrets; the target's Debug hides its query.
        f.debug_struct("Response")
            .field("status", &self.status())
            .field("version", &self.version())
            .field("target", &self.target)
            .field("fields", &self.head.fields().count())
            .field("content_length", &self.content_length())
            .finish_non_exhaustive()
    }
}

/// What is attached to a response to which nothing was attached.
static NOTHING: LazyLock<Extensions> = LazyLock::new(Extensions::new);

fn visible(value: &[u8]) -> Option<&str> {
    let visible = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    visible.then(|| std::str::from_utf8(value).ok())?
}
