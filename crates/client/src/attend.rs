//! A subscription as a member: events, who is there, and signals.

use crate::asides::{Aside, Asides};
use crate::members::{Changes, MembersView};
use crate::{Client, ClientError, Delivery, Member, MembersPage, Payload, Subscription};
use futures::future::BoxFuture;
use rand::Rng as _;
use std::time::Duration;
use stormwire_core::Channel;
use stormwire_wire::protocol::MEMBERS_LIMIT_MAX;

/// Whoever reads everybody again waits up to this long, so that the many who were told the same do not all
/// ask at once.
const AGAIN_WITHIN: Duration = Duration::from_millis(500);
/// When a page that could not be had is asked for again, unless the server names another time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One thing that a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Events of the channel, or a gap in them.
    Delivery(Delivery),
    /// The members have changed: from what was told before to [`Attendance::members`]. Where so many come
    /// and go that they are not told one by one, both lists are empty, the new [`Attendance::counts`] are
    /// there, and who it was follows later.
    Members {
        /// Who is there now and was not before; of the first news, everybody.
        joined: Vec<Member>,
        /// Who was there before and is no more.
        left: Vec<Member>,
    },
    /// Somebody said something that is not stored.
    Signal {
        /// Who.
        from: String,
        /// What.
        data: Payload<'static>,
    },
}

/// A member's place in a channel. Dropping it leaves the channel.
///
/// It is to be read steadily: a reader so slow that its events do not fit into the queue is taken out of
/// the channel, and comes back with everything it missed once it has room again. Signals that do not fit
/// are lost, as signals may be.
#[derive(Debug)]
pub struct Attendance {
    client: Client,
    channel: Channel,
    subscription: Subscription,
    asides: Asides,
    view: MembersView,
    page: Option<Asked>,
    /// When the next page may be asked for.
    pause: Duration,
}

/// A page that is asked for.
struct Asked {
    reading: u64,
    page: BoxFuture<'static, Result<MembersPage, ClientError>>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("reading", &self.reading).finish_non_exhaustive()
    }
}

impl Attendance {
    pub(crate) fn new(
        client: Client,
        channel: Channel,
        subscription: Subscription,
        asides: Asides,
    ) -> Self {
        let (view, page, pause) = (MembersView::new(), None, Duration::ZERO);
        Self { client, channel, subscription, asides, view, page, pause }
    }

    /// Everybody who is there, this client included, in the order of user and session.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.view.known().iter()
    }

    /// How many users and how many members (sessions of users) the server counted last. Newer than
    /// [`Attendance::members`] while those are being read.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        self.view.counts()
    }

    /// Whether members and counts are of one state; else members are being read, or on their way.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.view.is_complete()
    }

    /// Whether the server said that members of some gateways may be missing.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.view.is_partial()
    }

    /// The subscription: its channel, and where its reader stands.
    #[must_use]
    pub const fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// The next news; `None` is the end after [`Client::close`]. An error of the subscription is the last
    /// thing; that of a server that does not show the members is told once. Dropping the future that this
    /// returns loses nothing.
    pub async fn next(&mut self) -> Option<Result<News, ClientError>> {
        loop {
            self.ask();
            let counts = self.view.counts();
            let changes = tokio::select! {
                page = answer(&mut self.page) => match self.paged(page) {
                    Ok(changes) => changes,
                    Err(error) => return Some(Err(error)),
                },
                Some(aside) = self.asides.next() => match aside {
                    Aside::Signal { from, data } => return Some(Ok(News::Signal { from, data })),
                    Aside::Members(told) => self.view.told(told),
                    Aside::Missed => {
                        self.view.read_again();
                        None
                    }
                },
                delivery = self.subscription.next() => {
                    return delivery.map(|delivery| delivery.map(News::Delivery));
                }
            };
            if changes.is_some() || self.view.counts() != counts {
                let Changes { joined, left } = changes.unwrap_or_default();
                return Some(Ok(News::Members { joined, left }));
            }
        }
    }

    /// Asks for the page that the view wants, if it is not asked for already.
    fn ask(&mut self) {
        let reading = self.view.readings();
        let Some(after) = self.view.wants() else {
            self.page = None;
            return;
        };
        if self.page.as_ref().is_some_and(|asked| asked.reading == reading) {
            return;
        }
        let mut pause = std::mem::take(&mut self.pause);
        if after.is_none() && reading > 0 {
            pause += rand::rng().random_range(Duration::ZERO..AGAIN_WITHIN);
        }
        let (client, channel) = (self.client.clone(), self.channel.clone());
        let after = after.map(Box::<str>::from);
        let page = Box::pin(async move {
            tokio::time::sleep(pause).await;
            client.members(&channel, after.as_deref(), MEMBERS_LIMIT_MAX).await
        });
        self.page = Some(Asked { reading, page });
    }

    fn paged(
        &mut self,
        page: Result<MembersPage, ClientError>,
    ) -> Result<Option<Changes>, ClientError> {
        self.page = None;
        match page {
            Ok(page) => return Ok(self.view.page(page)),
            Err(ClientError::Refused(error)) if error.temporary => {
                self.pause = error.retry_after.unwrap_or(RETRY_AFTER);
            }
            Err(ClientError::Deadline(_)) => self.pause = RETRY_AFTER,
            // The subscription says so as well, behind what it has still to tell.
            Err(ClientError::Ended(_)) => self.view.give_up(),
            Err(error) => {
                self.view.give_up();
                return Err(error);
            }
        }
        Ok(None)
    }
}

async fn answer(asked: &mut Option<Asked>) -> Result<MembersPage, ClientError> {
    match asked {
        Some(asked) => (&mut asked.page).await,
        None => std::future::pending().await,
    }
}
