//! What the log must say at the end of a run.

use super::World;
use crate::client::End;
use std::collections::HashMap;
use stormwire_core::Offset;
use stormwire_wire::frame::Frame;

impl World {
    /// Compares the log with what the clients were told.
    pub(crate) fn check(&mut self) {
        let stored = self.stored();
        for (at, client) in self.clients.iter().enumerate() {
            let mut last = Offset(0);
            let mut offsets = stored.get(&at.to_string()).cloned().unwrap_or_default();
            for (publish, end) in &client.ended {
                for number in publish.seq..publish.seq + publish.count as u64 {
                    let found = offsets.remove(&number).unwrap_or_default();
                    let who = format!("client {at}, event {number}, {end:?}: stored at {found:?}");
                    assert!(found.len() <= 1, "stored twice: {who}");
                    match end {
                        End::Acknowledged { .. } => assert_eq!(found.len(), 1, "lost: {who}"),
                        End::Refused => assert!(found.is_empty(), "refused, but stored: {who}"),
                        End::Uncertain => {}
                    }
                }
                if let End::Acknowledged { first, last: through } = end {
                    self.summary.acknowledged += publish.count;
                    let at_first = stored[&at.to_string()][&publish.seq][0];
                    let end = publish.seq + publish.count as u64 - 1;
                    let at_last = stored[&at.to_string()][&end][0];
                    assert_eq!((*first, *through), (at_first, at_last), "client {at}: {publish:?}");
                }
            }
            assert!(offsets.is_empty(), "client {at}: never sent, but stored: {offsets:?}");
            // One producer's events keep the order of their numbers.
            if client.producer.is_some() {
                let mut all: Vec<_> = stored.get(&at.to_string()).into_iter().flatten().collect();
                all.sort();
                for (number, found) in all {
                    assert!(found[0] > last, "client {at}: event {number} is out of order");
                    last = found[0];
                }
            }
        }
        assert!(!stored.contains_key("bad"), "a number was stored twice without `again`");
    }

    /// Where every event stands, by client and number.
    fn stored(&self) -> HashMap<String, HashMap<u64, Vec<Offset>>> {
        let mut stored: HashMap<String, HashMap<u64, Vec<Offset>>> = HashMap::new();
        for frame in &self.log.frames {
            let decoded = Frame::decode(&frame.bytes).unwrap();
            let Some(events) = decoded.events() else { continue };
            for event in events.runs().flat_map(|run| run.events()) {
                let text = std::str::from_utf8(event.data).unwrap().trim_matches('"');
                let (who, number) = text.split_once(':').unwrap();
                let offsets = stored.entry(who.to_owned()).or_default();
                let number = number.parse().unwrap();
                offsets.entry(number).or_default().push(Offset::new(frame.seq, event.index));
            }
        }
        stored
    }
}
