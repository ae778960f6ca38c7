//! TLS by rustls: the settings, the handshake, and what an idle TLS stream may hold.
//!
//! rustls never shows in the public surface. Verification is on; the roots are those of webpki-roots and the user's own.
//! ALPN offers what the route allows. Called by `dial` and `liveness`.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::unconstrained;
use tokio_rustls::TlsConnector;

use super::{Alpn, Socket};
use crate::config::HttpVersions;
use crate::error::{Error, ErrorKind, Phase, Result, Sent};
use crate::stats::CloseCause;

pub(super) type TlsStream = tokio_rustls::client::TlsStream<Socket>;

pub(crate) const TLS_BUILT_IN: bool = true;

/// How TLS is spoken: immutable once built, cheap to clone.
///
/// The default trusts the roots of Mozilla's programme as the `webpki-roots` crate carries them, speaks TLS 1.2 and 1.3, and
/// verifies certificates and host names.
///
/// ```no_run
/// use sockeye::{Client, TlsConfig};
///
/// let tls = TlsConfig::builder().add_root_pem(&std::fs::read("ca.pem")?)?.build()?;
/// let client = Client::builder().tls(tls).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TlsConfig {
    id: u64,
    /// By what is offered; they share everything else, session tickets included.
    offers: Arc<Offers>,
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

/// Collects the settings of a [`TlsConfig`].
#[derive(Clone, Debug, Default)]
pub struct TlsConfigBuilder {
    roots: Vec<CertificateDer<'static>>,
    only: Option<Vec<u8>>,
    accept_invalid: bool,
}

/// What the handshake settled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    version: &'static str,
    cipher_suite: &'static str,
    resumed: bool,
}

impl TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub fn version(&self) -> &str {
        self.version
    }

    /// The cipher suite as rustls names it, such as `TLS13_AES_256_GCM_SHA384`.
    pub fn cipher_suite(&self) -> &str {
        self.cipher_suite
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

    /// Tells two configurations apart in the pool's key.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Default for TlsConfig {
    fn default() -> Self {
        // The root store is parsed once a process; its session cache is shared by all clients with default settings.
        static DEFAULT: OnceLock<TlsConfig> = OnceLock::new();
        DEFAULT
            .get_or_init(|| {
                let builder = TlsConfigBuilder::default();
                let roots = builder
                    .root_store()
                    .expect("the built-in roots need no parsing");
                builder
                    .with_roots(roots)
                    .expect("the built-in provider speaks the default versions")
            })
            .clone()
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl TlsConfigBuilder {
    /// Trusts the certificates of a PEM file besides the default roots. Fails if there is none, or one that is malformed.
    pub fn add_root_pem(mut self, pem: &[u8]) -> Result<Self> {
        self.roots.extend(certificates(pem)?);
        Ok(self)
    }

    /// Trusts the certificates of this PEM file, and those of [`add_root_pem`](Self::add_root_pem), and no others. A file
    /// without a certificate is an error of [`build`](Self::build).
    #[must_use]
    pub fn only_roots(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.only = Some(pem.as_ref().to_vec());
        self
    }

    /// Accepts any certificate for any host. Default false. Whoever is in the path can then read and change everything;
    /// it is meant for tests.
    #[must_use]
    pub fn danger_accept_invalid_certs(mut self, accept: bool) -> Self {
        self.accept_invalid = accept;
        self
    }

    /// Fails if a root certificate cannot be used.
    pub fn build(self) -> Result<TlsConfig> {
        let roots = self.root_store()?;
        self.with_roots(roots)
    }

    fn root_store(&self) -> Result<RootCertStore> {
        let mut store = RootCertStore::empty();
        let only = match &self.only {
            Some(pem) => certificates(pem)?,
            None => {
                store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                Vec::new()
            }
        };
        for (at, root) in only.iter().chain(&self.roots).enumerate() {
            store.add(root.clone()).map_err(|error| {
                unusable(format!("root certificate {} cannot be used", at + 1)).because(error)
            })?;
        }
        Ok(store)
    }

    fn with_roots(&self, roots: RootCertStore) -> Result<TlsConfig> {
        // The provider is always named: with two of them compiled in, rustls would not know which to take.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("TLS cannot be set up").because(error))?;
        let client = if self.accept_invalid {
            let verifier = Arc::new(AcceptAny(provider));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth()
        } else {
            builder.with_root_certificates(roots).with_no_client_auth()
        };
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Ok(TlsConfig {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            offers: Arc::new(Offers::new(client)),
        })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(found) if found.is_empty() => Err(unusable("the PEM file holds no certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(format!("the PEM file is malformed: {error:?}"))),
    }
}

fn unusable(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Tls, Some(Phase::Prepare), Sent::Nothing).saying(message)
}

/// Why a handshake failed, in few words and with what to look at.
#[derive(Debug)]
pub(crate) enum TlsFailure {
    /// The host is no name that a certificate could have.
    Name,
    /// The peer's bytes are no TLS.
    NotTls,
    /// The certificate was refused.
    Certificate(CertificateError),
    /// Anything else that TLS defines.
    Tls(rustls::Error),
    Io(io::Error),
}

/// Shakes hands over `socket`. Answers what the server has agreed on, too, if anything.
pub(super) async fn handshake(
    config: &TlsConfig,
    host: &str,
    versions: HttpVersions,
    socket: Socket,
) -> Result<(TlsStream, TlsInfo, Option<Alpn>), TlsFailure> {
    // A trailing dot belongs to the name in DNS, not in SNI or a certificate (ruling 16).
    let name = host.strip_suffix('.').unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsFailure::Name)?;
    let connector = TlsConnector::from(Arc::clone(config.offers.of(versions)));
    let stream = connector
        .connect(name, socket)
        .await
        .map_err(TlsFailure::from)?;
    let (_, session) = stream.get_ref();
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
        resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
    };
    let alpn = match session.alpn_protocol() {
        Some(HTTP2) => Some(Alpn::Http2),
        Some(_) => Some(Alpn::Http1),
        None => None,
    };
    Ok((stream, info, alpn))
}

pub(super) fn below(stream: &TlsStream) -> &Socket {
    stream.get_ref().0
}

/// Reads what the kernel holds through rustls: tickets and key updates are legal on an idle connection, content, alerts and
/// the end of the stream are not. Nothing is taken away from rustls.
/// `cx` is registered where the transport below has no readiness of its own.
pub(super) fn settle(stream: &mut TlsStream, cx: &mut Context<'_>) -> Result<(), CloseCause> {
    let (socket, session) = stream.get_mut();
    let mut reader = NonBlocking(socket, cx);
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
    let (socket, session) = stream.get_mut();
    session.send_close_notify();
    let Some(tcp) = socket.tcp() else {
        return;
    };
    // A socket that takes no more closes without; the peer has not read what came before either.
    let _ = session.write_tls(&mut &*socket2::SockRef::from(tcp));
}

/// Whether rustls holds neither content nor a close_notify that nobody read yet.
pub(super) fn holds_nothing(stream: &mut TlsStream) -> bool {
    let (_, session) = stream.get_mut();
    session
        .process_new_packets()
        .is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed())
}

/// Whether this error of a stream is one of TLS, such as an alert, rather than one of the transport.
pub(crate) fn is_tls(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Reads without waiting, past tokio's readiness, which can be stale.
struct NonBlocking<'a, 'b>(&'a mut Socket, &'a mut Context<'b>);

impl Read for NonBlocking<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(tcp) = self.0.tcp() {
            return (&*socket2::SockRef::from(tcp)).read(buffer);
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

/// Verifies no certificate, but still the signatures of the handshake: the peer holds the key that it shows.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl From<io::Error> for TlsFailure {
    fn from(error: io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
                Self::NotTls
            }
            Some(rustls::Error::InvalidCertificate(reason)) => Self::Certificate(reason.clone()),
            Some(other) => Self::Tls(other.clone()),
            None => Self::Io(error),
        }
    }
}

impl TlsFailure {
    pub(crate) fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(error) => Some(error.kind()),
            _ => None,
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => {
                f.write_str("the host is no name that a certificate can be checked against")
            }
            Self::NotTls => f.write_str(
                "the peer does not speak TLS on this port; if it speaks plain HTTP use http://",
            ),
            Self::Certificate(reason) => certificate(reason, f),
            Self::Tls(error) => {
                // Some of rustls' texts run to a kilobyte.
                let text = error.to_string();
                f.write_str(text.get(..MAX_TEXT).unwrap_or(&text))
            }
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the peer closed the connection during the handshake")
            }
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

fn certificate(reason: &CertificateError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use CertificateError as Reason;
    f.write_str(match reason {
        Reason::Expired | Reason::ExpiredContext { .. } => "the certificate has expired",
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => "the certificate is not valid yet",
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => "the certificate is for another host",
        Reason::UnknownIssuer => {
            "the certificate's issuer is not trusted (a private CA? see TlsConfig::builder().add_root_pem)"
        }
        Reason::Revoked => "the certificate is revoked",
        Reason::BadSignature => "the certificate's signature is wrong",
        Reason::BadEncoding => "the certificate is malformed",
        other => {
            let text = format!("the certificate is refused: {other:?}");
            return f.write_str(text.get(..MAX_TEXT).unwrap_or(&text));
        }
    })
}

/// Reads of an idle stream in one look: a session sends a few tickets, not a stream of them.
const IDLE_READS: usize = 16;

/// Bytes of a text of rustls that are shown.
const MAX_TEXT: usize = 200;
