//! Random joins, leaves, deaths and sweeps against a plain set, seen through pages and differences.

use super::{Harness, P, begin, channel, members};
use crate::{Change, Counts, Difference, Life, Member, PAGE_MAX, Presence};
use std::collections::{BTreeMap, BTreeSet};
use stormwire_core::Channel;

const STEPS: usize = 250;
const SEEDS: u64 = 3;

/// A small generator: the same seed makes the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or(0)
    }
}

/// A reader who knows the members only by a first reading of the pages, slowly, and by differences.
struct Reader {
    version: u64,
    known: BTreeSet<Member>,
    /// Where its next page begins; `None` when it has read all.
    next: Option<Option<Member>>,
}

impl Reader {
    fn new() -> Self {
        Self { version: 0, known: BTreeSet::new(), next: Some(None) }
    }

    async fn step(&mut self, presence: &dyn Presence, room: &Channel) {
        if let Some(after) = self.next.take() {
            let page = presence.page(P, room, after.as_ref(), 7).await;
            let page = page.unwrap_or_else(|e| panic!("{e}"));
            if after.is_none() {
                (self.version, self.known) = (page.counts.version, BTreeSet::new());
            }
            if page.more {
                self.next = Some(page.members.last().cloned());
            }
            self.known.extend(page.members);
        }
    }

    /// With everything since the first page on top, it knows who is there.
    async fn check(&mut self, presence: &dyn Presence, room: &Channel, truth: &BTreeSet<Member>) {
        while self.next.is_some() {
            self.step(presence, room).await;
        }
        let since = [(room.clone(), self.version)];
        let list = presence.differences(P, &since).await.unwrap_or_else(|e| panic!("{e}"));
        let Difference::Known(counts, changes) = &list[0] else { panic!("{list:?}") };
        for (member, here) in changes {
            if *here {
                self.known.insert(member.clone());
            } else {
                self.known.remove(member);
            }
        }
        assert_eq!(&self.known, truth);
        assert_eq!(counts.sessions, truth.len() as u64);
        self.version = counts.version;
    }
}

pub(super) async fn pages_and_differences_are_exact(harness: &dyn Harness) {
    for seed in 1..=SEEDS {
        run(harness, seed).await;
    }
}

async fn run(harness: &dyn Harness, seed: u64) {
    let presence = harness.presence();
    let presence = &*presence;
    let room = channel(&format!("model-{seed}"));
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut lives: Vec<(Life, u64)> = Vec::new();
    for _ in 0..3 {
        lives.push((begin(presence).await, 0));
    }
    let mut holds: BTreeMap<String, BTreeSet<Member>> = BTreeMap::new();
    let mut reader = Reader::new();
    for step in 0..STEPS {
        let at = random.below(lives.len());
        match random.below(20) {
            0 => {
                // A gateway dies; its name is never used again. The others live.
                for (life, _) in &lives {
                    presence.renew(life).await.unwrap_or_else(|e| panic!("{e}"));
                }
                presence.end(&lives[at].0).await.unwrap_or_else(|e| panic!("{e}"));
                holds.remove(&*lives[at].0.name);
                lives[at] = (begin(presence).await, 0);
                while presence.sweep(P).await.unwrap_or_else(|e| panic!("{e}")).more {}
            }
            1 => reader = Reader::new(),
            2..=4 => reader.step(presence, &room).await,
            _ => {
                let (life, turn) = &mut lives[at];
                *turn += 1;
                let held = holds.entry(life.name.to_string()).or_default();
                let changes: Vec<Change> = (0..=random.below(4))
                    .map(|_| {
                        let user = format!("u{}", random.below(6));
                        let member = Member::new(user, random.below(4).to_string());
                        let here = random.below(5) < 3;
                        if here {
                            held.insert(member.clone())
                        } else {
                            held.remove(&member)
                        };
                        Change { channel: room.clone(), member, here }
                    })
                    .collect();
                presence.apply(life, *turn, &changes).await.unwrap_or_else(|e| panic!("{e}"));
            }
        }
        if step % 10 == 9 {
            for (life, _) in &lives {
                presence.renew(life).await.unwrap_or_else(|e| panic!("{e}"));
            }
            let truth: BTreeSet<Member> = holds.values().flatten().cloned().collect();
            reader.check(presence, &room, &truth).await;
            let (counts, all) = members(presence, &room, PAGE_MAX).await;
            assert!(all.iter().eq(truth.iter()), "seed {seed}, step {step}");
            let users: BTreeSet<_> = truth.iter().map(|member| &member.user).collect();
            let (users, sessions) = (users.len() as u64, truth.len() as u64);
            assert_eq!(counts, Counts { users, sessions, ..counts }, "seed {seed}, step {step}");
        }
    }
}
