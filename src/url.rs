//! URLs: what a caller wrote becomes a checked `Target`, once; nothing behind this file parses again.
//!
//! Strict RFC 3986 for `http` and `https`, without repair: what two parsers could read differently is
//! refused (design D10, security U1, U2). Text and `http::Uri` pass the same checks. Userinfo turns
//! into an Authorization value and is gone from then on. A join appends to a base URL and never
//! changes its origin.
//!
//! `resolve.rs` finds what a redirect names, `standard.rs` takes the URLs of the crate `url`. Nothing here resolves names, follows redirects or does I/O. The client calls it
//! for each request and for `base_url`; pool, codec and policies read `Target` and `Origin`.

mod resolve;
#[cfg(feature = "url")]
mod standard;

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};

use crate::error::Error;

/// Scheme, host and port: who answers a URL. URLs of one origin may share connections and credentials.
///
/// A trailing dot of the host is part of the origin. The text form leaves the scheme's default port
/// out and puts an IPv6 address in brackets: `https://example.com`, `http://[::1]:8080`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    https: bool,
    host: Arc<str>,
    port: u16,
}

impl Origin {
    /// The scheme: `"http"` or `"https"`.
    pub fn scheme(&self) -> &str {
        scheme_text(self.https)
    }

    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host in lower case; an IPv6 address stands here without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the scheme's default (80, 443) included.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether this is the origin of a URL; costs no allocation.
    pub(crate) fn is_of(&self, target: &Target) -> bool {
        self.https == target.https && self.port == target.port && *self.host == *target.host()
    }

    /// The same at another port.
    pub(crate) fn at_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// The origin of a URL in a setting, which the error names.
    pub(crate) fn of_setting(url: impl IntoUrl, setting: &'static str) -> Result<Self, Error> {
        let parsed = url.into_url_input().parse(None);
        let parsed = parsed.map_err(|error| {
            Error::invalid_request(error).saying(format!("{setting}: the URL is not valid"))
        })?;
        Ok(parsed.target.origin())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if self.port != default_port(self.https) {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A checked absolute URL in canonical form: lower-case host, no userinfo, no fragment, no default
/// port, a path that begins with `/`. Everything that reads a URL reads this, so that all agree.
#[derive(Clone)]
pub(crate) struct Target {
    /// `None` of no target. An empty `Uri` in its place would be made and dropped once a call.
    uri: Option<Uri>,
    https: bool,
    port: u16,
    /// Where the host (its brackets included) ends in the authority. A URI is no longer than 65,534 bytes.
    host_end: u16,
}

impl Target {
    /// No target: what stands in for one that could not be parsed, or that was taken.
    pub(crate) fn nowhere() -> Self {
        Self {
            uri: None,
            https: false,
            port: 0,
            host_end: 0,
        }
    }

    /// Whether this is no target.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.uri.is_none()
    }

    /// Takes the target out.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::nowhere())
    }

    /// Parses a base URL: absolute, without query and fragment, since a join could only lose them.
    pub(crate) fn parse_base(text: &str) -> Result<Parsed, UrlError> {
        let parsed = parse_text(Cow::Borrowed(text), None)?;
        refuse(text.contains(['?', '#']), Rule::BaseTail)?;
        Ok(parsed)
    }

    /// The URL as the `http` crate's type.
    pub(crate) fn uri(&self) -> &Uri {
        self.uri.as_ref().unwrap_or_else(|| &*NO_URI)
    }

    /// The URL as the `http` crate's type, moved out.
    pub(crate) fn into_uri(self) -> Uri {
        self.uri.unwrap_or_default()
    }

    /// Whether the scheme is `https`.
    pub(crate) fn is_https(&self) -> bool {
        self.https
    }

    /// The port to connect to, the scheme's default included.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The host; an IPv6 address comes without brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self
            .authority()
            .get(..usize::from(self.host_end))
            .unwrap_or_default();
        let address = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        address.unwrap_or(host)
    }

    /// What the Host field says: the host, with brackets around IPv6, and the port unless it is the
    /// scheme's default. A checked URL has no userinfo and no default port, so this is its authority.
    pub(crate) fn host_field(&self) -> &str {
        self.authority()
    }

    /// The target in origin form: a path, which is never empty, and a query if there is one.
    pub(crate) fn path_and_query(&self) -> &str {
        self.uri()
            .path_and_query()
            .map_or("/", PathAndQuery::as_str)
    }

    /// The origin; costs one allocation.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            https: self.https,
            host: self.host().into(),
            port: self.port,
        }
    }

    /// Whether both URLs have the same scheme, host and port; costs no allocation.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        self.https == other.https && self.port == other.port && self.host() == other.host()
    }

    /// Adds `name=value` pairs behind the query; the rest of the URL stays as it is. They pass the check that the query of
    /// a text passes.
    pub(crate) fn append_query(&mut self, pairs: &str) -> Result<(), UrlError> {
        if pairs.is_empty() {
            return Ok(());
        }
        let path = self.path_and_query();
        let between = match self.uri().query() {
            None => "?",
            Some(query) if query.is_empty() || query.ends_with('&') => "",
            Some(_) => "&",
        };
        let longer = format!("{path}{between}{pairs}");
        let (_, end) = check_tail(&longer)?;
        refuse(end != longer.len(), Rule::Character(Part::Query, end, '#'))?;
        *self = self.with_path_and_query(longer)?;
        Ok(())
    }

    /// The same origin with another path and query, which were checked; only their length was not.
    fn with_path_and_query(&self, text: String) -> Result<Self, UrlError> {
        check_length(scheme_text(self.https).len() + 3 + self.authority().len() + text.len())?;
        let mut parts = self.uri().clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(text).map_err(|_| Rule::Unsupported)?);
        let uri = Uri::from_parts(parts).map_err(|_| Rule::Unsupported)?;
        Ok(Self {
            uri: Some(uri),
            ..*self
        })
    }

    /// Host and port as the URI has them.
    fn authority(&self) -> &str {
        self.uri().authority().map_or("", |found| found.as_str())
    }

    /// Appends a relative reference to this base: the path grows, the query is the reference's own.
    fn join(&self, reference: &str) -> Result<Self, UrlError> {
        // `//host` is a network-path reference, and browsers read `\` as `/`: both name a host.
        let host = reference.starts_with("//") || reference.starts_with('\\');
        refuse(host, Rule::JoinAuthority)?;
        let (path, end) = check_tail(reference)?;
        refuse(path.split('/').any(is_dot_segment), Rule::DotSegment)?;
        if end == 0 {
            return Ok(self.clone());
        }
        let base = self.uri().path();
        let (base, slash) = match path {
            "" => (base, ""),
            _ => (base.strip_suffix('/').unwrap_or(base), "/"),
        };
        let reference = reference.get(..end).unwrap_or(reference);
        let reference = reference.strip_prefix('/').unwrap_or(reference);
        self.with_path_and_query(format!("{base}{slash}{reference}"))
    }
}

/// Shows origin and path; a query shows as `?…`, because queries carry keys and personal data.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = self.uri().query().map_or("", |_| "?…");
        write!(f, "{}{}{query}", self.origin(), self.uri().path())
    }
}

/// A URL after the checks, with the credentials it carried.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// Where the request goes.
    pub(crate) target: Target,
    /// `Basic` credentials from the URL's userinfo, marked sensitive. Boxed, because few URLs hold any.
    pub(crate) authorization: Option<Box<HeaderValue>>,
}

/// What a caller passed as a URL, before any check. It may hold a password, so it has no `Debug`.
pub enum UrlInput<'a> {
    /// Text, borrowed or owned.
    Text(Cow<'a, str>),
    /// A URI of the `http` crate, borrowed or owned.
    Uri(Cow<'a, Uri>),
}

impl UrlInput<'_> {
    /// Checks the input and, if it is relative, joins it to the base.
    pub(crate) fn parse(self, base: Option<&Target>) -> Result<Parsed, UrlError> {
        match self {
            Self::Text(text) => parse_text(text, base),
            Self::Uri(uri) => parse_uri(uri, base),
        }
    }
}

/// What can be passed as a URL: `&str`, `String`, `&String`, [`http::Uri`] and `&http::Uri`; with the feature `url` also `url::Url` and
/// `&url::Url`.
///
/// Every form passes the same strict check (RFC 3986); `&http::Uri` is the one that needs no allocation. The trait is sealed: it
/// cannot be implemented outside this crate.
///
/// A `url::Url` counts as the text it is written as (`as_str`), so a host that is not ASCII arrives in its `xn--` form. The URL
/// Standard, which it follows, leaves a few characters plain that RFC 3986 has percent-encoded, such as `[` and `|` in a query; they are
/// refused here as they are in text.
pub trait IntoUrl: sealed::Sealed {}

impl<T: sealed::Sealed> IntoUrl for T {}

/// Keeps `IntoUrl` closed, and its only method out of users' sight.
mod sealed {
    use super::{Cow, Uri, UrlInput};

    /// The conversion behind `IntoUrl`.
    pub trait Sealed {
        /// Hands the URL over, unchecked.
        #[doc(hidden)]
        fn into_url_input<'a>(self) -> UrlInput<'a>
        where
            Self: 'a;
    }

    macro_rules! seal {
        ($($url:ident: $type:ty => $input:expr;)*) => {$(
            impl Sealed for $type {
                fn into_url_input<'a>(self) -> UrlInput<'a>
                where
                    Self: 'a,
                {
                    let $url = self;
                    $input
                }
            }
        )*};
    }

    seal! {
        text: &str => UrlInput::Text(Cow::Borrowed(text));
        text: &String => UrlInput::Text(Cow::Borrowed(text));
        text: String => UrlInput::Text(Cow::Owned(text));
        uri: Uri => UrlInput::Uri(Cow::Owned(uri));
        uri: &Uri => UrlInput::Uri(Cow::Borrowed(uri));
    }
}

/// Parses text, absolute or relative.
fn parse_text(text: Cow<'_, str>, base: Option<&Target>) -> Result<Parsed, UrlError> {
    check_length(text.len())?;
    // An unescaped `/` or `#` in a password moves the rest of it out of the userinfo, so nothing
    // is quoted when an `@` stands anywhere.
    let discreet = |error: UrlError| error.redacted_if(text.contains('@'));
    let scheme = read_scheme(&text, base.is_some()).map_err(discreet)?;
    let Some((https, start)) = scheme else {
        return join_or_refuse(&text, base);
    };
    let rest = text.get(start..).unwrap_or_default();
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let mut checked = Absolute::check(https, authority, tail).map_err(discreet)?;
    let end = start + authority.len() + checked.tail_end;
    let uri = match (checked.rewritten.take(), text) {
        (Some(rewritten), _) => Uri::try_from(rewritten),
        (None, Cow::Borrowed(text)) => Uri::try_from(text.get(..end).unwrap_or(text)),
        (None, Cow::Owned(mut text)) => {
            text.truncate(end);
            Uri::try_from(text)
        }
    };
    let uri = uri.map_err(|_| Rule::Unsupported)?;
    checked.place.lead(uri, checked.authorization, base)
}

/// Checks a URI of the `http` crate, which lets through much that a strict parser must not. A URI
/// with nothing to change is kept as it is.
fn parse_uri(uri: Cow<'_, Uri>, base: Option<&Target>) -> Result<Parsed, UrlError> {
    let tail = uri.path_and_query().map_or("", PathAndQuery::as_str);
    let (scheme, authority) = match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) => (scheme, authority.as_str()),
        (None, None) => return join_or_refuse(tail, base),
        _ => return Err(Rule::SchemeMissing.into()),
    };
    let https = match scheme.as_str() {
        "http" => false,
        "https" => true,
        // A builder keeps `HTTP` as an unknown scheme; text may have it in any case.
        _ => return parse_text(Cow::Owned(uri.to_string()), base),
    };
    check_length(scheme_text(https).len() + 3 + authority.len() + tail.len())?;
    if let Some(place) = Place::of_common(https, authority, tail) {
        return place.lead(uri.into_owned(), None, base);
    }
    let discreet =
        |error: UrlError| error.redacted_if(authority.contains('@') || tail.contains('@'));
    let mut checked = Absolute::check(https, authority, tail).map_err(discreet)?;
    let uri = match checked.rewritten.take() {
        Some(rewritten) => Uri::try_from(rewritten).map_err(|_| Rule::Unsupported)?,
        None => uri.into_owned(),
    };
    checked.place.lead(uri, checked.authorization, base)
}

/// A relative reference: joined to the base, or an error without one.
fn join_or_refuse(reference: &str, base: Option<&Target>) -> Result<Parsed, UrlError> {
    refuse(reference == "*", Rule::Asterisk)?;
    let Some(base) = base else {
        refuse(reference.is_empty(), Rule::Empty)?;
        return Err(Rule::Relative.into());
    };
    Ok(Parsed {
        target: base.join(reference)?,
        authorization: None,
    })
}

/// Reads the scheme: whether it is `https`, and where the authority begins; `None` for a relative
/// reference. A first segment with a colon is no relative reference (RFC 3986 section 4.2).
fn read_scheme(text: &str, joining: bool) -> Result<Option<(bool, usize)>, UrlError> {
    let begins = |start: &str| {
        let head = text.get(..start.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(start))
    };
    if begins("https://") {
        return Ok(Some((true, 8)));
    }
    if begins("http://") {
        return Ok(Some((false, 7)));
    }
    let first = text.bytes().next();
    refuse(first.is_some_and(|byte| byte <= b' '), Rule::LeadingBlank)?;
    let segment = text.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((scheme, _)) = segment.split_once(':') else {
        return Ok(None);
    };
    refuse(begins("http:") || begins("https:"), Rule::Slashes)?;
    let rule = if joining {
        Rule::JoinScheme
    } else {
        Rule::Scheme
    };
    Err(rule.of(scheme))
}

/// Where an absolute URL leads.
#[derive(Clone, Copy)]
struct Place {
    https: bool,
    port: u16,
    /// The length of the host in canonical form, with its brackets.
    host_end: u16,
}

/// What the checks of an absolute URL found.
struct Absolute {
    place: Place,
    authorization: Option<Box<HeaderValue>>,
    /// The canonical text, if it differs from what came in.
    rewritten: Option<String>,
    /// Where the fragment begins in the text behind the authority.
    tail_end: usize,
}

impl Absolute {
    /// Checks the authority and the `tail`, which is all the text behind it.
    fn check(https: bool, authority: &str, tail: &str) -> Result<Self, UrlError> {
        if let Some(place) = Place::of_common(https, authority, tail) {
            return Ok(Self {
                place,
                authorization: None,
                rewritten: None,
                tail_end: tail.len(),
            });
        }
        // Loops over bytes, here and below, because the texts are too short for a search of `str`.
        let at_sign = authority.bytes().rposition(|byte| byte == b'@');
        let (userinfo, place) = match at_sign.and_then(|at| split_around(authority, at)) {
            Some((userinfo, place)) => (Some(userinfo), place),
            None => (None, authority),
        };
        let (host, port) = check_host(place).map_err(|rule| {
            // What stands behind the colon may be a piece of a password.
            let name = place.split(':').next().unwrap_or_default();
            rule.of(if place.starts_with('[') { place } else { name })
        })?;
        let port = port.map(check_port).transpose()?;
        let (path, end) = check_tail(tail)?;
        let target = tail.get(..end).unwrap_or(tail);
        refuse(!path.is_empty() && !path.starts_with('/'), Rule::Asterisk)?;
        let authorization = userinfo.map(basic_authorization).transpose()?;
        let mut checked = Self {
            place: Place {
                https,
                port: port.unwrap_or(default_port(https)),
                host_end: u16::try_from(host.len()).unwrap_or(u16::MAX),
            },
            authorization: authorization.map(Box::new),
            rewritten: None,
            tail_end: end,
        };
        // The `http` crate keeps `?q` behind a host as it is; on the wire it must be `/?q`.
        let slash = if path.is_empty() && end > 0 { "/" } else { "" };
        let as_written = userinfo.is_none() && port != Some(default_port(https));
        if !as_written || !slash.is_empty() || matches!(host, Cow::Owned(_)) {
            let port = port.filter(|port| *port != default_port(https));
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            let text = format!("{}://{host}{port}{slash}{target}", scheme_text(https));
            check_length(text.len())?;
            checked.rewritten = Some(text);
        }
        Ok(checked)
    }
}

impl Place {
    /// The place of what most URLs are: a lower-case name or a dotted quad, perhaps a port, and a path without escapes. It
    /// accepts nothing that the checks of `Absolute` refuse; what it does not know is theirs.
    fn of_common(https: bool, authority: &str, tail: &str) -> Option<Self> {
        let bytes = authority.as_bytes();
        let host_end = match bytes.first()? {
            b'0'..=b'9' => quad_end(bytes)?,
            _ => name_end(bytes)?,
        };
        let mut mask = PATH;
        for byte in tail.strip_prefix('/')?.bytes() {
            if byte == b'?' {
                mask = QUERY;
            } else if CLASSES[usize::from(byte)] & mask == 0 {
                return None;
            }
        }
        let port = match bytes.get(host_end + 1..) {
            Some(digits) => common_port(digits).filter(|port| *port != default_port(https))?,
            None => default_port(https),
        };
        Some(Self {
            https,
            port,
            host_end: u16::try_from(host_end).ok()?,
        })
    }

    /// The target that a URI is, which leads there; next to a base the origin must be the base's.
    fn lead(
        self,
        uri: Uri,
        authorization: Option<Box<HeaderValue>>,
        base: Option<&Target>,
    ) -> Result<Parsed, UrlError> {
        let target = Target {
            uri: Some(uri),
            https: self.https,
            port: self.port,
            host_end: self.host_end,
        };
        if let Some(base) = base {
            refuse(!base.same_origin(&target), Rule::JoinOrigin)?;
        }
        Ok(Parsed {
            target,
            authorization,
        })
    }
}

/// The URI of no target.
static NO_URI: LazyLock<Uri> = LazyLock::new(Uri::default);

/// Where a dotted quad ends in an authority that begins with one, as every parser reads it: four numbers up to 255 without
/// leading zeros.
fn quad_end(authority: &[u8]) -> Option<usize> {
    let (mut dots, mut digits, mut number, mut end) = (0, 0, 0, authority.len());
    for (at, byte) in authority.iter().enumerate() {
        match byte {
            b'0'..=b'9' if digits == 0 || number > 0 => {
                digits += 1;
                number = number * 10 + u32::from(byte - b'0');
                if number > 255 {
                    return None;
                }
            }
            b'.' if digits > 0 => {
                dots += 1;
                (digits, number) = (0, 0);
            }
            b':' => {
                end = at;
                break;
            }
            _ => return None,
        }
    }
    (dots == 3 && digits > 0).then_some(end)
}

/// Where a lower-case name ends in an authority that begins with one. Its last label begins with a letter, so that nobody takes
/// it for a number.
fn name_end(authority: &[u8]) -> Option<usize> {
    let (mut label, mut end) = (0, authority.len());
    for (at, byte) in authority.iter().enumerate() {
        if CLASSES[usize::from(*byte)] & LABEL != 0 {
            continue;
        }
        match byte {
            b'.' if at > label && at - label <= MAX_LABEL => label = at + 1,
            b':' => {
                end = at;
                break;
            }
            _ => return None,
        }
    }
    let is_short = end - label <= MAX_LABEL && end <= MAX_NAME;
    (is_short && authority.get(label)?.is_ascii_lowercase()).then_some(end)
}

/// A port without a leading zero.
fn common_port(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 || digits.first() == Some(&b'0') {
        return None;
    }
    let number = digits.iter().try_fold(0_u32, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u32::from(byte - b'0'))
    })?;
    u16::try_from(number).ok()
}

/// Checks host and port of an authority without userinfo. The host comes back as canonical text,
/// borrowed if that is what was written; the port comes back unchecked.
fn check_host(place: &str) -> Result<(Cow<'_, str>, Option<&str>), Rule> {
    let Some(rest) = place.strip_prefix('[') else {
        let colon = place.bytes().position(|byte| byte == b':');
        let (host, port) = match colon.and_then(|at| split_around(place, at)) {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        };
        refuse(port.is_some_and(|port| port.contains(':')), Rule::Colons)?;
        return Ok((check_name(host)?, port));
    };
    let (inside, behind) = rest.split_once(']').ok_or(Rule::Ipv6)?;
    let port = behind.strip_prefix(':');
    refuse(port.is_none() && !behind.is_empty(), Rule::BehindBracket)?;
    refuse(inside.starts_with(['v', 'V']), Rule::FutureAddress)?;
    refuse(inside.contains('%'), Rule::Zone)?;
    let address: Ipv6Addr = inside.parse().map_err(|_| Rule::Ipv6)?;
    let mut rest = Compare(inside);
    let same = fmt::write(&mut rest, format_args!("{address}")).is_ok() && rest.0.is_empty();
    let host = match place.get(..inside.len() + 2) {
        Some(host) if same => Cow::Borrowed(host),
        _ => Cow::Owned(format!("[{address}]")),
    };
    Ok((host, port))
}

/// Compares what is written to it with a text, so that a look for RFC 5952 form needs no buffer.
struct Compare<'a>(&'a str);

impl fmt::Write for Compare<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// Checks a DNS name or a dotted quad and gives it back in lower case.
fn check_name(text: &str) -> Result<Cow<'_, str>, Rule> {
    let (mut label, mut upper_case) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'.' {
            check_label(at - label)?;
            label = at + 1;
        } else if CLASSES[usize::from(byte)] & HOST == 0 {
            return Err(match character_at(text, at) {
                _ if !text.is_ascii() => Rule::HostNotAscii,
                '%' => Rule::HostPercent,
                character => Rule::HostCharacter(character),
            });
        }
        upper_case |= byte.is_ascii_uppercase();
    }
    refuse(text.is_empty(), Rule::HostMissing)?;
    let mut name = text;
    if label == text.len() {
        // One trailing dot is the root label; what stands before it was checked in the loop.
        name = text.strip_suffix('.').unwrap_or(text);
        label = name.rfind('.').map_or(0, |dot| dot + 1);
    }
    check_label(name.len() - label)?;
    refuse(name.len() > MAX_NAME, Rule::LongName(name.len()))?;
    let number = is_number(name.get(label..).unwrap_or_default());
    refuse(number && text.parse::<Ipv4Addr>().is_err(), Rule::Number)?;
    if upper_case {
        return Ok(Cow::Owned(text.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(text))
}

/// Checks the length of one label of a name.
fn check_label(length: usize) -> Result<(), Rule> {
    refuse(length == 0, Rule::EmptyLabel)?;
    refuse(length > MAX_LABEL, Rule::LongLabel(length))
}

/// Whether some parser takes a name with this last label for an IPv4 address: decimal and octal
/// digits, or `0x` and hex digits, of which there may be none.
fn is_number(label: &str) -> bool {
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Checks a port. Leading zeros are refused because some parsers read them as octal.
fn check_port(text: &str) -> Result<u16, UrlError> {
    refuse(text.is_empty(), Rule::PortEmpty)?;
    // What is not a number may be a piece of a password, so it is not quoted.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    refuse(!digits, Rule::PortNotNumber)?;
    match text.parse() {
        Ok(port) if port > 0 && !text.starts_with('0') => Ok(port),
        _ => Err(Rule::Port.of(text)),
    }
}

/// Checks path, query and fragment; gives the path, and the length of path and query.
fn check_tail(text: &str) -> Result<(&str, usize), Rule> {
    let (path, rest) = split_part(text, Part::Path)?;
    let (query, rest) = match rest.strip_prefix('?') {
        Some(query) => split_part(query, Part::Query)?,
        None => ("", rest),
    };
    if let Some(fragment) = rest.strip_prefix('#') {
        split_part(fragment, Part::Fragment)?;
    }
    let mark = usize::from(text.as_bytes().get(path.len()) == Some(&b'?'));
    Ok((path, path.len() + mark + query.len()))
}

/// Checks one part and splits where it ends: a path at `?` or `#`, a query at `#`.
fn split_part(text: &str, part: Part) -> Result<(&str, &str), Rule> {
    let mask = if part == Part::Path { PATH } else { QUERY };
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..) {
        let mut rest = rest.iter();
        let Some(run) = rest.position(|byte| CLASSES[usize::from(*byte)] & mask == 0) else {
            break;
        };
        at += run;
        match bytes.get(at).copied().unwrap_or_default() {
            b'%' if decode_percent(bytes, at).is_some() => at += 3,
            b'%' => return Err(Rule::Percent(part, at)),
            b'?' if part == Part::Path => return Ok(text.split_at(at)),
            b'#' if part != Part::Fragment => return Ok(text.split_at(at)),
            _ => return Err(Rule::Character(part, at, character_at(text, at))),
        }
    }
    Ok((text, ""))
}

/// Turns userinfo into `Basic` credentials (RFC 7617). Nothing of it goes into an error.
fn basic_authorization(userinfo: &str) -> Result<HeaderValue, Rule> {
    refuse(userinfo.is_empty(), Rule::UserinfoEmpty)?;
    let bytes = userinfo.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len() + 1);
    let (mut at, mut in_password) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        let encoded = byte == b'%';
        let value = if encoded {
            decode_percent(bytes, at).ok_or(Rule::UserinfoPercent)?
        } else {
            let allowed = CLASSES[usize::from(byte)] & USERINFO != 0;
            refuse(!allowed, Rule::UserinfoCharacter)?;
            byte
        };
        refuse(value.is_ascii_control(), Rule::UserinfoControl)?;
        // Basic credentials end the user at the first colon, so an encoded one would change it.
        let moved = encoded && value == b':' && !in_password;
        refuse(moved, Rule::UserinfoColon)?;
        in_password |= byte == b':';
        decoded.push(value);
        at += if encoded { 3 } else { 1 };
    }
    if !in_password {
        decoded.push(b':');
    }
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(decoded)))
        .expect("base64 is letters, digits, '+', '/' and '='");
    value.set_sensitive(true);
    Ok(value)
}

/// The byte that the three bytes at `at` stand for, if they are a percent sign and two hex digits.
fn decode_percent(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |offset: usize| char::from(*bytes.get(at + offset)?).to_digit(16);
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

/// Whether a path segment is `.` or `..`, plain or percent-encoded.
fn is_dot_segment(segment: &str) -> bool {
    let behind_dot = |text| {
        let forms = [".", "%2e", "%2E"];
        forms.iter().find_map(|dot| str::strip_prefix(text, dot))
    };
    behind_dot(segment).is_some_and(|rest| rest.is_empty() || behind_dot(rest) == Some(""))
}

/// The text before and behind the ASCII byte at `at`.
fn split_around(text: &str, at: usize) -> Option<(&str, &str)> {
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The character at a byte offset before which all bytes are ASCII.
fn character_at(text: &str, at: usize) -> char {
    let character = text.get(at..).and_then(|rest| rest.chars().next());
    character.unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Checks the length of a whole URL.
fn check_length(length: usize) -> Result<(), Rule> {
    refuse(length > MAX_LENGTH, Rule::TooLong(length))
}

/// An error if the condition holds that the rule forbids.
fn refuse(condition: bool, rule: Rule) -> Result<(), Rule> {
    if condition { Err(rule) } else { Ok(()) }
}

/// The scheme's name.
fn scheme_text(https: bool) -> &'static str {
    if https { "https" } else { "http" }
}

/// The scheme's default port.
fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// Why a URL was refused and what to change. The offending part is quoted in parentheses, unless
/// that could show userinfo or a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UrlError {
    rule: Rule,
    /// The offending part, escaped and cut.
    quote: Option<String>,
}

impl UrlError {
    /// The same error, without its quote if the condition holds.
    fn redacted_if(mut self, condition: bool) -> Self {
        self.quote = self.quote.filter(|_| !condition);
        self
    }
}

impl From<Rule> for UrlError {
    fn from(rule: Rule) -> Self {
        Self { rule, quote: None }
    }
}

impl std::error::Error for UrlError {}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.rule, self.rule.text()) {
            (Rule::TooLong(length), text)
            | (Rule::LongName(length), text)
            | (Rule::LongLabel(length), text) => write!(f, "{text}, not {length}")?,
            (Rule::HostCharacter(character), text) => write!(f, "{text}, not {character:?}")?,
            (Rule::Percent(part, at), text) => {
                write!(f, "{text} (byte {at} of the {})", part.name())?;
            }
            (Rule::Character(part, at, character), text) => {
                write!(
                    f,
                    "the {} has {character:?} at byte {at}; {text} ",
                    part.name()
                )?;
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    write!(f, "%{byte:02X}")?;
                }
            }
            (_, text) => f.write_str(text)?,
        }
        match &self.quote {
            Some(quote) => write!(f, " (\"{quote}\")"),
            None => Ok(()),
        }
    }
}

/// The rule that a URL broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Empty,
    LeadingBlank,
    TooLong(usize),
    Relative,
    SchemeMissing,
    Scheme,
    Slashes,
    HostMissing,
    HostCharacter(char),
    HostNotAscii,
    HostPercent,
    Colons,
    EmptyLabel,
    LongLabel(usize),
    LongName(usize),
    Number,
    Ipv6,
    BehindBracket,
    Zone,
    FutureAddress,
    PortEmpty,
    PortNotNumber,
    Port,
    UserinfoEmpty,
    UserinfoCharacter,
    UserinfoPercent,
    UserinfoControl,
    UserinfoColon,
    LocationUserinfo,
    Character(Part, usize, char),
    Percent(Part, usize),
    Asterisk,
    BaseTail,
    JoinOrigin,
    JoinScheme,
    JoinAuthority,
    DotSegment,
    Unsupported,
}

impl Rule {
    /// The error that quotes the offending part.
    fn of(self, part: &str) -> UrlError {
        let mut quote = String::new();
        for escaped in part.chars().map(char::escape_default) {
            if quote.len() >= MAX_QUOTE {
                quote.push('…');
                break;
            }
            quote.extend(escaped);
        }
        let quote = Some(quote).filter(|quote| !quote.is_empty());
        UrlError { rule: self, quote }
    }

    /// What is wrong and what to change; `Display` adds the values. One line a rule reads best.
    #[rustfmt::skip]
    fn text(self) -> &'static str {
        match self {
            Self::Empty => "the URL is empty; write https://host/path",
            Self::LeadingBlank => "the URL begins with a space or a control byte; remove it",
            Self::TooLong(_) => "the URL is too long; shorten it to at most 65534 bytes",
            Self::Relative => "the URL is relative; it needs a base_url or an absolute URL",
            Self::SchemeMissing => "the URL has no scheme; put http:// or https:// before the host",
            Self::Scheme => "the scheme is not http or https; put http:// or https:// before the host",
            Self::Slashes => "the scheme is not followed by //; write http:// or https://",
            Self::HostMissing => "the host is missing; write it after the ://",
            Self::HostCharacter(_) => "the host may hold letters, digits, '-', '_' and '.'; write only those",
            Self::HostNotAscii => "the host is not ASCII; write its xn-- form",
            Self::HostPercent => "the host is percent-encoded; write it plainly, or in its xn-- form",
            Self::Colons => "the host has more than one colon; put an IPv6 address in brackets",
            Self::EmptyLabel => "the host has an empty label; remove the extra dot",
            Self::LongLabel(_) => "the host has a long label; shorten it to at most 63 bytes",
            Self::LongName(_) => "the host is too long; shorten it to at most 253 bytes",
            Self::Number => "the host ends in a number but is no IPv4 address; write four parts, as in 127.0.0.1",
            Self::Ipv6 => "the host is no IPv6 address in brackets; write it as in [2001:db8::1]",
            Self::BehindBracket => "the host goes on behind its bracket; write only a colon and a port there",
            Self::Zone => "the host has a zone identifier; remove it",
            Self::FutureAddress => "the host is an unknown kind of address; write a name, IPv4 or IPv6",
            Self::PortEmpty => "the port is empty; write it or remove the colon",
            Self::PortNotNumber => "the port is not a number; write 1 to 65535 in digits",
            Self::Port => "the port is out of range; write 1 to 65535 without leading zeros",
            Self::UserinfoEmpty => "the userinfo is empty; remove the '@'",
            Self::UserinfoCharacter => "the userinfo has a reserved character; percent-encode it",
            Self::UserinfoPercent => "the userinfo has '%' without two hex digits; write %25",
            Self::UserinfoControl => "the userinfo has an encoded control byte; remove it",
            Self::UserinfoColon => "the user name has an encoded ':'; Basic credentials need one without",
            Self::LocationUserinfo => "the URL of the redirect holds userinfo",
            Self::Character(..) => "write",
            Self::Percent(..) => "a '%' stands without two hex digits; write %25",
            Self::Asterisk => "the path is not one; begin it with /",
            Self::BaseTail => "the base URL has a query or a fragment; remove it",
            Self::JoinOrigin => "a join can never change the origin; write a URL of base_url's origin or a path",
            Self::JoinScheme => "a join can never change the origin; begin the path with / if the ':' is its own",
            Self::JoinAuthority => "a join can never change the origin; begin the path with a single /",
            Self::DotSegment => "the reference has a '.' or '..' segment; write the path without it",
            Self::Unsupported => "the URL cannot be represented; simplify it",
        }
    }
}

/// A part of a URL behind the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Query,
    Fragment,
}

impl Part {
    /// The part's name in an error.
    fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Fragment => "fragment",
        }
    }
}

/// The longest URL in bytes; the `http` crate can hold no longer one.
const MAX_LENGTH: usize = 65_534;
/// The longest host name in bytes, a trailing dot not counted (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
/// The longest label of a host name in bytes (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;
/// An error quotes about this many characters.
const MAX_QUOTE: usize = 40;

/// May stand in a host name.
const HOST: u8 = 1;
/// May stand in a path as it is.
const PATH: u8 = 2;
/// May stand in a query or a fragment as it is.
const QUERY: u8 = 4;
/// May stand in userinfo as it is.
const USERINFO: u8 = 8;
/// May stand in a label of a host name, which is in lower case.
const LABEL: u8 = 16;

/// Where each byte may stand (RFC 3986 appendix A); `%` is handled apart.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => HOST | PATH | QUERY | USERINFO | LABEL,
            b'A'..=b'Z' | b'.' => HOST | PATH | QUERY | USERINFO,
            b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
            | b':' => PATH | QUERY | USERINFO,
            b'@' | b'/' => PATH | QUERY,
            b'?' => QUERY,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use super::*;
    use http::uri::Scheme;

    /// The two ways to read a host must not differ.
    #[test]
    fn a_quad_is_what_std_reads_as_an_address() {
        let written = (0..=300).flat_map(|number| [format!("{number}"), format!("0{number}")]);
        let odd = ["", "-1", "+1", "0x1", "a", "1a", " 1"].map(str::to_owned);
        for number in written.chain(odd) {
            for text in [
                format!("{number}.0.0.1"),
                format!("1.2.3.{number}"),
                format!("1.2.{number}"),
                format!("1.2.3.4.{number}"),
            ] {
                let expected = text.parse::<Ipv4Addr>().is_ok();
                assert_eq!(quad_end(text.as_bytes()).is_some(), expected, "{text:?}");
            }
        }
    }

    fn text(input: &str) -> Result<Parsed, UrlError> {
        UrlInput::Text(Cow::Borrowed(input)).parse(None)
    }

    fn base(input: &str) -> Target {
        Target::parse_base(input).unwrap().target
    }

    /// Holds an outcome against the canonical URL, or against a piece of the error's text.
    fn compare(input: &str, outcome: &Result<Parsed, UrlError>, expected: Result<&str, &str>) {
        match (outcome, expected) {
            (Ok(parsed), Ok(canonical)) => {
                assert_eq!(parsed.target.uri().to_string(), canonical, "{input:?}");
                let tail = parsed.target.uri().path_and_query().unwrap().as_str();
                assert!(tail.starts_with('/'), "{input:?} has the tail {tail:?}");
            }
            (Err(error), Err(piece)) => {
                let shown = error.to_string();
                assert!(shown.contains(piece), "{input:?}: {shown}");
                assert!(!shown.contains('\n'), "{shown:?}");
                assert!(shown.replace('…', "").is_ascii(), "{shown}");
                assert!(shown.len() < 200, "{shown}");
            }
            (outcome, expected) => panic!("{input:?} gave {outcome:?}, not {expected:?}"),
        }
    }

    /// Runs one input as borrowed text, as owned text, and as a URI where the `http` crate takes it.
    fn check(input: &str, expected: Result<&str, &str>) {
        let borrowed = text(input);
        compare(input, &borrowed, expected);
        compare(
            input,
            &UrlInput::Text(Cow::Owned(input.into())).parse(None),
            expected,
        );
        // The `http` crate drops a fragment unseen, and may take a relative form for a host.
        let same_text = expected.is_ok() || !input.contains('#');
        let uri = input
            .parse::<Uri>()
            .ok()
            .filter(|uri| uri.scheme().is_some());
        if let Some(uri) = uri.filter(|_| same_text) {
            if uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS) {
                compare(input, &UrlInput::Uri(Cow::Owned(uri)).parse(None), expected);
            } else {
                assert!(
                    UrlInput::Uri(Cow::Owned(uri)).parse(None).is_err(),
                    "{input:?}"
                );
            }
        }
        if let Ok(canonical) = expected {
            compare(canonical, &text(canonical), expected);
        }
    }

    #[test]
    fn accepted_urls() {
        for (input, canonical) in [
            ("http://h", "http://h/"),
            ("http://h/", "http://h/"),
            ("https://h/v1/users", "https://h/v1/users"),
            ("HTTPS://h/", "https://h/"),
            ("hTtP://h/A/b", "http://h/A/b"),
            (
                "http://EXAMPLE.com/Path?Query",
                "http://example.com/Path?Query",
            ),
            ("http://h?q", "http://h/?q"),
            ("http://h?", "http://h/?"),
            ("http://h/?", "http://h/?"),
            ("http://h#f", "http://h/"),
            ("http://h/#", "http://h/"),
            ("http://h?q#f", "http://h/?q"),
            ("http://h/a?b#c?d/e", "http://h/a?b"),
            ("http://h/a#b?c", "http://h/a"),
            ("http://h/a?b?c/d:@", "http://h/a?b?c/d:@"),
            ("http://h:8080/", "http://h:8080/"),
            ("http://h:80/", "http://h/"),
            ("https://h:443", "https://h/"),
            ("https://h:80/", "https://h:80/"),
            ("http://h:443/", "http://h:443/"),
            ("http://h:1/", "http://h:1/"),
            ("http://h:65535/", "http://h:65535/"),
            ("http://a_b.example/", "http://a_b.example/"),
            ("http://-a-.b-/", "http://-a-.b-/"),
            (
                "http://xn--bcher-kva.example/",
                "http://xn--bcher-kva.example/",
            ),
            ("http://example.com./", "http://example.com./"),
            ("http://EXAMPLE.com.:81/", "http://example.com.:81/"),
            ("http://127.0.0.1/", "http://127.0.0.1/"),
            ("http://255.255.255.255:8/", "http://255.255.255.255:8/"),
            ("http://0.0.0.0/", "http://0.0.0.0/"),
            ("http://1.example/", "http://1.example/"),
            ("http://0x7f.example/", "http://0x7f.example/"),
            ("http://1.2.3.4.a5/", "http://1.2.3.4.a5/"),
            ("http://1.2.3.4a/", "http://1.2.3.4a/"),
            ("http://0xg/", "http://0xg/"),
            ("http://[::1]/", "http://[::1]/"),
            ("http://[::]:80/", "http://[::]/"),
            (
                "https://[2001:db8::1]:8443/x",
                "https://[2001:db8::1]:8443/x",
            ),
            ("http://[2001:DB8::A]/", "http://[2001:db8::a]/"),
            ("http://[2001:0db8:0:0:0:0:0:1]/", "http://[2001:db8::1]/"),
            ("http://[1:2:3:4:5:6:7:8]:9/", "http://[1:2:3:4:5:6:7:8]:9/"),
            ("http://[::ffff:1.2.3.4]/", "http://[::ffff:1.2.3.4]/"),
            ("http://[::ffff:102:304]/", "http://[::ffff:1.2.3.4]/"),
            ("http://[1:0:0:2:0:0:0:3]/", "http://[1:0:0:2::3]/"),
            ("http://h/%5B%5d%00%ff", "http://h/%5B%5d%00%ff"),
            ("http://h/-._~!$&'()*+,;=:@/", "http://h/-._~!$&'()*+,;=:@/"),
            (
                "http://h/?-._~!$&'()*+,;=:@/?",
                "http://h/?-._~!$&'()*+,;=:@/?",
            ),
            ("http://h//a//", "http://h//a//"),
            ("http://h/a/../b/./c", "http://h/a/../b/./c"),
            ("http://h/http://other/", "http://h/http://other/"),
            ("http://h/@me", "http://h/@me"),
            ("http://h?a@b", "http://h/?a@b"),
            ("http://h/*", "http://h/*"),
            ("http://user:pass@h/", "http://h/"),
            ("http://user@H:80/a?b#c", "http://h/a?b"),
            ("http://:token@h", "http://h/"),
            ("http://%75:%40%3A@[::1]:8/", "http://[::1]:8/"),
        ] {
            check(input, Ok(canonical));
        }
    }

    #[test]
    fn refused_schemes_and_relative_forms() {
        for (input, piece) in [
            ("", "the URL is empty"),
            ("*", "begin it with /"),
            ("/users", "needs a base_url or an absolute URL"),
            ("users", "needs a base_url or an absolute URL"),
            ("?q", "needs a base_url or an absolute URL"),
            ("//h/x", "needs a base_url or an absolute URL"),
            ("example.com/x", "needs a base_url or an absolute URL"),
            (
                "ftp://h/",
                "put http:// or https:// before the host (\"ftp\")",
            ),
            (
                "localhost:8080/x",
                "put http:// or https:// before the host (\"localhost\")",
            ),
            ("javascript:alert(1)", "(\"javascript\")"),
            ("httpss://h/", "(\"httpss\")"),
            ("http+unix://h/", "(\"http+unix\")"),
            ("://h/", "scheme"),
            (":80", "scheme"),
            ("http:evil.com", "not followed by //"),
            ("http:/evil.com", "not followed by //"),
            ("https:\\\\evil.com", "not followed by //"),
            ("http:", "not followed by //"),
            ("http", "needs a base_url"),
            (" http://h/", "begins with a space"),
            ("\thttp://h/", "begins with a space"),
            ("\u{0}", "begins with a space"),
            ("ht tp://h/", "(\"ht tp\")"),
            ("h\u{e9}://h/", "(\"h\\u{e9}\")"),
        ] {
            check(input, Err(piece));
        }
    }

    #[test]
    fn refused_hosts() {
        let long_label = format!("http://{}/", "a".repeat(64));
        let long_name = format!("http://{}/", vec!["a".repeat(50); 5].join("."));
        for (input, piece) in [
            ("http://", "the host is missing"),
            ("http:///x", "the host is missing"),
            ("http://?q", "the host is missing"),
            ("http://#f", "the host is missing"),
            ("http://:80/", "the host is missing"),
            ("http://u:p@/", "the host is missing"),
            ("http://u:p@:80/", "the host is missing"),
            ("http://./", "empty label"),
            ("http://../", "empty label"),
            ("http://.h/", "remove the extra dot (\".h\")"),
            ("http://a..b/", "remove the extra dot (\"a..b\")"),
            ("http://a../", "empty label"),
            (
                &long_label,
                "at most 63 bytes, not 64 (\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…\")",
            ),
            (&long_name, "at most 253 bytes, not 254"),
            ("http://*/", "not '*'"),
            ("http://*.h/", "not '*'"),
            ("http://a b/", "not ' ' (\"a b\")"),
            ("http://h /", "not ' '"),
            ("http://a\tb/", "not '\\t'"),
            ("http://h\r\nX: y/", "not '\\r'"),
            ("http://h\u{0}/", "not '\\0'"),
            ("http://h\\evil.com/", "not '\\\\'"),
            ("http://a<b/", "not '<'"),
            ("http://a,b/", "not ','"),
            ("http://a~b/", "not '~'"),
            ("http://a[b/", "not '['"),
            ("http://a]/", "not ']'"),
            ("http://%65vil.com/", "percent-encoded"),
            ("http://a%2eb/", "percent-encoded"),
            (
                "http://b\u{fc}cher.example/",
                "write its xn-- form (\"b\\u{fc}cher.example\")",
            ),
            ("http://a\u{3002}b/", "xn--"),
            ("http://a%\u{fc}/", "xn--"),
            (
                "http://127.1/",
                "write four parts, as in 127.0.0.1 (\"127.1\")",
            ),
            ("http://0x7f.1/", "four parts"),
            ("http://0x7f000001/", "four parts"),
            ("http://0X7F/", "four parts"),
            ("http://0x/", "four parts"),
            ("http://a.0x/", "four parts"),
            ("http://2130706433/", "four parts"),
            ("http://0177.0.0.1/", "four parts"),
            ("http://1.2.3.4./", "four parts"),
            ("http://1.2.3.256/", "four parts"),
            ("http://1.2.3.04/", "four parts"),
            ("http://1.2.3.4.5/", "four parts"),
            ("http://1.2.3/", "four parts"),
            ("http://example.1/", "four parts"),
            ("http://0/", "four parts"),
            ("http://::1/", "put an IPv6 address in brackets"),
            ("http://h:80:90/", "put an IPv6 address in brackets"),
            ("http://[::1/", "no IPv6 address in brackets"),
            ("http://[]/", "no IPv6 address in brackets"),
            ("http://[1.2.3.4]/", "no IPv6 address in brackets"),
            ("http://[example]/", "no IPv6 address in brackets"),
            ("http://[::1::]/", "no IPv6 address in brackets"),
            ("http://[12345::]/", "no IPv6 address in brackets"),
            ("http://[ ::1]/", "no IPv6 address in brackets"),
            (
                "http://[fe80::1%25eth0]/",
                "zone identifier; remove it (\"[fe80::1%25eth0]\")",
            ),
            ("http://[fe80::1%eth0]/", "zone identifier"),
            ("http://[v1.x]/", "unknown kind of address"),
            ("http://[::1]x/", "behind its bracket"),
            ("http://[::1]]/", "behind its bracket"),
        ] {
            check(input, Err(piece));
        }
    }

    #[test]
    fn refused_ports_and_userinfo() {
        for (input, piece) in [
            ("http://h:/", "the port is empty"),
            ("http://[::1]:", "the port is empty"),
            (
                "http://h:0/",
                "write 1 to 65535 without leading zeros (\"0\")",
            ),
            ("http://h:65536/", "(\"65536\")"),
            ("http://h:99999999999999999999/", "out of range"),
            ("http://h:0080/", "without leading zeros"),
            (
                "http://h:8a/",
                "the port is not a number; write 1 to 65535 in digits",
            ),
            ("http://h:+80/", "not a number"),
            ("http://h:-1/", "not a number"),
            ("http://h: 80/", "not a number"),
            ("http://h:\u{661}/", "not a number"),
            ("http://@h/", "remove the '@'"),
            ("http://a@b@h/", "reserved character"),
            ("http://a:b@evil@h/", "reserved character"),
            ("http://a b@h/", "reserved character"),
            ("http://a\\@h/", "reserved character"),
            ("http://a[@h/", "reserved character"),
            ("http://\u{e9}@h/", "reserved character"),
            ("http://a%@h/", "write %25"),
            ("http://a%4@h/", "write %25"),
            ("http://a%zz:b@h/", "write %25"),
            ("http://a%0D%0Ab@h/", "control byte"),
            ("http://a:%00@h/", "control byte"),
            ("http://a:%7f@h/", "control byte"),
            ("http://a%3Ab:c@h/", "without"),
            ("http://a%3ab@h/", "without"),
        ] {
            check(input, Err(piece));
        }
    }

    #[test]
    fn refused_paths_queries_and_fragments() {
        for (input, piece) in [
            ("http://h/a[b", "the path has '[' at byte 2; write %5B"),
            ("http://h/]", "write %5D"),
            ("http://h/a b", "the path has ' ' at byte 2; write %20"),
            ("http://h/ ", "write %20"),
            (
                "http://h/\\..\\x",
                "the path has '\\\\' at byte 1; write %5C",
            ),
            ("http://h/\"", "write %22"),
            ("http://h/<", "write %3C"),
            ("http://h/>", "write %3E"),
            ("http://h/^", "write %5E"),
            ("http://h/`", "write %60"),
            ("http://h/{id}", "write %7B"),
            ("http://h/|", "write %7C"),
            ("http://h/}", "write %7D"),
            ("http://h/\r\n", "the path has '\\r' at byte 1; write %0D"),
            ("http://h/\u{7f}", "write %7F"),
            (
                "http://h/%",
                "a '%' stands without two hex digits; write %25 (byte 1 of the path)",
            ),
            ("http://h/%4", "write %25"),
            ("http://h/%g0", "write %25"),
            ("http://h/%0g", "write %25"),
            ("http://h/%+1", "write %25"),
            ("http://h/a?b[]=1", "the query has '[' at byte 1; write %5B"),
            ("http://h?a b", "the query has ' ' at byte 1; write %20"),
            ("http://h?\\", "write %5C"),
            ("http://h?{", "write %7B"),
            ("http://h?%4x", "(byte 0 of the query)"),
            ("http://h?a\nb", "write %0A"),
            ("http://h/#a b", "the fragment has ' ' at byte 1"),
            ("http://h/#a#b", "the fragment has '#' at byte 1; write %23"),
            ("http://h/#%", "(byte 0 of the fragment)"),
        ] {
            check(input, Err(piece));
        }
        // A non-ASCII character is named as it is written, so the text of these errors is not ASCII.
        for input in [
            "http://h/caf\u{e9}",
            "http://h?caf\u{e9}",
            "http://h#caf\u{e9}",
        ] {
            assert!(
                text(input)
                    .unwrap_err()
                    .to_string()
                    .ends_with("; write %C3%A9")
            );
        }
        let uri = Uri::try_from("http://h/caf\u{e9}").unwrap();
        assert!(UrlInput::Uri(Cow::Owned(uri)).parse(None).is_err());
    }

    #[test]
    fn length_limit() {
        let fitting = format!("http://h/{}", "a".repeat(MAX_LENGTH - 9));
        check(&fitting, Ok(&fitting));
        let long = format!("{fitting}a");
        check(&long, Err("at most 65534 bytes, not 65535"));
        // The slash that a bare query needs counts too.
        let query = format!("http://h?{}", "a".repeat(MAX_LENGTH - 9));
        check(&query, Err("at most 65534 bytes, not 65535"));
        let name = format!("http://{}/", vec!["a".repeat(49); 5].join(".") + ".abc");
        assert_eq!(name.len(), 8 + MAX_NAME);
        check(&name, Ok(&name));
        let dotted = name.replace(".abc/", ".abc./");
        check(&dotted, Ok(&dotted));
        let label = format!("http://{}/", "a".repeat(MAX_LABEL));
        check(&label, Ok(&label));
        let joined = base(&fitting);
        let error = UrlInput::Text("b".into()).parse(Some(&joined)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the URL is too long; shorten it to at most 65534 bytes, not 65536"
        );
    }

    #[test]
    fn uris_that_only_a_builder_makes() {
        let build = |scheme: &str, authority: &str, path: &str| {
            let builder = Uri::builder().scheme(scheme).authority(authority);
            UrlInput::Uri(Cow::Owned(builder.path_and_query(path).build().unwrap())).parse(None)
        };
        compare("HTTP", &build("HTTP", "H", "/x"), Ok("http://h/x"));
        compare("HTTPS", &build("HTTPS", "u:p@h", "?q"), Ok("https://h/?q"));
        compare("star", &build("http", "h", "*"), Err("begin it with /"));
        compare("ws", &build("ws", "h", "/"), Err("(\"ws\")"));
        compare(
            "asterisk form",
            &UrlInput::Uri(Cow::Owned("*".parse().unwrap())).parse(None),
            Err("begin it"),
        );
        for authority_form in ["h", "h:80", "u:p@h:80"] {
            let uri = UrlInput::Uri(Cow::Owned(authority_form.parse().unwrap()));
            compare(
                authority_form,
                &uri.parse(Some(&base("http://h"))),
                Err("has no scheme"),
            );
        }
        let path = UrlInput::Uri(Cow::Owned("/x?y".parse().unwrap()));
        compare("/x?y", &path.parse(None), Err("needs a base_url"));
    }

    #[test]
    fn parts_of_a_target() {
        let target = text("https://H.example.:8443/a/b?c=d").unwrap().target;
        assert_eq!((target.host(), target.port()), ("h.example.", 8443));
        assert_eq!(target.host_field(), "h.example.:8443");
        assert_eq!(target.path_and_query(), "/a/b?c=d");
        assert!(target.is_https());
        assert_eq!(format!("{target:?}"), "https://h.example.:8443/a/b?…");
        assert_eq!(target.into_uri(), "https://h.example.:8443/a/b?c=d");

        let target = text("http://[::0001]:80?").unwrap().target;
        assert_eq!((target.host(), target.port()), ("::1", 80));
        assert_eq!(target.host_field(), "[::1]");
        assert_eq!(target.path_and_query(), "/?");
        assert!(!target.is_https());

        let target = text("https://[2001:db8::1]:444").unwrap().target;
        assert_eq!(target.host_field(), "[2001:db8::1]:444");
        assert_eq!(target.path_and_query(), "/");
        assert_eq!(format!("{target:?}"), "https://[2001:db8::1]:444/");
    }

    #[test]
    fn origins() {
        let origin = |url: &str| text(url).unwrap().target.origin();
        for (url, shown) in [
            ("HTTPS://Example.com:443/a?b", "https://example.com"),
            ("http://h:8080/", "http://h:8080"),
            ("http://h:443/", "http://h:443"),
            ("http://h./", "http://h."),
            ("http://[0::1]:81/", "http://[::1]:81"),
            ("https://[::1]/", "https://[::1]"),
        ] {
            assert_eq!(origin(url).to_string(), shown);
            assert_eq!(format!("{:?}", origin(url)), shown);
        }
        let parts = origin("https://[::1]/");
        assert_eq!(
            (parts.scheme(), parts.host(), parts.port()),
            ("https", "::1", 443)
        );
        assert!(parts.is_https());
        assert_eq!(origin("http://H/a"), origin("http://u:p@h:80/b"));
        let others = [
            "https://h",
            "http://h:81",
            "http://h.",
            "http://g",
            "http://hh",
        ];
        let here = text("http://h/").unwrap().target;
        for other in others {
            assert_ne!(origin("http://h"), origin(other));
            assert!(!here.same_origin(&text(other).unwrap().target));
        }
        assert!(here.same_origin(&text("HTTP://H:80/x").unwrap().target));
        assert!(origin("http://a") < origin("http://b"));
    }

    #[test]
    fn userinfo_becomes_basic_credentials() {
        for (userinfo, decoded) in [
            ("user:pass", &b"user:pass"[..]),
            ("user", b"user:"),
            ("user:", b"user:"),
            (":token", b":token"),
            (":", b":"),
            ("a%20b:%2F%40%3a", b"a b:/@:"),
            ("a:b:c", b"a:b:c"),
            ("%C3%A9:%ff", b"\xc3\xa9:\xff"),
        ] {
            let expected = format!("Basic {}", STANDARD.encode(decoded));
            let url = format!("http://{userinfo}@h/x");
            let uri = url.parse().unwrap();
            for input in [UrlInput::Text(url.into()), UrlInput::Uri(Cow::Owned(uri))] {
                let parsed = input.parse(None).unwrap();
                let value = parsed.authorization.unwrap();
                assert_eq!(value.to_str().unwrap(), expected);
                assert!(value.is_sensitive());
                assert_eq!(parsed.target.uri(), "http://h/x");
            }
        }
        assert_eq!(text("http://h/").unwrap().authorization, None);
    }

    /// No text that this file makes shows userinfo or a query, whatever is wrong with the URL.
    #[test]
    fn userinfo_and_queries_never_show() {
        let http = base("http://h/v1");
        for url in [
            "http://s3cret:s3cret@h/",
            "http://s3cret@h:8/a",
            "http://s3cret:s3cret@a..b/",
            "http://s3cret:s3cret@127.1/",
            "http://s3cret:s3cret@h:0/",
            "http://s3cret:s3cret@h:s3cret/",
            "http://s3cret:s3cret@[::g]/",
            "http://s3cret s3cret@h/",
            "http://s3cret%3As3cret@h/",
            "http://s3cret@s3cret@h/",
            "http://h..x:s3cret#@h/",
            "http://s3cret..x/@h/",
            "http://s3cret..:s3cret?@h/",
            "http://h:s3cret/x@h/",
            "http://h:s3cret",
            "http:s3cret:s3cret@h/",
            "s3cret:s3cret@h/",
            "s3cret://s3cret@h/",
            "//s3cret:s3cret@h/",
            "ftp://s3cret:s3cret@h/",
            "https://s3cret:s3cret@other/",
            "http://h/?s3cret",
            "http://h/?s3cret[",
            "http://h/?s3cret%",
            "http://a..b/?s3cret",
            "?s3cret",
            "?s3cret%",
            "a/../b?s3cret",
            "http://h/#s3cret",
        ] {
            for base in [None, Some(&http)] {
                let uri = url.parse().ok().map(Cow::Owned).map(UrlInput::Uri);
                for input in std::iter::once(UrlInput::Text(url.into())).chain(uri) {
                    let outcome = input.parse(base);
                    let mut shown = format!("{outcome:?}");
                    match outcome {
                        Ok(parsed) => shown += &format!("{}", parsed.target.origin()),
                        Err(error) => shown += &error.to_string(),
                    }
                    assert!(!shown.contains("s3cret"), "{url} shows as {shown}");
                }
            }
        }
        let uri = text("http://s3cret:s3cret@h/").unwrap().target.into_uri();
        assert_eq!(uri.to_string(), "http://h/");
    }

    #[test]
    fn joins() {
        let refused = "a join can never change the origin";
        for (base_url, reference, expected) in [
            ("https://h/v1", "users", Ok("https://h/v1/users")),
            ("https://h/v1", "/users", Ok("https://h/v1/users")),
            ("https://h/v1/", "users", Ok("https://h/v1/users")),
            ("https://h/v1/", "/users", Ok("https://h/v1/users")),
            ("https://h", "users", Ok("https://h/users")),
            ("https://h/", "/users/", Ok("https://h/users/")),
            ("https://H:8443/v1", "a//b", Ok("https://h:8443/v1/a//b")),
            ("https://[::1]/v1", "a", Ok("https://[::1]/v1/a")),
            ("https://h/v1", "", Ok("https://h/v1")),
            ("https://h/v1/", "", Ok("https://h/v1/")),
            ("https://h/v1", "/", Ok("https://h/v1/")),
            ("https://h/v1", "#top", Ok("https://h/v1")),
            ("https://h/v1", "?a=b", Ok("https://h/v1?a=b")),
            ("https://h/v1/", "?a=b", Ok("https://h/v1/?a=b")),
            ("https://h", "?a=b#c", Ok("https://h/?a=b")),
            ("https://h/v1", "users?", Ok("https://h/v1/users?")),
            (
                "https://h/v1",
                "users?a=../b//c#d",
                Ok("https://h/v1/users?a=../b//c"),
            ),
            (
                "https://h/v1",
                "/users:batch",
                Ok("https://h/v1/users:batch"),
            ),
            ("https://h/v1", "a/b:c", Ok("https://h/v1/a/b:c")),
            ("https://h/v1", "@evil", Ok("https://h/v1/@evil")),
            ("https://h", ".evil", Ok("https://h/.evil")),
            ("https://h/v1", "...", Ok("https://h/v1/...")),
            ("https://h/v1", "a%2eb/..c", Ok("https://h/v1/a%2eb/..c")),
            ("https://h/v1", "https://h/other?x", Ok("https://h/other?x")),
            ("https://h/v1", "HTTPS://H:443", Ok("https://h/")),
            ("https://h/v1", "https://u:p@h/", Ok("https://h/")),
            ("https://h/v1", "http://h/", Err(refused)),
            ("https://h/v1", "https://evil/", Err(refused)),
            ("https://h/v1", "https://h.evil/", Err(refused)),
            ("https://h/v1", "https://h./", Err(refused)),
            ("https://h/v1", "https://h:444/", Err(refused)),
            ("https://h/v1", "https://h@evil/", Err(refused)),
            ("https://h/v1", "//evil", Err(refused)),
            ("https://h/v1", "///evil", Err(refused)),
            ("https://h/v1", "\\\\evil", Err(refused)),
            ("https://h/v1", "/\\evil", Err("write %5C")),
            ("https://h/v1", "ftp://h/", Err("(\"ftp\")")),
            ("https://h/v1", "users:batch", Err("begin the path with /")),
            ("https://h/v1", "https:evil", Err("not followed by //")),
            ("https://h/v1", "https:/evil", Err("not followed by //")),
            ("https://h/v1", "https:///evil", Err("the host is missing")),
            ("https://h/v1", "*", Err("begin it with /")),
            ("https://h/v1", " users", Err("begins with a space")),
            ("https://h/v1", "a b", Err("write %20")),
            (
                "https://h/v1",
                "a?b[",
                Err("the query has '[' at byte 1; write %5B"),
            ),
            ("https://h/v1", ".", Err("'.' or '..' segment")),
            ("https://h/v1", "..", Err("'.' or '..' segment")),
            ("https://h/v1", "../v2", Err("'.' or '..' segment")),
            ("https://h/v1", "/../v2", Err("'.' or '..' segment")),
            ("https://h/v1", "a/..", Err("'.' or '..' segment")),
            ("https://h/v1", "a/./b?c", Err("'.' or '..' segment")),
            ("https://h/v1", "%2e%2E/x", Err("'.' or '..' segment")),
            ("https://h/v1", "a/.%2e", Err("'.' or '..' segment")),
            ("https://h/v1", "%2e", Err("'.' or '..' segment")),
        ] {
            let base = base(base_url);
            let outcome = UrlInput::Text(reference.into()).parse(Some(&base));
            compare(reference, &outcome, expected);
            if let Ok(parsed) = outcome {
                assert_eq!(parsed.target.origin(), base.origin());
            }
            // As a URI a bare word is a host, so only these forms can say the same.
            let uri = reference.parse::<Uri>().ok();
            let uri = uri.filter(|_| reference.starts_with('/') || reference.contains("://"));
            if let Some(uri) = uri.filter(|_| !reference.contains("ftp")) {
                let outcome = UrlInput::Uri(Cow::Owned(uri)).parse(Some(&base));
                compare(reference, &outcome, expected);
            }
        }
    }

    #[test]
    fn bases() {
        for refused in [
            "https://h/v1?",
            "https://h/?a",
            "https://h#",
            "https://h/v1#a",
        ] {
            let error = Target::parse_base(refused).unwrap_err().to_string();
            assert_eq!(error, "the base URL has a query or a fragment; remove it");
        }
        assert!(Target::parse_base("/v1").is_err());
        assert!(Target::parse_base("").is_err());
        let with_user = Target::parse_base("https://u:p@h/v1").unwrap();
        assert_eq!(with_user.target.uri(), "https://h/v1");
        assert!(with_user.authorization.is_some());
    }

    /// A good `&Uri` keeps its bytes: host and path of the outcome lie where the caller's lie.
    #[test]
    fn a_good_uri_is_not_copied() {
        for good in [
            "http://example.com/",
            "https://h:8443/a/b?c=d",
            "http://127.0.0.1:3000/x",
            "https://[2001:db8::1]:444/x?y",
            "https://example.com./%7Ea",
        ] {
            let uri: Uri = good.parse().unwrap();
            let target = sealed::Sealed::into_url_input(&uri)
                .parse(None)
                .unwrap()
                .target;
            assert_eq!(
                target.uri().host().unwrap().as_ptr(),
                uri.host().unwrap().as_ptr()
            );
            assert_eq!(target.uri().path().as_ptr(), uri.path().as_ptr());
        }
        // The comparison can fail: a host in upper case has to be written anew.
        let uri: Uri = "http://EXAMPLE.com/".parse().unwrap();
        let target = sealed::Sealed::into_url_input(&uri)
            .parse(None)
            .unwrap()
            .target;
        assert_ne!(
            target.uri().host().unwrap().as_ptr(),
            uri.host().unwrap().as_ptr()
        );
    }

    #[test]
    fn every_form_of_input() {
        fn parse(url: impl IntoUrl) -> Uri {
            url.into_url_input().parse(None).unwrap().target.into_uri()
        }
        let (string, uri) = (String::from("http://h/a"), Uri::from_static("http://h/a"));
        assert_eq!(parse("http://h/a"), uri);
        assert_eq!(parse(&string), uri);
        assert_eq!(parse(string), uri);
        assert_eq!(parse(&uri), uri);
        assert_eq!(parse(uri.clone()), uri);
    }

    /// Every single byte in every place gives an outcome, and what is accepted parses to itself.
    #[test]
    fn any_byte_anywhere() {
        let pattern = "http://u:p@h.x:8/a?b#c";
        let mut accepted = 0;
        for at in 0..=pattern.len() {
            for byte in 0..=255_u8 {
                let mut url = String::from(pattern);
                url.insert(at, char::from(byte));
                if let Ok(parsed) = text(&url) {
                    accepted += 1;
                    let once = parsed.target.uri().to_string();
                    let again = text(&once).unwrap();
                    assert_eq!(again.target.uri().to_string(), once);
                    assert_eq!(again.target.origin(), parsed.target.origin());
                    assert!(again.authorization.is_none());
                }
            }
        }
        assert!(accepted > 500, "{accepted}");
    }
}
