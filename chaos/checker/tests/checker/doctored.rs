//! A clean history, and each way to doctor it.

use crate::world::{Answer, World, at, clean};
use stormwire_checker::{
    Checker, Kind, Position, ProducerRecord, Row, SubscriberRecord, Totals, check,
};

#[track_caller]
fn found(world: &World, kinds: &[Kind]) {
    assert_eq!(world.judge().kinds(), kinds);
    let (verdict, text) = world.judge_files();
    assert_eq!(verdict.kinds(), kinds, "by way of files");
    for kind in kinds {
        assert!(text.contains(kind.name()), "the example names it: {text}");
        assert!(text.lines().count() >= 2, "the example shows records: {text}");
    }
}

fn event(subscriber: &[SubscriberRecord], offset: u64) -> usize {
    let is_it = |record: &SubscriberRecord| matches!(record, SubscriberRecord::Event { position, .. } if position.offset == offset);
    subscriber.iter().position(is_it).unwrap()
}

#[test]
fn a_clean_history_passes_and_is_counted() {
    let (verdict, text) = clean().judge_files();
    assert!(verdict.is_clean(), "{verdict}\n{text}");
    assert_eq!(
        verdict.totals,
        Totals {
            sent: 14,
            acknowledged: 8,
            refused: 2,
            unknown: 4,
            unknown_stored: 2,
            archived: 10,
            seen: 16,
            told_as_gap: 0,
        }
    );
    assert!(verdict.to_string().ends_with("every guarantee held"));
}

#[test]
fn an_acknowledged_event_that_is_nowhere() {
    let mut world = clean();
    world.subscribers.clear();
    world.rows.remove(0);
    found(&world, &[Kind::Lost]);
}

#[test]
fn a_lost_event_that_somebody_saw() {
    let mut world = clean();
    world.rows.remove(0);
    found(&world, &[Kind::Lost, Kind::SeenNotStored]);
}

#[test]
fn an_acknowledged_event_elsewhere() {
    let mut world = clean();
    world.subscribers.clear();
    world.rows[9].position.offset += 1;
    found(&world, &[Kind::Misplaced]);
}

#[test]
fn an_acknowledged_event_in_another_channel() {
    let mut world = clean();
    world.subscribers.clear();
    world.rows[9].channel = "a:z".to_owned();
    found(&world, &[Kind::Misplaced]);
}

#[test]
fn other_data_at_the_acknowledged_offset() {
    let mut world = clean();
    world.subscribers.clear();
    world.rows[2].data = "something else".to_owned();
    found(&world, &[Kind::Altered, Kind::NeverSent]);
}

#[test]
fn an_event_stored_twice() {
    let mut world = clean();
    world.subscribers.clear();
    let copy = Row { position: at(900), ..world.rows[9].clone() };
    world.rows.push(copy);
    found(&world, &[Kind::StoredTwice]);
}

#[test]
fn an_event_stored_twice_at_one_offset() {
    let mut world = clean();
    let copy = world.rows[4].clone();
    world.rows.push(copy);
    found(&world, &[Kind::StoredTwice]);
}

#[test]
fn an_unknown_event_may_be_stored_once_only() {
    let mut world = clean();
    world.subscribers.clear();
    let unknown = world.rows.iter().find(|row| row.data == "ann.3").unwrap().clone();
    world.rows.push(Row { position: at(26), ..unknown });
    found(&world, &[Kind::StoredTwice]);
}

#[test]
fn a_refused_event_that_is_stored() {
    let mut world = clean();
    world.rows.push(Row {
        partition: 1,
        channel: "a:y".to_owned(),
        position: at(990),
        data: "bob.5".to_owned(),
    });
    found(&world, &[Kind::RefusedStored]);
}

#[test]
fn an_event_that_nobody_sent() {
    let mut world = clean();
    let channel = "a:new".to_owned();
    world.rows.push(Row { partition: 2, channel, position: at(5), data: "who?".to_owned() });
    found(&world, &[Kind::NeverSent]);
}

#[test]
fn two_acknowledgements_at_two_places() {
    let mut world = clean();
    world.subscribers.clear();
    world.publish_at("ann", (7, 800), "a:x", Answer::Acknowledged);
    found(&world, &[Kind::AnswersDiffer]);
}

#[test]
fn two_acknowledgements_at_one_place_are_fine() {
    let mut world = clean();
    let first = world.rows[8].position.offset;
    world.publish_at("ann", (7, first), "a:x", Answer::Acknowledged);
    found(&world, &[]);
}

#[test]
fn a_publish_that_was_cut_names_its_ends() {
    let mut world = World::default();
    let records = world.producer("cut");
    let data = ["one", "two", "three"].map(str::to_owned).to_vec();
    let (t, attempt, channel) = (1, 1, "a:x".to_owned());
    records.push(ProducerRecord::Attempt { t, attempt, seq: 1, channel, data, again: None });
    let (first, last, duplicate) = (4100, 8192, false);
    records.push(ProducerRecord::Acknowledged { t, attempt, epoch: 1, first, last, duplicate });
    for (offset, data) in [(4100, "one"), (4101, "two"), (8192, "three")] {
        let (channel, data) = ("a:x".to_owned(), data.to_owned());
        world.rows.push(Row { partition: 1, channel, position: at(offset), data });
    }
    found(&world, &[]);
    world.rows[2].position.offset += 1;
    found(&world, &[Kind::Misplaced]);
}

#[test]
fn a_later_event_before_an_earlier_one() {
    let mut world = World::default();
    world.publish_at("ann", (3, 10), "a:x", Answer::Acknowledged);
    world.publish_at("ann", (1, 20), "a:x", Answer::Acknowledged);
    found(&world, &[Kind::ProducerReordered]);
}

#[test]
fn a_later_event_before_an_earlier_one_in_another_channel_of_the_partition() {
    let mut world = World::default();
    world.publish_at("ann", (3, 10), "a:x", Answer::Acknowledged);
    world.publish_at("ann", (1, 20), "a:y", Answer::Acknowledged);
    found(&world, &[Kind::ProducerReordered]);
    world.rows[2].partition = 2;
    world.rows[3].partition = 2;
    found(&world, &[]);
}

#[test]
fn a_publish_that_is_never_settled() {
    let mut world = clean();
    world.producer("ann").push(ProducerRecord::End { t: 99, unsettled: vec![5] });
    found(&world, &[Kind::NeverSettled]);
}

#[test]
fn an_event_that_a_subscriber_missed() {
    let mut world = clean();
    let live = world.subscriber("live");
    let index = event(live, 21);
    live.remove(index);
    found(&world, &[Kind::SilentGap]);
}

#[test]
fn events_that_a_subscriber_missed_over_a_reconnect() {
    let mut world = clean();
    let away = world.subscriber("away");
    let index = event(away, 20);
    away.remove(index);
    found(&world, &[Kind::SilentGap]);
}

#[test]
fn what_was_told_as_a_gap_is_not_silent() {
    let mut world = clean();
    let live = world.subscriber("live");
    let index = event(live, 21);
    let (t, channel) = (1, "a:x".to_owned());
    live[index] = SubscriberRecord::Gap { t, channel, from: at(20), to: at(21) };
    found(&world, &[]);
    assert_eq!(world.judge().totals.told_as_gap, 1);
}

#[test]
fn a_gap_that_begins_too_late_is_silent_before() {
    let mut world = clean();
    let live = world.subscriber("live");
    let index = event(live, 20);
    live.remove(index);
    let (t, channel) = (1, "a:x".to_owned());
    live[index] = SubscriberRecord::Gap { t, channel, from: at(20), to: at(21) };
    found(&world, &[Kind::SilentGap]);
}

#[test]
fn an_event_that_came_again() {
    let mut world = clean();
    let away = world.subscriber("away");
    let copy = away[event(away, 20)].clone();
    let index = event(away, 40);
    away.insert(index, copy);
    found(&world, &[Kind::SeenTwice]);
}

#[test]
fn an_event_that_came_late() {
    let mut world = clean();
    let live = world.subscriber("live");
    let index = event(live, 20);
    live.swap(index, index + 1);
    found(&world, &[Kind::SilentGap, Kind::OutOfOrder]);
}

#[test]
fn an_event_that_only_a_subscriber_knows() {
    let mut world = clean();
    let (t, channel) = (1, "a:x".to_owned());
    let seen = SubscriberRecord::Event { t, channel, position: at(15), data: "ghost".to_owned() };
    world.subscriber("live").insert(3, seen);
    found(&world, &[Kind::SeenNotStored]);
}

#[test]
fn two_subscribers_that_saw_different_events_at_one_offset() {
    let mut world = clean();
    let live = world.subscriber("live");
    let index = event(live, 20);
    if let SubscriberRecord::Event { data, .. } = &mut live[index] {
        *data = "another".to_owned();
    }
    found(&world, &[Kind::FeedsDiffer]);
}

#[test]
fn a_feed_that_ends_too_early() {
    let mut world = clean();
    let live = world.subscriber("live");
    live.remove(live.len() - 2);
    found(&world, &[Kind::CutShort]);
}

#[test]
fn a_feed_that_was_given_up_may_end_early() {
    let mut world = clean();
    let live = world.subscriber("live");
    live.truncate(live.len() - 2);
    live.push(SubscriberRecord::Lost { t: 1, why: "the end".to_owned() });
    live.push(SubscriberRecord::End { t: 1, live: false });
    found(&world, &[]);
}

#[test]
fn a_later_epoch_stands_behind_an_earlier_one() {
    let mut world = World::default();
    world.publish("ann", 1, "a:x", Answer::Acknowledged);
    let later = Position { epoch: 2, offset: 3 };
    world.rows.push(Row { partition: 1, channel: "a:x".into(), position: later, data: "2".into() });
    let (t, attempt, epoch) = (9, 9, 2);
    let data = vec!["2".to_owned()];
    let bob = world.producer("bob");
    bob.push(ProducerRecord::Attempt {
        t,
        attempt,
        seq: 1,
        channel: "a:x".into(),
        data,
        again: None,
    });
    bob.push(ProducerRecord::Acknowledged {
        t,
        attempt,
        epoch,
        first: 3,
        last: 3,
        duplicate: false,
    });
    let (channel, position) = ("a:x".to_owned(), at(0));
    let live = world.subscriber("live");
    live.push(SubscriberRecord::Subscribed { t, channel, position, since: None });
    for (position, data) in [(at(10), "ann.1"), (at(11), "ann.2"), (later, "2")] {
        let (channel, data) = ("a:x".to_owned(), data.to_owned());
        live.push(SubscriberRecord::Event { t, channel, position, data });
    }
    world.end("live");
    found(&world, &[]);
}

#[test]
fn a_history_that_contradicts_itself_is_no_history() {
    let (t, attempt) = (1, 1);
    let attempt_of = |attempt, data: &str| {
        let (channel, data) = ("a:x".to_owned(), vec![data.to_owned()]);
        ProducerRecord::Attempt { t, attempt, seq: 1, channel, data, again: None }
    };
    let mut checker = Checker::new();
    let mut producer = checker.producer("ann");
    producer.take(&attempt_of(1, "a")).unwrap();
    assert!(producer.take(&attempt_of(1, "a")).is_err(), "an attempt made twice");
    assert!(producer.take(&attempt_of(2, "b")).is_err(), "another event under the same number");
    let why = String::new();
    producer.take(&ProducerRecord::Unknown { t, attempt, why: why.clone() }).unwrap();
    assert!(producer.take(&ProducerRecord::Unknown { t, attempt, why }).is_err(), "answered twice");
    producer.finish();
    let mut producer = checker.producer("bob");
    producer.take(&attempt_of(1, "a")).unwrap();
    producer.finish();
    checker.seal();
    assert!(checker.finish().is_err(), "the same data from two");
    assert!(check(std::path::Path::new("/no/such/folder")).is_err());
}
