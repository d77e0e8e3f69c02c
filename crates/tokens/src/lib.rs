//! TOKENS: who somebody is and what they may do, read from a signed token.
//!
//! A [`Verifier`] holds the public keys of the identity provider (ours or any OIDC provider), keeps them
//! fresh, and turns a token into [`Claims`] or into a refusal that says what is wrong. It verifies and
//! never signs. What the token grants is in [`Rights`], what its namespace allows in [`Rules`]; one
//! function, [`decide`], makes of both what its bearer may, and what neither grants is denied.
//!
//! The algorithm is the key's, never the token's; keys that can sign as well as verify (HMAC) are not
//! accepted at all. Time comes from the clock that is handed in.

mod access;
mod cache;
mod channel_tokens;
mod claims;
mod distinct;
mod keys;
mod mapping;
mod revocations;
mod rights;
mod roles;
mod source;
mod verifier;

pub use access::{Access, Bearer, ChannelGrant, Namespaces, Rules, SYSTEM, Target, decide};
pub use claims::{ChannelClaims, Claims, TokenClaims, TokenLimits};
pub use distinct::Distinct;
pub use keys::KeyError;
pub use mapping::{ClaimMapping, RoleRights};
pub use revocations::{Revocation, RevocationFeed, RevocationPage, RevocationUrl};
pub use rights::{Action, Rights};
pub use roles::{Permission, Role};
pub use source::{KeySource, SourceError};
pub use verifier::{Verifier, VerifierConfig};
