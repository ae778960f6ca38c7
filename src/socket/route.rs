//! Where a connection leads and how: the part of the pool's key that a connector needs.
//!
//! A plain value. Every setting that changes how a connection comes about must be part of it, or two calls that must not
//! share a connection would.

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
}

impl Route {
    pub(crate) fn new(origin: Origin, tls: u64, versions: HttpVersions) -> Self {
        Self {
            origin,
            tls,
            versions,
        }
    }

    /// Whether a call to `target` may use connections of this route, with the TLS settings `tls`: their identity changes with
    /// the client's own certificate. What else a call may set must be compared here, and the exhaustive pattern asks for it.
    pub(crate) fn leads_to(&self, target: &Target, by: HttpVersions, tls: u64) -> bool {
        let Self {
            origin,
            tls: own,
            versions,
        } = self;
        *versions == by
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::UrlInput;

    #[test]
    fn a_call_with_other_settings_is_led_elsewhere() {
        let input = UrlInput::Text("https://a.test".to_owned().into());
        let target = input.parse(None).unwrap().target;
        let auto = HttpVersions::Auto;
        let route = Route::new(target.origin(), 1, auto);
        assert!(route.leads_to(&target, auto, 1));
        assert!(!route.leads_to(&target, auto, 2));
        assert!(!route.leads_to(&target, HttpVersions::Http1, 1));
    }

    #[test]
    fn every_field_tells_two_routes_apart() {
        let origin = |url: &str| {
            UrlInput::Text(url.to_owned().into())
                .parse(None)
                .unwrap()
                .target
                .origin()
        };
        let auto = HttpVersions::Auto;
        let route = Route::new(origin("https://a.test"), 1, auto);
        // Exhaustive on purpose: a new field does not compile until it is compared below.
        let Route {
            origin: _,
            tls: _,
            versions: _,
        } = &route;
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
        let http1 = HttpVersions::Http1;
        assert_ne!(route, Route::new(origin("https://a.test"), 1, http1));
    }
}
