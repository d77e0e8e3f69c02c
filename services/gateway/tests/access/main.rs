//! Who may do what, and who no longer may: over WebSocket, Server-Sent Events and REST.

#![expect(clippy::unwrap_used, reason = "a test ends where it is not as expected")]

mod admin;
mod kit;
mod revocation;
mod rights;
mod schemas;
