//! Which versions of HTTP a call may use, as a part of the way to its origin: what two calls must not share differs here, and
//! what they may share does not. Pure.

use http::Method;

use crate::config::HttpVersions;
use crate::error::{Error, Result};
use crate::head::RequestHead;
use crate::pool::HTTP2_BUILT_IN;
use crate::url::Target;

/// The setting, as far as it makes a difference for this request.
pub(super) fn of_call(wanted: HttpVersions, head: &RequestHead) -> Result<HttpVersions> {
    // A connection that is to be switched, or to become a tunnel, must be one that is not shared (spec pool R-ALPN-4).
    let alone = head.asks.is_some() && head.upgrade().is_some() || head.method == Method::CONNECT;
    if wanted == HttpVersions::Auto && alone {
        return Ok(HttpVersions::Http1);
    }
    of_target(wanted, &head.target)
}

/// The setting, as far as it makes a difference for connections to this target.
pub(crate) fn of_target(wanted: HttpVersions, target: &Target) -> Result<HttpVersions> {
    match wanted {
        HttpVersions::Http1 => Ok(HttpVersions::Http1),
        // Without ALPN there is nothing to choose by (RFC 9113 section 3).
        HttpVersions::Auto if HTTP2_BUILT_IN && target.is_https() => Ok(HttpVersions::Auto),
        HttpVersions::Auto => Ok(HttpVersions::Http1),
        HttpVersions::Http2 | HttpVersions::Http2PriorKnowledge if !HTTP2_BUILT_IN => Err(
            Error::invalid("HTTP/2 needs the feature `http2`, which this build does not have"),
        ),
        HttpVersions::Http2 if !target.is_https() => Err(Error::invalid(
            "HttpVersions::Http2 is agreed on by TLS, and the scheme is http; see HttpVersions::Http2PriorKnowledge",
        )),
        HttpVersions::Http2 | HttpVersions::Http2PriorKnowledge => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::UrlInput;

    fn check(wanted: HttpVersions, url: &str, expected: Option<HttpVersions>) {
        let parsed = UrlInput::Text(url.to_owned().into()).parse(None).unwrap();
        let decided = of_target(wanted, &parsed.target);
        match expected {
            Some(expected) => assert_eq!(decided.unwrap(), expected, "{wanted:?} {url}"),
            None => assert!(decided.is_err(), "{wanted:?} {url}"),
        }
    }

    #[test]
    fn what_makes_no_difference_is_the_same_route() {
        use HttpVersions as Versions;
        let with_http2 = |versions| HTTP2_BUILT_IN.then_some(versions);
        let (plain, secure) = ("http://a.test", "https://a.test");
        check(Versions::Auto, plain, Some(Versions::Http1));
        check(
            Versions::Auto,
            secure,
            with_http2(Versions::Auto).or(Some(Versions::Http1)),
        );
        for url in [plain, secure] {
            check(Versions::Http1, url, Some(Versions::Http1));
            let prior = Versions::Http2PriorKnowledge;
            check(prior, url, with_http2(prior));
        }
        check(Versions::Http2, plain, None);
        check(Versions::Http2, secure, with_http2(Versions::Http2));
    }
}
