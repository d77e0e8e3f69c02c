//! Layers: defaults of the profile, the file, the environment, the flags. What is unknown or bad is
//! refused, all of it at once, each with its name, its value and what was expected.

use super::fields::{FIELDS, Field, Profile};
use super::kind::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Names in the environment that begin like a field's but belong to the command line and to tests.
const OTHER_VARIABLES: &[&str] =
    &["STORMWIRE_CONFIG", "STORMWIRE_URL", "STORMWIRE_URLS", "STORMWIRE_TOKEN", "STORMWIRE_SEED"];
/// Only a build that carries faults knows it: any other refuses to start with it.
const FAULT_VARIABLE: &str = "STORMWIRE_FAULT";
/// What tests read for themselves begins so.
const TEST_PREFIX: &str = "STORMWIRE_TEST_";

/// Where settings come from, weakest first.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// The file's path, for messages, and its text.
    pub(crate) file: Option<(String, String)>,
    /// The environment's variables.
    pub(crate) environment: Vec<(String, String)>,
    /// Fields set on the command line: key and text.
    pub(crate) flags: Vec<(&'static str, String)>,
}

/// Everything that is wrong with the configuration, one sentence each.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigError(pub(crate) Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// A value for every field, and where it was set.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The profile that gave the defaults.
    pub(crate) profile: Profile,
    values: BTreeMap<&'static str, (Value, String)>,
    named: BTreeMap<(&'static str, String), (Value, String)>,
}

/// A field's text, for which name where it has one, and where it was set.
struct Given {
    field: &'static Field,
    name: Option<String>,
    text: String,
    origin: String,
}

impl Settings {
    /// Reads all layers.
    pub(crate) fn read(sources: &Sources) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut given: Vec<Given> = Vec::new();
        if let Some((path, text)) = &sources.file {
            match text.parse::<toml::Table>() {
                Ok(table) => flatten(path, "", &table, &mut given, &mut problems),
                Err(error) => problems.push(format!("{path}: not TOML: {}", error.message())),
            }
        }
        from_environment(&sources.environment, &mut given, &mut problems);
        for (key, text) in &sources.flags {
            match field(key) {
                Some((field, name)) => {
                    let origin = format!("--{}", field.flag());
                    given.push(Given { field, name, text: text.clone(), origin });
                }
                None => problems.push(format!("there is no field {key}")),
            }
        }
        let profile = profile(&given);
        let (mut values, mut named) = (BTreeMap::new(), BTreeMap::new());
        for field in FIELDS.iter().filter(|field| !field.is_named()) {
            if let Some(value) = field.kind.parse(field.default_in(profile)) {
                values.insert(field.key, (value, "default".to_owned()));
            }
        }
        for Given { field, name, text, origin } in given {
            match (field.kind.parse(&text), name) {
                (Some(value), None) => {
                    values.insert(field.key, (value, origin));
                }
                (Some(value), Some(name)) => {
                    named.insert((field.key, name), (value, origin));
                }
                (None, name) => {
                    let shown = if field.secret { "(not shown)" } else { &text };
                    let key =
                        name.map_or(field.key.to_owned(), |name| field.key.replace('*', &name));
                    let kind = field.kind;
                    problems.push(format!("{origin}: {key} = {shown:?}: expected {kind}"));
                }
            }
        }
        if problems.is_empty() {
            Ok(Self { profile, values, named })
        } else {
            Err(ConfigError(problems))
        }
    }

    /// What was set for names: the field's key, the name, the value and where it was set.
    pub(crate) fn named(
        &self,
    ) -> impl Iterator<Item = (&'static str, &str, &Value, &str)> + use<'_> {
        self.named.iter().map(|((key, name), (value, origin))| (*key, &**name, value, &**origin))
    }

    /// The value of a field, and where it was set.
    pub(crate) fn get(&self, key: &'static str) -> Option<&(Value, String)> {
        self.values.get(key)
    }

    /// Where a field was set: `default`, a file, a variable, a flag.
    pub(crate) fn origin(&self, key: &'static str) -> &str {
        self.values.get(key).map_or("default", |(_, origin)| origin)
    }
}

/// The field of that key, and the name in it where the field is set for names.
fn field(key: &str) -> Option<(&'static Field, Option<String>)> {
    FIELDS.iter().find_map(|field| match field.name_in(key) {
        Some(name) => Some((field, Some(name.to_owned()))),
        None => (field.key == key && !field.is_named()).then_some((field, None)),
    })
}

/// Whether fields may stand below this key.
fn is_section(key: &str) -> bool {
    let below = format!("{key}.");
    FIELDS.iter().any(|field| match field.key.split_once('*') {
        Some((before, _)) => before.starts_with(&below) || below.starts_with(before),
        None => field.key.starts_with(&below),
    })
}

/// The profile decides the defaults, so it is looked up before all else; a bad one is told later.
fn profile(given: &[Given]) -> Profile {
    let last = given.iter().rev().find(|given| given.field.key == "profile");
    last.and_then(|given| Profile::parse(&given.text)).unwrap_or(Profile::Development)
}

fn flatten(
    path: &str,
    prefix: &str,
    table: &toml::Table,
    given: &mut Vec<Given>,
    problems: &mut Vec<String>,
) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let text = match value {
            toml::Value::Table(inner) if field(&key).is_none() => {
                if is_section(&key) {
                    flatten(path, &key, inner, given, problems);
                } else {
                    problems.push(unknown(path, &key));
                }
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(items) => {
                let texts: Option<Vec<_>> = items.iter().map(toml::Value::as_str).collect();
                texts.map_or_else(|| value.to_string(), |texts| texts.join(","))
            }
            other => other.to_string(),
        };
        match field(&key) {
            Some((field, name)) => {
                given.push(Given { field, name, text, origin: path.to_owned() });
            }
            None => problems.push(unknown(path, &key)),
        }
    }
}

fn from_environment(
    environment: &[(String, String)],
    given: &mut Vec<Given>,
    problems: &mut Vec<String>,
) {
    let present: BTreeMap<_, _> = environment.iter().map(|(name, text)| (&**name, text)).collect();
    let mut known = BTreeSet::new();
    for field in FIELDS.iter().filter(|field| !field.is_named()) {
        // The common name is the weaker one.
        for name in field.also.iter().map(|name| (*name).to_owned()).chain([field.variable()]) {
            if let Some(text) = present.get(&*name) {
                let text = field.adapt(&name, text);
                given.push(Given { field, name: None, text, origin: name.clone() });
            }
            known.insert(name);
        }
    }
    for (name, _) in environment {
        let ours = name.starts_with("STORMWIRE_") && !name.starts_with(TEST_PREFIX);
        let ours = ours && !(cfg!(feature = "faults") && name == FAULT_VARIABLE);
        if ours && !known.contains(name) && !OTHER_VARIABLES.contains(&&**name) {
            problems.push(unknown("the environment", name));
        }
    }
}

/// Names the nearest field, for a slip of the finger.
fn unknown(origin: &str, name: &str) -> String {
    let in_environment = name.starts_with("STORMWIRE_");
    let names = FIELDS
        .iter()
        .map(|field| if in_environment { field.variable() } else { field.key.to_owned() });
    let nearest = names
        .map(|known| (distance(name, &known), known))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"));
    format!("{origin}: unknown field {name}{nearest} (all fields: docs/configuration.md)")
}

/// Levenshtein's distance over bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let above = row[j + 1];
            let best = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
            row[j + 1] = best;
        }
    }
    row[b.len()]
}
