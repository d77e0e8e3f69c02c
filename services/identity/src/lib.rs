//! IDENTITY: the only place that signs tokens.
//!
//! A server that runs on its own makes itself a [`DevelopmentKey`] at its first start and signs tokens
//! with it for whoever can read its data directory. Everything else only verifies, against the JWKS
//! that [`DevelopmentKey::jwks`] gives.

mod development;

pub use development::{DevelopmentKey, KeyFileError, SignError, TokenRequest};
