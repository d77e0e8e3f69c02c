//! What goes wrong between this process and the database.

use crate::kit::{Kit, P0, START, TTL, batch, data, frame, open};
use std::time::{Duration, Instant};
use stormwire_archive::{Archive as _, ArchiveError, HistoryQuery, PersistError};
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig};
use stormwire_guard::{BreakerState, GuardConfig};
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::proxy::{Network, Proxy};
use stormwire_testkit::{Port, wait_until};

const SOON: Duration = Duration::from_secs(20);

fn impatient(url: String) -> PostgresConfig {
    let guard = GuardConfig {
        deadline: Duration::from_millis(500),
        attempts: 1,
        open_after: 3,
        open_for: Duration::from_millis(300),
        ..GuardConfig::default()
    };
    PostgresConfig { guard, persist_deadline: Duration::from_secs(1), ..PostgresConfig::new(url) }
}

async fn through(postgres: &Postgres) -> (Proxy, String) {
    let url = postgres.url();
    let address = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    let proxy = Proxy::start(address.parse().unwrap()).await.unwrap();
    let url = url.replace(address, &proxy.address().to_string());
    (proxy, url)
}

#[tokio::test]
async fn an_absent_database_is_no_reason_to_fail_and_is_found_when_it_comes() {
    let Some(kit) = Kit::start().await else { return };
    let port = Port::reserve().unwrap();
    let away = PostgresConfig::new(format!("postgres://x@127.0.0.1:{}/x", port.number()));
    let archive = PostgresArchive::connect(away).await.unwrap();
    let error = archive.ping().await.unwrap_err();
    assert!(matches!(&error, ArchiveError::Unavailable(why) if why.contains("refused")), "{error}");
    let bad = PostgresArchive::connect(PostgresConfig::new("nonsense")).await;
    assert!(matches!(bad, Err(ArchiveError::Protocol(_))));

    let (proxy, url) = through(&kit.postgres).await;
    proxy.set(Network::Cut);
    let archive = PostgresArchive::connect(PostgresConfig::new(url)).await.unwrap();
    assert!(archive.ping().await.is_err());
    proxy.set(Network::Healthy);
    let archive = &archive;
    wait_until("it is found", SOON, || async move { archive.ping().await.is_ok() }).await;
}

/// Scenario `stopped-inside-copy`: a worker that stands still in the middle of a COPY holds no lock that
/// anybody needs; its partition is taken over at once, and what it does later is refused.
#[tokio::test]
async fn stopped_inside_copy() {
    let Some(kit) = Kit::start().await else { return };
    let (proxy, url) = through(&kit.postgres).await;
    let paused = PostgresConfig { persist_deadline: SOON, ..impatient(url) };
    let paused = open(paused).await;
    let old = kit.lease("old").await;
    paused.persist(&old, &batch(0, vec![frame(1, &[("a:x", "1")])])).await.unwrap();
    // Megabytes, so that the network stops in the middle of them.
    let big = "1".repeat(60_000);
    let frames = (2..200).map(|seq| frame(seq, &[("a:x", &big), ("a:x", &big)])).collect();
    let stalled = batch(1, frames);
    proxy.set(Network::Slow(Duration::from_millis(20)));
    let (archive, lease) = (paused.clone(), old.clone());
    let cut_off = tokio::spawn(async move { archive.persist(&lease, &stalled).await });
    let in_copy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY events%' AND datname = current_database()";
    let kit = &kit;
    wait_until("it copies", SOON, || async move { kit.scalar(in_copy).await == 1 }).await;
    proxy.set(Network::HalfOpen);

    kit.run("UPDATE leases SET expires_at = '-infinity'").await;
    let started = Instant::now();
    let new = kit.lease("new").await;
    kit.archive.persist(&new, &batch(1, vec![frame(2, &[("a:x", "2")])])).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(kit.scalar(in_copy).await, 1, "the old one still stands there");
    proxy.set(Network::Healthy);
    let error = cut_off.await.unwrap().unwrap_err();
    assert!(matches!(error, PersistError::LeaseLost(P0)), "{error}");
    assert_eq!(data(&kit.history("a:x", HistoryQuery::Last).await), ["1", "2"]);
}

#[tokio::test]
async fn a_lost_answer_to_the_commit_is_settled_by_the_ledger() {
    let Some(kit) = Kit::start().await else { return };
    let (proxy, url) = through(&kit.postgres).await;
    let archive = open(impatient(url)).await;
    let lease = kit.lease("w").await;
    archive.persist(&lease, &batch(0, vec![frame(1, &[("a:x", "1")])])).await.unwrap();
    proxy.set(Network::AnswersLost);
    let next = batch(1, vec![frame(2, &[("a:x", "2")])]);
    let error = archive.persist(&lease, &next).await.unwrap_err();
    assert!(matches!(error, PersistError::Archive(ArchiveError::Unavailable(_))), "{error}");
    proxy.set(Network::Healthy);
    let found = archive.ledger(P0).await;
    let stored = kit.archive.ledger(P0).await.unwrap().unwrap().last_seq;
    assert!(found.is_err() || found.unwrap().unwrap().last_seq == stored);
    if stored == 1 {
        kit.archive.persist(&lease, &next).await.unwrap();
    }
    assert_eq!(data(&kit.history("a:x", HistoryQuery::Last).await), ["1", "2"]);
}

#[tokio::test]
async fn a_cancelled_batch_leaves_nothing_behind() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    let frames: Vec<_> = (1..60).map(|seq| frame(seq, &vec![("a:x", "[1,2,3]"); 400])).collect();
    let whole = batch(0, frames);
    for micros in [0, 200, 500, 1_000, 2_000, 4_000, 8_000, 16_000] {
        let cut = Duration::from_micros(micros);
        let _ = tokio::time::timeout(cut, kit.archive.persist(&lease, &whole)).await;
    }
    let stored = kit.archive.ledger(P0).await.unwrap().map_or(0, |entry| entry.last_seq);
    if stored == 0 {
        kit.archive.persist(&lease, &whole).await.unwrap();
    }
    assert_eq!(kit.count("events").await, 59 * 400, "once");
}

#[tokio::test]
async fn the_breaker_opens_while_the_database_is_away_and_closes_after() {
    let Some(kit) = Kit::start().await else { return };
    let (proxy, url) = through(&kit.postgres).await;
    let archive = open(impatient(url)).await;
    archive.ping().await.unwrap();
    assert_eq!(archive.breaker(), BreakerState::Closed);
    assert_eq!(archive.pool().max, 20);
    proxy.set(Network::Cut);
    let archive = &archive;
    wait_until("it opens", SOON, || async move {
        let _ = archive.ledger(P0).await;
        archive.breaker() == BreakerState::Open
    })
    .await;
    let error = archive.ping().await.unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");
    proxy.set(Network::Healthy);
    wait_until("it closes", SOON, || async move { archive.ping().await.is_ok() }).await;
    assert_eq!(archive.breaker(), BreakerState::Closed);
    archive.close().await;
}

#[tokio::test]
async fn a_restart_in_the_middle_of_persisting_stores_everything_once() {
    let Some(postgres) = Postgres::dedicated().await else { return };
    let kit = Kit::on(postgres).await;
    let lease = kit.lease("w").await;
    let restart = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            kit.postgres.server().restart().await;
        }
    };
    let persist = async {
        let mut last = 0;
        let until = Instant::now() + SOON * 2;
        while last < 400 && Instant::now() < until {
            let frames = (last + 1..last + 5)
                .map(|seq| frame(seq, &[("a:x", &seq.to_string()), ("a:y", "0")]));
            match kit.archive.persist(&lease, &batch(last, frames.collect())).await {
                Ok(()) => last += 4,
                Err(PersistError::LedgerMoved { found, .. }) => last = found,
                Err(PersistError::LeaseLost(_)) => panic!("the lease is long"),
                Err(PersistError::Archive(_)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    if let Ok(Some(entry)) = kit.archive.ledger(P0).await {
                        last = entry.last_seq;
                    }
                }
            }
        }
        last
    };
    let ((), last) = tokio::join!(restart, persist);
    assert_eq!(last, 400);
    let page = kit.history("a:x", HistoryQuery::Last).await;
    assert_eq!(data(&page), (1..=400).map(|seq| seq.to_string()).collect::<Vec<_>>());
    assert_eq!(page.events[0].ts, START.plus(Duration::from_secs(1)));
    let renewed = kit.archive.renew(std::slice::from_ref(&lease), TTL).await.unwrap();
    assert_eq!(renewed, [lease]);
}

/// As it is while a cluster is rolled out, or has gone back: docs/upgrade.md.
#[tokio::test]
async fn a_program_goes_on_over_a_schema_that_is_newer() {
    let Some(kit) = Kit::start().await else { return };
    kit.run("INSERT INTO archive_migrations (version, description, success, checksum, execution_time) VALUES (999, 'of a newer program', true, '', 0)").await;
    let archive = PostgresArchive::connect(PostgresConfig::new(kit.postgres.url())).await.unwrap();
    let told = archive.migrate().await.unwrap_err().to_string();
    assert!(told.contains("migration 999") && told.contains("newer version"), "{told}");
    archive.ping().await.unwrap();
    let kit = Kit { archive, ..kit };
    let lease = kit.lease("w").await;
    kit.archive.persist(&lease, &batch(0, vec![frame(1, &[("a:x", "1")])])).await.unwrap();
    assert_eq!(data(&kit.history("a:x", HistoryQuery::Last).await), ["1"]);
}
