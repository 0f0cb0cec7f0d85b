//! Identifies clients by address, for per-client limits.
//!
//! nginx overwrites `X-Forwarded-For` with the address that it trusts. Requests without the header, on connections that bypass
//! nginx, count as one client, so that bypassing nginx never increases a client's share.

use std::net::{IpAddr, Ipv6Addr};

use warp::http::HeaderMap;

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
        let forwarded = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
        // Behind more than one proxy the last address is the one that the nearest proxy received the connection from.
        let address = forwarded.and_then(|value| value.rsplit(',').next()?.trim().parse().ok());
        match address {
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

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    fn client(forwarded: &'static str) -> Client {
        Client::of(&HeaderMap::from_iter([(
            "x-forwarded-for".parse().expect("a name"),
            HeaderValue::from_static(forwarded),
        )]))
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
