//! `stormwire journal new-epoch` as an operator runs it: on the embedded engine while its server is
//! stopped, for all partitions, and over a log that can't be closed.

use crate::kit::{PATIENCE, Role, data_dir, embedded, get, run, succeed, token};
use serde_json::Value;
use sqlx::postgres::PgPool;
use std::process::Output;
use stormwire_core::{Epoch, Partition};
use stormwire_journal::{AppendError, Journal as _};
use stormwire_journal_nats::{NatsConfig, NatsJournal};
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::{Folder, wait_until};

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn publish(url: &str, data_dir: &str, channel: &str, data: &str) -> String {
    succeed(&["publish", channel, data, "--url", url, "--data-dir", data_dir]).await
}

/// The data of a channel's events, by position; a page is of one epoch.
async fn history(url: &str, token: &str, channel: &str) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), "1:0".to_owned());
    loop {
        let path = format!("/v1/channels/{channel}/events?after={after}&limit=100");
        let page: Value = serde_json::from_str(&get(url, token, &path).await).unwrap();
        let events = page["events"].as_array().unwrap();
        found.extend(events.iter().map(|event| event["data"].clone()));
        if page["more"] != true {
            return found;
        }
        after = page["next"].as_str().unwrap().to_owned();
    }
}

#[tokio::test]
async fn a_stopped_embedded_server_goes_on_in_the_next_epoch_of_all_its_partitions() {
    let folder = Folder::temporary("epochs-embedded").unwrap();
    let (server, data) = (embedded(&folder).await, data_dir(&folder));
    let (url, token) = (server.url(), token(&data).await);
    publish(&url, &data, "room:a", "1").await;
    publish(&url, &data, "room:b", "2").await;

    let new_epoch = ["journal", "new-epoch", "--all", "--yes", "--data-dir", &data];
    let busy = run(&new_epoch).await;
    assert!(!busy.status.success(), "its server has the data: {:?}", said(&busy));
    assert!(said(&busy).1.contains("another stormwire process"), "{:?}", said(&busy));

    server.server.stop();
    let unasked = run(&["journal", "new-epoch", "--all", "--data-dir", &data]).await;
    assert!(said(&unasked).1.contains("say --yes"), "{:?}", said(&unasked));
    let told = succeed(&new_epoch).await;
    assert_eq!(told.lines().count(), 16, "{told}");
    assert!(told.lines().all(|line| line.contains("is closed behind frame")), "{told}");
    assert!(told.lines().all(|line| line.contains("epoch 2 begins with frame")), "{told}");
    assert!(!told.contains("lost"), "{told}");
    let status = succeed(&["journal", "status", "--json", "--data-dir", &data]).await;
    let status = objects(&status);
    assert_eq!(status.len(), 16);
    assert!(status.iter().all(|row| row["epoch"] == 2 && row["verdict"] == "ok"), "{status:?}");

    server.again().await;
    publish(&url, &data, "room:a", "3").await;
    publish(&url, &data, "room:b", "4").await;
    for (channel, due) in [("room:a", [1, 3]), ("room:b", [2, 4])] {
        assert_eq!(history(&url, &token, channel).await, due.map(Value::from), "{channel}");
    }
}

/// Fills a log until it takes nothing more, not even a byte.
async fn fill(journal: &NatsJournal, partition: Partition) {
    let mut last = journal.open(partition).await.unwrap().last;
    let mut bytes = 128 * 1024;
    while bytes > 0 {
        match journal.append(partition, Epoch(1), last, vec![1; bytes].into()).await {
            Ok(seq) => last = seq,
            Err(AppendError::Full) => bytes /= 2,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_log_that_takes_no_close_frame_is_left_alone_until_discard_is_said() {
    let (Some(nats), Some(postgres)) = (NatsServer::start().await, Postgres::start().await) else {
        return;
    };
    let folder = Folder::temporary("epochs-full").unwrap();
    let data = data_dir(&folder);
    let settings = [
        ("NATS_URL", nats.url()),
        ("DATABASE_URL", postgres.url()),
        ("STORMWIRE_PARTITIONS", "2".to_owned()),
        ("STORMWIRE_JOURNAL_BYTES_MAX", "16MiB".to_owned()),
        ("STORMWIRE_DATA_DIR", data.clone()),
    ];
    let config =
        NatsConfig { urls: vec![nats.url()], max_bytes: 16 << 20, ..NatsConfig::default() };
    fill(&Box::pin(NatsJournal::connect(config)).await.unwrap(), Partition(0)).await;

    let nats_url = format!("journal.url={}", nats.url());
    let archive_url = format!("archive.url={}", postgres.url());
    let values = ["partitions=2", "journal.bytes_max=16MiB", &nats_url, &archive_url];
    let settings_of = |command: &[&'static str]| {
        let mut all = vec!["journal"];
        all.extend(command);
        for value in &values {
            all.extend(["--set", value]);
        }
        all.extend(["--data-dir", &data]);
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let journal = async |command: &[&'static str]| {
        let arguments = settings_of(command);
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    assert!(succeed(&["migrate", "--set", &archive_url, "--set", &nats_url]).await.len() < 4096);
    let status = objects(&said(&journal(&["status", "--json"]).await).0);
    assert_eq!((&status[0]["verdict"], &status[1]["verdict"]), (&"full".into(), &"absent".into()));

    let refused = journal(&["new-epoch", "0", "--yes"]).await;
    let (_, why) = said(&refused);
    assert!(!refused.status.success());
    assert!(why.contains("cannot be closed") && why.contains("--discard"), "{why}");
    assert_eq!(objects(&said(&journal(&["status", "--json"]).await).0)[0]["epoch"], 1);

    let (told, why) = said(&journal(&["new-epoch", "--all", "--discard", "--yes"]).await);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}{why}");
    assert!(lines[0].contains("epoch 1 was removed") && lines[1].contains("epoch 1 is closed"));
    let status = objects(&said(&journal(&["status", "--json"]).await).0);
    assert!(status.iter().all(|row| row["epoch"] == 2 && row["verdict"] == "ok"), "{status:?}");

    // What comes now goes the whole way.
    let with = |name, port: &str| {
        let mut environment = settings.to_vec();
        environment.push((name, port.to_owned()));
        environment
    };
    let listen = with("STORMWIRE_LISTEN", "127.0.0.1:{port}");
    let gateway = Role::start("gateway", folder.path(), &["gateway"], &listen).await;
    let listen = with("STORMWIRE_MANAGEMENT_LISTEN", "127.0.0.1:{port}");
    let _worker = Role::start("worker", folder.path(), &["messages"], &listen).await;
    for (channel, number) in [("room:a", "1"), ("room:b", "2"), ("room:c", "3")] {
        publish(&gateway.url(), &data, channel, number).await;
    }
    let pool = PgPool::connect(&postgres.url()).await.unwrap();
    wait_until("the new epoch is persisted", PATIENCE, || async {
        let query = "SELECT count(*) FROM event_log WHERE epoch = 2";
        sqlx::query_scalar::<_, i64>(query).fetch_one(&pool).await.is_ok_and(|count| count == 3)
    })
    .await;
}
