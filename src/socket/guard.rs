//! Which addresses `deny_private` keeps a client from: those that lead into a machine, a site or nowhere (security U3).
//!
//! Pure. `dial` asks it for every address of every dial, literals included, between the lookup and `connect`, and connects
//! to that very address: no answer of a name server that changes in between gets past it. Addresses that carry another one
//! inside, as those of translators and tunnels do, are judged by what they carry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What `address` is, if it is not one of the public network.
pub(super) fn denied(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => denied_v4(address),
        IpAddr::V6(address) => denied_v6(address),
    }
}

fn denied_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = u128::from(address.to_bits());
    find(bits, V4)
}

fn denied_v6(address: Ipv6Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    find(bits, V6).or_else(|| {
        let (_, _, carried) = CARRIERS
            .iter()
            .find(|(prefix, length, _)| bits >> (128 - length) == prefix >> (128 - length))?;
        carried(bits).into_iter().flatten().find_map(denied_v4)
    })
}

/// A block: its first address, the length of its prefix, counted from the lowest bit of the family, and what it is.
type Block = (u128, u32, &'static str);

fn find(bits: u128, blocks: &[Block]) -> Option<&'static str> {
    let block = blocks
        .iter()
        .find(|(first, free, _)| bits >> free == first >> free);
    block.map(|(_, _, what)| *what)
}

const fn v4(a: u8, b: u8, c: u8, length: u32, what: &'static str) -> Block {
    let first = u32::from_be_bytes([a, b, c, 0]);
    (first as u128, 32 - length, what)
}

const fn v6(first: u128, length: u32, what: &'static str) -> Block {
    (first, 128 - length, what)
}

/// RFC 6890 and the IANA registry of special-purpose addresses; what is only for documentation leads nowhere either, but
/// into nobody's network.
const V4: &[Block] = &[
    v4(0, 0, 0, 8, "this host (0.0.0.0/8)"),
    v4(10, 0, 0, 8, "private (10.0.0.0/8)"),
    v4(100, 64, 0, 10, "shared by a provider (100.64.0.0/10)"),
    v4(127, 0, 0, 8, "loopback (127.0.0.0/8)"),
    v4(169, 254, 0, 16, "link-local (169.254.0.0/16)"),
    v4(172, 16, 0, 12, "private (172.16.0.0/12)"),
    v4(192, 0, 0, 24, "for protocols (192.0.0.0/24)"),
    v4(192, 168, 0, 16, "private (192.168.0.0/16)"),
    v4(198, 18, 0, 15, "for benchmarks (198.18.0.0/15)"),
    v4(224, 0, 0, 4, "multicast (224.0.0.0/4)"),
    v4(240, 0, 0, 4, "reserved (240.0.0.0/4)"),
];

const V6: &[Block] = &[
    v6(0, 128, "unspecified (::)"),
    v6(1, 128, "loopback (::1)"),
    // Where the address inside stands is the translator's own affair (RFC 8215), so none can be read out.
    v6(
        0x0064_ff9b_0001 << 80,
        48,
        "a local translator's (64:ff9b:1::/48)",
    ),
    v6(0xfc << 120, 7, "private (fc00::/7)"),
    v6(0xfe80 << 112, 10, "link-local (fe80::/10)"),
    v6(0xfec0 << 112, 10, "site-local (fec0::/10)"),
    v6(0xff << 120, 8, "multicast (ff00::/8)"),
];

/// The IPv4 addresses that an IPv6 address carries.
type Carried = fn(u128) -> [Option<Ipv4Addr>; 2];

/// Prefixes of addresses that carry one of IPv4, and how.
const CARRIERS: &[(u128, u32, Carried)] = &[
    // Mapped (RFC 4291 section 2.5.5.2), and what were compatible ones (2.5.5.1).
    (0xffff << 32, 96, |bits| [Some(low(bits)), None]),
    (0, 96, |bits| [Some(low(bits)), None]),
    // Translated (RFC 2765 section 2.1).
    (0xffff << 48, 96, |bits| [Some(low(bits)), None]),
    // NAT64 (RFC 6052 section 2.1).
    (0x0064_ff9b << 96, 96, |bits| [Some(low(bits)), None]),
    // 6to4 (RFC 3056 section 2).
    (0x2002 << 112, 16, |bits| [Some(low(bits >> 80)), None]),
    // Teredo (RFC 4380 section 4): the server, and the client with its bits turned over.
    (0x2001 << 112, 32, |bits| {
        [Some(low(bits >> 64)), Some(low(!bits))]
    }),
];

/// The lowest 32 bits.
fn low(bits: u128) -> Ipv4Addr {
    let [.., a, b, c, d] = bits.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        // An address, and a part of the reason for which it is denied; none if it is not.
        let rows = [
            // The edges of every block of IPv4.
            ("0.0.0.0", "this host"),
            ("0.255.255.255", "this host"),
            ("1.0.0.0", ""),
            ("9.255.255.255", ""),
            ("10.0.0.0", "10.0.0.0/8"),
            ("10.255.255.255", "10.0.0.0/8"),
            ("11.0.0.0", ""),
            ("100.63.255.255", ""),
            ("100.64.0.0", "100.64.0.0/10"),
            ("100.127.255.255", "100.64.0.0/10"),
            ("100.128.0.0", ""),
            ("126.255.255.255", ""),
            ("127.0.0.0", "loopback"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.255", "loopback"),
            ("128.0.0.0", ""),
            ("169.253.255.255", ""),
            ("169.254.0.0", "link-local"),
            ("169.254.169.254", "link-local"),
            ("169.255.0.0", ""),
            ("172.15.255.255", ""),
            ("172.16.0.0", "172.16.0.0/12"),
            ("172.31.255.255", "172.16.0.0/12"),
            ("172.32.0.0", ""),
            ("191.255.255.255", ""),
            ("192.0.0.0", "192.0.0.0/24"),
            ("192.0.0.255", "192.0.0.0/24"),
            ("192.0.1.0", ""),
            ("192.167.255.255", ""),
            ("192.168.0.0", "192.168.0.0/16"),
            ("192.168.255.255", "192.168.0.0/16"),
            ("192.169.0.0", ""),
            ("198.17.255.255", ""),
            ("198.18.0.0", "198.18.0.0/15"),
            ("198.19.255.255", "198.18.0.0/15"),
            ("198.20.0.0", ""),
            ("223.255.255.255", ""),
            ("224.0.0.0", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.0", "reserved"),
            ("255.255.255.255", "reserved"),
            ("8.8.8.8", ""),
            // Those of IPv6.
            ("::", "unspecified"),
            ("::1", "loopback (::1)"),
            ("fbff:ffff::1", ""),
            ("fc00::", "fc00::/7"),
            ("fd00:ec2::254", "fc00::/7"),
            ("fdff:ffff::1", "fc00::/7"),
            ("fe00::1", ""),
            ("fe7f:ffff::1", ""),
            ("fe80::1", "fe80::/10"),
            ("febf::1", "fe80::/10"),
            ("fec0::1", "fec0::/10"),
            ("feff::1", "fec0::/10"),
            ("ff00::", "ff00::/8"),
            ("ff02::1", "ff00::/8"),
            ("2606:4700::1111", ""),
            ("2a00:1450::200e", ""),
            // Mapped and compatible.
            ("::ffff:127.0.0.1", "loopback (127"),
            ("::ffff:10.1.2.3", "10.0.0.0/8"),
            ("::ffff:169.254.169.254", "link-local"),
            ("::ffff:0.0.0.0", "this host"),
            ("::ffff:8.8.8.8", ""),
            ("::127.0.0.1", "loopback (127"),
            ("::192.168.1.1", "192.168.0.0/16"),
            ("::2", "this host"),
            ("::8.8.8.8", ""),
            ("::fffe:127.0.0.1", ""),
            // Translated.
            ("::ffff:0:127.0.0.1", "loopback (127"),
            ("::ffff:0:8.8.8.8", ""),
            // NAT64.
            ("64:ff9b::127.0.0.1", "loopback (127"),
            ("64:ff9b::10.0.0.1", "10.0.0.0/8"),
            ("64:ff9b::8.8.8.8", ""),
            ("64:ff9b::1:127.0.0.1", ""),
            ("64:ff9b:1::10.0.0.1", "64:ff9b:1::/48"),
            ("64:ff9b:1:a00:0:100::", "64:ff9b:1::/48"),
            ("64:ff9b:1:ffff:ffff::8.8.8.8", "64:ff9b:1::/48"),
            ("64:ff9b:2::10.0.0.1", ""),
            // 6to4.
            ("2002:7f00:1::", "loopback (127"),
            ("2002:a00:1::1", "10.0.0.0/8"),
            ("2002:c0a8:101::1", "192.168.0.0/16"),
            ("2002:808:808::1", ""),
            ("2003:7f00:1::", ""),
            // Teredo: a private server, a private client (turned over), neither.
            ("2001:0:7f00:1::f7f7:f7f7", "loopback (127"),
            ("2001:0:808:808::80ff:fffe", "loopback (127"),
            ("2001:0:808:808::f5ff:fffe", "10.0.0.0/8"),
            ("2001:0:808:808::f7f7:f7f7", ""),
            ("2001:1:7f00:1::", ""),
        ];
        assert!(rows.len() >= 60);
        for (text, expected) in rows {
            let found = denied(text.parse().unwrap());
            match expected {
                "" => assert_eq!(found, None, "{text}"),
                part => assert!(
                    found.is_some_and(|found| found.contains(part)),
                    "{text}: {found:?} instead of {part}"
                ),
            }
        }
    }
}
