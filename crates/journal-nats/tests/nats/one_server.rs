//! The journal on one real nats-server: settings, fencing, restarts, the tail, the backlog.

use crate::appender::{
    E, PATIENCE, append_until_settled, backlog_is, body, check_all, config, journal,
};
use futures::future::join_all;
use futures::{FutureExt as _, StreamExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use stormwire_core::{Epoch, Partition};
use stormwire_guard::BreakerState;
use stormwire_journal::{AppendError, Journal, JournalError, SavedTable, TailEvent};
use stormwire_journal_nats::{NatsConfig, NatsJournal};
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::{Folder, Launch, Port, Program, Server, wait_until};
use tokio::time::{Instant, timeout};

const P: Partition = Partition(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_may_make_the_same_logs_at_once() {
    let Some(server) = NatsServer::start().await else { return };
    let journals = [journal(vec![server.url()]).await, journal(vec![server.url()]).await];
    let opened = join_all((0..16).flat_map(|p| journals.each_ref().map(|j| j.open(Partition(p)))));
    for tip in opened.await {
        assert_eq!(tip.map(|tip| (tip.epoch, tip.first, tip.last)), Ok((E, 1, 0)));
    }
}

#[tokio::test]
async fn a_log_with_other_settings_is_refused_and_left_as_it_is() {
    let Some(server) = NatsServer::start().await else { return };
    journal(vec![server.url()]).await.open(P).await.unwrap();
    let smaller = NatsConfig { max_bytes: 1 << 20, ..config(vec![server.url()]) };
    let smaller = NatsJournal::connect(smaller).await.unwrap();
    for _ in 0..2 {
        let error = smaller.open(P).await.unwrap_err();
        let JournalError::Settings { partition, difference } = &error else { panic!("{error}") };
        assert_eq!(*partition, P);
        assert_eq!(difference, "max_bytes is 67108864, expected 1048576");
    }
}

#[tokio::test]
async fn a_stream_of_tables_with_other_settings_is_refused_and_left_as_it_is() {
    let Some(server) = NatsServer::start().await else { return };
    let first = journal(vec![server.url()]).await;
    first.open(P).await.unwrap();
    let bytes = bytes::Bytes::from_static(b"a table");
    first.save_table(P, SavedTable { epoch: E, through: 0, bytes }).await.unwrap();
    let smaller = NatsConfig { tables_max_bytes: 64 << 20, ..config(vec![server.url()]) };
    let smaller = NatsJournal::connect(smaller).await.unwrap();
    for _ in 0..2 {
        let error = smaller.open(P).await.unwrap_err();
        let JournalError::Settings { difference, .. } = &error else { panic!("{error}") };
        assert_eq!(difference, "STORM_TABLES: max_bytes is 536870912, expected 67108864");
    }
    journal(vec![server.url()]).await.open(P).await.unwrap();
}

#[tokio::test]
async fn copies_that_a_single_server_cannot_keep_are_refused_by_name() {
    let Some(server) = NatsServer::start().await else { return };
    let three = NatsConfig { replicas: 3, ..config(vec![server.url()]) };
    let error = NatsJournal::connect(three).await.unwrap().open(P).await.unwrap_err().to_string();
    assert!(error.contains("replicas > 1 not supported"), "{error}");
}

#[tokio::test]
async fn space_that_the_server_does_not_have_is_refused_with_the_remedy() {
    let Some(server) = NatsServer::start().await else { return };
    let vast = NatsConfig { max_bytes: 1 << 50, ..config(vec![server.url()]) };
    let error = NatsJournal::connect(vast).await.unwrap().open(P).await.unwrap_err().to_string();
    assert!(error.contains("max_file_store") && error.contains("1125899906842624"), "{error}");
}

#[tokio::test]
async fn the_highest_epoch_is_the_current_one() {
    let Some(server) = NatsServer::start().await else { return };
    let journal = journal(vec![server.url()]).await;
    journal.open(P).await.unwrap();
    journal.append(P, E, 0, body(P, 1)).await.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut second =
        jetstream.get_stream("STORM_3_1").await.unwrap().get_info().await.unwrap().config;
    second.name = "STORM_3_2".to_owned();
    second.subjects = vec!["storm.events.3.2".to_owned()];
    let republish = second.republish.as_mut().unwrap();
    republish.source = "storm.events.3.2".to_owned();
    republish.destination = "storm.live.3.2".to_owned();
    jetstream.create_stream(second).await.unwrap();
    let tip = journal.open(P).await.unwrap();
    assert_eq!((tip.epoch, tip.last), (Epoch(2), 0));
    assert_eq!(journal.tip(P).await.unwrap().epoch, Epoch(2));
    assert_eq!(journal.frame(P, E, 1).await.unwrap().unwrap().bytes, body(P, 1), "still read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_appenders_one_gets_each_place_and_the_other_knows_it() {
    let Some(server) = NatsServer::start().await else { return };
    let (one, two) = (journal(vec![server.url()]).await, journal(vec![server.url()]).await);
    one.open(P).await.unwrap();
    for last in 0..100 {
        let outcomes = [one.append(P, E, last, "one".into()), two.append(P, E, last, "two".into())];
        let outcomes = join_all(outcomes).await;
        let stored = one.frame(P, E, last + 1).await.unwrap().unwrap().bytes;
        let (winner, loser) = if stored == "one" { (0, 1) } else { (1, 0) };
        assert_eq!(outcomes[winner], Ok(last + 1));
        assert_eq!(outcomes[loser], Err(AppendError::WrongLast { expected: last }));
    }
}

#[tokio::test]
async fn an_append_to_no_log_is_refused_at_once() {
    let Some(server) = NatsServer::start().await else { return };
    let journal = journal(vec![server.url()]).await;
    let started = Instant::now();
    let refused = journal.append(P, E, 0, body(P, 1)).await;
    assert!(matches!(refused, Err(AppendError::Refused(_))), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(1));
    let huge = journal.append(P, E, 0, vec![0; 600_000].into()).await;
    assert!(matches!(huge, Err(AppendError::Refused(_))), "{huge:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_nats_is_named_and_found_when_it_comes() {
    let Some(server) = NatsServer::start().await else { return };
    server.kill().await;
    let journal = journal(vec![server.url()]).await;
    let error = journal.ping().await.unwrap_err().to_string();
    assert!(error.contains("NATS is not connected"), "{error}");
    assert!(matches!(journal.open(P).await, Err(JournalError::Unavailable(_))));
    assert!(matches!(journal.tail(&[P]).await, Err(JournalError::Unavailable(_))));
    let refused = journal.append(P, E, 0, body(P, 1)).await;
    assert!(matches!(refused, Err(AppendError::Refused(_))), "never sent: {refused:?}");
    server.restart().await;
    wait_until("NATS is found", PATIENCE, || async { journal.ping().await.is_ok() }).await;
    journal.open(P).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_ends_every_waiting_append_at_once_as_unknown() {
    let Some(server) = NatsServer::start().await else { return };
    let patient =
        NatsConfig { append_deadline: Duration::from_secs(60), ..config(vec![server.url()]) };
    let journal = Arc::new(NatsJournal::connect(patient).await.unwrap());
    for p in 0..8 {
        journal.open(Partition(p)).await.unwrap();
    }
    server.pause().await;
    // A stopped process may answer a little longer: each goes on until its answers end.
    let appends: Vec<_> = (0..8)
        .map(|p| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move {
                let mut last = 0;
                loop {
                    last = match journal.append(Partition(p), E, last, body(P, 1)).await {
                        Ok(seq) => seq,
                        Err(error) => return error,
                    };
                }
            })
        })
        .collect();
    // A frozen server is noticed by its silence, long before the deadline.
    for outcome in timeout(Duration::from_secs(20), join_all(appends)).await.expect("in time") {
        let error = outcome.unwrap();
        assert!(matches!(error, AppendError::Unknown(_)), "{error:?}");
    }
    server.resume().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_load_lose_and_double_nothing() {
    let Some(server) = NatsServer::start().await else { return };
    let journal = Arc::new(journal(vec![server.url()]).await);
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut appenders = Vec::new();
    for p in 0..4 {
        let (journal, stop, acknowledged) =
            (Arc::clone(&journal), Arc::clone(&stop), Arc::clone(&acknowledged));
        journal.open(Partition(p)).await.unwrap();
        appenders.push(tokio::spawn(async move {
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                if append_until_settled(&journal, Partition(p), last).await {
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                last += 1;
            }
            last
        }));
    }
    for _ in 0..3 {
        let before = acknowledged.load(Ordering::Relaxed);
        wait_until("frames are acknowledged", PATIENCE, || async {
            acknowledged.load(Ordering::Relaxed) > before + 200
        })
        .await;
        server.kill().await;
        server.restart().await;
    }
    let before = acknowledged.load(Ordering::Relaxed);
    wait_until("appends go on", PATIENCE, || async {
        acknowledged.load(Ordering::Relaxed) > before
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for (appender, p) in appenders.into_iter().zip(0..) {
        let last = appender.await.unwrap();
        assert_eq!(check_all(&journal, Partition(p)).await, last);
        assert_eq!(journal.tip(Partition(p)).await.unwrap().last, last);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_says_check_after_a_restart_and_goes_on() {
    let Some(server) = NatsServer::start().await else { return };
    let journal = journal(vec![server.url()]).await;
    journal.open(P).await.unwrap();
    let mut tail = journal.tail(&[P]).await.unwrap();
    journal.append(P, E, 0, body(P, 1)).await.unwrap();
    let first = timeout(PATIENCE, tail.next()).await.unwrap().unwrap();
    let TailEvent::Frame(first) = first else { panic!("{first:?}") };
    assert_eq!(Some(first), journal.frame(P, E, 1).await.unwrap(), "time and bytes are the same");
    server.kill().await;
    server.restart().await;
    assert_eq!(timeout(PATIENCE, tail.next()).await.unwrap(), Some(TailEvent::Check));
    append_until_settled(&journal, P, 1).await;
    // A frame that was stored before the tail's connection had renewed its subscriptions is not heard,
    // but then it is there by the time of a later word.
    loop {
        match timeout(PATIENCE, tail.next()).await.expect("frame 2 or a word").unwrap() {
            TailEvent::Frame(frame) => break assert_eq!(frame.seq, 2),
            TailEvent::Check if journal.tip(P).await.unwrap().last == 2 => break,
            TailEvent::Check => {}
        }
    }
    append_until_settled(&journal, P, 2).await;
    let mut heard = async |seq| {
        while !matches!(tail.next().await, Some(TailEvent::Frame(frame)) if frame.seq == seq) {}
    };
    timeout(PATIENCE, heard(3)).await.expect("frame 3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backlog_is_what_remains_to_be_persisted() {
    let Some(server) = NatsServer::start().await else { return };
    let journal = journal(vec![server.url()]).await;
    journal.open(P).await.unwrap();
    for last in 0..10 {
        journal.append(P, E, last, body(P, last + 1)).await.unwrap();
    }
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let shown = |remaining| backlog_is(jetstream.clone(), "STORM_3_1", remaining);
    // The ledger may go back at a take-over, and so does what is shown.
    for (through, remaining) in [(4, 6), (9, 1), (2, 8), (10, 0)] {
        journal.persisted(P, E, through).await;
        shown(remaining).await;
    }
    journal.trim(P, E, 5).await.unwrap();
    journal.persisted(P, E, 7).await;
    shown(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_breakers_open_before_a_frozen_server_and_close_when_it_wakes() {
    let Some(server) = NatsServer::start().await else { return };
    let hasty = NatsConfig {
        append_deadline: Duration::from_millis(50),
        deadline: Duration::from_millis(50),
        ..config(vec![server.url()])
    };
    journal(vec![server.url()]).await.open(P).await.unwrap();
    let journal = NatsJournal::connect(hasty).await.unwrap();
    let all = |state| journal.breakers().iter().all(|(_, breaker)| *breaker == state);
    server.pause().await;
    wait_until("both open", PATIENCE, || async {
        // A stopped process may answer a little longer.
        let _ = journal.append(P, E, 0, body(P, 1)).await;
        let _ = journal.frame(P, E, 1).await;
        all(BreakerState::Open)
    })
    .await;
    let refused = journal.append(P, E, 0, body(P, 1)).await;
    assert!(matches!(refused, Err(AppendError::Refused(_))), "not even sent: {refused:?}");
    server.resume().await;
    wait_until("both closed", PATIENCE, || async {
        // One of those above has landed, or lands now.
        let _ = journal.append(P, E, 0, body(P, 1)).await;
        journal.frame(P, E, 1).await.is_ok() && all(BreakerState::Closed)
    })
    .await;
    assert_eq!(journal.frame(P, E, 1).await.unwrap().unwrap().bytes, body(P, 1));
    assert_eq!(journal.tip(P).await.unwrap().last, 1, "it is there once");
}

/// A log as somebody made it by hand: deletes are allowed, so that it can have a hole.
async fn log_with_a_hole(server: &NatsServer, partition: Partition, allow_direct: bool) {
    let jetstream =
        async_nats::jetstream::new(async_nats::connect(server.url()).await.expect("NATS answers"));
    let config = async_nats::jetstream::stream::Config {
        name: format!("STORM_{partition}_1"),
        subjects: vec![format!("storm.events.{partition}.1")],
        allow_direct,
        ..Default::default()
    };
    let stream = jetstream.create_stream(config).await.expect("NATS answers");
    let journal = journal(vec![server.url()]).await;
    for last in 0..6 {
        journal.append(partition, E, last, body(partition, last + 1)).await.expect("NATS answers");
    }
    stream.delete_message(3).await.expect("NATS answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_replica_and_the_leader_give_the_same_pages() {
    let Some(server) = NatsServer::start().await else { return };
    let (direct, leader) = (Partition(1), Partition(2));
    log_with_a_hole(&server, direct, true).boxed().await;
    log_with_a_hole(&server, leader, false).boxed().await;
    let journal = journal(vec![server.url()]).await;
    for partition in [direct, leader] {
        let page = async |from, frames, bytes| {
            let page = journal.read(partition, E, from, frames, bytes).await.unwrap();
            for frame in &page {
                assert_eq!(frame.bytes, body(partition, frame.seq));
            }
            page.into_iter().map(|frame| frame.seq).collect::<Vec<_>>()
        };
        assert_eq!(page(0, 100, 1 << 20).await, [1, 2, 4, 5, 6]);
        assert_eq!(page(3, 2, 1 << 20).await, [4, 5]);
        assert_eq!(page(4, 100, 1).await, [4], "one frame at least");
        assert_eq!(page(7, 100, 1 << 20).await, [0; 0]);
        assert_eq!(journal.frame(partition, E, 3).await.unwrap(), None);
        assert_eq!(journal.frame(partition, E, 0).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_and_the_right_one_works() {
    let Some(plain) = NatsServer::start().await else { return };
    let folder = Folder::temporary("guarded").unwrap();
    let port = Port::reserve().unwrap();
    let program = Program::Nats.find().expect("it runs already");
    let launch = Launch::new("guarded", program, folder.path()).arguments([
        "-js".to_owned(),
        format!("-sd={}", folder.path().display()),
        "-a=127.0.0.1".to_owned(),
        format!("-p={}", port.number()),
        "--user=ann".to_owned(),
        "--pass=secret".to_owned(),
    ]);
    drop(plain);
    let server = Server::new(launch);
    let number = port.number();
    server
        .start(
            || async move { tokio::net::TcpStream::connect(("127.0.0.1", number)).await.is_ok() },
        )
        .await
        .unwrap();
    let url = format!("nats://127.0.0.1:{number}");
    let with = |user: &str, password: &str| NatsConfig {
        user: Some(user.to_owned()),
        password: Some(password.to_owned()),
        ..config(vec![url.clone()])
    };
    let refused = NatsJournal::connect(with("ann", "guess")).await.unwrap();
    let error = refused.ping().await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("authorization violation"), "{error}");
    let journal = NatsJournal::connect(with("ann", "secret")).await.unwrap();
    journal.ping().await.unwrap();
    let in_url = config(vec![format!("nats://ann:secret@127.0.0.1:{number}")]);
    NatsJournal::connect(in_url).await.unwrap().ping().await.unwrap();
    assert!(journal.breakers().iter().all(|(_, state)| *state == BreakerState::Closed));
}
