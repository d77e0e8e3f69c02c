//! The journal's conformance suite, each property on a nats-server of its own.

use std::sync::Arc;
use stormwire_journal::suite::{LOG_BYTES_MAX, Subject};
use stormwire_journal_nats::{NatsConfig, NatsJournal};
use stormwire_testkit::nats::NatsServer;

/// No way to make a hole: streams deny deletes, which is what keeps holes out.
async fn fresh() -> Option<Subject> {
    let server = NatsServer::start().await?;
    let config =
        NatsConfig { urls: vec![server.url()], max_bytes: LOG_BYTES_MAX, ..NatsConfig::default() };
    let journal = NatsJournal::connect(config).await.expect("the configuration is good");
    Some(Subject { journal: Arc::new(journal), hole: None, keep: Box::new(server) })
}

stormwire_journal::journal_suite!(fresh);
