//! Where a request came from, when proxies stand in between.

use http::{HeaderMap, HeaderName};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A network: an address, and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network; expected an address or as in 10.0.0.0/8, fd00::/8")]
pub struct NotANetwork(String);

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let bad = || NotANetwork(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| bad())?;
        if bits > most { Err(bad()) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// The proxies whose word about a client's address counts; by default nobody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// Those within `networks`.
    #[must_use]
    pub const fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Where a request that `peer` sent came from. Each proxy adds the address that it was asked from at the
    /// end of `X-Forwarded-For`, so the list is believed from its end, for as long as who added it is
    /// trusted: what stands before that, anybody may have written.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines: Vec<_> =
            headers.get_all(FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
        let said = lines.iter().rev().flat_map(|line| line.rsplit(','));
        for said in said {
            if !self.0.iter().any(|network| network.holds(client)) {
                return client;
            }
            let Some(before) = parse(said.trim()) else { return client };
            client = before.to_canonical();
        }
        client
    }
}

/// An address, which some proxies write with a port.
fn parse(text: &str) -> Option<IpAddr> {
    let plain = || text.trim_start_matches('[').trim_end_matches(']').parse().ok();
    text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()).or_else(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn client(trusted: &[&str], peer: &str, said: &[&str]) -> String {
        let networks = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for line in said {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        TrustedProxies::new(networks).client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_table_of_who_is_believed() {
        let inside = &["10.0.0.0/8", "fd00::/8"][..];
        let table = [
            // Nobody is trusted, or not this peer.
            (&[][..], "10.0.0.1", &["192.0.2.7"][..], "10.0.0.1"),
            (inside, "192.0.2.1", &["198.51.100.9"], "192.0.2.1"),
            (inside, "10.0.0.1", &[], "10.0.0.1"),
            (inside, "10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            // What the client wrote itself stands before what the proxy added.
            (inside, "10.0.0.1", &["1.1.1.1, 192.0.2.7"], "192.0.2.7"),
            (inside, "10.0.0.1", &["1.1.1.1", "192.0.2.7"], "192.0.2.7"),
            // Two proxies of one's own.
            (inside, "10.0.0.1", &["1.1.1.1, 192.0.2.7, 10.9.9.9"], "192.0.2.7"),
            (inside, "10.0.0.1", &["10.1.1.1"], "10.1.1.1"),
            // Rubbish ends the belief.
            (inside, "10.0.0.1", &["192.0.2.7, nonsense"], "10.0.0.1"),
            (inside, "10.0.0.1", &["192.0.2.7, nonsense, 10.2.2.2"], "10.2.2.2"),
            (inside, "10.0.0.1", &[""], "10.0.0.1"),
            // Ports, brackets, and IPv4 in IPv6's clothes.
            (inside, "10.0.0.1", &["192.0.2.7:4711"], "192.0.2.7"),
            (inside, "fd00::1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            (inside, "fd00::1", &["[2001:db8::7]"], "2001:db8::7"),
            (inside, "::ffff:10.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7"),
            (&["0.0.0.0/0"], "192.0.2.1", &["198.51.100.9"], "198.51.100.9"),
        ];
        for (trusted, peer, said, expected) in table {
            assert_eq!(client(trusted, peer, said), expected, "{trusted:?} {peer} {said:?}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in ["", "x", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::/129", "10.0.0.0/-1"] {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
        assert_eq!("10.0.0.1".parse::<Network>().unwrap().to_string(), "10.0.0.1/32");
        assert!("::1".parse::<Network>().unwrap().holds("::1".parse().unwrap()));
        assert!(!"::1".parse::<Network>().unwrap().holds("::2".parse().unwrap()));
    }
}
