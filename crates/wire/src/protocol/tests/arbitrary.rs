//! Any message that the protocol allows.

use crate::frame::{EncodedEvents, EventParts, EventsBuilder};
use crate::protocol::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::borrow::Cow;
use std::time::Duration;
use stormwire_core::{Channel, Epoch, Offset, Partition, Pattern, Position, Timestamp};

pub(crate) fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?",
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "\"(\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|[ -!#-\\[\\]-~])*\"",
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            vec((any::<String>(), inner), 0..4).prop_map(|members| {
                let members: Vec<_> = members
                    .into_iter()
                    .map(|(key, value)| {
                        format!("{}:\t{value}", serde_json::to_string(&key).unwrap())
                    })
                    .collect();
                format!("{{{}}}", members.join(",\n"))
            }),
        ]
    })
}

fn attribute() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{1,40}".prop_filter("fits", |text| text.len() <= 255)
}

pub(crate) fn payload() -> impl Strategy<Value = Payload<'static>> {
    prop_oneof![
        json().prop_map(|text| Payload::Json(Cow::Owned(text))),
        vec(any::<u8>(), 0..60).prop_map(|bytes| Payload::Binary(Cow::Owned(bytes))),
    ]
}

pub(crate) fn events() -> impl Strategy<Value = EncodedEvents> {
    let event =
        (option::of(attribute()), option::of(attribute()), option::of(attribute()), payload());
    vec(event, 1..5).prop_map(|events| {
        let mut builder = EventsBuilder::default();
        for (kind, key, id, payload) in &events {
            let (data, binary) = payload.parts();
            let (kind, key, id) = (kind.as_deref(), key.as_deref(), id.as_deref());
            builder.push(&EventParts { kind, key, id, data, binary }).unwrap();
        }
        builder.take()
    })
}

pub(crate) fn id() -> impl Strategy<Value = Option<RequestId>> {
    option::of(prop_oneof![
        any::<i64>().prop_map(RequestId::Number),
        Just(RequestId::Number(0)),
        "[^\\x00]{1,16}".prop_map(|text| RequestId::Text(text.into())),
    ])
}

pub(crate) fn channel() -> impl Strategy<Value = Channel> {
    "[a-z]{1,6}:[A-Za-z0-9_.~-]{1,12}".prop_map(|text| Channel::parse(&text).unwrap())
}

fn position() -> impl Strategy<Value = Position> {
    (1..u32::MAX, 0..=INTEGER_MAX)
        .prop_map(|(epoch, offset)| Position { epoch: Epoch(epoch), offset: Offset(offset) })
}

pub(crate) fn cursor() -> impl Strategy<Value = Cursor> {
    vec((0u16..64, position()), 0..6)
        .prop_map(|list| Cursor::new(list.into_iter().map(|(p, at)| (Partition(p), at))))
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        vec(channel(), 1..4).prop_map(Target::Channels),
        Just(Target::Pattern(Pattern::parse("orders:eu.*").unwrap())),
    ]
}

fn millis() -> impl Strategy<Value = Duration> {
    (0..=INTEGER_MAX).prop_map(Duration::from_millis)
}

fn subscribe() -> impl Strategy<Value = Subscribe> {
    let since = prop_oneof![
        position().prop_map(Since::Position),
        (0..1i64 << 53).prop_map(|time| Since::Time(Timestamp(time))),
        (0..=HISTORY_LIMIT_MAX).prop_map(Since::Last),
        cursor().prop_map(Since::Cursor),
    ];
    (target(), option::of(since), any::<bool>(), any::<bool>()).prop_map(
        |(target, since, latest, presence)| {
            let mode = if latest { Mode::Latest } else { Mode::All };
            Subscribe { target, since, mode, presence }
        },
    )
}

fn publish() -> impl Strategy<Value = Publish<'static>> {
    (channel(), option::of(1..=INTEGER_MAX), option::of(millis()), any::<bool>(), events())
        .prop_map(|(channel, seq, again, archive, events)| {
            let channel = Cow::Owned(channel.to_string());
            let receipt = if archive { Receipt::Archive } else { Receipt::Journal };
            Publish { channel, seq, again, receipt, events }
        })
}

fn history() -> impl Strategy<Value = History> {
    let page = prop_oneof![
        Just(Page::Last),
        position().prop_map(Page::After),
        position().prop_map(Page::Before),
        "[a-zé]{1,9}".prop_map(|key| Page::Key(key.into())),
        "[a-zé]{0,9}".prop_map(|key| Page::KeysAfter(key.into())),
    ];
    (channel(), page, 1..=HISTORY_LIMIT_MAX).prop_map(|(channel, page, limit)| History {
        channel,
        page,
        limit,
    })
}

pub(crate) fn request() -> impl Strategy<Value = Request<'static>> {
    let op = prop_oneof![
        (option::of("[!-~]{1,40}"), option::of(attribute())).prop_map(|(token, producer)| {
            let producer = producer.filter(|text| text.len() <= 64).map(Into::into);
            Operation::Connect(Connect { token: token.map(Into::into), producer })
        }),
        subscribe().prop_map(Operation::Subscribe),
        publish().prop_map(Operation::Publish),
        (channel(), payload())
            .prop_map(|(channel, data)| Operation::Signal(Signal { channel, data })),
        history().prop_map(Operation::History),
        presence_query().prop_map(Operation::Presence),
        target().prop_map(Operation::Unsubscribe),
        "[!-~]{1,40}".prop_map(|token| Operation::Refresh(token.into())),
        Just(Operation::Ping),
    ];
    (id(), op).prop_map(|(id, op)| Request { id, op })
}

fn boxed() -> impl Strategy<Value = Box<str>> {
    any::<String>().prop_map(Into::into)
}

fn delivered() -> impl Strategy<Value = DeliveredEvent<'static>> {
    let texts = (
        any::<String>(),
        option::of(any::<String>()),
        option::of(any::<String>()),
        any::<String>(),
    );
    (0..=INTEGER_MAX, any::<i64>(), texts, payload()).prop_map(|(offset, ts, texts, data)| {
        let (id, kind, key, from) = texts;
        DeliveredEvent {
            offset: Offset(offset),
            ts: Timestamp(ts),
            id: Cow::Owned(id),
            kind: kind.map(Cow::Owned),
            key: key.map(Cow::Owned),
            from: Cow::Owned(from),
            data,
        }
    })
}

fn member() -> impl Strategy<Value = Member> {
    (boxed(), boxed()).prop_map(|(user, session)| Member { user, session })
}

fn presence_query() -> impl Strategy<Value = PresenceQuery> {
    (channel(), option::of("[!-~]{1,40}"), 1..=MEMBERS_LIMIT_MAX).prop_map(
        |(channel, after, limit)| PresenceQuery { channel, after: after.map(Into::into), limit },
    )
}

fn integers() -> impl Strategy<Value = (u64, u64, u64)> {
    (0..=INTEGER_MAX, 0..=INTEGER_MAX, 0..=INTEGER_MAX)
}

fn members_page() -> impl Strategy<Value = MembersPage> {
    let rest = (option::of(boxed()), any::<bool>(), any::<bool>());
    (id(), channel(), integers(), vec(member(), 0..3), rest).prop_map(
        |(id, channel, (version, users, sessions), members, (next, partial, resync))| MembersPage {
            id,
            channel,
            version,
            users,
            sessions,
            members,
            next,
            partial,
            resync,
        },
    )
}

fn member_change() -> impl Strategy<Value = MemberChange> {
    (channel(), 0..=INTEGER_MAX, integers(), vec(member(), 0..3), any::<bool>()).prop_map(
        |(channel, since, (version, users, sessions), members, more)| MemberChange {
            channel,
            since,
            version,
            users,
            sessions,
            members,
            more,
        },
    )
}

fn connected() -> impl Strategy<Value = ServerMessage<'static>> {
    (id(), boxed(), boxed(), millis(), any::<u32>(), any::<i64>()).prop_map(
        |(id, session, user, heartbeat, unacked, time)| {
            let limits = ConnectedLimits { unacked };
            let server_time = Timestamp(time);
            ServerMessage::Connected(Connected {
                id,
                session,
                user,
                heartbeat,
                limits,
                server_time,
            })
        },
    )
}

fn subscribed() -> impl Strategy<Value = ServerMessage<'static>> {
    prop_oneof![
        (id(), channel(), position(), any::<bool>()).prop_map(
            |(id, channel, position, recovered)| {
                ServerMessage::Subscribed(Subscribed::Channel { id, channel, position, recovered })
            }
        ),
        (id(), cursor(), any::<bool>()).prop_map(|(id, cursor, recovered)| {
            let pattern = "orders:*".into();
            ServerMessage::Subscribed(Subscribed::Pattern { id, pattern, cursor, recovered })
        }),
    ]
}

fn published() -> impl Strategy<Value = ServerMessage<'static>> {
    (id(), position(), 0..=INTEGER_MAX, any::<i64>(), any::<bool>(), 0u32..9).prop_map(
        |(id, Position { epoch, offset: first }, last, time, duplicate, dead_letters)| {
            let (last, server_time) = (Offset(last), Timestamp(time));
            ServerMessage::Published(Published {
                id,
                epoch,
                first,
                last,
                server_time,
                duplicate,
                dead_letters,
            })
        },
    )
}

fn error() -> impl Strategy<Value = ServerMessage<'static>> {
    (id(), boxed(), boxed(), any::<bool>(), option::of(millis()), option::of(any::<u64>()))
        .prop_map(|(id, code, message, temporary, retry_after, expected)| {
            let error = ErrorMessage { id, code, message, temporary, retry_after, expected };
            ServerMessage::Error(error)
        })
}

fn small() -> impl Strategy<Value = ServerMessage<'static>> {
    prop_oneof![
        members_page().prop_map(ServerMessage::Presence),
        member_change().prop_map(ServerMessage::Joined),
        member_change().prop_map(ServerMessage::Left),
        (channel(), any::<String>(), payload()).prop_map(|(channel, from, data)| {
            ServerMessage::Signal { channel, from: Cow::Owned(from), data }
        }),
        (id(), "x:(a|[*])").prop_map(|(id, target)| ServerMessage::Unsubscribed {
            id,
            target: Cow::Owned(target)
        }),
        (id(), millis()).prop_map(|(id, expires_in)| ServerMessage::Refreshed { id, expires_in }),
        (id(), any::<i64>())
            .prop_map(|(id, time)| ServerMessage::Pong { id, server_time: Timestamp(time) }),
        millis().prop_map(|reconnect_after| ServerMessage::Moving { reconnect_after }),
        (gap_target(), position(), position())
            .prop_map(|(target, from, to)| ServerMessage::Gap(Gap { target, from, to })),
    ]
}

fn gap_target() -> impl Strategy<Value = GapTarget> {
    prop_oneof![
        channel().prop_map(GapTarget::Channel),
        (0..64u16, cursor()).prop_map(|(partition, cursor)| GapTarget::Pattern {
            pattern: "orders:*".into(),
            partition: Partition(partition),
            cursor,
        }),
    ]
}

pub(crate) fn server_message() -> impl Strategy<Value = ServerMessage<'static>> {
    let channel = || channel().prop_map(|channel| Cow::Owned(channel.to_string()));
    let epoch = || (1..u32::MAX).prop_map(Epoch);
    let pattern = option::of(Just(Cow::Borrowed("orders:*")));
    let events = (channel(), epoch(), vec(delivered(), 0..4), pattern, option::of(cursor()));
    let events = events.prop_map(|(channel, epoch, events, pattern, cursor)| {
        ServerMessage::Events(EventsMessage { channel, epoch, events, pattern, cursor })
    });
    let gaps = vec((position(), position()), 0..3);
    let page = (id(), channel(), epoch(), vec(delivered(), 0..4), any::<bool>(), gaps);
    let history = page.prop_map(|(id, channel, epoch, events, more, gaps)| {
        ServerMessage::History(HistoryPage { id, channel, epoch, events, more, gaps })
    });
    prop_oneof![connected(), subscribed(), published(), error(), small(), events, history]
}
