//! Members of a gateway that is killed, and of one that sleeps for longer than its lease: the survivors
//! tell them as left in time, and nobody is a ghost afterwards.

use crate::fleet::Fleet;
use crate::kit::{PATIENCE, Role, data_dir, succeed};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stormwire_client::{Attendance, Client, News};
use stormwire_core::Channel;
use stormwire_telemetry::CancellationToken;
use stormwire_testkit::redis::Redis;

/// Within this time a dead gateway's members are told as left.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
const GUESTS: usize = 5;

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

/// How much later than it should this process is woken, all in all: a machine that is too busy to run
/// the test is not what is measured.
struct Lateness {
    total: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Lateness {
    fn start() -> Self {
        const STEP: Duration = Duration::from_millis(50);
        let (total, stop) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let (late, stopped) = (Arc::clone(&total), stop.clone());
        tokio::spawn(stopped.run_until_cancelled_owned(async move {
            loop {
                let before = Instant::now();
                tokio::time::sleep(STEP).await;
                let micros = before.elapsed().saturating_sub(STEP).as_micros();
                late.fetch_add(u64::try_from(micros).unwrap(), Ordering::Relaxed);
            }
        }));
        Self { total, stop }
    }

    fn so_far(&self) -> Duration {
        Duration::from_micros(self.total.load(Ordering::Relaxed))
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Follows until the users that it knows are these; how long that took.
async fn until_there(watcher: &mut Attendance, due: &[&str]) -> Duration {
    let since = Instant::now();
    let following = async {
        loop {
            let users: Vec<&str> = watcher.members().map(|member| &*member.user).collect();
            if watcher.is_complete() && users == due {
                assert_eq!(watcher.counts(), (due.len() as u64, due.len() as u64));
                return;
            }
            watcher.next().await.expect("it goes on").unwrap();
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, following).await;
    assert!(in_time.is_ok(), "{:?}, not {due:?}", watcher.members().collect::<Vec<_>>());
    since.elapsed()
}

/// Users who are in the room by way of one gateway, each with a client that reads all the time.
struct Guests(Vec<(String, tokio::task::JoinHandle<()>)>);

impl Guests {
    async fn arrive(fleet: &Fleet, gateway: &Role) -> Self {
        let mut guests = Vec::new();
        for number in 1..=GUESTS {
            let user = format!("guest-{number}");
            let mut config = fleet.client(std::slice::from_ref(gateway), 0);
            config.token = Arc::new(token_of(fleet, &user).await);
            config.backoff_cap = Duration::from_secs(1);
            let client = Client::connect(config).await.unwrap();
            let mut attendance = client.attend(&room(), None).await.unwrap();
            let reading = tokio::spawn(async move { while attendance.next().await.is_some() {} });
            guests.push((user, reading));
        }
        Self(guests)
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(user, _)| user.as_str()).collect()
    }

    /// One of them goes away.
    fn one_leaves(&mut self) {
        let (_, reading) = self.0.pop().unwrap();
        reading.abort();
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.0.iter().for_each(|(_, reading)| reading.abort());
    }
}

async fn token_of(fleet: &Fleet, user: &str) -> String {
    let data = data_dir(&fleet.folder);
    let arguments =
        ["token", "--user", user, "--publish", "*", "--subscribe", "*", "--data-dir", &data];
    succeed(&arguments).await.trim().to_owned()
}

fn with(guests: &Guests, watcher: &str) -> Vec<String> {
    let all: BTreeSet<&str> = guests.names().into_iter().chain([watcher]).collect();
    all.into_iter().map(str::to_owned).collect()
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_and_a_sleeping_gateways_members_leave_in_time_and_nobody_is_a_ghost() {
    let Some(redis) = Redis::start().await else { return };
    let url = redis.url();
    let settings = [("REDIS_URL", url.as_str()), ("STORMWIRE_MESSAGES_LEASE", "3s")];
    let Some(fleet) = Fleet::start("members", &settings).await else { return };
    let (survivor, victim) = (fleet.gateway("gateway-1").await, fleet.gateway("gateway-2").await);
    let watching = Client::connect(fleet.client(std::slice::from_ref(&survivor), 0)).await.unwrap();
    let mut watcher = watching.attend(&room(), None).await.unwrap();
    let mut guests = Guests::arrive(&fleet, &victim).await;
    until_there(&mut watcher, &borrowed(&with(&guests, "test"))).await;

    let lateness = Lateness::start();
    victim.server.kill().await;
    let took = until_there(&mut watcher, &["test"]).await;
    println!("told as left {took:?} after SIGKILL, woken {:?} late", lateness.so_far());
    assert!(took <= TOLD_WITHIN + lateness.so_far(), "{took:?}");
    victim.again().await;
    until_there(&mut watcher, &borrowed(&with(&guests, "test"))).await;

    let lateness = Lateness::start();
    victim.server.pause().await;
    let took = until_there(&mut watcher, &["test"]).await;
    println!("told as left {took:?} after SIGSTOP, woken {:?} late", lateness.so_far());
    assert!(took <= TOLD_WITHIN + lateness.so_far(), "{took:?}");
    // While it sleeps one of them hangs up, which it learns after it has woken.
    guests.one_leaves();
    victim.server.resume().await;
    until_there(&mut watcher, &borrowed(&with(&guests, "test"))).await;
    drop(guests);
    until_there(&mut watcher, &["test"]).await;
    // Nobody comes back: a lease and a look later they are still only one, on the page as well.
    let settled = Instant::now() + Duration::from_secs(7);
    while let Ok(news) = tokio::time::timeout_at(settled.into(), watcher.next()).await {
        if let News::Members { joined, .. } = news.expect("it goes on").unwrap() {
            assert_eq!(joined, [], "a ghost");
        }
    }
    let page = watching.members(&room(), None, 100).await.unwrap();
    assert_eq!((page.users, page.sessions, page.members.len()), (1, 1, 1));
    assert!(!page.partial, "every living gateway has reported");
    watching.close().await;
}
