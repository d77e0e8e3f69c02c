//! `/v1/admin/users/…`, and what becomes of tokens that are out.

use crate::kit::{PASSWORD, Server};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use stormwire_tokens::Role;

async fn block(server: &Server, token: &str, user: &str, blocked: bool) -> (u16, String) {
    let body = json!({ "blocked": blocked }).to_string();
    let path = format!("/v1/admin/users/{user}/blocked");
    let answer = server.call(Method::PUT, &path, Some(token), body, "192.0.2.1").await;
    let (status, code) = answer.refusal();
    (status, code.to_owned())
}

/// An account with a role, signed in; its id and its access token.
async fn somebody(server: &Server, name: &str, role: Role) -> (String, String) {
    let user = server.register(name).await;
    server.identity.grant(name, role).await.unwrap();
    (user, server.sign_in(name).await.0)
}

#[tokio::test]
async fn a_blocked_account_is_out_until_it_is_let_in_again() {
    let server = Server::start().await;
    let (alice, _) = somebody(&server, "alice", Role::User).await;
    let (_, moderator) = somebody(&server, "mod", Role::Moderator).await;
    let (access, refresh) = server.sign_in("alice").await;
    let keys = json!({ "label": "k", "publish": ["room:a"], "subscribe": [], "days": 1 });
    let key = server.post_as(&access, "/v1/auth/keys", keys).await.text("api_key");
    let exchange = json!({ "api_key": key });
    let of_key = server.post("/v1/auth/token", exchange.clone()).await.text("access_token");
    server.pass(Duration::from_secs(5));
    assert_eq!(block(&server, &moderator, &alice, true).await.0, 204);
    for token in [&access, &of_key] {
        server.until_refused(token).await;
    }
    assert_eq!(server.refresh(&refresh).await.refusal(), (401, "unauthenticated"));
    assert_eq!(server.post("/v1/auth/token", exchange.clone()).await.refusal().0, 401);
    assert_eq!(server.login("alice", PASSWORD).await.refusal(), (403, "forbidden"));
    // Only who knows the password is told.
    assert_eq!(server.login("alice", "wrong").await.refusal(), (401, "unauthenticated"));
    let seen = server.get(&moderator, &format!("/v1/admin/users/{alice}")).await;
    assert_eq!(
        (&seen.body["blocked"], &seen.body["username"], &seen.body["role"]),
        (&Value::Bool(true), &json!("alice"), &json!("user"))
    );
    server.pass(Duration::from_secs(5));
    assert_eq!(block(&server, &moderator, &alice, false).await.0, 204);
    let (access, _) = server.sign_in("alice").await;
    server.verify(&access).await.unwrap();
    assert_eq!(server.post("/v1/auth/token", exchange).await.status, 200);
}

#[tokio::test]
async fn who_may_block_whom() {
    let server = Server::start().await;
    let (alice, as_alice) = somebody(&server, "alice", Role::User).await;
    let (moderator, as_moderator) = somebody(&server, "mod", Role::Moderator).await;
    let (admin, as_admin) = somebody(&server, "root", Role::Admin).await;
    let table = [
        (&as_alice, &moderator, 403),
        (&as_alice, &alice, 403),
        (&as_moderator, &admin, 403),
        (&as_moderator, &moderator, 403),
        (&as_moderator, &alice, 204),
        (&as_admin, &moderator, 204),
    ];
    for (token, user, status) in table {
        assert_eq!(block(&server, token, user, true).await.0, status, "{user}");
    }
    assert_eq!(block(&server, &as_admin, "nobody", true).await, (404, "not_found".to_owned()));
    let see = format!("/v1/admin/users/{alice}");
    assert_eq!(server.get(&as_admin, &see).await.status, 200);
}

#[tokio::test]
async fn whatever_ends_a_session_ends_its_access_token() {
    let server = Server::start().await;
    let (alice, _) = somebody(&server, "alice", Role::User).await;
    let (_, admin) = somebody(&server, "root", Role::Admin).await;
    let (out, refresh) = server.sign_in("alice").await;
    let (kept, _) = server.sign_in("alice").await;
    server.post("/v1/auth/logout", json!({ "refresh_token": refresh })).await;
    server.until_refused(&out).await;
    server.verify(&kept).await.expect("another session of the same user");
    let (copied, refresh) = server.sign_in("alice").await;
    server.refresh(&refresh).await;
    server.refresh(&refresh).await;
    server.until_refused(&copied).await;
    let path = format!("/v1/admin/users/{alice}/sign-out");
    let answer = server.post_as(&admin, &path, Value::Null).await;
    assert_eq!((answer.status.as_u16(), &answer.body["ended"]), (200, &json!(2)));
    server.until_refused(&kept).await;
}

#[tokio::test]
async fn a_fresh_token_after_another_role_is_good_at_once() {
    let server = Server::start().await;
    server.register("alice").await;
    let (access, refresh) = server.sign_in("alice").await;
    server.identity.grant("alice", Role::Moderator).await.unwrap();
    server.until_refused(&access).await;
    // Within the same second: the clock stands.
    let fresh = server.refresh(&refresh).await.text("access_token");
    let claims = server.verify(&fresh).await.unwrap();
    assert_eq!(&*claims.roles, ["moderator"]);
}
