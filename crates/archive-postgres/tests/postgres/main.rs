//! The archive on real Postgres servers.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as its body may")]

mod channels;
mod conformance;
mod faults;
mod history;
mod kit;
mod leases;
mod persist;
mod replica;
mod retention;
mod roles;
