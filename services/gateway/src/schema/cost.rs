//! How much a schema can cost.
//!
//! Each part of a schema is held against a part of the data at most once for each way that leads to it. So
//! the ways are counted, references followed, and a schema with too many is refused; a reference that leads
//! back to itself has ways without end.

use serde_json::Value;
use std::collections::HashMap;

/// Most parts of a schema with every reference replaced by what it refers to.
const PARTS_MAX: u64 = 5_000;
/// Deepest nesting, references followed.
const DEPTH_MAX: usize = 100;
/// Keywords whose values are data, in which nothing is a reference.
const DATA: [&str; 5] = ["const", "enum", "default", "example", "examples"];
/// Keywords whose values are parts by names of the operator's own, which are no keywords.
const NAMED: [&str; 6] =
    ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];
/// Keywords by which a part could be reached otherwise than by `#/…`.
const OTHER_WAYS: [&str; 6] = [
    "$dynamicRef",
    "$recursiveRef",
    "$dynamicAnchor",
    "$recursiveAnchor",
    "$anchor",
    "$vocabulary",
];

/// Whether it is bounded.
///
/// # Errors
/// What is not, for the operator.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    let parts = Counter { root: schema, known: HashMap::new() }.parts(schema, 0)?;
    if parts > PARTS_MAX {
        return Err(format!(
            "it has {parts} parts when each $ref is replaced by what it refers to; at most {PARTS_MAX} are allowed"
        ));
    }
    Ok(())
}

struct Counter<'a> {
    root: &'a Value,
    /// Parts of what a reference refers to; `None` while they are counted.
    known: HashMap<&'a str, Option<u64>>,
}

impl<'a> Counter<'a> {
    fn parts(&mut self, value: &'a Value, depth: usize) -> Result<u64, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX}"));
        }
        let mut parts = 1_u64;
        match value {
            Value::Array(items) => {
                for item in items {
                    parts = parts.saturating_add(self.parts(item, depth + 1)?);
                }
            }
            Value::Object(entries) => {
                for (name, value) in entries {
                    let more = match (name.as_str(), value) {
                        (name, _) if DATA.contains(&name) => 1,
                        ("$ref", Value::String(target)) => self.target(target, depth + 1)?,
                        // An id of a part begins a scope of its own, in which #/… means something else.
                        ("$id" | "id", Value::String(_)) if depth > 0 => {
                            return Err(format!("{name} is allowed at its root alone"));
                        }
                        (name, Value::String(_) | Value::Bool(_)) if OTHER_WAYS.contains(&name) => {
                            return Err(format!("{name} is not supported; refer by #/… instead"));
                        }
                        (name, Value::Object(named)) if NAMED.contains(&name) => {
                            named.values().try_fold(1_u64, |parts, part| {
                                Ok::<_, String>(parts.saturating_add(self.parts(part, depth + 2)?))
                            })?
                        }
                        (_, value) => self.parts(value, depth + 1)?,
                    };
                    parts = parts.saturating_add(more);
                }
            }
            _ => {}
        }
        Ok(parts)
    }

    fn target(&mut self, target: &'a str, depth: usize) -> Result<u64, String> {
        match self.known.get(target) {
            Some(Some(parts)) => return Ok(*parts),
            Some(None) => return Err(format!("$ref {target:?} leads back to itself")),
            None => {}
        }
        let pointer =
            target.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let found = pointer.and_then(|pointer| self.root.pointer(pointer)).ok_or_else(|| {
            format!("$ref {target:?} refers to nothing in it; only #/… is followed")
        })?;
        self.known.insert(target, None);
        let parts = self.parts(found, depth)?;
        self.known.insert(target, Some(parts));
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_leads_back_to_itself_is_refused() {
        let direct = json!({"$ref": "#"});
        let by_two =
            json!({"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}});
        // What a property is called does not hide it.
        let by_name = json!({"properties": {"default": {"properties": {"enum": {"$ref": "#"}}}}});
        for schema in [direct, by_two, by_name] {
            assert!(check(&schema).unwrap_err().contains("leads back to itself"), "{schema}");
        }
    }

    #[test]
    fn ways_are_counted_not_bytes() {
        // Each level refers to the one below twice: a thousand bytes, a million ways.
        let mut levels = serde_json::Map::new();
        levels.insert("0".to_owned(), json!({"type": "string"}));
        for level in 1..20 {
            let below = json!({"$ref": format!("#/$defs/{}", level - 1)});
            levels.insert(level.to_string(), json!({"anyOf": [below, below]}));
        }
        let refused = check(&json!({"$defs": levels})).unwrap_err();
        assert!(refused.contains("parts"), "{refused}");
        let plain = json!({"$defs": {"a": {"type": "string"}}, "items": {"$ref": "#/$defs/a"}});
        check(&plain).unwrap();
    }

    #[test]
    fn only_places_within_are_referred_to() {
        for target in ["other.json", "https://example.com/x", "#name", "#/$defs/none"] {
            assert!(check(&json!({"$ref": target})).unwrap_err().contains("refers to nothing"));
        }
        for other in [json!({"$dynamicRef": "#x"}), json!({"items": {"$id": "x"}})] {
            check(&other).unwrap_err();
        }
        // What is data or a property of that name is no reference.
        check(&json!({"const": {"$ref": "x"}})).unwrap();
        check(&json!({"$id": "x", "properties": {"$ref": {"type": "string"}, "id": true}}))
            .unwrap();
    }

    #[test]
    fn nesting_is_bounded() {
        let mut schema = json!(true);
        for _ in 0..=DEPTH_MAX {
            schema = json!({ "not": schema });
        }
        assert!(check(&schema).unwrap_err().contains("nested deeper"));
    }
}
