//! How long it takes until 100,000 members of five gateways are known, how many bytes that is, and how long
//! until a dead gateway's are taken out: `cargo run --release -p stormwire-redis --example presence_speed`.
//!
//! One line of JSON. The bytes are those of the pages as clients get them in JSON.

#![expect(clippy::unwrap_used, reason = "an example that cannot go on says so by a panic")]
#![expect(clippy::print_stdout, reason = "its result")]

use bytes::BytesMut;
use std::time::{Duration, Instant};
use stormwire_core::{Channel, Partition};
use stormwire_presence::{
    CHANGES_PER_CALL_MAX, Change, Difference, Life, Member, PAGE_MAX, Presence, PresenceError,
};
use stormwire_redis::RedisPresence;
use stormwire_testkit::redis::Redis;
use stormwire_wire::protocol::{self, Codec, MembersPage, ServerMessage};

const MEMBERS: usize = 100_000;
const GATEWAYS: usize = 5;
const LEASE: Duration = Duration::from_secs(60);
const P: Partition = Partition(0);

fn join(channel: &Channel, number: usize) -> Change {
    // As long as real ones: a name, and a UUID for the session.
    let user = format!("user-{:06}", number / 2);
    let member = Member::new(user, format!("01980000-0000-7000-8000-{number:012}"));
    Change { channel: channel.clone(), member, here: true }
}

/// The members `from..to` come under `life`, as many at once as a gateway reports.
async fn come(presence: &RedisPresence, life: &Life, channel: &Channel, from: usize, to: usize) {
    let all: Vec<usize> = (from..to).collect();
    for (turn, numbers) in (1..).zip(all.chunks(CHANGES_PER_CALL_MAX)) {
        let changes: Vec<_> = numbers.iter().map(|number| join(channel, *number)).collect();
        presence.apply(life, turn, &changes).await.unwrap();
    }
}

/// Bytes of all pages in JSON, how many there are, and the members that the last one counts.
async fn pages(presence: &RedisPresence, channel: &Channel) -> (usize, usize, u64) {
    let (mut after, mut bytes, mut count) = (None::<Member>, 0, 0);
    let shown =
        |m: &Member| protocol::Member { user: (&*m.user).into(), session: (&*m.session).into() };
    loop {
        let page = presence.page(P, channel, after.as_ref(), PAGE_MAX).await.unwrap();
        after = page.members.last().cloned();
        let message = ServerMessage::Presence(MembersPage {
            id: None,
            channel: channel.clone(),
            version: page.counts.version,
            users: page.counts.users,
            sessions: page.counts.sessions,
            members: page.members.iter().map(shown).collect(),
            next: after.as_ref().map(|last| last.to_cursor().into()),
            partial: false,
            resync: false,
        });
        let mut out = BytesMut::new();
        protocol::message(Codec::Json, &mut out, &message);
        (bytes, count) = (bytes + out.len(), count + 1);
        if !page.more {
            return (bytes, count, page.counts.sessions);
        }
    }
}

#[tokio::main]
async fn main() {
    let redis = Redis::start().await.unwrap();
    let channel = Channel::parse("stadium:1").unwrap();
    let mut gateways = Vec::new();
    for number in 0..GATEWAYS {
        let presence = Box::pin(RedisPresence::connect(redis.url(), LEASE)).await.unwrap();
        let life = Life { partition: P, name: format!("gateway-{number}").into() };
        while let Err(PresenceError::Unavailable(_)) = presence.begin(&life).await {}
        gateways.push((presence, life));
    }
    let share = MEMBERS / GATEWAYS;
    let start = Instant::now();
    let all = gateways.iter().enumerate();
    let all = all.map(|(number, (presence, life))| {
        come(presence, life, &channel, number * share, (number + 1) * share)
    });
    futures::future::join_all(all).await;
    let joined = start.elapsed();

    let (presence, _) = &gateways[0];
    let start = Instant::now();
    let (bytes, pages, sessions) = pages(presence, &channel).await;
    let read = start.elapsed();
    assert_eq!(sessions, MEMBERS as u64);

    let version = presence.page(P, &channel, None, 1).await.unwrap().counts.version;
    let start = Instant::now();
    let one = [join(&channel, MEMBERS)];
    presence.apply(&gateways[1].1, u64::from(u32::MAX), &one).await.unwrap();
    let told = presence.differences(P, &[(channel.clone(), version)]).await.unwrap();
    let one_more = start.elapsed();
    assert!(matches!(&told[0], Difference::Known(_, changes) if changes.len() == 1));

    presence.end(&gateways[4].1).await.unwrap();
    let start = Instant::now();
    while presence.sweep(P).await.unwrap().more {}
    let swept = start.elapsed();
    let left = presence.page(P, &channel, None, 1).await.unwrap().counts.sessions;
    assert_eq!(left, (MEMBERS - share + 1) as u64);

    println!(
        "{{\"members\":{MEMBERS},\"gateways\":{GATEWAYS},\"join_ms\":{},\"joins_per_second\":{:.0},\"pages\":{pages},\
         \"pages_ms\":{},\"pages_bytes\":{bytes},\"one_more_ms\":{:.2},\"swept\":{share},\"sweep_ms\":{}}}",
        joined.as_millis(),
        MEMBERS as f64 / joined.as_secs_f64(),
        read.as_millis(),
        one_more.as_secs_f64() * 1e3,
        swept.as_millis(),
    );
}
