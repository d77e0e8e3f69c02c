//! One message per codec, rendered when it is first asked for and shared by all who get it.

use axum::extract::ws::Message;
use stormwire_wire::protocol::Codec;

/// What one happening looks like on the wire.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    messages: [Option<Option<Message>>; Codec::ALL.len()],
}

impl Rendered {
    pub(super) fn get(
        &mut self,
        codec: Codec,
        render: impl FnOnce(Codec) -> Option<Message>,
    ) -> Option<&Message> {
        let slot = &mut self.messages[usize::from(codec == Codec::Protobuf)];
        slot.get_or_insert_with(|| render(codec)).as_ref()
    }
}
