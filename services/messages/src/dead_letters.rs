//! What could not be stored as what it is: looked at, published again, or dropped.

use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use stormwire_archive::{Archive, ArchiveError, DeadLetter, DeadLetterFilter};
use stormwire_core::Channel;
use stormwire_wire::frame::{EncodedEvents, Events, Frame, FrameBuilder, FrameError, FrameId};

/// The dead letters of an archive.
#[derive(Clone)]
pub struct DeadLetters {
    archive: Arc<dyn Archive>,
}

/// An event of a dead letter, to be published again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Where it goes.
    pub channel: Channel,
    /// The same for every attempt to replay it: as a producer's id it keeps a second attempt from doubling.
    pub idempotency: String,
    /// What kind of event.
    pub kind: Option<String>,
    /// What it is about.
    pub key: Option<String>,
    /// The client's own id.
    pub id: Option<String>,
    /// JSON text, or bytes.
    pub data: Bytes,
    /// Whether `data` is bytes.
    pub binary: bool,
}

/// Why a dead letter was not replayed; it is still there.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E: fmt::Display> {
    /// There is none of that number.
    #[error("there is no dead letter {0}")]
    NotFound(i64),
    /// Its channel could not be read.
    #[error(
        "its channel cannot be read, so it cannot be published; show it, and drop it when it is of no use"
    )]
    NoChannel,
    /// It still cannot be decoded.
    #[error("it still cannot be decoded ({0}); a newer program may read it")]
    Undecodable(#[from] FrameError),
    /// The publisher refused it.
    #[error("it was not published: {0}")]
    Refused(E),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl DeadLetters {
    /// Those of `archive`.
    #[must_use]
    pub fn new(archive: Arc<dyn Archive>) -> Self {
        Self { archive }
    }

    /// A page of them, ascending by number.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn list(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, ArchiveError> {
        self.archive.dead_letters(filter).await
    }

    /// One of them.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn show(&self, id: i64) -> Result<Option<DeadLetter>, ArchiveError> {
        self.archive.dead_letter(id).await
    }

    /// Removes one; `false` if there is none of that number.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn drop(&self, id: i64) -> Result<bool, ArchiveError> {
        self.archive.drop_dead_letter(id).await
    }

    /// Publishes the events of one dead letter through `publish`, in order, and removes it when all were
    /// taken. Says how many there were. An attempt that stops half-way leaves it there; the next one
    /// gives the same [`Replayed::idempotency`] again.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub async fn replay<E, F>(
        &self,
        id: i64,
        mut publish: impl FnMut(Replayed) -> F,
    ) -> Result<usize, ReplayError<E>>
    where
        E: fmt::Display,
        F: Future<Output = Result<(), E>>,
    {
        let letter = self.archive.dead_letter(id).await?.ok_or(ReplayError::NotFound(id))?;
        let events = events(&letter)?;
        let count = events.len();
        for event in events {
            publish(event).await.map_err(ReplayError::Refused)?;
        }
        self.archive.drop_dead_letter(id).await?;
        Ok(count)
    }
}

fn events<E: fmt::Display>(letter: &DeadLetter) -> Result<Vec<Replayed>, ReplayError<E>> {
    let frame = if letter.whole_frame { Frame::decode(&letter.bytes)? } else { alone(letter)? };
    let Some(events) = frame.events() else { return Ok(Vec::new()) };
    unpack(letter.id, events)
}

/// A frame around the one event of a letter, which is how events are read.
fn alone<E: fmt::Display>(letter: &DeadLetter) -> Result<Frame, ReplayError<E>> {
    let channel = letter.channel.as_deref().and_then(|name| Channel::parse(name).ok());
    let channel = channel.ok_or(ReplayError::NoChannel)?;
    let event = EncodedEvents::from_wire(letter.bytes.clone(), 1)?;
    let mut builder = FrameBuilder::default();
    builder.push(&channel, "", "", 0, None, &event);
    Ok(Frame::decode(&builder.finish(FrameId { appender: [0; 16], counter: 0 }))?)
}

fn unpack<E: fmt::Display>(letter: i64, events: &Events) -> Result<Vec<Replayed>, ReplayError<E>> {
    let mut replayed = Vec::with_capacity(usize::from(events.len()));
    for run in events.runs() {
        let channel = Channel::parse(run.channel).map_err(|_| ReplayError::NoChannel)?;
        for event in run.events() {
            replayed.push(Replayed {
                channel: channel.clone(),
                idempotency: format!("dead-letter-{letter}-{}", event.index),
                kind: event.kind.map(str::to_owned),
                key: event.key.map(str::to_owned),
                id: event.id.map(str::to_owned),
                data: run.share(event.data),
                binary: event.binary,
            });
        }
    }
    Ok(replayed)
}
