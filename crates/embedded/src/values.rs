//! Many rows in one statement. A statement costs a round trip to SQLite's thread, so rows go in chunks
//! of a few fixed sizes: the statements stay prepared, and 256 rows pay for one trip.

use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, SqliteConnection};
use std::fmt::Write as _;

/// Most rows of one statement; with the 13 columns of an event far below SQLite's 32,766 parameters.
const ROWS_MAX: usize = 256;

/// Cuts `rows` into pieces whose lengths are powers of two, at most [`ROWS_MAX`].
pub(crate) fn row_chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = ROWS_MAX.min(1 << rows.len().checked_ilog2()?);
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

/// `INSERT INTO <table> VALUES (?, ..), ..<suffix>` for so many rows.
pub(crate) fn insert_sql(table: &str, columns: usize, rows: usize, suffix: &str) -> String {
    let mut sql = String::with_capacity(64 + table.len() + rows * (2 * columns + 3));
    let _ = write!(sql, "INSERT INTO {table} VALUES ");
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ",(" });
        for column in 0..columns {
            sql.push_str(if column == 0 { "?" } else { ",?" });
        }
        sql.push(')');
    }
    sql.push_str(suffix);
    sql
}

/// Inserts `rows` rows of `table (columns ..)` whose values are `arguments`, row by row.
pub(crate) async fn insert_rows(
    connection: &mut SqliteConnection,
    table: &'static str,
    columns: usize,
    rows: usize,
    arguments: SqliteArguments,
) -> Result<(), sqlx::Error> {
    // Made of literals and question marks alone.
    let sql = AssertSqlSafe(insert_sql(table, columns, rows, ""));
    sqlx::query_with(sql, arguments).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_a_few_sizes_without_losing_one() {
        let rows: Vec<usize> = (0..2000).collect();
        for len in [0, 1, 2, 3, 255, 256, 257, 2000] {
            let chunks: Vec<_> = row_chunks(&rows[..len]).collect();
            assert!(chunks.iter().all(|chunk| chunk.len().is_power_of_two()));
            assert_eq!(chunks.concat(), &rows[..len]);
        }
    }

    #[test]
    fn a_statement_has_a_parameter_for_each_value() {
        let sql = insert_sql("t (a, b)", 2, 2, " RETURNING a");
        assert_eq!(sql, "INSERT INTO t (a, b) VALUES (?,?),(?,?) RETURNING a");
    }
}
