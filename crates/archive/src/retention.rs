//! How long events are kept: by age and by bytes, a rule for each namespace.

use std::collections::BTreeMap;
use std::time::Duration;

/// What one namespace may keep. Without a bound it keeps everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rule {
    /// An event older than this, by the journal's clock, is removed.
    pub age: Option<Duration>,
    /// The oldest events are removed while the data of all take more than this.
    pub bytes: Option<u64>,
}

/// The rules of all namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retention {
    /// For namespaces without a rule of their own.
    pub default: Rule,
    /// By namespace.
    pub namespaces: BTreeMap<String, Rule>,
}

impl Retention {
    /// The rule of a namespace.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Rule {
        self.namespaces.get(namespace).copied().unwrap_or(self.default)
    }

    /// Whether everything is kept.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        let mut rules = std::iter::once(&self.default).chain(self.namespaces.values());
        rules.all(|rule| *rule == Rule::default())
    }
}

/// What one call of [`Archive::retain`](crate::Archive::retain) removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retained {
    /// Events.
    pub events: u64,
    /// Tables of events that went as a whole; their events are counted above.
    pub tables: u64,
    /// Whether there is more to remove now.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_without_a_rule_follows_the_default() {
        let day = Rule { age: Some(Duration::from_secs(86_400)), bytes: None };
        let forever = Rule::default();
        let namespaces = BTreeMap::from([("audit".to_owned(), forever)]);
        let retention = Retention { default: day, namespaces };
        assert_eq!((retention.of("chat"), retention.of("audit")), (day, forever));
        assert!(!retention.keeps_all());
        assert!(Retention::default().keeps_all());
    }
}
