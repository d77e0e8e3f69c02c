//! Whole messages in what a NATS server says to a client, so that some can be lost on their way.
//!
//! Source: NATS documentation, "Client Protocol": `MSG` and `HMSG` lines end with the number of bytes that
//! follow, and a line end closes those.

/// Where live frames are published.
const LIVE: &[u8] = b"storm.live.";
/// Where answers come.
const INBOX: &[u8] = b"_INBOX.";
/// One of so many is lost.
const ONE_OF: u64 = 4;

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    None,
    /// Of live messages one in four.
    OneOfFourLive,
    /// The third frame since this number is set, whether it comes live or is read.
    ThirdFrame(u32),
}

/// Follows one connection from its beginning.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// Bytes of the present message that are still to come.
    body: usize,
    lost: bool,
    live: u64,
    /// Frames since one is to be lost, and for which number.
    frames: (u32, u64),
}

impl Messages {
    /// Appends to `kept` what passes of `bytes`, without what is lost. Returns how many messages began to be.
    pub(super) fn pass(&mut self, bytes: &[u8], loss: Loss, kept: &mut Vec<u8>) -> u64 {
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
                self.begin(loss);
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
    fn begin(&mut self, loss: Loss) {
        (self.body, self.lost) = (0, false);
        let mut words = self.line.trim_ascii().split(|byte| *byte == b' ');
        let has_headers = match words.next() {
            Some(b"HMSG") => true,
            Some(b"MSG") => false,
            _ => return,
        };
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<usize>().ok();
        let subject = words.next().unwrap_or_default();
        let length = words.next_back().and_then(number).unwrap_or_default();
        let headers = words.next_back().and_then(number).filter(|_| has_headers);
        self.body = length + b"\r\n".len();
        let is_live = subject.starts_with(LIVE);
        // What is read has headers and a body; a status has headers alone, and no other answer has any.
        let is_read = subject.starts_with(INBOX) && headers.is_some_and(|bytes| bytes < length);
        self.live += u64::from(is_live);
        if let Loss::ThirdFrame(number) = loss {
            if self.frames.0 != number {
                self.frames = (number, 0);
            }
            self.frames.1 += u64::from(is_live || is_read);
        }
        self.lost = match loss {
            Loss::None => false,
            Loss::OneOfFourLive => is_live && self.live.is_multiple_of(ONE_OF),
            Loss::ThirdFrame(_) => (is_live || is_read) && self.frames.1 == 3,
        };
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
            let lost: u64 = said
                .chunks(step)
                .map(|bytes| messages.pass(bytes, Loss::OneOfFourLive, &mut kept))
                .sum();
            assert_eq!((lost, &kept), (1, &due), "{step}");
        }
        let mut kept = Vec::new();
        assert_eq!(Messages::default().pass(&said, Loss::None, &mut kept), 0);
        assert_eq!(kept, said);
    }

    #[test]
    fn the_third_frame_alone_is_lost_be_it_live_or_read() {
        let live = b"HMSG storm.live.1.1 1 12 15\r\nNATS/1.0\r\n\r\nabc\r\n";
        let read = b"HMSG _INBOX.x.y 2 12 15\r\nNATS/1.0\r\n\r\nabc\r\n";
        let status = b"HMSG _INBOX.x.y 2 16 16\r\nNATS/1.0 204\r\n\r\n\r\n";
        let answer = b"MSG _INBOX.x.z 2 2\r\n{}\r\n";
        let parts: [&[u8]; 8] = [b"INFO {}\r\n", live, status, read, answer, read, live, read];
        let said = parts.concat();
        let due = [&parts[..5], &parts[6..]].concat().concat();
        for step in 1..said.len() {
            let (mut messages, mut kept) = (Messages::default(), Vec::new());
            let lost: u64 = said
                .chunks(step)
                .map(|bytes| messages.pass(bytes, Loss::ThirdFrame(1), &mut kept))
                .sum();
            assert_eq!((lost, &kept), (1, &due), "{step}");
        }
    }
}
