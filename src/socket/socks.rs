//! Asks a SOCKS5 proxy for a connection (RFC 1928), with user and password if need be (RFC 1929).
//!
//! ```text
//!  methods ──▶ chosen ──▶ [user, password ──▶ accepted] ──▶ CONNECT, destination ──▶ reply
//! ```
//! Nothing beyond the reply is read, so that what follows belongs to whoever speaks next. Our own code: the crate for it
//! (tokio-socks) brings an error that does not tell a refusal from a broken reply, and four crates more, for what are three
//! messages. Called by `tunnel`, within the connect limit.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::proxy::Login;
use super::tunnel::Destination;

pub(crate) const SOCKS_BUILT_IN: bool = true;

/// What a proxy answered that is not a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocksFailure {
    /// Something else than SOCKS5 is spoken.
    Version(u8),
    /// It accepts no method that was offered.
    NoMethod {
        had_login: bool,
    },
    /// It chose a method that was not offered.
    Method(u8),
    /// User and password are refused, or the answer to them is none.
    Login,
    LoginVersion(u8),
    /// It did not connect.
    Reply(u8),
    AddressType(u8),
}

/// Has the proxy connect to `to`. The outer error is one of the connection.
pub(super) async fn negotiate(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    login: Option<&Login>,
    to: Destination<'_>,
) -> io::Result<Result<(), SocksFailure>> {
    let offer: &[u8] = match login {
        None => &[VERSION, 1, NO_LOGIN],
        Some(_) => &[VERSION, 2, NO_LOGIN, LOGIN],
    };
    send(socket, offer).await?;
    let [version, method] = receive(socket).await?;
    if version != VERSION {
        return Ok(Err(SocksFailure::Version(version)));
    }
    match (method, login) {
        (NO_LOGIN, _) => {}
        (LOGIN, Some(login)) => {
            send(socket, &login_message(login)).await?;
            let [version, status] = receive(socket).await?;
            if version != LOGIN_VERSION {
                return Ok(Err(SocksFailure::LoginVersion(version)));
            }
            if status != 0 {
                return Ok(Err(SocksFailure::Login));
            }
        }
        (NO_METHOD, _) => {
            let had_login = login.is_some();
            return Ok(Err(SocksFailure::NoMethod { had_login }));
        }
        (method, _) => return Ok(Err(SocksFailure::Method(method))),
    }
    send(socket, &request(to)).await?;
    reply(socket).await
}

/// Reads the reply, whose address nobody needs.
async fn reply(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<Result<(), SocksFailure>> {
    // Read apart: some proxies end the connection behind a code that says why.
    let [version, code] = receive(socket).await?;
    if version != VERSION {
        return Ok(Err(SocksFailure::Version(version)));
    }
    if code != 0 {
        return Ok(Err(SocksFailure::Reply(code)));
    }
    let [_, address_type] = receive(socket).await?;
    let length = match address_type {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let [length] = receive(socket).await?;
            usize::from(length)
        }
        other => return Ok(Err(SocksFailure::AddressType(other))),
    };
    let mut address = [0; 255 + 2];
    let address = address.get_mut(..length + 2).unwrap_or_default();
    socket.read_exact(address).await?;
    Ok(Ok(()))
}

fn login_message(login: &Login) -> Vec<u8> {
    let mut message = vec![LOGIN_VERSION];
    for part in [&login.user, &login.password] {
        push_counted(&mut message, part);
    }
    message
}

fn request(to: Destination<'_>) -> Vec<u8> {
    let mut message = vec![VERSION, CONNECT, 0];
    let port = match to {
        Destination::Address(address) => push_address(&mut message, address),
        Destination::Origin(origin) => match origin.host().parse::<IpAddr>() {
            Ok(address) => push_address(&mut message, SocketAddr::new(address, origin.port())),
            Err(_) => {
                message.push(NAME);
                push_counted(&mut message, origin.host());
                origin.port()
            }
        },
    };
    message.extend_from_slice(&port.to_be_bytes());
    message
}

fn push_address(message: &mut Vec<u8>, address: SocketAddr) -> u16 {
    match address.ip() {
        IpAddr::V4(address) => {
            message.push(IPV4);
            message.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            message.push(IPV6);
            message.extend_from_slice(&address.octets());
        }
    }
    address.port()
}

/// Names have at most 254 bytes, and what logs in was checked for 255.
fn push_counted(message: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let bytes = bytes.get(..255).unwrap_or(bytes);
    message.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    message.extend_from_slice(bytes);
}

async fn send(socket: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    socket.write_all(message).await?;
    socket.flush().await
}

async fn receive<const N: usize>(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    socket.read_exact(&mut bytes).await?;
    Ok(bytes)
}

impl SocksFailure {
    /// Whether it will be the same the next time.
    pub(super) fn is_final(self) -> bool {
        match self {
            Self::Reply(code) => matches!(code, NOT_ALLOWED | NO_COMMAND | NO_ADDRESS_TYPE),
            _ => true,
        }
    }

    /// Whether another address of the same host may fare better.
    pub(super) fn may_be_the_address(self) -> bool {
        matches!(self, Self::Reply(1 | 3..=6 | NO_ADDRESS_TYPE))
    }
}

impl fmt::Display for SocksFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Version(version) => write!(
                f,
                "it does not speak SOCKS5: its answer is of version {version}{}",
                // The first letter of a status line.
                if version == b'H' { ", which looks like HTTP" } else { "" }
            ),
            Self::NoMethod { had_login: false } => f.write_str(
                "it wants to know who asks; set user and password in its URL or by Proxy::basic_auth",
            ),
            Self::NoMethod { had_login: true } => {
                f.write_str("it takes neither user and password nor a connection without them")
            }
            Self::Method(method) => write!(f, "it chose method {method}, which was not offered"),
            Self::Login => f.write_str("it refused user and password"),
            Self::LoginVersion(version) => {
                write!(f, "its answer to user and password is of version {version}, not 1")
            }
            Self::Reply(code) => write!(f, "it answered with code {code}: {}", meaning(code)),
            Self::AddressType(of) => write!(f, "its reply has an address of the unknown type {of}"),
        }
    }
}

/// RFC 1928 section 6.
fn meaning(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        NOT_ALLOWED => "its rules do not allow the connection",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "the time to live expired",
        NO_COMMAND => "it does not know CONNECT",
        NO_ADDRESS_TYPE => "it does not know this type of address",
        _ => "which has no meaning",
    }
}

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
const NOT_ALLOWED: u8 = 2;
const NO_COMMAND: u8 = 7;
const NO_ADDRESS_TYPE: u8 = 8;
