//! Who a connection is: by the token it began with, those that replace it, and channel tokens beside it.

use super::{
    CONNECT_WITHIN, HEARTBEAT, KNOWN_CHANNELS_MAX, Publishable, Session, SessionContext, SignedIn,
};
use crate::schema::Schemas;
use std::collections::HashMap;
use std::sync::Arc;
use stormwire_core::{Channel, CloseCode, ErrorCode, Pattern, Refusal};
use stormwire_journal::publish::ProducerKey;
use stormwire_tokens::{Action, Claims, Target};
use stormwire_wire::protocol::{Connect, Connected, ConnectedLimits, RequestId, ServerMessage};
use tokio::time::Instant;

impl Session {
    /// When something is due even if nothing comes: the token or what came with it, or the end of it.
    pub(crate) fn deadline(&self) -> Instant {
        match &self.signed_in {
            None => self.since + CONNECT_WITHIN,
            Some(signed_in) => {
                Instant::now() + signed_in.claims.first_end().since(self.context.clock.now())
            }
        }
    }

    /// Whether [`Session::deadline`] has another answer than when this was asked last.
    pub(crate) fn take_deadline_changed(&mut self) -> bool {
        std::mem::take(&mut self.deadline_changed)
    }

    /// The deadline has come.
    pub(crate) fn on_deadline(&mut self) {
        let now = self.context.clock.now();
        let reason = match &self.signed_in {
            None => "no connect operation within 10 seconds",
            Some(signed_in) if signed_in.claims.expires <= now => "the token has expired",
            Some(signed_in) => {
                let claims = Arc::new(signed_in.claims.without_ended(now));
                return self.take(claims);
            }
        };
        self.outbox.close(CloseCode::Unauthenticated, reason);
    }

    /// Signs in with the token of the HTTP request, if it had one.
    pub(crate) async fn sign_in_by_header(&mut self) {
        if let Some(token) = self.accepted.token.take()
            && let Err(refusal) = self.sign_in(&token, None).await
        {
            self.refuse(None, &refusal);
            self.outbox.close(CloseCode::Unauthenticated, "the token was refused");
        }
    }

    pub(super) async fn connect(
        &mut self,
        id: Option<RequestId>,
        connect: Connect,
    ) -> Result<(), Refusal> {
        match (&connect.token, &mut self.signed_in) {
            (Some(token), None) => {
                if let Err(refusal) = self.sign_in(token, connect.producer).await {
                    self.outbox.close(CloseCode::Unauthenticated, "the token was refused");
                    return Err(refusal);
                }
            }
            // The HTTP request carried the token; only the producer is new.
            (None, Some(signed_in)) if signed_in.producer.is_none() => {
                signed_in.producer = connect.producer;
                self.announce_producer();
            }
            (None, None) => {
                return Err(Refusal::new(ErrorCode::Unauthenticated, "connect without a token"));
            }
            (_, Some(_)) => {
                return Err(Refusal::new(ErrorCode::Conflict, "this connection is connected"));
            }
        }
        let Some(signed_in) = &self.signed_in else { return Ok(()) };
        let unacked = u32::try_from(self.context.config.unacked_max).unwrap_or(u32::MAX);
        self.say(&ServerMessage::Connected(Connected {
            id,
            session: signed_in.session.clone(),
            user: (*signed_in.claims.user).into(),
            heartbeat: HEARTBEAT,
            limits: ConnectedLimits { unacked },
            server_time: self.context.clock.now(),
        }));
        Ok(())
    }

    async fn sign_in(&mut self, token: &str, producer: Option<Arc<str>>) -> Result<(), Refusal> {
        let claims = Arc::new(self.context.verifier.verify(token).await?);
        self.context.hold(self.registered.id, &claims)?;
        let session = match &claims.session {
            Some(session) => (**session).into(),
            None => uuid::Uuid::now_v7().to_string().into_boxed_str(),
        };
        self.deadline_changed = true;
        self.signed_in = Some(SignedIn {
            limits: stormwire_web::own_limits(&claims.limits),
            decided_by: (claims.namespaces.version(), self.context.schemas.version()),
            claims,
            producer,
            session,
            publishes_to: HashMap::new(),
        });
        self.announce_producer();
        Ok(())
    }

    /// `refresh`: the user's own token replaces the one before, a channel token is added to it.
    pub(super) async fn refresh(
        &mut self,
        id: Option<RequestId>,
        token: &str,
    ) -> Result<(), Refusal> {
        let signed_in = self.signed_in.as_ref().ok_or_else(super::connect_first)?;
        let (verifier, held) = (&self.context.verifier, &signed_in.claims);
        let (claims, ends) = if verifier.is_channel_token(token) {
            let claims = verifier.add_channel_token(held, token).await?;
            let ends = claims.channels.last().map_or(claims.expires, |grant| grant.expires);
            (claims, ends)
        } else {
            let fresh = verifier.verify(token).await?;
            if fresh.user != held.user {
                return Err(Refusal::new(
                    ErrorCode::Forbidden,
                    "the fresh token is of another user; connect anew with it",
                ));
            }
            let ends = fresh.expires;
            (Claims { channels: Arc::clone(&held.channels), ..fresh }, ends)
        };
        let claims = Arc::new(claims);
        self.context.hold(self.registered.id, &claims)?;
        let expires_in = ends.since(self.context.clock.now());
        self.say(&ServerMessage::Refreshed { id, expires_in });
        self.take(claims);
        Ok(())
    }

    /// Goes on with other claims of the same user: what they no longer allow ends.
    fn take(&mut self, claims: Arc<Claims>) {
        let Some(signed_in) = &mut self.signed_in else { return };
        signed_in.limits = stormwire_web::own_limits(&claims.limits);
        signed_in.claims = claims;
        signed_in.publishes_to.clear();
        self.deadline_changed = true;
        self.drop_withdrawn();
        self.drop_withdrawn_memberships();
    }

    fn announce_producer(&self) {
        if let Some(SignedIn { claims, producer: Some(producer), .. }) = &self.signed_in {
            let producer = ProducerKey::of(&claims.user, producer);
            let now = self.context.clock.now();
            if self.context.connections.produce(self.registered.id, producer, now) {
                self.context.ingest.producer_connected(producer, now);
            }
        }
    }

    /// Ends the subscriptions that are no longer allowed.
    fn drop_withdrawn(&mut self) {
        let Some(signed_in) = &self.signed_in else { return };
        let may = |target: Target<'_>| signed_in.claims.require(Action::Subscribe, target).is_ok();
        let channels = self.subscriptions.keys();
        let withdrawn: Vec<Channel> =
            channels.filter(|channel| !may(Target::Channel(channel.as_str()))).cloned().collect();
        let patterns = self.patterns.keys().filter(|text| {
            Pattern::parse(text).is_ok_and(|pattern| !may(Target::Pattern(&pattern)))
        });
        let patterns: Vec<Box<str>> = patterns.cloned().collect();
        for channel in withdrawn {
            self.end_subscription(&channel);
            let target = channel.as_str().to_owned().into();
            self.say(&ServerMessage::Unsubscribed { id: None, target });
        }
        for pattern in patterns {
            self.end_pattern(&pattern);
            let target = String::from(pattern).into();
            self.say(&ServerMessage::Unsubscribed { id: None, target });
        }
    }
}

impl SessionContext {
    /// Notes whose the connection is, so that it ends when their token is revoked; looks again afterwards, as
    /// that may just have happened.
    pub(super) fn hold(&self, connection: u64, claims: &Arc<Claims>) -> Result<(), Refusal> {
        self.connections.sign_in(connection, claims);
        self.verifier.check_revoked(claims)
    }
}

impl SignedIn {
    /// What was decided by rules that have changed since is decided anew.
    pub(super) fn forget_old_decisions(&mut self, schemas: &Schemas) {
        let now = (self.claims.namespaces.version(), schemas.version());
        if now != self.decided_by {
            self.decided_by = now;
            self.publishes_to.clear();
        }
    }

    /// Checks a channel that this connection has not published to before, and remembers it with what its
    /// data must look like.
    pub(super) fn allow_publish(
        &mut self,
        text: &str,
        schemas: &Schemas,
    ) -> Result<Publishable, (Option<Channel>, Refusal)> {
        let channel =
            stormwire_wire::protocol::channel("channel", text).map_err(|no| (None, no))?;
        let decided = self.claims.require(Action::Publish, Target::Channel(text));
        decided.map_err(|refusal| (Some(channel.clone()), refusal))?;
        if self.publishes_to.len() >= KNOWN_CHANNELS_MAX {
            self.publishes_to.clear();
        }
        let schema = schemas.of(&channel);
        self.publishes_to.insert(channel.clone(), schema.clone());
        Ok((channel, schema))
    }
}
