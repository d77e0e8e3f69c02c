//! Which errors count against Postgres, and what the caller is told.

use std::borrow::Cow;
use stormwire_archive::{ArchiveError, PersistError};
use stormwire_core::{FrameSeq, Partition};
use stormwire_guard::GuardError;

/// Raised by `stormwire_advance`: another worker holds the lease.
const LEASE_LOST: &str = "SW001";
/// Raised by `stormwire_advance`: the ledger stands elsewhere.
const LEDGER_MOVED: &str = "SW002";
/// Raised by `stormwire_maintains`: another worker maintains the archive.
pub(crate) const MAINTAINED: &str = "SW004";
/// SQLSTATE of a table or function that is not there.
const UNDEFINED: [&str; 2] = ["42P01", "42883"];

/// Whether the error is the answer of a healthy server, which says nothing against it.
pub(crate) fn is_answer(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or(Cow::Borrowed(""));
            !matches!(code.get(..2), Some("08" | "53" | "55" | "57" | "58" | "XX"))
        }
        sqlx::Error::RowNotFound
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_) => true,
        _ => false,
    }
}

/// Whether Postgres refuses the rows themselves: a data exception (class 22), a broken constraint (23)
/// or a limit of the program (54). Without these rows the batch would go through.
pub(crate) fn refuses_data(error: &sqlx::Error) -> bool {
    code_of(error).is_some_and(|code| matches!(code.get(..2), Some("22" | "23" | "54")))
}

/// What a caller is told of an error that is an answer.
pub(crate) fn answered(error: &sqlx::Error) -> ArchiveError {
    match code_of(error) {
        Some(code) if UNDEFINED.contains(&&*code) => ArchiveError::Unavailable(format!(
            "the schema is not there yet ({error}); it is made at start or by `stormwire migrate`"
        )),
        _ if is_answer(error) => ArchiveError::Protocol(error.to_string()),
        _ => ArchiveError::Unavailable(error.to_string()),
    }
}

/// What a caller is told of a guarded call that gave nothing.
pub(crate) fn unavailable(error: GuardError<sqlx::Error>) -> ArchiveError {
    match error {
        GuardError::Failed(sqlx::Error::PoolTimedOut) => {
            ArchiveError::Unavailable("no free connection in time".to_owned())
        }
        other => ArchiveError::Unavailable(other.to_string()),
    }
}

/// What `stormwire_advance` raised, where it is one of its own.
pub(crate) fn raised(
    error: &sqlx::Error,
    partition: Partition,
    expected: FrameSeq,
) -> Option<PersistError> {
    match code_of(error)?.as_ref() {
        LEASE_LOST => Some(PersistError::LeaseLost(partition)),
        LEDGER_MOVED => {
            let found = detail_of(error)?.parse().ok()?;
            Some(PersistError::LedgerMoved { partition, expected, found })
        }
        _ => None,
    }
}

pub(crate) fn code_of(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error()?.code()
}

fn detail_of(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?.detail()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_counts_against_the_server_and_a_missing_row_does_not() {
        assert!(!is_answer(&sqlx::Error::PoolTimedOut));
        assert!(!is_answer(&sqlx::Error::WorkerCrashed));
        assert!(is_answer(&sqlx::Error::RowNotFound));
        let waited = unavailable(GuardError::Failed(sqlx::Error::PoolTimedOut));
        assert!(waited.to_string().contains("free connection"), "{waited}");
    }
}
