//! `stormwire journal`: how the logs stand, and a new epoch for one that has gone back.

mod new_epoch;
mod status;

pub(crate) use new_epoch::begin_new_epoch;

use crate::cli::Journal;
use crate::config::Config;
use crate::failure::Failure;
use std::sync::Arc;
use stormwire_core::SystemClock;
use stormwire_engine::Engines;

/// Does it.
pub(crate) async fn run(command: Journal, config: &Config) -> Result<(), Failure> {
    let mut engines = Engines::new(config.engine.clone(), Arc::new(SystemClock));
    let outcome = match command {
        Journal::Status { json } => status::run(&mut engines, config, json).await,
        Journal::NewEpoch(args) => new_epoch::run(&mut engines, config, &args).await,
    };
    engines.close().await;
    outcome
}
