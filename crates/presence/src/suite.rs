//! The conformance suites of both ports: what every engine must do.

mod model;

use crate::{
    Change, Counts, Difference, Life, Member, PAGE_MAX, Presence, PresenceError, Renewed, Signals,
    Swept,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stormwire_core::{Channel, Partition};
use tokio::time::timeout;

/// How long the suite waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine under test, and its clock.
#[async_trait]
pub trait Harness: Sync {
    /// The engine, with nobody there; another connection to it each time, if it has connections.
    fn presence(&self) -> Arc<dyn Presence>;
    /// How long a life lasts from renewal to renewal.
    fn lease(&self) -> Duration;
    /// Lets `time` pass for the engine: by moving a paused clock, or by waiting.
    async fn pass(&self, time: Duration);
}

/// Runs every case of the port Presence against the engine of `harness`.
///
/// # Panics
/// At the first promise of the port that the engine breaks.
pub async fn presence(harness: &dyn Harness) {
    counts_are_exact(harness).await;
    a_member_of_two_lives_is_one(harness).await;
    pages_are_complete_and_ascending(harness).await;
    differences_lead_to_now_or_are_forgotten(harness).await;
    what_comes_late_changes_nothing(harness).await;
    a_lease_that_ran_out_unseen_is_renewed(harness).await;
    who_hung_on_a_dead_life_leaves_once(harness).await;
    a_life_that_is_over_changes_nothing(harness).await;
    an_ended_life_is_swept_at_once(harness).await;
    partitions_share_nothing(harness).await;
    model::pages_and_differences_are_exact(harness).await;
    an_engine_that_has_lived_for_a_lease_is_settled(harness).await;
    assert_eq!(harness.presence().ping().await, Ok(()));
}

const P: Partition = Partition(3);

/// A life of its own name in partition `partition`.
fn life_in(partition: Partition) -> Life {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("gateway-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    Life { partition, name: name.into() }
}

async fn begin(presence: &dyn Presence) -> Life {
    let life = life_in(P);
    presence.begin(&life).await.unwrap_or_else(|e| panic!("{e}"));
    life
}

fn channel(name: &str) -> Channel {
    Channel::parse(&format!("suite:{name}")).unwrap_or_else(|e| panic!("{e}"))
}

fn change(channel: &Channel, user: &str, session: &str, here: bool) -> Change {
    Change { channel: channel.clone(), member: Member::new(user, session), here }
}

/// Makes changes in a turn of their own.
async fn apply(presence: &dyn Presence, life: &Life, changes: &[Change]) -> Vec<Channel> {
    static TURN: AtomicU64 = AtomicU64::new(1);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let changed = presence.apply(life, turn, changes).await.unwrap_or_else(|e| panic!("{e}"));
    changed.into_iter().map(|changed| changed.channel).collect()
}

/// All members, page by page, and the counts of the last page.
async fn members(
    presence: &dyn Presence,
    channel: &Channel,
    limit: usize,
) -> (Counts, Vec<Member>) {
    let mut all: Vec<Member> = Vec::new();
    loop {
        let page = presence.page(P, channel, all.last(), limit).await;
        let page = page.unwrap_or_else(|e| panic!("{e}"));
        assert!(page.members.len() <= limit);
        all.extend(page.members);
        if !page.more {
            return (page.counts, all);
        }
    }
}

async fn counts(presence: &dyn Presence, channel: &Channel) -> (u64, u64) {
    let (counts, members) = members(presence, channel, PAGE_MAX).await;
    let users: BTreeSet<_> = members.iter().map(|member| &member.user).collect();
    assert_eq!((counts.users, counts.sessions), (users.len() as u64, members.len() as u64));
    (counts.users, counts.sessions)
}

/// Sweeps until nothing is left to do.
async fn sweep(presence: &dyn Presence) -> Vec<Swept> {
    let mut all = Vec::new();
    loop {
        let swept = presence.sweep(P).await.unwrap_or_else(|e| panic!("{e}"));
        let more = swept.more;
        all.push(swept);
        if !more {
            return all;
        }
    }
}

async fn counts_are_exact(harness: &dyn Harness) {
    let (presence, room) = (harness.presence(), channel("counts"));
    assert_eq!(counts(&*presence, &room).await, (0, 0));
    let life = begin(&*presence).await;
    let came = [
        change(&room, "a", "1", true),
        change(&room, "a", "2", true),
        change(&room, "ab", "1", true),
        change(&room, "a\u{1}", "1", true),
    ];
    assert_eq!(apply(&*presence, &life, &came).await, std::slice::from_ref(&room));
    assert_eq!(counts(&*presence, &room).await, (3, 4));
    assert_eq!(apply(&*presence, &life, &came).await, [], "what is so already changes nothing");
    assert_eq!(counts(&*presence, &room).await, (3, 4));
    let gone = [change(&room, "a", "1", false), change(&room, "nobody", "1", false)];
    assert_eq!(apply(&*presence, &life, &gone).await, std::slice::from_ref(&room));
    assert_eq!(counts(&*presence, &room).await, (3, 3));
    apply(&*presence, &life, &[change(&room, "a", "2", false)]).await;
    assert_eq!(counts(&*presence, &room).await, (2, 2));
    let rest = [change(&room, "ab", "1", false), change(&room, "a\u{1}", "1", false)];
    apply(&*presence, &life, &rest).await;
    assert_eq!(counts(&*presence, &room).await, (0, 0));
}

async fn a_member_of_two_lives_is_one(harness: &dyn Harness) {
    let (one, two, room) = (harness.presence(), harness.presence(), channel("two-lives"));
    let (first, second) = (begin(&*one).await, begin(&*two).await);
    let came = [change(&room, "a", "1", true)];
    apply(&*one, &first, &came).await;
    assert_eq!(apply(&*two, &second, &came).await, [], "nothing to be seen");
    assert_eq!(counts(&*one, &room).await, (1, 1));
    let gone = [change(&room, "a", "1", false)];
    assert_eq!(apply(&*one, &first, &gone).await, []);
    assert_eq!(counts(&*two, &room).await, (1, 1));
    assert_eq!(apply(&*two, &second, &gone).await, std::slice::from_ref(&room));
    assert_eq!(counts(&*one, &room).await, (0, 0));
}

async fn pages_are_complete_and_ascending(harness: &dyn Harness) {
    let (presence, room) = (harness.presence(), channel("pages"));
    let life = begin(&*presence).await;
    let all: Vec<_> =
        (0..23).map(|n| change(&room, &format!("u{}", n % 5), &format!("{n}"), true)).collect();
    apply(&*presence, &life, &all).await;
    let sorted: BTreeSet<_> = all.into_iter().map(|change| change.member).collect();
    for limit in [1, 5, 22, 23, 24] {
        let (counts, members) = members(&*presence, &room, limit).await;
        assert!(members.iter().eq(sorted.iter()), "{limit}: {members:?}");
        assert_eq!((counts.users, counts.sessions), (5, 23));
    }
    // A page goes on behind a member that has left meanwhile.
    let first = presence.page(P, &room, None, 5).await.unwrap_or_else(|e| panic!("{e}"));
    let last = first.members.last().cloned().unwrap_or_else(|| panic!("a page of five"));
    apply(&*presence, &life, &[change(&room, &last.user, &last.session, false)]).await;
    let next = presence.page(P, &room, Some(&last), 5).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(next.members.iter().eq(sorted.iter().skip(5).take(5)));
}

async fn difference(presence: &dyn Presence, room: &Channel, since: u64) -> Difference {
    let list = presence.differences(P, &[(room.clone(), since)]).await;
    let mut list = list.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(list.len(), 1);
    list.remove(0)
}

async fn differences_lead_to_now_or_are_forgotten(harness: &dyn Harness) {
    let (presence, room) = (harness.presence(), channel("differences"));
    let nothing = difference(&*presence, &room, 0).await;
    assert_eq!(nothing, Difference::Known(Counts::default(), Vec::new()));
    let life = begin(&*presence).await;
    let (a, b) = (Member::new("a", "1"), Member::new("b", "1"));
    let mut versions = vec![0];
    let steps: [&[Change]; 3] = [
        &[change(&room, "a", "1", true)],
        &[change(&room, "b", "1", true), change(&room, "a", "1", false)],
        &[change(&room, "a", "1", true)],
    ];
    for step in steps {
        apply(&*presence, &life, step).await;
        let (counts, _) = members(&*presence, &room, 10).await;
        assert!(counts.version > versions[versions.len() - 1], "versions grow");
        versions.push(counts.version);
    }
    let (now, _) = members(&*presence, &room, 10).await;
    let since = |at: usize| difference(&*presence, &room, versions[at]);
    let Difference::Known(counts, changes) = since(0).await else { panic!("from the beginning") };
    assert_eq!((counts, changes.len()), (now, 2), "each member's last change: {changes:?}");
    assert!(changes.contains(&(a.clone(), true)) && changes.contains(&(b, true)));
    assert_eq!(since(2).await, Difference::Known(now, vec![(a, true)]));
    assert_eq!(since(3).await, Difference::Known(now, Vec::new()));
    let future = difference(&*presence, &room, now.version + 1).await;
    assert_eq!(future, Difference::Forgotten(now));
    let between = difference(&*presence, &room, versions[1] - 1).await;
    assert_eq!(between, Difference::Forgotten(now), "a version that never was");
    // More than is kept pushes the oldest out.
    for round in 0..6 {
        let many: Vec<_> =
            (0..400).map(|n| change(&room, "c", &format!("{round}-{n}"), true)).collect();
        apply(&*presence, &life, &many).await;
    }
    let (now, _) = members(&*presence, &room, PAGE_MAX).await;
    assert_eq!(since(3).await, Difference::Forgotten(now));
    let two = [(room.clone(), now.version), (channel("never"), 0)];
    let two = presence.differences(P, &two).await.unwrap_or_else(|e| panic!("{e}"));
    let nobody = Difference::Known(Counts::default(), Vec::new());
    assert_eq!(two, [Difference::Known(now, Vec::new()), nobody]);
}

async fn what_comes_late_changes_nothing(harness: &dyn Harness) {
    let (presence, room) = (harness.presence(), channel("late"));
    let life = begin(&*presence).await;
    let here = [change(&room, "a", "1", true)];
    let gone = [change(&room, "a", "1", false)];
    assert_eq!(presence.apply(&life, 8, &here).await.map(|changed| changed.len()), Ok(1));
    assert_eq!(presence.apply(&life, 9, &gone).await.map(|changed| changed.len()), Ok(1));
    for late in [7, 8, 9] {
        assert_eq!(presence.apply(&life, late, &here).await, Ok(Vec::new()), "turn {late}");
    }
    assert_eq!(counts(&*presence, &room).await, (0, 0), "a ghost");
}

async fn a_lease_that_ran_out_unseen_is_renewed(harness: &dyn Harness) {
    let (presence, room) = (harness.presence(), channel("unseen"));
    let life = begin(&*presence).await;
    apply(&*presence, &life, &[change(&room, "a", "1", true)]).await;
    harness.pass(harness.lease() * 2).await;
    assert_eq!(presence.renew(&life).await, Ok(Renewed::Alive));
    sweep(&*presence).await;
    assert_eq!(counts(&*presence, &room).await, (1, 1));
    assert_eq!(presence.renew(&life_in(P)).await, Ok(Renewed::Unknown), "never begun");
}

async fn who_hung_on_a_dead_life_leaves_once(harness: &dyn Harness) {
    let (one, room, small) = (harness.presence(), channel("dead"), channel("dead-small"));
    let (dead, living) = (begin(&*one).await, begin(&*one).await);
    for round in 0..3 {
        let many: Vec<_> = (0..400)
            .map(|n| change(&room, &format!("u{}", n % 100), &format!("{round}-{n}"), true))
            .collect();
        apply(&*one, &dead, &many).await;
    }
    apply(&*one, &dead, &[change(&small, "both", "1", true)]).await;
    let stay = [change(&small, "both", "1", true), change(&room, "u0", "stays", true)];
    apply(&*one, &living, &stay).await;
    assert_eq!(counts(&*one, &room).await, (100, 1201));
    let (before, _) = members(&*one, &room, PAGE_MAX).await;
    // The survivor renews, the other one does not.
    for _ in 0..4 {
        harness.pass(harness.lease() / 2).await;
        assert_eq!(one.renew(&living).await, Ok(Renewed::Alive));
    }
    let mut sweepers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let presence = harness.presence();
        sweepers.spawn(async move { sweep(&*presence).await });
    }
    let swept: Vec<Swept> = sweepers.join_all().await.into_iter().flatten().collect();
    assert!(swept.iter().filter(|swept| !swept.changed.is_empty()).count() >= 3, "{swept:?}");
    assert_eq!(counts(&*one, &room).await, (1, 1));
    assert_eq!(counts(&*one, &small).await, (1, 1), "it hangs on the other life as well");
    let told = difference(&*one, &room, before.version).await;
    let Difference::Known(_, changes) = told else { panic!("{told:?}") };
    assert_eq!(changes.len(), 1200);
    assert!(changes.iter().all(|(_, here)| !here));
    assert_eq!(sweep(&*one).await, [Swept::default()]);
}

async fn a_life_that_is_over_changes_nothing(harness: &dyn Harness) {
    let (presence, room) = (harness.presence(), channel("over"));
    let life = begin(&*presence).await;
    let many: Vec<_> = (0..500).map(|n| change(&room, "a", &n.to_string(), true)).collect();
    apply(&*presence, &life, &many).await;
    let many: Vec<_> = (500..900).map(|n| change(&room, "a", &n.to_string(), true)).collect();
    apply(&*presence, &life, &many).await;
    presence.end(&life).await.unwrap_or_else(|e| panic!("{e}"));
    // Lives of other cases may come before it.
    loop {
        let swept = presence.sweep(P).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(swept.more, "there is more than one sweep takes");
        if swept.changed.iter().any(|changed| changed.channel == room) {
            break;
        }
    }
    // Half swept: who slept and comes back now must not be taken for alive.
    assert_eq!(presence.renew(&life).await, Ok(Renewed::Unknown));
    assert_eq!(presence.begin(&life).await, Err(PresenceError::Unknown));
    let back = [change(&room, "a", "0", true)];
    assert_eq!(presence.apply(&life, u64::MAX >> 12, &back).await, Err(PresenceError::Unknown));
    // Its next life reports who is there before the former one is swept to its end.
    let next = begin(&*presence).await;
    apply(&*presence, &next, &[change(&room, "a", "0", true)]).await;
    sweep(&*presence).await;
    assert_eq!(counts(&*presence, &room).await, (1, 1));
    assert_eq!(presence.renew(&life).await, Ok(Renewed::Unknown));
    assert_eq!(presence.apply(&life, u64::MAX >> 12, &back).await, Err(PresenceError::Unknown));
}

async fn an_ended_life_is_swept_at_once(harness: &dyn Harness) {
    let (presence, room) = (harness.presence(), channel("ended"));
    let life = begin(&*presence).await;
    apply(&*presence, &life, &[change(&room, "a", "1", true)]).await;
    presence.end(&life).await.unwrap_or_else(|e| panic!("{e}"));
    presence.end(&life_in(P)).await.unwrap_or_else(|e| panic!("{e}"));
    sweep(&*presence).await;
    assert_eq!(counts(&*presence, &room).await, (0, 0));
}

async fn an_engine_that_has_lived_for_a_lease_is_settled(harness: &dyn Harness) {
    let (presence, room) = (harness.presence(), channel("settled"));
    let life = begin(&*presence).await;
    harness.pass(harness.lease()).await;
    assert_eq!(presence.renew(&life).await, Ok(Renewed::Alive));
    let page = presence.page(P, &room, None, 1).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(page.settled, "every gateway has had the time to report");
}

async fn partitions_share_nothing(harness: &dyn Harness) {
    let (presence, room) = (harness.presence(), channel("partitions"));
    let here = begin(&*presence).await;
    let there = Life { partition: Partition(4), ..here.clone() };
    apply(&*presence, &here, &[change(&room, "a", "1", true)]).await;
    assert_eq!(presence.renew(&there).await, Ok(Renewed::Unknown));
    let page = presence.page(there.partition, &room, None, 10).await;
    assert!(page.is_ok_and(|page| page.members.is_empty()));
    assert_eq!(counts(&*presence, &room).await, (1, 1));
}

/// Runs every case of the port Signals: `one` and `two` are two gateways' ways, or one twice.
///
/// # Panics
/// At the first promise of the port that the engine breaks.
pub async fn signals(one: &dyn Signals, two: &dyn Signals) {
    let (here, there) = (Partition(5), Partition(6));
    assert_eq!(one.check(), Ok(()));
    let listen = async |signals: &dyn Signals, partition| {
        signals.listen(partition).await.unwrap_or_else(|e| panic!("{e}"))
    };
    let send = async |signals: &dyn Signals, partition, message: &'static [u8]| {
        let sent = signals.send(partition, Bytes::from_static(message)).await;
        sent.unwrap_or_else(|e| panic!("{e}"));
    };
    // Said before anybody listens: heard by nobody.
    send(one, here, b"early").await;
    let (mut at_one, mut at_two) = (listen(one, here).await, listen(two, here).await);
    let mut elsewhere = listen(two, there).await;
    for message in [b"first".as_slice(), b"second", b"", &[0; 32 * 1024]] {
        send(one, here, message).await;
        for stream in [&mut at_one, &mut at_two] {
            let heard = timeout(PATIENCE, stream.next()).await;
            assert_eq!(heard.ok().flatten().as_deref(), Some(message));
        }
    }
    send(two, there, b"there").await;
    let heard = timeout(PATIENCE, elsewhere.next()).await;
    assert_eq!(heard.ok().flatten().as_deref(), Some(b"there".as_slice()));
    // Somebody who does not read holds up nobody, and hears of later messages again.
    drop(at_two);
    for _ in 0..20_000 {
        // A full connection refuses; it never blocks.
        let _ = one.send(here, Bytes::from_static(b"flood")).await;
    }
    let again = async {
        loop {
            let _ = two.send(here, Bytes::from_static(b"after")).await;
            let heard = timeout(Duration::from_millis(200), at_one.next()).await;
            if heard.is_ok_and(|message| message.is_some_and(|message| message == "after")) {
                return;
            }
        }
    };
    assert!(timeout(PATIENCE, again).await.is_ok());
}
