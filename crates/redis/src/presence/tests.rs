//! The suite on a real Redis, and a Redis that is killed, paused and emptied.

use super::*;
use fred::interfaces::ClientLike as _;
use std::sync::Arc;
use stormwire_presence::suite::{self, Harness};
use stormwire_testkit::redis::Redis;
use tokio::time::Instant;

const LEASE: Duration = Duration::from_secs(2);
const P: Partition = Partition(9);

struct Real(Arc<RedisPresence>, Arc<RedisPresence>);

#[async_trait]
impl Harness for Real {
    fn presence(&self) -> Arc<dyn Presence> {
        let which = if rand_bit() { &self.0 } else { &self.1 };
        Arc::clone(which) as Arc<dyn Presence>
    }

    fn lease(&self) -> Duration {
        LEASE
    }

    /// Redis counts by its own clock, which nobody can move.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// Turn and turn about.
fn rand_bit() -> bool {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).is_multiple_of(2)
}

async fn connect(redis: &Redis) -> RedisPresence {
    RedisPresence::connect(redis.url(), LEASE).await.unwrap()
}

fn life(name: &str) -> Life {
    Life { partition: P, name: name.into() }
}

fn join(channel: &Channel, user: &str) -> Change {
    Change { channel: channel.clone(), member: Member::new(user, "1"), here: true }
}

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_the_ports_promises() {
    let Some(redis) = Redis::start().await else { return };
    let (one, two) = (connect(&redis).await, connect(&redis).await);
    assert!(one.is_shared());
    suite::presence(&Real(Arc::new(one.clone()), Arc::new(two))).await;
    one.close().await;
}

/// Waits until the engine answers something else than that it is away.
async fn answered<T>(
    mut ask: impl AsyncFnMut() -> Result<T, PresenceError>,
) -> Result<T, PresenceError> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match ask().await {
            Err(PresenceError::Unavailable(why)) => assert!(Instant::now() < deadline, "{why}"),
            answer => return answer,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_says_so_and_its_versions_never_come_back() {
    let Some(redis) = Redis::start().await else { return };
    let (presence, room) = (connect(&redis).await, room());
    let first = life("first");
    answered(async || presence.begin(&first).await).await.unwrap();
    presence.apply(&first, 1, &[join(&room, "a"), join(&room, "b")]).await.unwrap();
    let before = presence.page(P, &room, None, 10).await.unwrap();
    assert_eq!((before.counts.users, before.settled), (2, false), "a young store knows not all");
    redis.kill().await;
    assert!(presence.apply(&first, 2, &[join(&room, "c")]).await.is_err());
    assert!(presence.page(P, &room, None, 10).await.is_err());
    redis.restart().await;
    // Nobody has begun a life: what is not there may only not have been reported yet.
    let empty = answered(async || presence.page(P, &room, None, 10).await).await.unwrap();
    assert_eq!((empty.counts, empty.settled), (Counts::default(), false));
    assert_eq!(answered(async || presence.renew(&first).await).await, Ok(Renewed::Unknown));
    let void = answered(async || presence.apply(&first, 3, &[join(&room, "c")]).await).await;
    assert_eq!(void, Err(PresenceError::Unknown));
    let second = life("second");
    presence.begin(&second).await.unwrap();
    let changed = presence.apply(&second, 1, &[join(&room, "a")]).await.unwrap();
    assert!(changed[0].version > before.counts.version);
    let told = presence.differences(P, &[(room.clone(), before.counts.version)]).await.unwrap();
    assert!(matches!(told[0], Difference::Forgotten(counts) if counts.users == 1), "{told:?}");
    tokio::time::sleep(LEASE).await;
    presence.renew(&second).await.unwrap();
    assert!(presence.page(P, &room, None, 10).await.unwrap().settled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_redis_costs_a_deadline_and_the_late_call_makes_no_ghost() {
    let Some(redis) = Redis::start().await else { return };
    let (presence, room) = (connect(&redis).await, room());
    let life = life("only");
    answered(async || presence.begin(&life).await).await.unwrap();
    redis.pause().await;
    let started = Instant::now();
    // It waits in the socket of a server that is stopped, and will be made when that goes on.
    assert!(presence.apply(&life, 1, &[join(&room, "ghost")]).await.is_err());
    assert!(started.elapsed() < COMMAND_TIMEOUT * 5, "{:?}", started.elapsed());
    redis.resume().await;
    let gone = Change { here: false, ..join(&room, "ghost") };
    let turns = std::cell::Cell::new(1);
    let told = answered(async || {
        turns.set(turns.get() + 1);
        presence.apply(&life, turns.get(), std::slice::from_ref(&gone)).await
    });
    told.await.unwrap();
    let page = presence.page(P, &room, None, 10).await.unwrap();
    assert_eq!(page.counts.sessions, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_gateway_that_has_gone() {
    let Some(redis) = Redis::start().await else { return };
    let (presence, room) = (connect(&redis).await, room());
    let life = life("only");
    answered(async || presence.begin(&life).await).await.unwrap();
    presence.apply(&life, 1, &[join(&room, "a"), join(&room, "b")]).await.unwrap();
    presence.end(&life).await.unwrap();
    assert_eq!(presence.sweep(P).await.unwrap().changed.len(), 1);
    let keys = fred::types::CustomCommand::new_static("KEYS", None::<u16>, false);
    let left: Vec<String> =
        presence.link.client().custom(keys, vec!["stormwire:presence:*"]).await.unwrap();
    let prefix = format!("stormwire:presence:{{{P}}}:");
    let mut left: Vec<_> = left.iter().map(|key| key.strip_prefix(&prefix).unwrap()).collect();
    left.sort_unstable();
    // The version and the last changes run out by themselves; `born` is one number.
    assert_eq!(left, ["born", "meta:room:1", "steps:room:1"]);
    let ttl = fred::types::CustomCommand::new_static("PTTL", None::<u16>, false);
    for key in ["meta:room:1", "steps:room:1"] {
        let name = format!("{prefix}{key}");
        let left: i64 = presence.link.client().custom(ttl.clone(), vec![name]).await.unwrap();
        assert!(left > 0, "{key}: {left}");
    }
}
