//! The WebSocket protocol, through a real gateway on the embedded engine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod failing;
mod flawed;
mod latest;
mod liars;
mod patterns;
mod receipts;
mod scenarios;
mod server;
mod slow;
mod versions;

use serde_json::{Value, json};
use server::Server;
use std::time::Duration;
use stormwire_identity::TokenRequest;

fn publish(id: u64, channel: &str, seq: u64, events: &[Value]) -> Value {
    let events: Vec<Value> = events.iter().map(|data| json!({ "data": data })).collect();
    json!({"op": "publish", "id": id, "channel": channel, "seq": seq, "events": events})
}

#[tokio::test]
async fn what_is_published_is_acknowledged_and_delivered_in_order() {
    let server = Server::start().await;
    let (mut writer, mut reader) = (server.client("w").await, server.client("r").await);
    let subscribed = reader.ask(json!({"op": "subscribe", "id": "s", "channel": "t:a"})).await;
    assert_eq!((&subscribed["op"], &subscribed["id"]), (&json!("subscribed"), &json!("s")));
    let mut acknowledged = Vec::new();
    for i in 0..50u64 {
        let answer =
            writer.ask(publish(i, "t:a", 1 + 2 * i, &[json!(2 * i), json!(2 * i + 1)])).await;
        assert_eq!((&answer["op"], &answer["id"]), (&json!("published"), &json!(i)), "{answer}");
        acknowledged.push(answer["first"].as_u64().unwrap());
        acknowledged.push(answer["last"].as_u64().unwrap());
    }
    let events = reader.events(100).await;
    let offsets: Vec<u64> = events.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, acknowledged);
    let data: Vec<Value> = events.into_iter().map(|(_, data)| data).collect();
    assert_eq!(data, (0..100u64).map(|n| json!(n)).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn many_operations_in_one_message_are_answered_each() {
    let server = Server::start().await;
    let mut client = server.client("p").await;
    let batch: Vec<Value> = (0..200).map(|i| publish(i, "t:a", i + 1, &[json!(i)])).collect();
    client.say(Value::Array(batch)).await;
    for i in 0..200 {
        let answer = client.hear().await;
        assert_eq!((&answer["op"], &answer["id"]), (&json!("published"), &json!(i)), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_repeat_is_answered_with_the_first_copys_offsets_and_stored_once() {
    let server = Server::start().await;
    let mut client = server.client("p").await;
    let first = client.ask(publish(1, "t:a", 1, &[json!("x"), json!("y")])).await;
    let mut again = publish(2, "t:a", 1, &[json!("x"), json!("y")]);
    let conflict = client.ask(again.clone()).await;
    assert_eq!(conflict["code"], "conflict", "{conflict}");
    again["again"] = json!(500);
    let repeat = client.ask(again).await;
    assert_eq!(repeat["duplicate"], true, "{repeat}");
    assert_eq!((&repeat["first"], &repeat["last"]), (&first["first"], &first["last"]));
    let history =
        client.ask(json!({"op": "history", "id": 3, "channel": "t:a", "limit": 10})).await;
    assert_eq!(history["events"].as_array().unwrap().len(), 2, "{history}");
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_goes_on_from_any_offset_however_far_back() {
    // Little memory of the recent past: most of this comes from the journal.
    let server = Server::with(|config| config.recent_bytes = 4_000).await;
    let mut writer = server.client("w").await;
    let mut offsets = Vec::new();
    for i in 0..300u64 {
        let answer = writer.ask(publish(i, "t:a", i + 1, &[json!(i)])).await;
        offsets.push(answer["first"].as_u64().unwrap());
        if i % 3 == 0 {
            writer.ask(publish(i, "t:b", i + 1_001, &[json!("other")])).await;
        }
    }
    for start in [0usize, 17, 150, 298, 299] {
        let mut reader = server.client("r").await;
        let since = json!({"epoch": 1, "offset": offsets[start]});
        let ask = json!({"op": "subscribe", "id": 1, "channel": "t:a", "since": since});
        let subscribed = reader.ask(ask).await;
        assert_eq!(subscribed["recovered"], true, "{subscribed}");
        let events = reader.events(299 - start).await;
        let got: Vec<u64> = events.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(got, offsets[start + 1..], "from {start}");
    }
    let mut reader = server.client("r").await;
    reader.ask(json!({"op": "subscribe", "id": 1, "channel": "t:a", "since": {"last": 3}})).await;
    assert_eq!(reader.events(3).await[0].0, offsets[297]);
    let live = writer.ask(publish(9, "t:a", 5_000, &[json!("live")])).await;
    assert_eq!(reader.events(1).await[0].0, live["first"].as_u64().unwrap());
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_stalls_is_parked_and_misses_nothing() {
    let server = Server::with(|config| config.queue_bytes = 8 * 1024).await;
    let (mut writer, mut reader) = (server.client("w").await, server.client("r").await);
    reader.ask(json!({"op": "subscribe", "id": 1, "channel": "t:a"})).await;
    // More than the reader's queue and the sockets' buffers hold.
    let filler = "x".repeat(4_000);
    let count = 3_000u64;
    for i in 0..count {
        writer.say(publish(i, "t:a", i + 1, &[json!([i, filler])])).await;
        if i % 100 == 99 {
            for _ in 0..100 {
                assert_eq!(writer.hear().await["op"], "published");
            }
        }
    }
    let events = reader.events(usize::try_from(count).unwrap()).await;
    let numbers: Vec<u64> = events.iter().map(|(_, data)| data[0].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn a_position_above_everything_is_told_as_a_gap() {
    let server = Server::start().await;
    let mut client = server.client("p").await;
    client.ask(publish(1, "t:a", 1, &[json!(1)])).await;
    let since = json!({"epoch": 1, "offset": 900_000_000});
    let subscribed =
        client.ask(json!({"op": "subscribe", "id": 2, "channel": "t:a", "since": since})).await;
    assert_eq!(subscribed["recovered"], false, "{subscribed}");
    let gap = client.hear().await;
    assert_eq!((&gap["op"], &gap["channel"]), (&json!("gap"), &json!("t:a")), "{gap}");
    client.say(publish(3, "t:a", 2, &[json!(2)])).await;
    let mut heard = [client.hear().await, client.hear().await];
    heard.sort_by_key(|message| message["op"].to_string());
    assert_eq!((&heard[0]["op"], &heard[1]["op"]), (&json!("events"), &json!("published")));
    server.stop().await;
}

#[tokio::test]
async fn rights_decide_who_may_what() {
    let server = Server::start().await;
    let mut client = server.open().await;
    let token = server.token_for("bob", &["t:mine"], &["t:mine", "news:*"]);
    client.ask(json!({"op": "connect", "id": 0, "token": token})).await;
    let events = json!([{"data": 1}]);
    let cases = [
        (json!({"op": "publish", "id": 1, "channel": "t:mine", "events": events}), "published", ""),
        (
            json!({"op": "publish", "id": 1, "channel": "t:other", "events": events}),
            "error",
            "forbidden",
        ),
        (json!({"op": "subscribe", "id": 1, "channel": "news:world"}), "subscribed", ""),
        (json!({"op": "subscribe", "id": 1, "channel": "t:other"}), "error", "forbidden"),
        (json!({"op": "history", "id": 1, "channel": "t:other", "limit": 5}), "error", "forbidden"),
    ];
    for (ask, op, code) in cases {
        let answer = client.ask(ask.clone()).await;
        assert_eq!(answer["op"], op, "{ask} {answer}");
        assert_eq!(answer["code"].as_str().unwrap_or(""), code, "{ask} {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn bad_input_gets_its_code_and_harms_nobody_else() {
    let server = Server::with(|config| config.message_bytes_max = 100_000).await;
    let mut witness = server.client("w").await;
    let mut client = server.client("p").await;
    let big = json!([{ "data": "x".repeat(70_000) }]);
    let cases = [
        (json!({"op": "fly", "id": 7}), "unknown_op"),
        (json!({"op": "publish", "id": 7, "channel": 5, "events": []}), "invalid_field"),
        (
            json!({"op": "publish", "id": 7, "channel": "t:*", "events": [{"data": 1}]}),
            "invalid_field",
        ),
        (
            json!({"op": "publish", "id": 7, "channel": "t:\u{1}", "events": [{"data": 1}]}),
            "invalid_field",
        ),
        (
            json!({"op": "publish", "id": 7, "channel": "x".repeat(300), "events": [{"data": 1}]}),
            "invalid_field",
        ),
        (json!({"op": "publish", "id": 7, "channel": "t:a", "events": big}), "too_large"),
        (json!({"op": "subscribe", "id": 7, "channel": "nocolon"}), "invalid_field"),
        (json!({"op": "unsubscribe", "id": 7, "channel": "t:never"}), "not_found"),
        (json!({"op": "connect", "id": 7, "token": "x"}), "conflict"),
    ];
    for (ask, code) in cases {
        let answer = client.ask(ask.clone()).await;
        assert_eq!((&answer["code"], &answer["id"]), (&json!(code), &json!(7)), "{answer}");
        assert!(answer["message"].as_str().unwrap().len() > 10, "{answer}");
    }
    let fatal: [(&str, u16); 3] = [("{\"op\":", 4400), ("hello", 4400), ("[]]", 4400)];
    for (text, code) in fatal {
        let mut client = server.client("f").await;
        client.say_text(text).await;
        assert_eq!(client.close_code().await, code, "{text}");
    }
    let mut client = server.client("b").await;
    client.say_bytes(b"binary").await;
    assert_eq!(client.close_code().await, 4400);
    let mut client = server.client("l").await;
    client.say_text(&format!("\"{}\"", "x".repeat(200_000))).await;
    assert_eq!(client.close_code().await, 4413);
    let answer = witness.ask(publish(1, "t:a", 1, &[json!(1)])).await;
    assert_eq!(answer["op"], "published");
    server.stop().await;
}

#[tokio::test]
async fn a_connection_without_a_good_token_gets_nothing() {
    let server = Server::start().await;
    let mut client = server.open().await;
    let answer = client.ask(json!({"op": "subscribe", "id": 1, "channel": "t:a"})).await;
    assert_eq!(answer["code"], "unauthenticated", "{answer}");
    let answer = client.ask(json!({"op": "connect", "id": 2, "token": "not.a.token"})).await;
    assert_eq!(
        (&answer["code"], &answer["id"]),
        (&json!("unauthenticated"), &json!(2)),
        "{answer}"
    );
    assert_eq!(client.close_code().await, 4401);
    server.stop().await;
}

#[tokio::test]
async fn a_socket_does_not_outlive_its_token_unless_it_is_refreshed() {
    let server = Server::start().await;
    let short = |user: &str| {
        let ttl = Duration::from_secs(2);
        server.sign(TokenRequest { ttl, ..TokenRequest::new(user).all_rights() })
    };
    let mut kept = server.open().await;
    kept.ask(json!({"op": "connect", "id": 0, "token": short("carol")})).await;
    let mut lost = server.open().await;
    lost.ask(json!({"op": "connect", "id": 0, "token": short("dave")})).await;
    let other = kept.ask(json!({"op": "refresh", "id": 1, "token": server.token()})).await;
    assert_eq!(other["code"], "forbidden", "{other}");
    let fresh = server.sign(TokenRequest::new("carol").all_rights());
    let refreshed = kept.ask(json!({"op": "refresh", "id": 2, "token": fresh})).await;
    assert_eq!(refreshed["op"], "refreshed", "{refreshed}");
    assert_eq!(lost.close_code().await, 4401);
    let pong = kept.ask(json!({"op": "ping", "id": 3})).await;
    assert_eq!((&pong["op"], &pong["id"]), (&json!("pong"), &json!(3)));
    server.stop().await;
}

#[tokio::test]
async fn too_many_subscriptions_are_refused_and_the_others_stay() {
    let server = Server::with(|config| config.subscriptions_max = 10).await;
    let mut client = server.client("p").await;
    for i in 0..10 {
        let channel = format!("t:c{i}");
        let answer = client.ask(json!({"op": "subscribe", "id": i, "channel": channel})).await;
        assert_eq!(answer["op"], "subscribed");
    }
    let answer = client.ask(json!({"op": "subscribe", "id": 11, "channel": "t:more"})).await;
    assert_eq!(answer["code"], "too_many_subscriptions", "{answer}");
    let answer = client.ask(json!({"op": "subscribe", "id": 12, "channel": "t:c1"})).await;
    assert_eq!(answer["code"], "conflict", "{answer}");
    let answer = client.ask(json!({"op": "unsubscribe", "id": 13, "channel": "t:c1"})).await;
    assert_eq!(answer["op"], "unsubscribed", "{answer}");
    let answer = client.ask(json!({"op": "subscribe", "id": 14, "channel": "t:more"})).await;
    assert_eq!(answer["op"], "subscribed", "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn limits_refuse_with_a_time_to_come_back_and_hold_the_order() {
    let server = Server::start().await;
    let mut client = server.open().await;
    let token = server.token_for("eve", &["t:*"], &[]);
    client.ask(json!({"op": "connect", "id": 0, "token": token, "producer": "p"})).await;
    let many: Vec<Value> = (0..900).map(|i| json!(i)).collect();
    assert_eq!(client.ask(publish(1, "t:a", 1, &many)).await["op"], "published");
    let limited = client.ask(publish(2, "t:a", 901, &many)).await;
    assert_eq!(limited["code"], "limited", "{limited}");
    assert!(limited["retry_after_ms"].as_u64().unwrap() > 0);
    let fenced = client.ask(publish(3, "t:a", 1_801, &[json!(1)])).await;
    assert_eq!(
        (&fenced["code"], &fenced["expected"]),
        (&json!("out_of_order"), &json!(901)),
        "{fenced}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_second_connection_of_a_producer_replaces_the_first() {
    let server = Server::start().await;
    let mut first = server.client("same").await;
    let mut second = server.client("same").await;
    assert_eq!(first.close_code().await, 4409);
    assert_eq!(second.ask(publish(1, "t:a", 1, &[json!(1)])).await["op"], "published");
    server.stop().await;
}

#[tokio::test]
async fn a_draining_server_tells_its_clients_to_move() {
    let server = Server::start().await;
    let mut client = server.client("p").await;
    server.begin_to_stop();
    let moving = client.hear().await;
    assert_eq!(moving["op"], "moving", "{moving}");
    assert!(moving["reconnect_after_ms"].is_u64());
    assert_eq!(client.close_code().await, 1001);
    server.stop().await;
}
