//! What a field may hold: one parser for the file, the environment and the flags.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a field's text must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Any text without control characters; empty where `optional`.
    Text { optional: bool },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A URL with one of these schemes; empty where `optional`.
    Url { schemes: &'static [&'static str], optional: bool },
    /// An IP address and a port; empty where `optional`.
    Address { optional: bool },
    /// A file or folder.
    Path,
    /// A whole number.
    Count { min: u64, max: u64 },
    /// A number of bytes: `64KiB`, `2GiB`; empty where `optional`.
    Size { min: u64, max: u64, optional: bool },
    /// A stretch of time: `250ms`, `15s`, `10m`, `1h`; empty where `optional`.
    Span { min: Duration, max: Duration, optional: bool },
    /// Texts: an array in the file, divided by commas elsewhere.
    List,
}

/// A parsed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Address(Option<SocketAddr>),
    Path(PathBuf),
    Count(u64),
    Span(Duration),
    List(Vec<String>),
    /// A bound that is none.
    Unbounded,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Address(address) => address.map_or(Ok(()), |address| address.fmt(f)),
            Self::Path(path) => path.display().fmt(f),
            Self::Count(count) => count.fmt(f),
            Self::Span(span) => f.write_str(&show_span(*span)),
            Self::List(items) => f.write_str(&items.join(",")),
            Self::Unbounded => Ok(()),
        }
    }
}

impl Kind {
    /// Reads `text`; `None` if it is not what [`Kind`]'s `Display` says.
    pub(crate) fn parse(&self, text: &str) -> Option<Value> {
        if text.chars().any(char::is_control) {
            return None;
        }
        match *self {
            Self::Text { optional } => {
                (optional || !text.is_empty()).then(|| Value::Text(text.to_owned()))
            }
            Self::Choice(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Self::Url { schemes, optional } => {
                let known = schemes.iter().any(|scheme| text.starts_with(scheme));
                (known || optional && text.is_empty()).then(|| Value::Text(text.to_owned()))
            }
            Self::Address { optional } if text.is_empty() => {
                optional.then_some(Value::Address(None))
            }
            Self::Address { .. } => {
                let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
                let address = local.as_deref().unwrap_or(text).parse().ok()?;
                Some(Value::Address(Some(address)))
            }
            Self::Path => (!text.is_empty()).then(|| Value::Path(PathBuf::from(text))),
            Self::Count { min, max } => {
                number(text).filter(|n| (min..=max).contains(n)).map(Value::Count)
            }
            Self::Size { optional: true, .. } | Self::Span { optional: true, .. }
                if text.is_empty() =>
            {
                Some(Value::Unbounded)
            }
            Self::Size { min, max, .. } => {
                size(text).filter(|n| (min..=max).contains(n)).map(Value::Count)
            }
            Self::Span { min, max, .. } => {
                span(text).filter(|span| (min..=max).contains(span)).map(Value::Span)
            }
            Self::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Value::List(items.map(str::to_owned).collect()))
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_empty = |optional: bool| if optional { ", or empty" } else { "" };
        match *self {
            Self::Text { optional: true } => f.write_str("a text, or empty"),
            Self::Text { optional: false } => f.write_str("a text"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Self::Url { schemes, optional } => {
                write!(f, "a URL beginning with {}{}", schemes.join(" or "), or_empty(optional))
            }
            Self::Address { optional } => {
                write!(f, "an address and a port, as in 127.0.0.1:8080{}", or_empty(optional))
            }
            Self::Path => f.write_str("a path"),
            Self::Count { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Size { min, max, optional } => write!(
                f,
                "a number of bytes from {} to {}, as in 64KiB or 2GiB{}",
                show_size(min),
                show_size(max),
                or_empty(optional)
            ),
            Self::Span { min, max, optional } => write!(
                f,
                "a time from {} to {}, as in 250ms, 15s or 10m{}",
                show_span(min),
                show_span(max),
                or_empty(optional)
            ),
            Self::List => f.write_str("a list of texts"),
        }
    }
}

/// Digits alone: no sign, no blanks.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn size(text: &str) -> Option<u64> {
    for (unit, factor) in SIZES {
        if let Some(count) = text.strip_suffix(unit) {
            return number(count.trim_end())?.checked_mul(factor);
        }
    }
    number(text)
}

fn show_size(bytes: u64) -> String {
    let exact = SIZES.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    exact.map_or_else(|| bytes.to_string(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

const SPANS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a stretch of time: a whole number and a unit.
pub(crate) fn span(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let (_, factor) = SPANS.iter().find(|(name, _)| *name == unit.trim_start())?;
    Some(Duration::from_millis(number(count)?.checked_mul(*factor)?))
}

/// The shortest exact writing of a stretch of whole milliseconds.
pub(crate) fn show_span(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let exact = SPANS.iter().rev().find(|(_, factor)| millis.is_multiple_of(*factor));
    exact.map_or_else(
        || format!("{millis}ms"),
        |(unit, factor)| format!("{}{unit}", millis / factor),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_a_number_and_a_unit() {
        for (text, millis) in
            [("250ms", 250), ("15s", 15_000), ("10 m", 600_000), ("1h", 3_600_000)]
        {
            assert_eq!(span(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "15", "-1s", "1.5s", "15 seconds", "99999999999999999999s"] {
            assert_eq!(span(bad), None, "{bad}");
        }
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("2 GiB"), Some(2 << 30));
        assert_eq!(size("12"), Some(12));
        assert_eq!(size("64kb"), None);
        assert_eq!((show_size(65_536), show_size(1_000)), ("64KiB".to_owned(), "1000B".to_owned()));
        assert_eq!(show_span(Duration::from_secs(120)), "2m");
        assert_eq!(show_span(Duration::from_millis(1500)), "1500ms");
    }

    #[test]
    fn what_is_out_of_range_or_of_another_shape_is_refused() {
        let count = Kind::Count { min: 1, max: 64 };
        assert_eq!(count.parse("64"), Some(Value::Count(64)));
        for bad in ["0", "65", "+1", " 1", "1.0", ""] {
            assert_eq!(count.parse(bad), None, "{bad:?}");
        }
        let url = Kind::Url { schemes: &["sqlite:", "nats://"], optional: false };
        assert!(url.parse("nats://a:4222").is_some());
        assert_eq!(url.parse("http://a"), None);
        assert_eq!(url.to_string(), "a URL beginning with sqlite: or nats://");
        let address = Kind::Address { optional: true };
        assert_eq!(address.parse(""), Some(Value::Address(None)));
        assert_eq!(address.parse("localhost:1"), address.parse("127.0.0.1:1"));
        assert_eq!(address.parse("8080"), None);
        assert_eq!(Kind::Text { optional: true }.parse("a\nb"), None);
        assert_eq!(
            Kind::List.parse("a, b,,"),
            Some(Value::List(vec!["a".to_owned(), "b".to_owned()]))
        );
    }
}
