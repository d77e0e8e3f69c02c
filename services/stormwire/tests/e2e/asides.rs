//! `stormwire latest`, `presence` and `signal` against the embedded server.

use crate::kit::{PATIENCE, data_dir, embedded, run, succeed, token};
use serde_json::{Value, json};
use std::process::Stdio;
use stormwire_client::{Client, ClientConfig, News, Payload};
use stormwire_core::Channel;
use stormwire_testkit::Folder;
use tokio::io::{AsyncBufReadExt as _, BufReader};

fn lines(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_newest_the_members_and_signals_are_had_on_the_command_line() {
    let folder = Folder::temporary("asides").unwrap();
    let server = embedded(&folder).await;
    let (url, data) = (server.url(), data_dir(&folder));
    let with = |arguments: &[&str]| -> Vec<String> {
        let place = ["--url", &url, "--data-dir", &data];
        arguments.iter().chain(&place).map(|text| (*text).to_owned()).collect()
    };
    let command = async |arguments: &[&str]| {
        let arguments = with(arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        lines(&succeed(&arguments).await)
    };

    assert_eq!(command(&["latest", "room:1"]).await, Vec::<Value>::new());
    for (key, price) in [("b", "1"), ("a", "2"), ("b", "3")] {
        command(&["publish", "room:1", price, "--key", key]).await;
    }
    let newest = command(&["latest", "room:1"]).await;
    assert_eq!((newest.len(), &newest[0]["data"]), (1, &json!(3)), "{newest:?}");
    let newest = command(&["latest", "room:1", "--key", "a"]).await;
    assert_eq!((newest.len(), &newest[0]["data"]), (1, &json!(2)), "{newest:?}");
    let newest = command(&["latest", "room:1", "--keys"]).await;
    let newest: Vec<_> = newest.iter().map(|event| (&event["key"], &event["data"])).collect();
    assert_eq!(newest, [(&json!("a"), &json!(2)), (&json!("b"), &json!(3))]);

    let room = Channel::parse("room:1").unwrap();
    let client = ClientConfig::new(url.clone(), token(&data).await);
    let client = Client::connect(client).await.unwrap();
    let mut attendance = client.attend(&room, None).await.unwrap();
    let there = command(&["presence", "room:1"]).await;
    assert_eq!((there.len(), &there[0]["user"]), (1, &json!("test")), "{there:?}");

    let mut watching = tokio::process::Command::new(crate::kit::PROGRAM)
        .args(with(&["presence", "room:1", "--watch"]))
        .env_remove("STORMWIRE_TOKEN")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut watched = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(PATIENCE, watched.next_line()).await;
        let line = line.expect("a line in time").unwrap().expect("it goes on");
        serde_json::from_str::<Value>(&line).unwrap()
    };
    // Both are there, whoever was first; then what is said.
    while next().await["users"] != json!(2) {}
    command(&["signal", "room:1", r#"{"typing":true}"#]).await;
    let said = json!({"signal": {"from": "developer", "data": {"typing": true}}});
    while next().await != said {}
    let heard = async {
        loop {
            let news = attendance.next().await.expect("it goes on").unwrap();
            if let News::Signal { from, data: Payload::Json(text) } = news {
                return (from, text);
            }
        }
    };
    let (from, text) = tokio::time::timeout(PATIENCE, heard).await.expect("a signal in time");
    assert_eq!((from.as_str(), &*text), ("developer", r#"{"typing":true}"#));
    let wrong = with(&["signal", "room:1", "nonsense"]);
    let wrong = run(&wrong.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(wrong.status.code(), Some(64));
    watching.kill().await.unwrap();
    client.close().await;
}
