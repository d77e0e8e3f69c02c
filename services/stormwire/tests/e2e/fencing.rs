//! The scenario `stopped-inside-copy`, with real processes: two workers both believe that they hold a
//! partition. One of them was stopped inside its COPY, and goes on when the other has taken over.

use crate::fleet::{Fleet, Load};
use crate::kit::PATIENCE;
use sqlx::postgres::PgPool;
use std::time::Duration;
use stormwire_testkit::wait_until;

const CHANNELS: usize = 4;
const PACE: Duration = Duration::from_millis(5);

/// Sessions of a client that are in the middle of a COPY, and wait for `what`.
async fn copying(pool: &PgPool, what: &str) -> i64 {
    let query = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND state = 'active'
                   AND query ILIKE 'copy%' AND wait_event_type = $1";
    sqlx::query_scalar(query).bind(what).fetch_one(pool).await.unwrap()
}

async fn persisted(pool: &PgPool) -> i64 {
    let query = "SELECT coalesce(sum(last_seq), 0)::bigint FROM ledger";
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stopped_inside_copy_cannot_commit_after_another_has_taken_over() {
    let settings = [("STORMWIRE_MESSAGES_LEASE", "2s"), ("STORMWIRE_PARTITIONS", "2")];
    let Some(fleet) = Fleet::start("fencing", &settings).await else { return };
    let gateways = [fleet.gateway("gateway").await];
    let one = fleet.worker("worker-1").await;
    let load = Load::start(&fleet, &gateways, CHANNELS, PACE).await;
    load.goes_on(200).await;
    let pool = fleet.pool().await;
    wait_until("the first worker persists", PATIENCE, || async { persisted(&pool).await > 0 })
        .await;
    // A lock that lets nobody write holds the COPY at its beginning; the worker is stopped there, and
    // when the lock is gone the server waits for the rest of the COPY from a process that stands still.
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE events IN SHARE MODE").execute(&mut *lock).await.unwrap();
    wait_until("a COPY waits", PATIENCE, || async { copying(&pool, "Lock").await > 0 }).await;
    one.server.pause().await;
    lock.rollback().await.unwrap();
    wait_until("the stopped worker is inside its COPY", PATIENCE, || async {
        copying(&pool, "Client").await > 0
    })
    .await;
    let stood = persisted(&pool).await;
    let two = fleet.worker("worker-2").await;
    wait_until("the second worker has taken over", PATIENCE, || async {
        persisted(&pool).await > stood + 50
    })
    .await;
    assert!(copying(&pool, "Client").await > 0, "the first is inside its COPY still");
    one.server.resume().await;
    load.goes_on(500).await;
    let log = one.server.log_path();
    wait_until("the first tries to commit and is refused", PATIENCE, || async {
        let said = std::fs::read_to_string(&log).unwrap();
        said.lines()
            .any(|line| line.contains("a batch was not stored") && line.contains("lease_lost"))
    })
    .await;
    let outcome = load.finish().await;
    fleet.assert_stored(&outcome.sent).await;
    drop(two);
}
