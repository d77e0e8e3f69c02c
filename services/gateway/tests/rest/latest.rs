//! The newest event of a channel, of a key and of each key, persisted or not.

use super::server::Server;
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};

async fn publish(server: &Server, channel: &str, key: Option<&str>, data: u64) {
    let mut event = json!({"data": data});
    if let Some(key) = key {
        event["key"] = json!(key);
    }
    let path = format!("/v1/channels/{channel}/events");
    assert_eq!(server.post(&path, event.to_string()).await.status, StatusCode::OK);
}

async fn latest(server: &Server, query: &str) -> Value {
    let answer = server.get(&format!("/v1/channels/t:a/latest{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

fn found(page: &Value) -> Vec<(&str, u64)> {
    let events = page["events"].as_array().unwrap().iter();
    let of = |event: &'_ Value| event["data"].as_u64().unwrap();
    events.map(|event| (event["key"].as_str().unwrap_or_default(), of(event))).collect()
}

/// Each key's newest, page by page.
async fn each(server: &Server, limit: usize) -> Vec<(String, u64)> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = latest(server, &format!("?keys_after={after}&limit={limit}")).await;
        assert!(page["events"].as_array().unwrap().len() <= limit);
        all.extend(found(&page).into_iter().map(|(key, data)| (key.to_owned(), data)));
        if page["more"] == false {
            assert_eq!(page["next"], Value::Null);
            return all;
        }
        after = page["next"].as_str().unwrap().to_owned();
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_the_newest_wherever_it_lies() {
    let server = Server::start().await;
    let nothing = latest(&server, "").await;
    assert_eq!(nothing, json!({"channel": "t:a", "epoch": 1, "events": [], "more": false}));
    assert_eq!(latest(&server, "?keys_after=").await["events"], json!([]));
    for (key, data) in [(Some("b"), 1), (Some("a"), 2), (None, 3), (Some("d"), 4), (Some("a"), 5)] {
        publish(&server, "t:a", key, data).await;
        assert_eq!(found(&latest(&server, "").await), [(key.unwrap_or_default(), data)]);
    }
    publish(&server, "t:other", Some("a"), 6).await;
    for persisted in [false, true] {
        if persisted {
            server.persist().await;
        }
        assert_eq!(found(&latest(&server, "").await), [("a", 5)]);
        assert_eq!(found(&latest(&server, "?key=b").await), [("b", 1)]);
        assert_eq!(found(&latest(&server, "?key=a").await), [("a", 5)]);
        assert_eq!(found(&latest(&server, "?key=c").await), []);
        for limit in [1, 2, 3, 100] {
            let due = [("a", 5), ("b", 1), ("d", 4)].map(|(key, data)| (key.to_owned(), data));
            assert_eq!(each(&server, limit).await, due, "pages of {limit}");
        }
    }
    // Behind the archive: a key that it knows, one before its first and one between two of its pages.
    for (key, data) in [("b", 7), ("A", 8), ("c", 9)] {
        publish(&server, "t:a", Some(key), data).await;
    }
    assert_eq!(found(&latest(&server, "?key=b").await), [("b", 7)]);
    assert_eq!(found(&latest(&server, "?key=d").await), [("d", 4)]);
    for limit in [1, 2, 3, 100] {
        let due = [("A", 8), ("a", 5), ("b", 7), ("c", 9), ("d", 4)];
        let due = due.map(|(key, data)| (key.to_owned(), data));
        assert_eq!(each(&server, limit).await, due, "pages of {limit}");
    }
}

#[tokio::test]
async fn a_question_that_cannot_be_is_refused() {
    let server = Server::start().await;
    for query in ["?key=", "?key=a&keys_after=b", "?keys_after=%07", "?keys_after=&limit=0"] {
        let answer = server.get(&format!("/v1/channels/t:a/latest{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}: {answer:?}");
        assert_eq!(answer.body["code"], "invalid_field", "{query}: {answer:?}");
    }
    let token = server.token_for("eve", &["t:*"], &["other:*"]);
    let request = Request::get("/v1/channels/t:a/latest");
    let request = request.header("authorization", format!("Bearer {token}"));
    let answer = server.call(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{answer:?}");
}
