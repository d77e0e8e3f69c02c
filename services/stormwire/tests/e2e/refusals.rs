//! What cannot work is said in one clear line with the remedy, before anything is touched.

use crate::kit::{data_dir, embedded, run};
use stormwire_testkit::Folder;

async fn refused(arguments: &[&str], code: i32, due: &[&str]) {
    let output = run(arguments).await;
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    for due in due {
        assert!(told.contains(due), "{due:?} in {told}");
    }
    assert!(output.stdout.is_empty(), "nothing for scripts");
}

#[tokio::test]
async fn a_taken_port_and_a_locked_data_directory_name_the_remedy() {
    let folder = Folder::temporary("taken").unwrap();
    let server = embedded(&folder).await;
    let (address, data) = (format!("127.0.0.1:{}", server.port.number()), data_dir(&folder));
    let other = folder.path().join("other").display().to_string();
    refused(&["--listen", &address, "--data-dir", &other], 69, &["the port is taken", "--listen"])
        .await;
    refused(
        &["--listen", "127.0.0.1:0", "--data-dir", &data],
        69,
        &["in use by another", "--data-dir"],
    )
    .await;
}

#[tokio::test]
async fn an_unknown_or_bad_field_ends_with_64_before_a_port_is_bound() {
    let folder = Folder::temporary("fields").unwrap();
    let file = folder.path().join("stormwire.toml");
    std::fs::write(&file, "[gateway]\nlingr = \"1ms\"\nlinger = \"soon\"\n").unwrap();
    let file = file.display().to_string();
    let due = [
        "unknown field gateway.lingr; did you mean gateway.linger?",
        "gateway.linger = \"soon\": expected a time",
    ];
    refused(&["--config", &file], 64, &due).await;
    refused(&["--config", "/nowhere.toml"], 64, &["/nowhere.toml cannot be read"]).await;
    refused(&["--set", "journal.url=kafka://h"], 64, &["journal.url", "sqlite:", "nats://"]).await;
    refused(&["--set", "nope=1"], 64, &["no field nope"]).await;
    refused(&["gateway"], 64, &["NATS_URL", "DATABASE_URL", "run `stormwire` alone"]).await;
    refused(&["--profile", "production"], 64, &["auth.jwks"]).await;
    refused(
        &["token", "--user", "x", "--profile", "production", "--set", "auth.jwks=/k"],
        64,
        &["identity provider"],
    )
    .await;
}

#[tokio::test]
async fn a_bad_token_and_a_server_that_is_not_there_are_told_apart() {
    let folder = Folder::temporary("token").unwrap();
    let server = embedded(&folder).await;
    let arguments = ["publish", "a:b", "1", "--url", &server.url(), "--token", "nonsense"];
    refused(&arguments, 1, &["does not accept the token", "stormwire token"]).await;
    let none = folder.path().join("none").display().to_string();
    refused(&["publish", "a:b", "1", "--data-dir", &none], 64, &["no token", "STORMWIRE_TOKEN"])
        .await;
    refused(&["subscribe", "no-colon", "--token", "x"], 64, &["namespace:name"]).await;
    refused(
        &["publish", "a:b", "1", "--token", "x", "--url", "nats://h"],
        64,
        &["not a URL of a gateway"],
    )
    .await;
}
