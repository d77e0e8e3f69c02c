//! `docs/asyncapi.yaml`: AsyncAPI 3.0 of the WebSocket and of the subjects in NATS. The schemas of the
//! messages are the .proto file's, which a test holds to the types; the JSON has the same names.

use crate::proto_file::{Field, Messages, messages};
use crate::yaml;
use serde_json::{Map, Value, json};
use stormwire_core::{CloseCode, ErrorCode};
use stormwire_wire::protocol::Codec;

pub(crate) fn text() -> String {
    let head = "# Made by `UPDATE_DOCS=1 cargo test -p stormwire-wire`; do not edit.\n";
    format!("{head}{}", yaml::write(&document()))
}

fn document() -> Value {
    let messages = messages();
    let (client, server) =
        (operations(&messages, "Request"), operations(&messages, "ServerMessage"));
    let mut all = Map::new();
    let mut say = |direction: &str, list: &[(String, String)]| -> Vec<String> {
        list.iter()
            .map(|(op, kind)| {
                let name = format!("{direction}.{op}");
                let payload = payload(&messages, op, kind);
                all.insert(name.clone(), json!({"name": op, "payload": payload}));
                name
            })
            .collect()
    };
    let (said, answered) = (say("client", &client), say("server", &server));
    for (name, summary) in FRAMES {
        let payload = json!({"type": "string", "format": "binary"});
        let content = "application/octet-stream";
        all.insert(
            (*name).to_owned(),
            json!({"contentType": content, "summary": summary, "payload": payload}),
        );
    }
    let mut schemas = Map::new();
    for (name, fields) in &messages {
        let reached = name != "ClientMessage" && name != "ServerMessages";
        if reached && name != "Request" && name != "ServerMessage" {
            schemas.insert(name.clone(), schema(fields));
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Stormwire",
            "version": "1",
            "license": {"name": "Apache-2.0"},
            "description": description(),
        },
        "defaultContentType": "application/json",
        "channels": channels(&said, &answered),
        "operations": {
            "say": {"action": "receive", "channel": {"$ref": "#/channels/socket"}, "messages": references(&said)},
            "answer": {"action": "send", "channel": {"$ref": "#/channels/socket"}, "messages": references(&answered)},
        },
        "components": {"messages": all, "schemas": schemas},
    })
}

fn description() -> String {
    let protocols = Codec::ALL.map(|codec| format!("`{}`", codec.subprotocol())).join(" or ");
    let codes: Vec<_> = CloseCode::ALL.iter().map(|code| code.number().to_string()).collect();
    format!(
        "The client protocol over a WebSocket at /v1/ws with the subprotocol {protocols}. A message is one \
         operation or an array of them; in protobuf always a list (proto/stormwire.v1.proto). Unknown \
         fields are ignored. The server closes with one of {}; see docs/errors.md. The subjects in NATS \
         are internal: they carry packed frames and messages between gateways.",
        codes.join(", ")
    )
}

/// The operations of a oneof `op`: their names and messages.
fn operations(messages: &Messages, name: &str) -> Vec<(String, String)> {
    let ops = messages[name].iter().filter(|field| !field.name.starts_with("id_"));
    ops.map(|field| (field.name.clone(), field.kind.clone())).collect()
}

fn references(names: &[String]) -> Vec<Value> {
    let reference = |name| json!({"$ref": format!("#/channels/socket/messages/{name}")});
    names.iter().map(reference).collect()
}

/// Messages that NATS carries, and what they are.
const FRAMES: &[(&str, &str)] = &[
    (
        "frame",
        "One packed frame, version 1: events of one partition, a claim, or the end of an epoch.",
    ),
    ("ask", "A gateway asks the owner of a partition to append its publishes, or to hand it over."),
    ("beat", "A gateway lives; which partitions it owns."),
    ("signal", "A signal on its way to the subscribers of every gateway, or that members changed."),
];

/// Subjects in NATS: the name of the channel, its address, what is said there, and its parameters.
const SUBJECTS: &[(&str, &str, &str, &[&str])] = &[
    ("events", "storm.events.{partition}.{epoch}", "frame", &["partition", "epoch"]),
    ("live", "storm.live.{partition}.{epoch}", "frame", &["partition", "epoch"]),
    ("append", "storm.append.{gateway}.{partition}", "ask", &["gateway", "partition"]),
    ("beat", "storm.beat", "beat", &[]),
    ("signal", "storm.signal.{partition}", "signal", &["partition"]),
];

fn channels(said: &[String], answered: &[String]) -> Value {
    let reference =
        |name: &String| (name.clone(), json!({"$ref": format!("#/components/messages/{name}")}));
    let socket: Map<String, Value> = said.iter().chain(answered).map(reference).collect();
    let mut channels = Map::new();
    let bindings = json!({"ws": {"method": "GET"}});
    channels.insert(
        "socket".to_owned(),
        json!({"address": "/v1/ws", "messages": socket, "bindings": bindings}),
    );
    for (name, address, message, parameters) in SUBJECTS {
        let parameters: Map<String, Value> = parameters
            .iter()
            .map(|name| {
                ((*name).to_owned(), json!({"description": format!("the {name}'s name or number")}))
            })
            .collect();
        let messages = json!({*message: {"$ref": format!("#/components/messages/{message}")}});
        let mut channel = json!({"address": address, "messages": messages});
        if !parameters.is_empty() {
            channel["parameters"] = Value::Object(parameters);
        }
        channels.insert((*name).to_owned(), channel);
    }
    Value::Object(channels)
}

/// The JSON of an operation: `op`, `id`, and the members of its message.
fn payload(messages: &Messages, op: &str, kind: &str) -> Value {
    let mut object = schema(&messages[kind]);
    object["properties"]["op"] = json!({"const": op});
    object["properties"]["id"] =
        json!({"type": ["integer", "string"], "description": "comes back as it was"});
    if let Some(code) = object["properties"].get_mut("code") {
        code["enum"] = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    }
    object["required"] = json!(["op"]);
    object
}

/// A message in JSON. Where protobuf nests or flattens what JSON does not (`since`), the .proto's form is
/// mended to what is written.
fn schema(fields: &[Field]) -> Value {
    let mut properties = Map::new();
    for field in fields {
        match (field.name.as_str(), field.kind.as_str()) {
            ("binary", "bool") => {}
            ("data", "bytes") => {
                properties.insert(
                    "data".to_owned(),
                    json!({"description": "any JSON, kept byte for byte"}),
                );
                let text = json!({"type": "string", "contentEncoding": "base64", "description": "in place of data"});
                properties.insert("data_base64".to_owned(), text);
            }
            ("position", "Position") => {
                properties.insert("epoch".to_owned(), json!({"type": "integer"}));
                properties.insert("offset".to_owned(), json!({"type": "integer"}));
            }
            ("channels", _) => {
                properties.insert(
                    "channel".to_owned(),
                    json!({"type": "string", "description": "in place of channels"}),
                );
                properties.insert("channels".to_owned(), typed(field));
            }
            ("target", _) => {
                properties.insert("channel".to_owned(), json!({"type": "string"}));
                properties.insert("pattern".to_owned(), json!({"type": "string"}));
            }
            _ => {
                properties.insert(field.name.clone(), typed(field));
            }
        }
    }
    if !fields.is_empty() && fields.iter().all(|field| field.kind == "value") {
        let name = |field: &Field| field.name.split_once('_').map(|(_, name)| name.to_lowercase());
        return json!({"type": "string", "enum": fields.iter().filter_map(name).collect::<Vec<_>>()});
    }
    json!({"type": "object", "properties": properties})
}

fn typed(field: &Field) -> Value {
    let one = match field.kind.as_str() {
        "string" => json!({"type": "string"}),
        "bool" => json!({"type": "boolean"}),
        "int64" | "uint64" | "uint32" => json!({"type": "integer"}),
        message => json!({"$ref": format!("#/components/schemas/{message}")}),
    };
    if field.label == "repeated" { json!({"type": "array", "items": one}) } else { one }
}
