//! The client against a small server that refuses, cuts connections and repeats itself.

#![expect(clippy::unwrap_used, reason = "a test ends where it is not as expected")]

mod server;

use server::{Faults, Server};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use stormwire_client::{
    Client, ClientConfig, ClientError, Delivery, End, NewEvent, Since, Subscription, TokenProvider,
};
use stormwire_core::{Channel, ErrorCode};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

fn config(server: &Server) -> ClientConfig {
    let mut config = ClientConfig::new(server.url(), "token");
    config.backoff_base = Duration::from_millis(5);
    config.backoff_cap = Duration::from_millis(50);
    config
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn number(n: u64) -> NewEvent {
    NewEvent::serialize(&n).unwrap()
}

async fn read(subscription: &mut Subscription, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        match timeout(PATIENCE, subscription.next()).await.expect("an event in time") {
            Some(Ok(Delivery::Events(events))) => {
                numbers.extend(
                    events.iter().map(|event| event.json().unwrap().parse::<u64>().unwrap()),
                );
            }
            other => panic!("{other:?}"),
        }
    }
    numbers
}

#[tokio::test]
async fn everything_is_stored_once_and_read_once_over_refusals_and_lost_connections() {
    let server = Server::start().await;
    server.state.lock().faults = Faults { refuse_every: 17, cut_every: 23, ..Faults::default() };
    let client = Client::connect(config(&server)).await.unwrap();
    let names = ["a:1", "a:2", "b:1"].map(channel);
    let mut readers = Vec::new();
    for name in &names {
        readers.push(client.subscribe(name, Some(Since::Last(1000))).await.unwrap());
    }
    let mut receipts = Vec::new();
    for n in 0..300 {
        receipts
            .push(client.send(&names[n % 3], &[number(n as u64), number(n as u64)]).await.unwrap());
    }
    let mut duplicates = 0;
    for receipt in receipts {
        duplicates += u32::from(timeout(PATIENCE, receipt).await.unwrap().unwrap().duplicate);
    }
    assert!(duplicates > 0, "some answers were lost");
    for (at, reader) in readers.iter_mut().enumerate() {
        let due: Vec<u64> = (0..300).filter(|n| n % 3 == at as u64).flat_map(|n| [n, n]).collect();
        assert_eq!(read(reader, due.len()).await, due);
    }
    let state = server.state.lock();
    assert!(state.connections > 5, "{} connections", state.connections);
    assert!(state.producers.iter().all(|producer| producer == client.producer()));
}

#[tokio::test]
async fn a_final_refusal_is_told_and_the_next_publish_goes_on() {
    let server = Server::start().await;
    let client = Client::connect(config(&server)).await.unwrap();
    let name = channel("a:1");
    let error = client.publish(&name, &[number(1).with_type("bad")]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidField));
    let published = client.publish(&name, &[number(2), number(3)]).await.unwrap();
    assert_eq!((published.first.0, published.last.0), (1, 2));
    let error = client.publish(&name, &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::Invalid(_)), "{error}");
    assert!(NewEvent::json("{broken").is_err());
    let error = client.subscribe(&channel("secret:x"), None).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Forbidden));
}

#[tokio::test]
async fn questions_are_answered_and_a_mute_server_is_a_deadline() {
    let server = Server::start().await;
    let mut config = config(&server);
    config.request_timeout = Duration::from_millis(200);
    config.publish_timeout = Duration::from_millis(200);
    let client = Client::connect(config).await.unwrap();
    let name = channel("a:1");
    client.publish(&name, &[number(7)]).await.unwrap();
    assert!(client.ping().await.unwrap().0 > 0);
    let page = client.history(&name, stormwire_client::Page::Last, 10).await.unwrap();
    assert_eq!(page.events.len(), 1);
    assert_eq!(page.events[0].json(), Some("7"));
    client.refresh("fresh").await.unwrap();
    assert_eq!(server.state.lock().refreshed, ["fresh"]);
    server.state.lock().faults.mute = true;
    assert!(matches!(client.ping().await, Err(ClientError::Deadline(_))));
    let sent = client.publish(&name, &[number(8)]).await;
    assert!(matches!(sent, Err(ClientError::Unknown(_))), "{sent:?}");
    server.until(|state| state.connections == 2).await;
}

#[tokio::test]
async fn a_reader_that_stops_does_not_hold_up_the_others_and_misses_nothing() {
    let server = Server::start().await;
    let mut config = config(&server);
    config.subscription_queue = 2;
    let client = Client::connect(config).await.unwrap();
    let name = channel("a:1");
    let mut slow = client.subscribe(&name, None).await.unwrap();
    assert!(matches!(client.subscribe(&name, None).await, Err(ClientError::AlreadySubscribed(_))));
    for n in 0..200 {
        client.publish(&name, &[number(n)]).await.unwrap();
    }
    assert_eq!(read(&mut slow, 200).await, (0..200).collect::<Vec<_>>());
    drop(slow);
    let mut again = client.subscribe(&name, Some(Since::Last(1))).await.unwrap();
    assert_eq!(read(&mut again, 1).await, [199]);
}

#[tokio::test]
async fn a_code_that_says_stay_away_ends_the_client_and_another_does_not() {
    let server = Server::start().await;
    let client = Client::connect(config(&server)).await.unwrap();
    server.close_all(1001);
    server.until(|state| state.connections == 2).await;
    client.ping().await.unwrap();
    let mut reader = client.subscribe(&channel("a:1"), None).await.unwrap();
    server.close_all(4409);
    match timeout(PATIENCE, reader.next()).await.unwrap() {
        Some(Err(ClientError::Ended(End::Server { code: 4409, .. }))) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.ping().await, Err(ClientError::Ended(_))));
}

#[tokio::test]
async fn a_server_that_tells_to_move_and_closes_at_once_costs_one_reconnect_and_no_pause() {
    let (first, second) = (Server::start().await, Server::start().await);
    let mut config = config(&first);
    config.urls.push(second.url());
    (config.backoff_base, config.backoff_cap) = (PATIENCE * 100, PATIENCE * 100);
    let client = Client::connect(config).await.unwrap();
    first.close_all(1001);
    second.until(|state| state.connections == 1).await;
    client.ping().await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(client.connections(), 2);
    assert_eq!(first.state.lock().connections, 1, "it moved on and did not come back");
}

#[tokio::test]
async fn what_is_sent_is_brought_to_its_end_before_the_connection_closes() {
    let server = Server::start().await;
    server.state.lock().faults.cut_every = 23;
    let client = Client::connect(config(&server)).await.unwrap();
    let name = channel("a:1");
    let mut receipts = Vec::new();
    for n in 0..40 {
        receipts.push(client.send(&name, &[number(n)]).await.unwrap());
    }
    timeout(PATIENCE, client.close()).await.unwrap();
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!(server.state.lock().log["a:1"].len(), 40);
}

struct Fresh(AtomicU32);

impl TokenProvider for Fresh {
    fn token(
        &self,
    ) -> futures::future::BoxFuture<'_, Result<String, stormwire_client::TokenError>> {
        let token = match self.0.fetch_add(1, Ordering::Relaxed) {
            1 => "stale",
            _ => "token",
        };
        Box::pin(async move { Ok(token.to_owned()) })
    }
}

#[tokio::test]
async fn a_refused_token_ends_the_first_connect_and_is_replaced_once_later() {
    let server = Server::start().await;
    server.state.lock().faults.token = Some("token");
    let refused = ClientConfig { token: Arc::new("other".to_owned()), ..config(&server) };
    match Client::connect(refused).await {
        Err(ClientError::Ended(End::Server { code: 4401, .. })) => {}
        other => panic!("{other:?}"),
    }
    let config = ClientConfig { token: Arc::new(Fresh(AtomicU32::new(0))), ..config(&server) };
    let client = Client::connect(config).await.unwrap();
    server.close_all(4401);
    server.until(|state| state.connections == 2).await;
    client.ping().await.unwrap();
}

#[tokio::test]
async fn the_next_url_is_tried_when_one_does_not_answer() {
    let server = Server::start().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = config(&server);
    config.urls = vec![format!("http://{nobody}"), server.url()];
    Client::connect(config.clone()).await.unwrap().close().await;
    config.urls.truncate(1);
    config.connect_within = Duration::from_millis(100);
    match Client::connect(config).await {
        Err(ClientError::Ended(End::Unreachable { url, .. })) => assert!(url.contains("127.0.0.1")),
        other => panic!("{other:?}"),
    }
    let error = Client::connect(ClientConfig::new("nats://a", "token")).await.unwrap_err();
    assert!(error.to_string().contains("ws://"), "{error}");
}
