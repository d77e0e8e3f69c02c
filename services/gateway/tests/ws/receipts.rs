//! `receipt: "archive"`: the answer waits for the ledger, and for nothing else.

use crate::server::Server;
use serde_json::json;
use std::time::Duration;
use stormwire_archive::Batch;
use stormwire_core::{Channel, PartitionCount};
use stormwire_wire::frame::Frame;

/// All frames of a channel's partition go into the archive.
async fn persist(server: &Server, channel: &str) {
    let count = PartitionCount::DEFAULT;
    let partition = Channel::parse(channel).unwrap().partition(count);
    let leases =
        server.archive.acquire("test", count, usize::from(count.get()), Duration::from_secs(60));
    let leases = leases.await.unwrap();
    let lease = leases.iter().find(|lease| lease.partition == partition).unwrap();
    let tip = server.journal.tip(partition).await.unwrap();
    let stored = server.journal.read(partition, tip.epoch, 1, 4096, 1 << 24).await.unwrap();
    let frames =
        stored.iter().map(|frame| (frame.seq, frame.ts, Frame::decode(&frame.bytes).unwrap()));
    let batch = Batch {
        epoch: tip.epoch,
        expected_last: 0,
        through: tip.last,
        last_frame: None,
        frames: frames.filter(|(_, _, frame)| frame.events().is_some()).collect(),
        gaps: Vec::new(),
        undecodable: Vec::new(),
    };
    server.archive.persist(lease, &batch).await.unwrap();
}

#[tokio::test]
async fn an_answer_of_the_archive_waits_and_holds_up_no_other() {
    let server = Server::with(|config| config.unacked_max = 2).await;
    let mut client = server.client("p").await;
    let publish = |id: u64, seq: u64, receipt: &str| {
        json!({"op": "publish", "id": id, "channel": "t:a", "seq": seq, "receipt": receipt,
               "events": [{"data": seq}]})
    };
    client.say(publish(1, 1, "archive")).await;
    let answer = client.ask(publish(2, 2, "journal")).await;
    assert_eq!((&answer["op"], &answer["id"]), (&json!("published"), &json!(2)), "{answer}");
    // The first still counts as unacknowledged: with another one the window is full, and nothing more is
    // read of this connection.
    client.say(publish(3, 3, "archive")).await;
    client.say(publish(4, 4, "journal")).await;
    let early = tokio::time::timeout(Duration::from_millis(500), client.hear()).await;
    assert!(early.is_err(), "{early:?}");
    persist(&server, "t:a").await;
    for id in [1, 3, 4] {
        let answer = client.hear().await;
        assert_eq!((&answer["op"], &answer["id"]), (&json!("published"), &json!(id)), "{answer}");
        assert_eq!(answer.get("dead_letters"), None);
    }
    // What is sent again waits for the ledger as well; it covers the first copy already.
    let again = client
        .ask(json!({"op": "publish", "id": 5, "channel": "t:a", "seq": 1, "again": 100,
        "receipt": "archive", "events": [{"data": 1}]}))
        .await;
    assert_eq!((&again["op"], &again["duplicate"]), (&json!("published"), &json!(true)), "{again}");
    server.stop().await;
}
