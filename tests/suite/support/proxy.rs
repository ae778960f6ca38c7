//! A proxy on real sockets that does what it is asked: forwards, makes tunnels, speaks SOCKS5; with and without TLS.
//!
//! It looks nothing up: every host is this machine. What it was asked is kept, so that tests see what reached it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A proxy that runs until it is dropped.
pub(crate) struct ProxyServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

#[cfg(feature = "rustls")]
type Security = Option<Arc<tokio_rustls::rustls::ServerConfig>>;
#[cfg(not(feature = "rustls"))]
type Security = Option<Arc<std::convert::Infallible>>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl ProxyServer {
    pub(crate) async fn plain() -> Self {
        Self::start(None).await
    }

    #[cfg(feature = "rustls")]
    pub(crate) async fn tls(config: Arc<tokio_rustls::rustls::ServerConfig>) -> Self {
        Self::start(Some(config)).await
    }

    async fn start(security: Security) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, open) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicUsize::new(0)),
        );
        let (log, count) = (Arc::clone(&asked), Arc::clone(&open));
        let accepting = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (log, count, security) =
                    (Arc::clone(&log), Arc::clone(&count), security.clone());
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    // A client that goes away ends it, which is nobody's fault.
                    let _ = serve(tcp, security, &log).await;
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            asked,
            open,
            accepting,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The heads that came, and the destinations of SOCKS5, each with what goes with it.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for ProxyServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(tcp: TcpStream, security: Security, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let client: Box<dyn Stream> = match security {
        None => Box::new(tcp),
        #[cfg(feature = "rustls")]
        Some(config) => Box::new(tokio_rustls::TlsAcceptor::from(config).accept(tcp).await?),
        #[cfg(not(feature = "rustls"))]
        Some(never) => match *never {},
    };
    let mut client = client;
    let first = client.read_u8().await?;
    if first == 5 {
        return socks(client, log).await;
    }
    let mut head = vec![first];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    log.lock().unwrap().push(head.clone());
    let (line, fields) = head.split_once("\r\n").unwrap();
    let mut parts = line.split(' ');
    let (method, target) = (parts.next().unwrap(), parts.next().unwrap());
    if method == "CONNECT" {
        let mut server = connect(target).await?;
        client
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await?;
        client.flush().await?;
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    // Requests behind the first are passed on as they come: they say where they go, and that is the same place.
    let rest = target.strip_prefix("http://").expect("an absolute form");
    let (authority, path) = rest.split_at(rest.find('/').unwrap());
    let mut server = connect(authority).await?;
    let forwarded: String = fields
        .split_inclusive("\r\n")
        .filter(|field| !field.starts_with("proxy-authorization"))
        .collect();
    let forwarded = format!("{method} {path} HTTP/1.1\r\n{forwarded}");
    server.write_all(forwarded.as_bytes()).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn socks(mut client: Box<dyn Stream>, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let methods = usize::from(client.read_u8().await?);
    client.read_exact(&mut vec![0; methods]).await?;
    client.write_all(&[5, 0]).await?;
    client.flush().await?;
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    let length = match request[3] {
        1 => 4,
        4 => 16,
        _ => usize::from(client.read_u8().await?),
    };
    let mut host = vec![0; length];
    client.read_exact(&mut host).await?;
    let port = client.read_u16().await?;
    let shown = format!("{} {}:{port}", request[3], host.escape_ascii());
    log.lock().unwrap().push(shown);
    let mut server = connect(&format!("x:{port}")).await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    client.flush().await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn connect(authority: &str) -> io::Result<TcpStream> {
    let port = authority.rsplit(':').next().unwrap_or_default();
    TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap_or(80))).await
}
