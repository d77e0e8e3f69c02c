//! A cluster of gateways and workers on real servers, a steady load on it, and what must be true of
//! that load afterwards.

use crate::kit::{PATIENCE, Role, data_dir, token};
use sqlx::postgres::PgPool;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stormwire_client::{Client, ClientConfig, Delivery, NewEvent, Published, Receipt};
use stormwire_core::{Channel, Position};
use stormwire_telemetry::CancellationToken;
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::{Folder, wait_until};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Publishes of one publisher that wait for their answers.
const UNANSWERED: usize = 64;

/// The servers that gateways and workers stand on.
pub(crate) struct Fleet {
    _nats: NatsServer,
    pub(crate) postgres: Postgres,
    pub(crate) folder: Folder,
    environment: Vec<(&'static str, String)>,
    pub(crate) token: String,
}

impl Fleet {
    /// The servers, with these settings for all processes.
    pub(crate) async fn start(name: &str, settings: &[(&'static str, &str)]) -> Option<Self> {
        let (nats, postgres) = (NatsServer::start().await?, Postgres::start().await?);
        let folder = Folder::temporary(name).unwrap();
        let data = data_dir(&folder);
        let mut environment = vec![
            ("NATS_URL", nats.url()),
            ("DATABASE_URL", postgres.url()),
            ("STORMWIRE_DATA_DIR", data.clone()),
            ("STORMWIRE_LIMITS_EVENTS_PER_SECOND", "1000000".to_owned()),
        ];
        environment.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let token = token(&data).await;
        Some(Self { _nats: nats, postgres, folder, environment, token })
    }

    pub(crate) async fn gateway(&self, name: &str) -> Role {
        let mut environment = self.environment.clone();
        environment.push(("STORMWIRE_LISTEN", "127.0.0.1:{port}".to_owned()));
        Role::start(name, self.folder.path(), &["gateway"], &environment).await
    }

    pub(crate) async fn worker(&self, name: &str) -> Role {
        let mut environment = self.environment.clone();
        environment.push(("STORMWIRE_MANAGEMENT_LISTEN", "127.0.0.1:{port}".to_owned()));
        Role::start(name, self.folder.path(), &["messages"], &environment).await
    }

    /// A client of these gateways, that one first.
    pub(crate) fn client(&self, gateways: &[Role], first: usize) -> ClientConfig {
        let mut urls = gateways.iter().cycle().skip(first).take(gateways.len()).map(Role::url);
        let mut config = ClientConfig::new(urls.next().unwrap(), self.token.clone());
        config = config.with_urls(urls);
        config.connect_within = PATIENCE;
        config
    }

    pub(crate) async fn pool(&self) -> PgPool {
        PgPool::connect(&self.postgres.url()).await.unwrap()
    }

    /// The archive holds of each channel exactly these numbers at these places, in this order.
    pub(crate) async fn assert_stored(&self, sent: &BTreeMap<Channel, Vec<(Position, u64)>>) {
        let pool = self.pool().await;
        let due: usize = sent.values().map(Vec::len).sum();
        wait_until("every event is in the archive", PATIENCE, || async {
            let count = sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FROM event_log WHERE channel LIKE 'load:%'",
            );
            usize::try_from(count.fetch_one(&pool).await.unwrap()).unwrap() >= due
        })
        .await;
        for (channel, due) in sent {
            let rows: Vec<(i32, i64, String)> = sqlx::query_as(
                r#"SELECT epoch, "offset", data FROM event_log WHERE channel = $1 ORDER BY epoch, "offset""#,
            )
            .bind(channel.as_str())
            .fetch_all(&pool)
            .await
            .unwrap();
            let found = rows.iter().map(|(epoch, offset, data)| {
                let epoch = stormwire_core::Epoch(epoch.cast_unsigned());
                let offset = stormwire_core::Offset(offset.cast_unsigned());
                (Position { epoch, offset }, number(data))
            });
            same(channel, "archive", &found.collect::<Vec<_>>(), due);
        }
    }
}

/// The number of an event.
fn number(data: &str) -> u64 {
    data.trim_start_matches('[').split(',').next().unwrap().parse().unwrap()
}

fn same(channel: &Channel, whose: &str, found: &[(Position, u64)], due: &[(Position, u64)]) {
    for (at, (found, due)) in found.iter().zip(due).enumerate() {
        assert_eq!(found, due, "{channel}: {whose}, event {at}");
    }
    assert_eq!(found.len(), due.len(), "{channel}: {whose}");
}

/// Asks a process to end and waits for that; how long it took.
pub(crate) async fn end(role: &Role) -> Duration {
    let started = Instant::now();
    role.server.terminate();
    wait_until("it ends by itself", PATIENCE, || async { !role.server.is_running() }).await;
    started.elapsed()
}

/// Publishers and subscribers, one of each a channel, each with a connection of its own.
pub(crate) struct Load {
    clients: Vec<Client>,
    stop: CancellationToken,
    acknowledged: Arc<AtomicU64>,
    pairs: Vec<Pair>,
}

struct Pair {
    channel: Channel,
    publisher: JoinHandle<Sent>,
    subscriber: JoinHandle<Vec<(Position, u64)>>,
}

/// What a publisher has had acknowledged, and the longest time that it waited for an answer.
struct Sent {
    events: Vec<(Position, u64)>,
    longest: Duration,
}

/// What became of a load.
pub(crate) struct Outcome {
    pub(crate) sent: BTreeMap<Channel, Vec<(Position, u64)>>,
    pub(crate) longest: Duration,
}

impl Load {
    /// `count` channels; each publisher sends an event every `pace`.
    pub(crate) async fn start(
        fleet: &Fleet,
        gateways: &[Role],
        count: usize,
        pace: Duration,
    ) -> Self {
        Self::sized(fleet, gateways, count, pace, 0).await
    }

    /// The same with events of about so many bytes.
    pub(crate) async fn sized(
        fleet: &Fleet,
        gateways: &[Role],
        count: usize,
        pace: Duration,
        bytes: usize,
    ) -> Self {
        let (stop, acknowledged) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let (mut clients, mut pairs) = (Vec::new(), Vec::new());
        for i in 0..count {
            let channel = Channel::parse(&format!("load:{i}")).unwrap();
            let reader = Client::connect(fleet.client(gateways, i)).await.unwrap();
            let writer = Client::connect(fleet.client(gateways, i + 1)).await.unwrap();
            let subscription = reader.subscribe(&channel, None).await.unwrap();
            clients.extend([reader, writer.clone()]);
            let (done, all) = mpsc::channel(1);
            let (stop, acknowledged) = (stop.clone(), Arc::clone(&acknowledged));
            let publisher =
                Publisher { client: writer, channel: channel.clone(), pace, bytes, stop };
            let publisher = publisher.run(acknowledged, done);
            pairs.push(Pair {
                channel,
                publisher: tokio::spawn(publisher),
                subscriber: tokio::spawn(follow(subscription, all)),
            });
        }
        Self { clients, stop, acknowledged, pairs }
    }

    /// How often each client has connected.
    pub(crate) fn connections(&self) -> Vec<u64> {
        self.clients.iter().map(Client::connections).collect()
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more publishes are acknowledged.
    pub(crate) async fn goes_on(&self, more: u64) {
        let due = self.acknowledged() + more;
        wait_until("publishes are acknowledged", PATIENCE, || async { self.acknowledged() >= due })
            .await;
    }

    /// Ends the load. Each subscriber has seen what its publisher had acknowledged, once, in its order
    /// and at its offsets, and nothing else.
    pub(crate) async fn finish(self) -> Outcome {
        self.stop.cancel();
        let mut outcome = Outcome { sent: BTreeMap::new(), longest: Duration::ZERO };
        for Pair { channel, publisher, subscriber } in self.pairs {
            let sent = publisher.await.unwrap();
            let seen = tokio::time::timeout(PATIENCE, subscriber);
            let seen = seen.await.expect("the subscriber sees everything").unwrap();
            same(&channel, "subscriber", &seen, &sent.events);
            outcome.longest = outcome.longest.max(sent.longest);
            outcome.sent.insert(channel, sent.events);
        }
        outcome
    }
}

struct Publisher {
    client: Client,
    channel: Channel,
    pace: Duration,
    bytes: usize,
    stop: CancellationToken,
}

impl Publisher {
    async fn run(self, acknowledged: Arc<AtomicU64>, done: mpsc::Sender<u64>) -> Sent {
        let (sent, answers) = mpsc::channel(UNANSWERED);
        let answers = tokio::spawn(answered(answers, acknowledged));
        let padding = "x".repeat(self.bytes);
        let mut number = 0;
        while !self.stop.is_cancelled() {
            let event = NewEvent::json(&format!("[{number},\"{padding}\"]")).unwrap();
            let receipt = self.client.send(&self.channel, &[event]).await.unwrap();
            sent.send((number, Instant::now(), receipt)).await.unwrap();
            number += 1;
            tokio::time::sleep(self.pace).await;
        }
        drop(sent);
        let sent = answers.await.unwrap();
        done.send(number).await.unwrap();
        sent
    }
}

async fn answered(
    mut receipts: mpsc::Receiver<(u64, Instant, Receipt)>,
    acknowledged: Arc<AtomicU64>,
) -> Sent {
    let mut sent = Sent { events: Vec::new(), longest: Duration::ZERO };
    while let Some((number, since, receipt)) = receipts.recv().await {
        let Published { epoch, first, .. } = receipt.await.unwrap();
        sent.longest = sent.longest.max(since.elapsed());
        sent.events.push((Position { epoch, offset: first }, number));
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    sent
}

/// Reads until as much is there as was published.
async fn follow(
    mut subscription: stormwire_client::Subscription,
    mut all: mpsc::Receiver<u64>,
) -> Vec<(Position, u64)> {
    let (mut seen, mut due) = (Vec::new(), None);
    while due.is_none_or(|due| (seen.len() as u64) < due) {
        tokio::select! {
            Some(count) = all.recv(), if due.is_none() => due = Some(count),
            delivery = subscription.next() => match delivery.expect("it goes on").unwrap() {
                Delivery::Events(events) => seen.extend(events.iter().map(|event| {
                    (event.position, number(event.json().unwrap()))
                })),
                Delivery::Gap { from, to } => panic!("a gap from {from} to {to}"),
            },
        }
    }
    seen
}
