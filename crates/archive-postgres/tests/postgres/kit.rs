//! What the tests are written in: an archive in a fresh database, and batches made of short lists.

use bytes::Bytes;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use std::time::Duration;
use stormwire_archive::{Archive as _, Batch, HistoryPage, HistoryQuery, Lease};
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig};
use stormwire_core::{
    Channel, Epoch, FrameSeq, Offset, Partition, PartitionCount, Position, Timestamp,
};
use stormwire_testkit::postgres::Postgres;
use stormwire_wire::frame::{EventParts, EventsBuilder, Frame, FrameBuilder, FrameId};

pub(crate) const TTL: Duration = Duration::from_secs(30);
pub(crate) const P0: Partition = Partition(0);
/// For archives without a replica, which need not be measured against the journal.
pub(crate) const NOWHERE: Position = Position { epoch: Epoch(0), offset: Offset(0) };
/// 2026-11-21T08:33:20Z: days have their own tables from here on, whatever the clock says now.
pub(crate) const START: Timestamp = Timestamp(1_795_250_000_000);

pub(crate) struct Kit {
    pub(crate) archive: PostgresArchive,
    pub(crate) sql: PgPool,
    pub(crate) postgres: Postgres,
}

impl Kit {
    pub(crate) async fn start() -> Option<Self> {
        Some(Self::on(Postgres::start().await?).await)
    }

    pub(crate) async fn on(postgres: Postgres) -> Self {
        let archive = open(PostgresConfig::new(postgres.url())).await;
        let sql = PgPoolOptions::new().max_connections(4).connect_lazy(&postgres.url()).unwrap();
        Self { archive, sql, postgres }
    }

    pub(crate) async fn lease(&self, worker: &str) -> Lease {
        let one = PartitionCount::new(1).unwrap();
        self.archive.acquire(worker, one, 1, TTL).await.unwrap().remove(0)
    }

    pub(crate) async fn count(&self, what: &str) -> i64 {
        self.scalar(&format!("SELECT count(*) FROM {what}")).await
    }

    pub(crate) async fn scalar(&self, sql: &str) -> i64 {
        let row = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(&self.sql).await.unwrap();
        row.get(0)
    }

    pub(crate) async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.sql).await.unwrap();
    }

    pub(crate) async fn history(&self, channel: &str, query: HistoryQuery) -> HistoryPage {
        let channel = Channel::parse(channel).unwrap();
        self.archive.history(&channel, P0, query, 1000, 1 << 20, NOWHERE).await.unwrap()
    }
}

pub(crate) async fn open(config: PostgresConfig) -> PostgresArchive {
    let archive = PostgresArchive::connect(config).await.unwrap();
    archive.migrate().await.unwrap();
    archive
}

/// A frame with one event a (channel, data) pair.
pub(crate) fn frame(seq: FrameSeq, events: &[(&str, &str)]) -> Frame {
    let mut builder = FrameBuilder::default();
    for (channel, data) in events {
        let mut one = EventsBuilder::default();
        one.push(&EventParts { kind: Some("t"), data: data.as_bytes(), ..Default::default() })
            .unwrap();
        let channel = Channel::parse(channel).unwrap();
        assert_eq!(builder.push(&channel, "alice", "p", seq, None, &one.take()), 1);
    }
    decode(builder.finish(FrameId { appender: [7; 16], counter: seq }))
}

pub(crate) fn decode(bytes: Bytes) -> Frame {
    Frame::decode(&bytes).unwrap()
}

/// Frames expected + 1 … as one batch; each a second after the one before.
pub(crate) fn batch(expected: FrameSeq, frames: Vec<Frame>) -> Batch {
    let frames: Vec<_> = frames
        .into_iter()
        .zip(expected + 1..)
        .map(|(frame, seq)| (seq, START.plus(Duration::from_secs(seq)), frame))
        .collect();
    let (through, last) = frames.last().map_or((expected, None), |(seq, _, f)| (*seq, Some(f.id)));
    Batch {
        epoch: Epoch(1),
        expected_last: expected,
        through,
        last_frame: last,
        frames,
        gaps: Vec::new(),
        undecodable: Vec::new(),
    }
}

pub(crate) fn data(page: &HistoryPage) -> Vec<String> {
    page.events.iter().map(|e| String::from_utf8(e.data.to_vec()).unwrap()).collect()
}
