//! How long pages over the channels of a prefix take, where these are many:
//! `cargo run --release -p stormwire-archive-postgres --example prefix_speed [CHANNELS] [EVENTS]`, and one line about it.

#![expect(clippy::unwrap_used, reason = "an example that cannot go on says so by a panic")]
#![expect(clippy::print_stdout, reason = "its result")]

use std::sync::Arc;
use stormwire_archive::Archive as _;
use stormwire_archive::suite::{Subject, prefix_speed};
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig};
use stormwire_testkit::postgres::Postgres;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (channels, events) = (number(10_000), number(500_000));
    let postgres = Postgres::start().await.expect("Postgres on this machine");
    let archive = PostgresArchive::connect(PostgresConfig::new(postgres.url())).await.unwrap();
    archive.migrate().await.unwrap();
    let settings = Arc::new(archive.clone());
    let archive = Arc::new(archive);
    let subject = Subject { archive, settings, keep: Box::new(postgres) };
    let speed = prefix_speed(&subject, channels, events).await;
    println!("{channels} channels, {events} events: {speed:.1?}");
}
