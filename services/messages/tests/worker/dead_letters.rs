//! Dead letters, published again.

use crate::kit::{NOWHERE, Running, cluster, config, frame, id};
use bytes::Bytes;
use std::cell::RefCell;
use std::time::Duration;
use stormwire_archive::{Batch, DeadLetterFilter, HistoryQuery, Undecodable};
use stormwire_core::{Channel, Epoch, Offset, Partition, Position, Timestamp};
use stormwire_messages::{DeadLetters, ReplayError};
use stormwire_wire::frame::{EventParts, EventsBuilder, Frame, FrameBuilder};

const P0: Partition = Partition(0);

/// Scenario `poison-row`: an event that Postgres will not store becomes a dead letter with a gap at its
/// place; everything before, beside and behind it is stored, and the worker goes on.
#[tokio::test]
async fn poison_row() {
    let Some(engines) = cluster().await else { return };
    let mut builder = FrameBuilder::default();
    for kind in ["fine", "nul\0inside", "fine"] {
        let mut one = EventsBuilder::default();
        one.push(&EventParts { kind: Some(kind), data: b"4", ..Default::default() }).unwrap();
        builder.push(&Channel::parse("a:x").unwrap(), "u", "p", 4, None, &one.take());
    }
    engines.write(P0, 1, 3).await;
    engines.append(P0, 4, builder.finish(id(4))).await;
    engines.write(P0, 5, 20).await;
    let worker = Running::start(&engines, config(1));
    engines.wait_persisted(P0, 20).await;
    engines.write(P0, 21, 25).await;
    engines.wait_persisted(P0, 25).await;
    worker.stop().await;
    let filter = DeadLetterFilter { limit: 10, ..Default::default() };
    let letters = engines.archive.dead_letters(&filter).await.unwrap();
    let place = Position { epoch: Epoch(1), offset: Offset::new(4, 1) };
    assert_eq!((letters.len(), letters[0].position, letters[0].whole_frame), (1, place, false));
    let channel = Channel::parse("a:x").unwrap();
    let page =
        engines.archive.history(&channel, P0, HistoryQuery::Last, 1000, 1 << 20, NOWHERE).await;
    let page = page.unwrap();
    assert_eq!(page.events.len(), 24 * 5 + 2, "all the others, once");
    let gaps: Vec<_> = page.gaps.iter().map(|gap| (gap.from, gap.to)).collect();
    assert_eq!(gaps, [(place.offset, place.offset)]);
}

#[tokio::test]
async fn a_dead_letter_is_published_again_and_then_gone() {
    let Some(engines) = cluster().await else { return };
    let ttl = Duration::from_secs(60);
    let lease = &engines.archive.acquire("test", config(1).partitions, 1, ttl).await.unwrap()[0];
    let mut events = EventsBuilder::default();
    let refused = EventParts { kind: Some("a\0b"), data: b"{}", ..Default::default() };
    events.push(&refused).unwrap();
    let mut builder = FrameBuilder::default();
    builder.push(&Channel::parse("a:x").unwrap(), "u", "", 0, None, &events.take());
    let poisoned = Frame::decode(&builder.finish(id(1))).unwrap();
    let letter = |seq, bytes| Undecodable { seq, ts: Timestamp(0), error: "why".to_owned(), bytes };
    let batch = Batch {
        epoch: Epoch(1),
        expected_last: 0,
        through: 3,
        last_frame: None,
        frames: vec![(1, Timestamp(1_795_250_000_000), poisoned)],
        gaps: Vec::new(),
        // A frame that this program can read after all, and one that nobody can.
        undecodable: vec![letter(2, frame(2, 3)), letter(3, Bytes::from_static(b"rubbish"))],
    };
    engines.archive.persist(lease, &batch).await.unwrap();
    let letters = DeadLetters::new(engines.archive.clone());
    let filter = DeadLetterFilter { limit: 10, ..Default::default() };
    let all = letters.list(&filter).await.unwrap();
    assert_eq!(all.len(), 3);
    let by_seq = |seq| all.iter().find(|letter| letter.position.offset.seq() == seq).unwrap().id;

    let published = RefCell::new(Vec::new());
    let publish = |event: stormwire_messages::Replayed| {
        published.borrow_mut().push(event);
        std::future::ready(Ok::<_, String>(()))
    };
    assert_eq!(letters.replay(by_seq(1), publish).await.unwrap(), 1);
    assert_eq!(letters.replay(by_seq(2), publish).await.unwrap(), 3);
    {
        let published = published.borrow();
        assert_eq!(published[0].kind.as_deref(), Some("a\0b"));
        assert_eq!((published[0].channel.as_str(), &published[0].data[..]), ("a:x", &b"{}"[..]));
        assert_eq!(&published[3].data[..], b"[2,2]");
        assert_ne!(published[2].idempotency, published[3].idempotency);
    }
    let refuse = |_| std::future::ready(Err::<(), _>("full"));
    let error = letters.replay(by_seq(3), refuse).await.unwrap_err();
    assert!(matches!(error, ReplayError::Undecodable(_)), "{error}");
    assert!(matches!(letters.replay(by_seq(1), refuse).await, Err(ReplayError::NotFound(_))));
    assert_eq!(letters.show(by_seq(3)).await.unwrap().unwrap().bytes.as_ref(), b"rubbish");
    assert!(letters.drop(by_seq(3)).await.unwrap());
    assert!(letters.list(&filter).await.unwrap().is_empty());
}
