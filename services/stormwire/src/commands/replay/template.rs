//! The channel of a line: a text in which `{field}` stands for a field of the line's object.

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use stormwire_core::Channel;

/// A template such as `flights:{origin}-{carrier}`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
    fields: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Index of the field.
    Field(usize),
}

impl Template {
    /// Reads a template; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "--channel {text:?}: {why}; a template is written as in flights:{{origin}}-{{carrier}}"
            )
        };
        let (mut parts, mut fields, mut rest) = (Vec::new(), Vec::<String>::new(), text);
        while let Some(open) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(open);
            let inner = after.strip_prefix('{').ok_or_else(|| wrong("a } without its {"))?;
            let (field, behind) =
                inner.split_once('}').ok_or_else(|| wrong("a { without its }"))?;
            if field.is_empty() || field.contains('{') {
                return Err(wrong("a field has a name"));
            }
            parts.push(Part::Text(before.to_owned()));
            let index = fields.iter().position(|known| known == field).unwrap_or_else(|| {
                fields.push(field.to_owned());
                fields.len() - 1
            });
            parts.push(Part::Field(index));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        let template = Self { parts, fields };
        // What stands outside the fields must be able to be a channel's name.
        let sample = template.fill(&vec!["x".to_owned(); template.fields.len()]);
        Channel::parse(&sample).map_err(|error| wrong(&error.to_string()))?;
        Ok(template)
    }

    /// The channel of one line, a JSON object.
    pub(super) fn channel(&self, line: &str) -> Result<Channel, String> {
        let mut reader = serde_json::Deserializer::from_str(line);
        let found = reader.deserialize_map(Pick(&self.fields)).map_err(|error| {
            format!("not a JSON object with texts or numbers where the channel needs them: {error}")
        })?;
        let mut values = Vec::with_capacity(found.len());
        for (field, value) in self.fields.iter().zip(found) {
            values
                .push(value.ok_or_else(|| format!("there is no field {field:?} for the channel"))?);
        }
        Channel::parse(&self.fill(&values)).map_err(|error| error.to_string())
    }

    fn fill(&self, values: &[String]) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Field(index) => values[*index].as_str(),
            })
            .collect()
    }
}

/// Takes some fields out of an object and skips the rest.
struct Pick<'a>(&'a [String]);

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Vec<Option<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![None; self.0.len()];
        while let Some(key) = map.next_key::<String>()? {
            match self.0.iter().position(|field| *field == key) {
                Some(at) => found[at] = map.next_value::<Scalar>()?.0,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// A text, a number or a flag as it stands in a name; `None` is null.
struct Scalar(Option<String>);

impl<'de> serde::Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde_json::Value;
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(Self(None)),
            Value::String(text) => Ok(Self(Some(text))),
            Value::Number(number) => Ok(Self(Some(number.to_string()))),
            Value::Bool(flag) => Ok(Self(Some(flag.to_string()))),
            Value::Array(_) | Value::Object(_) => {
                Err(serde::de::Error::custom("an array or object is no part of a name"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_line_make_the_channel() {
        let template = Template::parse("flights:{origin}-{carrier}.{origin}").unwrap();
        let line = r#"{"carrier":"AA","deep":{"origin":"no"},"origin":"JFK","n":[1,2]}"#;
        assert_eq!(template.channel(line).unwrap().as_str(), "flights:JFK-AA.JFK");
        let numbers = Template::parse("n:{n}{b}").unwrap();
        assert_eq!(numbers.channel(r#"{"n":7,"b":true}"#).unwrap().as_str(), "n:7true");
        assert_eq!(Template::parse("all:one").unwrap().channel("{}").unwrap().as_str(), "all:one");
    }

    #[test]
    fn what_does_not_fit_is_told_by_name() {
        for bad in [
            "flights:{origin",
            "flights:origin}",
            "flights:{}",
            "no-colon{x}",
            "a:{x} y",
            "a:{{x}}",
        ] {
            assert!(Template::parse(bad).unwrap_err().contains("--channel"), "{bad}");
        }
        let template = Template::parse("a:{x}").unwrap();
        for (line, due) in [
            (r#"{"y":1}"#, "no field \"x\""),
            (r#"{"x":null}"#, "no field \"x\""),
            (r#"{"x":[1]}"#, "array"),
            (r#"{"x":"two words"}"#, "not allowed"),
            ("[1]", "not a JSON object"),
            ("{broken", "not a JSON object"),
        ] {
            let error = template.channel(line).unwrap_err();
            assert!(error.contains(due), "{line}: {error}");
        }
    }
}
