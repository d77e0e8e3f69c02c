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
    /// A migration is missing, and this user may not make it.
    #[error(
        "the schema lacks migration {0}, and this user may not change the schema: run `stormwire migrate` as the role that owns it"
    )]
    Forbidden(i64),
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
/// two programs from doing it at the same time. Where none is lacking nothing is changed, and no right to
/// change anything is needed.
///
/// # Errors
/// [`MigrationError`].
pub async fn migrate<C: Migrate>(
    migrator: &Migrator,
    connection: &mut C,
) -> Result<(), MigrationError> {
    let Some(lacking) = lacking(migrator, connection).await? else { return Ok(()) };
    migrator.run_direct(None, connection, false).await.map_err(|error| {
        if is_forbidden(&error) { MigrationError::Forbidden(lacking) } else { error.into() }
    })
}

/// The first migration that `connection`'s database lacks. Where its list of them cannot be read, because
/// there is none yet, it lacks the first.
///
/// # Errors
/// [`MigrationError`]: what was applied is not what this program carries.
pub async fn lacking<C: Migrate>(
    migrator: &Migrator,
    connection: &mut C,
) -> Result<Option<i64>, MigrationError> {
    let applied = connection.list_applied_migrations(&migrator.table_name).await;
    let applied = applied.unwrap_or_default();
    if let Some(newer) = applied.iter().find(|one| !migrator.version_exists(one.version)) {
        return Err(MigrationError::Newer(newer.version));
    }
    for migration in migrator.iter() {
        match applied.iter().find(|one| one.version == migration.version) {
            None => return Ok(Some(migration.version)),
            Some(one) if one.checksum != migration.checksum => {
                return Err(MigrationError::Changed(migration.version));
            }
            Some(_) => {}
        }
    }
    // Only asked where there is a list.
    match connection.dirty_version(&migrator.table_name).await {
        Ok(Some(version)) => Err(MigrationError::Unfinished(version)),
        Ok(None) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// SQLSTATE of a right that the user does not have.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

fn is_forbidden(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == INSUFFICIENT_PRIVILEGE)
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
        for (migrator, missing) in [(&one, Some(1)), (&two, Some(2)), (&two, None)] {
            assert_eq!(lacking(migrator, &mut connection).await.unwrap(), missing);
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
