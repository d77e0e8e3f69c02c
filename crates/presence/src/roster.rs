//! What one gateway keeps of one partition: who is connected here, and how far the engine was told.
//!
//! Pure. It holds the state that the engine is to be brought to, not a queue of what happened: however
//! long the engine is away, it is as large as the members here and those not yet reported as left, and
//! the latter are forgotten with the life that they hung on.

use crate::port::{Change, Member};
use std::collections::{HashMap, VecDeque};
use stormwire_core::Channel;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Connections of the member that are subscribed.
    clients: u32,
    /// What the engine knows; `None` if nobody can say.
    reported: Option<bool>,
    /// Whether it waits to be told.
    queued: bool,
    /// Whether the engine is being told.
    flying: bool,
}

impl Entry {
    /// Somebody who is not here, of whom the engine knows nothing.
    const NOBODY: Self = Self { clients: 0, reported: Some(false), queued: false, flying: false };

    const fn here(self) -> bool {
        self.clients > 0
    }

    fn is_reported(self) -> bool {
        self.reported == Some(self.here())
    }
}

/// Who is connected here.
#[derive(Debug, Default)]
pub struct Roster {
    channels: HashMap<Channel, HashMap<Member, Entry>>,
    queue: VecDeque<(Channel, Member)>,
    flying: usize,
    here: usize,
}

impl Roster {
    /// A connection of `member` subscribed to `channel`.
    pub fn join(&mut self, channel: &Channel, member: &Member) {
        self.change(channel, member, |entry| entry.clients += 1);
    }

    /// A connection of `member` that had joined is gone from `channel`.
    pub fn leave(&mut self, channel: &Channel, member: &Member) {
        self.change(channel, member, |entry| entry.clients = entry.clients.saturating_sub(1));
    }

    /// Members that are here.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.here
    }

    /// Whether nobody is here.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.here == 0
    }

    /// Whether the engine has still to be told something.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty() || self.flying > 0
    }

    /// What the engine should be told next, at most `max` changes. They are on their way until
    /// [`Roster::confirm`] or [`Roster::give_back`].
    pub fn take(&mut self, max: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < max {
            let Some((channel, member)) = self.queue.pop_front() else { break };
            let Some(entry) =
                self.channels.get_mut(&channel).and_then(|members| members.get_mut(&member))
            else {
                continue;
            };
            entry.queued = false;
            if entry.is_reported() {
                self.forget_if_gone(&channel, &member);
                continue;
            }
            entry.flying = true;
            self.flying += 1;
            let here = entry.here();
            changes.push(Change { channel, member, here });
        }
        changes
    }

    /// The engine has made these changes.
    pub fn confirm(&mut self, changes: &[Change]) {
        self.landed(changes, |entry, change| entry.reported = Some(change.here));
    }

    /// Nobody knows whether the engine has made these changes: they are to be told again.
    pub fn give_back(&mut self, changes: &[Change]) {
        self.landed(changes, |entry, _| entry.reported = None);
    }

    /// What the engine was told is void: it is told anew who is here, and who is not is forgotten.
    pub fn restart(&mut self) {
        self.queue.clear();
        self.flying = 0;
        self.channels.retain(|channel, members| {
            members.retain(|member, entry| {
                let here = entry.here();
                *entry = Entry { clients: entry.clients, queued: here, ..Entry::NOBODY };
                if here {
                    self.queue.push_back((channel.clone(), member.clone()));
                }
                here
            });
            !members.is_empty()
        });
    }

    fn landed(&mut self, changes: &[Change], set: impl Fn(&mut Entry, &Change)) {
        for change in changes {
            let members = self.channels.get_mut(&change.channel);
            let Some(entry) = members.and_then(|members| members.get_mut(&change.member)) else {
                continue;
            };
            // After a restart the answer is about a life that is over.
            if std::mem::take(&mut entry.flying) {
                self.flying -= 1;
                set(entry, change);
                self.change(&change.channel, &change.member, |_| ());
            }
        }
    }

    fn change(&mut self, channel: &Channel, member: &Member, set: impl FnOnce(&mut Entry)) {
        let members = match self.channels.get_mut(channel) {
            Some(members) => members,
            None => self.channels.entry(channel.clone()).or_default(),
        };
        let entry = match members.get_mut(member) {
            Some(entry) => entry,
            None => members.entry(member.clone()).or_insert(Entry::NOBODY),
        };
        let before = entry.here();
        set(entry);
        match (before, entry.here()) {
            (false, true) => self.here += 1,
            (true, false) => self.here -= 1,
            _ => {}
        }
        if !entry.is_reported() && !entry.queued && !entry.flying {
            entry.queued = true;
            self.queue.push_back((channel.clone(), member.clone()));
        }
        self.forget_if_gone(channel, member);
    }

    fn forget_if_gone(&mut self, channel: &Channel, member: &Member) {
        let Some(members) = self.channels.get_mut(channel) else { return };
        if members.get(member) == Some(&Entry::NOBODY) {
            members.remove(member);
            if members.is_empty() {
                self.channels.remove(channel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn channel(number: u8) -> Channel {
        Channel::parse(&format!("room:{number}")).unwrap()
    }

    fn member(number: u8) -> Member {
        Member::new(format!("user-{}", number / 2), format!("{number}"))
    }

    #[test]
    fn who_comes_and_goes_before_anybody_was_told_is_not_told_of() {
        let mut roster = Roster::default();
        roster.join(&channel(1), &member(1));
        roster.join(&channel(1), &member(1));
        roster.leave(&channel(1), &member(1));
        assert_eq!(roster.len(), 1);
        roster.leave(&channel(1), &member(1));
        assert_eq!(roster.take(10), []);
        assert!(roster.is_empty() && roster.channels.is_empty() && !roster.is_waiting());
    }

    #[test]
    fn after_a_failure_it_is_told_how_it_is_now() {
        let mut roster = Roster::default();
        roster.join(&channel(1), &member(1));
        let changes = roster.take(10);
        assert!(changes[0].here);
        roster.leave(&channel(1), &member(1));
        assert_eq!(roster.take(10), [], "one word at a time about a member");
        roster.give_back(&changes);
        let changes = roster.take(10);
        assert!(!changes[0].here, "the engine may have heard the join");
        roster.confirm(&changes);
        assert!(roster.channels.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join(u8, u8),
        Leave(u8, u8),
        Take(usize),
        Lands,
        Fails(bool),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..3, 0u8..4).prop_map(|(c, m)| Step::Join(c, m)),
            4 => (0u8..3, 0u8..4).prop_map(|(c, m)| Step::Leave(c, m)),
            2 => (1usize..4).prop_map(Step::Take),
            3 => Just(Step::Lands),
            1 => any::<bool>().prop_map(Step::Fails),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        /// Whatever happens and fails, an engine that makes the changes ends up with exactly who is here.
        #[test]
        fn the_engine_ends_up_with_who_is_here(steps in proptest::collection::vec(step(), 0..80)) {
            let mut roster = Roster::default();
            let mut clients: BTreeMap<(u8, u8), u32> = BTreeMap::new();
            let mut engine: BTreeSet<(Channel, Member)> = BTreeSet::new();
            let mut flying: Vec<Change> = Vec::new();
            let apply = |engine: &mut BTreeSet<_>, changes: &[Change]| {
                for change in changes {
                    let key = (change.channel.clone(), change.member.clone());
                    if change.here { engine.insert(key); } else { engine.remove(&key); }
                }
            };
            for step in steps {
                match step {
                    Step::Join(c, m) => {
                        *clients.entry((c, m)).or_default() += 1;
                        roster.join(&channel(c), &member(m));
                    }
                    Step::Leave(c, m) => {
                        let count = clients.entry((c, m)).or_default();
                        if *count > 0 {
                            *count -= 1;
                            roster.leave(&channel(c), &member(m));
                        }
                    }
                    Step::Take(max) if flying.is_empty() => flying = roster.take(max),
                    Step::Take(_) => {}
                    Step::Lands => {
                        apply(&mut engine, &flying);
                        roster.confirm(&std::mem::take(&mut flying));
                    }
                    Step::Fails(made) => {
                        if made { apply(&mut engine, &flying); }
                        roster.give_back(&std::mem::take(&mut flying));
                    }
                    Step::Restart => {
                        engine.clear();
                        flying.clear();
                        roster.restart();
                    }
                }
                prop_assert_eq!(roster.len(), clients.values().filter(|count| **count > 0).count());
            }
            roster.confirm(&{ apply(&mut engine, &flying); std::mem::take(&mut flying) });
            loop {
                let changes = roster.take(3);
                if changes.is_empty() { break }
                apply(&mut engine, &changes);
                roster.confirm(&changes);
            }
            let here: BTreeSet<_> = clients.iter().filter(|(_, count)| **count > 0)
                .map(|((c, m), _)| (channel(*c), member(*m))).collect();
            prop_assert_eq!(engine, here);
            let kept: usize = roster.channels.values().map(HashMap::len).sum();
            prop_assert_eq!(kept, roster.len(), "nothing is kept of those who left");
        }
    }
}
