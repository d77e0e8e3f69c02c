//! What a token lets its bearer do.

use std::fmt;
use std::sync::Arc;
use stormwire_core::{ErrorCode, Pattern, Refusal};

/// What can be done on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Store events.
    Publish,
    /// Be sent events as they are stored.
    Subscribe,
    /// Read events stored before.
    History,
    /// See who is there.
    Presence,
    /// Send what is not stored.
    Signal,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 5] =
        [Self::Publish, Self::Subscribe, Self::History, Self::Presence, Self::Signal];

    /// The name, as in the claim `channels`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::History => "history",
            Self::Presence => "presence",
            Self::Signal => "signal",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// For each action, the channels it is granted on. Nothing is granted by default; cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    granted: Arc<[Vec<Pattern>; Action::ALL.len()]>,
}

impl Rights {
    /// Grants each action on the patterns that `patterns_of` names for it.
    #[must_use]
    pub fn new(patterns_of: impl FnMut(Action) -> Vec<Pattern>) -> Self {
        Self { granted: Arc::new(Action::ALL.map(patterns_of)) }
    }

    /// Everything on every channel.
    #[must_use]
    pub fn all() -> Self {
        Self::new(|_| vec![Pattern::Prefix(Arc::from(""))])
    }

    /// The patterns that `action` is granted on.
    #[must_use]
    pub fn patterns(&self, action: Action) -> &[Pattern] {
        &self.granted[action as usize]
    }

    /// Whether `action` is granted on `channel`.
    #[must_use]
    pub fn may(&self, action: Action, channel: &str) -> bool {
        self.patterns(action).iter().any(|granted| granted.matches(channel))
    }

    /// Whether `action` is granted on every channel of `pattern`, by one grant that covers it.
    #[must_use]
    pub fn may_pattern(&self, action: Action, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Exact(channel) => self.may(action, channel.as_str()),
            Pattern::Prefix(wanted) => self.patterns(action).iter().any(|granted| match granted {
                Pattern::Prefix(granted) => wanted.starts_with(&**granted),
                Pattern::Exact(_) => false,
            }),
        }
    }

    /// Like [`Rights::may`], with the refusal to send.
    ///
    /// # Errors
    /// `forbidden`, naming action and channel.
    pub fn require(&self, action: Action, channel: &str) -> Result<(), Refusal> {
        if self.may(action, channel) { Ok(()) } else { Err(refusal(action, channel)) }
    }

    /// Like [`Rights::may_pattern`], with the refusal to send.
    ///
    /// # Errors
    /// `forbidden`, naming action and pattern.
    pub fn require_pattern(&self, action: Action, pattern: &Pattern) -> Result<(), Refusal> {
        if self.may_pattern(action, pattern) { Ok(()) } else { Err(refusal(action, pattern)) }
    }
}

fn refusal(action: Action, on: impl fmt::Display) -> Refusal {
    Refusal::new(ErrorCode::Forbidden, format!("this token does not grant {action} on {on}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn granting(action: Action, patterns: &[&str]) -> Rights {
        Rights::new(|each| {
            let patterns = if each == action { patterns } else { &[] };
            patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect()
        })
    }

    #[test]
    fn what_is_not_granted_is_denied() {
        for action in Action::ALL {
            assert!(!Rights::default().may(action, "a:b"));
            assert!(Rights::all().may(action, "a:b"));
        }
    }

    #[test]
    fn a_grant_is_for_one_action_and_its_channels() {
        let table = [
            (&["orders:eu"][..], "orders:eu", true),
            (&["orders:eu"], "orders:eu2", false),
            (&["orders:eu"], "orders:e", false),
            (&["orders:*"], "orders:eu", true),
            (&["orders:*"], "orders2:eu", false),
            (&["orders:eu.*"], "orders:eu.de", true),
            (&["orders:eu.*"], "orders:eu", false),
            (&["orders:eu.*"], "orders:eux", false),
            (&["*"], "anything:at.all", true),
            (&["a:x", "b:*"], "b:y", true),
            (&["a:x", "b:*"], "a:y", false),
            (&[], "a:x", false),
        ];
        for (patterns, channel, expected) in table {
            for action in Action::ALL {
                let rights = granting(action, patterns);
                for asked in Action::ALL {
                    let expected = expected && asked == action;
                    assert_eq!(
                        rights.may(asked, channel),
                        expected,
                        "{patterns:?} {asked} {channel}"
                    );
                    assert_eq!(rights.require(asked, channel).is_ok(), expected);
                }
            }
        }
    }

    #[test]
    fn a_pattern_needs_one_grant_that_covers_it() {
        let table = [
            (&["orders:*"][..], "orders:*", true),
            (&["orders:*"], "orders:eu.*", true),
            (&["orders:eu.*"], "orders:*", false),
            (&["orders:eu"], "orders:eu", true),
            (&["orders:eu"], "orders:eu.*", false),
            (&["*"], "*", true),
            (&["orders:*"], "*", false),
        ];
        for (patterns, wanted, expected) in table {
            let wanted = Pattern::parse(wanted).unwrap();
            let rights = granting(Action::Subscribe, patterns);
            assert_eq!(
                rights.may_pattern(Action::Subscribe, &wanted),
                expected,
                "{patterns:?} {wanted}"
            );
            assert_eq!(rights.require_pattern(Action::Subscribe, &wanted).is_ok(), expected);
            assert!(!rights.may_pattern(Action::History, &wanted));
        }
    }

    #[test]
    fn a_refusal_names_action_and_channel() {
        let refusal = Rights::default().require(Action::Publish, "orders:eu").unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Forbidden);
        assert!(refusal.message.contains("publish on orders:eu"), "{refusal}");
    }

    proptest! {
        /// Covering a pattern means covering each channel in it.
        #[test]
        fn a_covered_pattern_covers_its_channels(granted in "[ab]:([ab]\\.){0,2}\\*", wanted in "[ab]:([ab]\\.){0,2}\\*", tail in "[ab.]{1,4}") {
            let rights = granting(Action::Publish, &[&granted]);
            let wanted = Pattern::parse(&wanted).unwrap();
            let channel = wanted.to_string().replace('*', &tail);
            if rights.may_pattern(Action::Publish, &wanted) {
                prop_assert!(rights.may(Action::Publish, &channel));
            }
        }
    }
}
