//! Scenarios by name.

use super::publish;
use super::server::{Client, Server};
use serde_json::{Value, json};

/// `tail-starts-on-a-repeat`: a tail that starts while its producer sends again what was stored delivers
/// nothing twice, because the log has no repeats and a reader needs no memory of them.
#[tokio::test]
async fn a_tail_that_starts_on_a_repeat_delivers_nothing_twice() {
    let server = Server::start().await;
    let mut writer = server.client("p").await;
    let mut stored = Vec::new();
    for seq in 1..=3u64 {
        let answer = writer.ask(publish(seq, "t:a", seq, &[json!(seq)])).await;
        stored.push(answer["first"].as_u64().unwrap());
    }
    // Its connection is lost with the answers; nobody has followed the channel so far.
    drop(writer);
    let mut writer = server.client("p").await;
    let mut readers = Vec::new();
    for subscribe in [
        json!({"op": "subscribe", "id": 1, "channel": "t:a"}),
        json!({"op": "subscribe", "id": 1, "channel": "t:a", "since": {"last": 1}}),
        json!({"op": "subscribe", "id": 1, "pattern": "t:*"}),
    ] {
        let mut reader = server.open().await;
        let connect = json!({"op": "connect", "id": 0, "token": server.token()});
        reader.say(json!([connect, subscribe])).await;
        readers.push(reader);
    }
    for seq in 1..=3u64 {
        let mut again = publish(10 + seq, "t:a", seq, &[json!(seq)]);
        again["again"] = json!(2_000);
        let answer = writer.ask(again).await;
        assert_eq!(answer["duplicate"], true, "{answer}");
        assert_eq!(answer["first"].as_u64(), Some(stored[usize::try_from(seq - 1).unwrap()]));
    }
    for (reader, due) in readers.iter_mut().zip([0, 1, 0]) {
        assert_eq!(reader.hear().await["op"], "connected");
        assert_eq!(reader.hear().await["op"], "subscribed");
        assert_eq!(
            reader.events(due).await.iter().map(|event| event.0).collect::<Vec<_>>(),
            stored[3 - due..]
        );
    }
    let fresh = writer.ask(publish(20, "t:a", 4, &[json!(4)])).await;
    for reader in &mut readers {
        let events = reader.events(1).await;
        assert_eq!(
            events[0],
            (fresh["first"].as_u64().unwrap(), json!(4)),
            "the next is the new one"
        );
    }
    server.stop().await;
}

async fn follow(server: &Server, name: &str, ask: Value) -> Client {
    let mut reader = server.client(name).await;
    let subscribed = reader.ask(ask).await;
    assert_eq!((&subscribed["op"], &subscribed["recovered"]), (&json!("subscribed"), &json!(true)));
    reader
}

/// `recovery-longer-than-the-window`: away for longer than the journal reaches back, a reader is given
/// the archive, then the journal, then what is published meanwhile, and is live: each event once.
#[tokio::test]
async fn a_recovery_longer_than_the_window_has_no_hole_and_no_double() {
    let server = Server::with(|config| config.recent_bytes = 2_000).await;
    let mut writer = server.client("w").await;
    let (mut offsets, mut seq) = (Vec::new(), 0u64);
    let mut fill = async |count: u64, writer: &mut Client, offsets: &mut Vec<u64>| {
        for _ in 0..count {
            seq += 2;
            let answer = writer.ask(publish(seq, "t:a", seq - 1, &[json!(seq)])).await;
            offsets.push(answer["first"].as_u64().unwrap());
            writer.ask(publish(seq, "t:beside", seq, &[json!("beside")])).await;
        }
    };
    fill(5, &mut writer, &mut offsets).await;
    let begin = json!({"epoch": 1, "offset": offsets[1]});
    let mut wide = server.client("wide").await;
    let subscribed = wide.ask(json!({"op": "subscribe", "id": 1, "pattern": "t:*"})).await;
    let cursor = subscribed["cursor"].clone();
    drop(wide);
    fill(150, &mut writer, &mut offsets).await;
    server.persist_and_trim().await;
    assert!(server.first_of("t:a").await > offsets[100] / 4096, "the journal has let go of it");
    fill(60, &mut writer, &mut offsets).await;
    let ask = json!({"op": "subscribe", "id": 1, "channel": "t:a", "since": begin});
    let mut one = follow(&server, "one", ask).await;
    let ask = json!({"op": "subscribe", "id": 1, "pattern": "t:*", "since": {"cursor": cursor}});
    let mut all = follow(&server, "all", ask).await;
    fill(40, &mut writer, &mut offsets).await;
    let got: Vec<u64> = one.events(253).await.into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(got, offsets[2..]);
    let (mut here, mut beside) = (Vec::new(), 0);
    while here.len() < 250 || beside < 250 {
        let message = all.hear().await;
        for one in message.as_array().map_or(std::slice::from_ref(&message), Vec::as_slice) {
            let events = one["events"].as_array().unwrap();
            if one["channel"] == "t:a" {
                here.extend(events.iter().map(|event| event["offset"].as_u64().unwrap()));
            } else {
                beside += events.len();
            }
        }
    }
    assert_eq!((&here[..], beside), (&offsets[5..], 250));
    server.stop().await;
}
