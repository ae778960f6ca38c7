//! The server, in a process of its own, so that its CPU time is never counted as a client's: TLS by tokio-rustls, one port for
//! HTTP/1.1 and one for HTTP/2, and a certificate that is made when it starts.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;

use crate::outbox::Gathering;
use crate::process::{Process, end_with_input};
use crate::scenario::{BODY, Failure};

/// The argument that turns the bench into its server.
pub(crate) const SERVE: &str = "serve";

/// The running server process; dropping it ends it.
pub(crate) struct Server {
    _process: Process,
    /// Where it speaks HTTP/1.1.
    pub(crate) http1: SocketAddr,
    /// Where it speaks HTTP/2.
    pub(crate) http2: SocketAddr,
    /// Who vouches for it.
    pub(crate) root_pem: String,
}

impl Server {
    /// Starts the process, on the cores of the calling thread, and waits until it listens.
    pub(crate) fn start() -> Result<Self, Failure> {
        let (process, (http1, http2, root_pem)) = Process::start(&[SERVE], |line| {
            let mut words = line.splitn(3, ' ');
            let mut next = || words.next().ok_or("a word is missing");
            let (http1, http2) = (next()?.parse()?, next()?.parse()?);
            Ok((http1, http2, next()?.replace('|', "\n")))
        })?;
        Ok(Self {
            _process: process,
            http1,
            http2,
            root_pem,
        })
    }
}

/// A certificate for 127.0.0.1 below a root that nobody else knows.
struct Identity {
    root_pem: String,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Identity {
    fn new() -> Result<Self, Failure> {
        let mut authority = CertificateParams::new([])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate()?;
        let root = authority.self_signed(&root_key)?;
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(["127.0.0.1".to_owned()])?;
        let certificate = params.signed_by(&key, &Issuer::new(authority, root_key))?;
        Ok(Self {
            root_pem: root.pem(),
            certificate: certificate.der().clone(),
            key,
        })
    }

    fn acceptor(&self, protocol: &[u8]) -> Result<TlsAcceptor, Failure> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The server's main function: serves until standard input ends.
pub(crate) fn serve() -> Result<(), Failure> {
    end_with_input();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let identity = Identity::new()?;
        let one = TcpListener::bind(("127.0.0.1", 0)).await?;
        let two = TcpListener::bind(("127.0.0.1", 0)).await?;
        let pem = identity.root_pem.trim().replace('\n', "|");
        writeln!(
            io::stdout(),
            "{} {} {pem}",
            one.local_addr()?,
            two.local_addr()?
        )?;
        tokio::spawn(accept(one, identity.acceptor(b"http/1.1")?, answer_http1));
        accept(two, identity.acceptor(b"h2")?, answer_http2).await
    })
}

async fn accept<F>(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    answer: fn(TlsStream<tokio::net::TcpStream>) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        // A client that leaves in the middle is the normal end of a turn.
        tokio::spawn(async move { answer(acceptor.accept(tcp).await?).await });
    }
}

async fn answer_http1(mut stream: TlsStream<tokio::net::TcpStream>) -> Result<(), Failure> {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nserver: tls\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         content-type: application/json\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         vary: origin\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut buffer = Vec::with_capacity(4096);
    while stream.read_buf(&mut buffer).await? > 0 {
        // No contender sends a request before the last one is answered.
        if buffer.ends_with(b"\r\n\r\n") {
            buffer.clear();
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
        }
    }
    Ok(())
}

/// Answers those together that have come together, so that it is not the server that everybody waits for.
async fn answer_http2(stream: TlsStream<tokio::net::TcpStream>) -> Result<(), Failure> {
    let (stream, outbox) = Gathering::new(stream);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(256);
    let mut session = builder.handshake::<_, Bytes>(stream).await?;
    let mut come = Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            match session.poll_accept(cx) {
                Poll::Ready(Some(request)) => come.push(request?.1),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if come.is_empty() => {
                    ready!(outbox.poll_send(cx))?;
                    return Poll::Pending;
                }
                Poll::Pending => come.drain(..).try_for_each(respond)?,
            }
        }
    })
    .await
}

fn respond(mut to: SendResponse<Bytes>) -> Result<(), Failure> {
    let head = http::Response::builder()
        .header("server", "tls")
        .header("content-type", "application/json")
        .header("content-length", BODY.len())
        .body(())?;
    let mut body = to.send_response(head, false)?;
    Ok(body.send_data(Bytes::from_static(BODY.as_bytes()), true)?)
}
