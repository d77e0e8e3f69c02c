//! What gateways tell each other beside their heartbeats, on one real NATS server.

use super::gateways::{Gateway, check, produce};
use super::{PARTITIONS, partitions};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::Timestamp;
use stormwire_gateway::ingest::LiveProducers;
use stormwire_journal::publish::ProducerKey;
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::proxy::{Network, Proxy};
use stormwire_testkit::wait_until;

const LIMIT: Duration = Duration::from_secs(30);

/// What a gateway was told about others' producers; of its own, those named here are connected still.
#[derive(Default)]
struct Told {
    connected: Mutex<Vec<ProducerKey>>,
    elsewhere: Mutex<Vec<(ProducerKey, Timestamp)>>,
}

impl LiveProducers for Told {
    fn is_connected(&self, producer: ProducerKey, _at: Timestamp) -> bool {
        self.connected.lock().contains(&producer)
    }

    fn connected_elsewhere(&self, producer: ProducerKey, at: Timestamp, _wins_tie: bool) {
        self.elsewhere.lock().push((producer, at));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b8_a_producer_that_connects_is_told_to_the_other_gateways() {
    let Some(server) = NatsServer::start().await else { return };
    let (first, second) =
        (Gateway::start("first", &server).await, Gateway::start("second", &server).await);
    let (there, here) = (Arc::new(Told::default()), Arc::new(Told::default()));
    first.ingest.watch_producers(Arc::clone(&there) as _);
    second.ingest.watch_producers(Arc::clone(&here) as _);
    wait_until("they know each other", LIMIT, async || {
        first.ingest.gateways() == 2 && second.ingest.gateways() == 2
    })
    .await;
    let [stays, goes, last] = ["stays", "goes", "last"].map(|name| ProducerKey::of("alice", name));
    here.connected.lock().extend([stays, last]);
    second.ingest.producer_connected(stays, Timestamp(1000));
    second.ingest.producer_connected(goes, Timestamp(1001));
    second.ingest.producer_connected(last, Timestamp(1002));
    wait_until("the last one is told", LIMIT, async || {
        there.elsewhere.lock().iter().any(|(producer, _)| *producer == last)
    })
    .await;
    let told = there.elsewhere.lock().clone();
    assert_eq!(
        told,
        [(stays, Timestamp(1000)), (last, Timestamp(1002))],
        "who is gone is not told"
    );
    assert!(here.elsewhere.lock().is_empty(), "a gateway does not tell itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_an_owner_without_its_journal_leaves_the_partition_to_one_who_reaches_it() {
    let Some(server) = NatsServer::start().await else { return };
    let address = server.url().trim_start_matches("nats://").parse().unwrap();
    let proxy = Proxy::start(address).await.unwrap();
    let journal = format!("nats://{}", proxy.address());
    let first = Gateway::start_through("first", journal, &server).await;
    let all = usize::from(PARTITIONS);
    wait_until("the first gateway owns all", LIMIT, async || first.owned() == all).await;
    let names = ["p0", "p1", "p2", "p3", "p4", "p5"];
    futures::future::join_all(names.map(|name| produce(&first.ingest, name, 1..20))).await;
    // Nobody takes over what the first one owns, for it lives; and it cannot hand anything over.
    proxy.set(Network::Cut);
    let second = Gateway::start("second", &server).await;
    let work = futures::future::join_all(names.map(|name| produce(&first.ingest, name, 20..30)));
    let given_up = wait_until("what it writes to is given up", LIMIT, async || {
        second.owned() >= used_partitions(&names)
    });
    tokio::join!(work, given_up);
    check(&*second.journal, &names, 30).await;
}

/// How many partitions these producers write to.
fn used_partitions(names: &[&str]) -> usize {
    let channel = |name| stormwire_core::Channel::parse(&format!("test:{name}")).unwrap();
    let used = names.iter().map(|name| channel(name).partition(partitions()).0);
    used.collect::<std::collections::BTreeSet<_>>().len()
}
