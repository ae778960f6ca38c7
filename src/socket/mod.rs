//! Moves bytes: everything between a host name and a stream that HTTP can be spoken on.
//!
//! `dial` resolves, connects, asks a proxy for a tunnel and shakes hands, each step a function that makes a [`Socket`] from the
//! one before. It knows neither requests nor the pool; `connection::open` calls it. [`Connect`] is the one seam for tests and
//! for own transports. `proxy`, `environment` and `exclusions` say which proxy a URL has; `tunnel` and `socks` speak to it.

mod addresses;
mod dial;
mod dns;
mod environment;
mod exclusions;
mod guard;
#[cfg(feature = "hickory")]
mod hickory;
mod info;
mod liveness;
mod name_cache;
mod names;
#[cfg(not(feature = "socks"))]
mod no_socks;
#[cfg(not(feature = "rustls"))]
mod no_tls;
#[cfg(not(unix))]
mod no_unix;
mod proxy;
mod route;
#[cfg(feature = "socks")]
mod socks;
mod tcp;
mod tcp_options;
#[cfg(feature = "rustls")]
mod tls;
mod tunnel;
#[cfg(unix)]
mod unix;
mod upgraded;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::error::BoxFuture;

pub(crate) use dial::{DialError, DialSettings, Dialled, Dialler, Step, Steps};
pub use dns::{Resolve, Resolved};
pub(crate) use environment::Environment;
#[cfg(feature = "hickory")]
pub use hickory::DnsResolver;
pub use info::ConnectionInfo;
pub(crate) use liveness::{Probe, Probed};
pub(crate) use names::MAX_ADDRESSES;
#[cfg(not(feature = "socks"))]
use no_socks as socks;
#[cfg(not(feature = "rustls"))]
use no_tls as tls;
#[cfg(not(unix))]
use no_unix as unix;
pub use proxy::Proxy;
pub(crate) use proxy::{Proxies, Via};
pub use route::Route;
pub(crate) use route::{Detour, Passage, Way};
#[cfg(feature = "test-util")]
pub(crate) use socks::SOCKS_BUILT_IN;
pub use tcp_options::TcpKeepalive;
use tls::TlsStream;
#[cfg(feature = "http2")]
pub(crate) use tls::is_tls;
#[cfg(feature = "rustls")]
pub use tls::{ClientIdentity, TlsConfigBuilder, TlsVersion};
pub(crate) use tls::{TLS_BUILT_IN, tls_failure};
pub use tls::{TlsConfig, TlsInfo};
#[cfg(feature = "test-util")]
pub(crate) use tunnel::{Destination, First, TunnelFailure, open as open_tunnel};
pub use upgraded::Upgraded;

/// Makes the first hop of a connection: the seam for tests and for transports of your own.
///
/// Sockeye adds TLS for `https` itself, unless the socket comes [`secured`](Socket::secured). With a proxy the first hop leads
/// to that, and Sockeye asks it for a tunnel before TLS: [`Route::first_hop`] says where to connect to. The proxies that
/// the environment names do not apply to a client with a connector. The future may be dropped at any time; what it opened
/// must then close.
///
/// ```
/// use sockeye::{BoxFuture, Client, Connect, Route, Socket};
/// use tokio::net::TcpStream;
///
/// struct ToTheGateway;
///
/// impl Connect for ToTheGateway {
///     fn connect<'a>(&'a self, _route: &'a Route) -> BoxFuture<'a, std::io::Result<Socket>> {
///         Box::pin(async { Ok(Socket::from_io(TcpStream::connect("127.0.0.1:9000").await?)) })
///     }
/// }
///
/// let client = Client::builder().connector(ToTheGateway).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
pub trait Connect: Send + Sync + 'static {
    /// Opens a stream to the first hop of `route`. An error becomes `ErrorKind::Connect`, or `ErrorKind::Proxy` if a proxy is
    /// that hop.
    fn connect<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, io::Result<Socket>>;
}

/// The application protocol that a secured socket has settled on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alpn {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Alpn {
    fn version(self) -> http::Version {
        match self {
            Self::Http1 => http::Version::HTTP_11,
            Self::Http2 => http::Version::HTTP_2,
        }
    }
}

/// A stream of bytes to a peer.
pub struct Socket {
    stream: Stream,
    secured: Option<Alpn>,
}

/// Static dispatch where it is hot; `Custom` is the seam.
enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
    #[cfg(unix)]
    Unix(UnixStream),
    Custom(Box<dyn Io>),
}

/// What a transport of the user's must be.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Socket {
    /// Wraps any stream.
    ///
    /// ```
    /// let (ours, _theirs) = tokio::io::duplex(1024);
    /// let socket = sockeye::Socket::from_io(ours);
    /// ```
    pub fn from_io(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            stream: Stream::Custom(Box::new(io)),
            secured: None,
        }
    }

    /// Says that this stream is secured already and speaks `alpn`: no TLS is added, whatever the scheme, and no proxy is asked
    /// for a tunnel: it leads to the server.
    #[must_use]
    pub fn secured(mut self, alpn: Alpn) -> Self {
        self.secured = Some(alpn);
        self
    }

    fn from_tcp(tcp: TcpStream) -> Self {
        Self {
            stream: Stream::Tcp(tcp),
            secured: None,
        }
    }

    #[cfg(unix)]
    fn from_unix(unix: UnixStream) -> Self {
        Self {
            stream: Stream::Unix(unix),
            secured: None,
        }
    }

    fn from_tls(tls: TlsStream) -> Self {
        Self {
            stream: Stream::Tls(Box::new(tls)),
            // It is not asked any more.
            secured: None,
        }
    }

    /// The TCP stream at the bottom, if there is one.
    fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Tcp(tcp) => Some(tcp),
            Stream::Tls(tls) => tls::below(tls).tcp(),
            #[cfg(unix)]
            Stream::Unix(_) => None,
            Stream::Custom(_) => None,
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.stream {
            Stream::Tcp(_) => "tcp",
            Stream::Tls(_) => "tls",
            #[cfg(unix)]
            Stream::Unix(_) => "unix",
            Stream::Custom(_) => "custom",
        };
        f.debug_struct("Socket")
            .field("kind", &kind)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            #[cfg(unix)]
            Stream::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Stream::Custom(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            #[cfg(unix)]
            Stream::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Stream::Custom(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // What TLS and HTTP/2 write is mostly one piece, and the system takes one sooner by send(2) than by writev(2).
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        match &mut self.stream {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            #[cfg(unix)]
            Stream::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
            Stream::Custom(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(tcp) => tcp.is_write_vectored(),
            Stream::Tls(tls) => tls.is_write_vectored(),
            #[cfg(unix)]
            Stream::Unix(unix) => unix.is_write_vectored(),
            Stream::Custom(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
            #[cfg(unix)]
            Stream::Unix(unix) => Pin::new(unix).poll_flush(cx),
            Stream::Custom(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            #[cfg(unix)]
            Stream::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Stream::Custom(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
