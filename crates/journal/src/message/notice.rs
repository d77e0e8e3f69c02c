//! What a gateway says beside its heartbeats, in a message of its own: older readers of heartbeats do not
//! understand it and lose nothing by it, and newer ones may append to it.

use super::{MessageError, Reader, VERSION, begin, put_text};
use crate::publish::ProducerKey;
use bytes::{BufMut as _, Bytes};
use stormwire_core::{Partition, Timestamp};

const KIND_NOTICE: u8 = 6;
/// Producers in one notice, so that it fits a message.
pub const NOTICE_PRODUCERS_MAX: usize = 16 * 1024;
const REACHES_JOURNAL: u8 = 1;

/// What other gateways should know about this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its name.
    pub gateway: String,
    /// As in its heartbeats.
    pub process: [u8; 16],
    /// D5: whether the journal has answered it lately.
    pub reaches_journal: bool,
    /// D5: partitions that it leaves to others for now.
    pub given_up: Vec<Partition>,
    /// B8: producers that have connected to it since the last notice, and when, by its clock. At most
    /// [`NOTICE_PRODUCERS_MAX`].
    pub connected: Vec<(ProducerKey, Timestamp)>,
}

impl Notice {
    /// `version kind | gateway | process 16 | flags u8 | given up u16 × partition u16 |
    /// connected u32 × (key 16, at i64)`, then whatever a later program appends.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let size = 64 + 2 * self.given_up.len() + 24 * self.connected.len();
        let mut out = begin(KIND_NOTICE, size);
        put_text(&mut out, &self.gateway);
        out.put_slice(&self.process);
        out.put_u8(if self.reaches_journal { REACHES_JOURNAL } else { 0 });
        out.put_u16_le(u16::try_from(self.given_up.len()).unwrap_or(u16::MAX));
        for partition in self.given_up.iter().take(usize::from(u16::MAX)) {
            out.put_u16_le(partition.0);
        }
        let connected = &self.connected[..self.connected.len().min(NOTICE_PRODUCERS_MAX)];
        out.put_u32_le(u32::try_from(connected.len()).unwrap_or(u32::MAX));
        for (ProducerKey([user, producer]), at) in connected {
            out.put_u64_le(*user);
            out.put_u64_le(*producer);
            out.put_i64_le(at.0);
        }
        out.freeze()
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`MessageError`] if it is not one.
    pub fn decode(bytes: &Bytes) -> Result<Self, MessageError> {
        let mut reader = Reader::begin(bytes, &[(VERSION, KIND_NOTICE)])?;
        let gateway = reader.text()?.to_owned();
        let process = reader.array()?;
        let reaches_journal = reader.u8()? & REACHES_JOURNAL != 0;
        let given_up = (0..reader.u16()?)
            .map(|_| reader.u16().map(Partition))
            .collect::<Result<_, MessageError>>()?;
        let count = reader.u32()? as usize;
        if count > NOTICE_PRODUCERS_MAX {
            return Err(MessageError("too many producers"));
        }
        let connected = (0..count)
            .map(|_| {
                let key = ProducerKey([reader.u64()?, reader.u64()?]);
                Ok((key, Timestamp(reader.i64()?)))
            })
            .collect::<Result<_, MessageError>>()?;
        Ok(Self { gateway, process, reaches_journal, given_up, connected })
    }
}
