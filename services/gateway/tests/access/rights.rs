//! One decision for all ways in: whatever a namespace's rule and a bearer's tokens say, WebSocket, streams
//! and REST answer the same.

use crate::kit::{Cluster, Node, PATIENCE, Socket, ask, request, sign_in};
use futures::StreamExt as _;
use http::Method;
use serde_json::{Value, json};
use std::collections::HashMap;
use stormwire_testkit::wait_until;
use stormwire_tokens::{Access, Rules};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const ACTIONS: [&str; 5] = ["publish", "subscribe", "history", "presence", "signal"];

/// What a bearer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    Nothing,
    OwnGrant,
    ChannelToken,
    Admin,
}

/// Whether each action is let through over a WebSocket.
async fn over_socket(socket: &mut Socket, channel: &str) -> [bool; 5] {
    let publish = json!({"op": "publish", "id": 1, "channel": channel, "events": [{"data": 1}]});
    let subscribe = json!({"op": "subscribe", "id": 2, "channel": channel});
    let history = json!({"op": "history", "id": 3, "channel": channel, "limit": 1});
    let presence = json!({"op": "presence", "id": 4, "channel": channel});
    let mut allowed = [false; 5];
    for (allowed, operation) in allowed.iter_mut().zip([publish, subscribe, history, presence]) {
        let answer = ask(socket, operation).await;
        *allowed = answer["op"] != "error";
        assert!(*allowed || answer["code"] == "forbidden", "{answer}");
    }
    // A signal is answered by a refusal alone.
    let signal = json!({"op": "signal", "id": 5, "channel": channel, "data": 1});
    ask_both(socket, signal, &mut allowed[4]).await;
    if allowed[1] {
        ask(socket, json!({"op": "unsubscribe", "id": 6, "channel": channel})).await;
    }
    allowed
}

/// Says a signal and a ping: whether the pong comes first.
async fn ask_both(socket: &mut Socket, signal: Value, allowed: &mut bool) {
    use futures::SinkExt as _;
    socket.send(Message::text(signal.to_string())).await.unwrap();
    let answer = ask(socket, json!({"op": "ping", "id": 7})).await;
    *allowed = answer["op"] == "pong";
    if !*allowed {
        assert_eq!(answer["code"], "forbidden");
        let pong = tokio::time::timeout(PATIENCE, socket.next()).await.expect("the pong");
        assert!(pong.unwrap().unwrap().into_text().unwrap().contains("pong"));
    }
}

/// The same over REST, where to subscribe is to stream.
async fn over_http(node: &Node, channel: &str, token: &str, extra: &str) -> [bool; 5] {
    let query = if extra.is_empty() { String::new() } else { format!("channel_token={extra}") };
    let path = |rest: &str| format!("/v1/channels/{channel}/{rest}?{query}");
    let data = json!({"data": 1});
    let calls = [
        (Method::POST, path("events"), &data),
        (Method::GET, path("events"), &Value::Null),
        (Method::GET, path("presence"), &Value::Null),
        (Method::POST, path("signals"), &data),
    ];
    let mut allowed = Vec::new();
    for (method, path, body) in calls {
        let (status, answer) = request(node.address, &method, &path, token, body).await;
        assert!(matches!(status, 200 | 204 | 403), "{method} {path}: {status} {answer}");
        allowed.push(status != 403);
    }
    let streams = streams(node, &path("events"), token).await;
    [allowed[0], streams, allowed[1], allowed[2], allowed[3]]
}

async fn streams(node: &Node, path: &str, token: &str) -> bool {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.0\r\nhost: x\r\nauthorization: Bearer {token}\r\naccept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    match &head[9..] {
        b"200" => true,
        b"403" => false,
        other => panic!("{:?}", String::from_utf8_lossy(other)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_answers_the_same() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.gateways[0];
    let alice = cluster.user("alice").await;
    // The accounts' tokens grant `room:*` and nothing else.
    let bearers = [Has::Nothing, Has::OwnGrant, Has::ChannelToken, Has::Admin];
    let table = [
        (Access::Granted, [false, true, true, true]),
        (Access::Everyone, [true, true, true, true]),
        (Access::ChannelToken, [false, false, true, false]),
        (Access::Operators, [false, false, false, true]),
        (Access::Nobody, [false, false, false, false]),
    ];
    let channel_token = cluster.application.sign(&alice.user, "desk:x", 600);
    for (access, expected) in table {
        for (has, expected) in bearers.into_iter().zip(expected) {
            let channel = if has == Has::OwnGrant { "room:x" } else { "desk:x" };
            let token = if has == Has::Admin { &cluster.admin } else { &alice.access };
            // Each action by itself: one rule is not taken for another's.
            for (n, action) in ACTIONS.iter().enumerate() {
                let mut rules = json!({"publish": "nobody", "subscribe": "nobody", "history": "nobody", "presence": "nobody", "signal": "nobody"});
                rules[action] = serde_json::to_value(access).unwrap();
                let rules: Rules = serde_json::from_value(rules).unwrap();
                let declared = [("room".to_owned(), rules), ("desk".to_owned(), rules)];
                node.namespaces.declare(HashMap::from(declared));
                let mut due = [false; 5];
                due[n] = expected;
                let mut socket = sign_in(node.address, token).await;
                let mut extra = "";
                if has == Has::ChannelToken {
                    extra = &channel_token;
                    let refresh = json!({"op": "refresh", "id": 9, "token": channel_token});
                    assert_eq!(ask(&mut socket, refresh).await["op"], "refreshed");
                }
                let told = over_socket(&mut socket, channel).await;
                assert_eq!(told, due, "socket: {access:?} {has:?} {action}");
                let told = over_http(node, channel, token, extra).await;
                assert_eq!(told, due, "http: {access:?} {has:?} {action}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_token_ends_and_is_for_one_user_and_its_channel() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.gateways[0];
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let private = HashMap::from([("desk".to_owned(), Rules::all(Access::ChannelToken))]);
    node.namespaces.declare(private);
    let mut socket = sign_in(node.address, &alice.access).await;
    let refresh = |token: String| json!({"op": "refresh", "id": 1, "token": token});
    let subscribe = |channel: &str| json!({"op": "subscribe", "id": 2, "channel": channel});
    let of_bob = cluster.application.sign(&bob.user, "desk:x", 60);
    assert_eq!(ask(&mut socket, refresh(of_bob)).await["code"], "forbidden");
    let for_long = cluster.application.sign(&alice.user, "desk:x", 7200);
    assert_eq!(ask(&mut socket, refresh(for_long)).await["code"], "invalid_field");
    let short = cluster.application.sign(&alice.user, "desk:x", 3);
    let answer = ask(&mut socket, refresh(short)).await;
    assert!(answer["expires_in_ms"].as_u64().is_some_and(|ms| ms <= 3_000), "{answer}");
    assert_eq!(ask(&mut socket, subscribe("desk:y")).await["code"], "forbidden");
    assert_eq!(ask(&mut socket, subscribe("desk:x")).await["op"], "subscribed");
    // When it ends, so does what it let in; the connection goes on.
    let told = tokio::time::timeout(PATIENCE, socket.next()).await.expect("the end").unwrap();
    let told: Value = serde_json::from_str(&told.unwrap().into_text().unwrap()).unwrap();
    assert_eq!((&told["op"], &told["channel"]), (&json!("unsubscribed"), &json!("desk:x")));
    assert_eq!(ask(&mut socket, subscribe("desk:x")).await["code"], "forbidden");
    assert_eq!(ask(&mut socket, subscribe("room:x")).await["op"], "subscribed");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_rule_holds_for_the_next_publish_of_an_open_connection() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.gateways[0];
    let alice = cluster.user("alice").await;
    let mut socket = sign_in(node.address, &alice.access).await;
    let publish = json!({"op": "publish", "id": 1, "channel": "room:x", "events": [{"data": 1}]});
    wait_until("it is published", PATIENCE, || async { node.publish(&alice.access).await == 200 })
        .await;
    assert_eq!(ask(&mut socket, publish.clone()).await["op"], "published");
    let closed = HashMap::from([("room".to_owned(), Rules::all(Access::Nobody))]);
    node.namespaces.declare(closed);
    assert_eq!(ask(&mut socket, publish.clone()).await["code"], "forbidden");
    node.namespaces.declare(HashMap::new());
    assert_eq!(ask(&mut socket, publish).await["op"], "published");
    // The server's own namespace is for operators, whatever a token grants.
    let mut admin = sign_in(node.address, &cluster.admin).await;
    let subscribe = json!({"op": "subscribe", "id": 2, "channel": "system:stats"});
    assert_eq!(ask(&mut admin, subscribe.clone()).await["op"], "subscribed");
    assert_eq!(ask(&mut socket, subscribe).await["code"], "forbidden");
    let publish = json!({"op": "publish", "id": 3, "channel": "system:x", "events": [{"data": 1}]});
    assert_eq!(ask(&mut admin, publish).await["code"], "forbidden");
}
