//! [`NatsJournal`]: the journal's port, put together from its parts.

use crate::api::{Api, NO_ROOM, Refusal, STREAM_DIFFERS, STREAM_NOT_FOUND};
use crate::append::Appends;
use crate::backlog::Backlog;
use crate::caller::{CallError, Caller};
use crate::config::{NatsConfig, NatsError};
use crate::link::Link;
use crate::names;
use crate::read::{self, Log, Reads};
use crate::settings;
use crate::tables;
use crate::tail;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_guard::{BreakerState, Guard, GuardConfig};
use stormwire_journal::{AppendError, Journal, JournalError, SavedTable, StoredFrame, Tail, Tip};
use tokio::time::Instant;

/// Answers that wait to be read, a connection: acknowledgements are small, pages are bounded elsewhere.
const ANSWERS_WAITING_MAX: usize = 16 * 1024;
/// Live messages that wait for the tail's task, a partition.
const LIVE_WAITING_MAX: usize = 4 * 1024;
/// How long a partition's epoch is taken for current without asking.
const EPOCH_FRESH_FOR: Duration = Duration::from_secs(5);
/// Longest time to make a stream: a new group of replicas elects its first leader meanwhile.
const CREATE_DEADLINE: Duration = Duration::from_secs(10);
/// A stream's leader that is cut off from the others steps down when it finds that it has not heard of
/// them for ten seconds, and it looks every ten seconds (`lostQuorumInterval` and
/// `lostQuorumCheckInterval` of nats-server's `raft.go`).
const STALE_MAX: Duration = Duration::from_secs(22);

/// The journal on JetStream.
pub struct NatsJournal {
    config: NatsConfig,
    appends: Appends,
    api: Arc<Api>,
    reads: Reads,
    tails: Arc<Caller>,
    backlog: Backlog,
    epochs: Mutex<HashMap<Partition, (Epoch, Instant)>>,
    /// Whether the stream of tables was found as it should be.
    tables_fit: AtomicBool,
}

/// What JetStream tells about a stream.
#[derive(Deserialize)]
struct StreamInfo {
    config: Value,
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamState {
    messages: u64,
    bytes: u64,
    first_seq: FrameSeq,
    last_seq: FrameSeq,
}

#[derive(Deserialize)]
struct StreamNames {
    streams: Option<Vec<String>>,
}

impl NatsJournal {
    /// Starts its connections and waits for them for a second. If NATS is not there they keep trying, and
    /// [`Journal::ping`] says what is wrong.
    ///
    /// # Errors
    /// [`NatsError`]: a configuration that cannot be used.
    pub async fn connect(config: NatsConfig) -> Result<Self, NatsError> {
        let guards = |dependency, deadline| {
            let config = GuardConfig {
                deadline,
                // One stream without a leader must not shut off the others for long.
                open_after: 10,
                open_for: Duration::from_millis(500),
                ..GuardConfig::default()
            };
            Guard::new(dependency, config)
        };
        let caller = async |purpose, capacity| {
            let link = Link::connect(&config, purpose, capacity).await?;
            Caller::new(link).await.map_err(|error| NatsError::Start(error.to_string()))
        };
        let appends = Appends::new(
            caller("append", ANSWERS_WAITING_MAX).await?,
            guards("nats_append", config.append_deadline),
        );
        let api = Arc::new(Api::new(
            caller("read", ANSWERS_WAITING_MAX).await?,
            guards("nats", config.deadline),
        ));
        let tails = Arc::new(caller("tail", LIVE_WAITING_MAX).await?);
        for caller in [appends.caller(), api.caller(), &*tails] {
            caller.link().settle().await;
        }
        let backlog = Backlog::start(Arc::clone(&api));
        Ok(Self {
            config,
            appends,
            api,
            reads: Reads::new(),
            tails,
            backlog,
            epochs: Mutex::default(),
            tables_fit: AtomicBool::new(false),
        })
    }

    /// The breakers of appends and of all other calls.
    #[must_use]
    pub fn breakers(&self) -> [(&'static str, BreakerState); 2] {
        [self.appends.guard(), self.api.guard()].map(|guard| (guard.dependency(), guard.state()))
    }

    /// The epochs of which there are streams, ascending, by the cluster's own list.
    async fn find_epochs(&self, partition: Partition) -> Result<Vec<Epoch>, JournalError> {
        let filter = json!({ "subject": names::events_of_all_epochs(partition) });
        let found: StreamNames = self.api.ask("epoch", "STREAM.NAMES", &filter).await??;
        let ours = found.streams.unwrap_or_default();
        let epochs = ours.iter().filter_map(|name| names::parse_stream(name));
        let mut epochs: Vec<Epoch> =
            epochs.filter(|(of, _)| *of == partition).map(|(_, epoch)| epoch).collect();
        epochs.sort_unstable();
        match epochs.last() {
            Some(epoch) => self.epochs.lock().insert(partition, (*epoch, Instant::now())),
            None => self.epochs.lock().remove(&partition),
        };
        Ok(epochs)
    }

    async fn find_epoch(&self, partition: Partition) -> Result<Option<Epoch>, JournalError> {
        Ok(self.find_epochs(partition).await?.pop())
    }

    async fn current_epoch(&self, partition: Partition) -> Result<Epoch, JournalError> {
        let known = self.epochs.lock().get(&partition).copied();
        match known {
            Some((epoch, at)) if at.elapsed() < EPOCH_FRESH_FOR => Ok(epoch),
            // The cluster's list has another leader than the stream: without it, the one known will do.
            Some((epoch, _)) => {
                Ok(self.find_epoch(partition).await.ok().flatten().unwrap_or(epoch))
            }
            None => self.find_epoch(partition).await?.ok_or_else(|| absent(partition)),
        }
    }

    async fn info(
        &self,
        partition: Partition,
        epoch: Epoch,
    ) -> Result<Result<StreamInfo, Refusal>, JournalError> {
        let subject = format!("STREAM.INFO.{}", names::stream(partition, epoch));
        self.api.ask("tip", &subject, &Value::Null).await
    }

    /// Makes the stream. Somebody else may do the same at this moment: with equal settings both succeed.
    async fn create(
        &self,
        partition: Partition,
        epoch: Epoch,
        wanted: &Value,
    ) -> Result<StreamInfo, JournalError> {
        let subject = format!("STREAM.CREATE.{}", names::stream(partition, epoch));
        let made = self.api.ask_within("open", &subject, wanted, CREATE_DEADLINE).await?;
        match made {
            Err(Refusal { err_code: STREAM_DIFFERS, .. }) => {
                Ok(self.info(partition, epoch).await??)
            }
            Err(refusal) if refusal.err_code == NO_ROOM => Err(JournalError::Unavailable(format!(
                "{refusal}: a stream reserves {} bytes on each of its servers; \
                     lower that, or raise the servers' max_file_store",
                self.config.max_bytes
            ))),
            made => Ok(made?),
        }
    }
}

fn absent(partition: Partition) -> JournalError {
    JournalError::Unavailable(format!("partition {partition} has no stream yet"))
}

fn tip(epoch: Epoch, info: &StreamInfo) -> Tip {
    let state = &info.state;
    Tip {
        epoch,
        first: if state.messages == 0 { state.last_seq + 1 } else { state.first_seq },
        last: state.last_seq,
        bytes: state.bytes,
        bytes_max: info.config.get("max_bytes").and_then(Value::as_u64).unwrap_or(u64::MAX),
    }
}

#[async_trait]
impl Journal for NatsJournal {
    fn stale_max(&self) -> Duration {
        // Of one server there is no other that could answer beside it.
        if self.config.replicas > 1 { STALE_MAX } else { Duration::ZERO }
    }

    async fn open(&self, partition: Partition) -> Result<Tip, JournalError> {
        let epoch = self.find_epoch(partition).await?.unwrap_or(Epoch::FIRST);
        let wanted = settings::wanted(&self.config, partition, epoch);
        let info = match self.info(partition, epoch).await? {
            Err(refusal) if refusal.err_code == STREAM_NOT_FOUND => {
                self.create(partition, epoch, &wanted).await?
            }
            found => found?,
        };
        let mut difference = settings::differences(&wanted, &info.config);
        if difference.is_none() && !self.tables_fit.load(Ordering::Relaxed) {
            difference = tables::differences(&self.api, &self.config).await?;
            self.tables_fit.store(difference.is_none(), Ordering::Relaxed);
        }
        match difference {
            Some(difference) => Err(JournalError::Settings { partition, difference }),
            None => Ok(tip(epoch, &info)),
        }
    }

    async fn tip(&self, partition: Partition) -> Result<Tip, JournalError> {
        let epoch = self.current_epoch(partition).await?;
        match self.info(partition, epoch).await? {
            Ok(info) => Ok(tip(epoch, &info)),
            Err(refusal) => {
                self.epochs.lock().remove(&partition);
                Err(refusal.into())
            }
        }
    }

    async fn epochs(&self, partition: Partition) -> Result<Vec<Tip>, JournalError> {
        let mut logs = Vec::new();
        for epoch in self.find_epochs(partition).await? {
            match self.info(partition, epoch).await? {
                Ok(info) => logs.push(tip(epoch, &info)),
                Err(refusal) if refusal.err_code == STREAM_NOT_FOUND => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(logs)
    }

    async fn begin(
        &self,
        partition: Partition,
        epoch: Epoch,
        first: FrameSeq,
    ) -> Result<Tip, JournalError> {
        let info = match self.info(partition, epoch).await? {
            Err(refusal) if refusal.err_code == STREAM_NOT_FOUND => {
                let wanted = settings::wanted_from(&self.config, partition, epoch, first);
                self.create(partition, epoch, &wanted).await?
            }
            found => found?,
        };
        self.find_epochs(partition).await?;
        Ok(tip(epoch, &info))
    }

    async fn remove(&self, partition: Partition, epoch: Epoch) -> Result<(), JournalError> {
        let subject = format!("STREAM.DELETE.{}", names::stream(partition, epoch));
        match self.api.ask::<Value>("remove", &subject, &Value::Null).await? {
            Err(refusal) if refusal.err_code != STREAM_NOT_FOUND => return Err(refusal.into()),
            Ok(_) | Err(_) => {}
        }
        self.epochs.lock().remove(&partition);
        Ok(())
    }

    async fn append(
        &self,
        partition: Partition,
        epoch: Epoch,
        expected_last: FrameSeq,
        frame: Bytes,
    ) -> Result<FrameSeq, AppendError> {
        self.appends.append(partition, epoch, expected_last, frame).await
    }

    async fn read(
        &self,
        partition: Partition,
        epoch: Epoch,
        from: FrameSeq,
        frames: usize,
        bytes: usize,
    ) -> Result<Vec<StoredFrame>, JournalError> {
        self.reads.page(&self.api, Log { partition, epoch }, from, frames, bytes).await
    }

    async fn frame(
        &self,
        partition: Partition,
        epoch: Epoch,
        seq: FrameSeq,
    ) -> Result<Option<StoredFrame>, JournalError> {
        read::frame(&self.api, Log { partition, epoch }, seq).await
    }

    async fn tail(&self, partitions: &[Partition]) -> Result<Tail, JournalError> {
        tail::tail(&self.tails, partitions).await
    }

    async fn save_table(
        &self,
        partition: Partition,
        table: SavedTable,
    ) -> Result<(), JournalError> {
        tables::save(&self.api, &self.config, partition, table).await
    }

    async fn load_table(&self, partition: Partition) -> Result<Option<SavedTable>, JournalError> {
        tables::load(&self.api, partition).await
    }

    async fn saved_through(
        &self,
        partition: Partition,
    ) -> Result<Option<(Epoch, FrameSeq)>, JournalError> {
        tables::through(&self.api, partition).await
    }

    async fn trim(
        &self,
        partition: Partition,
        epoch: Epoch,
        through: FrameSeq,
    ) -> Result<(), JournalError> {
        // The server's `seq` is the first frame that stays.
        let request = json!({ "seq": through + 1 });
        let subject = format!("STREAM.PURGE.{}", names::stream(partition, epoch));
        self.api.ask::<Value>("trim", &subject, &request).await??;
        Ok(())
    }

    async fn persisted(&self, partition: Partition, epoch: Epoch, through: FrameSeq) {
        self.backlog.persisted(partition, epoch, through);
    }

    async fn ping(&self) -> Result<(), JournalError> {
        for caller in [self.appends.caller(), &self.tails, self.api.caller()] {
            caller.link().check().map_err(|reason| {
                JournalError::Unavailable(CallError::NotConnected(reason).to_string())
            })?;
        }
        self.api.ask::<Value>("ping", "INFO", &Value::Null).await??;
        Ok(())
    }
}
