//! Real servers for tests and local clusters: there are no mocks of NATS, Postgres or Redis here.
mod binaries;

pub use binaries::{NATS_VERSION, Program, workspace_root};
