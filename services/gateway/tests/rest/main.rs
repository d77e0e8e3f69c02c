//! The REST surface, through the real router on the embedded engine.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod bad_input;
mod latest;
mod liars;
mod patterns;
mod receipts;
mod server;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use server::{PATIENCE, Server};
use stormwire_limits::{LimitsConfig, Rule};
use tower::ServiceExt as _;

#[tokio::test]
async fn what_is_published_can_be_read_back_byte_for_byte() {
    let server = Server::start().await;
    let published = server
        .post(
            "/v1/channels/t:a/events",
            r#"[{"type":"x","key":"k","id":"mine","data":{"n" : 1.0}},{"data_base64":"AAH/"}]"#,
        )
        .await;
    assert_eq!(published.status, StatusCode::OK, "{published:?}");
    let (first, last) = (&published.body["first"], &published.body["last"]);
    assert_eq!(published.body["epoch"], 1);
    assert!(first.as_u64().unwrap() < last.as_u64().unwrap());
    let request =
        server.signed(Request::get("/v1/channels/t:a/events")).body(Body::empty()).unwrap();
    let bytes = server.raw(request).await.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.contains(r#""data":{"n" : 1.0}"#), "{text}");
    let page: Value = serde_json::from_str(&text).unwrap();
    let events = page["events"].as_array().unwrap();
    assert_eq!((&events[0]["offset"], &events[1]["offset"]), (first, last));
    assert_eq!((&events[0]["id"], &events[0]["from"]), (&json!("mine"), &json!("alice")));
    assert_eq!(events[1]["data_base64"], "AAH/");
    assert!(events[1]["id"].as_str().unwrap().ends_with(&format!("-1-{last}")));
}

#[tokio::test]
async fn pages_follow_one_another_in_both_directions() {
    let server = Server::start().await;
    let events: Vec<Value> = (0..10).map(|n| json!({"data": n})).collect();
    server.post("/v1/channels/t:a/events", Value::from(events).to_string()).await;
    let numbers = |page: &Value| -> Vec<u64> {
        page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["data"].as_u64().unwrap())
            .collect()
    };
    let (mut seen, mut path) = (Vec::new(), "/v1/channels/t:a/events?after=1:0&limit=4".to_owned());
    loop {
        let page = server.get(&path).await.body;
        seen.extend(numbers(&page));
        if page["more"] == false {
            break;
        }
        path = format!("/v1/channels/t:a/events?after={}&limit=4", page["next"].as_str().unwrap());
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    let last = server.get("/v1/channels/t:a/events?limit=3").await.body;
    assert_eq!(numbers(&last), [7, 8, 9]);
    assert_eq!(last["more"], true);
    let before = last["next"].as_str().unwrap();
    let page = server.get(&format!("/v1/channels/t:a/events?limit=3&before={before}")).await.body;
    assert_eq!(numbers(&page), [4, 5, 6]);
}

#[tokio::test]
async fn a_request_sent_again_with_its_key_is_stored_once() {
    let server = Server::start().await;
    let send = async |key: &str, body: &'static str| {
        let request = server.signed(Request::post("/v1/channels/t:a/events"));
        server.call(request.header("idempotency-key", key).body(Body::from(body)).unwrap()).await
    };
    let first = send("order-1", r#"[{"data":1},{"data":2}]"#).await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    let again = send("order-1", r#"[{"data":1},{"data":2}]"#).await;
    assert_eq!(
        (&again.body["duplicate"], &again.body["first"]),
        (&json!(true), &first.body["first"]),
        "{again:?}"
    );
    let other = send("order-2", r#"[{"data":3}]"#).await;
    assert_eq!(other.body.get("duplicate"), None, "{other:?}");
    let page = server.get("/v1/channels/t:a/events").await.body;
    assert_eq!(page["events"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_producer_numbers_its_requests_and_a_repeat_says_so() {
    let server = Server::start().await;
    let send = async |query: &str| {
        let request = server.signed(Request::post(format!("/v1/channels/t:a/events?{query}")));
        server.call(request.body(Body::from(r#"[{"data":1},{"data":2}]"#)).unwrap()).await
    };
    let first = send("producer=p&seq=1").await;
    assert_eq!((first.status, first.body.get("duplicate")), (StatusCode::OK, None), "{first:?}");
    let again = send("producer=p&seq=1&again=1000").await;
    assert_eq!(
        (&again.body["duplicate"], &again.body["first"]),
        (&json!(true), &first.body["first"]),
        "{again:?}"
    );
    let silent = send("producer=p&seq=1").await;
    assert_eq!(silent.status, StatusCode::CONFLICT, "not said to be a repeat: {silent:?}");
    let next = send("producer=p&seq=3").await;
    assert_eq!((next.status, next.body.get("duplicate")), (StatusCode::OK, None), "{next:?}");
    for query in ["producer=p", "seq=1", "producer=p&seq=0", "producer=p&seq=5&again=x"] {
        let refused = send(query).await;
        assert_eq!(refused.body["code"], "invalid_field", "{query}: {refused:?}");
    }
}

#[tokio::test]
async fn many_channels_have_a_status_each() {
    let server = Server::start().await;
    let lines = "{\"channel\":\"t:a\",\"data\":1}\n{\"channel\":\"t:b\",\"data\":2}\n{\"channel\":\"t:a\",\"data\":3}\n";
    let request =
        server.signed(Request::post("/v1/events")).header("content-type", "application/x-ndjson");
    let answer = server.call(request.body(Body::from(lines)).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!((&results[0]["channel"], &results[1]["channel"]), (&json!("t:a"), &json!("t:b")));
    assert!(results.iter().all(|result| result["status"] == 200), "{answer:?}");
    let page = server.get("/v1/channels/t:a/events").await.body;
    assert_eq!(page["events"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn cloud_events_are_taken() {
    let server = Server::start().await;
    let cloud = json!({"specversion": "1.0", "id": "c1", "source": "/s", "type": "order.placed", "subject": "o7", "data": {"n": 1}});
    let request = server.signed(Request::post("/v1/channels/t:a/events"));
    let request = request.header("content-type", "application/cloudevents+json");
    let answer = server.call(request.body(Body::from(cloud.to_string())).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let event = &server.get("/v1/channels/t:a/events").await.body["events"][0];
    assert_eq!(
        (&event["id"], &event["type"], &event["key"]),
        (&json!("c1"), &json!("order.placed"), &json!("o7"))
    );
}

#[tokio::test]
async fn a_long_poll_waits_for_the_first_event() {
    let server = Server::start().await;
    let first = server.post("/v1/channels/t:a/events", r#"{"data":1}"#).await.body;
    let path = format!("/v1/channels/t:a/events?after=1:{}&wait=20", first["last"]);
    let publish = async {
        server.post("/v1/channels/t:b/events", r#"{"data":"other"}"#).await;
        server.post("/v1/channels/t:a/events", r#"{"data":2}"#).await
    };
    let (page, _) = tokio::join!(server.get(&path), publish);
    assert_eq!(page.body["events"][0]["data"], 2, "{page:?}");
    let empty = server.get("/v1/channels/t:none/events?after=1:0&wait=0").await;
    assert_eq!((empty.status, &empty.body["events"]), (StatusCode::OK, &json!([])));
}

#[tokio::test]
async fn a_stream_goes_on_from_the_last_event_id() {
    let server = Server::start().await;
    let first = server
        .post(
            "/v1/channels/t:a/events",
            r#"[{"data":1},{"data":{"n":
        2}}]"#,
        )
        .await
        .body;
    let path = format!("/v1/channels/t:a/events?access_token={}", server.token());
    let request = Request::get(path)
        .header("accept", "text/event-stream")
        .header("last-event-id", format!("1:{}", first["first"]));
    let response = server.raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut heard = String::new();
    let mut hear = async |until: &str| {
        while !heard.contains(until) {
            let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("more");
            heard.push_str(
                std::str::from_utf8(&frame.unwrap().unwrap().into_data().unwrap()).unwrap(),
            );
        }
        heard.clone()
    };
    let text = hear("2}}").await;
    assert!(text.starts_with("retry: 2000\n"), "{text}");
    assert!(text.contains(&format!("id: 1:{}\ndata: {{\"offset\"", first["last"])), "{text}");
    assert!(text.contains("\ndata:         2}}\n\n"), "{text}");
    server.post("/v1/channels/t:a/events", r#"{"data":"live"}"#).await;
    hear("\"data\":\"live\"}").await;
}

#[tokio::test]
async fn channels_are_listed_for_who_may_read_them() {
    let server = Server::start().await;
    for name in ["t:a", "t:b", "u:a"] {
        server.post(&format!("/v1/channels/{name}/events"), r#"{"data":1}"#).await;
    }
    let live = server.get("/v1/channels/t:a").await;
    assert_eq!(
        (live.status, &live.body["last_event"]["data"]),
        (StatusCode::OK, &json!(1)),
        "{live:?}"
    );
    server.persist().await;
    let names = |answer: &Value| -> Vec<String> {
        answer["channels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["channel"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = server.get("/v1/channels?limit=2").await.body;
    assert_eq!(names(&all), ["t:a", "t:b"]);
    let next = server
        .get(&format!("/v1/channels?limit=2&cursor={}", all["next"].as_str().unwrap()))
        .await
        .body;
    assert_eq!((names(&next), next.get("next")), (vec!["u:a".to_owned()], None));
    assert_eq!(names(&server.get("/v1/channels?namespace=t&prefix=b").await.body), ["t:b"]);
    let token = server.token_for("bob", &[], &["u:*"]);
    let request = Request::get("/v1/channels").header("authorization", format!("Bearer {token}"));
    let few = server.call(request.body(Body::empty()).unwrap()).await.body;
    assert_eq!(names(&few), ["u:a"]);
    let one = server.get("/v1/channels/t:a").await.body;
    assert_eq!(
        (&one["count"], &one["created_by"], &one["namespace"]),
        (&json!(1), &json!("alice"), &json!("t"))
    );
}

#[tokio::test]
async fn several_reads_have_a_status_each() {
    let server = Server::start().await;
    server.post("/v1/channels/t:a/events", r#"{"data":1}"#).await;
    let body = json!({"requests": [
        {"id": "page", "path": "/v1/channels/t:a/events?limit=1"},
        {"path": "/v1/channels/t:none"},
        {"path": "/v1/channels/not-a-channel"},
        {"path": "/health"},
        {"path": "/v1/channels/t:a/events?after=1:0&wait=30"},
    ]});
    let answer = server.post("/v1/aggregate", body.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let responses = answer.body["responses"].as_array().unwrap();
    let found: Vec<_> = responses
        .iter()
        .map(|r| (r["status"].as_u64().unwrap(), r["body"]["code"].as_str()))
        .collect();
    let due = [
        (200, None),
        (404, Some("not_found")),
        (400, Some("invalid_field")),
        (400, Some("invalid_field")),
        (400, Some("invalid_field")),
    ];
    assert_eq!(found, due, "{answer:?}");
    assert_eq!(
        (&responses[0]["id"], &responses[0]["body"]["events"][0]["data"]),
        (&json!("page"), &json!(1))
    );
}

#[tokio::test]
async fn a_limit_is_told_before_and_at_its_end() {
    let window = std::time::Duration::from_secs(60);
    let limits =
        LimitsConfig { user_requests: Some(Rule { limit: 3, window }), ..LimitsConfig::default() };
    let server = Server::with(limits, |_| {}).await;
    let token = server.token_for("bob", &["t:*"], &["t:*"]);
    let mut refused = None;
    for n in 0..5 {
        let request = Request::post("/v1/channels/t:a/events")
            .header("authorization", format!("Bearer {token}"));
        let answer = server.call(request.body(Body::from(r#"{"data":1}"#)).unwrap()).await;
        if n == 0 {
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            assert!(answer.headers.contains_key("ratelimit-policy"), "{answer:?}");
        }
        refused = Some(answer).filter(|answer| answer.status != StatusCode::OK).or(refused);
    }
    let refused = refused.expect("five requests are more than three");
    assert_eq!((refused.status.as_u16(), &refused.body["code"]), (429, &json!("limited")));
    assert!(refused.body["retry_after_ms"].as_u64().unwrap() > 0);
    assert!(
        refused.headers.contains_key("retry-after") && refused.headers.contains_key("ratelimit")
    );
}

#[tokio::test]
async fn probes_say_how_the_process_and_its_dependencies_are() {
    let server = Server::start().await;
    for routes in [&server.routes, &server.management] {
        for (path, due) in [("/ping", "pong"), ("/healthz", "ok")] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = routes.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), due);
        }
        for path in ["/readyz", "/health", "/metrics"] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            assert_eq!(
                routes.clone().oneshot(request).await.unwrap().status(),
                StatusCode::OK,
                "{path}"
            );
        }
    }
    let health = server.get("/health").await.body;
    for name in ["database", "redis", "nats", "tokens", "status"] {
        assert_eq!(health[name], "ok", "{name}: {health}");
    }
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.as_str().unwrap().contains("stormwire_http_requests_total"), "{metrics}");
}

#[tokio::test]
async fn the_description_is_served_and_kept_in_the_repository() {
    let server = Server::start().await;
    let served = server.get("/v1/openapi.json").await.body;
    assert_eq!(served["openapi"], "3.1.0");
    for path in
        ["/v1/channels/{channel}/events", "/v1/events", "/v1/aggregate", "/v1/channels", "/readyz"]
    {
        assert!(served["paths"].get(path).is_some(), "{path}");
    }
    let document = stormwire_gateway::openapi_document().to_pretty_json().unwrap() + "\n";
    assert_eq!(serde_json::from_str::<Value>(&document).unwrap(), served);
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &document).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == document,
        "docs/openapi.json is old; UPDATE_DOCS=1 cargo test -p stormwire-gateway --test rest"
    );
}
