//! What a gateway tells of itself once a second, beside its metrics (docs/stats.md).

use crate::gateway::Gateway;
use crate::ingest::{PartitionStatus, Role};
use serde::Serialize;

/// Channels told of.
const CHANNELS: usize = 10;

/// A gateway's own figures.
#[derive(Debug, Serialize)]
pub struct GatewayStats {
    /// How many gateways it knows to live, itself included.
    pub gateways: u64,
    /// Every partition as it sees it.
    pub partitions: Vec<PartitionStats>,
    /// The channels that most is published to through it.
    pub channels: Vec<ChannelStats>,
}

/// One partition.
#[derive(Debug, Serialize)]
pub struct PartitionStats {
    partition: u16,
    role: &'static str,
    owner: Option<String>,
    epoch: Option<u32>,
    last: u64,
    lane_bytes: usize,
    problem: Option<String>,
}

/// One busy channel.
#[derive(Debug, Serialize)]
pub struct ChannelStats {
    channel: String,
    events_per_second: f64,
}

impl From<PartitionStatus> for PartitionStats {
    fn from(status: PartitionStatus) -> Self {
        Self {
            partition: status.partition.0,
            role: match status.role {
                Role::Owner => "owner",
                Role::Claiming => "claiming",
                Role::Follower => "follower",
            },
            owner: status.owner,
            epoch: status.epoch.map(|epoch| epoch.0),
            last: status.last,
            lane_bytes: status.lane_bytes,
            problem: status.problem,
        }
    }
}

impl Gateway {
    /// How the gateway stands now. Costs no call to anything it stands on.
    #[must_use]
    pub fn stats(&self) -> GatewayStats {
        let ingest = &self.context.ingest;
        let rounded = |rate: f64| (rate * 10.0).round() / 10.0;
        let channels = ingest.hot_channels(CHANNELS).into_iter().map(|(channel, rate)| {
            ChannelStats { channel: channel.to_string(), events_per_second: rounded(rate) }
        });
        GatewayStats {
            gateways: ingest.gateways(),
            partitions: ingest.status().into_iter().map(PartitionStats::from).collect(),
            channels: channels.collect(),
        }
    }
}
