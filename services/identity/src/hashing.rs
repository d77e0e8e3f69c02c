//! Passwords into hashes and back to yes or no, off the async threads, a few at a time.
//!
//! Hashing takes tens of milliseconds of a core and 19 MiB, on purpose. So there are places for a few
//! at a time, a bounded queue for the places, and `overloaded` at its end: a storm of sign-ins never
//! takes more than its places from everything else.

use crate::domain::passwords;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use metrics::{gauge, histogram};
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use stormwire_core::{ErrorCode, Refusal};
use stormwire_telemetry::metrics as names;
use tokio::sync::Semaphore;

/// Memory, passes and lanes of argon2id (OWASP's recommendation): KiB, count, count.
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// What a hash made with [`COST`] begins with; all others are made anew when their password is shown.
const CURRENT: &str = "$argon2id$v=19$m=19456,t=2,p=1$";
/// What is compared where there is no account: random bytes in the form of a hash, which no password has.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$lgaWp4Yec9RvXckv9FFSaQ$H/S/fcrSwaTvp/h1IpNyXAyi6rjo7YolPOx6YwDopcY";
/// Callers that may wait for a place, for each place.
const WAITING_PER_PLACE: usize = 32;
/// When to come back after the queue was full.
const COME_BACK_AFTER: Duration = Duration::from_secs(2);

/// Whether a password was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checked {
    /// Not the password.
    Wrong,
    /// The password.
    Right,
    /// The password, whose hash is of an older kind; here is one of today's.
    RightAndOld(String),
}

/// Hashes and verifies. Clones share the places.
#[derive(Clone)]
pub(crate) struct Hasher {
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
}

impl Hasher {
    /// Hashes at most `places` passwords at a time.
    pub(crate) fn new(places: usize) -> Self {
        let places = places.max(1);
        Self {
            places: Arc::new(Semaphore::new(places)),
            waiting: Arc::default(),
            waiting_max: places * WAITING_PER_PLACE,
        }
    }

    /// A place in the queue, or `overloaded` at its end.
    pub(crate) fn enter(&self) -> Result<Turn, Refusal> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        gauge!(names::PASSWORD_HASHES_WAITING).set((before + 1) as f64);
        let turn = Turn { hasher: self.clone() };
        if before >= self.waiting_max {
            let message = "too many passwords are being checked; try again";
            let refusal = Refusal::new(ErrorCode::Overloaded, message);
            return Err(refusal.retry_after(COME_BACK_AFTER));
        }
        Ok(turn)
    }
}

/// A place in the queue, given back when it is dropped.
pub(crate) struct Turn {
    hasher: Hasher,
}

impl Turn {
    /// The hash of `password`.
    pub(crate) async fn hash(self, password: SecretString) -> Result<String, Refusal> {
        self.run(move || hash(password.expose_secret())).await
    }

    /// Compares `password` with `known`, or with a hash that nothing matches, for the same time.
    pub(crate) async fn check(
        self,
        password: SecretString,
        known: Option<String>,
    ) -> Result<Checked, Refusal> {
        self.run(move || check(password.expose_secret(), known.as_deref())).await
    }

    async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let place = Arc::clone(&self.hasher.places).acquire_owned().await.map_err(failed)?;
        let start = Instant::now();
        // The place goes with the work: it is taken until the work ends, whoever still waits for it.
        let work = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        let result = work.await.map_err(failed)?;
        histogram!(names::PASSWORD_HASH_SECONDS).record(start.elapsed().as_secs_f64());
        result
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let before = self.hasher.waiting.fetch_sub(1, Ordering::Relaxed);
        gauge!(names::PASSWORD_HASHES_WAITING).set((before - 1) as f64);
    }
}

fn argon2() -> Result<Argon2<'static>, Refusal> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> Result<String, Refusal> {
    Ok(argon2()?.hash_password(password.as_bytes()).map_err(failed)?.to_string())
}

fn check(password: &str, known: Option<&str>) -> Result<Checked, Refusal> {
    // Too long to be anybody's, and compared all the same, cut short.
    let (password, known) = match passwords::is_too_long(password) {
        true => ("", None),
        false => (password, known),
    };
    let Some(known) = known.filter(|known| *known != passwords::NO_PASSWORD) else {
        verify_argon2(password, NOBODY)?;
        return Ok(Checked::Wrong);
    };
    let is_bcrypt = ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|kind| known.starts_with(kind));
    let right = if is_bcrypt {
        bcrypt::verify(password, known).map_err(failed)?
    } else {
        verify_argon2(password, known)?
    };
    match right {
        false => Ok(Checked::Wrong),
        true if known.starts_with(CURRENT) => Ok(Checked::Right),
        true => hash(password).map(Checked::RightAndOld),
    }
}

fn verify_argon2(password: &str, known: &str) -> Result<bool, Refusal> {
    let known = PasswordHash::new(known).map_err(failed)?;
    Ok(argon2()?.verify_password(password.as_bytes(), &known).is_ok())
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    tracing::error!(%error, "a password could not be hashed");
    Refusal::new(ErrorCode::Internal, "the password could not be checked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    #[tokio::test]
    async fn a_hash_is_argon2id_with_the_stated_cost_and_matches_its_password_alone() {
        let hasher = Hasher::new(2);
        let hash = hasher.enter().unwrap().hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with(CURRENT), "{hash}");
        assert!(NOBODY.starts_with(CURRENT), "nobody's costs as much");
        let other = hasher.enter().unwrap().hash(secret("correct horse")).await.unwrap();
        assert_ne!(hash, other, "each has a salt of its own");
        let check = async |password: &str, known: Option<&String>| {
            hasher.enter().unwrap().check(secret(password), known.cloned()).await.unwrap()
        };
        assert_eq!(check("correct horse", Some(&hash)).await, Checked::Right);
        assert_eq!(check("Correct horse", Some(&hash)).await, Checked::Wrong);
        assert_eq!(check("", Some(&hash)).await, Checked::Wrong);
        assert_eq!(check("correct horse", None).await, Checked::Wrong);
        let none = passwords::NO_PASSWORD.to_owned();
        assert_eq!(check(passwords::NO_PASSWORD, Some(&none)).await, Checked::Wrong);
        let long = "x".repeat(1_000_000);
        assert_eq!(check(&long, Some(&hash)).await, Checked::Wrong);
    }

    #[tokio::test]
    async fn hashes_of_older_systems_are_accepted_and_made_anew() {
        let hasher = Hasher::new(1);
        // Made by another program: htpasswd -bnBC 5 "" "correct horse".
        let bcrypt = bcrypt::hash("correct horse", 5).unwrap();
        for old in
            [bcrypt.clone(), bcrypt.replacen("$2b$", "$2y$", 1), bcrypt.replacen("$2b$", "$2a$", 1)]
        {
            let checked = hasher
                .enter()
                .unwrap()
                .check(secret("correct horse"), Some(old.clone()))
                .await
                .unwrap();
            let Checked::RightAndOld(fresh) = checked else { panic!("{old}: {checked:?}") };
            assert_eq!(
                hasher.enter().unwrap().check(secret("correct horse"), Some(fresh)).await.unwrap(),
                Checked::Right
            );
            assert_eq!(
                hasher.enter().unwrap().check(secret("wrong horse"), Some(old)).await.unwrap(),
                Checked::Wrong
            );
        }
        let weak = Params::new(8, 1, 1, None).unwrap();
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, weak);
        let weak = weak.hash_password(b"correct horse").unwrap().to_string();
        let checked =
            hasher.enter().unwrap().check(secret("correct horse"), Some(weak)).await.unwrap();
        assert!(matches!(checked, Checked::RightAndOld(_)), "{checked:?}");
    }

    #[tokio::test]
    async fn a_storm_is_bounded_and_its_end_is_told_when_to_come_back() {
        let hasher = Hasher::new(1);
        let place = Arc::clone(&hasher.places).acquire_owned().await.unwrap();
        let storm: Vec<_> = (0..WAITING_PER_PLACE * 2)
            .map(|_| {
                let hasher = hasher.clone();
                tokio::spawn(async move { hasher.enter()?.check(secret("guess"), None).await })
            })
            .collect();
        while storm.iter().filter(|one| one.is_finished()).count() < WAITING_PER_PLACE {
            tokio::task::yield_now().await;
        }
        drop(place);
        let mut refused = 0;
        for one in storm {
            match one.await.unwrap() {
                Ok(checked) => assert_eq!(checked, Checked::Wrong),
                Err(refusal) => {
                    assert_eq!(refusal.code, ErrorCode::Overloaded);
                    assert_eq!(refusal.retry_after, Some(COME_BACK_AFTER));
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, WAITING_PER_PLACE);
        assert_eq!(hasher.waiting.load(Ordering::Relaxed), 0);
    }
}
