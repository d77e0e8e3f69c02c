//! Whoever is shut out is shut out everywhere and soon: sockets, streams and long polls of several gateways
//! that follow one identity service over HTTP, one of which is cut off meanwhile.
//!
//! `STORMWIRE_SOCKETS=1000` opens as many sockets on each of four gateways and prints how long the slowest
//! took.

use crate::kit::{self, Cluster, PATIENCE, connect, ended};
use futures::stream::{self, StreamExt as _};
use http::Method;
use serde_json::json;
use std::time::{Duration, Instant};
use stormwire_testkit::proxy::Network;
use stormwire_testkit::wait_until;

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_user_is_out_on_every_gateway() {
    let cluster = Cluster::start(4).await;
    let each = std::env::var("STORMWIRE_SOCKETS").ok();
    let each: usize = each.and_then(|text| text.parse().ok()).unwrap_or(20);
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let mut doomed = Vec::new();
    let mut kept = Vec::new();
    for gateway in &cluster.gateways {
        let sockets = stream::iter(0..each).map(|_| connect(gateway.address, &alice.access));
        doomed.extend(sockets.buffer_unordered(32).collect::<Vec<_>>().await);
        kept.push(connect(gateway.address, &bob.access).await);
    }
    let waiting: Vec<_> = doomed.into_iter().map(|socket| tokio::spawn(ended(socket))).collect();
    let start = Instant::now();
    let path = format!("/v1/admin/users/{}/blocked", alice.user);
    let answer = cluster.call(Method::PUT, &path, &cluster.admin, json!({"blocked": true})).await;
    assert_eq!(answer.0, 204, "{answer:?}");
    let mut slowest = Duration::ZERO;
    for socket in waiting {
        let (code, at) = tokio::time::timeout(PATIENCE, socket).await.expect("it ends").unwrap();
        assert_eq!(code, 4401);
        slowest = slowest.max(at.duration_since(start));
    }
    let sockets = each * cluster.gateways.len();
    let gateways = cluster.gateways.len();
    println!("{sockets} sockets on {gateways} gateways: the slowest was closed after {slowest:?}");
    // Nor is there a way back in, by token or by password.
    for gateway in &cluster.gateways {
        assert_eq!(gateway.publish(&alice.access).await, 401);
        assert_eq!(gateway.publish(&bob.access).await, 200);
    }
    let again = cluster.post("/v1/auth/refresh", json!({"refresh_token": alice.refresh})).await;
    assert_eq!(again.0, 401, "{again:?}");
    assert_eq!(cluster.login("alice").await.0, 403);
    for socket in &mut kept {
        assert_eq!(kit::ask(socket, json!({"op": "ping", "id": 1})).await["op"], "pong");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_long_polls_end_with_their_session() {
    let cluster = Cluster::start(1).await;
    let gateway = &cluster.gateways[0];
    let alice = cluster.user("alice").await;
    let place = gateway.place(&alice.access).await;
    let stream = tokio::spawn(gateway.stream(&alice.access));
    let poll = tokio::spawn(gateway.poll(&alice.access, &place));
    let path = format!("/v1/auth/sessions/{}", alice.session);
    wait_until("both are open", PATIENCE, || async { gateway.opened() >= 2 }).await;
    let start = Instant::now();
    let answer = cluster.call(Method::DELETE, &path, &alice.access, json!(null)).await;
    assert_eq!(answer.0, 204, "{answer:?}");
    let told = tokio::time::timeout(PATIENCE, stream).await.expect("the stream ends").unwrap();
    assert!(told.ends_with(": the stream ends here; connect again\n\n"), "{told:?}");
    tokio::time::timeout(PATIENCE, poll).await.expect("the poll ends").unwrap();
    // Both would have lasted for much longer.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_cut_off_catches_up() {
    let cluster = Cluster::start(2).await;
    let (near, far) = (&cluster.gateways[0], &cluster.gateways[1]);
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let socket = connect(far.address, &alice.access).await;
    far.network.set(Network::Cut);
    for user in [&alice, &bob] {
        let path = format!("/v1/admin/users/{}/sign-out", user.user);
        let answer = cluster.call(Method::POST, &path, &cluster.admin, json!(null)).await;
        assert_eq!(answer, (200, json!({"ended": 1})));
    }
    wait_until("the near one knows", PATIENCE, || async { near.publish(&bob.access).await == 401 })
        .await;
    assert_eq!(far.publish(&bob.access).await, 200, "the far one cannot know yet");
    far.network.set(Network::Healthy);
    let (code, _) = tokio::time::timeout(PATIENCE, ended(socket)).await.expect("it ends");
    assert_eq!(code, 4401);
    assert_eq!(far.publish(&bob.access).await, 401, "nothing was skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_role_needs_a_fresh_token_and_takes_one_at_once() {
    let cluster = Cluster::start(1).await;
    let gateway = &cluster.gateways[0];
    let alice = cluster.user("alice").await;
    let socket = connect(gateway.address, &alice.access).await;
    let path = format!("/v1/auth/users/{}/role", alice.user);
    let answer =
        cluster.call(Method::PUT, &path, &cluster.admin, json!({"role": "moderator"})).await;
    assert_eq!(answer.0, 204, "{answer:?}");
    let (code, _) = tokio::time::timeout(PATIENCE, ended(socket)).await.expect("it ends");
    assert_eq!(code, 4401);
    let (status, fresh) =
        cluster.post("/v1/auth/refresh", json!({"refresh_token": alice.refresh})).await;
    assert_eq!(status, 200, "the session goes on: {fresh}");
    let access = fresh["access_token"].as_str().unwrap();
    assert_eq!(gateway.publish(access).await, 200);
    connect(gateway.address, access).await;
}
