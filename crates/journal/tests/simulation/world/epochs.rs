//! Rule E in the world: the journal goes back, a tail finds it out, an operator begins the next epoch.

use super::node::Node;
use super::{Event, World};
use crate::log::Log;
use crate::port::Port;
use rand::Rng;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::epoch::{NewEpoch, begin_next};
use stormwire_journal::rewind::{Evidence, prove};
use stormwire_journal::{Op, OpResult};
use stormwire_wire::frame::{Body, Frame, FrameId};

/// A tail of a gateway that lives through the world: the last frame that it has delivered.
#[derive(Default)]
pub(crate) struct Tail {
    delivered: Option<(Epoch, FrameSeq, FrameId)>,
}

impl Tail {
    /// A live frame, or what was read, up to the log's end.
    pub(crate) fn hears(&mut self, log: &Log) {
        if let Some(frame) = log.frames.last()
            && self.delivered.is_none_or(|(epoch, seq, _)| (epoch, seq) < (frame.epoch, frame.seq))
        {
            let id = Frame::peek_id(&frame.bytes).unwrap();
            self.delivered = Some((frame.epoch, frame.seq, id));
        }
    }
}

impl Node {
    /// How far it knows the log for certain: what it has written, and what it has read to the end.
    pub(crate) fn remembers(&mut self) {
        let owned = self.appender.owned().map(|(epoch, _)| (epoch, self.appender.last()));
        let read = self.appender.log_end().map(|end| (end.epoch, end.last));
        self.seen = self.seen.max(owned.max(read).unwrap_or(self.seen));
    }

    /// What it was given to read: perhaps the word that the log has gone back.
    pub(crate) fn reads(&mut self, result: &OpResult) {
        let OpResult::Read(Ok(frames)) = result else { return };
        for frame in frames {
            if let Body::Rewound { .. } = Frame::decode(&frame.bytes).unwrap().body {
                self.told = self.told.max(Some((frame.epoch, frame.seq)));
            }
        }
    }
}

impl World {
    /// E1: nobody claims a log of which he knows more than he read, or of which he read that it has gone
    /// back. A copy that was sent before may land behind that word.
    pub(crate) fn may_claim(&self, node: usize, op: &Op) {
        let Op::Append { epoch, expected_last, frame } = op else { return };
        let Body::Claim { .. } = Frame::decode(frame).unwrap().body else { return };
        let Node { seen, told, .. } = &self.nodes[node];
        assert!(
            (*epoch, *expected_last) >= *seen,
            "E1: {node} claims {expected_last}, seen: {seen:?}, gone back: {:?}",
            self.log
                .rewinds
                .iter()
                .map(|it| (it.epoch, it.last, it.lost.len()))
                .collect::<Vec<_>>()
        );
        let again = self.log.rewinds.iter().filter(|rewind| rewind.epoch == *epoch).count() > 1;
        let was_told = told.is_some_and(|(of, seq)| of == *epoch && seq <= *expected_last);
        assert!(again || !was_told, "E1: it claims {expected_last} behind {told:?}");
    }

    /// An older store is restored.
    pub(crate) fn go_back(&mut self) {
        let frames = self.rng.random_range(1..12);
        let with_table = self.rng.random_bool(0.5);
        let epoch = self.log.epoch();
        let known = self.tail.delivered.filter(|(of, ..)| *of == epoch).map(|(_, seq, _)| seq);
        self.log.go_back(frames, with_table, known);
    }

    /// Whether anything but the log's growth and its trims has happened to it.
    pub(crate) fn has_gone_on(&self) -> bool {
        !self.log.rewinds.is_empty() || !self.log.ended.is_empty()
    }

    /// Lets somebody use the journal as a port, at this moment.
    fn with_port<T>(&mut self, cut_after: Option<usize>, work: impl AsyncFnOnce(&Port) -> T) -> T {
        let now = super::BASE as u64 + self.now;
        let port = Port::new(std::mem::take(&mut self.log), now, cut_after);
        let outcome = crate::port::at_once(work(&port));
        self.log = port.into_log();
        outcome
    }

    /// As a tail does it: the last frame that it has delivered is in the log, by the same writer. Now and
    /// then one answers that is cut off from the others, and stores nothing.
    pub(crate) fn compares(&mut self) {
        if let Some((epoch, seen, id)) = self.tail.delivered {
            let found =
                self.log.get(epoch, seen).map(|frame| Frame::peek_id(&frame.bytes).unwrap());
            let is_old = !self.calm && self.rng.random_bool(0.2);
            let is_shorter = epoch == self.log.epoch() && self.log.last() < seen;
            let replaced = found.is_some_and(|found| found != id);
            if is_shorter || replaced || is_old {
                let evidence = Evidence { epoch, seen, replaced };
                let cut_after = is_old.then(|| self.rng.random_range(0..3));
                let proved = self
                    .with_port(cut_after, async |port| prove(port, Partition(0), evidence).await);
                let may_be = self.log.rewinds.iter().any(|rewind| rewind.epoch >= epoch);
                assert!(may_be || !matches!(proved, Ok(true)), "a sound log was called gone back");
            } else {
                self.tail.hears(&self.log);
            }
        } else {
            self.tail.hears(&self.log);
        }
        let every = self.rng.random_range(500..1_500);
        self.at(self.now + every, Event::Compares);
    }

    /// `stormwire journal new-epoch`, where the log waits for it or for nothing; killed now and then.
    pub(crate) fn operates(&mut self) {
        let for_nothing = self.goes_back && !self.calm && self.rng.random_bool(0.05);
        if self.log.is_told() || for_nothing {
            let cut_after =
                (!self.calm && self.rng.random_bool(0.3)).then(|| self.rng.random_range(0..6));
            let id = FrameId { appender: self.rng.random(), counter: 1 };
            let new = NewEpoch { archived: None, id, discard: false };
            let begun =
                self.with_port(cut_after, async |port| begin_next(port, Partition(0), new).await);
            assert!(!self.calm || begun.is_ok(), "{begun:?}");
        }
        let every = self.rng.random_range(1_000..6_000);
        self.at(self.now + every, Event::Operates);
    }
}
