//! A namespace's JSON Schema holds for whoever publishes, over WebSocket and REST and as the server.

use crate::kit::{Cluster, ask, request, sign_in};
use http::Method;
use serde_json::{Value, json};

const NAMESPACE: &str = "/v1/admin/namespaces/room";
const EVENTS: &str = "/v1/channels/room:lobby/events";

struct Declared {
    cluster: Cluster,
    alice: String,
}

impl Declared {
    async fn start() -> Self {
        let cluster = Cluster::operated(1).await;
        let alice = cluster.user("alice").await.access;
        Self { cluster, alice }
    }

    async fn call(&self, method: Method, path: &str, token: &str, body: Value) -> (u16, Value) {
        request(self.cluster.gateways[0].address, &method, path, token, &body).await
    }

    async fn declare(&self, schema: Value) -> (u16, Value) {
        let body = json!({ "schema": schema });
        self.call(Method::PUT, NAMESPACE, &self.cluster.admin, body).await
    }

    async fn stored(&self) -> Vec<Value> {
        let (status, page) = self.call(Method::GET, EVENTS, &self.alice, Value::Null).await;
        assert_eq!(status, 200, "{page}");
        let events = page["events"].as_array().unwrap().iter();
        events.map(|event| event["data"].clone()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_declared_is_refused_everywhere_and_not_stored() {
    let declared = Declared::start().await;
    let (cluster, alice) = (&declared.cluster, &declared.alice);
    let mut socket = sign_in(cluster.gateways[0].address, alice).await;
    let publish = |id: u64, data: Value| json!({"op": "publish", "id": id, "channel": "room:lobby", "events": data});
    let answer = ask(&mut socket, publish(1, json!([{"data": "before"}]))).await;
    assert_eq!(answer["op"], "published", "nothing is declared: {answer}");
    let schema =
        json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    let (status, shown) = declared.declare(schema.clone()).await;
    assert_eq!((status, &shown["schema"]), (200, &schema), "{shown}");
    // The connection that published before is held to it as well, and what else it sent goes in whole or
    // not at all.
    let half = json!([{"data": {"n": 1}}, {"data": {"n": "2"}}]);
    let answer = ask(&mut socket, publish(2, half.clone())).await;
    assert_eq!((&answer["code"], &answer["id"]), (&json!("invalid_field"), &json!(2)), "{answer}");
    assert_eq!(answer["temporary"], false);
    let message = answer["message"].as_str().unwrap();
    assert!(message.starts_with("events[1].data/n: it is not of type \"integer\""), "{message}");
    let answer = ask(&mut socket, publish(3, json!([{"data": {"n": 3}}]))).await;
    assert_eq!(answer["op"], "published", "{answer}");
    let as_server = "/v1/admin/channels/room:lobby/events";
    for (path, token) in [(EVENTS, alice), (as_server, &cluster.admin)] {
        for bad in [half.clone(), json!({"data": "x"}), json!({"data_base64": "AAAA"})] {
            let (status, refused) = declared.call(Method::POST, path, token, bad).await;
            assert_eq!((status, &refused["code"]), (400, &json!("invalid_field")), "{refused}");
        }
        let good = json!({"data": {"n": 4}});
        assert_eq!(declared.call(Method::POST, path, token, good).await.0, 200);
    }
    // Of a request for many channels, each by its own namespace.
    let many = json!([{"channel": "room:a", "data": {"n": 5}}, {"channel": "room:b", "data": 5}]);
    let (status, results) = declared.call(Method::POST, "/v1/events", alice, many).await;
    let statuses: Vec<_> =
        results["results"].as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
    assert_eq!((status, statuses), (207, vec![json!(200), json!(400)]), "{results}");
    let stored = declared.stored().await;
    assert_eq!(stored, [json!("before"), json!({"n": 3}), json!({"n": 4}), json!({"n": 4})]);
    // Another schema by the same rules.
    declared.declare(json!({"type": "string"})).await;
    let answer = ask(&mut socket, publish(4, json!([{"data": {"n": 6}}]))).await;
    assert_eq!(answer["code"], "invalid_field", "{answer}");
    // Taken back, everything goes again.
    let admin = &cluster.admin;
    assert_eq!(declared.call(Method::DELETE, NAMESPACE, admin, Value::Null).await.0, 204);
    let answer = ask(&mut socket, publish(5, json!([{"data": 7}]))).await;
    assert_eq!(answer["op"], "published", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_number_is_used_up_and_the_next_goes_on() {
    let declared = Declared::start().await;
    declared.declare(json!({"type": "integer"})).await;
    let address = declared.cluster.gateways[0].address;
    let producer = "00000000000000000000000000000001";
    let url = format!("ws://{address}/v1/ws");
    let (mut socket, _) = Box::pin(tokio_tungstenite::connect_async(url)).await.unwrap();
    let connect = json!({"op": "connect", "id": 0, "token": declared.alice, "producer": producer});
    assert_eq!(ask(&mut socket, connect).await["op"], "connected");
    for (seq, data, op) in
        [(1, json!(1), "published"), (2, json!("2"), "error"), (3, json!(3), "published")]
    {
        let events = json!([{ "data": data }]);
        let publish = json!({"op": "publish", "id": seq, "channel": "room:lobby", "seq": seq, "events": events});
        let answer = ask(&mut socket, publish).await;
        assert_eq!(answer["op"], op, "{answer}");
    }
    assert_eq!(declared.stored().await, [json!(1), json!(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_schema_is_not_declared() {
    let declared = Declared::start().await;
    for (bad, place) in [
        (json!({"type": "objekt"}), "schema: /type"),
        (json!({"$ref": "https://example.com/x"}), "schema: $ref"),
        (json!({"$ref": "#"}), "schema: $ref"),
        (json!({"items": {"pattern": "("}}), "schema: /items/pattern"),
    ] {
        let (status, refused) = declared.declare(bad.clone()).await;
        assert_eq!((status, &refused["code"]), (400, &json!("invalid_field")), "{bad}: {refused}");
        let message = refused["message"].as_str().unwrap();
        assert!(message.starts_with(place), "{message}");
    }
    let admin = &declared.cluster.admin;
    assert_eq!(declared.call(Method::GET, NAMESPACE, admin, Value::Null).await.0, 404);
}
