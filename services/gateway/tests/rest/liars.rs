//! Clients that lie about where they stand or whose request it is, over REST and in a stream.

use crate::patterns::{event, open};
use crate::server::{Answer, Server};
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use stormwire_identity::TokenRequest;

const EVENTS: &str = "/v1/channels/t:a/events";

fn refused(answer: &Answer, code: &str, part: &str) {
    assert_eq!(answer.body["code"], code, "{answer:?}");
    assert!(answer.body["message"].as_str().unwrap().contains(part), "{part:?}: {answer:?}");
}

async fn publish(server: &Server, n: u64) -> u64 {
    let answer = server.post(EVENTS, json!({ "data": n }).to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body["first"].as_u64().unwrap()
}

/// Asks for a stream after an event that never was.
async fn stream_after(server: &Server, path: &str, id: &str) -> Answer {
    let request = server.signed(Request::get(path)).header("accept", "text/event-stream");
    server.call(request.header("last-event-id", id).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_position_that_cannot_be_is_refused_on_every_way() {
    let server = Server::start().await;
    for (n, lie) in (1u64..).zip([
        "-1:4096",
        "1:-4096",
        "1:9007199254740992",
        "4294967296:1",
        "99999999999999999999:1",
        "1:1e3",
        "1:",
        ":1",
        ":",
        "one:two",
        "AgABAw",
    ]) {
        for parameter in ["after", "before"] {
            let answer = server.get(&format!("{EVENTS}?{parameter}={lie}")).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{parameter} {lie}: {answer:?}");
            refused(&answer, "invalid_field", parameter);
        }
        let answer = server.get(&format!("{EVENTS}?after={lie}&wait=30")).await;
        refused(&answer, "invalid_field", "after");
        refused(&stream_after(&server, EVENTS, lie).await, "invalid_field", "Last-Event-ID");
        let pattern = "/v1/channels/t:*/events";
        refused(&stream_after(&server, pattern, lie).await, "invalid_field", "Last-Event-ID");
        refused(&server.get(&format!("{pattern}?after={lie}")).await, "invalid_field", "after");
        let body = json!({ "position": lie }).to_string();
        let request = server.signed(Request::put("/v1/channels/t:a/position"));
        let answer = server.call(request.body(Body::from(body)).unwrap()).await;
        refused(&answer, "invalid_field", "position");
        publish(&server, n).await;
    }
    let page = server.get(&format!("{EVENTS}?after=0:0")).await;
    assert_eq!(page.body["events"].as_array().unwrap().len(), 11, "nothing is lost: {page:?}");
}

#[tokio::test]
async fn a_position_above_everything_is_a_gap_on_every_way() {
    let server = Server::start().await;
    let end = publish(&server, 1).await;
    for lie in ["1:900000000", "1:9007199254740991", "8:4096", "4294967295:0"] {
        let below = |to: &Value| {
            let (epoch, offset) = to.as_str().unwrap().split_once(':').unwrap();
            let offset: u64 = offset.parse().unwrap();
            assert!(epoch == "1" && (end..900_000_000).contains(&offset), "{to}");
        };
        for wait in ["", "&wait=30"] {
            let page = server.get(&format!("{EVENTS}?after={lie}{wait}")).await;
            assert_eq!(page.status, StatusCode::OK, "{page:?}");
            assert_eq!(
                (&page.body["gaps"][0]["from"], &page.body["more"]),
                (&json!(lie), &json!(false))
            );
            below(&page.body["gaps"][0]["to"]);
        }
        let (mut stream, mut text) = (open(&server, EVENTS, Some(lie)).await, String::new());
        let (id, name, gap) = event(&mut stream, &mut text).await;
        assert_eq!(
            (name.as_deref(), &gap["from"], id),
            (Some("gap"), &json!(lie), gap["to"].as_str().map(str::to_owned))
        );
        below(&gap["to"]);
        // And it goes on.
        let next = publish(&server, 2).await;
        let (_, name, event) = event(&mut stream, &mut text).await;
        assert_eq!((name, event["offset"].as_u64()), (None, Some(next)));
        let body = json!({ "position": lie, "force": true }).to_string();
        let request = server.signed(Request::put("/v1/channels/t:a/position"));
        let answer = server.call(request.body(Body::from(body)).unwrap()).await;
        refused(&answer, "invalid_field", "the end of what there is");
    }
}

#[tokio::test]
async fn an_idempotency_key_of_another_user_is_a_key_of_ones_own() {
    let server = Server::start().await;
    let mallory = server.sign(TokenRequest::new("mallory").all_rights());
    let post = async |token: &str, data: u64| {
        let request = Request::post(EVENTS)
            .header("authorization", format!("Bearer {token}"))
            .header("idempotency-key", "order-77");
        server.call(request.body(Body::from(json!({ "data": data }).to_string())).unwrap()).await
    };
    let first = post(&server.token(), 1).await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    // The same body, and another one: neither does she learn the offsets, nor does hers count as a repeat.
    let hers = post(&mallory, 1).await;
    assert_eq!(hers.status, StatusCode::OK, "{hers:?}");
    assert!(hers.headers.get("idempotent-replayed").is_none(), "{hers:?}");
    assert_ne!(hers.body["first"], first.body["first"]);
    assert_eq!(post(&mallory, 2).await.body["code"], "conflict");
    let again = post(&server.token(), 1).await;
    assert_eq!(again.body["first"], first.body["first"], "{again:?}");
    let page = server.get(&format!("{EVENTS}?after=0:0")).await;
    assert_eq!(page.body["events"].as_array().unwrap().len(), 2, "{page:?}");
}
