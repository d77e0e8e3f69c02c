//! `stormwire config`.

use crate::config::{self, FIELDS, Settings, Sources};
use crate::failure::Failure;
use crate::output;

/// Prints the document, or every field with its value and origin.
pub(crate) fn run(markdown: bool, sources: &Sources) -> Result<(), Failure> {
    if markdown {
        return output::line(config::markdown().trim_end());
    }
    let settings = Settings::read(sources).map_err(Failure::usage)?;
    for field in FIELDS.iter().filter(|field| !field.is_named()) {
        let value = settings.get(field.key).map(|(value, _)| value.to_string()).unwrap_or_default();
        let shown = if field.secret { stormwire_engine::redact(&value) } else { value };
        output::line(format!("{} = {shown:?}  # {}", field.key, settings.origin(field.key)))?;
    }
    for (key, name, value, origin) in settings.named() {
        output::line(format!("{} = {:?}  # {origin}", key.replace('*', name), value.to_string()))?;
    }
    Ok(())
}
