//! One publish on its way through lane and appender, and what becomes of it.

use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, Offset, Refusal, Timestamp};
use stormwire_wire::frame::{EncodedEvents, TraceContext};

/// The time as the state machines take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since any fixed moment; never goes back. All waiting is reckoned by it.
    pub mono: Duration,
    /// The wall clock, for ages that leave this process and for the journal's timestamps.
    pub wall: Timestamp,
}

/// A (user, producer) as the appender knows it: a quarter of a SHA-256 of the user and a quarter of one of both, so that a
/// million of them are small, each names its user, and nobody can make his own collide with another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProducerKey(pub(crate) [u64; 2]);

impl ProducerKey {
    /// The key of `producer` of `user`.
    #[must_use]
    pub fn of(user: &str, producer: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update((user.len() as u64).to_le_bytes());
        hash.update(user.as_bytes());
        let of_user = first_word(hash.clone());
        hash.update(producer.as_bytes());
        Self([of_user, first_word(hash)])
    }

    /// A hash for tables in memory: the key is one already.
    #[must_use]
    pub const fn hash(self) -> u64 {
        self.0[1]
    }
}

fn first_word(hash: Sha256) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.finalize()[..8]);
    u64::from_le_bytes(bytes)
}

/// One publish as lanes hand it to an appender.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The connection in the gateway whose lane sent it. Order is fail-stop by it.
    pub connection: u64,
    /// Where the events go.
    pub channel: Channel,
    /// Who publishes.
    pub user: Arc<str>,
    /// The producer; the lane itself for events without one.
    pub producer: Arc<str>,
    /// The two above as a key.
    pub key: ProducerKey,
    /// The producer's number of the first event.
    pub seq: u64,
    /// For a repeat: when it was sent first.
    pub first_sent: Option<Timestamp>,
    /// The events, at least one.
    pub events: EncodedEvents,
    /// The publisher's trace.
    pub trace: Option<TraceContext>,
}

/// Where the events of a publish stand in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The first event's offset.
    pub first: Offset,
    /// The last event's.
    pub last: Offset,
    /// Whether all of it was there before.
    pub duplicate: bool,
}

/// What an appender says about one publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log, durably.
    Stored(Stored),
    /// It is not there and will not be; the producer is told why.
    Refused(Refusal),
    /// It is not there and this appender will not write it: ask the partition's new owner.
    NotStored,
    /// It may be there: ask the new owner, as a repeat.
    Unknown,
}
