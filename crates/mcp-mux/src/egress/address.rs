//! Which addresses are public: the registries of special-purpose addresses (RFC 6890 and what IANA added to it), read strictly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Destinations, Refused};
use crate::config::{EgressConfig, Network};

/// IPv4 addresses that are not public.
const NOT_PUBLIC_V4: [Network; 17] = [
    Network::v4(0, 0, 0, 0, 8),        // this host
    Network::v4(10, 0, 0, 0, 8),       // private
    Network::v4(100, 64, 0, 0, 10),    // shared by carriers, and metadata of one cloud
    Network::v4(127, 0, 0, 0, 8),      // loopback
    Network::v4(168, 63, 129, 16, 32), // Azure's own services, on an address that looks public
    Network::v4(169, 254, 0, 0, 16),   // link-local, and metadata of most clouds
    Network::v4(172, 16, 0, 0, 12),    // private
    Network::v4(192, 0, 0, 0, 24),     // protocol assignments, and metadata of one cloud
    Network::v4(192, 0, 2, 0, 24),     // documentation
    Network::v4(192, 31, 196, 0, 24),  // AS112
    Network::v4(192, 88, 99, 0, 24),   // relays of 6to4
    Network::v4(192, 168, 0, 0, 16),   // private
    Network::v4(198, 18, 0, 0, 15),    // benchmarking
    Network::v4(198, 51, 100, 0, 24),  // documentation
    Network::v4(203, 0, 113, 0, 24),   // documentation
    Network::v4(224, 0, 0, 0, 4),      // multicast
    Network::v4(240, 0, 0, 0, 4),      // reserved, and broadcast
];

/// The IPv6 addresses that are given out at all. Outside lie loopback, link-local, site-local, unique local, multicast, discard
/// and the local translation prefix.
const GLOBAL_V6: Network = Network::v6(0x2000, 0, 0, 3);

/// IPv6 addresses among them that are not public.
const NOT_PUBLIC_V6: [Network; 3] = [
    Network::v6(0x2001, 0, 0, 23),     // protocol assignments, Teredo among them
    Network::v6(0x2001, 0xdb8, 0, 32), // documentation
    Network::v6(0x3fff, 0, 0, 20),     // documentation
];

const COMPATIBLE: Network = Network::v6(0, 0, 0, 96);
const TRANSLATED: Network = Network::v6(0x64, 0xff9b, 0, 96);
const SIX_TO_FOUR: Network = Network::v6(0x2002, 0, 0, 16);

impl Destinations {
    /// Whether a connection may go to `address`.
    pub(super) fn judge(self, rules: &EgressConfig, address: IpAddr) -> Result<(), Refused> {
        match self {
            Self::Any => Ok(()),
            _ if is_listed(&rules.denied_networks, address) => Err(Refused::Denied),
            Self::PublicOrListed if is_public(address) || is_listed(&rules.private_networks, address) => Ok(()),
            Self::Listed if is_listed(&rules.private_networks, address) => Ok(()),
            Self::Listed if is_public(address) => Err(Refused::PlainHttp),
            Self::PublicOrListed | Self::Listed => Err(Refused::Address),
        }
    }
}

fn is_listed(networks: &[Network], address: IpAddr) -> bool {
    let address = address.to_canonical();
    let has = |address: IpAddr| networks.iter().any(|network| network.contains(address));
    has(address) || embedded(address).is_some_and(|inner| has(inner.into()))
}

/// An address that holds an IPv4 address leads to that one, and is as public as that.
fn is_public(address: IpAddr) -> bool {
    let address = address.to_canonical();
    match (address, embedded(address)) {
        (IpAddr::V4(_), _) => !NOT_PUBLIC_V4.iter().any(|network| network.contains(address)),
        (IpAddr::V6(outer), Some(inner)) => is_public(inner.into()) && (!is_isatap(outer) || is_global(address)),
        (IpAddr::V6(_), None) => is_global(address),
    }
}

fn is_global(address: IpAddr) -> bool {
    GLOBAL_V6.contains(address) && !NOT_PUBLIC_V6.iter().any(|network| network.contains(address))
}

/// Whether the lower half names an IPv4 address behind a tunnel (RFC 5214 §6.1).
fn is_isatap(address: Ipv6Addr) -> bool {
    let interface = (address.to_bits() >> 32) & u128::from(u32::MAX);
    matches!(interface, 0x5efe | 0x0200_5efe)
}

/// The IPv4 address inside an IPv6 address that is IPv4-compatible (RFC 4291 §2.5.5.1), translated (RFC 6052), of 6to4 (RFC 3056) or
/// of ISATAP (RFC 5214).
/// IPv4-mapped ones were made IPv4 addresses before, as the operating system does.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(inner) = address else { return None };
    let bits = Ipv6Addr::to_bits(inner);
    let at =
        |shift: u32| Ipv4Addr::from_bits(u32::try_from((bits >> shift) & u128::from(u32::MAX)).unwrap_or_default());
    if COMPATIBLE.contains(address) || TRANSLATED.contains(address) || is_isatap(inner) {
        Some(at(0))
    } else if SIX_TO_FOUR.contains(address) {
        Some(at(80))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(address: &str) -> bool {
        is_public(address.parse().unwrap())
    }

    #[test]
    fn an_address_behind_a_tunnel_is_as_public_as_that() {
        assert!(!public("2a00:1450:4001:81b:0:5efe:10.0.0.5"));
        assert!(!public("2a00:1450:4001:81b:200:5efe:169.254.169.254"));
        assert!(!public("fe80::5efe:8.8.8.8"));
        assert!(public("2a00:1450:4001:81b:0:5efe:8.8.8.8"));
    }

    #[test]
    fn what_is_denied_is_denied_though_it_is_public_or_listed() {
        let rules = EgressConfig {
            denied_networks: vec!["93.184.0.0/16".parse().unwrap(), "10.1.0.0/16".parse().unwrap()],
            private_networks: vec!["10.0.0.0/8".parse().unwrap()],
            ..EgressConfig::default()
        };
        for (address, expected) in [
            ("93.184.215.14", Err(Refused::Denied)),
            ("::ffff:93.184.215.14", Err(Refused::Denied)),
            ("64:ff9b::93.184.215.14", Err(Refused::Denied)),
            ("10.1.2.3", Err(Refused::Denied)),
            ("10.2.2.3", Ok(())),
            ("93.185.0.1", Ok(())),
        ] {
            assert_eq!(Destinations::PublicOrListed.judge(&rules, address.parse().unwrap()), expected, "{address}");
        }
        assert_eq!(Destinations::Any.judge(&rules, "10.1.2.3".parse().unwrap()), Ok(()));
    }

    #[test]
    fn what_lies_just_outside_of_a_special_network_is_public() {
        for address in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db7::1",
            "2001:db9::1",
            "2a00:1450::1",
            "3ffe:ffff::1",
            "2002:808:808::1",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
        ] {
            assert!(public(address), "{address}");
        }
    }

    #[test]
    fn both_ends_of_each_special_network_are_not_public() {
        for address in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.0",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.0.0",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.255",
            "192.0.2.0",
            "192.0.2.255",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.0",
            "203.0.113.255",
            "224.0.0.0",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "100::1",
            "1fff::1",
            "2001::1",
            "2001:0:808:808::1",
            "2001:1ff:ffff::1",
            "2001:2::1",
            "2001:20::1",
            "2001:db8::",
            "2001:db8:ffff::1",
            "2002:a00:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fdff:ffff::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "feff::1",
            "ff00::",
            "ff02::1",
        ] {
            assert!(!public(address), "{address}");
        }
    }

    #[test]
    fn a_listed_network_holds_its_addresses_in_every_spelling() {
        let networks = ["10.20.0.0/16".parse().unwrap(), "fd00:1::/32".parse().unwrap()];
        for address in ["10.20.0.1", "::ffff:10.20.0.1", "64:ff9b::a14:1", "2002:a14:1::", "fd00:1::1"] {
            assert!(is_listed(&networks, address.parse().unwrap()), "{address}");
        }
        for address in ["10.21.0.1", "::ffff:10.21.0.1", "64:ff9b::a15:1", "fd00:2::1", "::1", "127.0.0.1"] {
            assert!(!is_listed(&networks, address.parse().unwrap()), "{address}");
        }
    }
}
