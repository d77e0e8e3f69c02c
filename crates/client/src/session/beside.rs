//! What is said besides events: who is there, and signals.

use super::{Answer, Ask, Session, request};
use crate::ClientError;
use crate::asides::Aside;
use crate::members::MembersTold;
use stormwire_core::{Channel, Pattern};
use stormwire_wire::protocol::{Operation, ServerMessage};
use tokio::sync::oneshot;
use tokio::time::Instant;

impl Session {
    /// Takes a message about members, or a signal.
    pub(super) fn beside(&mut self, message: ServerMessage<'_>) {
        match message {
            ServerMessage::Presence(page) if page.id.is_some() => {
                if let Some(ask) = self.answered(page.id.as_ref()) {
                    let _ = ask.reply.send(Ok(Answer::Members(page)));
                }
            }
            ServerMessage::Presence(page) => {
                self.aside(page.channel.clone(), Aside::Members(MembersTold::Stand(page)));
            }
            ServerMessage::Joined(change) => {
                self.aside(change.channel.clone(), Aside::Members(MembersTold::Joined(change)));
            }
            ServerMessage::Left(change) => {
                self.aside(change.channel.clone(), Aside::Members(MembersTold::Left(change)));
            }
            ServerMessage::Signal { channel, from, data } => {
                let (from, data) = (from.into_owned(), data.into_owned());
                self.aside(channel, Aside::Signal { from, data });
            }
            _ => {}
        }
    }

    /// Says a signal, once: on this connection or not at all.
    pub(super) fn signal(
        &mut self,
        op: Operation<'static>,
        reply: oneshot::Sender<Result<Answer, ClientError>>,
        now: Instant,
    ) {
        if !self.connected {
            let _ = reply.send(Err(ClientError::Lost));
            return;
        }
        // It has no answer of its own: what is asked behind it, in the same order, has one.
        let (signal, behind) = (self.next_id(), self.next_id());
        self.control.push_back(request(signal, op));
        self.control.push_back(request(behind, Operation::Ping));
        let deadline = now + self.request_timeout;
        self.asks.insert(behind, Ask { op: Operation::Ping, reply, deadline });
        self.signals.insert(signal, behind);
    }

    fn aside(&self, channel: Channel, aside: Aside) {
        if let Some(follow) = self.follows.get(&Pattern::Exact(channel)) {
            follow.aside(aside);
        }
    }
}
