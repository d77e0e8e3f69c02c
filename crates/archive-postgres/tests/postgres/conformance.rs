//! The port's own suite.

use crate::kit::Kit;
use std::sync::Arc;
use stormwire_archive::suite::Subject;

async fn fresh() -> Option<Subject> {
    let Kit { archive, postgres, .. } = Kit::start().await?;
    let settings = Arc::new(archive.clone());
    Some(Subject { archive: Arc::new(archive), settings, keep: Box::new(postgres) })
}

stormwire_archive::archive_suite!(fresh);
