//! Random valid histories pass; one random change to any of them is found.

use crate::world::{Answer, World};
use proptest::collection::vec;
use proptest::prelude::*;
use stormwire_checker::{Kind, ProducerRecord, Row, SubscriberRecord};

const CHANNELS: [&str; 2] = ["a:x", "a:y"];

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        6 => Just(Answer::Acknowledged),
        1 => Just(Answer::Refused),
        1 => Just(Answer::Unheard),
        1 => Just(Answer::NotArrived),
    ]
}

/// What three producers did one after the other, and where two subscribers broke off.
fn histories() -> impl Strategy<Value = World> {
    let publishes = vec((0..3_usize, 0..CHANNELS.len(), answers()), 1..40);
    (publishes, 0..400_u64, 0..400_u64).prop_map(|(publishes, first, second)| {
        let mut world = World::default();
        let mut next = [1; 3];
        for (producer, channel, answer) in publishes {
            let (seq, name) = (next[producer], format!("p{producer}"));
            next[producer] += 2;
            world.publish(&name, seq, CHANNELS[channel], answer);
            // What was not acknowledged is sent again, at once or never.
            if answer == Answer::Refused && seq % 4 == 1 {
                world.publish(&name, seq, CHANNELS[channel], Answer::Acknowledged);
            } else if answer == Answer::Unheard && seq % 4 == 1 {
                let first = world.rows[world.rows.len() - 2].position.offset;
                world.publish_at(&name, (seq, first), CHANNELS[channel], Answer::Acknowledged);
            }
        }
        for (name, channel, broke_off) in [("x", CHANNELS[0], first), ("y", CHANNELS[1], second)] {
            world.read(name, channel, 0, broke_off);
            let seen = world.subscriber(name).iter().rev().find_map(|record| match record {
                SubscriberRecord::Event { position, .. } => Some(position.offset),
                _ => None,
            });
            if let Some(seen) = seen {
                world.read(name, channel, seen, u64::MAX);
            } else {
                world.subscriber(name).clear();
                world.read(name, channel, 0, u64::MAX);
            }
            world.end(name);
        }
        world
    })
}

/// Changes one thing; `None` where this history has no such thing.
fn doctor(world: &mut World, how: u8, pick: usize) -> Option<()> {
    let acknowledged: Vec<(usize, usize)> = (0..world.producers.len())
        .flat_map(|producer| {
            let records = world.producers[producer].1.iter().enumerate();
            let told = records.filter(|(_, r)| matches!(r, ProducerRecord::Acknowledged { .. }));
            told.map(move |(at, _)| (producer, at)).collect::<Vec<_>>()
        })
        .collect();
    let (subscriber, event) = {
        let all: Vec<(usize, usize)> = (0..world.subscribers.len())
            .flat_map(|subscriber| {
                let records = world.subscribers[subscriber].1.iter().enumerate();
                let seen = records.filter(|(_, r)| matches!(r, SubscriberRecord::Event { .. }));
                seen.map(move |(at, _)| (subscriber, at)).collect::<Vec<_>>()
            })
            .collect();
        *all.get(pick % all.len().max(1))?
    };
    let row = pick % world.rows.len();
    match how {
        0 => drop(world.rows.remove(row)),
        1 => {
            let offset = world.rows[row].position.offset + 4000;
            let mut copy: Row = world.rows[row].clone();
            copy.position.offset = offset;
            world.rows.push(copy);
        }
        2 => world.rows[row].data.push('!'),
        3 => world.rows[row].position.offset += 5,
        4 => drop(world.subscribers[subscriber].1.remove(event)),
        5 => {
            let copy = world.subscribers[subscriber].1[event].clone();
            world.subscribers[subscriber].1.insert(event, copy);
        }
        6 => {
            let (producer, at) = *acknowledged.get(pick % acknowledged.len().max(1))?;
            match &mut world.producers[producer].1[at] {
                ProducerRecord::Acknowledged { first, last, .. } => {
                    *first += 3;
                    *last += 3;
                }
                _ => return None,
            }
        }
        _ => match &mut world.subscribers[subscriber].1[event] {
            SubscriberRecord::Event { data, .. } => data.push('?'),
            _ => return None,
        },
    }
    Some(())
}

proptest! {
    #[test]
    fn a_valid_history_passes(world in histories()) {
        let verdict = world.judge();
        prop_assert!(verdict.is_clean(), "{verdict}");
    }

    #[test]
    fn any_change_to_a_valid_history_is_found(
        world in histories(), how in 0..8_u8, pick in any::<usize>()
    ) {
        let mut world = world;
        prop_assume!(!world.rows.is_empty());
        prop_assume!(doctor(&mut world, how, pick).is_some());
        let verdict = world.judge();
        prop_assert!(!verdict.is_clean(), "change {how} at {pick} was not found");
        let expected: &[Kind] = match how {
            0 => &[Kind::Lost, Kind::SeenNotStored],
            1 => &[Kind::StoredTwice],
            2 => &[Kind::NeverSent],
            3 => &[Kind::Misplaced, Kind::SeenNotStored],
            4 => &[Kind::SilentGap, Kind::CutShort],
            5 => &[Kind::SeenTwice],
            6 => &[Kind::Misplaced, Kind::AnswersDiffer],
            _ => &[Kind::FeedsDiffer],
        };
        let kinds = verdict.kinds();
        prop_assert!(expected.iter().any(|kind| kinds.contains(kind)), "{how}: {kinds:?}");
    }
}
