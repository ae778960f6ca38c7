//! The scripted peer: connections in memory whose other end the test holds.
//!
//! A [`World`] is the connector of a client. Each dial makes a pair of streams; the test takes the peer's end with
//! [`World::accept`] and writes down byte by byte what a server does. Dials can be refused, delayed or made to hang. Nothing
//! here knows the library's insides.

#[cfg(feature = "http2")]
mod parts;

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sockeye::test::{at_rest, check};
use sockeye::{Alpn, BoxFuture, Client, ClientBuilder, Connect, Route, Socket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::faults::{Faults, Wire};

#[cfg(feature = "http2")]
pub(crate) use parts::{PeerReader, PeerWriter};

/// Everything a client can dial. Clones share everything.
#[derive(Clone)]
pub(crate) struct World(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    dialled: Notify,
    open: Arc<AtomicUsize>,
}

struct State {
    /// What the next dials do, one each; then `always`.
    plans: VecDeque<Dial>,
    always: Dial,
    waiting: VecDeque<PeerConnection>,
    dials: usize,
    accepts: usize,
    buffer: usize,
    faults: Faults,
    /// What the next connections settle on, one each; then `negotiates`.
    negotiations: VecDeque<Alpn>,
    negotiates: Option<Alpn>,
}

/// What a dial does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dial {
    /// It connects at once.
    Open,
    /// It fails.
    Refuse,
    /// It never ends.
    Hang,
    /// It connects after a while.
    Delay(Duration),
    /// It fails after a while.
    RefuseAfter(Duration),
}

impl World {
    /// A world in which every dial connects at once.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                plans: VecDeque::new(),
                always: Dial::Open,
                waiting: VecDeque::new(),
                dials: 0,
                accepts: 0,
                buffer: 1024 * 1024,
                faults: Faults::default(),
                negotiations: VecDeque::new(),
                negotiates: None,
            }),
            dialled: Notify::new(),
            open: Arc::default(),
        }))
    }

    /// A client with default settings that dials here.
    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    /// Starts a client that dials here.
    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder().connector(self.clone())
    }

    /// What the next dial that has no plan yet does.
    pub(crate) fn plan(&self, dial: Dial) {
        self.state().plans.push_back(dial);
    }

    /// What every dial without a plan does.
    pub(crate) fn always(&self, dial: Dial) {
        self.state().always = dial;
    }

    /// How many bytes each direction of later connections takes before a write has to wait.
    pub(crate) fn buffer(&self, bytes: usize) {
        self.state().buffer = bytes;
    }

    /// What goes wrong on later connections.
    pub(crate) fn faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Later connections count as secured and speak this.
    pub(crate) fn negotiates(&self, alpn: Alpn) {
        self.state().negotiates = Some(alpn);
    }

    /// The next connection that has no plan yet counts as secured and speaks this.
    #[cfg(feature = "http2")]
    pub(crate) fn negotiates_once(&self, alpn: Alpn) {
        self.state().negotiations.push_back(alpn);
    }

    /// Dials so far, those that failed included.
    pub(crate) fn dials(&self) -> usize {
        self.state().dials
    }

    /// Connections so far.
    pub(crate) fn accepts(&self) -> usize {
        self.state().accepts
    }

    /// Connections whose client's end is not closed yet.
    pub(crate) fn open(&self) -> usize {
        self.0.open.load(Ordering::SeqCst)
    }

    /// The peer's end of the next connection, in the order in which they were made.
    pub(crate) async fn accept(&self) -> PeerConnection {
        loop {
            let dialled = self.0.dialled.notified();
            if let Some(connection) = self.state().waiting.pop_front() {
                return connection;
            }
            dialled.await;
        }
    }

    /// Answers every request on every further connection with what `answer` makes of it, until the test ends.
    pub(crate) fn serve(&self, answer: impl Fn(&Request) -> String + Clone + Send + 'static) {
        let world = self.clone();
        tokio::spawn(async move {
            loop {
                let mut connection = world.accept().await;
                let answer = answer.clone();
                tokio::spawn(async move {
                    while let Some(request) = connection.next_request().await {
                        if !connection.try_write(answer(&request).as_bytes()).await {
                            return;
                        }
                    }
                });
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// The client's end of a new connection, for a client that is not ours.
    #[cfg(feature = "http2")]
    pub(crate) fn stream(&self) -> Wire {
        self.wire("peer.test").0
    }

    fn connect(&self, host: &str) -> Socket {
        let (wire, alpn) = self.wire(host);
        let socket = Socket::from_io(wire);
        match alpn {
            Some(alpn) => socket.secured(alpn),
            None => socket,
        }
    }

    fn wire(&self, host: &str) -> (Wire, Option<Alpn>) {
        let mut state = self.state();
        let (ours, theirs) = duplex(state.buffer);
        let alpn = state.negotiations.pop_front().or(state.negotiates);
        let wire = Wire::new(ours, state.faults, Arc::clone(&self.0.open));
        let connection = PeerConnection {
            io: Box::new(theirs),
            read: Vec::new(),
            host: host.to_owned(),
            number: state.accepts,
            alpn,
            reset: wire.resets(),
        };
        state.accepts += 1;
        state.waiting.push_back(connection);
        drop(state);
        self.0.dialled.notify_waiters();
        (wire, alpn)
    }
}

impl Connect for World {
    fn connect<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, io::Result<Socket>> {
        let plan = {
            let mut state = self.state();
            state.dials += 1;
            state.plans.pop_front().unwrap_or(state.always)
        };
        Box::pin(async move {
            match plan {
                Dial::Open => {}
                Dial::Refuse => return Err(io::ErrorKind::ConnectionRefused.into()),
                Dial::Hang => pending().await,
                Dial::Delay(time) => tokio::time::sleep(time).await,
                Dial::RefuseAfter(time) => {
                    tokio::time::sleep(time).await;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
            }
            Ok(self.connect(route.first_hop().0))
        })
    }
}

/// The peer's end of a connection. Dropping it closes it.
#[cfg_attr(
    not(feature = "http2"),
    expect(dead_code, reason = "only sessions ask for all of it")
)]
pub(crate) struct PeerConnection {
    io: Box<dyn Stream>,
    /// Bytes that were read and not asked for yet.
    read: Vec<u8>,
    /// The host that was dialled.
    pub(crate) host: String,
    /// How many connections came before this one.
    pub(crate) number: usize,
    /// What the connection settled on, if its world [negotiates](World::negotiates).
    pub(crate) alpn: Option<Alpn>,
    reset: Arc<AtomicBool>,
}

/// Memory, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A request as it came over the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// Request line and fields, with the empty line.
    pub(crate) head: String,
    /// The content, chunks put together.
    pub(crate) body: Vec<u8>,
    /// Every byte.
    pub(crate) raw: Vec<u8>,
}

impl Request {
    /// The method.
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The target.
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of the first field of this name, which is lower case on the wire.
    pub(crate) fn field<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.fields(name).next()
    }

    /// The values of all fields of this name.
    pub(crate) fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .filter(move |(known, _)| *known == name)
            .map(|(_, value)| value)
    }
}

impl PeerConnection {
    /// Shakes hands as the server of a TLS connection; `None` if the client does not.
    #[cfg(feature = "rustls")]
    pub(crate) async fn secure(
        self,
        config: Arc<tokio_rustls::rustls::ServerConfig>,
    ) -> Option<Self> {
        let tls = tokio_rustls::TlsAcceptor::from(config)
            .accept(self.io)
            .await;
        Some(Self {
            io: Box::new(tls.ok()?),
            ..self
        })
    }

    /// Reads a whole request, its body by its framing. Panics if the connection ends before one has begun.
    pub(crate) async fn read_request(&mut self) -> Request {
        self.next_request().await.expect("a request")
    }

    /// Reads a whole request; `None` if the connection ends in it or before it.
    pub(crate) async fn next_request(&mut self) -> Option<Request> {
        let head = self.read_head().await?;
        self.read_body(head).await
    }

    /// Reads the body of a request whose head was read.
    pub(crate) async fn read_body(&mut self, mut request: Request) -> Option<Request> {
        if request.field("transfer-encoding").is_some() {
            self.read_chunks(&mut request).await?;
        } else if let Some(length) = request.field("content-length") {
            let length = length.parse().expect("a length");
            let body = self.take(length).await?;
            request.raw.extend_from_slice(&body);
            request.body = body;
        }
        Some(request)
    }

    /// Reads a request up to its empty line.
    pub(crate) async fn read_head(&mut self) -> Option<Request> {
        let raw = self.take_through(b"\r\n\r\n").await?;
        let head = String::from_utf8(raw.clone()).expect("a head of ASCII");
        Some(Request {
            head,
            body: Vec::new(),
            raw,
        })
    }

    /// Reads one chunk of a request body; an empty one is the last.
    pub(crate) async fn read_chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.take_through(b"\r\n").await?;
        let size = std::str::from_utf8(&line).expect("a size line").trim_end();
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        let mut data = self.take(size + 2).await?;
        assert_eq!(data.split_off(size), b"\r\n", "the end of a chunk");
        Some(data)
    }

    async fn read_chunks(&mut self, request: &mut Request) -> Option<()> {
        loop {
            let line = self.take_through(b"\r\n").await?;
            let size = std::str::from_utf8(&line).expect("a size line").trim_end();
            let size = usize::from_str_radix(size, 16).expect("a chunk size");
            request.raw.extend_from_slice(&line);
            let data = self.take(size + 2).await?;
            assert!(data.ends_with(b"\r\n"), "the end of a chunk");
            request.raw.extend_from_slice(&data);
            request.body.extend_from_slice(&data[..size]);
            if size == 0 {
                return Some(());
            }
        }
    }

    /// Reads so many bytes; `None` if the connection ends before.
    pub(crate) async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.read.len() < count {
            self.read_more().await?;
        }
        let rest = self.read.split_off(count);
        Some(std::mem::replace(&mut self.read, rest))
    }

    /// Whether a byte has come that was not asked for yet.
    pub(crate) async fn has_input(&mut self) -> bool {
        let mut read = std::pin::pin!(self.io.read_buf(&mut self.read));
        let polled =
            std::future::poll_fn(|cx| std::task::Poll::Ready(read.as_mut().poll(cx))).await;
        polled.is_ready() || !self.read.is_empty()
    }

    pub(crate) async fn take_through(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut from = 0;
        loop {
            let found = self.read[from..]
                .windows(end.len())
                .position(|window| window == end);
            if let Some(at) = found {
                return self.take(from + at + end.len()).await;
            }
            from = self.read.len().saturating_sub(end.len() - 1);
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Option<()> {
        let read = self.io.read_buf(&mut self.read).await.ok()?;
        (read > 0).then_some(())
    }

    /// Everything until the client closes the connection.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        while self.read_more().await.is_some() {}
        std::mem::take(&mut self.read)
    }

    /// Returns when the client has closed the connection; panics if a byte comes instead.
    pub(crate) async fn closed(&mut self) {
        let rest = self.read_to_end().await;
        assert_eq!(String::from_utf8_lossy(&rest), "", "nothing but the end");
    }

    /// Writes; panics if the client has closed.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_write(bytes.as_ref()).await, "the client is there");
    }

    /// Writes; answers whether the client took it.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.io.write_all(bytes).await.is_ok()
    }

    /// Writes byte by byte, and lets the client read each. Answers whether the client took all.
    pub(crate) async fn write_slowly(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            if !self.try_write(&[*byte]).await {
                return false;
            }
            yield_now().await;
            yield_now().await;
        }
        true
    }

    /// Ends the peer's direction; the other stays open.
    pub(crate) async fn shutdown(&mut self) {
        self.io.shutdown().await.expect("memory does not fail");
    }

    /// Closes both directions.
    pub(crate) fn close(self) {
        drop(self);
    }
}

/// A response of status 200 with this body.
pub(crate) fn ok(body: &str) -> String {
    reply("200 OK", "", body)
}

/// A response with a status, further fields (each ended by CRLF) and a body with its length.
pub(crate) fn reply(status: &str, fields: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Waits, without letting time pass, until the client does nothing; then the pool must be at rest, and every connection that
/// is open must be an idle one.
pub(crate) async fn settle(client: &Client, world: &World) {
    settle_among(client, || world.open()).await;
}

/// The same where something else counts the open connections.
pub(crate) async fn settle_among(client: &Client, open: impl Fn() -> usize) {
    let mut stats = client.stats();
    for _ in 0..2000 {
        let total = &stats.total;
        if total.connections_active + total.connections_connecting == 0
            && total.requests_pending + total.requests_active == 0
            && total.connections_idle == open()
        {
            break;
        }
        yield_now().await;
        stats = client.stats();
    }
    check(client);
    at_rest(client);
    assert_eq!(
        open(),
        stats.total.connections_idle,
        "open sockets and idle connections:\n{stats}"
    );
    assert_eq!(stats.total.requests_active, 0, "{stats}");
}

/// Lets every other task run until it has to wait, without letting time pass.
pub(crate) async fn let_others_run() {
    for _ in 0..100 {
        yield_now().await;
    }
}

/// Waits, without letting time pass, for something to become true.
pub(crate) async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if is_true() {
            return;
        }
        yield_now().await;
    }
    panic!("never came true: {what}");
}
