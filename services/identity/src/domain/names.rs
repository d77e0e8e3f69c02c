//! User names: which are allowed, and which are too much alike to be two.

use stormwire_core::Refusal;
use unicode_normalization::UnicodeNormalization as _;
use unicode_security::confusable_detection::skeleton;
use unicode_security::{GeneralSecurityProfile as _, MixedScript as _};

/// Most bytes looked at.
const BYTES_MAX: usize = 256;
/// Letters of a name.
const LETTERS: std::ops::RangeInclusive<usize> = 3..=32;
/// The ASCII characters beside letters and digits.
const PUNCTUATION: [char; 3] = ['-', '.', '_'];

/// A name that may be somebody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserName {
    /// As it is shown.
    pub(crate) shown: String,
    /// As it is looked up: without upper case.
    pub(crate) folded: String,
    /// The same for all names that look alike (Unicode TS 39, skeleton).
    pub(crate) key: String,
}

impl UserName {
    /// Reads what somebody would like to be called.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let bad = |rule: &str| Err(Refusal::invalid_field("username", rule));
        if text.len() > BYTES_MAX {
            return bad("longer than 32 letters");
        }
        let shown: String = text.nfkc().collect();
        if !LETTERS.contains(&shown.chars().count()) {
            return bad("a name has 3 to 32 letters");
        }
        if !shown.chars().all(is_allowed) {
            return bad(
                "letters, digits, -, . and _ only; no blanks and nothing that cannot be seen",
            );
        }
        if !shown.chars().next().is_some_and(char::is_alphanumeric) {
            return bad("a name begins with a letter or a digit");
        }
        if !shown.is_single_script() {
            return bad("letters of one script only");
        }
        let folded = folded(&shown);
        // What looks alike in capitals is alike as well: O and 0 by their skeleton, I and l here.
        let key = skeleton(&folded).flat_map(char::to_lowercase);
        let key = key.map(|c| if c == 'i' { 'l' } else { c }).collect();
        Ok(Self { shown, folded, key })
    }
}

/// A name as it is looked up; text that is no name finds nobody.
pub(crate) fn folded(text: &str) -> String {
    let text: String = text.chars().take(BYTES_MAX).nfkc().flat_map(char::to_lowercase).collect();
    text.nfkc().collect()
}

fn is_allowed(c: char) -> bool {
    let joins = matches!(c, '\u{200c}' | '\u{200d}');
    let punctuation = c.is_ascii() && !c.is_ascii_alphanumeric();
    c.identifier_allowed() && !joins && (!punctuation || PUNCTUATION.contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(text: &str) -> String {
        UserName::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}")).key
    }

    #[test]
    fn names_of_many_languages_are_names() {
        for name in ["alice", "Bob_2", "j.doe-9", "ünsal", "алиса", "太郎さん", "νίκος", "user-1"]
        {
            assert!(UserName::parse(name).is_ok(), "{name}");
        }
        assert_eq!(UserName::parse("ALICE").unwrap().folded, "alice");
        // Full-width letters are the plain ones.
        assert_eq!(UserName::parse("ａｌｉｃｅ").unwrap().shown, "alice");
    }

    #[test]
    fn what_cannot_be_seen_or_read_is_refused() {
        let hidden = [
            "al\u{0}ice",
            "al\nice",
            "al\u{7f}ice",
            "al\u{85}ice",
            "al\u{200b}ice",
            "al\u{200d}ice",
            "al\u{202e}ecila",
            "al\u{2066}ice",
            "al\u{ad}ice",
            "al\u{feff}ice",
            "\u{e0041}alice",
            "al ice",
            "alice ",
            "alice\u{a0}",
            "al\u{2028}ice",
            "<b>",
            "a'--",
            "a/b",
            "a@b.c",
            "x\u{301}\u{301}\u{301}\u{0}",
            "😀😀😀",
            "",
            "ab",
            &"a".repeat(33),
            &"a".repeat(100_000),
            "_alice",
            ".alice",
        ];
        for name in hidden {
            assert!(UserName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn look_alikes_are_the_same_name_or_refused() {
        // Cyrillic letters among Latin ones.
        for name in ["аlice", "alicе", "pаypal", "gοοgle"] {
            assert!(UserName::parse(name).is_err(), "{name:?}");
        }
        // A whole word of another script that looks Latin.
        assert_eq!(key("сосо"), key("coco"));
        for (one, other) in [
            ("paypal", "paypa1"),
            ("Illusion", "lllusion"),
            ("modern", "rnodern"),
            ("bob0", "bobO"),
            ("alice", "ALICE"),
        ] {
            assert_eq!(key(one), key(other), "{one} {other}");
        }
        assert_ne!(key("alice"), key("alicia"));
    }

    proptest! {
        #[test]
        fn any_text_is_answered_and_a_name_is_stable(text in "\\PC{0,40}|.{0,40}") {
            if let Ok(name) = UserName::parse(&text) {
                prop_assert!(!name.shown.chars().any(char::is_control));
                let again = UserName::parse(&name.shown).unwrap();
                prop_assert_eq!(&again, &name);
                prop_assert_eq!(folded(&name.shown), name.folded);
            }
        }
    }
}
