//! Everything that changes under the one lock: the router, the mailboxes of those who listen, and
//! what is still on its way to the store. Hands out what the router shows: consecutive frames of
//! one channel become one piece, made once, and each listener is woken once.

use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

use crate::domain::draft::Key;
use crate::domain::event::Event;
use crate::domain::frame::{Frame, Tick};
use crate::domain::listen::Departure;
use crate::domain::names::{ChannelName, ConnectionId, ListenerId};
use crate::domain::position::Epoch;
use crate::domain::router::{Effect, Recipients, Router};
use crate::domain::timestamp::Moment;
use crate::mailbox::{Closing, Mailbox, Piece};
use crate::wire::frame;

/// Largest piece; a single frame may be larger.
const MAX_PIECE_BYTES: usize = 256 * 1024;

/// Listeners that have mail, to be woken after the lock is given back.
#[derive(Debug, Default)]
#[must_use]
pub struct Wake(Vec<Arc<Mailbox>>);

impl Wake {
    /// Wakes them all.
    pub fn wake(self) {
        for mailbox in self.0 {
            mailbox.wake();
        }
    }
}

/// Frames for one set of listeners that are being put into one piece.
#[derive(Debug, Default)]
struct Run {
    /// The channel whose listeners all get it; none: nothing is waiting.
    channel: Option<ChannelName>,
    text: Vec<u8>,
}

/// See the module.
pub struct Live {
    /// All live state.
    pub router: Router,
    epoch: Epoch,
    mailboxes: Slab<Arc<Mailbox>>,
    max_queue_bytes: usize,
    /// How many requests that are on their way to the store touch what.
    on_their_way: HashMap<Key, u32>,
    run: Run,
    effects: Vec<Effect>,
    wake: Wake,
    served: bool,
}

impl Live {
    /// Nobody listens yet.
    pub fn new(router: Router, epoch: Epoch, max_queue_bytes: usize) -> Self {
        Self {
            router,
            epoch,
            mailboxes: Slab::new(),
            max_queue_bytes,
            on_their_way: HashMap::new(),
            run: Run::default(),
            effects: Vec::new(),
            wake: Wake::default(),
            served: true,
        }
    }

    // Order between what goes through the journal and what does not.

    /// A request that touches these is on its way to the store.
    pub fn hold(&mut self, keys: &[Key]) {
        for key in keys {
            *self.on_their_way.entry(key.clone()).or_insert(0) += 1;
        }
    }

    /// A request that touches these was applied, or never will be.
    pub fn release(&mut self, keys: &[Key]) {
        for key in keys {
            if let Some(count) = self.on_their_way.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.on_their_way.remove(key);
                }
            }
        }
    }

    /// Whether a request that touches any of these is on its way to the store.
    pub fn is_held(&self, keys: &[Key]) -> bool {
        !self.on_their_way.is_empty() && keys.iter().any(|key| self.on_their_way.contains_key(key))
    }

    // Handing out.

    /// Applies events in order and puts what they show into mailboxes. [`Live::hand_out`] must
    /// follow before the lock is given back.
    pub fn apply(&mut self, events: &[Event], moment: Moment) {
        for event in events {
            if changes_listeners(event) {
                self.close_run();
            }
            let mut effects = std::mem::take(&mut self.effects);
            self.router.apply(event, moment, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Show { frame, to } => self.show(&frame, to),
                    Effect::End(listener) => self.end(listener),
                }
            }
            self.effects = effects;
        }
    }

    /// Completes what was applied: says whom to wake.
    pub fn hand_out(&mut self) -> Wake {
        self.close_run();
        std::mem::take(&mut self.wake)
    }

    fn show(&mut self, frame: &Frame, to: Recipients) {
        match to {
            Recipients::Members { channel, except } if except.is_empty() => {
                if self.router.listeners(&channel).is_empty() {
                    return;
                }
                if self.run.channel.as_ref() != Some(&channel) || self.run.text.len() >= MAX_PIECE_BYTES {
                    self.close_run();
                    self.run.channel = Some(channel);
                }
                let before = self.run.text.len();
                self.run.text.push(if before == 0 { b'[' } else { b',' });
                frame::write(frame, false, &self.epoch, &mut self.run.text);
                // A piece stays within its size unless one frame alone is larger.
                if before > 0 && self.run.text.len() > MAX_PIECE_BYTES {
                    let last = self.run.text.split_off(before + 1);
                    self.run.text.truncate(before);
                    let channel = self.run.channel.clone();
                    self.close_run();
                    self.run.channel = channel;
                    self.run.text.push(b'[');
                    self.run.text.extend_from_slice(&last);
                }
            }
            Recipients::Members { channel, except } => {
                self.close_run();
                let listeners = self.router.listeners(&channel);
                let others = listeners.iter().filter(|listener| except.binary_search(listener).is_err());
                let piece = self.piece_of(frame);
                push(&self.mailboxes, &mut self.wake, others, &piece, self.max_queue_bytes);
            }
            Recipients::Only(listeners) => {
                self.close_run();
                if !listeners.is_empty() {
                    let piece = self.piece_of(frame);
                    push(&self.mailboxes, &mut self.wake, listeners.iter(), &piece, self.max_queue_bytes);
                }
            }
        }
    }

    fn piece_of(&self, shown: &Frame) -> Arc<Piece> {
        let mut text = vec![b'['];
        frame::write(shown, false, &self.epoch, &mut text);
        piece(text, self.router.tick())
    }

    /// Sends off the frames that were collected.
    fn close_run(&mut self) {
        let Run { channel: Some(channel), text } = std::mem::take(&mut self.run) else { return };
        if text.is_empty() {
            return;
        }
        let piece = piece(text, self.router.tick());
        let listeners = self.router.listeners(&channel).iter();
        push(&self.mailboxes, &mut self.wake, listeners, &piece, self.max_queue_bytes);
    }

    fn end(&mut self, listener: ListenerId) {
        self.close_run();
        if let Some(mailbox) = self.mailboxes.get(listener.0 as usize) {
            mailbox.close(Closing::Ended);
        }
    }

    // Listeners.

    /// How many listen.
    pub fn listener_count(&self) -> usize {
        self.mailboxes.len()
    }

    /// A connection begins to listen; another listener of it is closed. None: there is no such
    /// connection. The piece has the frames it missed.
    pub fn attach(&mut self, id: ConnectionId, moment: Moment) -> Option<(ListenerId, Arc<Mailbox>, Option<Piece>)> {
        if let Some(old) = self.router.listener_of(id) {
            self.detach(id, old, Departure::Lost, moment);
            if let Some(mailbox) = self.mailboxes.get(old.0 as usize) {
                mailbox.close(Closing::Replaced);
            }
        }
        let connection = self.router.connection(id)?;
        let mailbox = Arc::new(Mailbox::new(connection.seen));
        if !self.served {
            mailbox.close(Closing::GoingAway);
        }
        let listener = ListenerId(self.mailboxes.insert(mailbox.clone()) as u32);
        let missed = self.router.attach(id, listener)?;
        let caught_up = self.encode_missed(&missed);
        if caught_up.is_none() {
            mailbox.mark_written(self.router.tick());
        }
        Some((listener, mailbox, caught_up))
    }

    fn encode_missed(&self, missed: &[Frame]) -> Option<Piece> {
        let mut text = Vec::new();
        for shown in missed {
            text.push(if text.is_empty() { b'[' } else { b',' });
            frame::write(shown, true, &self.epoch, &mut text);
        }
        (!text.is_empty()).then(|| finish(text, self.router.tick()))
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

    /// The mailboxes of all who listen; those who come later are sent away at once.
    pub fn stop_serving(&mut self) -> Vec<Arc<Mailbox>> {
        self.served = false;
        self.mailboxes.iter().map(|(_, mailbox)| mailbox.clone()).collect()
    }
}

/// Whether an event changes who listens in a channel, so that frames before and after it go to
/// different listeners.
fn changes_listeners(event: &Event) -> bool {
    matches!(event, Event::ConnectionEnded { .. } | Event::Subscribed { .. } | Event::Unsubscribed { .. })
}

fn push<'a>(
    mailboxes: &Slab<Arc<Mailbox>>,
    wake: &mut Wake,
    listeners: impl Iterator<Item = &'a ListenerId>,
    piece: &Arc<Piece>,
    max_bytes: usize,
) {
    for listener in listeners {
        let Some(mailbox) = mailboxes.get(listener.0 as usize) else { continue };
        if mailbox.push(piece, max_bytes) {
            wake.0.push(mailbox.clone());
        }
    }
}

fn finish(mut text: Vec<u8>, tick: Tick) -> Piece {
    text.push(b']');
    let text = String::from_utf8(text).expect("JSON is UTF-8");
    Piece { text: text.into(), tick }
}

fn piece(text: Vec<u8>, tick: Tick) -> Arc<Piece> {
    Arc::new(finish(text, tick))
}
