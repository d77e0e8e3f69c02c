//! The fields of the .proto file, and those of the structs, by name of the message.

use crate::repository;
use std::collections::{BTreeMap, HashMap};

/// A field: number, name, type, and what stands before it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) label: &'static str,
}

pub(crate) type Messages = BTreeMap<String, Vec<Field>>;

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

/// What the file says. The fields of a oneof are its message's, labelled so.
pub(crate) fn messages() -> Messages {
    let mut messages = Messages::new();
    let (mut current, mut oneof) = (None::<String>, false);
    for line in read("proto/stormwire.v1.proto").lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let words: Vec<&str> = line.trim_end_matches(';').split_whitespace().collect();
        match words[..] {
            ["message" | "enum", name, "{"] => {
                messages.insert(name.to_owned(), Vec::new());
                current = Some(name.to_owned());
            }
            ["message", name, "{}"] => drop(messages.insert(name.to_owned(), Vec::new())),
            ["oneof", _, "{"] => oneof = true,
            ["}"] if oneof => oneof = false,
            ["}"] => current = None,
            [.., "=", number] if current.is_some() => {
                let label = match words[0] {
                    "optional" => "optional",
                    "repeated" => "repeated",
                    _ if oneof => "oneof",
                    _ => "",
                };
                let name = words[words.len() - 3].to_owned();
                let kind = if words.len() > 3 { words[words.len() - 4] } else { "value" };
                let (number, kind) = (number.parse().unwrap(), kind.to_owned());
                let fields = messages.get_mut(current.as_ref().unwrap()).unwrap();
                fields.push(Field { number, name, kind, label });
            }
            _ => {}
        }
    }
    messages.values_mut().for_each(|fields| fields.sort());
    messages
}

/// What the structs say, by the attributes that prost reads.
pub(crate) fn structs() -> Messages {
    let text = read("crates/wire/src/protocol/proto/messages.rs");
    let mut items: HashMap<String, Vec<(String, String)>> = HashMap::new();
    let (mut kinds, mut current, mut attribute) = (HashMap::new(), String::new(), String::new());
    let mut derived = "";
    // A long attribute stands on several lines.
    let text = text.replace("#[prost(\n        ", "#[prost(").replace("\n    )]", ")]");
    let text = text.replace(",\n        tags", ", tags");
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[derive(") {
            derived =
                ["Message", "Oneof", "Enumeration"].into_iter().find(|d| line.contains(d)).unwrap();
        } else if let Some(inner) = line.strip_prefix("#[prost(") {
            attribute = inner.trim_end_matches(")]").to_owned();
        } else if let Some(rest) =
            line.strip_prefix("pub struct ").or(line.strip_prefix("pub enum "))
        {
            current = rest.split([' ', '{']).next().unwrap().to_owned();
            kinds.insert(current.clone(), derived);
            items.insert(current.clone(), Vec::new());
        } else if line.ends_with(',') && !line.starts_with('#') {
            let item = line.trim_end_matches(',').to_owned();
            items.get_mut(&current).unwrap().push((std::mem::take(&mut attribute), item));
        }
    }
    let mut messages = Messages::new();
    for (name, list) in items.iter().filter(|(name, _)| kinds[*name] != "Oneof") {
        let mut fields = Vec::new();
        for (attribute, item) in list {
            match attribute.strip_prefix("oneof = ") {
                Some(rest) => {
                    let oneof = rest.split('"').nth(1).unwrap();
                    let prefix = if oneof == "RequestId" { "id_" } else { "" };
                    fields.extend(items[oneof].iter().map(|(a, item)| {
                        let name = snake(item.split('(').next().unwrap());
                        field(a, &format!("{prefix}{name}"), item, "oneof")
                    }));
                }
                None if kinds[name] == "Enumeration" => {
                    let (variant, number) = item.split_once(" = ").unwrap();
                    let name = format!("{}_{}", name.to_uppercase(), variant.to_uppercase());
                    let (number, kind) = (number.parse().unwrap(), "value".to_owned());
                    fields.push(Field { number, name, kind, label: "" });
                }
                None => {
                    let (name, _) = item.trim_start_matches("pub ").split_once(": ").unwrap();
                    let name = if name == "kind" { "type" } else { name };
                    fields.push(field(attribute, name, item, ""));
                }
            }
        }
        fields.sort();
        messages.insert(name.clone(), fields);
    }
    messages
}

/// `KeysAfter` as `keys_after`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_uppercase() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

fn field(attribute: &str, name: &str, item: &str, label: &'static str) -> Field {
    let tag = attribute.split("tag = \"").nth(1).unwrap().trim_end_matches('"');
    let kind = attribute.split([',', ' ']).next().unwrap();
    let inner = item.rsplit(['<', '(', ' ']).next().unwrap().trim_end_matches(['>', ')']);
    let kind = match kind {
        "message" => inner.to_owned(),
        "enumeration" => attribute.split('"').nth(1).unwrap().to_owned(),
        other => other.to_owned(),
    };
    let optional = attribute.contains(", optional") && !attribute.starts_with("message");
    let label = match label {
        "" if attribute.contains("repeated") => "repeated",
        "" if optional => "optional",
        label => label,
    };
    Field { number: tag.parse().unwrap(), name: name.to_owned(), kind, label }
}
