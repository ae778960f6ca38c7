//! A host of a net: its addresses, what goes wrong on its connections, and who serves them.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, pending};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::Net;
use super::peer::Peer;
use crate::error::BoxFuture;
use crate::socket::Alpn;
use crate::test::pipe::WireFault;
use crate::test::received::Received;
use crate::test::reply::Reply;
use crate::test::server::{Act, Answerer, Place};
use crate::url::Origin;

/// A host of a [`MemNet`](super::MemNet). Its methods change what later dials meet.
#[derive(Clone)]
pub struct Host {
    net: Arc<Net>,
    name: Arc<str>,
}

/// What a dial meets at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// It connects at once.
    Open,
    /// It connects after a while.
    Slow(Duration),
    /// It is refused at once.
    Refused,
    /// Nothing is ever heard.
    BlackHole,
}

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the client writes.
    ToPeer,
    /// What the client reads.
    ToClient,
}

/// A host as the net keeps it.
pub(super) struct Plan {
    name: Arc<str>,
    addresses: Vec<(IpAddr, Reach)>,
    pub(super) alpn: Alpn,
    pub(super) buffer: usize,
    faults: Vec<(Side, u64, WireFault)>,
    /// Those of the next connection alone.
    once: Vec<(Side, u64, WireFault)>,
    pub(super) handler: Option<Arc<dyn Answerer>>,
    pub(super) waiting: VecDeque<Peer>,
}

/// Where a dial leads.
pub(super) struct Way {
    /// The address that connects first, and when.
    pub(super) reached: Option<(IpAddr, Duration)>,
    pub(super) tried: Tried,
}

/// What a dial tries on its way.
pub(super) struct Tried {
    addresses: Vec<IpAddr>,
    /// An address was silent, so that without another the dial never ends.
    pub(super) is_silent: bool,
}

impl Tried {
    pub(super) fn iter(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.iter()
    }
}

impl Host {
    pub(super) fn new(net: Arc<Net>, name: &str) -> Self {
        let name: Arc<str> = name.to_ascii_lowercase().into();
        let mut state = net.lock();
        if !state.hosts.iter().any(|host| host.is_called(&name)) {
            state.hosts.push(Plan {
                name: Arc::clone(&name),
                addresses: Vec::new(),
                alpn: Alpn::Http1,
                buffer: BUFFER,
                faults: Vec::new(),
                once: Vec::new(),
                handler: None,
                waiting: VecDeque::new(),
            });
        }
        drop(state);
        Self { net, name }
    }

    /// Adds an address, behind those that it has; one that it has already is met in another way from now on.
    pub fn address(self, address: impl Into<IpAddr>, reach: Reach) -> Self {
        let address = address.into();
        self.change(|plan| {
            match plan
                .addresses
                .iter_mut()
                .find(|(known, _)| *known == address)
            {
                Some((_, known)) => *known = reach,
                None => plan.addresses.push((address, reach)),
            }
        })
    }

    /// What `https` connections settle on where the client leaves it open. Default HTTP/1.1.
    pub fn alpn(self, alpn: Alpn) -> Self {
        self.change(|plan| plan.alpn = alpn)
    }

    /// How many bytes each direction holds before a write has to wait. Default 64 KiB.
    pub fn buffer(self, bytes: usize) -> Self {
        self.change(|plan| plan.buffer = bytes)
    }

    /// What goes wrong on every later connection behind so many bytes of a direction.
    pub fn fault(self, side: Side, at: u64, fault: WireFault) -> Self {
        self.change(|plan| plan.faults.push((side, at, fault)))
    }

    /// What goes wrong on the next connection alone.
    pub fn fault_once(self, side: Side, at: u64, fault: WireFault) -> Self {
        self.change(|plan| plan.once.push((side, at, fault)))
    }

    /// Nothing goes wrong on later connections.
    pub fn no_faults(self) -> Self {
        self.change(|plan| {
            plan.faults.clear();
            plan.once.clear();
        })
    }

    /// Every later connection is served by this function; what it captures must be `Clone`. It speaks what the connection
    /// settled on.
    pub fn serve<F, R>(self, handler: F) -> Self
    where
        F: FnOnce(Received) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        self.change(|plan| plan.handler = Some(Arc::new(Handler(handler))))
    }

    /// The other side of the next connection that was not taken yet, in the order in which they were made; waits for one. Not
    /// for a host that [serves](Self::serve).
    pub async fn accept(&self) -> Peer {
        loop {
            let connected = self.net.connected.notified();
            let next = {
                let mut state = self.net.lock();
                state
                    .plan(&self.name)
                    .ok()
                    .and_then(|plan| plan.waiting.pop_front())
            };
            match next {
                Some(peer) => return peer,
                None => connected.await,
            }
        }
    }

    fn change(self, change: impl FnOnce(&mut Plan)) -> Self {
        if let Ok(plan) = self.net.lock().plan(&self.name) {
            change(plan);
        }
        self
    }
}

impl Plan {
    pub(super) fn is_called(&self, name: &str) -> bool {
        *self.name == *name
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        match self.addresses.as_slice() {
            [] => vec![ALONE],
            several => several.iter().map(|(address, _)| *address).collect(),
        }
    }

    /// What becomes of a dial that begins now. The outcome of every address is known, so nothing needs to be tried.
    pub(super) fn way(&self) -> Way {
        let mut tried = Tried {
            addresses: Vec::new(),
            is_silent: false,
        };
        let alone = [(ALONE, Reach::Open)];
        let addresses = match self.addresses.as_slice() {
            [] => &alone,
            several => several,
        };
        let mut begin = Duration::ZERO;
        let mut reached: Option<(IpAddr, Duration)> = None;
        for (address, reach) in addresses {
            if reached.is_some_and(|(_, at)| at <= begin) {
                break;
            }
            tried.addresses.push(*address);
            let at = match reach {
                Reach::Open => begin,
                Reach::Slow(wait) => begin.saturating_add(*wait),
                Reach::Refused => continue,
                Reach::BlackHole => {
                    tried.is_silent = true;
                    begin += HEAD_START;
                    continue;
                }
            };
            if reached.is_none_or(|(_, earliest)| at < earliest) {
                reached = Some((*address, at));
            }
            begin += HEAD_START;
        }
        Way { reached, tried }
    }

    /// The faults of a new connection, by direction.
    pub(super) fn faults(&mut self) -> (Faults, Faults) {
        let mut sides = (Faults::new(), Faults::new());
        let once = std::mem::take(&mut self.once);
        for (side, at, fault) in self.faults.iter().copied().chain(once) {
            match side {
                Side::ToPeer => sides.0.push((at, fault)),
                Side::ToClient => sides.1.push((at, fault)),
            }
        }
        sides
    }
}

/// Faults and the places where they begin.
type Faults = Vec<(u64, WireFault)>;

/// A function that answers.
struct Handler<F>(F);

impl<F, R> Answerer for Handler<F>
where
    F: FnOnce(Received) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    fn answer<'a>(&'a self, _: &'a Place, received: Received) -> BoxFuture<'a, (Act, Duration)> {
        let answer = self.0.clone()(received);
        Box::pin(async move { (Act::Reply(answer.await), Duration::ZERO) })
    }

    fn dismissal<'a>(&'a self, _: &'a Origin) -> BoxFuture<'a, ()> {
        Box::pin(pending())
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.name).finish()
    }
}

/// The address of a host that was given none (RFC 5737: for documentation).
const ALONE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// How long an address is waited for before the next one is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Bytes that a direction of a connection holds.
const BUFFER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::super::MemNet;
    use super::*;

    #[test]
    fn the_way_of_a_dial() {
        let millis = Duration::from_millis;
        let slow = |wait| Reach::Slow(millis(wait));
        for (reaches, reached, tried) in [
            (vec![], Some((0, 0)), 1),
            (vec![Reach::Open, Reach::Open], Some((0, 0)), 1),
            (vec![Reach::Refused, Reach::Open], Some((1, 0)), 2),
            (vec![Reach::BlackHole, Reach::Open], Some((1, 250)), 2),
            (vec![slow(100), Reach::Open], Some((0, 100)), 1),
            (vec![slow(250), Reach::Open], Some((0, 250)), 1),
            (vec![slow(900), Reach::Refused, slow(10)], Some((2, 260)), 3),
            (
                vec![slow(900), Reach::BlackHole, slow(600)],
                Some((0, 900)),
                3,
            ),
            (vec![Reach::Refused, Reach::Refused], None, 2),
            (vec![Reach::BlackHole, Reach::Refused], None, 2),
        ] {
            let net = MemNet::new();
            let mut host = net.host("A.test");
            for (at, reach) in (1_u8..).zip(&reaches) {
                host = host.address([192, 0, 2, at], *reach);
            }
            let way = net.0.lock().plan("a.test").unwrap().way();
            let expected = reached
                .map(|(at, after): (u8, u64)| (IpAddr::from([192, 0, 2, at + 1]), millis(after)));
            assert_eq!(way.reached, expected, "{reaches:?}");
            assert_eq!(way.tried.addresses.len(), tried, "{reaches:?}");
            assert_eq!(way.tried.is_silent, reaches.contains(&Reach::BlackHole));
        }
    }
}
