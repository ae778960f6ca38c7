//! Makes a client; all validation of its settings is here, in `build`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::network::Network;
use super::proxies::ProxySettings;
use super::{Asking, Base, Client, Codings, Inner};
use crate::body::Accepted;
use crate::call::{Authenticator, CookieJar, Engine, Identity, Interceptor, Lots, Scoped};
use crate::config::{DEFAULT_MAX_BODY, HeadRules, Http2Config, HttpVersions, Limits};
use crate::deadline::Timeouts;
use crate::error::{Error, Result};
use crate::head::{DefaultFields, mark_secrets};
use crate::policy::{Policies, Redirects, Resilience};
use crate::pool::Pool;
use crate::socket::{Connect, Dialler, Proxies, TlsConfig};
use crate::stats::{Observer, Observers};
use crate::url::{Origin, Target};

/// Collects the settings of a [`Client`]. A mistake is reported by [`build`](Self::build), naming the setting.
///
/// ```
/// use std::time::Duration;
/// use sockeye::Client;
///
/// let client = Client::builder()
///     .base_url("https://api.example.com/v1")
///     .user_agent("inventory/2.1")
///     .connect_timeout(Duration::from_secs(2))
///     .build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
#[must_use]
pub struct ClientBuilder {
    timeouts: Timeouts,
    limits: Limits,
    headers: HeaderMap,
    base_url: Option<String>,
    error_for_status: bool,
    https_only: bool,
    decompress: bool,
    max_body: usize,
    heads: HeadRules,
    versions: HttpVersions,
    http2: Http2Config,
    tls: Option<TlsConfig>,
    pub(super) network: Network,
    pub(super) proxies: ProxySettings,
    connector: Option<Arc<dyn Connect>>,
    pub(super) redirects: Redirects,
    pub(super) cookies: Option<CookieJar>,
    pub(super) credentials: Vec<(Origin, HeaderValue)>,
    pub(super) authenticators: Vec<(Option<Origin>, Arc<dyn Authenticator>)>,
    pub(super) interceptors: Vec<Arc<dyn Interceptor>>,
    pub(super) attempt_interceptors: Vec<Arc<dyn Interceptor>>,
    pub(super) resilience: Resilience,
    pub(super) observers: Vec<Arc<dyn Observer>>,
    /// The first mistake.
    mistake: Option<Error>,
}

impl ClientBuilder {
    pub(super) fn new() -> Self {
        Self {
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            headers: HeaderMap::new(),
            base_url: None,
            error_for_status: true,
            https_only: false,
            decompress: true,
            max_body: DEFAULT_MAX_BODY,
            heads: HeadRules::Strict,
            versions: HttpVersions::Auto,
            http2: Http2Config::default(),
            tls: None,
            network: Network::default(),
            proxies: ProxySettings::default(),
            connector: None,
            redirects: Redirects::default(),
            cookies: None,
            credentials: Vec::new(),
            authenticators: Vec::new(),
            interceptors: Vec::new(),
            attempt_interceptors: Vec::new(),
            resilience: Resilience::none(),
            observers: Vec::new(),
            mistake: None,
        }
    }

    /// Time limits of every call that sets none of its own. Default: 10 s for each step, see [`Timeouts`].
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// The limit of a whole call, its body included. Default none.
    pub fn timeout(mut self, total: Duration) -> Self {
        self.timeouts.total = Some(total);
        self
    }

    /// The limit of resolving, connecting and the TLS handshake together. Default 10 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.timeouts.connect = Some(limit);
        self
    }

    /// Counts and sizes. Default: 100 connections, see [`Limits`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The user-agent of every request that sets none. Default `sockeye/VERSION`.
    pub fn user_agent<V>(self, value: V) -> Self
    where
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        self.insert(header::USER_AGENT, value, "user_agent")
    }

    /// A field of every request that has none of the same name. Default: `accept: */*` and the user-agent. What concerns
    /// framing or the connection cannot be a default.
    pub fn default_header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        match name.try_into() {
            Ok(name) => self.insert(name, value, "default_header"),
            Err(error) => {
                let error: http::Error = error.into();
                self.note(Error::invalid(format!("default_header: {error}")));
                self
            }
        }
    }

    /// As [`default_header`](Self::default_header) for each name of the map, replacing what was set before.
    pub fn default_headers(mut self, headers: HeaderMap) -> Self {
        replace(&mut self.headers, headers);
        self
    }

    /// What relative URLs are appended to: with `https://h/v1`, `users` and `/users` both mean `https://h/v1/users`. A join
    /// never changes the origin. Default none.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// Whether a status of 400 or more is an error. Default true.
    pub fn error_for_status(mut self, enabled: bool) -> Self {
        self.error_for_status = enabled;
        self
    }

    /// Whether `http://` is refused. Default false.
    pub fn https_only(mut self, enabled: bool) -> Self {
        self.https_only = enabled;
        self
    }

    /// Whether compressed responses are decoded. Default true.
    ///
    /// With it, requests ask for the codings that are compiled in (`accept-encoding: gzip, deflate`, and `br` and `zstd` by
    /// features), and a body in up to two of them is decoded as it is read (RFC 9110 section 8.4): the fields
    /// `content-encoding` and `content-length` are gone then, and the length is not known. Broken, cut or trailing data fails
    /// with [`ErrorKind::Decode`](crate::ErrorKind). A body in any other coding, and a part of a body (status 206), is left as
    /// it came. Without it, nothing is asked for and nothing decoded.
    ///
    /// An `accept-encoding` of your own, as a default or on a request, takes the place of this one; then the codings that it
    /// lists are decoded as far as they are compiled in, and no others. A request with a `range` asks for `identity`, and its
    /// response is left as it comes, because positions count coded bytes. Whoever wants coded bytes turns decoding off and
    /// asks for them: `.decompress(false)` and `.header("accept-encoding", "gzip")` on a request.
    ///
    /// ```
    /// let client = sockeye::Client::builder().decompress(false).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn decompress(mut self, enabled: bool) -> Self {
        self.decompress = enabled;
        self
    }

    /// The limit of a body that is collected, in bytes, counted after decoding. Default 64 MiB. Bodies that are read piece by
    /// piece have none.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Whether heads of HTTP/1.1 that many old servers send are taken although the grammar forbids them. Default false.
    ///
    /// With it, lines may end in LF without CR (RFC 9112 section 2.2), a blank may stand between a field name and its colon
    /// unless the field is Content-Length, Transfer-Encoding or Connection (section 5.1), and `Transfer-Encoding: identity`
    /// counts as absent. Nothing else changes: lengths, chunks, versions and control characters are read as strictly as
    /// ever. A connection on which any of the three was met is closed after the response, because another reader of the
    /// same bytes may have seen another message in them.
    ///
    /// ```
    /// let client = sockeye::Client::builder().lenient_heads(true).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn lenient_heads(mut self, enabled: bool) -> Self {
        self.heads = if enabled {
            HeadRules::Lenient
        } else {
            HeadRules::Strict
        };
        self
    }

    /// Which versions of HTTP are spoken. Default [`HttpVersions::Auto`].
    pub fn http_versions(mut self, versions: HttpVersions) -> Self {
        self.versions = versions;
        self
    }

    /// How HTTP/2 is spoken. Default: see [`Http2Config`].
    pub fn http2(mut self, http2: Http2Config) -> Self {
        self.http2 = http2;
        self
    }

    /// How TLS is spoken. Default: see [`TlsConfig`].
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How the first hop is connected. Default: DNS and TCP. With a connector of your own, nothing of what is set about names,
    /// addresses and sockets applies, and
    /// the proxies that the environment names do not; one that is set is what the connector is to lead to
    /// ([`Route::first_hop`](crate::Route::first_hop)).
    pub fn connector(mut self, connector: impl Connect) -> Self {
        self.connector = Some(Arc::new(connector));
        self
    }

    /// Makes the client. It opens no connection and starts no task.
    pub fn build(mut self) -> Result<Client> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        for (name, instead) in NO_DEFAULTS {
            if self.headers.contains_key(*name) {
                return Err(Error::invalid(format!(
                    "{name} cannot be a default header: {instead}"
                )));
            }
        }
        check_limits(&self.limits)?;
        check_http2(&self.http2)?;
        self.resilience.check()?;
        self.limits.heads = self.heads;
        self.limits.http2 = self.http2;
        let base = match &self.base_url {
            Some(url) => {
                let parsed = Target::parse_base(url).map_err(|error| {
                    Error::invalid_request(error).saying("base_url is not valid")
                })?;
                Some(Base {
                    target: parsed.target,
                    authorization: parsed.authorization,
                })
            }
            None => None,
        };
        self.headers
            .entry(header::ACCEPT)
            .or_insert(HeaderValue::from_static("*/*"));
        self.headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!(
                "sockeye/",
                env!("CARGO_PKG_VERSION")
            )));
        mark_secrets(&mut self.headers);
        let codings = codings(&mut self.headers, self.decompress);
        let no_unix = self.network.no_unix(self.connector.is_some());
        self.network.check(self.connector.is_some())?;
        let proxies = self
            .proxies
            .settle(&self.network, self.connector.is_some())?;
        let deny_private = self.network.denies_private();
        let (mut dialling, unix) = self.network.into_parts();
        dialling.proxies = proxies
            .iter()
            .flat_map(Proxies::tls_settings)
            .cloned()
            .collect();
        let dialler = Dialler::new(self.connector, self.tls.unwrap_or_default(), dialling);
        let base_origin = base.as_ref().map(|base| base.target.origin());
        let scoped = self.authenticators.into_iter().map(|(origin, who)| {
            let origin = origin.or_else(|| base_origin.clone());
            Scoped::new(who, origin)
        });
        let identity = Identity {
            credentials: self.credentials,
            authenticators: scoped.collect(),
            cookies: self.cookies,
        };
        let observers = Observers::new(self.observers);
        let connect_timeout = self.timeouts.connect;
        Ok(Client(Arc::new(Inner {
            engine: Arc::new(Engine {
                pool: Pool::new(self.limits, dialler, connect_timeout, observers.clone()),
                defaults: DefaultFields::new(&self.headers),
                timeouts: self.timeouts,
                versions: self.versions,
                https_only: self.https_only,
                redirects: self.redirects,
                identity: (!identity.is_empty()).then(|| Box::new(identity)),
                interceptors: self.interceptors.into(),
                attempt_interceptors: self.attempt_interceptors.into(),
                unix,
                proxies: proxies.map(Box::new),
                policies: Policies::new(self.resilience, Instant::now()),
                lots: Lots::default(),
                observers,
            }),
            base,
            error_for_status: self.error_for_status,
            max_body: self.max_body,
            codings,
            no_unix,
            deny_private,
        })))
    }

    fn insert<V>(mut self, name: HeaderName, value: V, setting: &str) -> Self
    where
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        match value.try_into() {
            Ok(value) => {
                self.headers.insert(name, value);
            }
            Err(error) => {
                // The value itself may be a secret.
                let error: http::Error = error.into();
                self.note(Error::invalid(format!(
                    "{setting}: the value of {name}: {error}"
                )));
            }
        }
        self
    }

    pub(super) fn note(&mut self, mistake: Error) {
        self.mistake.get_or_insert(mistake);
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("timeouts", &self.timeouts)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Settles what default fields ask for; one of the user's stays.
fn codings(headers: &mut HeaderMap, enabled: bool) -> Codings {
    let (asks, accepted) = if headers.contains_key(header::ACCEPT_ENCODING) {
        (Asking::User, listed(headers))
    } else if let Some(all) = field_of_all().filter(|_| enabled) {
        headers.insert(header::ACCEPT_ENCODING, all);
        (Asking::Us, Accepted::ALL)
    } else {
        (Asking::Nobody, Accepted::ALL)
    };
    Codings {
        enabled,
        asks,
        accepted,
    }
}

/// The codings that the fields of a user list.
pub(super) fn listed(headers: &HeaderMap) -> Accepted {
    let values = headers.get_all(header::ACCEPT_ENCODING);
    Accepted::listed(values.iter().map(HeaderValue::as_bytes))
}

/// The field that asks for every coding of this build.
pub(super) fn field_of_all() -> Option<HeaderValue> {
    HeaderValue::try_from(Accepted::field_of_all()?).ok()
}

/// Puts each name of `from` in place of what `into` has under it.
pub(super) fn replace(into: &mut HeaderMap, mut from: HeaderMap) {
    mark_secrets(&mut from);
    into.extend(from);
}

/// A head must at least fit a status line, and nothing that a limit of zero would mean can work.
fn check_limits(limits: &Limits) -> Result<()> {
    for (name, value, least, most) in [
        ("max_head", limits.max_head, 64, MAX_SIZE),
        ("max_head_fields", limits.max_head_fields, 1, MAX_FIELDS),
        ("max_trailer", limits.max_trailer, 0, MAX_SIZE),
        (
            "max_trailer_fields",
            limits.max_trailer_fields,
            0,
            MAX_FIELDS,
        ),
    ] {
        if value < least || value > most {
            return Err(Error::invalid(format!(
                "Limits::{name} is {value}; it must be from {least} to {most}"
            )));
        }
    }
    Ok(())
}

/// Flow control counts in 31 bits, and a window below the one that every peer starts with would have to be taken back.
fn check_http2(http2: &Http2Config) -> Result<()> {
    for (name, value) in [
        ("stream_window", http2.stream_window),
        ("connection_window", http2.connection_window),
    ] {
        if !(LEAST_WINDOW..=LARGEST_WINDOW).contains(&value) {
            return Err(Error::invalid(format!(
                "Http2Config::{name} is {value}; it must be from {LEAST_WINDOW} to {LARGEST_WINDOW}"
            )));
        }
    }
    // A session would be given up before any answer could come.
    if http2.ping_timeout.is_zero() {
        return Err(Error::invalid(
            "Http2Config::ping_timeout is zero; it must be longer",
        ));
    }
    Ok(())
}

/// The window that a session begins with (RFC 9113 section 6.9.2).
const LEAST_WINDOW: u32 = 65_535;

/// The largest window that there is (RFC 9113 section 6.9.1).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// A map of fields holds no more than about 24,000.
const MAX_FIELDS: usize = 16 * 1024;

/// The index of a head counts in 32 bits.
const MAX_SIZE: usize = 1024 * 1024 * 1024;

/// Fields that belong to one request or one connection.
const NO_DEFAULTS: &[(&str, &str)] = &[
    ("connection", "see Limits::max_requests_per_connection"),
    ("content-length", "the body decides it"),
    ("expect", "set it on the request"),
    ("host", "set it on the request"),
    ("keep-alive", "the pool keeps connections alive"),
    (
        "proxy-authorization",
        "it belongs to the hop to a proxy (Proxy::basic_auth, Proxy::header)",
    ),
    ("proxy-connection", "the pool keeps connections alive"),
    ("te", "set it on the request"),
    ("trailer", "set it on the request"),
    ("transfer-encoding", "the body decides it"),
    ("upgrade", "connections are not upgraded this way"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(builder: ClientBuilder, expected: &str) {
        assert_eq!(builder.build().unwrap_err().to_string(), expected);
    }

    #[test]
    fn mistakes_name_the_setting() {
        let builder = Client::builder;
        refused(
            builder().user_agent("a\nb"),
            "user_agent: the value of user-agent: failed to parse header value",
        );
        refused(
            builder().default_header("na me", "x"),
            "default_header: invalid HTTP header name",
        );
        refused(
            builder().default_header("content-length", "5"),
            "content-length cannot be a default header: the body decides it",
        );
        refused(
            builder().limits(Limits::default().with_max_head(10)),
            "Limits::max_head is 10; it must be from 64 to 1073741824",
        );
        refused(
            builder().http2(Http2Config::default().with_stream_window(10)),
            "Http2Config::stream_window is 10; it must be from 65535 to 2147483647",
        );
        refused(
            builder().http2(Http2Config::default().with_ping_timeout(Duration::ZERO)),
            "Http2Config::ping_timeout is zero; it must be longer",
        );
        let base = builder()
            .base_url("ftp://h/")
            .build()
            .unwrap_err()
            .to_string();
        assert!(base.starts_with("base_url is not valid: "), "{base}");
    }
}
