use super::saved::LOADS_MAX;
use super::*;
use crate::port::{JournalError, SavedTable};
use crate::repeats::{Numbers, Verdict};
use bytes::Bytes;
use stormwire_core::{Channel, Partition};
use stormwire_wire::frame::{EventParts, EventsBuilder, FrameBuilder, FrameId};

fn now() -> Now {
    Now { mono: Duration::from_secs(1), wall: Timestamp(2_000_000_000) }
}

/// Frame `seq` with one event, number `seq` of producer "p", written `age` seconds ago.
fn frame(seq: FrameSeq, age: i64) -> StoredFrame {
    let mut events = EventsBuilder::default();
    events.push(&EventParts { data: b"1", ..Default::default() }).unwrap();
    let mut builder = FrameBuilder::default();
    let channel = Channel::parse("x:y").unwrap();
    builder.push(&channel, "alice", "p", seq, None, &events.take());
    let bytes = builder.finish(FrameId { appender: [1; 16], counter: seq });
    let ts = Timestamp(now().wall.0 - age * 1000);
    StoredFrame { partition: Partition(0), epoch: Epoch::FIRST, seq, ts, bytes }
}

fn tip(first: FrameSeq, last: FrameSeq) -> Tip {
    Tip { epoch: Epoch::FIRST, first, last, bytes: 0, bytes_max: 0 }
}

/// Reads a log of these frames to its end; `holes` are not there.
fn read(frames: &[StoredFrame], first: FrameSeq, holes: &[FrameSeq]) -> (Rebuild, usize) {
    let mut rebuild = Rebuild::new(1 << 20, Known::default());
    let last = frames.last().map_or(0, |frame| frame.seq);
    let there = |seq: FrameSeq| {
        let found = frames.iter().find(|frame| frame.seq == seq && seq >= first);
        found.filter(|_| !holes.contains(&seq)).cloned()
    };
    for ops in 1..1000 {
        let result = match rebuild.op(now().mono) {
            Err(_) => return (rebuild, ops),
            Ok(Op::Open) => OpResult::Opened(Ok(tip(first, last))),
            Ok(Op::LoadTable) => OpResult::Loaded(Ok(None)),
            Ok(Op::Find { seq, .. }) => OpResult::Found(Ok(
                there(seq).map_or(Found::Absent(tip(first, last)), Found::Frame)
            )),
            Ok(Op::Read { from, .. }) => {
                let found = (from..=last).filter_map(there).take(10).collect();
                OpResult::Read(Ok(found))
            }
            Ok(Op::Append { .. } | Op::Begin { .. }) => panic!("reading writes nothing"),
        };
        rebuild.complete(now(), result);
    }
    panic!("it never ends")
}

fn judge(rebuild: &Rebuild, seq: u64, age: i64) -> Verdict {
    let key = ProducerKey::of("alice", "p");
    let slot = rebuild.repeats.find(key);
    let first_sent = Some(Timestamp(now().wall.0 - age * 1000));
    rebuild.repeats.judge(key, slot, Numbers { seq, count: 1, first_sent })
}

#[test]
fn a_log_from_its_beginning_covers_everything() {
    let (empty, _) = read(&[], 1, &[]);
    assert_eq!(empty.end(), Some(LogEnd { epoch: Epoch::FIRST, last: 0, written: None }));
    assert_eq!(judge(&empty, 1, 100_000), Verdict::Append { skip: 0, first: None });
    let frames: Vec<_> = (1..=30).map(|seq| frame(seq, 60)).collect();
    let (rebuild, _) = read(&frames, 1, &[]);
    let at = Offset::new(7, 0);
    assert_eq!(judge(&rebuild, 7, 60), Verdict::Duplicate { first: at, last: at });
    assert_eq!(rebuild.end().unwrap().written, Some(frames[29].ts));
}

#[test]
fn b3_what_was_trimmed_is_not_covered() {
    let frames: Vec<_> = (1..=30).map(|seq| frame(seq, 100 - seq as i64)).collect();
    let (rebuild, _) = read(&frames, 20, &[]);
    assert_eq!(rebuild.repeats.horizon(), frames[19].ts);
    assert_eq!(judge(&rebuild, 31, 90), Verdict::Forgotten);
    let (gone, _) = read(&frames, 31, &[]);
    assert_eq!(gone.repeats.horizon(), now().wall);
}

#[test]
fn only_frames_since_the_horizon_are_read() {
    let frames: Vec<_> = (1..=400).map(|seq| frame(seq, (400 - seq as i64) * 10)).collect();
    let (rebuild, ops) = read(&frames, 1, &[]);
    assert!(ops < 30, "{ops} operations");
    assert_eq!(rebuild.repeats.horizon(), Timestamp(now().wall.0 - 600_000));
    let at = Offset::new(345, 0);
    assert_eq!(judge(&rebuild, 345, 550), Verdict::Duplicate { first: at, last: at });
    assert_eq!(judge(&rebuild, 339, 610), Verdict::Forgotten);
}

#[test]
fn a_proved_hole_is_passed_over_and_a_lagging_reader_is_not_a_hole() {
    let frames: Vec<_> = (1..=9).map(|seq| frame(seq, 60)).collect();
    let (rebuild, _) = read(&frames, 1, &[4, 5]);
    assert_eq!(rebuild.end().unwrap().last, 9);
    assert_eq!(judge(&rebuild, 4, 60), Verdict::UnknownOutcome);
    // Nothing read, "not there", and a tip above it: two answers that know differently much.
    let mut lagging = Rebuild::new(1 << 20, Known::default());
    lagging.complete(now(), OpResult::Opened(Ok(tip(1, 3))));
    lagging.complete(now(), OpResult::Loaded(Ok(None)));
    lagging.complete(now(), OpResult::Read(Ok(Vec::new())));
    lagging.complete(now(), OpResult::Found(Ok(Found::Absent(tip(1, 3)))));
    assert_eq!(lagging.next, 1);
    assert_eq!(lagging.end(), None);
}

#[test]
fn d3_after_a_refused_claim_only_the_new_frames_are_read() {
    let frames: Vec<_> = (1..=5).map(|seq| frame(seq, 60)).collect();
    let (mut rebuild, _) = read(&frames, 1, &[]);
    rebuild.refresh();
    assert_eq!(rebuild.end(), None);
    rebuild.complete(now(), OpResult::Opened(Ok(tip(1, 6))));
    let read_on = Op::Read { epoch: Epoch::FIRST, from: 6 };
    assert_eq!(rebuild.op(now().mono), Ok(read_on));
    rebuild.complete(now(), OpResult::Read(Ok(vec![frame(6, 1)])));
    assert_eq!(rebuild.end().unwrap().last, 6);
}

#[test]
fn a_newer_version_stops_and_an_error_is_tried_again() {
    let mut rebuild = Rebuild::new(1 << 20, Known::default());
    let away = || JournalError::Unavailable("away".to_owned());
    rebuild.complete(now(), OpResult::Opened(Err(away())));
    assert!(rebuild.problem.is_some());
    assert_eq!(rebuild.op(now().mono), Err(Some(now().mono + RETRY)));
    assert_eq!(rebuild.op(now().mono + RETRY), Ok(Op::Open));
    let mut newer = frame(1, 1);
    let mut bytes = newer.bytes.to_vec();
    bytes[1] = 200;
    newer.bytes = Bytes::from(bytes);
    let (rebuild, _) = read(&[newer], 1, &[]);
    assert_eq!(rebuild.end(), None);
    assert!(rebuild.problem.unwrap().contains("200"));
    // Rubbish was never acknowledged to anybody as events.
    let rubbish = StoredFrame { bytes: Bytes::from_static(b"x"), ..frame(1, 1) };
    assert_eq!(read(&[rubbish], 1, &[]).0.end().unwrap().last, 1);
}

/// A table that counts frames 1 to `through`, all of producer "p", as it was saved.
fn saved(frames: &[StoredFrame], through: FrameSeq, appender: u8) -> SavedTable {
    let (rebuild, _) = read(&frames[..usize::try_from(through).unwrap()], 1, &[]);
    let last = FrameId { appender: [appender; 16], counter: through };
    SavedTable { epoch: Epoch::FIRST, through, bytes: rebuild.repeats.image(last) }
}

/// Reads with a saved table, and says which frames were asked for.
fn read_with(
    table: Option<SavedTable>,
    frames: &[StoredFrame],
    first: FrameSeq,
) -> (Rebuild, Vec<FrameSeq>) {
    let mut rebuild = Rebuild::new(1 << 20, Known::default());
    let (last, mut asked) = (frames.last().unwrap().seq, Vec::new());
    let there = |seq: FrameSeq| frames.iter().find(|frame| frame.seq == seq && seq >= first);
    while let Ok(op) = rebuild.op(now().mono + RETRY) {
        let result = match op {
            Op::Open => OpResult::Opened(Ok(tip(first, last))),
            Op::LoadTable => OpResult::Loaded(Ok(table.clone())),
            Op::Find { seq, .. } => {
                let found = there(seq).cloned();
                OpResult::Found(Ok(found.map_or(Found::Absent(tip(first, last)), Found::Frame)))
            }
            Op::Read { from, .. } => {
                asked.push(from);
                OpResult::Read(Ok((from..=last).filter_map(there).cloned().collect()))
            }
            // E1: the word that the log has gone back.
            Op::Append { .. } => return (rebuild, asked),
            Op::Begin { .. } => panic!("no epoch has ended"),
        };
        rebuild.complete(now(), result);
    }
    (rebuild, asked)
}

#[test]
fn b7_a_claim_reads_the_saved_table_and_only_the_frames_behind_it() {
    let frames: Vec<_> = (1..=30).map(|seq| frame(seq, 60)).collect();
    // All before the table's last frame was trimmed, and still everything is covered.
    let (rebuild, asked) = read_with(Some(saved(&frames, 20, 1)), &frames, 20);
    assert_eq!(asked, [21]);
    assert_eq!(rebuild.end().unwrap().last, 30);
    for seq in 1..=30 {
        let at = Offset::new(seq, 0);
        assert_eq!(judge(&rebuild, seq, 60), Verdict::Duplicate { first: at, last: at });
    }
    assert_eq!(judge(&rebuild, 31, 60), Verdict::Append { skip: 0, first: None });
    let (whole, asked) = read_with(Some(saved(&frames, 30, 1)), &frames, 30);
    assert!(asked.is_empty());
    assert_eq!(whole.end().unwrap().written, Some(frames[29].ts));
}

#[test]
fn b7_a_table_that_does_not_belong_to_the_log_is_none() {
    let frames: Vec<_> = (1..=30).map(|seq| frame(seq, 60)).collect();
    let good = saved(&frames, 20, 1);
    let another = saved(&frames, 20, 2);
    let ahead = SavedTable { through: 31, ..good.clone() };
    let other_epoch = SavedTable { epoch: Epoch(2), ..good.clone() };
    let torn = SavedTable { bytes: good.bytes.slice(..good.bytes.len() - 1), ..good.clone() };
    for (bad, gone_back) in [(another, true), (ahead, true), (other_epoch, false), (torn, false)] {
        let (rebuild, asked) = read_with(Some(bad), &frames, 1);
        // E1: a table that counts a frame which is not in the log says that it was.
        assert_eq!(rebuild.end().is_none(), gone_back);
        assert_eq!(asked[0], 1, "the log is read from its beginning");
        let at = Offset::new(30, 0);
        assert_eq!(judge(&rebuild, 30, 60), Verdict::Duplicate { first: at, last: at });
    }
    // Trimmed behind the table: it cannot be compared, and what was trimmed is not covered.
    let (rebuild, asked) = read_with(Some(good), &frames, 25);
    assert_eq!(asked, [25]);
    assert_eq!(rebuild.repeats.horizon(), frames[24].ts);
}

#[test]
fn b7_where_the_saved_table_cannot_be_read_the_log_is() {
    let mut rebuild = Rebuild::new(1 << 20, Known::default());
    let later = Now { mono: now().mono + RETRY, ..now() };
    for _ in 0..LOADS_MAX {
        assert_eq!(rebuild.op(later.mono), Ok(Op::Open));
        rebuild.complete(now(), OpResult::Opened(Ok(tip(1, 9))));
        assert_eq!(rebuild.op(later.mono), Ok(Op::LoadTable));
        let away = JournalError::Unavailable("away".to_owned());
        rebuild.complete(now(), OpResult::Loaded(Err(away)));
    }
    assert_eq!(rebuild.op(later.mono), Ok(Op::Read { epoch: Epoch::FIRST, from: 1 }));
}

#[test]
fn b7_a_leader_that_is_behind_does_not_cost_the_table() {
    let frames: Vec<_> = (1..=30).map(|seq| frame(seq, 60)).collect();
    let table = saved(&frames, 20, 1);
    let mut rebuild = Rebuild::new(1 << 20, Known::default());
    rebuild.complete(now(), OpResult::Opened(Ok(tip(15, 19))));
    rebuild.complete(now(), OpResult::Loaded(Ok(Some(table.clone()))));
    let later = now().mono + RETRY;
    assert_eq!(rebuild.op(later), Ok(Op::Open), "the table is ahead of what it says");
    rebuild.complete(now(), OpResult::Opened(Ok(tip(15, 30))));
    rebuild.complete(now(), OpResult::Loaded(Ok(Some(table.clone()))));
    assert_eq!(rebuild.op(later), Ok(Op::Find { epoch: Epoch::FIRST, seq: 20 }));
    rebuild.complete(now(), OpResult::Found(Ok(Found::Frame(frames[19].clone()))));
    assert_eq!(rebuild.op(later), Ok(Op::Read { epoch: Epoch::FIRST, from: 21 }));
}

/// The log is never trimmed past the table that was saved last, but past one that was loaded before that.
#[test]
fn b7_what_is_trimmed_while_the_log_is_read_is_in_a_newer_table() {
    let frames: Vec<_> = (1..=30).map(|seq| frame(seq, 60)).collect();
    let (old, new) = (saved(&frames, 20, 1), saved(&frames, 28, 1));
    let found = |seq: usize| OpResult::Found(Ok(Found::Frame(frames[seq - 1].clone())));
    let trimmed = || OpResult::Found(Ok(Found::Absent(tip(28, 30))));
    let begin = |rebuild: &mut Rebuild, first, table: &SavedTable| {
        assert_eq!(rebuild.op(now().mono), Ok(Op::Open));
        rebuild.complete(now(), OpResult::Opened(Ok(tip(first, 30))));
        assert_eq!(rebuild.op(now().mono), Ok(Op::LoadTable));
        rebuild.complete(now(), OpResult::Loaded(Ok(Some(table.clone()))));
    };
    let end = |rebuild: &mut Rebuild| {
        begin(rebuild, 28, &new);
        rebuild.complete(now(), found(28));
        rebuild.complete(now(), OpResult::Read(Ok(frames[28..].to_vec())));
        assert_eq!(rebuild.end().unwrap().last, 30);
        let at = Offset::new(7, 0);
        assert_eq!(judge(rebuild, 7, 60), Verdict::Duplicate { first: at, last: at });
        assert_eq!(judge(rebuild, 31, 60), Verdict::Append { skip: 0, first: None });
    };
    // Between the table's answer and that of its last frame.
    let mut before = Rebuild::new(1 << 20, Known::default());
    begin(&mut before, 1, &old);
    before.complete(now(), trimmed());
    end(&mut before);
    // While the frames behind the table are read.
    let mut behind = Rebuild::new(1 << 20, Known::default());
    begin(&mut behind, 1, &old);
    behind.complete(now(), found(20));
    behind.complete(now(), OpResult::Read(Ok(frames[27..].to_vec())));
    behind.complete(now(), trimmed());
    end(&mut behind);
    // After a refused claim, where it has gone on for long without this one (D3).
    let (mut after, _) = read(&frames[..10], 1, &[]);
    after.refresh();
    after.complete(now(), OpResult::Opened(Ok(tip(28, 30))));
    after.complete(now(), OpResult::Read(Ok(frames[27..].to_vec())));
    after.complete(now(), trimmed());
    end(&mut after);
    // Again and again: then with less.
    let mut less = Rebuild::new(1 << 20, Known::default());
    for _ in 1..LOADS_MAX {
        begin(&mut less, 1, &old);
        less.complete(now(), trimmed());
    }
    begin(&mut less, 1, &old);
    less.complete(now(), trimmed());
    assert_eq!(less.op(now().mono), Ok(Op::Read { epoch: Epoch::FIRST, from: 1 }));
    less.complete(now(), OpResult::Read(Ok(frames[27..].to_vec())));
    less.complete(now(), trimmed());
    less.complete(now(), OpResult::Read(Ok(frames[27..].to_vec())));
    // E1: the frame that the old table ends with is held against the log.
    assert!(matches!(less.op(now().mono), Ok(Op::Find { seq: 20, .. })));
    less.complete(now(), trimmed());
    assert_eq!(less.end().unwrap().last, 30);
    assert_eq!(less.repeats.horizon(), frames[27].ts);
}

/// A frame of another kind at `seq`.
fn special(seq: FrameSeq, bytes: Bytes) -> StoredFrame {
    StoredFrame { bytes, ..frame(seq, 1) }
}

/// Reads a log whose producer of frames is known to have reached `known`; the op after the reading.
fn held_against(known: Known, frames: &[StoredFrame]) -> (Rebuild, Option<Op>) {
    let mut rebuild = Rebuild::new(1 << 20, known);
    let last = frames.last().map_or(0, |frame| frame.seq);
    let there = |seq: FrameSeq| frames.iter().find(|frame| frame.seq == seq).cloned();
    loop {
        let result = match rebuild.op(now().mono) {
            Ok(Op::Open) => OpResult::Opened(Ok(tip(1, last))),
            Ok(Op::LoadTable) => OpResult::Loaded(Ok(None)),
            Ok(Op::Read { from, .. }) => {
                OpResult::Read(Ok((from..=last).filter_map(there).collect()))
            }
            Ok(Op::Find { seq, .. }) => {
                OpResult::Found(Ok(there(seq).map_or(Found::Absent(tip(1, last)), Found::Frame)))
            }
            Ok(op @ (Op::Append { .. } | Op::Begin { .. })) => return (rebuild, Some(op)),
            Err(_) => return (rebuild, None),
        };
        rebuild.complete(now(), result);
    }
}

fn proves(op: Option<Op>, last: FrameSeq, lost_from: FrameSeq, seen: FrameSeq) {
    let due = stormwire_wire::frame::rewound(lost_from, seen);
    assert_eq!(op, Some(Op::Append { epoch: Epoch::FIRST, expected_last: last, frame: due }));
}

#[test]
fn e1_a_log_that_lacks_what_is_known_of_it_is_not_claimed() {
    let frames: Vec<_> = (1..=9).map(|seq| frame(seq, 1)).collect();
    let (sound, op) = held_against(Known::default(), &frames);
    assert!(op.is_none() && sound.end().is_some());
    // Somebody saw frame 12; the archive has frame 9 of somebody else; a later epoch was there.
    let mut seen = Known::default();
    seen.saw(Epoch::FIRST, 12);
    let (rebuild, op) = held_against(seen, &frames);
    proves(op, 9, 10, 12);
    assert_eq!(rebuild.end(), None);
    let mut archived = Known::default();
    archived.keep(Epoch::FIRST, 9, FrameId { appender: [2; 16], counter: 9 });
    proves(held_against(archived, &frames).1, 9, 10, 9);
    let mut same = Known::default();
    same.keep(Epoch::FIRST, 9, FrameId { appender: [1; 16], counter: 9 });
    assert!(held_against(same, &frames).0.end().is_some(), "the archive has the same frame");
    let mut later = Known::default();
    later.saw(Epoch(2), 700);
    proves(held_against(later, &frames).1, 9, 10, 700);
}

/// An answer of a leader that is behind names an earlier end than the frames show.
#[test]
fn e1_a_claim_follows_all_that_was_read() {
    let frames: Vec<_> = (1..=6).map(|seq| frame(seq, 60)).collect();
    let mut rebuild = Rebuild::new(1 << 20, Known::default());
    rebuild.complete(now(), OpResult::Opened(Ok(tip(1, 3))));
    rebuild.complete(now(), OpResult::Loaded(Ok(None)));
    rebuild.complete(now(), OpResult::Read(Ok(frames)));
    assert_eq!(rebuild.end().unwrap().last, 6);
}

#[test]
fn e1_a_log_that_says_it_has_gone_back_is_not_claimed_by_anybody() {
    let word = special(4, stormwire_wire::frame::rewound(4, 8));
    let frames: Vec<_> = (1..=3).map(|seq| frame(seq, 1)).chain([word]).collect();
    let (mut rebuild, op) = held_against(Known::default(), &frames);
    assert!(op.is_none() && rebuild.end().is_none() && rebuild.is_rewound());
    assert!(rebuild.problem.as_ref().is_some_and(|problem| problem.contains("gone back")));
    rebuild.refresh();
    assert_eq!(rebuild.op(now().mono + STUCK_RETRY), Ok(Op::Open), "an operator may have acted");
    // Who knows more adds it; what lands late behind the word does not make it forgotten.
    let mut more = Known::default();
    more.saw(Epoch::FIRST, 11);
    proves(held_against(more, &frames).1, 4, 4, 11);
    let late: Vec<_> = frames.into_iter().chain([frame(5, 0)]).collect();
    proves(held_against(Known::default(), &late).1, 5, 4, 8);
}

#[test]
fn e3_a_close_leads_to_the_log_that_it_names() {
    let id = FrameId { appender: [3; 16], counter: 1 };
    let end = special(3, stormwire_wire::frame::close(id, Epoch(2), 500, None));
    let frames: Vec<_> = (1..=2).map(|seq| frame(seq, 1)).chain([end]).collect();
    let mut known = Known::default();
    known.saw(Epoch::FIRST, 3);
    let (mut rebuild, op) = held_against(known, &frames);
    assert_eq!(op, Some(Op::Begin { epoch: Epoch(2), first: 500 }));
    let begun = Tip { epoch: Epoch(2), ..tip(500, 499) };
    rebuild.complete(now(), OpResult::Opened(Ok(begun)));
    while let Ok(op) = rebuild.op(now().mono) {
        assert_eq!(op, Op::LoadTable);
        rebuild.complete(now(), OpResult::Loaded(Ok(None)));
    }
    let end = rebuild.end().unwrap();
    assert_eq!((end.epoch, end.last), (Epoch(2), 499));
    assert_eq!(rebuild.repeats.horizon(), now().wall, "repeats do not reach over epochs");
}
