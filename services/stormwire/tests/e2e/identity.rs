//! Accounts from their users' side: in one process, and as a role of a cluster behind any gateway.

use crate::kit::{PATIENCE, PROGRAM, Role, data_dir, embedded, get, run, succeed, token};
use serde_json::{Value, json};
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::redis::Redis;
use stormwire_testkit::{Folder, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PASSWORD: &str = "correct horse battery";

/// One request; status, head and body.
async fn send(
    url: &str,
    method: &str,
    path: &str,
    token: &str,
    body: &Value,
) -> (u16, String, Value) {
    let host = url.strip_prefix("http://").unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn post(url: &str, path: &str, body: Value) -> (u16, Value) {
    let (status, _, body) = send(url, "POST", path, "", &body).await;
    (status, body)
}

fn text(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_else(|| panic!("{name} in {body}")).to_owned()
}

/// Registers and signs in, once the signing key is there; the sign-in.
async fn sign_in(url: &str, name: &str) -> Value {
    let account = json!({ "username": name, "password": PASSWORD });
    // The tables come by themselves, and then the key.
    wait_until("accounts are ready", PATIENCE, || async {
        let (status, _) = post(url, "/v1/auth/login", account.clone()).await;
        status == 401
    })
    .await;
    let (status, body) = post(url, "/v1/auth/register", account.clone()).await;
    assert_eq!(status, 201, "{body}");
    let (status, body) = post(url, "/v1/auth/login", account).await;
    assert_eq!(status, 200, "{body}");
    body
}

async fn publish(url: &str, token: &str, channel: &str) -> u16 {
    let path = format!("/v1/channels/{channel}/events");
    send(url, "POST", &path, token, &json!({ "type": "greeting", "data": { "n": 1 } })).await.0
}

/// Register, sign in, publish, go on, sign out, be refused.
pub(crate) async fn the_whole_way(url: &str, name: &str) {
    let signed_in = sign_in(url, name).await;
    let (user, access) = (text(&signed_in, "user"), text(&signed_in, "access_token"));
    assert_eq!(publish(url, &access, "room:lobby").await, 200);
    let page = get(url, &access, "/v1/channels/room:lobby/events?limit=10").await;
    assert!(page.contains(&format!("\"from\":\"{user}\"")), "{page}");
    assert_eq!(publish(url, "no.such.token", "room:lobby").await, 401);
    let refresh = |token: String| post(url, "/v1/auth/refresh", json!({ "refresh_token": token }));
    let (status, fresh) = refresh(text(&signed_in, "refresh_token")).await;
    assert_eq!(status, 200, "{fresh}");
    assert_eq!(publish(url, &text(&fresh, "access_token"), "room:lobby").await, 200);
    let token = text(&fresh, "refresh_token");
    let (status, _) = post(url, "/v1/auth/logout", json!({ "refresh_token": token })).await;
    assert_eq!(status, 204);
    let (status, refused) = refresh(token).await;
    assert_eq!((status, text(&refused, "code").as_str()), (401, "unauthenticated"));
}

#[tokio::test]
async fn one_process_keeps_accounts_and_goes_on_with_them_after_a_kill() {
    let folder = Folder::temporary("embedded-identity").unwrap();
    let server = embedded(&folder).await;
    let (url, data) = (server.url(), data_dir(&folder));
    the_whole_way(&url, "alice").await;
    let document = get(&url, "", "/v1/openapi.json").await;
    assert!(document.contains("/v1/auth/login") && document.contains("/v1/channels/{channel}"));
    // The development key's tokens go on working beside those of accounts.
    assert_eq!(publish(&url, &token(&data).await, "room:lobby").await, 200);
    let granted = succeed(&["identity", "grant", "alice", "admin", "--data-dir", &data]).await;
    assert!(granted.contains("alice is admin"), "{granted}");
    let rotated = succeed(&["identity", "rotate-key", "--data-dir", &data]).await;
    assert!(rotated.contains(" signs from 20"), "{rotated}");
    assert_eq!(succeed(&["identity", "reseal", "--data-dir", &data]).await, "0 sealed anew\n");
    let nobody = run(&["identity", "grant", "nobody", "admin", "--data-dir", &data]).await;
    assert_eq!(nobody.status.code(), Some(1));
    server.server.kill().await;
    server.again().await;
    let login = json!({ "username": "alice", "password": PASSWORD });
    wait_until("alice can sign in", PATIENCE, || async {
        post(&url, "/v1/auth/login", login.clone()).await.0 == 200
    })
    .await;
    let (_, signed_in) = post(&url, "/v1/auth/login", login).await;
    let access = text(&signed_in, "access_token");
    let path = format!("/v1/auth/users/{}/role", text(&signed_in, "user"));
    let (status, ..) = send(&url, "PUT", &path, &access, &json!({ "role": "user" })).await;
    assert_eq!(status, 204, "an admin after the grant");
    let keys = get(&url, "", "/.well-known/jwks.json").await;
    assert_eq!(keys.matches("\"kid\"").count(), 3, "two of its own, and the development key");
}

/// The first block of commands in that chapter of the document.
fn commands(chapter: &str) -> String {
    let path = stormwire_testkit::workspace_root().join("docs/identity.md");
    let text = std::fs::read_to_string(path).unwrap();
    let chapter = text.split(&format!("## {chapter}\n")).nth(1).unwrap();
    let block = chapter.split("```sh\n").nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

#[tokio::test]
async fn the_documents_commands_do_what_it_says() {
    let folder = Folder::temporary("documented-identity").unwrap();
    let server = embedded(&folder).await;
    let url = server.url();
    wait_until("accounts are ready", PATIENCE, || async {
        let nobody = json!({ "username": "nobody", "password": PASSWORD });
        post(&url, "/v1/auth/login", nobody).await.0 == 401
    })
    .await;
    let programs = std::path::Path::new(PROGRAM).parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let script = format!("set -eu\n{}", commands("The whole way, by curl"));
    let ran = tokio::process::Command::new("bash")
        .args(["-c", &script])
        .env("PATH", path)
        .env("URL", &url)
        .kill_on_drop(true)
        .output();
    let ran = tokio::time::timeout(PATIENCE, ran).await.expect("the commands end").unwrap();
    let (out, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}: {out}\n{error}", ran.status);
    let said = ["\"username\":\"alice\"", "\"epoch\":1,\"first\":", "\"current\":true"];
    for said in said.into_iter().chain(["the socket was closed", "\"code\":\"unauthenticated\""]) {
        assert!(out.contains(said), "{said} in {out}\n{error}");
    }
    assert!(error.contains("4401") || error.contains("token"), "why the socket ended: {error}");
}

#[tokio::test]
async fn any_gateway_passes_on_and_verifies_and_signed_in_users_outlive_the_identity_service() {
    let (Some(nats), Some(postgres), Some(redis)) =
        (NatsServer::start().await, Postgres::start().await, Redis::start().await)
    else {
        return;
    };
    let folder = Folder::temporary("cluster-identity").unwrap();
    let mut environment = vec![
        ("NATS_URL", nats.url()),
        ("DATABASE_URL", postgres.url()),
        ("REDIS_URL", redis.url()),
        ("STORMWIRE_DATA_DIR", data_dir(&folder)),
        ("STORMWIRE_LISTEN", "127.0.0.1:{port}".to_owned()),
    ];
    let identity = Role::start("identity", folder.path(), &["identity"], &environment).await;
    environment.push(("STORMWIRE_IDENTITY_URL", identity.url()));
    let mut gateways = Vec::new();
    for name in ["gateway-1", "gateway-2"] {
        gateways.push(Role::start(name, folder.path(), &["gateway"], &environment).await);
    }
    let urls: Vec<_> = gateways.iter().map(Role::url).collect();
    the_whole_way(&urls[0], "alice").await;
    let account = json!({ "username": "alice", "password": PASSWORD });
    let (status, signed_in) = post(&urls[1], "/v1/auth/login", account.clone()).await;
    assert_eq!(status, 200, "what one gateway passed on is there behind the other");
    let access = text(&signed_in, "access_token");
    let (_, _, listed) = send(&urls[0], "GET", "/v1/auth/sessions", &access, &Value::Null).await;
    assert_eq!(listed["sessions"][0]["ip"], "127.0.0.1", "{listed}");
    for url in &urls {
        assert_eq!(publish(url, &access, "room:lobby").await, 200);
        assert_eq!(publish(url, &token(&data_dir(&folder)).await, "room:lobby").await, 200);
        let keys = get(url, "", "/.well-known/jwks.json").await;
        assert_eq!(keys, get(&identity.url(), "", "/.well-known/jwks.json").await);
    }
    identity.server.kill().await;
    let (status, head, refused) = send(&urls[0], "POST", "/v1/auth/login", "", &account).await;
    assert_eq!((status, text(&refused, "code").as_str()), (503, "overloaded"));
    assert!(head.contains("retry-after: "), "{head}");
    for url in &urls {
        assert_eq!(publish(url, &access, "room:lobby").await, 200, "whoever is signed in stays so");
    }
    identity.again().await;
    wait_until("sign-ins are passed on again", PATIENCE, || async {
        post(&urls[1], "/v1/auth/login", account.clone()).await.0 == 200
    })
    .await;
}

#[tokio::test]
async fn operators_declare_and_shut_out_from_the_command_line() {
    let folder = Folder::temporary("embedded-admin").unwrap();
    let server = embedded(&folder).await;
    let (url, data) = (server.url(), data_dir(&folder));
    let admin = async |arguments: &[&str]| {
        let connect = ["--url", &url, "--data-dir", &data];
        let all: Vec<&str> = ["admin"].into_iter().chain(arguments.iter().copied()).collect();
        run(&[&all[..], &connect[..]].concat()).await
    };
    let alice = sign_in(&url, "alice").await;
    let (user, access) = (text(&alice, "user"), text(&alice, "access_token"));
    assert_eq!(publish(&url, &access, "room:lobby").await, 200);
    let declared = admin(&["declare", "room", r#"{"rules":{"publish":"operators"}}"#]).await;
    assert!(declared.status.success(), "{declared:?}");
    assert_eq!(publish(&url, &access, "room:lobby").await, 403);
    assert_eq!(publish(&url, &access, "other:lobby").await, 200);
    let blocked = admin(&["block", &user]).await;
    assert!(blocked.status.success(), "{blocked:?}");
    wait_until("alice is out", PATIENCE, || async {
        publish(&url, &access, "other:lobby").await == 401
    })
    .await;
    let audit = admin(&["audit"]).await;
    let lines: Value = serde_json::from_slice(&audit.stdout).unwrap();
    assert_eq!(lines["lines"][0]["what"], "namespace_declared", "{lines}");
    let refused = run(&["admin", "cluster", "--url", &url, "--token", &access]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("401"), "{refused:?}");
    // What was declared outlives the process.
    server.server.kill().await;
    server.again().await;
    let token = token(&data).await;
    wait_until("the declaration holds again", PATIENCE, || async {
        publish(&url, &token, "room:lobby").await == 403
    })
    .await;
}
