//! Mail addresses, and the network addresses that attempts are counted by.

use std::net::{IpAddr, Ipv6Addr};
use stormwire_core::Refusal;

/// Most bytes of an address.
const BYTES_MAX: usize = 254;
/// Most bytes before the @.
const LOCAL_MAX: usize = 64;

/// A mail address, in lower case: that is how it is stored, found and written to.
pub(crate) fn email(text: &str) -> Result<String, Refusal> {
    let bad = |rule: &str| Err(Refusal::invalid_field("email", rule));
    if text.len() > BYTES_MAX {
        return bad("longer than 254 bytes");
    }
    let Some((local, domain)) = text.rsplit_once('@') else {
        return bad("not an address: it has no @");
    };
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~.-".contains(&c);
    if !(1..=LOCAL_MAX).contains(&local.len()) || !local.bytes().all(plain) {
        return bad("before the @ stand 1 to 64 ASCII letters, digits and !#$%&'*+/=?^_`{|}~.-");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !domain.contains('.') || !domain.split('.').all(label) {
        return bad(
            "after the @ stands a domain, as in example.com (internationalised ones as xn--…)",
        );
    }
    Ok(text.to_ascii_lowercase())
}

/// The network that an address is counted in: IPv6 by /64, which is what one customer has.
pub(crate) fn network(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_lower_case() {
        assert_eq!(email("Alice+x@Example.COM").unwrap(), "alice+x@example.com");
        for bad in [
            "",
            "a",
            "@b.c",
            "a@b",
            "a@b..c",
            "a@-b.c",
            "a b@c.d",
            "a\r\nBcc: x@y.z@c.d",
            "a@b.c\n",
            "ä@b.c",
            "a@b.c@",
            "<a@b.c>",
        ] {
            assert!(email(bad).is_err(), "{bad:?}");
        }
        assert!(email(&format!("{}@b.c", "a".repeat(65))).is_err());
        assert!(email(&format!("a@{}c", "b.".repeat(200))).is_err());
    }

    #[test]
    fn a_network_is_an_address_or_its_64() {
        assert_eq!(network("192.0.2.7".parse().unwrap()), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7".parse().unwrap()), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3::9".parse().unwrap()), "2001:db8:1:2::/64");
    }
}
