//! A network in memory: hosts with addresses that answer, refuse, are slow or are silent, and connections that break at a byte.
//!
//! A [`MemNet`] is a connector, and a resolver for who wants to ask it. `host` is what a test sets up, `peer` the scripted other
//! side; hosts that serve by a function are served by `server`.

mod host;
mod peer;
mod seen;

use std::fmt;
use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::mock::{secured, spoken};
use super::pipe;
use super::server::{Place, serve};
use crate::error::BoxFuture;
use crate::socket::{Connect, Resolve, Resolved, Route, Socket};
pub use host::{Host, Reach, Side};
use host::{Plan, Way};
pub use peer::Peer;
pub use seen::{Attempted, Connected};

/// A network in memory for the tests of clients: [`Connect`] over streams of bytes, and [`Resolve`].
///
/// Hosts have names and addresses, and every port. A dial tries the addresses of a host in their order, the next one when one
/// refuses or after 250 ms; that is the net's own doing, because a connector stands where the client's own dialling would be.
/// Nothing here is left to chance, so that a test under tokio's paused time runs the same way each time.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
/// use std::time::Duration;
/// use sockeye::test::{MemNet, Reach, Received, Reply, Side, WireFault};
/// use sockeye::{Client, ErrorKind};
///
/// let net = MemNet::new();
/// net.host("api.test")
///     .address([192, 0, 2, 1], Reach::BlackHole)
///     .address([192, 0, 2, 2], Reach::Slow(Duration::from_millis(20)))
///     .serve(async |request: Received| Reply::new(200, format!("you asked {}", request.url.path())));
/// // This host's connections are reset after 90 bytes of what they answer.
/// net.host("broken.test")
///     .fault(Side::ToClient, 90, WireFault::Rst)
///     .serve(async |_: Received| Reply::new(200, "x".repeat(1000)));
///
/// let client = Client::builder().connector(net.clone()).build()?;
/// for _ in 0..2 {
///     let text = client.get("http://api.test/a").send().await?.text().await?;
///     assert_eq!(text, "you asked /a");
/// }
/// let broken = client.get("http://broken.test/").send().await?.text().await;
/// assert_eq!(broken.unwrap_err().kind(), ErrorKind::Io);
/// // One connection carried both requests to the first host.
/// assert_eq!(net.connections().len(), 2);
/// # Ok::<(), sockeye::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct MemNet(Arc<Net>);

struct Net {
    state: Mutex<State>,
    connected: Notify,
}

#[derive(Default)]
struct State {
    hosts: Vec<Plan>,
    connections: Vec<Connected>,
    attempts: Vec<Attempted>,
}

impl Default for MemNet {
    fn default() -> Self {
        Self::new()
    }
}

impl MemNet {
    /// A network without hosts: every dial fails.
    pub fn new() -> Self {
        Self(Arc::new(Net {
            state: Mutex::default(),
            connected: Notify::new(),
        }))
    }

    /// The host of this name, which is made if there is none yet. One without an address of its own has one that connects at
    /// once.
    pub fn host(&self, name: impl AsRef<str>) -> Host {
        Host::new(Arc::clone(&self.0), name.as_ref())
    }

    /// Every connection so far, in the order in which they were made.
    pub fn connections(&self) -> Vec<Connected> {
        self.0.lock().connections.clone()
    }

    /// Every address that was tried so far, in order.
    pub fn attempts(&self) -> Vec<Attempted> {
        self.0.lock().attempts.clone()
    }
}

impl Connect for MemNet {
    fn connect<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move {
            let name = route.origin().host();
            let way = {
                let mut state = self.0.lock();
                let way = state.plan(name)?.way();
                let host: Arc<str> = name.into();
                state
                    .attempts
                    .extend(way.tried.iter().map(|address| Attempted {
                        host: Arc::clone(&host),
                        address: *address,
                    }));
                way
            };
            let Way { reached, tried } = way;
            match reached {
                Some((address, after)) => {
                    if after > Duration::ZERO {
                        sleep(after).await;
                    }
                    self.0.open(route, address)
                }
                None if tried.is_silent => pending().await,
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

impl Resolve for MemNet {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
        Box::pin(async move {
            let mut state = self.0.lock();
            Ok(Resolved::new(state.plan(host)?.addresses()))
        })
    }
}

impl State {
    fn plan(&mut self, name: &str) -> io::Result<&mut Plan> {
        let mut hosts = self.hosts.iter_mut();
        hosts.find(|host| host.is_called(name)).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("the net has no host called {name}"),
            )
        })
    }
}

impl Net {
    fn open(self: &Arc<Self>, route: &Route, address: IpAddr) -> io::Result<Socket> {
        let mut state = self.lock();
        let number = state.connections.len();
        let plan = state.plan(route.origin().host())?;
        let alpn = spoken(route, plan.alpn);
        let (to_peer, to_client) = plan.faults();
        let (client, peer, control) = pipe::connect(plan.buffer, &to_peer, &to_client);
        let place = Place {
            origin: route.origin().clone(),
            number,
        };
        let connected = Connected::new(&place, address, alpn, control.clone());
        match plan.handler.clone() {
            Some(handler) => {
                tokio::spawn(serve(alpn, peer, control, place, handler));
            }
            None => plan
                .waiting
                .push_back(Peer::new(peer, connected.clone(), place)),
        }
        state.connections.push(connected);
        drop(state);
        self.connected.notify_waiters();
        Ok(secured(route, client, alpn))
    }

    /// The lock is held for a few lines that do not panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("MemNet")
            .field("hosts", &state.hosts.len())
            .field("connections", &state.connections.len())
            .finish()
    }
}
