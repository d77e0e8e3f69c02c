//! Workers that come and go share the partitions.

use crate::kit::{Engines, Running, SOON, cluster, config};
use std::collections::BTreeMap;
use stormwire_core::Partition;
use stormwire_testkit::wait_until;

/// Who holds how many, by the database itself.
async fn holders(sql: &sqlx::PgPool) -> BTreeMap<String, i64> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT worker, count(*) FROM leases WHERE expires_at > clock_timestamp() GROUP BY worker",
    )
    .fetch_all(sql)
    .await
    .unwrap();
    rows.into_iter().collect()
}

async fn wait_shares(sql: &sqlx::PgPool, what: &str, due: &[(&Running, i64)]) {
    let due: BTreeMap<_, _> = due.iter().map(|(worker, n)| (worker.name.clone(), *n)).collect();
    let due = &due;
    wait_until(what, SOON, || async move { holders(sql).await == *due }).await;
}

#[tokio::test]
async fn joining_and_leaving_workers_spread_the_partitions_anew() {
    let Some(engines) = cluster().await else { return };
    let sql = engines.sql();
    let one = Running::start(&engines, config(8));
    wait_shares(&sql, "one holds all", &[(&one, 8)]).await;
    let two = Running::start(&engines, config(8));
    wait_shares(&sql, "two hold half each", &[(&one, 4), (&two, 4)]).await;
    write_all(&engines, 1, 20).await;
    two.stop().await;
    wait_shares(&sql, "one holds all again", &[(&one, 8)]).await;
    let three = Running::start(&engines, config(8));
    wait_shares(&sql, "two hold half each", &[(&one, 4), (&three, 4)]).await;
    drop(one);
    wait_shares(&sql, "the dead one's leases are taken over", &[(&three, 8)]).await;
    write_all(&engines, 21, 30).await;
    for p in 0..8 {
        engines.wait_persisted(Partition(p), 30).await;
        let count = engines.archive.ledger(Partition(p)).await.unwrap().unwrap();
        assert_eq!(count.last_seq, 30);
    }
    three.stop().await;
    assert!(holders(&sql).await.is_empty(), "given back");
    let stored: i64 =
        sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&sql).await.unwrap();
    assert_eq!(stored, 8 * 30 * 10);
}

async fn write_all(engines: &Engines, from: u64, to: u64) {
    for p in 0..8 {
        engines.write(Partition(p), from, to).await;
    }
}
