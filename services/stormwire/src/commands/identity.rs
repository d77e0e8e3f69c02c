//! `stormwire identity rotate-key`, `reseal`, `grant`.

use crate::cli::IdentityCommand;
use crate::config::Config;
use crate::failure::Failure;
use crate::output;
use crate::roles::identity_config;
use std::sync::Arc;
use stormwire_core::SystemClock;
use stormwire_identity::Identity;

/// Does one thing and ends; a service that runs sees it within half a minute.
pub(crate) async fn run(command: IdentityCommand, config: &Config) -> Result<(), Failure> {
    let clock = Arc::new(SystemClock);
    let opened = Identity::for_command(identity_config(config, None), clock).await;
    let identity = opened.map_err(Failure::unavailable)?;
    match command {
        IdentityCommand::RotateKey => {
            let (name, from) = identity.rotate_key().await.map_err(Failure::failed)?;
            output::line(format!("{name} signs from {}", from.to_rfc3339()))
        }
        IdentityCommand::Reseal => {
            let count = identity.reseal().await.map_err(Failure::failed)?;
            output::line(format!("{count} sealed anew"))
        }
        IdentityCommand::Grant { name, role } => {
            identity.grant(&name, role).await.map_err(Failure::failed)?;
            output::line(format!(
                "{name} is {role}; it is in the tokens that are signed from now on"
            ))
        }
    }
}
