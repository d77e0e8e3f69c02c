//! A real Keycloak: its tokens are accepted by discovery, and people sign in through its own pages.
//!
//! It takes a minute and a gigabyte, so it runs where `STORMWIRE_TEST_KEYCLOAK` names the server's folder:
//! `cargo xtask keycloak` installs one and sets it.

use crate::kit::{PATIENCE, Role, data_dir};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use stormwire_testkit::{Folder, Launch, Port, Server, http_ok, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SECRET: &str = "a client's secret";
const PASSWORD: &str = "correct horse battery";
const ADMIN: &str = "keycloak-admin";
const FORM: &str = "application/x-www-form-urlencoded";

/// A browser's memory of one host, and what it was answered.
#[derive(Default)]
struct Browser {
    cookies: BTreeMap<String, String>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    fn location(&self) -> &str {
        let location = self.header("location");
        location.unwrap_or_else(|| panic!("{} {}\n{}", self.status, self.head, self.body))
    }
}

impl Browser {
    async fn send(
        &mut self,
        method: &str,
        url: &str,
        kind: &str,
        bearer: &str,
        body: &str,
    ) -> Answer {
        let rest = url.strip_prefix("http://").unwrap();
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let cookies: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {bearer}\r\ncookie: {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            cookies.join("; "),
            body.len()
        );
        let request = if bearer.is_empty() {
            request.replace("authorization: Bearer \r\n", "")
        } else {
            request
        };
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text}"));
        for line in head.lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            if name.eq_ignore_ascii_case("set-cookie") {
                let pair = value.split(';').next().unwrap_or_default();
                let (name, value) = pair.split_once('=').unwrap();
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    async fn get(&mut self, url: &str) -> Answer {
        self.send("GET", url, "text/plain", "", "").await
    }

    async fn form(&mut self, url: &str, body: &str) -> Answer {
        self.send("POST", url, FORM, "", body).await
    }
}

async fn post(url: &str, bearer: &str, body: &Value) -> Answer {
    let body = body.to_string();
    Browser::default().send("POST", url, "application/json", bearer, &body).await
}

async fn publish(server: &Role, token: &str, channel: &str) -> u16 {
    let url = format!("{}/v1/channels/{channel}/events", server.url());
    post(&url, token, &json!({ "data": { "n": 1 } })).await.status
}

/// The server, empty, in memory; `None` where it was not asked for.
async fn keycloak(folder: &Folder) -> Option<(Server, String)> {
    let home = std::env::var("STORMWIRE_TEST_KEYCLOAK").ok()?;
    let port = Port::reserve().unwrap();
    let number = port.number().to_string();
    let script = Path::new(&home).join("bin/kc.sh").display().to_string();
    let arguments = [
        script.as_str(),
        "start-dev",
        "--db=dev-mem",
        "--http-host=127.0.0.1",
        "--http-port",
        &number,
        "--health-enabled=false",
    ];
    let launch = Launch::new("keycloak", "/bin/bash", folder.path())
        .arguments(arguments)
        .variable("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN)
        .variable("KC_BOOTSTRAP_ADMIN_PASSWORD", PASSWORD)
        .variable("JAVA_OPTS_KC_HEAP", "-Xms64m -Xmx512m");
    let server = Server::new(launch);
    let ready = port.number();
    let path = "/realms/master/.well-known/openid-configuration";
    // On a busy machine it takes longer than the kit waits for a server: then it is asked again.
    for _ in 0..4 {
        if server.start(move || http_ok(ready, path)).await.is_ok() {
            return Some((server, format!("http://127.0.0.1:{number}")));
        }
    }
    panic!("Keycloak did not start");
}

/// A realm with a client, a role and somebody who has it.
fn realm(callback: &str) -> Value {
    let audience = json!({
        "name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
        "config": { "included.custom.audience": "stormwire", "access.token.claim": "true", "id.token.claim": "false" },
    });
    json!({
        "realm": "acme", "enabled": true, "sslRequired": "none",
        "roles": { "realm": [{ "name": "editor" }] },
        "clients": [{
            "clientId": "events", "enabled": true, "secret": SECRET, "redirectUris": [callback],
            "standardFlowEnabled": true, "directAccessGrantsEnabled": true, "publicClient": false,
            "protocolMappers": [audience],
        }],
        "users": [{
            "username": "alice", "enabled": true, "email": "alice@example.com", "emailVerified": true,
            "firstName": "Alice", "lastName": "Example", "realmRoles": ["editor"],
            "credentials": [{ "type": "password", "value": PASSWORD, "temporary": false }],
        }],
    })
}

async fn make_realm(url: &str, realm: &Value) {
    let form = format!(
        "grant_type=password&client_id=admin-cli&username={ADMIN}&password={}",
        PASSWORD.replace(' ', "+")
    );
    let token = format!("{url}/realms/master/protocol/openid-connect/token");
    let answer = Browser::default().form(&token, &form).await;
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let made = post(&format!("{url}/admin/realms"), &token, realm).await;
    assert_eq!(made.status, 201, "{}", made.body);
}

async fn server(name: &str, folder: &Folder, settings: &str) -> Role {
    let file = folder.path().join(format!("{name}.toml"));
    std::fs::write(&file, settings).unwrap();
    let (file, data) = (file.display().to_string(), format!("{}-{name}", data_dir(folder)));
    let arguments = ["--config", &file, "--listen", "127.0.0.1:{port}", "--data-dir", &data];
    Role::start(name, folder.path(), &arguments, &[]).await
}

/// The form's address in a page of Keycloak's.
fn action(page: &str) -> String {
    let form = page.split("action=\"").nth(1).unwrap_or_else(|| panic!("no form in {page}"));
    form.split('"').next().unwrap().replace("&amp;", "&")
}

/// Begins here, signs in there, comes back; what the callback answers.
async fn sign_in(server: &Role) -> Answer {
    let (mut here, mut there) = (Browser::default(), Browser::default());
    let begun = here.get(&format!("{}/v1/auth/oidc/acme", server.url())).await;
    assert_eq!(begun.status, 303, "{}", begun.body);
    let page = there.get(begun.location()).await;
    assert_eq!(page.status, 200, "{}", page.body);
    let wrong = there.form(&action(&page.body), "username=alice&password=wrong").await;
    assert_eq!(wrong.status, 200, "the form once more");
    let form = format!("username=alice&password={}", PASSWORD.replace(' ', "+"));
    let back = there.form(&action(&wrong.body), &form).await;
    assert_eq!(back.status, 302, "{}", back.body);
    here.get(back.location()).await
}

#[tokio::test]
async fn its_tokens_are_accepted_by_discovery_and_people_sign_in_through_it() {
    let folder = Folder::temporary("keycloak").unwrap();
    let Some((_keycloak, url)) = keycloak(&folder).await else { return };
    let issuer = format!("{url}/realms/acme");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let accounts = server("accounts", &folder, &format!(
        "[providers.acme]\nissuer = \"{issuer}\"\nclient_id = \"events\"\nclient_secret_file = \"{}\"\ntrust_email = \"yes\"\nregistration = \"open\"\n[identity]\npublish = [\"room:*\"]\nsubscribe = [\"room:*\"]\n",
        secret.display()
    ))
    .await;
    make_realm(&url, &realm(&format!("{}/v1/auth/oidc/acme/callback", accounts.url()))).await;
    the_gateway_accepts_its_tokens(&folder, &issuer).await;
    // The first key is signed with once it has been published for everybody else.
    wait_until("accounts are ready", PATIENCE, || async {
        let url = format!("{}/v1/auth/login", accounts.url());
        let body = json!({ "username": "nobody", "password": PASSWORD });
        post(&url, "", &body).await.status == 401
    })
    .await;
    let first = sign_in(&accounts).await;
    assert_eq!(first.status, 200, "{}", first.body);
    let access = first.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(publish(&accounts, &access, "room:lobby").await, 200);
    assert_eq!(publish(&accounts, &access, "other:lobby").await, 403);
    let second = sign_in(&accounts).await;
    assert_eq!(second.json()["user"], first.json()["user"], "the same person, the same account");
}

async fn the_gateway_accepts_its_tokens(folder: &Folder, issuer: &str) {
    let gateway = server("gateway", folder, &format!(
        "[auth]\njwks = \"{issuer}/.well-known/openid-configuration\"\nissuer = \"{issuer}\"\nroles_claim = \"realm_access.roles\"\n[roles.editor]\npublish = [\"room:*\"]\nsubscribe = [\"room:*\"]\n"
    ))
    .await;
    let form = format!(
        "grant_type=password&client_id=events&client_secret={}&username=alice&password={}",
        SECRET.replace(' ', "+").replace('\'', "%27"),
        PASSWORD.replace(' ', "+")
    );
    let token = format!("{issuer}/protocol/openid-connect/token");
    let answer = Browser::default().form(&token, &form).await;
    let body = answer.json();
    let token = body["access_token"].as_str().unwrap_or_else(|| panic!("{}", answer.body));
    assert_eq!(publish(&gateway, token, "room:lobby").await, 200);
    assert_eq!(publish(&gateway, token, "other:lobby").await, 403, "its role grants rooms alone");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (first, rest) = signature.split_at(1);
    let changed = format!("{signed}.{}{rest}", if first == "A" { "B" } else { "A" });
    assert_eq!(publish(&gateway, &changed, "room:lobby").await, 401);
}
