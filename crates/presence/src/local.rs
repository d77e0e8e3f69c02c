//! Both ports for one process.

use crate::port::{
    CHANGES_KEPT, CHANGES_KEPT_FOR, Change, Changed, Counts, Difference, Life, Member, MemberPage,
    Presence, PresenceError, Renewed, SWEEP_MAX, Swept, coalesce,
};
use crate::signals::{SignalError, Signals};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, Partition};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_stream::wrappers::BroadcastStream;

/// Messages that wait for one listener; the oldest are missed.
const SIGNALS_WAITING_MAX: usize = 1024;

/// Changes that lead from one version to the next one.
#[derive(Debug)]
struct Step {
    from: u64,
    changes: Vec<(Member, bool)>,
}

/// One channel.
#[derive(Debug)]
struct Room {
    /// On how many lives each member hangs.
    members: BTreeMap<Member, u32>,
    users: u64,
    version: u64,
    steps: VecDeque<Step>,
    steps_len: usize,
    changed_at: Instant,
}

impl Room {
    fn new(now: Instant) -> Self {
        Self {
            members: BTreeMap::new(),
            users: 0,
            version: 0,
            steps: VecDeque::new(),
            steps_len: 0,
            changed_at: now,
        }
    }

    fn has_user(&self, user: &Arc<str>) -> bool {
        let first = Member { user: Arc::clone(user), session: Arc::from("") };
        self.members.range(first..).next().is_some_and(|(member, _)| member.user == *user)
    }

    /// Whether the channel's members are others now.
    fn change(&mut self, member: &Member, here: bool) -> bool {
        if here {
            let had_user = self.has_user(&member.user);
            let lives = self.members.entry(member.clone()).or_default();
            *lives += 1;
            let came = *lives == 1;
            self.users += u64::from(came && !had_user);
            return came;
        }
        let Some(lives) = self.members.get_mut(member) else { return false };
        *lives -= 1;
        if *lives > 0 {
            return false;
        }
        self.members.remove(member);
        self.users -= u64::from(!self.has_user(&member.user));
        true
    }

    fn step(&mut self, to: u64, changes: Vec<(Member, bool)>, now: Instant) {
        self.steps_len += changes.len();
        self.steps.push_back(Step { from: self.version, changes });
        while self.steps_len > CHANGES_KEPT {
            let Some(step) = self.steps.pop_front() else { break };
            self.steps_len -= step.changes.len();
        }
        self.version = to;
        self.changed_at = now;
    }

    fn counts(&self) -> Counts {
        Counts { version: self.version, users: self.users, sessions: self.members.len() as u64 }
    }

    fn difference(&self, since: u64) -> Difference {
        let counts = self.counts();
        let steps = || self.steps.iter().skip_while(|step| step.from < since);
        let known = since == self.version || steps().next().is_some_and(|step| step.from == since);
        if !known {
            return Difference::Forgotten(counts);
        }
        let changes = steps().flat_map(|step| step.changes.iter().cloned());
        Difference::Known(counts, coalesce(changes))
    }
}

#[derive(Debug)]
struct Lease {
    until: Instant,
    /// A sweep has begun: it is over.
    over: bool,
    turn: u64,
    holds: BTreeSet<(Channel, Member)>,
}

#[derive(Debug, Default)]
struct Shard {
    lives: HashMap<Arc<str>, Lease>,
    rooms: HashMap<Channel, Room>,
    /// Of all its channels: a channel that comes back goes on above its former version.
    version: u64,
}

impl Shard {
    fn change(&mut self, changes: Vec<(Channel, Member, bool)>, now: Instant) -> Vec<Changed> {
        let mut made: BTreeMap<Channel, Vec<(Member, bool)>> = BTreeMap::new();
        for (channel, member, here) in changes {
            let room = self.rooms.entry(channel.clone()).or_insert_with(|| Room::new(now));
            if room.change(&member, here) {
                made.entry(channel).or_default().push((member, here));
            }
        }
        let version = self.version + 1;
        let mut changed = Vec::with_capacity(made.len());
        for (channel, changes) in made {
            self.version = version;
            if let Some(room) = self.rooms.get_mut(&channel) {
                room.step(version, changes, now);
                changed.push(Changed { channel, version });
            }
        }
        changed
    }

    fn sweep(&mut self, now: Instant) -> Swept {
        let due = |lease: &Lease| lease.over || lease.until <= now;
        let Some((name, lease)) = self.lives.iter_mut().find(|(_, lease)| due(lease)) else {
            self.rooms.retain(|_, room| {
                !room.members.is_empty() || now - room.changed_at < CHANGES_KEPT_FOR
            });
            return Swept::default();
        };
        lease.over = true;
        let gone: Vec<_> = std::iter::from_fn(|| lease.holds.pop_first()).take(SWEEP_MAX).collect();
        if lease.holds.is_empty() {
            let name = Arc::clone(name);
            self.lives.remove(&name);
        }
        let changes = gone.into_iter().map(|(channel, member)| (channel, member, false)).collect();
        let changed = self.change(changes, now);
        Swept { changed, more: self.lives.values().any(due) }
    }
}

/// Who is there, in this process alone. Time is tokio's.
#[derive(Debug)]
pub struct LocalPresence {
    lease: Duration,
    shards: Mutex<HashMap<Partition, Shard>>,
}

impl LocalPresence {
    /// Nobody is there; a life lasts `lease` from renewal to renewal.
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        Self { lease, shards: Mutex::default() }
    }

    fn with<T>(&self, partition: Partition, work: impl FnOnce(&mut Shard, Instant) -> T) -> T {
        let now = Instant::now();
        work(self.shards.lock().entry(partition).or_default(), now)
    }
}

#[async_trait]
impl Presence for LocalPresence {
    async fn begin(&self, life: &Life) -> Result<(), PresenceError> {
        self.with(life.partition, |shard, now| {
            let until = now + self.lease;
            let new = || Lease { until, over: false, turn: 0, holds: BTreeSet::new() };
            let lease = shard.lives.entry(Arc::clone(&life.name)).or_insert_with(new);
            if lease.over {
                return Err(PresenceError::Unknown);
            }
            lease.until = until;
            Ok(())
        })
    }

    async fn renew(&self, life: &Life) -> Result<Renewed, PresenceError> {
        self.with(life.partition, |shard, now| {
            match shard.lives.get_mut(&life.name).filter(|lease| !lease.over) {
                Some(lease) => {
                    lease.until = now + self.lease;
                    Ok(Renewed::Alive)
                }
                None => Ok(Renewed::Unknown),
            }
        })
    }

    async fn end(&self, life: &Life) -> Result<(), PresenceError> {
        self.with(life.partition, |shard, now| {
            if let Some(lease) = shard.lives.get_mut(&life.name) {
                lease.until = now;
            }
        });
        Ok(())
    }

    async fn apply(
        &self,
        life: &Life,
        turn: u64,
        changes: &[Change],
    ) -> Result<Vec<Changed>, PresenceError> {
        self.with(life.partition, |shard, now| {
            let lease = shard.lives.get_mut(&life.name).filter(|lease| !lease.over);
            let lease = lease.ok_or(PresenceError::Unknown)?;
            if turn <= lease.turn {
                return Ok(Vec::new());
            }
            lease.turn = turn;
            let made = changes.iter().filter(|change| {
                let held = (change.channel.clone(), change.member.clone());
                if change.here { lease.holds.insert(held) } else { lease.holds.remove(&held) }
            });
            let made = made.map(|c| (c.channel.clone(), c.member.clone(), c.here)).collect();
            Ok(shard.change(made, now))
        })
    }

    async fn sweep(&self, partition: Partition) -> Result<Swept, PresenceError> {
        Ok(self.with(partition, Shard::sweep))
    }

    async fn page(
        &self,
        partition: Partition,
        channel: &Channel,
        after: Option<&Member>,
        limit: usize,
    ) -> Result<MemberPage, PresenceError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.with(partition, |shard, _| {
            let settled = true;
            let Some(room) = shard.rooms.get(channel) else {
                let (counts, members) = (Counts::default(), Vec::new());
                return Ok(MemberPage { counts, members, more: false, settled });
            };
            let mut rest = room.members.range::<Member, _>((from, Bound::Unbounded));
            let members = rest.by_ref().take(limit).map(|(member, _)| member.clone()).collect();
            let more = rest.next().is_some();
            Ok(MemberPage { counts: room.counts(), members, more, settled })
        })
    }

    async fn differences(
        &self,
        partition: Partition,
        since: &[(Channel, u64)],
    ) -> Result<Vec<Difference>, PresenceError> {
        let one = |shard: &Shard, channel: &Channel, since: u64| match shard.rooms.get(channel) {
            Some(room) => room.difference(since),
            None if since == 0 => Difference::Known(Counts::default(), Vec::new()),
            None => Difference::Forgotten(Counts::default()),
        };
        Ok(self.with(partition, |shard, _| {
            since.iter().map(|(channel, since)| one(shard, channel, *since)).collect()
        }))
    }

    async fn ping(&self) -> Result<(), PresenceError> {
        Ok(())
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// Signals within this process.
#[derive(Debug, Default)]
pub struct LocalSignals {
    partitions: Mutex<HashMap<Partition, broadcast::Sender<Bytes>>>,
}

impl LocalSignals {
    fn sender(&self, partition: Partition) -> broadcast::Sender<Bytes> {
        let mut partitions = self.partitions.lock();
        let new = || broadcast::Sender::new(SIGNALS_WAITING_MAX);
        partitions.entry(partition).or_insert_with(new).clone()
    }
}

#[async_trait]
impl Signals for LocalSignals {
    async fn send(&self, partition: Partition, message: Bytes) -> Result<(), SignalError> {
        // Nobody listens: nobody is told.
        let _ = self.sender(partition).send(message);
        Ok(())
    }

    async fn listen(&self, partition: Partition) -> Result<BoxStream<'static, Bytes>, SignalError> {
        let stream = BroadcastStream::new(self.sender(partition).subscribe());
        Ok(stream.filter_map(|message| std::future::ready(message.ok())).boxed())
    }

    fn check(&self) -> Result<(), SignalError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite;

    const LEASE: Duration = Duration::from_secs(5);

    struct Paused(Arc<LocalPresence>);

    #[async_trait]
    impl suite::Harness for Paused {
        fn presence(&self) -> Arc<dyn Presence> {
            Arc::clone(&self.0) as Arc<dyn Presence>
        }

        fn lease(&self) -> Duration {
            LEASE
        }

        async fn pass(&self, time: Duration) {
            tokio::time::advance(time).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn this_process_keeps_the_ports_promises() {
        suite::presence(&Paused(Arc::new(LocalPresence::new(LEASE)))).await;
    }

    #[tokio::test]
    async fn signals_in_this_process_keep_the_ports_promises() {
        let signals = Arc::new(LocalSignals::default());
        suite::signals(&*signals, &*signals).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_channel_is_forgotten_in_the_end() {
        let presence = LocalPresence::new(LEASE);
        let life = Life { partition: Partition(1), name: "a".into() };
        presence.begin(&life).await.unwrap();
        let channel = Channel::parse("room:1").unwrap();
        let change =
            |here| Change { channel: channel.clone(), member: Member::new("a", "1"), here };
        presence.apply(&life, 1, &[change(true), change(false)]).await.unwrap();
        presence.sweep(life.partition).await.unwrap();
        assert_eq!(presence.with(life.partition, |shard, _| shard.rooms.len()), 1);
        for _ in 0..CHANGES_KEPT_FOR.as_secs() {
            tokio::time::advance(Duration::from_secs(1)).await;
            presence.renew(&life).await.unwrap();
        }
        presence.sweep(life.partition).await.unwrap();
        assert_eq!(presence.with(life.partition, |shard, _| shard.rooms.len()), 0);
    }
}
