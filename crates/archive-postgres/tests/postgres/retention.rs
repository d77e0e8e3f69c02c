//! Whole tables of events, dropped.

use crate::kit::{Kit, P0, START, TTL, batch, data, frame};
use std::time::Duration;
use stormwire_archive::{Archive as _, HistoryQuery, Lease, Retained, Retention, Rule};
use stormwire_core::{Epoch, Offset, Position, Timestamp};

const DAY: Duration = Duration::from_secs(86_400);
const OLD: &str =
    "(SELECT to_regclass('events_20261121') WHERE to_regclass('events_20261121') IS NOT NULL) t";

/// A day's age for every namespace but `kept`.
fn a_day() -> Retention {
    let rule = Rule { age: Some(DAY), bytes: None };
    let namespaces = [("kept".to_owned(), Rule::default())].into();
    Retention { default: rule, namespaces }
}

/// Frames `first` to `last`, one a day from `START` on.
async fn days(kit: &Kit, lease: &Lease, first: u64, last: u64, names: &[&str]) {
    for seq in first..=last {
        let text = seq.to_string();
        let events: Vec<_> = names.iter().map(|name| (*name, text.as_str())).collect();
        let mut one = batch(seq - 1, vec![frame(seq, &events)]);
        one.frames[0].1 = on_day(seq);
        kit.archive.persist(lease, &one).await.unwrap();
    }
}

fn on_day(seq: u64) -> Timestamp {
    START.plus(DAY * u32::try_from(seq - 1).unwrap())
}

async fn retain(kit: &Kit, now: Timestamp) -> Retained {
    assert!(kit.archive.maintain("w", TTL).await.unwrap());
    let mut sum = Retained::default();
    loop {
        let round = kit.archive.retain("w", &a_day(), now).await.unwrap();
        sum.events += round.events;
        sum.tables += round.tables;
        if !round.more {
            return sum;
        }
    }
}

#[tokio::test]
async fn a_table_past_its_age_is_dropped_and_the_rest_is_told_where_it_ended() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    days(&kit, &lease, 1, 3, &["a:x", "b:y"]).await;
    assert_eq!(retain(&kit, on_day(2)).await, Retained::default(), "a day is not over");
    assert_eq!(kit.count(OLD).await, 1);
    let done = retain(&kit, on_day(4)).await;
    assert_eq!((done.events, done.tables), (4, 2), "two days, two channels");
    assert_eq!(kit.count(OLD).await, 0);
    let start = Position { epoch: Epoch(1), offset: Offset(0) };
    let page = kit.history("a:x", HistoryQuery::After(start)).await;
    assert_eq!(data(&page), ["3"]);
    assert_eq!(page.gaps.len(), 1, "{:?}", page.gaps);
    assert_eq!((page.gaps[0].from, page.gaps[0].to), (Offset(1), Offset::new(2, 0)));
    assert_eq!(kit.scalar("SELECT sum(count)::bigint FROM channels").await, 2);
    assert_eq!(kit.count("removal").await, 0, "all is settled");
    assert_eq!(kit.count("timeline").await, 2, "what nothing points to any more is gone");

    // A straggler of a dropped day waits in the default table and goes from there.
    days(&kit, &lease, 4, 4, &["a:x"]).await;
    let mut late = batch(4, vec![frame(5, &[("a:x", "\"late\"")])]);
    late.frames[0].1 = on_day(1);
    kit.archive.persist(&lease, &late).await.unwrap();
    assert_eq!(kit.count("events_default").await, 1);
    assert_eq!(retain(&kit, on_day(4)).await.events, 1);
    assert_eq!(data(&kit.history("a:x", HistoryQuery::Last).await), ["3", "4"]);
}

#[tokio::test]
async fn a_namespace_that_is_kept_keeps_the_table_but_not_the_others_rows() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    days(&kit, &lease, 1, 3, &["a:x", "kept:x"]).await;
    let done = retain(&kit, on_day(4)).await;
    assert_eq!((done.events, done.tables), (2, 0));
    assert_eq!(data(&kit.history("kept:x", HistoryQuery::Last).await), ["1", "2", "3"]);
    assert_eq!(data(&kit.history("a:x", HistoryQuery::Last).await), ["3"]);
    assert_eq!(kit.count(OLD).await, 1);
}

/// The lock that would hold up everybody is not waited for.
#[tokio::test]
async fn a_busy_table_is_dropped_another_time() {
    let Some(kit) = Kit::start().await else { return };
    let lease = kit.lease("w").await;
    days(&kit, &lease, 1, 1, &["a:x"]).await;
    let mut reader = kit.sql.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM events").fetch_one(&mut *reader).await.unwrap();
    assert_eq!(retain(&kit, on_day(5)).await, Retained::default());
    assert_eq!(data(&kit.history("a:x", HistoryQuery::Last).await), ["1"], "nothing is half done");
    assert_eq!(kit.count("removed").await + kit.count("removal").await, 0);
    drop(reader);
    assert_eq!(retain(&kit, on_day(5)).await.tables, 1);
    kit.archive.persist(&lease, &batch(1, vec![frame(2, &[("a:x", "2")])])).await.unwrap();
    assert_eq!(kit.archive.ledger(P0).await.unwrap().unwrap().last_seq, 2);
}
