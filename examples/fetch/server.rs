//! The other side of the show: a server that keeps connections alive, with and without TLS, and a CA made on the spot.
//!
//! It does what the show needs and no more: it reads heads and ignores bodies. It is no example of how to write a server.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sockeye::BoxError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A server on a free port of the loopback interface. Its tasks end with the runtime.
pub(crate) struct Server {
    /// Without a slash at its end.
    pub(crate) url: String,
    requests: Arc<AtomicU64>,
}

impl Server {
    /// Starts a server that speaks plain HTTP.
    pub(crate) async fn plain() -> io::Result<Self> {
        Self::start("http", None).await
    }

    /// Starts a server that speaks TLS. Answers it with the certificate of the CA to trust, in PEM.
    pub(crate) async fn tls() -> Result<(Self, String), BoxError> {
        let (config, ca) = certified()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok((Self::start("https", Some(acceptor)).await?, ca))
    }

    /// How many requests it has read.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    async fn start(scheme: &str, acceptor: Option<TlsAcceptor>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Self {
            url: format!("{scheme}://{}", listener.local_addr()?),
            requests: Arc::default(),
        };
        let requests = Arc::clone(&server.requests);
        tokio::spawn(async move {
            // A connection that fails is the client's to tell; the server goes on.
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, acceptor.clone(), Arc::clone(&requests)));
            }
        });
        Ok(server)
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    requests: Arc<AtomicU64>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match acceptor {
        Some(acceptor) => serve(acceptor.accept(stream).await?, &requests).await,
        None => serve(stream, &requests).await,
    }
}

/// Answers one request after the other until the client closes.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    requests: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        let Some(end) = find(&buffer, b"\r\n\r\n") else {
            if buffer.len() > MAX_HEAD || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head: Vec<u8> = buffer.drain(..end + 4).collect();
        requests.fetch_add(1, Ordering::Relaxed);
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        match answer(path) {
            Some(response) => stream.write_all(response.as_bytes()).await?,
            None => std::future::pending::<()>().await,
        }
    }
}

/// What is answered under a path; `None` is no answer, ever.
fn answer(path: &[u8]) -> Option<String> {
    let (status, kind, body) = match path {
        b"/" => ("200 OK", "text/plain", TEXT),
        b"/json" => ("200 OK", "application/json", r#"{"greeting":"hello"}"#),
        b"/slow" => return None,
        _ => ("404 Not Found", "application/problem+json", PROBLEM),
    };
    Some(format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// A CA, a certificate that it signed for the loopback address, and a server's settings with that.
fn certified() -> Result<(ServerConfig, String), BoxError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "the CA of the fetch example");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &ca)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((config, ca.pem()))
}

/// What `/` answers.
pub(crate) const TEXT: &str =
    "Sockeye swim up the stream that they were born in, over every obstacle.\n";

/// What a path that does not exist answers (RFC 9457).
const PROBLEM: &str =
    r#"{"title":"no such page","status":404,"detail":"the pages are /, /json and /slow"}"#;

/// A head longer than this is not read to its end.
const MAX_HEAD: usize = 16 * 1024;
