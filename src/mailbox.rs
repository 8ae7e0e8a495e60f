//! The mailbox: one listener's bounded queue of encoded pieces, and why it was closed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::frame::Tick;
use crate::domain::position::Position;
use crate::progress::Progress;

/// Some frames, encoded once as a JSON array and shared by all who get them.
#[derive(Debug)]
pub struct Piece {
    /// The array.
    pub text: Utf8Bytes,
    /// The place of its last frame.
    pub tick: Tick,
    /// Where the last of its logged events is logged, if it has any.
    pub position: Option<Position>,
}

/// Why a mailbox takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The client ended the connection itself.
    Ended,
    /// The connection is over, and the application has to be asked for a new one.
    Unknown,
    /// The same connection was opened again elsewhere.
    Replaced,
    /// The listener is too slow; it may come back.
    Slow,
    /// The server goes down; the listener may come back.
    GoingAway,
}

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Arc<Piece>>,
    bytes: usize,
    closing: Option<Closing>,
    overflow: Overflow,
    progress: Option<Progress>,
}

/// A client that took something within this time keeps up as well as it can.
const READING: Duration = Duration::from_millis(500);
/// So many times as much may wait for it: a burst must not cut off who is only being outrun. What
/// waits is shared by all listeners, so this costs little memory.
const READING_FACTOR: usize = 8;

impl Queue {
    /// Whether the client takes what is written.
    fn is_read(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.last().elapsed() < READING)
    }

    fn drop_pieces(&mut self) {
        self.pieces = VecDeque::new();
        self.bytes = 0;
    }
}

/// What happens when too much waits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Overflow {
    /// The listener is too slow.
    #[default]
    Closes,
    /// The listener is reading the log: what it does not get from here, it will find there.
    Drops,
    /// That has happened: nothing is taken until it has read on.
    Dropped,
}

/// One listener's mailbox. Filled under the hub's lock, emptied by the listener's own task.
#[derive(Debug, Default)]
pub struct Mailbox {
    queue: Mutex<Queue>,
    filled: Notify,
    written: AtomicU64,
    /// Whether the listener keeps a cursor.
    keeps_cursor: bool,
    /// The newest position that was put in, for a listener that keeps a cursor.
    position: AtomicU64,
}

/// What waits in a mailbox.
#[derive(Debug)]
pub enum Mail {
    /// Pieces to write, oldest first.
    Pieces(VecDeque<Arc<Piece>>),
    /// Nothing more will come.
    Closed(Closing),
}

impl Mailbox {
    /// A mailbox of a listener that has seen everything up to `seen`.
    pub fn new(seen: Tick) -> Self {
        Self { written: AtomicU64::new(seen.0), ..Self::default() }
    }

    /// A mailbox of a listener that keeps a cursor and reads the log up to `head` first: until
    /// [`Mailbox::catch_up`] says that it has, it cannot be too slow.
    pub fn with_cursor(seen: Tick, head: Position) -> Self {
        let mailbox = Self { keeps_cursor: true, position: AtomicU64::new(head.0), ..Self::new(seen) };
        mailbox.queue.lock().overflow = Overflow::Drops;
        mailbox
    }

    /// Whether the listener keeps a cursor.
    pub fn keeps_cursor(&self) -> bool {
        self.keeps_cursor
    }

    /// The newest position that was put in.
    pub fn position(&self) -> Position {
        Position(self.position.load(Ordering::Acquire))
    }

    /// The listener has read the log. False: pieces were dropped meanwhile, so that it has to read
    /// on, up to `head`, and pieces are taken again from there. Under the hub's lock.
    pub fn catch_up(&self, head: Position) -> bool {
        let mut queue = self.queue.lock();
        if queue.overflow == Overflow::Dropped {
            queue.overflow = Overflow::Drops;
            self.position.store(head.0, Ordering::Release);
            return false;
        }
        queue.overflow = Overflow::Closes;
        true
    }

    /// Whether it was closed.
    pub fn closing(&self) -> Option<Closing> {
        self.queue.lock().closing
    }

    /// What is written to the listener's connection.
    pub fn watch(&self, progress: Progress) {
        self.queue.lock().progress = Some(progress);
    }

    /// Adds a piece; true if it was empty, so that the listener has to be woken. Closes instead
    /// if more than `max_bytes` would wait behind the first piece, or eight times as many for a
    /// client that goes on reading.
    pub fn push(&self, piece: &Arc<Piece>, max_bytes: usize) -> bool {
        let mut queue = self.queue.lock();
        if queue.closing.is_some() {
            return false;
        }
        if queue.overflow == Overflow::Dropped {
            return false;
        }
        let was_empty = queue.pieces.is_empty();
        let waiting = queue.bytes + piece.text.len();
        if !was_empty && waiting > max_bytes && (waiting > max_bytes * READING_FACTOR || !queue.is_read()) {
            if queue.overflow == Overflow::Drops {
                queue.drop_pieces();
                queue.overflow = Overflow::Dropped;
                return false;
            }
            queue.drop_pieces();
            queue.closing = Some(Closing::Slow);
            return true;
        }
        if !was_empty {
            queue.bytes += piece.text.len();
        }
        queue.pieces.push_back(piece.clone());
        if let Some(position) = piece.position {
            self.position.store(position.0, Ordering::Release);
        }
        was_empty
    }

    /// Takes no more; what waits is still written, except for a listener that is too slow.
    pub fn close(&self, closing: Closing) {
        let mut queue = self.queue.lock();
        if queue.closing.is_none() {
            queue.closing = Some(closing);
        }
        drop(queue);
        self.wake();
    }

    /// Wakes the listener.
    pub fn wake(&self) {
        self.filled.notify_one();
    }

    /// Waits for mail. Dropping the wait loses nothing.
    pub async fn mail(&self) -> Mail {
        loop {
            if let Some(mail) = self.take() {
                return mail;
            }
            self.filled.notified().await;
        }
    }

    fn take(&self) -> Option<Mail> {
        let mut queue = self.queue.lock();
        if !queue.pieces.is_empty() {
            queue.bytes = 0;
            return Some(Mail::Pieces(std::mem::take(&mut queue.pieces)));
        }
        queue.closing.map(Mail::Closed)
    }

    /// The listener was sent everything up to `tick`.
    pub fn mark_written(&self, tick: Tick) {
        self.written.store(tick.0, Ordering::Release);
    }

    /// Up to where the listener was sent everything.
    pub fn written(&self) -> Tick {
        Tick(self.written.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: usize, tick: u64) -> Arc<Piece> {
        Arc::new(Piece { text: format!("[{}]", "1".repeat(bytes - 2)).into(), tick: Tick(tick), position: None })
    }

    #[tokio::test]
    async fn pieces_come_in_order_and_wake_once() {
        let mailbox = Mailbox::new(Tick(0));
        assert!(mailbox.push(&piece(10, 1), 100));
        assert!(!mailbox.push(&piece(10, 2), 100));
        let Mail::Pieces(pieces) = mailbox.mail().await else { panic!("no pieces") };
        assert_eq!(pieces.iter().map(|piece| piece.tick.0).collect::<Vec<_>>(), [1, 2]);
        assert!(mailbox.push(&piece(10, 3), 100));
    }

    #[tokio::test]
    async fn one_piece_may_be_large_but_what_waits_behind_it_is_bounded() {
        let mailbox = Mailbox::new(Tick(0));
        assert!(mailbox.push(&piece(1000, 1), 100));
        assert!(!mailbox.push(&piece(60, 2), 100));
        assert!(mailbox.push(&piece(60, 3), 100), "woken to hear that it is too slow");
        assert!(matches!(mailbox.mail().await, Mail::Closed(Closing::Slow)));
        assert!(!mailbox.push(&piece(10, 4), 100));
    }

    #[tokio::test]
    async fn who_goes_on_reading_may_lag_more() {
        let mailbox = Mailbox::new(Tick(0));
        mailbox.watch(Progress::start());
        for tick in 0..9 {
            mailbox.push(&piece(100, tick), 100);
        }
        assert_eq!(mailbox.closing(), None);
        mailbox.push(&piece(100, 9), 100);
        assert_eq!(mailbox.closing(), Some(Closing::Slow), "but not without limit");
    }

    #[tokio::test]
    async fn who_reads_the_log_is_never_too_slow_but_reads_on() {
        let mailbox = Mailbox::with_cursor(Tick(0), Position(5));
        mailbox.push(&piece(60, 1), 100);
        mailbox.push(&piece(60, 2), 100);
        mailbox.push(&piece(60, 3), 100);
        assert!(!mailbox.push(&piece(60, 4), 100), "dropped until it has read on");
        assert!(!mailbox.catch_up(Position(9)));
        assert_eq!(mailbox.position(), Position(9));
        assert!(mailbox.push(&piece(60, 5), 100));
        assert!(mailbox.catch_up(Position(9)));
        let Mail::Pieces(pieces) = mailbox.mail().await else { panic!("no pieces") };
        assert_eq!(pieces.iter().map(|piece| piece.tick.0).collect::<Vec<_>>(), [5]);
    }

    #[tokio::test]
    async fn what_waits_is_written_before_the_end() {
        let mailbox = Mailbox::new(Tick(0));
        mailbox.push(&piece(10, 1), 100);
        mailbox.close(Closing::Ended);
        mailbox.close(Closing::GoingAway);
        assert!(matches!(mailbox.mail().await, Mail::Pieces(_)));
        assert!(matches!(mailbox.mail().await, Mail::Closed(Closing::Ended)));
    }
}
