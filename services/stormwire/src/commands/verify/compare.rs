//! What is found, decided without IO.

use serde::Serialize;
use stormwire_archive::{Gap, StoredEvent};
use stormwire_core::{Epoch, FrameSeq, Offset, Position};
use stormwire_journal::StoredFrame;
use stormwire_wire::frame::{Body, Frame};

/// Examples that are shown of what is wrong.
const EXAMPLES: usize = 10;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Example {
    position: String,
    channel: String,
    what: &'static str,
}

/// What was found of one partition.
#[derive(Debug, Clone)]
pub(super) struct Findings {
    pub(super) from: Position,
    pub(super) to: Position,
    /// Rows that were looked at.
    pub(super) events: u64,
    /// Of those, how many beside the journal's.
    pub(super) compared: u64,
    pub(super) known_missing: u64,
    pub(super) wrong: u64,
    pub(super) examples: Vec<Example>,
    last: Option<Position>,
    /// The log of this epoch had gone back, or was made anew: from this frame on it knows nothing.
    lost: Option<(Epoch, FrameSeq)>,
}

impl Findings {
    pub(super) fn new(from: Position) -> Self {
        Self {
            from,
            to: from,
            events: 0,
            compared: 0,
            known_missing: 0,
            wrong: 0,
            examples: Vec::new(),
            last: None,
            lost: None,
        }
    }

    fn complain(&mut self, position: Position, channel: &str, what: &'static str) {
        self.wrong += 1;
        if self.examples.len() < EXAMPLES {
            let (position, channel) = (position.to_string(), channel.to_owned());
            self.examples.push(Example { position, channel, what });
        }
    }

    /// A row of which the journal has nothing any more.
    pub(super) fn alone(&mut self, row: &StoredEvent) {
        self.events += 1;
        if self.last.is_some_and(|last| row.position <= last) {
            self.complain(
                row.position,
                row.channel.as_str(),
                "stored more than once, or out of order",
            );
        }
        self.last = Some(row.position);
    }

    /// A row behind all that the journal has below the ledger.
    pub(super) fn unknown(&mut self, row: &StoredEvent) {
        self.alone(row);
        let Position { epoch, offset } = row.position;
        if self.lost.is_some_and(|(lost, from)| lost == epoch && from <= offset.seq()) {
            return;
        }
        self.complain(row.position, row.channel.as_str(), "the journal does not have it");
    }

    /// A frame of the journal, and the rows before its end.
    pub(super) fn side_by_side(
        &mut self,
        stored: &StoredFrame,
        rows: &[StoredEvent],
        missing: &[Gap],
    ) {
        let mut rows = rows.iter().peekable();
        let frame = Frame::decode(&stored.bytes).ok();
        if let Some(Body::Close { lost_from: Some(from), .. }) =
            frame.as_ref().map(|frame| &frame.body)
        {
            self.lost = Some((stored.epoch, *from));
        }
        let events = frame.as_ref().and_then(Frame::events);
        for run in events.iter().flat_map(|events| events.runs()) {
            for event in run.events() {
                let offset = Offset::new(stored.seq, event.index);
                let position = Position { epoch: stored.epoch, offset };
                while let Some(row) = rows.next_if(|row| row.position < position) {
                    self.unknown(row);
                }
                let Some(row) = rows.next_if(|row| row.position == position) else {
                    if !missing.iter().any(|gap| is_in(gap, position)) {
                        self.complain(position, run.channel, "acknowledged and not stored");
                    }
                    continue;
                };
                self.alone(row);
                self.compared += 1;
                let same = row.channel.as_str() == run.channel
                    && row.user == run.user
                    && row.kind.as_deref() == event.kind
                    && row.key.as_deref() == event.key
                    && row.id.as_deref() == event.id
                    && row.binary == event.binary
                    && row.data == event.data
                    && row.ts == stored.ts;
                if !same {
                    self.complain(position, run.channel, "stored as another than it was published");
                }
            }
        }
        for row in rows {
            self.unknown(row);
        }
    }
}

fn is_in(gap: &Gap, position: Position) -> bool {
    gap.epoch == position.epoch && (gap.from..=gap.to).contains(&position.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormwire_core::{Channel, Partition, Timestamp};
    use stormwire_wire::frame::{EventParts, EventsBuilder, FrameBuilder, FrameId, close};

    fn frame(data: &[&str]) -> StoredFrame {
        let mut events = EventsBuilder::default();
        for data in data {
            events.push(&EventParts { data: data.as_bytes(), ..EventParts::default() }).unwrap();
        }
        let mut builder = FrameBuilder::default();
        let channel = Channel::parse("a:b").unwrap();
        assert_eq!(builder.push(&channel, "alice", "", 0, None, &events.take()), data.len());
        let bytes = builder.finish(FrameId { appender: [1; 16], counter: 2 });
        StoredFrame { partition: Partition(0), epoch: Epoch(1), seq: 7, ts: Timestamp(3), bytes }
    }

    fn row(index: u16, data: &str) -> StoredEvent {
        StoredEvent {
            channel: Channel::parse("a:b").unwrap(),
            position: Position { epoch: Epoch(1), offset: Offset::new(7, index) },
            ts: Timestamp(3),
            id: None,
            kind: None,
            key: None,
            user: "alice".to_owned(),
            data: data.to_owned().into(),
            binary: false,
        }
    }

    fn found(rows: &[StoredEvent], missing: &[Gap]) -> Vec<&'static str> {
        let from = Position { epoch: Epoch(1), offset: Offset(0) };
        let mut findings = Findings::new(from);
        findings.side_by_side(&frame(&["1", "2", "3"]), rows, missing);
        assert_eq!(findings.wrong, findings.examples.len() as u64);
        findings.examples.iter().map(|example| example.what).collect()
    }

    #[test]
    fn a_log_that_has_gone_back_says_nothing_of_what_it_lost() {
        let id = FrameId { appender: [1; 16], counter: 3 };
        let log_end = |lost_from| StoredFrame {
            seq: 8,
            bytes: close(id, Epoch(2), 100, lost_from),
            ..frame(&["1"])
        };
        for (lost_from, wrong) in [(None, 1), (Some(8), 1), (Some(7), 0)] {
            let mut findings = Findings::new(row(0, "1").position);
            findings.side_by_side(&log_end(lost_from), &[], &[]);
            findings.unknown(&row(0, "1"));
            assert_eq!(findings.wrong, wrong, "{lost_from:?}");
        }
    }

    #[test]
    fn each_way_to_be_wrong_is_told_apart() {
        let right = [row(0, "1"), row(1, "2"), row(2, "3")];
        assert_eq!(found(&right, &[]), [""; 0]);
        assert_eq!(found(&right[..2], &[]), ["acknowledged and not stored"]);
        let gap = |index| Gap {
            epoch: Epoch(1),
            from: Offset::new(7, index),
            to: Offset::new(7, index),
            reason: "refused by the database".to_owned(),
        };
        assert_eq!(found(&right[..2], &[gap(2)]), [""; 0]);
        assert_eq!(found(&right[..2], &[gap(1)]).len(), 1);
        let other = [row(0, "1"), row(1, "9"), row(2, "3")];
        assert_eq!(found(&other, &[]), ["stored as another than it was published"]);
        let twice = [row(0, "1"), row(1, "2"), row(1, "2"), row(2, "3")];
        assert!(found(&twice, &[]).contains(&"stored more than once, or out of order"));
        let more = [row(0, "1"), row(1, "2"), row(2, "3"), row(3, "4")];
        assert_eq!(found(&more, &[]), ["the journal does not have it"]);
    }
}
