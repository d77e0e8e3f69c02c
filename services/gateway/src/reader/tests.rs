//! Reading in the journal: holes, frames that nobody can read, and a thousand readers at once.

mod journal;

use super::*;
use crate::hub::Standing;
use axum::body::Bytes;
use futures::future::join_all;
use journal::Watched;
use std::sync::atomic::Ordering;
use stormwire_archive::{Batch, Gap, KeyQuery};
use stormwire_core::{FrameSeq, PartitionCount, SystemClock};
use stormwire_embedded::{Embedded, EmbeddedConfig};
use stormwire_testkit::Decorated;
use stormwire_wire::frame::{EventParts, EventsBuilder, FrameBuilder, FrameId};

const P0: Partition = Partition(0);

struct World {
    engine: Embedded,
    journal: Arc<Decorated<Watched>>,
    hub: Arc<Hub>,
    reader: Reader,
    dir: std::path::PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn at(seq: FrameSeq, index: u16) -> Position {
    Position { epoch: Epoch(1), offset: Offset::new(seq, index) }
}

fn frame(seq: FrameSeq, channels: &[&str]) -> Bytes {
    let mut builder = FrameBuilder::default();
    for name in channels {
        let mut events = EventsBuilder::default();
        events.push(&EventParts { data: b"1", ..EventParts::default() }).unwrap();
        builder.push(&channel(name), "alice", "", 0, None, &events.take());
    }
    builder.finish(FrameId { appender: [1; 16], counter: seq })
}

impl World {
    async fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("stormwire-read-{:x}", rand::random::<u64>()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("stormwire.db");
        let engine = Embedded::open(file, EmbeddedConfig::default(), Arc::new(SystemClock));
        let engine = engine.await.unwrap();
        let journal = Watched::new(engine.journal());
        let hub = Arc::new(Hub::new(PartitionCount::new(1).unwrap(), 1 << 20));
        let reader = Reader::new(
            Arc::clone(&hub),
            Arc::clone(&journal) as Arc<dyn Journal>,
            engine.archive(),
            HistoryBounds::default(),
        );
        journal.open(P0).await.unwrap();
        Self { engine, journal, hub, reader, dir }
    }

    /// The same, with a reader that has read nothing yet.
    fn with_another_reader(mut self) -> Self {
        let journal = Arc::clone(&self.journal) as Arc<dyn Journal>;
        let (hub, archive) = (Arc::clone(&self.hub), self.engine.archive());
        self.reader = Reader::new(hub, journal, archive, HistoryBounds::default());
        self
    }

    /// Copies the frames up to `through` into the archive, but for one that is lost.
    async fn persist(&self, through: FrameSeq, lost: Option<FrameSeq>) {
        let stored = self.journal.read(P0, Epoch(1), 1, 1_000, 1 << 20).await.unwrap();
        let frames = stored.into_iter().map(|stored| {
            (stored.seq, stored.ts, stormwire_wire::frame::Frame::decode(&stored.bytes).unwrap())
        });
        let gap = |seq| Gap {
            epoch: Epoch(1),
            from: Offset::new(seq, 0),
            to: Offset::new(seq, 4095),
            reason: "hole".to_owned(),
        };
        let batch = Batch {
            epoch: Epoch(1),
            expected_last: 0,
            through,
            last_frame: None,
            frames: frames.filter(|(seq, ..)| Some(*seq) != lost && *seq <= through).collect(),
            gaps: lost.map(gap).into_iter().collect(),
            undecodable: Vec::new(),
        };
        self.commit(&batch).await;
    }

    async fn commit(&self, batch: &Batch) {
        let archive = self.engine.archive();
        let ttl = Duration::from_secs(60);
        let lease = archive.acquire("w", PartitionCount::new(1).unwrap(), 1, ttl).await.unwrap();
        archive.persist(&lease[0], batch).await.unwrap();
        archive.release(&lease[0]).await.unwrap();
    }

    async fn append(&self, frame: Bytes) {
        let last = self.journal.tip(P0).await.unwrap().last;
        self.journal.append(P0, Epoch(1), last, frame).await.unwrap();
    }

    /// What one is told from `from` on, by the reader's own pages.
    async fn told(&self, selection: &Selection, from: Position) -> Vec<Told> {
        Self::told_by(&self.reader, selection, from).await
    }

    async fn told_by(reader: &Reader, selection: &Selection, mut from: Position) -> Vec<Told> {
        let mut told = Vec::new();
        loop {
            let page = reader.after(selection, from, 3, 1 << 20).await.unwrap();
            let (next, more) = (page.next.unwrap(), page.more);
            told.extend(page.into_told());
            if !more || next == from {
                return told;
            }
            from = next;
        }
    }
}

fn places(told: &[Told]) -> Vec<String> {
    let place = |told: &Told| match told {
        Told::Event(event) => format!("{}", event.position.offset.seq()),
        Told::Gap(from, to) => format!("gap {}..{}", from.offset.seq(), to.offset.seq()),
    };
    told.iter().map(place).collect()
}

#[tokio::test]
async fn a_hole_and_a_frame_that_nobody_can_read_are_gaps_in_their_place() {
    let world = World::new().await;
    for seq in 1..=9 {
        let bytes = if seq == 7 { Bytes::from_static(b"rubbish") } else { frame(seq, &["a:x"]) };
        world.append(bytes).await;
    }
    world.journal.lose([3, 4]);
    for selection in [Selection::Channel(channel("a:x")), Selection::Prefix(P0, "a:".into())] {
        let told = world.told(&selection, START).await;
        assert_eq!(places(&told), ["1", "2", "gap 2..4", "5", "6", "gap 6..7", "8", "9"]);
        let inside = world.told(&selection, at(3, 7)).await;
        assert_eq!(places(&inside), ["gap 3..4", "5", "6", "gap 6..7", "8", "9"]);
    }
    // A frame that is merely late in one answer is no hole.
    world.journal.find_all();
    world.journal.hide([3, 4]);
    let world = world.with_another_reader();
    let told = world.told(&Selection::Channel(channel("a:x")), START).await;
    assert_eq!(places(&told)[..5], ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn what_is_trimmed_while_it_is_read_comes_from_the_archive() {
    let world = World::new().await;
    for seq in 1..=9 {
        world.append(frame(seq, &["a:x"])).await;
    }
    world.persist(7, Some(4)).await;
    world.journal.trim(P0, Epoch(1), 7).await.unwrap();
    for selection in [Selection::Channel(channel("a:x")), Selection::Prefix(P0, "a:".into())] {
        let told = world.told(&selection, START).await;
        assert_eq!(places(&told), ["1", "2", "3", "gap 3..4", "5", "6", "7", "8", "9"]);
    }
    // Between the archive's answer and the journal's: the next page goes to the archive again.
    let selection = Selection::Channel(channel("a:x"));
    let page = world
        .reader
        .scan_after(P0, &selection, at(2, 4095), (10, 1 << 20), Instant::now())
        .await
        .unwrap();
    assert!(page.events.is_empty() && page.gaps.is_empty() && page.more, "{page:?}");
    assert_eq!(page.next, Some(at(2, 4095)));
}

/// An epoch that is over may be copied and removed between the archive's answer and the journal's.
#[tokio::test]
async fn a_log_that_goes_while_it_is_read_is_no_gap() {
    let world = World::new().await;
    for seq in 1..=4 {
        world.append(frame(seq, &["a:x"])).await;
    }
    let id = FrameId { appender: [2; 16], counter: 1 };
    world.append(stormwire_wire::frame::close(id, Epoch(2), 100, None)).await;
    world.persist(5, None).await;
    // A worker goes on where the next epoch begins before anybody removes the log.
    let next = Batch {
        epoch: Epoch(2),
        expected_last: 5,
        through: 99,
        last_frame: None,
        frames: Vec::new(),
        gaps: Vec::new(),
        undecodable: Vec::new(),
    };
    world.commit(&next).await;
    world.journal.begin(P0, Epoch(2), 100).await.unwrap();
    world.journal.remove(P0, Epoch(1)).await.unwrap();
    world.journal.append(P0, Epoch(2), 99, frame(100, &["a:x"])).await.unwrap();
    let selection = Selection::Channel(channel("a:x"));
    let after = async |from| {
        let bounds = (10, 1 << 20);
        world.reader.scan_after(P0, &selection, from, bounds, Instant::now()).await.unwrap()
    };
    let page = after(at(2, 4095)).await;
    assert!(page.events.is_empty() && page.gaps.is_empty() && page.more, "{page:?}");
    assert_eq!(page.next, Some(at(2, 4095)), "the next page goes to the archive again");
    assert_eq!(places(&world.told(&selection, START).await), ["1", "2", "3", "4", "100"]);
}

/// The recent frames are asked only if they reach as far as the journal says that it goes.
#[tokio::test]
async fn the_newest_event_is_not_looked_for_in_recent_frames_that_stop_short() {
    let world = World::new().await;
    let keyed = |seq: FrameSeq| {
        let (mut builder, mut events) = (FrameBuilder::default(), EventsBuilder::default());
        let event = EventParts { data: b"1", key: Some("k"), ..EventParts::default() };
        events.push(&event).unwrap();
        builder.push(&channel("a:x"), "alice", "", 0, None, &events.take());
        builder.finish(FrameId { appender: [1; 16], counter: seq })
    };
    let feed = &world.hub.feeds()[0];
    feed.start(Standing { epoch: Epoch(1), last: 0 });
    let deliver = |seq: FrameSeq| {
        let bytes = keyed(seq);
        let frame = stormwire_wire::frame::Frame::decode(&bytes).unwrap();
        feed.deliver(seq, stormwire_core::Timestamp(1_000), &frame, bytes.len());
    };
    let newest = async || {
        let of = [
            Latest::OfChannel,
            Latest::OfKeys(KeyQuery::Of("k".to_owned())),
            Latest::OfKeys(KeyQuery::After(None)),
        ];
        let mut found = Vec::new();
        for latest in of {
            let page = world.reader.latest(&channel("a:x"), &latest, 10, 1 << 20).await.unwrap();
            found.extend(page.events.iter().map(|event| event.position.offset.seq()));
        }
        found
    };
    for seq in 1..=3 {
        world.append(keyed(seq)).await;
    }
    // The tail is two frames behind: acknowledged is acknowledged.
    deliver(1);
    assert_eq!(newest().await, [3, 3, 3]);
    deliver(2);
    deliver(3);
    let before = world.journal.reads.load(Ordering::Relaxed);
    assert_eq!(newest().await, [3, 3, 3]);
    assert_eq!(world.journal.reads.load(Ordering::Relaxed), before, "from memory");
}

/// What is made of a page counts as the read does: the next one reads when the page is gone.
#[tokio::test]
async fn a_turn_lasts_as_long_as_its_page() {
    let world = World::new().await;
    for seq in 1..=3 {
        world.append(frame(seq, &["a:x"])).await;
    }
    let bounds = HistoryBounds { reads: 1, waiting: 4, threads: 0 };
    let journal = Arc::clone(&world.journal) as Arc<dyn Journal>;
    let reader = Reader::new(Arc::clone(&world.hub), journal, world.engine.archive(), bounds);
    let selection = Selection::Channel(channel("a:x"));
    let one = async || reader.after(&selection, START, 10, 1 << 20).await.unwrap();
    let last = async || reader.before(&channel("a:x"), None, 10, 1 << 20).await.unwrap();
    let is_held = async || {
        let before = reader.turns.counts();
        let mut waits = std::pin::pin!(one());
        assert!(futures::poll!(&mut waits).is_pending());
        reader.turns.counts() == (1, before.1 + 1)
    };
    let page = one().await;
    assert!(is_held().await);
    let told = page.into_told();
    assert!(is_held().await, "until all of it is told");
    drop(told);
    let page = last().await;
    assert!(is_held().await);
    drop(page);
    assert_eq!(reader.turns.counts(), (0, 0));
    assert_eq!(one().await.events.len(), 3);
}

/// `catch-up-herd`: a thousand parked readers of quiet channels cost a handful of reads, not a thousand.
#[tokio::test]
async fn a_thousand_readers_of_quiet_channels_share_their_reads() {
    const READERS: usize = 1_000;
    let world = World::new().await;
    // A busy log in which each of the thousand has one event.
    for seq in 0..200u64 {
        let quiet = (seq * 5..seq * 5 + 5).map(|reader| format!("quiet:{reader}"));
        let names: Vec<String> = std::iter::once("busy:x".to_owned()).chain(quiet).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        world.append(frame(seq + 1, &names)).await;
    }
    let standing = Standing { epoch: Epoch(1), last: 200 };
    world.hub.feeds()[0].start(standing);
    let reads = || world.journal.reads.load(Ordering::Relaxed);
    let tips = || world.journal.tips.load(Ordering::Relaxed);
    let before = (reads(), tips());
    let one = async |reader: usize| {
        let selection = Selection::Channel(channel(&format!("quiet:{reader}")));
        let line = Who::connection(reader as u64);
        World::told_by(&world.reader.of(line), &selection, START).await
    };
    let all = join_all((0..READERS).map(one)).await;
    for (reader, told) in all.iter().enumerate() {
        let [Told::Event(event)] = &told[..] else { panic!("{reader}: {told:?}") };
        assert_eq!(event.position.offset.seq(), reader as u64 / 5 + 1);
    }
    let (reads, tips) = (reads() - before.0, tips() - before.1);
    println!("{READERS} readers: {reads} reads and {tips} tips of the journal");
    assert!(reads < 40 && tips < 40, "{reads} reads and {tips} tips for {READERS} readers");
}
