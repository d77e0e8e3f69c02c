//! Workers on real engines: the embedded one, and NATS with Postgres.

mod dead_letters;
mod engines;
mod faults;
mod kit;
mod sharing;
