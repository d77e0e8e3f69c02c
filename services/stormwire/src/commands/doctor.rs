//! `stormwire doctor`.

use crate::cli::DoctorArgs;
use crate::config::Config;
use crate::failure::Failure;

/// Checks everything.
pub(crate) async fn run(_args: DoctorArgs, _config: &Config) -> Result<(), Failure> {
    Ok(())
}
