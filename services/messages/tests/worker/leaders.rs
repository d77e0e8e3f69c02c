//! The scenario `lying-old-leader` on real NATS nodes: the leader of a log is parted from the others, does
//! not know it yet, and answers as if nothing had been written since.

use crate::epochs::gaps;
use crate::kit::{Engines, Running, SOON, config, frame};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use stormwire_archive::Archive as _;
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig};
use stormwire_core::{Epoch, FrameSeq, Partition};

use stormwire_journal_nats::{NatsConfig, NatsJournal};
use stormwire_testkit::nats::{NatsCluster, NatsOptions};
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::proxy::Network;
use stormwire_testkit::{StartError, wait_for, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const P0: Partition = Partition(0);
/// An election on a busy machine.
const ELECTED_WITHIN: Duration = Duration::from_secs(90);

async fn engines(urls: Vec<String>, archive: &str) -> Engines {
    let config = NatsConfig { urls, replicas: 3, ..NatsConfig::default() };
    let journal = Arc::new(Box::pin(NatsJournal::connect(config)).await.unwrap());
    let archive = PostgresArchive::connect(PostgresConfig::new(archive)).await.unwrap();
    archive.migrate().await.unwrap();
    Engines::of(journal, Arc::new(archive), ())
}

/// The node that leads the log of partition 0, by what a node's monitoring endpoint says.
async fn leader(nats: &NatsCluster) -> Option<usize> {
    let host = nats.nodes()[0].monitor_url().replace("http://", "");
    let mut socket = TcpStream::connect(&host).await.ok()?;
    let question = format!("GET /jsz?accounts=true&streams=true HTTP/1.0\r\nHost: {host}\r\n\r\n");
    socket.write_all(question.as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    answer.retain(|letter| !letter.is_whitespace());
    let (_, of_the_log) = answer.split_once("\"name\":\"STORM_0_1\"")?;
    let (_, name) = of_the_log.split_once("\"leader\":\"nats-")?;
    name.split('"').next()?.parse::<usize>().ok()?.checked_sub(1)
}

/// Appends the next frames up to `through`, from one leader to the next; does `beside` before each attempt.
async fn append_through<F: Future<Output = ()>>(
    engines: &Engines,
    through: FrameSeq,
    beside: impl Fn() -> F,
) {
    let until = tokio::time::Instant::now() + ELECTED_WITHIN;
    loop {
        beside().await;
        match engines.journal.open(P0).await.map(|tip| tip.last) {
            Ok(last) if last == through => return,
            // An attempt of unknown outcome may be stored: the tip says.
            Ok(last) => {
                let next = frame(last + 1, 10);
                drop(engines.journal.append(P0, Epoch(1), last, next).await);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        assert!(tokio::time::Instant::now() < until, "a leader takes frames");
    }
}

/// What an old leader says is no proof: a worker that hears it alone stores nothing past what it has and
/// takes nothing for lost, what it takes is never acknowledged, and when it has learnt better all is there.
#[tokio::test]
async fn lying_old_leader() {
    let Some(postgres) = Postgres::start().await else { return };
    let options = NatsOptions { sync_always: true, proxied_routes: true, ..NatsOptions::default() };
    let nats = match NatsCluster::try_start(3, &options).await {
        Err(StartError::Absent(_)) => return,
        nats => nats.unwrap(),
    };
    let all = engines(nats.urls(), &postgres.url()).await;
    append_through(&all, 10, || async {}).await;
    let old = wait_for("a leader", ELECTED_WITHIN, || leader(&nats)).await;
    let mut others = nats.urls();
    let seen = engines(vec![others.remove(old)], &postgres.url()).await;
    let others = engines(others, &postgres.url()).await;
    let worker = Running::start(&seen, config(1));
    seen.wait_persisted(P0, 10).await;

    let ways = nats.routes_of(old);
    ways.iter().for_each(|way| way.set(Network::Cut));
    let reset = || ways.iter().map(|way| way.spoilt()).sum::<u64>();
    wait_until("the leader is parted from the others", SOON, || async { reset() >= 4 }).await;
    let stale = seen.journal.append(P0, Epoch(1), 10, frame(99, 10)).await;
    assert!(stale.is_err(), "acknowledged without the others: {stale:?}");
    let lies = AtomicU32::new(0);
    append_through(&others, 20, || async {
        let lied = seen.journal.tip(P0).await.is_ok_and(|tip| tip.last == 10);
        lies.fetch_add(u32::from(lied), Ordering::Relaxed);
    })
    .await;
    let lies = lies.into_inner();
    println!("the old leader said {lies} times that the log ends with frame 10");
    assert_eq!(others.persisted(P0).await, 10, "it has heard of nothing else");

    ways.iter().for_each(|way| way.set(Network::Healthy));
    wait_until("all is persisted", SOON * 2, || async { others.persisted(P0).await >= 20 }).await;
    worker.stop().await;
    others.assert_stored(P0, 20, &[]).await;
    assert_eq!(gaps(&others).await, [], "nothing was taken for lost");
}
