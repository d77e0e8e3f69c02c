//! What goes wrong below a worker.

use crate::kit::{Engines, Running, config, frame};
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::Archive as _;
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig};
use stormwire_core::Partition;
use stormwire_journal_nats::{NatsConfig, NatsJournal};
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;

const P0: Partition = Partition(0);

#[tokio::test]
async fn postgres_and_nats_may_restart_while_events_come() {
    let Some(nats) = NatsServer::start().await else { return };
    let Some(postgres) = Postgres::dedicated().await else { return };
    let config_nats = NatsConfig { urls: vec![nats.url()], ..NatsConfig::default() };
    let journal = Arc::new(NatsJournal::connect(config_nats).await.unwrap());
    let archive = PostgresArchive::connect(PostgresConfig::new(postgres.url())).await.unwrap();
    archive.migrate().await.unwrap();
    let engines = Engines::of(journal, Arc::new(archive), ());
    engines.write(P0, 1, 50).await;
    let worker = Running::start(&engines, config(1));
    engines.wait_persisted(P0, 10).await;
    postgres.server().restart().await;
    for seq in 51..=80 {
        engines.append(P0, seq, frame(seq, 10)).await;
    }
    engines.wait_persisted(P0, 60).await;
    nats.restart().await;
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut seq = 81;
    while seq <= 100 && tokio::time::Instant::now() < until {
        // An attempt of unknown outcome may be stored: the tip says.
        let _ = engines.journal.append(P0, stormwire_core::Epoch(1), seq - 1, frame(seq, 10)).await;
        if let Ok(tip) = engines.journal.tip(P0).await {
            seq = tip.last + 1;
        }
    }
    engines.wait_persisted(P0, 100).await;
    worker.stop().await;
    engines.assert_stored(P0, 100, &[]).await;
}

#[tokio::test]
async fn two_workers_that_believe_in_the_same_lease_store_everything_once() {
    let Some(engines) = crate::kit::cluster().await else { return };
    let sql = engines.sql();
    engines.write(P0, 1, 30).await;
    let one = Running::start(&engines, config(1));
    engines.wait_persisted(P0, 5).await;
    // The lease is gone while its holder is at work; another takes it.
    sqlx::raw_sql("UPDATE leases SET expires_at = '-infinity', token = token + 1")
        .execute(&sql)
        .await
        .unwrap();
    let two = Running::start(&engines, config(1));
    engines.write(P0, 31, 120).await;
    engines.wait_persisted(P0, 120).await;
    two.stop().await;
    one.stop().await;
    engines.assert_stored(P0, 120, &[]).await;
}
