//! `/v1/admin/…`: what operators declare holds, here and in the other gateways' way, and is written down.

use crate::kit::{Cluster, PATIENCE, ask, connect, ended, request, sign_in};
use http::Method;
use serde_json::{Value, json};
use stormwire_testkit::wait_until;

struct Operated {
    cluster: Cluster,
}

impl Operated {
    async fn start() -> Self {
        Self { cluster: Cluster::operated(1).await }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.call_as(&self.cluster.admin, method, path, body).await
    }

    async fn call_as(&self, token: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
        request(self.cluster.gateways[0].address, &method, path, token, &body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_rule_holds_at_once_and_only_over_what_was_seen() {
    let operated = Operated::start().await;
    let node = &operated.cluster.gateways[0];
    let alice = operated.cluster.user("alice").await;
    assert_eq!(node.publish(&alice.access).await, 200);
    let path = "/v1/admin/namespaces/room";
    let closed = json!({"description": "closed", "rules": {"publish": "operators"}});
    let (status, first) = operated.call(Method::PUT, path, closed.clone()).await;
    assert_eq!(status, 200, "{first}");
    assert_eq!(first["rules"]["subscribe"], "granted", "every field is shown: {first}");
    assert_eq!(node.publish(&alice.access).await, 403);
    assert_eq!(node.publish(&operated.cluster.admin).await, 200);
    let (_, all) = operated.call(Method::GET, "/v1/admin/namespaces", Value::Null).await;
    assert_eq!(all["namespaces"], json!([first]));
    // Somebody else has changed it meanwhile.
    let open = json!({"rules": {"publish": "everyone"}});
    let (_, second) = operated.call(Method::PUT, path, open.clone()).await;
    let over = |version: &Value| format!("{path}?version={version}");
    let (status, refused) = operated.call(Method::PUT, &over(&first["version"]), closed).await;
    assert_eq!((status, &refused["code"]), (409, &json!("conflict")));
    assert_eq!(operated.call(Method::PUT, &over(&json!(0)), open).await.0, 409, "it is there");
    assert_eq!(node.publish(&alice.access).await, 200);
    let path = over(&second["version"]);
    assert_eq!(operated.call(Method::DELETE, &path, Value::Null).await.0, 204);
    assert_eq!(operated.call(Method::DELETE, &path, Value::Null).await.0, 404);
    // Each change, and no refused one, is in the audit, with who and what.
    let (_, audit) = operated.call(Method::GET, "/v1/admin/audit?limit=10", Value::Null).await;
    let lines = audit["lines"].as_array().unwrap();
    let what: Vec<_> = lines.iter().map(|line| line["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["namespace_undeclared", "namespace_declared", "namespace_declared"]);
    assert!(lines.iter().all(|line| line["target"] == "room" && line["ip"] == "127.0.0.1"));
    assert!(lines[2]["detail"].as_str().unwrap().contains("\"publish\":\"operators\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_declaration_is_refused_and_nobody_else_may() {
    let operated = Operated::start().await;
    let alice = operated.cluster.user("alice").await;
    let table = [
        ("/v1/admin/namespaces/system", json!({}), 403),
        ("/v1/admin/namespaces/a%3Ab", json!({}), 400),
        ("/v1/admin/namespaces/a%20b", json!({}), 400),
        ("/v1/admin/namespaces/room", json!({"rules": {"publish": "all"}}), 400),
        ("/v1/admin/namespaces/room", json!({"rules": {"publsh": "nobody"}}), 400),
        ("/v1/admin/namespaces/room", json!({"descr": ""}), 400),
        ("/v1/admin/namespaces/room", json!({"description": "x".repeat(1001)}), 400),
        ("/v1/admin/namespaces/room?version=x", json!({}), 400),
    ];
    for (path, body, status) in table {
        let answer = operated.call(Method::PUT, path, body).await;
        assert_eq!(answer.0, status, "{path}: {answer:?}");
    }
    let reads = [
        "/v1/admin/namespaces",
        "/v1/admin/namespaces/room",
        "/v1/admin/connections",
        "/v1/admin/cluster",
        "/v1/admin/audit",
    ];
    for path in reads {
        let answer = operated.call_as(&alice.access, Method::GET, path, Value::Null).await;
        assert_eq!((answer.0, &answer.1["code"]), (403, &json!("forbidden")), "{path}");
        assert_eq!(operated.call_as("", Method::GET, path, Value::Null).await.0, 401, "{path}");
    }
    let put = "/v1/admin/namespaces/room";
    assert_eq!(operated.call_as(&alice.access, Method::PUT, put, json!({})).await.0, 403);
    let publish = "/v1/admin/channels/room:x/events";
    let data = json!({"data": 1});
    assert_eq!(operated.call_as(&alice.access, Method::POST, publish, data).await.0, 403);
    let (_, audit) = operated.call(Method::GET, "/v1/admin/audit", Value::Null).await;
    assert_eq!(audit["lines"], json!([]), "nothing has happened");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_listed_and_closed_and_the_server_speaks() {
    let operated = Operated::start().await;
    let node = &operated.cluster.gateways[0];
    let (alice, bob) = (operated.cluster.user("alice").await, operated.cluster.user("bob").await);
    let doomed = connect(node.address, &alice.access).await;
    let mut listener = connect(node.address, &bob.access).await;
    let path = format!("/v1/admin/connections?user={}", alice.user);
    let (status, page) = operated.call(Method::GET, &path, Value::Null).await;
    assert_eq!((status, &page["open"]), (200, &json!(2)), "{page}");
    let shown = &page["connections"][0];
    assert_eq!((&shown["user"], &shown["session"]), (&json!(alice.user), &json!(alice.session)));
    assert_eq!(page["connections"].as_array().unwrap().len(), 1);
    let path = format!("/v1/admin/connections/{}", shown["id"]);
    assert_eq!(operated.call(Method::DELETE, &path, Value::Null).await.0, 204);
    let (code, _) = tokio::time::timeout(PATIENCE, ended(doomed)).await.expect("it ends");
    assert_eq!(code, 4403);
    wait_until("it is gone", PATIENCE, || async {
        operated.call(Method::DELETE, &path, Value::Null).await.0 == 404
    })
    .await;
    // In the server's name, where nobody else may.
    let rules = json!({"rules": {"publish": "nobody"}});
    operated.call(Method::PUT, "/v1/admin/namespaces/room", rules).await;
    let path = "/v1/admin/channels/room:lobby/events";
    let (status, stored) = operated.call(Method::POST, path, json!({"data": "now"})).await;
    assert_eq!(status, 200, "{stored}");
    let history = json!({"op": "history", "id": 3, "channel": "room:lobby", "limit": 1});
    let mut reader = sign_in(node.address, &bob.access).await;
    let told = ask(&mut reader, history).await;
    assert_eq!(
        (&told["events"][0]["from"], &told["events"][0]["data"]),
        (&json!("system"), &json!("now"))
    );
    assert_eq!(ask(&mut listener, json!({"op": "ping", "id": 1})).await["op"], "pong");
    let (_, cluster) = operated.call(Method::GET, "/v1/admin/cluster", Value::Null).await;
    let owners = cluster["owners"].as_object().unwrap();
    assert_eq!(owners.values().map(|all| all.as_array().unwrap().len()).sum::<usize>(), 16);
    let (_, audit) = operated.call(Method::GET, "/v1/admin/audit?limit=1", Value::Null).await;
    assert_eq!(audit["lines"][0]["what"], "published");
    let next = format!("/v1/admin/audit?limit=10&before={}", audit["next"]);
    let (_, older) = operated.call(Method::GET, &next, Value::Null).await;
    assert_eq!(older["lines"][1]["what"], "connection_closed");
    let detail = older["lines"][1]["detail"].as_str().unwrap();
    assert!(detail.contains(&alice.user), "{detail}");
}
