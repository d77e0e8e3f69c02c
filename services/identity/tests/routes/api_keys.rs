//! `/v1/auth/keys` and `POST /v1/auth/token`.

use crate::kit::{Answer, Server};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use stormwire_tokens::{Action, Role};

async fn exchange(server: &Server, key: &str) -> Answer {
    server.post("/v1/auth/token", json!({ "api_key": key })).await
}

async fn make(server: &Server, token: &str, body: Value) -> Answer {
    server.post_as(token, "/v1/auth/keys", body).await
}

#[tokio::test]
async fn a_key_is_exchanged_for_some_of_its_accounts_rights_until_it_ends() {
    let server = Server::start().await;
    let user = server.register("alice").await;
    let (access, _) = server.sign_in("alice").await;
    let wanted =
        json!({ "label": "billing", "publish": ["room:bills"], "subscribe": [], "days": 30 });
    let made = make(&server, &access, wanted).await;
    assert_eq!(made.status, 201, "{made:?}");
    let key = made.text("api_key");
    assert!(key.starts_with("swk_"), "{key}");
    let answer = exchange(&server, &key).await;
    assert_eq!((answer.status.as_u16(), &answer.body["expires_in"]), (200, &json!(900)));
    let token = answer.text("access_token");
    let claims = server.verify(&token).await.unwrap();
    assert_eq!((&*claims.user, claims.roles.len()), (user.as_str(), 0));
    assert!(claims.rights.may(Action::Publish, "room:bills"));
    assert!(!claims.rights.may(Action::Publish, "room:other"));
    assert!(!claims.rights.may(Action::History, "room:bills"));
    // It is no way to the account.
    for path in ["/v1/auth/sessions", "/v1/auth/keys"] {
        assert_eq!(server.get(&token, path).await.refusal(), (401, "unauthenticated"), "{path}");
    }
    let more = json!({ "publish": ["room:bills"], "days": 1 });
    assert_eq!(make(&server, &token, more).await.refusal(), (401, "unauthenticated"));
    let listed = server.get(&access, "/v1/auth/keys").await;
    let listed = &listed.body["keys"][0];
    assert_eq!((&listed["label"], listed.get("api_key")), (&json!("billing"), None));
    assert!(listed["used_at"].is_string());
    let path = format!("/v1/auth/keys/{}", made.text("id"));
    let end = async |token: &str| {
        server.call(Method::DELETE, &path, Some(token), "", "192.0.2.1").await.refusal().0
    };
    server.register("mallory").await;
    let (as_mallory, _) = server.sign_in("mallory").await;
    assert_eq!(end(&as_mallory).await, 404);
    assert_eq!(end(&access).await, 204);
    assert_eq!(exchange(&server, &key).await.refusal(), (401, "unauthenticated"));
    assert_eq!(exchange(&server, "swk_made-up").await.refusal(), (401, "unauthenticated"));
}

#[tokio::test]
async fn a_key_expires_and_its_last_token_with_it() {
    let server = Server::start().await;
    server.register("alice").await;
    let (access, _) = server.sign_in("alice").await;
    let made = make(&server, &access, json!({ "publish": ["room:*"], "days": 1 })).await;
    let key = made.text("api_key");
    server.pass(Duration::from_secs(24 * 3600 - 60));
    assert_eq!(exchange(&server, &key).await.body["expires_in"], 60);
    server.pass(Duration::from_secs(60));
    assert_eq!(exchange(&server, &key).await.refusal(), (401, "unauthenticated"));
}

#[tokio::test]
async fn nobody_gives_more_than_they_have_and_what_they_lose_their_keys_lose() {
    let server = Server::start().await;
    server.register("alice").await;
    let (as_user, _) = server.sign_in("alice").await;
    for (body, refusal) in [
        (json!({ "publish": ["*"], "days": 1 }), (403, "forbidden")),
        (json!({ "subscribe": ["other:*"], "days": 1 }), (403, "forbidden")),
        (json!({ "publish": ["room:a*b"], "days": 1 }), (400, "invalid_field")),
        (json!({ "publish": ["room:a"], "days": 0 }), (400, "invalid_field")),
        (json!({ "publish": ["room:a"], "days": 367 }), (400, "invalid_field")),
        (json!({ "label": "a\u{7}", "days": 1 }), (400, "invalid_field")),
        (json!({ "publish": vec!["room:a"; 51], "days": 1 }), (400, "invalid_field")),
        (json!({ "publish": ["room:a"] }), (400, "malformed")),
    ] {
        assert_eq!(make(&server, &as_user, body.clone()).await.refusal(), refusal, "{body}");
    }
    server.identity.grant("alice", Role::Admin).await.unwrap();
    let wanted = json!({ "publish": ["other:a", "room:a"], "subscribe": ["*"], "days": 1 });
    let key = make(&server, &as_user, wanted).await.text("api_key");
    let may = async |action, channel| {
        let token = exchange(&server, &key).await.text("access_token");
        server.verify(&token).await.unwrap().rights.may(action, channel)
    };
    assert!(may(Action::Publish, "other:a").await && may(Action::History, "other:b").await);
    server.identity.grant("alice", Role::User).await.unwrap();
    assert!(may(Action::Publish, "room:a").await);
    assert!(!may(Action::Publish, "other:a").await && !may(Action::History, "other:b").await);
}

#[tokio::test]
async fn an_account_has_twenty_keys_at_most() {
    let server = Server::start().await;
    server.register("alice").await;
    let (access, _) = server.sign_in("alice").await;
    let body = json!({ "publish": ["room:a"], "days": 1 });
    for _ in 0..20 {
        assert_eq!(make(&server, &access, body.clone()).await.status, 201);
    }
    assert_eq!(make(&server, &access, body.clone()).await.refusal(), (409, "conflict"));
    server.pass(Duration::from_secs(24 * 3600));
    let (access, _) = server.sign_in("alice").await;
    assert_eq!(make(&server, &access, body).await.status, 201, "those have expired");
}
