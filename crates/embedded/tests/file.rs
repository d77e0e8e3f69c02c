//! The file as a whole: coming back, being locked, failing to commit, time.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use futures::StreamExt as _;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use stormwire_core::{Clock, Epoch, Partition, SystemClock, Timestamp};
use stormwire_embedded::{Embedded, EmbeddedConfig, FILE_NAME, OpenError};
use stormwire_journal::{AppendError, JournalError, TailEvent};
use stormwire_testkit::Folder;

const P: Partition = Partition(3);
const E: Epoch = Epoch::FIRST;

fn folder() -> (Folder, PathBuf) {
    let folder = Folder::temporary("embedded").unwrap();
    let path = folder.path().join("data").join(FILE_NAME);
    (folder, path)
}

async fn open(path: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(path, EmbeddedConfig::default(), Arc::new(SystemClock)).await
}

async fn by_hand(path: &Path) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

fn frame(n: u64) -> Bytes {
    Bytes::from(format!("frame {n}"))
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let (_folder, path) = folder();
    for round in 0..3 {
        let embedded = open(&path).await.unwrap();
        let journal = embedded.journal();
        let tip = journal.open(P).await.unwrap();
        assert_eq!((tip.first, tip.last), (1, round));
        assert_eq!(journal.append(P, E, round, frame(round)).await, Ok(round + 1));
        embedded.close().await;
        let after = journal.append(P, E, round + 1, frame(9)).await;
        assert!(matches!(after, Err(AppendError::Refused(_))), "{after:?}");
    }
    let embedded = open(&path).await.unwrap();
    let journal = embedded.journal();
    journal.trim(P, E, 3).await.unwrap();
    embedded.close().await;
    let embedded = open(&path).await.unwrap();
    let tip = embedded.journal().tip(P).await.unwrap();
    assert_eq!((tip.first, tip.last, tip.bytes), (4, 3, 0), "an empty log remembers its numbers");
    embedded.close().await;
}

#[tokio::test]
async fn handles_that_are_dropped_give_the_file_back() {
    let (_folder, path) = folder();
    for _ in 0..3 {
        drop(open(&path).await.unwrap());
        let mut retry = open(&path).await;
        for _ in 0..500 {
            if retry.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            retry = open(&path).await;
        }
        retry.unwrap().close().await;
    }
}

#[tokio::test]
async fn a_second_opener_is_told_the_file_and_the_remedy() {
    let (_folder, path) = folder();
    let first = open(&path).await.unwrap();
    let refused = open(&path).await.err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }));
    let text = refused.to_string();
    assert!(text.contains(FILE_NAME) && text.contains("--data-dir"), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    first.close().await;
    open(&path).await.unwrap().close().await;
}

#[tokio::test]
async fn a_path_that_cannot_be_one_is_named_in_the_error() {
    let (folder, path) = folder();
    std::fs::write(folder.path().join("data"), "a file where the directory should be").unwrap();
    let error = open(&path).await.err().unwrap();
    assert!(matches!(error, OpenError::Directory { .. }), "{error}");
    assert!(error.to_string().contains("writable"), "{error}");
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "no database, only a text that is longer than a header").unwrap();
    let error = open(&text).await.err().unwrap();
    assert!(error.to_string().contains("notes.txt"), "{error}");
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_left_alone() {
    let (_folder, path) = folder();
    open(&path).await.unwrap().close().await;
    let mut connection = by_hand(&path).await;
    sqlx::raw_sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9000, 'later', TRUE, x'00', 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let error = open(&path).await.err().unwrap();
    assert!(matches!(error, OpenError::Schema { .. }), "{error}");
    assert!(error.to_string().contains("newer version"), "{error}");
}

/// A deferred constraint that nothing can satisfy: statements succeed, the commit fails.
#[tokio::test]
async fn a_failed_commit_is_an_unknown_outcome_and_ends_the_process() {
    let (_folder, path) = folder();
    let (told, mut reason) = tokio::sync::mpsc::channel(1);
    let config = EmbeddedConfig {
        fatal: Arc::new(move |why| drop(told.try_send(why.to_owned()))),
        ..EmbeddedConfig::default()
    };
    let embedded = Embedded::open(&path, config, Arc::new(SystemClock)).await.unwrap();
    let journal = embedded.journal();
    journal.open(P).await.unwrap();
    let mut tail = journal.tail(&[P]).await.unwrap();
    journal.append(P, E, 0, frame(1)).await.unwrap();
    let mut connection = by_hand(&path).await;
    sqlx::raw_sql(
        "CREATE TABLE poison (x INTEGER REFERENCES ledger (partition) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER poisoned AFTER INSERT ON frames BEGIN INSERT INTO poison VALUES (-1); END;",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let unknown = journal.append(P, E, 1, frame(2)).await;
    assert!(matches!(unknown, Err(AppendError::Unknown(_))), "{unknown:?}");
    assert!(reason.recv().await.unwrap().contains("commit failed"));
    let after = journal.append(P, E, 1, frame(2)).await;
    assert!(matches!(after, Err(AppendError::Refused(_) | AppendError::Unknown(_))), "{after:?}");
    let first = tail.next().await;
    assert!(matches!(first, Some(TailEvent::Frame(frame)) if frame.seq == 1));
    assert_eq!(tail.next().await, None, "a frame that was not committed is not told");
    sqlx::raw_sql("DROP TRIGGER poisoned").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    embedded.close().await;
    let embedded = open(&path).await.unwrap();
    assert_eq!(embedded.journal().open(P).await.unwrap().last, 1);
    embedded.close().await;
}

/// Before the commit a failure is known: everybody in the transaction is refused, and it goes on.
#[tokio::test]
async fn a_failed_statement_refuses_and_leaves_nothing_behind() {
    let (_folder, path) = folder();
    let embedded = open(&path).await.unwrap();
    let journal = embedded.journal();
    journal.open(P).await.unwrap();
    let mut connection = by_hand(&path).await;
    sqlx::raw_sql(
        "CREATE TRIGGER refused AFTER INSERT ON frames WHEN NEW.bytes = CAST('bad' AS BLOB)
         BEGIN SELECT RAISE(ABORT, 'no such frames here'); END;",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let refused = journal.append(P, E, 0, Bytes::from_static(b"bad")).await;
    assert!(matches!(&refused, Err(AppendError::Refused(why)) if why.contains("no such frames")));
    assert_eq!(journal.append(P, E, 0, frame(1)).await, Ok(1));
    assert_eq!(journal.frame(P, E, 1).await.unwrap().unwrap().bytes, frame(1));
    embedded.close().await;
}

struct Stepping(AtomicI64);

impl Clock for Stepping {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn time_stands_still_while_the_clock_is_behind_also_after_a_restart_of_an_empty_log() {
    let (_folder, path) = folder();
    let clock = Arc::new(Stepping(AtomicI64::new(5000)));
    let embedded = Embedded::open(&path, EmbeddedConfig::default(), clock.clone()).await.unwrap();
    let journal = embedded.journal();
    journal.open(P).await.unwrap();
    for (last, now) in [(0, 5000), (1, 6000), (2, 1000), (3, 6001)] {
        clock.0.store(now, Ordering::Relaxed);
        journal.append(P, E, last, frame(last)).await.unwrap();
    }
    let times: Vec<_> =
        journal.read(P, E, 1, 10, 1000).await.unwrap().iter().map(|frame| frame.ts.0).collect();
    assert_eq!(times, [5000, 6000, 6000, 6001]);
    journal.trim(P, E, 4).await.unwrap();
    embedded.close().await;
    clock.0.store(1, Ordering::Relaxed);
    let embedded = Embedded::open(&path, EmbeddedConfig::default(), clock).await.unwrap();
    let journal = embedded.journal();
    journal.append(P, E, 4, frame(5)).await.unwrap();
    assert_eq!(journal.frame(P, E, 5).await.unwrap().unwrap().ts, Timestamp(6001));
    embedded.close().await;
}

#[tokio::test]
async fn what_does_not_fit_the_file_is_refused() {
    let (_folder, path) = folder();
    let embedded = open(&path).await.unwrap();
    let journal = embedded.journal();
    assert!(matches!(journal.open(Partition(64)).await, Err(JournalError::Protocol(_))));
    assert!(matches!(journal.tip(P).await, Err(JournalError::Protocol(_))));
    journal.open(P).await.unwrap();
    let huge = Bytes::from(vec![0; 600 * 1024]);
    assert!(matches!(journal.append(P, E, 0, huge).await, Err(AppendError::Refused(_))));
    assert!(journal.read(P, Epoch(70_000), 1, 1, 1).await.unwrap().is_empty());
    assert!(journal.read(P, E, u64::MAX, 1, 1).await.unwrap().is_empty());
    embedded.close().await;
    assert!(journal.ping().await.is_err(), "a closed file does not answer");
}
