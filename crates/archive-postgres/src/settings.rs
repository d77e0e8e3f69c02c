//! The port Settings, in the archive's database.

use crate::archive::PostgresArchive;
use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use stormwire_archive::{ArchiveError, OperatorLine, Setting, Settings};
use stormwire_core::Timestamp;

#[async_trait]
impl Settings for PostgresArchive {
    async fn settings(&self) -> Result<Vec<Setting>, ArchiveError> {
        let server = self.primary();
        server
            .ask("settings", || async {
                let rows = sqlx::query(
                    "SELECT kind, name, body, version FROM settings ORDER BY kind, name",
                )
                .fetch_all(&mut *server.connection().await?)
                .await?;
                rows.iter().map(setting).collect()
            })
            .await
    }

    async fn set(
        &self,
        kind: &str,
        name: &str,
        body: Option<&str>,
        expected: Option<u64>,
        line: &OperatorLine,
    ) -> Result<Option<u64>, ArchiveError> {
        let server = self.primary();
        let work = async {
            let number: Option<i64> =
                sqlx::query_scalar("SELECT stormwire_set($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
                    .bind(kind)
                    .bind(name)
                    .bind(body)
                    .bind(expected.map(|version| i64::try_from(version).unwrap_or(i64::MAX)))
                    .bind(line.at.0)
                    .bind(&line.by)
                    .bind(&line.ip)
                    .bind(&line.what)
                    .bind(&line.target)
                    .bind(&line.detail)
                    .fetch_one(&mut *server.connection().await?)
                    .await?;
            Ok(number.map(i64::cast_unsigned))
        };
        server.once("set", work).await
    }

    async fn note(&self, line: &OperatorLine) -> Result<u64, ArchiveError> {
        let server = self.primary();
        let work = async {
            let number: i64 =
                sqlx::query_scalar("SELECT stormwire_note_operator($1, $2, $3, $4, $5, $6)")
                    .bind(line.at.0)
                    .bind(&line.by)
                    .bind(&line.ip)
                    .bind(&line.what)
                    .bind(&line.target)
                    .bind(&line.detail)
                    .fetch_one(&mut *server.connection().await?)
                    .await?;
            Ok(number.cast_unsigned())
        };
        server.once("note", work).await
    }

    async fn lines(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, OperatorLine)>, ArchiveError> {
        let server = self.primary();
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        server
            .ask("lines", || async {
                let rows = sqlx::query(
                    "SELECT id, at, by, ip, what, target, detail FROM operator_audit
                     WHERE id < $1 ORDER BY id DESC LIMIT $2",
                )
                .bind(before)
                .bind(limit)
                .fetch_all(&mut *server.connection().await?)
                .await?;
                rows.iter().map(line).collect()
            })
            .await
    }

    async fn newest_line(&self) -> Result<u64, ArchiveError> {
        let server = self.primary();
        server
            .ask("newest_line", || async {
                let newest: Option<i64> = sqlx::query_scalar("SELECT max(id) FROM operator_audit")
                    .fetch_one(&mut *server.connection().await?)
                    .await?;
                Ok(newest.unwrap_or(0).cast_unsigned())
            })
            .await
    }
}

fn setting(row: &PgRow) -> Result<Setting, sqlx::Error> {
    Ok(Setting {
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        body: row.try_get("body")?,
        version: row.try_get::<i64, _>("version")?.cast_unsigned(),
    })
}

fn line(row: &PgRow) -> Result<(u64, OperatorLine), sqlx::Error> {
    let line = OperatorLine {
        at: Timestamp(row.try_get("at")?),
        by: row.try_get("by")?,
        ip: row.try_get("ip")?,
        what: row.try_get("what")?,
        target: row.try_get("target")?,
        detail: row.try_get("detail")?,
    };
    Ok((row.try_get::<i64, _>("id")?.cast_unsigned(), line))
}
