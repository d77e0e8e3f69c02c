//! One gateway, everything in the process.

use crate::kit::{Server, users};
use serde_json::json;
use std::time::Instant;
use stormwire_core::Pattern;
use stormwire_tokens::TokenLimits;

#[tokio::test]
async fn who_comes_and_goes_is_told_with_exact_counts() {
    let server = Server::alone().await;
    let mut alice = server.client("alice").await;
    alice.attend("room:1").await;
    let (members, users_here, sessions) = alice.members("room:1", 100).await;
    assert_eq!((members, users_here, sessions), (vec!["alice".to_owned()], 1, 1));

    let (mut bob, mut second) = (server.client("bob").await, server.client("bob").await);
    bob.subscribe("room:1", true).await;
    let joined = alice.hear("joined").await;
    assert_eq!((users(&joined), &joined["users"]), (vec!["bob".to_owned()], &json!(2)));
    assert_eq!(joined["members"][0]["session"], bob.session.as_str());
    second.subscribe("room:1", true).await;
    let joined = alice.hear("joined").await;
    assert_eq!((&joined["users"], &joined["sessions"]), (&json!(2), &json!(3)), "{joined}");
    // A subscriber without presence is no member.
    let mut guest = server.client("guest").await;
    guest.subscribe("room:1", false).await;
    assert_eq!(guest.members("room:1", 2).await.2, 3);

    let answer = second.ask(json!({"op": "unsubscribe", "id": 1, "channel": "room:1"})).await;
    assert_eq!(answer["op"], "unsubscribed");
    let left = alice.hear("left").await;
    assert_eq!((&left["since"], &left["users"]), (&joined["version"], &json!(2)), "{left}");
    drop(bob);
    let gone = alice.hear("left").await;
    assert_eq!((&gone["since"], users(&gone)), (&left["version"], vec!["bob".to_owned()]));
    assert_eq!((&gone["users"], &gone["sessions"]), (&json!(1), &json!(1)));
    server.stop().await;
}

#[tokio::test]
async fn connections_of_one_session_are_one_member() {
    let server = Server::alone().await;
    let token = server.limited("alice", |request| request.session = Some("sid".to_owned()));
    let mut watcher = server.client("watcher").await;
    let mut tabs = Vec::new();
    for _ in 0..3 {
        let mut tab = server.client_with(&token).await;
        tab.subscribe("room:1", true).await;
        tabs.push(tab);
    }
    assert_eq!(watcher.members("room:1", 100).await, (vec!["alice".to_owned()], 1, 1));
    tabs.pop();
    tabs.pop();
    watcher.attend("room:1").await;
    assert_eq!(watcher.members("room:1", 1).await.2, 2);
    tabs.pop();
    let left = watcher.hear("left").await;
    assert_eq!((users(&left), &left["sessions"]), (vec!["alice".to_owned()], &json!(1)));
    server.stop().await;
}

#[tokio::test]
async fn signals_reach_the_others_and_are_not_kept() {
    let server = Server::alone().await;
    let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
    let mut elsewhere = server.client("alice").await;
    for client in [&mut alice, &mut bob, &mut elsewhere] {
        client.subscribe("room:1", false).await;
    }
    alice.say(json!({"op": "signal", "channel": "room:1", "data": {"typing": true}})).await;
    alice.say(json!({"op": "signal", "channel": "room:1", "data_base64": "AAE="})).await;
    for client in [&mut bob, &mut elsewhere] {
        let signal = client.hear("signal").await;
        assert_eq!(
            signal,
            json!({"op": "signal", "channel": "room:1", "from": "alice", "data": {"typing": true}})
        );
        assert_eq!(client.hear("signal").await["data_base64"], "AAE=");
    }
    bob.say(json!({"op": "signal", "channel": "room:1", "data": 1})).await;
    // What alice hears next is bob's, not her own.
    let heard = alice.hear("signal").await;
    assert_eq!((&heard["from"], &heard["data"]), (&json!("bob"), &json!(1)));
    let history = alice.ask(json!({"op": "history", "id": 1, "channel": "room:1"})).await;
    assert_eq!(history["events"], json!([]), "nothing is stored");
    // Who has unsubscribed hears nothing.
    let gone = bob.ask(json!({"op": "unsubscribe", "id": 2, "channel": "room:1"})).await;
    assert_eq!(gone["op"], "unsubscribed");
    alice.say(json!({"op": "signal", "channel": "room:1", "data": 2})).await;
    assert_eq!(elsewhere.hear("signal").await["data"], 1);
    assert_eq!(elsewhere.hear("signal").await["data"], 2);
    let pong = bob.ask(json!({"op": "ping", "id": 3})).await;
    assert_eq!(pong["op"], "pong", "{pong}");
    server.stop().await;
}

#[tokio::test]
async fn those_who_come_and_go_at_once_are_told_of_together() {
    const GUESTS: usize = 60;
    let server = Server::alone().await;
    let mut watcher = server.client("watcher").await;
    watcher.attend("room:1").await;
    let mut guests = Vec::new();
    for number in 0..GUESTS {
        guests.push(server.client(&format!("guest-{number}")).await);
    }
    for coming in [true, false] {
        let since = Instant::now();
        for guest in &mut guests {
            let op = if coming { "subscribe" } else { "unsubscribe" };
            let mut request = json!({"op": op, "id": 1, "channel": "room:1"});
            if coming {
                request["presence"] = json!(true);
            }
            guest.say(request).await;
        }
        let (mut told, mut messages) = (0, 0);
        while told < GUESTS {
            let change = watcher.hear(if coming { "joined" } else { "left" }).await;
            (told, messages) = (told + users(&change).len(), messages + 1);
        }
        // At most one message a tenth of a second, and the first one may come at once.
        let most = since.elapsed().as_millis() / 100 + 2;
        assert!(messages <= most, "{messages} messages in {:?}", since.elapsed());
    }
    server.stop().await;
}

#[tokio::test]
async fn signals_have_limits_of_their_own() {
    let server = Server::alone().await;
    let token = server.limited("alice", |request| {
        request.limits = TokenLimits { signals_per_second: Some(5), ..TokenLimits::default() };
    });
    let mut alice = server.client_with(&token).await;
    let mut refused = None;
    for n in 0..50 {
        alice.say(json!({"op": "signal", "id": n, "channel": "room:1", "data": n})).await;
    }
    let pong = json!({"op": "ping", "id": "p"});
    alice.say(pong).await;
    loop {
        let answer = alice.next().await;
        if answer["op"] == "pong" {
            break;
        }
        refused = Some(answer);
    }
    let refused = refused.expect("50 are more than 5 a second");
    assert_eq!((&refused["code"], &refused["temporary"]), (&json!("limited"), &json!(true)));
    assert!(refused["retry_after_ms"].as_u64().unwrap() > 0);
    let event = json!({"op": "publish", "id": "e", "channel": "room:1", "events": [{"data": 1}]});
    let published = alice.ask(event).await;
    assert_eq!(published["op"], "published", "events are counted apart: {published}");
    // Whatever the user may do, a connection may not do more than this.
    let mut bob = server.client_with(&server.limited("bob", |_| ())).await;
    for n in 0..200 {
        bob.say(json!({"op": "signal", "id": n, "channel": "room:1", "data": n})).await;
    }
    let refused = bob.hear("error").await;
    assert!(refused["message"].as_str().unwrap().contains("for one connection"), "{refused}");
    let large = "x".repeat(17 * 1024);
    let signal = json!({"op": "signal", "id": "l", "channel": "room:1", "data": large});
    assert_eq!(alice.ask(signal).await["code"], "too_large");
    server.stop().await;
}

#[tokio::test]
async fn without_the_right_nobody_is_seen_and_nothing_is_said() {
    let server = Server::alone().await;
    let token = server.limited("eve", |request| {
        request.presence = Some(Vec::new());
        request.signal = Some(Vec::new());
    });
    let mut eve = server.client_with(&token).await;
    let requests = [
        json!({"op": "presence", "id": 1, "channel": "room:1"}),
        json!({"op": "subscribe", "id": 2, "channel": "room:1", "presence": true}),
        json!({"op": "signal", "id": 3, "channel": "room:1", "data": 1}),
    ];
    for request in requests {
        let refused = eve.ask(request).await;
        assert_eq!(refused["code"], "forbidden", "{refused}");
    }
    let pattern = json!({"op": "subscribe", "id": 4, "pattern": "room:*", "presence": true});
    let refused = eve.ask(pattern).await;
    assert_eq!(refused["code"], "invalid_field", "{refused}");
    assert!(refused["message"].as_str().unwrap().starts_with("presence:"), "{refused}");
    let page = json!({"op": "presence", "id": 5, "channel": "room:1", "after": "nonsense!"});
    let mut alice = server.client("alice").await;
    assert_eq!(alice.ask(page).await["code"], "invalid_field");
    server.stop().await;
}

#[tokio::test]
async fn a_fresh_token_without_the_right_ends_the_membership_alone() {
    let server = Server::alone().await;
    let mut watcher = server.client("watcher").await;
    watcher.attend("room:1").await;
    let mut alice = server.client("alice").await;
    alice.subscribe("room:1", true).await;
    assert_eq!(users(&watcher.hear("joined").await), ["alice"]);
    let fresh = server.limited("alice", |request| {
        request.presence = Some(vec![Pattern::parse("other:*").unwrap()]);
    });
    alice.say(json!({"op": "refresh", "id": 1, "token": fresh})).await;
    let told = alice.hear("error").await;
    assert_eq!((&told["code"], &told["id"]), (&json!("forbidden"), &json!(null)), "{told}");
    assert_eq!(users(&watcher.hear("left").await), ["alice"]);
    watcher.say(json!({"op": "signal", "channel": "room:1", "data": "still here?"})).await;
    assert_eq!(alice.hear("signal").await["from"], "watcher");
    server.stop().await;
}
