//! Roles that may do what their processes do and no more: the port's suite as those, and what is refused.

mod by_role;
mod rotation;

use crate::kit::{Kit, P0, START, TTL, batch, frame};
use by_role::ByRole;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::suite::Subject;
use stormwire_archive::{Archive as _, HistoryQuery, Retention, Rule};
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig, inspect};
use stormwire_core::PartitionCount;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::{Program, workspace_root};

const DENIED: &str = "42501";

/// One who may nothing but what its process does, and must not make the schema itself.
async fn open(postgres: &Postgres, login: &str) -> PostgresArchive {
    let config = PostgresConfig::new(postgres.url_as(login));
    PostgresArchive::connect(PostgresConfig { migrate_at_start: false, ..config }).await.unwrap()
}

fn pool(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(1).connect_lazy(url).unwrap()
}

/// The tables of the archive and of the accounts, made as whom `url` says.
async fn migrate(url: &str) {
    let config = PostgresConfig { migrate_at_start: false, ..PostgresConfig::new(url) };
    PostgresArchive::connect(config).await.unwrap().migrate().await.unwrap();
    let accounts = workspace_root().join("services/identity/migrations/pg");
    let mut accounts = Migrator::new(accounts).await.unwrap();
    accounts.dangerous_set_table_name("identity_migrations");
    accounts.run(&pool(url)).await.unwrap();
}

/// A database whose roles were made before its tables.
async fn roles_first() -> Option<Postgres> {
    let postgres = Postgres::start().await?.with_roles().await?;
    migrate(&postgres.url_as("owner_a")).await;
    Some(postgres)
}

/// One that was in use by a single role, which was no superuser, before there were others.
async fn roles_last() -> Option<(Postgres, String)> {
    let postgres = Postgres::start().await?;
    let database = postgres.url().rsplit('/').next()?.to_owned();
    let server = postgres.server();
    let make = format!("CREATE ROLE before_{database} LOGIN CREATEROLE");
    server.execute(&make).await.unwrap();
    let own = format!("ALTER DATABASE {database} OWNER TO before_{database}");
    server.execute(&own).await.unwrap();
    let before = postgres.url().replacen("postgres@", &format!("before_{database}@"), 1);
    migrate(&before).await;
    match postgres.make_roles(&before).await {
        Err(stormwire_testkit::StartError::Absent(_)) => return None,
        made => made.unwrap(),
    }
    Some((postgres, before))
}

mod suite {
    use super::*;

    async fn fresh() -> Option<Subject> {
        let postgres = roles_first().await?;
        let archive = Arc::new(ByRole {
            gateway: open(&postgres, "gateway_a").await,
            messages: open(&postgres, "messages_a").await,
        });
        Some(Subject { settings: archive.clone(), archive, keep: Box::new(postgres) })
    }

    stormwire_archive::archive_suite!(fresh);
}

/// The SQLSTATE of the refusal.
async fn refusal(pool: &PgPool, statement: &str) -> Option<String> {
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(pool).await;
    let error = done.err()?;
    Some(error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned())
}

const REFUSED: [(&str, &[&str]); 4] = [
    (
        "gateway_a",
        &[
            "DELETE FROM events",
            "INSERT INTO events (ts, \"offset\", epoch, partition, channel, published_by) VALUES (now(), 0, 1, 0, 'a:x', 'u')",
            "UPDATE ledger SET last_seq = 0",
            "UPDATE leases SET worker = 'mine'",
            "DELETE FROM read_positions",
            "SELECT stormwire_make_partition('events_mine', now(), now() + interval '1 day')",
            "SELECT stormwire_drop_events('w', 'events_default', now())",
            "INSERT INTO settings VALUES ('k', 'n', '{}', 1)",
            "INSERT INTO operator_audit (at, by, ip, what, target, detail) VALUES (0, '', '', '', '', '')",
            "SELECT * FROM dead_letters",
            "SELECT password FROM identity_accounts",
            "SELECT stormwire_give_rights()",
            "CREATE TABLE mine (x int)",
            "ALTER TABLE events ADD COLUMN x int",
        ],
    ),
    (
        "messages_a",
        &[
            "SELECT password FROM identity_accounts",
            "INSERT INTO identity_sessions VALUES ('s', 'a', 0, 0, 0, NULL, '', '')",
            "SELECT * FROM settings",
            "SELECT stormwire_set('k', 'n', '{}', NULL, 0, '', '', '', '', '')",
            "SELECT stormwire_note_operator(0, '', '', '', '', '')",
            "SELECT * FROM read_positions",
            "UPDATE events SET channel = 'a:other'",
            "TRUNCATE events",
            "DELETE FROM ledger",
            "DELETE FROM gaps",
            "DROP TABLE events",
            "CREATE TABLE mine (x int)",
        ],
    ),
    (
        "identity_a",
        &[
            "SELECT * FROM events",
            "SELECT * FROM ledger",
            "SELECT * FROM settings",
            "SELECT stormwire_set('k', 'n', '{}', NULL, 0, '', '', '', '', '')",
            "SELECT stormwire_drop_events('w', 'events_default', now())",
            "DELETE FROM identity_accounts",
            "SELECT * FROM identity_audit",
            "CREATE TABLE mine (x int)",
        ],
    ),
    (
        "backup_a",
        &[
            "DELETE FROM events",
            "INSERT INTO gaps VALUES (0, 1, 0, 0, NULL, '')",
            "UPDATE identity_accounts SET password = ''",
            "UPDATE ledger SET last_seq = 0",
            "SELECT stormwire_set('k', 'n', '{}', NULL, 0, '', '', '', '', '')",
            "CREATE TABLE mine (x int)",
        ],
    ),
];

async fn each_is_refused(postgres: &Postgres) {
    for (login, statements) in REFUSED {
        let pool = pool(&postgres.url_as(login));
        for statement in statements {
            let refused = refusal(&pool, statement).await;
            assert_eq!(refused.as_deref(), Some(DENIED), "{login}: {statement}");
        }
    }
}

#[tokio::test]
async fn each_role_is_refused_what_its_process_does_not_do() {
    let Some(postgres) = roles_first().await else { return };
    each_is_refused(&postgres).await;
    let Some((postgres, _)) = roles_last().await else { return };
    each_is_refused(&postgres).await;
}

/// What runs with the owner's rights runs on nothing of the caller's.
#[tokio::test]
async fn a_worker_drops_tables_of_events_and_nothing_else() {
    let Some(postgres) = roles_first().await else { return };
    let messages = open(&postgres, "messages_a").await;
    let one = PartitionCount::new(1).unwrap();
    let lease = messages.acquire("w", one, 1, TTL).await.unwrap().remove(0);
    messages.persist(&lease, &batch(0, vec![frame(1, &[("a:x", "1")])])).await.unwrap();
    let sql = pool(&postgres.url_as("messages_a"));
    let owner = "SELECT count(*) FROM pg_class WHERE relowner = 'stormwire_owner'::regrole AND relkind = 'r' AND relname LIKE 'events\\_2%'";
    let made: i64 = sqlx::query_scalar(owner).fetch_one(&sql).await.unwrap();
    assert_eq!(made, 1, "a worker's table is the owner's");
    assert!(messages.maintain("w", TTL).await.unwrap());
    let mine = "CREATE TEMP VIEW mine AS SELECT * FROM (VALUES (0::smallint, now(), 1, 0::bigint)) v (partition, ts, epoch, \"offset\")";
    assert_eq!(refusal(&sql, mine).await, None);
    for table in ["mine", "settings", "identity_accounts"] {
        let drop = format!("SELECT stormwire_drop_events('w', '{table}', now())");
        assert_eq!(refusal(&sql, &drop).await.as_deref(), Some("42809"), "{table}");
    }
    let day = Rule { age: Some(Duration::from_secs(86_400)), bytes: None };
    let retention = Retention { default: day, ..Retention::default() };
    let later = START.plus(Duration::from_secs(5 * 86_400));
    let done = messages.retain("w", &retention, later).await.unwrap();
    assert_eq!((done.tables, done.events), (1, 1));
}

/// What is there, what a worker makes, what a later migration makes.
#[tokio::test]
async fn a_backup_reads_all_that_is_there_and_all_that_comes() {
    let Some(postgres) = roles_first().await else { return };
    let messages = open(&postgres, "messages_a").await;
    let one = PartitionCount::new(1).unwrap();
    let lease = messages.acquire("w", one, 1, TTL).await.unwrap().remove(0);
    messages.persist(&lease, &batch(0, vec![frame(1, &[("a:x", "1")])])).await.unwrap();
    let owner = pool(&postgres.url_as("owner_b"));
    assert!(refusal(&owner, "SELECT 1").await.is_some(), "who has no password cannot sign in");
    let owner = pool(&postgres.url_as("owner_a"));
    let later = "CREATE TABLE later (id bigint GENERATED ALWAYS AS IDENTITY)";
    assert_eq!(refusal(&owner, later).await, None);
    let pg_dump = Program::Postgres.find().unwrap().with_file_name("pg_dump");
    let backup = ["-f", "/dev/null", &postgres.url_as("backup_a")];
    let said = Command::new(pg_dump).args(backup).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[tokio::test]
async fn roles_come_to_a_database_in_use_and_the_role_from_before_goes_on() {
    let Some((postgres, before)) = roles_last().await else { return };
    postgres.make_roles(&before).await.unwrap();
    let strange = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner <> 'stormwire_owner'::regrole";
    let strange: i64 = sqlx::query_scalar(strange).fetch_one(&pool(&before)).await.unwrap();
    assert_eq!(strange, 0, "everything is the owner's");
    let strange = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proowner <> 'stormwire_owner'::regrole";
    let strange: i64 = sqlx::query_scalar(strange).fetch_one(&pool(&before)).await.unwrap();
    assert_eq!(strange, 0, "every function is the owner's");
    let archive = PostgresArchive::connect(PostgresConfig::new(&before)).await.unwrap();
    let kit = Kit { archive, sql: pool(&before), postgres: postgres.clone() };
    let lease = kit.lease("w").await;
    kit.archive.persist(&lease, &batch(0, vec![frame(1, &[("a:x", "1")])])).await.unwrap();
    assert_eq!(kit.count("events_default").await, 0, "it still makes tables");

    kit.archive.release(&lease).await.unwrap();
    let messages = open(&postgres, "messages_a").await;
    let lease =
        messages.acquire("v", PartitionCount::new(1).unwrap(), 1, TTL).await.unwrap().remove(0);
    messages.persist(&lease, &batch(1, vec![frame(2, &[("a:x", "2")])])).await.unwrap();
    let gateway = open(&postgres, "gateway_a").await;
    let channel = stormwire_core::Channel::parse("a:x").unwrap();
    let page = gateway.history(&channel, P0, HistoryQuery::Last, 10, 1 << 20, crate::kit::NOWHERE);
    assert_eq!(page.await.unwrap().events.len(), 2);
}

#[tokio::test]
async fn who_may_not_make_the_schema_is_told_who_may_and_needs_not_once_it_is_there() {
    let Some(postgres) = Postgres::start().await else { return };
    let Some(postgres) = postgres.with_roles().await else { return };
    let gateway = open(&postgres, "gateway_a").await;
    let told = gateway.migrate().await.unwrap_err().to_string();
    assert!(told.contains("migration 1") && told.contains("`stormwire migrate`"), "{told}");
    let look = async || inspect(&postgres.url_as("gateway_a"), TTL).await.unwrap();
    let found = look().await;
    assert!(!found.may_create && !found.has_schema, "{found:?}");
    migrate(&postgres.url_as("owner_a")).await;
    gateway.migrate().await.unwrap();
    let found = look().await;
    assert!(!found.may_create && found.has_schema, "{found:?}");
}
