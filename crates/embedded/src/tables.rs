//! The appenders' tables of producers, one row a partition.

use crate::reads::Reads;
use crate::writer::{WriteError, Writer};
use bytes::Bytes;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::{SavedTable, TABLE_BYTES_MAX};

/// Bytes of a table that weigh as much in the writer's transaction as one row of the archive.
const ROW_BYTES: usize = 1024;

/// Keeps `table`, unless a newer one is there.
pub(crate) async fn save(
    writer: &Writer,
    partition: Partition,
    table: SavedTable,
) -> Result<(), WriteError> {
    let SavedTable { epoch, through, bytes } = table;
    if bytes.len() > TABLE_BYTES_MAX {
        let len = bytes.len();
        let text = format!("a table has at most {TABLE_BYTES_MAX} bytes, not {len}");
        return Err(WriteError::Refused(text));
    }
    let work = writer.write(
        1 + bytes.len() / ROW_BYTES,
        move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO appender_tables (partition, epoch, through, bytes)
                     VALUES (?, ?, ?, ?)
                     ON CONFLICT (partition) DO UPDATE
                     SET epoch = excluded.epoch, through = excluded.through, bytes = excluded.bytes
                     WHERE (excluded.epoch, excluded.through) > (epoch, through)",
                )
                .bind(i64::from(partition.0))
                .bind(i64::from(epoch.0))
                .bind(through.cast_signed())
                .bind(Vec::from(bytes))
                .execute(connection)
                .await
            })
        },
        |_| {},
    );
    work.await.map(drop)
}

/// The table that was saved last.
pub(crate) async fn load(
    reads: &Reads,
    partition: Partition,
) -> Result<Option<SavedTable>, String> {
    let select = async {
        let row: Option<(u32, i64, Vec<u8>)> =
            sqlx::query_as("SELECT epoch, through, bytes FROM appender_tables WHERE partition = ?")
                .bind(i64::from(partition.0))
                .fetch_optional(&mut *reads.connection().await?)
                .await?;
        Ok(row.map(|(epoch, through, bytes)| SavedTable {
            epoch: Epoch(epoch),
            through: through.cast_unsigned(),
            bytes: Bytes::from(bytes),
        }))
    };
    reads.call("journal_load_table", select).await
}

/// The frame through which it counts.
pub(crate) async fn through(
    reads: &Reads,
    partition: Partition,
) -> Result<Option<(Epoch, FrameSeq)>, String> {
    let select = async {
        let row: Option<(u32, i64)> =
            sqlx::query_as("SELECT epoch, through FROM appender_tables WHERE partition = ?")
                .bind(i64::from(partition.0))
                .fetch_optional(&mut *reads.connection().await?)
                .await?;
        Ok(row.map(|(epoch, through)| (Epoch(epoch), through.cast_unsigned())))
    };
    reads.call("journal_saved_through", select).await
}
