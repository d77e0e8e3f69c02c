//! What a partition's stream must be like, and the comparison with what is found.

use crate::config::NatsConfig;
use crate::names;
use serde_json::{Map, Value, json};
use stormwire_core::{Epoch, FrameSeq, Partition};

/// Largest message a stream takes: frames are at most 256 KiB, the rest is room for what they become.
pub(crate) const MAX_MESSAGE_BYTES: usize = 512 * 1024;

/// Settings that must be absent, null, false or empty, for they would change what is stored or where.
const MUST_BE_UNSET: &[&str] = &[
    "no_ack",
    "mirror",
    "sources",
    "subject_transform",
    "persist_mode",
    "discard_new_per_subject",
    "subject_delete_marker_ttl",
];

/// The settings of a stream as JetStream writes them.
///
/// Limits retention with no limit but bytes, and new messages refused at that limit: the worker alone
/// removes frames. No deletes, so that the sequence has no holes; purges are how the worker trims. The
/// window for message ids is the least the server takes, for there are none.
pub(crate) fn wanted(config: &NatsConfig, partition: Partition, epoch: Epoch) -> Value {
    let subject = names::events(partition, epoch);
    json!({
        "name": names::stream(partition, epoch),
        "subjects": [subject],
        "retention": "limits",
        "discard": "new",
        "storage": "file",
        "num_replicas": config.replicas,
        "max_bytes": config.max_bytes,
        "max_msg_size": MAX_MESSAGE_BYTES,
        "max_age": 0,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_consumers": -1,
        "duplicate_window": 100_000_000,
        "compression": "none",
        "republish": { "src": subject, "dest": names::live(partition, epoch) },
        "allow_direct": true,
        "mirror_direct": false,
        "sealed": false,
        "deny_delete": true,
        "deny_purge": false,
        "allow_rollup_hdrs": false,
        "allow_msg_ttl": false,
        "metadata": { "program": "stormwire" },
    })
}

/// The same for an epoch whose first frame is not number 1. What a stream began with is no setting that
/// is compared: it cannot be changed, and readers take it as it is.
pub(crate) fn wanted_from(
    config: &NatsConfig,
    partition: Partition,
    epoch: Epoch,
    first: FrameSeq,
) -> Value {
    let mut wanted = wanted(config, partition, epoch);
    if first > 1 {
        wanted["first_seq"] = json!(first);
    }
    wanted
}

/// The settings of the stream of the appenders' tables: the last message of each subject is kept.
pub(crate) fn tables(config: &NatsConfig) -> Value {
    json!({
        "name": names::TABLES,
        "subjects": [names::TABLES_SUBJECTS],
        "retention": "limits",
        "discard": "new",
        "storage": "file",
        "num_replicas": config.replicas,
        "max_bytes": config.tables_max_bytes,
        "max_msg_size": MAX_MESSAGE_BYTES,
        "max_msgs_per_subject": 1,
        "duplicate_window": 100_000_000,
        "compression": "none",
        "allow_direct": false,
        "metadata": { "program": "stormwire" },
    })
}

/// Every setting of `found` that is not as `wanted`: its name, what was found, what was expected.
pub(crate) fn differences(wanted: &Value, found: &Value) -> Option<String> {
    let (Some(wanted), Some(found)) = (wanted.as_object(), found.as_object()) else {
        return Some(format!("the configuration is {found}"));
    };
    let mut differences = Vec::new();
    for (setting, expected) in wanted {
        match (setting.as_str(), expected) {
            // The server adds keys of its own.
            ("metadata", Value::Object(expected)) => {
                let found = found.get("metadata").and_then(Value::as_object);
                for (key, expected) in expected {
                    let value = found.and_then(|found| found.get(key));
                    compare(&format!("metadata.{key}"), expected, value, &mut differences);
                }
            }
            _ => compare(setting, expected, found.get(setting), &mut differences),
        }
    }
    for setting in MUST_BE_UNSET {
        if let Some(value) = found.get(*setting).filter(|value| !is_unset(value)) {
            differences.push(format!("{setting} is {value}, expected none"));
        }
    }
    if differences.is_empty() { None } else { Some(differences.join("; ")) }
}

fn compare(setting: &str, expected: &Value, found: Option<&Value>, differences: &mut Vec<String>) {
    let same = match found {
        Some(found) => found == expected,
        None => is_unset(expected),
    };
    if !same {
        let found = found.map_or_else(|| "unset".to_owned(), Value::to_string);
        differences.push(format!("{setting} is {found}, expected {expected}"));
    }
}

/// Whether the server may leave a setting of this value out.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields == &Map::new(),
        Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Value {
        wanted(&NatsConfig::default(), Partition(3), Epoch(1))
    }

    #[test]
    fn what_the_server_adds_or_leaves_out_is_no_difference() {
        let mut found = settings();
        found["metadata"]["_nats.ver"] = json!("2.15.1");
        found["consumer_limits"] = json!({});
        found["no_ack"] = json!(false);
        found.as_object_mut().unwrap().remove("sealed");
        assert_eq!(differences(&settings(), &found), None);
    }

    #[test]
    fn each_difference_names_the_setting_and_both_values() {
        let mut found = settings();
        found["max_bytes"] = json!(1000);
        found["republish"]["dest"] = json!("elsewhere");
        found["mirror"] = json!({"name": "OTHER"});
        found.as_object_mut().unwrap().remove("deny_delete");
        found["metadata"] = json!({});
        let text = differences(&settings(), &found).unwrap();
        for part in [
            "max_bytes is 1000, expected 1073741824",
            "\"dest\":\"elsewhere\"",
            "mirror is {\"name\":\"OTHER\"}, expected none",
            "deny_delete is unset, expected true",
            "metadata.program is unset, expected \"stormwire\"",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }
}
