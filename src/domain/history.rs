//! What the log holds of a channel, as memory sees it: how much, and the newest messages.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use uuid::Uuid;

use super::message::Message;
use super::position::Position;

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

    /// The message at a position.
    pub fn at(&self, position: Position) -> Option<&Logged> {
        self.entries.get(self.index(position)?)
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

    /// How many one trimming leaves at most, on the way to `kept`.
    pub fn trimmed(self, kept: u32) -> Self {
        let most = |count: u32| kept.max(count.saturating_sub(TRIM_STEP));
        Self { messages: most(self.messages), deletions: most(self.deletions) }
    }

    /// What is left if at most `keep` stay.
    pub fn at_most(self, keep: Self) -> Self {
        Self { messages: self.messages.min(keep.messages), deletions: self.deletions.min(keep.deletions) }
    }

    /// How many entries go if at most `keep` stay.
    pub fn without(self, keep: Self) -> usize {
        let left = self.at_most(keep);
        (self.messages - left.messages + self.deletions - left.deletions) as usize
    }
}
