//! Identities that another provider vouches for, and the way of a sign-in through one.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use stormwire_core::{Refusal, Timestamp};

/// How long somebody may take at the provider.
pub(crate) const FLOW_TTL: std::time::Duration = std::time::Duration::from_secs(600);
/// How long a ticket waits for the application that asked for it.
pub(crate) const TICKET_TTL: std::time::Duration = std::time::Duration::from_secs(120);
/// Longest subject that is stored, in bytes (OpenID Connect allows 255 characters).
const SUBJECT_BYTES_MAX: usize = 255;
/// Longest address to return to, in bytes.
const RETURN_BYTES_MAX: usize = 512;
/// Letters of a challenge or a verifier (RFC 7636).
const CHALLENGE: usize = 43;
const VERIFIER: std::ops::RangeInclusive<usize> = 43..=128;

/// Somebody, as a provider knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct External {
    /// The provider's name in the configuration.
    pub(crate) provider: String,
    /// Who vouches: the issuer, or where a provider without OpenID Connect tells about its users.
    pub(crate) authority: String,
    /// The provider's name for them, which never changes.
    pub(crate) subject: String,
    /// What they would like to be called.
    pub(crate) name: Option<String>,
    /// An address that the provider has verified, and whose word for it is taken.
    pub(crate) email: Option<String>,
}

/// A link between an account and an [`External`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) id: String,
    pub(crate) authority: String,
    pub(crate) subject: String,
    pub(crate) account: String,
    pub(crate) provider: String,
    pub(crate) created_at: Timestamp,
}

/// A sign-in under way. It travels sealed in a cookie, so that nothing is stored for whoever only begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) provider: String,
    pub(crate) state: String,
    pub(crate) nonce: String,
    /// The secret half of PKCE.
    pub(crate) verifier: String,
    /// Where the provider sends the browser.
    pub(crate) redirect: String,
    pub(crate) wish: Wish,
    /// Unix milliseconds.
    pub(crate) until: i64,
}

/// What whoever begins wants to get in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// A ticket that only the verifier of this challenge opens, instead of tokens.
    pub(crate) challenge: Option<String>,
    /// Where the browser is to go with the ticket.
    pub(crate) return_to: Option<String>,
}

/// What a ticket stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    pub(crate) external: External,
    pub(crate) challenge: String,
}

impl Wish {
    /// Checks what was asked for against the pages that are allowed.
    pub(crate) fn check(&self, return_urls: &[String]) -> Result<(), Refusal> {
        if let Some(challenge) = &self.challenge
            && (challenge.len() != CHALLENGE || !is_base64_url(challenge))
        {
            let message = "expected the SHA-256 of the verifier in base64url, 43 letters";
            return Err(Refusal::invalid_field("challenge", message));
        }
        let Some(url) = &self.return_to else { return Ok(()) };
        if self.challenge.is_none() {
            let message = "a ticket is only given to a page that sends a challenge for it";
            return Err(Refusal::invalid_field("challenge", message));
        }
        let plain = url.len() <= RETURN_BYTES_MAX
            && url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if plain && return_urls.contains(url) {
            return Ok(());
        }
        let message = "expected one of the pages in identity.return_urls, letter for letter";
        Err(Refusal::invalid_field("return_to", message))
    }
}

/// Whether `verifier` is the one of `challenge`.
pub(crate) fn opens(challenge: &str, verifier: &str) -> bool {
    let hash = Sha256::digest(verifier.as_bytes());
    VERIFIER.contains(&verifier.len()) && BASE64_URL_SAFE_NO_PAD.encode(hash) == challenge
}

/// A subject that can be stored.
pub(crate) fn subject(text: &str) -> Option<String> {
    let fits = (1..=SUBJECT_BYTES_MAX).contains(&text.len());
    (fits && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

fn is_base64_url(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_opened_by_its_verifier_alone() {
        // RFC 7636, appendix B.
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert!(opens(challenge, verifier));
        for other in ["", challenge, &verifier[..42], &verifier.to_lowercase()] {
            assert!(!opens(challenge, other), "{other}");
        }
    }

    #[test]
    fn only_named_pages_are_returned_to_and_only_with_a_challenge() {
        let pages = ["https://app.example/in".to_owned()];
        let challenge = Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned());
        let check = |challenge: &Option<String>, page: Option<&str>| {
            let return_to = page.map(str::to_owned);
            Wish { challenge: challenge.clone(), return_to }.check(&pages).is_ok()
        };
        assert!(check(&None, None) && check(&challenge, None));
        assert!(check(&challenge, Some("https://app.example/in")));
        assert!(!check(&None, Some("https://app.example/in")));
        for page in [
            "https://app.example/in/",
            "https://app.example/in?x",
            "https://app.example.evil/in",
            "https://app.example/in#x",
            "//app.example/in",
            "javascript:alert(1)",
            "",
        ] {
            assert!(!check(&challenge, Some(page)), "{page}");
        }
        for bad in ["", "short", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM"] {
            assert!(!check(&Some(bad.to_owned()), None), "{bad}");
        }
    }
}
