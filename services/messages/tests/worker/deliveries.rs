//! The scenario `drop-one-delivery`: one frame is lost on its way from NATS to a worker.

use crate::epochs::gaps;
use crate::faults::engines;
use crate::kit::{Engines, Running, SOON, config};
use std::sync::Arc;
use stormwire_core::Partition;
use stormwire_journal_nats::{NatsConfig, NatsJournal};
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::proxy::{Network, Proxy};
use stormwire_testkit::wait_until;

const P0: Partition = Partition(0);

/// The journal of a worker whose connection to NATS goes through `proxy`, over the same archive.
async fn through(proxy: &Proxy, engines: &Engines) -> Engines {
    let url = format!("nats://{}", proxy.address());
    let config = NatsConfig { urls: vec![url], ..NatsConfig::default() };
    let journal = Arc::new(NatsJournal::connect(config).await.unwrap());
    Engines::of(journal, Arc::clone(&engines.archive), ())
}

/// From now on until it is healed, the third frame that comes this way is lost.
struct Loss<'a> {
    proxy: &'a Proxy,
    spoilt: u64,
}

impl<'a> Loss<'a> {
    fn begin(proxy: &'a Proxy, number: u32) -> Self {
        proxy.set(Network::OneLost(number));
        Self { proxy, spoilt: proxy.spoilt() }
    }

    async fn happens(self) {
        wait_until("a frame is lost", SOON, || async { self.proxy.spoilt() > self.spoilt }).await;
        self.proxy.set(Network::Healthy);
    }
}

/// A worker sees by the sequence numbers that a delivery is missing, stores nothing past it, and fetches
/// it: in the middle of live frames, as the last of them, and within a page that it reads.
#[tokio::test]
async fn drop_one_delivery() {
    let Some(nats) = NatsServer::start().await else { return };
    let Some(postgres) = Postgres::start().await else { return };
    let engines = engines(&nats, postgres.url()).await;
    let address = nats.url().trim_start_matches("nats://").parse().unwrap();
    let proxy = Proxy::start(address).await.unwrap();
    let seen = through(&proxy, &engines).await;
    let worker = Running::start(&seen, config(1));
    engines.write(P0, 1, 10).await;
    engines.wait_persisted(P0, 10).await;

    let loss = Loss::begin(&proxy, 1);
    engines.write(P0, 11, 20).await;
    loss.happens().await;
    engines.wait_persisted(P0, 20).await;

    // Behind the last one nothing comes that would show the hole.
    let loss = Loss::begin(&proxy, 2);
    engines.write(P0, 21, 23).await;
    loss.happens().await;
    engines.wait_persisted(P0, 23).await;
    worker.stop().await;

    engines.write(P0, 24, 60).await;
    let loss = Loss::begin(&proxy, 3);
    let worker = Running::start(&seen, config(1));
    loss.happens().await;
    engines.wait_persisted(P0, 60).await;
    worker.stop().await;
    engines.assert_stored(P0, 60, &[]).await;
    assert_eq!(gaps(&engines).await, [], "what was lost on its way is no gap");
}
