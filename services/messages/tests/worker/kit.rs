//! What the tests are written in: engines, a writer of frames, and a reader that compares.

use bytes::Bytes;
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{Archive, HistoryQuery};
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig};
use stormwire_core::{Channel, Epoch, FrameSeq, Partition, PartitionCount, Position, SystemClock};
use stormwire_embedded::{Embedded, EmbeddedConfig};
use stormwire_journal::Journal;
use stormwire_journal_nats::{NatsConfig, NatsJournal};
use stormwire_messages::{MessagesConfig, Worker};
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::{Folder, wait_until};
use stormwire_wire::frame::{EventParts, EventsBuilder, FrameBuilder, FrameId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// For archives without a replica, which need not be measured against the journal.
pub(crate) const NOWHERE: Position =
    Position { epoch: Epoch(0), offset: stormwire_core::Offset(0) };
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Engines {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) archive: Arc<dyn Archive>,
    _keep: Box<dyn Any + Send + Sync>,
}

pub(crate) async fn embedded() -> Option<Engines> {
    let folder = Folder::temporary("messages").unwrap();
    let path = folder.path().join(stormwire_embedded::FILE_NAME);
    let engine =
        Embedded::open(path, EmbeddedConfig::default(), Arc::new(SystemClock)).await.unwrap();
    let (journal, archive) = (engine.journal(), engine.archive());
    Some(Engines::of(journal, archive, (folder, engine)))
}

pub(crate) async fn cluster() -> Option<Engines> {
    let (nats, postgres) = (NatsServer::start().await?, Postgres::start().await?);
    let config = NatsConfig { urls: vec![nats.url()], ..NatsConfig::default() };
    let journal = Arc::new(NatsJournal::connect(config).await.unwrap());
    let archive = PostgresArchive::connect(PostgresConfig::new(postgres.url())).await.unwrap();
    archive.migrate().await.unwrap();
    Some(Engines::of(journal, Arc::new(archive), (nats, postgres)))
}

pub(crate) fn config(partitions: u16) -> MessagesConfig {
    MessagesConfig {
        partitions: PartitionCount::new(partitions).unwrap(),
        lease: Duration::from_millis(1_500),
        check_every: Duration::from_millis(100),
        trim_every: Duration::from_millis(100),
        hole_proof: Duration::from_millis(300),
        batch_events: 200,
        ..MessagesConfig::default()
    }
}

/// A worker in a task of its own; dropped, it is killed.
pub(crate) struct Running {
    pub(crate) owned: watch::Receiver<BTreeSet<Partition>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(engines: &Engines, config: MessagesConfig) -> Self {
        let (journal, archive) = (Arc::clone(&engines.journal), Arc::clone(&engines.archive));
        let worker = Worker::new(journal, archive, config, Arc::new(SystemClock));
        let (owned, stop) = (worker.owned(), CancellationToken::new());
        let task = tokio::spawn(worker.run(stop.clone()));
        Self { owned, stop, task }
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn id(counter: u64) -> FrameId {
    FrameId { appender: [9; 16], counter }
}

/// A frame of `events` events on two channels; each event's data tells its frame and place.
pub(crate) fn frame(seq: FrameSeq, events: usize) -> Bytes {
    frame_of(&["a:x", "a:y"].map(|name| Channel::parse(name).unwrap()).each_ref(), seq, events)
}

/// The same on these channels, in turn.
pub(crate) fn frame_of(channels: &[&Channel], seq: FrameSeq, events: usize) -> Bytes {
    let mut builder = FrameBuilder::default();
    for i in 0..events {
        let mut one = EventsBuilder::default();
        let data = format!("[{seq},{i}]");
        one.push(&EventParts { data: data.as_bytes(), ..Default::default() }).unwrap();
        builder.push(channels[i % channels.len()], "u", "p", seq, None, &one.take());
    }
    builder.finish(id(seq))
}

impl Engines {
    pub(crate) fn of(
        journal: Arc<dyn Journal>,
        archive: Arc<dyn Archive>,
        keep: impl Any + Send + Sync,
    ) -> Self {
        Self { journal, archive, _keep: Box::new(keep) }
    }

    /// Appends frames `from` to `to` of 10 events.
    pub(crate) async fn write(&self, partition: Partition, from: FrameSeq, to: FrameSeq) {
        self.journal.open(partition).await.unwrap();
        for seq in from..=to {
            self.append(partition, seq, frame(seq, 10)).await;
        }
    }

    pub(crate) async fn append(&self, partition: Partition, seq: FrameSeq, frame: Bytes) {
        let stored = self.journal.append(partition, Epoch(1), seq - 1, frame).await.unwrap();
        assert_eq!(stored, seq);
    }

    pub(crate) async fn persisted(&self, partition: Partition) -> FrameSeq {
        let ledger = self.archive.ledger(partition).await;
        ledger.ok().flatten().map_or(0, |entry| entry.last_seq)
    }

    pub(crate) async fn wait_persisted(&self, partition: Partition, through: FrameSeq) {
        let what = format!("partition {partition} persisted through {through}");
        wait_until(&what, SOON, || async move { self.persisted(partition).await >= through }).await;
    }

    /// The archive has the events of frames 1 to `through` but `lost`, each once and in order.
    pub(crate) async fn assert_stored(
        &self,
        partition: Partition,
        through: FrameSeq,
        lost: &[FrameSeq],
    ) {
        for (place, name) in ["a:x", "a:y"].into_iter().enumerate() {
            let channel = Channel::parse(name).unwrap();
            let mut found = Vec::new();
            let mut after = Position { epoch: Epoch(0), offset: stormwire_core::Offset(0) };
            loop {
                let query = HistoryQuery::After(after);
                let page = self
                    .archive
                    .history(&channel, partition, query, 1000, 1 << 20, crate::kit::NOWHERE)
                    .await
                    .unwrap();
                let Some(last) = page.events.last() else { break };
                after = last.position;
                found.extend(
                    page.events.iter().map(|e| String::from_utf8(e.data.to_vec()).unwrap()),
                );
            }
            let expected: Vec<_> = (1..=through)
                .filter(|seq| !lost.contains(seq))
                .flat_map(|seq| (place..10).step_by(2).map(move |i| format!("[{seq},{i}]")))
                .collect();
            assert_eq!(found, expected, "{name}");
        }
    }
}
