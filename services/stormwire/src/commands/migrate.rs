//! `stormwire migrate`.

use crate::config::Config;
use crate::failure::Failure;
use crate::output;
use crate::roles::identity_config;
use std::sync::Arc;
use stormwire_core::SystemClock;
use stormwire_engine::{ArchiveUrl, EngineConfig, Engines, redact};
use stormwire_identity::Identity;

/// Brings the archive's schema up to date, and that of the accounts where it is asked for.
pub(crate) async fn run(accounts: bool, config: &Config) -> Result<(), Failure> {
    // This command migrates itself and waits for it.
    let engine = EngineConfig { migrate_at_start: false, ..config.engine.clone() };
    let mut engines = Engines::new(engine, Arc::new(SystemClock));
    let archive = engines.archive().await.map_err(Failure::unavailable)?;
    let url = match &config.engine.archive {
        ArchiveUrl::Sqlite => config.data_dir.display().to_string(),
        ArchiveUrl::Postgres(url) => redact(url),
    };
    let told = |error: &dyn std::fmt::Display| {
        Failure::unavailable(format!(
            "{url}: {error}; check archive.url (DATABASE_URL) and that its user may create tables"
        ))
    };
    archive.migrate().await.map_err(|error| told(&error))?;
    engines.close().await;
    output::line(format!("the archive at {url} has this program's schema"))?;
    if accounts {
        let database = identity_config(config, None).database;
        Identity::migrate(&database).await.map_err(|error| told(&error))?;
        output::line("so have the accounts")?;
    }
    Ok(())
}
