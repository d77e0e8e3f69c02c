//! Whatever is wrong with a request has its stable code, its request id, and no effect on others.

use crate::server::{Answer, Server};
use axum::body::Body;
use http::Request;

const EVENTS: &str = "/v1/channels/t:a/events";

fn is(answer: &Answer, status: u16, code: &str, part: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.body["code"].as_str()),
        (status, Some(code)),
        "{answer:?}"
    );
    let message = answer.body["message"].as_str().unwrap();
    assert!(message.contains(part), "{message}");
    assert_eq!(answer.body["request_id"], answer.headers["x-request-id"].to_str().unwrap());
    assert_eq!(answer.body["error"], code);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
}

#[tokio::test]
async fn a_bad_body_is_refused() {
    let server = Server::start().await;
    let control = r#"{"type":"a\u0000","data":1}"#;
    let cases: [(Vec<u8>, u16, &str, &str); 8] = [
        (b"{".to_vec(), 400, "malformed", "byte 1"),
        (b"".to_vec(), 400, "malformed", "byte 0"),
        (b"\xff\xfe".to_vec(), 400, "malformed", "UTF-8"),
        (b"[]".to_vec(), 400, "invalid_field", "at least one event"),
        (br#"{"type":"t"}"#.to_vec(), 400, "invalid_field", "data"),
        (br#"{"data":1,"key":5}"#.to_vec(), 400, "invalid_field", "key: a string is due, not 5"),
        (control.into(), 400, "invalid_field", "control"),
        (
            format!("{{\"data\":\"{}\"}}", "x".repeat(65_536)).into_bytes(),
            413,
            "too_large",
            "at most 65536",
        ),
    ];
    for (body, status, code, part) in cases {
        is(&server.post(EVENTS, body).await, status, code, part);
    }
    let too_long = vec![b' '; 1024 * 1024 + 1];
    is(&server.post(EVENTS, too_long).await, 413, "too_large", "1048576");
    let many = format!("[{}]", vec!["{\"data\":1}"; 4097].join(","));
    is(&server.post(EVENTS, many).await, 413, "too_large", "4096 events");
    let request = server.signed(Request::post(EVENTS)).header("content-type", "text/plain");
    let answer = server.call(request.body(Body::from("{\"data\":1}")).unwrap()).await;
    is(&answer, 400, "invalid_field", "Content-Type");
    let request = server.signed(Request::post(EVENTS)).header("idempotency-key", "");
    let answer = server.call(request.body(Body::from("{\"data\":1}")).unwrap()).await;
    is(&answer, 400, "invalid_field", "Idempotency-Key");
    is(&server.post("/v1/events", r#"{"data":1}"#).await, 400, "invalid_field", "channel");
    is(&server.post("/v1/aggregate", "{}").await, 400, "malformed", "requests");
    is(&server.post("/v1/aggregate", r#"{"requests":[]}"#).await, 400, "invalid_field", "1 to 32");
    // And nobody noticed.
    assert_eq!(server.post(EVENTS, r#"{"data":1}"#).await.status, 200);
}

#[tokio::test]
async fn a_bad_name_or_parameter_is_refused() {
    let server = Server::start().await;
    let long = format!("/v1/channels/t:{}/events", "x".repeat(191));
    for (path, part) in [
        ("/v1/channels/ta/events", "has no colon"),
        ("/v1/channels/t:*x/events", "'*'"),
        ("/v1/channels/*/events", "every namespace"),
        ("/v1/channels/t:*/events?after=1:1", "cursor"),
        ("/v1/channels/t:*/events?before=1:1", "belongs to a channel"),
        ("/v1/channels/t:a%0Ab/events", "'\\n'"),
        ("/v1/channels/t:%00/events", "'\\0'"),
        (long.as_str(), "1 to 190 bytes"),
        ("/v1/channels/t:a/events?limit=0", "limit: a whole number from 1 to 1000"),
        ("/v1/channels/t:a/events?limit=x", "not \"x\""),
        ("/v1/channels/t:a/events?after=12", "epoch:offset"),
        ("/v1/channels/t:a/events?after=1:1&before=1:2", "not both"),
        ("/v1/channels/t:a/events?wait=31&after=1:1", "wait"),
        ("/v1/channels/t:a/events?wait=3", "give after"),
        ("/v1/channels?cursor=x", "cursor"),
    ] {
        is(&server.get(path).await, 400, "invalid_field", part);
    }
    is(&server.get("/v1/nothing").await, 404, "not_found", "/v1/nothing");
    is(&server.get("/v1/channels/t:never").await, 404, "not_found", "t:never");
    is(&server.get("/v1/events").await, 405, "unknown_op", "GET");
}

#[tokio::test]
async fn who_may_not_is_refused() {
    let server = Server::start().await;
    let call = async |token: Option<&str>, method: &str, path: &str| {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        server.call(request.body(Body::from(r#"{"channel":"t:a","data":1}"#)).unwrap()).await
    };
    is(&call(None, "POST", EVENTS).await, 401, "unauthenticated", "Authorization");
    is(&call(Some("rubbish"), "POST", EVENTS).await, 401, "unauthenticated", "");
    let good = server.token();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let spoilt = format!("{head}.{}", signature.chars().rev().collect::<String>());
    is(&call(Some(&spoilt), "POST", EVENTS).await, 401, "unauthenticated", "");
    let old = server.old_token();
    is(&call(Some(&old), "POST", EVENTS).await, 401, "token_expired", "");
    let few = server.token_for("bob", &["t:b"], &["t:b"]);
    is(&call(Some(&few), "POST", EVENTS).await, 403, "forbidden", "t:a");
    is(&call(Some(&few), "POST", "/v1/events").await, 403, "forbidden", "t:a");
    is(&call(Some(&few), "GET", EVENTS).await, 403, "forbidden", "t:a");
    is(&call(Some(&few), "GET", "/v1/channels/t:a").await, 403, "forbidden", "t:a");
    // A token in a URL is for streams alone.
    let path = format!("{EVENTS}?access_token={good}");
    is(&call(None, "POST", &path).await, 401, "unauthenticated", "Authorization");
}
