//! The task of one partition: holds the lease, reports, sweeps, and asks what has changed.

use super::{Part, REPORT_EVERY, Shared, TEND_EVERY};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use stormwire_core::Channel;
use stormwire_presence::{
    CHANGES_PER_CALL_MAX, Changed, LEASE, Life, Message, PresenceError, Renewed,
};
use stormwire_telemetry::{Quiet, metrics as names};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Reports, or sweeps, made before the lease is looked at again.
const CALLS_A_TURN: usize = 8;
/// Channels asked after in one call.
const ASKED_AT_ONCE: usize = 64;
/// Channels named in one message to the other gateways.
const NAMED_AT_ONCE: usize = 100;
/// Longest wait at the end for a last report.
const END_WITHIN: Duration = Duration::from_secs(2);
/// While the engine is away, each call fails the same way: one line in ten seconds will do.
static AWAY: Quiet = Quiet::new(Duration::from_secs(10));

/// Runs until `stop`, then reports what is left and gives the lease up.
pub(super) async fn run(shared: Arc<Shared>, at: usize, stop: CancellationToken) {
    let part = &shared.parts[at];
    let mut keeper =
        Keeper { shared: &shared, part, lives: 0, life: None, turn: 0, held_at: Instant::now() };
    let mut tend_at = Instant::now();
    let mut due = None;
    loop {
        let now = Instant::now();
        if part.hurry.swap(false, Ordering::AcqRel) {
            due = Some(now);
        } else if due.is_none() && keeper.has_work() {
            due = Some(now + REPORT_EVERY);
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = part.work.notified() => continue,
            () = sleep_until(due.map_or(tend_at, |due| due.min(tend_at))) => {}
        }
        let mut outcome = Ok(());
        if Instant::now() >= tend_at {
            tend_at = Instant::now() + TEND_EVERY;
            outcome = keeper.tend().await;
        }
        if outcome.is_ok() {
            outcome = keeper.work().await;
        }
        keeper.note(&outcome);
        part.reported.notify_waiters();
        due = outcome.is_err().then(|| Instant::now() + TEND_EVERY);
    }
    if tokio::time::timeout(END_WITHIN, keeper.end()).await.is_err() {
        tracing::debug!(partition = %part.partition, "members are left to be swept");
    }
}

struct Keeper<'a> {
    shared: &'a Shared,
    part: &'a Part,
    /// Lives begun so far: each has a name of its own.
    lives: u64,
    life: Option<Life>,
    turn: u64,
    /// When the lease was known to be held.
    held_at: Instant,
}

impl Keeper<'_> {
    fn has_work(&self) -> bool {
        self.part.roster.lock().is_waiting() || self.part.audience.lock().has_stale()
    }

    /// Renews the lease and sweeps those of others that ran out; everything watched is to be looked at.
    async fn tend(&mut self) -> Result<(), PresenceError> {
        self.part.audience.lock().all_changed();
        let here = self.part.roster.lock().len() as f64;
        let partition = self.part.partition.to_string();
        metrics::gauge!(names::PRESENCE_MEMBERS, "partition" => partition).set(here);
        if let Some(life) = self.life.clone() {
            match self.shared.presence.renew(&life).await {
                Ok(Renewed::Alive) => self.held_at = Instant::now(),
                Ok(Renewed::Unknown) | Err(PresenceError::Unknown) => self.begin_anew(),
                Err(away) => {
                    // By now it has run out: what hung on it is told as left by whoever comes first, and
                    // nothing of it needs to be remembered here.
                    if self.held_at.elapsed() >= LEASE {
                        self.begin_anew();
                    }
                    return Err(away);
                }
            }
        }
        for _ in 0..CALLS_A_TURN {
            let swept = self.shared.presence.sweep(self.part.partition).await?;
            let channels = swept.changed.len() as u64;
            metrics::counter!(names::PRESENCE_SWEPT).increment(channels);
            self.spread(swept.changed).await;
            if !swept.more {
                break;
            }
        }
        Ok(())
    }

    /// Reports who came and went, and tells the watchers what has changed.
    async fn work(&mut self) -> Result<(), PresenceError> {
        self.report().await?;
        loop {
            let asked = self.part.audience.lock().take_stale(Instant::now(), ASKED_AT_ONCE);
            if asked.is_empty() {
                return Ok(());
            }
            let answer = self.shared.presence.differences(self.part.partition, &asked).await;
            let mut audience = self.part.audience.lock();
            match answer {
                Ok(differences) => {
                    for ((channel, since), difference) in asked.into_iter().zip(differences) {
                        audience.tell(&channel, since, difference, Instant::now());
                    }
                }
                Err(error) => {
                    for (channel, _) in &asked {
                        audience.changed(channel);
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn report(&mut self) -> Result<(), PresenceError> {
        for _ in 0..CALLS_A_TURN {
            let life = self.life().await?;
            let changes = self.part.roster.lock().take(CHANGES_PER_CALL_MAX);
            if changes.is_empty() {
                return Ok(());
            }
            self.turn += 1;
            match self.shared.presence.apply(&life, self.turn, &changes).await {
                Ok(changed) => {
                    self.part.roster.lock().confirm(&changes);
                    metrics::counter!(names::PRESENCE_CHANGES).increment(changes.len() as u64);
                    self.spread(changed).await;
                }
                Err(PresenceError::Unknown) => self.begin_anew(),
                Err(away) => {
                    self.part.roster.lock().give_back(&changes);
                    return Err(away);
                }
            }
        }
        Ok(())
    }

    /// The life that members hang on now, begun if need be.
    async fn life(&mut self) -> Result<Life, PresenceError> {
        if let Some(life) = &self.life {
            return Ok(life.clone());
        }
        self.lives += 1;
        let name = format!("{}.{:x}.{}", self.shared.gateway, self.shared.process, self.lives);
        let life = Life { partition: self.part.partition, name: name.into() };
        self.shared.presence.begin(&life).await?;
        (self.life, self.turn, self.held_at) = (Some(life.clone()), 0, Instant::now());
        Ok(life)
    }

    /// The life is over: everybody who is here is reported under the next one.
    fn begin_anew(&mut self) {
        self.life = None;
        self.part.roster.lock().restart();
        metrics::counter!(names::PRESENCE_LIVES_LOST).increment(1);
        tracing::info!(partition = %self.part.partition, "members are reported anew under another lease");
    }

    /// These channels have others now: for this gateway's watchers, and for those of the others.
    async fn spread(&self, changed: Vec<Changed>) {
        let channels: Vec<Channel> = changed.into_iter().map(|changed| changed.channel).collect();
        {
            let mut audience = self.part.audience.lock();
            for channel in &channels {
                audience.changed(channel);
            }
        }
        if !self.shared.presence.is_shared() {
            return;
        }
        for channels in channels.chunks(NAMED_AT_ONCE) {
            let (process, channels) = (self.shared.process, channels.to_vec());
            let message = Message::Changed { process, channels }.encode();
            // Lost, they find out by themselves, only later.
            let _ = self.shared.signals.send(self.part.partition, message).await;
        }
    }

    fn note(&self, outcome: &Result<(), PresenceError>) {
        let away = matches!(outcome, Err(PresenceError::Unavailable(_)));
        let was = self.part.away.swap(away, Ordering::Relaxed);
        if let Err(error) = outcome
            && let Some(suppressed) = AWAY.ready()
        {
            tracing::warn!(%error, suppressed, "presence is not kept up");
        }
        if was != away {
            let any = self.shared.parts.iter().any(|part| part.away.load(Ordering::Relaxed));
            metrics::gauge!(names::PRESENCE_DEGRADED).set(f64::from(u8::from(any)));
        }
    }

    async fn end(&mut self) {
        let _ = self.report().await;
        if let Some(life) = &self.life {
            let _ = self.shared.presence.end(life).await;
        }
    }
}
