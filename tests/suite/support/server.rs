//! A scripted HTTP/1.1 server on real sockets of 127.0.0.1, with and without TLS.
//!
//! It is not a server to imitate: a script is an async function over one [`Peer`], and may answer, stall, cut or lie. It
//! runs on a thread and a runtime of its own, so that a test can block its runtime and the server still acts. The tests
//! of `network`, `tls` and `interop` use it; everything in memory uses the scripted peer instead.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as blocking};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

#[cfg(feature = "rustls")]
pub(crate) use secure::{Authority, TLS12, TLS13};
#[cfg(feature = "rustls")]
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// A server that runs until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    secure: bool,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the server's tasks report to the test.
#[derive(Default)]
struct Shared {
    accepted: AtomicUsize,
    open: AtomicUsize,
    requests: Mutex<Vec<String>>,
    #[cfg(feature = "rustls")]
    handshakes: Mutex<Vec<Result<(), String>>>,
    orders: Mutex<Vec<mpsc::UnboundedSender<Order>>>,
}

/// What all connections that wait for a request shall do.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Close as the protocol wants it: TLS says so before the TCP connection ends.
    Close,
    /// End the TCP connection without a word of TLS.
    #[cfg(feature = "rustls")]
    Cut,
    /// Send these bytes, which nobody asked for.
    Send(&'static [u8]),
}

struct Order {
    action: Action,
    done: blocking::Sender<()>,
}

/// What TLS a server speaks; `None` for none.
#[cfg(feature = "rustls")]
type Security = Option<Arc<ServerConfig>>;
#[cfg(not(feature = "rustls"))]
type Security = Option<std::convert::Infallible>;

impl Server {
    /// Speaks plain HTTP: `script` runs once for each connection.
    pub(crate) fn plain<F>(script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start(None, script)
    }

    /// Speaks TLS: `script` runs once for each connection that shook hands.
    #[cfg(feature = "rustls")]
    pub(crate) fn tls<F>(
        config: Arc<ServerConfig>,
        script: impl Fn(Peer) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start(Some(config), script)
    }

    fn start<F>(security: Security, script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound listener has one");
        listener.set_nonblocking(true).expect("tokio needs it");
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let secure = security.is_some();
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime of its own");
                runtime.block_on(async move {
                    let listener = TcpListener::from_std(listener).expect("it does not block");
                    tokio::select! {
                        () = accept(&listener, &security, &shared, script) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        Self {
            address,
            secure,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of this server by its address.
    pub(crate) fn url(&self, path: &str) -> String {
        self.url_of("127.0.0.1", path)
    }

    /// A URL of this server under another name of this machine.
    pub(crate) fn url_of(&self, host: &str, path: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{host}:{}{path}", self.address.port())
    }

    /// TCP connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections whose script still runs.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The requests that arrived, as `METHOD /path`, in the order of their end.
    pub(crate) fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }

    /// How the TLS handshakes ended.
    #[cfg(feature = "rustls")]
    pub(crate) fn handshakes(&self) -> Vec<Result<(), String>> {
        lock(&self.shared.handshakes).clone()
    }

    /// Has every connection that waits for a request do this, and blocks until all did: a test's own runtime sees nothing
    /// of it before its next turn.
    pub(crate) fn order(&self, action: &Action) {
        let (done, acknowledged) = blocking::channel();
        let mut given = 0;
        for peer in lock(&self.shared.orders).iter() {
            let order = Order {
                action: action.clone(),
                done: done.clone(),
            };
            // A connection that has ended takes no orders.
            given += usize::from(peer.send(order).is_ok());
        }
        assert!(given > 0, "no connection is there to be told {action:?}");
        for _ in 0..given {
            acknowledged
                .recv_timeout(PATIENCE)
                .expect("every connection obeys");
        }
    }

    /// Blocks until this machine has delivered the end of the stream to all of the client's sockets that are open.
    pub(crate) fn end_arrived(&self) {
        self.arrived("the end of the stream", |socket| socket.state == CLOSE_WAIT);
    }

    /// How many of the client's sockets are not closed, in CLOSE_WAIT or otherwise; `None` where the system does not tell.
    pub(crate) fn client_sockets(&self) -> Option<usize> {
        client_sockets(self.address).map(|sockets| sockets.len())
    }

    /// Blocks until each of the client's sockets holds bytes that nobody has read.
    pub(crate) fn bytes_arrived(&self) {
        self.arrived("bytes", |socket| socket.unread > 0);
    }

    /// Blocks until a TLS handshake is done for the server, too, which has then sent its session tickets.
    #[cfg(feature = "rustls")]
    pub(crate) fn shook_hands(&self) {
        let begun = Instant::now();
        while self.handshakes().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "no handshake came to an end");
            std::thread::yield_now();
        }
    }

    fn arrived(&self, what: &str, of: impl Fn(&ClientSocket) -> bool) {
        let begun = Instant::now();
        // Where the system does not tell, loopback is as good as immediate.
        while let Some(sockets) = client_sockets(self.address) {
            if !sockets.is_empty() && sockets.iter().all(&of) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} never arrived");
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            // A panic in a script would otherwise only show as a connection that closed.
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the server panicked"
            );
        }
    }
}

async fn accept<F>(
    listener: &TcpListener,
    security: &Security,
    shared: &Arc<Shared>,
    script: impl Fn(Peer) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (tcp, _) = listener.accept().await.expect("loopback accepts");
        tcp.set_nodelay(true).expect("a TCP socket has it");
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let (giver, orders) = mpsc::unbounded_channel();
        lock(&shared.orders).push(giver);
        let peer = |stream| Peer {
            number,
            stream,
            buffer: BytesMut::new(),
            orders,
            shared: Arc::clone(shared),
            _open: Open(Arc::clone(shared)),
        };
        match security {
            None => {
                tokio::spawn(script(peer(Stream::Plain(tcp))));
            }
            #[cfg(feature = "rustls")]
            Some(config) => {
                // Handshakes run one after the other: the scripts are what is of interest.
                let accepted = TlsAcceptor::from(Arc::clone(config)).accept(tcp).await;
                let outcome = accepted.as_ref().map(drop).map_err(ToString::to_string);
                lock(&shared.handshakes).push(outcome);
                match accepted {
                    Ok(tls) => {
                        tokio::spawn(script(peer(Stream::Tls(Box::new(tls)))));
                    }
                    Err(_) => drop(Open(Arc::clone(shared))),
                }
            }
            #[cfg(not(feature = "rustls"))]
            Some(never) => match *never {},
        }
    }
}

/// One connection, seen from the server. Dropping it closes the socket without a word of TLS.
pub(crate) struct Peer {
    /// Which accepted connection this is, from 0.
    pub(crate) number: usize,
    stream: Stream,
    buffer: BytesMut,
    orders: mpsc::UnboundedReceiver<Order>,
    shared: Arc<Shared>,
    _open: Open,
}

enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "rustls")]
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// Counts a connection as open.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request that arrived completely.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// The head as it came.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The value of a field, with the blanks around it taken off.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

impl Peer {
    /// The next request, or `None` when the connection ended, by the client or by an order.
    pub(crate) async fn request(&mut self) -> Option<Request> {
        while self.buffer.is_empty() {
            tokio::select! {
                biased;
                Some(order) = self.orders.recv() => {
                    let goes_on = obey(&mut self.stream, &order.action).await;
                    // The test may have given up by now; then nobody listens.
                    let _ = order.done.send(());
                    if !goes_on {
                        return None;
                    }
                }
                read = self.stream.read(&mut self.buffer) => {
                    if !matches!(read, Ok(1..)) {
                        return None;
                    }
                }
            }
        }
        let request = self.read_request().await?;
        lock(&self.shared.requests).push(format!("{} {}", request.method, request.path));
        Some(request)
    }

    async fn read_request(&mut self) -> Option<Request> {
        let mut head = String::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            head.push_str(&line);
            head.push('\n');
        }
        let mut parts = head.split(' ');
        let mut request = Request {
            method: parts.next()?.to_owned(),
            path: parts.next()?.to_owned(),
            head: head.clone(),
            body: Vec::new(),
        };
        if request.field("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&self.line().await?, 16).ok()?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    break;
                }
                let chunk = self.exactly(size).await?;
                request.body.extend_from_slice(&chunk);
                self.line().await?;
            }
        } else if let Some(length) = request.field("content-length") {
            let length = length.parse().ok()?;
            request.body = self.exactly(length).await?.into();
        }
        Some(request)
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(at + 1);
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                return Some(text);
            }
            self.fill().await?;
        }
    }

    async fn exactly(&mut self, size: usize) -> Option<Bytes> {
        while self.buffer.len() < size {
            self.buffer.reserve(size - self.buffer.len());
            self.fill().await?;
        }
        Some(self.buffer.split_to(size).freeze())
    }

    async fn fill(&mut self) -> Option<()> {
        matches!(self.stream.read(&mut self.buffer).await, Ok(1..)).then_some(())
    }

    /// Waits until the client has sent anything at all, and leaves it unparsed.
    pub(crate) async fn any_byte(&mut self) {
        if self.buffer.is_empty() {
            self.fill().await;
        }
    }

    /// Waits for the client to end the connection.
    pub(crate) async fn end(&mut self) {
        while self.fill().await.is_some() {
            self.buffer.clear();
        }
    }

    /// Sends bytes as they are. A client that has gone away is no concern of a script.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write(bytes.as_ref()).await;
    }

    /// Sends a status of 200 with this body.
    pub(crate) async fn answer(&mut self, body: impl AsRef<[u8]>) {
        self.send(response(body.as_ref())).await;
    }

    /// Ends the server's direction, and waits for the client to end the other.
    pub(crate) async fn finish(&mut self) {
        obey(&mut self.stream, &Action::Close).await;
        self.end().await;
    }

    /// Closes as the protocol wants it.
    pub(crate) async fn close(mut self) {
        obey(&mut self.stream, &Action::Close).await;
    }

    /// Closes with a reset instead of an end.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(self.stream.tcp())
            .set_linger(Some(Duration::ZERO))
            .expect("a TCP socket can linger");
    }

    /// Sends bytes and the close_notify of TLS in one piece, and leaves the TCP connection open.
    #[cfg(feature = "rustls")]
    pub(crate) async fn send_with_close_notify(&mut self, bytes: impl AsRef<[u8]>) {
        use std::io::Write;

        let Stream::Tls(tls) = &mut self.stream else {
            panic!("only TLS has a close_notify");
        };
        let (_, session) = tls.get_mut();
        session
            .writer()
            .write_all(bytes.as_ref())
            .expect("the buffer of a session takes a small response");
        session.send_close_notify();
        let _ = tls.flush().await;
    }

    /// Sends bytes below TLS, where no record protects them.
    #[cfg(feature = "rustls")]
    pub(crate) async fn send_below(&mut self, bytes: impl AsRef<[u8]>) {
        let Stream::Tls(tls) = &mut self.stream else {
            panic!("nothing is below TCP");
        };
        let (tcp, _) = tls.get_mut();
        let _ = tcp.write_all(bytes.as_ref()).await;
    }

    /// The record that this content makes, for [`send_below`](Self::send_below).
    #[cfg(feature = "rustls")]
    pub(crate) fn record(&mut self, content: impl AsRef<[u8]>) -> Vec<u8> {
        use std::io::Write;

        let Stream::Tls(tls) = &mut self.stream else {
            panic!("only TLS has records");
        };
        let (_, session) = tls.get_mut();
        session
            .writer()
            .write_all(content.as_ref())
            .expect("the buffer of a session takes a small response");
        let mut record = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut record).expect("a Vec takes it");
        }
        record
    }

    /// The protocol that ALPN settled on, and the name that the client asked for.
    #[cfg(feature = "rustls")]
    pub(crate) fn agreed(&self) -> (Option<String>, Option<String>) {
        let Stream::Tls(tls) = &self.stream else {
            return (None, None);
        };
        let (_, session) = tls.get_ref();
        let alpn = session
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned());
        (alpn, session.server_name().map(str::to_owned))
    }
}

impl Stream {
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read_buf(buffer).await,
            #[cfg(feature = "rustls")]
            Self::Tls(tls) => tls.read_buf(buffer).await,
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            #[cfg(feature = "rustls")]
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.write_all(bytes).await,
            #[cfg(feature = "rustls")]
            Self::Tls(tls) => {
                tls.write_all(bytes).await?;
                tls.flush().await
            }
        }
    }
}

/// Does what was ordered; answers whether the connection goes on.
async fn obey(stream: &mut Stream, action: &Action) -> bool {
    match (action, stream) {
        (Action::Send(bytes), stream) => stream.write(bytes).await.is_ok(),
        (Action::Close, Stream::Plain(tcp)) => {
            let _ = tcp.shutdown().await;
            false
        }
        #[cfg(feature = "rustls")]
        (Action::Close, Stream::Tls(tls)) => {
            let _ = tls.shutdown().await;
            false
        }
        #[cfg(feature = "rustls")]
        (Action::Cut, stream) => {
            let tcp = match stream {
                Stream::Plain(tcp) => tcp,
                Stream::Tls(tls) => tls.get_mut().0,
            };
            let _ = tcp.shutdown().await;
            false
        }
    }
}

/// A response of status 200 with a length.
pub(crate) fn response(body: &[u8]) -> Vec<u8> {
    let mut response =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(body);
    response
}

/// The script of an honest server: each answer is the request's method, path and body.
pub(crate) async fn honest(mut peer: Peer) {
    while let Some(request) = peer.request().await {
        if request.method == "HEAD" {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n")
                .await;
        } else {
            peer.answer(honest_answer(&request)).await;
        }
    }
}

fn honest_answer(request: &Request) -> Vec<u8> {
    let mut answer = format!("{} {} ", request.method, request.path).into_bytes();
    answer.extend_from_slice(&request.body);
    answer
}

/// Fails a test that hangs.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(4 * PATIENCE, work)
        .await
        .expect("the test hangs")
}

/// Gives the runtime turns until `holds`, or fails.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let turns = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, turns).await.is_ok(),
        "never happened: {what}"
    );
}

/// Gives the runtime enough turns to take notice of everything that has arrived.
pub(crate) async fn take_notice() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// A socket of a client of this machine.
struct ClientSocket {
    state: u8,
    unread: u64,
}

/// The client's ends of the connections to `server`; `None` where the system does not tell.
fn client_sockets(server: SocketAddr) -> Option<Vec<ClientSocket>> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    // Loopback in the byte order of the table.
    let remote = format!("0100007F:{:04X}", server.port());
    let sockets = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace().skip(2);
        if columns.next()? != remote {
            return None;
        }
        let state = u8::from_str_radix(columns.next()?, 16).ok()?;
        let (_, unread) = columns.next()?.split_once(':')?;
        let unread = u64::from_str_radix(unread, 16).ok()?;
        OPEN.contains(&state)
            .then_some(ClientSocket { state, unread })
    });
    Some(sockets.collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Longer than anything on loopback takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Linux's number of the state in which the peer has ended the stream and we have not.
const CLOSE_WAIT: u8 = 8;

/// The states of a socket that its owner has not closed: established and CLOSE_WAIT.
const OPEN: [u8; 2] = [1, CLOSE_WAIT];

/// Certificates made on the spot.
#[cfg(feature = "rustls")]
mod secure {
    use std::sync::Arc;

    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
        KeyUsagePurpose, date_time_ymd,
    };
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio_rustls::rustls::{ServerConfig, SupportedProtocolVersion, version};

    /// TLS 1.2 alone.
    pub(crate) const TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];
    /// TLS 1.3 alone.
    pub(crate) const TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];

    /// A certificate authority that nobody else knows.
    pub(crate) struct Authority {
        root: Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    /// A server's certificate and its key.
    pub(crate) struct Identity {
        certificate: Certificate,
        key: KeyPair,
    }

    impl Authority {
        pub(crate) fn new() -> Self {
            let mut params = CertificateParams::new([]).expect("no name is a valid list");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
                .distinguished_name
                .push(DnType::CommonName, "an authority for tests");
            let key = KeyPair::generate().expect("a key pair");
            let root = params.self_signed(&key).expect("a root certificate");
            Self {
                root,
                issuer: Issuer::new(params, key),
            }
        }

        /// The root certificate.
        pub(crate) fn pem(&self) -> String {
            self.root.pem()
        }

        /// A certificate for `localhost` and 127.0.0.1.
        pub(crate) fn local(&self) -> Identity {
            self.issue(&["localhost", "127.0.0.1"], 4000)
        }

        /// A certificate for these names, valid from the year 2000 to the beginning of the year `end`.
        pub(crate) fn issue(&self, names: &[&str], end: i32) -> Identity {
            let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
            let mut params = CertificateParams::new(names).expect("the names are valid");
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(end, 1, 1);
            let key = KeyPair::generate().expect("a key pair");
            let certificate = params
                .signed_by(&key, &self.issuer)
                .expect("a server's certificate");
            Identity { certificate, key }
        }
    }

    impl Identity {
        /// A server of this identity that speaks the versions, and by ALPN prefers HTTP/1.1 to HTTP/2.
        pub(crate) fn server(
            &self,
            versions: &[&'static SupportedProtocolVersion],
        ) -> Arc<ServerConfig> {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
            let mut config =
                ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                    .with_protocol_versions(versions)
                    .expect("the provider speaks them")
                    .with_no_client_auth()
                    .with_single_cert(vec![self.certificate.der().clone()], key)
                    .expect("the key is the certificate's");
            config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
            Arc::new(config)
        }

        /// The certificate as a file.
        pub(crate) fn certificate_pem(&self) -> String {
            self.certificate.pem()
        }

        /// The key as a file.
        pub(crate) fn key_pem(&self) -> String {
            self.key.serialize_pem()
        }
    }
}
