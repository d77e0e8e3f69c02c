//! The embedded server as its users meet it: real events in, and the same events out by REST, SQL and a
//! WebSocket, also when it is killed in between.

use crate::kit::{
    FLIGHTS, Replay, SocketReader, check_rest, check_socket, check_sql, data_dir, embedded, run,
    succeed, token,
};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use stormwire_testkit::Folder;

async fn archive(folder: &Folder) -> SqlitePool {
    let path = std::path::Path::new(&data_dir(folder)).join("stormwire.db");
    SqlitePool::connect_with(SqliteConnectOptions::new().filename(path).read_only(true))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_replayed_file_is_read_back_event_by_event() {
    let folder = Folder::temporary("embedded-replay").unwrap();
    let server = embedded(&folder).await;
    let token = token(&data_dir(&folder)).await;
    let mut live = SocketReader::open(&server.url(), &token, None).await;
    let figures = Replay::start(&server.url(), &token, &folder, 100_000).finish().await;
    assert_eq!((&figures["acknowledged"], &figures["refused"]), (&FLIGHTS.into(), &0.into()));
    live.read_all().await;
    check_rest(&server.url(), &token).await;
    check_socket(&server.url(), &token).await;
    check_sql(&archive(&folder).await, "TEXT").await;
}

#[tokio::test]
async fn a_server_killed_in_mid_replay_loses_nothing_and_stores_nothing_twice() {
    let folder = Folder::temporary("embedded-kill").unwrap();
    let server = embedded(&folder).await;
    let token = token(&data_dir(&folder)).await;
    let replay = Replay::start(&server.url(), &token, &folder, 1500);
    for lines in [500, 1800] {
        replay.reaches(lines).await;
        server.server.kill().await;
        server.again().await;
    }
    let figures = replay.finish().await;
    assert_eq!((&figures["acknowledged"], &figures["refused"]), (&FLIGHTS.into(), &0.into()));
    check_rest(&server.url(), &token).await;
    check_socket(&server.url(), &token).await;
    check_sql(&archive(&folder).await, "TEXT").await;
}

#[tokio::test]
async fn a_killed_replay_goes_on_where_it_stopped_without_a_repeat() {
    let folder = Folder::temporary("embedded-resume").unwrap();
    let server = embedded(&folder).await;
    let token = token(&data_dir(&folder)).await;
    let mut replay = Replay::start(&server.url(), &token, &folder, 2000);
    for lines in [300, 1200, 2500] {
        replay.reaches(lines).await;
        replay.kill_and_resume().await;
    }
    assert_eq!(replay.finish().await["refused"], 0);
    check_rest(&server.url(), &token).await;
}

#[tokio::test]
async fn publish_and_subscribe_speak_one_json_event_a_line() {
    let folder = Folder::temporary("embedded-lines").unwrap();
    let server = embedded(&folder).await;
    let (url, data) = (server.url(), data_dir(&folder));
    // No token is given: the data directory has the key.
    let lines = succeed(&[
        "publish",
        "room:a",
        "{\"n\":1}",
        "[2]",
        "-3",
        "--type",
        "t",
        "--url",
        &url,
        "--data-dir",
        &data,
    ])
    .await;
    let published: Value = serde_json::from_str(&lines).unwrap();
    let first = published["first"].as_u64().unwrap();
    assert_eq!(published["last"], first + 2);
    let since = (first).to_string();
    let lines = succeed(&[
        "subscribe",
        "room:a",
        "--since",
        &since,
        "--count",
        "2",
        "--url",
        &url,
        "--data-dir",
        &data,
    ])
    .await;
    let events: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        events.iter().map(|event| &event["data"]).collect::<Vec<_>>(),
        [&serde_json::json!([2]), &serde_json::json!(-3)]
    );
    assert!(events.iter().all(|event| event["type"] == "t"
        && event["channel"] == "room:a"
        && event["from"] == "developer"));
    let lines = succeed(&[
        "subscribe",
        "room:a",
        "--last",
        "1",
        "--count",
        "1",
        "--url",
        &url,
        "--data-dir",
        &data,
    ])
    .await;
    assert_eq!(lines.lines().count(), 1);
    let output = run(&["publish", "room:a", "{broken", "--url", &url, "--data-dir", &data]).await;
    assert_eq!(output.status.code(), Some(64));
    server.server.stop();
    assert_eq!(succeed(&["dead-letters", "list", "--data-dir", &data]).await, "");
    let output = run(&["dead-letters", "drop", "7", "--data-dir", &data]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no dead letter 7"));
    assert!(succeed(&["migrate", "--data-dir", &data]).await.contains("this program's schema"));
    let report = succeed(&["doctor", "--json", "--data-dir", &data]).await;
    let checks: Vec<Value> =
        report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for due in ["version", "data directory", "disk sync", "open files", "archive"] {
        assert!(checks.iter().any(|check| check["check"] == due), "{due} in {report}");
    }
}

#[tokio::test]
async fn a_refused_line_is_told_by_number_and_by_the_exit_code() {
    let folder = Folder::temporary("embedded-refused").unwrap();
    let server = embedded(&folder).await;
    let file = folder.path().join("events.ndjson");
    std::fs::write(
        &file,
        "{\"a\":\"x\"}\n{\"b\":1}\n{broken\n{\"a\":\"two words\"}\n{\"a\":\"y\"}\n",
    )
    .unwrap();
    let (url, data, file) = (server.url(), data_dir(&folder), file.display().to_string());
    let output =
        run(&["replay", &file, "--channel", "n:{a}", "--url", &url, "--data-dir", &data]).await;
    assert_eq!(output.status.code(), Some(1));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&figures["acknowledged"], &figures["refused"]), (&2.into(), &3.into()));
    let told = String::from_utf8(output.stderr).unwrap();
    for line in ["line 2: there is no field \"a\"", "line 3: ", "line 4: "] {
        assert!(told.contains(line), "{line} in {told}");
    }
}
