//! `POST /v1/auth/register`, `POST /v1/auth/password`, `PUT /v1/auth/users/{user}/role`.

use crate::kit::{PASSWORD, Server};
use http::Method;
use serde_json::json;
use stormwire_identity::Registration;
use stormwire_tokens::{Action, Role};

#[tokio::test]
async fn an_account_is_made_by_name_or_by_address() {
    let server = Server::start().await;
    server.register("алиса").await;
    assert_eq!(server.login("АЛИСА", PASSWORD).await.status, 200);
    let by_mail = json!({ "email": "Carol@Example.com", "password": PASSWORD });
    let made = server.post("/v1/auth/register", by_mail.clone()).await;
    assert_eq!((made.status.as_u16(), made.body.get("username")), (201, None));
    let login = json!({ "email": "carol@example.com", "password": PASSWORD });
    assert_eq!(server.post("/v1/auth/login", login).await.status, 200);
    assert_eq!(server.post("/v1/auth/register", by_mail).await.refusal(), (409, "conflict"));
}

#[tokio::test]
async fn names_that_are_taken_look_alike_or_cannot_be_read_are_refused() {
    let server = Server::start().await;
    server.register("paypal").await;
    let register = async |name: &str| {
        let body = json!({ "username": name, "password": PASSWORD });
        server.post("/v1/auth/register", body).await
    };
    for name in [
        "paypal",
        "PayPal",
        "paypa1",
        "ｐａｙｐａｌ",
        "payрal",
        "pay\u{0}pal",
        "pay\u{200b}pal",
        "\u{202e}paypal",
    ] {
        let answer = register(name).await;
        let expected = if name.is_ascii() && !name.contains('\0') || name.starts_with('ｐ') {
            (409, "conflict")
        } else {
            (400, "invalid_field")
        };
        assert_eq!(answer.refusal(), expected, "{name:?}");
    }
    for (body, code) in [
        (json!({ "password": PASSWORD }), "invalid_field"),
        (json!({ "username": "dave", "password": "short" }), "invalid_field"),
        (json!({ "username": "dave.longname", "password": "Dave.LongName" }), "invalid_field"),
        (json!({ "username": "dave", "password": "x".repeat(2_000) }), "invalid_field"),
        (
            json!({ "username": "dave", "email": "a\r\nBcc: b@c.d", "password": PASSWORD }),
            "invalid_field",
        ),
        (json!({ "username": "dave", "role": "admin", "password": PASSWORD }), "malformed"),
    ] {
        assert_eq!(
            server.post("/v1/auth/register", body.clone()).await.refusal(),
            (400, code),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_closed_server_makes_no_accounts() {
    let server = Server::start_with(|config| config.registration = Registration::Closed).await;
    let body = json!({ "username": "alice", "password": PASSWORD });
    assert_eq!(server.post("/v1/auth/register", body).await.refusal(), (403, "forbidden"));
}

#[tokio::test]
async fn a_new_password_needs_the_old_one_and_ends_the_other_sessions() {
    let server = Server::start().await;
    server.register("alice").await;
    let (_, elsewhere) = server.sign_in("alice").await;
    let (access, refresh) = server.sign_in("alice").await;
    let change = async |current: &str, new: &str| {
        let body = json!({ "current": current, "new": new });
        server.post_as(&access, "/v1/auth/password", body).await
    };
    assert_eq!(change("wrong horse", "another horse").await.refusal(), (401, "unauthenticated"));
    assert_eq!(change(PASSWORD, "short").await.refusal(), (400, "invalid_field"));
    assert_eq!(change(PASSWORD, "another horse").await.status, 204);
    assert_eq!(server.refresh(&elsewhere).await.refusal().0, 401);
    assert_eq!(server.refresh(&refresh).await.status, 200, "this one goes on");
    assert_eq!(server.login("alice", PASSWORD).await.refusal().0, 401);
    assert_eq!(server.login("alice", "another horse").await.status, 200);
    let anonymous = json!({ "current": PASSWORD, "new": "another horse" });
    assert_eq!(
        server.post("/v1/auth/password", anonymous).await.refusal(),
        (401, "unauthenticated")
    );
}

#[tokio::test]
async fn a_role_is_given_by_admins_alone_and_is_in_the_next_token() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let give = async |token: &str, user: &str, role: &str| {
        let (path, body) = (format!("/v1/auth/users/{user}/role"), json!({ "role": role }));
        server.call(Method::PUT, &path, Some(token), body.to_string(), "192.0.2.1").await
    };
    let (as_user, refresh) = server.sign_in("alice").await;
    assert_eq!(give(&as_user, &alice, "admin").await.refusal(), (403, "forbidden"));
    server.identity.grant("Alice", Role::Admin).await.unwrap();
    assert!(server.identity.grant("nobody", Role::Admin).await.is_err());
    let as_admin = server.refresh(&refresh).await.text("access_token");
    let claims = server.verify(&as_admin).await.unwrap();
    assert!(claims.rights.may(Action::Publish, "other:a"), "an admin may on every channel");
    assert_eq!(give(&as_admin, &bob, "moderator").await.status, 204);
    assert_eq!(give(&as_admin, &bob, "root").await.refusal(), (400, "invalid_field"));
    assert_eq!(give(&as_admin, "nobody", "user").await.refusal(), (404, "not_found"));
    let (as_moderator, _) = server.sign_in("bob").await;
    assert_eq!(&*server.verify(&as_moderator).await.unwrap().roles, ["moderator"]);
    assert_eq!(give(&as_moderator, &bob, "admin").await.refusal(), (403, "forbidden"));
}
