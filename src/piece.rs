//! Pieces: some frames, encoded once for all who get them, ready for each way to listen.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, OnceLock};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::domain::frame::{Frame, Tick};
use crate::domain::position::{Cursor, Epoch, Position};
use crate::wire::frame;

/// Largest piece, unless one frame alone is larger: what a slow client can take in one go.
const MAX_PIECE_BYTES: usize = 256 << 10;
/// Bytes of the longest head of a websocket message.
const HEAD_ROOM: usize = 10;

/// Some frames as a JSON array, which is shared by all who get them.
#[derive(Debug)]
pub struct Piece {
    /// A websocket message: its head and the array.
    message: Bytes,
    /// Bytes of the head.
    head: usize,
    /// How many elements the array has.
    pub frames: u32,
    /// The array as a server-sent event, once somebody wants it.
    event: OnceLock<Bytes>,
    /// The place of its last frame.
    pub tick: Tick,
    /// Where the last of its logged events is logged, if it has any.
    pub position: Option<Position>,
}

/// Pieces, oldest first.
pub type Pieces = VecDeque<Arc<Piece>>;

/// The heartbeat of a websocket: an array without events.
static HEARTBEAT: LazyLock<Arc<Piece>> = LazyLock::new(|| Piece::new("[]", Tick::default(), None));

impl Piece {
    /// The heartbeat of a websocket.
    pub fn heartbeat() -> Arc<Self> {
        HEARTBEAT.clone()
    }

    /// A JSON array that is written already.
    pub fn new(array: &str, tick: Tick, position: Option<Position>) -> Arc<Self> {
        let mut draft = PieceDraft { bytes: vec![0; HEAD_ROOM], frames: 1, position };
        draft.bytes.extend_from_slice(array.as_bytes());
        draft.seal(tick)
    }

    /// As a whole websocket message.
    pub fn message(&self) -> &Bytes {
        &self.message
    }

    /// The array.
    pub fn array(&self) -> &[u8] {
        &self.message[self.head..]
    }

    /// The elements of the array, without its brackets.
    pub fn elements(&self) -> &[u8] {
        let array = self.array();
        array.get(1..array.len() - 1).unwrap_or_default()
    }

    /// As a server-sent event, whose id is the cursor of the last logged event.
    pub fn event(&self, epoch: &Epoch) -> Bytes {
        let make = || {
            let id = self.position.map(|position| Cursor { epoch: epoch.clone(), position });
            event(self.array(), id.as_ref()).into()
        };
        self.event.get_or_init(make).clone()
    }
}

/// One event. In JSON text line breaks stand between tokens only, where any white space will do.
fn event(array: &[u8], id: Option<&Cursor>) -> Vec<u8> {
    let mut event = id.map(|cursor| format!("id: {cursor}\n")).unwrap_or_default().into_bytes();
    event.extend_from_slice(b"data: ");
    event.extend(array.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    event.extend_from_slice(b"\n\n");
    event
}

/// A piece that is being written.
#[derive(Debug)]
pub struct PieceDraft {
    /// Room for the head, then the array without its end.
    bytes: Vec<u8>,
    frames: u32,
    position: Option<Position>,
}

impl PieceDraft {
    /// With a first frame; `catchup`: frames were missed and are shown late.
    pub fn new(frame: &Frame, catchup: bool, epoch: &Epoch) -> Self {
        let mut bytes = vec![0; HEAD_ROOM];
        bytes.push(b'[');
        frame::write(frame, catchup, epoch, &mut bytes);
        Self { bytes, frames: 1, position: frame.position() }
    }

    /// Adds a frame. If that would make it too large, it begins anew with this frame and what it
    /// was is given back.
    pub fn add(&mut self, frame: &Frame, catchup: bool, epoch: &Epoch) -> Option<Self> {
        let before = self.bytes.len();
        self.bytes.push(b',');
        frame::write(frame, catchup, epoch, &mut self.bytes);
        if self.bytes.len() <= MAX_PIECE_BYTES {
            self.frames += 1;
            self.position = frame.position().or(self.position);
            return None;
        }
        self.bytes.truncate(before);
        Some(std::mem::replace(self, Self::new(frame, catchup, epoch)))
    }

    /// Complete; `tick`: the place of its last frame.
    pub fn finish(mut self, tick: Tick) -> Arc<Piece> {
        self.bytes.push(b']');
        self.seal(tick)
    }

    fn seal(mut self, tick: Tick) -> Arc<Piece> {
        let array = (self.bytes.len() - HEAD_ROOM) as u64;
        let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
        let head = header.len(array);
        let start = HEAD_ROOM - head;
        header.format(array, &mut &mut self.bytes[start..HEAD_ROOM]).expect("there is room for it");
        let message = Bytes::from(self.bytes).slice(start..);
        Arc::new(Piece { message, head, frames: self.frames, event: OnceLock::new(), tick, position: self.position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_a_message_an_array_and_an_event() {
        let piece = Piece::new("[{\"a\":\r\n1},2]", Tick(1), Some(Position(7)));
        assert_eq!(piece.array(), b"[{\"a\":\r\n1},2]");
        assert_eq!(piece.elements(), b"{\"a\":\r\n1},2");
        assert_eq!(piece.message().as_ref(), [b"\x81\x0d".as_slice(), piece.array()].concat());
        let epoch = Epoch::parse("k3f9").unwrap();
        assert_eq!(piece.event(&epoch).as_ref(), b"id: k3f9-7\ndata: [{\"a\":  1},2]\n\n");
        assert_eq!(Piece::new("[]", Tick(1), None).event(&epoch).as_ref(), b"data: []\n\n");
        assert_eq!(Piece::new("[]", Tick(1), None).elements(), b"");
    }
}
