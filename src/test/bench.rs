//! What the micro-benches measure, made reachable for them and for nobody else.
//!
//! Hidden from the documentation and no part of the public surface. It only wraps what the library does anyway.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::{HeaderMap, HeaderValue, Method, Uri};
use tokio::time::Instant;

#[cfg(feature = "sse")]
use crate::body::Events;
#[cfg(feature = "json")]
use crate::body::Ndjson;
use crate::body::{Accepted, Applied, Body, BytesStream, Decoding, Pieces};
use crate::call::Trying;
use crate::client::Client;
use crate::codec::request_head::encode;
use crate::codec::{BodyLength, ChunkedDecoder, ChunkedStep, HeadDecoder, HeadStep, MethodKind};
use crate::config::Limits;
use crate::head::{DefaultFields, RequestHead, ResponseHead};
use crate::policy::{OriginPolicy, Policies, Resilience};
use crate::pool::host::{HostLimits, HostPool, Lent, Spoken};
use crate::stats::{CallTold, Event, Observer, Observers};
use crate::url::{Target, UrlInput};

/// Checks a URI as every call does; answers its port.
pub fn check_uri(uri: &Uri) -> Option<u16> {
    let parsed = UrlInput::Uri(Cow::Borrowed(uri)).parse(None).ok()?;
    Some(parsed.target.port())
}

/// Whether anybody watches the calls of a client, as every call asks.
pub fn is_watched(client: &Client) -> bool {
    client.is_watched()
}

/// Whether anybody listens to spans.
pub fn spans_are_on() -> bool {
    crate::stats::spans_are_on()
}

/// A call that an observer is told of.
pub struct Telling(Arc<CallTold>);

impl Telling {
    /// `None` if the observer wants to know nothing.
    pub fn new(observer: Arc<dyn Observer>) -> Option<Self> {
        let observers = Observers::new(vec![observer])?;
        Some(Self(CallTold::new(Some(&observers))))
    }

    /// Tells one event, of the group of messages.
    pub fn tell(&self) {
        self.0.tell(|call| Event::BodyEnd {
            call,
            connection: 7,
            bytes: 42,
        });
    }
}

/// Encodes one head over and over into the same buffer.
#[derive(Debug)]
pub struct Encoder {
    head: RequestHead,
    defaults: DefaultFields,
    out: BytesMut,
}

impl Encoder {
    /// A GET of `url` with `headers` beside the usual defaults; `None` if the URL is not valid.
    pub fn new(url: &str, headers: HeaderMap) -> Option<Self> {
        let target: Target = UrlInput::Text(url.into()).parse(None).ok()?.target;
        let mut defaults = HeaderMap::new();
        defaults.insert("accept", HeaderValue::from_static("*/*"));
        defaults.insert("user-agent", HeaderValue::from_static("sockeye/0.1.0"));
        Some(Self {
            head: RequestHead {
                method: Method::GET,
                target,
                headers,
                asks: None,
            },
            defaults: DefaultFields::new(&defaults),
            out: BytesMut::new(),
        })
    }

    /// Encodes the head; answers its length.
    pub fn encode(&mut self) -> usize {
        self.out.clear();
        match encode(
            &mut self.out,
            &self.head,
            &self.defaults,
            BodyLength::None,
            None,
        ) {
            Ok(_) => self.out.len(),
            Err(_) => 0,
        }
    }
}

/// The policies of one origin, as a call asks them that succeeds at once.
pub struct Decisions {
    policies: Policies,
    origin: Arc<OriginPolicy>,
    url: Uri,
    head: ResponseHead,
    now: Instant,
}

impl Decisions {
    /// Policies, and the response that they hear of; `None` if it is not one.
    pub fn new(resilience: Resilience, response: &[u8]) -> Option<Self> {
        let url = Uri::from_static("http://api.example.com/");
        let target: Target = UrlInput::Uri(Cow::Borrowed(&url)).parse(None).ok()?.target;
        let mut heads = HeadDecoder::default();
        let decoded = heads.decode(response, MethodKind::Other, &Limits::default());
        let Ok(HeadStep::Final(head)) = decoded else {
            return None;
        };
        let head = heads.keep(&head, response, &[]);
        let now = Instant::now();
        let policies = Policies::new(resilience, now);
        let origin = policies.of(&target.origin(), now);
        Some(Self {
            policies,
            origin,
            url,
            head,
            now,
        })
    }

    /// Asks before an attempt and tells after it; answers whether it was a success.
    pub fn first_try(&self) -> bool {
        Trying::first_try(
            &self.policies,
            &self.origin,
            self.now,
            &self.url,
            &self.head,
        )
    }

    /// What a call without policies does instead.
    pub fn is_set(&self) -> bool {
        self.policies.is_set()
    }
}

/// Decodes heads, keeping what a connection keeps.
#[derive(Debug, Default)]
pub struct Decoder {
    heads: HeadDecoder,
    limits: Limits,
}

impl Decoder {
    /// Decodes a response with its body of known length, and keeps both as a call does; answers bytes of the body.
    pub fn decode(&mut self, response: &[u8]) -> usize {
        self.heads.reset();
        let Ok(HeadStep::Final(head)) =
            self.heads.decode(response, MethodKind::Other, &self.limits)
        else {
            return 0;
        };
        let body = response.get(head.len..).unwrap_or_default();
        self.heads.keep(&head, response, body).kept_body_len()
    }

    /// As [`decode`](Self::decode), and builds the map of the fields; answers how many there are.
    pub fn decode_to_map(&mut self, response: &[u8]) -> usize {
        self.heads.reset();
        let Ok(HeadStep::Final(head)) =
            self.heads.decode(response, MethodKind::Other, &self.limits)
        else {
            return 0;
        };
        let body = response.get(head.len..).unwrap_or_default();
        self.heads.keep(&head, response, body).to_map().len()
    }

    /// Reads a chunked body; answers its bytes of data.
    pub fn chunked(&self, body: &[u8]) -> usize {
        let mut decoder = ChunkedDecoder::new(&self.limits);
        let (mut at, mut data) = (0, 0);
        while let Ok(step) = decoder.step(body.get(at..).unwrap_or_default()) {
            match step {
                ChunkedStep::Data { skip, len } => {
                    at += skip + len;
                    data += len;
                }
                ChunkedStep::NeedMore { .. } | ChunkedStep::End { .. } => break,
            }
        }
        data
    }
}

/// A response body that is there already, to be read by the adapters of a response.
#[derive(Clone, Debug)]
pub struct Content {
    pieces: Vec<Bytes>,
    target: Target,
}

impl Content {
    /// A body in pieces of so many bytes; `None` if there is none to a piece.
    pub fn new(content: &[u8], piece: usize) -> Option<Self> {
        let target = UrlInput::Text("http://peer.test/".into())
            .parse(None)
            .ok()?;
        if piece == 0 {
            return None;
        }
        Some(Self {
            pieces: content.chunks(piece).map(Bytes::copy_from_slice).collect(),
            target: target.target,
        })
    }

    /// The pieces as they are, for whoever reads them by other means.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Reads it as lines of JSON, and hands over each value; answers how many there were.
    #[cfg(feature = "json")]
    pub fn json_lines<T: serde::de::DeserializeOwned>(&self, take: impl FnMut(T)) -> usize {
        drive(Ndjson::new(self.body(None)), take)
    }

    /// Reads it as server-sent events, and hands over the data of each; answers how many there were.
    #[cfg(feature = "sse")]
    pub fn events(&self, mut take: impl FnMut(&str)) -> usize {
        drive(Events::new(self.body(None)), |event| take(event.data()))
    }

    /// Takes a coding off, and hands over each piece; answers how many there were.
    pub fn decoded(&self, coding: &str, take: impl FnMut(Bytes)) -> usize {
        drive(BytesStream::new(self.body(Some(coding))), take)
    }

    fn body(&self, coding: Option<&str>) -> Pieces {
        let body = Body::stream(There(self.pieces.clone().into_iter()));
        let names = coding.map(str::as_bytes).into_iter();
        let origin = self.target.origin();
        let body = match Applied::of(names, Accepted::ALL) {
            Some(applied) => body.decoded(Decoding::new(applied, origin.clone(), Method::GET)),
            None => body,
        };
        Pieces::new(body, origin)
    }
}

/// Polls a stream whose source is there; an error of it is the end.
fn drive<T, E>(
    mut stream: impl Stream<Item = Result<T, E>> + Unpin,
    mut take: impl FnMut(T),
) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut count = 0;
    while let Poll::Ready(Some(Ok(item))) = Pin::new(&mut stream).poll_next(&mut cx) {
        take(item);
        count += 1;
    }
    count
}

struct There(std::vec::IntoIter<Bytes>);

impl Stream for There {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

/// The machine of one origin, with integers for connections.
#[derive(Debug)]
pub struct Machine {
    pool: HostPool<u32, (), ()>,
    now: Instant,
}

impl Machine {
    /// A machine with `idle` connections.
    pub fn new(idle: u32) -> Self {
        let now = Instant::now();
        let limits = HostLimits {
            connections: None,
            line: None,
            sessions: 1,
            spread: None,
            max_requests: None,
            session_idle: std::time::Duration::MAX,
            hedge: std::time::Duration::MAX,
        };
        let mut pool = HostPool::new(limits, Spoken::Http1, now);
        for connection in 0..idle {
            let _ = pool.begin_dial(now);
            let _ = pool.release(connection, now, now + std::time::Duration::from_secs(3600));
        }
        Self { pool, now }
    }

    /// Lends a connection and takes it back; answers which.
    pub fn lend_and_release(&mut self) -> Option<u32> {
        let mut expired = Vec::new();
        let Lent::Connection(connection) = self.pool.checkout(self.now, &mut expired)?.lent else {
            return None;
        };
        let _ = self.pool.release(
            connection,
            self.now,
            self.now + std::time::Duration::from_secs(3600),
        );
        Some(connection)
    }
}
