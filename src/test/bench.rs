//! What the micro-benches measure, made reachable for them and for nobody else.
//!
//! Hidden from the documentation and no part of the public surface. It only wraps what the library does anyway.

use std::sync::Arc;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method, Uri};
use tokio::time::Instant;

use crate::call::Trying;
use crate::codec::request_head::encode;
use crate::codec::{BodyLength, ChunkedDecoder, ChunkedStep, HeadDecoder, HeadStep, MethodKind};
use crate::config::Limits;
use crate::head::{DefaultFields, RequestHead, ResponseHead};
use crate::policy::{OriginPolicy, Policies, Resilience};
use crate::pool::host::{HostLimits, HostPool, Lent, Spoken};
use crate::url::{Target, UrlInput};

/// Checks a URI as every call does; answers its port.
pub fn check_uri(uri: &Uri) -> Option<u16> {
    let parsed = UrlInput::Uri(uri.clone()).parse(None).ok()?;
    Some(parsed.target.port())
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
        match encode(&mut self.out, &self.head, &self.defaults, BodyLength::None) {
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
        let target: Target = UrlInput::Uri(url.clone()).parse(None).ok()?.target;
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
