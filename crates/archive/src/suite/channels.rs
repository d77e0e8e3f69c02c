//! The channels that have events.

use super::Subject;
use super::kit::{Worker, at, channel, frame, json};
use crate::{ChannelInfo, ChannelQuery};

/// The row of a channel.
pub async fn a_channel_is_known_from_its_first_event(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let archive = worker.archive;
    assert_eq!(archive.channel(&channel("a:x")).await, Ok(None));
    let frames = vec![
        frame(1, &[("a:x", "alice", &[json("1")]), ("a:x", "bob", &[json("2"), json("3")])]),
        frame(2, &[("a:y", "carol", &[json("4")]), ("a:x", "carol", &[json("5")])]),
    ];
    worker.persist(&worker.batch(0, frames)).await.expect("the batch is stored");
    let due = ChannelInfo {
        channel: channel("a:x"),
        created_at: worker.times.of(1),
        created_by: "alice".to_owned(),
        title: None,
        last: at(2, 1),
        last_at: worker.times.of(2),
        count: 4,
    };
    assert_eq!(archive.channel(&channel("a:x")).await, Ok(Some(due)));
}

/// Counting over many batches, each read in between.
pub async fn counts_grow_with_every_batch(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let mut last = 0;
    for frames in [1, 5, 2, 20, 1, 1] {
        worker.fill("a:x", last, frames).await;
        last += frames;
        let info = worker.archive.channel(&channel("a:x")).await.expect("the channel is read");
        let info = info.expect("it is there");
        assert_eq!(
            (info.count, info.last, info.last_at),
            (last, at(last, 0), worker.times.of(last))
        );
        assert_eq!(info.created_at, worker.times.of(1));
    }
}

/// Namespaces, prefixes and cursors.
pub async fn channels_are_paged_by_name(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let names = ["b:1", "b:10", "b:2", "a:x", "a:x.y", "a:xy", "ab:x", "b:Z"];
    let event = [json("1")];
    let runs: Vec<_> = names.iter().map(|name| (*name, "alice", &event[..])).collect();
    let batch = worker.batch(0, vec![frame(1, &runs)]);
    worker.persist(&batch).await.unwrap_or_else(|error| panic!("the batch is stored: {error}"));
    let list = async |namespace: Option<&str>, prefix: Option<&str>, after: Option<&str>, limit| {
        let query = ChannelQuery {
            namespace: namespace.map(str::to_owned),
            prefix: prefix.map(str::to_owned),
            after: after.map(channel),
            limit,
        };
        let found = worker.archive.channels(&query).await.expect("channels are listed");
        found.iter().map(|info| info.channel.to_string()).collect::<Vec<_>>()
    };
    let everything = list(None, None, None, 100).await;
    assert_eq!(everything, ["a:x", "a:x.y", "a:xy", "ab:x", "b:1", "b:10", "b:2", "b:Z"]);
    assert_eq!(list(Some("a"), None, None, 100).await, ["a:x", "a:x.y", "a:xy"]);
    assert_eq!(list(Some("b"), Some("1"), None, 100).await, ["b:1", "b:10"]);
    assert_eq!(list(None, Some("x"), None, 100).await, ["a:x", "a:x.y", "a:xy", "ab:x"]);
    assert_eq!(list(Some("b"), Some("_"), None, 100).await, [""; 0], "a prefix is no pattern");
    assert_eq!(list(None, None, Some("a:x.y"), 3).await, ["a:xy", "ab:x", "b:1"]);
    assert_eq!(list(Some("b"), None, Some("b:10"), 100).await, ["b:2", "b:Z"]);
    assert_eq!(list(Some("b"), None, Some("z:z"), 100).await, [""; 0]);
}
