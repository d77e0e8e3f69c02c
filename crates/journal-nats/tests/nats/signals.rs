//! Signals between gateways over a real nats-server.

use crate::appender::{PATIENCE, config};
use futures::StreamExt as _;
use std::time::Duration;
use stormwire_core::Partition;
use stormwire_journal_nats::NatsSignals;
use stormwire_presence::{Signals, suite};
use stormwire_testkit::nats::NatsServer;
use tokio::time::timeout;

async fn signals(server: &NatsServer) -> NatsSignals {
    NatsSignals::connect(config(vec![server.url()])).await.expect("the configuration is good")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_keeps_the_ports_promises() {
    let Some(server) = NatsServer::start().await else { return };
    let (one, two) = (signals(&server).await, signals(&server).await);
    suite::signals(&one, &two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_signals_are_refused_and_a_listener_hears_again_afterwards() {
    let Some(server) = NatsServer::start().await else { return };
    let p = Partition(7);
    let (one, two) = (signals(&server).await, signals(&server).await);
    let mut heard = two.listen(p).await.unwrap();
    server.kill().await;
    let refused = async {
        while one.check().is_ok() || one.send(p, "lost".into()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    assert!(one.listen(p).await.is_err());
    server.restart().await;
    let again = async {
        loop {
            one.send(p, "again".into()).await.ok();
            let next = timeout(Duration::from_millis(100), heard.next()).await;
            if next.is_ok_and(|message| message.is_some_and(|message| message == "again")) {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}
