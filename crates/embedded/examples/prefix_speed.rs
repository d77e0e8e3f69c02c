//! How long pages over the channels of a prefix take, where these are many:
//! `cargo run --release -p stormwire-embedded --example prefix_speed [CHANNELS] [EVENTS]`, and one line about it.

#![expect(clippy::unwrap_used, reason = "an example that cannot go on says so by a panic")]
#![expect(clippy::print_stdout, reason = "its result")]

use std::sync::Arc;
use stormwire_archive::suite::{Subject, prefix_speed};
use stormwire_core::SystemClock;
use stormwire_embedded::{Embedded, EmbeddedConfig, FILE_NAME};
use stormwire_testkit::Folder;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (channels, events) = (number(10_000), number(500_000));
    let folder = Folder::temporary("prefix-speed").unwrap();
    let path = folder.path().join(FILE_NAME);
    let opened = Embedded::open(path, EmbeddedConfig::default(), Arc::new(SystemClock)).await;
    let embedded = opened.unwrap();
    let (archive, settings) = (embedded.archive(), embedded.settings());
    let subject = Subject { archive, settings, keep: Box::new((embedded, folder)) };
    let speed = prefix_speed(&subject, channels, events).await;
    println!("{channels} channels, {events} events: {speed:.1?}");
}
