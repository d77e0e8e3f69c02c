//! The scenario `mixed-versions`, as a gateway and its subscribers see it.

use super::flawed::Flaws;
use super::publish;
use super::server::Server;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use stormwire_core::{Channel, PartitionCount};
use stormwire_testkit::wait_until;
use stormwire_wire::frame::{EventParts, EventsBuilder, FrameBuilder, FrameId};

/// A frame of the next version with one event of a channel.
fn newer_frame(channel: &Channel, data: &str) -> Vec<u8> {
    let (mut events, mut frame) = (EventsBuilder::default(), FrameBuilder::default());
    events.push(&EventParts { data: data.as_bytes(), ..Default::default() }).unwrap();
    frame.push(channel, "alice", "newer", 1, None, &events.take());
    let mut bytes = frame.finish(FrameId { appender: [7; 16], counter: 1 }).to_vec();
    bytes[1] += 1;
    bytes
}

/// A newer gateway has written a frame that this one cannot read: it neither skips it nor writes behind
/// it, and sends its subscribers away. A program that knows the version reads frames of both.
#[tokio::test]
async fn mixed_versions() {
    let flaws = Arc::<Flaws>::default();
    let server = Server::flawed(|_| {}, &flaws).await;
    let channel = Channel::parse("t:a").unwrap();
    let partition = PartitionCount::DEFAULT.of(channel.as_str().as_bytes());
    let subscribe = |since| json!({"op": "subscribe", "id": 1, "channel": "t:a", "since": since});
    let mut reader = server.client("r").await;
    reader.ask(subscribe(json!({"last": 1}))).await;
    let mut writer = server.client("w").await;
    let first = writer.ask(publish(1, "t:a", 1, &[json!("older")])).await;
    assert_eq!(reader.events(1).await[0].1, json!("older"));

    let tip = server.journal.tip(partition).await.unwrap();
    let newer = newer_frame(&channel, "\"newer\"").into();
    let stored = server.journal.append(partition, tip.epoch, tip.last, newer).await.unwrap();
    // Nothing of it is delivered, and nothing past it.
    assert_eq!(reader.hear_unless_closed(1001).await, None);
    let refused = writer.ask(publish(2, "t:a", 2, &[json!("never behind it")])).await;
    assert_eq!(
        (&refused["op"], &refused["temporary"]),
        (&json!("error"), &json!(true)),
        "{refused}"
    );
    assert_eq!(server.journal.tip(partition).await.unwrap().last, stored);
    let mut elsewhere = server.client("e").await;
    let answer = elsewhere.ask(publish(1, "t:elsewhere", 1, &[json!(1)])).await;
    assert_eq!(answer["op"], "published", "{answer}");

    flaws.upgraded.store(true, Ordering::Relaxed);
    let since = json!({"epoch": 1, "offset": first["last"]});
    let mut reader = server.client("r").await;
    let patience = Duration::from_secs(30);
    let writer = &tokio::sync::Mutex::new(writer);
    wait_until("the upgraded one writes behind it", patience, || async {
        let mut writer = writer.lock().await;
        let answer = writer.ask(publish(3, "t:a", 2, &[json!("behind it")])).await;
        answer["op"] == "published"
    })
    .await;
    reader.ask(subscribe(since)).await;
    let events = reader.events(2).await;
    assert_eq!(events[0], (stored * 4096, json!("newer")), "each once, none left out");
    assert_eq!(events[1].1, json!("behind it"));
    server.stop().await;
}
