//! Which proxy a call goes through, if any: the setting, and the choice for each URL.
//!
//! Pure. [`Proxy`] is what users set: a [`Via`] and for which URLs it is. A `Via` is everything that tells connections through
//! two proxies apart, credentials included, so it is a part of the pool's key and compared in full (security P1, ruling 15).
//! `dial` goes through it; `tunnel` and `socks` speak to it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderName, HeaderValue};

use super::environment::Environment;
use super::exclusions::Exclusions;
use super::socks::SOCKS_BUILT_IN;
use super::tls::{TLS_BUILT_IN, TlsConfig};
use crate::codec::request_head::may_go_to_a_proxy;
use crate::error::{Error, Result};
use crate::head::{Forwarding, is_secret};
use crate::url::{Origin, Target, UrlError, UrlInput};

/// A proxy, and for which URLs it is used.
///
/// The URL of a proxy says how it is spoken to: `http://` and `https://` (over TLS) for proxies of HTTP, `socks5h://` and
/// `socks5://` for SOCKS5 (RFC 1928, feature `socks`), where `socks5` looks names up here and `socks5h` leaves that to the
/// proxy. Without a scheme it is `http`. Default ports are 80, 443 and 1080. Userinfo in it is the user and the password:
/// `Basic` for a proxy of HTTP (RFC 7617), RFC 1929 for SOCKS5.
///
/// Through a proxy of HTTP, `https` URLs, WebSockets and HTTP/2 by prior knowledge go through a tunnel (CONNECT), and TLS is spoken
/// with the server inside it. Other requests of `http` URLs are sent to the proxy with the whole URL, and the proxy forwards
/// them; it sees them, and its own answers (407, 502) are responses like any other. Credentials go to the proxy alone.
///
/// A connection is used again only for calls through a proxy of the same URL, credentials, fields and TLS settings.
///
/// ```
/// use sockeye::{Client, Proxy};
///
/// let client = Client::builder()
///     .proxy(Proxy::all("http://inventory:s3cret@proxy.example.com:3128")?.except("internal.example.com, 10.0.0.0/8")?)
///     .build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
#[derive(Clone)]
pub struct Proxy {
    via: Via,
    targets: Targets,
    exclusions: Exclusions,
    guards_addresses: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Targets {
    All,
    Http,
    Https,
}

impl Proxy {
    /// A proxy for every URL. Fails with [`ErrorKind::InvalidRequest`](crate::ErrorKind) if the URL is not that of a proxy, or
    /// if this build lacks the feature that it needs (`tls` for `https`, `socks` for SOCKS5).
    ///
    /// ```
    /// let proxy = sockeye::Proxy::all("proxy.example.com:3128")?;
    /// assert_eq!(proxy.to_string(), "http://proxy.example.com:3128");
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn all(url: impl AsRef<str>) -> Result<Self> {
        Self::new(url.as_ref(), Targets::All)
    }

    /// A proxy for `http` URLs.
    ///
    /// ```
    /// let proxy = sockeye::Proxy::http("http://proxy.example.com:3128")?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn http(url: impl AsRef<str>) -> Result<Self> {
        Self::new(url.as_ref(), Targets::Http)
    }

    /// A proxy for `https` URLs.
    ///
    /// ```
    /// let proxy = sockeye::Proxy::https("http://proxy.example.com:3128")?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn https(url: impl AsRef<str>) -> Result<Self> {
        Self::new(url.as_ref(), Targets::Https)
    }

    fn new(url: &str, targets: Targets) -> Result<Self> {
        let via = Via::parse(url)
            .map_err(|why| Error::invalid(format!("the URL of a proxy is not valid: {why}")))?;
        Ok(Self {
            via,
            targets,
            exclusions: Exclusions::default(),
            guards_addresses: false,
        })
    }

    /// User and password, in place of those in the URL.
    ///
    /// ```
    /// let proxy = sockeye::Proxy::all("http://proxy.example.com:3128")?.basic_auth("inventory", "s3cret")?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn basic_auth(
        mut self,
        user: impl fmt::Display,
        password: impl fmt::Display,
    ) -> Result<Self> {
        let login = Login {
            user: user.to_string(),
            password: password.to_string(),
        };
        self.via.change(|inner| inner.log_in(login))?;
        Ok(self)
    }

    /// A field of the requests for tunnels (CONNECT); another one of the same name stays. What the proxy forwards does not
    /// have it, because the server would see it. Fields of framing and of the connection are refused.
    ///
    /// `proxy-authorization` takes the place of user and password, for another scheme than `Basic`; it goes to the proxy with
    /// forwarded requests as well.
    ///
    /// ```
    /// let proxy = sockeye::Proxy::all("http://proxy.example.com:3128")?.header("x-tenant", "7")?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn header<N, V>(mut self, name: N, value: V) -> Result<Self>
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        let name = name.try_into().map_err(|error| {
            let error: http::Error = error.into();
            Error::invalid(format!("Proxy::header: {error}"))
        })?;
        let mut value = value.try_into().map_err(|error| {
            // The value itself may be a secret.
            let error: http::Error = error.into();
            Error::invalid(format!("Proxy::header: the value of {name}: {error}"))
        })?;
        value.set_sensitive(value.is_sensitive() || is_secret(&name));
        self.via.change(|inner| inner.add(name, value))?;
        Ok(self)
    }

    /// How TLS is spoken with a proxy whose URL is `https`. Default: [`TlsConfig::default`], never the client's own settings:
    /// they are for servers, and a proxy is to see no client identity that was not meant for it.
    ///
    /// ```
    /// use sockeye::{Proxy, TlsConfig};
    ///
    /// let proxy = Proxy::all("http://proxy.example.com")?.tls(TlsConfig::default());
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    #[must_use]
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        Arc::make_mut(&mut self.via.0).tls = tls;
        self
    }

    /// Hosts that are reached without this proxy, besides those that were named before: a list in the syntax of the variable
    /// NO_PROXY, separated by commas or blanks.
    ///
    /// `example.com` and `.example.com` stand for the name and all below it, `*.example.com` for those below alone, `*` for
    /// everything; `10.0.0.1`, `::1` and `10.0.0.0/8` for addresses in URLs. `:8443` behind a name or an address (of IPv6
    /// in brackets) limits it to that port. Names are not looked up to compare addresses. Fails with the first item that
    /// is none of these.
    ///
    /// ```
    /// let proxy = sockeye::Proxy::all("http://proxy.example.com")?.except("localhost, .corp.example, 192.168.0.0/16")?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn except(mut self, list: impl AsRef<str>) -> Result<Self> {
        let (more, unreadable) = Exclusions::parse(list.as_ref());
        if let Some(item) = unreadable {
            return Err(Error::invalid(format!(
                "Proxy::except: {item:?} is neither a name nor an address, with or without a port, nor a network"
            )));
        }
        self.exclusions = self.exclusions.and(&more);
        Ok(self)
    }

    /// Says that this proxy itself keeps its clients away from addresses that are not public, so that it may be used with
    /// [`ClientBuilder::deny_private`](crate::ClientBuilder::deny_private), which then sees the address of the proxy alone.
    /// Default: it does not, and the two are refused together.
    ///
    /// ```
    /// use sockeye::{Client, Proxy};
    ///
    /// let proxy = Proxy::all("http://egress.example.com:4750")?.guards_addresses(true);
    /// let client = Client::builder().deny_private(true).proxy(proxy).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    #[must_use]
    pub fn guards_addresses(mut self, enabled: bool) -> Self {
        self.guards_addresses = enabled;
        self
    }

    pub(crate) fn does_guard_addresses(&self) -> bool {
        self.guards_addresses
    }

    fn takes(&self, target: &Target) -> bool {
        let scheme = match self.targets {
            Targets::All => true,
            Targets::Http => !target.is_https(),
            Targets::Https => target.is_https(),
        };
        scheme && !self.exclusions.hold(target)
    }
}

/// Scheme, host and port, without credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.via, f)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("via", &self.via)
            .field("targets", &self.targets)
            .field("exclusions", &self.exclusions)
            .finish_non_exhaustive()
    }
}

/// The proxies of a client or of a call.
#[derive(Clone, Debug)]
pub(crate) enum Proxies {
    /// Those that were set; the first that takes a URL counts.
    Set(Vec<Proxy>),
    Environment(Environment),
}

impl Proxies {
    /// The proxy for a URL; `None` leads there without one.
    pub(crate) fn choose(&self, target: &Target) -> Result<Option<&Via>> {
        match self {
            Self::Set(proxies) => {
                let proxy = proxies.iter().find(|proxy| proxy.takes(target));
                Ok(proxy.map(|proxy| &proxy.via))
            }
            Self::Environment(environment) => environment.choose(target),
        }
    }

    /// How TLS is spoken with those that were set; of those of the environment it never changes.
    pub(crate) fn tls_settings(&self) -> impl Iterator<Item = &TlsConfig> {
        let set = match self {
            Self::Set(proxies) => &proxies[..],
            Self::Environment(_) => &[],
        };
        set.iter().map(|proxy| proxy.via.tls())
    }

    /// Adds one behind those that were set.
    pub(crate) fn add(&mut self, proxy: Proxy) {
        match self {
            Self::Set(proxies) => proxies.push(proxy),
            Self::Environment(_) => *self = Self::Set(vec![proxy]),
        }
    }
}

/// A proxy as connections through it know it.
#[derive(Clone)]
pub(crate) struct Via(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    protocol: Protocol,
    /// Where it is; `https` if it is spoken to over TLS.
    place: Origin,
    /// For SOCKS5; a proxy of HTTP has them in `forwarding`.
    login: Option<Login>,
    /// What forwarded requests have; its credentials are those of CONNECT as well.
    forwarding: Arc<Forwarding>,
    /// Further fields of CONNECT.
    fields: Vec<(HeaderName, HeaderValue)>,
    tls: TlsConfig,
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http,
    /// Names are looked up here.
    Socks5,
    /// Names are looked up by the proxy.
    Socks5Names,
}

/// User and password of SOCKS5 (RFC 1929).
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

impl Via {
    /// Reads the URL of a proxy.
    pub(super) fn parse(text: &str) -> Result<Self, ViaError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let is = |name: &str| scheme.eq_ignore_ascii_case(name);
        let (protocol, stand_in, port) = if is("http") {
            (Protocol::Http, "http", 80)
        } else if is("https") {
            (Protocol::Http, "https", 443)
        } else if is("socks5") {
            (Protocol::Socks5, "http", 1080)
        } else if is("socks5h") {
            (Protocol::Socks5Names, "http", 1080)
        } else {
            return Err(ViaError::Scheme);
        };
        if stand_in == "https" && !TLS_BUILT_IN {
            return Err(ViaError::Feature("tls"));
        }
        if protocol != Protocol::Http && !SOCKS_BUILT_IN {
            return Err(ViaError::Feature("socks"));
        }
        // One parser for all URLs, so that all are read as strictly; it knows these two schemes.
        let parsed = UrlInput::Text(format!("{stand_in}://{rest}").into()).parse(None);
        let parsed = parsed.map_err(ViaError::Url)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let is_bare = matches!(rest.get(authority.len()..), Some("" | "/"));
        if !is_bare {
            return Err(ViaError::Path);
        }
        let place = authority.rsplit(['@', ']']).next().unwrap_or_default();
        let place = match place.contains(':') {
            true => parsed.target.origin(),
            false => parsed.target.origin().at_port(port),
        };
        let mut inner = Inner {
            protocol,
            place,
            login: None,
            forwarding: Arc::default(),
            fields: Vec::new(),
            tls: TlsConfig::default(),
        };
        match (protocol, parsed.authorization) {
            (_, None) => {}
            (Protocol::Http, Some(basic)) => inner.authorize(*basic),
            (_, Some(basic)) => inner.login = Some(Login::of_basic(&basic)?),
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Origin {
        &self.0.place
    }

    /// As a cause of errors, which says by way of whom.
    pub(crate) fn named(&self) -> ByWayOf {
        ByWayOf(self.clone())
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.0.protocol
    }

    /// Whether it forwards requests without a tunnel.
    pub(crate) fn can_forward(&self) -> bool {
        self.0.protocol == Protocol::Http
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.0.login.as_ref()
    }

    pub(super) fn has_credentials(&self) -> bool {
        self.0.login.is_some() || self.0.forwarding.authorization.is_some()
    }

    pub(super) fn forwarding(&self) -> &Arc<Forwarding> {
        &self.0.forwarding
    }

    /// The fields of CONNECT.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let credentials = self.0.forwarding.authorization.as_ref();
        let credentials = credentials.map(|value| (&header::PROXY_AUTHORIZATION, value));
        let others = self.0.fields.iter().map(|(name, value)| (name, value));
        credentials.into_iter().chain(others)
    }

    pub(super) fn tls(&self) -> &TlsConfig {
        &self.0.tls
    }

    fn change(&mut self, change: impl FnOnce(&mut Inner) -> Result<(), ViaError>) -> Result<()> {
        change(Arc::make_mut(&mut self.0)).map_err(|why| Error::invalid(format!("Proxy: {why}")))
    }

    /// Everything that tells two apart. The pattern is exhaustive, so that a new field asks to be compared (security P1).
    fn identity(&self) -> Identity<'_> {
        let Inner {
            protocol,
            place,
            login,
            forwarding,
            fields,
            // Compared by its number, which changes with the client identity; what a map keeps must not.
            tls: _,
        } = &*self.0;
        let Forwarding { authorization } = &**forwarding;
        Identity {
            protocol: *protocol,
            place,
            login: login.as_ref(),
            authorization: authorization.as_ref(),
            fields,
        }
    }
}

/// What two equal ones have in common. Values of fields are compared byte by byte.
#[derive(PartialEq, Eq, Hash)]
struct Identity<'a> {
    protocol: Protocol,
    place: &'a Origin,
    login: Option<&'a Login>,
    authorization: Option<&'a HeaderValue>,
    fields: &'a [(HeaderName, HeaderValue)],
}

impl PartialEq for Via {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.identity() == other.identity() && self.tls().id() == other.tls().id()
    }
}

impl Eq for Via {}

/// Into the keyed hash of the pool's map, and nowhere else.
impl Hash for Via {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl Inner {
    fn authorize(&mut self, mut value: HeaderValue) {
        value.set_sensitive(true);
        self.forwarding = Arc::new(Forwarding {
            authorization: Some(value),
        });
    }

    fn log_in(&mut self, login: Login) -> Result<(), ViaError> {
        let Login { user, password } = &login;
        if user.chars().chain(password.chars()).any(char::is_control) {
            return Err(ViaError::Login(
                "the user or the password holds a control character",
            ));
        }
        if self.protocol != Protocol::Http {
            login.check()?;
            self.login = Some(login);
            return Ok(());
        }
        if user.contains(':') {
            return Err(ViaError::Login(
                "the user holds a colon, which would end it (RFC 7617)",
            ));
        }
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        let value = HeaderValue::try_from(format!("Basic {encoded}"));
        self.authorize(value.map_err(|_| ViaError::Login("the credentials are too long"))?);
        Ok(())
    }

    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), ViaError> {
        if self.protocol != Protocol::Http {
            return Err(ViaError::NoFields);
        }
        if !may_go_to_a_proxy(&name) {
            return Err(ViaError::Field(name));
        }
        if name == header::PROXY_AUTHORIZATION {
            self.authorize(value);
        } else {
            self.fields.push((name, value));
        }
        Ok(())
    }
}

impl Login {
    /// What the parser of URLs made of userinfo.
    fn of_basic(value: &HeaderValue) -> Result<Self, ViaError> {
        let unreadable = ViaError::Login("the user or the password is not UTF-8");
        let encoded = value.as_bytes().strip_prefix(b"Basic ").unwrap_or_default();
        let decoded = STANDARD.decode(encoded).unwrap_or_default();
        let Ok(text) = String::from_utf8(decoded) else {
            return Err(unreadable);
        };
        let (user, password) = text.split_once(':').ok_or(unreadable)?;
        let login = Self {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        login.check()?;
        Ok(login)
    }

    /// Their lengths are sent in one byte each.
    fn check(&self) -> Result<(), ViaError> {
        if self.user.is_empty() || self.user.len() > 255 || self.password.len() > 255 {
            return Err(ViaError::Login(
                "user and password of SOCKS5 have at most 255 bytes, and the user at least one (RFC 1929)",
            ));
        }
        Ok(())
    }
}

/// Scheme, host and port.
impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.place().host(), self.place().port());
        let scheme = match self.0.protocol {
            Protocol::Http => self.place().scheme(),
            Protocol::Socks5 => "socks5",
            Protocol::Socks5Names => "socks5h",
        };
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{port}"),
            false => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

/// As Display, and whether there are credentials.
impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = if self.has_credentials() {
            " with credentials"
        } else {
            ""
        };
        write!(f, "{self}{credentials}")
    }
}

/// Tells the proxy in an error.
#[derive(Debug)]
pub(crate) struct ByWayOf(Via);

impl fmt::Display for ByWayOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by way of the proxy {}", self.0)
    }
}

impl std::error::Error for ByWayOf {}

/// Why a proxy is none.
#[derive(Debug)]
pub(crate) enum ViaError {
    Scheme,
    Url(UrlError),
    Path,
    Feature(&'static str),
    Login(&'static str),
    NoFields,
    Field(HeaderName),
}

impl ViaError {
    /// What may be said where not even the host is to be shown.
    pub(super) fn discreet(&self) -> String {
        match self {
            Self::Url(_) => "its value is not a valid URL".to_owned(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for ViaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("the scheme is none of http, https, socks5 and socks5h"),
            Self::Url(error) => write!(f, "{error}"),
            Self::Path => f.write_str("there is a path, a query or a fragment behind the host"),
            Self::Feature(feature) => write!(
                f,
                "its scheme needs the feature `{feature}`, which this build does not have"
            ),
            Self::Login(why) => f.write_str(why),
            Self::NoFields => f.write_str("SOCKS5 has no fields"),
            Self::Field(name) => {
                write!(f, "{name} cannot be set: it is about the connection itself")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Result<&str, &str>) {
        match (Proxy::all(url), expected) {
            (Ok(proxy), Ok(expected)) => assert_eq!(proxy.to_string(), expected, "{url}"),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{url}: {error}");
            }
            (other, _) => panic!("{url}: {other:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn urls_of_proxies() {
        check("http://p.test", Ok("http://p.test:80"));
        check("http://p.test:80", Ok("http://p.test:80"));
        check("http://p.test:3128/", Ok("http://p.test:3128"));
        check("p.test:3128", Ok("http://p.test:3128"));
        check("P.Test", Ok("http://p.test:80"));
        check("HTTP://u:p@[::1]", Ok("http://[::1]:80"));
        check("http://u:p@[::1]:8080", Ok("http://[::1]:8080"));
        check("http://10.0.0.1", Ok("http://10.0.0.1:80"));
        check("ftp://p.test", Err("the scheme is none of"));
        check("socks4://p.test", Err("the scheme is none of"));
        check("socks://p.test", Err("the scheme is none of"));
        check("", Err("not valid"));
        check("http://", Err("not valid"));
        check("http://p.test/path", Err("behind the host"));
        check("http://p.test?q", Err("behind the host"));
        check("http://p.test/#f", Err("behind the host"));
        check("http://127.1", Err("not valid"));
        check("http://p.test:0", Err("not valid"));
        if TLS_BUILT_IN {
            check("https://p.test", Ok("https://p.test:443"));
            check("https://p.test:80", Ok("https://p.test:80"));
            check("https://p.test:443", Ok("https://p.test:443"));
        } else {
            check("https://p.test", Err("needs the feature `tls`"));
        }
        if SOCKS_BUILT_IN {
            check("socks5://p.test", Ok("socks5://p.test:1080"));
            check("socks5h://u:p@p.test:80", Ok("socks5h://p.test:80"));
            check("socks5h://[::1]:1", Ok("socks5h://[::1]:1"));
            check(
                &format!("socks5://{}:p@p.test", "u".repeat(256)),
                Err("at most 255 bytes"),
            );
            check(
                &format!("socks5://u:{}@p.test", "p".repeat(256)),
                Err("at most 255 bytes"),
            );
            check("socks5://:p@p.test", Err("at least one"));
            check("socks5://u%ff:p@p.test", Err("not UTF-8"));
        } else {
            check("socks5h://p.test", Err("needs the feature `socks`"));
        }
    }

    #[test]
    fn credentials() {
        let authorization = |proxy: &Proxy| {
            let value = proxy.via.forwarding().authorization.clone();
            value.map(|value| {
                assert!(value.is_sensitive());
                value.to_str().unwrap().to_owned()
            })
        };
        let plain = Proxy::all("http://p.test").unwrap();
        assert_eq!(authorization(&plain), None);
        let from_url = Proxy::all("http://Aladdin:open%20sesame@p.test").unwrap();
        let from_call = plain.clone().basic_auth("Aladdin", "open sesame").unwrap();
        let by_hand = plain
            .clone()
            .header("Proxy-Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
            .unwrap();
        for proxy in [&from_url, &from_call, &by_hand] {
            assert_eq!(
                authorization(proxy).as_deref(),
                Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
            );
            assert!(proxy.via == from_url.via);
            assert!(proxy.via != plain.via);
            let shown = format!("{proxy} {proxy:?}");
            assert!(
                !shown.contains("Aladdin") && !shown.contains("sesame"),
                "{shown}"
            );
        }
        assert!(plain.clone().basic_auth("a:b", "c").is_err());
        assert!(plain.clone().basic_auth("a\n", "c").is_err());
        for name in ["host", "content-length", "connection", "upgrade", "te"] {
            let error = plain.clone().header(name, "1").unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = plain.header("x-a", "s3cret\n").unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
        if SOCKS_BUILT_IN {
            let socks = Proxy::all("socks5://us%65r:pass%3aword@p.test").unwrap();
            let login = socks.via.login().unwrap();
            assert_eq!((&*login.user, &*login.password), ("user", "pass:word"));
            assert!(!format!("{socks:?} {login:?}").contains("word"));
            assert!(socks.clone().basic_auth("a:b", "").is_ok());
            assert!(socks.header("x-a", "1").is_err());
        }
    }

    /// Security P1: whatever is set of a proxy tells two apart.
    #[test]
    fn every_setting_tells_two_proxies_apart() {
        let proxy = |url: &str| Proxy::all(url).unwrap();
        let base = proxy("http://p.test:3128");
        let mut all = vec![
            base.clone(),
            proxy("http://p.test:3129"),
            proxy("http://q.test:3128"),
            proxy("http://u:p@p.test:3128"),
            proxy("http://u:P@p.test:3128"),
            base.clone().header("x-a", "1").unwrap(),
            base.clone().header("x-a", "2").unwrap(),
            base.clone().header("x-b", "1").unwrap(),
        ];
        if SOCKS_BUILT_IN {
            all.push(proxy("socks5://p.test:3128"));
            all.push(proxy("socks5h://p.test:3128"));
            all.push(proxy("socks5h://u:p@p.test:3128"));
            all.push(proxy("socks5h://u:q@p.test:3128"));
        }
        if TLS_BUILT_IN {
            all.push(proxy("https://p.test:3128"));
        }
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(one.via == other.via, at == other_at, "{one:?} {other:?}");
            }
        }
        // Which URLs it is for does not: the way there is the same.
        let other = Proxy::http("http://p.test:3128")
            .unwrap()
            .except("*")
            .unwrap();
        assert!(other.via == base.via);
    }

    #[test]
    fn the_first_that_takes_a_url_counts() {
        let proxies = Proxies::Set(vec![
            Proxy::https("http://one.test").unwrap(),
            Proxy::http("http://two.test")
                .unwrap()
                .except("a.test")
                .unwrap(),
            Proxy::all("http://three.test")
                .unwrap()
                .except("b.test")
                .unwrap()
                .except("*.c.test")
                .unwrap(),
        ]);
        for (url, expected) in [
            ("https://x.test", Some("http://one.test:80")),
            ("https://a.test", Some("http://one.test:80")),
            ("http://x.test", Some("http://two.test:80")),
            ("http://b.test", Some("http://two.test:80")),
            ("http://localhost", Some("http://two.test:80")),
            ("http://a.test", Some("http://three.test:80")),
        ] {
            let parsed = UrlInput::Text(url.to_owned().into()).parse(None).unwrap();
            let chosen = proxies.choose(&parsed.target).unwrap();
            assert_eq!(
                chosen.map(ToString::to_string).as_deref(),
                expected,
                "{url}"
            );
        }
        let error = Proxy::all("http://p.test")
            .unwrap()
            .except("a.test, b c/d")
            .unwrap_err();
        assert!(error.to_string().contains("c/d"), "{error}");
    }
}
