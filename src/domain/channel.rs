//! A channel in memory: settings, members, history, recent frames.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDateTime;
use hashbrown::HashMap;
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
    /// The newest logged messages, oldest first; at most `history_size`.
    pub history: VecDeque<Logged>,
    /// How many messages the log holds, those in `history` included.
    pub retained: u32,
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
            history: VecDeque::new(),
            retained: 0,
            recent: RecentFrames::new(RECENT_FRAMES),
            used: Duration::ZERO,
        }
    }

    /// Adds a message that was logged.
    pub fn log(&mut self, logged: Logged) {
        self.retained += 1;
        self.history.push_back(logged);
        self.cut_history();
    }

    /// Leaves only the newest `history_size` messages in the history.
    pub fn cut_history(&mut self) {
        let size = self.settings.history_size as usize;
        let surplus = self.history.len().saturating_sub(size);
        self.history.drain(..surplus);
    }

    /// The history as it is at `now` (microseconds since 1970): what is past its time is left out.
    pub fn history_at(&self, now: i64) -> impl Iterator<Item = &Logged> {
        let oldest = self.settings.history_ttl.map_or(i64::MIN, |seconds| now - i64::from(seconds) * 1_000_000);
        self.history.iter().filter(move |logged| logged.committed > oldest)
    }

    /// Whether the log may hold more messages than the history shows, so that one may come back
    /// when another goes or the history grows.
    pub fn has_older(&self) -> bool {
        self.retained as usize > self.history.len()
    }

    /// Whether enough messages are past retention to make trimming worth its cost.
    pub fn is_overfull(&self) -> bool {
        let kept = self.settings.kept();
        self.retained > kept + (kept / 4).max(16)
    }
}

/// Who is in a channel: connections grouped by user, and those of them that listen right now.
#[derive(Debug, Default)]
pub struct Members {
    users: HashMap<Username, Vec<ConnectionId>>,
    connections: usize,
    listeners: Vec<ListenerId>,
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
        self.listeners.push(listener);
    }

    /// A member's connection listens no more.
    pub fn detach(&mut self, listener: ListenerId) {
        if let Some(index) = self.listeners.iter().position(|other| *other == listener) {
            self.listeners.swap_remove(index);
        }
    }

    /// Everyone who listens, in no order.
    pub fn listeners(&self) -> &[ListenerId] {
        &self.listeners
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
