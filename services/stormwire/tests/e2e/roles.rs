//! A cluster whose processes each sign in to the database as themselves, backed up and restored.

use crate::backups::pg_bin;
use crate::identity::the_whole_way;
use crate::kit::{PATIENCE, Role, data_dir, get, run, succeed, token};
use sqlx::postgres::PgPool;
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::{Folder, wait_until};

/// What a process or command is told, as the database's login.
fn environment(
    nats: &NatsServer,
    postgres: &Postgres,
    login: &str,
    folder: &Folder,
) -> Vec<(&'static str, String)> {
    vec![
        ("NATS_URL", nats.url()),
        ("DATABASE_URL", postgres.url_as(login)),
        ("STORMWIRE_PARTITIONS", "4".to_owned()),
        ("STORMWIRE_DATA_DIR", data_dir(folder)),
    ]
}

/// The same, of a command.
fn arguments<'a>(command: &[&'a str], settings: &'a [String]) -> Vec<&'a str> {
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    command.iter().copied().chain(settings).collect()
}

fn settings(nats: &NatsServer, postgres: &Postgres, login: &str) -> [String; 3] {
    [
        "partitions=4".to_owned(),
        format!("journal.url={}", nats.url()),
        format!("archive.url={}", postgres.url_as(login)),
    ]
}

/// A gateway and a worker.
async fn start(
    nats: &NatsServer,
    postgres: &Postgres,
    folder: &Folder,
    more: &[(&'static str, String)],
) -> [Role; 2] {
    let listen = "127.0.0.1:{port}".to_owned();
    let mut gateway = environment(nats, postgres, "gateway_a", folder);
    gateway.push(("STORMWIRE_LISTEN", listen.clone()));
    gateway.extend_from_slice(more);
    let mut worker = environment(nats, postgres, "messages_a", folder);
    worker.push(("STORMWIRE_MANAGEMENT_LISTEN", listen));
    [
        Role::start("gateway", folder.path(), &["gateway"], &gateway).await,
        Role::start("worker", folder.path(), &["messages"], &worker).await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_roles_does_all_of_it_and_comes_back_from_its_backup() {
    let (Some(nats), Some(postgres)) = (NatsServer::start().await, Postgres::start().await) else {
        return;
    };
    let (Some(postgres), Some(pg_bin)) = (postgres.with_roles().await, pg_bin()) else { return };
    let folder = Folder::temporary("roles").unwrap();
    let pg_bin = pg_bin.display().to_string();
    let owner = settings(&nats, &postgres, "owner_a");
    let told = succeed(&arguments(&["migrate", "--accounts"], &owner)).await;
    assert!(told.contains("so have the accounts"), "{told}");

    let mut identity = environment(&nats, &postgres, "identity_a", &folder);
    identity.push(("STORMWIRE_LISTEN", "127.0.0.1:{port}".to_owned()));
    let identity = Role::start("identity", folder.path(), &["identity"], &identity).await;
    let more = [("STORMWIRE_IDENTITY_URL", identity.url())];
    let [gateway, worker] = start(&nats, &postgres, &folder, &more).await;
    the_whole_way(&gateway.url(), "alice").await;
    let pool = PgPool::connect(&postgres.url()).await.unwrap();
    wait_until("what was published is archived", PATIENCE, || async {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM event_log");
        count.fetch_one(&pool).await.is_ok_and(|count| count == 2)
    })
    .await;
    let looked = run(&arguments(&["doctor"], &settings(&nats, &postgres, "gateway_a"))).await;
    let looked = String::from_utf8_lossy(&looked.stdout).into_owned();
    assert!(looked.contains("ok    archive: Postgres"), "{looked}");

    let to = folder.path().join("backups").display().to_string();
    std::fs::create_dir_all(&to).unwrap();
    let backup = settings(&nats, &postgres, "backup_a");
    let told = succeed(&arguments(&["backup", &to, "--pg-bin", &pg_bin], &backup)).await;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    drop((gateway, worker, identity));

    // Into a database that has its roles already; they are told of its tables when those are there.
    let (Some(nats), Some(postgres)) = (NatsServer::start().await, Postgres::start().await) else {
        return;
    };
    let Some(postgres) = postgres.with_roles().await else { return };
    let owner = settings(&nats, &postgres, "owner_a");
    let from = told["backup"].as_str().unwrap();
    succeed(&arguments(&["restore", from, "--pg-bin", &pg_bin], &owner)).await;
    let Some(postgres) = postgres.with_roles().await else { return };
    let [gateway, _worker] = start(&nats, &postgres, &folder, &[]).await;
    let token = token(&data_dir(&folder)).await;
    let page = get(&gateway.url(), &token, "/v1/channels/room:lobby/events?limit=10").await;
    assert_eq!(page.matches("\"greeting\"").count(), 2, "{page}");
}
