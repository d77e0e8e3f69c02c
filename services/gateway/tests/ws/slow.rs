//! Readers that do not keep up, and readers that lie about where they stand.

use super::publish;
use super::server::{Client, Server};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn keyed(id: u64, seq: u64, key: Option<u64>, data: &Value) -> Value {
    let mut event = json!({"data": data});
    if let Some(key) = key {
        event["key"] = json!(format!("k{key}"));
    }
    json!({"op": "publish", "id": id, "channel": "t:a", "seq": seq, "events": [event]})
}

#[tokio::test]
async fn a_slow_reader_of_the_latest_gets_the_newest_of_each_key() {
    let server = Server::with(|config| {
        config.queue_bytes = 8 * 1024;
        config.recent_bytes = 64 * 1024;
    })
    .await;
    let (mut writer, mut reader) = (server.client("w").await, server.client("r").await);
    let ask = json!({"op": "subscribe", "id": 1, "channel": "t:a", "mode": "latest"});
    assert_eq!(reader.ask(ask).await["op"], "subscribed");
    // More than the reader's queue and the sockets' buffers hold.
    let filler = "x".repeat(4_000);
    let (count, mut newest) = (3_000u64, BTreeMap::new());
    for n in 0..count {
        let key = (n % 5 != 0).then_some(n % 7);
        writer.say(keyed(n, n + 1, key, &json!([n, filler]))).await;
        newest.insert(key, n);
        if n % 100 == 99 {
            for _ in 0..100 {
                assert_eq!(writer.hear().await["op"], "published");
            }
        }
    }
    let (mut given, mut last, mut total) = (BTreeMap::new(), None, 0);
    while given != newest {
        let message = reader.hear().await;
        for event in message["events"].as_array().unwrap() {
            let n = event["data"][0].as_u64().unwrap();
            assert!(last < Some(n), "{n} after {last:?}");
            last = Some(n);
            let key = event["key"].as_str().map(|key| key[1..].parse().unwrap());
            given.insert(key, n);
            total += 1;
        }
    }
    assert!(total < count, "a reader that was away for most of it is not given all of it: {total}");
    server.stop().await;
}

/// The gap and the next event behind it, of a subscription since `position`.
async fn gap_of(server: &Server, writer: &mut Client, position: Value, seq: u64) -> Value {
    let mut reader = server.client("r").await;
    let ask = json!({"op": "subscribe", "id": 2, "channel": "t:a", "since": position});
    let subscribed = reader.ask(ask).await;
    assert_eq!(subscribed["recovered"], false, "{subscribed}");
    let gap = reader.hear().await;
    assert_eq!((&gap["op"], &gap["channel"]), (&json!("gap"), &json!("t:a")), "{gap}");
    let published = writer.ask(publish(seq, "t:a", seq, &[json!(seq)])).await;
    assert_eq!(reader.events(1).await[0].0, published["first"].as_u64().unwrap(), "it goes on");
    gap
}

#[tokio::test]
async fn who_lies_about_offset_or_epoch_is_told_a_gap_with_both_ends_and_goes_on() {
    let server = Server::start().await;
    let mut writer = server.client("w").await;
    for seq in 1..4u64 {
        writer.ask(publish(seq, "t:a", seq, &[json!(seq)])).await;
    }
    for (seq, lie) in (4..).zip([
        json!({"epoch": 1, "offset": 900_000_000u64}),
        json!({"epoch": 1, "offset": 9_007_199_254_740_991u64}),
        json!({"epoch": 7, "offset": 4096}),
        json!({"epoch": u32::MAX, "offset": 9_007_199_254_740_991u64}),
    ]) {
        let gap = gap_of(&server, &mut writer, lie.clone(), seq).await;
        assert_eq!(gap["from"], lie, "where it stood");
        assert_eq!(gap["to"]["epoch"], 1, "{gap}");
        let tip = gap["to"]["offset"].as_u64().unwrap();
        assert!(tip > 4096 && tip < 900_000_000, "where it stands now: {gap}");
    }
    // A cursor that lies does so for all of its partitions.
    let mut reader = server.client("r").await;
    let entries = (0..16u8).flat_map(|partition| [partition, 1, 0xfe, 0xff, 0x7f, 0]);
    let bytes: Vec<u8> = std::iter::once(2).chain(entries).collect();
    let cursor = base64(&bytes);
    let ask = json!({"op": "subscribe", "id": 2, "pattern": "t:*", "since": {"cursor": cursor}});
    let subscribed = reader.ask(ask).await;
    assert_eq!(subscribed["recovered"], false, "{subscribed}");
    let mut partitions = std::collections::BTreeSet::new();
    for _ in 0..16 {
        let gap = reader.hear().await;
        partitions.insert(gap["partition"].as_u64().unwrap());
        assert_eq!((&gap["op"], &gap["pattern"]), (&json!("gap"), &json!("t:*")), "{gap}");
        assert!(gap["from"]["offset"].as_u64() > gap["to"]["offset"].as_u64(), "{gap}");
        assert!(gap["cursor"].is_string());
    }
    assert_eq!(partitions.len(), 16, "each names its own");
    server.stop().await;
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            let digit = word >> (18 - 6 * at) & 63;
            text.push(char::from(DIGITS[usize::try_from(digit).unwrap()]));
        }
    }
    text
}
