//! Makes a connected socket for a route: resolve, connect, shake hands.
//!
//! The connect limit runs over all steps together; [`Steps`] tells who waits which step is running. Called by
//! `connection::open`, in a task of the pool.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::addresses::{self, Penalties};
use super::dns::Resolve;
use super::name_cache::Answer;
use super::names::{Names, Overrides};
use super::proxy::{Protocol, Via};
use super::tcp_options::TcpOptions;
use super::tls::{self, TlsConfig, TlsFailure, TlsInfo};
use super::tunnel::{self, Destination, First, TunnelFailure};
use super::{Alpn, Connect, Detour, Passage, Route, Socket, guard, tcp, unix};
use crate::config::{HttpVersions, Limits};
use crate::head::Forwarding;
use crate::stats::{DialTold, Observers, StepTold};
use crate::url::Origin;

/// How a client dials, and what its dials have learnt of addresses.
pub(crate) struct Dialler {
    pub(crate) connector: Option<Arc<dyn Connect>>,
    pub(crate) tls: TlsConfig,
    proxies: Vec<TlsConfig>,
    names: Arc<Names>,
    deny_private: bool,
    tcp: TcpOptions,
    /// How many dials of a name had more than one address to begin with, by a byte that the name is hashed to: two that share
    /// it only disturb each other's turns. They wrap.
    turns: [AtomicUsize; 256],
    penalties: Penalties,
}

/// How names are found and sockets of TCP are made, where there is no connector.
#[derive(Default)]
pub(crate) struct DialSettings {
    /// How TLS is spoken with the proxies of the client.
    pub(crate) proxies: Vec<TlsConfig>,
    /// In place of the system's.
    pub(crate) resolver: Option<Arc<dyn Resolve>>,
    pub(crate) overrides: Overrides,
    pub(crate) deny_private: bool,
    pub(crate) tcp: TcpOptions,
}

/// A step of dialling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Resolve,
    Connect,
    Tls,
}

/// The step that a dial is at, readable while it runs, and whom its steps are told to.
pub(crate) struct Steps {
    now: AtomicU8,
    /// The number of the dial, and of the connection that comes of it: different for each of this process.
    connection: u64,
    observers: Option<Arc<Observers>>,
}

/// A socket and how it came about.
pub(crate) struct Dialled {
    pub(crate) id: u64,
    pub(crate) socket: Socket,
    pub(crate) alpn: Option<Alpn>,
    pub(crate) remote_addr: Option<SocketAddr>,
    pub(crate) local_addr: Option<SocketAddr>,
    pub(crate) tls: Option<TlsInfo>,
    /// The proxy in between.
    pub(crate) via: Option<Via>,
    /// The peer is a proxy that forwards requests.
    pub(crate) forwarding: Option<Arc<Forwarding>>,
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
    /// There are addresses, and settings of the client exclude them all.
    Excluded(tcp::Failures),
    Unix(PathBuf, io::Error),
    Connector(io::Error),
    Tls(TlsFailure),
    /// The proxy was not reached.
    Proxy(Via, Box<Self>),
    /// It was, and made no tunnel.
    Tunnel(Via, TunnelFailure),
}

/// What the first steps of a dial have made: a stream to the proxy or the origin.
struct FirstHop {
    socket: Socket,
    resolve: Option<Duration>,
}

impl FirstHop {
    /// The same after another lookup, which took so long.
    fn after(mut self, looking: Duration) -> Self {
        *self.resolve.get_or_insert_default() += looking;
        self
    }
}

impl Steps {
    /// A dial that has not begun yet.
    pub(crate) fn new(observers: Option<Arc<Observers>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            now: AtomicU8::new(Step::Resolve as u8),
            connection: NEXT.fetch_add(1, Ordering::Relaxed),
            observers,
        }
    }

    /// The number of the dial.
    pub(crate) fn connection(&self) -> u64 {
        self.connection
    }

    fn told<'a>(&'a self, origin: &'a Origin) -> Option<DialTold<'a>> {
        Some(DialTold {
            observers: self.observers.as_deref()?,
            connection: self.connection,
            origin,
        })
    }

    fn begin(&self, step: Step) {
        self.now.store(step as u8, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Step {
        match self.now.load(Ordering::Relaxed) {
            0 => Step::Resolve,
            1 => Step::Connect,
            _ => Step::Tls,
        }
    }
}

impl Dialler {
    pub(crate) fn new(
        connector: Option<Arc<dyn Connect>>,
        tls: TlsConfig,
        settings: DialSettings,
    ) -> Self {
        let DialSettings {
            proxies,
            resolver,
            overrides,
            deny_private,
            tcp,
        } = settings;
        Self {
            connector,
            tls,
            proxies,
            names: Arc::new(Names::new(resolver, overrides)),
            deny_private,
            tcp,
            turns: [const { AtomicUsize::new(0) }; 256],
            penalties: Penalties::default(),
        }
    }

    /// All that may change how TLS is spoken, but for what calls set.
    pub(crate) fn tls_settings(&self) -> impl Iterator<Item = &TlsConfig> {
        [&self.tls].into_iter().chain(&self.proxies)
    }

    /// Dials, without a limit of its own: the caller sets one and may drop this at any time.
    pub(crate) async fn dial(
        &self,
        route: &Route,
        limits: &Limits,
        steps: &Steps,
    ) -> Result<Dialled, DialError> {
        let start = Instant::now();
        let origin = route.origin();
        let told = steps.told(origin);
        if origin.is_https() {
            tls::gather_entropy();
        }
        let FirstHop { socket, resolve } = match route.detour() {
            None => self.first_hop(route, steps).await?,
            // Boxed: it is rare, and would weigh on every dial.
            Some(detour) => Box::pin(self.pass(route, detour, limits, steps)).await?,
        };
        let connect = start.elapsed().saturating_sub(resolve.unwrap_or_default());
        let (remote_addr, local_addr) = socket.tcp().map_or((None, None), |tcp| {
            (tcp.peer_addr().ok(), tcp.local_addr().ok())
        });
        let detour = route.detour().filter(|_| socket.secured.is_none());
        let forwarded = detour.filter(|detour| detour.passage == Passage::Forward);
        let mut dialled = Dialled {
            id: steps.connection,
            alpn: socket.secured,
            socket,
            remote_addr,
            local_addr,
            tls: None,
            via: detour.map(|detour| detour.via.clone()),
            forwarding: forwarded.map(|detour| Arc::clone(detour.via.forwarding())),
            resolve,
            connect: Some(connect),
            handshake: None,
        };
        if origin.is_https() && dialled.alpn.is_none() {
            steps.begin(Step::Tls);
            let begun = Instant::now();
            let versions = route.http_versions();
            let step = StepTold::tls(told);
            let shaken = tls::handshake(&self.tls, origin.host(), versions, dialled.socket).await;
            let (stream, info, alpn) = match shaken {
                Ok(secured) => secured,
                Err(failure) => {
                    step.not_secured(&failure);
                    return Err(DialError::Tls(failure));
                }
            };
            let protocol = alpn.map(Alpn::version);
            step.secured(info.version(), protocol, info.resumed());
            dialled.socket = Socket::from_tls(stream);
            dialled.alpn = alpn;
            dialled.tls = Some(info);
            dialled.handshake = Some(begun.elapsed());
        }
        Ok(dialled)
    }

    /// A stream to where the route begins.
    async fn first_hop(&self, route: &Route, steps: &Steps) -> Result<FirstHop, DialError> {
        let told = steps.told(route.origin());
        let mut resolve = None;
        let socket = if let Some(connector) = &self.connector {
            steps.begin(Step::Connect);
            let socket = tcp::tell(told, None, connector.connect(route)).await;
            socket.map_err(DialError::Connector)?
        } else if let Some(path) = route.unix() {
            steps.begin(Step::Connect);
            let socket = tcp::tell(told, None, unix::connect(path)).await;
            socket.map_err(|error| DialError::Unix(path.to_owned(), error))?
        } else {
            let (tcp, looking) = self.dial_tcp(route.first_place(), told, steps).await?;
            resolve = looking;
            Socket::from_tcp(tcp)
        };
        Ok(FirstHop { socket, resolve })
    }

    /// A stream through a proxy: to the origin, or to the proxy that forwards what it is sent.
    async fn pass(
        &self,
        route: &Route,
        detour: Detour<'_>,
        limits: &Limits,
        steps: &Steps,
    ) -> Result<FirstHop, DialError> {
        let origin = route.origin();
        if detour.via.protocol() != Protocol::Socks5 || origin.host().parse::<IpAddr>().is_ok() {
            let to = Destination::Origin(origin);
            return self.pass_to(to, route, detour, limits, steps).await;
        }
        // The proxy is to be given an address: one that it cannot reach is followed by the next.
        steps.begin(Step::Resolve);
        let begun = Instant::now();
        let step = StepTold::dns(steps.told(origin));
        let found = match self.names.find(origin.host()).await {
            Ok(found) => found,
            Err(error) => {
                step.failed(error.kind());
                return Err(DialError::Resolve(error));
            }
        };
        step.found(found.answer.len());
        let looking = begun.elapsed();
        let addresses = found.answer.iter();
        let addresses = addresses.map(|address| at_port(*address, origin.port()));
        let mut doubt = Doubt {
            names: &self.names,
            host: origin.host(),
            answer: Some(&found.answer),
        };
        let mut last = None;
        let ordered = self.order(origin.host(), addresses.collect());
        for address in ordered.into_iter().take(MAX_TRIED) {
            let to = Destination::Address(address);
            match self.pass_to(to, route, detour, limits, steps).await {
                Err(DialError::Tunnel(via, failure)) if failure.may_be_the_address() => {
                    last = Some(DialError::Tunnel(via, failure));
                }
                passed => {
                    doubt.answer = None;
                    return passed.map(|hop| hop.after(looking));
                }
            }
        }
        Err(last.unwrap_or_else(|| DialError::Connect(tcp::Failures::new())))
    }

    async fn pass_to(
        &self,
        to: Destination<'_>,
        route: &Route,
        detour: Detour<'_>,
        limits: &Limits,
        steps: &Steps,
    ) -> Result<FirstHop, DialError> {
        let Detour { via, passage } = detour;
        let unreached = |error| DialError::Proxy(via.clone(), Box::new(error));
        let hop = self.first_hop(route, steps).await;
        let FirstHop {
            mut socket,
            resolve,
        } = hop.map_err(unreached)?;
        if socket.secured.is_some() {
            // It leads to the server, whoever is in between.
            return Ok(FirstHop { socket, resolve });
        }
        let place = via.place();
        if place.is_https() {
            steps.begin(Step::Tls);
            let step = StepTold::tls(steps.told(route.origin()));
            let shaken = tls::handshake(via.tls(), place.host(), HttpVersions::Http1, socket).await;
            let (stream, info, alpn) = match shaken {
                Ok(secured) => secured,
                Err(failure) => {
                    step.not_secured(&failure);
                    return Err(unreached(DialError::Tls(failure)));
                }
            };
            step.secured(info.version(), alpn.map(Alpn::version), info.resumed());
            socket = Socket::from_tls(stream);
            steps.begin(Step::Connect);
        }
        if passage == Passage::Tunnel {
            let knows_http2 = route.http_versions() == HttpVersions::Http2PriorKnowledge;
            let first = match knows_http2 && !route.origin().is_https() {
                true => First::Either,
                false => First::We,
            };
            let opened = tunnel::open(&mut socket, via, to, first, limits).await;
            opened.map_err(|failure| DialError::Tunnel(via.clone(), failure))?;
        }
        Ok(FirstHop { socket, resolve })
    }

    /// Resolves and connects; answers how long the lookups took, if there were any.
    async fn dial_tcp(
        &self,
        place: &Origin,
        told: Option<DialTold<'_>>,
        steps: &Steps,
    ) -> Result<(TcpStream, Option<Duration>), DialError> {
        let (host, port) = (place.host(), place.port());
        if let Ok(literal) = host.parse::<IpAddr>() {
            steps.begin(Step::Connect);
            let literal = vec![SocketAddr::new(literal, port)];
            let tcp = self.connect(host, literal, told).await?;
            return Ok((tcp, None));
        }
        let mut looking = Duration::ZERO;
        let mut failed = tcp::Failures::new();
        loop {
            let begun = Instant::now();
            steps.begin(Step::Resolve);
            let step = StepTold::dns(told);
            let found = match self.names.find(host).await {
                Ok(found) => found,
                Err(error) => {
                    step.failed(error.kind());
                    return Err(match failed.is_empty() {
                        true => DialError::Resolve(error),
                        // That the addresses of before have failed says more.
                        false => DialError::Connect(failed),
                    });
                }
            };
            step.found(found.answer.len());
            looking += begun.elapsed();
            let mut addresses: Vec<_> = found
                .answer
                .iter()
                .map(|address| at_port(*address, port))
                .collect();
            let is_second = !failed.is_empty();
            addresses.retain(|address| !failed.iter().any(|(tried, _)| tried == address));
            if addresses.is_empty() {
                return Err(DialError::Connect(failed));
            }
            steps.begin(Step::Connect);
            let mut doubt = Doubt {
                names: &self.names,
                host,
                answer: Some(&found.answer),
            };
            match self.connect(host, addresses, told).await {
                Ok(tcp) => {
                    doubt.answer = None;
                    return Ok((tcp, Some(looking)));
                }
                Err(DialError::Connect(failures)) => {
                    drop(doubt);
                    failed.extend(failures);
                    // An answer from before this dial may have been overtaken; one that is new says what there is.
                    if is_second || !found.is_remembered {
                        return Err(DialError::Connect(failed));
                    }
                }
                Err(other) => {
                    doubt.answer = None;
                    return Err(if is_second {
                        DialError::Connect(failed)
                    } else {
                        other
                    });
                }
            }
        }
    }

    /// Connects to one of the addresses of a host that the settings let it connect to. No address is looked at before that,
    /// nor replaced after it.
    async fn connect(
        &self,
        host: &str,
        addresses: Vec<SocketAddr>,
        told: Option<DialTold<'_>>,
    ) -> Result<TcpStream, DialError> {
        let mut excluded = tcp::Failures::new();
        let mut admitted = addresses;
        admitted.retain(|address| match self.exclude(*address) {
            Some(why) => {
                excluded.push((*address, why));
                false
            }
            None => true,
        });
        if admitted.is_empty() {
            return Err(DialError::Excluded(excluded));
        }
        let ordered = self.order(host, admitted);
        let connected = tcp::connect(&ordered, &self.tcp, &self.penalties, told).await;
        connected.map_err(|failures| {
            excluded.extend(failures);
            DialError::Connect(excluded)
        })
    }

    /// Why a setting excludes an address, if one does.
    fn exclude(&self, address: SocketAddr) -> Option<io::Error> {
        if let Some(what) = self
            .deny_private
            .then(|| guard::denied(address.ip()))
            .flatten()
        {
            return Some(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("not dialled: it is {what} (deny_private)"),
            ));
        }
        self.tcp.mismatch(address)
    }

    /// What was remembered of names does not count any more: the network has changed.
    pub(crate) fn forget_names(&self) {
        self.names.forget_all();
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

    fn order(&self, host: &str, addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        if addresses.len() < 2 {
            return addresses;
        }
        let rotation = self.turn(host).fetch_add(1, Ordering::Relaxed);
        addresses::order(&addresses, rotation, &self.penalties, Instant::now())
    }

    /// Names that are dialled in turn must not take each other's turns.
    fn turn(&self, host: &str) -> &AtomicUsize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(host);
        let [.., low] = hash.to_be_bytes();
        &self.turns[usize::from(low)]
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) | Self::Connector(error) => write!(f, "{error}"),
            Self::Connect(failures) | Self::Excluded(failures) => list(failures, f),
            Self::Unix(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Tls(failure) => write!(f, "{failure}"),
            // Whoever makes an error of it names the proxy.
            Self::Proxy(_, error) => write!(f, "{error}"),
            Self::Tunnel(_, failure) => write!(f, "{failure}"),
        }
    }
}

// The parts are in the line already, so `source` stays None; `io_kind` keeps the system's kind readable.
impl std::error::Error for DialError {}

impl DialError {
    /// The kind of the system's error; of several addresses, that of the one tried last.
    pub(crate) fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Resolve(error) | Self::Connector(error) | Self::Unix(_, error) => {
                Some(error.kind())
            }
            Self::Connect(failures) | Self::Excluded(failures) => {
                failures.last().map(|(_, error)| error.kind())
            }
            Self::Tls(failure) => failure.io_kind(),
            Self::Proxy(_, error) => error.io_kind(),
            Self::Tunnel(_, failure) => failure.io_kind(),
        }
    }

    /// Whether this process, or the system, has no file descriptor left: closing others may help.
    pub(crate) fn is_out_of_files(&self) -> bool {
        match self {
            Self::Resolve(error) | Self::Connector(error) | Self::Unix(_, error) => {
                is_out_of_files(error)
            }
            Self::Connect(failures) => failures.iter().any(|(_, error)| is_out_of_files(error)),
            Self::Proxy(_, error) => error.is_out_of_files(),
            Self::Excluded(_) | Self::Tls(_) | Self::Tunnel(..) => false,
        }
    }

    /// Whether it will be the same the next time, because a setting of the client is why.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Excluded(_) => true,
            // Of a certificate that is not to the client's liking no other attempt makes a better one.
            Self::Proxy(_, error) => match &**error {
                Self::Tls(failure) => !failure.is_broken_off(),
                Self::Resolve(error) => error.kind() == io::ErrorKind::NotFound,
                error => error.is_final(),
            },
            Self::Tunnel(_, failure) => failure.is_final(),
            _ => false,
        }
    }
}

/// Has an answer forgotten when it is dropped, the connect limit included, unless it was of use.
struct Doubt<'a> {
    names: &'a Names,
    host: &'a str,
    answer: Option<&'a Answer>,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer {
            self.names.forget(self.host, answer);
        }
    }
}

/// Addresses of one name that a proxy is asked for, one after the other.
const MAX_TRIED: usize = 4;

/// Port 0 stands for that of the URL.
fn at_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    if address.port() == 0 {
        address.set_port(port);
    }
    address
}

/// Every address once, those with the same error together.
fn list(failures: &tcp::Failures, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let texts: Vec<_> = failures
        .iter()
        .map(|(_, error)| error.to_string())
        .collect();
    for (at, text) in texts.iter().enumerate() {
        let is_first = texts.iter().position(|other| other == text) == Some(at);
        if !is_first {
            continue;
        }
        let mut separator = if at > 0 { "; " } else { "" };
        for ((address, _), _) in failures
            .iter()
            .zip(&texts)
            .filter(|(_, other)| *other == text)
        {
            write!(f, "{separator}{address}")?;
            separator = ", ";
        }
        write!(f, ": {text}")?;
    }
    Ok(())
}

/// Whether the process, or the system, has no file descriptor left.
#[cfg(unix)]
pub(super) fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

#[cfg(not(unix))]
pub(super) fn is_out_of_files(_: &io::Error) -> bool {
    false
}

/// The process has no file descriptor left. The number is the same on every Unix.
#[cfg(unix)]
const EMFILE: i32 = 24;

/// The system has none left.
#[cfg(unix)]
const ENFILE: i32 = 23;

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses<const N: usize>(texts: [&str; N]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_dial_begins_with_another_address() {
        let dialler = Dialler::new(None, TlsConfig::default(), DialSettings::default());
        let resolved = addresses(["192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"]);
        let alone = addresses(["192.0.2.9:80"]);
        let (mut begun, mut others) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            begun.push(dialler.order("a.test", resolved.clone())[0]);
            // A dial with nothing to choose from leaves the others their turns, and so does one of another name.
            assert_eq!(dialler.order("a.test", alone.clone()), alone);
            others.push(dialler.order("b.test", resolved.clone())[0]);
        }
        assert_eq!(begun, [resolved.clone(), resolved].concat());
        assert_eq!(begun, others);
    }

    #[test]
    fn the_number_of_a_dial_wraps() {
        let dialler = Dialler::new(None, TlsConfig::default(), DialSettings::default());
        dialler.turn("a.test").store(usize::MAX, Ordering::Relaxed);
        let resolved = addresses(["192.0.2.1:80", "192.0.2.2:80"]);
        assert_eq!(dialler.order("a.test", resolved.clone())[0], resolved[1]);
        assert_eq!(dialler.order("a.test", resolved.clone())[0], resolved[0]);
    }

    #[test]
    fn what_the_pool_penalises_is_tried_last() {
        let dialler = Dialler::new(None, TlsConfig::default(), DialSettings::default());
        let resolved = addresses(["192.0.2.1:80", "192.0.2.2:80"]);
        let now = Instant::now();
        assert!(!dialler.is_penalised(resolved[0], now));
        dialler.penalise(resolved[0], now);
        assert!(dialler.is_penalised(resolved[0], now));
        assert!(!dialler.is_penalised(resolved[1], now));
        for _ in 0..4 {
            assert_eq!(dialler.order("a.test", resolved.clone())[1], resolved[0]);
        }
    }
}
