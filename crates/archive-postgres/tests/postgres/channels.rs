//! Channels: their rows, their counts, and what was stored since the counts.

use crate::kit::{Kit, START, batch, frame, open};
use std::time::Duration;
use stormwire_archive::{Archive as _, ChannelQuery};
use stormwire_archive_postgres::PostgresConfig;
use stormwire_core::{Channel, Offset};

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

#[tokio::test]
async fn a_channel_knows_its_beginning_its_end_and_its_count() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    let one = batch(0, vec![frame(1, &[("a:x", "1"), ("a:y", "1")]), frame(2, &[("a:x", "2")])]);
    kit.archive.persist(&lease, &one).await.unwrap();
    let two = batch(2, vec![frame(3, &[("a:x", "3")])]);
    kit.archive.persist(&lease, &two).await.unwrap();
    let info = kit.archive.channel(&channel("a:x")).await.unwrap().unwrap();
    assert_eq!((info.created_at, info.created_by.as_str()), (START.plus(SECOND), "alice"));
    assert_eq!((info.last.offset, info.last_at), (Offset::new(3, 0), START.plus(SECOND * 3)));
    assert_eq!(info.count, 3);
    assert_eq!(kit.archive.channel(&channel("a:z")).await.unwrap(), None);
    assert_eq!(kit.count("channels WHERE namespace = 'a' AND count > 0").await, 2);
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn counts_that_were_held_back_are_read_all_the_same_and_survive_their_worker() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    // So many channels in one batch that counting them with it would cost more than storing it.
    let names: Vec<_> = (0..2_000).map(|i| format!("wide:{i:04}")).collect();
    let events: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    kit.archive.persist(&lease, &batch(0, vec![frame(1, &events)])).await.unwrap();
    assert_eq!(kit.count("channels WHERE count > 0").await, 0, "held back");
    let info = kit.archive.channel(&channel("wide:0007")).await.unwrap().unwrap();
    assert_eq!((info.count, info.last.offset), (1, Offset::new(1, 7)));

    kit.run("UPDATE leases SET expires_at = '-infinity'").await;
    let other = open(PostgresConfig::new(kit.postgres.url())).await;
    let lease = kit.lease("other").await;
    other.persist(&lease, &batch(1, vec![frame(2, &[("wide:0007", "2")])])).await.unwrap();
    assert_eq!(kit.count("channels WHERE count = 1").await, 1_999, "counted at the take-over");
    let info = kit.archive.channel(&channel("wide:0007")).await.unwrap().unwrap();
    assert_eq!((info.count, info.last.offset), (2, Offset::new(2, 0)));
}

#[tokio::test]
async fn channels_are_paged_by_name() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    let names = ["a:b.1", "a:b.2", "a:c", "a-z:q", "b:b.9", "a:b~"];
    let events: Vec<_> = names.iter().map(|name| (*name, "1")).collect();
    kit.archive.persist(&lease, &batch(0, vec![frame(1, &events)])).await.unwrap();
    let list = |namespace: Option<&str>, prefix: Option<&str>, after: Option<&str>, limit| {
        let query = ChannelQuery {
            namespace: namespace.map(str::to_owned),
            prefix: prefix.map(str::to_owned),
            after: after.map(channel),
            limit,
        };
        let archive = kit.archive.clone();
        async move {
            let page = archive.channels(&query).await.unwrap();
            page.into_iter().map(|info| info.channel.to_string()).collect::<Vec<_>>()
        }
    };
    assert_eq!(
        list(None, None, None, 10).await,
        ["a-z:q", "a:b.1", "a:b.2", "a:b~", "a:c", "b:b.9"]
    );
    assert_eq!(list(Some("a"), None, Some("a:b.1"), 2).await, ["a:b.2", "a:b~"]);
    assert_eq!(list(Some("a"), Some("b."), None, 10).await, ["a:b.1", "a:b.2"]);
    assert_eq!(list(None, Some("b."), None, 10).await, ["a:b.1", "a:b.2", "b:b.9"]);
    assert!(list(Some("c"), None, None, 10).await.is_empty());
}
