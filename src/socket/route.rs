//! Where a connection leads and how: the part of the pool's key that a connector needs.
//!
//! A plain value. Every setting that changes how a connection comes about must be part of it, or two calls that must not
//! share a connection would.

use std::path::Path;
use std::sync::Arc;

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
}

/// What a call may say of the way to its origin. What two calls must not share differs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Way<'a> {
    pub(crate) versions: HttpVersions,
    pub(crate) unix: Option<&'a Arc<Path>>,
}

impl Route {
    pub(crate) fn new(origin: Origin, tls: u64, way: Way<'_>) -> Self {
        let Way { versions, unix } = way;
        Self {
            origin,
            tls,
            versions,
            unix: unix.cloned(),
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
        } = self;
        *versions == by.versions
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

    /// The socket of the Unix domain that it begins with.
    pub(super) fn unix(&self) -> Option<&Path> {
        self.unix.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        };
        let route = Route::new(origin("https://a.test"), 1, auto);
        // Exhaustive on purpose: a new field does not compile until it is compared below.
        let Route {
            origin: _,
            tls: _,
            versions: _,
            unix: _,
        } = &route;
        // So is this: whatever a call may say must change the route.
        let Way {
            versions: _,
            unix: _,
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
        let ways = [
            auto,
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
        let target = UrlInput::Text("https://a.test/".to_owned().into())
            .parse(None)
            .unwrap()
            .target;
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
