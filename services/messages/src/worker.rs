//! Who holds which partitions.

use crate::config::MessagesConfig;
use crate::partition::Work;
use crate::progress::Progress;
use crate::retention;
use crate::share::{Share, share};
use metrics::gauge;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use stormwire_archive::{Archive, ArchiveError, Lease};
use stormwire_core::{Clock, Partition};
use stormwire_journal::Journal;
use stormwire_telemetry::metrics as names;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Longest time for saying good-bye to the archive.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often a worker looks whether something is free, at most: what one gives back another takes at
/// its next look.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks in the time of a short lease.
const LOOKS_A_LEASE: u32 = 12;

/// Persists its fair share of the partitions for as long as it runs. Any number of workers share the
/// work, in any processes; each finds the others through the archive alone.
pub struct Worker {
    journal: Arc<dyn Journal>,
    archive: Arc<dyn Archive>,
    config: Arc<MessagesConfig>,
    clock: Arc<dyn Clock>,
    name: String,
    owned: watch::Sender<BTreeSet<Partition>>,
}

/// A partition that is being persisted here.
struct Held {
    lease: Lease,
    stop: CancellationToken,
    /// Whether it is to be given back as soon as its work has ended.
    leaving: bool,
}

#[derive(Default)]
struct Holdings {
    held: BTreeMap<Partition, Held>,
    tasks: JoinSet<(Partition, u64)>,
}

impl Worker {
    /// A worker with a name of its own. Nothing happens before [`Worker::run`].
    #[must_use]
    pub fn new(
        journal: Arc<dyn Journal>,
        archive: Arc<dyn Archive>,
        config: MessagesConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let name = format!("{}-{}", config.name, uuid::Uuid::new_v4().simple());
        let owned = watch::Sender::new(BTreeSet::new());
        Self { journal, archive, config: Arc::new(config), clock, name, owned }
    }

    /// This worker's name in leases and logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The partitions that it persists now, for health reports. Empty once it has stopped.
    #[must_use]
    pub fn owned(&self) -> watch::Receiver<BTreeSet<Partition>> {
        self.owned.subscribe()
    }

    /// Works until `shutdown`; then finishes the batches on their way and gives its leases back. A worker
    /// that is dropped instead loses nothing: its leases expire.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut holdings = Holdings::default();
        let lease = self.config.lease;
        let mut look = interval((lease / LOOKS_A_LEASE).min(LOOK_EVERY));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn_at = Instant::now();
        // Ends with the worker.
        let mut aside = JoinSet::new();
        aside.spawn(retention::keep(
            Arc::clone(&self.archive),
            self.name.clone(),
            Arc::clone(&self.config),
            Arc::clone(&self.clock),
        ));
        tracing::info!(worker = self.name, "worker started");
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = holdings.tasks.join_next() => self.ended(&mut holdings, ended).await,
                now = look.tick() => {
                    let due = now >= turn_at;
                    let turn = shutdown.run_until_cancelled(self.look(&mut holdings, due)).await;
                    if due || !matches!(turn, Some(Ok(false))) {
                        turn_at = Instant::now() + lease / 3;
                    }
                    if let Some(Err(error)) = turn {
                        tracing::warn!(worker = self.name, error = %error, "leases could not be renewed; trying again");
                    }
                }
            }
            self.tell(holdings.held.keys().copied().collect());
        }
        self.stop(holdings).await;
        self.tell(BTreeSet::new());
        tracing::info!(worker = self.name, "worker stopped");
    }

    fn tell(&self, owned: BTreeSet<Partition>) {
        gauge!(names::PERSIST_PARTITIONS_OWNED).set(owned.len() as f64);
        self.owned.send_if_modified(|now| {
            let is_new = *now != owned;
            *now = owned;
            is_new
        });
    }

    /// Takes its turn when that is `due`, or early if there is something that nobody holds; says whether
    /// it did. Without that what another worker gives back would lie there for a third of a lease.
    async fn look(&self, holdings: &mut Holdings, due: bool) -> Result<bool, ArchiveError> {
        let count = self.config.partitions;
        let has_all = holdings.held.len() == usize::from(count.get());
        if !due && (has_all || self.archive.free(count).await? == 0) {
            return Ok(false);
        }
        self.turn(holdings).await.map(|()| true)
    }

    /// Says that it lives, renews what it holds, and takes or gives towards its fair share.
    async fn turn(&self, holdings: &mut Holdings) -> Result<(), ArchiveError> {
        let Self { archive, config, .. } = self;
        self.renew(holdings).await?;
        let roster = archive.workers(&self.name, config.lease).await?;
        let staying = holdings.held.values().filter(|held| !held.leaving).count();
        match share(config.partitions, roster, staying) {
            Share::Take(want) => {
                for lease in
                    archive.acquire(&self.name, config.partitions, want, config.lease).await?
                {
                    self.start(holdings, lease);
                }
            }
            Share::Give(much) => {
                let staying = holdings.held.values_mut().rev().filter(|held| !held.leaving);
                for held in staying.take(much) {
                    held.leaving = true;
                    held.stop.cancel();
                }
            }
            Share::Fair => {}
        }
        Ok(())
    }

    async fn renew(&self, holdings: &mut Holdings) -> Result<(), ArchiveError> {
        let leases: Vec<Lease> = holdings.held.values().map(|held| held.lease.clone()).collect();
        if leases.is_empty() {
            return Ok(());
        }
        let kept = self.archive.renew(&leases, self.config.lease).await?;
        for lost in leases.iter().filter(|lease| !kept.contains(lease)) {
            if let Some(held) = holdings.held.get(&lost.partition) {
                tracing::warn!(partition = lost.partition.0, "the lease was taken over");
                held.stop.cancel();
            }
        }
        Ok(())
    }

    fn start(&self, holdings: &mut Holdings, lease: Lease) {
        let partition = lease.partition;
        tracing::info!(partition = partition.0, token = lease.token, "persisting this partition");
        let stop = CancellationToken::new();
        let work = Work {
            journal: Arc::clone(&self.journal),
            archive: Arc::clone(&self.archive),
            clock: Arc::clone(&self.clock),
            config: Arc::clone(&self.config),
            lease: lease.clone(),
            progress: Progress::new(partition),
            shrink: AtomicU32::new(0),
        };
        let (token, lease_token) = (stop.clone(), lease.token);
        // A lease of this partition that was lost a moment ago has a task that is just ending.
        if let Some(old) = holdings.held.insert(partition, Held { lease, stop, leaving: false }) {
            old.stop.cancel();
        }
        holdings.tasks.spawn(async move {
            work.run(token).await;
            (partition, lease_token)
        });
    }

    async fn ended(
        &self,
        holdings: &mut Holdings,
        ended: Result<(Partition, u64), tokio::task::JoinError>,
    ) {
        let Ok((partition, token)) = ended else {
            // Which one panicked is not known; its lease would be renewed for nothing. All begin anew.
            tracing::error!(worker = self.name, "the work on a partition panicked; all begin anew");
            for held in holdings.held.values_mut() {
                held.leaving = true;
                held.stop.cancel();
            }
            let panicked: Vec<Lease> =
                holdings.held.values().map(|held| held.lease.clone()).collect();
            while let Some(ended) = holdings.tasks.join_next().await {
                drop(ended);
            }
            holdings.held.clear();
            for lease in &panicked {
                self.release(lease).await;
            }
            return;
        };
        if holdings.held.get(&partition).is_some_and(|held| held.lease.token == token)
            && let Some(held) = holdings.held.remove(&partition)
            && held.leaving
        {
            self.release(&held.lease).await;
        }
    }

    async fn release(&self, lease: &Lease) {
        let partition = lease.partition.0;
        match timeout(FAREWELL, self.archive.release(lease)).await {
            Ok(Ok(())) => tracing::info!(partition, "gave this partition back"),
            Ok(Err(error)) => {
                tracing::warn!(partition, error = %error, "a lease was not given back; it expires")
            }
            Err(_) => tracing::warn!(partition, "a lease was not given back in time; it expires"),
        }
    }

    /// Leaves: the others are to count without it before anything is free, so that they take each
    /// partition when it is given back, and that is as soon as its own last batch is stored.
    async fn stop(&self, mut holdings: Holdings) {
        let gone = self.archive.workers(&self.name, Duration::ZERO);
        if !matches!(timeout(FAREWELL, gone).await, Ok(Ok(_))) {
            tracing::warn!(
                worker = self.name,
                "could not say good-bye; the others wait for a lease"
            );
        }
        for held in holdings.held.values() {
            held.stop.cancel();
        }
        let all = async {
            while let Some(ended) = holdings.tasks.join_next().await {
                if let Ok((partition, token)) = ended
                    && holdings.held.get(&partition).is_some_and(|held| held.lease.token == token)
                    && let Some(held) = holdings.held.remove(&partition)
                {
                    self.release(&held.lease).await;
                }
            }
        };
        if timeout(self.config.drain, all).await.is_err() {
            tracing::warn!(
                worker = self.name,
                "batches on their way were cut off; their outcome is in the ledger"
            );
        }
        holdings.tasks.shutdown().await;
        let releases = holdings.held.values().map(|held| self.release(&held.lease));
        futures::future::join_all(releases).await;
    }
}
