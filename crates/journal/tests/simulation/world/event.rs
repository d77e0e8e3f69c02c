//! What happens in the world.

use super::tables::Saving;
use stormwire_core::{Epoch, FrameSeq};
use stormwire_journal::publish::{Outcome, Publish};
use stormwire_journal::{Op, OpResult};

pub(crate) enum Event {
    /// An operation reaches the journal; its answer is due at `answers`.
    Arrives {
        node: usize,
        life: u64,
        op: usize,
        answers: Option<u64>,
        what: Op,
        begun: u64,
    },
    /// The answer reaches the appender.
    Answers {
        node: usize,
        life: u64,
        op: usize,
        result: OpResult,
    },
    Asked {
        to: usize,
        claim: FrameSeq,
        from: (usize, u64, usize),
        items: Vec<Publish>,
    },
    Replied {
        to: (usize, u64, usize),
        outcomes: Replied,
    },
    /// A node hears who owns the partition.
    Rumour {
        node: usize,
        owner: (usize, FrameSeq),
    },
    /// A table reaches the journal.
    Saves(Saving),
    /// The answer reaches the appender.
    Saved {
        node: usize,
        life: u64,
        done: bool,
    },
    Wake {
        node: usize,
    },
    Client {
        client: usize,
    },
    Chaos,
    Restart {
        node: usize,
    },
    /// A tail compares what it has delivered with the log.
    Compares,
    /// An operator looks after the journal.
    Operates,
}

/// What another's appender made of a batch; `None`: moved.
pub(crate) type Replied = Option<(Epoch, Vec<Outcome>)>;
