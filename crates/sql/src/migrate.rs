//! Bringing a schema up to date.

use sqlx::migrate::{Migrate, MigrateError, Migrator};

/// Why a schema could not be brought up to date; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database was migrated by a newer program.
    #[error(
        "the database has migration {0}, which this program does not know: it was used by a newer version; start that version, or restore a copy from before"
    )]
    Newer(i64),
    /// A migration that was applied is not the one that this program carries.
    #[error(
        "migration {0} was applied in another form than this program carries; the file or the program was changed by hand"
    )]
    Changed(i64),
    /// An earlier attempt stopped half-way.
    #[error("migration {0} was begun and not finished; restore a copy from before it")]
    Unfinished(i64),
    /// The database failed or refused a statement.
    #[error("a migration failed: {0}")]
    Failed(#[source] MigrateError),
}

impl From<MigrateError> for MigrationError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) => Self::Newer(version),
            MigrateError::VersionMismatch(version) => Self::Changed(version),
            MigrateError::Dirty(version) => Self::Unfinished(version),
            other => Self::Failed(other),
        }
    }
}

/// Applies the migrations that `connection`'s database lacks, in order. The database's own lock keeps
/// two programs from doing it at the same time.
///
/// # Errors
/// [`MigrationError`].
pub async fn migrate<C: Migrate>(
    migrator: &Migrator,
    connection: &mut C,
) -> Result<(), MigrationError> {
    Ok(migrator.run_direct(None, connection, false).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::SqliteConnection;
    use sqlx::migrate::{Migration, MigrationType};
    use sqlx::{AssertSqlSafe, Connection as _, SqlSafeStr as _};

    fn migrator(statements: &[&'static str]) -> Migrator {
        let migrations = statements.iter().zip(1..).map(|(sql, version)| {
            let sql = AssertSqlSafe(*sql).into_sql_str();
            Migration::new(version, "test".into(), MigrationType::Simple, sql, false)
        });
        Migrator::with_migrations(migrations.collect())
    }

    #[tokio::test]
    async fn a_schema_is_brought_up_once_and_never_down() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let one = migrator(&["CREATE TABLE a (x INTEGER)"]);
        let two = migrator(&["CREATE TABLE a (x INTEGER)", "CREATE TABLE b (x INTEGER)"]);
        for migrator in [&one, &two, &two] {
            migrate(migrator, &mut connection).await.unwrap();
        }
        let newer = migrate(&one, &mut connection).await.unwrap_err();
        assert!(matches!(newer, MigrationError::Newer(2)), "{newer}");
        let changed = migrator(&["CREATE TABLE a (y INTEGER)", "CREATE TABLE b (x INTEGER)"]);
        let changed = migrate(&changed, &mut connection).await.unwrap_err();
        assert!(matches!(changed, MigrationError::Changed(1)), "{changed}");
    }

    #[tokio::test]
    async fn a_statement_that_fails_is_told() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let error = migrate(&migrator(&["CREATE NONSENSE"]), &mut connection).await.unwrap_err();
        assert!(error.to_string().contains("NONSENSE"), "{error}");
    }
}
