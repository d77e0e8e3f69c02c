//! What is past its namespace's bounds, removed: whole tables where nothing in them is to be kept, else
//! rows in bounded batches. SQL functions do each step in one transaction, with the check that this
//! worker may, and with the note up to where each channel is removed.
//!
//! A whole table costs no more than its file; rows cost as much as storing them. So rows are removed one
//! by one only where the table would stay for longer than its own span because of other namespaces, or
//! where a namespace's age is shorter than that span. Otherwise events live on until their table goes:
//! for one span at the longest.

use crate::config::PartitionSpan;
use crate::error::{MAINTAINED, answered, code_of, is_answer};
use crate::server::Server;
use crate::time::PgTime;
use metrics::counter;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use std::time::Duration;
use stormwire_archive::{ArchiveError, Retained, Retention};
use stormwire_core::Timestamp;
use stormwire_telemetry::metrics as names;
use tokio::time::{Instant, timeout};

/// Rows of one transaction.
const BATCH: i32 = 5_000;
/// Channels whose counts are put right in one transaction.
const SETTLE: i32 = 1_000;
/// A call takes no new step after this time.
const CALL: Duration = Duration::from_secs(2);
/// Longest time for one step: a table is read once before it goes.
const STEP: Duration = Duration::from_secs(600);
/// Where a namespace is above its bytes, this part of them more is removed: not every new event is to
/// cost a removal.
const SLACK: u64 = 16;

/// Takes or extends the right to remove.
pub(crate) async fn maintain(
    server: &Server,
    worker: &str,
    ttl: Duration,
) -> Result<bool, ArchiveError> {
    server
        .ask("maintain", || async {
            let taken = sqlx::query(
                "UPDATE maintenance
                 SET worker = $1, expires_at = clock_timestamp() + $2 * interval '1 millisecond'
                 WHERE only_row IN (
                     SELECT only_row FROM maintenance
                     WHERE worker = $1 OR expires_at <= clock_timestamp()
                     FOR UPDATE SKIP LOCKED)",
            )
            .bind(worker)
            .bind(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 2))
            .execute(&mut *server.connection().await?)
            .await?;
            Ok(taken.rows_affected() == 1)
        })
        .await
}

/// Removes a bounded part, on a connection of its own: statements of the pool have a bound.
pub(crate) async fn retain(
    server: &Server,
    worker: &str,
    retention: &Retention,
    now: Timestamp,
    span: PartitionSpan,
) -> Result<Retained, ArchiveError> {
    let mut connection = server
        .options()
        .connect()
        .await
        .map_err(|error| ArchiveError::Unavailable(error.to_string()))?;
    let mut round = Round { connection: &mut connection, worker, done: Retained::default() };
    let outcome = timeout(STEP, round.run(retention, now, span)).await;
    let done = round.done;
    counter!(names::RETENTION_EVENTS).increment(done.events);
    counter!(names::RETENTION_TABLES).increment(done.tables);
    let _ = timeout(Duration::from_secs(1), connection.close()).await;
    match outcome {
        Ok(Ok(more)) => Ok(Retained { more, ..done }),
        Ok(Err(error)) if code_of(&error).as_deref() == Some(MAINTAINED) => {
            Err(ArchiveError::Unavailable("another worker maintains the archive".to_owned()))
        }
        Ok(Err(error)) if is_answer(&error) => Err(answered(&error)),
        Ok(Err(error)) => Err(ArchiveError::Unavailable(error.to_string())),
        Err(_) => Err(ArchiveError::Unavailable(format!("no end within {STEP:?}"))),
    }
}

/// A table of events; the one without bounds holds what has no table of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    name: String,
    bounds: Option<(Timestamp, Timestamp)>,
    namespaces: Vec<String>,
}

/// What is to be done for events' age.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step<'a> {
    Drop { table: &'a str, from: Timestamp },
    Expire { table: &'a str, namespace: &'a str, before: Timestamp },
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The steps that ages ask for at `now`, oldest table first.
fn steps<'a>(
    tables: &'a [Table],
    retention: &Retention,
    now: Timestamp,
    span: PartitionSpan,
) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    let edge = |age: Duration| Timestamp(now.0.saturating_sub(millis(age)));
    for table in tables {
        let ages: Vec<Option<Duration>> =
            table.namespaces.iter().map(|namespace| retention.of(namespace).age).collect();
        // An empty table goes with what would have been in it.
        let longest = if ages.is_empty() {
            retention.default.age
        } else {
            ages.iter().copied().collect::<Option<Vec<_>>>().and_then(|ages| ages.into_iter().max())
        };
        let table_name = table.name.as_str();
        if let (Some((from, to)), Some(longest)) = (table.bounds, longest)
            && to <= edge(longest)
        {
            steps.push(Step::Drop { table: table_name, from });
            continue;
        }
        for (namespace, age) in table.namespaces.iter().zip(ages) {
            let Some(age) = age else { continue };
            let goes_soon = table.bounds.is_some()
                && longest.is_some_and(|longest| millis(longest) <= millis(age) + span.millis());
            let is_long = millis(age) >= span.millis();
            let has_old = table.bounds.is_none_or(|(from, _)| from < edge(age));
            if has_old && !(goes_soon && is_long) {
                steps.push(Step::Expire { table: table_name, namespace, before: edge(age) });
            }
        }
    }
    steps
}

struct Round<'a> {
    connection: &'a mut PgConnection,
    worker: &'a str,
    done: Retained,
}

impl Round<'_> {
    /// Whether there is more to do.
    async fn run(
        &mut self,
        retention: &Retention,
        now: Timestamp,
        span: PartitionSpan,
    ) -> Result<bool, sqlx::Error> {
        let until = Instant::now() + CALL;
        if self.settle(until).await? {
            return Ok(true);
        }
        let tables = self.tables().await?;
        for step in steps(&tables, retention, now, span) {
            if Instant::now() >= until {
                return Ok(true);
            }
            match step {
                Step::Drop { table, from } => self.drop(table, from).await?,
                Step::Expire { table, namespace, before } => {
                    if self.expire(table, namespace, before, until).await? {
                        return Ok(true);
                    }
                }
            }
        }
        if self.settle(until).await? {
            return Ok(true);
        }
        self.bytes(&tables, retention, until).await
    }

    /// Subtracts what was removed from the channels' counts; whether some are left.
    async fn settle(&mut self, until: Instant) -> Result<bool, sqlx::Error> {
        loop {
            let left: i64 = sqlx::query_scalar("SELECT stormwire_settle_removal($1)")
                .bind(SETTLE)
                .fetch_one(&mut *self.connection)
                .await?;
            if left == 0 {
                return Ok(false);
            }
            if Instant::now() >= until {
                return Ok(true);
            }
        }
    }

    async fn tables(&mut self) -> Result<Vec<Table>, sqlx::Error> {
        let rows = sqlx::query(
            r"SELECT c.oid::regclass::text AS name, m[1]::timestamptz AS from_ts, m[2]::timestamptz AS to_ts,
                     ARRAY(SELECT stormwire_namespaces(c.oid)) AS namespaces
              FROM pg_inherits i
              JOIN pg_class c ON c.oid = i.inhrelid
              LEFT JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid),
                                             'FROM \(''(.*)''\) TO \(''(.*)''\)') m ON true
              WHERE i.inhparent = 'events'::regclass
              ORDER BY from_ts NULLS LAST",
        )
        .fetch_all(&mut *self.connection)
        .await?;
        let table = |row: &PgRow| {
            let from: Option<PgTime> = row.try_get("from_ts")?;
            let to: Option<PgTime> = row.try_get("to_ts")?;
            Ok(Table {
                name: row.try_get("name")?,
                bounds: from.zip(to).map(|(from, to)| (from.0, to.0)),
                namespaces: row.try_get("namespaces")?,
            })
        };
        rows.iter().map(table).collect()
    }

    /// A table of which something is not counted yet, or that is too busy now, goes another time.
    async fn drop(&mut self, table: &str, from: Timestamp) -> Result<(), sqlx::Error> {
        let dropped = sqlx::query_scalar::<_, Option<i64>>(
            "SELECT stormwire_drop_events($1, $2::text::regclass, $3)",
        )
        .bind(self.worker)
        .bind(table)
        .bind(PgTime(from))
        .fetch_one(&mut *self.connection)
        .await;
        match dropped {
            Ok(Some(events)) => {
                tracing::info!(table, events, "a table of events was past its age and is gone");
                self.done.tables += 1;
                self.done.events += events.cast_unsigned();
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) if code_of(&error).as_deref() == Some(LOCK_NOT_AVAILABLE) => {
                counter!(names::RETENTION_FAILURES).increment(1);
                tracing::info!(table, "a table of events is too busy to be dropped; trying again");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a namespace's events from before a time; whether some are left.
    async fn expire(
        &mut self,
        table: &str,
        namespace: &str,
        before: Timestamp,
        until: Instant,
    ) -> Result<bool, sqlx::Error> {
        loop {
            let gone: i64 =
                sqlx::query_scalar("SELECT stormwire_expire($1, $2::text::regclass, $3, $4, $5)")
                    .bind(self.worker)
                    .bind(table)
                    .bind(namespace)
                    .bind(PgTime(before))
                    .bind(BATCH)
                    .fetch_one(&mut *self.connection)
                    .await?;
            self.done.events += gone.cast_unsigned();
            if gone < i64::from(BATCH) {
                return Ok(false);
            }
            if Instant::now() >= until {
                return Ok(true);
            }
        }
    }

    /// Removes the oldest events of namespaces that take too much; whether there is more to do.
    async fn bytes(
        &mut self,
        tables: &[Table],
        retention: &Retention,
        until: Instant,
    ) -> Result<bool, sqlx::Error> {
        let all: std::collections::BTreeSet<&String> =
            tables.iter().flat_map(|table| &table.namespaces).collect();
        for namespace in all {
            let Some(most) = retention.of(namespace).bytes else { continue };
            let used = self.used(namespace).await?;
            if used <= most {
                continue;
            }
            let mut excess = used - most + most / SLACK;
            for table in tables.iter().filter(|table| table.namespaces.contains(namespace)) {
                let (bytes, cut) = self.cut(&table.name, namespace, excess).await?;
                let before = cut.unwrap_or(Timestamp(i64::MAX));
                if self.expire(&table.name, namespace, before, until).await? {
                    return Ok(true);
                }
                excess = excess.saturating_sub(bytes);
                if excess == 0 || cut.is_some() {
                    break;
                }
            }
            if self.settle(until).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Bytes of a namespace's events that are counted and not removed.
    async fn used(&mut self, namespace: &str) -> Result<u64, sqlx::Error> {
        let used: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(bytes), 0)::bigint FROM channels WHERE name >= $1 || ':' AND name < $1 || ';'",
        )
        .bind(namespace)
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(used.cast_unsigned())
    }

    /// The bytes of a namespace in a table and, where they are more than `excess`, the time before which
    /// there is just enough to remove.
    async fn cut(
        &mut self,
        table: &str,
        namespace: &str,
        excess: u64,
    ) -> Result<(u64, Option<Timestamp>), sqlx::Error> {
        // The name comes from the catalogue, quoted where it must be.
        let sql = format!(
            r#"WITH sized AS (
                   SELECT ts, coalesce(octet_length(data), octet_length(data_binary), 0) AS size
                   FROM ONLY {table} WHERE channel >= $1 || ':' AND channel < $1 || ';'),
               summed AS (SELECT ts, size, sum(size) OVER (ORDER BY ts) AS through FROM sized)
               SELECT coalesce((SELECT sum(size) FROM sized), 0)::bigint AS bytes,
                      (SELECT min(ts) FROM summed WHERE through >= $2) AS cut"#
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(namespace)
            .bind(i64::try_from(excess).unwrap_or(i64::MAX))
            .fetch_one(&mut *self.connection)
            .await?;
        let bytes = row.try_get::<i64, _>("bytes")?.cast_unsigned();
        let cut: Option<PgTime> = row.try_get("cut")?;
        Ok((bytes, cut.map(|at| Timestamp(at.0.0.saturating_add(1)))))
    }
}

/// SQLSTATE of a lock that was not had in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use stormwire_archive::Rule;

    const DAY: i64 = 86_400_000;

    fn table(name: &str, day: i64, namespaces: &[&str]) -> Table {
        Table {
            name: name.to_owned(),
            bounds: Some((Timestamp(day * DAY), Timestamp((day + 1) * DAY))),
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn retention(default: Option<u64>, rules: &[(&str, Option<u64>)]) -> Retention {
        let rule = |hours: Option<u64>| Rule {
            age: hours.map(|hours| Duration::from_secs(hours * 3600)),
            bytes: None,
        };
        let namespaces: BTreeMap<_, _> =
            rules.iter().map(|(name, hours)| ((*name).to_owned(), rule(*hours))).collect();
        Retention { default: rule(default), namespaces }
    }

    #[test]
    fn a_table_goes_whole_once_all_in_it_is_past_its_age() {
        let tables = [table("d1", 1, &["a", "b"]), table("d2", 2, &["a"]), table("d3", 3, &[])];
        let at = |day: i64| Timestamp(day * DAY);
        let of = |day| steps(&tables, &retention(Some(48), &[]), at(day), PartitionSpan::Day);
        assert_eq!(of(3), []);
        assert_eq!(of(4), [Step::Drop { table: "d1", from: at(1) }]);
        assert_eq!(of(6).len(), 3, "and so does one that is empty");
        let kept = retention(Some(48), &[("b", None)]);
        let steps = steps(&tables, &kept, at(5), PartitionSpan::Day);
        let rows = Step::Expire { table: "d1", namespace: "a", before: at(3) };
        assert_eq!(steps, [rows, Step::Drop { table: "d2", from: at(2) }], "b keeps its table");
    }

    #[test]
    fn rows_wait_for_their_table_unless_it_stays_much_longer() {
        let tables = [table("d1", 1, &["a", "b"])];
        let at = Timestamp(4 * DAY);
        let of = |retention| steps(&tables, &retention, at, PartitionSpan::Day).len();
        assert_eq!(of(retention(None, &[("a", Some(48)), ("b", Some(72))])), 0);
        assert_eq!(of(retention(None, &[("a", Some(48)), ("b", Some(73))])), 1);
        assert_eq!(
            of(retention(None, &[("a", Some(1)), ("b", Some(72))])),
            1,
            "a short age is kept"
        );
    }

    #[test]
    fn what_has_no_table_of_its_own_goes_row_by_row() {
        let default = Table { bounds: None, ..table("events_default", 0, &["a"]) };
        let tables = [default];
        let steps =
            steps(&tables, &retention(Some(48), &[]), Timestamp(9 * DAY), PartitionSpan::Day);
        assert!(matches!(steps[..], [Step::Expire { .. }]), "{steps:?}");
    }
}
