//! A scanner over JSON text: it checks the grammar of RFC 8259 and hands out slices.
//!
//! It hands events to the builder on the way, without a list of them, goes back to skip what was wrong,
//! bounds the nesting without recursion, and says where and why it stopped. `serde_json` is its oracle in
//! the tests, and beside it in `examples/codec_speed.rs`.

use crate::protocol::DEPTH_MAX;
use std::borrow::Cow;

/// Where a text stops being JSON. Boxed, so that a result of the scanner fits in a register.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {}, {}", .0.0, .0.1)]
pub(crate) struct SyntaxError(Box<(usize, &'static str)>);

type Scan<T> = Result<T, SyntaxError>;

/// What is between the quotes of a string, and whether it holds escapes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawText<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> RawText<'a> {
    /// The text that is meant; `None` if an escape stands for half a character.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        if self.escaped {
            unescape(self.raw).map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(self.raw))
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Where the last string's text began.
    string_at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0, string_at: 0 }
    }

    #[cold]
    pub(crate) fn fail<T>(&self, expected: &'static str) -> Scan<T> {
        Err(SyntaxError(Box::new((self.at, expected))))
    }

    /// Bytes of the whole text.
    pub(crate) const fn len(&self) -> usize {
        self.text.len()
    }

    /// The next byte that is not white space; it stays.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Takes `byte` if it is next.
    #[inline]
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Scan<()> {
        if self.peek().is_some() { self.fail("the text should end") } else { Ok(()) }
    }

    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// Goes back to a place that [`Scanner::position`] named.
    pub(crate) const fn rewind(&mut self, at: usize) {
        self.at = at;
    }

    /// Takes a string.
    pub(crate) fn string(&mut self) -> Scan<RawText<'a>> {
        let escaped = self.skip_string()?;
        // What was taken ends in its quote and begins behind the other one.
        let end = self.at - 1;
        let raw = &self.text[self.string_at..end];
        Ok(RawText { raw, escaped })
    }

    /// Takes a string without looking at it again; says whether it has escapes.
    #[inline]
    fn skip_string(&mut self) -> Scan<bool> {
        if !self.eat(b'"') {
            return self.fail("a string should begin");
        }
        self.string_at = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_len(&self.bytes[self.at..]);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return self.fail("a control character has to be escaped"),
                None => return self.fail("the text ends inside a string"),
            }
        }
    }

    fn escape(&mut self) -> Scan<()> {
        let len = match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 2..self.at + 6).unwrap_or_default();
                if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return self.fail("\\u takes four hexadecimal digits");
                }
                6
            }
            _ => return self.fail("this escape does not exist"),
        };
        self.at += len;
        Ok(())
    }

    /// Takes a member's name and the colon after it.
    pub(crate) fn key(&mut self) -> Scan<RawText<'a>> {
        let key = self.string()?;
        self.colon()?;
        Ok(key)
    }

    #[inline]
    fn skip_key(&mut self) -> Scan<()> {
        self.skip_string()?;
        self.colon()
    }

    #[inline]
    fn colon(&mut self) -> Scan<()> {
        if self.eat(b':') { Ok(()) } else { self.fail("a colon should follow the member's name") }
    }

    /// After a value in an object or an array: whether another one follows. Takes what is between.
    #[inline]
    pub(crate) fn more(&mut self, close: u8) -> Scan<bool> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ if close == b'}' => self.fail("a comma or } should follow"),
            _ => self.fail("a comma or ] should follow"),
        }
    }

    /// Takes any value and gives its text, without the white space around it.
    pub(crate) fn value(&mut self) -> Scan<&'a str> {
        self.peek();
        let start = self.at;
        // Bit n says whether the container at depth n is an object.
        let (mut depth, mut objects) = (0u32, 0u128);
        loop {
            let open = match self.peek() {
                Some(b'"') => {
                    self.skip_string()?;
                    false
                }
                Some(byte @ (b'{' | b'[')) => {
                    if depth == DEPTH_MAX {
                        return self.fail("it is nested deeper than 128 levels");
                    }
                    self.at += 1;
                    let object = byte == b'{';
                    objects = (objects & !(1 << depth)) | (u128::from(object) << depth);
                    depth += 1;
                    // Closing brackets have the opening ones' codes plus two.
                    let empty = self.eat(byte + 2);
                    if empty {
                        depth -= 1;
                    } else if object {
                        self.skip_key()?;
                    }
                    !empty
                }
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                _ => return self.fail("a value should begin"),
            };
            if open {
                continue;
            }
            loop {
                if depth == 0 {
                    return Ok(&self.text[start..self.at]);
                }
                let object = objects >> (depth - 1) & 1 == 1;
                if self.more(if object { b'}' } else { b']' })? {
                    if object {
                        self.skip_key()?;
                    }
                    break;
                }
                depth -= 1;
            }
        }
    }

    /// Like all takers of a whole value it answers `false`: nothing was opened.
    fn literal(&mut self, word: &'static str) -> Scan<bool> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return self.fail("a value should begin");
        }
        self.at += word.len();
        Ok(false)
    }

    fn number(&mut self) -> Scan<bool> {
        self.at += usize::from(self.bytes[self.at] == b'-');
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(false)
    }

    fn digits(&mut self) -> Scan<()> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { self.fail("a digit should follow") } else { Ok(()) }
    }
}

/// How many bytes stand before the first quote, backslash or control character. Eight at a time: the
/// subtractions set a byte's high bit where it is below the bound, and the lowest such bit is exact.
#[inline]
fn plain_len(bytes: &[u8]) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        let quote = word ^ (LOW * 0x22);
        let slash = word ^ (LOW * 0x5c);
        let hits = (quote.wrapping_sub(LOW) & !quote)
            | (slash.wrapping_sub(LOW) & !slash)
            | (word.wrapping_sub(LOW * 0x20) & !word);
        let hits = hits & HIGH;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = &bytes[at..];
    at + rest.iter().position(|b| matches!(b, 0..0x20 | b'"' | b'\\')).unwrap_or(rest.len())
}

/// Resolves the escapes of a string that [`Scanner::string`] has checked.
fn unescape(raw: &str) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (c, len) = match rest.as_bytes()[at + 1] {
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'u' => unescape_unicode(&rest[at..])?,
            other => (char::from(other), 2),
        };
        out.push(c);
        rest = &rest[at + len..];
    }
    out.push_str(rest);
    Some(out)
}

fn unescape_unicode(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(escape, 16).ok()
    };
    let first = unit(0)?;
    let units = [first, unit(6).unwrap_or(0)];
    let is_pair = (0xd800..0xdc00).contains(&first);
    let len = if is_pair { 2 } else { 1 };
    let c = char::decode_utf16(units.into_iter().take(len)).next()?.ok()?;
    Some((c, 6 * len))
}
