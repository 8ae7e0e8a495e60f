//! A channel in memory: settings, members, history, recent frames.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDateTime;
use hashbrown::{DefaultHashBuilder, HashMap};
use indexmap::IndexSet;
use uuid::Uuid;

use super::frame::RecentFrames;
use super::message::Message;
use super::names::{ConnectionId, ListenerId, Username};
use super::position::Position;
use super::settings::ChannelSettings;

/// Frames kept for listeners that come back. Source: the stock server.
const RECENT_FRAMES: usize = 100;

/// A message as the log holds it now.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Where it was logged.
    pub position: Position,
    /// Where its latest edit was logged.
    pub edit: Option<Position>,
    /// When it was committed, in microseconds since 1970.
    pub committed: i64,
    /// Its present content.
    pub message: Arc<Message>,
}

/// Most bytes of message bodies in one channel's history, whatever its size; the newest always stays.
const MAX_HISTORY_BYTES: usize = 16 << 20;

/// The newest logged messages of a channel, oldest first.
#[derive(Debug, Default)]
pub struct History {
    entries: VecDeque<Logged>,
    positions: HashMap<Uuid, Position>,
    bytes: usize,
}

impl History {
    /// Adds the newest message.
    pub fn push(&mut self, logged: Logged) {
        self.positions.insert(logged.message.uuid, logged.position);
        self.bytes += weight(&logged.message);
        self.entries.push_back(logged);
    }

    /// Leaves only the newest `size` messages, and fewer if they are very large.
    pub fn cut(&mut self, size: usize) {
        while self.entries.len() > size || self.bytes > MAX_HISTORY_BYTES && self.entries.len() > 1 {
            if let Some(oldest) = self.entries.pop_front() {
                self.forget(&oldest);
            }
        }
    }

    /// The message of a uuid.
    pub fn get(&self, uuid: Uuid) -> Option<&Logged> {
        self.entries.get(self.index(*self.positions.get(&uuid)?)?)
    }

    /// The message at a position was edited.
    pub fn replace(&mut self, position: Position, message: Arc<Message>, edit: Option<Position>) {
        if let Some(index) = self.index(position) {
            let logged = &mut self.entries[index];
            self.bytes = self.bytes + weight(&message) - weight(&logged.message);
            logged.message = message;
            logged.edit = edit;
        }
    }

    /// The message at a position is gone; whether it was here.
    pub fn remove(&mut self, position: Position) -> bool {
        let removed = self.index(position).and_then(|index| self.entries.remove(index));
        if let Some(removed) = &removed {
            self.forget(removed);
        }
        removed.is_some()
    }

    /// All messages, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Logged> {
        self.entries.iter()
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn index(&self, position: Position) -> Option<usize> {
        self.entries.binary_search_by_key(&position, |logged| logged.position).ok()
    }

    fn forget(&mut self, gone: &Logged) {
        // The same uuid may have been said again after this one's time was over.
        if self.positions.get(&gone.message.uuid) == Some(&gone.position) {
            self.positions.remove(&gone.message.uuid);
        }
        self.bytes -= weight(&gone.message);
    }
}

fn weight(message: &Message) -> usize {
    message.body.as_ref().map_or(0, |body| body.get().len())
}

/// How many entries of a kind the log holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retained {
    /// Messages.
    pub messages: u32,
    /// Deletions.
    pub deletions: u32,
}

/// Most entries of a kind that are trimmed in one go, so that no batch takes long.
const TRIM_STEP: u32 = 2_000;

impl Retained {
    /// Whether the log holds nothing.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether enough entries are past retention to make trimming worth its cost.
    pub fn exceeds(self, kept: u32) -> bool {
        self.messages.max(self.deletions) > kept + (kept / 4).max(16)
    }

    /// What is to be left by one trimming on the way to `kept`.
    pub fn trimmed(self, kept: u32) -> Self {
        let left = |count: u32| count.min(kept.max(count.saturating_sub(TRIM_STEP)));
        Self { messages: left(self.messages), deletions: left(self.deletions) }
    }
}

/// A channel that is in memory.
#[derive(Debug)]
pub struct Channel {
    /// Its identity.
    pub uuid: Uuid,
    /// Its settings.
    pub settings: ChannelSettings,
    /// When something last happened in it.
    pub last_active: NaiveDateTime,
    /// Who is in it.
    pub members: Members,
    /// The newest logged messages; at most `history_size`.
    pub history: History,
    /// What the log holds, the history included.
    pub retained: Retained,
    /// Recent frames, for listeners that come back.
    pub recent: RecentFrames,
    /// When it was last needed, for leaving memory.
    pub used: Duration,
}

impl Channel {
    /// A channel in which nothing was said yet.
    pub fn new(uuid: Uuid, settings: ChannelSettings, last_active: NaiveDateTime) -> Self {
        Self {
            uuid,
            settings,
            last_active,
            members: Members::default(),
            history: History::default(),
            retained: Retained::default(),
            recent: RecentFrames::new(RECENT_FRAMES),
            used: Duration::ZERO,
        }
    }

    /// Adds a message that was logged.
    pub fn log(&mut self, logged: Logged) {
        self.retained.messages += 1;
        self.history.push(logged);
        self.cut_history();
    }

    /// Leaves only the newest `history_size` messages in the history.
    pub fn cut_history(&mut self) {
        self.history.cut(self.settings.history_size as usize);
    }

    /// The history as it is at `now` (microseconds since 1970): what is past its time is left out.
    pub fn history_at(&self, now: i64) -> impl Iterator<Item = &Logged> {
        let over = self.settings.over_by(now);
        self.history.iter().filter(move |logged| logged.committed > over)
    }

    /// Whether the log may hold more messages than the history shows, so that one may come back
    /// when another goes or the history grows.
    pub fn has_older(&self) -> bool {
        self.retained.messages as usize > self.history.len()
    }

    /// Whether it is worth trimming.
    pub fn is_overfull(&self) -> bool {
        self.retained.exceeds(self.settings.kept())
    }
}

/// Who is in a channel: connections grouped by user, and those of them that listen right now.
#[derive(Debug, Default)]
pub struct Members {
    users: HashMap<Username, Vec<ConnectionId>>,
    connections: usize,
    listeners: IndexSet<ListenerId, DefaultHashBuilder>,
}

impl Members {
    /// Adds a connection; true if it is the user's first.
    pub fn join(&mut self, user: &Username, id: ConnectionId) -> bool {
        let of_user = self.users.entry_ref(user).or_default();
        of_user.push(id);
        self.connections += 1;
        of_user.len() == 1
    }

    /// Takes a connection out; true if it was the user's last.
    pub fn leave(&mut self, user: &Username, id: ConnectionId) -> bool {
        let Some(of_user) = self.users.get_mut(user) else { return false };
        let before = of_user.len();
        of_user.retain(|other| *other != id);
        self.connections -= before - of_user.len();
        let last = of_user.is_empty();
        if last {
            self.users.remove(user);
        }
        last
    }

    /// A member's connection began to listen.
    pub fn attach(&mut self, listener: ListenerId) {
        self.listeners.insert(listener);
    }

    /// A member's connection listens no more.
    pub fn detach(&mut self, listener: ListenerId) {
        self.listeners.swap_remove(&listener);
    }

    /// Everyone who listens, in no order.
    pub fn listeners(&self) -> impl ExactSizeIterator<Item = ListenerId> {
        self.listeners.iter().copied()
    }

    /// The users, in no order.
    pub fn users(&self) -> impl Iterator<Item = &Username> {
        self.users.keys()
    }

    /// The connections of one user.
    pub fn connections_of(&self, user: &Username) -> &[ConnectionId] {
        self.users.get(user).map_or(&[], Vec::as_slice)
    }

    /// How many users.
    pub fn user_count(&self) -> usize {
        self.users.len()
    }

    /// How many connections.
    pub fn connection_count(&self) -> usize {
        self.connections
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}
