//! Gateways that talk to each other over a real nats-server.

use crate::appender::{PATIENCE, config};
use futures::StreamExt as _;
use std::time::Duration;
use stormwire_core::Partition;
use stormwire_journal::{PeerError, Peers};
use stormwire_journal_nats::NatsPeers;
use stormwire_testkit::nats::NatsServer;
use tokio::time::timeout;

const P: Partition = Partition(7);

async fn peers(server: &NatsServer) -> NatsPeers {
    NatsPeers::connect(config(vec![server.url()])).await.expect("the configuration is good")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_hears_every_beat_their_own_included() {
    let Some(server) = NatsServer::start().await else { return };
    let (one, two) = (peers(&server).await, peers(&server).await);
    let (mut at_one, mut at_two) = (one.beats().await.unwrap(), two.beats().await.unwrap());
    one.beat("one lives".into()).await.unwrap();
    for beats in [&mut at_one, &mut at_two] {
        assert_eq!(timeout(PATIENCE, beats.next()).await.unwrap().unwrap(), "one lives");
    }
    server.kill().await;
    server.restart().await;
    let heard = async {
        loop {
            // Refused while there is no connection, and one beat may be lost.
            two.beat("two lives".into()).await.ok();
            if let Ok(beat) = timeout(Duration::from_millis(100), at_one.next()).await {
                return beat;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, heard).await.unwrap().unwrap(), "two lives");
    assert!(!one.is_alone());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_reaches_its_gateway_and_is_answered_once() {
    let Some(server) = NatsServer::start().await else { return };
    let (asker, owner) = (peers(&server).await, peers(&server).await);
    let mut requests = owner.serve("gateway-1.storm").await.unwrap();
    let large = vec![b'x'; 1 << 20];
    let body = large.clone();
    let owner = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            assert_eq!(request.partition, P);
            (request.reply)(request.body);
        }
    });
    for body in [vec![1, 2, 3], body] {
        let answer = timeout(PATIENCE, asker.ask("gateway-1.storm", P, body.clone().into())).await;
        assert_eq!(answer.unwrap(), Ok(body.into()));
    }
    let asked = asker.ask("gateway-2.storm", P, "anyone?".into());
    assert_eq!(timeout(PATIENCE, asked).await.unwrap(), Err(PeerError::NoResponder));
    let too_large = asker.ask("gateway-1.storm", P, vec![0; large.len() + 1].into()).await;
    assert!(matches!(too_large, Err(PeerError::Lost(_))), "{too_large:?}");
    owner.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_as_long_as_the_connection_stands() {
    let Some(server) = NatsServer::start().await else { return };
    let (asker, owner) = (peers(&server).await, peers(&server).await);
    let mut requests = owner.serve("slow").await.unwrap();
    let asked = tokio::spawn(async move { asker.ask("slow", P, "?".into()).await });
    let request = timeout(PATIENCE, requests.next()).await.unwrap().unwrap();
    assert!(!asked.is_finished());
    server.kill().await;
    let outcome = timeout(PATIENCE, asked).await.unwrap().unwrap();
    assert!(matches!(outcome, Err(PeerError::Lost(_))), "{outcome:?}");
    drop(request);
}

#[tokio::test]
async fn without_nats_everything_fails_at_once() {
    let Some(server) = NatsServer::start().await else { return };
    server.kill().await;
    let peers = peers(&server).await;
    assert!(matches!(peers.beat("?".into()).await, Err(PeerError::Lost(_))));
    assert!(matches!(peers.beats().await, Err(PeerError::Lost(_))));
    assert!(matches!(peers.serve("me").await, Err(PeerError::Lost(_))));
    assert!(matches!(peers.ask("me", P, "?".into()).await, Err(PeerError::Lost(_))));
}
