//! The project's own client as a member: what it is told adds up, over cut connections and other gateways.

use crate::cluster::engines;
use crate::kit::{PATIENCE, Server};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stormwire_client::{
    Attendance, Client, ClientConfig, ClientError, Member, NewEvent, News, Payload, TokenError,
    TokenProvider,
};
use stormwire_core::{Channel, ErrorCode, PartitionCount};
use stormwire_presence::{CHANGES_PER_CALL_MAX, Change, Life};
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::proxy::{Network, Proxy};
use stormwire_testkit::redis::Redis;

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

/// Each gateway of these tests has a key of its own: the first token is for one, all later ones are for
/// the other.
struct Tokens(Mutex<Option<String>>, String);

impl TokenProvider for Tokens {
    fn token(&self) -> BoxFuture<'_, Result<String, TokenError>> {
        let token = self.0.lock().take().unwrap_or_else(|| self.1.clone());
        Box::pin(std::future::ready(Ok(token)))
    }
}

async fn connect(server: &Server, proxy: &Proxy, other: &Server) -> Client {
    let url = |address| format!("http://{address}");
    let mut config = ClientConfig::new(url(proxy.address()), "");
    config = config.with_urls([url(other.address)]);
    let first = Mutex::new(Some(server.token("rusty")));
    config.token = Arc::new(Tokens(first, other.token("rusty")));
    (config.backoff_base, config.backoff_cap) =
        (Duration::from_millis(5), Duration::from_millis(50));
    Client::connect(config).await.unwrap()
}

/// A reader who believes nothing but the differences.
struct Reader {
    attendance: Attendance,
    told: BTreeSet<Member>,
    signals: Vec<String>,
    events: usize,
}

impl Reader {
    async fn start(client: &Client) -> Self {
        let attendance = client.attend(&room(), None).await.unwrap();
        Self { attendance, told: BTreeSet::new(), signals: Vec::new(), events: 0 }
    }

    async fn take(&mut self) {
        let news = tokio::time::timeout(PATIENCE, self.attendance.next()).await;
        match news.expect("news in time").expect("it goes on").unwrap() {
            News::Members { joined, left } => {
                for member in left {
                    assert!(self.told.remove(&member), "{member:?} left and was not there");
                }
                for member in joined {
                    assert!(self.told.insert(member.clone()), "{member:?} came twice");
                }
                assert!(self.attendance.members().eq(self.told.iter()), "differences add up");
                if self.attendance.is_complete() {
                    assert_eq!(self.attendance.counts().1, self.told.len() as u64, "exact counts");
                }
            }
            News::Signal { from, data: Payload::Json(text) } => {
                self.signals.push(format!("{from}: {text}"));
            }
            News::Signal { .. } => panic!("no binary signal was said"),
            News::Delivery(_) => self.events += 1,
        }
    }

    /// Follows until `done` of the users it knows.
    async fn until(&mut self, done: impl Fn(&[&str]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let users: Vec<&str> = self.told.iter().map(|member| &*member.user).collect();
            if self.attendance.is_complete() && done(&users) {
                return;
            }
            assert!(Instant::now() < deadline, "{} users are not those", users.len());
            self.take().await;
        }
    }

    async fn until_there(&mut self, due: &[&str]) {
        self.until(|users| users == due).await;
    }
}

#[tokio::test]
async fn a_member_with_the_rust_client_is_told_exactly_who_is_there_over_a_cut_connection() {
    let server = Server::alone().await;
    let proxy = Proxy::start(server.address).await.unwrap();
    let mut config =
        ClientConfig::new(format!("http://{}", proxy.address()), server.token("rusty"));
    (config.backoff_base, config.backoff_cap) =
        (Duration::from_millis(5), Duration::from_millis(50));
    let client = Client::connect(config).await.unwrap();
    let mut bob = server.client("bob").await;
    bob.attend("room:1").await;
    let mut reader = Reader::start(&client).await;
    reader.until_there(&["bob", "rusty"]).await;
    assert_eq!(client.members(&room(), None, 1).await.unwrap().members.len(), 1);

    client.signal(&room(), Payload::Json(r#"{"typing":true}"#.into())).await.unwrap();
    let heard = bob.hear("signal").await;
    assert_eq!((&heard["from"], &heard["data"]), (&json!("rusty"), &json!({"typing": true})));
    bob.say(json!({"op": "signal", "channel": "room:1", "data": "hello"})).await;
    client.publish(&room(), &[NewEvent::json("1").unwrap()]).await.unwrap();
    while reader.signals.is_empty() || reader.events == 0 {
        reader.take().await;
    }
    assert_eq!(reader.signals, [r#"bob: "hello""#]);
    let refused = client.signal(&room(), Payload::Json("nonsense".into())).await;
    assert!(matches!(refused, Err(ClientError::Invalid(_))), "{refused:?}");
    let large = format!("\"{}\"", "x".repeat(17 * 1024));
    let refused = client.signal(&room(), Payload::Json(large.into())).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::TooLarge));

    // While nothing reaches it, one goes and another one comes.
    proxy.set(Network::Cut);
    drop(bob);
    let mut carol = server.client("carol").await;
    carol.attend("room:1").await;
    while carol.members("room:1", 10).await.0 != ["carol"] {}
    let lost = client.signal(&room(), Payload::Json("1".into())).await;
    assert!(matches!(lost, Err(ClientError::Lost)), "{lost:?}");
    let before = client.connections();
    proxy.set(Network::Healthy);
    reader.until_there(&["carol", "rusty"]).await;
    assert!(client.connections() > before);
    // Whoever stops reading leaves.
    drop(reader);
    while carol.members("room:1", 10).await.0 != ["carol"] {}
    client.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_members_are_known_over_pages_storms_and_a_move_to_another_gateway() {
    let (Some(redis), Some(nats)) = (Redis::start().await, NatsServer::start().await) else {
        return;
    };
    let shared = engines(&redis, &nats).await;
    let one = Server::start("one", shared.clone()).await;
    let two = Server::start("two", engines(&redis, &nats).await).await;
    // Members of a third gateway, more than are told one by one, on more than one page.
    let partition = room().partition(PartitionCount::new(4).unwrap());
    let third = Life { partition, name: "third".into() };
    shared.0.begin(&third).await.unwrap();
    let (presence, living) = (Arc::clone(&shared.0), third.clone());
    let heart = tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_millis(500));
        loop {
            beat.tick().await;
            presence.renew(&living).await.unwrap();
        }
    });
    let mut turn = 0;
    let mut report = async |from: usize, to: usize, here: bool| {
        let members = (from..to).map(|number| Change {
            channel: room(),
            member: stormwire_presence::Member::new(format!("guest-{number:05}"), "1"),
            here,
        });
        for changes in members.collect::<Vec<_>>().chunks(CHANGES_PER_CALL_MAX) {
            turn += 1;
            shared.0.apply(&third, turn, changes).await.unwrap();
        }
    };
    report(0, 2500, true).await;
    let proxy = Proxy::start(one.address).await.unwrap();
    let client = connect(&one, &proxy, &two).await;
    let mut reader = Reader::start(&client).await;
    reader.until(|users| users.len() == 2501).await;
    // A storm, of which only the counts are told at first; and a few, who are told one by one.
    report(0, 1500, false).await;
    report(3000, 3010, true).await;
    reader.until(|users| users.len() == 1011).await;
    proxy.set(Network::Cut);
    report(1500, 1510, false).await;
    reader.until(|users| users.len() == 1001 && users[0] == "guest-01510").await;
    // The third one dies: its members leave.
    heart.abort();
    reader.until_there(&["rusty"]).await;
    client.close().await;
    one.stop().await;
    two.stop().await;
}
