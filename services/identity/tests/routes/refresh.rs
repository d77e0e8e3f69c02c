//! `POST /v1/auth/refresh`.

use crate::kit::Server;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_copy_ends_the_session() {
    let server = Server::start().await;
    server.register("alice").await;
    let (_, first) = server.sign_in("alice").await;
    let answer = server.refresh(&first).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let second = answer.text("refresh_token");
    assert_ne!(first, second);
    assert!(server.verify(&answer.text("access_token")).await.is_ok());
    let third = server.refresh(&second).await.text("refresh_token");
    assert_eq!(server.refresh(&first).await.refusal(), (401, "unauthenticated"), "a copy");
    assert_eq!(server.refresh(&third).await.refusal(), (401, "unauthenticated"), "for everybody");
    server.sign_in("alice").await;
}

#[tokio::test]
async fn fifty_copies_at_once_get_one_answer_and_end_the_session() {
    let server = Arc::new(Server::start().await);
    server.register("alice").await;
    let (_, token) = server.sign_in("alice").await;
    let mut storm = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (server, token) = (Arc::clone(&server), token.clone());
        storm.spawn(async move { server.refresh(&token).await });
    }
    let mut statuses = HashMap::new();
    let mut next = String::new();
    for answer in storm.join_all().await {
        *statuses.entry(answer.status.as_u16()).or_insert(0) += 1;
        if answer.status == 200 {
            next = answer.text("refresh_token");
        }
    }
    assert_eq!(statuses, HashMap::from([(200, 1), (401, 49)]));
    assert_eq!(server.refresh(&next).await.refusal(), (401, "unauthenticated"));
}

#[tokio::test]
async fn a_session_lasts_as_long_as_it_is_used() {
    let server = Server::start().await;
    server.register("alice").await;
    let (_, mut token) = server.sign_in("alice").await;
    for _ in 0..5 {
        server.pass(Duration::from_secs(6 * 24 * 3600));
        token = server.refresh(&token).await.text("refresh_token");
    }
    server.pass(Duration::from_secs(7 * 24 * 3600));
    assert_eq!(server.refresh(&token).await.refusal(), (401, "unauthenticated"));
}

#[tokio::test]
async fn no_token_of_the_store_is_one_that_can_be_shown() {
    let server = Server::start().await;
    server.register("alice").await;
    let (_, token) = server.sign_in("alice").await;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(server.folder.path()).unwrap() {
        files.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    let holds = |text: &str| files.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(holds("alice") && !holds(&token) && !holds(crate::kit::PASSWORD));
}
