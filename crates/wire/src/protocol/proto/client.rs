//! Writing what a client says, in protobuf.

use super::messages as pb;
use crate::protocol::{
    Mode, Operation, Page, Payload, Publish, Receipt, Request, RequestId, Since, Subscribe, Target,
};
use bytes::BytesMut;
use stormwire_core::Position;

/// Appends a whole message with one request.
pub(crate) fn request(out: &mut BytesMut, request: &Request<'_>) {
    let message = pb::Request { id: request.id.as_ref().map(id), op: Some(operation(&request.op)) };
    prost::encoding::message::encode(1, &message, out);
}

pub(super) fn id(id: &RequestId) -> pb::RequestId {
    match id {
        RequestId::Number(number) => pb::RequestId::Number(*number),
        RequestId::Text(text) => pb::RequestId::Text(text.to_string()),
    }
}

pub(super) fn position(position: Position) -> pb::Position {
    pb::Position { epoch: position.epoch.0, offset: position.offset.0 }
}

pub(super) fn data(payload: &Payload<'_>) -> (Vec<u8>, bool) {
    let (bytes, binary) = payload.parts();
    (bytes.to_vec(), binary)
}

fn operation(op: &Operation<'_>) -> pb::RequestOp {
    match op {
        Operation::Connect(connect) => pb::RequestOp::Connect(pb::Connect {
            token: connect.token.as_deref().map(str::to_owned),
            producer: connect.producer.as_deref().map(str::to_owned),
        }),
        Operation::Subscribe(op) => pb::RequestOp::Subscribe(subscribe(op)),
        Operation::Publish(op) => pb::RequestOp::Publish(publish(op)),
        Operation::Signal(signal) => {
            let (data, binary) = data(&signal.data);
            pb::RequestOp::Signal(pb::Signal { channel: signal.channel.to_string(), data, binary })
        }
        Operation::History(history) => pb::RequestOp::History(pb::History {
            channel: history.channel.to_string(),
            page: match &history.page {
                Page::Last => None,
                Page::After(at) => Some(pb::HistoryPoint::After(position(*at))),
                Page::Before(at) => Some(pb::HistoryPoint::Before(position(*at))),
                Page::Key(key) => Some(pb::HistoryPoint::Key(key.to_string())),
                Page::KeysAfter(key) => Some(pb::HistoryPoint::KeysAfter(key.to_string())),
            },
            limit: history.limit,
        }),
        Operation::Presence(query) => pb::RequestOp::Presence(pb::Presence {
            channel: query.channel.to_string(),
            after: query.after.as_deref().map(str::to_owned),
            limit: query.limit,
        }),
        Operation::Unsubscribe(op) => {
            let (channels, pattern) = target(op);
            pb::RequestOp::Unsubscribe(pb::Unsubscribe { channels, pattern })
        }
        Operation::Refresh(token) => {
            pb::RequestOp::Refresh(pb::Refresh { token: token.to_string() })
        }
        Operation::Ping => pb::RequestOp::Ping(pb::Ping {}),
    }
}

fn subscribe(op: &Subscribe) -> pb::Subscribe {
    let (channels, pattern) = target(&op.target);
    let since = op.since.as_ref().map(|since| pb::Since {
        since: Some(match since {
            Since::Position(at) => pb::SincePoint::Position(position(*at)),
            Since::Time(time) => pb::SincePoint::Time(time.0),
            Since::Last(last) => pb::SincePoint::Last(*last),
            Since::Cursor(cursor) => pb::SincePoint::Cursor(cursor.encode()),
        }),
    });
    let mode = match op.mode {
        Mode::All => pb::Mode::All,
        Mode::Latest => pb::Mode::Latest,
    };
    pb::Subscribe { channels, pattern, since, mode: mode.into(), presence: op.presence }
}

fn target(target: &Target) -> (Vec<String>, Option<String>) {
    match target {
        Target::Channels(channels) => (channels.iter().map(ToString::to_string).collect(), None),
        Target::Pattern(pattern) => (Vec::new(), Some(pattern.to_string())),
    }
}

fn publish(op: &Publish<'_>) -> pb::Publish {
    let event = |event: crate::frame::EventParts<'_>| pb::PublishEvent {
        kind: event.kind.map(str::to_owned),
        key: event.key.map(str::to_owned),
        id: event.id.map(str::to_owned),
        data: event.data.to_vec(),
        binary: event.binary,
    };
    let receipt = match op.receipt {
        Receipt::Journal => pb::Receipt::Journal,
        Receipt::Archive => pb::Receipt::Archive,
    };
    pb::Publish {
        channel: op.channel.to_string(),
        seq: op.seq,
        again: op.again.map(crate::protocol::encode::millis),
        receipt: receipt.into(),
        events: op.events.iter().map(event).collect(),
    }
}
