//! Asks a proxy for a stream to an origin: CONNECT (RFC 9110 section 9.3.6), or SOCKS5 by `socks`.
//!
//! A function from a socket to the proxy to what may be read as a socket to the origin. The head of the answer passes the same
//! decoder and limits as any response; nothing behind it is taken in. Called by `dial`, within the connect limit.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Socket;
use super::proxy::{Protocol, Via};
use super::socks::{self, SocksFailure};
use crate::codec::request_head::encode_tunnel;
use crate::codec::{DecodeError, EncodeError, HeadDecoder, HeadStep, MethodKind};
use crate::config::Limits;
use crate::url::Origin;

/// Where a tunnel leads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destination<'a> {
    /// The proxy finds the address.
    Origin(&'a Origin),
    Address(SocketAddr),
}

/// Who speaks first in the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// We do, so a byte behind the proxy's answer is nobody's.
    We,
    /// Either may: a server of HTTP/2 without TLS need not wait for us.
    Either,
}

/// Why there is no tunnel.
#[derive(Debug)]
pub(crate) enum TunnelFailure {
    /// The connection to the proxy failed, or ended too early.
    Io(io::Error),
    /// The proxy answered with another status than 2xx.
    Refused(Refused),
    /// Its answer breaks HTTP, or a limit.
    Head(DecodeError),
    /// Bytes came behind its answer that nobody has asked for.
    Unsolicited(usize),
    Encode(EncodeError),
    Socks(SocksFailure),
}

/// A tunnel that was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    /// The beginning of what the status line says, unless the status says the same.
    reason: Option<String>,
    had_credentials: bool,
    /// The schemes of the credentials that are asked for.
    schemes: String,
}

/// Makes the tunnel.
pub(crate) async fn open(
    socket: &mut Socket,
    via: &Via,
    to: Destination<'_>,
    first: First,
    limits: &Limits,
) -> Result<(), TunnelFailure> {
    if via.protocol() == Protocol::Http {
        let Destination::Origin(origin) = to else {
            return Err(io::Error::from(io::ErrorKind::Unsupported).into());
        };
        return connect(socket, via, origin, first, limits).await;
    }
    let negotiated = socks::negotiate(socket, via.login(), to).await?;
    negotiated.map_err(TunnelFailure::Socks)
}

/// Asks a proxy of HTTP.
async fn connect(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    via: &Via,
    origin: &Origin,
    first: First,
    limits: &Limits,
) -> Result<(), TunnelFailure> {
    let mut buffer = BytesMut::new();
    encode_tunnel(&mut buffer, origin, via.fields()).map_err(TunnelFailure::Encode)?;
    socket.write_all(&buffer).await?;
    socket.flush().await?;
    buffer.clear();
    let mut heads = HeadDecoder::default();
    loop {
        let step = heads.decode(&buffer, MethodKind::Connect, limits);
        match step.map_err(TunnelFailure::Head)? {
            HeadStep::Interim(head) => buffer.advance(head.len),
            HeadStep::Final(head) if head.status.is_success() => {
                return match buffer.len() - head.len {
                    0 => Ok(()),
                    behind => Err(TunnelFailure::Unsolicited(behind)),
                };
            }
            HeadStep::Final(head) => {
                let kept = heads.keep(&head, &buffer, &[]);
                return Err(TunnelFailure::Refused(Refused {
                    status: head.status,
                    reason: reason(&buffer, head.status),
                    had_credentials: via.has_credentials(),
                    schemes: schemes(kept.fields()),
                }));
            }
            HeadStep::NeedMore => {
                // Byte by byte where what follows must stay in the socket, which cannot take anything back.
                let most = if first == First::Either { 1 } else { READ };
                let read = socket.take(most).read_buf(&mut buffer).await?;
                if read == 0 && buffer.is_empty() {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                if read == 0 {
                    return Err(TunnelFailure::Head(heads.cut_short(buffer.len())));
                }
            }
        }
    }
}

impl From<io::Error> for TunnelFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl TunnelFailure {
    /// The status with which the tunnel was refused.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(refused) => Some(refused.status),
            _ => None,
        }
    }

    pub(super) fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(error) => Some(error.kind()),
            _ => None,
        }
    }

    /// Whether it will be the same the next time: the proxy does not want to, or does not speak its protocol.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Io(_) => false,
            Self::Refused(refused) => {
                let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                !refused.status.is_server_error() && !passing.contains(&refused.status)
            }
            Self::Socks(failure) => failure.is_final(),
            Self::Head(_) | Self::Unsolicited(_) | Self::Encode(_) => true,
        }
    }

    /// Whether another address of the same host may fare better.
    pub(super) fn may_be_the_address(&self) -> bool {
        matches!(self, Self::Socks(failure) if failure.may_be_the_address())
    }
}

impl fmt::Display for TunnelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("it closed the connection without an answer")
            }
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused(refused) => write!(f, "{refused}"),
            Self::Head(error) => write!(f, "its answer cannot be understood: {error}"),
            Self::Unsolicited(bytes) => write!(
                f,
                "{bytes} bytes came behind its answer, before anything was sent into the tunnel"
            ),
            Self::Encode(error) => write!(f, "{error}"),
            Self::Socks(failure) => write!(f, "{failure}"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it refused with status {}", self.status.as_u16())?;
        if let Some(canonical) = self.status.canonical_reason() {
            write!(f, " {canonical}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, " (\"{reason}\")")?;
        }
        if self.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            f.write_str(match self.had_credentials {
                true => ", although it was given credentials: they are wrong, or of another kind",
                false => "; set credentials in its URL or by Proxy::basic_auth",
            })?;
            if !self.schemes.is_empty() {
                write!(f, " (it takes {})", self.schemes)?;
            }
        }
        Ok(())
    }
}

/// What the status line says in words, escaped and cut short, if it is more than the status says by itself.
fn reason(head: &[u8], status: StatusCode) -> Option<String> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let words = line.splitn(3, |byte| *byte == b' ').nth(2)?;
    let canonical = status.canonical_reason().unwrap_or_default();
    if words.is_empty() || words.eq_ignore_ascii_case(canonical.as_bytes()) {
        return None;
    }
    let shown = words.get(..MAX_REASON).unwrap_or(words);
    let rest = if shown.len() < words.len() { "…" } else { "" };
    Some(format!("{}{rest}", shown.escape_ascii()))
}

/// The first word of each challenge. The rest may hold what is nobody's business.
fn schemes<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> String {
    let mut schemes: Vec<&str> = Vec::new();
    let challenges = fields
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"proxy-authenticate"))
        .filter_map(|(_, value)| value.split(|byte| *byte == b' ').next())
        .filter(|word| word.len() <= MAX_SCHEME && word.iter().all(u8::is_ascii_alphanumeric))
        .filter_map(|word| std::str::from_utf8(word).ok());
    for scheme in challenges.take(MAX_SCHEMES) {
        if !scheme.is_empty() && !schemes.contains(&scheme) {
            schemes.push(scheme);
        }
    }
    schemes.join(", ")
}

/// Bytes of an answer that are read at once. Heads are short.
const READ: u64 = 4096;

/// Bytes of a reason that are shown.
const MAX_REASON: usize = 64;

/// Bytes of a scheme of credentials.
const MAX_SCHEME: usize = 16;

/// Challenges that are looked at.
const MAX_SCHEMES: usize = 4;
