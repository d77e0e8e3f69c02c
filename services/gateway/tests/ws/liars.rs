//! Clients that lie about where they stand, who they are and what they have sent: each is told so by its
//! code, in a sentence that names what is wrong; nothing is lost, and its neighbours notice nothing.

use super::publish;
use super::server::{Client, Server};
use serde_json::{Value, json};
use stormwire_core::{Epoch, PartitionCount};
use stormwire_identity::TokenRequest;

/// One who publishes and reads on while others lie.
struct Neighbour {
    writer: Client,
    reader: Client,
    sent: u64,
}

impl Neighbour {
    async fn of(server: &Server) -> Self {
        let (writer, mut reader) = (server.client("n").await, server.client("m").await);
        let ask = json!({"op": "subscribe", "id": 1, "channel": "t:a"});
        assert_eq!(reader.ask(ask).await["op"], "subscribed");
        Self { writer, reader, sent: 0 }
    }

    /// Its next event is taken and comes at once: nothing else, and nothing instead.
    async fn notices_nothing(&mut self) -> u64 {
        self.sent += 1;
        let answer =
            self.writer.ask(publish(self.sent, "t:a", self.sent, &[json!(self.sent)])).await;
        assert_eq!(answer["op"], "published", "{answer}");
        let events = self.reader.events(1).await;
        assert_eq!(events[0], (answer["first"].as_u64().unwrap(), json!(self.sent)));
        events[0].0
    }
}

/// Refused with this code, in a sentence that says this.
fn refused(answer: &Value, code: &str, part: &str) {
    assert_eq!((&answer["op"], &answer["code"]), (&json!("error"), &json!(code)), "{answer}");
    assert_eq!(answer["id"], 7, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains(part), "{part:?}: {answer}");
}

#[tokio::test]
async fn a_position_that_cannot_be_is_refused_by_the_name_of_its_field() {
    let server = Server::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut liar = server.client("liar").await;
    let cases = [
        (json!({"epoch": 1, "offset": -1}), "since.offset"),
        (json!({"epoch": 1, "offset": 9_007_199_254_740_992u64}), "since.offset"),
        (json!({"epoch": 1, "offset": 4096.5}), "since.offset"),
        (json!({"epoch": 1, "offset": "4096"}), "since.offset"),
        (json!({"epoch": -1, "offset": 4096}), "since.epoch"),
        (json!({"epoch": 0, "offset": 4096}), "since.epoch"),
        (json!({"epoch": 4_294_967_296u64, "offset": 4096}), "since.epoch"),
        (json!({"epoch": "first", "offset": 4096}), "since.epoch"),
        (json!({"epoch": 1}), "since"),
        (json!({"offset": 4096}), "since"),
        (json!({}), "since"),
        (json!({"last": -3}), "since.last"),
        (json!({"last": 10_001}), "since.last"),
        (json!({"time": -1}), "since.time"),
        (json!({"time": "yesterday"}), "since.time"),
        (json!({"cursor": "AgABAw"}), "since.cursor"),
        (json!({"cursor": 5}), "since.cursor"),
        (json!("yesterday"), "since"),
    ];
    for (since, part) in cases {
        let ask = json!({"op": "subscribe", "id": 7, "channel": "t:a", "since": since});
        refused(&liar.ask(ask).await, "invalid_field", part);
        neighbour.notices_nothing().await;
    }
    for (since, part) in [
        (json!({"cursor": "rubbish"}), "since.cursor"),
        (json!({"cursor": "AgABAw"}), "since.cursor"),
        (json!({"epoch": 1, "offset": 4096}), "since.offset"),
        (json!({"last": 3}), "since.last"),
    ] {
        let ask = json!({"op": "subscribe", "id": 7, "pattern": "t:*", "since": since});
        refused(&liar.ask(ask).await, "invalid_field", part);
        neighbour.notices_nothing().await;
    }
    for (field, at) in [
        ("after.offset", json!({"epoch": 1, "offset": -1})),
        ("before.epoch", json!({"epoch": -1, "offset": 1})),
        ("after", json!("1:1")),
    ] {
        let mut ask = json!({"op": "history", "id": 7, "channel": "t:a", "limit": 5});
        ask[field.split('.').next().unwrap()] = at;
        refused(&liar.ask(ask).await, "invalid_field", field);
    }
    // It holds no subscription by any of that, and may have one.
    let ask = json!({"op": "subscribe", "id": 8, "channel": "t:a"});
    assert_eq!(liar.ask(ask).await["op"], "subscribed");
    let offset = neighbour.notices_nothing().await;
    assert_eq!(liar.events(1).await[0].0, offset);
    server.stop().await;
}

#[tokio::test]
async fn a_page_from_above_everything_is_a_gap_and_goes_on_at_the_end() {
    let server = Server::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let end = neighbour.notices_nothing().await;
    let mut liar = server.client("liar").await;
    for (epoch, offset) in [(1, 900_000_000u64), (9, 4096), (u32::MAX, 9_007_199_254_740_991)] {
        let after = json!({"epoch": epoch, "offset": offset});
        let ask = json!({"op": "history", "id": 7, "channel": "t:a", "after": after, "limit": 5});
        let page = liar.ask(ask).await;
        assert_eq!((&page["op"], &page["more"]), (&json!("history"), &json!(false)), "{page}");
        assert_eq!(page["events"], json!([]), "{page}");
        let gap = &page["gaps"][0];
        assert_eq!((&gap["from"], &gap["to"]["epoch"]), (&after, &json!(1)), "{page}");
        assert!(gap["to"]["offset"].as_u64().unwrap() >= end, "{page}");
        neighbour.notices_nothing().await;
    }
    server.stop().await;
}

/// Positions of an epoch that is over, and of one that never was.
#[tokio::test]
async fn an_older_epoch_is_read_to_its_end_and_goes_on_in_the_next() {
    let server = Server::start().await;
    let mut writer = server.client("w").await;
    let mut offsets = Vec::new();
    for seq in 1..=3u64 {
        let answer = writer.ask(publish(seq, "t:a", seq, &[json!(seq)])).await;
        offsets.push(answer["first"].as_u64().unwrap());
    }
    let partition = PartitionCount::DEFAULT.of(b"t:a");
    let tip = server.journal.tip(partition).await.unwrap();
    server.journal.begin(partition, Epoch(2), tip.last + 10).await.unwrap();
    let follow = async |since: Value| {
        let mut reader = server.client("r").await;
        let ask = json!({"op": "subscribe", "id": 1, "channel": "t:a", "since": since});
        let subscribed = reader.ask(ask).await;
        (reader, subscribed)
    };
    let (mut reader, subscribed) = follow(json!({"epoch": 1, "offset": offsets[0]})).await;
    assert_eq!(subscribed["recovered"], true, "{subscribed}");
    let got: Vec<u64> = reader.events(2).await.iter().map(|event| event.0).collect();
    assert_eq!(got, offsets[1..]);
    // An offset of the older epoch that was never given out is a gap, not silence.
    let (mut reader, _) = follow(json!({"epoch": 1, "offset": 800_000_000})).await;
    let gap = reader.hear().await;
    assert_eq!((&gap["op"], &gap["from"]["epoch"]), (&json!("gap"), &json!(1)), "{gap}");
    assert_eq!(gap["to"]["epoch"], 2, "{gap}");
    server.stop().await;
}

#[tokio::test]
async fn a_producer_id_of_another_user_is_a_producer_of_ones_own() {
    let server = Server::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut stored = Vec::new();
    for _ in 0..3 {
        stored.push(neighbour.notices_nothing().await);
    }
    // Mallory says that she is the neighbour's producer.
    let token = server.sign(TokenRequest::new("mallory").all_rights());
    let mut mallory = server.open().await;
    let connect = json!({"op": "connect", "id": 0, "token": token, "producer": "n"});
    assert_eq!(mallory.ask(connect).await["op"], "connected");
    // Neither does the neighbour's connection end, nor are its numbers used up or its offsets told.
    neighbour.notices_nothing().await;
    let mut again = publish(7, "t:m", 1, &[json!("stolen")]);
    again["again"] = json!(1_000);
    let answer = mallory.ask(again).await;
    assert_eq!(
        (&answer["op"], &answer["duplicate"]),
        (&json!("published"), &Value::Null),
        "{answer}"
    );
    let answer = mallory.ask(publish(7, "t:m", 2, &[json!("x")])).await;
    assert_eq!(answer["op"], "published", "{answer}");
    neighbour.notices_nothing().await;
    server.stop().await;
}

#[tokio::test]
async fn numbers_that_go_back_or_jump_and_ages_that_lie_are_told_apart() {
    let server = Server::start().await;
    let mut neighbour = Neighbour::of(&server).await;
    let mut liar = server.client("liar").await;
    let first = liar.ask(publish(7, "t:b", 100, &[json!("a"), json!("b")])).await;
    assert_eq!(first["op"], "published", "{first}");
    let jump = liar.ask(publish(7, "t:b", 5_000_000, &[json!("c")])).await;
    assert_eq!(jump["op"], "published", "a jump leaves numbers out, no more: {jump}");
    let number = |seq: u64, again: Option<Value>, data: &[Value]| {
        let mut ask = publish(7, "t:b", seq, data);
        if let Some(again) = again {
            ask["again"] = again;
        }
        ask
    };
    let (two, one) = ([json!("a"), json!("b")], [json!("c")]);
    let huge = json!(9_007_199_254_740_991u64);
    for (ask, code, part) in [
        // Back, as if it were new.
        (number(100, None, &two), "conflict", "seq 100 was used before"),
        (number(101, None, &one), "conflict", "seq 101 was used before"),
        (number(4_000_000, None, &one), "conflict", "seq 4000000 was used before"),
        // Back, to a number that was never used, sent first after all that is remembered.
        (number(4_000_000, Some(json!(10)), &one), "unknown_outcome", "remembers"),
        // As old as can be said.
        (number(4_000_000, Some(huge.clone()), &one), "forgotten", "longer ago"),
        (number(6_000_000, Some(huge.clone()), &one), "forgotten", "longer ago"),
        (number(7, Some(json!(-1)), &one), "invalid_field", "again"),
        (number(7, Some(json!("long")), &one), "invalid_field", "again"),
        (number(7, Some(json!(9_007_199_254_740_992u64)), &one), "invalid_field", "again"),
        (number(0, None, &one), "invalid_field", "seq"),
        (number(9_007_199_254_740_992, None, &one), "invalid_field", "seq"),
        (number(u64::MAX, None, &one), "invalid_field", "seq"),
    ] {
        refused(&liar.ask(ask).await, code, part);
        neighbour.notices_nothing().await;
        // What is refused for now stands in the way until it comes again: the liar begins anew.
        liar = server.client("liar").await;
    }
    // A repeat is what it is, whatever is said of its age.
    for again in [json!(0), json!(10), huge] {
        let repeat = liar.ask(number(100, Some(again), &two)).await;
        assert_eq!(repeat["duplicate"], true, "{repeat}");
        assert_eq!((&repeat["first"], &repeat["last"]), (&first["first"], &first["last"]));
    }
    let last = liar.ask(publish(7, "t:b", 5_000_001, &[json!("d")])).await;
    assert_eq!(last["op"], "published", "{last}");
    let ask = json!({"op": "history", "id": 8, "channel": "t:b", "limit": 100});
    let page = liar.ask(ask).await;
    let data = page["events"].as_array().unwrap().iter().map(|event| event["data"].clone());
    assert_eq!(data.collect::<Vec<_>>(), [json!("a"), json!("b"), json!("c"), json!("d")]);
    server.stop().await;
}
