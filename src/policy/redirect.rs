//! What becomes of a redirect: whether it is followed, as which request, and what another origin must not see.
//!
//! Pure: [`Redirects::decide`] answers with a [`Step`], and the spine takes it. Origin means scheme, host and port; any
//! difference makes a hop foreign (security R1). What a foreign hop strips is gone from the request itself, so that nothing
//! brings it back on a later hop, not even one to the first origin (R2, R3).

use std::fmt;

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};

use crate::error::{Error, ErrorKind, Phase, Sent};
use crate::head::{RequestHead, is_secret};
use crate::url::{Target, UrlError};

/// Whether redirects are followed, and how (RFC 9110 section 15.4). Default: [`follow(10)`](Self::follow).
///
/// 301, 302, 303, 307 and 308 with a `location` are followed. 303 makes the request a GET, unless it was a HEAD, and 301 and 302 make
/// a POST one; the body goes then, with the fields that describe it. Otherwise the request is made again as it was, body
/// included; if the body can be sent only once, the redirect itself is the response, unless it came before any of the body was asked
/// for, as it can with [`expect_continue`](crate::RequestBuilder::expect_continue).
///
/// On the first hop to another origin (scheme, host or port) the request loses its credentials for the rest of the call:
/// `authorization`, `cookie`, `proxy-authorization`, a `host` of your own, `x-api-key` and the like, every value that is marked
/// [sensitive](http::HeaderValue::set_sensitive), and what [`with_sensitive_headers`](Self::with_sensitive_headers) names. The same goes for
/// default headers of the client.
///
/// A redirect that cannot be followed fails the call with [`ErrorKind::Redirect`]: too many of them, one from `https` to `http`,
/// one whose `location` is no URL, holds userinfo or is given twice with different values; one over 8 KiB with
/// [`ErrorKind::TooLarge`]. Without a `location` the response is final.
///
/// ```
/// use sockeye::{Client, Redirects};
/// use sockeye::http::HeaderName;
///
/// let redirects = Redirects::follow(3).with_sensitive_headers([HeaderName::from_static("x-tenant-key")]);
/// let client = Client::builder().redirects(redirects).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Redirects {
    /// `None` follows nothing.
    limit: Option<usize>,
    allow_downgrade: bool,
    sensitive: Vec<HeaderName>,
}

impl Default for Redirects {
    fn default() -> Self {
        Self::follow(DEFAULT_LIMIT)
    }
}

impl Redirects {
    /// Follows up to `limit` redirects; one more fails the call.
    pub const fn follow(limit: usize) -> Self {
        Self {
            limit: Some(limit),
            allow_downgrade: false,
            sensitive: Vec::new(),
        }
    }

    /// Follows none: the 3xx is the response.
    pub const fn none() -> Self {
        Self {
            limit: None,
            allow_downgrade: false,
            sensitive: Vec::new(),
        }
    }

    /// Whether a redirect from `https` to `http` is followed, without credentials. Default false. A client that is
    /// [`https_only`](crate::ClientBuilder::https_only) does not follow it in any case.
    pub const fn with_downgrade(mut self, allowed: bool) -> Self {
        self.allow_downgrade = allowed;
        self
    }

    /// More fields that another origin must not see. Default none beyond those that are always kept back.
    pub fn with_sensitive_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.sensitive.extend(names);
        self
    }

    /// Whether any is followed.
    pub(crate) fn follows(&self) -> bool {
        self.limit.is_some()
    }

    /// What to do about a response. `None`: it is the final one.
    pub(crate) fn decide<'a>(
        &self,
        status: StatusCode,
        locations: impl Iterator<Item = &'a [u8]>,
        asked: &Asked<'_>,
    ) -> Result<Option<Step>, Refused> {
        let Some(limit) = self.limit else {
            return Ok(None);
        };
        let Some(change) = Change::of(status, &asked.head.method) else {
            return Ok(None);
        };
        // A tunnel or another protocol belongs to the server that was asked for it.
        let is_followable = asked.head.method != Method::CONNECT && asked.head.upgrade().is_none();
        let can_be_sent = change != Change::Nothing || asked.replayable;
        if !is_followable || !can_be_sent {
            return Ok(None);
        }
        let Some(location) = only(locations)? else {
            return Ok(None);
        };
        if asked.followed >= limit {
            return Err(Refused::TooMany(limit));
        }
        if location.len() > MAX_LOCATION {
            return Err(Refused::TooLong(location.len()));
        }
        let target = asked.from.resolve(location).map_err(Refused::Url)?;
        let is_downgrade = target.is_downgrade_of(asked.from);
        if is_downgrade && !self.allow_downgrade {
            return Err(Refused::Downgrade);
        }
        let is_foreign = !target.same_origin(asked.from);
        Ok(Some(Step {
            target,
            change,
            is_foreign,
            is_downgrade,
        }))
    }

    /// Takes out of a map what another origin must not see; answers whether anything was.
    pub(crate) fn strip(&self, fields: &mut HeaderMap) -> bool {
        let secret: Vec<HeaderName> = fields
            .keys()
            .filter(|name| self.is_kept_back(name, fields))
            .cloned()
            .collect();
        for name in &secret {
            fields.remove(name);
        }
        !secret.is_empty()
    }

    fn is_kept_back(&self, name: &HeaderName, fields: &HeaderMap) -> bool {
        is_secret(name)
            || name == header::HOST
            || name == header::WWW_AUTHENTICATE
            || self.sensitive.contains(name)
            || fields
                .get_all(name)
                .iter()
                .any(http::HeaderValue::is_sensitive)
    }
}

/// The request that was answered with a redirect.
pub(crate) struct Asked<'a> {
    pub(crate) head: &'a RequestHead,
    /// Where it went; the head's own target may have been moved on.
    pub(crate) from: &'a Target,
    /// Whether its body can be sent again.
    pub(crate) replayable: bool,
    /// Redirects that were followed already.
    pub(crate) followed: usize,
}

/// A redirect that is to be followed.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) target: Target,
    change: Change,
    is_foreign: bool,
    is_downgrade: bool,
}

impl Step {
    /// Whether it leads to another origin.
    pub(crate) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// Whether the body is not sent again.
    pub(crate) fn drops_body(&self) -> bool {
        self.change != Change::Nothing
    }

    /// Makes the next request of the last one: all but the target, which the caller moves.
    pub(crate) fn change(&self, head: &mut RequestHead, redirects: &Redirects) {
        match self.change {
            Change::Nothing => {}
            Change::Body => drop_content_fields(head),
            Change::ToGet => {
                drop_content_fields(head);
                head.method = Method::GET;
            }
        }
        if self.is_foreign {
            redirects.strip(&mut head.headers);
        }
        if self.is_downgrade {
            head.headers.remove(header::REFERER);
        }
    }
}

/// What a redirect makes of the request beyond its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It is made again as it was.
    Nothing,
    /// It loses its body and stays what it is.
    Body,
    /// It becomes a GET without a body.
    ToGet,
}

impl Change {
    /// By status and method (RFC 9110 section 15.4, security R7); `None` for what is no redirect.
    fn of(status: StatusCode, method: &Method) -> Option<Self> {
        match (status.as_u16(), method) {
            (303, &Method::GET | &Method::HEAD) => Some(Self::Body),
            (303, _) => Some(Self::ToGet),
            (301 | 302, &Method::POST) => Some(Self::ToGet),
            (301 | 302 | 307 | 308, _) => Some(Self::Nothing),
            _ => None,
        }
    }
}

/// Without a body nothing may describe one (RFC 9110 section 15.4).
fn drop_content_fields(head: &mut RequestHead) {
    let about: Vec<HeaderName> = head
        .headers
        .keys()
        .filter(|name| {
            name.as_str().starts_with("content-") || ABOUT_A_BODY.contains(&name.as_str())
        })
        .cloned()
        .collect();
    for name in &about {
        head.headers.remove(name);
    }
    if head.expects_continue() {
        head.stop_expecting();
    }
}

/// The one Location of a response. Some servers send the same twice; of two that differ neither is to be trusted.
fn only<'a>(mut locations: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, Refused> {
    let Some(first) = locations.next() else {
        return Ok(None);
    };
    if locations.any(|other| other != first) {
        return Err(Refused::Several);
    }
    Ok((!first.is_empty()).then_some(first))
}

/// Why a redirect is not followed.
#[derive(Debug)]
pub(crate) enum Refused {
    TooMany(usize),
    TooLong(usize),
    Several,
    Downgrade,
    Url(UrlError),
    /// The client may not go there.
    Scheme(Error),
}

impl Refused {
    /// What it is to the caller.
    pub(crate) fn into_error(self) -> Error {
        let kind = match self {
            Self::TooLong(_) => ErrorKind::TooLarge,
            _ => ErrorKind::Redirect,
        };
        let error = Error::new(kind, Some(Phase::Head), Sent::All);
        match self {
            Self::Url(cause) => error.because(cause),
            Self::Scheme(cause) => error.because(cause),
            Self::TooMany(_) | Self::TooLong(_) | Self::Several | Self::Downgrade => {
                error.saying(self.to_string())
            }
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(limit) => write!(
                f,
                "more redirects than the limit of {limit} (Redirects::follow)"
            ),
            Self::TooLong(len) => write!(
                f,
                "a location of {len} bytes is over the limit of {MAX_LOCATION} bytes"
            ),
            Self::Several => f.write_str("the redirect has several locations that differ"),
            Self::Downgrade => f.write_str(
                "the redirect leads from https to http (Redirects::with_downgrade allows that)",
            ),
            Self::Url(error) => write!(f, "{error}"),
            Self::Scheme(error) => write!(f, "{error}"),
        }
    }
}

/// Redirects that are followed by default.
const DEFAULT_LIMIT: usize = 10;

/// The longest Location that is read, in bytes.
const MAX_LOCATION: usize = 8 * 1024;

/// What goes with a body beside everything that begins with `content-` (RFC 9110 section 15.4, security R7).
const ABOUT_A_BODY: &[&str] = &[
    "digest",
    "expect",
    "last-modified",
    "repr-digest",
    "trailer",
    "transfer-encoding",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::UrlInput;
    use http::HeaderValue;

    fn target(url: &str) -> Target {
        UrlInput::Text(url.to_owned().into())
            .parse(None)
            .unwrap()
            .target
    }

    fn head(method: &str, url: &str) -> RequestHead {
        RequestHead {
            method: method.parse().unwrap(),
            target: target(url),
            headers: HeaderMap::new(),
            asks: None,
        }
    }

    fn decide(
        redirects: &Redirects,
        status: u16,
        head: &RequestHead,
        replayable: bool,
        locations: &[&str],
    ) -> Result<Option<Step>, String> {
        let asked = Asked {
            head,
            from: &head.target,
            replayable,
            followed: 2,
        };
        let locations = locations.iter().map(|location| location.as_bytes());
        let status = StatusCode::from_u16(status).unwrap();
        redirects
            .decide(status, locations, &asked)
            .map_err(|refused| refused.to_string())
    }

    /// Methods by statuses, with a body that can be sent again and one that cannot: what the next request is, `-` for none.
    #[test]
    fn methods_by_statuses_by_bodies() {
        let table = "
            POST   301 GET    GET
            POST   302 GET    GET
            POST   303 GET    GET
            POST   307 POST+  -
            POST   308 POST+  -
            PUT    301 PUT+   -
            PUT    302 PUT+   -
            PUT    303 GET    GET
            PUT    307 PUT+   -
            PUT    308 PUT+   -
            DELETE 301 DELETE+ -
            DELETE 303 GET    GET
            DELETE 308 DELETE+ -
            PATCH  302 PATCH+ -
            QUERY  301 QUERY+ -
            QUERY  303 GET    GET
            GET    301 GET+   -
            GET    303 GET    GET
            GET    307 GET+   -
            HEAD   302 HEAD+  -
            HEAD   303 HEAD   HEAD
            CONNECT 302 -     -
            GET    200 -      -
            GET    300 -      -
            GET    304 -      -
            GET    305 -      -
            GET    306 -      -
            GET    309 -      -
            POST   401 -      -
            POST   201 -      -";
        for line in table.lines().filter(|line| !line.trim().is_empty()) {
            let [method, status, replayed, once] = line.split_whitespace().collect::<Vec<_>>()[..]
            else {
                panic!("{line}");
            };
            for (replayable, expected) in [(true, replayed), (false, once)] {
                let mut head = head(method, "http://a.test/");
                let redirects = Redirects::default();
                let status = status.parse().unwrap();
                let step = decide(&redirects, status, &head, replayable, &["/b"]).unwrap();
                let found = step.map_or("-".to_owned(), |step| {
                    step.change(&mut head, &redirects);
                    assert_eq!(step.target.uri(), "http://a.test/b");
                    format!(
                        "{}{}",
                        head.method,
                        if step.drops_body() { "" } else { "+" }
                    )
                });
                assert_eq!(found, expected, "{line}, replayable: {replayable}");
            }
        }
    }

    #[test]
    fn what_is_refused_and_what_is_final() {
        let follow = Redirects::default();
        let final_ones: &[&[&str]] = &[&[], &[""], &["", ""]];
        let get = head("GET", "https://a.test/");
        for locations in final_ones {
            assert!(
                decide(&follow, 302, &get, true, locations)
                    .unwrap()
                    .is_none()
            );
        }
        let refused = |redirects: &Redirects, locations: &[&str], expected: &str| {
            let why = decide(redirects, 302, &get, true, locations).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        refused(&follow, &["/a", "/b"], "several locations");
        refused(&follow, &["", "/b"], "several locations");
        refused(&follow, &["http://a.test/"], "from https to http");
        refused(&follow, &["//user@a.test/"], "userinfo");
        refused(&Redirects::follow(2), &["/b"], "the limit of 2");
        refused(&Redirects::follow(0), &["/b"], "the limit of 0");
        let long = format!("/{}", "x".repeat(MAX_LOCATION));
        refused(&follow, &[&long], "of 8193 bytes is over the limit of 8192");
        assert!(
            decide(&follow, 302, &get, true, &[&long[1..]])
                .unwrap()
                .is_some()
        );
        assert!(
            decide(&follow, 302, &get, true, &["/a", "/a"])
                .unwrap()
                .is_some()
        );
        let lowered = decide(
            &follow.clone().with_downgrade(true),
            302,
            &get,
            true,
            &["http://a.test/"],
        );
        assert!(lowered.unwrap().unwrap().is_foreign());
        assert!(
            decide(&Redirects::none(), 302, &get, true, &["/b"])
                .unwrap()
                .is_none()
        );
    }

    /// Security R1: any difference of scheme, host or port is another origin, and nothing else is.
    #[test]
    fn what_is_foreign() {
        for (from, location, foreign) in [
            ("http://a.test/", "/b", false),
            ("http://a.test/", "http://A.TEST:80/b", false),
            ("https://a.test/", "https://a.test:443/b", false),
            ("http://a.test:81/", "//a.test:81/b", false),
            ("http://a.test/", "https://a.test/", true),
            ("http://a.test:443/", "https://a.test/", true),
            ("https://a.test:80/", "https://a.test/", true),
            ("http://a.test/", "http://a.test:81/", true),
            ("http://a.test/", "http://a.test./", true),
            ("http://a.test/", "http://b.a.test/", true),
            ("http://b.a.test/", "http://a.test/", true),
            ("http://a.test/", "http://a.test.b/", true),
            ("http://a.test/", "http://aa.test/", true),
            ("http://xn--a.test/", "http://a.test/", true),
            ("http://127.0.0.1/", "http://localhost/", true),
            ("http://[::1]/", "http://[0:0::1]/", false),
            ("http://[::1]/", "http://[::ffff:127.0.0.1]/", true),
        ] {
            let head = head("GET", from);
            let step = decide(&Redirects::default(), 302, &head, true, &[location]);
            assert_eq!(
                step.unwrap().unwrap().is_foreign(),
                foreign,
                "{from} {location}"
            );
        }
    }

    #[test]
    fn a_foreign_hop_strips_and_a_dropped_body_takes_its_fields() {
        let redirects =
            Redirects::default().with_sensitive_headers([HeaderName::from_static("x-mine")]);
        let names = "authorization cookie cookie2 proxy-authorization www-authenticate host x-api-key \
            api-key x-auth-token x-amz-security-token private-token x-goog-api-key x-csrf-token x-mine";
        let content = "content-type content-length content-encoding content-language content-location digest \
            content-digest transfer-encoding expect trailer";
        let fill = |url: &str| {
            let mut head = head("POST", url);
            for name in names.split_whitespace().chain(content.split_whitespace()) {
                let name = HeaderName::from_static(name);
                head.headers.append(name, HeaderValue::from_static("v"));
            }
            let mut marked = HeaderValue::from_static("v");
            head.headers.append("x-marked", marked.clone());
            marked.set_sensitive(true);
            head.headers.append("x-marked", marked);
            head.headers
                .append("x-plain", HeaderValue::from_static("v"));
            head.headers
                .append("referer", HeaderValue::from_static("v"));
            head
        };
        let left = |status, from: &str, to: &str| {
            let mut head = fill(from);
            let redirects = redirects.clone().with_downgrade(true);
            let step = decide(&redirects, status, &head, true, &[to])
                .unwrap()
                .unwrap();
            step.change(&mut head, &redirects);
            let mut names: Vec<String> = head.headers.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(
            left(302, "http://a.test/", "http://b.test/"),
            ["referer", "x-plain"]
        );
        assert_eq!(left(302, "https://a.test/", "http://a.test/"), ["x-plain"]);
        assert_eq!(
            left(307, "http://a.test/", "http://b.test/").len(),
            content.split_whitespace().count() + 2
        );
        assert_eq!(
            left(302, "http://a.test/", "/b").len(),
            names.split_whitespace().count() + 3
        );
    }
}
