//! JSON values as YAML: maps and lists as blocks, every text quoted as in JSON.

use serde_json::Value;
use std::fmt::Write as _;

pub(crate) fn write(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    out
}

fn block(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let plain =
                    key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
                let key = if plain { key.clone() } else { Value::from(key.as_str()).to_string() };
                let _ = write!(out, "{indent}{key}:");
                nested(out, value, depth);
            }
        }
        Value::Array(list) => {
            for value in list {
                let _ = write!(out, "{indent}-");
                nested(out, value, depth);
            }
        }
        scalar => {
            let _ = writeln!(out, "{indent}{scalar}");
        }
    }
}

fn nested(out: &mut String, value: &Value, depth: usize) {
    let empty = match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    if empty {
        let _ = writeln!(out, " {value}");
    } else {
        out.push('\n');
        block(out, value, depth + 1);
    }
}
