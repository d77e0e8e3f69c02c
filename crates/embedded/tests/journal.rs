//! The embedded journal passes the suite of its port.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use sqlx::{ConnectOptions as _, Connection as _};
use std::sync::Arc;
use stormwire_core::SystemClock;
use stormwire_embedded::{Embedded, EmbeddedConfig, FILE_NAME};
use stormwire_journal::suite::{LOG_BYTES_MAX, MakeHole, Subject};
use stormwire_testkit::Folder;

async fn fresh() -> Option<Subject> {
    let folder = Folder::temporary("embedded").unwrap();
    let path = folder.path().join(FILE_NAME);
    let config = EmbeddedConfig { log_bytes_max: LOG_BYTES_MAX, ..EmbeddedConfig::default() };
    let embedded = Embedded::open(&path, config, Arc::new(SystemClock)).await.unwrap();
    let hole: MakeHole = Box::new(move |partition, epoch, seq| {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        Box::pin(async move {
            let id = (i64::from(partition.0) << 16 | i64::from(epoch.0)) << 41
                | i64::try_from(seq).unwrap();
            let mut connection = options.connect().await.unwrap();
            let delete = sqlx::query("DELETE FROM frames WHERE id = ?").bind(id);
            assert_eq!(delete.execute(&mut connection).await.unwrap().rows_affected(), 1);
            connection.close().await.unwrap();
        })
    });
    let journal = embedded.journal();
    Some(Subject { journal, hole: Some(hole), keep: Box::new((embedded, folder)) })
}

stormwire_journal::journal_suite!(fresh);
