//! Clients that come, go and fall silent at random on gateways that are cut off and heal at random: in the end
//! everybody who is there is known everywhere, and nobody else; and who only followed the changes knows
//! the same.

use crate::cluster::engines;
use crate::kit::{Client, PATIENCE, Server, cuttable};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::redis::Redis;

const STEPS: usize = 60;
const CHANNEL: &str = "room:1";

type Members = BTreeSet<(String, String)>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// A member who follows the rules of docs/protocol.md and nothing else.
struct Watcher {
    client: Client,
    version: Option<u64>,
    known: Members,
    /// A page is asked for; what comes meanwhile is kept.
    paging: bool,
    kept: Vec<Value>,
    pages_read: usize,
}

impl Watcher {
    async fn start(server: &Server, user: &str) -> Self {
        let mut client = server.client(user).await;
        client.subscribe(CHANNEL, true).await;
        let mut watcher = Self {
            client,
            version: None,
            known: Members::new(),
            paging: false,
            kept: Vec::new(),
            pages_read: 0,
        };
        watcher.read_again().await;
        watcher
    }

    async fn read_again(&mut self) {
        (self.version, self.paging) = (None, true);
        self.known.clear();
        self.kept.clear();
        self.ask(Value::Null).await;
    }

    async fn ask(&mut self, after: Value) {
        let page =
            json!({"op": "presence", "id": "w", "channel": CHANNEL, "limit": 3, "after": after});
        self.client.say(page).await;
    }

    async fn take(&mut self, message: Value) {
        let op = message["op"].as_str().unwrap().to_owned();
        match op.as_str() {
            "presence" if message["id"] == "w" => {
                self.pages_read += 1;
                self.version.get_or_insert(message["version"].as_u64().unwrap());
                self.known.extend(members(&message));
                if message["next"].is_null() {
                    self.paging = false;
                    for message in std::mem::take(&mut self.kept) {
                        Box::pin(self.take(message)).await;
                    }
                } else {
                    self.ask(message["next"].clone()).await;
                }
            }
            // A refused page is asked for again.
            "error" if message["id"] == "w" => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.read_again().await;
            }
            "presence" | "joined" | "left" if self.paging => self.kept.push(message),
            "presence" if message["version"].as_u64() > self.version => self.read_again().await,
            "joined" | "left" => {
                let (since, version) = (message["since"].as_u64(), message["version"].as_u64());
                if version <= self.version {
                    return;
                }
                if since > self.version {
                    return self.read_again().await;
                }
                for member in members(&message) {
                    if op == "joined" {
                        self.known.insert(member)
                    } else {
                        self.known.remove(&member)
                    };
                }
                if message["more"] != true {
                    self.version = version;
                    let sessions = message["sessions"].as_u64().unwrap();
                    assert_eq!(self.known.len() as u64, sessions, "counts are exact: {message}");
                }
            }
            _ => {}
        }
    }

    /// Follows until it knows exactly these.
    async fn reaches(&mut self, truth: &Members) {
        let deadline = Instant::now() + PATIENCE;
        while self.paging || self.known != *truth {
            assert!(Instant::now() < deadline, "{:?}, not {truth:?}", self.known);
            let next = tokio::time::timeout(Duration::from_secs(1), self.client.next()).await;
            if let Ok(message) = next {
                self.take(message).await;
            }
        }
    }
}

fn members(message: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let members = message["members"].as_array().unwrap();
    members.iter().map(|member| (text(&member["user"]), text(&member["session"]))).collect()
}

/// One who comes and goes.
struct Guest {
    gateway: usize,
    client: Client,
    user: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_end_nobody_is_missing_and_nobody_is_a_ghost() {
    let (Some(redis), Some(nats)) = (Redis::start().await, NatsServer::start().await) else {
        return;
    };
    let seeds = std::env::var("STORMWIRE_SEEDS").ok().and_then(|text| text.parse().ok());
    for seed in 1..=seeds.unwrap_or(1u64) {
        eprintln!("seed {seed}");
        Box::pin(run(&redis, &nats, seed)).await;
    }
}

async fn run(redis: &Redis, nats: &NatsServer, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let calm = Server::start("calm", engines(redis, nats).await).await;
    let mut gateways: Vec<(Server, Arc<AtomicBool>)> = Vec::new();
    for name in ["one", "two"] {
        let (behind, cut) = cuttable(engines(redis, nats).await);
        gateways.push((Server::start(name, behind).await, cut));
    }
    let mut watcher = Watcher::start(&calm, "watcher").await;
    let mut guests: Vec<Guest> = Vec::new();
    for step in 0..STEPS {
        let gateway = random.below(gateways.len());
        match random.below(10) {
            0..=4 => {
                // Few users, so that some have several sessions.
                let user = format!("guest-{}", random.below(8));
                let mut client = gateways[gateway].0.client(&user).await;
                client.subscribe(CHANNEL, true).await;
                guests.push(Guest { gateway, client, user });
            }
            5..=7 if !guests.is_empty() => {
                let at = random.below(guests.len());
                drop(guests.swap_remove(at));
            }
            8 => {
                let cut = &gateways[gateway].1;
                cut.fetch_xor(true, Ordering::SeqCst);
            }
            _ if step % 20 == 10 => {
                // Long enough for a lease to run out on the gateways that are cut off.
                tokio::time::sleep(Duration::from_millis(6500)).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(random.below(300) as u64)).await,
        }
        while let Ok(message) =
            tokio::time::timeout(Duration::from_millis(1), watcher.client.next()).await
        {
            watcher.take(message).await;
        }
    }
    let mut truth: Members =
        guests.iter().map(|guest| (guest.user.clone(), guest.client.session.clone())).collect();
    truth.insert(("watcher".to_owned(), watcher.client.session.clone()));
    // One stays cut off, as if it were dead: nothing of it may stay.
    let dead = random.below(gateways.len());
    for (at, (_, cut)) in gateways.iter().enumerate() {
        cut.store(at == dead, Ordering::SeqCst);
    }
    for guest in guests.iter().filter(|guest| guest.gateway == dead) {
        truth.remove(&(guest.user.clone(), guest.client.session.clone()));
    }
    watcher.reaches(&truth).await;
    // Who reads the pages now is told the same.
    let mut fresh = Watcher::start(&gateways[1 - dead].0, "fresh").await;
    truth.insert(("fresh".to_owned(), fresh.client.session.clone()));
    fresh.reaches(&truth).await;
    watcher.reaches(&truth).await;
    assert!(watcher.pages_read > 0);
    drop((fresh, watcher, guests));
    for (server, cut) in gateways {
        cut.store(false, Ordering::SeqCst);
        server.stop().await;
    }
    calm.stop().await;
}
