//! The mailbox: one listener's bounded queue of encoded pieces, and why it was closed.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::frame::Tick;
use crate::domain::position::Position;
use crate::piece::Piece;
use crate::progress::Progress;

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
    pieces: Pieces,
    bytes: usize,
    closing: Option<Closing>,
    overflow: Overflow,
    /// Of a listener whose connection stays open.
    progress: Option<Progress>,
    /// A heartbeat is due.
    beats: bool,
    /// Of the listener, while it waits.
    waker: Option<Waker>,
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

    /// Takes what waits; `empty` is used for what is to come.
    fn take(&mut self, empty: &mut Pieces) -> Option<Mail> {
        if !self.pieces.is_empty() {
            self.bytes = 0;
            empty.shrink_to(KEPT_PLACES);
            return Some(Mail::Pieces(std::mem::replace(&mut self.pieces, std::mem::take(empty))));
        }
        if let Some(closing) = self.closing {
            return Some(Mail::Closed(closing));
        }
        std::mem::take(&mut self.beats).then_some(Mail::Beat)
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
    written: AtomicU64,
    /// Whether the listener keeps a cursor.
    keeps_cursor: bool,
    /// The newest position that was put in, for a listener that keeps a cursor.
    position: AtomicU64,
}

/// Pieces, oldest first.
pub type Pieces = VecDeque<Arc<Piece>>;

/// Places for pieces that are kept for those to come, of an empty queue.
const KEPT_PLACES: usize = 8;

/// What waits in a mailbox.
#[derive(Debug)]
pub enum Mail {
    /// Pieces to write.
    Pieces(Pieces),
    /// A heartbeat is due.
    Beat,
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

    /// What is written to the listener's connection, which stays open and wants heartbeats.
    pub fn watch(&self, progress: Progress) {
        self.queue.lock().progress = Some(progress);
    }

    /// Adds a piece; whoever waits for it is to be woken. Closes instead if more than `max_bytes`
    /// would wait behind the first piece, or eight times as many for a client that goes on reading.
    #[must_use]
    pub fn push(&self, piece: &Arc<Piece>, max_bytes: usize) -> Option<Waker> {
        let mut queue = self.queue.lock();
        if queue.closing.is_some() || queue.overflow == Overflow::Dropped {
            return None;
        }
        if !queue.pieces.is_empty() {
            let bytes = piece.message().len();
            let waiting = queue.bytes + bytes;
            if waiting > max_bytes && (waiting > max_bytes * READING_FACTOR || !queue.is_read()) {
                queue.drop_pieces();
                if queue.overflow == Overflow::Drops {
                    queue.overflow = Overflow::Dropped;
                    return None;
                }
                queue.closing = Some(Closing::Slow);
                return queue.waker.take();
            }
            queue.bytes = waiting;
        }
        queue.pieces.push_back(piece.clone());
        if let Some(position) = piece.position {
            self.position.store(position.0, Ordering::Release);
        }
        queue.waker.take()
    }

    /// A heartbeat is due for a listener that wants any; whoever waits for it is to be woken.
    #[must_use]
    pub fn beat(&self) -> Option<Waker> {
        let mut queue = self.queue.lock();
        queue.progress.as_ref()?;
        queue.beats = true;
        queue.waker.take()
    }

    /// Takes no more; what waits is still written, except for a listener that is too slow.
    pub fn close(&self, closing: Closing) {
        let waker = {
            let mut queue = self.queue.lock();
            queue.closing.get_or_insert(closing);
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits for mail. Dropping the wait loses nothing.
    pub async fn mail(&self) -> Mail {
        poll_fn(|context| self.poll_mail(&mut Pieces::new(), context)).await
    }

    /// Takes mail if there is any; else the task is woken when it comes. One task may wait. Giving
    /// back in `empty` what pieces were taken in saves the next ones their memory.
    pub fn poll_mail(&self, empty: &mut Pieces, context: &mut Context<'_>) -> Poll<Mail> {
        debug_assert!(empty.is_empty());
        let mut queue = self.queue.lock();
        if let Some(mail) = queue.take(empty) {
            return Poll::Ready(mail);
        }
        match &mut queue.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
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

    /// A piece whose message has so many bytes, two of them its head.
    fn piece(bytes: usize, tick: u64) -> Arc<Piece> {
        let head = if bytes < 128 { 2 } else { 4 };
        Piece::new(&format!("[{}]", "1".repeat(bytes - head - 2)), Tick(tick), None)
    }

    /// Puts a piece in; whether somebody was woken who waits.
    fn wakes(mailbox: &Mailbox, piece: &Arc<Piece>) -> bool {
        mailbox.push(piece, 100).is_some()
    }

    /// Waits, without anything being there.
    fn wait(mailbox: &Mailbox) {
        assert!(mailbox.poll_mail(&mut Pieces::new(), &mut Context::from_waker(Waker::noop())).is_pending());
    }

    #[tokio::test]
    async fn pieces_come_in_order_and_wake_once() {
        let mailbox = Mailbox::new(Tick(0));
        wait(&mailbox);
        assert!(wakes(&mailbox, &piece(10, 1)));
        assert!(!wakes(&mailbox, &piece(10, 2)));
        let Mail::Pieces(pieces) = mailbox.mail().await else { panic!("no pieces") };
        assert_eq!(pieces.iter().map(|piece| piece.tick.0).collect::<Vec<_>>(), [1, 2]);
        wait(&mailbox);
        assert!(wakes(&mailbox, &piece(10, 3)));
    }

    #[tokio::test]
    async fn one_piece_may_be_large_but_what_waits_behind_it_is_bounded() {
        let mailbox = Mailbox::new(Tick(0));
        wakes(&mailbox, &piece(1000, 1));
        wakes(&mailbox, &piece(60, 2));
        assert_eq!(mailbox.closing(), None);
        wakes(&mailbox, &piece(60, 3));
        assert!(matches!(mailbox.mail().await, Mail::Closed(Closing::Slow)));
        wakes(&mailbox, &piece(10, 4));
        assert!(matches!(mailbox.mail().await, Mail::Closed(Closing::Slow)));
    }

    #[tokio::test]
    async fn who_goes_on_reading_may_lag_more() {
        let mailbox = Mailbox::new(Tick(0));
        mailbox.watch(Progress::start());
        for tick in 0..9 {
            wakes(&mailbox, &piece(100, tick));
        }
        assert_eq!(mailbox.closing(), None);
        wakes(&mailbox, &piece(100, 9));
        assert_eq!(mailbox.closing(), Some(Closing::Slow), "but not without limit");
    }

    #[tokio::test]
    async fn who_reads_the_log_is_never_too_slow_but_reads_on() {
        let mailbox = Mailbox::with_cursor(Tick(0), Position(5));
        for tick in 1..5 {
            wakes(&mailbox, &piece(60, tick)); // dropped at last, until it has read on
        }
        assert!(!mailbox.catch_up(Position(9)));
        assert_eq!(mailbox.position(), Position(9));
        wakes(&mailbox, &piece(60, 5));
        assert!(mailbox.catch_up(Position(9)));
        let Mail::Pieces(pieces) = mailbox.mail().await else { panic!("no pieces") };
        assert_eq!(pieces.iter().map(|piece| piece.tick.0).collect::<Vec<_>>(), [5]);
    }

    #[tokio::test]
    async fn what_waits_is_written_before_the_end() {
        let mailbox = Mailbox::new(Tick(0));
        wakes(&mailbox, &piece(10, 1));
        mailbox.close(Closing::Ended);
        mailbox.close(Closing::GoingAway);
        assert!(matches!(mailbox.mail().await, Mail::Pieces(_)));
        assert!(matches!(mailbox.mail().await, Mail::Closed(Closing::Ended)));
    }

    #[tokio::test]
    async fn heartbeats_are_for_open_connections_and_come_after_what_waits() {
        let mailbox = Mailbox::new(Tick(0));
        assert!(mailbox.beat().is_none());
        wait(&mailbox);
        mailbox.watch(Progress::start());
        assert!(mailbox.beat().is_some());
        wakes(&mailbox, &piece(10, 1));
        assert!(matches!(mailbox.mail().await, Mail::Pieces(_)));
        assert!(matches!(mailbox.mail().await, Mail::Beat));
        wait(&mailbox);
    }
}
