//! URLs become ports that answer, with the embedded engine and with real servers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Partition, SystemClock};
use stormwire_engine::{
    ArchiveUrl, EngineConfig, EngineError, Engines, JournalUrl, LimitsUrl, OpenError, PresenceUrl,
    inspect_postgres,
};
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::redis::Redis;
use stormwire_testkit::{Folder, wait_until};

fn embedded(data_dir: &Path) -> EngineConfig {
    EngineConfig {
        name: "test".to_owned(),
        data_dir: data_dir.to_owned(),
        journal: JournalUrl::Sqlite,
        journal_replicas: 1,
        journal_bytes_max: 64 << 20,
        journal_tables_bytes_max: 64 << 20,
        archive: ArchiveUrl::Sqlite,
        archive_replica_url: None,
        archive_replica_keeps_all: false,
        archive_connections: 4,
        migrate_at_start: true,
        limits: LimitsUrl::Local,
        presence: PresenceUrl::Local,
    }
}

fn engines(config: EngineConfig) -> Engines {
    Engines::new(config, Arc::new(SystemClock))
}

#[tokio::test]
async fn the_embedded_engine_is_one_file_for_one_process_at_a_time() {
    let folder = Folder::temporary("engine").unwrap();
    let mut first = engines(embedded(folder.path()));
    let ports = first.ports().await.unwrap();
    assert!(ports.peers.is_alone() && !ports.limiter.is_shared());
    assert!(!ports.presence.is_shared() && ports.signals.check().is_ok());
    ports.journal.ping().await.unwrap();
    ports.archive.ping().await.unwrap();
    assert_eq!(ports.journal.open(Partition(0)).await.unwrap().last, 0);
    let mut second = engines(embedded(folder.path()));
    match second.archive().await {
        Err(EngineError::Embedded(OpenError::InUse { .. })) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the file is open twice"),
    }
    first.close().await;
    second.archive().await.unwrap().ping().await.unwrap();
    second.close().await;
}

#[tokio::test]
async fn a_cluster_s_engines_answer_behind_the_same_ports() {
    let (Some(nats), Some(postgres), Some(redis)) =
        (NatsServer::start().await, Postgres::start().await, Redis::start().await)
    else {
        return;
    };
    let folder = Folder::temporary("engine").unwrap();
    let mut engines = engines(EngineConfig {
        journal: nats.url().parse().unwrap(),
        archive: postgres.url().parse().unwrap(),
        limits: redis.url().parse().unwrap(),
        ..embedded(folder.path())
    });
    let ports = engines.ports().await.unwrap();
    assert!(!ports.peers.is_alone() && ports.limiter.is_shared());
    wait_until("all answer", Duration::from_secs(30), || async {
        ports.journal.ping().await.is_ok()
            && ports.archive.ping().await.is_ok()
            && ports.limiter.ping().await.is_ok()
    })
    .await;
    assert_eq!(ports.journal.open(Partition(0)).await.unwrap().last, 0);
    let found = inspect_postgres(&postgres.url(), Duration::from_secs(10)).await.unwrap();
    assert!(found.is_durable && found.may_create && !found.is_replica, "{found:?}");
    assert!(inspect_postgres("postgres://127.0.0.1:1/x", Duration::from_secs(5)).await.is_err());
    engines.close().await;
}
