//! Scenario `postgres-failover-behind`: the primary dies under load and a replica is promoted that had
//! not received the last commits. The ledger that went back with the rows says where to go on.

use crate::kit::{Engines, NOWHERE, Running, SOON, config, frame};
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig};
use stormwire_core::{Channel, FrameSeq, Partition};
use stormwire_guard::GuardConfig;
use stormwire_journal_nats::{NatsConfig, NatsJournal};
use stormwire_messages::MessagesConfig;
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::wait_until;

const P0: Partition = Partition(0);

/// A journal, and an archive with a replica that may be promoted.
struct Cluster {
    engines: Engines,
    primary: Postgres,
    replica: Postgres,
    nats: NatsServer,
}

impl Cluster {
    async fn start(replica_keeps_all: bool) -> Option<Self> {
        let nats = NatsServer::start().await?;
        let primary = Postgres::dedicated().await?;
        let archive = PostgresArchive::connect(PostgresConfig::new(primary.url())).await.unwrap();
        stormwire_archive::Archive::migrate(&archive).await.unwrap();
        archive.close().await;
        let replica = primary.replica().await?;
        let address = |url: &str| url.split(['@', '/']).nth(3).unwrap().to_owned();
        let (one, two) = (address(&primary.url()), address(&replica.url()));
        let url = primary.url().replace(&one, &format!("{one},{two}"));
        let guard = GuardConfig { open_for: Duration::from_millis(300), ..GuardConfig::default() };
        let replica_url = Some(replica.url());
        let config =
            PostgresConfig { guard, replica_url, replica_keeps_all, ..PostgresConfig::new(url) };
        let archive = PostgresArchive::connect(config).await.unwrap();
        let config = NatsConfig { urls: vec![nats.url()], ..NatsConfig::default() };
        let journal = Arc::new(NatsJournal::connect(config).await.unwrap());
        let engines = Engines::of(journal, Arc::new(archive), ());
        engines.journal.open(P0).await.unwrap();
        Some(Self { engines, primary, replica, nats })
    }

    /// The replica receives nothing more.
    async fn part(&self, has: FrameSeq) {
        let on_replica = PostgresArchive::connect(PostgresConfig {
            migrate_at_start: false,
            ..PostgresConfig::new(self.replica.url())
        });
        let on_replica: Arc<dyn stormwire_archive::Archive> = Arc::new(on_replica.await.unwrap());
        let follower = &on_replica;
        wait_until("the replica follows", SOON, || async move {
            let ledger = follower.ledger(P0).await.ok().flatten();
            ledger.is_some_and(|entry| entry.last_seq >= has)
        })
        .await;
        let replica = self.replica.server();
        replica.execute("ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
        replica.execute("SELECT pg_reload_conf()").await.unwrap();
        // A statement on the primary that ends only when no replica is connected.
        let gone = "SELECT 1 / (1 - count(*)) FROM pg_stat_replication";
        wait_until("they are apart", SOON, || async move {
            self.primary.server().execute(gone).await.is_ok()
        })
        .await;
    }

    async fn append(&self, from: FrameSeq, through: FrameSeq) {
        for seq in from..=through {
            self.engines.append(P0, seq, frame(seq, 10)).await;
        }
    }
}

#[tokio::test]
async fn postgres_failover_behind() {
    let Some(cluster) = Cluster::start(false).await else { return };
    let engines = &cluster.engines;
    cluster.append(1, 40).await;
    let worker = Running::start(engines, config(1));
    engines.wait_persisted(P0, 40).await;
    cluster.part(40).await;
    cluster.append(41, 80).await;
    engines.wait_persisted(P0, 80).await;
    let load = cluster.append(81, 200);
    let fail_over = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.primary.server().stop();
        cluster.replica.server().promote().await.unwrap();
    };
    tokio::join!(load, fail_over);
    engines.wait_persisted(P0, 200).await;
    worker.stop().await;
    engines.assert_stored(P0, 200, &[]).await;
    assert!(cluster.nats.is_running());
}

/// As above, while the journal keeps persisted frames for half a second only. What the replica does not
/// have is kept all the same, where that was asked for.
#[tokio::test]
async fn what_the_replica_lacks_is_not_trimmed() {
    let Some(cluster) = Cluster::start(true).await else { return };
    let engines = &cluster.engines;
    cluster.append(1, 40).await;
    let short = MessagesConfig { recovery_window: Duration::from_millis(500), ..config(1) };
    let worker = Running::start(engines, short);
    engines.wait_persisted(P0, 40).await;
    cluster.part(40).await;
    let (epoch, bytes) = (stormwire_core::Epoch(1), Vec::new().into());
    let table = stormwire_journal::SavedTable { epoch, through: 80, bytes };
    engines.journal.save_table(P0, table).await.unwrap();
    let first = async || engines.journal.tip(P0).await.unwrap().first;
    wait_until("what it has is trimmed", SOON, || async move { first().await >= 40 }).await;
    cluster.append(41, 80).await;
    engines.wait_persisted(P0, 80).await;
    // Several turns of trimming later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(engines.journal.tip(P0).await.unwrap().first, 40, "the rest is kept");
    cluster.primary.server().stop();
    cluster.replica.server().promote().await.unwrap();
    cluster.append(81, 90).await;
    engines.wait_persisted(P0, 90).await;
    worker.stop().await;
    engines.assert_stored(P0, 90, &[]).await;
    let channel = Channel::parse("a:x").unwrap();
    let query = stormwire_archive::HistoryQuery::Last;
    let page = engines.archive.history(&channel, P0, query, 1000, 1 << 20, NOWHERE).await.unwrap();
    assert!(page.gaps.is_empty(), "{:?}", page.gaps);
}
