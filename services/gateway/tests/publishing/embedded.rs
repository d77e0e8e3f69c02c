//! One gateway alone, on the embedded engine.

use super::{Client, Event, partitions, stored};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stormwire_core::{Channel, ErrorCode, SystemClock};
use stormwire_embedded::{Embedded, EmbeddedConfig};
use stormwire_gateway::ingest::{Ingest, IngestConfig, NoWitness, Role};
use stormwire_telemetry::Tasks;
use stormwire_testkit::Folder;

async fn open(folder: &Folder) -> Embedded {
    let path = folder.path().join("test.db");
    Embedded::open(path, EmbeddedConfig::default(), Arc::new(SystemClock)).await.unwrap()
}

fn start(engine: &Embedded) -> (Ingest, Tasks) {
    let tasks = Tasks::new();
    let config = IngestConfig::new("one", partitions());
    let clock = Arc::new(SystemClock);
    (
        Ingest::start(engine.journal(), engine.peers(), Arc::new(NoWitness), clock, config, &tasks),
        tasks,
    )
}

fn event<'a>(channel: &'a str, producer: &'a str, seq: u64) -> Event<'a> {
    Event { connection: 1, channel, producer: Some(producer), seq, again: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_stands_in_the_log_once_at_the_offsets_that_were_told() {
    let folder = Folder::temporary("ingest").unwrap();
    let engine = open(&folder).await;
    let (ingest, _tasks) = start(&engine);
    let began = Instant::now();
    let client = Arc::new(Client::default());
    let channels: Vec<_> = (0..8).map(|n| format!("test:c{n}")).collect();
    for ticket in 0..2000 {
        let channel = &channels[usize::try_from(ticket).unwrap() % channels.len()];
        if ticket % 5 == 4 {
            let event = Event { producer: None, ..event(channel, "", 0) };
            client.publish(&ingest, ticket, &event);
        } else {
            client.publish(&ingest, ticket, &event(channel, "p", ticket + 1));
        }
    }
    let mut told = HashMap::new();
    for ticket in 0..2000 {
        let answer = client.answer(ticket).await.unwrap();
        assert!(!answer.duplicate && answer.first == answer.last);
        let channel = &channels[usize::try_from(ticket).unwrap() % channels.len()];
        let partition = Channel::parse(channel).unwrap().partition(partitions());
        assert!(told.insert((partition, answer.first), ticket).is_none(), "an offset told twice");
    }
    let log = stored(&*engine.journal()).await;
    assert_eq!(log.len(), 2000);
    for (data, channel, offset) in log {
        let partition = Channel::parse(&channel).unwrap().partition(partitions());
        let ticket = told[&(partition, offset)];
        let expected = if ticket % 5 == 4 {
            "\"nobody:0\"".to_owned()
        } else {
            format!("\"p:{}\"", ticket + 1)
        };
        assert_eq!(data, expected);
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    for status in ingest.status() {
        assert_eq!((status.role, status.owner.as_deref()), (Role::Owner, Some("one")));
        assert_eq!((status.lane_bytes, status.problem), (0, None));
    }
    ingest.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_known_for_one_also_by_the_next_process() {
    let folder = Folder::temporary("ingest").unwrap();
    let engine = open(&folder).await;
    let client = Arc::new(Client::default());
    let (ingest, tasks) = start(&engine);
    client.publish(&ingest, 1, &event("test:a", "p", 7));
    let first = client.answer(1).await.unwrap();
    let again = |connection| Event {
        connection,
        again: Some(Duration::from_millis(300)),
        ..event("test:a", "p", 7)
    };
    client.publish(&ingest, 2, &again(2));
    let second = client.answer(2).await.unwrap();
    assert!(second.duplicate && (second.first, second.last) == (first.first, first.last));
    client.publish(&ingest, 3, &event("test:a", "p", 7));
    assert_eq!(client.answer(3).await.unwrap_err().code, ErrorCode::Conflict);
    drop(ingest);
    tasks.drain(Duration::from_secs(5)).await.unwrap();

    let (ingest, _tasks) = start(&engine);
    client.publish(&ingest, 4, &again(3));
    let third = client.answer(4).await.unwrap();
    assert!(third.duplicate && third.first == first.first);
    assert_eq!(stored(&*engine.journal()).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limiters_refusal_holds_back_what_is_above_it_until_it_comes_again() {
    let folder = Folder::temporary("ingest").unwrap();
    let engine = open(&folder).await;
    let (ingest, _tasks) = start(&engine);
    let client = Arc::new(Client::default());
    ingest.refused(1, &Channel::parse("test:a").unwrap(), 1, true);
    client.publish(&ingest, 2, &event("test:a", "p", 2));
    let refusal = client.answer(2).await.unwrap_err();
    assert_eq!((refusal.code, refusal.expected), (ErrorCode::OutOfOrder, Some(1)));
    client.publish(&ingest, 3, &event("test:a", "p", 1));
    client.publish(&ingest, 4, &event("test:a", "p", 2));
    let (one, two) = (client.answer(3).await.unwrap(), client.answer(4).await.unwrap());
    assert!(one.first < two.first);
    ingest.refused(1, &Channel::parse("test:a").unwrap(), 3, true);
    ingest.closed(1);
    client.publish(&ingest, 5, &event("test:a", "p", 4));
    assert!(client.answer(5).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_submission_is_answered_when_the_process_goes_away() {
    let folder = Folder::temporary("ingest").unwrap();
    let engine = open(&folder).await;
    let (ingest, tasks) = start(&engine);
    let client = Arc::new(Client::default());
    for ticket in 0..500 {
        client.publish(&ingest, ticket, &event("test:a", "p", ticket + 1));
    }
    ingest.drain().await;
    tasks.drain(Duration::from_secs(5)).await.unwrap();
    for ticket in 0..500 {
        assert!(client.answer(ticket).await.is_ok(), "drained, so all of it is written");
    }
    client.publish(&ingest, 500, &event("test:a", "p", 501));
    assert_eq!(client.answer(500).await.unwrap_err().code, ErrorCode::ShuttingDown);
}
