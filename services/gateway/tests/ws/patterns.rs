//! Patterns: one subscription to all channels that match, with one cursor.

use super::publish;
use super::server::{Client, Server};
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use stormwire_core::PartitionCount;

/// What a pattern's reader was given: of each channel its offsets, and the newest cursor.
#[derive(Default)]
struct Given {
    offsets: BTreeMap<String, Vec<u64>>,
    cursor: String,
    count: usize,
}

impl Given {
    /// Takes what one WebSocket message says; the last of it carries the cursor.
    fn take(&mut self, message: &Value) {
        let list = message.as_array().map_or(std::slice::from_ref(message), Vec::as_slice);
        for (at, one) in list.iter().enumerate() {
            assert_eq!((&one["op"], &one["pattern"]), (&json!("events"), &json!("orders:*")));
            assert_eq!(one["cursor"].is_string(), at + 1 == list.len(), "{message}");
            let offsets = self.offsets.entry(one["channel"].as_str().unwrap().to_owned());
            let offsets = offsets.or_default();
            for event in one["events"].as_array().unwrap() {
                offsets.push(event["offset"].as_u64().unwrap());
                self.count += 1;
            }
        }
        self.cursor = list.last().unwrap()["cursor"].as_str().unwrap().to_owned();
    }

    async fn until(&mut self, client: &mut Client, count: usize) {
        while self.count < count {
            let message = client.hear().await;
            self.take(&message);
        }
        assert_eq!(self.count, count, "no event twice");
    }
}

fn name(n: u64) -> String {
    format!("orders:{}", ["eu", "us.ny", "us.la", "asia"][usize::try_from(n % 4).unwrap()])
}

/// Publishes events `from..to` on four channels of `orders`, and as many beside them.
async fn fill(writer: &mut Client, (from, to): (u64, u64), due: &mut BTreeMap<String, Vec<u64>>) {
    for n in from..to {
        let channel = name(n);
        let answer = writer.ask(publish(n, &channel, 2 * n + 1, &[json!(n)])).await;
        due.entry(channel).or_default().push(answer["first"].as_u64().unwrap());
        writer.ask(publish(n, "orders2:eu", 2 * n + 2, &[json!("beside")])).await;
    }
}

#[tokio::test]
async fn a_pattern_gets_every_channel_that_matches_and_goes_on_from_its_cursor() {
    // Little memory of the recent past: what was missed comes from the journal.
    let server = Server::with(|config| config.recent_bytes = 2_000).await;
    let (mut writer, mut due) = (server.client("w").await, BTreeMap::new());
    fill(&mut writer, (0, 8), &mut due).await;
    due.clear();
    let mut reader = server.client("r").await;
    let subscribed = reader.ask(json!({"op": "subscribe", "id": 1, "pattern": "orders:*"})).await;
    assert_eq!(
        (&subscribed["op"], &subscribed["pattern"], &subscribed["recovered"]),
        (&json!("subscribed"), &json!("orders:*"), &json!(true))
    );
    let mut given =
        Given { cursor: subscribed["cursor"].as_str().unwrap().to_owned(), ..Given::default() };
    let (mut from, mut count) = (8, 0);
    // Live, away for a long time, live again; from whatever cursor it was given last.
    for _ in 0..3 {
        fill(&mut writer, (from, from + 20), &mut due).await;
        count += 20;
        given.until(&mut reader, count).await;
        drop(reader);
        fill(&mut writer, (from + 20, from + 140), &mut due).await;
        count += 120;
        from += 140;
        reader = server.client("r").await;
        let since = json!({"cursor": given.cursor});
        let ask = json!({"op": "subscribe", "id": 2, "pattern": "orders:*", "since": since});
        let subscribed = reader.ask(ask).await;
        assert_eq!(subscribed["recovered"], true, "{subscribed}");
        given.until(&mut reader, count).await;
    }
    assert_eq!(given.offsets, due);
    server.stop().await;
}

/// Each partition's frame in a cursor, read without our code: its version, then for each partition its
/// number, its epoch, and twice the frame, plus one where the whole of it was given.
fn frames_in(cursor: &str) -> BTreeMap<u64, u64> {
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(cursor).unwrap();
    let mut rest = bytes[1..].iter();
    let mut number = || {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = u64::from(*rest.next()?);
            value |= (byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
            shift += 7;
        }
    };
    let mut frames = BTreeMap::new();
    while let Some(partition) = number() {
        let (_epoch, frame) = (number().unwrap(), number().unwrap());
        if frame & 1 == 0 {
            number();
        }
        frames.insert(partition, frame >> 1);
    }
    frames
}

/// A partition in which a pattern's channels are quiet moves in its cursor all the same, so that little
/// has to be read by one who comes back.
#[tokio::test]
async fn a_quiet_partition_moves_in_the_cursor_too() {
    let server = Server::start().await;
    let (mut writer, mut reader) = (server.client("w").await, server.client("r").await);
    let subscribed = reader.ask(json!({"op": "subscribe", "id": 1, "pattern": "orders:*"})).await;
    let begun = frames_in(subscribed["cursor"].as_str().unwrap());
    assert_eq!(begun.len(), 16);
    // Everywhere but in `orders`, until each partition has seen something.
    for n in 0..200u64 {
        writer.ask(publish(n, &format!("beside:{n}"), n + 1, &[json!(n)])).await;
    }
    let mut ends = BTreeMap::new();
    for partition in PartitionCount::DEFAULT.all() {
        let tip = server.journal.tip(partition).await.unwrap();
        ends.insert(u64::from(partition.0), tip.last);
    }
    assert!(ends.iter().all(|(partition, end)| begun[partition] < *end), "{begun:?} {ends:?}");
    let mut seq = 200u64;
    let reached = loop {
        seq += 1;
        writer.ask(publish(seq, "orders:eu", seq, &[json!(seq)])).await;
        let message = reader.hear().await;
        let frames = frames_in(message["cursor"].as_str().unwrap());
        // Its tails may be a moment behind the journal.
        if ends.iter().all(|(partition, end)| frames[partition] >= *end) || seq == 300 {
            break frames;
        }
    };
    assert!(ends.iter().all(|(partition, end)| reached[partition] >= *end), "{reached:?} {ends:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_pattern_begins_at_a_time() {
    let server = Server::with(|config| config.recent_bytes = 2_000).await;
    let (mut writer, mut due) = (server.client("w").await, BTreeMap::new());
    fill(&mut writer, (0, 60), &mut due).await;
    due.clear();
    let probe = json!({"op": "history", "id": 1, "channel": "orders:asia", "limit": 1});
    let page = writer.ask(probe).await;
    let time = page["events"][0]["ts"].as_u64().unwrap() + 1;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    fill(&mut writer, (60, 100), &mut due).await;
    let mut reader = server.client("r").await;
    let ask = json!({"op": "subscribe", "id": 1, "pattern": "orders:*", "since": {"time": time}});
    assert_eq!(reader.ask(ask).await["op"], "subscribed");
    let mut given = Given::default();
    given.until(&mut reader, 40).await;
    assert_eq!(given.offsets, due);
    server.stop().await;
}

#[tokio::test]
async fn what_a_pattern_may_not_be_is_refused() {
    let server = Server::with(|config| config.subscriptions_max = 2).await;
    let mut client = server.open().await;
    let token = server.token_for("bob", &[], &["orders:eu.*", "news:*"]);
    client.ask(json!({"op": "connect", "id": 0, "token": token})).await;
    let ask = |pattern: &str, since: Value| {
        let mut ask = json!({"op": "subscribe", "id": 1, "pattern": pattern});
        if !since.is_null() {
            ask["since"] = since;
        }
        ask
    };
    let other_cluster = "AgABAw";
    for (ask, code, part) in [
        (ask("orders:*", Value::Null), "forbidden", "all of orders:*"),
        (ask("*", Value::Null), "invalid_field", "name one"),
        (ask("news:world", Value::Null), "invalid_field", "as channel"),
        (ask("ne*", Value::Null), "invalid_field", "colon"),
        (ask("news:*", json!({"last": 3})), "invalid_field", "since.last"),
        (ask("news:*", json!({"epoch": 1, "offset": 3})), "invalid_field", "since.offset"),
        (ask("news:*", json!({"cursor": "rubbish"})), "invalid_field", "since.cursor"),
        (ask("news:*", json!({"cursor": other_cluster})), "invalid_field", "of this cluster"),
        (json!({"op": "unsubscribe", "id": 1, "pattern": "news:*"}), "not_found", "news:*"),
    ] {
        let answer = client.ask(ask.clone()).await;
        assert_eq!(answer["code"], code, "{ask} {answer}");
        assert!(answer["message"].as_str().unwrap().contains(part), "{ask} {answer}");
    }
    assert_eq!(client.ask(ask("orders:eu.*", Value::Null)).await["op"], "subscribed");
    assert_eq!(client.ask(ask("orders:eu.*", Value::Null)).await["code"], "conflict");
    assert_eq!(client.ask(ask("news:*", Value::Null)).await["op"], "subscribed");
    assert_eq!(client.ask(ask("news:uk.*", Value::Null)).await["code"], "too_many_subscriptions");
    let ended = client.ask(json!({"op": "unsubscribe", "id": 1, "pattern": "news:*"})).await;
    assert_eq!((&ended["op"], &ended["pattern"]), (&json!("unsubscribed"), &json!("news:*")));
    // A fresh token that no longer allows it ends it.
    let token = server.token_for("bob", &[], &["news:*"]);
    client.say(json!({"op": "refresh", "id": 2, "token": token})).await;
    assert_eq!(client.hear().await["op"], "refreshed");
    let ended = client.hear().await;
    assert_eq!((&ended["op"], &ended["pattern"]), (&json!("unsubscribed"), &json!("orders:eu.*")));
    server.stop().await;
}

#[tokio::test]
async fn many_channels_in_one_operation_have_an_answer_each() {
    let server = Server::start().await;
    let mut client = server.client("p").await;
    let mut first = Vec::new();
    for n in 0..100u64 {
        let answer = client.ask(publish(n, &format!("t:{n}"), n + 1, &[json!(n)])).await;
        first.push(answer["first"].as_u64().unwrap());
    }
    let channels: Vec<String> = (0..100).map(|n| format!("t:{n}")).collect();
    let ask = json!({"op": "subscribe", "id": 7, "channels": channels, "since": {"last": 1}});
    client.say(ask).await;
    let (mut subscribed, mut events) = (0, Vec::new());
    while subscribed < 100 || events.len() < 100 {
        let message = client.hear().await;
        match message["op"].as_str().unwrap() {
            "subscribed" => subscribed += 1,
            "events" => events.push(message["events"][0]["offset"].as_u64().unwrap()),
            other => panic!("{other}"),
        }
    }
    events.sort_unstable();
    first.sort_unstable();
    assert_eq!(events, first, "the last event of each");
    server.stop().await;
}
