//! Several gateways in one process, on one real NATS server.

use super::{Client, Event, PARTITIONS, partitions, stored};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use stormwire_core::{Partition, PartitionCount, SystemClock};
use stormwire_gateway::ingest::{Ingest, IngestConfig, NoWitness, Role};
use stormwire_journal::message::{Ask, AskBody};
use stormwire_journal::{Beat, Journal, PeerError, PeerRequest, Peers};
use stormwire_journal_nats::{NatsConfig, NatsJournal, NatsPeers};
use stormwire_telemetry::Tasks;
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::wait_until;

pub(crate) struct Gateway {
    pub(crate) ingest: Ingest,
    tasks: Tasks,
    pub(crate) journal: Arc<dyn Journal>,
}

impl Gateway {
    pub(crate) async fn start(name: &str, server: &NatsServer) -> Self {
        Self::start_through(name, server.url(), server).await
    }

    /// Its journal is at `journal`, the other gateways at `server`.
    pub(crate) async fn start_through(name: &str, journal: String, server: &NatsServer) -> Self {
        Self::start_of(name, journal, server, partitions()).await
    }

    async fn start_of(
        name: &str,
        journal: String,
        server: &NatsServer,
        partitions: PartitionCount,
    ) -> Self {
        let peers = NatsConfig { urls: vec![server.url()], ..NatsConfig::default() };
        let peers = Arc::new(Box::pin(NatsPeers::connect(peers)).await.unwrap());
        Self::start_with(name, journal, peers, partitions).await
    }

    async fn start_with(
        name: &str,
        journal: String,
        peers: Arc<dyn Peers>,
        partitions: PartitionCount,
    ) -> Self {
        let config = NatsConfig { urls: vec![journal], ..NatsConfig::default() };
        let journal = Arc::new(Box::pin(NatsJournal::connect(config)).await.unwrap());
        let tasks = Tasks::new();
        let ingest = Ingest::start(
            Arc::clone(&journal) as Arc<dyn Journal>,
            peers,
            Arc::new(NoWitness),
            Arc::new(SystemClock),
            IngestConfig::new(name, partitions),
            &tasks,
        );
        Self { ingest, tasks, journal }
    }

    pub(crate) fn owned(&self) -> usize {
        self.ingest.status().iter().filter(|status| status.role == Role::Owner).count()
    }
}

/// The way between gateways, on which no answer to a publish comes back.
struct AnswersLost {
    way: NatsPeers,
    lost: AtomicUsize,
}

#[async_trait]
impl Peers for AnswersLost {
    async fn beat(&self, beat: Beat) -> Result<(), PeerError> {
        self.way.beat(beat).await
    }

    async fn beats(&self) -> Result<BoxStream<'static, Beat>, PeerError> {
        self.way.beats().await
    }

    async fn ask(
        &self,
        gateway: &str,
        partition: Partition,
        body: Bytes,
    ) -> Result<Bytes, PeerError> {
        let is_publish = matches!(Ask::decode(&body).unwrap().body, AskBody::Append(_));
        let answer = self.way.ask(gateway, partition, body).await;
        if is_publish && answer.is_ok() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        answer
    }

    async fn serve(&self, gateway: &str) -> Result<BoxStream<'static, PeerRequest>, PeerError> {
        self.way.serve(gateway).await
    }

    fn is_alone(&self) -> bool {
        false
    }
}

/// A producer that publishes one event after the other, and repeats until each is acknowledged.
pub(crate) async fn produce(ingest: &Ingest, producer: &str, seqs: std::ops::Range<u64>) -> usize {
    let client = Arc::new(Client::default());
    let mut duplicates = 0;
    for (ticket, seq) in (0..).step_by(1000).zip(seqs) {
        let sent = Instant::now();
        for attempt in 0.. {
            let again = (attempt > 0).then(|| sent.elapsed());
            let channel = format!("test:{producer}");
            let event =
                Event { connection: 1, channel: &channel, producer: Some(producer), seq, again };
            client.publish(ingest, ticket + attempt, &event);
            match client.answer(ticket + attempt).await {
                Ok(published) => {
                    duplicates += usize::from(published.duplicate);
                    break;
                }
                Err(refusal) => assert!(refusal.is_temporary(), "{refusal}"),
            }
            assert!(sent.elapsed() < Duration::from_secs(30), "{producer} {seq} is not written");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    duplicates
}

/// Every event of these producers stands in the log once, in order.
pub(crate) async fn check(journal: &dyn Journal, producers: &[&str], count: u64) {
    let mut found: HashMap<String, Vec<u64>> = HashMap::new();
    for (data, _, _) in stored(journal).await {
        let (producer, seq) = data.trim_matches('"').split_once(':').unwrap();
        found.entry(producer.to_owned()).or_default().push(seq.parse().unwrap());
    }
    for producer in producers {
        assert_eq!(found[*producer], (1..count).collect::<Vec<_>>(), "{producer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_shared_handed_over_and_taken_over_without_loss() {
    let Some(server) = NatsServer::start().await else { return };
    let first = Gateway::start("first", &server).await;
    let all = usize::from(PARTITIONS);
    let limit = Duration::from_secs(20);
    wait_until("the first gateway owns all", limit, async || first.owned() == all).await;

    // A second one joins while events flow, and takes over its share.
    let names = ["p0", "p1", "p2", "p3", "p4", "p5"];
    let work = futures::future::join_all(names.map(|name| produce(&first.ingest, name, 1..200)));
    let (second, _) = tokio::join!(Gateway::start("second", &server), work);
    wait_until("the second gateway has its share", limit, async || {
        second.owned() > 0 && first.owned() + second.owned() == all
    })
    .await;
    check(&*first.journal, &names, 200).await;

    // The first one is gone from one moment to the next, in the middle of its work.
    let work = futures::future::join_all(names.map(|name| produce(&second.ingest, name, 200..400)));
    let journal = Arc::clone(&first.journal);
    let killed = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(first.ingest);
        first.tasks.drain(Duration::from_secs(5)).await.unwrap();
    };
    tokio::join!(work, killed);
    wait_until("the second gateway owns all", limit, async || second.owned() == all).await;
    check(&*journal, &names, 400).await;

    // One that leaves hands its partitions over.
    let third = Gateway::start("third", &server).await;
    wait_until("the third gateway has its share", limit, async || third.owned() > 0).await;
    let work = futures::future::join_all(names.map(|name| produce(&third.ingest, name, 400..500)));
    tokio::join!(work, second.ingest.drain());
    assert_eq!(second.owned(), 0);
    wait_until("the third gateway owns all", limit, async || third.owned() == all).await;
    check(&*journal, &names, 500).await;
    drop(second.tasks);
}

/// One after the other, with a second between two attempts, a gateway with many partitions would still have
/// some of them when it has to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_leaves_hands_all_its_partitions_over_at_once() {
    const MANY: u16 = 32;
    let Some(server) = NatsServer::start().await else { return };
    let (all, limit) = (usize::from(MANY), Duration::from_secs(60));
    let start =
        |name| Gateway::start_of(name, server.url(), &server, PartitionCount::new(MANY).unwrap());
    let first = start("first").await;
    wait_until("the first gateway owns all", limit, async || first.owned() == all).await;
    let second = start("second").await;
    wait_until("each gateway has its share", limit, async || {
        second.owned() > all / 4 && first.owned() + second.owned() == all
    })
    .await;
    let (had, begun) = (first.owned(), Instant::now());
    first.ingest.drain().await;
    let took = begun.elapsed();
    println!("{had} partitions were handed over within {took:?}");
    assert_eq!(first.owned(), 0, "it did not hand all over before it has to end");
    // A gateway tells its clients to move after five seconds, whatever it still has by then.
    assert!(took < Duration::from_secs(4), "{had} partitions took {took:?}");
    wait_until("the second gateway owns all", limit, async || second.owned() == all).await;
}

/// What a gateway asked of an owner, and became one itself before the answer was lost: nobody else will
/// answer it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_takes_over_while_an_answer_is_lost_goes_on_by_itself() {
    let Some(server) = NatsServer::start().await else { return };
    let first = Gateway::start("first", &server).await;
    let all = usize::from(PARTITIONS);
    let limit = Duration::from_secs(20);
    wait_until("the first gateway owns all", limit, async || first.owned() == all).await;

    let config = NatsConfig { urls: vec![server.url()], ..NatsConfig::default() };
    let way = Box::pin(NatsPeers::connect(config)).await.unwrap();
    let peers = Arc::new(AnswersLost { way, lost: AtomicUsize::new(0) });
    let asks = Arc::clone(&peers) as Arc<dyn Peers>;
    let second = Gateway::start_with("second", server.url(), asks, partitions()).await;
    let names = ["p0", "p1", "p2", "p3", "p4", "p5"];
    let begun = Instant::now();
    let work = futures::future::join_all(names.map(|name| produce(&second.ingest, name, 1..20)));
    let leaves = async {
        wait_until("answers are lost", limit, async || peers.lost.load(Ordering::Relaxed) > 0)
            .await;
        first.ingest.drain().await;
    };
    tokio::join!(work, leaves);
    assert!(begun.elapsed() < Duration::from_secs(14), "before the deadline of a publish");
    assert_eq!(second.owned(), all);
    check(&*first.journal, &names, 20).await;
}
