//! What a proxy is not used for: a list in the syntax of the variable NO_PROXY, read into one normal form (security U4).
//!
//! Pure. Hosts come from URLs that were checked, so they are lower case and have one form; items are brought to the same one
//! before anything is compared: a name and its trailing dot, `::ffff:10.0.0.1` and 10.0.0.1, `[::1]` and `::1` are the same.
//! Nothing is looked up: a name never matches a network. `proxy` and `environment` ask it for each URL of each call.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::url::{Target, UrlInput};

/// Hosts that are reached without the proxy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exclusions(Arc<[Exclusion]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Exclusion {
    place: Place,
    /// `None` is every port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// `*`.
    Everything,
    /// A name without a trailing dot, and all names below it.
    Domain(Box<str>),
    /// All names below a name.
    Subdomains(Box<str>),
    /// Addresses that share so many leading bits with this one.
    Network(IpAddr, u32),
}

impl Exclusions {
    /// Reads a list whose items are separated by commas or blanks. What is no item is left out, and the first such is told.
    pub(crate) fn parse(list: &str) -> (Self, Option<&str>) {
        let mut unreadable = None;
        let items = list
            .split(|character: char| character == ',' || character.is_whitespace())
            .filter(|item| !item.is_empty());
        let read = items.filter_map(|item| {
            let read = Exclusion::parse(item);
            if read.is_none() {
                unreadable.get_or_insert(item);
            }
            read
        });
        (Self(read.collect()), unreadable)
    }

    /// Both lists.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(other.0.iter()).cloned().collect())
    }

    /// Whether a URL's host is among them.
    pub(crate) fn hold(&self, target: &Target) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let host = Host::of(target);
        self.0.iter().any(|exclusion| {
            exclusion.port.is_none_or(|port| port == target.port()) && exclusion.place.holds(&host)
        })
    }
}

/// Whether a URL leads into this machine: its proxy, which is another one, would take it for itself.
pub(crate) fn is_loopback(target: &Target) -> bool {
    match Host::of(target) {
        Host::Address(address) => address.is_loopback(),
        Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
    }
}

/// A host in the form in which items are compared with it.
enum Host<'a> {
    Address(IpAddr),
    /// Without a trailing dot.
    Name(&'a str),
}

impl<'a> Host<'a> {
    fn of(target: &'a Target) -> Self {
        let host = target.host();
        let name = host.strip_suffix('.').unwrap_or(host);
        match name.parse::<IpAddr>() {
            Ok(address) => Self::Address(address.to_canonical()),
            Err(_) => Self::Name(name),
        }
    }
}

impl Place {
    fn holds(&self, host: &Host<'_>) -> bool {
        match (self, host) {
            (Self::Everything, _) => true,
            (Self::Network(first, length), Host::Address(address)) => {
                is_within(*address, *first, *length)
            }
            (Self::Domain(domain), Host::Name(name)) => {
                **domain == **name || is_below(name, domain)
            }
            (Self::Subdomains(domain), Host::Name(name)) => is_below(name, domain),
            // A name that ends like an address is no address, and an address has no domain.
            (Self::Network(..), Host::Name(_)) => false,
            (Self::Domain(_) | Self::Subdomains(_), Host::Address(_)) => false,
        }
    }
}

impl Exclusion {
    fn parse(item: &str) -> Option<Self> {
        let everywhere = |place| Some(Self { place, port: None });
        if item == "*" {
            return everywhere(Place::Everything);
        }
        if let Some((address, length)) = item.split_once('/') {
            let address: IpAddr = unbracketed(address).parse().ok()?;
            return everywhere(network(address, Some(length))?);
        }
        if let Ok(address) = unbracketed(item).parse::<IpAddr>() {
            return everywhere(network(address, None)?);
        }
        let (host, port) = match item.rsplit_once(':') {
            Some((host, port)) => (host, Some(number(port).filter(|port| *port > 0)?)),
            None => (item, None),
        };
        let place = match unbracketed(host).parse::<IpAddr>() {
            // Without brackets the last group of an IPv6 address would pass for a port.
            Ok(IpAddr::V6(_)) if !host.starts_with('[') => return None,
            Ok(address) => network(address, None)?,
            Err(_) => domain(host)?,
        };
        Some(Self { place, port })
    }
}

/// What stands in brackets.
fn unbracketed(text: &str) -> &str {
    let inside = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inside.unwrap_or(text)
}

/// The addresses with a prefix, of the length that is written or all of it.
fn network(address: IpAddr, length: Option<&str>) -> Option<Place> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(length) => u32::from(number(length)?),
        None => bits,
    };
    if length > bits {
        return None;
    }
    match address.to_canonical() {
        // A prefix that ends before the address it carries is one of IPv6 addresses, which hosts of this form are not.
        carried @ IpAddr::V4(_) if address.is_ipv6() => match length.checked_sub(96) {
            Some(length) => Some(Place::Network(carried, length)),
            None => Some(Place::Network(address, length)),
        },
        address => Some(Place::Network(address, length)),
    }
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// A name as URLs have it. In front of it `*.` asks for what is below it, and `.` for nothing that the name alone does not.
fn domain(text: &str) -> Option<Place> {
    let below = text.strip_prefix("*.");
    let text = below.unwrap_or(text);
    let text = text.strip_prefix('.').unwrap_or(text);
    let parsed = UrlInput::Text(format!("http://{text}/").into()).parse(None);
    let target = parsed.ok()?.target;
    let name = target.host().strip_suffix('.').unwrap_or(target.host());
    // What a URL has beyond a host was written by mistake.
    let plain = text.strip_suffix('.').unwrap_or(text);
    if !name.eq_ignore_ascii_case(plain) {
        return None;
    }
    Some(match below {
        Some(_) => Place::Subdomains(name.into()),
        None => Place::Domain(name.into()),
    })
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain)
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

fn is_within(address: IpAddr, first: IpAddr, length: u32) -> bool {
    let differing = match (address, first) {
        (IpAddr::V4(address), IpAddr::V4(first)) => {
            u128::from(address.to_bits() ^ first.to_bits()) << 96
        }
        (IpAddr::V6(address), IpAddr::V6(first)) => difference(address, first),
        _ => return false,
    };
    differing.leading_zeros() >= length
}

fn difference(one: Ipv6Addr, other: Ipv6Addr) -> u128 {
    one.to_bits() ^ other.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        let parsed = UrlInput::Text(url.to_owned().into()).parse(None);
        parsed
            .unwrap_or_else(|error| panic!("{url}: {error}"))
            .target
    }

    fn check(list: &str, url: &str, expected: bool) {
        let (exclusions, _) = Exclusions::parse(list);
        assert_eq!(exclusions.hold(&target(url)), expected, "{list:?} {url}");
    }

    #[test]
    fn names() {
        for (list, url, expected) in [
            ("", "http://a.test", false),
            (" , ,, ", "http://a.test", false),
            ("*", "http://a.test", true),
            ("*", "http://10.0.0.1", true),
            ("b.test,*", "http://a.test", true),
            ("a.test", "http://a.test", true),
            ("a.test", "https://a.test:8443/x?y", true),
            ("A.Test", "http://a.test", true),
            ("a.test", "http://A.TEST", true),
            ("a.test.", "http://a.test", true),
            ("a.test", "http://a.test.", true),
            ("a.test", "http://b.a.test", true),
            ("a.test", "http://c.b.a.test", true),
            ("a.test", "http://ba.test", false),
            ("a.test", "http://a.test.example", false),
            ("a.test", "http://test", false),
            (".a.test", "http://a.test", true),
            (".a.test", "http://b.a.test", true),
            (".a.test", "http://ba.test", false),
            ("*.a.test", "http://a.test", false),
            ("*.a.test", "http://b.a.test", true),
            ("*.a.test", "http://ba.test", false),
            ("test", "http://a.test", true),
            ("localhost", "http://localhost:3000", true),
            ("localhost", "http://app.localhost", true),
            ("b.test, a.test", "http://a.test", true),
            ("b.test a.test\tc.test", "http://a.test", true),
            ("b.test;a.test", "http://a.test", false),
            ("a.test:8080", "http://a.test:8080", true),
            ("a.test:8080", "http://a.test", false),
            ("a.test:80", "http://a.test", true),
            ("a.test:443", "https://a.test", true),
            (".a.test:443", "https://b.a.test", true),
            ("a.test:0", "http://a.test", false),
            ("a.test:x", "http://a.test", false),
            ("http://a.test", "http://a.test", false),
            ("a.test/", "http://a.test", false),
            ("*.*", "http://a.test", false),
            ("a*", "http://a.test", false),
            ("xn--bcher-kva.test", "http://xn--bcher-kva.test", true),
            ("under_score.test", "http://under_score.test", true),
        ] {
            check(list, url, expected);
        }
    }

    #[test]
    fn addresses() {
        for (list, url, expected) in [
            ("10.0.0.1", "http://10.0.0.1", true),
            ("10.0.0.1", "http://10.0.0.2", false),
            ("10.0.0.1:80", "http://10.0.0.1", true),
            ("10.0.0.1:81", "http://10.0.0.1", false),
            ("10.0.0.0/8", "http://10.255.0.1", true),
            ("10.0.0.0/8", "http://11.0.0.1", false),
            ("10.1.2.3/8", "http://10.255.0.1", true),
            ("10.0.0.0/31", "http://10.0.0.1", true),
            ("10.0.0.0/31", "http://10.0.0.2", false),
            ("0.0.0.0/0", "http://203.0.113.9", true),
            ("0.0.0.0/0", "http://[2001:db8::1]", false),
            ("10.0.0.0/33", "http://10.0.0.0", false),
            ("10.0.0.0/", "http://10.0.0.0", false),
            ("10.0.0.0/x", "http://10.0.0.0", false),
            ("10.0.0.0/+8", "http://10.0.0.0", false),
            // A part of an address is none, and no domain either.
            ("10", "http://10.0.0.1", false),
            ("0.1", "http://10.0.0.1", false),
            (".0.0.1", "http://10.0.0.1", false),
            ("10.0.0", "http://10.0.0.1", false),
            ("192.168.*", "http://192.168.0.1", false),
            // Names are never looked up.
            ("127.0.0.1", "http://localhost", false),
            ("::1", "http://[::1]", true),
            ("[::1]", "http://[::1]", true),
            ("[::1]:80", "http://[::1]", true),
            ("[::1]:81", "http://[::1]", false),
            ("2001:DB8::/32", "http://[2001:db8:1::5]", true),
            ("[2001:db8::]/32", "http://[2001:db8:1::5]", true),
            ("2001:db8::/32", "http://[2001:db9::5]", false),
            ("::/0", "http://[2001:db8::1]", true),
            ("::/0", "http://10.0.0.1", false),
            ("2001:db8::1/129", "http://[2001:db8::1]", false),
            ("0:0:0:0:0:0:0:1", "http://[::1]", true),
            // Mapped addresses are those of IPv4 (axios CVE-2026-44492).
            ("10.0.0.1", "http://[::ffff:10.0.0.1]", true),
            ("::ffff:10.0.0.1", "http://10.0.0.1", true),
            ("::ffff:a00:1", "http://10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "http://10.200.0.1", true),
            ("::ffff:10.0.0.0/104", "http://11.0.0.1", false),
            ("10.0.0.0/8", "http://[::ffff:a01:203]", true),
            // A zone is no host (Go CVE-2025-22870).
            ("fe80::1%eth0", "http://[fe80::1]", false),
            ("[fe80::1%25.a.test]:80", "http://b.a.test", false),
            ("::1%25.a.test", "http://b.a.test", false),
        ] {
            check(list, url, expected);
        }
    }

    #[test]
    fn the_first_item_that_is_none_is_told() {
        for (list, expected) in [
            ("a.test, 10.0.0.0/33, b..test", Some("10.0.0.0/33")),
            ("fe80::1%eth0", Some("fe80::1%eth0")),
            ("user@a.test", Some("user@a.test")),
            ("a.test,.b.test,*.c.test,*,::1,[::1]:8,10.0.0.0/8", None),
        ] {
            assert_eq!(Exclusions::parse(list).1, expected, "{list}");
        }
    }

    #[test]
    fn what_leads_into_this_machine() {
        for (url, expected) in [
            ("http://localhost", true),
            ("http://LocalHost.:80", true),
            ("http://a.localhost", true),
            ("http://127.0.0.1", true),
            ("http://127.255.255.254", true),
            ("http://[::1]", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://localhost.test", false),
            ("http://notlocalhost", false),
            ("http://128.0.0.1", false),
            ("http://[::2]", false),
        ] {
            assert_eq!(is_loopback(&target(url)), expected, "{url}");
        }
    }
}
