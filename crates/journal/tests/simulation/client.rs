//! A producer of the simulation: numbers its publishes, repeats what it does not know, in order.

use std::collections::VecDeque;
use std::sync::Arc;
use stormwire_core::{Epoch, Offset};

/// What the producer knows about one publish.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    pub(crate) seq: u64,
    pub(crate) count: usize,
    pub(crate) first_sent: u64,
    /// Whether it waits for an answer on the present connection.
    pub(crate) outstanding: bool,
    pub(crate) sent_before: bool,
    /// Whether some attempt may have been stored.
    pub(crate) uncertain: bool,
    /// How often it was answered like that.
    pub(crate) unknowns: u32,
}

/// How a publish ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Acknowledged {
        epoch: Epoch,
        first: Offset,
        last: Offset,
    },
    /// Final, after attempts of which at least one may have been stored.
    Uncertain,
    /// Final, and surely not stored.
    Refused,
}

pub(crate) struct Client {
    pub(crate) user: Arc<str>,
    pub(crate) producer: Option<Arc<str>>,
    pub(crate) node: usize,
    pub(crate) connection: u64,
    pub(crate) next_seq: u64,
    pub(crate) left: usize,
    pub(crate) window: VecDeque<Publish>,
    pub(crate) ended: Vec<(Publish, End)>,
    /// Refused lately: repeats after this time.
    pub(crate) wait_until: u64,
}

impl Client {
    /// The next thing to send: what was refused, lowest first; else something new if the window lets it.
    pub(crate) fn next(&mut self, now: u64, count: usize) -> Option<Publish> {
        if now < self.wait_until {
            return None;
        }
        if let Some(again) = self.window.iter_mut().find(|publish| !publish.outstanding) {
            again.outstanding = true;
            let copy = again.clone();
            again.sent_before = true;
            return Some(copy);
        }
        if self.left == 0 || self.window.len() >= 8 {
            return None;
        }
        self.left -= 1;
        let publish = Publish {
            seq: self.next_seq,
            count,
            first_sent: now,
            outstanding: true,
            sent_before: false,
            uncertain: false,
            unknowns: 0,
        };
        self.next_seq += count as u64;
        self.window.push_back(Publish { sent_before: true, ..publish.clone() });
        Some(publish)
    }

    /// Its connection is gone: nothing is known about what was outstanding.
    pub(crate) fn reconnect(&mut self, node: usize, connection: u64) {
        (self.node, self.connection, self.wait_until) = (node, connection, 0);
        for publish in &mut self.window {
            publish.uncertain |= publish.outstanding;
            publish.outstanding = false;
        }
        if self.producer.is_none() {
            // Without a producer nothing can be repeated: what is unknown stays so.
            for publish in std::mem::take(&mut self.window) {
                let end = if publish.uncertain { End::Uncertain } else { End::Refused };
                self.ended.push((publish, end));
            }
        }
    }

    pub(crate) fn end(&mut self, seq: u64, end: End) {
        let at = self.window.iter().position(|publish| publish.seq == seq);
        if let Some(publish) = at.and_then(|at| self.window.remove(at)) {
            self.ended.push((publish, end));
        }
    }
}
