//! From where a request comes: the address of the connection, or what a proxy of ours says of whoever connected to it.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Network;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// The address of a client. Each proxy adds the address of whoever connected to it behind what was there (`X-Forwarded-For`), so it is read from
/// the end, and only as far as proxies are known: what stands before them may be anybody's invention.
pub(super) fn of(Peer(peer): Peer, headers: &HeaderMap, proxies: &[Network]) -> IpAddr {
    let is_proxy = |address: IpAddr| proxies.iter().any(|network| network.contains(address));
    let mut address = peer.to_canonical();
    let said: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    for said in said.iter().rev().flat_map(|said| said.rsplit(|byte| *byte == b',')) {
        if !is_proxy(address) {
            break;
        }
        let Some(before) = std::str::from_utf8(said).ok().and_then(|said| parsed(said.trim())) else { break };
        address = before;
    }
    address
}

/// An address, with or without a port.
fn parsed(text: &str) -> Option<IpAddr> {
    let alone = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = alone.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, said: &[&'static str]) -> String {
        let proxies = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let said = said.iter().map(|said| (FORWARDED_FOR, HeaderValue::from_str(said).unwrap()));
        of(Peer(peer.parse().unwrap()), &said.collect(), &proxies).to_string()
    }

    #[test]
    fn what_a_proxy_of_ours_says_is_believed_and_nothing_before_it() {
        assert_eq!(from("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("10.0.0.1", &["192.0.2.9, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(from("10.0.0.1", &["192.0.2.9", "198.51.100.7,10.0.0.2"]), "198.51.100.7");
        assert_eq!(from("10.0.0.1", &["\u{e9}, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("fd00::1", &["[2001:db8::5]:4711"]), "2001:db8::5");
        assert_eq!(from("::ffff:10.0.0.1", &["198.51.100.7:80"]), "198.51.100.7");
    }

    #[test]
    fn what_anybody_else_says_is_not() {
        assert_eq!(from("203.0.113.4", &["198.51.100.7"]), "203.0.113.4");
        assert_eq!(from("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["198.51.100.7, nonsense"]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"]), "10.0.0.2");
    }
}
