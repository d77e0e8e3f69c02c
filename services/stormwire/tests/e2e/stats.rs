//! What every process tells of itself on `system:stats`, from a subscriber's side.

use crate::kit::{PATIENCE, Role, data_dir, embedded, succeed};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use stormwire_testkit::Folder;
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;
use tokio_tungstenite::tungstenite::Message;

/// The figures by role, once `enough` says so.
async fn listen(
    url: &str,
    token: &str,
    enough: impl Fn(&BTreeMap<String, Value>) -> bool,
) -> BTreeMap<String, Value> {
    let url = format!("{}/v1/ws", url.replace("http://", "ws://"));
    let (mut socket, _) = Box::pin(tokio_tungstenite::connect_async(url)).await.unwrap();
    let operations = json!([
        {"op": "connect", "token": token},
        {"op": "subscribe", "channel": "system:stats"}
    ]);
    socket.send(Message::text(operations.to_string())).await.unwrap();
    let heard = async {
        let mut told = BTreeMap::new();
        while let Some(message) = socket.next().await {
            let Message::Text(text) = message.unwrap() else { continue };
            let parsed: Value = serde_json::from_str(&text).unwrap();
            for message in parsed.as_array().cloned().unwrap_or_else(|| vec![parsed.clone()]) {
                assert_ne!(message["op"], "error", "{message}");
                if message["op"] == "signal" {
                    assert_eq!(message["from"], "system");
                    let role = message["data"]["role"].as_str().unwrap().to_owned();
                    told.insert(role, message["data"].clone());
                }
            }
            if enough(&told) {
                return told;
            }
        }
        panic!("the socket ended: {told:?}");
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("figures in time")
}

/// A token of somebody who operates the server.
async fn token(data: &str) -> String {
    let arguments = ["token", "--user", "ops", "--role", "admin", "--data-dir", data];
    succeed(&arguments).await.trim().to_owned()
}

async fn publish(url: &str, data: &str) {
    succeed(&["publish", "room:lobby", "1", "2", "3", "--url", url, "--data-dir", data]).await;
}

#[tokio::test]
async fn one_process_tells_everything() {
    let folder = Folder::temporary("embedded-stats").unwrap();
    let server = embedded(&folder).await;
    let (url, data) = (server.url(), data_dir(&folder));
    publish(&url, &data).await;
    let token = token(&data).await;
    let told = listen(&url, &token, |told| {
        told.get("stormwire").is_some_and(|stats| {
            stats["totals"]["persisted"].as_u64() >= Some(3) && stats["uptime_s"].as_u64() > Some(0)
        })
    })
    .await;
    let stats = &told["stormwire"];
    assert_eq!(stats["totals"]["published"], 3, "{stats}");
    assert_eq!(stats["partitions"].as_array().unwrap().len(), 16);
    assert!(stats["partitions"].as_array().unwrap().iter().all(|one| one["role"] == "owner"));
    assert_eq!((&stats["connections"], &stats["gateways"]), (&json!(1), &json!(1)));
    assert_eq!(stats["draining"], false);
    assert!(stats["rates"]["published"].is_number() && stats["version"].is_string());
}

#[tokio::test]
async fn each_process_of_a_cluster_is_heard_at_any_gateway() {
    let (Some(nats), Some(postgres)) = (NatsServer::start().await, Postgres::start().await) else {
        return;
    };
    let folder = Folder::temporary("cluster-stats").unwrap();
    let environment = [
        ("NATS_URL", nats.url()),
        ("DATABASE_URL", postgres.url()),
        ("STORMWIRE_DATA_DIR", data_dir(&folder)),
        ("STORMWIRE_LISTEN", "127.0.0.1:{port}".to_owned()),
    ];
    let gateway = Role::start("gateway", folder.path(), &["gateway"], &environment).await;
    let _identity = Role::start("identity", folder.path(), &["identity"], &environment).await;
    let arguments = ["messages", "--management-listen", "127.0.0.1:{port}"];
    let _worker = Role::start("messages", folder.path(), &arguments, &environment).await;
    let (url, data) = (gateway.url(), data_dir(&folder));
    publish(&url, &data).await;
    let told = listen(&url, &token(&data).await, |told| {
        let backlog = told.get("messages").and_then(|worker| worker["backlog"].as_array());
        told.len() == 3
            && told["messages"]["totals"]["persisted"].as_u64() >= Some(3)
            && backlog.is_some_and(|backlog| !backlog.is_empty())
    })
    .await;
    assert_eq!(told["gateway"]["totals"]["published"], 3, "{told:?}");
    assert!(told["identity"].get("partitions").is_none());
}
