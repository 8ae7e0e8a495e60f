//! The draft of a batch: operations add events to it one after the other, each seeing what memory
//! holds. One that depends on another of the same draft waits for the next.

use std::sync::Arc;

use chrono::NaiveDateTime;
use hashbrown::HashMap;
use uuid::Uuid;

use super::channel::Logged;
use super::event::Event;
use super::message::{Audience, Message};
use super::names::{ChannelName, ConnectionId, Username};
use super::position::Position;
use super::router::Router;
use super::timestamp::Moment;

/// Something that operations have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A channel.
    Channel(ChannelName),
    /// A user.
    User(Username),
    /// A connection.
    Connection(ConnectionId),
    /// The message of a uuid.
    Message(Uuid),
}

/// How an operation uses what it has in common with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Others may do so in the same batch: posting, joining.
    Shared,
    /// Nobody else may touch it in the same batch: creating, changing.
    Exclusive,
}

/// Why an operation has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such connection.
    UnknownConnection,
    /// There is no such user.
    UnknownUser,
    /// The connection id belongs to another user.
    ForeignConnection,
    /// The user's state would be larger than it may be.
    StateTooLarge,
    /// The connection would have more channels than it may.
    TooManyChannels,
    /// The cursor cannot be trusted.
    UnknownCursor,
}

/// Why an operation is not decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// It has more to decide: ask again, when others have had their turn.
    More,
    /// It depends on another of this draft: ask again with the next one.
    Later,
    /// It never will be.
    Refused(Refusal),
}

impl From<Refusal> for Undecided {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What the log holds of a uuid, in one channel or as a private message.
#[derive(Debug, Clone)]
pub enum Held {
    /// The message.
    Message(Logged),
    /// Its deletion.
    Deletion {
        /// Where that is logged.
        position: Position,
        /// Where the message was logged, if it ever was.
        about: Option<Position>,
        /// Who may see it.
        audience: Arc<Audience>,
    },
}

/// What the log holds of the uuids that a batch asked for, by uuid and channel (none: private).
pub type HeldByUuid = HashMap<(Uuid, Option<ChannelName>), Held>;

/// What the store says that a batch asked for and memory does not hold; it stands exactly at the
/// head that the batch builds on.
#[derive(Debug, Default)]
pub struct Found {
    /// What the log holds of the uuids that were named.
    pub held: HeldByUuid,
    /// The newest entry that was committed by each of the times that were named; 0 is before all.
    pub positions: HashMap<NaiveDateTime, Position>,
}

/// Elements of one operation that are decided in one go, about.
const ELEMENTS: usize = 500;

/// What an operation has added so far, to be able to take it back.
#[derive(Debug, Clone, Copy)]
struct Mark {
    events: usize,
    reloads: usize,
    head: Position,
}

/// The events of one batch, as they are being decided.
pub struct Draft<'a> {
    moment: Moment,
    events: Vec<Event>,
    reloads: Vec<ChannelName>,
    head: Position,
    /// Who touched what: one operation, or several.
    touched: HashMap<Key, (Option<usize>, Touch)>,
    operation: usize,
    start: Mark,
    /// Elements of the present operation that are decided.
    done: usize,
    /// What the present operation changed of what the log holds.
    changed: HeldByUuid,
    /// What it changed of messages that only memory holds.
    changed_recent: HashMap<(Uuid, Option<ChannelName>), Arc<Message>>,
    found: &'a Found,
}

impl<'a> Draft<'a> {
    /// An empty draft on top of what `router` shows. `found`: what the operations asked of the
    /// store.
    pub fn new(router: &Router, moment: Moment, found: &'a Found) -> Self {
        let head = router.head();
        Self {
            moment,
            events: Vec::new(),
            reloads: Vec::new(),
            head,
            touched: HashMap::new(),
            operation: 0,
            start: Mark { events: 0, reloads: 0, head },
            done: 0,
            changed: HashMap::new(),
            changed_recent: HashMap::new(),
            found,
        }
    }

    /// The next operation begins.
    pub fn begin(&mut self) {
        self.operation += 1;
        self.done = 0;
        self.start = Mark { events: self.events.len(), reloads: self.reloads.len(), head: self.head };
        self.changed.clear();
        self.changed_recent.clear();
    }

    /// How many of its elements the present operation has decided.
    pub fn done(&self) -> usize {
        self.done
    }

    /// The present operation has decided one more; now and then it has to be asked again to go on.
    pub fn next_element(&mut self) -> Result<(), Undecided> {
        self.done += 1;
        if self.done.is_multiple_of(ELEMENTS) { Err(Undecided::More) } else { Ok(()) }
    }

    /// Takes back all that the present operation added.
    pub fn take_back(&mut self) {
        self.events.truncate(self.start.events);
        self.reloads.truncate(self.start.reloads);
        self.head = self.start.head;
        self.touched.retain(|_, (owner, _)| *owner != Some(self.operation));
        self.changed.clear();
    }

    /// The present operation uses something; [`Undecided::Later`] if another does so too and one
    /// of the two must be alone.
    pub fn touch(&mut self, key: Key, touch: Touch) -> Result<(), Undecided> {
        let (owner, held) = self.touched.entry(key).or_insert((Some(self.operation), touch));
        if *owner != Some(self.operation) {
            if touch == Touch::Exclusive || *held == Touch::Exclusive {
                return Err(Undecided::Later);
            }
            *owner = None;
        } else if touch == Touch::Exclusive {
            *held = Touch::Exclusive;
        }
        Ok(())
    }

    /// Adds an event.
    pub fn add(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Gives out the next position, for the event that is added next.
    pub fn next_position(&mut self) -> Position {
        self.head = self.head.next();
        self.head
    }

    /// The head, with what this batch adds so far.
    pub fn head(&self) -> Position {
        self.head
    }

    /// The newest entry of the log that was committed by a time.
    pub fn position_at(&self, time: NaiveDateTime) -> Position {
        match self.found.positions.get(&time) {
            Some(position) if time < self.moment.utc => *position,
            // All of it, with what this batch adds so far.
            _ => self.head,
        }
    }

    /// A change that may bring older messages back into a channel's history.
    pub fn reload(&mut self, channel: &ChannelName) {
        self.reloads.push(channel.clone());
    }

    /// When this batch is decided.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// How many events were added so far.
    pub fn event_count(&self) -> usize {
        self.events.len()
    }

    /// How many entries private messages added to inboxes so far: one in that of each user whom they reach.
    pub fn inbox_entries(&self) -> usize {
        let entries = |event: &Event| match event {
            Event::Posted { inboxes, .. } => inboxes.len(),
            _ => 0,
        };
        self.events.iter().map(entries).sum()
    }

    /// What the log holds of a uuid, as the present operation has changed it; but for messages that
    /// are past their time, which are gone though the log may not have been cleared of them yet.
    pub fn held(&self, router: &Router, channel: Option<&ChannelName>, uuid: Uuid) -> Option<Held> {
        let settings = channel.and_then(|name| router.channel(name)).map(|channel| &channel.settings);
        let over = settings.map_or(i64::MIN, |settings| settings.over_by(self.moment.micros()));
        let held = self.still_held(router, channel, uuid);
        held.filter(|held| !matches!(held, Held::Message(logged) if logged.committed <= over))
    }

    /// The same, with what is past its time: for taking it back.
    pub fn still_held(&self, router: &Router, channel: Option<&ChannelName>, uuid: Uuid) -> Option<Held> {
        let key = (uuid, channel.cloned());
        if let Some(held) = self.changed.get(&key) {
            return Some(held.clone());
        }
        let in_memory = channel.and_then(|name| router.logged(name, uuid));
        in_memory.cloned().map(Held::Message).or_else(|| self.found.held.get(&key).cloned())
    }

    /// The present operation changes what the log holds of a uuid.
    pub fn hold(&mut self, channel: Option<&ChannelName>, uuid: Uuid, held: Held) {
        self.changed.insert((uuid, channel.cloned()), held);
    }

    /// A message that only memory holds, as the present operation has changed it.
    pub fn recent(&self, channel: Option<&ChannelName>, uuid: Uuid) -> Option<&Arc<Message>> {
        self.changed_recent.get(&(uuid, channel.cloned()))
    }

    /// The present operation changes a message that only memory holds.
    pub fn hold_recent(&mut self, changed: Arc<Message>) {
        self.changed_recent.insert((changed.uuid, changed.channel.clone()), changed);
    }

    /// The present operation posts a message that another part of it may name.
    pub fn hold_message(&mut self, position: Position, message: Arc<Message>) {
        let logged = Logged { position, edit: None, committed: self.moment.micros(), message };
        let channel = logged.message.channel.clone();
        self.hold(channel.as_ref(), logged.message.uuid, Held::Message(logged));
    }

    /// The events in order, and the channels whose history is to be read anew.
    pub fn finish(self) -> (Vec<Event>, Vec<ChannelName>) {
        (self.events, self.reloads)
    }
}
