//! Reading and writing the parts of a message.

use super::MessageError;
use bytes::{BufMut, Bytes, BytesMut};

/// A text of at most 255 bytes; a longer one is cut at a character.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    let text = &text[..text.floor_char_boundary(255)];
    out.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.put_slice(text.as_bytes());
}

pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins behind version and kind, which must be one of `kinds`.
    pub(super) fn begin(bytes: &'a Bytes, kinds: &[(u8, u8)]) -> Result<Self, MessageError> {
        let head = bytes.get(..2).ok_or(MessageError("too short"))?;
        if kinds.contains(&(head[0], head[1])) {
            Ok(Self { bytes, at: 2 })
        } else {
            Err(MessageError("another version or kind"))
        }
    }

    pub(super) fn end(&self) -> Result<(), MessageError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(MessageError("bytes left over")) }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        let end = self.at.checked_add(len).ok_or(MessageError("too short"))?;
        let part = self.bytes.get(self.at..end).ok_or(MessageError("too short"))?;
        self.at = end;
        Ok(part)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(super) fn u8(&mut self) -> Result<u8, MessageError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, MessageError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, MessageError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, MessageError> {
        let len = usize::from(self.u8()?);
        std::str::from_utf8(self.take(len)?).map_err(|_| MessageError("a text that is not UTF-8"))
    }

    /// Bytes with their length before them, sharing the message's memory.
    pub(super) fn bytes(&mut self) -> Result<Bytes, MessageError> {
        let len = self.u32()? as usize;
        let part = self.take(len)?;
        Ok(self.bytes.slice_ref(part))
    }
}
