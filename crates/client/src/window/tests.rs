//! The window's rules one by one; `simulation` has them together.

use super::*;

const FOREVER: Duration = Duration::from_secs(86_400);

fn window() -> (Window<&'static str>, Instant) {
    let now = Instant::now();
    let mut window = Window::new(1);
    for payload in ["a", "b", "c", "d"] {
        window.push(payload, 2, 1, now + FOREVER);
    }
    (window, now)
}

fn sent(window: &mut Window<&'static str>, now: Instant) -> Vec<(u64, &'static str, Option<u64>)> {
    let mut out = Vec::new();
    while let Some(next) = window.take(now) {
        let again = next.again.map(|again| u64::try_from(again.as_millis()).unwrap());
        out.push((next.seq, *next.payload, again));
    }
    out
}

#[test]
fn nothing_goes_before_there_is_a_connection() {
    let (mut window, now) = window();
    assert_eq!(window.take(now), None);
    window.connected(None, Timestamp(5), now);
    let all = [(1, "a", None), (3, "b", None), (5, "c", None), (7, "d", None)];
    assert_eq!(sent(&mut window, now), all);
    for (seq, payload, _) in all {
        assert_eq!(window.settled(seq), Some(payload));
        assert_eq!(window.settled(seq), None, "an answer is taken once");
    }
    assert!(window.is_empty());
}

#[test]
fn the_oldest_unanswered_bounds_the_newest_on_the_wire() {
    let (mut window, now) = window();
    window.connected(Some(2), Timestamp(5), now);
    assert_eq!(sent(&mut window, now).len(), 2);
    assert_eq!(window.settled(3), Some("b"));
    assert_eq!(sent(&mut window, now), [], "a has no answer yet, so c must wait");
    assert_eq!(window.settled(1), Some("a"));
    assert_eq!(sent(&mut window, now).len(), 2);
}

#[test]
fn after_a_refusal_all_in_flight_is_awaited_and_sent_again_in_order() {
    let (mut window, now) = window();
    window.connected(None, Timestamp(1000), now);
    sent(&mut window, now);
    window.refused(1, false, Some(Duration::from_millis(250)), now);
    window.refused(5, true, None, now);
    window.push("e", 1, 1, now + FOREVER);
    let later = now + Duration::from_millis(300);
    assert_eq!(sent(&mut window, later), [], "b and d have no answer yet");
    assert_eq!(window.settled(3), Some("b"));
    assert_eq!(window.settled(7), Some("d"));
    assert_eq!(sent(&mut window, now + Duration::from_millis(249)), []);
    assert_eq!(window.next_timer(), Some(now + Duration::from_millis(250)));
    let again = [(1, "a", Some(300)), (5, "c", Some(300)), (9, "e", None)];
    assert_eq!(sent(&mut window, later), again);
}

#[test]
fn again_is_counted_by_server_times_from_before_the_first_send() {
    let (mut window, now) = window();
    window.connected(None, Timestamp(10_000), now);
    sent(&mut window, now + Duration::from_millis(700));
    window.heard(Timestamp(11_000), now + Duration::from_secs(1));
    window.disconnected();
    // The machine slept: by its own clock two seconds have passed, by the server's an hour.
    let now = now + Duration::from_secs(2);
    window.connected(None, Timestamp(3_610_000), now);
    let again: Vec<_> = sent(&mut window, now).iter().map(|(_, _, again)| *again).collect();
    assert_eq!(again, [Some(3_600_000); 4]);
}

#[test]
fn a_publish_past_its_deadline_is_given_up_and_says_whether_it_was_sent() {
    let now = Instant::now();
    let mut window = Window::new(1);
    window.push("sent", 1, 1, now + Duration::from_secs(1));
    window.connected(Some(1), Timestamp(1), now);
    sent(&mut window, now);
    window.push("unsent", 1, 1, now + Duration::from_secs(1));
    window.push("young", 1, 1, now + Duration::from_secs(9));
    assert_eq!(window.next_timer(), Some(now + Duration::from_secs(1)));
    let given_up = window.give_up(now + Duration::from_secs(1));
    let expected = [("sent", true), ("unsent", false)];
    assert_eq!(given_up, expected.map(|(payload, sent)| GivenUp { payload, sent }));
    assert_eq!(window.settled(1), None, "a late answer finds nothing");
    assert_eq!(sent(&mut window, now), [(3, "young", None)]);
    assert_eq!(window.drain(), [GivenUp { payload: "young", sent: true }]);
}

#[test]
fn bytes_in_flight_are_bounded_but_one_publish_always_goes() {
    let now = Instant::now();
    let mut window = Window::new(1);
    for payload in ["huge", "small"] {
        window.push(payload, 1, IN_FLIGHT_BYTES_MAX + 1, now + FOREVER);
    }
    window.connected(None, Timestamp(1), now);
    assert_eq!(sent(&mut window, now), [(1, "huge", None)]);
    assert_eq!(window.settled(1), Some("huge"));
    assert_eq!(sent(&mut window, now), [(2, "small", None)]);
}

#[test]
fn what_an_earlier_process_may_have_sent_goes_again_under_its_old_numbers() {
    let now = Instant::now();
    let mut window = Window::new(1);
    window.resume(&Resume { next_seq: 7, sent_through: 8, first_sent: Timestamp(1_000) });
    for payload in ["seventh", "eighth", "ninth"] {
        window.push(payload, 1, 1, now + FOREVER);
    }
    window.connected(None, Timestamp(61_000), now);
    let due = [(7, "seventh", Some(60_000)), (8, "eighth", Some(60_000)), (9, "ninth", None)];
    assert_eq!(sent(&mut window, now), due);
}
