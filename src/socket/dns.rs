//! Turns a host into addresses: the seam for resolvers of the user's, and the system's.
//!
//! A resolver is asked by `names` alone, which remembers what it answers. getaddrinfo blocks for as long as it likes, so it
//! runs on the blocking threads of a runtime, a bounded number at once. An address literal never gets here.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::sync::Semaphore;

use super::dial::is_out_of_files;
use crate::error::BoxFuture;

/// Finds the addresses of a host: the seam for name services of your own.
///
/// The client remembers an answer for its `ttl`, asks once for all calls of a runtime that wait for the same host, and never
/// asks for an address literal or for what [`ClientBuilder::resolve`](crate::ClientBuilder::resolve) has settled. A lookup is part of a
/// dial, so the connect limit ends it, and it is dropped when the last who wait for it are gone; it may be dropped at any
/// time. A lookup that asks for both families should not hold back the first by more than 50 ms for the second (RFC 8305
/// section 3). An error, an empty answer or a panic becomes [`ErrorKind::Resolve`](crate::ErrorKind) and is not remembered.
///
/// ```
/// use std::{io, time::Duration};
/// use sockeye::{BoxFuture, Client, Resolve, Resolved};
///
/// struct Registry;
///
/// impl Resolve for Registry {
///     fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
///         Box::pin(async move {
///             match host {
///                 // Port 0 stands for the port of the URL.
///                 "orders.internal" => Ok(Resolved {
///                     addrs: vec![([10, 0, 0, 7], 0).into()],
///                     ttl: Some(Duration::from_secs(5)),
///                 }),
///                 _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such service")),
///             }
///         })
///     }
/// }
///
/// let client = Client::builder().resolver(Registry).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of `host`, which is a name in lower case, with its trailing dot if the URL has one.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>>;
}

/// What a [`Resolve`] has found.
///
/// ```
/// use std::{net::IpAddr, time::Duration};
/// use sockeye::Resolved;
///
/// let found = Resolved::new([IpAddr::from([192, 0, 2, 7])]).with_ttl(Duration::from_secs(60));
/// assert_eq!(found.addrs, [([192, 0, 2, 7], 0).into()]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The addresses, the preferred family first. A port of 0 stands for the port of the URL. Repeated ones are ignored, and
    /// those beyond the first 32, of which each family has 16 if it has so many.
    pub addrs: Vec<SocketAddr>,
    /// How long the answer holds. `None`, where the resolver does not know, means 30 seconds; zero, that it is not
    /// remembered. More than 7 days count as 7 days.
    pub ttl: Option<Duration>,
}

impl Resolved {
    /// These addresses with the port of the URL, for a time that is not known.
    pub fn new(addresses: impl IntoIterator<Item = std::net::IpAddr>) -> Self {
        Self {
            addrs: addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, 0))
                .collect(),
            ttl: None,
        }
    }

    /// How long the answer holds.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// getaddrinfo, which says nothing of how long its answers hold.
pub(super) struct System;

impl Resolve for System {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
        Box::pin(async move {
            let place = places().acquire_owned().await.map_err(io::Error::other)?;
            let host = host.to_owned();
            // It cannot be interrupted, so the place is taken for as long as it runs, whoever still waits for it.
            let lookup = tokio::task::spawn_blocking(move || {
                let _place = place;
                let found = (host.as_str(), 0).to_socket_addrs();
                found
                    .map(Vec::from_iter)
                    .map_err(|error| lack_of_files().unwrap_or(error))
            });
            let addrs = lookup.await.map_err(io::Error::other)??;
            Ok(Resolved { addrs, ttl: None })
        })
    }
}

/// Whether no file descriptor is left. getaddrinfo can then neither read its files nor ask anybody, and says that there is no
/// such name.
pub(super) fn lack_of_files() -> Option<io::Error> {
    let opened = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
    opened.err().filter(is_out_of_files)
}

/// The places of [`SYSTEM_LOOKUPS`] on the runtime that runs this. One that comes free goes to who waits for it, and would be
/// lost to the others if his runtime stands still.
fn places() -> Arc<Semaphore> {
    /// Those that somebody has or waits for.
    static PLACES: Mutex<Vec<(runtime::Id, Weak<Semaphore>)>> = Mutex::new(Vec::new());
    let runtime = Handle::current().id();
    let mut all = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(_, places)| places.strong_count() > 0);
    let known = all.iter().find(|(of, _)| *of == runtime);
    known
        .and_then(|(_, places)| places.upgrade())
        .unwrap_or_else(|| {
            let places = Arc::new(Semaphore::new(SYSTEM_LOOKUPS));
            all.push((runtime, Arc::downgrade(&places)));
            places
        })
}

/// Calls of getaddrinfo that run at once on one runtime. Behind a name server that is silent each may take half a minute, on a
/// thread of tokio's blocking pool, of which a runtime has 512 by default and other work for.
const SYSTEM_LOOKUPS: usize = 32;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let found = System.resolve("localhost").await.unwrap();
        assert_eq!(found.ttl, None);
        assert!(!found.addrs.is_empty());
        for address in found.addrs {
            assert!(address.ip().is_loopback(), "{address}");
            assert_eq!(address.port(), 0);
        }
    }

    /// Those that wait there for a place are not polled any more.
    #[test]
    fn no_runtime_takes_the_places_of_another_one() {
        let [first, second] = [(); 2].map(|()| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        });
        let mut begun = Vec::new();
        first.block_on(async {
            for _ in 0..2 * SYSTEM_LOOKUPS {
                let mut looking = System.resolve("localhost");
                poll_fn(|cx| Poll::Ready(looking.as_mut().poll(cx).is_ready())).await;
                begun.push(looking);
            }
        });
        let found = second.block_on(async {
            let looking = System.resolve("localhost");
            tokio::time::timeout(Duration::from_secs(10), looking).await
        });
        assert!(found.is_ok_and(|found| found.is_ok()));
    }
}
