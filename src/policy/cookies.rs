//! Cookies as a client without scripts and windows keeps them (RFC 6265bis sections 5.5 to 5.8, security C1).
//!
//! Pure: the time is an argument, and whoever shares a store puts a lock around it. What the RFC leaves to the user agent is decided
//! against the server: a public suffix sets nothing for others, an address sets nothing by domain, and every number has a
//! limit. `SameSite` and `HttpOnly` protect from scripts and other pages, of which there are none here; they are read over.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;

use http::Uri;

/// All cookies that one client keeps.
#[derive(Default)]
pub(crate) struct Cookies {
    domains: HashMap<Box<str>, Vec<Cookie>>,
    count: usize,
    /// Grows with each cookie that is set or sent, so that the ones used last are known.
    ticks: u64,
}

struct Cookie {
    name: Box<[u8]>,
    value: Box<[u8]>,
    path: Box<str>,
    /// Sent to the host that set it, and to none below.
    host_only: bool,
    secure: bool,
    /// In seconds since 1970; `None` lasts as long as the store.
    expires: Option<u64>,
    created: u64,
    used: Cell<u64>,
}

/// The parts of a URL that matter.
struct Place<'a> {
    host: &'a str,
    path: &'a str,
    https: bool,
}

impl<'a> Place<'a> {
    fn of(url: &'a Uri) -> Self {
        let host = url.host().unwrap_or_default();
        let address = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        Self {
            host: address.unwrap_or(host),
            path: url.path(),
            https: url.scheme() == Some(&http::uri::Scheme::HTTPS),
        }
    }

    fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

impl Cookies {
    /// Keeps what a Set-Cookie field of a response from `url` says, if it may.
    pub(crate) fn set(&mut self, url: &Uri, field: &[u8], now: u64) {
        let place = Place::of(url);
        let Some((domain, cookie)) = read(&place, field, now) else {
            return;
        };
        if !cookie.secure && !place.https && self.would_shadow(&domain, &cookie) {
            return;
        }
        self.put(domain, cookie, now);
    }

    /// What Cookie says to `url`: longer paths first, then older cookies first.
    pub(crate) fn for_request(&mut self, url: &Uri, now: u64) -> Option<Vec<u8>> {
        let place = Place::of(url);
        self.ticks += 1;
        let mut found: Vec<&Cookie> = Vec::new();
        let mut next = Some(place.host);
        while let Some(domain) = next {
            let is_host = domain.len() == place.host.len();
            let cookies = self.domains.get(domain).into_iter().flatten();
            found.extend(cookies.filter(|cookie| {
                (is_host || !cookie.host_only)
                    && (place.https || !cookie.secure)
                    && path_matches(place.path, &cookie.path)
                    && cookie.expires.is_none_or(|expires| expires > now)
            }));
            let above = domain.split_once('.').map(|(_, above)| above);
            next = above.filter(|_| !place.is_address());
        }
        found.sort_by(|one, other| {
            let by_path = other.path.len().cmp(&one.path.len());
            by_path.then(one.created.cmp(&other.created))
        });
        let mut value = Vec::new();
        for cookie in found.into_iter().take(MAX_SENT) {
            let between = if value.is_empty() { 0 } else { 2 };
            let len = cookie.name.len() + 1 + cookie.value.len() + between;
            if value.len() + len > MAX_SENT_BYTES {
                continue;
            }
            cookie.used.set(self.ticks);
            if between > 0 {
                value.extend_from_slice(b"; ");
            }
            value.extend_from_slice(&cookie.name);
            if !cookie.name.is_empty() {
                value.push(b'=');
            }
            value.extend_from_slice(&cookie.value);
        }
        (!value.is_empty()).then_some(value)
    }

    /// A cookie that was set over http must not stand in for one that was set securely.
    fn would_shadow(&self, domain: &str, cookie: &Cookie) -> bool {
        self.domains.iter().any(|(other, cookies)| {
            let related = **other == *domain
                || domain_matches(other, domain)
                || domain_matches(domain, other);
            related
                && cookies.iter().any(|known| {
                    known.secure
                        && known.name == cookie.name
                        && path_matches(&cookie.path, &known.path)
                })
        })
    }

    fn put(&mut self, domain: Box<str>, mut cookie: Cookie, now: u64) {
        self.ticks += 1;
        cookie.created = self.ticks;
        cookie.used.set(self.ticks);
        let cookies = self.domains.entry(domain.clone()).or_default();
        let same = cookies.iter().position(|known| {
            known.name == cookie.name
                && known.path == cookie.path
                && known.host_only == cookie.host_only
        });
        if let Some(same) = same {
            // It keeps its place in the order.
            cookie.created = cookies.swap_remove(same).created;
            self.count -= 1;
        }
        if cookie.expires.is_none_or(|expires| expires > now) {
            cookies.push(cookie);
            self.count += 1;
            if cookies.len() > MAX_OF_DOMAIN {
                self.count -= evict(cookies, now);
            }
        }
        if cookies.is_empty() {
            self.domains.remove(&domain);
        }
        if self.count > MAX_COOKIES {
            self.shrink(now);
        }
    }

    /// Drops what has expired, or else the cookie that was used longest ago.
    fn shrink(&mut self, now: u64) {
        let is_live = |cookie: &Cookie| cookie.expires.is_none_or(|expires| expires > now);
        for cookies in self.domains.values_mut() {
            cookies.retain(is_live);
        }
        self.count = self.domains.values().map(Vec::len).sum();
        if self.count > MAX_COOKIES {
            let all = self.domains.values_mut();
            let oldest =
                all.min_by_key(|cookies| cookies.iter().map(|cookie| cookie.used.get()).min());
            if let Some(cookies) = oldest {
                self.count -= evict(cookies, now);
            }
        }
        self.domains.retain(|_, cookies| !cookies.is_empty());
    }
}

/// Drops one cookie of a domain: one that has expired, else the one used longest ago, and one without Secure before one with it.
fn evict(cookies: &mut Vec<Cookie>, now: u64) -> usize {
    let worst = (0..cookies.len()).min_by_key(|at| {
        cookies.get(*at).map(|cookie| {
            let is_live = cookie.expires.is_none_or(|expires| expires > now);
            (is_live, cookie.secure, cookie.used.get())
        })
    });
    match worst {
        Some(worst) => {
            cookies.swap_remove(worst);
            1
        }
        None => 0,
    }
}

/// The cookie that a field sets, and its domain; `None` if it sets none.
fn read(place: &Place<'_>, field: &[u8], now: u64) -> Option<(Box<str>, Cookie)> {
    if field
        .iter()
        .any(|byte| byte.is_ascii_control() && *byte != b'\t')
    {
        return None;
    }
    let mut parts = field.split(|byte| *byte == b';');
    let pair = parts.next()?;
    let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (pair.get(..at)?, pair.get(at + 1..)?),
        None => (&b""[..], pair),
    };
    let (name, value) = (name.trim_ascii(), value.trim_ascii());
    if name.is_empty() && value.is_empty() {
        return None;
    }
    let attributes = Attributes::read(parts, now);
    let (domain, host_only) = owner(place, attributes.domain.as_deref())?;
    let path = attributes.path.filter(|path| path.starts_with('/'));
    let is_root = path.as_deref() == Some("/");
    if attributes.secure && !place.https {
        return None;
    }
    // A value without a name is sent as if it were one.
    let begins = |prefix: &[u8]| {
        let begins = |text: &[u8]| {
            text.get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        begins(name) || (name.is_empty() && begins(value))
    };
    let is_nameless = name.is_empty();
    if begins(b"__Secure-") && (is_nameless || !attributes.secure) {
        return None;
    }
    if begins(b"__Host-") && (is_nameless || !attributes.secure || !host_only || !is_root) {
        return None;
    }
    let cookie = Cookie {
        name: name.into(),
        value: value.into(),
        path: path
            .unwrap_or_else(|| default_path(place.path).to_owned())
            .into(),
        host_only,
        secure: attributes.secure,
        expires: attributes.max_age.or(attributes.expires),
        created: 0,
        used: Cell::new(0),
    };
    Some((domain, cookie))
}

/// For whom a host may set a cookie with this Domain attribute: the domain, and whether hosts below are left out.
fn owner(place: &Place<'_>, attribute: Option<&str>) -> Option<(Box<str>, bool)> {
    let for_host = Some((Box::from(place.host), true));
    let Some(attribute) = attribute.filter(|attribute| !attribute.is_empty()) else {
        return for_host;
    };
    let domain = attribute.strip_prefix('.').unwrap_or(attribute);
    let domain = domain
        .strip_suffix('.')
        .unwrap_or(domain)
        .to_ascii_lowercase();
    if place.is_address() || domain.is_empty() || !domain.is_ascii() {
        return None;
    }
    let suffix = psl::suffix(domain.as_bytes());
    if suffix.is_none_or(|suffix| suffix.as_bytes() == domain.as_bytes()) {
        // Whoever is a public suffix itself keeps the cookie to itself.
        return for_host.filter(|_| domain == place.host);
    }
    let matches = domain == place.host || domain_matches(place.host, &domain);
    matches.then(|| (domain.into(), false))
}

/// What the attributes say; of several of one name the last counts.
#[derive(Default)]
struct Attributes {
    domain: Option<String>,
    path: Option<String>,
    secure: bool,
    /// Seconds since 1970, as is `expires`; it wins.
    max_age: Option<u64>,
    expires: Option<u64>,
}

impl Attributes {
    fn read<'a>(parts: impl Iterator<Item = &'a [u8]>, now: u64) -> Self {
        let mut read = Self::default();
        let latest = now.saturating_add(MAX_AGE);
        for part in parts {
            let at = part.iter().position(|byte| *byte == b'=');
            let (name, value) = part.split_at(at.unwrap_or(part.len()));
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if value.len() > MAX_ATTRIBUTE {
                continue;
            }
            let text = || String::from_utf8_lossy(value).into_owned();
            match name.trim_ascii().to_ascii_lowercase().as_slice() {
                b"domain" => read.domain = Some(text()),
                b"path" => read.path = Some(text()),
                b"secure" => read.secure = true,
                b"max-age" => {
                    if let Some(age) = seconds(value) {
                        let end = if age == 0 { 0 } else { now.saturating_add(age) };
                        read.max_age = Some(end.min(latest));
                    }
                }
                b"expires" => {
                    if let Some(expires) = date(value) {
                        read.expires = Some(expires.min(latest));
                    }
                }
                _ => {}
            }
        }
        read
    }
}

/// A number of seconds, 0 if it is negative, as much as there is if it is too large.
fn seconds(value: &[u8]) -> Option<u64> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(if negative { 0 } else { number(digits) })
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0_u64, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    })
}

/// A date as servers write them (section 5.1.1): any order, any separators; in seconds since 1970.
fn date(text: &[u8]) -> Option<u64> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b':' || *byte >= 0x80;
    for token in text
        .split(|byte| !is_part(byte))
        .filter(|token| !token.is_empty())
    {
        if time.is_none() {
            time = time_of_day(token);
            if time.is_some() {
                continue;
            }
        }
        let digits = token
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let value = token.get(..digits).map(number);
        match digits {
            1 | 2 if day.is_none() => day = value,
            0 if month.is_none() => {
                let name = token.get(..3).map(<[u8]>::to_ascii_lowercase);
                let known = name.and_then(|name| MONTHS.iter().position(|month| **month == *name));
                month = known.map(|month| month as u64 + 1);
            }
            2..=4 if year.is_none() => {
                year = value.map(|year| match year {
                    0..=69 => year + 2000,
                    70..=99 => year + 1900,
                    _ => year,
                });
            }
            _ => {}
        }
    }
    let (time, day, month, year) = (time?, day?, month?, year?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=longest).contains(&day) || year < 1601 {
        return None;
    }
    // Days since 1970 of a date of the Gregorian calendar, counted in years that begin in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(
        (days.saturating_sub(719_468))
            .saturating_mul(86_400)
            .saturating_add(time),
    )
}

/// `hh:mm:ss`, each of one or two digits, and anything but a digit behind it.
fn time_of_day(token: &[u8]) -> Option<u64> {
    let mut parts = token.splitn(3, |byte| *byte == b':');
    let mut part = |most: u64| {
        let text = parts.next()?;
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let value = text.get(..digits).map(number)?;
        let fits = (1..=2).contains(&digits) && value <= most;
        (fits && (digits == text.len() || most == 59)).then_some(value)
    };
    let (hours, minutes, seconds) = (part(23)?, part(59)?, part(59)?);
    Some(hours * 3600 + minutes * 60 + seconds)
}

/// Whether a host lies below a domain.
fn domain_matches(host: &str, domain: &str) -> bool {
    let below = host
        .strip_suffix(domain)
        .is_some_and(|rest| rest.ends_with('.'));
    below && host.parse::<IpAddr>().is_err()
}

/// Whether a path is the cookie's or lies below it.
fn path_matches(path: &str, of_cookie: &str) -> bool {
    match path.strip_prefix(of_cookie) {
        Some(rest) => rest.is_empty() || of_cookie.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

/// The folder of a path.
fn default_path(path: &str) -> &str {
    match path.rfind('/') {
        Some(end) if end > 0 => path.get(..end).unwrap_or("/"),
        _ => "/",
    }
}

const MONTHS: [&[u8]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];

/// Cookies that are kept in all.
const MAX_COOKIES: usize = 3_000;

/// Cookies that are kept of one domain.
const MAX_OF_DOMAIN: usize = 50;

/// The longest attribute that counts, in bytes (section 5.6).
const MAX_ATTRIBUTE: usize = 1024;

/// How long a cookie lasts at most, in seconds: 400 days (section 5.5).
const MAX_AGE: u64 = 400 * 86_400;

/// Cookies that one request carries at most; curl's number.
const MAX_SENT: usize = 150;

/// Bytes of them, so that a server cannot make requests to it, or to its neighbours, too large to be taken.
const MAX_SENT_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn sent(cookies: &mut Cookies, url: &str, now: u64) -> String {
        let value = cookies.for_request(&url.parse().unwrap(), now);
        value.map_or("-".to_owned(), |value| {
            String::from_utf8_lossy(&value).into_owned()
        })
    }

    fn set(cookies: &mut Cookies, url: &str, field: &str) {
        cookies.set(&url.parse().unwrap(), field.as_bytes(), NOW);
    }

    /// What is set by whom, and what a second URL is then told.
    #[test]
    fn who_sets_what_for_whom() {
        for (from, field, to, expected) in [
            ("https://a.test/", "a=1", "https://a.test/", "a=1"),
            ("https://a.test/", "a=1", "https://b.a.test/", "-"),
            ("https://a.test/", "a=1", "https://test/", "-"),
            ("https://a.test/", "a=1", "https://a.test./", "-"),
            ("https://a.test./", "a=1", "https://a.test./", "a=1"),
            ("https://a.test/", "a=1", "https://a.test:8443/", "a=1"),
            // Domain
            (
                "https://b.a.test/",
                "a=1; Domain=a.test",
                "https://c.a.test/",
                "a=1",
            ),
            (
                "https://b.a.test/",
                "a=1; Domain=.A.Test",
                "https://a.test/",
                "a=1",
            ),
            (
                "https://b.a.test/",
                "a=1; Domain=a.test.",
                "https://a.test/",
                "a=1",
            ),
            (
                "https://b.a.test/",
                "a=1; Domain=a.test",
                "https://ba.test/",
                "-",
            ),
            (
                "https://b.a.test/",
                "a=1; Domain=c.a.test",
                "https://c.a.test/",
                "-",
            ),
            (
                "https://a.test/",
                "a=1; Domain=b.a.test",
                "https://b.a.test/",
                "-",
            ),
            ("https://a.test/", "a=1; Domain=", "https://b.a.test/", "-"),
            ("https://a.test/", "a=1; Domain=", "https://a.test/", "a=1"),
            ("https://a.test/", "a=1; Domain=.", "https://a.test/", "-"),
            (
                "https://a.test/",
                "a=1; Domain=c.test; Domain=a.test",
                "https://a.test/",
                "a=1",
            ),
            (
                "https://a.test/",
                "a=1; Domain=\u{e4}.test",
                "https://a.test/",
                "-",
            ),
            // Public suffixes
            (
                "https://a.co.uk/",
                "a=1; Domain=co.uk",
                "https://b.co.uk/",
                "-",
            ),
            (
                "https://a.co.uk/",
                "a=1; Domain=Co.Uk.",
                "https://a.co.uk/",
                "-",
            ),
            (
                "https://a.co.uk/",
                "a=1; Domain=uk",
                "https://a.co.uk/",
                "-",
            ),
            ("https://a.com/", "a=1; Domain=.com", "https://b.com/", "-"),
            (
                "https://a.github.io/",
                "a=1; Domain=github.io",
                "https://b.github.io/",
                "-",
            ),
            (
                "https://github.io/",
                "a=1; Domain=github.io",
                "https://github.io/",
                "a=1",
            ),
            (
                "https://github.io/",
                "a=1; Domain=github.io",
                "https://b.github.io/",
                "-",
            ),
            (
                "https://a.test/",
                "a=1; Domain=test",
                "https://b.test/",
                "-",
            ),
            (
                "https://a.localhost/",
                "a=1; Domain=localhost",
                "https://b.localhost/",
                "-",
            ),
            (
                "https://a.b.co.uk/",
                "a=1; Domain=b.co.uk",
                "https://c.b.co.uk/",
                "a=1",
            ),
            // Addresses
            ("https://127.0.0.1/", "a=1", "https://127.0.0.1/", "a=1"),
            (
                "https://127.0.0.1/",
                "a=1; Domain=127.0.0.1",
                "https://127.0.0.1/",
                "-",
            ),
            (
                "https://127.0.0.1/",
                "a=1; Domain=0.0.1",
                "https://127.0.0.1/",
                "-",
            ),
            ("https://[::1]/", "a=1", "https://[::1]/", "a=1"),
            // Path
            ("https://a.test/x/y", "a=1", "https://a.test/x/z", "a=1"),
            ("https://a.test/x/y", "a=1", "https://a.test/x", "a=1"),
            ("https://a.test/x/y", "a=1", "https://a.test/xy", "-"),
            ("https://a.test/x/y", "a=1", "https://a.test/", "-"),
            (
                "https://a.test/x/y",
                "a=1; Path=/",
                "https://a.test/",
                "a=1",
            ),
            (
                "https://a.test/x/y",
                "a=1; Path=z",
                "https://a.test/x/",
                "a=1",
            ),
            (
                "https://a.test/",
                "a=1; Path=/x/",
                "https://a.test/x/y",
                "a=1",
            ),
            ("https://a.test/", "a=1; Path=/x/", "https://a.test/x", "-"),
            ("https://a.test/", "a=1; Path=/X", "https://a.test/x", "-"),
            // Secure
            ("https://a.test/", "a=1; Secure", "http://a.test/", "-"),
            ("https://a.test/", "a=1; secure=", "http://a.test/", "-"),
            ("https://a.test/", "a=1", "http://a.test/", "a=1"),
            ("http://a.test/", "a=1; Secure", "https://a.test/", "-"),
            // Prefixes
            (
                "https://a.test/",
                "__Secure-a=1; Secure",
                "https://a.test/",
                "__Secure-a=1",
            ),
            ("https://a.test/", "__Secure-a=1", "https://a.test/", "-"),
            (
                "http://a.test/",
                "__Secure-a=1; Secure",
                "https://a.test/",
                "-",
            ),
            (
                "https://a.test/",
                "__Host-a=1; Secure; Path=/",
                "https://a.test/",
                "__Host-a=1",
            ),
            (
                "https://a.test/",
                "__Host-a=1; Secure",
                "https://a.test/",
                "-",
            ),
            (
                "https://a.test/",
                "__Host-a=1; Path=/",
                "https://a.test/",
                "-",
            ),
            (
                "https://a.test/",
                "__Host-a=1; Secure; Path=/x",
                "https://a.test/x",
                "-",
            ),
            (
                "https://a.test/",
                "__Host-a=1; Secure; Path=/; Domain=a.test",
                "https://a.test/",
                "-",
            ),
            ("https://a.test/", "__host-a=1", "https://a.test/", "-"),
            ("https://a.test/", "=__Host-a=1", "https://a.test/", "-"),
            ("https://a.test/", "__Secure-a", "https://a.test/", "-"),
            // Names and values
            (
                "https://a.test/",
                " a = \"1 2\" ;",
                "https://a.test/",
                "a=\"1 2\"",
            ),
            ("https://a.test/", "a=1=2", "https://a.test/", "a=1=2"),
            ("https://a.test/", "a=", "https://a.test/", "a="),
            ("https://a.test/", "a", "https://a.test/", "a"),
            ("https://a.test/", "=a", "https://a.test/", "a"),
            ("https://a.test/", "=", "https://a.test/", "-"),
            ("https://a.test/", "", "https://a.test/", "-"),
            ("https://a.test/", ";Path=/", "https://a.test/", "-"),
            ("https://a.test/", "a=1\u{7f}2", "https://a.test/", "-"),
            (
                "https://a.test/",
                "a=1; Path=/\u{1}",
                "https://a.test/",
                "-",
            ),
            ("https://a.test/", "a=\u{e9}", "https://a.test/", "a=\u{e9}"),
            // Lifetime
            (
                "https://a.test/",
                "a=1; Max-Age=1",
                "https://a.test/",
                "a=1",
            ),
            ("https://a.test/", "a=1; Max-Age=0", "https://a.test/", "-"),
            (
                "https://a.test/",
                "a=1; Max-Age=-99",
                "https://a.test/",
                "-",
            ),
            (
                "https://a.test/",
                "a=1; Max-Age=1x",
                "https://a.test/",
                "a=1",
            ),
            (
                "https://a.test/",
                "a=1; Max-Age=99999999999999999999999",
                "https://a.test/",
                "a=1",
            ),
            (
                "https://a.test/",
                "a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
                "https://a.test/",
                "-",
            ),
            (
                "https://a.test/",
                "a=1; Expires=never",
                "https://a.test/",
                "a=1",
            ),
            (
                "https://a.test/",
                "a=1; Max-Age=9; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
                "https://a.test/",
                "a=1",
            ),
            (
                "https://a.test/",
                "a=1; SameSite=Strict; HttpOnly; Other",
                "https://a.test/",
                "a=1",
            ),
        ] {
            let mut cookies = Cookies::default();
            set(&mut cookies, from, field);
            let found = sent(&mut cookies, to, NOW);
            assert_eq!(found, expected, "{field:?} of {from} at {to}");
        }
    }

    #[test]
    fn order_replacement_and_expiry() {
        let mut cookies = Cookies::default();
        let url = "https://a.test/x/y";
        set(&mut cookies, url, "one=1; Path=/");
        set(&mut cookies, url, "two=2; Path=/x");
        set(&mut cookies, url, "three=3; Path=/; Max-Age=60");
        set(&mut cookies, url, "one=new; Path=/");
        set(&mut cookies, url, "one=host; Path=/; Domain=a.test");
        assert_eq!(
            sent(&mut cookies, url, NOW),
            "two=2; one=new; three=3; one=host"
        );
        assert_eq!(
            sent(&mut cookies, url, NOW + 60),
            "two=2; one=new; one=host"
        );
        set(&mut cookies, url, "two=; Path=/x; Max-Age=0");
        set(
            &mut cookies,
            url,
            "one=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        );
        assert_eq!(sent(&mut cookies, url, NOW), "three=3; one=host");
        assert_eq!(cookies.count, 2);
    }

    /// Over http a cookie that was set securely is neither replaced nor overlaid, not even from a domain above or below.
    #[test]
    fn secure_cookies_are_left_alone() {
        for (field, url, kept) in [
            ("sid=evil", "http://a.test/", true),
            ("sid=evil; Path=/login", "http://a.test/", true),
            ("sid=evil; Domain=a.test", "http://b.a.test/", true),
            ("sid=evil", "http://b.a.test/", true),
            ("other=1", "http://a.test/", false),
            ("sid=1", "http://b.test/", false),
            ("sid=1; Path=/", "https://a.test/", false),
        ] {
            let mut cookies = Cookies::default();
            set(
                &mut cookies,
                "https://a.test/",
                "sid=good; Secure; Path=/; Domain=a.test",
            );
            let before = cookies.count;
            set(&mut cookies, url, field);
            assert_eq!(cookies.count == before, kept, "{field} of {url}");
        }
    }

    #[test]
    fn dates() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("06 november 1994 8:49:37", Some(784_111_777)),
            ("1994 6 Nov 08:49:37.123", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799)),
            ("Thu, 01 Jan 1601 00:00:00 GMT", Some(0)),
            ("Wed, 31 Dec 1600 23:59:59 GMT", None),
            ("Sun, 06 Nov 69 00:00:00 GMT", Some(3_150_921_600)),
            ("Wed, 29 Feb 2023 00:00:00 GMT", None),
            ("Wed, 29 Feb 1900 00:00:00 GMT", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:60:37 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994", None),
            ("08:49:37", None),
            ("", None),
        ] {
            assert_eq!(date(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn numbers_have_limits() {
        let mut cookies = Cookies::default();
        set(&mut cookies, "https://a.test/", "keep=1; Secure");
        for number in 0..60 {
            set(&mut cookies, "https://a.test/", &format!("c{number}=1"));
        }
        assert_eq!(cookies.count, MAX_OF_DOMAIN);
        let found = sent(&mut cookies, "https://a.test/", NOW);
        assert!(found.starts_with("keep=1; c11=1; "), "{found}");
        for number in 0..3_100 {
            set(&mut cookies, &format!("https://h{number}.test/"), "a=1");
        }
        assert_eq!(cookies.count, MAX_COOKIES);
        assert_eq!(
            cookies.domains.values().map(Vec::len).sum::<usize>(),
            MAX_COOKIES
        );
        assert_eq!(sent(&mut cookies, "https://h3099.test/", NOW), "a=1");
        // What one request carries is bounded, too.
        let mut cookies = Cookies::default();
        for number in 0..10 {
            set(
                &mut cookies,
                "https://a.test/",
                &format!("c{number}={}", "x".repeat(2000)),
            );
        }
        set(&mut cookies, "https://a.test/", "small=1");
        let found = sent(&mut cookies, "https://a.test/", NOW);
        assert!(
            found.len() <= MAX_SENT_BYTES && found.ends_with("small=1"),
            "{}",
            found.len()
        );
        let far = format!("a=1; Max-Age={}", MAX_AGE * 2);
        let mut cookies = Cookies::default();
        set(&mut cookies, "https://a.test/", &far);
        assert_eq!(
            sent(&mut cookies, "https://a.test/", NOW + MAX_AGE - 1),
            "a=1"
        );
        assert_eq!(sent(&mut cookies, "https://a.test/", NOW + MAX_AGE), "-");
        let long = format!("a=1; Domain={}a.test", " ".repeat(MAX_ATTRIBUTE));
        set(&mut cookies, "https://a.test/", &long);
    }
}
