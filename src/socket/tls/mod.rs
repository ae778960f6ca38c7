//! TLS by rustls: the settings, the handshake, and what an idle TLS stream may hold.
//!
//! rustls never shows in the public surface. Verification is on; the roots are those of webpki-roots and the user's own.
//! ALPN offers what the route allows. Called by `dial` and `liveness`.
//!
//! `builder` collects settings and makes a configuration of them, `identity` is what the client shows of itself, `pem` reads
//! files, `verify` checks certificates, `failure` says what went wrong. `entropy` gathers what random numbers begin with, `corked` has
//! the end of a handshake leave with the first request.

#[cfg(feature = "tls")]
mod aws_lc_rs;
mod builder;
mod corked;
mod entropy;
mod failure;
mod identity;
#[cfg(not(feature = "platform-verifier"))]
mod no_platform;
mod pem;
#[cfg(feature = "platform-verifier")]
mod platform;
#[cfg(not(feature = "tls"))]
mod ring;
mod verify;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::unconstrained;
use tokio_rustls::TlsConnector;

use super::{Alpn, Socket, Stream};
use crate::config::HttpVersions;
use crate::stats::CloseCause;

#[cfg(feature = "tls")]
use aws_lc_rs as provider;
pub use builder::{TlsConfigBuilder, TlsVersion};
use corked::Corked;
pub(super) use entropy::gather as gather_entropy;
pub(super) use failure::TlsFailure;
#[cfg(feature = "http2")]
pub(crate) use failure::is_tls;
pub(crate) use failure::tls_failure;
pub use identity::ClientIdentity;
use identity::lock;
#[cfg(not(feature = "platform-verifier"))]
use no_platform as platform;
#[cfg(not(feature = "tls"))]
use ring as provider;

pub(super) type TlsStream = tokio_rustls::client::TlsStream<Corked>;

pub(crate) const TLS_BUILT_IN: bool = true;

/// How TLS is spoken: immutable once built, cheap to clone.
///
/// The default trusts the roots of Mozilla's programme as the `webpki-roots` crate carries them, speaks TLS 1.2 and 1.3, and
/// verifies certificates and host names. Connections and sessions are never shared between two configurations, even equal
/// ones; clients with the same one (or clones of it) share sessions. The one thing that can change is a [`ClientIdentity`].
///
/// The first handshake of a process waits until there is entropy for the random numbers of all. aws-lc-rs takes some 30 ms of a
/// processor for that, which run on a thread of the runtime that may block, beside the look-up and the connecting. A program that
/// is built with `AWS_LC_SYS_NO_JITTER_ENTROPY=1` in the environment does without, and has the entropy of the system alone.
///
/// ```no_run
/// use sockeye::{Client, TlsConfig};
///
/// let tls = TlsConfig::builder().add_root_pem(&std::fs::read("ca.pem")?)?.build()?;
/// let client = Client::builder().tls(tls).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TlsConfig(Arc<Inner>);

/// A configuration. Nothing of it changes but for a client identity that is replaced.
struct Inner {
    /// Different for each configuration that was built, and after each change of its client identity: part of the pool's key
    /// (security P1, ruling 22).
    id: AtomicU64,
    /// What certificates are checked for and the server is told, where that is not the host of the URL.
    server_name: Option<ServerName<'static>>,
    resumable_hosts: usize,
    /// By what is offered; they share everything else, session tickets included. Locked once a handshake.
    offers: Mutex<Arc<Offers>>,
    /// Whom to tell when the identity was replaced.
    listeners: Mutex<Vec<Weak<dyn Fn() + Send + Sync>>>,
}

impl Inner {
    fn new(
        client: ClientConfig,
        server_name: Option<ServerName<'static>>,
        resumable_hosts: usize,
    ) -> Self {
        Self {
            id: AtomicU64::new(next_id()),
            server_name,
            resumable_hosts,
            offers: Mutex::new(Arc::new(Offers::new(client))),
            listeners: Mutex::default(),
        }
    }

    /// Shows `identity` to servers from now on, and forgets all sessions.
    fn show(&self, identity: Arc<CertifiedKey>) {
        let mut offers = lock(&self.offers);
        let mut client = (*offers.both).clone();
        client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity));
        client.resumption = builder::resumption(self.resumable_hosts);
        *offers = Arc::new(Offers::new(client));
        // Who reads the new number finds the new identity.
        self.id.store(next_id(), Ordering::Release);
    }

    /// Tells all listeners that what was settled before is out of date.
    fn tell(&self) {
        let listeners: Vec<_> = lock(&self.listeners)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for listener in listeners {
            listener();
        }
    }

    /// Whether there is an identity, so that it can be replaced.
    fn has_identity(&self) -> bool {
        lock(&self.offers)
            .both
            .client_auth_cert_resolver
            .has_certs()
    }
}

fn next_id() -> u64 {
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// The same settings with each list of protocols that may be offered (ALPN, RFC 7301).
struct Offers {
    both: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Offers {
    fn new(client: ClientConfig) -> Self {
        let offering = |protocols: &[&[u8]]| {
            let mut client = client.clone();
            client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(client)
        };
        Self {
            both: offering(&[HTTP2, HTTP1]),
            http1: offering(&[HTTP1]),
            http2: offering(&[HTTP2]),
        }
    }

    fn of(&self, versions: HttpVersions) -> &Arc<ClientConfig> {
        match versions {
            HttpVersions::Auto => &self.both,
            HttpVersions::Http1 => &self.http1,
            HttpVersions::Http2 | HttpVersions::Http2PriorKnowledge => &self.http2,
        }
    }
}

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// What the handshake settled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    version: &'static str,
    cipher_suite: &'static str,
    key_exchange: Option<&'static str>,
    resumed: bool,
}

impl TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub fn version(&self) -> &str {
        self.version
    }

    /// The cipher suite as rustls names it, such as `TLS13_AES_128_GCM_SHA256`.
    pub fn cipher_suite(&self) -> &str {
        self.cipher_suite
    }

    /// The group of the key exchange, such as `X25519MLKEM768`. `None` for a session of TLS 1.2 that was resumed, which needs
    /// no key exchange.
    pub fn key_exchange(&self) -> Option<&str> {
        self.key_exchange
    }

    /// Whether an earlier session was resumed, so that no certificate was sent.
    pub fn resumed(&self) -> bool {
        self.resumed
    }
}

impl TlsConfig {
    /// Starts with the defaults.
    pub fn builder() -> TlsConfigBuilder {
        TlsConfigBuilder::default()
    }

    /// Tells two configurations apart in the pool's key, and the same one before and after its identity was replaced.
    pub(crate) fn id(&self) -> u64 {
        self.0.id.load(Ordering::Acquire)
    }

    /// Has `listener` called each time that the client identity was replaced, for as long as the answer is kept.
    pub(crate) fn on_reload(
        &self,
        listener: impl Fn() + Send + Sync + 'static,
    ) -> Arc<dyn Fn() + Send + Sync> {
        let listener: Arc<dyn Fn() + Send + Sync> = Arc::new(listener);
        if self.0.has_identity() {
            let mut listeners = lock(&self.0.listeners);
            listeners.retain(|known| known.strong_count() > 0);
            listeners.push(Arc::downgrade(&listener));
        }
        listener
    }
}

impl Default for TlsConfig {
    fn default() -> Self {
        // Its session cache is shared by all clients with default settings.
        static DEFAULT: OnceLock<TlsConfig> = OnceLock::new();
        DEFAULT
            .get_or_init(|| {
                TlsConfigBuilder::default()
                    .build()
                    .expect("the built-in settings fit together")
            })
            .clone()
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// Shakes hands over `socket`. Answers what the server has agreed on, too, if anything.
pub(super) async fn handshake(
    config: &TlsConfig,
    host: &str,
    versions: HttpVersions,
    socket: Socket,
) -> Result<(TlsStream, TlsInfo, Option<Alpn>), TlsFailure> {
    let name = match &config.0.server_name {
        Some(name) => name.clone(),
        None => server_name(host).ok_or(TlsFailure::Name)?,
    };
    entropy::gathered().await;
    let offers = Arc::clone(&lock(&config.0.offers));
    let connector = TlsConnector::from(Arc::clone(offers.of(versions)));
    let mut stream = connector
        .connect(name, Corked::new(socket))
        .await
        .map_err(TlsFailure::from)?;
    let (corked, session) = stream.get_mut();
    corked.uncork();
    let info = TlsInfo {
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "unknown",
        },
        cipher_suite: session
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("unknown"),
        key_exchange: session
            .negotiated_key_exchange_group()
            .and_then(|group| group.name().as_str()),
        resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
    };
    let alpn = match session.alpn_protocol() {
        Some(HTTP2) => Some(Alpn::Http2),
        Some(_) => Some(Alpn::Http1),
        None => None,
    };
    Ok((stream, info, alpn))
}

/// A host as certificates name it; `None` if they cannot.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    // A trailing dot belongs to the name in DNS, not in SNI or a certificate (ruling 16).
    let host = host.strip_suffix('.').unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}

pub(super) fn below(stream: &TlsStream) -> &Socket {
    stream.get_ref().0.socket()
}

/// Whether the peer was not sent the end of the handshake yet.
pub(super) fn keeps_any(stream: &TlsStream) -> bool {
    stream.get_ref().0.keeps_any()
}

/// Sends the end of the handshake, if that has not been done: no request is going to be written soon.
pub(super) fn let_go(stream: &mut TlsStream) {
    stream.get_mut().0.let_go();
}

/// Reads what the kernel holds through rustls: tickets and key updates are legal on an idle connection, content, alerts and
/// the end of the stream are not. Nothing is taken away from rustls.
/// `cx` is registered where the transport below has no readiness of its own.
pub(super) fn settle(stream: &mut TlsStream, cx: &mut Context<'_>) -> Result<(), CloseCause> {
    let (corked, session) = stream.get_mut();
    corked.let_go();
    let mut reader = NonBlocking(corked.socket_mut(), cx);
    for _ in 0..IDLE_READS {
        match session.read_tls(&mut reader) {
            Ok(0) => return Err(CloseCause::PeerClosed),
            Ok(_) => match session.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() > 0 => {
                    return Err(CloseCause::Unsolicited);
                }
                Ok(state) if state.peer_has_closed() => return Err(CloseCause::PeerClosed),
                Ok(_) => {}
                Err(_) => return Err(CloseCause::Error),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(CloseCause::PeerClosed),
        }
    }
    // Tickets are legal, and have no end.
    Err(CloseCause::Unsolicited)
}

/// Queues a close_notify and writes what the kernel takes at once.
pub(super) fn say_goodbye(stream: &mut TlsStream) {
    let (corked, session) = stream.get_mut();
    // A socket that takes no more closes without; the peer has not read what came before either.
    if corked.let_go() {
        session.send_close_notify();
        let _ = session.write_tls(&mut AtOnce(corked.socket_mut()));
        corked.socket_mut().say_goodbye();
    }
}

/// Whether rustls holds neither content nor a close_notify that nobody read yet.
pub(super) fn holds_nothing(stream: &mut TlsStream) -> bool {
    let (corked, session) = stream.get_mut();
    let is_clean = session
        .process_new_packets()
        .is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed());
    is_clean && corked.socket_mut().is_clean()
}

/// Reads without waiting, past tokio's readiness, which can be stale.
struct NonBlocking<'a, 'b>(&'a mut Socket, &'a mut Context<'b>);

impl Read for NonBlocking<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0.stream {
            Stream::Tcp(tcp) => return (&*socket2::SockRef::from(&*tcp)).read(buffer),
            // TLS inside the TLS of a proxy.
            Stream::Tls(outer) => return read_at_once(outer, buffer, self.1),
            _ => {}
        }
        let mut buffer = ReadBuf::new(buffer);
        let socket = &mut *self.0;
        // Unconstrained, because an exhausted budget looks like waiting.
        let read = poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, &mut buffer));
        let read = pin!(unconstrained(read)).poll(self.1);
        match read {
            Poll::Ready(result) => result.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// The content of a TLS stream that carries another one, without waiting. Its end without a close_notify is an end as well.
fn read_at_once(
    stream: &mut TlsStream,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> io::Result<usize> {
    let (corked, session) = stream.get_mut();
    corked.let_go();
    let socket = corked.socket_mut();
    for _ in 0..IDLE_READS {
        match session.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
        if session.read_tls(&mut NonBlocking(&mut *socket, &mut *cx))? == 0 {
            return Ok(0);
        }
        session.process_new_packets().map_err(io::Error::other)?;
    }
    // Records without content have no end.
    Err(io::ErrorKind::InvalidData.into())
}

/// Writes what is taken without waiting, past tokio's readiness.
struct AtOnce<'a>(&'a mut Socket);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0.stream {
            Stream::Tcp(tcp) => (&*socket2::SockRef::from(&*tcp)).write(bytes),
            #[cfg(unix)]
            Stream::Unix(unix) => (&*socket2::SockRef::from(&*unix)).write(bytes),
            Stream::Tls(outer) => {
                let (corked, session) = outer.get_mut();
                if !corked.let_go() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let taken = session.writer().write(bytes)?;
                // What is not written here stays with the session, which has taken it.
                let _ = session.write_tls(&mut AtOnce(corked.socket_mut()));
                Ok(taken)
            }
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads of an idle stream in one look: a session sends a few tickets, not a stream of them.
const IDLE_READS: usize = 16;
