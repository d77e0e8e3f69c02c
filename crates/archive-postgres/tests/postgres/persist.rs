//! Batches on their way in.

use crate::kit::{Kit, P0, START, batch, data, decode, frame, open};
use bytes::Bytes;
use std::time::Duration;
use stormwire_archive::{
    Archive as _, DeadLetterFilter, Gap, HistoryQuery, LedgerEntry, PersistError, Undecodable,
};
use stormwire_archive_postgres::PostgresConfig;
use stormwire_core::{Channel, Epoch, Offset};
use stormwire_wire::frame::{EncodedEvents, EventParts, EventsBuilder, FrameBuilder, FrameId};

#[tokio::test]
async fn a_batch_is_stored_whole_and_moves_the_ledger() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    assert_eq!(kit.archive.ledger(P0).await.unwrap(), None);
    let first = batch(0, vec![frame(1, &[("a:x", "[1]"), ("a:y", "{\"n\":2}")])]);
    kit.archive.persist(&lease, &first).await.unwrap();
    let next = batch(1, vec![frame(2, &[("a:x", "3")]), frame(3, &[("a:x", "4")])]);
    kit.archive.persist(&lease, &next).await.unwrap();
    let last_frame = Some(FrameId { appender: [7; 16], counter: 3 });
    assert_eq!(
        kit.archive.ledger(P0).await.unwrap(),
        Some(LedgerEntry { epoch: Epoch(1), last_seq: 3, last_frame })
    );
    let page = kit.history("a:x", HistoryQuery::Last).await;
    assert_eq!(data(&page), ["[1]", "3", "4"]);
    assert_eq!(page.events[0].ts, START.plus(Duration::from_secs(1)));
    assert_eq!(page.events[0].position.offset, Offset::new(1, 0));
    assert_eq!(page.events[0].user, "alice");
    assert_eq!(kit.count("event_log WHERE id = '0-1-4097' AND producer = 'alice'").await, 1);
    assert_eq!(kit.count("events_default").await, 0, "the day has its own table");
}

#[tokio::test]
async fn a_batch_again_is_refused_with_what_the_ledger_says() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    let one = batch(0, vec![frame(1, &[("a:x", "1")])]);
    kit.archive.persist(&lease, &one).await.unwrap();
    let error = kit.archive.persist(&lease, &one).await.unwrap_err();
    assert!(matches!(error, PersistError::LedgerMoved { expected: 0, found: 1, .. }), "{error}");
    assert_eq!(kit.count("events").await, 1);
}

#[tokio::test]
async fn attributes_and_bytes_come_back_as_they_were() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    let mut events = EventsBuilder::default();
    let quoted = EventParts {
        kind: Some("it's \"quoted\" \\ {,}"),
        key: Some("ключ"),
        id: Some("my-id"),
        data: " {\"a\" : \"\\u0000é\"}\n".as_bytes(),
        binary: false,
    };
    let bytes = EventParts { data: &[0, 255, 10, 92], binary: true, ..Default::default() };
    for parts in [quoted, bytes] {
        events.push(&parts).unwrap();
    }
    let mut builder = FrameBuilder::default();
    let channel = Channel::parse("a:x").unwrap();
    builder.push(&channel, "o'neil\\", "", 0, None, &events.take());
    let frame = decode(builder.finish(FrameId { appender: [1; 16], counter: u64::MAX }));
    kit.archive.persist(&lease, &batch(0, vec![frame])).await.unwrap();
    let page = kit.history("a:x", HistoryQuery::Last).await;
    let first = &page.events[0];
    assert_eq!(first.kind.as_deref(), quoted.kind);
    assert_eq!((first.key.as_deref(), first.id.as_deref()), (quoted.key, quoted.id));
    assert_eq!((&first.data[..], first.binary), (quoted.data, false));
    assert_eq!((&page.events[1].data[..], page.events[1].binary), (bytes.data, true));
    assert_eq!(first.user, "o'neil\\");
    assert_eq!(page.ledger.unwrap().last_frame.unwrap().counter, u64::MAX);
    let info = kit.archive.channel(&channel).await.unwrap().unwrap();
    assert_eq!(info.created_by, "o'neil\\");
    assert_eq!(kit.count("event_log WHERE data = 'AP8KXA=='").await, 1, "bytes as base64");
}

#[tokio::test]
async fn a_poisoned_row_is_a_dead_letter_and_the_rest_is_stored() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    let mut frames = Vec::new();
    for seq in 1..=20u64 {
        let events: Vec<_> = (0..50).map(|i| ["a:x", "a:y"][i % 2]).map(|c| (c, "1")).collect();
        frames.push(if seq % 7 == 0 { poisoned(seq) } else { frame(seq, &events) });
    }
    kit.archive.persist(&lease, &batch(0, frames)).await.unwrap();
    assert_eq!(kit.count("events").await, 18 * 50 + 2);
    let letters = kit
        .archive
        .dead_letters(&DeadLetterFilter { limit: 10, ..Default::default() })
        .await
        .unwrap();
    let at: Vec<_> = letters.iter().map(|letter| letter.position.offset).collect();
    assert_eq!(at, [Offset::new(7, 1), Offset::new(14, 1)]);
    let letter = &letters[0];
    assert_eq!((letter.channel.as_deref(), letter.whole_frame), (Some("a:x"), false));
    assert!(letter.error.contains("refused by the database"), "{}", letter.error);
    let back = EncodedEvents::from_wire(letter.bytes.clone(), 1).unwrap();
    assert_eq!(back.len(), 1);
    let page = kit.history("a:x", HistoryQuery::Last).await;
    let gaps: Vec<_> = page.gaps.iter().map(|gap| (gap.from, gap.to)).collect();
    assert_eq!(gaps, [7, 14].map(|seq| (Offset::new(seq, 1), Offset::new(seq, 1))));
    let other = kit.history("a:y", HistoryQuery::Last).await;
    assert!(other.gaps.is_empty(), "another channel lacks nothing");
    let info = kit.archive.channel(&Channel::parse("a:x").unwrap()).await.unwrap().unwrap();
    assert_eq!(info.count, 18 * 25 + 2, "what is not stored is not counted");
    assert!(kit.archive.drop_dead_letter(letter.id).await.unwrap());
    assert!(!kit.archive.drop_dead_letter(letter.id).await.unwrap());
    assert_eq!(kit.archive.dead_letter(letter.id).await.unwrap(), None);
    assert_eq!(kit.archive.dead_letter(letters[1].id).await.unwrap().as_ref(), Some(&letters[1]));
}

/// Two events; the second's type holds a NUL, which no text in Postgres can.
fn poisoned(seq: u64) -> stormwire_wire::frame::Frame {
    let mut events = EventsBuilder::default();
    for kind in ["good", "b\0d"] {
        events.push(&EventParts { kind: Some(kind), data: b"1", ..Default::default() }).unwrap();
    }
    let mut builder = FrameBuilder::default();
    builder.push(&Channel::parse("a:x").unwrap(), "u", "", 0, None, &events.take());
    decode(builder.finish(FrameId { appender: [7; 16], counter: seq }))
}

#[tokio::test]
async fn a_channel_with_an_impossible_name_is_a_dead_letter() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    let good = frame(1, &[("abcdef:x", "1"), ("a:good", "2")]);
    let bytes = rename(good, b"abcdef:x", b"abc\0ef:x");
    kit.archive.persist(&lease, &batch(0, vec![bytes])).await.unwrap();
    assert_eq!(kit.count("events").await, 1);
    assert_eq!(kit.count("channels").await, 1);
    assert_eq!(
        kit.count("dead_letters WHERE channel IS NULL AND error LIKE 'a channel is%'").await,
        1
    );
}

fn rename(
    frame: stormwire_wire::frame::Frame,
    from: &[u8],
    to: &[u8],
) -> stormwire_wire::frame::Frame {
    let events = frame.events().unwrap();
    let mut builder = FrameBuilder::default();
    for run in events.runs() {
        for event in run.events() {
            let mut one = EventsBuilder::default();
            one.push(&EventParts { data: event.data, ..Default::default() }).unwrap();
            let channel = Channel::parse(run.channel).unwrap();
            builder.push(&channel, run.user, "", 0, None, &one.take());
        }
    }
    let mut bytes = builder.finish(frame.id).to_vec();
    let at = bytes.windows(from.len()).position(|part| part == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    decode(Bytes::from(bytes))
}

#[tokio::test]
async fn undecodable_frames_and_holes_are_kept_with_the_batch() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    let mut one = batch(0, vec![frame(1, &[("a:x", "1")])]);
    one.through = 4;
    one.undecodable.push(Undecodable {
        seq: 2,
        ts: START,
        error: "the frame ends early\0".to_owned(),
        bytes: Bytes::from_static(b"S\x01\0rubbish"),
    });
    let (from, to) = (Offset::new(3, 0), Offset::new(4, 4095));
    one.gaps.push(Gap { epoch: Epoch(1), from, to, reason: "hole".to_owned() });
    kit.archive.persist(&lease, &one).await.unwrap();
    let page = kit.history("a:any", HistoryQuery::Last).await;
    let gaps: Vec<_> = page.gaps.iter().map(|gap| (gap.from.seq(), gap.to.seq())).collect();
    assert_eq!(gaps, [(2, 2), (3, 4)]);
    let filter = DeadLetterFilter { partition: Some(P0), after: 0, limit: 10 };
    let letters = kit.archive.dead_letters(&filter).await.unwrap();
    assert!(letters[0].whole_frame && &letters[0].bytes[..] == b"S\x01\0rubbish");
}

#[tokio::test]
async fn a_batch_of_claims_alone_moves_the_ledger() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    let id = FrameId { appender: [1; 16], counter: 1 };
    let claim = decode(stormwire_wire::frame::claim(id, "gateway-1"));
    kit.archive.persist(&lease, &batch(0, vec![claim])).await.unwrap();
    assert_eq!(kit.archive.ledger(P0).await.unwrap().unwrap().last_frame, Some(id));
}

#[tokio::test]
async fn a_clock_far_off_goes_to_the_default_table_and_is_readable() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    let mut strange = batch(0, vec![frame(1, &[("a:x", "1")]), frame(2, &[("a:x", "2")])]);
    strange.frames[0].1.0 = i64::MAX;
    strange.frames[1].1.0 = i64::MIN;
    kit.archive.persist(&lease, &strange).await.unwrap();
    assert_eq!(kit.count("events_default").await, 2);
    assert_eq!(data(&kit.history("a:x", HistoryQuery::Last).await), ["1", "2"]);
}

#[tokio::test]
async fn rows_that_waited_in_the_default_table_move_when_theirs_is_made() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    kit.run(
        "ALTER FUNCTION stormwire_make_partition RENAME TO hidden;
         CREATE FUNCTION stormwire_make_partition(text, timestamptz, timestamptz) RETURNS boolean
         LANGUAGE sql AS 'SELECT 1/0 = 1'",
    )
    .await;
    kit.archive.persist(&lease, &batch(0, vec![frame(1, &[("a:x", "1")])])).await.unwrap();
    assert_eq!(kit.count("events_default").await, 1);
    kit.run(
        "DROP FUNCTION stormwire_make_partition;
         ALTER FUNCTION hidden RENAME TO stormwire_make_partition",
    )
    .await;
    kit.archive.persist(&lease, &batch(1, vec![frame(2, &[("a:x", "2")])])).await.unwrap();
    assert_eq!(kit.count("events_default").await, 0);
    assert_eq!(kit.count("events_20261121").await, 2);
    assert_eq!(data(&kit.history("a:x", HistoryQuery::Last).await), ["1", "2"]);
}

#[tokio::test]
async fn many_may_migrate_at_once() {
    let Some(postgres) = stormwire_testkit::postgres::Postgres::start().await else { return };
    let opened = (0..6).map(|_| tokio::spawn(open(PostgresConfig::new(postgres.url()))));
    for archive in futures::future::join_all(opened).await {
        archive.unwrap().ping().await.unwrap();
    }
}

#[tokio::test]
async fn tables_are_made_ahead_by_living_workers() {
    let Some(kit) = Kit::start().await else { return };
    kit.archive.workers("w", Duration::from_secs(10)).await.unwrap();
    let ahead = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
    assert_eq!(kit.scalar(ahead).await, 1 + 3, "the default, today and two days");
    kit.archive.workers("w", Duration::from_secs(10)).await.unwrap();
    assert_eq!(kit.scalar(ahead).await, 4);
}
