//! IDENTITY: accounts, sign-ins, and the only place that signs tokens.
//!
//! The way of a sign-in: `http` reads the request and where it came from; `service` finds the account,
//! counts the attempt (`domain::lockout`), has the password compared off the async threads (`hashing`),
//! opens a session in the `store`, and signs an access token with the newest of its `keys`. Everything
//! else only verifies, against the JWKS that [`Identity::jwks`] gives and `/.well-known/jwks.json` serves.
//! `domain` holds the rules and does no IO.
//!
//! A server without accounts makes itself a [`DevelopmentKey`] at its first start and signs tokens with it
//! for whoever can read its data directory.

mod config;
mod development;
mod domain;
mod hashing;
mod http;
mod key_file;
mod key_ring;
mod keys;
mod mail;
mod post;
mod providers;
mod secrets;
mod service;
mod signing;
mod store;
mod upkeep;

pub use config::{IdentityConfig, Registration};
pub use development::{DevelopmentKey, KeyFileError, SignError, TokenRequest};
pub use http::openapi_document;
pub use key_ring::KeyRingError;
pub use mail::{LogMailer, Mail, MailError, Mailer};
pub use providers::{Protocol, ProviderConfig, SecretError};
pub use service::{Identity, IdentityError};
pub use signing::SigningAlgorithm;
pub use store::Database;
