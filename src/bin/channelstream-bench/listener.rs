//! One listener: takes the bytes of its websocket and checks that it gets every message, once and in
//! order. It must cost much less than the server's side of the same socket, so it parses no JSON: it
//! looks for [`MARKER`], and where messages are alike it looks where the next one should be first.
//! Nothing is believed without the marker and the expected number being there.

use crate::histogram::Histogram;
use crate::websocket::{CLOSE, CONTINUATION, PING, TEXT, close_reason, frame_head};

/// What a message's body begins with: its number, and after it when it was sent, in nanoseconds.
/// The events of the protocol have no key `n`.
const MARKER: &[u8] = b"\"n\":";
const STAMP: &[u8] = b"\"at\":";

/// Writes the body of a message; `filler` must hold no quotes.
pub fn write_body(number: u64, at: u64, filler: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"n\":{number},\"at\":{at},\"text\":\"{filler}\"}}").as_bytes());
}

/// What was found in some bytes.
#[derive(Debug, Default)]
pub struct Found {
    /// Messages that were due.
    pub messages: u64,
    /// Whether the server wants to hear that we are there.
    pub is_pinged: bool,
    /// Messages that were not: lost, repeated or out of order.
    pub problems: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Listener {
    /// Which of all.
    pub index: usize,
    /// How many messages of each publisher it has.
    pub seen: Vec<u64>,
    /// How it ended, if it did.
    pub ended: Option<String>,
    /// At least so many bytes lie between the end of a stamp and the next marker.
    filler: usize,
    /// What came of something that has not come as a whole.
    rest: Vec<u8>,
    opcode: u8,
    /// Bytes of the frame's payload that did not come yet.
    left: usize,
    place: Place,
    /// From the start of a payload to its first marker, the last time.
    first: usize,
    /// From one marker to the next, the last time.
    stride: usize,
}

/// Where in a payload we are, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Since the marker before, or since the start of the payload.
    since: usize,
    /// To where a marker should be.
    ahead: usize,
    /// To where one may be.
    skip: usize,
    /// Whether a marker was found in this payload.
    begun: bool,
}

impl Place {
    fn advance(&mut self, bytes: usize) {
        self.since += bytes;
        self.ahead = self.ahead.saturating_sub(bytes);
        self.skip = self.skip.saturating_sub(bytes);
    }
}

/// A message in a payload.
#[derive(Debug, Clone, Copy)]
struct Mark {
    from: usize,
    to: usize,
    number: u64,
    at: u64,
}

impl Listener {
    /// Listens to so many publishers whose messages are at least `filler` bytes long. `rest`: what
    /// came with the handshake.
    pub fn new(index: usize, publishers: usize, filler: usize, rest: Vec<u8>) -> Self {
        Self {
            index,
            seen: vec![0; publishers],
            ended: None,
            filler,
            rest,
            opcode: TEXT,
            left: 0,
            place: Place::default(),
            first: 0,
            stride: 0,
        }
    }

    /// How many messages it has.
    pub fn total(&self) -> u64 {
        self.seen.iter().sum()
    }

    /// What has to stand before the bytes that are read next.
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Takes bytes that were read at `now`; they begin with [`Listener::rest`].
    pub fn take(&mut self, bytes: &[u8], now: u64, latency: &mut Histogram) -> Found {
        let mut found = Found::default();
        let used = self.frames(bytes, now, latency, &mut found).unwrap_or_else(|error| {
            self.ended = Some(format!("{error:#}"));
            bytes.len()
        });
        self.rest.clear();
        self.rest.extend_from_slice(&bytes[used..]);
        found
    }

    /// Goes through frames; says how many bytes it is done with.
    fn frames(&mut self, bytes: &[u8], now: u64, latency: &mut Histogram, found: &mut Found) -> anyhow::Result<usize> {
        let mut used = 0;
        loop {
            if self.left == 0 {
                let Some(head) = frame_head(&bytes[used..])? else { return Ok(used) };
                used += head.bytes;
                (self.opcode, self.left) = (head.opcode, head.payload);
                self.place = Place { ahead: self.first, ..Place::default() };
            }
            let payload = &bytes[used..bytes.len().min(used + self.left)];
            let whole = payload.len() == self.left;
            let done = match self.opcode {
                TEXT | CONTINUATION => self.messages(payload, whole, now, latency, found),
                CLOSE if whole => anyhow::bail!(close_reason(payload)),
                CLOSE => 0,
                opcode => {
                    found.is_pinged |= opcode == PING;
                    payload.len()
                }
            };
            used += done;
            self.left -= done;
            if self.left > 0 {
                return Ok(used);
            }
        }
    }

    /// Goes through the messages of a payload, or of a part of it; says how many bytes it is done
    /// with: all of them if it is `whole`.
    fn messages(&mut self, payload: &[u8], whole: bool, now: u64, latency: &mut Histogram, found: &mut Found) -> usize {
        let mut from = 0;
        loop {
            let expected = mark(payload, from + self.place.ahead).filter(|mark| self.is_due(mark.number));
            let mark = match expected.map_or_else(|| search(payload, from + self.place.skip), Search::Mark) {
                Search::Mark(mark) => mark,
                Search::Cut(at) if !whole => {
                    self.place.advance(at - from);
                    return at;
                }
                Search::Cut(_) => {
                    found.problems.push(format!("listener {} got a broken message", self.index));
                    return payload.len();
                }
                Search::Nothing => {
                    // The end may be the beginning of a marker.
                    let may_go_on = if whole { 0 } else { MARKER.len() - 1 };
                    let done = payload.len().saturating_sub(may_go_on).max(from);
                    self.place.advance(done - from);
                    return done;
                }
            };
            let distance = self.place.since + mark.from - from;
            let usual = if self.place.begun { &mut self.stride } else { &mut self.first };
            *usual = distance;
            let since = mark.to - mark.from;
            self.place = Place { since, ahead: self.stride.saturating_sub(since), skip: self.filler, begun: true };
            from = mark.to;
            self.note(mark, now, latency, found);
        }
    }

    /// Whose message that is, and which of theirs.
    fn source(&self, number: u64) -> (usize, u64) {
        let publishers = self.seen.len() as u64;
        ((number % publishers) as usize, number / publishers)
    }

    fn is_due(&self, number: u64) -> bool {
        let (publisher, sequence) = self.source(number);
        self.seen[publisher] == sequence
    }

    fn note(&mut self, mark: Mark, now: u64, latency: &mut Histogram, found: &mut Found) {
        let (publisher, sequence) = self.source(mark.number);
        let seen = self.seen[publisher];
        if sequence < seen {
            let problem = format!("listener {} got message {sequence} again, after {}", self.index, seen - 1);
            found.problems.push(problem);
            return;
        }
        if sequence > seen {
            let problem = format!("listener {} got message {sequence} and not {seen}..{sequence}", self.index);
            found.problems.push(problem);
        }
        self.seen[publisher] = sequence + 1;
        found.messages += 1;
        latency.record(now.saturating_sub(mark.at));
    }
}

enum Search {
    Mark(Mark),
    /// A marker, but not all of what belongs to it.
    Cut(usize),
    Nothing,
}

fn search(payload: &[u8], from: usize) -> Search {
    let tail = payload.get(from..).unwrap_or_default();
    let Some(found) = tail.windows(MARKER.len()).position(|window| window == MARKER) else { return Search::Nothing };
    mark(payload, from + found).map_or(Search::Cut(from + found), Search::Mark)
}

/// The message whose marker stands there, if there is one and it is complete up to its time. Blanks
/// are allowed, since servers may write JSON anew.
fn mark(payload: &[u8], from: usize) -> Option<Mark> {
    let after = payload.get(from..)?.strip_prefix(MARKER)?;
    let (number, after) = digits(after)?;
    let after = after.strip_prefix(b",")?.trim_ascii_start().strip_prefix(STAMP)?;
    let (at, after) = digits(after)?;
    Some(Mark { from, to: payload.len() - after.len(), number, at })
}

/// A number and what follows it, which must be something.
fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let bytes = bytes.trim_ascii_start();
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')),
            _ if index > 0 => return Some((value, &bytes[index..])),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A websocket message of the server with these messages in it.
    fn frame(numbers: &[u64]) -> Vec<u8> {
        let mut payload = Vec::from(*b"[");
        for (index, number) in numbers.iter().enumerate() {
            payload.extend_from_slice(if index > 0 { b"," } else { b"" });
            payload.extend_from_slice(br#"{"channel":"bench","uuid":"00000000","message":"#);
            write_body(*number, 1_000 + number, "xxxxxxxx", &mut payload);
            payload.extend_from_slice(br#","edited":null,"catchup":false,"type":"message"}"#);
        }
        payload.push(b']');
        let mut frame = vec![0x81];
        match u8::try_from(payload.len()) {
            Ok(length) if length < 126 => frame.push(length),
            _ => {
                frame.push(126);
                frame.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        frame.extend_from_slice(&payload);
        frame
    }

    /// Feeds bytes in pieces of that size; gives how many messages were due, and the problems.
    fn feed(listener: &mut Listener, bytes: &[u8], size: usize) -> (u64, Vec<String>) {
        let (mut messages, mut problems) = (0, Vec::new());
        for piece in bytes.chunks(size) {
            let given = [listener.rest(), piece].concat();
            let found = listener.take(&given, 10_000, &mut Histogram::default());
            assert!(listener.rest().len() < 64, "little is kept: {}", listener.rest().len());
            messages += found.messages;
            problems.extend(found.problems);
        }
        (messages, problems)
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let heartbeat = [0x81, 2, b'[', b']'];
        let frames = [
            &frame(&[0])[..],
            &heartbeat,
            &frame(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
            &[0x89, 1, b'p'],
            &frame(&[12, 13]),
            &frame(&(14..120).collect::<Vec<_>>()),
        ]
        .concat();
        for size in 1..frames.len() {
            let mut listener = Listener::new(0, 1, 8, Vec::new());
            assert_eq!(feed(&mut listener, &frames, size), (120, vec![]), "{size}");
            assert_eq!((listener.seen[0], &listener.ended), (120, &None));
        }
    }

    #[test]
    fn what_is_missing_or_repeated_is_told() {
        let bytes = [frame(&[0, 1, 2, 3]), frame(&[4, 5, 7, 6]), frame(&[8]), frame(&[8])].concat();
        for size in [1, 7, bytes.len()] {
            let mut listener = Listener::new(3, 1, 8, Vec::new());
            let (messages, problems) = feed(&mut listener, &bytes, size);
            assert_eq!(messages, 8);
            assert_eq!(
                problems,
                [
                    "listener 3 got message 7 and not 6..7",
                    "listener 3 got message 6 again, after 7",
                    "listener 3 got message 8 again, after 8"
                ]
            );
        }
    }

    #[test]
    fn a_message_before_the_expected_place_is_not_overlooked() {
        let payload = |messages: &[(u64, usize)]| {
            let mut payload = Vec::from(*b"[");
            for (number, filler) in messages {
                write_body(*number, 1_000, &"x".repeat(*filler), &mut payload);
                payload.push(b',');
            }
            [&[0x81, 126, 0, u8::try_from(payload.len()).unwrap()], &payload[..]].concat()
        };
        let mut listener = Listener::new(0, 1, 8, Vec::new());
        assert_eq!(feed(&mut listener, &payload(&[(0, 80), (1, 80)]), 1_000), (2, vec![]));
        // Two short ones take the room of a long one, so that the third stands where the second should.
        let short = payload(&[(2, 26), (3, 26), (4, 80)]);
        assert_eq!((listener.stride, short.windows(5).position(|window| window == b"\"n\":4")), (108, Some(114)));
        assert_eq!(feed(&mut listener, &short, 1_000), (3, vec![]));
    }

    #[test]
    fn publishers_are_told_apart() {
        let mut listener = Listener::new(0, 2, 8, Vec::new());
        assert_eq!(feed(&mut listener, &frame(&[1, 3, 0, 5, 2]), 1_000), (5, vec![]));
        assert_eq!(listener.seen, [2, 3]);
    }

    #[test]
    fn the_end_is_noted() {
        let mut listener = Listener::new(0, 1, 8, Vec::new());
        feed(&mut listener, b"\x88\x0a\x0f\xa8too slow", 3);
        assert_eq!(listener.ended.as_deref(), Some("closed with 4008 \"too slow\""));
    }
}
