//! Whole messages in what a NATS server says to a client, so that some can be lost on their way.
//!
//! Source: NATS documentation, "Client Protocol": `MSG` and `HMSG` lines end with the number of bytes that
//! follow, and a line end closes those.

/// Where live frames are published.
const LIVE: &[u8] = b"storm.live.";
/// One of so many is lost.
const ONE_OF: u64 = 4;

/// Follows one connection from its beginning.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// Bytes of the present message that are still to come.
    body: usize,
    lost: bool,
    live: u64,
}

impl Messages {
    /// Appends to `kept` what passes of `bytes`; where `lossy`, some live messages are left out. Returns
    /// how many began to be.
    pub(super) fn pass(&mut self, bytes: &[u8], lossy: bool, kept: &mut Vec<u8>) -> u64 {
        let (mut rest, mut lost) = (bytes, 0);
        while !rest.is_empty() {
            if self.body > 0 {
                let (body, behind) = rest.split_at(self.body.min(rest.len()));
                if !self.lost {
                    kept.extend_from_slice(body);
                }
                self.body -= body.len();
                rest = behind;
                continue;
            }
            let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            let (line, behind) = rest.split_at(end);
            self.line.extend_from_slice(line);
            rest = behind;
            if self.line.ends_with(b"\n") {
                self.begin(lossy);
                lost += u64::from(self.lost && self.body > 0);
                if !self.lost {
                    kept.append(&mut self.line);
                }
                self.line.clear();
            }
        }
        lost
    }

    /// A line is whole: how much follows, and whether it is lost.
    fn begin(&mut self, lossy: bool) {
        (self.body, self.lost) = (0, false);
        let mut words = self.line.trim_ascii().split(|byte| *byte == b' ');
        if !matches!(words.next(), Some(b"MSG" | b"HMSG")) {
            return;
        }
        let (subject, length) = (words.next().unwrap_or_default(), words.next_back());
        let length = length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        self.body = length.map_or(0, |length: usize| length + b"\r\n".len());
        if subject.starts_with(LIVE) {
            self.live += 1;
            self.lost = lossy && self.live.is_multiple_of(ONE_OF);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_four_live_messages_is_lost_wherever_the_bytes_are_cut() {
        let message = |subject: &str| format!("MSG {subject} 1 5\r\na\r\nbc\r\n").into_bytes();
        let (live, other) = (message("storm.live.1.1"), message("storm.beat"));
        let said = [b"INFO {}\r\n", &*live, &live, &other, &live, &live, b"PING\r\n"].concat();
        let due = [b"INFO {}\r\n", &*live, &live, &other, &live, b"PING\r\n"].concat();
        for step in 1..said.len() {
            let (mut messages, mut kept) = (Messages::default(), Vec::new());
            let lost: u64 =
                said.chunks(step).map(|bytes| messages.pass(bytes, true, &mut kept)).sum();
            assert_eq!((lost, &kept), (1, &due), "{step}");
        }
        let mut kept = Vec::new();
        assert_eq!(Messages::default().pass(&said, false, &mut kept), 0);
        assert_eq!(kept, said);
    }
}
