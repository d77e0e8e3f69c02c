//! Tables of events by time: made ahead, and for whatever time a batch brings.

use crate::config::PartitionSpan;
use crate::server::Server;
use crate::time::PgTime;
use metrics::{counter, gauge};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use stormwire_core::Timestamp;
use stormwire_telemetry::metrics as names;

/// How many tables are kept ahead of the present one.
const AHEAD: i64 = 2;
/// Most tables that one batch may ask for; a batch of minutes needs one or two.
const PER_BATCH: i64 = 4;

/// Which tables this process knows to be there.
pub(crate) struct Partitions {
    span: PartitionSpan,
    made: Mutex<BTreeSet<i64>>,
}

impl Partitions {
    pub(crate) fn new(span: PartitionSpan) -> Self {
        Self { span, made: Mutex::default() }
    }

    /// How much time one table holds.
    pub(crate) const fn span(&self) -> PartitionSpan {
        self.span
    }

    /// Sees to the tables from `now` on, and counts what waits in the default one.
    pub(crate) async fn keep_ahead(&self, server: &Server, now: Timestamp) {
        let present = self.index(now);
        for index in present..=present + AHEAD {
            self.make(server, index).await;
        }
        let strays = server
            .once("events_default", async {
                sqlx::query_scalar::<_, i64>(
                    "SELECT count(*) FROM (SELECT FROM events_default LIMIT 1000000) strays",
                )
                .fetch_one(&mut *server.connection().await?)
                .await
            })
            .await;
        if let Ok(strays) = strays {
            gauge!(names::ARCHIVE_DEFAULT_PARTITION_ROWS).set(strays as f64);
        }
    }

    /// Sees to the tables for a batch. A table that cannot be made now is no reason to hold the batch up:
    /// its rows wait in the default table.
    pub(crate) async fn make_for(&self, server: &Server, first: Timestamp, last: Timestamp) {
        let (first, last) = (self.index(first), self.index(last));
        for index in first..=last.min(first.saturating_add(PER_BATCH - 1)) {
            self.make(server, index).await;
        }
    }

    fn index(&self, at: Timestamp) -> i64 {
        at.0.div_euclid(self.span.millis())
    }

    async fn make(&self, server: &Server, index: i64) {
        if self.made.lock().contains(&index) {
            return;
        }
        let from = Timestamp(index.saturating_mul(self.span.millis()));
        let to = Timestamp(from.0.saturating_add(self.span.millis()));
        let name = name(self.span, from);
        let outcome = server
            .once("make_partition", async {
                sqlx::query_scalar::<_, bool>("SELECT stormwire_make_partition($1, $2, $3)")
                    .bind(&name)
                    .bind(PgTime(from))
                    .bind(PgTime(to))
                    .fetch_one(&mut *server.connection().await?)
                    .await
            })
            .await;
        match outcome {
            Ok(made) => {
                if made {
                    tracing::info!(table = name, "made a table of events");
                }
                let mut known = self.made.lock();
                // Times far off cost a look at the database each, not memory.
                if known.len() > 1000 {
                    known.clear();
                }
                known.insert(index);
            }
            Err(error) => {
                counter!(names::ARCHIVE_PARTITION_FAILURES).increment(1);
                tracing::warn!(table = name, error = %error, "no table of events could be made; rows wait in events_default");
            }
        }
    }
}

/// `events_20261121`, or `events_2026112109` by the hour.
fn name(span: PartitionSpan, from: Timestamp) -> String {
    let digits: String = from.to_rfc3339().chars().filter(char::is_ascii_digit).take(10).collect();
    match span {
        PartitionSpan::Hour => format!("events_{digits}"),
        PartitionSpan::Day => format!("events_{}", digits.get(..8).unwrap_or("0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_after_its_day_or_hour() {
        let at = Timestamp(1_795_250_000_000);
        assert_eq!(name(PartitionSpan::Day, at), "events_20261121");
        assert_eq!(name(PartitionSpan::Hour, at), "events_2026112108");
    }

    #[test]
    fn times_before_1970_have_their_own_day() {
        let partitions = Partitions::new(PartitionSpan::Day);
        assert_eq!(partitions.index(Timestamp(-1)), -1);
        assert_eq!(partitions.index(Timestamp(0)), 0);
    }
}
