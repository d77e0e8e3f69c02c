//! Idempotency keys, receipts of the archive, read positions.

use crate::server::{Answer, PATIENCE, Server};
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

async fn send(server: &Server, path: &str, key: &str, body: &'static str) -> Answer {
    let request = server.signed(Request::post(path)).header("content-type", "application/json");
    server.call(request.header("idempotency-key", key).body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn a_key_stands_for_one_body_and_its_answer() {
    let server = Server::start().await;
    let path = "/v1/channels/t:a/events";
    let first = send(&server, path, "k", r#"[{"data":1},{"data":2}]"#).await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    assert!(!first.headers.contains_key("idempotent-replayed"));
    for other in [
        r#"[{"data":1},{"data":3}]"#,
        r#"[{"data":1}]"#,
        r#"{"data":2}"#,
        r#"{"key":"x","data":1}"#,
    ] {
        let refused = send(&server, path, "k", other).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{other}: {refused:?}");
        assert_eq!(
            (&refused.body["code"], &refused.body["temporary"]),
            (&json!("conflict"), &json!(false))
        );
        assert!(refused.body["detail"].as_str().unwrap().contains("new key"), "{refused:?}");
    }
    // The same events in another writing of the body.
    let again = send(&server, path, "k", "[ {\"data\":1} , {\"data\":2} ]").await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(
        (&again.body["first"], &again.body["last"]),
        (&first.body["first"], &first.body["last"])
    );
    assert_eq!(again.body["duplicate"], true);
    let elsewhere = send(&server, "/v1/channels/t:b/events", "k", r#"{"data":9}"#).await;
    assert_eq!(elsewhere.status, StatusCode::OK, "a key stands for one channel's events");
    let page = server.get(path).await.body;
    assert_eq!(page["events"].as_array().unwrap().len(), 2, "{page}");
}

/// Two bodies at the same time under one key: one is stored.
#[tokio::test]
async fn of_two_bodies_at_once_one_is_stored() {
    let server = Server::start().await;
    let path = "/v1/channels/t:race/events";
    let bodies = [r#"{"data":1}"#, r#"{"data":2}"#, r#"{"data":3}"#, r#"{"data":4}"#];
    let answers =
        futures::future::join_all(bodies.map(|body| send(&server, path, "race", body))).await;
    let stored = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    let refused = answers.iter().filter(|answer| answer.status == StatusCode::CONFLICT).count();
    assert_eq!((stored, refused), (1, 3), "{answers:?}");
    assert_eq!(server.get(path).await.body["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_for_many_channels_stands_for_each_channels_events() {
    let server = Server::start().await;
    let both = r#"[{"channel":"t:a","data":1},{"channel":"t:b","data":2}]"#;
    let first = send(&server, "/v1/events", "k", both).await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    let again = send(&server, "/v1/events", "k", both).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let changed = r#"[{"channel":"t:a","data":1},{"channel":"t:b","data":3}]"#;
    let mixed = send(&server, "/v1/events", "k", changed).await;
    assert_eq!(mixed.status, StatusCode::MULTI_STATUS);
    let statuses: Vec<_> = mixed.body["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 409], "{mixed:?}");
    assert!(!mixed.headers.contains_key("idempotent-replayed"));
}

#[tokio::test]
async fn a_receipt_of_the_archive_comes_when_the_archive_has_the_events() {
    let server = Server::start().await;
    let wrong = server.post("/v1/channels/t:a/events?receipt=paper", r#"{"data":1}"#).await;
    assert_eq!(
        (wrong.status, &wrong.body["code"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_field"))
    );
    let publish =
        server.post("/v1/channels/t:a/events?receipt=archive", r#"[{"data":1},{"data":2}]"#);
    tokio::pin!(publish);
    let early = timeout(Duration::from_millis(500), &mut publish).await;
    assert!(early.is_err(), "the ledger does not cover it: {early:?}");
    let page = server.get("/v1/channels/t:a/events").await.body;
    assert_eq!(page["events"].as_array().unwrap().len(), 2, "it is in the journal");
    server.persist().await;
    let answer = timeout(PATIENCE, publish).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body.get("dead_letters"), None);
}

#[tokio::test]
async fn a_receipt_of_the_archive_says_what_became_a_dead_letter() {
    let server = Server::start().await;
    let publish =
        server.post("/v1/channels/t:a/events?receipt=archive", r#"[{"data":1},{"data":2}]"#);
    let persist = async {
        while server.get("/v1/channels/t:a/events").await.body["events"]
            .as_array()
            .unwrap()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.persist_as(false).await;
    };
    let (answer, ()) = timeout(PATIENCE, async { tokio::join!(publish, persist) }).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body["dead_letters"], 2, "{answer:?}");
}

#[tokio::test]
async fn a_read_position_goes_forward_and_counts_what_is_unread() {
    let server = Server::start().await;
    let path = "/v1/channels/t:a/position";
    let put = async |body: Value| {
        let request = server.signed(Request::put(path)).header("content-type", "application/json");
        server.call(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let empty = server.get(path).await;
    assert_eq!(
        empty.body,
        json!({"channel": "t:a", "position": null, "unread": 0, "capped": false})
    );
    let events: Vec<Value> = (0..6).map(|n| json!({"data": n})).collect();
    let published = server.post("/v1/channels/t:a/events", Value::from(events).to_string()).await;
    let first = published.body["first"].as_u64().unwrap();
    let at = |index: u64| format!("1:{}", first + index);
    assert_eq!(server.get(path).await.body["unread"], 6, "all of it, before anything was read");
    let read = put(json!({"position": at(1)})).await;
    assert_eq!(
        (&read.body["position"], &read.body["unread"]),
        (&json!(at(1)), &json!(4)),
        "{read:?}"
    );
    let back = put(json!({"position": at(0)})).await;
    assert_eq!((back.status, &back.body["position"]), (StatusCode::OK, &json!(at(1))), "it stays");
    server.persist().await;
    server.post("/v1/channels/t:a/events", r#"{"data":6}"#).await;
    server.post("/v1/channels/t:other/events", r#"{"data":7}"#).await;
    assert_eq!(server.get(path).await.body["unread"], 5, "archive and journal together");
    let forced = put(json!({"position": at(0), "force": true})).await;
    assert_eq!((&forced.body["position"], &forced.body["unread"]), (&json!(at(0)), &json!(6)));
    for (body, code) in [
        (json!({"position": "1:9007199254740991"}), "invalid_field"),
        (json!({"position": "7:1"}), "invalid_field"),
        (json!({"position": "yesterday"}), "invalid_field"),
        (json!({"place": "1:1"}), "malformed"),
    ] {
        let refused = put(body.clone()).await;
        assert_eq!(refused.body["code"], code, "{body}: {refused:?}");
    }
    assert_eq!(
        server.get(path).await.body["position"],
        at(0),
        "a refused position changes nothing"
    );
    let stranger = server.token_for("bob", &["t:*"], &["u:*"]);
    let request = Request::get(path).header("authorization", format!("Bearer {stranger}"));
    let refused = server.call(request.body(Body::empty()).unwrap()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    let reader = server.token_for("bob", &[], &["t:*"]);
    let request = Request::get(path).header("authorization", format!("Bearer {reader}"));
    let own = server.call(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (own.status, &own.body["position"]),
        (StatusCode::OK, &Value::Null),
        "each has his own"
    );
}
