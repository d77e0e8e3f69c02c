//! A history of a system that keeps its guarantees, made from a list of what happened.

use stormwire_checker::{
    Checker, Position, ProducerRecord, Row, SubscriberRecord, Verdict, check, explain,
};

/// Histories to be judged.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) rows: Vec<Row>,
    pub(crate) producers: Vec<(String, Vec<ProducerRecord>)>,
    pub(crate) subscribers: Vec<(String, Vec<SubscriberRecord>)>,
    clock: u64,
}

/// What comes back to a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Acknowledged,
    Refused,
    /// Stored, and no answer.
    Unheard,
    /// Not stored, and no answer.
    NotArrived,
}

pub(crate) fn at(offset: u64) -> Position {
    Position { epoch: 1, offset }
}

impl World {
    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(crate) fn producer(&mut self, name: &str) -> &mut Vec<ProducerRecord> {
        if let Some(found) = self.producers.iter().position(|(known, _)| known == name) {
            return &mut self.producers[found].1;
        }
        self.producers.push((name.to_owned(), Vec::new()));
        &mut self.producers.last_mut().unwrap().1
    }

    pub(crate) fn subscriber(&mut self, name: &str) -> &mut Vec<SubscriberRecord> {
        if let Some(found) = self.subscribers.iter().position(|(known, _)| known == name) {
            return &mut self.subscribers[found].1;
        }
        self.subscribers.push((name.to_owned(), Vec::new()));
        &mut self.subscribers.last_mut().unwrap().1
    }

    /// One publish of two events; the log gets them behind all others.
    pub(crate) fn publish(&mut self, name: &str, seq: u64, channel: &str, answer: Answer) {
        let last = self.rows.iter().map(|row| row.position.offset).max().unwrap_or(0);
        let offset = (last / 10 + 1) * 10;
        self.publish_at(name, (seq, offset), channel, answer);
    }

    /// The same with the offset given.
    pub(crate) fn publish_at(
        &mut self,
        name: &str,
        (seq, offset): (u64, u64),
        channel: &str,
        answer: Answer,
    ) {
        let data: Vec<String> = (seq..seq + 2).map(|seq| format!("{name}.{seq}")).collect();
        let (t, attempt) = (self.now(), self.clock);
        let records = self.producer(name);
        records.push(ProducerRecord::Attempt {
            t,
            attempt,
            seq,
            channel: channel.to_owned(),
            data: data.clone(),
            again: None,
        });
        let (first, last) = (offset, offset + 1);
        match answer {
            Answer::Acknowledged => records.push(ProducerRecord::Acknowledged {
                t,
                attempt,
                epoch: 1,
                first,
                last,
                duplicate: false,
            }),
            Answer::Refused => {
                records.push(ProducerRecord::Refused { t, attempt, code: "limited".to_owned() });
            }
            Answer::Unheard => {
                let why = "the connection was lost".to_owned();
                records.push(ProducerRecord::Unknown { t, attempt, why });
            }
            Answer::NotArrived => {}
        }
        let is_known = self.rows.iter().any(|row| row.data == data[0]);
        if matches!(answer, Answer::Acknowledged | Answer::Unheard) && !is_known {
            for (position, data) in [at(first), at(last)].into_iter().zip(data) {
                let channel = channel.to_owned();
                self.rows.push(Row { partition: 1, channel, position, data });
            }
        }
    }

    /// A subscriber gets what is in the log of a channel after one offset, up to another.
    pub(crate) fn read(&mut self, name: &str, channel: &str, after: u64, through: u64) {
        let t = self.now();
        let mut rows = self.rows.clone();
        rows.sort_by_key(|row| row.position);
        let records = self.subscriber(name);
        let (channel, position) = (channel.to_owned(), at(after));
        let since = (after > 0).then_some(position);
        records.push(SubscriberRecord::Subscribed { t, channel, position, since });
        for row in rows {
            let (offset, channel) = (row.position.offset, row.channel);
            let wanted = offset > after && offset <= through;
            if matches!(records.first(), Some(SubscriberRecord::Subscribed { channel: own, .. }) if *own == channel)
                && wanted
            {
                let (position, data) = (row.position, row.data);
                records.push(SubscriberRecord::Event { t, channel, position, data });
            }
        }
    }

    pub(crate) fn end(&mut self, name: &str) {
        let t = self.now();
        self.subscriber(name).push(SubscriberRecord::End { t, live: true });
    }

    pub(crate) fn judge(&self) -> Verdict {
        let mut checker = Checker::new();
        // In any order.
        self.rows.iter().rev().for_each(|row| checker.archived(row));
        checker.seal();
        for (name, records) in &self.subscribers {
            let mut feed = checker.subscriber(name);
            records.iter().for_each(|record| feed.take(record));
        }
        for (name, records) in &self.producers {
            let mut producer = checker.producer(name);
            records.iter().for_each(|record| producer.take(record).unwrap());
            producer.finish();
        }
        checker.finish().unwrap()
    }

    /// The same by way of files; the verdict and all examples as text.
    pub(crate) fn judge_files(&self) -> (Verdict, String) {
        let folder = std::env::temp_dir().join(format!(
            "stormwire-checker-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: String, lines: Vec<String>| {
            std::fs::write(folder.join(name), lines.join("\n")).unwrap();
        };
        fn json<T: serde::Serialize>(records: &[T]) -> Vec<String> {
            records.iter().map(|record| serde_json::to_string(record).unwrap()).collect()
        }
        write("archive.jsonl".to_owned(), json(&self.rows));
        for (name, records) in &self.producers {
            write(format!("producer-{name}.jsonl"), json(records));
        }
        for (name, records) in &self.subscribers {
            write(format!("subscriber-{name}.jsonl"), json(records));
        }
        let verdict = check(&folder).unwrap();
        let text = verdict.examples().map(|example| explain(&folder, example).unwrap()).collect();
        std::fs::remove_dir_all(&folder).unwrap();
        (verdict, text)
    }
}

/// Two producers, two channels, every kind of answer, a live feed and one that was away.
pub(crate) fn clean() -> World {
    let mut world = World::default();
    world.publish("ann", 1, "a:x", Answer::Acknowledged);
    world.publish("bob", 1, "a:x", Answer::Refused);
    world.publish("bob", 1, "a:x", Answer::Acknowledged);
    world.publish("ann", 3, "a:y", Answer::Unheard);
    world.publish("bob", 3, "a:x", Answer::Acknowledged);
    world.publish("ann", 5, "a:x", Answer::NotArrived);
    world.publish("bob", 5, "a:y", Answer::Refused);
    world.publish("ann", 7, "a:x", Answer::Acknowledged);
    let last = world.rows.last().unwrap().position.offset;
    world.read("live", "a:x", 0, last);
    world.end("live");
    world.read("away", "a:x", 0, 20);
    world.read("away", "a:x", 20, last);
    world.end("away");
    world
}
