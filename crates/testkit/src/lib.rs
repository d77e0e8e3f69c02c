//! Real servers for tests and local clusters: there are no mocks of NATS, Postgres or Redis here.
//!
//! A test says `let Some(nats) = NatsServer::start().await else { return };` and has a server of its
//! own on a free port, with its data in a folder that goes away. `None` means that the program isn't
//! on this machine: the test says so and ends, or fails where `STORMWIRE_TEST_REQUIRE=1` is set.
//! `cargo xtask tools` provides the programs.
//!
//! Servers can be killed, paused, resumed and restarted on the same port; [`proxy::Proxy`] spoils the
//! network between. Each ends with its handle, and with the test process however that ends. What a
//! server wrote is printed when its test fails; `STORMWIRE_TEST_KEEP=1` keeps the folders.

mod binaries;
#[cfg(feature = "containers")]
mod container;
mod decorate;
mod place;
mod ports;
mod process;
mod server;
mod wait;

pub mod faults;
pub mod nats;
pub mod postgres;
pub mod proxy;
pub mod redis;

pub use binaries::{NATS_VERSION, Program, faketime, workspace_root};
pub use decorate::{AroundJournal, Decorated};
pub use place::Folder;
pub use ports::Port;
pub use server::{Launch, Server, StartError};
pub use wait::{http_ok, wait_for, wait_until};

use std::io::Write as _;

/// Whether an absent server fails a test instead of skipping it (`STORMWIRE_TEST_REQUIRE=1`).
pub fn required() -> bool {
    std::env::var_os("STORMWIRE_TEST_REQUIRE").is_some_and(|value| value == "1")
}

/// Ends in a skip (`None`) where the program isn't there, in a panic for any other failure.
fn started<T>(outcome: Result<T, StartError>) -> Option<T> {
    match outcome {
        Ok(server) => Some(server),
        Err(StartError::Absent(program)) if !required() => {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            // Past the test harness's capture: a skip must not look like a pass.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED {test}: no {} on this machine; `cargo xtask tools` provides it",
                program.executable()
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}
