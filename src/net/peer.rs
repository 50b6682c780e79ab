//! Who is calling: the client's address behind trusted proxies, and the networks that clients are counted by.

use std::net::{IpAddr, SocketAddr};

use crate::model::net::Cidr;

/// The address that a request counts for: the peer's, or, where the peer is a trusted proxy, the right-most untrusted
/// one of `X-Forwarded-For`. Always canonical: an IPv4-mapped IPv6 address is the IPv4 address.
///
/// `forwarded` are the header's lines in the order they came; they are one list. It is read from the right until
/// something that is no address or isn't trusted; the last good one counts.
pub fn client_address<'a>(peer: SocketAddr, forwarded: impl Iterator<Item = &'a [u8]>, trusted: &[Cidr]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|range| range.contains(address));
    let mut client = peer.ip().to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let lines: Vec<&[u8]> = forwarded.collect();
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(|b| *b == b',')) {
        let Some(address) = address_in(entry) else { break };
        client = address;
        if !is_trusted(client) {
            break;
        }
    }
    client
}

fn address_in(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The network that a client is counted by.
///
/// IPv6 is kept as its upper 64 bits, masked; IPv4 stands below the multicast prefix `ffff:ffff`, which no client can
/// send from, so that the two never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientNetwork(u64);

const V4: u64 = 0xffff_ffff_0000_0000;

impl ClientNetwork {
    /// One client, as far as rate limits and the cap on connections go: an IPv4 address, or an IPv6 /64.
    pub fn for_limits(address: IpAddr) -> Self {
        Self::cut(address, 32, 64)
    }

    /// One household or office, as far as the hashing queue goes: an IPv4 /24, or an IPv6 /56.
    pub fn for_hashing(address: IpAddr) -> Self {
        Self::cut(address, 24, 56)
    }

    /// Prefix lengths of 1 to 32 and 1 to 64.
    fn cut(address: IpAddr, v4: u32, v6: u32) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => V4 | u64::from(address.to_bits() & (u32::MAX << (32 - v4))),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64 & (u64::MAX << (64 - v6)),
        })
    }

    /// The network in 64 bits, different for every network.
    pub(super) fn bits(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let trusted: Vec<Cidr> = trusted.iter().map(|range| Cidr::parse(range).unwrap()).collect();
        let peer = SocketAddr::new(peer.parse().unwrap(), 1234);
        client_address(peer, forwarded.iter().map(|line| line.as_bytes()), &trusted).to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(client("198.51.100.7", &["203.0.113.9"], &[]), "198.51.100.7");
        assert_eq!(client("198.51.100.7", &["203.0.113.9"], &["10.0.0.0/8"]), "198.51.100.7");
    }

    #[test]
    fn the_right_most_untrusted_address_counts() {
        let proxies = ["10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(client("10.0.0.1", &[], &proxies), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.9"], &proxies), "203.0.113.9");
        // What the client itself put into the header stands further left.
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 203.0.113.9"], &proxies), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["1.1.1.1,203.0.113.9 , 10.9.9.9"], &proxies), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "203.0.113.9,10.3.3.3", "2001:db8::7"], &proxies), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &proxies), "10.0.0.3", "trusted all the way");
    }

    #[test]
    fn what_is_no_address_ends_the_list() {
        let proxies = ["10.0.0.0/8"];
        for noise in ["unknown", "", " ", "1.2.3.4:80", "[2001:db8::1]", "fe80::1%eth0", "1.2.3", "\u{e4}"] {
            assert_eq!(client("10.0.0.1", &[noise], &proxies), "10.0.0.1", "{noise:?}");
            assert_eq!(client("10.0.0.1", &[&format!("1.1.1.1,{noise}")], &proxies), "10.0.0.1", "{noise:?}");
            assert_eq!(client("10.0.0.1", &[&format!("1.1.1.1,{noise},10.2.2.2")], &proxies), "10.2.2.2", "{noise:?}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(client("::ffff:198.51.100.7", &[], &[]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:203.0.113.9"], &["10.0.0.0/8"]), "203.0.113.9");
    }

    #[test]
    fn networks_are_cut_where_the_contract_says() {
        let limits = |text: &str| ClientNetwork::for_limits(text.parse().unwrap());
        let hashing = |text: &str| ClientNetwork::for_hashing(text.parse().unwrap());
        assert_ne!(limits("192.0.2.1"), limits("192.0.2.2"));
        assert_eq!(limits("192.0.2.1"), limits("::ffff:192.0.2.1"));
        assert_eq!(limits("2001:db8::1"), limits("2001:db8::ffff:1"));
        assert_ne!(limits("2001:db8::1"), limits("2001:db8:0:1::1"));
        assert_eq!(hashing("192.0.2.1"), hashing("192.0.2.254"));
        assert_ne!(hashing("192.0.2.1"), hashing("192.0.3.1"));
        assert_eq!(hashing("2001:db8:0:ff::1"), hashing("2001:db8::1"));
        assert_ne!(hashing("2001:db8:0:100::1"), hashing("2001:db8::1"));
        assert_ne!(limits("0.0.0.0"), limits("::1"));
    }
}
