//! The archive on real Postgres servers.

mod channels;
mod conformance;
mod faults;
mod history;
mod kit;
mod leases;
mod persist;
