//! Backups as an operator makes them: under load, restored where nothing is left, and judged by what their
//! publishers were told. Beside it the commands that look into a store: `verify`, `trace`, `canary`.

use crate::kit::{PATIENCE, Role, data_dir, embedded, get, run, succeed, token};
use serde_json::Value;
use sqlx::postgres::PgPool;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stormwire_client::{Client, ClientConfig, NewEvent};
use stormwire_core::Channel;
use stormwire_telemetry::CancellationToken;
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::{Folder, Program, wait_until};

const CHANNELS: usize = 6;

/// Publishers of numbers, one a channel, each number until it is acknowledged.
struct Load {
    acknowledged: Arc<[AtomicU64; CHANNELS]>,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(url: &str, token: &str, from: &[u64; CHANNELS]) -> Self {
        let acknowledged: Arc<[AtomicU64; CHANNELS]> =
            Arc::new(std::array::from_fn(|index| AtomicU64::new(from[index])));
        let (stop, mut tasks) = (CancellationToken::new(), Vec::new());
        for index in 0..CHANNELS {
            let client = Client::connect(ClientConfig::new(url, token)).await.unwrap();
            let (acknowledged, stop) = (Arc::clone(&acknowledged), stop.clone());
            tasks.push(tokio::spawn(async move {
                let channel = Channel::parse(&format!("drill:{index}")).unwrap();
                for number in acknowledged[index].load(Ordering::SeqCst) + 1.. {
                    let event = [NewEvent::json(&number.to_string()).unwrap()];
                    let publish = client.publish(&channel, &event);
                    match stop.run_until_cancelled(publish).await {
                        Some(Ok(_)) => acknowledged[index].store(number, Ordering::SeqCst),
                        _ => return,
                    }
                }
            }));
        }
        Self { acknowledged, stop, tasks }
    }

    /// The highest number of each channel that was acknowledged.
    fn highest(&self) -> [u64; CHANNELS] {
        std::array::from_fn(|index| self.acknowledged[index].load(Ordering::SeqCst))
    }

    async fn grows_by(&self, events: u64) {
        let before: u64 = self.highest().iter().sum();
        wait_until("the load goes on", PATIENCE, || async {
            self.highest().iter().sum::<u64>() >= before + events
        })
        .await;
    }

    async fn end(self) -> [u64; CHANNELS] {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        std::array::from_fn(|index| self.acknowledged[index].load(Ordering::SeqCst))
    }
}

/// The stores of a cluster, and its processes.
struct Cluster {
    nats: NatsServer,
    postgres: Postgres,
    gateway: Role,
    worker: Role,
}

/// The settings of every process and command.
fn settings(nats: &NatsServer, postgres: &Postgres) -> [String; 4] {
    [
        "partitions=4".to_owned(),
        format!("journal.url={}", nats.url()),
        format!("archive.url={}", postgres.url()),
        "journal.replicas=1".to_owned(),
    ]
}

fn arguments<'a>(command: &[&'a str], settings: &'a [String], data: &'a str) -> Vec<&'a str> {
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    command.iter().copied().chain(settings).chain(["--data-dir", data]).collect()
}

impl Cluster {
    async fn start(nats: NatsServer, postgres: Postgres, folder: &Path, data: &str) -> Self {
        let settings = settings(&nats, &postgres);
        let start = async |name: &str, role: &'static str, listen: &'static str| {
            let arguments = arguments(&[role, listen, "127.0.0.1:{port}"], &settings, data);
            Role::start(name, folder, &arguments, &[]).await
        };
        let gateway = start("gateway", "gateway", "--listen").await;
        let worker = start("worker", "messages", "--management-listen").await;
        Self { nats, postgres, gateway, worker }
    }

    fn settings(&self) -> [String; 4] {
        settings(&self.nats, &self.postgres)
    }
}

/// Where `pg_dump` is: beside the server, where it was installed with it.
pub(crate) fn pg_bin() -> Option<PathBuf> {
    let folder = Program::Postgres.find()?.parent()?.to_owned();
    folder.join("pg_dump").is_file().then_some(folder)
}

/// The archived numbers of each channel, by position.
async fn archived(pool: &PgPool) -> BTreeMap<String, Vec<u64>> {
    let query = "SELECT channel, CAST(data AS TEXT) FROM event_log WHERE channel LIKE 'drill:%' ORDER BY epoch, \"offset\"";
    let rows: Vec<(String, String)> = sqlx::query_as(query).fetch_all(pool).await.unwrap();
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (channel, number) in rows {
        found.entry(channel).or_default().push(number.parse().unwrap());
    }
    found
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_brings_back_all_that_was_acknowledged_before_it_once() {
    let (Some(nats), Some(postgres)) = (NatsServer::start().await, Postgres::start().await) else {
        return;
    };
    let Some(pg_bin) = pg_bin().map(|folder| folder.display().to_string()) else { return };
    let folder = Folder::temporary("backup").unwrap();
    let (data, to) = (data_dir(&folder), folder.path().join("backups").display().to_string());
    std::fs::create_dir_all(&to).unwrap();
    let cluster = Cluster::start(nats, postgres, folder.path(), &data).await;
    let token = token(&data).await;
    let load = Load::start(&cluster.gateway.url(), &token, &[0; CHANNELS]).await;
    load.grows_by(60).await;
    let pool = PgPool::connect(&cluster.postgres.url()).await.unwrap();
    wait_until("something is in the archive", PATIENCE, || async {
        !archived(&pool).await.is_empty()
    })
    .await;
    // What is in the journal alone from here on comes from the frames of the backup.
    cluster.worker.server.kill().await;
    load.grows_by(120).await;

    let before = load.highest();
    let settings = cluster.settings();
    let command = ["backup", to.as_str(), "--pg-bin", pg_bin.as_str()];
    let told = succeed(&arguments(&command, &settings, &data)).await;
    let backup = objects(&told)[0]["backup"].as_str().unwrap().to_owned();
    load.grows_by(30).await;
    let end = load.end().await;
    drop(pool);
    // Nothing is left of it.
    drop(cluster);

    let (Some(nats), Some(postgres)) = (NatsServer::start().await, Postgres::start().await) else {
        return;
    };
    let settings = self::settings(&nats, &postgres);
    let command = ["restore", backup.as_str(), "--pg-bin", pg_bin.as_str()];
    let told = succeed(&arguments(&command, &settings, &data)).await;
    let told = &objects(&told)[0];
    assert!(told["events"].as_u64().unwrap() >= 120, "of the journal's frames: {told}");
    assert_eq!(told["epochs"], serde_json::json!([2, 2, 2, 2]), "{told}");
    let pool = PgPool::connect(&postgres.url()).await.unwrap();
    let restored = archived(&pool).await;
    for (index, (before, end)) in before.iter().zip(&end).enumerate() {
        let found = &restored[&format!("drill:{index}")];
        let due: Vec<u64> = (1..=found.len() as u64).collect();
        assert_eq!(*found, due, "drill:{index}: each once, in order");
        let stored = found.len() as u64;
        assert!((*before..=end + 1).contains(&stored), "drill:{index}: {before} {stored} {end}");
    }
    let again = run(&arguments(&command, &settings, &data)).await;
    let why = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && why.contains("nothing was changed"), "{why}");

    // It goes on, and a reader from before is told what it can't be given.
    let cluster = Cluster::start(nats, postgres, folder.path(), &data).await;
    let from: [u64; CHANNELS] =
        std::array::from_fn(|index| restored[&format!("drill:{index}")].len() as u64);
    let load = Load::start(&cluster.gateway.url(), &token, &from).await;
    load.grows_by(60).await;
    let end = load.end().await;
    wait_until("all is in the archive", PATIENCE, || async {
        let found = archived(&pool).await;
        (0..CHANNELS).all(|index| found[&format!("drill:{index}")].len() as u64 >= end[index])
    })
    .await;
    for (channel, found) in archived(&pool).await {
        let due: Vec<u64> = (1..=found.len() as u64).collect();
        assert_eq!(found, due, "{channel}: each once, in order, over both epochs");
    }
    let settings = cluster.settings();
    let told = succeed(&arguments(&["verify", "--all"], &settings, &data)).await;
    assert!(objects(&told).iter().all(|line| line["verdict"] == "ok"), "{told}");
    assert!(objects(&told).iter().any(|line| line["compared"].as_u64() > Some(0)), "{told}");
}

#[tokio::test]
async fn an_embedded_server_is_backed_up_while_it_runs_and_restored_into_an_empty_folder() {
    let folder = Folder::temporary("backup-embedded").unwrap();
    let (server, data) = (embedded(&folder).await, data_dir(&folder));
    let to = folder.path().join("backups").display().to_string();
    std::fs::create_dir_all(&to).unwrap();
    let (url, key) = (server.url(), token(&data).await);
    let publish = ["publish", "room:a", "1", "2", "3", "--url", &url, "--data-dir", &data];
    succeed(&publish).await;
    let told = succeed(&["backup", &to, "--keep", "30d", "--data-dir", &data]).await;
    let backup = objects(&told)[0]["backup"].as_str().unwrap().to_owned();
    succeed(&["publish", "room:a", "4", "--url", &url, "--data-dir", &data]).await;
    let busy = run(&["restore", &backup, "--data-dir", &data]).await;
    assert!(String::from_utf8_lossy(&busy.stderr).contains("is there already"), "{busy:?}");
    server.server.stop();
    std::fs::remove_dir_all(&data).unwrap();

    succeed(&["restore", &backup, "--data-dir", &data]).await;
    assert_eq!(token(&data).await.split('.').next(), key.split('.').next(), "its key came along");
    server.again().await;
    let status = succeed(&["publish", "room:a", "5", "--url", &url, "--data-dir", &data]).await;
    assert_eq!(objects(&status)[0]["epoch"], 2, "a position of before never means another event");
    let page = get(&url, &key, "/v1/channels/room:a/events?after=1:0&limit=100").await;
    let page: Value = serde_json::from_str(&page).unwrap();
    let found: Vec<&Value> =
        page["events"].as_array().unwrap().iter().map(|event| &event["data"]).collect();
    assert_eq!(found, [&Value::from(1), &2.into(), &3.into()], "the page of the first epoch");

    // A backup that was changed is not restored.
    std::fs::write(Path::new(&backup).join("stormwire.db"), "x").unwrap();
    let elsewhere = folder.path().join("elsewhere").display().to_string();
    let damaged = run(&["restore", &backup, "--data-dir", &elsewhere]).await;
    assert!(String::from_utf8_lossy(&damaged.stderr).contains("damaged"), "{damaged:?}");
}

#[tokio::test]
async fn verify_and_trace_tell_what_is_stored_and_what_was_taken_away() {
    let (Some(nats), Some(postgres)) = (NatsServer::start().await, Postgres::start().await) else {
        return;
    };
    let folder = Folder::temporary("verify").unwrap();
    let data = data_dir(&folder);
    let cluster = Cluster::start(nats, postgres, folder.path(), &data).await;
    let url = cluster.gateway.url();
    let publish = ["publish", "room:a", "1", "2", "3", "--url", &url, "--data-dir", &data];
    let told = objects(&succeed(&publish).await).remove(0);
    let pool = PgPool::connect(&cluster.postgres.url()).await.unwrap();
    wait_until("the events are in the archive", PATIENCE, || async {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM event_log");
        count.fetch_one(&pool).await.is_ok_and(|count| count == 3)
    })
    .await;
    let settings = cluster.settings();
    let place = format!("{}:{}", told["epoch"], told["last"]);
    let trace = ["trace", "--channel", "room:a", &place];
    let traced = objects(&succeed(&arguments(&trace, &settings, &data)).await).remove(0);
    assert_eq!(traced["verdict"], "in the journal and in the archive", "{traced}");
    assert_eq!(traced["archive"]["channel"], "room:a", "{traced}");
    let by_id = traced["id"].as_str().unwrap().to_owned();
    let by_id = objects(&succeed(&arguments(&["trace", &by_id], &settings, &data)).await).remove(0);
    assert_eq!(by_id, traced);
    succeed(&arguments(&["verify"], &settings, &data)).await;

    let taken = format!("DELETE FROM events WHERE \"offset\" = {}", told["last"]);
    sqlx::query(sqlx::AssertSqlSafe(taken)).execute(&pool).await.unwrap();
    let lost = run(&arguments(&["verify"], &settings, &data)).await;
    assert_eq!(lost.status.code(), Some(1));
    let lines = String::from_utf8_lossy(&lost.stdout).into_owned();
    assert!(lines.contains("acknowledged and not stored") && lines.contains(&place), "{lines}");
    let traced = objects(&succeed(&arguments(&trace, &settings, &data)).await).remove(0);
    assert!(traced["verdict"].as_str().unwrap().contains("NOT in the archive"), "{traced}");
    let nowhere = run(&arguments(&["trace", "0-1-40960000"], &settings, &data)).await;
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    let twice =
        format!("INSERT INTO events SELECT * FROM events WHERE \"offset\" = {}", told["first"]);
    sqlx::query(sqlx::AssertSqlSafe(twice)).execute(&pool).await.unwrap();
    let doubled = run(&arguments(&["verify"], &settings, &data)).await;
    let lines = String::from_utf8_lossy(&doubled.stdout).into_owned();
    assert!(lines.contains("stored more than once"), "{lines}");
}

#[tokio::test]
async fn a_canary_crosses_every_partition_and_finds_nothing_lost() {
    let folder = Folder::temporary("canary").unwrap();
    let (server, data) = (embedded(&folder).await, data_dir(&folder));
    let canary =
        ["canary", "--every", "50ms", "--for", "1s", "--url", &server.url(), "--data-dir", &data];
    let told = succeed(&canary).await;
    let last = objects(&told).pop().unwrap();
    assert!(last["delivered"].as_u64().unwrap() >= 16, "one in each partition: {last}");
    assert_eq!(
        (&last["lost"], &last["doubled"], &last["waiting"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert_eq!(last["delivered"], last["acknowledged"], "{last}");
}

/// Runs a section of a page of the documentation in `folder`, as it stands there; what it printed.
async fn page(name: &str, section: &str, folder: &Folder) -> String {
    let root = stormwire_testkit::workspace_root();
    let port = stormwire_testkit::Port::reserve().unwrap();
    let own = std::env::var("PATH").unwrap();
    let bin = Path::new(crate::kit::PROGRAM).parent().unwrap().display().to_string();
    let run = tokio::process::Command::new("python3")
        .arg(root.join("docs/run.py"))
        .arg(root.join("docs").join(name))
        .arg(section)
        .current_dir(folder.path())
        .env("PATH", format!("{bin}:{own}"))
        .env("ADDRESS", format!("127.0.0.1:{}", port.number()))
        .env_remove("STORMWIRE_TOKEN")
        .kill_on_drop(true)
        .output();
    // A dozen programs one after the other, on however busy a machine.
    let said = tokio::time::timeout(4 * PATIENCE, run).await.expect("the page ends").unwrap();
    let (out, error) =
        (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{out}\n{error}");
    out.into_owned()
}

/// The first steps of the documentation.
#[tokio::test]
async fn what_the_documentation_says_to_type_works() {
    let folder = Folder::temporary("getting-started").unwrap();
    let out = page("getting-started.md", "One process", &folder).await;
    assert!(out.contains("from curl") && out.contains("\"lost\":0"), "{out}");
}

/// An upgrade of a server that has been in use.
#[tokio::test]
async fn what_the_documentation_says_of_an_upgrade_works() {
    let folder = Folder::temporary("upgrade").unwrap();
    // Where the page's commands look for it.
    let data = folder.path().join("stormwire-data").display().to_string();
    let listen = ["--listen", "127.0.0.1:{port}", "--data-dir", &data];
    let server = Role::start("stormwire", folder.path(), &listen, &[]).await;
    let url = server.url();
    succeed(&["publish", "room:lobby", "1", "2", "--url", &url, "--data-dir", &data]).await;
    drop(server);
    let out = page("upgrade.md", "One process", &folder).await;
    assert!(out.contains("\"events\":2,") && out.contains("this program's schema"), "{out}");
    assert!(!out.contains("\"verdict\":\"differs\"") && out.contains("\"lost\":0"), "{out}");
}
