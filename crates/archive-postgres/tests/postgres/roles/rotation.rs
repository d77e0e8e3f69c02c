//! `deploy/rotate-database-password.sh` against a server that asks for passwords.

use super::{migrate, open, pool, refusal};
use std::process::Command;
use std::time::Duration;
use stormwire_archive::{Archive as _, Settings as _};
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig};
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::{Program, wait_until, workspace_root};

const PATIENCE: Duration = Duration::from_secs(20);
const WRONG_PASSWORD: &str = "28P01";
const RULES: &str = "\
host all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
";

/// What the script says, or complains of.
fn rotate(postgres: &Postgres, arguments: [&str; 2]) -> Result<String, String> {
    let url = postgres.url();
    let (_, place) = url.rsplit_once(':').unwrap();
    let (port, database) = place.split_once('/').unwrap();
    let psql = Program::Postgres.find().unwrap().with_file_name("psql");
    let mut script = Command::new("bash");
    script.arg(workspace_root().join("deploy/rotate-database-password.sh")).args(arguments);
    let place = [("PGHOST", "127.0.0.1"), ("PGUSER", "postgres"), ("PGPORT", port)];
    let said = script.envs(place).env("PGDATABASE", database).env("PSQL", psql);
    let said = said.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if said.status.success() { Ok(text(&said.stdout)) } else { Err(text(&said.stderr)) }
}

/// The URL that `begin` prints.
fn url_in(said: &str) -> String {
    said.lines()
        .find_map(|line| line.trim().strip_prefix("postgres://"))
        .map_or_else(|| panic!("no URL: {said}"), |rest| format!("postgres://{rest}"))
}

async fn signs_in(url: &str) -> Option<String> {
    refusal(&pool(url), "SELECT 1").await
}

#[tokio::test]
async fn a_password_is_replaced_while_the_other_one_is_in_use() {
    let Some(postgres) = Postgres::dedicated().await else { return };
    let Some(postgres) = postgres.with_roles().await else { return };
    migrate(&postgres.url_as("owner_a")).await;
    let place = sqlx::query_scalar("SHOW hba_file").fetch_one(&pool(&postgres.url())).await;
    let place: String = place.unwrap();
    std::fs::write(place, RULES).unwrap();
    postgres.server().execute("SELECT pg_reload_conf()").await.unwrap();
    let wrong = postgres.url_as("gateway_a").replace("a-password", "no-password");
    let asked = async || signs_in(&wrong).await.as_deref() == Some(WRONG_PASSWORD);
    wait_until("the server asks for passwords", PATIENCE, asked).await;

    let first = open(&postgres, "gateway_a").await;
    first.ping().await.unwrap();
    let said = rotate(&postgres, ["begin", "gateway"]).unwrap();
    assert!(said.contains("end stormwire_gateway_a"), "{said}");
    let new = url_in(&said);
    assert!(new.contains("//stormwire_gateway_b:"), "{new}");
    first.ping().await.unwrap();
    assert_eq!(signs_in(&postgres.url_as("gateway_a")).await, None, "both are good for a while");
    let second = PostgresConfig { migrate_at_start: false, ..PostgresConfig::new(&new) };
    let second = PostgresArchive::connect(second).await.unwrap();
    second.newest_line().await.unwrap();
    let twice = rotate(&postgres, ["begin", "gateway"]).unwrap_err();
    assert!(twice.contains("begun and not ended"), "{twice}");
    first.newest_line().await.unwrap();
    let early = rotate(&postgres, ["end", "stormwire_gateway_a"]).unwrap_err();
    assert!(early.contains("in use: stormwire from 127.0.0.1"), "{early}");

    first.close().await;
    let ended = async || rotate(&postgres, ["end", "stormwire_gateway_a"]).is_ok();
    wait_until("nobody is connected as the old login", PATIENCE, ended).await;
    let shut = signs_in(&postgres.url_as("gateway_a")).await;
    assert_eq!(shut.as_deref(), Some(WRONG_PASSWORD));
    second.newest_line().await.unwrap();
    let last = rotate(&postgres, ["end", "stormwire_gateway_b"]).unwrap_err();
    assert!(last.contains("nobody could"), "{last}");

    let third = url_in(&rotate(&postgres, ["begin", "gateway"]).unwrap());
    assert_eq!(signs_in(&third).await, None, "and back to the first");
    let old = signs_in(&postgres.url_as("gateway_a")).await;
    assert_eq!(old.as_deref(), Some(WRONG_PASSWORD), "never with its old password");
    let unknown = rotate(&postgres, ["begin", "nobody"]).unwrap_err();
    assert!(unknown.contains("expected owner"), "{unknown}");
}
