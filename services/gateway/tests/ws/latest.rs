//! The newest event by key, while its partition is followed here.

use crate::server::Server;
use serde_json::{Value, json};

fn found(page: &Value) -> Vec<(&str, u64)> {
    assert_eq!((&page["op"], &page["channel"]), (&json!("history"), &json!("t:a")), "{page}");
    let events = page["events"].as_array().unwrap().iter();
    events
        .map(|event| (event["key"].as_str().unwrap_or_default(), event["data"].as_u64().unwrap()))
        .collect()
}

#[tokio::test]
async fn the_newest_of_a_key_comes_from_what_is_live_and_from_what_lies_behind_it() {
    let server = Server::start().await;
    let (mut writer, mut reader) = (server.client("w").await, server.client("r").await);
    let mut seq = 0;
    for keys in [["a", "b", "a"], ["c", "a", "d"]] {
        for key in keys {
            seq += 1;
            let events = json!([{"key": key, "data": seq}]);
            let publish =
                json!({"op": "publish", "id": seq, "channel": "t:a", "seq": seq, "events": events});
            let answer = writer.ask(publish).await;
            assert_eq!(answer["op"], "published", "{answer}");
        }
        // From now on the gateway follows the partition; what came before it reads.
        if seq == 3 {
            let subscribe = json!({"op": "subscribe", "id": "s", "channel": "t:a"});
            assert_eq!(reader.ask(subscribe).await["op"], "subscribed");
        }
    }
    assert_eq!(reader.events(3).await.len(), 3);
    let ask = |id: u64, name: &str, value: &str, limit: u64| {
        let mut question = json!({"op": "history", "id": id, "channel": "t:a", "limit": limit});
        question[name] = json!(value);
        question
    };
    for (key, due) in [("a", vec![("a", 5)]), ("b", vec![("b", 2)]), ("e", vec![])] {
        let page = writer.ask(ask(10, "key", key, 1)).await;
        assert_eq!(found(&page), due);
    }
    let page = writer.ask(ask(11, "keys_after", "", 3)).await;
    assert_eq!((found(&page), &page["more"]), (vec![("a", 5), ("b", 2), ("c", 4)], &json!(true)));
    let page = writer.ask(ask(12, "keys_after", "c", 3)).await;
    assert_eq!((found(&page), &page["more"]), (vec![("d", 6)], &json!(false)));
    let mut both = ask(13, "key", "a", 1);
    both["before"] = json!({"epoch": 1, "offset": 1});
    assert_eq!(writer.ask(both).await["code"], "invalid_field");
    server.stop().await;
}
