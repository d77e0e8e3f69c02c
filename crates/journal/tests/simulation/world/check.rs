//! What the log must say at the end of a run.

use super::World;
use crate::client::End;
use std::collections::{HashMap, HashSet};
use stormwire_core::{Epoch, Offset};
use stormwire_journal::StoredFrame;
use stormwire_wire::frame::{Body, Frame};

/// Where events stand, by client and number.
type Places = HashMap<String, HashMap<u64, Vec<(Epoch, Offset)>>>;

impl World {
    /// Compares the log with what the clients were told.
    pub(crate) fn check(&mut self) {
        self.check_epochs();
        let stored = places(self.log.all());
        // E: what went with a log that has gone back was stored, and is lost.
        let lost = places(self.log.rewinds.iter().flat_map(|rewind| &rewind.lost));
        let nowhere = HashMap::new();
        // A late copy may stand at the number of a frame that is gone, and then nobody finds it out; what
        // stands in other logs is held to the rules.
        let over: HashSet<Epoch> = {
            let over = self.log.rewinds.iter().filter(|rewind| rewind.is_written_over);
            over.map(|rewind| rewind.epoch).collect()
        };
        let is_over = |at: &[(Epoch, Offset)]| at.iter().any(|(epoch, _)| over.contains(epoch));
        for (at, client) in self.clients.iter().enumerate() {
            let mut last = (Epoch(0), Offset(0));
            let mut offsets = stored.get(&at.to_string()).cloned().unwrap_or_default();
            let gone = lost.get(&at.to_string()).unwrap_or(&nowhere);
            for (publish, end) in &client.ended {
                let through = publish.seq + publish.count as u64 - 1;
                for number in publish.seq..=through {
                    let found = offsets.remove(&number).unwrap_or_default();
                    let who = format!("client {at}, event {number}, {end:?}: stored at {found:?}");
                    assert!(found.len() <= 1 || is_over(&found), "stored twice: {who}");
                    match end {
                        End::Acknowledged { epoch, first, last } => {
                            let told = |place: &(Epoch, Offset)| {
                                place.0 == *epoch
                                    && (number != publish.seq || place.1 == *first)
                                    && (number != through || place.1 == *last)
                            };
                            let is_gone = gone.get(&number).is_some_and(|at| at.iter().any(told));
                            assert!(is_gone || found.iter().any(told), "lost: {who}");
                        }
                        End::Refused => assert!(found.is_empty(), "refused, but stored: {who}"),
                        End::Uncertain => {}
                    }
                }
                if let End::Acknowledged { .. } = end {
                    self.summary.acknowledged += publish.count;
                }
            }
            assert!(offsets.is_empty(), "client {at}: never sent, but stored: {offsets:?}");
            // One producer's events keep the order of their numbers.
            if client.producer.is_some() {
                let mut all: Vec<_> = stored.get(&at.to_string()).into_iter().flatten().collect();
                all.sort();
                for (number, found) in all.into_iter().filter(|(_, found)| !is_over(found)) {
                    assert!(found[0] > last, "client {at}: event {number} is out of order");
                    last = found[0];
                }
            }
        }
        assert!(!stored.contains_key("bad"), "a number was stored twice without `again`");
    }

    /// E: whoever goes on behind the end of a log, or of an epoch, and what is told of it.
    fn check_epochs(&mut self) {
        let ended = self.log.ended.iter().map(|ended| (ended.tip.first, &ended.frames));
        for (first, frames) in ended.chain([(self.log.tip().first, &self.log.frames)]) {
            let (mut is_told, mut is_closed, mut lost_from) = (false, false, None::<u64>);
            for frame in frames {
                // Of a log that has gone back a late copy may find its number again.
                let gone_back = self.log.rewinds.iter().any(|rewind| rewind.epoch == frame.epoch);
                assert!(!is_closed || gone_back, "E2: {} stands behind a close", frame.seq);
                match Frame::decode(&frame.bytes).unwrap().body {
                    // What was trimmed is not there to say it.
                    Body::Rewound { .. } if frame.seq < first => {}
                    Body::Rewound { lost_from: from, .. } => {
                        is_told = true;
                        lost_from = Some(lost_from.map_or(from, |so_far| so_far.min(from)));
                    }
                    Body::Close { lost_from: from, .. } => {
                        is_closed = true;
                        assert_eq!(is_told, from.is_some(), "E2: a close says what its log says");
                        assert!(from <= lost_from, "E2: {from:?} is told of {lost_from:?}");
                        lost_from = from;
                    }
                    Body::Claim { .. } | Body::Events(_) => {}
                }
            }
            let Some(epoch) = frames.first().map(|frame| frame.epoch) else { continue };
            let rewinds = self.log.rewinds.iter().filter(|rewind| rewind.epoch == epoch);
            let once = rewinds.clone().count() == 1;
            for rewind in rewinds {
                self.summary.found += usize::from(lost_from.is_some());
                if once && rewind.is_known && !rewind.is_written_over {
                    let told = lost_from.is_some_and(|from| from <= rewind.last + 1);
                    assert!(told, "E1: lost from {} on, told: {lost_from:?}", rewind.last + 1);
                }
            }
        }
        self.summary.rewinds += self.log.rewinds.len();
        self.summary.epochs += self.log.ended.len();
    }
}

fn places<'a>(frames: impl Iterator<Item = &'a StoredFrame>) -> Places {
    let mut places = Places::new();
    for frame in frames {
        let decoded = Frame::decode(&frame.bytes).unwrap();
        let Some(events) = decoded.events() else { continue };
        for event in events.runs().flat_map(|run| run.events()) {
            let text = std::str::from_utf8(event.data).unwrap().trim_matches('"');
            let (who, number) = text.split_once(':').unwrap();
            let place = (frame.epoch, Offset::new(frame.seq, event.index));
            let numbers = places.entry(who.to_owned()).or_default();
            numbers.entry(number.parse().unwrap()).or_default().push(place);
        }
    }
    places
}
