//! Makes a connected socket for a route: resolve, connect, shake hands.
//!
//! The connect limit runs over all steps together; [`Steps`] tells who waits which step is running. Called by
//! `connection::open`, in a task of the pool.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::addresses::{self, Penalties};
use super::tls::{self, TlsConfig, TlsFailure, TlsInfo};
use super::{Alpn, Connect, Route, Socket, dns, tcp};

/// How a client dials, and what its dials have learnt of addresses.
pub(crate) struct Dialler {
    pub(crate) connector: Option<Arc<dyn Connect>>,
    pub(crate) tls: TlsConfig,
    /// The number of the next dial that has more than one address to begin with. It wraps.
    rotation: AtomicUsize,
    penalties: Penalties,
}

/// A step of dialling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Resolve,
    Connect,
    Tls,
}

/// The step that a dial is at, readable while it runs.
#[derive(Debug, Default)]
pub(crate) struct Steps(AtomicU8);

/// A socket and how it came about.
pub(crate) struct Dialled {
    pub(crate) socket: Socket,
    pub(crate) alpn: Option<Alpn>,
    pub(crate) remote_addr: Option<SocketAddr>,
    pub(crate) local_addr: Option<SocketAddr>,
    pub(crate) tls: Option<TlsInfo>,
    pub(crate) resolve: Option<Duration>,
    pub(crate) connect: Option<Duration>,
    pub(crate) handshake: Option<Duration>,
}

/// Why no socket came about.
#[derive(Debug)]
pub(crate) enum DialError {
    Resolve(io::Error),
    /// Every address that was tried, in the order in which the attempts began.
    Connect(tcp::Failures),
    Connector(io::Error),
    Tls(TlsFailure),
}

impl Steps {
    fn begin(&self, step: Step) {
        self.0.store(step as u8, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Step {
        match self.0.load(Ordering::Relaxed) {
            0 => Step::Resolve,
            1 => Step::Connect,
            _ => Step::Tls,
        }
    }
}

impl Dialler {
    pub(crate) fn new(connector: Option<Arc<dyn Connect>>, tls: TlsConfig) -> Self {
        Self {
            connector,
            tls,
            rotation: AtomicUsize::new(0),
            penalties: Penalties::default(),
        }
    }

    /// Dials, without a limit of its own: the caller sets one and may drop this at any time.
    pub(crate) async fn dial(&self, route: &Route, steps: &Steps) -> Result<Dialled, DialError> {
        let start = Instant::now();
        let origin = route.origin();
        let (socket, resolve, connect) = match &self.connector {
            Some(connector) => {
                steps.begin(Step::Connect);
                let socket = connector
                    .connect(route)
                    .await
                    .map_err(DialError::Connector)?;
                (socket, None, start.elapsed())
            }
            None => {
                let addresses = dns::resolve(origin.host(), origin.port())
                    .await
                    .map_err(DialError::Resolve)?;
                let resolved = start.elapsed();
                let looked_up = origin.host().parse::<std::net::IpAddr>().is_err();
                steps.begin(Step::Connect);
                let tcp = tcp::connect(&self.order(addresses), &self.penalties)
                    .await
                    .map_err(DialError::Connect)?;
                (
                    Socket::from_tcp(tcp),
                    looked_up.then_some(resolved),
                    start.elapsed().saturating_sub(resolved),
                )
            }
        };
        let (remote_addr, local_addr) = socket.tcp().map_or((None, None), |tcp| {
            (tcp.peer_addr().ok(), tcp.local_addr().ok())
        });
        let mut dialled = Dialled {
            alpn: socket.secured,
            socket,
            remote_addr,
            local_addr,
            tls: None,
            resolve,
            connect: Some(connect),
            handshake: None,
        };
        if origin.is_https() && dialled.alpn.is_none() {
            steps.begin(Step::Tls);
            let begun = Instant::now();
            let versions = route.http_versions();
            let (stream, info, alpn) =
                tls::handshake(&self.tls, origin.host(), versions, dialled.socket)
                    .await
                    .map_err(DialError::Tls)?;
            dialled.socket = Socket::from_tls(stream);
            dialled.alpn = alpn;
            dialled.tls = Some(info);
            dialled.handshake = Some(begun.elapsed());
        }
        Ok(dialled)
    }

    /// Has `address` tried last for 30 s: a connection to it that had been idle was reset (spec pool R-LIFE-3). Dials see to
    /// what they learn themselves.
    pub(crate) fn penalise(&self, address: SocketAddr, now: Instant) {
        self.penalties.penalise(address, now);
    }

    /// Whether `address` is tried last at `now`: a dial or a connection has failed there, so an idle connection to it may be
    /// dead without a sign (spec pool R-LIFE-3). Costs one relaxed load while no address of this client is.
    pub(crate) fn is_penalised(&self, address: SocketAddr, now: Instant) -> bool {
        self.penalties.holds(address, now)
    }

    fn order(&self, addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        if addresses.len() < 2 {
            return addresses;
        }
        let rotation = self.rotation.fetch_add(1, Ordering::Relaxed);
        addresses::order(&addresses, rotation, &self.penalties, Instant::now())
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) | Self::Connector(error) => write!(f, "{error}"),
            Self::Connect(failures) => {
                for (at, (address, error)) in failures.iter().enumerate() {
                    if at > 0 {
                        f.write_str("; ")?;
                    }
                    write!(f, "{address}: {error}")?;
                }
                Ok(())
            }
            Self::Tls(failure) => write!(f, "{failure}"),
        }
    }
}

// The parts are in the line already, so `source` stays None; `io_kind` keeps the system's kind readable.
impl std::error::Error for DialError {}

impl DialError {
    /// The kind of the system's error; of several addresses, that of the one tried last.
    pub(crate) fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Resolve(error) | Self::Connector(error) => Some(error.kind()),
            Self::Connect(failures) => failures.last().map(|(_, error)| error.kind()),
            Self::Tls(failure) => failure.io_kind(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses<const N: usize>(texts: [&str; N]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_dial_begins_with_another_address() {
        let dialler = Dialler::new(None, TlsConfig::default());
        let resolved = addresses(["192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"]);
        let alone = addresses(["192.0.2.9:80"]);
        let mut begun = Vec::new();
        for _ in 0..6 {
            begun.push(dialler.order(resolved.clone())[0]);
            // A dial with nothing to choose from leaves the others their turns.
            assert_eq!(dialler.order(alone.clone()), alone);
        }
        assert_eq!(begun, [resolved.clone(), resolved].concat());
    }

    #[test]
    fn the_number_of_a_dial_wraps() {
        let mut dialler = Dialler::new(None, TlsConfig::default());
        dialler.rotation = AtomicUsize::new(usize::MAX);
        let resolved = addresses(["192.0.2.1:80", "192.0.2.2:80"]);
        assert_eq!(dialler.order(resolved.clone())[0], resolved[1]);
        assert_eq!(dialler.order(resolved.clone())[0], resolved[0]);
    }

    #[test]
    fn what_the_pool_penalises_is_tried_last() {
        let dialler = Dialler::new(None, TlsConfig::default());
        let resolved = addresses(["192.0.2.1:80", "192.0.2.2:80"]);
        let now = Instant::now();
        assert!(!dialler.is_penalised(resolved[0], now));
        dialler.penalise(resolved[0], now);
        assert!(dialler.is_penalised(resolved[0], now));
        assert!(!dialler.is_penalised(resolved[1], now));
        for _ in 0..4 {
            assert_eq!(dialler.order(resolved.clone())[1], resolved[0]);
        }
    }
}
