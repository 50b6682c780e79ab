//! Networks as an operator writes them, and the closed choices for TLS and the log.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::words;
use crate::error::{Error, Result};

/// A block of addresses (RFC 4632; RFC 4291, 2.3). IPv4-mapped IPv6 is IPv4, in the block and in what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Reads `address/prefix`; a bare address is a block of one.
    ///
    /// # Errors
    /// `InvalidRequest` naming what was read: not an address, a prefix over 32 or 128, host bits set.
    pub fn parse(text: &str) -> Result<Self> {
        let form = || Error::invalid(format!("{text:?} is not a network like 10.0.0.0/8 or fd00::/8, nor an address"));
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let widest = width(address);
        let prefix = match prefix {
            None => widest,
            Some(digits) => {
                // `u8::from_str` alone would take "+8" and "008" as well.
                let prefix = digits.parse::<u8>().ok().filter(|n| n.to_string() == digits).ok_or_else(form)?;
                if prefix > widest {
                    return Err(Error::invalid(format!("{text:?}: the prefix goes up to {widest}")));
                }
                prefix
            }
        };
        let network = Self { address: masked(address, prefix), prefix };
        if network.address != address {
            return Err(Error::invalid(format!("{text:?} has host bits set; the network is {network}")));
        }
        Ok(network.unmapped())
    }

    /// Whether the address lies in the block.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }

    /// How many leading bits are fixed: 0-32 for IPv4, 0-128 for IPv6.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// `::ffff:10.0.0.0/104` is `10.0.0.0/8`. A mapped address with a prefix under 96 has host bits set and never gets
    /// here.
    fn unmapped(self) -> Self {
        match (self.address, self.address.to_canonical()) {
            (IpAddr::V6(_), v4 @ IpAddr::V4(_)) => Self { address: v4, prefix: self.prefix.saturating_sub(96) },
            _ => self,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// How many bits an address of this family has.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all bits after the first `prefix` cleared. A shift by the whole width is how /0 comes out.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let host_bits = u32::from(width(address).saturating_sub(prefix));
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into(),
    }
}

words! {
    /// The oldest TLS that is spoken.
    MinTls {
        /// RFC 5246
        V1_2 = "1.2",
        /// RFC 8446
        V1_3 = "1.3",
    }
}

words! {
    /// How log lines look.
    LogFormat { Text = "text", Json = "json" }
}

words! {
    /// How much is logged, the least first.
    LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Cidr {
        Cidr::parse(text).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn reads_blocks_and_bare_addresses() {
        for (text, read) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("255.255.255.255/32", "255.255.255.255/32"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(net(text).to_string(), read, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_block() {
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/256",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "010.0.0.0/8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "localhost",
            "fe80::1%eth0/64",
            "10.0.0.0/255.0.0.0",
            "::ffff:10.0.0.0/8",
        ] {
            assert!(Cidr::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn host_bits_are_named_with_the_network_that_was_meant() {
        let error = Cidr::parse("10.1.2.3/8").unwrap_err();
        assert_eq!(error.client(), "\"10.1.2.3/8\" has host bits set; the network is 10.0.0.0/8");
        let error = Cidr::parse("2001:db8::1/64").unwrap_err();
        assert_eq!(error.client(), "\"2001:db8::1/64\" has host bits set; the network is 2001:db8::/64");
    }

    #[test]
    fn contains_to_the_last_bit_and_takes_mapped_addresses_for_ipv4() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
            ("::/0", "::", "::ffff:203.0.113.9"),
            ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
            ("::1", "::1", "::2"),
        ] {
            assert!(net(block).contains(ip(inside)), "{inside} is in {block}");
            assert!(!net(block).contains(ip(outside)), "{outside} is not in {block}");
        }
    }
}
