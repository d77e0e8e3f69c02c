//! A task without which a partition stands still is gone: the gateway brings the rest to an end, tells
//! its clients to move, and says why it left.

use super::flawed::Flaws;
use super::publish;
use super::server::Server;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Clients beside the one whose partition fails; each is told to move in a slot of its own.
const WITNESSES: u64 = 4;

/// Does `trigger` to a gateway that has the flaw; the gateway's last word.
async fn leaves(flaws: &Arc<Flaws>, trigger: serde_json::Value) -> String {
    let spread = |config: &mut stormwire_gateway::GatewayConfig| {
        config.drain_spread = Duration::from_secs(2);
    };
    let server = Server::flawed(spread, flaws).await;
    let mut witnesses = Vec::new();
    for number in 0..WITNESSES {
        let mut witness = server.client(&format!("w{number}")).await;
        let answer = witness.ask(publish(1, &format!("t:{number}"), 1, &[json!(1)])).await;
        assert_eq!(answer["op"], "published", "{answer}");
        witnesses.push(witness);
    }
    flaws.tail_panics.store(trigger["op"] == "subscribe", Ordering::Relaxed);
    flaws.append_panics.store(trigger["op"] == "publish", Ordering::Relaxed);
    let mut client = server.client("p").await;
    client.say(trigger).await;
    let mut acknowledged = 0;
    for (number, witness) in (0..).zip(&mut witnesses) {
        let moving = witness.hear().await;
        assert_eq!(moving["op"], "moving", "{moving}");
        flaws.append_panics.store(false, Ordering::Relaxed);
        // Whoever has a later slot can still publish: the other partitions are served to the end.
        witness.say(publish(2, &format!("t:{number}"), 2, &[json!(2)])).await;
        while let Some(said) = witness.hear_unless_closed(1001).await {
            acknowledged += usize::from(said["op"] == "published");
        }
    }
    assert!(acknowledged > 0, "nobody's partition was served during the drain");
    while client.hear_unless_closed(1001).await.is_some() {}
    server.ended().await.expect_err("it did not leave by its own will").to_string()
}

#[tokio::test]
async fn a_gateway_whose_tail_panics_drains_and_exits_with_an_error() {
    let flaws = Arc::<Flaws>::default();
    let subscribe = json!({"op": "subscribe", "id": 1, "channel": "t:tail"});
    let why = leaves(&flaws, subscribe).await;
    assert_eq!(why, "the task tail has ended");
}

#[tokio::test]
async fn a_gateway_whose_appender_panics_drains_and_exits_with_an_error() {
    let flaws = Arc::<Flaws>::default();
    let why = leaves(&flaws, publish(1, "t:appender", 1, &[json!("lost?")])).await;
    assert_eq!(why, "the task ingest_partition has ended");
}
