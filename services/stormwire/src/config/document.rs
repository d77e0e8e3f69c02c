//! `docs/configuration.md`, made from the table of fields.

use super::fields::{FIELDS, Profile};
use std::fmt::Write as _;

const HEAD: &str = "\
# Configuration

<!-- Made by `stormwire config --markdown` from the table in services/stormwire/src/config/fields.rs; a
test compares. -->

Weakest to strongest: the defaults of the profile, the file (`--config FILE`, else `stormwire.toml` in the
working folder if it is there), the environment, flags. A field that does not exist or holds something else
than expected ends the process with exit code 64 before a port is bound, and the message names the field,
its value and what was expected. `stormwire config` prints the values that apply and where each was set.

In the file a dot is a section:

```toml
profile = \"production\"
listen = \"0.0.0.0:8080\"

[journal]
url = \"nats://nats-0:4222,nats://nats-1:4222,nats://nats-2:4222\"
replicas = 3

[gateway]
cors_origins = [\"https://app.example\"]
```

A section `[namespaces.NAME]` holds the rules of one namespace; it is set in the file alone, and what it
leaves out follows the field of the same name for all:

```toml
[retention]
age = \"30d\"

[namespaces.audit]
retention_age = \"\"

[namespaces.telemetry]
retention_age = \"12h\"
retention_bytes = \"20GiB\"
```

In the environment a field is `STORMWIRE_` and its name in capitals with `_` for the dot; a list is divided
by commas. A number of bytes is written `64KiB`, `256MiB`, `2GiB`; a time `250ms`, `15s`, `10m`, `1h`.

";

/// The whole document.
pub(crate) fn markdown() -> String {
    let mut out = HEAD.to_owned();
    let mut section = None;
    for field in FIELDS {
        let of = field.key.split_once('.').map(|(section, _)| section);
        if section != Some(of) {
            let title = match of {
                None => "The process".to_owned(),
                Some(name) if field.is_named() => format!("`[{name}.NAME]`"),
                Some(name) => format!("`[{name}]`"),
            };
            let _ = write!(
                out,
                "## {title}\n\n| field | variable | expected | default | meaning |\n| --- | --- | --- | --- | --- |\n"
            );
            section = Some(of);
        }
        let own = if field.is_named() { None } else { Some(field.variable()) };
        let variables: Vec<_> = own
            .into_iter()
            .chain(field.also.iter().map(|name| (*name).to_owned()))
            .map(|name| format!("`{name}`"))
            .collect();
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            field.key.replace('*', "NAME"),
            variables.join(", "),
            field.kind,
            defaults(field.defaults),
            field.doc
        );
        let last = FIELDS
            .iter()
            .rev()
            .find(|other| other.key.split_once('.').map(|(section, _)| section) == of);
        if last.is_some_and(|last| last.key == field.key) {
            out.push('\n');
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn defaults(per_profile: [&str; 3]) -> String {
    let show = |text: &str| if text.is_empty() { "empty".to_owned() } else { format!("`{text}`") };
    if per_profile.iter().all(|text| *text == per_profile[0]) {
        return show(per_profile[0]);
    }
    let named = Profile::ALL.iter().zip(per_profile);
    named
        .map(|(profile, text)| format!("{} {}", profile.name(), show(text)))
        .collect::<Vec<_>>()
        .join(", ")
}
