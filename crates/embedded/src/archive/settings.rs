//! The port Settings, in the one file.

use super::EmbeddedArchive;
use async_trait::async_trait;
use sqlx::SqliteConnection;
use stormwire_archive::{ArchiveError, OperatorLine, Setting, Settings};
use stormwire_core::Timestamp;

type LineRow = (i64, i64, String, String, String, String, String);

#[async_trait]
impl Settings for EmbeddedArchive {
    async fn settings(&self) -> Result<Vec<Setting>, ArchiveError> {
        let read = async {
            let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
                "SELECT kind, name, body, version FROM settings ORDER BY kind, name",
            )
            .fetch_all(&mut *self.reads.connection().await?)
            .await?;
            Ok(rows.into_iter().map(setting).collect())
        };
        self.read("settings", read).await
    }

    async fn set(
        &self,
        kind: &str,
        name: &str,
        body: Option<&str>,
        expected: Option<u64>,
        line: &OperatorLine,
    ) -> Result<Option<u64>, ArchiveError> {
        let key = (kind.to_owned(), name.to_owned());
        let (body, line) = (body.map(str::to_owned), line.clone());
        self.write(move |connection| Box::pin(set(connection, key, body, expected, line))).await
    }

    async fn note(&self, line: &OperatorLine) -> Result<u64, ArchiveError> {
        let line = line.clone();
        self.write(move |connection| Box::pin(async move { note(connection, &line).await })).await
    }

    async fn lines(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, OperatorLine)>, ArchiveError> {
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = async {
            let rows: Vec<LineRow> = sqlx::query_as(
                "SELECT id, at, by, ip, what, target, detail FROM operator_audit
                 WHERE id < ? ORDER BY id DESC LIMIT ?",
            )
            .bind(before)
            .bind(limit)
            .fetch_all(&mut *self.reads.connection().await?)
            .await?;
            Ok(rows.into_iter().map(line).collect())
        };
        self.read("operator_lines", read).await
    }

    async fn newest_line(&self) -> Result<u64, ArchiveError> {
        let read = async {
            let newest: Option<i64> = sqlx::query_scalar("SELECT max(id) FROM operator_audit")
                .fetch_one(&mut *self.reads.connection().await?)
                .await?;
            Ok(newest.unwrap_or(0).cast_unsigned())
        };
        self.read("newest_operator_line", read).await
    }
}

/// The writer is one: what is read here does not change before it is written.
async fn set(
    connection: &mut SqliteConnection,
    (kind, name): (String, String),
    body: Option<String>,
    expected: Option<u64>,
    line: OperatorLine,
) -> Result<Option<u64>, sqlx::Error> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT version FROM settings WHERE kind = ? AND name = ?")
            .bind(&kind)
            .bind(&name)
            .fetch_optional(&mut *connection)
            .await?;
    if expected.is_some_and(|expected| expected != found.unwrap_or(0).cast_unsigned()) {
        return Ok(None);
    }
    let number = note(connection, &line).await?;
    match body {
        None => {
            sqlx::query("DELETE FROM settings WHERE kind = ? AND name = ?")
                .bind(kind)
                .bind(name)
                .execute(connection)
                .await?;
        }
        Some(body) => {
            sqlx::query(
                "INSERT INTO settings (kind, name, body, version) VALUES (?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET body = excluded.body, version = excluded.version",
            )
            .bind(kind)
            .bind(name)
            .bind(body)
            .bind(number.cast_signed())
            .execute(connection)
            .await?;
        }
    }
    Ok(Some(number))
}

async fn note(connection: &mut SqliteConnection, line: &OperatorLine) -> Result<u64, sqlx::Error> {
    let number: i64 = sqlx::query_scalar(
        "INSERT INTO operator_audit (at, by, ip, what, target, detail) VALUES (?, ?, ?, ?, ?, ?)
         RETURNING id",
    )
    .bind(line.at.0)
    .bind(&line.by)
    .bind(&line.ip)
    .bind(&line.what)
    .bind(&line.target)
    .bind(&line.detail)
    .fetch_one(connection)
    .await?;
    Ok(number.cast_unsigned())
}

fn setting((kind, name, body, version): (String, String, String, i64)) -> Setting {
    Setting { kind, name, body, version: version.cast_unsigned() }
}

fn line((id, at, by, ip, what, target, detail): LineRow) -> (u64, OperatorLine) {
    (id.cast_unsigned(), OperatorLine { at: Timestamp(at), by, ip, what, target, detail })
}
