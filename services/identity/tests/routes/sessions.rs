//! `GET` and `DELETE` of `/v1/auth/sessions` and `/v1/auth/users/{user}/sessions`.

use crate::kit::Server;
use http::Method;
use std::time::Duration;
use stormwire_tokens::Role;

async fn end(server: &Server, token: &str, path: &str) -> (u16, String) {
    let answer = server.call(Method::DELETE, path, Some(token), "", "192.0.2.1").await;
    let (status, code) = answer.refusal();
    (status, code.to_owned())
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_owner() {
    let server = Server::start().await;
    server.register("alice").await;
    let (_, first) = server.sign_in("alice").await;
    server.pass(Duration::from_secs(60));
    let (access, _) = server.sign_in("alice").await;
    let list = server.get(&access, "/v1/auth/sessions").await;
    let sessions = list.body["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!((&sessions[0]["current"], &sessions[1]["current"]), (&true.into(), &false.into()));
    assert_eq!((&sessions[0]["ip"], &sessions[0]["agent"]), (&"192.0.2.1".into(), &"kit".into()));
    assert_eq!(server.get(&access, "/v1/auth/users/me/sessions").await.body, list.body);
    let other = format!("/v1/auth/sessions/{}", sessions[1]["id"].as_str().unwrap());
    assert_eq!(end(&server, &access, &other).await.0, 204);
    assert_eq!(end(&server, &access, &other).await, (404, "not_found".to_owned()));
    assert_eq!(server.refresh(&first).await.refusal().0, 401);
    assert_eq!(
        server.get("no.such.token", "/v1/auth/sessions").await.refusal(),
        (401, "unauthenticated")
    );
}

#[tokio::test]
async fn those_of_others_are_for_moderators() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    server.register("mallory").await;
    server.register("mod").await;
    server.identity.grant("mod", Role::Moderator).await.unwrap();
    let (as_alice, refresh) = server.sign_in("alice").await;
    let session = server.verify(&as_alice).await.unwrap().session.unwrap();
    let (as_mallory, _) = server.sign_in("mallory").await;
    let (as_moderator, _) = server.sign_in("mod").await;
    let list = format!("/v1/auth/users/{alice}/sessions");
    let one = format!("{list}/{session}");
    assert_eq!(server.get(&as_mallory, &list).await.refusal(), (403, "forbidden"));
    assert_eq!(end(&server, &as_mallory, &one).await, (403, "forbidden".to_owned()));
    // Somebody's session under one's own name is not found.
    let own = format!("/v1/auth/sessions/{session}");
    assert_eq!(end(&server, &as_mallory, &own).await, (404, "not_found".to_owned()));
    let listed = server.get(&as_moderator, &list).await;
    assert_eq!(listed.body["sessions"][0]["current"], false);
    assert_eq!(server.get(&as_alice, &list).await.status, 200, "one's own by name");
    assert_eq!(end(&server, &as_moderator, &one).await.0, 204);
    assert_eq!(server.refresh(&refresh).await.refusal().0, 401);
}
