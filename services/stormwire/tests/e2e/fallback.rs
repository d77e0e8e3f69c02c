//! The client where no WebSocket passes, and where what stands in between holds streams back or cuts.

use crate::kit::{PATIENCE, data_dir, embedded, token};
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stormwire_client::{
    Client, ClientConfig, Delivery, Event, NewEvent, Payload, Since, Status, Subscription,
    TokenError, TokenProvider, Transport, Transports,
};
use stormwire_core::{Channel, Pattern};
use stormwire_testkit::{Folder, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What stands between: it looks at each request, and a connection has one.
struct Gate {
    address: SocketAddr,
    passes: Arc<Passes>,
    cuts: watch::Sender<u64>,
}

struct Passes {
    websockets: AtomicBool,
    streams: AtomicBool,
}

impl Gate {
    async fn before(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passes =
            Arc::new(Passes { websockets: AtomicBool::new(false), streams: AtomicBool::new(true) });
        let (cuts, cut) = watch::channel(0);
        let of_all = Arc::clone(&passes);
        tokio::spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                let (passes, target, mut cut) = (Arc::clone(&of_all), target.clone(), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = pass(peer, &target, &passes) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, passes, cuts }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn pass(mut peer: TcpStream, target: &str, passes: &Passes) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if peer.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let is_websocket = text.contains("upgrade: websocket");
    if is_websocket && !passes.websockets.load(Ordering::SeqCst) {
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return peer.write_all(answer).await;
    }
    let mut server = TcpStream::connect(target).await?;
    if is_websocket {
        server.write_all(&head).await?;
    } else {
        let end = head.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        server.write_all(&head[..end]).await?;
        server.write_all(b"\r\nconnection: close").await?;
        server.write_all(&head[end..]).await?;
    }
    if text.contains("text/event-stream") && !passes.streams.load(Ordering::SeqCst) {
        // It waits for the end of the answer before it gives any of it.
        std::future::pending::<()>().await;
    }
    copy_bidirectional(&mut peer, &mut server).await.map(drop)
}

async fn becomes(client: &Client, due: Transport) {
    let mut status = client.status();
    let due = Status::Connected(due);
    let came = status.wait_for(|status| *status == due);
    tokio::time::timeout(PATIENCE, came).await.expect("the status comes").unwrap();
}

/// The next events up to `count` together.
async fn read(subscription: &mut Subscription, count: usize) -> Vec<Event> {
    let mut read = Vec::new();
    while read.len() < count {
        let next = tokio::time::timeout(PATIENCE, subscription.next());
        match next.await.expect("a delivery comes").unwrap().unwrap() {
            Delivery::Events(events) => read.extend(events),
            gap => panic!("{gap:?}"),
        }
    }
    read
}

fn texts(events: &[Event]) -> Vec<String> {
    let text = |event: &Event| match &event.data {
        Payload::Json(text) => text.to_string(),
        Payload::Binary(bytes) => format!("{bytes:?}"),
    };
    events.iter().map(text).collect()
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..=to).map(|number| number.to_string()).collect()
}

/// Publishes the numbers, many at once; ends when all are stored.
async fn publish(client: &Client, channel: &Channel, from: usize, to: usize) {
    let mut receipts = Vec::new();
    for number in numbers(from, to) {
        let event = [NewEvent::json(&number).unwrap()];
        receipts.push(client.send(channel, &event).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_websocket_passes_nothing_is_lost_or_doubled_over_http() {
    let folder = Folder::temporary("fallback").unwrap();
    let (server, token) = (embedded(&folder).await, token(&data_dir(&folder)).await);
    let gate = Gate::before(server.url().replace("http://", "")).await;
    let mut config = ClientConfig::new(gate.url(), token.clone());
    config.backoff_base = Duration::from_millis(10);
    config.backoff_cap = Duration::from_millis(100);
    config.upgrade_base = Duration::from_millis(200);
    let client = Client::connect(config).await.unwrap();
    becomes(&client, Transport::Http).await;

    let channel = Channel::parse("fall:a").unwrap();
    let mut live = client.subscribe(&channel, None).await.unwrap();
    let all = Pattern::parse("fall:*").unwrap();
    let mut pattern = client.follow(&all, None, stormwire_client::Mode::All).await.unwrap();
    publish(&client, &channel, 1, 100).await;
    assert_eq!(texts(&read(&mut live, 100).await), numbers(1, 100));
    assert_eq!(texts(&read(&mut pattern, 100).await), numbers(1, 100));

    // The connections are cut again and again while it goes on.
    let cutting = async {
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            gate.cut();
        }
    };
    tokio::join!(publish(&client, &channel, 101, 600), cutting);
    assert_eq!(texts(&read(&mut live, 500).await), numbers(101, 600));
    assert_eq!(texts(&read(&mut pattern, 500).await), numbers(101, 600));

    // Whoever comes now takes the last, or goes on from where it stood.
    let mut config = ClientConfig::new(gate.url(), token);
    config.transports = Transports::Http;
    let other = Client::connect(config).await.unwrap();
    let mut last = other.subscribe(&channel, Some(Since::Last(10))).await.unwrap();
    assert_eq!(texts(&read(&mut last, 10).await), numbers(591, 600));
    drop(last);
    let page = other.history(&channel, stormwire_client::Page::Last, 5).await.unwrap();
    assert_eq!((texts(&page.events), page.more), (numbers(596, 600), true));
    let after = page.events[1].position;
    let page = other.history_after(&channel, after, 100).await.unwrap();
    assert_eq!(texts(&page.events), numbers(598, 600));

    // What is held back is asked for instead.
    gate.passes.streams.store(false, Ordering::SeqCst);
    gate.cut();
    let mut polled = other.subscribe(&channel, Some(Since::Position(after))).await.unwrap();
    publish(&client, &channel, 601, 700).await;
    assert_eq!(texts(&read(&mut polled, 103).await), numbers(598, 700));
    assert_eq!(texts(&read(&mut live, 100).await), numbers(601, 700));
    assert_eq!(texts(&read(&mut pattern, 100).await), numbers(601, 700));

    // Membership waits for a WebSocket; with that, all goes on over it.
    let client = Arc::new(client);
    let attending = tokio::spawn({
        let (client, room) = (Arc::clone(&client), Channel::parse("fall:room").unwrap());
        async move { client.attend(&room, None).await.map(drop) }
    });
    gate.passes.websockets.store(true, Ordering::SeqCst);
    becomes(&client, Transport::WebSocket).await;
    attending.await.unwrap().unwrap();
    publish(&client, &channel, 701, 800).await;
    assert_eq!(texts(&read(&mut live, 100).await), numbers(701, 800));
    assert_eq!(texts(&read(&mut pattern, 100).await), numbers(701, 800));
    assert_eq!(texts(&read(&mut polled, 100).await), numbers(701, 800));
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_data_is_what_was_published_and_a_refusal_is_told() {
    let folder = Folder::temporary("over-http").unwrap();
    let (server, token) = (embedded(&folder).await, token(&data_dir(&folder)).await);
    let mut config = ClientConfig::new(server.url(), token.clone());
    config.transports = Transports::Http;
    let client = Client::connect(config).await.unwrap();
    let channel = Channel::parse("fall:b").unwrap();
    let written = ["1.10", r#"{"b":1,"a":12345678901234567890123,"a":2}"#, r#""é\u0000""#];
    for (index, text) in written.iter().enumerate() {
        let event = NewEvent::json(text).unwrap().with_key(["k", "l"][index % 2]);
        client.publish(&channel, &[event]).await.unwrap();
    }
    client.publish(&channel, &[NewEvent::binary(vec![0, 255])]).await.unwrap();
    let since = Some(Since::Last(10));
    let mut subscription = client.subscribe(&channel, since).await.unwrap();
    let read = read(&mut subscription, 4).await;
    assert_eq!(texts(&read[..3]), written);
    assert!(matches!(&read[3].data, Payload::Binary(bytes) if **bytes == [0, 255]), "{read:?}");

    let newest = client.latest(&channel, Some("l")).await.unwrap().unwrap();
    assert_eq!(newest.position, read[1].position);
    let newest = client.latest(&channel, None).await.unwrap().unwrap();
    assert_eq!(newest.position, read[3].position);
    let keys = client.latest_by_key(&channel, None, 10).await.unwrap().events;
    let keys: Vec<_> = keys.iter().map(|event| event.key.as_deref().unwrap()).collect();
    assert_eq!(keys, ["k", "l"]);
    let page = client.members(&channel, None, 10).await.unwrap();
    assert!(page.members.is_empty(), "{page:?}");
    client.signal(&channel, Payload::Json("1".into())).await.unwrap();
    assert!(client.ping().await.unwrap().0 > 0);
    assert!(client.refresh(&token).await.unwrap() > Duration::from_secs(60));

    // A refusal of one is nothing to the others.
    let wrong = client.history(&channel, stormwire_client::Page::Last, 0).await.unwrap_err();
    assert_eq!(wrong.code(), Some(stormwire_core::ErrorCode::InvalidField), "{wrong}");
    let command = ["token", "--user", "b", "--publish", "x:*", "--data-dir", &data_dir(&folder)];
    let narrow = crate::kit::succeed(&command).await.trim().to_owned();
    let mut config = ClientConfig::new(server.url(), narrow);
    config.transports = Transports::Http;
    let other = Client::connect(config).await.unwrap();
    let refused = other.subscribe(&channel, None).await.unwrap_err();
    assert_eq!(refused.code(), Some(stormwire_core::ErrorCode::Forbidden), "{refused}");
    let event = [NewEvent::json("1").unwrap()];
    let refused = other.publish(&channel, &event).await.unwrap_err();
    assert_eq!(refused.code(), Some(stormwire_core::ErrorCode::Forbidden), "{refused}");
    other.publish(&Channel::parse("x:y").unwrap(), &event).await.unwrap();

    // One that nobody knows ends the client.
    let mut config = ClientConfig::new(server.url(), "nobody");
    config.transports = Transports::Http;
    config.backoff_base = Duration::from_millis(10);
    let unknown = Client::connect(config).await.unwrap();
    let told = unknown.publish(&channel, &event).await.unwrap_err();
    // The refusal was of the connection: what became of the publish, nobody said.
    assert!(matches!(told, stormwire_client::ClientError::Unknown(_)), "{told:?}");
    wait_until("it has ended", PATIENCE, || async {
        matches!(*unknown.status().borrow(), Status::Ended(_))
    })
    .await;
}

/// Tokens that hold for moments.
struct Short(String);

impl TokenProvider for Short {
    fn token(&self) -> BoxFuture<'_, Result<String, TokenError>> {
        Box::pin(async {
            let rights = ["token", "--user", "s", "--publish", "*", "--subscribe", "*"];
            let all = [&rights[..], &["--ttl", "3s", "--data-dir", &self.0]].concat();
            Ok(crate::kit::succeed(&all).await.trim().to_owned())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_with_its_token_goes_on_with_a_fresh_one() {
    let folder = Folder::temporary("short-tokens").unwrap();
    let server = embedded(&folder).await;
    let mut config = ClientConfig::new(server.url(), "");
    config.token = Arc::new(Short(data_dir(&folder)));
    config.transports = Transports::Http;
    let client = Client::connect(config).await.unwrap();
    let channel = Channel::parse("fall:c").unwrap();
    let mut feed = client.subscribe(&channel, None).await.unwrap();
    let all = Pattern::parse("fall:*").unwrap();
    let mut pattern = client.follow(&all, None, stormwire_client::Mode::All).await.unwrap();
    for round in 0..8 {
        let (from, to) = (round * 10 + 1, round * 10 + 10);
        publish(&client, &channel, from, to).await;
        assert_eq!(texts(&read(&mut feed, 10).await), numbers(from, to));
        assert_eq!(texts(&read(&mut pattern, 10).await), numbers(from, to));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(client.connections(), 1, "the streams alone have ended");
}
