//! Saved tables of producers.

use super::{E, P, Subject};
use crate::SavedTable;
use bytes::Bytes;
use futures::future::join_all;
use stormwire_core::{Epoch, FrameSeq, Partition};

/// A table whose content tells its number, so that a mixture of two is seen.
fn table(epoch: Epoch, through: FrameSeq, len: usize) -> SavedTable {
    let numbers = std::iter::repeat_n(through.to_le_bytes(), len.div_ceil(8));
    let mut bytes: Vec<u8> = numbers.flatten().collect();
    bytes.truncate(len);
    SavedTable { epoch, through, bytes: Bytes::from(bytes) }
}

async fn assert_saved(subject: &Subject, partition: Partition, expected: &SavedTable) {
    let found = subject.journal.load_table(partition).await.expect("the table is read");
    assert_eq!(found.as_ref(), Some(expected));
    let through = subject.journal.saved_through(partition).await.expect("its number is told");
    assert_eq!(through, Some((expected.epoch, expected.through)));
}

/// Content, of every size.
pub async fn a_saved_table_comes_back_as_it_was(subject: &Subject) {
    let journal = &*subject.journal;
    journal.open(P).await.expect("the log opens");
    assert_eq!(journal.load_table(P).await, Ok(None));
    assert_eq!(journal.saved_through(P).await, Ok(None));
    for (through, len) in [(1, 0), (2, 1), (3, 3_000_000), (4, 1 << 20), (9, 100)] {
        let table = table(E, through, len);
        journal.save_table(P, table.clone()).await.expect("the table is saved");
        assert_saved(subject, P, &table).await;
    }
    assert_eq!(journal.load_table(Partition(4)).await, Ok(None), "another partition's");
    let tip = journal.tip(P).await.expect("the tip is told");
    assert_eq!((tip.first, tip.last), (1, 0), "a table is no frame");
}

/// B7: a late write is only older.
pub async fn an_older_table_never_takes_the_place_of_a_newer_one(subject: &Subject) {
    let journal = &*subject.journal;
    journal.open(P).await.expect("the log opens");
    for (epoch, through, is_newer) in
        [(1, 10, true), (1, 9, false), (1, 11, true), (2, 5, true), (1, 500, false), (2, 6, true)]
    {
        let before = journal.load_table(P).await.expect("the table is read");
        let late = table(Epoch(epoch), through, 1000);
        journal.save_table(P, late.clone()).await.expect("it is saved or dropped");
        let expected = if is_newer { Some(late) } else { before };
        assert_saved(subject, P, &expected.expect("one was saved")).await;
    }
}

/// Two that both believe to own the partition.
pub async fn tables_saved_side_by_side_leave_one_whole(subject: &Subject) {
    let journal = &*subject.journal;
    journal.open(P).await.expect("the log opens");
    for round in 1..4 {
        let tables: Vec<_> = (0..3).map(|n| table(E, round * 10 + n, 900_000)).collect();
        join_all(tables.iter().map(|table| journal.save_table(P, table.clone()))).await;
        // One may have torn the other; what is told is never a mixture.
        if let Some(found) = journal.load_table(P).await.expect("the table is read") {
            assert!(tables.contains(&found) || found.through < round * 10, "a mixture");
        }
    }
    let last = table(E, 100, 900_000);
    journal.save_table(P, last.clone()).await.expect("the table is saved");
    assert_saved(subject, P, &last).await;
}
