//! The words of [`Ingest`](super::Ingest)'s callers.

use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{
    Channel, Epoch, FrameSeq, Offset, Partition, PartitionCount, Refusal, Timestamp,
};
use stormwire_journal::Known;
use stormwire_journal::publish::ProducerKey;
use stormwire_wire::frame::{EncodedEvents, TraceContext};

/// Where the answers of a connection go.
pub trait Answers: Send + Sync {
    /// Takes the answer of one submission; called exactly once a ticket. Must not block: it is called
    /// by the task that serves the whole partition.
    fn answer(&self, ticket: u64, answer: Result<Published, Refusal>);
}

/// The producers that are connected to this gateway (B8).
pub trait LiveProducers: Send + Sync {
    /// Whether `producer` is still connected here by the connection that was made at `at`.
    fn is_connected(&self, producer: ProducerKey, at: Timestamp) -> bool;

    /// `producer` has connected to another gateway at `at`: closes its connection here if that is older.
    /// `wins_tie`: of two of the same moment, the other one stays.
    fn connected_elsewhere(&self, producer: ProducerKey, at: Timestamp, wins_tie: bool);
}

/// What the rest of the process, and those it can ask, know of the logs. APPENDER E1: a claim is held
/// against it, so that a journal that has gone back is not written as if nothing had happened.
#[async_trait]
pub trait Witness: Send + Sync + 'static {
    /// What is known of the partition's log now. Answers within a second or so with what it has.
    async fn known(&self, partition: Partition) -> Known;
}

/// Nobody knows anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoWitness;

#[async_trait]
impl Witness for NoWitness {
    async fn known(&self, _partition: Partition) -> Known {
        Known::default()
    }
}

/// One publish: events of one channel, in order.
pub struct Submission {
    /// The connection, unique in this process. Fences are kept by it; [`super::Ingest::closed`] ends it.
    pub connection: u64,
    /// The caller's word for this submission, given back with the answer.
    pub ticket: u64,
    /// Where the events go.
    pub channel: Channel,
    /// Who publishes.
    pub user: Arc<str>,
    /// The producer whose numbers `seq` are; `None` without one.
    pub producer: Option<Arc<str>>,
    /// The producer's number of the first event, from 1; event i has `seq + i`. Ignored without a producer.
    pub seq: u64,
    /// For a repeat: how long ago the client sent it first (see `docs/appender.md`).
    pub again: Option<Duration>,
    /// The events, at least one.
    pub events: EncodedEvents,
    /// The publisher's trace.
    pub trace: Option<TraceContext>,
    /// Who takes the answer.
    pub answers: Arc<dyn Answers>,
}

/// An acknowledged publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The journal's incarnation that the offsets belong to.
    pub epoch: Epoch,
    /// Offset of the first event.
    pub first: Offset,
    /// Offset of the last event.
    pub last: Offset,
    /// Whether this repeats a publish that was stored before; the offsets are the first copy's.
    pub duplicate: bool,
    /// Events that the archive could not store as what they are; known where its receipt was asked for.
    pub dead_letters: u32,
}

/// How publishing is set up.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// This gateway's name, unique among those that live: `[A-Za-z0-9_-]`, up to 64 bytes.
    pub gateway: String,
    /// The cluster's partitions.
    pub partitions: PartitionCount,
    /// How long an idle appender waits for more events before it writes; zero writes at once.
    pub linger: Duration,
    /// When a publish is answered with `unknown_outcome` at the latest. 15 s by default.
    pub publish_deadline: Duration,
    /// Bytes a lane may hold. 8 MiB by default.
    pub lane_bytes_max: usize,
    /// Bytes that one connection may have in a lane. 1 MiB by default.
    pub connection_bytes_max: usize,
    /// Bytes of memory for the tables of producers, over all partitions. 256 MiB by default.
    pub repeats_bytes_max: usize,
}

impl IngestConfig {
    /// The defaults, for a gateway of this name.
    #[must_use]
    pub fn new(gateway: impl Into<String>, partitions: PartitionCount) -> Self {
        Self {
            gateway: gateway.into(),
            partitions,
            linger: Duration::ZERO,
            publish_deadline: Duration::from_secs(15),
            lane_bytes_max: 8 << 20,
            connection_bytes_max: 1 << 20,
            repeats_bytes_max: 256 << 20,
        }
    }
}

/// What this gateway is for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Its appender lives here.
    Owner,
    /// This gateway is about to take it.
    Claiming,
    /// Its appender lives elsewhere; see [`PartitionStatus::owner`].
    Follower,
}

/// How a partition stands, as this gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Which.
    pub partition: Partition,
    /// What this gateway is for it.
    pub role: Role,
    /// The gateway whose appender writes it, if one is known.
    pub owner: Option<String>,
    /// The journal's incarnation, once known.
    pub epoch: Option<Epoch>,
    /// The last frame that this gateway's appender knows of; 0 elsewhere.
    pub last: FrameSeq,
    /// Bytes waiting in this gateway's lane.
    pub lane_bytes: usize,
    /// How long the oldest write of this gateway's appender has been without an answer.
    pub unsettled: Duration,
    /// How far this machine's clock is from the journal's, in milliseconds; known once a claim was made.
    pub clock_skew_ms: Option<i64>,
    /// Why publishes to it are not taken now, if they are not.
    pub problem: Option<String>,
    /// Whether its journal has gone back and waits for an operator.
    pub rewound: bool,
}
