//! Views: what back ends are told about channels and users, taken at one moment.

use std::time::Duration;

use hashbrown::HashSet;
use uuid::Uuid;

use super::channel::Channel;
use super::history::Logged;
use super::names::{ChannelName, ConnectionId, Username};
use super::position::{Cursor, Position};
use super::roster::Roster;
use super::settings::ChannelSettings;
use super::state::Profile;
use super::tail::Place;
use super::timestamp::{Moment, Timestamp};

/// What a request wants to know.
#[derive(Debug, Clone)]
pub struct InfoOptions {
    /// List the messages of each channel.
    pub include_history: bool,
    /// List the users of each channel.
    pub include_users: bool,
    /// Only these channels; none: all. Only `/info` looks at it.
    pub channels: Option<Vec<ChannelName>>,
    /// Never these channels.
    pub exclude_channels: HashSet<ChannelName>,
    /// Show public state only.
    pub return_public_state: bool,
}

impl Default for InfoOptions {
    fn default() -> Self {
        Self {
            include_history: true,
            include_users: true,
            channels: None,
            exclude_channels: HashSet::new(),
            return_public_state: false,
        }
    }
}

/// A channel as it was at one moment.
#[derive(Debug)]
pub struct ChannelView {
    /// Its name.
    pub name: ChannelName,
    /// Its identity.
    pub uuid: Uuid,
    /// Its settings.
    pub settings: ChannelSettings,
    /// When something last happened in it.
    pub last_active: Timestamp,
    /// Its messages, oldest first.
    pub history: Vec<Logged>,
    /// How many connections are members.
    pub total_connections: usize,
    /// How many users are members.
    pub total_users: usize,
    /// The members, if they were asked for.
    pub users: Roster,
}

/// Channels as they were at one moment.
#[derive(Debug, Default)]
pub struct ChannelsView {
    /// In the order asked for.
    pub channels: Vec<ChannelView>,
    /// Whether only public state is to be shown.
    pub public_state_only: bool,
}

impl ChannelsView {
    /// The members of these channels, once each.
    pub fn members(&self) -> Vec<Username> {
        let mut seen = HashSet::new();
        let all = self.channels.iter().flat_map(|channel| channel.users.iter());
        all.filter(|user| seen.insert(*user)).cloned().collect()
    }
}

/// Channels that an answer is to show, each once.
#[derive(Debug, Default)]
pub struct Showing {
    /// Their names, in order.
    pub names: Vec<ChannelName>,
    /// What is shown of them.
    pub options: InfoOptions,
    /// Who sees it, if it is not the back end.
    pub viewer: Option<Username>,
    /// Of how many it is in the view.
    pub done: usize,
}

/// Some of many channels, as memory knows them.
#[derive(Debug, Default)]
pub struct Glance {
    /// How many were looked at.
    pub count: usize,
    /// Those in memory, in the order asked for.
    pub channels: Vec<ChannelView>,
    /// Those of which memory does not know whether they exist.
    pub unknown: HashSet<ChannelName>,
}

/// Which messages that the log holds a request wants to read.
#[derive(Debug, Clone)]
pub struct HistoryOptions {
    /// Where.
    pub place: Place,
    /// At most so many: the newest, or the oldest if they are after something.
    pub limit: u32,
    /// Only those before this.
    pub before: Option<Cursor>,
    /// Only those after this.
    pub after: Option<Cursor>,
}

/// A page of the messages that the log holds.
#[derive(Debug)]
pub struct HistoryView {
    /// Where.
    pub place: Place,
    /// Oldest first.
    pub messages: Vec<Logged>,
    /// Nothing after this is among them.
    pub head: Position,
    /// Whether there are more of those asked for.
    pub has_more: bool,
}

/// What happened since the start, as the stock server counts it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Messages that were posted with a target.
    pub posted: u64,
    /// Messages times the connections they went to.
    pub delivered: u64,
}

/// What the admin panel shows besides channels.
#[derive(Debug)]
pub struct Report {
    /// Users that are stored.
    pub users: u64,
    /// Channels that are stored.
    pub channels: u64,
    /// Connections.
    pub connections: usize,
    /// What happened since the start.
    pub totals: Totals,
    /// Users that have connections.
    pub connected: Vec<Username>,
    /// Time since the start.
    pub uptime: Duration,
}

/// A user that has connections.
#[derive(Debug)]
pub struct ConnectedUser {
    /// Its name.
    pub name: Username,
    /// Its identity.
    pub uuid: Uuid,
    /// Its state.
    pub profile: Profile,
    /// Its connections.
    pub connections: Vec<ConnectionId>,
}

impl ChannelView {
    /// Looks at one channel; `viewer` sees only messages meant for them, a back end sees all.
    pub fn of(
        name: &ChannelName,
        channel: &Channel,
        options: &InfoOptions,
        viewer: Option<&Username>,
        moment: Moment,
    ) -> Self {
        let visible = |logged: &&Logged| viewer.is_none_or(|user| logged.message.audience.admits(user));
        Self {
            name: name.clone(),
            uuid: channel.uuid,
            settings: channel.settings.clone(),
            last_active: Timestamp::utc(channel.last_active),
            history: if options.include_history {
                channel.history_at(moment.micros()).filter(visible).cloned().collect()
            } else {
                Vec::new()
            },
            total_connections: channel.members.connection_count(),
            total_users: channel.members.user_count(),
            users: if options.include_users { channel.members.roster().clone() } else { Roster::default() },
        }
    }
}
