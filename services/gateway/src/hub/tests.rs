//! Live, parked, caught up: nothing missed, nothing doubled.

mod threads;

use super::*;
use axum::extract::ws::Message;
use bytes::Bytes;
use futures::task::noop_waker;
use proptest::prelude::*;
use std::task::Context;
use stormwire_wire::frame::{EventParts, EventsBuilder, FrameBuilder, FrameId};

fn frame(seq: u64, channels: &[&str]) -> (Bytes, Frame) {
    let mut builder = FrameBuilder::default();
    for channel in channels {
        let mut events = EventsBuilder::default();
        let data = format!("{{\"seq\":{seq}}}");
        events.push(&EventParts { data: data.as_bytes(), ..EventParts::default() }).unwrap();
        let channel = Channel::parse(channel).unwrap();
        builder.push(&channel, "alice", "", 0, None, &events.take());
    }
    let bytes = builder.finish(FrameId { appender: [1; 16], counter: seq });
    let frame = Frame::decode(&bytes).unwrap();
    (bytes, frame)
}

fn deliver(feed: &Feed, seq: u64, channels: &[&str]) {
    let (bytes, frame) = frame(seq, channels);
    feed.deliver(seq, Timestamp(1_000), &frame, bytes.len());
}

fn start_of(seq: u64) -> Position {
    after_frame(Epoch::FIRST, seq)
}

/// Offsets of the events that a connection was sent, and the subscriptions that were parked.
fn received(outbox: &Outbox) -> (Vec<u64>, Vec<Parked>) {
    let (mut messages, mut parked) = (VecDeque::new(), Vec::new());
    let waker = noop_waker();
    // Twice: what was taken is written when more is asked for.
    for _ in 0..2 {
        let mut taken = VecDeque::new();
        outbox.drain(&Context::from_waker(&waker), &mut taken, &mut parked);
        messages.append(&mut taken);
    }
    let mut offsets = Vec::new();
    for message in messages {
        let Message::Text(text) = message else { panic!("text is due") };
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for event in value["events"].as_array().unwrap() {
            offsets.push(event["offset"].as_u64().unwrap());
        }
    }
    (offsets, parked)
}

fn subscribe(hub: &Hub, channel: &Channel, outbox: &Arc<Outbox>) -> Arc<Subscription> {
    let part = (Selection::Channel(channel.clone()), None);
    hub.subscription(part, Mode::All, Codec::Json, Arc::clone(outbox))
}

fn hub(recent_bytes: usize) -> (Hub, Channel) {
    let hub = Hub::new(PartitionCount::new(1).unwrap(), recent_bytes);
    (hub, Channel::parse("t:a").unwrap())
}

#[test]
fn a_live_subscription_gets_its_channels_events_and_no_others() {
    let (hub, channel) = hub(1 << 20);
    let outbox = Outbox::new(1 << 20);
    let feed = hub.feed(&channel);
    feed.start(Standing { epoch: Epoch::FIRST, last: 4 });
    let subscription = subscribe(&hub, &channel, &outbox);
    assert!(matches!(feed.join(&subscription, start_of(4), 1000), Joined::Live));
    deliver(feed, 5, &["t:b", "t:a", "t:c"]);
    deliver(feed, 6, &["t:b"]);
    assert_eq!(received(&outbox).0, [Offset::new(5, 1).0]);
    feed.leave(&subscription);
    deliver(feed, 7, &["t:a"]);
    assert!(received(&outbox).0.is_empty());
}

#[test]
fn a_subscription_that_was_ended_never_becomes_live() {
    let (hub, channel) = hub(1 << 20);
    let outbox = Outbox::new(1 << 20);
    let feed = hub.feed(&channel);
    feed.start(Standing { epoch: Epoch::FIRST, last: 0 });
    let subscription = subscribe(&hub, &channel, &outbox);
    feed.leave(&subscription);
    feed.join(&subscription, start_of(0), 1000);
    deliver(feed, 1, &["t:a"]);
    assert!(received(&outbox).0.is_empty());
}

#[test]
fn a_short_absence_is_filled_from_memory_and_a_long_one_is_not() {
    let (hub, channel) = hub(1 << 20);
    let outbox = Outbox::new(1 << 20);
    let feed = hub.feed(&channel);
    feed.start(Standing { epoch: Epoch::FIRST, last: 9 });
    for seq in 10..20 {
        deliver(feed, seq, &["t:a"]);
    }
    let subscription = subscribe(&hub, &channel, &outbox);
    assert!(matches!(feed.join(&subscription, start_of(3), 1000), Joined::Behind));
    assert!(matches!(feed.join(&subscription, start_of(14), 1 << 20), Joined::Live));
    let expected: Vec<u64> = (15..20).map(|seq| Offset::new(seq, 0).0).collect();
    assert_eq!(received(&outbox).0, expected);
    assert!(matches!(feed.join(&subscription, start_of(20), 1000), Joined::Above));
}

#[test]
fn a_full_queue_parks_the_subscription_where_it_stood_and_drops_what_waits_for_it() {
    let (hub, channel) = hub(1 << 20);
    let outbox = Outbox::new(600);
    let feed = hub.feed(&channel);
    feed.start(Standing { epoch: Epoch::FIRST, last: 0 });
    let subscription = subscribe(&hub, &channel, &outbox);
    let beside = subscribe(&hub, &Channel::parse("t:b").unwrap(), &outbox);
    feed.join(&subscription, start_of(0), 1000);
    feed.join(&beside, start_of(0), 1000);
    deliver(feed, 1, &["t:a"]);
    assert_eq!(received(&outbox).0, [Offset::new(1, 0).0]);
    deliver(feed, 2, &["t:b"]);
    let kept = outbox.bytes();
    for seq in 3..=12 {
        deliver(feed, seq, &["t:a"]);
    }
    assert_eq!(outbox.bytes(), kept, "of who is parked nothing is kept, of the other all");
    let (offsets, parked) = received(&outbox);
    assert_eq!((offsets, parked.len()), (vec![Offset::new(2, 0).0], 1));
    let position = parked[0].position;
    assert_eq!((parked[0].subscription.id, position), (subscription.id, start_of(2)));
    assert!(matches!(feed.join(&subscription, position, 1 << 20), Joined::Live));
    let rest: Vec<u64> = (3..=12).map(|seq| Offset::new(seq, 0).0).collect();
    assert_eq!(received(&outbox).0, rest);
}

#[test]
fn what_the_socket_has_not_taken_counts_as_waiting() {
    let (hub, channel) = hub(1 << 20);
    let outbox = Outbox::new(600);
    let feed = hub.feed(&channel);
    feed.start(Standing { epoch: Epoch::FIRST, last: 0 });
    let subscription = subscribe(&hub, &channel, &outbox);
    feed.join(&subscription, start_of(0), 1000);
    let take = |messages: &mut VecDeque<Message>| {
        outbox.drain(&Context::from_waker(&noop_waker()), messages, &mut Vec::new());
    };
    let (mut taken, mut count) = (VecDeque::new(), 0);
    // The task takes what there is, and cannot write it.
    deliver(feed, 1, &["t:a"]);
    take(&mut taken);
    let in_hand = outbox.bytes();
    assert!(in_hand > 0 && taken.len() == 1);
    for seq in 2..=12 {
        deliver(feed, seq, &["t:a"]);
        count += usize::from(outbox.bytes() > in_hand);
    }
    assert!(count > 0 && outbox.bytes() == in_hand, "parked by then");
    take(&mut VecDeque::new());
    assert_eq!(outbox.bytes(), 0, "written");
}

#[test]
fn a_tail_that_cannot_follow_parks_everybody_where_it_stood() {
    let (hub, channel) = hub(1 << 20);
    let outbox = Outbox::new(1 << 20);
    let feed = hub.feed(&channel);
    feed.start(Standing { epoch: Epoch::FIRST, last: 3 });
    let subscription = subscribe(&hub, &channel, &outbox);
    feed.join(&subscription, start_of(3), 1000);
    deliver(feed, 4, &["t:a"]);
    feed.skip_to(Standing { epoch: Epoch::FIRST, last: 90 });
    let (offsets, parked) = received(&outbox);
    assert_eq!((offsets.len(), parked[0].position), (1, start_of(4)));
    assert!(matches!(feed.join(&subscription, parked[0].position, 1000), Joined::Behind));
}

#[test]
fn memory_of_recent_frames_is_bounded() {
    let (hub, channel) = hub(2_000);
    let feed = hub.feed(&channel);
    feed.start(Standing { epoch: Epoch::FIRST, last: 0 });
    for seq in 1..=500 {
        deliver(feed, seq, &["t:a", "t:b"]);
    }
    let state = feed.state.lock();
    let bytes: usize = state.recent.iter().map(|frame| frame.bytes).sum();
    assert_eq!(bytes, state.recent_bytes);
    assert!(bytes <= 2_000 && !state.recent.is_empty());
}

proptest! {
    /// Whatever the order of frames, joins, stalls and drains: a subscription gets each event of its
    /// channel once, in order, as long as it is brought back with the position it was parked at.
    #[test]
    fn nothing_is_missed_or_doubled(
        steps in proptest::collection::vec((0u8..4, any::<bool>()), 1..120),
        queue in 200usize..2_000,
        page in 1usize..2_000,
    ) {
        let (hub, channel) = hub(1 << 20);
        let outbox = Outbox::new(queue);
        let feed = hub.feed(&channel);
        feed.start(Standing { epoch: Epoch::FIRST, last: 0 });
        let subscription = subscribe(&hub, &channel, &outbox);
        let (mut seq, mut got, mut published) = (0u64, Vec::new(), Vec::new());
        let mut at = Some(start_of(0));
        for (step, wanted) in steps.into_iter().chain((0..400).map(|_| (3, false))) {
            match step {
                0 | 1 => {
                    seq += 1;
                    deliver(feed, seq, if wanted { &["t:b", "t:a"] } else { &["t:b"] });
                    if wanted {
                        published.push(Offset::new(seq, 1).0);
                    }
                }
                2 => {}
                _ => {
                    let (offsets, parked) = received(&outbox);
                    got.extend(offsets);
                    if let Some(parked) = parked.first() {
                        prop_assert!(at.is_none());
                        at = Some(parked.position);
                    }
                    if let Some(position) = at {
                        at = match feed.join(&subscription, position, page) {
                            Joined::Live => None,
                            Joined::Advanced(position) => Some(position),
                            other => panic!("{other:?}"),
                        };
                    }
                }
            }
        }
        prop_assert_eq!(got, published);
    }
}
