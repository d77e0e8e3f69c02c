//! The newest events by key.

use super::Subject;
use super::kit::{START, Worker, at, channel, data, frame, json, positions};
use crate::{KeyQuery, LatestPage};
use stormwire_core::Partition;
use stormwire_wire::frame::EventParts;

const fn keyed<'a>(key: &'a str, data: &'a str) -> EventParts<'a> {
    EventParts { key: Some(key), ..json(data) }
}

async fn latest(
    worker: &Worker<'_>,
    name: &str,
    query: &KeyQuery,
    limit: usize,
    bytes: usize,
) -> LatestPage {
    let name = channel(name);
    let page = worker.archive.latest(&name, Partition(3), query, limit, bytes, START).await;
    page.expect("the newest events are read")
}

fn keys(page: &LatestPage) -> Vec<&str> {
    page.events.iter().filter_map(|event| event.key.as_deref()).collect()
}

/// One key's newest event, of this channel alone, whatever was published behind it.
pub async fn the_newest_event_of_a_key_is_found(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let of = |key: &str| KeyQuery::Of(key.to_owned());
    let nothing = latest(&worker, "a:x", &of("k"), 1, 1 << 20).await;
    assert_eq!(nothing, LatestPage::default());
    let frames = vec![
        frame(1, &[("a:x", "alice", &[keyed("k", "1"), keyed("k", "2"), keyed("other", "3")])]),
        frame(2, &[("a:y", "alice", &[keyed("k", "4")]), ("a:x", "bob", &[json("5")])]),
    ];
    worker.persist(&worker.batch(0, frames)).await.expect("the batch is stored");
    let found = latest(&worker, "a:x", &of("k"), 1, 1 << 20).await;
    assert_eq!((positions(&found.events), data(&found.events)), (vec![at(1, 1)], vec!["2"]));
    assert_eq!((found.more, found.ledger), (false, worker.ledger().await));
    let other = latest(&worker, "a:y", &of("k"), 1, 0).await;
    assert_eq!(data(&other.events), ["4"], "at least one, whatever it weighs");
    let none = latest(&worker, "a:x", &of("K"), 1, 1 << 20).await;
    assert_eq!((none.events.len(), none.ledger.map(|entry| entry.last_seq)), (0, Some(2)));
    // A later batch takes its place.
    let next = vec![frame(3, &[("a:x", "alice", &[keyed("k", "6")])])];
    worker.persist(&worker.batch(2, next)).await.expect("the batch is stored");
    let found = latest(&worker, "a:x", &of("k"), 1, 1 << 20).await;
    assert_eq!((data(&found.events), found.ledger), (vec!["6"], worker.ledger().await));
}

/// Each key's newest event, page by page, in the order of the keys' bytes.
pub async fn each_keys_newest_event_is_paged(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let names = ["b", "a", "Z", "é", "b-", "aa", "ab"];
    let mut frames = Vec::new();
    for round in 0..3 {
        for (number, key) in names.iter().enumerate() {
            let text = (round * 10 + number).to_string();
            let seq = frames.len() as u64 + 1;
            frames.push(frame(seq, &[("a:x", "alice", &[keyed(key, &text), json("0")])]));
        }
    }
    let count = frames.len() as u64;
    worker.persist(&worker.batch(0, frames)).await.expect("the batch is stored");
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let newest = |key: &str| {
        let number = names.iter().position(|name| *name == key).expect("one of them");
        (20 + number).to_string()
    };
    for limit in [1, 3, 6, 7, 8] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let query = KeyQuery::After(after.clone());
            let page = latest(&worker, "a:x", &query, limit, 1 << 20).await;
            assert!(page.events.len() <= limit);
            assert_eq!(page.ledger.map(|entry| entry.last_seq), Some(count));
            for event in &page.events {
                let key = event.key.clone().expect("an event with a key");
                assert_eq!(data(std::slice::from_ref(event)), [newest(&key)]);
                found.push(key);
            }
            after = found.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(found, sorted, "pages of {limit}");
    }
    let behind = latest(&worker, "a:x", &KeyQuery::After(Some("aaa".into())), 2, 1 << 20).await;
    assert_eq!((keys(&behind), behind.more), (vec!["ab", "b"], true), "a key that is not there");
    let small = latest(&worker, "a:x", &KeyQuery::After(None), 100, 2).await;
    assert_eq!((keys(&small), small.more), (vec!["Z"], true), "two bytes each");
    let nobody = latest(&worker, "no:body", &KeyQuery::After(None), 100, 1 << 20).await;
    assert_eq!((nobody.events.len(), nobody.more), (0, false));
}
