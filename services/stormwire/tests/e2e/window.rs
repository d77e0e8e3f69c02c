//! `recovery-longer-than-the-window`, end to end: the journal has long let go of what a reader missed, so
//! it is given the archive, then the journal, then what is published meanwhile, and is live.

use crate::crowd::{Socket, Writer};
use crate::fleet::Fleet;
use serde_json::json;
use std::time::Duration;

/// Three times what the journal may hold.
const EVENTS: u64 = 12_000;
const BYTES: u64 = 4_000;
const JOURNAL_BYTES: u64 = 16 << 20;
const _: () = assert!(EVENTS * BYTES > 2 * JOURNAL_BYTES, "the journal cannot hold all of it");
const CHANNEL: &str = "window:a";

#[tokio::test]
async fn a_reader_that_was_away_for_longer_than_the_journal_remembers_misses_nothing() {
    let most = JOURNAL_BYTES.to_string();
    let settings = [("STORMWIRE_PARTITIONS", "1"), ("STORMWIRE_JOURNAL_BYTES_MAX", &*most)];
    let Some(fleet) = Fleet::start("window", &settings).await else { return };
    let gateway = fleet.gateway("gateway").await;
    let _worker = fleet.worker("worker").await;
    let (url, token) = (gateway.url(), &fleet.token);
    let mut writer = Writer::open(&url, token, CHANNEL, usize::try_from(BYTES).unwrap()).await;
    let mut reader = Socket::open(&url, token).await;
    reader.follow(CHANNEL, None, 0).await;
    writer.flood(20).await;
    reader.read_below(20).await;
    let stood = json!({"epoch": 1, "offset": reader.offset()});
    drop(reader);
    // The journal refuses what it has no room for: that it takes all of this proves that it let go.
    writer.flood(EVENTS).await;
    let mut reader = Socket::open(&url, token).await;
    reader.follow(CHANNEL, Some(stood), 20).await;
    let end = writer.next + 200;
    let live = writer.paced(200, Duration::from_millis(5));
    let ((), _) = tokio::join!(live, reader.read_below(end));
}
