//! What the NATS nodes say about the journal's streams, by their monitoring endpoint.

use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use stormwire_testkit::nats::NatsCluster;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// One partition's log as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) partition: u16,
    pub(crate) epoch: u32,
    /// Index of the node that leads.
    pub(crate) leader: usize,
    pub(crate) last_seq: u64,
    pub(crate) bytes: u64,
}

/// The streams whose leader answers, by name.
pub(crate) async fn streams(nats: &NatsCluster) -> BTreeMap<String, Stream> {
    let mut streams = BTreeMap::new();
    for (index, node) in nats.nodes().iter().enumerate() {
        let url = node.monitor_url();
        let asked = get(&url, "/jsz?accounts=true&streams=true");
        let Ok(Some(answer)) = tokio::time::timeout(ANSWER_WITHIN, asked).await else { continue };
        let accounts = answer["account_details"].as_array().cloned().unwrap_or_default();
        for detail in
            accounts.iter().filter_map(|account| account["stream_detail"].as_array()).flatten()
        {
            let leads = detail["cluster"]["leader"] == format!("nats-{}", index + 1);
            if let Some(stream) = leads.then(|| stream(detail, index)).flatten() {
                streams.insert(detail["name"].as_str().unwrap_or_default().to_owned(), stream);
            }
        }
    }
    streams
}

fn stream(detail: &Value, leader: usize) -> Option<Stream> {
    let (partition, epoch) = detail["name"].as_str()?.strip_prefix("STORM_")?.split_once('_')?;
    let state = &detail["state"];
    Some(Stream {
        partition: partition.parse().ok()?,
        epoch: epoch.parse().ok()?,
        leader,
        last_seq: state["last_seq"].as_u64()?,
        bytes: state["bytes"].as_u64()?,
    })
}

/// How many partitions each node leads.
pub(crate) async fn leaders(nats: &NatsCluster) -> Vec<usize> {
    let mut leads = vec![0; nats.nodes().len()];
    for stream in streams(nats).await.into_values() {
        leads[stream.leader] += 1;
    }
    leads
}

async fn get(url: &str, path: &str) -> Option<Value> {
    let host = url.strip_prefix("http://")?;
    let mut socket = TcpStream::connect(host).await.ok()?;
    let question = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    socket.write_all(question.as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}
