//! Workers on real engines: the embedded one, and NATS with Postgres.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as its body may")]

mod dead_letters;
mod deliveries;
mod engines;
mod epochs;
mod failover;
mod faults;
mod holes;
mod kit;
mod leaders;
mod sharing;
mod simulation;
