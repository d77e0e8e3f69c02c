//! Two gateways and two workers on real NATS, Postgres and Redis, of which some are killed in the middle
//! of a replay.

use crate::kit::{FLIGHTS, Replay, Role, check_rest, check_socket, check_sql, data_dir, token};
use sqlx::postgres::PgPool;
use stormwire_testkit::Folder;
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::redis::Redis;

#[tokio::test]
async fn a_killed_gateway_and_a_killed_worker_cost_no_event_and_no_order() {
    let (Some(nats), Some(postgres), Some(redis)) =
        (NatsServer::start().await, Postgres::start().await, Redis::start().await)
    else {
        return;
    };
    let folder = Folder::temporary("cluster").unwrap();
    let mut environment = vec![
        ("NATS_URL", nats.url()),
        ("DATABASE_URL", postgres.url()),
        ("REDIS_URL", redis.url()),
        ("STORMWIRE_DATA_DIR", data_dir(&folder)),
        ("STORMWIRE_LISTEN", "127.0.0.1:{port}".to_owned()),
    ];
    let mut gateways = Vec::new();
    for name in ["gateway-1", "gateway-2"] {
        gateways.push(Role::start(name, folder.path(), &["gateway"], &environment).await);
    }
    environment.retain(|(name, _)| *name != "STORMWIRE_LISTEN");
    environment.push(("STORMWIRE_MANAGEMENT_LISTEN", "127.0.0.1:{port}".to_owned()));
    let mut workers = Vec::new();
    for name in ["worker-1", "worker-2"] {
        workers.push(Role::start(name, folder.path(), &["messages"], &environment).await);
    }
    let token = token(&data_dir(&folder)).await;
    let urls = gateways.iter().map(Role::url).collect::<Vec<_>>().join(",");
    let replay = Replay::start(&urls, &token, &folder, 600);
    replay.reaches(400).await;
    workers[0].server.kill().await;
    replay.reaches(800).await;
    gateways[0].server.kill().await;
    replay.reaches(1600).await;
    gateways[0].again().await;
    workers[0].again().await;
    let figures = replay.finish().await;
    assert_eq!((&figures["acknowledged"], &figures["refused"]), (&FLIGHTS.into(), &0.into()));
    let pool = PgPool::connect(&postgres.url()).await.unwrap();
    check_sql(&pool, "TEXT").await;
    for gateway in &gateways {
        check_rest(&gateway.url(), &token).await;
        check_socket(&gateway.url(), &token).await;
    }
}
