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
use stormwire_testkit::proxy::{Network, Proxy};

const P0: Partition = Partition(0);

#[tokio::test]
async fn postgres_and_nats_may_restart_while_events_come() {
    let Some(nats) = NatsServer::start().await else { return };
    let Some(postgres) = Postgres::dedicated().await else { return };
    let engines = engines(&nats, postgres.url()).await;
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
    let (mut seq, mut refused) = (81, None);
    while seq <= 100 && tokio::time::Instant::now() < until {
        // An attempt of unknown outcome may be stored: the tip says.
        let outcome =
            engines.journal.append(P0, stormwire_core::Epoch(1), seq - 1, frame(seq, 10)).await;
        if let Err(error) = outcome {
            refused = Some(error);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if let Ok(tip) = engines.journal.tip(P0).await {
            seq = tip.last + 1;
        }
    }
    assert_eq!(seq, 101, "the journal takes frames again, after {refused:?}");
    engines.wait_persisted(P0, 100).await;
    worker.stop().await;
    engines.assert_stored(P0, 100, &[]).await;
}

#[tokio::test]
async fn a_worker_that_was_cut_off_comes_back_to_a_lost_lease_and_stores_nothing_twice() {
    let Some(nats) = NatsServer::start().await else { return };
    let Some(postgres) = Postgres::start().await else { return };
    let url = postgres.url();
    let address = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    let proxy = Proxy::start(address.parse().unwrap()).await.unwrap();
    let cut_off = engines(&nats, url.replace(address, &proxy.address().to_string())).await;
    let engines = engines(&nats, url).await;
    engines.write(P0, 1, 30).await;
    let one = Running::start(&cut_off, config(1));
    engines.wait_persisted(P0, 5).await;
    // Its renewals stop on the way, and perhaps a batch.
    proxy.set(Network::HalfOpen);
    let two = Running::start(&engines, config(1));
    engines.write(P0, 31, 60).await;
    engines.wait_persisted(P0, 60).await;
    proxy.set(Network::Healthy);
    engines.write(P0, 61, 120).await;
    engines.wait_persisted(P0, 120).await;
    two.stop().await;
    one.stop().await;
    engines.assert_stored(P0, 120, &[]).await;
}

pub(crate) async fn engines(nats: &NatsServer, url: String) -> Engines {
    let config = NatsConfig { urls: vec![nats.url()], ..NatsConfig::default() };
    let journal = Arc::new(NatsJournal::connect(config).await.unwrap());
    let archive = PostgresArchive::connect(PostgresConfig::new(url)).await.unwrap();
    archive.migrate().await.unwrap();
    Engines::of(journal, Arc::new(archive), ())
}
