//! Pages of history, over days, clock steps and epochs, compared with a plain list.

use crate::kit::{Kit, NOWHERE, P0, START, batch, frame};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use sqlx::{AssertSqlSafe, Row as _};
use std::time::Duration;
use stormwire_archive::{Archive as _, HistoryQuery, StoredEvent};
use stormwire_core::{Channel, Epoch, Offset, Position, Timestamp};

const X: &str = "a:x";

/// Frames whose times jump about by up to two days, in batches of two; the second half in epoch 2.
async fn filled(kit: &Kit, steps: &[i64]) -> Vec<(Position, Timestamp)> {
    let lease = kit.lease("w").await;
    let mut expected = Vec::new();
    let mut ts = START;
    for (i, pair) in steps.chunks(2).enumerate() {
        let first = 2 * i as u64;
        let frames =
            (0..pair.len() as u64).map(|j| frame(first + j + 1, &[(X, "1"), ("a:y", "2")]));
        let mut batch = batch(first, frames.collect());
        batch.epoch = Epoch(if 2 * i < steps.len() / 2 { 1 } else { 2 });
        for ((seq, at, _), step) in batch.frames.iter_mut().zip(pair) {
            ts = Timestamp(ts.0 + step);
            *at = ts;
            let offset = Offset::new(*seq, 0);
            expected.push((Position { epoch: batch.epoch, offset }, ts));
        }
        kit.archive.persist(&lease, &batch).await.unwrap();
    }
    expected
}

fn places(events: &[StoredEvent]) -> Vec<(Position, Timestamp)> {
    events.iter().map(|event| (event.position, event.ts)).collect()
}

#[tokio::test]
async fn pages_equal_a_plain_list_wherever_they_begin() {
    let Some(kit) = Kit::start().await else { return };
    let mut runner = TestRunner::deterministic();
    let step = prop_oneof![4 => 0i64..90_000, 2 => -90_000i64..0, 1 => 0i64..172_800_000, 1 => -86_400_000i64..0];
    let steps = prop::collection::vec(step, 60).new_tree(&mut runner).unwrap().current();
    let all = filled(&kit, &steps).await;
    let channel = Channel::parse(X).unwrap();
    let page = |query, limit| kit.archive.history(&channel, P0, query, limit, 1 << 20, NOWHERE);
    let last = page(HistoryQuery::Last, 7).await.unwrap();
    assert_eq!(places(&last.events), all[all.len() - 7..]);
    assert!(last.more);
    for (i, (position, ts)) in all.iter().enumerate() {
        let after = page(HistoryQuery::After(*position), 5).await.unwrap();
        let end = (i + 6).min(all.len());
        assert_eq!(places(&after.events), all[i + 1..end], "after {position}");
        assert_eq!(after.more, end < all.len(), "after {position}");
        let before = page(HistoryQuery::Before(*position), 5).await.unwrap();
        assert_eq!(places(&before.events), all[i.saturating_sub(5)..i], "before {position}");
        assert_eq!(before.more, i > 5, "before {position}");
        let since = kit.archive.position_at(&channel, P0, *ts).await.unwrap();
        let expected = all.iter().find(|(_, at)| at >= ts).map(|(position, _)| *position);
        assert_eq!(since, expected, "at {ts}");
    }
    let beyond = Timestamp(i64::MAX);
    assert_eq!(kit.archive.position_at(&channel, P0, beyond).await.unwrap(), None);
}

#[tokio::test]
async fn a_page_is_bounded_by_bytes_and_has_at_least_one_event() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    let long = format!("\"{}\"", "x".repeat(98));
    let events: Vec<_> = (0..10).map(|_| (X, long.as_str())).collect();
    kit.archive.persist(&lease, &batch(0, vec![frame(1, &events)])).await.unwrap();
    let channel = Channel::parse(X).unwrap();
    for (bytes, due) in [(1, 1), (100, 1), (101, 2), (350, 4), (1 << 20, 10)] {
        for query in [HistoryQuery::Last, HistoryQuery::After(position(0))] {
            let page = kit.archive.history(&channel, P0, query, 100, bytes, NOWHERE).await.unwrap();
            assert_eq!((page.events.len(), page.more), (due, due < 10), "{bytes} bytes");
        }
    }
    let empty = kit.history("a:none", HistoryQuery::Last).await;
    assert_eq!((empty.events.len(), empty.more), (0, false));
    assert_eq!(empty.ledger.unwrap().last_seq, 1);
}

const fn position(offset: u64) -> Position {
    Position { epoch: Epoch(1), offset: Offset(offset) }
}

#[tokio::test]
async fn a_page_without_anything_stored_has_no_ledger() {
    let Some(kit) = Kit::start().await else { return };
    let page = kit.history(X, HistoryQuery::After(position(0))).await;
    assert_eq!(page, stormwire_archive::HistoryPage::default());
}

#[tokio::test]
async fn the_hot_queries_use_the_index_and_only_the_tables_that_matter() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    for day in 0..4u64 {
        let mut batch = batch(day, vec![frame(day + 1, &[(X, "1"), ("a:y", "2")])]);
        batch.frames[0].1 = START.plus(Duration::from_secs(86_400 * day));
        kit.archive.persist(&lease, &batch).await.unwrap();
    }
    kit.run("ANALYZE").await;
    // What `history` asks for after the third day, as Postgres will run it.
    let plan = explain(
        &kit,
        r#"SELECT * FROM events WHERE channel = 'a:x' AND (epoch, "offset") > (1, 12287)
           AND ts >= (SELECT first_ts FROM timeline WHERE partition = 0 AND (epoch, first_seq) <= (1, 3)
                      ORDER BY epoch DESC, first_seq DESC LIMIT 1)
           ORDER BY epoch, "offset" LIMIT 10"#,
    )
    .await;
    assert!(
        plan.contains("Index Cond: ((channel = 'a:x'::text) AND (ROW(epoch, \"offset\")"),
        "{plan}"
    );
    assert!(plan.contains("never executed"), "earlier tables are passed over:\n{plan}");
    assert!(!plan.contains("Seq Scan on events"), "{plan}");
    let plan = explain(
        &kit,
        "SELECT first_ts FROM timeline WHERE partition = 0 AND (epoch, first_seq) <= (1, 3)
         ORDER BY epoch DESC, first_seq DESC LIMIT 1",
    )
    .await;
    assert!(plan.contains("timeline_pkey"), "{plan}");
    let plan = explain(
        &kit,
        "SELECT * FROM channels WHERE name >= 'a:' AND name < 'a:~' ORDER BY name LIMIT 5",
    )
    .await;
    assert!(plan.contains("channels_pkey"), "{plan}");
}

/// Small tables would be read whole: the question is which index can serve, so that is forbidden.
async fn explain(kit: &Kit, sql: &str) -> String {
    let mut connection = kit.sql.acquire().await.unwrap();
    sqlx::raw_sql("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off")
        .execute(&mut *connection)
        .await
        .unwrap();
    let sql = AssertSqlSafe(format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}"));
    let rows = sqlx::query(sql).fetch_all(&mut *connection).await.unwrap();
    connection.close().await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}
