//! The rules, pure: no IO, no clock, no random numbers.

pub(crate) mod addresses;
pub(crate) mod key_life;
pub(crate) mod links;
pub(crate) mod lockout;
pub(crate) mod names;
pub(crate) mod passwords;
pub(crate) mod rotation;

use stormwire_core::{Pattern, Timestamp};
use stormwire_tokens::Role;

/// An account as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) id: String,
    /// As it is shown; none where somebody signed up by mail address alone.
    pub(crate) name: Option<String>,
    pub(crate) email: Option<SealedText>,
    pub(crate) email_verified: bool,
    /// A hash, as text that says how it was made.
    pub(crate) password: String,
    pub(crate) role: Role,
    /// Whether it may not sign in.
    pub(crate) blocked: bool,
    /// When role or block changed last.
    pub(crate) changed_at: Timestamp,
}

/// Bytes that only the key ring opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedText {
    /// Which key of the ring.
    pub(crate) key: String,
    pub(crate) bytes: Vec<u8>,
}

/// A sign-in: the family of refresh tokens that began with one password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) created_at: Timestamp,
    pub(crate) used_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) ip: String,
    pub(crate) agent: String,
}

/// A key of a backend, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiKey {
    pub(crate) id: String,
    pub(crate) account: String,
    /// What it is for.
    pub(crate) label: String,
    pub(crate) publish: Vec<Pattern>,
    pub(crate) subscribe: Vec<Pattern>,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// When it was last exchanged.
    pub(crate) used_at: Option<Timestamp>,
}

/// What a mail's token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Shows that the address is its owner's.
    Verify,
    /// Sets a new password.
    Reset,
}

impl Purpose {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Reset => "reset",
        }
    }
}
