//! One limit that a decision has to pass: whose bucket, by which rule, and how it is told to people.

use crate::bucket::{Bucket, Spend};
use crate::{LimitKey, Quota, Rule, Scope};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};
use tokio::time::Instant;

/// One user's, address's or channel's buckets.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) scope: Scope,
    subject: Box<str>,
    buckets: Mutex<[Option<Bucket>; 4]>,
    /// Held while a lease is fetched, so that all who wait share it.
    pub(crate) fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    Requests,
    Events,
    Bytes,
    Signals,
}

impl Unit {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Events => "events",
            Self::Bytes => "bytes",
            Self::Signals => "signals",
        }
    }
}

/// One limit that a decision has to pass.
pub(crate) struct Check {
    pub(crate) slot: Arc<Slot>,
    pub(crate) unit: Unit,
    pub(crate) rule: Rule,
    pub(crate) units: u64,
}

impl Slot {
    pub(crate) fn new(scope: Scope, subject: Box<str>) -> Self {
        Self { scope, subject, buckets: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }
}

impl Check {
    pub(crate) fn key(&self) -> LimitKey {
        let subject = self.slot.subject.to_string();
        LimitKey { scope: self.slot.scope, subject, unit: self.unit.as_str() }
    }

    pub(crate) fn with_bucket<T>(&self, work: impl FnOnce(&mut Bucket, Instant) -> T) -> T {
        let now = Instant::now();
        let mut buckets = self.slot.buckets.lock();
        let bucket = buckets[self.unit as usize].get_or_insert_with(|| Bucket::new(self.rule, now));
        bucket.follow(self.rule, now);
        work(bucket, now)
    }

    pub(crate) fn spend(&self) -> Spend {
        self.with_bucket(|bucket, now| bucket.spend(self.units, now))
    }

    pub(crate) fn quota(&self, now: Instant) -> Option<Quota> {
        let buckets = self.slot.buckets.lock();
        buckets[self.unit as usize].as_ref().map(|bucket| bucket.quota(now))
    }

    pub(crate) fn refusal(&self, after: Duration) -> Refusal {
        let after = after.max(Duration::from_millis(1));
        let message = format!("{}; try again in {} ms", self.words(), after.as_millis());
        Refusal::new(ErrorCode::Limited, message).retry_after(after)
    }

    pub(crate) fn never(&self) -> Refusal {
        let (units, unit) = (thousands(self.units), self.unit.as_str());
        let message =
            format!("{units} {unit} at once are over the limit of {}; split it", self.words());
        Refusal::new(ErrorCode::TooLarge, message)
    }

    /// The rule, as in `1,000 events a second for this user`.
    fn words(&self) -> String {
        let of = match self.slot.scope {
            Scope::User => "this user",
            Scope::Ip => "this address",
            Scope::Channel => "this channel",
        };
        let window = match self.rule.window.as_millis() {
            1000 => "a second".to_owned(),
            60_000 => "a minute".to_owned(),
            other => format!("in {other} ms"),
        };
        format!("{} {} {window} for {of}", thousands(self.rule.limit), self.unit.as_str())
    }
}

pub(crate) fn refund(checks: &[Check]) {
    checks.iter().for_each(|check| check.with_bucket(|bucket, _| bucket.refund(check.units)));
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
