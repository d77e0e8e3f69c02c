//! The embedded archive passes the suite of its port.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use stormwire_archive::suite::Subject;
use stormwire_core::SystemClock;
use stormwire_embedded::{Embedded, EmbeddedConfig, FILE_NAME};
use stormwire_testkit::Folder;

async fn fresh() -> Option<Subject> {
    let folder = Folder::temporary("embedded").unwrap();
    let path = folder.path().join(FILE_NAME);
    let opened = Embedded::open(path, EmbeddedConfig::default(), Arc::new(SystemClock)).await;
    let embedded = opened.unwrap();
    let (archive, settings) = (embedded.archive(), embedded.settings());
    Some(Subject { archive, settings, keep: Box::new((embedded, folder)) })
}

stormwire_archive::archive_suite!(fresh);
