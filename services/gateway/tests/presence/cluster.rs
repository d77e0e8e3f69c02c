//! Several gateways on one real Redis and one real NATS.

use crate::kit::{Client, PATIENCE, Server, Shared, cuttable, users};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use stormwire_journal_nats::{NatsConfig, NatsSignals};
use stormwire_presence::LEASE;
use stormwire_redis::RedisPresence;
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::redis::Redis;

pub(crate) async fn engines(redis: &Redis, nats: &NatsServer) -> Shared {
    let presence = Box::pin(RedisPresence::connect(redis.url(), LEASE)).await.unwrap();
    let config = NatsConfig { urls: vec![nats.url()], ..NatsConfig::default() };
    let signals = Box::pin(NatsSignals::connect(config)).await.unwrap();
    (Arc::new(presence), Arc::new(signals))
}

/// Asks until everybody is there, and nobody else.
pub(crate) async fn until_there(client: &mut Client, channel: &str, due: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = json!({"op": "presence", "id": "u", "channel": channel, "limit": 1000});
        let page = client.ask(page).await;
        if page["op"] == "presence" && users(&page) == due {
            return;
        }
        assert!(Instant::now() < deadline, "{page}, not {due:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateways_members_are_told_as_left_and_a_healed_ones_come_back() {
    let (Some(redis), Some(nats)) = (Redis::start().await, NatsServer::start().await) else {
        return;
    };
    let one = Server::start("one", engines(&redis, &nats).await).await;
    let two = Server::start("two", engines(&redis, &nats).await).await;
    let (behind, cut) = cuttable(engines(&redis, &nats).await);
    let three = Server::start("three", behind).await;
    let (mut alice, mut bob) = (one.client("alice").await, two.client("bob").await);
    for client in [&mut alice, &mut bob] {
        client.attend("room:1").await;
    }
    let (mut carol, mut dave) = (three.client("carol").await, three.client("dave").await);
    for client in [&mut carol, &mut dave] {
        client.subscribe("room:1", true).await;
    }
    for client in [&mut alice, &mut bob, &mut carol, &mut dave] {
        until_there(client, "room:1", &["alice", "bob", "carol", "dave"]).await;
    }
    // Signals go to every gateway.
    carol.say(json!({"op": "signal", "channel": "room:1", "data": "hello"})).await;
    for client in [&mut alice, &mut bob, &mut dave] {
        let signal = client.hear("signal").await;
        assert_eq!((&signal["from"], &signal["data"]), (&json!("carol"), &json!("hello")));
    }

    cut.store(true, Ordering::SeqCst);
    let since = Instant::now();
    for client in [&mut alice, &mut bob] {
        let mut gone = Vec::new();
        let mut last = Value::Null;
        while gone.len() < 2 {
            last = client.hear("left").await;
            gone.extend(users(&last));
        }
        gone.sort();
        assert_eq!(gone, ["carol", "dave"]);
        assert_eq!((&last["users"], &last["sessions"]), (&json!(2), &json!(2)));
    }
    eprintln!("told as left {:?} after the kill", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());

    // It was only paused: its members are there again, and it sees the others.
    cut.store(false, Ordering::SeqCst);
    for client in [&mut alice, &mut carol, &mut dave] {
        until_there(client, "room:1", &["alice", "bob", "carol", "dave"]).await;
    }
    drop(dave);
    until_there(&mut alice, "room:1", &["alice", "bob", "carol"]).await;
    // A planned end waits for no lease.
    drop(carol);
    three.stop().await;
    let since = Instant::now();
    until_there(&mut alice, "room:1", &["alice", "bob"]).await;
    assert!(since.elapsed() < LEASE, "{:?}", since.elapsed());
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_it_is_said_and_afterwards_everybody_is_there_again() {
    let (Some(redis), Some(nats)) = (Redis::start().await, NatsServer::start().await) else {
        return;
    };
    let one = Server::start("one", engines(&redis, &nats).await).await;
    let two = Server::start("two", engines(&redis, &nats).await).await;
    let (mut alice, mut bob) = (one.client("alice").await, two.client("bob").await);
    for client in [&mut alice, &mut bob] {
        client.subscribe("room:1", true).await;
    }
    until_there(&mut alice, "room:1", &["alice", "bob"]).await;
    redis.kill().await;
    let page = json!({"op": "presence", "id": 1, "channel": "room:1"});
    let refused = alice.ask(page.clone()).await;
    assert_eq!(refused["code"], "presence_unavailable", "{refused}");
    assert!(refused["temporary"] == true && refused["retry_after_ms"].as_u64().unwrap() > 0);
    // What needs no Redis goes on: subscriptions, as members too, and signals.
    let mut carol = two.client("carol").await;
    carol.subscribe("room:1", true).await;
    carol.say(json!({"op": "signal", "channel": "room:1", "data": 7})).await;
    assert_eq!(alice.hear("signal").await["data"], 7);
    // Longer than a lease: what hung on it is void on both sides.
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    drop(bob);
    redis.restart().await;
    for client in [&mut alice, &mut carol] {
        until_there(client, "room:1", &["alice", "carol"]).await;
    }
    // Those who watch are told that what they knew is void.
    let mut dave = one.client("dave").await;
    dave.subscribe("room:1", true).await;
    until_there(&mut carol, "room:1", &["alice", "carol", "dave"]).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_signals_are_refused_and_members_are_told_only_later() {
    let (Some(redis), Some(nats)) = (Redis::start().await, NatsServer::start().await) else {
        return;
    };
    let one = Server::start("one", engines(&redis, &nats).await).await;
    let two = Server::start("two", engines(&redis, &nats).await).await;
    let (mut alice, mut bob) = (one.client("alice").await, two.client("bob").await);
    alice.attend("room:1").await;
    nats.kill().await;
    let signal = json!({"op": "signal", "id": 1, "channel": "room:1", "data": 1});
    let deadline = Instant::now() + PATIENCE;
    loop {
        alice.say(signal.clone()).await;
        let pong = json!({"op": "ping", "id": 2});
        alice.say(pong).await;
        let answer = alice.next().await;
        if answer["code"] == "presence_unavailable" {
            alice.hear("pong").await;
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
    }
    // No word between the gateways: found by looking.
    bob.subscribe("room:1", true).await;
    loop {
        let joined = alice.hear("joined").await;
        if users(&joined).contains(&"bob".to_owned()) {
            break;
        }
    }
    one.stop().await;
    two.stop().await;
}
