//! Everything that changes under the one lock: the router, the mailboxes of those who listen, and
//! what is still on its way to the store. Hands out what the router shows: consecutive frames of
//! one channel become one piece, made once, and each listener is woken once.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use indexmap::IndexMap;
use slab::Slab;
use tokio::sync::oneshot;

use crate::beats::Beats;
use crate::domain::draft::{Draft, Found, Key, Undecided};
use crate::domain::event::Event;
use crate::domain::frame::{Frame, Tick};
use crate::domain::listen::Departure;
use crate::domain::names::{ChannelName, ConnectionId, ListenerId};
use crate::domain::operation::{Operation, Post, Posted};
use crate::domain::position::{Cursor, Epoch, Position};
use crate::domain::replay::{Plan, Since};
use crate::domain::router::{Effect, Recipients, Router};
use crate::domain::tail::Place;
use crate::domain::timestamp::Moment;
use crate::mailbox::{Call, Closing, Mailbox, Visit};
use crate::order::{Order, Ticket, Unparked};
use crate::piece::{Piece, PieceDraft};
use crate::visitors::Visitors;
use crate::wire::frame;

/// Listeners that have mail: to be woken or visited after the lock is given back.
#[derive(Debug, Default)]
#[must_use]
pub struct Wake {
    tasks: Vec<Waker>,
    visits: Vec<Visit>,
    /// Who is to make the visits; none until there is all of it.
    visitors: Option<Arc<Visitors>>,
}

impl Wake {
    fn add(&mut self, call: Option<Call>) {
        match call {
            Some(Call::Wake(task)) => self.tasks.push(task),
            Some(Call::Visit(visit)) => self.visits.push(visit),
            None => {}
        }
    }

    /// Sees to all of them. Nobody waits until that is done.
    pub fn wake(self) {
        for task in self.tasks {
            task.wake();
        }
        if let Some(visitors) = self.visitors.filter(|_| !self.visits.is_empty()) {
            visitors.visit(self.visits);
        }
    }
}

/// Frames for all listeners of a channel that are being put into one piece.
#[derive(Debug)]
struct Run {
    channel: ChannelName,
    draft: PieceDraft,
    /// The place of the last frame.
    tick: Tick,
}

/// What became of messages that were to be posted.
pub enum Posting {
    /// They were shown.
    Shown(Vec<Posted>),
    /// They are shown after what has to come first.
    Parked {
        /// The number to show them by.
        number: u64,
        /// What becomes of them.
        answer: oneshot::Receiver<Unparked>,
        /// They wait for no request: [`Live::show_parked`] is to show them.
        is_free: bool,
    },
    /// The journal has to decide about them.
    ForTheJournal(Post),
    /// Too many are parked.
    Refused,
}

/// Most tails that are read in one go: each may have 256 KiB.
const MAX_TAILS: usize = 200;

/// See the module.
pub struct Live {
    /// All live state.
    pub router: Router,
    epoch: Epoch,
    mailboxes: Slab<Arc<Mailbox>>,
    max_queue_bytes: usize,
    served: bool,
    order: Order,
    run: Option<Run>,
    effects: Vec<Effect>,
    wake: Wake,
    visitors: Arc<Visitors>,
    beats: Beats,
    /// Tails that are to reach further back, and who waits for them.
    wanted: IndexMap<Place, Vec<oneshot::Sender<()>>>,
    deliveries: u64,
}

impl Live {
    /// Nobody listens yet.
    pub fn new(router: Router, epoch: Epoch, max_queue_bytes: usize) -> Self {
        Self {
            router,
            epoch,
            mailboxes: Slab::new(),
            max_queue_bytes,
            served: true,
            order: Order::default(),
            run: None,
            effects: Vec::new(),
            wake: Wake::default(),
            visitors: Visitors::new(),
            beats: Beats::default(),
            wanted: IndexMap::new(),
            deliveries: 0,
        }
    }

    // Order between what goes through the journal and what does not.

    /// A request goes to the journal that shows something in these places.
    pub fn depart(&mut self, places: Vec<Key>) -> Ticket {
        self.order.depart(places)
    }

    /// A request was applied, or never will be.
    pub fn arrive(&mut self, ticket: Ticket) {
        self.order.arrive(ticket);
    }

    /// Shows messages of which nothing is stored, at once or after what has to come first.
    /// [`Live::hand_out`] must follow before the lock is given back.
    pub fn post(&mut self, post: Post, moment: Moment) -> Posting {
        if !Post::is_ephemeral(&post.messages, &self.router) {
            return Posting::ForTheJournal(post);
        }
        let behind = self.order.last_before(|| post.shows_in());
        if behind.is_none() && !self.order.is_unparking() {
            return Posting::Shown(self.show_unstored(post, moment));
        }
        self.park(post, behind)
    }

    /// The same for messages of which nothing is stored that are too many for one hold of the lock:
    /// [`Live::show_parked`] shows them. `places`: where.
    pub fn post_many(&mut self, post: Post, places: Vec<Key>) -> Posting {
        let behind = self.order.last_before(|| places);
        self.park(post, behind)
    }

    fn park(&mut self, post: Post, behind: Option<Ticket>) -> Posting {
        match self.order.park(post, behind) {
            Some((number, answer)) => Posting::Parked { number, answer, is_free: behind.is_none() },
            None => Posting::Refused,
        }
    }

    /// Parked messages wait for no request any more: [`Live::show_parked`] shows them.
    pub fn free_parked(&mut self, number: u64) {
        self.order.free(number);
    }

    /// The number after the last that was parked.
    pub fn next_parked(&self) -> u64 {
        self.order.next_number()
    }

    /// Shows messages parked before a number that wait for no request any more. True if there are more of
    /// them `until` when it may go on. [`Live::hand_out`] must follow before the lock is given back.
    pub fn show_parked(&mut self, before: u64, moment: Moment, until: Instant) -> bool {
        let mut order = std::mem::take(&mut self.order);
        let more = order.unpark(before, until, &mut |some| self.show_if_unstored(some, moment));
        self.order = order;
        more
    }

    /// Gives messages back about which the journal has to decide.
    fn show_if_unstored(&mut self, post: Post, moment: Moment) -> Result<Vec<Posted>, Post> {
        match Post::is_ephemeral(&post.messages, &self.router) {
            true => Ok(self.show_unstored(post, moment)),
            false => Err(post),
        }
    }

    /// Decides and applies messages that nothing stores.
    fn show_unstored(&mut self, mut post: Post, moment: Moment) -> Vec<Posted> {
        let found = Found::default();
        let mut draft = Draft::new(&self.router, moment, &found);
        draft.begin();
        let mut decided = Err(Undecided::More);
        while decided == Err(Undecided::More) {
            decided = post.decide(&self.router, &mut draft);
        }
        debug_assert!(decided.is_ok(), "alone in its draft");
        let (events, _) = draft.finish();
        debug_assert!(!events.iter().any(Event::is_durable), "nothing of it is stored");
        self.apply(&events, moment);
        post.posted
    }

    // Handing out.

    /// Applies events in order and puts what they show into mailboxes. [`Live::hand_out`] must
    /// follow before the lock is given back.
    pub fn apply(&mut self, events: &[Event], moment: Moment) {
        let mut effects = std::mem::take(&mut self.effects);
        for event in events {
            if changes_listeners(event) {
                self.close_run();
            }
            self.router.apply(event, moment, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Show { tick, frame, to } => self.show(tick, &frame, to),
                    Effect::End { listener, dismissed } => self.end(listener, dismissed),
                }
            }
            if let Event::Subscribed { id, .. } = event
                && let Some(listener) = self.router.listener_of(*id)
            {
                self.tell_head(listener);
            }
        }
        self.effects = effects;
    }

    /// A listener that keeps a cursor is told the head, in order with all else that it is told.
    fn tell_head(&mut self, listener: ListenerId) {
        self.close_run();
        let Some(mailbox) = self.mailboxes.get(listener.0 as usize) else { return };
        let position = self.router.head();
        if !mailbox.keeps_cursor() || mailbox.position() >= position {
            return;
        }
        let text = frame::cursor_frame(Cursor { epoch: self.epoch.clone(), position });
        let piece = Piece::new(&text, self.router.tick(), Some(position));
        self.wake.add(mailbox.push(&piece, self.max_queue_bytes));
    }

    /// A heartbeat is due for one of so many parts of all listeners. Beside it, positions are told
    /// that a listener will never see.
    pub fn beat(&mut self, part: usize, of: usize) -> Wake {
        let mailboxes = &self.mailboxes;
        let present = self.beats.turn(part, of, |listener, mailbox| {
            mailboxes.get(listener.0 as usize).is_some_and(|present| Arc::as_ptr(present) == mailbox.as_ptr())
        });
        for listener in present {
            self.tell_head(listener);
            self.wake.add(self.mailboxes[listener.0 as usize].beat());
        }
        self.hand_out()
    }

    /// Completes what was applied: says whom to wake.
    pub fn hand_out(&mut self) -> Wake {
        self.close_run();
        Wake { visitors: Some(self.visitors.clone()), ..std::mem::take(&mut self.wake) }
    }

    fn show(&mut self, tick: Tick, frame: &Frame, to: Recipients) {
        match to {
            Recipients::Members { channel, except } if except.is_empty() => self.add_to_run(channel, tick, frame),
            Recipients::Members { channel, except } => {
                self.close_run();
                let piece = self.piece_of(frame, tick);
                if let Some(channel) = self.router.channel(&channel) {
                    let listeners = channel.members.listeners();
                    let others = listeners.filter(|listener| except.binary_search(listener).is_err());
                    self.deliveries += push(&self.mailboxes, &mut self.wake, others, &piece, self.max_queue_bytes);
                }
            }
            Recipients::Only(listeners) => {
                self.close_run();
                if !listeners.is_empty() {
                    let piece = self.piece_of(frame, tick);
                    self.deliveries +=
                        push(&self.mailboxes, &mut self.wake, listeners.into_iter(), &piece, self.max_queue_bytes);
                }
            }
        }
    }

    /// Adds a frame to the piece that is being made for a channel; it stays within its size unless
    /// one frame alone is larger.
    fn add_to_run(&mut self, channel: ChannelName, tick: Tick, frame: &Frame) {
        if self.router.channel(&channel).is_none_or(|channel| channel.members.listeners().len() == 0) {
            return;
        }
        if self.run.as_ref().is_some_and(|run| run.channel != channel) {
            self.close_run();
        }
        let Some(run) = &mut self.run else {
            let draft = PieceDraft::new(frame, false, &self.epoch);
            self.run = Some(Run { channel, draft, tick });
            return;
        };
        let full = run.draft.add(frame, false, &self.epoch);
        let before = std::mem::replace(&mut run.tick, tick);
        if let Some(full) = full {
            self.send(&channel, &full.finish(before));
        }
    }

    /// Whether what an event shows would go into the piece that is being made.
    pub fn is_collecting_for(&self, event: &Event) -> bool {
        let channel = match event {
            Event::Posted { message, .. } => &message.channel,
            Event::Edited { edit, .. } => &edit.channel,
            Event::Deleted { deletion, .. } => &deletion.channel,
            _ => return false,
        };
        self.run.as_ref().is_some_and(|run| Some(&run.channel) == channel.as_ref())
    }

    fn piece_of(&self, shown: &Frame, tick: Tick) -> Arc<Piece> {
        PieceDraft::new(shown, false, &self.epoch).finish(tick)
    }

    /// Sends off the frames that were collected.
    fn close_run(&mut self) {
        if let Some(Run { channel, draft, tick }) = self.run.take() {
            self.send(&channel, &draft.finish(tick));
        }
    }

    /// Puts a piece before all who listen in a channel.
    fn send(&mut self, channel: &ChannelName, piece: &Arc<Piece>) {
        if let Some(channel) = self.router.channel(channel) {
            self.deliveries +=
                push(&self.mailboxes, &mut self.wake, channel.members.listeners(), piece, self.max_queue_bytes);
        }
    }

    fn end(&mut self, listener: ListenerId, dismissed: bool) {
        self.close_run();
        if let Some(mailbox) = self.mailboxes.get(listener.0 as usize) {
            mailbox.close(if dismissed { Closing::Ended } else { Closing::Unknown });
        }
    }

    // Tails that do not reach back far enough.

    /// Someone waits until the tail of a place reaches further back.
    pub fn want_tail(&mut self, place: Place) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.wanted.entry(place).or_default().push(sender);
        receiver
    }

    /// Whether anybody waits for a tail.
    pub fn wants_tails(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Some of the tails that are waited for, each with the position up to which the log is to be
    /// read: so many that the log may hold about `entries` of them together, of each at most `each`.
    pub fn next_tails(&mut self, entries: usize, each: usize) -> Vec<WantedTail> {
        let mut tails = Vec::new();
        let mut expected = 0;
        while expected < entries
            && tails.len() < MAX_TAILS
            && let Some((place, waiting)) = self.wanted.shift_remove_index(0)
        {
            // Those who wait for one that has come meanwhile are told by this.
            let Some(before) = self.router.tail_wants(&place) else { continue };
            expected += 1 + self.router.held(&place).min(each);
            tails.push(WantedTail { place, before, waiting });
        }
        tails
    }

    // Listeners.

    /// How many frames were put before listeners, counted once for each of them.
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// How many listen.
    pub fn listener_count(&self) -> usize {
        self.mailboxes.len()
    }

    /// A connection begins to listen; another listener of it is closed. `since`: where it wants to
    /// continue, if it keeps a cursor. None: there is no such connection.
    pub fn attach(&mut self, id: ConnectionId, since: Option<&Since>, moment: Moment) -> Option<Attached> {
        if let Some(old) = self.router.listener_of(id) {
            self.detach(id, old, Departure::Lost, moment);
            if let Some(mailbox) = self.mailboxes.get(old.0 as usize) {
                mailbox.close(Closing::Replaced);
            }
        }
        let seen = self.router.connection(id)?.seen;
        let mailbox = Arc::new(match since {
            Some(_) => Mailbox::with_cursor(seen, self.router.head()),
            None => Mailbox::new(seen),
        });
        if !self.served {
            mailbox.close(Closing::GoingAway);
        }
        let listener = ListenerId(self.mailboxes.insert(mailbox.clone()) as u32);
        self.beats.join(listener, &mailbox);
        let unlogged = since.map(|_| self.router.missed_unlogged(id));
        let missed = self.router.attach(id, listener, moment)?;
        let plan = since.and_then(|since| self.router.plan_replay(id, since, moment));
        let missed = unlogged.unwrap_or(missed);
        Some(Attached { listener, mailbox, missed, plan, tick: self.router.tick() })
    }

    /// A listener is no more.
    pub fn detach(&mut self, id: ConnectionId, listener: ListenerId, how: Departure, moment: Moment) {
        let Some(mailbox) = self.mailboxes.get(listener.0 as usize) else { return };
        self.router.detach(id, listener, mailbox.written(), how, moment);
    }

    /// Its place may be given to another.
    pub fn remove(&mut self, listener: ListenerId) {
        self.mailboxes.try_remove(listener.0 as usize);
    }

    /// Who comes from now on is sent away at once.
    pub fn stop_serving(&mut self) {
        self.served = false;
    }

    /// The mailboxes of those who listen at some of the places; none: there are no more places.
    pub fn mailboxes(&self, places: std::ops::Range<usize>) -> Option<Vec<Arc<Mailbox>>> {
        let end = self.mailboxes.capacity();
        (places.start < end).then(|| places.filter_map(|place| self.mailboxes.get(place)).cloned().collect())
    }
}

/// A tail that is to reach further back; who waits is told when this is dropped.
pub struct WantedTail {
    /// Of what.
    pub place: Place,
    /// It has what comes after this.
    pub before: Position,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Drop for WantedTail {
    fn drop(&mut self) {
        for waiting in self.waiting.drain(..) {
            // Who does not wait any more need not be told.
            let _ = waiting.send(());
        }
    }
}

/// A listener that was attached.
pub struct Attached {
    /// Its place.
    pub listener: ListenerId,
    /// Its mailbox.
    pub mailbox: Arc<Mailbox>,
    /// The frames it missed; without those in the log, if there is a plan for reading that.
    pub missed: Vec<Frame>,
    /// What to read of the log, if it keeps a cursor.
    pub plan: Option<Plan>,
    /// Everything up to here is among them, or was seen.
    pub tick: Tick,
}

/// Whether an event changes who listens in a channel, so that frames before and after it go to
/// different listeners.
fn changes_listeners(event: &Event) -> bool {
    matches!(
        event,
        Event::ConnectionEnded { .. }
            | Event::Subscribed { .. }
            | Event::Unsubscribed { .. }
            | Event::ChannelForgotten { .. }
    )
}

/// Puts a piece into mailboxes; how many frames that are, counted once for each listener.
fn push(
    mailboxes: &Slab<Arc<Mailbox>>,
    wake: &mut Wake,
    listeners: impl Iterator<Item = ListenerId>,
    piece: &Arc<Piece>,
    max_bytes: usize,
) -> u64 {
    let mut count = 0;
    for listener in listeners {
        let Some(mailbox) = mailboxes.get(listener.0 as usize) else { continue };
        wake.add(mailbox.push(piece, max_bytes));
        count += 1;
    }
    count * u64::from(piece.frames)
}

#[cfg(test)]
mod tests;
