//! `POST /v1/auth/login` and `/v1/auth/logout`.

use crate::kit::{PASSWORD, Server};
use http::Method;
use serde_json::json;
use std::time::Duration;
use stormwire_tokens::Action;

#[tokio::test]
async fn who_signs_in_gets_a_token_with_the_accounts_rights() {
    let server = Server::start().await;
    let user = server.register("Alice").await;
    let answer = server.login("alice", PASSWORD).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        (&answer.body["expires_in"], &answer.body["refresh_expires_in"]),
        (&json!(900), &json!(604_800))
    );
    assert_eq!(answer.headers["cache-control"], "no-store");
    let claims = server.verify(&answer.text("access_token")).await.unwrap();
    assert_eq!((&*claims.user, &*claims.roles), (user.as_str(), &["user".to_owned()][..]));
    assert_eq!(claims.session.as_deref(), Some(answer.text("session").as_str()));
    for (action, channel, granted) in [
        (Action::Publish, "room:a", true),
        (Action::History, "room:a", true),
        (Action::Publish, "other:a", false),
        (Action::Subscribe, "other:a", false),
    ] {
        assert_eq!(claims.rights.may(action, channel), granted, "{action} {channel}");
    }
    server.pass(Duration::from_secs(15 * 60 + 31));
    assert!(server.verify(&answer.text("access_token")).await.is_err(), "it has expired");
}

#[tokio::test]
async fn nobody_and_a_wrong_password_get_the_same_answer() {
    let server = Server::start().await;
    server.register("alice").await;
    let wrong = server.login("alice", "wrong horse").await;
    assert_eq!(wrong.refusal(), (401, "unauthenticated"));
    let same = |mut body: serde_json::Value| {
        body["request_id"] = json!("");
        body
    };
    let long = "x".repeat(10_000);
    for (name, password) in [
        ("bob", "wrong horse"),
        ("bob", PASSWORD),
        ("", PASSWORD),
        ("\u{0}", PASSWORD),
        ("alice", ""),
        ("alice", &long),
        ("аlice", PASSWORD),
    ] {
        let answer = server.login(name, password).await;
        assert_eq!(same(answer.body), same(wrong.body.clone()), "{name:?}");
    }
    let nobody = json!({ "email": "nobody@example.com", "password": PASSWORD });
    assert_eq!(same(server.post("/v1/auth/login", nobody).await.body), same(wrong.body));
}

#[tokio::test]
async fn after_five_wrong_attempts_an_account_waits_longer_and_longer() {
    let server = Server::start().await;
    server.register("alice").await;
    let from = async |ip: &str, name: &str, password: &str| {
        let body = json!({ "username": name, "password": password }).to_string();
        server.call(Method::POST, "/v1/auth/login", None, body, ip).await
    };
    // An account that is there and one that is not are locked in the same way.
    for name in ["alice", "nobody"] {
        for n in 0..5 {
            let answer = from(&format!("198.51.100.{n}"), name, "wrong horse").await;
            assert_eq!(answer.refusal(), (401, "unauthenticated"));
        }
        let locked = from("203.0.113.9", name, PASSWORD).await;
        assert_eq!(locked.refusal(), (429, "limited"), "the right password as well");
        assert_eq!(locked.headers["retry-after"], "1");
    }
    server.pass(Duration::from_secs(1));
    assert_eq!(from("203.0.113.9", "alice", "wrong horse").await.refusal().0, 401);
    assert_eq!(from("203.0.113.9", "alice", PASSWORD).await.headers["retry-after"], "2");
    server.pass(Duration::from_secs(2));
    assert_eq!(from("203.0.113.9", "alice", PASSWORD).await.status, 200);
    assert_eq!(from("203.0.113.9", "alice", "wrong horse").await.refusal().0, 401, "begun anew");
}

#[tokio::test]
async fn an_address_that_tries_many_accounts_waits_too() {
    let server = Server::start().await;
    server.register("alice").await;
    let mut last = 0;
    for n in 0..51 {
        last = server.login(&format!("user{n}"), "wrong horse").await.status.as_u16();
    }
    assert_eq!(last, 429);
    assert_eq!(server.login("alice", PASSWORD).await.refusal(), (429, "limited"));
    let body = json!({ "username": "alice", "password": PASSWORD }).to_string();
    let other = server.call(Method::POST, "/v1/auth/login", None, body, "198.51.100.1").await;
    assert_eq!(other.status, 200, "others go on");
}

#[tokio::test]
async fn what_is_no_login_is_told_what_is_wrong() {
    let server = Server::start().await;
    for (body, code) in [
        ("", "malformed"),
        ("[]", "malformed"),
        ("{\"username\":\"a\"}", "malformed"),
        ("{\"username\":\"a\",\"password\":\"b\",\"admin\":true}", "malformed"),
        ("{\"username\":1,\"password\":\"b\"}", "malformed"),
        ("{\"password\":\"b\"}", "invalid_field"),
        ("{\"username\":\"a\",\"email\":\"b@c.d\",\"password\":\"b\"}", "invalid_field"),
        ("{\"email\":\"no address\",\"password\":\"b\"}", "invalid_field"),
    ] {
        let answer = server.call(Method::POST, "/v1/auth/login", None, body, "192.0.2.1").await;
        assert_eq!(answer.refusal(), (400, code), "{body}");
    }
    let huge = format!("{{\"username\":\"{}\",\"password\":\"b\"}}", "a".repeat(20_000));
    let answer = server.call(Method::POST, "/v1/auth/login", None, huge, "192.0.2.1").await;
    assert_eq!(answer.refusal(), (413, "too_large"));
    assert_eq!(server.get("x", "/v1/auth/login").await.status, 405);
}

#[tokio::test]
async fn who_signs_out_cannot_go_on() {
    let server = Server::start().await;
    server.register("alice").await;
    let (access, refresh) = server.sign_in("alice").await;
    let (_, other) = server.sign_in("alice").await;
    let out = server.post("/v1/auth/logout", json!({ "refresh_token": refresh })).await;
    assert_eq!(out.status, 204);
    assert_eq!(server.refresh(&refresh).await.refusal(), (401, "unauthenticated"));
    assert_eq!(server.get(&access, "/v1/auth/sessions").await.refusal(), (401, "unauthenticated"));
    assert_eq!(server.refresh(&other).await.status, 200, "another sign-in goes on");
    let again = server.post("/v1/auth/logout", json!({ "refresh_token": "unknown" })).await;
    assert_eq!(again.status, 204);
}
