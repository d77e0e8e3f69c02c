//! The scenario `full-rate-small-journal`: events come faster than a stopped worker lets the journal
//! forget them.

use crate::fleet::{Fleet, Load};
use crate::kit::PATIENCE;
use std::time::Duration;
use stormwire_testkit::wait_until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes of an event: some hundreds of them fill the smallest journal.
const BYTES: usize = 16 * 1024;
const PACE: Duration = Duration::from_millis(2);

/// The answer to one publish by REST, head and body.
async fn post(url: &str, token: &str) -> String {
    let host = url.strip_prefix("http://").unwrap();
    let body = "{\"data\":1}";
    let request = format!(
        "POST /v1/channels/probe:a/events HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.to_lowercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_journal_refuses_and_goes_on_by_itself_with_nothing_lost_or_doubled() {
    let settings = [
        ("STORMWIRE_PARTITIONS", "1"),
        ("STORMWIRE_JOURNAL_BYTES_MAX", "16MiB"),
        ("STORMWIRE_MESSAGES_LEASE", "2s"),
        ("STORMWIRE_LIMITS_REST_REQUESTS_PER_MINUTE", "1000000"),
    ];
    let Some(fleet) = Fleet::start("small-journal", &settings).await else { return };
    let gateways = [fleet.gateway("gateway").await];
    let worker = fleet.worker("worker").await;
    let load = Load::sized(&fleet, &gateways, 2, PACE, BYTES).await;
    load.goes_on(20).await;
    worker.server.pause().await;
    let url = gateways[0].url();
    wait_until("a full journal refuses", PATIENCE, || async {
        let answer = post(&url, &fleet.token).await;
        answer.contains("journal_unavailable") && answer.contains("retry-after: ")
    })
    .await;
    worker.server.resume().await;
    load.goes_on(50).await;
    let outcome = load.finish().await;
    fleet.assert_stored(&outcome.sent).await;
}
