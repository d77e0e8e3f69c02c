//! Channel names, patterns over them, and the partition a channel lives in.

use std::fmt;
use std::sync::Arc;

/// Longest namespace, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 64;
/// Longest name after the colon, in bytes.
pub const NAME_BYTES_MAX: usize = 190;

/// Why a channel or pattern was refused. Its text names the rule and is shown to clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no `:` between namespace and name.
    #[error("a channel is written namespace:name, but {0:?} has no colon")]
    NoColon(String),
    /// The namespace or the name is empty or too long.
    #[error("the {part} of a channel has 1 to {max} bytes, this one has {len}")]
    Length {
        /// `namespace` or `name`.
        part: &'static str,
        /// Bytes allowed.
        max: usize,
        /// Bytes found.
        len: usize,
    },
    /// A byte outside `[A-Za-z0-9_.~-]`.
    #[error(
        "a channel is made of A-Z a-z 0-9 _ . ~ - and one colon; {found:?} at byte {at} is not allowed{hint}"
    )]
    Character {
        /// The character found.
        found: char,
        /// Its byte position in the whole text.
        at: usize,
        /// What to do instead, or nothing.
        hint: &'static str,
    },
}

/// The name of one ordered log of events, `namespace:name`. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

impl Channel {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// [`NameError`] naming the first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (namespace, name) = split(text)?;
        check(text, namespace, 0, "")?;
        check(text, name, namespace.len() + 1, "; a wildcard is for subscribing to a pattern")?;
        Ok(Self(Arc::from(text)))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the colon; it carries the rules.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// The part after the colon.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, name)| name)
    }

    /// The partition that holds this channel in a cluster of `count` partitions.
    #[must_use]
    pub fn partition(&self, count: PartitionCount) -> Partition {
        count.of(self.0.as_bytes())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A set of channels: one channel, or everything below a prefix. `*` stands only as the last segment;
/// segments are divided by `:` and `.`. `*` alone is every channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Exactly this channel.
    Exact(Channel),
    /// Every channel that begins with this text (it ends in `:` or `.`, or is empty).
    Prefix(Arc<str>),
}

impl Pattern {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// [`NameError`] naming the first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let Some(prefix) = text.strip_suffix('*') else {
            return Channel::parse(text).map(Self::Exact);
        };
        if prefix.is_empty() {
            return Ok(Self::Prefix(Arc::from("")));
        }
        let (namespace, name) = split(prefix)?;
        check(prefix, namespace, 0, "; * stands only as the last segment")?;
        if !name.is_empty() {
            check(prefix, name, namespace.len() + 1, "; * stands only as the last segment")?;
            if !name.ends_with('.') {
                return Err(NameError::Character {
                    found: '*',
                    at: prefix.len(),
                    hint: "; * stands only as a whole last segment, as in orders:* or orders:eu.*",
                });
            }
        }
        Ok(Self::Prefix(Arc::from(prefix)))
    }

    /// Whether `channel` is in this set.
    #[must_use]
    pub fn matches(&self, channel: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.as_str() == channel,
            Self::Prefix(prefix) => channel.starts_with(&**prefix),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(channel) => channel.fmt(f),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

fn split(text: &str) -> Result<(&str, &str), NameError> {
    text.split_once(':').ok_or_else(|| NameError::NoColon(text.chars().take(80).collect()))
}

fn check(whole: &str, part: &str, start: usize, hint: &'static str) -> Result<(), NameError> {
    let (label, max) =
        if start == 0 { ("namespace", NAMESPACE_BYTES_MAX) } else { ("name", NAME_BYTES_MAX) };
    if part.is_empty() || part.len() > max {
        return Err(NameError::Length { part: label, max, len: part.len() });
    }
    let bad = part.bytes().position(|b| !is_name_byte(b));
    match bad.map(|at| start + at) {
        None => Ok(()),
        Some(at) => {
            let found = whole[at..].chars().next().unwrap_or('\u{fffd}');
            let hint = if found == '*' { hint } else { "" };
            Err(NameError::Character { found, at, hint })
        }
    }
}

const fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'~' | b'-')
}

/// The number of a partition, below the cluster's [`PartitionCount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many partitions a cluster has: 1 to 64, fixed for the cluster's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionCount(u16);

impl PartitionCount {
    /// The default of a new cluster.
    pub const DEFAULT: Self = Self(16);
    /// Most partitions a cluster can have.
    pub const MAX: u16 = 64;

    /// `None` unless `count` is 1 to 64.
    #[must_use]
    pub const fn new(count: u16) -> Option<Self> {
        if count == 0 || count > Self::MAX { None } else { Some(Self(count)) }
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// All partitions, ascending.
    pub fn all(self) -> impl Iterator<Item = Partition> {
        (0..self.0).map(Partition)
    }

    /// The partition of a channel given as bytes: `fnv1a32(channel) mod count`, the same number that
    /// a NATS subject mapping `partition(n)` gives.
    #[must_use]
    pub fn of(self, channel: &[u8]) -> Partition {
        #[expect(clippy::cast_possible_truncation, reason = "below the count, which is a u16")]
        Partition((fnv1a32(channel) % u32::from(self.0)) as u16)
    }
}

/// FNV-1a, 32 bits.
#[must_use]
pub fn fnv1a32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests;
