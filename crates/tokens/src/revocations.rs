//! Tokens that are good no longer although they have not expired: whose session has ended, whose account
//! was blocked or has another role.
//!
//! The identity service keeps the list; a [`Verifier`](crate::Verifier) follows it from the first line on
//! and refuses what stands in it. The list is numbered, so that whoever was cut off goes on where it
//! stopped. A line says when every token that it could be about has expired, and is forgotten then.

use crate::Claims;
use crate::source::{HttpClient, http_client};
use async_trait::async_trait;
use http_body_util::{BodyExt as _, Limited};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal, Timestamp, with_causes};

/// How long one question waits for something new.
pub(crate) const WAIT: Duration = Duration::from_secs(20);
/// Longest time beyond that for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Forgotten lines are looked for when so many have come since the last time.
const TIDY_EVERY: usize = 1024;

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Its number; grows.
    pub seq: i64,
    /// Whose tokens.
    pub user: String,
    /// Those of this session alone, whenever they were issued; without it every token of the user that
    /// was issued up to `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// When, Unix milliseconds.
    pub at: i64,
    /// From when on no such token can be valid any more, Unix milliseconds.
    pub until: i64,
}

/// Lines behind the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RevocationPage {
    /// In the order of their numbers.
    pub revocations: Vec<Revocation>,
}

/// Where the list is.
#[async_trait]
pub trait RevocationFeed: Send + Sync + 'static {
    /// The lines behind number `after`, the first ones if they are many. Where there are none, waits for
    /// up to `wait` until there are.
    ///
    /// # Errors
    /// What the list's keeper says, or why it cannot be reached.
    async fn after(&self, after: i64, wait: Duration) -> Result<RevocationPage, String>;
}

/// The list of an identity service, over HTTP.
pub struct RevocationUrl {
    url: String,
    client: HttpClient,
}

impl RevocationUrl {
    /// The path below an identity service's address. Gateways do not pass it on: clients have no way to it.
    pub const PATH: &'static str = "/internal/revocations";

    /// The list of the service at `base`.
    ///
    /// # Errors
    /// [`SourceError`](crate::SourceError) if that is no `http:` or `https:` URL.
    pub fn new(base: &str) -> Result<Self, crate::SourceError> {
        let url = format!("{}{}", base.trim_end_matches('/'), Self::PATH);
        let (_, client) = http_client(&url)?;
        Ok(Self { url, client })
    }
}

#[async_trait]
impl RevocationFeed for RevocationUrl {
    async fn after(&self, after: i64, wait: Duration) -> Result<RevocationPage, String> {
        let url = format!("{}?after={after}&wait={}", self.url, wait.as_secs());
        let url: hyper::Uri = url.parse().map_err(|error| format!("{error}"))?;
        let ask = async {
            let answer = self.client.get(url).await.map_err(|error| with_causes(&error))?;
            if answer.status() != http::StatusCode::OK {
                return Err(format!("status {}", answer.status().as_u16()));
            }
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            serde_json::from_slice(&body).map_err(|error| error.to_string())
        };
        tokio::time::timeout(wait + ANSWER_WITHIN, ask)
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

/// What is known of the list.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    seen: i64,
    /// By session: until when it matters.
    sessions: HashMap<Arc<str>, Timestamp>,
    /// By user: tokens up to here, and until when it matters.
    users: HashMap<Arc<str>, (Timestamp, Timestamp)>,
    since_tidied: usize,
}

impl Revoked {
    /// The number of the last line that was taken.
    pub(crate) const fn seen(&self) -> i64 {
        self.seen
    }

    /// Takes a line.
    pub(crate) fn take(&mut self, line: &Revocation, now: Timestamp) {
        self.seen = self.seen.max(line.seq);
        let until = Timestamp(line.until);
        if let Some(session) = &line.session {
            let known = self.sessions.entry(session.as_str().into()).or_insert(until);
            *known = (*known).max(until);
        } else {
            let at = Timestamp(line.at);
            let known = self.users.entry(line.user.as_str().into()).or_insert((at, until));
            *known = (known.0.max(at), known.1.max(until));
        }
        self.since_tidied += 1;
        if self.since_tidied >= TIDY_EVERY {
            self.since_tidied = 0;
            self.sessions.retain(|_, until| *until > now);
            self.users.retain(|_, (_, until)| *until > now);
        }
    }

    /// Refuses claims that the list is about.
    pub(crate) fn check(&self, claims: &Claims) -> Result<(), Refusal> {
        let session = claims.session.as_ref();
        if session.is_some_and(|session| self.sessions.contains_key(session)) {
            return Err(refused("the token's session has ended; sign in again"));
        }
        // A token that does not say when it was issued counts as one from before.
        let issued = claims.issued.unwrap_or(Timestamp(i64::MIN));
        if self.users.get(&claims.user).is_some_and(|(at, _)| issued <= *at) {
            return Err(refused("the account's rights have changed; fetch a fresh token"));
        }
        Ok(())
    }
}

fn refused(message: &'static str) -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Namespaces, Rights, TokenLimits};

    fn claims(user: &str, session: Option<&str>, issued: Option<i64>) -> Claims {
        Claims {
            user: user.into(),
            session: session.map(Arc::from),
            roles: Arc::from([]),
            issued: issued.map(Timestamp),
            expires: Timestamp(i64::MAX),
            rights: Rights::default(),
            channels: Arc::from([]),
            limits: TokenLimits::default(),
            namespaces: Namespaces::default(),
        }
    }

    fn line(seq: i64, session: Option<&str>, at: i64, until: i64) -> Revocation {
        let session = session.map(str::to_owned);
        Revocation { seq, user: "alice".to_owned(), session, at, until }
    }

    #[test]
    fn the_table_of_what_is_refused() {
        let mut revoked = Revoked::default();
        revoked.take(&line(1, Some("s1"), 5_000, 9_000), Timestamp(0));
        revoked.take(&line(2, None, 5_000, 9_000), Timestamp(0));
        let table = [
            ("alice", Some("s1"), Some(6_000), false),
            ("alice", Some("s2"), Some(6_000), true),
            ("alice", Some("s2"), Some(5_000), false),
            ("alice", Some("s2"), Some(4_000), false),
            ("alice", None, Some(5_001), true),
            ("alice", None, None, false),
            ("bob", Some("s2"), None, true),
            // Sessions have ids of their own: whoever bears one of a session that has ended is out.
            ("bob", Some("s1"), Some(6_000), false),
        ];
        for (user, session, issued, good) in table {
            let checked = revoked.check(&claims(user, session, issued));
            assert_eq!(checked.is_ok(), good, "{user} {session:?} {issued:?}");
            if let Err(refusal) = checked {
                assert_eq!(refusal.code, ErrorCode::Unauthenticated);
            }
        }
        assert_eq!(revoked.seen(), 2);
    }

    #[test]
    fn what_no_token_can_be_about_any_more_is_forgotten() {
        let mut revoked = Revoked::default();
        for n in 0..10_000_i64 {
            revoked.take(&line(n, Some(&format!("s{n}")), n, n + 100), Timestamp(n));
            assert!(revoked.sessions.len() <= TIDY_EVERY + 101);
        }
        // An older line that comes late takes nothing back.
        revoked.take(&line(10_001, None, 700, 20_000), Timestamp(0));
        revoked.take(&line(10_000, None, 600, 10_000), Timestamp(0));
        assert!(revoked.check(&claims("alice", None, Some(700))).is_err());
        assert_eq!(revoked.seen(), 10_001);
    }
}
