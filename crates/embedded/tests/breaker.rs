//! The breaker of reads: opened by a file that does not answer as it should, closed when it does.

use sqlx::ConnectOptions as _;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, SystemClock};
use stormwire_embedded::{Embedded, EmbeddedConfig, FILE_NAME};
use stormwire_guard::GuardConfig;
use stormwire_testkit::{Folder, wait_until};

#[tokio::test]
async fn reads_that_fail_open_the_breaker_and_a_read_that_succeeds_closes_it() {
    let folder = Folder::temporary("breaker").unwrap();
    let path = folder.path().join(FILE_NAME);
    let read_guard = GuardConfig {
        open_after: 3,
        open_for: Duration::from_millis(100),
        ..GuardConfig::default()
    };
    let config = EmbeddedConfig { read_guard, ..EmbeddedConfig::default() };
    let embedded = Embedded::open(&path, config, Arc::new(SystemClock)).await.unwrap();
    let archive = embedded.archive();
    let channel = Channel::parse("t:a").unwrap();
    assert_eq!(archive.channel(&channel).await.unwrap(), None);

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut script = options.busy_timeout(Duration::from_secs(10)).connect().await.unwrap();
    sqlx::query("ALTER TABLE channels RENAME TO gone").execute(&mut script).await.unwrap();
    for _ in 0..3 {
        let error = archive.channel(&channel).await.unwrap_err().to_string();
        assert!(error.contains("channels"), "{error}");
    }
    let refused = archive.channel(&channel).await.unwrap_err().to_string();
    assert!(!refused.contains("no such table"), "the breaker lets reads through: {refused}");

    sqlx::query("ALTER TABLE gone RENAME TO channels").execute(&mut script).await.unwrap();
    wait_until("the breaker closes", Duration::from_secs(10), || {
        let (archive, channel) = (Arc::clone(&archive), channel.clone());
        async move { archive.channel(&channel).await.is_ok() }
    })
    .await;
    for _ in 0..5 {
        assert_eq!(archive.channel(&channel).await.unwrap(), None);
    }
    embedded.close().await;
}
