//! Pages, long polls and streams of patterns, and gaps over HTTP.

use super::server::{PATIENCE, Server};
use axum::body::{Body, BodyDataStream};
use futures::StreamExt as _;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use stormwire_limits::LimitsConfig;

async fn fill(server: &Server, from: u64, to: u64) {
    for n in from..to {
        let channel = ["o:a", "o:b.x", "o:b.y"][usize::try_from(n % 3).unwrap()];
        let body = json!({"data": n}).to_string();
        let answer = server.post(&format!("/v1/channels/{channel}/events"), body).await;
        assert_eq!(answer.status, StatusCode::OK);
        server.post("/v1/channels/p:a/events", r#"{"data":"beside"}"#).await;
    }
}

fn numbers(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().unwrap().iter();
    events
        .map(|event| {
            assert!(event["channel"].as_str().unwrap().starts_with("o:"), "{event}");
            assert_eq!(event["epoch"], 1);
            event["data"].as_u64().unwrap()
        })
        .collect()
}

fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

/// Pages until there is no more.
async fn all(server: &Server, pattern: &str, after: &str, limit: usize) -> (Vec<u64>, String) {
    let (mut found, mut after) = (Vec::new(), after.to_owned());
    loop {
        let path = format!("/v1/channels/{pattern}/events?after={after}&limit={limit}");
        let page = server.get(&path).await.body;
        assert!(page["events"].as_array().unwrap().len() <= limit);
        found.extend(numbers(&page));
        after = page["next"].as_str().unwrap().to_owned();
        if page["more"] == false {
            return (found, after);
        }
    }
}

#[tokio::test]
async fn a_pattern_is_paged_from_journal_and_archive_alike() {
    let server = Server::with(LimitsConfig::default(), |config| config.recent_bytes = 1_000).await;
    let begin = server.get("/v1/channels/o:*/events").await;
    assert_eq!(begin.body["events"], json!([]), "from now on");
    let begin = begin.body["next"].as_str().unwrap().to_owned();
    fill(&server, 0, 40).await;
    let (found, middle) = all(&server, "o:*", &begin, 7).await;
    assert_eq!(sorted(found), (0..40).collect::<Vec<_>>());
    server.persist().await;
    fill(&server, 40, 60).await;
    let (found, end) = all(&server, "o:*", &begin, 7).await;
    assert_eq!(sorted(found), (0..60).collect::<Vec<_>>());
    assert_eq!(sorted(all(&server, "o:*", &middle, 100).await.0), (40..60).collect::<Vec<_>>());
    assert!(all(&server, "o:*", &end, 100).await.0.is_empty());
    let narrow = sorted(all(&server, "o:b.*", &begin, 5).await.0);
    assert_eq!(narrow, (0..60).filter(|n| n % 3 != 0).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_long_poll_of_a_pattern_waits_for_the_first_event() {
    let server = Server::start().await;
    let begin = server.get("/v1/channels/o:*/events").await.body;
    let path = format!("/v1/channels/o:*/events?wait=20&after={}", begin["next"].as_str().unwrap());
    let (page, ()) = tokio::join!(server.get(&path), fill(&server, 7, 8));
    assert_eq!(numbers(&page.body), [7]);
}

/// The next event of a stream: its id, its name, its data.
pub(crate) async fn event(
    stream: &mut BodyDataStream,
    text: &mut String,
) -> (Option<String>, Option<String>, Value) {
    loop {
        if let Some(end) = text.find("\n\n") {
            let one: String = text.drain(..end + 2).collect();
            let value = |name: &str| {
                let mut lines = one.lines();
                lines.find_map(|line| line.strip_prefix(name)).map(str::to_owned)
            };
            if let Some(data) = value("data: ") {
                return (value("id: "), value("event: "), serde_json::from_str(&data).unwrap());
            }
            continue;
        }
        let chunk = tokio::time::timeout(PATIENCE, stream.next()).await.expect("it goes on");
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
    }
}

pub(crate) async fn open(server: &Server, path: &str, last_seen: Option<&str>) -> BodyDataStream {
    let mut request = server.signed(Request::get(path)).header("accept", "text/event-stream");
    if let Some(id) = last_seen {
        request = request.header("last-event-id", id);
    }
    let answer = server.raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().into_data_stream()
}

#[tokio::test]
async fn a_stream_of_a_pattern_goes_on_after_any_event() {
    let server = Server::with(LimitsConfig::default(), |config| config.recent_bytes = 1_000).await;
    let (path, mut seen, mut last) = ("/v1/channels/o:*/events", Vec::new(), None);
    let begin = server.get(path).await.body["next"].as_str().unwrap().to_owned();
    for round in 0..6u64 {
        fill(&server, round * 10, round * 10 + 10).await;
        if round == 3 {
            server.persist().await;
        }
        let mut stream = open(&server, path, Some(last.as_deref().unwrap_or(&begin))).await;
        let mut text = String::new();
        // It is cut after some events, wherever that is.
        for _ in 0..7 + round % 4 {
            let (id, _, data) = event(&mut stream, &mut text).await;
            seen.push(data["data"].as_u64().unwrap());
            last = id;
        }
    }
    let mut stream = open(&server, path, last.as_deref()).await;
    let mut text = String::new();
    while seen.len() < 60 {
        seen.push(event(&mut stream, &mut text).await.2["data"].as_u64().unwrap());
    }
    assert_eq!(sorted(seen), (0..60).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn a_position_above_everything_is_a_gap_in_page_poll_and_stream() {
    let server = Server::start().await;
    server.post("/v1/channels/o:a/events", r#"{"data":1}"#).await;
    for lie in ["1:900000000", "9:4096"] {
        for wait in ["", "&wait=20"] {
            let page = server.get(&format!("/v1/channels/o:a/events?after={lie}{wait}")).await;
            let page = page.body;
            assert_eq!(page["gaps"][0]["from"], lie, "{page}");
            assert_eq!(page["gaps"][0]["to"], page["next"], "{page}");
            let next = page["next"].as_str().unwrap();
            server.post("/v1/channels/o:a/events", r#"{"data":2}"#).await;
            let page = server.get(&format!("/v1/channels/o:a/events?after={next}")).await.body;
            assert_eq!(page["events"][0]["data"], 2, "it goes on: {page}");
        }
        let mut stream = open(&server, "/v1/channels/o:a/events", Some(lie)).await;
        let mut text = String::new();
        let (id, name, gap) = event(&mut stream, &mut text).await;
        assert_eq!((name.as_deref(), &gap["from"]), (Some("gap"), &json!(lie)));
        assert_eq!(gap["to"].as_str(), id.as_deref());
        server.post("/v1/channels/o:a/events", r#"{"data":3}"#).await;
        assert_eq!(event(&mut stream, &mut text).await.2["data"], 3, "it goes on");
    }
}
