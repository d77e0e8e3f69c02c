//! A copy of a database as of one moment, while a process works on it or not.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use std::path::Path;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// SQLite could not read the one or write the other.
    #[error("it cannot be copied: {0}")]
    Database(#[from] sqlx::Error),
    /// What was written is not whole.
    #[error("the copy is damaged: {0}")]
    Damaged(String),
}

/// Copies the database at `from` into `to`, which must not be there: one read transaction sees all that is
/// committed, and nothing of what comes meanwhile. Writers are not held up.
///
/// # Errors
/// [`CopyError`].
pub async fn copy_database(from: &Path, to: &Path) -> Result<(), CopyError> {
    let open = |path: &Path| {
        SqliteConnectOptions::new().filename(path).read_only(true).disable_statement_logging()
    };
    let mut source = open(from).connect().await?;
    sqlx::query("VACUUM INTO ?1")
        .bind(to.to_string_lossy().into_owned())
        .execute(&mut source)
        .await?;
    source.close().await?;
    let mut copy = open(to).connect().await?;
    let said: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut copy).await?;
    copy.close().await?;
    if said == "ok" { Ok(()) } else { Err(CopyError::Damaged(said)) }
}
