//! Where a connection leads and how: the part of the pool's key that a connector needs.
//!
//! A plain value. Every setting that changes how a connection comes about must be part of it, or two calls that must not
//! share a connection would.

use std::path::Path;
use std::sync::Arc;

use super::proxy::Via;
use crate::config::HttpVersions;
use crate::url::{Origin, Target};

/// An origin and how to get there.
///
/// A [`Connect`](crate::Connect) receives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    origin: Origin,
    /// The identity of the TLS settings; settings are immutable once built (security P1).
    tls: u64,
    /// What may be spoken at its end, where that makes a difference.
    versions: HttpVersions,
    /// The socket of the Unix domain that takes the place of an address.
    unix: Option<Arc<Path>>,
    /// The proxy in between.
    proxy: Option<Passed>,
}

/// A proxy, as a route has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Passed {
    via: Via,
    passage: Passage,
    /// The identity of the proxy's TLS settings when the route was made.
    tls: u64,
}

/// What a call may say of the way to its origin. What two calls must not share differs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Way<'a> {
    pub(crate) versions: HttpVersions,
    pub(crate) unix: Option<&'a Arc<Path>>,
    pub(crate) proxy: Option<Detour<'a>>,
}

/// A way through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Detour<'a> {
    pub(crate) via: &'a Via,
    pub(crate) passage: Passage,
}

/// How a proxy is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Passage {
    /// It is given requests, and gives them on.
    Forward,
    /// It gives on bytes.
    Tunnel,
}

impl Route {
    pub(crate) fn new(origin: Origin, tls: u64, way: Way<'_>) -> Self {
        let Way {
            versions,
            unix,
            proxy,
        } = way;
        Self {
            origin,
            tls,
            versions,
            unix: unix.cloned(),
            proxy: proxy.map(|Detour { via, passage }| Passed {
                via: via.clone(),
                passage,
                tls: via.tls().id(),
            }),
        }
    }

    /// Whether a call to `target` may use connections of this route, with the TLS settings `tls`: their identity changes with
    /// the client's own certificate. What else a call may set must be compared here, and the exhaustive pattern asks for it.
    pub(crate) fn leads_to(&self, target: &Target, by: Way<'_>, tls: u64) -> bool {
        let Self {
            origin,
            tls: own,
            versions,
            unix,
            proxy,
        } = self;
        let same_proxy = match (proxy, by.proxy) {
            (None, None) => true,
            (Some(passed), Some(detour)) => passed.is(detour),
            _ => false,
        };
        same_proxy
            && *versions == by.versions
            && unix.as_ref() == by.unix
            && *own == tls
            && origin.port() == target.port()
            && origin.is_https() == target.is_https()
            && origin.host() == target.host()
    }

    /// Scheme, host and port of the target.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Which versions of HTTP may be spoken at its end.
    pub fn http_versions(&self) -> HttpVersions {
        self.versions
    }

    /// Host and port that its first connection leads to: those of the proxy if it goes through one, else those of the
    /// origin. An IPv6 address has no brackets.
    ///
    /// ```
    /// use sockeye::{BoxFuture, Connect, Route, Socket};
    /// use tokio::net::TcpStream;
    ///
    /// struct Plain;
    ///
    /// impl Connect for Plain {
    ///     fn connect<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, std::io::Result<Socket>> {
    ///         Box::pin(async { Ok(Socket::from_io(TcpStream::connect(route.first_hop()).await?)) })
    ///     }
    /// }
    /// ```
    pub fn first_hop(&self) -> (&str, u16) {
        let place = self.first_place();
        (place.host(), place.port())
    }

    pub(super) fn first_place(&self) -> &Origin {
        match &self.proxy {
            Some(passed) => passed.via.place(),
            None => &self.origin,
        }
    }

    /// The way through a proxy, if there is one.
    pub(crate) fn detour(&self) -> Option<Detour<'_>> {
        let Passed { via, passage, .. } = self.proxy.as_ref()?;
        Some(Detour {
            via,
            passage: *passage,
        })
    }

    /// The socket of the Unix domain that it begins with.
    pub(super) fn unix(&self) -> Option<&Path> {
        self.unix.as_deref()
    }
}

impl Passed {
    /// Whether a call by that detour passes here.
    fn is(&self, by: Detour<'_>) -> bool {
        let Self { via, passage, tls } = self;
        *passage == by.passage && *via == *by.via && *tls == by.via.tls().id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Proxies;
    use crate::socket::proxy::Proxy;
    use crate::url::UrlInput;

    #[test]
    fn every_field_tells_two_routes_apart() {
        let origin = |url: &str| {
            UrlInput::Text(url.to_owned().into())
                .parse(None)
                .unwrap()
                .target
                .origin()
        };
        let path = Arc::from(Path::new("/run/a.sock"));
        let other_path = Arc::from(Path::new("/run/b.sock"));
        let auto = Way {
            versions: HttpVersions::Auto,
            unix: None,
            proxy: None,
        };
        let route = Route::new(origin("https://a.test"), 1, auto);
        // Exhaustive on purpose: a new field does not compile until it is compared below.
        let Route {
            origin: _,
            tls: _,
            versions: _,
            unix: _,
            proxy: _,
        } = &route;
        // So is this: whatever a call may say must change the route.
        let Way {
            versions: _,
            unix: _,
            proxy: _,
        } = auto;
        assert_eq!(route, Route::new(origin("https://A.test:443"), 1, auto));
        for other in [
            "http://a.test",
            "http://a.test:443",
            "https://a.test:8443",
            "https://a.test.",
            "https://b.test",
        ] {
            assert_ne!(route, Route::new(origin(other), 1, auto), "{other}");
        }
        assert_ne!(route, Route::new(origin("https://a.test"), 2, auto));
        let target = UrlInput::Text("https://a.test/".to_owned().into())
            .parse(None)
            .unwrap()
            .target;
        let proxies = ["http://p.test", "http://u:p@p.test"].map(|url| {
            let proxies = Proxies::Set(vec![Proxy::all(url).unwrap()]);
            proxies.choose(&target).unwrap().unwrap().clone()
        });
        let through = |via, passage| Way {
            proxy: Some(Detour { via, passage }),
            ..auto
        };
        let ways = [
            auto,
            through(&proxies[0], Passage::Tunnel),
            through(&proxies[0], Passage::Forward),
            through(&proxies[1], Passage::Tunnel),
            Way {
                versions: HttpVersions::Http1,
                ..auto
            },
            Way {
                unix: Some(&path),
                ..auto
            },
            Way {
                unix: Some(&other_path),
                ..auto
            },
        ];
        for one in ways {
            for other in ways {
                let route = Route::new(origin("https://a.test"), 1, one);
                let same = route == Route::new(origin("https://a.test"), 1, other);
                assert_eq!(same, one == other, "{one:?} {other:?}");
                assert_eq!(route.leads_to(&target, other, 1), same);
                assert!(!route.leads_to(&target, other, 2));
            }
        }
    }
}
