//! The key ring: what is personal or secret in the database is sealed under its first key (AES-256-GCM),
//! opened under any of them, and found by a keyed hash (HMAC-SHA256) that is no key's own.
//!
//! A file of lines: `index BASE64` once, then `NAME BASE64` for each key, the one that seals first; each of
//! 32 bytes. To rotate, put a new line before the others, start the processes anew, seal again, and remove
//! the old line when nothing is under it. The index key stays: with another one nothing would be found.

use crate::domain::SealedText;
use crate::key_file;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Its file in the data directory, where none is named.
const FILE: &str = "identity-keys";
const KEY_BYTES: usize = 32;
/// The line of the key that hashes.
const INDEX: &str = "index";
/// Most keys of a ring.
const KEYS_MAX: usize = 16;

/// Why there is no key ring, or something cannot be opened with it.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// The file cannot be read or written.
    #[error("the key ring {path} cannot be {verb}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// A line of the file is not what it should be; never shows the line itself.
    #[error("line {line} of the key ring {path}: {rule}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What it should be.
        rule: &'static str,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
    /// A key was removed from the ring that something is still sealed under.
    #[error("something is sealed under the key {0:?}, which the key ring does not have")]
    NoKey(String),
    /// What was sealed was changed, or moved to where it does not belong.
    #[error("something sealed under the key {0:?} was changed")]
    Changed(String),
}

/// Seals, opens, hashes.
pub(crate) struct KeyRing {
    index: hmac::Key,
    keys: Vec<(String, LessSafeKey)>,
    random: SystemRandom,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.keys.iter().map(|(name, _)| name).collect();
        f.debug_struct("KeyRing").field("keys", &names).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// Reads the ring that is named, or that of the data directory, which is made if it isn't there.
    pub(crate) fn open(named: Option<&Path>, data_dir: &Path) -> Result<Self, KeyRingError> {
        let path = named.map_or_else(|| data_dir.join(FILE), Path::to_owned);
        let failed = |verb| {
            let path = path.clone();
            move |error| KeyRingError::Io { path, verb, error }
        };
        match key_file::read(&path) {
            Ok(text) => return Self::parse(&text, &path),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read")(error)),
        }
        let random = SystemRandom::new();
        let (index, first) = (random_key(&random)?, random_key(&random)?);
        let text = format!("{INDEX} {index}\n1 {first}\n");
        key_file::create(&path, &text).map_err(failed("written"))?;
        Self::parse(&key_file::read(&path).map_err(failed("read"))?, &path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, KeyRingError> {
        let (mut index, mut keys) = (None, Vec::<(String, LessSafeKey)>::new());
        let mut last = 0;
        for (line, text) in (1..).zip(text.lines()) {
            last = line;
            let bad = |rule| KeyRingError::Line { path: path.to_owned(), line, rule };
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let (name, key) =
                text.trim().split_once(' ').ok_or_else(|| bad("expected NAME BASE64"))?;
            let key = BASE64_STANDARD.decode(key.trim()).ok().filter(|key| key.len() == KEY_BYTES);
            let key = key.ok_or_else(|| bad("expected 32 bytes in base64 after the name"))?;
            if name == INDEX {
                index = Some(hmac::Key::new(hmac::HMAC_SHA256, &key));
                continue;
            }
            if keys.len() == KEYS_MAX || keys.iter().any(|(known, _)| known == name) {
                return Err(bad("expected at most 16 keys, each with a name of its own"));
            }
            let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| bad("expected 32 bytes"))?;
            keys.push((name.to_owned(), LessSafeKey::new(key)));
        }
        let missing = |rule| KeyRingError::Line { path: path.to_owned(), line: last + 1, rule };
        let index = index.ok_or_else(|| missing("expected a line `index BASE64` somewhere"))?;
        if keys.is_empty() {
            return Err(missing("expected a line `NAME BASE64` with a key"));
        }
        Ok(Self { index, keys, random: SystemRandom::new() })
    }

    /// The name of the key that seals.
    pub(crate) fn current(&self) -> &str {
        self.keys.first().map_or("", |(name, _)| name)
    }

    /// Seals `plain` for `place`, the one place where it can be opened.
    pub(crate) fn seal(&self, plain: &[u8], place: &str) -> Result<SealedText, KeyRingError> {
        let Some((name, key)) = self.keys.first() else { return Err(KeyRingError::NoRandom) };
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| KeyRingError::NoRandom)?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            bound_to(name, place),
            &mut sealed,
        )
        .map_err(|_| KeyRingError::NoRandom)?;
        Ok(SealedText { key: name.clone(), bytes: [&nonce[..], &sealed].concat() })
    }

    /// Opens what was sealed for `place`.
    pub(crate) fn open_sealed(
        &self,
        sealed: &SealedText,
        place: &str,
    ) -> Result<Vec<u8>, KeyRingError> {
        let found = self.keys.iter().find(|(name, _)| *name == sealed.key);
        let (name, key) = found.ok_or_else(|| KeyRingError::NoKey(sealed.key.clone()))?;
        let changed = || KeyRingError::Changed(name.clone());
        let (nonce, body) = sealed.bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(changed)?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain =
            key.open_in_place(nonce, bound_to(name, place), &mut body).map_err(|_| changed())?;
        Ok(plain.to_vec())
    }

    /// What `text` is found by: the same for the same text, and no way back.
    pub(crate) fn index_of(&self, text: &str) -> Vec<u8> {
        hmac::sign(&self.index, text.as_bytes()).as_ref().to_vec()
    }
}

fn bound_to(key: &str, place: &str) -> Aad<Vec<u8>> {
    Aad::from(format!("{key}\n{place}").into_bytes())
}

fn random_key(random: &SystemRandom) -> Result<String, KeyRingError> {
    let mut key = [0; KEY_BYTES];
    random.fill(&mut key).map_err(|_| KeyRingError::NoRandom)?;
    Ok(BASE64_STANDARD.encode(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[(&str, u8)]) -> KeyRing {
        let line =
            |(name, byte): &(&str, u8)| format!("{name} {}\n", BASE64_STANDARD.encode([*byte; 32]));
        let text: String = [("index", 7)].iter().chain(keys).map(line).collect();
        KeyRing::parse(&text, Path::new("ring")).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_in_its_place_alone() {
        let ring = ring(&[("a", 1)]);
        let sealed = ring.seal(b"alice@example.com", "email:1").unwrap();
        assert!(!sealed.bytes.windows(5).any(|bytes| bytes == b"alice"));
        assert_ne!(sealed, ring.seal(b"alice@example.com", "email:1").unwrap(), "a nonce each");
        assert_eq!(ring.open_sealed(&sealed, "email:1").unwrap(), b"alice@example.com");
        assert!(matches!(ring.open_sealed(&sealed, "email:2"), Err(KeyRingError::Changed(_))));
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert!(ring.open_sealed(&changed, "email:1").is_err(), "byte {at}");
        }
        let short = SealedText { key: "a".to_owned(), bytes: vec![1, 2] };
        assert!(ring.open_sealed(&short, "email:1").is_err());
    }

    #[test]
    fn a_rotated_ring_opens_what_is_old_and_seals_under_the_new_key() {
        let old = ring(&[("a", 1)]);
        let sealed = old.seal(b"x", "p").unwrap();
        let rotated = ring(&[("b", 2), ("a", 1)]);
        assert_eq!(rotated.open_sealed(&sealed, "p").unwrap(), b"x");
        let fresh = rotated.seal(b"x", "p").unwrap();
        assert_eq!((fresh.key.as_str(), rotated.current()), ("b", "b"));
        let without = ring(&[("b", 2)]);
        assert!(matches!(without.open_sealed(&sealed, "p"), Err(KeyRingError::NoKey(_))));
        assert_eq!(without.open_sealed(&fresh, "p").unwrap(), b"x");
        assert_eq!(old.index_of("mail"), rotated.index_of("mail"));
        assert_ne!(old.index_of("mail"), old.index_of("nail"));
    }

    #[test]
    fn a_file_that_is_no_ring_is_refused_by_line_and_never_shown() {
        let key = BASE64_STANDARD.encode([1; 32]);
        let twice = format!("index {key}\na {key}\na {key}");
        let cases = [
            ("", 1),
            ("index", 1),
            ("a c2hvcnQ=", 1),
            (&format!("a {key}"), 2),
            (&format!("index {key}"), 2),
            (&twice, 3),
        ];
        for (text, expected) in cases {
            let error = KeyRing::parse(text, Path::new("ring")).unwrap_err();
            assert!(!error.to_string().contains(&key), "{error}");
            let KeyRingError::Line { line, .. } = error else { panic!("{error}") };
            assert_eq!(line, expected, "{text}");
        }
    }

    #[test]
    fn a_ring_is_made_once_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = stormwire_testkit::Folder::temporary("key-ring").unwrap();
        let first = KeyRing::open(None, folder.path()).unwrap();
        let sealed = first.seal(b"x", "p").unwrap();
        let again = KeyRing::open(None, folder.path()).unwrap();
        assert_eq!(again.open_sealed(&sealed, "p").unwrap(), b"x");
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(KeyRing::open(Some(&folder.path().join("none")), folder.path()).is_err());
    }
}
