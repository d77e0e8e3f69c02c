//! What people and scripts see in the file, and how the hot queries find their rows.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection};
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::Batch;
use stormwire_core::{Channel, Epoch, PartitionCount, SystemClock, Timestamp};
use stormwire_embedded::{Embedded, EmbeddedConfig, FILE_NAME};
use stormwire_testkit::Folder;
use stormwire_wire::frame::{EventParts, EventsBuilder, Frame, FrameBuilder, FrameId};

fn frame() -> Frame {
    let id = FrameId { appender: [7; 16], counter: 2 };
    let mut events = EventsBuilder::default();
    let json = EventParts { data: b"{\"a\":  1}", kind: Some("flight"), ..Default::default() };
    events.push(&json).unwrap();
    let named = EventParts { data: &[0, 1], binary: true, id: Some("my-id"), ..json };
    events.push(&named).unwrap();
    let mut builder = FrameBuilder::default();
    let channel = Channel::parse("flights:JFK-AA").unwrap();
    assert_eq!(builder.push(&channel, "alice", "p", 1, None, &events.take()), 2);
    Frame::decode(&builder.finish(id)).unwrap()
}

/// An open engine with one stored frame, and a connection as a script would open it.
async fn stored() -> (Folder, Embedded, SqliteConnection) {
    let folder = Folder::temporary("embedded").unwrap();
    let path = folder.path().join(FILE_NAME);
    let config = EmbeddedConfig::default();
    let embedded = Embedded::open(&path, config, Arc::new(SystemClock)).await.unwrap();
    let archive = embedded.archive();
    let one = PartitionCount::new(1).unwrap();
    let lease = archive.acquire("w", one, 1, Duration::from_secs(60)).await.unwrap().remove(0);
    let frame = frame();
    let batch = Batch {
        epoch: Epoch::FIRST,
        expected_last: 0,
        through: 2,
        last_frame: Some(frame.id),
        frames: vec![(2, Timestamp(1_795_250_000_004), frame)],
        gaps: Vec::new(),
        undecodable: Vec::new(),
    };
    archive.persist(&lease, &batch).await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).read_only(true);
    (folder, embedded, options.connect().await.unwrap())
}

#[tokio::test]
async fn the_event_log_is_readable_by_anybody_while_the_server_runs() {
    let (_folder, embedded, mut connection) = stored().await;
    let rows = sqlx::query(
        "SELECT channel, epoch, \"offset\", id, type, data, producer, ts FROM event_log
         ORDER BY epoch, \"offset\"",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let texts = |row: &sqlx::sqlite::SqliteRow| {
        ["channel", "id", "type", "producer", "ts"].map(|column| row.get::<String, _>(column))
    };
    let ts = "2026-11-21T08:33:20.004Z";
    assert_eq!(texts(&rows[0]), ["flights:JFK-AA", "0-1-8192", "flight", "alice", ts]);
    assert_eq!(texts(&rows[1]), ["flights:JFK-AA", "my-id", "flight", "alice", ts]);
    assert_eq!((rows[0].get::<i64, _>("epoch"), rows[0].get::<i64, _>("offset")), (1, 8192));
    assert_eq!(rows[0].get::<String, _>("data"), "{\"a\":  1}");
    assert_eq!(rows[1].get::<Vec<u8>, _>("data"), [0, 1]);
    let parsed: i64 =
        sqlx::query_scalar("SELECT data ->> '$.a' FROM event_log WHERE \"offset\" = 8192")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(parsed, 1, "SQLite's own JSON functions read it");
    embedded.close().await;
}

#[tokio::test]
async fn hot_queries_search_by_key_and_sort_nothing() {
    let (_folder, embedded, mut connection) = stored().await;
    for query in [
        "SELECT * FROM events WHERE channel = 1 AND (epoch, \"offset\") > (1, 5)
         ORDER BY epoch, \"offset\" LIMIT 10",
        "SELECT * FROM events WHERE channel = 1 AND (epoch, \"offset\") < (1, 5)
         ORDER BY epoch DESC, \"offset\" DESC LIMIT 10",
        "SELECT \"offset\", ts FROM events WHERE channel = 1 AND epoch = 1 AND \"offset\" >= 7
         ORDER BY \"offset\" LIMIT 1",
        "SELECT min(epoch) FROM events WHERE channel = 1 AND epoch > 1",
        "SELECT id, ts, bytes FROM frames WHERE id BETWEEN 1 AND 9 ORDER BY id LIMIT 3",
        "SELECT * FROM channels WHERE name >= 'a' AND name < 'b' AND name > '' ORDER BY name LIMIT 3",
        "SELECT * FROM gaps WHERE partition = 1 AND (epoch, from_offset) <= (1, 5)
         ORDER BY epoch, from_offset",
    ] {
        let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}")))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        let plan = plan.join("; ");
        assert!(plan.contains("SEARCH") && !plan.contains("TEMP B-TREE"), "{query}: {plan}");
    }
    embedded.close().await;
}

#[tokio::test]
async fn the_limiter_and_the_peers_come_with_the_engine() {
    let (_folder, embedded, _connection) = stored().await;
    assert!(embedded.peers().is_alone());
    assert!(embedded.limiter().ping().await.is_ok());
    let journal = embedded.journal();
    embedded.close().await;
    let append = journal.append(stormwire_core::Partition(0), Epoch::FIRST, 0, Bytes::new()).await;
    assert!(append.is_err());
}
