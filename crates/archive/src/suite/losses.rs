//! What cannot be stored is never lost in silence.

use super::Subject;
use super::kit::{START, Worker, at, channel, data, frame, json};
use crate::{DeadLetter, DeadLetterFilter, Gap, HistoryQuery, Undecodable};
use bytes::Bytes;
use stormwire_core::{Offset, Partition};
use stormwire_wire::frame::EventParts;

async fn letters(subject: &Subject) -> Vec<DeadLetter> {
    let filter = DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() };
    subject.archive.dead_letters(&filter).await.expect("dead letters are listed")
}

fn covers(gap: &Gap, seq: u64, index: u16) -> bool {
    (gap.from..=gap.to).contains(&Offset::new(seq, index))
}

/// A whole frame that nobody can read.
pub async fn a_frame_that_cannot_be_decoded_is_a_dead_letter(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let mut batch = worker.batch(0, Vec::new());
    let bytes = Bytes::from_static(b"\0no frame\xff");
    batch.frames.push((1, worker.times.of(1), frame(1, &[("a:x", "alice", &[json("1")])])));
    batch.undecodable.push(Undecodable {
        seq: 2,
        ts: worker.times.of(2),
        error: "the bytes do not begin with a frame header".to_owned(),
        bytes: bytes.clone(),
    });
    batch.frames.push((3, worker.times.of(3), frame(3, &[("a:x", "alice", &[json("3")])])));
    (batch.through, batch.last_frame) = (3, None);
    worker.persist(&batch).await.expect("the batch is stored");
    assert_eq!(data(&worker.all("a:x").await), ["1", "3"], "the rest is there");
    let found = letters(subject).await;
    assert_eq!(found.len(), 1);
    let letter = &found[0];
    assert_eq!((letter.partition, letter.position), (Partition(3), at(2, 0)));
    assert_eq!((letter.ts, letter.whole_frame), (worker.times.of(2), true));
    assert_eq!(letter.bytes, bytes);
    assert!(letter.error.contains("frame header") && letter.channel.is_none());
    let page = worker.page("a:x", HistoryQuery::After(START), 10).await;
    assert!(page.gaps.iter().any(|gap| covers(gap, 2, 0) && covers(gap, 2, 4095)), "{page:?}");
}

/// What an operator does with them.
pub async fn a_dead_letter_can_be_listed_read_and_dropped(subject: &Subject) {
    for partition in [3, 4] {
        let worker = Worker::of(subject, partition).await;
        let mut batch = worker.batch(0, Vec::new());
        batch.undecodable = (1..=3)
            .map(|seq| Undecodable {
                seq,
                ts: worker.times.of(seq),
                error: format!("error {seq}"),
                bytes: Bytes::from(format!("bytes {seq}")),
            })
            .collect();
        (batch.through, batch.last_frame) = (3, None);
        worker.persist(&batch).await.expect("the batch is stored");
    }
    let found = letters(subject).await;
    assert_eq!(found.len(), 6);
    assert!(found.windows(2).all(|pair| pair[0].id < pair[1].id));
    let archive = &*subject.archive;
    let filter = DeadLetterFilter { partition: Some(Partition(4)), after: 0, limit: 2 };
    let page = archive.dead_letters(&filter).await.expect("dead letters are listed");
    assert_eq!(page.len(), 2);
    assert!(page.iter().all(|letter| letter.partition == Partition(4)));
    let filter = DeadLetterFilter { after: page[1].id, ..filter };
    let rest = archive.dead_letters(&filter).await.expect("dead letters are listed");
    assert_eq!(rest.iter().map(|letter| letter.error.as_str()).collect::<Vec<_>>(), ["error 3"]);
    let id = rest[0].id;
    assert_eq!(archive.dead_letter(id).await, Ok(Some(rest[0].clone())));
    assert_eq!(archive.drop_dead_letter(id).await, Ok(true));
    assert_eq!(archive.drop_dead_letter(id).await, Ok(false));
    assert_eq!(archive.dead_letter(id).await, Ok(None));
    assert_eq!(letters(subject).await.len(), 5);
}

/// Holes in the journal.
pub async fn a_proved_hole_is_told_in_the_pages_that_cover_it(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    worker.fill("a:x", 0, 2).await;
    let mut batch = worker.batch(2, Vec::new());
    let hole = Gap {
        epoch: batch.epoch,
        from: Offset::new(3, 0),
        to: Offset::new(4, 4095),
        reason: "hole".to_owned(),
    };
    batch.gaps.push(hole.clone());
    batch.frames.push((5, worker.times.of(5), frame(5, &[("a:x", "alice", &[json("5")])])));
    batch.through = 5;
    worker.persist(&batch).await.expect("the batch is stored");
    worker.fill("a:x", 5, 2).await;
    let told = async |query, limit| worker.page("a:x", query, limit).await.gaps;
    use HistoryQuery::{After, Before, Last};
    assert_eq!(told(After(START), 10).await, std::slice::from_ref(&hole));
    assert_eq!(told(After(at(1, 0)), 2).await, std::slice::from_ref(&hole));
    assert_eq!(told(After(at(4, 4095)), 10).await, [], "behind the reader");
    assert_eq!(told(After(START), 2).await, [], "beyond this page");
    assert_eq!(told(Last, 2).await, [], "before this page");
    assert_eq!(told(Last, 4).await, std::slice::from_ref(&hole));
    assert_eq!(told(Before(at(5, 0)), 1).await, [hole]);
    assert_eq!(told(Before(at(2, 0)), 5).await, []);
}

/// What no gateway acknowledges, such as NUL in a type, but a journal could hold: the event is stored
/// as it is, or is a dead letter with a gap. The others are stored either way.
pub async fn an_odd_event_never_holds_up_its_batch(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let odd = [
        EventParts { kind: Some("nul\0in type"), ..json("1") },
        EventParts { key: Some("\0"), ..json("2") },
        EventParts { id: Some("bell\x07 escape\x1b"), ..json("3") },
        EventParts { data: b"\"nul\0in data\"", ..json("") },
        EventParts { data: b"\"not utf-8 \xff\xfe\"", ..json("") },
        EventParts { data: b"not json", ..json("") },
        EventParts { data: b"", ..json("") },
    ];
    let mut events = vec![json("\"before\"")];
    for event in odd {
        events.extend([event, json("\"between\"")]);
    }
    let frames = vec![
        frame(1, &[("a:x", "alice", &events)]),
        frame(2, &[("a:x", "nul\0user", &[json("\"odd user\"")])]),
        frame(3, &[("a:x", "bob", &[json("\"after\"")])]),
    ];
    worker.persist(&worker.batch(0, frames)).await.expect("the batch is stored");
    assert_eq!(worker.ledger().await.map(|entry| entry.last_seq), Some(3));
    let found = worker.all("a:x").await;
    let page = worker.page("a:x", HistoryQuery::After(START), 100).await;
    let letters = letters(subject).await;
    let usual = found.iter().filter(|event| {
        [&b"\"before\""[..], b"\"between\"", b"\"after\""].contains(&&event.data[..])
    });
    assert_eq!(usual.count(), odd.len() + 2, "the usual events are all there");
    for (index, event) in (0u16..).zip(&odd) {
        let position = at(1, 2 * index + 1);
        let stored = found.iter().find(|stored| stored.position == position);
        let Some(stored) = stored else {
            assert!(letters.iter().any(|letter| letter.position == position
                && !letter.whole_frame
                && letter.channel.as_deref() == Some("a:x")));
            let gap = page.gaps.iter().any(|gap| covers(gap, 1, position.offset.index()));
            assert!(gap, "a missing event is told: {event:?}");
            continue;
        };
        let kind = (stored.kind.as_deref(), stored.key.as_deref(), stored.id.as_deref());
        assert_eq!(kind, (event.kind, event.key, event.id));
        assert_eq!(stored.data, event.data);
    }
    let info = subject.archive.channel(&channel("a:x")).await.expect("the channel is read");
    assert_eq!(info.map(|info| info.count), Some(found.len() as u64), "what is stored is counted");
}
