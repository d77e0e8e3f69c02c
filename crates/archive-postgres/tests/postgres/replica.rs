//! A real streaming replica: read where it has enough, passed over where it has not.

use crate::kit::{Kit, P0, START, TTL, batch, data, frame, open};
use sqlx::postgres::PgPoolOptions;
use std::time::Duration;
use stormwire_archive::{Archive as _, HistoryPage, HistoryQuery, KeyQuery};
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig};
use stormwire_core::{Channel, Epoch, FrameSeq, Offset, Position};
use stormwire_guard::GuardConfig;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::wait_until;

const SOON: Duration = Duration::from_secs(30);

/// The journal's own part begins behind this frame.
fn behind(seq: FrameSeq) -> Position {
    Position { epoch: Epoch(1), offset: Offset::new(seq, 4095) }
}

fn config(primary: &Postgres, replica: &Postgres) -> PostgresConfig {
    let guard = GuardConfig {
        deadline: Duration::from_secs(2),
        attempts: 1,
        open_after: 2,
        ..GuardConfig::default()
    };
    let replica_url = Some(replica.url());
    PostgresConfig { guard, replica_url, ..PostgresConfig::new(primary.url()) }
}

async fn page(archive: &PostgresArchive, query: HistoryQuery, from: Position) -> HistoryPage {
    let channel = Channel::parse("a:x").unwrap();
    archive.history(&channel, P0, query, 1000, 1 << 20, from).await.unwrap()
}

fn ledger(page: &HistoryPage) -> FrameSeq {
    page.ledger.map_or(0, |entry| entry.last_seq)
}

async fn fill(kit: &Kit, lease: &stormwire_archive::Lease, from: FrameSeq, through: FrameSeq) {
    let frames = (from..=through).map(|seq| frame(seq, &[("a:x", &seq.to_string())]));
    kit.archive.persist(lease, &batch(from - 1, frames.collect())).await.unwrap();
}

async fn follows(replica: &Postgres, seq: FrameSeq) {
    let sql = PgPoolOptions::new().max_connections(1).connect_lazy(&replica.url()).unwrap();
    let sql = &sql;
    wait_until("the replica follows", SOON, || async move {
        let question = "SELECT coalesce(max(last_seq), 0) FROM ledger";
        let last = sqlx::query_scalar::<_, i64>(question).fetch_one(sql).await;
        last.is_ok_and(|last| last >= seq.cast_signed())
    })
    .await;
}

/// Scenario `replica-lag-read`: a replica that lags is read only where the journal, or the page itself,
/// makes up for what it lacks. No page has a hole.
#[tokio::test]
async fn replica_lag_read() {
    let Some(primary) = Postgres::dedicated().await else { return };
    let kit = Kit::on(primary.clone()).await;
    let lease = kit.lease("w").await;
    fill(&kit, &lease, 1, 10).await;
    let Some(replica) = primary.replica().await else { return };
    follows(&replica, 10).await;
    replica.server().pause_replay().await.unwrap();
    fill(&kit, &lease, 11, 20).await;
    let archive = open(config(&primary, &replica)).await;
    let (after, all) = (HistoryQuery::After(behind(0)), (1..=20).map(|n: u64| n.to_string()));
    let all: Vec<_> = all.collect();

    let early = page(&archive, after.clone(), behind(5)).await;
    assert_eq!(
        (ledger(&early), data(&early)),
        (10, all[..10].to_vec()),
        "the journal has the rest"
    );
    assert_eq!(ledger(&page(&archive, after.clone(), behind(10)).await), 10);
    for query in [after.clone(), HistoryQuery::Last] {
        let whole = page(&archive, query, behind(11)).await;
        assert_eq!(
            (ledger(&whole), data(&whole)),
            (20, all.clone()),
            "frame 11 would be in neither"
        );
    }
    let before = page(&archive, HistoryQuery::Before(behind(8)), behind(15)).await;
    assert_eq!((ledger(&before), data(&before)), (10, all[..8].to_vec()), "the page is whole");
    let channel = Channel::parse("a:x").unwrap();
    let count = async |from| {
        let counted = archive.count_after(&channel, P0, behind(0), 100, from).await.unwrap();
        (counted.events, counted.ledger.map(|entry| entry.last_seq))
    };
    assert_eq!(count(behind(10)).await, (10, Some(10)));
    assert_eq!(count(behind(11)).await, (20, Some(20)));
    let prefix = async |from| {
        archive.history_of_prefix(P0, "a:", behind(0), 100, 1 << 20, from).await.unwrap()
    };
    assert_eq!(ledger(&prefix(behind(10)).await), 10);
    assert_eq!(data(&prefix(behind(11)).await), all);
    let latest = async |from| {
        let latest = archive.latest(&channel, P0, &KeyQuery::After(None), 10, 1 << 20, from);
        latest.await.unwrap().ledger.map(|entry| entry.last_seq)
    };
    assert_eq!(latest(behind(10)).await, Some(10));
    assert_eq!(latest(behind(11)).await, Some(20));
    let time_of = |seq| START.plus(Duration::from_secs(seq));
    let position = async |seq| {
        let found = archive.position_at(&channel, P0, time_of(seq)).await.unwrap();
        found.map(|position| position.offset.seq())
    };
    assert_eq!(position(15).await, Some(15), "it may have come since");
    assert_eq!(position(21).await, None);
    // What the replica has is found there, while the primary does not answer.
    primary.server().pause().await;
    assert_eq!(position(5).await, Some(5));
    let place = archive.position_of_prefix_at(P0, "a:", time_of(5)).await;
    primary.server().resume().await;
    assert!(place.unwrap().is_some_and(|place| place < behind(5)));

    replica.server().resume_replay().await.unwrap();
    follows(&replica, 20).await;
    assert_eq!(data(&page(&archive, after.clone(), behind(20)).await), all);
    replica.server().stop();
    for _ in 0..4 {
        assert_eq!(data(&page(&archive, after.clone(), behind(5)).await), all, "it is away");
    }
}

/// A replica that must keep all says how far it is; without it nothing may be forgotten.
#[tokio::test]
async fn what_the_replica_has_bounds_what_may_be_forgotten() {
    let Some(primary) = Postgres::dedicated().await else { return };
    let kit = Kit::on(primary.clone()).await;
    let lease = kit.lease("w").await;
    fill(&kit, &lease, 1, 3).await;
    let Some(replica) = primary.replica().await else { return };
    follows(&replica, 3).await;
    replica.server().pause_replay().await.unwrap();
    fill(&kit, &lease, 4, 9).await;
    let keeping = PostgresConfig { replica_keeps_all: true, ..config(&primary, &replica) };
    let archive = open(keeping).await;
    let has = async || archive.replicated(P0).await.map(|entry| entry.map(|entry| entry.last_seq));
    assert_eq!(has().await, Ok(Some(3)));
    replica.server().resume_replay().await.unwrap();
    follows(&replica, 9).await;
    assert_eq!(has().await, Ok(Some(9)));
    replica.server().stop();
    assert!(has().await.is_err());
    let several = PostgresConfig {
        replica_url: Some("postgres://a,b/d".to_owned()),
        ..config(&primary, &replica)
    };
    assert!(PostgresArchive::connect(several).await.is_err(), "one replica is due");
}

/// The primary goes, its replica is promoted: of the URL's servers the one that takes writes is used.
#[tokio::test]
async fn the_server_that_takes_writes_is_found() {
    let Some(primary) = Postgres::dedicated().await else { return };
    let kit = Kit::on(primary.clone()).await;
    let lease = kit.lease("w").await;
    fill(&kit, &lease, 1, 3).await;
    let Some(replica) = primary.replica().await else { return };
    follows(&replica, 3).await;
    let address = |url: &str| url.split(['@', '/']).nth(3).unwrap().to_owned();
    let (one, two) = (address(&replica.url()), address(&primary.url()));
    // The replica first: a process that starts finds the primary behind it.
    let url = primary.url().replace(&two, &format!("{one},{two}"));
    let archive = PostgresArchive::connect(PostgresConfig::new(url)).await.unwrap();
    let archive = &archive;
    let renewed = |lease: stormwire_archive::Lease| async move {
        archive.renew(&[lease], TTL).await.is_ok_and(|kept| kept.len() == 1)
    };
    wait_until("the primary is found", SOON, || renewed(lease.clone())).await;
    primary.server().stop();
    replica.server().promote().await.unwrap();
    wait_until("the promoted one is found", SOON, || renewed(lease.clone())).await;
    let next = batch(3, vec![frame(4, &[("a:x", "4")])]);
    archive.persist(&lease, &next).await.unwrap();
    assert_eq!(data(&page(archive, HistoryQuery::Last, behind(0)).await), ["1", "2", "3", "4"]);
    assert!(archive.ping().await.is_ok());
}
