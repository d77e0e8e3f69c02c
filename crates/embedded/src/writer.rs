//! The one writer. All that waits goes into one transaction with one commit: every append that is
//! queued, and as many other jobs as keep the commit short. Each caller has its own answer, after the
//! commit.
//!
//! Batches of the archive are the heavy jobs. They get at most four fifths of the writer's time: after a
//! transaction with batches comes a pause for appends alone, a quarter as long as it took. Meanwhile
//! more events gather for the next batches, and larger batches are cheaper, so the pause paces itself.
//!
//! Nothing that began is ever cancelled: a caller that gives up leaves an unknown outcome behind, the
//! transaction goes on. A commit that fails leaves nobody knowing what is on disk, so it ends the
//! process (APPENDER.md D6); the next start reads what is there.

use crate::Fatal;
use crate::file::FileLock;
use crate::logs::{Append, Logs, Planned};
use crate::tail::Tails;
use crate::values::{insert_rows, row_chunks};
use futures::future::BoxFuture;
use metrics::histogram;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, Connection as _, SqliteConnection};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::FrameSeq;
use stormwire_journal::AppendError;
use stormwire_telemetry::metrics::{SQLITE_COMMIT_FRAMES, SQLITE_COMMIT_SECONDS};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, warn};

/// Appends that may wait; a lane has one in flight for each partition.
const APPENDS_MAX: usize = 256;
/// Other jobs that may wait.
const JOBS_MAX: usize = 64;
/// Bytes of frames in one transaction, and one frame more.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
/// Rows that batches may write in one transaction, and one batch more: some milliseconds of work,
/// which is what an append may have to wait for.
const GROUP_WEIGHT: usize = 4096;
/// A transaction with batches is followed by a pause of its own length divided by this.
const BATCH_PAUSE: u32 = 4;

/// What became of the transaction that a job was part of.
pub(crate) enum Settled {
    Committed,
    RolledBack(String),
    Unknown(String),
}

type Settle = Box<dyn FnOnce(Settled) + Send>;
/// Runs inside the transaction; `None` if it failed: it is rolled back alone and has told its caller.
type Work =
    Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Option<Settle>> + Send>;

struct Job {
    /// Rows that it writes, if it is a batch.
    weight: usize,
    work: Work,
}

/// Why something was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// It is not stored.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows.
    #[error("{0}")]
    Unknown(String),
}

/// The way to the writer. It ends when the last clone is gone, or by [`Writer::stop`].
#[derive(Clone)]
pub(crate) struct Writer {
    appends: mpsc::Sender<Append>,
    jobs: mpsc::Sender<Job>,
    batches: mpsc::Sender<Job>,
    stop: Arc<Notify>,
    deadline: Duration,
}

impl Writer {
    /// Starts the writer on `connection`. The task ends after [`Writer::stop`], when every handle is
    /// gone, or after a failed commit; then the connection is closed and `lock` given back.
    pub(crate) fn start(
        connection: SqliteConnection,
        lock: FileLock,
        logs: Arc<Logs>,
        tails: Arc<Tails>,
        deadline: Duration,
        fatal: Fatal,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (appends, append_queue) = mpsc::channel(APPENDS_MAX);
        let (jobs, job_queue) = mpsc::channel(JOBS_MAX);
        let (batches, batch_queue) = mpsc::channel(JOBS_MAX);
        let stop = Arc::new(Notify::new());
        let task = Task {
            connection,
            appends: append_queue,
            jobs: job_queue,
            batches: batch_queue,
            batches_from: Instant::now(),
            stop: Arc::clone(&stop),
            logs,
            tails,
            fatal,
            _lock: lock,
        };
        let task = tokio::spawn(task.run());
        (Self { appends, jobs, batches, stop, deadline }, task)
    }

    /// Takes nothing more; what is queued is still written.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }

    /// Stores a frame, see [`stormwire_journal::Journal::append`].
    pub(crate) async fn append(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<FrameSeq, AppendError>>) -> Append,
    ) -> Result<FrameSeq, AppendError> {
        let (answer, answered) = oneshot::channel();
        self.appends.try_send(make(answer)).map_err(|error| {
            AppendError::Refused(match error {
                mpsc::error::TrySendError::Full(_) => "too many appends wait".to_owned(),
                mpsc::error::TrySendError::Closed(_) => STOPPED.to_owned(),
            })
        })?;
        match timeout(self.deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(AppendError::Unknown(STOPPED.to_owned())),
            Err(_) => Err(AppendError::Unknown(self.late())),
        }
    }

    /// Runs `work` inside the next transaction and answers after its commit. `committed` runs right
    /// after the commit, also when the caller is gone. `weight` is 0, or about how many rows a batch
    /// writes. An error of `work` takes back what `work` did, and nothing else.
    pub(crate) async fn write<T, W, C>(
        &self,
        weight: usize,
        work: W,
        committed: C,
    ) -> Result<T, WriteError>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>
            + Send
            + 'static,
        C: FnOnce(&T) + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let work = work(connection);
            Box::pin(async move {
                match work.await {
                    Ok(value) => Some(settle(value, committed, answer)),
                    Err(error) => {
                        let _ = answer.send(Err(WriteError::Refused(error.to_string())));
                        None
                    }
                }
            })
        });
        let queue = if weight == 0 { &self.jobs } else { &self.batches };
        let refused = |why: &str| WriteError::Refused(why.to_owned());
        match timeout(self.deadline, queue.send(Job { weight, work })).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(refused(STOPPED)),
            Err(_) => return Err(refused("too many writes wait")),
        }
        match timeout(self.deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(WriteError::Unknown(STOPPED.to_owned())),
            Err(_) => Err(WriteError::Unknown(self.late())),
        }
    }

    fn late(&self) -> String {
        format!("no answer from the database within {:?}", self.deadline)
    }
}

const STOPPED: &str = "the database was closed";

fn settle<T: Send + 'static>(
    value: T,
    committed: impl FnOnce(&T) + Send + 'static,
    answer: oneshot::Sender<Result<T, WriteError>>,
) -> Settle {
    Box::new(move |settled| {
        let result = match settled {
            Settled::Committed => {
                committed(&value);
                Ok(value)
            }
            Settled::RolledBack(why) => Err(WriteError::Refused(why)),
            Settled::Unknown(why) => Err(WriteError::Unknown(why)),
        };
        // Who gave up waiting is not told.
        let _ = answer.send(result);
    })
}

struct Task {
    connection: SqliteConnection,
    appends: mpsc::Receiver<Append>,
    jobs: mpsc::Receiver<Job>,
    batches: mpsc::Receiver<Job>,
    /// When batches may go again.
    batches_from: Instant,
    stop: Arc<Notify>,
    logs: Arc<Logs>,
    tails: Arc<Tails>,
    fatal: Fatal,
    _lock: FileLock,
}

#[derive(Default)]
struct Group {
    appends: Vec<Append>,
    bytes: usize,
    jobs: Vec<Job>,
    weight: usize,
}

impl Group {
    fn append(&mut self, append: Append) {
        self.bytes += append.bytes.len();
        self.appends.push(append);
    }

    fn job(&mut self, job: Job) {
        self.weight += job.weight;
        self.jobs.push(job);
    }
}

impl Task {
    async fn run(mut self) {
        while let Some(group) = self.next_group().await {
            let (heavy, began) = (group.weight > 0, Instant::now());
            let written = self.write(group).await;
            if heavy {
                self.batches_from = Instant::now() + began.elapsed() / BATCH_PAUSE;
            }
            if let Err(error) = written {
                let reason = format!("a commit failed, so what is on disk is not known: {error}");
                error!(error = %error, "commit failed; the process ends");
                self.refuse_more();
                (self.fatal)(&reason);
                break;
            }
        }
        self.tails.end();
        if let Err(error) = self.connection.close().await {
            warn!(error = %error, "the database did not close cleanly");
        }
    }

    /// All that waits now, or the first that comes; `None` at the end.
    async fn next_group(&mut self) -> Option<Group> {
        let mut group = Group::default();
        while group.appends.is_empty() && group.jobs.is_empty() {
            let paused = Instant::now() < self.batches_from;
            tokio::select! {
                biased;
                append = self.appends.recv() => match append {
                    Some(append) => group.append(append),
                    // Stopped, or the last handle is gone: the rest is written without a pause.
                    None => group.job(self.jobs.try_recv().or_else(|_| self.batches.try_recv()).ok()?),
                },
                Some(job) = self.jobs.recv() => group.job(job),
                Some(batch) = self.batches.recv(), if !paused => group.job(batch),
                () = sleep_until(self.batches_from), if paused => {}
                () = self.stop.notified() => self.refuse_more(),
            }
        }
        while group.bytes < GROUP_BYTES
            && let Ok(append) = self.appends.try_recv()
        {
            group.append(append);
        }
        while let Ok(job) = self.jobs.try_recv() {
            group.job(job);
        }
        while Instant::now() >= self.batches_from
            && group.weight < GROUP_WEIGHT
            && let Ok(batch) = self.batches.try_recv()
        {
            group.job(batch);
        }
        Some(group)
    }

    fn refuse_more(&mut self) {
        self.appends.close();
        self.jobs.close();
        self.batches.close();
    }

    /// One transaction. `Err` means that the commit itself failed.
    async fn write(&mut self, group: Group) -> Result<(), sqlx::Error> {
        let planned = self.logs.plan(group.appends);
        if planned.is_empty() && group.jobs.is_empty() {
            return Ok(());
        }
        let mut settles = Vec::with_capacity(group.jobs.len());
        if let Err(error) = self.statements(&planned, group.jobs, &mut settles).await {
            warn!(error = %error, "a transaction was rolled back");
            // Where SQLite has rolled back by itself this fails, which is as good.
            let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
            let why = format!("the database refused it: {error}");
            for one in planned {
                let _ = one.answer.send(Err(AppendError::Refused(why.clone())));
            }
            settles.into_iter().for_each(|settle| settle(Settled::RolledBack(why.clone())));
            return Ok(());
        }
        let began = Instant::now();
        let committed = sqlx::query("COMMIT").execute(&mut self.connection).await;
        histogram!(SQLITE_COMMIT_SECONDS).record(began.elapsed());
        histogram!(SQLITE_COMMIT_FRAMES).record(u32::try_from(planned.len()).unwrap_or(u32::MAX));
        if let Err(error) = committed {
            let why = format!("the commit failed: {error}");
            for one in planned {
                let _ = one.answer.send(Err(AppendError::Unknown(why.clone())));
            }
            settles.into_iter().for_each(|settle| settle(Settled::Unknown(why.clone())));
            return Err(error);
        }
        for Planned { frame, answer, .. } in planned {
            self.logs.stored(&frame);
            let _ = answer.send(Ok(frame.seq));
            self.tails.publish(&frame);
        }
        settles.into_iter().for_each(|settle| settle(Settled::Committed));
        Ok(())
    }

    async fn statements(
        &mut self,
        planned: &[Planned],
        jobs: Vec<Job>,
        settles: &mut Vec<Settle>,
    ) -> Result<(), sqlx::Error> {
        let connection = &mut self.connection;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        for chunk in row_chunks(planned) {
            let mut arguments = SqliteArguments::default();
            for Planned { key, frame, .. } in chunk {
                arguments.add(*key).map_err(sqlx::Error::Encode)?;
                arguments.add(frame.ts.0).map_err(sqlx::Error::Encode)?;
                arguments.add(frame.bytes.to_vec()).map_err(sqlx::Error::Encode)?;
            }
            insert_rows(connection, "frames (id, ts, bytes)", 3, chunk.len(), arguments).await?;
        }
        for job in jobs {
            sqlx::query("SAVEPOINT job").execute(&mut *connection).await?;
            match (job.work)(connection).await {
                Some(settle) => settles.push(settle),
                None => {
                    sqlx::query("ROLLBACK TO job").execute(&mut *connection).await?;
                }
            }
            sqlx::query("RELEASE job").execute(&mut *connection).await?;
        }
        Ok(())
    }
}
