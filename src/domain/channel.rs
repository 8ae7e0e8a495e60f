//! A channel in memory: settings, members, history, recent frames.

use std::time::Duration;

use chrono::NaiveDateTime;
use hashbrown::{DefaultHashBuilder, HashMap};
use indexmap::IndexSet;
use uuid::Uuid;

use super::connection::Connections;
use super::frame::RecentFrames;
pub use super::history::{History, Logged, Retained};
use super::names::{ConnectionId, ListenerId, Username};
use super::roster::Roster;
use super::settings::ChannelSettings;
use super::tail::Tail;

/// Frames kept for listeners that come back. Source: the stock server.
const RECENT_FRAMES: usize = 100;

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
    /// The newest part of that.
    pub tail: Tail,
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
            tail: Tail::default(),
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
    users: HashMap<Username, Connections>,
    roster: Roster,
    connections: usize,
    listeners: IndexSet<ListenerId, DefaultHashBuilder>,
}

impl Members {
    /// Adds a connection; true if it is the user's first.
    pub fn join(&mut self, user: &Username, id: ConnectionId) -> bool {
        let of_user = self.users.entry_ref(user).or_default();
        of_user.push(id);
        self.connections += 1;
        let first = of_user.len() == 1;
        if first {
            self.roster.insert(user);
        }
        first
    }

    /// Takes a connection out; true if it was the user's last.
    pub fn leave(&mut self, user: &Username, id: ConnectionId) -> bool {
        let Some(of_user) = self.users.get_mut(user) else { return false };
        // They leave in their order, mostly: there it is found at once.
        if let Some(index) = of_user.iter().position(|other| *other == id) {
            of_user.remove(index);
            self.connections -= 1;
        }
        let last = of_user.is_empty();
        if last {
            self.users.remove(user);
            self.roster.remove(user);
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

    /// The users with their connections, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Username, &[ConnectionId])> {
        self.users.iter().map(|(user, connections)| (user, &**connections))
    }

    /// The users, in no order.
    pub fn users(&self) -> impl Iterator<Item = &Username> {
        self.users.keys()
    }

    /// The users, by name.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The connections of one user.
    pub fn connections_of(&self, user: &Username) -> &[ConnectionId] {
        self.users.get(user).map_or(&[], |connections| connections)
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
