//! `/v1/auth/email`, `/v1/auth/email/verify`, `/v1/auth/password/forgotten`, `/v1/auth/password/reset`.

use crate::kit::{PASSWORD, Server, token_in};
use serde_json::json;
use std::time::Duration;

const ADDRESS: &str = "alice@example.com";

async fn alice(server: &Server) {
    let body = json!({ "username": "alice", "email": ADDRESS, "password": PASSWORD });
    assert_eq!(server.post("/v1/auth/register", body).await.status, 201);
}

#[tokio::test]
async fn an_address_is_confirmed_with_what_its_mail_says() {
    let server = Server::start().await;
    alice(&server).await;
    let token = token_in(&server.mail(ADDRESS, 1).await);
    let verify =
        async |token: &str| server.post("/v1/auth/email/verify", json!({ "token": token })).await;
    assert_eq!(verify("made up").await.refusal(), (400, "invalid_field"));
    let (access, _) = server.sign_in("alice").await;
    let ask = async || server.post_as(&access, "/v1/auth/email", json!({})).await;
    assert_eq!(ask().await.status, 202);
    let later = token_in(&server.mail(ADDRESS, 2).await);
    assert_eq!(verify(&token).await.refusal(), (400, "invalid_field"), "a later one replaces it");
    assert_eq!(verify(&later).await.status, 204);
    assert_eq!(verify(&later).await.refusal(), (400, "invalid_field"), "good once");
    assert_eq!(ask().await.status, 202, "nothing is left to do");
    server.register("bob").await;
    let (as_bob, _) = server.sign_in("bob").await;
    let without = server.post_as(&as_bob, "/v1/auth/email", json!({})).await;
    assert_eq!(without.refusal(), (404, "not_found"));
    assert_eq!(server.mails(), 2);
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_and_all_sessions_end() {
    let server = Server::start().await;
    alice(&server).await;
    server.mail(ADDRESS, 1).await;
    let (_, refresh) = server.sign_in("alice").await;
    let forgot = async |email: &str| {
        server.post("/v1/auth/password/forgotten", json!({ "email": email })).await
    };
    let (known, unknown) = (forgot("Alice@example.com").await, forgot("nobody@example.com").await);
    assert_eq!((known.status, known.body), (unknown.status, unknown.body));
    let token = token_in(&server.mail(ADDRESS, 2).await);
    let reset = async |token: &str, password: &str| {
        let body = json!({ "token": token, "password": password });
        server.post("/v1/auth/password/reset", body).await
    };
    // Somebody guesses at the same time, and locks the account.
    for _ in 0..6 {
        server.login("alice", "wrong horse").await;
    }
    assert_eq!(reset(&token, "short").await.refusal(), (400, "invalid_field"));
    assert_eq!(reset(&token, "another horse").await.status, 204, "a bad password took no ticket");
    assert_eq!(reset(&token, "a third horse").await.refusal(), (400, "invalid_field"));
    assert_eq!(server.refresh(&refresh).await.refusal().0, 401);
    assert_eq!(server.login("alice", PASSWORD).await.refusal().0, 401);
    assert_eq!(server.login("alice", "another horse").await.status, 200, "not locked out");
    assert!(server.mail(ADDRESS, 3).await.subject.contains("was changed"));
    assert_eq!(server.mails(), 3, "nobody else was written to");
}

#[tokio::test]
async fn a_mail_is_good_for_an_hour_and_a_box_is_not_flooded() {
    let server = Server::start().await;
    alice(&server).await;
    let forgot = async || {
        let body = json!({ "email": ADDRESS });
        assert_eq!(server.post("/v1/auth/password/forgotten", body).await.status, 202);
    };
    for _ in 0..10 {
        forgot().await;
    }
    let token = token_in(&server.mail(ADDRESS, 3).await);
    server.pass(Duration::from_secs(3600));
    let late = json!({ "token": token, "password": "another horse" });
    assert_eq!(
        server.post("/v1/auth/password/reset", late).await.refusal(),
        (400, "invalid_field")
    );
    // The queue is worked off in order: once this one has come, those before it are done.
    forgot().await;
    server.mail(ADDRESS, 4).await;
    assert_eq!(server.mails(), 4);
}

#[tokio::test]
async fn without_mail_it_is_told() {
    let server = Server::start_with(|config| config.mailer = None).await;
    alice(&server).await;
    let body = json!({ "email": ADDRESS });
    let answer = server.post("/v1/auth/password/forgotten", body).await;
    assert_eq!(answer.refusal(), (404, "not_found"));
}
