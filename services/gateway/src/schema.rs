//! What the data of a namespace's events must look like, as operators declare it in JSON Schema.
//!
//! A schema is compiled once, when it is declared or read, and shared by all connections. Data is
//! anybody's, so that what a schema can cost is bounded before it is taken: [`cost`].

use jsonschema::{PatternOptions, Validator};
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stormwire_core::{Channel, Refusal};
use stormwire_tokens::Distinct;
use stormwire_wire::frame::EncodedEvents;

mod cost;

/// Most bytes of a compiled regular expression.
const PATTERN_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of what a refusal says of data; the rest is left out.
const COMPLAINT_BYTES_MAX: usize = 500;

/// A compiled schema.
pub(crate) struct Schema {
    declared: Value,
    validator: Validator,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.declared).finish()
    }
}

impl Schema {
    /// Compiles what an operator declares. Formats are asserted; nothing is fetched.
    ///
    /// # Errors
    /// `invalid_field`, naming the place in the schema, if it is none, refers to something outside it or
    /// costs too much.
    pub(crate) fn compile(declared: &Value) -> Result<Self, Refusal> {
        cost::check(declared).map_err(|problem| Refusal::invalid_field("schema", problem))?;
        let validator = jsonschema::options()
            .offline()
            .should_validate_formats(true)
            // Without backtracking: its time is linear in the text, whatever the expression.
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX))
            .build(declared)
            .map_err(|error| {
                let problem = format!("{}{}", place("", error.instance_path()), told(&error));
                Refusal::invalid_field("schema", problem)
            })?;
        Ok(Self { declared: declared.clone(), validator })
    }

    /// What was declared.
    pub(crate) const fn declared(&self) -> &Value {
        &self.declared
    }

    /// Whether the data of all events is as declared.
    ///
    /// # Errors
    /// `invalid_field`, naming the event, the place in its data and the rule that it breaks; also for
    /// data that is bytes, and for objects in which a name stands twice, which another reader could read
    /// otherwise.
    pub(crate) fn check(&self, events: &EncodedEvents) -> Result<(), Refusal> {
        for (number, event) in events.iter().enumerate() {
            let field = || format!("events[{number}].data");
            if event.binary {
                let problem = "this namespace takes JSON, not bytes";
                return Err(Refusal::invalid_field(&field(), problem));
            }
            let data: Distinct = serde_json::from_slice(event.data)
                .map_err(|error| Refusal::invalid_field(&field(), error))?;
            if let Err(error) = self.validator.validate(&data.0) {
                let field = place(&field(), error.instance_path());
                return Err(Refusal::invalid_field(&field, told(&error)));
            }
        }
        Ok(())
    }
}

/// `name`, and the JSON Pointer of the place in it.
fn place(name: &str, path: &jsonschema::paths::Location) -> String {
    cut(format!("{name}{}", path.as_str()))
}

/// The rule that is broken, without the value that breaks it.
fn told(error: &jsonschema::ValidationError<'_>) -> String {
    cut(error.masked_with("it").to_string())
}

fn cut(mut text: String) -> String {
    if text.len() > COMPLAINT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(COMPLAINT_BYTES_MAX));
        text.push('…');
    }
    text
}

/// The schemas of all namespaces, as they are now. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schemas {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    by_namespace: RwLock<HashMap<String, Arc<Schema>>>,
    /// Moves with every change.
    version: AtomicU64,
}

impl Schemas {
    /// Declares exactly these.
    pub(crate) fn declare(&self, schemas: HashMap<String, Arc<Schema>>) {
        let mut known = self.shared.by_namespace.write();
        let same = known.len() == schemas.len()
            && schemas.iter().all(|(name, schema)| {
                known.get(name).is_some_and(|known| known.declared == schema.declared)
            });
        if !same {
            *known = schemas;
            self.shared.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Moves with every change: whoever remembers a schema asks whether it still holds.
    pub(crate) fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// That of the channel's namespace.
    pub(crate) fn of(&self, channel: &Channel) -> Option<Arc<Schema>> {
        self.named(channel.namespace())
    }

    /// That of a namespace.
    pub(crate) fn named(&self, namespace: &str) -> Option<Arc<Schema>> {
        self.shared.by_namespace.read().get(namespace).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use stormwire_core::ErrorCode;
    use stormwire_wire::frame::{EventParts, EventsBuilder};

    fn events(all: &[(&str, bool)]) -> EncodedEvents {
        let mut builder = EventsBuilder::default();
        for (data, binary) in all {
            let data = data.as_bytes();
            builder.push(&EventParts { data, binary: *binary, ..EventParts::default() }).unwrap();
        }
        builder.take()
    }

    fn order() -> Schema {
        Schema::compile(&json!({
            "type": "object", "required": ["id"], "additionalProperties": false,
            "properties": {
                "id": {"type": "integer"},
                "mail": {"format": "email"},
                "lines": {"items": {"$ref": "#/$defs/line"}},
            },
            "$defs": {"line": {"type": "object", "properties": {"sku": {"pattern": "^[A-Z]+$"}}}},
        }))
        .unwrap()
    }

    #[test]
    fn data_is_as_declared_or_the_place_and_the_rule_are_named() {
        let order = order();
        let good = r#"{"id":1,"mail":"a@b.example","lines":[{"sku":"AB"}]}"#;
        order.check(&events(&[(good, false), (r#"{"id":2}"#, false)])).unwrap();
        let table = [
            (r#"{"id":"1"}"#, "events[1].data/id: it is not of type \"integer\""),
            (r"{}", "events[1].data: \"id\" is a required property"),
            (r#"{"id":1,"lines":[{},{"sku":"ab"}]}"#, "events[1].data/lines/1/sku: "),
            (r#"{"id":1,"mail":"nobody"}"#, "events[1].data/mail: it is not a \"email\""),
            (r#"{"id":1,"x":2}"#, "events[1].data: Additional properties"),
            (r#"{"id":1,"id":2}"#, "events[1].data: a name stands twice"),
            ("null", "events[1].data: it is not of type \"object\""),
        ];
        for (bad, told) in table {
            let refusal = order.check(&events(&[(good, false), (bad, false)])).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InvalidField, "{bad}");
            assert!(refusal.message.starts_with(told), "{bad}: {refusal}");
        }
        let refusal = order.check(&events(&[(good, true)])).unwrap_err();
        assert!(refusal.message.contains("JSON, not bytes"), "{refusal}");
    }

    #[test]
    fn what_is_told_is_short_and_never_the_value() {
        let secret = "s".repeat(100_000);
        let data = json!({"id": secret}).to_string();
        let refusal = order().check(&events(&[(&data, false)])).unwrap_err();
        assert!(!refusal.message.contains("ss"), "{refusal}");
        let data = json!({"id": 1, &secret: 1}).to_string();
        let refusal = order().check(&events(&[(&data, false)])).unwrap_err();
        assert!(refusal.message.len() < 2 * COMPLAINT_BYTES_MAX, "{}", refusal.message.len());
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        let table = [
            (json!({"type": "objekt"}), "schema: /type"),
            (json!(1), "schema: "),
            (json!({"pattern": "("}), "schema: /pattern"),
            (json!({"pattern": "(a)\\1"}), "schema: /pattern"),
            (json!({"pattern": "(((a{100}){100}){100}){100}"}), "schema: /pattern"),
            (json!({"$ref": "https://example.com/schema.json"}), "schema: "),
            (json!({"$ref": "#/$defs/missing"}), "schema: "),
            (json!({"$schema": "https://example.com/mine"}), "schema: "),
        ];
        for (schema, told) in table {
            let refusal = Schema::compile(&schema).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InvalidField, "{schema}");
            assert!(refusal.message.starts_with(told), "{schema}: {refusal}");
        }
        for draft in ["draft-04/schema#", "draft-07/schema#"] {
            let schema = json!({"$schema": format!("http://json-schema.org/{draft}")});
            Schema::compile(&schema).unwrap();
        }
        Schema::compile(&json!(true)).unwrap();
    }

    #[test]
    fn an_expression_that_would_backtrack_takes_no_longer() {
        let schema = Schema::compile(&json!({"pattern": "^(a+)+$"})).unwrap();
        let data = json!(format!("{}b", "a".repeat(60_000))).to_string();
        schema.check(&events(&[(&data, false)])).unwrap_err();
    }

    #[test]
    fn the_version_moves_with_what_is_declared() {
        let (schemas, channel) = (Schemas::default(), Channel::parse("shop:1").unwrap());
        assert!(schemas.of(&channel).is_none());
        let declare = |schema: Value| {
            let schema = Arc::new(Schema::compile(&schema).unwrap());
            schemas.declare(HashMap::from([("shop".to_owned(), schema)]));
            schemas.version()
        };
        let first = declare(json!({"type": "object"}));
        assert_eq!(declare(json!({"type": "object"})), first, "nothing has changed");
        assert_ne!(declare(json!({"type": "array"})), first);
        assert_eq!(schemas.of(&channel).unwrap().declared(), &json!({"type": "array"}));
        assert!(schemas.of(&Channel::parse("shopx:1").unwrap()).is_none());
    }
}
