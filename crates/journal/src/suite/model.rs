//! Random actions on a journal and on a `Vec`: both must say the same.

use super::{E, Subject, body};
use crate::{AppendError, Journal};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::sync::atomic::{AtomicU16, Ordering};
use stormwire_core::{FrameSeq, Partition};
use tokio::runtime::Handle;

const CASES: u32 = 24;
/// Every case takes the next of so many partitions.
const PARTITIONS: u16 = 32;

#[derive(Debug, Clone)]
enum Action {
    Append {
        len: usize,
    },
    /// Expects a last frame that is off by this much.
    AppendWrong {
        off: i64,
    },
    Read {
        from: u64,
        frames: usize,
    },
    Frame {
        seq: u64,
    },
    Trim {
        through: u64,
    },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        4 => (8usize..2000).prop_map(|len| Action::Append { len }),
        1 => prop_oneof![-3i64..0, 1i64..4].prop_map(|off| Action::AppendWrong { off }),
        2 => (0u64..30, 1usize..10).prop_map(|(from, frames)| Action::Read { from, frames }),
        1 => (0u64..30).prop_map(|seq| Action::Frame { seq }),
        1 => (0u64..30).prop_map(|through| Action::Trim { through }),
    ];
    proptest::collection::vec(action, 1..40)
}

/// What the log should hold: frames after `base`, those up to `trimmed` removed.
struct Model {
    base: FrameSeq,
    trimmed: FrameSeq,
    frames: Vec<bytes::Bytes>,
}

impl Model {
    fn last(&self) -> FrameSeq {
        self.base + self.frames.len() as u64
    }

    fn get(&self, seq: FrameSeq) -> Option<&bytes::Bytes> {
        let there = seq > self.trimmed;
        let index = usize::try_from(seq.checked_sub(self.base + 1)?).ok()?;
        self.frames.get(index).filter(|_| there)
    }
}

/// The property.
pub async fn the_journal_agrees_with_a_model(subject: &Subject) {
    let next = AtomicU16::new(0);
    let handle = Handle::current();
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let run = |actions: Vec<Action>| {
        let partition = Partition(next.fetch_add(1, Ordering::Relaxed) % PARTITIONS);
        handle.block_on(check(&*subject.journal, partition, actions))
    };
    let outcome = tokio::task::block_in_place(|| TestRunner::new(config).run(&actions(), run));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

async fn check(
    journal: &dyn Journal,
    partition: Partition,
    actions: Vec<Action>,
) -> Result<(), TestCaseError> {
    let failed = |error: crate::JournalError| TestCaseError::fail(error.to_string());
    let base = journal.open(partition).await.map_err(failed)?.last;
    journal.trim(partition, E, base).await.map_err(failed)?;
    let mut model = Model { base, trimmed: base, frames: Vec::new() };
    for action in actions {
        step(journal, partition, &mut model, &action).await?;
        let tip = journal.tip(partition).await.map_err(failed)?;
        prop_assert_eq!((tip.first, tip.last), (model.trimmed + 1, model.last()), "{:?}", action);
    }
    Ok(())
}

async fn step(
    journal: &dyn Journal,
    partition: Partition,
    model: &mut Model,
    action: &Action,
) -> Result<(), TestCaseError> {
    let failed = |error: crate::JournalError| TestCaseError::fail(error.to_string());
    let last = model.last();
    match *action {
        Action::Append { len } => {
            let frame = body(last + 1, len);
            prop_assert_eq!(journal.append(partition, E, last, frame.clone()).await, Ok(last + 1));
            model.frames.push(frame);
        }
        Action::AppendWrong { off } => {
            let expected = last.saturating_add_signed(off);
            if expected != last {
                let refused = journal.append(partition, E, expected, body(0, 8)).await;
                prop_assert_eq!(refused, Err(AppendError::WrongLast { expected }));
            }
        }
        Action::Read { from, frames } => {
            let from = model.base + from;
            let found = journal.read(partition, E, from, frames, 1 << 20).await.map_err(failed)?;
            let found: Vec<_> = found.into_iter().map(|frame| (frame.seq, frame.bytes)).collect();
            let start = from.max(model.trimmed + 1);
            let due = (start..).map_while(|seq| model.get(seq).map(|body| (seq, body.clone())));
            prop_assert_eq!(found, due.take(frames).collect::<Vec<_>>());
        }
        Action::Frame { seq } => {
            let seq = model.base + seq;
            let found = journal.frame(partition, E, seq).await.map_err(failed)?;
            prop_assert_eq!(found.map(|frame| frame.bytes), model.get(seq).cloned());
        }
        Action::Trim { through } => {
            let through = (model.base + through).min(last);
            journal.trim(partition, E, through).await.map_err(failed)?;
            model.trimmed = model.trimmed.max(through);
        }
    }
    Ok(())
}
