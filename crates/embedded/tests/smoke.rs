//! The engine as a whole: opening, locking, coming back.

use bytes::Bytes;
use std::sync::Arc;
use stormwire_core::{Epoch, Partition, SystemClock};
use stormwire_embedded::{Embedded, EmbeddedConfig, OpenError};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let directory = tempdir();
    let path = directory.join("deep/stormwire.db");
    for round in 0..3u64 {
        let config = EmbeddedConfig::default();
        let embedded = Embedded::open(&path, config, Arc::new(SystemClock)).await.unwrap();
        let journal = embedded.journal();
        let tip = journal.open(Partition(3)).await.unwrap();
        assert_eq!((tip.first, tip.last), (1, round));
        let frame = Bytes::from(format!("frame {round}"));
        let seq = journal.append(Partition(3), Epoch::FIRST, round, frame).await.unwrap();
        assert_eq!(seq, round + 1);
        embedded.close().await;
        assert!(journal.append(Partition(3), Epoch::FIRST, seq, Bytes::new()).await.is_err());
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_second_opener_is_told_the_file_and_the_remedy() {
    let directory = tempdir();
    let path = directory.join("stormwire.db");
    let open = || Embedded::open(&path, EmbeddedConfig::default(), Arc::new(SystemClock));
    let first = open().await.unwrap();
    let refused = open().await.err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }));
    let text = refused.to_string();
    assert!(text.contains("stormwire.db") && text.contains("--data-dir"), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    first.close().await;
    open().await.unwrap().close().await;
    std::fs::remove_dir_all(directory).unwrap();
}

fn tempdir() -> std::path::PathBuf {
    let name = format!("stormwire-embedded-{}-{:?}", std::process::id(), std::time::Instant::now());
    let path = std::env::temp_dir().join(name.replace([' ', '{', '}', ':', ','], "-"));
    std::fs::create_dir_all(&path).unwrap();
    path
}
