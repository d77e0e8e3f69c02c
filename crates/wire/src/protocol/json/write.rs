//! Appending JSON to a buffer.

use crate::protocol::RequestId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};

/// Appends `text` as a JSON string.
pub(crate) fn text(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => b'u',
            _ => continue,
        };
        out.put_slice(&bytes[done..at]);
        done = at + 1;
        out.put_u8(b'\\');
        out.put_u8(escape);
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let digits = [b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.put_slice(&digits);
        }
    }
    out.put_slice(&bytes[done..]);
    out.put_u8(b'"');
}

/// Appends a whole number.
pub(crate) fn number(out: &mut BytesMut, number: impl itoa::Integer) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends `bytes` as a string of base64.
pub(crate) fn base64(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u8(b'"');
    let len = base64::encoded_len(bytes.len(), true).unwrap_or(0);
    let start = out.len();
    out.resize(start + len, b'=');
    // The buffer has exactly the room that is needed: this cannot fail.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    debug_assert_eq!(written, len);
    out.put_u8(b'"');
}

/// Appends a request id.
pub(crate) fn id(out: &mut BytesMut, id: &RequestId) {
    match id {
        RequestId::Number(value) => number(out, *value),
        RequestId::Text(value) => text(out, value),
    }
}

/// Appends an array.
pub(crate) fn list<T>(
    out: &mut BytesMut,
    items: impl IntoIterator<Item = T>,
    mut each: impl FnMut(&mut BytesMut, T),
) {
    out.put_u8(b'[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        each(out, item);
    }
    out.put_u8(b']');
}

/// An object that grows member by member.
pub(crate) struct Object<'o> {
    out: &'o mut BytesMut,
    empty: bool,
}

impl<'o> Object<'o> {
    pub(crate) fn new(out: &'o mut BytesMut) -> Self {
        out.put_u8(b'{');
        Self { out, empty: true }
    }

    /// The object of an operation: its first members are `op` and, where there is one, `id`.
    pub(crate) fn op(out: &'o mut BytesMut, op: &str, id: Option<&RequestId>) -> Self {
        let mut object = Self::new(out);
        object.text("op", op);
        if let Some(id) = id {
            self::id(object.member("id"), id);
        }
        object
    }

    /// Where the value of the next member is to be written.
    pub(crate) fn member(&mut self, name: &str) -> &mut BytesMut {
        self.out.put_slice(if self.empty { b"\"" } else { b",\"" });
        self.empty = false;
        self.out.put_slice(name.as_bytes());
        self.out.put_slice(b"\":");
        self.out
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        text(self.member(name), value);
    }

    pub(crate) fn optional_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub(crate) fn number(&mut self, name: &str, value: impl itoa::Integer) {
        number(self.member(name), value);
    }

    pub(crate) fn flag(&mut self, name: &str, value: bool) {
        self.member(name).put_slice(if value { b"true" } else { b"false" });
    }

    /// JSON text as it is.
    pub(crate) fn raw(&mut self, name: &str, value: &[u8]) {
        self.member(name).put_slice(value);
    }

    /// `data`, or `data_base64` where it is not JSON.
    pub(crate) fn data(&mut self, data: &[u8], binary: bool) {
        if binary {
            base64(self.member("data_base64"), data);
        } else {
            self.raw("data", data);
        }
    }

    pub(crate) fn end(self) {
        self.out.put_u8(b'}');
    }
}
