//! Multipart forms (RFC 7578) as bodies.
//!
//! Names and file names are escaped as browsers do it (WHATWG HTML, "multipart/form-data encoding algorithm"), and every value that
//! is written passes the check of a field value, so that nothing can begin a line of its own (security C2). The boundary is
//! 128 random bits of the system's: whoever chooses the content of a part cannot know it. Nothing is read of a part before its
//! turn; lengths are asked for first, so that the whole has one if all of its parts have.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::factory::{Factory, exact};
use super::{Body, Repr, Source};
use crate::error::{BoxFuture, Error, Result};

/// A form of parts, each with a name: texts, bytes, streams and files.
///
/// It is sent with its exact length if every part knows its own, as texts, bytes and files do; else in chunks. It can be sent
/// again, as when a kept connection turns out to be dead, if every part can.
///
/// ```no_run
/// use sockeye::{Body, Multipart, Part};
///
/// # async fn run() -> sockeye::Result<()> {
/// let form = Multipart::new()
///     .text("title", "Upstream")
///     .file("film", "film.mkv")
///     .part("cover", Part::new(vec![0xff, 0xd8]).file_name("cover.jpg").content_type("image/jpeg"));
/// sockeye::Client::new().post("https://films.example.com/").multipart(form).await?;
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct Multipart {
    parts: Vec<Ready>,
    /// The first mistake in a part, which `send` reports.
    mistake: Option<Error>,
}

/// One part of a [`Multipart`]: a body, and what is said of it.
#[derive(Debug)]
pub struct Part {
    body: Body,
    file_name: Option<String>,
    content_type: Option<HeaderValue>,
    headers: HeaderMap,
    mistake: Option<Error>,
}

impl Multipart {
    /// A form without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    pub fn text(self, name: impl AsRef<str>, text: impl Into<String>) -> Self {
        self.part(name, Part::new(text.into()))
    }

    /// Adds a file, see [`Part::file`].
    pub fn file(self, name: impl AsRef<str>, path: impl Into<PathBuf>) -> Self {
        self.part(name, Part::file(path))
    }

    /// Adds a part. Names may come more than once. Quotes and line ends in a name become `%22`, `%0D` and `%0A`; a name with
    /// another control character is a mistake, which `send` reports.
    pub fn part(mut self, name: impl AsRef<str>, part: Part) -> Self {
        match part.ready(name.as_ref()) {
            Ok(ready) => self.parts.push(ready),
            Err(mistake) => drop(self.mistake.get_or_insert(mistake)),
        }
        self
    }

    /// The body, and the content type that goes with it; for requests that are not made by a
    /// [`RequestBuilder`](crate::RequestBuilder).
    ///
    /// ```
    /// use sockeye::Multipart;
    ///
    /// let (content_type, body) = Multipart::new().text("a", "1").into_body()?;
    /// assert!(content_type.to_str().unwrap().starts_with("multipart/form-data; boundary="));
    /// let request = http::Request::post("http://peer.test/").header("content-type", content_type).body(body).unwrap();
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn into_body(self) -> Result<(HeaderValue, Body)> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let boundary = boundary()?;
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let content_type = HeaderValue::try_from(content_type).map_err(Error::invalid_request)?;
        let boundary = Boundary(boundary.into());
        let len = boundary.length(&self.parts, |part| part.body.left());
        let whole = self.parts.iter().all(|part| part.body.is_bytes());
        let body = match len {
            Some(len) if whole && len <= LARGEST_COPIED => {
                let mut bytes = BytesMut::new();
                for (at, part) in self.parts.iter().enumerate() {
                    boundary.put(&mut bytes, at == 0, part);
                    bytes.put_slice(part.body.as_bytes().map_or(&[], |bytes| bytes));
                }
                boundary.close(&mut bytes, self.parts.is_empty());
                bytes.freeze().into()
            }
            _ => Body::from_factory(Form {
                boundary,
                len,
                replayable: self.parts.iter().all(|part| part.body.is_replayable()),
                parts: Mutex::new(Some(self.parts)),
            }),
        };
        Ok((content_type, body))
    }
}

impl fmt::Debug for Multipart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names and contents are the user's data; their number is not.
        f.debug_struct("Multipart")
            .field("parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

impl Part {
    /// A part of text, bytes, a stream, or any other body.
    ///
    /// ```
    /// use sockeye::{Body, Part};
    ///
    /// let text = Part::new("hello").content_type("text/markdown; charset=utf-8");
    /// let file = Part::new(Body::file("/tmp/upload-7")).file_name("report.pdf");
    /// ```
    pub fn new(body: impl Into<Body>) -> Self {
        Self {
            body: body.into(),
            file_name: None,
            content_type: None,
            headers: HeaderMap::new(),
            mistake: None,
        }
    }

    /// A file under its own name; see [`Body::file`].
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.into_owned();
        Self::new(Body::file(path)).file_name(name)
    }

    /// The name under which a file is sent, which makes the part a file to most servers. It is escaped as the name of a part
    /// is. It says nothing of where the file is here.
    #[must_use]
    pub fn file_name(mut self, name: impl Into<String>) -> Self {
        self.file_name = Some(name.into());
        self
    }

    /// The content type, such as `image/png`. Without one, a part with a file name is `application/octet-stream` and another
    /// says none, which stands for text (RFC 7578 section 4.4). What is no `type/subtype` is a mistake, which `send` reports.
    #[must_use]
    pub fn content_type<V>(mut self, value: V) -> Self
    where
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        match value.try_into() {
            Ok(value) if is_media_type(value.as_bytes()) => self.content_type = Some(value),
            Ok(_) => self.note("the content type of a part is no type/subtype".into()),
            Err(error) => {
                let error: http::Error = error.into();
                self.note(format!("the content type of a part: {error}"));
            }
        }
        self
    }

    /// Adds a field to the part. `content-disposition` is written from the names, and is refused here.
    #[must_use]
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        let name = match name.try_into() {
            Ok(name) if name == CONTENT_TYPE => return self.content_type(value),
            Ok(name) if name == CONTENT_DISPOSITION => {
                self.note("content-disposition is made of a part's name and file name".into());
                return self;
            }
            Ok(name) => name,
            Err(error) => {
                let error: http::Error = error.into();
                self.note(format!("a field of a part: {error}"));
                return self;
            }
        };
        match value.try_into() {
            Ok(value) => {
                if self.headers.try_append(&name, value).is_err() {
                    self.note("too many fields in a part".into());
                }
            }
            Err(error) => {
                let error: http::Error = error.into();
                self.note(format!("the value of {name} of a part: {error}"));
            }
        }
        self
    }

    fn note(&mut self, mistake: String) {
        self.mistake
            .get_or_insert_with(|| Error::invalid(format!("multipart: {mistake}")));
    }

    /// Writes what stands above the part.
    fn ready(self, name: &str) -> Result<Ready> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let mut disposition = format!("form-data; name=\"{}\"", escape(name));
        if let Some(file_name) = &self.file_name {
            disposition.push_str("; filename=\"");
            disposition.push_str(&escape(file_name));
            disposition.push('"');
        }
        let disposition = HeaderValue::try_from(disposition).map_err(|_| {
            Error::invalid(
                "multipart: the name of a part, or its file name, holds a control character",
            )
        })?;
        let file = self.file_name.is_some();
        let octets = HeaderValue::from_static("application/octet-stream");
        let content_type = self.content_type.or_else(|| file.then_some(octets));
        let mut head = Vec::new();
        let mut put = |name: &[u8], value: &HeaderValue| {
            for part in [name, b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(part);
            }
        };
        // As browsers spell them, for servers that compare bytes.
        put(b"Content-Disposition", &disposition);
        if let Some(content_type) = &content_type {
            put(b"Content-Type", content_type);
        }
        for (name, value) in &self.headers {
            put(name.as_str().as_bytes(), value);
        }
        head.extend_from_slice(b"\r\n");
        Ok(Ready {
            head: head.into(),
            body: self.body,
        })
    }
}

/// A part with its fields written.
struct Ready {
    head: Bytes,
    body: Body,
}

impl Ready {
    fn try_clone(&self) -> Option<Self> {
        Some(Self {
            head: self.head.clone(),
            body: self.body.try_clone()?,
        })
    }
}

/// What stands between parts.
#[derive(Clone)]
struct Boundary(Bytes);

impl Boundary {
    fn put(&self, out: &mut BytesMut, first: bool, part: &Ready) {
        let before: &[u8] = if first { b"--" } else { b"\r\n--" };
        for piece in [before, &self.0, b"\r\n", &part.head] {
            out.put_slice(piece);
        }
    }

    fn close(&self, out: &mut BytesMut, first: bool) {
        let before: &[u8] = if first { b"--" } else { b"\r\n--" };
        for piece in [before, &self.0, b"--\r\n"] {
            out.put_slice(piece);
        }
    }

    /// The length of it all, given that of each part.
    fn length(&self, parts: &[Ready], len: impl Fn(&Ready) -> Option<u64>) -> Option<u64> {
        // Two dashes and a line end beside the boundary; a line end before all but the first; two dashes more in the last.
        let line = self.0.len() as u64 + 4;
        let last = line + if parts.is_empty() { 2 } else { 4 };
        parts.iter().enumerate().try_fold(last, |sum, (at, part)| {
            let before = if at == 0 { line } else { line + 2 };
            sum.checked_add(before + part.head.len() as u64)?
                .checked_add(len(part)?)
        })
    }
}

/// Makes the body for each attempt.
struct Form {
    boundary: Boundary,
    len: Option<u64>,
    replayable: bool,
    /// Taken by the first attempt if a part cannot be sent again.
    parts: Mutex<Option<Vec<Ready>>>,
}

impl Form {
    fn next(&self) -> io::Result<Vec<Ready>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match self.replayable {
            true => parts
                .as_deref()
                .and_then(|parts| parts.iter().map(Ready::try_clone).collect()),
            false => parts.take(),
        };
        next.ok_or_else(|| io::Error::other("a form that can be sent once was sent before"))
    }
}

impl Factory for Form {
    fn make(&self) -> BoxFuture<'static, io::Result<Body>> {
        let (parts, boundary) = (self.next(), self.boundary.clone());
        Box::pin(async move {
            let mut parts = parts?;
            for part in &mut parts {
                if part.body.is_bytes() {
                    continue;
                }
                // One part must not make up for what another one lacks.
                if let Some(len) = part.body.measured().await? {
                    part.body = exact(std::mem::take(&mut part.body), len);
                }
            }
            let left = boundary.length(&parts, |part| part.body.left());
            Ok(Body::from_source(Parts {
                boundary,
                parts: parts.into_iter(),
                begun: false,
                current: None,
                closed: false,
                left,
            }))
        })
    }

    fn len(&self) -> Option<u64> {
        self.len
    }

    fn is_replayable(&self) -> bool {
        self.replayable
    }
}

/// A form on its way.
struct Parts {
    boundary: Boundary,
    parts: std::vec::IntoIter<Ready>,
    begun: bool,
    /// The part that is being read.
    current: Option<Body>,
    closed: bool,
    left: Option<u64>,
}

impl Parts {
    /// What stands between the part that ended and the next one that has to be read, with small parts between.
    fn between(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        while out.len() < GATHERED && self.current.is_none() && !self.closed {
            let first = !std::mem::replace(&mut self.begun, true);
            match self.parts.next() {
                Some(part) => {
                    self.boundary.put(&mut out, first, &part);
                    match part.body.as_bytes() {
                        Some(bytes) if bytes.len() <= COPIED => out.put_slice(bytes),
                        _ => self.current = Some(part.body),
                    }
                }
                None => {
                    self.boundary.close(&mut out, first);
                    self.closed = true;
                }
            }
        }
        out.freeze()
    }
}

impl Source for Parts {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        while let Some(body) = &mut self.current {
            match ready!(body.poll_next(cx)) {
                // A part has no trailers to send.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.current = None,
            }
        }
        let between = self.between();
        self.left = self
            .left
            .map(|left| left.saturating_sub(between.len() as u64));
        Poll::Ready((!between.is_empty()).then(|| Ok(Frame::data(between))))
    }

    fn left(&self) -> Option<u64> {
        self.left
    }
}

impl Body {
    fn is_bytes(&self) -> bool {
        matches!(self.0, Repr::Empty | Repr::Full(_))
    }
}

/// 128 random bits of the system's, as text that needs no quotes.
fn boundary() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        Error::invalid(format!(
            "multipart: the system has no random numbers: {error}"
        ))
    })?;
    Ok(format!("sockeye-{:032x}", u128::from_le_bytes(random)))
}

/// Quotes and line ends as browsers write them; what else cannot stand in a field value is left for its check to find.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '"' => escaped.push_str("%22"),
            '\r' => escaped.push_str("%0D"),
            '\n' => escaped.push_str("%0A"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Whether a value begins with `type/subtype` and, if it goes on, does so with a parameter (RFC 9110 section 8.3.1).
fn is_media_type(value: &[u8]) -> bool {
    let token = |text: &[u8]| HeaderName::from_bytes(text).is_ok();
    let mut parts = value.splitn(2, |byte| *byte == b';');
    let essence = parts.next().unwrap_or_default().trim_ascii_end();
    let mut names = essence.splitn(2, |byte| *byte == b'/');
    names.next().is_some_and(token) && names.next().is_some_and(token)
}

/// A form of bytes up to this size becomes bytes, which go out with the head.
const LARGEST_COPIED: u64 = 64 * 1024;

/// A part up to this size is copied behind what stands above it.
const COPIED: usize = 4 * 1024;

/// So much of what stands between parts is put into one piece.
const GATHERED: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// The form as it is sent, with `BOUNDARY` in place of its boundary, and whether its length was known when it was made.
    async fn sent(form: Multipart) -> (String, bool) {
        let (content_type, body) = form.into_body().unwrap();
        let boundary = content_type.to_str().unwrap().to_owned();
        let (_, boundary) = boundary.split_once("; boundary=").unwrap();
        let body = body.ready().await.unwrap();
        let left = body.left();
        let bytes = body.collect().await.unwrap().bytes;
        if let Some(left) = left {
            assert_eq!(bytes.len() as u64, left);
        }
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        (text.replace(boundary, "BOUNDARY"), left.is_some())
    }

    fn streamed(text: &'static str) -> Body {
        Body::wrap(Unsized(text.into()))
    }

    /// A body that does not say how long it is.
    struct Unsized(Body);

    impl http_body::Body for Unsized {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            self.0.poll_next(cx)
        }
    }

    #[tokio::test]
    async fn what_is_on_the_wire() {
        let check = async |form: Multipart, expected: &str, has_length| {
            let expected = expected.replace('\n', "\r\n");
            assert_eq!(sent(form).await, (expected, has_length));
        };
        check(Multipart::new(), "--BOUNDARY--\n", true).await;
        check(
            Multipart::new().text("a", "1").text("a", ""),
            "--BOUNDARY\nContent-Disposition: form-data; name=\"a\"\n\n1\n\
             --BOUNDARY\nContent-Disposition: form-data; name=\"a\"\n\n\n--BOUNDARY--\n",
            true,
        )
        .await;
        let part = Part::new(vec![b'x'; 3]).file_name("a b.txt");
        let fields = part.header("X-Note", "one").header("x-note", "two");
        let head = "--BOUNDARY\nContent-Disposition: form-data; name=\"f\"; filename=\"a b.txt\"\n";
        check(
            Multipart::new().part("f", fields),
            &format!(
                "{head}Content-Type: application/octet-stream\nx-note: one\nx-note: two\n\nxxx\n--BOUNDARY--\n"
            ),
            true,
        )
        .await;
        let part = Part::new(streamed("stream")).file_name("a b.txt");
        check(
            Multipart::new().part(
                "f",
                part.header("content-type", "text/plain; charset=utf-8"),
            ),
            &format!("{head}Content-Type: text/plain; charset=utf-8\n\nstream\n--BOUNDARY--\n"),
            false,
        )
        .await;
    }

    /// Security C2: nothing of a name or of a value can end a line or a quote.
    #[tokio::test]
    async fn names_are_escaped_and_nothing_can_be_injected() {
        let hostile = "a\"; x=\"\r\nSet-Cookie: b\r\n\r\n--é€😀\t%22\\";
        let form = Multipart::new().part(hostile, Part::new("1").file_name(hostile));
        let (text, _) = sent(form).await;
        let escaped = "a%22; x=%22%0D%0ASet-Cookie: b%0D%0A%0D%0A--é€😀\t%22\\";
        assert_eq!(
            text,
            format!(
                "--BOUNDARY\r\nContent-Disposition: form-data; name=\"{escaped}\"; filename=\"{escaped}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n1\r\n--BOUNDARY--\r\n"
            )
        );
        let part = || Part::new("");
        for (form, said) in [
            (Multipart::new().text("a\0", ""), "control character"),
            (Multipart::new().text("\x7f", ""), "control character"),
            (
                Multipart::new().part("a", part().file_name("\x1b[2J")),
                "control character",
            ),
            (
                Multipart::new().part("a", part().header("x", "1\r\ny: 2")),
                "the value of x",
            ),
            (
                Multipart::new().part("a", part().header("x\r\ny", "1")),
                "a field",
            ),
            (
                Multipart::new().part("a", part().header("Content-Disposition", "inline")),
                "content-disposition",
            ),
            (
                Multipart::new().part("a", part().content_type("a/b\r\nc: d")),
                "content type",
            ),
            (
                Multipart::new().part("a", part().header("content-type", "text")),
                "no type/subtype",
            ),
            (
                Multipart::new().part("a", part().content_type("text/pl ain")),
                "no type/subtype",
            ),
        ] {
            let error = form.text("good", "").into_body().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(error.to_string().contains("multipart: "), "{error}");
            assert!(error.to_string().contains(said), "{error}");
            assert!(!error.to_string().contains(['\r', '\n', '\0']), "{error:?}");
        }
    }

    #[test]
    fn boundaries_are_random_and_need_no_quotes() {
        let boundaries: std::collections::HashSet<_> =
            (0..1000).map(|_| boundary().unwrap()).collect();
        assert_eq!(boundaries.len(), 1000);
        for boundary in boundaries {
            assert_eq!(boundary.len(), 40);
            let digits = boundary.strip_prefix("sockeye-").unwrap();
            assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }

    #[tokio::test]
    async fn what_can_be_sent_again_and_has_a_length_is_decided_by_the_parts() {
        let path = std::env::temp_dir().join(format!("sockeye-part-{}", std::process::id()));
        std::fs::write(&path, "content").unwrap();
        let function = || Body::replay(|| Box::pin(async { Ok("made".into()) }));
        let sized = || Body::replay_sized(4, || Box::pin(async { Ok("made".into()) }));
        let large = vec![b'x'; 100_000];
        for (body, replayable, before, after) in [
            (Body::from("text"), true, true, true),
            (Body::from(large), true, true, true),
            (sized(), true, true, true),
            (Body::file(&path), true, false, true),
            (
                Body::file(&path).with_progress(|_, _| ()),
                true,
                false,
                true,
            ),
            (function(), true, false, false),
            (streamed("once"), false, false, false),
            (Body::wrap(Body::from("once")), false, true, true),
        ] {
            let shown = format!("{body:?}");
            let form = Multipart::new().text("a", "1").part("b", Part::new(body));
            let (_, body) = form.text("c", "2").into_body().unwrap();
            assert_eq!(body.is_replayable(), replayable, "{shown}");
            assert_eq!(body.left().is_some(), before, "{shown}");
            let copy = body.try_clone();
            assert_eq!(copy.is_some(), replayable, "{shown}");
            let mut sent = Vec::new();
            for body in [Some(body), copy].into_iter().flatten() {
                let body = body.ready().await.unwrap();
                let left = body.left();
                assert_eq!(left.is_some(), after, "{shown}");
                let bytes = body.collect().await.unwrap().bytes;
                assert!(
                    left.is_none_or(|left| left == bytes.len() as u64),
                    "{shown}"
                );
                sent.push(bytes);
            }
            assert!(sent.windows(2).all(|two| two[0] == two[1]), "{shown}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    /// A part that is a byte short is not made whole by another that is a byte too long.
    #[tokio::test]
    async fn each_part_is_held_to_its_own_length() {
        let part = |len: u64| Part::new(exact(streamed("12345"), len));
        let form = Multipart::new().part("a", part(6)).part("b", part(4));
        let (_, body) = form.into_body().unwrap();
        let error = body.collect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body);
        assert!(
            error.to_string().contains("1 bytes short of the 6"),
            "{error}"
        );

        let form = Multipart::new().text("a", "1").file("b", "/no/such/file");
        let (_, body) = form.into_body().unwrap();
        let error = body.ready().await.unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }

    #[tokio::test]
    async fn a_hundred_thousand_parts_come_in_few_pieces() {
        let mut form = Multipart::new();
        for number in 0..100_000 {
            form = form.text("n", number.to_string());
        }
        let (_, body) = form.into_body().unwrap();
        let left = body.left().unwrap();
        let mut body = body.ready().await.unwrap();
        let (mut pieces, mut len) = (0, 0);
        while let Some(frame) = body.next_frame().await {
            len += frame.unwrap().into_data().unwrap().len() as u64;
            pieces += 1;
        }
        assert_eq!(len, left);
        assert!(pieces <= len.div_ceil(GATHERED as u64), "{pieces} pieces");
    }
}
