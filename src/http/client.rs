//! Identifies clients by address, for per-client limits.
//!
//! nginx overwrites `X-Forwarded-For` with the address that it trusts. The server overwrites it for connections from a public
//! address ([`is_public`]), which are not nginx's. Other requests without the header, on connections that bypass nginx, count
//! as one client, so that bypassing nginx never increases a client's share.

use std::net::{IpAddr, Ipv6Addr};

use warp::http::header::HeaderName;
use warp::http::{HeaderMap, HeaderValue};

/// The header with the address of the client.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A client, identified by its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

/// All clients whose address is unknown.
const UNKNOWN: Client = Client(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
/// An IPv6 client is its /64, because a site is assigned at least that many addresses (RFC 6177).
const SITE: u128 = !((1 << 64) - 1);

impl Client {
    /// The client that sent these headers.
    pub fn of(headers: &HeaderMap) -> Self {
        match nearest(headers) {
            Some(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                Some(address) => Self(IpAddr::V4(address)),
                None => Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & SITE))),
            },
            Some(address) => Self(address),
            None => UNKNOWN,
        }
    }

    /// The identifying address.
    pub fn address(self) -> IpAddr {
        self.0
    }
}

/// The address from which the nearest proxy received the request: the last one, also if that proxy added a line to a client's.
pub fn nearest(headers: &HeaderMap) -> Option<IpAddr> {
    let line: &HeaderValue = headers.get_all(FORWARDED_FOR).iter().next_back()?;
    line.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

/// Returns true if a peer is not this machine, in a private network, or in the IPv6 site (a /48) of this address: nginx may be
/// there.
pub fn is_public(peer: IpAddr, here: IpAddr) -> bool {
    match (peer.to_canonical(), here.to_canonical()) {
        (peer, here) if peer == here => false,
        (IpAddr::V4(peer), _) => {
            // RFC 6598, for carriers and for the pods of some clusters.
            let is_shared = peer.octets()[0] == 100 && peer.octets()[1] & 0xc0 == 64;
            !(peer.is_loopback() || peer.is_private() || peer.is_link_local() || is_shared)
        }
        (IpAddr::V6(peer), IpAddr::V6(here)) if peer.to_bits() >> 80 == here.to_bits() >> 80 => false,
        (IpAddr::V6(peer), _) => !(peer.is_loopback() || peer.is_unique_local() || peer.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(forwarded: &'static str) -> Client {
        Client::of(&HeaderMap::from_iter([(FORWARDED_FOR, HeaderValue::from_static(forwarded))]))
    }

    #[test]
    fn the_line_of_the_nearest_proxy_is_the_last() {
        let lines = ["192.0.2.9", "192.0.2.1"].map(|line| (FORWARDED_FOR, HeaderValue::from_static(line)));
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            headers.append(name, line);
        }
        assert_eq!(Client::of(&headers), client("192.0.2.1"));
    }

    #[test]
    fn addresses_of_private_networks_and_of_the_own_site_are_not_public() {
        let address = |text: &str| text.parse().expect("an address");
        assert!(!is_public(address("192.0.2.1"), address("192.0.2.1")), "this machine");
        let is_public = |text: &str| is_public(address(text), address("2001:db8:1:2::3"));
        for public in ["192.0.2.1", "100.128.0.1", "172.32.0.1", "2001:db8:2::1", "::ffff:192.0.2.1"] {
            assert!(is_public(public), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.17.0.2",
            "100.64.0.1",
            "169.254.1.1",
            "::1",
            "2001:db8:1:9::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_public(private), "{private}");
        }
    }

    #[test]
    fn clients_are_identified_by_the_nearest_address() {
        assert_eq!(client("192.0.2.1"), client(" 192.0.2.1 "));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("192.0.2.9, 192.0.2.1"), client("192.0.2.1"), "what came before may be made up");
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_eq!(client("nonsense"), Client::of(&HeaderMap::new()));
    }
}
