//! What two threads do to one structure at the same moment, over and over: ARCHITECTURE.md has the list
//! of what is shared without a lock.

use super::*;
use std::sync::Barrier;
use std::time::Duration;

const TURNS: usize = 20_000;

/// Does both at the same moment to what `made` has made, `TURNS` times; then `holds` looks.
fn race<T: Sync>(
    made: impl Fn() -> T,
    one: impl Fn(&T) + Sync,
    other: impl Fn(&T) + Sync,
    holds: impl Fn(&T),
) {
    let things: Vec<T> = (0..TURNS).map(|_| made()).collect();
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for thing in &things {
                barrier.wait();
                one(thing);
            }
        });
        for thing in &things {
            barrier.wait();
            other(thing);
        }
    });
    things.iter().for_each(holds);
}

/// A subscription that is parked in a connection that ends would keep itself, and its partition's tail.
#[test]
fn nothing_is_kept_by_a_connection_that_has_gone() {
    let (hub, channel) = hub(1 << 20);
    for _ in 0..20 {
        let outbox = Outbox::new(1 << 20);
        let subscription = subscribe(&hub, &channel, &outbox);
        let parked = Parked { subscription: Arc::clone(&subscription), position: start_of(1) };
        let (begins, begun) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            outbox.gone_after(|| {
                scope.spawn(|| {
                    begins.send(()).unwrap();
                    outbox.park(parked);
                });
                begun.recv().unwrap();
                // Long enough for one that looks whether it has gone before it has the queue.
                begun.recv_timeout(Duration::from_millis(2)).unwrap_err();
            });
        });
        assert!(received(&outbox).1.is_empty());
        assert_eq!(Arc::strong_count(&subscription), 1);
    }
    assert!(!hub.feed(&channel).is_wanted(), "nobody keeps the tail");
}

/// One that is ended while it becomes live is not live afterwards.
#[test]
fn nobody_is_live_that_has_left() {
    let (hub, channel) = hub(1 << 20);
    let feed = hub.feed(&channel);
    feed.start(Standing { epoch: Epoch::FIRST, last: 1 });
    race(
        || subscribe(&hub, &channel, &Outbox::new(1 << 20)),
        |subscription| _ = feed.join(subscription, start_of(1), 1000),
        |subscription| feed.leave(subscription),
        |subscription| assert_eq!(Arc::strong_count(subscription), 1),
    );
    assert!(feed.state.lock().audiences.is_empty());
}
