//! Protobuf's own encoding: tags, varints and lengths, over borrowed bytes.

use bytes::{BufMut, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Where bytes stop being protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not protobuf: at byte {at}, {what}")]
pub(crate) struct Broken {
    at: usize,
    what: &'static str,
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A fixed-width number; the protocol has none, so it is one of a newer version.
    Fixed,
}

/// Reads the fields of one message.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes of the whole message.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    const fn broken<T>(&self, what: &'static str) -> Result<T, Broken> {
        Err(Broken { at: self.at, what })
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(byte) = self.bytes.get(self.at) else {
                return self.broken("it ends inside a number");
            };
            self.at += 1;
            if shift == 63 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        self.broken("a number is longer than 64 bits")
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Broken> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let Some(taken) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return self.broken("it ends inside a field");
        };
        self.at += taken.len();
        Ok(taken)
    }

    /// The next field's number and value; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Broken> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let Some(number) = u32::try_from(key >> 3).ok().filter(|number| *number > 0) else {
            return self.broken("a field has a number out of range");
        };
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return self.broken("a field has a kind that proto3 does not have"),
        };
        Ok(Some((number, value)))
    }
}

/// Bytes that field `number` takes with `len` bytes in it.
pub(crate) fn bytes_len(number: u32, len: usize) -> usize {
    prost::encoding::key_len(number) + encoded_len_varint(len as u64) + len
}

/// Appends the head of field `number`, whose `len` bytes follow.
pub(crate) fn put_head(out: &mut BytesMut, number: u32, len: usize) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// Appends a text or bytes.
pub(crate) fn put_bytes(out: &mut BytesMut, number: u32, value: &[u8]) {
    put_head(out, number, value.len());
    out.put_slice(value);
}

/// Appends a number, unless it is the default.
pub(crate) fn put_varint(out: &mut BytesMut, number: u32, value: u64) {
    if value != 0 {
        encode_key(number, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// Bytes of a number as [`put_varint`] writes it.
pub(crate) fn varint_len(number: u32, value: u64) -> usize {
    if value == 0 { 0 } else { prost::encoding::key_len(number) + encoded_len_varint(value) }
}
