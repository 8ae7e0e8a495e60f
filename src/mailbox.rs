//! The mailbox: one listener's bounded queue of encoded pieces, and why it was closed.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::frame::Tick;
use crate::domain::position::Position;
use crate::outlet::Outlet;
use crate::piece::{Piece, Pieces};
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

impl Closing {
    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Unknown => "unknown",
            Self::Replaced => "replaced",
            Self::Slow => "slow",
            Self::GoingAway => "going_away",
        }
    }
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
    emptier: Emptier,
}

/// Who empties a mailbox, which all that is put in is told to.
#[derive(Debug, Default)]
enum Emptier {
    /// The listener's task, which is at work.
    #[default]
    AtWork,
    /// The listener's task, which waits.
    Waiting(Waker),
    /// Whoever puts mail in, while the listener's task waits.
    Lent(Waker, Outlet),
    /// A visitor, who is at work; `is_wanted`: the task wants its outlet back.
    Visited { task: Waker, is_wanted: bool },
    /// The listener's task, which was woken and takes its outlet back first.
    Returned(Outlet),
}

/// What is to be done about mail that was put in, after the hub's lock is given back.
#[derive(Debug)]
#[must_use]
pub enum Call {
    /// The listener's task is to be woken.
    Wake(Waker),
    /// The mail is to be written right away.
    Visit(Visit),
}

/// Mail that can be written without waking the listener's task.
#[derive(Debug)]
pub struct Visit {
    mailbox: Arc<Mailbox>,
    outlet: Outlet,
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

    /// Whether anything is to be taken.
    fn has_mail(&self) -> bool {
        !self.pieces.is_empty() || self.closing.is_some() || self.beats
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

    /// Something was put in: says what is to be done about it.
    fn call(&mut self, mailbox: &Arc<Mailbox>) -> Option<Call> {
        match std::mem::take(&mut self.emptier) {
            Emptier::Waiting(task) => Some(Call::Wake(task)),
            Emptier::Lent(task, outlet) => {
                self.emptier = Emptier::Visited { task, is_wanted: false };
                Some(Call::Visit(Visit { mailbox: mailbox.clone(), outlet }))
            }
            busy => {
                self.emptier = busy;
                None
            }
        }
    }

    /// Something is up that only the task can do: it is to be woken if it waits.
    fn recall(&mut self) -> Option<Waker> {
        match std::mem::take(&mut self.emptier) {
            Emptier::Waiting(task) => Some(task),
            Emptier::Lent(task, outlet) => {
                self.emptier = Emptier::Returned(outlet);
                Some(task)
            }
            busy => {
                self.emptier = busy;
                None
            }
        }
    }

    fn drop_pieces(&mut self) {
        self.pieces = Pieces::new();
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

    /// How many pieces wait, and about how many bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.pieces.len(), queue.bytes)
    }

    /// Whether it was closed.
    pub fn closing(&self) -> Option<Closing> {
        self.queue.lock().closing
    }

    /// What is written to the listener's connection, which stays open and wants heartbeats.
    pub fn watch(&self, progress: Progress) {
        self.queue.lock().progress = Some(progress);
    }

    /// Adds a piece; says what is to be done about it. Closes instead if more than `max_bytes`
    /// would wait behind the first piece, or eight times as many for a client that goes on reading.
    pub fn push(self: &Arc<Self>, piece: &Arc<Piece>, max_bytes: usize) -> Option<Call> {
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
                return queue.recall().map(Call::Wake);
            }
            queue.bytes = waiting;
        }
        queue.pieces.push_back(piece.clone());
        if let Some(position) = piece.position {
            self.position.store(position.0, Ordering::Release);
        }
        queue.call(self)
    }

    /// A heartbeat is due for a listener that wants any; says what is to be done about it.
    pub fn beat(self: &Arc<Self>) -> Option<Call> {
        let mut queue = self.queue.lock();
        queue.progress.as_ref()?;
        queue.beats = true;
        queue.call(self)
    }

    /// Takes no more; what waits is still written, except for a listener that is too slow.
    pub fn close(&self, closing: Closing) {
        let waker = {
            let mut queue = self.queue.lock();
            queue.closing.get_or_insert(closing);
            queue.recall()
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
        match &mut queue.emptier {
            Emptier::Waiting(waker) => waker.clone_from(context.waker()),
            other => *other = Emptier::Waiting(context.waker().clone()),
        }
        Poll::Pending
    }

    /// The same, but lends the outlet while there is none: the task is woken only if there is
    /// something that a visitor cannot do. [`Mailbox::poll_outlet`] gives it back.
    pub fn poll_mail_or_lend(&self, outlet: &mut Option<Outlet>, context: &mut Context<'_>) -> Poll<Mail> {
        let Some(mut lent) = outlet.take() else { return Poll::Pending };
        let mut queue = self.queue.lock();
        if let Some(mail) = queue.take(&mut lent.pieces) {
            *outlet = Some(lent);
            return Poll::Ready(mail);
        }
        lent.pieces.shrink_to(KEPT_PLACES);
        queue.emptier = Emptier::Lent(context.waker().clone(), lent);
        Poll::Pending
    }

    /// Takes the outlet back that was lent. While it is in use, the task is woken when it is not.
    pub fn poll_outlet(&self, context: &mut Context<'_>) -> Poll<Outlet> {
        let mut queue = self.queue.lock();
        match std::mem::take(&mut queue.emptier) {
            Emptier::Lent(_, outlet) | Emptier::Returned(outlet) => Poll::Ready(outlet),
            Emptier::Visited { .. } => {
                queue.emptier = Emptier::Visited { task: context.waker().clone(), is_wanted: true };
                Poll::Pending
            }
            Emptier::AtWork | Emptier::Waiting(_) => Poll::Pending,
        }
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

impl Visit {
    /// Writes what waits, as far as there is room; gives the next visit if something came meanwhile.
    /// What there is no room for, and all else, is the task's.
    pub fn write(self) -> Option<Self> {
        let Self { mailbox, outlet } = self;
        if outlet.is_to_be_read() {
            // Whoever has gone must not count as having seen what is written now.
            mailbox.return_outlet(outlet);
            return None;
        }
        let mut outlet = mailbox.fill(outlet)?;
        let tick = outlet.last_tick();
        match outlet.try_write() {
            Ok(true) => {
                if let Some(tick) = tick {
                    mailbox.mark_written(tick);
                }
                mailbox.end_visit(outlet)
            }
            // What is wrong, the task will find out itself.
            Ok(false) | Err(_) => {
                mailbox.return_outlet(outlet);
                None
            }
        }
    }
}

impl Mailbox {
    /// Fills an outlet with what waits; none: there is nothing that a visitor can write.
    fn fill(self: &Arc<Self>, mut outlet: Outlet) -> Option<Outlet> {
        let mail = self.queue.lock().take(&mut outlet.pieces);
        match mail {
            Some(Mail::Pieces(pieces)) => outlet.pieces = pieces,
            Some(Mail::Beat) => outlet.pieces.push_back(Piece::heartbeat()),
            Some(Mail::Closed(_)) | None => {
                self.return_outlet(outlet);
                return None;
            }
        }
        Some(outlet)
    }

    /// All was written: the outlet is lent for the next mail, or there is some already.
    fn end_visit(self: &Arc<Self>, mut outlet: Outlet) -> Option<Visit> {
        outlet.pieces.shrink_to(KEPT_PLACES);
        let mut queue = self.queue.lock();
        match std::mem::take(&mut queue.emptier) {
            Emptier::Visited { task, is_wanted: false } if queue.has_mail() => {
                queue.emptier = Emptier::Visited { task, is_wanted: false };
                return Some(Visit { mailbox: self.clone(), outlet });
            }
            Emptier::Visited { task, is_wanted: false } => queue.emptier = Emptier::Lent(task, outlet),
            wanted => {
                queue.emptier = wanted;
                drop(queue);
                self.return_outlet(outlet);
            }
        }
        None
    }

    /// A visitor gives an outlet back to the listener's task.
    fn return_outlet(&self, outlet: Outlet) {
        let before = std::mem::replace(&mut self.queue.lock().emptier, Emptier::Returned(outlet));
        if let Emptier::Visited { task, .. } = before {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A piece whose message has so many bytes, two of them its head.
    fn piece(bytes: usize, tick: u64) -> Arc<Piece> {
        let head = if bytes < 128 { 2 } else { 4 };
        Piece::new(&format!("[{}]", "1".repeat(bytes - head - 2)), Tick(tick), None)
    }

    /// Puts a piece in; whether somebody was woken who waits.
    fn wakes(mailbox: &Arc<Mailbox>, piece: &Arc<Piece>) -> bool {
        mailbox.push(piece, 100).is_some()
    }

    /// Waits, without anything being there.
    fn wait(mailbox: &Mailbox) {
        assert!(mailbox.poll_mail(&mut Pieces::new(), &mut Context::from_waker(Waker::noop())).is_pending());
    }

    #[tokio::test]
    async fn pieces_come_in_order_and_wake_once() {
        let mailbox = Arc::new(Mailbox::new(Tick(0)));
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
        let mailbox = Arc::new(Mailbox::new(Tick(0)));
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
        let mailbox = Arc::new(Mailbox::new(Tick(0)));
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
        let mailbox = Arc::new(Mailbox::with_cursor(Tick(0), Position(5)));
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
        let mailbox = Arc::new(Mailbox::new(Tick(0)));
        wakes(&mailbox, &piece(10, 1));
        mailbox.close(Closing::Ended);
        mailbox.close(Closing::GoingAway);
        assert!(matches!(mailbox.mail().await, Mail::Pieces(_)));
        assert!(matches!(mailbox.mail().await, Mail::Closed(Closing::Ended)));
    }

    #[tokio::test]
    async fn heartbeats_are_for_open_connections_and_come_after_what_waits() {
        let mailbox = Arc::new(Mailbox::new(Tick(0)));
        assert!(mailbox.beat().is_none());
        wait(&mailbox);
        mailbox.watch(Progress::start());
        assert!(mailbox.beat().is_some());
        wakes(&mailbox, &piece(10, 1));
        assert!(matches!(mailbox.mail().await, Mail::Pieces(_)));
        assert!(matches!(mailbox.mail().await, Mail::Beat));
        wait(&mailbox);
    }

    /// A mailbox that was lent the outlet of a socket, that socket, and the client's end.
    async fn lent() -> (Arc<Mailbox>, Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let tcp = Arc::new(listener.accept().await.unwrap().0);
        tcp.writable().await.unwrap();
        // As its task does before it sleeps.
        assert!(tcp.try_read(&mut [0]).is_err(), "nothing came");
        let mailbox = Arc::new(Mailbox::new(Tick(0)));
        let mut outlet = Some(Outlet::new(tcp.clone(), Progress::start()));
        assert!(mailbox.poll_mail_or_lend(&mut outlet, &mut Context::from_waker(Waker::noop())).is_pending());
        (mailbox, tcp, client)
    }

    fn visit(mailbox: &Arc<Mailbox>, tick: u64) {
        let Some(Call::Visit(visit)) = mailbox.push(&piece(10, tick), 100) else { panic!("no visit") };
        assert!(visit.write().is_none());
    }

    #[tokio::test]
    async fn a_visitor_writes_what_waits_and_lends_again() {
        let (mailbox, _tcp, mut client) = lent().await;
        for tick in [1, 2] {
            visit(&mailbox, tick);
            assert_eq!(mailbox.written(), Tick(tick));
            let mut message = [0; 10];
            client.read_exact(&mut message).await.unwrap();
            assert_eq!(message, piece(10, tick).message()[..]);
        }
    }

    #[tokio::test]
    async fn who_has_gone_is_not_counted_as_having_seen_what_comes() {
        let (mailbox, tcp, client) = lent().await;
        drop(client);
        tcp.readable().await.unwrap();
        visit(&mailbox, 1);
        assert_eq!(mailbox.written(), Tick(0));
        let mut context = Context::from_waker(Waker::noop());
        assert!(mailbox.poll_outlet(&mut context).is_ready(), "the task has it back");
        assert!(matches!(mailbox.poll_mail(&mut Pieces::new(), &mut context), Poll::Ready(Mail::Pieces(_))));
    }
}
