//! Presence and signals through real gateways: one alone, and several on one Redis and one NATS.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a panic is a failed test")]

mod alone;
mod client;
mod cluster;
mod kit;
mod random;
