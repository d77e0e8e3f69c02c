//! From the text of a JSON value to what a field is due to hold, or to a refusal that names the field,
//! what was found and the rule.

use super::scan::Scanner;
use crate::protocol::{INTEGER_MAX, REQUEST_ID_BYTES_MAX, RequestId, bounds::excerpt};
use std::borrow::Cow;
use std::fmt;
use stormwire_core::{Epoch, ErrorCode, Offset, Refusal};

type Read<T> = Result<T, Refusal>;

/// A struct of optional slices of the text, one for each name.
macro_rules! slots {
    ($(#[$meta:meta])* $name:ident { $($field:ident $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        struct $name<'a> { $($field: Option<&'a str>,)+ }
        impl<'a> $name<'a> {
            fn slot(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
                match key { $($text => Some(&mut self.$field),)+ _ => None }
            }
        }
    };
}
pub(crate) use slots;

/// `null` counts as absent.
pub(crate) fn given(raw: Option<&str>) -> Option<&str> {
    raw.filter(|raw| *raw != "null")
}

pub(crate) fn required<'a>(field: &str, raw: Option<&'a str>) -> Read<&'a str> {
    given(raw).ok_or_else(|| missing(field))
}

pub(crate) fn missing(field: &str) -> Refusal {
    Refusal::invalid_field(field, "this field is required")
}

pub(crate) fn twice(field: &str) -> Refusal {
    Refusal::new(ErrorCode::Malformed, format!("{field}: the field is given twice"))
}

pub(crate) fn wrong(field: &str, raw: &str, due: impl fmt::Display) -> Refusal {
    Refusal::invalid_field(field, format!("{due} is due, not {}", excerpt(raw)))
}

pub(crate) fn text<'a>(field: &str, raw: &'a str) -> Read<Cow<'a, str>> {
    let text = Scanner::new(raw).string().map_err(|_| wrong(field, raw, "a string"))?;
    text.text().ok_or_else(|| wrong(field, raw, "a string of whole characters"))
}

pub(crate) fn text_up_to<'a>(field: &str, raw: &'a str, max: usize) -> Read<Cow<'a, str>> {
    let text = text(field, raw)?;
    if text.is_empty() || text.len() > max {
        return Err(Refusal::invalid_field(
            field,
            format!("1 to {max} bytes are due, not {}", text.len()),
        ));
    }
    Ok(text)
}

pub(crate) fn whole(field: &str, raw: &str, min: u64, max: u64) -> Read<u64> {
    let digits = !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_digit());
    let number = if digits { raw.parse().ok() } else { None };
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| wrong(field, raw, format_args!("a whole number from {min} to {max}")))
}

pub(crate) fn optional_whole(
    field: &str,
    raw: Option<&str>,
    min: u64,
    max: u64,
) -> Read<Option<u64>> {
    given(raw).map(|raw| whole(field, raw, min, max)).transpose()
}

pub(crate) fn flag(field: &str, raw: Option<&str>) -> Read<bool> {
    match given(raw) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(raw) => Err(wrong(field, raw, "true or false")),
    }
}

pub(crate) fn epoch(field: &str, raw: &str) -> Read<Epoch> {
    let number = whole(field, raw, 1, u64::from(u32::MAX))?;
    Ok(Epoch(u32::try_from(number).unwrap_or(u32::MAX)))
}

pub(crate) fn offset(field: &str, raw: &str) -> Read<Offset> {
    whole(field, raw, 0, INTEGER_MAX).map(Offset)
}

pub(crate) fn signed(field: &str, raw: &str) -> Read<i64> {
    raw.parse().map_err(|_| wrong(field, raw, "a whole number of 64 bits"))
}

pub(crate) fn request_id(raw: Option<&str>) -> Read<Option<RequestId>> {
    let Some(raw) = given(raw) else { return Ok(None) };
    if raw.starts_with('"') {
        let text = text_up_to("id", raw, REQUEST_ID_BYTES_MAX)?;
        return Ok(Some(RequestId::Text(text.into())));
    }
    // `-0` would come back as `0`.
    let number = raw.parse().ok().filter(|_| raw != "-0");
    let due = "a whole number of 64 bits or a string of at most 64 bytes";
    number.map(|number| Some(RequestId::Number(number))).ok_or_else(|| wrong("id", raw, due))
}

/// Walks the members of the object `raw` into `slot`; members it does not know are skipped.
pub(crate) fn members<'a, S>(
    field: &str,
    raw: &'a str,
    slots: &mut S,
    slot: impl for<'s> Fn(&'s mut S, &str) -> Option<&'s mut Option<&'a str>>,
) -> Read<()> {
    let mut scanner = Scanner::new(raw);
    let fail = |error| Refusal::invalid_field(field, error);
    if !scanner.eat(b'{') {
        return Err(wrong(field, raw, "an object"));
    }
    if scanner.eat(b'}') {
        return Ok(());
    }
    loop {
        let key = scanner.key().map_err(fail)?.text().unwrap_or_default();
        let value = scanner.value().map_err(fail)?;
        if slot(slots, &key).is_some_and(|slot| slot.replace(value).is_some()) {
            return Err(twice(&format!("{field}.{key}")));
        }
        if !scanner.more(b'}').map_err(fail)? {
            return Ok(());
        }
    }
}

/// The elements of the array `raw`.
pub(crate) fn elements<'a>(
    field: &str,
    raw: &'a str,
    mut each: impl FnMut(&'a str) -> Read<()>,
) -> Read<()> {
    let mut scanner = Scanner::new(raw);
    let fail = |error| Refusal::invalid_field(field, error);
    if !scanner.eat(b'[') {
        return Err(wrong(field, raw, "an array"));
    }
    if scanner.eat(b']') {
        return Ok(());
    }
    loop {
        each(scanner.value().map_err(fail)?)?;
        if !scanner.more(b']').map_err(fail)? {
            return Ok(());
        }
    }
}
