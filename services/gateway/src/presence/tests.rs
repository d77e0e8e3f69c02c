//! When a partition's task reports, and under which life.

use super::*;
use async_trait::async_trait;
use stormwire_presence::{
    Change, Changed, Difference, Life, LocalPresence, LocalSignals, Renewed, Swept,
};
use tokio::time::sleep;

const P0: Partition = Partition(0);

/// One call of `apply`.
struct Report {
    at: Instant,
    life: Life,
    changes: usize,
}

/// Real presence, and what was reported to it.
struct Watched {
    presence: LocalPresence,
    reports: Mutex<Vec<Report>>,
}

#[async_trait]
impl Presence for Watched {
    async fn begin(&self, life: &Life) -> Result<(), PresenceError> {
        self.presence.begin(life).await
    }

    async fn renew(&self, life: &Life) -> Result<Renewed, PresenceError> {
        self.presence.renew(life).await
    }

    async fn end(&self, life: &Life) -> Result<(), PresenceError> {
        self.presence.end(life).await
    }

    async fn apply(
        &self,
        life: &Life,
        turn: u64,
        changes: &[Change],
    ) -> Result<Vec<Changed>, PresenceError> {
        let report = Report { at: Instant::now(), life: life.clone(), changes: changes.len() };
        self.reports.lock().push(report);
        self.presence.apply(life, turn, changes).await
    }

    async fn sweep(&self, partition: Partition) -> Result<Swept, PresenceError> {
        self.presence.sweep(partition).await
    }

    async fn page(
        &self,
        partition: Partition,
        channel: &Channel,
        after: Option<&Member>,
        limit: usize,
    ) -> Result<MemberPage, PresenceError> {
        self.presence.page(partition, channel, after, limit).await
    }

    async fn differences(
        &self,
        partition: Partition,
        since: &[(Channel, u64)],
    ) -> Result<Vec<Difference>, PresenceError> {
        self.presence.differences(partition, since).await
    }

    async fn ping(&self) -> Result<(), PresenceError> {
        self.presence.ping().await
    }

    fn is_shared(&self) -> bool {
        self.presence.is_shared()
    }
}

struct World {
    presence: Arc<Watched>,
    rooms: Rooms,
    outbox: Arc<Outbox>,
    channel: Channel,
    _tasks: Tasks,
}

impl World {
    /// A gateway alone that has looked after its lease just now.
    async fn new() -> Self {
        let presence = LocalPresence::new(LEASE);
        let presence = Arc::new(Watched { presence, reports: Mutex::default() });
        let tasks = Tasks::new();
        let rooms = Rooms::start(
            Arc::clone(&presence) as Arc<dyn Presence>,
            Arc::new(LocalSignals::default()),
            "gateway".to_owned(),
            PartitionCount::new(1).unwrap(),
            true,
            &tasks,
        );
        sleep(Duration::from_millis(1)).await;
        let channel = Channel::parse("t:a").unwrap();
        Self { presence, rooms, outbox: Outbox::new(1 << 20), channel, _tasks: tasks }
    }

    async fn join(&self, connection: u64) {
        let member = Member::new("alice", connection.to_string());
        self.rooms.enter(&self.channel, connection, &self.outbox, Some(&member)).await;
    }

    /// How many members the engine knows.
    async fn known(&self) -> u64 {
        self.presence.page(P0, &self.channel, None, 1).await.unwrap().counts.sessions
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_within_a_tenth_of_a_second_is_reported_at_once() {
    let world = World::new().await;
    let began = Instant::now();
    for connection in 0..5 {
        world.join(connection).await;
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.known().await, 0, "nobody is in a hurry");
    sleep(REPORT_EVERY).await;
    assert_eq!(world.known().await, 5);
    {
        let reports = world.presence.reports.lock();
        let [report] = &reports[..] else { panic!("{} reports", reports.len()) };
        let after = report.at - began;
        assert_eq!(report.changes, 5);
        assert!(after >= REPORT_EVERY && after < REPORT_EVERY * 2, "after {after:?}");
    }
    // Whoever asks does not wait so long.
    world.join(5).await;
    let asked = Instant::now();
    let page = world.rooms.page(&world.channel, None, 10).await.unwrap().page;
    assert_eq!(page.counts.sessions, 6);
    assert!(asked.elapsed() < REPORT_EVERY / 2, "after {:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn members_whose_life_the_engine_does_not_know_are_reported_under_another() {
    let world = World::new().await;
    world.join(0).await;
    sleep(REPORT_EVERY * 2).await;
    assert_eq!(world.known().await, 1);
    let life = world.presence.reports.lock()[0].life.clone();
    // As another gateway does it that has not seen it renewed.
    world.presence.end(&life).await.unwrap();
    while world.presence.sweep(P0).await.unwrap().more {}
    assert_eq!(world.known().await, 0);
    // Nobody comes or goes: only the renewal tells.
    sleep(TEND_EVERY * 2).await;
    assert_eq!(world.known().await, 1, "who is here is known again");
    assert_ne!(world.presence.reports.lock().last().unwrap().life, life);
}
