//! Keeping a table within its horizon and its bytes.

use super::{HORIZON, Repeats, Slot, VACANT, seconds};
use crate::publish::ProducerKey;
use std::time::Duration;
use stormwire_core::Timestamp;

/// B6: a user may always have this part of a table.
const SHARE: usize = 64;

impl Repeats {
    /// Forgets every producer that wrote nothing since `cutoff`, and raises the horizon to it.
    pub fn forget_before(&mut self, cutoff: Timestamp) {
        self.raise_horizon(cutoff);
        let cutoff = seconds(cutoff);
        for at in 0..u32::try_from(self.producers.len()).unwrap_or(u32::MAX) {
            let producer = &self.producers[at as usize];
            if producer.user != VACANT && producer.pending == 0 && producer.written < cutoff {
                self.remove(at);
            }
        }
        self.users.raise_all(cutoff);
    }

    /// Keeps the table within its horizon and its bytes. When it is too large, those users who take the
    /// most lose their oldest entries; then the whole table reaches less far back; then each producer's
    /// entry becomes shorter. All of it only makes the table say less.
    pub fn keep_within(&mut self, now: Timestamp) {
        let back =
            |age: Duration| Timestamp(now.0 - i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        self.forget_before(back(HORIZON));
        if self.live_bytes() > self.bytes_max {
            self.cut_to_shares();
        }
        for age in [300, 120, 60, 30] {
            if self.live_bytes() <= self.bytes_max {
                break;
            }
            self.forget_before(back(Duration::from_secs(age)));
        }
        for keep in [128, 64, 32, 0] {
            if self.live_bytes() <= self.bytes_max {
                break;
            }
            self.producers.iter_mut().for_each(|producer| producer.ranges.shorten(keep));
        }
        (self.kept_bytes, self.grown) = (self.live_bytes(), 0);
    }

    /// Whether it has grown over its bytes by more than a little since it was kept within them.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.kept_bytes + self.grown > self.bytes_max + self.bytes_max / 8
    }

    /// B6: past the share only that user's oldest entries go.
    fn cut_to_shares(&mut self) {
        let mut bytes = vec![0usize; self.users.places()];
        for producer in self.producers.iter().filter(|producer| producer.user != VACANT) {
            bytes[producer.user as usize] += producer.bytes();
        }
        let room = self.bytes_max.saturating_sub(self.users.live_bytes());
        let level = water_level(&bytes, room).max(self.bytes_max / SHARE);
        let mut oldest: Vec<(u32, u32, u32)> = (0..)
            .zip(&self.producers)
            .filter(|(_, of)| of.user != VACANT && of.pending == 0)
            .filter(|(_, of)| bytes[of.user as usize] > level)
            .map(|(at, of): (u32, _)| (of.user, of.written, at))
            .collect();
        oldest.sort_unstable();
        for (user, written, at) in oldest {
            let producer = &self.producers[at as usize];
            if bytes[user as usize] > level {
                bytes[user as usize] -= producer.bytes();
                let ProducerKey([word, _]) = producer.key;
                self.users.raise(word, written + 1);
                self.remove(at);
            }
        }
    }

    fn remove(&mut self, at: u32) {
        let producer = &mut self.producers[at as usize];
        let user = std::mem::replace(&mut producer.user, VACANT);
        producer.ranges = Default::default();
        let hash = producer.key.hash();
        if let Ok(entry) = self.index.find_entry(hash, |slot| *slot == at) {
            entry.remove();
        }
        self.free.push(at);
        self.users.remove(user);
    }

    /// Notes that what was reserved is not stored and never will be by this frame.
    pub fn release(&mut self, slot: Slot) {
        let producer = &mut self.producers[slot.0 as usize];
        producer.pending = 0;
        if producer.ranges.highest() == 0 && producer.user != VACANT {
            self.remove(slot.0);
        }
    }
}

/// The most that each may take so that all together take `room`, when those who take less keep theirs.
fn water_level(bytes: &[usize], room: usize) -> usize {
    let mut sorted: Vec<usize> = bytes.iter().copied().filter(|bytes| *bytes > 0).collect();
    sorted.sort_unstable();
    let (mut left, mut room) = (sorted.len(), room);
    for taken in sorted {
        let share = room / left;
        if taken > share {
            return share;
        }
        room -= taken;
        left -= 1;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_water_level_is_the_same_for_all_who_want_more() {
        assert_eq!(water_level(&[], 10), usize::MAX);
        assert_eq!(water_level(&[10, 20, 30], 60), usize::MAX);
        assert_eq!(water_level(&[10, 20, 30], 50), 20);
        assert_eq!(water_level(&[100, 0, 100, 1], 51), 25);
    }
}
