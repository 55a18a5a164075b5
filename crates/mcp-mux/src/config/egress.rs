//! Where connections may lead that tenants or remote documents choose: public addresses on port 443, unless this says more. What
//! the process configuration itself names (an issuer, a front, Vault) needs nothing of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// What is allowed beyond the public addresses. Nothing of it can be said by a tenant.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressConfig {
    /// Networks that may be called although they are not public, over plain http too.
    pub private_networks: Vec<Network>,
    /// Networks that may not be called although they are public, such as your own: nothing else tells them from anybody's. They win
    /// over `private_networks`.
    pub denied_networks: Vec<Network>,
    /// The ports that may be called.
    pub ports: Ports,
}

impl EgressConfig {
    /// This machine and nothing else that is not public, on any port: for `mcp-mux dev`, and for tests.
    pub fn this_machine() -> Self {
        let private_networks = vec![
            Network { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), bits: 8 },
            Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 },
        ];
        Self { private_networks, ports: Ports::Any, ..Self::default() }
    }
}

/// Ports that may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// All.
    Any,
    /// These.
    Only(Vec<u16>),
}

impl Ports {
    /// Whether `port` is among them.
    pub fn include(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Only(ports) => ports.contains(&port),
        }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::Only(vec![443])
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Word(String),
            List(Vec<u16>),
        }
        let wrong = || de::Error::custom("must be a list of ports, such as [443, 8443], or \"any\"");
        match Written::deserialize(deserializer).map_err(|_| wrong())? {
            Written::Word(word) if word == "any" => Ok(Self::Any),
            Written::List(ports) if !ports.is_empty() => Ok(Self::Only(ports)),
            _ => Err(wrong()),
        }
    }
}

/// A network in CIDR notation: `10.20.0.0/16`, `fd00:1::/32`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// An IPv4 network, for tables.
    pub(crate) const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    /// An IPv6 network by the first three groups of its address, for tables.
    pub(crate) const fn v6(a: u16, b: u16, c: u16, bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), bits }
    }

    /// Whether `address` lies in it. An IPv4 address lies in no IPv6 network, however it is written.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                u32::from(network) == u32::from(address) & mask(self.bits, u32::MAX, 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                u128::from(network) == u128::from(address) & mask(self.bits, u128::MAX, 128)
            }
            _ => false,
        }
    }
}

/// `all` with only its first `bits` of `width` set.
fn mask<T: std::ops::Shl<u32, Output = T> + Default>(bits: u8, all: T, width: u32) -> T {
    if bits == 0 { T::default() } else { all << (width - u32::from(bits)) }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` must be a network such as 10.20.0.0/16 or fd00:1::/32", text.escape_debug());
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let is_plain = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = bits.parse().ok().filter(|bits| is_plain && *bits <= bits_max).ok_or_else(wrong)?;
        let network = Self { address, bits };
        // `10.20.3.4/16` may be a mistake in either part.
        if network.contains(address) {
            Ok(network)
        } else {
            Err(format!("`{text}` has an address with bits after its first {bits}: write the network's own address"))
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_begins_with_its_bits() {
        for (network, inside, outside) in [
            ("10.20.0.0/16", "10.20.255.255", "10.21.0.0"),
            ("127.0.0.1/32", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("fd00:1::/32", "fd00:1:ffff::1", "fd00:2::"),
            ("::1/128", "::1", "::2"),
            ("::/0", "fe80::1", "127.0.0.1"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.to_string(), network);
            assert!(parsed.contains(inside.parse().unwrap()), "{inside} in {network}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{outside} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.1.0.0/8", "::1/129", "fd00::1/8", "x/8"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports_are_a_list_or_any() {
        let read = |text: &str| serde_json::from_str::<EgressConfig>(&format!("{{\"ports\":{text}}}"));
        assert_eq!(read("[443,8443]").unwrap().ports, Ports::Only(vec![443, 8443]));
        assert_eq!(read("\"any\"").unwrap().ports, Ports::Any);
        for text in ["\"all\"", "[]", "443", "[65536]", "[\"any\"]"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
