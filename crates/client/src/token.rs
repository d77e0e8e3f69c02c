//! When a token wants to be replaced.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::Duration;
use stormwire_core::Timestamp;

/// How long this token is good for from `now` (the server's time); `None` if it is no JWT or does not
/// say. Nothing is verified: that is the server's part.
pub(crate) fn lifetime(token: &str, now: Timestamp) -> Option<Duration> {
    #[derive(serde::Deserialize)]
    struct Expiry {
        exp: i64,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let expiry: Expiry = serde_json::from_slice(&payload).ok()?;
    Some(Timestamp(expiry.exp.checked_mul(1000)?).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lifetime_is_read_from_the_claims() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"alice","exp":100}"#);
        let token = format!("e30.{claims}.c2ln");
        assert_eq!(lifetime(&token, Timestamp(40_000)), Some(Duration::from_secs(60)));
        assert_eq!(lifetime(&token, Timestamp(140_000)), Some(Duration::ZERO));
        assert_eq!(lifetime("opaque", Timestamp(0)), None);
    }
}
