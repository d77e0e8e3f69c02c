//! The records of a history: one JSON object a line. `docs/histories.md` describes them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A place in a partition's log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Position {
    /// The journal's incarnation.
    pub epoch: u32,
    /// The place in it.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

/// One event in the archive: a line of `archive.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Of which partition its channel is.
    pub partition: u16,
    /// Its channel.
    pub channel: String,
    /// Where it stands.
    #[serde(flatten)]
    pub position: Position,
    /// What it says.
    pub data: String,
}

/// What one producer did and was told: a line of `producer-NAME.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum ProducerRecord {
    /// A publish is about to go on the wire, or part of it did.
    Attempt {
        /// When, Unix milliseconds.
        t: u64,
        /// Its number, used once by this producer.
        attempt: u64,
        /// The sequence number of its first event; event `i` has `seq + i`.
        seq: u64,
        /// Where to.
        channel: String,
        /// The data of its events, each unlike any other in the history.
        data: Vec<String>,
        /// The `again` that it carried.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again: Option<u64>,
    },
    /// The attempt was answered with `published`.
    Acknowledged {
        /// When.
        t: u64,
        /// Which.
        attempt: u64,
        /// The journal's incarnation.
        epoch: u32,
        /// The offset of its first event.
        first: u64,
        /// The offset of its last event.
        last: u64,
        /// Whether the server said that an earlier attempt had stored it.
        #[serde(default)]
        duplicate: bool,
    },
    /// The attempt was refused: it stored nothing.
    Refused {
        /// When.
        t: u64,
        /// Which.
        attempt: u64,
        /// The refusal's code.
        code: String,
    },
    /// Nobody can say what became of the attempt: no answer came, or one that says so.
    Unknown {
        /// When.
        t: u64,
        /// Which.
        attempt: u64,
        /// Why.
        why: String,
    },
    /// The producer ends, after everything was healed and it had time to finish.
    End {
        /// When.
        t: u64,
        /// The sequence numbers of publishes that never got a final answer.
        unsettled: Vec<u64>,
    },
}

/// What one subscriber saw: a line of `subscriber-NAME.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum SubscriberRecord {
    /// A subscription begins.
    Subscribed {
        /// When.
        t: u64,
        /// To which channel.
        channel: String,
        /// The position in the answer.
        #[serde(flatten)]
        position: Position,
        /// The position that was asked for; none: from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Position>,
    },
    /// An event came.
    Event {
        /// When.
        t: u64,
        /// On which channel.
        channel: String,
        /// Where it stands.
        #[serde(flatten)]
        position: Position,
        /// What it says.
        data: String,
    },
    /// The server told that what is after `from` up to `to` can't be given.
    Gap {
        /// When.
        t: u64,
        /// On which channel.
        channel: String,
        /// Where the subscriber stood.
        from: Position,
        /// Where it stands now.
        to: Position,
    },
    /// The connection was lost or given up.
    Lost {
        /// When.
        t: u64,
        /// Why.
        why: String,
    },
    /// The subscriber ends.
    End {
        /// When.
        t: u64,
        /// Whether it was connected and had time to catch up, so that nothing may be missing.
        live: bool,
    },
}

impl ProducerRecord {
    /// When it was.
    #[must_use]
    pub fn time(&self) -> u64 {
        match self {
            Self::Attempt { t, .. }
            | Self::Acknowledged { t, .. }
            | Self::Refused { t, .. }
            | Self::Unknown { t, .. }
            | Self::End { t, .. } => *t,
        }
    }
}

impl SubscriberRecord {
    /// When it was.
    #[must_use]
    pub fn time(&self) -> u64 {
        match self {
            Self::Subscribed { t, .. }
            | Self::Event { t, .. }
            | Self::Gap { t, .. }
            | Self::Lost { t, .. }
            | Self::End { t, .. } => *t,
        }
    }
}
