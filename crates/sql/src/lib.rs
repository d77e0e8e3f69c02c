//! SQL toolbox: what the engines that keep tables share, so that a pool is bounded, measured and
//! migrated in the same way whichever database is behind it.
//!
//! - [`Pool`]: a bounded pool whose size, idle and waiting counts are metrics;
//! - [`migrate`]: brings a schema up to what the program carries, and says clearly when it cannot;
//!   [`lacking`] only looks;
//! - [`is_temporary`]: which errors another attempt may mend.
//!
//! Migrations belong to the engine whose tables they make: each keeps its own under `migrations/` and
//! hands them in as a [`sqlx::migrate::Migrator`].

mod migrate;
mod pool;

pub use migrate::{MigrationError, lacking, migrate};
pub use pool::{Pool, PoolConfig, PoolState};

use sqlx::error::ErrorKind;

/// Whether the same statement may succeed later without a change to it: the connection failed, the
/// database is busy, restarting or out of resources, or a transaction lost against another one.
#[must_use]
pub fn is_temporary(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(database) => {
            database.kind() == ErrorKind::Other
                && database.code().is_some_and(|code| is_temporary_code(&code))
        }
        _ => false,
    }
}

/// Postgres' SQLSTATE classes 08 (connection), 40 (lost against another transaction), 53 (out of
/// resources), 55 (a lock is held), 57 (restarting) and 58 (system), and SQLite's primary codes 5
/// (busy), 6 (locked), 10 (input or output) and 13 (full).
fn is_temporary_code(code: &str) -> bool {
    if code.len() == 5 {
        return matches!(&code[..2], "08" | "40" | "53" | "55" | "57" | "58");
    }
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_attempt_may_mend_is_temporary() {
        assert!(is_temporary(&sqlx::Error::PoolTimedOut));
        assert!(!is_temporary(&sqlx::Error::RowNotFound));
        for code in ["08006", "40001", "53300", "57P01", "5", "261", "13"] {
            assert!(is_temporary_code(code), "{code}");
        }
        for code in ["23505", "42P01", "22021", "1", "19", "2067"] {
            assert!(!is_temporary_code(code), "{code}");
        }
    }
}
