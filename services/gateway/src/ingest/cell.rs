//! What the callers and the task of one partition share: the lane, behind a lock that is held for
//! moments only, and how the partition stands.

use super::api::{Answers, IngestConfig, PartitionStatus, Published, Role};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::lane::{Answer, Lane, LaneConfig};
use tokio::sync::Notify;

/// Where the answer of one submission goes.
pub(super) struct Ticket {
    pub(super) ticket: u64,
    pub(super) answers: Arc<dyn Answers>,
}

pub(super) struct Cell {
    pub(super) partition: Partition,
    pub(super) lane: Mutex<Lane<Ticket>>,
    /// Wakes the partition's task.
    pub(super) wake: Notify,
    pub(super) view: Mutex<View>,
}

/// How the partition stands, as its task last saw it.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) role: Role,
    pub(super) owner: Option<Arc<str>>,
    pub(super) epoch: Option<Epoch>,
    pub(super) claim: FrameSeq,
    pub(super) last: FrameSeq,
    pub(super) unsettled_since: Option<Duration>,
    pub(super) clock_skew_ms: Option<i64>,
    pub(super) problem: Option<String>,
    pub(super) rewound: bool,
    /// The task is gone: nobody serves the lane any more.
    pub(super) ended: bool,
}

impl Cell {
    pub(super) fn new(partition: Partition, config: &IngestConfig, process: [u8; 16]) -> Self {
        let life = process.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        let lane = LaneConfig {
            producer: Arc::from(format!("lane~{life}")),
            bytes_max: config.lane_bytes_max,
            connection_bytes_max: config.connection_bytes_max,
            deadline: config.publish_deadline,
        };
        let view = View {
            role: Role::Follower,
            owner: None,
            epoch: None,
            claim: 0,
            last: 0,
            unsettled_since: None,
            clock_skew_ms: None,
            problem: None,
            rewound: false,
            ended: false,
        };
        Self {
            partition,
            lane: Mutex::new(Lane::new(lane)),
            wake: Notify::new(),
            view: Mutex::new(view),
        }
    }

    /// Whether nothing waits in the lane that came before `since`, and the partition is not owned here unless
    /// there are no `others` who could own it; or nobody is there any more to do anything about it.
    pub(super) fn is_drained(&self, since: Duration, others: bool) -> bool {
        let (owned, ended) = {
            let view = self.view.lock();
            (view.role == Role::Owner, view.ended)
        };
        let waits = self.lane.lock().oldest().is_some_and(|came| came <= since);
        ended || !(waits || others && owned)
    }

    pub(super) fn status(&self, now: Duration) -> PartitionStatus {
        let lane_bytes = self.lane.lock().bytes();
        let view = self.view.lock().clone();
        PartitionStatus {
            partition: self.partition,
            role: view.role,
            owner: view.owner.map(|owner| owner.as_ref().to_owned()),
            epoch: view.epoch,
            last: view.last,
            lane_bytes,
            unsettled: view
                .unsettled_since
                .map_or(Duration::ZERO, |since| now.saturating_sub(since)),
            clock_skew_ms: view.clock_skew_ms,
            problem: view.problem,
            rewound: view.rewound,
        }
    }
}

/// Hands answers to those who wait for them. Never called with a lock held.
pub(super) fn deliver(answers: Vec<Answer<Ticket>>) {
    for (Ticket { ticket, answers }, answer) in answers {
        let answer = answer.map(|(epoch, stored)| Published {
            epoch,
            first: stored.first,
            last: stored.last,
            duplicate: stored.duplicate,
            dead_letters: 0,
        });
        answers.answer(ticket, answer);
    }
}
